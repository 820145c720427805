"""What n-grams say of a text by themselves: a linear model of them beside an encoder's head, learned with it (Wide & Deep: Cheng et al.
2016). Where single words tell, as in contracts, a small encoder alone is slower to find them."""

import dataclasses

import jax
import jax.numpy as jnp

from model.layers import Table
from model.media.encoders import segment_sums
from model.ngrams import ngram_rows, tokens_before

NGRAMS = "ngrams"
"""Parameters of a head by which n-grams are weighed."""
ROWS = 1 << 16
"""Of weights. N-grams are hashed into them (Weinberger et al. 2009), so that several may share one."""
SCALE = 32.0
"""Of the vector of a text's n-grams, whose length is about 1. A weight moves by about the learning rate when it is met (`RATE` times that
in train/optimizers/hashed.py), so this sum moves in a step as a head does on a hidden state of some hundred numbers of size 1."""
LEFT_OUT = 0.5
"""Share of n-grams that are left out in training: else each text is soon fitted by a few n-grams of its own."""
_NGRAMS = 1 << 23
"""Folded into the keys of dropout for which n-grams are left out, apart from the head's, those of sources and of the layers."""


@dataclasses.dataclass(frozen=True)
class NGrams:
    """longest: tokens of the longest n-gram. width: numbers that it gives, one of each label.

    A text's n-grams, n from 1 on, weigh 1 / sqrt(how many it has) each; a pair of texts is one text, with the marks around it.
    Parameters: table [ROWS, width], from zeros, so that n-grams which were never seen say nothing.
    """

    longest: int
    width: int

    def _table(self) -> Table:
        return Table(ROWS, self.width, ("vocab", "norm"), 0.0)

    def start(self):
        """Fresh parameters, boxed."""
        return self._table().init(jax.random.key(0))["params"]

    def __call__(self, params, batch, keys_B=None):
        """float32 [B, S, width], of a HeadBatch; zeros for texts that a row does not have. keys_B: of dropout, None for none."""
        before_BTN = tokens_before(batch.tokens, batch.positions, self.longest - 1, batch.segments)
        rows_BTN = ngram_rows(batch.tokens, before_BTN, ROWS, first=1)
        there_BTN = (jnp.arange(self.longest) <= batch.positions[..., None]).astype(jnp.float32)  # those that begin within the text
        weights_BTN = there_BTN
        if keys_B is not None:
            kept = jax.vmap(lambda key: jax.random.bernoulli(jax.random.fold_in(key, _NGRAMS), 1 - LEFT_OUT, there_BTN.shape[1:]))(keys_B)
            weights_BTN = jnp.where(kept, there_BTN / (1 - LEFT_OUT), 0)
        said_BTV = (self._table().apply({"params": params})[rows_BTN] * weights_BTN[..., None]).sum(2)
        texts = batch.items.shape[1]
        counts_BS1 = segment_sums(there_BTN.sum(-1, keepdims=True), batch.segments, texts)
        return SCALE * segment_sums(said_BTV, batch.segments, texts) / jnp.sqrt(jnp.maximum(counts_BS1, 1))
