"""Every single-byte change, removal and reordering of a log is found; a crash is not taken for one."""

import json
import shutil
import stat

import pytest

import omnia
from data.errors import UserError
from data.files.chain import START, Broken, ChainLog, Head, check, head_of, read_head


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


def with_lines_added(log, count: int) -> str:
    """As whoever can write the log can chain some on. Returns its head, which stays as it was."""
    head = (log.parent / "audit.jsonl.head").read_text()
    more = ChainLog(str(log))
    for number in range(count):
        more.add({"forged": number})
    more.close()
    (log.parent / "audit.jsonl.head").write_text(head)
    return head


def test_of_lines_that_the_head_does_not_know_one_is_allowed_and_said(log, capsys):
    """A crash between a line and its head leaves one."""
    with_lines_added(log, 1)
    assert omnia.main(["audit", "verify", str(log)]) == 0 and "does not know the last one" in capsys.readouterr().out
    assert omnia.main(["audit", "verify", str(log), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"passed": True, "lines": 7, "beyond_head": 1, "head": True}
    again = ChainLog(str(log))
    again.add({"time": 8})
    again.close()
    assert read_head(str(log)).lines == 8


def test_more_lines_than_that_were_added(log, capsys):
    head = with_lines_added(log, 2)
    assert omnia.main(["audit", "verify", str(log)]) == 1
    assert "line 7 was added: the log had 6 lines by its head, and has 8" in capsys.readouterr().out
    # A loss of power can leave an older head, so a server goes on, and says so in the log itself.
    copied = log.parent / "copied.jsonl"
    for end in ("", ".head"):
        shutil.copy(f"{log}{end}", f"{copied}{end}")
    ChainLog(str(copied)).close()
    assert "beyond the head" in copied.read_text().splitlines()[-1]
    assert omnia.main(["audit", "verify", str(copied)]) == 0
    capsys.readouterr()
    (log.parent / "audit.jsonl.head").unlink()
    assert omnia.main(["audit", "verify", str(log), "--head", head]) == 0, "it may be an old one"
    assert "2 of them came after that head" in capsys.readouterr().out


@pytest.mark.parametrize("emptied", [False, True])
def test_without_its_head_a_log_may_have_been_cut_off(log, emptied, capsys):
    kept, file = (log.parent / "audit.jsonl.head").read_text(), log.parent / "audit.jsonl.head"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:4]))
    file.write_text("") if emptied else file.unlink()
    assert omnia.main(["audit", "verify", str(log)]) == 1
    assert "--head" in capsys.readouterr().out
    assert omnia.main(["audit", "verify", str(log), "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {"passed": False, "lines": 4, "beyond_head": 0, "head": False}
    assert omnia.main(["audit", "verify", str(log), "--head", kept]) == 1 and "had 6 lines" in capsys.readouterr().out
    with pytest.raises(UserError, match="its head is gone"):
        ChainLog(str(log))


def test_a_log_may_grow_while_it_is_read(log):
    """Its head is read before and after it."""
    content, first = log.read_bytes(), read_head(str(log))
    more = ChainLog(str(log))
    more.add({"time": 7})
    more.add({"time": 8})
    more.close()
    assert check(content, first, read_head(str(log))) == first
    assert check(log.read_bytes(), first, read_head(str(log))).lines == 8


@pytest.mark.parametrize("text", ["² " + "0" * 64, "９ " + "0" * 64, "9" * 5000 + " " + "0" * 64, "1 x", "1", "-1 " + "0" * 64])
def test_what_is_no_head_is_said(log, text, capsys):
    assert head_of(text) is None
    assert omnia.main(["audit", "verify", str(log), "--head", text]) == 2 and "is no head" in capsys.readouterr().err
    (log.parent / "audit.jsonl.head").write_text(text)
    assert omnia.main(["audit", "verify", str(log)]) == 2 and "is damaged" in capsys.readouterr().err


def test_a_log_keeps_the_rights_that_its_file_has(tmp_path):
    path = tmp_path / "private.jsonl"
    ChainLog(str(path), mode=0o600).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o640)
    ChainLog(str(path), mode=0o600).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


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


def test_half_of_a_character_is_kept_as_json_writes_it(tmp_path):
    """Text of a client's can hold one, and what is stopped is written down all the same."""
    log = ChainLog(str(tmp_path / "log.jsonl"))
    log.add({"text": "\ud800 nerve gas"})
    log.close()
    assert json.loads((tmp_path / "log.jsonl").read_text())["text"] == "\ud800 nerve gas"
    assert not isinstance(check((tmp_path / "log.jsonl").read_bytes(), read_head(str(tmp_path / "log.jsonl"))), Broken)
