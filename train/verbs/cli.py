"""The verbs of the `omnia` command. JAX and Flax are imported inside them, after the arguments have been found good."""

import dataclasses
import difflib
import importlib.util
import os
import re
import shutil
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from data.errors import UserError
from data.files import json_files, storage
from data.files.text_files import BYTE_ORDER_MARK, read_text, split_lines
from train.experiment import Experiment, Scaling
from train.runs.serialize import check_types

LARGEST_BATCH = 1 << 26
"""Tokens of a batch that is asked for by hand: more is a slip, and no memory holds it."""

NARROWEST = 40
"""Columns that help is set in at least: in one it takes a minute."""


def parse(kind: type, verb: str, arguments: list[str], default=None):
    """The dataclass `kind` from the command line. A mistake prints the nearest name and exits with code 2."""
    if shutil.get_terminal_size().columns < NARROWEST:
        os.environ["COLUMNS"] = str(NARROWEST)
    try:
        found = tyro.cli(kind, prog=f"omnia {verb}", args=arguments, default=default, config=(tyro.conf.AvoidSubcommands,))
    except ValueError as error:
        raise UserError(str(error)) from None
    _check_given_once(verb, arguments)
    _check_not_empty(verb, arguments, found)
    if dataclasses.is_dataclass(found):
        try:
            check_types(found)
        except UserError as error:
            raise UserError(f"omnia {verb}: {error}") from None
    return found


def _check_given_once(verb: str, arguments: list[str]) -> None:
    """UserError for an option that is given twice, or once with and once without `no-`: the parser would take the last in silence."""
    seen: dict[str, str] = {}
    for argument in arguments:
        if argument.startswith("--") and len(argument) > 2:
            name = argument.partition("=")[0]
            key = re.sub(r"(^--|\.)no-", r"\1", name.replace("_", "-"))
            if key in seen:
                both = name if seen[key] == name else f"{seen[key]} and {name}"
                raise UserError(f"omnia {verb}: {both} given twice" if both == name else f"omnia {verb}: {both} given", "Give one of them.")
            seen[key] = name


def _check_not_empty(verb: str, arguments: list[str], found) -> None:
    """UserError for an option of several values that is given without any, as an unset variable of the shell does: it would be ignored."""
    for argument, following in zip(arguments, [*arguments[1:], "--"], strict=False):
        if not argument.startswith("--") or len(argument) == 2 or not following.startswith("--"):
            continue
        names = argument[2:].replace("-", "_").split(".")
        for holder in (found, getattr(found, "experiment", None)):
            value = holder
            for name in names:
                value = getattr(value, name, None)
            if value == ():
                raise UserError(
                    f"omnia {verb}: {argument} is given without a value", "Give one, or leave it out; a variable in its place may be empty."
                )


def check_belongs(verb: str, options, **belongs: tuple[bool, str]) -> None:
    """UserError for an option that is given, and means nothing without another: name=(whether that is there, what it belongs to)."""
    defaults = {field.name: field.default for field in dataclasses.fields(options)}
    for name, (fine, what) in belongs.items():
        if not fine and getattr(options, name) != defaults[name]:
            raise UserError(f"omnia {verb}: --{name.replace('_', '-')} {what}", "Leave one of them out.")


def check_seed(verb: str, seed: int) -> None:
    """UserError for a seed that an experiment could not have either."""
    if not 0 <= seed < 2**31:
        raise UserError(f"omnia {verb}: --seed is {seed}", "Give a number from 0 to 2147483647.")


def start_jax(*, devices: bool = True) -> None:
    """Keep compiled programs between runs, so that a restart does not compile again; JAX_COMPILATION_CACHE_DIR overrides where.

    devices: start JAX's devices too, and say what is wrong where they do not start. Whoever trains does so later: `divide_cpu`.
    """
    import jax

    folder = storage.cache_folder()
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR") and folder is not None and storage.can_write(compiled := f"{folder}/compiled"):
        jax.config.update("jax_compilation_cache_dir", compiled)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    if devices:
        from train.devices import hosts

        hosts.start_devices()


# ---------------------------------------------------------------------------------------------------------------- quickstart


@dataclasses.dataclass(frozen=True)
class Quickstart:
    """Train a small model of Python code on this machine, and show what it learned."""

    run_dir: str = "runs/quickstart"
    """Folder of the run; the corpus goes beside it, in the same name with -corpus. The same command again goes on where it stopped."""
    steps: int = 0
    """Updates. 0: as the config says, about two minutes on two cores."""


