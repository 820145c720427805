"""Public files that tables read: looked for in a folder of the user's, else downloaded, and used only where they are the ones meant."""

import dataclasses
import gzip
import hashlib
import io
import os
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data.errors import UserError
from data.files import json_files, storage

LARGEST = 1 << 30
"""Bytes that a download, or what it unpacks to, may have."""


@dataclasses.dataclass(frozen=True)
class PublicFile:
    """A file that anybody can have."""

    name: str
    """As commands call it: {name}."""
    path: str
    """Where it lies in a folder of data sets, packed as `path`.gz or not."""
    sha256: str = ""
    """Of the content, unpacked. Empty: a file of the user's own, with any content."""
    url: str = ""
    """Where it can be had; packed if it ends in .gz."""


def find(file: PublicFile, folder: str | None) -> Path:
    """The unpacked file: in `folder`, or in the cache, where it is unpacked or downloaded once.

    UserError where it is not to be had, or is another file than the table means.
    """
    if not file.sha256:
        return _own(file, folder)
    cached = _kept(file, file.sha256)
    if cached.is_file() and _digest(cached.read_bytes()) == file.sha256:
        return cached
    mend = f"Give the folder that holds {file.path} (or {file.path}.gz) by --data DIR" + (f", or download {file.url}." if file.url else ".")
    if folder is not None:
        if not Path(folder).is_dir():
            raise UserError(f"{folder}: no such folder", mend)
        for path in (Path(folder) / file.path, Path(folder) / f"{file.path}.gz"):
            if path.is_file():
                content = _unpacked(path.read_bytes(), str(path))
                _check(file, content, str(path), mend)
                return path.absolute() if path.suffix != ".gz" else _keep(cached, content)
    if not file.url:
        raise UserError(f"{file.path}: not found" + (f" in {folder}" if folder else ""), mend)
    print(f"downloading {file.url}", flush=True)
    content = _unpacked(_download(file.url, mend), file.url)
    _check(file, content, file.url, mend)
    return _keep(cached, content)


def _own(file: PublicFile, folder: str | None) -> Path:
    """A copy in the cache, whose path says what it holds: rows measured on another content are not taken for those of this one."""
    there = [] if folder is None else [path for end in ("", ".gz") if (path := Path(folder) / f"{file.path}{end}").is_file()]
    if not there:
        raise UserError(f"{file.path}: not found" + (f" in {folder}" if folder else ""), "Give the folder that holds yours: --data DIR.")
    content = _unpacked(there[0].read_bytes(), str(there[0]))
    return _keep(_kept(file, _digest(content)), content)


def _kept(file: PublicFile, digest: str) -> Path:
    return _cache() / digest[:16] / Path(file.path).name


def _cache() -> Path:
    folder = storage.cache_folder()
    return Path(folder if folder and storage.can_write(folder) else tempfile.gettempdir()) / "tables"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _check(file: PublicFile, content: bytes, where: str, mend: str) -> None:
    if (found := _digest(content)) != file.sha256:
        raise UserError(f"{where}: is not the file that the table means (SHA-256 {found[:12]}..., expected {file.sha256[:12]}...)", mend)


def _unpacked(content: bytes, where: str) -> bytes:
    if content[:2] != b"\x1f\x8b":
        return content
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
            unpacked = file.read(LARGEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{where}: {error}", "The file is damaged: get it again.") from None
    if len(unpacked) > LARGEST:
        raise UserError(f"{where}: unpacks to more than {LARGEST >> 30} GiB", "It is not the file that the table means.")
    return unpacked


def _download(url: str, mend: str) -> bytes:
    import urllib.request

    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            content = answer.read(LARGEST + 1)
    except (OSError, ValueError) as error:
        raise UserError(f"{url}: {error}", mend) from None
    if len(content) > LARGEST:
        raise UserError(f"{url}: has more than {LARGEST >> 30} GiB", mend)
    return content


def _keep(path: Path, content: bytes) -> Path:
    os.makedirs(path.parent, exist_ok=True)
    storage.write_atomically(str(path), content)
    return path


SHAKESPEARE = PublicFile(
    "shakespeare_txt",
    "tinyshakespeare/input.txt",
    "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    "https://raw.githubusercontent.com/karpathy/char-rnn/6f9487a/data/tinyshakespeare/input.txt",
)
DIALOGUES = (
    PublicFile("dialogues", "dialogsum/dev.jsonl", "436721e0a3571eef7072964f80e042fb151d8c6178db1a688ce8f803bbf0a13f"),
    PublicFile("other_dialogues", "dialogsum/test_000-399.jsonl", "f915cc87c2fe30423bd78f6ff2ebbbacf8c36ea5a1891802b747496ddda4a7a9"),
)
"""Dialogues with summaries (Chen et al. 2021, DialogSum, CC BY-NC-SA 4.0)."""
TALES = (
    PublicFile("tales", "applications/fairytaleqa/train.jsonl", "cc7f51d9f58e23c3dd40b9fd1a263a05c748e9d8ced6a02534675ac6b0d593f5"),
    PublicFile("other_tales", "applications/fairytaleqa/test.jsonl", "620c17b59b596cbfd978a60b84e26f4568ebc6a2dd37eb7e7307ba8124c37b18"),
)
"""Tales by sections with questions of teachers (Xu et al. 2022, FairytaleQA, Apache-2.0)."""
ARTICLES = PublicFile("articles", "xquad/xquad.en.articles_00-37.json", "11ce4ba98cfb0c88ea475491c52e8d3951bb3d40f34fd5d81d3dc70e7a2af268")
"""Articles of SQuAD with questions, which are there in other languages, too (Artetxe et al. 2020, XQuAD, CC BY-SA 4.0)."""
SESSIONS = (
    PublicFile("sessions", "applications/crd3/train.jsonl", "04f326d9d22afc7c84f6b1295366fbd10a13ef77b88bf6fe74704127e64afe90"),
    PublicFile("other_sessions", "applications/crd3/test.jsonl", "389ad21fb3828dc1c0d9662e8b172af2aa896839a77672626c70048b341032de"),
)
"""Turns of a role-play with the summaries that its fans wrote (Rameshkumar and Bailey 2020, CRD3, CC BY-SA 4.0)."""
POSTS = (
    PublicFile(
        "posts_train", "applications/airline_stream/train.jsonl", "2498773e20074c1ffc8f552419695c5064e2a31f647be7379916ae4648cfa695"
    ),
    PublicFile("posts_test", "applications/airline_stream/test.jsonl", "351fcad79b30bd555b4e14c47c0cee30a417ef103af9a1d1602db486419d88e4"),
)
"""Posts to five airlines and how the writers feel (CrowdFlower 2015), the test part of later days."""


def rows_of(path: str | Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines, as tables' scripts read public files and what `omnia apply` wrote."""
    return [json_files.parse(line) for line in Path(path).read_bytes().splitlines()]


def spread(rows: Sequence[Any], count: int) -> list[Any]:
    """So many of them at most, from all over: files may have theirs in order of labels, or of what they are about."""
    return [rows[place * len(rows) // count] for place in range(count)] if count < len(rows) else list(rows)
