"""Text from prompts: what is drawn depends on the prompt, its place and the seed alone, and stops where it should."""

import functools
import itertools
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data.errors import UserError
from data.tokenizer import character_tokenizer
from model.config import ModelConfig
from model.decoding.sampling import Sampling
from model.encoder_decoder import EncoderDecoder
from model.encoder_decoder_config import EncoderDecoderConfig
from model.heads import Head, logits, vocabulary_table
from model.media.multimodal_config import MultimodalConfig
from model.transformer import Decoder, abstract_parameters
from train.experiment import Experiment
from train.generation.embeddings import load_embedder
from train.generation.text import CHUNK, SHARED, Completion, TextGenerator, _extend, decoder_of
from train.objectives.text.options import PrefixLM
from train.verbs.generate import _stream

CONTEXT = 2 * CHUNK
ALPHABET = character_tokenizer("abcdefghijklmnopqrstuvwxyz ")
END = ALPHABET.specials["document_end"]


def make(vocabulary: int, context: int = CONTEXT):
    """A model whose weights are large enough that its predictions differ from place to place."""
    config = ModelConfig(vocab_size=vocabulary, context_length=context, num_layers=1, embed_dim=16, num_heads=2)
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.4, leaf.shape), jnp.float32), nn.unbox(abstract_parameters(config)))
    return Decoder(config), params


@pytest.fixture(scope="module")
def letters():
    """A generator that knows no documents."""
    return TextGenerator(*make(END + 1), ALPHABET, None)


@pytest.fixture(scope="module")
def documents():
    """A generator that can end a document, and begin one."""
    return TextGenerator(*make(END + 1), ALPHABET, END)


class Halves:
    """A tokenizer of which two ids are the halves of one character."""

    pieces = [bytes([letter]) for letter in b"abcdefghijklmnopqrstuvwxyz"] + [b"\xc3", b"\xa9"]
    base_size = len(pieces)

    def encode(self, text: str):
        return np.array([self.pieces.index(bytes([byte])) for byte in text.encode()])

    def decode(self, ids) -> str:
        return b"".join(self.pieces[number] for number in ids).decode("utf-8", "replace")


@pytest.fixture(scope="module")
def halves():
    return TextGenerator(*make(len(Halves.pieces)), Halves(), None)


PROMPTS = ["o", "u", "t"]
PLAIN = {"tokens": 2 * CHUNK - 1, "sampling": Sampling(), "seed": 5}


@pytest.fixture(scope="module")
def text(letters):
    """What the first of three prompts goes on with when nothing stops it."""
    found = letters.generate(PROMPTS, **PLAIN)
    assert all(len(one.ids) == 2 * CHUNK - 1 and one.finish == "length" for one in found)
    return found[0].text


def until(letters, *stop: str) -> Completion:
    return letters.generate(PROMPTS, stop=stop, **PLAIN)[0]


@pytest.mark.parametrize("start, length", [(4, 3), (CHUNK - 2, 4), (CHUNK - 1, 2), (CHUNK, 3), (50, 3)])
def test_a_stop_string_ends_a_text_before_it(letters, text, start, length):
    """Also one of which the first letters come with one chunk of tokens and the last with the next."""
    stop = text[start : start + length]
    found = until(letters, stop)
    assert found.text == text[: text.index(stop)]
    assert found.finish == "stop"


def test_a_stop_string_in_leading_space_can_be_passed_over(letters, text):
    """What a chat model begins its answer with is no end of it."""
    spaces = letters.generate(PROMPTS, stop=(" ",), stop_in_space=False, **PLAIN)
    whole = letters.generate(PROMPTS, **PLAIN)
    for found, free in zip(spaces, whole, strict=True):
        first = len(free.text) - len(free.text.lstrip())
        assert found.text == free.text[:first] + free.text[first:].split(" ")[0]


def test_the_first_of_several_stop_strings_counts(letters, text):
    found = until(letters, text[20:24], text[9:12], text[15:30], "no such thing")
    assert found.text == text[: text.index(text[9:12])]
    assert until(letters, "no such thing").text == text


def test_a_stop_string_ends_its_own_row_only(letters, text):
    stop = text[6:10]
    free = letters.generate(PROMPTS, **PLAIN)[1]
    stopped, found, _ = letters.generate(PROMPTS, stop=(stop,), **PLAIN)
    assert stopped.finish == "stop" and stop not in free.text
    assert found.ids == free.ids and found.text == free.text and found.finish == "length"


@functools.partial(jax.jit, static_argnums=0)
def predict(model, params, row_T, last):
    """Log-probabilities of the token after place `last`, without a cache."""
    hidden_BTD = model.apply({"params": params}, row_T[None]).hidden_BTD
    return jax.nn.log_softmax(logits(Head(hidden_BTD[0, last], vocabulary_table(params))))


