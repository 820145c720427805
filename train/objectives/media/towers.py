"""The objectives that train encoders, on rows of media: what each of them reads of a row, and the objective itself."""

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
from model.media.omni_config import OmniConfig
from model.media.towers import MediaTower, TextTower
from model.media.vq import VQConfig
from train.experiment import Experiment
from train.objectives.media.classification import Classification, LabelledRows
from train.objectives.media.contrastive import Contrastive, Pairs
from train.objectives.media.masked_patches import MaskedPatches, MediaRows
from train.objectives.media.vector_quantisation import PatchRows, VectorQuantisation
from train.sources import media_options as options
from train.sources.media import rooms_of, shapes_of


class Texts(NamedTuple):
    """What is learned of each sample, as a text of its own; int32 [B, T]."""

    tokens: Any
    segments: Any
    positions: Any


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


@dataclasses.dataclass(frozen=True)
class Refreshed(OnRows):
    """One that puts its parameters right now and then: codes that are dead are moved to where data is."""

    def refresh(self, params, batch: MediaBatch, key, carry):
        return self.objective.refresh(params, self.view(batch), key, carry)


def codebook_config(experiment: Experiment) -> VQConfig:
    o = experiment.objective
    assert isinstance(o, options.Codebook)
    return VQConfig(shapes_of(experiment)[o.medium].values, o.codes, o.code_dim, o.hidden_dim)


def encoder_objective(experiment: Experiment) -> OnRows:
    """The objective of an experiment that trains encoders."""
    shapes, rooms, o = shapes_of(experiment), rooms_of(experiment), experiment.objective
    model = experiment.model
    assert isinstance(model, OmniConfig)

    def encoder(kind: Kind) -> EncoderConfig:
        found = model.encoder(kind)
        if found is None:
            raise UserError(f"objective: the model has no encoder for {kind}", "Give it one among model.encoders in the config file.")
        return found

    def count(kind: Kind) -> int:
        encoder(kind)
        return most_media(shapes[kind], rooms[kind])

    match o:
        case options.Pairing():
            size = count(o.left)
            left = MediaTower(encoder(o.left), o.width, size)
            text = o.right == "text"
            right = TextTower(decoder_config(model), o.width, size) if text else MediaTower(encoder(o.right), o.width, size)
            return OnRows(Contrastive(left, right, o.loss), lambda batch: pairs_of(batch, o.left, o.right, size))
        case options.MediaClassification():
            size = count(o.medium)
            whole = Classification(encoder(o.medium), o.classes, size, o.smoothing, o.mixup, o.cutmix)
            return OnRows(whole, lambda batch: labelled(batch, o.medium, size))
        case options.HiddenPatches():
            return OnRows(MaskedPatches(encoder(o.medium), o.rate), lambda batch: MediaRows(present(batch, o.medium), batch.rows))
        case options.Codebook():
            return Refreshed(VectorQuantisation(codebook_config(experiment), o.commitment), lambda batch: patches_of(batch, o.medium))
    raise UserError(f"objective: {type(o).__name__} trains no encoder", "Choose one of train.sources.media_options in the config file.")


def decoder_config(model: OmniConfig):
    """The model's decoder, as a reader of text alone."""
    return dataclasses.replace(model, encoders=())


def by_number(values_BN, numbers_BN, size: int):
    """int32 [B, size + 1]: for each number its largest value, at least 0; 0 for the number 0."""

    def row(values_N, numbers_N):
        return jax.ops.segment_max(values_N, numbers_N, size + 1)

    return jnp.maximum(jax.vmap(row)(values_BN, numbers_BN), 0).at[:, 0].set(0)


def looked_up(table_BS, numbers_BN):
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
    label_BS = looked_up(by_number(batch.labels + 1, batch.segments, most), sample_BS)[:, 1:] - 1
    return LabelledRows(present(batch, kind), jnp.where(batch.counts[:, None] > 0, label_BS, -1), batch.rows)


def pairs_of(batch: MediaBatch, left: Kind, right: str, size: int) -> Pairs:
    """Pairs numbered by their left medium, 1 to `size`. A sample's text is what is learned of it."""
    own, most = getattr(batch, left), batch.tokens.shape[1]
    number_BS = by_number(own.segments, own.samples, most)  # of a sample
    texts = None
    if right == "text":
        there_BT = jnp.where(batch.weights > 0, looked_up(number_BS, batch.segments), 0)
        positions_BT = from_zero(batch.positions, there_BT, size)
        part: Any = Texts(batch.targets, there_BT, positions_BT)
        texts = fingerprints(batch.targets, positions_BT, there_BT, size)
    else:
        packed = getattr(batch, right)
        there_BT = looked_up(number_BS, packed.samples)
        part = packed._replace(segments=there_BT)
    valid_BS = (there_BT[:, None, :] == jnp.arange(1, size + 1)[:, None]).any(-1) * batch.counts[:, None]
    return Pairs(own, part, valid_BS, batch.rows, texts)


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
