"""Everything that a GPU or a TPU has to show, within minutes: one JSON file and one page.

python benchmarks/gpu_report.py [--minutes 9] [--output runs/gpu-report] [--shards DIR]
python benchmarks/gpu_report.py --device cpu --tiny    # the same code on tiny shapes, to see that it works; its figures mean nothing

In order of worth: every attention kernel against the reference, training steps of GPT-2 124M, a row of each paper's table that has some for
a GPU (`omnia reproduce TABLE --tier gpu`, stopped after half a minute), and the other races of benchmarks/gpu.py. A part gets its share of
the time, or what is left of it; when the time is over, the rest is not started, and says so. OUTPUT/report.json holds every number;
OUTPUT/report.md shows them, and what failed by name. Needs no package but what it measures. Exit code 0: every part has its figure, or was
not given what it needs; 2: no GPU or TPU, or no time; 1: something failed.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import gpu

SHARES = {"attention": 110, "gpt2_124m": 110, "tables": 120, "shakespeare_gpu": 75, "gpt2_1558m": 110, "torch_compile": 110}
"""Seconds that a part may take, in order of worth."""
LEAST = 15
"""Seconds; with less left, nothing is started."""
RESERVE = 2 * gpu.GRACE
"""Seconds that are kept for ending what is late and writing the report."""
PROBE = 60
TABLE = 75
"""Seconds of one table: its runs are stopped after MINUTES each."""
MINUTES = 0.5
SAVED = 75  # omnia's exit code for a run that was stopped and saved
STEP = ("step", "loss", "tokens_per_second")
OPTIONAL = "missing"
"""Status of a part that was not given what it needs, such as prepared text: no reason to fail."""
LABELS = ("side", "kernel", "shape", "packed", "micro_batch", "micro_batches", "remat", "scan")
"""What tells attempts apart; the rest of their rows is measured."""


def part(name: str, status: str, **rest) -> dict:
    """status: ok, failed, missing (something to be given), no device, or no time."""
    return {"name": name, "status": status, **rest}


def race(name: str, options, device: str) -> dict:
    line = gpu.race(name, options, device)
    status = "missing" if "missing" in line else "failed" if "error" in line else "ok"
    if status == "failed" and line.get("attempts") and all("no time left" in row.get("error", "") for row in line["attempts"]):
        status = "no time"
    return part(status=status, **line)


def tables(options, output: Path) -> list[dict]:
    """The first row of every table that has rows for a GPU, cut short."""
    ends = time.monotonic() + options.seconds
    environment = gpu.PATHS | ({"JAX_PLATFORMS": "cpu"} if options.device == "cpu" else {})
    command = [sys.executable, f"{gpu.ROOT}/omnia.py", "reproduce"]
    listed = gpu.process([*command, "--list", "--json"], environment, min(60, options.seconds))
    if not listed or "tables" not in listed[-1]:
        last = listed[-1] if listed else {}
        status = "missing" if last.get("code") == 2 else "failed"
        return [part("tables", status, error=f"omnia reproduce --list: {last.get('error', 'it said nothing')}")]
    rows_of = {table["table"]: table["rows"]["gpu"] for table in listed[-1]["tables"] if "gpu" in table["rows"]}
    found = []
    for name, (first, *_) in rows_of.items():
        left = ends - time.monotonic()
        if left < LEAST:
            found.append(part(f"table {name}", "no time"))
            continue
        began = time.monotonic()
        short = ["--tier", "gpu", "--rows", first, "--seeds", "1", "--minutes", str(MINUTES), "--output", str(output / "tables"), "--json"]
        rows = gpu.process([*command, name, *short], environment, min(left, TABLE))
        result = next((row for row in rows if "values" in row), {})
        code = rows[-1].get("code", 0) if rows else 0
        error = next(iter((result.get("errors") or {}).values()), None) or (rows[-1]["error"] if code not in (0, SAVED) else None)
        status = "ok" if not error else "missing" if code == 2 else "failed"
        found.append(part(f"table {name}", status, seconds=time.monotonic() - began, **result, **({"error": error} if error else {})))
    return found


def measure(options, found: dict) -> Iterator[list[dict]]:
    """The results of each part as it ends, until the time is over. found: what the probe saw."""
    there = "kind" in found and found["platform"] == options.device
    for name in (name for name in SHARES if not options.names or name in options.names):
        began = time.monotonic()
        left = options.ends - RESERVE - began
        if not there:
            why = found.get("error") or f"JAX sees a {found['platform']}"
            yield [part(name, "no device", error=f"no {'GPU or TPU' if options.device == 'gpu' else options.device}: {why}")]
        elif left < LEAST:
            yield [part(name, "no time")]
        else:
            options.seconds = min(left, SHARES[name])
            try:
                new = tables(options, options.output) if name == "tables" else [race(name, options, found["kind"])]
            except Exception as error:  # a newer JAX may break our imports: one part, and not the report
                new = [part(name, "failed", error=f"{type(error).__name__}: {error}"[:300])]
            yield [{"seconds": time.monotonic() - began} | one for one in new]


def circumstances(found: dict) -> dict:
    """What the numbers depend on."""
    driver = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    return {
        "device": found.get("kind", "none"),
        "devices": found.get("count", 0),
        "versions": found.get("versions", {"python": platform.python_version()}),
        "driver": first_line(driver) if shutil.which(driver[0]) else "",
        "commit": first_line(["git", "-C", str(gpu.ROOT), "describe", "--always", "--dirty"]),
        "cores": os.cpu_count(),
    }


def first_line(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10).stdout.partition("\n")[0]
    except (OSError, subprocess.TimeoutExpired):
        return ""


def page(report: dict) -> str:
    """The report as Markdown."""
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    facts = f"{report['device']} x {report['devices']}; {versions}; commit {report['commit']}"
    lines = ["# GPU report", "", f"{facts}{'; ' + report['driver'] if report['driver'] else ''}.", ""]
    lines += [f"{report['seconds']:.0f} of {report['budget_seconds']:.0f} seconds.", ""]
    if report["tiny"]:
        lines += ["**Tiny shapes: the figures mean nothing.**", ""]
    lines += ["## Parts", "", *table(("part", "status", "figure", "goal", "seconds"), [summary(one) for one in report["parts"]])]
    for one in report["parts"]:
        rows = [row for row in one.get("attempts", []) if isinstance(row, dict)]
        if rows:
            names = list(dict.fromkeys(name for row in rows for name in row))
            lines += [f"## {one['name']}", "", *table(names, [[cell(row.get(name)) for name in names] for row in rows])]
        elif one.get("tried"):
            lines += [
                f"## {one['name']}",
                "",
                f"One row, stopped after {MINUTES} minutes: the numbers of its last step.",
                "",
                *table(("run", *STEP), [[run, *(cell(last.get(name)) for name in STEP)] for run, last in one["tried"].items()]),
            ]
    failures = failed(report["parts"])
    lines += ["## Failures", "", *([f"- {name}: {error}" for name, error in failures] or ["None."])]
    return "\n".join(lines).rstrip() + "\n"


def summary(one: dict) -> list[str]:
    figure = "; ".join(filter(None, (gpu.figures(one), one.get("unit"), one.get("verdict"))))
    return [one["name"], one["status"], figure, one.get("goal", ""), cell(one.get("seconds"))]


def failed(parts: list[dict]) -> list[tuple[str, str]]:
    """(name, why) of every part and every attempt that has no figure."""
    found = [(one["name"], one.get("error") or one.get("missing") or one["status"]) for one in parts if one["status"] != "ok"]
    for one in parts:
        for row in one.get("attempts", []):
            if isinstance(row, dict) and ("error" in row or row.get("wrong")):
                label = ", ".join(f"{name} {row[name]}" for name in LABELS if name in row)
                found.append((f"{one['name']} ({label})", row.get("error", "too far from the reference")))
    return found


def cell(value) -> str:
    return "" if value is None else f"{value:,.4g}" if isinstance(value, float) else str(value)


def table(names, rows) -> list[str]:
    lines = [names, ["---"] * len(names), *rows]
    return ["| " + " | ".join(str(word).replace("|", r"\|").replace("\n", " ") for word in line) + " |" for line in lines] + [""]


def main(arguments: list[str] | None = None) -> int:
    began = time.monotonic()
    parser = argparse.ArgumentParser(
        prog="benchmarks/gpu_report.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SHARES) + "; all of them unless named")
    parser.add_argument("--minutes", type=float, default=9, help="for everything (9)")
    parser.add_argument(
        "--output", type=Path, default=Path("runs/gpu-report"), help="folder of report.json and report.md (runs/gpu-report)"
    )
    parser.add_argument("--shards", metavar="DIR", help="tiny Shakespeare, prepared: for shakespeare_gpu")
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu", help="gpu: a GPU or a TPU; cpu needs --tiny")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes: a check of this program")
    options = parser.parse_args(arguments)
    if strange := set(options.names) - set(SHARES):
        parser.error(f"no part {', '.join(sorted(strange))}; there are {', '.join(SHARES)}")
    if options.device == "cpu" and not options.tiny:
        parser.error("--device cpu needs --tiny: the shapes are for a GPU")
    options.ends, options.output = began + 60 * options.minutes, options.output.absolute()
    options.output.mkdir(parents=True, exist_ok=True)
    found = gpu.probe(options.device, min(PROBE, 60 * options.minutes))
    if options.device == "gpu" and found.get("platform") == "tpu":
        options.device = "tpu"
    report = circumstances(found) | {"tiny": options.tiny, "budget_seconds": 60 * options.minutes, "parts": []}
    for new in measure(options, found):
        report["parts"] += new
        report["seconds"] = time.monotonic() - began
        for one in new:
            print(f"{one['name']}: {one['status']}. {gpu.figures(one)}", flush=True)
        # After every part, so that whoever ends this program early has what was measured.
        (options.output / "report.json").write_text(json.dumps(report, indent=1) + "\n")
        (options.output / "report.md").write_text(page(report))
    for name, why in failed(report["parts"]):
        print(f"{name}: {why}", file=sys.stderr)
    print(options.output / "report.md")
    states = {one["status"] for one in report["parts"]}
    return 1 if "failed" in states else 2 if states - {"ok", OPTIONAL} else 0


if __name__ == "__main__":
    sys.exit(main())
