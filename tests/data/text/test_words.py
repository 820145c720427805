"""Where words begin and sentences end, for tokenizers of every sort."""

import json

import numpy as np
import pytest

from data.errors import UserError
from data.text.batches import Batches
from data.text.rows import TextBatch, empty_batch
from data.text.words import Words, read_lexicon, sentence_ends
from data.tokenizer import byte_tokenizer, character_tokenizer, hugging_face_tokenizer


def row_of(tokens, segments=None) -> TextBatch:
    batch = empty_batch(np.arange(1), len(tokens))
    batch.tokens[0] = tokens
    batch.segments[0] = 1 if segments is None else segments
    return batch


def split(tokenizer, text: str, lexicon=()) -> list[str]:
    """The words of a text."""
    ids = tokenizer.encode(text)
    numbers = Words(tokenizer, lexicon)(row_of(ids))[0]
    return [tokenizer.decode(ids[numbers == number]) for number in range(numbers.max() + 1)]


def test_words_are_what_spaces_and_marks_leave_together():
    text = "Don't stop, naïve 42nd café! 日本語"
    found = split(byte_tokenizer(), text)
    assert "".join(found) == text
    assert found[:6] == ["Don", "'", "t", " ", "stop", ","] and "naïve" in found and "42nd" in found and "café" in found
    characters = character_tokenizer(text)
    assert split(characters, text)[-3:] == ["日", "本", "語"]


def test_a_lexicon_joins_characters_to_its_longest_words():
    text = "研究生命起源 abc研究"
    tokenizer = character_tokenizer(text)
    assert split(tokenizer, text, ["研究", "研究生", "生命", "起源"]) == ["研究生", "命", "起源", " ", "abc", "研究"]
    ids = tokenizer.encode("研究研究")
    numbers = Words(tokenizer, ["研究"])(row_of(ids, [1, 2, 2, 0]))[0]
    assert numbers.tolist() == [0, 1, 2, 0]  # no word goes over the end of a segment, and padding has none


def word_piece() -> bytes:
    pieces = ["[UNK]", "[CLS]", "[SEP]", "[MASK]", "un", "##happ", "##y", "we", "are", ",", "##s"]
    return json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [],
            "normalizer": None,
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": None,
            "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": False},
            "model": {
                "type": "WordPiece",
                "unk_token": "[UNK]",
                "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100,
                "vocab": {piece: number for number, piece in enumerate(pieces)},
            },
        }
    ).encode()


def test_word_pieces_say_whether_they_go_on():
    tokenizer = hugging_face_tokenizer(word_piece())
    ids = tokenizer.encode("we are unhappy, unhappys")
    numbers = Words(tokenizer)(row_of(ids))[0]
    assert ids.tolist() == [7, 8, 4, 5, 6, 9, 4, 5, 6, 10] and numbers.tolist() == [0, 1, 2, 2, 2, 3, 4, 4, 4, 4]


def test_sentences_end_behind_marks_and_lines():
    tokenizer = character_tokenizer("ab .?\n。,")
    assert tokenizer.decode(sentence_ends(tokenizer)) == "\n.?。"


def test_words_are_numbered_in_rows_and_change_nothing_else(tmp_path, make_corpus):
    tokenizer = byte_tokenizer()
    texts = ["the cat sat.", "on a mat, and there", "it sleeps"]
    corpus = make_corpus(tmp_path / "shards", [tokenizer.encode(text) for text in texts], document_end=tokenizer.specials["document_end"])
    plain, numbered = Batches([corpus], context_length=32), Batches([corpus], context_length=32, words=Words(tokenizer))
    for name, one, other in zip(TextBatch._fields, plain.batch(0, 4), numbered.batch(0, 4), strict=True):
        if name == "words":
            assert one is None and other.shape == (4, 32) and other.dtype == np.int32
            assert (np.diff(other) >= 0)[numbered.batch(0, 4).segments[:, 1:] > 0].all()
        else:
            np.testing.assert_array_equal(one, other)


def test_a_lexicon_has_a_word_a_line(tmp_path):
    (tmp_path / "dict.txt").write_text("研究 12 n\n生命 3 n\n")
    (tmp_path / "none.txt").write_text("\n")
    assert read_lexicon(str(tmp_path / "dict.txt")) == ["研究", "生命"]
    with pytest.raises(UserError, match="no words"):
        read_lexicon(str(tmp_path / "none.txt"))
