"""The `omnia` command with something done to it: `python -m tests.drills.worker WHAT[,WHAT] -- omnia's arguments`.

phases=FILE     byte i of FILE is 1 while the process is in PHASES[i]; after them, as ten digits, the last step begun
record=FILE     append the numbers of the rows that are trained on, as each process sees its own, to FILE.PROCESS
poison=A-B      rows A to B weigh NaN, but only where process 1 (of several) holds them
clock           the wall clock jumps by a day, forth and back, at every look

Under `launch`, it is done in the processes that are launched.
"""

import datetime
import itertools
import os
import subprocess
import sys
import time

# Whatever reads the clock while it is imported shall be lied to as well, so everything else is imported late.

PHASES = ("compile", "evaluate", "save")


def phases(path: str) -> None:
    import train.loop.row_learner
    from train.checkpoints.checkpointer import Checkpointer
    from train.loop.row_learner import RowLearner

    file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.pwrite(file, bytes(len(PHASES)) + b"0" * 10, 0)

    def enter(name: str) -> None:
        os.pwrite(file, b"\1", PHASES.index(name))

    def leave(name: str) -> None:
        os.pwrite(file, b"\0", PHASES.index(name))

    def within(name: str, function):
        def call(*arguments, **options):
            enter(name)
            try:
                return function(*arguments, **options)
            finally:
                leave(name)

        return call

    jit_update = train.loop.row_learner.jit_update

    def counting(update, mesh):
        step = jit_update(update, mesh)
        count: itertools.count | None = None

        def call(state, frozen, batch):
            nonlocal count
            run = step if count else within("compile", step)
            count = count or itertools.count(int(state.step) + 1)  # later ones would have to be waited for
            os.pwrite(file, f"{next(count):010}".encode(), len(PHASES))
            return run(state, frozen, batch)

        return call

    train.loop.row_learner.jit_update = counting
    RowLearner.evaluate = within("evaluate", RowLearner.evaluate)
    save, commit = Checkpointer.save, Checkpointer._commit

    def begin(self, *arguments, **options):
        self._settle()  # so that the phase of this save is not ended by the one before
        enter("save")
        save(self, *arguments, **options)
        if self._committing is None:  # there was nothing to save
            leave("save")

    Checkpointer.save = begin
    Checkpointer._commit = within("save", commit)


def record(path: str) -> None:
    import numpy as np

    import train.loop.row_learner

    jit_update = train.loop.row_learner.jit_update

    def recording(update, mesh):
        step = jit_update(update, mesh)

        def call(state, frozen, batch):
            rows = {}
            for shard in batch.rows.addressable_shards:  # rows that several devices hold count once
                rows[shard.index[0].start or 0] = np.asarray(shard.data)
            with open(f"{path}.{os.environ.get('OMNIA_PROCESS', '0')}", "a") as file:
                file.write(f"{int(state.step)}: {' '.join(str(row) for part in rows.values() for row in part)}\n")
            return step(state, frozen, batch)

        return call

    train.loop.row_learner.jit_update = recording


def poison(span: str) -> None:
    import jax
    import numpy as np

    from data.text.batches import Batches

    first, last = map(int, span.split("-"))
    batch = Batches.batch

    def poisoned(self, first_row, count):
        found = batch(self, first_row, count)
        rows = first_row + np.arange(count)
        bad = (first <= rows) & (rows <= last) & (self.order == "shuffled") & (jax.process_index() == 1)
        return found._replace(weights=np.where(bad[:, None], np.float32(np.nan), found.weights))

    Batches.batch = poisoned


def clock() -> None:
    day, shifts = 86400, itertools.cycle((86400, -86400, 0))
    seconds, nanoseconds, real = time.time, time.time_ns, datetime.datetime

    class Jumping(real):
        @classmethod
        def now(cls, tz=None):
            return real.now(tz) + datetime.timedelta(seconds=next(shifts))

        @classmethod
        def utcnow(cls):
            return real.now(datetime.UTC).replace(tzinfo=None) + datetime.timedelta(days=next(shifts) // day)

    time.time = lambda: seconds() + next(shifts)
    time.time_ns = lambda: nanoseconds() + next(shifts) * 10**9
    datetime.datetime = Jumping


def in_launched_processes(what: str) -> None:
    """`omnia launch` starts `python -m omnia ...`: here it starts this file instead."""
    start = subprocess.Popen

    def instead(command, **options):
        return start([*command[:2], "tests.drills.worker", what, "--", *command[3:]], **options)

    subprocess.Popen = instead


def main() -> int:
    place = sys.argv.index("--")
    what, arguments = sys.argv[1], sys.argv[place + 1 :]
    if arguments[0] == "launch":
        in_launched_processes(what)
    else:
        for one in what.split(","):
            name, _, value = one.partition("=")
            if name == "clock":
                clock()
            else:
                {"phases": phases, "record": record, "poison": poison}[name](value)
    import omnia

    sys.argv = ["omnia", *arguments]
    os.environ["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=0"  # or it would start itself anew, without what was done to it
    return omnia.main()


if __name__ == "__main__":
    sys.exit(main())
