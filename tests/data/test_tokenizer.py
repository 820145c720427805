import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data import tokenizer as tokenizers_of
from data.errors import UserError
from data.tokenizer import SPECIALS, byte_tokenizer, character_tokenizer, load_tokenizer
from data.tokenizer_training import train_sentencepiece

TEXT = (
    """def f(x):\n    if x:\n        return x + 1\n\n\tThe quick brown fox, and the lazy dog; the end.\r
Packs of documents are cut where the rows end; each token is predicted once, in another order every time.\n"""
    * 40
)
AWKWARD = [
    "",
    " ",
    "  a  ",
    "\n",
    "\n\n\n",
    "\r\n",
    "\t\t x",
    "\0",
    "a\0b",
    "\u2581",
    "the <|endoftext|> of a <|system|><document_end>fox",
    " \u2581\u2581 x\u2581",
    "\u2585",
    "\ufeff",
    "\u2028",
    "<unk>",
    "<0x41>",
    "<s></s>",
    "<|endoftext|>",
    "x" * 5000,
    "\n    \n  x\n\n\n y",
    "e\u0301\u00e9",
    "日本語 🙂",
    "\U0010ffff",
]


def sentencepiece():
    return train_sentencepiece([(0, TEXT)], 420)


def hugging_face(kind):
    hf = pytest.importorskip("tokenizers")
    if kind == "byte level":
        model = hf.Tokenizer(hf.models.BPE())
        model.pre_tokenizer = hf.pre_tokenizers.ByteLevel(add_prefix_space=False)
        model.decoder = hf.decoders.ByteLevel()
        trainer = hf.trainers.BpeTrainer(
            vocab_size=400,
            initial_alphabet=hf.pre_tokenizers.ByteLevel.alphabet(),
            special_tokens=["<|endoftext|>", "<|system|>"],
            show_progress=False,
        )
    else:
        model = hf.Tokenizer(hf.models.WordPiece(unk_token="[UNK]"))
        model.pre_tokenizer = hf.pre_tokenizers.Whitespace()
        model.decoder = hf.decoders.WordPiece()
        trainer = hf.trainers.WordPieceTrainer(vocab_size=200, special_tokens=["[UNK]", "[SEP]"], show_progress=False)
    model.train_from_iterator([TEXT], trainer)
    return tokenizers_of.hugging_face_tokenizer(model.to_str().encode())


MADE = {}


def tokenizer_of(kind):
    if kind not in MADE:
        MADE[kind] = {
            "byte": byte_tokenizer,
            "char": lambda: character_tokenizer(TEXT),
            "sentencepiece": sentencepiece,
            "byte level": lambda: hugging_face("byte level"),
            "word piece": lambda: hugging_face("word piece"),
        }[kind]()
    return MADE[kind]


KINDS = ["byte", "char", "sentencepiece", "byte level", "word piece"]
LOSSLESS = ["byte", "sentencepiece", "byte level"]


@pytest.mark.parametrize("kind", LOSSLESS)
@pytest.mark.parametrize("text", AWKWARD)
def test_awkward_texts_survive(kind, text):
    check_round_trip(tokenizer_of(kind), text)


@pytest.mark.parametrize("kind", LOSSLESS)
@settings(deadline=None, max_examples=150)
@given(text=st.one_of(st.text(max_size=60), st.text("\n \t\u2581ax<0>\r🙂", max_size=40)))
@example(text="x\n \n")
def test_any_text_survives(kind, text):
    check_round_trip(tokenizer_of(kind), text)


@settings(deadline=None, max_examples=50)
@given(text=st.text(sorted(set(TEXT)), max_size=60))
def test_any_text_of_the_alphabet_survives(text):
    check_round_trip(tokenizer_of("char"), text)


def check_round_trip(tokenizer, text):
    ids = tokenizer.encode(text)
    assert ids.dtype == np.int32
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode_bytes(ids) == text.encode()
    reserved = set(tokenizer.specials.values())
    assert not reserved & set(ids.tolist())
    assert all(0 <= i < tokenizer.base_size for i in ids)


