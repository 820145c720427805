"""Published models as Hugging Face's library saves them give the same predictions here, and again there after an export.

`make parity` runs this in an environment that has PyTorch and transformers; where they are missing it fails.
"""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from data.errors import UserError
from data.files import storage
from data.tokenizer import hugging_face_tokenizer
from model.convert.families import family_of
from model.decoding.sampling import Sampling
from model.encoder_decoder import SourceText
from model.heads import Head, logits, vocabulary_table
from tests.parity.hugging_face import (
    FAMILIES,
    GROUPED,
    OTHERS,
    READ_BY_THEIRS,
    TEMPLATE,
    TOKENS_BT,
    VOCABULARY,
    assert_same_logits,
    byte_level,
    make_random,
    our_logits,
    their_config,
    their_logits,
)
from tests.train.bridge.published_models import TEXTS
from train.bridge.exporting import export_model
from train.bridge.hugging_face import chat_of
from train.bridge.importing import import_model
from train.bridge.packages import PACKAGES
from train.checkpoints.checkpointer import load_parameters
from train.devices.mesh import inference_mesh
from train.generation.text import make_generator
from train.kinds import realise

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request, tmp_path_factory):
    """Their model, and the run that it became. Biases and norms are random too, so that none of them hides behind its zero or one."""
    import transformers

    kind, settings = FAMILIES[request.param]
    theirs = transformers.AutoModelForCausalLM.from_config(their_config(kind, settings), attn_implementation="eager").eval()
    make_random(theirs, one=not kind.startswith("Gemma"))
    folder = tmp_path_factory.mktemp("pair")
    theirs.save_pretrained(folder / "theirs")
    byte_level().save(str(folder / "theirs" / "tokenizer.json"))
    return theirs, import_model(folder / "theirs", folder / "run")


def test_logits_are_equal(pair):
    theirs, run = pair
    found, expected = our_logits(run), their_logits(theirs)
    assert found.std() > 0.3  # so that being equal says something
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_an_export_is_the_same_model_there(pair, tmp_path):
    """Logits, and the greedy continuation of a text through tokenizer and all."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    theirs, run = pair
    export_model(run, "hf", tmp_path / "hf")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "hf", attn_implementation="eager").eval()
    assert type(again) is type(theirs)
    np.testing.assert_allclose(their_logits(again), their_logits(theirs), rtol=0, atol=1e-4)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "hf")
    params, _ = load_parameters(run, inference_mesh(run.experiment.mesh))
    found = make_generator(run, params).generate(["Once upon"], tokens=12, sampling=Sampling(temperature=0.0), seed=0)[0].ids
    prompt = torch.tensor([[run.document_end, *tokenizer("Once upon")["input_ids"]]])
    expected = again.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=12, do_sample=False, pad_token_id=0)
    expected = expected[0, prompt.shape[1] :].tolist()
    same = next((i for i, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b), len(expected))
    assert found[:same] == tuple(expected[:same])
    assert same == len(expected) or expected[same] > 256, "they differ, and not by an id that no text holds"


def test_a_gguf_file_holds_the_same_model(pair, tmp_path):
    """Read by their library, which knows llama.cpp's layouts of some families, and again by us."""
    pytest.importorskip("gguf", reason="a GGUF file is written with it")
    from transformers import AutoModelForCausalLM

    theirs, run = pair
    if run.experiment.model.rotary_scaling == "llama3":
        pytest.skip("llama.cpp has no word for its tiny original context")
    if type(theirs).__name__ == "MistralForCausalLM":
        with pytest.raises(UserError, match="llama has no word for window 9"):
            export_model(run, "gguf", tmp_path / "model.gguf")
        return
    export_model(run, "gguf", tmp_path / "model.gguf")
    if type(theirs).__name__ in READ_BY_THEIRS:
        pytest.importorskip("accelerate", reason="their library reads GGUF files with it")
        read = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf", dtype="float32", attn_implementation="eager").eval()
        assert type(read) is type(theirs)
        np.testing.assert_allclose(their_logits(read), their_logits(theirs), rtol=0, atol=2e-4)
    again = import_model(tmp_path / "model.gguf", tmp_path / "run")
    np.testing.assert_allclose(our_logits(again), our_logits(run), rtol=0, atol=2e-4)
    assert family_of(again.experiment.model) == family_of(run.experiment.model)
    assert json.loads((tmp_path / "run" / "chat.json").read_text())["stop_ids"] == [0]


