"""The measurements of long context measure what they say: a model that finds everything scores 1, one that guesses scores chance."""

import dataclasses
import json

import numpy as np
import pytest

from data.errors import UserError
from data.text.prepare import PrepareText, prepare_text
from data.text.shards import Corpus
from model.config import ModelConfig
from model.transformer import Decoder
from tests.train.evaluation.documents import documents
from tests.train.tiny_runs import start
from train.checkpoints.checkpointer import Checkpointer
from train.devices.mesh import make_mesh
from train.evaluation.checkpoint import evaluate_run
from train.evaluation.long_context import DEPTHS, KEY_LETTERS, Haystack, bucket_starts, evaluate_by_position, evaluate_needle, find_needles
from train.experiment import Experiment, MeshShape, Samples, TextData
from train.optimizers.build import make_optimizer
from train.step.state import initial_state

T = 96


def untrained(path, corpus: str, **model):
    """A run saved before its first step."""
    config = ModelConfig(context_length=T, num_layers=1, embed_dim=16, num_heads=2, **model)
    experiment = Experiment(batch_size=8, model=config, data=TextData(shards=(corpus,)), samples=Samples(tokens=0))
    run = start(path, experiment)
    optimizer = make_optimizer(experiment.optimizer, experiment.schedule, experiment.steps)
    checkpointer = Checkpointer(run.path)
    checkpointer.save(initial_state(Decoder(run.experiment.model).start, optimizer, make_mesh(MeshShape()), 0, ema=False), {})
    checkpointer.wait()
    checkpointer.close()
    return run


@pytest.fixture(scope="module")
def rotary(corpora, tmp_path_factory):
    return untrained(tmp_path_factory.mktemp("runs") / "rotary", corpora[0], positions="rotary")


def test_buckets_double_and_leave_no_position_out():
    assert bucket_starts(1) == [0] and bucket_starts(9) == [0, 1, 2, 4, 8] and bucket_starts(8) == [0, 1, 2, 4]


def test_loss_by_position_adds_up_to_the_loss(rotary):
    """The buckets hold every token of the split, as many as documents have there, and their mean is that of `omnia evaluate`."""
    found, whole = evaluate_by_position(rotary, rotary.corpora()), evaluate_run(rotary)
    assert found["loss"] == pytest.approx(whole["loss"], rel=1e-5) and found["tokens"] == whole["tokens"]
    assert sum(bucket["tokens"] for bucket in found["by_position"]) == whole["tokens"]
    pieces = [min(T, len(ids) - cut) for ids in documents(rotary.corpora()[0].path) for cut in range(0, len(ids), T)]
    for bucket in found["by_position"]:
        assert bucket["tokens"] == sum(max(0, min(piece, bucket["last"] + 1) - bucket["first"]) for piece in pieces)


