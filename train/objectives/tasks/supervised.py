"""Learning from labelled examples: an encoder by a head, other models by writing the answer."""

import dataclasses
import zlib
from typing import Any

import jax
import jax.numpy as jnp

from data.errors import UserError
from model.config import ModelConfig
from model.media.encoders import segment_means
from train.experiment import CausalLM, Experiment
from train.kinds import Bound, Path, home_of, realise
from train.objectives.tasks.comparing import Comparing
from train.objectives.tasks.fusion import ENCODERS, Fusion
from train.objectives.tasks.heads import Choice, Classes, JudgedClasses, Number, SeveralLabels, Span, projection
from train.objectives.tasks.ngrams import NGRAMS, NGrams
from train.objectives.tasks.options import Supervised
from train.objectives.tasks.written import ContinuedLoss, WrittenLoss
from train.objectives.terms import Mean, Term
from train.objectives.text.causal_lm import CausalLMLoss
from train.objectives.text.checks import tokens_of
from train.objectives.text.corruption import row_keys

TASK_HEAD: Path = ("task_head",)
SHOWN_LABELS = 8
"""Of a head, in its name."""


def pooled(model, params, hidden_BTD, batch, how: str):
    """The vector of each text, [B, S, D]; zeros where a row has none."""
    texts = batch.items.shape[1]
    if how == "pooler":
        return model.pooled(params, hidden_BTD, batch.segments, batch.positions, texts)
    segments_BT = batch.segments if how == "mean" else jnp.where(batch.positions == 0, batch.segments, 0)
    return segment_means(hidden_BTD, segments_BT, texts)


