"""Exit codes are a contract with schedulers, and with the scripts in launch/, which cannot import them."""

import re
from pathlib import Path

from train.loop.exits import Exit

ROOT = Path(__file__).parents[3]


def test_codes_are_those_that_scripts_and_schedulers_know():
    codes = {one.name: int(one) for one in Exit}
    assert codes == {"DONE": 0, "OURS": 1, "MISTAKE": 2, "SAVED": 75, "STALLED": 76, "DIVERGED": 77, "INTERRUPTED": 130}
    again = re.search(r"--restart-on-exit-codes=([\d,]+)", (ROOT / "launch" / "xpk.sh").read_text())
    assert again and set(map(int, again[1].split(","))) == {Exit.OURS, Exit.SAVED, Exit.STALLED}
    never = re.search(r"([\d |]+)\) exit \"\$code\"", (ROOT / "launch" / "tpu_slice.sh").read_text())
    assert never and set(map(int, never[1].split("|"))) == {Exit.MISTAKE, Exit.DIVERGED, Exit.INTERRUPTED}
