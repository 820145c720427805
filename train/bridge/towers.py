"""Published encoders of media as runs, and runs as published encoders.

One with a classifier is a MediaClassification. One without is too, of a single class that says nothing yet: other runs start from its
encoder. One beside a decoder of texts is an Alignment, and that decoder no one's who generates.
"""

import dataclasses
from typing import Any

import numpy as np

from data.tokenizer import Tokenizer, byte_tokenizer
from model.config import ModelConfig
from model.convert.family import UNSAID
from model.media.encoder_config import EncoderConfig
from model.media.multimodal_config import MultimodalConfig
from model.media.tower_config import TowerConfig
from train.experiment import SGD, Experiment, MeshShape, Samples
from train.kinds import Objective
from train.objectives.media.options import Alignment, MediaClassification
from train.sources.media.options import MediaShards

EMBEDDING = "right/decoder/embedding/table"


def experiment_of_tower(name: str, config: TowerConfig, tokenizer: Tokenizer | None = None, start: int = -1) -> Experiment:
    """What it is as a run. tokenizer: of its texts, or of those that models which start from it read, by default bytes; media have ids
    above those of its text. start: id of the token before each text, -1 for none."""
    vocabulary = (tokenizer or byte_tokenizer()).size
    encoders: dict[str, Any] = {"encoders": (config.encoder,), "fusion": "cross_attention"}  # a medium is one token of its row
    if config.text is None:
        model = MultimodalConfig(vocab_size=-(-vocabulary // 64) * 64, **encoders)
        objective: Objective = MediaClassification(medium=config.encoder.kind, classes=config.classes or 1)  # type: ignore[arg-type]
    else:
        plain = vars(config.text) | ({"vocab_size": max(config.text.vocab_size, vocabulary)} if tokenizer else {})
        model = MultimodalConfig(**plain, **encoders)
        space: dict[str, Any] = {"left": config.encoder.kind, "width": config.width, "loss": "softmax"}
        objective = Alignment(**space, text_pool="last", text_start=start)
    options: dict[str, Any] = {"optimizer": SGD(), "mesh": MeshShape(data=1), "samples": Samples(tokens=0)}
    return Experiment(name=name, model=model, data=MediaShards(), objective=objective, **options)


def with_vocabulary(params, experiment: Experiment, empty):
    """The parameters with rows of zeros for the ids that theirs has no row for. empty(shape) -> an array to fill."""
    decoder = params.get("right", {}).get("decoder")
    if decoder is None or len(decoder["embedding"]["table"]) == experiment.model.vocab_size:
        return params
    table_VD = decoder["embedding"]["table"]
    whole_VD = empty((experiment.model.vocab_size, table_VD.shape[1]))
    whole_VD[: len(table_VD)], whole_VD[len(table_VD) :] = table_VD, 0.0
    return params | {"right": params["right"] | {"decoder": decoder | {"embedding": {"table": whole_VD}}}}


def tower_of(experiment: Experiment, tokenizer: Tokenizer) -> TowerConfig | None:
    """The reverse of `experiment_of_tower`; None for what is no published encoder."""
    model, objective = experiment.model, experiment.objective
    if not isinstance(model, MultimodalConfig):
        return None
    if isinstance(objective, MediaClassification) and (encoder := model.encoder(objective.medium)):
        return TowerConfig(_plain(encoder), classes=objective.classes if objective.classes > 1 else 0)
    if isinstance(objective, Alignment) and (objective.right, objective.text_pool, objective.loss) == ("text", "last", "softmax"):
        left = model.encoder(objective.left)
        text: Any = _plain(ModelConfig(**{field.name: getattr(model, field.name) for field in dataclasses.fields(ModelConfig)}))
        if text.vocab_size == tokenizer.size:
            text = dataclasses.replace(text, vocab_size=tokenizer.base_size)
        return TowerConfig(_plain(left), text=text, width=objective.width) if left else None
    return None


def _plain(config: ModelConfig | EncoderConfig) -> Any:
    """The config without what says nothing of the function that it computes."""
    usual = {field.name: field.default for field in dataclasses.fields(config) if field.name in (*UNSAID, "kernel", "projector")}
    if isinstance(config, EncoderConfig):
        usual.pop("attention", None)
    return dataclasses.replace(config, **usual, mlp_dim=config.mlp_width)  # type: ignore[arg-type]


def cut_to(leaves: dict[str, Any], config: TowerConfig) -> dict[str, Any]:
    """Parameters by their paths, without the rows that theirs have none for."""
    if config.text is None:
        return leaves
    return leaves | {EMBEDDING: np.asarray(leaves[EMBEDDING])[: config.text.vocab_size]}


PROCESSORS = {"vit": "ViTImageProcessor", "clip": "CLIPImageProcessor"}


def split_off_pixels(settings: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(config.json, preprocessor_config.json) of the settings of an encoder of images, which may be empty."""
    rest = dict(settings)
    pixels: dict[str, Any] = {name: rest.pop(name) for name in ("image_mean", "image_std") if name in rest}
    if not pixels:
        return rest, {}
    side = settings.get("vision_config", settings)["image_size"]
    shape: dict[str, Any] = {"do_resize": True, "size": {"height": side, "width": side}, "do_rescale": True, "rescale_factor": 1 / 255}
    more = {"do_center_crop": False} if settings["model_type"] == "clip" else {}
    return rest, {"image_processor_type": PROCESSORS[settings["model_type"]], "do_normalize": True, **shape, **more, **pixels}
