"""What private steps cost: the published numbers, by the conversion that each of them names."""

import math

import numpy as np
import pytest

from data.errors import UserError
from train.privacy.accounting import RDP, Spending, noise_for

DELTA, RATE = 1e-5, 256 / 60000


@pytest.mark.parametrize(
    "noise, epochs, classic, rdp, pld", [(1.3, 15, 1.192, 0.954, 0.864), (1.1, 60, 3.008, 2.597, 2.382), (0.7, 45, 7.101, 6.319, 5.639)]
)
def test_known_epsilons_of_mnist(noise, epochs, classic, rdp, pld):
    """classic: what TensorFlow Privacy's tutorial states, by Mironov 2017, proposition 3, from the same divergences."""
    import dp_accounting

    spent = Spending(noise, RATE, int(epochs / RATE))
    assert spent.epsilon(DELTA, RDP) == pytest.approx(rdp, abs=1e-3)
    assert spent.epsilon(DELTA) == pytest.approx(pld, abs=1e-3)
    accountant = dp_accounting.rdp.RdpAccountant()
    event = dp_accounting.PoissonSampledDpEvent(RATE, dp_accounting.GaussianDpEvent(noise))
    accountant.compose(dp_accounting.SelfComposedDpEvent(event, spent.steps))
    epsilons = accountant._rdp + math.log(1 / DELTA) / (np.array(accountant._orders) - 1)
    assert np.nanmin(epsilons) == pytest.approx(classic, abs=1e-3)


def test_more_steps_a_higher_rate_and_less_noise_cost_more():
    base = Spending(1.0, 0.01, 100).epsilon(DELTA)
    assert base < Spending(1.0, 0.01, 200).epsilon(DELTA)
    assert base < Spending(1.0, 0.02, 100).epsilon(DELTA)
    assert base < Spending(0.9, 0.01, 100).epsilon(DELTA)
    assert base < Spending(1.0, 0.01, 100).epsilon(DELTA / 10)
    assert base < Spending(1.0, 0.01, 100, risk=DELTA / 400).epsilon(DELTA)
    assert Spending(1.0, 0.01, 100, risk=DELTA / 400).epsilon(DELTA) == Spending(1.0, 0.01, 100).epsilon(DELTA * 3 / 4)
    assert Spending(1.0, 0.01, 0).epsilon(DELTA) == 0
    assert Spending(0.0, 0.01, 1).epsilon(DELTA) == math.inf == Spending(1.0, 0.01, 100, risk=DELTA).epsilon(DELTA)


def test_without_sampling_it_is_the_gaussian_mechanism():
    """One step that draws everybody: delta of the Gaussian mechanism in closed form (Balle & Wang 2018, theorem 8)."""
    noise = 2.0
    epsilon = Spending(noise, 1.0, 1).epsilon(DELTA)
    normal = lambda x: 0.5 * math.erfc(-x / math.sqrt(2))  # noqa: E731
    delta = normal(0.5 / noise - epsilon * noise) - math.exp(epsilon) * normal(-0.5 / noise - epsilon * noise)
    assert delta == pytest.approx(DELTA, rel=1e-2)


@pytest.mark.parametrize("epsilon, rate, steps", [(3.0, RATE, 3516), (8.0, 0.0112, 40), (0.5, 0.1, 50), (0.02, 0.1, 5)])
def test_the_noise_for_an_epsilon_is_enough_and_not_too_much(epsilon, rate, steps):
    noise = noise_for(epsilon, DELTA, rate, steps)
    assert Spending(noise, rate, steps).epsilon(DELTA) <= epsilon < Spending(noise * 0.98, rate, steps).epsilon(DELTA)


def test_an_impossible_budget_is_refused():
    with pytest.raises(UserError, match="no noise makes 100 steps cost"):
        noise_for(1.0, DELTA, 0.1, 100, risk=DELTA)


def test_next_to_no_noise_costs_a_number_and_no_memory():
    """The distribution of such losses would need petabytes."""
    spent = Spending(noise_multiplier=1e-6, rate=0.1, steps=2)
    assert 1e3 < spent.epsilon(DELTA) == spent.epsilon(DELTA, RDP) < math.inf
