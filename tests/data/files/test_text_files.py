"""Lines and marks of text files."""

import pytest

from data.errors import UserError
from data.files.text_files import decode_text, read_text, split_lines


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", []),
        ("a", ["a"]),
        ("a\n", ["a"]),
        ("a\n\n", ["a", ""]),
        ("a\r\nb\r\n", ["a", "b"]),
        ("a\u2028b\x0cc\x85d\x1ee\rf\n", ["a\u2028b\x0cc\x85d\x1ee\rf"]),
    ],
)
def test_line_feeds_alone_end_lines(text, lines):
    assert split_lines(text) == lines


def test_a_mark_is_of_the_file(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfx\n")
    assert read_text(tmp_path / "a.txt") == "x\n"
    assert decode_text("x\ufeff".encode()) == "x\ufeff"


@pytest.mark.parametrize(("content", "why"), [(None, "No such file"), (b"ab\xff", "invalid UTF-8 at byte 2")])
def test_what_cannot_be_read_is_the_users_mistake(content, why, tmp_path):
    if content is not None:
        (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(UserError, match=why):
        read_text(tmp_path / "a.txt")
