"""Secure aggregation: a server learns the sum of its clients' vectors and none of them.

Bonawitz et al. 2017, with sparse neighbours as in Bell et al. 2020. Every client adds to its vector a mask of its own and, for each of its
neighbours, one that the neighbour subtracts; all is exact modulo 2^32. What masks are made of is shared among the neighbours, so that those
of clients that drop out can be taken away: of a client that sent its vector the neighbours tell the shares of its own mask, of one that did
not those of its key, and never both. The server is trusted to follow the protocol, and may look at all that it sees; fewer of a client's
neighbours than `threshold_of` them may help it. A sum hides its vectors only as long as there is no other sum of nearly the same: see
train/federated/added.py.
"""

import dataclasses
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from data.errors import UserError
from train.federated.messages import Malformed

PRIME = 2**521 - 1
"""Shamir's field; secrets have 256 bits."""
SECRET_BYTES, SHARE_BYTES = 32, 66


# ------------------------------------------------------------------------------------------------------- numbers as integers


def fixed_point(values: np.ndarray, bound: float, clients: int, rng: np.random.Generator) -> np.ndarray:
    """uint32 integers modulo 2^32 of numbers in [-bound, bound], rounded at random so that their mean is right. The sum of as many as
    `clients` does not overflow."""
    scaled = np.clip(values.astype(np.float64) / bound, -1, 1) * _levels(clients)
    low = np.floor(scaled)
    return (low + (rng.random(scaled.shape) < scaled - low)).astype(np.int64).astype(np.uint32)


def from_fixed_point(total: np.ndarray, bound: float, clients: int) -> np.ndarray:
    """float64 numbers of a sum of such integers."""
    return total.astype(np.int32).astype(np.float64) / _levels(clients) * bound


def _levels(clients: int) -> int:
    return (2**31 - 1) // clients - 1


# -------------------------------------------------------------------------------------------------------------------- shares


def shared(secret: bytes, holders: int, threshold: int) -> list[bytes]:
    """Shares of a secret, of which any `threshold` tell it and fewer nothing (Shamir 1979); holder i's is the polynomial at i + 1."""
    coefficients = [int.from_bytes(secret), *(secrets.randbelow(PRIME) for _ in range(threshold - 1))]

    def at(x: int) -> int:
        value = 0
        for coefficient in reversed(coefficients):
            value = (value * x + coefficient) % PRIME
        return value

    return [at(holder + 1).to_bytes(SHARE_BYTES) for holder in range(holders)]


def joined(shares: Mapping[int, bytes], threshold: int) -> bytes:
    """The secret, of at least `threshold` shares by their holders' numbers, by Lagrange's interpolation at 0."""
    if len(shares) < threshold:
        raise UserError(f"secure aggregation: {len(shares)} of {threshold} shares are there", "The round is tried again.")
    points = [(holder + 1, int.from_bytes(share)) for holder, share in list(shares.items())[:threshold]]
    secret = 0
    for x, y in points:
        above, below = 1, 1
        for other, _ in points:
            if other != x:
                above, below = above * other % PRIME, below * (other - x) % PRIME
        secret = (secret + y * above * pow(below, -1, PRIME)) % PRIME
    if secret >= 1 << (8 * SECRET_BYTES):
        raise Malformed("shares of different secrets")
    return secret.to_bytes(SECRET_BYTES)


# --------------------------------------------------------------------------------------------------------------------- masks


def mask(seed: bytes, size: int) -> np.ndarray:
    """uint32 [size] that nobody can tell from random without the seed: ChaCha20's key stream."""
    stream = Cipher(algorithms.ChaCha20(seed, bytes(16)), mode=None).encryptor()
    return np.frombuffer(stream.update(bytes(4 * size)), "<u4")


def agreed(own: bytes, other: bytes, purpose: bytes) -> bytes:
    """32 bytes that two clients have in common (X25519, HKDF)."""
    common = X25519PrivateKey.from_private_bytes(own).exchange(X25519PublicKey.from_public_bytes(other))
    return HKDF(hashes.SHA256(), 32, None, purpose).derive(common)


