"""The journal of a preparation: one at a time in a folder, begun by a plan, its finished tasks kept over any kill.

In the output folder `prepare.json` is the plan, `.prepare/` the journal of finished tasks while the work goes on, the manifest the end
of it: `manifest.json` of a corpus, `clean.json` of cleaned documents.
"""

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Iterator

from data.errors import UserError
from data.files import json_files, storage
from data.files.manifest import SPLITS

MANIFESTS = ("manifest.json", "clean.json")
_OURS = re.compile(
    r"(train|validation)-\d{5,}-of-\d{5,}\.(tokens|array_record|index)|documents-\d{5,}-of-\d{5,}\.jsonl\.zst|removed\.jsonl"
    r"|(manifest|clean|prepare)\.json"
)
_OUR_FOLDERS = (".prepare", ".plans", "tokenizer")


@contextlib.contextmanager
def locked(folder: str) -> Iterator[None]:
    """The folder, made if it is not there, for this process alone. Faults of the file system inside become UserError."""
    if not folder:
        raise UserError("no output given.", "Name a folder after --output.")
    try:
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, ".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
    except BlockingIOError:
        raise UserError(f"{folder}: another preparation is writing there.", "Wait for it to end.") from None
    except OSError as error:  # no room, no permission, an input that vanished
        raise UserError(
            f"{error.filename or folder}: {error.strerror or error}.",
            "Fix this and run the same command again: it continues.",
        ) from error


def begin(folder: str, plan: dict, overwrite: bool) -> None:
    """Starts a preparation by its plan, or goes on with the same one; UserError where something else lies there."""
    if overwrite:
        _clear(folder)
    earlier = read_json(folder, "prepare.json")
    if earlier is None:
        strangers = [name for name in os.listdir(folder) if name != ".lock"]
        if strangers:
            raise UserError(
                f"{folder}: not empty ({strangers[0]} ...), and not the start of a preparation.",
                "Choose another --output, or --overwrite, which removes the files of a corpus only.",
            )
        write_json(folder, "prepare.json", plan)
    elif earlier != plan and not _has_begun(folder):
        write_json(folder, "prepare.json", plan)  # nothing was made by the other plan: whatever was wrong with it is mended
    elif earlier != plan:
        raise UserError(
            f"{folder}: holds a preparation with {_difference(earlier, plan)}.",
            "Use the same inputs and options, another --output, or --overwrite.",
        )
    if not _has_ended(folder):
        os.makedirs(os.path.join(folder, ".prepare"), exist_ok=True)


def _has_begun(folder: str) -> bool:
    """Whether any task of the folder's plan is finished, or all are. A tokenizer alone is made again if it must be."""
    journal = os.path.join(folder, ".prepare")
    finished = os.path.isdir(journal) and any(re.fullmatch(r"([a-z]+-)?\d+\.json", name) for name in os.listdir(journal))
    return finished or _has_ended(folder)


def _has_ended(folder: str) -> bool:
    return any(os.path.exists(os.path.join(folder, manifest)) for manifest in MANIFESTS)


def end(folder: str) -> None:
    shutil.rmtree(os.path.join(folder, ".prepare"), ignore_errors=True)


def finished(folder: str, number: int, stage: str = "") -> dict | None:
    """The result of a task, if the journal has it. stage: of a preparation in several, such as "scan-"."""
    return read_json(folder, f".prepare/{stage}{number:05d}.json")


def keep(folder: str, number: int, result: dict, suffixes: tuple[str, ...], stage: str = "", shards: tuple[str, ...] = SPLITS) -> None:
    """Brings the whole shards of a task, whose records are under `shards` in its result, to their place, and that into the journal."""
    for record in filter(None, (result[shard] for shard in shards)):
        for suffix in suffixes:
            os.replace(os.path.join(folder, ".prepare", record["file"] + suffix), os.path.join(folder, record["file"] + suffix))
    storage.sync_folder(folder)
    write_json(folder, f".prepare/{stage}{number:05d}.json", result)


def read_json(folder: str, name: str):
    """The object in a file of the folder; None where there is none. UserError where it is damaged."""
    path = os.path.join(folder, name)
    return json_files.read(path, "Prepare it again with --overwrite.") if os.path.exists(path) else None


def write_json(folder: str, name: str, content) -> None:
    json_files.write(os.path.join(folder, name), content)


def _clear(folder):
    """Removes what a preparation writes, the manifest first."""
    for name in sorted(os.listdir(folder)):
        if _OURS.fullmatch(name):
            os.unlink(os.path.join(folder, name))
        elif name in _OUR_FOLDERS:
            shutil.rmtree(os.path.join(folder, name))


def _difference(earlier, plan):
    """What two plans disagree in; inputs first, since some options are derived from them."""
    before, now = ({file[0]: file for file in one.get("files", [])} for one in (earlier, plan))
    others = [path for path in sorted({**before, **now}) if before.get(path) != now.get(path)]
    if others:
        return f"other inputs ({others[0]} was added, removed or changed)"
    for key, value in plan["options"].items():
        if earlier.get("options", {}).get(key) != value:
            return f"{key} = {earlier.get('options', {}).get(key)!r}, not {value!r}"
    if earlier.get("packages") and plan.get("packages") and earlier["packages"] != plan["packages"]:
        return f"{', '.join(earlier['packages'])}, not {', '.join(plan['packages'])}"
    return "another plan (of another version)"
