"""`omnia checkpoint`: list, verify, compare and export the checkpoints of a run. Listing and verifying need no JAX."""

import dataclasses
import importlib.util
import os
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from data.errors import UserError
from data.files import json_files
from data.files.storage import sync_folder
from data.loading.progress import Progress
from train.checkpoints.journal import Damage, Journal
from train.runs.directory import open_run, read_stored
from train.verbs.arguments import below, parse, start_jax

SAFETENSORS_FORMAT = "omnia/1"
"""In an exported file: how its names and shapes are to be read."""


def checkpoint(arguments: list[str]) -> int:
    verbs = {
        "ls": (ls, "RUN_DIR", "the steps that can be restored"),
        "verify": (verify, "RUN_DIR", "read every byte of them: exit code 1 when any has changed"),
        "diff": (diff, "RUN_DIR", "compare the arrays of its two newest steps, or of steps A and B"),
        "export": (export, "RUN_DIR", "write its parameters as one safetensors file"),
    }
    return below("checkpoint", arguments, verbs)


def journal_of(run_dir: str) -> tuple[Journal, str]:
    """The journal of a run, which must hold a checkpoint, and the run's identity."""
    stored = read_stored(Path(run_dir))  # its classes are not needed, and nothing of a stranger's is run
    journal = Journal(Path(run_dir) / "checkpoints")
    if not journal.steps() and not journal.unfinished():
        raise UserError(f"{journal.folder}: no checkpoint", "Train first: `omnia train CONFIG.py --run-dir DIR`.")
    return journal, stored.get("identity", "")


def whole_step(journal: Journal, identity: str, step: int) -> None:
    """UserError unless the step exists and is what was saved."""
    if step not in journal.steps():
        raise UserError(f"{journal.folder}: no checkpoint of step {step}", f"There are: {', '.join(map(str, journal.steps())) or 'none'}.")
    damage = journal.damage(step, identity=identity)
    if damage:
        raise UserError(f"{journal.folder}/{damage[0]}", f"The checkpoint of step {step} is damaged. Use another.")


# ------------------------------------------------------------------------------------------------------------------------ ls


@dataclasses.dataclass(frozen=True)
class List:
    """List the steps of a run that can be restored. Does not read the arrays; `verify` does."""

    run_dir: tyro.conf.Positional[str]
    """Folder of the run."""
    json: bool = False
    """Print one line of JSON."""


def ls(arguments: list[str]) -> int:
    options = parse(List, "checkpoint ls", arguments)
    journal, _ = journal_of(options.run_dir)
    rows: list[dict[str, Any]] = []
    for step in journal.steps():
        parts, damage = journal.manifest(step)
        files = [file for part in parts for file in part.files]
        first = next((part for part in parts if part.part == 0), None)
        row: dict[str, Any] = {
            "step": step,
            "good": first.good if first else None,
            "bytes": sum(file.bytes for file in files),
            "files": len(files),
        }
        row |= {"loss": first.loss if first else None, "parts": len(parts) + len(damage), "newest": step == journal.steps()[-1]}
        rows.append(row | {"damage": [str(one) for one in damage]})
    if options.json:
        print(json_files.dumps({"checkpoints": rows, "unfinished": journal.unfinished()}))
        return 0
    print(f"{'step':>10}  {'good':4}  {'MB':>10}  {'files':>6}  {'loss':>8}  {'parts':>5}")
    for row in rows:
        loss = f"{row['loss']:.4f}" if row["loss"] is not None else "-"
        good = {True: "yes", False: "no", None: "?"}[row["good"]]
        note = "  newest" if row["newest"] else ""
        note += "  its manifest is damaged" if row["damage"] else ""
        print(f"{row['step']:>10}  {good:4}  {row['bytes'] / 1e6:>10,.1f}  {row['files']:>6}  {loss:>8}  {row['parts']:>5}{note}")
    for step in journal.unfinished():
        print(f"{step:>10}  its save has not ended, or died: it cannot be restored")
    return 0


