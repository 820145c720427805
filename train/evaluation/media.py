"""How well a model answers about each medium, and how well without seeing it."""

from collections.abc import Callable
from typing import Any

import numpy as np

from train.evaluation.retrieval import embed, embed_texts, recalls, zero_shot
from train.evaluation.totals import Evaluator
from train.generation.media import WRITTEN, write_all
from train.objectives.media.aligned_lm import towers_of
from train.objectives.media.alignment import pairing_loss
from train.objectives.media.views import labelled
from train.objectives.terms import means


def evaluate_media(dataset: Any, evaluator: Evaluator, params, sources: list, *, rows: int = 0, between: Callable[[], None]) -> dict:
    """Of MediaLM {"loss", "accuracy" (of tokens), "exact" (of whole answers), <name>: exact answers of each set of the validation data,
    "blind_<name>": the same with its media hidden from the model, "blind": the mean of those, "samples"}; where media are written, as part
    <name> the share of descriptions that `recognise` finds in what was drawn after them, and as "coded_<name>" the same of the true media
    after their codes, which no model can beat by much; where pairs are aligned too, recalls. Of other objectives the means of what they
    measure and, where pairs are aligned, recalls. {} where there is nothing to measure on. rows: of each set, 0 for all.

    dataset: a MediaDataset of train/sources/media/datasets.py.
    """
    sets = dataset.validation(sources)
    if not sets:
        return {}
    experiment = dataset.experiment
    answers = experiment.objective.generates
    totals: dict[str, Any] = {}
    exact: dict[str, float] = {}
    blind: dict[str, float] = {}
    samples = 0
    tokenizer = sources[0].tokenizer()
    for name, (source, split) in sets.items():
        for hidden, found in ((False, exact), (True, blind)):
            if not answers and (hidden or "/" in name):
                continue
            batches = dataset.batches_of([source], tokenizer, split, blind=hidden)
            if hidden and ("/" in name or not batches.has_media):
                continue
            count = min(rows or batches.rows_per_epoch, batches.rows_per_epoch)
            medium = dataset.written(source)
            if medium and answers:
                between()
                written = write_all(experiment, params, tokenizer, source, split, medium, min(rows or WRITTEN, WRITTEN))
                found[name], found[f"coded_{name}"] = written.right, written.coded
                if "/" in name:
                    continue
            own = evaluator.totals(params, batches.batch, count, between=between)
            if medium:
                own.pop("exact", None)  # which no one writes to the letter
            elif answers:
                if own["exact"][1]:
                    found[name] = float(own["exact"][0] / own["exact"][1])
                samples += int(own["exact"][1]) if not hidden and "/" not in name else 0
            if not hidden and "/" not in name:
                for metric, value in own.items():
                    totals[metric] = totals.get(metric, 0) + value
    measured = means(totals)
    if "loss" not in measured:
        return {}
    pair = getattr(experiment.objective, "pair", None)
    again: dict[str, float] = {}
    if pair:
        towers = towers_of(params, experiment.objective, evaluator.bound.parts) if answers else params
        again = _found_again(dataset, towers, sources, sets, rows)
    if not answers:
        return measured | again
    shown = {"blind": sum(blind.values()) / len(blind)} | {f"blind_{name}": value for name, value in blind.items()} if blind else {}
    return measured | exact | shown | again | {"samples": samples}


def _found_again(dataset: Any, params, sources: list, sets: dict, rows: int) -> dict[str, float]:
    """Retrieval over all pairs of the validation splits; where texts are the right side, classes by their names too."""
    experiment = dataset.experiment
    objective, tokenizer, found = pairing_loss(experiment.objective, experiment), sources[0].tokenizer(), dict[str, float]()
    sets = {name: one for name, one in sets.items() if "/" not in name}
    for name, (source, split) in sets.items():
        batches = dataset.batches_of([source], tokenizer, split)
        count, size = min(rows or batches.rows_per_epoch, batches.rows_per_epoch), experiment.batch_size
        made = [batches.batch(first, min(size, count - first)) for first in range(0, count, size)]
        left, right = embed(objective, params, made)
        if not len(left):
            continue
        prefix = "" if len(sets) == 1 else f"{name}/"
        found |= {f"{prefix}{key}": value for key, value in recalls(left, right).items()}
        classes = getattr(source, "classes", [])
        if classes and experiment.objective.right == "text":
            labels = np.concatenate([_labels(objective, experiment.objective.left, batch) for batch in made])
            named = embed_texts(objective, params, tokenizer, list(classes))
            found[f"{prefix}zero_shot"] = zero_shot(left[labels >= 0], named, labels[labels >= 0])
    return found


def _labels(objective, left: Any, batch) -> np.ndarray:
    """The class of each pair of a batch, in the order of `embed`."""
    valid = np.asarray(objective.view(batch).valid)
    return np.asarray(labelled(batch, left, valid.shape[1]).labels)[valid > 0]
