"""Sentences with tags: every file says the same entities however they are written, or is refused."""

import contextlib
import gzip
import json
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.errors import UserError
from data.records.sentences import read_sentences
from data.records.tags import scheme_of, to_iob2

ANY_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)


def write(path, content: bytes | str):
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def columns(*sentences):
    """The lines of sentences of (column, column ...) tuples."""
    return "\n".join("".join("\t".join(row) + "\n" for row in rows) for rows in sentences)


@st.composite
def entities(draw):
    """[(length, type; "" outside)] of the pieces of a sentence."""
    return draw(st.lists(st.tuples(st.integers(1, 3), st.sampled_from(["", "PER", "B-I"])), min_size=1, max_size=6))


def tags_of(pieces, scheme):
    """The tags of pieces, from the definition of each scheme."""
    tags, last = [], ""
    for length, kind in pieces:
        if not kind:
            tags += ["O"] * length
        elif scheme == "IOB2":
            tags += [f"B-{kind}"] + [f"I-{kind}"] * (length - 1)
        elif scheme == "IOB1":
            tags += [f"{'B' if last == kind else 'I'}-{kind}"] + [f"I-{kind}"] * (length - 1)
        else:
            tags += [f"S-{kind}"] if length == 1 else [f"B-{kind}", *[f"I-{kind}"] * (length - 2), f"E-{kind}"]
        last = kind
    return tags


@ANY_FOLDER
@given(pieces=st.lists(entities(), min_size=1, max_size=4))
def test_every_scheme_is_turned_into_the_same_tags(tmp_path, pieces):
    """Schemes are found by the tags of the file; where two of them would read it, they read the same entities."""
    expected = [tags_of(one, "IOB2") for one in pieces]
    for scheme in ("IOB2", "IOB1", "BIOES"):
        given_tags = [tags_of(one, scheme) for one in pieces]
        assert [to_iob2(tags, scheme) for tags in given_tags] == expected
        path = write(tmp_path / "a.conll", columns(*([("w", tag) for tag in tags] for tags in given_tags)))
        assert [sentence.tags for sentence in read_sentences(path)] == expected
    letters = {"B": "B", "I": "M", "E": "E", "S": "S", "O": "O"}
    assert [to_iob2([letters[tag[0]] + tag[1:] for tag in tags_of(one, "BIOES")], "BIOES") for one in pieces] == expected


@pytest.mark.parametrize(
    "tags, scheme, says",
    [
        (["O", "I-X"], "IOB2", "line 5: 'I-X' after 'O': an entity begins with B-X"),
        (["B-X", "I-Y"], "IOB2", "line 5: 'I-Y' after 'B-X'"),
        (["B-X", "O"], "BIOES", "line 5: 'O' after 'B-X'"),
        (["O", "E-X"], "BIOES", "line 5: 'E-X' after 'O'"),
        (["O", "B-X"], "BIOES", "line 5: 'B-X' ends a sentence"),
        (["O", "name"], "IOB2", "line 5: 'name' is not a tag"),
        (["O", "B-"], "IOB2", "line 5: 'B-' is not a tag"),
    ],
)
def test_a_tag_that_cannot_stand_there_is_named(tmp_path, tags, scheme, says):
    good = [("a", "B-X"), ("b", "O")] if scheme == "IOB2" else [("a", "S-X"), ("b", "O")]
    path = write(tmp_path / "a.conll", columns(good, [("c", tag) for tag in tags], good))
    assert scheme_of([[tag for _, tag in good], tags]) == scheme
    with pytest.raises(UserError, match=says) as raised:
        read_sentences(path)
    assert path in str(raised.value)
    left_out = Counter()
    assert len(read_sentences(path, left_out=left_out)) == 2 and left_out.total() == 1


