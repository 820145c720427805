"""What a run says while it trains: rows on disk always, one live line on a terminal, TensorBoard and Weights & Biases when asked."""

import csv
import importlib
import json
import math
import os
import secrets
import sys
import time
from pathlib import Path
from typing import Any

from data.errors import UserError
from train.serialize import to_json

COLUMNS = (
    *("kind", "step", "time", "loss", "gradient_norm", "learning_rate", "tokens", "tokens_per_second"),
    *("data_wait", "step_ms", "mfu", "bits_per_byte", "perplexity"),
)
"""Of metrics.csv, which holds the train and evaluation rows; metrics.jsonl holds every value of every row."""
HEADLINES = ("score", "gold", "kl", "win_rate", "length", "accuracy")
"""Of the evaluation of a policy, what is said on screen."""
PLAIN_SECONDS = 5
LIVE_SECONDS = 0.1
_NOT_FINITE = ("NaN", "Infinity", "-Infinity")


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
            row = json.loads(line)
            rows.append(
                {name: float(value) if value in _NOT_FINITE and name not in ("prompt", "text") else value for name, value in row.items()}
            )
        except (ValueError, AttributeError):
            raise UserError(f"{path}: line {number} is damaged", "Remove that line, or restore the file.") from None
    return rows


def name_sources(values: dict[str, Any]) -> dict[str, Any]:
    """The values of an evaluation, with loss/<name of the source> for loss/<its number>."""
    names = {f"loss/{number}": f"loss/{name}" for number, name in enumerate(values.get("sources", ()))}
    return {names.get(key, key): value for key, value in values.items() if key != "sources"}


class Telemetry:
    """Writes the metrics of one run; use as a context.

    run_dir: gets metrics.jsonl and metrics.csv, from which rows after `resume_step` are dropped first; evaluations and samples after
    `looked`, the last step whose evaluation and samples are complete (default: that one); and anomalies past `cursor`, the rows consumed.
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
        looked: int | None = None,
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

        looked = resume_step if looked is None else looked
        last = {"train": resume_step, "evaluation": looked, "sample": looked}
        kept = [
            row
            for row in read_metrics(run_dir)
            if (row["cursor"] <= cursor if row["kind"] == "anomaly" else row["step"] <= last[row["kind"]])
        ]
        self._start = time.monotonic() - max((row["time"] for row in kept), default=0.0)
        self._jsonl, self._csv = _reopen(run_dir, kept)
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
        for logger in self._loggers:
            logger.text(step, prompt + text)
        worth = "" if score is None else f", score {score:.3g}"
        self.message(f"step {step}: sample{worth}\n    " + (prompt + text).replace("\n", "\n    "))

    def anomaly(self, step: int, values: dict[str, Any]) -> None:
        """A bad step: cursor (rows consumed after it), rows (the first and the last of it), loss, gradient_norm, action."""
        self._write("anomaly", step, values)

    def rewind(self, step: int) -> None:
        """The run goes on from `step` again: rows after it are dropped, but for anomalies."""
        self._jsonl.close()
        self._csv.close()
        kept = [row for row in read_metrics(self._run_dir) if row["kind"] == "anomaly" or row["step"] <= step]
        self._jsonl, self._csv = _reopen(self._run_dir, kept)
        self._first = None

    def message(self, text: str) -> None:
        """A line of its own, above the progress line. Control characters, which a model may write, are not passed to the terminal."""
        self._line.message("".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text))

    def sync(self) -> None:
        """Return when all rows are on the disk, not only with the system: a checkpoint must not outlive the rows before it."""
        for file in (self._jsonl, self._csv):
            os.fsync(file.fileno())

    def close(self) -> None:
        self._line.close()
        self._jsonl.close()
        self._csv.close()
        for logger in self._loggers:
            logger.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _write(self, kind: str, step: int, values: dict) -> dict:
        row = values | {"kind": kind, "step": step, "time": round(time.monotonic() - self._start, 3)}
        self._jsonl.write(_json_line(row))
        self._jsonl.flush()
        if kind in ("train", "evaluation"):
            csv.DictWriter(self._csv, COLUMNS, extrasaction="ignore").writerow(row)
            self._csv.flush()
        return row

    def _log(self, prefix: str, step: int, values: dict) -> None:
        for logger in self._loggers:
            logger.scalars(step, {prefix + name: value for name, value in values.items()})

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
        text = Text.assemble(("━" * done, "cyan"), ("━" * (12 - done), "bright_black"), " " + line, no_wrap=True, overflow="ellipsis")
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

    def scalars(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def text(self, step: int, text: str) -> None:
        self._writer.add_text("sample", text, step)

    def close(self) -> None:
        self._writer.close()


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


def _json_line(row: dict) -> str:
    """Valid JSON, in which what is not finite is a string."""
    order = ("kind", "step", "time")
    plain = {name: row[name] for name in order} | {name: _plain(value) for name, value in row.items() if name not in order}
    return json.dumps(plain, allow_nan=False) + "\n"


def _plain(value):
    if isinstance(value, str | int):
        return value
    if isinstance(value, list):
        return [_plain(item) for item in value]
    value = float(value)
    return value if math.isfinite(value) else _NOT_FINITE[0 if math.isnan(value) else 1 if value > 0 else 2]


def _reopen(run_dir: Path, rows: list[dict]):
    """metrics.jsonl and metrics.csv holding exactly `rows`, each replaced whole, open at their ends."""
    run_dir.mkdir(parents=True, exist_ok=True)
    files = []
    for name in ("metrics.jsonl", "metrics.csv"):
        path, partial = run_dir / name, run_dir / f"{name}.partial"
        with partial.open("w", encoding="utf-8", newline="") as file:
            if name == "metrics.jsonl":
                file.writelines(map(_json_line, rows))
            else:
                writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
                writer.writeheader()
                writer.writerows(row for row in rows if row["kind"] in ("train", "evaluation"))
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        files.append(path.open("a", encoding="utf-8", newline=""))
    return files
