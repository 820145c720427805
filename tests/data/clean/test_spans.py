import numpy as np
import pytest

from data.clean.spans import PRINT, STEP, cut, fingerprints, merged, repeated

LENGTH = 100


def random_text(random, size):
    return "".join(random.choice(list("abcdefgh 的是了。"), size))


def planted(seed):
    """Texts that share spans of lengths around the least, two of which overlap, and one within a text."""
    random = np.random.default_rng(seed)
    shared = [random_text(random, size) for size in (60, 99, 100, 101, 149, 150, 230, 450)]
    texts = [random_text(random, 80) + span + random_text(random, 70) for span in shared for _ in range(3)]
    texts += [shared[-1][40:200] + shared[-2], shared[-1][:300] + "x" + shared[-1], random_text(random, 30), shared[-1]]
    return [texts[place] for place in random.permutation(len(texts))]


def covered_by_definition(texts):
    """For each text the characters in windows of LENGTH that an earlier place has."""
    seen, found = set(), []
    for text in texts:
        covered = np.zeros(len(text), bool)
        for at in range(len(text) - LENGTH + 1):
            window = text[at : at + LENGTH]
            covered[at : at + LENGTH] |= window in seen
            seen.add(window)
        found.append(covered)
    return found


def spans_of(texts):
    prints = np.concatenate([np.zeros(0, PRINT), *(fingerprints(text, number, LENGTH) for number, text in enumerate(texts))])
    spans = repeated(prints, texts.__getitem__, LENGTH)
    return [merged(spans[spans["text"] == number]) for number in range(len(texts))]


@pytest.mark.parametrize("seed", range(4))
def test_spans_are_all_windows_that_an_earlier_place_has(seed):
    texts = planted(seed)
    for text, spans, expected in zip(texts, spans_of(texts), covered_by_definition(texts), strict=True):
        covered = np.zeros(len(text), bool)
        for begin, end in spans:
            covered[begin:end] = True
        assert np.array_equal(covered, expected)
        assert cut(text, spans) == "".join(np.array(list(text))[~expected])


def test_nothing_is_lost_from_all_texts():
    """Every window of the originals is still somewhere: the first copy of a span stays."""
    texts = ["y" * 10 + "".join(map(chr, range(200, 500))), "".join(map(chr, range(250, 600)))]
    spans = spans_of(texts)
    assert spans == [[], [(0, 250)]]
    assert cut(texts[1], spans[1]) == texts[1][250:]


def test_a_part_of_the_windows_is_enough():
    text = random_text(np.random.default_rng(1), 20_000)
    share = len(fingerprints(text, 0, LENGTH)) / len(text)
    assert share == pytest.approx(2 / (STEP + 1), rel=0.1)  # Schleimer et al. 2003, proposition 1


def test_periodic_text_ends():
    (spans,) = spans_of(["ab" * 2000])
    assert spans == [(2, 4000)]
