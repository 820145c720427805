"""Bad steps change nothing, the run goes back after too many, and where it goes does not depend on when it was stopped."""

import dataclasses
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data.text.batches import Batches
from model.transformer import Decoder
from tests.train.conftest import change
from tests.train.tiny_runs import outcome, start, train
from train.checkpoints.checkpointer import Checkpointer
from train.devices.mesh import make_mesh, put_batch
from train.experiment import MeshShape
from train.loop.bad_steps import Diverged, rewind_target
from train.loop.exits import Exit
from train.loop.meter import Meter
from train.loop.telemetry import read_metrics
from train.objectives.bind import bind
from train.optimizers.build import make_optimizer
from train.runs.directory import open_run
from train.sources.dataset import dataset_of
from train.step.anomalies import DECAY, WARM, choose, detect, no_history
from train.step.state import abstract_state
from train.step.update import jit_update, make_update


def test_what_is_not_finite_is_bad():
    for loss, norm, expected in ((1.0, 1.0, False), (np.nan, 1.0, True), (1.0, np.inf, True), (-np.inf, 1.0, True)):
        bad, history = detect(no_history(), jnp.float32(loss), jnp.float32(norm), 0.0)
        assert bool(bad) == expected and int(history.skipped) == int(expected) and int(history.seen) == int(not expected)


def test_spikes_are_told_from_the_moving_average_of_good_losses():
    """Against NumPy, in double precision: averages with bias correction over the good losses before each."""
    rng = np.random.default_rng(0)
    losses = 3.0 + 0.1 * rng.standard_normal(WARM + 60)
    losses[[20, WARM + 10, WARM + 11, WARM + 40]] += 2.0  # the first comes before spikes can be told
    step = jax.jit(lambda history, loss: detect(history, loss, jnp.float32(1), 6.0))
    history, mean, square, seen, found, expected = no_history(), 0.0, 0.0, 0, [], []
    for loss in losses:
        correction = 1 - DECAY ** max(seen, 1)
        deviation = np.sqrt(max(square / correction - (mean / correction) ** 2, 0))
        expected.append(seen >= WARM and loss > mean / correction + 6 * deviation)
        if not expected[-1]:
            mean, square, seen = DECAY * mean + (1 - DECAY) * loss, DECAY * square + (1 - DECAY) * loss**2, seen + 1
        bad, history = step(history, jnp.float32(loss))
        found.append(bool(bad))
    assert found == expected and sum(found) >= 2
    np.testing.assert_allclose([history.mean, history.square], [mean, square], rtol=1e-4)


def test_the_choice_keeps_every_bit():
    odd = {"a": jnp.array([np.nan, -0.0, 1e-45], jnp.float32), "n": jnp.int32(7)}
    new = {"a": jnp.ones(3), "n": jnp.int32(8)}
    for bad, expected in ((True, odd), (False, new)):
        kept = choose(jnp.bool_(bad), odd, new)
        assert [np.asarray(x).tobytes() for x in jax.tree.leaves(kept)] == [np.asarray(x).tobytes() for x in jax.tree.leaves(expected)]


def test_where_a_run_goes_back_to():
    assert rewind_target([2, 4, 6], 5, None) == 4
    assert rewind_target([2, 4, 6], 4, 4) == 2  # it had just gone back to 4, and no step after it was good
    assert rewind_target([2, 4, 6], 5, 4) == 4
    assert rewind_target([4], 4, 4) is None and rewind_target([], 3, None) is None


@pytest.fixture
def poison(monkeypatch):
    """poison(first, last): training rows from first to last, both included, weigh NaN from now on."""
    span = {"first": 1, "last": 0}
    batch = Batches.batch

    def poisoned(self, first_row, count):
        found = batch(self, first_row, count)
        rows = first_row + np.arange(count)
        bad = (span["first"] <= rows) & (rows <= span["last"]) & (self.order == "shuffled")
        return found._replace(weights=np.where(bad[:, None], np.float32(np.nan), found.weights))

    monkeypatch.setattr(Batches, "batch", poisoned)

    def set_span(first, last):
        span.update(first=first, last=last)

    return set_span


def anomalies(run):
    return [row for row in read_metrics(run.path) if row["kind"] == "anomaly"]


