"""`omnia plan`: compile a training step for a pod that is not there, and say what it needs and how long it should take."""

import dataclasses
import math
import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import tyro

from data.errors import UserError
from data.files import json_files
from data.files.text_files import is_whole
from train.experiment import Experiment
from train.verbs.arguments import check_belongs, parse
from train.verbs.config_files import KindsByName, load_config, with_kinds


@dataclasses.dataclass(frozen=True)
class Plan(KindsByName):
    """Compile the training step of a config for a topology you do not have, and report memory, collectives and step time."""

    topology: str
    """Target devices: TPU slices such as v5e:4x4 or v5p:8x8x8 (extra: tpu), or cpu:8, eight simulated CPUs."""
    search: bool = False
    """Try meshes, remat policies and micro-batches, and plan the fastest that fits."""
    candidates: int = 6
    """With --search: number of candidates to compile, the most promising by arithmetic first."""
    json: bool = False
    """Print one line of JSON, last."""
    output: str = "."
    """Folder for plan.png."""
    experiment: Annotated[Experiment, tyro.conf.arg(name="")] = Experiment()


def plan(arguments: list[str]) -> int:
    target, rest = (None, arguments) if not arguments or arguments[0].startswith("-") else (arguments[0], arguments[1:])
    if target is None and not {"-h", "--help"} & set(rest):
        raise UserError("omnia plan: no config", "Give one, or a run directory: omnia plan configs/decoder_100b.py --topology v5p:8x8x8.")
    if not {"-h", "--help"} & set(rest) and not any(word.partition("=")[0] == "--topology" for word in rest):
        raise UserError("omnia plan: no topology", "Give one: --topology v5e:4x4, v5p:8x8x8, or cpu:8 to try it.")
    from train.runs.directory import is_run, open_run

    default = Experiment()
    if target:
        default = with_kinds(open_run(target).experiment if is_run(Path(target)) else load_config(target), rest)
    options = parse(Plan, "plan", rest, Plan(topology="", experiment=default))
    check_belongs("plan", options, candidates=(options.search, "belongs to --search"))
    _check_unread(options.experiment, default)
    if options.experiment.objective.uses_model and options.experiment.model.vocab_size == 0:
        raise UserError("model.vocab_size is not known without data", "Give --model.vocab-size N.")
    if options.candidates < 1:
        raise UserError("omnia plan: --candidates must be positive")
    start_jax(options.topology)
    if options.search:
        from train.planning.search import search

        found, tried = search(options.experiment, options.topology, options.candidates, make_plan)
        found["tried"] = tried
    else:
        found = make_plan(options.experiment, options.topology)
    print_plan(found)
    draw(found, Path(options.output))
    if options.json:
        print(json_files.dumps(found))
    return 0 if found["fits"] else 2


def _check_unread(asked: Experiment, default: Experiment) -> None:
    """UserError for data or a run that the command line names: a plan opens neither, so a wrong name would never be found out."""
    for name in asked.data.path_fields:
        if getattr(asked.data, name, ()) != getattr(default.data, name, ()):
            raise UserError(
                f"omnia plan: --data.{name.replace('_', '-')}: a plan reads no data",
                "Leave it out; the vocabulary is --model.vocab-size N.",
            )
    if asked.start != default.start:
        raise UserError(
            "omnia plan: --start: a plan reads no parameters, and has the model of its config",
            f"Leave it out, or plan that run: omnia plan {asked.start or 'RUN_DIR'}.",
        )


def start_jax(topology: str) -> None:
    """JAX on the CPU, whatever devices there are: nothing runs, and libtpu must not look for chips. `cpu:8` divides the CPU."""
    import jax

    from train.devices import hosts
    from train.planning.ahead_of_time import prepare_libtpu

    prepare_libtpu()

    kind, _, count = topology.partition(":")
    if jax.config.jax_platforms is None:
        jax.config.update("jax_platforms", "cpu")
    chosen = jax.config.jax_num_cpu_devices != -1 or "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if kind == "cpu" and is_whole(count) and not chosen:
        jax.config.update("jax_num_cpu_devices", int(count))
    hosts.start_devices()


