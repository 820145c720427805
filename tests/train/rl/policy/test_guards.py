"""What a step checks of itself, and the order in which it learns from rows."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data.errors import UserError
from tests.train.rl.conftest import CARRY, MODEL, ROOM, SAMPLES, drawn, experience, parameters
from train.loop.row_learner import RowLearner
from train.objectives.terms import Mean
from train.rl.options import PPO
from train.rl.policy.experience import TokenEstimates
from train.rl.policy.learner import PolicyLearner, make_learn
from train.step.state import State


def compare(step, estimates):
    run = SimpleNamespace(experiment=SimpleNamespace(model=MODEL))
    PolicyLearner._compare(SimpleNamespace(_run=run), step, drawn(), estimates, has_reference=True)


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


def test_returns_far_beyond_the_clip_of_values_are_remarked_on_once(ppo):
    def learner(o):
        return SimpleNamespace(_options=o, _clip_doubted=False, _remarks=[])

    def doubt(learner, variance):
        PolicyLearner._doubt_value_clip(learner, 7, {"ppo/returns/var": Mean(jnp.float32(variance), jnp.float32(1))})
        return learner._remarks

    o = PPO(value_clip=0.2)
    one = learner(o)
    assert doubt(one, 0.99) == []
    assert "step 7: the returns' standard deviation is 2.00" in doubt(one, 4.0)[0] and len(doubt(one, 4.0)) == 1
    for unbound in (dataclasses.replace(o, value_clip=0.0), dataclasses.replace(o, critic="none", advantage="returns")):
        assert doubt(learner(unbound), 100.0) == []


def test_rows_that_had_to_be_left_empty_are_remarked_on_when_there_are_more():
    batches = SimpleNamespace(damaged=set(), damage="torn pages")
    learner = SimpleNamespace(batches=batches, _remarked=0, _remarks=[])
    assert RowLearner.remarks(learner) == []
    batches.damaged |= {4, 5}
    assert RowLearner.remarks(learner) == ["2 torn pages so far: their places are empty"]
    assert RowLearner.remarks(learner) == []
    learner._remarks.append("said once")
    assert [RowLearner.remarks(learner) for _ in range(2)] == [["said once"], []]


@pytest.mark.parametrize("started", [True, False])
def test_responses_without_a_reward_are_left_out_of_what_is_measured(monkeypatch, started):
    """A prompt counts where both the policy and its start were judged; where none does there are no figures, rather than zeros."""
    own = {"score": np.array([1.0, np.nan, 3.0, 0.0]), "gold": np.array([1.0, 2.0, 3.0, 4.0]), "length": np.array([1.0, 2.0, 3.0, 9.0])}
    begun = {"score": np.array([1.0, 1.0, 2.0, np.nan]), "gold": np.array([2.0, 2.0, 2.0, 2.0])}
    monkeypatch.setattr("train.rl.policy.learner.start_parameters", lambda run, mesh: {} if started else None)
    learner = SimpleNamespace(_run=None, _mesh=None, _method=None, _remarks=[], _baseline=begun, _measure=lambda *of: own)
    found = PolicyLearner.evaluate(learner, None, None)
    rows = [0, 2] if started else [0, 2, 3]
    assert found["prompts"] == len(rows) and found["loss"] == -found["score"]
    for name, values in own.items():
        assert found[name] == pytest.approx(values[rows].mean())
    assert not started or (found["win_rate"], found["score_start"], found["gold_start"]) == (0.5, 1.5, 2.0)
    own["score"][:] = np.nan
    assert PolicyLearner.evaluate(learner, None, None) == {} and "nothing is measured" in learner._remarks[0]


def test_rewards_that_are_no_numbers_are_remarked_on_when_they_double():
    questions = SimpleNamespace(unusable=set(), unscored=0)
    learner = SimpleNamespace(_questions=questions, _remarks=["first"], _remarked=0, _unscored=0)
    said = []
    for count in (0, 4, 5, 8, 9):
        questions.unscored = count
        said.append(PolicyLearner.remarks(learner))
    assert [len(lines) for lines in said] == [1, 1, 0, 0, 1] and said[0] == ["first"] and said[1][0].startswith("4 responses so far")


def test_rows_stand_in_a_new_order_in_each_epoch_of_each_step():
    """The number of a row is written into its log-probabilities, and an update that learns nothing writes down what it is given."""
    o = PPO(group_size=SAMPLES, response_tokens=ROOM, critic="none", advantage="returns", epochs=3, minibatches=2, kl_coefficient=0.0)
    rows = drawn()
    rows = rows._replace(log_probs_BR=jnp.broadcast_to(jnp.arange(8.0)[:, None], rows.log_probs_BR.shape))
    nothing = jnp.zeros((8, ROOM))

    def update(state, frozen, batch):
        seen = state.params.at[state.step % 6].set(batch.log_probs[:, 0])
        return State(state.step + 1, state.cursor, seen, (), (), None, state.carry), {"skipped": Mean(jnp.float32(0), None)}

    learn = jax.jit(make_learn(update, o, seed=3, episodes=8))

    def order(step):
        state = State(jnp.int32(step), jnp.int32(0), jnp.zeros((6, 4)), (), (), None, dict(CARRY))
        state, _ = learn(state, None, rows, TokenEstimates(nothing, nothing, nothing), jnp.zeros(8), jnp.ones(8))
        assert state.step == step + 1
        return np.asarray(state.params).reshape(3, 8)

    first, second = order(0), order(1)
    np.testing.assert_array_equal(np.sort(first, 1), np.tile(np.arange(8.0), (3, 1)))
    assert len({tuple(epoch) for epoch in [*first, *second]}) == 6
    np.testing.assert_array_equal(first, order(0))
