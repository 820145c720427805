"""Published models as Hugging Face's library saves them give the same predictions here, and again there after an export.

`make parity` runs this in an environment that has PyTorch and transformers; where they are missing it fails.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers

from data.errors import UserError
from data.files import storage
from data.tokenizer import hugging_face_tokenizer
from model.convert.families import family_of
from model.decoding.generate import Sampling
from model.encoder_decoder import SourceText
from model.heads import Head, logits, vocabulary_table
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

VOCABULARY = 300
SHAPE = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
SHAPE |= {"max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}
GROUPED = SHAPE | {"num_key_value_heads": 2, "rms_norm_eps": 1e-5}
SCALED = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
GEMMA = GROUPED | {"head_dim": 16, "query_pre_attn_scalar": 24, "sliding_window": 7}
TEMPLATE = """{%- if messages[0]['role'] != 'system' %}
    {{- '<|im_start|>system\\nBe brief.<|im_end|>\\n' }}
{%- endif %}
{% for message in messages %}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] | trim + '<|im_end|>' }}
{% endfor %}
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
FAMILIES = {
    "gpt2": ("GPT2", {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64, "eos_token_id": 0}),
    "llama": ("Llama", GROUPED),
    "llama 3": ("Llama", GROUPED | {"tie_word_embeddings": True, "rope_scaling": SCALED, "rope_theta": 5000.0}),
    "mistral": ("Mistral", GROUPED | {"sliding_window": 9, "head_dim": 16}),
    "qwen 2": ("Qwen2", GROUPED),
    "qwen 3": ("Qwen3", GROUPED | {"head_dim": 16, "tie_word_embeddings": True}),
    "gemma 2": ("Gemma2", GEMMA | {"num_hidden_layers": 4}),
    "gemma 3": ("Gemma3", GEMMA | {"num_hidden_layers": 7}),
    "pythia": ("GPTNeoX", SHAPE | {"rotary_pct": 0.5}),
    "neox, one after the other": ("GPTNeoX", SHAPE | {"use_parallel_residual": False}),
}
ENCODER = SHAPE | {"pad_token_id": 1, "type_vocab_size": 2}
OTHERS = {
    "bert": ("Bert", ENCODER),
    "roberta": ("Roberta", ENCODER | {"type_vocab_size": 1, "max_position_embeddings": 66}),
    "distilbert": (
        "DistilBert",
        {"vocab_size": VOCABULARY, "dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 64},
    ),
    "albert": ("Albert", ENCODER | {"embedding_size": 16, "num_hidden_layers": 4, "num_hidden_groups": 2, "pad_token_id": 0}),
    "t5": (
        "T5",
        {"vocab_size": VOCABULARY, "d_model": 32, "d_kv": 6, "d_ff": 48, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 4},
    ),
}
OTHERS["t5 1.1"] = "T5", OTHERS["t5"][1] | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
READ_BY_THEIRS = ("LlamaForCausalLM", "Qwen2ForCausalLM")
"""From GGUF files. Of others it takes the usual width of heads, scale of scores or context, whatever the file says."""
TOKENS_BT = np.random.default_rng(1).integers(2, VOCABULARY, (2, 40))


def their_config(kind: str, settings: dict):
    import transformers

    name = "Gemma3TextConfig" if kind == "Gemma3" else f"{kind}Config"
    return getattr(transformers, name)(**settings)


def their_logits(model) -> np.ndarray:
    import torch

    with torch.no_grad():
        return model(torch.from_numpy(TOKENS_BT)).logits.numpy()


def our_logits(run) -> np.ndarray:
    model = realise(run.experiment.model)
    params, _ = load_parameters(run, inference_mesh(run.experiment.mesh))
    hidden_BTD = jax.jit(model.apply)({"params": params}, jnp.asarray(TOKENS_BT, jnp.int32)).hidden_BTD
    return np.asarray(logits(Head(hidden_BTD, vocabulary_table(params)), softcap=run.experiment.model.logit_softcap))


def byte_level() -> tokenizers.Tokenizer:
    """Of bytes, with as many ids as the models."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i + 1 for i, token in enumerate(alphabet)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary | {"<|endoftext|>": 0}, []))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    return tokenizer


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


def make_random(model, *, one: bool) -> None:
    """one: norms multiply by their weight, and not by 1 more."""
    import torch

    rng = np.random.default_rng(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            mean = float(one and weight.ndim == 1 and name.endswith("weight"))
            weight.copy_(torch.from_numpy(rng.normal(mean, 0.1 if weight.ndim == 1 else 0.3, tuple(weight.shape))))


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
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-4)


def test_an_export_of_others_is_the_same_model_there(other, tmp_path):
    theirs, run = other
    export_model(run, "hf", tmp_path / "hf")
    again = type(theirs).from_pretrained(tmp_path / "hf", attn_implementation="eager").eval()
    np.testing.assert_allclose(predictions_of(again), predictions_of(theirs), rtol=0, atol=2e-4)
