import multiprocessing
import os
import threading
from concurrent import futures

import numpy as np
import pytest

from data.errors import UserError
from data.files.manifest import shard_damage
from data.media.kinds import KINDS, Damaged, Facts, Part, Sample, decode_sample, encode_sample, text_facts
from data.media.shards import MediaCorpus, write_media

FACTS = {"image": Facts(width=4, height=3, bytes=5), "video": Facts(4, 3, 7, 12.5, 0, 6), "audio": Facts(rate=8e3, samples=99, bytes=2)}


def sample(i: int) -> Sample:
    """Of one to three parts; each content tells its sample."""
    parts = [Part(kind, f"{kind} {i}".encode()) for kind in ("image", "video", "audio")]
    parts.insert(1, Part("text", f"ünd {i}", learned=bool(i % 2)))
    return Sample(tuple(parts[: 1 + i % 4]), f"key {i}", i % 5 - 1)


def facts(one: Sample) -> list[Facts]:
    return [text_facts(part.content) if isinstance(part.content, str) else FACTS[part.kind] for part in one.parts]


@pytest.fixture
def folder(tmp_path):
    pairs = {split: [(sample(i), facts(sample(i))) for i in numbers] for split, numbers in (("train", range(50)), ("validation", [50]))}
    write_media(str(tmp_path / "shards"), pairs, ["a", "b", "c", "d"], shard_samples=20)
    return str(tmp_path / "shards")


def test_a_sample_comes_back_from_its_bytes():
    for i in range(8):
        assert decode_sample(encode_sample(sample(i))) == sample(i)
    assert decode_sample(encode_sample(Sample(()))) == Sample(())


@pytest.mark.parametrize("record", [b"", b"\x02\0\0\0[]", b"\x01\0\0\x007", encode_sample(sample(3))[:-1], encode_sample(sample(3)) + b"x"])
def test_bytes_that_are_no_sample(record):
    with pytest.raises(ValueError):
        decode_sample(record)


def test_samples_come_back_in_the_order_asked_for(folder):
    split = MediaCorpus(folder).split("train")
    order = np.random.default_rng(0).permutation(np.repeat(np.arange(50), 2))
    assert split.read(order) == [sample(i) for i in order]
    assert split.read([]) == []
    with pytest.raises(IndexError):
        split.read([50])
    assert MediaCorpus(folder).split("validation").read([0]) == [sample(50)]


def test_the_index_knows_every_part(folder):
    corpus = MediaCorpus(folder)
    split = corpus.split("train")
    assert split.samples == 50 == len(split.labels)
    assert split.labels.tolist() == [sample(i).label for i in range(50)]
    for i in range(50):
        parts = range(split.first_part[i], split.first_part[i + 1])
        assert [KINDS[split.kinds[part]] for part in parts] == [part.kind for part in sample(i).parts]
        assert [bool(split.learned[part]) for part in parts] == [part.learned for part in sample(i).parts]
        assert [split.facts(part) for part in parts] == facts(sample(i))
    assert corpus.manifest["splits"]["train"]["parts"]["image"] == 50
    assert len(corpus.manifest["splits"]["train"]["shards"]) == 3


def test_a_sample_that_was_changed_is_named_and_the_others_are_read(folder, flip):
    path = os.path.join(folder, "train-00001.array_record")
    with open(path, "rb") as file:
        flip(path, file.read().index(b"key 27") + 4)
    split = MediaCorpus(folder).split("train")
    found = split.read(range(50))
    assert [i for i in range(50) if found[i] != sample(i)] == [27]
    assert isinstance(found[27], Damaged)
    assert found[27].where == split.where(27) == f"{path}: sample 7"
    (shard,) = (one for one in MediaCorpus(folder).manifest["splits"]["train"]["shards"] if one["file"] == "train-00001")
    assert "fails its digest" in shard_damage(folder, shard, ".array_record")


def test_flipped_bits_anywhere_damage_what_they_hit(folder, flip):
    """In contents, and in what ArrayRecord writes around them: every sample comes back as it was, or as damaged."""
    path = os.path.join(folder, "train-00001.array_record")
    with open(path, "rb") as file:
        whole = file.read()
    for position in np.random.default_rng(0).integers(0, len(whole), 25).tolist():
        flip(path, position)
        found = MediaCorpus(folder).split("train").read(list(range(50)) * 2)
        damaged = {i for i, one in enumerate(found) if isinstance(one, Damaged)}
        assert damaged <= {*range(20, 40), *range(70, 90)}
        assert all(found[i] == sample(i % 50) for i in range(100) if i not in damaged)
        with open(path, "wb") as file:
            file.write(whole)


@pytest.mark.parametrize("keep", [0, 100, 0.5])
def test_a_shard_that_breaks_off_is_damaged_as_a_whole_or_in_part(folder, keep):
    path = os.path.join(folder, "train-00001.array_record")
    os.truncate(path, int(keep * os.path.getsize(path)) if keep < 1 else keep)
    found = MediaCorpus(folder).split("train").read(range(50))
    assert [i for i in range(50) if found[i] != sample(i)] == list(range(20, 40))
    assert all("damaged" in found[i].why for i in range(20, 40))


def test_errors_of_a_folder_say_how_to_mend(folder, tmp_path, flip, make_corpus):
    with pytest.raises(UserError, match="missing"):
        MediaCorpus(str(tmp_path))
    make_corpus(tmp_path / "text", [np.arange(5)])
    with pytest.raises(UserError, match="holds text, not media"):
        MediaCorpus(str(tmp_path / "text"))
    with pytest.raises(UserError, match="no samples in the split 'test'"):
        MediaCorpus(folder).split("test")
    flip(os.path.join(folder, "train-00000.index"), 10)
    with pytest.raises(UserError, match="fails its digest"):
        MediaCorpus(folder).split("train")
    os.unlink(os.path.join(folder, "validation-00000.array_record"))
    with pytest.raises(UserError, match="missing"):
        MediaCorpus(folder).split("validation").read([0])
    manifest = os.path.join(folder, "manifest.json")
    with open(manifest) as file:
        content = file.read()
    with open(manifest, "w") as file:
        file.write(content.replace('"samples": 50', '"samples": 51'))
    with pytest.raises(UserError, match="digest"):
        MediaCorpus(folder)


def test_the_same_samples_make_the_same_bytes(folder, tmp_path):
    pairs = [(sample(i), facts(sample(i))) for i in range(50)]
    write_media(str(tmp_path / "again"), {"train": pairs}, ["a", "b", "c", "d"], shard_samples=20)
    for name in ("train-00000.array_record", "train-00002.index"):
        with open(os.path.join(folder, name), "rb") as one, open(tmp_path / "again" / name, "rb") as other:
            assert one.read() == other.read()


def test_threads_and_processes_read_the_same_split(folder):
    split = MediaCorpus(folder).split("train")
    split.read([0])  # files are open
    with futures.ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda seed: split.read(np.random.default_rng(seed).permutation(50)), range(20)):
            assert {one.key for one in found} == {f"key {i}" for i in range(50)}
    with futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(split.read, [3, 44]).result() == [sample(3), sample(44)]
    assert threading.active_count() < 10
