"""Archives, tables and data sets as inputs: the same documents whatever holds them, and damage that costs itself alone."""

import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
import zlib

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import UserError
from data.readers import tfds
from data.readers.documents import Document
from data.readers.inputs import find_inputs, plan_tasks, read_documents
from data.records.rows import read_records
from data.text.inspect import inspect_corpus
from data.text.prepare import PrepareText, prepare_text
from data.text.shards import Corpus
from train.rl.environments.files import PromptFile

TEXTS = [
    "One.\n",
    "Two,\nwith a line.",
    "Drei äöü 🙂",
    "\u2028 four\r\n\r\n",
    "WARC/1.0\r\nno record",
    "six " * 3000,
    *(f"text {i}" for i in range(30)),
]


def read(*paths, task_bytes=1 << 20, field="text"):
    """(texts, [(kind, name, reason)] of what was skipped) of all tasks in turn."""
    texts, skipped = [], []
    for parts in plan_tasks(find_inputs(map(str, paths)), task_bytes):
        for one in read_documents(parts, field):
            if isinstance(one, Document):
                texts.append("".join(one.chunks()))
            else:
                skipped.append((one.kind, one.name, one.reason))
    return texts, skipped


# ------------------------------------------------------------------------------------------------------------------- writers


def tar_of(members) -> bytes:
    """A tar of [(name, content)]."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def record(body: bytes, kind="conversion", media="text/plain", address="http://a.example/") -> bytes:
    """A WARC record as ISO 28500:2017, sec. 4, has it."""
    fields = {
        "WARC-Type": kind,
        "WARC-Target-URI": address,
        "WARC-Date": "2024-01-01T00:00:00Z",
        "WARC-Record-ID": "<urn:uuid:7e1e9b4c-0000-4000-8000-000000000000>",
        "Content-Type": media,
        "Content-Length": str(len(body)),
    }
    return b"WARC/1.0\r\n" + "".join(f"{key}: {value}\r\n" for key, value in fields.items()).encode() + b"\r\n" + body + b"\r\n\r\n"


def response(body: bytes, *fields: str, status="200 OK", **options) -> bytes:
    """A record of what a server said."""
    head = "".join(line + "\r\n" for line in (f"HTTP/1.1 {status}", *fields, ""))
    return record(head.encode() + body, "response", "application/http; msgtype=response", **options)


def parquet_of(path, columns, **options):
    arrow = pytest.importorskip("pyarrow")
    arrow.parquet = pytest.importorskip("pyarrow.parquet")
    arrow.parquet.write_table(arrow.table(columns), path, **options)
    return path


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Has TFDS prepare a data set whose builder is in a package, in a process of its own; returns the folder it lies in."""
    pytest.importorskip("tensorflow_datasets")
    pytest.importorskip("array_record")
    folder = tmp_path_factory.mktemp("tfds")
    (folder / "toy_texts").mkdir()
    (folder / "toy_texts" / "__init__.py").write_text("")
    (folder / "toy_texts" / "toy_texts_dataset_builder.py").write_text(
        "import tensorflow_datasets as tfds\n"
        "class Builder(tfds.core.GeneratorBasedBuilder):\n"
        "    VERSION = tfds.core.Version('1.2.0')\n"
        "    def _info(self):\n"
        "        features = {'text': tfds.features.Text(), 'label': tfds.features.ClassLabel(num_classes=3)}\n"
        "        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features), disable_shuffling=True)\n"
        "    def _split_generators(self, manager):\n"
        "        import json, pathlib\n"
        "        texts = json.loads(pathlib.Path(__file__).with_name('texts.json').read_text())\n"
        "        return {'train': self._generate_examples(texts), 'test': self._generate_examples(['of the test', ''])}\n"
        "    def _generate_examples(self, texts):\n"
        "        yield from ((i, {'text': text, 'label': i % 3}) for i, text in enumerate(texts))\n"
    )
    (folder / "toy_texts" / "texts.json").write_text(json.dumps(TEXTS))
    script = (
        "import toy_texts.toy_texts_dataset_builder\n"
        "from data.readers.inputs import find_inputs\n"
        "find_inputs(['tfds:toy_texts'], 'data', tfds_download=True)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    subprocess.run([sys.executable, "-c", script], cwd=folder, env=environment, check=True, capture_output=True, timeout=120)
    return folder / "data"


# --------------------------------------------------------------------------------------------------------------- equivalence


def write(kind, folder, texts):
    """The documents in a format; returns what to give to --input."""
    folder.mkdir()
    path = folder / f"a.{kind}"
    content = [text.encode() for text in texts]
    if kind == "txt":
        for i, one in enumerate(content):
            (folder / f"{i:03}.txt").write_bytes(one)
        return folder
    if kind == "jsonl":
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    elif kind == "parquet":
        parquet_of(path, {"id": list(range(len(texts))), "text": texts}, row_group_size=7)
    elif kind.startswith("tar"):
        archive = tar_of([(f"{i:03}.txt", one) for i, one in enumerate(content)])
        path.write_bytes({"tar": bytes, "tar.gz": gzip.compress, "tar.zst": zstandard.compress}[kind](archive))
    elif kind == "json.tar":
        path.write_bytes(tar_of([(f"{i:03}.json", json.dumps({"text": text}).encode()) for i, text in enumerate(texts)]))
    elif kind == "wet":
        path.write_bytes(b"".join(map(record, content)))
    elif kind == "warc.wet.gz":
        path.write_bytes(b"".join(gzip.compress(record(one)) for one in content))
    return path


FORMATS = ["txt", "jsonl", "parquet", "tar", "tar.gz", "tar.zst", "json.tar", "wet", "warc.wet.gz"]


def digests(corpus: Corpus):
    return [(shard["digest"], shard["index_digest"]) for split in corpus.manifest["splits"].values() for shard in split["shards"]]


def test_the_same_documents_give_the_same_shards_in_every_format(tmp_path, dataset):
    found = {}
    for kind in FORMATS:
        source = write(kind, tmp_path / kind, TEXTS)
        found[kind] = digests(prepare_text(PrepareText(output=str(tmp_path / f"{kind} shards"), input=(str(source),), workers=1)))
    found["tfds"] = digests(
        prepare_text(PrepareText(output=str(tmp_path / "tfds shards"), input=("tfds:toy_texts",), tfds_dir=str(dataset), workers=1))
    )
    assert len(found["txt"]) == 2
    assert [kind for kind, one in found.items() if one != found["txt"]] == []


@pytest.mark.parametrize("kind", FORMATS)
def test_progress_counts_every_byte_once(kind, tmp_path):
    source = write(kind, tmp_path / "in", TEXTS)
    files, counts = find_inputs([str(source)]), []
    for parts in plan_tasks(files, 1000):
        for document in read_documents(parts, "text", counts.append):
            if isinstance(document, Document):
                "".join(document.chunks())
    assert sum(counts) == sum(size for _, size, _ in files)


def test_folders_are_searched_for_all_formats(tmp_path):
    for name in ("a.parquet", "b.tar", "c.TAR.gz", "d.warc.gz", "e.wet", "f.tar.xz", "g.npz"):
        (tmp_path / name).write_bytes(b"")
    assert [os.path.basename(path) for path, _, _ in find_inputs([str(tmp_path)])] == [
        "a.parquet",
        "b.tar",
        "c.TAR.gz",
        "d.warc.gz",
        "e.wet",
    ]


# ------------------------------------------------------------------------------------------------------------------- parquet


@settings(deadline=None, max_examples=25)
@given(sizes=st.lists(st.integers(0, 60), max_size=40), group=st.integers(1, 9), task_bytes=st.integers(50, 4000))
def test_a_divided_parquet_gives_each_row_once(sizes, group, task_bytes, tmp_path_factory):
    random = np.random.default_rng(0)
    texts = [f"{i}" + random.bytes(size).hex() for i, size in enumerate(sizes)]
    path = tmp_path_factory.mktemp("rows") / "a.parquet"
    parquet_of(path, {"text": np.array(texts, object)} if texts else {"text": np.array([], str)}, row_group_size=group)
    files, counts, found = find_inputs([str(path)]), [], []
    for parts in plan_tasks(files, task_bytes):
        found += ["".join(one.chunks()) for one in read_documents(parts, "text", counts.append)]
    assert found == texts
    assert sum(counts) == files[0][1]


def test_row_groups_are_spread_over_tasks(tmp_path):
    random = np.random.default_rng(0)
    path = parquet_of(tmp_path / "a.parquet", {"text": [random.bytes(500).hex() for _ in range(80)]}, row_group_size=5)
    tasks = [list(read_documents(parts, "text")) for parts in plan_tasks(find_inputs([str(path)]), os.path.getsize(path) // 4)]
    assert all(25 <= len(task) <= 30 for task in tasks[:3])
    assert len(tasks) == 5, "what the file has beside its rows is in the last ones"


def test_other_columns_of_text_are_read_too(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    columns = {
        "large": arrow.array(["a", "b"], arrow.large_string()),
        "bytes": arrow.array([b"a", b"b"]),
        "few": arrow.array(["a", "b"]).dictionary_encode(),
        "id": [1, 2],
        "lists": [["a"], ["b"]],
    }
    path = parquet_of(tmp_path / "a.parquet", columns)
    for column in ("large", "bytes", "few"):
        assert read(path, field=column) == (["a", "b"], [])
    for column, message in (("id", "holds int64, not text"), ("lists", "holds list"), ("text", "there are large, bytes, few, id, lists")):
        with pytest.raises(UserError, match=message):
            prepare_text(PrepareText(output=str(tmp_path / "out"), input=(str(path),), text_field=column))
    assert not (tmp_path / "out" / "prepare.json").exists(), "another --text-field needs no --overwrite"


def test_bad_rows_are_named(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    bad = arrow.array([b"x", b"ok \xff", None, b"", b"y"]).view(arrow.string())  # which does not look at the bytes
    path = parquet_of(tmp_path / "a.parquet", {"text": bad}, row_group_size=2)
    assert read(path) == (
        ["x", "y"],
        [
            ("damaged", f"{path}: row 2", "invalid UTF-8 at byte 3"),
            ("damaged", f"{path}: row 3", "no text in the column 'text'"),
            ("empty", f"{path}: row 4", "empty"),
        ],
    )


def test_a_damaged_parquet_is_named(tmp_path):
    path = parquet_of(tmp_path / "a.parquet", {"text": TEXTS}, compression="gzip", use_dictionary=False)
    content = bytearray(path.read_bytes())
    content[100:200] = bytes(100)
    path.write_bytes(content)
    (skipped,) = read(path)[1]
    assert skipped[:2] == ("damaged", str(path))
    path.write_bytes(b"no parquet")
    with pytest.raises(UserError, match=r"a\.parquet: not a Parquet file"):
        prepare_text(PrepareText(output=str(tmp_path / "out"), input=(str(path),)))


# ----------------------------------------------------------------------------------------------------------------------- tar


def test_samples_of_a_tar(tmp_path):
    """Text before JSON, by key; what is neither is counted; names may be anything, since none is a path of ours."""
    path = tmp_path / "a.tar"
    outside = f"../../{tmp_path.name}-outside.txt"
    path.write_bytes(
        tar_of(
            [
                ("x/1.jpg", b"\xff\xd8"),
                ("x/1.json", b'{"text": "describes"}'),
                ("x/1.txt", b"one"),
                ("x/2.json", b'{"text": "two"}'),
                (outside, b"three"),
                ("\x1b[2J.txt", b"\xff"),
                ("5.json", b'{"body": "x"}'),
                ("6.txt", b""),
            ]
        )
    )
    texts, skipped = read(path)
    assert texts == ["one", "two", "three"]
    assert skipped == [
        ("ignored", f"{path}: x/1.jpg", "no .txt or .json"),
        ("ignored", f"{path}: x/1.json", "beside a .txt"),
        ("damaged", f"{path}: \ufffd[2J.txt", "invalid UTF-8 at byte 0"),
        ("damaged", f"{path}: 5.json", "no text in the field 'text'"),
        ("empty", f"{path}: 6.txt", "empty"),
    ]
    assert sorted(os.listdir(tmp_path)) == ["a.tar"]
    assert not (tmp_path / outside).exists()


def test_links_in_a_tar_are_counted_and_folders_are_nothing(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, kind in (
            ("folder", tarfile.DIRTYPE),
            ("link.txt", tarfile.SYMTYPE),
            ("hard.txt", tarfile.LNKTYPE),
            ("pipe", tarfile.FIFOTYPE),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd" if kind != tarfile.FIFOTYPE else ""
            archive.addfile(member)
    texts, skipped = read(tmp_path / "a.tar")
    assert texts == []
    assert [(one[0], one[1].rpartition(" ")[2]) for one in skipped] == [
        ("ignored", "link.txt"),
        ("ignored", "hard.txt"),
        ("ignored", "pipe"),
    ]


@pytest.mark.parametrize("name", ["._1.txt", "./._1.txt", "a/.hidden/1.txt", "__MACOSX/._1.txt", ".1.json"])
def test_hidden_members_of_a_tar_are_left_out_as_in_folders(name, tmp_path):
    """A Mac puts a `._x` beside each x, which is no text and would stop the preparation."""
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for member_name, content in ((name, b"\x00\x05\x16\xff"), ("./1.txt", b"one"), ("../2.txt", b"two")):
            member = tarfile.TarInfo(member_name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    assert read(tmp_path / "a.tar") == (["one", "two"], [])


@pytest.mark.parametrize("damage", ["cut in a member", "cut between members", "bad header", "no tar", "empty"])
def test_a_damaged_tar_gives_what_comes_before(damage, tmp_path):
    """tarfile by itself takes most of these for the end of the archive."""
    whole = tar_of([("1.txt", b"one"), ("2.txt", b"two" * 300), ("3.txt", b"three")])
    content, texts = {
        "cut in a member": (whole[:2200], ["one"]),
        "cut between members": (whole[:2560], ["one", "two" * 300]),
        "bad header": (whole[:1024] + b"garbage" + whole[1031:], ["one"]),
        "no tar": (b"no tar" * 500, []),
        "empty": (b"", []),
    }[damage]
    path = tmp_path / "a.tar"
    path.write_bytes(content)
    found, skipped = read(path)
    assert found == texts
    assert [one[:2] for one in skipped] == [("damaged", str(path))]


# ---------------------------------------------------------------------------------------------------------------------- warc


PAGE = "<html><head><title>T</title><script>var x</script></head><body><h1>Größe</h1><p>Ein Absatz &amp; mehr.</p></body></html>"
TEXT = "Größe\n\nEin Absatz & mehr."


def warc(tmp_path, *records, name="a.warc"):
    pytest.importorskip("resiliparse")
    (tmp_path / name).write_bytes(b"".join(records))
    return tmp_path / name


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (PAGE.encode(), ["Content-Type: text/html; charset=utf-8"]),
        (PAGE.encode("latin-1"), ["content-type: text/html;charset=ISO-8859-1"]),
        (PAGE.encode("utf-16-le"), ["Content-Type: text/html; charset=utf-16"]),
        (PAGE.replace("<title>", "<meta charset=iso-8859-1><title>").encode("latin-1"), ["Content-Type: text/html"]),
        (PAGE.encode("utf-8-sig"), ["Content-Type: text/html; charset=latin-1"]),
        (PAGE.encode(), ["Content-Type: application/xhtml+xml; charset=nonsense"]),
        (gzip.compress(PAGE.encode(), mtime=0), ["Content-Type: text/html; charset=utf-8", "Content-Encoding: gzip"]),
        (zlib.compress(PAGE.encode()), ["Content-Type: text/html; charset=utf-8", "Content-Encoding: deflate"]),
        (
            b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (PAGE.encode()[:50], PAGE.encode()[50:], b"")),
            ["Content-Type: text/html; charset=utf-8", "Transfer-Encoding: chunked"],
        ),
    ],
    ids="utf-8 latin-1 utf-16 meta mark xhtml gzip deflate chunked".split(),
)
def test_pages_become_text_whatever_their_coding(body, fields, tmp_path):
    assert read(warc(tmp_path, response(body, *fields))) == ([TEXT], [])


def test_records_that_hold_no_text_are_ignored_or_passed_over(tmp_path):
    html = "Content-Type: text/html"
    path = warc(
        tmp_path,
        record(b"software: x\r\n", "warcinfo", "application/warc-fields"),
        record(b"GET / HTTP/1.1\r\n\r\n", "request", "application/http; msgtype=request"),
        response(b"\xff\xd8" * 10**5, "Content-Type: image/jpeg", address="http://a.example/1.jpg"),
        response(b"<p>not found", html, status="404 Not Found", address="http://a.example/2"),
        response(b"", html, status="301 Moved"),
        response(PAGE.encode(), html + "; charset=utf-8"),
        record(b"", "revisit", "application/http; msgtype=response"),
        record(b"{}", "conversion", "application/json"),
        record(b"", "conversion"),
    )
    texts, skipped = read(path)
    assert texts == [TEXT]
    assert [(kind, reason) for kind, _, reason in skipped] == [
        ("ignored", "image/jpeg"),
        ("ignored", "HTTP status 404"),
        ("ignored", "HTTP status 301"),
        ("ignored", "application/json"),
        ("empty", "empty"),
    ]
    assert skipped[0][1].startswith(f"{path}: http://a.example/1.jpg at byte ")


DAMAGE = {
    "length too long": lambda one: one.replace(b"Content-Length: 3", b"Content-Length: 333"),
    "length too short": lambda one: one.replace(b"Content-Length: 3", b"Content-Length: 1"),
    "no length": lambda one: one.replace(b"Content-Length: 3\r\n", b""),
    "negative length": lambda one: one.replace(b"Content-Length: 3", b"Content-Length: -3"),
    "length of an ignored one": lambda one: record(b"{}1", "conversion", "application/json").replace(b"Length: 3", b"Length: 1"),
    "huge length": lambda one: one.replace(b"Content-Length: 3", b"Content-Length: 33333333"),
    "no version": lambda one: one[10:],
    "garbage": lambda one: b"garbage\r\n" * 20_000,
    "bad chunks": lambda one: response(b"zz\r\nxx", "Content-Type: text/html", "Transfer-Encoding: chunked"),
    "invalid text": lambda one: record(b"\xff"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_record_costs_itself_alone(kind, tmp_path):
    before, after = [record(f"before {i}".encode()) for i in range(3)], [record(f"after {i}".encode()) for i in range(3)]
    path = warc(tmp_path, *before, DAMAGE[kind](record(b"bad")), *after, name="a.wet")
    texts, skipped = read(path)
    assert texts == [f"{word} {i}" for word in ("before", "after") for i in range(3)]
    assert [one[0] for one in skipped] == ["damaged"]
    place = sum(map(len, before))
    assert str(place) in skipped[0][1]


def test_a_file_that_ends_too_early_gives_what_comes_before(tmp_path):
    whole = record(b"one") + record(b"two " * 100)
    path = warc(tmp_path, whole[:-100], name="a.wet")
    assert read(path)[0] == ["one"]
    assert [reason for _, _, reason in read(path)[1]] == ["the file ends within the record"]
    path = warc(tmp_path, gzip.compress(record(b"one")) + gzip.compress(record(bytes(range(256)) * 9))[:-99], name="a.wet.gz")
    assert read(path)[0] == ["one"]
    assert "cannot be decompressed" in read(path)[1][0][2]


def test_long_records_are_left_out(tmp_path, monkeypatch):
    from data.readers import warc as reader

    monkeypatch.setattr(reader, "MOST_BYTES", 1000)
    texts, skipped = read(warc(tmp_path, record(b"x" * 1001), record(b"y" * 1000), name="a.wet"))
    assert texts == ["y" * 1000]
    assert [one[2] for one in skipped] == ["1001 bytes, more than 1000"]


# ---------------------------------------------------------------------------------------------------------------------- tfds


@settings(deadline=None, max_examples=6)
@given(task_bytes=st.integers(500, 20_000))
def test_divided_data_sets_give_each_example_once(task_bytes, dataset):
    files, found, counts = find_inputs(["tfds:toy_texts:1.2.0@train"], str(dataset)), [], []
    for parts in plan_tasks(files, task_bytes):
        found += ["".join(one.chunks()) for one in read_documents(parts, "text", counts.append)]
    assert found == TEXTS
    assert sum(counts) == files[0][1]


def test_splits_of_a_data_set_and_its_folder_by_name(dataset):
    def texts(item):
        return [
            "".join(one.chunks()) if isinstance(one, Document) else one.kind
            for parts in plan_tasks(find_inputs([item], str(dataset)), 10**6)
            for one in read_documents(parts, "text")
        ]

    assert texts("tfds:toy_texts@test") == ["of the test", "empty"]
    assert texts("tfds:toy_texts@train[3:5]") == TEXTS[3:5]
    assert texts(f"tfds:{dataset}/toy_texts/1.2.0") == TEXTS


def test_examples_of_a_data_set_are_records_of_prompts(dataset):
    """As prompts of a policy: texts and numbers."""
    path = f"tfds:{dataset}/toy_texts/1.2.0@train"
    assert read_records(path) == [{"text": text, "label": number % 3} for number, text in enumerate(TEXTS)]
    file = PromptFile(path=path, validation_path=f"tfds:{dataset}/toy_texts/1.2.0@test[:1]", prompt_template="{label} {text}")
    assert file.prompt(0, 0, "validation").text == "0 of the test"
    with pytest.raises(UserError, match="Unknown split"):
        read_records(f"tfds:{dataset}/toy_texts/1.2.0@nothing")


def test_features_that_no_record_can_hold_are_said(dataset, monkeypatch, capsys):
    """A conversation in a data set of TFDS is a feature of features: unsaid, prompts without their facts would be all that is left."""
    path = f"tfds:{dataset}/toy_texts/1.2.0"
    plain = tfds._plain
    monkeypatch.setattr(tfds, "_plain", lambda value: plain(value) if isinstance(value, bytes | str) else None)
    assert read_records(path) == [{"text": text} for text in TEXTS]
    assert "left out where they are no text, number or list of such: label" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("item", "changes", "message"),
    [
        ("tfds:toy_texts@validation", {}, "Unknown split 'validation'"),
        ("tfds:toy_texts:3.0.0", {}, "3.0.0"),
        ("tfds:nothing_of_the_kind", {}, "not found"),
        ("tfds:toy_texts", {"text_field": "body"}, "no feature 'body'; there are label, text"),
        ("tfds:toy_texts", {"text_field": "label"}, "no text in the feature 'label'"),
        ("tfds:mnist", {}, "not prepared in .*mnist"),
    ],
)
def test_mistakes_in_a_data_set_are_named(item, changes, message, dataset, tmp_path):
    with pytest.raises(UserError, match=message) as error:
        prepare_text(PrepareText(output=str(tmp_path / "out"), input=(item,), tfds_dir=str(dataset), **changes))
    assert str(error.value).count("\n") == 1


def test_files_that_need_tensorflow_are_refused(dataset, tmp_path):
    import shutil

    shutil.copytree(dataset / "toy_texts", tmp_path / "toy_texts")
    info = tmp_path / "toy_texts" / "1.2.0" / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(UserError, match="as tfrecord, and only array_record"):
        find_inputs(["tfds:toy_texts"], str(tmp_path))


def test_tensorflow_is_never_imported(dataset, tmp_path):
    script = (
        "import sys\nfrom data.text.prepare import PrepareText, prepare_text\n"
        "prepare_text(PrepareText(output=sys.argv[1], input=('tfds:toy_texts',), tfds_dir=sys.argv[2], workers=1))\n"
        "assert 'tensorflow_datasets' in sys.modules and 'tensorflow' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "out"), str(dataset)], check=True, capture_output=True, timeout=120)


# ------------------------------------------------------------------------------------------------------------------ packages


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [("a.parquet", "pyarrow", "parquet"), ("a.wet", "fastwarc", "warc"), ("tfds:x", "tensorflow_datasets", "tfds")],
)
def test_a_missing_package_is_named_with_its_extra(name, package, extra, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    (tmp_path / name).write_bytes(b"x")
    item = name if name.startswith("tfds:") else str(tmp_path / name)
    with pytest.raises(UserError, match=rf"\[{extra}\]"):
        prepare_text(PrepareText(output=str(tmp_path / "out"), input=(item,)))


def test_what_was_left_out_of_archives_is_counted(tmp_path, capsys):
    (tmp_path / "a.tar").write_bytes(tar_of([("1.jpg", b"x"), ("1.txt", b"one"), ("2.jpg", b"y"), ("2.txt", b"two")]))
    corpus = prepare_text(PrepareText(output=str(tmp_path / "out"), input=(str(tmp_path / "a.tar"),), validation=0))
    assert corpus.manifest["ignored"] == {"count": 2, "names": [f"{tmp_path}/a.tar: 1.jpg", f"{tmp_path}/a.tar: 2.jpg"]}
    assert "2 members or records" in capsys.readouterr().out


def test_a_manifest_from_before_archives_is_a_manifest(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "one"}))
    options = PrepareText(output=str(tmp_path / "out"), input=(str(tmp_path / "a.jsonl"),), validation=0)
    prepare_text(options)
    manifest = tmp_path / "out" / "manifest.json"
    manifest.write_text(json.dumps({key: value for key, value in json.loads(manifest.read_text()).items() if key != "ignored"}))
    assert prepare_text(options).split("train").documents == 1
    assert inspect_corpus(str(tmp_path / "out"))["ignored"] == 0


def test_pages_read_by_another_extractor_are_not_mixed(tmp_path, monkeypatch, flip):
    from data.readers import warc as reader

    path = warc(tmp_path, *(response(PAGE.encode() + b"<p>%d" % i, "Content-Type: text/html; charset=utf-8") for i in range(20)))
    options = PrepareText(output=str(tmp_path / "out"), input=(str(path),), workers=1)
    prepare_text(options)
    flip(tmp_path / "out" / "train-00000-of-00001.tokens", 10)
    monkeypatch.setattr(reader, "version", lambda: "resiliparse 0.0.0")
    for again in (options, PrepareText(output=str(tmp_path / "out"), repair=True)):
        with pytest.raises(UserError, match="resiliparse"):
            prepare_text(again)
