import csv
import dataclasses
import random

import numpy as np
import pytest

from data.clean.classifier import PrepareClassifier, load_classifier, lowest_threshold, prepare_classifier, train_classifier
from data.errors import UserError

GOOD, BAD = "river stone garden letter music winter".split(), "casino jackpot lottery winner prize bonus".split()
COMMON = "we saw the and of with in my your today some more 今天 我们".split()


def labelled(count, seed=0):
    drawn = random.Random(seed)
    rows = []
    for number in range(count):
        bad = number % 3 == 0
        words = drawn.choices(COMMON, k=12) + drawn.choices(BAD if bad else GOOD, k=2)
        drawn.shuffle(words)
        rows.append((" ".join(words), "spam" if bad else "ham"))
    return rows


@pytest.fixture
def options(tmp_path):
    with open(tmp_path / "labelled.csv", "w", newline="") as file:
        csv.writer(file).writerows([("message", "kind"), *labelled(240)])
    return PrepareClassifier(
        str(tmp_path / "spam.npz"),
        (str(tmp_path / "labelled.csv"),),
        positive="spam",
        text_field="message",
        label_field="kind",
        held_out=0.3,
    )


def test_it_learns_and_comes_back_from_its_file(options):
    made = prepare_classifier(options)
    loaded = load_classifier(options.output)
    texts, labels = zip(*labelled(60, seed=1), strict=True)
    scores = loaded(texts)
    assert np.array_equal(scores, made(texts))
    assert ((scores >= 0.5) == (np.array(labels) == "spam")).mean() > 0.95
    assert loaded.threshold == made.threshold and loaded.about == made.about
    assert loaded.about["accuracy"] > 0.95 and loaded.about["trained_on"] + loaded.about["held_out"] == 240
    assert [float(loaded([text])[0]) for text in texts[:3]] == pytest.approx(scores[:3], rel=1e-6)


def test_the_same_texts_give_the_same_file(options, tmp_path):
    prepare_classifier(options)
    prepare_classifier(dataclasses.replace(options, output=str(tmp_path / "again.npz")))
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "spam.npz").read_bytes()


def test_no_better_weights_exist():
    """The gradient of the stated loss, written out with dense matrices, vanishes at what was found."""
    from data.clean import classifier

    texts, labels = zip(*labelled(60), strict=True)
    positive = np.array(labels) == "spam"
    weights, frequency, bias = train_classifier(texts, positive)
    counts = classifier.features(texts)
    used = np.unique(counts.indices)
    rows = counts[:, used].toarray().astype(np.float64) * frequency[used]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    signs = np.where(positive, 1, -1)
    slopes = -signs / (1 + np.exp(signs * (rows @ weights[used] + bias)))
    gradient = np.append(weights[used] + classifier.STRENGTH * rows.T @ slopes, classifier.STRENGTH * slopes.sum())
    assert np.abs(gradient).max() < 0.02 * classifier.STRENGTH * np.abs(rows.T @ signs).max()


@pytest.mark.parametrize("rate", [0, 0.1, 0.25, 1])
def test_the_threshold_is_the_lowest_of_its_rate(rate):
    scores = np.random.default_rng(0).random(40).round(2)
    threshold = lowest_threshold(scores, rate)
    assert (scores >= threshold).mean() <= rate
    if rate < 1:
        assert (scores >= np.nextafter(threshold, 0)).mean() > rate


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input": ()}, "no input"),
        ({"positive": "eggs"}, r"labelled 'eggs'.*'ham', 'spam'"),
        ({"text_field": "words"}, "words"),
        ({"label_field": "words"}, "words"),
        ({"held_out": 0}, "held_out"),
        ({"false_positive_rate": 2}, "false_positive_rate"),
    ],
)
def test_mistakes_are_named(changes, message, options):
    with pytest.raises(UserError, match=message):
        prepare_classifier(dataclasses.replace(options, **changes))


def test_what_is_no_classifier_is_refused(options, tmp_path, flip):
    prepare_classifier(options)
    np.savez(tmp_path / "other.npz", header=np.array([object()], object))
    (tmp_path / "text.npz").write_text("hello")
    flip(tmp_path / "spam.npz", 200)
    for name in ("other.npz", "text.npz", "none.npz", "spam.npz"):
        with pytest.raises(UserError, match=name):
            load_classifier(str(tmp_path / name))
