"""A small aligned world: coloured shapes that stand, move and sound, rendered in every medium from one description of a scene.

All that is asked about a scene follows from its description, so every answer is exact. Some pairs of shape and colour are kept from
training, so that a model can be asked about what it has never seen together.
"""

import dataclasses
import functools
import random
from collections.abc import Sequence
from typing import Literal

import numpy as np

from data.media.codes import codes_for
from data.media.kinds import Kind
from data.media.rows import MEDIA, Piece, written
from data.media.signals.mel import log_mel
from data.media.signals.shapes import FRAME, RATE, AudioShape, Cut, ImageShape, Shape, VideoShape, frames_of
from data.rows.order import fold
from data.tokenizer import Tokenizer

SHAPES = ("circle", "square", "triangle", "cross")
COLOURS = {
    "red": (220, 50, 47),
    "green": (60, 170, 70),
    "blue": (50, 90, 220),
    "yellow": (235, 205, 60),
    "white": (240, 240, 240),
    "pink": (240, 130, 190),
}
DIRECTIONS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}
NUMBERS = ("no", "one", "two", "three", "four")
PITCHES = {"circle": 330.0, "square": 523.0, "triangle": 831.0, "cross": 1319.0}
"""Hz of each shape's sound, about eight semitones apart."""
UNSEEN = frozenset({("circle", "yellow"), ("square", "pink"), ("triangle", "red"), ("cross", "blue")})
"""Pairs that scenes of training never show (`Scene.held_out`)."""
_CELLS = 2  # objects stand on a grid of so many rows and columns

Task = Literal["text", "image", "video", "audio", "caption", "draw", "film", "play"]
READING: tuple[Task, ...] = ("text", "image", "video", "audio", "caption")
"""What is asked about: a caption that is read, a picture, a clip, a recording; or a picture is to be described."""
WRITING: dict[Task, Kind] = {"draw": "image", "film": "video", "play": "audio"}
"""What is to be written after a description: a picture, a clip, a recording, in codes that the tokenizer has for them."""
TASKS = (*READING, *WRITING)
SPLITS = ("train", "validation", "unseen")
"""The last has scenes with pairs of shape and colour that training never shows."""


@dataclasses.dataclass(frozen=True)
class Thing:
    """One object: where it stands on the grid, and where it goes."""

    shape: str
    colour: str
    cell: tuple[int, int]
    direction: str


@dataclasses.dataclass(frozen=True)
class Scene:
    """One to three objects in cells of their own, in the order in which they are seen (row by row) and sound."""

    things: tuple[Thing, ...]

    @property
    def caption(self) -> str:
        """Everything that a picture shows: `a red circle and a blue square`."""
        named = [f"a {thing.colour} {thing.shape}" for thing in self.things]
        return " and ".join(named)

    def description(self, task: Task) -> str:
        """All that a medium to be written shows or sounds like, and what `recognise` says of it."""
        match task:
            case "film":
                return " and ".join(f"a {thing.colour} {thing.shape} goes {thing.direction}" for thing in self.things)
            case "play":
                return ", ".join(thing.shape for thing in self.things)
        return self.caption

    @property
    def held_out(self) -> bool:
        """Whether it shows a pair of shape and colour that training never does."""
        return any((thing.shape, thing.colour) in UNSEEN for thing in self.things)


def make_scene(rng: random.Random, *, unseen: bool = False) -> Scene:
    """A scene of different shapes in different colours. unseen: with at least one pair that is held out; else with none of them."""
    while True:
        count = rng.randint(1, 3)
        shapes, colours = rng.sample(SHAPES, count), rng.sample(list(COLOURS), count)
        cells = sorted(rng.sample([(row, column) for row in range(_CELLS) for column in range(_CELLS)], count))
        things = zip(shapes, colours, cells, strict=True)
        scene = Scene(tuple(Thing(*thing, rng.choice(list(DIRECTIONS))) for thing in things))
        if scene.held_out == unseen:
            return scene


