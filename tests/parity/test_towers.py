"""Published encoders as Hugging Face's library saves them give the same hidden states here, and again there after an export."""

import jax
import numpy as np
import pytest
import tokenizers

from data.media.signals.patches import grid, patchify
from model.media.encoders import Encoder, encoded_segments
from model.media.towers import MediaTower, Texts, TextTower
from train.bridge.exporting import export_model
from train.bridge.importing import import_model, load_published
from train.bridge.towers import tower_of
from train.checkpoints.checkpointer import load_parameters
from train.devices.mesh import inference_mesh
from train.objectives.media.alignment import unit
from train.objectives.media.views import decoder_config

pytestmark = pytest.mark.slow

SHAPE = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
PICTURE = {"image_size": 12, "patch_size": 4}
START, END = 256, 257
TEXT = SHAPE | {"vocab_size": 258, "max_position_embeddings": 20, "bos_token_id": START, "eos_token_id": END, "pad_token_id": END}
WHISPER = {"vocab_size": 60, "d_model": 32, "encoder_layers": 3, "encoder_attention_heads": 4, "encoder_ffn_dim": 48, "num_mel_bins": 8}
WHISPER |= {"decoder_layers": 1, "decoder_attention_heads": 4, "decoder_ffn_dim": 8, "max_source_positions": 12}
WHISPER |= {f"{name}_token_id": 0 for name in ("pad", "bos", "eos", "decoder_start")}
PIXELS = np.random.default_rng(1).integers(0, 256, (2, 12, 12, 3), np.uint8)
FRAMES = np.random.default_rng(2).normal(0, 0.5, (2, 24, 8)).astype(np.float32)
TEXTS = ("a red circle", "two suns")


def models() -> dict:
    import transformers as t

    clip = t.CLIPConfig(text_config=TEXT, vision_config=SHAPE | PICTURE | {"hidden_size": 48}, projection_dim=24)
    return {
        "vit": lambda: t.ViTModel(t.ViTConfig(**SHAPE, **PICTURE)),
        "vit with classes": lambda: t.ViTForImageClassification(t.ViTConfig(**SHAPE, **PICTURE, num_labels=5)),
        "clip": lambda: t.CLIPModel(clip),
        "whisper": lambda: t.WhisperModel(t.WhisperConfig(**WHISPER)),
        "whisper with its head": lambda: t.WhisperForConditionalGeneration(t.WhisperConfig(**WHISPER)),
    }


