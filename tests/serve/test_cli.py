"""The command: what it refuses, and how a server begins, ends, and changes to a newer checkpoint."""

import contextlib
import dataclasses
import datetime
import io
import ipaddress
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from types import SimpleNamespace

import pytest

import omnia
from data.errors import UserError
from model.encoder_decoder import Conditioned
from serve.cli import STUCK_EXIT, Serve, _look_after, _newest
from serve.drafts import with_draft
from serve.keys import new_key
from tests.serve.conftest import ROOT, Server
from tests.train.conftest import corpora, tiny  # noqa: F401
from tests.train.tiny_runs import start, train
from train.generation.text import decoder_of
from train.runs.directory import open_run


@pytest.fixture(scope="module")
def run(corpora, tmp_path_factory):  # noqa: F811
    experiment = dataclasses.replace(tiny.__wrapped__(corpora), steps=2)
    whole = start(tmp_path_factory.mktemp("served") / "run", experiment)
    train(whole)
    return str(whole.path)


@pytest.fixture(scope="module")
def server(run):
    found = Server(run, "--watch", "--drain", "20", "--draft", run)  # which changes no text, also where it is as large and of another step
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
    server.until("ending")
    for path, what in (("/ready", None), ("/v1/completions", {"prompt": "ab"})):  # unless it has ended by then
        with contextlib.suppress(ConnectionError, urllib.error.URLError):
            with pytest.raises(urllib.error.HTTPError) as refused:
                server.ask(path, what)
            assert refused.value.code == 503
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


def test_a_draft_that_reads_other_tokens_or_fewer_is_refused(run):
    opened = open_run(run)
    model, tokenizer = decoder_of(opened), opened.tokenizer()
    with_draft(model, run, tokenizer, model.config.context_length)
    with pytest.raises(UserError, match="other tokens"):
        with_draft(model, run, SimpleNamespace(pieces=tokenizer.pieces[::-1], specials=tokenizer.specials), model.config.context_length)
    with pytest.raises(UserError, match="Give a longer one, or --context"):
        with_draft(model, run, tokenizer, model.config.context_length + 1)
    with pytest.raises(UserError, match="for decoders of text"):
        with_draft(Conditioned(model), run, tokenizer, 1)


