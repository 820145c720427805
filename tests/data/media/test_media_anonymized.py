"""Media that are anonymised while they are prepared are files anonymised before, whoever does the work and however often it stops."""

import io
import json
import os

import matplotlib.cbook
import numpy as np
import pytest
from PIL import Image

from data.anonymize import media, pictures
from data.anonymize.files import MANIFEST, REVIEW, anonymize
from data.anonymize.found import Hit
from data.anonymize.surrogates import Key
from data.anonymize.text import Anonymizer
from data.errors import UserError
from data.media.preparation.prepare import PrepareMedia, prepare_media
from data.media.shards import MediaCorpus
from tests.data.media.media_files import animation_file, audio_file, image_file, picture, sound_file, tone, video_file

SECRET = b"a secret of 32 bytes in all ...."
KEY = Key(SECRET)


def photograph() -> bytes:
    """A face that is found, with what a camera writes beside it."""
    exif = Image.Exif()
    exif[0x010F] = "Camera of Zhang San"
    image = Image.open(matplotlib.cbook.get_sample_data("grace_hopper.jpg")).resize((170, 200))
    file = io.BytesIO()
    image.save(file, "JPEG", exif=exif)
    return file.getvalue()


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (tmp_path / "key").write_bytes(SECRET)
    (folder / "a.jpg").write_bytes(photograph())
    (folder / "a.txt").write_text("call 13800138000\nor mail z@example.cn")
    (folder / "b.png").write_bytes(image_file(picture(seed=1), "PNG"))
    (folder / "b.json").write_text(json.dumps({"question": "姓名：张三丰的电话？", "answer": "010-62781234"}))
    (folder / "c.flac").write_bytes(audio_file(tone(0.3, 8000), 8000, "FLAC"))
    (folder / "d.mp4").write_bytes(video_file(6))
    (folder / "list.jsonl").write_text(json.dumps({"parts": ["see 13900139000", {"path": "b.png"}, "and here"]}) + "\n")
    return folder


def prepared(tmp_path, source, output, **changes) -> MediaCorpus:
    options = {"validation": 0.0, "workers": 1, "shard_bytes": 1000, "anonymize": str(tmp_path / "key")} | changes
    return prepare_media(PrepareMedia(str(tmp_path / output), input=(str(source),), **options))


def samples_of(corpus: MediaCorpus, split: str = "train") -> list:
    return corpus.split(split).read(range(corpus.split(split).samples))


def content(folder) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in sorted(os.listdir(folder)) if not name.startswith((".", "prepare.json"))}


def test_samples_are_those_of_anonymised_files(source, tmp_path, capsys):
    """Down to the last byte, in all formats that are written alike each time; with facts of what is stored."""
    anonymize(str(source), str(tmp_path / "clean"), Anonymizer(KEY))
    for name in (MANIFEST, REVIEW):
        (tmp_path / "clean" / name).unlink()
    own, other = prepared(tmp_path, source, "own"), prepared(tmp_path, tmp_path / "clean", "other", anonymize="")
    assert samples_of(own) == samples_of(other) and own.manifest["splits"] == other.manifest["splits"]
    assert [sample.key for sample in samples_of(own)] == ["a.jpg", "c.flac", "d.mp4", "list.jsonl@0"]
    assert "anonymized" not in other.manifest
    found = own.manifest["anonymized"]
    assert found["key"] == KEY.fingerprint and found["replaced"] == {"EMAIL": 1, "FACE": 1, "PHONE": 2, "VOICE": 1}
    assert "anonymised: 1 EMAIL, 1 FACE, 2 PHONE, 1 VOICE" in capsys.readouterr().out
    everything = b"".join(path.read_bytes() for path in (tmp_path / "own").rglob("*") if path.is_file())
    assert not any(secret in everything for secret in (SECRET, b"13800138000", b"13900139000", b"z@example.cn", b"Zhang San"))
    assert b"Zhang San" in (source / "a.jpg").read_bytes()


def test_questions_are_replaced_and_what_is_not_learned_stays_so(source, tmp_path):
    (source / "list.jsonl").unlink()
    (sample,) = [sample for sample in samples_of(prepared(tmp_path, source, "out", kind="images")) if sample.key == "b.png"]
    image, question, answer = sample.parts
    assert "张三丰" not in question.content and question.content.startswith("姓名：[NAME:") and not question.learned
    assert answer.content == KEY.surrogate("PHONE", "010-62781234") and answer.learned


def test_neither_workers_nor_interruptions_change_it(source, tmp_path, monkeypatch):
    one = prepared(tmp_path, source, "one")
    assert len(one.manifest["splits"]["train"]["shards"]) > 2
    prepared(tmp_path, source, "two", workers=2)
    assert content(tmp_path / "one") == content(tmp_path / "two")
    seen = []

    def broken_off(self, sample, real=media.SampleAnonymizer.__call__):
        seen.append(sample.key)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return real(self, sample)

    with monkeypatch.context() as patch:
        patch.setattr(media.SampleAnonymizer, "__call__", broken_off)
        with pytest.raises(KeyboardInterrupt):
            prepared(tmp_path, source, "broken")
    (tmp_path / "other").write_bytes(b"another secret of 32 bytes .....")
    for options in ({"anonymize": str(tmp_path / "other")}, {"anonymize": ""}, {"kind": "images"}):
        with pytest.raises(UserError, match="overwrite"):
            prepared(tmp_path, source, "broken", **options)
    prepared(tmp_path, source, "broken")
    assert content(tmp_path / "one") == content(tmp_path / "broken")
    prepared(tmp_path, source, "plain", anonymize="")
    with pytest.raises(UserError, match="overwrite"):
        prepared(tmp_path, source, "plain")


