"""Files keep their form, get a manifest and a review that say nothing of what was there, and bad ones are named."""

import csv
import io
import json
import subprocess
import sys
import wave
from pathlib import Path

import matplotlib.cbook
import numpy as np
import pytest
from PIL import Image

import omnia
from data.anonymize import pictures
from data.anonymize.files import MANIFEST, REVIEW
from data.anonymize.found import Hit
from data.media.kinds import Undecodable


@pytest.fixture
def folder(tmp_path):
    source = tmp_path / "in"
    (source / "sub").mkdir(parents=True)
    (source / "a.txt").write_bytes("电话13800138000\r\n好\n".encode())
    (source / "sub" / "b.jsonl").write_text('{"t": "mail a@b.co", "n": 13800138000, "k": [1, {"x": "ok"}]}\n', encoding="utf-8")
    (source / "c.csv").write_text('name,phone\n"x, ""y""",010-62781234\n', encoding="utf-8")
    (source / "d.json").write_text('{"e": "zhang@example.cn"}', encoding="utf-8")
    (source / "e.pdf").write_bytes(b"%PDF")
    return source


def run(*arguments) -> int:
    return omnia.main(["anonymize", *map(str, arguments)])


def test_a_folder_keeps_its_forms_and_says_what_was_done(folder, tmp_path, capsys):
    (tmp_path / "key").write_bytes(b"k" * 32)
    out = tmp_path / "out"
    assert run(folder, "--output", out, "--key-file", tmp_path / "key", "--json") == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["counts"] == {"PHONE": 3, "EMAIL": 2} and found["files"] == 4 and found["left_out"] == ["e.pdf"]
    assert (out / "a.txt").read_bytes().endswith("\r\n好\n".encode()) and not (out / "e.pdf").exists()
    record = json.loads((out / "sub" / "b.jsonl").read_text())
    assert record["k"] == [1, {"x": "ok"}] and record["n"].startswith("[PHONE:") and record["n"] in (out / "a.txt").read_text()
    rows = list(csv.reader(io.StringIO((out / "c.csv").read_text())))
    assert rows[1][0] == 'x, "y"' and rows[1][1].startswith("[PHONE:")
    everything = "".join(path.read_text() for path in out.rglob("*") if path.is_file())
    assert not any(secret in everything for secret in ("13800138000", "a@b.co", "zhang", "62781234"))
    review = [json.loads(line) for line in (out / REVIEW).read_text().splitlines()]
    assert len(review) == 5 and {"file": "a.txt", "line": 1, "column": 3}.items() <= review[0].items()
    manifest = json.loads((out / MANIFEST).read_text())
    assert manifest["files"]["c.csv"] == {"PHONE": 1} and len(manifest["key"]) == 16

    again = tmp_path / "again"
    assert run(out, "--output", again, "--key-file", tmp_path / "key") == 0
    for name in ("a.txt", "sub/b.jsonl", "c.csv", "d.json"):
        assert (again / name).read_bytes() == (out / name).read_bytes()
    other = tmp_path / "other"
    assert run(folder, "--output", other) == 0
    assert (other / "a.txt").read_bytes() != (out / "a.txt").read_bytes(), "another key, other surrogates"


def write_recording(path) -> None:
    """A second of noise."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(np.random.default_rng(0).integers(-9000, 9000, 8000, np.int16).tobytes())


ALONE = """
import sys
def refuse(event, arguments):
    if event.startswith("socket."):
        raise SystemExit(f"{event} {arguments}")