@pytest.mark.parametrize("kind", KINDS)
def test_batches_and_streams_have_the_ids_of_the_whole(kind):
    tokenizer = tokenizer_of(kind)
    texts = [TEXT, "", TEXT[5:500], "\n", "the  end\n\n"]
    for ids, text in zip(tokenizer.encode_batch(texts), texts, strict=True):
        assert np.array_equal(ids, tokenizer.encode(text))
        for size in (1, 7, 100):
            chunks = [text[i : i + size] for i in range(0, len(text), size)]
            streamed = list(tokenizer.encode_stream(chunks))
            assert np.array_equal(np.concatenate([*streamed, ids[:0]]), ids)


@settings(deadline=None, max_examples=100)
@given(text=st.text("\n\n \tab\u2581", max_size=60), size=st.integers(1, 9))
def test_sentencepiece_is_cut_only_where_ids_stay(text, size):
    """Against the model on the whole text, which our own line by line encoding must equal too."""
    tokenizer = tokenizer_of("sentencepiece")
    ids = tokenizer.encode(text).tolist()
    assert [i for part in tokenizer.encode_stream([text[j : j + size] for j in range(0, len(text), size)]) for i in part] == ids
    if "\u2581" not in text:
        assert tokenizer._model.encode(text) == ids


@pytest.mark.parametrize("kind", KINDS)
def test_specials_are_shown_or_left_out(kind):
    tokenizer = tokenizer_of(kind)
    end, mask = tokenizer.specials["document_end"], tokenizer.specials["mask"]
    ids = [*tokenizer.encode("the fox"), end, mask, *tokenizer.encode("dog")]
    assert tokenizer.decode(ids) == "the foxdog"
    assert tokenizer.decode(ids, specials=True) == "the fox<document_end><mask>dog"
    assert tokenizer.decode([tokenizer.size + 5, -1]) == ""
    assert tokenizer.decode([tokenizer.size + 5], specials=True) == f"<{tokenizer.size + 5}>"


@pytest.mark.parametrize("kind", KINDS)
def test_specials_lie_above_the_base_except_for_the_models_own_end(kind):
    tokenizer = tokenizer_of(kind)
    ids = dict(tokenizer.specials)
    assert set(ids) == set(SPECIALS)
    assert len(set(ids.values())) == len(SPECIALS)
    if kind in ("byte level", "word piece"):
        own = {"byte level": "<|endoftext|>", "word piece": "[SEP]"}[kind]
        assert ids.pop("document_end") == tokenizer._model.token_to_id(own)
    assert min(ids.values()) >= tokenizer.base_size
    assert tokenizer.size == 1 + max(ids.values())


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded_it_is_the_same(kind, tmp_path):
    tokenizer = tokenizer_of(kind)
    tokenizer.save(tmp_path / "corpus" / "tokenizer")
    for path in ("corpus", "corpus/tokenizer", "corpus/tokenizer/tokenizer.json"):
        loaded = load_tokenizer(tmp_path / path)
        assert (loaded.digest, loaded.size, loaded.specials) == (tokenizer.digest, tokenizer.size, tokenizer.specials)
        assert np.array_equal(loaded.encode("the fox"), tokenizer.encode("the fox"))
    assert tokenizer.digest != tokenizer_of(KINDS[KINDS.index(kind) - 1]).digest


def test_foreign_files_are_recognised(tmp_path):
    pytest.importorskip("tokenizers")
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "tokenizer.json").write_bytes(tokenizer_of("byte level").files["huggingface.json"])
    (tmp_path / "some.model").write_bytes(tokenizer_of("sentencepiece").files["sentencepiece.model"])
    assert load_tokenizer(tmp_path / "hf").digest == tokenizer_of("byte level").digest
    foreign = load_tokenizer(tmp_path / "some.model")
    assert foreign.encode("the fox").tolist() == foreign._model.encode("the fox")  # exactly as its own library does
    assert not foreign.by_line


def test_a_model_that_puts_a_space_first_gives_the_text_back():
    sentencepiece = pytest.importorskip("sentencepiece")
    import io

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.split("\n")), model_writer=model, vocab_size=330, model_type="bpe", byte_fallback=True, minloglevel=2
    )
    tokenizer = tokenizers_of.sentencepiece_tokenizer(model.getvalue())
    ids = tokenizer.encode("the quick fox")
    assert tokenizer.decode(ids) == tokenizer.decode_bytes(ids).decode() == "the quick fox"
    assert b"".join(tokenizer.pieces[id_] for id_ in ids) == b" the quick fox"
    assert tokenizer.specials["document_end"] == tokenizer._model.eos_id()


