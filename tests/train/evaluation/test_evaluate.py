"""What is measured is what a plain walk over the documents gives, token by token, whatever the batches are."""

import copy
import dataclasses
import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data.text.prepare import PrepareText, prepare_text
from data.text.shards import Corpus
from model.config import ModelConfig
from model.heads import Head, logits, vocabulary_table
from model.transformer import Decoder, abstract_parameters
from tests.train.evaluation.documents import documents
from train.devices.mesh import make_mesh
from train.evaluation.totals import Evaluator
from train.experiment import Experiment, TextData
from train.objectives.bind import bind
from train.sources.dataset import dataset_of

T = 32
MODEL = ModelConfig(vocab_size=384, context_length=T, num_layers=1, embed_dim=16, num_heads=2)
EXPERIMENT = Experiment(batch_size=8, model=MODEL)


@pytest.fixture(scope="module")
def params():
    """Far from uniform predictions, so that every token has a loss of its own."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.3, leaf.shape), jnp.float32), nn.unbox(abstract_parameters(MODEL)))


@functools.cache
def measure():
    """The compiled evaluation on eight devices, shared by all tests here."""
    mesh = make_mesh(EXPERIMENT.mesh)
    return Evaluator(bind(EXPERIMENT, mesh), EXPERIMENT, mesh)


def evaluated(params, paths, *, batch_size=8, **options):
    evaluator = copy.copy(measure())
    evaluator.rows = -(-batch_size // 8) * 8
    experiment = dataclasses.replace(EXPERIMENT, batch_size=batch_size, data=TextData(shards=tuple(paths)))
    return dataset_of(experiment).evaluate(evaluator, params, [Corpus(path) for path in paths], **options)


@functools.partial(jax.jit, static_argnums=0)
def predictions(model, params, row_T):
    hidden_BTD = model.apply({"params": params}, row_T[None]).hidden_BTD
    return jax.nn.log_softmax(logits(Head(hidden_BTD, vocabulary_table(params))))[0]


def naive(params, path):
    """(nats, tokens): every document alone, from its beginning, in pieces of T that see nothing before themselves but one token."""
    end, nats, count = Corpus(path).document_end, 0.0, 0
    for ids in documents(path):
        before = [ids[0] if end is None else end, *ids]
        for start in range(0, len(ids), T):
            targets = ids[start : start + T]
            row_T = np.pad(np.array(before[start : start + len(targets)], np.int32), (0, T - len(targets)))
            log_p_TV = np.asarray(predictions(Decoder(MODEL), params, row_T))
            for place, target in enumerate(targets):
                if end is not None or start + place > 0:  # who knows no document ends cannot predict a first token
                    nats -= float(log_p_TV[place, target])
                    count += 1
    return nats, count


@pytest.fixture(scope="module")
def tail(tmp_path_factory):
    """One document cut at its tail: nothing marks where it ends."""
    folder = tmp_path_factory.mktemp("tail")
    (folder / "text.txt").write_text("".join(f"{number} céntimos, " for number in range(400)))
    prepare_text(PrepareText(output=str(folder / "shards"), input=(str(folder / "text.txt"),), validation=0.2, workers=1))
    return str(folder / "shards")


def test_every_token_is_predicted_once(params, corpora):
    """Packed, batched and spread over eight devices, the mean is that of one document and one token after the other."""
    found = evaluated(params, corpora[:1])
    nats, tokens = naive(params, corpora[0])
    assert found["tokens"] == tokens == sum(map(len, documents(corpora[0])))
    assert found["loss"] == pytest.approx(nats / tokens, rel=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(nats / tokens), rel=1e-4)


def test_the_first_token_counts_only_where_something_comes_before_it(params, tail):
    found = evaluated(params, [tail])
    nats, tokens = naive(params, tail)
    assert found["tokens"] == tokens == len(documents(tail)[0]) - 1
    assert found["loss"] == pytest.approx(nats / tokens, rel=1e-5)


def test_bits_per_byte_count_the_bytes_of_the_raw_text(params, corpora, tail):
    """By hand: nats of all tokens, document ends too, over ln 2 and the UTF-8 bytes of the text as it was in the files."""
    for path in (corpora[0], tail):
        corpus, found = Corpus(path), evaluated(params, [path])
        texts = [corpus.tokenizer().decode(ids) for ids in documents(path)]
        raw = sum(len(text.encode()) for text in texts)
        assert raw == corpus.split("validation").raw_bytes
        assert found["bits_per_byte"] == pytest.approx(found["loss"] * found["tokens"] / math.log(2) / raw, rel=1e-6)


@pytest.mark.parametrize("batch_size", [16, 64])
def test_the_size_of_a_batch_changes_nothing(params, corpora, batch_size):
    """64 rows reach past the end of the split: what lies there weighs nothing."""
    expected, found = evaluated(params, corpora[:1]), evaluated(params, corpora[:1], batch_size=batch_size)
    assert found["tokens"] == expected["tokens"]
    for name in ("loss", "bits_per_byte", "accuracy"):
        assert found[name] == pytest.approx(expected[name], rel=1e-5)


def test_some_rows_are_measured_alone(params, corpora):
    """`rows` are the first of the split, the rest of their batch weighs nothing; bytes are taken in proportion to tokens."""
    whole, five, eight = (evaluated(params, corpora[:1], rows=rows) for rows in (0, 5, 8))
    again = evaluated(params, corpora[:1], rows=5, batch_size=16)
    assert five["tokens"] == again["tokens"] and five["loss"] == pytest.approx(again["loss"], rel=1e-5)
    assert five["tokens"] <= 5 * T and five["tokens"] < eight["tokens"] < whole["tokens"]
    assert evaluated(params, corpora[:1], rows=10**6) == whole
    share = Corpus(corpora[0]).split("validation").raw_bytes / whole["tokens"]
    assert five["bits_per_byte"] == pytest.approx(five["loss"] / math.log(2) / share, rel=1e-6)


def test_several_corpora_are_measured_one_by_one_and_together(params, corpora):
    both, alone = evaluated(params, corpora), [evaluated(params, [path]) for path in corpora]
    assert [both["loss/0"], both["loss/1"]] == [one["loss"] for one in alone]
    tokens = [one["tokens"] for one in alone]
    assert both["tokens"] == sum(tokens)
    assert both["loss"] == pytest.approx(np.average([one["loss"] for one in alone], weights=tokens), rel=1e-6)


def test_a_split_that_nobody_has_gives_nothing(params, corpora):
    assert evaluated(params, corpora, split="test") == {}
    assert evaluated(params, corpora[:1], split="train")["tokens"] == sum(map(len, documents(corpora[0], "train")))
