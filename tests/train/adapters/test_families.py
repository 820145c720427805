"""Adapters stand beside the parameters of any family of models, which computes with them what it should."""

import dataclasses
import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from data.errors import UserError
from model.attention.dispatch import Mask
from model.decoding.generate import generate
from model.decoding.quantize import Quantized, product
from model.decoding.sampling import Sampling
from model.encoder_decoder import Encoder, SourceText
from model.heads import Head, score_tokens, vocabulary_table
from model.text import vectors_of
from model.text_encoder import TextEncoder
from tests.model.families import ALL, DECODERS, POSITIONS, RNG, SEGMENTS, TOKENS, forward, make
from train.adapters.low_rank import NAME, merged
from train.adapters.method import begins, found_at, overlaid, projections
from train.adapters.options import AdaLoRA, BitFit, Houlsby, LoRA, Prefix, Prompt
from train.adapters.together import for_rows, side_by_side
from train.kinds import realise

BESIDE = (LoRA(rank=2), Houlsby(width=3), Prefix(length=2))


def method_of(options, config):
    return realise(options, SimpleNamespace(model=config))


@functools.cache
def boxed(config):
    return flatten_dict(jax.eval_shape(make(config)[0].start, jax.random.key(0)))


def leaves_of(options, config, *, spread: float = 0.0):
    """Fresh leaves of adapters, or all random ones."""
    rng = np.random.default_rng(5)
    fresh = nn.unbox(unflatten_dict(method_of(options, config).fresh(jax.random.key(1), boxed(config))))
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, spread, leaf.shape), jnp.float32), fresh) if spread else fresh


def laid_over(config, *options, spread: float = 0.0):
    """All parameters, with what each kind lays over them."""
    params = make(config)[1]
    for one in options:
        params = method_of(one, config).joined(params, leaves_of(one, config, spread=spread))
    return params


