"""An experiment as JSON and back: plain values, with the class of each part as its `kind`."""

import dataclasses
import difflib
import typing

from data.errors import UserError

FORMAT = 1


def to_json(value):
    """Nested dicts, lists and plain values; every dataclass says its kind."""
    if dataclasses.is_dataclass(value):
        fields = {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"kind": type(value).__name__} | fields
    return [to_json(item) for item in value] if isinstance(value, tuple) else value


def from_json(base: type, stored: dict, where: str, said=print):
    """The dataclass that `to_json` wrote: of class `base` or a subclass of it.

    A field that the JSON lacks (a newer version added it) takes its default, and a line is said; one that no class knows is an error.
    """
    kinds = {kind.__name__: kind for kind in _family(base)}
    if not isinstance(stored, dict):
        raise UserError(f"{where}: {stored!r} is no {base.__name__}", "It was written by another version of Omnia; use that one.")
    name = stored.get("kind")
    if name not in kinds:
        raise UserError(
            f"{where}: unknown kind {name!r}{_nearest(str(name), kinds)}",
            f"Known kinds: {', '.join(kinds)}. Was it written by a newer version?",
        )
    kind = kinds[name]
    hints = typing.get_type_hints(kind)
    known = {field.name: field for field in dataclasses.fields(kind)}
    for field in stored:
        if field != "kind" and field not in known:
            raise UserError(
                f"{where}.{field}: no such field in {name}{_nearest(field, known)}", "Remove it, or use the version of Omnia that wrote it."
            )
    values = {}
    for field in known:
        if field not in stored:
            said(f"{where}.{field}: not stored by the version that wrote it; it takes its default")
            continue
        hint, value = hints[field], stored[field]
        if dataclasses.is_dataclass(hint):
            values[field] = from_json(typing.cast(type, hint), value, f"{where}.{field}", said)
        elif typing.get_origin(hint) is tuple:
            item = typing.get_args(hint)[0]
            whole = dataclasses.is_dataclass(item)
            values[field] = tuple(
                from_json(typing.cast(type, item), one, f"{where}.{field}[{i}]", said) if whole else one for i, one in enumerate(value)
            )
        else:
            values[field] = value
    return kind(**values)


def flatten(stored: dict, prefix: str = "") -> dict:
    """{"model.embed_dim": 128, ...} from nested dicts."""
    flat = {}
    for name, value in stored.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def _family(base: type) -> list[type]:
    return [base] + [kind for child in base.__subclasses__() for kind in _family(child)]


def _nearest(name: str, known) -> str:
    close = difflib.get_close_matches(name, list(known), 1)
    return f" (did you mean {close[0]!r}?)" if close else ""
