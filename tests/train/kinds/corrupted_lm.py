"""An objective of one's own in one file: the original of every corrupted token, from what stands before it and its corruption."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from model.config import ModelConfig
from model.heads import Head, score_tokens, vocabulary_table
from train.experiment import Checkpoints, Evaluation, Experiment, Samples, Schedule
from train.kinds import Bound, Objective, realise
from train.objectives.terms import Mean, Term


@dataclasses.dataclass(frozen=True)
class CorruptedLM(Objective):
    """Reconstruction of corrupted text."""

    home: ClassVar[str] = ":bind"

    rate: float = 0.3
    """Share of tokens that are corrupted, above 0, at most 1."""


def bind(options: CorruptedLM, experiment: Experiment, shards: int) -> Bound:
    model = realise(experiment.model)

    def loss(params, batch, key, *, frozen=None, carry=None):
        key = jax.random.key(0) if key is None else key  # an evaluation corrupts the same places each time
        keys_B, length = jax.vmap(lambda row: jax.random.fold_in(key, row))(batch.rows), batch.tokens.shape[1]
        hidden_BT = jax.vmap(lambda key: jax.random.uniform(key, (length,)))(keys_B) < options.rate
        random_BT = jax.vmap(lambda key: jax.random.randint(jax.random.fold_in(key, 0), (length,), 0, 256))(keys_B)
        seen_BT = jnp.where(hidden_BT, random_BT, batch.tokens)
        where = {"segments_BT": batch.segments, "positions_BT": batch.positions}
        output = model.apply({"params": params}, seen_BT, **where)
        scores = score_tokens(Head(output.hidden_BTD, vocabulary_table(params)), batch.tokens, want=("nll", "hit"), shards=shards)
        weights_BT = hidden_BT * (batch.weights > 0)
        weight = weights_BT.sum().astype(jnp.float32)
        terms = {"loss": Term(1.0, (scores.nll * weights_BT).sum(), weight)}
        return terms, {"accuracy": Mean((scores.hit * weights_BT).sum(), weight)}, carry

    return Bound(loss, start=model.start, parts=model.parts())


def get_config(arg: str = "") -> Experiment:
    return Experiment(
        steps=4,
        batch_size=8,
        model=ModelConfig(context_length=32, num_layers=1, embed_dim=16, num_heads=2),
        objective=CorruptedLM(rate=0.5),
        schedule=Schedule(warmup_steps=1),
        evaluation=Evaluation(every=2, rows=8),
        checkpoints=Checkpoints(every=2),
        samples=Samples(tokens=4),
    )
