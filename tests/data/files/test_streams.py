"""Output that nobody can take: the work that reports goes on, the work that is the output says why it ends."""

import io
import os
import subprocess
import sys

import pytest

from data.files.streams import STDOUT, dispensable, essential

INSIDE = """
import os, sys
from data.files.streams import dispensable, essential, open_streams
open_streams()
"""


def python(code: str, **options):
    return subprocess.run([sys.executable, "-c", INSIDE + code], capture_output="stdout" not in options, text=True, timeout=60, **options)


class Full(io.StringIO):
    """A stream on a full disk."""

    def write(self, text):
        raise OSError(28, "No space left on device")


def test_a_dispensable_stream_is_lost_once_and_said_once(monkeypatch):
    said = io.StringIO()
    monkeypatch.setattr(sys, "stdout", Full())
    monkeypatch.setattr(sys, "stderr", said)
    with dispensable():
        for _ in range(3):
            print("a line", flush=True)
        print("an error", file=sys.stderr)
    assert said.getvalue().count("standard output cannot be written any more (No space left on device)") == 1
    assert said.getvalue().endswith("an error\n")


def test_both_streams_may_be_lost(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Full())
    monkeypatch.setattr(sys, "stderr", Full())
    with dispensable():
        print("a line")
        print("an error", file=sys.stderr)


def test_an_essential_stream_names_itself(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Full())
    with pytest.raises(OSError, match="standard output"), essential():
        print("a line")
    with pytest.raises(FileNotFoundError, match="nowhere"), essential():
        os.stat("nowhere")
    assert STDOUT == "standard output"


@pytest.mark.parametrize("redirection", [">&-", "2>&-", "<&- >&- 2>&-", "> /dev/full"])
def test_a_process_ends_well_whatever_its_streams_are(redirection, tmp_path):
    """A descriptor that is closed must not be taken by the next file: what is printed would end up in it."""
    code = INSIDE + "with dispensable():\n file = open('kept', 'w'); print('out'); print('err', file=sys.stderr); file.write('content')"
    (tmp_path / "run.py").write_text(code)
    command = f"exec {sys.executable} run.py {redirection}"
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    assert subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, env=environment, timeout=60).returncode == 0
    assert (tmp_path / "kept").read_text() == "content"


def test_a_reader_that_left_ends_nothing():
    read, write = os.pipe()
    os.close(read)
    code = "with dispensable():\n for i in range(3): print('x' * 100_000, flush=True)\nos._exit(7 if sys.stdout.closed else 0)"
    found = python(code, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert found.returncode == 0
    assert "standard output cannot be written any more (Broken pipe)" in found.stderr


def test_what_an_encoding_lacks_is_escaped():
    found = python(
        "with dispensable(): print('snow \\u2603, name', os.fsdecode(b'caf\\xe9'))", env=os.environ | {"PYTHONIOENCODING": "ascii:strict"}
    )
    assert found.stdout == "snow \\u2603, name caf\\udce9\n"
