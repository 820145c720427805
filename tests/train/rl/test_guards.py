"""What a step checks of itself, and the order in which it learns from rows."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data.errors import UserError
from tests.train.rl.conftest import CARRY, MODEL, ROOM, SAMPLES, drawn, experience, parameters
from train.objectives.terms import Mean
from train.rl.experience import Judgement
from train.rl.experiment import PPO
from train.rl.learner import PolicyLearner, make_learn
from train.state import State


def compare(step, judgement):
    run = SimpleNamespace(experiment=SimpleNamespace(model=MODEL))
    PolicyLearner._compare(SimpleNamespace(_run=run), step, drawn(), judgement, has_reference=True)


def test_a_sampler_that_differs_from_the_training_pass_is_an_error(ppo):
    """By more than rounding: every 20 steps the two are compared."""
    _, _, fine = experience(ppo, reference=parameters())
    compare(0, fine)
    compare(20, fine._replace(policy=fine.policy + 5e-4))
    with pytest.raises(UserError, match="sampler and the training pass differ by 0.002"):
        compare(20, fine._replace(policy=fine.policy + 2e-3))
    with pytest.raises(UserError, match="differ by nan"):
        compare(20, fine._replace(policy=fine.policy * jnp.nan))


def test_a_negative_kl_at_the_start_is_an_error_that_names_its_causes(ppo):
    _, _, fine = experience(ppo, reference=parameters())
    wrong = fine._replace(kl=fine.kl - 0.5)
    compare(20, wrong)  # later, single steps may have one by chance
    with pytest.raises(UserError, match="where it must be 0") as raised:
        compare(0, wrong)
    assert "temperature" in str(raised.value)


def test_rows_stand_in_a_new_order_in_each_epoch_of_each_step():
    """The number of a row is written into its log-probabilities, and an update that learns nothing writes down what it is given."""
    o = PPO(samples=SAMPLES, response_tokens=ROOM, critic="none", advantage="returns", epochs=3, minibatches=2, kl_coefficient=0.0)
    rows = drawn()
    rows = rows._replace(log_probs_BR=jnp.broadcast_to(jnp.arange(8.0)[:, None], rows.log_probs_BR.shape))
    nothing = jnp.zeros((8, ROOM))

    def update(state, frozen, batch):
        seen = state.params.at[state.step % 6].set(batch.log_probs[:, 0])
        return State(state.step + 1, state.cursor, seen, (), (), None, state.carry), {"skipped": Mean(jnp.float32(0), None)}

    learn = jax.jit(make_learn(update, o, seed=3, episodes=8))

    def order(step):
        state = State(jnp.int32(step), jnp.int32(0), jnp.zeros((6, 4)), (), (), None, dict(CARRY))
        state, _ = learn(state, None, rows, Judgement(nothing, nothing, nothing), jnp.zeros(8), jnp.ones(8))
        assert state.step == step + 1
        return np.asarray(state.params).reshape(3, 8)

    first, second = order(0), order(1)
    np.testing.assert_array_equal(np.sort(first, 1), np.tile(np.arange(8.0), (3, 1)))
    assert len({tuple(epoch) for epoch in [*first, *second]}) == 6
    np.testing.assert_array_equal(first, order(0))
