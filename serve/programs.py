"""The few programs that the engine runs, all of them compiled before the first request, and none after."""

import functools
from typing import Any

import jax
import numpy as np

from model.decoding.sampling import Sampling, by_row
from model.decoding.slots import Slots, empty_slots, go_on, insert, move, read_chunk
from train.step.state import Purpose, random_key

MOST_STEPS = 16
"""Tokens that one call draws for a slot at most."""
STOPS = 16
"""Stop ids that a job may have."""


class Programs:
    """Programs of one model for slots of `size` places, read in chunks of `chunk` tokens, in banks of some widths.

    A row is the cache of one text that is being read. Everything that changes is donated.
    """

    def __init__(self, model: Any, params: Any, *, widths: tuple[int, ...], size: int, chunk: int):
        self.model, self.widths, self.size, self.chunk = model, widths, size, chunk
        self._read = jax.jit(functools.partial(read_chunk, model), donate_argnums=1)
        self._insert = jax.jit(insert, donate_argnums=0)
        self._move = jax.jit(move, donate_argnums=2)
        self._go_on = jax.jit(functools.partial(go_on, model, most=MOST_STEPS), donate_argnums=1)
        self._empty_row = jax.jit(lambda: model.empty_cache(1, size))
        self._empty_bank = jax.jit(lambda width: empty_slots(model, width, size, STOPS), static_argnums=0)
        self._bias = jax.jit(_with_bias, donate_argnums=0)
        self._cut = jax.jit(lambda row, start: jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, start, chunk, 1), row))
        self._paste = jax.jit(
            lambda row, part, start: jax.tree.map(lambda x, new: jax.lax.dynamic_update_slice_in_dim(x, new, start, 1), row, part),
            donate_argnums=0,
        )
        # As the generator of texts makes them: the row's key, folded with the tokens of the text that the model does not see.
        self._key = jax.jit(lambda seed, choice: jax.random.fold_in(random_key(seed, choice, Purpose.SAMPLES), 0))
        self.params = params

    @property
    def vocabulary(self) -> int:
        return self.model.config.vocab_size

    def bank(self, width: int) -> Slots:
        return self._empty_bank(width)

    def row(self):
        return self._empty_row()

    def read(self, row, ids: list[int], start: int):
        """A chunk of a prompt, or its rest, from place `start` on: (row, logits behind it)."""
        tokens = np.zeros(self.chunk, np.int32)
        tokens[: len(ids)] = ids
        return self._read(self.params, row, tokens, np.int32(start), np.int32(len(ids)))

    def cut(self, row, start: int):
        return self._cut(row, np.int32(start))

    def paste(self, row, part, start: int):
        return self._paste(row, part, np.int32(start))

    def insert(
        self, bank: Slots, place: int, row, ids: list[int], most: int, logits_V, seed: int, choice: int, sampling: Sampling, asks: bool
    ) -> Slots:
        tokens = np.zeros(self.size, np.int32)
        tokens[: len(ids)] = ids
        by = by_row([sampling], self.vocabulary, stops=STOPS)
        limit = min(len(ids) + most, self.size)
        return self._insert(
            bank,
            np.int32(place),
            row,
            tokens,
            np.int32(len(ids)),
            np.int32(limit),
            logits_V,
            self._key(np.uint32(seed % 2**32), np.int32(choice)),
            by,
            np.bool_(asks),
        )

    def move(self, bank: Slots, place: int, other: Slots, to: int) -> Slots:
        return self._move(bank, np.int32(place), other, np.int32(to))

    def set_bias(self, bank: Slots, place: int, bias_V: np.ndarray) -> Slots:
        return self._bias(bank, np.int32(place), bias_V)

    def go_on(self, bank: Slots, alive_B: np.ndarray, steps: int):
        return self._go_on(self.params, bank, alive_B, np.int32(steps))

    def compile(self) -> None:
        """Run each on fresh arrays and on those that others gave: with a mesh of devices they may lie in another way."""
        bias_V = np.zeros(self.vocabulary, np.float32)
        banks, row = {width: self.bank(width) for width in self.widths}, self.row()
        for _ in range(2):
            fresh, logits_V = self.read(self.row(), [0], 0)
            row = self.paste(self.paste(self.row(), self.cut(row, 0), 0), self.cut(fresh, 0), 0)
            row, logits_V = self.read(row, [0], 0)
            for width in self.widths:
                for state in (self.bank(width), banks[width]):
                    for read in (fresh, row):
                        state = self.insert(state, 0, read, [0], 1, logits_V, 0, 0, Sampling(), True)
                        state = self.set_bias(state, 0, bias_V)
                        state, _ = self.go_on(state, np.ones(width, bool), 1)
                    banks[width] = state
            for width in self.widths:
                for other in self.widths:
                    if other != width:
                        self.move(banks[width], 0, self.bank(other), 0)
                        banks[other] = self.move(banks[width], 0, banks[other], 0)
        jax.block_until_ready(banks)


def _with_bias(slots: Slots, place, bias_V) -> Slots:
    return slots.replace(sampling=slots.sampling.replace(bias_BV=slots.sampling.bias_BV.at[place].set(bias_V)))
