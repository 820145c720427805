"""The one function that the trainer calls: rows of tokens, as a pure function of (seed, first row)."""

from collections.abc import Callable, Sequence

import numpy as np

from data.errors import UserError
from data.rows import order as orders
from data.rows.mixture import Mixture, counts_of_sizes, counts_of_weights
from data.text.infilling import corpus_markers, rearrange
from data.text.packing import load_plan, offsets
from data.text.rows import Segments, TextBatch, empty_batch, fill
from data.text.shards import Corpus


class Batches:
    """Packed rows of one split of one or several corpora.

    order: `shuffled` is an endless stream. Each epoch reads every corpus in a new order with new cuts in long documents, mixed by `weights`
    (default: by numbers of rows). `sequential` is one pass over all corpora, in a fixed order spread over each corpus, so that the first
    rows are a fair sample; rows past the end have weight 0.

    fim_rate: fraction of the segments of a shuffled stream rearranged for fill-in-the-middle (`data/text/infilling.py`). words: function
    that numbers the words of rows (`data/text/words.py`), or None.

    Attributes: ids (largest id in a batch plus one); rows_per_epoch; padding_share; targets (tokens predicted in one pass); raw_bytes
    (their UTF-8 bytes, for bits per byte); damaged (set of (corpus, document) found so far, whose slots are empty).
    """

    def __init__(
        self,
        corpora: Sequence[Corpus],
        *,
        context_length: int,
        split: str = "train",
        seed: int = 0,
        order: str = "shuffled",
        weights: Sequence[float] = (),
        max_damaged: int = 0,
        fim_rate: float = 0.0,
        words: Callable[[TextBatch], np.ndarray] | None = None,
    ):
        check_corpora(corpora, weights, order, context_length)
        if order == "sequential" and fim_rate:
            raise UserError("fim_rate has no meaning in sequential order, which is for evaluation.", "Leave it out.")
        self.fim_rate, self._markers = fim_rate, corpus_markers(corpora) if fim_rate else None
        self.corpora, self.context_length, self.seed, self.order = list(corpora), context_length, seed, order
        self.max_damaged, self._words = max_damaged, words
        self.ids = max(*(corpus.ids for corpus in corpora), 1 + max(self._markers or [-1]))
        self.damaged: set[tuple[int, int]] = set()
        self.damage = "damaged documents (data.max_damaged)"
        self._splits = [corpus.split(split) for corpus in corpora]
        self._plans = [
            load_plan(one.lengths, context_length, f"{corpus.digest} {split}", corpus.path)
            for corpus, one in zip(corpora, self._splits, strict=True)
        ]
        rows = np.array([plan.rows for plan in self._plans])
        self._ends = np.cumsum(rows)
        self._mixture = Mixture(counts_of_weights(weights) if weights else counts_of_sizes(rows))
        self.rows_per_epoch = int(rows.sum())
        self.tokens = sum(one.tokens for one in self._splits)
        self.targets = sum(corpus.targets(split) for corpus in corpora)
        self.raw_bytes = sum(one.raw_bytes for one in self._splits)
        self.padding_share = 1 - self.tokens / (self.rows_per_epoch * context_length)

    def batch(self, first_row: int, count: int) -> TextBatch:
        """Rows [first_row, first_row + count). Each host asks for its own slice of a global batch."""
        check_number(first_row + count - 1)
        return self.rows(np.arange(first_row, first_row + count))

    def rows(self, rows) -> TextBatch:
        """Any rows of the stream, int64 [B]."""
        rows = np.asarray(rows, np.int64)
        if len(rows):
            check_number(int(rows.min()))
            check_number(int(rows.max()))
        batch = empty_batch(rows, self.context_length)
        source, epoch, index = self._place(rows)
        for number, (corpus, split) in enumerate(zip(self.corpora, self._splits, strict=True)):
            chosen = np.flatnonzero(source == number)
            if chosen.size:
                segments = self._segments(number, epoch[chosen], index[chosen])
                damaged = fill(batch, chosen, segments, split, corpus.document_start)
                if damaged.any():
                    self._count_damaged(number, segments.document[damaged])
        if self._markers:
            rearrange(batch, self.fim_rate, self._markers, self.seed)
        return batch._replace(words=self._words(batch)) if self._words else batch

    def _place(self, rows):
        """Of each row of the stream: its corpus (-1 past the end), its epoch there, its row in the plan."""
        if self.order == "sequential":
            source = np.searchsorted(self._ends, rows, "right")
            source = np.where(source < len(self._ends), source, -1)
            epoch, index = np.zeros_like(rows), rows - np.concatenate([[0], self._ends])[source]
            for number, plan in enumerate(self._plans):
                chosen = source == number
                index[chosen] = orders.permute(index[chosen], plan.rows, orders.fold(0, number))
            return source, epoch, index
        source, local = self._mixture(rows)
        epoch, index = np.zeros_like(rows), np.zeros_like(rows)
        for number, plan in enumerate(self._plans):
            chosen = source == number
            epoch[chosen], index[chosen] = orders.shuffled(local[chosen], plan.rows, int(orders.fold(self.seed, number)))
        return source, epoch, index

    def _segments(self, number, epoch, index):
        """The slots of plan rows in an epoch; one that runs over the end of its document becomes its tail and its head."""
        row, document, start, length = self._plans[number].slots(index)
        whole = self._splits[number].lengths[document]
        if self.order == "shuffled":
            start = (start + offsets(self.seed, epoch[row], document, whole, self.context_length)) % whole
        head = np.maximum(start + length - whole, 0)
        pieces = 1 + (head > 0)
        segments = Segments(*(np.repeat(values, pieces) for values in (row, document, start, length - head)))
        heads = (np.cumsum(pieces) - 1)[head > 0]
        segments.start[heads] = 0
        segments.length[heads] = head[head > 0]
        return segments

    def _count_damaged(self, number, documents):
        self.damaged |= {(number, int(document)) for document in documents}
        if len(self.damaged) > self.max_damaged:
            raise damage_error(self.corpora[number], self._splits[number], int(documents[0]), len(self.damaged))


