"""The chunked vocabulary pass equals the plain one, in every output and gradient, and never holds [B, T, V]."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.heads import Head, Scores, logits, score_tokens

B, T, D, V = 2, 13, 8, 37
ALL = Scores._fields


@pytest.fixture(scope="module")
def heads():
    rng = np.random.default_rng(0)
    own, other = (Head(*(rng.normal(size=shape).astype(np.float32) for shape in ((B, T, width), (V, width)))) for width in (D, D + 2))
    return own, other, rng.integers(0, V, (B, T)).astype(np.int32)


def oracle(own, other, targets, softcap, temperature):
    """Every score from its definition, in float64."""

    def log_softmax(head):
        x = np.asarray(head.hidden_BTD, np.float64) @ np.asarray(head.table_VD, np.float64).T
        x = (softcap * np.tanh(x / softcap) if softcap else x) / temperature
        return x, x - np.log(np.exp(x).sum(-1, keepdims=True))

    x, log_p = log_softmax(own)
    _, log_q = log_softmax(other)
    p, q = np.exp(log_p), np.exp(log_q)
    return Scores(
        nll=-np.take_along_axis(log_p, np.asarray(targets)[..., None], -1)[..., 0],
        mean_nll=-log_p.mean(-1),
        log_z=np.log(np.exp(x).sum(-1)),
        entropy=-(p * log_p).sum(-1),
        hit=(x.argmax(-1) == targets).astype(float),
        kl=(p * (log_p - log_q)).sum(-1),
        cross_entropy=-(q * log_p).sum(-1),
        reverse_kl=(q * (log_q - log_p)).sum(-1),
        jensen_shannon=((p * (log_p - np.log((p + q) / 2))).sum(-1) + (q * (log_q - np.log((p + q) / 2))).sum(-1)) / 2,
    )


@pytest.mark.parametrize("chunk", [1, 5, 13])
@pytest.mark.parametrize("softcap, temperature", [(0.0, 1.0), (3.0, 0.7)])
def test_scores_equal_their_definitions(heads, chunk, softcap, temperature):
    own, other, targets = heads
    options = {"want": ALL, "softcap": softcap, "temperature": temperature, "chunk": chunk}
    scores = jax.jit(lambda own, other: score_tokens(own, targets, other=other, **options))(own, other)
    for name, expected in oracle(own, other, targets, softcap, temperature)._asdict().items():
        np.testing.assert_allclose(getattr(scores, name), expected, rtol=1e-4, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("name", [name for name in ALL if name != "hit"])
def test_gradients_equal_those_of_the_plain_pass(heads, name):
    own, other, targets = heads
    probe = np.random.default_rng(9).normal(size=(B, T))

    def gradient(chunk):
        def total(own, other):
            return (getattr(score_tokens(own, targets, want=(name,), other=other, softcap=4.0, chunk=chunk), name) * probe).sum()

        return jax.jit(jax.grad(total, argnums=(0, 1)))(own, other)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), gradient(4), gradient(T))


def test_passes_are_compared_alike_in_chunks(heads):
    """Both ways at once, with smoothed targets over a part of the vocabulary and places that do not count: what tasks ask for."""
    own, other, targets = heads
    counted = np.random.default_rng(3).random(targets.shape) < 0.5
    names = ("nll", "mean_nll", "kl", "reverse_kl")

    def gradient(chunk):
        def total(own, other):
            scores = score_tokens(own, targets, want=names, other=other, chunk=chunk, counted_BT=counted, words=5)
            return sum(getattr(scores, name).sum() for name in names)

        return jax.jit(jax.value_and_grad(total, argnums=(0, 1)))(own, other)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), gradient(4), gradient(T))
    log_p = np.asarray(jax.nn.log_softmax(own.hidden_BTD @ own.table_VD.T), np.float64)
    np.testing.assert_allclose(score_tokens(own, targets, want=("mean_nll",), words=5).mean_nll, -log_p[..., :5].mean(-1), rtol=1e-4)


def test_logits_of_the_whole_batch_never_exist():
    """By the compiler's own plan: loss and gradients of a batch need less work space than its logits would, let alone their gradient."""
    batch, length, width, vocabulary = 2, 512, 16, 4096
    hidden, table = jnp.zeros((batch, length, width)), jnp.zeros((vocabulary, width))
    targets = jnp.zeros((batch, length), jnp.int32)

    def work_space(chunk):
        def loss(hidden, table):
            return score_tokens(Head(hidden, table), targets, chunk=chunk).nll.sum()

        return jax.jit(jax.grad(loss, argnums=(0, 1))).lower(hidden, table).compile().memory_analysis().temp_size_in_bytes

    whole = batch * length * vocabulary * 4
    assert work_space(32) < whole / 4
    assert work_space(length) >= whole  # the test would notice


@pytest.mark.parametrize("chunk", [0, 3, T])
def test_positions_that_do_not_count_change_nothing(heads, chunk):
    own, other, targets = heads
    rng = np.random.default_rng(1)
    counted = rng.random((B, T)) < 0.4
    probe = rng.normal(size=(B, T)) * counted

    def total(own, other, **how):
        scores = score_tokens(own, targets, want=("nll", "kl"), other=other, **how)
        return ((scores.nll + scores.kl) * probe).sum(), scores

    both = jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True), static_argnames="chunk")
    (_, scores), gradient = both(own, other, chunk=chunk, counted_BT=counted)
    (_, plain), expected = both(own, other)
    for name in ("nll", "kl"):
        np.testing.assert_allclose(getattr(scores, name), np.where(counted, getattr(plain, name), 0), rtol=1e-5, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), gradient, expected)


def test_a_chunk_of_none_that_count_is_not_computed(heads):
    """Hidden states that are no numbers would spoil the gradient of the table, if anything were made of them."""
    own, _, targets = heads
    counted = np.broadcast_to(np.arange(T) >= T - 4, (B, T))  # at the end, as answers are
    spoilt = own._replace(hidden_BTD=np.where(counted[..., None], own.hidden_BTD, np.nan).astype(np.float32))

    def total(own, chunk):
        return score_tokens(own, targets[:1], chunk=chunk, counted_BT=counted[:1]).nll.sum()

    row = jax.tree.map(lambda x: x[:1] if x.ndim == 3 else x, spoilt)
    assert np.isfinite(jax.jit(jax.grad(total), static_argnums=1)(row, 4).table_VD).all()
    assert np.isnan(jax.jit(jax.grad(total), static_argnums=1)(row, 5).table_VD).any()  # the test would notice


def test_wrong_requests_are_refused(heads):
    own, _, targets = heads
    with pytest.raises(ValueError, match="unknown"):
        score_tokens(own, targets, want=("nil",))
    with pytest.raises(ValueError, match="second head"):
        score_tokens(own, targets, want=("kl",))


def test_temperature_follows_the_soft_cap():
    head = Head(jnp.ones((1, 1, 1)), jnp.array([[100.0], [0.0]]))
    np.testing.assert_allclose(logits(head, softcap=2.0, temperature=4.0)[0, 0], [0.5, 0.0], atol=1e-6)
