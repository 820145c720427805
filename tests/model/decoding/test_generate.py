"""Decoding with a cache equals the full forward pass; padding, order and neighbours change no row."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.attention.dispatch import MASKED
from model.decoding.generate import decode, generate, prefill
from model.decoding.sampling import Sampling, by_row, likeliest_token, next_logits, sample_token
from model.heads import Head, logits, score_tokens, vocabulary_table
from tests.model.conftest import EXPERTS, GEMMA2, LLAMA, forward, make

LENGTHS = np.array([6, 2, 4])
ROOM = 10


@pytest.fixture(scope="module")
def llama():
    return make(LLAMA)


@functools.cache
def jitted():
    return jax.jit(generate, static_argnames=("model", "sampling", "max_new_tokens", "samples"))


@functools.cache
def ready():
    """The state after prefill, before any token is drawn."""
    model, params = make(LLAMA)
    start = jax.jit(prefill, static_argnames=("model", "max_new_tokens", "samples"))
    return start(model, params, prompts(), LENGTHS, jax.random.split(jax.random.key(3), 3), max_new_tokens=ROOM)


def prompts(width=6):
    """Three prompts of different lengths, right-aligned in `width` columns, with noise where the padding is."""
    rows = np.random.default_rng(0).integers(1, 61, (3, 6))
    padded = np.random.default_rng(width).integers(1, 61, (3, width))
    for row, length in enumerate(LENGTHS):
        padded[row, width - length :] = rows[row, 6 - length :]
    return padded.astype(np.int32)


def run(llama, sampling=Sampling(), width=6, order=(0, 1, 2), samples=1, seed=3):
    model, params = llama
    order = np.array(order)
    keys = jax.random.split(jax.random.key(seed), 3 * samples).reshape(3, samples)[order].reshape(-1)
    return jitted()(model, params, prompts(width)[order], LENGTHS[order], keys, sampling, max_new_tokens=ROOM, samples=samples)


def filtered(state, sampling):
    """What the next token of each row is drawn from. state: also logits alone, of rows without any token."""
    if not hasattr(state, "logits_BV"):
        empty_BS = np.zeros((len(state), 1), bool)
        state = SimpleNamespace(logits_BV=state, tokens_BS=empty_BS.astype(int), held_BS=empty_BS, made_BS=empty_BS)
    else:
        index_S = np.arange(state.tokens_BS.shape[1])
        held_BS = (np.asarray(state.valid_BS) == 1) & (index_S < int(state.index))
        made_BS = held_BS & (index_S >= np.asarray(state.begin_B)[:, None])
        state = SimpleNamespace(logits_BV=state.logits_BV, tokens_BS=state.tokens_BS, held_BS=held_BS, made_BS=made_BS)
    by = by_row([sampling] * len(state.logits_BV), state.logits_BV.shape[-1])
    return np.asarray(jax.jit(next_logits)(state.logits_BV, by, state.tokens_BS, state.held_BS, state.made_BS))


def new_tokens(state, width=6):
    return np.asarray(state.tokens_BS)[:, width:]


def texts(state):
    """Each row's text alone, moved to the left of 16 columns: what follows it, a causal model does not see."""
    rows = np.zeros((3, 16), np.int32)
    for row, length in enumerate(LENGTHS):
        rows[row, : length + ROOM] = np.asarray(state.tokens_BS)[row, 6 - length :]
    return rows


def test_greedy_decoding_equals_the_full_forward_pass(llama):
    """Each next token is the argmax of a forward pass over the whole text so far, without cache or padding."""
    model, params = llama
    text = texts(run(llama, Sampling(temperature=0.0)))
    best = np.asarray(logits(Head(forward(model)(params, text), vocabulary_table(params)))).argmax(-1)
    for row, length in enumerate(LENGTHS):
        new = slice(length, length + ROOM)
        np.testing.assert_array_equal(text[row, new], best[row, length - 1 : length - 1 + ROOM])


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_log_probabilities_equal_the_teacher_forced_ones(llama, temperature):
    model, params = llama
    state = run(llama, Sampling(temperature=temperature, top_k=5))
    text = texts(state)
    head = Head(forward(model)(params, text), vocabulary_table(params))
    nll = np.asarray(score_tokens(head, np.roll(text, -1, axis=1), temperature=temperature).nll)
    for row, length in enumerate(LENGTHS):
        np.testing.assert_allclose(state.log_probs_BS[row, 6:], -nll[row, length - 1 : length - 1 + ROOM], atol=1e-4)


