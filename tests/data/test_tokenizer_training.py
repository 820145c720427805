import json

import pytest

from data import tokenizer_training
from data.errors import UserError
from data.readers.documents import Document, SplitRule
from data.readers.inputs import find_inputs, plan_tasks, read_documents
from data.tokenizer_training import scan_alphabet, scan_sample, smallest, train_sentencepiece

RULE = SplitRule("hash", 0.3)


@pytest.fixture
def tasks(tmp_path):
    texts = [f"document {i} " + chr(0x400 + i) * (i % 50) for i in range(300)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in [*texts, ""]))
    (tmp_path / "b.txt").write_text("a long text. " * 10_000)
    return plan_tasks(find_inputs([str(tmp_path)]), 3000)


def sample_of(tasks):
    return [block for parts in tasks for block in scan_sample(parts, "text", None, RULE, lambda read: None)[0]]


def test_a_sample_is_the_smallest_hashes_however_it_is_gathered(tasks, monkeypatch):
    every = sorted(set(sample_of(tasks)))
    monkeypatch.setattr(tokenizer_training, "SAMPLE_BYTES", 2000)
    one_task = [[part for parts in tasks for part in parts]]
    sample = smallest(sample_of(tasks))
    assert sample == smallest(sample_of(one_task)) == smallest(sample[::-1]) == every[: len(sample)]
    sizes = [len(text.encode()) for _, text in sample]
    assert sum(sizes) >= 2000 > sum(sizes[:-1])


def test_only_training_documents_are_sampled(tasks):
    training = {
        "".join(document.chunks())
        for parts in tasks
        for document in read_documents(parts, "text")
        if isinstance(document, Document) and RULE.portions(document)[0][0] == "train"
    }
    sampled = {text for _, text in sample_of(tasks) if text.startswith("document")}
    assert sampled == {text for text in training if text.startswith("document")}
    assert 150 < len(sampled) < 260


def test_the_alphabet_is_that_of_all_documents(tasks):
    alphabets = [scan_alphabet(parts, "text", None, lambda read: None)[0] for parts in tasks]
    found = set("".join(alphabets))
    assert found == set("document 0123456789 a long text. ") | {chr(0x400 + i) for i in range(300) if i % 50}


def test_a_model_of_nothing_is_the_users_mistake():
    with pytest.raises(UserError, match="empty"):
        train_sentencepiece([], 1000)