def quickstart(arguments: list[str]) -> int:
    options = parse(Quickstart, "quickstart", arguments)
    if options.steps < 0:
        raise UserError("omnia quickstart: --steps must be 0 or more", "0 takes as many as the config says.")
    configs = Path(__file__).parent.parent.parent / "configs"
    experiment, policy = load_config(str(configs / "quickstart.py")), load_config(str(configs / "rl" / "code.py"))
    if options.steps:
        experiment, policy = (
            dataclasses.replace(experiment, steps=options.steps),
            dataclasses.replace(policy, steps=min(options.steps, policy.steps)),
        )
    start_jax(devices=False)
    from train.verbs.quickstart import quickstart as run

    return run(options.run_dir, experiment, policy)["exit"]


# ------------------------------------------------------------------------------------------------------------------- prepare


def prepare(arguments: list[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help"):
        print("omnia prepare text --input PATH [PATH ...] --output DIR --tokenizer byte|char|sentencepiece:SIZE|FILE")
        print("omnia prepare images|video|audio|interleaved --input PATH [PATH ...] --output DIR")
        print("omnia prepare codes --runs RUN [RUN ...] --output DIR\n")
        print("omnia prepare text --help, omnia prepare images --help list the rest.")
        return
    kind: Any = arguments[0]
    rest = arguments[1:]
    if kind == "text":
        from data.text.prepare import PrepareText, prepare_text

        prepare_text(parse(PrepareText, "prepare text", rest))
        return
    if kind == "codes":
        start_jax()
        from train.verbs.codes import PrepareCodes, prepare_codes

        return prepare_codes(parse(PrepareCodes, "prepare codes", rest))
    from data.media.prepare import KINDS, PrepareMedia, prepare_media

    if kind not in KINDS:
        raise UserError(f"omnia prepare: cannot prepare {kind!r}", f"What can be prepared: text, {', '.join(KINDS)}, codes.")
    prepare_media(parse(PrepareMedia, f"prepare {kind}", rest, PrepareMedia(tyro.MISSING, kind)))


# ------------------------------------------------------------------------------------------------------------------- inspect


@dataclasses.dataclass(frozen=True)
class Inspect:
    """Show a folder of shards, or the shards of a run as that run sees them."""

    path: tyro.conf.Positional[str]
    """Folder made by `omnia prepare`, or a run directory."""
    json: bool = False
    """Print one line of JSON."""
    split: str = "train"
    """Split to show: train or validation."""
    samples: int = 3
    """Documents to show, decoded."""
    step: int | None = None
    """Also show the rows of this training step (counted from 0), as the model will see them; of a run that went back, see --row."""
    row: int | None = None
    """Also show the rows from this one on, as many as a step has: what a bad step names."""
    batch_size: int = 8
    """Rows of a step (a run's own when given a run)."""
    context_length: int = 512
    """Length of a row (a run's own when given a run)."""
    seed: int = 0
    """Seed of the order of rows (a run's own when given a run)."""
    media: str | None = None
    """Draw a contact sheet to this file (.png): of a run on media what it is fed at --step or --row, of a folder of media its samples."""


def _check_batch_fits(verb: str, batch_size: int, context_length: int) -> None:
    if batch_size * context_length > LARGEST_BATCH:
        raise UserError(
            f"omnia {verb}: --batch-size {batch_size} rows of --context-length {context_length} fit no memory",
            f"Together at most {LARGEST_BATCH:,} tokens.",
        )


def inspect(arguments: list[str]) -> None:
    options = parse(Inspect, "inspect", arguments)
    if min(options.step or 0, options.row or 0, options.samples) < 0 or min(options.batch_size, options.context_length) < 1:
        raise UserError("omnia inspect: --step, --row and --samples must be 0 or more, --batch-size and --context-length positive")
    _check_batch_fits("inspect", options.batch_size, options.context_length)
    if options.step is not None and options.row is not None:
        raise UserError("omnia inspect: --step and --row both say which rows to show", "Give one of them.")
    from train.runs.directory import is_run, open_run
    from train.sources.text import text_data

    own = (not is_run(Path(options.path)), "is a run's own, and cannot be chosen for one")
    check_belongs("inspect", options, context_length=own, seed=own)
    if options.media is not None:
        of_rows = (not own[0], "is of rows that a run is fed; of a folder of media 24 samples are drawn, in even distances")
        rows = dict.fromkeys(("step", "row", "batch_size", "context_length", "seed"), of_rows)
        check_belongs("inspect", options, samples=(False, "is of texts, and does not go with --media"), **rows)
        if not options.media.lower().endswith(".png"):
            raise UserError(f"{options.media}: a contact sheet is a .png file", "Give a name that ends in .png.")
        return _draw_media(options)
    check_belongs("inspect", options, batch_size=own)
    from data.text.batches import Batches
    from data.text.inspect import decoded_rows, inspect_corpus, print_inspection
    from data.text.shards import Corpus

    paths, length = [options.path], options.context_length
    size, seed = options.batch_size, options.seed
    weights: tuple[float, ...] = ()
    fim_rate = 0.0
    if is_run(Path(options.path)):
        run = open_run(options.path)
        experiment, data = run.experiment, text_data(run.experiment)
        run.corpora()  # which are what it was started with, or a line says where they may be
        paths, weights, fim_rate = list(data.shards), data.weights, data.fim_rate
        length, size, seed = experiment.model.context_length, experiment.batch_size, experiment.seed
    row = options.row if options.step is None else options.step * size
    alone = {"first_row": row, "batch_size": size, "seed": seed, "fim_rate": fim_rate} if len(paths) == 1 else {}
    found = [inspect_corpus(path, split=options.split, samples=options.samples, context_length=length, **alone) for path in paths]
    if row is not None and not alone:  # the rows of a mixture
        corpora = [Corpus(path) for path in paths]
        batches = Batches(corpora, weights=weights, split=options.split, context_length=length, seed=seed, fim_rate=fim_rate)
        found[-1] |= {"step_rows": decoded_rows(batches, corpora[0].tokenizer(), row, size)}
    if options.step is not None:
        found[-1] |= {"step": options.step}
    for corpus in found:
        print(json_files.dumps(corpus)) if options.json else print_inspection(corpus)


def _draw_media(options: Inspect) -> None:
    """The contact sheet of what a run is fed, or of a folder's samples in even distances."""
    import numpy as np

    from data.media.contact_sheet import cells_of_batch, cells_of_split, draw_sheet
    from data.media.shards import MediaCorpus
    from train.runs.directory import is_run, open_run
    from train.sources.media import MediaSource, make_media_batches
    from train.sources.media_options import MediaData

    assert options.media is not None
    if is_run(Path(options.path)):
        run = open_run(options.path)
        if not isinstance(run.experiment.data, MediaData):
            raise UserError(f"{options.path}: is trained on no media", "Leave --media out.")
        sources = [one for one in run.corpora() if isinstance(one, MediaSource)]
        size = run.experiment.batch_size
        batches = make_media_batches(run.experiment, [one.source for one in sources], sources[0].tokenizer(), options.split)
        first = options.row if options.row is not None else (options.step or 0) * size
        cells = cells_of_batch(batches, first, min(size, options.batch_size))
    else:
        corpus = MediaCorpus(options.path)
        split = corpus.split(options.split)
        cells = cells_of_split(split, np.linspace(0, split.samples - 1, min(24, split.samples)).astype(int), corpus.classes)
    sheet = draw_sheet(cells)
    try:
        sheet.save(options.media, "PNG")
    except OSError as error:
        raise UserError(f"{options.media}: {error}", "Give the path of a file to write.") from None
    print(json_files.dumps({"media": options.media, "samples": len(cells)}) if options.json else options.media)


# --------------------------------------------------------------------------------------------------------------------- train


@dataclasses.dataclass(frozen=True)
class Train:
    """Train an experiment, or go on with a run: the same command again resumes it from its last checkpoint."""

    run_dir: str
    """Folder of the run."""
    experiment: Annotated[Experiment, tyro.conf.arg(name="")] = Experiment()


def load_config(target: str) -> Experiment:
    """The experiment of `FILE.py` or `FILE.py:arg`, by the file's `get_config(arg)`."""
    path, _, arg = target.partition(":")
    if not path.endswith(".py"):
        raise UserError(
            f"{path}: not a config file",
            "Give a Python file with a function get_config, such as configs/shakespeare.py, or a run directory.",
        )
    if not Path(path).is_file():
        near = sorted(str(file) for file in Path(path).parent.glob("*.py")) if Path(path).parent.is_dir() else []
        raise UserError(f"{path}: no such file", f"There are: {', '.join(near)}." if near else "")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        if not hasattr(module, "get_config"):
            raise UserError(f"{path}: has no function get_config", "A config file defines get_config(arg: str = ...) -> Experiment.")
        experiment = module.get_config(arg) if arg else module.get_config()
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{target}: {error}") from None
    except (Exception, SystemExit) as error:  # whatever a file of the user's can raise
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == spec.origin]
        raise UserError(f"{path}: line {lines[-1] if lines else '?'}: {type(error).__name__}: {error}{_nearest_field(error)}") from None
    if not isinstance(experiment, Experiment):
        raise UserError(f"{path}: gives no experiment", "A config file defines get_config(arg: str = ...) -> Experiment.")
    try:
        check_types(experiment)
    except UserError as error:
        raise UserError(f"{target}: {error}") from None
    return experiment


def _nearest_field(error: BaseException) -> str:
    """For `Experiment(stepz=5)`: the field that was meant."""
    found = re.search(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error))
    modules = (sys.modules["train.experiment"], sys.modules["model.config"])
    kinds = {name: kind for module in modules for name, kind in vars(module).items() if dataclasses.is_dataclass(kind)}
    if not found or found[1] not in kinds:
        return ""
    close = difflib.get_close_matches(found[2], [field.name for field in dataclasses.fields(kinds[found[1]])], 1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def train(arguments: list[str]) -> int:
    from train.runs.directory import create_run, has_checkpoint, is_run, open_corpora, open_run, reached, write_run
    from train.runs.resolve import check_resume, resolve

    target, rest = (None, arguments) if not arguments or arguments[0].startswith("-") else (arguments[0], arguments[1:])
    if target is None and not {"-h", "--help"} & set(rest):
        raise UserError(
            "omnia train: no config", "Give one: omnia train configs/shakespeare.py --run-dir DIR ..., or a run directory to go on with."
        )
    run_dir = _value_of("--run-dir", rest)
    if target and is_run(Path(target)):
        if run_dir is not None and Path(run_dir).absolute() != Path(target).absolute():
            raise UserError(
                f"omnia train: {target} is a run, and --run-dir names another folder, {run_dir}",
                f"Leave --run-dir out to go on with {target}; to begin a new run with its parameters: CONFIG.py --start {target}.",
            )
        rest, target = rest if run_dir is not None else ["--run-dir", target, *rest], None
        run_dir = _value_of("--run-dir", rest)
    stored = open_run(run_dir) if run_dir and is_run(Path(run_dir)) else None
    if stored and not has_checkpoint(stored.path) and target:
        stored = None  # nothing was trained: the run is made again, and any mistake in it can be mended
    if run_dir and stored:  # the file is not run again: the run alone decides
        if target:
            print(f"{run_dir} is a run: going on with it as it is stored; {target} is not read")
        command = parse(Train, "train", rest, Train(run_dir, stored.experiment))
        experiment = command.experiment
    else:
        command = parse(Train, f"train {target or 'CONFIG.py'}", rest, Train(tyro.MISSING, load_config(target) if target else Experiment()))
        experiment = command.experiment
        if isinstance(experiment, Scaling):
            return train_scaling(Path(command.run_dir), experiment)
    start_jax(devices=False)
    from train.devices import hosts

    hosts.join()
    from train.loop.checks import check
    from train.loop.loop import train as loop

    corpora = open_corpora(experiment, stored)
    experiment = resolve(experiment, corpora, stored)
    check(experiment, corpora)
    if stored:
        check_resume(stored.experiment, experiment)
        if (done := reached(stored)) > experiment.steps:
            print(
                f"{stored.path}: has taken {done} steps, and {experiment.steps} are asked for: nothing is trained, and nothing undone "
                "(--step N of evaluate and generate takes an earlier checkpoint)"
            )
            return 0
        run = dataclasses.replace(stored, experiment=experiment)
        if experiment != stored.experiment and hosts.first():
            write_run(run)
    elif hosts.first():
        run = create_run(command.run_dir, experiment, corpora)
    hosts.barrier("the run directory is there")
    if not hosts.first() and not stored:
        run = open_run(command.run_dir)
    summary = loop(run)
    if not hosts.first():
        return summary["exit"]
    if summary["validation"]:
        found = summary["validation"]
        if "bits_per_byte" in found:
            print(f"validation: {found['loss']:.4f} nats per token, {found['bits_per_byte']:.4f} bits per byte")
        else:
            print("validation: " + ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in found.items()))
    if (run.path / "report.html").is_file():
        print(f"report: {run.path / 'report.html'}")
    return summary["exit"]


