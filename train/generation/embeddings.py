"""Texts as vectors: a model's hidden states, pooled. Texts are packed into rows of a few shapes, so that little is padding."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data.errors import UserError
from model.encoder_decoder_config import EncoderDecoderConfig
from model.media.encoders import segment_means
from model.media.multimodal_config import MultimodalConfig
from train.checkpoints.checkpointer import load_parameters
from train.generation.chat import Chat, load_chat
from train.kinds import realise
from train.runs.directory import Run, open_run

ROW = 64
"""Places of a row, unless a text is longer: attention then costs little beside the rest, and rows are full."""
TOKENS = 1024
"""Places of a batch: enough for products at full speed, and few enough to stay in a CPU's caches."""
TEXTS_A_ROW = 24
Pool = Literal["mean", "first", "last", "pooler"]


class Packed(NamedTuple):
    """Rows of several texts, int32 [B, T] (see TextBatch), and the number of the text in each of their segments, [B, S], -1 for none."""

    tokens: np.ndarray
    segments: np.ndarray
    positions: np.ndarray
    texts: np.ndarray


class TextEmbedder:
    """Texts to vectors [N, D], float32, of an encoder or of a decoder's trunk.

    pool: the mean over a text's tokens (Reimers and Gurevych 2019), its first or last hidden state, or what an encoder's pooler makes of
    the first. normalize: to length one. A text is cut at the model's context, or at `most` tokens.
    """

    def __init__(self, model: Any, params, tokenizer, *, pool: Pool = "mean", normalize: bool = True, most: int = 0):
        if pool == "pooler" and not getattr(model.config, "pooler", False):
            raise UserError("the model has no pooler", "Choose --pool mean, first or last.")
        self._model, self._params, self._tokenizer, self._pool, self._normalize = model, params, tokenizer, pool, normalize
        self.most = min(most or model.config.context_length, model.config.context_length)
        """Tokens of a text that are read, with what stands around it."""
        self.vocabulary = tokenizer.size
        self.reads: list[Any] = []
        """Which parameters these are, where they are a run's: its identity and the step."""
        self._embed = jax.jit(self._vectors)

    def rows(self, texts: Sequence[str | Sequence[int]], *, whole: bool = False) -> list[np.ndarray]:
        """The ids of texts, or those given in place of one, as the model reads them; whole: not cut."""
        made = iter(self._tokenizer.encode_batch([text for text in texts if isinstance(text, str)]))
        return [self._wrapped(next(made) if isinstance(text, str) else np.array(text), whole) for text in texts]

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """The vectors of the texts, in their order."""
        return self.vectors(self.rows(texts))

    def vectors(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        """Those of what `rows` made of texts."""
        found = np.zeros((len(rows), self._model.config.embed_dim), np.float32)
        pending = []
        for batch in _packed(rows):  # the next is packed while the device works
            pending.append((batch.texts, self._embed(self._params, batch.tokens, batch.segments, batch.positions)))
            if len(pending) > 2:
                _put(found, *pending.pop(0))
        for one in pending:
            _put(found, *one)
        return found

    def compile(self) -> None:
        """Run each shape once that any texts may need, so that none is compiled after."""
        length, longest = ROW, max(ROW, 1 << (self.most - 1).bit_length())
        while length <= longest:
            size = max(1, TOKENS // length)
            while size:
                self._embed(self._params, *np.zeros((3, size, length), np.int32))
                size //= 2
            length *= 2

    def _wrapped(self, ids: np.ndarray, whole: bool) -> np.ndarray:
        """A text between a document's start and its end, as those that the model was trained on."""
        start, end = self._tokenizer.document_start, self._tokenizer.specials["document_end"]
        return np.concatenate([[start], ids if whole else ids[: self.most - 2], [end]]).astype(np.int32)

    def _vectors(self, params, tokens_BT, segments_BT, positions_BT):
        """float32 [B, S, D]."""
        where = {"segments_BT": segments_BT, "positions_BT": positions_BT}
        hidden_BTD = self._model.apply({"params": params}, tokens_BT, **where).hidden_BTD
        if self._pool == "pooler":
            pooled_BSD = self._model.pooled(params, hidden_BTD, segments_BT, positions_BT, TEXTS_A_ROW)
        else:
            following_BT = jnp.pad(segments_BT, ((0, 0), (0, 1)))[:, 1:]
            chosen_BT = {"first": positions_BT == 0, "last": following_BT != segments_BT}.get(self._pool, True)
            pooled_BSD = segment_means(hidden_BTD, jnp.where(chosen_BT, segments_BT, 0), TEXTS_A_ROW)
        pooled_BSD = pooled_BSD.astype(jnp.float32)
        if self._normalize:
            pooled_BSD *= jax.lax.rsqrt(jnp.maximum(jnp.square(pooled_BSD).sum(-1, keepdims=True), 1e-24))
        return pooled_BSD


def _put(found: np.ndarray, texts: np.ndarray, vectors) -> None:
    there = texts >= 0
    found[texts[there]] = np.asarray(vectors)[there]


def _packed(rows: Sequence[np.ndarray]) -> Iterator[Packed]:
    """Batches of rows that hold the texts, longest first, each text in the first row of its batch with room for it."""
    order = sorted(range(len(rows)), key=lambda number: -len(rows[number]))
    place = 0
    while place < len(order):
        length = max(ROW, 1 << (len(rows[order[place]]) - 1).bit_length())
        size = max(1, TOKENS // length)
        left = len(order) - place
        if left < size:  # a few texts are not computed as if they were many
            size = min(size, 1 << (left - 1).bit_length())
        tokens, segments, positions = (np.zeros((size, length), np.int32) for _ in range(3))
        batch = Packed(tokens, segments, positions, np.full((size, TEXTS_A_ROW), -1))
        used, held = np.zeros(size, np.int64), np.zeros(size, np.int64)
        while place < len(order):
            ids = rows[order[place]]
            room = np.flatnonzero((used + len(ids) <= length) & (held < TEXTS_A_ROW))
            if not room.size:
                break
            row = room[0]
            span = slice(used[row], used[row] + len(ids))
            batch.tokens[row, span], batch.segments[row, span], batch.positions[row, span] = ids, held[row] + 1, np.arange(len(ids))
            batch.texts[row, held[row]] = order[place]
            used[row] += len(ids)
            held[row] += 1
            place += 1
        yield batch


def load_embedder(
    run: Run | str | Path, *, step: int | None = None, raw: bool = False, pool: Pool | None = None, most: int = 0
) -> TextEmbedder:
    """An embedder over a checkpoint of a run, or of the run in a folder (default: the latest; the averaged parameters, where kept, unless
    `raw`). pool, most: by default those of an imported model's authors, else the mean and the context.

    UserError for a model that does not read rows of text by themselves: one with a source, with encoders of media, or of other things than
    texts.
    """
    run = open_run(run) if isinstance(run, str | Path) else run
    config = run.experiment.model
    if not run.experiment.objective.of_texts:
        raise UserError(f"{run.path}: its model reads no texts", "Give a run of an encoder or of a decoder of text.")
    if isinstance(config, EncoderDecoderConfig | MultimodalConfig):
        raise UserError(
            f"{run.path}: a {type(config).__name__} has no vectors of texts alone", "Give a run of an encoder or of a decoder of text."
        )
    authors = Chat() if run.experiment.start else load_chat(run.path)  # what started from it was trained in its own way
    chosen: Any = pool or authors.pool or "mean"
    params, at = load_parameters(run, step=step, raw=raw)
    made = TextEmbedder(realise(config), params, run.tokenizer(), pool=chosen, most=most or authors.max_tokens)
    made.reads = [run.identity, at]
    return made
