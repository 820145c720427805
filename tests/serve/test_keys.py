"""Keys: only their digests are stored, limits hold, and mistakes in the file are named."""

import json
import os

import pytest

from data.errors import UserError
from serve.keys import Key, Keys, new_key, read_keys


def test_a_new_key_opens_and_is_stored_nowhere(tmp_path):
    path = str(tmp_path / "keys.json")
    secret, other = new_key(path, "ann"), new_key(path, "bob")
    content = (tmp_path / "keys.json").read_text()
    assert secret not in content and other not in content and os.stat(path).st_mode & 0o077 == 0
    keys = read_keys(path)
    assert keys.find(secret).name == "ann" and keys.find(other).name == "bob"
    assert keys.find("omnia-wrong") is None and keys.find("") is None
    with pytest.raises(UserError, match="already"):
        new_key(path, "ann")


@pytest.mark.parametrize(
    "rows, said",
    [
        ([], "no keys"),
        ("x", "no keys"),
        ([{"name": "a"}], "key 1"),
        ([{"name": "a", "sha256": "0" * 64, "rate": 1}], "key 1"),
        ([{"name": "a", "sha256": "0" * 64, "role": "king"}], "role"),
        ([{"name": "a", "sha256": "0"}], "sha256"),
        ([{"name": "a", "sha256": "0" * 64, "concurrent": -1}], "concurrent"),
        ([{"name": "a", "sha256": "0" * 64, "concurrent": "2"}], "concurrent"),
        ([{"name": "a", "sha256": "0" * 64}, {"name": "a", "sha256": "1" * 64}], "same name"),
    ],
)
def test_mistakes_in_the_file_are_named(tmp_path, rows, said):
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": rows}))
    with pytest.raises(UserError, match=said):
        read_keys(str(path))


def test_limits_are_those_of_the_key(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("serve.keys.time.monotonic", lambda: now[0])
    key = Key("a", "0" * 64, requests_per_minute=2, tokens_per_minute=100, concurrent=2)
    keys = Keys([key])
    assert keys.take(key, 60) == 0.0
    assert keys.take(key, 60) == pytest.approx(12.0)  # 20 tokens are missing, and 100 come in a minute
    now[0] = 12.0
    assert keys.take(key, 60) == 0.0
    now[0] = 100.0
    assert keys.take(key, 10_000) == 0.0  # more than a minute's worth may be had once it is all there
    keys.give_back(key, 10_000)
    assert keys.take(key, 1) == 0.0
    assert keys.begin(key) == keys.begin(key) == 0.0
    assert keys.begin(key) == 1.0  # two run
    keys.end(key)
    assert keys.begin(key) == pytest.approx(30.0)  # two requests a minute
    now[0] = 130.0
    assert keys.begin(key) == 0.0
    keys.end(key)
    keys.end(key)
    assert keys.running["a"] == 0


def test_roles_say_what_a_key_may():
    assert [Key("a", "0" * 64, role).may(what) for role in ("user", "observer", "admin") for what in ("ask", "observe")] == [
        True, False, False, True, True, True,
    ]  # fmt: skip
