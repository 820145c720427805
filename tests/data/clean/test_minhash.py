import numpy as np
import pytest

from data.clean.minhash import LEAST_FOUND, Banding, banding, bands_of, jaccard, minima, shingles
from data.clean.units import units_of
from data.errors import UserError


def pair_of_sets(shared, alone, seed):
    """Two sets of random hashes, of Jaccard similarity shared / (shared + 2 alone)."""
    drawn = np.random.default_rng(seed).integers(0, 2**64, shared + 2 * alone, dtype=np.uint64)
    return drawn[: shared + alone], np.concatenate([drawn[:shared], drawn[shared + alone :]])


@pytest.mark.parametrize(("shared", "alone"), [(10, 45), (50, 25), (80, 10), (95, 3)])
def test_agreement_of_minima_is_an_unbiased_estimate_of_jaccard(shared, alone):
    """Over 200 pairs of sets the mean is within four standard errors; the spread is that of independent hashes."""
    similarity, hashes, pairs = shared / (shared + 2 * alone), 128, 200
    estimates = []
    for seed in range(pairs):
        one, other = pair_of_sets(shared, alone, seed)
        least = minima(np.concatenate([one, other]), np.array([len(one), len(other)]), hashes)
        estimates.append((least[0] == least[1]).mean())
    spread = np.sqrt(similarity * (1 - similarity) / hashes)
    assert abs(np.mean(estimates) - similarity) < 4 * spread / np.sqrt(pairs)
    assert 0.8 * spread < np.std(estimates) < 1.25 * spread


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9])
def test_a_banding_finds_pairs_at_its_threshold_and_passes_over_others(threshold):
    made = banding(threshold)
    assert made.found(threshold) >= LEAST_FOUND and made.bands * made.rows <= 128
    assert Banding(128 // (made.rows + 1), made.rows + 1).found(threshold) < LEAST_FOUND
    assert made.found(threshold / 3) < 0.2


def words_with(similarity, seed, size=60):
    """Two texts of distinct words whose shingles have about this similarity: the second has another end."""
    shared = round(2 * similarity * size / (1 + similarity))
    drawn = np.random.default_rng(seed).choice(10**6, 2 * size + 8, replace=False)
    one, other = drawn[: size + 4], np.concatenate([drawn[: shared + 4], drawn[size + 4 :][: size - shared]])
    return " ".join(map(str, one)), " ".join(map(str, other))


@pytest.mark.parametrize("similarity", [0.3, 0.6, 0.75, 0.85, 0.95])
def test_planted_pairs_share_a_band_as_often_as_the_curve_says(similarity):
    """1 - (1 - s^r)^b, with the true similarity of each pair; within four standard errors of 600 pairs."""
    made, pairs = banding(0.8), 600
    texts = [text for seed in range(pairs) for text in words_with(similarity, seed)]
    units = units_of(texts)
    values, counts = shingles(units)
    sets = [np.unique(part) for part in np.split(values, np.cumsum(counts)[:-1])]
    expected = np.array([made.found(jaccard(one, other)) for one, other in zip(sets[::2], sets[1::2], strict=True)])
    bands = bands_of(units, made)
    found = (bands[::2] == bands[1::2]).any(axis=1)
    error = np.sqrt((expected * (1 - expected)).sum()) / pairs
    assert abs(found.mean() - expected.mean()) <= 4 * error + 1 / pairs


def test_jaccard_is_that_of_sets():
    one, other = [1, 3, 5, 7], [3, 4, 5, 9, 11]
    assert jaccard(np.array(one), np.array(other)) == 2 / 7
    assert jaccard(np.array(one), np.array(one)) == 1


def test_short_and_empty_texts():
    """A short text is like its equal alone; one without words is like nothing."""
    bands = bands_of(units_of(["好评", "好评！", "好", "!!!", "..."]), banding(0.8))
    assert np.array_equal(bands[0], bands[1]) and not (bands[0] == bands[2]).any()
    assert not bands[3:].any()


def test_no_threshold_that_cannot_be_met():
    with pytest.raises(UserError, match=r"0\.01"):
        banding(0.01)
