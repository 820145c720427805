"""What a run says while it trains: rows on disk always, one live line on a terminal, TensorBoard and Weights & Biases when asked."""

import csv
import importlib
import io
import math
import os
import queue
import secrets
import sys
import threading
import time
from pathlib import Path
from typing import Any

from data.errors import UserError
from data.files import json_files, storage
from data.files.json_files import NOT_FINITE
from train.runs.serialize import to_json

COLUMNS = (
    *("kind", "step", "time", "loss", "gradient_norm", "learning_rate", "tokens", "tokens_per_second"),
    *("data_wait", "step_ms", "mfu", "bits_per_byte", "perplexity"),
)
"""Of metrics.csv, which holds the train and evaluation rows; metrics.jsonl holds every value of every row."""
KINDS = ("train", "evaluation", "sample", "anomaly")
NEEDED: dict[str, dict[str, type]] = {"evaluation": {"loss": float}, "anomaly": {"cursor": int}, "sample": {"prompt": str, "text": str}}
"""What rows of a kind have, beside a step and a time."""
TEXTS = ("prompt", "text")
"""Values of a row that are text, whatever they look like."""
HEADLINES = ("score", "gold", "kl", "win_rate", "length", "accuracy")
"""Of the evaluation of a policy, what is said on screen."""
ROWS_WAITING = 1000
"""For TensorBoard, at most."""
CLOSE_SECONDS = 5
"""That a run waits at its end for TensorBoard's rows to be written."""
PLAIN_SECONDS = 10
LIVE_SECONDS = 0.1


def read_metrics(run_dir: Path) -> list[dict]:
    """The rows of <run>/metrics.jsonl, in the order they were written; none when it does not exist.

    A row is {"kind": "train" | "evaluation" | "sample" | "anomaly", "step", "time": seconds since the run's start, ...}. A last line that a
    kill tore is left out; any other damage is a UserError.
    """
    path = Path(run_dir) / "metrics.jsonl"
    if not path.exists():
        return []
    *lines, _torn = path.read_bytes().split(b"\n")
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json_files.parse(line)
            if row.get("kind") not in KINDS:
                raise ValueError(f"the kind {row.get('kind')!r}")
            needed = {"step": int, "time": float} | NEEDED.get(row["kind"], {})
            for name, kind in needed.items():
                if not _is_of(row.get(name), kind):
                    raise ValueError(f"{name} is {row.get(name)!r}")
        except ValueError as error:
            raise UserError(f"{path}: line {number} is damaged ({error})", "Remove that line, or restore the file.") from None
        rows.append({name: float(value) if value in NOT_FINITE and name not in TEXTS else value for name, value in row.items()})
    return rows


def _is_of(value, kind: type) -> bool:
    if kind is float:
        return value in NOT_FINITE or (isinstance(value, float | int) and not isinstance(value, bool))
    return isinstance(value, kind) and not isinstance(value, bool)


def name_sources(values: dict[str, Any]) -> dict[str, Any]:
    """The values of an evaluation, with loss/<name of the source> for loss/<its number>."""
    names = {f"loss/{number}": f"loss/{name}" for number, name in enumerate(values.get("sources", ()))}
    return {names.get(key, key): value for key, value in values.items() if key != "sources"}