def test_what_is_no_token_is_skipped_and_a_number_sign_is_one(tmp_path):
    """-DOCSTART-, comments and empty lines; columns that are not asked for."""
    rows = [("#", "NN", "O"), ("1", "CD", "B-X"), ("\u00a0", "NN", "O")]
    for between in ("\t", " "):
        lines = "".join(between.join(row) + "\n" for row in rows)
        comment = "# text = 1 # a\n# sent_id = 5\n"
        path = write(tmp_path / "a.conll", f"\ufeff-DOCSTART- -X- O\n\n{comment}{lines}\r\n \n\n{comment}{lines}{between}\n")
        for sentence in read_sentences(path):
            assert sentence.tokens == [row[0] for row in rows] and sentence.tags == [row[-1] for row in rows]
        assert [where.rpartition(" ")[2] for where in read_sentences(path)[0].where] == ["5", "6", "7"]
    other = write(tmp_path / "b.conll.gz", gzip.compress(columns([("1", "a", "B-X", "_"), ("2", "b", "O", "_")]).encode()))
    assert read_sentences(other, words="1", tags="2")[0][:2] == (["a", "b"], ["B-X", "O"])
    with pytest.raises(UserError, match="line 1: 4 columns"):
        read_sentences(other, words="1", tags="7")
    with pytest.raises(UserError, match="'tags' is no number"):
        read_sentences(other, tags="tags")
    counted = write(tmp_path / "c.conll", columns(*[[("1", "a", "B-X"), ("2", "b", "O")]] * 2))
    with pytest.raises(UserError, match="line 1: the first column counts the words"):
        read_sentences(counted)
    assert read_sentences(counted, words="1")[1].tokens == ["a", "b"]
    named = write(tmp_path / "d.jsonl", json.dumps({"words": ["a", "b"], "ner": ["B-X", "O"]}))
    assert read_sentences(named, words="words", tags="ner")[0][:2] == (["a", "b"], ["B-X", "O"])


def test_nested_entities_are_refused_by_their_name(tmp_path):
    """Two columns of the same types, or places that overlap. A column of phrases beside that of entities is none."""
    nested = columns([("1", "a", "B-PER", "O"), ("2", "b", "I-PER", "B-PER")])
    with pytest.raises(UserError, match="line 1: nested entities: column 2"):
        read_sentences(write(tmp_path / "a.conll", nested), words="1")
    assert read_sentences(str(tmp_path / "a.conll"), words="1", tags="2")[0].tags == ["B-PER", "I-PER"]
    phrases = columns([("a", "NN", "B-NP", "B-PER"), ("b", "NN", "I-NP", "O")])
    assert read_sentences(write(tmp_path / "b.conll", phrases))[0].tags == ["B-PER", "O"]
    record = {"text": "aa bb\ncc", "entities": [[0, 5, "X"], [3, 5, "Y"]]}
    with pytest.raises(UserError, match=r"line 1: nested entities: \[3, 5, 'Y'\]"):
        read_sentences(write(tmp_path / "a.jsonl", json.dumps(record)))


@pytest.mark.parametrize("end, says", [(4, "does not begin and end where tokens do"), (0, "does not"), (5.0, "no whole numbers")])
def test_places_of_entities_are_those_of_tokens(tmp_path, end, says):
    record = {"text": "aa bb\ncc", "entities": [[0, 5, "X"], [6, 8, "X"]]}
    path = write(tmp_path / "a.jsonl", json.dumps(record))
    assert read_sentences(path)[0][:2] == (["aa", "bb", "cc"], ["B-X", "I-X", "B-X"])
    with pytest.raises(UserError, match=says):
        read_sentences(write(tmp_path / "b.jsonl", json.dumps(record | {"entities": [[0, end, "X"]]})))


@pytest.mark.parametrize(
    "record, says",
    [
        ({"tokens": ["a"], "tags": ["O", "O"]}, "1 tokens and 2 tags"),
        ({"tokens": [], "tags": []}, "0 tokens"),
        ({"tokens": ["a"], "tags": [0]}, "tags: 1 is a number"),
        ({"tokens": "a", "tags": ["O"]}, "tokens are no list"),
        ({"tokens": ["a"], "tagss": ["O"]}, "Did you mean 'tagss'"),
    ],
)
def test_records_without_a_tag_for_each_token_are_refused(tmp_path, record, says):
    good = {"tokens": ["a", "b"], "tags": ["B-X", "O"]}
    path = write(tmp_path / "a.jsonl", json.dumps(good) + "\n" + json.dumps(record))
    with pytest.raises(UserError, match=says) as raised:
        read_sentences(path)
    assert "line 2" in str(raised.value)
    left_out = Counter()
    assert len(read_sentences(path, left_out=left_out)) == 1 and left_out.total() == 1


@ANY_FOLDER
@given(
    content=st.binary(max_size=60) | st.text("a#-BIO X\t\n\r\u00a0", max_size=60).map(str.encode),
    ending=st.sampled_from([".conll", ".jsonl"]),
)
def test_any_bytes_give_sentences_or_an_error_for_people(tmp_path, content, ending):
    path = write(tmp_path / f"any{ending}", content)
    for left_out in (None, Counter()):
        with contextlib.suppress(UserError):
            for sentence in read_sentences(path, left_out=left_out):
                assert (
                    len(sentence.tokens) == len(sentence.tags) == len(sentence.where) > 0
                    and to_iob2(sentence.tags, "IOB2") == sentence.tags
                )
