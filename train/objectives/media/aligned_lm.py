"""Predicting text about media, and aligning them, in one loss."""

import dataclasses
from typing import Any

from train.experiment import Experiment
from train.objectives.media.media_lm import MediaLanguageModel
from train.objectives.media.towers import OnRows, encoder_objective
from train.objectives.terms import Term
from train.runs.parts import get, parts_of, put, tower_parts, without
from train.sources.media_options import AlignedLM


@dataclasses.dataclass(frozen=True)
class AlignedLanguageModel:
    """A MediaLanguageModel whose encoders and decoder are the towers of a contrastive loss too (after CoCa, Yu et al. 2022).

    The decoder reads the text of a pair once more, by itself and causally, where CoCa's lower half would; encoders with dropout run once
    more too, under other keys. batch: a MediaBatch.
    Terms: those of prediction, and `alignment_loss`, nats per pair of the global batch. Metrics: those of prediction, and
    `alignment_accuracy`, how often the nearest part is the right one. Parameters: an Omni model's, and `alignment`: pools, projections and
    temperature.
    """

    prediction: MediaLanguageModel
    alignment: OnRows
    experiment: Experiment

    def __call__(self, params, batch, key, *, frozen=None, carry=None):
        o = self.experiment.objective
        assert isinstance(o, AlignedLM)
        terms, metrics, carry = self.prediction(params, batch, key, carry=carry)
        aligned, told, _ = self.alignment(towers_of(params, self.experiment), batch, key)
        loss = Term(o.alignment_weight, aligned["loss"].total, aligned["loss"].weight)
        return terms | {"alignment_loss": loss}, metrics | {"alignment_accuracy": told["accuracy"]}, carry


def _shared(experiment: Experiment):
    """Where each part stands that towers and model share: (among a Contrastive's parameters, among the model's)."""
    o, own = experiment.objective, parts_of(experiment)
    assert isinstance(o, AlignedLM)
    return [(path, own[name]) for name, path in tower_parts(o).items()]


def own_parameters(experiment: Experiment, key) -> dict[str, Any]:
    """Fresh parameters of the towers that the model does not have, boxed with logical axis names."""
    found = encoder_objective(experiment).start(key)
    for path, _ in _shared(experiment):
        found = without(found, path)
    return found


def towers_of(params, experiment: Experiment):
    """The towers' parameters, of those of an AlignedLanguageModel."""
    found = params["alignment"]
    for path, own in _shared(experiment):
        part = get(params, own)
        if part is not None:
            found = put(found, path, part)
    return found
