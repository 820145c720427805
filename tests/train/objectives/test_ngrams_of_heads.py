"""N-grams beside a head: as counted one by one, of single texts however they are packed, and nothing until something is learned."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data.errors import UserError
from model.config import ModelConfig
from model.ngrams import ngram_rows
from model.text_encoder_config import TextEncoderConfig
from train.apps.medicine.medical_case import MedicalCase
from train.experiment import Experiment
from train.objectives.bind import bind
from train.objectives.tasks.ngrams import LEFT_OUT, ROWS, SCALE, NGrams
from train.objectives.tasks.options import Supervised
from train.objectives.tasks.retrieval import Retrieval
from train.objectives.text.corruption import row_keys
from train.tasks.choice import MultipleChoice
from train.tasks.classification import Classification
from train.tasks.rows import HeadBatch
from train.tasks.similarity import Similarity
from train.tasks.tagging import Tagging

TEXTS = ([5, 6, 5, 6], [7], [6, 5, 9], [5, 6, 5, 6])
LENGTH, LABELS = 9, ("a", "b", "c")
ENCODER = TextEncoderConfig(vocab_size=16, context_length=LENGTH, num_layers=1, embed_dim=8, num_heads=2)


def batch_of(*rows: tuple[int, ...]) -> HeadBatch:
    """Rows of the texts of these numbers, one after another."""
    tokens, segments, positions = (np.zeros((len(rows), LENGTH), np.int32) for _ in range(3))
    items = np.full((len(rows), 2), -1, np.int32)
    for row, numbers in enumerate(rows):
        place = 0
        for segment, number in enumerate(numbers):
            own = slice(place, place := place + len(TEXTS[number]))
            tokens[row, own], segments[row, own], positions[row, own] = TEXTS[number], segment + 1, range(len(TEXTS[number]))
            items[row, segment] = number
    weights, labels = (items >= 0).astype(np.float32), np.maximum(items, 0) % len(LABELS)
    return HeadBatch(tokens, segments, positions, np.zeros_like(tokens), labels, weights, items, np.arange(len(rows), dtype=np.int32))


def table(seed: int = 0):
    return {"table": jax.random.normal(jax.random.key(seed), (ROWS, len(LABELS)))}


def by_hand(text: list[int], longest: int, weights) -> np.ndarray:
    grams = [text[end - n : end] for end in range(1, len(text) + 1) for n in range(1, longest + 1) if end >= n]
    found = np.zeros(len(LABELS))
    for gram in grams:
        before = jnp.array([[gram[-2::-1]]], jnp.int32).reshape(1, 1, len(gram) - 1)
        found += weights[int(ngram_rows(jnp.array([[gram[-1]]]), before, ROWS, first=1)[0, 0, -1])]
    return SCALE * found / np.sqrt(len(grams))


@pytest.mark.parametrize("longest", [1, 2, 3])
def test_each_ngram_of_a_text_counts_once(longest):
    ngrams, params = NGrams(longest, len(LABELS)), table()
    said = jax.jit(ngrams)(params, batch_of((0, 1), (2,)))
    weights = np.asarray(params["table"])
    expected = [
        [by_hand(TEXTS[0], longest, weights), by_hand(TEXTS[1], longest, weights)],
        [by_hand(TEXTS[2], longest, weights), np.zeros(3)],
    ]
    np.testing.assert_allclose(said, expected, rtol=1e-4, atol=1e-4)


def test_a_text_says_the_same_wherever_it_stands():
    said = np.asarray(NGrams(3, len(LABELS))(table(), batch_of((0, 1), (1, 3))))
    np.testing.assert_allclose(said[0], said[1, ::-1], rtol=1e-5)


def test_ngrams_of_one_length_are_those_of_another_call():
    before = jnp.array([[[3, 2], [4, 3]]])
    rows = ngram_rows(jnp.array([[4, 5]]), before, ROWS, first=1)
    np.testing.assert_array_equal(rows[..., 1:], ngram_rows(jnp.array([[4, 5]]), before, ROWS))
    assert len(np.unique(rows)) == 6 and (rows < ROWS).all()


def test_with_dropout_the_mean_over_many_draws_is_what_is_said_without():
    ngrams, batch, params = NGrams(2, len(LABELS)), batch_of(*[(0, 2)] * 2000), table()
    whole = ngrams(params, batch)
    drawn = ngrams(params, batch, jax.random.split(jax.random.key(0), 2000))
    assert not np.allclose(drawn[0], drawn[1])
    np.testing.assert_allclose(drawn.mean(0), whole[0], atol=5 * SCALE * np.sqrt((1 - LEFT_OUT) / LEFT_OUT / 2000))


@pytest.mark.parametrize("data", [Classification(length=LENGTH), Classification(length=LENGTH, several=True), Similarity(length=LENGTH)])
def test_every_head_of_texts_adds_what_ngrams_say_with_a_key_and_without(data):
    labels = () if isinstance(data, Similarity) else LABELS
    options = Supervised(labels=labels, ngrams=2, head_dropout=0.0)
    loss = bind(Experiment(model=ENCODER, data=data, objective=options)).loss
    plain = bind(Experiment(model=ENCODER, data=data, objective=dataclasses.replace(options, ngrams=0))).loss
    params = nn.unbox(loss.start(jax.random.key(0)))
    bare = params | {"task_head": {name: part for name, part in params["task_head"].items() if name != "ngrams"}}
    own = {"table": jax.random.normal(jax.random.key(1), (ROWS, loss.head.width))}
    params = bare | {"task_head": bare["task_head"] | {"ngrams": own}}
    batch, key = batch_of((0, 1), (2,)), jax.random.key(2)
    keys_B = row_keys(key, batch.rows)[1]
    for key_of_step, keys in ((None, None), (key, keys_B)):
        added = loss.forward(params, batch, key_of_step) - plain.forward(bare, batch, key_of_step)
        np.testing.assert_allclose(added, loss.ngrams(own, batch, keys), rtol=1e-3, atol=1e-3)
    assert not np.allclose(loss.ngrams(own, batch), loss.ngrams(own, batch, keys_B))


def test_a_fresh_head_answers_as_without_and_learns_what_single_ngrams_tell():
    data, batch = Classification(length=LENGTH), batch_of((0, 1), (2,))
    plain = bind(Experiment(model=ENCODER, data=data, objective=Supervised(labels=LABELS)))
    bound = bind(Experiment(model=ENCODER, data=data, objective=Supervised(labels=LABELS, ngrams=2)))
    params = nn.unbox(bound.start(jax.random.key(0)))
    bare = params | {"task_head": {name: part for name, part in params["task_head"].items() if name != "ngrams"}}
    np.testing.assert_array_equal(bound.outputs(params, batch)["values"], plain.outputs(bare, batch)["values"])
    gradient = jax.grad(lambda params: bound.loss(params, batch, None)[0]["loss"].total)(params)["task_head"]["ngrams"]["table"]
    touched = np.flatnonzero(np.abs(gradient).sum(1))
    assert len(touched) == len({tuple(text[end - n : end]) for text in TEXTS[:3] for n in (1, 2) for end in range(n, len(text) + 1)})
    assert plain.parts.keys() != bound.parts.keys(), "a run does not take over a head that means something else"


@pytest.mark.parametrize(
    ("model", "data", "more"),
    [
        (ENCODER, Tagging(length=LENGTH), {"labels": ("O", "B-X")}),
        (ENCODER, MultipleChoice(length=LENGTH), {}),
        (ModelConfig(vocab_size=16, context_length=8, num_layers=1, embed_dim=8, num_heads=2), Classification(), {"labels": LABELS}),
    ],
)
def test_what_labels_no_whole_texts_is_refused(model, data, more):
    with pytest.raises(UserError, match=r"objective.ngrams(.|\n)*at 0"):
        bind(Experiment(model=model, data=data, objective=Supervised(ngrams=2, **more)))


def test_what_has_numbers_beside_its_texts_or_no_labels_is_refused():
    with pytest.raises(UserError, match="objective.ngrams reads texts, and the task has numbers"):
        bind(Experiment(model=ENCODER, data=MedicalCase(length=LENGTH), objective=Supervised(labels=LABELS, ngrams=2)))
    with pytest.raises(ValueError, match="ngrams"):
        Retrieval(ngrams=2)


def test_mixed_vectors_have_no_ngrams():
    with pytest.raises(ValueError, match="objective.ngrams"):
        Supervised(ngrams=2, mixup=0.4)
    with pytest.raises(ValueError, match="ngrams"):
        Supervised(ngrams=-1)
