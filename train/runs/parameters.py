"""The fresh parameters of an experiment: a decoder's, and what its objective keeps beside them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from data.errors import UserError
from model.config import ModelConfig
from model.critic import Critic, reward_head
from model.media.omni import Omni
from model.media.omni_config import OmniConfig
from model.transformer import Decoder
from train.experiment import Experiment
from train.objectives.media.aligned_lm import own_parameters
from train.sources.media_options import ENCODER_OBJECTIVES, AlignedLM, Codebook
from train.objectives.media.towers import encoder_objective
from train.optimizers.build import frozen_leaves
from train.rl.games.options import AlphaZero, BoardGame
from train.rl.options import PolicyGradient, RewardModelling

Parameters = Callable[[Any], Any]
"""From a random key to a tree of parameters, boxed with their logical axis names."""


def decoder_parameters(config: ModelConfig) -> Parameters:
    """A decoder's alone."""
    return lambda key: Decoder(config).init(key, jnp.zeros((1, 1), jnp.int32))["params"]


def parameters_of(experiment: Experiment) -> Parameters:
    """What the experiment trains: the decoder, and a critic or the head of a reward model beside it, under names of their own."""
    config, decoder = experiment.model, decoder_parameters(experiment.model)
    if isinstance(experiment.objective, ENCODER_OBJECTIVES):
        return encoder_objective(experiment).start
    if isinstance(config, OmniConfig):
        encoders = Omni(config).start
        if isinstance(experiment.objective, AlignedLM):
            return lambda key: decoder(key) | encoders(key) | {"alignment": own_parameters(experiment, key)}
        return lambda key: decoder(key) | encoders(key)
    match experiment.objective:
        case PolicyGradient():
            critic = critic_of(experiment)
            return lambda key: decoder(key) | critic.start(key)
        case RewardModelling():
            return lambda key: decoder(key) | {"value": reward_head(config).init(key, jnp.zeros((1, config.embed_dim)))["params"]}
        case AlphaZero() as options:
            from train.rl.games.alphazero import network_parameters  # with mctx, which takes a second to load
            from train.rl.games.games import make_game

            assert isinstance(experiment.data, BoardGame)
            return network_parameters(make_game(experiment.data), options)
    return decoder


def check_frozen(experiment: Experiment) -> None:
    """UserError where a name in `frozen` is that of no parameter, or nothing would be trained."""
    if not experiment.frozen:
        return
    params = nn.unbox(jax.eval_shape(parameters_of(experiment), jax.random.key(0)))
    for name in experiment.frozen:
        if not any(jax.tree.leaves(frozen_leaves(params, (name,)))):
            raise UserError(f"frozen: no parameter's name begins with {name}", f"Parts of the model are {', '.join(sorted(params))}.")
    if all(jax.tree.leaves(frozen_leaves(params, experiment.frozen))):
        raise UserError("frozen: nothing would be trained", "Leave some of the names out.")


def critic_of(experiment: Experiment) -> Critic:
    """The critic of an experiment whose objective is a PolicyGradient."""
    options = experiment.objective
    assert isinstance(options, PolicyGradient)
    return Critic(experiment.model, options.critic, options.critic_layers, options.critic_detached)


def carry_of(experiment: Experiment):
    """What one step hands the next, at the start: a tree of arrays, or None."""
    o = experiment.objective
    if isinstance(o, Codebook):
        return jnp.ones(o.codes)
    if not isinstance(o, PolicyGradient):
        return None
    carry = {"kl_coefficient": jnp.float32(o.kl_coefficient), "steps": jnp.int32(0)}
    return carry | ({"scores": jnp.zeros(3)} if o.scale_scores else {})
