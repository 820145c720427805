"""Span corruption: an encoder-decoder writes what sentinels stand for."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from data.errors import UserError
from model.encoder_decoder import SourceText
from model.heads import Head, score_tokens, vocabulary_table
from train.experiment import Experiment
from train.kinds import Bound, realise
from train.objectives.terms import Mean, Term
from train.objectives.text.checks import check_encoder_decoder, check_ids, tokens_of
from train.objectives.text.corruption import denoised_lengths, denoising, noise_counts, present, row_keys, shifted, span_noise
from train.objectives.text.options import SpanDenoising


@dataclasses.dataclass(frozen=True)
class SpanDenoisingLoss:
    """Noise spans are written from what is left of each text (Raffel et al. 2020, sec. 3.1.4).

    batch: TextBatch; its targets are the texts. Term `loss`: nats per token of the target, sentinels and ends included. Metrics: accuracy;
    dropped, the share of tokens that found no room in source or target; tokens.
    """

    model: Any
    options: SpanDenoising
    shards: int = 1

    def __call__(self, params, batch, key, *, frozen=None, carry=None):
        source, target, scores = self.written(params, batch, key)
        weights_BL = (target.segments != 0).astype(jnp.float32)
        weight = weights_BL.sum()
        lost, all_ = (source.lost + target.lost).sum().astype(jnp.float32), present(batch).sum().astype(jnp.float32)
        metrics = {"accuracy": Mean((scores.hit * weights_BL).sum(), weight), "dropped": Mean(lost, all_), "tokens": tokens_of(batch)}
        return {"loss": Term(1.0, (scores.nll * weights_BL).sum(), weight)}, metrics, carry

    def written(self, params, batch, key):
        """Source and target, Lines [B, ...], and the target's scores: nll and hit [B, L]."""
        corruption_keys_B, keys_B = row_keys(key, batch.rows)
        source, target = self.rows(corruption_keys_B, batch)
        inputs_BL = jax.vmap(lambda line: shifted(line, self.model.config.start_token))(target)
        output = self.model.apply(
            {"params": params},
            inputs_BL,
            segments_BT=target.segments,
            positions_BT=target.positions,
            keys_B=keys_B,
            source=SourceText(source.tokens, source.segments, source.positions),
        )
        head = Head(output.hidden_BTD, vocabulary_table(params))
        softcap = self.model.config.logit_softcap
        return source, target, score_tokens(head, target.tokens, want=("nll", "hit"), softcap=softcap, shards=self.shards)

    def rows(self, keys_B, batch):
        """Source and target of every row, as Lines [B, ...]."""
        o, length = self.options, batch.targets.shape[1]
        lengths = denoised_lengths(length, o.rate, o.mean_span, o.segments)

        def row(key, tokens_T, segments_T):
            noise_T = span_noise(key, length, o.rate, o.mean_span)
            return denoising(noise_T, tokens_T, segments_T, lambda n: o.first_sentinel + n * o.sentinel_step, o.end, lengths)

        return jax.vmap(row)(keys_B, batch.targets, jnp.where(present(batch), batch.segments, 0))


def bind(options: SpanDenoising, experiment: Experiment, shards: int) -> Bound:
    check_encoder_decoder(options, experiment)
    check_ids(options, experiment.model, "first_sentinel", "end")
    _, spans = noise_counts(experiment.model.context_length, options.rate, options.mean_span)
    if 0 < options.sentinels < spans:
        raise UserError(
            f"objective SpanDenoising: {spans} spans in a row, and {options.sentinels} sentinels",
            "Set a lower --objective.rate, a higher --objective.mean-span or a shorter --model.context-length.",
        )
    model = realise(experiment.model)
    return Bound(SpanDenoisingLoss(model, options, shards), start=model.start, parts=model.parts())
