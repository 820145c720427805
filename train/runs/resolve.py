"""What a config leaves open, filled in before a run is made; and what may change when one goes on."""

import dataclasses
import os
from pathlib import Path
from typing import Any

from data.errors import UserError
from data.records.record import absolute
from model.config import SWITCHES
from train.adapters.options import Tuning
from train.experiment import Experiment
from train.runs.directory import START, Run, create_run, has_checkpoint, is_run, open_corpora, open_run
from train.runs.serialize import flatten, to_json
from train.sources.dataset import dataset_of
from train.sources.drawing import drawing_of

MAY_CHANGE = (
    "name",
    "model.scan",
    "model.remat",
    "model.attention",
    "steps",
    "batch_size",
    "micro_batches",
    "data.shards",
    "data.files",
    "data.tokenizer",
    "data.max_damaged",
    "data.workers",
    "mesh.",
    "gradient.network.",
    "evaluation.",
    "checkpoints.",
    "faults.",
    "samples.",
    "logging.",
)
"""Fields that a resumed run may change: none of them alters what the saved state means."""


def resolve(experiment: Experiment, corpora: list, run: Run | None = None) -> Experiment:
    """Fill in what the config leaves open: the model of the run that it starts from (the context may be shorter), or the fields that depend
    on the tokenizer. Local paths become absolute. run: the run being resumed, which keeps what it started from.

    UserError if the data has ids beyond the model's vocabulary, or a tokenizer other than that of the run to start from.
    """
    tokenizer, model = corpora[0].tokenizer(), experiment.model
    check_adapters(experiment)
    source = None
    if experiment.start:
        source = open_run(experiment.start if run is None else run.path / START, said=lambda line: None)
        if source.tokenizer().digest != tokenizer.digest:
            raise UserError(
                f"{experiment.start}: has another tokenizer than {corpora[0].path}",
                f"Prepare with --tokenizer {source.path / 'tokenizer'}.",
            )
        switches: dict[str, Any] = {name: getattr(model, name) for name in SWITCHES}
        if source.experiment.model.positions == "rotary":  # no parameters depend on it, and shorter rows cost less
            switches["context_length"] = min(model.context_length, source.experiment.model.context_length)
        elif source.experiment.model.positions != "learned":
            switches["context_length"] = model.context_length
        from train.objectives.bind import bind  # with JAX

        same = type(source.experiment.objective) is type(experiment.objective)
        parts = bind(source.experiment).parts
        # A text tower's layers are a decoder for another text tower alone.
        has_decoder = any(name == "layers" or (same and path[-1] == "layers") for name, path in parts.items())
        projectors = [name.removesuffix(" projector") for name in parts if name.endswith(" projector")]
        try:
            model = model.started_from(source.experiment.model, has_decoder, projectors, **switches)
            model = model.with_layers(experiment.start_layers) if experiment.start_layers else model
        except ValueError as error:
            raise UserError(f"{experiment.start}: its model does not go with the config: {error}", "Change the config file.") from None
        experiment = dataclasses.replace(experiment, start=os.path.abspath(experiment.start))
    elif experiment.start_layers:
        raise UserError("start_layers names layers of a run, but `start` is empty", "Give the run: --start RUN_DIR.")
    try:
        model = model.completed(tokenizer.size, tokenizer.specials)
    except ValueError as error:
        raise UserError(f"{corpora[0].path}: its tokenizer does not go with the model: {error}", "Set it in the config file.") from None
    for corpus in corpora:
        if corpus.ids > model.vocab_size:
            raise UserError(
                f"{corpus.path}: holds token id {corpus.ids - 1}, but model.vocab_size is {model.vocab_size}",
                "The model it starts from has no ids for that: those of roles, in conversations, or of fills. Use texts without."
                if experiment.start
                else f"Set --model.vocab-size {tokenizer.size} or more (0 takes the tokenizer's), or prepare with another tokenizer.",
            )
    objective = experiment.objective.completed(corpora)
    data = experiment.data.with_paths(absolute)  # the run is gone on with from any folder
    experiment = dataclasses.replace(experiment, model=model, data=data, objective=objective)
    if (drawing := drawing_of(experiment)) is not None:
        experiment = dataclasses.replace(experiment, gradient=drawing.completed(dataset_of(experiment), corpora))
    return experiment if source is None else with_new_parts(experiment, source.experiment)


