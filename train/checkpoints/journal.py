"""Which checkpoints of a run exist, and whether their files are still what was saved. Needs no JAX.

checkpoints/<step>/                             the files that Orbax wrote, and nothing else
checkpoints/journal/<step>-<k>-of-<P>.json      process k's part of the step's manifest: size and digest of its share of those files

A step exists when all P parts of its manifest are there. They are written after Orbax has renamed the finished folder to its name, so
a folder without them is a save that died. No process waits for another to say so: whoever looks counts the parts.
"""

import dataclasses
import heapq
import json
import math
import re
import shutil
import threading
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import xxhash

from data.errors import UserError
from data.files.storage import sync_folder, write_atomically

FORMAT = 1
PART = re.compile(r"(\d+)-(\d+)-of-(\d+)\.json")
TEMPORARY = ".orbax-checkpoint-tmp"
"""In the name of a folder that Orbax has not finished."""
CHUNK_BYTES = 4 * 2**20
DIGEST_THREADS = 4
REMOVAL_SECONDS = 10


@dataclasses.dataclass(frozen=True)
class File:
    """A file of a step's folder: its path in there, size in bytes, and xxh3_128 of what it holds."""

    path: str
    bytes: int
    digest: str


@dataclasses.dataclass(frozen=True)
class Part:
    """What one process vouches for."""

    step: int
    part: int
    parts: int
    identity: str
    """Of the run (train/runs/directory.py); "" where it has none."""
    files: tuple[File, ...]
    good: bool = True
    """Whether whoever saved the step held its state for sound."""
    loss: float | None = None
    """Validation loss at this very step."""
    progress: dict | None = None
    """The loop's own bookkeeping, of part 0 alone, where it has moved on since the files were written."""

    @property
    def name(self) -> str:
        return f"{self.step}-{self.part}-of-{self.parts}.json"


@dataclasses.dataclass(frozen=True)
class Damage:
    """One difference between what was saved and what is there."""

    path: str
    """The file, from the folder of checkpoints on."""
    expected: str
    found: str
    leaf: str = ""
    """The array in the file, where it holds one."""

    def __str__(self) -> str:
        leaf = f" (array {self.leaf})" if self.leaf else ""
        return f"{self.path}{leaf}: expected {self.expected}, found {self.found}"


def encode(part: Part) -> bytes:
    """A part as the bytes of its file: JSON, with a digest of itself."""
    content = {"format": FORMAT} | dataclasses.asdict(part)
    if part.progress is None:
        del content["progress"]
    digest = xxhash.xxh3_128_hexdigest(json.dumps(content, sort_keys=True).encode())
    return (json.dumps({"digest": digest, "manifest": content}, indent=1) + "\n").encode()


def decode(content: bytes) -> Part:
    """What `encode` wrote; ValueError when a bit of it has changed, UserError when a newer version wrote it."""
    try:
        stored = json.loads(content)
        manifest = dict(stored["manifest"])
        whole = stored["digest"] == xxhash.xxh3_128_hexdigest(json.dumps(manifest, sort_keys=True).encode())
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a manifest: {error}") from None
    if not whole:
        raise ValueError("it is not what was written")
    if manifest.pop("format") != FORMAT:
        raise UserError("a checkpoint's manifest has another format than this version reads", "Update Omnia.")
    part = Part(**manifest | {"files": tuple(File(**file) for file in manifest["files"])})
    if encode(part) != content:
        raise ValueError("it is not what was written")
    return part


def digest_file(path: Path, read: Callable[[int], None] = lambda count: None) -> str:
    """xxh3_128 of a file; `read` is told of the bytes as they are read."""
    state, buffer = xxhash.xxh3_128(), memoryview(bytearray(CHUNK_BYTES))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            state.update(buffer[:count])
            read(count)
    return state.hexdigest()


def share(sizes: Mapping[str, int], part: int, parts: int) -> list[str]:
    """The files that one of `parts` processes reads: from the largest on, each goes to the process that has least to read."""
    loads = [(0, process) for process in range(parts)]
    mine = []
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        load, process = loads[0]
        heapq.heapreplace(loads, (load + sizes[name], process))
        if process == part:
            mine.append(name)
    return sorted(mine)


def files_below(folder: Path) -> dict[str, int]:
    """Path and size of every file in a folder and its folders."""
    return {path.relative_to(folder).as_posix(): path.lstat().st_size for path in folder.rglob("*") if not path.is_dir()}


