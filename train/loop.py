"""The training loop, read from top to bottom."""

import contextlib
import json
import math
import signal
import time
from collections.abc import Callable
from typing import Any

import jax

from data.batches import Batches
from data.errors import UserError
from data.prefetch import prefetch
from model.generate import Sampling
from train.checkpoint import Checkpointer
from train.evaluate import evaluate_corpora, make_evaluate
from train.experiment import Experiment
from train.flops import peak_flops, training_flops_per_token
from train.mesh import check_batch, divide_cpu, make_mesh, put_batch
from train.objectives import attention_kernels, make_objective
from train.optimizer import make_optimizer, make_schedule
from train.report import write_report
from train.runs import Run, environment, text_data, write_json
from train.sampling import make_generator
from train.state import abstract_state, initial_state
from train.step import compiler_options, jit_update, make_update
from train.telemetry import Telemetry, read_metrics


def make_batches(experiment: Experiment, corpora) -> Batches:
    """Training rows, packed and shuffled: the same for the same seed, on any number of hosts."""
    data = text_data(experiment)
    batches = Batches(
        corpora,
        weights=data.weights,
        split="train",
        context_length=experiment.model.context_length,
        seed=experiment.seed,
        max_damaged=data.max_damaged,
        fim_rate=data.fim_rate,
    )
    if batches.ids > experiment.model.vocab_size:
        raise UserError(
            f"data.fim_rate needs the token id {batches.ids - 1}, but model.vocab_size is {experiment.model.vocab_size}",
            "Set --model.vocab-size 0, which takes the tokenizer's, or --data.fim-rate 0.",
        )
    return batches


def check(experiment: Experiment, corpora) -> None:
    """UserError for what would stop the run before its first step."""
    divide_cpu(experiment)
    mesh = make_mesh(experiment.mesh)
    check_batch(mesh, experiment.batch_size, experiment.micro_batches, experiment.model.context_length)
    make_objective(experiment, mesh)
    make_optimizer(experiment.optimizer, experiment.schedule, experiment.steps)
    make_batches(experiment, corpora)


def train(run: Run, look: Callable[[int, Any], str] | None = None) -> dict:
    """Train `run` from its last checkpoint, or from the start, to its last step. Returns (and writes) the run's summary.

    look: called as look(step, params) with the averaged parameters whenever samples are drawn; the line it returns is shown.

    SIGINT and SIGTERM save a checkpoint after the step in hand and return; the same command then goes on from there.
    """
    began = time.monotonic()
    experiment = run.experiment
    divide_cpu(experiment)
    mesh = make_mesh(experiment.mesh)
    check_batch(mesh, experiment.batch_size, experiment.micro_batches, experiment.model.context_length)
    corpora = run.corpora()
    batches = make_batches(experiment, corpora)
    objective = make_objective(experiment, mesh)
    optimizer = make_optimizer(experiment.optimizer, experiment.schedule, experiment.steps)
    averaging = experiment.ema_decay > 0
    update = jit_update(
        make_update(objective, optimizer, seed=experiment.seed, micro_batches=experiment.micro_batches, ema_decay=experiment.ema_decay),
        mesh,
    )
    evaluate = make_evaluate(objective, mesh)
    checkpointer = Checkpointer(run.path, experiment.checkpoints)

    progress: dict[str, Any] = {"tokens": 0, "seconds": 0.0, "best_loss": None, "best_step": 0, "worse_evaluations": 0}
    if checkpointer.latest_step() is None:
        state = initial_state(experiment.model, optimizer, mesh, experiment.seed, ema=averaging)
    else:
        state, progress = checkpointer.restore(abstract_state(experiment.model, optimizer, mesh, ema=averaging))
    resumed = step = int(state.step)
    origin = int(state.cursor) - step * experiment.batch_size  # 0, unless the batch size changed on the way

    def make(step: int):
        start = origin + step * experiment.batch_size
        return put_batch(mesh, lambda first, rows: batches.batch(start + first, rows), experiment.batch_size)

    device = jax.devices()[0]
    peak = peak_flops(device.device_kind)
    numerics = {"compiler_options": compiler_options(device.platform), "attention_kernels": attention_kernels(experiment, mesh)}
    write_json(run.path / "environment.json", environment() | numerics)
    telemetry = Telemetry(
        run.path,
        total_steps=experiment.steps,
        resume_step=step,
        tensorboard=experiment.logging.tensorboard,
        wandb=experiment.logging.wandb,
        name=experiment.name,
        config=run.experiment,
        device=device.device_kind,
        flops_per_token=training_flops_per_token(experiment.model, experiment.model.context_length),
        peak=peak * jax.device_count() if peak else None,
    )
    stop, last_step = _StopRequest(), False
    with telemetry, stop, prefetch(make, step, depth=2) as incoming, contextlib.closing(checkpointer):
        telemetry.message(f"step {step} of {experiment.steps}, {batches.padding_share:.2%} padding" + (" (resumed)" if resumed else ""))
        if step >= experiment.steps or _out_of_patience(experiment, progress):
            telemetry.message("the run is complete: nothing is left to train")
            written = run.path / "summary.json"  # unless a kill came first
            summary = json.loads(written.read_text()) if written.exists() else {}
            return summary if summary.get("step") == step else finish(run, step, progress, batches, {}, stopped=False)
        meter = _Meter(telemetry, make_schedule(experiment.schedule, experiment.optimizer.learning_rate, experiment.steps), progress)

        def save():
            meter.check_finite()
            so_far = {"tokens": meter.tokens(), "seconds": progress["seconds"] + time.monotonic() - began}
            checkpointer.save(state, progress | so_far)

        damaged = 0
        while step < experiment.steps and not stop.asked:
            try:
                batch = meter.waiting(incoming)
            except Exception:  # more damage than was allowed, a store that does not answer: what was trained is not lost
                meter.flush()
                save()
                checkpointer.wait()
                raise
            if len(batches.damaged) > damaged:
                damaged = len(batches.damaged)
                telemetry.message(f"{damaged} damaged documents so far: their places are empty (data.max_damaged)")
            state, metrics = update(state, None, batch)
            step += 1
            last_step = step == experiment.steps
            if step == resumed + 1:
                jax.block_until_ready(metrics)
                meter.started(time.monotonic() - began)
            meter.record(step, metrics, log=last_step or step % experiment.logging.every == 0)

            if last_step or (experiment.evaluation.every and step % experiment.evaluation.every == 0):
                with meter.pause("evaluation"):
                    paused = time.monotonic()
                    validation = evaluate_corpora(evaluate, state.averaged, corpora, experiment, mesh, rows=experiment.evaluation.rows)
                if validation:
                    telemetry.evaluation(step, validation | {"seconds": round(time.monotonic() - paused, 3)})
                    if progress["best_loss"] is None or validation["loss"] < progress["best_loss"]:
                        progress |= {"best_loss": validation["loss"], "best_step": step, "worse_evaluations": 0}
                    else:
                        progress["worse_evaluations"] += 1
            if not last_step and _out_of_patience(experiment, progress):
                telemetry.message(f"stopped early: no better validation than {progress['best_loss']:.4f} of step {progress['best_step']}")
                last_step = True

            if experiment.samples.tokens and (last_step or (experiment.samples.every and step % experiment.samples.every == 0)):
                with meter.pause("samples"):
                    for completion in draw_samples(run, state.averaged):
                        telemetry.sample(step, completion.prompt, completion.text)
                    if look is not None:
                        telemetry.message(f"step {step}: {look(step, state.averaged)}")

            if last_step:
                break
            if experiment.checkpoints.every and step % experiment.checkpoints.every == 0:
                with meter.pause("checkpoint"):
                    save()
        with meter.pause("checkpoint"):
            save()
            checkpointer.wait()
        if stop.asked and not last_step:
            telemetry.message(f"stopped at step {step}; saved. The same command goes on from here.")
    progress["seconds"] += time.monotonic() - began
    return finish(run, step, progress, batches, meter.seconds, stopped=stop.asked and not last_step)


