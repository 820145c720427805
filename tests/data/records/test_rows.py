"""Rows of files: what programs write is read back, and any bytes give rows or an error for people."""

import contextlib
import csv
import gzip
import io
import json
import math
import string
import tracemalloc
from collections import Counter
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.errors import UserError
from data.records.record import is_number
from data.records.rows import iter_records, read_records

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
NAMES = st.lists(st.text(string.ascii_letters + " é,\"'", min_size=1, max_size=6), min_size=2, max_size=4, unique=True)
ANY_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)


@st.composite
def tables(draw):
    names = draw(NAMES)
    return names, draw(st.lists(st.lists(TEXTS, min_size=len(names), max_size=len(names)), min_size=1, max_size=4))


def write(path, content: bytes | str):
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def reasons(path):
    """The reasons for which rows of a file are left out, and the rows that are not."""
    left_out = Counter()
    return read_records(path, left_out=left_out), left_out


@ANY_FOLDER
@given(table=tables(), ending=st.sampled_from([".csv", ".tsv", ".csv.gz"]), mark=st.booleans(), end=st.sampled_from(["\n", "\r\n"]))
def test_tables_that_python_writes_are_read_back(tmp_path, table, ending, mark, end):
    """Quotes, separators and line ends within values, CR LF, a byte order mark, gzip."""
    # Left out: a bare CR, which Python's writer does not quote before LF; and in a .tsv tabs in values, beside which no mark is a quote.
    spared = "\r" * (end == "\n") + "\t" * (ending == ".tsv")
    names, rows = table[0], [[value.translate(dict.fromkeys(map(ord, spared))) for value in row] for row in table[1]]
    file = io.StringIO()
    csv.writer(file, delimiter="\t" if ending == ".tsv" else ",", lineterminator=end).writerows([names, *rows])
    content = ("\ufeff" * mark + file.getvalue()).encode()
    path = write(tmp_path / f"rows{ending}", gzip.compress(content) if ending.endswith("gz") else content)
    assert read_records(path) == [dict(zip(names, row, strict=True)) for row in rows]


@ANY_FOLDER
@given(
    records=st.lists(
        st.dictionaries(TEXTS, TEXTS | st.integers() | st.none() | st.lists(st.booleans(), max_size=2)), min_size=1, max_size=4
    )
)
def test_json_that_python_writes_is_read_back(tmp_path, records):
    lines = "\n\n".join(json.dumps(record, ensure_ascii=False) for record in records)
    for name, content in (("a.jsonl", lines), ("a.json", json.dumps(records)), ("b.json", json.dumps(records, indent=1))):
        assert read_records(write(tmp_path / name, content)) == records


@ANY_FOLDER
@given(texts=st.lists(TEXTS | st.none(), min_size=1, max_size=5), packed=st.booleans())
def test_parquet_that_pyarrow_writes_is_read_back(tmp_path, texts, packed):
    rows = [{"text": text, "label": number, "scores": [0.5] * number} for number, text in enumerate(texts)]
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    path = write(tmp_path / ("a.parquet.gz" if packed else "a.parquet"), gzip.compress(file.getvalue()) if packed else file.getvalue())
    assert read_records(path) == rows


@ANY_FOLDER
@given(
    content=st.binary(max_size=60) | st.text('ab,;\t"\n\r{}[]:1', max_size=60).map(str.encode),
    ending=st.sampled_from([".csv", ".tsv", ".jsonl", ".json", ".parquet"]),
    head=st.sampled_from([b"", b"a,b\n", b'{"a": 1}\n', b"PAR1", b"\x1f\x8b\x08", b"\xff\xfe"]),
)
def test_any_bytes_give_records_or_an_error_for_people(tmp_path, content, ending, head):
    """And leaving bad rows out changes nothing about those that are read where there are none."""
    path = write(tmp_path / f"any{ending}", head + content)
    with contextlib.suppress(UserError):
        records, left_out = reasons(path)
        if left_out:
            with pytest.raises(UserError):
                read_records(path)
        else:
            assert read_records(path) == records
    with contextlib.suppress(UserError):
        records = read_records(path)
        assert reasons(path) == (records, {})


@ANY_FOLDER
@given(cut=st.integers(0, 700), byte=st.integers(0, 255))
def test_damaged_parquet_is_an_error_for_people(tmp_path, cut, byte):
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a", "b"] * 9}), file)
    content = bytearray(file.getvalue())
    content[cut % len(content)] = byte
    with contextlib.suppress(UserError):
        read_records(write(tmp_path / "a.parquet", bytes(content)))


def test_each_record_knows_its_line(tmp_path):
    """Of rows over several lines, the first."""
    records = read_records(write(tmp_path / "a.csv", 'text,label\n\n"two\nlines",1\n\nx,2\n'))
    assert [record.where.rpartition(": ")[2] for record in records] == ["line 3", "line 6"]
    assert [record.where.rpartition(": ")[2] for record in read_records(write(tmp_path / "a.jsonl", '\n{"a": 1}\n\n{"a": 2}'))] == [
        "line 2",
        "line 4",
    ]


