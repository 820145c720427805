"""A run as one page: report.html, which needs nothing but itself, and its curves as PNGs in plots/."""

import base64
import html
import math
import os
import statistics
from pathlib import Path

from data.errors import UserError
from data.files import json_files
from train.loop.sections import read_sections
from train.loop.telemetry import name_sources, read_metrics
from train.runs.serialize import flatten

STEPS_WITH_SAMPLES, SAMPLES_A_STEP, SAMPLE_CHARACTERS, TABLE_ROWS = 12, 8, 4000, 20
"""What a page shows of a long run: it stays below a megabyte."""


OLD_OCCLUSION = "looks.png"
"""What runs of format 1 called that picture."""


def write_report(run_dir: Path, *, renewed: int = 0) -> Path:
    """Write the report of `run_dir` from its files (config.json, metrics.jsonl and, once they exist, environment.json, summary.json).

    renewed: seconds after which a browser reads the page again; 0: never.
    Also works during training. Without matplotlib (extra: plots) the page has only tables. Returns the path of report.html.
    """
    run_dir = Path(run_dir)
    if not (run_dir / "config.json").is_file():
        raise UserError(f"{run_dir}: not a run (no config.json)", "Give a folder made by `omnia train ... --run-dir DIR`.")
    config, environment, summary = (_read(run_dir / name) for name in ("config.json", "environment.json", "summary.json"))
    rows = read_metrics(run_dir)
    curves = _draw(rows, run_dir / "plots", summary.get("baseline"))
    experiment = config.get("experiment", {})
    sections = [
        _headline(rows, summary, environment),
        _section("Curves", curves),
        _section("Bad steps", _bad_steps(rows)),
        _section("Samples", _samples(rows)),
        _section("What answers rest on", _picture(run_dir / "plots" / "occlusion.png") or _picture(run_dir / "plots" / OLD_OCCLUSION)),
        _section("What it writes, behind the true ones", _picture(run_dir / "plots" / "written.png")),
        *(_section(html.escape(one["title"]), _shown(one, run_dir)) for one in read_sections(run_dir)),
        _section("Configuration", _difference(experiment, config.get("defaults", {}), config.get("shards", []))),
        _section("Timing", _timing(rows, summary)),
        _section("Metrics", _metrics(rows)),
        _section("Environment", _table(["", ""], [[name, _plain(value)] for name, value in flatten(environment).items()])),
    ]
    name = str(experiment.get("name") or run_dir.name)
    refresh = f'<meta http-equiv="refresh" content="{renewed}">\n' if renewed else ""
    page = _PAGE.replace("{refresh}", refresh).replace("{title}", html.escape(name)).replace("{body}", "\n".join(sections))
    path, partial = run_dir / "report.html", run_dir / "report.html.partial"
    partial.write_bytes(page.encode("utf-8", "replace"))  # a lone surrogate may come out of a tokenizer
    os.replace(partial, path)
    return path


def _picture(path: Path) -> str:
    """A picture that the run has drawn, if it has."""
    if not path.is_file():
        return ""
    return f'<img alt="{html.escape(path.stem)}" src="data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}">'


def _shown(section: dict, run_dir: Path) -> str:
    """What the data of a run shows."""
    pictures = "".join(_picture(run_dir / "plots" / f"{name}.png") for name in section["pictures"])
    return (f'<div class="curves">{pictures}</div>' if pictures else "") + _table(section["columns"], section["rows"])


def _basis(evaluation: dict) -> str:
    """What the score of a policy or a player is the mean of; "" where there is none, as of a metric that somebody named score."""
    if "score" not in evaluation:
        return ""
    if "games" in evaluation:
        return f"{evaluation['games']} games against each opponent"
    return f"{evaluation['prompts']} prompts kept from training" if "prompts" in evaluation else ""


