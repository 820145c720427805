import contextlib
import functools
import io
import struct
import tracemalloc
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from data.media.kinds import Facts
from data.media.signals import decoding
from data.media.signals.decoding import Undecodable, decode_audio, decode_image, decode_video, encode_image, examine, probe
from tests.data.media.media_files import (
    aac_file,
    animation_file,
    audio_file,
    cut_video_file,
    image_file,
    picture,
    png_bomb,
    resized_video_file,
    shown_frames,
    sound_file,
    sound_frames,
    tone,
    video_file,
    webp_bomb,
)

# --------------------------------------------------------------------------------------------------------------------- images


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_a_picture_comes_back(form):
    pixels = decode_image(image_file(form=form))
    assert pixels.dtype == np.uint8 and pixels.shape == (24, 32, 3)
    assert np.abs(pixels.astype(int) - picture()).mean() < {"PNG": 1e-9, "BMP": 1e-9, "JPEG": 4, "WEBP": 5, "GIF": 12}[form]
    assert probe("image", image_file(form=form)) == Facts(width=32, height=24, bytes=len(image_file(form=form)))


@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"subsampling": 2, "quality": 30}, {"progressive": True}, {"mode": "L"}])
def test_the_short_way_for_jpeg_gives_the_pixels_of_pillow(options, monkeypatch):
    """Also into a given array, in order or not; and it is the way that is taken."""
    pytest.importorskip("simplejpeg")
    content = image_file(picture(37, 51), **options)
    found, expected = decode_image(content), np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    np.testing.assert_array_equal(found, expected)
    wide = np.zeros((37, 60, 3), np.uint8)
    for out in (np.empty_like(found), wide[:, 3:54]):
        assert decode_image(content, out=out) is out
        np.testing.assert_array_equal(out, expected)
    monkeypatch.setattr("data.media.signals.decoding._image", lambda *_: pytest.fail("Pillow was asked"))
    decode_image(content)
    decode_image(content, size=(37, 51))
    with pytest.raises(Undecodable, match="too large"):
        decode_image(content, max_pixels=1000)


