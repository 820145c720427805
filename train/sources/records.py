"""Records that people give to learn from: the conversations in them, and comparisons of responses.

Every value is what it is said to be, or refused with its file and line: nothing becomes text that was none.
"""

import difflib
import math
from collections.abc import Collection, Sequence
from typing import Any

from data.errors import UserError
from data.files.json_files import kind_of
from data.records.record import Record, check_text, is_number, lacks
from data.records.rows import read_records

ROLES = {"user": "spare_0", "assistant": "spare_1", "system": "spare_2", "tool": "spare_3"}
"""The special ids that begin a turn of a conversation; it ends with that of a document's end."""
COMPARED = ("prompt", "responses", "best", "scores", "noise", "chosen", "rejected")
"""The fields of a comparison."""
_COMPARISON = 'Give {"prompt", "chosen", "rejected"}, or {"prompt", "responses"} with "best", which counts from 0, or "scores".'
_LARGEST = 1e18
"""A score, at most: its square has to be a float32 too."""

Turns = tuple[tuple[str, str], ...]
"""(role, text) of each turn of a conversation."""


def unused(records: Sequence[dict], known: Collection[str]) -> list[str]:
    """The fields of records that are not among the known ones, and those of turns of conversations, each once."""
    fields = {name: None for record in records for name in record if name not in known}
    turns = (turn for record in records for name in known if isinstance(record.get(name), list) for turn in record[name])
    return [*fields, *{f"{name} of a turn": None for turn in turns if isinstance(turn, dict) for name in turn if name not in _TURN}]


# ------------------------------------------------------------------------------------------------------------ conversations

_TURN = ("role", "content")


def turns_of(value: Any, what: str) -> Turns:
    """The turns of a conversation, a list of {"role", "content"}; UserError, with `what` it is, for anything else."""

    def wrong(why: str) -> UserError:
        return UserError(f"{what} is not a conversation: {why}", f'Give a list of {{"role", "content"}}, roles being {", ".join(ROLES)}.')

    if not isinstance(value, list) or not value:
        raise wrong("an empty list" if value == [] else kind_of(value))
    for number, turn in enumerate(value, 1):
        if not isinstance(turn, dict):
            raise wrong(f"turn {number} is {kind_of(turn)}")
        role = turn.get("role")
        if not isinstance(role, str) or role not in ROLES:
            raise wrong(f"turn {number} has " + (f"the role {role!r}" if "role" in turn else "no role"))
        check_text(turn.get("content"), f"{what}: the content of turn {number}")
    return tuple((turn["role"], turn["content"]) for turn in value)


def answered_turns(value: Any, what: str) -> tuple[Turns, str]:
    """The turns of a conversation before the last one, and the text of that, which must be the assistant's."""
    *turns, (role, response) = turns_of(value, what)
    if role != "assistant":
        raise UserError(f"{what} is not a conversation with an answer: the last turn is the {role}'s", "End it with the assistant's turn.")
    return tuple(turns), response


def check_asks(turns: Turns, what: str) -> Turns:
    """The turns, which must be something to answer."""
    if not turns or turns[-1][0] == "assistant":
        why = "the assistant has the last word" if turns else "there is nothing before the answer"
        raise UserError(f"{what} is not a conversation to answer: {why}", "Put a turn of the user, system or tool before the answer.")
    return turns


def shown(turns: Turns) -> str:
    """What people see of a conversation."""
    return "\n".join(text for _, text in turns)


def messages_of(turns: Turns) -> list[dict[str, str]]:
    """The list that `turns_of` reads these turns from."""
    return [{"role": role, "content": text} for role, text in turns]


def prompt_of(value: Any, what: str) -> tuple[str, Turns]:
    """The text of a prompt, and its turns where it is a conversation rather than a text."""
    if not isinstance(value, list):
        return check_text(value, what), ()
    turns = check_asks(turns_of(value, what), what)
    return shown(turns), turns


# -------------------------------------------------------------------------------------------------------------- comparisons


def read_comparisons(path: str, *, by_score: bool = False) -> list[dict[str, Any]]:
    """The comparisons of a file, as `comparisons_of` its records gives them."""
    return comparisons_of(path, read_records(path), by_score=by_score)


def comparisons_of(path: str, records: Sequence[Record], *, by_score: bool = False) -> list[dict[str, Any]]:
    """{"prompt", "messages", "responses", "best", "scores", "where"} of each record that compares something.

    A record is {"prompt", "responses"} with "best", "scores" or both; {"prompt", "chosen", "rejected"}; or {"chosen", "rejected"}, whole
    texts with a common beginning (as in Anthropic's hh-rlhf) or conversations that differ in their last turn. A prompt is text, or a
    conversation, a list of {"role", "content"}: `messages` are then its turns. Without "best", the highest score is; responses that share
    it are left out but for the first, since their order says nothing. With `by_score` they stay: what is learned from is every score.
    Comparisons of equal responses, or of equal scores, are left out whole. Scores are NaN where a record has none.

    UserError with file and line for anything else: values of other types, a best response that has not the highest score (unless "noise"
    is above 0, as `omnia label` writes where it drew the best one by chance), and fields whose names come near to one that is missing.
    """
    found = []
    for record in records:
        _check_names(record)
        given = {name: value for name, value in record.items() if value is not None}
        text, turns, responses = _pair(record, given) if {"chosen", "rejected"} & given.keys() else _choice(record, given)
        scores, best, kept = _scores_and_best(record, given, len(responses), by_score)
        if len({responses[k] for k in kept}) > 1:
            row = {"responses": [responses[k] for k in kept], "scores": [scores[k] for k in kept]}
            found.append({"prompt": text, "messages": turns, "best": kept.index(best), "where": record.where} | row)
    if not found:
        raise UserError(f"{path}: all comparisons are of equal responses, or of equal scores", "Give responses that differ.")
    return found


