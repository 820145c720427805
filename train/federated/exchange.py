"""Rounds as a server runs them: who takes part, what each client owes now, and what came of it. Knows nothing of a network."""

import dataclasses
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from data.errors import UserError
from train.bridge.adapters import digest_of
from train.federated.added import Added
from train.federated.messages import Arrays, Malformed, checked, number, tree_of
from train.federated.options import Gathered
from train.federated.secure import SecureServer, fixed_point, from_fixed_point
from train.step.federated.options import LONGEST

LOSS_BOUND = 100.0
"""Larger losses count as so large where they are added unseen."""
ALONE = ("train",)
"""What a client does in a round: train and send its update."""
TOGETHER = ("keys", "shares", "train", "unmask")
"""The same where updates are added unseen."""
LEFT_AFTER = 60.0
"""Seconds without a word after which a client counts as gone."""


class Again(Exception):
    """A round came to nothing, and is tried again."""


@dataclasses.dataclass(frozen=True)
class Gain:
    """What a round brought. changes: of each client, [clients, ...]; or one alone, their mean, where they were added unseen. loss, weight:
    summed over clients; rejected: why updates were not used, by client."""

    changes: Arrays
    weights: np.ndarray
    loss: float
    weight: float
    clients: int
    rejected: dict[str, str]


@dataclasses.dataclass
class _Round:
    number: int
    params: Arrays
    members: tuple[str, ...]
    phase: int
    asks: dict[str, dict[str, Any]]
    """Of each client that is asked something in this phase: what."""
    sent: dict[str, dict[str, Any]]
    ends: float


