"""How far a long work is: a bar on a terminal, a plain line every few seconds elsewhere."""

import sys
import time
from typing import Any

_PLAIN_SECONDS = 5


class Progress:
    """Shows bytes done of a total, on stderr. Use as a context; call `show` as often as you like."""

    def __init__(self, label: str, total: int):
        self.label, self.total = label, max(total, 1)
        self._start = self._shown = time.monotonic()
        self._bar: Any = None

    def __enter__(self):
        if sys.stderr.isatty():
            from rich import progress
            from rich.console import Console

            self._bar = progress.Progress(
                progress.TextColumn(self.label),
                progress.BarColumn(),
                progress.DownloadColumn(),
                progress.TransferSpeedColumn(),
                progress.TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(self.label, total=self.total)
        return self

    def __exit__(self, *_):
        if self._bar:
            self._bar.stop()

    def show(self, done: int) -> None:
        now = time.monotonic()
        if self._bar:
            self._bar.update(self._task, completed=done)
        elif now - self._shown >= _PLAIN_SECONDS:
            self._shown = now
            speed = max(done / (now - self._start), 1e-9)
            print(
                f"{self.label}: {done / 1e6:,.0f} of {self.total / 1e6:,.0f} MB, {speed / 1e6:.1f} MB/s, "
                f"{(self.total - done) / speed:,.0f} s left",
                file=sys.stderr,
                flush=True,
            )
