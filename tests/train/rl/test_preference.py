"""Losses on comparisons against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.train.rl.comparisons import LENGTH, RESPONSES, ROWS, comparisons
from tests.train.rl.conftest import DECODER, moved, parameters
from train.objectives.preference.preference import PreferenceLearningLoss, preference_loss
from train.objectives.preference.reward_model import RewardModellingLoss, choice_loss, flat, score_texts
from train.rl.options import PreferenceLearning, RewardModelling

LOSSES = ["dpo", "ipo", "hinge", "kto", "orpo"]


@jax.jit
def log_probs(params, batch):
    """[B, K]: of whole responses, the logits at once."""
    tokens, segments, positions = (x.reshape(-1, LENGTH) for x in (batch.tokens, batch.segments, batch.positions))
    hidden = DECODER.apply({"params": params}, tokens, segments_BT=segments, positions_BT=positions).hidden_BTD
    log_p = jax.nn.log_softmax(hidden @ params["embedding"]["table"].T).reshape(*batch.tokens.shape, -1)
    return (jnp.take_along_axis(log_p, batch.targets[..., None], -1)[..., 0] * batch.weights).sum(-1)


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_by_their_definitions(loss):
    """The best and the next of each row that has two; NumPy, from the papers."""
    batch, reference, params = comparisons(), parameters(), moved(parameters())
    objective = PreferenceLearningLoss(DECODER, PreferenceLearning(loss=loss, beta=0.3))
    terms, metrics, _ = jax.jit(lambda params: objective(params, batch, None, frozen={"reference": reference}))(params)
    own, other = np.asarray(log_probs(params, batch), np.float64), np.asarray(log_probs(reference, batch), np.float64)
    pairs = [(0, 2, 0), (1, 1, 0), (2, 0, 1)]  # row, the best, the next that is there
    r = own - other
    c, d = (np.array([r[row, at] for row, *both in pairs for at in [both[side]]]) for side in (0, 1))
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    lengths = np.asarray(batch.weights.sum(-1))
    p, q = (np.array([own[row, both[side]] / lengths[row, both[side]] for row, *both in pairs]) for side in (0, 1))
    odds = lambda x: x - np.log(1 - np.exp(x))  # noqa: E731
    baseline = max(0.0, float(np.mean([c, d])))
    expected = {
        "dpo": -np.log(sigmoid(0.3 * (c - d))),
        "ipo": (c - d - 1 / 0.6) ** 2,
        "hinge": np.maximum(0, 1 - 0.3 * (c - d)),
        "kto": 2 - sigmoid(0.3 * (c - baseline)) - sigmoid(0.3 * (baseline - d)),
        "orpo": 0.3 * -np.log(sigmoid(odds(p) - odds(q))),
    }[loss]
    np.testing.assert_allclose(terms["loss"].total, expected.sum(), rtol=2e-4)
    assert terms["loss"].weight == 3
    if loss == "orpo":
        chosen = sum(own[row, best] for row, best, _ in pairs)
        np.testing.assert_allclose(terms["likelihood"].total, -chosen, rtol=1e-4)
    else:
        np.testing.assert_allclose(metrics["chosen"].total, c.sum(), rtol=1e-3, atol=1e-4)


def test_smoothing_takes_a_share_of_the_pairs_the_other_way_round():
    chosen, rejected = jnp.array([1.0, -2.0, 0.5]), jnp.array([0.2, 0.4, 0.5])
    plain, turned = (preference_loss("dpo", *pair, beta=0.3) for pair in ((chosen, rejected), (rejected, chosen)))
    np.testing.assert_allclose(preference_loss("dpo", chosen, rejected, beta=0.3, smoothing=0.2), 0.8 * plain + 0.2 * turned, rtol=1e-6)


def test_scores_are_chosen_by_or_regressed_on():
    """Of two, Bradley and Terry, and swapping them turns the margin. Scores in the file: half the squared error of those there are."""
    two = np.array([[1.5, 0.2], [0.2, 1.5]], np.float32)
    found = choice_loss(jnp.asarray(two), jnp.zeros(2, int), jnp.ones((2, 2)), margin=0.4)
    np.testing.assert_allclose(found.loss, -np.log(1 / (1 + np.exp(-(np.array([1.3, -1.3]) - 0.4)))), rtol=1e-5)
    assert found.hit.tolist() == [1, 0] and found.margin[0] == -found.margin[1]

    batch, objective = comparisons(), RewardModellingLoss(DECODER, RewardModelling(loss="score", centre=0.0))

    @jax.jit
    def call(params):
        whole, inside = (jnp.concatenate([x[..., :1], y], -1) for x, y in ((batch.tokens, batch.targets), (batch.segments,) * 2))
        return objective(params, batch, None)[0]["loss"], score_texts(DECODER, params, flat(whole), flat(inside))

    loss, scores = call(parameters("shared"))
    error = 0.5 * np.square(np.asarray(scores).reshape(ROWS, RESPONSES) - batch.scores) * batch.present
    np.testing.assert_allclose(loss.total, (error.sum(1) / batch.present.sum(1) * batch.counts).sum(), rtol=1e-5)
    assert loss.weight == 3