sys.addaudithook(refuse)
import omnia
sys.exit(omnia.main(sys.argv[1:]))
"""


def test_no_kind_of_file_makes_it_open_a_socket(folder, tmp_path):
    """By Python's own audit of a process: texts, tables, a picture, a recording. What is not anonymised here is nobody's business."""
    (folder / "f.png").write_bytes(picture(".png"))
    write_recording(folder / "g.wav")
    command = [sys.executable, "-c", ALONE, "anonymize", str(folder), "--output", str(tmp_path / "out"), "--json"]
    found = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[3], timeout=120)
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout.splitlines()[-1])["files"] == 6
    caught = subprocess.run([*command[:2], ALONE.replace("import omnia", "import socket; socket.socket()")], capture_output=True, text=True)
    assert "socket.__new__" in caught.stderr


@pytest.mark.parametrize(
    "own", [{REVIEW: '{"a": 1}'}, {MANIFEST: '{"a": 1}'}, {REVIEW: '{"a": 1}', MANIFEST: "{}"}, {REVIEW: '{"a": 1}', MANIFEST: "no JSON"}]
)
def test_a_review_or_manifest_that_no_anonymisation_wrote_is_refused(folder, tmp_path, capsys, own):
    """It would have the place of the output's, and be neither anonymised nor missed."""
    for name, content in own.items():
        (folder / name).write_text(content)
    assert run(folder, "--output", tmp_path / "out") == 2
    assert "Rename it" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_review_below_the_folder_is_a_file_as_any_other(folder, tmp_path):
    (folder / "sub" / REVIEW).write_text('{"mine": "13800138000"}\n')
    assert run(folder, "--output", tmp_path / "out") == 0
    assert "[PHONE:" in (tmp_path / "out" / "sub" / REVIEW).read_text()


def test_one_file(folder, tmp_path):
    assert run(folder / "a.txt", "--output", tmp_path / "new" / "x.txt") == 0
    assert "[PHONE:" in (tmp_path / "new" / "x.txt").read_text()
    assert (tmp_path / "new" / f"x.txt.{MANIFEST}").is_file() and (tmp_path / "new" / f"x.txt.{REVIEW}").is_file()


@pytest.mark.parametrize(
    "name, content, said",
    [
        ("x.jsonl", b'{"a": 1}\n{"a": \n', "x.jsonl: line 2:"),
        ("x.json", b"", "x.json: empty"),
        ("x.jsonl", '{"a": "\u2028"}\nno\n'.encode(), "x.jsonl: line 2:"),
        ("x.csv", b'a,"b\n', "x.csv: line 1:"),
        ("x.txt", b"\xff\xfe\x00", "x.txt"),
        ("x.png", b"no picture", "is no PNG picture"),
        ("x.exe", b"", "is of no kind"),
    ],
)
def test_bad_files_are_named_and_nothing_is_written(tmp_path, name, content, said, capsys):
    (tmp_path / name).write_bytes(content)
    assert run(tmp_path / name, "--output", tmp_path / f"out{name}") == 2
    assert said in capsys.readouterr().err and not (tmp_path / f"out{name}").exists()


def test_places_and_keys_that_will_not_do(folder, tmp_path, capsys):
    (tmp_path / "short").write_bytes(b"1234")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("x")
    for arguments, said in (
        ((folder, "--output", folder / "out"), "lies in"),
        ((folder, "--output", tmp_path / "full"), "holds other things"),
        ((folder / "a.txt", "--output", folder / "a.txt"), "is the file itself"),
        ((folder, "--output", tmp_path / "o", "--key-file", tmp_path / "short"), "can be guessed"),
        ((folder, "--output", tmp_path / "o", "--key-file", tmp_path / "none"), "no such file"),
        ((tmp_path / "nothing", "--output", tmp_path / "o"), "no such file or folder"),
    ):
        assert run(*arguments) == 2
        assert said in capsys.readouterr().err
    assert (folder / "a.txt").read_bytes().startswith("电话1".encode())


def picture(suffix: str, **options) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (80, 120, 3), np.uint8)
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, pictures.FORMATS[suffix], **options)
    return written.getvalue()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_metadata_goes_and_the_way_up_stays(suffix):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Camera of Zhang San"  # turned by 90 degrees; who made it
    exif.get_ifd(0x8825)[2] = (39.0, 54.0, 27.0)
    before = picture(suffix, exif=exif)
    assert b"Zhang San" in before
    after, found, note = pictures.cover(before, [pictures.FORMATS[suffix]])
    assert b"Zhang San" not in after and not found and not note
    image = Image.open(io.BytesIO(after))
    assert not image.getexif() and image.size == (80, 120)


def seen(grey, kind):
    """What stands for a detector: a face that is sure, and a plate that is not."""
    return [Hit((40, 20, 30, 30), 1.5)] if kind == "FACE" else [Hit((5, 50, 20, 10), 0.6)]


