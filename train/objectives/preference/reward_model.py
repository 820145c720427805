"""A reward model: a decoder with a scalar head, trained on comparisons."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from model.critic import SCALAR_HEAD, ScalarHead, reward_head
from train.experiment import Experiment
from train.kinds import Bound, Family, realise
from train.objectives.terms import Mean, Term
from train.objectives.text.checks import check_continues
from train.rl import options
from train.sources.comparisons import Comparisons


def score_texts(model: Family, params, tokens_BT, valid_BT):
    """float32 [B]: the scalar at the last token of each row. valid_BT int32: 1 on its tokens, 0 on padding, wherever that is.

    The row is a whole text, from the token that starts it to the one that ends it. Padding changes nothing.
    """
    positions_BT = jnp.maximum(jnp.cumsum(valid_BT, 1) - 1, 0)
    hidden_BTD = model.apply({"params": params}, tokens_BT, segments_BT=valid_BT, positions_BT=positions_BT).hidden_BTD
    last_B = jnp.where(valid_BT != 0, jnp.arange(tokens_BT.shape[1]), 0).max(1)
    hidden_BD = jnp.take_along_axis(hidden_BTD, last_B[:, None, None], axis=1)[:, 0]
    return ScalarHead().apply({"params": params["value"]}, hidden_BD)


def flat(x):
    """[B, K, ...] to [B * K, ...]."""
    return x.reshape(-1, *x.shape[2:])


class ChoiceTerms(NamedTuple):
    """float32 [B] each: the loss, whether the best response has the highest score, by how much it is ahead of the best of the others."""

    loss: jax.Array
    hit: jax.Array
    margin: jax.Array


def choice_loss(scores_BK, best_B, present_BK, *, margin: float = 0.0) -> ChoiceTerms:
    """-log of the probability that the best response is chosen: softmax over scores (Ziegler et al. 2019, eq. 1).

    For two responses that is Bradley and Terry's -log sigmoid(better - worse - margin). present_BK: 0 where there is no response.
    """
    is_best_BK = jax.nn.one_hot(best_B, scores_BK.shape[1])
    shifted_BK = jnp.where(present_BK > 0, scores_BK - margin * is_best_BK, -1e30)
    best_score_B = (scores_BK * is_best_BK).sum(1)
    others_B = jnp.where((present_BK > 0) & (is_best_BK == 0), scores_BK, -1e30).max(1)
    loss_B = jax.nn.logsumexp(shifted_BK, axis=1) - (shifted_BK * is_best_BK).sum(1)
    return ChoiceTerms(loss_B, (best_score_B > others_B).astype(jnp.float32), best_score_B - others_B)


@dataclasses.dataclass(frozen=True)
class RewardModellingLoss:
    """Scores under which the best of a prompt's responses is the likeliest choice; or, with loss `score`, that come near those in the file.

    batch: Comparisons; the scalar is read at a response's last token, that of its end. Terms: `loss`, nats per comparison, or half the
    squared error of a comparison's scores; `centre`, the squared mean of a comparison's scores. Metrics: accuracy; margin; with a choice
    also calibration, the squared error of the predicted probability (Brier).
    """

    model: Family
    options: options.RewardModelling

    def __call__(self, params, batch: Comparisons, key, *, frozen=None, carry=None):
        tokens, segments = (jnp.concatenate([x[..., :1], y], -1) for x, y in ((batch.tokens, batch.targets), (batch.segments,) * 2))
        scores_BK = score_texts(self.model, params, flat(tokens), flat(segments)).reshape(batch.present.shape)
        found = choice_loss(scores_BK, batch.best, batch.present, margin=self.options.margin)
        count, counted_BK = batch.counts.sum(), batch.present * batch.counts[:, None]
        responses_B = jnp.maximum(batch.present.sum(1), 1.0)
        metrics = {
            "accuracy": Mean((found.hit * batch.counts).sum(), count),
            "margin": Mean((found.margin * batch.counts).sum(), count),
            "score_mean": Mean((scores_BK * counted_BK).sum(), counted_BK.sum()),
            "score_square": Mean((jnp.square(scores_BK) * counted_BK).sum(), counted_BK.sum()),
        }
        loss_B = found.loss
        if self.options.loss == "score":
            loss_B = 0.5 * jnp.where(batch.present > 0, jnp.square(scores_BK - batch.scores), 0.0).sum(1) / responses_B
        else:
            likely_B = jnp.exp(-choice_loss(scores_BK, batch.best, batch.present).loss)
            metrics["calibration"] = Mean((jnp.square(1.0 - likely_B) * batch.counts).sum(), count)
        terms = {"loss": Term(1.0, (loss_B * batch.counts).sum(), count)}
        if self.options.centre:
            mean_B = (scores_BK * batch.present).sum(1) / responses_B
            terms["centre"] = Term(self.options.centre, (jnp.square(mean_B) * batch.counts).sum(), count)
        seen = (batch.segments != 0).sum().astype(jnp.float32)
        return terms, metrics | {"tokens": Mean(seen, seen)}, carry


def bind(options: options.RewardModelling, experiment: Experiment, shards: int) -> Bound:
    check_continues(options, experiment)
    config, model = experiment.model, realise(experiment.model)

    def start(key):
        head = reward_head(config).init(key, jnp.zeros((1, config.embed_dim)))["params"]
        return model.start(key) | {"value": head}

    return Bound(RewardModellingLoss(model, options), start=start, parts=model.parts() | {SCALAR_HEAD: ("value",)})