def test_a_repair_needs_the_same_key_rules_and_packages(source, tmp_path, monkeypatch, flip):
    corpus = prepared(tmp_path, source, "out")
    before = content(tmp_path / "out")

    def repaired(key: str = "key") -> None:
        prepare_media(PrepareMedia(str(tmp_path / "out"), repair=True, workers=1, anonymize=key and str(tmp_path / key)))

    flip(tmp_path / "out" / (corpus.manifest["splits"]["train"]["shards"][0]["file"] + ".array_record"), 100)
    (tmp_path / "other").write_bytes(b"another secret of 32 bytes .....")
    for key, said in (("", "with the same key alone"), ("other", "is not the key of"), ("none", "--anonymize .*none: no such file")):
        with pytest.raises(UserError, match=said):
            repaired(key)
    for name, value, said in (("RULES", "0", "rules of version"), ("packages", lambda: ["PIL 0"], "here are PIL 0")):
        with monkeypatch.context() as patch:
            patch.setattr(media, name, value)
            with pytest.raises(UserError, match=said):
                repaired()
    repaired()
    assert content(tmp_path / "out") == before
    repaired("")  # nothing to be made again


def test_what_cannot_be_anonymised_is_left_out_and_reasons_quote_nobody(source, tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "MOST_PIXELS", 2000)
    (source / "e.wav").write_bytes(audio_file(tone(0.1)))
    (source / "e.json").write_text(json.dumps({"label": ["13800138000"]}))
    manifest = prepared(tmp_path, source, "out").manifest
    reasons = {os.path.basename(name): reason for one in manifest["skipped"].values() for name, reason in one["first"]}
    assert reasons.keys() == {"a.jpg", "e.wav"} and "at most 2,000" in reasons["a.jpg"] and "[PHONE:" in reasons["e.wav"]
    assert manifest["anonymized"]["replaced"] == {"PHONE": 1, "VOICE": 1}, "what is not stored is not counted"


def test_equal_recordings_get_voices_of_their_own_and_stay_equal(tmp_path):
    """For the split and among duplicates: else one that is held out could be learned from by another name."""
    (tmp_path / "key").write_bytes(SECRET)
    (tmp_path / "in").mkdir()
    for name in "abcdefgh":
        (tmp_path / "in" / f"{name}.flac").write_bytes(audio_file(tone(0.2, 8000), 8000, "FLAC"))
    corpus = prepared(tmp_path, tmp_path / "in", "out", validation=0.5)
    split = "train" if corpus.manifest["splits"]["train"]["samples"] else "validation"
    found = samples_of(corpus, split)
    assert len(found) == len({sample.parts[0].content for sample in found}) == 8
    assert corpus.manifest["duplicates"]["equal"]["count"] == 7


def test_other_formats_become_those_that_are_written_alike_each_time(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "detect", lambda grey, kind: [Hit((2, 2, 6, 6), 1.0)] if kind == "PLATE" else [])
    (tmp_path / "key").write_bytes(SECRET)
    (tmp_path / "in").mkdir()
    grey = np.linspace(0, 60_000, 24 * 32).reshape(24, 32).astype(np.uint16)
    for name, made in {
        "a.gif": animation_file(),
        "b.ogg": audio_file(tone(0.2), form="OGG"),
        "c.m4a": sound_file(tone(0.2)),
        "d.mp3": audio_file(tone(0.2), form="MP3"),
        "e.webm": video_file(4, "webm", "libvpx-vp9"),
        "f.png": image_file(grey, "PNG"),
    }.items():
        (tmp_path / "in" / name).write_bytes(made)
    once, twice = prepared(tmp_path, tmp_path / "in", "once"), prepared(tmp_path, tmp_path / "in", "twice")
    begins = [sample.parts[0].content[:12] for sample in samples_of(once)]
    for begin, mark in zip(begins, (b"GIF8", b"fLaC", b"fLaC", (b"ID3", b"\xff"), b"ftyp", b"\x89PNG"), strict=True):
        assert begin.startswith(mark) or begin[4:8] == mark, (begin, mark)
    assert once.digest == twice.digest and once.manifest["anonymized"]["replaced"] == {"PLATE": 6, "VOICE": 3}
    remarked = {remark: one["count"] for remark, one in once.manifest["remarked"].items()}
    assert remarked["animated: its first frame counts"] == remarked["16 bits of grey became 8"] == 1


def test_two_recordings_of_one_sample_have_two_voices(tmp_path):
    (tmp_path / "key").write_bytes(SECRET)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.flac").write_bytes(audio_file(tone(0.2), form="FLAC"))
    (tmp_path / "in" / "list.jsonl").write_text(json.dumps({"parts": [{"path": "a.flac"}, "and", {"path": "a.flac"}]}))
    ((first, _, second),) = [sample.parts for sample in samples_of(prepared(tmp_path, tmp_path / "in", "out"))]
    assert first.content != second.content