@dataclasses.dataclass(frozen=True)
class HeadLoss(Comparing):
    """What an encoder's head answers, against labels.

    batch: HeadBatch. Term `loss`: nats per text (or token), for numbers the squared error. `divergence`: where the batch's shift is a
    Contrast; `dropout_divergence`: with r_drop. Metrics: accuracy where answers can be right; tokens. Parameters: the encoder's, and beside
    them task_head. fusion: how numbers beside the texts are joined with them; None: there are none. ngrams: what n-grams add to the head's
    answer; None: nothing.
    """

    model: Any
    head: Any
    options: Supervised
    pool: str
    class_weights: tuple[float, ...] = ()
    fusion: Fusion | None = None
    ngrams: NGrams | None = None

    def start(self, key):
        """Fresh parameters, boxed with logical axis names."""
        config = self.model.config
        width = config.embed_dim if self.fusion is None else self.fusion.width(config.embed_dim)
        own = projection(self.head.width, config.init_std).init(jax.random.fold_in(key, 1), jnp.zeros((1, width)))["params"]
        if self.fusion is not None:
            own = own | self.fusion.start(jax.random.fold_in(key, 2), config.init_std)
        if self.ngrams is not None:
            own = own | {NGRAMS: self.ngrams.start()}
        return self.model.start(key) | {"task_head": own}

    def read(self, params, batch, keys_B, **more):
        """Hidden states [B, T, D], None where the head reads no text; more: further arguments of the model."""
        if self.fusion is not None and not self.fusion.reads_text:
            return None
        where = {"segments_BT": batch.segments, "positions_BT": batch.positions, "keys_B": keys_B}
        if batch.shift is not None:
            where["shift_BTW"] = batch.shift
        if getattr(self.model.config, "token_types", 0):
            where["types_BT"] = batch.types
        return self.model.apply({"params": params}, batch.tokens, **where, **more).hidden_BTD

    def logits(self, params, hidden_BTD, batch, keys_B=None):
        """float32 [B, S, width], or [B, T, width] of a head for tokens."""
        x = hidden_BTD
        if x is not None and not self.head.by_token:
            x = pooled(self.model, params, x, batch, self.pool)
        if self.fusion is not None:
            beside_BSK = self.fusion.text_alone(batch.items.shape) if batch.beside is None else batch.beside
            x = self.fusion.join(params["task_head"], x, beside_BSK, keys_B, self.model.config.embed_dim)
        found = self.project(params, x, keys_B)
        return found if self.ngrams is None else found + self.ngrams(params["task_head"][NGRAMS], batch, keys_B)

    def project(self, params, x, keys_B=None):
        """What the head makes of the vectors it reads; keys_B: of dropout."""
        if keys_B is not None and self.options.head_dropout:
            keep = 1.0 - self.options.head_dropout
            kept = jax.vmap(lambda key: jax.random.bernoulli(jax.random.fold_in(key, _HEAD), keep, x.shape[1:]))(keys_B)
            x = jnp.where(kept, x / keep, 0)
        own = {name: part for name, part in params["task_head"].items() if name not in (ENCODERS, NGRAMS)}
        return projection(self.head.width, self.model.config.init_std).apply({"params": own}, x.astype(jnp.float32))

    def weights(self, batch):
        """float32, of each text or token."""
        if not self.class_weights:
            return batch.weights
        weights = jnp.asarray(self.class_weights, jnp.float32)[jnp.maximum(self.head.labels(batch), 0)]
        if isinstance(self.head, JudgedClasses):  # whose ratio of probabilities already makes up for how often an answer was given
            weights = jnp.where(self.head.judged(batch), 1.0, weights)
        return batch.weights * weights

    def judge(self, logits, batch, smoothing: float, share=1.0):
        """(terms, metrics) of logits. share: of each loss that counts."""
        losses, hits = self.head.losses(logits, batch, smoothing)
        weights = self.weights(batch)
        metrics = {"tokens": tokens_of(batch)}
        if hits is not None:
            metrics["accuracy"] = Mean((hits * batch.weights).sum(), batch.weights.sum())
        return {"loss": Term(1.0, (losses * share * weights).sum(), weights.sum())}, metrics

    def __call__(self, params, batch, key, *, frozen=None, carry=None):
        if key is not None and self.options.mixup:
            return *self._mixed(params, batch, key), carry
        return super().__call__(params, batch, key, frozen=frozen, carry=carry)

    def forward(self, params, batch, key, *, dropout: bool = True, streams: list | None = None):
        """The logits of a pass; without a key, without dropout. streams: as of the model."""
        keys_B = None if key is None or not dropout else row_keys(key, batch.rows)[1]
        return self.logits(params, self.read(params, batch, keys_B, streams=streams), batch, keys_B)

    def judged(self, params, batch, answers, training: bool = True):
        return self.judge(answers, batch, self.options.label_smoothing if training else 0.0)

    def divergence(self, own, theirs, batch, temperature: float = 1.0, symmetric: bool = False):
        """(total, weight), of another pass's logits from one's own: nats per text or token, of numbers the squared error."""
        weights = self.weights(batch)
        # Of numbers, the temperature cancels out against its square.
        return (self.head.divergence(theirs / temperature, own / temperature, batch, symmetric) * weights).sum(), weights.sum()

    def _mixed(self, params, batch, key):
        """The loss of vectors that are mixed of two texts, each label counting as its text does. Metrics are of the first text."""
        keys_B = row_keys(key, batch.rows)[1]
        hidden_BTD = self.read(params, batch, keys_B)
        x_BSD = pooled(self.model, params, hidden_BTD, batch, self.pool)
        own, other = mixing(jax.random.fold_in(key, _MIXING), batch.weights, self.options.mixup)
        x_BSD = own[..., None] * x_BSD + (1 - own[..., None]) * by_number(x_BSD, other)
        logits = self.project(params, x_BSD, keys_B)
        smoothing = self.options.label_smoothing
        terms, metrics = self.judge(logits, batch, smoothing, own)
        partner = batch._replace(labels=by_number(batch.labels, other), weights=by_number(batch.weights, other))
        more, _ = self.judge(logits, partner, smoothing, 1 - own)
        return {"loss": terms["loss"]._replace(total=terms["loss"].total + more["loss"].total)}, metrics

    def outputs(self, params, batch):
        """{"values": what the head answers, [B, S, ...] or [B, T, ...]; "items", "segments"}."""
        values = self.head.answers(self.logits(params, self.read(params, batch, None), batch), batch)
        return {"values": values, "items": batch.items, "segments": batch.segments}


_HEAD = 1 << 21
"""Folded into the keys of dropout, apart from those of the layers."""
_MIXING = 0x6D697875
"""Folded into the key of a step for what is mixed."""


def mixing(key, weights_BS, alpha: float):
    """(share of each text in its mixture, float32 [B, S], from Beta(alpha, alpha); number of the text that it is mixed with, int32 [B, S]).

    Numbers are below B * S. Every text with a weight is mixed with another one, each with a different one; those without stay as they are.
    """
    draws, share = jax.random.split(key)
    there_N = weights_BS.reshape(-1) > 0
    count = there_N.sum()
    order_N = jnp.argsort(jnp.where(there_N, jax.random.uniform(draws, there_N.shape), 2.0))
    place_N = jnp.arange(len(there_N))
    next_N = order_N[jnp.where(place_N + 1 < count, place_N + 1, 0)]
    other_N = place_N.at[order_N].set(jnp.where(place_N < count, next_N, order_N))
    own_BS = jax.random.beta(share, alpha, alpha, weights_BS.shape)
    return jnp.where(weights_BS > 0, own_BS, 1.0), other_N.reshape(weights_BS.shape)


