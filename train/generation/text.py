"""Text from a model: prompts in, completions out, streamed if wanted; any length, whatever the model's context."""

import collections
import dataclasses
import functools
import os.path
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from data.errors import UserError
from data.text.infilling import markers_of
from model.attention.dispatch import MASKED
from model.decoding.beam import beam_search
from model.decoding.generate import Generation, decode, extend, prefill
from model.decoding.sampling import Sampling, by_row
from model.encoder_decoder import Conditioned, EncoderDecoder, SourceText
from model.encoder_decoder_config import EncoderDecoderConfig
from model.stack import unstack_layers
from model.transformer import Decoder
from train.checkpoints.checkpointer import in_eight_bits, load_parameters
from train.generation.chat import Chat, load_chat
from train.kinds import realise
from train.runs.directory import Run
from train.step.state import Purpose, random_key

CHUNK = 32
"""Tokens decoded between two checks of the text at most: for stop strings, and for what is shown while generating."""
FIRST = 4
"""With stop strings, tokens before the first check, which then double: answers of a word or two are common where a line's end stops."""
SHARED = 64
"""Tokens that all prompts begin with, from which on those are read once for all. Fewer are not worth a program of their own."""


@dataclasses.dataclass(frozen=True)
class Completion:
    """One continuation. finish: "stop" or "length".

    ids: all tokens that were sampled, the stop id included (the text may end before them, at a stop string); log_probs: of each.
    """

    prompt: str
    text: str
    ids: tuple[int, ...]
    log_probs: tuple[float, ...]
    finish: str


class Form(Protocol):
    """What a text may be, told token by token."""

    def allowed(self) -> np.ndarray:
        """Which ids may come next, bool [V]; at least one."""

    def take(self, token: int) -> None:
        """It came."""


@functools.partial(jax.jit, static_argnames=("model", "max_new_tokens", "samples"))
def _prefill(model, params, source, *arguments, **options) -> Generation:
    """`prefill`, of a model that has read the source first, if there is one."""
    return prefill(model if source is None else model.conditioned(params, source), params, *arguments, **options)


@functools.partial(jax.jit, static_argnames=("model", "beams", "max_new_tokens", "stop_ids", "length_penalty"))
def _search(model, params, source, *arguments, **options):
    return beam_search(model if source is None else model.conditioned(params, source), params, *arguments, **options)


@functools.partial(jax.jit, static_argnames="model", donate_argnames="state")
def _extend(model, params, state, tokens_BT, lengths_B) -> Generation:
    """`extend` with the rest of the prompts, whose beginning the state has read."""
    return extend(model, params, state, tokens_BT, lengths_B)


@functools.partial(jax.jit, static_argnames="model", donate_argnames="state")
def _decode(model, params, state, sampling, steps) -> Generation:
    return decode(Conditioned(model) if isinstance(model, EncoderDecoder) else model, params, state, sampling, steps)