def make_plan(experiment: Experiment, topology: str, quiet: bool = False) -> dict[str, Any]:
    """Everything that a plan says, as plain values; sizes in bytes a device, times in seconds. UserError where the mesh does not fit."""
    from train.planning.ahead_of_time import TooLarge, compile_step, memory_of, planning_mesh

    mesh = planning_mesh(experiment, topology)
    found = _sizes(experiment, topology, mesh)
    if not quiet and sys.stderr.isatty():
        print(f"compiling for {found['devices']} x {found['device']}: minutes for a large model", file=sys.stderr)
    started = time.monotonic()
    try:
        compiled = compile_step(experiment, mesh)
    except TooLarge as error:
        state = found["parameter_bytes"] + found["optimizer_bytes"]
        needed_bytes = error.needed + error.work_only * state
        found |= {"fits": False, "bytes_per_device": needed_bytes, "compile_seconds": time.monotonic() - started}
        found |= {"predicted_mfu": 0.0, "advice": advice(experiment, found)}
        return found
    seconds = time.monotonic() - started
    memory = memory_of(compiled)
    found |= {
        "fits": memory.total <= found["hbm_bytes"],
        "bytes_per_device": memory.total,
        "argument_bytes": memory.arguments,
        "work_bytes": memory.work,
        "compile_seconds": seconds,
    }
    found |= _times(experiment, mesh, compiled.as_text())
    found["advice"] = advice(experiment, found)
    return found


def _sizes(experiment: Experiment, topology: str, mesh) -> dict[str, Any]:
    """What is known of a plan before its step is compiled."""
    import jax

    from train.objectives.bind import state_of
    from train.planning.ahead_of_time import for_platform
    from train.planning.roofline import chip_of

    devices = list(mesh.devices.flat)
    chip = chip_of(devices[0])
    state = state_of(for_platform(experiment, mesh), mesh)

    def share(tree) -> int:
        return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))

    return {
        "name": experiment.name,
        "topology": topology,
        "device": devices[0].device_kind,
        "devices": len(devices),
        "mesh": {name: size for name, size in mesh.shape.items() if size > 1},
        "remat": experiment.model.remat,
        "micro_batches": experiment.micro_batches,
        "batch_size": experiment.batch_size,
        "tokens_per_batch": experiment.batch_size * experiment.model.context_length,
        "parameters": sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state.params)),
        "parameter_bytes": share(state.params),
        "optimizer_bytes": share(state.opt_state) + share(state.ema),
        "gradient_bytes": share(state.params),
        "hbm_bytes": chip.hbm - chip.reserved,
        "reserved_bytes": chip.reserved,
    }


def _times(experiment: Experiment, mesh, program_text: str) -> dict[str, Any]:
    """What a device does in a step, by the compiled program, and how long that takes."""
    from train.objectives.bind import flops_of
    from train.planning import hlo
    from train.planning.roofline import KERNEL, MATMUL, MEMORY, Torus, chip_of, estimate, kernel_flops

    devices = list(mesh.devices.flat)
    chip, tokens = chip_of(devices[0]), experiment.batch_size * experiment.model.context_length
    program = hlo.read(program_text)
    time_of = estimate(program, Torus(devices, chip))
    needed = (flops_of(experiment) or 0.0) * tokens / len(devices)
    operations = list(hlo.walk(program.operations))
    return {
        "product_flops": sum(operation.flops * times for operation, times in operations),
        "kernel_flops": sum(kernel_flops(operation) * times for operation, times in operations),
        "model_flops": needed,
        "memory_traffic_bytes": sum(operation.bytes * times for operation, times in operations),
        "collectives": collectives_of(operations),
        "unknown_loops": list(program.unknown_loops),
        "seconds": dataclasses.asdict(time_of),
        "tokens_per_second": tokens / time_of.seconds,
        "predicted_mfu": needed / (time_of.seconds * chip.peak),
        "mfu_all_overlap": needed / (time_of.all_overlap * chip.peak),
        "mfu_no_overlap": needed / (time_of.no_overlap * chip.peak),
        "assumptions": {"matmul": MATMUL, "kernel": KERNEL, "memory": MEMORY, "link_bytes_per_second": chip.link, "peak": chip.peak},
    }


