"""Parts of a tree of parameters, by the path at which they stand."""

from typing import Any

from train.kinds import Path


def get(params, path: Path) -> Any:
    """What stands there; None where nothing does."""
    for name in path:
        if name not in params:
            return None
        params = params[name]
    return params


def put(params, path: Path, part):
    """The parameters with `part` at that path, which is made where it is missing."""
    name, *rest = path
    return dict(params) | {name: put(params.get(name, {}), tuple(rest), part) if rest else part}


def without(params, path: Path):
    """The parameters but for what stands there, and for what then holds nothing."""
    name, *rest = path
    left = without(params[name], tuple(rest)) if rest and name in params else {}
    return {key: value for key, value in params.items() if key != name} | ({name: left} if left else {})
