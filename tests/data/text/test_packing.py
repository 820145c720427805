import os

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data.text.packing import load_plan, make_plan, offsets

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=60)


@settings(deadline=None, max_examples=80)
@given(lengths=LENGTHS, context_length=st.integers(1, 40))
def test_every_token_is_in_exactly_one_slot_and_no_row_is_too_long(lengths, context_length):
    plan = make_plan(lengths, context_length)
    slots = plan.slots(np.arange(plan.rows))
    begins = np.cumsum(lengths) - lengths
    held = np.zeros(sum(lengths), int)
    for _, document, start, length in zip(*slots, strict=True):
        assert length > 0
        assert start + length <= lengths[document]  # so no slot spills into a neighbour
        held[begins[document] + start : begins[document] + start + length] += 1
    assert (held == 1).all()
    assert np.bincount(slots.row, slots.length).max() <= context_length
    assert np.array_equal(np.unique(slots.row), np.arange(plan.rows))


@settings(deadline=None, max_examples=40)
@given(lengths=LENGTHS, context_length=st.integers(1, 40), data=st.data())
def test_a_row_of_the_plan_does_not_depend_on_those_asked_with_it(lengths, context_length, data):
    plan = make_plan(lengths, context_length)
    every = plan.slots(np.arange(plan.rows))
    rows = np.array(data.draw(st.lists(st.integers(0, plan.rows - 1), min_size=1, max_size=5)))
    some = plan.slots(rows)
    for i, row in enumerate(rows):
        for whole, part in zip(every[1:], some[1:], strict=True):
            assert np.array_equal(whole[every.row == row], part[some.row == i])


def best_fit_decreasing(lengths, context_length):
    """Piece by piece: the number of rows."""
    rooms = []
    for length in sorted(lengths, reverse=True):
        fitting = [room for room in rooms if room >= length]
        if fitting:
            rooms.remove(min(fitting))
            rooms.append(min(fitting) - length)
        else:
            rooms.append(context_length - length)
    return len(rooms)


@settings(deadline=None, max_examples=80)
@given(lengths=LENGTHS, context_length=st.integers(1, 40))
@example(lengths=[8, 6, 4, 3, 3], context_length=12)  # the 4 must go to the 8, though the 6 has more room
def test_as_many_rows_as_best_fit_decreasing_over_single_pieces(lengths, context_length):
    whole = sum(length // context_length for length in lengths)
    rest = [length % context_length for length in lengths if length % context_length]
    assert make_plan(lengths, context_length).rows == whole + best_fit_decreasing(rest, context_length)


@pytest.mark.parametrize("context_length", [512, 1024, 2048])
def test_rows_of_a_usual_corpus_are_nearly_full(context_length):
    lengths = np.exp(np.random.default_rng(0).normal(6, 1.3, 20_000)).astype(int) + 1
    assert 1 - lengths.sum() / (make_plan(lengths, context_length).rows * context_length) < 0.005


def test_pieces_of_one_length_are_dealt_in_no_order():
    """Documents that follow each other in the input must not share their rows."""
    plan = make_plan(np.full(4000, 10), 40)
    assert np.abs(np.diff(plan.document.reshape(-1, 4), axis=1)).mean() > 500


def test_cuts_move_by_epoch_for_long_documents_only():
    lengths = np.array([5, 100, 101, 10_000])
    documents = np.arange(4)
    drawn = np.array([offsets(7, epoch, documents, lengths, 100) for epoch in range(200)])
    assert (drawn[:, :2] == 0).all()
    assert ((drawn >= 0) & (drawn < lengths)).all()
    assert len(np.unique(drawn[:, 2])) > 50
    assert abs(drawn[:, 3].mean() - 5000) < 1000


def test_a_plan_is_kept_and_a_damaged_file_is_made_anew(tmp_path, flip):
    lengths = np.arange(1, 300)
    plan = load_plan(lengths, 64, "digest", str(tmp_path))
    (path,) = (tmp_path / ".plans").iterdir()
    kept = load_plan(lengths[::-1], 64, "digest", str(tmp_path))  # read: made of these it would be another
    flip(path, os.path.getsize(path) // 2)
    mended = load_plan(lengths, 64, "digest", str(tmp_path))
    path.write_bytes(path.read_bytes()[:1000])
    cut = load_plan(lengths, 64, "digest", str(tmp_path))
    for other in (kept, mended, cut, make_plan(lengths, 64)):
        assert np.array_equal(other.row_start, plan.row_start)
        assert np.array_equal(other.document, plan.document)
    assert list((tmp_path / ".plans").iterdir()) == [path]


def test_plans_of_what_cannot_be_written_go_to_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    load_plan(np.arange(1, 9), 8, "digest", "memory://elsewhere")
    (path,) = (tmp_path / "omnia" / "plans").iterdir()
    assert path.suffix == ".npz"
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    assert load_plan(np.arange(1, 9), 8, "digest", "memory://elsewhere").rows == 5
