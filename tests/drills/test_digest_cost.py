"""What it costs to verify a checkpoint when it is written: digests of all files, beside the time that writing them takes."""

import statistics
import time

import jax
import pytest

from tests.train.checkpoints.states import IDENTITY, small_state
from train.checkpoints.checkpointer import Checkpointer
from train.checkpoints.journal import Journal
from train.experiment import Checkpoints

pytestmark = pytest.mark.slow
SAVES = 9


def test_digests_take_a_small_part_of_a_save(tmp_path, monkeypatch, capsys):
    """Random numbers, which do not compress; files as they are after a save, in the page cache."""
    record, spent = Journal.record, []

    def timed(*arguments, **options):
        began = time.monotonic()
        record(*arguments, **options)
        spent.append(time.monotonic() - began)

    monkeypatch.setattr(Journal, "record", timed)
    checkpointer = Checkpointer(tmp_path, Checkpoints(keep=1), identity=IDENTITY)
    state = small_state(0, size=1_000_000)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) / 1e6
    saves = []
    for step in range(1, SAVES + 1):
        one = state.replace(step=state.step + step)
        jax.block_until_ready(one)
        began = time.monotonic()
        checkpointer.save(one, {})
        checkpointer.wait()
        saves.append(time.monotonic() - began)
    checkpointer.close()
    assert Journal(tmp_path / "checkpoints").damage(SAVES) == []
    whole, digests = statistics.median(saves), statistics.median(spent)
    with capsys.disabled():
        print(
            f"\n{SAVES} saves of {size:.0f} MB: {1000 * whole:.0f} ms each, of which digests and manifest {1000 * digests:.0f} ms, "
            f"{digests / whole:.1%} (medians)"
        )
    assert 200 < size < 2000 and digests <= 0.05 * whole
