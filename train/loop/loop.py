"""The training loop, read from top to bottom."""

import collections
import contextlib
import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from data.errors import UserError
from data.files import json_files
from data.files.streams import dispensable
from train.checkpoints.checkpointer import Checkpointer, load_parameters
from train.devices import hosts
from train.devices.mesh import check_batch, divide_cpu, inference_mesh, make_mesh
from train.experiment import Experiment, Scaling
from train.loop.exits import Exit
from train.loop.learner import Learner, fresh_state, state_to_restore
from train.loop.report import write_report
from train.loop.row_learner import RowLearner, check_samples, make_batches
from train.loop.sentinel import Request, Sentinel, Stopped
from train.loop.telemetry import Silence, Telemetry, read_metrics
from train.objectives.make import attention_kernels, make_objective
from train.objectives.terms import means
from train.optimizers.build import optimizer_of
from train.planning.flops import peak_flops
from train.rl.games.options import AlphaZero, BoardGame
from train.rl.options import PolicyGradient
from train.rl.policy.learner import PolicyLearner, check_policy
from train.runs.parameters import check_frozen
from train.runs.runs import Run, differences, environment, with_paths
from train.sources.media import check_learned, check_media
from train.step.state import State
from train.step.update import compiler_options

NO_PROGRESS: dict[str, Any] = {
    "tokens": 0,
    "seconds": 0.0,
    "best_loss": None,
    "best_step": 0,
    "worse_evaluations": 0,
    "loss": None,
    "looked": 0,
    "rewinds": 0,
    "rewound_from": 0,
    "rewound_to": None,
}
"""The loop's own bookkeeping, saved with every checkpoint.

loss: of the validation at this very step. looked: the last step whose evaluation and samples are complete. rewinds: since a good save of a
later step than rewound_from, where the run last went back, to step rewound_to.
"""


def make_learner(run: Run, corpora: list, mesh) -> Learner:
    """What takes the steps of a run, by the kind of its objective."""
    match run.experiment.objective:
        case PolicyGradient():
            return PolicyLearner(run, corpora, mesh)
        case AlphaZero():
            from train.rl.games.learner import AlphaZeroLearner  # with mctx, which takes a second to load

            return AlphaZeroLearner(run, mesh)
    return RowLearner(run, corpora, mesh)


def check(experiment: Experiment, corpora: list) -> None:
    """UserError for what would stop the run before its first step."""
    check_options(experiment)
    divide_cpu(experiment)
    mesh = make_mesh(experiment.mesh)
    check_batch(mesh, experiment.batch_size, experiment.micro_batches, experiment.model.context_length)
    optimizer_of(experiment)
    if isinstance(experiment.objective, AlphaZero):
        from train.rl.games.learner import check_game

        return check_game(experiment)
    if isinstance(experiment.data, BoardGame):
        raise UserError("data: BoardGame is for an AlphaZero objective", "Choose that in the config file.")
    check_media(experiment)
    make_objective(experiment, mesh)
    check_frozen(experiment)
    if experiment.objective.of_whole_batch and experiment.micro_batches > 1:
        raise UserError("objective: its loss is of a whole batch, and cannot be taken in micro-batches", "Set --micro-batches 1.")
    if isinstance(experiment.objective, PolicyGradient):
        check_policy(experiment, corpora, mesh)
    else:
        make_batches(experiment, corpora)
        check_learned(experiment, corpora)
        check_samples(experiment, corpora)


def check_options(experiment: Experiment) -> None:
    """UserError for what is asked for and would never happen."""
    evaluation, checkpoints = experiment.evaluation, experiment.checkpoints
    for name, asked in {"evaluation.patience": evaluation.patience, "checkpoints.keep_best": checkpoints.keep_best}.items():
        if asked and not evaluation.every:
            raise UserError(f"{name} is {asked}, and evaluation.every 0: nothing is measured before the end", "Set --evaluation.every N.")
    for name, asked in {"keep_best": checkpoints.keep_best, "keep_every": checkpoints.keep_every}.items():
        if asked and not checkpoints.every:
            raise UserError(f"checkpoints.{name} is {asked}, and checkpoints.every 0: only the end is saved", "Set --checkpoints.every N.")
    if checkpoints.keep_every and checkpoints.keep_every % checkpoints.every:
        raise UserError(
            f"checkpoints.keep_every {checkpoints.keep_every} is no multiple of checkpoints.every {checkpoints.every}: "
            "most of these steps are not saved",
            "Choose a multiple.",
        )