def train_scaling(folder: Path, scaling: Scaling) -> int:
    """A ladder of sizes, each a run in `folder`; the same command again goes on with what is not finished."""
    start_jax(devices=False)
    from train.planning.scaling import study

    found = study(folder, scaling)
    if found is None:
        return 130
    predicted, measured = found["prediction"]["loss"], found["measured"]["loss"]
    print(f"predicted {predicted:.4f}, measured {measured:.4f} nats per token: {found['error']:+.2%}")
    print(folder / "scaling.png")
    return 0


def _value_of(flag: str, arguments: list[str]) -> str | None:
    """The value that `arguments` give to a flag, before they are parsed for good."""
    for place, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name.replace("_", "-") == flag:
            return value if equals else arguments[place + 1] if place + 1 < len(arguments) else None
    return None


# ------------------------------------------------------------------------------------------------------------------ evaluate


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Measure a run on a split of its shards."""

    run_dir: tyro.conf.Positional[str]
    """Folder of the run."""
    json: bool = False
    """Print one line of JSON, last."""
    step: int | None = None
    """Checkpoint to measure. Default: the latest."""
    raw: bool = False
    """Measure the trained parameters even where an average of them is kept."""
    int8: bool = False
    """Measure with weights and activations rounded to eight bits."""
    split: str = "validation"
    """Split of the shards."""
    rows: int = 0
    """Rows of each folder of shards to use, from the start of the split. 0: all."""
    batch_size: int = 0
    """Rows at once. 0: as in training."""
    shards: tuple[str, ...] = ()
    """Other data to measure on than the run's own: folders of shards, prepared with the same tokenizer, or files of examples."""
    decode: Literal["", "sample", "best_of", "beam", "guided", "search", "best_first"] = ""
    """Of a policy: score what it answers with more than one forward pass a token: the best of several samples, or of several beams, tokens
    drawn by the critic's value, each chosen by a tree search, or a best-first search. Environments judge complete responses in each."""
    passes: int = 16
    """With --decode: forward passes for each token of a response."""
    considered: int = 16
    """With --decode search or best_first: how many of the likeliest tokens are tried at each place."""
    by_position: bool = False
    """Measure the loss by the number of tokens that the model sees before each."""
    needle: bool = False
    """Hide a sentence with a random key in the text, at several lengths and depths, and ask for the key at the end."""
    context_length: int = 0
    """With --by-position or --needle: length of the rows, longer ones too where positions are rotary. 0: as in training."""
    needle_text: str = "The secret word is {}."
    """With --needle: the sentence, {} being the key."""
    samples: int = 8
    """With --needle: rows of each length and depth."""
    seed: int = 0
    """With --needle: decides keys and text."""


