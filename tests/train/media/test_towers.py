"""Objectives that train encoders read the right part of each row, and run."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from data.errors import UserError
from data.media.kinds import Facts, Part, Sample
from data.media.rows import Layout, Piece, RowFiller
from data.media.shards import write_media
from data.media.signals.augment_config import Augment
from data.media.signals.encoding import encode_image
from data.media.signals.shapes import AudioShape, ImageShape
from data.tokenizer import byte_tokenizer
from tests.train.media.conftest import CROSS, EXPERIMENT, MODEL, RUN
from tests.train.tiny_runs import check, start, train
from train.checkpoints.checkpointer import load_parameters
from train.devices.mesh import make_mesh
from train.evaluation.retrieval import recalls, zero_shot
from train.experiment import Evaluation, MeshShape
from train.loop.telemetry import read_metrics
from train.objectives.bind import bind, check_frozen
from train.objectives.media.aligned_lm import towers_of
from train.objectives.media.alignment import pairing_loss
from train.objectives.media.options import AlignedLM, Alignment, Codebook, HiddenPatches, MediaClassification
from train.objectives.media.views import fingerprints, from_zero, labelled, pairs_of
from train.optimizers.build import frozen_leaves
from train.runs.parts import get
from train.runs.start import adopt
from train.sources.dataset import dataset_of
from train.sources.media.options import MediaShards, WorldScenes
from train.sources.media.shapes import shapes_of
from train.step.state import Purpose, random_key

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
    found = labelled(filled, "image", 2)
    assert found.labels.tolist() == [[3, 5], [4, -1]]
    assert labelled(filled, "audio", 2).labels.tolist() == [[3, 5], [-1, -1]]
    nothing = filled._replace(counts=np.array([1.0, 0.0]))
    assert labelled(nothing, "image", 2).labels.tolist() == [[3, 5], [-1, -1]]


def test_pairs_are_a_picture_and_what_is_learned_of_its_sample(filled):
    pairs = pairs_of(filled, "image", "text", 2)
    assert pairs.valid.tolist() == [[1, 1], [0, 0]]
    for number, words in ((1, "one"), (2, "two")):
        ids = np.asarray(pairs.right.tokens[0])[np.asarray(pairs.right.segments[0]) == number]
        assert TOKENIZER.decode(ids[:-1]) == words
        assert np.asarray(pairs.right.positions[0])[np.asarray(pairs.right.segments[0]) == number].tolist() == [*range(len(ids))]


def test_texts_are_known_again():
    """Wherever they stand in a row, and by the order of their tokens."""
    tokens = np.array([[9, 4, 5, 6, 4, 5, 6], [5, 4, 6, 4, 5, 0, 0]], np.int32)
    segments = np.array([[0, 1, 1, 1, 2, 2, 2], [1, 1, 1, 2, 2, 0, 0]], np.int32)
    found = np.asarray(fingerprints(tokens, from_zero(np.broadcast_to(np.arange(7), (2, 7)), segments, 2), segments, 2))
    assert found[0, 0] == found[0, 1] and len(set(found.reshape(-1).tolist())) == 3


def test_pairs_of_two_media_are_numbered_alike(filled):
    pairs = pairs_of(filled, "image", "audio", 2)
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


def run(tmp_path, **changes):
    made = start(tmp_path / "run", dataclasses.replace(RUN, evaluation=Evaluation(every=0, rows=4), **changes))
    return made, train(made)["validation"]


def test_pictures_are_told_apart(tmp_path, folder):
    """By an encoder with a class token, and mixup."""
    data = MediaShards(shards=(folder,), augment=Augment((0.5, 1.0), flip=0.5, brightness=0.4), workers=1)
    model = dataclasses.replace(RUN.model, encoders=(dataclasses.replace(MODEL.encoders[0], pool="token"),))
    made, found = run(tmp_path, objective=MediaClassification(mixup=0.2, smoothing=0.1), data=data, model=model, steps=12)
    assert made.experiment.objective.classes == 2
    assert found["accuracy"] == 1.0 and found["nll"] < 0.69


@pytest.mark.parametrize(
    "objective, tasks",
    [
        (AlignedLM(width=8), ("caption",)),
        (Alignment(width=8), ("image", "caption")),
        (HiddenPatches(), ("image",)),
        (Codebook("audio", codes=8, hidden_dim=8), ("audio",)),
    ],
    ids=["aligned", "alignment", "hidden patches", "codebook"],
)
def test_encoders_learn(tmp_path, objective, tasks):
    kind = "audio" if "audio" in tasks else "image"
    model = dataclasses.replace(RUN.model, encoders=tuple(encoder for encoder in MODEL.encoders if encoder.kind == kind))
    data = WorldScenes(tasks=tasks, scenes=60, validation=8)
    made, found = run(tmp_path, objective=objective, data=data, model=model, steps=8)
    losses = [row["loss"] for row in read_metrics(made.path) if row["kind"] == "train"]
    assert losses[-1] < losses[0] and np.isfinite(found["loss"])
    if isinstance(objective, Alignment):
        assert {"image/left_recall@1", "caption/left_recall@1", "caption/right_recall@10", "accuracy"} <= set(found)
    if isinstance(objective, AlignedLM):
        assert {"left_recall@1", "right_recall@10", "alignment_accuracy", "image_loss", "caption", "blind_caption"} <= set(found)


def test_prediction_and_alignment_are_one_loss():
    """Its gradient is that of prediction and, of the parts that both use, twice that of the contrastive loss."""
    data = WorldScenes(tasks=("caption",), scenes=60, validation=8)
    objective = AlignedLM(width=8, alignment_weight=2.0)
    experiment = dataclasses.replace(
        EXPERIMENT, objective=objective, data=data, model=dataclasses.replace(MODEL, encoders=MODEL.encoders[:1])
    )
    joint = bind(experiment, make_mesh(experiment.mesh, jax.devices()[:1])).loss
    params = nn.meta.unbox(jax.jit(bind(experiment).start)(jax.random.key(0)))
    assert set(params["alignment"]["left"]) == {"pool", "projection"} and set(params["alignment"]["right"]) == {"projection"}
    source = dataset_of(experiment).open()[0]
    batch = dataset_of(experiment).batches_of([source.source], source.tokenizer(), "train").batch(0, 3)

    def gradient(objective, params):
        def loss(params):
            return sum(term.coefficient * term.total / jnp.maximum(term.weight, 1) for term in objective(params, batch, None)[0].values())

        return jax.jit(jax.grad(loss))(params)

    found, predicted = gradient(joint, params), gradient(joint.prediction, params)
    aligned = gradient(pairing_loss(experiment.objective, experiment), towers_of(params, experiment.objective, bind(experiment).parts))
    parts = {"image": ("left", "encoder"), "layers": ("right", "decoder", "layers"), "embedding": ("right", "decoder", "embedding")}
    for name, path in parts.items():
        own = (name, "encoder") if name == "image" else (name,)
        expected = jax.tree.map(lambda a, b: a + 2 * b, get(predicted, own), get(aligned, path))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), get(found, own), expected)
        assert optax.tree.norm(get(aligned, path)) > 1e-3
    np.testing.assert_allclose(found["alignment"]["bias"], 2 * aligned["bias"], rtol=1e-5)
    several = dataclasses.replace(experiment, mesh=MeshShape(data=-1), batch_size=16)
    with pytest.raises(UserError, match="of a whole batch"):
        check(dataclasses.replace(several, micro_batches=2), [])
    with pytest.raises(UserError, match="the model has no encoder for audio"):
        check(dataclasses.replace(several, objective=AlignedLM(left="audio")), [source])
    both = dataclasses.replace(several, model=MODEL, objective=AlignedLM(right="audio"))
    with pytest.raises(UserError, match="none of the data has image and audio"):
        check(both, [source])


def test_recall_counts_what_is_as_near():
    left, right = np.eye(4)[:, :3], np.eye(4)[:, :3]
    found = recalls(left, right)  # the last pair is zeros, as near to everything as to itself
    assert found["right_recall@1"] == found["left_recall@1"] == 0.75 and found["left_recall@5"] == 1.0
    swapped = recalls(left[:3], right[[1, 0, 2]])
    assert swapped["left_recall@1"] == pytest.approx(1 / 3)
    assert zero_shot(left[:3], right[:3], np.array([0, 1, 1])) == pytest.approx(2 / 3)


def test_a_run_starts_from_what_another_has_trained(monkeypatch):
    """Encoders go to where the new run has them, whatever stood around them; the rest is fresh."""
    hidden = dataclasses.replace(EXPERIMENT, objective=HiddenPatches("image"))
    aligned = dataclasses.replace(EXPERIMENT, objective=Alignment("audio", "text", width=8))

    def fresh(experiment, seed):
        """Other numbers than any run's, without a program that makes them."""
        rng = np.random.default_rng(seed)
        shapes = nn.meta.unbox(jax.eval_shape(bind(experiment).start, jax.random.key(0)))
        return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), shapes)

    for source, taken in ((hidden, ["image/encoder"]), (aligned, ["audio/encoder", "layers", "embedding", "final_norm"])):
        theirs, own = fresh(source, 1), fresh(EXPERIMENT, 2)
        monkeypatch.setattr("train.runs.start.started_from", lambda run, source=source: SimpleNamespace(experiment=source))
        monkeypatch.setattr("train.runs.start.load_parameters", lambda run, mesh, theirs=theirs: (theirs, 0))
        found = adopt(SimpleNamespace(experiment=EXPERIMENT), None, own)
        parts = bind(source).parts
        for name in taken:
            part = get(theirs, parts[name.replace("/", " ")])
            jax.tree.map(np.testing.assert_array_equal, get(found, tuple(name.split("/"))), part)
        others = frozen_leaves(own, tuple(taken))
        jax.tree.map(lambda a, b, known: known or np.testing.assert_array_equal(a, b), found, own, others)
    joint = dataclasses.replace(EXPERIMENT, objective=AlignedLM(left="audio", width=8))
    found = adopt(SimpleNamespace(experiment=joint), None, fresh(joint, 3))
    for path, own in ((("left", "projection"), ("alignment", "left", "projection")), (("left", "encoder"), ("audio", "encoder"))):
        jax.tree.map(np.testing.assert_array_equal, get(found, own), get(theirs, path))
    wider = dataclasses.replace(joint, objective=AlignedLM(left="audio", width=9))
    assert bind(wider).parts.keys() & bind(joint).parts.keys() == bind(EXPERIMENT).parts.keys()  # another space, which begins anew
    text = dataclasses.replace(MODEL, encoders=())
    across = CROSS.model.started_from(text, True)
    assert across == CROSS.model
    made = MODEL.started_from(dataclasses.replace(text, num_layers=1), True)
    assert (made.num_layers, made.encoders) == (1, MODEL.encoders)
    assert "layers" not in bind(hidden).parts and MODEL.started_from(dataclasses.replace(MODEL, num_layers=1), False) == MODEL


