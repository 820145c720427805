"""The decoder against its NumPy twin, and the properties that any decoder must have."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.presets import PRESETS, preset
from model.stack import unstack_layers
from model.transformer import Decoder, count_parameters
from tests.model.conftest import GEMMA2, GPT2, LLAMA, MODERN, PARALLEL, forward, make
from tests.model.oracle import hidden_states

TOKENS = np.random.default_rng(0).integers(0, 61, (2, 12))
SEGMENTS = np.array([[1] * 5 + [2] * 4 + [3] * 3, [1] * 12])


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh"])
def test_gpt2_equals_the_numpy_oracle(activation):
    model, params = make(dataclasses.replace(GPT2, activation=activation))
    hidden = forward(model)(params, TOKENS)
    np.testing.assert_allclose(hidden[0], hidden_states(params, model.config, TOKENS[0]), rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("config", [LLAMA, MODERN, GEMMA2, PARALLEL], ids=["llama", "modern", "gemma2", "parallel"])
def test_packed_row_equals_the_numpy_oracle(config):
    model, params = make(config)
    positions = np.array([[*range(5), *range(4), *range(3)], [*range(12)]])
    hidden = forward(model)(params, TOKENS, segments_BT=SEGMENTS, positions_BT=positions)
    np.testing.assert_allclose(hidden[0], hidden_states(params, config, TOKENS[0], SEGMENTS[0]), rtol=2e-4, atol=2e-4)


def test_no_output_depends_on_a_later_token(tiny):
    """Causality by gradient: the hidden state at t has no derivative by the embedding of any token after t."""
    model, params = tiny
    length = 8
    tokens = jnp.arange(length)[None]  # all different, so that each has a row of the table to itself

    def hidden(table):
        return model.apply({"params": params | {"embedding": {"table": table}}}, tokens).hidden_BTD[0].sum(-1)

    reach_TS = np.abs(jax.jit(jax.jacrev(hidden))(params["embedding"]["table"]))[:, :length].sum(-1)
    assert (np.triu(reach_TS, 1) == 0).all()
    assert (np.diag(reach_TS) > 0).all() and (reach_TS[-1] > 0).all()


@pytest.mark.parametrize("kernel", ["reference", "xla"])
def test_packed_rows_equal_separate_documents(kernel):
    """Documents in one row do not see each other: values and gradients equal those of separate rows."""
    model, params = make(dataclasses.replace(LLAMA, attention=kernel))
    first, second = TOKENS[0, :5], TOKENS[0, 5:12]
    probe = jax.random.normal(jax.random.key(5), (12, model.config.embed_dim))

    def packed(params):
        segments, positions = jnp.array([[1] * 5 + [2] * 7]), jnp.array([[*range(5), *range(7)]])
        hidden = model.apply({"params": params}, TOKENS[:1], segments_BT=segments, positions_BT=positions).hidden_BTD[0]
        return (hidden * probe).sum(), hidden

    def separate(params):
        hidden = jnp.concatenate([model.apply({"params": params}, document[None]).hidden_BTD[0] for document in (first, second)])
        return (hidden * probe).sum(), hidden

    (_, values), gradients = jax.jit(jax.value_and_grad(packed, has_aux=True))(params)
    (_, expected), expected_gradients = jax.jit(jax.value_and_grad(separate, has_aux=True))(params)
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * np.abs(b).max()), gradients, expected_gradients)


def test_scan_and_remat_change_nothing_but_speed():
    """All ways of running the stack take the same parameters and give the same gradient, dropout included."""
    _, params = make(MODERN)
    keys = jax.random.split(jax.random.key(7), 2)

    def gradient(**changes):
        model = Decoder(dataclasses.replace(MODERN, **changes))
        noise = keys if model.config.dropout else None
        return jax.jit(jax.grad(lambda params: (model.apply({"params": params}, TOKENS, keys_B=noise).hidden_BTD ** 2).sum()))(params)

    for changes, plain in (
        ({"dropout": 0.2, "scan": True, "remat": "full"}, gradient(dropout=0.2)),
        ({"remat": "dots"}, calm := gradient()),
        ({"scan": True, "remat": "sublayers"}, calm),
    ):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * np.abs(b).max()), gradient(**changes), plain)


def test_scanning_groups_of_local_and_global_layers_changes_nothing():
    """The window of a layer is static, so a scan runs over groups: which layers are global, and their dropout, must not change."""
    config = dataclasses.replace(GEMMA2, num_layers=4, global_every=2, dropout=0.2, experts=3, expert_capacity=1.0)
    _, params = make(config)
    keys = jax.random.split(jax.random.key(7), 2)

    def gradient(**changes):
        model = Decoder(dataclasses.replace(config, **changes))

        def loss(params):
            output = model.apply({"params": params}, TOKENS, keys_B=keys)
            layer_L = jnp.arange(1.0, 5.0)[:, None]
            return (output.hidden_BTD**2).sum() + (output.router.z_B * layer_L).sum(), output.router

        return jax.jit(jax.grad(loss, has_aux=True))(params)

    plain, scanned = gradient(), gradient(scan=True, remat="full")
    assert plain[1].counts_BE.shape == (4, 2, 3) and plain[1].dropped_B.sum() > 0
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * np.abs(b).max()), scanned, plain)
    with pytest.raises(ValueError, match="num_layers 5 is not a multiple of model.global_every 2"):
        dataclasses.replace(config, num_layers=5, scan=True)


@pytest.mark.parametrize("layers, every, first", [(1, 0, 9), (2, 0, 7), (2, 2, 0)])
def test_a_token_sees_as_far_back_as_its_windows_reach(layers, every, first):
    """By gradient, with a window of 3: one local layer reaches 2 back, two reach 4, and a global one everything."""
    model, params = make(dataclasses.replace(LLAMA, num_layers=layers, window=3, global_every=every))
    tokens = jnp.arange(12)[None]

    def last(table):
        return model.apply({"params": params | {"embedding": {"table": table}}}, tokens).hidden_BTD[0, -1].sum()

    reach_S = np.abs(jax.jit(jax.grad(last))(params["embedding"]["table"]))[:12].sum(-1)
    assert (reach_S[first:] > 0).all() and (reach_S[:first] == 0).all()


def test_unstacked_parameters_run_the_same():
    model, params = make(LLAMA)
    np.testing.assert_array_equal(forward(model)(unstack_layers(params), TOKENS), forward(model)(params, TOKENS))


def test_the_gradient_of_a_frequent_token_is_summed_in_float32():
    """bfloat16 holds three digits: a sum of 512 equal parts made in it would stand still long before its end."""
    config = dataclasses.replace(MODERN, num_layers=1, context_length=512)
    _, params = make(config)
    tokens = jnp.full((1, 512), 7)

    def total(params, model):
        return model.apply({"params": params}, tokens).hidden_BTD.astype(jnp.float32).sum(where=jnp.arange(24) < 12)

    def gradient(dtype):
        model = Decoder(dataclasses.replace(config, dtype=dtype))
        return jax.jit(jax.grad(total), static_argnums=1)(params, model)["embedding"]["table"][7]

    rounded, exact = gradient("bfloat16"), gradient("float32")
    assert np.linalg.norm(rounded - exact) < 0.05 * np.linalg.norm(exact)


def test_a_row_is_dropped_out_by_its_own_key():
    """Which rows stand beside it, and where, changes nothing: micro-batches and meshes draw the same masks."""
    model, params = make(dataclasses.replace(GPT2, dropout=0.5))
    keys = jax.random.split(jax.random.key(1), 2)
    both = forward(model)(params, TOKENS, keys_B=keys)
    alone = forward(model)(params, TOKENS[1:], keys_B=keys[1:])
    np.testing.assert_allclose(both[1], alone[0], rtol=1e-5, atol=1e-5)
    assert not np.allclose(both, forward(model)(params, TOKENS))


@pytest.mark.parametrize(
    "name, count",
    [
        ("gpt2", 124_439_808),  # the released checkpoints
        ("gpt2_medium", 354_823_168),
        ("gpt2_large", 774_030_080),
        ("gpt2_xl", 1_557_611_200),
        ("llama2_7b", 6_738_415_616),
        ("llama2_13b", 13_015_864_320),
        ("llama2_70b", 68_976_648_192),
        ("llama3_1b", 1_235_814_400),
        ("llama3_3b", 3_212_749_824),
        ("llama3_8b", 8_030_261_248),
        ("llama3_70b", 70_553_706_496),
        ("llama31_8b", 8_030_261_248),
        ("llama31_70b", 70_553_706_496),
        ("llama31_405b", 405_853_388_800),
        ("mixtral_8x7b", 46_702_792_704),
        ("gemma2_2b", 2_614_341_888),
        ("gemma2_9b", 9_241_705_984),
        ("gemma3_270m", 268_098_176),
        ("gemma3_1b", 999_885_952),
        ("mistral_7b", 7_241_732_096),
        ("smollm2_135m", 134_515_008),
        ("smollm2_360m", 361_821_120),
        ("qwen25_05b", 494_032_768),
        ("qwen3_06b", 596_049_920),
        ("pythia_160m", 162_322_944),
        ("pythia_410m", 405_334_016),
        ("minilm_l6", 22_713_216),
        # The released trunks and, beside them, what predicts masked tokens: a dense layer, a norm and the bias of the vocabulary.
        ("bert_base", 109_482_240 + 768 * 769 + 2 * 768 + 30_522),
        ("bert_large", 335_141_888 + 1024 * 1025 + 2 * 1024 + 30_522),
        ("roberta_base", 124_645_632 - 2 * 768 + 768 * 769 + 2 * 768 + 50_265),  # of its positions the first two are never used
        ("distilbert", 66_362_880 + 768 * 769 + 2 * 768 + 30_522),
        ("albert_base", 11_683_584 + 128 * 769 + 2 * 128 + 30_000),
        ("albert_large", 17_683_968 + 128 * 1025 + 2 * 128 + 30_000),
        ("t5_small", 60_506_624),
        ("t5_base", 222_903_552),
        ("t5_v1_1_small", 76_961_152),
        ("flan_t5_base", 247_577_856),
    ],
)
def test_preset_has_the_published_number_of_parameters(name, count):
    assert count_parameters(preset(name)) == count


@pytest.mark.parametrize("name", ["gpt3_1b3", "decoder_100b"])
def test_preset_has_the_parameters_its_shape_implies(name):
    """Table, positions, norms, and per layer the attention's four and the feed-forward's two matrices, with biases where they are."""
    c = preset(name)
    width, mlp = c.embed_dim, c.mlp_width
    norm = width * (2 if c.bias else 1)
    layer = 4 * width**2 + 2 * width * mlp + 2 * norm + (5 * width + mlp if c.bias else 0) + (2 * c.head_width if c.qk_norm else 0)
    positions = c.context_length * width if c.positions == "learned" else 0
    assert count_parameters(c) == c.vocab_size * width + positions + c.num_layers * layer + norm


def test_unknown_preset_names_the_known_ones():
    with pytest.raises(ValueError, match="gpt2_xl"):
        preset("gpt3")
    assert len(PRESETS) == len(set(PRESETS.values()))