def measure(run: Run, *, step: int | None = None, raw: bool = False, rows: int = 0, shards: tuple[str, ...] = ()) -> dict:
    """What the loop would measure of a checkpoint (default: the latest): {"step", "split", "loss", ...}. rows: 0 for as in training.
    shards: other data of the same kind to measure on."""
    corpora = run.other_corpora(shards) if shards else run.corpora()
    if shards:
        run = dataclasses.replace(run, experiment=with_paths(run.experiment, shards))
    if rows:
        evaluation = dataclasses.replace(run.experiment.evaluation, rows=rows)
        run = dataclasses.replace(run, experiment=dataclasses.replace(run.experiment, evaluation=evaluation))
    mesh = inference_mesh(run.experiment.mesh)
    params, step = load_parameters(run, mesh, step=step, raw=raw)
    with contextlib.closing(make_learner(run, corpora, mesh)) as learner:
        found = learner.evaluate(params, lambda: None)
    if not found:
        raise UserError(
            f"nothing to validate with in {', '.join(str(corpus.path) for corpus in corpora)}", "Give data that has some, with --shards."
        )
    return {"step": step, "split": "validation"} | found


def train(run: Run, on_samples: Callable[[int, Any], str] | None = None) -> dict:
    """Train `run` from its last checkpoint, or from the start, to its last step. Returns (and writes) the run's summary.

    on_samples: called as on_samples(step, params) with the averaged parameters whenever samples are drawn; the line it returns is shown.

    SIGINT and SIGTERM save a checkpoint after the step in hand and return, SIGUSR1 saves and goes on; the same command then goes on from
    there. summary["exit"] is what the process should end with (`train.loop.exits.Exit`).
    """
    divide_cpu(run.experiment)
    stacks = run.path / f"stacks-{hosts.index()}.txt"
    with contextlib.ExitStack() as stack:
        stack.enter_context(dispensable())
        stack.enter_context(hosts.only_writer(run.path))
        place = stack.enter_context(contextlib.closing(hosts.Place(run.path)))
        sentinel = stack.enter_context(Sentinel(run.experiment.faults.stall_seconds, stacks))
        return _train(run, on_samples, sentinel, place)


