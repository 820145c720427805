"""The few programs that the engine runs, all of them compiled before the first request, and none after."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from model.decoding.continuing import DRAFT, go_on
from model.decoding.sampling import Sampling, by_row
from model.decoding.slots import (
    Slots,
    Texts,
    cut_chunk,
    empty_rows,
    empty_slots,
    insert,
    move,
    paste_chunk,
    read_chunk,
    read_chunks,
    score_chunk,
)
from model.encoder_decoder import Conditioned
from model.media.attending import Attending
from serve.jobs import Job, PromptReader
from train.adapters.method import overlaid
from train.adapters.together import for_rows
from train.step.state import Purpose, random_key

MOST_STEPS = 16
"""Passes of the model that one call makes at most."""
NO_ADAPTER = -1
READ_AT_ONCE = 4
"""Prompts of which a chunk is read together."""
FEW, LEAST_PLACES = 8, 256
"""Short texts have a bank of their own, with an eighth of the places; with fewer than so many, it would not be faster."""
STOPS = 16
"""Stop ids that a job may have."""


class Part(NamedTuple):
    """Some tokens of a prompt, the place where they begin, and the number of the adapter that reads them. Without tokens: nothing is read,
    and what stands before the place stays as it is."""

    ids: list[int]
    start: int
    adapter: int = NO_ADAPTER


class Newcomer(NamedTuple):
    """A job whose prompt was read into a row, and the slot that it takes."""

    place: int
    row: int
    job: Job


class Programs:
    """Programs of one model, for slots of `size` places, in banks of some widths. Prompts are read in chunks of `chunk` tokens, `rows` at
    once.

    exact: one program for each thing, so that a text is the same bits whoever is beside it. Else there are programs for fewer places too,
    and one for a prompt by itself: they are faster, and differ in the last digits. adapters: a tree of `side_by_side`, laid as `params`.
    guesses: as of `go_on`; so many places must be free behind every text. draft: of a Drafted model, the parameters of the small one.
    reader: of a model that reads each prompt in one piece. newer: the parameters of a checkpoint, laid as `params`, or None where it cannot
    be read. Everything that changes is donated.
    """

    def __init__(
        self,
        model: Any,
        params: Any,
        *,
        widths: tuple[int, ...],
        size: int,
        chunk: int,
        rows: int = 1,
        exact: bool = False,
        adapters: Any = None,
        guesses: int = 0,
        draft: Any = None,
        reader: PromptReader | None = None,
        newer: Callable[[int], Any] = lambda step: None,
    ):
        self.model, self.widths, self.size, self.chunk, self.rows, self.exact = model, widths, size, chunk, rows, exact
        self.guesses, self.reader, self.newer = guesses, reader, newer
        self.drafts, self._beside = draft is not None, {} if draft is None else {DRAFT: draft}
        few = -(-max(size // FEW, LEAST_PLACES, MOST_STEPS) // chunk) * chunk
        # Sources, and media that are attended to, take all the places of a row, however short the text behind them is.
        self.places = (size,) if exact or few >= size or isinstance(model, Conditioned | Attending) else (few, size)
        # Most prompts are short: a chunk that begins one has nothing before it to look at.
        self._places_read = self.places if exact or reader is not None else (chunk, *self.places)
        everywhere, laid_rows, laid_chunk = _layouts(model, params)
        laid_slots = Slots(laid_rows, *[everywhere] * (len(dataclasses.fields(Slots)) - 1))
        read = {"static_argnames": "places", "out_shardings": (laid_rows, everywhere)}
        self._read_chunks = _adapted(read_chunks, model, **read)
        self._read_chunk = _adapted(_for_rows(read_chunk, rows), model, **read)
        if reader is not None:
            self._read_whole = _adapted(_for_rows(reader.read, rows), model, out_shardings=(laid_rows, everywhere))
        self._insert = jax.jit(_insert, donate_argnums=0, out_shardings=laid_slots)
        self._move = jax.jit(move, donate_argnums=2, out_shardings=laid_slots)
        self._score_chunk = _adapted(_for_rows(score_chunk, rows), model, out_shardings=(laid_rows, everywhere, everywhere))
        # Exactly the same bits come from one program alone: that guesses, also where its guesses may not be taken.
        self._go_on = {
            count: _adapted(functools.partial(go_on, most=MOST_STEPS, guesses=count), model, out_shardings=(laid_slots, everywhere))
            for count in dict.fromkeys((guesses,) if exact else (0, guesses))
        }
        self._empty_rows = jax.jit(lambda: empty_rows(model, rows, size), out_shardings=laid_rows)
        empty = functools.partial(empty_slots, model, stops=STOPS)
        self._empty_bank = jax.jit(empty, static_argnums=(0, 1), out_shardings=laid_slots)
        self._bias = jax.jit(_with_bias, donate_argnums=0, out_shardings=laid_slots)
        self._cut = jax.jit(functools.partial(cut_chunk, count=chunk), out_shardings=laid_chunk)
        self._paste = jax.jit(paste_chunk, donate_argnums=0, out_shardings=laid_rows)
        self.params, self._adapters = params, {} if adapters is None else adapters

    @property
    def _weights(self) -> tuple[Any, Any]:
        return {**self.params, **self._beside}, self._adapters

    @property
    def vocabulary(self) -> int:
        return self.model.config.vocab_size

    @functools.cached_property
    def chunk_bytes(self) -> int:
        """Of a chunk that is cut out of a row."""
        chunk = jax.eval_shape(lambda: empty_rows(self.model, 1, self.chunk))
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(chunk))

    def bank(self, width: int, places: int) -> Slots:
        return self._empty_bank(width, places)

    def enough(self, count: int) -> int:
        """The fewest places that there are programs for, and that are so many."""
        return next(places for places in self.places if places >= min(count, self.size))

    def empty_rows(self):
        """For prompts."""
        return self._empty_rows()

    def read(self, rows, parts: dict[int, Part]):
        """A chunk of some prompts, or their rest: (rows, the logits behind them, as `insert` takes them). parts: of each row."""
        last = max(part.start for part in parts.values()) + self.chunk
        places = next(places for places in self._places_read if places >= min(last, self.size))
        read = [row for row in parts if parts[row].ids]
        if len(read) == 1 and not self.exact:
            (row,) = read
            ids, start, adapter = parts[row]
            where = np.int32(row), self._padded(ids), np.int32(start), np.int32(len(ids))
            return self._read_chunk(self._weights, rows, np.full(1, adapter, np.int32), *where, places=places)
        tokens_RC, adapter_R = np.zeros((self.rows, self.chunk), np.int32), np.full(self.rows, NO_ADAPTER, np.int32)
        index_R, count_R = np.zeros(self.rows, np.int32), np.ones(self.rows, np.int32)
        for row, (ids, start, adapter) in parts.items():
            tokens_RC[row, : len(ids)], index_R[row], count_R[row], adapter_R[row] = ids, start, max(len(ids), 1), adapter
        return self._read_chunks(self._weights, rows, adapter_R, tokens_RC, index_R, count_R, places=places)

    def score(self, rows, row: int, part: Part, following: list[int]):
        """A chunk of one prompt, and what the model thinks of the token behind each of its tokens: (rows, logits, Scores)."""
        ids, start, adapter = part
        where = np.int32(row), self._padded(ids), self._padded(following), np.int32(start), np.int32(len(ids))
        return self._score_chunk(self._weights, rows, np.full(1, adapter, np.int32), *where)

    def read_whole(self, rows, row: int, part: Part, whole: Any):
        """A prompt in one piece: (rows, logits)."""
        adapter_B = np.full(1, part.adapter, np.int32)
        return self._read_whole(self._weights, rows, adapter_B, np.int32(row), whole, np.int32(len(part.ids)))

    def _padded(self, ids: list[int]) -> np.ndarray:
        tokens_C = np.zeros(self.chunk, np.int32)
        tokens_C[: len(ids)] = ids
        return tokens_C

    def cut(self, rows, row: int, start: int):
        return self._cut(rows, np.int32(row), np.int32(start))

    def paste(self, rows, row: int, part, start: int):
        return self._paste(rows, np.int32(row), part, np.int32(start))

    def insert(self, bank: Slots, rows, logits, newcomers: list[Newcomer]) -> Slots:
        """Jobs whose prompts were read into rows take slots, at most as many as there are rows. logits: as `read` gave them for their last
        chunks."""
        jobs = [newcomer.job for newcomer in newcomers] + [newcomers[0].job] * (self.rows - len(newcomers))
        tokens_NS = np.zeros((self.rows, self.size), np.int32)
        for tokens_S, job in zip(tokens_NS, jobs, strict=True):
            tokens_S[: len(job.ids)] = job.ids

        def column(values, dtype: Any = np.int32) -> np.ndarray:
            return np.resize(np.array(list(values), dtype), self.rows)

        sampling = by_row([job.sampling for job in jobs], self.vocabulary, stops=STOPS)
        texts = Texts(
            place_N=column(newcomer.place for newcomer in newcomers),
            row_N=column(newcomer.row for newcomer in newcomers),
            tokens_NS=tokens_NS,
            count_N=column(len(job.ids) for job in jobs),
            limit_N=column(min(job.places, self.size - self.guesses) for job in jobs),
            keys_N=(column((job.seed % 2**32 for job in jobs), np.uint32), column(job.choice for job in jobs)),
            sampling=sampling.replace(bias_BV=np.broadcast_to(sampling.bias_BV, (self.rows, self.vocabulary))),
            asks_N=column((job.likeliest for job in jobs), bool),
        )
        return self._insert(bank, rows, logits, texts, np.int32(len(newcomers)))

    def move(self, bank: Slots, place: int, other: Slots, to: int) -> Slots:
        return self._move(bank, np.int32(place), other, np.int32(to))

    def set_bias(self, bank: Slots, place: int, bias_V: np.ndarray) -> Slots:
        return self._bias(bank, np.int32(place), bias_V)

    def go_on(self, bank: Slots, alive_B: np.ndarray, steps: int, guesses: int, adapter_B: np.ndarray):
        """guesses: 0, or as many as these programs make."""
        program = self._go_on.get(guesses) or self._go_on[self.guesses]
        return program(self._weights, bank, adapter_B, alive_B, np.int32(steps), np.bool_(guesses))

    def take(self, step: int) -> bool:
        """Go on with the parameters of another checkpoint; whether it could be read."""
        params = self.newer(step)
        self.params = self.params if params is None else params
        return params is not None

    def compile(self) -> None:
        """Run each once. What they give lies in one way, whatever it was made of, so once is enough."""
        shapes, rows = [(width, places) for width in self.widths for places in self.places], self.empty_rows()
        rows = self.paste(rows, 0, self.cut(rows, 0, 0), 0)
        rows, _, _ = self.score(rows, 0, Part([0], 0), [0])
        for example in self.reader.examples if self.reader is not None else ():
            rows, _ = self.read_whole(rows, 0, Part([0], 0), example)
        for which in ([0], range(self.rows)):
            for places in self._places_read:
                rows, logits = self.read(rows, {row: Part([0], places - self.chunk) for row in which})
        for shape in shapes:
            bank = self.insert(self.bank(*shape), rows, logits, [Newcomer(0, 0, Job([0], Sampling(), 0, 1, likeliest=True))])
            bank = self.set_bias(bank, 0, np.zeros(self.vocabulary, np.float32))
            for guesses in self._go_on:
                bank, _ = self.go_on(bank, np.ones(shape[0], bool), 1, guesses, np.full(shape[0], NO_ADAPTER, np.int32))
            for other in shapes:
                if (shape[0] == other[0]) != (shape[1] == other[1]):
                    self.move(bank, 0, self.bank(*other), 0)
            jax.block_until_ready(bank)


def _layouts(model: Any, params: Any) -> tuple[Any, Any, Any]:
    """How arrays lie on the devices that the parameters lie on: what each of them has, rows of caches, which are split by heads where the
    parameters are, and a chunk of one row."""
    shardings = [leaf.sharding for leaf in jax.tree.leaves(params)]
    one = Mesh(np.array(jax.devices()[:1]), ("data",))
    mesh = next((sharding.mesh for sharding in shardings if isinstance(sharding, NamedSharding)), one)

    def of_heads(leaf: Any, axis: int) -> NamedSharding:
        split = "tensor" in mesh.shape and leaf.shape[1] % mesh.shape["tensor"] == 0
        return NamedSharding(mesh, PartitionSpec(*[None] * axis, "tensor") if split else PartitionSpec())

    rows = jax.eval_shape(lambda: empty_rows(model, 1, 1))
    by_axis = (jax.tree.map(functools.partial(of_heads, axis=axis), rows) for axis in (1, 0))
    return NamedSharding(mesh, PartitionSpec()), *by_axis


def programs_for(
    model: Any,
    params: Any,
    *,
    slots: int,
    context: int,
    chunk: int = 0,
    exact: bool = False,
    adapters: Any = None,
    guesses: int = 0,
    draft: Any = None,
    reader: PromptReader | None = None,
    newer: Callable[[int], Any] = lambda step: None,
) -> Programs:
    """The programs that suit the devices at hand, for texts of up to `context` tokens. chunk: 0 for what suits them."""
    on_cpu = jax.default_backend() == "cpu"
    chunk = chunk or (64 if on_cpu else 256)
    widths = {min(width, slots) for width in (1, 4, slots)} if on_cpu and not exact else {slots}
    size = -(-(context + guesses) // chunk) * chunk
    rows = min(READ_AT_ONCE, slots)
    return Programs(
        model,
        params,
        widths=tuple(sorted(widths)),
        size=size,
        chunk=chunk,
        rows=rows,
        exact=exact,
        adapters=adapters,
        guesses=guesses,
        draft=draft,
        reader=reader,
        newer=newer,
    )


def _adapted(function, model: Any, **options):
    """A program of the parameters, what it changes, the adapter of each row of the batch, and what else `function` takes."""

    def call(weights, changed, adapter_B, *more, **others):
        params, adapters = weights
        chosen = overlaid(params, for_rows(adapters, adapter_B)) if adapters else params
        return function(model, chosen, changed, *more, **others)

    return jax.jit(call, donate_argnums=1, **options)


def _for_rows(function, rows: int):
    """A function that reads into one row, with its logits given for each of them, as those of `read_chunks` are."""

    def call(*arguments, **options):
        read, logits_V, *more = function(*arguments, **options)
        return read, jnp.broadcast_to(logits_V, (rows, *logits_V.shape)), *more

    return call


def _insert(bank: Slots, rows, logits_RV, texts: Texts, count) -> Slots:
    """`insert`, with keys of seeds and choices: as the generator of texts makes them, the row's key, folded with the tokens of the text
    that the model does not see."""
    keys_N = jax.vmap(lambda seed, choice: jax.random.fold_in(random_key(seed, choice, Purpose.SAMPLES), 0))(*texts.keys_N)
    return insert(bank, rows, logits_RV, texts._replace(keys_N=keys_N), count)


def _with_bias(slots: Slots, place, bias_V) -> Slots:
    return slots.replace(sampling=slots.sampling.replace(bias_BV=slots.sampling.bias_BV.at[place].set(bias_V)))
