import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time

import numpy as np
import pytest

from data.errors import UserError
from data.media.kinds import Part, Sample
from data.media.preparation.duplicates import FINGERPRINT, find_duplicates
from data.media.preparation.prepare import PrepareMedia, prepare_media
from data.media.shards import MediaCorpus
from tests.data.media.media_files import animation_file, audio_file, image_file, picture, png_bomb, tone, video_file

COUNT = 24


def photo(i: int) -> bytes:
    return image_file(picture(24, 32, seed=i))


def options(tmp_path, *inputs, output="out", **changes) -> PrepareMedia:
    changes = {"kind": "images", "workers": 1, "validation": 0.0, **changes}
    return PrepareMedia(str(tmp_path / output), input=tuple(map(str, inputs)), **changes)


def samples_of(corpus: MediaCorpus, split="train") -> list[Sample]:
    part = corpus.split(split)
    found = part.read(range(part.samples))
    assert all(isinstance(one, Sample) for one in found)
    return found


def content(folder) -> dict[str, bytes]:
    """Everything that must not depend on how the work was done."""
    return {name: (folder / name).read_bytes() for name in sorted(os.listdir(folder)) if not name.startswith((".", "prepare.json"))}


@pytest.fixture
def photos(tmp_path):
    """A folder of three classes, 8 pictures each; the even ones have a caption beside them."""
    folder = tmp_path / "photos"
    for i in range(COUNT):
        place = folder / ("cat", "dog", "emu")[i // 8]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{i:02d}.jpg").write_bytes(photo(i))
        if i % 4 == 0:
            (place / f"{i:02d}.txt").write_text(f"caption {i}\n")
        elif i % 4 == 2:
            (place / f"{i:02d}.json").write_text(json.dumps({"question": f"question {i}", "answer": f"answer {i}"}))
    return folder


def expected(i: int) -> tuple[Part, ...]:
    beside = {
        0: (Part("text", f"caption {i}", True),),
        2: (Part("text", f"question {i}"), Part("text", f"answer {i}", True)),
    }
    return (Part("image", photo(i)), *beside.get(i % 4, ()))


def test_a_folder_of_pictures_with_what_lies_beside_them(photos, tmp_path):
    corpus = prepare_media(options(tmp_path, photos))
    assert corpus.classes == ["cat", "dog", "emu"]
    assert samples_of(corpus) == [
        Sample(expected(i), f"{corpus.classes[i // 8]}/{i:02d}.jpg", corpus.classes.index(corpus.classes[i // 8])) for i in range(COUNT)
    ]
    split = corpus.split("train")
    assert split.widths[split.kinds == 1].tolist() == [32] * COUNT
    assert split.labels.tolist() == np.repeat([0, 1, 2], 8).tolist()
    assert prepare_media(options(tmp_path, photos, output="none", classes="none")).split("train").labels.tolist() == [-1] * COUNT
    assert prepare_media(options(tmp_path, photos / "cat", output="one")).classes == []


def test_what_is_held_out_depends_on_the_picture_alone(photos, tmp_path):
    before = prepare_media(options(tmp_path, photos, validation=0.3))
    held_out = {sample.parts[0].content for sample in samples_of(before, "validation")}
    assert 0 < len(held_out) < COUNT / 2
    (photos / "cat" / "again.jpg").write_bytes(next(iter(held_out)))
    after = prepare_media(options(tmp_path, photos, output="after", validation=0.3))
    assert {sample.parts[0].content for sample in samples_of(after, "validation")} == held_out
    assert len(samples_of(after, "validation")) == len(held_out) + 1
    assert after.manifest["duplicates"]["equal"]["count"] == 1


def test_inputs_of_their_own_for_validation(photos, tmp_path):
    corpus = prepare_media(options(tmp_path, photos / "cat", photos / "dog", validation_input=(str(photos / "emu"),), validation=0.5))
    assert len(samples_of(corpus)) == 16
    assert [sample.parts[0].content for sample in samples_of(corpus, "validation")] == [photo(i) for i in range(16, 24)]


@pytest.mark.parametrize("workers", [1, 2])
def test_the_result_does_not_depend_on_the_workers_and_repair_brings_it_back(workers, photos, tmp_path, flip, capsys):
    many = options(tmp_path, photos, shard_bytes=4000, validation=0.3, workers=workers)
    corpus = prepare_media(many)
    assert len(corpus.manifest["splits"]["train"]["shards"]) > 3
    prepare_media(options(tmp_path, photos, output="other", shard_bytes=4000, validation=0.3))
    before = content(tmp_path / "out")
    assert before == content(tmp_path / "other")
    flip(tmp_path / "out" / (corpus.manifest["splits"]["train"]["shards"][1]["file"] + ".array_record"), 3000)
    os.unlink(tmp_path / "out" / (corpus.manifest["splits"]["train"]["shards"][2]["file"] + ".index"))
    prepare_media(PrepareMedia(many.output, many.kind, repair=True))
    assert "2 of" in capsys.readouterr().out
    assert content(tmp_path / "out") == before


def test_a_killed_preparation_goes_on_where_it_stopped(photos, tmp_path):
    prepare_media(options(tmp_path, photos, output="unbroken", shard_bytes=4000, validation=0.3))
    script = (
        "import sys, time\nfrom data.media.preparation import prepare as p, task\n"
        "real = task._Task.close\n"
        "def slow(self):\n    time.sleep(0.05)\n    return real(self)\n"
        "task._Task.close = slow\n"
        "p.prepare_media(p.PrepareMedia(sys.argv[2], 'images', (sys.argv[1],), shard_bytes=4000, validation=0.3, workers=1))\n"
    )
    folder, made = tmp_path / "killed", {}
    for finished in (1, 4):
        process = subprocess.Popen([sys.executable, "-c", script, str(photos), str(folder)], stdout=subprocess.DEVNULL)
        while process.poll() is None and len(list((folder / ".prepare").glob("0*.json"))) < finished:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        for path in folder.glob("*.array_record"):
            assert made.setdefault(path.name, path.stat().st_mtime_ns) == path.stat().st_mtime_ns
    assert made and not (folder / "manifest.json").exists()
    prepare_media(options(tmp_path, photos, output="killed", shard_bytes=4000, validation=0.3))
    assert content(folder) == content(tmp_path / "unbroken")


def test_bad_input_is_counted_and_named(tmp_path):
    """Truncated, huge, empty, of a wrong ending, another medium: left out by reason; CMYK, 16 bits and animations are remarked."""
    folder = tmp_path / "in"
    folder.mkdir()
    files = {
        "good.jpg": photo(0),
        "truncated.jpg": photo(1)[:-200],
        "bomb.png": png_bomb(),
        "empty.png": b"",
        "text.jpg": b"hello",
        "sound.png": audio_file(),
        "really_a_png.jpg": image_file(picture(seed=2), "PNG"),
        "cmyk.jpg": image_file(picture(seed=3), mode="CMYK"),
        "deep.png": image_file(np.arange(768, dtype=np.uint16).reshape(24, 32) * 80, "PNG"),
        "moving.gif": animation_file(),
        "moving.webp": animation_file("WEBP", ("blue", "red")),
    }
    for name, made in files.items():
        (folder / name).write_bytes(made)
    manifest = prepare_media(options(tmp_path, folder)).manifest
    assert manifest["splits"]["train"]["samples"] == 6
    names = {reason: {os.path.basename(name) for name, _ in found["first"]} for reason, found in manifest["skipped"].items()}
    assert names == {
        "cannot be decoded": {"truncated.jpg"},
        "too large": {"bomb.png"},
        "empty": {"empty.png"},
        "no JPEG, PNG, WebP, GIF or BMP": {"text.jpg", "sound.png"},
    }
    remarked = {remark: {os.path.basename(name) for name in found["first"]} for remark, found in manifest["remarked"].items()}
    assert remarked == {
        "CMYK": {"cmyk.jpg"},
        "16 bits a value": {"deep.png"},
        "animated: its first frame counts": {"moving.gif", "moving.webp"},
    }
    with pytest.raises(UserError, match="damaged, 1 tolerated"):
        prepare_media(options(tmp_path, folder, output="strict", max_damaged=1))
    with pytest.raises(UserError, match="no sample is left: .*no JPEG"):
        prepare_media(options(tmp_path, folder / "text.jpg", output="nothing"))


def test_videos_and_recordings(tmp_path):
    folder = tmp_path / "in"
    for name, made in {
        "a.mp4": video_file(8),
        "b.webm": video_file(8, "webm", "libvpx-vp9"),
        "c.mkv": video_file(8, "matroska"),
        "no_frames.mp4": video_file(0),
        "a.wav": audio_file(),
        "b.flac": audio_file(form="FLAC"),
        "c.mp3": audio_file(form="MP3"),
        "d.ogg": audio_file(form="OGG"),
        "silent.wav": audio_file(np.zeros((50, 1), np.float32)),
        "empty.wav": audio_file(np.zeros((0, 1), np.float32)),
    }.items():
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(made)
    corpus = prepare_media(options(tmp_path, folder, kind="video"))
    assert [sample.key for sample in samples_of(corpus)] == ["a.mp4", "b.webm", "c.mkv"]
    assert corpus.split("train").frames.tolist() == [8, 8, 8]
    assert sum(found["count"] for found in corpus.manifest["skipped"].values()) == 1
    corpus = prepare_media(options(tmp_path, folder, kind="audio", output="audio"))
    assert [sample.key for sample in samples_of(corpus)] == ["a.wav", "b.flac", "c.mp3", "d.ogg", "silent.wav"]
    assert corpus.manifest["skipped"]["a recording without samples"]["count"] == 1
    assert corpus.manifest["remarked"]["silent"]["count"] == 1
    assert corpus.split("train").rates.tolist() == [16_000] * 5


def rows(i: int) -> dict:
    return {"path": f"{i:02d}.jpg", "caption": f'a "{i}",\nnew line', "label": i % 3, "split": "test" if i % 5 == 0 else "train"}


@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl"])
@pytest.mark.parametrize("shard_bytes", [1, 3000, 1 << 20])
def test_manifests_in_one_piece_or_many(form, shard_bytes, tmp_path):
    """Divided by the media that they name; what they name is not found a second time in their folder."""
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(12):
        (folder / f"{i:02d}.jpg").write_bytes(photo(i))
    with open(folder / f"list.{form}", "w", newline="") as file:
        if form == "jsonl":
            file.write("".join(json.dumps(rows(i)) + "\n\n" for i in range(12)) + json.dumps({"path": "gone.jpg"}) + "\nnot JSON")
        else:
            writer = csv.DictWriter(file, list(rows(0)), delimiter="," if form == "csv" else "\t")
            writer.writeheader()
            writer.writerows([*(rows(i) for i in range(12)), {"path": "gone.jpg", "caption": "", "label": "", "split": ""}])
            file.write("too,few" if form == "csv" else "too\tfew")
    corpus = prepare_media(options(tmp_path, folder, shard_bytes=shard_bytes))
    assert corpus.classes == ["0", "1", "2"]
    for split, numbers in (("train", [i for i in range(12) if i % 5]), ("validation", [0, 5, 10])):
        assert samples_of(corpus, split) == [
            Sample((Part("image", photo(i)), Part("text", rows(i)["caption"], True)), f"{i:02d}.jpg", i % 3) for i in numbers
        ]
    assert sum(found["count"] for found in corpus.manifest["skipped"].values()) == 2
    assert corpus.manifest["skipped"]["no file there"]["count"] == 1


def test_interleaved_documents_and_what_is_none(tmp_path):
    (tmp_path / "a.jpg").write_bytes(photo(0))
    (tmp_path / "b.wav").write_bytes(audio_file())
    (tmp_path / "bare").write_bytes(photo(1))
    good = [
        {"parts": ["one", {"path": "a.jpg"}, {"text": "two", "learned": True}, {"audio": "b.wav"}, {"image": "bare"}]},
        {"parts": [{"text": "alone"}]},
        {"image": "a.jpg", "audio": "b.wav", "question": "q", "answer": "a"},
    ]
    bad = [
        {"parts": "x"},
        {"parts": [7]},
        {"parts": []},
        {"path": "bare"},
        {"image": "a.jpg", "question": "q"},
        {"image": "a.jpg", "caption": 5},
        {"image": "a.jpg", "caption": "\ud800"},
        {"image": "a.jpg", "split": "elsewhere"},
        {"image": {"a": "b"}},
        {"image": "../../../../../../dev/zero"},
        {"image": "a\0b"},
        7,
    ]
    (tmp_path / "list.jsonl").write_text("".join(json.dumps(one) + "\n" for one in [*good, *bad]))
    corpus = prepare_media(options(tmp_path, tmp_path / "list.jsonl", kind="interleaved"))
    found = samples_of(corpus)
    assert [[part.kind for part in sample.parts] for sample in found] == [
        ["text", "image", "text", "audio", "image"],
        ["text"],
        ["image", "audio", "text", "text"],
    ]
    assert [part.learned for part in found[0].parts] == [False, False, True, False, False]
    assert sum(one["count"] for one in corpus.manifest["skipped"].values()) == len(bad)
    images = prepare_media(options(tmp_path, tmp_path / "list.jsonl", output="images"))
    assert len(samples_of(images)) == 3  # a command for images knows what `bare` is
    assert images.manifest["skipped"]["no image in it"]["count"] == 1


def test_archives_in_the_manner_of_webdataset(tmp_path):
    path = tmp_path / "in.tar"
    with tarfile.open(path, "w") as archive:
        for i in range(6):
            members = {f"{i:03d}.jpg": photo(i), f"{i:03d}.cls": str(i % 2).encode(), f"{i:03d}.txt": f"caption {i}".encode()}
            if i == 3:
                members = {"003.json": b'{"caption": "no picture"}', "003.npy": b"?"}
            for name, made in members.items():
                header = tarfile.TarInfo(name)
                header.size = len(made)
                archive.addfile(header, io.BytesIO(made))
    corpus = prepare_media(options(tmp_path, path))
    assert corpus.classes == ["0", "1"]
    assert samples_of(corpus) == [
        Sample((Part("image", photo(i)), Part("text", f"caption {i}", True)), f"{i:03d}", i % 2) for i in range(6) if i != 3
    ]
    assert corpus.manifest["skipped"]["no image in it"]["count"] == 1
    assert corpus.manifest["ignored"]["count"] == 1
    os.truncate(path, path.stat().st_size // 2)
    broken = prepare_media(options(tmp_path, path, output="broken"))
    assert "the rest cannot be read" in broken.manifest["skipped"]


def test_parquet_with_names_of_their_own(tmp_path):
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.table(
        {
            "picture": [{"bytes": photo(i), "path": None} if i != 4 else None for i in range(10)],
            "title": [f"caption {i}" for i in range(10)],
            "label": [i % 2 for i in range(10)],
            "other": list(range(10)),
        }
    )
    features = {"label": {"_type": "ClassLabel", "names": ["odd", "even"]}}
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    parquet.write_table(table, tmp_path / "in.parquet", row_group_size=2)
    with pytest.raises(UserError, match="has no image; there are label, other, picture, title"):
        prepare_media(options(tmp_path, tmp_path / "in.parquet"))
    renamed = options(tmp_path, tmp_path / "in.parquet", fields=("image=picture", "caption=title"), shard_bytes=1000, overwrite=True)
    corpus = prepare_media(renamed)
    assert corpus.classes == ["even", "odd"]
    assert [(sample.parts, sample.label) for sample in samples_of(corpus)] == [
        ((Part("image", photo(i)), Part("text", f"caption {i}", True)), (i + 1) % 2) for i in range(10) if i != 4
    ]


def test_data_sets_of_tfds_keep_their_encoded_bytes(tmp_path, monkeypatch):
    """Made and read without TensorFlow."""
    package = tmp_path / "toy_pictures"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "toy_pictures_dataset_builder.py").write_text(
        "import pathlib\nimport tensorflow_datasets as tfds\n"
        "class Builder(tfds.core.GeneratorBasedBuilder):\n"
        "    VERSION = tfds.core.Version('1.0.0')\n"
        "    def _info(self):\n"
        "        kinds = tfds.features\n"
        "        features = {'image': kinds.Image(), 'label': kinds.ClassLabel(names=['a', 'b']), 'title': kinds.Text()}\n"
        "        return self.dataset_info_from_configs(features=kinds.FeaturesDict(features), disable_shuffling=True)\n"
        "    def _split_generators(self, manager):\n"
        "        return {'train': self._generate_examples()}\n"
        "    def _generate_examples(self):\n"
        f"        for i, path in enumerate(sorted(pathlib.Path({str(tmp_path)!r}, 'files').iterdir())):\n"
        "            yield i, {'image': path.read_bytes(), 'label': i % 2, 'title': f'caption {i}'}\n"
    )
    (tmp_path / "files").mkdir()
    for i in range(6):
        (tmp_path / "files" / f"{i}.jpg").write_bytes(photo(i))
    script = (
        "from toy_pictures import toy_pictures_dataset_builder as made\n"
        f"made.Builder(data_dir={str(tmp_path / 'tfds')!r}, file_format='array_record').download_and_prepare()\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, capture_output=True)
    name = f"tfds:{tmp_path}/tfds/toy_pictures/1.0.0@train"
    corpus = prepare_media(options(tmp_path, name, fields=("caption=title",)))
    assert corpus.classes == ["a", "b"]
    assert [(sample.parts, sample.label) for sample in samples_of(corpus)] == [
        ((Part("image", photo(i)), Part("text", f"caption {i}", True)), i % 2) for i in range(6)
    ]
    assert "tensorflow" not in sys.modules


def test_another_plan_in_the_same_folder_is_refused(photos, tmp_path):
    prepare_media(options(tmp_path, photos))
    with pytest.raises(UserError, match="kind = 'images', not 'interleaved'"):
        prepare_media(options(tmp_path, photos, kind="interleaved"))
    (photos / "cat" / "00.txt").write_text("another caption")
    with pytest.raises(UserError, match="another plan"):
        prepare_media(options(tmp_path, photos))
    prepare_media(options(tmp_path, photos, overwrite=True))
    shutil.rmtree(tmp_path / "out")
    for changes, words in (
        ({"kind": "smells"}, "unknown"),
        ({"validation": 1.1}, "fraction"),
        ({"fields": ("picture=image",)}, "OURS=THEIRS"),
        ({"max_damaged": -2}, "at least"),
    ):
        with pytest.raises(UserError, match=words):
            options(tmp_path, photos, **changes)


def test_pictures_that_look_alike_are_counted(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(6):
        (folder / f"{i}.png").write_bytes(image_file(picture(160, 200, seed=i), "PNG"))
    (folder / "7.jpg").write_bytes(image_file(picture(160, 200, seed=2), quality=70))
    (folder / "8.png").write_bytes(image_file(picture(160, 200, seed=3), "PNG"))
    found = prepare_media(options(tmp_path, folder)).manifest["duplicates"]
    assert found["alike"] == {"count": 1, "first": [["train 7.jpg", "train 2.png"]]}
    assert found["equal"] == {"count": 1, "first": [["train 8.png", "train 3.png"]]}


def test_alike_is_what_a_comparison_of_all_pairs_says():
    draw = np.random.default_rng(0)
    fingerprints = np.zeros(300, FINGERPRINT)
    fingerprints["content"] = np.arange(300) - (np.arange(300) % 10 == 9)  # each tenth is equal to the one before
    fingerprints["picture"] = draw.integers(0, 1 << 63, 300, dtype=np.uint64)
    for i in range(100, 200):
        bits = sum(1 << int(bit) for bit in draw.choice(64, i % 6, replace=False))
        fingerprints["picture"][i] = fingerprints["picture"][i - 100] ^ np.uint64(bits)
    fingerprints["image"] = np.arange(300) % 7 > 0
    exact, near = find_duplicates(fingerprints)
    assert exact.tolist() == [[i, i - 1] for i in range(9, 300, 10)]
    originals = [i for i in range(300) if fingerprints["image"][i] and i % 10 != 9]
    pairs = [
        [i, j]
        for i in originals
        for j in originals
        if j < i and int(fingerprints["picture"][i] ^ fingerprints["picture"][j]).bit_count() <= 3
    ]
    assert near.tolist() == pairs and len(pairs) > 30


def test_a_tone_at_another_rate_is_no_duplicate(tmp_path):
    for name, rate in (("a.wav", 8000), ("b.wav", 16_000)):
        (tmp_path / name).write_bytes(audio_file(tone(rate=rate), rate))
    manifest = prepare_media(options(tmp_path, tmp_path / "a.wav", tmp_path / "b.wav", kind="audio")).manifest
    assert manifest["duplicates"]["equal"]["count"] == manifest["duplicates"]["alike"]["count"] == 0


def test_a_repair_takes_no_other_options_and_no_other_kind(tmp_path):
    from data.media.shards import media_manifest

    plan = {"options": {"kind": "images"}, "files": [], "tasks": []}
    (tmp_path / "prepare.json").write_text(json.dumps(plan))
    (tmp_path / "manifest.json").write_text(json.dumps(media_manifest({"train": [], "validation": []}, [])))
    for name, value in {"input": ("a",), "validation_input": ("a",), "validation": 0.5, "classes": "none", "overwrite": True}.items():
        with pytest.raises(UserError, match=f"--{name.replace('_', '-')} would have no effect"):
            prepare_media(PrepareMedia(str(tmp_path), "images", repair=True, **{name: value}))
    with pytest.raises(UserError, match="holds images, not audio.*\nRepair it with `omnia prepare images"):
        prepare_media(PrepareMedia(str(tmp_path), "audio", repair=True))
    prepare_media(PrepareMedia(str(tmp_path), "images", repair=True))
