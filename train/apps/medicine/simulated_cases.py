"""Cases whose best possible accuracy is known: words, values and an image, each of which tells something of a coin's side.

python -m train.apps.medicine.simulated_cases FOLDER SEED writes train.jsonl, test.jsonl and a tokenizer, and says the best accuracy.
"""

import base64
import io
import itertools
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.media.signals.packages import load_pillow
from train.apps.medicine.cases import PIXELS

LABELS = ("ill", "well")
WORDS, OF_ILL = 7, 0.65
"""Of a text; the probability with which a word of an ill person is `a`, and of one who is well `b`."""
VALUES, APART = ("first", "second"), 0.9
"""Each is normal with deviation 1, and its means for the two labels are so far apart."""
NOISE, SHADE = 0.1, 0.065
"""Of an image from 0 to 1: the deviation of each pixel, and the length of the shade that is added for the ill and taken for others."""
MISSING = 0.25
"""Probability with which each source is missing, but never all."""
SOURCES = ("text", "table", "image")


def shade() -> np.ndarray:
    """float64 [PIXELS, PIXELS] of length 1: a wave from above to below."""
    wave = np.cos(np.pi * (np.arange(PIXELS) + 0.5) / PIXELS)[:, None] * np.ones(PIXELS)
    return wave / np.linalg.norm(wave)


def simulate(count: int, seed: int, missing: float = MISSING) -> tuple[list[dict[str, Any]], np.ndarray]:
    """(rows, and of each the log-odds of the first label given all that it has). Labels are equally frequent, and sources independent given
    the label."""
    draw = np.random.default_rng(seed)
    rows, odds = [], np.zeros(count)
    for number in range(count):
        ill = bool(draw.random() < 0.5)
        there = draw.random(3) >= missing
        there |= ~there.any()
        row: dict[str, Any] = {"outcome": LABELS[0] if ill else LABELS[1]}
        if there[0]:
            is_a = draw.random(WORDS) < (OF_ILL if ill else 1 - OF_ILL)
            row["text"] = " ".join(np.where(is_a, "a", "b"))
            odds[number] += (2 * is_a.sum() - WORDS) * math.log(OF_ILL / (1 - OF_ILL))
        if there[1]:
            values = draw.normal(APART / 2 if ill else -APART / 2, 1, len(VALUES))
            row |= {name: round(float(value), 6) for name, value in zip(VALUES, values, strict=True)}
            odds[number] += APART * values.sum()
        if there[2]:
            image = 0.5 + (SHADE if ill else -SHADE) * shade() + draw.normal(0, NOISE, (PIXELS, PIXELS))
            odds[number] += 2 * SHADE / NOISE**2 * ((image - 0.5) * shade()).sum()
            row["image"] = _written(image)
        rows.append(row)
    return rows, odds


def _written(image: np.ndarray) -> str:
    """A PNG as text."""
    content = io.BytesIO()
    load_pillow().fromarray(np.clip(np.round(255 * image), 0, 255).astype(np.uint8)).save(content, "PNG")
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()


def best_of(sources: Sequence[str]) -> float:
    """The accuracy of who knows how such cases are made and sees these sources, all of them: exact.

    Log-odds are those of the number of words, which is binomial, and a normal number: of values and the image, for the ill with mean
    d^2 / 2 and variance d^2.
    """
    squared = (len(VALUES) * APART**2 if "table" in sources else 0) + ((2 * SHADE / NOISE) ** 2 if "image" in sources else 0)
    words = WORDS if "text" in sources else 0
    d, found = math.sqrt(squared), 0.0
    for count in range(words + 1):
        share = math.comb(words, count) * OF_ILL**count * (1 - OF_ILL) ** (words - count)
        mean = (2 * count - words) * math.log(OF_ILL / (1 - OF_ILL)) + squared / 2
        found += share * (0.5 * (1 + math.erf(mean / d / math.sqrt(2))) if d else 0.5 * (1 + np.sign(mean)))
    return float(found)


def best(sources: Sequence[str] = SOURCES, missing: float = MISSING) -> float:
    """The same of cases as `simulate` makes them, of which the other sources are not seen; a case of which none is seen is a guess."""
    found = 0.0
    for kept in itertools.product((False, True), repeat=len(SOURCES)):
        seen = [name for name, there in zip(SOURCES, kept, strict=True) if there] or SOURCES
        found += math.prod(1 - missing if there else missing for there in kept) * best_of([name for name in seen if name in sources])
    return found


def write(folder: str, seed: int, learned: int = 3000, tested: int = 3000) -> dict[str, float]:
    """The files; the best accuracies, of these rows and on average."""
    from data.tokenizer import character_tokenizer

    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    character_tokenizer("ab ").save(str(place / "tokenizer"))
    for name, count, own in (("train", learned, 2 * seed), ("test", tested, 2 * seed + 1)):
        rows, odds = simulate(count, own)
        (place / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    right = (odds > 0) == np.array([row["outcome"] == LABELS[0] for row in rows])
    return {"best": best(), "best_of_rows": float(right.mean())}


if __name__ == "__main__":
    print(json.dumps(write(sys.argv[1], int(sys.argv[2]))))
