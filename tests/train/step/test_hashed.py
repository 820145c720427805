"""How a table of hashed n-grams is updated: against NumPy, and against Adam, between which and one rate for all it stands."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from train.experiment import AdamW, Schedule
from train.optimizers.build import make_optimizer
from train.optimizers.hashed import POWER, RATE, partially_adaptive, with_hashed

ROWS, WIDTH, STEPS = 6, 3, 30


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


def params(table):
    return {"task_head": {"kernel": jnp.ones((2, 2)), **({"ngrams": {"table": jnp.zeros((4, 2))}} if table else {})}}


def test_all_else_is_updated_as_without_it():
    adam, both = optax.scale_by_adam(), with_hashed(optax.scale_by_adam(), partially_adaptive(0.9, 0.999))
    ones = jax.tree.map(jnp.ones_like, params(table=True))
    found, _ = both.update(ones, both.init(ones), ones)
    alone, _ = adam.update(ones, adam.init(ones))
    np.testing.assert_allclose(found["task_head"]["kernel"], alone["task_head"]["kernel"], rtol=1e-6)
    assert float(found["task_head"]["ngrams"]["table"][0, 0]) == pytest.approx(RATE, rel=1e-5)
    # and without such a table nothing differs, so that stored states are taken up again
    assert jax.tree.structure(both.init(params(table=False))) == jax.tree.structure(adam.init(params(table=False)))


def test_adamw_updates_the_table_so():
    made = make_optimizer(AdamW(learning_rate=0.1, weight_decay=0.0, clip_norm=0.0), Schedule(warmup_steps=0, decay="constant"), 10)
    given = params(table=True)
    step, _ = made.update(jax.tree.map(jnp.ones_like, given), made.init(given), given)
    ratio = step["task_head"]["ngrams"]["table"][0, 0] / step["task_head"]["kernel"][0, 0]
    assert float(ratio) == pytest.approx(RATE, rel=1e-4)
