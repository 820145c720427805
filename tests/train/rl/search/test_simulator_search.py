"""Search over users who are hidden: the same rules as the text's, nothing seen that was not said, and better talks than without."""

import itertools
import random

import jax
import numpy as np
import pytest

from train.rl.environments.environment import Prompt
from train.rl.environments.satisfaction import Satisfaction
from train.rl.environments.simulators import Recommendations, SlotFilling, take
from train.rl.search.simulator_search import (
    Determinised,
    HiddenUserTask,
    World,
    act,
    greedy_turns,
    observe,
    play,
    random_turns,
    scripted_turns,
    search_turns,
)

TALK, RECOMMEND = SlotFilling(turns=4), Recommendations(turns=4)
SLATES = Recommendations(turns=3, slate=2)
every_simulator = pytest.mark.parametrize(
    "simulator", [TALK, RECOMMEND, SLATES, SlotFilling(turns=3, every_offer=True), Satisfaction(turns=3)], ids=str
)


def fixed_prompts(simulator, count=32):
    return [simulator.prompt(0, row, "validation") for row in range(count)]


@every_simulator
def test_an_array_conversation_is_the_one_in_text(simulator):
    """Random actions, 64 conversations at once in JAX and each alone in text: the same rewards and ends, and nothing after them."""
    prompts, task = fixed_prompts(simulator, 64), HiddenUserTask(simulator)
    users = [take(simulator.users, prompt.facts["user"]) for prompt in prompts]
    worlds = [World(user, simulator.begin(prompt.text, user)) for user, prompt in zip(users, prompts, strict=True)]
    state = jax.tree.map(lambda *leaves: np.stack(leaves), *worlds)
    step, legal = jax.jit(jax.vmap(task.step)), jax.vmap(task.legal)
    said, rng = [()] * 64, np.random.default_rng(0)
    ended = np.zeros(64, bool)
    for _ in range(simulator.turns + 1):
        actions = rng.integers(0, simulator.actions, 64).astype(np.int32)
        assert (np.asarray(legal(state)) == ~ended[:, None]).all()
        state = jax.device_get(step(state, actions))
        for i in range(64):
            if ended[i]:
                assert state.reward[i] == 0 and state.terminal[i]
                continue
            public = simulator.follow(prompts[i], said[i])
            said[i] = (*said[i], simulator.write(simulator.choose(public, actions[i])))
            reply = simulator.reply(prompts[i], said[i])
            assert (state.reward[i], state.terminal[i]) == (pytest.approx(reply.reward), reply.ends), said[i]
            ended[i] = reply.ends
    assert ended.all()


@every_simulator
def test_what_is_believed_holds_the_truth_and_only_what_fits_it(simulator):
    """The user who is there is never ruled out; every user believed in would have said the same, word for word."""
    rng = random.Random(0)
    for prompt in fixed_prompts(simulator, 12):
        said = ()
        while True:
            belief, manner = observe(simulator, prompt, said), prompt.facts["manner"]
            assert belief.weights_U[prompt.facts["user"]] > 0 and belief.weights_U.sum() == pytest.approx(1)
            for user in rng.sample(np.flatnonzero(belief.weights_U).tolist(), 1):
                other = Prompt(prompt.text, {"user": user, "manner": manner})
                for number in range(len(said)):
                    assert simulator.reply(other, said[: number + 1]).text == simulator.reply(prompt, said[: number + 1]).text
            said = (*said, simulator.act(prompt, said, rng))
            if simulator.reply(prompt, said).ends:
                break


def number_of(simulator, **fields):
    users = simulator.users
    fits = [np.asarray(getattr(users, name) == value).reshape(len(users[0]), -1).all(-1) for name, value in fields.items()]
    return int(np.flatnonzero(np.all(fits, 0))[0])


SEARCHES = {TALK: Determinised("max", 16, 8), RECOMMEND: Determinised("gumbel", 16, 8)}


def searched(simulator, prompts, said, seed):
    """The searcher's turns, 32 prompts at a time, so that all tests share what is compiled."""
    return search_turns(simulator, SEARCHES[simulator], rows=32)(prompts, said, jax.random.key(seed))


def test_the_search_does_not_see_what_was_not_said():
    """Two users whose replies are alike so far get the same turn, be they ever so different."""
    talk = [{"wish_S": (1, 0, 0), "patience": 6, "talkative": False}, {"wish_S": (1, 2, 3), "patience": 4, "talkative": False}]
    for simulator, text, pair, openings in (
        (TALK, "hi", talk, [(), ("food?",)]),
        (RECOMMEND, "i like alien and bach", [{"taste_C": (2, 3, 0, 0)}, {"taste_C": (2, 1, 3, 2)}], [(), ("alien",)]),
    ):
        prompts = [Prompt(text, {"user": number_of(simulator, **fields), "manner": 0}) for fields in pair]
        assert simulator.reply(prompts[0], openings[1]) == simulator.reply(prompts[1], openings[1])
        for said, seed in itertools.product(openings, range(3)):
            one, other = (searched(simulator, [prompt], [said], seed) for prompt in prompts)
            assert one == other


def test_a_wish_that_is_known_is_offered_and_one_that_is_not_is_asked_for():
    """With all told an offer ends the talk; with one wish untold, offering the likeliest is worth less than asking."""
    prompt = Prompt("hi, taco, west", {"user": number_of(TALK, wish_S=(1, 1, 2), patience=6, talkative=False), "manner": 0})
    for seed in range(3):
        assert searched(TALK, [prompt, prompt], [(), ("price?",)], seed) == ["price?", "taco west top"]
    assert act(TALK, prompt, ("price?",), jax.random.key(0), Determinised(simulations=4, worlds=1)) == "taco west top"


@pytest.mark.parametrize("simulator", [TALK, RECOMMEND], ids=["talk", "recommend"])
def test_search_talks_better_than_chance_the_script_and_greed(simulator):
    prompts = fixed_prompts(simulator)
    others = {
        make.__name__: play(simulator, prompts, make(simulator), jax.random.key(0)) for make in (random_turns, scripted_turns, greedy_turns)
    }
    found = play(simulator, prompts, search_turns(simulator, SEARCHES[simulator], rows=32), jax.random.key(0))
    assert all(found.mean() > x.mean() for x in others.values()), (found.mean(), {name: x.mean() for name, x in others.items()})


def test_a_policy_is_played_the_same_with_the_same_key():
    play_again = [play(TALK, fixed_prompts(TALK), scripted_turns(TALK), jax.random.key(seed)) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(*play_again[:2])
    assert (play_again[0] != play_again[2]).any()
