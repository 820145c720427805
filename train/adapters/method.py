"""What a kind of adapters does: the leaves that it trains, and the parameters that a model reads with them."""

import dataclasses
import functools
import zlib
from fnmatch import fnmatchcase
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from data.errors import UserError
from train.adapters.options import LINEAR, BitFit, Tuning
from train.kinds import Path

FLOAT = jnp.float32


class Method:
    """The home of a kind of adapters, made of the option and the experiment. Subclasses say what differs.

    Trees: `base` is a model's frozen parameters; `trained` holds, at their places in the same tree, the leaves that are trained alone:
    those of adapters, and other parameters, which take the place of the base's.
    """

    mergeable = True
    """Whether `merged` gives parameters of the plain model."""

    def __init__(self, options: Tuning, experiment):
        self.options, self.experiment = options, experiment

    # What is trained

    def trains(self, path: Path) -> bool:
        """Whether a parameter of the model itself is trained."""
        return begins(path, self.options.trained)

    def fresh(self, key, boxed) -> dict[Path, Any]:
        """New leaves of adapters by their paths, boxed with logical axis names. boxed: all parameters of the plain model, flat."""
        return {}

    def begun(self, base, trained):
        """Fresh leaves as they begin on a base, where they depend on it."""
        return trained

    # What the model reads

    def read(self, base, trained, key=None):
        """What lies over the base in the tree that the model reads. key: of this step, for what is random in training."""
        return trained

    def joined(self, base, trained, key=None):
        """All parameters that the model reads."""
        return overlaid(base, self.read(base, trained, key))

    @functools.cached_property
    def compiled_read(self):
        """`read`, jitted once."""
        return jax.jit(self.read)

    def merged(self, base, trained):
        """The same model without adapters in its tree, as far as it is mergeable; kernels in float32."""
        return self.joined(base, trained)

    # What belongs to a step

    def optimizer(self, inner: optax.GradientTransformation, steps: int) -> optax.GradientTransformation:
        """The optimizer of `trained`, given that of any parameters, and how many updates there will be."""
        return inner

    def terms(self, trained) -> dict:
        """Terms to add to the loss."""
        return {}

    def metrics(self, opt_state) -> dict:
        """Metrics of the optimizer's state after a step."""
        return {}


class Biases(Method):
    """BitFit: the model's own biases, and nothing beside them."""

    options: BitFit

    def trains(self, path: Path) -> bool:
        return path[-1] == "bias" or path[-1].endswith("_bias") or super().trains(path)


def overlaid(base, over):
    """The tree `base` with the leaves of `over` in it."""
    if not isinstance(over, dict):
        return over
    found = dict(base) if isinstance(base, dict) else {}
    return found | {name: overlaid(found.get(name), value) for name, value in over.items()}


def begins(path: Path, patterns: tuple[str, ...]) -> bool:
    """Whether the first names of a path are as one of the patterns says, each name for itself: final_norm, layers/*_norm."""
    parts = [pattern.split("/") for pattern in patterns]
    return any(len(path) >= len(part) and all(map(fnmatchcase, path, part)) for part in parts)


def key_of(key, path: Path):
    """A key of the path's own."""
    return jax.random.fold_in(key, zlib.crc32("/".join(path).encode()) & 0x7FFFFFFF)


@dataclasses.dataclass(frozen=True)
class Projection:
    """A kernel as matrices: its path and sizes. stack: (layers,), or () outside of a stack."""

    path: Path
    stack: tuple[int, ...]
    inputs: int
    outputs: int
    names: tuple[Any, ...]
    """The logical names of the stack, of the inputs and of the outputs."""

    def normal(self, key, *shape: int, std: float):
        return std * jax.random.normal(key, (*self.stack, *shape), FLOAT)

    def box(self, value, *names):
        """Boxed with the names of the stack and these."""
        return nn.LogicallyPartitioned(value, (*self.names[: len(self.stack)], *names))


def projections(boxed: dict[Path, Any], targets: tuple[str, ...]) -> list[Projection]:
    """The kernels that patterns name, in a flat tree of boxed parameters. UserError for a pattern that names none."""
    found: dict[Path, Projection] = {}
    kernels = {path: box for path, box in boxed.items() if path[-1] == "kernel" and "experts" not in path}
    for target in targets:
        chosen = [path for path in kernels if _names(path[:-1], target)]
        if not chosen and target not in LINEAR:
            near = ", ".join(sorted({"/".join(path[-3:-1]) for path in kernels}))
            raise UserError(f"adapters.targets: no projection is named {target}", f"There are: {near}.")
        for path in chosen:
            box = kernels[path]
            shape, names = nn.unbox(box).shape, box.names
            stacked = int("layers" in path)
            first_output = stacked + (2 if path[-2] == "out" and len(shape) - stacked == 3 else 1)
            inputs, outputs = _size(shape[stacked:first_output]), _size(shape[first_output:])
            logical = (*names[:stacked], names[stacked], names[first_output])
            found[path] = Projection(path, shape[:stacked], inputs, outputs, logical)
    return [found[path] for path in sorted(found)]


def _names(path: Path, target: str) -> bool:
    """Whether the last names of a projection's path are as a pattern says."""
    parts = target.split("/")
    return len(path) >= len(parts) and all(fnmatchcase(*pair) for pair in zip(path[len(path) - len(parts) :], parts, strict=True))


def _size(shape) -> int:
    size = 1
    for one in shape:
        size *= one
    return size


def at(tree, name: str, change):
    """The tree with `change(dict)` in the place of each dict that stands under a name."""
    if not isinstance(tree, dict):
        return tree
    return {key: change(value) if key == name else at(value, name, change) for key, value in tree.items()}


def found_at(tree, name: str) -> dict[Path, dict]:
    """Every dict that stands under a name, by its path without that name."""
    flat = flatten_dict(tree)
    paths = {path[: path.index(name)] for path in flat if name in path}
    return {
        path: unflatten_dict({rest[len(path) + 1 :]: leaf for rest, leaf in flat.items() if rest[: len(path) + 1] == (*path, name)})
        for path in sorted(paths)
    }
