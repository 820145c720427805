"""The manifest of a prepared directory, written last: without it there is no corpus. And whether shards are as it says."""

import json
import os
from collections.abc import Callable

import xxhash

from data.errors import MissingData, UserError
from data.files import json_files, storage

SPLITS = ("train", "validation")
FAILS_DIGEST = "fails its digest (the file is damaged or was changed after preparation)"


def read_manifest(folder: str, newest: int, check: Callable[[dict], None], digest: Callable[[dict], str], prepare: str) -> dict:
    """The manifest of a folder, which is local or an fsspec address. UserError where it is missing, damaged or of a newer format.

    newest: the latest format that can be read. check: raises UserError for a corpus of another kind. digest: gives what `digest` in the
    manifest must be. prepare: the command that makes such a corpus.
    """
    path = storage.join(folder, "manifest.json")
    content = storage.read_bytes(path)
    if content is None:
        raise MissingData(
            f"{path}: missing; {folder} is no prepared corpus, or its preparation has not finished.",
            f"Run `{prepare}`; the same command again goes on where it stopped.",
            folder,
        )
    try:
        manifest = json_files.parse(content)
        check(manifest)
        if manifest["format"] > newest:
            raise UserError(
                f"{path}: format {manifest['format']}, newer than this program's {newest}.",
                "Use a newer version of Omnia, or prepare the corpus again.",
            )
        if manifest["digest"] != digest(manifest):
            raise ValueError("its digest does not match")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: damaged ({error}).", "Copy the file again, or prepare the corpus again with --overwrite.") from None
    return manifest


def content_digest(manifest: dict, keys: tuple[str, ...]) -> str:
    """A digest of some of a manifest: of what says what the corpus holds, without what says how it was made."""
    return xxhash.xxh3_128_hexdigest(json.dumps({key: manifest[key] for key in keys}, sort_keys=True).encode())


def check_split(folder: str, splits: dict, name: str, unit: str) -> None:
    """UserError unless the split has any `unit` (documents, samples)."""
    if not splits.get(name, {}).get(unit):
        raise UserError(
            f"{folder}: no {unit} in the split {name!r}; there are {', '.join(repr(key) for key, value in splits.items() if value[unit])}.",
            "Choose one of them, or prepare the corpus with another --validation fraction.",
        )


def totals(shards: list[dict], keys: tuple[str, ...]) -> dict[str, int]:
    """The sums of what the records of shards count."""
    return {key: sum(shard[key] for shard in shards) for key in keys}


def read_index(path: str, shard: dict, repair: str, size: int | None = None) -> bytes:
    """The index of a shard, verified. shard: its record. size: its bytes, where they are known. repair: the command that makes it again."""
    content = storage.read_bytes(path)
    if content is None:
        problem = "missing"
    elif size not in (None, len(content)) or xxhash.xxh3_128_hexdigest(content) != shard["index_digest"]:
        problem = FAILS_DIGEST
    else:
        return content
    raise UserError(f"{path}: {problem}.", f"Copy the file again, or run {repair}.")


def shard_damage(folder: str, shard: dict, content: str = ".tokens") -> str | None:
    """Reads a local shard from end to end; says what is wrong with it, if anything. content: ending of the file beside its index."""
    for suffix, key in ((content, "digest"), (".index", "index_digest")):
        state, path = xxhash.xxh3_128(), os.path.join(folder, shard["file"] + suffix)
        try:
            with open(path, "rb") as file:
                while chunk := file.read(1 << 22):
                    state.update(chunk)
        except FileNotFoundError:
            return f"{path}: missing"
        if state.hexdigest() != shard[key]:
            return f"{path}: fails its digest"
    return None
