"""What objectives on media read of a row: media with their classes, pairs, patches; and the encoders of an experiment's model."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from data.errors import UserError
from data.media.batches import MediaBatch
from data.media.kinds import Kind
from data.media.rows import most_media
from model.media.encoder_config import EncoderConfig
from model.media.multimodal_config import MultimodalConfig
from model.media.towers import Texts
from train.experiment import Experiment
from train.sources.media.shapes import capacities_of, shapes_of


class LabelledRows(NamedTuple):
    """Rows of packed media and the class of each."""

    media: Any  # patches [B, N, C], places [B, N, A], segments [B, N], as Packed (data/media/batches.py)
    labels: jax.Array  # int32 [B, S]: of the segments 1 to S; -1 where there is none
    rows: jax.Array  # int32 [B]


class Pairs(NamedTuple):
    """Pairs of which each tower sees one side. Those of a row are numbered as the segments of both sides are."""

    left: Any  # what the left tower maps to [B, S, E], as Packed (data/media/batches.py) or texts
    right: Any  # the same of the right tower
    valid: jax.Array  # float32 [B, S]: 1 where both sides are there
    rows: jax.Array  # int32 [B]
    texts: jax.Array | None = None  # uint32 [B, S]: pairs with the same number have the same text, and are not to be told apart


class MediaRows(NamedTuple):
    """Rows of packed images or clips."""

    media: Any  # patches [B, N, C], places [B, N, A], segments [B, N], as Packed (data/media/batches.py)
    rows: jax.Array  # int32 [B]


class PatchRows(NamedTuple):
    """Rows of patches or frames."""

    patches: jax.Array  # float32 [B, N, C], or uint8, which becomes [-1, 1]
    weights: jax.Array  # float32 [B, N]: 0 on padding


@dataclasses.dataclass(frozen=True)
class OnRows:
    """An objective that reads of a MediaBatch what `view` makes of it."""

    objective: Any
    view: Callable[[MediaBatch], Any]

    @property
    def start(self):
        """Fresh parameters from a key."""
        return self.objective.start

    def __call__(self, params, batch: MediaBatch, key, *, frozen=None, carry=None):
        return self.objective(params, self.view(batch), key, frozen=frozen, carry=carry)


def encoder_of(experiment: Experiment, kind: Kind) -> EncoderConfig:
    """The model's encoder of a kind; UserError where it has none."""
    found = experiment.model.encoder(kind) if isinstance(experiment.model, MultimodalConfig) else None
    if found is None:
        raise UserError(f"objective: the model has no encoder for {kind}", "Give it one among model.encoders in the config file.")
    return found


def count_of(experiment: Experiment, kind: Kind) -> int:
    """Media of a kind that a row may hold."""
    encoder_of(experiment, kind)
    return most_media(shapes_of(experiment)[kind], capacities_of(experiment)[kind])


def decoder_config(model: MultimodalConfig):
    """The model's decoder, as a reader of text alone."""
    return dataclasses.replace(model, encoders=())


def by_number(values_BN, numbers_BN, size: int):
    """int32 [B, size + 1]: for each number its largest value, at least 0; 0 for the number 0."""

    def row(values_N, numbers_N):
        return jax.ops.segment_max(values_N, numbers_N, size + 1)

    return jnp.maximum(jax.vmap(row)(values_BN, numbers_BN), 0).at[:, 0].set(0)


def lookup(table_BS, numbers_BN):
    return jnp.take_along_axis(table_BS, numbers_BN, axis=1)


def present(batch: MediaBatch, kind: Kind):
    """The media of one kind, without those of rows that are there for nothing."""
    packed = getattr(batch, kind)
    return packed._replace(segments=packed.segments * batch.counts[:, None].astype(jnp.int32))


def patches_of(batch: MediaBatch, kind: Kind) -> PatchRows:
    packed = present(batch, kind)
    return PatchRows(packed.patches, (packed.segments > 0).astype(jnp.float32))


def labelled(batch: MediaBatch, kind: Kind, size: int) -> LabelledRows:
    """The class of each medium's sample, of the media 1 to `size` of a row."""
    packed, most = getattr(batch, kind), batch.tokens.shape[1]
    sample_BS = by_number(packed.samples, packed.segments, size)
    label_BS = lookup(by_number(batch.labels + 1, batch.segments, most), sample_BS)[:, 1:] - 1
    return LabelledRows(present(batch, kind), jnp.where(batch.counts[:, None] > 0, label_BS, -1), batch.rows)


def pairs_of(batch: MediaBatch, left: Kind, right: str, size: int) -> Pairs:
    """Pairs numbered by their left medium, 1 to `size`. A sample's text is what is learned of it."""
    own, most = getattr(batch, left), batch.tokens.shape[1]
    number_BS = by_number(own.segments, own.samples, most)  # of a sample
    texts = None
    if right == "text":
        there_BT = jnp.where(batch.weights > 0, lookup(number_BS, batch.segments), 0)
        positions_BT = from_zero(batch.positions, there_BT, size)
        other: Any = Texts(batch.targets, there_BT, positions_BT)
        texts = fingerprints(batch.targets, positions_BT, there_BT, size)
    else:
        packed = getattr(batch, right)
        there_BT = lookup(number_BS, packed.samples)
        other = packed._replace(segments=there_BT)
    valid_BS = (there_BT[:, None, :] == jnp.arange(1, size + 1)[:, None]).any(-1) * batch.counts[:, None]
    return Pairs(own, other, valid_BS, batch.rows, texts)


def from_zero(positions_BT, segments_BT, size: int):
    """Positions counted from the first place of each of the segments 0 to `size`."""

    def row(positions_T, segments_T):
        return positions_T - jax.ops.segment_min(positions_T, segments_T, size + 1)[segments_T]

    return jax.vmap(row)(positions_BT, segments_BT)


def fingerprints(tokens_BT, positions_BT, segments_BT, size: int):
    """uint32 [B, size]: of the texts 1 to `size`, equal where texts are and, but for one chance in 2^32, nowhere else."""
    mixed_BT = tokens_BT.astype(jnp.uint32) * jnp.uint32(0x9E3779B1) ^ positions_BT.astype(jnp.uint32) * jnp.uint32(0x85EBCA77)
    for shift, factor in ((15, 0x2C1B3C6D), (12, 0x297A2D39)):
        mixed_BT = (mixed_BT ^ mixed_BT >> shift) * jnp.uint32(factor)
    return jax.vmap(lambda mixed_T, segments_T: jax.ops.segment_sum(mixed_T, segments_T, size + 1)[1:])(mixed_BT, segments_BT)
