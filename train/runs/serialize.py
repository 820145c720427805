"""An experiment as JSON and back: plain values, with the class of each part as its `kind`."""

import dataclasses
import json
import math
import types
import typing
from collections.abc import Callable

from data.errors import UserError
from train.runs.classes import OLD_FIELDS, OLD_NAMES, OLD_VALUES, check_found, name_of, nearest

FORMAT = 2
"""1 had the names of classes without their modules; it is still read."""


def to_json(value):
    """Nested dicts, lists and plain values; every dataclass says its kind."""
    if dataclasses.is_dataclass(value):
        return {"kind": name_of(typing.cast(type, type(value)))} | {
            field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    return [to_json(item) for item in value] if isinstance(value, tuple) else value


def to_digest(value):
    """The same by names that never change, for digests: those of classes without their modules, and the first names of fields."""
    if dataclasses.is_dataclass(value):
        kind = typing.cast(type, type(value))
        first = {new: old for old, new in OLD_FIELDS.get(name_of(kind), {}).items()}
        fields = {first.get(field.name, field.name): to_digest(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"kind": kind.__name__} | fields
    return [to_digest(item) for item in value] if isinstance(value, tuple) else value


def parts_of(value) -> list[type]:
    """The classes of a dataclass and of all its parts."""
    if dataclasses.is_dataclass(value):
        inner = [kind for field in dataclasses.fields(value) for kind in parts_of(getattr(value, field.name))]
        return [typing.cast(type, type(value)), *inner]
    return [kind for item in value for kind in parts_of(item)] if isinstance(value, tuple) else []


def from_json(base: type, stored: dict, where: str, find: Callable[[str], type | None], said=print):
    """The dataclass that `to_json` wrote: of class `base` or a subclass of it, as `find` finds it by its name (`classes.finder`).

    Fields that the JSON lacks (a newer version added them) take their defaults, and a line is said; one that no class knows is an error.
    """
    if not isinstance(stored, dict):
        raise UserError(f"{where}: {stored!r} is no {base.__name__}", "It was written by another version of Omnia; use that one.")
    name = stored.get("kind")
    kind = find(name) if isinstance(name, str) else None
    if kind is None or not issubclass(kind, base) or not dataclasses.is_dataclass(kind):
        raise UserError(
            f"{where}: unknown kind {name!r}{nearest(str(name).rpartition(':')[2], OLD_NAMES)}",
            "Was it written by a newer version, or changed by hand?",
        )
    hints = typing.get_type_hints(kind)
    known = {field.name: field for field in dataclasses.fields(kind)}
    renamed = OLD_FIELDS.get(name_of(kind), {})
    changed = {renamed[field]: OLD_VALUES.get(renamed[field], {}).get(value, value) for field, value in stored.items() if field in renamed}
    stored = {field: value for field, value in stored.items() if field not in renamed} | changed
    for field in stored:
        if field != "kind" and field not in known:
            raise UserError(
                f"{where}.{field}: no such field in {kind.__name__}{nearest(field, known)}",
                "Remove it, or use the version of Omnia that wrote it.",
            )
    if new := [field for field in known if field not in stored]:
        said(f"{where}: {', '.join(new)} not stored by the version that wrote it: each takes its default")
    values = {}
    for field in (field for field in known if field in stored):
        hint, value = hints[field], stored[field]
        if dataclasses.is_dataclass(hint):
            values[field] = from_json(typing.cast(type, hint), value, f"{where}.{field}", find, said)
        elif typing.get_origin(hint) is tuple:
            item = typing.get_args(hint)[0]
            whole = dataclasses.is_dataclass(item)
            values[field] = tuple(
                from_json(typing.cast(type, item), one, f"{where}.{field}[{i}]", find, said) if whole else one
                for i, one in enumerate(value)
            )
        else:
            values[field] = value
    return kind(**values)


def check_storable(experiment) -> None:
    """UserError for an experiment that config.json cannot hold: of a class that no other process finds, or of a value that does not come
    back as it was."""
    kinds = parts_of(experiment)
    check_found(kinds)
    for kind in kinds:
        if "home" in {field.name for field in dataclasses.fields(kind)}:
            raise UserError(f"class {kind.__name__}: home is a field", 'Make it a class attribute: home: ClassVar[str] = ":name".')
    named = {name_of(kind): kind for kind in kinds}
    try:
        stored = json.loads(json.dumps(to_json(experiment)))
        back = from_json(type(experiment), stored, "experiment", named.get, lambda line: None)
    except (TypeError, ValueError, UserError) as error:
        raise UserError(f"config.json cannot hold it: {error}", STORABLE) from None
    if changed := _changed(experiment, back):
        raise UserError(f"config.json cannot hold {changed}", STORABLE)


def _changed(value, back, where: str = "") -> str:
    """The name of the first field that came back as something else, and as what; "" for none."""
    if dataclasses.is_dataclass(value) and type(value) is type(back):
        fields = ((f"{where}.{field.name}".lstrip("."), field.name) for field in dataclasses.fields(value))
        return next((found for name, field in fields if (found := _changed(getattr(value, field), getattr(back, field), name))), "")
    return "" if value == back and type(value) is type(back) else f"{where}: {value!r} comes back as {back!r}"


STORABLE = "Fields may be numbers, texts, booleans, tuples of one of these, dataclasses and tuples of dataclasses."


def flatten(stored: dict, prefix: str = "") -> dict:
    """{"model.embed_dim": 128, ...} from nested dicts."""
    flat = {}
    for name, value in stored.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def check_types(value, where: str = "") -> None:
    """UserError for the first value in a dataclass, or in one of its parts, that is not of its field's type. Numbers have to be finite.

    Python does not ask, and what a config file gives by mistake would be found out in the middle of a run: a text where several are meant
    is taken letter by letter, and "no" is true.
    """
    hints = typing.get_type_hints(type(value))
    for field in dataclasses.fields(value):
        name = f"{where}.{field.name}" if where else field.name
        one = getattr(value, field.name)
        if not _is_of(one, hints[field.name]):
            raise UserError(f"{name} is {one!r}", f"It has to be {_said(hints[field.name])}.")
        for number, item in enumerate(one) if isinstance(one, tuple) else [("", one)]:
            if dataclasses.is_dataclass(item) and not isinstance(item, type):
                check_types(item, f"{name}.{number}" if number != "" else name)


def _is_of(value, hint) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return value in arguments
    if origin in (typing.Union, types.UnionType):
        return any(_is_of(value, one) for one in arguments)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        each = arguments[:1] * len(value) if arguments[1:] == (...,) else arguments
        return len(each) == len(value) and all(_is_of(one, kind) for one, kind in zip(value, each, strict=True))
    if hint is float:
        return isinstance(value, float | int) and not isinstance(value, bool) and math.isfinite(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint) if isinstance(hint, type) else True


def _said(hint) -> str:
    """A type in words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    plain = {int: "a whole number", float: "a finite number", str: "text in quotes", bool: "True or False", type(None): "None"}
    if origin is typing.Literal:
        return " or ".join(map(repr, arguments))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_said, arguments))
    if origin is tuple:
        each = f"for each: {_said(arguments[0])}" if arguments[1:] == (...,) else ", ".join(map(_said, arguments))
        return f"a tuple, in which commas stand even behind a single value, as in (1,) ({each})"
    return plain.get(hint) or f"of the class {hint.__name__}, or of one made from it"