def test_conversations_and_texts_are_the_tokens_of_their_library(tmp_path):
    """A template with a system message of its own, and a folder as it is published."""
    from transformers import PreTrainedTokenizerFast

    config = their_config("Llama", GROUPED)
    config.save_pretrained(tmp_path)
    special = ["<|im_start|>", "<|im_end|>"]
    tokenizer = byte_level()
    tokenizer.add_special_tokens(special)
    theirs = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", chat_template=TEMPLATE)
    theirs.save_pretrained(tmp_path)
    content = (tmp_path / "tokenizer.json").read_bytes()
    chat, ours = chat_of(tmp_path, json.loads((tmp_path / "config.json").read_text()), content), hugging_face_tokenizer(content)
    messages = [
        {"role": "user", "content": "Hi, 日本 😀\n"},
        {"role": "assistant", "content": " Hello"},
        {"role": "user", "content": "And?"},
    ]
    for reply in (False, True):
        expected = theirs.apply_chat_template(messages, tokenize=True, add_generation_prompt=reply, return_dict=False)
        assert chat.encode(messages, ours, reply=reply) == expected
    assert chat.stop_ids[-1] == theirs.eos_token_id


def test_smollm2_is_what_their_library_makes_of_it(tmp_path):
    """The real model, where `omnia import smollm2` has fetched it. Their reading of the file takes no fractions apart, as it should."""
    pytest.importorskip("gguf", reason="their library reads GGUF files with it")
    pytest.importorskip("accelerate", reason="their library reads GGUF files with it")
    file = Path(storage.cache_folder() or "", "models", "smollm2", PACKAGES["smollm2"].inside)
    if not file.is_file():
        pytest.skip("the model is not fetched: `omnia import smollm2 --run-dir DIR`")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run = import_model(file, tmp_path / "run")
    tokenizer, ours = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name), run.tokenizer()
    for text in TEXTS:
        assert ours.encode(text).tolist() == tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"], text
    theirs = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    np.testing.assert_allclose(our_logits(run), their_logits(theirs), rtol=0, atol=2e-4)


@pytest.fixture(scope="module", params=OTHERS)
def other(request, tmp_path_factory):
    """Their encoder or encoder-decoder, and the run that it became."""
    import torch
    import transformers

    kind, settings = OTHERS[request.param]
    auto = transformers.AutoModelForSeq2SeqLM if kind == "T5" else transformers.AutoModelForMaskedLM
    theirs = auto.from_config(their_config(kind, settings), attn_implementation="eager").eval()
    if request.param == "t5 1.1":  # a published file holds a head of its own; a new model is tied, whatever its settings say
        theirs.lm_head.weight = torch.nn.Parameter(torch.empty(VOCABULARY, 32))
    make_random(theirs, one=True)
    folder = tmp_path_factory.mktemp("other")
    theirs.save_pretrained(folder / "theirs")
    byte_level().save(str(folder / "theirs" / "tokenizer.json"))
    return theirs, import_model(folder / "theirs", folder / "run")


def predictions_of(theirs) -> np.ndarray:
    import torch

    more = {"decoder_input_ids": torch.from_numpy(TOKENS_BT[:, ::-1].copy())} if theirs.config.is_encoder_decoder else {}
    with torch.no_grad():
        return theirs(input_ids=torch.from_numpy(TOKENS_BT), attention_mask=torch.ones(TOKENS_BT.shape), **more).logits.numpy()


def our_predictions(run) -> np.ndarray:
    model = realise(run.experiment.model)
    params, _ = load_parameters(run, inference_mesh(run.experiment.mesh))
    tokens_BT = jnp.asarray(TOKENS_BT, jnp.int32)
    if run.experiment.model.generates:
        ones_BT = jnp.ones_like(tokens_BT)
        source = SourceText(tokens_BT, ones_BT, jnp.cumsum(ones_BT, 1) - 1)
        hidden_BTD = model.apply({"params": params}, tokens_BT[:, ::-1], segments_BT=ones_BT, source=source).hidden_BTD
        return np.asarray(logits(Head(hidden_BTD, vocabulary_table(params))))
    return np.asarray(logits(model.predictions(params, model.apply({"params": params}, tokens_BT).hidden_BTD)))


def test_predictions_of_others_are_equal(other):
    theirs, run = other
    own = theirs.config.is_encoder_decoder and theirs.lm_head.weight is not theirs.shared.weight
    assert run.experiment.model.tied_embeddings is not own
    found, expected = our_predictions(run), predictions_of(theirs)
    assert found.std() > 0.2
    assert_same_logits(found, expected)


def test_an_export_of_others_is_the_same_model_there(other, tmp_path):
    theirs, run = other
    export_model(run, "hf", tmp_path / "hf")
    again = type(theirs).from_pretrained(tmp_path / "hf", attn_implementation="eager").eval()
    assert_same_logits(predictions_of(again), predictions_of(theirs))
