"""Which clients' updates were added up in which round, so that none is added up with other clients again.

The sums of two sets of clients, of which one has a client more, differ by that client's update. A round is tried again where too few
answered, or where a server died before it saved what the round brought, and a client sends the same update again. New masks do not help,
since sums are without masks. Nor does training anew: from the same parameters comes the same update, or, with other rows or dropout, one so
near to it that the difference still shows most of the client's. So it is the second sum that a client refuses:

Whoever has told shares of masks for one set of clients takes part with that same set alone, in this round and wherever these parameters
come again. The sum is then the one that the server has had or could have had, and says nothing new.

That is enough. A sum comes out only if more than two thirds of each client's neighbours tell their shares, and those are two thirds of the
set. None of them is in any later sum of other clients. So whatever is computed from such sums, two thirds of one set stay in it together.

The server keeps the same list, and asks the same clients first. Where one of them stays away, it asks those who are there, which comes to
something only if none of those who refuse is needed; else the round waits.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from data.errors import UserError
from data.files import json_files
from data.files.storage import sync_folder
from train.federated.messages import Malformed

FILE = "added.jsonl"
"""Of a run, the server's or a client's part."""


class Added:
    """The list, kept in a file, or for as long as the process lasts."""

    def __init__(self, path: Path | None = None):
        self._path = path
        self._sets: dict[tuple[str, ...], frozenset[str]] = {}
        lines = path.read_bytes().split(b"\n") if path is not None and path.is_file() else []
        for number, line in enumerate(lines, 1):
            try:
                if line.strip():
                    entry = json_files.parse(line)
                    self._note(entry["run"], entry["round"], entry["parameters"], entry["clients"])
            except (ValueError, KeyError, TypeError):
                # A write begins with a line's end and ends with one, so an empty line is behind what was written whole.
                if number < len(lines) and not lines[number].strip():
                    raise UserError(
                        f"{path}: line {number} is damaged", "Restore the file: it says which sums may not be asked for."
                    ) from None

    def of(self, run: str, number: int, parameters: str) -> set[frozenset[str]]:
        """The sets that a round and that these parameters were added up with. run: of the server. parameters: their digest."""
        return {self._sets[key] for key in _keys(run, number, parameters) if key in self._sets}

    def check(self, run: str, number: int, parameters: str, clients: Iterable[str]) -> None:
        """Malformed where they were added up with others."""
        if others := self.of(run, number, parameters) - {frozenset(clients)}:
            who = ", ".join(sorted(next(iter(others))))
            raise Malformed(f"round {number} was added up with {who} before, and another sum would show the difference")

    def keep(self, run: str, number: int, parameters: str, clients: Iterable[str]) -> None:
        """Write down that they are added up now. It is on the disk when this returns: only then may shares be told or asked for."""
        clients = sorted(clients)
        if self.of(run, number, parameters) == {frozenset(clients)} and all(key in self._sets for key in _keys(run, number, parameters)):
            return
        if self._path is not None:
            line = json_files.dumps({"run": run, "round": number, "parameters": parameters, "clients": clients})
            with open(self._path, "ab") as file:
                file.write(f"\n{line}\n".encode())  # begins a line, whatever a crash left
                file.flush()
                os.fsync(file.fileno())
            sync_folder(os.fspath(self._path.parent))
        self._note(run, number, parameters, clients)

    def _note(self, run: str, number: int, parameters: str, clients: Iterable[str]) -> None:
        self._sets |= dict.fromkeys(_keys(run, number, parameters), frozenset(clients))


def _keys(run: str, number: int, parameters: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return ("round", run, str(number)), ("parameters", parameters)