def _headline(rows: list[dict], summary: dict, environment: dict) -> str:
    """The numbers that one looks for first."""
    training, evaluations = _of(rows, "train"), _of(rows, "evaluation")
    last = training[-1] if training else {}
    cards = []
    if evaluations and (basis := _basis(evaluations[-1])):
        final = evaluations[-1]
        began = f"{final['score_start']:.4g} at the start; " if "score_start" in final else ""
        cards.append(("score", f"{final['score']:.4g}", f"{began}{basis}"))
        if "win_rate" in final:
            cards.append(("win rate", f"{final['win_rate']:.1%}", f"against the start, KL {final['kl']:.3g} nats a response"))
    elif evaluations:
        best = min(evaluations, key=lambda row: (math.isnan(row["loss"]), row["loss"]))
        final = evaluations[-1]
        cards.append(("validation loss", f"{final['loss']:.4f}", f"nats per token; best {best['loss']:.4f} at step {best['step']:,}"))
        if "bits_per_byte" in final:
            cards.append(("bits per byte", f"{final['bits_per_byte']:.4f}", f"best {best['bits_per_byte']:.4f}"))
        if baseline := summary.get("baseline"):
            cards.append((baseline["name"], f"{baseline['loss']:.4f}", f"nats per token, over the same {baseline['tokens']:,}"))
    elif last:
        cards.append(("training loss", f"{last['loss']:.4f}" if "loss" in last else "unknown", "no validation yet"))
    padding = f"and {summary['padding']:.2%} padding" if "padding" in summary else "without padding"
    cards.append(("tokens seen", _compact(summary.get("tokens", last.get("tokens", 0))), padding))
    seconds = summary.get("seconds", rows[-1]["time"] if rows else 0.0)
    cards.append(("wall time", _duration(seconds), f"{last.get('step', 0):,} steps"))
    speed, utilisation = _median(training, "tokens_per_second"), _median(training, "mfu")
    cards.append(("tokens per second", "unknown" if speed is None else f"{speed:,.0f}", "median, without padding"))
    device = environment.get("device", "this device")
    note = f"peak of {device} not known" if utilisation is None else "median, attention counted causally"
    cards.append(("MFU", "unknown" if utilisation is None else f"{utilisation:.1%}", note))
    escaped = ((html.escape(text) for text in card) for card in cards)
    return (
        '<div class="cards">'
        + "".join(f'<div class="card"><span>{name}</span><b>{value}</b><i>{note}</i></div>' for name, value, note in escaped)
        + "</div>"
    )


BLUE, ORANGE, GREY = "#1f83c9", "#d55e00", "#7a7f87"
SOURCES = (BLUE, ORANGE, "#009e73", "#cc79a7", "#b8860b", "#56b4e9")
"""Told apart with any colour vision, and legible on white and on black."""


def _draw(rows: list[dict], folder: Path, baseline: dict | None) -> str:
    """Write the PNGs and return them as HTML. baseline: another model of the same tokens, its name and loss."""
    training, evaluations = _of(rows, "train"), _of(rows, "evaluation")
    if not rows:
        return "<p>No metrics yet.</p>"
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        return "<p>No curves: matplotlib is not installed (<code>pip install 'omnia[plots]'</code>). The numbers are below.</p>"
    folder.mkdir(exist_ok=True)
    images = []
    for name, title, *panels in _curves(training, evaluations):
        panels = [panel for panel in panels if any(key in row for part, key, _ in panel[1].values() for row in part)]
        if not panels:
            continue
        path = folder / f"{name}.png"
        figure = _fill(Figure(figsize=(6.4, 3.4), dpi=150, layout="constrained"), title, panels)
        if name == "loss" and baseline:
            figure.axes[0].axhline(baseline["loss"], color=SOURCES[2], linewidth=1.2, linestyle="--", label=baseline["name"])
            figure.axes[0].legend(frameon=False, labelcolor=GREY)
        figure.savefig(path, transparent=True, metadata={"Software": None})
        encoded = base64.b64encode(path.read_bytes()).decode()
        images.append(f'<img alt="{html.escape(title)} over steps" src="data:image/png;base64,{encoded}">')
    return f'<div class="curves">{"".join(images)}</div>'


def _fill(figure, title: str, panels: list[tuple]):
    """Draw panels above each other into a figure, which is returned."""
    for axes, (unit, lines, lowest) in zip(figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0], panels, strict=True):
        for label, (part, key, colour) in lines.items():
            points = [(row["step"], row[key]) for row in part if key in row and math.isfinite(row[key])]
            marked = {"marker": "o", "markersize": 4} if part and part[0]["kind"] == "evaluation" else {"linewidth": 1.2}
            axes.plot(*zip(*points, strict=True) if points else ([], []), color=colour, label=label, **marked)
        axes.set_ylabel(unit)
        axes.set_ylim(bottom=lowest)
        if len(lines) > 1:
            axes.legend(frameon=False, labelcolor=GREY)
        axes.grid(color=GREY, alpha=0.2)
        axes.tick_params(colors=GREY)
        axes.yaxis.label.set_color(GREY)
        for side in axes.spines.values():
            side.set_visible(False)
    axes.set_xlabel("step", color=GREY)
    figure.suptitle(title, color=GREY, fontsize="medium")
    return figure


