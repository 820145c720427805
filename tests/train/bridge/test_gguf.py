"""GGUF files: every type of tensor that is read, settings, tokenizers by independent oracles, and damage."""

import io
import json

import gguf
import jax
import numpy as np
import pytest
import sentencepiece
import tokenizers
from gguf.quants import dequantize, quantize
from safetensors.numpy import load_file

from data.errors import UserError
from data.tokenizer import hugging_face_tokenizer
from model.convert.families import FAMILIES, family_of
from tests.train.bridge.published_models import LLAMA, TEXTS, weights_of, write_folder
from train.bridge.exporting import export_model
from train.bridge.gguf import TYPES, open_gguf, settings_of, widened
from train.bridge.gguf_tokenizer import BYTE, CONTROL, NORMAL, SPACE, UNKNOWN, gguf_tokenizer, tokenizer_json
from train.bridge.importing import import_model, load_published
from train.generation.chat import Chat, load_chat
from train.generation.embeddings import load_embedder


@pytest.mark.parametrize("name", TYPES)
def test_every_type_is_widened_as_the_library_does(tmp_path, name):
    kind = gguf.GGMLQuantizationType[name]
    weights = np.random.default_rng(0).normal(size=(5, 512)).astype(np.float32)
    try:
        stored = quantize(weights, kind)
    except NotImplementedError:  # it can read them alone: any bytes are some weights, scales aside
        block, size = gguf.GGML_QUANT_SIZES[kind]
        stored = np.random.default_rng(0).integers(0, 60, (5, 512 // block * size), np.uint8)
    writer = gguf.GGUFWriter(tmp_path / "one.gguf", "llama")
    writer.add_tensor("w", stored, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    (tensor,) = gguf.GGUFReader(tmp_path / "one.gguf").tensors
    np.testing.assert_array_equal(widened(tensor), dequantize(stored, kind))


SCALED = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("gguf")
    write_folder(root / "theirs", LLAMA | {"hidden_size": 32, "rope_scaling": SCALED, "rope_theta": 5e5})
    return import_model(root / "theirs", root / "run")


@pytest.mark.parametrize("kind, worst", [("f32", 0), ("f16", 1e-3), ("bf16", 1e-2), ("q8_0", 0.02)])
def test_a_model_survives_the_file(run, tmp_path, kind, worst):
    """Settings, scaled rotation and conversation too; weights as well as their type can say them."""
    export_model(run, "gguf", tmp_path / "m.gguf", kind)
    published = open_gguf(tmp_path / "m.gguf")
    config = published.family.config_of(published.settings)
    assert family_of(config) == family_of(run.experiment.model)
    assert (published.chat.stop_ids, published.chat.template) == ((2,), json.loads((run.path / "chat.json").read_text())["template"])
    export_model(run, "hf", tmp_path / "hf")
    expected = load_file(tmp_path / "hf" / "model.safetensors")
    shuffled = "self_attn.q_proj", "self_attn.k_proj"
    for name, tensor in expected.items():
        if not any(part in name for part in shuffled):
            np.testing.assert_allclose(published.read(name), tensor, rtol=0, atol=worst * np.abs(tensor).max(), err_msg=name)


def test_the_largest_gemma_divides_scores_as_readers_take_it(tmp_path):
    """They know by the number of its layers that it divides by the width over the heads: Gemma 2 27B has 46 layers."""
    shape = {"vocab_size": 264, "hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 6}
    gemma = shape | {"model_type": "gemma2", "num_hidden_layers": 46, "max_position_embeddings": 16, "sliding_window": 4}
    write_folder(tmp_path / "theirs", gemma | {"query_pre_attn_scalar": 4, "rms_norm_eps": 1e-6})
    run = import_model(tmp_path / "theirs", tmp_path / "run")
    export_model(run, "gguf", tmp_path / "m.gguf")
    config, expected = load_published(tmp_path / "theirs")
    again, found = load_published(tmp_path / "m.gguf")
    assert again == config and open_gguf(tmp_path / "m.gguf").settings["query_pre_attn_scalar"] == 4
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, expected)
    queries = open_gguf(tmp_path / "m.gguf").read("model.layers.0.self_attn.q_proj.weight")
    np.testing.assert_allclose(
        queries, weights_of(gemma | {"query_pre_attn_scalar": 4})["model.layers.0.self_attn.q_proj.weight"], rtol=1e-2
    )


METADATA = {f"llama.{name}": value for name, value in (
    ("context_length", 64), ("block_count", 2), ("embedding_length", 16), ("feed_forward_length", 24), ("attention.head_count", 4),
)}  # fmt: skip


def test_scaling_without_a_type_is_linear_and_other_rotations_are_refused():
    llama = next(family for family in FAMILIES if family.gguf == "llama")
    settings = settings_of(llama, METADATA | {"llama.rope.scaling.factor": 4.0}, {}, "here")
    assert settings["rope_scaling"] == {"rope_type": "linear", "factor": 4.0}
    neutral = {"llama.rope.scale_linear": 1.0, "llama.rope.scaling.factor": 1.0, "llama.rope.scaling.yarn_beta_fast": 32.0}
    assert "rope_scaling" not in settings_of(llama, METADATA | neutral, {}, "here")
    for name, value in (("scaling.attn_factor", 0.5), ("dimension_sections", [1, 2]), ("scale_linear", 2.0)):
        with pytest.raises(UserError, match=name):
            settings_of(llama, METADATA | {f"llama.rope.{name}": value}, {}, "here")


def test_damage_is_said(run, tmp_path):
    path = tmp_path / "m.gguf"
    export_model(run, "gguf", path)
    content = path.read_bytes()
    for cut in (0, 3, 20, 300, len(content) // 2, len(content) - 40):
        path.write_bytes(content[:cut])
        with pytest.raises(UserError, match="damaged, cut short or no GGUF file"):
            open_gguf(path)
    key = b"tokenizer.ggml.token_type"
    length = content.index(key) + len(key) + 8  # behind the types of the value and of what the list holds
    path.write_bytes(content[:length] + (2**60).to_bytes(8, "little") + content[length + 8 :])
    with pytest.raises(UserError, match="ends before byte"):
        open_gguf(path)
    path.write_bytes(
        content.replace(
            b"general.architecture\x08\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00llama",
            b"general.architecture\x08\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00mamba",
        )
    )
    with pytest.raises(UserError, match="architecture 'mamba' is not known"):
        open_gguf(path)


def same_tokens(content: bytes, reference, encode) -> None:
    model = tokenizers.Tokenizer.from_str(content.decode())
    model.encode_special_tokens = True
    for text in TEXTS:
        assert model.encode(text, add_special_tokens=False).ids == encode(reference, text), text


def trained(pre_tokenizer, normalizer=None) -> tokenizers.Tokenizer:
    """Byte-level BPE with merges, that cuts words in its own way."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizer, tokenizers.decoders.ByteLevel()
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    return tokenizer


LLAMA3_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
"""As in Llama 3's tokenizer.json; Qwen 2's takes digits one by one."""


@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "llama-bpe", "qwen2"])
def test_byte_level_tokenizers_go_both_ways(pre):
    """The reference is the tokenizer.json itself; its way through a GGUF file must not change a token."""
    of = tokenizers.pre_tokenizers
    plain = of.ByteLevel(add_prefix_space=False, use_regex=pre in ("gpt-2", "smollm"))
    words = LLAMA3_WORDS if pre == "llama-bpe" else LLAMA3_WORDS.replace("{1,3}", "")
    before = {"gpt-2": plain, "smollm": of.Sequence([of.Digits(individual_digits=True), plain])}
    cut = before.get(pre) or of.Sequence([of.Split(tokenizers.Regex(words), "isolated"), plain])
    reference = trained(cut, tokenizers.normalizers.NFC() if pre == "qwen2" else None)
    metadata = gguf_tokenizer(reference.to_str().encode(), 512)
    assert metadata["pre"] == pre and len(metadata["tokens"]) == 512
    reference.encode_special_tokens = True
    same_tokens(tokenizer_json(metadata, "here"), reference, lambda model, text: model.encode(text, add_special_tokens=False).ids)


@pytest.fixture(scope="module")
def sentencepiece_model():
    content = io.BytesIO()
    texts = iter(TEXTS * 5)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=texts, model_writer=content, model_type="bpe", vocab_size=420, byte_fallback=True, minloglevel=2,
        normalization_rule_name="identity", remove_extra_whitespaces=False, character_coverage=0.98,
    )  # fmt: skip
    return sentencepiece.SentencePieceProcessor(model_proto=content.getvalue())


def test_a_sentencepiece_vocabulary_gives_its_own_tokens(sentencepiece_model):
    """The reference is SentencePiece, which knows no merges. Theirs strips no space, so no text that begins with one."""
    model = sentencepiece_model
    ids = range(model.vocab_size())
    types = [UNKNOWN if model.is_unknown(i) else CONTROL if model.is_control(i) else BYTE if model.is_byte(i) else NORMAL for i in ids]
    metadata = {
        "model": "llama",
        "tokens": [model.id_to_piece(i) for i in ids],
        "scores": [model.get_score(i) for i in ids],
        "token_type": types,
        "bos_token_id": 1,
        "unknown_token_id": 0,
    }
    content = tokenizer_json(metadata, "here")
    found = tokenizers.Tokenizer.from_str(content.decode())
    assert found.encode("").ids == [1]
    found.encode_special_tokens = True
    for text in TEXTS:
        if not text.startswith(" "):
            assert found.encode(text, add_special_tokens=False).ids == model.encode(text), text
            assert found.decode(model.encode(text)) == text
    back = gguf_tokenizer(content, model.vocab_size())
    assert {name: back[name] for name in ("model", "tokens", "token_type")} == {
        name: metadata[name] for name in ("model", "tokens", "token_type")
    }
    again = tokenizers.Tokenizer.from_str(tokenizer_json(back | {"bos_token_id": 1, "unknown_token_id": 0}, "here").decode())
    assert all(again.encode(text).ids == tokenizers.Tokenizer.from_str(content.decode()).encode(text).ids for text in TEXTS)


def test_a_conversation_has_the_tokens_of_the_library(sentencepiece_model):
    """Which cuts a text at special tokens itself, and puts a space before the first piece alone."""
    model, specials = sentencepiece_model, {"<s>": 1, "</s>": 2}
    ids = range(model.vocab_size())
    metadata = {"model": "llama", "tokens": [model.id_to_piece(i) for i in ids], "scores": [model.get_score(i) for i in ids]}
    metadata |= {"token_type": [CONTROL if i in (1, 2) else NORMAL for i in ids], "unknown_token_id": 0}
    content = tokenizer_json(metadata, "here")
    chat = Chat("{% for m in messages %}[{{ m['content'] }}]{{ '</s>' if loop.index is even else '<s>' }}{% endfor %}", {}, specials)
    messages = [{"role": "user", "content": text} for text in ("Hello", "world it", "two  spaces", "done")]
    text = "".join(piece for piece, _ in chat.render(messages))
    expected = tokenizers.Tokenizer.from_str(content.decode()).encode(text, add_special_tokens=False).ids
    assert chat.encode(messages, hugging_face_tokenizer(content)) == expected


def test_an_encoder_survives_the_file(tmp_path):
    """But for its pooler, for which the file has no place, as is said."""
    settings = {"model_type": "bert", "vocab_size": 264, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    settings |= {"intermediate_size": 24, "max_position_embeddings": 32}
    run, said = import_bert(tmp_path, settings), []
    export_model(run, "gguf", tmp_path / "m.gguf", said=said.append)
    assert "no place for prediction_head" in said[0]
    published = open_gguf(tmp_path / "m.gguf")
    config = published.family.config_of(published.settings)
    assert (config.num_layers, config.token_types, config.norm_position, config.norm_epsilon) == (2, 2, "post", 1e-12)
    export_model(run, "hf", tmp_path / "hf", said=said.append)
    expected = load_file(tmp_path / "hf" / "model.safetensors")
    assert published.shapes.keys() == {name for name in expected if not name.startswith("cls.")}
    for name in published.shapes:
        np.testing.assert_array_equal(published.read(name), expected[name], err_msg=name)


def import_bert(root, settings: dict):
    """With a head and a WordPiece tokenizer."""
    weights = {name: one for name, one in weights_of(settings).items() if "pooler" not in name}
    write_folder(root / "theirs", settings, weights=weights)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello", "##s"]
    tokenizer = tokenizers.implementations.BertWordPieceTokenizer({word: i for i, word in enumerate(words)})
    tokenizer.save(str(root / "theirs" / "tokenizer.json"))
    return import_model(root / "theirs", root / "run")


def test_vectors_are_made_as_the_authors_do(tmp_path):
    """By the first token, of so many tokens, as a folder of Sentence Transformers says; `omnia embed` does so unless told otherwise."""
    bert = {name: LLAMA[name] for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")}
    bert |= {"model_type": "bert", "max_position_embeddings": 16}
    modules = [{"type": f"sentence_transformers.models.{kind}", "path": path} for kind, path in (("Transformer", ""), ("Pooling", "1_P"))]
    (tmp_path / "theirs" / "1_P").mkdir(parents=True)
    (tmp_path / "theirs" / "modules.json").write_text(json.dumps(modules))
    modes = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (tmp_path / "theirs" / "1_P" / "config.json").write_text(json.dumps(modes))
    (tmp_path / "theirs" / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 4}))
    run = import_bert(tmp_path, bert)
    text = ["hello hello hello hello"]
    np.testing.assert_array_equal(load_embedder(run.path)(text), load_embedder(run, pool="first", most=4)(text))
    assert np.abs(load_embedder(run)(text) - load_embedder(run, pool="mean")(text)).max() > 1e-3
    for form, output in (("hf", "hf"), ("gguf", "m.gguf")):
        export_model(run, form, tmp_path / output)
        again = load_chat(import_model(tmp_path / output, tmp_path / f"of {form}").path)
        assert (again.pool, again.max_tokens) == ("first", 4 if form == "hf" else 0)
    modules.append({"type": "sentence_transformers.models.Dense", "path": "2_Dense"})
    (tmp_path / "theirs" / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(UserError, match="not known: Dense"):
        import_model(tmp_path / "theirs", tmp_path / "other")


def test_a_word_piece_vocabulary_gives_its_own_tokens():
    """The reference is the library's BERT, whose vocabulary llama.cpp spells another way: words by their beginnings."""
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [
        "hello",
        "world",
        ",",
        "it",
        "'",
        "##s",
        "1",
        "##2",
        "##3",
        "text",
        "##e",
        "def",
        "f",
        "(",
        "x",
        ")",
        ":",
        "return",
        "##ing",
        "leading",
    ]
    vocabulary = {token: i for i, token in enumerate([*specials, *words])}
    reference = tokenizers.implementations.BertWordPieceTokenizer(vocabulary, lowercase=True)
    tokens = [token if token in specials else token[2:] if token.startswith("##") else SPACE + token for token in vocabulary]
    types = [CONTROL if token in specials else NORMAL for token in vocabulary]
    metadata = {"model": "bert", "tokens": tokens, "token_type": types, "cls_token_id": 2, "seperator_token_id": 3}
    content = tokenizer_json(metadata, "here")
    found = tokenizers.Tokenizer.from_str(content.decode())
    for text in TEXTS:
        assert found.encode(text.lower()).ids == reference.encode(text).ids, text
    assert gguf_tokenizer(content, len(tokens))["tokens"] == tokens


@pytest.mark.parametrize("wrong", [{"token_type": [1]}, {"tokens": [1, 2]}, {"scores": [1.0], "model": "llama"}])
def test_a_tokenizer_that_is_not_whole_is_said(run, tmp_path, monkeypatch, wrong):
    export_model(run, "gguf", tmp_path / "m.gguf")
    real = gguf.ReaderField.contents
    wrong = {f"tokenizer.ggml.{name}": value for name, value in wrong.items()}
    monkeypatch.setattr(gguf.ReaderField, "contents", lambda self, *place: wrong.get(self.name) or real(self, *place))
    with pytest.raises(UserError, match="tokenizer (lacks|is not whole)"):
        open_gguf(tmp_path / "m.gguf")


def test_a_tokenizer_that_is_not_known_is_refused():
    with pytest.raises(UserError, match="kind 'rwkv'"):
        tokenizer_json({"model": "rwkv"}, "here")
    with pytest.raises(UserError, match="cuts words as 'chatglm'"):
        tokenizer_json({"model": "gpt2", "pre": "chatglm", "tokens": ["a"], "merges": []}, "here")


def test_llama_cpp_knows_all_that_families_say_it_does():
    assert {family.gguf for family in FAMILIES if family.gguf} <= set(gguf.MODEL_ARCH_NAMES.values())
