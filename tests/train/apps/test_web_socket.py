"""Messages of a sender on this machine, each once, whoever leaves and comes back."""

import json
import socket
import threading

import pytest

from data.errors import UserError
from train.apps.applying import source_of
from train.apps.web_socket import LONGEST, WebSocket

server = pytest.importorskip("websockets.sync.server")


class Sender:
    """Sends the rows of a list from where it is asked to; `leaves` rows at a time."""

    def __init__(self, rows, leaves=10**9):
        self._rows, self._leaves = rows, leaves
        self.asked: list[int] = []
        self.breaks = False
        self._server = server.serve(self._handle, "127.0.0.1", 0)
        self.port = self._server.socket.getsockname()[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _handle(self, connection):
        after = json.loads(connection.recv())["after"]
        self.asked.append(after)
        for row in self._rows[after : after + self._leaves]:
            connection.send(row)
        if self.breaks:
            connection.socket.shutdown(socket.SHUT_RDWR)

    def close(self):
        self._server.shutdown()


@pytest.fixture
def sender():
    made = []

    def make(*arguments, **options):
        made.append(Sender(*arguments, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def rows_of(source, place=None, count=10**9):
    found = []
    for one in source.read(place):
        if one is not None:
            found.append(one)
        if len(found) == count:
            break
    return found


ROWS = [json.dumps({"n": number}) for number in range(5)]


def test_each_message_is_a_row(sender):
    made = sender([*ROWS[:2], "no json", json.dumps({"text": "雪"}).encode()])
    found = rows_of(source_of(f"ws://127.0.0.1:{made.port}", False, None))
    assert [place for _, place in found] == [1, 2, 3, 4] and found[3][0]["text"] == "雪"
    assert isinstance(found[2][0], UserError) and "message 3" in str(found[2][0])


def test_who_comes_back_asks_for_what_follows(sender):
    made = sender(ROWS)
    (_, place), *_ = reversed(rows_of(WebSocket(f"ws://localhost:{made.port}/posts", False), count=2))
    rest = rows_of(WebSocket(f"ws://localhost:{made.port}/posts", False), place)
    assert [row["n"] for row, _ in rest] == [2, 3, 4] and made.asked == [0, 2]


def test_a_sender_that_leaves_is_asked_again(sender, monkeypatch):
    monkeypatch.setattr("train.apps.web_socket.AGAIN_SECONDS", 0.1)
    made = sender(ROWS, leaves=2)
    found = rows_of(WebSocket(f"ws://127.0.0.1:{made.port}", True), count=5)
    assert [row["n"] for row, _ in found] == [0, 1, 2, 3, 4] and made.asked == [0, 2, 4]


def test_a_long_message_is_an_error_in_its_place(sender, monkeypatch):
    monkeypatch.setattr("train.apps.web_socket.AGAIN_SECONDS", 0.1)
    made = sender([ROWS[0], "x" * (LONGEST + 1), ROWS[2]])
    found = rows_of(WebSocket(f"ws://127.0.0.1:{made.port}", True), count=3)
    assert found[0][0]["n"] == 0 and "longer" in str(found[1][0]) and found[2][0]["n"] == 2


def test_what_follows_a_long_message_is_asked_for_without_following(sender):
    made = sender([ROWS[0], "x" * (LONGEST + 1), ROWS[2]])
    found = rows_of(WebSocket(f"ws://127.0.0.1:{made.port}", False))
    assert [place for _, place in found] == [1, 2, 3] and found[2][0]["n"] == 2 and made.asked == [0, 2]


def test_a_sender_that_breaks_off_is_no_end(sender):
    """Without following an error, so that the journal stays; else it is asked again."""
    made = sender(ROWS, leaves=2)
    made.breaks = True
    source = WebSocket(f"ws://127.0.0.1:{made.port}", False).read(None)
    with pytest.raises(UserError, match="after 2 messages"):
        list(source)


def test_what_is_no_web_socket(monkeypatch):
    monkeypatch.setattr("train.apps.web_socket.AGAIN_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        def answer():
            for _ in range(2):
                connection, _ = other.accept()
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n")
                connection.close()

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(UserError, match="ws://127"):
            rows_of(WebSocket(f"ws://127.0.0.1:{port}", False))
        assert next(iter(WebSocket(f"ws://127.0.0.1:{port}", True).read(None))) is None


@pytest.mark.parametrize(
    "address",
    [
        "ws://example.org:80/x",
        "ws://10.0.0.1:1",
        "ws://",
        "ws://127.0.0.1.example.org:1",
        "ws://127.0.0.1",
        "ws://127.0.0.1:99999",
        "ws://127.0.0.1:x",
        "ws://[::1",
        "ws://127.0.0.1:80/#x",
    ],
)
def test_other_machines_are_refused(address):
    with pytest.raises(UserError, match="not on this machine"):
        WebSocket(address, False)


def test_nobody_there():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(UserError, match="ws://127"):
        rows_of(WebSocket(f"ws://127.0.0.1:{port}", False))
    assert next(iter(WebSocket(f"ws://127.0.0.1:{port}", True).read(None))) is None