# -------------------------------------------------------------------------------------------------------------------- verify


@dataclasses.dataclass(frozen=True)
class Verify:
    """Read every byte of a run's checkpoints. Exit code 1 if anything differs from what was saved."""

    run_dir: tyro.conf.Positional[str]
    """Folder of the run."""
    step: int | None = None
    """Only this step. Default: all."""
    json: bool = False
    """Print one line of JSON."""


def verify(arguments: list[str]) -> int:
    options = parse(Verify, "checkpoint verify", arguments)
    journal, identity = journal_of(options.run_dir)
    steps = journal.steps()
    if options.step is not None and options.step not in steps:
        raise UserError(f"{journal.folder}: no checkpoint of step {options.step}", f"There are: {', '.join(map(str, steps)) or 'none'}.")
    steps = steps if options.step is None else [options.step]
    total = sum(file.bytes for step in steps for part in journal.manifest(step)[0] for file in part.files)
    damage: dict[int, list[Damage]] = {}
    done = 0
    with Progress("verify", total) as progress:

        def read(count: int) -> None:
            nonlocal done
            done += count
            progress.show(done)

        for step in steps:
            damage[step] = journal.damage(step, identity=identity, read=read)
    if options.json:
        print(json_files.dumps({"steps": {step: [dataclasses.asdict(one) for one in found] for step, found in damage.items()}}))
    else:
        for step, found in damage.items():
            print(f"step {step}: {'DAMAGED' if found else 'ok'}")
            for one in found:
                print(f"  {one}")
        for step in journal.unfinished() if options.step is None else []:
            print(f"step {step}: no complete manifest: its save has not ended, or died; it is never restored")
    return 1 if any(damage.values()) or not steps else 0


# ---------------------------------------------------------------------------------------------------------------------- diff


@dataclasses.dataclass(frozen=True)
class Diff:
    """Compare two checkpoints array by array. Exit code 0 whether or not they are equal."""

    run_dir: tyro.conf.Positional[str]
    """Folder of the run."""
    step_a: tyro.conf.Positional[int | None] = None
    """First step. Default: the second newest, or with --run the newest."""
    step_b: tyro.conf.Positional[int | None] = None
    """Second step, of this run or of --run. Default: the newest."""
    run: str | None = None
    """Run folder of the second step. Default: the same run."""
    json: bool = False
    """Print one line of JSON."""


def diff(arguments: list[str]) -> int:
    options = parse(Diff, "checkpoint diff", arguments)
    sides, compared = [], []
    before = -1 if options.run else -2
    for run_dir, step, newest in ((options.run_dir, options.step_a, before), (options.run or options.run_dir, options.step_b, -1)):
        journal, identity = journal_of(run_dir)
        if step is None:
            if len(journal.steps()) < -newest:
                raise UserError(f"{journal.folder}: one checkpoint alone, nothing to compare it with", "Name another run: --run RUN_DIR.")
            step = journal.steps()[newest]
        whole_step(journal, identity, step)
        sides.append(journal.step_folder(step))
        compared.append(step)
    arrays = [array_folders(folder) for folder in sides]
    rows = []
    for name in sorted({*arrays[0], *arrays[1]}):
        if name in arrays[0] and name in arrays[1]:
            rows.append({"array": name} | compare(*(read_array(folders[name]) for folders in arrays)))
        else:
            rows.append({"array": name, "only_in": "first" if name in arrays[0] else "second"})
    if options.json:
        print(json_files.dumps({"steps": compared, "arrays": rows}))
        return 0
    print(f"step {compared[0]} and step {compared[1]}" + (f" of {options.run}" if options.run else ""))
    width = max(len(row["array"]) for row in rows)
    for row in rows:
        if "only_in" in row:
            shown = f"only in the {row['only_in']}"
        elif "shapes" in row:
            shown = f"shapes differ: {row['shapes'][0]} and {row['shapes'][1]}"
        elif row["equal"]:
            shown = "equal"
        else:
            relative = "-" if row["relative_l2"] is None else f"{row['relative_l2']:.3e}"
            shown = f"relative L2 {relative}  largest difference {row['largest']:.3e}"
        print(f"{row['array']:{width}}  {shown}")
    return 0