@pytest.mark.parametrize("name", ALL)
def test_nothing_changes_at_the_start_and_merged_equals_unmerged(name):
    """Of terms of low rank and bottlenecks; merged parameters have the tree of the plain model."""
    config = ALL[name]
    params, run = make(config)[1], forward(config)
    plain = run(params, TOKENS, SEGMENTS, POSITIONS)
    np.testing.assert_allclose(run(laid_over(config, *BESIDE[:2]), TOKENS, SEGMENTS, POSITIONS), plain, rtol=1e-5, atol=1e-6)
    apart = laid_over(config, BESIDE[0], spread=0.1)
    whole = overlaid(apart, leaves_of(BESIDE[1], config))
    found = run(whole, TOKENS, SEGMENTS, POSITIONS)
    assert np.abs(found - plain).max() > 1e-2
    joined = merged(apart)
    assert jax.tree.structure(joined) == jax.tree.structure(params)
    np.testing.assert_allclose(run(joined, TOKENS, SEGMENTS, POSITIONS), found, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("name", ALL)
def test_every_leaf_of_every_kind_has_a_gradient(name):
    """In every family, where it stands: nothing that is trained is left out of the computation."""
    config = ALL[name]
    params = make(config)[1]
    leaves = [leaves_of(one, config, spread=0.1) for one in BESIDE]
    probe = jnp.asarray(np.random.default_rng(1).normal(size=(2, 12, 24)), jnp.float32)

    def loss(leaves):
        whole = params
        for one, leaf in zip(BESIDE, leaves, strict=True):
            whole = method_of(one, config).joined(whole, leaf)
        return (forward(config)(whole, TOKENS, SEGMENTS, POSITIONS) * probe).sum()

    gradients = jax.jit(jax.grad(loss))(leaves)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.isfinite(leaf).all() and np.abs(leaf).max() > 1e-6, path


def test_leaves_count_ranks_times_sizes():
    config = DECODERS["qwen2"]
    kernels = projections(boxed(config), LoRA().targets)
    assert {one.path[-2] for one in kernels} == {"query", "key", "value", "out", "gate", "up", "down"}
    count = sum(leaf.size for leaf in jax.tree.leaves(leaves_of(LoRA(rank=3), config)))
    assert count == sum(3 * one.stack[0] * (one.inputs + one.outputs) for one in kernels)
    some = projections(boxed(config), ("attention/query", "down"))
    assert sorted(one.path[-2] for one in some) == ["down", "query"]
    with pytest.raises(UserError, match="no projection is named attention/quary"):
        projections(boxed(config), ("attention/quary",))


@pytest.mark.parametrize("name", ["qwen2", "gemma3"])
def test_a_scanned_stack_equals_an_unrolled_one(name):
    config = DECODERS[name]
    params = laid_over(config, *BESIDE, spread=0.1)
    unrolled = forward(config)(params, TOKENS, SEGMENTS, POSITIONS)
    scanned = forward(dataclasses.replace(config, scan=not config.scan))(params, TOKENS, SEGMENTS, POSITIONS)
    np.testing.assert_allclose(scanned, unrolled, rtol=1e-3, atol=2e-5)


def scores_of(config, params, tokens, starts):
    segments = np.where(np.arange(tokens.shape[1]) >= starts[:, None], 1, 0)
    positions = np.maximum(np.arange(tokens.shape[1]) - starts[:, None], 0)
    hidden = forward(config)(params, tokens, segments, positions)
    return -score_tokens(Head(hidden[:, :-1], vocabulary_table(params)), tokens[:, 1:], softcap=config.logit_softcap).nll


@pytest.mark.parametrize("name", ["gemma3", "distance"])
def test_a_cache_knows_adapters(name):
    """Log-probabilities of what is decoded are those of one pass over it."""
    config = DECODERS[name]
    params, prompt, new = laid_over(config, *BESIDE, spread=0.1), 6, 4
    keys, lengths = jax.random.split(jax.random.key(1), 2), jnp.array([6, 4])
    model = make(config)[0]
    state = jax.jit(lambda params: generate(model, params, TOKENS[:, :prompt], lengths, keys, Sampling(), max_new_tokens=new))(params)
    expected = scores_of(config, params, np.asarray(state.tokens_BS), np.asarray(state.start_B))
    np.testing.assert_allclose(state.log_probs_BS[:, prompt:], expected[:, prompt - 1 :], rtol=1e-3, atol=1e-4)


def test_a_prompt_is_what_stands_before_a_text():
    """Vectors that are those of tokens give what these tokens do, in front of each text of a packed row; rotary positions are relative."""
    config = DECODERS["qwen2"]
    params, before = make(config)[1], np.array([7, 3, 11])
    method = method_of(Prompt(length=3), config)
    vectors = params["embedding"]["table"][before]
    whole = method.joined(params, {"prompt": {"vectors": vectors}})
    found = forward(config)(whole, TOKENS, SEGMENTS, POSITIONS)
    for part in (slice(5), slice(5, 12)):
        tokens = np.concatenate([np.broadcast_to(before, (2, 3)), TOKENS[:, part]], 1)
        ones, positions = np.ones_like(tokens), np.arange(tokens.shape[1]) * np.ones((2, 1), int)
        np.testing.assert_allclose(found[:, part], forward(config)(params, tokens, ones, positions)[:, 3:], rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("name", ["ENCODERS-bert", "ENCODERS-rotary", "TRANSLATORS-vaswani"])
def test_texts_see_the_prompt_of_an_encoder_which_sees_itself(name, monkeypatch):
    """As one row of the prompt and a text, where groups of places see themselves and those before them."""
    config, before = ALL[name], np.array([7, 3, 11])
    (model, params), method = make(config), method_of(Prompt(length=3), config)
    whole = method.joined(params, {"prompt": {"vectors": vectors_of(config, params["embedding"]["table"], before)}})
    at = np.arange(-3, 0) if config.positions == "rotary" else np.arange(3)

    def read(params, tokens, segments, positions):
        if isinstance(model, TextEncoder):
            return model.apply({"params": params}, tokens, segments_BT=segments, positions_BT=positions).hidden_BTD
        source = SourceText(tokens, segments, positions)
        vectors = vectors_of(config, params["embedding"]["table"], tokens)
        return Encoder(config).apply({"params": params["encoder"]}, vectors, source)[0]

    def in_groups(causal, query_segments_BT):
        return Mask(causal=True, query_groups_BT=np.where(np.arange(query_segments_BT.shape[1]) < 3, 0, 1)[None])

    found = read(whole, TOKENS, SEGMENTS, POSITIONS)
    monkeypatch.setattr(f"{type(model).__module__}.Mask", in_groups)
    for part in (slice(5), slice(5, 12)):
        tokens = np.concatenate([np.broadcast_to(before, (2, 3)), TOKENS[:, part]], 1)
        positions = np.broadcast_to(np.concatenate([at, POSITIONS[0, part]]), tokens.shape)
        np.testing.assert_allclose(found[:, part], read(params, tokens, np.ones_like(tokens), positions)[:, 3:], rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("name", ["ENCODERS-relative", "TRANSLATORS-t5", "DECODERS-distance"])
def test_every_vector_of_a_prompt_has_a_gradient(name):
    config, probe = ALL[name], jnp.asarray(np.random.default_rng(1).normal(size=(2, 12, 24)), jnp.float32)
    params, method = make(config)[1], method_of(Prompt(length=3), config)
    leaves = leaves_of(Prompt(length=3), config, spread=0.3)
    gradient = jax.jit(jax.grad(lambda leaves: (forward(config)(method.joined(params, leaves), TOKENS, SEGMENTS, POSITIONS) * probe).sum()))
    assert (np.abs(gradient(leaves)["prompt"]["vectors"]).max(1) > 1e-4).all()


@pytest.mark.parametrize("name", ["DECODERS-shared", "ENCODERS-albert"])
def test_a_prompt_is_refused_by_name_where_there_can_be_none(name):
    with pytest.raises(UserError, match="there is no prompt for layers that share parameters"):
        method_of(Prompt(), ALL[name])


def test_dora_merges_and_begins_as_the_kernel():
    config, options = DECODERS["qwen2"], LoRA(rank=2, dora=True)
    params, method = make(config)[1], method_of(options, config)
    run = forward(config)
    begun = method.begun(params, leaves_of(options, config))
    start = run(method.joined(params, begun), TOKENS, SEGMENTS, POSITIONS)
    np.testing.assert_allclose(start, run(params, TOKENS, SEGMENTS, POSITIONS), rtol=1e-3, atol=2e-5)
    moved = jax.tree.map(lambda leaf: leaf + jnp.asarray(RNG.normal(0, 0.1, leaf.shape), jnp.float32), begun)
    apart, joined = method.joined(params, moved), method.merged(params, moved)
    np.testing.assert_allclose(run(joined, *(where := (TOKENS, SEGMENTS, POSITIONS))), run(apart, *where), rtol=1e-3, atol=2e-5)


def test_rows_of_a_batch_use_adapters_of_their_own():
    """Four adapters, of different ranks and of different projections, and a row of the base: as if each had run alone."""
    config = DECODERS["qwen2"]
    params, run = make(config)[1], forward(config)
    kinds = (LoRA(rank=1), LoRA(rank=3, alpha=5.0), AdaLoRA(rank=2, initial_rank=2), LoRA(rank=2, targets=("attention/query", "down")))
    trees = []
    for number, one in enumerate(kinds):
        leaves = jax.tree.map(lambda leaf, number=number: leaf * (1 + number), leaves_of(one, config, spread=0.1))
        trees.append(method_of(one, config).read(params, leaves))
    chosen = np.array([2, 0, -1, 3, 1, 2])
    tokens, segments, positions = (np.repeat(x[:1], len(chosen), 0) for x in (TOKENS, SEGMENTS, POSITIONS))
    found = run(overlaid(params, for_rows(side_by_side(trees), chosen)), tokens, segments, positions)
    for row, number in enumerate(chosen):
        alone = params if number < 0 else merged(overlaid(params, trees[number]))
        np.testing.assert_allclose(found[row], run(alone, tokens, segments, positions)[row], rtol=1e-3, atol=2e-5)
    assert np.abs(found[0] - found[1]).max() > 1e-2
    with pytest.raises(ValueError, match="only terms of low rank"):
        side_by_side([leaves_of(Houlsby(width=2), config)])


def test_biases_are_all_that_bitfit_trains():
    config = DECODERS["qwen2"]
    method = method_of(BitFit(), config)
    own = {"/".join(path) for path in boxed(config) if method.trains(path)}
    assert own == {f"layers/attention/{name}/bias" for name in ("query", "key", "value")}


def test_a_rounded_kernel_passes_gradients_as_it_is_rounded():
    """To what it reads, and to adapters beside it; not to itself."""
    weights = Quantized.of(jnp.asarray(RNG.normal(size=(5, 7)), jnp.float32))
    x, dy = (jnp.asarray(RNG.normal(size=size), jnp.float32) for size in ((3, 7), (3, 5)))
    value, pull = jax.vjp(lambda x: product(x, weights), x)
    np.testing.assert_allclose(pull(dy)[0], dy @ weights[np.arange(5)], rtol=1e-5, atol=1e-6)
    assert np.abs(value - x @ weights[np.arange(5)].T).max() < 0.1


@pytest.mark.parametrize("options", [Prefix(), Prompt()])
def test_kernels_without_prefixes_are_refused(options):
    with pytest.raises(UserError, match="knows no prefix"):
        method_of(options, dataclasses.replace(DECODERS["qwen2"], attention="triton"))


def test_what_is_trained_beside_begins_as_a_pattern_says():
    """The head called value, and not the projection of that name in every layer."""
    assert begins(("value", "weights"), ("value",)) and not begins(("layers", "attention", "value", "kernel"), ("value",))
    assert begins(("layers", "attention_norm", "scale"), ("final_norm", "layers/*_norm"))
    assert not begins(("layers",), ("layers/*_norm",)) and not begins(("layers",), ())


def test_dropout_leaves_inputs_out_in_training_alone():
    config, options = DECODERS["qwen2"], LoRA(rank=2, dropout=0.5)
    method, leaves = method_of(options, config), leaves_of(options, config, spread=0.1)
    params = make(config)[1]
    quiet = found_at(method.read(params, leaves), NAME)
    first, again, other = (found_at(method.read(params, leaves, jax.random.key(seed)), NAME) for seed in (0, 0, 1))
    for path in quiet:
        a, kept = quiet[path]["a"], first[path]["a"] != 0
        np.testing.assert_array_equal(first[path]["a"], jnp.where(kept, 2 * a, 0))
        np.testing.assert_array_equal(first[path]["a"], again[path]["a"])
        assert (kept.all(-1) | ~kept.any(-1)).all() and (first[path]["a"] != other[path]["a"]).any()
