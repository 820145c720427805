"""What the fields of records mean: named values, whose names mean the same in every format, in capitals or not.

Of a record:

    image, video, audio     a file's bytes or its path (from the folder of the manifest); {"bytes": ..., "path": ...} in Parquet
    path, file, file_name   the same; the kind comes from the file's ending or from the command
    text                    a text to read;   caption: one to be learned
    question, answer        a text to read, and one to be learned
    label, class, cls       the class: a name or a whole number; -1 is none
    parts                   the whole sample in its order: texts, or {"text": ...} and {"path"|"image"|"video"|"audio": ...}, where
                            "learned": true may stand beside a text
    conversations           as LLaVA has them, {"from": "human"|"gpt", "value": ...}: what gpt says is learned, all else read; <image>,
                            <video> and <audio> are where the media of the other fields stand
    split                   train or validation (also val, dev, test)
"""

import os
from collections.abc import Iterable
from typing import Any, NamedTuple

ENDINGS = {
    "image": (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp"),
    "video": (".mp4", ".webm", ".mkv", ".mov", ".m4v", ".avi", ".mpg", ".mpeg", ".3gp", ".ogv", ".wmv", ".flv"),
    "audio": (".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".m4a", ".aac", ".aif", ".aiff", ".wma"),
}
MEDIA = tuple(ending for endings in ENDINGS.values() for ending in endings)
BESIDE = (".txt", ".json")  # of the same name as a file of media: what is said of it
MOST_BYTES = 1 << 31  # of one file
MEDIA_FIELDS = ("image", "video", "audio", "path", "file", "file_name")
LABEL_FIELDS = ("label", "class", "cls")
TEXT_FIELDS = ("text", "caption", "question", "answer")
SAMPLE_FIELDS = ("parts", "conversations")
FIELDS = (*MEDIA_FIELDS, *LABEL_FIELDS, *TEXT_FIELDS, *SAMPLE_FIELDS, "split")


class Record(NamedTuple):
    """Named values, by our names; `folder` is where its paths begin."""

    name: str
    key: str
    folder: str
    fields: dict[str, Any]
    source: str  # the file that the names come from
    names: tuple[str, ...]  # theirs, as far as they are used
    unused: tuple[str, ...]  # the others


class Reading(NamedTuple):
    """How inputs are read: the medium that every sample must hold ("" for any), names of fields, classes and splits by folder."""

    kind: str
    fields: tuple[str, ...]  # OURS=THEIRS
    roots: tuple[str, ...]  # folders that --input names: what lies in a folder below is of its class
    by_folder: bool
    splits: tuple[tuple[str, str], ...] = ()  # (folder or file, train or validation) of those that are named by a split

    def ours(self, names: Iterable[str]) -> dict[str, str]:
        """{their name: ours} of the names that mean something. A name of ours that --fields assigns means nothing else."""
        given = {folded(theirs): _one_name(ours) for ours, _, theirs in (field.partition("=") for field in self.fields)}
        found = {}
        for name in names:
            own = folded(name)
            if own in given:
                found[name] = given[own]
            elif own in FIELDS and _one_name(own) not in given.values():
                found[name] = _one_name(own)
        return found

    def split_of(self, path: str) -> str | None:
        """The split that the name of a file or of its folder says."""
        return next((split for place, split in self.splits if path == place or path.startswith(place + os.sep)), None)

    def root_of(self, path: str) -> str | None:
        """The innermost folder of --input that a file or folder lies in."""
        return max((root for root in self.roots if path.startswith(root + os.sep)), key=len, default=None)

    def class_of(self, folder: str) -> str | None:
        """The class of the files in a folder: its name, or that of the folder above where its own names a split."""
        places = {place for place, _ in self.splits}
        while folder in places and self.root_of(folder):
            folder = os.path.dirname(folder)
        return None if folder in self.roots else os.path.basename(folder)


def folded(name: str) -> str:
    """The form in which names of fields are compared."""
    return name.strip("\ufeff").strip().casefold()


def _one_name(name):
    return "label" if name in LABEL_FIELDS else name


def kind_of(path: str) -> str | None:
    return next((kind for kind, endings in ENDINGS.items() if path.lower().endswith(endings)), None)


class Fields:
    """Collects the fields of one record from one or more files, by our names."""

    def __init__(self, reading):
        self.fields: dict[str, Any] = {}
        self._reading, self._from = reading, dict[str, str]()
        self._names: list[str] = []
        self.unused: list[str] = []

    def add(self, ours, value, theirs):
        """Sets a field. ValueError if it has another value already."""
        if ours in self.fields and str(self.fields[ours]) != str(value):  # a number of a .json is a text in a .cls
            raise ValueError(f"two that mean {ours}, and are not the same: {self._from.get(ours, ours)} and {theirs}")
        self.fields[ours], self._from[ours] = value, theirs

    def add_all(self, values):
        names = self._reading.ours(values)
        self._names += names
        self.unused += [name for name in values if name not in names]
        for theirs, ours in names.items():
            if values[theirs] is not None and values[theirs] != "":
                self.add(ours, values[theirs], theirs)

    def leave_out(self, *ours):
        """Drops fields that another source gives; they count as unused."""
        for name in ours:
            if self.fields.pop(name, None) is not None:
                self.unused.append(self._from[name])

    def record(self, name, key, folder, source):
        return Record(name, key, folder, self.fields, source, tuple(self._names), tuple(self.unused))


def record_of(name, key, folder, values, source, reading):
    """A record of named values: of a row, of an example. ValueError where two mean the same."""
    told = Fields(reading)
    told.add_all(values)
    return told.record(name, key, folder, source)
