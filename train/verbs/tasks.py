"""`omnia evaluate --tasks`: lm-eval's tasks on a run."""

import os

from data.errors import UserError
from data.files import json_files
from train.verbs.arguments import start_jax


def evaluate_tasks_of(options) -> None:
    """Measure and print the tasks. options: those of `omnia evaluate`."""
    if min(options.limit, options.shots + 1, options.context_length) < 0:
        raise UserError("omnia evaluate: --limit and --context-length must be 0 or more, --shots -1 or more")
    names = [name.strip() for name in options.tasks.split(",") if name.strip()]
    if options.download:
        os.environ |= {"HF_HUB_OFFLINE": "0", "HF_DATASETS_OFFLINE": "0"}  # before the packages that read them are imported
    from train.runs.directory import open_run

    run = open_run(options.run_dir)
    start_jax()
    from train.evaluation.harness import evaluate_tasks

    found = evaluate_tasks(
        run,
        names,
        shots=None if options.shots < 0 else options.shots,
        task_files=options.task_files,
        data=options.public_data,
        limit=options.limit,
        chat=options.chat_template,
        step=options.step,
        raw=options.raw,
        int8=options.int8,
        context_length=options.context_length,
    )
    if options.json:
        print(json_files.dumps(found))
        return
    for line in [("task", "samples", "shots", "metric", "value", "error"), *_lines(found["tasks"])]:
        print("  ".join(f"{cell:{24 if place in (0, 3) else 10}}" for place, cell in enumerate(line)).rstrip())


def _lines(tasks: dict[str, dict]):
    """A line for each score: its task, how many examples, solved ones in a prompt, and its standard error."""
    for task, found in tasks.items():
        for metric, value in found.items():
            if metric in ("samples", "shots", "version") or metric.partition(",")[0].endswith("_stderr"):
                continue
            name, comma, behind = metric.partition(",")
            error = found.get(f"{name}_stderr{comma}{behind}")
            cells = (str(found["samples"]), str(found["shots"]), metric, f"{value:.4f}", "" if error is None else f"{error:.4f}")
            yield task, *cells