class TextGenerator:
    """A decoder with its tokenizer. Texts longer than the context go on from the last half of it. chat: of a published model, which says
    what a text begins and ends with. An encoder-decoder reads a prompt and writes a text of its own, no longer than the context."""

    def __init__(self, model: Any, params, tokenizer, document_end: int | None, chat: Chat = Chat()):
        self._model, self._tokenizer = model, tokenizer
        self._start, self._stops = chat.start_ids, chat.stop_ids
        self._params = unstack_layers(params) if "layers" in params else params  # once, not in each call
        self._document_end = document_end

    @property
    def answers(self) -> bool:
        """Whether what is written is a text of its own, and does not continue its prompt."""
        return isinstance(self._model, EncoderDecoder)

    @property
    def params(self) -> Any:
        """The model's, their layers apart."""
        return self._params

    @property
    def vocabulary(self) -> int:
        """Ids that the model knows."""
        return self._model.config.vocab_size

    @property
    def context(self) -> int:
        """Tokens that the model sees at once."""
        return self._model.config.context_length

    def generate(self, prompts: Sequence[str | list[int]], **options) -> list[Completion]:
        """The completions of all prompts; see `stream` for the options."""
        return collections.deque(self.stream(prompts, **options), maxlen=1).pop()

    def stream(
        self,
        prompts: Sequence[str | list[int]],
        *,
        tokens: int,
        sampling: Sampling,
        seed: int = 0,
        stop: tuple[str, ...] = (),
        stop_in_space: bool = True,
        draws: Sequence[tuple[int, int]] = (),
        suffix: str | None = None,
        forms: Sequence[Form] = (),
    ) -> Iterator[list[Completion]]:
        """Yields the completions so far, every CHUNK tokens at most, until each has stopped or has `tokens` new tokens.

        prompts: texts, or whole rows of ids, such as Chat.encode gives.
        A row's randomness comes from the (seed, number) that `draws` has for it, or else from `seed` and its place in `prompts`, so it does
        not depend on the other prompts. A text ends before the first of the `stop` strings, and at the document's end, which is left
        out of it; without stop_in_space those do not count that stand in the white space before anything else.

        With a `suffix`, the text is what stands between each prompt and it (PSM of `data/text/infilling.py`); all must fit the model's
        context, and fewer than `tokens` are sampled where it has no room for them beside the longest prompt.

        forms: one for each prompt, which says what its text may be; empty: anything.
        """
        context = self._model.config.context_length
        if suffix is None:
            rows = [self.encode(prompt) if isinstance(prompt, str) else self._known(prompt) for prompt in prompts]
        elif self.answers:
            raise UserError("a model that reads one text and writes another fills no gap", "Leave the suffix out.")
        else:
            rows = [self._encode_around_gap(prompt, suffix) for prompt in prompts]
            tokens = min(tokens, context - max(map(len, rows)))
            if tokens < 1:
                raise UserError(
                    f"prompt and suffix are {max(map(len, rows))} tokens, which leaves no room for a middle in the context of {context}",
                    "Give less text around the gap.",
                )
        sampling = dataclasses.replace(sampling, stop_ids=(*sampling.stop_ids, *self.stop_ids))
        if sampling.among is None:  # what no text holds, a model that knows little may sample, and it would be missing from the text
            sampling = dataclasses.replace(sampling, among=(0, self._tokenizer.base_size))
        rows, source = self._apart(rows)
        if self.answers:  # without the token that it begins with, a text has no first half to leave out
            tokens = min(tokens, context - 1)
        new: list[list[int]] = [[] for _ in prompts]
        log_probs: list[list[float]] = [[] for _ in prompts]
        live = [True] * len(prompts)
        pairs_B2 = np.array(draws or [(seed, place) for place in range(len(prompts))], np.int64).reshape(-1, 2).astype(np.uint32)
        keys_B = jax.vmap(lambda own, number: random_key(own, number, Purpose.SAMPLES))(*pairs_B2.T)
        by = free = by_row([sampling] * len(prompts), self._model.config.vocab_size)
        nothing_V = np.zeros(self._model.config.vocab_size, bool)
        few = FIRST if stop else CHUNK
        while any(live):
            held = [_recent(prompt + made, context) for prompt, made in zip(rows, new, strict=True)]
            dropped_B = jnp.asarray([len(prompt + made) - len(kept) for prompt, made, kept in zip(rows, new, held, strict=True)])
            keys = jax.vmap(jax.random.fold_in)(keys_B, dropped_B)
            state, width, capacity = self._prefill(held, source, keys, tokens, [len(made) for made in new])
            state = state.replace(done_B=~jnp.asarray(live))
            while any(live) and width < capacity:
                if forms:  # what may come depends on what came
                    allowed_BV = np.stack([form.allowed() if on else nothing_V for form, on in zip(forms, live, strict=True)])
                    by, few = by.replace(bias_BV=np.where(allowed_BV, free.bias_BV, np.float32(MASKED))), 1
                steps = min(few, capacity - width, tokens - min(len(made) for made, on in zip(new, live, strict=True) if on))
                few = min(2 * few, CHUNK)
                state = _decode(self._model, self._params, state, by, jnp.int32(steps))
                ids, probabilities, ends = (np.asarray(x) for x in (state.tokens_BS, state.log_probs_BS, state.ends_B))
                for row, on in enumerate(live):
                    if on:
                        fresh = slice(width, int(ends[row]))
                        new[row] += ids[row, fresh].tolist()
                        for token in ids[row, fresh].tolist() if forms else ():
                            forms[row].take(token)
                        log_probs[row] += probabilities[row, fresh].tolist()
                width = int(state.index)
                completions = [
                    self._complete(*item, sampling, stop, stop_in_space, tokens) for item in zip(prompts, rows, new, log_probs, strict=True)
                ]
                live = [not completion.finish for completion in completions]
                state = state.replace(done_B=~jnp.asarray(live))
                yield completions

    def search(
        self, prompts: list[str], *, tokens: int, beams: int, length_penalty: float = 0.0, samples: int = 1
    ) -> list[list[Completion]]:
        """The `samples` best continuations of each prompt that a beam search finds, best first; see `model/decoding/beam.py`.

        UserError where a prompt and `tokens` more do not fit the context. log_probs are empty: the search keeps their sum alone.
        """
        if not 1 <= samples <= beams:
            raise UserError(f"{samples} continuations of {beams} beams", "Ask for 1 to as many as there are beams.")
        rows, source = self._apart([self.encode(prompt) for prompt in prompts])
        width, context = max(map(len, rows)), self._model.config.context_length
        if width + tokens > context:
            raise UserError(f"{width} tokens of prompt and {tokens} more do not fit the context of {context}", "Ask for fewer.")
        stop_ids = self.stop_ids
        padded = np.array([np.pad(row, (width - len(row), 0)) for row in rows], np.int32)
        lengths_B = jnp.asarray([len(row) for row in rows], jnp.int32)
        options = {"beams": beams, "max_new_tokens": tokens, "stop_ids": stop_ids, "length_penalty": length_penalty}
        found = jax.device_get(_search(self._model, self._params, source, padded, lengths_B, **options))
        sampling = Sampling(stop_ids=stop_ids)

        def completion(row: int, beam: int) -> Completion:
            ids = found.tokens_BWS[row, beam, width : width + found.lengths_BW[row, beam]].tolist()
            return self._complete(prompts[row], rows[row], ids, [], sampling, (), True, len(ids))

        return [[completion(row, beam) for beam in range(samples)] for row in range(len(prompts))]

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Those of a published model, and the document's end."""
        return tuple(dict.fromkeys((*self._stops, *([] if self._document_end is None else [self._document_end]))))

    def encode(self, prompt: str) -> list[int]:
        """Ids of a text to continue, with what it begins with. UserError for an empty one where there is no such thing."""
        ids = self._tokenizer.encode(prompt).tolist()
        start = list(self._start)
        if not start and self._document_end is not None and not self.answers:  # a text that is read has an end alone
            start = [self._tokenizer.document_start]
        return self._known(start + ids)

    def _encode_around_gap(self, prompt, suffix: str) -> list[int]:
        """What comes before the middle when a text is written in the order prefix, suffix, middle."""
        try:
            markers = markers_of(self._tokenizer.specials)
        except KeyError as missing:
            raise UserError(
                f"the run's tokenizer reserves no id {missing} for filling in", "Use a run that was trained to fill in."
            ) from None
        if self._document_end is None:
            raise UserError("the run's corpus has no document ends, without which filling in has no end", "Use another run.")
        before, after = (self._tokenizer.encode(text).tolist() for text in (prompt, suffix))
        return self._known([markers.prefix, *before, markers.suffix, *after, markers.middle])

    def _known(self, ids: list[int]) -> list[int]:
        size = self._model.config.vocab_size
        if not ids and not (self.answers and self._document_end is not None):
            raise UserError("an empty prompt, and a model that knows no start of a document", "Give at least one character.")
        if max(ids, default=0) >= size:
            raise UserError(f"the prompt holds token id {max(ids)}; the model has {size}", "Leave special tokens out of the prompt.")
        return ids

    def _apart(self, rows: list[list[int]]) -> tuple[list[list[int]], SourceText | None]:
        """The rows to continue, and what is read first: None for a decoder, which reads what it continues."""
        if not self.answers:
            return rows, None
        sources = [self.ended(row) for row in rows]
        longest = max(map(len, sources))
        if longest > self.context and self._model.config.positions in ("learned", "sinusoidal"):
            raise UserError(f"the text to read is {longest} tokens; the model's context is {self.context}", "Give a shorter one.")
        return [[self.start_token] for _ in rows], self.source(sources, _rounded(longest))

    def ended(self, ids: Sequence[int]) -> list[int]:
        """Ids of a text to read, with those that end it."""
        return [*ids, *([] if self._document_end is None else [self._document_end])]

    @property
    def start_token(self) -> int:
        """What the text begins with that an encoder-decoder writes."""
        return self._model.config.start_token

    def source(self, rows: Sequence[Sequence[int]], width: int) -> SourceText:
        """Texts to read, padded to a width."""
        tokens = np.array([np.pad(row, (0, width - len(row))) for row in rows], np.int32)
        segments = (np.arange(width) < np.array([[len(row)] for row in rows])).astype(np.int32)
        return SourceText(tokens, segments, np.arange(width, dtype=np.int32) * segments)

    def _prefill(self, rows: list[list[int]], source, keys_B, tokens: int, made: list[int]) -> tuple[Generation, int, int]:
        """Pad on the left, and give the buffers room, to a few sizes only, so that few programs are compiled.

        made: tokens of each text that are no prompt, all of which its row may not hold any more: penalties count them.
        Returns the state, the width of the prompts, and where the longest row has filled its context.
        """
        most = self._model.config.context_length - max(map(len, rows))
        room = _rounded(min(most, tokens))
        shared = beginning(rows) if isinstance(self._model, Decoder) and len(rows) > 1 else 0
        if shared < SHARED:
            padded, lengths_B = _right_aligned(rows)
            width = padded.shape[1]
            state, before = _prefill(self._model, self._params, source, padded, lengths_B, keys_B, max_new_tokens=room), 0
        else:
            (padded, lengths_1), (rest, lengths_B) = _right_aligned([rows[0][:shared]]), _right_aligned([row[shared:] for row in rows])
            before = padded.shape[1]
            width, more = before + rest.shape[1], {"max_new_tokens": rest.shape[1] + room, "samples": len(rows)}
            state = _prefill(self._model, self._params, source, padded, lengths_1, keys_B, **more)
            state = _extend(self._model, self._params, state, rest, lengths_B)
        # Those in the rest end with it, and the others, if any, where the beginning does.
        begin_B = [width - count if count <= length else before - (count - length) for count, length in zip(made, lengths_B, strict=True)]
        return state.replace(begin_B=jnp.asarray(np.maximum(begin_B, 0), jnp.int32)), width, width + min(most, room)

    def _complete(self, prompt, prompt_ids, ids, log_probs, sampling, stop, stop_in_space, tokens) -> Completion:
        ids, log_probs = ids[:tokens], log_probs[:tokens]
        ended = bool(ids) and ids[-1] in sampling.stop_ids
        # Decoded with its prompt: some tokenizers write the space of a first word differently.
        begin = self._tokenizer.decode(prompt_ids)
        text = self._tokenizer.decode(prompt_ids + (ids[:-1] if ended else ids))[len(begin) :]
        first = 0 if stop_in_space else len(text) - len(text.lstrip())
        cuts = [place for string in stop if (place := text.find(string, first)) >= 0]
        finish = "stop" if ended or cuts else "length" if len(ids) >= tokens else ""
        prompt = prompt if isinstance(prompt, str) else begin
        return Completion(prompt, text[: min(cuts)] if cuts else text, tuple(ids), tuple(log_probs), finish)


