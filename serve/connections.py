"""Connections, as uvicorn keeps them, that end where nothing comes or nothing is read: else each holds its place for ever."""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 30.0
"""Within which the head of a request must have come whole."""
STALLED_SECONDS = 30.0
"""For which a client may read nothing, while more of an answer waits than the system takes."""


class Connection(H11Protocol):
    """One connection of HTTP/1.1."""

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self._late: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._late = self.loop.call_later(HEAD_SECONDS, self._end)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._waits:
            self._stop_waiting()
        elif self._late is None:  # the beginning of another head
            self._late = self.loop.call_later(HEAD_SECONDS, self._end)

    @property
    def _waits(self) -> bool:
        """Whether nobody is at work: the head of a request is not there, or the body of one that was answered without it."""
        state = self.conn.their_state
        return state is h11.IDLE or (state is h11.SEND_BODY and self.cycle.response_complete)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._look_again(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        self._stop_stalling()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self._stop_stalling()
        super().connection_lost(exc)

    def _end(self) -> None:
        self._late = None
        if self._waits:
            self.transport.abort()

    def _look_again(self, held: int) -> None:
        """In a while, and end the connection if it still holds as much."""

        def look() -> None:
            left = self.transport.get_write_buffer_size()
            if left < held:
                self._look_again(left)
            else:
                self.transport.abort()

        self._stalled = self.loop.call_later(STALLED_SECONDS, look)

    def _stop_waiting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _stop_stalling(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