def naive(generator: TextGenerator, prompt: list[int], tokens: int):
    """Greedy decoding without a cache: the whole text again for each token; its last half each time it fills the context."""
    window, ids, log_probs = [], list(prompt), []
    for place in range(len(prompt) + tokens):
        if len(window) == CONTEXT:
            window = window[-(CONTEXT // 2) :]
        if place >= len(prompt):
            row_T = np.pad(np.array(window, np.int32), (0, CONTEXT - len(window)))
            log_p_V = np.asarray(predict(generator._model, generator._params, row_T, len(window) - 1))
            ids.append(int(log_p_V.argmax()))
            log_probs.append(float(log_p_V.max()))
        window.append(ids[place])
    return ids[len(prompt) :], log_probs


@pytest.mark.parametrize("prompt", ["abc", "the quick brown fox jumps over the lazy dog and then sleeps all day long by the river"])
def test_a_text_longer_than_the_context_goes_on_from_its_last_half(letters, prompt):
    """Prompts shorter and longer than the context, three contexts of new text: equal to decoding without any cache."""
    greedy = Sampling(temperature=0.0)
    found = letters.generate([prompt, "x", "y"], tokens=3 * CONTEXT, sampling=greedy, seed=0)[0]
    ids, log_probs = naive(letters, ALPHABET.encode(prompt).tolist(), 3 * CONTEXT)
    assert list(found.ids) == ids
    np.testing.assert_allclose(found.log_probs, log_probs, atol=1e-4)
    assert found.text == ALPHABET.decode(ids) and found.finish == "length"


def test_the_seed_decides_what_is_drawn(letters, text):
    def draw(seed):
        return letters.generate(PROMPTS, **PLAIN | {"seed": seed})[0].text

    assert draw(5) == text
    assert len({draw(seed) for seed in range(4)} | {text}) == 5


@pytest.mark.parametrize(
    "others",
    [["a", "b"], ["once ", "once "], ["a", "the quick brown fox jumps over the lazy dog " * 2]],
    ids=["short", "same", "long"],
)
def test_a_text_does_not_depend_on_the_other_prompts(letters, others):
    """Whatever stands in the other rows, and however long it is, a prompt in the same place gets the same text."""
    options = PLAIN | {"tokens": 100}
    expected = letters.generate(["once ", "who ", "knows "], **options)[0]
    found = letters.generate(["once ", *others], **options)[0]
    assert found.ids == expected.ids
    np.testing.assert_allclose(found.log_probs, expected.log_probs, atol=1e-4)


def test_a_text_depends_on_its_own_pair_of_numbers(letters):
    """What a seed draws in a place it also draws beside the texts of other seeds."""
    first, second = (letters.generate(["once ", "who "], **PLAIN | {"seed": seed}) for seed in (3, 4))
    mixed = letters.generate(["who ", "once ", "who "], **PLAIN, draws=[(4, 1), (4, 0), (3, 1)])
    assert [one.ids for one in mixed] == [second[1].ids, second[0].ids, first[1].ids] and first[1].ids != second[1].ids


def test_what_prompts_share_is_read_once_and_changes_nothing(monkeypatch):
    """Rests of several lengths, settings that look at the prompt, and texts that outgrow the context."""
    generator = TextGenerator(*make(END + 1, 4 * CHUNK), ALPHABET, None)
    shared = np.random.default_rng(0).integers(0, 26, SHARED + 9).tolist()
    prompts = [[*shared, 1], [*shared, 2, 3, 4], [*shared, *range(20)], [*shared, 1, 2]]
    options = {"tokens": 70, "sampling": Sampling(temperature=0.8, repetition_penalty=1.2, frequency_penalty=0.3), "seed": 5}
    read = []
    monkeypatch.setattr("train.generation.text._extend", lambda *arguments: (read.append(arguments[3].shape), _extend(*arguments))[1])
    together = generator.generate(prompts, **options)
    assert read[0] == (4, CHUNK)
    for row, (prompt, one) in enumerate(zip(prompts, together, strict=True)):
        (alone,) = generator.generate([prompt], draws=[(options["seed"], row)], **options)
        assert one.ids == alone.ids and len(one.ids) == 70
        np.testing.assert_allclose(one.log_probs, alone.log_probs, atol=1e-4)


def test_no_draw_is_made_twice(letters):
    """A model to which all tokens are alike shows the randomness itself: where the context was full, it does not begin again."""
    blank = TextGenerator(letters._model, jax.tree.map(jnp.zeros_like, letters._params), ALPHABET, None)
    ids = blank.generate(PROMPTS, tokens=3 * CONTEXT, sampling=Sampling(), seed=5)[0].ids
    half = CONTEXT // 2
    first, *others = (ids[start : start + half] for start in range(CONTEXT - 5, len(ids) - half, half))
    assert len(others) >= 2 and all(sum(map(int.__eq__, first, other)) < half / 4 for other in others)


def test_two_rows_of_one_prompt_differ(letters):
    found = letters.generate(["once "] * 3, **PLAIN)
    assert len({one.text for one in found}) == 3


def test_an_empty_prompt_begins_a_document_where_there_are_documents(letters, documents):
    found = documents.generate(["", "a", "b"], **PLAIN)[0]
    assert found.ids
    with pytest.raises(UserError, match="an empty prompt"):
        letters.generate(["", "a", "b"], **PLAIN)


def test_a_text_ends_with_its_document(documents):
    """The end is one of the ids and none of the text; what was drawn without it has the full length."""
    found = [one for seed in range(8) for one in documents.generate(["", "a", "b"], **PLAIN | {"seed": seed, "tokens": 35})]
    ended = [one for one in found if one.finish == "stop"]
    assert ended and len(ended) < len(found)
    for one in found:
        assert len(one.ids) == len(one.log_probs) <= 35 and max(one.log_probs) <= 0
        assert (one.ids[-1] == END) == (one.finish == "stop") and END not in one.ids[:-1]
        assert one.text == ALPHABET.decode(one.ids) and len(one.text) == len(one.ids) - (one.finish == "stop")
        assert one.finish == "stop" or len(one.ids) == 35


def test_what_is_streamed_grows_into_what_is_generated(letters, halves):
    """Nothing that was shown is taken back, half characters at the end left aside: the second model draws many of those."""
    for generator, prompts, tokens in ((letters, PROMPTS, 100), (halves, ["é", "été", "a"], 100)):
        parts = list(generator.stream(prompts, **PLAIN | {"tokens": tokens}))
        assert len(parts) >= 2
        for row, last in enumerate(parts[-1]):
            assert len(last.ids) == tokens
            for before, after in itertools.pairwise(part[row] for part in parts):
                assert after.text.startswith(before.text.rstrip("\ufffd"))
                assert after.ids[: len(before.ids)] == before.ids
                assert after.log_probs[: len(before.log_probs)] == before.log_probs
        assert any("\ufffd" in one.text for one in parts[-1]) == (generator is halves)
        assert parts[-1] == generator.generate(prompts, **PLAIN | {"tokens": tokens})


@pytest.mark.parametrize("cut", range(1, 4))
def test_half_a_character_is_not_shown(cut, capsys):
    """A stream that stops inside a character, and goes on."""
    whole = "sm\N{GRINNING FACE}le".encode()
    texts = [whole[: 2 + cut].decode("utf-8", "replace"), whole.decode()]
    _stream([[Completion("> ", text, (), (), finish)] for text, finish in zip(texts, ("", "length"), strict=True)], ())
    assert capsys.readouterr().out == "> sm\N{GRINNING FACE}le\n"


def test_the_beginning_of_a_stop_string_is_not_shown(capsys):
    """The text ends in what may become the stop string: once it does, once it does not."""
    for texts, shown in ((("one\nEN", "one\n"), "one\n"), (("one\nEN", "one\nENOUGH"), "one\nENOUGH")):
        _stream([[Completion("", text, (), (), finish)] for text, finish in zip(texts, ("", "stop"), strict=True)], ("END",))
        assert capsys.readouterr().out == shown + "\n"


def test_an_id_that_the_model_has_no_row_for_is_refused():
    small = TextGenerator(Decoder(ModelConfig(vocab_size=3, embed_dim=8, num_heads=1)), {}, ALPHABET, None)
    with pytest.raises(UserError, match=r"token id 26; the model has 3"):
        small.generate(["z"], **PLAIN)


@pytest.fixture(scope="module")
def filler():
    """A generator whose model has rows for the ids that mark a gap."""
    return TextGenerator(*make(ALPHABET.size), ALPHABET, END)


def test_a_gap_is_filled_in_the_order_of_training(filler):
    """What stands before the middle in a rearranged segment is the prompt: equal to decoding that without a cache, to the end."""
    markers = (ALPHABET.specials[name] for name in ("fim_prefix", "fim_suffix", "fim_middle"))
    before, after, gap = ([marker] for marker in markers)
    for prompt, suffix in (("once ", " a time"), ("", "end"), ("begin", ""), ("the ", "dog")):
        (found,) = filler.generate([prompt], suffix=suffix, tokens=12, sampling=Sampling(temperature=0.0), seed=0)
        line = before + ALPHABET.encode(prompt).tolist() + after + ALPHABET.encode(suffix).tolist() + gap
        ids, log_probs = naive(filler, line, 12)
        ids = ids[: ids.index(END) + 1] if END in ids else ids
        assert list(found.ids) == ids
        np.testing.assert_allclose(found.log_probs, log_probs[: len(ids)], atol=1e-4)
        assert found.prompt == prompt and found.text == ALPHABET.decode(ids)
        assert found.finish == ("stop" if ids[-1] == END else "length")


def test_a_gap_is_filled_within_the_context(filler, letters):
    """Nothing of either side is dropped for it."""
    options = PLAIN | {"tokens": 99, "suffix": "y" * 40}
    found = [filler.generate(["x" * 10] * 3, **options | {"seed": seed}) for seed in range(4)]
    lengths = [len(one.ids) for group in found for one in group]
    assert max(lengths) == CONTEXT - 10 - 40 - 3
    with pytest.raises(UserError, match="64 tokens, which leaves no room"):
        filler.generate(["x" * (CONTEXT - 43)], **options)
    with pytest.raises(UserError, match="no document ends"):
        letters.generate(["x"], **options)


def test_only_the_middle_is_shown(capsys):
    _stream([[Completion("before", text, (), (), finish)] for text, finish in (("mid", ""), ("middle", "stop"))], (), alone=True)
    assert capsys.readouterr().out == "middle\n"


def test_a_search_finds_texts_at_least_as_likely_as_greedy_ones(documents):
    """Both end where the document ends, or after as many tokens."""
    prompts = ["abc", "x"]
    found = documents.search(prompts, tokens=6, beams=4, samples=2)
    greedy = documents.generate(prompts, tokens=6, sampling=Sampling(temperature=0.0), seed=0)

    def log_probability(completion):
        ids = [END, *ALPHABET.encode(completion.prompt).tolist(), *completion.ids]
        output = Decoder(documents._model.config).apply({"params": documents._params}, jnp.asarray([ids[:-1]]))
        scores = jax.nn.log_softmax(logits(Head(output.hidden_BTD, vocabulary_table(documents._params))))[0]
        return sum(float(scores[len(ids) - 1 - n, ids[-n]]) for n in range(1, len(completion.ids) + 1))

    for row in range(2):
        best, second = found[row]
        assert log_probability(best) >= log_probability(second) - 1e-4
        assert log_probability(best) >= log_probability(greedy[row]) - 1e-4
    with pytest.raises(UserError, match="do not fit the context"):
        documents.search(prompts, tokens=CONTEXT, beams=2)


BOTH = EncoderDecoderConfig(vocab_size=END + 2, context_length=CONTEXT, num_layers=1, embed_dim=16, num_heads=2, start_token=END + 1)


def test_what_needs_a_text_to_read_is_refused_where_there_is_none():
    run = SimpleNamespace(path="runs/t5", experiment=Experiment(model=BOTH, objective=PrefixLM()))
    assert decoder_of(run, reads=True).config == BOTH
    with pytest.raises(UserError, match="EncoderDecoderConfig writes of a text that it reads first"):
        decoder_of(run)


@pytest.mark.parametrize("model", [BOTH, MultimodalConfig(vocab_size=END + 1)], ids=["source", "media"])
def test_no_vectors_of_what_reads_more_than_a_text(model):
    run = SimpleNamespace(path="runs/t5", experiment=Experiment(model=model, objective=PrefixLM()))
    with pytest.raises(UserError, match=f"{type(model).__name__} has no vectors"):
        load_embedder(run)


def test_a_text_that_is_read_is_read_whole_and_the_answer_fits_the_context():
    model, rng = EncoderDecoder(BOTH), np.random.default_rng(1)
    shapes = nn.unbox(jax.eval_shape(model.start, jax.random.key(0)))
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.4, leaf.shape), jnp.float32), shapes)
    generator = TextGenerator(model, params, ALPHABET, END)
    greedy = {"tokens": 3 * CONTEXT, "sampling": Sampling(temperature=0.0), "seed": 0}
    prompt = "once upon"
    text, ids, less = generator.generate([prompt, ALPHABET.encode(prompt).tolist(), ALPHABET.encode(prompt[1:]).tolist()], **greedy)
    assert ids.ids == text.ids and ids.log_probs == pytest.approx(text.log_probs, abs=1e-4)
    assert abs(less.log_probs[0] - text.log_probs[0]) > 1e-3
    endless = TextGenerator(model, params, ALPHABET, None).generate([prompt], **greedy)[0]
    assert endless.finish == "length" and len(endless.ids) == CONTEXT - 1
    assert generator.generate([""], **greedy | {"tokens": 1})[0].ids
    with pytest.raises(UserError, match=f"the text to read is {CONTEXT + 1} tokens"):
        generator.generate(["x" * CONTEXT], **greedy)
