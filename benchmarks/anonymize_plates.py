"""How many number plates are found and covered, drawn for seven countries at several sizes and angles on three kinds of ground; and how
often something is found on the same grounds, and in photographs, without a plate.

python benchmarks/anonymize_plates.py [--without PICTURES.tar.gz]
PICTURES: photographs without plates. The letters are OpenCV's, so that no Chinese character is drawn; seals, bolts and shadows are missing
too.
"""

import argparse
import io
import random
import tarfile
import time
from collections import Counter
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from data.anonymize.found import Box
from data.anonymize.pictures import MARGIN, detect
from data.media.world import make_scene, render_image

HEIGHT, WIDTH = 480, 640
WIDTHS = (60, 90, 130, 200, 300)
ANGLES = (0, 5, 10, 20, 30)
GROUNDS = ("noise", "gradient", "shapes")
HIDDEN = 0.9
"""Share of a plate that must be covered."""


class Country(NamedTuple):
    """Millimetres; colours of plate and letters, RGB; a text, of which A is any letter and 0 any digit; rows below one another by |."""

    width: int
    height: int
    plate: tuple[int, int, int]
    letters: tuple[int, int, int]
    text: str


WHITE, BLACK, BLUE, YELLOW, GREEN = (245, 245, 240), (20, 20, 25), (20, 60, 160), (235, 195, 20), (20, 90, 60)
COUNTRIES = {
    "European Union": Country(520, 110, WHITE, BLACK, "AA 0000 A"),
    "Great Britain": Country(520, 111, YELLOW, BLACK, "AA00 AAA"),
    "Russia": Country(520, 112, WHITE, BLACK, "A000AA 00"),
    "China": Country(440, 140, BLUE, WHITE, "AA 00A00"),
    "China, electric": Country(480, 140, (110, 200, 130), BLACK, "AA 000000"),
    "United States": Country(305, 152, WHITE, BLUE, "AAA 0000"),
    "Japan": Country(330, 165, WHITE, GREEN, "AA 000|00-00"),
}


class How(NamedTuple):
    """How plates are drawn. font: of OpenCV. border: around them, in the colour of the letters. spoilt: by noise of 8 of 255 and by JPEG of
    quality 60."""

    font: int
    border: bool
    spoilt: bool
    seed: int


HOW = {
    "all": How(cv2.FONT_HERSHEY_SIMPLEX, border=True, spoilt=False, seed=0),
    "other letters, spoilt": How(cv2.FONT_HERSHEY_DUPLEX, border=True, spoilt=True, seed=5000),
    "and without a border": How(cv2.FONT_HERSHEY_DUPLEX, border=False, spoilt=True, seed=5000),
}


def drawn(country: Country, rng: random.Random, how: How) -> np.ndarray:
    """uint8 [H, W, 3]: a plate from the front, two pixels a millimetre."""
    height, width = 2 * country.height, 2 * country.width
    pixels = np.full((height, width, 3), country.plate, np.uint8)
    if how.border:
        cv2.rectangle(pixels, (6, 6), (width - 7, height - 7), country.letters, 5)
    signs = {"A": "ABCDEFGHKLMNPRSTUVXYZ", "0": "0123456789"}
    rows = country.text.split("|")
    for place, row in enumerate(rows):
        tall = round(height * (0.27, 0.42)[place]) if len(rows) > 1 else min(150, round(0.66 * height))
        middle = height * (0.24, 0.66)[place] if len(rows) > 1 else height / 2
        room = 0.88 * width / sum(0.5 if one == " " else 1 for one in row)
        left = 0.06 * width
        for one in row:
            if one != " ":
                letter = sign(how.font, rng.choice(signs.get(one, one)), tall, min(round(0.8 * room), round(0.62 * tall)))
                top, begin = round(middle - letter.shape[0] / 2), round(left + (room - letter.shape[1]) / 2)
                part = pixels[top : top + letter.shape[0], begin : begin + letter.shape[1]]
                part[:] = part * (1 - letter) + np.array(country.letters) * letter
            left += room * (0.5 if one == " " else 1)
    return pixels


def sign(font: int, letter: str, height: int, width: int) -> np.ndarray:
    """float [H, W, 1] from 0 to 1: a letter, whose lines are a tenth of its height; narrow ones keep their width."""
    made = np.zeros((400, 400), np.uint8)
    cv2.putText(made, letter, (100, 300), font, 8.0, 255, 26, cv2.LINE_AA)
    x, y, wide, high = cv2.boundingRect(made)
    made = made[y : y + high, x : x + wide]
    if letter == "-":
        width, height = width, height // 8
    elif wide < 0.4 * high:
        width = round(wide * height / high)
    return cv2.resize(made, (width, height), interpolation=cv2.INTER_AREA)[..., None] / 255


