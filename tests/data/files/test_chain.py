"""Every single-byte change, removal and reordering of a log is found; a crash is not taken for one."""

import json

import pytest

import omnia
from data.errors import UserError
from data.files.chain import START, Broken, ChainLog, Head, check, read_head


@pytest.fixture
def log(tmp_path):
    """A log of six lines."""
    path = tmp_path / "audit.jsonl"
    written = ChainLog(str(path))
    for number in range(6):
        written.add({"time": number, "who": f"ключ {number}", "nested": {"chain": [number]}})
    written.close()
    return path


def test_what_was_written_passes_and_reads_as_json(log, capsys):
    found = check(log.read_bytes(), read_head(str(log)))
    assert isinstance(found, Head) and found.lines == 6 and found == read_head(str(log))
    assert [json.loads(line)["time"] for line in log.read_text(encoding="utf-8").splitlines()] == list(range(6))
    assert omnia.main(["audit", "verify", str(log)]) == 0 and "6 lines" in capsys.readouterr().out
    assert check(b"", None) == Head(0, START)


def test_every_single_byte_change_is_found(log):
    content, head = log.read_bytes(), read_head(str(log))
    for place in range(len(content)):
        for other in {content[place] ^ 1, content[place] ^ 0x20, 10} - {content[place]}:
            changed = content[:place] + bytes([other]) + content[place + 1 :]
            assert isinstance(check(changed, head), Broken), (place, other)
        assert isinstance(check(content[:place] + content[place + 1 :], head), Broken), place
        assert isinstance(check(content[:place] + b" " + content[place:], head), Broken), place


def test_lines_taken_out_moved_or_repeated_are_found(log, capsys):
    lines, head = log.read_bytes().splitlines(keepends=True), read_head(str(log))
    for first in range(6):
        assert isinstance(check(b"".join(lines[:first] + lines[first + 1 :]), head), Broken)
        assert isinstance(check(b"".join(lines[: first + 1] + lines[first:]), head), Broken)
        for second in range(first):
            moved = lines.copy()
            moved[first], moved[second] = moved[second], moved[first]
            assert isinstance(check(b"".join(moved), head), Broken)
    cut = b"".join(lines[:4])
    assert check(cut, head) == Broken(5, "is missing: the log had 6 lines, and has 4")
    assert isinstance(check(cut, None), Head), "without a head nobody can know"
    log.write_bytes(cut)
    assert omnia.main(["audit", "verify", str(log), "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {
        "passed": False,
        "line": 5,
        "why": "is missing: the log had 6 lines, and has 4",
        "head": True,
    }


def test_another_history_is_told_from_a_head_kept_elsewhere(log, tmp_path):
    kept = (tmp_path / "audit.jsonl.head").read_text()
    forged = ChainLog(str(tmp_path / "forged.jsonl"))
    for number in range(6):
        forged.add({"time": number, "who": "nobody"})
    forged.close()
    assert omnia.main(["audit", "verify", str(tmp_path / "forged.jsonl")]) == 0
    assert omnia.main(["audit", "verify", str(tmp_path / "forged.jsonl"), "--head", kept]) == 1
    assert omnia.main(["audit", "verify", str(log), "--head", kept]) == 0


def test_a_log_is_gone_on_with_after_a_crash_and_not_by_two(log):
    with log.open("ab") as file:
        file.write(b'{"time": 7, "wh')  # torn off
    again = ChainLog(str(log))
    with pytest.raises(UserError, match="another process writes"):
        ChainLog(str(log))
    again.add({"time": 8})
    again.close()
    found = check(log.read_bytes(), read_head(str(log)))
    assert isinstance(found, Head) and found.lines == 8
    assert "taken out" in log.read_text(encoding="utf-8")


def test_a_broken_log_is_not_gone_on_with(log):
    content = log.read_bytes()
    log.write_bytes(content.replace(b'"time": 3', b'"time": 4', 1))
    with pytest.raises(UserError, match=r"line 4: is not what was written"):
        ChainLog(str(log))
    log.write_bytes(b"".join(content.splitlines(keepends=True)[:3]))
    with pytest.raises(UserError, match="had 6 lines, and has 3"):
        ChainLog(str(log))
    assert omnia.main(["audit", "verify", str(log.parent / "none")]) == 2
