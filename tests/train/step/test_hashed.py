"""How a table of hashed n-grams is updated: against NumPy, and against Adam, between which and one rate for all it stands."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from model.config import ModelConfig
from model.text_encoder_config import TextEncoderConfig
from train.devices.mesh import make_mesh
from train.experiment import AdamW, Experiment, MeshShape, Schedule
from train.objectives.bind import bind
from train.objectives.tasks.options import Supervised
from train.optimizers.build import optimizer_of
from train.optimizers.hashed import POWER, RATE, is_hashed, partially_adaptive, with_hashed
from train.step.state import abstract_state
from train.tasks.classification import Classification

ROWS, WIDTH, STEPS = 6, 3, 30
CONSTANT = Schedule(warmup_steps=0, decay="constant")
ENCODER = TextEncoderConfig(vocab_size=16, context_length=8, num_layers=1, embed_dim=8, num_heads=2)


def gradients(scale=1.0):
    """Of row 0 never, of row 1 at all steps, of row 2 at every tenth, of the others now and then."""
    rng, often = np.random.default_rng(0), np.array([0, 1, 0.1, 0.3, 0.5, 0.7])
    for step in range(STEPS):
        met = rng.random(ROWS) < often
        met[2] = step % 10 == 0
        yield scale * np.where(met[:, None], 1 + 0.1 * rng.standard_normal((ROWS, WIDTH)), 0).astype(np.float32)


def moved(optimizer, scale=1.0):
    """Of each row, how far it goes in all."""
    state, total = optimizer.init(jnp.zeros((ROWS, WIDTH))), 0.0
    for gradient in gradients(scale):
        step, state = optimizer.update(jnp.asarray(gradient), state)
        total = total + step
    return np.asarray(total)


def test_updates_are_those_of_the_definition():
    beta1, beta2 = 0.8, 0.99
    mean, square, total = np.zeros((ROWS, WIDTH)), np.zeros(ROWS), np.zeros((ROWS, WIDTH))
    for count, gradient in enumerate(gradients(), 1):
        mean = beta1 * mean + (1 - beta1) * gradient
        square = beta2 * square + (1 - beta2) * (gradient.astype(float) ** 2).mean(1)
        met = square > 0
        whole = square[met].mean() / (1 - beta2**count)
        own = np.where(met, square / (1 - beta2**count) / whole, 1)
        total += RATE * mean / (1 - beta1**count) / np.sqrt(whole) / own[:, None] ** POWER
    np.testing.assert_allclose(moved(partially_adaptive(beta1, beta2)), total, rtol=2e-5)


@pytest.mark.parametrize("scale", [1e-6, 1e4])
def test_the_size_of_the_loss_does_not_count(scale):
    found = partially_adaptive(0.9, 0.999)
    np.testing.assert_allclose(moved(found, scale), moved(found), rtol=1e-3)


def test_rare_rows_move_less_than_by_adam_and_more_than_by_one_rate():
    def share(total):
        return (total[2] / total[1]).mean()

    assert (moved(partially_adaptive(0.9, 0.999))[0] == 0).all()
    gradient = sum(gradients())
    assert share(gradient) < share(moved(partially_adaptive(0.9, 0.999))) < share(moved(optax.scale_by_adam(0.9, 0.999)))


def head(table):
    """Parameters of an encoder with a head, with and without n-grams."""
    own = Supervised(labels=("a", "b"), counts=(1, 1), ngrams=2 if table else 0)
    made = bind(Experiment(model=ENCODER, data=Classification(files=("x",)), objective=own)).start(jax.random.key(0))
    return jax.tree.map(jnp.ones_like, nn.unbox(made))


def kept(state) -> set[tuple[int, ...]]:
    return {leaf.shape for leaf in jax.tree.leaves(state)}


def test_tables_beside_heads_are_meant_and_no_others():
    decoder = bind(Experiment(model=ModelConfig(vocab_size=16, num_layers=1, embed_dim=8, num_heads=2, ngrams=2, ngram_rows=32)))
    several = {"task_heads": {name: head(table=True)["task_head"] for name in ("one", "two")}}
    for params, count in ((head(True), 1), (head(False), 0), (decoder.start(jax.random.key(0)), 0), (several, 2)):
        assert sum(is_hashed(path) for path, _ in jax.tree_util.tree_leaves_with_path(nn.unbox(params))) == count


def test_all_else_is_updated_as_without_it():
    adam, both = optax.scale_by_adam(), with_hashed(optax.scale_by_adam(), partially_adaptive(0.9, 0.999))
    ones = head(table=True)
    found, _ = both.update(ones, both.init(ones), ones)
    alone, _ = adam.update(ones, adam.init(ones))
    assert float(found["task_head"]["ngrams"]["table"][0, 0]) == pytest.approx(RATE, rel=1e-5)
    found["task_head"]["ngrams"] = alone["task_head"]["ngrams"]
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-6), found, alone)
    # and without such a table nothing differs, so that stored states are taken up again
    ones = head(table=False)
    assert jax.tree.structure(both.init(ones)) == jax.tree.structure(adam.init(ones))


def test_a_table_without_a_gradient_stays():
    zeros = jnp.zeros((ROWS, WIDTH))
    made = partially_adaptive(0.9, 0.999)
    assert (made.update(zeros, made.init(zeros))[0] == 0).all()


def test_adamw_updates_the_table_by_it():
    experiment = Experiment(optimizer=AdamW(learning_rate=0.1, weight_decay=0.0, clip_norm=0.0), schedule=CONSTANT, steps=10)
    given = head(table=True)
    made = optimizer_of(experiment)
    step, _ = made.update(given, made.init(given), given)
    ratio = step["task_head"]["ngrams"]["table"][0, 0] / jax.tree.leaves(step["embedding"])[0][0, 0]
    assert float(ratio) == pytest.approx(RATE, rel=1e-4)
    frozen = optimizer_of(dataclasses.replace(experiment, frozen=("task_head/ngrams",)))
    state = frozen.init(given)
    table = given["task_head"]["ngrams"]["table"].shape
    assert table in kept(made.init(given)) and table not in kept(state)  # nothing is kept of what is frozen
    assert not np.asarray(frozen.update(given, state, given)[0]["task_head"]["ngrams"]["table"]).any()


def test_its_state_lies_on_devices_as_the_table_does():
    experiment = Experiment(
        model=ENCODER,
        data=Classification(files=("x",)),
        objective=Supervised(labels=("a", "b"), counts=(1, 1), ngrams=2),
        mesh=MeshShape(data=1, tensor=2),
    )
    found = abstract_state(bind(experiment).start, optimizer_of(experiment), make_mesh(experiment.mesh, jax.devices()[:2]), ema=False)
    table = found.params["task_head"]["ngrams"]["table"]
    beside = [leaf for leaf in jax.tree.leaves(found.opt_state) if leaf.shape in (table.shape, (table.shape[0], 1))]
    assert {leaf.shape for leaf in beside} == {table.shape, (table.shape[0], 1)}  # one number for each row
    assert {leaf.sharding.spec[0] for leaf in beside} == {table.sharding.spec[0]} != {None}