def evaluate(arguments: list[str]) -> None:
    options = parse(Evaluate, "evaluate", arguments)
    if min(options.rows, options.batch_size) < 0:
        raise UserError("omnia evaluate: --rows and --batch-size must be 0 or more")
    check_seed("evaluate", options.seed)
    decode, needle, long = bool(options.decode), options.needle, options.needle or options.by_position
    check_belongs(
        "evaluate",
        options,
        passes=(decode, "belongs to --decode"),
        considered=(options.decode in ("search", "best_first"), "belongs to --decode search or best_first"),
        needle_text=(needle, "belongs to --needle"),
        samples=(needle, "belongs to --needle"),
        seed=(needle, "belongs to --needle"),
        context_length=(long, "belongs to --by-position or --needle"),
        rows=(not needle, "is not for --needle, which has --samples"),
        **dict.fromkeys(("raw", "shards", "int8", "split"), (not decode, "does not go with --decode")),
    )
    if long:
        return evaluate_long_context(options)
    start_jax()
    from train.evaluation.checkpoint import evaluate_run
    from train.experiment import TextData
    from train.runs.directory import open_run

    run, which = open_run(options.run_dir), {"rows": options.rows, "step": options.step, "raw": options.raw}
    if options.decode:
        from train.rl.search.decoding import measure_decoding

        how: dict[str, Any] = {"considered": options.considered, "count": options.rows, "batch_size": options.batch_size}
        found = measure_decoding(run, options.decode, options.passes, step=options.step, **how)
    elif isinstance(run.experiment.data, TextData):
        of_text: dict[str, Any] = {"split": options.split, "batch_size": options.batch_size, "shards": options.shards, "int8": options.int8}
        found = evaluate_run(run, **which, **of_text)
    else:
        if options.int8 or options.batch_size or options.split != "validation":
            raise UserError("omnia evaluate: --int8, --batch-size and --split are for runs on text", "Leave them out.")
        from train.loop.loop import measure

        found = measure(run, **which, shards=options.shards)
    if options.json:
        print(json_files.dumps(found))
        return
    from train.loop.telemetry import name_sources

    for name, value in name_sources(found).items():
        print(f"{name:16} {value:.4f}" if isinstance(value, float) else f"{name:16} {value}")
    for number, name in enumerate(found.get("sources", ())):
        if f"loss/{number}" not in found:
            print(f"{f'loss/{name}':16} none: no {options.split} split")


