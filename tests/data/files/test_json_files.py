"""JSON that every reader takes, and files of it."""

import json
import math

import numpy as np
import pytest

from data.errors import UserError
from data.files import json_files


def strict(text):
    """What a reader takes that knows the standard alone."""

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan"), np.float64("-inf")])
def test_what_is_not_finite_is_a_string_that_float_reads(value):
    for wrapped in (lambda x: x, lambda x: [x], lambda x: {"a": (x,)}):
        found = strict(json_files.dumps(wrapped(value)))
        while not isinstance(found, str):
            found = next(iter(found.values() if isinstance(found, dict) else found))
        np.testing.assert_equal(float(found), float(value))


def test_numbers_of_numpy_are_plain():
    value = {"a": np.int32(3), "b": np.arange(3), "c": np.float32(0.5), "d": (True, None, "x")}
    assert strict(json_files.dumps(value)) == {"a": 3, "b": [0, 1, 2], "c": 0.5, "d": [True, None, "x"]}


def test_files_are_replaced_whole(tmp_path):
    path = tmp_path / "a.json"
    json_files.write(path, {"a": 1})
    with pytest.raises(TypeError):
        json_files.write(path, {"a": object()})
    assert json_files.read(path, "") == {"a": 1}
    assert [one.name for one in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("content", [b"", b"  ", b"[]", b"3", b"null", b'{"a": 1', b"\xff\x00", b"[" * 100_000, b"\x80abc"])
def test_damage_is_named(content, tmp_path):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=r"a.json: damaged \(.+\)\nDo so."):
        json_files.read(tmp_path / "a.json", "Do so.")
