"""`omnia review`: what a server's gate stopped, or an anonymisation found, looked at by people."""

import dataclasses
import os
import re
from pathlib import Path
from typing import Any, Literal

import tyro

from data.errors import UserError
from data.files import json_files
from data.files.chain import ChainLog
from data.records.review import Stopped, decision_of, decisions_path, described, pairs, read_decisions, read_found, read_stopped
from data.records.writing import check_name, write_records
from train.runs import roles
from train.verbs.arguments import parse


@dataclasses.dataclass(frozen=True)
class Review:
    """List what `omnia serve --review FILE` stopped and nobody has decided on, decide, and write what was decided as pairs for a reward
    model or DPO. Or list what `omnia anonymize` found, from its review.jsonl."""

    file: tyro.conf.Positional[str]
    """The log of the server, or the review of an anonymisation."""
    id: str = ""
    """Item to decide on, with --decide."""
    decide: Literal["", "refuse", "allow"] = ""
    """refuse: it was right to stop it; allow: it was not."""
    answer: str = ""
    """With --decide: what should have been said. Empty: a refusal, or the answer that was stopped."""
    pairs: str = ""
    """Write {"prompt", "chosen", "rejected"} of all decisions to this .jsonl file."""
    all: bool = False
    """List what was decided on too."""
    json: bool = False
    """Print JSON: a line for each item."""


def review(arguments: list[str]) -> int:
    o = parse(Review, "review", arguments)
    if bool(o.id) != bool(o.decide) or (o.answer and not o.decide):
        raise UserError("omnia review: --id and --decide belong together, and --answer to them", "Give --id ID --decide refuse, or allow.")
    if (found := read_found(o.file)) is not None:
        if o.decide or o.pairs:
            raise UserError(f"{o.file}: is the review of an anonymisation, which nobody decides on", "Leave --decide and --pairs out.")
        _list(found, o.json)
        return 0
    items, decisions = read_stopped(o.file), read_decisions(o.file)
    for run in sorted({item.run for item in items if item.run}):
        roles.check(Path(run))
    if o.decide:
        item = next((one for one in items if one.id == o.id), None)
        if item is None:
            raise UserError(f"{o.file}: has no item {o.id!r}", f"`omnia review {o.file}` lists them.")
        log = ChainLog(decisions_path(o.file), mode=0o600)
        try:
            log.add(decision_of(item, o.decide, roles.user_name() or f"user {os.geteuid()}", o.answer))
        finally:
            log.close()
        return 0
    if o.pairs:
        check_name(o.pairs)
        found, without = pairs(items, decisions)
        if not found:
            raise UserError(f"{o.file}: no decision gives a pair", "Decide on answers that were stopped, or give --answer TEXT.")
        write_records(o.pairs, found)
        print(f"{o.pairs}: {len(found):,} pairs; {without:,} decisions give none")
        return 0
    for item in items:
        if o.all or item.id not in decisions:
            _show(item, decisions.get(item.id), o.json)
    if not o.json:
        print(f"{len(items) - len({*decisions}):,} of {len(items):,} wait for a decision")
    return 0


def _list(found: list[dict[str, Any]], as_json: bool) -> None:
    for entry in found:
        print(json_files.dumps(entry) if as_json else _shown(described(entry)).replace("\n", "\\x0a"))
    if not as_json:
        missed = sum(not entry.get("covered", True) for entry in found)
        print(f"{missed:,} of {len(found):,} were seen, but not surely enough to be covered")


def _show(item: Stopped, decided: dict | None, as_json: bool) -> None:
    decision = "" if decided is None else decided["decision"]
    if as_json:
        print(json_files.dumps(dataclasses.asdict(item) | {"decision": decision}))
        return
    print(_shown(f"{item.id}  {item.owner}  {item.why}{f'  {decision}' if decision else ''}"))
    print("  asked: " + _shown("\n".join(item.asked)).replace("\n", "\n         "))
    if item.answer is not None:
        print("  answer: " + _shown(item.answer).replace("\n", "\n          "))


def _shown(text: str) -> str:
    """A text with its control characters as escapes, but for line feeds: a terminal would obey them."""
    return re.sub(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", lambda found: f"\\x{ord(found[0]):02x}", text)
