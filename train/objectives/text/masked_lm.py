"""Masked language modelling, with or without BERT's judgement of pairs."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from data.errors import UserError
from model.heads import Head, score_tokens
from train.experiment import Experiment
from train.kinds import Bound, realise
from train.objectives.terms import Mean, Term
from train.objectives.text.checks import check_encoder, tokens_of
from train.objectives.text.corruption import Hiding, budget, hidden_tokens, places, present, row_keys, separators
from train.objectives.text.options import MaskedLM
from train.objectives.text.predictions import Predicted, vocabulary_divergence
from train.objectives.text.sentence_pairs import PAIR_HEAD, judged, start_pair_head


@dataclasses.dataclass(frozen=True)
class MaskedLMLoss:
    """Hidden tokens are predicted from both sides (Devlin et al. 2019, sec. 3.1).

    batch: TextBatch; input and target are its tokens. Term `loss`: nats per hidden token; `next_sentence`, nats per pair, where asked for.
    Metrics: accuracy, pair_accuracy, tokens. Only hidden places go through the prediction head.
    """

    model: Any
    options: MaskedLM
    shards: int = 1

    def __call__(self, params, batch, key, *, frozen=None, carry=None):
        return *self.judged(params, batch, self.forward(params, batch, key)), carry

    def forward(self, params, batch, key, *, dropout: bool = True, streams: list | None = None) -> Predicted:
        """A pass over the rows with tokens hidden, the same ones for any model; streams: as of the model."""
        o = self.options
        corruption_keys_B, keys_B = row_keys(key, batch.rows)
        seen_BT, chosen_BT = hide_rows(corruption_keys_B, batch, Hiding(o.rate, o.mask, o.ordinary, o.spans), o.whole_words)
        where = {"segments_BT": batch.segments, "positions_BT": batch.positions, "types_BT": batch.types}
        keys_B = keys_B if dropout else None
        hidden_BTD = self.model.apply({"params": params}, seen_BT, keys_B=keys_B, streams=streams, **where).hidden_BTD
        return at_places(self.model, params, hidden_BTD, batch.tokens, chosen_BT, o.rate)[0]._replace(output=hidden_BTD)

    def judged(self, params, batch, predicted: Predicted):
        """Terms and metrics of a pass."""
        o, softcap, weights_BK = self.options, self.model.config.logit_softcap, predicted.weights_BK
        scores = score_tokens(predicted.head, predicted.targets_BK, want=("nll", "hit"), softcap=softcap, shards=self.shards)
        weight = weights_BK.sum()
        terms = {"loss": Term(1.0, (scores.nll * weights_BK).sum(), weight)}
        metrics = {"accuracy": Mean((scores.hit * weights_BK).sum(), weight), "tokens": tokens_of(batch)}
        if o.sentence_pairs:
            nll_B, hit_B, counts_B = judged(self.model, params, predicted.output, batch)
            terms["next_sentence"] = Term(o.sentence_pairs, (nll_B * counts_B).sum(), counts_B.sum())
            metrics["pair_accuracy"] = Mean((hit_B * counts_B).sum(), counts_B.sum())
        return terms, metrics

    def divergence(self, own: Predicted, theirs: Predicted, batch, temperature: float):
        """(total, weight), of another model's predictions from one's own: nats per hidden token."""
        return vocabulary_divergence(own, theirs, temperature, self.model.config.logit_softcap, self.shards)


def hide_rows(keys_B, batch, how: Hiding, whole_words: bool):
    """Tokens with some hidden, and bool [B, T]: which. Separators of pairs stay, as in BERT's code (create_masked_lm_predictions)."""
    words, candidates_BT = batch.words if whole_words else None, present(batch)
    if batch.types is not None:
        candidates_BT &= ~jax.vmap(separators)(batch.segments, batch.types)
    rows = (keys_B, batch.tokens, batch.segments, candidates_BT, words)
    return jax.vmap(lambda key, tokens, segments, there, words: hidden_tokens(key, tokens, segments, there, words, how))(*rows)


def at_places(model, params, hidden_BTD, tokens_BT, chosen_BT, rate: float) -> tuple[Predicted, Any]:
    """What is predicted at the chosen places alone, and where they are, int32 [B, K]."""
    most = budget(rate, tokens_BT.shape[1])
    places_BK, there_BK = jax.vmap(lambda chosen_T: places(chosen_T, most))(chosen_BT)
    hidden_BKD = jnp.take_along_axis(hidden_BTD, places_BK[..., None], axis=1)
    targets_BK = jnp.take_along_axis(tokens_BT, places_BK, axis=1)
    head: Head = model.predictions(params, hidden_BKD)
    return Predicted(head, targets_BK, there_BK.astype(jnp.float32)), places_BK


def bind(options: MaskedLM, experiment: Experiment, shards: int) -> Bound:
    check_encoder(options, experiment, predicts=True, judges=options.sentence_pairs > 0)
    data = experiment.data
    if options.whole_words and not getattr(data, "words", False):
        raise UserError("objective.whole_words needs the words of rows numbered", "Set --data.words (data TextData).")
    if options.sentence_pairs and data.rows != "pairs":
        raise UserError(f"objective.sentence_pairs needs pairs; the data is {type(data).__name__}", "Use data SentencePairData.")
    model = realise(experiment.model)
    loss = MaskedLMLoss(model, options, shards)
    if not options.sentence_pairs:
        return Bound(loss, start=model.start, parts=model.parts())
    return Bound(loss, start=lambda key: model.start(key) | start_pair_head(model.config, key), parts=model.parts() | PAIR_HEAD)
