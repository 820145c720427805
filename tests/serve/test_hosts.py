"""Other hosts run what the engine of the first runs, in its order, and hold what it holds."""

import gc
import queue
import threading
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np

from model.decoding.sampling import Sampling
from serve.hosts import Leader, Store, follow
from serve.jobs import Job
from serve.programs import Programs
from tests.serve.conftest import CHUNK, CONTEXT, run


class Local:
    """A line inside of one process."""

    def __init__(self):
        self._messages: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def send(self, message: bytes) -> None:
        self._messages.put(message)

    def receive(self) -> bytes:
        return self._messages.get(timeout=60)


class Values:
    """What JAX's processes find each other by, inside of one process."""

    def __init__(self):
        self._values, self._changed = {}, threading.Condition()

    def key_value_set_bytes(self, key: str, value: bytes) -> None:
        with self._changed:
            assert key not in self._values
            self._values[key] = value
            self._changed.notify_all()

    def blocking_key_value_get_bytes(self, key: str, milliseconds: int) -> bytes:
        with self._changed:
            assert self._changed.wait_for(lambda: key in self._values, 20), key
            return self._values[key]

    def key_value_delete(self, key: str) -> None:
        with self._changed:
            del self._values[key]


def test_hosts_agree_or_none_goes_on(monkeypatch):
    """What one of three cannot do, none does; and no answer of before is taken for one of now."""
    numbers, values = {}, Values()
    monkeypatch.setattr(jax, "process_index", lambda: numbers[threading.get_ident()])
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    stores = [Store(values) for _ in range(3)]
    wanted = [[True, True, False, True], [True, False, False, True], [True, True, True, True]]

    def ask(number: int) -> list[bool]:
        numbers[threading.get_ident()] = number
        return [stores[number].agree(good) for good in wanted[number]]

    with ThreadPoolExecutor(3) as threads:
        assert [*threads.map(ask, range(3))] == [[True, False, False, True]] * 3
    assert len(values._values) <= 6  # what was read is deleted


def some_jobs() -> list[Job]:
    bias = Sampling(temperature=0.7, top_p=0.9, bias=((65, 2.0),), stop_ids=(3, 4))
    scored = Job([9] * 40, Sampling(temperature=0.0), 0, 3, scored=True)
    return [*(Job(list(range(i, i + 3 * CHUNK)), bias, i, 12, choice=i) for i in range(3)), scored, Job([5], Sampling(), 0, 20)]


def test_a_follower_holds_what_the_leader_holds(make_engine, model, monkeypatch):
    monkeypatch.setattr("serve.programs.LEAST_PLACES", 32)
    newer = {7: jax.tree.map(lambda x: x * 1.5, model[1])}
    first, second = (Programs(*model, widths=(1, 4), size=CONTEXT, chunk=CHUNK, rows=2, newer=newer.get) for _ in range(2))
    line, held = Local(), {}
    leader = Leader(first, line)
    follower = threading.Thread(target=lambda: held.update(follow(second, line)), daemon=True)
    follower.start()
    with make_engine(widths=(1, 4)) as parts:
        expected = run(parts.engine, some_jobs())
        parts.engine.swap(newer[7])
        changed = run(parts.engine, some_jobs())
        parts.engine.swap(model[1])
    with make_engine(programs=leader) as parts:
        found = run(parts.engine, some_jobs())
        again = run(parts.engine, some_jobs())  # by stored chunks
        parts.engine.swap_to(6)  # which cannot be read: nothing changes
        still = run(parts.engine, some_jobs())
        parts.engine.swap_to(7)
        newest = run(parts.engine, some_jobs())
        assert len(parts.prefixes)
    leader.end()
    follower.join(60)
    assert not follower.is_alive()
    assert second.params is newer[7] and first.params is newer[7]
    assert [ids for ids, *_ in newest] == [ids for ids, *_ in changed] != [ids for ids, *_ in expected]
    assert [ids for ids, *_ in found] == [ids for ids, *_ in again] == [ids for ids, *_ in still] == [ids for ids, *_ in expected]
    engine = parts.engine
    ours = [engine._bank, engine._rows, *(held.chunk for held in parts.prefixes._held.values())]
    for one in ours:
        for leaf, theirs in zip(jax.tree.leaves(one.value), jax.tree.leaves(held[one.number]), strict=True):
            if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                leaf, theirs = jax.random.key_data(leaf), jax.random.key_data(theirs)
            np.testing.assert_array_equal(leaf, theirs)
    gc.collect()
    assert len(held) < len(ours) + 12, "what the leader has dropped is dropped with its next call"
