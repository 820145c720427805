"""Rows that go on where others end, for models that remember: text in lanes, as a pure function of (seed, row).

All documents of a split stand one after another, in an order that a seed gives each epoch, and are cut into as many lanes as a batch has
rows. Row r belongs to lane r % lanes, and begins where row r - lanes ended. So a batch of consecutive rows goes on from the batch before
it, row by row, and any row can be computed by itself.
"""

import functools
from collections.abc import Sequence

import numpy as np

from data.errors import UserError
from data.rows import order as orders
from data.text.batches import check_corpora, check_number, damage_error
from data.text.rows import Segments, TextBatch, empty_batch, fill
from data.text.shards import Corpus

_PURPOSE = 0x4C414E45  # apart from the numbers of corpora, which the order of rows folds into the seed


class LaneBatches:
    """Rows of one split of one or several corpora, in lanes.

    order: `shuffled` is an endless stream, whose documents stand in a new order each epoch; `sequential` is one pass in an order that is
    always the same; rows past its end have weight 0. A row that begins inside a document begins above position 0, counted from the start of
    the document in its lane; the first row of a lane begins at 0, since nothing before it belongs to it.

    Attributes: as of Batches, and lanes.
    """

    def __init__(
        self,
        corpora: Sequence[Corpus],
        *,
        lanes: int,
        context_length: int,
        split: str = "train",
        seed: int = 0,
        order: str = "shuffled",
        max_damaged: int = 0,
    ):
        check_corpora(corpora, (), order, context_length)
        if lanes < 1:
            raise UserError(f"{lanes} lanes.", "Give at least 1.")
        self.corpora, self.context_length, self.seed, self.order, self.lanes = list(corpora), context_length, seed, order, lanes
        self.max_damaged = max_damaged
        self.ids = max(corpus.ids for corpus in corpora)
        self.damaged: set[tuple[int, int]] = set()
        self.damage = "damaged documents (data.max_damaged)"
        self._splits = [corpus.split(split) for corpus in corpora]
        self._firsts = np.cumsum([0, *(len(one.lengths) for one in self._splits)])  # number of each corpus' first document
        self._lengths = np.concatenate([one.lengths for one in self._splits]).astype(np.int64)
        self.tokens = int(self._lengths.sum())
        self.targets = sum(corpus.targets(split) for corpus in corpora)
        self.raw_bytes = sum(one.raw_bytes for one in self._splits)
        self._rows_per_lane = max(1, -(-self.tokens // (lanes * context_length)))
        self.rows_per_epoch = self._rows_per_lane * lanes
        self.padding_share = 1 - self.tokens / (self.rows_per_epoch * context_length)
        self._order_of = functools.lru_cache(maxsize=2)(self._line_up)  # a batch may reach into the next epoch

    def batch(self, first_row: int, count: int) -> TextBatch:
        """Rows [first_row, first_row + count): each host asks for its own slice of a global batch."""
        check_number(first_row + count - 1)
        rows = np.arange(first_row, first_row + count)
        batch = empty_batch(rows, self.context_length)
        epochs = rows // self.rows_per_epoch
        for epoch in np.unique(epochs):
            if epoch == 0 or self.order == "shuffled":
                self._fill(batch, np.flatnonzero(epochs == epoch), int(epoch))
        return batch

    def _fill(self, batch: TextBatch, chosen, epoch: int) -> None:
        documents, starts = self._order_of(epoch)
        step, lane = np.divmod(batch.rows[chosen].astype(np.int64) % self.rows_per_epoch, self.lanes)
        lane_first = lane * self._rows_per_lane * self.context_length
        first = lane_first + step * self.context_length
        last = np.minimum(first + self.context_length, self.tokens)
        first = np.minimum(first, last)
        # The documents that each row touches: from the one that holds its first token to the one that holds its last.
        head, tail = np.searchsorted(starts, first, "right") - 1, np.searchsorted(starts, last, "left") - 1
        counts = np.where(last > first, tail - head + 1, 0)
        row = np.repeat(np.arange(len(chosen)), counts)
        place = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(head, counts)
        begin = np.maximum(starts[place], first[row])
        number, start = documents[place], begin - starts[place]
        length = np.minimum(starts[place] + self._lengths[number], last[row]) - begin
        whole = length > 0  # a document may be empty
        segments = Segments(*(values[whole] for values in (row, number, start, length)))
        since = np.minimum(segments.start, (begin - lane_first[row])[whole])  # the start of its lane
        for corpus in range(len(self.corpora)):
            self._fill_from(batch, chosen, segments, since, corpus)

    def _fill_from(self, batch: TextBatch, chosen, segments: Segments, since, corpus: int) -> None:
        """Segments of one corpus; those of others in the same rows are put beside them."""
        own = (segments.document >= self._firsts[corpus]) & (segments.document < self._firsts[corpus + 1])
        if not own.any():
            return
        if own.all():
            self._put(batch, chosen, segments, since, corpus)
            return
        # Rows of several corpora: each segment is read as a row of its own, and copied to its place.
        for one in np.flatnonzero(own):
            row, length = segments.row[one], segments.length[one]
            first = int(segments.length[:one][segments.row[:one] == row].sum())
            alone = empty_batch(batch.rows[chosen[row : row + 1]], self.context_length)
            single = Segments(*(values[one : one + 1] for values in segments))._replace(row=np.zeros(1, np.int64))
            self._put(alone, np.zeros(1, np.int64), single, since[one : one + 1], corpus)
            number = 1 + int((segments.row[:one] == row).sum())
            for name in ("tokens", "targets", "weights", "positions"):
                getattr(batch, name)[chosen[row], first : first + length] = getattr(alone, name)[0, :length]
            batch.segments[chosen[row], first : first + length] = number * (alone.segments[0, :length] > 0)

    def _put(self, batch: TextBatch, rows, segments: Segments, since, corpus: int) -> None:
        segments = segments._replace(document=segments.document - self._firsts[corpus])
        damaged = fill(batch, rows, segments, self._splits[corpus], self.corpora[corpus].document_start)
        opens = np.diff(segments.row, prepend=-1) > 0  # only the first segment of a row can begin inside its document
        offset = np.zeros(len(rows), np.int32)
        offset[segments.row[opens]] = since[opens]
        batch.positions[rows] += np.where(batch.segments[rows] == 1, offset[:, None], 0)
        if damaged.any():
            self.damaged |= {(corpus, int(document)) for document in segments.document[damaged]}
            if len(self.damaged) > self.max_damaged:
                raise damage_error(self.corpora[corpus], self._splits[corpus], int(segments.document[damaged][0]), len(self.damaged))

    def _line_up(self, epoch: int):
        """The documents of an epoch in their order, and where each begins."""
        key = orders.fold(self.seed if self.order == "shuffled" else 0, _PURPOSE, epoch)
        documents = orders.permute(np.arange(len(self._lengths)), max(1, len(self._lengths)), key)
        ends = np.cumsum(self._lengths[documents])
        return documents, ends - self._lengths[documents]