@pytest.mark.parametrize("config", [GEMMA2, EXPERTS], ids=["gemma2", "experts"])
def test_windows_caps_and_experts_hold_while_decoding(config):
    """The cache is as long as the text, so the mask alone makes a layer local; the cap is in the returned probabilities."""
    model, params = pair = make(config)
    state = run(pair, Sampling(top_k=5))
    head = Head(forward(model)(params, texts(state)), vocabulary_table(params))
    nll = np.asarray(score_tokens(head, np.roll(texts(state), -1, axis=1), softcap=config.logit_softcap).nll)
    for row, length in enumerate(LENGTHS):
        np.testing.assert_allclose(state.log_probs_BS[row, 6:], -nll[row, length - 1 : length - 1 + ROOM], atol=1e-4)


def test_left_padding_and_row_order_change_nothing(llama):
    expected = new_tokens(run(llama))
    np.testing.assert_array_equal(new_tokens(run(llama, width=9), 9), expected)
    np.testing.assert_array_equal(new_tokens(run(llama, order=(2, 0, 1))), expected[[2, 0, 1]])
    assert len({tuple(row) for row in expected}) == 3


def test_several_samples_share_one_prefill(llama):
    """Samples of a prompt equal those of the prompt repeated, and differ from each other."""
    model, params = llama
    both = run(llama, samples=2)
    keys = jax.random.split(jax.random.key(3), 6)
    repeated = jitted()(model, params, prompts().repeat(2, axis=0), LENGTHS.repeat(2), keys, Sampling(), max_new_tokens=ROOM)
    np.testing.assert_array_equal(both.tokens_BS, repeated.tokens_BS)
    assert (new_tokens(both)[0] != new_tokens(both)[1]).any()


def test_a_row_ends_with_its_stop_id_and_the_loop_leaves_early(llama):
    free = new_tokens(run(llama, Sampling(temperature=0.0)))
    stop = int(free[0, 2])
    state = run(llama, Sampling(temperature=0.0, stop_ids=(stop,)))
    for row in range(3):
        places = np.flatnonzero(free[row] == stop)
        end = places[0] + 1 if places.size else ROOM
        assert int(state.ends_B[row]) == 6 + end and bool(state.done_B[row]) == bool(places.size)
        np.testing.assert_array_equal(new_tokens(state)[row, :end], free[row, :end])
    assert (np.asarray(state.log_probs_BS)[0, 6 + 3 :] == 0).all()
    everything = run(llama, Sampling(temperature=0.0, stop_ids=tuple(range(61))))
    assert int(everything.index) == 7


def test_decoding_in_pieces_equals_decoding_at_once(llama):
    model, params = llama
    sampling = Sampling(temperature=0.9)
    state = ready()
    part = jax.jit(decode, static_argnames=("model", "sampling"))
    for steps in (3, 4, 99):
        state = part(model, params, state, sampling, steps)
    np.testing.assert_array_equal(new_tokens(state), new_tokens(run(llama, sampling)))


@pytest.mark.parametrize(
    "sampling",
    [Sampling(top_k=3), Sampling(top_p=0.6), Sampling(min_p=0.3), Sampling(temperature=2.0, top_p=0.9, top_k=8, min_p=0.1)],
    ids=lambda sampling: str(sampling).removeprefix("Sampling"),
)
def test_filters_keep_what_their_definitions_keep(sampling):
    state = ready()
    found = filtered(state, sampling)
    for row, x in enumerate(np.asarray(state.logits_BV, np.float64) / sampling.temperature):
        order = np.argsort(-x)
        kept = order[: sampling.top_k or len(x)]
        p = np.exp(x[kept]) / np.exp(x[kept]).sum()
        kept = kept[np.cumsum(p) - p < sampling.top_p]
        kept = kept[np.exp(x[kept] - x.max()) >= sampling.min_p]
        assert set(np.flatnonzero(found[row] > MASKED)) == set(kept)
        np.testing.assert_allclose(found[row, kept] - found[row].max(), x[kept] - x.max(), rtol=1e-4, atol=1e-6)