def _curves(training: list[dict], evaluations: list[dict]) -> list[tuple]:
    """(name of the file, title, panels ...) of each picture; a panel is (label of y, {label of line: (rows, key, colour)}, lowest y)."""
    loss = {"training": (training, "loss", BLUE), "validation": (evaluations, "loss", ORANGE)}
    parts = {name: None for row in evaluations for name in name_sources(row) if name.startswith("loss/")}
    named = [name_sources(row) for row in evaluations]
    sources = {name.removeprefix("loss/"): (named, name, colour) for name, colour in zip(parts, SOURCES, strict=False)}
    by_source = "Validation loss by source" + (f", {len(sources)} of {len(parts)}" if len(sources) < len(parts) else "")
    reward = {"training": (training, "objective/score", BLUE), "validation": (evaluations, "score", ORANGE)}
    gold = {"gold": (evaluations, "gold", SOURCES[2])} if any("gold" in row for row in evaluations) else {}
    distance = {"training": (training, "objective/kl", BLUE), "validation": (evaluations, "kl", ORANGE)}
    length = {"training": (training, "response/length", BLUE), "validation": (evaluations, "length", ORANGE)}
    clipped = {"policy": (training, "ppo/policy/clipfrac", BLUE), "value": (training, "ppo/val/clipfrac", ORANGE)}
    times = {name: (training, f"time/{name}", colour) for name, colour in zip(("rollout", "reward", "update"), SOURCES, strict=False)}

    def one(key: str, colour: str = BLUE) -> dict:
        return {"": (training, key, colour)}

    return [
        ("loss", "Loss", ("nats per token", loss, None)),
        ("sources", by_source, ("nats per token", sources, None)),
        ("reward", "Reward", ("score of a response", reward | gold, None)),
        ("kl", "Distance from the reference", ("nats a response", distance, None)),
        ("response", "Responses", ("tokens", length, 0), ("entropy, nats a token", one("ppo/policy/entropy"), 0)),
        ("clip", "Updates", ("share clipped", clipped, 0), ("explained by the critic", one("ppo/val/var_explained"), None)),
        ("step_time", "Where a step's time goes", ("seconds", times, 0)),
        ("gradient_norm", "Gradient norm", ("global L2 norm", one("gradient_norm"), 0)),
        ("learning_rate", "Learning rate", ("learning rate", one("learning_rate"), 0)),
        ("throughput", "Throughput", ("tokens / s", one("tokens_per_second"), 0), ("data wait, share", one("data_wait", ORANGE), 0)),
    ]


def _bad_steps(rows: list[dict]) -> str:
    """The steps that changed nothing, and where the run went back; the last ones of many."""
    found = _of(rows, "anomaly")
    cells = []
    for row in found[-TABLE_ROWS:]:
        what = f"back to step {row['to']:,}" if row["action"] == "rewind" else "skipped"
        span = " to ".join(f"{number:,}" for number in row.get("rows", []))
        cells.append([f"{row['step']:,}", what, span, _plain(row.get("loss")), _plain(row.get("gradient_norm"))])
    more = f"<p>{len(found) - len(cells)} earlier ones are in metrics.jsonl.</p>" if len(found) > len(cells) else ""
    return _table(["step", "what was done", "rows", "loss", "gradient norm"], cells) + more


def _samples(rows: list[dict]) -> str:
    """What the model wrote, step by step; the last step's samples are open."""
    by_step: dict[int, list[dict]] = {}
    for row in _of(rows, "sample"):
        by_step.setdefault(row["step"], []).append(row)
    blocks = []
    shown = _spread(sorted(by_step), STEPS_WITH_SAMPLES)
    for step in shown:
        texts = []
        for row in by_step[step][:SAMPLES_A_STEP]:
            prompt, text = html.escape(row["prompt"]), html.escape(row["text"][:SAMPLE_CHARACTERS])
            score = f"<p>score {row['score']:.3g}</p>" if "score" in row else ""
            texts.append(f"{score}<pre><mark>{prompt}</mark>{text}</pre>")
        opened = " open" if step == shown[-1] else ""
        blocks.append(f"<details{opened}><summary>step {step:,}</summary>{''.join(texts)}</details>")
    left_out = len(_of(rows, "sample")) - sum(len(by_step[step][:SAMPLES_A_STEP]) for step in shown)
    if left_out:
        blocks.append(f"<p>{left_out} more in metrics.jsonl.</p>")
    return "".join(blocks)


def _difference(experiment: dict, defaults: dict, shards: list[dict]) -> str:
    """What of the experiment is not at its default, and the data it names."""
    values, default = flatten(experiment), flatten(defaults)
    changed = [[name, _plain(value), _plain(default.get(name))] for name, value in values.items() if value != default.get(name)]
    data = [[str(shard.get("path")), str(shard.get("digest"))] for shard in shards]
    same = f"<p>{len(values) - len(changed)} other fields have their defaults.</p>" if values else ""
    return _table(["field", "value", "default"], changed) + same + _table(["shards", "digest"], data)


