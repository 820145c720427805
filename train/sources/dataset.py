"""From an experiment to its data: opened, checked, and the same that a run was started with."""

import dataclasses
from pathlib import Path

from data.errors import MissingData, UserError
from data.tokenizer import Tokenizer
from train.experiment import Experiment
from train.kinds import Dataset, realise


def dataset_of(experiment: Experiment) -> Dataset:
    """The experiment's data, not opened yet."""
    return realise(experiment.data, experiment)


def elsewhere(experiment: Experiment, paths: tuple[str, ...]) -> Experiment:
    """The experiment with other sources of the same kind: folders of shards, files of examples."""
    return dataclasses.replace(experiment, data=dataset_of(experiment).elsewhere(paths))


def open_sources(experiment: Experiment, tokenizer: Tokenizer | None = None, place: Path | None = None) -> list:
    """The sources that an experiment names. tokenizer, place: of a run, for data that is not tokenized yet. UserError where it names
    none."""
    dataset = dataset_of(experiment)
    dataset.place = place
    if not dataset.paths():
        field = next((f"data.{name}" for name in ("shards", "files") if hasattr(experiment.data, name)), "data")
        raise UserError(f"{field} is empty", experiment.data.how_to_get)
    return dataset.open(tokenizer)


def open_the_same(experiment: Experiment, run_path: Path, digests: tuple[str, ...], tokenizer: Tokenizer) -> list:
    """The sources that a run was started with, wherever they lie now; UserError for others."""
    try:
        sources = open_sources(experiment, tokenizer, run_path)
    except MissingData as error:
        named = [name for name in ("shards", "files") if hasattr(experiment.data, name)] or ["environments.0.path"]
        raise MissingData(
            f"{error.path}: the data of {run_path} is not there",
            f"If it has moved, say where to: `omnia train RUN --data.{named[0]} PATH`, `omnia evaluate RUN --shards PATH`.",
            error.path,
        ) from None
    if len(digests) != len(sources):
        raise UserError(
            f"data names {len(sources)} sources; the run was started with {len(digests)}", "Give the same number, in the same order."
        )
    for source, digest in zip(sources, digests, strict=True):
        if source.digest != digest:
            raise UserError(
                f"{source.path}: digest {source.digest}, but the run was started on {digest}",
                "Give what it was started with (for text --data.shards DIR), or start a new run.",
            )
    return sources


def check_reads(experiment: Experiment) -> None:
    """UserError where the objective does not read what the data gives."""
    objective, data = experiment.objective, experiment.data
    if data.rows not in objective.reads:
        raise UserError(
            f"objective {type(objective).__name__} and data {type(data).__name__} do not belong together: "
            f"it reads {' or '.join(objective.reads)}, and the data gives {data.rows}",
            "Change one of them in the config file.",
        )
