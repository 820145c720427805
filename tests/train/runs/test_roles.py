"""Who may do what with a run: by names and groups of the system, for each verb."""

import json
import os

import pytest

import omnia
from data.errors import UserError
from data.files.chain import ChainLog
from data.records.review import stopped_of
from tests.train.tiny_runs import start
from train.runs import roles
from train.runs.directory import open_run


@pytest.fixture
def run(tiny, tmp_path, monkeypatch):
    """A run of somebody else's."""
    made = start(tmp_path / "run", tiny)
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    monkeypatch.setattr(roles, "_own_names", lambda: {"ann", "group:research"})
    return made.path


def allow(run, **names):
    (run / roles.FILE).write_text(json.dumps(names))
    (run / roles.FILE).chmod(0o644)


@pytest.mark.parametrize(
    "allowed, verb, fine",
    [
        ({"read": ["ann"]}, "generate", True),
        ({"read": ["bob"]}, "generate", False),
        ({"read": ["ann"]}, "train", False),
        ({"train": ["group:research"]}, "train", True),
        ({"train": ["group:research"]}, "evaluate", False),
        ({"serve": ["everyone"]}, "serve", True),
        ({"read": ["ann"], "serve": []}, "serve", False),
        ({}, "report", False),
    ],
)
def test_a_run_opens_for_those_whom_its_owner_names(run, allowed, verb, fine):
    allow(run, **allowed)
    with roles.acting(verb):
        if fine:
            assert open_run(run).path == run
        else:
            with pytest.raises(UserError, match=f"you may not {roles.OF_VERBS.get(verb, 'read')} this run"):
                open_run(run)


@pytest.mark.parametrize(
    "arguments, action",
    [
        (["report", "{run}"], "read"),
        (["report", "{run}", "--card", "{run}/card.md"], "read"),
        (["checkpoint", "ls", "{run}"], "read"),
        (["checkpoint", "verify", "{run}"], "read"),
        (["checkpoint", "diff", "{run}"], "read"),
        (["checkpoint", "export", "{run}", "--output", "{run}/out.safetensors"], "read"),
        (["export", "{run}", "--format", "hf", "--output", "{run}/exported"], "read"),
        (["generate", "{run}", "--prompt", "a"], "read"),
        (["evaluate", "{run}"], "read"),
        (["embed", "{run}", "--texts", "{stopped}", "--output", "{run}/x.npy"], "read"),
        (["explain", "{run}", "--prompt", "a", "--method", "occlusion"], "read"),
        (["privacy", "audit", "{run}"], "read"),
        (["chat", "{run}"], "read"),
        (["train", "{run}"], "train"),
        (["federate", "server", "{run}"], "train"),
        (["serve", "{run}"], "serve"),
        (["review", "{stopped}"], "review"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_every_verb_asks(run, tmp_path, arguments, action, capsys):
    """With every action allowed but its own."""
    log = ChainLog(str(tmp_path / "stopped.jsonl"))
    log.add(stopped_of(str(run), "eve", "a phrase", ["how?"], None))
    log.close()
    allow(run, **{name: ["ann"] for name in roles.ACTIONS if name != action})
    places = {"run": str(run), "stopped": str(tmp_path / "stopped.jsonl")}
    before = sorted(tmp_path.rglob("*"))
    assert omnia.main([part.format(**places) for part in arguments]) == 2
    assert f"you may not {action} this run" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_without_a_file_everything_is_everyones_and_the_owner_may_do_all(run, monkeypatch):
    with roles.acting("train"):
        assert open_run(run).path == run
        allow(run)
        with pytest.raises(UserError):
            open_run(run)
        owner = (run / roles.FILE).stat().st_uid
        monkeypatch.setattr(os, "geteuid", lambda: owner)
        assert open_run(run).path == run


@pytest.mark.parametrize(
    "content, why", [('{"write": []}', "no action is called 'write'"), ('{"read": "ann"}', "no list"), ("[]", "damaged")]
)
def test_a_file_that_says_something_else_allows_nothing(run, content, why):
    (run / roles.FILE).write_text(content)
    (run / roles.FILE).chmod(0o644)
    with pytest.raises(UserError, match=why):
        open_run(run)


def test_a_file_that_anybody_may_write_is_not_believed(run):
    allow(run, read=["ann"])
    (run / roles.FILE).chmod(0o666)
    with pytest.raises(UserError, match="others than its owner may write it"):
        open_run(run)