def check_adapters(experiment: Experiment) -> None:
    """UserError where adapters do not go with the rest."""
    adapters, optimizer = experiment.adapters, experiment.optimizer
    if not isinstance(adapters, Tuning):
        return
    name, leave = type(adapters).__name__, "Leave --adapters out."
    if not experiment.start:
        raise UserError(f"adapters: {name} needs a model to adapt, but `start` is empty", "Give the run of one: --start RUN_DIR.")
    if experiment.frozen:
        raise UserError(f"adapters: {name} freezes all parameters of the model, and `frozen` names some", "Leave --frozen out.")
    if not experiment.objective.uses_model:
        raise UserError(f"adapters: {type(experiment.objective).__name__} trains no model of a run", leave)
    if adapters.fixed and experiment.keeps_average:
        what = "ema_decay" if experiment.ema_decay else type(optimizer).__name__
        raise UserError(
            f"adapters: {name} sets values to zero, and the average that {what} keeps would not follow",
            "Leave ema_decay at 0, or choose another optimizer in the config file.",
        )


def with_new_parts(experiment: Experiment, begun: Experiment) -> Experiment:
    """The experiment whose adapters train the heads of what is learned, and the parts that the run it starts from lacks. UserError where
    those are no heads, or that run's own adapters are no part of the plain model."""
    adapters = experiment.adapters
    before = type(begun.adapters).__name__
    if isinstance(begun.adapters, Tuning):
        from train.adapters.training import method_of

        if not (method := method_of(begun)) or not method.mergeable:
            raise UserError(
                f"{experiment.start}: its {before} adapters cannot be merged into the model", "Start from the run it began with."
            )
    if not isinstance(adapters, Tuning):
        return experiment
    from train.objectives.bind import bind
    from train.runs.inherit import new_parts

    found = new_parts(experiment, begun)
    if layers := [name for name in found if name.split("/")[-1] in ("layers", "embedding")]:
        raise UserError(f"adapters: {experiment.start} has no {' and no '.join(layers)} to adapt", "Start from a run of the same model.")
    heads = ["/".join(path) for path in bind(experiment).heads]
    trained = tuple(dict.fromkeys([*adapters.trained, *found, *heads]))
    return dataclasses.replace(experiment, adapters=dataclasses.replace(adapters, trained=trained))


def new_run(path: str | Path, experiment: Experiment) -> Run:
    """Make the run directory of an experiment: open its data, fill in what its config leaves open. UserError where that cannot be.

    A folder that holds checkpoints of this very experiment, on the same data, is that run: it goes on. UserError for those of another.
    """
    corpora = open_corpora(experiment)
    experiment = resolve(experiment, corpora)
    if is_run(Path(path)) and has_checkpoint(Path(path)):
        stored = open_run(path)
        if stored.experiment == experiment and stored.digests == tuple(corpus.digest for corpus in corpora):
            return stored
    return create_run(path, experiment, corpora)


def check_resume(stored: Experiment, asked: Experiment) -> None:
    """UserError naming the fields that may not change within a run."""
    # Files may have moved: what they hold is known by its digest.
    both = (dataclasses.replace(one, data=one.data.with_paths(lambda path: "moved")) for one in (stored, asked))
    before, after = (flatten(to_json(one)) for one in both)
    fixed = (*stored.data.fixes, *stored.gradient.fixes)
    changed = [name for name in after if before.get(name) != after[name] and (name in fixed or not name.startswith(MAY_CHANGE))]
    if changed:
        what = ", ".join(f"{name} is {before.get(name)}, asked {after[name]}" for name in changed)
        raise UserError(f"the run cannot go on with another {what}", "Leave it as it was, or start a new run with another --run-dir.")
