"""Writing about media: a prompt of texts and media in, text out."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data.errors import UserError
from data.media.batches import Source, Unusable
from data.media.kinds import Kind, Undecodable
from data.media.rows import MARKERS, Layout, MediaBatch, Piece, RowFiller
from data.media.signals.probing import probe
from data.media.signals.shapes import Cut
from data.media.source import cut
from data.tokenizer import Tokenizer
from model.decoding.generate import decode, prefill
from model.decoding.sampling import Sampling, by_row
from model.media.multimodal import MultimodalDecoder
from train.checkpoints.checkpointer import load_parameters
from train.experiment import Experiment
from train.generation.text import decoder_of
from train.kinds import Sample
from train.objectives.media.media_lm import media_of
from train.runs.directory import Run
from train.sources.media.shapes import shapes_of
from train.step.state import Purpose, random_key

WIDTHS = 32
"""Prompts are padded to multiples of so many tokens, so that few programs are compiled."""


class MediaWriter:
    """A model, ready to write about media, or media."""

    def __init__(self, experiment: Experiment, tokenizer: Tokenizer, params):
        self._experiment, self._params, self._tokenizer = experiment, params, tokenizer
        self._begin, self._decode = _programs(experiment.model)

    def write(self, prompts: list[list[Piece]], *, tokens: int, sampling: Sampling, seed: int = 0, first_row: int = 0) -> list[str]:
        """A text after each prompt, up to `tokens` or the end that the model gives it."""
        end = self._tokenizer.specials["document_end"]
        if self._tokenizer.codes:  # text alone
            sampling = dataclasses.replace(sampling, among=(0, self._tokenizer.base_size))
        found = self.ids(prompts, tokens=tokens, sampling=sampling, seed=seed, first_row=first_row)
        return [self._tokenizer.decode(ids[:-1] if ids and ids[-1] == end else ids) for ids in found]

    def media(self, prompts: list[list[Piece]], kind: Kind, *, sampling: Sampling, seed: int = 0, first_row: int = 0) -> list[Cut | None]:
        """A medium after each prompt, as the tokenizer's codes give it: its marker is given, and codes alone are sampled; of recordings
        until the model ends them, which may be at once: None.

        The tokenizer must have codes for the kind. UserError where a medium does not fit the context.
        """
        codes = self._tokenizer.codes[kind]
        marker = np.array([self._tokenizer.specials[MARKERS[kind]]], np.int32)
        marked = [[*pieces, Piece("text", marker, learned=True)] for pieces in prompts]  # as in training: what is read ends before it
        only = dataclasses.replace(sampling, among=codes.ids)
        found = self.ids(marked, tokens=codes.most, sampling=only, seed=seed, first_row=first_row, ends=kind == "audio")
        made: list[Cut | None] = []
        for drawn in found:
            ids = [id for id in drawn if codes.ids[0] <= id < codes.ids[1]]
            if len(ids) == len(drawn) < codes.most:  # and no end was sampled
                raise UserError(
                    f"{kind}: {codes.most} codes do not fit behind the prompt", "Give a shorter one, or train with a longer context."
                )
            made.append(codes.decode(np.array(ids)) if ids else None)
        return made

    def ids(
        self, prompts: list[list[Piece]], *, tokens: int, sampling: Sampling, seed: int = 0, first_row: int = 0, ends: bool = True
    ) -> list[list[int]]:
        """The ids of those texts, the end included where it was sampled. ends: whether it can be.

        UserError where one does not fit the model's context, or has more media than a row of the run.
        """
        end = self._tokenizer.specials["document_end"]
        batch, lengths_B = self._rows(prompts, tokens)
        # As the generator of texts makes them, where the model sees all of a text.
        keys_B = jax.vmap(lambda row: jax.random.fold_in(random_key(seed, row, Purpose.SAMPLES), 0))(first_row + jnp.arange(len(prompts)))
        max_new_tokens = min(-(-tokens // WIDTHS) * WIDTHS, self._experiment.model.context_length - int(lengths_B.max()))
        state, attended = self._begin(self._params, batch, lengths_B, keys_B, max_new_tokens=max_new_tokens)
        ended = dataclasses.replace(sampling, stop_ids=(*sampling.stop_ids, end)) if ends else sampling
        by = by_row([ended] * len(prompts), self._experiment.model.vocab_size)
        state = self._decode(self._params, state, attended, sampling=by, steps=jnp.int32(min(tokens, max_new_tokens)))
        width, ids_BS, ends_B = batch.tokens.shape[1], np.asarray(state.tokens_BS), np.asarray(state.ends_B)
        return [ids[width:last].tolist() for ids, last in zip(ids_BS, ends_B, strict=True)]

    def _rows(self, prompts, tokens: int):
        """One prompt a row, right-aligned, and the length of each."""
        experiment, shapes = self._experiment, shapes_of(self._experiment)
        capacities = {kind: max(_rounded(patches_of(pieces, kind), shape) for pieces in prompts) for kind, shape in shapes.items()}
        context = experiment.model.context_length
        layout = Layout(context, capacities, getattr(experiment.data, "prefix", True))
        filler = RowFiller(layout, shapes, self._tokenizer, np.arange(len(prompts)))
        lengths = []
        for row, pieces in enumerate(prompts):
            length = 1 + sum(tokens_of(piece, shapes) for piece in pieces)  # the end of another sample comes first
            if length >= context:
                raise UserError(
                    f"the prompt takes {length} tokens of the context of {context}", "Give fewer or smaller media, or less text."
                )
            filler.add(row, [*pieces, Piece("text", np.zeros(0, np.int32), learned=True)])
            lengths.append(length)
        width = min(-(-max(lengths) // WIDTHS) * WIDTHS, context)

        def aligned(columns):
            right = np.zeros((len(prompts), width), np.int32)
            for row, length in enumerate(lengths):
                right[row, width - length :] = columns[row, :length]
            return right

        tokens_BT, slots_BT, groups_BT = map(aligned, (filler.batch.tokens, filler.batch.slots, filler.batch.groups))
        return filler.batch._replace(tokens=tokens_BT, slots=slots_BT, groups=groups_BT), jnp.asarray(lengths, jnp.int32)

    def read(self, contents: list[tuple[Kind, str | bytes]]) -> list[Piece]:
        """As of `read_media`."""
        return read_media(self._experiment, self._tokenizer, contents)


def read_media(experiment: Experiment, tokenizer: Tokenizer, contents: list[tuple[Kind, str | bytes]]) -> list[Piece]:
    """Texts and encoded files as pieces of a prompt. UserError for what cannot be decoded, or has no encoder."""
    shapes, found = shapes_of(experiment), []
    for kind, content in contents:
        if isinstance(content, str):
            found.append(Piece("text", tokenizer.encode(content)))
            continue
        if kind not in shapes:
            raise UserError(f"the model has no encoder for {kind}", f"It reads {', '.join(shapes)}.")
        try:
            found.append(Piece(kind, cut(content, shapes[kind], probe(kind, content), None)))
        except Undecodable as error:
            raise UserError(f"the {kind} cannot be decoded: {error}", "Give another file.") from None
    return found


def first_samples(dataset: Any, source: Source, split: str, tokenizer: Tokenizer, count: int) -> list[tuple[list[Piece], int]]:
    """Pieces and classes of up to `count` samples of a split, of those that rows have room for; nothing by chance."""
    batches = dataset.batches_of([source], tokenizer, split)
    numbers = batches.samples(0, min(count, batches.rows_per_epoch))[2][:count]
    found = source.samples(split, numbers, shapes_of(dataset.experiment), tokenizer, None)
    return [sample for sample in found if not isinstance(sample, Unusable)]


@functools.cache
def _programs(config):
    """(read prompts, go on sampling), compiled once for a model however many writers there are."""
    model = MultimodalDecoder(config)

    def begin(params, batch: MediaBatch, lengths_B, keys_B, max_new_tokens):
        media = media_of(config, params, batch)
        state = prefill(model, params, batch.tokens, lengths_B, keys_B, max_new_tokens=max_new_tokens, media=media)
        return state, None if media.attended is None else media

    def go_on(params, state, media, sampling, steps):
        return decode(model, params, state, sampling, steps, media)

    return jax.jit(begin, static_argnames="max_new_tokens"), jax.jit(go_on)


def sample_answers(dataset: Any, run: Run, params, sources: list, each: int = 2) -> list[Sample]:
    """What the model writes about the first samples of each set of the validation data, in place of what is learned of them."""
    experiment, tokenizer, prompts, shown = run.experiment, run.tokenizer(), [], []
    for name, (source, split) in dataset.validation(sources).items():
        for found in first_samples(dataset, source, split, tokenizer, each):
            read = [piece for piece in found[0] if not piece.learned]
            if any(piece.learned and piece.kind != "text" for piece in found[0]):
                continue  # written media are drawn, not told (train/generation/media.py)
            prompts.append(read)
            texts = [tokenizer.decode(piece.content) if isinstance(piece.content, np.ndarray) else f"[{piece.kind}] " for piece in read]
            shown.append(f"{name}: {''.join(texts)}")
    if not prompts:
        return []
    wanted = experiment.samples
    written = MediaWriter(run.experiment, run.tokenizer(), params).write(
        prompts, tokens=wanted.tokens, sampling=Sampling(temperature=wanted.temperature)
    )
    return [Sample(prompt, text) for prompt, text in zip(shown, written, strict=True)]


def tokens_of(piece: Piece, shapes) -> int:
    """Tokens of the row that a piece takes."""
    if isinstance(piece.content, Cut):
        return 1 + int(shapes[piece.kind].tokens(len(piece.content.patches)))  # and its marker
    return len(piece.content)


def patches_of(pieces: list[Piece], kind: Kind) -> int:
    """Patches that the pieces of a kind have together."""
    return sum(len(piece.content.patches) for piece in pieces if isinstance(piece.content, Cut) and piece.kind == kind)


def _rounded(patches: int, shape) -> int:
    """Room for them: in whole media of the largest size, so that few programs are compiled."""
    largest = shape.most
    return -(-patches // largest) * largest


def load_writer(run: Run, *, step: int | None = None, raw: bool = False) -> MediaWriter:
    """A writer with a checkpoint of the run. UserError where that trains no model that writes."""
    decoder_of(run)
    params, _ = load_parameters(run, step=step, raw=raw)
    return MediaWriter(run.experiment, run.tokenizer(), params)
