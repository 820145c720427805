"""What a memory of past rows is good for: letters that come again after a gap longer than a row.

omnia reproduce memory
"""

import json
import math
import random
import sys
from pathlib import Path

from train.reproduce.table import Better, Metric, Row, Shared, Table, training

LETTERS, GAP, DOCUMENTS = 32, 96, 6000
ALPHABET = "abcdefghijklmnopqrstuvwxyz"
LENGTH = 2 * LETTERS + GAP + 1
LUCK = LETTERS * math.log(len(ALPHABET)) / LENGTH
"""Nats per character of the letters that nobody can know, spread over a document."""


def get_table() -> Table:
    options = "--data.shards {letters} --model.num-layers 2 --model.embed-dim 64 --steps 900 --evaluation.every 0"
    prepare = "omnia prepare text --input {run}.jsonl --output {run} --tokenizer char --validation 0.05"
    return Table(
        title="Transformer-XL's memory",
        paper="Dai et al. 2019 (Transformer-XL), table 6",
        claim="A memory of past rows lowers the loss where what matters lies further back than a row.",
        metrics=(Metric("validation/loss", "validation loss", "nats per character"),),
        shared=(Shared("letters", ("python {table} {run}.jsonl", prepare)),),
        rows=tuple(
            Row(
                name,
                f"rows of 64, {memory} places before them are remembered",
                (training("configs/transformer_xl.py:small", options, f"--objective.memory {memory} --objective.evaluation-memory 0"),),
            )
            for name, memory in (("remembers", 128), ("short", 32), ("forgets", 1))
        ),
        claims=(Better("remembers", "forgets"), Better("remembers", "short"), Better("remembers", 2 * LUCK)),
        note=f"A document is {LETTERS} random letters, {GAP} full stops, and the same letters again. No model can predict the first "
        f"{LETTERS} letters: they cost {LUCK:.3f} nats per character of the document. A model that forgets them pays {2 * LUCK:.3f}. "
        "2 layers of 64, 900 steps of 24 x 64 characters.",
    )


def write(path: Path) -> None:
    draw = random.Random(0)
    words = ("".join(draw.choice(ALPHABET) for _ in range(LETTERS)) for _ in range(DOCUMENTS))
    path.write_text("".join(json.dumps({"text": word + "." * GAP + word}) + "\n" for word in words))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