def _rounded(size: int) -> int:
    return -(-size // CHUNK) * CHUNK


def _right_aligned(rows: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """(ids [B, T], how many of each row are meant)"""
    lengths_B = np.array([len(row) for row in rows], np.int32)
    padded = np.zeros((len(rows), _rounded(int(lengths_B.max()))), np.int32)
    for padding, row in zip(padded, rows, strict=True):
        padding[len(padding) - len(row) :] = row
    return padded, lengths_B


def beginning(rows: Sequence[list[int]]) -> int:
    """Tokens that all rows begin with, the last of each aside."""
    return min(len(os.path.commonprefix(rows)), min(map(len, rows)) - 1)


def _recent(ids: list[int], context: int) -> list[int]:
    """What the model sees of a text that outgrew its context: each time it is full, the last half goes on as the first.

    It depends on the text's own length alone: where a text is read anew because of its neighbours, nothing changes.
    """
    half = max(1, context // 2)
    return ids if len(ids) < context else ids[-(half + (len(ids) - context) % (context - half)) :]


def decoder_of(run: Run, *, reads: bool = False) -> Any:
    """The run's model, which must continue texts: UserError, by name, for what does not. reads: an encoder-decoder will do, for a caller
    that gives it a text to read."""
    objective, model = run.experiment.objective, run.experiment.model
    if not objective.generates:
        raise UserError(
            f"{run.path}: {type(objective).__name__} trains no model that continues texts",
            "Give a run whose objective predicts text, such as CausalLM.",
        )
    if not model.generates:
        raise UserError(
            f"{run.path}: a {type(model).__name__} does not continue texts: it reads both ways, or keeps no cache",
            "Give a run of a causal model.",
        )
    if isinstance(model, EncoderDecoderConfig) and not reads:
        raise UserError(
            f"{run.path}: a {type(model).__name__} writes of a text that it reads first, and here it would get none",
            "Give a run of a decoder.",
        )
    return realise(model)


def make_generator(run: Run, params) -> TextGenerator:
    """A generator over parameters in hand, with the run's model and tokenizer."""
    return TextGenerator(decoder_of(run, reads=True), params, run.tokenizer(), run.document_end, load_chat(run.path))


def load_generator(run: Run, *, step: int | None = None, raw: bool = False, int8: bool = False) -> TextGenerator:
    """A text generator from a checkpoint of the run (default: the latest), with the averaged parameters if the run keeps them, unless
    `raw`.

    int8: round weights and activations to eight bits, which is faster and slightly less exact.
    """
    params, _ = load_parameters(run, step=step, raw=raw)
    return make_generator(run, in_eight_bits(params) if int8 else params)
