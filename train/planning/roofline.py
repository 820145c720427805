"""How long a compiled step should take on chips that are not there, from what train/planning/hlo.py counts in it.

Assumptions, all of which a plan prints: products reach MATMUL of a chip's peak, attention kernels KERNEL of it, memory MEMORY of its
bandwidth; an operation takes the longer of its arithmetic and its memory traffic. Collectives move over the rings of the torus that their
devices span (Austin et al. 2025, "How to Scale Your Model", ch. 3) and take a microsecond a hop besides; only one runs at a time. What the
compiler starts and ends apart runs beside other work, everything else waits: the order of the compiled program is replayed.
"""

import dataclasses
import math
import os

import numpy as np

from data.errors import UserError
from train.planning.hlo import Collective, Operation, Program, walk

MATMUL = 0.85
"""Share of the peak in matrix products; the TPU compiler's own cycle estimates of large products come to 0.86 on a v5p."""
KERNEL = 0.5
"""Share of the peak in attention kernels, whose exponentials and masks are not products."""
MEMORY = 0.9
"""Share of the memory's bandwidth."""
HOP_SECONDS = 1e-6
KERNEL_PRODUCTS = {"splash_mha_fwd": 2, "splash_mha_dkv": 4, "splash_mha_dq": 3}
"""Matrix products that an attention kernel does for each block of scores."""


@dataclasses.dataclass(frozen=True)
class Chip:
    """peak: FLOP/s in bfloat16. hbm: bytes. reserved: bytes that runtime and compiler keep. hbm_bandwidth: bytes/s.

    link: bytes/s of one link in one direction. wraps: rings close where a side of the slice is a multiple of this.
    """

    peak: float
    hbm: int
    reserved: int
    hbm_bandwidth: float
    link: float
    wraps: int


