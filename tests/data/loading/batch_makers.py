"""Makers of batches, which the processes of the tests import: nothing else should be."""

import dataclasses
import os
import signal
import sys
import time
from typing import NamedTuple

import numpy as np

from data.errors import UserError
from data.loading.process_prefetch import shared_empty


class Batch(NamedTuple):
    images: np.ndarray
    label: np.ndarray
    note: object = None


class Unsendable(Exception):
    def __init__(self, first, second):
        super().__init__(first)
        self.hook = lambda: second


@dataclasses.dataclass
class Maker:
    """Batches whose content and size depend on their number."""

    shared: bool = False
    fault: str = ""
    at: int = 5

    def __call__(self, number):
        if number == self.at:
            if self.fault == "raise":
                raise ValueError(f"batch {number}")
            if self.fault == "unsendable":
                raise Unsendable("not to be sent", 2)
            if self.fault == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.fault == "user":
                raise UserError("a record", "mend it")
        size = 1000 + number % 7 * 500
        images = shared_empty((size, 3), np.uint8) if self.shared else np.empty((size, 3), np.uint8)
        images[:] = np.random.default_rng(number).integers(0, 256, images.shape)
        return Batch(images, np.float32(number) * np.ones((2, 2), np.float32).T, ("jax" in sys.modules, os.getpid()))


class Plain:
    """Dicts of arrays of every kind, and of what is none."""

    def __call__(self, number):
        return {
            "scalar": np.array(number),
            "nothing": np.zeros((0, 3), np.int16),
            "turned": np.arange(6).reshape(2, 3).T,
            "flags": np.array([True, False]),
            "words": ["a", number],
        }


class Counting:
    def __init__(self, path):
        self.path = path

    def __call__(self, number):
        with open(self.path, "a") as file:
            file.write(f"{number}\n")
        return {"number": np.array(number)}


class Stuck:
    def __call__(self, number):
        time.sleep(60)
