"""What a compiled program does, counted from XLA's optimized text: FLOPs of products, bytes of memory, collectives.

XLA's own cost analysis counts the body of a loop once, however often it runs, and nothing of what happens between devices. Here every
computation is walked from the entry, bodies of loops times their trip counts. The text of a scheduled module is in the order of its
execution, so `read` gives what a device does, one operation after the other, and train/planning/roofline.py can replay it.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

import numpy as np

ITEM_BITS = {"pred": 8, "s2": 2, "u2": 2, "s4": 4, "u4": 4, "bf16": 16, "token": 0, "opaque": 0}
"""Bits of an element, of the types whose name does not end in them (f32, s64, f8e4m3fn)."""

COLLECTIVES = {
    *("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "ragged-all-to-all"),
    *("collective-permute", "collective-broadcast"),
}
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id", "iota", "opt-barrier"}
_TRANSPARENT = {"bitcast", "reshape", "copy", "convert", "transpose"}
"""Within a fusion these only pass an array on, as far as the memory outside of it is concerned."""


@dataclasses.dataclass(frozen=True)
class Array:
    """Type, dimensions and memory space (0 is the device's main memory) of an array in the text."""

    dtype: str
    shape: tuple[int, ...]
    space: int = 0

    @property
    def bytes(self) -> float:
        found = re.match(r"[a-z]+(\d+)", self.dtype)
        bits = ITEM_BITS.get(self.dtype) or (int(found[1]) if found else 0)
        return math.prod(self.shape) * bits / 8


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of the text. `attributes` is what stands behind the operands, as it is."""

    name: str
    arrays: tuple[Array, ...]
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    root: bool
    inside: str = ""
    """What stands between the parentheses, as it is: the value of a constant, the number of a parameter."""

    def called(self, role: str = "calls|to_apply|called_computations|body|condition|branch_computations") -> list[str]:
        """Names of computations that the line refers to."""
        found = re.findall(rf"\b(?:{role})=(?:\{{([^}}]*)\}}|%?([\w.\-]+))", self.attributes)
        return [name.strip().lstrip("%") for many, one in found for name in (many.split(",") if many else [one])]


@dataclasses.dataclass(frozen=True)
class Collective:
    """An exchange between devices, as one device sees it.

    bytes: of its operands. groups: numbers of devices that exchange with each other (for a permutation: pairs of source and target);
    a number is a place in the mesh, flattened. asynchronous: it has a start and an end, and other work can go on between them.
    """

    kind: str
    bytes: float
    groups: tuple[tuple[int, ...], ...]
    asynchronous: bool
    name: str = ""


@dataclasses.dataclass(frozen=True)
class Operation:
    """One step of what a device does, or a loop of them.

    flops: of matrix products and convolutions, a multiply-add being two. bytes: read from and written to main memory.
    kernel: name of a custom call whose insides XLA does not know. trips and body: of a loop. start: this only starts what `name` says;
    end: this waits for what was started by that name.
    """

    name: str
    opcode: str
    flops: float = 0.0
    bytes: float = 0.0
    collectives: tuple[Collective, ...] = ()
    kernel: str = ""
    operands: tuple[Array, ...] = ()
    trips: int = 1
    body: tuple["Operation", ...] = ()
    start: bool = False
    end: str = ""


@dataclasses.dataclass(frozen=True)
class Program:
    """All operations of the entry, and what could not be read: loops whose trip count is not known, counted once."""

    operations: tuple[Operation, ...]
    unknown_loops: tuple[str, ...]


def read(text: str) -> Program:
    """The program of an optimized module's text (`compiled.as_text()`)."""
    reader = _Reader(*parse(text))
    return Program(reader.operations(reader.entry), tuple(dict.fromkeys(reader.unknown)))


def walk(operations: tuple[Operation, ...], times: int = 1) -> Iterator[tuple[Operation, int]]:
    """Every operation that is no loop, with how often it runs."""
    for operation in operations:
        if operation.body:
            yield from walk(operation.body, times * operation.trips)
        else:
            yield operation, times


# ------------------------------------------------------------------------------------------------------------------- the text

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) (?:\(.*\) -> .* )?\{\s*$")
_LINE = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,<=]*)\](\{[^{}]*\})?")


def parse(text: str) -> tuple[dict[str, dict[str, Instruction]], str]:
    """Computations by name, each its instructions by name and in order; and the name of the entry."""
    computations: dict[str, dict[str, Instruction]] = {}
    entry = ""
    current: dict[str, Instruction] = {}
    for line in re.sub(r"/\*.*?\*/", "", text).splitlines():
        if found := _LINE.match(line):
            instruction = _instruction(found[2], found[3], bool(found[1]))
            current[instruction.name] = instruction
        elif (found := _HEADER.match(line)) and not line.startswith("HloModule"):
            current = computations.setdefault(found[2], {})
            entry = found[2] if found[1] else entry
    return computations, entry


