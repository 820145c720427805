"""What a policy with a critic starts from: the critic of another, a reward model, or neither."""

import dataclasses
import functools
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.critic import Critic
from tests.train.rl.conftest import DECODER, MODEL
from tests.train.rl.policies import TINY
from train.objectives.bind import bind
from train.objectives.preference.reward_model import score_texts
from train.rl.options import GRPO, PPO, RewardModelling
from train.runs.start import adopt

KINDS = {
    "reward": RewardModelling(),
    "none": GRPO(group_size=2),
    "imitation": TINY.objective,
    **{layout: PPO(group_size=2, critic=layout) for layout in ("shared", "branch", "separate")},
}
TOKENS = jnp.asarray(np.random.default_rng(0).integers(4, 17, (3, 9)), jnp.int32)


def experiment(kind: str):
    return dataclasses.replace(TINY, model=MODEL, objective=KINDS[kind], start="runs/before")


def fresh(kind: str, seed: int):
    """Parameters in which nothing is zero, as after training."""
    rng, shapes = np.random.default_rng(seed), nn.unbox(jax.eval_shape(bind(experiment(kind)).start, jax.random.key(0)))
    return jax.tree.map(lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), jnp.float32), shapes)


def started(monkeypatch, source: str, kind: str):
    """Parameters of the source, those that a run of another kind begins with, and what is said."""
    theirs, said = fresh(source, 1), []
    monkeypatch.setattr("train.runs.start.started_from", lambda run: SimpleNamespace(experiment=experiment(source)))
    monkeypatch.setattr("train.runs.start.load_parameters", lambda run, mesh: (theirs, 0))
    return theirs, adopt(SimpleNamespace(experiment=experiment(kind)), None, fresh(kind, 2), said.append), said


@functools.partial(jax.jit, static_argnames="layout")
def values(params, layout: str):
    critic = Critic(MODEL, layout)
    output = DECODER.apply({"params": params}, TOKENS, branch=critic.branch_at)
    return critic(params, output, TOKENS, None, None)


@jax.jit
def score(params):
    return score_texts(DECODER, params, TOKENS, jnp.ones_like(TOKENS))


@pytest.mark.parametrize("layout", ["shared", "branch", "separate"])
def test_the_critic_of_a_policy_is_kept(monkeypatch, layout):
    """Its values at the start are those of the run before; nothing is said, since nothing is lost."""
    theirs, own, said = started(monkeypatch, layout, layout)
    np.testing.assert_array_equal(values(own, layout), values(theirs, layout))
    assert said == [] and np.ptp(values(own, layout)) > 0.1


@pytest.mark.parametrize("layout", ["shared", "branch", "separate"])
def test_a_critic_begins_as_the_reward_model_that_the_run_starts_from(monkeypatch, layout):
    """Its value after the last token is the reward model's score of the text, also where the policy will leave that trunk."""
    theirs, own, said = started(monkeypatch, "reward", layout)
    np.testing.assert_allclose(values(own, layout)[:, -1], score(theirs), rtol=1e-5, atol=1e-5)
    assert said == []


@pytest.mark.parametrize("layout", ["branch", "separate"])
def test_a_head_on_the_policy_goes_with_a_copy_of_it(monkeypatch, layout):
    theirs, own, said = started(monkeypatch, "shared", layout)
    np.testing.assert_allclose(values(own, layout), values(theirs, "shared"), rtol=1e-5, atol=1e-5)
    assert said == []


@pytest.mark.parametrize(
    "source, kind, anew, left",
    [
        ("separate", "branch", "scalar head of the critic on the last 1 layers", "critic, scalar head of the critic"),
        ("branch", "shared", "scalar head on the decoder", "critic on the last 1 layers, scalar head of the critic on the last 1 layers"),
        ("imitation", "shared", "scalar head on the decoder", ""),
        ("imitation", "separate", "scalar head of the critic", ""),
        ("imitation", "reward", "scalar head on the decoder", ""),
        ("separate", "none", "", "critic, scalar head of the critic"),
        ("none", "imitation", "", ""),
        ("reward", "reward", "", ""),
    ],
)
def test_what_begins_anew_or_is_left_behind_is_said_in_a_line(monkeypatch, source, kind, anew, left):
    theirs, own, said = started(monkeypatch, source, kind)
    parts = ([f"what begins anew: {anew}"] if anew else []) + ([f"what is left behind: {left}"] if left else [])
    assert said == ([f"started from runs/before; {' and '.join(parts)}"] if parts else [])
    jax.tree.map(np.testing.assert_array_equal, own["layers"], theirs["layers"])
    if (source, kind) == ("reward", "reward"):
        jax.tree.map(np.testing.assert_array_equal, own["value"], theirs["value"])
    if kind in ("branch", "separate"):  # a critic that begins anew has the trunk of the policy
        jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[-len(a) :]), own["critic"]["layers"], theirs["layers"])


def test_parts_of_other_shapes_begin_anew(monkeypatch):
    theirs, said = fresh("shared", 1), []
    theirs["value"]["weights"] = theirs["value"]["weights"][:-1]
    monkeypatch.setattr("train.runs.start.started_from", lambda run: SimpleNamespace(experiment=experiment("shared")))
    monkeypatch.setattr("train.runs.start.load_parameters", lambda run, mesh: (theirs, 0))
    fresh_ones = fresh("shared", 2)
    own = adopt(SimpleNamespace(experiment=experiment("shared")), None, fresh_ones, said.append)
    np.testing.assert_array_equal(own["value"]["weights"], fresh_ones["value"]["weights"])
    assert said == ["started from runs/before; what begins anew: scalar head on the decoder"]
