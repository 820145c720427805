"""Shards with one damaged block in a thousand: what it holds is left out and counted, and everything else is trained on as it was."""

import json
import os
import random
import re
import subprocess
import sys

import numpy as np
import pytest

from data.text.batches import Batches
from data.text.blocks import BLOCK_BYTES
from data.text.shards import Corpus
from tests.data.conftest import flip_bit, write_corpus
from tests.train.verbs.processes import one_device
from train.loop.exits import Exit

pytestmark = pytest.mark.slow
BLOCKS, DAMAGED, DOCUMENT, CONTEXT, ROWS = 1000, 1, 5000, 128, 256
CONFIG = f"""
from model.config import ModelConfig
from train.experiment import Evaluation, Experiment, Logging, MeshShape, Samples, TextData

def get_config(arg: str = "") -> Experiment:
    return Experiment(
        steps={{steps}},
        batch_size={ROWS},
        model=ModelConfig(context_length={CONTEXT}, num_layers=1, embed_dim=16, num_heads=1, mlp_dim=16),
        data=TextData(shards=("shards",)),
        mesh=MeshShape(data=1),
        evaluation=Evaluation(every=0),
        samples=Samples(tokens=0),
        logging=Logging(every=50),
    )
"""


@pytest.fixture
def room(tmp_path):
    """A folder with shards of a thousand blocks, 64 KiB each, and a config that goes over them once."""
    rng = np.random.default_rng(0)
    tokens = BLOCKS * BLOCK_BYTES // 4
    documents = np.array_split(rng.integers(97, 123, tokens, np.uint32), tokens // DOCUMENT)
    write_corpus(tmp_path / "shards", documents, documents[:20], shards=4, document_end=256)
    batches = Batches([Corpus(str(tmp_path / "shards"))], context_length=CONTEXT)
    (tmp_path / "config.py").write_text(CONFIG.format(steps=-(-batches.rows_per_epoch // ROWS)))
    return tmp_path


def train(room, run: str, *arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "omnia", "train", "config.py", "--run-dir", run, *arguments]
    environment = one_device(room) | {"XLA_FLAGS": ""}  # optimized: there is much to train on
    done = subprocess.run(command, cwd=room, env=environment, capture_output=True, text=True, timeout=900)
    return done.returncode, done.stdout + done.stderr


def test_one_damaged_block_in_a_thousand(room, capsys):
    rng = random.Random(0)
    whole = Batches([Corpus(str(room / "shards"))], context_length=CONTEXT)
    rows = np.arange(-(-whole.rows_per_epoch // ROWS) * ROWS)
    before = [whole.rows(part) for part in np.array_split(rows, 64)]
    files = sorted((room / "shards").glob("train-*.tokens"))
    for path in rng.sample(files, DAMAGED):
        flip_bit(path, rng.randrange(os.path.getsize(path)))

    found = Batches([Corpus(str(room / "shards"))], context_length=CONTEXT, max_damaged=len(rows))
    left_out, changed = 0, 0
    for part, old in zip(np.array_split(rows, 64), before, strict=True):
        new = found.rows(part)
        there = new.weights > 0
        left_out += int(old.weights.sum() - new.weights.sum())
        changed += int(((new.targets != old.targets) & there).sum() + ((new.tokens != old.tokens) & there).sum())
    documents, of = len(found.damaged), found.corpora[0].split("train").documents

    code, said = train(room, "strict")
    assert code == Exit.MISTAKE and "fails its digest" in said and "--data.max-damaged" in said and "Traceback" not in said
    code, said = train(room, "tolerant", "--data.max-damaged", str(documents))
    assert code == Exit.DONE, said
    counts = [int(count) for count in re.findall(r"(\d+) damaged documents", said)]
    summary = json.loads((room / "tolerant" / "summary.json").read_text())
    trained = sum(int(batch.weights.sum()) for batch in before) - left_out
    with capsys.disabled():
        print(
            f"\n{DAMAGED} of {BLOCKS} blocks of shards damaged: {counts[-1]} of {of} documents counted and left out "
            f"({left_out / (trained + left_out):.2%} of the tokens), {changed} other tokens changed, the run completed; without "
            "--data.max-damaged it stopped with code 2 and named the file"
        )
    assert counts == sorted(counts) and counts[-1] == documents and changed == 0
    assert summary["step"] * ROWS == len(rows) and not summary["stopped"] and summary["tokens"] == trained
