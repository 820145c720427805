"""Option classes of ours, found in the code, so that tests of all kinds of data have new ones among them."""

import dataclasses
import functools
import importlib
import typing
from collections.abc import Iterator

from train.kinds import Data
from train.verbs.reference import Source

NEEDED = {"lexicon": {"words": True}}
"""What else a field needs that is given."""


def made_from(kind: type) -> Iterator[type]:
    """The class and everything that derives from it."""
    yield kind
    for one in kind.__subclasses__():
        yield from made_from(one)


@functools.cache
def kinds_of_data() -> tuple[type[Data], ...]:
    source = Source()
    for name in ("Data", "Environment", "Reward"):
        top = source.of_experiment(name)
        assert top is not None
        for one in source.kinds(top):
            importlib.import_module(one.path.removesuffix(".py").replace("/", "."))
    return tuple(sorted((kind for kind in set(made_from(Data)) if kind.__module__.startswith("train.")), key=lambda kind: kind.__name__))


def classes_in(kind: type) -> set[type]:
    """Of the options that a field of a class may hold, and of those in them, the class itself too."""
    found: set[type] = set()
    waiting = [kind]
    while waiting:
        one = waiting.pop()
        if typing.get_args(one):
            waiting += typing.get_args(one)
        elif isinstance(one, type) and dataclasses.is_dataclass(one) and one not in found:
            found.add(one)
            waiting += [hint for other in made_from(one) for hint in typing.get_type_hints(other).values()]
            waiting += one.__subclasses__()
    return found


def naming(option, path: str):
    """An option whose path_fields all name a path, as do those of the options inside it. A field that it refuses names nothing."""

    def inside(value):
        if type(value) is tuple:
            return tuple(map(inside, value))
        return naming(value, path) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value

    hints = typing.get_type_hints(type(option))
    option = dataclasses.replace(option, **{field.name: inside(getattr(option, field.name)) for field in dataclasses.fields(option)})
    for name in (name for name in getattr(option, "path_fields", ()) if name in hints and hasattr(option, name)):
        given = path if hints[name] is str else (path,)
        try:
            option = dataclasses.replace(option, **{name: given}, **NEEDED.get(name, {}))
        except ValueError:
            assert (type(option).__name__, name) == ("TextLanes", "lexicon")
    return option
