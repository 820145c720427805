"""What people look at: what a gate stopped, with what they decided, in two logs that are only added to, and as pairs to learn from; and
what an anonymisation found."""

import dataclasses
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from data.errors import UserError
from data.files import json_files
from data.files.chain import Broken, check, read_head
from data.records.record import read_content

Decision = Literal["refuse", "allow"]
REFUSAL = "I can't help with that."
"""What should have been said, where a person who decides gives nothing else."""


@dataclasses.dataclass(frozen=True)
class Stopped:
    """One request that a gate refused, or whose answer it ended. answer: what there was of it; None for a request that was refused. run:
    the folder of the model that was asked."""

    id: str
    time: float
    owner: str
    why: str
    asked: tuple[str, ...]
    answer: str | None
    run: str = ""


def stopped_of(run: str, owner: str, why: str, asked: Sequence[str], answer: str | None) -> dict[str, Any]:
    """A line of the log."""
    found = {"id": secrets.token_hex(6), "time": round(time.time(), 3), "run": run, "owner": owner, "why": why, "asked": list(asked)}
    return found if answer is None else found | {"answer": answer}


def decision_of(item: Stopped, decision: Decision, by: str, answer: str) -> dict[str, Any]:
    """A line of the log of decisions. refuse: it was right to stop it; allow: it was not. answer: what should have been said."""
    return {"id": item.id, "time": round(time.time(), 3), "by": by, "decision": decision, "answer": answer}


def decisions_path(path: str) -> str:
    """Of a log of what was stopped, the log of decisions: the server keeps the first open."""
    return f"{path}.decisions"


def read_stopped(path: str) -> list[Stopped]:
    """UserError for a log that is not what was written."""
    return [
        Stopped(line["id"], line["time"], line["owner"], line["why"], tuple(line["asked"]), line.get("answer"), line.get("run", ""))
        for line in _lines(path)
        if "asked" in line
    ]


def read_decisions(path: str) -> dict[str, dict[str, Any]]:
    """The last decision on each item, by its id."""
    return {line["id"]: line for line in _lines(decisions_path(path), missing_is_fine=True) if "decision" in line}


def _lines(path: str, missing_is_fine: bool = False) -> Iterator[dict[str, Any]]:
    head = read_head(path)
    content = b"" if missing_is_fine and not os.path.exists(path) else read_content(path)
    whole, later = content[: content.rfind(b"\n") + 1], read_head(path)
    if whole and later is None:
        raise UserError(f"{path}: its head is missing: {path}.head", "Bring it here too: without it an end may have been cut off.")
    found = check(whole, head, later)
    if isinstance(found, Broken):
        raise UserError(f"{path}: line {found.line}: {found.why}", "Keep it as evidence.")
    for line in whole.splitlines():
        yield json_files.parse(line)


def pairs(items: Sequence[Stopped], decisions: dict[str, dict[str, Any]]) -> tuple[list[dict[str, str]], int]:
    """(comparisons to learn from, {"prompt", "chosen", "rejected"}; how many decisions give none).

    Where it was right to stop an answer, a refusal is better than that answer; where it was wrong, an answer is better than a refusal. A
    request that was rightly refused has no answer that could be worse.
    """
    found, without = [], 0
    for item in items:
        if (decided := decisions.get(item.id)) is None:
            continue
        refuse = decided["decision"] == "refuse"
        chosen = decided["answer"] or (REFUSAL if refuse else item.answer or "")
        rejected = (item.answer or "") if refuse else REFUSAL
        if not chosen or not rejected or chosen == rejected:
            without += 1
        else:
            found.append({"prompt": "\n".join(item.asked), "chosen": chosen, "rejected": rejected})
    return found, without


# ------------------------------------------------------------------------------------------------------------- anonymisation


def read_found(path: str) -> list[dict[str, Any]] | None:
    """The lines of an anonymisation's review (data/anonymize/files.py); None for any other file. UserError where one of them is none."""
    lines, found = read_content(path).splitlines(), []
    for number, line in enumerate(lines, 1):
        try:
            entry = json_files.parse(line)
            described(entry)
        except (ValueError, KeyError, TypeError):
            if not found:
                return None
            raise UserError(f"{path}: line {number}: is no entry of an anonymisation's review", "Anonymise the files again.") from None
        found.append(entry)
    return found or None


def described(entry: dict[str, Any]) -> str:
    """A line of an anonymisation's review for a person: where something is, what it is, and what became of it. KeyError or TypeError for an
    entry of another kind."""
    where, kind = str(entry["file"]), str(entry["kind"])
    if "line" in entry:
        return f"{where}, line {entry['line']}, column {entry['column']}: {kind} {entry['shape']} replaced: {entry['context']}"
    if "seconds" in entry:
        first, last = entry["seconds"]
        where += f", seconds {first:g} to {last:g}"
    if "box" in entry:
        x, y, width, height = entry["box"]
        where += f", {width} x {height} pixels at {x}, {y}"
    done = ("changed" if kind == "VOICE" else "covered") if entry["covered"] else "NOT covered"
    return f"{where}: {kind} {done}" + (f", score {entry['score']:g}" if "score" in entry else "")
