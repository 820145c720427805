"""What hides, drops and moves parts of texts, against the papers' definitions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train.objectives.text.corruption import (
    Hiding,
    budget,
    compact,
    denoised_lengths,
    denoising,
    geometric_lengths,
    hidden_tokens,
    infilled,
    noise_counts,
    places,
    positions_within,
    row_keys,
    sentences,
    separators,
    shifted,
    shuffle,
    span_noise,
    windows,
)

T, ROWS, MASK = 200, 64, 999
SEGMENTS = np.repeat([1, 2, 3, 0], [90, 50, 40, 20]).astype(np.int32)
CANDIDATES = (SEGMENTS != 0) & (np.diff(SEGMENTS, prepend=0) == 0)
WORDS = np.cumsum(np.arange(T) % 7 < 3).astype(np.int32)  # of one token, one token and five tokens, in turn
KEYS = jax.random.split(jax.random.key(3), ROWS)
TOKENS = np.random.default_rng(0).integers(0, 50, (ROWS, T)).astype(np.int32)


def runs(marked):
    """(first, past the last) of every run of ones."""
    edges = np.flatnonzero(np.diff(np.pad(marked.astype(int), 1)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


@functools.cache
def hidden(spans: bool, words: bool, rate: float = 0.15):
    how = Hiding(rate, MASK, 50, spans)
    given = jnp.asarray(WORDS) if words else None
    hide = jax.jit(jax.vmap(lambda key, tokens: hidden_tokens(key, tokens, SEGMENTS, SEGMENTS != 0, given, how)))
    return [np.asarray(x) for x in hide(KEYS, TOKENS)]


@pytest.mark.parametrize(("spans", "words"), [(False, False), (False, True), (True, False)])
def test_about_the_rate_is_chosen_and_never_padding_nor_a_start(spans, words):
    seen, chosen = hidden(spans, words)
    assert not chosen[:, ~CANDIDATES].any() and (seen[~chosen] == TOKENS[~chosen]).all()
    most = budget(0.15, int(CANDIDATES.sum()))
    counts, largest = chosen.sum(1), 10 if spans else 5 if words else 1
    assert counts.max() <= most and counts.min() > most - largest  # whole units, as long as they fit
    if largest == 1:
        assert (counts == most).all()
    share = chosen[:, CANDIDATES].mean(0)  # no place is favoured
    assert abs(share[:80].mean() - share[-80:].mean()) < 0.03


def test_of_the_chosen_80_become_the_mask_10_are_random_and_10_stay():
    seen, chosen = hidden(False, False)
    masked, kept = (seen[chosen] == MASK).mean(), (seen[chosen] == TOKENS[chosen]).mean()
    deviation = 3 / np.sqrt(chosen.sum())
    assert abs(masked - 0.8) < deviation and abs(kept - (0.1 + 0.1 / 50)) < deviation
    assert set(np.unique(seen[chosen])) <= {MASK, *range(50)}


def test_shares_of_the_mask_and_of_random_tokens_are_given():
    how = Hiding(0.15, MASK, 50, masked=0.85, random=0.0)
    hide = jax.jit(jax.vmap(lambda key, tokens: hidden_tokens(key, tokens, SEGMENTS, SEGMENTS != 0, None, how)))
    seen, chosen = (np.asarray(x) for x in hide(KEYS, TOKENS))
    assert abs((seen[chosen] == MASK).mean() - 0.85) < 3 * np.sqrt(0.85 * 0.15 / chosen.sum())
    assert ((seen == MASK) | (seen == TOKENS)).all()


def test_the_last_place_of_each_text_of_a_pair_holds_its_separator():
    segments, types = np.array([[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1]]), np.array([[0, 0, 1, 1, 1, 0], [0, 1, 1, 1, 1, 1]])
    found = [np.flatnonzero(np.asarray(separators(*row))).tolist() for row in zip(segments, types, strict=True)]
    assert found == [[1, 4], [0, 5]]


def test_whole_words_are_chosen_or_none_of_it():
    _, chosen = hidden(False, True)
    unit = np.cumsum((np.diff(WORDS, prepend=0) != 0) | (np.diff(SEGMENTS, prepend=0) != 0))
    for number in np.unique(unit[CANDIDATES]):
        word = chosen[:, (unit == number) & CANDIDATES]
        assert (word.all(1) == word.any(1)).all()


def test_spans_have_geometric_lengths_and_one_fate():
    seen, chosen = hidden(True, False)
    expected = geometric_lengths()
    assert expected @ np.arange(1, 11) == pytest.approx(3.8, abs=0.05)  # Joshi et al. 2020, fig. 2
    # Long rows, so that few spans are left out for want of room.
    length, few = 4000, Hiding(0.05, MASK, 50, True)
    one = np.ones(length, np.int32)
    _, chosen_T = jax.jit(lambda key: hidden_tokens(key, jnp.zeros(length, jnp.int32), one, one > 0, None, few))(jax.random.key(0))
    lengths = np.array([stop - start for start, stop in runs(np.asarray(chosen_T))])
    assert abs(lengths.mean() - 3.8) < 1.0 and lengths.max() > 6
    for row in range(ROWS):  # two spans may touch; a run within ten tokens of one fate is mostly one
        for start, stop in runs(chosen[row]):
            masked = seen[row, start:stop] == MASK
            assert len(runs(masked)) <= 1 + (stop - start) // 2
    whole = [(seen[row, start:stop] == MASK).mean() in (0, 1) for row in range(ROWS) for start, stop in runs(chosen[row])]
    assert np.mean(whole) > 0.85


def test_a_row_is_corrupted_alike_wherever_it_stands():
    """Its number and the batch's key decide; without a key its number alone."""
    for key in (jax.random.key(1), None):
        own, dropout = row_keys(key, jnp.array([5, 7, 11]))
        other, _ = row_keys(key, jnp.array([11, 5]))
        own, other = np.asarray(jax.random.key_data(own)), np.asarray(jax.random.key_data(other))
        np.testing.assert_array_equal(own[[2, 0]], other)
        assert (dropout is None) == (key is None)
        assert key is None or not np.array_equal(jax.random.key_data(dropout), own)
    assert len(np.unique(own, axis=0)) == 3


