"""How long cleaning takes: each rule by itself on one core, then `omnia prepare clean` over many short documents, with its memory.

python benchmarks/clean.py [--documents 1_000_000] [--workers 0] [--texts FILE.jsonl]

Documents are random words by Zipf's law, 20 to 60 of them; every tenth is a near copy of another, every twentieth an exact one. A second
run with a tenth of the documents shows whether time is linear. Without --texts, rules are measured on the same kind of texts, joined to
about 3 kB each.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from data.clean import minhash, quality, spans
from data.clean.language import languages_of
from data.clean.units import units_of

WORDS = [
    "the",
    "of",
    "and",
    "to",
    "that",
    *(f"{first}{second}{number}" for number in range(20) for first in "bcdfgklm" for second in "aeiou"),
]


def make_documents(count, seed=0):
    """Texts, one after another."""
    random = np.random.default_rng(seed)
    chances = 1 / np.arange(2, len(WORDS) + 2)
    chances /= chances.sum()
    last = []
    for number in range(count):
        if number % 4096 == 0:
            drawn = random.choice(len(WORDS), (4096, 60), p=chances)
            lengths, places = random.integers(20, 61, 4096), random.integers(0, 20, 4096)
        row = number % 4096
        words = [WORDS[word] for word in drawn[row, : lengths[row]]]
        if number % 20 == 19:
            words = last
        elif number % 10 == 9:
            words = list(last)
            words[places[row]] = "changed"
        last = words
        yield " ".join(words)


def measure(name, texts, function):
    size = sum(len(text.encode()) for text in texts) / 1e6
    begin = time.process_time()
    function()
    print(f"{name:<28}{size / (time.process_time() - begin):8.1f} MB/s", flush=True)


def measure_rules(texts):
    units_of(["warm"])
    batches = [texts[begin : begin + 150] for begin in range(0, len(texts), 150)]
    units = [units_of(batch) for batch in batches]
    guesses = [languages_of(one) for one in units]
    measure("units", texts, lambda: [units_of(batch) for batch in batches])
    measure("language", texts, lambda: [languages_of(one) for one in units])
    measure(
        "Gopher's rules",
        texts,
        lambda: [
            quality.gopher(text, units[b].of(place), guesses[b][place])
            for b, batch in enumerate(batches)
            for place, text in enumerate(batch)
        ],
    )
    measure("C4's rules", texts, lambda: [quality.c4(text, quality.words_in) for text in texts])
    measure("MinHash, 128 hashes", texts, lambda: [minhash.bands_of(one, minhash.banding(0.8)) for one in units])
    measure("fingerprints of spans", texts, lambda: [spans.fingerprints(text, 0, 200) for text in texts])


def clean(folder, path, workers):
    """Seconds, and the most memory of any process in MB."""
    command = [sys.executable, "-m", "omnia", "prepare", "clean", "--input", path, "--output", os.path.join(folder, "out"), "--overwrite"]
    command += ["--no-gopher", "--repeated-characters", "200", "--workers", str(workers)]
    begin = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    print(done.stdout, end="")
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - begin, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e3


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--texts", default="")
    options = parser.parse_args()
    if options.texts:
        with open(options.texts) as file:
            measure_rules([json.loads(line)["text"] for line in file])
    else:
        short = list(make_documents(30_000))
        measure_rules(["\n".join(short[begin : begin + 15]) + "." for begin in range(0, len(short), 15)])
    spent = 0.0
    for count in (options.documents // 10, options.documents):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "documents.jsonl")
            with open(path, "w") as file:
                file.writelines(json.dumps({"text": text}) + "\n" for text in make_documents(count))
            size = os.path.getsize(path) / 1e6
            seconds, processor, memory = clean(folder, path, options.workers)
            processor, spent = processor - spent, processor  # that of all children so far
            print(
                f"{count:,} documents, {size:.0f} MB: {seconds:.0f} s ({size / seconds:.1f} MB/s), {processor:.0f} s of processors, "
                f"{1e6 * processor / count:.0f} us a document, {memory:.0f} MB in a process",
                flush=True,
            )


if __name__ == "__main__":
    main()
