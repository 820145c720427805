"""Faults survived: the drills of tests/drills/, each of which breaks something and looks at what is lost.

omnia reproduce faults
"""

from train.reproduce.table import Better, Metric, Row, Table

KINDS = {
    "signals": "SIGTERM, Ctrl-C, stalls, time-outs, at any step",
    "kill": "SIGKILL at random moments of training; the run goes on bit for bit",
    "checkpoint_faults": "files of checkpoints damaged, lost or cut; full disks",
    "damaged_data": "shards with flipped bits",
    "media": "damaged pictures, clips and recordings; loaders that die",
    "restarts": "runs that are stopped and started again and again",
    "hosts": "processes of a job that do not come, hang or die",
    "reports": "telemetry and reports that cannot be written",
}


def get_table() -> Table:
    return Table(
        title="Faults survived",
        paper="Jiang et al. 2024 (MegaScale), section 4; docs/reliability.md",
        claim="A run loses nothing but the steps since its last checkpoint, whatever fails, and says what happened.",
        metrics=(
            Metric("share", "survived", "share of the drills", lower_is_better=False),
            Metric("drills", "drills", digits=0),
        ),
        rows=tuple(Row(kind, what, (f"python benchmarks/drills.py {kind} --seed {{seed}}",), alone=True) for kind, what in KINDS.items()),
        claims=tuple(Better(kind, 0.999) for kind in KINDS),
        note="A drill is a test that injects a fault into a real process; with each seed other moments and places are drawn.",
    )
