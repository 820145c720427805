"""The objectives that train encoders, on rows of media: what each of them reads of a row, and the objective itself."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from data.errors import UserError
from data.media import Kind
from data.media_batches import MediaBatch
from data.media_rows import MEDIA, encoded_places, most_media
from data.media_shapes import Shape
from model.encoder_config import EncoderConfig
from model.omni_config import OmniConfig
from model.towers import MediaTower, TextTower
from model.vq import VQConfig
from train.experiment import Experiment
from train.objectives.classification import Classification, LabelledRows
from train.objectives.contrastive import Contrastive, Pairs
from train.objectives.masked_patches import MaskedPatches, MediaRows
from train.objectives.vector_quantisation import PatchRows, VectorQuantisation
from train.omni import experiment as options
from train.omni.sources import rooms_of, shapes_of


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
    def unit(self) -> str:
        return self.objective.unit

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
        return most_media(shapes[kind], rooms[kind])

    match o:
        case options.Alignment():
            size = count(o.left)
            left = MediaTower(encoder(o.left), o.width, size)
            text = o.right == "text"
            right = TextTower(decoder_config(model), o.width, size) if text else MediaTower(encoder(o.right), o.width, size)
            return OnRows(Contrastive(left, right, o.loss), lambda batch: pairs_of(batch, o.left, o.right, shapes, size))
        case options.MediaClassification():
            size = count(o.medium)
            whole = Classification(encoder(o.medium), o.classes, size, o.smoothing, o.mixup, o.cutmix)
            return OnRows(whole, lambda batch: labelled(batch, o.medium, shapes, size))
        case options.HiddenPatches():
            return OnRows(MaskedPatches(encoder(o.medium), o.rate), lambda batch: MediaRows(present(batch, o.medium), batch.rows))
        case options.Codebook():
            return Refreshed(VectorQuantisation(codebook_config(experiment), o.commitment), lambda batch: patches_of(batch, o.medium))
    raise UserError(f"objective: {type(o).__name__} trains no encoder", "Choose one of train.omni.experiment in the config file.")


def decoder_config(model: OmniConfig):
    """The model's decoder, as a reader of text alone."""
    return dataclasses.replace(model, encoders=())


def medium_at(batch: MediaBatch, kind: Kind, shapes: dict[Kind, Shape]):
    """int32 [B, T]: the number of the medium of that kind, among those of its row, that stands at a position; 0 elsewhere."""
    base = 1
    for other in MEDIA[: MEDIA.index(kind)]:
        if other in shapes:
            base += encoded_places(shapes[other], getattr(batch, other).segments.shape[1])
    shape, packed = shapes[kind], getattr(batch, kind)
    place_BT = batch.slots - base
    inside_BT = (place_BT >= 0) & (place_BT < encoded_places(shape, packed.segments.shape[1]))
    if shape.latents:
        return jnp.where(inside_BT, place_BT // shape.latents + 1, 0)
    patch_BT = jnp.where(inside_BT, place_BT * (shape.rate * shape.block**2), 0)
    return jnp.where(inside_BT, jnp.take_along_axis(packed.segments, patch_BT, axis=1), 0)


def of_samples(values_BT, segments_BT):
    """int32 [B, T]: at each position the largest value in its sample."""

    def row(values_T, segments_T):
        return jax.ops.segment_max(values_T, segments_T, len(segments_T) + 1)[segments_T]

    return jnp.where(segments_BT > 0, jax.vmap(row)(values_BT, segments_BT), 0)


def counted(batch: MediaBatch):
    """float32 [B, 1]: 0 for rows that are there for nothing, such as the last of an evaluation."""
    return (batch.weights.sum(1, keepdims=True) > 0).astype(jnp.float32)


def present(batch: MediaBatch, kind: Kind):
    """The media of one kind, without those of rows that are there for nothing."""
    packed = getattr(batch, kind)
    return packed._replace(segments=packed.segments * counted(batch).astype(jnp.int32))


def patches_of(batch: MediaBatch, kind: Kind) -> PatchRows:
    packed = present(batch, kind)
    return PatchRows(packed.patches, (packed.segments > 0).astype(jnp.float32))


def labelled(batch: MediaBatch, kind: Kind, shapes: dict[Kind, Shape], size: int) -> LabelledRows:
    """The class of each medium's sample."""
    at_BT, label_BT = medium_at(batch, kind, shapes), of_samples(batch.labels + 1, batch.segments)

    def row(at_T, label_T):
        return jax.ops.segment_max(label_T, at_T, size + 1)[1:]

    labels_BS = jnp.maximum(jax.vmap(row)(at_BT, label_BT), 0) - 1
    return LabelledRows(present(batch, kind), jnp.where(counted(batch) > 0, labels_BS, -1), batch.rows)


def pairs_of(batch: MediaBatch, left: Kind, right: str, shapes: dict[Kind, Shape], size: int) -> Pairs:
    """Pairs numbered by their left medium. A sample's text is what is learned of it."""
    number_BT = of_samples(medium_at(batch, left, shapes), batch.segments)
    if right == "text":
        here_BT = jnp.where(batch.weights > 0, number_BT, 0)
        part: Any = Texts(batch.targets, here_BT, batch.positions)
        there_BT = here_BT
    else:
        kind: Any = right
        own_BT, packed = medium_at(batch, kind, shapes), getattr(batch, kind)
        most = packed.segments.shape[1]

        def row(own_T, number_T):
            return jax.ops.segment_max(number_T, own_T, most + 1).at[0].set(0)

        table_BM = jnp.maximum(jax.vmap(row)(own_BT, number_BT), 0)
        part = packed._replace(segments=jnp.take_along_axis(table_BM, packed.segments, axis=1))
        there_BT = jnp.where(own_BT > 0, number_BT, 0)
    numbers_S = jnp.arange(1, size + 1)
    valid_BS = (there_BT[:, None, :] == numbers_S[:, None]).any(-1) * counted(batch)
    return Pairs(getattr(batch, left), part, valid_BS, batch.rows)
