"""Simulators as conversations of text: what they are worth, that they replay, and that what is said fits tokens."""

import itertools
import random

import numpy as np
import pytest

from data.tokenizer import character_tokenizer
from train.rl.environments.environment import Prompt
from train.rl.environments.satisfaction import Satisfaction
from train.rl.environments.simulators import CATEGORIES, ITEMS, Recommendations, SlotFilling, take
from train.rl.environments.text_games import Calculator, SecretCode, TreasureMap
from train.sources.encoding import Transcriber
from train.sources.records import ROLES

SIMULATORS = {
    "talk": SlotFilling(),
    "talk, every offer": SlotFilling(turns=3, every_offer=True),
    "recommend": Recommendations(),
    "recommend slates": Recommendations(turns=4, slate=2),
    "satisfaction": Satisfaction(turns=4),
    "map": TreasureMap(),
    "code": SecretCode(),
    "calculator": Calculator(),
}
HIDDEN = {name: SIMULATORS[name] for name in list(SIMULATORS)[:5]}
every_simulator = pytest.mark.parametrize("simulator", SIMULATORS.values(), ids=SIMULATORS)
every_hidden_user = pytest.mark.parametrize("simulator", HIDDEN.values(), ids=HIDDEN)
BAD = ("", "?", "thai", "taco west", "taco, west, low", "12", "12345", "999", "calc", "calc 1*", "n e", "dune", "dune, dune, dune", "é\n")


def play(simulator, prompt, turns):
    """Replies to each turn, up to the end."""
    replies = []
    for number in range(1, len(turns) + 1):
        replies.append(simulator.reply(prompt, tuple(turns[:number])))
        if replies[-1].ends:
            break
    return replies


def scripted(simulator, row):
    """A prompt, what `act` says to it, and the replies."""
    prompt, rng, said, replies = simulator.prompt(0, row), random.Random(row), (), []
    while len(said) < simulator.turns and not (replies and replies[-1].ends):
        said = (*said, simulator.act(prompt, said, rng))
        replies.append(simulator.reply(prompt, said))
    return prompt, said, replies


def wisher(wish, talkative=False, patience=6):
    users = SlotFilling().users
    number = np.flatnonzero((users.wish_S == wish).all(-1) & (users.talkative == talkative) & (users.patience == patience))
    return Prompt("hi", {"user": int(number[0]), "manner": 0})


def taster(*taste):
    return Prompt("i like ..", {"user": int(np.flatnonzero((Recommendations().users.taste_C == taste).all(-1))[0]), "manner": 0})


# ---------------------------------------------------------------------------------------------------------------- all of them


@every_simulator
def test_any_point_of_a_conversation_is_reached_again(simulator):
    """Prompts and replies are pure: asked again, in another order, they are the same."""
    for row in range(8):
        prompt, said, replies = scripted(simulator, row)
        assert simulator.prompt(0, row) == prompt
        for number in reversed(range(len(said))):
            assert simulator.reply(prompt, said[: number + 1]) == replies[number]


@every_simulator
def test_all_that_is_said_is_of_the_alphabet(simulator):
    for row in range(100):
        prompt, said, replies = scripted(simulator, row)
        odd = simulator.reply(prompt, ("",))  # the answer to what is no turn at all
        texts = [prompt.text, *said, *(reply.text for reply in (*replies, odd) if not reply.ends)]
        assert set("".join(texts)) <= set(simulator.alphabet), texts


@every_simulator
def test_only_the_turns_of_the_assistant_are_learned_with_their_ends(simulator):
    """What is learned, cut where a document ends, is what was said to get there."""
    tokenizer = character_tokenizer(simulator.alphabet)
    end, begin = tokenizer.specials["document_end"], tokenizer.specials[ROLES["assistant"]]
    for row in range(20):
        prompt, response = simulator.transcript(simulator.prompt(0, row), 0, row)
        ids, learned = Transcriber(tokenizer).demonstration(prompt, response)
        said = [text for role, text in prompt.messages if role == "assistant"] + [response]
        assert len(said) <= simulator.turns
        assert [ids[at - 1] for at in range(len(ids)) if learned[at] and not learned[at - 1]] == [begin] * len(said)
        kept = [token for token, weight in zip(ids, learned, strict=True) if weight]
        assert kept == [token for text in said for token in (*tokenizer.encode(text).tolist(), end)]


