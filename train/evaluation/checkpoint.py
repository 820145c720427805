"""What the loop would measure of a checkpoint: of any kind of run."""

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

from data.errors import UserError
from data.files import json_files
from data.files.text_files import is_whole
from train.checkpoints.checkpointer import in_eight_bits, load_parameters
from train.devices.mesh import inference_mesh
from train.kinds import Objective
from train.loop.learner import learner_of
from train.loop.sections import add_sections
from train.runs.directory import Run
from train.sources.dataset import dataset_of, elsewhere
from train.tasks.fairness import TITLES, Fairness, fairness_of, keep


def evaluate_run(
    run: Run,
    *,
    split: str = "validation",
    rows: int = 0,
    batch_size: int = 0,
    shards: tuple[str, ...] = (),
    step: int | None = None,
    raw: bool = False,
    int8: bool = False,
    change: tuple[str, ...] = (),
    predictions: str | Path = "",
    leave_out: bool = False,
    fairness: Fairness | None = None,
) -> dict:
    """Evaluate a checkpoint of a run (default: the latest), with the averaged parameters if the run keeps them, unless `raw`.

    rows: rows of each source; 0: all for text, as many as in training for other data. batch_size: rows at once; 0: as in training. shards:
    other data of the same kind, prepared with the same tokenizer. int8: round weights and activations to eight bits. change: "NAME=VALUE"
    for evaluation-only fields of the objective. predictions: file to write with the answer to each example, a JSON object a line.
    leave_out: of files, rows that cannot be used. fairness: also measure that of a classifier, and keep it in the run. Returns
    {"step", "split", "loss", ...} with the measures of the run's kind of data, of a task's examples their 95 % intervals, and "fairness".
    """
    if leave_out:
        run = dataclasses.replace(run, experiment=dataclasses.replace(run.experiment, data=run.experiment.data.leaving_out()))
    dataset, experiment = dataset_of(run.experiment), run.experiment
    asked = {"split": split != "validation", "batch_size": batch_size > 0, "int8": int8}
    for name in (name for name, there in asked.items() if there and name not in dataset.takes):
        raise UserError(f"--{name.replace('_', '-')} is not for runs on {type(experiment.data).__name__}", "Leave it out.")
    if change:
        experiment = dataclasses.replace(experiment, objective=_changed(experiment.objective, change))
    corpora = run.other_corpora(shards) if shards else run.corpora()
    if shards:
        experiment = elsewhere(experiment, shards)
    if batch_size:
        experiment = dataclasses.replace(experiment, batch_size=batch_size, micro_batches=1)
    if rows or dataset.evaluates_all:
        experiment = dataclasses.replace(experiment, evaluation=dataclasses.replace(experiment.evaluation, rows=rows))
    mesh = inference_mesh(experiment.mesh)
    params, step = load_parameters(run, mesh, step=step, raw=raw)
    params = in_eight_bits(params) if int8 else params
    with contextlib.closing(learner_of(dataclasses.replace(run, experiment=experiment), corpora, mesh)) as learner:
        found = learner.evaluate(params, lambda: None, split)
        judged = learner.details()
        fair = {} if fairness is None else {"fairness": _fairness(fairness, learner, params)}
    if predictions and judged is None:
        raise UserError(f"--predictions: runs on {type(experiment.data).__name__} answer no single examples", "Leave it out.")
    if predictions and judged is not None:
        json_files.write_lines(Path(predictions), judged.lines())
    if not found:
        paths = ", ".join(str(corpus.path) for corpus in corpora)
        raise UserError(f"nothing to measure in a {split} split of {paths}", "Prepare with --validation 0.1, or give --shards.")
    measured = {"step": step, "split": split} | found | ({} if judged is None else judged.intervals())
    if fair:
        add_sections(run.path, keep(run.path, fair["fairness"], measured | {"files": list(shards)}), TITLES)
    return measured | fair


def _fairness(asked: Fairness, learner: Any, params) -> dict[str, Any]:
    """Of the evaluation that a learner made last."""
    return fairness_of(asked, learner.details(), lambda examples: learner.answers(params, examples))


def _changed(objective: Objective, change: tuple[str, ...]) -> Objective:
    """The objective with whole numbers as asked; UserError for a field that training depends on, or that it has not."""
    free = type(objective).only_evaluated
    for one in change:
        name, _, value = one.partition("=")
        if name not in free or not is_whole(value):
            able = ", ".join(f"{field}=NUMBER" for field in free) or f"nothing of {type(objective).__name__}"
            raise UserError(f"--change {one}: is no field that evaluations alone read, with a whole number", f"Can be changed: {able}.")
        objective = dataclasses.replace(objective, **{name: int(value)})
    return objective
