"""Rows of tiny media, and the facts of samples that are made by hand."""

from data.media.batches import MediaBatches
from data.media.kinds import Facts, Undecodable, text_facts
from data.media.rows import Layout
from data.media.signals.probing import probe
from data.media.signals.shapes import AudioShape, ImageShape, VideoShape
from data.media.world import World
from data.tokenizer import byte_tokenizer

TOKENIZER = byte_tokenizer()


SHAPES = {
    "image": ImageShape(patch=4, rows=4, columns=4, block=2, square=True),
    "video": VideoShape(frames=2, times=2, patch=4, rows=2, columns=2, fps=4.0),
    "audio": AudioShape(times=8, bands=80, block=2),
}


LAYOUT = Layout(160, {"image": 32, "video": 8, "audio": 32})


def batches(*sources, layout=LAYOUT, **options):
    return MediaBatches(sources or (World(scenes=60, validation=25),), TOKENIZER, SHAPES, layout, **options)


def with_facts(sample):
    """What is broken was whole when it was looked at."""
    facts = []
    for part in sample.parts:
        try:
            facts.append(text_facts(part.content) if part.kind == "text" else probe(part.kind, part.content))
        except Undecodable:
            facts.append(Facts(width=32, height=24, bytes=len(part.content)))
    return sample, facts
