"""BERT against GPT on tasks: the same text read, the same size, the same labelled examples.

omnia reproduce families_on_tasks --data DIR
"""

from typing import Any

from model.config import ModelConfig
from model.text_encoder_config import TextEncoderConfig
from train.experiment import CausalLM, Checkpoints, Evaluation, Experiment, Muon, Samples, Schedule, TextData
from train.objectives.text.options import MaskedLM
from train.reproduce.files import PublicFile
from train.reproduce.labelled import FILES, TEXTS
from train.reproduce.table import Better, Metric, Row, Shared, Table, training
from train.tasks.classification import Classification
from train.tasks.recipe import fine_tuning

READ = (
    PublicFile("wikitext_valid", "wikitext2/valid.txt", "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8"),
    PublicFile("wikitext_test", "wikitext2/test.txt", "d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0"),
    PublicFile("speeches", "us_speeches/us_speeches.jsonl", "a5a969a1ece15a4d721d6e44602966722d9ea5c3b215a8e71070a8f19d56226a"),
)
SHAPE: dict[str, Any] = {
    "context_length": 128,
    "num_layers": 4,
    "embed_dim": 192,
    "num_heads": 3,
    "positions": "rotary",
    "norm": "rmsnorm",
    "bias": False,
}
FAMILIES = {"bert": "BERT: masked tokens, a head", "gpt": "GPT: the next token, labels as text"}
TASKS = {"trec": "questions", "polarity": "film reviews"}
PRETRAINING, FINE_TUNING = 600, 200


def get_config(arg: str = "bert") -> Experiment:
    family, _, task = arg.partition("_")
    if task:
        return fine_tuning(arg, Classification(length=64, written=8), steps=FINE_TUNING, rate=5e-4)
    return Experiment(
        name=family,
        steps=PRETRAINING,
        batch_size=32,
        data=TextData(),
        model=ModelConfig(**SHAPE, dropout=0.1) if family == "gpt" else TextEncoderConfig(**SHAPE, dropout=0.1),
        objective=CausalLM() if family == "gpt" else MaskedLM(),
        optimizer=Muon(),
        schedule=Schedule(warmup_steps=50, decay="linear", final_fraction=0.0),
        evaluation=Evaluation(every=0, rows=64),
        checkpoints=Checkpoints(every=0),
        samples=Samples(tokens=0),
    )


def get_table() -> Table:
    def command(family: str, task: str) -> str:
        files = f"--data.files {{texts}}/{task}_train.csv --data.validation-files {{texts}}/{task}_test.csv"
        return training(f"{{table}}:{family}_{task}", f"--start {{{family}}}", files)

    read = " ".join(f"{{{file.name}}}" for file in READ)
    corpus = f"omnia prepare text --input {read} --output {{run}} --tokenizer sentencepiece:4096 --validation 0.02"
    return Table(
        title="BERT against GPT on tasks",
        paper="Devlin et al. 2019 (BERT), tables 1 and 5",
        claim="Of equal size and with the same text read, an encoder by its head classifies better than a decoder that writes labels.",
        metrics=(Metric("validation/accuracy", "accuracy", "share", lower_is_better=False),),
        files=(*READ, *FILES),
        shared=(
            TEXTS,
            Shared("corpus", (corpus,)),
            *(Shared(family, (f"omnia train {{table}}:{family} --run-dir {{run}} --data.shards {{corpus}}",)) for family in FAMILIES),
        ),
        rows=tuple(
            Row(f"{family}_{task}", f"{kind}: {what}", (command(family, task),))
            for task, kind in TASKS.items()
            for family, what in FAMILIES.items()
        ),
        claims=tuple(Better(f"bert_{task}", f"gpt_{task}") for task in TASKS),
        note=f"4 layers of 192, {PRETRAINING:,} steps of 32 rows of 128 tokens of English (Muon, once), then "
        f"{FINE_TUNING} steps of 32 examples for each seed. In the paper GPT also has a head; here it writes the label after the text.",
    )
