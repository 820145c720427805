"""Seconds of each method of `omnia explain` for a text of so many tokens: the first time, with the time to compile, and again.

python benchmarks/explain.py RUN [--tokens 64] [--samples 512]
"""

import argparse
import time

import numpy as np

from train.explain.attribution import METHODS, faithfulness
from train.explain.subject import Subject, subject_of
from train.runs.directory import open_run


def subject(path: str, tokens: int) -> Subject:
    """A text of exactly so many tokens: words that any tokenizer has, cut to length."""
    run = open_run(path)
    tokenizer = run.tokenizer()
    text, words = "", "the old man said that he had seen the sea for the first time in his life when he was young and".split()
    for number in range(tokens * 4):
        longer = f"{text} {words[number % len(words)]}".strip()
        if len(tokenizer.encode(longer)) > tokens:
            break
        text = longer
    return subject_of(run, text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--samples", type=int, default=512)
    o = parser.parse_args()
    made = subject(o.run, o.tokens)
    count = int(np.asarray(made.free_T).sum())
    print(f"{count} tokens, {o.samples} samples\n{'method':22} {'first':>8} {'again':>8}")
    ways = {name: (lambda method=method: method(made, samples=o.samples)) for name, method in METHODS.items()}
    if made.lens:
        ways["logit lens"] = made.lens
    ways["faithfulness"] = lambda: faithfulness(made, np.arange(len(made.ids_T), dtype=float))
    for name, way in ways.items():
        seconds = []
        for _ in range(2):
            begun = time.perf_counter()
            way()
            seconds.append(time.perf_counter() - begun)
        print(f"{name:22} {seconds[0]:8.2f} {seconds[1]:8.2f}", flush=True)


if __name__ == "__main__":
    main()
