"""The arguments of a verb: parsing, what is refused of them, and the start of JAX, which waits until they have been found good."""

import dataclasses
import os
import re
import shutil
from collections.abc import Callable, Mapping

import tyro

from data.errors import UserError
from data.files import storage
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


def below(verb: str, arguments: list[str], verbs: Mapping[str, tuple[Callable[[list[str]], int], str, str]]) -> int:
    """Call a verb of a verb: {name: (function, what it takes, what it does)}. Lists them where none is given; UserError for another."""
    if not arguments or arguments[0] in ("-h", "--help"):
        calls = [(f"omnia {verb} {name} {takes}", does) for name, (_, takes, does) in verbs.items()]
        width = max(len(call) for call, _ in calls) + 5
        for call, does in calls:
            print(f"{call:{width}} {does}")
        print(f"\nomnia {verb} {next(iter(verbs))} --help lists what it takes{'; so do the others' if len(verbs) > 1 else ''}.")
        return 0
    if arguments[0] not in verbs:
        raise UserError(f"omnia {verb}: no verb {arguments[0]!r}", f"Choose from {', '.join(verbs)}.")
    return verbs[arguments[0]][0](arguments[1:])


def value_of(flag: str, arguments: list[str]) -> str | None:
    """The value that `arguments` give to a flag, before they are parsed for good."""
    for place, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name.replace("_", "-") == flag:
            return value if equals else arguments[place + 1] if place + 1 < len(arguments) else None
    return None


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


def check_batch_fits(verb: str, batch_size: int, context_length: int) -> None:
    """UserError for a batch of more than LARGEST_BATCH tokens."""
    if batch_size * context_length > LARGEST_BATCH:
        raise UserError(
            f"omnia {verb}: --batch-size {batch_size} rows of --context-length {context_length} fit no memory",
            f"Together at most {LARGEST_BATCH:,} tokens.",
        )


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
