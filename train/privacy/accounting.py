"""What private steps cost: by Google's dp-accounting, never by arithmetic of our own.

Two data sets are neighbours where one has a unit more. Steps draw units by Poisson sampling and add Gaussian noise (Abadi et al. 2016).
"""

import dataclasses
import functools
import logging
import math

from scipy.optimize import brentq

from data.errors import UserError

MEANINGLESS = 1e3
"""An epsilon above which Rényi's bound is given for that by privacy losses too: their distributions would fill the memory."""
PLD, RDP = "privacy loss distribution", "Rényi, converted as by Canonne et al. 2020"


@dataclasses.dataclass(frozen=True)
class Spending:
    """Steps of DP-SGD. rate: probability with which a step draws a unit. noise_multiplier: standard deviation over clipping norm."""

    noise_multiplier: float
    rate: float
    steps: int
    risk: float = 0.0
    """Of each step, that it has no room for one unit more: this is added to delta."""

    def epsilon(self, delta: float, how: str = PLD) -> float:
        """The epsilon of (epsilon, delta)-differential privacy, infinity without noise."""
        return _epsilon(self, delta, how)


@functools.lru_cache(maxsize=256)
def _epsilon(spent: Spending, delta: float, how: str) -> float:
    left = _left(delta, spent.steps, spent.risk)
    if not spent.steps:
        return 0.0
    if spent.noise_multiplier <= 0 or left <= 0:
        return math.inf
    library = _library()
    by_rdp = _spent(library.rdp.RdpAccountant(), spent.noise_multiplier, spent.rate, spent.steps, left)
    if how == RDP or by_rdp > MEANINGLESS:
        return by_rdp
    found = _spent(library.pld.PLDAccountant(), spent.noise_multiplier, spent.rate, spent.steps, left)
    if not 0 < found < FINE:
        return found
    accountant = library.pld.PLDAccountant(value_discretization_interval=max(found / 1000, FINEST))
    return _spent(accountant, spent.noise_multiplier, spent.rate, spent.steps, left)


def _left(delta: float, steps: int, risk: float) -> float:
    """Of delta, where a step leaves units out that it has no room for.

    Whether the others fill the room does not depend on the unit that is there or not. Where they do not, which fails in all steps with a
    probability of steps * risk, a step is what is accounted for; so the two neighbours are mixtures with the same weights, and no more
    than that weight is added, however large epsilon is.
    """
    return delta - steps * risk


def _spent(accountant, noise: float, rate: float, steps: int, delta: float) -> float:
    """What steps cost by an accountant that has seen nothing; all of them count one unit more or less as neighbours."""
    library = _library()
    accountant.compose(library.SelfComposedDpEvent(library.PoissonSampledDpEvent(rate, library.GaussianDpEvent(noise)), steps))
    return float(accountant.get_epsilon(delta))


def noise_for(epsilon: float, delta: float, rate: float, steps: int, risk: float = 0.0) -> float:
    """The least noise multiplier, to a thousandth, by which the steps cost at most `epsilon`, by PLD. UserError where none will do.

    Rényi's bound costs little to find, also where there is so little noise that the exact epsilon takes minutes: it says where to begin.
    """
    library, left, noise = _library(), _left(delta, steps, risk), LEAST_NOISE
    grid = min(COARSE, max(epsilon / 1000, FINEST))

    def roughly(noise: float) -> float:
        return _spent(library.rdp.RdpAccountant(range(2, 65)), noise, rate, steps, left)

    def above(noise: float) -> float:
        accountant = library.pld.PLDAccountant(value_discretization_interval=grid)
        return math.log(max(_spent(accountant, noise, rate, steps, left), epsilon / 1e6) / epsilon)

    # For a small epsilon the bound is far above it, whatever the noise.
    while left > 0 and noise <= MOST_NOISE and (roughly(noise) > max(epsilon, 1.0) or above(noise) > 0):
        noise *= 2
    if left <= 0 or noise > MOST_NOISE:
        what = f"no noise makes {steps:,} steps cost epsilon {epsilon:g} at delta {delta:g}"
        raise UserError(what, "Allow more, or take fewer steps.")
    low = noise / 2
    while above(low) <= 0:
        noise, low = low, low / 2
    found = math.ceil(1000 * brentq(above, low, noise, xtol=2e-4, rtol=1e-4))
    while above(found / 1000) > 0:
        found += 1
    return found / 1000


FINE = 0.1
"""An epsilon below which the library's grid of privacy losses, 1e-4, is too coarse."""
FINEST = 5e-6
"""A finer grid takes minutes."""
LEAST_NOISE, MOST_NOISE = 2.0**-6, 1e4
COARSE = 1e-3
"""Grid of the privacy losses in the search: ten times coarser than the library's, finer for a small epsilon, and never below the truth."""


def _library():
    try:
        import dp_accounting
    except ImportError:
        raise UserError("accounting of privacy needs the package dp-accounting", "Install it: pip install 'omnia[privacy]'.") from None
    logging.getLogger("absl").setLevel(logging.ERROR)  # which warns of every order of Rényi's divergence that it leaves out
    return dp_accounting
