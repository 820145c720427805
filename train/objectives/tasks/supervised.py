"""Learning from labelled examples: an encoder by a head, other models by writing the answer."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from model.encoder_decoder import SourceText
from model.heads import Head, score_tokens, vocabulary_table
from model.media.encoders import segment_means
from train.experiment import CausalLM, Experiment
from train.kinds import Bound, Path, home_of, realise
from train.objectives.tasks.heads import projection
from train.objectives.tasks.options import Supervised
from train.objectives.terms import Mean, Term
from train.objectives.text.causal_lm import CausalLMLoss
from train.objectives.text.checks import tokens_of
from train.objectives.text.corruption import row_keys

TASK_HEAD: dict[str, Path] = {"head of the task": ("task_head",)}


def pooled(model, params, hidden_BTD, batch, how: str):
    """The vector of each text, [B, S, D]; zeros where a row has none."""
    texts = batch.items.shape[1]
    if how == "pooler":
        return model.pooled(params, hidden_BTD, batch.segments, batch.positions, texts)
    segments_BT = batch.segments if how == "mean" else jnp.where(batch.positions == 0, batch.segments, 0)
    return segment_means(hidden_BTD, segments_BT, texts)


@dataclasses.dataclass(frozen=True)
class HeadLoss:
    """What an encoder's head answers, against labels.

    batch: HeadBatch. Term `loss`: nats per text (or token), for numbers the squared error. Metrics: accuracy where answers can be right;
    tokens. Parameters: the encoder's, and beside them task_head.
    """

    model: Any
    head: Any
    options: Supervised
    pool: str
    class_weights: tuple[float, ...] = ()

    def start(self, key):
        """Fresh parameters, boxed with logical axis names."""
        config = self.model.config
        own = projection(self.head.width, config.init_std).init(jax.random.fold_in(key, 1), jnp.zeros((1, config.embed_dim)))["params"]
        return self.model.start(key) | {"task_head": own}

    def read(self, params, batch, keys_B, **more):
        """Hidden states [B, T, D]; more: further arguments of the model."""
        where = {"segments_BT": batch.segments, "positions_BT": batch.positions, "keys_B": keys_B}
        if getattr(self.model.config, "token_types", 0):
            where["types_BT"] = batch.types
        return self.model.apply({"params": params}, batch.tokens, **where, **more).hidden_BTD

    def logits(self, params, hidden_BTD, batch, keys_B=None):
        """float32 [B, S, width], or [B, T, width] of a head for tokens."""
        x = hidden_BTD if self.head.by_token else pooled(self.model, params, hidden_BTD, batch, self.pool)
        if keys_B is not None and self.options.head_dropout:
            keep = 1.0 - self.options.head_dropout
            kept = jax.vmap(lambda key: jax.random.bernoulli(jax.random.fold_in(key, _HEAD), keep, x.shape[1:]))(keys_B)
            x = jnp.where(kept, x / keep, 0)
        return projection(self.head.width, self.model.config.init_std).apply({"params": params["task_head"]}, x.astype(jnp.float32))

    def weights(self, batch):
        """float32, of each text or token."""
        if not self.class_weights:
            return batch.weights
        return batch.weights * jnp.asarray(self.class_weights, jnp.float32)[jnp.maximum(batch.labels, 0)]

    def judge(self, logits, batch, smoothing: float):
        """(terms, metrics) of logits."""
        losses, hits = self.head.losses(logits, batch, smoothing)
        weights = self.weights(batch)
        metrics = {"tokens": tokens_of(batch)}
        if hits is not None:
            metrics["accuracy"] = Mean((hits * batch.weights).sum(), batch.weights.sum())
        return {"loss": Term(1.0, (losses * weights).sum(), weights.sum())}, metrics

    def __call__(self, params, batch, key, *, frozen=None, carry=None):
        keys_B = None if key is None else row_keys(key, batch.rows)[1]
        logits = self.logits(params, self.read(params, batch, keys_B), batch, keys_B)
        return *self.judge(logits, batch, self.options.label_smoothing if key is not None else 0.0), carry

    def outputs(self, params, batch):
        """{"values": what the head answers, [B, S, ...] or [B, T, ...]; "items", "segments"}."""
        values = self.head.answers(self.logits(params, self.read(params, batch, None), batch), batch)
        return {"values": values, "items": batch.items, "segments": batch.segments}


_HEAD = 1 << 21
"""Folded into the keys of dropout, apart from those of the layers."""


@dataclasses.dataclass(frozen=True)
class WrittenLoss:
    """What an encoder-decoder writes of its source.

    batch: SourceBatch. Term `loss`: nats per token of the answer. Metrics: accuracy of tokens; tokens.
    """

    model: Any
    options: Supervised
    shards: int = 1

    def __call__(self, params, batch, key, *, frozen=None, carry=None):
        keys_B = None if key is None else row_keys(key, batch.rows)[1]
        hidden_BTD = self.model.apply(
            {"params": params},
            batch.tokens,
            segments_BT=batch.segments,
            positions_BT=batch.positions,
            keys_B=keys_B,
            source=SourceText(batch.sources, batch.source_segments, batch.source_positions),
        ).hidden_BTD
        head, softcap = Head(hidden_BTD, vocabulary_table(params)), self.model.config.logit_softcap
        scores = score_tokens(head, batch.targets, want=("nll", "hit"), softcap=softcap, shards=self.shards)
        weight = batch.weights.sum()
        metrics = {"accuracy": Mean((scores.hit * batch.weights).sum(), weight), "tokens": tokens_of(batch)}
        return {"loss": Term(1.0, (scores.nll * batch.weights).sum(), weight)}, metrics, carry


def bind(options: Supervised, experiment: Experiment, shards: int) -> Bound:
    dataset: Any = home_of(experiment.data)(experiment.data, experiment)
    model = realise(experiment.model)
    if dataset.way == "source":
        return Bound(WrittenLoss(model, options, shards), start=model.start, parts=model.parts())
    if dataset.way == "text":
        return Bound(CausalLMLoss(model, CausalLM(), shards), start=model.start, parts=model.parts())
    pool = options.pool
    if pool == "auto":
        pool = "pooler" if experiment.model.pooler else "mean"  # type: ignore[attr-defined]
    weights: tuple[float, ...] = ()
    if options.class_weights == "balanced" and options.counts:
        total, present = sum(options.counts), sum(count > 0 for count in options.counts)
        weights = tuple(total / (present * count) if count else 0.0 for count in options.counts)
    loss = HeadLoss(model, dataset.head(), options, pool, weights)
    return Bound(loss, start=loss.start, parts=model.parts() | TASK_HEAD, outputs=loss.outputs)