class Telemetry:
    """Writes the metrics of one run; use as a context.

    run_dir: gets metrics.jsonl and metrics.csv, from which rows after `resume_step` are dropped first; evaluations and samples after
    `finished_step`, the last step whose evaluation and samples are complete (default: it); anomalies past `cursor`, the rows consumed.
    total_steps: of the run.
    tensorboard, wandb: also write there (extras of the same names). name, config: what W&B calls the run and stores of it.
    device: kind of device, for the reader. flops_per_token: of a training step. peak: FLOP/s of all devices together, None: unknown.
    """

    def __init__(
        self,
        run_dir: Path,
        *,
        total_steps: int,
        resume_step: int = 0,
        finished_step: int | None = None,
        cursor: int = 0,
        tensorboard: bool = False,
        wandb: str = "off",
        name: str = "",
        config: Any = None,
        device: str = "",
        flops_per_token: float | None = None,
        peak: float | None = None,
    ):
        run_dir = Path(run_dir)
        self._total, self._flops, self._peak = total_steps, flops_per_token, peak
        self._run_dir = run_dir
        self._loggers: list = []
        if tensorboard:
            self._loggers.append(_TensorBoard(run_dir, resume_step))
        if wandb != "off":
            self._loggers.append(_WandB(run_dir, wandb, name, config))

        finished_step = resume_step if finished_step is None else finished_step
        last = {"train": resume_step, "evaluation": finished_step, "sample": finished_step}
        kept = [
            row
            for row in read_metrics(run_dir)
            if (row["cursor"] <= cursor if row["kind"] == "anomaly" else row["step"] <= last[row["kind"]])
        ]
        self._start = time.monotonic() - max((row["time"] for row in kept), default=0.0)
        self._jsonl, self._csv = (_RowFile(run_dir / name, self.message) for name in ("metrics.jsonl", "metrics.csv"))
        for file, lines in zip((self._jsonl, self._csv), _contents(kept), strict=True):
            file.replace(lines)
        self._validation: dict = next((row for row in reversed(kept) if row["kind"] == "evaluation"), {})
        self._first: tuple[int, float] | None = None  # a step and its time, from which the time left is reckoned
        self._line = _LiveLine() if sys.stdout.isatty() else _PlainLines()
        if flops_per_token and peak is None:
            self.message(f"MFU unknown for {device or 'this device'}: its peak FLOP/s are not known")

    def train(self, step: int, values: dict[str, float]) -> None:
        """A row of training. Known to the progress line, all optional: loss, gradient_norm, learning_rate, tokens_per_second, data_wait
        (share of the time since the last row that was spent waiting for data); mfu is added."""
        if self._flops and self._peak and "tokens_per_second" in values:
            values = values | {"mfu": values["tokens_per_second"] * self._flops / self._peak}
        row = self._write("train", step, values)
        self._log("train/", step, values)
        self._first = self._first or (step, row["time"])
        self._line.show(self._describe(row), step / self._total, last=step >= self._total)

    def evaluation(self, step: int, values: dict[str, Any]) -> None:
        """A row of validation: loss (nats per token), bits_per_byte, ...; of several sources also `sources`, their names, and loss/<i>."""
        self._validation = self._write("evaluation", step, values)
        self._log("validation/", step, name_sources(values))
        bits = f", {values['bits_per_byte']:.4f} bits per byte" if "bits_per_byte" in values else ""
        losses = [values.get(f"loss/{number}") for number in range(len(values.get("sources", ())))]
        each = [f"{name} {'none' if loss is None else f'{loss:.4f}'}" for name, loss in zip(values.get("sources", ()), losses, strict=True)]
        found = f"validation loss {values['loss']:.4f}{bits}"
        if "score" in values:  # of a policy: its loss is only the negative of that
            found = ", ".join(f"{name.replace('_', ' ')} {values[name]:.4f}" for name in HEADLINES if name in values)
        self.message(f"step {step}: {found}" + (f" ({', '.join(each)})" if each else ""))

    def sample(self, step: int, prompt: str, text: str, score: float | None = None) -> None:
        """A text that the model wrote after `prompt`, and what it is worth, where something judges it."""
        self._write("sample", step, {"prompt": prompt, "text": text} | ({} if score is None else {"score": score}))
        self._tell_loggers("text", step, prompt + text)
        worth = "" if score is None else f", score {score:.3g}"
        self.message(f"step {step}: sample{worth}\n    " + (prompt + text).replace("\n", "\n    "))

    def anomaly(self, step: int, values: dict[str, Any]) -> None:
        """A bad step: cursor (rows consumed after it), rows (the first and the last of it), loss, gradient_norm, action."""
        self._write("anomaly", step, values)

    def rewind(self, step: int) -> None:
        """The run goes on from `step` again: rows after it are dropped, but for anomalies."""
        rows = [json_files.parse(line) for line in self._jsonl.content().splitlines()]
        kept = [row for row in rows if row["kind"] == "anomaly" or row["step"] <= step]
        for file, lines in zip((self._jsonl, self._csv), _contents(kept), strict=True):
            try:
                file.replace(lines)
            except OSError:  # no room beside the old one
                file.rewrite(lines)
        self._first = None

    def message(self, text: str) -> None:
        """A line of its own, above the progress line. Control characters, which a model may write, are not passed to the terminal."""
        self._line.message("".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text))

    def sync(self) -> None:
        """Return when all rows are on the disk, not only with the system: a checkpoint must not outlive the rows before it."""
        for file in (self._jsonl, self._csv):
            file.sync()

    def close(self) -> None:
        self._line.close()
        self._jsonl.close()
        self._csv.close()
        self._tell_loggers("close")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _write(self, kind: str, step: int, values: dict) -> dict:
        row = values | {"kind": kind, "step": step, "time": round(time.monotonic() - self._start, 3)}
        self._jsonl.write(_json_line(row))
        if kind in ("train", "evaluation"):
            self._csv.write(_csv_lines([row]))
        return row

    def _log(self, prefix: str, step: int, values: dict) -> None:
        self._tell_loggers("scalars", step, {prefix + name: value for name, value in values.items()})

    def _tell_loggers(self, what: str, *values) -> None:
        """One that fails is left out from there on, and a line says so: no run is worth less than what is told of it."""
        for logger in list(self._loggers):
            try:
                getattr(logger, what)(*values)
            except Exception as error:  # of a package of others, its files, its network
                self._loggers.remove(logger)
                name = type(logger).__name__.lstrip("_")
                self.message(f"WARNING: {name} is not written any more ({type(error).__name__}: {error}); metrics.jsonl goes on")

    def _describe(self, row: dict) -> str:
        """The progress line: what of it is known."""
        step, parts = row["step"], [f"step {row['step']:>{len(str(self._total))}}/{self._total}"]
        for name, form in _SHOWN.items():
            if name in row:
                parts.append(form.format(row[name]))
        first_step, first_time = self._first or (step, 0.0)
        if step > first_step:
            parts.append("ETA " + _clock((self._total - step) * (row["time"] - first_time) / (step - first_step)))
        if "loss" in self._validation:
            parts.append(f"validation {self._validation['loss']:.4f}")
        return "  ".join(parts)


