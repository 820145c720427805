"""A task put before a model that was never trained for it, with or without examples to read first (Brown et al. 2020, sec. 2)."""

import dataclasses
from pathlib import Path
from typing import Any

from data.errors import UserError
from data.files import json_files
from train.checkpoints.checkpointer import in_eight_bits, load_parameters
from train.devices.mesh import inference_mesh
from train.generation.text import decoder_of
from train.kinds import Data, Objective
from train.runs.directory import Run
from train.sources.dataset import dataset_of
from train.tasks.task import Task, TaskDataset

LONGEST = 2048
"""Tokens of a prompt, at most, with all that is shown."""


def ask(
    run: Run,
    task: Data,
    objective: Objective,
    files: tuple[str, ...],
    *,
    shots: int = 0,
    shown: tuple[str, ...] = (),
    seed: int = 0,
    rows: int = 0,
    step: int | None = None,
    raw: bool = False,
    int8: bool = False,
    predictions: str | Path = "",
) -> dict[str, Any]:
    """The measures of a task, without training: labels and choices by their likelihood after the prompt, other answers as the model
    writes them.

    files: of examples. shots: how many of those in the files `shown` each prompt begins with. Returns {"step", "examples", ...} with the
    task's metrics and their intervals. UserError for a model that does not write.
    """
    model = decoder_of(run, reads=True)
    if not isinstance(task, Task):
        raise UserError(
            f"--task: its data is a {type(task).__name__}, and no task", "Give a config such as configs/tasks/classification.py."
        )
    if not files:
        raise UserError("--task needs examples", "Give files: --files test.csv.")
    length = min(model.config.context_length, LONGEST)
    data = dataclasses.replace(task, files=shown, validation_files=files, validation=0.0, shots=shots, ended=False, length=length)
    data = dataclasses.replace(data, written=min(data.written, length // 2))
    experiment = dataclasses.replace(run.experiment, data=data, objective=objective, seed=seed)
    sources = dataset_of(experiment).open(run.tokenizer())
    experiment = dataclasses.replace(experiment, objective=objective.completed(sources))
    dataset: Any = dataset_of(experiment)
    assert isinstance(dataset, TaskDataset)
    dataset.place = run.path
    dataset.check_way()
    sources = dataset.open(run.tokenizer())
    examples = dataset.first(dataset.examples(sources, "validation"), rows)
    dataset.show(sources)
    dataset.tokens = sources[0].tokenizer()
    mesh = inference_mesh(run.experiment.mesh)
    params, step = load_parameters(run, mesh, step=step, raw=raw)
    params = in_eight_bits(params) if int8 else params

    from train.tasks.writing import answers_of

    outputs = answers_of(dataset, model, params, mesh, examples)
    found = dataset.judge(examples, outputs)
    judged = dataset.details()
    assert judged is not None
    if predictions:
        json_files.write_lines(predictions, judged.lines())
    return {"step": step, "shots": shots} | found | judged.intervals()
