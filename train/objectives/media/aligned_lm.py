"""Predicting text about media, and aligning them, in one loss."""

import dataclasses
from typing import Any

from train.experiment import Experiment
from train.kinds import Bound, Path, realise
from train.objectives.media.alignment import pairing_loss, space_parts, tower_parts
from train.objectives.media.media_lm import MediaLMLoss
from train.objectives.media.options import AlignedLM
from train.objectives.media.views import OnRows
from train.objectives.terms import Term
from train.runs.parts import get, put, without


@dataclasses.dataclass(frozen=True)
class AlignedLMLoss:
    """A MediaLMLoss whose encoders and decoder are the towers of a contrastive loss too (after CoCa, Yu et al. 2022).

    The decoder reads the text of a pair once more, by itself and causally, where CoCa's lower half would; encoders with dropout run once
    more too, under other keys. batch: a MediaBatch.
    Terms: those of prediction, and `alignment_loss`, nats per pair of the global batch. Metrics: those of prediction, and
    `alignment_accuracy`, how often the nearest is the right one. Parameters: a multimodal model's, and `alignment`: pools, projections and
    temperature.
    """

    prediction: MediaLMLoss
    alignment: OnRows
    options: AlignedLM
    parts: dict[str, Path] = dataclasses.field(hash=False)
    """Where those of the model stand."""

    def __call__(self, params, batch, key, *, frozen=None, carry=None):
        terms, metrics, carry = self.prediction(params, batch, key, carry=carry)
        aligned, told, _ = self.alignment(towers_of(params, self.options, self.parts), batch, key)
        loss = Term(self.options.alignment_weight, aligned["loss"].total, aligned["loss"].weight)
        return terms | {"alignment_loss": loss}, metrics | {"alignment_accuracy": told["accuracy"]}, carry


def bind(options: AlignedLM, experiment: Experiment, shards: int) -> Bound:
    model, alignment = realise(experiment.model), pairing_loss(options, experiment)
    prediction = MediaLMLoss(model, options, shards)
    parts = model.parts()

    def start(key):
        return model.start(key) | {"alignment": own_parameters(options, experiment, parts, key)}

    shared = parts | {name: ("alignment", *path) for name, path in space_parts(options).items()}
    return Bound(AlignedLMLoss(prediction, alignment, options, parts), start=start, parts=shared)


def _shared(options: AlignedLM, own: dict[str, Path]) -> list[tuple[Path, Path]]:
    """Where each part stands that towers and model share: (among an AlignmentLoss' parameters, among the model's)."""
    return [(path, own[name]) for name, path in tower_parts(options).items()]


def own_parameters(options: AlignedLM, experiment: Experiment, own: dict[str, Path], key) -> dict[str, Any]:
    """Fresh parameters of the towers that the model does not have, boxed with logical axis names."""
    found = pairing_loss(options, experiment).start(key)
    for path, _ in _shared(options, own):
        found = without(found, path)
    return found


def towers_of(params, options: AlignedLM, own: dict[str, Path]):
    """The towers' parameters, of those of an AlignedLMLoss. own: where the parts of its model stand."""
    found = params["alignment"]
    for path, place in _shared(options, own):
        part = get(params, place)
        if part is not None:
            found = put(found, path, part)
    return found
