"""Objectives: what a step minimises, one small file each.

An objective is a frozen dataclass, its modules and options bound when it is made, with a pure call

    objective(params, batch, key, *, frozen=None, carry=None) -> terms, metrics, carry

terms: name -> Term (train/objectives/terms.py), among them `loss`, whose weight counts the tokens. What is minimised is the sum over terms
of coefficient * total / weight, both totals over the *global* batch. Weights depend on the batch and key only, never on params.
metrics: name -> Mean. key: a random key, or None for a deterministic pass (evaluation). frozen: arrays that are read but not trained.
carry: what one step hands the next. `unit` names what the sums run over.
"""

from jax.sharding import Mesh

from data.errors import UserError
from model.attention import layer_kernels
from model.transformer import Decoder
from train import experiment
from train.mesh import row_shards
from train.objectives.causal_lm import CausalLM
from train.parameters import critic_of
from train.rl.experiment import PolicyGradient, PreferenceLearning, RewardModelling
from train.rl.policy_gradient import ClippedPolicyGradient
from train.rl.preference import PreferencePolicy
from train.rl.reward_model import ComparedReward


def make_objective(options: experiment.Experiment, mesh: Mesh):
    """The objective that an experiment names, with its model bound."""
    attention_kernels(options, mesh)
    model = Decoder(options.model)
    match options.objective:
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
        "Choose one of train.experiment or train.rl.experiment in the config file.",
    )


def attention_kernels(options: experiment.Experiment, mesh: Mesh) -> list[str]:
    """The attention kernels that training uses on a mesh; UserError when the one asked for cannot."""
    try:
        return layer_kernels(options.model, mesh.devices.flat[0].platform, split_positions=mesh.shape["context"] > 1)
    except ValueError as error:
        raise UserError(str(error)) from None
