"""Answers that models write: an encoder-decoder of what it reads, a decoder by going on with the prompt."""

import dataclasses
from typing import Any

from model.encoder_decoder import SourceText
from model.heads import Head, score_tokens, vocabulary_table
from train.objectives.tasks.comparing import Comparing
from train.objectives.tasks.options import Supervised
from train.objectives.terms import Mean, Term
from train.objectives.text.causal_lm import CausalLMLoss
from train.objectives.text.checks import tokens_of
from train.objectives.text.corruption import row_keys
from train.objectives.text.predictions import Predicted, smoothed, vocabulary_divergence


@dataclasses.dataclass(frozen=True)
class WrittenLoss(Comparing):
    """What an encoder-decoder writes of its source.

    batch: SourceBatch. Term `loss`: nats per token of the answer. Metrics: accuracy of tokens; tokens.
    """

    model: Any
    options: Supervised
    shards: int = 1

    def forward(self, params, batch, key, *, dropout: bool = True, streams: list | None = None) -> Predicted:
        """A pass; of its streams nothing is known."""
        keys_B = None if key is None or not dropout else row_keys(key, batch.rows)[1]
        hidden_BTD = self.model.apply(
            {"params": params},
            batch.tokens,
            segments_BT=batch.segments,
            positions_BT=batch.positions,
            keys_B=keys_B,
            source=SourceText(batch.sources, batch.source_segments, batch.source_positions, batch.shift),
        ).hidden_BTD
        return Predicted(Head(hidden_BTD, vocabulary_table(params)), batch.targets, batch.weights)

    def judged(self, params, batch, answers: Predicted, training: bool = True):
        softcap, weight = self.model.config.logit_softcap, batch.weights.sum()
        smoothing = self.options.label_smoothing if training else 0.0
        want = ("nll", "hit") + ("mean_nll",) * bool(smoothing)
        counted_BT = batch.weights > 0
        how: dict[str, Any] = {"softcap": softcap, "shards": self.shards, "counted_BT": counted_BT, "words": self.options.ordinary}
        scores = score_tokens(answers.head, batch.targets, want=want, **how)
        metrics = {"accuracy": Mean((scores.hit * batch.weights).sum(), weight), "tokens": tokens_of(batch)}
        return {"loss": Term(1.0, (smoothed(scores, smoothing) * batch.weights).sum(), weight)}, metrics

    def divergence(self, own: Predicted, theirs: Predicted, batch, temperature: float = 1.0, symmetric: bool = False):
        return vocabulary_divergence(own, theirs, temperature, self.model.config.logit_softcap, self.shards, symmetric)


@dataclasses.dataclass(frozen=True)
class ContinuedLoss(Comparing):
    """How a decoder goes on with a prompt. batch: TextBatch, in which the tokens of answers have weights. Terms and metrics: see
    CausalLMLoss, which measures them."""

    lm: CausalLMLoss
    options: Supervised

    @property
    def model(self) -> Any:
        return self.lm.model

    def forward(self, params, batch, key, *, dropout: bool = True, streams: list | None = None) -> Predicted:
        return self.lm.forward(params, batch, key, dropout=dropout, streams=streams)

    def judged(self, params, batch, answers: Predicted, training: bool = True):
        return self.lm.score(params, batch, answers.output, self.options.label_smoothing if training else 0.0, self.options.ordinary)

    def divergence(self, own: Predicted, theirs: Predicted, batch, temperature: float = 1.0, symmetric: bool = False):
        return self.lm.divergence(own, theirs, batch, temperature, symmetric)
