"""Rows from a WebSocket on this machine: each message is a row."""

from typing import Any
from urllib.parse import urlsplit

from data.errors import UserError
from data.files import json_files
from data.records.rows import row_of

SCHEME = "ws://"
LOOPBACK = ("127.0.0.1", "::1", "localhost")
LONGEST = 1 << 20
"""Bytes of a message that is read."""
MESSAGE_TOO_BIG = 1009
"""The code with which a connection ends whose message is longer (RFC 6455, sec. 7.4.1)."""
TOO_LONG = object()
WAIT_SECONDS = 0.1
"""For a message, before something else is looked after."""
AGAIN_SECONDS = 1.0
"""Before a sender that is not there is asked again."""


class WebSocket:
    """Messages of a sender, which is told {"after": N} whenever it is connected to: how many of its messages were read before. One that
    goes on there loses and doubles nothing; from one that does not, messages that come while nobody is connected are lost. follow: connect
    again when it closes. place: messages."""

    def __init__(self, address: str, follow: bool):
        try:
            from websockets.exceptions import WebSocketException
            from websockets.sync import client
        except ImportError:
            raise UserError("Reading a WebSocket needs the package websockets.", "pip install 'omnia[serve]'") from None
        self._wrong: tuple[type[Exception], ...] = (OSError, WebSocketException, EOFError)
        try:
            parts = urlsplit(address)
            fine = parts.hostname in LOOPBACK and parts.port and not parts.fragment
        except ValueError:
            fine = False
        if not fine:
            raise UserError(f"{address}: is not on this machine", f"Give {SCHEME}127.0.0.1:PORT; for others, a tunnel that ends there.")
        self._client, self._address, self._follow = client, address, follow

    @property
    def known_by(self) -> Any:
        return [self._address]

    def read(self, place: int | None):
        number = place or 0
        while True:
            again = self._follow
            try:
                with self._client.connect(self._address, max_size=LONGEST, open_timeout=AGAIN_SECONDS, proxy=None) as connection:
                    connection.send(json_files.dumps({"after": number}))
                    for message in self._messages(connection):
                        if message is None:
                            yield None
                            continue
                        number += 1
                        where = f"{self._address}: message {number}"
                        if message is TOO_LONG:  # the connection ends with it, and the rest is asked for in another
                            again = True
                            yield UserError(f"{where}: is longer than {LONGEST:,} bytes", "Give shorter rows."), number
                        else:
                            yield row_of(message, where), number
            except self._wrong as error:
                if not self._follow:
                    why = f"{self._address}: after {number} messages: {error}"
                    raise UserError(why, "Start the sender; the same command goes on. With --follow it is waited for.") from None
            if not again:
                return
            if self._follow:
                yield from self._pause()

    def _messages(self, connection: Any):
        """Each message as bytes, TOO_LONG for one that is, and last, since it ends the connection; None where there is none yet. Ends when
        the sender closes in order."""
        from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK

        while True:
            try:
                message = connection.recv(timeout=WAIT_SECONDS)
            except TimeoutError:
                yield None
                continue
            except ConnectionClosedOK:
                return
            except ConnectionClosedError as closed:
                if closed.sent is None or closed.sent.code != MESSAGE_TOO_BIG:
                    raise
                yield TOO_LONG
                return
            yield message.encode() if isinstance(message, str) else message

    def _pause(self):
        for _ in range(round(AGAIN_SECONDS / WAIT_SECONDS)):
            yield None
