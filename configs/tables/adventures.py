"""Adventures among the monsters and things of a game: does a chat model know where the player is, what the player has, and what is there?

omnia reproduce adventures --data DIR
"""

import json
import random
import re
import sys
from pathlib import Path
from typing import Any

from data.files import json_files
from train.apps.writing.adventure import OPPOSITE, State, World
from train.experiment import Experiment
from train.reproduce.files import PublicFile, rows_of
from train.reproduce.replies import replies
from train.reproduce.table import SMOLLM2, Better, Metric, Row, Shared, Table
from train.tasks.choice import MultipleChoice
from train.tasks.recipe import fine_tuning

THINGS = PublicFile("things", "applications/srd5e/test.jsonl", "56567486a38122f6856526046f23bf2d84db9d48f18ff273dc982cf21a8cce18")
"""Monsters and magic items of a game (SRD 5.1, Open Gaming License 1.0a)."""
ROOMS = (("cellar", "library", "chapel"), ("kitchen", "courtyard", "armoury"))
"""North, and south of them."""
WORLDS, MOVES = 12, 10
"""Adventures of a seed, and what the player does in each."""
ITEMS, MONSTERS = 4, 3
WRITTEN, DRAWS = 48, 4
"""Tokens in which a model tells what is there, and how often it does: the application gives the first telling that contradicts nothing."""
RULES = "You tell a story in which the player says what to do. Never make up rooms, things or creatures."
NAME = re.compile(r"[\w '-]+")
"""Of what takes part: as a player can type it."""
ASKED = "Tell in one or two sentences what the player sees here now."


def get_config(arg: str = "") -> Experiment:
    return fine_tuning("adventures", MultipleChoice(length=1024, prompt="{question}"), steps=1, batch_size=1)


def get_table() -> Table:
    def asked(name: str, what: str) -> Row:
        answers = f"--files {{played}}/{name}.jsonl --predictions {{run}}/answers.jsonl --json"
        return Row(
            name,
            what,
            (
                f"omnia evaluate {{smollm2}} --task {{table}} {answers}",
                f"python {{table}} worded {{played}} {name} {{smollm2}} {{run}} {{seed}}",
                f"python {{table}} score {{played}} {name} {{run}}",
            ),
        )

    return Table(
        title="Adventures",
        paper="Côté et al. 2018 (TextWorld: a state that a program keeps)",
        claim="A chat model of 135 million parameters often does not know from what happened where the player is and what the player has; "
        "told the state that a program keeps, it knows more, and tells less of what is elsewhere.",
        metrics=(
            Metric("place", "knows the room, of six", "share", lower_is_better=False),
            Metric("carried", "says rightly whether the player has a thing", "share", lower_is_better=False),
            Metric("untrue", "names what is elsewhere, or no way", "share"),
            Metric("worded", "of four tellings one does not", "share", lower_is_better=False),
        ),
        files=(THINGS,),
        shared=(
            SMOLLM2,
            Shared("played", ("python {table} play {things} {run} {seed}",)),
        ),
        rows=(
            asked("remembered", "SmolLM2, told what happened"),
            asked("told", "SmolLM2, told the state, too"),
        ),
        claims=(
            Better("told", "remembered"),
            Better("told", "remembered", metric="says rightly whether the player has a thing"),
            Better("told", "remembered", metric="names what is elsewhere, or no way"),
            Better("told", 0.9, metric="of four tellings one does not"),
        ),
        note=f"{WORLDS} worlds a seed, of six rooms, {ITEMS} magic items and {MONSTERS} monsters, {MOVES} moves each, of which some cannot "
        "be. The room is asked for among all six; of two things, one that the player has and one that the player has not, where there are "
        "both, whether the player has it; it always says No. What is elsewhere is found as the application finds it: by names of things, "
        "monsters and rooms, and by ways that there are not. What the model makes up that is nowhere in the world is not found; there is "
        "much of it. The program knows all that is asked, by construction.",
    )


# ------------------------------------------------------------------------------------------------------------------------- worlds


def world_of(items: list[dict[str, Any]], monsters: list[dict[str, Any]], draw: random.Random) -> World:
    """Six rooms, each open to those beside it, with things and monsters somewhere."""
    flat = [room for line in ROOMS for room in line]
    exits: dict[str, dict[str, str]] = {room: {} for room in flat}
    for row, line in enumerate(ROOMS):
        for place, room in enumerate(line):
            near = {"east": (row, place + 1), "south": (row + 1, place)}
            for way, (down, right) in near.items():
                if down < len(ROOMS) and right < len(line):
                    exits[room][way] = ROOMS[down][right]
                    exits[ROOMS[down][right]][OPPOSITE[way]] = room
    rooms = {room: {"text": f"You are in the {room}.", "exits": exits[room]} for room in flat}
    things = {one["name"]: {"text": first(one["description"]), "at": draw.choice(flat)} for one in draw.sample(items, ITEMS)}
    people = {one["name"]: {"text": f"A {one['type']}.", "at": draw.choice(flat), "says": "..."} for one in draw.sample(monsters, MONSTERS)}
    return World({"rooms": rooms, "things": things, "people": people, "start": draw.choice(flat)}, "drawn world")


