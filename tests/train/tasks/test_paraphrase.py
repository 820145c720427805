"""Texts in other words: what runs write takes the place of texts, labels stay, and what did not change is left out."""

import csv
from pathlib import Path

import pytest

from data.errors import UserError
from train.tasks import paraphrase


def test_runs_are_chained_and_unchanged_texts_are_left_out(tmp_path, monkeypatch):
    there = {"hello you": "hallo du", "same": "gleich", "bye": "tschau"}
    back = {"hallo du": "hi you", "gleich": "same", "tschau": "see you"}
    monkeypatch.setattr(paraphrase, "rewritten", lambda run, texts: [{"there": there, "back": back}[run][text] for text in texts])
    path, output = tmp_path / "train.csv", tmp_path / "more.csv"
    path.write_text("text,label\nhello you,a\nsame,b\nbye,c\n")
    said = paraphrase.paraphrase(str(path), str(output), "text", ["there", "back"])
    rows = list(csv.DictReader(Path(output).read_text().splitlines()))
    assert rows == [{"text": "hi you", "label": "a"}, {"text": "see you", "label": "c"}] and "2 of 3" in said
    monkeypatch.setattr(paraphrase, "rewritten", lambda run, texts: texts)
    with pytest.raises(UserError, match="no text came out changed"):
        paraphrase.paraphrase(str(path), str(output), "text", ["there"])


def test_a_file_of_another_kind_is_refused_before_anything_is_computed(tmp_path):
    with pytest.raises(UserError, match=r"\.csv or \.jsonl"):
        paraphrase.paraphrase("none.csv", str(tmp_path / "more.txt"), "text", ["run"])
