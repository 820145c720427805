"""Terms of low rank of published models, as PEFT names and lays them: lora_A [rank, inputs] and lora_B [outputs, rank] of a tensor.

Where a tensor of theirs holds several projections side by side, their terms stand side by side in one of as many times the rank.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from model.convert.family import Tensor, sides

RANK = "r"
"""The letter of the rank, in axes."""


def factors_of(tensor: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """How lora_A, lora_B and a vector over outputs, such as a magnitude, are laid here, given how the matrix is."""
    left, right = sides(tensor.axes)
    joint = [] if isinstance(tensor.ours, str) else right[:1]
    own = right[len(joint) :]
    count = 2 if tensor.paths[0].split("/")[-2] == "out" and len(own) == 3 else 1
    inputs, outputs = own[:count], joint + own[count:]
    letters = {letter for group in inputs for letter in group}
    into = next(group for group in left if set(group) <= letters)
    out = next(group for group in left if group is not into)
    return (
        dataclasses.replace(tensor, ours="a", axes=f"{RANK} {_said([into])} -> {_said(inputs)} {RANK}"),
        dataclasses.replace(tensor, axes=f"{_said([out])} {RANK} -> {_said([*joint, [RANK], *own[count:]])}"),
        dataclasses.replace(tensor, axes=f"{_said([out])} -> {_said(outputs)}"),
    )


def to_theirs(tensor: Tensor, a: Sequence[np.ndarray], b: Sequence[np.ndarray], sizes: Mapping[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """lora_A and lora_B of a tensor, given a [inputs, rank] and b [rank, outputs] of each of its projections."""
    first, second, _ = factors_of(tensor)
    ranks = [part.shape[1] for part in a]
    ends = np.cumsum([0, *ranks])
    apart = [np.zeros((ends[-1], part.shape[1]), np.float32) for part in b]
    for whole, part, begin, end in zip(apart, b, ends, ends[1:], strict=False):
        whole[begin:end] = part
    sizes = {**sizes, RANK: int(ends[-1])}
    return first.to_theirs([np.concatenate(a, 1)], sizes), second.to_theirs(apart, sizes)


def to_ours(tensor: Tensor, a: np.ndarray, b: np.ndarray, sizes: Mapping[str, int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """The reverse: (a [inputs, rank], b [rank, outputs]) of each projection. ValueError for other shapes.

    Terms that stand side by side, as `to_theirs` puts them, come apart again; others have the whole rank in each projection.
    """
    first, second, _ = factors_of(tensor)
    rank = a.shape[0]
    shapes = tensor.shape(sizes)
    if b.shape[1:] != (rank,) or sorted((a.shape[1], b.shape[0])) != sorted(shapes):
        raise ValueError(f"is {tuple(b.shape)} times {tuple(a.shape)}, and the model's tensor {shapes}")
    sizes = {**sizes, RANK: rank}
    (into,) = first.to_ours(a, sizes)
    found = [(into.reshape(-1, rank), part.reshape(rank, -1)) for part in second.to_ours(b, sizes)]
    own = rank // len(found)
    inside = [np.abs(part[i * own : (i + 1) * own]).sum() for i, (_, part) in enumerate(found)]
    apart = rank == own * len(found) and sum(inside) > 0 and np.allclose(inside, [np.abs(part).sum() for _, part in found])
    return [(a[:, i * own : (i + 1) * own], b[i * own : (i + 1) * own]) for i, (a, b) in enumerate(found)] if apart else found


def _said(groups: Sequence[Sequence[str]]) -> str:
    return " ".join(group[0] if len(group) == 1 else f"({' '.join(group)})" for group in groups)
