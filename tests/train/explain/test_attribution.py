"""Attributions have the properties that their papers promise: closed forms of linear models, the axioms of Shapley, planted keywords."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import omnia
from data.errors import UserError
from tests.train.conftest import change
from tests.train.explain.conftest import formula, letters_experiment
from tests.train.tiny_runs import start, train
from train.explain.attribution import METHODS, completeness, faithfulness
from train.explain.explaining import explained
from train.explain.page import page_of
from train.explain.subject import subject_of

WEIGHTS = np.linspace(-2, 3, 7).astype(np.float32)
LINEAR = formula(lambda x_BTW: (x_BTW @ WEIGHTS).sum(-1))
LINEAR_SHARES = np.where(LINEAR.free_T, WEIGHTS[LINEAR.ids_T], 0)


def _game(x_BTW):
    """Tokens 1 and 2 count together alone, 3 and 4 the same by themselves, 5 nothing."""
    there = x_BTW.sum(1)
    return 4 * there[:, 1] * there[:, 2] + jnp.tanh(there[:, 3] + there[:, 4])


GAME = formula(_game)


@pytest.mark.parametrize("method", [name for name in METHODS if name != "rollout"])
def test_of_a_linear_model_every_method_gives_the_weights(method):
    np.testing.assert_allclose(METHODS[method](LINEAR).values_T, LINEAR_SHARES, atol=2e-2 if method == "lime" else 1e-5)
    assert completeness(LINEAR, LINEAR_SHARES) < 1e-6


@pytest.mark.parametrize("method", ["shap", "permutations", "partition", "integrated_gradients"])
def test_shares_add_up_and_what_does_nothing_gets_nothing(method, monkeypatch):
    """Efficiency and dummy for all; symmetry for those that have it in any order of the text."""
    if method == "permutations":
        monkeypatch.setattr("train.explain.attribution.EXACT", 0)
    found = METHODS["shap" if method == "permutations" else method](GAME, samples=512).values_T
    assert completeness(GAME, found) < 1e-3 and abs(found[5]) < 1e-6
    np.testing.assert_allclose(found[1], found[2], atol=0.2 if method == "permutations" else 1e-3)
    np.testing.assert_allclose(found[3], found[4], atol=0.1 if method == "permutations" else 1e-3)
    assert found[[0, 6]].tolist() == [0, 0]


@pytest.mark.parametrize("step", [1, 100, 10_000])
def test_gradients_are_taken_where_the_number_changes(step):
    """Of a number that jumps within a ten-thousandth of the way, points at equal distances would see nothing."""
    asked = []

    def jumps(x_BTW):
        there_B = (x_BTW[:, 1:6] @ np.arange(7, dtype=np.float32)).sum(-1) / 15
        return jax.nn.sigmoid(step * (there_B - 0.7))

    made = formula(jumps)
    gradient = made.gradient
    made.gradient = lambda shift_BTW: asked.append(len(shift_BTW)) or gradient(shift_BTW)
    found = METHODS["integrated_gradients"](made).values_T
    assert completeness(made, found) < 1e-3 and sum(asked) < 200
    np.testing.assert_allclose(found[1:6] / found.sum(), np.arange(1, 6) / 15, atol=1e-3)


def test_tokens_get_what_each_of_them_does():
    """One lifts the number at a third of the way, another lowers it twice as much later on."""

    def jumps(x_BTW):
        return jax.nn.sigmoid(200 * (x_BTW[:, 1, 1] - 0.3)) - 2 * jax.nn.sigmoid(500 * (x_BTW[:, 3, 3] - 0.8))

    np.testing.assert_allclose(METHODS["integrated_gradients"](formula(jumps)).values_T, np.array([0, 1, 0, -2, 0, 0, 0]), atol=3e-3)


def test_a_polynomial_is_integrated_by_the_first_points():
    made = formula(lambda x_BTW: x_BTW[:, 1:6].sum((1, 2)) ** 7)
    np.testing.assert_allclose(METHODS["integrated_gradients"](made, samples=1).values_T, 5**6 * made.free_T, rtol=1e-5)


def test_the_error_of_permutations_falls_with_their_number(monkeypatch):
    exact = METHODS["shap"](GAME).values_T
    monkeypatch.setattr("train.explain.attribution.EXACT", 0)
    errors = [
        np.mean([np.square(METHODS["shap"](GAME, samples=n, seed=seed).values_T - exact).sum() for seed in range(20)]) for n in (20, 320)
    ]
    assert errors[1] < errors[0] / 4


def test_a_faithful_order_beats_random_ones():
    found = faithfulness(LINEAR, LINEAR_SHARES)
    assert found["deletion"] < found["deletion_random"] and found["insertion"] > found["insertion_random"]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted")
    run = start(folder / "run", letters_experiment(folder))
    assert train(run)["validation"]["accuracy"] > 0.98
    return run


@pytest.mark.parametrize("method", ["integrated_gradients", "shap", "lime"])
def test_planted_letters_come_first(classifier, method):
    rng, right = np.random.default_rng(1), 0
    subjects = {letter: subject_of(classifier, f"abcdefg{letter}", answer=letter) for letter in "xy"}
    for number in range(40):
        letters = list(rng.choice(list("abcdefgh"), 8))
        place = int(rng.integers(8))
        letters[place] = "xy"[number % 2]
        made = subjects["xy"[number % 2]]
        made = dataclasses.replace(made, ids_T=made.ids_T.copy())
        made.ids_T[1:9] = classifier.tokenizer().encode("".join(letters))
        found = explained(made, method, samples=128)
        right += int(np.argmax(found["attributions"])) == place + 1
        assert found.get("completeness_error", 0) < 1e-2
    # Chance finds 5. On the way from the baseline stand vectors that no text has, and gradients tell what the model does with those, too.
    assert right >= (32 if method == "integrated_gradients" else 38), right


def test_a_decoder_by_the_command_line(tiny, tmp_path, capsys):
    run = start(tmp_path / "run", change(tiny, steps=4, model={"num_layers": 2}))
    train(run)
    asked = ["explain", str(run.path), "--prompt", "the cat sat", "--answer", "o", "--against", "e"]
    page = tmp_path / "why.html"
    assert omnia.main([*asked, "--output", str(page), "--lens", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len(found["tokens"]) == len(found["attributions"]) == 12 and "".join(found["tokens"]) == "the cat sat"
    assert found["completeness_error"] < 1e-3 and found["answer"] == "o" and found["against"] == "e"
    assert found["value"] - found["baseline_value"] == pytest.approx(sum(found["attributions"]), abs=1e-3)
    alone = subject_of(run, "the cat sat", answer="o")  # whose number is the log-odds of the model's probability
    last, odds = found["lens"][-1], np.exp(alone.values([alone.free_T])[0])
    assert [one["layer"] for one in found["lens"]] == [1, 2] and last["answer"] == pytest.approx(odds / (1 + odds), rel=1e-4)
    assert all(len(one["likeliest"]) == 5 and one["likeliest"][0][1] >= one["likeliest"][1][1] for one in found["lens"])
    text = page.read_text()
    assert "Layer by layer" in text
    assert "://" not in text and "<script" not in text and "default-src 'none'" in text
    before = (run.path / "report.html").read_text() if (run.path / "report.html").is_file() else ""
    assert "Why " not in before
    for method in ("gradient_x_input", "occlusion"):  # the later in place of the earlier
        assert omnia.main([*asked, "--method", method, "--report"]) == 0
    report = (run.path / "report.html").read_text()
    assert report.count("Why &#x27;o&#x27;, and not &#x27;e&#x27;? Occlusion") >= 1 and "Gradient x input" not in report
    assert "the cat sat" in report and "nats" in report and "deletion" in report
    assert omnia.main([*asked, "--method", "rollout"]) == 0
    made = subject_of(run, "the cat sat")
    weights = made.attention(made.params, made.ids_T)
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
    assert not np.triu(weights[0, 0], 1).any()
    rolled = METHODS["rollout"](made).values_T
    half = [0.5 * layer.mean(0) + 0.5 * np.eye(weights.shape[-1]) for layer in weights]
    expected = (half[1] @ half[0])[made.reader]
    np.testing.assert_allclose(rolled[made.free_T], expected[made.free_T], rtol=1e-5)
    assert rolled.min() >= 0 and 0 < rolled.sum() <= 1 + 1e-6  # shares of the whole, of which the first token has its own
    for options, said in (
        (["--prompt", ""], "--prompt is empty"),
        (["--prompt", "a", "--method", "shaq"], "did you mean 'shap'"),
        (["--prompt", "a", "--pair", "b"], "runs that classify pairs"),
        (["--prompt", "a" * 400], "the model reads 32"),
        (["--prompt", "a", "--output", "x.txt"], "is no page"),
        (["--prompt", "a", "--seed", "-1"], "--seed is -1"),
        (["--prompt", "a", "--answer", "o", "--against", "o"], "is the answer itself"),
    ):
        assert omnia.main(["explain", str(run.path), *options]) == 2
        assert said in capsys.readouterr().err


def test_what_is_no_label_is_refused(classifier):
    with pytest.raises(UserError, match="'z' is none of the run's labels"):
        subject_of(classifier, "abc", answer="z")
    with pytest.raises(UserError, match="classifies single texts"):
        subject_of(classifier, "abc", pair="d")


def test_a_page_escapes_what_it_shows():
    found = {"method": "m", "answer": "<b>", "against": "", "tokens": ["<script>"], "attributions": [1.0]}
    page = page_of(found | {"value": 0.0, "baseline_value": 0.0, "faithfulness": {"deletion": 0.1}})
    assert "<script>" not in page and "&lt;script&gt;" in page and "<b><b>" not in page