def _train(run: Run, on_samples: Callable[[int, Any], str] | None, sentinel: Sentinel, place: hosts.Place) -> dict:
    began = time.monotonic()
    experiment, faults = run.experiment, run.experiment.faults
    mesh = make_mesh(experiment.mesh)
    check_batch(mesh, experiment.batch_size, experiment.micro_batches, experiment.model.context_length)
    corpora = run.corpora()
    learner = make_learner(run, corpora, mesh)
    averaging = experiment.ema_decay > 0

    def open_checkpoints(folder: Path) -> Checkpointer:
        return Checkpointer(folder, experiment.checkpoints, identity=run.identity)

    checkpointer = open_checkpoints(run.path)

    def restored(step: int | None) -> tuple[State, dict]:
        """The state of a checkpoint, or a fresh one; and the loop's own bookkeeping, which is saved with it."""
        if step is None:
            return fresh_state(learner, mesh, experiment.seed, ema=averaging), NO_PROGRESS.copy()
        abstract = state_to_restore(learner, mesh, ema=averaging)
        return checkpointer.restore(abstract) if step < 0 else checkpointer.restore(abstract, step)

    state, progress = restored(None if checkpointer.latest_step() is None else -1)
    resumed = step = int(state.step)
    cursor = int(state.cursor)

    device = jax.devices()[0]
    peak = peak_flops(device.device_kind)
    here = environment() | {
        "compiler_options": compiler_options(device.platform),
        "attention_kernels": attention_kernels(experiment, mesh),
    }
    telemetry: Telemetry | Silence = Silence()
    if hosts.first():
        changed = differences(run.path, here) if resumed else []
        json_files.write(run.path / "environment.json", here)
        telemetry = Telemetry(
            run.path,
            total_steps=experiment.steps,
            resume_step=step,
            looked=progress["looked"],
            cursor=cursor,
            tensorboard=experiment.logging.tensorboard,
            wandb=experiment.logging.wandb,
            name=experiment.name,
            config=run.experiment,
            device=device.device_kind,
            flops_per_token=learner.flops_per_token,
            peak=peak * jax.device_count() if peak else None,
        )
        if changed:
            telemetry.message(f"not bit for bit as before, only up to rounding: {'; '.join(changed)}")
    with telemetry, contextlib.ExitStack() as stack, contextlib.closing(checkpointer):
        telemetry.message(f"step {step} of {experiment.steps}, {learner.padding_share:.2%} padding" + (" (resumed)" if resumed else ""))
        if _complete(experiment, step, progress):
            telemetry.message("the run is complete: nothing is left to train")
            try:
                summary = json_files.read(run.path / "summary.json", "")
            except (OSError, UserError):  # a kill came first
                summary = {}
            if summary.get("step") == step:
                return summary
            return finish(run, step, progress, learner.padding_share, {}, Exit.DONE)
        if experiment.schedule.warmup_steps > experiment.steps:
            warmup = experiment.schedule.warmup_steps
            telemetry.message(f"the learning rate stays below its peak: schedule.warmup_steps is {warmup}, of {experiment.steps} steps")
        stack.callback(learner.close)
        if not learner.validates:
            check_unvalidated(experiment)
            telemetry.message("no validation: the data has nothing for it")
        learner.begin(cursor)
        meter = _Meter(telemetry, learner.rate, progress)
        watch = _BadSteps(telemetry, experiment)
        request, saved = Request.NOTHING, (step, progress["looked"])

        def save(*, periodic: bool, again: bool = False) -> None:
            """Periodic saves are what a rewind may go back to: others depend on when a signal came, and a run must not."""
            nonlocal saved
            if saved == (step, progress["looked"]) and not again:
                return
            good = periodic and progress["looked"] == step and not watch.in_a_row
            if good and step > progress["rewound_from"]:
                progress["rewinds"] = 0
            with meter.pause("checkpoint"):
                so_far = {"tokens": meter.tokens(), "seconds": progress["seconds"] + time.monotonic() - began}
                telemetry.sync()
                checkpointer.save(state, progress | so_far, good=good)
            saved = (step, progress["looked"])

        try:
            while True:
                # What belongs to the step that was reached. Stopped in its middle, a run does it again when it goes on.
                if progress["looked"] < step and request != Request.STOP:
                    last = step >= experiment.steps
                    place.check()
                    try:
                        if last or _due(experiment.evaluation.every, step):
                            with meter.pause("evaluation"):
                                paused = time.monotonic()
                                validation = learner.evaluate(state.averaged, sentinel.stop_early)
                            if validation:
                                telemetry.evaluation(step, validation | {"seconds": round(time.monotonic() - paused, 3)})
                                _keep_best(progress, step, validation["loss"])
                    except Stopped:
                        request = Request.STOP
                    else:
                        if not last and _out_of_patience(experiment, progress):
                            best = f"{progress['best_loss']:.4f} of step {progress['best_step']}"
                            telemetry.message(f"stopped early: no better validation than {best}")
                            last = True
                        if experiment.samples.tokens and (last or _due(experiment.samples.every, step)):
                            with meter.pause("samples"):
                                for sample in learner.samples(state.averaged):
                                    telemetry.sample(step, *sample)
                                for remark in learner.remarks():
                                    telemetry.message(remark)
                                if on_samples is not None:
                                    telemetry.message(f"step {step}: {on_samples(step, state.averaged)}")
                        progress["looked"] = step
                done = _complete(experiment, step, progress)
                if done or request == Request.STOP:
                    break
                to_save = request == Request.SAVE or (_due(experiment.checkpoints.every, step) and not watch.in_a_row)
                if to_save or step % experiment.logging.every == 0:
                    place.check()
                if to_save:
                    save(periodic=_due(experiment.checkpoints.every, step))

                batch = meter.waiting(learner)
                for remark in learner.remarks():
                    telemetry.message(remark)
                before = cursor
                state, metrics, rows = learner.step(state, batch)
                step, cursor, progress["loss"] = step + 1, cursor + rows, None
                if "first_step" not in meter.seconds:
                    jax.block_until_ready(metrics)
                    meter.started(time.monotonic() - began)
                    sentinel.started()
                meter.record(step, metrics, log=step == experiment.steps or step % experiment.logging.every == 0)
                request = sentinel.poll()

                watch.record(step, before, cursor, metrics)
                everything = request != Request.NOTHING or step == experiment.steps or _looks(experiment, step)
                found = watch.examine(newest=everything)
                if found:  # as many bad steps in a row as are borne; what was dispatched after them is thrown away
                    bad_step, cursor = found
                    meter.forget()
                    progress["rewinds"] += 1
                    checkpointer.wait()
                    target = _target(checkpointer.steps(good=True), bad_step - watch.in_a_row, progress["rewound_to"])
                    if progress["rewinds"] > faults.rewinds:
                        raise Diverged(*watch.diverged(bad_step, target))
                    state, then = restored(target)
                    step = int(state.step)
                    kept = {"seconds": progress["seconds"], "rewinds": progress["rewinds"], "rewound_from": bad_step, "rewound_to": step}
                    progress.update(then | kept)
                    state = dataclasses.replace(state, cursor=jax.device_put(np.int32(cursor), state.cursor.sharding))
                    telemetry.rewind(step)
                    watch.rewound(bad_step, step, cursor)
                    learner.begin(cursor)
                    saved = (step, progress["looked"])
            place.check()
            save(periodic=done or _due(experiment.checkpoints.every, step))
            with meter.pause("checkpoint"):
                _until_saved(checkpointer, lambda: save(periodic=done, again=True), sentinel)
        except Exception as error:  # damaged data, a reward, a sample, a store that does not answer: what was trained is not lost
            folder = error.path if isinstance(error, hosts.Moved) else run.path
            unsaved = saved != (step, progress["looked"]) or folder != run.path
            if unsaved and folder is not None and hosts.count() == 1 and not isinstance(error, Diverged) and _is_whole(state):
                if folder != run.path:
                    checkpointer = stack.enter_context(contextlib.closing(open_checkpoints(folder)))
                try:
                    meter.flush()
                    save(periodic=False, again=folder != run.path)
                    _until_saved(checkpointer, lambda: save(periodic=False, again=True), sentinel)
                    telemetry.message(f"step {step}, the last that was finished, is saved")
                except Exception as second:
                    telemetry.message(f"step {step} could not be saved: {second}")
            raise
        if not done:
            telemetry.message(f"stopped at step {step}; saved. The same command goes on from here.")
    progress["seconds"] += time.monotonic() - began
    return finish(run, step, progress, learner.padding_share, meter.seconds, Exit.DONE if done else sentinel.reason)


