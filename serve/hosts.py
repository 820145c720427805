"""A server on several hosts: process 0 answers, and the others run what its engine runs, call for call."""

import dataclasses
import functools
import weakref
from collections.abc import Sequence
from typing import Any, Protocol

import jax
import numpy as np
from flax import serialization

from model.decoding.sampling import Sampling
from serve.jobs import Job
from serve.programs import Newcomer, Part, Programs

KEEPS = {
    "empty_rows": (True,),
    "bank": (True,),
    "read": (True, True),
    "read_whole": (True, True),
    "score": (True, True, False),
    "cut": (True,),
    "paste": (True,),
    "insert": (True,),
    "move": (True,),
    "set_bias": (True,),
    "go_on": (True, False),
    "take": (False,),
}
"""Calls of Programs, and which of their results stay on the devices to be used again; others are numbers to read."""
WAIT_MS = 60_000
END: dict[str, Any] = {"call": "", "arguments": [], "dropped": []}


class Line(Protocol):
    """How messages reach the other processes, in their order."""

    def send(self, message: bytes) -> None: ...

    def receive(self) -> bytes: ...


class Store:
    """A line through the store by which JAX's processes find each other: no further port, and none may write there who may not compute."""

    def __init__(self, client: Any = None) -> None:
        from jax._src import distributed  # it has no public name

        self._client = client or distributed.global_state.client
        self._count = self._agreed = 0

    def _key(self, process: int) -> str:
        return f"omnia/serve/{process}/{self._count}"

    def send(self, message: bytes) -> None:
        for process in range(1, jax.process_count()):
            self._client.key_value_set_bytes(self._key(process), message)
        self._count += 1

    def receive(self) -> bytes:
        key = self._key(jax.process_index())
        message = self._waited_for(key)
        self._client.key_value_delete(key)
        self._count += 1
        return message

    def _waited_for(self, key: str) -> bytes:
        while True:
            try:
                return self._client.blocking_key_value_get_bytes(key, WAIT_MS)
            except jax.errors.JaxRuntimeError as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise

    def agree(self, good: bool) -> bool:
        """Whether something is so on every process. Each must ask, and as often as the others."""
        own, places = jax.process_index(), [f"omnia/serve/agreed/{self._agreed}/{process}" for process in range(jax.process_count())]
        self._client.key_value_set_bytes(places[own], b"1" if good else b"0")
        found = [self._waited_for(place) == b"1" for place in places]
        if self._agreed:  # all have read what was said the time before, since they have said this
            self._client.key_value_delete(f"omnia/serve/agreed/{self._agreed - 1}/{own}")
        self._agreed += 1
        return all(found)


class Held:
    """Something that lies on the devices of all processes, known to the others by its number."""

    def __init__(self, value: Any, number: int, dropped: list[int]):
        self.value, self.number = value, number
        weakref.finalize(self, dropped.append, number)


class Leader:
    """Programs of process 0, with the same face: each call is told to the others first. For one thread."""

    def __init__(self, programs: Programs, line: Line):
        self._programs, self._line = programs, line
        self._count, self._dropped = 0, list[int]()

    def __getattr__(self, name: str) -> Any:
        return functools.partial(self._call, name) if name in KEEPS else getattr(self._programs, name)

    def end(self) -> None:
        """The others may go."""
        self._line.send(serialization.msgpack_serialize(END))

    def _call(self, name: str, *arguments: Any) -> Any:
        dropped = [self._dropped.pop() for _ in range(len(self._dropped))]
        told = {"call": name, "arguments": [_told(one) for one in arguments], "dropped": dropped}
        self._line.send(serialization.msgpack_serialize(told))
        found = getattr(self._programs, name)(*(one.value if isinstance(one, Held) else one for one in arguments))
        if len(KEEPS[name]) == 1:
            return self._hold(found) if KEEPS[name][0] else found
        return tuple(self._hold(one) if keep else one for one, keep in zip(found, KEEPS[name], strict=True))

    def _hold(self, value: Any) -> Held:
        self._count += 1
        return Held(value, self._count, self._dropped)


def follow(programs: Programs, line: Line) -> dict[int, Any]:
    """Run what process 0 runs until it ends. Returns what still lies on the devices, by its number."""
    held: dict[int, Any] = {}
    count = 0
    while True:
        told = serialization.msgpack_restore(line.receive())
        name = told["call"]
        if not name:
            return held
        for number in told["dropped"]:
            del held[number]
        found = getattr(programs, name)(*(_heard(one, held, programs) for one in told["arguments"]))
        for one, keep in zip((found,) if len(KEEPS[name]) == 1 else found, KEEPS[name], strict=True):
            if keep:
                count += 1
                held[count] = one


def _told(one: Any) -> Any:
    """An argument of a call as numbers, arrays, lists and dicts of those."""
    if isinstance(one, Held):
        return {"held": one.number}
    if isinstance(one, Part):
        return {"part": list(one)}
    if isinstance(one, list) and one and isinstance(one[0], Newcomer):
        return {"newcomers": [[place, row, _told_job(job)] for place, row, job in one]}
    if isinstance(one, dict):
        return {"parts": [[row, *part] for row, part in one.items()]}
    if one is None or isinstance(one, int | np.ndarray | list):
        return one
    return {"whole": [np.asarray(leaf) for leaf in jax.tree.leaves(one)]}


def _heard(one: Any, held: dict[int, Any], programs: Programs) -> Any:
    """What `_told` was given."""
    if not isinstance(one, dict):
        return one
    ((kind, told),) = one.items()
    if kind == "held":
        return held[told]
    if kind == "part":
        return Part(*told)
    if kind == "newcomers":
        return [Newcomer(place, row, _heard_job(job)) for place, row, job in told]
    if kind == "parts":
        return {row: Part(*part) for row, *part in told}
    assert programs.reader is not None
    return jax.tree.unflatten(jax.tree.structure(programs.reader.examples[0]), told)


def _told_job(job: Job) -> dict[str, Any]:
    wanted = {"seed": job.seed, "choice": job.choice, "most": job.most, "likeliest": job.likeliest, "ids": job.ids}
    return wanted | {"sampling": _lists(dataclasses.asdict(job.sampling))}


def _heard_job(told: dict[str, Any]) -> Job:
    sampling = Sampling(**{name: _tuples(value) for name, value in told.pop("sampling").items()})
    return Job(sampling=sampling, **told)


def _lists(one: Any) -> Any:
    if isinstance(one, dict):
        return {name: _lists(value) for name, value in one.items()}
    return [_lists(value) for value in one] if isinstance(one, Sequence) and not isinstance(one, str) else one


def _tuples(one: Any) -> Any:
    return tuple(_tuples(value) for value in one) if isinstance(one, list) else one
