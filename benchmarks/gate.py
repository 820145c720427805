"""The gate's search for phrases on real texts: false alarms, what it lets through, and how fast it reads.

python benchmarks/gate.py PHRASES FILE [FILE ...]
PHRASES has one on each line; of the files (.csv, .jsonl, .parquet) the column `text` is read. A text is taken to have a phrase if a plain
search finds one, in any case, with no Latin letter or digit beside it.
"""

import re
import sys
import time

from data.records.rows import read_records
from serve.forbidden import Phrases


def main(arguments: list[str]) -> int:
    if len(arguments) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    phrases = Phrases.read(arguments[0])
    texts = [str(record["text"]) for path in arguments[1:] for record in read_records(path) if record.get("text")]
    plain = re.compile("|".join(rf"(?<![a-z0-9]){re.escape(p.casefold())}(?![a-z0-9])" for p in phrases.phrases))
    began = time.process_time()
    found = [phrases.find(text) for text in texts]
    seconds = time.process_time() - began
    there = [bool(plain.search(re.sub(r"\s+", " ", text.casefold()))) for text in texts]
    alarms = [(text, hits[0]) for text, hits, real in zip(texts, found, there, strict=True) if hits and not real]
    missed = sum(real and not hits for hits, real in zip(found, there, strict=True))
    size = sum(len(text.encode()) for text in texts)
    print(f"{len(texts):,} texts, {sum(there):,} with one of {len(phrases.phrases)} phrases: {len(alarms)} false alarms, {missed} missed")
    print(f"{size / 1e6 / seconds:.2f} MB of text a second of processor time")
    for text, hit in alarms[:10]:
        print(f"  {hit.phrase!r} in {text[max(0, hit.start - 20) : hit.end + 20]!r}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