def test_repetition_penalty_looks_at_the_row_and_not_at_its_padding():
    state = ready()
    found = filtered(state, Sampling(repetition_penalty=1.5))
    for row, length in enumerate(LENGTHS):
        x = np.asarray(state.logits_BV)[row]
        seen = np.isin(np.arange(61), prompts()[row, 6 - length :])
        expected = np.where(seen, np.where(x > 0, x / 1.5, x * 1.5), x)
        np.testing.assert_allclose(found[row], expected - expected.max(), rtol=1e-5, atol=1e-6)


def test_frequency_and_presence_count_what_follows_the_prompt():
    state = jax.jit(decode, static_argnames=("model", "sampling"))(*make(LLAMA), ready(), Sampling(temperature=0.7), 6)
    found = filtered(state, Sampling(frequency_penalty=0.5, presence_penalty=-0.25))
    for row in range(3):
        made = np.bincount(np.asarray(state.tokens_BS)[row, 6:12], minlength=61)
        expected = np.asarray(state.logits_BV)[row] - 0.5 * made + 0.25 * (made > 0)
        np.testing.assert_allclose(found[row], expected - expected.max(), rtol=1e-5, atol=1e-5)


def test_a_bias_is_added_and_takes_ids_that_are_not_drawn_nowhere():
    found = filtered(ready(), Sampling(bias=((3, 2.5), (4, -100.0), (60, 50.0)), among=(0, 60)))
    for row, x in enumerate(np.array(ready().logits_BV)):
        x[3], x[4] = x[3] + 2.5, x[4] - 100
        np.testing.assert_allclose(found[row, :60], x[:60] - x[:60].max(), rtol=1e-5, atol=1e-5)
    assert (found[:, 60] == MASKED).all()
    with pytest.raises(ValueError, match="bias is of id 61"):
        by_row([Sampling(bias=((61, 1.0),))], 61)


MIXED = (
    Sampling(temperature=0.0),
    Sampling(temperature=1.3, top_p=0.7, repetition_penalty=1.2),
    Sampling(top_k=4, min_p=0.05, frequency_penalty=0.5, stop_ids=(5,), bias=((7, 3.0),)),
)


def test_rows_with_settings_of_their_own_draw_as_if_alone_and_by_one_program(llama):
    """Each row of a batch, to the bit what it is where all rows have its settings."""
    model, params = llama
    go_on = jax.jit(lambda params, state, by: decode(model, params, state, by, ROOM))

    def drawn(samplings):
        by = by_row(samplings, 61)
        by = by.replace(bias_BV=np.broadcast_to(by.bias_BV, (3, 61)))  # or it has one row where all have the same
        state = go_on(params, ready(), by)
        return np.asarray(state.tokens_BS), np.asarray(state.log_probs_BS), np.asarray(state.ends_B)

    together = drawn(MIXED)
    for row, sampling in enumerate(MIXED):
        for one, other in zip(drawn([sampling] * 3), together, strict=True):
            np.testing.assert_array_equal(one[row], other[row])
    assert go_on._cache_size() == 1


def test_samples_follow_the_distribution(llama):
    """4,000 draws of a first token against the model's probabilities: chi-squared over the likely tokens."""
    model, params = llama
    prompt, count = prompts()[:1], 4000
    keys = jax.random.split(jax.random.key(11), count)
    state = jitted()(model, params, prompt, LENGTHS[:1], keys, Sampling(), max_new_tokens=1, samples=count)
    p = np.asarray(jax.nn.softmax(ready().logits_BV[0]))
    counts = np.bincount(new_tokens(state)[:, 0], minlength=61)
    likely = p * count > 10
    chi_squared = ((counts - p * count) ** 2 / (p * count))[likely].sum()
    assert chi_squared < likely.sum() + 5 * np.sqrt(2 * likely.sum())


