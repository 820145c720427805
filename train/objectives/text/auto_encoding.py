"""Auto-encoding: the original of a corrupted text (L_auto)."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from data.errors import UserError
from model.encoder_decoder import SourceText
from model.heads import Head, score_tokens, vocabulary_table
from train.experiment import Experiment
from train.kinds import Bound, realise
from train.objectives.terms import Mean, Term
from train.objectives.text.checks import check_ids, check_next_tokens, is_encoder_decoder, tokens_of
from train.objectives.text.corruption import (
    Line,
    begins,
    choose,
    compact,
    infilled,
    positions_within,
    present,
    row_keys,
    sentences,
    shuffle,
    windows,
)
from train.objectives.text.options import AutoEncoding


def corrupted(key, tokens_T, segments_T, o: AutoEncoding) -> Line:
    """What is left of a row's texts (Lewis et al. 2020, sec. 2.2), as a row of the same length."""
    shuffle_key, deletion_key, infilling_key = jax.random.split(key, 3)
    length = len(tokens_T)
    if o.shuffling != "none":
        by_sentence = o.shuffling == "sentences"
        units_T = sentences(tokens_T, segments_T, o.sentence_ends) if by_sentence else windows(segments_T, o.window)
        tokens_T = shuffle(shuffle_key, tokens_T, segments_T, units_T)
    lost = jnp.int32(0)
    if o.deletion:
        deleted_T = choose(deletion_key, jnp.arange(length), segments_T != 0, o.deletion)
        tokens_T, segments_T, _, lost = compact((segments_T != 0) & ~deleted_T, tokens_T, segments_T, length)
    if o.infilling:
        kept, tokens, segments = infilled(infilling_key, tokens_T, segments_T, o.infilling, o.mean_span, o.mask)
        line = compact(kept, tokens, segments, length)
        return line._replace(lost=line.lost + lost)
    return Line(tokens_T, segments_T, positions_within(segments_T), lost)


class Halves(NamedTuple):
    """Rows folded in two, [B, T] to [2 B, T / 2]: texts that go over the middle are two. Fields as of TextBatch."""

    tokens: jax.Array
    targets: jax.Array
    weights: jax.Array
    segments: jax.Array


def folded(batch) -> Halves:
    """The halves of all rows; those of a row stay beside each other, and so on its device."""
    return Halves(*(x.reshape(2 * len(x), -1) for x in (batch.tokens, batch.targets, batch.weights, batch.segments)))


@dataclasses.dataclass(frozen=True)
class AutoEncodingLoss:
    """Reconstruction of corrupted text (BART, Lewis et al. 2020, sec. 2.2).

    batch: TextBatch; its targets are the texts. Term `loss`: nats per token of the originals. Metrics: accuracy; dropped, the share of
    tokens that found no room in the corrupted rows; tokens.
    """

    model: Any
    options: AutoEncoding
    encodes: bool
    """Whether the model has an encoder, for what is left."""
    shards: int = 1

    def __call__(self, params, batch, key, *, frozen=None, carry=None):
        corruption_keys_B, keys_B = row_keys(key, batch.rows)
        there_BT = present(batch)
        batch = batch._replace(segments=jnp.where(there_BT, batch.segments, 0))
        if self.encodes:
            lines, hidden_BTD = self._decoded(params, batch, corruption_keys_B, keys_B)
            targets, weights = batch.targets, batch.weights
        else:
            halves = folded(batch)
            lines, hidden_BTD = self._continued(params, halves, corruption_keys_B, keys_B)
            targets, weights = halves.targets, halves.weights
        softcap = self.model.config.logit_softcap
        head = Head(hidden_BTD, vocabulary_table(params))
        scores = score_tokens(head, targets, want=("nll", "hit"), softcap=softcap, shards=self.shards)
        weight = weights.sum()
        metrics = {
            "accuracy": Mean((scores.hit * weights).sum(), weight),
            "dropped": Mean(lines.lost.sum().astype(jnp.float32), there_BT.sum().astype(jnp.float32)),
            "tokens": tokens_of(batch),
        }
        return {"loss": Term(1.0, (scores.nll * weights).sum(), weight)}, metrics, carry

    def corrupt(self, keys_B, targets, segments) -> Line:
        """What is left of every row."""
        return jax.vmap(lambda key, tokens_T, segments_T: corrupted(key, tokens_T, segments_T, self.options))(keys_B, targets, segments)

    def _decoded(self, params, batch, corruption_keys_B, keys_B):
        """The corrupted lines, and hidden states of the originals that a decoder writes of them."""
        lines = self.corrupt(corruption_keys_B, batch.targets, batch.segments)
        where = {"segments_BT": batch.segments, "positions_BT": batch.positions, "keys_B": keys_B}
        source = SourceText(lines.tokens, lines.segments, lines.positions)
        inputs_BT = jnp.where(jax.vmap(begins)(batch.segments), self.model.config.start_token, batch.tokens)
        return lines, self.model.apply({"params": params}, inputs_BT, source=source, **where).hidden_BTD

    def _continued(self, params, halves: Halves, corruption_keys_B, keys_B):
        """The corrupted lines, and hidden states of the originals that come after them in rows of twice the length.

        A text's corruption and its original are one segment: positions go on, and the original sees its own corruption alone.
        """
        keys_B2 = jax.vmap(jax.random.split)(corruption_keys_B)
        lines = self.corrupt(keys_B2.reshape(-1), halves.targets, halves.segments)
        keys = None if keys_B is None else jax.vmap(jax.random.split)(keys_B).reshape(-1)

        def row(line: Line, tokens_T, segments_T):
            left_S = jnp.zeros(2 * len(segments_T) + 1, jnp.int32).at[line.segments].add(1)  # the halves keep the row's numbers
            positions_T = positions_within(segments_T) + jnp.where(segments_T != 0, left_S[segments_T], 0)
            return jnp.where(begins(segments_T), self.options.separator, tokens_T), positions_T

        inputs, positions = jax.vmap(row)(lines, halves.tokens, halves.segments)
        hidden = self.model.apply(
            {"params": params},
            jnp.concatenate([lines.tokens, inputs], 1),
            segments_BT=jnp.concatenate([lines.segments, halves.segments], 1),
            positions_BT=jnp.concatenate([lines.positions, positions], 1),
            keys_B=keys,
        ).hidden_BTD
        return lines, hidden[:, inputs.shape[1] :]


def bind(options: AutoEncoding, experiment: Experiment, shards: int) -> Bound:
    check_next_tokens(options, experiment)
    check_ids(options, experiment.model, "mask", "separator")
    encodes = is_encoder_decoder(experiment)
    if not encodes and experiment.model.context_length % 2:
        raise UserError(
            f"objective AutoEncoding folds rows in two; model.context_length is {experiment.model.context_length}", "Make it even."
        )
    model = realise(experiment.model)
    return Bound(AutoEncodingLoss(model, options, encodes, shards), start=model.start, parts=model.parts())
