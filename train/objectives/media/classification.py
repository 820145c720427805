"""Classes of whole images, clips or recordings."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from model.media.encoder_config import EncoderConfig
from model.media.towers import MediaTower
from train.experiment import Experiment
from train.kinds import Bound
from train.objectives.media.mixing import compatible, cutmix, mixup
from train.objectives.media.options import MediaClassification
from train.objectives.media.views import LabelledRows, OnRows, count_of, encoder_of, labelled
from train.objectives.terms import Mean, Term


def cross_entropy(logits, shares):
    """Nats, float32: -sum_v shares_v log softmax(logits)_v, over the last axis. Shares that are all zero give 0."""
    return -(shares * jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)).sum(-1)


def smoothed(labels, classes: int, smoothing: float):
    """Shares of classes: 1 - smoothing for the label and `smoothing` for all alike (Szegedy et al. 2016, sec. 7); zeros for label -1."""
    shares = (1.0 - smoothing) * jax.nn.one_hot(labels, classes) + smoothing / classes
    return jnp.where((labels >= 0)[..., None], shares, 0.0)


@dataclasses.dataclass(frozen=True)
class MediaClassificationLoss:
    """Softmax over classes, on a pooled encoder.

    batch: LabelledRows. Term `loss`: nats per labelled segment, with smoothed and mixed labels in training. Metrics: accuracy and nll,
    which ask for the row's own class, mixed or not. Parameters: tower, a MediaTower as wide as there are classes; bias [V].
    """

    config: EncoderConfig
    classes: int
    count: int = 1
    """Segments that a row may hold."""
    smoothing: float = 0.0
    """Share of each label that is spread over all classes in training."""
    mixup: float = 0.0
    """Alpha of mixup; 0 for none. With CutMix too, each batch takes one of them by chance."""
    cutmix: float = 0.0
    """Alpha of CutMix, for images and video; 0 for none."""

    @property
    def tower(self) -> MediaTower:
        return MediaTower(self.config, self.classes, self.count)

    def start(self, key) -> dict[str, Any]:
        """Fresh parameters, boxed with logical axis names. Every class is as likely as any other at first."""
        tower = self.tower.start(key)
        return {"tower": tower | {"projection": jax.tree.map(jnp.zeros_like, tower["projection"])}, "bias": jnp.zeros(self.classes)}

    def __call__(self, params, batch: LabelledRows, key, *, frozen=None, carry=None):
        media, valid_BS = batch.media, (batch.labels >= 0).astype(jnp.float32)
        keys_B, shares_BSV = None, smoothed(batch.labels, self.classes, 0.0 if key is None else self.smoothing)
        if key is not None:
            mixing, dropout = jax.random.split(key)
            keys_B = jax.vmap(lambda row: jax.random.fold_in(dropout, row))(batch.rows)
            media, shares_BSV = self._mix(media, shares_BSV, mixing)
        logits_BSV = self.tower(params["tower"], media, keys_B) + params["bias"]
        count, plain_BSV = valid_BS.sum(), smoothed(batch.labels, self.classes, 0.0)
        hits_BS = (logits_BSV.argmax(-1) == batch.labels) * valid_BS
        metrics = {"accuracy": Mean(hits_BS.sum(), count), "nll": Mean(cross_entropy(logits_BSV, plain_BSV).sum(), count)}
        return {"loss": Term(1.0, cross_entropy(logits_BSV, shares_BSV).sum(), count)}, metrics, carry

    def _mix(self, media, shares_BSV, key):
        """The media and shares of a batch with those of its partner mixed in."""
        if not (self.mixup or self.cutmix):
            return media, shares_BSV
        patches = media.patches
        if patches.dtype == jnp.uint8:
            patches = patches.astype(jnp.float32) / 127.5 - 1.0
        which, draw = jax.random.split(key)
        allowed_B = compatible(media, shares_BSV)
        whole = []
        if self.mixup:
            whole.append(lambda: mixup(patches, shares_BSV, draw, allowed_B, self.mixup))
        if self.cutmix:
            rows, columns = self.config.extent[-2:]
            whole.append(lambda: cutmix(patches, shares_BSV, draw, allowed_B, self.cutmix, media, (rows, columns)))
        chosen = jax.random.bernoulli(which) if len(whole) == 2 else jnp.bool_(True)
        patches, shares_BSV = jax.lax.cond(chosen, whole[0], whole[-1])
        return media._replace(patches=patches), shares_BSV


def bind(options: MediaClassification, experiment: Experiment, shards: int) -> Bound:
    o, size = options, count_of(experiment, options.medium)
    loss = MediaClassificationLoss(encoder_of(experiment, o.medium), o.classes, size, o.smoothing, o.mixup, o.cutmix)
    on_rows = OnRows(loss, lambda batch: labelled(batch, o.medium, size))
    return Bound(on_rows, start=loss.start, parts={f"{o.medium} encoder": ("tower", "encoder")})