def evaluate_long_context(options: Evaluate) -> None:
    """`omnia evaluate --by-position` and `--needle`."""
    if options.decode:
        raise UserError("omnia evaluate: --decode is a measurement of its own", "Leave --by-position and --needle out.")
    if options.by_position and options.needle:
        raise UserError("omnia evaluate: --by-position and --needle are two measurements", "Give one of them.")
    if options.int8:
        raise UserError("omnia evaluate: --by-position and --needle measure the weights as they are", "Leave --int8 out.")
    if min(options.context_length, options.samples - 1) < 0:
        raise UserError("omnia evaluate: --context-length and --samples must be positive")
    _check_batch_fits("evaluate", max(options.batch_size, 1), max(options.context_length, 1))
    from train.runs.directory import open_run
    from train.sources.text import text_data

    run = open_run(options.run_dir)
    text_data(run.experiment)  # which it must have
    start_jax()
    from train.evaluation.long_context import evaluate_by_position, evaluate_needle

    corpora: list = run.other_corpora(options.shards) if options.shards else run.corpora()
    which: dict[str, Any] = {"batch_size": options.batch_size, "step": options.step, "raw": options.raw}
    which |= {"split": options.split, "context_length": options.context_length}
    lines: list[tuple[str, ...]]
    if options.by_position:
        found = evaluate_by_position(run, corpora, rows=options.rows, **which)
        lines = [("position", "loss", "tokens")]
        for bucket in found["by_position"]:
            span = f"{bucket['first']}-{bucket['last']}" if bucket["first"] < bucket["last"] else str(bucket["first"])
            lines.append((span, f"{bucket['loss']:.4f}", f"{bucket['tokens']:,}"))
    else:
        found = evaluate_needle(run, corpora[0], text=options.needle_text, samples=options.samples, seed=options.seed, **which)
        lines = [("length", "depth", "accuracy", "exact", "log_prob")]
        for cell in found["needle"]:
            shares = (f"{cell[name]:.2f}" for name in ("accuracy", "exact"))
            lines.append((f"{cell['length']:,}", f"{cell['depth']:.0%}", *shares, f"{cell['log_prob']:.3f}"))
    if options.json:
        print(json_files.dumps(found))
        return
    for line in lines:
        print("  ".join(f"{cell:>12}" for cell in line))
    if options.needle:
        print(run.path / "plots" / "needle.png")


