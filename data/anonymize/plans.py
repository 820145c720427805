"""What the plan and the manifest of an anonymised preparation say, and the key of its repair."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from data.anonymize.surrogates import Key
from data.errors import UserError

OPTION = "--anonymize"


def read_key(path: str) -> Key | None:
    """The key in the file that the option names; None for none."""
    return Key.read(path, OPTION) if path else None


def planned(key: Key | None, rules: int | str) -> dict[str, Any]:
    """What a plan says beside its options. rules: their version."""
    return {} if key is None else {"anonymized": {"key": key.fingerprint, "rules": rules}}


def counted(plan: dict[str, Any], counts: Iterable[Mapping[str, int]]) -> dict[str, Any]:
    """What a manifest says. counts: of tasks, by kind."""
    if "anonymized" not in plan:
        return {}
    replaced = sum(map(Counter, counts), Counter[str]())
    return {"anonymized": {**plan["anonymized"], "replaced": dict(sorted(replaced.items()))}}


def told(manifest: dict[str, Any]) -> str:
    """A line of the summary; "" where nothing was anonymised."""
    if "anonymized" not in manifest:
        return ""
    replaced = ", ".join(f"{count:,} {kind}" for kind, count in manifest["anonymized"]["replaced"].items())
    return f"  anonymised: {replaced or 'nothing was found'}"


def repairing_key(folder: str, path: str, plan: dict[str, Any], rules: int | str) -> Key | None:
    """The key that a corpus was anonymised with; None for one that was not. path: of the key, "" for none. UserError for another."""
    was = plan.get("anonymized")
    if not was:
        if path:
            raise UserError(f"{folder}: was not anonymised; {OPTION} would have no effect.", "Leave it out.")
        return None
    key = read_key(path)
    if key is None:
        raise UserError(f"{folder}: was anonymised, and is made again with the same key alone.", f"Give its file: {OPTION} FILE.")
    if key.fingerprint != was["key"]:
        raise UserError(f"{OPTION} {path}: is not the key of {folder} ({key.fingerprint}, not {was['key']}).", "Give the file of that one.")
    if was["rules"] != rules:
        raise UserError(
            f"{folder}: was anonymised by rules of version {was['rules']}; here they are of version {rules}.",
            "Prepare the corpus again with its inputs and --overwrite.",
        )
    return key
