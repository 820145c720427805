"""Texts and what is known of them, on disk while the work goes on: memory holds a batch, or pages that the system may drop."""

import bisect
import functools
import io
import mmap
import os
from collections.abc import Sequence

import numpy as np

from data.files import storage


class Writer:
    """Writes what one task found: names and texts one after another, and a row of columns for each text."""

    def __init__(self, folder: str, number: int):
        self._path = path_of(folder, number)
        self._texts = open(self._path + ".texts", "wb")  # noqa: SIM115
        self._names = open(self._path + ".names", "wb")  # noqa: SIM115
        self._ends: list[tuple[int, int]] = []
        self._columns: dict[str, list[np.ndarray]] = {}

    def add(self, names: Sequence[str], texts: Sequence[str], **columns: np.ndarray) -> None:
        """Texts with their names. columns: arrays with a row for each, or of events within texts, which say whose they are."""
        for name, text in zip(names, texts, strict=True):
            self._texts.write(text.encode())
            self._names.write(name.encode("utf-8", "backslashreplace"))
            self._ends.append((self._texts.tell(), self._names.tell()))
        for key, column in columns.items():
            self._columns.setdefault(key, []).append(column)

    def close(self) -> int:
        """Makes all durable; how many texts there are."""
        for file in (self._texts, self._names):
            file.flush()
            os.fsync(file.fileno())
            file.close()
        save(self._path + ".ends", np.array(self._ends, np.int64).reshape(-1, 2))
        for key, parts in self._columns.items():
            save(f"{self._path}.{key}", np.concatenate(parts))
        return len(self._ends)


class Texts:
    """Reads what the tasks wrote. Texts are numbered from 0 over all tasks, in the order of the input."""

    def __init__(self, folder: str, counts: Sequence[int]):
        self.folder, self.counts = folder, list(counts)
        self.first = np.concatenate([[0], np.cumsum(self.counts, dtype=np.int64)])
        self._begins = self.first.tolist()
        self._opened = functools.lru_cache(maxsize=256)(functools.partial(_open, folder))

    def __len__(self) -> int:
        return int(self.first[-1])

    def column(self, key: str, task: int) -> np.ndarray:
        """What one task wrote as that column, mapped into memory; an empty array has no rows."""
        return np.load(f"{path_of(self.folder, task)}.{key}.npy", mmap_mode="r") if self.counts[task] else np.zeros(0)

    def every(self, key: str) -> np.ndarray:
        """That column of all texts."""
        return np.concatenate([self.column(key, task) for task in range(len(self.counts)) if self.counts[task]])

    def text(self, number: int) -> str:
        return self._slice(number, 0).decode()

    def name(self, number: int) -> str:
        return self._slice(number, 1).decode()

    def _slice(self, number: int, kind: int) -> bytes:
        task = bisect.bisect_right(self._begins, number) - 1
        ends, contents = self._opened(task)
        row = number - self._begins[task]
        return contents[kind][int(ends[row - 1, kind]) if row else 0 : int(ends[row, kind])]


def path_of(folder: str, number: int) -> str:
    """The beginning of the names of what task `number` writes."""
    return os.path.join(folder, ".prepare", f"{number:05d}")


def save(path: str, values: np.ndarray) -> None:
    """An array in a file of NumPy's form, whole or not at all."""
    written = io.BytesIO()
    np.save(written, values, allow_pickle=False)
    storage.write_atomically(path + ".npy", written.getvalue())


def _open(folder, number):
    path = path_of(folder, number)
    return np.asarray(np.load(path + ".ends.npy", mmap_mode="r")), tuple(_mapped(f"{path}.{kind}") for kind in ("texts", "names"))


def _mapped(path):
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if os.path.getsize(path) else b""
