"""What every family of models must hold: who sees whom, packing, padding, memory, sharing, caches."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.attention.dispatch import Mask, reference, xla
from model.config import ModelConfig
from model.decoding.beam import beam_search
from model.decoding.generate import generate
from model.decoding.quantize import quantize
from model.decoding.sampling import Sampling
from model.encoder_decoder import EncoderDecoder, SourceText
from model.encoder_decoder_config import EncoderDecoderConfig
from model.heads import Head, logits, score_tokens, vocabulary_table
from model.positions import Distances, distance_buckets, distance_scores
from model.stack import no_memory
from model.text_encoder import TextEncoder
from model.text_encoder_config import TextEncoderConfig
from model.transformer import Media
from tests.model.families import ALL, DECODERS, ENCODERS, FIRST, POSITIONS, RNG, SECOND, SEGMENTS, TOKENS, TRANSLATORS, forward, make


@pytest.mark.parametrize("name", ALL)
def test_packed_equals_separate_and_padding_changes_nothing(name):
    config = ALL[name]
    params, run = make(config)[1], forward(config)
    packed = run(params, TOKENS, SEGMENTS, POSITIONS)
    padded = np.pad(TOKENS[:, :FIRST], ((0, 0), (0, 12 - FIRST)), constant_values=9)
    first = run(params, padded, np.where(np.arange(12) < FIRST, 1, 0) * np.ones((2, 1), int), np.arange(12) * np.ones((2, 1), int))
    second = np.pad(TOKENS[:, FIRST:], ((0, 0), (0, FIRST)))
    second = run(params, second, np.where(np.arange(12) < SECOND, 1, 0) * np.ones((2, 1), int), np.arange(12) * np.ones((2, 1), int))
    np.testing.assert_allclose(packed[:, :FIRST], first[:, :FIRST], rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(packed[:, FIRST:], second[:, :SECOND], rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("name", ALL)
def test_what_sees_what_by_gradient(name):
    """A decoder's state has no derivative by a later token; an encoder's has one by every token of its text; both none by other texts."""
    config = ALL[name]
    model, params = make(config)
    tokens = jnp.arange(1, 9)[None]  # all different: each has a row of the table to itself
    segments, positions = jnp.array([[1] * 3 + [2] * 5]), jnp.array([[0, 1, 2, 0, 1, 2, 3, 4]])
    where = {"segments_BT": segments, "positions_BT": positions}
    if isinstance(model, EncoderDecoder):
        where["source"] = SourceText(tokens + 20, segments, positions)

    def hidden(table):
        output = model.apply({"params": params | {"embedding": {"table": table}}}, tokens, **where)
        return (output.hidden_BTD[0] * jnp.arange(1.0, 25.0)).sum(-1)  # a plain sum of what a norm gives is constant

    reach_TV = np.abs(jax.jit(jax.jacrev(hidden))(params["embedding"]["table"])).sum(-1)
    same_TS = np.asarray(segments[0][:, None] == segments[0])
    causal_TS = np.tril(np.ones((8, 8), bool))
    window = 1 + 2 * config.window if config.window else 9  # two local layers, and two that see all
    expected = same_TS if isinstance(model, TextEncoder) else same_TS & causal_TS
    assert window >= 5
    np.testing.assert_array_equal(reach_TV[:, 1:9] > 0, expected)
    if isinstance(model, EncoderDecoder):
        np.testing.assert_array_equal(reach_TV[:, 21:29] > 0, same_TS)


@pytest.mark.parametrize("config", [DECODERS["shared"], ENCODERS["albert"]], ids=["decoder", "encoder"])
@pytest.mark.parametrize("scan", [False, True])
def test_shared_layers_equal_a_stack_with_copies(config, scan):
    model, params = make(config)
    alone = dataclasses.replace(config, layer_groups=0)
    copies = jax.tree.map(lambda leaf: jnp.repeat(leaf, config.num_layers // config.layer_groups, 0), params["layers"])
    where = {"segments_BT": SEGMENTS, "positions_BT": POSITIONS}
    shared = type(model)(dataclasses.replace(config, scan=scan))
    found = jax.jit(lambda p: shared.apply({"params": p}, TOKENS, **where).hidden_BTD)(params)
    expected = jax.jit(lambda p: type(model)(alone).apply({"params": p}, TOKENS, **where).hidden_BTD)(params | {"layers": copies})
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    count = sum(leaf.size for leaf in jax.tree.leaves(params["layers"]))
    assert count * config.num_layers == config.layer_groups * sum(leaf.size for leaf in jax.tree.leaves(copies))


@pytest.mark.parametrize("name", DECODERS)
def test_a_cached_decoder_equals_the_full_pass(name):
    """Prompts of different lengths, right-aligned: the log-probabilities of what is drawn are those of the whole text at once."""
    config = DECODERS[name]
    model, params = make(config)
    lengths, prompt, new = jnp.array([6, 4]), 6, 5
    keys = jax.random.split(jax.random.key(1), 2)
    run = jax.jit(lambda params: generate(model, params, TOKENS[:, :prompt], lengths, keys, Sampling(), max_new_tokens=new))
    state = run(params)
    tokens, starts = np.asarray(state.tokens_BS), np.asarray(state.start_B)
    segments = np.where(np.arange(prompt + new) >= starts[:, None], 1, 0)
    positions = np.maximum(np.arange(prompt + new) - starts[:, None], 0)
    hidden = forward(config)(params, tokens, segments, positions)
    scores = score_tokens(Head(hidden[:, :-1], vocabulary_table(params)), tokens[:, 1:], softcap=config.logit_softcap)
    np.testing.assert_allclose(state.log_probs_BS[:, prompt:], -scores.nll[:, prompt - 1 :], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", TRANSLATORS)
def test_a_cached_translator_equals_the_full_pass_and_beams_find_the_best(name):
    """The source's keys and values are made once; sources of different lengths; beams hold as many rows as samples."""
    config = TRANSLATORS[name]
    model, params = make(config)
    new, sources = 3, np.pad(TOKENS[:, :5], ((0, 0), (0, 2)))
    held = np.array([[1] * 5 + [0] * 2, [1] * 3 + [0] * 4])
    source = SourceText(jnp.asarray(sources), jnp.asarray(held), jnp.broadcast_to(jnp.arange(7), (2, 7)))
    start, ones = jnp.full((2, 1), config.start_token), jnp.ones(2, jnp.int32)
    keys = jax.random.split(jax.random.key(1), 4)

    @jax.jit
    def drawn(params):
        reader = model.conditioned(params, source)
        sampled = generate(reader, params, start, ones, keys, Sampling(), max_new_tokens=new, samples=2)
        return sampled, beam_search(reader, params, start, ones, beams=3, max_new_tokens=new)

    @jax.jit
    def full(params, tokens):
        pairs = jax.tree.map(lambda x: jnp.repeat(x, len(tokens) // 2, 0), source)
        hidden = model.apply({"params": params}, tokens[:, :-1], segments_BT=jnp.ones_like(tokens[:, :-1]), source=pairs).hidden_BTD
        return -score_tokens(Head(hidden, vocabulary_table(params)), tokens[:, 1:]).nll

    sampled, found = drawn(params)
    np.testing.assert_allclose(sampled.log_probs_BS[:, 1:], full(params, sampled.tokens_BS), rtol=1e-3, atol=1e-4)
    best = found.tokens_BWS.reshape(6, -1)
    np.testing.assert_allclose(found.log_probs_BW.reshape(-1), full(params, best).sum(-1), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["distance", "relative", "ngrams_remembered"])
def test_memory_over_segments_equals_one_long_pass(name):
    """With room for all that went before, rows that follow one another give what one row of all of them gives; a text that ends is
    forgotten, and so is what lies behind the memory's end."""
    config = dataclasses.replace(DECODERS[name], context_length=8)
    model, params = make(config)
    length, rows = 4, 3
    segments = np.array([[1] * 12, [1] * 6 + [2] * 6])
    positions_BT = np.array([[*range(12)], [*range(6), *range(6)]])
    whole = forward(config)(params, TOKENS, segments, positions_BT)

    @jax.jit
    def step(params, memory, tokens, segments, positions):
        output = model.apply({"params": params}, tokens, segments_BT=segments, positions_BT=positions, memory=memory)
        return output.hidden_BTD, output.cache

    memory, short = no_memory(config, 2, 12), no_memory(config, 2, 2)
    for row in range(rows):
        part = slice(row * length, (row + 1) * length)
        numbers = segments[:, part] - segments[:, part][:, :1] + 1  # each row counts its segments anew
        hidden, memory = step(params, memory, TOKENS[:, part], numbers, positions_BT[:, part])
        np.testing.assert_allclose(hidden, whole[:, part], rtol=2e-4, atol=2e-5)
        forgetful, short = step(params, short, TOKENS[:, part], numbers, positions_BT[:, part])
    assert np.abs(forgetful[0] - whole[0, part]).max() > 1e-3


def test_memory_reaches_over_rows_with_media_in_them():
    """A picture whose places see one another, in a row that goes on from another: as in one row of both."""
    config = DECODERS["distance"]
    model, params = make(config)
    hidden = jnp.asarray(RNG.normal(size=(2, 2, 24)), jnp.float32)
    slots, groups = np.array([[0, 0, 0, 0, 0, 1, 2, 0]] * 2), np.array([[0, 1, 2, 3, 4, 5, 5, 6]] * 2)

    @jax.jit
    def read(params, part_slots, part_groups, memory, tokens, positions):
        where = {"segments_BT": jnp.ones_like(tokens), "positions_BT": positions}
        output = model.apply({"params": params}, tokens, **where, media=Media(hidden, part_slots, part_groups), memory=memory)
        return output.hidden_BTD, output.cache

    positions = np.arange(8) * np.ones((2, 1), int)
    whole, _ = read(params, slots, groups, None, TOKENS[:, :8], positions)
    memory = no_memory(config, 2, 4)
    for part in (slice(4), slice(4, 8)):
        found, memory = read(params, slots[:, part], groups[:, part], memory, TOKENS[:, :8][:, part], positions[:, part])
        np.testing.assert_allclose(found, whole[:, part], rtol=2e-4, atol=2e-5)
    alone, _ = read(params, slots, np.arange(8) * np.ones((2, 1), int), None, TOKENS[:, :8], positions)
    assert np.abs(alone - whole).max() > 1e-3  # the picture's places did see one another


def test_a_row_that_begins_a_text_forgets_what_was_open():
    """As where an epoch ends within a document: what is remembered had not ended, and still belongs to another text."""
    config = DECODERS["distance"]
    model, params = make(config)
    ones, begins = np.ones((2, 4), int), np.arange(4) * np.ones((2, 1), int)

    @jax.jit
    def read(params, tokens, positions, memory):
        output = model.apply({"params": params}, tokens, segments_BT=ones, positions_BT=positions, memory=memory)
        return output.hidden_BTD, output.cache

    fresh = no_memory(config, 2, 4)
    memory = read(params, TOKENS[:, :4], begins, fresh)[1]
    alone, _ = read(params, TOKENS[:, 4:8], begins, fresh)
    np.testing.assert_allclose(read(params, TOKENS[:, 4:8], begins, memory)[0], alone, rtol=1e-5, atol=1e-6)
    assert np.abs(read(params, TOKENS[:, 4:8], begins + 4, memory)[0] - alone).max() > 1e-3


@pytest.mark.parametrize("rows, offset", [(1, None), (2, None), (1, 3), (2, 3)])
def test_a_bias_of_scores_has_the_gradient_of_the_reference(rows, offset):
    """Of one bias for all rows or of each, with grouped keys, and where keys stand before the first query."""
    queries, keys = 5, 5 if offset is None else 8
    shapes = ((queries, 4), (keys, 2), (keys, 2), (queries, 4))
    q, k, v, probe = (jnp.asarray(RNG.normal(size=(2, length, heads, 4)), jnp.float32) for length, heads in shapes)
    bias = jnp.asarray(RNG.normal(size=(rows, 4, queries, keys)), jnp.float32)
    mask = Mask(causal=True, query_segments_BT=jnp.ones((2, queries), int), key_segments_BS=jnp.ones((2, keys), int), offset=offset)

    def gradients(kernel):
        return jax.jit(jax.grad(lambda *those: (kernel(*those[:3], mask, 0.0, those[3]) * probe).sum(), (0, 1, 2, 3)))(q, k, v, bias)

    for found, expected in zip(gradients(xla), gradients(reference), strict=True):
        assert np.abs(expected).max() > 1e-3
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_no_gradient_flows_into_memory():
    config = DECODERS["distance"]
    model, params = make(config)
    ones, where = np.ones((2, 4), int), np.arange(4) * np.ones((2, 1), int)

    def second(table):
        first = params | {"embedding": {"table": table}}
        memory = model.apply({"params": first}, TOKENS[:, :4], segments_BT=ones, positions_BT=where, memory=no_memory(config, 2, 4)).cache
        later = {"segments_BT": ones, "positions_BT": where + 4}
        return model.apply({"params": params}, TOKENS[:, 4:8], **later, memory=memory).hidden_BTD[..., :12].sum()

    value, gradient = jax.jit(jax.value_and_grad(second))(params["embedding"]["table"])
    changed = jax.jit(second)(params["embedding"]["table"][::-1])
    assert (gradient == 0).all() and abs(changed - value) > 1e-4


def test_the_relative_shift_equals_a_loop():
    """The reshape of training, and the gather of decoding, against the definition, one pair at a time."""
    queries, keys, heads, width = 3, 7, 2, 4
    q, r = RNG.normal(size=(1, queries, heads, width)), RNG.normal(size=(keys, heads, width))  # r[j] belongs to distance keys - 1 - j
    for offset in (None, 2):
        first = keys - queries if offset is None else offset
        found = distance_scores(jnp.asarray(q, jnp.float32), jnp.asarray(r, jnp.float32), Distances(None, offset))
        for t in range(queries):
            for s in range(first + t + 1):
                expected = np.einsum("hk,hk->h", q[0, t], r[keys - 1 - (first + t - s)]) / math.sqrt(width)
                np.testing.assert_allclose(found[0, :, t, s], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("both_ways", [True, False])
def test_distance_buckets_are_those_of_the_paper(both_ways):
    """Half of the buckets hold one distance each, the rest grow by a constant factor; the last holds all that are further."""
    distance = np.arange(-200, 201)
    bucket = np.asarray(distance_buckets(jnp.asarray(distance), 32, 128, both_ways=both_ways))
    behind = bucket[distance >= 0]
    half = 8 if both_ways else 16
    assert (behind[:half] == np.arange(half)).all() and (np.diff(behind) >= 0).all()
    assert (behind[128:] == (15 if both_ways else 31)).all() and behind[90] < behind[128]
    edges = np.flatnonzero(np.diff(behind[half:128])) + half + 1
    ratio = (128 / half) ** (1 / half)
    np.testing.assert_allclose(edges, half * ratio ** np.arange(1, len(edges) + 1), atol=1.0)
    before = bucket[distance < 0][::-1]
    assert (before == (behind[1 : len(before) + 1] + 16 if both_ways else 0)).all()


def test_the_prediction_head_is_in_the_vocabulary_pass():
    """Transform, norm, tied table and bias, by chunks: values and gradients of the logits written out."""
    config = ENCODERS["albert"]
    model, params = make(config)
    hidden = forward(config)(params, TOKENS, SEGMENTS, POSITIONS)

    def nats(params, chunk):
        return score_tokens(model.predictions(params, hidden), TOKENS, chunk=chunk).nll.sum()

    def written_out(params):
        head = model.predictions(params, hidden)
        x = logits(Head(head.hidden_BTD, head.table_VD)) + params["prediction"]["bias"]
        return -jnp.take_along_axis(jax.nn.log_softmax(x), TOKENS[..., None], -1).sum()

    expected = jax.jit(jax.value_and_grad(written_out))(params)
    for chunk in (0, 5):
        found = jax.jit(jax.value_and_grad(functools.partial(nats, chunk=chunk)))(params)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected)


def test_the_pooler_reads_the_first_token_of_each_text():
    config = ENCODERS["bert"]
    model, params = make(config)
    hidden = forward(config)(params, TOKENS, SEGMENTS, POSITIONS)
    found = model.pooled(params, hidden, jnp.asarray(SEGMENTS), jnp.asarray(POSITIONS), 3)
    dense = params["pooler"]["dense"]
    np.testing.assert_allclose(found[:, 1], np.tanh(hidden[:, FIRST] @ dense["kernel"] + dense["bias"]), rtol=1e-4, atol=1e-5)
    assert (found[:, 2] == 0).all()


@pytest.mark.parametrize("name", ["DECODERS-distance", "DECODERS-relative", "DECODERS-shared", "ENCODERS-albert", "TRANSLATORS-t5"])
def test_eight_bits_are_near_and_leave_small_tables_alone(name):
    """Kernels and vocabulary tables alone are rounded, those of an encoder beside the decoder too."""
    config = ALL[name]
    params, run = make(config)[1], forward(config)
    rounded = quantize(params)
    kinds: dict = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(rounded):
        kinds.setdefault("/".join(key.key for key in path if hasattr(key, "key")), leaf.dtype)  # a rounded matrix has its values first
    assert {path for path, kind in kinds.items() if kind == jnp.int8} == {
        path for path in kinds if path.endswith("kernel") or path in ("embedding/table", "head/table")
    }
    exact, found = (run(tree, TOKENS, SEGMENTS, POSITIONS) for tree in (params, rounded))
    assert jnp.linalg.norm(found - exact) < 0.1 * jnp.linalg.norm(exact)


def test_prefixes_see_both_ways():
    """Groups: a prefix is one group, each token after it one of its own."""
    config = DECODERS["sinusoidal"]
    model, params = make(config)
    groups = jnp.array([[0, 0, 0, 0, 1, 2, 3, 4]])
    tokens = jnp.arange(1, 9)[None]

    def hidden(table):
        output = model.apply(
            {"params": params | {"embedding": {"table": table}}}, tokens, segments_BT=jnp.ones((1, 8), int), groups_BT=groups
        )
        return (output.hidden_BTD[0] * jnp.arange(1.0, 25.0)).sum(-1)

    reach_TS = np.abs(jax.jit(jax.jacrev(hidden))(params["embedding"]["table"]))[:, 1:9].sum(-1)
    np.testing.assert_array_equal(reach_TS > 0, np.asarray(groups[0][:, None] >= groups[0]))


@pytest.mark.parametrize(
    "config, changes, message",
    [
        (ModelConfig, {"layer_groups": 5}, "does not divide"),
        (ModelConfig, {"parallel_norms": 2}, "belongs to model.parallel"),
        (ModelConfig, {"positions": "rotary", "rotary_share": 0.01}, "must be even"),
        (ModelConfig, {"distance_limit": 5}, "belongs to model.positions distance"),
        (TextEncoderConfig, {"window": 4}, "sees both ways"),
        (EncoderDecoderConfig, {"parallel": True}, "one after the other"),
        (TextEncoderConfig, {"positions": "distance"}, "causal"),
        (ModelConfig, {"ngrams": 1}, "must be 2 or more"),
        (TextEncoderConfig, {"ngrams": 2}, "of a decoder"),
        (EncoderDecoderConfig, {"ngrams": 2}, "of a decoder"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(config, changes, message):
    with pytest.raises(ValueError, match=message):
        config(**changes)


def test_a_memory_needs_positions_that_tell_of_it():
    """Rotary ones count from the start of a text, where what is remembered does not."""
    config = DECODERS["qwen2"]
    model, params = make(config)
    with pytest.raises(ValueError, match="say nothing of what is remembered"):
        model.apply({"params": params}, TOKENS, segments_BT=SEGMENTS, positions_BT=POSITIONS, memory=no_memory(config, 2, 4))