@every_simulator
def test_bad_turns_are_answered_and_do_not_stop_the_script(simulator):
    """Whatever a policy says first, there is a reply, and the script goes on to a turn that makes sense."""
    for row, bad in enumerate(itertools.product(BAD, BAD[:4])):
        prompt, rng = simulator.prompt(0, row), random.Random(row)
        replies = play(simulator, prompt, bad)
        assert all(np.isfinite(reply.reward) for reply in replies)
        if not replies[-1].ends:
            following = simulator.act(prompt, bad, rng)
            assert set(following) <= set(simulator.alphabet)
            simulator.reply(prompt, (*bad, following))


# --------------------------------------------------------------------------------------------------------------- hidden users


@every_hidden_user
def test_users_are_drawn_as_the_likelihood_says(simulator):
    """Given the opening, how many wishes or tastes are above 0 differs from what the likelihood expects by chance alone."""
    rng, values, trait_U = random.Random(0), [], (simulator.users[0] > 0).sum(-1)
    for _ in range(2000):
        prompt = simulator.draw(rng)
        weight_U = simulator.likelihood(prompt.text)
        expected = (weight_U * trait_U).sum() / weight_U.sum()
        values.append((float(trait_U[prompt.facts["user"]]) - expected) * np.array([1.0, expected]))
    assert (np.abs(np.mean(values, 0)) < 4 * np.std(values, 0) / np.sqrt(len(values))).all(), np.mean(values, 0)


@every_hidden_user
def test_a_reply_tells_what_was_heard_in_every_manner(simulator):
    """`understand` undoes `say`; `read` undoes `write`; what is said of no sense is heard as nothing."""
    for row in range(60):
        prompt, said, replies = scripted(simulator, row)
        turns = [*said[:-1], "?"] if len(said) > 1 else said
        for number in range(1, len(turns) + 1):
            state, move = simulator.follow(prompt, turns[:number]), simulator.read(turns[number - 1])
            if (move >= 0).all():
                assert simulator.write(move) == turns[number - 1]
                np.testing.assert_array_equal(simulator.read(simulator.write(move)), move)
            for manner in range(3):
                np.testing.assert_array_equal(simulator.understand(simulator.say(state, move, manner)), state.heard)
    assert (np.asarray(simulator.read("nonsense")) == -1).all()


