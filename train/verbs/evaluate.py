"""`omnia evaluate`: what a run measures on a split of its shards, or on lm-eval's tasks."""

import dataclasses
from typing import Any, Literal

import tyro

from data.errors import UserError
from data.files import json_files
from train.kinds import Data
from train.objectives.tasks.options import Supervised
from train.verbs.arguments import check_batch_fits, check_belongs, check_seed, parse, start_jax, value_of


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Evaluate a run on a split of its shards."""

    run_dir: tyro.conf.Positional[str]
    """Folder of the run."""
    json: bool = False
    """Print one line of JSON, last."""
    step: int | None = None
    """Checkpoint to evaluate. Default: the latest."""
    raw: bool = False
    """Evaluate the trained parameters even if an average is kept."""
    int8: bool = False
    """Round weights and activations to eight bits."""
    split: str = "validation"
    """Split of the shards."""
    rows: int = 0
    """Rows to use of each folder of shards, from the start of the split. 0: all for text, as many as in training for other data."""
    batch_size: int = 0
    """Rows at once. 0: as in training."""
    shards: tuple[str, ...] = ()
    """Evaluate on other data: folders of shards prepared with the same tokenizer."""
    files: tuple[str, ...] = ()
    """Evaluate on other files of examples: of a task, or of comparisons."""
    leave_out: bool = False
    """With --files: leave out rows that cannot be used, and count them, instead of stopping."""
    predictions: str = ""
    """File to write with the answer to each example of a task, a JSON object a line."""
    groups: str = ""
    """Compare how a classifier treats groups of examples: the column of their groups, with texts. Also kept in the run's fairness.json."""
    smallest_group: int = 30
    """With --groups: examples that a group needs, and for a rate those that count for it."""
    swap: str = ""
    """Answer texts of a classifier again with words swapped: file with a pair of words a line, such as he,she."""
    positive: str = ""
    """With --groups or --swap: the label whose rates and probability are compared. Default: each one against the rest."""
    task: str = ""
    """Put a task before a model that writes, without training: a config file such as configs/tasks/classification.py. --files are its
    examples."""
    shots: int = -1
    """With --task or --tasks: solved examples in each prompt. -1: as each task of lm-eval says; none with --task."""
    labels: tuple[str, ...] = ()
    """With --task: names of the labels to choose from. Default: those that the files have."""
    examples: tuple[str, ...] = ()
    """With --shots: files of the examples that are shown."""
    change: tuple[str, ...] = ()
    """Change evaluation-only fields of the objective, as NAME=VALUE: evaluation_memory=512 for an objective with a memory."""
    decode: Literal["", "sample", "best_of", "beam", "guided", "search", "best_first"] = ""
    """Score a policy's answers with more than one forward pass per token: the best of several samples or beams, tokens sampled by the
    critic's value (guided), tree search for each token, or best-first search. The environment judges complete responses."""
    passes: int = 16
    """With --decode: forward passes per token of a response."""
    considered: int = 16
    """With --decode search or best_first: number of most likely tokens to try at each position."""
    by_position: bool = False
    """Report the loss by the number of preceding tokens in the context."""
    needle: bool = False
    """Hide a sentence with a random key in the text, at several lengths and depths, and ask for the key at the end."""
    context_length: int = 0
    """With --by-position or --needle: length of the rows; may exceed that of training if positions are rotary. With --tasks: tokens that
    the model is given at most. 0: as in training."""
    needle_text: str = "The secret word is {}."
    """With --needle: the sentence, {} being the key."""
    samples: int = 8
    """With --needle: rows of each length and depth."""
    seed: int = 0
    """With --needle: seed of keys and text. With --task and --shots: of the examples that are shown."""
    tasks: str = ""
    """Measure tasks of EleutherAI's lm-eval, by their names with commas between: its own, or those of configs/harness."""
    limit: int = 0
    """With --tasks: examples of each task, from the first. 0: all."""
    task_files: str = ""
    """With --tasks: folder with more task files (YAML)."""
    public_data: str = ""
    """With --tasks: folder of the public data sets that configs/harness reads. Default: the environment variable OMNIA_DATA."""
    chat_template: bool = False
    """With --tasks: write prompts as conversations, in the template of a chat model's run."""
    download: bool = False
    """With --tasks: let lm-eval fetch data sets. Without it nothing leaves this machine."""


