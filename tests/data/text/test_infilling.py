"""Filling in the middle: segments are rearranged in their places, keep their tokens but for the last few, and nothing else changes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import UserError
from data.text.batches import Batches
from data.text.infilling import SHORTEST, Markers, corpus_markers
from data.tokenizer import byte_tokenizer

SPECIALS = byte_tokenizer().specials
END = SPECIALS["document_end"]
MARKERS = Markers(SPECIALS["fim_prefix"], SPECIALS["fim_suffix"], SPECIALS["fim_middle"], END)
LENGTHS = [3, 15, 16, 17, 40, 64, 5, 200, 33, 2, 300, 31]
FIRST = 1000  # ids of text, apart from the special ones


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, make_corpus):
    """No id of text occurs twice; each document ends with its mark."""
    ends = np.cumsum(LENGTHS)
    documents = [np.append(np.arange(end - length, end - 1) + FIRST, END) for end, length in zip(ends, LENGTHS, strict=True)]
    return make_corpus(tmp_path_factory.mktemp("data") / "corpus", documents, documents, document_end=END)


def batches(corpus, rate, **options):
    return Batches([corpus], **{"context_length": 64, "seed": 5, "fim_rate": rate, **options})


def segments(batch):
    """[(row, number, inputs, targets)] of all segments."""
    return [
        (row, number, batch.tokens[row, inside].tolist(), batch.targets[row, inside].tolist())
        for row in range(len(batch.rows))
        for number in range(1, batch.segments[row].max() + 1)
        if (inside := batch.segments[row] == number).any()
    ]


def undone(tokens, targets):
    """The text from left to right that a rearranged segment stands for, by the definition of PSM and SPM, and which one it is."""
    line = [*tokens, targets[-1]]
    assert line[0] == MARKERS.prefix and line[-1] == MARKERS.end
    assert [line.count(marker) for marker in MARKERS] == [1, 1, 1, 1]
    suffix, middle = line.index(MARKERS.suffix), line.index(MARKERS.middle)
    assert suffix < middle
    if suffix == 1:  # SPM, or PSM with an empty prefix
        joined = line[middle + 1 : -1]
        after = line[suffix + 1 : middle]
        return joined + after, "SPM or empty prefix"
    return line[1:suffix] + line[middle + 1 : -1] + line[suffix + 1 : middle], "PSM"


def test_rate_zero_changes_nothing(corpus):
    for one, other in zip(batches(corpus, 0.0).batch(0, 60), Batches([corpus], context_length=64, seed=5).batch(0, 60), strict=True):
        assert other is None if one is None else one.tobytes() == other.tobytes()


def test_at_rate_one_every_long_segment_is_rearranged_and_can_be_undone(corpus):
    plain, filled = batches(corpus, 0.0).batch(0, 200), batches(corpus, 1.0).batch(0, 200)
    for name in ("weights", "segments", "positions", "rows"):
        assert np.array_equal(getattr(plain, name), getattr(filled, name))
    kinds = []
    for (row, number, _, text), (same_row, same_number, tokens, targets) in zip(segments(plain), segments(filled), strict=True):
        assert (row, number, len(text)) == (same_row, same_number, len(targets))
        assert tokens[1:] == targets[:-1], "targets are inputs, one place on"
        if len(text) < SHORTEST:
            assert targets == text
            continue
        found, kind = undone(tokens, targets)
        assert found == text[: len(text) - 3], "only the last three give way"
        kinds.append(kind)
    assert 0.35 < kinds.count("PSM") / len(kinds) < 0.6
    assert len(kinds) > 150


def test_cuts_are_spread_over_the_segment(corpus):
    """Both cuts are uniform: so is the place of the middle, whose length then has the mean of a third."""
    starts, lengths = [], []
    for _, _, tokens, targets in segments(batches(corpus, 1.0).batch(0, 1500)):
        line = [*tokens, targets[-1]]
        if len(targets) == 64 and line.index(MARKERS.suffix) > 1:
            middle = len(line) - 1 - line.index(MARKERS.middle) - 1
            starts.append((line.index(MARKERS.suffix) - 1) / 61)
            lengths.append(middle / 61)
    assert len(lengths) > 300
    assert abs(np.mean(lengths) - 1 / 3) < 0.04
    assert abs(np.mean(starts) - 1 / 3) < 0.04
    assert min(lengths) == 0
    assert max(lengths) > 0.9


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_share_is_the_rate(rate, corpus):
    chosen = [
        tokens[0] == MARKERS.prefix for _, _, tokens, targets in segments(batches(corpus, rate).batch(0, 1500)) if len(targets) >= SHORTEST
    ]
    assert abs(np.mean(chosen) - rate) < 4 * (rate * (1 - rate) / len(chosen)) ** 0.5


def test_a_higher_rate_rearranges_the_same_segments_and_more(corpus):
    low, high = (
        {(row, number) for row, number, tokens, _ in segments(batches(corpus, rate).batch(0, 200)) if tokens[0] == MARKERS.prefix}
        for rate in (0.3, 0.7)
    )
    assert low < high


@settings(deadline=None, max_examples=20)
@given(rows=st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=6))
def test_a_row_does_not_depend_on_its_batch(corpus, rows):
    stream = batches(corpus, 0.5)
    together = stream.rows(rows)
    for i, row in enumerate(rows):
        for field, alone in zip(together, stream.batch(row, 1), strict=True):
            assert alone is None if field is None else np.array_equal(field[i], alone[0])


def test_seeds_and_epochs_differ(corpus):
    def choice(seed, epoch):
        stream = batches(corpus, 0.5, seed=seed, context_length=512)
        return [tokens[0] == MARKERS.prefix for _, _, tokens, _ in segments(stream.batch(epoch * stream.rows_per_epoch, 40))]

    assert choice(1, 0) != choice(2, 0)
    assert choice(1, 0) != choice(1, 1)


def test_damaged_segments_stay_empty(tmp_path, make_corpus, flip):
    documents = [np.append(np.full(3999, FIRST + i), END) for i in range(30)]
    corpus = make_corpus(tmp_path / "corpus", documents, document_end=END, shards=1, dtype="uint16")
    flip(tmp_path / "corpus" / "train-00000-of-00001.tokens", 99)
    plain, filled = (Batches([corpus], context_length=512, fim_rate=rate, max_damaged=30).batch(0, 300) for rate in (0, 1))
    assert (plain.segments == 0).any()
    assert np.array_equal(plain.segments, filled.segments)
    assert not filled.tokens[filled.segments == 0].any()
    assert not filled.targets[filled.segments == 0].any()


def test_evaluation_is_never_rearranged(corpus):
    with pytest.raises(UserError, match="sequential"):
        batches(corpus, 0.5, order="sequential")


def test_a_corpus_must_have_the_ids_and_document_ends(corpus, tmp_path, make_corpus):
    assert corpus_markers([corpus]) == MARKERS
    with pytest.raises(UserError, match="no document ends"):
        batches(make_corpus(tmp_path / "endless", [np.arange(99)]), 0.5)
    specials = corpus.manifest["tokenizer"].pop("specials")
    try:
        corpus.manifest["tokenizer"]["specials"] = {"document_end": END}
        with pytest.raises(UserError, match="'fim_prefix'"):
            batches(corpus, 0.5)
    finally:
        corpus.manifest["tokenizer"]["specials"] = specials
