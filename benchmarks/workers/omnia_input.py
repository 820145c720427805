"""Rounds of packed batches from prepared shards, as training reads them. Started by benchmarks/race.py."""

import json
import os
import sys
import time

from benchmarks.token_store import make_corpus
from data.text.batches import Batches

PAGE = os.sysconf("SC_PAGE_SIZE")
BATCHES = 400


def anonymous_mib() -> float:
    """Memory of this process alone, without the pages of files that it maps."""
    with open("/proc/self/statm") as file:
        _, resident, shared, *_ = map(int, file.read().split())
    return (resident - shared) * PAGE / 2**20


def main():
    options = json.loads(sys.argv[1])
    sys.stdout, printed = sys.stderr, sys.stdout
    corpus = make_corpus(options["folder"], options["tokens"])
    sys.stdout = printed
    batches = Batches([corpus], context_length=options["length"], seed=0)
    rows, first = options["rows"], 0
    batches.batch(0, rows)
    print("ready", flush=True)
    for _ in sys.stdin:
        began, tokens = time.perf_counter(), 0
        for _ in range(BATCHES):
            tokens += batches.batch(first, rows).tokens.size
            first += rows
        seconds = time.perf_counter() - began
        print(json.dumps({"tokens_per_second": tokens / seconds, "tokens": tokens, "rss_mib": anonymous_mib()}), flush=True)


if __name__ == "__main__":
    main()
