import gzip
import json

import numpy as np
import pytest

from data.clean.contamination import COMMON, contaminated, find_grams, read_examples
from data.clean.units import units_of
from data.errors import UserError

QUESTION = "Which of the two rivers that meet below the old town is longer, and why is it so?"
CHINESE = "".join(chr(0x4E00 + 7 * number) for number in range(60))


@pytest.fixture
def examples(tmp_path):
    records = [
        {"question": QUESTION, "answers": [{"text": "the first"}]},
        {"question": "short", "number": 3},
        {"question": CHINESE},
    ]
    path = tmp_path / "test.jsonl.gz"
    path.write_bytes(gzip.compress("".join(json.dumps(record) + "\n" for record in records).encode()))
    return read_examples([str(path)])


def found(texts, examples):
    return contaminated(find_grams(units_of(texts), examples.grams), examples)


def full_width(text):
    return "".join(chr(ord(one) + 0xFEE0) if "!" <= one <= "~" else one for one in text)


WORDS = QUESTION.split()


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (QUESTION, 6),
        ("So: " + " ".join(WORDS[2:15]) + " he asked.", 1),
        ("So: " + " ".join(WORDS[2:14]) + " he asked.", 0),
        (QUESTION.upper().replace(",", " -- "), 6),
        (full_width(QUESTION), 6),
        (QUESTION.replace(" ", "\n"), 6),
        (" ".join(WORDS[:8] + ["new"] + WORDS[8:]), 0),
        ("前" + CHINESE[:50] + "后", 1),
        ("前" + CHINESE[:49] + "后", 0),
        (CHINESE[:25] + "，" + CHINESE[25:50], 1),
    ],
)
def test_thirteen_words_or_fifty_characters_are_found_and_fewer_are_not(text, count, examples):
    assert found(["something else", text], examples).contaminated == ({1: count} if count else {})


def test_examples_are_named_with_how_much_of_them_is_found(examples, tmp_path):
    report = found([" ".join(WORDS[:13]), " ".join(WORDS[:14]), CHINESE], examples).examples
    path = tmp_path / "test.jsonl.gz"
    assert report == [
        {"example": f"{path}: line 1", "documents": 2, "share": 0.3333},
        {"example": f"{path}: line 3", "documents": 1, "share": 1.0},
    ]
    assert examples.short == 1


def test_what_many_documents_have_is_common_text(examples):
    assert len(found([QUESTION] * COMMON, examples).contaminated) == COMMON
    assert found([QUESTION] * (COMMON + 1), examples) == ({}, [])
    often = found([QUESTION + " " + QUESTION] * COMMON, examples)  # twice in a document counts once
    assert len(often.contaminated) == COMMON


def test_texts_of_an_example_do_not_run_together(tmp_path):
    half = " ".join(WORDS[:9]), " ".join(WORDS[9:])
    (tmp_path / "test.json").write_text(json.dumps([{"first": half[0], "second": half[1]}, {"text": "a b c d e f g h i j k l m"}]))
    examples = read_examples([str(tmp_path / "test.json")])
    assert len(examples.grams) == 1 and not found([QUESTION], examples).contaminated


def test_other_files_are_an_example_each(tmp_path):
    (tmp_path / "test.txt").write_text(QUESTION)
    examples = read_examples([str(tmp_path / "test.txt")])
    assert examples.names == [str(tmp_path / "test.txt")] and len(examples.grams) == len(np.unique(examples.grams)) == 6


def test_a_set_of_short_texts_is_refused(tmp_path):
    (tmp_path / "test.txt").write_text("short")
    with pytest.raises(UserError, match="no evaluation text has 13 words"):
        read_examples([str(tmp_path / "test.txt")])
    with pytest.raises(UserError, match="none"):
        read_examples([str(tmp_path / "none.jsonl")])