def _timing(rows: list[dict], summary: dict) -> str:
    training = _of(rows, "train")
    step_ms, wait = _median(training, "step_ms"), _median(training, "data_wait")
    table = [] if step_ms is None else [["training step, median", f"{step_ms:,.1f} ms"]]
    table += [] if wait is None else [["waiting for data, median share", f"{wait:.1%}"]]
    table += [[name.replace("_", " "), _duration(seconds)] for name, seconds in summary.get("timing", {}).items()]
    return _table(["", ""], table)


def _metrics(rows: list[dict]) -> str:
    """Some rows of training and validation, evenly spread, the last ones among them."""
    tables = []
    for kind in ("evaluation", "train"):
        part = [name_sources(row) for row in _spread(_of(rows, kind), TABLE_ROWS)]
        names = list(dict.fromkeys(name for row in part for name in row if name != "kind"))
        cells = [[_plain(row.get(name)) for name in names] for row in part]
        label = {"evaluation": "validation", "train": "training"}[kind]
        if cells:
            tables.append(f"<details><summary>{label}</summary>{_table([_heading(name) for name in names], cells)}</details>")
    return "".join(tables)


def _heading(name: str) -> str:
    kind, slash, source = name.partition("/")  # the name of a source stays as it is
    return f"{kind}, {source}" if slash else name.replace("_", " ")


def _read(path: Path) -> dict:
    return json_files.read(path, "Restore the file, or remove it.") if path.is_file() else {}


def _of(rows: list[dict], kind: str) -> list[dict]:
    return [row for row in rows if row["kind"] == kind]


def _median(rows: list[dict], name: str) -> float | None:
    values = [row[name] for row in rows if name in row]
    return statistics.median(values) if values else None


def _spread(items: list, count: int) -> list:
    """At most `count` of the items, evenly spread, the first and last among them."""
    if len(items) <= count:
        return items
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]


def _section(title: str, body: str) -> str:
    return f"<section><h2>{title}</h2>{body}</section>" if body else ""


def _table(header: list[str], rows: list[list[str]]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header) if any(header) else ""
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="table"><table><tr>{head}</tr>{body}</table></div>'


def _plain(value) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(map(_plain, value)) or "none"
    return "" if value is None else str(value)


def _compact(count: float) -> str:
    """12, 3.4 K, 5.6 M, 7.8 B."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if count >= size:
            return f"{count / size:.3g} {letter}"
    return f"{count:.0f}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
{refresh}<title>{title}</title>
<style>
:root { --ink: #1c1f24; --soft: #646a73; --paper: #ffffff; --card: #f4f5f7; --line: #dfe2e6; --accent: #1f83c9 }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --soft: #9aa0a8; --paper: #15171b; --card: #1f2227; --line: #33373d } }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 62rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif }
h1 { margin: 0 0 1.5rem; font-size: 1.75rem; letter-spacing: -0.02em }
h1 small { margin-left: 0.5rem; color: var(--soft); font-size: 0.95rem; font-weight: normal; letter-spacing: 0 }
h2 { margin: 2.5rem 0 0.75rem; font-size: 1.1rem }
p { color: var(--soft) }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: 0.75rem }
.card { display: flex; flex-direction: column; padding: 0.8rem 1rem; border-radius: 0.6rem; background: var(--card) }
.card span, .card i { color: var(--soft); font-size: 0.8rem; font-style: normal }
.card b { font-size: 1.45rem; font-variant-numeric: tabular-nums; letter-spacing: -0.02em }
.curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr)); gap: 1rem; align-items: start }
.curves img { width: 100%; border: 1px solid var(--line); border-radius: 0.6rem }
details { margin: 0.4rem 0 }
summary { cursor: pointer; color: var(--soft) }
pre { margin: 0.5rem 0; padding: 0.8rem 1rem; border-radius: 0.6rem; background: var(--card); white-space: pre-wrap;
  overflow-wrap: anywhere; font: 13px/1.45 ui-monospace, Menlo, Consolas, monospace }
mark { background: none; color: var(--accent); font-weight: 600 }
.table { overflow-x: auto }
table { border-collapse: collapse; font-size: 0.88rem; font-variant-numeric: tabular-nums }
th, td { padding: 0.3rem 1.5rem 0.3rem 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top }
th { color: var(--soft); font-weight: 500 }
td:first-child { white-space: nowrap }
</style>
</head>
<body>
<h1>{title}<small>Omnia run</small></h1>
{body}
</body>
</html>
"""
