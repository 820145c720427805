"""The sanity check tells explanations of a model from those of a text alone."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import omnia
from data.errors import UserError
from tests.train.explain.conftest import formula, letters_experiment
from tests.train.tiny_runs import start, train
from train.explain import attribution, sanity
from train.explain.attribution import METHODS, Attributed
from train.explain.sanity import drawn_anew, rank_correlation, sanity_check
from train.explain.subject import subject_of

TEXT = "abcdexfghabcde"


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    folder = tmp_path_factory.mktemp("letters")
    run = start(folder / "run", letters_experiment(folder))
    train(run)
    return run


def edges(subject, **_) -> Attributed:
    """An edge detector of texts: what differs from its neighbours counts, whatever the model says of it."""
    return Attributed(np.where(subject.free_T, np.abs(np.gradient(subject.ids_T.astype(float))), 0.0))


def test_a_method_that_ignores_the_model_gives_one_and_a_sound_one_nearly_none(classifier, monkeypatch):
    """Adebayo et al. (2018, fig. 2): gradients change with the parameters, edges do not."""
    monkeypatch.setattr(sanity, "DRAWS", 20)
    made, found = subject_of(classifier, TEXT, answer="x"), {}
    for name, method in {**METHODS, "edges": edges}.items():
        if name in ("integrated_gradients", "gradient_x_input", "occlusion", "edges"):
            found[name] = sanity_check(made, method(made).values_T, lambda subject, method=method: method(subject).values_T)
    assert found["edges"]["rank_correlation"] == pytest.approx(1)
    assert found["edges"]["chance"] == pytest.approx(1 / np.sqrt(20 * 13))
    for name in ("integrated_gradients", "gradient_x_input", "occlusion"):
        assert abs(found[name]["rank_correlation"]) < 0.35, found


def test_it_is_shown_wherever_an_explanation_is(classifier, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(attribution.METHODS, "edges", edges)
    asked = ["explain", str(classifier.path), "--prompt", TEXT, "--answer", "x", "--sanity-check"]
    page = tmp_path / "why.html"
    assert omnia.main([*asked, "--method", "edges", "--output", str(page), "--report", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["sanity_check"]
    assert found == {"rank_correlation": pytest.approx(1), "chance": pytest.approx(1 / np.sqrt(3 * 13))}
    report = (classifier.path / "report.html").read_text()
    assert omnia.main([*asked, "--method", "lime", "--samples", "64"]) == 0
    printed = capsys.readouterr().out
    for text in (page.read_text(), report, printed):
        assert "rank correlation, parameters drawn anew" in text
    assert "+1.00" in page.read_text() and "By chance it is within 0.32 of 0" in page.read_text()
    assert "a model that has learned nothing is explained alike" in printed
    assert " ± " in printed and "standard error" in printed and "of the attributions" in printed
    assert omnia.main(["explain", str(classifier.path), "--prompt", "x", "--sanity-check"]) == 2
    assert "compares orders of tokens, and there is one" in capsys.readouterr().err


def test_standard_errors_are_shown(classifier, tmp_path, capsys):
    asked = ["explain", str(classifier.path), "--prompt", TEXT, "--answer", "x", "--method", "shap"]
    page, stable = tmp_path / "why.html", []
    for samples in ("60", "960"):
        assert omnia.main([*asked, "--samples", samples, "--output", str(page), "--json"]) == 0
        found = json.loads(capsys.readouterr().out.splitlines()[-1])
        errors = np.array(found["standard_errors"])
        assert len(errors) == len(found["tokens"]) and errors[0] == errors[-1] == 0 < errors.max()
        assert found["stability"]["standard_error"] == pytest.approx(np.sqrt(np.square(errors[1:-1]).mean()))
        stable.append(found["stability"])
        assert f" ± {errors.max():.4f}" in page.read_text() and "with another seed" in page.read_text()
    assert stable[1]["standard_error"] < stable[0]["standard_error"] / 2
    assert omnia.main([*asked[:-1], "occlusion", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert "stability" not in found and "standard_errors" not in found


def test_ranks_are_compared_as_scipy_does():
    rng = np.random.default_rng(0)
    for first, second in ((rng.normal(size=20), rng.normal(size=20)), (rng.integers(0, 4, 20), rng.integers(0, 4, 20))):
        assert rank_correlation(first, second) == pytest.approx(stats.spearmanr(first, second).statistic)
    assert rank_correlation(np.arange(5), np.exp(np.arange(5))) == pytest.approx(1)
    assert rank_correlation(np.arange(5), np.zeros(5)) == 0 and rank_correlation(np.ones(5), np.zeros(5)) == 1


def test_drawn_parameters_keep_their_scale_and_nothing_else():
    rng = np.random.default_rng(0)
    params = {
        "embedding": {"table": jnp.asarray(rng.normal(3, 2, (200, 30)), jnp.float32)},
        "layers": {"up": {"kernel": jnp.asarray(rng.normal(0, 0.1, (5, 40, 40)), jnp.float32)}},
        "head": {"bias": jnp.zeros(7)},
    }
    drawn = drawn_anew(params, jax.random.key(1))
    for before, after in zip(jax.tree.leaves(params), jax.tree.leaves(drawn), strict=True):
        assert after.shape == before.shape and after.dtype == before.dtype
        np.testing.assert_allclose([after.mean(), after.std()], [before.mean(), before.std()], rtol=0.05, atol=0.01)
    for name in ("embedding", "layers"):
        before, after = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(one[name])]) for one in (params, drawn))
        assert abs(np.corrcoef(before, after)[0, 1]) < 0.05


def test_the_same_seed_draws_the_same_and_signs_do_not_count():
    params = {"layers": {"kernel": jnp.asarray(np.random.default_rng(0).normal(0, 0.3, (2, 7, 7)), jnp.float32)}}

    def score(params, x_BTW):
        return jnp.tanh(x_BTW.sum(1) @ params["layers"]["kernel"][0] @ params["layers"]["kernel"][1]).sum(-1)

    made = formula(score, params=params)

    def method(subject):
        return METHODS["gradient_x_input"](subject).values_T

    checks = [sanity_check(made, method(made), method, seed) for seed in (1, 1, 2)]
    assert checks[0] == checks[1] != checks[2]
    assert sanity_check(made, -edges(made).values_T, lambda subject: edges(subject).values_T)["rank_correlation"] == pytest.approx(1)
    with pytest.raises(UserError, match="there is one"):
        sanity_check(formula(lambda x_BTW: x_BTW.sum((1, 2)), count=1), np.ones(3), method)
