"""A family of models of one's own in one file: each prediction from the mean of the tokens before it, which needs no attention."""

import dataclasses
from typing import ClassVar, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax.nn.initializers import normal

from model.config import ModelConfig
from train.experiment import Checkpoints, Evaluation, Experiment, Schedule


@dataclasses.dataclass(frozen=True)
class BagConfig(ModelConfig):
    """A bag of words."""

    home: ClassVar[str] = ":Bag"
    generates: ClassVar[bool] = False

    hidden: int = 24
    """Width of its one hidden layer."""


class BagOutput(NamedTuple):
    hidden_BTD: jnp.ndarray
    router: None = None


class Table(nn.Module):
    """A vector for each token."""

    rows: int
    width: int

    @nn.compact
    def __call__(self):
        return self.param("table", nn.with_logical_partitioning(normal(0.02), ("vocab", "embed")), (self.rows, self.width), jnp.float32)


class Bag(nn.Module):
    config: BagConfig

    @nn.compact
    def __call__(self, tokens_BT, *, segments_BT=None, positions_BT=None, keys_B=None):
        c = self.config
        table_VD = Table(c.vocab_size, c.embed_dim, name="embedding")()
        same_BTS = jnp.tril(segments_BT[:, :, None] == segments_BT[:, None, :]).astype(jnp.float32)
        mean_BTD = (same_BTS @ table_VD[tokens_BT]) / jnp.maximum(same_BTS.sum(-1, keepdims=True), 1.0)
        hidden_BTF = nn.relu(nn.Dense(c.hidden, name="up")(mean_BTD))
        return BagOutput(mean_BTD + nn.Dense(c.embed_dim, name="down")(hidden_BTF))

    @nn.nowrap
    def start(self, key):
        return self.init(key, jnp.zeros((1, 1), jnp.int32), segments_BT=jnp.ones((1, 1), jnp.int32))["params"]

    @nn.nowrap
    def parts(self):
        return {name: (name,) for name in ("embedding", "up", "down")}

    @nn.nowrap
    def kernels(self, platform, *, split_positions=False):
        return []

    @nn.nowrap
    def training_flops_per_token(self, length):
        return None


def get_config(arg: str = "") -> Experiment:
    return Experiment(
        steps=4,
        batch_size=8,
        model=BagConfig(context_length=32, embed_dim=16, num_heads=1),
        schedule=Schedule(warmup_steps=1),
        evaluation=Evaluation(every=2, rows=8),
        checkpoints=Checkpoints(every=2),
    )