def finish(run: Run, step: int, progress: dict, padding: float, timing: dict, code: Exit) -> dict:
    """Write summary.json and the report, from what the run has logged. What cannot be written is said, and stops nothing."""
    summary: dict[str, Any] = {"step": step, "stopped": code != Exit.DONE, "exit": int(code)}
    summary |= {name: progress[name] for name in ("tokens", "seconds", "best_loss", "best_step")}
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


SPACE_SECONDS = 30
"""How long a run that ends on a full disk tries again to save."""


def _until_saved(checkpointer: Checkpointer, save_again: Callable[[], None], sentinel: Sentinel) -> None:
    """Return when the newest save can be restored; UserError when the disk has not taken it after some tries, or nobody can wait for it."""
    asked = sentinel.poll()
    end = time.monotonic() + (SPACE_SECONDS if asked != Request.STOP else SPACE_SECONDS / 3)  # whoever ends a machine gives 30 s or less
    while True:
        try:
            return checkpointer.wait()
        except UserError:
            if hosts.count() > 1 or time.monotonic() > end or (asked != Request.STOP and sentinel.poll() == Request.STOP):
                raise
        time.sleep(1.0)
        save_again()


def _is_whole(state: State) -> bool:
    """Whether a state's arrays are still there: a step that failed on the device may have taken them."""
    return not any(leaf.is_deleted() for leaf in jax.tree.leaves(state))


