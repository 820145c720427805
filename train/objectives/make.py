"""The objective of an experiment. It stands apart from the package's beginning, since objectives import that themselves."""

import dataclasses
from typing import Any

from jax.sharding import Mesh

from data.errors import UserError
from model.attention.dispatch import layer_kernels
from model.transformer import Decoder
from train import experiment
from train.devices.mesh import row_shards
from train.objectives.media.aligned_lm import AlignedLanguageModel
from train.objectives.media.media_lm import MediaLanguageModel
from train.objectives.media.towers import encoder_objective
from train.objectives.preference.preference import PreferencePolicy
from train.objectives.preference.reward_model import ComparedReward
from train.objectives.text.causal_lm import CausalLM
from train.optimizers.build import without_gradient
from train.rl.options import PolicyGradient, PreferenceLearning, RewardModelling
from train.rl.policy.policy_gradient import ClippedPolicyGradient
from train.runs.parameters import critic_of
from train.sources.media_options import ENCODER_OBJECTIVES, AlignedLM, MediaLM


@dataclasses.dataclass(frozen=True)
class PartlyFrozen:
    """An objective some of whose parameters are constants."""

    objective: Any
    names: tuple[str, ...]

    def __call__(self, params, batch, key, *, frozen=None, carry=None):
        return self.objective(without_gradient(params, self.names), batch, key, frozen=frozen, carry=carry)


def make_objective(options: experiment.Experiment, mesh: Mesh):
    """The objective that an experiment names, with its model bound."""
    whole = _whole_objective(options, mesh)
    return PartlyFrozen(whole, options.frozen) if options.frozen else whole


def _whole_objective(options: experiment.Experiment, mesh: Mesh):
    attention_kernels(options, mesh)
    model = Decoder(options.model)
    match options.objective:
        case _ if isinstance(options.objective, ENCODER_OBJECTIVES):
            return encoder_objective(options)
        case AlignedLM():
            return AlignedLanguageModel(MediaLanguageModel(model, options.objective, row_shards(mesh)), encoder_objective(options), options)
        case MediaLM():
            return MediaLanguageModel(model, options.objective, row_shards(mesh))
        case experiment.CausalLM():
            return CausalLM(model, options.objective, row_shards(mesh))
        case RewardModelling():
            return ComparedReward(model, options.objective)
        case PreferenceLearning():
            return PreferencePolicy(model, options.objective, row_shards(mesh))
        case PolicyGradient():
            return ClippedPolicyGradient(model, critic_of(options), options.objective, row_shards(mesh))
    raise UserError(
        f"objective: {type(options.objective).__name__} is no objective",
        "Choose one of train.experiment or train.rl.options in the config file.",
    )


def attention_kernels(options: experiment.Experiment, mesh: Mesh) -> list[str]:
    """The attention kernels that training uses on a mesh; UserError when the one asked for cannot."""
    try:
        return layer_kernels(options.model, mesh.devices.flat[0].platform, split_positions=mesh.shape["context"] > 1)
    except ValueError as error:
        raise UserError(str(error)) from None
