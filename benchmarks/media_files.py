"""The raw records of the races of streams: JPEGs of about 30 kB, short clips, recordings, texts of 1 to 2 kB; the same each time.

Needs NumPy, Pillow, PyAV and soundfile only.
"""

import io
from fractions import Fraction
from pathlib import Path

import numpy as np

WORDS = 20_000


def make(kind: str, folder: Path, count: int) -> None:
    """Files 000000, 000001 ... in a folder."""
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"{number:06d}").write_bytes({"images": jpeg, "video": clip, "audio": recording, "records": text}[kind](number))


def jpeg(number: int) -> bytes:
    """320 x 320, smooth with some noise."""
    from PIL import Image

    draw = np.random.default_rng(number)
    coarse = Image.fromarray(draw.integers(0, 256, (20, 20, 3), np.uint8)).resize((320, 320), Image.Resampling.BICUBIC)
    pixels = np.asarray(coarse, np.float32) + draw.normal(0, 9, (320, 320, 1))
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=80)
    return file.getvalue()


def clip(number: int) -> bytes:
    """Four seconds of 320 x 240 at 24 frames a second: patches of colour on their ways, in H.264."""
    import av

    draw = np.random.default_rng(number)
    ground = np.kron(draw.integers(0, 256, (12, 16, 3), np.uint8), np.ones((20, 20, 1), np.uint8))
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("h264", rate=24)
        stream.width, stream.height, stream.pix_fmt, stream.time_base = 320, 240, "yuv420p", Fraction(1, 24)
        stream.codec_context.thread_count = 1
        speeds, colours = draw.integers(-4, 5, (6, 2)), draw.integers(0, 256, (6, 3))
        for moment in range(96):
            frame = np.roll(ground, moment, axis=1)
            for k in range(6):
                y, x = (draw_start + speed * moment for draw_start, speed in zip((30 * k, 45 * k), speeds[k], strict=True))
                frame[y % 200 : y % 200 + 40, x % 280 : x % 280 + 40] = colours[k]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def recording(number: int) -> bytes:
    """One to six seconds of one channel at 16 kHz in FLAC: gliding tones over noise."""
    import soundfile

    draw, rate = np.random.default_rng(number), 16_000
    time = np.arange(round(draw.uniform(1, 6) * rate)) / rate
    sound = draw.normal(0, 0.01, len(time))
    for _ in range(4):
        sound += 0.15 * np.sin(2 * np.pi * (draw.uniform(80, 4000) + draw.uniform(-100, 100) * time) * time)
    file = io.BytesIO()
    soundfile.write(file, sound.clip(-1, 1), rate, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def text(number: int) -> bytes:
    draw = np.random.default_rng(number)
    return " ".join(f"word{word}" for word in draw.integers(0, WORDS, draw.integers(110, 220))).encode()
