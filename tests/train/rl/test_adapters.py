"""With adapters the reference is the same model without them: no second copy, and the same values."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from tests.train.rl.comparisons import comparisons
from tests.train.rl.conftest import DECODER, MODEL, parameters
from tests.train.rl.policies import POLICY, policy
from tests.train.tiny_runs import start, train
from train.adapters.options import LoRA
from train.adapters.training import fresh_leaves, method_of, trained_bound
from train.checkpoints.checkpointer import load_parameters
from train.devices.mesh import make_mesh
from train.experiment import Experiment, MeshShape
from train.loop.learner import fresh_state, learner_of
from train.loop.telemetry import read_metrics
from train.objectives.bind import bind
from train.rl.options import PreferenceLearning
from train.runs.directory import open_run
from train.step.gradients import plain


def test_preferences_are_those_against_a_copy():
    """Loss, metrics and gradients of the adapters, with the base as its own reference and with a reference beside it."""
    experiment = Experiment(model=MODEL, objective=PreferenceLearning(beta=0.3), adapters=LoRA(rank=2), start="runs/a")
    bound, method, base, batch = bind(experiment), method_of(experiment), parameters(), comparisons()
    rng = np.random.default_rng(2)
    leaves = nn.unbox(fresh_leaves(bound, method, jax.random.key(0)))
    leaves = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.2, leaf.shape), jnp.float32), leaves)

    def separate(leaves, batch, key, *, frozen, carry):
        return bound.loss(method.joined(base, leaves), batch, key, frozen=frozen, carry=carry)

    adapted = trained_bound(bound, method).loss
    found = jax.jit(lambda leaves: plain(adapted, leaves, batch, None, frozen={"base": base}))(leaves)
    expected = jax.jit(lambda leaves: plain(separate, leaves, batch, None, frozen={"reference": base}))(leaves)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), found, expected)
    assert float(found[1]["loss"].total / found[1]["loss"].weight) != pytest.approx(np.log(2), abs=1e-3)
    assert DECODER.config == MODEL


def test_a_policy_has_its_reference_in_itself(started, tmp_path):
    """No copy of the base is made, and the KL is zero at the start, where the adapters change nothing."""
    objective = dataclasses.replace(POLICY, reference="copy", minibatches=1, epochs=1)
    run = start(tmp_path / "run", policy(started, objective, adapters=LoRA(rank=2), steps=2))
    assert run.experiment.adapters.trained == ("value",)
    mesh = make_mesh(MeshShape(data=1), jax.devices()[:1])
    learner = learner_of(run, run.corpora(), mesh)
    state = fresh_state(learner, mesh, 0, ema=False)
    reference, whole, before = learner._reference(), learner.whole(state.params), load_parameters(started, mesh)[0]
    for path, leaf in jax.tree_util.tree_leaves_with_path(before):
        own, other = whole, reference
        for key in path:
            own, other = own[key.key], other[key.key]
        assert own is other and (np.asarray(own) == np.asarray(leaf)).all()
    assert set(state.params) == {"layers", "value"}
    train(run)
    rows = [row for row in read_metrics(run.path) if row["kind"] == "train"]
    assert abs(rows[0]["objective/kl"]) < 1e-4 and len(rows) == 2 and rows[1]["gradient_norm"] > 0
    after = load_parameters(open_run(run.path), mesh)[0]
    assert np.abs(after["layers"]["attention"]["query"]["kernel"] - before["layers"]["attention"]["query"]["kernel"]).max() > 0
