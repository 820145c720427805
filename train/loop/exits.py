"""The exit codes of `omnia train`, `omnia launch` and other long work, which schedulers and supervisors act upon."""

import enum


class Exit(enum.IntEnum):
    """How a process ended. The same command goes on with the run after any of them but MISTAKE, which has to be mended first."""

    DONE = 0
    OURS = 1
    """A crash: start it again."""
    MISTAKE = 2
    """The user's: said in a line or two."""
    SAVED = 75
    """SIGTERM, a notice of preemption, or a terminal that was closed: what was done is saved."""
    STALLED = 76
    """Nothing moved for faults.stall_seconds; the stacks of all threads are in the run directory. Start it again."""
    DIVERGED = 77
    """Bad updates went on after every rewind that is allowed: starting again would end the same way."""
    INTERRUPTED = 130
    """Ctrl-C: what was trained is saved (a second Ctrl-C leaves without saving)."""