def ground(kind: str, seed: int) -> np.ndarray:
    """uint8 [HEIGHT, WIDTH, 3]."""
    rng = np.random.default_rng(seed)
    if kind == "noise":
        coarse = cv2.resize(rng.normal(0, 40, (HEIGHT // 16, WIDTH // 16, 3)), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        return np.clip(110 + coarse + rng.normal(0, 20, (HEIGHT, WIDTH, 3)), 0, 255).astype(np.uint8)
    if kind == "gradient":
        corners = rng.uniform(0, 255, (2, 2, 3))
        return cv2.resize(corners, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR).astype(np.uint8)
    shapes = render_image(make_scene(random.Random(seed)), WIDTH)
    return np.ascontiguousarray(shapes[:HEIGHT])


def pasted(picture: np.ndarray, plate: np.ndarray, width: float, angle: float, rng: random.Random) -> tuple[np.ndarray, np.ndarray]:
    """(the picture with the plate somewhere in it, bool [H, W]: where)."""
    scale = width / plate.shape[1]
    turn = cv2.getRotationMatrix2D((plate.shape[1] / 2, plate.shape[0] / 2), angle, scale)
    sine, cosine = abs(np.sin(np.deg2rad(angle))), abs(np.cos(np.deg2rad(angle)))
    half = (
        scale * np.array([cosine * plate.shape[1] + sine * plate.shape[0], sine * plate.shape[1] + cosine * plate.shape[0]]) / 2
    )  # of the room that it takes
    x, y = rng.uniform(half[0], WIDTH - half[0]), rng.uniform(half[1], HEIGHT - half[1])
    turn[:, 2] += np.array([x - plate.shape[1] / 2, y - plate.shape[0] / 2])
    fine = 4  # pixels of each way that are put together to one
    laid = np.concatenate([plate, np.full((*plate.shape[:2], 1), 255, np.uint8)], 2)
    laid = cv2.warpAffine(laid, fine * turn, (fine * WIDTH, fine * HEIGHT), flags=cv2.INTER_LINEAR)
    laid = cv2.resize(laid, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA).astype(np.float32)
    opaque = laid[..., 3:] / 255
    made = picture * (1 - opaque) + laid[..., :3]
    return np.clip(cv2.GaussianBlur(made, (0, 0), 0.6), 0, 255).astype(np.uint8), opaque[..., 0] > 0.5


def spoilt(picture: np.ndarray, seed: int) -> np.ndarray:
    noisy = np.clip(picture + np.random.default_rng(seed).normal(0, 8, picture.shape), 0, 255).astype(np.uint8)
    _, content = cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, 60])
    return cv2.imdecode(content, cv2.IMREAD_COLOR)


def boxes_of(picture: np.ndarray) -> list[Box]:
    return [hit.box for hit in detect(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), "PLATE") if hit.covered]


def hidden(boxes: list[Box]) -> np.ndarray:
    """bool [H, W]: what is covered, as `cover_box` does."""
    made = np.zeros((HEIGHT, WIDTH), bool)
    for x, y, width, height in boxes:
        more = round(MARGIN * max(width, height))
        made[max(0, y - more) : y + height + more, max(0, x - more) : x + width + more] = True
    return made


def measure(how: How, name: str) -> None:
    """Prints what is found: of the first way of drawing by country, size, angle and ground too."""
    found: dict[str, Counter[str]] = {}
    wrong, seconds, pictures = Counter[str](), 0.0, 0
    for ground_kind in GROUNDS:
        for place in range(len(COUNTRIES) * len(WIDTHS) * len(ANGLES)):
            seed, country, rest = how.seed + place, list(COUNTRIES)[place % len(COUNTRIES)], place // len(COUNTRIES)
            width, angle = WIDTHS[rest % len(WIDTHS)], ANGLES[rest // len(WIDTHS)]
            rng, empty = random.Random(seed), ground(ground_kind, seed)
            picture, where = pasted(empty, drawn(COUNTRIES[country], rng, how), width, rng.choice((-1, 1)) * angle, rng)
            if how.spoilt:
                picture, empty = spoilt(picture, seed), spoilt(empty, seed)
            began = time.perf_counter()
            hit = hidden(boxes_of(picture))[where].mean() >= HIDDEN
            seconds += time.perf_counter() - began
            pictures += 1
            wrong[ground_kind] += bool(boxes_of(empty))
            own = (country, f"{width} pixels wide", f"turned by {angle} degrees", f"on {ground_kind}")
            for what in (*(own if not how.spoilt else ()), name):
                found.setdefault(what, Counter()).update(["found"] * bool(hit) + ["all"])
    for what, count in found.items():
        print(f"{what:24} found {count['found']} of {count['all']}", flush=True)
    told = ", ".join(f"{wrong[kind]} of {pictures // len(GROUNDS)} ({kind})" for kind in GROUNDS)
    print(f"without a plate something found in {told}; {seconds / pictures:.2f} s a picture of {WIDTH} x {HEIGHT}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--without")
    o = parser.parse_args()
    for name, how in HOW.items():
        measure(how, name)
    if o.without:
        count = something = 0
        with tarfile.open(o.without) as archive:
            for member in archive:
                if member.name.lower().endswith((".jpg", ".jpeg", ".png")):
                    file = archive.extractfile(member)
                    assert file is not None
                    count += 1
                    something += bool(boxes_of(np.asarray(Image.open(io.BytesIO(file.read())).convert("RGB"))))
        print(f"something found in {something} of {count} photographs without a plate")


if __name__ == "__main__":
    main()
