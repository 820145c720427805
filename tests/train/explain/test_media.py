"""Patches of a picture that decide its class, planted and found."""

import json

import numpy as np
import pytest
from PIL import Image

import omnia
from model.media.encoder_config import ImageEncoder
from model.media.multimodal_config import MultimodalConfig
from tests.train.tiny_runs import start, train
from train.experiment import AdamW, Checkpoints, Evaluation, Experiment, MeshShape, Samples, Schedule
from train.explain.attribution import METHODS, completeness
from train.explain.media import medium_of
from train.objectives.media.options import MediaClassification
from train.sources.media.options import MediaShards

PATCH, SIDE = 8, 4


def picture(path, rng, bright: bool) -> int:
    """Grey noise, with a white square in one patch or none; the number of that patch."""
    pixels = rng.integers(96, 160, (PATCH * SIDE, PATCH * SIDE, 3)).astype(np.uint8)
    place = int(rng.integers(SIDE * SIDE))
    row, column = (PATCH * part for part in divmod(place, SIDE))
    if bright:
        pixels[row : row + PATCH, column : column + PATCH] = 255
    Image.fromarray(pixels).save(path)
    return place


@pytest.fixture(scope="module")
def bright(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("bright"), np.random.default_rng(0)
    for name in ("bright", "plain"):
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(90):
            picture(folder / "photos" / name / f"{number}.png", rng, name == "bright")
    prepared = ["prepare", "images", "--input", str(folder / "photos"), "--output", str(folder / "shards"), "--classes", "folder"]
    assert omnia.main(prepared) == 0
    encoder = ImageEncoder(patch=PATCH, rows=SIDE, columns=SIDE, num_layers=1, embed_dim=32, num_heads=2)
    experiment = Experiment(
        steps=80,
        batch_size=16,
        model=MultimodalConfig(context_length=64, num_layers=1, embed_dim=16, num_heads=1, encoders=(encoder,)),
        data=MediaShards(shards=(str(folder / "shards"),), workers=0),
        objective=MediaClassification(),
        optimizer=AdamW(learning_rate=3e-3),
        schedule=Schedule(5, "constant"),
        mesh=MeshShape(data=1),
        evaluation=Evaluation(every=0),
        checkpoints=Checkpoints(every=0),
        samples=Samples(tokens=0),
    )
    run = start(folder / "run", experiment)
    assert train(run)["validation"]["accuracy"] == 1
    return run


@pytest.mark.parametrize("method", ["occlusion", "integrated_gradients", "shap"])
def test_the_patch_that_decides_comes_first(bright, method, tmp_path, capsys):
    rng = np.random.default_rng(7)
    for number in range(4):
        file, page = tmp_path / f"{number}.png", tmp_path / f"{number}.html"
        place = picture(file, rng, True)
        asked = ["--image", str(file), "--answer", "bright", "--method", method, "--output", str(page), "--json"]
        assert omnia.main(["explain", str(bright.path), *asked]) == 0
        found = json.loads(capsys.readouterr().out.splitlines()[-1])
        row, column = divmod(place, SIDE)
        assert found["tokens"][int(np.argmax(found["attributions"]))] == f"row {row}, column {column}"
        assert method != "shap" or found["completeness_error"] < 1e-2
        assert found["faithfulness"]["deletion"] < found["faithfulness"]["deletion_random"]
        assert "data:image/png;base64," in page.read_text() and "img-src data:" in page.read_text()


def test_gradients_add_up(bright, tmp_path):
    """Of a sure classifier most of the way is flat, and the number falls at one place of it."""
    picture(tmp_path / "a.png", np.random.default_rng(7), True)
    subject, _ = medium_of(bright, "image", str(tmp_path / "a.png"), answer="bright")
    assert completeness(subject, METHODS["integrated_gradients"](subject).values_T) < 1e-3


def test_what_does_not_fit_is_refused(bright, tmp_path, capsys):
    picture(tmp_path / "a.png", np.random.default_rng(0), True)
    image = ["--image", str(tmp_path / "a.png")]
    for options, said in (
        ([*image, "--prompt", "a"], "stand alone"),
        ([*image, "--answer", "dark"], "none of the run's classes"),
        ([*image, "--method", "rollout"], "rollout is for decoders and text encoders"),
        (["--audio", str(tmp_path / "a.png")], "does not classify audio"),
    ):
        assert omnia.main(["explain", str(bright.path), *options]) == 2
        assert said in capsys.readouterr().err