def finish(run: Run, step: int, progress: dict, batches: Batches, timing: dict, *, stopped: bool) -> dict:
    """Write summary.json and the report, from what the run has logged."""
    evaluations = [row for row in read_metrics(run.path) if row["kind"] == "evaluation" and row["step"] == step]
    validation = (
        {name: value for name, value in evaluations[-1].items() if name not in ("kind", "step", "time", "seconds")} if evaluations else {}
    )
    summary = {"step": step, "stopped": stopped} | {name: progress[name] for name in ("tokens", "seconds", "best_loss", "best_step")}
    summary |= {"validation": validation, "padding": batches.padding_share, "timing": timing}
    write_json(run.path / "summary.json", summary)
    write_report(run.path)
    return summary


def _out_of_patience(experiment: Experiment, progress: dict) -> bool:
    """Whether early stopping is asked for and due."""
    return 0 < experiment.evaluation.patience <= progress["worse_evaluations"]


def draw_samples(run: Run, params):
    """The completions of the run's sample prompts, the same at every step but for the parameters."""
    samples = run.experiment.samples
    generator = make_generator(run, params)
    prompts = [prompt for prompt in samples.prompts if prompt or run.document_end is not None]
    if not prompts:
        return []
    return generator.generate(prompts, tokens=samples.tokens, sampling=Sampling(temperature=samples.temperature), seed=run.experiment.seed)


class _StopRequest:
    """Turns SIGINT and SIGTERM into a flag that the loop looks at; a second signal acts as if nobody listened."""

    def __init__(self):
        self.asked = False
        self._before = {}

    def __enter__(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(ValueError):  # not the main thread: a notebook's server handles signals itself
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number, _):
        self.asked = True
        signal.signal(number, self._before[number])


class _Meter:
    """Metrics and timing. A logged step's metrics are read one step late, while the device works on the next."""

    def __init__(self, telemetry: Telemetry, schedule, progress: dict):
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

    def check_finite(self) -> None:
        """UserError when the loss of the last step is no number: a state that diverged must not replace a good checkpoint."""
        if self._loss is None or math.isfinite(float(self._loss[1].total)):
            return
        raise UserError(
            f"the loss of step {self._loss[0]} is {float(self._loss[1].total)}: training has diverged; the last checkpoint stands",
            "Start anew with a lower --optimizer.learning-rate, or look at the rows with `omnia inspect RUN --step N`.",
        )

    def started(self, seconds: float) -> None:
        """The first step is done, `seconds` after the start: compilation is not counted as throughput."""
        self.seconds["first_step"] = seconds
        self._restart()

    def record(self, step: int, metrics: dict, *, log: bool) -> None:
        self.flush()
        self._weights.append(metrics["loss"].weight)
        if self._loss is not None:  # no more than two steps are under way: a longer queue gains nothing and only holds memory
            jax.block_until_ready(self._loss[1])
        self._loss = (step, metrics["loss"])
        if log:
            self._pending, self._weights = (step, metrics, self._weights), []

    def flush(self) -> None:
        """Write the pending row, if there is one."""
        if self._pending is None:
            return
        step, metrics, weights = self._pending
        self._pending = None
        values = {name: float(mean.total) / max(float(mean.weight), 1e-8) for name, mean in jax.device_get(metrics).items()}
        tokens = int(sum(float(weight) for weight in jax.device_get(weights)))
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
        return self._progress["tokens"] + int(sum(float(weight) for weight in jax.device_get(self._weights)))

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