def collectives_of(operations) -> dict[str, dict[str, float]]:
    """kind -> how many run in a step, how many of those beside other work, and the bytes of their operands on a device."""
    found: dict[str, dict[str, float]] = {}
    for operation, times in operations:
        for collective in operation.collectives:
            row = found.setdefault(collective.kind, {"count": 0, "asynchronous": 0, "bytes": 0.0})
            row["count"] += times
            row["asynchronous"] += times * collective.asynchronous
            row["bytes"] += times * collective.bytes
    return found


def advice(experiment: Experiment, found: dict[str, Any]) -> list[str]:
    """What to change when it does not fit, most helpful first; nothing when it does."""
    if found["fits"]:
        return []
    state, room = found["parameter_bytes"] + found["optimizer_bytes"], found["hbm_bytes"]
    lines = []
    if state > room / 2:
        lines.append(f"The state alone takes {_gib(state)} a device: split it further (--mesh.fsdp, --mesh.tensor), or use more chips.")
    rows = experiment.batch_size // experiment.micro_batches
    shards = math.prod(found["mesh"].get(axis, 1) for axis in ("data", "fsdp", "expert"))
    if rows % (2 * shards) == 0 and experiment.objective.unit != "batch":
        lines.append(f"Take the batch in parts: --micro-batches {experiment.micro_batches * 2}.")
    if experiment.model.remat != "full":
        lines.append("Keep less for the backward pass: --model.remat full.")
    if not experiment.model.scan:
        lines.append("Scan the layers: --model.scan.")
    return lines or ["Use more chips, a smaller --batch-size, or a smaller model."]


def print_plan(found: dict[str, Any]) -> None:
    axes = " x ".join(f"{name} {size}" for name, size in found["mesh"].items()) or "one device"
    print(f"{found['name']} on {found['topology']} ({found['devices']} x {found['device']}), {axes}")
    print(
        f"{found['parameters']:,} parameters, {found['tokens_per_batch']:,} tokens a batch, {found['micro_batches']} micro-batches, "
        f"remat {found['remat']}; compiled in {found['compile_seconds']:.0f} s\n"
    )
    rows = [
        ("parameters", _gib(found["parameter_bytes"])),
        ("optimizer", _gib(found["optimizer_bytes"])),
        ("gradients (part of the work space)", _gib(found["gradient_bytes"])),
    ]
    rows += [("work space, activations included", _gib(found["work_bytes"]))] if "work_bytes" in found else []
    rows += [("all", _gib(found["bytes_per_device"]))]
    rows += [(f"a device has (after {_gib(found['reserved_bytes'])} kept by the runtime)", _gib(found["hbm_bytes"]))]
    print("Memory a device")
    for name, value in rows:
        print(f"  {name:50} {value:>12}")
    if "seconds" in found:
        _print_time(found)
    print("\nIt fits." if found["fits"] else "\nIt does not fit. " + " ".join(found["advice"]))


