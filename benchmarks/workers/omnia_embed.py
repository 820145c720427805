"""Rounds of sentence embeddings by our own encoder with published weights. Started by benchmarks/race.py."""

import json
import sys
import time
from pathlib import Path

from train.generation.embeddings import load_embedder
from train.verbs.arguments import start_jax


def main():
    shape = json.loads(sys.argv[1])
    start_jax()
    texts = Path(shape["texts"]).read_text().splitlines()[: shape["most"]]
    embedder = load_embedder(f"{shape['folder']}/run", most=256)
    embedder(texts)
    print("ready", flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        found = embedder(texts)
        seconds = time.perf_counter() - began
        print(json.dumps({"sentences_per_second": len(texts) / seconds, "first": found[0].tolist()}), flush=True)


if __name__ == "__main__":
    main()
