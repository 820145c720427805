import json

import pytest

from data.clean.prepare import PrepareClean, prepare_clean
from data.errors import UserError
from data.loading import beam

try:
    import apache_beam
except ImportError:
    apache_beam = None


@pytest.fixture
def options(tmp_path):
    texts = [" ".join(f"w{(number * step) % 97}" for step in range(60)) for number in range(1, 40)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in [*texts, *texts[:5]]))

    def of(output, **changes):
        given = {"input": (str(tmp_path / "in.jsonl"),), "gopher": False, "repeated_characters": 100, "shard_bytes": 3000, "workers": 1}
        return PrepareClean(str(tmp_path / output), **given, **changes)

    return of


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in (".lock", "prepare.json")}


@pytest.mark.skipif(apache_beam is None, reason="apache-beam is in an environment of its own")
def test_beam_writes_the_same_documents(options, tmp_path):
    prepare_clean(options("plain"))
    prepare_clean(options("beam", beam="DirectRunner"))
    assert content(tmp_path / "beam") == content(tmp_path / "plain")


def test_tasks_that_are_done_out_of_turn_and_twice_give_the_same_documents(options, tmp_path, monkeypatch):
    """As Beam may do them, here without it: all are in the journal before this machine looks for what is left."""
    done = []

    def run(folder, calls, function, runner, *more):
        for number, call in [*reversed(calls.items()), *calls.items()]:
            beam.do_task(folder, number, call, function, *more)
            done.append(function.__name__)

    prepare_clean(options("plain"))
    with monkeypatch.context() as patch:
        patch.setattr(beam, "run", run)
        prepare_clean(options("beam", beam="SomeRunner"))
    assert content(tmp_path / "beam") == content(tmp_path / "plain")
    assert set(done) == {"scan", "write_prints", "write_spans", "write_documents"} and len(content(tmp_path / "plain")) > 4


@pytest.mark.skipif(apache_beam is not None, reason="apache-beam is here")
def test_without_beam_a_line_says_what_to_install(options):
    with pytest.raises(UserError, match="omnia.beam"):
        prepare_clean(options("out", beam="DirectRunner"))
