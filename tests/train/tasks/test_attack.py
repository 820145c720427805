"""Attacks: within their budget, never on what was wrong already, and true when the run is asked again."""

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

import omnia
from data.tokenizer import character_tokenizer
from model.text_encoder_config import TextEncoderConfig
from tests.train.tiny_runs import start, train
from train.experiment import Checkpoints, Evaluation, Experiment, Samples, Schedule
from train.loop.sections import read_sections
from train.objectives.tasks.options import Supervised
from train.tasks.attack import Attacked, Budget, attack, substitutes, summary
from train.tasks.changes.noise import split_words
from train.tasks.classification import Classification
from train.tasks.examples import Example

TABLE = {"good": ("fine", "nice"), "great": ("nice", "fine"), "film": ("movie",)}
WEIGHTS = {"good": 1.0, "great": 2.0, "fine": 0.5, "nice": -3.0}


def sentiment(examples: list[Example]) -> np.ndarray:
    """Two labels by the sum of the weights of words: a model whose most important words are known."""
    score = np.array([sum(WEIGHTS.get(word, 0.0) for _, word in split_words(one.fields["text"])) for one in examples])
    positive = 1 / (1 + np.exp(-score))
    return np.stack([1 - positive, positive], 1).astype(np.float32)


def attacked(text: str, label: int = 1, **budget) -> Attacked:
    return attack([Example({"text": text}, "x", "here")], [label], ("text",), sentiment, TABLE, Budget(**budget))[0]


def test_the_most_important_word_is_changed_first_and_no_more_than_needed():
    """`great` weighs more than `good`: one change of it to `nice` is enough."""
    found = attacked("a good film , great", changes=1.0)
    assert found.example.fields["text"] == "a good film , nice" and found.changed == 1
    assert found.right_before and not found.right_after


def test_a_budget_of_words_is_kept():
    """Ten words at a tenth: one change, which is not enough; what lowered the probability most stays."""
    text = "great great great great good good good good good good"
    found = attacked(text, changes=0.1)
    assert found.right_after and found.changed == 1
    changed = [a for a, b in zip(found.example.fields["text"].split(), text.split(), strict=True) if a != b]
    assert changed == ["nice"]


def test_what_is_wrong_already_stays_as_it_is():
    found = attacked("a good film", label=0)
    assert (found.example.fields["text"], found.right_before, found.right_after, found.changed) == ("a good film", False, False, 0)


def test_a_summary_counts_what_the_attack_did():
    example = Example({}, "x", "here")
    shown = summary(
        [Attacked(example, *one) for one in ((True, True, 2, 9), (True, False, 1, 4), (False, False, 0, 5), (True, True, 0, 3))]
    )
    assert shown == {"examples": 4, "clean_accuracy": 0.75, "robust_accuracy": 0.5, "success": pytest.approx(1 / 3), "words_changed": 0.25}


def test_substitutes_are_a_function_of_the_word_and_bounded():
    budget = Budget(kinds=("words", "characters", "lookalikes"), tries=2)
    found = substitutes("great", TABLE, budget)
    assert found == substitutes("great", TABLE, budget) and found[:2] == ["nice", "fine"] and len(found) <= 6
    assert substitutes("the", TABLE, budget) == []


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """An encoder of characters that tells two words apart."""
    folder = tmp_path_factory.mktemp("attack")
    rng = np.random.default_rng(0)
    rows = [(f"{rng.choice(['aa', 'ee'])} {word}", label) for word, label in [("good", "yes"), ("fail", "no")] * 20]
    (folder / "train.csv").write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    character_tokenizer("abcdefghijklmnopqrstuvwxyz ").save(str(folder / "tokenizer"))
    experiment = Experiment(
        steps=12,
        batch_size=8,
        model=TextEncoderConfig(
            context_length=32, num_layers=1, embed_dim=16, num_heads=2, init_std=0.3, pooler=False, prediction_head=False, token_types=0
        ),
        data=Classification(files=(str(folder / "train.csv"),), length=32, tokenizer=str(folder / "tokenizer")),
        objective=Supervised(head_dropout=0.0),
        schedule=Schedule(0, "constant"),
        evaluation=Evaluation(every=0),
        checkpoints=Checkpoints(every=0),
        samples=Samples(tokens=0),
    )
    faster = dataclasses.replace(experiment.optimizer, learning_rate=2e-2)
    made = start(folder / "run", dataclasses.replace(experiment, optimizer=faster))
    train(made)
    return made.path


def test_the_written_file_measures_what_the_attack_said(run, tmp_path, capsys):
    """`omnia evaluate` of the attacked examples gives the robust accuracy; labels and originals stand beside the changed texts."""
    files, output = str(run.parent / "train.csv"), str(tmp_path / "attacked.csv")
    options = ["--files", files, "--output", output, "--kinds", "characters", "--changes", "1", "--rows", "16", "--json"]
    assert omnia.main(["attack", str(run), *options]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    rows = list(csv.DictReader(Path(output).read_text(encoding="utf-8").splitlines()))
    assert found["examples"] == len(rows) == 16 and found["queries"] > 16
    assert found["robust_accuracy"] <= found["clean_accuracy"]
    assert all((row["text"] == row["original_text"]) == (row["changed"] == "0") for row in rows)
    assert {row["label"] for row in rows} == {"yes", "no"}
    assert omnia.main(["evaluate", str(run), "--files", output, "--json"]) == 0
    measured = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert measured["accuracy"] == pytest.approx(found["robust_accuracy"]) and 0 <= measured["macro_f1"] <= 1


def test_the_report_shows_both_accuracies_and_what_fooled_the_run(run, tmp_path):
    options = ["--files", str(run.parent / "train.csv"), "--output", str(tmp_path / "a.csv"), "--kinds", "characters", "--rows", "8"]
    assert omnia.main(["attack", str(run), *options]) == omnia.main(["attack", str(run), *options]) == 0
    (shown,) = (section for section in read_sections(run) if section["title"] == "Under attack")  # the second in place of the first
    rows = dict(shown["rows"])
    assert float(rows["accuracy under attack"]) <= float(rows["accuracy"])
    fooled = [row for row in csv.DictReader((tmp_path / "a.csv").read_text(encoding="utf-8").splitlines()) if row["success"] == "True"]
    assert [[row["text"], row["original_text"]] for row in fooled[:8]] == shown["rows"][len(shown["rows"]) - len(fooled[:8]) :]
    assert omnia.main(["report", str(run)]) == 0 and "Under attack" in (run / "report.html").read_text()


@pytest.mark.parametrize(
    "options, what",
    [
        (["--output", "x.txt"], ".csv or .jsonl"),
        (["--output", "x.csv", "--kinds", "characters", "--synonyms", "y"], "--synonyms belongs"),
        (["--output", "x.csv", "--changes", "0"], "changes is 0"),
    ],
)
def test_mistakes_are_said(options, what, capsys):
    assert omnia.main(["attack", "nowhere", "--files", "a.csv", *options]) == 2
    assert what in capsys.readouterr().err
