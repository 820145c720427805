"""What a gate stopped is kept as it was, decided on by people, and turned into pairs that a preference is learned from."""

import json
import stat

import pytest

import omnia
from serve.cli import Serve, _gate
from serve.gate import through
from serve.protocol import CompletionRequest, Refused
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
