"""Text adventures: the program keeps the state of the world, and whoever words it is held to what is there."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from data.errors import UserError
from data.files import json_files

DIRECTIONS = {"n": "north", "s": "south", "e": "east", "w": "west", "u": "up", "d": "down"}
OPPOSITE = {"north": "south", "south": "north", "east": "west", "west": "east", "up": "down", "down": "up"}
_WORDS = {
    "go": ("go", "walk", "run", "head", "enter"),
    "take": ("take", "get", "pick up", "grab"),
    "drop": ("drop", "put down", "leave"),
    "open": ("open", "unlock"),
    "give": ("give", "hand", "offer"),
    "talk": ("talk to", "talk with", "speak to", "speak with", "ask", "talk"),
    "look": ("look at", "look", "examine", "read", "l", "x"),
    "inventory": ("inventory", "i", "what do i have"),
}
_VERBS = {word: verb for verb, words in _WORDS.items() for word in words}
_COMMAND = re.compile(rf"({'|'.join(sorted(map(re.escape, _VERBS), key=len, reverse=True))})\b\s*(.*)")
_NAME = re.compile(r"\w[\w '-]{0,59}")
MEND = "Give rooms with text and exits, a start, and where things, people and doors are."


class State(NamedTuple):
    """room: where the player is. things: where each thing is: a room, a person, or "" for carried. opened: doors. over: it is won."""

    room: str
    things: Mapping[str, str]
    opened: tuple[str, ...]
    over: bool = False

    def plain(self) -> dict[str, Any]:
        return {"room": self.room, "things": dict(self.things), "opened": list(self.opened), "over": self.over}


class Outcome(NamedTuple):
    """done: whether the command changed or showed anything. text: what happened, in plain words, all of it true."""

    done: bool
    text: str


class World:
    """A world as data.

    rooms: {name: {"text", "exits": {direction: room}}}; things: {name: {"text", "at": room or person}}; people: {name: {"text", "at":
    room, "says": text, "wants": thing}}; doors: {name: {"between": [room, room], "key": thing}}, locked until the key is used; start: a
    room; goal: {"room": name} or {"thing": name}. Whoever gets what they want gives what they have; who wants nothing keeps it.
    UserError for a world that cannot be.
    """

    def __init__(self, given: Any, where: str):
        self.where = where
        parts = {name: self._part(given, name) for name in ("rooms", "things", "people", "doors")}
        self.rooms, self.things, self.people, self.doors = parts["rooms"], parts["things"], parts["people"], parts["doors"]
        self.start, self.goal = given.get("start"), given.get("goal", {})
        self._check()

    def _part(self, given: Any, name: str) -> dict[str, dict[str, Any]]:
        part = given.get(name, {}) if isinstance(given, dict) else None
        if not isinstance(part, dict) or not all(isinstance(one, dict) for one in part.values()):
            raise UserError(f"{self.where}: {name} are no objects by name", MEND)
        for one, fields in part.items():
            if not _NAME.fullmatch(one):
                raise UserError(f"{self.where}: {one!r} is no name that a player can type", "Take words of letters and digits.")
            for field in ("text", "says", "at", "wants", "key"):
                if not isinstance(fields.get(field, ""), str):
                    raise UserError(f"{self.where}: {field} of {one!r} is no text", MEND)
        return part

    def _check(self) -> None:
        def known(names: Any, of: Mapping[str, Any], what: str) -> None:
            for name in names:
                if not isinstance(name, str) or name not in of:
                    raise UserError(f"{self.where}: {what} names {name!r}, which is not there", MEND)

        known([self.start], self.rooms, "start")
        names = [*self.rooms, *self.things, *self.people, *self.doors]
        if len({name.casefold() for name in names}) < len(names):
            raise UserError(f"{self.where}: two of its rooms, things, people and doors have one name", "Give each its own.")
        for name, room in self.rooms.items():
            exits = room.get("exits", {})
            if not isinstance(exits, dict):
                raise UserError(f"{self.where}: exits of {name!r} are no rooms by direction", MEND)
            known(exits, OPPOSITE, f"an exit of {name!r}")
            known(exits.values(), self.rooms, f"an exit of {name!r}")
        for name, thing in self.things.items():
            known([thing.get("at")], {**self.rooms, **self.people}, f"the place of {name!r}")
        for name, person in self.people.items():
            known([person.get("at")], self.rooms, f"the place of {name!r}")
            known([person["wants"]] if "wants" in person else [], self.things, f"what {name!r} wants")
        for name, door in self.doors.items():
            between = door.get("between")
            if not isinstance(between, list) or len(between) != 2:
                raise UserError(f"{self.where}: the door {name!r} is not between two rooms", MEND)
            known(between, self.rooms, f"the door {name!r}")
            known([door["key"]] if "key" in door else [], self.things, f"the door {name!r}")
        if not isinstance(self.goal, dict) or {*self.goal} - {"room", "thing"}:
            raise UserError(f"{self.where}: the goal is neither a room nor a thing", 'Give {"room": NAME} or {"thing": NAME}.')
        known([self.goal["room"]] if "room" in self.goal else [], self.rooms, "the goal")
        known([self.goal["thing"]] if "thing" in self.goal else [], self.things, "the goal")
        if not any(self.won(state) for state in self.reached()):
            raise UserError(f"{self.where}: its goal cannot be reached", "A key may be behind its own door.")

    def begin(self) -> State:
        return State(self.start, {name: thing["at"] for name, thing in self.things.items()}, ())

    def won(self, state: State) -> bool:
        """Whether the goal is reached; of a world without one always."""
        return ("room" not in self.goal or state.room == self.goal["room"]) and (
            "thing" not in self.goal or state.things[self.goal["thing"]] == ""
        )

    def reached(self) -> Iterator[State]:
        """A state for each round of doing all that can be done, as if nothing that is given away were gone: what can be had and opened only
        grows. So no goal that can be reached is missed; one that takes the same thing twice is not seen to be out of reach."""
        state, rooms = self.begin(), {self.start}
        while True:
            for room in rooms:
                yield state._replace(room=room)
            before = (len(rooms), state)
            rooms |= {to for room in rooms for direction, to in self._exits(room).items() if self._locked(state, room, to) is None}
            mine = {name: "" for name, at in state.things.items() if at in rooms}
            for name, person in self.people.items():
                if person["at"] in rooms and "wants" in person and state.things[person["wants"]] == "":
                    mine |= {thing: "" for thing, at in state.things.items() if at == name}
            opened = [name for name, door in self.doors.items() if {*door["between"]} & rooms and self._opens(door, state)]
            state = state._replace(things={**state.things, **mine}, opened=tuple(sorted({*state.opened, *opened})))
            if before == (len(rooms), state):
                return

    def _exits(self, room: str) -> dict[str, str]:
        return self.rooms[room].get("exits", {})

    def _locked(self, state: State, room: str, to: str) -> str | None:
        """The door that is shut between two rooms."""
        return next((name for name, door in self.doors.items() if {*door["between"]} == {room, to} and name not in state.opened), None)

    def _opens(self, door: Mapping[str, Any], state: State) -> bool:
        return "key" not in door or state.things[door["key"]] == ""

    # What is there

    def here(self, state: State) -> set[str]:
        """Names of things, people and doors that can be seen or are carried."""
        things = {name for name, at in state.things.items() if at in (state.room, "")}
        people = {name for name, person in self.people.items() if person["at"] == state.room}
        doors = {name for name, door in self.doors.items() if state.room in door["between"]}
        return things | people | doors

    def described(self, state: State) -> str:
        """The room and all that is in it."""
        room = self.rooms[state.room]
        parts = [room.get("text", f"You are in {state.room}.")]
        things = [name for name, at in state.things.items() if at == state.room]
        people = [name for name, person in self.people.items() if person["at"] == state.room]
        shut = [name for name, door in self.doors.items() if state.room in door["between"] and name not in state.opened]
        parts += [f"You see: {', '.join(things)}."] if things else []
        parts += [f"Here is: {', '.join(people)}."] if people else []
        parts += [f"Locked: {', '.join(shut)}."] if shut else []
        return " ".join([*parts, f"Ways: {', '.join(self._exits(state.room)) or 'none'}."])

    def contradictions(self, state: State, text: str) -> list[str]:
        """What a text says that is not so: it names what is elsewhere in the world, another way than there is, or a locked door as open.
        What is nowhere in the world is not found."""
        said = text.casefold()
        here = {name.casefold() for name in self.here(state)} | {state.room.casefold()}
        around = {to.casefold() for to in self._exits(state.room).values()}
        found = [
            f"{name} is not here"
            for name in (*self.things, *self.people, *self.doors, *self.rooms)
            if (plain := name.casefold()) not in here | around and not any(plain in one for one in here | around) and _names(said, plain)
        ]
        ways = ("north", "south", "east", "west")
        found += [f"no way {way}" for way in ways if way not in self._exits(state.room) and _names(said, way)]
        shut = [name for name, door in self.doors.items() if state.room in door["between"] and name not in state.opened]
        opening = r"\b(?:open(?:s|ed)?|ajar|unlocked)\b"
        found += [f"{name} is locked" for name in shut if _names(said, name.casefold()) and re.search(opening, said)]
        return found

    # What is done

    def step(self, state: State, command: str) -> tuple[State, Outcome]:
        """The state after a command, and what happened. A command that is none, or cannot be done, changes nothing."""
        command = " ".join(re.sub(r"[^\w\s'-]", " ", command.casefold()).split())
        command = DIRECTIONS.get(command, command)
        if command in OPPOSITE:
            command = f"go {command}"
        found = _COMMAND.fullmatch(command)
        if state.over:
            return state, Outcome(False, "It is over.")
        if found is None:
            return state, Outcome(False, f"You can {', '.join(_WORDS)}.")
        after, outcome = getattr(self, f"_{_VERBS[found[1]]}")(state, found[2])
        if self.goal and self.won(after):
            return after._replace(over=True), Outcome(True, f"{outcome.text} You have done it.")
        return after, outcome

    def _named(self, rest: str, names: Any) -> str | None:
        """The longest of the names that a command has."""
        return max((name for name in names if _names(rest, name.casefold())), key=len, default=None)

    def _go(self, state: State, rest: str) -> tuple[State, Outcome]:
        exits = self._exits(state.room)
        way = next((DIRECTIONS.get(word, word) for word in rest.split() if DIRECTIONS.get(word, word) in OPPOSITE), None)
        if way is None and (named := self._named(rest, exits.values())):
            way = next(way for way, to in exits.items() if to == named)
        if way not in exits:
            return state, Outcome(False, f"There is no such way. Ways: {', '.join(exits) or 'none'}.")
        door = self._locked(state, state.room, exits[way])
        if door is not None:
            return state, Outcome(False, f"The {door} is locked.")
        after = state._replace(room=exits[way])
        return after, Outcome(True, f"You go {way}. {self.described(after)}")

    def _take(self, state: State, rest: str) -> tuple[State, Outcome]:
        name = self._named(rest, [name for name, at in state.things.items() if at == state.room])
        if name is None:
            return state, Outcome(False, "There is no such thing to take here.")
        return state._replace(things={**state.things, name: ""}), Outcome(True, f"You take the {name}.")

    def _drop(self, state: State, rest: str) -> tuple[State, Outcome]:
        name = self._named(rest, [name for name, at in state.things.items() if at == ""])
        if name is None:
            return state, Outcome(False, "You do not have that.")
        return state._replace(things={**state.things, name: state.room}), Outcome(True, f"You drop the {name}.")

    def _open(self, state: State, rest: str) -> tuple[State, Outcome]:
        doors = [name for name, door in self.doors.items() if state.room in door["between"]]
        name = self._named(rest, doors)
        if name is None and len(doors) == 1 and "door" in rest:
            name = doors[0]
        if name is None:
            return state, Outcome(False, "There is no such door here.")
        if name in state.opened:
            return state, Outcome(False, f"The {name} is open.")
        if not self._opens(self.doors[name], state):
            return state, Outcome(False, f"The {name} is locked, and you do not have what opens it.")
        return state._replace(opened=tuple(sorted((*state.opened, name)))), Outcome(True, f"You open the {name}.")

    def _give(self, state: State, rest: str) -> tuple[State, Outcome]:
        thing = self._named(rest, [name for name, at in state.things.items() if at == ""])
        person = self._named(rest, [name for name, one in self.people.items() if one["at"] == state.room])
        if thing is None or person is None:
            return state, Outcome(False, "You do not have that." if thing is None else "There is no such person here.")
        if self.people[person].get("wants") != thing:
            return state, Outcome(False, f"{person} does not want the {thing}.")
        got = [name for name, at in state.things.items() if at == person]
        after = state._replace(things={**state.things, **dict.fromkeys(got, ""), thing: person})
        return after, Outcome(True, f"You give the {thing} to {person}." + (f" You get: {', '.join(got)}." if got else ""))

    def _talk(self, state: State, rest: str) -> tuple[State, Outcome]:
        people = [name for name, one in self.people.items() if one["at"] == state.room]
        name = self._named(rest, people) or (people[0] if len(people) == 1 and not rest else None)
        if name is None:
            return state, Outcome(False, "There is no such person here.")
        return state, Outcome(True, f'{name} says: "{self.people[name].get("says", "...")}"')

    def _look(self, state: State, rest: str) -> tuple[State, Outcome]:
        if not rest or rest == "around":
            return state, Outcome(True, self.described(state))
        name = self._named(rest, self.here(state))
        if name is None:
            return state, Outcome(False, "There is no such thing here.")
        if name in self.doors:
            return state, Outcome(True, f"The {name} is {'open' if name in state.opened else 'locked'}.")
        return state, Outcome(True, (self.things.get(name) or self.people[name]).get("text", f"It is {name}."))

    def _inventory(self, state: State, rest: str) -> tuple[State, Outcome]:
        own = [name for name, at in state.things.items() if at == ""]
        return state, Outcome(True, f"You have: {', '.join(own) or 'nothing'}.")


def _names(text: str, name: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text, re.IGNORECASE) is not None


def read_world(path: str) -> World:
    return World(json_files.read(Path(path), MEND), path)
