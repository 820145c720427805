"""Files that take long, or much memory, or the life of what decodes them, cost whoever sent them an answer, and nobody else."""

import io
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from data.errors import UserError
from data.media.signals import packages
from data.media.signals.probing import probe
from data.media.signals.shapes import ImageShape, VideoShape
from data.media.source import cut
from serve.decoder import Busy, Decoder, Undecoded
from tests.data.media.media_files import video_file

SHAPES = {
    "image": ImageShape(patch=8, rows=2, columns=2, square=True, block=1, latents=0, inline=True),
    "video": VideoShape(patch=8, rows=2, columns=2, times=2, frames=1, fps=4.0, square=True, block=1, latents=0, inline=True),
}


def picture(side: int) -> bytes:
    found = io.BytesIO()
    Image.new("RGB", (side, side), (9, 99, 200)).save(found, "PNG")
    return found.getvalue()


def same(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_limits_end_what_decodes_and_it_begins_anew():
    """One worker: what comes behind each of these files is decoded as without it."""
    content, large = picture(30), picture(3900)  # 45 MB of pixels, within the limit
    expected = cut(content, SHAPES["image"], probe("image", content), None)
    decoder = Decoder(SHAPES, seconds=0.02, workers=1)
    with pytest.raises(Undecoded, match="takes more than 0.02 s to decode") as slow:
        decoder.cut("image", large)
    assert slow.value.code == "too_large"
    assert decoder._free.queue[0].process.is_alive()
    decoder = Decoder(SHAPES, memory=40 << 20, workers=1)
    with pytest.raises(Undecoded, match="cannot be decoded|too much memory"):
        decoder.cut("image", large)
    same(decoder.cut("image", content), expected)
    same(Decoder(SHAPES, workers=1).cut("image", large), cut(large, SHAPES["image"], probe("image", large), None))
    worker = decoder._free.queue[0]
    os.kill(worker.process.pid, signal.SIGKILL)
    worker.process.join()
    with pytest.raises(Undecoded, match="ended what decoded it") as ended:
        decoder.cut("image", content)
    assert ended.value.code == "invalid_media"
    same(decoder.cut("image", content), expected)
    video = video_file()
    same(decoder.cut("video", video), cut(video, SHAPES["video"], probe("video", video), None))


def test_a_missing_package_is_said_at_once(monkeypatch):
    def missing():
        raise UserError("needs the package av", "install it")

    monkeypatch.setattr(packages, "load_av", missing)
    with pytest.raises(UserError, match="package av"):
        Decoder(SHAPES)


def test_who_would_wait_behind_others_that_wait_is_told_to_come_again():
    """Those that wait hold threads, which prompts of text need too."""
    decoder, content = Decoder(SHAPES, workers=1), picture(30)
    decoder.cut("image", content)
    worker = decoder._free.get()
    with ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(decoder.cut, "image", content) for _ in range(2)]
        while decoder._room._value:
            time.sleep(0.01)
        with pytest.raises(Busy):
            decoder.cut("image", content)
        decoder._free.put(worker)
        same(waiting[0].result(60), waiting[1].result(60))
    same(decoder.cut("image", content), waiting[0].result())
