"""The training loop, read from top to bottom."""

import contextlib
import dataclasses
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from data.errors import UserError
from data.files import json_files
from data.files.streams import dispensable
from train.checkpoints.checkpointer import Checkpointer
from train.devices import hosts
from train.devices.mesh import Mesh, check_batch, divide_cpu, make_mesh
from train.experiment import Experiment
from train.kinds import Learner
from train.loop.bad_steps import BadSteps, Diverged, rewind_target
from train.loop.checks import check_unvalidated
from train.loop.exits import Exit
from train.loop.learner import fresh_state, learner_of, state_to_restore
from train.loop.meter import Meter
from train.loop.progress import Progress, cost
from train.loop.report import write_report
from train.loop.sections import write_sections
from train.loop.sentinel import Request, Sentinel, Stopped
from train.loop.telemetry import Silence, Telemetry, read_metrics
from train.objectives.bind import attention_kernels
from train.planning.flops import peak_flops
from train.runs.directory import Run
from train.runs.environment import differences, environment
from train.step.state import State
from train.step.update import compiler_options

SPACE_SECONDS = 30
"""How long a run that ends on a full disk tries again to save."""


def train(run: Run, corpora: list | None = None, devices: list | None = None) -> dict:
    """Train `run` from its last checkpoint, or from the start, to its last step. Returns (and writes) the run's summary.

    corpora: the run's data, if already open. devices: to train on; None: all.

    SIGINT and SIGTERM save a checkpoint after the current step and return; the next call resumes from it. SIGUSR1 saves and continues.
    summary["exit"] is the exit code for the process (`train.loop.exits.Exit`).
    """
    divide_cpu(run.experiment)
    stacks = run.path / f"stacks-{hosts.index()}.txt"
    with contextlib.ExitStack() as stack:
        stack.enter_context(dispensable())
        stack.enter_context(hosts.only_writer(run.path))
        place = stack.enter_context(contextlib.closing(hosts.Place(run.path)))
        sentinel = stack.enter_context(Sentinel(run.experiment.faults.stall_seconds, stacks))
        return _train(run, corpora, devices, sentinel, place)


def _train(run: Run, corpora: list | None, devices: list | None, sentinel: Sentinel, place: hosts.Place) -> dict:
    began = time.monotonic()
    experiment = run.experiment
    mesh = make_mesh(experiment.mesh, devices)
    check_batch(mesh, experiment.batch_size, experiment.micro_batches, experiment.model.context_length)
    learner = learner_of(run, run.corpora() if corpora is None else corpora, mesh)
    training = _Training(run, learner, mesh, sentinel, place, began)
    telemetry = training.telemetry
    with telemetry, contextlib.ExitStack() as stack, contextlib.closing(training.checkpointer):
        resumed = " (resumed)" if training.step else ""
        telemetry.message(f"step {training.step} of {experiment.steps}, {learner.padding_share:.2%} padding{resumed}")
        if training.complete:
            telemetry.message("the run is complete: nothing is left to train")
            return _summary_of_complete(run, training.step, training.progress, learner.padding_share)
        if experiment.schedule.warmup_steps > experiment.steps:
            warmup = experiment.schedule.warmup_steps
            telemetry.message(f"the learning rate stays below its peak: schedule.warmup_steps is {warmup}, of {experiment.steps} steps")
        stack.callback(learner.close)
        if not learner.validates:
            check_unvalidated(experiment)
            telemetry.message("no validation: the data has nothing for it")
        learner.begin(training.cursor, sentinel.stop_early)
        try:
            training.take_steps()
            training.save_at_end()
        except Exception as error:  # damaged data, a reward, a sample, a store that does not answer: what was trained is not lost
            training.rescue(error, stack)
            raise
        if not training.complete:
            telemetry.message(f"stopped at step {training.step}; saved. The same command goes on from here.")
    code = Exit.DONE if training.complete else sentinel.reason
    return finish(run, training.step, training.progress_at_end(), learner.padding_share, training.meter.seconds, code)