def test_what_is_found_is_covered_beyond_recognition(monkeypatch):
    """Of the covered box only a few means are left; the rest of the picture stays as it was."""
    monkeypatch.setattr(pictures, "detect", seen)
    before = np.array(Image.open(io.BytesIO(picture(".png"))))
    content, found, _ = pictures.cover(picture(".png"), ["PNG"])
    after = np.array(Image.open(io.BytesIO(content)))
    assert [(one.kind, one.covered, one.box, one.score) for one in found] == [
        ("FACE", True, (40, 20, 30, 30), 1.5),
        ("PLATE", False, (5, 50, 20, 10), 0.6),
    ]
    inside = after[20:50, 40:70]
    assert len(np.unique(inside.reshape(-1, 3), axis=0)) <= (pictures.BLOCKS + 2) ** 2
    np.testing.assert_array_equal(after[:, :30], before[:, :30])
    np.testing.assert_array_equal(after[:10], before[:10])


GREY = np.linspace(0, 20_000, 60 * 50).reshape(60, 50).astype(np.uint16)


@pytest.mark.parametrize("suffix, kind", [(".png", np.uint16), (".tif", np.uint16), (".tif", ">u2"), (".tif", np.int32)])
def test_sixteen_bits_of_grey_become_eight_and_it_is_said(tmp_path, suffix, kind):
    """Values far above 255 stay apart: x-rays and microscopy are so."""
    Image.fromarray(GREY.astype(kind)).save(tmp_path / f"x{suffix}")
    assert run(tmp_path / f"x{suffix}", "--output", tmp_path / f"y{suffix}") == 0
    after = np.array(Image.open(tmp_path / f"y{suffix}"))
    np.testing.assert_array_equal(after, np.repeat(np.round(GREY / 257).astype(np.uint8)[..., None], 3, 2))
    manifest = json.loads((tmp_path / f"y{suffix}.{MANIFEST}").read_text())
    assert manifest["notes"] == {f"x{suffix}": "16 bits of grey became 8"}


@pytest.mark.parametrize(
    "values, said",
    [
        ((GREY / 20_000).astype(np.float32), "of fractions"),
        (GREY.astype(np.int32) - 1, "from -1 to"),
        (GREY.astype(np.int32) * 4, "to 80000"),
    ],
)
def test_pictures_whose_white_nobody_knows_are_refused(tmp_path, capsys, values, said):
    Image.fromarray(values).save(tmp_path / "x.tif")
    assert run(tmp_path / "x.tif", "--output", tmp_path / "y.tif") == 2
    assert said in capsys.readouterr().err and not (tmp_path / "y.tif").exists()


def test_several_frames_and_bombs_are_refused(monkeypatch):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    written = io.BytesIO()
    frames[0].save(written, "TIFF", save_all=True, append_images=frames[1:])
    with pytest.raises(Undecodable, match="2 frames"):
        pictures.cover(written.getvalue(), ["TIFF"])
    monkeypatch.setattr(pictures, "MOST_PIXELS", 100)
    with pytest.raises(Undecodable, match="at most 100"):
        pictures.cover(picture(".png"), ["PNG"])


def test_the_first_of_several_frames_may_be_kept_and_no_other_is(monkeypatch):
    """Asked for by those who read it alone."""
    monkeypatch.setattr(pictures, "detect", lambda grey, kind: [])
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    for form in ("GIF", "PNG", "WEBP"):
        written = io.BytesIO()
        frames[0].save(written, form, save_all=True, append_images=frames[1:])
        image = Image.open(io.BytesIO(pictures.cover(written.getvalue(), ["JPEG", form], first=True)[0]))
        assert (image.format, getattr(image, "n_frames", 1)) == (form, 1)
        np.testing.assert_allclose(np.array(image.convert("RGB"))[8, 8], (255, 0, 0), atol=3)


def test_hidden_colours_of_a_palette_stay_hidden(monkeypatch):
    monkeypatch.setattr(pictures, "detect", lambda grey, kind: [])
    places = np.zeros((16, 16), np.uint8)
    places[:, 8:] = 1
    image = Image.fromarray(places, "P")
    image.putpalette([255, 0, 0, 0, 0, 255])
    for form in ("GIF", "PNG"):
        written = io.BytesIO()
        image.save(written, form, transparency=1)
        after = np.array(Image.open(io.BytesIO(pictures.cover(written.getvalue(), [form])[0])).convert("RGBA"))
        assert (after[:, :8] == (255, 0, 0, 255)).all() and (after[:, 8:, 3] == 0).all()


