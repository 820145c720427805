"""Fill in the middle (Bavarian et al. 2022, arXiv 2207.14255): segments rearranged so that their middle comes last.

Of the paper's variants this is the one at the level of contexts, with cuts at tokens, prefix-suffix-middle (PSM) and suffix-prefix-middle
(SPM) in equal shares:

    PSM  <prefix> prefix <suffix> suffix <middle> middle <end>
    SPM  <prefix> <suffix> suffix <middle> prefix middle <end>

A segment keeps its place and length in the row. <prefix> takes the place of its first input, which is no target: so a text from left to
right is never asked to predict it. For <suffix>, <middle> and <end> (of the document, which says that the middle is complete), the last
tokens of the segment give way: three, one of which is the document's end if the segment has it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from data.errors import UserError
from data.rows.order import fold
from data.text.rows import TextBatch
from data.text.shards import Corpus

SHORTEST = 16
"""Targets of a segment; shorter ones are left as they are."""
_GIVEN_WAY = 3
_PURPOSE = 0x46494D  # apart from the numbers of corpora, which the order of rows folds into the seed


class Markers(NamedTuple):
    """The special ids, of the corpus' tokenizer."""

    prefix: int
    suffix: int
    middle: int
    end: int


def markers_of(specials: dict[str, int]) -> Markers:
    """Those among a tokenizer's special ids; KeyError if one is missing."""
    return Markers(specials["fim_prefix"], specials["fim_suffix"], specials["fim_middle"], specials["document_end"])


def corpus_markers(corpora: Sequence[Corpus]) -> Markers:
    """Those of corpora of one tokenizer, which must be able to end a document."""
    for corpus in corpora:
        if corpus.document_end is None:
            raise UserError(
                f"{corpus.path}: has no document ends, without which filling in has no end.",
                "Prepare it with --split hash, or set fim_rate 0.",
            )
        try:
            markers = markers_of(corpus.manifest["tokenizer"]["specials"])
        except KeyError as missing:
            raise UserError(
                f"{corpus.path}: its tokenizer reserves no id {missing} for filling in.", "Prepare it again, or set fim_rate 0."
            ) from None
    return markers


def rearrange(batch: TextBatch, rate: float, markers: Markers, seed: int) -> None:
    """Rearranges a share of the segments of a batch in place. What becomes of one depends on (seed, row, segment) alone."""
    rows, columns = np.nonzero((batch.positions == 0) & (batch.segments > 0))
    numbers = batch.segments[rows, columns]
    lengths = _lengths(batch.segments, rows, columns)
    key = fold(seed, _PURPOSE, batch.rows[rows], numbers)
    chosen = (lengths >= SHORTEST) & (fold(key, 0) >> np.uint64(11) < rate * 2**53)
    for row, column, length, mode, *cuts in zip(
        *(values[chosen].tolist() for values in (rows, columns, lengths, fold(key, 1), fold(key, 2), fold(key, 3))), strict=True
    ):
        kept = batch.targets[row, column : column + length - _GIVEN_WAY]
        first, last = sorted(cut % (len(kept) + 1) for cut in cuts)
        prefix, middle, suffix = kept[:first], kept[first:last], kept[last:]
        between = (prefix, [markers.suffix], suffix, [markers.middle]) if mode % 2 else ([markers.suffix], suffix, [markers.middle], prefix)
        line = np.concatenate([[markers.prefix], *between, middle, [markers.end]])
        batch.tokens[row, column : column + length] = line[:-1]
        batch.targets[row, column : column + length] = line[1:]


def _lengths(segments, rows, columns):
    """Of the segments that begin there."""
    edges = np.pad(segments, ((0, 0), (0, 1)))[:, 1:] != segments  # at the last column of each
    ends = np.flatnonzero(edges & (segments > 0))
    return ends - (rows * segments.shape[1] + columns) + 1
