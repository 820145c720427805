"""How a corpus is prepared: tasks that each make one shard of every split, run on all cores, resumable after any kill, repairable.

A plan holds all that the result depends on, so that neither the number of processes nor interruptions change it. Each task writes into
`.prepare/`; its shards move to their place when they are whole, and the manifest is written last.
"""

import dataclasses
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from data.errors import UserError
from data.files.manifest import SPLITS, shard_damage
from data.loading import journal
from data.loading.pool import run_tasks
from data.readers.documents import Skipped
from data.readers.inputs import exists

NAMES_KEPT = 100  # of what was left out, in a result


def carry_out(options, prepare: Callable[[Any], None], repair: Callable[[Any], None]) -> None:
    """Prepares or repairs, as the options say, in a folder that no other process may write meanwhile."""
    if options.repair:
        _check_repair(options)
    with journal.locked(options.output):
        (repair if options.repair else prepare)(options)


def prepare(folder: str, plan: dict, overwrite: bool, make: Callable[[], dict], manifest: str = "manifest.json") -> None:
    """Begins or finishes the preparation of a plan. make: does the tasks and returns the manifest; not called where there is one."""
    journal.begin(folder, plan, overwrite)
    if journal.read_json(folder, manifest) is None:
        journal.write_json(folder, manifest, make())
    journal.end(folder)


def read_plan(folder: str) -> dict:
    """The plan that a folder was prepared by. UserError where it is gone."""
    plan = journal.read_json(folder, "prepare.json")
    if plan is None:
        raise UserError(
            f"{folder}/prepare.json: missing; a repair needs it.",
            "Prepare the corpus again with its inputs and --overwrite.",
        )
    return plan


def find_damage(folder: str, manifest: dict, plan: dict, content: str) -> tuple[dict[str, dict], list[str]]:
    """The records of all shards by name, and the names of those that are missing or damaged. content: ending of the files beside indices.

    UserError where an input of the plan, which would be read again, is missing.
    """
    shards = {shard["file"]: shard for split in SPLITS for shard in manifest["splits"][split]["shards"]}
    damage = {name: problem for name, shard in shards.items() if (problem := shard_damage(folder, shard, content))}
    for problem in damage.values():
        print(f"{problem}; it is made again.")
    for path, _, _ in plan["files"]:
        if damage and not exists(path):
            raise UserError(f"{path}: missing; {folder} was made from it.", "Restore the input.")
    return shards, list(damage)


def remake(folder: str, shards: dict[str, dict], damaged: list[str], run: Callable[[list[int]], Any]) -> None:
    """Makes shards again. run: does tasks of these numbers; records other than those of `shards` must raise."""
    shutil.rmtree(os.path.join(folder, ".prepare"), ignore_errors=True)
    os.makedirs(os.path.join(folder, ".prepare"))
    run(sorted({int(name.split("-")[1]) for name in damaged}))
    journal.end(folder)
    print(f"{folder}: {len(damaged)} of {len(shards)} shards were damaged" + (", all are whole now." if damaged else "."))


def run(
    folder: str,
    numbers: Iterable[int],
    call: Callable[[int], tuple],
    function: Callable,
    *,
    workers: int,
    max_damaged: int | None,
    label: str,
    sizes: Sequence[int],
    suffixes: tuple[str, ...] = (),
    expected: dict[str, dict] | None = None,
    stage: str = "",
    shards: tuple[str, ...] = SPLITS,
) -> list[dict]:
    """The results of tasks, by their numbers: from the journal those that it has, the others by function(*call(number), report) now.

    A result holds the record of a shard under each name of `shards`, or None, and a list of what is damaged. The files of a shard, with
    these suffixes, come to their place when they are whole; one whose record is `expected` otherwise never does. sizes: bytes of tasks.
    stage: of a preparation in several, by which the journal knows its tasks.
    """
    numbers = list(numbers)
    results = {number: result for number in numbers if (result := journal.finished(folder, number, stage))}
    missing = [number for number in numbers if number not in results]
    damaged = [Skipped(*one) for result in results.values() for one in result["damaged"]]
    calls, total = [call(number) for number in missing], sum(sizes[number] for number in missing)
    for position, result in run_tasks(function, calls, workers, label, total):
        for one in result["damaged"]:
            damaged.append(Skipped(*one))
            check_damaged(damaged, max_damaged)
        number = missing[position]
        for record in filter(None, (result[shard] for shard in shards)):
            if expected is not None and expected.get(record["file"]) != record:
                raise changed(folder, record["file"])
        journal.keep(folder, number, result, suffixes, stage, shards)
        results[number] = result
    return [results[number] for number in numbers]


def check_damaged(damaged: list[Skipped], most: int | None) -> None:
    """Raises UserError when more is damaged than the user tolerates; None tolerates any number."""
    if most is not None and len(damaged) > most:
        last = damaged[-1]
        raise UserError(
            f"{last.name}: {last.reason} ({len(damaged)} damaged, {most} tolerated).",
            "Fix or remove it, or skip damaged documents with --max-damaged N.",
        )


def changed(folder: str, what: str) -> UserError:
    return UserError(
        f"{folder}: {what} comes out different: the inputs have changed.",
        "Restore the old inputs, or prepare them again with --overwrite.",
    )


# -------------------------------------------------------------------------------------------------------------- within a task


def shard_paths(folder: str, number: int, count: int) -> dict[str, str]:
    """{split: path, without an ending} of the shards that task `number` of `count` writes."""
    return {split: os.path.join(folder, ".prepare", f"{split}-{number:05d}-of-{count:05d}") for split in SPLITS}


def close_shards(writers: dict[str, Any], unit: str) -> dict[str, dict | None]:
    """{split: record of its shard with its name, or None where it has no `unit`}. writers: have a `path`, and `close` gives the record."""
    records = {split: {"file": os.path.basename(writer.path), **writer.close()} for split, writer in writers.items()}
    return {split: record if record[unit] else None for split, record in records.items()}


def count_name(counted: list, name: str) -> None:
    """Counts one more in [count, names], of which the first NAMES_KEPT are kept."""
    counted[0] += 1
    if counted[0] <= NAMES_KEPT:
        counted[1].append(name)


def add_up(counted: Iterable[list]) -> tuple[int, list[str]]:
    """All counts together, and the first names."""
    counted = list(counted)
    return sum(count for count, _ in counted), [name for _, names in counted for name in names][:NAMES_KEPT]


def some(names: Sequence[str]) -> str:
    """The first names, for a message."""
    return ", ".join(names[:3]) + (" and others" if len(names) > 3 else "")


def _check_repair(options) -> None:
    """UserError for options that are given beside `repair`: what was prepared says them."""
    free = ("output", "kind", "workers", "repair", "anonymize")
    given = [
        field.name for field in dataclasses.fields(options) if field.name not in free and getattr(options, field.name) != field.default
    ]
    if given:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise UserError(f"--repair uses the options of the first preparation; {names} would have no effect.", f"Leave {names} out.")