@pytest.mark.parametrize(("length", "rate", "mean"), [(200, 0.15, 3.0), (64, 0.5, 2.0), (10, 0.15, 3.0), (2, 0.15, 3.0)])
def test_noise_has_the_same_counts_in_every_row(length, rate, mean):
    noise = np.asarray(jax.jit(jax.vmap(lambda key: span_noise(key, length, rate, mean)))(KEYS))
    tokens, spans = noise_counts(length, rate, mean)
    assert (noise.sum(1) == tokens).all() and not noise[:, 0].any() and noise[:, -1].all()
    assert [len(runs(row)) for row in noise] == [spans] * ROWS
    if length == 200:
        assert (tokens, spans) == (30, 10) and noise[:, 1:-10].mean(0).std() < 0.08 and len(np.unique(noise, axis=0)) == ROWS


def rebuilt(source, target, first, end):
    """The texts that source and target stand for: one list of tokens a segment."""
    texts = {}
    for segment in range(1, 4):
        parts, current = {}, None
        line = target.tokens[target.segments == segment].tolist()
        assert not line or line[-1] == end
        for token in line[:-1]:
            if token <= first and token > first - 100:
                current = parts.setdefault(token, [])
                assert len(parts) == first - token + 1  # counted within the segment, in order
            else:
                current.append(token)
        text = [parts.pop(token) if token in parts else [token] for token in source.tokens[source.segments == segment].tolist()]
        assert not parts
        texts[segment] = [token for part in text for token in part]
    return texts


def test_source_and_target_give_back_the_row():
    """The inverse of span corruption; sentinels descend as in T5's vocabulary."""
    lengths, first, end = denoised_lengths(T, 0.3, 3.0, 4), 500, 77

    def row(key, tokens):
        noise = span_noise(key, T, 0.3, 3.0)
        return denoising(noise, tokens, jnp.asarray(SEGMENTS), lambda n: first - n, end, lengths)

    sources, targets = jax.tree.map(np.asarray, jax.jit(jax.vmap(row))(KEYS, TOKENS))
    for number in range(ROWS):
        source, target = (type(line)(*(x[number] for x in line)) for line in (sources, targets))
        assert not source.lost and not target.lost
        texts = rebuilt(source, target, first, end)
        for segment in (1, 2, 3):
            assert texts[segment] == TOKENS[number, segment == SEGMENTS].tolist()
        for line in (source, target):
            np.testing.assert_array_equal(line.positions, positions_within(line.segments))
        inputs = np.asarray(shifted(target, 88))
        firsts = np.flatnonzero(np.diff(target.segments, prepend=0) * (target.segments != 0))
        assert (inputs[firsts] == 88).all() and (
            np.delete(inputs, [*firsts])[:50] == target.tokens[np.delete(np.arange(len(inputs)), firsts) - 1][:50]
        ).all()