def public(private: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def neighbours(names: Sequence[str], degree: int) -> dict[str, list[str]]:
    """Who masks with whom: each with the `degree` nearest on a ring in the given order, which should be one of chance; with all where
    there are no more. Being neighbours is mutual."""
    count = len(names)
    if degree >= count - 1:
        return {name: [other for other in names if other != name] for name in names}
    half = max(1, degree // 2)
    return {name: [names[(place + step) % count] for step in range(-half, half + 1) if step % count] for place, name in enumerate(names)}


def threshold_of(holders: int) -> int:
    """Shares that are needed: more than two thirds, so that a server cannot ask two halves for different things."""
    return 2 * holders // 3 + 1


# -------------------------------------------------------------------------------------------------------------------- client


@dataclasses.dataclass
class SecureClient:
    """One client's part in one round. Messages are dictionaries of bytes."""

    name: str
    round: int
    _box: bytes = dataclasses.field(default_factory=lambda: secrets.token_bytes(32))
    _key: bytes = dataclasses.field(default_factory=lambda: secrets.token_bytes(32))
    _own: bytes = dataclasses.field(default_factory=lambda: secrets.token_bytes(32))
    _neighbours: dict[str, dict[str, bytes]] = dataclasses.field(default_factory=dict)
    _held: dict[str, tuple[bytes, bytes]] = dataclasses.field(default_factory=dict)
    _told: dict[str, str] = dataclasses.field(default_factory=dict)

    def keys(self) -> dict[str, bytes]:
        """First: the public keys, of what the server passes on and of masks."""
        return {"box": public(self._box), "mask": public(self._key)}

    def shares(self, keys: Mapping[str, Mapping[str, bytes]]) -> dict[str, bytes]:
        """Second: for each neighbour, whose keys these are, the shares that it holds, which nobody else can read."""
        others = sorted(keys)
        if self.name in keys or len(others) < 2:
            raise Malformed(f"round {self.round}: {len(others)} neighbours are too few to hide among")
        if len({one["mask"] for one in keys.values()} | {public(self._key)}) <= len(others):
            raise Malformed(f"round {self.round}: two clients have one key")
        self._neighbours = {name: dict(keys[name]) for name in others}
        threshold = threshold_of(len(others))
        of_key, of_own = (shared(secret, len(others), threshold) for secret in (self._key, self._own))
        return {name: self._sealed(self.name, name).encrypt(bytes(12), of_key[at] + of_own[at], None) for at, name in enumerate(others)}

    def masked(self, vector: np.ndarray, sealed: Mapping[str, bytes]) -> np.ndarray:
        """Third: the vector, uint32, behind its masks. sealed: the shares that neighbours sent; those who sent none are left out by all."""
        if len(sealed) < threshold_of(len(self._neighbours)):
            raise Malformed(f"round {self.round}: {len(sealed)} of {len(self._neighbours)} neighbours are left, too few")
        found = vector + mask(self._own, len(vector))
        for name, content in sorted(sealed.items()):
            if name not in self._neighbours:
                raise Malformed(f"round {self.round}: {name} is no neighbour")
            try:
                both = self._sealed(name, self.name).decrypt(bytes(12), content, None)
            except InvalidTag:
                raise Malformed(f"round {self.round}: the shares of {name} were changed on their way") from None
            self._held[name] = both[:SHARE_BYTES], both[SHARE_BYTES:]
            between = mask(agreed(self._key, self._neighbours[name]["mask"], self._purpose(b"mask")), len(vector))
            found = found + between if self.name < name else found - between
        return found

    def unmask(self, survivors: Iterable[str], dropped: Iterable[str]) -> dict[str, bytes]:
        """Last: shares of the own masks of neighbours that sent their vectors, and of the keys of those that did not."""
        asked = dict.fromkeys(survivors, "own") | dict.fromkeys(dropped, "key")
        if {*survivors} & {*dropped} or any(self._told.get(name, what) != what for name, what in asked.items()):
            raise Malformed(f"round {self.round}: the server asks for both secrets of a client, which would show its vector")
        if not {*asked} <= {*self._held}:
            raise Malformed(f"round {self.round}: the server asks for shares of others than neighbours")
        if sum(what == "own" for what in asked.values()) + 1 < threshold_of(len(self._neighbours)):
            raise Malformed(f"round {self.round}: too few neighbours sent their vectors to hide among")
        self._told |= asked
        return {name: self._held[name][1 if what == "own" else 0] for name, what in asked.items()}

    def _sealed(self, sender: str, reader: str) -> ChaCha20Poly1305:
        """A box for one message: its key is of this round and this direction, so a nonce of zeros is used once."""
        other = self._neighbours[reader if sender == self.name else sender]["box"]
        return ChaCha20Poly1305(agreed(self._box, other, self._purpose(f"shares {len(sender)} {sender} {reader}".encode())))

    def _purpose(self, what: bytes) -> bytes:
        return b"omnia federated " + self.round.to_bytes(8) + what


# -------------------------------------------------------------------------------------------------------------------- server


@dataclasses.dataclass
class SecureServer:
    """The server's part in one round: what it passes on, and the sum. Each step takes what clients sent, by their names."""

    round: int
    degree: int
    size: int
    """Numbers of a vector."""
    keys: dict[str, dict[str, bytes]] = dataclasses.field(default_factory=dict)
    graph: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    senders: list[str] = dataclasses.field(default_factory=list)
    survivors: list[str] = dataclasses.field(default_factory=list)
    _total: Any = None

    def after_keys(self, keys: Mapping[str, Mapping[str, bytes]]) -> dict[str, dict[str, dict[str, bytes]]]:
        """For each client its neighbours' keys. Malformed for a key that is none."""
        for name, both in keys.items():
            if {*both} != {"box", "mask"} or any(not isinstance(key, bytes) or len(key) != SECRET_BYTES for key in both.values()):
                raise Malformed(f"{name}: no keys")
        self.keys = {name: dict(both) for name, both in keys.items()}
        names = sorted(keys)
        secrets.SystemRandom().shuffle(names)
        self.graph = {name: sorted(others) for name, others in neighbours(names, self.degree).items()}
        return {name: {other: self.keys[other] for other in others} for name, others in self.graph.items()}

    def after_shares(self, sent: Mapping[str, Mapping[str, bytes]]) -> dict[str, dict[str, bytes]]:
        """For each client that sent shares to all its neighbours, those that they sent it."""
        sent = {name: shares for name, shares in sent.items() if {*shares} == {*self.graph[name]}}
        self.senders = sorted(sent)
        return {name: {other: sent[other][name] for other in self.graph[name] if other in sent} for name in self.senders}

    def after_vectors(self, vectors: Mapping[str, np.ndarray]) -> dict[str, tuple[list[str], list[str]]]:
        """For each client that sent its vector: the neighbours that did too, and those that did not."""
        self.survivors = sorted(vectors)
        total = np.zeros(self.size, np.uint32)
        for name in self.survivors:
            total += vectors[name]
        self._total = total
        both = {name: [other for other in self.graph[name] if other in self.senders] for name in self.survivors}
        return {name: ([one for one in of if one in vectors], [one for one in of if one not in vectors]) for name, of in both.items()}

    def sum(self, told: Mapping[str, Mapping[str, bytes]]) -> np.ndarray:
        """The sum of the survivors' vectors, uint32 modulo 2^32; UserError where too few neighbours of one told their shares."""
        total = self._total.copy()
        for name in self.senders:
            holders = self.graph[name]
            said = {place: told[holder].get(name, b"") for place, holder in enumerate(holders) if holder in told}
            shares = {place: share for place, share in said.items() if len(share) == SHARE_BYTES}
            if name not in self.survivors and not any(other in self.survivors for other in holders):
                continue  # nobody masked with it
            secret = joined(shares, threshold_of(len(holders)))
            if name in self.survivors:
                total -= mask(secret, self.size)
                continue
            if public(secret) != self.keys[name]["mask"]:
                raise Malformed(f"the shares of {name} do not give its key")
            for other in holders:
                if other in self.survivors:
                    purpose = b"omnia federated " + self.round.to_bytes(8) + b"mask"
                    between = mask(agreed(secret, self.keys[other]["mask"], purpose), self.size)
                    total = total - between if other < name else total + between
        return total
