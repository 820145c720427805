"""Tagged words by a pretrained encoder, and by words counted: what the tables of several files share."""

from collections import Counter

from train.experiment import Experiment
from train.reproduce.table import Metric, Shared, training
from train.tasks.recipe import fine_tuning
from train.tasks.tagging import Tagging

MINILM = Shared("minilm", ("omnia import minilm --run-dir {run}",))
WAYS = {"whole": "six layers of MiniLM", "lora": "the same by LoRA, rank 8", "frozen": "its head alone"}


def experiment_of(way: str) -> Experiment:
    return fine_tuning(
        WAYS[way],
        Tagging(length=64),
        steps=320,
        rate=2e-4 if way == "whole" else 2e-3,
        frozen=("embedding", "positions", "token_types", "embedding_norm", "layers") if way == "frozen" else (),
    )


def command(way: str, learned: str, tested: str) -> str:
    options = "--adapters lora --adapters.rank 8" if way == "lora" else ""
    return training(f"{{table}}:{way}", "--start {minilm}", f"--data.files {{{learned}}} --data.validation-files {{{tested}}} {options}")


METRICS = (
    Metric("validation/f1", "F1 of entities", "share", lower_is_better=False),
    Metric("validation/token_accuracy", "accuracy of tokens", "share", lower_is_better=False),
)


def counted_f1(train: str, test: str) -> float:
    """Strict F1 of logistic regression on each token and two on either side, alone and in pairs, and on the last three characters of longer
    tokens; a tag I that continues nothing begins an entity. Files of sentences with IOB2 tags."""
    from seqeval.metrics import f1_score
    from seqeval.scheme import IOB2
    from sklearn.feature_extraction import FeatureHasher
    from sklearn.linear_model import SGDClassifier

    from data.records.sentences import read_sentences

    learned, tested = (read_sentences(path, left_out=Counter()) for path in (train, test))
    hashed = FeatureHasher(2**20, input_type="string", alternate_sign=False)

    def features(sentences):
        return hashed.transform(_window(sentence.tokens, place) for sentence in sentences for place in range(len(sentence.tokens)))

    model = SGDClassifier(loss="log_loss", alpha=1e-7, max_iter=6, tol=None, random_state=0)
    model.fit(features(learned), [tag for sentence in learned for tag in sentence.tags])
    found, answers = iter(model.predict(features(tested))), []
    for sentence in tested:
        tags = ["O"]
        for _ in sentence.tokens:
            tag = str(next(found))
            tags.append(f"B-{tag[2:]}" if tag.startswith("I-") and tags[-1][2:] != tag[2:] else tag)
        answers.append(tags[1:])
    return float(f1_score([sentence.tags for sentence in tested], answers, mode="strict", scheme=IOB2))


def _window(tokens: list[str], place: int) -> list[str]:
    near = ["<", "<", *tokens, ">", ">"][place : place + 5]
    found = [f"{offset} {token}" for offset, token in enumerate(near)]
    found += [f"{offset} {near[offset]}{near[offset + 1]}" for offset in range(4)]
    return [*found, f"ends {near[2][-3:]}"] if len(near[2]) > 3 else found
