"""One update of the train state."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from train.objectives.terms import Term
from train.step.anomalies import no_history
from train.step.state import State
from train.step.update import make_update


def test_the_average_soon_forgets_where_it_began():
    """Its decay is (1 + step) / (10 + step) until that reaches the one asked for."""

    def objective(params, batch, key, *, frozen=None, carry=None):
        return {"loss": Term(1.0, params["x"] * batch.sum(), jnp.float32(1))}, {}, carry

    optimizer, params = optax.sgd(1.0), {"x": jnp.float32(0)}
    update = jax.jit(make_update(objective, optimizer, seed=0, ema_decay=0.5))
    state = State(jnp.int32(0), jnp.int32(0), params, optimizer.init(params), no_history(), ema=params)
    expected = 0.0
    for step in range(12):
        state, _ = update(state, None, jnp.ones(1))
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * float(state.params["x"])
        assert float(state.ema["x"]) == pytest.approx(expected, rel=1e-5)
    assert float(state.params["x"]) == -12 and int(state.cursor) == 12


def test_a_bad_step_hands_on_what_it_was_handed():
    """Parameters, optimizer, average and carry; the step and the rows are counted all the same."""

    def objective(params, batch, key, *, frozen=None, carry=None):
        return {"loss": Term(1.0, params["x"] * batch.sum(), jnp.float32(1))}, {}, {"seen": carry["seen"] + batch.sum()}

    optimizer, params = optax.adam(1.0), {"x": jnp.float32(0)}
    update = jax.jit(make_update(objective, optimizer, seed=0, ema_decay=0.5))
    carry = {"seen": jnp.float32(0)}
    state = State(jnp.int32(0), jnp.int32(0), params, optimizer.init(params), no_history(), ema=params, carry=carry)
    good, _ = update(state, None, jnp.ones(2))
    assert float(good.carry["seen"]) == 2
    bad, metrics = update(good, None, jnp.array([1.0, jnp.nan]))
    for name in ("params", "opt_state", "ema", "carry"):
        jax.tree.map(np.testing.assert_array_equal, getattr(bad, name), getattr(good, name))
    assert (int(bad.step), int(bad.cursor), int(metrics["skipped"].total)) == (2, 4, 1)