def test_what_finds_no_room_is_counted():
    kept = jnp.array([1, 0, 1, 1, 0, 1, 1], bool)
    line = compact(kept, jnp.arange(10, 17), jnp.array([1, 1, 1, 2, 2, 2, 2]), 4)
    assert line.tokens.tolist() == [10, 12, 13, 15] and line.segments.tolist() == [1, 1, 2, 2]
    assert line.positions.tolist() == [0, 1, 0, 1] and line.lost == 1
    line = compact(kept, jnp.arange(10, 17), jnp.array([1, 1, 1, 2, 2, 2, 2]), 7)
    assert line.tokens.tolist() == [10, 12, 13, 15, 16, 0, 0] and line.segments.tolist() == [1, 1, 2, 2, 2, 0, 0] and line.lost == 0
    index, there = places(kept, 6)
    assert index[:5].tolist() == [0, 2, 3, 5, 6] and there.tolist() == [True] * 5 + [False]


def test_shuffling_moves_whole_units_within_their_segment():
    numbered = jnp.arange(T)
    ends = jnp.array([7, 8])

    def row(key, tokens):
        by_window = shuffle(key, numbered, SEGMENTS, windows(SEGMENTS, 8))
        return by_window, shuffle(key, numbered, SEGMENTS, sentences(tokens, SEGMENTS, ends))

    for found, unit_of in zip(jax.jit(jax.vmap(row))(KEYS, TOKENS), ("window", "sentence"), strict=True):
        found = np.asarray(found)
        assert (np.sort(found, 1) == np.arange(T)).all() and (found[:, SEGMENTS == 0] == np.arange(T)[SEGMENTS == 0]).all()
        assert (SEGMENTS[found] == SEGMENTS).all() and (found != np.arange(T)).any(1).mean() > 0.9
        # Neighbours are torn apart only at the end of a unit.
        torn = np.diff(found, axis=1) != 1
        if unit_of == "window":
            inside = positions_within(SEGMENTS)[found[:, :-1]] % 8 != 7
        else:
            inside = ~np.isin(np.take_along_axis(TOKENS, found[:, :-1], 1), [7, 8])
        assert not (
            torn
            & inside
            & (SEGMENTS[found[:, :-1]] == SEGMENTS[found[:, 1:]])
            & (found[:, :-1] + 1 < 180)
            & (SEGMENTS[np.minimum(found[:, :-1] + 1, T - 1)] == SEGMENTS[found[:, :-1]])
        ).any()


def test_infilling_leaves_one_mask_a_span():
    length, rate, mean = 600, 0.3, 3.0
    segments = np.ones(length, np.int32)

    def row(key):
        kept, tokens, parts = infilled(key, jnp.arange(length), segments, rate, mean, -1)
        return compact(kept, tokens, parts, length)

    lines = jax.tree.map(np.asarray, jax.jit(jax.vmap(row))(KEYS))
    assert not lines.lost.any()
    gone = masks = empty = 0
    for tokens, parts in zip(lines.tokens, lines.segments, strict=True):
        tokens = tokens[parts != 0]
        ordinary = np.flatnonzero(tokens >= 0)
        steps = np.diff(tokens[ordinary])
        assert (steps > 0).all()
        gone += length - len(ordinary)
        masks += (tokens < 0).sum()
        empty += ((steps == 1) & (np.diff(ordinary) == 2)).sum()  # a mask between two neighbours
    assert abs(gone / (ROWS * length) - rate) < 0.01
    assert abs(gone / masks - mean) < 0.15  # the empty spans counted
    assert abs(empty / masks - np.exp(-mean)) < 0.02
