"""What a gate stopped is kept as it was, decided on by people, and turned into pairs that a preference is learned from."""

import getpass
import json
import os
import stat

import pytest

import omnia
from data.files.chain import ChainLog
from data.records.review import decisions_path, read_decisions, stopped_of
from serve.cli import Serve, _gate
from serve.gate import through
from serve.protocol import CompletionRequest, Refused
from train.runs import roles
from train.sources.records import read_comparisons


@pytest.fixture
def stopped(tmp_path):
    """A server's log with a request and two answers that were stopped."""
    (tmp_path / "phrases.txt").write_text("bomb\n")
    gate, log = _gate(Serve("run", forbidden=str(tmp_path / "phrases.txt"), review=str(tmp_path / "stopped.jsonl")))
    with pytest.raises(Refused):
        through(gate, CompletionRequest(prompts=("a bomb?",)), "ann")
    for question, answer in (("what is loud?", "It is a bomb."), ("who wrote the song?", "The Bomb wrote it.")):
        _, passage = through(gate, CompletionRequest(prompts=(question,)), "bob")
        outgoing = passage.outgoing()
        assert "omb" not in outgoing.feed(answer) + outgoing.finish()
    log.close()
    return tmp_path / "stopped.jsonl"


def review(*arguments, capsys):
    code = omnia.main(["review", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_decisions_become_pairs(stopped, tmp_path, capsys):
    assert stat.S_IMODE(stopped.stat().st_mode) == 0o600
    code, out, _ = review(stopped, "--json", capsys=capsys)
    request, loud, song = map(json.loads, out.splitlines())
    assert code == 0 and request["answer"] is None and request["why"] == "phrase: bomb" and loud["answer"] == "It is a bomb."
    assert review(stopped, "--id", loud["id"], "--decide", "refuse", "--answer", "Thunder.", capsys=capsys)[0] == 0
    assert review(stopped, "--id", song["id"], "--decide", "refuse", capsys=capsys)[0] == 0
    assert review(stopped, "--id", song["id"], "--decide", "allow", capsys=capsys)[0] == 0
    assert review(stopped, "--id", request["id"], "--decide", "refuse", capsys=capsys)[0] == 0
    assert "0 of 3 wait" in review(stopped, capsys=capsys)[1]
    code, out, _ = review(stopped, "--pairs", tmp_path / "pairs.jsonl", capsys=capsys)
    assert code == 0 and "2 pairs; 1 decisions give none" in out
    found = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    assert found == [
        {"prompt": "what is loud?", "chosen": "Thunder.", "rejected": "It is a bomb."},
        {"prompt": "who wrote the song?", "chosen": "The Bomb wrote it.", "rejected": "I can't help with that."},
    ]
    assert len(read_comparisons(str(tmp_path / "pairs.jsonl"))) == 2, "DPO and reward models read them"


def test_who_decides_is_known_by_the_system(stopped, capsys, monkeypatch):
    """Whatever the environment says."""
    monkeypatch.setenv("LOGNAME", "somebody-else")
    item = json.loads(review(stopped, "--json", capsys=capsys)[1].splitlines()[0])["id"]
    assert getpass.getuser() == "somebody-else" and review(stopped, "--id", item, "--decide", "allow", capsys=capsys)[0] == 0
    assert read_decisions(str(stopped))[item]["by"] == roles.user_name() != "somebody-else"
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    assert review(stopped, "--id", item, "--decide", "allow", capsys=capsys)[0] == 0
    assert read_decisions(str(stopped))[item]["by"] == "user 54321"


def test_a_terminal_obeys_nobody_who_asked(tmp_path, capsys):
    log = ChainLog(str(tmp_path / "log"))
    log.add(stopped_of("", "a\x1bnn", "a phrase", ["one\x1b[2J\r\n\ttwo\x9b", "three\x7f"], "four\u2028\x00"))
    log.close()
    out = review(tmp_path / "log", capsys=capsys)[1]
    assert "a\\x1bnn" in out and "asked: one\\x1b[2J\\x0d\n         \\x09two\\x9b\n         three\\x7f\n  answer: four\u2028\\x00\n" in out
    assert not any(ord(one) < 32 or 127 <= ord(one) < 160 for one in out.replace("\n", ""))


def test_files_that_a_group_was_given_stay_its(stopped, capsys):
    """Those who review are others than the server's user: decisions are added to a file that is there, with the rights that it has."""
    decisions = stopped.with_name(stopped.name + ".decisions")
    for path in (decisions, decisions.with_name(decisions.name + ".head")):
        path.touch()
        path.chmod(0o660)
    item = json.loads(review(stopped, "--json", capsys=capsys)[1].splitlines()[0])["id"]
    assert review(stopped, "--id", item, "--decide", "allow", capsys=capsys)[0] == 0
    assert str(decisions) == decisions_path(str(stopped)) and stat.S_IMODE(decisions.stat().st_mode) == 0o660
    decisions.unlink()
    code, _, err = review(stopped, capsys=capsys)
    assert code == 2 and "is missing: the log had 1 lines" in err, "what was decided on is not taken away unseen"


@pytest.mark.parametrize("decided", [False, True])
def test_a_log_without_its_head_is_not_believed(stopped, decided, capsys):
    if decided:
        item = json.loads(review(stopped, "--json", capsys=capsys)[1].splitlines()[0])["id"]
        review(stopped, "--id", item, "--decide", "allow", capsys=capsys)
    stopped.with_name(f"{stopped.name}{'.decisions' if decided else ''}.head").unlink()
    code, _, err = review(stopped, capsys=capsys)
    assert code == 2 and "its head is missing" in err


def test_a_log_that_was_changed_is_not_decided_on(stopped, capsys):
    stopped.write_bytes(stopped.read_bytes().replace(b"ann", b"eve"))
    code, _, err = review(stopped, capsys=capsys)
    assert code == 2 and "line 1: is not what was written" in err


@pytest.mark.parametrize(
    "arguments, why",
    [
        (["--decide", "allow"], "belong together"),
        (["--answer", "x"], "belong together"),
        (["--id", "none", "--decide", "allow"], "has no item 'none'"),
        (["--pairs", "x.txt"], "written as .csv or .jsonl"),
        (["--pairs", "x.jsonl"], "no decision gives a pair"),
    ],
)
def test_mistakes_are_said(stopped, arguments, why, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, _, err = review(stopped, *arguments, capsys=capsys)
    assert code == 2 and why in err


def test_a_server_keeps_what_it_stops_only_with_something_that_stops(capsys):
    assert omnia.main(["serve", "nowhere", "--review", "x.jsonl"]) == 2
    assert "nothing stops anything" in capsys.readouterr().err
    assert _gate(Serve("run")) == (None, None)