class _Training:
    """A run from its last checkpoint on: its state, the step that it has reached, and what a step needs.

    step, cursor: those of the state, known without waiting for the device. progress: tokens and seconds are those of earlier processes.
    """

    def __init__(self, run: Run, learner: Learner, mesh: Mesh, sentinel: Sentinel, place: hosts.Place, began: float):
        self._run, self._experiment, self._learner, self._mesh = run, run.experiment, learner, mesh
        self._sentinel, self._place, self._began = sentinel, place, began
        self.checkpointer = self._open_checkpoints(run.path)
        self._state, self.progress = self._fresh() if self.checkpointer.latest_step() is None else self._restored()
        self.step, self.cursor = int(self._state.step), int(self._state.cursor)
        self.telemetry = _open_telemetry(run, learner, mesh, self.step, self.cursor, self.progress)
        self.meter = Meter(self.telemetry, learner.rate, self.progress.tokens)
        self._bad_steps = BadSteps(self.telemetry, self._experiment)
        self._saved = self._reached

    @property
    def complete(self) -> bool:
        """Whether nothing is left to do, the last evaluation and samples included."""
        ended = self.step >= self._experiment.steps or _out_of_patience(self._experiment, self.progress)
        return self.progress.finished_step == self.step and ended

    def take_steps(self) -> None:
        """Train until the run is complete, or asked to stop."""
        request = Request.NOTHING
        while True:
            # What belongs to the step that was reached. Stopped in its middle, a run does it again when it goes on.
            if self.progress.finished_step < self.step and request != Request.STOP:
                try:
                    self._finish_step()
                except Stopped:
                    request = Request.STOP
            if self.complete or request == Request.STOP:
                return
            save_due = _due(self._experiment.checkpoints.every, self.step)
            to_save = request == Request.SAVE or (save_due and not self._bad_steps.in_a_row)
            if to_save or self.step % self._experiment.logging.every == 0:
                self._place.check()
            if to_save:
                self._save(periodic=save_due)
            request = self._take_step()

    def save_at_end(self) -> None:
        """Save, and return when what was saved can be restored."""
        self._place.check()
        self._save(periodic=self.complete or _due(self._experiment.checkpoints.every, self.step))
        with self.meter.pause("checkpoint"):
            self._wait_for_save(periodic=self.complete)

    def rescue(self, error: Exception, stack: contextlib.ExitStack) -> None:
        """Save the last finished step after an error beside it, where its state is whole. stack: closes what is opened for that."""
        folder = error.path if isinstance(error, hosts.Moved) else self._run.path
        unsaved = self._saved != self._reached or folder != self._run.path
        if not unsaved or folder is None or hosts.count() > 1 or isinstance(error, Diverged) or not _is_whole(self._state):
            return
        moved = folder != self._run.path
        if moved:
            self.checkpointer = stack.enter_context(contextlib.closing(self._open_checkpoints(folder)))
        try:
            self.meter.flush()
            self._save(periodic=False, again=moved)
            self._wait_for_save(periodic=False)
            self.telemetry.message(f"step {self.step}, the last that was finished, is saved")
        except Exception as second:
            self.telemetry.message(f"step {self.step} could not be saved: {second}")

    def progress_at_end(self) -> Progress:
        """With the tokens of all rows that were logged, and the seconds until now."""
        return dataclasses.replace(self.progress, tokens=self.meter.logged_tokens, seconds=self._seconds())

    @property
    def _reached(self) -> tuple[int, int]:
        """What a checkpoint of now would be of."""
        return self.step, self.progress.finished_step

    def _seconds(self) -> float:
        return self.progress.seconds + time.monotonic() - self._began

    def _finish_step(self) -> None:
        """Evaluation and samples, where the step that was reached has some. Raises Stopped where an evaluation was not worth finishing."""
        experiment = self._experiment
        last = self.step >= experiment.steps
        self._place.check()
        if last or _due(experiment.evaluation.every, self.step):
            self._evaluate()
        if not last and _out_of_patience(experiment, self.progress):
            name, best = experiment.evaluation.best, self.progress.best_loss or 0.0
            self.telemetry.message(f"stopped early: no better {name} than {cost(name, best):.4f} of step {self.progress.best_step}")
            last = True
        if experiment.samples.tokens and (last or _due(experiment.samples.every, self.step)):
            self._draw_samples()
        if last and hosts.first():
            write_sections(self._run.path, self._learner.shows())
        self.progress = dataclasses.replace(self.progress, finished_step=self.step)

    def _evaluate(self) -> None:
        with self.meter.pause("evaluation"):
            paused = time.monotonic()
            validation = self._learner.evaluate(self._learner.whole(self._state.averaged), self._sentinel.stop_early)
        if validation:
            self.telemetry.evaluation(self.step, validation | {"seconds": round(time.monotonic() - paused, 3)})
            self.progress = self.progress.evaluated(self.step, self._cost(validation))

    def _cost(self, validation: dict) -> float:
        """What evaluations are compared by; UserError where they do not measure it."""
        name = self._experiment.evaluation.best
        if not isinstance(validation.get(name), float | int):
            known = ", ".join(one for one, value in validation.items() if isinstance(value, float))
            raise UserError(f"evaluation.best is {name!r}, which no evaluation of this run measures", f"They give {known}.")
        return cost(name, validation[name])

    def _draw_samples(self) -> None:
        with self.meter.pause("samples"):
            for sample in self._learner.samples(self._learner.whole(self._state.averaged)):
                self.telemetry.sample(self.step, *sample)
            self._tell_remarks()

    def _tell_remarks(self) -> None:
        for remark in self._learner.remarks():
            self.telemetry.message(remark)

    def _take_step(self) -> Request:
        """One step, and a rewind where too many were bad. Returns what was asked for meanwhile."""
        experiment = self._experiment
        batch = self.meter.next_batch(self._learner)
        self._tell_remarks()
        before = self.cursor
        try:
            self._state, metrics, rows = self._learner.step(self._state, batch)
        except Stopped:
            return Request.STOP
        self.step, self.cursor, self.progress = self.step + 1, self.cursor + rows, dataclasses.replace(self.progress, loss=None)
        if "first_step" not in self.meter.seconds:
            jax.block_until_ready(metrics)
            self.meter.started(time.monotonic() - self._began)
            self._sentinel.started()
        last = self.step == experiment.steps
        self.meter.record(self.step, metrics, log=last or self.step % experiment.logging.every == 0)
        request = self._sentinel.poll()

        self._bad_steps.record(self.step, before, self.cursor, metrics)
        read_now = request != Request.NOTHING or last or _reads_state(experiment, self.step)
        found = self._bad_steps.examine(newest=read_now)
        if found:  # as many bad steps in a row as are borne; what was dispatched after them is thrown away
            self._rewind(*found)
        return request

    def _rewind(self, bad_step: int, cursor: int) -> None:
        """Back to the last good checkpoint, and on with the rows from `cursor`; Diverged where that was done as often as it may be."""
        self.cursor = cursor
        self.meter.forget()
        self.progress = dataclasses.replace(self.progress, rewinds=self.progress.rewinds + 1)
        self.checkpointer.wait()
        target = rewind_target(self.checkpointer.steps(good=True), bad_step - self._bad_steps.in_a_row, self.progress.rewound_to)
        if self.progress.rewinds > self._experiment.faults.rewinds:
            raise Diverged(*self._bad_steps.diverged(bad_step, target))
        self._state, then = self._fresh() if target is None else self._restored(target)
        self.step = int(self._state.step)
        self.progress = dataclasses.replace(
            then, seconds=self.progress.seconds, rewinds=self.progress.rewinds, rewound_from=bad_step, rewound_to=self.step
        )
        self.meter.logged_tokens = then.tokens
        self._state = dataclasses.replace(self._state, cursor=jax.device_put(np.int32(cursor), self._state.cursor.sharding))
        self.telemetry.rewind(self.step)
        self._bad_steps.rewound(bad_step, self.step, cursor)
        self._learner.begin(cursor, self._sentinel.stop_early)
        self._saved = self._reached

    def _open_checkpoints(self, folder: Path) -> Checkpointer:
        return Checkpointer(folder, self._experiment.checkpoints, identity=self._run.identity)

    def _fresh(self) -> tuple[State, Progress]:
        return fresh_state(self._learner, self._mesh, self._experiment.seed, ema=self._experiment.ema_decay > 0), Progress()

    def _restored(self, step: int | None = None) -> tuple[State, Progress]:
        """The checkpoint of a step, or the newest one that is whole."""
        abstract = state_to_restore(self._learner, self._mesh, ema=self._experiment.ema_decay > 0)
        state, stored = self.checkpointer.restore(abstract, step)
        return state, Progress.from_json(stored)

    def _save(self, *, periodic: bool, again: bool = False) -> None:
        """Save what was reached, if it is not saved; with `again`, also then.

        Periodic saves are what a rewind may go back to: others depend on when a signal came, and a run must not.
        """
        if self._saved == self._reached and not again:
            return
        good = periodic and self.progress.finished_step == self.step and not self._bad_steps.in_a_row
        if good and self.step > self.progress.rewound_from:
            self.progress = dataclasses.replace(self.progress, rewinds=0)
        with self.meter.pause("checkpoint"):
            progress = dataclasses.replace(self.progress, tokens=self.meter.tokens(), seconds=self._seconds())
            self.telemetry.sync()
            self.checkpointer.save(self._state, progress.to_json(), good=good)
        self._saved = self._reached

    def _wait_for_save(self, *, periodic: bool) -> None:
        """Return when the newest save can be restored; UserError when the disk does not take it after some tries, or nobody can wait.

        periodic: of the saves that are tried again.
        """
        asked = self._sentinel.poll()
        patience = SPACE_SECONDS if asked != Request.STOP else SPACE_SECONDS / 3  # whoever ends a machine gives 30 s or less
        end = time.monotonic() + patience
        while True:
            try:
                return self.checkpointer.wait()
            except UserError:
                if hosts.count() > 1 or time.monotonic() > end or (asked != Request.STOP and self._sentinel.poll() == Request.STOP):
                    raise
            time.sleep(1.0)
            self._save(periodic=periodic, again=True)


