"""Responses drawn in fewer places than there are responses are those of a rollout of all at once."""

import dataclasses

import flax.linen as nn
import jax
import numpy as np
import pytest

from data.errors import UserError
from tests.train.rl.policies import TINY, Echo
from tests.train.tiny_runs import check, start
from train.devices.mesh import MeshShape, make_mesh
from train.loop.learner import learner_of
from train.rl.environments.text_tasks import Letters
from train.rl.options import GRPO, Prompts
from train.runs.directory import open_corpora

TASK = dataclasses.replace(
    TINY,
    model=dataclasses.replace(TINY.model, context_length=40, num_kv_heads=1, init_std=1.0),
    batch_size=24,
    data=Prompts(environments=(Letters(length=3), Letters(length=5)), prompt_tokens=7, validation=8),
    objective=GRPO(group_size=2, response_tokens=33, kl_coefficient=0.0),
)


def test_a_response_does_not_depend_on_the_number_of_places(tmp_path):
    mesh = make_mesh(MeshShape(data=1), jax.devices()[:1])
    found = []
    for slots in (0, 4, 8):
        experiment = dataclasses.replace(TASK, objective=dataclasses.replace(TASK.objective, slots=slots))
        run = start(tmp_path / str(slots), experiment)
        learner = learner_of(run, run.corpora(), mesh)
        params = nn.unbox(learner.parameters(jax.random.key(0)))
        table = 0.1 * params["embedding"]["table"]  # ends are likely at some places and not at others
        params["embedding"]["table"] = table.at[learner._questions.end].set(4.0 * jax.nn.one_hot(0, table.shape[1]))
        found.append(jax.device_get(learner._sample(params, learner._questions.take(5, 12)).rollout))
    lengths = found[0].mask_BR.sum(1)
    assert lengths.min() < 10 and lengths.max() == 33, "lengths should differ: choose another seed"
    for other in found[1:]:
        for name, expected, seen in zip(found[0]._fields, found[0], other, strict=True):
            np.testing.assert_allclose(seen, expected, atol=1e-5, err_msg=name)


def test_places_are_checked():
    with pytest.raises(ValueError, match="multiple"):
        GRPO(group_size=8, slots=12)
    talk, objective = dataclasses.replace(TASK.data, environments=(Echo(),), reply_tokens=6), GRPO(slots=8, response_tokens=4)
    experiment = dataclasses.replace(TASK, data=talk, objective=objective)
    with pytest.raises(UserError, match="one turn"):
        check(experiment, open_corpora(experiment))