_GIB = 2**30
# Peaks, HBM and interconnect: Google Cloud, "TPU system architecture", pages of v4, v5e, v5p and v6e (2,400, 1,600, 4,800 and 3,200 Gbit/s
# a chip and direction over 6, 4, 6 and 4 links; nine tenths of that, as measured in "How to Scale Your Model", ch. 3, table of ICI).
# A 3D torus closes its rings where sides are multiples of 4, a 2D one only over the whole pod of 16.
CHIPS = {
    "TPU v4": Chip(275e12, 32 * _GIB, _GIB // 4, 1.2e12, 45e9, 4),
    "TPU v5 lite": Chip(197e12, 16 * _GIB, _GIB // 4, 0.81e12, 45e9, 16),
    "TPU v5e": Chip(197e12, 16 * _GIB, _GIB // 4, 0.81e12, 45e9, 16),
    "TPU v5": Chip(459e12, 95 * _GIB, _GIB // 4, 2.765e12, 90e9, 4),
    "TPU v5p": Chip(459e12, 95 * _GIB, _GIB // 4, 2.765e12, 90e9, 4),
    "TPU v6 lite": Chip(918e12, 32 * _GIB, _GIB // 4, 1.6e12, 90e9, 16),
    "TPU v6e": Chip(918e12, 32 * _GIB, _GIB // 4, 1.6e12, 90e9, 16),
}


def chip_of(device) -> Chip:
    """The figures of a device's chip. A CPU's memory is its share of the machine's, and its speeds are only there to be shown."""
    if device.platform == "cpu":
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // len(device.client.devices())
        return Chip(1e11, memory, 0, 2e10, 5e9, 1)
    if device.device_kind not in CHIPS:
        raise UserError(f"nothing is known of a {device.device_kind}", f"Known: {', '.join(CHIPS)} (train/planning/roofline.py).")
    return CHIPS[device.device_kind]


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Seconds of a step and of its parts. `seconds` replays the schedule; the other two are its bounds."""

    seconds: float
    all_overlap: float
    no_overlap: float
    compute: float
    memory: float
    collectives: dict[str, float]


def kernel_flops(operation: Operation) -> float:
    """FLOPs of a splash attention kernel, from its operands: blocks of [T, S] on and below the diagonal, times the products in each.

    Windows are counted as if they were not there. 0 for a kernel that is not known.
    """
    products = next((count for name, count in KERNEL_PRODUCTS.items() if name in operation.kernel), 0)
    # [..., H, T, K] of queries, then of keys; before them, in eight bits, the grid of blocks.
    heads = [array.shape for array in operation.operands if len(array.shape) > 2 and array.dtype in ("bf16", "f32") and array.shape[-2] > 1]
    if not products or len(heads) < 2:
        return 0.0
    (*many, queries, width), (*_, keys, _) = heads[:2]
    grid = next((array.shape for array in operation.operands if array.dtype == "s8" and len(array.shape) > 2), (1, 1, 1))
    share = (grid[-1] + 1) / (2 * grid[-1])
    return products * 2 * math.prod(many) * queries * keys * width * share


class Torus:
    """Seconds of collectives between the devices of a mesh, by where their chips stand."""

    def __init__(self, devices, chip: Chip):
        self.chip = chip
        self.places = np.array([device.coords for device in devices]) if hasattr(devices[0], "coords") else None
        self.sides = self.places.max(0) + 1 if self.places is not None else np.array([len(devices)])
        self.count = len(devices)

    def dimensions(self, group: tuple[int, ...]) -> list[tuple[int, float]]:
        """(devices, bytes/s into each) for every side of the torus that a group spans, slow ones first.

        A whole closed ring uses a link both ways; a line of neighbours one, since that is what its end has; what skips chips shares its
        links with the groups in between. A group that is no box of chips counts as one line.
        """
        if self.places is None:
            return [(len(group), self.chip.link)]
        found = []
        for axis, side in enumerate(self.sides):
            values = np.unique(self.places[list(group), axis])
            if len(values) > 1:
                stride = (values[-1] - values[0]) / (len(values) - 1)
                whole = len(values) == side and side % self.chip.wraps == 0
                found.append((len(values), self.chip.link * (2 if whole else 1 / stride)))
        if math.prod(size for size, _ in found) != len(group):
            return [(len(group), self.chip.link)]
        return sorted(found, key=lambda one: one[1])

    def seconds(self, collective: Collective) -> float:
        """Time of one collective, all of whose groups are at it at once."""
        group = collective.groups[0] if collective.groups else tuple(range(self.count))
        if collective.kind == "collective-permute":
            steps = max((sum(self.distance(source, target)) for source, target in collective.groups), default=0)
            return steps * (collective.bytes / self.chip.link + HOP_SECONDS)
        if len(group) < 2:
            return 0.0
        dimensions = self.dimensions(group)
        hops = sum(size / 2 for size, _ in dimensions) * HOP_SECONDS
        if collective.kind in ("all-to-all", "ragged-all-to-all"):
            return hops + sum(collective.bytes * size / (4 * speed) for size, speed in dimensions)
        if collective.kind == "collective-broadcast":
            return hops + collective.bytes / min(speed for _, speed in dimensions)
        whole = collective.bytes * (len(group) if collective.kind == "all-gather" else 1)
        gather = self.gather(whole, dimensions)
        return (gather + hops) * (2 if collective.kind == "all-reduce" else 1)

    def gather(self, whole: float, dimensions: list[tuple[int, float]]) -> float:
        """Seconds until every device has all of `whole` bytes: along slow sides while the parts are small, then the fast ones at once."""
        seconds, fastest = 0.0, dimensions[-1][1]
        part: float = whole / math.prod(size for size, _ in dimensions)
        for size, speed in dimensions:
            if speed < fastest:
                seconds += part * (size - 1) / speed
                part *= size
        together = [(size, speed) for size, speed in dimensions if speed == fastest]
        return seconds + (whole - part) / sum(speed for _, speed in together)

    def distance(self, source: int, target: int) -> list[int]:
        if self.places is None:
            return [1]
        steps = abs(self.places[source] - self.places[target])
        return [int(min(step, side - step) if side % self.chip.wraps == 0 else step) for step, side in zip(steps, self.sides, strict=True)]


def estimate(program: Program, torus: Torus) -> Estimate:
    """Seconds of one step of `program` on the chips of `torus`."""
    chip = torus.chip
    compute, memory, work = 0.0, 0.0, 0.0
    collectives: dict[str, float] = {}

    def arithmetic(operation: Operation) -> float:
        return operation.flops / (chip.peak * MATMUL) + kernel_flops(operation) / (chip.peak * KERNEL)

    def traffic(operation: Operation) -> float:
        return operation.bytes / (chip.hbm_bandwidth * MEMORY)

    for operation, times in walk(program.operations):
        compute += times * arithmetic(operation)
        memory += times * traffic(operation)
        work += times * max(arithmetic(operation), traffic(operation))
        for collective in operation.collectives:
            seconds = times * torus.seconds(collective)
            collectives[collective.kind] = collectives.get(collective.kind, 0.0) + seconds

    def replay(operations: tuple[Operation, ...]) -> float:
        """Seconds from the first operation until the last, with what it started, is done."""
        now = links = copies = 0.0
        ends: dict[str, float] = {}
        for operation in operations:
            if operation.body:
                now = max(now, links) + operation.trips * replay(operation.body)
            elif operation.end:
                now = max(now, ends.pop(operation.end, 0.0))
            else:
                exchange = sum(torus.seconds(collective) for collective in operation.collectives)
                own = max(arithmetic(operation), traffic(operation))
                if operation.start and operation.collectives:
                    links = max(now, links) + exchange
                    ends[operation.name] = links
                elif operation.start:
                    copies = max(now, copies) + own
                    ends[operation.name] = copies
                elif exchange:
                    now = max(now, links) + exchange + own
                else:
                    now += own
        return max(now, links, copies)

    exchanged = sum(collectives.values())
    return Estimate(replay(program.operations), max(work, exchanged), work + exchanged, compute, memory, collectives)
