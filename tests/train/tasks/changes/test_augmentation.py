"""Changed texts: a pure function of seed and row, which keeps what each operation promises."""

import numpy as np
import pytest

from data.errors import UserError
from data.tokenizer import character_tokenizer
from train.tasks.changes.augmentation import Augment, augmented, augmenter
from train.tasks.changes.noise import LOOKALIKES, join_words, lookalikes, split_words, typing_errors
from train.tasks.changes.synonyms import frequent_words, in_place_of, neighbours, read_synonyms
from train.tasks.examples import Example

TEXTS = ["The film, I think, is good!", "a", "", "这部电影 很好看。", "  two   spaces ", "ALL Caps 123"]
TABLE = {"good": ("fine", "great"), "film": ("movie",), "好": ("棒",)}


def words_of(text: str) -> list[str]:
    return [word for _, word in split_words(text)[:-1]]


def draw(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("text", TEXTS)
def test_splitting_loses_nothing_and_chinese_characters_are_words(text):
    assert join_words(split_words(text)) == text
    assert words_of("电影good") == ["电", "影", "good"]


def test_it_is_a_function_of_seed_and_row_alone():
    example = Example({"text": TEXTS[0] * 3, "other": "stays"}, "label", "here")
    change = augmenter(Augment(rate=0.5), ("text", "pair"), 7)
    found = [change(example, row) for row in range(60)]
    again = [augmenter(Augment(rate=0.5), ("text",), 7)(example, row) for row in reversed(range(60))][::-1]
    assert found == again
    changed = [one for one in found if one is not example]
    assert 15 < len(changed) < 45 and len({one.fields["text"] for one in changed}) > 10
    assert all(one.label == "label" and one.fields["other"] == "stays" for one in found)
    assert augmenter(Augment(), ("text",), 7) is None


@pytest.mark.parametrize("text", [text for text in TEXTS if text])
def test_each_operation_keeps_its_promise(text):
    before = words_of(text)
    table = {"synonyms": "given"}
    for seed in range(10):
        swapped = augmented(text, Augment(rate=1, operations=("swap",), strength=0.5), {}, draw(seed))
        assert sorted(words_of(swapped)) == sorted(before) and len(swapped) == len(text)
        kept = words_of(augmented(text, Augment(rate=1, operations=("delete",), strength=0.5), {}, draw(seed)))
        rest = iter(before)
        assert 1 <= len(kept) <= len(before) and all(word in rest for word in kept)  # in their order
        longer = words_of(augmented(text, Augment(rate=1, operations=("insert",), **table), TABLE, draw(seed)))
        known = any(word.lower() in TABLE for word in before)
        assert len(longer) == len(before) + known and len([w for w in longer if w not in before]) == known
        other = words_of(augmented(text, Augment(rate=1, operations=("synonyms",), **table), TABLE, draw(seed)))
        assert len(other) == len(before) and sum(a != b for a, b in zip(other, before, strict=True)) == known


def test_a_synonym_is_written_as_the_word_is():
    assert in_place_of("Good", TABLE) == ["Fine", "Great"] and in_place_of("GOOD", TABLE) == ["FINE", "GREAT"]


def test_typing_errors_are_one_slip_away_and_keep_the_first_letter():
    for error in typing_errors("nothing"):
        assert error[0] == "n" and error != "nothing" and abs(len(error) - 7) <= 1
    assert typing_errors("at") == [] and typing_errors("好") == []


def test_lookalikes_are_other_characters_that_map_back():
    back = {other: letter for letter, other in LOOKALIKES.items()}
    assert len(back) == len(LOOKALIKES)
    for word in ("Example", "好", "x"):
        for one in lookalikes(word):
            assert one != word and "".join(back.get(letter, letter) for letter in one).replace("\u200b", "") == word


def test_a_table_of_synonyms_is_read_or_refused_by_its_line(tmp_path):
    path = tmp_path / "synonyms.tsv"
    path.write_text("Good\tfine\tgreat\n\nfilm\tmovie\n")
    assert read_synonyms(str(path)) == {"good": ("fine", "great"), "film": ("movie",)}
    path.write_text("good\tfine\nfilm\n")
    with pytest.raises(UserError, match="line 2"):
        read_synonyms(str(path))
    with pytest.raises(ValueError, match="synonyms"):
        Augment(operations=("insert",))


def test_neighbours_are_those_of_the_embedding_table():
    """Characters of a tokenizer as words: two pairs of near vectors, and one far from all."""
    tokenizer = character_tokenizer("abcdxyz")
    table = np.zeros((tokenizer.size, 3), np.float32)
    for letter, vector in {"ab": (1, 0, 0), "ac": (1, 0.1, 0), "xy": (0, 1, 0), "xz": (0, 1, 0.1), "dd": (-1, -1, 5)}.items():
        for id_ in tokenizer.encode(letter):
            table[id_] += np.array(vector, np.float32)
    words = frequent_words(["ab ac the xy xz dd 12"])
    assert words == ["ab", "ac", "xy", "xz", "dd"]
    found = neighbours(table, tokenizer, words)
    assert found["ab"][0] == "ac" and found["xz"][0] == "xy" and "dd" not in found