def _instruction(name: str, rest: str, root: bool) -> Instruction:
    shape, rest = _until_space(rest)
    opcode, _, rest = rest.partition("(")
    inside, attributes = _balanced(rest)
    operands = tuple(re.findall(r"%([\w.\-]+)", inside)) or tuple(part.strip().split(" ")[-1] for part in inside.split(",") if part.strip())
    return Instruction(name, arrays(shape), opcode.strip(), operands, attributes, root, inside)


def _until_space(text: str) -> tuple[str, str]:
    """A shape, and what follows it; a tuple's shape has spaces within parentheses."""
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter in "({[") - (letter in ")}]")
        if letter == " " and depth == 0:
            return text[:place], text[place + 1 :]
    return text, ""


def _balanced(text: str) -> tuple[str, str]:
    """What stands before the parenthesis that closes the one before `text`, and what follows it."""
    depth = 1
    for found in re.finditer(r"[()]", text):
        depth += 1 if found[0] == "(" else -1
        if depth == 0:
            return text[: found.start()], text[found.end() :]
    return text, ""


def arrays(shape: str) -> tuple[Array, ...]:
    """The arrays of a shape, a tuple's one after the other."""
    found = []
    for dtype, sizes, layout in _ARRAY.findall(shape):
        space = re.search(r"S\((\d+)\)", layout)
        found.append(Array(dtype, tuple(int(size.lstrip("<=")) for size in sizes.split(",") if size), int(space[1]) if space else 0))
    return tuple(found)


def groups_of(instruction: Instruction) -> tuple[tuple[int, ...], ...]:
    """replica_groups (a list, a reshaped and transposed iota, or axes of a mesh) or source_target_pairs; () means all devices."""
    text = instruction.attributes
    if found := re.search(r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? \{([^}]*)\}", text):
        return _mesh(found[1], found[2] or "", found[3] or "", found[4])
    if found := re.search(r"source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}", text):
        return _lists(found[1])
    if found := re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text):
        return _iota(found[1], found[2], found[3] or "")
    if found := re.search(r"replica_groups=\{((?:\{[\d,]*\},?)*)\}", text):
        return _lists(found[1])
    return ()


@functools.lru_cache(maxsize=256)
def _lists(text: str) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(map(int, group.split(","))) for group in re.findall(r"\{([\d,]+)\}", text))


@functools.lru_cache(maxsize=256)
def _iota(shape: str, source: str, order: str) -> tuple[tuple[int, ...], ...]:
    def sizes(text):
        return [int(part) for part in text.split(",")]

    ids = np.arange(math.prod(sizes(source))).reshape(sizes(source))
    ids = ids.transpose(sizes(order)) if order else ids
    return tuple(map(tuple, ids.reshape(sizes(shape)).tolist()))


