"""Prompts of texts, pictures, videos and recordings, for a model that reads them: one row, which is read whole."""

import base64
import binascii
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data.errors import UserError
from data.media.kinds import Kind
from data.media.rows import MEDIA, Layout, MediaBatch, Piece, RowFiller
from model.decoding.slots import paste_chunk
from model.heads import Head, logits, vocabulary_table
from model.media.attending import Attending
from serve.decoder import Busy, Decoder, Undecoded
from serve.jobs import Prompt
from serve.protocol import Refused, later
from train.generation.about_media import patches_of, tokens_of
from train.objectives.media.media_lm import media_of
from train.sources.media.shapes import capacities_of, shapes_of

PARTS: dict[str, Kind] = {"image_url": "image", "video_url": "video", "input_audio": "audio"}
"""Types of parts of a message, and what they hold. Videos are vLLM's addition to OpenAI's."""


class MediaPrompts:
    """What makes prompts for a run of a model that reads media."""

    def __init__(self, experiment: Any, tokenizer: Any):
        self._shapes, self._tokenizer = shapes_of(experiment), tokenizer
        self._layout = Layout(experiment.model.context_length, capacities_of(experiment), getattr(experiment.data, "prefix", True))
        self._decoder = Decoder(self._shapes)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Of what parts of messages may be."""
        return tuple(kind for kind in PARTS.values() if kind in self._shapes)

    @functools.cached_property
    def examples(self) -> tuple[MediaBatch]:
        """The row of a prompt without anything in it."""
        return (self._filler().batch,)

    def model(self, model: Any, params: Any) -> Any:
        """The model as it is served. UserError for one that attends to more media in a row than a row has tokens."""
        if model.config.fusion == "tokens":
            return model
        media = jax.eval_shape(lambda params: media_of(model.config, params, self.examples[0]), params)
        if (places := media.hidden_BMD.shape[1]) > self._layout.length:
            raise UserError(
                f"rows of {self._layout.length} tokens attend to {places} places of media",
                "Train with a longer context, or fewer media in a row.",
            )
        return Attending(model)

    def _filler(self) -> RowFiller:
        return RowFiller(self._layout, self._shapes, self._tokenizer, np.arange(1))

    def prompt(self, parts: Sequence[dict[str, Any]], param: str) -> Prompt:
        """Of the parts of messages, in their order, as OpenAI has them: text, image_url, input_audio. Refused for what cannot be read."""
        pieces, room = [], dict(self._layout.capacity)
        for part in parts:
            pieces.append(piece := self._piece(part, param))
            if piece.kind in MEDIA:  # one after another: what a prompt has no room for is not decoded
                room[piece.kind] -= patches_of([piece], piece.kind)
                if room[piece.kind] < 0:
                    raise Refused(f"the model reads fewer or smaller media of the kind {piece.kind} in a prompt", param, "too_many_media")
        return self._of_pieces(pieces, param)

    def of_ids(self, ids: Sequence[int], param: str) -> Prompt:
        return self._of_pieces([Piece("text", np.array(ids, np.int32))], param)

    def _of_pieces(self, pieces: list[Piece], param: str) -> Prompt:
        length = 1 + sum(tokens_of(piece, self._shapes) for piece in pieces)  # the end of another sample comes first
        if length >= self._layout.length:
            raise Refused(f"the prompt takes {length} tokens, and the context has {self._layout.length}", param, "context_length_exceeded")
        filler = self._filler()
        filler.add(0, [*pieces, Piece("text", np.zeros(0, np.int32), learned=True)])
        return Prompt(filler.batch.tokens[0, :length].tolist(), filler.batch)

    @staticmethod
    def read(model: Any, params: Any, rows: Any, row, whole: MediaBatch, count):
        """whole: of one row, as long as the model's context; its first `count` tokens are meant."""
        length = whole.tokens.shape[1]
        output = model.apply(
            {"params": params},
            whole.tokens,
            positions_BT=jnp.arange(length)[None],
            cache=(model.empty_cache(1, length), 0),
            valid_BS=(jnp.arange(length) < count).astype(jnp.int32)[None],
            media=media_of(model.config, params, whole),
        )
        last_D = jax.lax.dynamic_index_in_dim(output.hidden_BTD[0], count - 1, keepdims=False)
        return paste_chunk(rows, row, output.cache, 0), logits(Head(last_D, vocabulary_table(params)), softcap=model.config.logit_softcap)

    def _piece(self, part: dict[str, Any], param: str) -> Piece:
        if part["type"] == "text":
            try:
                return Piece("text", self._tokenizer.encode(part["text"]))
            except UserError as error:
                raise Refused(str(error).replace("\n", " "), param) from None
        kind = PARTS[part["type"]]
        if kind not in self._shapes:
            raise Refused(f"this model has no encoder for {kind}; it reads {', '.join(self._shapes)}", param, "unsupported_content")
        inner = part[part["type"]]
        content = _decoded(inner.get("data"), param) if kind == "audio" else _data_url(inner.get("url"), kind, param)
        try:
            return Piece(kind, self._decoder.cut(kind, content))
        except Undecoded as error:
            raise Refused(error.said, param, error.code) from None
        except Busy:
            raise later("too many media wait to be decoded", 1.0) from None


def _data_url(url: Any, kind: Kind, param: str) -> bytes:
    head, comma, data = url.partition(",") if isinstance(url, str) else ("", "", "")
    if not comma or not head.startswith("data:") or not head.endswith(";base64"):
        said = f"{param}: the {kind} must be a data URL, data:{kind}/...;base64,...; no address is fetched"
        raise Refused(said, param, "invalid_media")
    return _decoded(data, param)


def _decoded(data: Any, param: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise Refused(f"{param}: the data of a medium must be base64", param, "invalid_media") from None
