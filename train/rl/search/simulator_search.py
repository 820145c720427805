"""Search as a policy for simulators whose user is hidden: the rules of train/rl/environments/simulators.py, batched for a tree search.

Determinised search (Cowling et al. 2012, sec. IV-A): the users that all replies so far allow are weighed by how likely they are, some are
sampled, the talk with each is searched as if that user were known, and what the searches found is averaged. It sees prompts and replies
alone. What it cannot do is value a question: in every search the user is known, so it believes that it will know the same later
("strategy fusion"). A simulator keeps it honest by what `choose` lets an action do.

Every action has a search of its own behind it. One search from the root would hardly try what is bad in its world, so its value there is
known worst where it matters most; averages of such values, and still more of the searches' weights, chose worse (docs/log.md).

In shapes B is conversations, W worlds of each, U users, A actions.
"""

import dataclasses
import functools
import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from train.rl.environments.environment import Prompt
from train.rl.environments.simulators import HiddenUser, take
from train.rl.search.search import Policy, plan, random_play

Said = tuple[str, ...]
"""The turns of the policy so far, the first one first."""
Turns = Callable[[Sequence[Prompt], Sequence[Said], Any], list[str]]
"""A policy: the next turn in each conversation, from the prompts, what was said, and a key."""


class World(flax.struct.PyTreeNode):
    """A talk with a user: both the simulator's own NamedTuples."""

    user: Any
    talk: Any

    @property
    def reward(self):
        return self.talk.reward

    @property
    def terminal(self):
        return self.talk.terminal


@dataclasses.dataclass(frozen=True)
class HiddenUserTask:
    """A simulator as a task of train/rl/search/search.py, on one world at a time."""

    simulator: HiddenUser

    @property
    def actions(self) -> int:
        return self.simulator.actions

    def step(self, world: World, action) -> World:
        move = self.simulator.choose(world.talk, action, jnp)
        after = self.simulator.advance(world.user, world.talk, move, jnp)
        frozen = world.talk._replace(reward=jnp.zeros_like(world.reward))
        return world.replace(talk=jax.tree.map(lambda old, new: jnp.where(world.terminal, old, new), frozen, after))

    def legal(self, world: World):
        return jnp.broadcast_to(~world.terminal, (self.actions,))


# ------------------------------------------------------------------------------------------------------------------- believing


class Belief(NamedTuple):
    """weights_U: float, sums to 1, how likely each user is after all that was heard. talks: the state with each user, were it that one."""

    weights_U: np.ndarray
    talks: Any


def believe(simulator: HiddenUser, text: str, said: Said, replies: Sequence[str]) -> Belief:
    """Bayes' rule: users who would have replied otherwise, or left, are ruled out. replies: to each turn said."""
    users = simulator.users
    weights_U, talks = simulator.likelihood(text), simulator.begin(text, users)
    for turn, reply in zip(said, replies, strict=True):
        move, heard = simulator.read(turn), simulator.understand(reply)
        talks = simulator.advance(users, talks, np.broadcast_to(move, (len(weights_U), *move.shape)))
        same_U = (talks.heard == heard).reshape(len(weights_U), -1).all(-1)
        weights_U = weights_U * (same_U & ~talks.terminal)
    return Belief(weights_U / weights_U.sum(), talks)


def observe(simulator: HiddenUser, prompt: Prompt, said: Said) -> Belief:
    """What is believed after hearing the replies to all that was said."""
    replies = [simulator.reply(prompt, said[: number + 1]).text for number in range(len(said))]
    return believe(simulator, prompt.text, said, replies)


def any_talk(belief: Belief):
    """The talk as any user who may be there sees it: all that `choose` looks at is the same for all of them."""
    return take(belief.talks, int(belief.weights_U.argmax()))


# ------------------------------------------------------------------------------------------------------------------- searching


@dataclasses.dataclass(frozen=True)
class Determinised:
    """How to search."""

    policy: Policy = "max"
    """Of train/rl/search/search.py."""
    simulations: int = 64
    """Of each world, divided among the actions; each gets one at least."""
    worlds: int = 16
    """Users sampled from what is believed, evenly over the cumulated weights: a user with a share of 1 / worlds or more is always there."""


def act(simulator: HiddenUser, prompt: Prompt, said: Said, key, options: Determinised = Determinised()) -> str:
    """The turn that a search takes after what was said."""
    return search_turns(simulator, options, rows=1)([prompt], [said], key)[0]


