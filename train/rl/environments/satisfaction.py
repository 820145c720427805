"""Simulated readers whom click bait tires: what is clicked now may cost clicks later. See train/rl/environments/simulators.py."""

import dataclasses
import functools
import itertools
import string
from typing import Any, NamedTuple

import numpy as np

from train.kinds import check_range
from train.rl.environments.environment import Prompt
from train.rl.environments.simulators import HiddenUser

TOPICS = "abcd"
KINDS = TOPICS + TOPICS.upper()
"""Items by topic: small letters are solid, capitals bait."""
MOST = 3
"""The largest pull of an item: bait on what is liked most."""


class Reader(NamedTuple):
    """taste_C: int32, 0 to 2 for each topic."""

    taste_C: Any


class Reading(NamedTuple):
    """exposure: float32, what was read of late, bait counting -1 and solid items 1. heard: int32, LEVELS_HEARD * the item taken + the tenth
    that its probability of a click lies in. turn: int32."""

    exposure: Any
    heard: Any
    turn: Any
    gain: Any
    reward: Any
    terminal: Any


LEVELS_HEARD = 10


@dataclasses.dataclass(frozen=True)
class Satisfaction(HiddenUser):
    """Name a slate of items a turn (`aB`): bait is clicked more at once, and makes all later clicks rarer (after the long-term satisfaction
    environment of RecSim, Ie et al. 2019, sec. 5).

    The user takes the item of the slate with the greatest pull: the taste for its topic, and 1 more for bait; the first of equals. It is
    clicked with the probability satisfaction * pull / 3, which is the reward of the turn: nothing but the user is left to chance.
    Satisfaction is 1 / (1 + exp(-sensitivity * exposure)), and exposure becomes memory * exposure, plus 1 after a solid item that was
    taken, less 1 after bait. A turn that is no slate earns nothing and leaves nothing.
    """

    turns: int = 8
    """Turns of a session."""
    slate: int = 2
    """Items named in a turn, one letter each."""
    sensitivity: float = 0.5
    """How much exposure counts."""
    memory: float = 0.8
    """Share of the exposure that is left a turn later, 0 to below 1."""

    def __post_init__(self):
        super().__post_init__()
        check_range("Satisfaction: ", self, 1, "slate")
        check_range("Satisfaction: ", self, 0, "sensitivity")
        check_range("Satisfaction: ", self, 0, "memory", high=1)

    @property
    def alphabet(self):
        return KINDS + string.digits + "hi?"

    @property
    def held_out(self):
        return False  # every talk begins alike

    @property
    def actions(self):
        return len(KINDS) ** self.slate

    @property
    def users(self):
        return _readers()

    def likelihood(self, text):
        return np.ones(len(self.users.taste_C))

    def draw(self, rng):
        return Prompt("hi", {"user": rng.randrange(len(self.users.taste_C)), "manner": 0})

    def begin(self, text, user, xp=np):
        zero = xp.zeros(user.taste_C.shape[:-1], np.float32)
        none = zero.astype(np.int32)
        return Reading(zero, none - 1, none, zero, zero, zero > 0)

    def advance(self, user, state, move, xp=np):
        """move: int32 [K], items."""
        makes_sense, turn = (move >= 0).all(-1), state.turn + 1
        of_KC = (move % len(TOPICS))[..., None] == xp.arange(len(TOPICS))
        pull_K = (of_KC * user.taste_C[..., None, :]).sum(-1) + (move >= len(TOPICS))
        taken_K = pull_K.argmax(-1)[..., None] == xp.arange(self.slate)
        item = (taken_K * move).sum(-1)
        satisfaction = 1 / (1 + xp.exp(-self.sensitivity * state.exposure))
        click = xp.where(makes_sense, satisfaction * pull_K.max(-1) / MOST, 0.0).astype(np.float32)
        change = xp.where(item >= len(TOPICS), -1.0, 1.0) * makes_sense
        level = xp.minimum(xp.floor(click * LEVELS_HEARD), LEVELS_HEARD - 1).astype(np.int32)
        return Reading(
            exposure=(self.memory * state.exposure + change).astype(np.float32),
            heard=xp.where(makes_sense, LEVELS_HEARD * item + level, -1).astype(np.int32),
            turn=turn,
            gain=click,
            reward=click,
            terminal=turn >= self.turns,
        )

    def choose(self, state, action, xp=np):
        """An action is an item for each place of the slate."""
        return action[..., None] // len(KINDS) ** xp.arange(self.slate)[::-1] % len(KINDS)

    def read(self, turn):
        if len(turn) != self.slate or not set(turn) <= set(KINDS):
            return np.full(self.slate, -1, np.int32)
        return np.array([KINDS.index(letter) for letter in turn], np.int32)

    def write(self, move):
        return "".join(KINDS[item] for item in move)

    def say(self, state, move, manner):
        item, level = divmod(int(state.heard), LEVELS_HEARD)
        return f"{KINDS[item]}{level}" if state.heard >= 0 else "?"

    def understand(self, reply):
        return np.int32(-1 if reply == "?" else LEVELS_HEARD * KINDS.index(reply[0]) + int(reply[1]))

    def act(self, prompt, said, rng):
        """Any slate."""
        return "".join(rng.choice(KINDS) for _ in range(self.slate))


@functools.cache
def _readers() -> Reader:
    """All but those who like nothing."""
    return Reader(np.array(list(itertools.product(range(3), repeat=len(TOPICS)))[1:], np.int32))