# ------------------------------------------------------------------------------------------------------------------ generate


@dataclasses.dataclass(frozen=True)
class Generate:
    """Continue a prompt, every line of a file, or what you type."""

    run_dir: tyro.conf.Positional[str]
    """Folder of the run."""
    prompt: str | None = None
    """Text to continue; "" starts a new document."""
    suffix: str | None = None
    """With --prompt: the text after the gap. Only what belongs between the two is written (a run trained with data.fim_rate)."""
    prompts: str | None = None
    """File with a prompt on each line."""
    image: tuple[str, ...] = ()
    """With --prompt: pictures that stand before it (a model with an encoder for them)."""
    video: tuple[str, ...] = ()
    """The same of clips, after the pictures."""
    audio: tuple[str, ...] = ()
    """The same of recordings, after the clips."""
    write: Literal["text", "image", "video", "audio"] = "text"
    """With --prompt and --output: the medium to write (a model whose tokenizer has codes for it)."""
    output: str = ""
    """With --write: file for what is written: .png, .gif or .wav. With --samples each gets its number."""
    interactive: bool = False
    """Ask for prompts until the input ends."""
    max_new_tokens: int = 200
    """Length of each continuation, at most. What fills a gap must fit the model's context together with both its sides."""
    temperature: float = 0.8
    """Divides the logits; 0 is greedy."""
    top_k: int = 0
    """Draw from the k most likely tokens. 0: all."""
    top_p: float = 1.0
    """Draw from the smallest set of tokens with this probability. 1: all."""
    min_p: float = 0.0
    """Draw from tokens at least this many times as likely as the most likely one."""
    repetition_penalty: float = 1.0
    """Above 1: tokens already in the text become less likely."""
    stop: tuple[str, ...] = ()
    """End a text before any of these strings. In them, \\n is a line feed, \\t a tab, \\r a carriage return, and \\\\ a backslash."""
    seed: int = 0
    """Decides what is drawn."""
    samples: int = 1
    """Continuations of each prompt."""
    beams: int = 0
    """Search for the most likely continuations with so many beams, instead of drawing; --samples of them are shown. 0: draw."""
    length_penalty: float = 0.0
    """With --beams: above 0, longer texts are ranked higher (Wu et al. 2016, eq. 14)."""
    int8: bool = False
    """Round weights and activations to eight bits: faster, a little less exact."""
    json: bool = False
    """Print each continuation as a line of JSON: prompt, text, ids, log_probs, finish."""
    step: int | None = None
    """Checkpoint to use. Default: the latest."""
    raw: bool = False
    """Use the trained parameters even where an average of them is kept."""


ROWS_AT_ONCE = 64
LARGEST_PENALTY = 5.0
"""A power of the length: beyond it, that of a long text is no number of float32 any more."""


