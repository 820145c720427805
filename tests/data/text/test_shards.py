import json
import os

import fsspec
import numpy as np
import pytest

from data.errors import UserError
from data.files.manifest import shard_damage
from data.text import blocks, shards
from data.text.batches import Batches
from data.text.shards import Corpus

LENGTHS = [1, 50_000, 3, 32_768, 32_767, 20_000, 7]  # several blocks of 64 KiB, borders inside and on documents
TOKENS = "train-00000-of-00002.tokens"
INDEX = "train-00001-of-00002.index"


@pytest.fixture
def documents():
    return [np.random.default_rng(i).integers(0, 60_000, length) for i, length in enumerate(LENGTHS)]


@pytest.fixture
def folder(tmp_path, documents, make_corpus):
    make_corpus(tmp_path / "corpus", documents, documents[:1], dtype="uint16")
    return tmp_path / "corpus"


@pytest.fixture
def remote(folder):
    system = fsspec.filesystem("memory")
    system.put(str(folder), "/bucket/corpus", recursive=True)
    yield "memory://bucket/corpus"
    system.rm("/bucket", recursive=True)


def random_ranges(count):
    random = np.random.default_rng(1)
    document = random.integers(0, len(LENGTHS), count)
    ends = np.sort(random.integers(0, np.array(LENGTHS)[document] + 1, (2, count)), axis=0)
    return document, *ends


@pytest.mark.parametrize("place", ["folder", "remote"])
def test_any_range_of_any_document_is_read(place, documents, request):
    split = Corpus(str(request.getfixturevalue(place))).split("train")
    assert split.lengths.tolist() == LENGTHS
    assert split.document_bytes.tolist() == list(range(len(LENGTHS)))
    assert all(np.array_equal(split.read(i), document) for i, document in enumerate(documents))
    document, start, stop = random_ranges(300)
    tokens, damaged = split.read_many(document, start, stop)
    expected = [documents[d][a:b] for d, a, b in zip(document, start, stop, strict=True)]
    assert np.array_equal(tokens, np.concatenate(expected))
    assert not damaged.any()


def test_remote_batches_equal_local_ones(folder, remote):
    local, far = (Batches([Corpus(str(path))], context_length=300, seed=1).batch(0, 500) for path in (folder, remote))
    assert all(np.array_equal(a, b) for a, b in zip(local, far, strict=True))
    assert Corpus(remote).tokenizer().digest == Corpus(str(folder)).tokenizer().digest


def test_remote_blocks_come_in_one_round_and_are_kept_within_bounds(remote, monkeypatch):
    split = Corpus(remote).split("train")
    system, rounds = fsspec.filesystem("memory"), []
    original = system.cat_ranges

    def counted(paths, starts, ends, **options):
        rounds.append(len(paths))
        return original(paths, starts, ends, **options)

    monkeypatch.setattr(system, "cat_ranges", counted)
    every = np.arange(len(LENGTHS))
    split.read_many(every, 0 * every, split.lengths)
    assert rounds == [2]  # one range of each file
    split.read_many(every, 0 * every, split.lengths)
    assert rounds == [2]
    monkeypatch.setattr(blocks, "CACHE_BYTES", 2 * blocks.BLOCK_BYTES)
    split.read_many(every, 0 * every, split.lengths)
    assert len(split._files._cache) == 2
    split.read(1)
    assert len(rounds) == 2


