"""What one mesh saved, another goes on with: the parameters to the bit, and the same gradient up to the order of sums."""

import jax
import numpy as np
import pytest

from model.transformer import Decoder
from tests.train.conftest import change
from tests.train.tiny_runs import start, train
from train.checkpoints.checkpointer import Checkpointer
from train.devices.mesh import make_mesh, put_batch
from train.experiment import MeshShape
from train.objectives.bind import bind
from train.optimizers.build import optimizer_of
from train.sources.dataset import dataset_of
from train.step.gradients import plain
from train.step.state import abstract_state
from train.step.update import on_mesh


@pytest.fixture(scope="module")
def saved(tmp_path_factory, corpora):
    """A run of two steps on eight devices, rows over four of them and width over two."""
    from tests.train.conftest import tiny as fixture

    tiny = fixture.__wrapped__(corpora)
    shape = MeshShape(data=4, tensor=2)
    experiment = change(tiny, steps=2, mesh=shape, batch_size=8, micro_batches=1, evaluation={"every": 0}, model={"dropout": 0.0})
    run = start(tmp_path_factory.mktemp("saved") / "run", experiment)
    train(run, devices=8)
    return run


def restored(run, mesh):
    """Parameters as NumPy arrays, and the gradient of the next batch, on a mesh."""
    experiment = run.experiment
    optimizer = optimizer_of(experiment)
    checkpointer = Checkpointer(run.path, experiment.checkpoints, identity=run.identity)
    state, _ = checkpointer.restore(abstract_state(Decoder(experiment.model).start, optimizer, mesh, ema=True))
    checkpointer.close()
    batches, first = dataset_of(experiment).batches(run.corpora()), int(state.cursor)
    batch = put_batch(mesh, lambda start, rows: batches.batch(first + start, rows), experiment.batch_size)
    objective = bind(experiment, mesh).loss
    gradient = on_mesh(jax.jit(lambda params, batch: plain(objective, params, batch, jax.random.key(0))[0]), mesh)
    return jax.tree.map(np.asarray, (state.params, state.opt_state, state.ema)), jax.tree.map(np.asarray, gradient(state.params, batch))


def flat(tree):
    return np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)]).astype(np.float64)


def test_a_state_moves_between_meshes(saved):
    state, gradient = restored(saved, make_mesh(MeshShape(data=4, tensor=2)))
    for shape, count in ((MeshShape(data=1), 1), (MeshShape(data=1, fsdp=2), 2), (MeshShape(data=2, fsdp=4), 8)):
        found, other = restored(saved, make_mesh(shape, jax.devices()[:count]))
        for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(found), strict=True):
            assert a.tobytes() == b.tobytes()
        assert np.linalg.norm(flat(other) - flat(gradient)) <= 1e-5 * np.linalg.norm(flat(gradient))
