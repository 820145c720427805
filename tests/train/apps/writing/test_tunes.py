"""Forms of verse: what tunes share, and what is drawn under them."""

import numpy as np
import pytest

from train.apps.writing.tunes import LEVEL, OBLIQUE, Metre, Tune, shape_of, sounds, tunes

pytest.importorskip("pypinyin")
LEVELS, OBLIQUES = "天春花风山人", "月雨夜水雪柳"
"""春 and 人 rhyme, and 天 and 山, and no other two of the first."""


@pytest.mark.parametrize(
    ("character", "found"),
    [
        ("春", (LEVEL, "en")),
        ("月", (OBLIQUE, "ie")),
        ("绿", (OBLIQUE, "i")),
        ("儿", (LEVEL, "i")),
        ("诗", (LEVEL, "zhi")),
        ("一", (LEVEL, "i")),
        ("歌", (LEVEL, "o")),
        ("嗯", (LEVEL, "")),
        ("，", ("", "")),
        ("a", ("", "")),
    ],
)
def test_sounds(character, found):
    assert sounds(character) == found


def poems(count: int, rng, noise: float = 0.0) -> list[tuple[str, str]]:
    """Of a tune of two lines: level, oblique, any, then a level one of the rhyme en; some break the tone of the first place."""
    found = []
    for _ in range(count):
        first = rng.choice(list(OBLIQUES if rng.random() < noise else LEVELS))
        lines = [f"{first}{rng.choice(list(OBLIQUES))}{rng.choice(list(LEVELS + OBLIQUES))}{rng.choice(list('春人'))}，" for _ in range(2)]
        found.append(("某调", "\n".join(lines)))
    return found


def test_a_tune_is_what_its_poems_share():
    rng = np.random.default_rng(0)
    found = tunes([*poems(40, rng, 0.1), ("某调", "春。"), *[("别调", "月。")] * 5], fewest=20)
    assert [*found] == ["某调"]
    mixed = [("杂", "天" * (3 + number) + "。") for number in range(20)] + [("杂", "天月。")] * 3
    assert tunes(mixed, fewest=20) == {}  # many poems, but of no one shape
    tune = found["某调"]
    assert tune.shape == "字字字字，\n字字字字，" and tune.poems == 40
    assert tune.tones == (LEVEL, OBLIQUE, "", LEVEL) * 2 and tune.rhymes == (3, 7)
    loose = tunes(poems(40, rng, 0.5), fewest=20)["某调"]
    assert loose.tones[0] == "" == loose.tones[4]  # half of them break it


TUNE = Tune("字字，\n字字。", (LEVEL, LEVEL, OBLIQUE, LEVEL), (1, 3), 30)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("天春，\n月人。", {"shape": True, "tones": 1.0, "rhymes": 1.0}),
        ("天春，\n月天。", {"shape": True, "tones": 1.0, "rhymes": 0.0}),
        ("月春，\n天人。", {"shape": True, "tones": 0.5, "rhymes": 1.0}),
        ("天春。", {"shape": False, "tones": 0.0, "rhymes": 0.0}),
    ],
)
def test_obeyed(text, found):
    assert TUNE.obeyed(text) == found


def test_what_is_drawn_keeps_the_tune():
    characters = "\n，。" + LEVELS + OBLIQUES
    end, size = len(characters), len(characters) + 3
    rng = np.random.default_rng(1)
    seen = set()
    for _ in range(40):
        metre, text = Metre(TUNE, characters, end, size), ""
        while True:
            allowed = metre.allowed()
            assert allowed.shape == (size,) and allowed.any()
            token = int(rng.choice(np.flatnonzero(allowed)))
            metre.take(token)
            if token == end:
                break
            text += characters[token]
        assert TUNE.obeyed(text) == {"shape": True, "tones": 1.0, "rhymes": 1.0} and shape_of(text) == TUNE.shape
        seen.add(text)
    assert len(seen) > 10  # and nothing else is held back


def test_the_first_rhyme_has_a_group_that_others_can_keep():
    metre = Metre(Tune("字字", (LEVEL, LEVEL), (0, 1), 30), "嗯春人", 3, 4)
    assert np.flatnonzero(metre.allowed()).tolist() == [1, 2]


def test_a_rhyme_that_no_character_of_the_tone_has_is_kept_before_the_tone():
    metre = Metre(Tune("字字", (LEVEL, OBLIQUE), (0, 1), 30), "春人月", 3, 4)
    metre.take(0)
    assert np.flatnonzero(metre.allowed()).tolist() == [0, 1]


def test_without_any_character_of_the_rhyme_another_will_do():
    metre = Metre(Tune("字字", (LEVEL, OBLIQUE), (0, 1), 30), "月雨", 2, 3)
    metre.take(0)
    metre._group = "zhi"
    assert np.flatnonzero(metre.allowed()).tolist() == [0, 1]
