import gzip
import json

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import UserError
from data.readers import stream
from data.readers.documents import Document, Extent
from data.readers.inputs import check_inputs, find_inputs, plan_tasks, read_documents

TEXTS = ["One.", "Two,\nwith a line.", "Drei äöü 🙂", "\u2028 four\r\n", "five " * 1000]


def read(*paths, task_bytes=1 << 20, field="text"):
    """(texts, skipped) of all tasks in turn."""
    found = [one for parts in plan_tasks(find_inputs(map(str, paths)), task_bytes) for one in read_documents(parts, field)]
    return (["".join(one.chunks()) for one in found if isinstance(one, Document)], [one for one in found if not isinstance(one, Document)])


def jsonl(texts, field="text"):
    return "".join(json.dumps({"id": i, field: text}) + "\n" for i, text in enumerate(texts)).encode()


COMPRESSORS = {"": bytes, ".gz": gzip.compress, ".zst": lambda content: zstandard.ZstdCompressor().compress(content)}


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_texts_and_lines_are_read_however_compressed(suffix, tmp_path):
    for i, text in enumerate(TEXTS):
        (tmp_path / f"{i}.txt{suffix}").write_bytes(COMPRESSORS[suffix](text.encode()))
    assert read(tmp_path) == (TEXTS, [])
    lines = tmp_path / f"lines.jsonl{suffix}"
    lines.write_bytes(COMPRESSORS[suffix](jsonl(TEXTS, "content")))
    assert read(lines, field="content") == (TEXTS, [])


def test_files_of_several_streams_are_read_whole(tmp_path):
    for suffix in (".gz", ".zst"):
        (tmp_path / f"a.txt{suffix}").write_bytes(COMPRESSORS[suffix](b"one ") + COMPRESSORS[suffix](b"two"))
    assert read(tmp_path) == (["one two"] * 2, [])


@settings(deadline=None, max_examples=40)
@given(sizes=st.lists(st.integers(0, 30), max_size=12), task_bytes=st.integers(1, 120), end=st.booleans(), blank=st.booleans())
def test_a_divided_jsonl_gives_each_line_once(sizes, task_bytes, end, blank, tmp_path_factory):
    texts = [f"{i}" + "x" * size for i, size in enumerate(sizes)]
    content = jsonl(texts).replace(b"\n", b"\n\n" if blank else b"\n")
    path = tmp_path_factory.mktemp("lines") / "a.jsonl"
    path.write_bytes(content if end else content[:-1])
    assert read(path, task_bytes=task_bytes) == (texts, [])


def test_long_files_come_in_chunks(tmp_path, monkeypatch):
    """Characters of several bytes fall on the borders; digest and count are those of the whole text."""
    monkeypatch.setattr(stream, "CHUNK_BYTES", 7)
    text = "aä🙂\n" * 20
    (tmp_path / "a.txt").write_text(text)
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(jsonl([text])))
    found = [one for parts in plan_tasks(find_inputs([str(tmp_path)]), 1) for one in read_documents(parts, "text")]
    for document in found:
        assert "".join(document.chunks()) == "".join(document.chunks()) == text
        assert (document.characters, document.digest) == (len(text), found[2].digest)
    assert len(list(found[0].chunks())) > 10
    (tmp_path / "a.txt").write_bytes(text.encode() + b"\xf0\x9f")
    assert [one.reason for one in read(tmp_path / "a.txt")[1]] == [f"invalid UTF-8 at byte {len(text.encode())}"]


