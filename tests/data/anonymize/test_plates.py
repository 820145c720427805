"""Rows of letters on a ground that ends are covered, at any size and angle, dark or bright; lines of print are not."""

import cv2
import numpy as np
import pytest

from data.anonymize.found import LEAST
from data.anonymize.pictures import cover_box, detect

HEIGHT, WIDTH = 300, 400


def scene(wide: int = 150, angle: float = 0.0, plate: int = 235, letters: int = 20, around: int = 110) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [H, W] with a plate in the middle, and bool [H, W]: where. The plate is 4.5 times as wide as it is high, on even ground."""
    drawn = np.full((120, 540), plate, np.uint8)
    for place, letter in enumerate("KX27HN8"):
        cv2.putText(drawn, letter, (40 + 68 * place, 95), cv2.FONT_HERSHEY_SIMPLEX, 3.0, letters, 8, cv2.LINE_AA)
    turn = cv2.getRotationMatrix2D((270, 60), angle, wide / 540)
    turn[:, 2] += np.array([WIDTH / 2 - 270, HEIGHT / 2 - 60])
    laid = cv2.warpAffine(cv2.GaussianBlur(drawn, (0, 0), max(0.5, 540 / wide / 3)), turn, (WIDTH, HEIGHT))
    where = cv2.warpAffine(np.full(drawn.shape, 255, np.uint8), turn, (WIDTH, HEIGHT)) > 127
    return np.where(where, laid, around).astype(np.uint8), where


def covered(grey: np.ndarray) -> np.ndarray:
    """bool [H, W]: what is not as it was."""
    pixels = np.random.default_rng(0).integers(0, 256, (*grey.shape, 3), np.uint8)
    before = pixels.copy()
    for hit in detect(grey, "PLATE"):
        if hit.covered:
            cover_box(pixels, hit.box)
    return (pixels != before).any(2)


@pytest.mark.parametrize("wide", [70, 150, 260])
@pytest.mark.parametrize("angle", [-25, 0, 10])
def test_plates_are_covered_at_any_size_and_angle(wide, angle):
    grey, where = scene(wide, angle)
    found = covered(grey)
    assert found[where].mean() > 0.95 and found.mean() < 0.75
    hits = detect(grey, "PLATE")
    assert all(hit.score >= LEAST for hit in hits)
    assert all(x >= 0 and y >= 0 and w > 0 and h > 0 and x + w <= WIDTH and y + h <= HEIGHT for (x, y, w, h), _ in hits)


@pytest.mark.parametrize("plate, letters, around", [(30, 230, 140), (200, 60, 30), (235, 160, 60)])
def test_bright_letters_and_dark_ones(plate, letters, around):
    """Turned further than the cascade knows plates."""
    grey, where = scene(angle=15, plate=plate, letters=letters, around=around)
    assert covered(grey)[where].mean() > 0.95


def test_the_same_letters_on_paper_are_a_line_of_print():
    """The ground goes on above and below them; so it does where more lines stand there."""
    grey, _ = scene(around=235)
    assert not covered(grey).any()
    page = np.full((HEIGHT, WIDTH), 240, np.uint8)
    for line in range(8):
        cv2.putText(page, "GO TO 2407 OLD MILL", (15, 36 + 34 * line), cv2.FONT_HERSHEY_SIMPLEX, 0.8, 20, 2, cv2.LINE_AA)
    assert not covered(page).any()


def test_no_letters_no_plate():
    noise = np.random.default_rng(0).normal(120, 40, (HEIGHT, WIDTH)).clip(0, 255).astype(np.uint8)
    for grey in (noise, np.zeros((HEIGHT, WIDTH), np.uint8), np.zeros((3, 5), np.uint8), np.full((1, 1), 9, np.uint8)):
        assert not [hit for hit in detect(grey, "PLATE") if hit.covered]