@functools.lru_cache(maxsize=256)
def _mesh(axes: str, source: str, order: str, chosen: str) -> tuple[tuple[int, ...], ...]:
    """Groups along some axes of a mesh of devices: `'a'=64,'b'=8` and `'a'`, or `'a':(2)4` for a part of an axis."""
    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", axes)}
    ids = np.arange(math.prod(sizes.values()))
    if source:
        ids = ids.reshape([int(part) for part in source.split(",")])
        ids = ids.transpose([int(part) for part in order.split(",")]) if order else ids
    shape, along = [], []
    wanted = re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", chosen)
    for name, size in sizes.items():
        # Of an axis in parts, each part is (what lies before it) and its size.
        parts = [(int(before or 1), int(part or size)) for axis, before, part in wanted if axis == name]
        cuts = sorted({1, size, *(cut for before, part in parts for cut in (before, before * part))})
        for low, high in zip(cuts, cuts[1:], strict=False):
            if any(before <= low < before * part for before, part in parts):
                along.append(len(shape))
            shape.append(high // low)
    ids = np.moveaxis(ids.reshape(shape), along, range(len(shape) - len(along), len(shape)))
    return tuple(map(tuple, ids.reshape(-1, math.prod(shape[axis] for axis in along)).tolist()))


# -------------------------------------------------------------------------------------------------------------- what it does


class _Reader:
    def __init__(self, computations: dict[str, dict[str, Instruction]], entry: str):
        self.computations, self.entry, self.unknown = computations, entry, []

    def operations(self, name: str) -> tuple[Operation, ...]:
        """What a computation does, in order; calls and branches are unrolled into it."""
        found: list[Operation] = []
        computation = self.computations[name]
        for instruction in computation.values():
            if instruction.opcode in _FREE:
                continue
            if instruction.opcode == "while":
                (body,), (condition,) = instruction.called("body"), instruction.called("condition")
                inner = self.operations(body)
                found.append(Operation(instruction.name, "while", trips=self.trips(instruction, condition, computation), body=inner))
            elif 'custom_call_target="AllocateBuffer"' in instruction.attributes:
                continue
            elif instruction.opcode in ("call", "conditional"):
                # Of a conditional every branch is counted: the program may take any of them.
                for called in instruction.called("to_apply|called_computations|branch_computations|true_computation|false_computation"):
                    found += self.operations(called)
            else:
                found.append(self.operation(instruction, computation))
        return tuple(found)

    def operation(self, instruction: Instruction, computation: dict[str, Instruction]) -> Operation:
        opcode, name = instruction.opcode, instruction.name
        if opcode.endswith(("-done", "-update")):
            return Operation(name, opcode, end=self.started(instruction, computation))
        start = opcode.endswith("-start")
        kernel = ""
        if opcode == "custom-call":
            target = re.search(r'custom_call_target="([^"]*)"', instruction.attributes)
            kernel = self.kernel(instruction, target[1] if target else "")
        return Operation(
            name,
            opcode,
            flops=self.flops(instruction, computation),
            bytes=self.bytes(instruction, computation),
            collectives=tuple(self.collectives(instruction, computation, start)),
            kernel=kernel,
            operands=tuple(array for operand in instruction.operands for array in self.arrays(operand, computation)) if kernel else (),
            start=start,
        )

    def kernel(self, instruction: Instruction, target: str) -> str:
        """A name that says what a custom call is: the line's own for a Pallas kernel, which it is called after, else the target's."""
        return instruction.name if "tpu_custom_call" in target else target

    def started(self, instruction: Instruction, computation: dict[str, Instruction]) -> str:
        """The name of the start that a -done or -update belongs to."""
        name = instruction.operands[0]
        while name in computation and computation[name].opcode.endswith("-update"):
            name = computation[name].operands[0]
        return name

    def arrays(self, operand: str, computation: dict[str, Instruction]) -> tuple[Array, ...]:
        return computation[operand].arrays if operand in computation else ()

    def trips(self, instruction: Instruction, condition: str, computation: dict[str, Instruction]) -> int:
        """How often a loop runs: said by the compiler, else read from `counter < constant`, else 1 and noted as unknown."""
        if found := re.search(r'"known_trip_count":\{"n":"(\d+)"\}', instruction.attributes):
            return int(found[1])
        inside = self.computations[condition]
        numbers = [int(line.inside) for line in inside.values() if line.opcode == "constant" and re.fullmatch(r"\d+", line.inside)]
        compares = any("direction=LT" in line.attributes for _, line in self.within(condition))
        if len(numbers) == 1 and compares:
            return numbers[0]
        self.unknown.append(instruction.name)
        return 1

    def within(self, name: str) -> Iterator[tuple[dict[str, Instruction], Instruction]]:
        """Every instruction of a computation and of those that it calls."""
        for instruction in self.computations[name].values():
            yield self.computations[name], instruction
            for called in instruction.called():
                if called in self.computations:
                    yield from self.within(called)

    def nested(self, instruction: Instruction, computation: dict[str, Instruction]):
        """The instruction, and all within what it calls; but not what merely adds two numbers for it."""
        yield computation, instruction
        for called in instruction.called("calls|called_computations|async_execution_computation"):
            if called in self.computations:
                yield from self.within(called)

    def flops(self, instruction: Instruction, computation: dict[str, Instruction]) -> float:
        total = 0.0
        for home, line in self.nested(instruction, computation):
            if line.opcode == "dot":
                total += _dot(line, *(self.arrays(name, home)[0] for name in line.operands[:2]))
            elif line.opcode == "convolution":
                total += _convolution(line, *(self.arrays(name, home)[0] for name in line.operands[:2]))
        return total

    def collectives(self, instruction: Instruction, computation: dict[str, Instruction], start: bool) -> Iterator[Collective]:
        for home, line in self.nested(instruction, computation):
            kind = line.opcode.removesuffix("-start")
            if kind not in COLLECTIVES:
                continue
            size = sum(array.bytes for name in line.operands for array in self.arrays(name, home))
            if (
                kind == "all-reduce"
                and line is not instruction
                and any(other.root and other.opcode == "dynamic-slice" and other.operands[0] == line.name for other in home.values())
            ):
                kind = "reduce-scatter"  # the TPU compiler's form: a fusion of the sum and the part of it that a device keeps
            yield Collective(kind, size, groups_of(line), start or line.opcode.endswith("-start"), line.name)

    def bytes(self, instruction: Instruction, computation: dict[str, Instruction]) -> float:
        """Read and written in main memory: operands and results, of slices and updates in place only the part that moves."""
        if instruction.opcode == "fusion":
            return self.fusion_bytes(instruction, computation)
        if instruction.opcode.removesuffix("-start") in COLLECTIVES:
            return 0.0  # its time is that of the links
        results = sum(array.bytes for array in instruction.arrays if not array.space)
        operands = [sum(array.bytes for array in self.arrays(name, computation) if not array.space) for name in instruction.operands]
        if instruction.opcode in ("dynamic-slice", "gather", "slice"):
            return 2 * results
        if instruction.opcode in ("dynamic-update-slice", "scatter"):
            part = 1 if instruction.opcode == "dynamic-update-slice" else 2
            return 2 * operands[part]
        if instruction.opcode.endswith("-start"):
            # (operand, result, context): what it copies from and to
            return sum(array.bytes for array in instruction.arrays[:2] if not array.space and array.shape)
        return results + sum(operands)

    def fusion_bytes(self, instruction: Instruction, computation: dict[str, Instruction]) -> float:
        (called,) = instruction.called("calls")
        inside = self.computations[called]
        users: dict[str, list[Instruction]] = {}
        for line in inside.values():
            for operand in line.operands:
                users.setdefault(operand, []).append(line)
        total = 0.0
        parameters = {int(line.inside): line for line in inside.values() if line.opcode == "parameter" and line.inside.isdigit()}
        for place, operand in enumerate(instruction.operands):
            outside = [array for array in self.arrays(operand, computation) if not array.space]
            if outside and place in parameters:
                total += min(sum(array.bytes for array in outside), _reads(parameters[place], users))
        root = next((line for line in inside.values() if line.root), None)
        if root is None:
            return total
        written = [inside[name] for name in root.operands] if root.opcode == "tuple" else [root]
        for array, line in zip(instruction.arrays, written, strict=False):
            if not array.space:
                total += min(array.bytes, _writes(line, inside))
        return total


def _reads(line: Instruction, users: dict[str, list[Instruction]]) -> float:
    """Bytes that a fusion reads of one of its parameters."""
    total = 0.0
    for user in users.get(line.name, []):
        if user.opcode in ("dynamic-slice", "slice", "gather") and user.operands[0] == line.name:
            total += sum(array.bytes for array in user.arrays)
        elif user.opcode == "dynamic-update-slice" and user.operands[0] == line.name:
            continue  # updated in place: the rest of it is not touched
        elif user.opcode in _TRANSPARENT:
            total += _reads(user, users)
        else:
            return math.inf
    return total if users.get(line.name) else math.inf


def _writes(line: Instruction, inside: dict[str, Instruction]) -> float:
    """Bytes that a fusion writes for one of its results."""
    while line.opcode in _TRANSPARENT and line.operands[0] in inside:
        line = inside[line.operands[0]]
    if line.opcode == "dynamic-update-slice" and line.operands[1] in inside:
        return sum(array.bytes for array in inside[line.operands[1]].arrays)
    return math.inf


def _sizes(text: str) -> list[int]:
    return [int(part) for part in text.split(",") if part]


def _dot(line: Instruction, left: Array, right: Array) -> float:
    """Two for each element of the result and each index that is summed over."""
    found = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", line.attributes)
    return 2 * math.prod(line.arrays[0].shape) * math.prod(left.shape[axis] for axis in _sizes(found[1] if found else ""))


def _convolution(line: Instruction, left: Array, right: Array) -> float:
    """Two for each product that is not with padding: TPUs run matrix products as convolutions, batches of them as padded windows."""
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", line.attributes)
    assert labels is not None, line.name
    inputs, kernel, output = labels.groups()
    window = re.search(r"window=\{([^}]*)\}", line.attributes)
    spatial = [letter for letter in output if letter.isdigit()]
    options = dict(part.split("=") for part in window[1].split()) if window else {}

    def option(name: str, default: str) -> list[str]:
        return options[name].split("x") if name in options else [default] * len(spatial)

    pairs = 1
    for place, letter in enumerate(sorted(spatial)):
        low = int(option("pad", "0_0")[place].split("_")[0])
        stride, dilated = int(option("stride", "1")[place]), int(option("lhs_dilate", "1")[place])
        spread = int(option("rhs_dilate", "1")[place])
        length, size = left.shape[inputs.index(letter)], int(option("size", "1")[place])
        at = np.arange(line.arrays[0].shape[output.index(letter)])[:, None] * stride + np.arange(size)[None] * spread - low
        pairs *= int(((at >= 0) & (at <= (length - 1) * dilated) & (at % dilated == 0)).sum())
    shape = line.arrays[0].shape
    return 2 * shape[output.index("b")] * shape[output.index("f")] * right.shape[kernel.index("i")] * pairs
