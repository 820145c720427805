"""How well a model writes media of the embedded world: what it draws after a description is recognised again."""

from typing import NamedTuple

import numpy as np

from data.media import Kind
from data.media_rows import Piece
from data.media_shapes import Cut
from data.synthetic import World, recognise
from data.tokenizer import Tokenizer
from model.generate import Sampling
from train.experiment import Experiment
from train.omni.answers import MediaWriter
from train.omni.sources import shapes_of

WRITTEN = 128
"""Descriptions of each part that are judged."""
AT_ONCE = 64


class Written(NamedTuple):
    """right: share of the media drawn that show all that was described, and nothing else. coded: the same of the true media, coded and
    decoded. descriptions; true, drawn: the media."""

    right: float
    coded: float
    descriptions: list[str]
    true: list[Cut]
    drawn: list[Cut]


def write_all(experiment: Experiment, params, tokenizer: Tokenizer, world: World, split: str, kind: Kind, count: int) -> Written:
    """What the model draws, at temperature 1, after the first `count` descriptions of a split of a world with one task."""
    codes = tokenizer.codes[kind]
    samples = world.samples(split, np.arange(count), shapes_of(experiment), tokenizer, None)
    prompts: list[list[Piece]] = [pieces[:1] for pieces, _ in samples]
    descriptions = [world.described(split, index) for index in range(count)]
    true = [codes.decode(pieces[1].content[1:]) for pieces, _ in samples]
    writer, drawn = MediaWriter(experiment, tokenizer, params), []
    for first in range(0, count, AT_ONCE):
        part = prompts[first : first + AT_ONCE]
        part += prompts[:1] * (min(AT_ONCE, count) - len(part))  # one program for all
        drawn += writer.media(part, kind, sampling=Sampling(), first_row=first)[: min(AT_ONCE, count - first)]
    shown = [cut for _, cut in drawn]

    def share(media: list[Cut]) -> float:
        return float(np.mean([recognise(cut, codes.shape) == wanted for cut, wanted in zip(media, descriptions, strict=True)]))

    return Written(share(shown), share(true), descriptions, true, shown)