def state_of(run, step):
    experiment = run.experiment
    optimizer = make_optimizer(experiment.optimizer, experiment.schedule, experiment.steps)
    abstract = abstract_state(Decoder(experiment.model).start, optimizer, make_mesh(MeshShape(data=1), jax.devices()[:1]), ema=True)
    checkpointer = Checkpointer(run.path, experiment.checkpoints)
    found, _ = checkpointer.restore(abstract, step)
    checkpointer.close()
    return found


def test_a_bad_step_leaves_parameters_and_optimizer_alone(tiny, tmp_path, poison):
    """With the last step bad and no going back, what is saved equals the state before it, to the bit; the counts of step and rows go on."""
    tiny = change(tiny, evaluation={"every": 0}, checkpoints={"every": 1}, steps=5)
    poison(12, 15)  # of step 4, four rows each
    run = start(tmp_path / "run", tiny)
    assert train(run)["exit"] == Exit.DONE
    (bad,) = anomalies(run)
    assert (bad["step"], bad["rows"], bad["cursor"], bad["action"]) == (4, [12, 15], 16, "skip") and np.isnan(bad["loss"])
    before, after = state_of(run, 3), state_of(run, 5)
    assert int(after.cursor) == 20 and int(after.history.skipped) == 0
    counts = [int(leaf) for leaf in jax.tree.leaves(after.opt_state) if leaf.ndim == 0 and leaf.dtype == jnp.int32]
    assert counts and set(counts) == {4}  # five steps, four updates

    mesh = make_mesh(MeshShape(data=1), jax.devices()[:1])
    update = jit_update(make_update(bind(run.experiment, mesh).loss, make_optimizer(tiny.optimizer, tiny.schedule, 5), seed=0), mesh)
    batch = put_batch(mesh, lambda first, rows: dataset_of(run.experiment).batches(run.corpora()).batch(12 + first, rows), 4)
    kept = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves((before.params, before.opt_state))]
    skipped, metrics = update(dataclasses.replace(before, ema=None), None, batch)
    assert [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves((skipped.params, skipped.opt_state))] == kept
    assert (int(skipped.step), int(skipped.cursor), int(metrics["skipped"].total)) == (4, 16, 1)


def test_after_too_many_the_run_goes_back_and_on_with_other_rows(tiny, tmp_path, poison, monkeypatch):
    """Stopped by SIGTERM anywhere, also in the middle of the bad rows, it ends with the same bytes."""
    tiny = change(tiny, faults={"skips": 3}, evaluation={"every": 0}, checkpoints={"every": 2})
    poison(16, 27)  # steps 5 to 7; the checkpoint of step 4 is good
    whole = start(tmp_path / "whole", tiny)
    assert train(whole)["exit"] == Exit.DONE
    assert [(row["step"], row["action"]) for row in anomalies(whole)] == [(5, "skip"), (6, "skip"), (7, "skip"), (7, "rewind")]
    assert anomalies(whole)[-1]["to"] == 4 and anomalies(whole)[-1]["cursor"] == 28
    assert [row["step"] for row in read_metrics(whole.path) if row["kind"] == "train"] == list(range(1, 9))
    expected = outcome(whole)
    record = Meter.record
    parts = start(tmp_path / "parts", tiny)
    for last in (5, 6, 8):

        def record_and_kill(self, step, *rest, last=last, **options):
            record(self, step, *rest, **options)
            if step == last < 8:
                signal.raise_signal(signal.SIGTERM)

        monkeypatch.setattr(Meter, "record", record_and_kill)
        assert train(open_run(parts.path))["exit"] == (Exit.DONE if last == 8 else Exit.SAVED)
    found = outcome(parts)
    assert str(found[0]) == str(expected[0])  # as text: NaN is not equal to itself
    assert found[1] == expected[1]
    assert found[2] == expected[2]


def test_a_run_that_stays_bad_says_so_and_keeps_what_was_good(tiny, tmp_path, poison):
    tiny = change(tiny, faults={"skips": 2, "rewinds": 1}, evaluation={"every": 0}, checkpoints={"every": 2})
    poison(16, 10**6)
    run = start(tmp_path / "run", tiny)
    with pytest.raises(Diverged, match="bad steps up to 6, also after going back 1 times") as error:
        train(run)
    assert error.value.code == Exit.DIVERGED
    poison(1, 0)
    assert train(dataclasses.replace(run))["step"] == 8  # the checkpoints were left whole