def ask(rng: random.Random, scene: Scene, task: Task) -> tuple[str, str]:
    """A question that the medium alone can answer, and its answer."""
    if task == "caption":
        return "what is there?", scene.caption
    thing = rng.choice(scene.things)
    count = "how many?", NUMBERS[len(scene.things)]
    match task:
        case "text" | "image":
            choices = [count, (f"colour of the {thing.shape}?", thing.colour), (f"shape of the {thing.colour} one?", thing.shape)]
        case "video":
            choices = [count, *((f"where does the {name} go?", thing.direction) for name in (thing.shape, f"{thing.colour} one"))]
        case "audio":
            choices = [count, ("which sounds first?", scene.things[0].shape), ("which sounds last?", scene.things[-1].shape)]
    return rng.choice(choices)


# ----------------------------------------------------------------------------------------------------------------- rendering


@functools.lru_cache(maxsize=4096)
def _shape_mask(shape: str, radius: float, size: int, offset: tuple[float, float]) -> np.ndarray:
    """Share of each pixel that a shape covers, float32 [size, size], its middle at `offset`: by four samples a pixel along each axis."""
    fine = (np.arange(4 * size) + 0.5) / 4
    y, x = fine[:, None] - offset[0], fine[None, :] - offset[1]
    match shape:
        case "circle":
            inside = y**2 + x**2 <= radius**2
        case "square":
            inside = np.maximum(abs(y), abs(x)) <= 0.85 * radius
        case "triangle":
            inside = (y <= 0.8 * radius) & (abs(x) <= 0.55 * (y + radius))
        case "cross":
            inside = (np.minimum(abs(y), abs(x)) <= 0.3 * radius) & (np.maximum(abs(y), abs(x)) <= radius)
        case _:
            raise ValueError(f"no shape {shape!r}")
    return inside.reshape(size, 4, size, 4).mean((1, 3)).astype(np.float32)


def render_image(scene: Scene, size: int, *, moved: float = 0.0) -> np.ndarray:
    """uint8 [size, size, 3] on a dark ground. moved: how far the objects have gone on their way through their cells, 0 to 1."""
    picture = np.full((size, size, 3), 24, np.float32)
    cell = size / _CELLS
    radius = 0.27 * cell
    for thing in scene.things:
        dy, dx = DIRECTIONS[thing.direction]
        way = (moved - 0.5) * 0.44 * cell if moved else 0.0  # there and back around the middle of the cell
        middle = ((thing.cell[0] + 0.5) * cell + dy * way, (thing.cell[1] + 0.5) * cell + dx * way)
        mask = _shape_mask(thing.shape, radius, size, (round(middle[0], 2), round(middle[1], 2)))[..., None]
        picture += mask * (np.array(COLOURS[thing.colour], np.float32) - picture)
    return np.rint(picture).astype(np.uint8)


def render_video(scene: Scene, size: int, frames: int) -> np.ndarray:
    """uint8 [frames, size, size, 3]: each object crosses its cell, along its direction."""
    return np.stack([render_image(scene, size, moved=(frame + 1) / frames) for frame in range(frames)])


def render_audio(scene: Scene, rng: np.random.Generator, seconds: float = 0.96) -> np.ndarray:
    """float32 [seconds * RATE]: the sound of each object in turn, for a third of the time, over a little noise."""
    samples = round(seconds * RATE)
    sound = 0.003 * rng.standard_normal(samples).astype(np.float32)
    third = samples // 3
    time = np.arange(third) / RATE
    envelope = np.minimum(1.0, np.minimum(time, time[::-1]) / 0.01) * np.exp(-4.0 * time)
    for number, thing in enumerate(scene.things):
        pitch = PITCHES[thing.shape] * 2 ** (rng.uniform(-0.5, 0.5) / 12)
        tone = np.sin(2 * np.pi * pitch * time) + 0.3 * np.sin(4 * np.pi * pitch * time)
        sound[number * third : (number + 1) * third] += (0.3 * rng.uniform(0.6, 1.0) * envelope * tone).astype(np.float32)
    return np.clip(sound, -1.0, 1.0)


# --------------------------------------------------------------------------------------------------------------- recognition


def recognise(cut: Cut, shape: Shape) -> str:
    """The description of the scene that a medium shows best, or sounds most like; "" where it shows none."""
    match shape:
        case ImageShape():
            found = _recognised_things(frames_of(shape, cut), (0.0,), ("up",))
            return Scene(found).description("draw") if found else ""
        case VideoShape():
            frames = frames_of(shape, cut)
            moved = tuple((frame + 1) / len(frames) for frame in range(len(frames)))
            found = _recognised_things(frames, moved, tuple(DIRECTIONS))
            return Scene(found).description("film") if found else ""
        case AudioShape():
            return ", ".join(_recognised_sounds(cut.patches))
    raise ValueError(f"no shape {shape!r}")


