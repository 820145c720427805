"""Predicting text about media."""

import dataclasses

import jax
import jax.numpy as jnp

from data.media.kinds import KINDS
from model.heads import Head, score_tokens, vocabulary_table
from model.media.multimodal import MediaEncoders
from model.media.multimodal_config import MultimodalConfig
from model.transformer import Decoder, Media
from train.experiment import Experiment
from train.kinds import Bound, realise
from train.objectives.media import options as media_options
from train.objectives.terms import Mean, Term


@dataclasses.dataclass(frozen=True)
class MediaLMLoss:
    """Next-token prediction given text and media. batch: a MediaBatch.

    Terms `text_loss`, `image_loss`, `video_loss`, `audio_loss`: nats per learned token about that modality. Metrics: `loss`, over all of
    them alike; `accuracy` of tokens; `exact`, the share of samples all of whose learned tokens are the likeliest ones, as greedy decoding
    would write them.
    """

    model: Decoder
    options: media_options.MediaLM
    shards: int = 1

    def __call__(self, params, batch, key, *, frozen=None, carry=None):
        keys_B = None if key is None else jax.vmap(lambda row: jax.random.fold_in(key, row))(batch.rows)
        media = media_of(self.model.config, params, batch, keys_B)
        where = {"segments_BT": batch.segments, "positions_BT": batch.positions, "keys_B": keys_B}
        output = self.model.apply({"params": params}, batch.tokens, **where, media=media)
        head, softcap = Head(output.hidden_BTD, vocabulary_table(params)), self.model.config.logit_softcap
        scores = score_tokens(head, batch.targets, want=("nll", "hit"), softcap=softcap, shards=self.shards)
        weights_BT, terms = batch.weights * batch.counts[:, None], {}
        for number, modality in enumerate(KINDS):
            about_BT = weights_BT * (batch.modalities == number)
            terms[f"{modality}_loss"] = Term(self.options.weight(modality), (scores.nll * about_BT).sum(), about_BT.sum())
        weight = weights_BT.sum()
        right_B, answers_B = exact_answers(scores.hit, weights_BT, batch.segments)
        metrics = {
            "loss": Mean((scores.nll * weights_BT).sum(), weight),
            "accuracy": Mean((scores.hit * weights_BT).sum(), weight),
            "exact": Mean(right_B.sum(), answers_B.sum()),
        }
        return terms, metrics, carry


def bind(options: media_options.MediaLM, experiment: Experiment, shards: int) -> Bound:
    model = realise(experiment.model)
    return Bound(MediaLMLoss(model, options, shards), start=model.start, parts=model.parts())


def media_of(config, params, batch, keys_B=None) -> Media:
    """The media of a batch, encoded."""
    assert isinstance(config, MultimodalConfig)
    return MediaEncoders(config).media(params, {kind: getattr(batch, kind) for kind in KINDS[1:]}, batch.slots, batch.groups, keys_B)


def exact_answers(hit_BT, weights_BT, segments_BT):
    """Of each row: samples whose learned tokens are all hits, and samples with any: float32 [B]."""
    size = hit_BT.shape[1] + 1

    def row(hit_T, weights_T, segments_T):
        learned = jax.ops.segment_sum(weights_T, segments_T, size) > 0
        missed = jax.ops.segment_sum(weights_T * (1 - hit_T), segments_T, size) > 0
        return (learned & ~missed).sum(), learned.sum()

    return tuple(x.astype(jnp.float32) for x in jax.vmap(row)(hit_BT, weights_BT, segments_BT))
