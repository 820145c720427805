"""Published encoders of media become runs that others start from, and are written as they came."""

import dataclasses

import numpy as np
import pytest
from safetensors import safe_open

from data.errors import UserError
from model.convert.families import MODEL_TYPES
from model.media.encoder_config import ImageEncoder, Projection
from model.media.multimodal_config import MultimodalConfig
from tests.train.bridge.published_models import weights_of, write_folder
from tests.train.tiny_runs import start, train
from train.bridge.exporting import export_model
from train.bridge.importing import import_model, load_published
from train.checkpoints.checkpointer import load_parameters
from train.devices.mesh import inference_mesh
from train.experiment import SGD, Evaluation, Experiment, MeshShape, Samples
from train.generation.about_media import load_writer
from train.objectives.media.options import Alignment, MediaClassification, MediaLM
from train.runs.directory import open_run
from train.sources.media.options import WorldScenes

SHAPE = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
PICTURE = {"image_size": 16, "patch_size": 8}
WHISPER = {"d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 24, "num_mel_bins": 8}
MODELS = {
    "vit": {"model_type": "vit", **SHAPE, **PICTURE, "image_mean": [0.5, 0.4, 0.3]},
    "classifier": {"model_type": "vit", **SHAPE, **PICTURE, "num_labels": 3, "architectures": ["ViTForImageClassification"]},
    "clip": {
        "model_type": "clip",
        "text_config": SHAPE | {"vocab_size": 259, "max_position_embeddings": 128},
        "vision_config": SHAPE | PICTURE,
        "projection_dim": 8,
    },
    "whisper": {"model_type": "whisper", **WHISPER, "max_source_positions": 8},
}
OPTIONS = {"steps": 1, "batch_size": 4, "optimizer": SGD(), "mesh": MeshShape(data=1), "samples": Samples(tokens=0)}
OPTIONS |= {"evaluation": Evaluation(every=0, rows=4)}


@pytest.fixture(scope="module", params=MODELS)
def imported(request, tmp_path_factory):
    """(name, their tensors, the run)."""
    root = tmp_path_factory.mktemp("tower")
    settings = MODELS[request.param]
    tensors = write_folder(root / "theirs", settings, weights=weights_of(settings), dtype=np.float32)
    if request.param != "clip":
        (root / "theirs" / "tokenizer.json").unlink()
    return request.param, tensors, import_model(root / "theirs", root / "run")


def test_a_tower_writes_nothing(imported):
    with pytest.raises(UserError, match="continues texts"):
        load_writer(imported[2])


def test_what_is_imported_is_written_as_it_came(imported, tmp_path):
    """Every tensor, bit for bit, and the settings, those of pixels in a file of their own."""
    name, tensors, run = imported
    assert open_run(run.path).experiment == run.experiment
    export_model(run, "hf", tmp_path / "hf")
    with safe_open(tmp_path / "hf" / "model.safetensors", framework="numpy") as found:
        assert set(found.keys()) == set(tensors)
        for one in tensors:
            np.testing.assert_array_equal(found.get_tensor(one), tensors[one])
    assert load_published(tmp_path / "hf")[0] == load_published(run.path.parent / "theirs")[0]
    assert (tmp_path / "hf" / "preprocessor_config.json").is_file() == (name != "whisper")
    assert (tmp_path / "hf" / "tokenizer.json").is_file() == (name == "clip")


def test_a_joint_model_starts_from_the_encoder(imported, tmp_path):
    """Whatever its own decoder is: an encoder's run has none, or one of texts that it does not take."""
    name, _, run = imported
    kind = "audio" if name == "whisper" else "image"
    (encoder,) = run.experiment.model.encoders
    own = {"projector": Projection("resampler", latents=2, layers=1), "remat": "full"}
    other = dataclasses.replace(encoder, num_layers=3, **own)  # of the run's own config, of which these two stay
    model = MultimodalConfig(context_length=96, num_layers=1, embed_dim=32, num_heads=2, encoders=(other,))
    data = WorldScenes(tasks=(kind,), scenes=8, validation=4)
    made = start(tmp_path / "run", Experiment(model=model, data=data, objective=MediaLM(), start=str(run.path), **OPTIONS))
    assert made.experiment.model.encoders == (dataclasses.replace(encoder, **own),) and made.experiment.model.embed_dim == 32
    assert made.experiment.model.vocab_size >= made.tokenizer().size
    if name != "vit":
        return
    found = train(made)["validation"]
    assert np.isfinite(found["loss"])
    theirs, _ = load_parameters(run, inference_mesh(run.experiment.mesh))
    ours, _ = load_parameters(made, inference_mesh(made.experiment.mesh))
    difference = np.abs(ours["image"]["encoder"]["token"] - theirs["tower"]["encoder"]["token"]).max()
    assert difference < 0.1  # one small step away


@pytest.mark.parametrize("imported", ["clip"], indirect=True)
def test_clip_goes_on_learning(imported, tmp_path):
    """As an alignment of its own texts, whose beginning and end it knows; with media, for whose markers its table had no rows."""
    _, _, run = imported
    objective = run.experiment.objective
    assert isinstance(objective, Alignment) and objective.text_start == 0 and run.document_end == 0
    data = WorldScenes(tasks=("caption",), scenes=40, validation=8)
    model = MultimodalConfig(fusion="cross_attention", encoders=(ImageEncoder(),))
    made = start(tmp_path / "run", Experiment(model=model, data=data, objective=objective, start=str(run.path), **OPTIONS))
    assert made.experiment.model == run.experiment.model
    found = train(made)["validation"]
    assert np.isfinite(found["loss"]) and "left_recall@1" in found


@pytest.mark.parametrize("imported", ["vit", "whisper"], indirect=True)
def test_an_encoder_alone_is_a_classifier_that_says_nothing_yet(imported):
    name, _, run = imported
    params, _ = load_parameters(run, inference_mesh(run.experiment.mesh))
    assert run.experiment.objective == MediaClassification("image" if name == "vit" else "audio", classes=1)
    assert not np.any(params["tower"]["projection"]["kernel"]) and not np.any(params["bias"])
    if name == "whisper":
        assert not np.any(params["tower"]["encoder"]["layers"]["attention"]["key"]["bias"])


@pytest.mark.parametrize(
    "kind, change, words",
    [
        ("vit", {"qkv_bias": False}, "qkv_bias"),
        ("vit", {"image_size": 20}, "whole patches"),
        ("whisper", {"activation_function": "relu"}, "activation_function"),
        ("clip", {"vision_config": SHAPE | PICTURE | {"hidden_act": "mish"}}, "mish"),
    ],
)
def test_settings_that_cannot_be_honoured_are_refused(kind, change, words):
    settings = MODELS[kind] | change
    with pytest.raises(ValueError, match=words):
        MODEL_TYPES[settings["model_type"]].config_of(settings)
