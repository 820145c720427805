"""Pairs of neighbouring texts, against the documents that they are of."""

import numpy as np
import pytest

from data.errors import UserError
from data.text.pairs import PairBatches

END, LENGTH = 10**6, 24
LENGTHS = [40, 7, 100, 2, 1, 21, 22, 300]
SENTENCE = 10  # every so many tokens one ends


@pytest.fixture(scope="module")
def documents(make_documents):
    """No id twice; each document's last is its end."""
    return [np.append(document, END) for document in make_documents(LENGTHS)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, make_corpus, documents):
    return make_corpus(tmp_path_factory.mktemp("data") / "pairs", documents, documents[:4], document_end=END)


def pairs_of(corpus, **options) -> PairBatches:
    ends = range(SENTENCE - 1, sum(LENGTHS), SENTENCE)
    return PairBatches([corpus], context_length=LENGTH, ends=ends, **options)


def parts(batch, row):
    """(A, B) of a row."""
    tokens, types = batch.tokens[row], batch.types[row]
    size = int((batch.segments[row] > 0).sum())
    second = int(types.argmax())
    return tokens[1 : second - 1], tokens[second : size - 1]


@pytest.mark.parametrize("negatives", ["random", "swapped"])
def test_half_of_the_pairs_are_neighbours_and_the_label_says_which(corpus, documents, negatives):
    made = pairs_of(corpus, negatives=negatives)
    count = 8 * made.rows_per_epoch
    batch = made.batch(0, count)
    document_of = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
    separator = corpus.manifest["tokenizer"]["specials"]["document_end"]
    at_ends = 0
    for row in range(count):
        a, b = parts(batch, row)
        assert len(a) and len(b) and len(a) + len(b) + 3 <= LENGTH
        for part in (a, b):
            assert (np.diff(part) == 1).all() and len(set(document_of[part])) == 1
        follows = document_of[a[-1]] == document_of[b[0]] and b[0] == a[-1] + 1
        assert follows == batch.follows[row]
        if not follows and negatives == "swapped":
            assert a[0] == b[-1] + 1 and document_of[a[0]] == document_of[b[-1]]
        elif not follows:
            assert document_of[a[0]] != document_of[b[0]]
        at_ends += (a[-1] if follows or negatives == "random" else b[-1]) % SENTENCE == SENTENCE - 1
        size = len(a) + len(b) + 3
        assert batch.tokens[row, [0, len(a) + 1, size - 1]].tolist() == [separator] * 3
        assert batch.types[row].tolist() == [0] * (len(a) + 2) + [1] * (len(b) + 1) + [0] * (LENGTH - size)
        assert batch.segments[row].tolist() == [1] * size + [0] * (LENGTH - size)
        assert batch.positions[row, :size].tolist() == [*range(size)] and batch.weights[row].sum() == size - 1
        assert (batch.targets[row, : size - 1] == batch.tokens[row, 1:size]).all()
    assert abs(batch.follows.mean() - 0.5) < 3 * 0.5 / np.sqrt(count) and at_ends > 0.7 * count


def test_an_epoch_takes_every_window_once(corpus, documents):
    made = pairs_of(corpus, negatives="swapped")
    seen = np.concatenate([np.concatenate(parts(made.batch(row, 1), 0)) for row in range(made.rows_per_epoch)])
    room = LENGTH - 3
    left_out = sum(length % room if length % room < 2 else 0 for length in LENGTHS)
    assert len(np.unique(seen)) == len(seen) == sum(LENGTHS) - left_out
    assert made.padding_share == pytest.approx((made.batch(0, made.rows_per_epoch).segments == 0).mean())


def test_a_row_depends_on_seed_and_number_alone(corpus):
    made = pairs_of(corpus, seed=3)
    whole = made.batch(0, 40)
    for first, count in ((0, 7), (33, 7)):
        for field, again in zip(whole, pairs_of(corpus, seed=3).batch(first, count), strict=True):
            assert field is None or (field[first : first + count] == again).all()
    assert (pairs_of(corpus, seed=4).batch(0, 40).tokens != whole.tokens).any()


def test_evaluation_is_one_pass_whatever_the_seed(corpus):
    one, other = (pairs_of(corpus, split="validation", order="sequential", seed=seed) for seed in (0, 1))
    rows = one.rows_per_epoch
    first, second = one.batch(0, rows + 3), other.batch(0, rows + 3)
    assert (first.tokens == second.tokens).all() and first.weights[:rows].any(1).all() and not first.weights[rows:].any()


def test_what_has_no_pairs_is_refused(tmp_path, make_corpus):
    with pytest.raises(UserError, match="two tokens"):
        pairs_of(make_corpus(tmp_path / "short", [np.array([1, END])], document_end=END))
    with pytest.raises(UserError, match="second document"):
        pairs_of(make_corpus(tmp_path / "single", [np.arange(30)]))


def test_negatives_come_from_all_corpora(tmp_path, make_corpus):
    """One document each: B of a pair that does not follow is of the other corpus."""
    corpora = [make_corpus(tmp_path / str(first), [np.arange(first, first + 200)]) for first in (0, 1000)]
    batch = PairBatches(corpora, context_length=LENGTH).batch(0, 40)
    for row in range(40):
        a, b = parts(batch, row)
        assert (a[0] // 1000 == b[0] // 1000) == batch.follows[row]