def test_a_review_names_what_is_covered_and_what_may_have_been_missed(tmp_path, monkeypatch, capsys):
    """By file and place, for texts, pictures and recordings; a picture in which nothing was seen is not named."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(picture(".png"))
    Image.new("RGB", (50, 50)).save(tmp_path / "in" / "b\x1b\n.png")
    Image.new("RGB", (40, 40)).save(tmp_path / "in" / "c.png")
    (tmp_path / "in" / "d.txt").write_text("call 13800138000\n")
    write_recording(tmp_path / "in" / "e.wav")

    def own(grey, kind):
        return [] if grey.shape == (40, 40) or (grey.shape == (50, 50) and kind == "FACE") else seen(grey, kind)

    monkeypatch.setattr(pictures, "detect", own)
    assert run(tmp_path / "in", "--output", tmp_path / "out", "--json") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["counts"] == {"FACE": 1, "PHONE": 1, "VOICE": 1}
    review = [json.loads(line) for line in (tmp_path / "out" / REVIEW).read_text().splitlines()]
    assert review[:3] == [
        {"file": "a.png", "kind": "FACE", "covered": True, "score": 1.5, "box": [40, 20, 30, 30]},
        {"file": "a.png", "kind": "PLATE", "covered": False, "score": 0.6, "box": [5, 50, 20, 10]},
        {"file": "b\x1b\n.png", "kind": "PLATE", "covered": False, "score": 0.6, "box": [5, 50, 20, 10]},
    ]
    assert review[4] == {"file": "e.wav", "kind": "VOICE", "covered": True, "seconds": [0.0, 1.0]}
    assert omnia.main(["review", str(tmp_path / "out" / REVIEW)]) == 0
    *shown, last = capsys.readouterr().out.splitlines()
    surrogate = review[3]["surrogate"]
    assert shown == [
        "a.png, 30 x 30 pixels at 40, 20: FACE covered, score 1.5",
        "a.png, 20 x 10 pixels at 5, 50: PLATE NOT covered, score 0.6",
        "b\\x1b\\x0a.png, 20 x 10 pixels at 5, 50: PLATE NOT covered, score 0.6",
        f"d.txt, line 1, column 6: PHONE 00000000000 replaced: call {surrogate}",
        "e.wav, seconds 0 to 1: VOICE changed",
    ]
    assert last == "2 of 5 were seen, but not surely enough to be covered"
    assert omnia.main(["review", str(tmp_path / "out" / REVIEW), "--json"]) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == review
    assert omnia.main(["review", str(tmp_path / "out" / REVIEW), "--pairs", "x.jsonl"]) == 2
    assert "nobody decides on" in capsys.readouterr().err
    with open(tmp_path / "out" / REVIEW, "a") as file:
        file.write('{"file": "f.png", "kind": "FACE"}\n')
    assert omnia.main(["review", str(tmp_path / "out" / REVIEW)]) == 2
    assert "line 6: is no entry" in capsys.readouterr().err


def test_a_lower_bar_changes_nothing_of_what_is_believed():
    """What a detector says at its own bar is what has a score of 1 or more; and there is more below."""
    import cv2

    grey = np.array(Image.open(matplotlib.cbook.get_sample_data("grace_hopper.jpg")).convert("L"))
    small = cv2.resize(grey, None, fx=0.5, fy=0.5)
    chance, below = np.random.default_rng(0), 0
    noisy = [np.clip(small + chance.normal(0, deviation, small.shape), 0, 255).astype(np.uint8) for deviation in (60, 70, 80, 90)]
    for name, too_few in [one for kind in pictures.DETECTORS.values() for one in kind]:
        for image in (small, *noisy):
            believed = pictures.cascade(name).detectMultiScale(image, 1.1, too_few, minSize=(pictures.SMALLEST,) * 2)
            hits = pictures._seen(image, name, too_few)
            assert {hit.box for hit in hits if hit.covered} == {tuple(map(int, box)) for box in believed}
            below += sum(not hit.covered for hit in hits)
    assert below