def test_frozen_parts_stay_as_they_are(tmp_path):
    names = ("encoder/layers", "mask")
    data = WorldScenes(tasks=("image",), scenes=60, validation=8)
    made, _ = run(tmp_path, objective=HiddenPatches(), frozen=names, data=data, steps=2)
    params, _ = load_parameters(made, make_mesh(made.experiment.mesh, jax.devices()[:1]))
    began = nn.meta.unbox(jax.jit(bind(made.experiment).start)(random_key(0, 0, Purpose.PARAMETERS)))
    same = jax.tree.map(lambda a, b: bool((np.asarray(a) == np.asarray(b)).all()), params, began)
    assert jax.tree.all(jax.tree.map(lambda same, kept: same or not kept, same, frozen_leaves(began, names)))
    assert not same["encoder"]["patches"]["kernel"] and not same["predict"]["kernel"]
    with pytest.raises(UserError, match="no parameter's name begins with picture"):
        check_frozen(dataclasses.replace(EXPERIMENT, frozen=("picture",)))


def test_what_is_asked_for_must_be_there(tmp_path):
    with pytest.raises(UserError, match="the data has no classes"):
        start(tmp_path / "run", dataclasses.replace(EXPERIMENT, objective=MediaClassification()))
    pictures = dataclasses.replace(EXPERIMENT, model=dataclasses.replace(MODEL, encoders=MODEL.encoders[:1]))
    bind(dataclasses.replace(pictures, objective=HiddenPatches("image")))
    with pytest.raises(UserError, match="no encoder for audio"):
        bind(dataclasses.replace(pictures, objective=Alignment("image", "audio")))


def test_a_grid_that_is_no_whole_number_of_blocks_is_refused():
    odd = dataclasses.replace(MODEL, encoders=(dataclasses.replace(MODEL.encoders[2], times=10),))
    with pytest.raises(UserError, match="audio encoder's grid of 10 does not consist of blocks of 4"):
        shapes_of(dataclasses.replace(EXPERIMENT, model=odd))
