"""Whether the second text of a pair follows the first."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from model.config import ModelConfig
from model.layers import Dense
from train.experiment import Experiment
from train.kinds import Bound, Path, realise
from train.objectives.terms import Mean, Term
from train.objectives.text.checks import check_encoder, tokens_of
from train.objectives.text.corruption import present, row_keys
from train.objectives.text.options import SentencePairs

PAIR_HEAD: dict[str, Path] = {"head that judges pairs": ("next_sentence",)}


def pair_head(config: ModelConfig) -> nn.Module:
    """From a pooled vector to two logits, float32: of a second text that does not follow the first, and of one that does."""
    return Dense((2,), ("embed", "norm"), config.init_std, jnp.dtype(jnp.float32), bias=True)


def start_pair_head(config: ModelConfig, key) -> dict[str, Any]:
    """Fresh parameters beside the encoder's, boxed with logical axis names: next_sentence/kernel [D, 2] and bias."""
    return {"next_sentence": pair_head(config).init(jax.random.fold_in(key, 1), jnp.zeros((1, config.embed_dim)))["params"]}


def judged(model, params, hidden_BTD, batch):
    """Of each pair, float32 [B]: nats of its label, whether it is the likelier one, and 0 where the row does not count."""
    pooled_BD = model.pooled(params, hidden_BTD, batch.segments, batch.positions, 1)[:, 0]
    logits_B2 = pair_head(model.config).apply({"params": params["next_sentence"]}, pooled_BD.astype(jnp.float32))
    nll_B = -jnp.take_along_axis(jax.nn.log_softmax(logits_B2), batch.follows[:, None], axis=1)[:, 0]
    return nll_B, (logits_B2.argmax(-1) == batch.follows).astype(jnp.float32), present(batch).any(1).astype(jnp.float32)


@dataclasses.dataclass(frozen=True)
class SentencePairsLoss:
    """Next sentence (Devlin et al. 2019, sec. 3.1) or sentence order (Lan et al. 2020, sec. 3.1): the data decides what does not follow.

    batch: TextBatch of pairs. Term `loss`: nats per pair. Metrics: accuracy, tokens.
    """

    model: Any
    options: SentencePairs

    def __call__(self, params, batch, key, *, frozen=None, carry=None):
        keys_B = row_keys(key, batch.rows)[1]
        where = {"segments_BT": batch.segments, "positions_BT": batch.positions, "types_BT": batch.types}
        hidden_BTD = self.model.apply({"params": params}, batch.tokens, keys_B=keys_B, **where).hidden_BTD
        nll_B, hit_B, counts_B = judged(self.model, params, hidden_BTD, batch)
        count = counts_B.sum()
        metrics = {"accuracy": Mean((hit_B * counts_B).sum(), count), "tokens": tokens_of(batch)}
        return {"loss": Term(1.0, (nll_B * counts_B).sum(), count)}, metrics, carry


def bind(options: SentencePairs, experiment: Experiment, shards: int) -> Bound:
    check_encoder(options, experiment, judges=True)
    model = realise(experiment.model)
    loss = SentencePairsLoss(model, options)
    return Bound(loss, start=lambda key: model.start(key) | start_pair_head(model.config, key), parts=model.parts() | PAIR_HEAD)
