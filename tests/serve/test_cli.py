"""The command: what it refuses, and how a server begins, ends, and changes to a newer checkpoint."""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys

import pytest

import omnia
from tests.serve.conftest import ROOT, Server
from tests.train.conftest import corpora, tiny  # noqa: F401
from tests.train.tiny_runs import start, train


@pytest.fixture(scope="module")
def run(corpora, tmp_path_factory):  # noqa: F811
    experiment = dataclasses.replace(tiny.__wrapped__(corpora), steps=2)
    whole = start(tmp_path_factory.mktemp("served") / "run", experiment)
    train(whole)
    return str(whole.path)


@pytest.fixture(scope="module")
def server(run):
    found = Server(run, "--watch", "--drain", "20")
    yield found
    found.process.kill()
    found.process.wait()


def test_it_answers_as_generate_does(server, run, capsys):
    assert omnia.main(["generate", run, "--prompt", "ab", "--max-new-tokens", "12", "--temperature", "0", "--json"]) == 0
    assert server.complete() == json.loads(capsys.readouterr().out.splitlines()[-1])["text"]
    assert json.load(server.ask("/v1/models"))["data"][0]["id"] == "run"


def test_a_newer_checkpoint_is_taken_while_it_runs(server, run):
    def likely() -> list[float]:
        body = {"prompt": "ab", "max_tokens": 12, "temperature": 0, "logprobs": 0}
        return json.load(server.ask("/v1/completions", body))["choices"][0]["logprobs"]["token_logprobs"]

    before = likely()
    command = [sys.executable, str(ROOT / "omnia.py"), "train", run, "--steps", "4"]  # on one device, and not the eight of this process
    subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=120, env=os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": ""})
    server.until("now step 4", 60)
    assert likely() != before


def test_running_texts_end_after_sigterm_and_nothing_new_is_taken(server):
    """The last of the module: it ends the server."""
    host, port = server.address.removeprefix("http://").split(":")
    body = json.dumps({"prompt": "ab", "max_tokens": 28, "stream": True, "temperature": 1, "seed": 2}).encode()
    stream = socket.create_connection((host, int(port)))
    head = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    stream.sendall(head % len(body) + body)
    assert b"200 OK" in stream.recv(64)
    server.process.send_signal(signal.SIGTERM)
    raw = b""
    while b"[DONE]" not in raw:
        piece = stream.recv(65536)
        assert piece, raw
        raw += piece
    stream.close()
    assert b'"finish_reason": "length"' in raw or b'"finish_reason": "stop"' in raw
    assert server.process.wait(30) == 0
    assert "ending" in "".join(server.lines) and "Traceback" not in "".join(server.lines)
    with pytest.raises(OSError):
        server.ask("/health")


@pytest.mark.parametrize(
    "options, said",
    [
        (["--host", "0.0.0.0"], "there are no keys"),
        (["--new-key", "ann"], "--keys FILE"),
        (["--tls-cert", "cert.pem"], "belong together"),
        (["--slots", "0"], "at least 1"),
        (["--port", "70000"], "65535"),
        (["--keys", "nowhere.json"], "nowhere.json"),
    ],
    ids=str,
)
def test_mistakes_are_said_before_anything_is_loaded(run, options, said, capsys):
    assert omnia.main(["serve", run, *options]) == 2
    assert said in capsys.readouterr().err


def test_a_port_that_is_taken_is_said(run):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, str(ROOT / "omnia.py"), "serve", run, "--port", port, "--slots", "1"]
        found = subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert found.returncode == 2 and f"cannot listen on 127.0.0.1:{port}" in found.stderr and "Traceback" not in found.stderr
