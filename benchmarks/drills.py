"""Fault drills as numbers: how many of the faults of a kind are survived as docs/reliability.md promises.

python benchmarks/drills.py signals --seed 0
KIND is a file of tests/drills/: kill, signals, hosts, ... Prints one JSON object: drills, survived, share, and the names of those that were
not. The exit code is 0 where some were not, too: the number says so.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).parent.parent
DRILLS = ROOT / "tests" / "drills"


def main() -> None:
    kinds = sorted(path.stem.removeprefix("test_") for path in DRILLS.glob("test_*.py"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=kinds)
    parser.add_argument("--seed", type=int, default=0, help="of the examples that drills draw")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        command = [sys.executable, "-m", "pytest", "-m", "slow", "-q", f"--junitxml={report}", f"--hypothesis-seed={arguments.seed}"]
        environment = os.environ | {"HYPOTHESIS_PROFILE": "default"}
        subprocess.run([*command, str(DRILLS / f"test_{arguments.kind}.py")], cwd=ROOT, env=environment, stdout=sys.stderr)
        if not report.is_file():
            raise SystemExit("pytest wrote no report")
        cases = [case for case in ElementTree.parse(report).getroot().iter("testcase") if case.find("skipped") is None]
    lost = [case.get("name") for case in cases if case.find("failure") is not None or case.find("error") is not None]
    survived = len(cases) - len(lost)
    print(json.dumps({"drills": len(cases), "survived": survived, "share": survived / len(cases) if cases else 0.0, "lost": lost}))


if __name__ == "__main__":
    main()
