"""How well a model answers about each medium, and how well without seeing it."""

from collections.abc import Callable
from typing import Any

from train.evaluate import add_up, evaluation_rows
from train.experiment import Experiment
from train.omni.experiment import MediaLM
from train.omni.sources import MediaSource, judged, make_media_batches


def evaluate_media(
    evaluate, params, sources: list[MediaSource], experiment: Experiment, mesh, *, rows: int = 0, between: Callable[[], None]
) -> dict:
    """Of MediaLM {"loss", "accuracy" (of tokens), "exact" (of whole answers), <name>: exact answers of each part that it is judged by,
    "blind_<name>": the same with its media kept from the model, "blind": the mean of those, "samples"}; of others the means of what they
    measure. rows: of each part, 0 for all.
    """
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
            own = add_up(evaluate, params, batches.batch, count, size, mesh, between)
            if writes:
                found[name] = _mean(own["exact"])
                samples += int(own["exact"][1]) if not kept and "/" not in name else 0
            if not kept and "/" not in name:
                for metric, value in own.items():
                    totals[metric] = totals.get(metric, 0) + value
    if not writes:
        return {name: _mean(value) for name, value in totals.items()}
    shown = {"blind": sum(blind.values()) / len(blind)} | {f"blind_{name}": value for name, value in blind.items()} if blind else {}
    return {name: _mean(value) for name, value in totals.items()} | exact | shown | {"samples": samples}


def _mean(value) -> float:
    total, weight = value
    return float(total / max(weight, 1e-8))
