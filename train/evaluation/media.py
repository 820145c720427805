"""How well a model answers about each medium, and how well without seeing it."""

from collections.abc import Callable
from typing import Any

import numpy as np

from data.media.world import WRITING, World
from train.evaluation.evaluate import add_up, evaluation_rows
from train.evaluation.retrieval import embed, embed_texts, recalls, zero_shot
from train.experiment import Experiment
from train.generation.media import WRITTEN, write_all
from train.objectives.media.aligned_lm import towers_of
from train.objectives.media.towers import encoder_objective, labelled
from train.objectives.terms import means
from train.sources.media import MediaSource, judged, make_media_batches
from train.sources.media_options import MediaLM, Pairing


def evaluate_media(
    evaluate, params, sources: list[MediaSource], experiment: Experiment, mesh, *, rows: int = 0, between: Callable[[], None]
) -> dict:
    """Of MediaLM {"loss", "accuracy" (of tokens), "exact" (of whole answers), <name>: exact answers of each part that it is judged by,
    "blind_<name>": the same with its media kept from the model, "blind": the mean of those, "samples"}; where media are written, as part
    <name> the share of descriptions that `recognise` finds in what was drawn after them, and as "coded_<name>" the same of the true media
    after their codes, which no model can beat by much; where parts are aligned too, recalls. Of other objectives the means of what they
    measure and, where parts are aligned, recalls. {} where nothing is there to judge by. rows: of each part, 0 for all.
    """
    if not judged(experiment, sources):
        return {}
    writes = isinstance(experiment.objective, MediaLM)
    totals: dict[str, Any] = {}
    exact: dict[str, float] = {}
    blind: dict[str, float] = {}
    samples = 0
    tokenizer, size = sources[0].tokenizer(), evaluation_rows(experiment, mesh)
    for name, (source, split) in judged(experiment, sources).items():
        for kept, found in ((False, exact), (True, blind)):
            if not writes and (kept or "/" in name):
                continue
            batches = make_media_batches(experiment, [source], tokenizer, split, blind=kept)
            if kept and ("/" in name or not batches.has_media):
                continue
            count = min(rows or batches.rows_per_epoch, batches.rows_per_epoch)
            medium = WRITING.get(source.tasks[0]) if isinstance(source, World) else None
            if isinstance(source, World) and medium and writes:
                between()
                written = write_all(experiment, params, tokenizer, source, split, medium, min(rows or WRITTEN, WRITTEN))
                found[name], found[f"coded_{name}"] = written.right, written.coded
                if "/" in name:
                    continue
            own = add_up(evaluate, params, batches.batch, count, size, mesh, between)
            if medium:
                own.pop("exact", None)  # which no one writes to the letter
            elif writes:
                if own["exact"][1]:
                    found[name] = float(own["exact"][0] / own["exact"][1])
                samples += int(own["exact"][1]) if not kept and "/" not in name else 0
            if not kept and "/" not in name:
                for metric, value in own.items():
                    totals[metric] = totals.get(metric, 0) + value
    measured = means(totals)
    if "loss" not in measured:
        return {}
    again: dict[str, float] = {}
    if isinstance(experiment.objective, Pairing):
        again = _found_again(towers_of(params, experiment) if writes else params, sources, experiment, rows)
    if not writes:
        return measured | again
    shown = {"blind": sum(blind.values()) / len(blind)} | {f"blind_{name}": value for name, value in blind.items()} if blind else {}
    return measured | exact | shown | again | {"samples": samples}


def _found_again(params, sources: list[MediaSource], experiment: Experiment, rows: int) -> dict[str, float]:
    """Retrieval over all pairs of the validation splits; where texts are the right side, classes by their names too."""
    objective, tokenizer, found = encoder_objective(experiment), sources[0].tokenizer(), dict[str, float]()
    assert isinstance(experiment.objective, Pairing)
    parts = {name: part for name, part in judged(experiment, sources).items() if "/" not in name}
    for name, (source, split) in parts.items():
        batches = make_media_batches(experiment, [source], tokenizer, split)
        count, size = min(rows or batches.rows_per_epoch, batches.rows_per_epoch), experiment.batch_size
        made = [batches.batch(first, min(size, count - first)) for first in range(0, count, size)]
        left, right = embed(objective, params, made)
        if not len(left):
            continue
        prefix = "" if len(parts) == 1 else f"{name}/"
        found |= {f"{prefix}{key}": value for key, value in recalls(left, right).items()}
        classes = getattr(source, "classes", [])
        if classes and experiment.objective.right == "text":
            labels = np.concatenate([_labels(experiment, batch) for batch in made])
            named = embed_texts(objective, params, tokenizer, list(classes))
            found[f"{prefix}zero_shot"] = zero_shot(left[labels >= 0], named, labels[labels >= 0])
    return found


def _labels(experiment: Experiment, batch) -> np.ndarray:
    """The class of each pair of a batch, in the order of `embed`."""
    valid = np.asarray(encoder_objective(experiment).view(batch).valid)
    assert isinstance(experiment.objective, Pairing)
    labels = np.asarray(labelled(batch, experiment.objective.left, valid.shape[1]).labels)
    return labels[valid > 0]
