"""A world that keeps its own laws, whatever is typed."""

import copy
import json

import hypothesis.strategies as st
import pytest
from hypothesis import given

from data.errors import UserError
from train.apps.writing.adventure import World, read_world

GIVEN = {
    "start": "gate",
    "goal": {"thing": "crown"},
    "rooms": {
        "gate": {"text": "You stand at the gate.", "exits": {"north": "hall"}},
        "hall": {"text": "You are in a hall.", "exits": {"south": "gate", "east": "tower"}},
        "tower": {"exits": {"west": "hall"}},
    },
    "things": {"lamp": {"at": "gate", "text": "A brass lamp."}, "iron key": {"at": "Guard"}, "crown": {"at": "tower"}},
    "people": {"Guard": {"at": "hall", "says": "It is dark here.", "wants": "lamp"}},
    "doors": {"oak door": {"between": ["hall", "tower"], "key": "iron key"}},
}
WON = ["take lamp", "go north", "give the lamp to the guard", "unlock oak door", "e", "take crown"]


@pytest.fixture
def world():
    return World(copy.deepcopy(GIVEN), "world.json")


def played(world, commands):
    state, said = world.begin(), []
    for command in commands:
        state, outcome = world.step(state, command)
        said.append(outcome)
    return state, said


def test_the_way_to_the_goal(world):
    state, said = played(world, WON)
    assert state.over and all(one.done for one in said) and "You have done it" in said[-1].text
    assert world.step(state, "drop crown") == (state, (False, "It is over."))


@pytest.mark.parametrize("command", ["g\u0131ve lamp", "\u0131", "\u017ftop", "\u212aey"])
def test_letters_that_are_one_in_another_case_alone_are_read(world, command):
    """Such as the Turkish dotless i, which no verb has."""
    state, outcome = world.step(world.begin(), command)
    assert outcome.text.startswith("You can ") and state == world.begin()


@pytest.mark.parametrize("missing", range(len(WON) - 1))
def test_no_step_can_be_left_out(world, missing):
    state, _ = played(world, [*WON[:missing], *WON[missing + 1 :]])
    assert not state.over


NOUNS = ["lamp", "iron key", "crown", "guard", "oak door", "north", "east", "hall", "", "moon", "key"]
VERBS = ["go", "take", "drop", "open", "give", "talk to", "look", "inventory", "unlock", "eat", "n", "e", "give lamp to"]
COMMANDS = st.lists(st.tuples(st.sampled_from(VERBS), st.sampled_from(NOUNS)).map(" ".join) | st.text(max_size=8), max_size=25)


@given(COMMANDS)
def test_whatever_is_typed_the_laws_hold(commands):
    world = World(GIVEN, "world.json")
    state = world.begin()
    for command in commands:
        before = state
        state, outcome = world.step(state, command)
        assert set(state.things) == set(GIVEN["things"]) and outcome.text
        assert all(at == "" or at in GIVEN["rooms"] or at in GIVEN["people"] for at in state.things.values())
        assert set(before.opened) <= set(state.opened)
        if not outcome.done:
            assert state == before
        if state.room == "tower":
            assert "oak door" in state.opened  # nobody goes through a locked door
        if state.things["iron key"] == "":
            assert state.things["lamp"] == "Guard"
        if world.here(before) >= {"crown"}:
            assert before.room == "tower" or before.things["crown"] in (before.room, "")


@given(COMMANDS)
def test_what_the_program_says_never_contradicts_its_world(commands):
    world = World(GIVEN, "world.json")
    state = world.begin()
    for command in commands:
        state, _ = world.step(state, command)
        assert world.contradictions(state, world.described(state)) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The lamp glows.", []),
        ("A crown lies here.", ["crown is not here"]),
        ("The Guard looks at you.", ["Guard is not here"]),
        ("A road leads west.", ["no way west"]),
        ("To the north lies the hall.", []),
        ("Lampposts stand around.", []),
    ],
)
def test_contradictions_at_the_gate(world, text, found):
    assert world.contradictions(world.begin(), text) == found


def test_a_locked_door_is_not_open(world):
    state, _ = played(world, WON[:2])
    assert world.contradictions(state, "The oak door stands open.") == ["oak door is locked"]
    state, _ = played(world, WON[:4])
    assert world.contradictions(state, "The oak door stands open.") == []


def changed(**more):
    made = copy.deepcopy(GIVEN)
    for path, value in more.items():
        at = made
        *parents, last = path.split("__")
        for name in parents:
            at = at[name.replace("_", " ")]
        at[last] = value
    return made


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        ([], "no objects"),
        (changed(start="moon"), "moon"),
        (changed(rooms__gate__exits={"up and away": "hall"}), "up and away"),
        (changed(rooms__gate__exits={"north": "moon"}), "moon"),
        (changed(things__lamp__at="moon"), "moon"),
        (changed(people__Guard__wants="moon"), "moon"),
        (changed(doors__oak_door__between=["hall"]), "oak door"),
        (changed(goal={"thing": "moon"}), "moon"),
        (changed(things__crown={"at": "gate"}, rooms__Crown={"text": "x"}), "one name"),
        (changed(doors__oak_door__key="crown"), "cannot be reached"),
        (changed(things__crown__at="Guard", people__Guard={"at": "gate"}), "cannot be reached"),
        (changed(goal=None), "neither a room"),
        (changed(goal={"thin": "crown"}), "neither a room"),
        (changed(start=["gate"]), "start names"),
        (changed(rooms__gate__exits=["north"]), "exits of 'gate'"),
        (changed(things__lamp__at=["gate"]), "at of 'lamp'"),
        (changed(doors__oak_door__between=[["hall"], "gate"]), "oak door"),
        (changed(rooms__gate__text=5), "text of 'gate'"),
        (changed(things__crown__text=None), "text of 'crown'"),
        (changed(people__Guard__says=["a"]), "says of 'Guard'"),
        (changed(rooms={"gate": {}, "a (b)": {}}), "type"),
    ],
)
def test_worlds_that_cannot_be(given_, said):
    with pytest.raises(UserError, match=said):
        World(given_, "world.json")


def test_a_world_is_read_from_a_file(tmp_path):
    (tmp_path / "world.json").write_text(json.dumps(GIVEN))
    assert read_world(str(tmp_path / "world.json")).begin().room == "gate"


def test_a_door_without_a_key_is_opened_by_hand():
    world = World(changed(doors={"oak door": {"between": ["hall", "tower"]}}), "world.json")
    state, said = played(world, ["n", "e", "open oak door", "e"])
    assert state.room == "tower" and [one.done for one in said] == [True, False, True, True]