def test_folders_hold_text_files_in_their_order_and_no_hidden_ones(tmp_path):
    for name in ("b/z.py", "b/a.md", "a.TXT", ".hidden.txt", ".git/x.txt", "image.png", "data.json", "c.txt.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    paths = [path for path, _, _ in find_inputs([str(tmp_path)])]
    assert [path.removeprefix(f"{tmp_path}/") for path in paths] == ["a.TXT", "b/a.md", "b/z.py", "c.txt.gz"]
    assert [path for path, _, _ in find_inputs([f"{tmp_path}/**/*.md", f"{tmp_path}/data.json", f"{tmp_path}/b"])] == [
        f"{tmp_path}/{name}" for name in ("b/a.md", "data.json", "b/z.py")
    ]


@pytest.mark.parametrize("inputs", [[], ["nowhere.txt"], ["*.nothing"]])
def test_no_input_is_the_users_mistake(inputs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no input"):
        find_inputs(inputs)


def test_a_folder_named_like_a_pattern_is_a_folder(tmp_path):
    (tmp_path / "a[1]").mkdir()
    (tmp_path / "a[1]" / "x.txt").write_text("x")
    assert read(tmp_path / "a[1]") == (["x"], [])


@pytest.mark.parametrize(
    ("name", "content", "where", "reason"),
    [
        ("a.txt", b"ok \xff", "a.txt", "invalid UTF-8 at byte 3"),
        ("a.txt.gz", gzip.compress(b"x" * 1000, mtime=0)[:-9], "a.txt.gz", "cannot be decompressed"),
        ("a.txt.gz", b"no gzip", "a.txt.gz", "cannot be decompressed"),
        ("a.txt.zst", b"no zstd", "a.txt.zst", "cannot be decompressed"),
        ("a.jsonl.gz", b"no gzip", "a.jsonl.gz", "cannot be decompressed"),
        ("a.jsonl", jsonl(["x"]) + b"{broken\n", "a.jsonl:2", "invalid JSON"),
        ("a.jsonl", b"\n\n" + b"[" * 10**5 + b"\n", "a.jsonl:3", "invalid JSON"),
        ("a.jsonl", jsonl(["x"]) + b'{"text": "\xff"}\n', "a.jsonl:2", "invalid JSON"),
        ("a.jsonl", jsonl(["x"]) + b'"text"\n', "a.jsonl:2", "no text in the field 'text'"),
        ("a.jsonl", b'{"text": 5}\n', "a.jsonl:1", "no text in the field 'text'"),
        ("a.jsonl", b'{"body": "x"}\n', "a.jsonl:1", "no text in the field 'text'"),
        ("a.jsonl", b'{"text": "\\ud800"}\n', "a.jsonl:1", "half of a surrogate pair"),
    ],
)
def test_damage_is_named_with_file_and_line(name, content, where, reason, tmp_path):
    (tmp_path / name).write_bytes(content)
    (skipped,) = read(tmp_path / name)[1]
    assert skipped.kind == "damaged"
    assert skipped.name == f"{tmp_path}/{where}"
    assert skipped.reason.startswith(reason)


def test_lines_of_a_divided_file_are_numbered_from_its_start(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(jsonl(["x" * 50] * 10) + b"{broken\n" + jsonl(["y"]))
    (skipped,) = read(tmp_path / "a.jsonl", task_bytes=100)[1]
    assert skipped.name == f"{tmp_path}/a.jsonl:11"


def test_what_is_empty_is_no_damage(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"")
    (tmp_path / "b.jsonl").write_bytes(jsonl(["", "x"]))
    texts, skipped = read(tmp_path)
    assert texts == ["x"]
    assert [(one.name, one.kind) for one in skipped] == [(f"{tmp_path}/a.txt", "empty"), (f"{tmp_path}/b.jsonl:1", "empty")]


def test_progress_counts_every_byte_once(tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "CHUNK_BYTES", 10)
    (tmp_path / "a.txt").write_bytes(b"x" * 95)
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"y" * 5))
    (tmp_path / "c.jsonl").write_bytes(jsonl(["z"] * 9))
    files, counts = find_inputs([str(tmp_path)]), []
    for parts in plan_tasks(files, 50):
        for document in read_documents(parts, "text", counts.append):
            "".join(document.chunks())
    assert sum(counts) == sum(size for _, size, _ in files)


def test_only_plain_lines_are_divided():
    files = [("/a.txt", 500, 0), ("/b.jsonl", 250, 0), ("/c.jsonl.gz", 300, 0), ("/d.txt", 0, 0), ("/e.txt", 10, 0)]
    assert plan_tasks(files, 100) == [
        [Extent("/a.txt", 0, 500)],
        [Extent("/b.jsonl", 0, 100)],
        [Extent("/b.jsonl", 100, 200)],
        [Extent("/b.jsonl", 200, 250), Extent("/c.jsonl.gz", 0, 300)],
        [Extent("/d.txt", 0, 0), Extent("/e.txt", 0, 10)],
    ]


MARKED = b"\xef\xbb\xbf"


@pytest.mark.parametrize("suffix", COMPRESSORS)
@pytest.mark.parametrize("text", ["", "One.", "\ufeff twice", "x" * 100])
def test_a_byte_order_mark_is_no_text(text, suffix, tmp_path, monkeypatch):
    """It belongs to the file. Only the first is a mark; another one behind it is a character. In a chunk of its own, too."""
    monkeypatch.setattr(stream, "CHUNK_BYTES", 7)
    (tmp_path / f"a.txt{suffix}").write_bytes(COMPRESSORS[suffix](MARKED + text.encode()))
    (tmp_path / f"b.jsonl{suffix}").write_bytes(COMPRESSORS[suffix](MARKED + jsonl([text or "nothing"])))
    texts, skipped = read(tmp_path)
    assert texts == [text, text or "nothing"] if text else texts == ["nothing"]
    assert [one.kind for one in skipped] == ([] if text else ["empty"])


def test_damage_behind_a_byte_order_mark_is_where_it_is(tmp_path):
    (tmp_path / "a.txt").write_bytes(MARKED + b"ok \xff")
    assert read(tmp_path / "a.txt")[1][0].reason == "invalid UTF-8 at byte 6"


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_records_under_the_name_of_json_are_documents(suffix, tmp_path):
    """JSON lines are published as .json.gz as often as .jsonl.gz; a list of records is a data set too."""
    (tmp_path / f"lines.json{suffix}").write_bytes(COMPRESSORS[suffix](jsonl(TEXTS)))
    (tmp_path / f"list.json{suffix}").write_bytes(COMPRESSORS[suffix](json.dumps([{"text": text} for text in TEXTS], indent=1).encode()))
    for kind in ("lines", "list"):
        assert read(tmp_path / f"{kind}.json{suffix}") == (TEXTS, [])


@pytest.mark.parametrize("content", ['{"a": 1}', "[1, 2]", '{\n "name": "x"\n}\n', "[]", "no JSON", '{"body": "x"}\n{"body": "y"}\n'])
def test_other_json_is_a_document_as_it_is_written(content, tmp_path):
    (tmp_path / "a.json").write_text(content)
    assert read(tmp_path / "a.json") == ([content], [])


def test_a_record_without_text_among_others_is_damage(tmp_path):
    (tmp_path / "a.json").write_text('[{"text": "x"}, {"text": null}]')
    texts, skipped = read(tmp_path / "a.json")
    assert texts == ["x"]
    assert skipped[0].name.endswith("a.json: record 2")
    assert skipped[0].kind == "damaged"


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_compressed_files_without_the_ending_are_recognised_or_named(suffix, tmp_path):
    """Read whole they are recognised. JSON lines are divided by bytes of the file, so there the name has to be right."""
    (tmp_path / "a.txt").write_bytes(COMPRESSORS[suffix](b"one"))
    assert read(tmp_path / "a.txt") == (["one"], [])
    (tmp_path / "a.jsonl").write_bytes(COMPRESSORS[suffix](jsonl(TEXTS)))
    texts, skipped = read(tmp_path / "a.jsonl", task_bytes=10)
    assert texts == []
    assert all(one.kind == "damaged" and f"call it a.jsonl{suffix}" in one.reason for one in skipped)
    assert skipped


@pytest.mark.parametrize(
    ("begin", "what"), [(b"PK\x03\x04\xff", "a zip archive"), ("x".encode("utf-16"), "UTF-16"), (b"BZh9\xff", "bzip2")]
)
def test_what_is_no_text_is_named_by_what_it_looks_like(begin, what, tmp_path):
    (tmp_path / "a.txt").write_bytes(begin)
    assert read(tmp_path / "a.txt")[1][0].reason.endswith(f"it looks like {what}")


def test_files_that_a_folder_has_and_nobody_reads_are_said(tmp_path, capsys):
    for name in ("a.txt", "b.json", "c.json", "d.bin", "LICENSE"):
        (tmp_path / name).write_text("text")
    (tmp_path / "e.txt").symlink_to("nowhere")
    assert read(tmp_path)[0] == ["text"]
    said = capsys.readouterr().out
    assert "4 files of endings that are not read here are left out: .json (2), .bin (1), none (1)" in said
    assert "1 links to nothing, pipes and the like are left out" in said


def test_options_that_no_input_has_a_use_for_are_refused(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    files = find_inputs([str(tmp_path / "a.txt")])
    with pytest.raises(UserError, match="--text-field body: none of the inputs has fields"):
        check_inputs(files, "body")
    for options in ({"tfds_dir": "x"}, {"tfds_download": True}):
        with pytest.raises(UserError, match="tfds:NAME, and there is none"):
            find_inputs([str(tmp_path)], **options)
