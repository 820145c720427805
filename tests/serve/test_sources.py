"""Models that read a text before they write one, and those that know distances alone: served as `omnia generate` writes them."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.config import ModelConfig
from model.decoding.sampling import Sampling
from model.encoder_decoder import Conditioned
from model.encoder_decoder_config import EncoderDecoderConfig
from model.stack import unstack_layers
from model.transformer import abstract_parameters
from serve.jobs import Job
from serve.programs import Programs
from serve.protocol import Refused, completion_request
from serve.served import Served
from serve.sources import SourcePrompts
from tests.serve.conftest import END, TOKENIZER, run
from train.generation.chat import Chat
from train.generation.text import TextGenerator
from train.kinds import realise

CONTEXT, CHUNK = 64, 16
SHAPE = {"vocab_size": 320, "context_length": CONTEXT, "num_layers": 2, "embed_dim": 32, "num_heads": 2}
TRANSLATOR = EncoderDecoderConfig(**SHAPE, positions="relative", relative_buckets=8, relative_distance=20, start_token=END)
SOURCES = ("ab", "a text that is longer than the shortest of them", "c", "once more", "x" * 62, "")


def generator_of(config: ModelConfig) -> TextGenerator:
    rng = np.random.default_rng(3)
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.3, leaf.shape), jnp.float32), nn.unbox(abstract_parameters(config)))
    return TextGenerator(realise(config), unstack_layers(params), TOKENIZER, END)


@pytest.fixture(scope="module")
def generator():
    return generator_of(TRANSLATOR)


@pytest.fixture(scope="module")
def prompts(generator):
    return SourcePrompts(generator, CONTEXT)


@pytest.fixture(scope="module")
def served(generator, prompts):
    return Served("translator", generator, TOKENIZER, Chat(), size=CONTEXT, reader=prompts)


def programs_of(config: ModelConfig, generator: TextGenerator, **options) -> Programs:
    model = realise(config)
    shape = {"size": CONTEXT, "chunk": CHUNK, "rows": 2} | options
    made = Programs(Conditioned(model) if generator.answers else model, generator.params, **shape)
    made.compile()
    return made


@pytest.mark.parametrize("exact", [True, False])
def test_what_is_written_of_a_text_is_what_the_generator_writes(generator, prompts, make_engine, exact):
    """Sources of all lengths, beside one another and again, where other sources have lain before; greedy, drawn, penalised, guessed."""
    widths = (3,) if exact else (1, 3)
    programs = programs_of(
        TRANSLATOR, generator, widths=widths, exact=exact, reader=prompts, guesses=0 if exact else 2, size=CONTEXT + CHUNK
    )
    samplings = Sampling(temperature=0.0), Sampling(temperature=0.9), Sampling(repetition_penalty=1.3, frequency_penalty=0.4)
    wanted = [(source, samplings[place % 3], place) for place, source in enumerate(SOURCES)]
    expected = [
        generator.generate([source], tokens=20, sampling=dataclasses.replace(sampling, among=(0, 1 << 20)), seed=seed)[0]
        for source, sampling, seed in wanted
    ]

    def jobs():
        for source, sampling, seed in wanted:
            prompt = prompts.prompt([{"type": "text", "text": source}], "prompt")
            yield Job(prompt.ids, dataclasses.replace(sampling, stop_ids=(END,)), seed, 20, whole=prompt.whole, source=prompt.source)

    with make_engine(programs=programs) as parts:
        found = [*run(parts.engine, [*jobs()]), *run(parts.engine, [*jobs()][::-1])[::-1]]
        assert len(parts.prefixes) == 0
    for (ids, log_probs, finish), one, (_, sampling, _) in zip(found, expected * 2, wanted * 2, strict=True):
        assert tuple(ids) == one.ids and finish == one.finish
        if sampling.temperature in (0.0, 1.0):
            np.testing.assert_allclose(log_probs, one.log_probs, atol=1e-4)
    assert len({tuple(ids) for ids, *_ in found}) == len(SOURCES), "each source has an answer of its own"


def test_a_source_counts_as_the_prompt(served):
    prompt = served.prompt("abc")
    assert prompt.tokens == [*b"abc", END] and prompt.ids == [END] and prompt.whole.tokens_BS.shape == (1, 4)
    assert served.prompt([*b"abc"]).tokens == prompt.tokens
    request = completion_request({"prompt": "abc", "max_tokens": 5})
    job = served.job(prompt, request, served.sampling(request), 5, 0, 0, "")
    assert (job.prompt_tokens, job.places, job.cost) == (4, 6, 9)
    assert served.room(prompt.ids, None, None, "prompt") == CONTEXT - 1


def test_what_cannot_be_read_is_refused(served):
    with pytest.raises(Refused, match="65 tokens, and 64 are read"):
        served.prompt("x" * 64)
    request = completion_request({"prompt": "abc", "max_tokens": 5, "echo": True, "logprobs": 1})
    with pytest.raises(Refused, match="in one piece"):
        served.job(served.prompt("abc"), request, served.sampling(request), 5, 0, 0, "")


def test_distances_count_from_each_slots_own_place(make_engine):
    """A Transformer-XL's positions: texts of different lengths beside one another."""
    config = ModelConfig(**SHAPE, positions="distance", tied_embeddings=False)
    generator = generator_of(config)
    texts = [b"ab", b"a longer text than that, which is read in chunks", b"c"]
    expected = [
        generator.generate([[*text]], tokens=10, sampling=Sampling(temperature=0.0, among=(0, 1 << 20)), seed=0)[0] for text in texts
    ]
    with make_engine(programs=programs_of(config, generator, widths=(1, 3))) as parts:
        found = run(parts.engine, [Job([*text], Sampling(temperature=0.0, stop_ids=(END,)), 0, 10) for text in texts])
    assert [tuple(ids) for ids, *_ in found] == [one.ids for one in expected]


def test_an_answer_begins_without_the_space_of_a_first_word(prompts):
    from serve.text import TextWriter

    pieces = [b" Hello", b" there", b"", b"x"]
    writer = TextWriter(pieces, tokens=False, without_space=True)
    assert writer.feed([2], [0.0]).text + writer.feed([0, 1], [0.0, 0.0]).text + writer.finish().text == "Hello there"
    writer = TextWriter(pieces, ("there",), without_space=True)
    shown, rest = writer.feed([0, 0], [0.0, 0.0]), writer.finish()
    assert shown.text + rest.text == "Hello Hello"
    assert [token.begins for token in (*shown.tokens, *rest.tokens)] == [True, False]
