"""Other hosts run what the engine of the first runs, in its order, and hold what it holds."""

import gc
import queue
import threading

import jax
import numpy as np

from model.decoding.sampling import Sampling
from serve.hosts import Leader, follow
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