def _recognised_things(frames_FHWC: np.ndarray, moved: tuple[float, ...], directions: tuple[str, ...]) -> tuple[Thing, ...]:
    """In each cell what differs least from its pixels: nothing, or a thing of any kind."""
    frames = frames_FHWC.astype(np.float32)
    size, found = frames.shape[1], []
    half = size // _CELLS
    for row in range(_CELLS):
        for column in range(_CELLS):
            inside = (slice(None), slice(row * half, (row + 1) * half), slice(column * half, (column + 1) * half))
            best, least = None, np.square(frames[inside] - 24.0).sum()
            for shape in SHAPES:
                for colour in COLOURS:
                    for direction in directions:
                        thing = Thing(shape, colour, (row, column), direction)
                        drawn = _drawn_thing(thing, size, moved)[inside]
                        if (error := np.square(frames[inside] - drawn).sum()) < least:
                            best, least = thing, error
            if best is not None:
                found.append(best)
    return tuple(found)


@functools.lru_cache(maxsize=4096)
def _drawn_thing(thing: Thing, size: int, moved: tuple[float, ...]) -> np.ndarray:
    return np.stack([render_image(Scene((thing,)), size, moved=way) for way in moved]).astype(np.float32)


def _recognised_sounds(frames_NM: np.ndarray) -> list[str]:
    """The shapes whose sounds fill the thirds of a spectrogram, up to the first that is nearer to silence.

    A third is compared with those of every shape's sound at several pitches, by the mean of its frames.
    """
    if len(frames_NM) < 3:
        return []
    thirds, found = np.array_split(frames_NM, 3), list[str]()
    for number, third in enumerate(thirds):
        patterns = _sounds_of_a_third(len(frames_NM), number)
        errors = {name: min(np.square(third - pattern).mean() for pattern in each) for name, each in patterns.items()}
        name = min(errors, key=errors.__getitem__)
        if name == "":
            break
        found.append(name)
    return found


@functools.lru_cache(maxsize=16)
def _sounds_of_a_third(frames: int, number: int) -> dict[str, list[np.ndarray]]:
    """Spectrograms of a third of a recording, by the shape that sounds in it; "" for none."""
    seconds, found = frames * FRAME / RATE, {}
    for name in ("", *SHAPES):
        each = []
        for seed in range(9 if name else 3):
            others = [shape for shape in SHAPES if shape != name]
            shapes = [*others[:number], *([name] if name else [])] if name or number else []
            scene = Scene(tuple(Thing(shape, "red", (0, 0), "up") for shape in shapes))
            sound = render_audio(scene, np.random.Generator(np.random.Philox(seed)), seconds)
            each.append(np.array_split(log_mel(sound), 3)[number])
        found[name] = each
    return found


# ------------------------------------------------------------------------------------------------------------------ as a source