def by_number(x, number_BS):
    """Of x [B, S, ...], the texts of these numbers."""
    return x.reshape(-1, *x.shape[2:])[number_BS]


def check_labels(options: Supervised, head: Any, model: ModelConfig) -> None:
    """UserError for what is done with labels that the head, None for a model that writes, has none for."""
    classes = isinstance(head, Classes)
    if options.class_weights != "none" and not classes:
        raise UserError("objective.class_weights needs an encoder that gives one of several labels", "Leave it at none.")
    if options.label_smoothing and isinstance(head, Number | Span):
        raise UserError("objective.label_smoothing is for labels and for what models write; the task has neither", "Leave it at 0.")
    if options.mixup and head is None:
        raise UserError("objective.mixup is for an encoder's head, and the model writes its answers", "Leave --objective.mixup at 0.")
    if options.mixup and (head.by_token or isinstance(head, Choice)):
        raise UserError("objective.mixup mixes texts that have labels of their own; those of this task have none", "Leave it at 0.")
    if options.ngrams and (head is None or head.by_token or isinstance(head, Choice)):
        raise UserError("objective.ngrams is for an encoder that labels whole texts", "Leave it at 0.")
    if options.mixup and isinstance(head, JudgedClasses):
        raise UserError("objective.mixup mixes labels, and answers that were judged have none", "Leave it at 0.")
    if options.r_drop and not model.drops and (head is None or not (options.head_dropout or options.ngrams)):
        raise UserError("objective.r_drop compares passes with different dropout, and the model has none", "Set --model.dropout 0.1.")


def name_of(head: Any, labels: tuple[str, ...], pool: str, fusion: Fusion | None = None, ngrams: int = 0) -> str:
    """Of a head, the same for heads that mean the same by their outputs: so that no run takes over one of another task."""
    kind = {SeveralLabels: "several labels", Number: "a number", Choice: "choices", Span: "spans"}.get(type(head), "labels")
    kind = f"{kind} of tokens" if head.by_token else f"{kind} by {pool}"
    kind = kind if fusion is None else f"{kind} and {fusion.name}"
    kind = f"{kind} and {ngrams}-grams" if ngrams else kind
    if not labels:
        return f"head for {kind}"
    shown = ", ".join(labels[:SHOWN_LABELS])
    rest = f", ... ({len(labels)} in all, {zlib.crc32(chr(10).join(labels).encode()):08x})" if len(labels) > SHOWN_LABELS else ""
    return f"head for {kind} {shown}{rest}"


def bind(options: Supervised, experiment: Experiment, shards: int) -> Bound:
    dataset: Any = home_of(experiment.data)(experiment.data, experiment)
    head = dataset.head() if dataset.way == "head" else None
    if dataset.way == "head" and head is None:
        name = type(experiment.data).__name__
        raise UserError(f"objective Supervised: {name} has neither labels nor answers", "Choose the objective Retrieval.")
    check_labels(options, head, experiment.model)
    model = realise(experiment.model)
    if dataset.way == "source":
        return Bound(WrittenLoss(model, options, shards), start=model.start, parts=model.parts())
    if dataset.way == "text":
        continued = ContinuedLoss(CausalLMLoss(model, CausalLM(), shards, answers=True), options)
        return Bound(continued, start=model.start, parts=model.parts())
    pool = options.pool
    if pool == "auto":
        pool = "pooler" if experiment.model.pooler else "mean"  # type: ignore[attr-defined]
    weights: tuple[float, ...] = ()
    if options.class_weights == "balanced" and options.counts:
        total, present = sum(options.counts), sum(count > 0 for count in options.counts)
        weights = tuple(total / (present * count) if count else 0.0 for count in options.counts)
    fusion = dataset.fusion()
    if fusion is not None and (options.mixup or options.ngrams):
        name, does = ("mixup", "mixes") if options.mixup else ("ngrams", "reads")
        raise UserError(f"objective.{name} {does} texts, and the task has numbers beside them", "Leave it at 0.")
    ngrams = NGrams(options.ngrams, head.width) if options.ngrams else None  # type: ignore[union-attr]  # this way has a head
    loss = HeadLoss(model, head, options, pool, weights, fusion, ngrams)
    parts = model.parts() | {name_of(head, options.labels, pool, fusion, options.ngrams): TASK_HEAD}
    return Bound(loss, start=loss.start, parts=parts, heads=(TASK_HEAD,), outputs=loss.outputs)