def test_longer_contexts_are_measured_where_positions_reach(rotary, corpora, tmp_path):
    found = evaluate_by_position(rotary, rotary.corpora(), context_length=4 * T, rows=8)
    assert found["context_length"] == 4 * T and found["by_position"][-1]["first"] >= 2 * T
    learned = untrained(tmp_path / "learned", corpora[0], positions="learned")
    with pytest.raises(UserError, match=f"learned {T} positions"):
        evaluate_by_position(learned, learned.corpora(), context_length=2 * T)
    assert evaluate_by_position(learned, learned.corpora(), context_length=T // 2, rows=8)["context_length"] == T // 2


@pytest.fixture(scope="module", params=["byte", "char", "sentencepiece:340"])
def haystack(request, corpora, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hay")
    for number in range(12):
        words = np.random.default_rng(number).choice("The secret word is. fox jumps over quick lazy dogs by mvxz".split(), 90)
        (folder / f"{number}.txt").write_text(" ".join(words))
    options = {"tokenizer": request.param, "validation": 0.5, "workers": 1}
    prepare_text(PrepareText(output=str(folder / "shards"), input=(str(folder / "*.txt"),), **options))
    corpus = Corpus(str(folder / "shards"))
    return Haystack(corpus.tokenizer(), corpus)


def reader(ids, last, sight: int | None = None):
    """A model that looks for the question in the `sight` tokens before it, and says what followed there; else it says token 0."""
    nll, hit = np.full((len(ids), last), 9.0), np.zeros((len(ids), last))
    for row, tokens in enumerate(ids.tolist()):
        for place in range(last):
            before = tokens[: len(tokens) - last + place]
            oldest = 0 if sight is None else max(0, len(before) - sight)
            clue = before[-4:]
            answers = [before[at + 4] for at in range(oldest, len(before) - 4) if before[at : at + 4] == clue]
            if answers and answers[0] == tokens[len(before)]:
                nll[row, place], hit[row, place] = 0.0, 1.0
    return nll, hit


def test_who_finds_everything_scores_one_and_who_sees_little_scores_by_depth(haystack):
    length = 256
    for cell in find_needles(reader, haystack, [length // 2, length], samples=4):
        assert cell["accuracy"] == cell["exact"] == 1.0 and cell["log_prob"] == 0.0
    short_sighted = find_needles(lambda ids, last: reader(ids, last, length // 2), haystack, [length], samples=4)
    assert [cell["depth"] for cell in short_sighted] == list(DEPTHS)
    assert short_sighted[0]["accuracy"] < 0.2 and short_sighted[-1]["exact"] == 1.0


def test_who_guesses_scores_chance(haystack):
    """Keys are random: guessing one of the alphabet's letters is right as often as there are letters, within four deviations."""
    if haystack.tokenizer.kind not in ("byte", "char"):
        pytest.skip("a token is several letters")
    letters = [int(haystack.tokenizer.encode(letter)[0]) for letter in haystack.letters()]
    rng = np.random.default_rng(1)

    def guess(ids, last):
        return np.full((len(ids), last), np.log(len(letters))), ids[:, -last:] == rng.choice(letters, (len(ids), last))

    cells = find_needles(guess, haystack, [200], samples=60)
    chance, count = 1 / len(letters), 60 * len(DEPTHS) * KEY_LETTERS
    assert abs(np.mean([cell["accuracy"] for cell in cells]) - chance) < 4 * (chance * (1 - chance) / count) ** 0.5
    assert all(cell["log_prob"] == pytest.approx(-np.log(len(letters))) and cell["exact"] == 0 for cell in cells)


def test_a_row_is_text_of_the_split_with_the_sentence_in_it_and_the_question_at_its_end(haystack):
    texts = "".join(" ".join(haystack.corpus.tokenizer().decode(ids) for ids in documents(haystack.corpus.path)).split())
    ids, count = haystack.row(np.random.default_rng(5), 200, 0.5)
    assert len(ids) == 201
    again, _ = haystack.row(np.random.default_rng(5), 200, 0.5)
    np.testing.assert_array_equal(ids, again)
    key, text = haystack.tokenizer.decode(ids[-count:]).strip(), haystack.tokenizer.decode(ids)
    assert len(key) == KEY_LETTERS and text.count(key) == 2 and text.endswith(key)
    hay = "".join(text[: text.index("The secret word is", text.index(key) - 22)].split())
    assert hay[:40] in texts or len(hay) < 40
    with pytest.raises(UserError, match="no room for the needle"):
        haystack.row(np.random.default_rng(5), 30, 0.5)
    with pytest.raises(UserError, match="must hold {} once"):
        dataclasses.replace(haystack, text="no place for a key")


def test_a_run_is_asked_for_needles(rotary):
    """An untrained model does not find them; what is written is what is returned, with a picture."""
    found = evaluate_needle(rotary, rotary.corpora()[0], context_length=2 * T, samples=2)
    assert json.loads((rotary.path / "needle.json").read_text()) == found
    assert (rotary.path / "plots" / "needle.png").read_bytes()[1:4] == b"PNG"
    assert found["accuracy"] < 0.3 and found["log_prob"] == pytest.approx(-np.log(384), abs=0.5)
    assert {cell["length"] for cell in found["needle"]} <= {T // 2, T, 2 * T}
    again = evaluate_needle(rotary, rotary.corpora()[0], context_length=2 * T, samples=2, batch_size=16)
    assert [cell["accuracy"] for cell in again["needle"]] == [cell["accuracy"] for cell in found["needle"]]
