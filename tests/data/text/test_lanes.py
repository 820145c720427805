"""Rows that go on from one another: lanes against the documents themselves."""

import numpy as np
import pytest

from data.errors import UserError
from data.text.lanes import LaneBatches

END = 10**6
LENGTHS = [3, 1, 17, 64, 5, 200, 33, 2, 2, 9, 16, 300]


@pytest.fixture(scope="module")
def corpora(tmp_path_factory, make_corpus, make_documents):
    folder = tmp_path_factory.mktemp("lanes")
    return [
        make_corpus(folder / "first", make_documents(LENGTHS), make_documents(LENGTHS)[:9], document_end=END),
        make_corpus(folder / "second", make_documents([7, 40, 1]), make_documents([7]), document_end=END),
    ]


def lanes_of(batches, epoch: int = 0):
    """Of each lane of an epoch: its cells (input, target, segment starts here, position), row after row."""
    batch = batches.batch(epoch * batches.rows_per_epoch, batches.rows_per_epoch)
    lanes = [[] for _ in range(batches.lanes)]
    for row in range(batches.rows_per_epoch):
        held = batch.segments[row] > 0
        assert (batch.weights[row] > 0).tolist() == held.tolist()
        cells = zip(*(getattr(batch, name)[row][held].tolist() for name in ("tokens", "targets", "segments", "positions")), strict=True)
        lanes[row % batches.lanes] += cells
    return lanes


@pytest.mark.parametrize("lanes, length", [(1, 8), (3, 16), (4, 5), (7, 512)])
def test_lanes_hold_every_document_once_and_in_order(corpora, lanes, length):
    batches = LaneBatches(corpora, lanes=lanes, context_length=length, seed=3)
    documents = [one.split("train").read(i).tolist() for one in corpora for i in range(len(one.split("train").lengths))]
    orders = []
    for epoch in (0, 1):
        stream, texts = [cell for lane in lanes_of(batches, epoch) for cell in lane], []
        for token, target, _, _ in stream:
            texts += [[]] if token == END else []
            texts[-1].append(target)
        assert sorted(texts) == sorted(documents)
        orders.append(stream)
    assert orders[0] != orders[1]


def test_positions_and_inputs_go_on_where_a_row_ended(corpora):
    """Within a lane, across its rows: a position is one more than the one before, or 0 where a document begins, after its end."""
    batches = LaneBatches(corpora, lanes=3, context_length=16, seed=3)
    for lane in lanes_of(batches):
        assert lane[0][3] == 0
        for (_, target, _, position), (token, _, _, following) in zip(lane, lane[1:], strict=False):
            if following:
                assert following == position + 1 and token == target
            else:
                assert token == END


def test_a_row_is_the_same_by_itself(corpora):
    batches = LaneBatches(corpora, lanes=3, context_length=16, seed=3)
    rows = batches.rows_per_epoch + 5  # into the next epoch
    whole = batches.batch(0, rows)
    fresh = LaneBatches(corpora, lanes=3, context_length=16, seed=3)
    for row in (rows - 1, 4, batches.rows_per_epoch, 0):
        one = fresh.batch(row, 1)
        for name in ("tokens", "targets", "weights", "segments", "positions", "rows"):
            np.testing.assert_array_equal(getattr(one, name)[0], getattr(whole, name)[row])


def test_one_pass_is_in_order_and_ends(corpora):
    """Each token of the split is predicted once, for any seed alike; what lies past the end is padding."""
    one, other = (LaneBatches(corpora, lanes=2, context_length=16, split="validation", order="sequential", seed=seed) for seed in (0, 1))
    batch = one.batch(0, one.rows_per_epoch + 4)
    assert int(batch.weights.sum()) == one.targets and not batch.weights[one.rows_per_epoch :].any()
    np.testing.assert_array_equal(batch.targets, other.batch(0, one.rows_per_epoch + 4).targets)


def test_what_means_nothing_is_refused(corpora):
    with pytest.raises(UserError, match="0 lanes"):
        LaneBatches(corpora, lanes=0, context_length=16)
