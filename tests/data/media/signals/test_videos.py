import functools
import struct
from fractions import Fraction

import av
import numpy as np
import pytest

from data.media.kinds import Undecodable
from data.media.signals import videos
from data.media.signals.probing import examine, probe
from data.media.signals.videos import decode_video
from tests.data.media.media_files import (
    audio_file,
    cut_video_file,
    image_file,
    picture,
    resized_video_file,
    shown_frames,
    video_file,
)


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
    monkeypatch.setattr(videos, "MAX_CLIP_BYTES", 20_000)
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
