"""Texts in other words: what runs write takes the place of texts, labels stay, and what did not change is left out."""

import csv
import dataclasses
from pathlib import Path

import pytest

from data.errors import UserError
from data.tokenizer import byte_tokenizer
from model.encoder_decoder_config import EncoderDecoderConfig
from tests.train.tiny_runs import start, train
from train.experiment import Evaluation, Experiment, Samples
from train.objectives.tasks.options import Supervised
from train.runs.directory import write_run
from train.tasks.changes import paraphrase
from train.tasks.sequence import Conversations, SequenceToSequence


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


def test_a_trained_run_writes_the_texts(tmp_path, capsys):
    """From the command line, through a run that was trained to write texts of texts; one of another kind is refused."""
    shape = {"context_length": 48, "num_layers": 1, "embed_dim": 16, "num_heads": 2}
    byte_tokenizer().save(str(tmp_path / "bytes"))
    (tmp_path / "pairs.jsonl").write_text("".join(f'{{"source": "{a}{b}", "target": "{b}{a}"}}\n' for a in "abcd" for b in "wxyz"))
    data = SequenceToSequence(files=(str(tmp_path / "pairs.jsonl"),), tokenizer=str(tmp_path / "bytes"), length=32, written=6)
    made = Experiment(
        model=EncoderDecoderConfig(**shape),
        data=data,
        objective=Supervised(),
        steps=2,
        batch_size=4,
        evaluation=Evaluation(every=0),
        samples=Samples(tokens=0),
    )
    run = start(tmp_path / "run", made)
    train(run)
    (tmp_path / "train.csv").write_text("text,label\nab,x\ncd,y\n")
    command = [str(tmp_path / "train.csv"), str(tmp_path / "more.csv"), "text", str(run.path)]
    assert paraphrase.main(command) == 0
    rows = list(csv.DictReader((tmp_path / "more.csv").read_text().splitlines()))
    assert len(rows) == 2 and [row["label"] for row in rows] == ["x", "y"] and all(row["text"] not in ("ab", "cd") for row in rows)
    assert "2 of 2 texts in other words" in capsys.readouterr().out
    stored = dataclasses.replace(run.experiment, data=Conversations(files=data.files, tokenizer=data.tokenizer))
    write_run(dataclasses.replace(run, experiment=stored))
    assert paraphrase.main(command) == 2
    assert "was not trained to write texts of texts" in capsys.readouterr().err


def test_a_file_of_another_kind_is_refused_before_anything_is_computed(tmp_path):
    with pytest.raises(UserError, match=r"\.csv or \.jsonl"):
        paraphrase.paraphrase("none.csv", str(tmp_path / "more.txt"), "text", ["run"])