def _open_telemetry(run: Run, learner: Learner, mesh: Mesh, step: int, cursor: int, progress: Progress) -> Telemetry | Silence:
    """What process 0 writes, and the others do not. Writes environment.json, and says what of it has changed."""
    experiment, device = run.experiment, jax.devices()[0]
    peak = peak_flops(device.device_kind)
    here = environment() | {
        "compiler_options": compiler_options(device.platform),
        "attention_kernels": attention_kernels(experiment, mesh),
    }
    if not hosts.first():
        return Silence()
    changed = differences(run.path, here) if step else []
    json_files.write(run.path / "environment.json", here)
    telemetry = Telemetry(
        run.path,
        total_steps=experiment.steps,
        resume_step=step,
        finished_step=progress.finished_step,
        cursor=cursor,
        tensorboard=experiment.logging.tensorboard,
        wandb=experiment.logging.wandb,
        name=experiment.name,
        config=run.experiment,
        device=device.device_kind,
        flops_per_token=learner.flops_per_token,
        peak=peak * mesh.size if peak else None,
    )
    if changed:
        telemetry.message(f"not bit for bit as before, only up to rounding: {'; '.join(changed)}")
    return telemetry


def _summary_of_complete(run: Run, step: int, progress: Progress, padding: float) -> dict:
    """The summary that the run ended with, or that it would have ended with had no kill come first."""
    try:
        summary = json_files.read(run.path / "summary.json", "")
    except (OSError, UserError):
        summary = {}
    return summary if summary.get("step") == step else finish(run, step, progress, padding, {}, Exit.DONE)