def search_turns(simulator: HiddenUser, options: Determinised, *, rows: int) -> Turns:
    """The search as a policy, which searches `rows` conversations at a time, always as many, so that it is compiled once."""

    def turns(prompts, said, key):
        found: list[str] = []
        for first in range(0, len(prompts), rows):
            beliefs = [observe(simulator, *one) for one in zip(prompts[first : first + rows], said[first : first + rows], strict=True)]
            count, (sample_key, search_key) = len(beliefs), jax.random.split(jax.random.fold_in(key, first))
            rng = _generator(sample_key)
            worlds = [_sample(simulator, belief, rng, options.worlds) for belief in beliefs]
            worlds_BW = jax.tree.map(lambda *leaves: np.stack(leaves), *worlds, *[worlds[0]] * (rows - count))
            value_BA = np.asarray(_search(simulator, options, search_key, worlds_BW))[:count]
            found += [_turn(simulator, belief, action) for belief, action in zip(beliefs, value_BA.argmax(-1), strict=True)]
        return found

    return turns


def _generator(key) -> np.random.Generator:
    return np.random.default_rng(np.asarray(jax.random.key_data(key)))


def _turn(simulator: HiddenUser, belief: Belief, action) -> str:
    return simulator.write(simulator.choose(any_talk(belief), np.asarray(action)))


def _sample(simulator: HiddenUser, belief: Belief, rng: np.random.Generator, worlds: int) -> World:
    """Worlds [W], by systematic sampling."""
    places_W = (np.arange(worlds) + rng.random()) / worlds * belief.weights_U.sum()
    which_W = np.searchsorted(belief.weights_U.cumsum(), places_W, side="right").clip(max=np.flatnonzero(belief.weights_U)[-1])
    return World(take(simulator.users, which_W), take(belief.talks, which_W))


@functools.partial(jax.jit, static_argnames=("simulator", "options"))
def _search(simulator: HiddenUser, options: Determinised, key, worlds_BW: World):
    """float32 [B, A]: what each action is worth, averaged over the worlds."""
    task = HiddenUserTask(simulator)
    actions, evaluate = jnp.arange(task.actions), random_play(task, 1.0, longest=simulator.turns)
    step_A = jax.vmap(task.step, (None, 0))
    after_BWA = jax.vmap(jax.vmap(step_A, (0, None)), (0, None))(worlds_BW, actions)
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[3:]), after_BWA)
    simulations = max(1, options.simulations // task.actions)
    found = plan(task, evaluate, None, key, flat, discount=1.0, simulations=simulations, policy=options.policy)
    best = jnp.where(found.visits_BA > 0, found.q_BA, -jnp.inf).max(-1)
    q = flat.reward + jnp.where(flat.terminal, 0.0, best)
    return q.reshape(after_BWA.terminal.shape).mean(1)


# -------------------------------------------------------------------------------------------------------------- other policies


def random_turns(simulator: HiddenUser) -> Turns:
    """Any of a search's actions."""

    def turns(prompts, said, key):
        actions = _generator(key).integers(0, simulator.actions, len(prompts))
        beliefs = [observe(simulator, *one) for one in zip(prompts, said, strict=True)]
        return [_turn(simulator, *one) for one in zip(beliefs, actions, strict=True)]

    return turns


def scripted_turns(simulator: HiddenUser) -> Turns:
    """The simulator's own `act`: what is imitated at the start."""

    def turns(prompts, said, key):
        seeds = _generator(key).integers(0, 2**32, len(prompts)).tolist()
        return [simulator.act(prompt, past, random.Random(seed)) for prompt, past, seed in zip(prompts, said, seeds, strict=True)]

    return turns


def greedy_turns(simulator: HiddenUser) -> Turns:
    """The action whose gain at once is the largest on average over all users who may be there, exactly."""

    def expected(belief: Belief, action: int) -> float:
        move = simulator.choose(any_talk(belief), np.asarray(action))
        after = simulator.advance(simulator.users, belief.talks, np.broadcast_to(move, (len(belief.weights_U), *move.shape)))
        return float((belief.weights_U * after.gain).sum())

    def turns(prompts, said, key):
        beliefs = [observe(simulator, *one) for one in zip(prompts, said, strict=True)]
        return [_turn(simulator, x, max(range(simulator.actions), key=functools.partial(expected, x))) for x in beliefs]

    return turns


def play(simulator: HiddenUser, prompts: Sequence[Prompt], turns: Turns, key) -> np.ndarray:
    """Hold conversations to their ends; float [B], the sum of each one's rewards."""
    return earned(simulator, prompts, turns, key).sum(1)


def earned(simulator: HiddenUser, prompts: Sequence[Prompt], turns: Turns, key) -> np.ndarray:
    """The reward of each turn of such conversations, float [B, turns]: 0 after their ends."""
    said: list[Said] = [()] * len(prompts)
    found, open_ = np.zeros((len(prompts), simulator.turns)), list(range(len(prompts)))
    for number in range(simulator.turns):
        if open_:
            following = turns([prompts[i] for i in open_], [said[i] for i in open_], jax.random.fold_in(key, number))
            replies = []
            for i, turn in zip(open_, following, strict=True):
                said[i] = (*said[i], turn)
                replies.append(simulator.reply(prompts[i], said[i]))
                found[i, number] = replies[-1].reward
            open_ = [i for i, reply in zip(open_, replies, strict=True) if not reply.ends]
    return found