def _print_time(found: dict[str, Any]) -> None:
    seconds, assumed = found["seconds"], found["assumptions"]
    print("\nCollectives a step and device    count  beside work    operands       time")
    for kind, row in found["collectives"].items():
        print(
            f"  {kind:26} {row['count']:9,.0f} {row['asynchronous']:12,.0f} {_gib(row['bytes']):>11} {seconds['collectives'][kind]:8.3f} s"
        )
    print("\nTime of a step")
    products, kernels = found["product_flops"], found["kernel_flops"]
    arithmetic = f"{products / 1e12:,.1f} TFLOP of products, {kernels / 1e12:,.1f} of attention kernels"
    print(f"  arithmetic           {seconds['compute']:9.3f} s   {arithmetic}")
    print(f"  memory               {seconds['memory']:9.3f} s   {found['memory_traffic_bytes'] / 1e9:,.0f} GB read and written")
    print(f"  collectives          {sum(seconds['collectives'].values()):9.3f} s")
    print(
        f"  as compiled          {seconds['seconds']:9.3f} s   MFU {found['predicted_mfu']:.1%}, {found['tokens_per_second']:,.0f} tokens/s"
    )
    print(f"  all overlap          {seconds['all_overlap']:9.3f} s   MFU {found['mfu_all_overlap']:.1%}")
    print(f"  none overlap         {seconds['no_overlap']:9.3f} s   MFU {found['mfu_no_overlap']:.1%}")
    print(
        f"\nAssumed: {assumed['matmul']:.0%} of {assumed['peak'] / 1e12:,.3g} TFLOP/s in products, {assumed['kernel']:.0%} in attention "
        f"kernels, {assumed['memory']:.0%} of the\nmemory's bandwidth, {assumed['link_bytes_per_second'] / 1e9:.0f} GB/s a link and "
        "direction. As compiled: what the compiler starts and ends\napart runs beside other work, every other collective waits for it and "
        "it for them."
    )
    if found["unknown_loops"]:
        print(f"Counted once, since nothing says how often they run: {', '.join(found['unknown_loops'])}.")


def draw(found: dict[str, Any], folder: Path) -> None:
    """plan.png: memory against what a device has, and the parts of a step's time. Nothing without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        print("No picture: matplotlib is not installed (pip install 'omnia[plots]').", file=sys.stderr)
        return
    folder.mkdir(parents=True, exist_ok=True)
    figure = Figure(figsize=(8, 4.2), dpi=130, layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=(1, 2.4))
    parts = [("parameters", found["parameter_bytes"], "#1f83c9"), ("optimizer", found["optimizer_bytes"], "#56b4e9")]
    rest = found["bytes_per_device"] - sum(size for _, size, _ in parts)
    parts.append(("gradients, activations and the rest", max(rest, 0), "#d55e00"))
    left = 0.0
    for label, size, colour in parts:
        above.barh([0], [size / 2**30], left=left, color=colour, label=label)
        left += size / 2**30
    above.axvline(found["hbm_bytes"] / 2**30, color="black", linestyle="--", linewidth=1)
    above.set(yticks=[], xlabel="GiB a device; dashed: what it has", title=f"{found['name']} on {found['topology']}")
    above.legend(frameon=False, ncols=3, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.55))
    if "seconds" in found:
        seconds = found["seconds"]
        bars = {"arithmetic": seconds["compute"], "memory": seconds["memory"], **seconds["collectives"]}
        bars |= {
            "step, all overlap": seconds["all_overlap"],
            "step, as compiled": seconds["seconds"],
            "step, none overlaps": seconds["no_overlap"],
        }
        colours = ["#1f83c9" if name.startswith("step") else "#7a7f87" for name in bars]
        drawn = below.barh(list(bars), list(bars.values()), color=colours)
        below.bar_label(drawn, [f" {value:.3g} s" for value in bars.values()], fontsize=8)
        below.invert_yaxis()
        below.margins(x=0.12)
        below.set_xlabel(f"seconds; predicted MFU {found['predicted_mfu']:.0%}")
    else:
        below.axis("off")
    figure.savefig(folder / "plan.png")
    print(folder / "plan.png")


def _gib(size: float) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**28 else f"{size / 2**20:.2f} MiB"