@pytest.mark.parametrize("name, between", [("a.csv", ";"), ("a.csv", "\t"), ("a.tsv", ","), ("a.tsv", ";")])
def test_the_first_line_says_what_stands_between_values(tmp_path, name, between):
    """Programs of countries with decimal commas write semicolons, and many call a table of tabs .csv."""
    content = f'text{between}score\n"3{between}5"{between}4\n'
    assert read_records(write(tmp_path / name, content)) == [{"text": f"3{between}5", "score": "4"}]
    assert read_records(write(tmp_path / "one.csv", "text\nyes; no\n")) == [{"text": "yes; no"}]


def test_quotes_in_a_table_of_tabs_may_be_marks(tmp_path):
    """Most who write tabs quote nothing: a quote that begins a value on one line and ends another on the next joins no lines."""
    texts = ['5" long', '"open', 'closed"', '"a" b']
    path = write(tmp_path / "a.tsv", "text\tlabel\n" + "".join(f"{text}\tno\n" for text in texts))
    assert [record["text"] for record in read_records(path)] == texts


@pytest.mark.parametrize(
    "content, says",
    [
        ("a,b\n1,2\n1,2,3\n", "line 3: not as many values as names: 3 under 2"),
        ("a;b\n1;2\n1\n", "line 3: not as many values as names: 1 under 2"),
        ('a,b\n1,2\n"1,2\n', "line 3: a quote that does not end"),
        ("a,b\n1,2\n1,\0\n", "line 3: a NUL byte"),
        (b"a,b\n1,2\n1,\xff\n", "line 3: invalid UTF-8"),
    ],
)
def test_ragged_rows_are_named_or_left_out_and_counted(tmp_path, content, says):
    path = write(tmp_path / "a.csv", content)
    with pytest.raises(UserError, match=says) as raised:
        read_records(path)
    assert path in str(raised.value)
    records, left_out = reasons(path)
    assert [list(record.values()) for record in records] == [["1", "2"]] and left_out.total() == 1


def test_records_that_are_no_objects_are_left_out_and_counted(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"a": 1}\n[1]\n[2]\n{"a":\n{"a": 2}\n')
    records, left_out = reasons(path)
    assert records == [{"a": 1}, {"a": 2}] and left_out["a list instead of an object"] == 2 and left_out.total() == 3
    with pytest.raises(UserError, match="2 are left out, such as: a number"):
        reasons(write(tmp_path / "b.json", "[1, 2]"))


def test_two_columns_of_a_name_are_refused(tmp_path):
    """One of the two would be lost."""
    with pytest.raises(UserError, match="two columns are called 'a'"):
        read_records(write(tmp_path / "a.csv", "a,b,a\n1,2,3\n"))
    table = pyarrow.Table.from_arrays([pyarrow.array([1]), pyarrow.array([2])], names=["a", "a"])
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UserError, match="two columns are called 'a'"):
        read_records(str(tmp_path / "a.parquet"))


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.parquet", "a.jsonl.gz"])
def test_files_are_read_piece_by_piece(tmp_path, name):
    """Of a file of four megabytes less than one is in memory, packed or not."""
    rows = [{"text": f"{number} {'word ' * 40}", "label": str(number)} for number in range(20_000)]
    path = str(tmp_path / name)
    if "parquet" in name:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=1000)
    elif "jsonl" in name:
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
        Path(path).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    else:
        between = "," if name.endswith(".csv") else "\t"
        Path(path).write_text("".join(f"{between.join(row)}\n" for row in [("text", "label"), *(row.values() for row in rows)]))
    tracemalloc.start()
    try:
        for row, record in zip(rows, iter_records(path), strict=True):
            assert record == row
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_what_stands_before_a_mistake_is_read(tmp_path):
    line = '{"a": "1", "b": "2"}\n'
    for name, content in (("a.csv", "a,b\n1,2\n1\n"), ("a.jsonl", line + '{"a"\n'), ("b.jsonl", line.encode() + b"\xff\n")):
        records = iter_records(write(tmp_path / name, content))
        assert next(records) == {"a": "1", "b": "2"}
        with pytest.raises(UserError, match="^[^:]*: line [23]: (?!line)"):
            next(records)


@pytest.mark.parametrize(
    ("value", "is_one"),
    [
        (1, True),
        (-0.5, True),
        (10**300, True),
        (10**400, False),
        (-(10**400), False),
        (math.nan, False),
        (math.inf, False),
        (True, False),
        ("1", False),
    ],
)
def test_numbers_are_what_a_float_can_hold(value, is_one):
    """JSON has whole numbers of any length."""
    assert is_number(value) == is_one and (not is_one or math.isfinite(float(value)))