def generate(arguments: list[str]) -> None:
    options = parse(Generate, "generate", arguments)
    if sum((options.prompt is not None, options.prompts is not None, options.interactive)) != 1:
        raise UserError("omnia generate: what should be continued?", "Give one of --prompt TEXT, --prompts FILE, --interactive.")
    if options.max_new_tokens < 1 or options.samples < 1:
        raise UserError("omnia generate: --max-new-tokens and --samples must be positive")
    if options.suffix is not None and options.prompt is None:
        raise UserError("omnia generate: --suffix needs what stands before the gap", "Give it with --prompt.")
    check_seed("generate", options.seed)
    if options.beams < 0 or not 0 <= options.length_penalty <= LARGEST_PENALTY:
        raise UserError(f"omnia generate: --beams must be 0 or more, --length-penalty 0 to {LARGEST_PENALTY:g}", "Correct the option.")
    drawing = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed", "suffix", "stop")
    check_belongs(
        "generate",
        options,
        length_penalty=(bool(options.beams), "belongs to --beams"),
        **dict.fromkeys(drawing, (not options.beams, "does not go with --beams, which draws nothing")),
    )
    if "" in options.stop:
        raise UserError("omnia generate: a --stop string is empty: every text would end at once", "Leave it out.")
    options = dataclasses.replace(options, stop=tuple(map(_without_escapes, options.stop)))
    from train.runs.directory import open_run
    from train.sources.text import text_data

    run = open_run(options.run_dir)
    if options.suffix is not None and not text_data(run.experiment).fim_rate:
        raise UserError(
            f"{options.run_dir}: was not trained to fill in the middle (data.fim_rate is 0)", "Train one with --data.fim-rate 0.5."
        )
    media = [(kind, path) for kind in ("image", "video", "audio") for path in getattr(options, kind)]
    if (options.write != "text") != bool(options.output):
        raise UserError("omnia generate: --write image|video|audio and --output FILE go together", "Give both, or neither.")
    if options.output:
        from data.media.output import check_output

        check_output(options.write, Path(options.output))
    of_media = bool(media or options.output or hasattr(run.experiment.model, "encoders"))
    of_text = dict.fromkeys(
        ("beams", "suffix", "stop", "int8", "interactive", "prompts"), (not of_media, "is not for media, nor for a model that reads them")
    )
    written = (not options.output, "is of texts: a medium has the length of its codes")
    check_belongs("generate", options, max_new_tokens=written, **of_text)
    start_jax()
    from model.decoding.generate import Sampling
    from train.generation.text import load_generator

    try:
        sampling = Sampling(
            temperature=options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
            min_p=options.min_p,
            repetition_penalty=options.repetition_penalty,
        )
    except ValueError as error:
        raise UserError(str(error)) from None
    if of_media:
        return _write_about_media(run, options, media, sampling)
    generator = load_generator(run, step=options.step, raw=options.raw, int8=options.int8)

    def complete(prompts: list[str], request: dict):
        """By groups of rows: a long file of prompts needs no more memory than a short one."""
        for first in range(0, len(prompts), ROWS_AT_ONCE):
            yield from generator.generate(prompts[first : first + ROWS_AT_ONCE], first_row=first, **request)

    def show(prompts: list[str]) -> None:
        if options.beams:
            request = {"tokens": options.max_new_tokens, "beams": options.beams, "length_penalty": options.length_penalty}
            at_once = max(1, ROWS_AT_ONCE // options.beams)
            for first in range(0, len(prompts), at_once):
                for completion in sum(generator.search(prompts[first : first + at_once], samples=options.samples, **request), []):
                    text = f"{completion.prompt}{completion.text}\n{'-' * 8}"
                    print(json_files.dumps(dataclasses.asdict(completion)) if options.json else text)
            return
        prompts = [prompt for prompt in prompts for _ in range(options.samples)]
        request = {
            "tokens": options.max_new_tokens,
            "sampling": sampling,
            "seed": options.seed,
            "stop": options.stop,
            "suffix": options.suffix,
        }
        if options.json:
            for completion in complete(prompts, request):
                print(json_files.dumps(dataclasses.asdict(completion)))
        elif len(prompts) == 1:
            _stream(generator.stream(prompts, **request), options.stop, alone=options.suffix is not None)
        else:
            for completion in complete(prompts, request):
                print(f"{'' if options.suffix is not None else completion.prompt}{completion.text}\n{'-' * 8}")

    if options.interactive:
        for line in _asked():
            show([line])
    elif options.prompts is not None:
        lines = split_lines(read_text(options.prompts))
        if not lines:
            raise UserError(f"{options.prompts}: holds no prompt", "Write one on each line.")
        show(lines)
    else:
        show([options.prompt or ""])


def _write_about_media(run, options: Generate, media: list[tuple[str, str]], sampling) -> None:
    """What a model that reads or writes media writes after files and a prompt."""
    from train.generation.about_media import load_writer

    if options.output and options.write not in (codes := run.tokenizer().codes):
        raise UserError(f"{options.run_dir}: its model writes no {options.write}", f"It writes {', '.join(['text', *codes])}.")
    if media and not hasattr(run.experiment.model, "encoders"):
        raise UserError(f"{options.run_dir}: its model has no encoders for {', '.join(kind for kind, _ in media)}", "Use a run that has.")
    parts: list = []
    for kind, path in media:
        try:
            parts.append((kind, Path(path).read_bytes()))
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}", "Give the path of a file.") from None
    writer = load_writer(run, step=options.step, raw=options.raw)
    prompt = writer.read([*parts, ("text", options.prompt or "")])
    if options.write != "text":
        made = writer.media([prompt] * options.samples, options.write, sampling=sampling, seed=options.seed)
        return _save_media(options, codes[options.write].shape, made)
    if options.max_new_tokens >= (context := run.experiment.model.context_length):
        print(f"the context of {context} tokens ends a text before --max-new-tokens {options.max_new_tokens}", file=sys.stderr)
    texts = writer.write([prompt] * options.samples, tokens=options.max_new_tokens, sampling=sampling, seed=options.seed)
    for text in texts:
        print(json_files.dumps({"prompt": options.prompt, "media": [path for _, path in media], "text": text}) if options.json else text)