def test_exif_behind_other_segments_turns_a_jpeg():
    """A colour profile of many segments comes first: Exif lies behind 64 KB, where only the segments lead to it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    content = image_file(picture(24, 32), exif=exif)
    place = content.index(b"\xff\xe1")
    profile = b"\xff\xe2\xff\xff" + b"ICC_PROFILE\0" + bytes(65_521)
    for between in (2 * profile, b"\xff" * 7, profile + b"\xff" * 3):
        behind = content[:place] + between + content[place:]
        assert decode_image(behind).shape == (32, 24, 3)
        assert (decode_image(behind) == decode_image(content)).all()
        assert (probe("image", behind).width, probe("image", behind).height) == (24, 32)


def test_a_comment_that_speaks_of_exif_turns_nothing():
    content = image_file(picture(24, 32), comment=b"Exif\0\0")
    assert (decode_image(content) == np.asarray(Image.open(io.BytesIO(content)))).all()


def test_encoding_and_decoding_are_inverse():
    assert (decode_image(encode_image(picture())) == picture()).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_its_exif_says(orientation):
    """What a camera stores on its side is seen upright: by all eight orientations, in pixels and in the facts."""
    from PIL import Image

    upright = Image.fromarray(picture(24, 32))
    turn = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(turn[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    for form in ("PNG", "JPEG"):
        file = io.BytesIO()
        stored.save(file, form, exif=exif)
        facts = probe("image", file.getvalue())
        assert (facts.height, facts.width) == (24, 32)
        assert np.abs(decode_image(file.getvalue()).astype(int) - picture(24, 32)).mean() < 4
        assert decode_image(file.getvalue(), size=(6, 8)).shape == (6, 8, 3)


def test_every_kind_of_colour_becomes_rgb():
    half = np.full((8, 8), 128, np.uint8)
    assert decode_image(image_file(half, "PNG")).tolist() == np.full((8, 8, 3), 128).tolist()
    assert decode_image(image_file(half.astype(np.uint16) * 257, "PNG")).tolist() == np.full((8, 8, 3), 128).tolist()  # 16 bits
    assert decode_image(image_file(mode="CMYK")).shape == (24, 32, 3)
    assert np.abs(decode_image(image_file(mode="CMYK")).astype(int) - picture()).mean() < 4
    assert decode_image(image_file(form="PNG", mode="1")).max() == 255
    assert decode_image(image_file(form="PNG", mode="P")).shape == (24, 32, 3)


def test_what_is_transparent_is_white():
    clear = np.zeros((4, 4, 4), np.uint8)
    assert (decode_image(image_file(clear, "PNG")) == 255).all()
    assert (decode_image(image_file(clear, "WEBP", lossless=True)) == 255).all()
    assert (decode_image(image_file(np.zeros((4, 4), np.uint8), "PNG", transparency=0)) == 255).all()
    solid = np.dstack([picture(), np.full((24, 32), 255, np.uint8)])
    assert (decode_image(image_file(solid, "PNG")) == picture()).all()


@pytest.mark.parametrize("form", ["GIF", "WEBP"])
def test_of_an_animation_the_first_frame_counts(form):
    content = animation_file(form)
    assert (decode_image(content) == [255, 0, 0]).all()
    assert "animated" in examine("image", content).remarks[0]


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_a_picture_is_scaled_and_a_part_of_it_taken(form):
    """A JPEG is decoded at a fraction of its size where that suffices, and looks the same."""
    content, whole = image_file(picture(192, 256), form, **({"quality": 95} if form == "JPEG" else {})), picture(192, 256)
    small = decode_image(content, size=(24, 32)).astype(int)
    assert np.abs(small - whole.reshape(24, 8, 32, 8, 3).mean((1, 3))).mean() < 3
    part = decode_image(content, box=(0.25, 0.5, 0.75, 1.0)).astype(int)
    assert np.abs(part - whole[48:144, 128:]).mean() < 3
    part = decode_image(content, size=(12, 16), box=(0.25, 0.5, 0.75, 1.0)).astype(int)
    assert np.abs(part - whole[48:144, 128:].reshape(12, 8, 16, 8, 3).mean((1, 3))).mean() < 3
    assert decode_image(content, size=(300, 200)).shape == (300, 200, 3)
    out = np.zeros((2, 24, 32, 3), np.uint8)
    decode_image(content, out=out[1])
    assert (out[1] == decode_image(content, size=(24, 32))).all() and not out[0].any()
    mirrored = np.zeros((24, 32, 3), np.uint8)[:, ::-1]
    assert (decode_image(content, out=mirrored) == out[1]).all()


def test_a_picture_that_breaks_off_is_undecodable():
    for form in ("JPEG", "PNG", "WEBP", "GIF", "BMP"):
        content = image_file(picture(64, 64), form)
        for length in (0, 1, 20, len(content) // 2):
            with pytest.raises(Undecodable):
                decode_image(content[:length])
            with pytest.raises(Undecodable):
                examine("image", content[:length])


def test_noise_in_a_file_never_raises_anything_else():
    draw = np.random.default_rng(0)
    for kind, content in (
        *(("image", image_file(form=form)) for form in ("JPEG", "PNG", "WEBP", "GIF", "BMP")),
        *(("audio", audio_file(form=form)) for form in ("WAV", "FLAC", "MP3")),
        *(("audio", aac_file()), ("video", video_file(8)), ("video", video_file(8, "webm", "libvpx-vp9"))),
    ):
        for _ in range(10):
            damaged = bytearray(content)
            for place in draw.integers(0, len(content), 6):
                damaged[place] = draw.integers(256)
            for call in (
                lambda content, kind=kind: examine(kind, content),
                {
                    "image": decode_image,
                    "audio": lambda content: decode_audio(content, 8000),
                    "video": lambda content: decode_video(content, [0.0, 0.5]),
                }[kind],
            ):
                with contextlib.suppress(Undecodable):
                    call(bytes(damaged))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("content", [png_bomb(), png_bomb(60_000, 60_000), webp_bomb()], ids=["png", "huge png", "webp"])
def test_a_bomb_takes_no_memory(content):
    """A few bytes that claim a hundred million pixels are refused by their header."""
    assert len(content) < 1000
    tracemalloc.start()
    for call in (decode_image, lambda content: probe("image", content), lambda content: examine("image", content)):
        with pytest.raises(Undecodable, match="too large|pixels"):
            call(content)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_the_most_pixels_can_be_chosen():
    with pytest.raises(Undecodable, match="more than 100"):
        decode_image(image_file(), max_pixels=100)


def test_the_look_of_a_picture_stays_when_it_is_encoded_anew():
    look = examine("image", image_file(picture(200, 300), "PNG")).look
    again = examine("image", image_file(picture(200, 300), "JPEG", quality=60)).look
    other = examine("image", image_file(picture(200, 300, seed=1), "PNG")).look
    assert (look[0] ^ again[0]).bit_count() <= 3 < 8 < (look[0] ^ other[0]).bit_count()


# --------------------------------------------------------------------------------------------------------------------- videos


@pytest.mark.parametrize("form, codec", [("mp4", "h264"), ("webm", "libvpx-vp9"), ("matroska", "h264"), ("mp4", "mpeg4")])
def test_frames_are_those_that_are_shown_at_the_times(form, codec):
    """In any order, some twice, across keyframes, before the start and after the end."""
    content = video_file(24, form, codec, rate=12)
    facts = probe("video", content)
    assert (facts.width, facts.height, facts.frames) == (48, 32, 24)
    assert facts.rate == pytest.approx(12, rel=0.02)
    shown = [0, 23, 5, 5, 12, 7, 16]
    frames = decode_video(content, [(k + 0.5) / 12 for k in shown])
    assert frames.shape == (7, 32, 48, 3) and frames.dtype == np.uint8
    np.testing.assert_allclose(frames.mean((1, 2, 3)), [10 * k for k in shown], atol=6)
    np.testing.assert_allclose(decode_video(content, [-1, 99]).mean((1, 2, 3)), [0, 230], atol=6)
    assert (decode_video(content, [k / 12 for k in range(24)])[5] == frames[2]).all()


def test_what_is_left_out_changes_no_frame():
    """Frames that no other needs are not decoded unless wanted: one alone is that of a decoding of all, bit for bit."""
    draw = np.random.default_rng(0)
    pixels = np.cumsum(draw.integers(0, 12, (30, 32, 48, 3)), axis=0).astype(np.uint8)
    content = video_file(rate=10, pixels=pixels, options={"bf": "3", "g": "12"})
    every = decode_video(content, np.arange(30) / 10)
    for k in range(30):
        assert (decode_video(content, [k / 10])[0] == every[k]).all()
    assert (decode_video(content, np.arange(0, 30, 4) / 10) == every[::4]).all()


def test_frames_are_scaled():
    assert decode_video(video_file(4), [0.0], size=(8, 10)).shape == (1, 8, 10, 3)
    out = np.zeros((3, 8, 10, 3), np.uint8)
    assert decode_video(video_file(4), [0.0, 0.2, 0.0], out=out) is out
    assert (out == decode_video(video_file(4), [0.0, 0.2, 0.0], size=(8, 10))).all()
    turned = np.zeros((2, 10, 8, 3), np.uint8).transpose(0, 2, 1, 3)
    assert (decode_video(video_file(4), [0.0, 0.2], out=turned) == out[:2]).all()


def test_a_video_is_turned_as_its_file_says():
    """Of a telephone held upright: stored on its side, with a matrix that turns it clockwise."""
    pixels = np.zeros((4, 32, 48, 3), np.uint8)
    pixels[:, :16] = 255
    content = turned_file(video_file(pixels=pixels), (0, 1, -1, 0))
    facts = probe("video", content)
    assert (facts.width, facts.height) == (32, 48)
    frames = decode_video(content, [0.0])
    assert frames.shape == (1, 48, 32, 3)
    assert frames[0, :, 20:].min() > 200 and frames[0, :, :12].max() < 50  # what was above is at the right
    assert decode_video(content, [0.0], size=(24, 16)).shape == (1, 24, 16, 3)


def test_videos_that_are_none():
    for content in (
        b"",
        b"hello" * 100,
        image_file(),
        audio_file(),
        video_file(0),
        video_file()[:200],
        b"#EXTM3U\nhttp://127.0.0.1:9/a.ts\n",
    ):
        for call in (
            lambda content: decode_video(content, [0.0]),
            lambda content: probe("video", content),
            lambda content: examine("video", content),
        ):
            with pytest.raises(Undecodable):
                call(content)


def test_a_video_whose_size_changes_is_undecodable():
    content = resized_video_file()
    with pytest.raises(Undecodable, match="size changes"):
        examine("video", content)
    with pytest.raises(Undecodable, match="size changes"):
        decode_video(content, np.arange(16) / 12)
    assert decode_video(content, np.arange(7) / 12).shape == (7, 32, 32, 3)


def test_the_memory_of_a_clip_is_bounded(monkeypatch):
    monkeypatch.setattr(decoding, "MAX_CLIP_BYTES", 20_000)
    with pytest.raises(Undecodable, match="5 frames of 48 x 32"):
        decode_video(video_file(8), np.arange(5) / 12)
    with pytest.raises(Undecodable, match="pixels"):
        decode_video(video_file(8), [0.0], max_pixels=100)


# ------------------------------------------------------------------------------------------------ what a player shows, and when

OPEN = {"x264-params": "open-gop=1:keyint=12:min-keyint=12:bframes=3:b-adapt=0:scenecut=0", "g": "12"}
REFRESHED = {"x264-params": "intra-refresh=1:keyint=12:bframes=0", "g": "12"}


@functools.cache
def odd_videos() -> dict[str, bytes]:
    noise = np.cumsum(np.random.default_rng(0).integers(0, 12, (40, 32, 48, 3)), axis=0).astype(np.uint8)
    whole, opened, refreshed = (video_file(rate=10, pixels=noise, options=options) for options in ({"g": "20"}, OPEN, REFRESHED))
    stream = video_file(rate=10, pixels=noise, options=OPEN, form="mpegts")
    hiding = {"auto-alt-ref": "1", "lag-in-frames": "16"}
    sequence = video_file(rate=10, pixels=noise, codec="mpeg2video", options={"bf": "2", "g": "12"}, form="mpegts")
    return {
        "cut within a group": cut_video_file(whole, 13),
        "cut at a keyframe": cut_video_file(whole, 20),
        "cut so that no keyframe is shown": cut_video_file(whole, 25),
        "shown late": cut_video_file(whole, 0, delay=7),
        "matroska with a late start": cut_video_file(whole, 0, "matroska", delay=30),
        "open groups": opened,
        "open groups, cut within one": cut_video_file(opened, 15),
        "stream cut anywhere": stream[188 * (len(stream) // 188 // 4) :],
        "MPEG-2 cut anywhere": sequence[188 * (len(sequence) // 188 // 4) :],
        "no keyframes but the first": refreshed,
        "no keyframe": cut_video_file(refreshed, 17, "matroska"),
        "hidden reference frames": video_file(rate=10, pixels=noise, codec="libvpx", options=hiding, form="webm"),
        "without times of showing": video_file(rate=10, pixels=noise, options={"bf": "3"}, form="avi"),
        **{f"{count} frames": video_file(rate=10, pixels=noise[:count], options={"bf": "2"}) for count in (1, 2, 3)},
    }


@pytest.mark.parametrize("name", odd_videos())
def test_frames_are_those_that_plain_decoding_shows(name):
    """Their number, their times, their pixels: all at once, and each alone."""
    content = odd_videos()[name]
    times, frames = shown_frames(content)
    if name == "without times of showing":
        times = np.sort(times) - times.min()
    facts = probe("video", content)
    assert facts.frames == len(frames) and examine("video", content).facts == facts
    assert facts.rate == pytest.approx((len(times) - 1) / times[-1], rel=0.02) if len(times) > 1 else facts.rate > 0
    assert (decode_video(content, times) == frames).all()
    for k in range(len(frames) - 1, -1, -5):
        assert (decode_video(content, times[k : k + 1])[0] == frames[k]).all()


def with_edits(content: bytes, edits) -> bytes:
    """An mp4 whose edit list is another: [(milliseconds, first tick or -1 for nothing to be seen)]."""
    made = bytearray(content)
    place = made.index(b"elst") - 4
    entries = b"".join(struct.pack(">IiHH", length, first, 1, 0) for length, first in edits)
    written = struct.pack(">I4sII", 16 + len(entries), b"elst", 0, len(edits)) + entries
    old = int.from_bytes(made[place : place + 4], "big")
    for box in (place - 8, made.rindex(b"trak", 0, place) - 4, made.rindex(b"moov", 0, place) - 4):  # those that it lies in
        size = int.from_bytes(made[box : box + 4], "big") + len(written) - old
        made[box : box + 4] = size.to_bytes(4, "big")
    made[place : place + old] = written
    return bytes(made)


@pytest.mark.parametrize(
    "edits",
    [
        [(500, 13), (700, 2)],  # the later part first
        [(500, 2), (500, 25)],
        [(300, -1), (500, 5), (400, -1), (800, 21)],
        [(500, 5), (500, 5)],  # one part twice
    ],
)
def test_a_video_of_several_edits_is_what_plain_decoding_shows(edits):
    noise = np.cumsum(np.random.default_rng(0).integers(0, 12, (40, 32, 48, 3)), axis=0).astype(np.uint8)
    content = video_file(rate=10, pixels=noise, options={"g": "20", "bf": "0"})
    content = with_edits(content, [(length, 1024 * first if first > 0 else first) for length, first in edits])
    times, frames = shown_frames(content)
    assert probe("video", content).frames == len(frames) >= 10
    assert (decode_video(content, times) == frames).all()
    for k in range(len(frames)):
        assert (decode_video(content, times[k : k + 1])[0] == frames[k]).all()


def test_a_cut_begins_with_the_frame_that_was_asked_for():
    times, frames = shown_frames(cut_video_file(video_file(20), 13))
    assert len(times) == 7
    np.testing.assert_allclose(decode_video(cut_video_file(video_file(20), 13), times).mean((1, 2, 3)), 10 * np.arange(13, 20), atol=6)


@pytest.mark.parametrize("form", ["mp4", "matroska", "mpegts"])
@pytest.mark.parametrize("stretch", [Fraction(2), Fraction(1, 2), Fraction(16, 11)])
def test_a_picture_is_as_wide_as_it_is_shown(stretch, form):
    content = video_file(3, form=form, size=(64, 64), stretch=stretch)
    wide = round(64 * stretch)
    facts = probe("video", content)
    assert (facts.height, facts.width) == (64, wide)
    assert decode_video(content, [0.0]).shape == (1, 64, wide, 3)
    assert decode_video(content, [0.0], size=(8, 8)).shape == (1, 8, 8, 3)


def test_the_shape_of_pixels_may_stand_in_the_container():
    """An mp4 says how large its track is shown; here twice as wide."""
    content = bytearray(video_file(3, size=(64, 64)))
    content[_track_header(content) + 36 : _track_header(content) + 40] = (128 << 16).to_bytes(4, "big")
    assert (probe("video", bytes(content)).width, probe("video", bytes(content)).height) == (128, 64)
    turned = turned_file(bytes(content), [0, 1, -1, 0])
    assert (probe("video", turned).width, probe("video", turned).height) == (64, 128)
    assert decode_video(turned, [0.0]).shape == (1, 128, 64, 3)


def _track_header(content):
    """Place of the matrix of the first track; 36 bytes of it, then width and height."""
    return content.index(np.array([1 << 16, 0, 0, 0, 1 << 16], ">i4").tobytes(), content.index(b"tkhd"))


def turned_file(content: bytes, matrix) -> bytes:
    """An mp4 with another matrix: a pixel at (x, y) is shown at (a x + c y, b x + d y)."""
    a, b, c, d = (one << 16 for one in matrix)
    place = _track_header(content)
    return content[:place] + np.array([a, b, 0, c, d], ">i4").tobytes() + content[place + 20 :]


@pytest.mark.parametrize("matrix", [(a, 0, 0, d) for a in (1, -1) for d in (1, -1)] + [(0, b, c, 0) for b in (1, -1) for c in (1, -1)])
def test_a_picture_is_turned_and_mirrored_as_its_matrix_says(matrix):
    content = video_file(pixels=np.stack([picture(32, 48)] * 2))
    straight = decode_video(content, [0.0])[0]
    y, x = np.mgrid[:32, :48]
    a, b, c, d = matrix
    columns, rows = a * x + c * y, b * x + d * y
    columns, rows = columns - columns.min(), rows - rows.min()
    expected = np.zeros((rows.max() + 1, columns.max() + 1, 3), np.uint8)
    expected[rows, columns] = straight
    assert (decode_video(turned_file(content, matrix), [0.0])[0] == expected).all()


def test_skipping_frames_is_left_to_decoders_that_can():
    """Some are told when they are opened, which would hold for all frames that follow."""
    if "libsvtav1" not in av.codecs_available:
        pytest.skip("no encoder of AV1")
    content = video_file(24, "mp4", "libsvtav1", size=(64, 64))
    times, frames = shown_frames(content)
    for k in (5, 7, 11):
        assert (decode_video(content, times[k : k + 1])[0] == frames[k]).all()


# ------------------------------------------------------------------------------------------------------------------ recordings


@pytest.mark.parametrize("form", ["WAV", "FLAC", "OGG", "MP3", "AAC"])
def test_a_tone_comes_back_at_the_rate_asked_for(form):
    content = aac_file() if form == "AAC" else audio_file(form=form)
    facts = probe("audio", content)
    assert facts.rate == 16_000
    assert abs(facts.samples - 8000) <= {"AAC": 2048, "MP3": 1152}.get(form, 0)
    assert examine("audio", content).facts == facts
    heard = decode_audio(content, 8000)
    assert heard.dtype == np.float32 and len(heard) == -(-facts.samples // 2)
    spectrum = np.abs(np.fft.rfft(heard * np.hanning(len(heard))))
    assert spectrum.argmax() * 8000 / len(heard) == pytest.approx(440, abs=4)


def test_channels_become_their_mean():
    samples = tone(channels=2)
    np.testing.assert_allclose(decode_audio(audio_file(samples, subtype="FLOAT"), 16_000), samples.mean(1), atol=1e-6)


def test_windows_are_cut_in_seconds():
    samples = np.linspace(-1, 1, 16_000, dtype=np.float32)[:, None]
    content = audio_file(samples, subtype="FLOAT")
    np.testing.assert_allclose(decode_audio(content, 16_000, 0.25, 0.5), samples[4000:12_000, 0])
    assert len(decode_audio(content, 16_000, 0.75, 0.5)) == 4000
    assert len(decode_audio(content, 16_000, 2.0, 0.5)) == 0
    assert len(decode_audio(content, 8000, 0.25, 0.5)) == 4000
    whole = decode_audio(aac_file(), 16_000)
    assert (decode_audio(aac_file(), 16_000, 0.1, 0.2) == whole[1600:4800]).all()


def test_silence_is_told_and_nothing_is_undecodable():
    silent = audio_file(np.zeros((100, 1), np.float32))
    assert examine("audio", silent).remarks == ("silent",)
    assert (decode_audio(silent, 16_000) == 0).all()
    broken = audio_file(np.full((100, 1), np.nan, np.float32), subtype="FLOAT")
    for content in (b"", b"hello" * 100, image_file(), audio_file(np.zeros((0, 1), np.float32)), broken, audio_file(form="FLAC")[:60]):
        for call in (lambda content: decode_audio(content, 8000), lambda content: examine("audio", content)):
            with pytest.raises(Undecodable):
                call(content)
    with pytest.raises(Undecodable):
        examine("audio", audio_file(tone(2.0), form="FLAC")[:9000])


def test_loud_samples_are_clipped():
    assert np.abs(decode_audio(audio_file(4 * tone(), subtype="FLOAT"), 16_000)).max() == 1


def test_a_recording_too_long_for_memory_is_undecodable(monkeypatch):
    monkeypatch.setattr(decoding, "MAX_SAMPLES", 10_000)
    assert len(decode_audio(audio_file(), 16_000)) == 8000
    with pytest.raises(Undecodable, match="too long"):
        decode_audio(audio_file(), 32_000)
    assert len(decode_audio(audio_file(), 32_000, 0.1, 0.2)) == 6400


# ----------------------------------------------------------------------------------------------- how long a recording really is


def mp3_file(samples, xing: bool = True, **options) -> bytes:
    return sound_file(samples, 16_000, "mp3", "libmp3lame", container_options={"write_xing": str(int(xing))}, **options)


def quiet_and_loud() -> np.ndarray:
    """What a length cannot be guessed of by the size of the first packets, where those are of many sizes."""
    return np.concatenate([np.zeros((24_000, 1), np.float32), tone(0.5)])


def in_header(content: bytes, place: int, value: int, size: int = 4) -> bytes:
    return content[:place] + value.to_bytes(size, "little") + content[place + size :]


@functools.cache
def lengths_that_headers_tell_wrong() -> dict[str, tuple[bytes, np.ndarray]]:
    """Files, and the samples that are in them."""
    samples = np.round(tone(1.0) * 32768) / 32768  # which 16 bits hold
    wav, flac, ogg = (audio_file(samples, form=form) for form in ("WAV", "FLAC", "OGG"))
    size = wav.index(b"data") + 4
    found = {f"WAV of {told:,} bytes": (in_header(wav, size, told), samples) for told in (0, 10**9, 0x7FFFFFFF, 0xFFFFFFFF)}
    found["WAV that breaks off"] = (wav[:20_044], samples[:10_000])
    unknown = flac[:21] + bytes([flac[21] & 0xF0]) + bytes(4) + flac[26:]
    found["FLAC of no samples"] = (unknown, samples)
    for name, content in {
        "MP3": mp3_file(samples),
        "MP3 of several rates, without Xing": mp3_file(quiet_and_loud(), xing=False, q="4"),
        "MP3 without Xing": mp3_file(samples, xing=False),
        "MP3 without Xing that breaks off": mp3_file(samples, xing=False)[:3000],
        "MP3 without Xing that begins anywhere": mp3_file(samples, xing=False)[1000:],
        "Ogg behind Ogg": ogg + audio_file(tone(0.3), form="OGG"),
        "Opus in Matroska": sound_file(tone(1.0, 48_000), 48_000, "matroska", "libopus"),
        "AAC behind an edit list": aac_file(1.0),
        "AAC without a container": sound_file(tone(1.0), 16_000, "adts"),
    }.items():
        found[name] = content, sound_frames(content)[:, None]
    return found


@pytest.mark.parametrize("name", lengths_that_headers_tell_wrong())
def test_a_recording_is_as_long_as_it_decodes(name):
    """By a look at the header, at all of it, and by its samples."""
    content, samples = lengths_that_headers_tell_wrong()[name]
    facts = probe("audio", content)
    assert facts.samples == len(samples) and examine("audio", content).facts == facts
    heard = decode_audio(content, int(facts.rate))
    np.testing.assert_allclose(heard, np.clip(samples[:, 0], -1, 1), atol=1e-6)
    middle = len(samples) // 2 / facts.rate
    assert (decode_audio(content, int(facts.rate), middle, 0.1) == heard[len(samples) // 2 :][: round(0.1 * facts.rate)]).all()


@pytest.mark.parametrize("xing", [True, False])
def test_a_part_of_a_long_mp3_is_that_of_the_whole(xing):
    """Its packets need those before them, though not all."""
    content = mp3_file(np.random.default_rng(0).normal(0, 0.2, (200_000, 1)).astype(np.float32), xing)
    whole = decode_audio(content, 16_000)
    for first in np.random.default_rng(1).integers(0, 200_000, 12):
        assert (decode_audio(content, 16_000, first / 16_000, 0.25) == whole[first : first + 4000]).all()
    assert len(decode_audio(content, 16_000, 20.0, 1.0)) == 0


def test_what_breaks_off_is_told_from_what_a_header_says():
    """Where the header counts frames and bytes, and both are missing; where libsndfile gets less than there should be; where an index leads
    behind the end."""
    loud = np.random.default_rng(0).normal(0, 0.2, (48_000, 1)).astype(np.float32)
    whole = [mp3_file(loud), audio_file(loud, form="FLAC"), sound_file(loud, container_options={"moov_size": "20000"})]
    for content in whole:
        examine("audio", content)
        with pytest.raises(Undecodable, match="breaks off|cannot be decoded"):
            examine("audio", content[: len(content) // 2])
    wav = audio_file(loud)
    assert examine("audio", wav[:-1000]).remarks == ("shorter than its header says",)
    assert examine("audio", in_header(wav, 4, 0xFFFFFFFF)[:-1000]).remarks == ()


def test_a_little_that_cannot_be_decoded_is_left_out_and_told():
    content = mp3_file(tone(1.0))
    found = examine("audio", content + b"\xff" * 200 + bytes(range(256)) * 4)
    assert abs(found.facts.samples - 16_000) < 1152
    packets = bytearray(sound_file(tone(3.0), 16_000, "adts"))
    for place in range(600, len(packets), 300):
        packets[place : place + 60] = bytes(60)
    with pytest.raises(Undecodable):
        examine("audio", bytes(packets))


@pytest.mark.parametrize("layout, channels", [("mono", 1), ("stereo", 2), ("5.1", 6), ("7.1", 8)])
@pytest.mark.parametrize("codec", ["pcm_u8", "pcm_s16le", "pcm_s32le", "pcm_f32le", "pcm_f64le", "alac", "flac"])
def test_channels_become_their_mean_in_every_format(codec, layout, channels):
    """By libavcodec, in planes and out of them, as by libsndfile; no channel counts more, and none is made louder."""
    draw = np.random.default_rng(0)
    samples = np.round(draw.uniform(-0.9, 0.9, (800, channels)) * 100) / 128  # which 8 bits hold
    form, layout = ("mov", layout.replace("7.1", "7.1(wide)")) if codec == "alac" else ("matroska", layout)
    content = sound_file(samples.astype(np.float32), 16_000, form, codec, layout)
    np.testing.assert_allclose(decode_audio(content, 16_000), samples.mean(1), atol=1e-6)
    if not codec.startswith("alac"):
        form = {"flac": {"form": "FLAC"}, "pcm_u8": {"subtype": "PCM_U8"}}.get(codec, {"subtype": "DOUBLE"})
        np.testing.assert_allclose(decode_audio(audio_file(samples, **form), 16_000), samples.mean(1), atol=1e-6)