def damage_error(corpus: Corpus, split, document: int, found: int) -> UserError:
    """Of a document that fails its digest, where no more may; found: how many did so far."""
    return UserError(
        f"{split.where(document)} fails its digest (the file is damaged or was changed after preparation).",
        f"Run `omnia prepare text --output {corpus.path} --repair`, or go on without such documents "
        f"with --data.max-damaged N ({found} so far).",
    )


def check_number(row: int) -> None:
    if not 0 <= row < 1 << 31:
        raise UserError(f"row {row} is not from 0 to 2^31 - 1, which is what a batch can number.", "Use longer rows.")


def check_corpora(corpora, weights, order, context_length):
    if not corpora:
        raise UserError("no corpus given.", "Name the directory of a prepared corpus.")
    if weights and len(weights) != len(corpora):
        raise UserError(f"{len(weights)} weights for {len(corpora)} corpora.", "Give one weight for each, or none.")
    if order not in ("shuffled", "sequential"):
        raise UserError(f"order {order!r} is unknown.", "Choose shuffled or sequential.")
    if order == "sequential" and weights:
        raise UserError("weights have no meaning in sequential order, which takes every row once.", "Leave them out.")
    if context_length < 1:
        raise UserError(f"context length {context_length} is below 1.", "Give at least 1.")
    first = corpora[0]
    for corpus in corpora[1:]:
        if corpus.manifest["tokenizer"]["digest"] != first.manifest["tokenizer"]["digest"]:
            raise UserError(
                f"{corpus.path} and {first.path} were prepared with different tokenizers.",
                f"Prepare {corpus.path} again with --tokenizer {first.path}.",
            )
