"""A tagger finds names where no pattern does, in lines of any length, and says the same of a line whatever stands beside it."""

import itertools
import json

import numpy as np
import pytest

import omnia
from data.anonymize.surrogates import Key
from data.anonymize.text import Anonymizer
from data.errors import UserError
from data.tokenizer import byte_tokenizer
from model.text_encoder_config import TextEncoderConfig
from tests.train.tiny_runs import start, train
from train.experiment import AdamW, Checkpoints, Evaluation, Experiment, Logging, MeshShape, Samples, Schedule
from train.objectives.tasks.options import Supervised
from train.tasks.classification import Classification
from train.tasks.names import NameFinder
from train.tasks.tagging import Tagging
from train.tasks.words import windows_of

NAMES, OTHERS = ("XX", "YY", "XY"), ("ab", "ba", "aa", ";")
KEY = Key(b"a secret of 32 bytes in all ....")


def experiment(folder, data, steps: int) -> Experiment:
    byte_tokenizer().save(str(folder / "bytes"))
    return Experiment(
        name="names",
        steps=steps,
        batch_size=16,
        model=TextEncoderConfig(context_length=32, num_layers=1, embed_dim=32, num_heads=2, init_std=0.2, prediction_head=False),
        data=data,
        objective=Supervised(head_dropout=0.0),
        optimizer=AdamW(learning_rate=5e-3, weight_decay=0.0),
        schedule=Schedule(warmup_steps=2, decay="constant"),
        mesh=MeshShape(data=1),
        evaluation=Evaluation(every=0),
        checkpoints=Checkpoints(every=0),
        samples=Samples(tokens=0),
        logging=Logging(every=50),
    )


@pytest.fixture(scope="module")
def tagger(tmp_path_factory):
    """Words of capitals are people, in sentences of up to nine words."""
    folder, rng = tmp_path_factory.mktemp("names"), np.random.default_rng(0)
    rows = []
    for _ in range(200):
        words = rng.choice([*NAMES, *OTHERS], rng.integers(1, 10)).tolist()
        named = [word.isupper() for word in words]
        before = [False, *named[:-1]]
        rows += [f"{word}\t{('I-PER' if b else 'B-PER') if n else 'O'}" for word, n, b in zip(words, named, before, strict=True)] + [""]
    (folder / "t.conll").write_text("\n".join(rows) + "\n")
    data = Tagging(files=(str(folder / "t.conll"),), tokenizer=str(folder / "bytes"), length=32, validation=0.1)
    run = start(folder / "run", experiment(folder, data, 120))
    train(run)
    return run


@pytest.fixture(scope="module")
def finder(tagger):
    return NameFinder(str(tagger.path), ("person", "place"))


def made_lines(count: int, seed: int = 1) -> list[str]:
    """From empty ones to some with many times the words that the run reads at once."""
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice([*NAMES, *OTHERS], rng.integers(0, (4, 12, 60)[number % 3]))) for number in range(count)]


def test_names_are_found_wherever_they_stand(finder):
    lines = made_lines(30)
    found, meant = [], []
    for line, spans in zip(lines, finder(lines), strict=True):
        inside = np.zeros(len(line), int)
        for span in spans:
            assert span.kind == "NAME"
            inside[span.start : span.end] += 1
        found += [times for times, one in zip(inside, line, strict=True) if one != " "]
        meant += [one.isupper() for one in line if one != " "]
    assert max(found) == 1, "each word once"
    assert np.mean(np.array(found) == np.array(meant)) > 0.88
    assert max(map(len, lines)) > 100
    (spans,) = finder(["ab XX YY ab"])
    assert [(one.start, one.end) for one in spans] == [(3, 8)], "words of one name are one span"


def test_a_line_is_read_the_same_alone_and_in_a_crowd(finder):
    lines = made_lines(24)
    together = finder(lines)
    assert [finder([line])[0] for line in lines] == together and finder(lines[::-1]) == together[::-1]


def test_pieces_give_what_the_whole_gives_and_once_is_enough(finder):
    text = "\n".join([*made_lines(6), "mail ab@ba.co of XX"])
    whole = Anonymizer(KEY, finder)(text)
    stream = Anonymizer(KEY, finder).stream()
    parts = [stream.feed(text[first : first + 37]) for first in range(0, len(text), 37)]
    assert "".join(parts) + stream.finish() == whole
    assert Anonymizer(KEY, finder)(whole) == whole and "[EMAIL:" in whole
    assert whole.count(KEY.surrogate("NAME", "XX")) >= 2, "the same name has the same surrogate"


@pytest.mark.parametrize("seed", range(5))
def test_windows_own_each_word_once(seed):
    rng = np.random.default_rng(seed)
    words = rng.choice(["a", "b", "。"], 300, p=(0.48, 0.48, 0.04)).tolist()
    sizes, room = rng.integers(1, 5, 300).tolist(), 20
    found = windows_of(words, sizes, room)
    assert [word for _, _, own in found for word in range(*own)] == list(range(300))
    for first, end, own in found:
        assert first <= own[0] <= own[1] <= end and (sum(sizes[first:end]) <= room or end == first + 1)
    for (_, end, own), (first, _, _) in itertools.pairwise(found):
        assert first == end and words[end - 1] == "。" or first < own[1] <= end, "cut where a sentence ends, or seen from both sides"


def test_files_by_the_command_line(tagger, tmp_path, capsys):
    (tmp_path / "t.csv").write_text("text,n\nab XX ba,1\nba ab,2\n")
    assert (
        omnia.main(["anonymize", str(tmp_path / "t.csv"), "--output", str(tmp_path / "o.csv"), "--names", str(tagger.path), "--json"]) == 0
    )
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["counts"] == {"NAME": 1}
    assert "ab [NAME:" in (tmp_path / "o.csv").read_text() and "XX ba" not in (tmp_path / "o.csv").read_text()


def test_other_runs_are_refused_by_name(tagger, tmp_path):
    with pytest.raises(UserError, match="run: tags PER, of which none is asked for"):
        NameFinder(str(tagger.path), ("place", "organisation"))
    (tmp_path / "c.csv").write_text("text,label\n" + "".join(f"a{n},{n % 2}\n" for n in range(20)))
    data = Classification(files=(str(tmp_path / "c.csv"),), tokenizer=str(tmp_path / "bytes"), length=32)
    run = start(tmp_path / "run", experiment(tmp_path, data, 1))
    train(run)
    with pytest.raises(UserError, match="was not trained to tag words"):
        NameFinder(str(run.path), ("person",))