def test_what_is_filtered_out_is_never_drawn_and_one_number_decides():
    """Beside the inverse of the cumulative distribution in float64, for the same random numbers."""
    rng = np.random.default_rng(0)
    x_BV = np.where(rng.random((3000, 1999)) < 0.9, MASKED, rng.normal(0, 3, (3000, 1999))).astype(np.float32)
    keys = jax.random.split(jax.random.key(5), 3000)
    found = np.asarray(jax.jit(sample_token)(keys, x_BV))
    assert (x_BV[np.arange(3000), found] > MASKED).all()
    p_BV = np.exp(x_BV.astype(np.float64) - x_BV.max(1, keepdims=True))
    place = np.asarray(jax.vmap(jax.random.uniform)(keys), np.float64) * p_BV.sum(1)
    expected = (p_BV.cumsum(1) > place[:, None]).argmax(1)
    assert (found == expected).mean() > 0.998  # elsewhere a number lies within float32's rounding of a border


@pytest.mark.parametrize("number", [0.0, 0.5, 1 - 2**-24])
@pytest.mark.parametrize("vocabulary", [1, 127, 128, 129, 1000])
def test_a_token_that_can_be_drawn_is_whatever_the_random_number(vocabulary, number, monkeypatch):
    """At the ends of the range too, where sums are rounded, and wherever the only tokens are that are not filtered out."""
    monkeypatch.setattr("model.decoding.sampling.jax.random.uniform", lambda key: jnp.float32(number))
    places = np.unique(np.clip([0, 1, 126, 127, 128, 129, vocabulary - 2, vocabulary - 1], 0, vocabulary - 1))
    x_BV = np.full((2 * len(places), vocabulary), MASKED, np.float32)
    x_BV[np.arange(2 * len(places)), np.repeat(places, 2)] = 1.0
    x_BV[1::2, places[-1]] = -16.0  # a second one, that rounding takes out of the sum of the first
    found = np.asarray(sample_token(jax.random.split(jax.random.key(0), len(x_BV)), x_BV))
    assert (x_BV[np.arange(len(x_BV)), found] > MASKED).all()
    assert (found[::2] == places).all()
    np.testing.assert_array_equal(likeliest_token(x_BV), x_BV.argmax(-1))


@pytest.mark.parametrize("temperature", [1e-10, 1e-200])
def test_a_temperature_near_zero_is_greedy(llama, temperature):
    """Divided before the largest is taken off, logits of 1e11 are rounded to thousands, and then overflow."""
    cold, greedy = run(llama, Sampling(temperature=temperature)), run(llama, Sampling(temperature=0.0))
    np.testing.assert_array_equal(new_tokens(cold), new_tokens(greedy))
    np.testing.assert_allclose(np.asarray(cold.log_probs_BS)[:, 6:], 0.0, atol=1e-3)


@pytest.mark.parametrize("temperature", [1e-30, 1e30])
def test_no_temperature_lets_a_forbidden_token_in(temperature):
    found = filtered(jnp.array([[9.0, 0, 1, 2, 3, 9, 9, 2.5]]), Sampling(among=(2, 5), stop_ids=(7,), temperature=temperature))
    draws = {int(sample_token(jax.random.split(jax.random.key(seed), 1), found)[0]) for seed in range(40)}
    assert draws == ({4} if temperature < 1 else {2, 3, 4, 7})


@pytest.mark.parametrize(
    "bad",
    [
        {"temperature": -1},
        {"temperature": np.inf},
        {"temperature": 1e39},
        {"repetition_penalty": np.nan},
        {"top_p": 0.0},
        {"min_p": 2.0},
        {"repetition_penalty": 0.0},
        {"top_k": -1},
        {"typical_p": 0.0},
        {"frequency_penalty": np.nan},
        {"presence_penalty": np.inf},
        {"bias": ((3, np.nan),)},
    ],
)
def test_senseless_sampling_is_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Sampling(**bad)


def test_only_what_is_asked_for_is_drawn():
    """Among some ids and the stop ids, in proportion to what they had; the filters see nothing else."""
    sampling = Sampling(among=(2, 5), stop_ids=(7,), top_k=3)
    x_BV = jnp.array([[9.0, 0, 1, 2, 3, 9, 9, 2.5]])
    found = filtered(x_BV, sampling)[0]
    assert (np.flatnonzero(found > MASKED) == [3, 4, 7]).all()
    np.testing.assert_array_equal(found[[3, 4, 7]], x_BV[0, jnp.array([3, 4, 7])] - 3)
