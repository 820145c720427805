"""Prompts of an encoder-decoder: a text that is read whole, before one of its own is written."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from model.decoding.slots import paste_chunk, read_chunk, size_of
from model.encoder_decoder import Conditioned, SourceText
from serve.jobs import Prompt
from serve.protocol import Refused
from train.generation.text import TextGenerator

SHORTER = (1, 4, 16)
"""Parts of the longest source that there are programs for: most sources are far shorter, and an encoder reads padding too."""


class SourcePrompts:
    """What makes prompts for a run that reads one text and writes another.

    size: tokens of the longest; sources are padded to it or, where they are shorter, to the first of some lengths below that is enough.
    """

    kinds: tuple[str, ...] = ()

    def __init__(self, generator: TextGenerator, size: int):
        self._generator = generator
        self._widths = tuple(sorted({max(size // shorter, 1) for shorter in SHORTER}))

    @functools.cached_property
    def examples(self) -> tuple[SourceText, ...]:
        return tuple(self._source([0], width) for width in self._widths)

    def prompt(self, parts: Sequence[dict[str, Any]], param: str) -> Prompt:
        return self.of_ids(self._generator.encode("".join(part["text"] for part in parts)), param)

    def of_ids(self, ids: Sequence[int], param: str) -> Prompt:
        ids = self._generator.ended(ids)
        if len(ids) > self._widths[-1]:
            raise Refused(f"the prompt is {len(ids)} tokens, and {self._widths[-1]} are read", param, "context_length_exceeded")
        width = next(width for width in self._widths if width >= len(ids))
        return Prompt([self._generator.start_token], self._source(ids, width), ids)

    def _source(self, ids: Sequence[int], width: int) -> SourceText:
        return self._generator.source([ids], width)

    @staticmethod
    def read(model: Conditioned, params: Any, rows: Any, row, whole: SourceText, count):
        """The source's keys and values, and the token that begins the target, which is all of the prompt that a slot holds."""
        read, size = model.model.conditioned(params, whole), size_of(rows)
        segments_BS = jnp.pad(read.segments_BS, ((0, 0), (0, size - read.segments_BS.shape[1])))
        rows = paste_chunk(rows, row, dataclasses.replace(read, segments_BS=segments_BS).empty_cache(1, size), 0)
        return read_chunk(model, params, rows, row, jnp.array([model.config.start_token]), 0, count, places=size)