@pytest.mark.parametrize(
    "options, said",
    [
        (["--host", "0.0.0.0"], "there are no keys"),
        (["--new-key", "ann"], "--keys FILE"),
        (["--tls-cert", "cert.pem"], "belong together"),
        (["--slots", "0"], "at least 1"),
        (["--watch", "--step", "2"], "--step says which one"),
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


def test_it_answers_over_tls_with_eight_bits_and_a_key(run, tmp_path):
    """What is sent is encrypted: a client that trusts the certificate reads it, and one that does not speak TLS gets nothing."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
    made = made.not_valid_before(now - datetime.timedelta(1)).not_valid_after(now + datetime.timedelta(1))
    made = made.add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
    cert, private = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.write_bytes(made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    how = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    private.write_bytes(key.private_bytes(*how))
    secret = new_key(str(tmp_path / "keys.json"), "ann")
    server = Server(run, "--tls-cert", str(cert), "--tls-key", str(private), "--int8", "--keys", str(tmp_path / "keys.json"))
    try:
        assert server.address.startswith("https://")
        context = ssl.create_default_context(cafile=str(cert))
        request = urllib.request.Request(
            server.address + "/v1/completions",
            json.dumps({"prompt": "ab", "max_tokens": 12, "temperature": 0}).encode(),
            {"content-type": "application/json", "authorization": f"Bearer {secret}"},
        )
        answer = json.load(urllib.request.urlopen(request, context=context, timeout=60))
        assert answer["usage"]["completion_tokens"] >= 1
        with pytest.raises(OSError):
            urllib.request.urlopen(server.address.replace("https", "http") + "/health", timeout=10)
        with pytest.raises(urllib.error.URLError, match="certificate"):
            urllib.request.urlopen(server.address + "/health", timeout=10)
    finally:
        server.process.kill()
        server.process.wait()


def test_a_server_whose_engine_has_failed_ends_for_its_supervisor(monkeypatch, capsys):
    """With a code of its own, after its clients were told."""
    ended: list[int] = []

    def leave(code: int):
        ended.append(code)
        raise SystemExit(code)

    monkeypatch.setattr("serve.cli.os._exit", leave)
    monkeypatch.setattr("serve.cli.time.sleep", lambda seconds: None)
    engine = SimpleNamespace(alive=True, advanced=time.monotonic() - 1000, failed="")
    loaded = SimpleNamespace(engine=engine, step=1)
    with pytest.raises(SystemExit):
        _look_after(SimpleNamespace(watch=False), None, SimpleNamespace(draining=False), loaded, SimpleNamespace(should_exit=False))
    assert ended == [STUCK_EXIT] and "no sign of life" in capsys.readouterr().err


def test_whoever_looks_for_newer_checkpoints_in_vain_goes_on(run, tmp_path, monkeypatch, capsys):
    """A folder that is not there for a while, or of which something is missing, ends no server."""
    copied = shutil.copytree(run, tmp_path / "run")
    opened, newest = open_run(copied), open_run(run).path
    journal = copied / "checkpoints" / "journal"
    shutil.move(journal, tmp_path / "away")
    swapped, passed, looks = list[int](), SimpleNamespace(should_exit=False), []

    def look(run):
        looks.append(1)
        if len(looks) == 4:
            shutil.move(tmp_path / "away", journal)
        passed.should_exit = len(looks) > 5
        return _newest(run)

    monkeypatch.setattr("serve.cli.LOOK_SECONDS", 0.01)
    monkeypatch.setattr("serve.cli._newest", look)
    monkeypatch.setattr("serve.cli._newer", lambda options, run, step: step)

    def swap(params, done):
        swapped.append(params)
        assert not served.version, "what answers is what it was until then"
        done()

    engine, served = SimpleNamespace(alive=True, advanced=time.monotonic() + 1000, failed="", swap=swap), SimpleNamespace(version="")
    loaded, options = SimpleNamespace(engine=engine, step=1, served=served), Serve(str(copied), watch=True)
    _look_after(options, opened, SimpleNamespace(draining=False), loaded, passed)
    assert served.version.startswith(f"{swapped[0]} ")
    assert len(swapped) == 1 and swapped[0] == _newest(open_run(newest))[0]
    assert capsys.readouterr().err.count("no newer checkpoint can be looked for") == 1


def test_a_talk_in_the_terminal(run, tmp_path, monkeypatch, capsys):
    """`omnia chat` answers each line with what the model writes behind all that was said, as a request with the same turns does."""
    assert omnia.main(["chat", run]) == 2 and "no chat template" in capsys.readouterr().err
    copied = shutil.copytree(run, tmp_path / "run")
    (copied / "chat.json").write_text(
        json.dumps({"template": "{% for turn in messages %}{{ turn.content }}\n{% endfor %}", "start_ids": [], "stop_ids": []})
    )
    monkeypatch.setattr("sys.stdin", io.StringIO("a\nb\n"))
    assert omnia.main(["chat", str(copied), "--max-new-tokens", "4", "--temperature", "0"]) == 0
    said = capsys.readouterr().out
    turns, how = [{"role": "user", "content": "a"}], {"max_tokens": 4, "temperature": 0}
    server = Server(str(copied))
    try:
        first = json.load(server.ask("/v1/chat/completions", {"messages": turns} | how))["choices"][0]["message"]["content"]
        turns += [{"role": "assistant", "content": first}, {"role": "user", "content": "b"}]
        second = json.load(server.ask("/v1/chat/completions", {"messages": turns} | how))["choices"][0]["message"]["content"]
    finally:
        server.process.kill()
        server.process.wait()
    assert first and first in said and second in said[said.index(first) + len(first) :]