@dataclasses.dataclass(frozen=True)
class EvaluateTask(Evaluate):
    """Evaluate a run on a task that it was not trained for."""

    data: Data = Data()
    """Of the task's config."""


def evaluate(arguments: list[str]) -> None:
    task = value_of("--task", arguments)
    if task and not {"-h", "--help"} & set(arguments):
        from train.verbs.config_files import load_config

        experiment = load_config(task)
        options: Evaluate = parse(EvaluateTask, "evaluate", arguments, EvaluateTask(tyro.MISSING, data=experiment.data))
        _check(options)
        start_jax()
        return _print(_ask(options, experiment), options)
    options = parse(Evaluate, "evaluate", arguments)
    _check(options)
    if options.tasks:
        from train.verbs.tasks import evaluate_tasks_of

        return evaluate_tasks_of(options)
    if options.needle or options.by_position:
        return _evaluate_long_context(options)
    start_jax()
    _print(_measure(options), options)


def _print(found: dict, options: Evaluate) -> None:
    print(json_files.dumps(found)) if options.json else _print_measures(found, options.split)


def _check(options: Evaluate) -> None:
    """UserError for options that are out of range, or that mean nothing together."""
    if min(options.rows, options.batch_size) < 0:
        raise UserError("omnia evaluate: --rows and --batch-size must be 0 or more")
    if options.smallest_group < 1:
        raise UserError("omnia evaluate: --smallest-group must be positive")
    check_seed("evaluate", options.seed)
    task, tasks, decode = bool(options.task), bool(options.tasks), bool(options.decode)
    needle, long = options.needle, options.needle or options.by_position
    plain = not (task or tasks or decode or long)
    check_belongs(
        "evaluate",
        options,
        passes=(decode, "belongs to --decode"),
        considered=(options.decode in ("search", "best_first"), "belongs to --decode search or best_first"),
        needle_text=(needle, "belongs to --needle"),
        samples=(needle, "belongs to --needle"),
        seed=(needle or options.shots > 0, "belongs to --needle or --shots"),
        context_length=(long or tasks, "belongs to --by-position, --needle or --tasks"),
        smallest_group=(bool(options.groups), "belongs to --groups"),
        positive=(bool(options.groups or options.swap), "belongs to --groups or --swap"),
        **dict.fromkeys(("groups", "swap"), (plain, "is for plain measurements")),
        shots=(task or tasks, "belongs to --task or --tasks"),
        labels=(task, "belongs to --task"),
        examples=(task and options.shots > 0, "belongs to --task and --shots"),
        **dict.fromkeys(("limit", "task_files", "public_data", "chat_template", "download"), (tasks, "belongs to --tasks")),
        **dict.fromkeys(("decode", "needle", "by_position"), (not tasks and not task, "is a measurement of its own")),
        batch_size=(not tasks and not task, "is for measurements of the run's own data"),
        task=(not tasks, "does not go with --tasks"),
        leave_out=(bool(plain and options.files), "belongs to --files; with --task it is --data.leave-out"),
        rows=(not needle and not tasks, "is not for --needle and --tasks, which have --samples and --limit"),
        files=(plain or task, "is for plain measurements and --task"),
        shards=(not decode and not tasks and not task and not options.files, "goes with none of --decode, --tasks, --task and --files"),
        predictions=(plain or task, "is for plain measurements and --task"),
        **dict.fromkeys(("raw", "int8"), (not decode, "does not go with --decode")),
        split=(not decode and not tasks and not task, "goes with none of --decode, --tasks and --task"),
        change=(plain, "is for plain measurements"),
    )
    if long:
        _check_long_context(options)


def _check_long_context(options: Evaluate) -> None:
    if options.decode:
        raise UserError("omnia evaluate: --decode is a measurement of its own", "Leave --by-position and --needle out.")
    if options.by_position and options.needle:
        raise UserError("omnia evaluate: --by-position and --needle are two measurements", "Give one of them.")
    if options.int8:
        raise UserError("omnia evaluate: --by-position and --needle measure the weights as they are", "Leave --int8 out.")
    if min(options.context_length, options.samples - 1) < 0:
        raise UserError("omnia evaluate: --context-length and --samples must be positive")
    check_batch_fits("evaluate", max(options.batch_size, 1), max(options.context_length, 1))


