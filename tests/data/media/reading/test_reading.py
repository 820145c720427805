"""What is said of media in tables, lines, archives and by names of files: each is used, or told by name."""

import contextlib
import csv
import io
import json
import os
import shutil
import tarfile
import unicodedata

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from data.errors import UserError
from data.media.preparation.prepare import PrepareMedia, prepare_media
from data.media.reading.fields import FIELDS, Reading, Record
from data.media.reading.labels import class_names, label_of
from data.media.reading.records import read_records
from data.media.reading.samples import sample_of
from data.media.reading.splits import named_splits, split_of
from data.media.shards import MediaCorpus
from data.readers.documents import Extent, Unreadable
from tests.data.media.media_files import image_file, picture

PICTURES = [image_file(picture(8, 8, seed=seed), "PNG") for seed in range(8)]


@pytest.fixture
def room(tmp_path):
    """A folder with pictures 0.png to 7.png."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number, content in enumerate(PICTURES):
        (folder / f"{number}.png").write_bytes(content)
    return folder


def prepared(room, *inputs, **changes) -> MediaCorpus:
    inputs = [room / one if isinstance(one, str) else one for one in inputs] or [room]
    changes = {"kind": "images", "workers": 1, "validation": 0.0, "overwrite": True, **changes}
    return prepare_media(PrepareMedia(str(room.parent / "out"), input=tuple(map(str, inputs)), **changes))


def samples(corpus, split="train"):
    return corpus.split(split).read(range(corpus.split(split).samples)) if corpus.manifest["splits"][split]["samples"] else []


def told(corpus, split="train") -> list[tuple]:
    """(number of the picture, name of the class or None, learned texts) of all samples."""
    return [
        (
            PICTURES.index(next(part.content for part in sample.parts if part.kind == "image")),
            corpus.classes[sample.label] if sample.label >= 0 else None,
            *(part.content for part in sample.parts if part.learned),
        )
        for sample in samples(corpus, split)
    ]


def left_out(corpus) -> list[str]:
    return [f"{name}: {why}" for found in corpus.manifest["skipped"].values() for name, why in found["first"]]


def write_lines(path, *objects):
    path.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in objects))


def write_tar(path, members: dict[str, bytes]):
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))


# -------------------------------------------------------------------------------------------------------------------- classes

COMPOSED, APART = unicodedata.normalize("NFC", "café"), unicodedata.normalize("NFD", "café")
WRITTEN = ["00", "01", " 01 ", COMPOSED, APART, "true", "1.0"]
NAMED = ["00", "01", "01", COMPOSED, COMPOSED, "true", "1.0"]


def in_a_table(room):
    with open(room / "list.csv", "w", newline="") as file:
        csv.writer(file).writerows([("image", "label"), *((f"{k}.png", label) for k, label in enumerate(WRITTEN))])
    return "list.csv"


def in_lines(room):
    write_lines(room / "list.jsonl", *({"image": f"{k}.png", "class": label} for k, label in enumerate(WRITTEN)))
    return "list.jsonl"


def in_a_parquet_file(room):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {"image": [{"bytes": content} for content in PICTURES[: len(WRITTEN)]], "cls": list(range(len(WRITTEN)))}
    features = {"cls": {"_type": "ClassLabel", "names": WRITTEN}}
    table = pyarrow.table(columns).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    parquet.write_table(table, room / "list.parquet")
    return "list.parquet"


def in_an_archive(room):
    members = {}
    for k, label in enumerate(WRITTEN):
        members |= {
            f"{k}.png": PICTURES[k],
            **({f"{k}.cls": label.encode()} if k % 2 else {f"{k}.json": json.dumps({"label": label}).encode()}),
        }
    write_tar(room / "list.tar", members)
    return "list.tar"


def in_folders(room):
    for k, label in enumerate(WRITTEN):
        (room / "sorted" / label).mkdir(parents=True)
        os.rename(room / f"{k}.png", room / "sorted" / label / f"{k}.png")
    return "sorted"


def in_files_beside(room):
    for k, label in enumerate(WRITTEN):
        (room / f"{k}.json").write_text(json.dumps({"label": label}))
    os.unlink(room / "7.png")
    return ""


@pytest.mark.parametrize("write", [in_a_table, in_lines, in_a_parquet_file, in_an_archive, in_folders, in_files_beside])
def test_a_class_has_the_name_that_is_written_in_every_format(write, room):
    """Zeros in front stay; space around it goes, and the two ways to compose a letter are one."""
    corpus = prepared(room, write(room))
    assert sorted(corpus.classes) == sorted(set(NAMED))
    assert sorted(told(corpus)) == list(enumerate(NAMED))
    assert not corpus.manifest["skipped"]


def test_labels_of_every_kind_are_used_or_refused_by_name(room):
    used = {'"a"': "a", "7": "7", "7.0": "7", "true": "true", "false": "false", "-2": "-2"}
    none = ["-1", '"-1"', '""', '" "', "null", "NaN"]
    refused = ["0.5", "[1]", '{"a": 1}', "Infinity", '"\\udcff"']
    write_lines(room / "list.jsonl", *(f'{{"image": "0.png", "label": {label}}}' for label in [*used, *none, *refused]))
    corpus = prepared(room, "list.jsonl")
    assert [label for _, label in told(corpus)] == [*used.values(), *[None] * len(none)]
    lines = [line.partition("list.jsonl:")[2].partition(":")[0] for line in left_out(corpus)]
    assert sorted(map(int, lines)) == list(range(len(used) + len(none) + 1, len(used) + len(none) + len(refused) + 1))
    assert all("a label that is" in line for line in left_out(corpus))
    assert corpus.manifest["remarked"]["a label of -1, which is no class"]["count"] == 2


def test_a_number_of_no_class_is_refused(room):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {"image": [{"bytes": content} for content in PICTURES[:4]], "label": [0, 1, -1, 2]}
    features = {"label": {"_type": "ClassLabel", "names": ["a", "b"]}}
    table = pyarrow.table(columns).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    parquet.write_table(table, room / "list.parquet")
    corpus = prepared(room, "list.parquet")
    assert told(corpus) == [(0, "a"), (1, "b"), (2, None)]
    assert "row 4: a class that there is not: label 2 of 2" in left_out(corpus)[0]


@pytest.mark.parametrize(
    "labels, names",
    [
        (["2", "0"], ["0", "1", "2"]),
        (["10", "9"], [str(k) for k in range(11)]),
        (["01", "10", "2"], ["01", "2", "10"]),
        (["0", "00"], ["0", "00"]),
        (["123456", "99999"], ["99999", "123456"]),
        (["1", "-2", "0"], ["-2", "0", "1"]),
        (["b", "10", "9"], ["10", "9", "b"]),
        ([], []),
    ],
)
def test_classes_are_numbered_in_the_order_of_their_names(labels, names):
    assert class_names(labels) == names


# ---------------------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize("header", ["image,caption,label", "Image, Caption ,LABEL", "\ufeffIMAGE,Caption,Class"])
def test_names_are_the_same_in_capitals_and_with_space_around_them(header, room):
    (room / "list.csv").write_text(header + "\n0.png,one,a\n")
    assert told(prepared(room, "list.csv")) == [(0, "a", "one")]
    fields = [name.strip("\ufeff ") for name in header.split(",")]
    write_lines(room / "list.jsonl", dict(zip(fields, ("0.png", "one", "a"), strict=True)))
    assert told(prepared(room, "list.jsonl")) == [(0, "a", "one")]


def test_names_that_are_not_used_are_told_once_for_each_file(room, capsys):
    (room / "list.csv").write_text("image,caption,width,height\n0.png,one,8,8\n1.png,two,8,8\n")
    write_lines(room / "list.jsonl", {"image": "2.png", "alt": "x"}, {"image": "3.png", "url": "y"})
    for name in ("list.tar", "more.tar"):
        write_tar(room / name, {"4.png": PICTURES[4], "4.json": b'{"caption": "four", "image": "4.png", "nsfw": 0}'})
    for k in (5, 6):
        (room / f"{k}.json").write_text('{"caption": "c", "license": 1, "file_name": "5.png"}')
    corpus = prepared(room)
    assert {os.path.basename(file): names for file, names in corpus.manifest["unused"].items()} == {
        "list.csv": ["width", "height"],
        "list.jsonl": ["alt", "url"],
        "list.tar": ["nsfw", "image"],
        "more.tar": ["nsfw", "image"],
        "*.json": ["license", "file_name"],
    }
    said = capsys.readouterr().out
    assert all(said.count(names) == 1 for names in ("width, height", "alt, url", "nsfw", "license")) and "--fields" in said
    assert "list.tar and 1 others" in said
    assert len(told(corpus)) == 10  # one of them also in both archives


@pytest.mark.parametrize("name", ["filename", "file_path", "filepath", "image_path"])
def test_a_table_without_a_medium_is_refused_with_its_names(name, room):
    (room / "list.csv").write_text(f"{name},caption\n0.png,one\n")
    write_lines(room / "list.jsonl", {name: "0.png", "caption": "one"})
    for file in ("list.csv", "list.jsonl"):
        with pytest.raises(UserError, match=f"{file}: has no image; there are .*{name}"):
            prepared(room, file)
        assert told(prepared(room, file, fields=(f"image={name.upper()}",))) == [(0, None, "one")]


@pytest.mark.parametrize("changes", [{"classes": "folder"}, {"tfds_dir": "/data"}, {"tfds_download": True}])
def test_options_that_would_do_nothing_are_refused(changes, room):
    with pytest.raises(UserError, match="no input is a folder|inputs such as tfds:NAME"):
        prepared(room, "0.png", **changes)


def test_fields_that_no_input_has_are_refused(room):
    write_lines(room / "list.jsonl", {"image": "0.png", "title": "one"})
    with pytest.raises(UserError, match="caption=titel: no input has a 'titel'; there are image, title"):
        prepared(room, "list.jsonl", fields=("caption=titel",))
    with pytest.raises(UserError, match="OURS=THEIRS"):
        prepared(room, "list.jsonl", fields=("subtitle=title",))
    with pytest.raises(UserError, match="two of ours"):
        prepared(room, "list.jsonl", fields=("caption=title", "text=Title"))
    assert told(prepared(room, "list.jsonl", fields=("caption=title",))) == [(0, None, "one")]


@pytest.mark.parametrize("names", ["caption,Caption", "label,class", "caption,caption"])
def test_two_columns_that_mean_the_same_are_refused(names, room):
    first, second = names.split(",")
    (room / "list.csv").write_text(f"image,{names}\n0.png,one,two\n")
    with pytest.raises(UserError, match=f"'{first}', '{second}' all mean {first}"):
        prepared(room, "list.csv")
    write_lines(
        room / "list.jsonl",
        f'{{"image": "0.png", "{first}": "one", "{second}": "two"}}',
        {"image": "1.png", first: "one"},
        {"image": "2.png", first: "one", second.title(): "one"},
    )
    corpus = prepared(room, "list.jsonl")
    assert [number for number, *_ in told(corpus)] == [1, 2]
    assert len(left_out(corpus)) == 1 and "list.jsonl:1: " in left_out(corpus)[0]


def test_fields_decide_between_two_columns(room):
    (room / "list.csv").write_text("image,label,class\n0.png,3,cat\n")
    assert told(prepared(room, "list.csv", fields=("label=class",))) == [(0, "cat")]
    corpus = prepared(room, "list.csv", fields=("label=label",))
    assert told(corpus) == [(0, "3")] and list(corpus.manifest["unused"].values()) == [["class"]]


def test_what_two_files_say_otherwise_of_one_medium_is_refused(room):
    (room / "0.txt").write_bytes(b"\xef\xbb\xbfzero\r\n")
    (room / "0.json").write_text('{"caption": "null"}')
    (room / "1.txt").write_bytes(b"\xef\xbb\xbfone\r\n")
    (room / "1.json").write_text('{"caption": "one", "label": 3}')
    write_tar(
        room / "list.tar",
        {"2.png": PICTURES[2], "2.cls": b"3", "2.json": b'{"label": 3}', "3.png": PICTURES[3], "3.cls": b"3", "3.json": b'{"label": 4}'},
    )
    corpus = prepared(room, "0.png", "1.png", "list.tar")
    assert told(corpus) == [(1, "3", "one"), (2, "3")]
    assert sorted(line.partition("two that mean ")[2][:5] for line in left_out(corpus)) == ["capti", "label"]


# -------------------------------------------------------------------------------------------------------------- conversations


def parts_of(room, *rows):
    write_lines(room / "list.jsonl", *rows)
    corpus = prepared(room, "list.jsonl", kind="interleaved")
    return [[PICTURES.index(p.content) if p.kind == "image" else (p.content, p.learned) for p in one.parts] for one in samples(corpus)]


def test_conversations_are_read_and_what_the_model_says_is_learned(room):
    talk = [("human", "<image>\nwhat?"), ("gpt", "a cat"), ("human", "and <image> beside\n<image>?"), ("gpt", "<image> is a tag")]
    turns = [{"from": who, "value": text} for who, text in talk]
    by_role = [{"role": "user", "content": "look"}, {"role": "assistant", "content": "yes"}]
    expected = [0, ("what?", False), ("a cat", True), ("and ", False), 1, (" beside", False), 2, ("?", False), ("<image> is a tag", True)]
    assert parts_of(
        room,
        {"id": 1, "image": ["0.png", "1.png", "2.png"], "conversations": turns},
        {"image": "3.png", "conversations": by_role},
        {"conversations": by_role},
        {"image": ["4.png", "5.png"], "conversations": turns[:2]},
    ) == [
        expected,
        [3, ("look", False), ("yes", True)],
        [("look", False), ("yes", True)],
        [4, 5, ("what?", False), ("a cat", True)],
    ]


@pytest.mark.parametrize(
    "turns, why",
    [
        ([], "without a turn"),
        ("hello", "no JSON"),
        ([7], "no object"),
        ([{"from": "nobody", "value": "x"}], "nobody"),
        ([{"from": "gpt", "value": 5}], "no text"),
        ([{"from": "gpt", "value": ""}], "empty"),
        ([{"from": "human", "value": "<image> <image>"}], "more <image> than media: 2 for 1"),
    ],
)
def test_conversations_that_are_none_are_told(turns, why, room):
    good = [{"from": "gpt", "value": "fine"}]
    write_lines(room / "list.jsonl", {"image": "0.png", "conversations": turns}, {"image": "1.png", "conversations": good})
    corpus = prepared(room, "list.jsonl")
    assert told(corpus) == [(1, None, "fine")]
    assert why in left_out(corpus)[0] and "list.jsonl:1" in left_out(corpus)[0]


def test_what_stands_beside_the_whole_of_a_sample_is_not_dropped(room):
    parts, turns = [{"path": "0.png"}], [{"from": "gpt", "value": "x"}]
    bad = [{"parts": parts, "caption": "c"}, {"image": "0.png", "conversations": turns, "caption": "c"}, {"parts": parts, "image": "1.png"}]
    write_lines(room / "list.jsonl", {"parts": parts}, *bad)
    assert len(left_out(prepared(room, "list.jsonl"))) == len(bad)


# --------------------------------------------------------------------------------------------------------------------- tables

TEXT = st.text(st.characters(exclude_characters="\0\r", exclude_categories=("Cs",)), max_size=12)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=6),
    form=st.sampled_from(["csv", "tsv"]),
    ending=st.sampled_from(["\n", "\r\n"]),
)
def test_what_a_writer_of_tables_writes_is_read(rows, form, ending, tmp_path):
    """In whichever ranges of bytes; each row has the number of its line."""
    path = str(tmp_path / f"list.{form}")
    between = "," if form == "csv" else "\t"
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=between, lineterminator=ending, quoting=csv.QUOTE_ALL)
        writer.writerows([("text", "caption"), *rows])
        size = file.tell()
    found = list(read_records([Extent(path, 0, size)], Reading("", (), (), False), lambda read: None))
    assert [(one.fields.get("text", ""), one.fields.get("caption", "")) for one in found] == rows
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.reader(file, delimiter=between)
        lines = [reader.line_num for _ in reader]
    assert [one.name for one in found] == [f"{path}:{line + 1}" for line in lines[:-1]]


def test_rows_that_are_none_are_told_by_line_and_take_no_other_with_them(room):
    good = [f"{k}.png,{k}" for k in range(6)]
    rows = [
        good[0],
        '1.png,"open',
        good[1],
        "2.png",
        good[2],
        "2.png,a,b",
        good[3],
        "3.png,\0",
        good[4],
        "4.png,caf\udce9",
        '5.png,"a"b',
        good[5],
    ]
    content = "\n".join(["image,caption", *rows, '6.png,"open to the end']).encode("utf-8", "surrogateescape")
    (room / "list.csv").write_bytes(content)
    for shard_bytes in (1, 1 << 20):
        corpus = prepared(room, "list.csv", shard_bytes=shard_bytes)
        assert told(corpus) == [(k, None, str(k)) for k in range(6)]
        lines = {int(line.partition("list.csv:")[2].partition(":")[0]): line for line in left_out(corpus)}
        for line, why in {3: "quote", 5: "1 under 2", 7: "3 under 2", 9: "NUL", 11: "UTF-8", 12: "quote", 14: "quote"}.items():
            assert why in lines.pop(line)
        assert not lines and "" not in corpus.manifest["skipped"]


def test_inches_in_a_table_of_tabs_are_read_as_they_are_written(room):
    texts = ["it's 5\" long", '"quoted', '"5" and 6"', '"well quoted"', "plain", '"open']
    (room / "list.tsv").write_text("image\tcaption\n" + "".join(f"{k}.png\t{text}\n" for k, text in enumerate(texts)))
    expected = [*texts[:3], "well quoted", *texts[4:]]
    assert told(prepared(room, "list.tsv")) == [(k, None, text) for k, text in enumerate(expected)]


@pytest.mark.parametrize("between", [";", "\t"])
@pytest.mark.parametrize("quote", ["", '"'])
def test_a_csv_may_stand_apart_by_other_signs(between, quote, room):
    rows = [("Image", "caption"), ("0.png", "one, two"), ("1.png", "three")]
    (room / "list.csv").write_text("".join(between.join(f"{quote}{value}{quote}" for value in row) + "\n" for row in rows))
    assert told(prepared(room, "list.csv")) == [(0, None, "one, two"), (1, None, "three")]


@pytest.mark.parametrize(
    "content, words",
    [
        (b"0.png,one\n1.png,two\n", "list.csv:1: no header"),
        (b'"image,caption\n0.png,one\n', "list.csv:1: a quote"),
        ("image,caption\n0.png,one\n".encode("utf-16"), "list.csv:1: invalid UTF-8"),
        ("image,caption\n0.png,one\n".encode("utf-16-le"), "list.csv:1: a NUL byte"),
        (b"", "no sample is left"),
        (b"image,caption\n", "no sample is left"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused(content, words, room):
    (room / "list.csv").write_bytes(content)
    with pytest.raises(UserError, match=words):
        prepared(room, "list.csv")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.sampled_from(["0.png", "train", "<image>", "gpt"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*FIELDS, "from", "value", "learned", "bytes"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.dictionaries(st.sampled_from([*FIELDS, "other"]), VALUES, max_size=4), min_size=1, max_size=5))
@example(rows=[{"path": {"path": True}}])
def test_each_line_is_a_sample_or_is_told(rows, tmp_path):
    """Whatever stands in it."""
    path, reading = str(tmp_path / "list.jsonl"), Reading("", (), (), False)
    with open(path, "w") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows))
    found = list(read_records([Extent(path, 0, os.path.getsize(path))], reading, lambda read: None))
    assert [one.name for one in found] == [f"{path}:{line}" for line in range(1, 1 + len(rows))]
    for one in found:
        if isinstance(one, Record):
            with contextlib.suppress(Unreadable):
                label, split = label_of(one), split_of(one)
                assert split in (None, "train", "validation")
                sample_of(one, reading, {} if label is None else {label: 0})


def test_lines_that_are_none_are_told(room):
    bad = ['{"image": "0.png"', "[]", '{"image": "0.png", "image": "1.png"}', "\xff", '{"caption": "x"}']
    (room / "list.jsonl").write_bytes(b"\xef\xbb\xbf" + b'{"image": "0.png"}\n' + "\n".join(bad).encode("latin-1"))
    corpus = prepared(room, "list.jsonl")
    assert told(corpus) == [(0, None)]
    assert sorted(line.partition("list.jsonl:")[2][:1] for line in left_out(corpus)) == list("23456")


# ------------------------------------------------------------------------------------------------------------ splits by names


def place(room, *names):
    """Pictures 0, 1, ... under these names in a folder of their own."""
    for number, name in enumerate(names):
        path = room / "sorted" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PICTURES[number])
    return "sorted"


def test_folders_named_by_split_are_splits_and_those_below_classes(room, capsys):
    names = ["train/cat/a.png", "train/dog/b.png", "Val/cat/c.png", "test/dog/d.png", "valid/e.png"]
    corpus = prepared(room, place(room, *names), validation=0.5)
    assert corpus.classes == ["cat", "dog"]
    assert sorted(told(corpus)) == [(0, "cat"), (1, "dog")]
    assert sorted(told(corpus, "validation"), key=str) == [(2, "cat"), (3, "dog"), (4, None)]
    said = capsys.readouterr().out
    assert said.count("taken as") == 4 and "taken as validation by its name" in said


def test_a_class_may_be_called_test(room):
    corpus = prepared(room, place(room, "cat/a.png", "test/b.png"))
    assert corpus.classes == ["cat", "test"] and not corpus.manifest["splits_by_name"]
    assert len(told(corpus)) == 2


def test_folders_that_shall_be_classes_are(room):
    corpus = prepared(room, place(room, "train/a.png", "test/b.png"), classes="folder")
    assert corpus.classes == ["test", "train"] and len(told(corpus)) == 2


def test_a_lone_folder_for_training_is_no_split(room):
    corpus = prepared(room, place(room, *(f"train/{k % 2}/{k}.png" for k in range(8))), validation=0.5)
    assert not corpus.manifest["splits_by_name"] and told(corpus) and told(corpus, "validation")


@pytest.mark.parametrize("above", ["", "corpus/"])
def test_folders_of_classes_may_hold_those_of_splits(room, capsys, above):
    names = [f"{above}{name}.png" for name in ("cat/train/a", "cat/val/b", "dog/train/c", "dog/val/d", "owl/train/e")]
    corpus = prepared(room, place(room, *names), validation=0.5)
    assert corpus.classes == ["cat", "dog", "owl"]
    assert sorted(told(corpus)) == [(0, "cat"), (2, "dog"), (4, "owl")] and sorted(told(corpus, "validation")) == [(1, "cat"), (3, "dog")]
    assert capsys.readouterr().out.count("taken as") == 5


@pytest.mark.parametrize("classes", ["auto", "folder"])
def test_folders_that_are_given_may_be_splits(room, classes):
    place(room, "train/cat/a.png", "train/dog/b.png", "VAL/cat/c.png")
    corpus = prepared(room, "sorted/train", "sorted/VAL", validation=0.5, classes=classes)
    assert sorted(told(corpus)) == [(0, "cat"), (1, "dog")] and told(corpus, "validation") == [(2, "cat")]


def test_other_folders_beside_those_of_splits_are_refused(room, capsys):
    folder = place(room, "Train/a.png", "VAL/b.png", "Training/c.png", "holdout/d.png")
    every = [f"{folder}/{name}" for name in ("Train", "VAL", "Training", "holdout")]
    for inputs in ([folder], every):
        with pytest.raises(UserError, match="Train, VAL are named like splits, (Training, holdout|holdout, Training) are not"):
            prepared(room, *inputs)
    assert len(prepared(room, folder, classes="folder").classes) == 4
    corpus = prepared(room, every[0], every[2], validation_input=(str(room / every[1]),))
    assert len(told(corpus)) == 2 and len(told(corpus, "validation")) == 1
    capsys.readouterr()
    shutil.rmtree(room / every[1])
    assert len(prepared(room, folder).classes) == 3 and "taken as classes, not as splits: Train (" in capsys.readouterr().out


def test_a_class_that_is_called_as_a_split_in_those_of_others_is_refused(room):
    folder = place(room, "bus/train/a.png", "bus/val/b.png", "train/train/c.png", "train/val/d.png")
    with pytest.raises(UserError, match="train/val: its name says another split than its folder train"):
        prepared(room, folder)


def test_a_class_within_splits_may_be_called_train(room):
    corpus = prepared(room, place(room, "train/bus/a.png", "train/train/b.png", "val/bus/c.png", "val/train/d.png"))
    assert sorted(told(corpus)) == [(0, "bus"), (1, "train")] and sorted(told(corpus, "validation")) == [(2, "bus"), (3, "train")]


def test_tables_in_and_named_by_splits_keep_them(room):
    for split, number in (("train", 0), ("dev", 1)):
        place(room, f"{split}/{number}.png")
        (room / "sorted" / split / "metadata.csv").write_text(f"file_name,caption\n{number}.png,{split}\n")
    os.rename(room / "sorted" / "dev" / "1.png", room / "sorted" / "dev" / "x.png")
    (room / "sorted" / "dev" / "x.png").write_bytes(PICTURES[1])
    (room / "sorted" / "dev" / "metadata.csv").write_text("file_name,caption,split\nx.png,dev,\n")
    corpus = prepared(room, "sorted", validation=0.5)
    assert told(corpus) == [(0, None, "train")] and told(corpus, "validation") == [(1, None, "dev")]
    for split, number in (("train", 2), ("test", 3)):
        write_lines(room / f"{split}-00000-of-00001.jsonl", {"image": f"{number}.png"})
    corpus = prepared(room, "train-00000-of-00001.jsonl", "test-00000-of-00001.jsonl", validation=0.5)
    assert told(corpus) == [(2, None)] and told(corpus, "validation") == [(3, None)]
    given = {"validation_input": (str(room / "test-00000-of-00001.jsonl"),)}
    assert told(prepared(room, "train-00000-of-00001.jsonl", **given), "validation") == [(3, None)]


def test_names_of_files_need_two_splits():
    files = [
        (name, 1, 1)
        for name in ("/a/training.csv", "/a/tests.csv", "/a/validate.csv", "/a/train.csv", "/a/trainer.tar", "/a/valley.parquet")
    ]
    assert named_splits(files, []) == []
    assert named_splits([*files, ("/a/val_2017.parquet", 1, 1)], []) == [("/a/train.csv", "train"), ("/a/val_2017.parquet", "validation")]


def test_all_may_be_held_out(room):
    write_lines(room / "list.jsonl", {"image": "0.png", "split": "train"}, {"image": "1.png"})
    corpus = prepared(room, "list.jsonl", validation=1.0)
    assert told(corpus) == [] and told(corpus, "validation") == [(0, None), (1, None)]
    only = PrepareMedia(str(room.parent / "only"), "images", validation_input=(str(room),), workers=1)
    assert len(told(prepare_media(only), "validation")) == 8
    with pytest.raises(UserError, match="no samples in the split 'train'; there are 'validation'"):
        corpus.split("train")
    with pytest.raises(UserError, match="no input given"):
        prepare_media(PrepareMedia(str(room.parent / "none"), "images"))


# ---------------------------------------------------------------------------------------------------------------------- files


def test_files_that_are_passed_over_are_counted(room, capsys):
    for name in ("a.tif", "b.TIFF", "c.tif", "d.heic", "README", "e.mp4", "0.txt", "f.jsonl.gz"):
        (room / name).write_bytes(b"x")
    (room / "g.JFIF").write_bytes(image_file(picture(8, 8)))
    (room / "h.bmp").write_bytes(image_file(picture(8, 8), "BMP"))
    (room / ".hidden.png").write_bytes(b"x")
    os.symlink("nowhere", room / "i.png")
    os.mkfifo(room / "j.png")
    corpus = prepared(room)
    assert corpus.manifest["splits"]["train"]["samples"] == 10
    odd = {".png (broken link)": 1, ".png (no file)": 1}
    assert corpus.manifest["passed_over"] == odd | {".gz": 1, ".heic": 1, ".mp4": 1, ".tif": 2, ".tiff": 1, "no ending": 1}
    assert "passed over: 9 files" in capsys.readouterr().out


def test_files_that_look_like_manifests_and_are_none_are_refused(room):
    (room / "list.json").write_text('[{"image": "0.png"}]')
    (room / "list.csv.gz").write_bytes(b"x")
    for name, words in (("list.json", "jsonl"), ("list.csv.gz", "compress")):
        with pytest.raises(UserError) as error:
            prepared(room, name)
        assert name in str(error.value) and words in str(error.value)
    assert len(told(prepared(room, room / "*.png"))) == 8
    (room / "0.txt").write_text("zero")
    assert told(prepared(room, room / "0.*")) == [(0, None, "zero")]


def test_names_of_files_that_are_no_utf8_work(room, capsys):
    folder = os.fsencode(room)
    os.rename(os.path.join(folder, b"0.png"), os.path.join(folder, b"caf\xe9.png"))
    with open(os.path.join(folder, b"bad\xff.png"), "wb") as file:
        file.write(b"junk")
    with open(os.path.join(folder, b"caf\xe9.txt"), "wb") as file:
        file.write(b"zero")
    corpus = prepared(room)
    assert sorted(told(corpus), key=str)[0] == (0, None, "zero") and len(told(corpus)) == 8
    capsys.readouterr().out.encode()
    os.mkdir(os.path.join(folder, b"cl\xe9"))
    os.mkdir(os.path.join(folder, b"dog"))
    for name in (b"cl\xe9/a.png", b"dog/b.png"):
        with open(os.path.join(folder, name), "wb") as file:
            file.write(PICTURES[0])
    assert prepared(room).classes == ["dog"]
    assert "a label that is no UTF-8" in capsys.readouterr().out.encode().decode()


def test_a_path_that_cannot_be_one_is_no_file(room):
    write_lines(room / "list.jsonl", {"image": "A" * 5000}, {"image": "0.png"})
    corpus = prepared(room, "list.jsonl")
    assert told(corpus) == [(0, None)] and "list.jsonl:1: no path" in left_out(corpus)[0]


def test_learned_texts_and_classes_are_counted(room, capsys):
    write_lines(room / "list.jsonl", {"image": "0.png", "caption": "c"}, {"image": "1.png", "text": "t", "label": "a"}, {"image": "2.png"})
    prepared(room, "list.jsonl")
    assert "1 with a learned text, 1 with a class" in capsys.readouterr().out
