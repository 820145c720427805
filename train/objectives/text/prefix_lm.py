"""Prefix language modelling, by an encoder-decoder or by a decoder whose prefix sees both ways."""

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
from train.objectives.text.checks import check_next_tokens, is_encoder_decoder, tokens_of
from train.objectives.text.corruption import present, row_keys
from train.objectives.text.options import PrefixLM


def prefix_lengths(key, segments_T):
    """int32 [T]: of each token's segment, how many of its texts' first tokens are the prefix: at least 1, at most all but one; 0 for a text
    of one token, and on padding."""
    drawn_S = jax.random.uniform(key, (len(segments_T) + 1,))
    sizes_S = jnp.zeros(len(segments_T) + 1, jnp.int32).at[segments_T].add(1)
    cuts_S = jnp.where(sizes_S > 1, 1 + jnp.floor(drawn_S * (sizes_S - 1)).astype(jnp.int32), 0)
    return jnp.where(segments_T != 0, jnp.minimum(cuts_S, jnp.maximum(sizes_S - 1, 0))[segments_T], 0)


@dataclasses.dataclass(frozen=True)
class PrefixLMLoss:
    """The rest of each text, from a prefix of random length (Raffel et al. 2020, sec. 3.2.2 and fig. 4).

    batch: TextBatch. Term `loss`: nats per token of the rest. Metrics: accuracy, tokens.
    """

    model: Any
    options: PrefixLM
    encodes: bool
    """Whether the model has an encoder, for the prefix."""
    shards: int = 1

    def __call__(self, params, batch, key, *, frozen=None, carry=None):
        corruption_keys_B, keys_B = row_keys(key, batch.rows)
        prefix_BT = jax.vmap(prefix_lengths)(corruption_keys_B, batch.segments)
        rest_BT = (batch.positions >= prefix_BT) & present(batch)
        if self.encodes:
            hidden_BTD = self._decoded(params, batch, prefix_BT, rest_BT, keys_B)
        else:
            # A target stands one place behind its input: the first prefix_BT inputs are the document's start and all but one of the prefix,
            # and the one after them, the prefix' last token, is the first that has something to predict.
            hidden_BTD = self.model.apply(
                {"params": params},
                batch.tokens,
                segments_BT=batch.segments,
                positions_BT=batch.positions,
                keys_B=keys_B,
                groups_BT=jnp.maximum(batch.positions, prefix_BT),
            ).hidden_BTD
        softcap = self.model.config.logit_softcap
        head = Head(hidden_BTD, vocabulary_table(params))
        scores = score_tokens(head, batch.targets, want=("nll", "hit"), softcap=softcap, shards=self.shards)
        weights_BT = rest_BT * batch.weights
        weight = weights_BT.sum()
        metrics = {"accuracy": Mean((scores.hit * weights_BT).sum(), weight), "tokens": tokens_of(batch)}
        return {"loss": Term(1.0, (scores.nll * weights_BT).sum(), weight)}, metrics, carry

    def _decoded(self, params, batch, prefix_BT, rest_BT, keys_B):
        """Hidden states of the rests, whose prefixes the encoder reads. Both keep their columns; the rests' positions begin at 0."""
        first_BT = rest_BT & (batch.positions == prefix_BT)
        source_segments_BT = jnp.where(batch.positions < prefix_BT, batch.segments, 0)
        return self.model.apply(
            {"params": params},
            jnp.where(first_BT, self.model.config.start_token, batch.tokens),
            segments_BT=jnp.where(rest_BT, batch.segments, 0),
            positions_BT=jnp.where(rest_BT, batch.positions - prefix_BT, 0),
            keys_B=keys_B,
            source=SourceText(batch.targets, source_segments_BT, batch.positions),
        ).hidden_BTD


def bind(options: PrefixLM, experiment: Experiment, shards: int) -> Bound:
    check_next_tokens(options, experiment)
    if experiment.model.window:
        raise UserError(
            f"objective PrefixLM lets a prefix see both ways; model.window is {experiment.model.window}", "Set --model.window 0."
        )
    model = realise(experiment.model)
    loss = PrefixLMLoss(model, options, is_encoder_decoder(experiment), shards)
    return Bound(loss, start=model.start, parts=model.parts())
