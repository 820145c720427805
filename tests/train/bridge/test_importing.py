"""Published models become runs like any other, and runs are written as others read them; what is wrong with a model is said."""

import json
import shutil
import types
import weakref

import flax.linen as nn
import jax
import ml_dtypes
import numpy as np
import pytest
import tokenizers
from safetensors import safe_open
from safetensors.numpy import save_file

import omnia
from data.errors import UserError
from data.tokenizer import byte_tokenizer, hugging_face_tokenizer
from model.config import ModelConfig
from model.transformer import Decoder
from tests.train.bridge.published_models import LLAMA, byte_level, weights_of, write_folder
from train.bridge import importing
from train.bridge.beside import MARK
from train.bridge.exporting import export_model
from train.bridge.importing import import_model
from train.checkpoints.journal import Journal
from train.experiment import TextData
from train.generation.chat import load_chat
from train.runs.directory import Run, create_run, open_run, write_run


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """(folder, its tensors, the run made of it)."""
    root = tmp_path_factory.mktemp("imported")
    tensors = write_folder(root / "theirs", shards=3)
    return root / "theirs", tensors, import_model(root / "theirs", root / "run")


def test_a_run_is_written_as_it_came(imported, tmp_path, monkeypatch):
    """Bit for bit, in as many files as it takes, with the tokenizer and all that belongs to a conversation."""
    folder, tensors, run = imported
    monkeypatch.setattr("train.bridge.exporting.SHARD_BYTES", 20_000)
    export_model(run, "hf", tmp_path / "hf")
    index = json.loads((tmp_path / "hf" / "model.safetensors.index.json").read_text())["weight_map"]
    assert len(set(index.values())) > 1 and index.keys() == tensors.keys()
    for name, file in index.items():
        with safe_open(tmp_path / "hf" / file, framework="numpy") as found:
            np.testing.assert_array_equal(found.get_tensor(name), tensors[name])
    assert (tmp_path / "hf" / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()
    settings = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert {name: settings[name] for name in LLAMA} == LLAMA
    again = import_model(tmp_path / "hf", tmp_path / "again")
    assert load_chat(again.path) == load_chat(run.path)
    assert again.experiment.model == run.experiment.model


def test_greedy_authors_stay_greedy(imported, tmp_path):
    folder, _, _ = imported
    shutil.copytree(folder, tmp_path / "theirs")
    (tmp_path / "theirs" / "generation_config.json").write_text(json.dumps({"do_sample": False, "temperature": 0.6}))
    run = import_model(tmp_path / "theirs", tmp_path / "run")
    export_model(run, "hf", tmp_path / "hf")
    said = json.loads((tmp_path / "hf" / "generation_config.json").read_text())
    assert load_chat(run.path).defaults["temperature"] == 0 and said["do_sample"] is False and "temperature" not in said


def test_an_import_is_a_run_like_any_other(imported):
    _, _, run = imported
    opened = open_run(run.path)
    assert opened.experiment == run.experiment and opened.identity == run.identity
    journal = Journal(run.path / "checkpoints")
    assert journal.steps() == [0] and not journal.damage(0, identity=run.identity)
    assert load_chat(run.path).stop_ids == (2, 0)
    assert not list(run.path.parent.glob("*.partial"))


def test_the_verbs_work_on_an_import(imported, tmp_path, capsys, monkeypatch):
    """Import, generate, talk and export from the command line; and a file that was exported is imported."""
    folder, _, _ = imported
    run = tmp_path / "run"
    assert omnia.main(["import", str(folder), "--run-dir", str(run)]) == 0
    assert omnia.main(["generate", str(run), "--prompt", "Hi", "--max-new-tokens", "4", "--temperature", "0"]) == 0
    first = capsys.readouterr().out.splitlines()[-1]
    assert first.startswith("Hi")
    assert omnia.main(["export", str(run), "--format", "gguf", "--output", str(tmp_path / "m.gguf")]) == 0
    assert omnia.main(["import", str(tmp_path / "m.gguf"), "--run-dir", str(tmp_path / "other")]) == 0
    assert omnia.main(["generate", str(tmp_path / "other"), "--prompt", "Hi", "--max-new-tokens", "4", "--temperature", "0"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == first
    said = iter(["Hello", "x" * 100, "/reset", "Again", "/exit", "never"])
    monkeypatch.setattr("builtins.input", lambda prompt="": next(said))
    assert omnia.main(["generate", str(run), "--chat", "--max-new-tokens", "4"]) == 0
    assert "the model sees 64: /reset" in capsys.readouterr().err
    assert next(said) == "never"


def test_a_run_that_starts_from_an_import_talks_too(imported, tmp_path):
    _, _, run = imported
    corpus = types.SimpleNamespace(tokenizer=run.tokenizer, digest="d", document_end=run.document_end)
    started = importing.dataclasses.replace(run.experiment, start=str(run.path), data=TextData(shards=("x",)))
    assert load_chat(create_run(tmp_path / "run", started, [corpus]).path) == load_chat(run.path)


OWN = ModelConfig(vocab_size=320, context_length=8, num_layers=1, embed_dim=8, num_heads=2, activation="gelu_tanh")


def own_run(path, config, tokenizer=None):
    """(a run of a model of our own, its parameters)."""
    tokenizer = tokenizer or byte_tokenizer()
    run = Run(path, importing.experiment_of("own", config, tokenizer), (), tokenizer.specials["document_end"])
    run.path.mkdir()
    tokenizer.save(str(run.path / "tokenizer"))
    write_run(run)
    params = nn.unbox(jax.jit(Decoder(config).start)(jax.random.key(0)))
    importing.save_parameters(run, params)
    return run, params


LLAMA_LIKE = {"norm": "rmsnorm", "gated": True, "positions": "rotary", "bias": False}


@pytest.mark.parametrize(
    "change, lost",
    [
        ({"activation": "gelu"}, "gpt2 has no word for activation 'gelu'"),
        (LLAMA_LIKE, "llama has no word for activation 'gelu_tanh'"),
        (LLAMA_LIKE | {"activation": "silu", "window": 4}, "llama has no word for window 4"),
        ({"positions": "rotary", "rotary_base": 5e3}, "gptneox has no word for activation 'gelu_tanh'"),
    ],
)
def test_a_gguf_file_is_not_written_of_what_it_cannot_say(tmp_path, change, lost):
    run, _ = own_run(tmp_path / "run", importing.dataclasses.replace(OWN, **change))
    with pytest.raises(UserError, match=lost):
        export_model(run, "gguf", tmp_path / "m.gguf")
    assert not list(tmp_path.glob("m.gguf*"))


@pytest.mark.parametrize("form, output", [("hf", "theirs"), ("gguf", "theirs.gguf")])
def test_a_model_of_our_own_leaves_without_a_tokenizer_that_others_do_not_know(tmp_path, form, output):
    config = OWN
    run, params = own_run(tmp_path / "run", config)
    said = []
    export_model(run, form, tmp_path / output, said=said.append)
    assert "written without it" in said[0]
    if form == "hf":
        found_config, found = importing.load_published(tmp_path / output)
        assert found_config == importing.dataclasses.replace(config, mlp_dim=32)
        jax.tree.map(np.testing.assert_array_equal, found, params)
    with pytest.raises(UserError, match="tokenizer"):
        import_model(tmp_path / output, tmp_path / "again")


def test_others_begin_a_text_as_a_run_of_our_own_did(tmp_path):
    """With the token that starts its documents, where that is not the one that ends them."""
    theirs = byte_level()
    theirs.add_special_tokens(["<|begin_of_text|>"])
    tokenizer = hugging_face_tokenizer(theirs.to_str().encode())
    start, end = tokenizer.document_start, tokenizer.specials["document_end"]
    assert start == theirs.token_to_id("<|begin_of_text|>") != end
    run, _ = own_run(tmp_path / "run", OWN, tokenizer)
    for form, output in (("hf", "hf"), ("gguf", "m.gguf")):
        export_model(run, form, tmp_path / output)
        again = import_model(tmp_path / output, tmp_path / f"of {form}")
        chat = load_chat(again.path)
        assert (chat.start_ids, chat.stop_ids, chat.tokens["bos_token"]) == ((start,), (end,), "<|begin_of_text|>")
    found = tokenizers.Tokenizer.from_file(str(tmp_path / "hf" / "tokenizer.json"))
    assert found.encode("Hi").ids == [start, *theirs.encode("Hi").ids]
    said = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert (said["bos_token_id"], said["eos_token_id"]) == (start, end)


def test_the_end_of_a_document_is_the_one_that_the_files_name(tmp_path):
    """Where its name is none of the usual ones, and the tokenizer does not mark it as special."""
    write_folder(tmp_path / "theirs")
    path = tmp_path / "theirs" / "tokenizer.json"
    said = json.loads(path.read_text().replace("<|endoftext|>", "<|over|>"))
    said["added_tokens"] = [token for token in said["added_tokens"] if token["content"] != "<|over|>"]
    path.write_text(json.dumps(said))
    (tmp_path / "theirs" / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|over|>"}))
    run = import_model(tmp_path / "theirs", tmp_path / "run")
    tokenizer = run.tokenizer()
    assert run.document_end == tokenizer.specials["document_end"] == said["model"]["vocab"]["<|over|>"]
    assert tokenizer.document_start < run.experiment.model.vocab_size


def test_memory_holds_one_tensor_of_theirs_at_a_time(imported, tmp_path, monkeypatch):
    folder, _, _ = imported
    alive, most = weakref.WeakValueDictionary(), 0
    published = importing.open_published(folder)

    class Watched(np.ndarray):
        """NumPy's own arrays take no weak references."""

    def read(name):
        nonlocal most
        found = published.read(name).view(Watched)
        alive[name] = found
        most = max(most, len(alive))
        return found

    changed = importing.dataclasses.replace(published, read=read)
    monkeypatch.setattr(importing, "open_published", lambda path: changed)
    import_model(folder, tmp_path / "run")
    assert most <= 2  # the new one, while the last is let go


def test_what_others_left_beside_is_not_removed(imported, tmp_path):
    """A folder or file of theirs that happens to have the name that ours has while it is made."""
    folder, _, run = imported
    for name in ("run", "hf", "m.gguf"):
        (tmp_path / f"{name}.partial").mkdir()
        (tmp_path / f"{name}.partial" / "thesis.txt").touch()
    with pytest.raises(UserError, match="run.partial"):
        import_model(folder, tmp_path / "run")
    for form, name in (("hf", "hf"), ("gguf", "m.gguf")):
        with pytest.raises(UserError, match=f"{name}.partial"):
            export_model(run, form, tmp_path / name)
    assert len(list(tmp_path.glob("*/thesis.txt"))) == 3


def test_a_killed_import_is_no_run_and_starts_again(imported, tmp_path, monkeypatch):
    folder, _, _ = imported
    monkeypatch.setattr(importing, "save_parameters", lambda run, params: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        import_model(folder, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    monkeypatch.undo()
    (tmp_path / "run.partial").mkdir()  # as a process leaves it that is ended from outside
    for name in (MARK, "whole"):
        (tmp_path / "run.partial" / name).touch()
    import_model(folder, tmp_path / "run")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
    with pytest.raises(UserError, match="exists"):
        import_model(folder, tmp_path / "run")


def test_other_types_are_widened(tmp_path):
    for dtype in (np.float16, ml_dtypes.bfloat16):
        tensors = write_folder(tmp_path / dtype.__name__, dtype=dtype)
        _, params = importing.load_published(tmp_path / dtype.__name__)
        np.testing.assert_array_equal(params["embedding"]["table"], tensors["model.embed_tokens.weight"])


def refused(folder, tmp_path) -> str:
    with pytest.raises(UserError) as error:
        import_model(folder, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    return str(error.value)


def test_all_wrong_tensors_are_named_at_once(tmp_path):
    weights = weights_of(LLAMA)
    del weights["model.norm.weight"], weights["model.layers.1.mlp.up_proj.weight"]
    weights |= {"model.layers.0.self_attn.q_proj.bias": np.ones(16, np.float32), "lm_head.weight": np.ones((3, 16), np.float32)}
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(2, np.float32)  # of no meaning
    write_folder(tmp_path / "theirs", weights=weights)
    said = refused(tmp_path / "theirs", tmp_path)
    for words in (
        "missing: model.layers.1.mlp.up_proj.weight, model.norm.weight",
        "unexpected: model.layers.0.self_attn.q_proj.bias",
        "lm_head.weight is [3, 16], expected [264, 16]",
    ):
        assert words in said
    assert "inv_freq" not in said


def test_a_bare_trunk_and_a_repeated_head_are_read(tmp_path):
    settings = LLAMA | {"tie_word_embeddings": True}
    weights = {name.removeprefix("model."): weight for name, weight in weights_of(settings).items()}
    write_folder(tmp_path / "theirs", settings, weights=weights | {"lm_head.weight": weights["embed_tokens.weight"]})
    _, params = importing.load_published(tmp_path / "theirs")
    assert "head" not in params


T5 = {"model_type": "t5", "vocab_size": 264, "d_model": 12, "d_kv": 5, "d_ff": 10, "num_layers": 1, "num_heads": 4}
T5 |= {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}


@pytest.mark.parametrize("settings, more", [(T5, {"scale_decoder_outputs": False}), (LLAMA, {})])
def test_a_head_of_its_own_is_kept_whatever_the_settings_say(tmp_path, settings, more):
    """T5 1.1 says "tied", and holds another head, where a newer version of Hugging Face's library has saved it."""
    weights = write_folder(tmp_path / "theirs", settings | more | {"tie_word_embeddings": True}, weights=weights_of(settings))
    config, params = importing.load_published(tmp_path / "theirs")
    assert not config.tied_embeddings and not getattr(config, "scaled_logits", False)
    np.testing.assert_array_equal(params["head"]["table"], weights["lm_head.weight"])


def test_a_head_that_has_no_place_is_refused(tmp_path):
    shape = {name: value for name, value in LLAMA.items() if name != "tie_word_embeddings"} | {"sliding_window": 4, "head_dim": 4}
    for settings, name in (
        (shape | {"model_type": "gemma2", "query_pre_attn_scalar": 4}, "lm_head.weight"),
        (BERT, "cls.predictions.decoder.weight"),
    ):
        weights = weights_of(settings)
        table = weights[next(one for one in weights if "embed" in one)]
        write_folder(tmp_path / "theirs", settings, weights=weights | {name: table})
        importing.load_published(tmp_path / "theirs")
        write_folder(tmp_path / "theirs", settings, weights=weights | {name: table + 1})
        assert f"{name} is another table" in refused(tmp_path / "theirs", tmp_path)


BERT = {name: LLAMA[name] for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")}
BERT |= {"model_type": "bert", "max_position_embeddings": 16}


def test_damaged_settings_are_said(tmp_path):
    """What a stranger's file can make fail, in the words of this project."""
    folder = tmp_path / "theirs"
    write_folder(folder)
    for change, words in (
        ({"num_hidden_layers": 10**9}, "1,000,000,000 layers"),
        ({"num_attention_heads": 0}, "config.json"),
        ({"model_type": "gemma2", "rope_parameters": []}, "config.json"),
        ({"model_type": "gemma2", "rope_parameters": [1]}, "config.json"),
        ({"model_type": "vit", "patch_size": 0}, "config.json"),
    ):
        (folder / "config.json").write_text(json.dumps(LLAMA | change))
        assert words in refused(folder, tmp_path)
    (folder / "config.json").write_text(json.dumps(LLAMA))
    for wrong in ({"bos_token": {"special": True}}, {"chat_template": [{"template": "a"}]}):
        (folder / "tokenizer_config.json").write_text(json.dumps(wrong))
        assert "not whole" in refused(folder, tmp_path)


def test_what_cannot_be_read_is_said(tmp_path):
    folder = tmp_path / "theirs"
    write_folder(folder)
    file = folder / "model.safetensors"
    content = file.read_bytes()

    file.write_bytes(content[:-7])
    assert "damaged or cut short" in refused(folder, tmp_path)
    save_file({"a": np.ones(3, ml_dtypes.float8_e4m3fn)}, file)
    assert "a is F8_E4M3" in refused(folder, tmp_path)
    file.rename(folder / "pytorch_model.bin")
    assert "pickles" in refused(folder, tmp_path) and "save_pretrained" in refused(folder, tmp_path)
    (folder / "pytorch_model.bin").unlink()
    assert "no model.safetensors" in refused(folder, tmp_path)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../model.safetensors"}}))
    assert "no list of safetensors files" in refused(folder, tmp_path)
    (folder / "model.safetensors.index.json").unlink()

    write_folder(folder, LLAMA | {"vocab_size": 100})
    assert "its tokenizer has 259 ids, its model 100" in refused(folder, tmp_path)
    (folder / "config.json").write_text(json.dumps(LLAMA | {"model_type": "mamba"}))
    assert "'mamba' is not known" in refused(folder, tmp_path) and "llama" in refused(folder, tmp_path)
    (folder / "config.json").write_text(json.dumps(LLAMA | {"mlp_bias": True}))
    assert "mlp_bias" in refused(folder, tmp_path)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    assert "lack 'num_attention_heads'" in refused(folder, tmp_path)
    (folder / "config.json").unlink()
    assert "no config.json" in refused(folder, tmp_path)
    assert "not there" in refused(tmp_path / "nowhere", tmp_path)


def test_what_cannot_be_written_is_said(imported, tmp_path):
    _, _, run = imported
    with pytest.raises(UserError, match="for --format gguf alone"):
        export_model(run, "hf", tmp_path / "hf", "q8_0")
    with pytest.raises(UserError, match="ends in .gguf"):
        export_model(run, "gguf", tmp_path / "model")
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match="exists"):
        export_model(run, "hf", tmp_path / "there")
    other = importing.dataclasses.replace(
        run.experiment, model=importing.dataclasses.replace(run.experiment.model, activation="relu_squared", logit_softcap=3.0)
    )
    with pytest.raises(UserError, match="no published family"):
        export_model(importing.dataclasses.replace(run, experiment=other), "hf", tmp_path / "hf")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