def test_training_is_repeatable():
    assert sentencepiece().digest == tokenizer_of("sentencepiece").digest


def test_an_unknown_character_is_named():
    with pytest.raises(UserError, match="'é' is not among the 3"):
        character_tokenizer("abc").encode("abécé")


@pytest.mark.parametrize("kind", KINDS)
def test_half_a_surrogate_pair_is_the_users_mistake(kind):
    with pytest.raises(UserError):
        tokenizer_of(kind).encode("a\ud800")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", "{"),
        ("tokenizer.json", "[]"),
        ("tokenizer.json", '{"model": 1}'),
        ("tokenizer.json", '{"kind": "byte"}'),
        ("tokenizer.json", '{"kind": "none", "format": 1, "files": []}'),
        ("some.model", "junk"),
        ("notes.txt", "junk"),
        ("tokenizer.json", json.dumps({"kind": "byte", "format": 99})),
        ("tokenizer.json", json.dumps({"kind": "sentencepiece", "format": 1, "files": ["sentencepiece.model"]})),
    ],
)
def test_what_is_no_tokenizer_is_the_users_mistake(name, content, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=name) as error:
        load_tokenizer(tmp_path / name)
    assert str(error.value).count("\n") == 1


def test_a_path_without_a_tokenizer_is_the_users_mistake(tmp_path):
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UserError, match="no tokenizer there"):
            load_tokenizer(path)


def test_settings_of_a_foreign_file_are_not_obeyed(tmp_path):
    """Truncation, padding and dropout are for the batches of whoever published the file: a document is encoded whole, and always alike."""
    tokenizers = pytest.importorskip("tokenizers")
    plain = tokenizer_of("byte level").files["huggingface.json"]
    model = tokenizers.Tokenizer.from_buffer(plain)
    model.enable_truncation(max_length=4)
    model.enable_padding(length=64)
    model.model.dropout = 0.5
    (tmp_path / "tokenizer.json").write_text(model.to_str())
    text = "The quick brown fox, and the lazy dog; the end. " * 20
    expected = tokenizers_of.hugging_face_tokenizer(plain).encode(text)
    found = load_tokenizer(str(tmp_path / "tokenizer.json"))
    assert len(expected) > 64
    for _ in range(5):
        np.testing.assert_array_equal(found.encode(text), expected)
    assert found.switched_off == ("truncation to 4 tokens", "padding", "dropout 0.5")


def foreign(kind):
    """Tokenizers of others that know few characters, or whose end is a word like any other."""
    hf = pytest.importorskip("tokenizers")
    letters = {c: i for i, c in enumerate("aebo</")} | {"</s>": 6}
    model = {
        "bpe": lambda: hf.Tokenizer(hf.models.BPE(letters, [])),
        "bpe of bytes": lambda: hf.Tokenizer.from_buffer(tokenizer_of("byte level").files["huggingface.json"]),
        "merged end": lambda: hf.Tokenizer(
            hf.models.BPE({c: i for i, c in enumerate("</s>ab")} | {"</": 6, "s>": 7, "</s>": 8}, [("<", "/"), ("s", ">"), ("</", "s>")])
        ),
        "unigram": lambda: hf.Tokenizer(hf.models.Unigram([("<unk>", 0.0), ("</s>", 0.0), *((c, -2.0) for c in "ab</s")], 0)),
        "word": lambda: hf.Tokenizer(hf.models.WordLevel({"<unk>": 0, "a": 1, "</s>": 2}, unk_token="<unk>")),
        "unknown is end": lambda: hf.Tokenizer(hf.models.WordLevel({"</s>": 0, "a": 1}, unk_token="</s>")),
        "word piece": lambda: hf.Tokenizer(hf.models.WordPiece({"[UNK]": 0, "a": 1, "[SEP]": 2, "[": 3, "##S": 4}, unk_token="[UNK]")),
        "added end": lambda: hf.Tokenizer(hf.models.BPE({c: i for i, c in enumerate("</s>abX")}, [])),
    }[kind]()
    if kind in ("word", "unknown is end", "word piece"):
        model.pre_tokenizer = hf.pre_tokenizers.WhitespaceSplit()
    if kind == "added end":
        model.add_tokens(["<eos>", "</s>"])
    return tokenizers_of.hugging_face_tokenizer(model.to_str().encode())


