"""What was found in a picture, in frames or in a recording, so that a person can look at it."""

from typing import Any, NamedTuple

Box = tuple[int, int, int, int]
"""Left, top, width and height, in pixels of a picture as it is shown."""
LEAST = 0.75
"""Score of what a person should look at."""


class Hit(NamedTuple):
    """What a detector sees in a box. score: from 1 on it is believed, and covered."""

    box: Box
    score: float

    @property
    def covered(self) -> bool:
        return self.score >= 1


class Found(NamedTuple):
    """An entry of a review. kind: FACE, PLATE or VOICE. seconds: the first and the last in a video or a recording; box and score are then
    those of the frame with the highest score."""

    kind: str
    covered: bool
    score: float | None = None
    box: Box | None = None
    seconds: tuple[float, float] | None = None

    def entry(self) -> dict[str, Any]:
        """What is known of it."""
        return {name: value for name, value in self._asdict().items() if value is not None}


def is_inside(box: Box, other: Box) -> bool:
    """Whether the middle of a box lies in another."""
    x, y = box[0] + box[2] / 2, box[1] + box[3] / 2
    return other[0] <= x <= other[0] + other[2] and other[1] <= y <= other[1] + other[3]
