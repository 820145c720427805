"""A change of rank 8 planted in one projection of a decoder: which adapters find it, with one rank a projection to spend.

omnia reproduce planted_rank
"""

import dataclasses
import json
import secrets
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from model.config import ModelConfig, OfStart
from train.experiment import AdamW, CausalLM, Checkpoints, Evaluation, Experiment, Muon, Samples, Schedule, TextData
from train.objectives.distillation import Distillation
from train.reproduce.table import Better, Metric, Row, Shared, Table, training

PLANTED = ("layers", "feed_forward", "down")
LAYER, RANK = 2, 8
SIZE = 2.0
"""Norm of the planted change, in that of the kernel."""
ROWS = {
    "lora": ("LoRA, rank 1 (Hu et al. 2021)", "--adapters lora --adapters.rank 1 --adapters.alpha 2"),
    "adalora": (
        "AdaLoRA, mean rank 1 at the end (Zhang et al. 2023)",
        "--adapters adalora --adapters.rank 1 --adapters.initial-rank 8 --adapters.alpha 2",
    ),
    "lora_8": ("LoRA, rank 8: eight times the parameters", "--adapters lora --adapters.rank 8 --adapters.alpha 16"),
}


def get_config(arg: str = "student") -> Experiment:
    base = arg == "base"
    return Experiment(
        name=f"planted rank, {arg}",
        steps=300,
        batch_size=16,
        model=ModelConfig(context_length=64, num_layers=4, embed_dim=96, num_heads=4) if base else OfStart(),
        data=TextData(),
        objective=CausalLM() if base else Distillation(of=CausalLM(), alpha=1.0, temperature=1.0),
        optimizer=Muon() if base else AdamW(learning_rate=5e-3, weight_decay=0.0),
        schedule=Schedule(warmup_steps=20, decay="linear", final_fraction=0.0),
        evaluation=Evaluation(every=0, rows=64),
        checkpoints=Checkpoints(every=0),
        samples=Samples(tokens=0),
    )


def get_table() -> Table:
    student = "--start {base} --data.shards {corpus} --objective.teacher {planted}"
    return Table(
        title="A planted change of rank 8",
        paper="Zhang et al. 2023 (AdaLoRA), sec. 3 and figure 3",
        claim="At an equal budget at the end, ranks that go where they matter fit a change of one projection better than equal ranks.",
        metrics=(
            Metric("divergence", "divergence", "nats", digits=4),
            Metric("planted", "rank of the planted projection", lower_is_better=False, digits=1),
            Metric("mean", "mean rank", lower_is_better=False, digits=2),
        ),
        shared=(
            Shared("corpus", ("python {table} corpus {run}",)),
            Shared("base", ("omnia train {table}:base --run-dir {run} --data.shards {corpus}",)),
            Shared("planted", ("python {table} plant {base} {run}",)),
        ),
        rows=tuple(
            Row(name, what, (training("{table}:student", student, options), "python {table} measure {run} {planted}"))
            for name, (what, options) in ROWS.items()
        ),
        claims=(Better("adalora", "lora"), Better("adalora", RANK / 2, metric="rank of the planted projection")),
        note=f"4 layers of 96 on the source of Python's standard library; the teacher is the same model with a change of rank {RANK} and "
        f"twice the kernel's norm in `down` of layer {LAYER}, which the student learns from the teacher's probabilities in 300 steps. "
        "Divergence is KL(teacher || student) a token on held-out text. Ranks count the values that are not zero.",
    )


def corpus(folder: str) -> None:
    from data.text.prepare import PrepareText, prepare_text
    from train.verbs.quickstart import standard_library

    files = tuple(standard_library()[:200])
    prepare_text(PrepareText(input=files, output=folder, tokenizer="sentencepiece:1024", validation=0.05, max_damaged=50))


def plant(base: str, folder: str) -> None:
    """The base, its kernel changed by a random product of rank RANK."""
    from train.bridge.importing import save_parameters
    from train.checkpoints.checkpointer import load_parameters
    from train.runs.directory import open_run, write_run
    from train.runs.parts import get, put

    whole = open_run(base)
    params, _ = load_parameters(whole)
    kernel = np.array(get(params, (*PLANTED, "kernel")))
    draw = np.random.default_rng(0)
    change = draw.normal(size=(kernel.shape[1], RANK)) @ draw.normal(size=(RANK, kernel.shape[2]))
    kernel[LAYER] += SIZE * np.linalg.norm(kernel[LAYER]) * change / np.linalg.norm(change)
    Path(folder).mkdir(parents=True, exist_ok=True)
    whole.tokenizer().save(f"{folder}/tokenizer")
    run = dataclasses.replace(whole, path=Path(folder), identity=secrets.token_hex(8))
    write_run(run)
    save_parameters(run, put(params, (*PLANTED, "kernel"), kernel))


def measure(run_dir: str, planted: str) -> None:
    """The divergence on the validation split, and the ranks that the adapters have."""
    import jax
    import jax.numpy as jnp
    from flax.traverse_util import flatten_dict

    from model.heads import Head, score_tokens, vocabulary_table
    from train.checkpoints.checkpointer import load_parameters, load_trained
    from train.devices.mesh import inference_mesh
    from train.kinds import realise
    from train.runs.directory import open_run

    student, teacher = open_run(run_dir), open_run(planted)
    mesh, model = inference_mesh(student.experiment.mesh), realise(teacher.experiment.model)
    length, split = teacher.experiment.model.context_length, student.corpora()[0].split("validation")
    starts = [(document, start) for document in range(split.documents) for start in range(0, int(split.lengths[document]) - length, length)]
    tokens_NT = np.stack([split.read(document, start, start + length) for document, start in starts[:256]])
    heads = [
        Head(jax.jit(lambda params: model.apply({"params": params}, tokens_NT).hidden_BTD)(params), vocabulary_table(params))
        for params in (load_parameters(run, mesh)[0] for run in (teacher, student))
    ]
    divergence_NT = score_tokens(heads[0], jnp.asarray(tokens_NT), want=("kl",), other=heads[1]).kl
    assert divergence_NT is not None
    ranks: dict[tuple, np.ndarray] = {}
    for path, leaf in flatten_dict(load_trained(student, mesh)[0]).items():
        if path[-1] == "values":
            ranks[path[:-2]] = (np.asarray(leaf) != 0).sum(-1)
        elif path[-1] == "a":
            ranks[path[:-2]] = np.full(leaf.shape[0], leaf.shape[-1])
    everywhere = np.concatenate([*ranks.values()])
    found = {"divergence": float(divergence_NT.mean()), "planted": int(ranks[PLANTED][LAYER]), "mean": float(everywhere.mean())}
    print(json.dumps(found))


if __name__ == "__main__":
    ways: dict[str, Callable[..., None]] = {"corpus": corpus, "plant": plant, "measure": measure}
    ways[sys.argv[1]](*sys.argv[2:])