def finish(run: Run, step: int, progress: Progress, padding: float, timing: dict, code: Exit) -> dict:
    """Write summary.json and the report, from what the run has logged. What cannot be written is said, and stops nothing."""
    summary: dict[str, Any] = {"step": step, "stopped": code != Exit.DONE, "exit": int(code)}
    best, measure = progress.best_loss, run.experiment.evaluation.best
    summary |= {name: getattr(progress, name) for name in ("tokens", "seconds", "best_step")}
    summary |= {f"best_{measure}": None if best is None else cost(measure, best)}
    summary |= {"validation": {}, "padding": padding, "timing": timing}
    try:
        evaluations = [row for row in read_metrics(run.path) if row["kind"] == "evaluation" and row["step"] == step]
        if evaluations:
            summary["validation"] = {
                name: value for name, value in evaluations[-1].items() if name not in ("kind", "step", "time", "seconds")
            }
        if hosts.first():
            json_files.write(run.path / "summary.json", summary)
            write_report(run.path)
    except Exception as error:  # a full disk, rows that are damaged, a package that draws: the run itself is saved
        print(f"WARNING: no report ({type(error).__name__}: {error}); `omnia report {run.path}` draws it once that is mended", flush=True)
    return summary


def _is_whole(state: State) -> bool:
    """Whether a state's arrays are still there: a step that failed on the device may have taken them."""
    return not any(leaf.is_deleted() for leaf in jax.tree.leaves(state))


def _out_of_patience(experiment: Experiment, progress: Progress) -> bool:
    """Whether early stopping is asked for and due."""
    return 0 < experiment.evaluation.patience <= progress.worse_evaluations


def _due(every: int, step: int) -> bool:
    return every > 0 and step % every == 0


def _reads_state(experiment: Experiment, step: int) -> bool:
    """Whether the state after this step is evaluated, sampled from or saved."""
    return any(_due(every, step) for every in (experiment.evaluation.every, experiment.samples.every, experiment.checkpoints.every))