def array_folders(step_folder: Path) -> dict[str, Path]:
    """The arrays of a checkpoint: item/name -> the folder of its chunks."""
    return {path.parent.relative_to(step_folder).as_posix(): path.parent for path in step_folder.glob("*/*/.zarray")}


def read_array(folder: Path) -> np.ndarray:
    import tensorstore

    store = {"driver": "zarr", "kvstore": {"driver": "file", "path": str(folder)}}
    return tensorstore.open(store, open=True).result().read().result()


def compare(a: np.ndarray, b: np.ndarray) -> dict:
    """How far two arrays are apart: the relative L2 distance |a - b| / |a| (None where a is 0) and the largest |a - b| of an element."""
    if a.shape != b.shape:
        return {"equal": False, "shapes": [list(a.shape), list(b.shape)]}
    if a.dtype == b.dtype and a.tobytes() == b.tobytes():
        return {"equal": True, "relative_l2": 0.0, "largest": 0.0}
    wide = [np.asarray(side, np.float64) for side in (a, b)]
    apart, norm = np.abs(wide[0] - wide[1]), float(np.linalg.norm(wide[0]))
    distance = float(np.linalg.norm(apart))
    return {"equal": False, "relative_l2": distance / norm if norm else None, "largest": float(apart.max(initial=0.0))}


# -------------------------------------------------------------------------------------------------------------------- export


@dataclasses.dataclass(frozen=True)
class ExportArrays:
    """Write the parameters of a run as one safetensors file. Uses the averaged parameters if the run keeps them."""

    run_dir: tyro.conf.Positional[str]
    """Folder of the run."""
    output: str = ""
    """File to write, atomically. Default: <run>/step-<step>.safetensors."""
    step: int | None = None
    """Checkpoint to export. Default: the newest intact one."""
    raw: bool = False
    """Use the trained parameters even if an average is kept."""
    json: bool = False
    """Print one line of JSON."""


def export(arguments: list[str]) -> int:
    options = parse(ExportArrays, "checkpoint export", arguments)
    run = open_run(options.run_dir)
    if importlib.util.find_spec("safetensors") is None:
        raise UserError("omnia checkpoint export needs the package safetensors", "Install it: pip install 'omnia[hf]'.")
    output = Path(options.output)
    if options.output and (output.suffix != ".safetensors" or output.is_dir() or not output.absolute().parent.is_dir()):
        raise UserError(f"--output {output}: not the name of a file in a folder that exists", "Give a name that ends in .safetensors.")
    start_jax()
    import jax
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    from train.checkpoints.checkpointer import load_parameters
    from train.devices.mesh import make_mesh
    from train.experiment import MeshShape

    mesh = make_mesh(MeshShape(data=1), jax.devices("cpu")[:1])
    params, step = load_parameters(run, mesh, step=options.step, raw=options.raw)
    if not options.output:
        output = run.path / f"step-{step}.safetensors"
    leaves = jax.tree_util.tree_leaves_with_path(params)
    arrays = {jax.tree_util.keystr(path, simple=True, separator="/"): np.ascontiguousarray(leaf) for path, leaf in leaves}
    metadata = {"experiment": run.experiment.name, "step": str(step), "format": SAFETENSORS_FORMAT}
    partial = output.with_name(output.name + ".partial")
    try:
        save_file(arrays, partial, metadata)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, output)
    except SafetensorError as error:  # its own word for what the system refused
        raise UserError(f"{output}: {error}", "Give another --output, or free space on its disk.") from None
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(str(output.absolute().parent))
    size = sum(array.nbytes for array in arrays.values())
    if options.json:
        print(json_files.dumps({"output": str(output), "step": step, "arrays": len(arrays), "bytes": size}))
    else:
        print(f"{output}: {len(arrays)} arrays, {size / 1e6:,.1f} MB, step {step}")
    return 0