@pytest.mark.parametrize("kind", ["bpe", "bpe of bytes", "merged end", "unigram", "word", "unknown is end", "word piece", "added end"])
def test_no_text_becomes_the_end_of_a_document(kind):
    tokenizer = foreign(kind)
    end = tokenizer.specials["document_end"]

    @settings(deadline=None, max_examples=60)
    @given(pieces=st.lists(st.sampled_from(["</s>", "[SEP]", "<|endoftext|>", "<eos>", "a", "b", " ", "\n", "☃", "<", "s>"]), max_size=8))
    @example(pieces=["</s>"])
    @example(pieces=["[SEP]", " ", "a"])
    @example(pieces=["a", " ", "</s>", " ", "</s>"])
    def check(pieces):
        text = "".join(pieces)
        ids = tokenizer.encode(text)
        assert end not in ids
        if kind in ("bpe of bytes", "merged end", "added end") and (kind == "bpe of bytes" or set(text) <= set("</s>ab")):
            assert tokenizer.decode_bytes(ids).decode().replace(" ", "") == text.replace(" ", "")

    check()


def test_what_no_id_stands_for_is_counted():
    tokenizer = foreign("bpe")
    ids = tokenizer.encode("Boat a☃☃b")
    assert "".join(map(tokenizer._model.id_to_token, ids)) == "oaab"
    assert tokenizer.lost == sum(c not in "aebo</" for c in "Boat a☃☃b")
    tokenizer = foreign("bpe of bytes")
    tokenizer.encode("Boat a☃☃b")
    assert tokenizer.lost == 0
    tokenizer = foreign("unigram")
    assert tokenizer.unknown == 0
    tokenizer = foreign("unknown is end")
    assert tokenizer.encode("a ☃ a").tolist() == [1, 1]
    assert (tokenizer.unknown, tokenizer.lost) == (None, 1)


def test_a_vocabulary_that_cannot_say_unknown_is_the_users_mistake():
    hf = pytest.importorskip("tokenizers")
    for model in (
        hf.models.WordLevel({"a": 0}, unk_token="<unk>"),
        hf.models.BPE({"a": 0}, [], unk_token="<unk>"),
        hf.models.WordPiece({"a": 0}, unk_token="[UNK]"),
        hf.models.Unigram([("a", 0.0)]),
    ):
        tokenizer = tokenizers_of.hugging_face_tokenizer(hf.Tokenizer(model).to_str().encode())
        with pytest.raises(UserError, match="cannot encode") as error:
            tokenizer.encode("b")
        assert str(error.value).count("\n") == 1


def test_another_sign_for_spaces_is_a_space_in_the_bytes():
    hf = pytest.importorskip("tokenizers")
    model = hf.Tokenizer(hf.models.BPE({"_": 0, "a": 1, "b": 2}, []))
    model.pre_tokenizer = hf.pre_tokenizers.Metaspace(replacement="_", prepend_scheme="never")
    model.decoder = hf.decoders.Metaspace(replacement="_", prepend_scheme="never")
    tokenizer = tokenizers_of.hugging_face_tokenizer(model.to_str().encode())
    ids = tokenizer.encode("a b  a")
    assert tokenizer.decode(ids) == tokenizer.decode_bytes(ids).decode() == "a b  a"


def test_spaces_around_added_tokens_stay():
    hf = pytest.importorskip("tokenizers")
    model = hf.Tokenizer.from_buffer(tokenizer_of("byte level").files["huggingface.json"])
    model.add_tokens([hf.AddedToken("boat", lstrip=True, rstrip=True)])
    tokenizer = tokenizers_of.hugging_face_tokenizer(model.to_str().encode())
    assert tokenizer.switched_off == ("added tokens that strip spaces: boat",)
    assert tokenizer._model.get_vocab() == model.get_vocab()
    ids = tokenizer.encode("the  boat  sails")
    assert model.token_to_id("boat") in ids
    assert tokenizer.decode(ids) == "the  boat  sails"
