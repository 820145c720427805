"""What goes between a server and its clients: MessagePack of plain values and arrays, checked before anything is made of it."""

from collections.abc import Mapping
from typing import Any

import msgpack
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from data.errors import UserError

TYPES = ("float32", "uint32")
"""Of arrays."""
Arrays = dict[str, np.ndarray]
"""Parameters, or changes of them, by the paths of their leaves joined by slashes."""


class Malformed(UserError):
    """A message that says something else than it should, and is not used."""


def packed(message: Mapping[str, Any]) -> bytes:
    """A message as bytes."""
    return msgpack.packb(dict(message), default=_of_array, use_bin_type=True)


def unpacked(content: bytes) -> dict[str, Any]:
    """The message in bytes; Malformed for others. Arrays are read only."""
    try:
        found = msgpack.unpackb(content, ext_hook=_array, raw=False, strict_map_key=True)
    except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
        raise Malformed(f"no message of the federation: {error}") from None
    if not isinstance(found, dict):
        raise Malformed("no message of the federation: it is no map")
    return found


ARRAY = 1
PROTOCOL = 2
"""Of what a server and its clients ask one another."""
"""MessagePack's number of our arrays: a header with type and shape, then the numbers, the lowest byte first."""


def _of_array(value: Any) -> msgpack.ExtType:
    if not isinstance(value, np.ndarray) or value.dtype.name not in TYPES:
        raise TypeError(f"{type(value).__name__} cannot be sent")
    header = msgpack.packb([value.dtype.name, list(value.shape)])
    return msgpack.ExtType(ARRAY, header + np.ascontiguousarray(value).astype(value.dtype.newbyteorder("<")).tobytes())


def _array(code: int, content: bytes) -> np.ndarray:
    if code != ARRAY:
        raise ValueError(f"extension {code}")
    unpacker = msgpack.Unpacker()
    unpacker.feed(content[:512])
    name, shape = unpacker.unpack()
    if name not in TYPES or not all(isinstance(size, int) and size >= 0 for size in shape):
        raise ValueError("an array of another type or shape")
    numbers = np.frombuffer(content, np.dtype(name).newbyteorder("<"), offset=unpacker.tell())
    return numbers.reshape(shape)


def shapes_of(tree: Any) -> dict[str, tuple[int, ...]]:
    """The shapes of a tree of parameters, or of what stands for them, by name."""
    return {"/".join(path): tuple(leaf.shape) for path, leaf in flatten_dict(tree).items()}


def flat(tree: Any) -> Arrays:
    """A tree of parameters as float32 arrays by name."""
    return {"/".join(path): np.asarray(leaf, np.float32) for path, leaf in flatten_dict(tree).items()}


def tree_of(arrays: Arrays) -> Any:
    """The reverse of `flat`."""
    return unflatten_dict({tuple(name.split("/")): value for name, value in arrays.items()})


def checked(arrays: Any, like: Mapping[str, tuple[int, ...]], what: str) -> Arrays:
    """Arrays of these names and shapes, float32 and finite; Malformed for anything else."""
    if not isinstance(arrays, dict) or {*arrays} != {*like}:
        raise Malformed(f"{what}: has other names than the parameters")
    for name, shape in like.items():
        value = arrays[name]
        if not isinstance(value, np.ndarray) or value.dtype != np.float32 or value.shape != shape:
            raise Malformed(f"{what}: {name} is no float32 array of shape {list(shape)}")
        if not np.isfinite(value).all():
            raise Malformed(f"{what}: {name} is not finite")
    return arrays


def number(message: Mapping[str, Any], name: str, low: float, high: float) -> float:
    """A field that is a number from low to high; Malformed for anything else."""
    value = message.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
        raise Malformed(f"{name} is no number from {low:g} to {high:g}")
    return float(value)