def test_a_flipped_bit_is_found_where_it_is(folder, flip):
    flip(folder / TOKENS, 3 * blocks.BLOCK_BYTES // 2)  # of document 1, in the second block
    split = Corpus(str(folder)).split("train")
    assert split.read(1, 0, 32_000).any()
    with pytest.raises(UserError, match=f"{TOKENS}.*document 1 fails its digest") as error:
        split.read(1)
    assert "--repair" in str(error.value)
    tokens, damaged = split.read_many(np.array([0, 1, 4]), np.array([0, 40_000, 0]), np.array([1, 41_000, 10]))
    assert damaged.tolist() == [False, True, False]
    assert not tokens[1:1001].any()
    assert tokens[1001:].any()


def test_a_flipped_bit_is_found_remotely(folder, remote, flip):
    flip(folder / TOKENS, 100)
    fsspec.filesystem("memory").put(str(folder / TOKENS), f"/bucket/corpus/{TOKENS}")
    with pytest.raises(UserError, match="fails its digest"):
        Corpus(remote).split("train").read(1)


def test_a_block_is_verified_once(folder, monkeypatch):
    split = Corpus(str(folder)).split("train")
    checked = []
    original = split._files._check
    monkeypatch.setattr(split._files, "_check", lambda block, content: (checked.append(block), original(block, content)))
    every = np.arange(len(LENGTHS))
    for _ in range(2):
        split.read_many(every, 0 * every, split.lengths)
    assert sorted(checked) == list(range(len(split._files.digests)))
    assert Corpus(str(folder)).split("train") is not split


def open_whole(path):
    corpus = Corpus(path)
    corpus.split("train")
    corpus.tokenizer()


def truncate(path):
    os.truncate(path, os.path.getsize(path) - 2)


def edit_manifest(**changes):
    def edit(path):
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


@pytest.mark.parametrize("place", ["local", "remote"])
@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("manifest.json", os.unlink, "manifest.json: missing"),
        ("manifest.json", lambda path: path.write_text("{"), "manifest.json: damaged"),
        ("manifest.json", lambda path: path.write_text("[]"), "manifest.json: damaged"),
        ("manifest.json", edit_manifest(document_end=5), "manifest.json: damaged"),
        ("manifest.json", edit_manifest(format=99), "format 99, newer"),
        (TOKENS, os.unlink, f"{TOKENS}: missing"),
        (TOKENS, truncate, f"{TOKENS}: .* bytes where the manifest has"),
        (INDEX, os.unlink, f"{INDEX}: missing"),
        (INDEX, truncate, f"{INDEX}: fails its digest"),
        (INDEX, None, f"{INDEX}: fails its digest"),
        ("tokenizer/tokenizer.json", None, "tokenizer"),
        ("tokenizer/tokenizer.json", os.unlink, "no tokenizer there"),
    ],
)
def test_each_kind_of_damage_names_the_file_and_the_remedy(place, name, change, message, folder, flip):
    (change or (lambda path: flip(path, 60)))(folder / name)
    path = str(folder)
    if place == "remote":
        fsspec.filesystem("memory").put(path, "/damaged/corpus", recursive=True)
        path = "memory://damaged/corpus"
    try:
        with pytest.raises(UserError, match=message) as error:
            open_whole(path)
    finally:
        if place == "remote":
            fsspec.filesystem("memory").rm("/damaged", recursive=True)
    assert str(error.value).count("\n") == 1


def test_an_unknown_file_system_names_its_package():
    with pytest.raises(UserError, match="nowhere://bucket"):
        Corpus("nowhere://bucket/corpus")


def test_files_do_not_depend_on_how_they_are_written(tmp_path, documents, monkeypatch):
    written = []
    for name, buffered, part in (("whole", 1 << 20, 10**6), ("parts", 1000, 777)):
        monkeypatch.setattr(shards, "_BUFFERED", buffered)
        writer = shards.ShardWriter(str(tmp_path / name), "uint16")
        for document in documents:
            for start in range(0, len(document), part):
                writer.write(document[start : start + part])
            writer.end_document(5)
        written.append((writer.close(), *((tmp_path / f"{name}.{suffix}").read_bytes() for suffix in ("tokens", "index"))))
    assert written[0] == written[1]
    assert written[0][1] == np.concatenate(documents).astype("<u2").tobytes()


def test_verification_reads_the_whole_shard(folder, flip):
    records = Corpus(str(folder)).manifest["splits"]["train"]["shards"]
    assert [shard_damage(str(folder), record) for record in records] == [None, None]
    flip(folder / TOKENS, os.path.getsize(folder / TOKENS) - 1)
    (folder / INDEX).unlink()
    problems = [shard_damage(str(folder), record) for record in records]
    assert problems == [f"{folder / TOKENS}: fails its digest", f"{folder / INDEX}: missing"]
