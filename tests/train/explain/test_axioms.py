"""Attributions keep to the axioms of Sundararajan et al. (2017, sec. 2 and 3) and of Shapley, and measures of them to their definitions."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.heads import Head, logits, vocabulary_table
from model.text import vectors_of
from model.transformer import Decoder
from tests.model.conftest import LLAMA, make
from tests.train.explain.conftest import formula
from train.explain.attribution import METHODS, faithfulness
from train.explain.subject import Subject, odds

GRADIENTS = ["integrated_gradients", "gradient_x_input"]


def values(method: str, subject: Subject, **options) -> np.ndarray:
    return METHODS[method](subject, **options).values_T


def decoder_subject(config, params) -> Subject:
    """The log-odds of token 3 behind a text, by a real decoder."""
    model = Decoder(config)

    def score(params, ids_BT, shift_BTW):
        hidden_BTD = model.apply({"params": params}, ids_BT, shift_BTD=shift_BTW).hidden_BTD
        return odds(logits(Head(hidden_BTD[:, -1], vocabulary_table(params))), 3, None)

    return Subject(
        ids_T=np.array([5, 9, 2, 40, 7], np.int32),
        texts=[""] * 5,
        free_T=np.ones(5, bool),
        baseline=1,
        answer="",
        number=3,
        against="",
        params=params,
        score=score,
        vectors=lambda params, ids: vectors_of(config, params["embedding"]["table"], jnp.asarray(ids)),
    )


@pytest.mark.parametrize("method", GRADIENTS)
def test_two_ways_to_compute_a_function_are_explained_alike(method):
    """Implementation invariance, of formulas: layers apart and multiplied, units doubled and halved."""
    rng = np.random.default_rng(0)
    first, second, last = (rng.normal(size=shape).astype(np.float32) for shape in ((7, 6), (6, 6), (6,)))

    def apart(x_BTW):
        return jnp.tanh(x_BTW.sum(1) @ first @ second) @ last

    def together(x_BTW):
        return jnp.tanh(x_BTW.sum(1) @ (first @ second)) @ last

    def doubled(x_BTW):
        wide = jnp.concatenate([first @ second] * 2, 1)[:, ::-1]
        return jnp.tanh(x_BTW.sum(1) @ wide) @ jnp.concatenate([last, last])[::-1] / 2

    expected = values(method, formula(apart))
    for other in (together, doubled):
        np.testing.assert_allclose(values(method, formula(other)), expected, rtol=1e-4, atol=1e-5)
    assert np.abs(values(method, formula(lambda x_BTW: jnp.tanh(x_BTW.sum(1) @ first).sum(-1))) - expected).max() > 0.1


@pytest.mark.parametrize("method", GRADIENTS)
def test_a_decoder_with_its_heads_and_units_in_another_order_is_explained_alike(method):
    """Implementation invariance, of a Transformer: the function is the same and every parameter of its layers another."""
    model, params = make(LLAMA)
    attention, feed_forward = dict(params["layers"]["attention"]), dict(params["layers"]["feed_forward"])
    for name in ("query", "key", "value"):
        attention[name] = jax.tree.map(lambda leaf: leaf[..., ::-1, :], attention[name])
    attention["out"] = {"kernel": attention["out"]["kernel"][:, ::-1]}
    for name in ("up", "gate"):
        feed_forward[name] = {"kernel": feed_forward[name]["kernel"][..., ::-1]}
    feed_forward["down"] = {"kernel": feed_forward["down"]["kernel"][:, ::-1]}
    other = params | {"layers": params["layers"] | {"attention": attention, "feed_forward": feed_forward}}
    subjects = [decoder_subject(model.config, one) for one in (params, other)]
    np.testing.assert_allclose(*(one.values([one.free_T]) for one in subjects), rtol=1e-4)
    np.testing.assert_allclose(*(values(method, one) for one in subjects), rtol=1e-3, atol=1e-4)
    feed_forward["down"] = {"kernel": params["layers"]["feed_forward"]["down"]["kernel"]}  # now another function
    changed = params | {"layers": params["layers"] | {"attention": attention, "feed_forward": feed_forward}}
    assert np.abs(values(method, decoder_subject(model.config, changed)) - values(method, subjects[0])).max() > 1e-2


def test_what_alone_makes_the_difference_is_credited():
    """Sensitivity (a): a gradient at the text sees nothing where the number has levelled off; the way there shows it."""
    made = formula(lambda x_BTW: 1 - jax.nn.relu(1 - 2 * x_BTW[:, 2, 2]))
    expected = np.array([0, 0, 1, 0, 0, 0, 0])
    for method in ("integrated_gradients", "occlusion", "shap", "partition"):
        np.testing.assert_allclose(values(method, made), expected, atol=2e-3)
    assert not values("gradient_x_input", made).any()  # which breaks the axiom, as its paper's successors say


@pytest.mark.parametrize("method", [name for name in METHODS if name != "rollout"])
def test_sums_of_models_are_explained_by_sums(method):
    """Linearity: 2 f - 3 g gets two times the attributions of f less three times those of g."""

    def f(x_BTW):
        return jnp.tanh(x_BTW[:, 1, 1] + x_BTW[:, 2, 2] * x_BTW[:, 3, 3])

    def g(x_BTW):
        return jnp.square(x_BTW.sum((1, 2)) - 2) * x_BTW[:, 4, 4]

    whole = values(method, formula(lambda x_BTW: 2 * f(x_BTW) - 3 * g(x_BTW)))
    np.testing.assert_allclose(whole, 2 * values(method, formula(f)) - 3 * values(method, formula(g)), atol=0.02)


def test_shapley_values_are_means_over_all_orders():
    """Of their definition, eq. 4 of Lundberg & Lee (2017), written out; tokens that change nothing or the same are dummies and equals."""

    def number(there):
        return 4 * there[0] * there[1] * there[2] + np.tanh(there[2] + there[3])

    expected = np.zeros(5)
    for order in itertools.permutations(range(5)):
        there = np.zeros(5)
        for player in order:
            before = number(there)
            there[player] = 1
            expected[player] += (number(there) - before) / 120
    made = formula(lambda x_BTW: 4 * x_BTW[:, 1, 1] * x_BTW[:, 2, 2] * x_BTW[:, 3, 3] + jnp.tanh(x_BTW[:, 3, 3] + x_BTW[:, 4, 4]))
    np.testing.assert_allclose(values("shap", made)[1:6], expected, atol=1e-6)
    assert expected[0] == pytest.approx(expected[1]) and abs(expected[4]) < 1e-12


def test_infidelity_is_the_mean_square_of_what_does_not_add_up():
    """Against Yeh et al. (2019, definition 2.1) on sets of tokens that are drawn here: for attributions of 0 it is the mean square of what
    the number loses; of a linear model gradient x input has none, and attributions that are too large by d have the square of d times the
    number of tokens that are gone."""
    weights = np.linspace(-2, 3, 14).astype(np.float32)
    linear = formula(lambda x_BTW: (x_BTW @ weights).sum(-1), count=12)
    shares = values("gradient_x_input", linear)
    assert faithfulness(linear, shares)["infidelity"] < 1e-10
    assert faithfulness(linear, shares)["infidelity_random"] > 1
    # All sizes are alike likely: the mean square of the number gone is that of 0 to 12.
    assert faithfulness(linear, shares + 0.5 * linear.free_T)["infidelity"] == pytest.approx(
        0.25 * np.square(np.arange(13)).mean(), rel=1e-4
    )
    same = formula(lambda x_BTW: 2 * x_BTW[:, 1:13].sum((1, 2)), count=12)
    assert faithfulness(same, np.zeros(14))["infidelity"] == pytest.approx(4 * np.square(np.arange(13)).mean(), rel=1e-4)


def test_an_explanation_of_a_planted_token_is_more_faithful_than_a_random_one():
    made = formula(lambda x_BTW: 5 * jnp.tanh(2 * x_BTW[:, 4, 4]) + 0.1 * x_BTW.sum((1, 2)), count=12)
    for method in ("integrated_gradients", "occlusion", "shap", "lime"):
        found = faithfulness(made, values(method, made))
        assert found["infidelity"] < 0.1 * found["infidelity_random"] and found["deletion"] < found["deletion_random"]


@pytest.mark.parametrize("method", ["shap", "lime"])
def test_standard_errors_are_the_spread_of_seeds_and_fall_with_samples(method):
    """Twelve tokens of which some count together; the spread is measured over seeds."""

    def game(x_BTW):
        there = x_BTW.sum(1)
        return 4 * there[:, 1] * there[:, 2] + 3 * jnp.tanh(there[:, 3:9].sum(-1) - 3) + there[:, 9] * there[:, 10] * there[:, 11]

    made, found = formula(game, count=12), {}
    for samples in (96, 768):
        drawn = [METHODS[method](made, samples=samples, seed=seed) for seed in range(40)]
        spread = np.std([one.values_T for one in drawn], 0, ddof=1)[made.free_T]
        said = np.sqrt(np.mean([np.square(one.errors_T) for one in drawn], 0))[made.free_T]
        np.testing.assert_allclose(said, spread, rtol=0.4, atol=1e-3)
        found[samples] = said.mean()
    assert found[768] < found[96] / 2  # a square root of eight, and for lime some of the bias of few texts
    assert METHODS["integrated_gradients"](made).errors_T is None


def test_few_texts_for_many_tokens_do_not_look_steady():
    """Least squares go through all of them: what is left of the fit itself is nothing."""
    rng = np.random.default_rng(0)
    weights, pairs = rng.normal(size=62).astype(np.float32), rng.normal(size=(62, 62)).astype(np.float32)

    def game(x_BTW):
        there = x_BTW.sum(1)
        return there @ weights + jnp.einsum("BI,IJ,BJ->B", there, pairs, there)

    made = formula(game, count=60)
    drawn = [METHODS["lime"](made, samples=32, seed=seed) for seed in range(12)]
    spread = np.std([one.values_T for one in drawn], 0, ddof=1)[made.free_T].mean()
    said = np.mean([one.errors_T for one in drawn], 0)[made.free_T].mean()
    assert 0.5 < said / spread < 2
