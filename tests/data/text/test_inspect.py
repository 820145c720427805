import json

import numpy as np
import pytest

from data.text.inspect import inspect_corpus, print_inspection
from data.tokenizer import byte_tokenizer

TEXTS = ["First.", "The second document, longer than a row of sixteen.", "Third!"]


@pytest.fixture
def corpus(tmp_path, make_corpus):
    tokenizer = byte_tokenizer()
    end = tokenizer.specials["document_end"]
    ids = [np.append(tokenizer.encode(text), end) for text in TEXTS]
    return make_corpus(tmp_path / "corpus", ids, ids[:1], document_end=end)


def test_the_facts_are_plain_and_agree_with_the_corpus(corpus):
    found = inspect_corpus(corpus.path, context_length=16, samples=3)
    assert json.loads(json.dumps(found)) == found
    assert found["splits"]["train"] == {"documents": 3, "tokens": sum(len(text) + 1 for text in TEXTS), "raw_bytes": 3, "shards": 2}
    assert found["splits"]["validation"]["documents"] == 1
    assert sum(one["documents"] for one in found["lengths"]) == 3
    assert all(one["from"] <= length <= one["to"] for one, length in zip(found["lengths"], [7, 51], strict=True))
    assert [one["text"] for one in found["documents"]] == [text + "<document_end>" for text in TEXTS]
    assert found["rows"] * 16 * (1 - found["padding_share"]) == pytest.approx(found["splits"]["train"]["tokens"])


def test_the_rows_of_a_step_hold_what_is_predicted(corpus):
    found = inspect_corpus(corpus.path, context_length=64, first_row=0, batch_size=2, samples=0)
    segments = [segment["text"] for row in found["step_rows"] for segment in row["segments"]]
    assert sorted(segments)[:2] == ["First.<document_end>", "The second document, longer than a row of sixteen.<document_end>"]
    assert [row["row"] for row in found["step_rows"]] == [0, 1]


def test_the_page_shows_borders(corpus, capsys):
    print_inspection(inspect_corpus(corpus.path, context_length=64, first_row=0, batch_size=1, samples=1))
    page = capsys.readouterr().out
    for part in ("3 documents", "padding", "--- document 0", "First.<document_end>", "=== row 0", "--- segment 1"):
        assert part in page