def _measure(options: Evaluate) -> dict:
    """The measures of a split, of a policy's decoding, or of what else the run validates with."""
    from train.evaluation.checkpoint import evaluate_run
    from train.runs.directory import open_run

    run = open_run(options.run_dir)
    which: dict[str, Any] = {"rows": options.rows, "step": options.step, "raw": options.raw}
    if options.decode:
        from train.rl.search.decoding import measure_decoding

        how: dict[str, Any] = {"considered": options.considered, "count": options.rows, "batch_size": options.batch_size}
        return measure_decoding(run, options.decode, options.passes, step=options.step, **how)
    which |= {"split": options.split, "shards": options.shards or options.files, "int8": options.int8, "change": options.change}
    if options.groups or options.swap:
        from train.tasks.fairness import Fairness

        which["fairness"] = Fairness(options.groups, options.positive, options.smallest_group, options.swap)
    return evaluate_run(run, batch_size=options.batch_size, predictions=options.predictions, leave_out=options.leave_out, **which)


def _ask(options: Any, experiment) -> dict:
    """The measures of a task."""
    from train.runs.directory import open_run
    from train.tasks.asking import ask

    how = {name: getattr(options, name) for name in ("rows", "step", "raw", "int8", "seed", "predictions")}
    objective = experiment.objective
    if options.labels:
        if not isinstance(objective, Supervised):
            raise UserError(f"--labels: {options.task} learns by {type(objective).__name__}, which has none", "Leave it out.")
        objective = dataclasses.replace(objective, labels=options.labels)
    return ask(
        open_run(options.run_dir),
        options.data,
        objective,
        options.files,
        shots=max(options.shots, 0),
        shown=options.examples,
        **how,
    )


def _print_measures(found: dict, split: str) -> None:
    from train.loop.telemetry import name_sources

    intervals, fair = found.pop("intervals", {}), found.pop("fairness", None)
    for name, value in name_sources(found).items():
        between = f"   {intervals[name][0]:.4f} to {intervals[name][1]:.4f}" if name in intervals else ""
        print((f"{name:16} {value:.4f}" if isinstance(value, float) else f"{name:16} {value}") + between)
    for number, name in enumerate(found.get("sources", ())):
        if f"loss/{number}" not in found:
            print(f"{f'loss/{name}':16} none: no {split} split")
    if fair is not None:
        from train.tasks.fairness import lines_of

        print("\n".join(lines_of(fair)))


def _evaluate_long_context(options: Evaluate) -> None:
    """`omnia evaluate --by-position` and `--needle`."""
    from train.runs.directory import open_run
    from train.sources.text import text_data

    run = open_run(options.run_dir)
    text_data(run.experiment)  # which it must have
    start_jax()
    from train.evaluation.long_context import evaluate_by_position, evaluate_needle

    corpora: list = run.other_corpora(options.shards) if options.shards else run.corpora()
    which: dict[str, Any] = {"batch_size": options.batch_size, "step": options.step, "raw": options.raw}
    which |= {"split": options.split, "context_length": options.context_length}
    if options.by_position:
        found = evaluate_by_position(run, corpora, rows=options.rows, **which)
        lines = _lines_by_position(found["by_position"])
    else:
        found = evaluate_needle(run, corpora[0], text=options.needle_text, samples=options.samples, seed=options.seed, **which)
        lines = _lines_of_needle(found["needle"])
    if options.json:
        print(json_files.dumps(found))
        return
    for line in lines:
        print("  ".join(f"{cell:>12}" for cell in line))
    if options.needle:
        print(run.path / "plots" / "needle.png")


def _lines_by_position(buckets: list[dict]) -> list[tuple[str, ...]]:
    lines: list[tuple[str, ...]] = [("position", "loss", "tokens")]
    for bucket in buckets:
        span = f"{bucket['first']}-{bucket['last']}" if bucket["first"] < bucket["last"] else str(bucket["first"])
        lines.append((span, f"{bucket['loss']:.4f}", f"{bucket['tokens']:,}"))
    return lines


def _lines_of_needle(cells: list[dict]) -> list[tuple[str, ...]]:
    lines: list[tuple[str, ...]] = [("length", "depth", "accuracy", "exact", "log_prob")]
    for cell in cells:
        shares = (f"{cell[name]:.2f}" for name in ("accuracy", "exact"))
        lines.append((f"{cell['length']:,}", f"{cell['depth']:.0%}", *shares, f"{cell['log_prob']:.3f}"))
    return lines