def first(text: str) -> str:
    """The first sentence after the line that says what kind of thing it is."""
    return text.split("\n")[-1].split(". ")[0].rstrip(".") + "."


def command(world: World, state: State, draw: random.Random) -> str:
    """What a player might do next. One in five is anything, which mostly cannot be."""
    here = [name for name, at in state.things.items() if at == state.room]
    had = [name for name, at in state.things.items() if at == ""]
    if draw.random() < 0.2:
        return draw.choice([f"take {draw.choice(list(world.things))}", f"go {draw.choice(list(OPPOSITE))}"])
    if here and draw.random() < 0.8:
        return f"take {draw.choice(here)}"
    if had and draw.random() < 0.2:
        return f"drop {draw.choice(had)}"
    return f"go {draw.choice(list(world.rooms[state.room]['exits']))}"


def play(path: str, folder: str, seed: str) -> None:
    """Adventures: what the model is told of each, questions about it, and the world with its state."""
    draw, rows = random.Random(int(seed)), rows_of(path)
    items, monsters = ([row for row in rows if row["kind"] == kind and NAME.fullmatch(row["name"])] for kind in ("magic item", "monster"))
    scenes, questions = [], dict[str, list[dict[str, Any]]](remembered=[], told=[])
    for number in range(WORLDS):
        world = world_of(items, monsters, draw)
        state = world.begin()
        happened = [world.described(state)]
        for _ in range(MOVES):
            said = command(world, state, draw)
            state, outcome = world.step(state, said)
            happened.append(f"> {said}\n{outcome.text}")
        had = [name for name, at in state.things.items() if at == ""]
        now = f"Now: {world.described(state)} You have: {', '.join(had) or 'nothing'}."
        texts = {"remembered": "\n".join(happened), "told": "\n".join([*happened, now])}
        others = [name for name in world.things if name not in had]
        scenes.append({"texts": texts, "state": state.plain(), "world": given(world)})
        rooms = list(world.rooms)
        for name, text in texts.items():
            where = {"question": f"{text}\n\nQuestion: In which room are you now?\nAnswer: The", "choices": rooms}
            questions[name].append(where | {"label": rooms.index(state.room), "about": "place", "scene": number})
            for thing in [*draw_of(had, number), *draw_of(others, number)]:
                has = {"question": f"{text}\n\nQuestion: Do you have the {thing} now?\nAnswer:", "choices": ["Yes", "No"]}
                questions[name].append(has | {"label": int(thing not in had), "about": "carried", "scene": number})
    Path(folder).mkdir(parents=True, exist_ok=True)
    json_files.write_lines(Path(folder, "scenes.jsonl"), scenes)
    for name, own in questions.items():
        json_files.write_lines(Path(folder, f"{name}.jsonl"), own)


def draw_of(names: list[str], seed: int) -> list[str]:
    """One of them, if there are any."""
    return random.Random(seed).sample(names, min(len(names), 1))


def given(world: World) -> dict[str, Any]:
    """As a file of a world has it."""
    return {"rooms": world.rooms, "things": world.things, "people": world.people, "start": world.start}


# ---------------------------------------------------------------------------------------------------------------------- what is said


def worded(played: str, name: str, model: str, folder: str, seed: str) -> None:
    """What the model tells of each scene, several times."""
    scenes = rows_of(f"{played}/scenes.jsonl")
    asked = [
        [{"role": "system", "content": RULES}, {"role": "user", "content": f"{scene['texts'][name]}\n\n{ASKED}"}]
        for scene in scenes
        for _ in range(DRAWS)
    ]
    told = replies(model, asked, tokens=WRITTEN, temperature=0.8, seed=int(seed))
    Path(folder).mkdir(parents=True, exist_ok=True)
    texts = [told[place : place + DRAWS] for place in range(0, len(told), DRAWS)]
    json_files.write_lines(Path(folder, "texts.jsonl"), ({"texts": own} for own in texts))


def untrue(played: str, folder: str) -> list[list[bool]]:
    """Of each scene, whether each text says what is not so."""
    found = []
    for scene, row in zip(rows_of(f"{played}/scenes.jsonl"), rows_of(f"{folder}/texts.jsonl"), strict=True):
        state = scene["state"]
        now = State(state["room"], state["things"], tuple(state["opened"]))
        world = World(scene["world"], "played world")
        found.append([bool(world.contradictions(now, text)) or not text for text in row["texts"]])
    return found


def score(played: str, name: str, folder: str) -> dict[str, float]:
    rows, answered = rows_of(f"{played}/{name}.jsonl"), rows_of(f"{folder}/answers.jsonl")
    right: dict[str, list[bool]] = {"place": [], "carried": []}
    for row, line in zip(rows, answered, strict=True):
        probabilities = line["probabilities"]
        right[row["about"]].append(probabilities[row["label"]] == max(probabilities))
    wrong = untrue(played, folder)
    shares = {"untrue": [one for own in wrong for one in own], "worded": [not all(own) for own in wrong]}
    return {about: sum(own) / len(own) for about, own in (right | shares).items()}


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["play", *rest]:
            play(*rest)
        case ["worded", *rest]:
            worded(*rest)
        case ["score", *rest]:
            print(json.dumps(score(*rest)))