def _no_comparison(record: Record, why: str) -> UserError:
    return UserError(f"{record.where}: is not a comparison: {why}", _COMPARISON)


def _check_names(record: Record) -> None:
    """UserError for a name that is nearly one that the record lacks."""
    missing = [name for name in COMPARED if name not in record]
    for field in record:
        if field not in COMPARED and (near := difflib.get_close_matches(field.strip().casefold(), missing, 1, cutoff=0.85)):
            raise UserError(
                f"{record.where}: is not a comparison: it has a field {field!r} (did you mean {near[0]!r}?)",
                "Rename the field, or drop it.",
            )


def _choice(record: Record, given: dict) -> tuple[str, Turns, list[str]]:
    """The prompt, as text and as turns, and the responses of a record that lists them."""
    for name in ("prompt", "responses"):
        if name not in given:
            raise lacks(record, name, "is not a comparison: ")
    responses = given["responses"]
    if not isinstance(responses, list) or len(responses) < 2:
        raise _no_comparison(record, "responses is no list of two or more")
    texts = [check_text(response, f"{record.where}: response {number}") for number, response in enumerate(responses)]
    return *prompt_of(given["prompt"], f"{record.where}: prompt"), texts


def _pair(record: Record, given: dict) -> tuple[str, Turns, list[str]]:
    """The same of a record of a chosen and a rejected response."""
    for name in ("chosen", "rejected"):
        if name not in given:
            raise lacks(record, name, "is not a comparison: ")
    for name in ("best", "responses"):
        if name in given:
            raise _no_comparison(record, f"{name} stands beside chosen and rejected, which say the same or something else")
    prompt, sides = given.get("prompt"), [given["chosen"], given["rejected"]]
    if any(isinstance(side, list) for side in sides):
        return _pair_of_conversations(record, prompt, *sides)
    texts = [check_text(side, f"{record.where}: {name}") for name, side in zip(("chosen", "rejected"), sides, strict=True)]
    if prompt is not None:
        return *prompt_of(prompt, f"{record.where}: prompt"), texts
    shared = common_beginning(*texts)
    return texts[0][:shared], (), [text[shared:] for text in texts]


def _pair_of_conversations(record: Record, prompt: Any, chosen: Any, rejected: Any) -> tuple[str, Turns, list[str]]:
    """The turns before the last are the prompt, or its end, or a field `prompt` is."""
    before, a = answered_turns(chosen, f"{record.where}: chosen")
    other, b = answered_turns(rejected, f"{record.where}: rejected")
    if before != other:
        raise _no_comparison(record, "chosen and rejected differ before their last turns")
    if prompt is not None:
        text, turns = prompt_of(prompt, f"{record.where}: prompt")
        turns = turns or (("user", text),)
        if before and before[-len(turns) :] != turns:
            raise _no_comparison(record, "chosen does not begin with prompt")
        before = before or turns
    check_asks(before, f"{record.where}: chosen")
    return shown(before), before, [a, b]


def _scores_and_best(record: Record, given: dict, count: int, by_score: bool) -> tuple[list[float], int, list[int]]:
    """The scores, NaN where there are none, which response is best, and those that are compared."""
    scores, noise = given.get("scores"), given.get("noise", 0)
    best = 0 if "chosen" in given else given.get("best")
    if not is_number(noise) or noise < 0:
        raise _no_comparison(record, f"noise is {str(noise)[:40]}, not a number of 0 or more")
    if best is not None and (not isinstance(best, int) or isinstance(best, bool) or not 0 <= best < count):
        raise _no_comparison(record, f"best is {repr(best)[:40]}, not a whole number from 0 to {count - 1}")
    if scores is None:
        if best is None:
            raise _no_comparison(record, "neither best nor scores say which response is")
        return [math.nan] * count, best, [*range(count)]
    if not isinstance(scores, list) or len(scores) != count or not all(is_number(x) and abs(x) <= _LARGEST for x in scores):
        raise UserError(f"{record.where}: scores {str(scores)[:40]} are not one number for each response", "Correct or drop them.")
    highest = max(scores)
    if best is None:
        best = scores.index(highest)
        kept = [k for k in range(count) if by_score or k == best or scores[k] < highest]
        return [float(score) for score in scores], best, kept
    if scores[best] < highest and not noise:
        named = "chosen" if "chosen" in given else f"best {best}"
        raise UserError(
            f"{record.where}: {named} has the score {scores[best]}, and another response {highest}",
            'Drop one of the two, or say "noise" above 0 where the best was sampled by chance.',
        )
    return [float(score) for score in scores], best, [*range(count)]


def common_beginning(a: str, b: str) -> int:
    """Where two texts part, moved back to the start of the line, which a turn of a conversation begins."""
    shared = next((place for place, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    marker = a.rfind("\n\nAssistant:", 0, shared)
    return marker + len("\n\nAssistant:") if marker >= 0 else a.rfind("\n", 0, shared) + 1