def leaf_of(path: str) -> str:
    """The array that a file of a step holds: params/<array>/<chunk>; "" for the files beside the arrays."""
    names = path.split("/")
    return f"{names[0]}/{names[1]}" if len(names) > 2 else ""


class Journal:
    """The manifests beside the checkpoints of a run. `folder` is the run's folder of checkpoints; it need not exist yet."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._parts = folder / "journal"

    def step_folder(self, step: int) -> Path:
        return self.folder / str(step)

    # ---------------------------------------------------------------------------------------------------------- what there is

    def steps(self) -> list[int]:
        """The steps that exist, ascending."""
        return sorted(self._complete())

    def best(self) -> int | None:
        """The step of the best evaluation, the earliest of equals; None where none was evaluated."""
        parts = {step: self.first_part(step) for step in self.steps()}
        losses = [(part.loss, step) for step, part in parts.items() if part is not None and part.loss is not None]
        return min(losses)[1] if losses else None

    def unfinished(self) -> list[int]:
        """Steps that have a folder but not all parts of a manifest: saves that died. Ascending."""
        folders = [int(path.name) for path in self.folder.iterdir() if path.name.isdigit()] if self.folder.is_dir() else []
        return sorted(set(folders) - set(self._complete()))

    def written_by_another_version(self) -> bool:
        """Whether checkpoints lie there that no journal has ever known: the journal is made before the first folder of a step."""
        return bool(self.unfinished()) and not self._parts.is_dir()

    def first_part(self, step: int) -> Part | None:
        """The part that says whether the step is good, and its loss; None when it cannot be read."""
        parts = self._complete().get(step, 1)
        try:
            return decode((self._parts / f"{step}-0-of-{parts}.json").read_bytes())
        except (OSError, ValueError):
            return None

    def manifest(self, step: int) -> tuple[list[Part], list[Damage]]:
        """The parts of a step's manifest, and what is wrong with the parts themselves."""
        parts, damage = [], []
        count = self._complete().get(step, 1)
        for number in range(count):
            name = f"{step}-{number}-of-{count}.json"
            try:
                part = decode((self._parts / name).read_bytes())
                if part.name != name:
                    raise ValueError(f"it is {part.name}")
                parts.append(part)
            except (OSError, ValueError) as error:
                damage.append(Damage(f"journal/{name}", "a part of the step's manifest", f"none that is whole ({error})"))
        return parts, damage

    def _names(self) -> list[str]:
        return [path.name for path in self._parts.iterdir()] if self._parts.is_dir() else []

    def _complete(self) -> dict[int, int]:
        """The steps that exist, each with the number of parts of its manifest."""
        there: dict[tuple[int, int], set[int]] = {}
        for name in self._names():
            if found := PART.fullmatch(name):
                step, part, parts = map(int, found.groups())
                there.setdefault((step, parts), set()).add(part)
        return {step: parts for (step, parts), found in there.items() if found >= set(range(parts))}

    # ------------------------------------------------------------------------------------------------------------ what is whole

    def damage(
        self,
        step: int,
        *,
        items: Collection[str] | None = None,
        identity: str = "",
        part: int = 0,
        parts: int = 1,
        read: Callable[[int], None] = lambda count: None,
    ) -> list[Damage]:
        """Every difference between an existing step and its manifest. Reads all bytes of this process' share.

        items: only these parts of the state ("params", ...), and the files beside them. identity: the run that the step must be of.
        part, parts: which share of the work to do; the shares together find everything. read: is told of bytes as they are read.
        """
        manifest, damage = self.manifest(step)
        for one in manifest:
            if identity and one.identity and one.identity != identity:
                damage.append(Damage(f"journal/{one.name}", f"a checkpoint of the run {identity}", f"one of the run {one.identity}"))
        if damage:
            return damage

        def asked(path: str) -> bool:
            return items is None or "/" not in path or path.split("/")[0] in items

        expected = {file.path: file for one in manifest for file in one.files if asked(file.path)}
        folder = self.step_folder(step)
        if part == 0:
            strangers = sorted(path for path in files_below(folder) if asked(path) and path not in expected)
            damage += [Damage(f"{step}/{path}", "no such file", "one that was not saved", leaf_of(path)) for path in strangers]
        mine = share({path: file.bytes for path, file in expected.items()}, part, parts)
        lock = threading.Lock()

        def read_by_one(count: int) -> None:
            with lock:
                read(count)

        with ThreadPoolExecutor(DIGEST_THREADS) as threads:
            for found in threads.map(lambda path: self._file_damage(step, expected[path], read_by_one), mine):
                damage += found
        return damage

    def _file_damage(self, step: int, file: File, read: Callable[[int], None]) -> list[Damage]:
        path = self.step_folder(step) / file.path
        try:
            size = path.stat().st_size
            if size != file.bytes:
                expected, found = f"{file.bytes} bytes", f"{size}"
            else:
                expected, found = f"digest {file.digest}", digest_file(path, read)
                if found == file.digest:
                    return []
        except OSError as error:
            expected, found = f"{file.bytes} bytes", error.strerror or type(error).__name__
        return [Damage(f"{step}/{file.path}", expected, found, leaf_of(file.path))]

    # ---------------------------------------------------------------------------------------------------------------- changes

    def open(self) -> None:
        """Make the journal's folder, before the first step is saved."""
        self._parts.mkdir(parents=True, exist_ok=True)

    def record(self, step: int, *, part: int, parts: int, identity: str, good: bool, loss: float | None) -> None:
        """Write this process' part of the manifest of a step whose folder is finished."""
        folder = self.step_folder(step)
        sizes = files_below(folder)
        mine = share(sizes, part, parts)
        with ThreadPoolExecutor(DIGEST_THREADS) as threads:
            digests = threads.map(lambda path: digest_file(folder / path), mine)
            files = tuple(File(path, sizes[path], digest) for path, digest in zip(mine, digests, strict=True))
        sync_folder(str(self.folder))  # the folder's new name, before anything vouches for it
        self._write(Part(step, part, parts, identity, files, good, loss))

    def amend(self, step: int, *, good: bool, loss: float | None, progress: dict) -> None:
        """Replace what is said of a step that exists, and not what it holds: at once, or not at all."""
        part = self.first_part(step)
        if part is not None:
            self._write(dataclasses.replace(part, good=good, loss=loss, progress=progress))

    def _write(self, part: Part) -> None:
        if part.loss is not None and not math.isfinite(part.loss):
            part = dataclasses.replace(part, loss=None)
        write_atomically(str(self._parts / part.name), encode(part))

    def missing(self, step: int, parts: int) -> list[int]:
        """The processes whose part of a step's manifest is not there yet."""
        return [part for part in range(parts) if not (self._parts / f"{step}-{part}-of-{parts}.json").exists()]

    def remove(self, step: int) -> None:
        """Remove whatever there is of a step: first the parts of its manifest, so that half a folder is never taken for a checkpoint."""
        for name in self._names():
            if name.startswith(f"{step}-"):
                (self._parts / name).unlink(missing_ok=True)
        for path in (self.step_folder(step), self.folder / (str(step) + TEMPORARY)):
            _remove_folder(path)

    def clean(self) -> None:
        """Remove what dead saves left: unfinished folders and parts. Only whoever saves may call it, and not while it does."""
        complete = self._complete()
        for name in self._names():
            found = PART.match(name)
            if found and (name != found[0] or complete.get(int(found[1])) != int(found[3])):
                (self._parts / name).unlink(missing_ok=True)
        if not self.folder.is_dir():
            return
        for path in self.folder.iterdir():
            if (path.name.isdigit() and int(path.name) not in complete) or TEMPORARY in path.name:
                _remove_folder(path)


def _remove_folder(path: Path) -> None:
    """Remove a folder, also one into which the threads of a save that failed still write for a moment; OSError when it stays."""
    deadline = time.monotonic() + REMOVAL_SECONDS
    while path.exists():
        try:
            shutil.rmtree(path)
        except FileNotFoundError:
            continue
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def kept(steps: Mapping[int, Part | None], newest: int, every: int, best: int) -> set[int]:
    """The steps that stay: the `newest` newest, multiples of `every`, the `best` with the lowest loss, and the newest good one.

    steps: the first part of each one's manifest, None where it cannot be read. every, best: 0 for none.
    """
    ascending = sorted(steps)
    stay = set(ascending[-newest:] if newest else [])
    stay |= {step for step in ascending if every and step % every == 0}
    losses = [(part.loss, -step) for step, part in steps.items() if part is not None and part.loss is not None]
    stay |= {-step for _, step in sorted(losses)[:best]}
    good = [step for step, part in steps.items() if part is not None and part.good]
    return stay | ({max(good)} if good else set())