class Exchange:
    """Between the thread that trains and those that answer clients."""

    def __init__(self, options: Gathered, shapes: Mapping[str, tuple[int, ...]], hello: Mapping[str, Any], added: Added | None = None):
        """shapes: of the parameters that travel. hello: what a client that joins is told; run: which server's run this is. added: what was
        added up unseen before."""
        self._options, self._shapes, self.hello = options, dict(shapes), dict(hello)
        self._run, self._added = str(hello.get("run", "")), added or Added()
        self._size = sum(int(np.prod(shape)) for shape in self._shapes.values())
        self._lock = threading.Condition()
        self._seen: dict[str, float] = {}
        self._round: _Round | None = None
        self._rejected: dict[str, str] = {}
        self._over = False

    # ------------------------------------------------------------------------------------------------------- clients' side

    def next(self, name: str, seconds: float) -> dict[str, Any]:
        """What a client owes: {"do", "round", ...}, {"do": "stop"} after the last round, or {"do": "wait"} after so many seconds."""
        ends = time.monotonic() + seconds
        with self._lock:
            while True:
                self._seen[name] = time.monotonic()
                self._lock.notify_all()
                if self._over:
                    self._seen.pop(name)
                    return {"do": "stop"}
                if (now := self._round) is not None and name in now.asks and name not in now.sent:
                    return now.asks[name]
                if (left := ends - time.monotonic()) <= 0:
                    return {"do": "wait"}
                self._lock.wait(min(left, 5.0))

    def alive(self, name: str) -> dict[str, Any]:
        """A client is at work."""
        with self._lock:
            self._seen[name] = time.monotonic()
        return {}

    def skip(self, name: str) -> dict[str, Any]:
        """A client cannot do what it is asked: nobody waits for it in this phase."""
        with self._lock:
            if self._round is not None:
                self._round.asks.pop(name, None)
            self._lock.notify_all()
        return {}

    def take(self, name: str, message: Mapping[str, Any]) -> bool:
        """A client's answer: False where nothing is waiting for it any more; Malformed for one that cannot be used."""
        with self._lock:
            self._seen[name] = time.monotonic()
            now = self._round
            if now is None or message.get("round") != now.number or name not in now.asks or message.get("did") != now.asks[name]["do"]:
                return False
            try:
                now.sent[name] = self._checked(message)
            except Malformed as error:
                self._rejected[name] = str(error)
                del now.asks[name]
                raise
            finally:
                self._lock.notify_all()
            return True

    def _checked(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """The part of an answer that is used."""
        did, o = message["did"], self._options
        if did in ("keys", "shares", "unmask"):
            found = message.get("bytes")
            if not isinstance(found, dict) or not all(isinstance(one, bytes) for one in found.values()):
                raise Malformed(f"{did}: no bytes by name")
            return found
        if o.secure:
            vector = message.get("vector")
            if not isinstance(vector, np.ndarray) or vector.dtype != np.uint32 or vector.shape != (self._size + EXTRA,):
                raise Malformed("train: no vector of the parameters' size")
            return {"vector": vector}
        change = checked(message.get("change"), self._shapes, "train")
        length = float(np.sqrt(sum(float(np.square(leaf, dtype=np.float64).sum()) for leaf in change.values())))
        if length > LONGEST:
            raise Malformed(f"train: the change is {length:.3g} long, and no update is longer than {LONGEST:g}")
        if o.clip and length > o.clip * (1 + 1e-4):
            raise Malformed(f"train: the change is {length:.3g} long, and at most {o.clip:g} is agreed")
        weight = number(message, "weight", 1e-6, o.most_weight)
        return {"change": change, "weight": weight, "loss": number(message, "loss", -1e9, 1e9)}

    # -------------------------------------------------------------------------------------------------------- trainer's side

    def close(self) -> None:
        """There are no more rounds: clients are told to stop."""
        with self._lock:
            self._over = True
            self._lock.notify_all()

    def say_goodbye(self, seconds: float) -> None:
        """After `close`: wait until all clients have been told, but not for longer than so many seconds."""
        ends = time.monotonic() + seconds
        with self._lock:
            while self._over and self._here() and time.monotonic() < ends:
                self._lock.wait(0.1)

    def _here(self) -> list[str]:
        return sorted(name for name, when in self._seen.items() if time.monotonic() - when < LEFT_AFTER)

    def round(self, number: int, params: Arrays, most: int, between: Callable[[], None]) -> Gain:
        """One round with at most so many clients, once enough are there. between: called now and then; it may raise. Again, where so few
        answered that nothing came of it."""
        o = self._options
        with self._lock:
            self._rejected = {}
            while len(self._here()) < o.network.least:
                self._wait(between)
            digest = digest_of(tree_of(params)) if o.secure else ""
            members = self._again(number, digest, between) or tuple(_turn(self._here(), number, most))
            self._round = _Round(number, params, members, 0, {}, {}, 0.0)
            try:
                return self._together(digest, between) if o.secure else self._alone(between)
            finally:
                self._round = None
                self._lock.notify_all()

    def _again(self, number: int, digest: str, between: Callable[[], None]) -> tuple[str, ...]:
        """The clients that a round was added up with before, once all are there; none after so many seconds."""
        ends = time.monotonic() + self._options.network.seconds
        for names in self._added.of(self._run, number, digest) if digest else ():
            while not names <= {*self._here()} and time.monotonic() < ends:
                self._wait(between)
            if names <= {*self._here()}:
                return tuple(sorted(names))
        return ()

    def _alone(self, between: Callable[[], None]) -> Gain:
        now = self._round
        assert now is not None
        sent = self._phase({name: self._training() for name in now.members}, between)
        if len(sent) < self._options.network.least:
            raise Again(f"round {now.number}: {len(sent)} of {len(now.members)} clients sent an update")
        names = sorted(sent)
        changes = {name: np.stack([sent[one]["change"][name] for one in names]) for name in self._shapes}
        weights = np.array([sent[one]["weight"] for one in names], np.float32)
        loss = sum(sent[one]["loss"] * sent[one]["weight"] for one in names)
        return Gain(changes, weights, float(loss), float(weights.sum()), len(names), dict(self._rejected))

    def _together(self, digest: str, between: Callable[[], None]) -> Gain:
        """Of the sum. Nobody is asked to help until it is certain whose it will be, that they are enough, and that this is kept."""
        now, o = self._round, self._options
        assert now is not None
        server = SecureServer(now.number, o.neighbours or len(now.members), self._size + EXTRA)
        try:
            keys = server.after_keys(self._phase({name: {} for name in now.members}, between))
            shares = server.after_shares(self._phase({name: {"keys": of} for name, of in keys.items()}, between))
            members = len(now.members)
            training = self._training() | {"clients": members, "among": sorted(shares), "run": self._run}
            asks = {name: training | {"shares": of} for name, of in shares.items()}
            vectors = {name: one["vector"] for name, one in self._phase(asks, between).items()}
        except (UserError, KeyError) as error:
            raise Again(f"round {now.number}: {error}") from None
        if len(vectors) < o.network.least:
            raise Again(f"round {now.number}: {len(vectors)} of {members} clients sent an update")
        among, asked = sorted(vectors), server.after_vectors(vectors)
        self._added.keep(self._run, now.number, digest, among)
        try:
            told = self._phase({name: {"survivors": a, "dropped": b, "among": among} for name, (a, b) in asked.items()}, between)
            total = from_fixed_point(server.sum(told), 1.0, members)
        except (UserError, KeyError) as error:
            raise Again(f"round {now.number}: {error}") from None
        if total[-2] <= 0:
            raise Again(f"round {now.number}: the updates weigh nothing")
        loss, weight = total[-1] * LOSS_BOUND * o.most_weight, total[-2] * o.most_weight
        mean, at, changes = (total[:-EXTRA] / total[-2] * o.clip).astype(np.float32), 0, {}
        for name, shape in self._shapes.items():
            size = int(np.prod(shape))
            changes[name] = mean[at : at + size].reshape(1, *shape)
            at += size
        return Gain(changes, np.ones(1, np.float32), float(loss), float(weight), len(vectors), dict(self._rejected))

    def _training(self) -> dict[str, Any]:
        assert self._round is not None
        return {"params": self._round.params}

    def _phase(self, asks: dict[str, dict[str, Any]], between: Callable[[], None]) -> dict[str, Any]:
        """What clients answer to what each is asked, until all have, or those that have not are gone, or time is over."""
        now = self._round
        assert now is not None
        what = (TOGETHER if self._options.secure else ALONE)[now.phase]
        now.asks = {name: ask | {"do": what, "round": now.number} for name, ask in asks.items()}
        now.sent, now.ends = {}, time.monotonic() + self._options.network.seconds
        now.phase += 1
        self._lock.notify_all()
        while ({*now.asks} - {*now.sent}) & {*self._here()} and time.monotonic() < now.ends:
            self._wait(between)
        sent, now.asks = dict(now.sent), {}
        return sent

    def _wait(self, between: Callable[[], None]) -> None:
        self._lock.wait(0.2)
        between()


EXTRA = 2
"""Numbers at the end of a vector: the client's weight, and its weight times its loss."""


def vector_of(change: Arrays, weight: float, loss: float, clients: int, options: Gathered, rng: np.random.Generator) -> np.ndarray:
    """A client's update as integers that can be added: weight * change / clip, weight and weight * loss, all from -1 to 1."""
    share = weight / options.most_weight
    parts = [change[name].ravel() / options.clip * share for name in change]
    tail = np.array([share, share * np.clip(loss / LOSS_BOUND, -1, 1)])
    return fixed_point(np.concatenate([*parts, tail]), 1.0, clients, rng)


def _turn(names: list[str], number: int, most: int) -> list[str]:
    """At most so many of the names, others in each round, all equally often."""
    first = number * most % len(names)
    return sorted((names[first:] + names[:first])[:most])
