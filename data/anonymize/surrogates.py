"""What stands in place of a name or number: the same for the same, as long as the key is the same."""

import base64
import functools
import hashlib
import hmac
import re
import secrets
import unicodedata
from pathlib import Path

from data.errors import UserError

LENGTH = 8
"""Letters of a surrogate: two of a hundred thousand values are the same with a probability of 0.005."""
SURROGATE = re.compile(rf"\[[A-Z][A-Z_]{{1,15}}:[A-Z]{{{LENGTH}}}\]")
"""What a text has where something was replaced. Digits are left out, so that no pattern finds a number in it."""
_LETTERS = str.maketrans("234567", "BCDFGH")


class Key:
    """The secret of a corpus, 32 bytes. Without it nobody can try all numbers of telephones to see which is meant."""

    def __init__(self, secret: bytes):
        self._secret = secret
        self.surrogate = functools.lru_cache(maxsize=1 << 16)(self._surrogate)

    def __reduce__(self):
        return Key, (self._secret,)  # to the processes of a preparation; it is never written

    @classmethod
    def drawn(cls) -> "Key":
        """A key that nobody keeps: surrogates of another corpus will be others."""
        return cls(secrets.token_bytes(32))

    @classmethod
    def read(cls, path: str, option: str = "--key-file") -> "Key":
        """The key in a file of at least 16 bytes; UserError for another."""
        if not Path(path).is_file():
            how = f"Make one: head -c 32 /dev/urandom > {path}; chmod 600 {path}"
            raise UserError(f"{option} {path}: no such file", how)
        content = Path(path).read_bytes()
        if len(content) < 16:
            raise UserError(f"{option} {path}: has {len(content)} bytes, which can be guessed", "Give one of 32 random bytes.")
        return cls(content)

    @property
    def fingerprint(self) -> str:
        """Tells two keys apart, and says nothing of either."""
        return hmac.new(self._secret, b"fingerprint", hashlib.sha256).hexdigest()[:16]

    def share(self, value: str) -> float:
        """A number in [0, 1), the same for the same value."""
        return int.from_bytes(hmac.new(self._secret, f"share\0{value}".encode(), hashlib.sha256).digest()[:6]) / 2**48

    def _surrogate(self, kind: str, value: str) -> str:
        """`[KIND:LETTERS]`; for values that differ in their writing alone the same."""
        plain = "".join(one for one in unicodedata.normalize("NFKC", value).casefold() if one.isalnum() or one in "@.")
        digest = hmac.new(self._secret, f"{kind}\0{plain}".encode(), hashlib.sha256).digest()
        return f"[{kind}:{base64.b32encode(digest).decode().translate(_LETTERS)[:LENGTH]}]"