def _save_media(options: Generate, shape, written: list) -> None:
    """Each as a file of its own; of one that the model ended before it began, a word."""
    from data.media.output import save_medium

    output = Path(options.output)
    for number, cut in enumerate(written):
        path = output if len(written) == 1 else output.with_stem(f"{output.stem}-{number}")
        if cut is None:
            print(f"{path}: nothing was written: the model ended it at once", file=sys.stderr)
            continue
        save_medium(shape, cut, path)
        print(json_files.dumps({"prompt": options.prompt, "file": str(path)}) if options.json else path)


def _without_escapes(text: str) -> str:
    """The text with `\\n`, `\\t`, `\\r` and `\\\\` as what they stand for; other backslashes stay."""
    return re.sub(r"\\([ntr\\])", lambda found: {"n": "\n", "t": "\t", "r": "\r"}.get(found[1], "\\"), text)


def _asked() -> Iterator[str]:
    """What is typed or comes through a pipe, line by line until its end; a line that is no UTF-8 is said, and passed over."""
    typed, number = sys.stdin.isatty(), 0
    if hasattr(sys.stdin, "reconfigure"):  # so that the lines after a wrong one are read too
        sys.stdin.reconfigure(encoding=sys.stdin.encoding if typed else "utf-8", errors="surrogateescape", newline="\n")
    while True:
        try:
            line = input("> " if typed else "").removesuffix("\r")
        except EOFError:
            return
        number += 1
        if number == 1:
            line = line.removeprefix(BYTE_ORDER_MARK)
        try:
            line.encode()
        except UnicodeEncodeError:
            print(f"omnia generate: line {number} is no UTF-8, and is left out", file=sys.stderr)
            continue
        yield line


def _stream(parts, stop: tuple[str, ...], alone: bool = False) -> None:
    """Print a text while it grows, `alone` or after its prompt.

    What may still change is held back: half a character, the beginning of a stop string.
    """
    shown = 0
    completion = None
    for (completion,) in parts:
        text = completion.text if alone else completion.prompt + completion.text
        if not completion.finish:
            text = text.rstrip("\ufffd")
            held = max((n for string in stop for n in range(1, len(string)) if text.endswith(string[:n])), default=0)
            text = text[: len(text) - held]
        print(text[shown:], end="", flush=True)
        shown = max(shown, len(text))
    print()


# -------------------------------------------------------------------------------------------------------------------- report


@dataclasses.dataclass(frozen=True)
class Report:
    """Draw report.html and its pictures from what a run has logged so far."""

    run_dir: tyro.conf.Positional[str]
    """Folder of the run."""


def report(arguments: list[str]) -> None:
    options = parse(Report, "report", arguments)
    from train.loop.report import write_report
    from train.runs.directory import open_run

    print(write_report(open_run(options.run_dir).path))


# -------------------------------------------------------------------------------------------------------------------- doctor


def doctor(arguments: list[str]) -> int:
    from train.runs.directory import is_run, open_run

    @dataclasses.dataclass(frozen=True)
    class Doctor:
        """Check devices and versions; with a config or a run, also its mesh, memory, data and disk, before anything is paid for."""

        json: bool = False
        """Print one line of JSON."""
        run_dir: str = "."
        """Where checkpoints would go: its disk must hold them."""
        compile: bool = False
        """Compile the training step and report the memory the compiler plans for it."""
        experiment: Annotated[Experiment, tyro.conf.arg(name="")] = Experiment()

    target, rest = (None, arguments) if not arguments or arguments[0].startswith("-") else (arguments[0], arguments[1:])
    experiment = None
    if target is not None:
        experiment = open_run(target).experiment if is_run(Path(target)) else load_config(target)
    run_dir = target if target and is_run(Path(target)) else "."
    options = parse(Doctor, "doctor", rest, Doctor(run_dir=run_dir, experiment=experiment or Experiment()))
    given = [word.partition("=")[0] for word in rest if word.startswith("--")]
    if target is None and (others := [name for name in given if name not in ("--json", "--no-json")]):
        raise UserError(
            f"omnia doctor: {others[0]} is of an experiment, and none is given", "Give one: omnia doctor CONFIG.py ..., or a run directory."
        )
    start_jax(devices=False)  # an experiment may divide a CPU first
    from train.planning.doctor import examine, print_examination

    found = examine(options.experiment if experiment is not None else None, Path(options.run_dir), options.compile)
    print(json_files.dumps(found)) if options.json else print_examination(found)
    return 0 if found["healthy"] else 2
