"""Who may ask: keys with roles and limits, from a file that holds their digests alone."""

import dataclasses
import hashlib
import hmac
import secrets
import time
from pathlib import Path
from typing import Any

from data.errors import UserError
from data.files import json_files

ROLES = ("user", "observer", "admin")
"""user: asks; observer: reads metrics; admin: both."""
PREFIX = "omnia-"
_HOW = 'A file of keys is {"keys": [{"name", "sha256", "role", ...}]}; `omnia serve --new-key NAME --keys FILE` adds one.'


@dataclasses.dataclass(frozen=True)
class Key:
    """One who may ask. Limits of 0 are none."""

    name: str
    sha256: str
    role: str = "user"
    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    concurrent: int = 0
    context: int = 0

    def may(self, what: str) -> bool:
        return self.role == "admin" or {"ask": "user", "observe": "observer"}.get(what) == self.role


class Keys:
    """All keys of a file, and what each has used."""

    def __init__(self, keys: list[Key]):
        self._keys = keys
        self._buckets = {key.name: (_Bucket(key.requests_per_minute), _Bucket(key.tokens_per_minute)) for key in keys}
        self.running = dict.fromkeys((key.name for key in keys), 0)

    def find(self, secret: str) -> Key | None:
        """Compared with every key, in a time that tells nothing."""
        digest, found = hashlib.sha256(secret.encode()).hexdigest(), None
        for key in self._keys:
            if hmac.compare_digest(key.sha256, digest):
                found = key
        return found

    def begin(self, key: Key) -> float:
        """Charge a request: 0 where it may go on, and `end` is to be called, else seconds after which it may."""
        if key.concurrent and self.running[key.name] >= key.concurrent:
            return 1.0
        requests, _ = self._buckets[key.name]
        if (wait := requests.wait(1)) > 0:
            return wait
        requests.take(1)
        self.running[key.name] += 1
        return 0.0

    def end(self, key: Key) -> None:
        self.running[key.name] -= 1

    def take(self, key: Key, tokens: int) -> float:
        """Charge so many tokens: 0 where they may be read or drawn, else seconds after which they may."""
        _, used = self._buckets[key.name]
        if (wait := used.wait(min(tokens, key.tokens_per_minute))) > 0:
            return wait
        used.take(tokens)
        return 0.0

    def give_back(self, key: Key, tokens: int) -> None:
        """Tokens that were charged and not used."""
        self._buckets[key.name][1].take(-tokens)


class _Bucket:
    """So many a minute, a minute's worth at once at most. 0: any number."""

    def __init__(self, a_minute: int):
        self._rate, self._most, self._left, self._at = a_minute / 60, float(a_minute), float(a_minute), time.monotonic()

    def _fill(self) -> None:
        now = time.monotonic()
        self._left, self._at = min(self._most, self._left + (now - self._at) * self._rate), now

    def wait(self, count: float) -> float:
        if not self._most:
            return 0.0
        self._fill()
        return (count - self._left) / self._rate

    def take(self, count: float) -> None:
        if self._most:
            self._fill()
            self._left = min(self._most, self._left - count)


def read_keys(path: str) -> Keys:
    """UserError for a file that is no file of keys."""
    stored = json_files.read(Path(path), _HOW)
    rows = stored.get("keys") if isinstance(stored, dict) else None
    if not isinstance(rows, list) or not rows:
        raise UserError(f"{path}: holds no keys", _HOW)
    keys = [_key(row, f"{path}: key {place}") for place, row in enumerate(rows, 1)]
    if len({key.name for key in keys}) != len(keys):
        raise UserError(f"{path}: two keys have the same name", "Give each its own.")
    return Keys(keys)


def _key(row: Any, where: str) -> Key:
    known = {field.name: field.type for field in dataclasses.fields(Key)}
    if not isinstance(row, dict) or {*row} - {*known} or not {"name", "sha256"} <= {*row}:
        raise UserError(f"{where}: has fields other than {', '.join(known)}, or no name or sha256", _HOW)
    for name, value in row.items():
        if name in ("name", "sha256", "role"):
            if not isinstance(value, str):
                raise UserError(f"{where}: {name} is {value!r}", "Give a string.")
        elif not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise UserError(f"{where}: {name} is {value!r}", "Give a whole number, 0 for no limit.")
    key = Key(**row)
    if key.role not in ROLES:
        raise UserError(f"{where}: role is {key.role!r}", f"Choose from {', '.join(ROLES)}.")
    if len(key.sha256) != 64 or not key.name:
        raise UserError(f"{where}: sha256 is no digest, or the name is empty", _HOW)
    return key


def new_key(path: str, name: str) -> str:
    """Add a key of a name to a file, which is made where it is missing; the key itself is shown this once and stored nowhere."""
    file = Path(path)
    rows = json_files.read(file, _HOW)["keys"] if file.is_file() else []
    if any(row.get("name") == name for row in rows):
        raise UserError(f"{path}: has a key {name!r} already", "Choose another name, or remove that key from the file.")
    secret = PREFIX + secrets.token_urlsafe(24)
    json_files.write(file, {"keys": [*rows, {"name": name, "sha256": hashlib.sha256(secret.encode()).hexdigest(), "role": "user"}]})
    file.chmod(0o600)
    return secret
