"""Objectives that train encoders read the right part of each row, and run."""

import dataclasses

import jax
import numpy as np
import pytest

from data.decoding import encode_image
from data.errors import UserError
from data.media import Facts, Part, Sample
from data.media_rows import Layout, Piece, RowFiller
from data.media_shapes import AudioShape, ImageShape
from data.media_shards import write_media
from data.tokenizer import byte_tokenizer
from tests.train.omni.conftest import EXPERIMENT, MODEL
from tests.train.test_resume import start
from train.experiment import Evaluation
from train.loop import train
from train.mesh import make_mesh
from train.omni.experiment import Alignment, Codebook, HiddenPatches, MediaClassification, MediaShards, WorldScenes
from train.omni.towers import labelled, pairs_of
from train.parameters import parameters_of
from train.telemetry import read_metrics

TOKENIZER = byte_tokenizer()
SHAPES = {"image": ImageShape(patch=4, rows=2, columns=2, square=True), "audio": AudioShape(times=2)}
LAYOUT = Layout(64, {"image": 8, "audio": 8})


def image(value=100):
    return Piece("image", SHAPES["image"].cut(np.full((8, 8, 3), value, np.uint8), (2, 2)))


def sound():
    return Piece("audio", SHAPES["audio"].cut(np.zeros(640, np.float32), (4,)))


def text(words, learned=True):
    return Piece("text", TOKENIZER.encode(words), learned)


@pytest.fixture
def filled():
    """Row 0: a text, then two pictures with sounds and captions; row 1: a picture without a word, and a blind one."""
    filler = RowFiller(LAYOUT, SHAPES, TOKENIZER, np.arange(2))
    filler.add(0, [text("alone")], 7)
    filler.add(0, [image(), sound(), text("one")], 3)
    filler.add(0, [sound(), image(50), text("two")], 5)
    filler.add(1, [image()], 4)
    filler.add(1, [image(), text("three")], 2, dropped=True)
    return filler.batch


def test_classes_are_those_of_the_media_in_their_order(filled):
    found = labelled(filled, "image", SHAPES, 2)
    assert found.labels.tolist() == [[3, 5], [4, -1]]
    assert labelled(filled, "audio", SHAPES, 2).labels.tolist() == [[3, 5], [-1, -1]]
    nothing = filled._replace(weights=filled.weights * np.array([[1.0], [0.0]]))  # the second row is there for nothing
    assert labelled(nothing, "image", SHAPES, 2).labels.tolist() == [[3, 5], [-1, -1]]


def test_pairs_are_a_picture_and_what_is_learned_of_its_sample(filled):
    pairs = pairs_of(filled, "image", "text", SHAPES, 2)
    assert pairs.valid.tolist() == [[1, 1], [0, 0]]
    for number, words in ((1, "one"), (2, "two")):
        ids = np.asarray(pairs.right.tokens[0])[np.asarray(pairs.right.segments[0]) == number]
        assert TOKENIZER.decode(ids[:-1]) == words


def test_pairs_of_two_media_are_numbered_alike(filled):
    pairs = pairs_of(filled, "image", "audio", SHAPES, 2)
    assert pairs.valid.tolist() == [[1, 1], [0, 0]]
    assert np.asarray(pairs.right.segments[0]).tolist() == [1] * 4 + [2] * 4


@pytest.fixture
def folder(tmp_path):
    """Pictures of two classes, one dark and one bright."""
    rng = np.random.default_rng(0)
    samples = {}
    for split, count in (("train", 16), ("validation", 6)):
        samples[split] = []
        for number in range(count):
            pixels = np.clip(rng.normal(60 + 130 * (number % 2), 20, (16, 16, 3)), 0, 255).astype(np.uint8)
            content = encode_image(pixels)
            samples[split].append((Sample((Part("image", content),), label=number % 2), [Facts(width=16, height=16, bytes=len(content))]))
    write_media(str(tmp_path / "shards"), samples, classes=["dark", "bright"])
    return str(tmp_path / "shards")


def run(tmp_path, monkeypatch, **changes):
    monkeypatch.setattr("train.loop.make_mesh", lambda shape: make_mesh(shape, jax.devices()[:1]))
    made = start(tmp_path / "run", dataclasses.replace(EXPERIMENT, evaluation=Evaluation(every=0, rows=4), **changes))
    return made, train(made)["validation"]


def test_pictures_are_told_apart(tmp_path, folder, monkeypatch):
    objective, data = MediaClassification(mixup=0.2, smoothing=0.1), MediaShards(shards=(folder,), augment=True, workers=1)
    made, found = run(tmp_path, monkeypatch, objective=objective, data=data, steps=12)
    assert made.experiment.objective.classes == 2
    assert found["accuracy"] == 1.0 and found["nll"] < 0.69


@pytest.mark.parametrize(
    "objective, task",
    [(Alignment(width=8), "caption"), (HiddenPatches(), "image"), (Codebook("audio", codes=8, hidden_dim=8), "audio")],
    ids=["alignment", "hidden patches", "codebook"],
)
def test_encoders_learn_without_the_decoder(tmp_path, monkeypatch, objective, task):
    made, found = run(tmp_path, monkeypatch, objective=objective, data=WorldScenes(tasks=(task,), scenes=60, validation=8), steps=8)
    losses = [row["loss"] for row in read_metrics(made.path) if row["kind"] == "train"]
    assert losses[-1] < losses[0] and np.isfinite(found["loss"])


def test_what_is_asked_for_must_be_there(tmp_path):
    with pytest.raises(UserError, match="the data has no classes"):
        start(tmp_path / "run", dataclasses.replace(EXPERIMENT, objective=MediaClassification()))
    pictures = dataclasses.replace(EXPERIMENT, model=dataclasses.replace(MODEL, encoders=MODEL.encoders[:1]))
    parameters_of(dataclasses.replace(pictures, objective=HiddenPatches("image")))
    with pytest.raises(UserError, match="no encoder for audio"):
        parameters_of(dataclasses.replace(pictures, objective=Alignment("image", "audio")))
