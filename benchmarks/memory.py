"""What a memory is good for: text that is copied over a distance longer than a row, learned with `configs/transformer_xl.py`.

python benchmarks/memory.py [--steps 600]
Each document is 32 random letters, 96 full stops, and the letters once more; rows have 64 positions. Both models have the same parameters;
one remembers the 128 positions before its row, the other one position. Prints one JSON object: nats per token of both, what a model that
copies reaches (the letters of the first half are a matter of luck), and one that cannot.
"""

import argparse
import json
import math
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from train.loop.telemetry import read_metrics

ROOT = Path(__file__).parent.parent
LETTERS, GAP, DOCUMENTS = 32, 96, 6000
ALPHABET = "abcdefghijklmnopqrstuvwxyz"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        draw, lines = random.Random(0), []
        for _ in range(DOCUMENTS):
            word = "".join(draw.choice(ALPHABET) for _ in range(LETTERS))
            lines.append(json.dumps({"text": word + "." * GAP + word}))
        Path(folder, "text.jsonl").write_text("\n".join(lines))
        omnia(
            "prepare",
            "text",
            "--input",
            f"{folder}/text.jsonl",
            "--output",
            f"{folder}/shards",
            "--tokenizer",
            "char",
            "--validation",
            "0.05",
        )
        loss = {name: trained(folder, memory, arguments.steps) for name, memory in (("remembers", 128), ("forgets", 1))}
    length, word = 2 * LETTERS + GAP + 1, LETTERS * math.log(len(ALPHABET))
    print(json.dumps({"steps": arguments.steps, "nats_per_token": loss, "copies": word / length, "cannot_copy": 2 * word / length}))


def trained(folder: str, memory: int, steps: int) -> float:
    """The last validation loss."""
    shape = ("--model.num-layers", "2", "--model.embed-dim", "64", "--steps", str(steps), "--evaluation.every", str(steps))
    remembered = ("--objective.memory", str(memory), "--objective.evaluation-memory", "0")
    run = f"{folder}/memory{memory}"
    omnia("train", f"{ROOT}/configs/transformer_xl.py:small", "--run-dir", run, "--data.shards", f"{folder}/shards", *shape, *remembered)
    return [row["loss"] for row in read_metrics(Path(run)) if row["kind"] == "evaluation"][-1]


def omnia(*arguments: str) -> None:
    subprocess.run([sys.executable, str(ROOT / "omnia.py"), *arguments], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