@dataclasses.dataclass(frozen=True)
class World:
    """Scenes as samples, without files: sample i of a split is a task and a scene of its own.

    seconds: of a recording. size of pictures and clips is what the model's shapes take.
    """

    tasks: tuple[Task, ...] = READING
    scenes: int = 1 << 16
    """Samples of training."""
    validation: int = 2048
    """Of each other split."""

    path = "the world of shapes"

    def __post_init__(self):
        if not self.tasks or set(self.tasks) - set(TASKS):
            raise ValueError(f"tasks of the world are {', '.join(TASKS)}; these are {', '.join(self.tasks)}")

    @property
    def digest(self) -> str:
        return f"world 1 {self}"

    @property
    def kinds(self) -> set[str]:
        """Of media that are asked about."""
        return {_medium(task) for task in self.tasks if task not in WRITING} - {"text"}

    def count(self, split: str) -> int:
        return {"train": self.scenes, "validation": self.validation, "unseen": self.validation}.get(split, 0)

    def sizes(self, split: str, shapes: dict, tokenizer: Tokenizer) -> np.ndarray:
        """Of the longest text of each task."""
        rows = []
        for task in self.tasks:
            text = sum(max(len(tokenizer.encode(text)) for text in texts) for texts in _texts(task))
            if task in WRITING:
                rows.append([text + codes_for(tokenizer.codes, WRITING[task]).most + 1, 0, 0, 0, 0])
                continue
            places = [shapes[kind].most if kind == _medium(task) else 0 for kind in MEDIA]
            tokens = sum(int(shapes[kind].tokens(size)) + 1 for kind, size in zip(MEDIA, places, strict=True) if size)
            rows.append([text, *(int(shapes[kind].charged(size)) if size else 0 for kind, size in zip(MEDIA, places, strict=True)), tokens])
        return np.array(rows, np.int64)[np.arange(self.count(split)) % len(rows)]

    def samples(self, split, indices, shapes, tokenizer, seeds: Sequence[int] | None) -> list:
        numbers = fold(SPLITS.index(split), indices)
        tasks = (self.tasks[index % len(self.tasks)] for index in indices)
        return [(self._pieces(task, int(number), split, shapes, tokenizer), -1) for task, number in zip(tasks, numbers, strict=True)]

    def described(self, split: str, index: int) -> str:
        """The description that a sample of a task of writing begins with, for `recognise`."""
        (number,) = fold(SPLITS.index(split), np.array([index]))
        return _scene(int(number), split)[1].description(self.tasks[index % len(self.tasks)])

    def _pieces(self, task: Task, number: int, split, shapes, tokenizer) -> list[Piece]:
        rng, scene = _scene(number, split)
        chance = np.random.Generator(np.random.Philox(number))
        if task in WRITING:
            codes = codes_for(tokenizer.codes, WRITING[task])
            described = Piece("text", tokenizer.encode(f"{task} {scene.description(task)}. "))
            return [described, written(codes, _render(scene, codes.shape, chance), tokenizer)]
        question, answer = ask(rng, scene, task)
        asked = Piece("text", tokenizer.encode(question + " "))
        answered = Piece("text", tokenizer.encode(answer), learned=True)
        if task == "text":
            return [Piece("text", tokenizer.encode(scene.caption + ". ")), asked, answered]
        kind = _medium(task)
        return [Piece(kind, _render(scene, shapes[kind], chance)), asked, answered]


def _scene(number: int, split: str) -> tuple[random.Random, Scene]:
    """The scene of a sample's number, and what is drawn after it."""
    rng = random.Random(number)
    return rng, make_scene(rng, unseen=split == "unseen")


def _medium(task: Task):
    return {"caption": "image", "text": "text"}.get(task, task)


def _render(scene: Scene, shape: Shape, rng: np.random.Generator):
    """As large as the shape allows; pictures must be square."""
    match shape:
        case ImageShape():
            return shape.cut(render_image(scene, shape.rows * shape.patch), shape.largest)
        case VideoShape():
            return shape.cut(render_video(scene, shape.rows * shape.patch, shape.times * shape.frames), shape.largest)
        case AudioShape():
            return shape.cut(render_audio(scene, rng, shape.seconds), shape.largest)
    raise ValueError(f"no shape {shape!r}")


def _texts(task: Task) -> list[list[str]]:
    """The longest that each text of a task can be, or longer."""
    if task in WRITING:
        longest_names = zip(*(sorted(names, key=len)[-3:] for names in (SHAPES, COLOURS, DIRECTIONS)), strict=True)
        things = tuple(Thing(shape, colour, (0, 0), direction) for shape, colour, direction in longest_names)
        return [[f"{task} {Scene(things).description(task)}. "]]
    longest = zip(sorted(COLOURS, key=len)[-3:], sorted(SHAPES, key=len)[-3:], strict=True)
    caption = " and ".join(f"a {colour} {shape}" for colour, shape in longest)
    names = [*SHAPES, *COLOURS]
    asked = {
        "image": [f"colour of the {name}? " for name in names] + [f"shape of the {name} one? " for name in names],
        "video": [f"where does the {name} one go? " for name in names],
        "audio": ["which sounds first? "],
        "caption": ["what is there? "],
    }
    asked["text"] = asked["image"]
    answers = [caption] if task == "caption" else [*names, *DIRECTIONS, *NUMBERS]
    return [asked[task], answers, [caption + ". "] if task == "text" else [""]]
