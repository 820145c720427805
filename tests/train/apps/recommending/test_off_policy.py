"""What an off-policy estimate promises: right on average where propensities are right, by simulation against what the policy does earn."""

import numpy as np
import pytest

from train.apps.recommending.off_policy import off_policy

ITEMS, PLACES = 6, 3


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def clicks(count: int, seed: int):
    """A log of single items in four contexts: (rewards, shown, wanted, what the other policy earns)."""
    rng = np.random.default_rng(seed)
    world = np.random.default_rng(1)
    chance_CI, logging_CI, other_CI = (
        world.random((4, ITEMS)),
        softmax(world.normal(0, 1, (4, ITEMS))),
        softmax(world.normal(0, 2, (4, ITEMS))),
    )
    context = rng.integers(4, size=count)
    item = np.array([rng.choice(ITEMS, p=logging_CI[one]) for one in context])
    rewards = (rng.random(count) < chance_CI[context, item]).astype(float)
    return rewards, logging_CI[context, item], other_CI[context, item], float((other_CI * chance_CI).sum(1).mean())


def slates(count: int, seed: int):
    """Logged slates without an item twice; a ranking in question that leaves nothing to chance. A click depends on item and place."""
    rng = np.random.default_rng(seed)
    chance_IK = np.random.default_rng(2).random((ITEMS, PLACES)) * np.array([1, 0.6, 0.3])
    slate_NK = np.array([rng.permutation(ITEMS)[:PLACES] for _ in range(count)])  # each item at each place as often: 1 in ITEMS
    rewards = (rng.random(slate_NK.shape) < chance_IK[slate_NK, np.arange(PLACES)]).astype(float)
    ranking = np.array([4, 0, 5])
    wanted = (slate_NK == ranking).astype(float)
    return rewards, np.full(slate_NK.shape, 1 / ITEMS), wanted, float(chance_IK[ranking, np.arange(PLACES)].sum())


@pytest.mark.parametrize("log", [clicks, slates])
def test_the_mean_over_many_logs_is_what_the_policy_earns(log):
    """Within four standard errors of the mean, plain and normalised; and the intervals hold the truth about as often as they say."""
    found = [off_policy(*log(300, seed)[:3]) for seed in range(30)]
    truth = log(2, 0)[3]
    for name, slack in (("plain", 0.0), ("normalised", 0.01)):
        values = np.array([getattr(one, name).value for one in found])
        assert abs(values.mean() - truth) < 4 * values.std() / np.sqrt(len(values)) + slack
        inside = np.mean([getattr(one, name).low <= truth <= getattr(one, name).high for one in found])
        assert inside > 0.8


def test_propensities_that_are_wrong_are_seen_in_the_estimate():
    """So the test above can fail: taken as uniform, the log of a policy that is not tells something else."""
    values = []
    for seed in range(30):
        rewards, shown, wanted, truth = clicks(300, seed)
        values.append(off_policy(rewards, np.full_like(shown, 1 / ITEMS), wanted).plain.value)
    assert abs(np.mean(values) - truth) > 4 * np.std(values) / np.sqrt(len(values))


def test_equations_by_hand():
    rewards, shown, wanted = [1.0, 0.0, 1.0], [0.5, 0.25, 0.1], [0.5, 0.5, 1.0]  # weights 1, 2, 10
    found = off_policy(rewards, shown, wanted, clip=4.0)
    assert found.plain.value == pytest.approx(11 / 3)
    assert found.normalised.value == pytest.approx(11 / 13)
    assert found.clipped.value == pytest.approx(5 / 3)
    assert found.effective == pytest.approx(13**2 / (1 + 4 + 100))


def test_the_logging_policy_itself_earns_what_it_earned():
    rewards, shown, _, _ = clicks(300, 0)
    found = off_policy(rewards, shown, shown)
    assert found.plain.value == found.normalised.value == found.clipped.value == pytest.approx(rewards.mean())
    assert found.effective == pytest.approx(300)


def test_clipping_never_gains_and_narrows():
    rewards, shown, wanted, _ = slates(300, 3)
    free, tight = off_policy(rewards, shown, wanted, clip=100), off_policy(rewards, shown, wanted, clip=2)
    assert free.clipped == free.plain and tight.clipped.value < free.plain.value
    assert tight.clipped.high - tight.clipped.low < free.plain.high - free.plain.low
    assert off_policy(rewards, shown, np.zeros_like(shown)).effective == 0


@pytest.mark.parametrize(
    "rewards, shown, wanted, clip, what",
    [
        ([1.0], [0.5, 0.5], [1.0], 10, "no log"),
        ([], [], [], 10, "no log"),
        ([np.nan], [0.5], [1.0], 10, "no number"),
        ([1.0], [0.0], [1.0], 10, "has none"),
        ([1.0], [0.5], [1.5], 10, "between 0 and 1"),
        ([1.0], [0.5], [np.nan], 10, "between 0 and 1"),
        ([1.0], [0.5], [1.0], 0, "clip"),
    ],
)
def test_what_is_no_log_is_refused(rewards, shown, wanted, clip, what):
    with pytest.raises(ValueError, match=what):
        off_policy(rewards, shown, wanted, clip=clip)
