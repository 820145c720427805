from hypothesis import given, settings
from hypothesis import strategies as st

from data.readers.documents import Document, SplitRule, between


def document_of(text, digest=0):
    return Document("name", lambda: [text], len(text), digest)


def test_tail_holds_out_the_last_characters():
    def portions(size):
        return SplitRule("tail", 0.1).portions(document_of("x" * size))

    assert portions(1_115_394) == [("train", 0, 1_003_854), ("validation", 1_003_854, 1_115_394)]
    assert portions(10) == [("train", 0, 9), ("validation", 9, 10)]
    assert portions(1) == [("validation", 0, 1)]
    assert SplitRule("tail", 0.0).portions(document_of("xyz")) == [("train", 0, 3)]


def test_hash_holds_out_whole_documents_by_their_content():
    rule = SplitRule("hash", 0.25)
    assert rule.portions(document_of("abc", 2**62 - 1)) == [("validation", 0, 3)]
    assert rule.portions(document_of("abc", 2**62)) == [("train", 0, 3)]
    assert SplitRule("hash", 0.0).portions(document_of("abc", 0)) == [("train", 0, 3)]


@settings(deadline=None, max_examples=50)
@given(text=st.text(max_size=30), size=st.integers(1, 8), start=st.integers(0, 30), stop=st.integers(0, 30))
def test_between_is_a_slice(text, size, start, stop):
    chunks = [text[i : i + size] for i in range(0, len(text), size)]
    assert "".join(between(chunks, start, stop)) == text[start:stop]