def check_unvalidated(experiment: Experiment) -> None:
    """UserError where something of the run depends on validation, and there is nothing to validate with."""
    needs = {
        "evaluation.patience": experiment.evaluation.patience > 0,
        "checkpoints.keep_best": experiment.checkpoints.keep_best > 0,
        "a scaling study": isinstance(experiment, Scaling),
    }
    for name, needed in needs.items():
        if needed:
            raise UserError(f"{name} needs validation, and the data has nothing for it", "Prepare with --validation 0.1, or leave it out.")


def _out_of_patience(experiment: Experiment, progress: dict) -> bool:
    """Whether early stopping is asked for and due."""
    return 0 < experiment.evaluation.patience <= progress["worse_evaluations"]


def _complete(experiment: Experiment, step: int, progress: dict) -> bool:
    """Whether nothing is left to do, the last evaluation and samples included."""
    return progress["looked"] == step and (step >= experiment.steps or _out_of_patience(experiment, progress))


def _due(every: int, step: int) -> bool:
    return every > 0 and step % every == 0


def _looks(experiment: Experiment, step: int) -> bool:
    """Whether the loop looks at the state after this step."""
    return any(_due(every, step) for every in (experiment.evaluation.every, experiment.samples.every, experiment.checkpoints.every))


def _keep_best(progress: dict, step: int, loss: float) -> None:
    progress["loss"] = loss
    if progress["best_loss"] is None or loss < progress["best_loss"]:
        progress |= {"best_loss": loss, "best_step": step, "worse_evaluations": 0}
    else:
        progress["worse_evaluations"] += 1


class Diverged(UserError):
    """Bad steps went on after every rewind that is allowed."""

    code = Exit.DIVERGED


def _target(good: list[int], before: int, last: int | None) -> int | None:
    """The checkpoint to go back to: the newest good one of a step up to `before`, but none that the run has just gone back to in vain.

    good: steps of checkpoints, ascending. last: where the run went back to before, if it did. None: to the start.
    """
    vain = last == before
    candidates = [step for step in good if step <= before and not (vain and step >= before)]
    return candidates[-1] if candidates else None


SOUNDNESS = ("skipped", "loss", "gradient_norm", "unsound")
"""Metrics by which a step is told to be a bad one; the last is of policies alone."""


class _BadSteps:
    """Reads from the metrics which steps changed nothing, one step late, and says so."""

    def __init__(self, telemetry: Telemetry | Silence, experiment: Experiment):
        self._telemetry, self._experiment = telemetry, experiment
        self._unread: collections.deque = collections.deque()
        self.in_a_row = 0

    def record(self, step: int, before: int, cursor: int, metrics: dict) -> None:
        """before, cursor: rows consumed before and after the step."""
        self._unread.append((step, before, cursor, {name: metrics[name] for name in SOUNDNESS if name in metrics}))

    def examine(self, *, newest: bool) -> tuple[int, int] | None:
        """(step, cursor) at which the run has to go back, or None. Without `newest` the device is still busy with the last step.

        It also has to when the very last step is bad: what is kept for good shall have worked once. The answer does not
        depend on when it is asked for, only on the steps: a resumed run goes back at the same place.
        """
        while len(self._unread) > (0 if newest else 1):
            step, before, cursor, metrics = self._unread.popleft()
            self.in_a_row = int(metrics["skipped"].total)
            if not self.in_a_row:
                continue
            found = means(jax.device_get(metrics))
            loss, norm = found.get("loss", math.nan), found["gradient_norm"]
            rows = [before, cursor - 1]
            values = {"cursor": cursor, "rows": rows, "loss": loss, "gradient_norm": norm, "action": "skip"}
            self._telemetry.anomaly(step, values)
            limit = self._experiment.faults.skips
            which = f"rows {rows[0]} to {rows[1]}; {self.in_a_row} in a row of {limit}"
            unsound = float(metrics["unsound"].total) if "unsound" in metrics else 0
            cause = f", {unsound:g} tokens beyond objective.ratio_limit" if unsound else ""
            self._telemetry.message(f"step {step}: loss {loss:g}, gradient {norm:g}{cause}: nothing was updated ({which})")
            if self.in_a_row >= limit or step == self._experiment.steps:
                self._unread.clear()
                return step, cursor
        return None

    def rewound(self, bad_step: int, step: int, cursor: int) -> None:
        self.in_a_row = 0
        self._telemetry.anomaly(bad_step, {"cursor": cursor, "action": "rewind", "to": step})
        self._telemetry.message(f"step {bad_step}: back to step {step}, and on from there with row {cursor}")

    def diverged(self, bad_step: int, target: int | None) -> tuple[str, str]:
        rewinds, stands = self._experiment.faults.rewinds, f"checkpoint {target} stands" if target is not None else "nothing was saved"
        return (
            f"training has diverged: bad steps up to {bad_step}, also after going back {rewinds} times (faults.rewinds); {stands}",
            "Start anew with a lower --optimizer.learning-rate, or look at the rows that were named with `omnia inspect RUN --row N`.",
        )


