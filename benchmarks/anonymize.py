"""How many seconds of one core a megabyte takes to anonymise that is made to be slow: begun matches that come to nothing, and nothing but
matches.

python benchmarks/anonymize.py
"""

import time

from data.anonymize.surrogates import Key
from data.anonymize.text import Anonymizer

SIZE = 1_000_000
PIECES = ("1", "a", "a@", "1.", "张", "1-", "+1", ":", "ab:", "Mr. A ", "1 ", "北京市路1", "1 A ", "ab12 ", "[A", "中路1号", "13800138000 ")
"""Texts that are repeated."""


def main() -> None:
    for piece in PIECES:
        text, anonymizer = piece * (SIZE // len(piece)), Anonymizer(Key.drawn())
        began = time.process_time()
        anonymizer(text)
        print(f"{piece!r:12} {time.process_time() - began:6.2f} s  {anonymizer.counts.total():8,} replaced")


if __name__ == "__main__":
    main()