class Silence:
    """The telemetry of a process that leaves the writing to another."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def _nothing(self, *_) -> None:
        pass

    train = evaluation = sample = anomaly = rewind = message = sync = _nothing


_SHOWN = {
    "loss": "loss {:.4f}",
    "gradient_norm": "gradient {:.2f}",
    "learning_rate": "lr {:.2e}",
    "tokens_per_second": "{:,.0f} tokens/s",
    "mfu": "MFU {:.1%}",
    "data_wait": "data wait {:.0%}",
}


def _clock(seconds: float) -> str:
    """1:02:03, or 2:03 below an hour."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class _PlainLines:
    """For pipes, files and notebooks: the first and the last line, and one every few seconds between them."""

    def __init__(self):
        self._shown = -math.inf
        self._unshown = ""

    def show(self, line: str, share: float, *, last: bool) -> None:
        if last or time.monotonic() - self._shown >= PLAIN_SECONDS:
            self._shown, self._unshown = time.monotonic(), ""
            self.message(line)
        else:
            self._unshown = line

    def message(self, text: str) -> None:
        print(text, flush=True)

    def close(self) -> None:
        if self._unshown:
            self.message(self._unshown)


class _LiveLine:
    """For a terminal: one line at its bottom that is drawn anew; messages go above it."""

    def __init__(self):
        from rich.console import Console
        from rich.live import Live

        self._shown = -math.inf
        self._live = Live(console=Console(), auto_refresh=False)
        self._live.start()

    def show(self, line: str, share: float, *, last: bool) -> None:
        from rich.text import Text

        now = time.monotonic()
        due = last or now - self._shown >= LIVE_SECONDS
        if due:
            self._shown = now
        done = round(12 * min(share, 1.0))
        bar = ("━", "━") if "utf" in (self._live.console.encoding or "") else ("#", "-")
        text = Text.assemble((bar[0] * done, "cyan"), (bar[1] * (12 - done), "bright_black"), " " + line, no_wrap=True, overflow="ellipsis")
        self._live.update(text, refresh=due)

    def message(self, text: str) -> None:
        from rich.text import Text

        self._live.console.print(Text(text))

    def close(self) -> None:
        self._live.refresh()
        self._live.stop()


class _TensorBoard:
    def __init__(self, run_dir: Path, resume_step: int):
        package = _extra("tensorboardX", "tensorboard")
        self._writer = package.SummaryWriter(str(run_dir / "tensorboard"), purge_step=resume_step + 1 if resume_step else None)
        # A thread of its own hands rows over: once tensorboardX's has died, as on a full disk, what it is handed waits for ever.
        self._rows: queue.Queue = queue.Queue(ROWS_WAITING)
        threading.Thread(target=self._hand_over, name="tensorboard", daemon=True).start()

    def scalars(self, step: int, values: dict[str, float]) -> None:
        self._put(lambda: [self._writer.add_scalar(name, value, step) for name, value in values.items()])

    def text(self, step: int, text: str) -> None:
        self._put(lambda: self._writer.add_text("sample", text, step))

    def _put(self, call) -> None:
        try:
            self._rows.put_nowait(call)
        except queue.Full:
            raise OSError(f"{ROWS_WAITING} rows wait, as on a full disk") from None

    def _hand_over(self) -> None:
        while (call := self._rows.get()) is not None:
            call()
            self._rows.task_done()
        self._rows.task_done()

    def close(self) -> None:
        end = time.monotonic() + CLOSE_SECONDS
        self._put(self._writer.close)
        self._put(None)
        while self._rows.unfinished_tasks:
            if time.monotonic() > end:
                raise OSError(f"rows still wait after {CLOSE_SECONDS} s")
            time.sleep(0.01)


