"""Public files are the ones that a table means, or are not used."""

import functools
import gzip
import hashlib
import http.server
import threading

import pytest

from data.errors import UserError
from train.reproduce import files
from train.reproduce.files import PublicFile, find

CONTENT = b"to be\nor not to be\n"
MEANT = PublicFile("play", "plays/hamlet.txt", hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "data" / "plays").mkdir(parents=True)
    return tmp_path / "data"


def test_a_file_of_the_users_own_may_hold_anything_and_is_known_by_it(tmp_path):
    own = PublicFile("own", "train.csv")
    with pytest.raises(UserError, match=r"train.csv: not found in"):
        find(own, str(tmp_path))
    (tmp_path / "train.csv").write_bytes(b"text,label\n")
    first = find(own, str(tmp_path))
    assert first.read_bytes() == b"text,label\n" and first.name == "train.csv" and find(own, str(tmp_path)) == first
    (tmp_path / "train.csv").write_bytes(gzip.compress(b"text,label\na,b\n"))
    assert find(own, str(tmp_path)).read_bytes() == b"text,label\na,b\n" and find(own, str(tmp_path)) != first


def test_plain_file_is_used_where_it_lies(folder):
    (folder / "plays" / "hamlet.txt").write_bytes(CONTENT)
    assert find(MEANT, str(folder)) == folder / "plays" / "hamlet.txt"


def test_packed_file_is_unpacked_once(folder):
    packed = folder / "plays" / "hamlet.txt.gz"
    packed.write_bytes(gzip.compress(CONTENT))
    found = find(MEANT, str(folder))
    assert found.read_bytes() == CONTENT and found.parent != packed.parent
    packed.unlink()
    assert find(MEANT, None) == found
    found.write_bytes(b"damaged")
    with pytest.raises(UserError, match="not found"):
        find(MEANT, None)


@pytest.mark.parametrize(
    "name, content",
    [("hamlet.txt", b"to be"), ("hamlet.txt.gz", gzip.compress(CONTENT)[:-9]), ("hamlet.txt.gz", b"\x1f\x8b\x08" + bytes(7) + b"\xff" * 9)],
    ids=["another", "cut", "damaged"],
)
def test_another_or_damaged_file_is_refused(folder, name, content):
    (folder / "plays" / name).write_bytes(content)
    with pytest.raises(UserError, match=r"hamlet.txt.*(not the file that the table means|end-of-stream|rror -3)"):
        find(MEANT, str(folder))


def test_a_folder_that_is_not_there_downloads_nothing(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        find(MEANT, str(tmp_path / "dta"))


def test_missing_file_is_downloaded_and_checked(folder):
    served = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), served)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/plays/hamlet.txt.gz"
    away = PublicFile("play", "plays/hamlet.txt", MEANT.sha256, address)
    with pytest.raises(UserError, match="404"):
        find(away, None)
    (folder / "plays" / "hamlet.txt.gz").write_bytes(gzip.compress(b"something else"))
    with pytest.raises(UserError, match="not the file that the table means"):
        find(away, None)
    (folder / "plays" / "hamlet.txt.gz").write_bytes(gzip.compress(CONTENT))
    assert find(away, None).read_bytes() == CONTENT
    server.shutdown()
    server.server_close()
    assert find(away, None).read_bytes() == CONTENT, "it is kept"


def test_the_known_file_says_where_it_is():
    assert len(files.SHAKESPEARE.sha256) == 64 and files.SHAKESPEARE.url.startswith("https://")
