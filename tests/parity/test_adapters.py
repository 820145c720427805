"""Adapters saved alone give in PEFT what they give here, and adapters that PEFT saved give the same here."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from flax import linen as nn

from tests.parity.hugging_face import FAMILIES, assert_same_logits, byte_level, make_random, our_logits, their_config, their_logits
from train.adapters.low_rank import NAME
from train.adapters.method import found_at
from train.adapters.options import AdaLoRA, LoRA
from train.adapters.training import fresh_leaves, method_of
from train.bridge.adapters import export_adapters, import_adapters
from train.bridge.importing import import_model, save_parameters
from train.objectives.bind import bind
from train.runs.directory import START, Run, keep_start, write_run
from train.runs.parts import get, put

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.slow

TARGETS = {
    "llama": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "gpt2": ["c_attn", "attn.c_proj", "c_fc", "mlp.c_proj"],
    "pythia": ["query_key_value", "attention.dense", "dense_h_to_4h", "dense_4h_to_h"],
}
KINDS = {
    "lora": LoRA(rank=3, alpha=7.0),
    "rslora": LoRA(rank=3, alpha=7.0, rs=True),
    "dora": LoRA(rank=3, alpha=7.0, dora=True),
    "adalora": AdaLoRA(rank=2, initial_rank=4),
}


@pytest.fixture(scope="module", params=TARGETS)
def pair(request, tmp_path_factory):
    """Their model in a folder, and the run that it became."""
    import transformers

    kind, settings = FAMILIES[request.param]
    theirs = transformers.AutoModelForCausalLM.from_config(their_config(kind, settings), attn_implementation="eager").eval()
    make_random(theirs, one=True)
    folder = tmp_path_factory.mktemp("pair")
    theirs.save_pretrained(folder / "theirs")
    byte_level().save(str(folder / "theirs" / "tokenizer.json"))
    return request.param, folder, import_model(folder / "theirs", folder / "run")


def fresh(folder):
    import transformers

    return transformers.AutoModelForCausalLM.from_pretrained(folder / "theirs", attn_implementation="eager").eval()


def with_adapters(base: Run, path, options) -> Run:
    """A run with random adapters; of AdaLoRA some triplets are zero, and all of one projection's."""
    experiment = dataclasses.replace(base.experiment, start=str(base.path), adapters=options)
    path.mkdir()
    base.tokenizer().save(str(path / "tokenizer"))
    keep_start(path / START, base)
    run = Run(path, experiment, base.digests, base.document_end, "0" * 16, None)
    write_run(run)
    rng = np.random.default_rng(0)
    leaves = nn.unbox(fresh_leaves(bind(experiment), method_of(experiment), jax.random.key(0)))
    leaves = jax.tree.map(lambda leaf: rng.normal(1.0 if leaf.ndim == 2 else 0.0, 0.3, leaf.shape).astype(np.float32), leaves)
    if isinstance(options, AdaLoRA):
        for number, place in enumerate(found_at(leaves, NAME)):
            values = get(leaves, (*place, NAME, "values"))
            values[0, : 4 if number == 0 else 1] = 0
            leaves = put(leaves, (*place, NAME, "values"), values)
    save_parameters(run, leaves)
    return run


@pytest.mark.parametrize("kind", KINDS)
def test_peft_computes_what_our_adapters_do(pair, kind, tmp_path):
    name, folder, base = pair
    run = with_adapters(base, tmp_path / "run", KINDS[kind])
    export_adapters(run, tmp_path / "adapters")
    theirs = peft.PeftModel.from_pretrained(fresh(folder), tmp_path / "adapters").eval()
    ours = our_logits(run)
    assert np.abs(ours - our_logits(base)).max() > 1e-2
    assert_same_logits(their_logits(theirs), ours)


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}, {"use_dora": True}], ids=["lora", "rslora", "dora"])
def test_adapters_of_peft_give_the_same_here(pair, options, tmp_path):
    import torch

    name, folder, base = pair
    config = peft.LoraConfig(r=3, lora_alpha=5, target_modules=TARGETS[name], fan_in_fan_out=name == "gpt2", **options)
    theirs = peft.get_peft_model(fresh(folder), config).eval()
    rng = np.random.default_rng(1)
    with torch.no_grad():
        for where, leaf in theirs.named_parameters():
            if "lora_" in where:
                leaf += torch.from_numpy(rng.normal(0, 0.2, tuple(leaf.shape)).astype(np.float32))
    theirs.save_pretrained(tmp_path / "theirs")
    run = import_adapters(tmp_path / "theirs", base, tmp_path / "run")
    assert_same_logits(our_logits(run), their_logits(theirs))
    export_adapters(run, tmp_path / "again")
    assert json.loads((tmp_path / "again" / "adapter_config.json").read_text())["peft_type"] == "LORA"
    again = import_adapters(tmp_path / "again", base, tmp_path / "run_again")
    np.testing.assert_allclose(our_logits(again), our_logits(run), rtol=1e-5, atol=1e-5)
