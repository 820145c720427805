import os

import fsspec
import pytest

from data.files import storage


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    path = str(tmp_path / "file")
    storage.write_atomically(path, b"before")

    def full(handle):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="disk full"):
        storage.write_atomically(path, b"after")
    assert storage.read_bytes(path) == b"before"
    assert os.listdir(tmp_path) == ["file"]


def test_absent_files_are_none(tmp_path):
    assert storage.read_bytes(str(tmp_path / "missing")) is None
    assert storage.read_bytes(str(tmp_path / "missing" / "file")) is None
    assert storage.read_bytes("memory://missing/file") is None


def test_addresses_are_joined_and_read():
    fsspec.filesystem("memory").pipe("/place/a/b", b"content")
    assert storage.read_bytes(storage.join("memory://place/", "a/b")) == b"content"
    assert storage.join("folder", "name") == os.path.join("folder", "name")