def byte_level() -> tokenizers.Tokenizer:
    """Of bytes, with the two tokens around a text."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE({token: i for i, token in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|startoftext|>", "<|endoftext|>"])
    return tokenizer


@pytest.fixture(scope="module", params=["vit", "vit with classes", "clip", "whisper", "whisper with its head"])
def pair(request, tmp_path_factory):
    """Their model, its folder, and the run that it became. Biases, norms and positions are random too."""
    import torch

    theirs, rng = models()[request.param]().eval(), np.random.default_rng(0)
    with torch.no_grad():
        for name, weight in theirs.named_parameters():
            mean = float(weight.ndim == 1 and name.endswith("weight"))
            weight.copy_(torch.from_numpy(np.asarray(rng.normal(mean, 0.1 if weight.ndim < 2 else 0.3, tuple(weight.shape)))))
    folder = tmp_path_factory.mktemp("pair")
    theirs.save_pretrained(folder / "theirs")
    if request.param == "clip":
        byte_level().save(str(folder / "theirs" / "tokenizer.json"))
        (folder / "theirs" / "tokenizer_config.json").write_text('{"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>"}')
    return theirs, folder / "theirs", import_model(folder / "theirs", folder / "run")


def their_vectors(model) -> dict[str, np.ndarray]:
    """What a model says of the pictures, sounds and texts: hidden states [2, N, E], and what becomes of them."""
    import torch

    kind = model.config.model_type
    with torch.no_grad():
        if kind == "whisper":
            return {"hidden": model.get_encoder()(torch.from_numpy(FRAMES).transpose(1, 2)).last_hidden_state.numpy()}
        mean, std = (0.5, 0.5) if kind == "vit" else (np.array(values) for values in (CLIP_MEAN, CLIP_STD))
        pixels = torch.from_numpy(((PIXELS / 255.0 - mean) / std).astype(np.float32)).permute(0, 3, 1, 2)
        if kind == "vit":
            trunk = model.vit if hasattr(model, "classifier") else model
            found = {"hidden": trunk(pixels).last_hidden_state}
            return {k: v.numpy() for k, v in (found | ({"logits": model(pixels).logits} if trunk is not model else {})).items()}
        ids = [[START, *byte_level().encode(text).ids, END] for text in TEXTS]
        padded = torch.tensor([one + [END] * (18 - len(one)) for one in ids])
        given = {"input_ids": padded, "attention_mask": torch.tensor([[1] * len(one) + [0] * (18 - len(one)) for one in ids])}
        found = model(pixel_values=pixels, **given)
        hidden = model.vision_model.post_layernorm(found.vision_model_output.last_hidden_state)
        return {
            "hidden": hidden.numpy(),
            "image": found.image_embeds.numpy(),
            "text": found.text_embeds.numpy(),
            "scaled": found.logits_per_image.numpy(),
        }


CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class Media:
    """Two media, a row each; pictures with the class token first."""

    def __init__(self, kind: str):
        if kind == "audio":
            self.patches, self.places = FRAMES, np.tile(np.arange(24)[:, None], (2, 1, 1))
        else:
            patches, places = patchify(PIXELS, 4), np.tile(grid(3, 3), (2, 1, 1))
            self.patches = np.concatenate([np.zeros_like(patches[:, :1]), patches], 1)
            self.places = np.concatenate([np.full_like(places[:, :1], -1), places], 1)
        self.segments = np.ones(self.places.shape[:2], np.int32)


def our_vectors(run) -> dict[str, np.ndarray]:
    params, _ = load_parameters(run, inference_mesh(run.experiment.mesh))
    config, objective = tower_of(run.experiment, run.tokenizer()), run.experiment.objective
    media, left = Media(config.encoder.kind), params["left" if config.text else "tower"]
    hidden = jax.jit(Encoder(config.encoder).apply)({"params": left["encoder"]}, media.patches, media.places, media.segments)
    assert encoded_segments(config.encoder, media.segments).shape == hidden.shape[:2]
    found = {"hidden": hidden}
    if config.text:
        decoder = decoder_config(run.experiment.model)
        right = TextTower(decoder, config.width, 1, objective.text_pool, objective.text_start)
        ids = [[*run.tokenizer().encode(text).tolist(), run.document_end] for text in TEXTS]
        tokens, segments = np.zeros((2, 15), np.int32), np.zeros((2, 15), np.int32)
        for row, one in enumerate(ids):
            tokens[row, : len(one)], segments[row, : len(one)] = one, 1
        texts = Texts(tokens, segments, np.tile(np.arange(15, dtype=np.int32), (2, 1)))
        found["image"] = unit(MediaTower(config.encoder, config.width)(left, media)[:, 0])
        found["text"] = unit(jax.jit(right)(params["right"], texts)[:, 0])
        found["scaled"] = np.exp(params["log_scale"]) * found["image"] @ found["text"].T
    elif config.classes:
        found["logits"] = MediaTower(config.encoder, config.classes)(left, media)[:, 0] + params["bias"]
    return {name: np.asarray(one) for name, one in found.items()}


def test_vectors_are_equal(pair):
    theirs, _, run = pair
    found, expected = our_vectors(run), their_vectors(theirs)
    assert found.keys() == expected.keys()
    for name, one in found.items():
        assert one.std() > 0.03
        np.testing.assert_allclose(one, expected[name], rtol=0, atol=1e-4, err_msg=name)


def test_an_export_is_the_same_encoder_there(pair, tmp_path):
    theirs, folder, run = pair
    export_model(run, "hf", tmp_path / "hf")
    again = type(theirs).from_pretrained(tmp_path / "hf").eval()
    for name, one in their_vectors(again).items():
        np.testing.assert_allclose(one, their_vectors(theirs)[name], rtol=0, atol=1e-4, err_msg=name)
    for (path, one), other in zip(jax.tree_util.tree_leaves_with_path(load_published(folder)[1]), load_again(tmp_path / "hf"), strict=True):
        np.testing.assert_array_equal(one, other, err_msg=str(path))


def load_again(folder):
    return jax.tree.leaves(load_published(folder)[1])
