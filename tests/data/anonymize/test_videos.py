"""In no frame is left what a detector found in it or near it; times and sound stay together, and nothing half-written is left behind."""

import json
import os

import av
import numpy as np
import pytest

import omnia
from data.anonymize import pictures, videos
from data.anonymize.found import Found, Hit
from data.anonymize.surrogates import Key
from data.anonymize.videos import MEMORY, cover_file
from data.media.kinds import Undecodable

KEY = Key(b"a secret of 32 bytes in all ....")
HEIGHT, WIDTH, FPS = 64, 97, 10
BOX = (32, 16, 24, 24)
SEEN = (5, 6, 14, 19)
"""Frames in which the detector of these tests finds a face, which is there in all."""


def pattern() -> np.ndarray:
    """What stands for a face: squares of 4 pixels, which no codec loses and no mean shows."""
    squares = np.random.default_rng(0).integers(0, 2, (6, 6)) * 200
    return np.kron(squares, np.ones((4, 4)))[:, :, None].astype(np.uint8) * np.ones(3, np.uint8)


def frame_of(number: int) -> np.ndarray:
    made = np.full((HEIGHT, WIDTH + 1, 3), 100, np.uint8)
    x, y, width, height = BOX
    made[y : y + height, x : x + width] = pattern()
    made[:8, :8] = 250 if number in SEEN else 5
    return made


def detect(grey, kind):
    return [Hit(BOX, 2.0)] if kind == "FACE" and grey[2:6, 2:6].mean() > 128 else []


