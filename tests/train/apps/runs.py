"""Tiny runs whose applications several tests put to work."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from data.tokenizer import character_tokenizer
from model.config import ModelConfig
from model.text_encoder_config import TextEncoderConfig
from tests.train import tiny_runs
from train.apps.monitor.finance_monitor import FinanceMonitor
from train.apps.service.customer_service import CustomerService
from train.apps.writing.verse import Verse
from train.experiment import AdamW, Checkpoints, Evaluation, Experiment, Logging, MeshShape, Samples, Schedule
from train.objectives.tasks.options import Supervised
from train.objectives.tasks.recommendation import NextItem
from train.tasks.classification import Classification
from train.tasks.recommending.interactions import Recommendation

USERS, ITEMS = 40, 20
COLD, WORDLESS = "i19", "i18"
"""Items that nobody had: with a text, and with none."""
TUNE = "某调"
LEVELS, OBLIQUES = "天春花风山人", "月雨夜水雪柳"


def recommender_run(folder: Path) -> Path:
    """Users of two sorts, one of red and one of blue items, and features of users; trained for two steps."""
    draw, lines = np.random.default_rng(0), ["user,item,time"]
    for user in range(USERS):
        items = draw.permutation(np.arange(user % 2, 18, 2))[:7]
        lines += [f"u{user},i{item},{10 * user + step}" for step, item in enumerate(items)]
    (folder / "events.csv").write_text("\n".join(lines) + "\n")
    items = [{"item": f"i{item}", "title": f"{'blue' if item % 2 else 'red'} thing{item % 4} number{item}"} for item in range(ITEMS)]
    items[18]["title"] = ""
    (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    (folder / "users.csv").write_text("user,age\n" + "".join(f"u{user},{20 + user}\n" for user in range(USERS)))
    return _trained(
        folder,
        model=ModelConfig(context_length=6, num_layers=1, embed_dim=16, num_heads=2, positions="rotary"),
        data=Recommendation(
            files=(str(folder / "events.csv"),),
            items=str(folder / "items.jsonl"),
            users=str(folder / "users.csv"),
            user_features=("age",),
        ),
        objective=NextItem(),
        optimizer=AdamW(learning_rate=1e-2),
    )


def _trained(folder: Path, **kinds: Any) -> Path:
    """For two steps, with nothing beside."""
    experiment = Experiment(
        steps=2,
        batch_size=8,
        schedule=Schedule(warmup_steps=1),
        mesh=MeshShape(data=1),
        evaluation=Evaluation(every=0),
        checkpoints=Checkpoints(every=0),
        samples=Samples(tokens=0),
        logging=Logging(every=1),
        **kinds,
    )
    tiny_runs.train(tiny_runs.start(folder / "run", experiment))
    return folder / "run"


def verse_run(folder: Path) -> Path:
    """Poems of two lines, level and oblique, whose ends rhyme; two steps of training."""
    rows = [
        {"form": TUNE, "title": "题", "lines": [f"{LEVELS[n % 6]}{OBLIQUES[n // 6 % 6]}春，", f"{LEVELS[n // 2 % 6]}{OBLIQUES[n % 5]}人。"]}
        for n in range(40)
    ]
    rows += [{"form": None, "title": "", "lines": ["天月。"]}] * 3
    (folder / "poems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    character_tokenizer("\n，。题某调" + LEVELS + OBLIQUES).save(str(folder / "tokenizer"))
    return _trained(
        folder,
        model=ModelConfig(context_length=64, num_layers=1, embed_dim=16, num_heads=2, positions="rotary"),
        data=Verse(files=(str(folder / "poems.jsonl"),), tokenizer=str(folder / "tokenizer"), length=64, written=24),
        objective=Supervised(),
        optimizer=AdamW(learning_rate=1e-3),
    )


def task_runs(folder: Path) -> dict[str, Path]:
    """{name: folder} of runs on the same rows: q is about cards and negative, w about loans and positive."""
    rows = [{"text": f"{'ab'[n // 2 % 2]} {'qw'[n % 2]} b", "label": ("card", "loan")[n % 2]} for n in range(80)]
    rows = [row | {"intent": row["label"], "sentiment": {"card": "negative", "loan": "positive"}[row["label"]]} for row in rows]
    for name in ("train", "held"):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "templates.jsonl").write_text('{"intent": "card", "answer": "Cards come in {days} days."}\n')
    character_tokenizer("abcdefghijklmnopqrstuvwxyz ").save(str(folder / "tokenizer"))
    where = {
        "files": (str(folder / "train.jsonl"),),
        "validation_files": (str(folder / "held.jsonl"),),
        "length": 16,
        "tokenizer": str(folder / "tokenizer"),
    }
    kinds = {
        "task": Classification(**where),
        "service": CustomerService(**where, templates=str(folder / "templates.jsonl")),
        "monitor": FinanceMonitor(**where),
    }
    made = {"files": folder}
    for name, data in kinds.items():
        experiment = Experiment(
            steps=20,
            batch_size=16,
            model=TextEncoderConfig(
                context_length=16, num_layers=1, embed_dim=16, num_heads=2, init_std=0.3, pooler=False, prediction_head=False, token_types=0
            ),
            data=data,
            objective=Supervised(head_dropout=0.0),
            optimizer=AdamW(learning_rate=3e-2),
            schedule=Schedule(0, "constant"),
            evaluation=Evaluation(every=0),
            checkpoints=Checkpoints(every=0),
            samples=Samples(tokens=0),
        )
        run = tiny_runs.start(folder / name, experiment)
        tiny_runs.train(run)
        made[name] = run.path
    return made
