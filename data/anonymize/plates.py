"""Number plates: rows of letters and digits of one height, on an even ground that ends above and below them.

Nothing is learned: letters are connected pixels that differ from the mean around them, a row is a chain of them, and an edge that goes on
over the whole row tells a plate from a line of print.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from data.anonymize.found import LEAST, Box, Hit

LETTERS = 5
"""Of a row that is believed, at least; an even ground counts as one."""
EDGE = 0.93
"""Share of a row's length over which its ground must have ended, above and below."""
_FEWEST = 3  # letters of a row that is looked at
_TALL = 9, 24  # pixels of letters that are looked for at each size of the picture
_MOST = 4_000_000  # pixels of the largest of these sizes
_NEIGHBOURHOOD = 25  # pixels
_STEEPEST = 0.7  # of a row: its height over its width
_SLACK = 0.35  # of a letter's height, by which an edge may wander along a row
_CONTRAST = 30  # of 255, between letters and their ground
_UNEVEN, _EVEN = 0.3, 0.2  # deviation of a ground over that contrast: of what is no ground, and of an even one


def find_plates(grey: np.ndarray, cv2: Any) -> list[Hit]:
    """What looks like a plate in a picture of grey values, uint8 [H, W]. The score is 1 where there are just enough letters and edges."""
    found = []
    scale = min(2.0, math.sqrt(_MOST / grey.size))
    while min(grey.shape) * scale > 2 * _TALL[0]:
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        sized = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=how)
        for dark in (True, False):
            for row in _rows(sized, dark, cv2):
                tried = (row, row[1:], row[:-1], row[1:-1])  # what is beside a plate may have been taken for a part of it
                hits = [hit for part in tried if len(part) >= _FEWEST and (hit := _judged(sized, part, dark, cv2))]
                found += [_at(hit, scale, grey.shape) for hit in sorted(hits, key=lambda hit: -hit.score)[:1]]
        scale /= 2
    return found


def _rows(grey: np.ndarray, dark: bool, cv2: Any) -> Iterator[np.ndarray]:
    """Rows of what may be letters, darker or brighter than their ground: int [N, 4] of left, top, width, height, from left to right."""
    from scipy.spatial import cKDTree

    how, offset = (cv2.THRESH_BINARY_INV, 8) if dark else (cv2.THRESH_BINARY, -8)
    marked = cv2.adaptiveThreshold(grey, 255, cv2.ADAPTIVE_THRESH_MEAN_C, how, _NEIGHBOURHOOD, offset)
    _, _, stats, _ = cv2.connectedComponentsWithStats(marked, connectivity=4)
    width, height, area = stats[:, 2], stats[:, 3], stats[:, 4]
    tall = (height >= _TALL[0]) & (height <= _TALL[1])
    letters = stats[tall & (width <= 1.3 * height) & (width >= 0.1 * height) & (area >= 0.15 * width * height), :4]
    letters = letters[np.lexsort((letters[:, 1], letters[:, 0] + letters[:, 2] / 2))]
    if len(letters) < _FEWEST:
        return
    middles = letters[:, :2] + letters[:, 2:] / 2
    pairs = cKDTree(middles).query_pairs(2.5 * _TALL[1], output_type="ndarray")
    one, other = pairs.min(1), pairs.max(1)
    lower, higher = np.minimum(letters[one, 3], letters[other, 3]), np.maximum(letters[one, 3], letters[other, 3])
    right, down = (middles[other] - middles[one]).T
    fits = (lower >= 0.75 * higher) & (right >= 0.25 * higher) & (right <= 2.2 * higher) & (np.abs(down) <= _STEEPEST * right)
    nearest_last = np.lexsort((other, -np.hypot(right, down)))
    following = np.full(len(letters), -1)
    for pair in nearest_last[fits[nearest_last]]:
        following[one[pair]] = other[pair]
    for start in np.setdiff1d(np.flatnonzero(following >= 0), following):
        chain = [start]
        while following[chain[-1]] >= 0:
            chain.append(following[chain[-1]])
        if len(chain) >= _FEWEST:
            yield letters[chain]


def _judged(grey: np.ndarray, row: np.ndarray, dark: bool, cv2: Any) -> Hit | None:
    """A row as a plate: cut out upright, five letters high, and its ground looked at. None where it is no straight row, or on no ground."""
    middles = row[:, :2] + row[:, 2:] / 2
    slope, origin = np.polyfit(middles[:, 0], middles[:, 1], 1)
    angle = math.atan(slope)
    tall = float(np.median(row[:, 3])) - abs(math.sin(angle)) * float(np.median(row[:, 2]))
    if np.abs(middles[:, 1] - slope * middles[:, 0] - origin).max() > 0.3 * tall:
        return None
    first, last = middles[0, 0] - row[0, 2] / 2, middles[-1, 0] + row[-1, 2] / 2
    centre = np.array([(first + last) / 2, slope * (first + last) / 2 + origin])
    long = (last - first) / math.cos(angle)
    turn = cv2.getRotationMatrix2D(tuple(centre), math.degrees(angle), 1.0)
    turn[:, 2] += np.array([long / 2, 2.5 * tall]) - centre
    cut = cv2.warpAffine(grey, turn, (round(long), round(5 * tall)), borderMode=cv2.BORDER_REPLICATE)
    band = cut[round(2 * tall) : round(3 * tall)]
    bar, _ = cv2.threshold(band, 0, 255, cv2.THRESH_OTSU)
    ground, letters = (band[band > bar], band[band <= bar]) if dark else (band[band <= bar], band[band > bar])
    if not len(ground) or not len(letters):
        return None
    level = float(np.median(ground))
    contrast = abs(level - float(np.median(letters)))
    if contrast < _CONTRAST or ground.std() > _UNEVEN * contrast:
        return None
    other = (np.abs(cut.astype(np.float32) - level) > 0.3 * contrast).astype(np.uint8)
    ended = cv2.dilate(other, np.ones((max(1, round(_SLACK * tall)), 1), np.uint8)).mean(1)
    above, below = ended[round(1.9 * tall) : round(0.9 * tall) : -1], ended[round(3.1 * tall) : round(4.1 * tall)]
    count = len(row) + bool(ground.std() <= _EVEN * contrast)
    score = min(count / LETTERS, above.max() / EDGE, below.max() / EDGE)
    if score < LEAST:
        return None
    up, down = (0.6 * tall + _nearest(edges) for edges in (above, below))
    centre += np.array([-math.sin(angle), math.cos(angle)]) * (down - up) / 2
    return Hit(_around(centre, long + 1.6 * tall, up + down, angle), math.floor(100 * score) / 100)


def _nearest(edges: np.ndarray) -> int:
    """Where the first of them is that goes on far enough, else the longest."""
    return int((edges >= EDGE).argmax() if edges.max() >= EDGE else edges.argmax())


def _around(centre: np.ndarray, long: float, high: float, angle: float) -> Box:
    """A box around a rectangle that is turned."""
    width = abs(math.cos(angle)) * long + abs(math.sin(angle)) * high
    height = abs(math.sin(angle)) * long + abs(math.cos(angle)) * high
    return round(centre[0] - width / 2), round(centre[1] - height / 2), round(width), round(height)


def _at(hit: Hit, scale: float, shape: tuple[int, ...]) -> Hit:
    """Where it is in the picture that was scaled, [H, W]."""
    left, top, width, height = (value / scale for value in hit.box)
    right, bottom = min(round(left + width), shape[1]), min(round(top + height), shape[0])
    left, top = max(round(left), 0), max(round(top), 0)
    return Hit((left, top, right - left, bottom - top), hit.score)