def write(path, frames: int = 24, sound: bool = True) -> None:
    with av.open(str(path), "w") as made:
        made.metadata["title"] = "Zhang San at home"
        picture = made.add_stream("libx264", rate=FPS, options={"crf": "10"})
        picture.height, picture.width, picture.pix_fmt = HEIGHT, WIDTH + 1, "yuv420p"
        voice = made.add_stream("aac", rate=16_000, layout="mono") if sound else None
        for number in range(frames):
            made.mux(picture.encode(av.VideoFrame.from_ndarray(frame_of(number), format="rgb24")))
        made.mux(picture.encode(None))
        if voice is not None:
            times = np.arange(16_000 * frames // FPS) / 16_000
            tone = 0.3 * np.sign(np.sin(2 * np.pi * 150 * times)) * (times % 1 < 0.5)
            frame = av.AudioFrame.from_ndarray(tone.astype(np.float32)[None], format="flt", layout="mono")
            frame.sample_rate = 16_000
            made.mux(voice.encode(frame))
            made.mux(voice.encode(None))


def read(path) -> tuple[list[np.ndarray], list[float], np.ndarray, float]:
    """Frames, their times, the sound and its rate."""
    with av.open(str(path)) as given:
        frames = [(frame.to_ndarray(format="rgb24"), float(frame.time)) for frame in given.decode(video=0)]
    with av.open(str(path)) as given:
        if not given.streams.audio:
            return [one for one, _ in frames], [time for _, time in frames], np.zeros(0), 1.0
        sound = [frame.to_ndarray().mean(0) for frame in given.decode(audio=0)]
        return [one for one, _ in frames], [time for _, time in frames], np.concatenate(sound), given.streams.audio[0].rate


def shows(frame: np.ndarray) -> float:
    """How much of the pattern is in a frame, as a correlation."""
    x, y, width, height = BOX
    part = frame[y : y + height, x : x + width].astype(np.float64)
    return float(np.corrcoef(part.ravel(), pattern().ravel())[0, 1])


@pytest.mark.parametrize("suffix", list(videos.VIDEOS))
def test_a_face_is_covered_in_frames_around_those_where_it_is_found(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(pictures, "detect", detect)
    write(tmp_path / "in.mp4")
    found, stretches = cover_file(str(tmp_path / "in.mp4"), str(tmp_path / f"out{suffix}"), suffix, KEY, "a")
    assert found == {"FACE": len(SEEN), "VOICE": 1} and sorted(os.listdir(tmp_path)) == ["in.mp4", f"out{suffix}"]
    assert [(one.kind, one.seconds) for one in stretches] == [("FACE", (0.5, 1.9)), ("VOICE", (0.0, pytest.approx(2.4, abs=0.15)))]
    before, times, sound, rate = read(tmp_path / "in.mp4")
    after, new_times, new_sound, new_rate = read(tmp_path / f"out{suffix}")
    assert len(after) == len(before) == 24
    np.testing.assert_allclose(new_times, times, atol=0.002)
    for number, frame in enumerate(after):
        near = min(abs(number - seen) for seen in SEEN) <= MEMORY
        assert (shows(frame) < 0.6) == near and shows(before[number]) > 0.95, number
        np.testing.assert_allclose(frame[40:60, 4:20].mean(), before[number][40:60, 4:20].mean(), atol=6)
    content = (tmp_path / f"out{suffix}").read_bytes()
    assert b"Zhang San" in (tmp_path / "in.mp4").read_bytes() and b"Zhang San" not in content
    assert len(new_sound) / new_rate == pytest.approx(len(sound) / rate, abs=0.15)

    def loud(values, rate):  # where the sound is, in steps of a tenth of a second
        steps = values[: round(2.3 * rate)].reshape(23, -1)
        return np.sqrt(np.square(steps).mean(1))

    assert np.corrcoef(loud(sound, rate), loud(new_sound, new_rate))[0, 1] > 0.8, "the sound is where it was"


def test_damaged_videos_are_named_and_nothing_is_left(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pictures, "detect", detect)
    write(tmp_path / "whole.mp4", sound=False)
    content = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "half.mp4").write_bytes(content[: len(content) // 2])
    (tmp_path / "none.mkv").write_bytes(b"no video")
    (tmp_path / "out").mkdir()
    for name in ("half.mp4", "none.mkv"):
        assert omnia.main(["anonymize", str(tmp_path / name), "--output", str(tmp_path / "out" / name)]) == 2
        assert name in capsys.readouterr().err and not os.listdir(tmp_path / "out")

    def fail(grey, kind):
        raise KeyboardInterrupt

    monkeypatch.setattr(pictures, "detect", fail)
    with pytest.raises(KeyboardInterrupt):
        cover_file(str(tmp_path / "whole.mp4"), str(tmp_path / "out" / "a.mp4"), ".mp4", KEY, "a")
    assert not os.listdir(tmp_path / "out")


def test_pictures_are_upright_and_bombs_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "detect", detect)
    write(tmp_path / "in.mp4", 3, sound=False)
    monkeypatch.setattr(videos, "placing", lambda frame: (True, True, False))
    cover_file(str(tmp_path / "in.mp4"), str(tmp_path / "out.mp4"), ".mp4", KEY, "a")
    (first, *_), *_ = read(tmp_path / "out.mp4")
    assert first.shape == (WIDTH + 1, HEIGHT, 3)
    np.testing.assert_allclose(first.astype(int), frame_of(0).swapaxes(0, 1)[:, ::-1].astype(int), atol=40)
    monkeypatch.setattr(videos, "MOST_PIXELS", 100)
    with pytest.raises(Undecodable, match="more than 100"):
        cover_file(str(tmp_path / "in.mp4"), str(tmp_path / "out.mp4"), ".mp4", KEY, "a")


def test_a_folder_of_sound_and_video(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pictures, "detect", detect)
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "a.mp4", 6)
    assert omnia.main(["anonymize", str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["counts"] == {"FACE": 1, "VOICE": 1}
    assert sorted(os.listdir(tmp_path / "out")) == ["a.mp4", "anonymization.json", "review.jsonl"]


def test_a_review_has_stretches_and_leaves_out_what_neighbours_cover(tmp_path, monkeypatch):
    """A weak hit where a neighbour's sure one is covered needs nobody; elsewhere it is named, with the best frame of its stretch."""
    other, scores = (4, 40, 10, 10), {}

    def weak(grey, kind):
        number = len(scores.setdefault(kind, []))
        score = {5: 2.0, 6: 3.0, 7: 0.6, 20: 0.7}.get(number, 0.0)
        scores[kind].append(score)
        here = [Hit(BOX, score)] if score else []
        return [*here, *([Hit(other, 0.5 + number / 100)] if number in (0, 1, 15) else [])] if kind == "FACE" else []

    monkeypatch.setattr(pictures, "detect", weak)
    write(tmp_path / "in.mp4", 24, sound=False)
    counts, found = cover_file(str(tmp_path / "in.mp4"), str(tmp_path / "out.mp4"), ".mp4", KEY, "a")
    assert counts == {"FACE": 2}
    assert found == [
        Found("FACE", False, 0.51, other, (0.0, 0.1)),
        Found("FACE", True, 3.0, BOX, (0.5, 0.6)),
        Found("FACE", False, 0.7, BOX, (1.5, 2.0)),
    ], "frame 7 is covered for frame 6, and what lies more than a second apart is told apart"