def _count(weights: list) -> int:
    """Tokens of several steps; the weights of bad ones may be anything."""
    return int(sum(weight for weight in map(float, jax.device_get(weights)) if math.isfinite(weight)))


class _Meter:
    """Metrics and timing. A logged step's metrics are read one step late, while the device works on the next."""

    def __init__(self, telemetry: Telemetry | Silence, schedule, progress: dict):
        self._telemetry, self._schedule, self._progress = telemetry, schedule, progress
        self._weights: list = []
        self._pending: tuple | None = None
        self._loss: tuple | None = None
        self.seconds: dict[str, float] = {}
        self._restart()

    def waiting(self, incoming):
        """The next batch. Waiting for it counts only where the device had nothing left to do."""
        before = incoming.waited_s
        batch = next(incoming)
        if self._loss is None or self._loss[1].total.is_ready():
            self._waited += incoming.waited_s - before
        return batch

    def forget(self) -> None:
        """The run goes back: what was not written yet will not be."""
        self._pending, self._weights = None, []
        self._restart()

    def started(self, seconds: float) -> None:
        """The first step is done, `seconds` after the start: compilation is not counted as throughput."""
        self.seconds["first_step"] = seconds
        self._restart()

    def record(self, step: int, metrics: dict, *, log: bool) -> None:
        self.flush()
        self._weights.append(metrics.get("tokens", metrics["loss"]).weight)
        if self._loss is not None:  # no more than two steps are under way: a longer queue gains nothing and only holds memory
            jax.block_until_ready(self._loss[1])
        self._loss = (step, metrics["loss"])
        if log:
            self._pending, self._weights = (step, metrics, self._weights), []
            if metrics["loss"].total.is_ready():  # nothing runs that could hide the reading, as after a step that waits for its responses
                self.flush()

    def flush(self) -> None:
        """Write the pending row, if there is one."""
        if self._pending is None:
            return
        step, metrics, weights = self._pending
        self._pending = None
        shown = {name: mean for name, mean in metrics.items() if name not in ("skipped", "tokens")}
        values = means(jax.device_get(shown))
        tokens = _count(weights)
        elapsed = max(time.monotonic() - self._since, 1e-9)
        self._progress["tokens"] += tokens
        self._telemetry.train(
            step,
            values
            | {
                "learning_rate": float(self._schedule(step - 1)),
                "tokens": self._progress["tokens"],
                "tokens_per_second": tokens / elapsed,
                "data_wait": min(1.0, self._waited / elapsed),
                "step_ms": 1000 * elapsed / len(weights),
            },
        )
        self._restart()

    def tokens(self) -> int:
        """Tokens trained on since the start of the run, those of steps not logged yet included."""
        return self._progress["tokens"] + _count(self._weights)

    @contextlib.contextmanager
    def pause(self, name: str):
        """Time what is not training apart from it."""
        self.flush()
        begin = time.monotonic()
        yield
        spent = time.monotonic() - begin
        self.seconds[name] = self.seconds.get(name, 0.0) + spent
        self._since += spent

    def _restart(self) -> None:
        self._since, self._waited = time.monotonic(), 0.0