@every_hidden_user
def test_all_users_at_once_are_each_user_alone(simulator):
    """The rules work along any leading axis: a row of all users is that user's own conversation."""
    prompt, said, _ = scripted(simulator, 3)
    talks = simulator.begin(prompt.text, simulator.users)
    for turn in said[:2]:
        move = np.broadcast_to(simulator.read(turn), (len(simulator.users[0]), *simulator.read(turn).shape))
        talks = simulator.advance(simulator.users, talks, move)
    for user in range(0, len(simulator.users[0]), 50):
        alone = simulator.follow(Prompt(prompt.text, {"user": user, "manner": 0}), said[:2])
        for ours, theirs in zip(take(talks, user), alone, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def returns(replies):
    return sum(reply.reward for reply in replies)


def test_asking_for_every_wish_then_offering_earns_all_but_the_turns():
    prompt = wisher((1, 2, 0))
    replies = play(SlotFilling(), prompt, ("food?", "area?", "price?", "taco port low"))
    assert [reply.text for reply in replies[:3]] == ["taco", "port", "low"]
    assert replies[-1].ends and returns(replies) == pytest.approx(1 - 4 * 0.05)
    talker = play(SlotFilling(), wisher((1, 2, 3), talkative=True), ("area?", "food?", "taco port top"))
    assert [reply.text for reply in talker[:2]] == ["port, any price", "taco"]
    assert talker[-1].ends and returns(talker) == pytest.approx(1 - 3 * 0.05)


def test_a_wrong_offer_and_a_user_who_leaves_cost_the_penalty():
    prompt = wisher((1, 2, 0), patience=2)
    assert returns(play(SlotFilling(), prompt, ("taco port mid",))) == pytest.approx(-0.5 - 0.05)
    assert returns(play(SlotFilling(), prompt, ("food?", "area?", "taco port low"))) == pytest.approx(-0.5 - 2 * 0.05)
    assert returns(play(SlotFilling(), prompt, ("?", "taco port low"))) == pytest.approx(1 - 2 * 0.05)
    assert play(SlotFilling(turns=1), wisher((1, 2, 0)), ("food?",))[0].ends


def test_of_all_offers_those_fit_that_meet_every_wish():
    simulator = SlotFilling()
    for wish in ((0, 1, 2), (3, 1, 2), (3, 3, 3)):
        worth = [simulator.reply(wisher(wish), (simulator.write(move),)).reward for move in range(3, 30)]
        assert sum(reward > 0 for reward in worth) == 3 ** wish.count(3)


def test_turns_between_two_favourites_are_all_liked_and_told_at_the_end():
    """Tastes 3 and 3 by turns never tire: a whole session is liked, and nothing is earned before its end."""
    turns = [CATEGORIES[number % 2][number // 2] for number in range(6)]
    replies = play(Recommendations(), taster(3, 3, 0, 0), turns)
    assert [reply.text for reply in replies[:2]] == ["alien: liked", "abba: liked"]
    assert [reply.reward for reply in replies[:5]] == [0.0] * 5 and not any(reply.ends for reply in replies[:5])
    assert replies[5].ends and replies[5].reward == pytest.approx(1.25)


def test_bored_users_leave_and_take_the_bonus_along():
    again = play(Recommendations(), taster(3, 3, 0, 0), ["alien"] * 6)
    assert [reply.text for reply in again[:2]] == ["alien: liked", "alien: bored"]
    assert len(again) == 3 and again[-1].ends and again[-1].reward == pytest.approx(1 / 6)
    skipped = play(Recommendations(), taster(3, 3, 0, 0), ["dune"] * 6)
    assert skipped[0].text == "dune: skipped" and [reply.reward for reply in skipped] == pytest.approx([0.0] * 5 + [0.25])


def test_of_a_slate_the_best_is_taken_and_alone_tires():
    simulator = Recommendations(turns=4, slate=2)
    replies = play(simulator, taster(1, 2, 0, 0), ["alien, abba", "alien, bach", "heat, jaws", "dune, emma"])
    assert [reply.text for reply in replies[:3]] == ["abba: liked", "alien: liked", "heat: bored"]
    assert replies[-1].reward == pytest.approx(2 / 4 + 0.25)
    assert play(simulator, taster(1, 2, 0, 0), ["alien", "abba, bach"])[0].text == "which?"


def reader(*taste):
    return Prompt("hi", {"user": int(np.flatnonzero((Satisfaction().users.taste_C == taste).all(-1))[0]), "manner": 0})


@pytest.mark.parametrize("slate, pull, sign", [("AA", 3, -1), ("aa", 2, 1), ("BB", 2, -1), ("dd", 0, 1)])
def test_bait_and_solid_items_in_closed_form(slate, pull, sign):
    """Whoever names the same slate always: exposure is sign * (1 - m^t) / (1 - m) after t turns."""
    simulator, m = Satisfaction(turns=8, sensitivity=0.7, memory=0.6), 0.6
    replies = play(simulator, reader(2, 1, 0, 0), [slate] * 8)
    exposure = sign * (1 - m ** np.arange(8)) / (1 - m)
    np.testing.assert_allclose([reply.reward for reply in replies], pull / 3 / (1 + np.exp(-0.7 * exposure)), rtol=1e-5)
    assert [reply.ends for reply in replies] == [False] * 7 + [True]


def test_bait_pays_at_once_and_costs_later():
    solid, bait = (play(Satisfaction(), reader(2, 0, 0, 0), [slate] * 8) for slate in ("aa", "AA"))
    assert bait[0].reward > solid[0].reward and returns(bait) < returns(solid)


def test_a_click_that_is_sure_is_answered_too():
    replies = play(Satisfaction(turns=8, sensitivity=50, memory=0.9), reader(2, 2, 2, 2), ["aa"] * 7 + ["DD"])
    assert replies[-1].reward == pytest.approx(1) and replies[-1].text == "D9"


def test_of_a_slate_the_item_with_the_greatest_pull_is_taken():
    said = ["aB", "Ba", "aA", "dc", "abc", "x?"]
    replies = play(Satisfaction(turns=7), reader(2, 1, 0, 0), said)
    assert [reply.text[0] for reply in replies] == ["a", "B", "A", "d", "?", "?"]  # a and B pull alike: the first
    without = play(Satisfaction(turns=7), reader(2, 1, 0, 0), [*said[:4], "", ""])
    assert [reply.reward for reply in without] == [reply.reward for reply in replies] and replies[4].reward == 0


def test_rewards_come_at_the_end_alone_whatever_is_recommended():
    simulator, rng = Recommendations(), random.Random(0)
    for row in range(50):
        replies = play(simulator, simulator.prompt(0, row), [rng.choice((*ITEMS, "?")) for _ in range(simulator.turns)])
        assert replies[-1].ends and not any(reply.reward or reply.ends for reply in replies[:-1])


# --------------------------------------------------------------------------------------------------------------- games, a tool


def test_the_shortest_way_to_the_gold_is_worth_one_and_every_turn_more_costs():
    """The shortest way is found here by trying all of them."""
    simulator = TreasureMap(turns=5, size=3)
    for row in range(10):
        prompt = simulator.prompt(0, row)
        ways = (way for length in range(1, 6) for way in itertools.product("nesw", repeat=length))
        shortest = next(way for way in ways if play(simulator, prompt, way)[-1].ends)
        assert play(simulator, prompt, shortest)[-1].reward == 1.0
        assert play(simulator, prompt, ("?", *shortest))[-1].reward == pytest.approx(0.9)
        assert play(simulator, prompt, ("?",) * 5)[-1] == play(simulator, prompt, ("?",))[0]


def test_whoever_runs_into_a_wall_stays():
    prompt = Prompt("go s, gold se", {"free": [(0, 0), (1, 0), (1, 1)], "start": (0, 0), "gold": (1, 1), "shortest": 2})
    replies = play(TreasureMap(), prompt, ("n", "e", "s", "e"))
    assert [reply.text for reply in replies] == ["go s, gold se", "go s, gold se", "go ne, gold e", "gold"]
    assert replies[-1].ends and replies[-1].reward == pytest.approx(0.8)


def test_feedback_on_a_guess_counts_each_digit_once():
    prompt = Prompt("3 of 1234?", {"code": "112"})
    replies = play(SecretCode(), prompt, ("121", "444", "11", "211", "112"))
    assert [reply.text for reply in replies[:4]] == ["1 right, 2 near", "0 right, 0 near", "what?", "1 right, 2 near"]
    assert replies[-1].ends and replies[-1].reward == pytest.approx(0.6)
    assert SecretCode().reply(prompt, ("112",)).reward == 1.0


def test_the_calculator_calculates_and_judges_the_answer():
    prompt = Prompt("12*7+5=", {"numbers": [12, 7, 5]})
    replies = play(Calculator(), prompt, ("calc 12*7", "calc 84+", "89"))
    assert [(reply.role, reply.text) for reply in replies[:2]] == [("tool", "84"), ("tool", "error")]
    assert replies[-1].ends and replies[-1].reward == 1.0
    assert Calculator().reply(prompt, ("84",)).reward == 0.0 and Calculator().reply(prompt, ("",)).ends
