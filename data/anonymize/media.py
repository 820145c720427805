"""Samples of several media, anonymised before they are stored, as files are (data/anonymize/files.py)."""

import dataclasses
import io
from collections import Counter

import numpy as np

from data.anonymize import patterns
from data.anonymize.pictures import FORMATS, cover, load_opencv
from data.anonymize.surrogates import Key
from data.anonymize.text import Anonymizer
from data.anonymize.videos import cover_video
from data.anonymize.voices import disguise
from data.media.kinds import Part, Sample
from data.media.signals.packages import load_av, load_pillow, load_soundfile, load_soxr

RULES = f"{patterns.VERSION}.1"
"""Of texts, and of how media are changed: others make other shards."""
PICTURES = [form for form in dict.fromkeys(FORMATS.values()) if form != "TIFF"]
"""Formats of pictures in samples."""
SOUNDS = ("WAV", "FLAC", "MP3")
"""Formats in which recordings stay. Others become FLAC, also Ogg, of which each file has a number of its own, drawn by chance."""
VIDEO = ".mp4"
"""What all videos become."""


def packages() -> list[str]:
    """The packages, with versions, that an anonymised sample depends on. UserError where one is missing."""
    import scipy

    modules = load_av(), load_opencv(), load_pillow(), load_soundfile(), load_soxr(), np, scipy
    return [f"{one.__name__.partition('.')[0]} {one.__version__}" for one in modules]


class SampleAnonymizer:
    """Anonymises samples, and counts what was replaced, covered or changed, by kind. Without a key, samples stay as they are."""

    def __init__(self, key: Key | None):
        self._key = key
        if key is not None:
            load_opencv().setNumThreads(1)  # parallel are the processes
        self.counts: Counter[str] = Counter()

    def __call__(self, sample: Sample) -> tuple[Sample, list[str]]:
        """(the sample without what tells who somebody is; what else became of its media). Undecodable for a medium that cannot be changed,
        of which nothing is counted."""
        if self._key is None:
            return sample, []
        texts, counts, notes, parts = Anonymizer(self._key), Counter[str](), [], list[Part]()
        for part in sample.parts:
            if isinstance(part.content, str):
                content: str | bytes = texts(part.content)
            else:
                number = sum(one.kind != "text" for one in parts)
                name = f"{sample.key}\0{number}" if number else sample.key  # each recording has a voice of its own
                content, own, note = _CHANGED[part.kind](part.content, self._key, name)
                counts.update(own)
                notes += [note] if note else []
            parts.append(dataclasses.replace(part, content=content))
        self.counts += counts + texts.counts
        return dataclasses.replace(sample, parts=tuple(parts)), notes


def _picture(content: bytes, key: Key, name: str) -> tuple[bytes, Counter[str], str]:
    made, found, note = cover(content, PICTURES, first=True)
    return made, Counter(one.kind for one in found if one.covered), note


def _video(content: bytes, key: Key, name: str) -> tuple[bytes, Counter[str], str]:
    written = io.BytesIO()
    counts, _ = cover_video(io.BytesIO(content), written, VIDEO, key, name)
    return written.getvalue(), Counter(counts), ""


def _recording(content: bytes, key: Key, name: str) -> tuple[bytes, Counter[str], str]:
    made, found = disguise(content, _format_of(content), key, name)
    return made, Counter([found.kind]), ""


def _format_of(content: bytes) -> str:
    soundfile = load_soundfile()
    try:
        form = soundfile.info(io.BytesIO(content)).format
    except (soundfile.SoundFileError, RuntimeError, ValueError, TypeError):
        form = ""  # of those that libsndfile does not know
    return form if form in SOUNDS else "FLAC"


_CHANGED = {"image": _picture, "video": _video, "audio": _recording}
