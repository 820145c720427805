"""A published encoder with a head answers here what it does in Hugging Face's library; soft prompts are PEFT's, both ways."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import linen as nn

from tests.parity.hugging_face import (
    FAMILIES,
    OTHERS,
    TOKENS_BT,
    assert_same_logits,
    byte_level,
    make_random,
    our_logits,
    their_config,
    their_logits,
)
from train.adapters.options import Prefix, Prompt
from train.adapters.training import fresh_leaves, method_of
from train.bridge.adapters import export_adapters, import_adapters
from train.bridge.exporting import export_model
from train.bridge.importing import import_model, save_parameters
from train.checkpoints.checkpointer import load_parameters
from train.devices.mesh import inference_mesh
from train.objectives.bind import bind
from train.runs.directory import START, Run, keep_start, write_run
from train.tasks.rows import HeadBatch

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.slow

HEADS = [
    ("bert", "SequenceClassification", {"num_labels": 5}),
    ("roberta", "SequenceClassification", {"num_labels": 5}),
    ("albert", "SequenceClassification", {"num_labels": 1}),
    ("distilbert", "TokenClassification", {"id2label": {0: "O", 1: "B-X", 2: "I-X"}}),
    ("roberta", "TokenClassification", {"id2label": {0: "O", 1: "B-X", 2: "I-X"}}),
    ("bert", "QuestionAnswering", {}),
]


def ours(run: Run, tokens_BT: np.ndarray) -> np.ndarray:
    """Logits of the head, of texts that have a row each."""
    batch, length = tokens_BT.shape
    tokens = tokens_BT.astype(np.int32)
    places = np.broadcast_to(np.arange(length, dtype=np.int32), tokens.shape)
    number, ones = np.arange(batch, dtype=np.int32), np.ones(tokens.shape, np.int32)
    rows = HeadBatch(tokens, ones, places, 0 * ones, number[:, None], number[:, None] * 0.0, number[:, None], number)
    loss = bind(run.experiment).loss
    params, _ = load_parameters(run, inference_mesh(run.experiment.mesh))
    found = np.asarray(jax.jit(loss.forward, static_argnums=2)(params, rows, None))
    return found if loss.head.by_token else found[:, 0]


@pytest.mark.parametrize("family, what, settings", HEADS)
def test_heads_answer_alike(family, what, settings, tmp_path):
    """Read from their folder, and read by them from ours."""
    import torch
    import transformers

    kind, shape = OTHERS[family]
    auto = getattr(transformers, f"AutoModelFor{what}")
    theirs = auto.from_config(their_config(kind, shape | settings), attn_implementation="eager").eval()
    make_random(theirs, one=True)
    theirs.save_pretrained(tmp_path / "theirs")
    byte_level().save(str(tmp_path / "theirs" / "tokenizer.json"))
    run = import_model(tmp_path / "theirs", tmp_path / "run")

    def answered(model):
        with torch.no_grad():
            output = model(torch.from_numpy(TOKENS_BT))
        return output.logits.numpy() if what != "QuestionAnswering" else torch.stack([output.start_logits, output.end_logits], -1).numpy()

    assert_same_logits(ours(run, TOKENS_BT), answered(theirs))
    export_model(run, "hf", tmp_path / "ours")
    back = auto.from_pretrained(tmp_path / "ours", attn_implementation="eager").eval()
    np.testing.assert_allclose(answered(back), answered(theirs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_adapters_of_a_classifier_are_pefts(family, tmp_path):
    """Terms of low rank with the head, from PEFT to here and back."""
    import torch
    import transformers

    kind, shape = OTHERS[family]
    trunk = getattr(transformers, f"{kind}Model")(their_config(kind, shape)).eval()
    make_random(trunk, one=True)
    trunk.save_pretrained(tmp_path / "trunk")
    byte_level().save(str(tmp_path / "trunk" / "tokenizer.json"))
    base = import_model(tmp_path / "trunk", tmp_path / "base")

    def fresh():
        auto = transformers.AutoModelForSequenceClassification
        return auto.from_pretrained(tmp_path / "trunk", num_labels=3, attn_implementation="eager").eval()

    config = peft.LoraConfig(r=3, lora_alpha=5, target_modules=["query", "value"], task_type="SEQ_CLS")
    theirs = peft.get_peft_model(fresh(), config).eval()
    rng = np.random.default_rng(1)
    with torch.no_grad():
        for where, leaf in theirs.named_parameters():
            if "lora_" in where or "modules_to_save" in where:
                leaf += torch.from_numpy(rng.normal(0, 0.2, tuple(leaf.shape)).astype(np.float32))
    theirs.save_pretrained(tmp_path / "adapters")
    run = import_adapters(tmp_path / "adapters", base, tmp_path / "run")
    expected = their_logits(theirs)
    if family == "roberta":  # whose classifier has a layer that the trunk of the file lacks
        assert "pooler" in run.experiment.adapters.trained
    assert_same_logits(ours(run, TOKENS_BT), expected)
    export_adapters(run, tmp_path / "again")
    back = peft.PeftModel.from_pretrained(fresh(), tmp_path / "again").eval()
    np.testing.assert_allclose(their_logits(back), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "llama 3", "qwen 2", "pythia"])
@pytest.mark.parametrize("options", [Prefix(length=5), Prompt(length=5)], ids=["prefix", "prompt"])
def test_soft_prompts_are_pefts(family, options, tmp_path):
    import transformers

    kind, shape = FAMILIES[family]

    def model():
        return transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "theirs", attn_implementation="eager").eval()

    theirs = transformers.AutoModelForCausalLM.from_config(their_config(kind, shape), attn_implementation="eager").eval()
    make_random(theirs, one=True)
    theirs.save_pretrained(tmp_path / "theirs")
    byte_level().save(str(tmp_path / "theirs" / "tokenizer.json"))
    base = import_model(tmp_path / "theirs", tmp_path / "base")
    experiment = dataclasses.replace(base.experiment, start=str(base.path), adapters=options)
    (tmp_path / "run").mkdir()
    base.tokenizer().save(str(tmp_path / "run" / "tokenizer"))
    keep_start(tmp_path / "run" / START, base)
    run = Run(tmp_path / "run", experiment, base.digests, base.document_end, "0" * 16, None)
    write_run(run)
    rng = np.random.default_rng(0)
    leaves = nn.unbox(fresh_leaves(bind(experiment), method_of(experiment), jax.random.key(0)))
    save_parameters(run, jax.tree.map(lambda leaf: rng.normal(0, 0.5, leaf.shape).astype(np.float32), leaves))
    export_adapters(run, tmp_path / "adapters")
    adapted, expected = peft.PeftModel.from_pretrained(model(), tmp_path / "adapters").eval(), our_logits(run)
    found = their_logits(adapted)[:, -TOKENS_BT.shape[1] :]
    assert np.abs(expected - our_logits(base)).max() > 1e-2
    assert_same_logits(found, expected)
    adapted.save_pretrained(tmp_path / "again", save_embedding_layers=False)
    back = import_adapters(tmp_path / "again", base, tmp_path / "back")
    np.testing.assert_allclose(our_logits(back), expected, rtol=1e-4, atol=1e-5)