class _WandB:
    """A resumed run goes on under the id kept in <run>/wandb.id. Neither environment variables nor code nor the command are sent."""

    def __init__(self, run_dir: Path, mode: str, name: str, config):
        package = _extra("wandb", "wandb")
        run_dir.mkdir(parents=True, exist_ok=True)
        identity = run_dir / "wandb.id"
        if not identity.exists():
            identity.write_text(secrets.token_hex(4))
        settings = package.Settings(
            disable_git=True, save_code=False, console="off", silent=True, x_disable_meta=True, x_disable_stats=True
        )
        self._run = package.init(
            project="omnia",
            name=name or run_dir.name,
            dir=str(run_dir),
            id=identity.read_text(),
            resume="allow" if mode == "online" else None,
            mode=mode,
            config=to_json(config),
            settings=settings,
        )
        # W&B's own step may not go back, as ours does when a run is resumed.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def scalars(self, step: int, values: dict[str, float]) -> None:
        self._run.log(values | {"step": step})

    def text(self, step: int, text: str) -> None:
        self._run.log({"sample": text, "step": step})

    def close(self) -> None:
        self._run.finish()


def _extra(package: str, extra: str):
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        mend = f"Install it with `pip install 'omnia[{extra}]'`, or leave out --logging.{extra}."
        raise UserError(f"logging.{extra} needs the package {package}, which is not installed", mend) from None


def _json_line(row: dict) -> bytes:
    order = ("kind", "step", "time")
    return json_files.dumps({name: row[name] for name in order} | row).encode() + b"\n"


def _csv_lines(rows: list[dict], header: bool = False) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore")
    if header:
        writer.writeheader()
    writer.writerows(row for row in rows if row["kind"] in ("train", "evaluation"))
    return text.getvalue().encode()


def _contents(rows: list[dict]) -> tuple[bytes, bytes]:
    """What metrics.jsonl and metrics.csv hold of some rows."""
    return b"".join(map(_json_line, rows)), _csv_lines(rows, header=True)


class _RowFile:
    """A file that lines are appended to, on a disk that may be full: what it does not take is held, and written when there is room again.

    Rows that are held are lost with the process; said: is told of the first that could not be written, and when all are.
    """

    def __init__(self, path: Path, said):
        self._path, self._said = path, said
        self._handle = -1
        self._held = bytearray()
        self._failing = False

    def write(self, content: bytes) -> None:
        self._held += content
        try:
            while self._held:
                del self._held[: os.write(self._handle, self._held)]
        except OSError as error:
            self._failed(error)
            return
        if self._failing:
            self._failing = False
            self._said(f"{self._path.name} is written again")

    def sync(self) -> None:
        """Return when all that could be written is on the disk. A file that was removed meanwhile is begun anew, and a line says so."""
        try:
            there = os.path.samestat(os.stat(self._path), os.fstat(self._handle))
        except OSError:
            there = False
        if not there and self._path.parent.is_dir():
            self._said(f"WARNING: {self._path.name} was removed or replaced: rows go on in a new one")
            os.close(self._handle)
            self._handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self.write(b"")
        try:
            os.fsync(self._handle)
        except OSError as error:
            self._failed(error)

    def content(self) -> bytes:
        """All that was written, and is held."""
        return self._path.read_bytes() + self._held

    def replace(self, content: bytes) -> None:
        """Take the place of the file, whole or not at all; OSError where there is no room for both."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        storage.write_atomically(str(self._path), content)
        self.close()
        self._handle = os.open(self._path, os.O_WRONLY | os.O_APPEND)
        self._held.clear()

    def rewrite(self, content: bytes) -> None:
        """The same in place."""
        self._held.clear()
        os.truncate(self._handle, 0)
        self.write(content)

    def close(self) -> None:
        if self._handle >= 0:
            self.write(b"")
            os.close(self._handle)
            self._handle = -1

    def _failed(self, error: OSError) -> None:
        if not self._failing:
            self._failing = True
            self._said(f"WARNING: {self._path.name} cannot be written ({error.strerror}); its rows are held, and training goes on")
