"""Files of images, videos and recordings made in code, whole and damaged."""

import contextlib
import io
import struct
import zlib
from fractions import Fraction

import numpy as np


def picture(height=24, width=32, seed=0) -> np.ndarray:
    """A smooth picture, which JPEG keeps nearly as it is."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width][..., None] / np.array([height, width]).reshape(2, 1, 1, 1)
    waves = np.sin(2 * np.pi * (y * draw.uniform(0.2, 1, 3) + x * draw.uniform(0.2, 1, 3) + draw.uniform(0, 1, 3)))
    return (127.5 + 120 * waves).astype(np.uint8)


def image_file(pixels=None, form="JPEG", mode=None, **options) -> bytes:
    from PIL import Image

    image = Image.fromarray(picture() if pixels is None else pixels)
    file = io.BytesIO()
    (image.convert(mode) if mode else image).save(file, form, **options)
    return file.getvalue()


def animation_file(form="GIF", colours=("red", "blue", "green")) -> bytes:
    from PIL import Image

    first, *rest = (Image.new("RGB", (16, 12), colour) for colour in colours)
    file = io.BytesIO()
    first.save(file, form, save_all=True, append_images=rest, duration=100, **({"lossless": True} if form == "WEBP" else {}))
    return file.getvalue()


def png_bomb(width=10_000, height=10_000) -> bytes:
    """A PNG of a few hundred bytes that claims a size."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def webp_bomb(width=16_000, height=16_000) -> bytes:
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + size + b"ANIM" + struct.pack("<I", 6) + bytes(6)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def video_file(frames=24, form="mp4", codec="h264", rate=12, size=(32, 48), options=None, pixels=None, stretch=None) -> bytes:
    """Frame k is grey of 10 k, unless `pixels` [F, H, W, 3] are given. stretch: width of a pixel over its height, a fraction."""
    import av

    file = io.BytesIO()
    height, width = size if pixels is None else pixels.shape[1:3]
    with av.open(file, "w", format=form) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"g": "8", **(options or {})}
        if stretch:
            stream.codec_context.sample_aspect_ratio = stretch
        for number in range(frames if pixels is None else len(pixels)):
            shown = np.full((height, width, 3), 10 * number % 256, np.uint8) if pixels is None else pixels[number]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def cut_video_file(content: bytes, start: int, form="mp4", delay: int = 0) -> bytes:
    """What `ffmpeg -ss` with `-c copy` makes: from the last keyframe that comes at or before the frame `start`, all packets. That frame has
    the time 0, or `delay` frames: those before it have negative times, which an mp4 hides behind an edit list."""
    import av

    file = io.BytesIO()
    with av.open(io.BytesIO(content)) as source, av.open(file, "w", format=form) as container:
        old = source.streams.video[0]
        new = container.add_stream_from_template(old)
        step = round(1 / (old.average_rate * old.time_base))
        packets = [packet for packet in source.demux(old) if packet.size]
        first = max(place for place, packet in enumerate(packets) if packet.is_keyframe and packet.pts <= start * step)
        for packet in packets[first:]:
            packet.pts, packet.dts = packet.pts - (start - delay) * step, packet.dts - (start - delay) * step
            packet.stream = new
            container.mux(packet)
    return file.getvalue()


def shown_frames(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Seconds [F] and pixels [F, H, W, 3] of all frames that plain decoding gives; packets that it cannot decode are passed over."""
    import av

    frames = []
    with av.open(io.BytesIO(content)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for packet in container.demux(stream):
            with contextlib.suppress(av.error.InvalidDataError):
                frames += stream.codec_context.decode(packet)
        times = np.array([float(frame.pts * frame.time_base) for frame in frames])
        return times - times[0], np.stack([frame.to_ndarray(format="rgb24") for frame in frames])


def sound_frames(content: bytes) -> np.ndarray:
    """float32 [n]: the mean of the channels of all frames that plain decoding gives."""
    import av

    with av.open(io.BytesIO(content)) as container:
        planes = av.AudioResampler("fltp")
        blocks = [block.to_ndarray().mean(0) for frame in container.decode(audio=0) for block in planes.resample(frame)]
        return np.concatenate(blocks)


def resized_video_file() -> bytes:
    """A video of 16 frames, the second half of which has another size: the packets of two encoders in one stream."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="mpegts") as container:
        stream = container.add_stream("h264", rate=12)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for half, side in enumerate((32, 64)):
            encoder = av.CodecContext.create("h264", "w")
            encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = side, side, "yuv420p", Fraction(1, 12)
            encoder.options = {"bf": "0"}
            frames = [av.VideoFrame.from_ndarray(np.zeros((side, side, 3), np.uint8), format="rgb24") for _ in range(8)]
            for number, frame in enumerate(frames):
                frame.pts, frame.time_base = 8 * half + number, Fraction(1, 12)
            for packet in [packet for frame in [*frames, None] for packet in encoder.encode(frame)]:
                packet.stream = stream
                container.mux(packet)
    return file.getvalue()


def tone(seconds=0.5, rate=16_000, hertz=440.0, channels=1) -> np.ndarray:
    wave = 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)
    return np.stack([wave / (1 + channel) for channel in range(channels)], axis=1).astype(np.float32)


def audio_file(samples=None, rate=16_000, form="WAV", **options) -> bytes:
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, tone(rate=rate) if samples is None else samples, rate, format=form, **options)
    return file.getvalue()


def aac_file(seconds=0.5, rate=16_000) -> bytes:
    return sound_file(tone(seconds, rate), rate)


def sound_file(samples, rate=16_000, form="mp4", codec="aac", layout="mono", container_options=None, **options) -> bytes:
    """Samples [n, channels] by libavcodec, which writes what libsndfile does not."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format=form, options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        stream.options = options
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1).copy(), format="flt", layout=layout)
        frame.sample_rate = rate
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()
