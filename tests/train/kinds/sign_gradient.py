"""A gradient of one's own in one file: the sign of the exact one."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from data.errors import UserError
from model.config import ModelConfig
from train.experiment import SGD, Checkpoints, Evaluation, Experiment, Samples, Schedule
from train.kinds import Gradient
from train.step.gradients import plain


@dataclasses.dataclass(frozen=True)
class SignGradient(Gradient):
    """signSGD (Bernstein et al. 2018): every parameter moves by the same amount."""

    home: ClassVar[str] = ":sign_of"

    scale: float = 1.0
    """Of each entry."""


def sign_of(options: SignGradient, experiment: Experiment, unit: str):
    if unit == "batch":
        raise UserError("gradient: SignGradient needs a loss of tokens or examples", "Choose another objective.")

    def gradient(loss, params, batch, key, *, frozen=None, carry=None):
        gradients, metrics, carry = plain(loss, params, batch, key, frozen=frozen, carry=carry)
        return jax.tree.map(lambda x: options.scale * jnp.sign(x), gradients), metrics, carry

    return gradient


def get_config(arg: str = "") -> Experiment:
    return Experiment(
        steps=4,
        batch_size=8,
        model=ModelConfig(context_length=32, num_layers=1, embed_dim=16, num_heads=2),
        gradient=SignGradient(scale=0.5),
        optimizer=SGD(learning_rate=1e-3, clip_norm=0.0),
        schedule=Schedule(warmup_steps=1),
        evaluation=Evaluation(every=2, rows=8),
        checkpoints=Checkpoints(every=2),
        samples=Samples(tokens=4),
    )
