"""Saving and restoring the train state with Orbax: asynchronous, atomic, on any mesh, and verified to the bit.

Orbax writes each step's folder and gives it its name when it is whole. Then every process reads its share of the files back and writes
their digests into the journal (train/checkpoints/journal.py); only then does the step exist. Nothing is restored that differs from its
digests.
"""

import contextlib
import dataclasses
import errno
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint import args as ocp_args

from data.errors import UserError
from model.decoding.quantize import quantize
from train.adapters.training import as_rounded, method_of
from train.checkpoints.journal import Damage, Journal, kept
from train.devices.mesh import Mesh, inference_mesh
from train.experiment import Checkpoints
from train.objectives.bind import state_of
from train.runs.directory import START, Run, open_run
from train.runs.inherit import base_of
from train.step.state import State, schedule_free

PARTS_TIMEOUT_SECONDS = 600
"""How long a process waits for the others' parts of a manifest before it takes the save for failed."""
A_CENTURY = 100 * 365 * 24 * 3600
SHARED_WRITE_BYTES = 1 << 20
"""The replicas of an array divide the writing of it where each would have so much to do; of smaller ones the first writes all."""


class Checkpointer:
    """The checkpoints of one run, in `<run>/checkpoints/<step>/`.

    Parameters, their average and the rest of the state are separate items, so that generation reads only what it needs; `progress` is
    the loop's own bookkeeping, as JSON. With several processes each method is called by all of them.

    identity: the run's, which its checkpoints carry; "" checks none. said: is given the lines that a user should see.
    """

    def __init__(
        self,
        run_dir: Path,
        options: Checkpoints = Checkpoints(),
        *,
        identity: str = "",
        said: Callable[[str], None] = print,
    ):
        self._journal = Journal(Path(run_dir).absolute() / "checkpoints")
        try:
            str(self._journal.folder).encode()
        except UnicodeEncodeError:  # what Orbax writes with takes no other names
            raise UserError(f"{self._journal.folder}: its name is no UTF-8, so no checkpoint can be written there", "Rename it.") from None
        if self._journal.written_by_another_version():
            raise UserError(
                f"{self._journal.folder}: its checkpoints have no journal, so an older version of Omnia wrote them",
                "Move the folder away to train anew, or use the version that wrote it.",
            )
        self._options, self._identity, self._said = options, identity, said
        self._orbax = _orbax_checkpointer()
        self._committing: threading.Thread | None = None
        self._error: Exception | None = None  # why the newest save failed, until one succeeds
        self._saved: tuple[int, int] | None = None  # step and cursor of the last state that was saved or restored here
        self._given_up: set[int] = set()  # steps that were there when an older one was restored: damaged, or not wanted
        self._cleaned = False

    def steps(self, good: bool = False) -> list[int]:
        """Steps that can be restored, ascending; with `good`, those that were saved as good."""
        return [step for step in self._journal.steps() if not good or self._is_good(step)]

    def latest_step(self, good: bool = False) -> int | None:
        return max(self.steps(good), default=None)

    # ----------------------------------------------------------------------------------------------------------------- save

    def save(self, state: State, progress: dict, *, good: bool = True) -> None:
        """Start saving; the copy to disk goes on while training does.

        Of a state that is saved already only the progress is replaced, so that there is no moment in which the step is not there. A save
        that fails (the disk is full, say) stops nothing: one line says so, and one more when a save succeeds again.
        progress: plain values; its "loss" is the validation loss of this step, if there is one. good: whether the state is sound.
        """
        self._settle()
        step, cursor = int(state.step), int(state.cursor)  # a run that went back has the same step with another cursor
        if (step, cursor) == self._saved and self._amend(step, progress, good):
            return
        tries = 2 if jax.process_count() == 1 else 1  # again at once, with what retention could free; several would have to agree
        for _ in range(tries):
            try:
                self._start(step, state, progress)
                break
            except (OSError, ValueError, RuntimeError) as error:  # what Orbax raises for a disk that takes no more
                self._failed(step, error)
        else:
            return
        self._saved = step, cursor
        self._committing = threading.Thread(target=self._commit, args=(step, good, progress.get("loss")), name="commit checkpoint")
        self._committing.start()

    def _amend(self, step: int, progress: dict, good: bool) -> bool:
        """Replace the progress of a step, if it is there."""
        if step not in self.steps() or self._journal.first_part(step) is None:
            return False
        if jax.process_index() == 0:
            try:
                self._journal.amend(step, good=good, loss=progress.get("loss"), progress=progress)
            except OSError as error:
                self._failed(step, error)
        return True

    def _start(self, step: int, state: State, progress: dict) -> None:
        if jax.process_index() == 0:
            if not self._cleaned:
                self._journal.open()
                self._journal.clean()
                self._cleaned = True
            self._journal.remove(step)
            self._given_up.discard(step)
        self._check_room(state)
        trees = _items(state)
        if schedule_free(state.opt_state) is not None:
            trees["ema"] = state.averaged  # can be computed again, but whoever reads parameters alone could not
        items = {name: ocp_args.StandardSave(tree) for name, tree in trees.items()}
        self._orbax.save(self._journal.step_folder(step), args=_Items(progress=ocp_args.JsonSave(progress), **items))

    def _check_room(self, state: State) -> None:
        """OSError where the disk surely has no room for the state: Orbax would find out in the middle, and print pages."""
        newest = self._journal.first_part(max(self._journal.steps(), default=-1))
        needed = sum(file.bytes for file in newest.files) if newest else state_bytes(state) // 2  # it is compressed by an unknown share
        room = shutil.disk_usage(self._journal.folder.parent).free
        if room < needed:
            raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: about {needed:,} bytes are needed, {room:,} are free")

    def _commit(self, step: int, good: bool, loss: float | None) -> None:
        """Runs in a thread of its own: wait until Orbax has finished the folder, then vouch for it."""
        part, parts = jax.process_index(), jax.process_count()
        try:
            self._orbax.wait_until_finished()
            self._journal.record(step, part=part, parts=parts, identity=self._identity, good=good, loss=loss)
            deadline = time.monotonic() + PARTS_TIMEOUT_SECONDS
            while missing := self._journal.missing(step, parts):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"processes {missing} did not write their part of the manifest")
                time.sleep(0.02)
        except Exception as error:  # whatever it is, training goes on; `wait` raises it
            self._saved = None
            self._failed(step, error)
            return
        if self._error is not None:
            self._error = None
            self._said(f"step {step} is saved: checkpoints are written again")
        if part == 0:
            try:
                self._retain(step)
            except OSError as error:
                self._said(f"step {step} is saved, but what it replaces could not be removed: {error}")

    def _failed(self, step: int, error: Exception) -> None:
        """Say it once, and make room for the next save: what this one would have replaced goes."""
        newest = self.latest_step()
        if self._error is None:
            left = f"the newest checkpoint is step {newest}" if newest is not None else "there is no checkpoint"
            self._said(f"WARNING: step {step} could not be saved ({_cause(error)}); training goes on, {left}")
        self._error = error
        self._orbax.handler.end()
        if jax.process_index() == 0:
            self._cleaned = False
            with contextlib.suppress(OSError):  # the next save begins with it, and fails where it still cannot be done
                self._journal.clean()
                self._retain(step, newest=max(1, self._options.keep - 1))

    def _retain(self, step: int, newest: int | None = None) -> None:
        """Remove the steps that retention does not keep, and those that are not of the past of `step`, unless they are all there is."""
        steps = self._journal.steps()
        parts = {one: self._journal.first_part(one) for one in steps if one <= step and one not in self._given_up}
        stay = kept(parts, self._options.keep if newest is None else newest, self._options.keep_every, self._options.keep_best)
        for one in steps if stay else []:
            if one not in stay:
                self._journal.remove(one)

    def wait(self) -> None:
        """Return when what was saved can be restored; UserError when the newest save failed."""
        self._settle()
        if self._error is not None:
            raise UserError(
                f"{self._journal.folder}: the newest checkpoint could not be saved: {_cause(self._error)}",
                "Free space on the disk (`df`), or whatever else is in the way; the same command then goes on from the newest checkpoint.",
            ) from self._error

    def close(self) -> None:
        """Wait for what is being saved; then this object is done with."""
        self._settle()
        self._orbax.close()

    def _settle(self) -> None:
        if self._committing is not None:
            self._committing.join()
            self._committing = None

    # -------------------------------------------------------------------------------------------------------------- restore

    def restore(self, abstract: State, step: int | None = None, *, good: bool = False) -> tuple[State, dict]:
        """The state saved at `step`, placed as `abstract` says, whatever mesh saved it; and the progress.

        Without a step: the newest one that is whole (with `good`: that was saved as good). A damaged one is named, and passed over.
        UserError when the step asked for is damaged, when none is whole, or when the checkpoint holds another kind of state.
        """
        items = {name: ocp_args.StandardRestore(tree) for name, tree in _items(abstract).items()}
        found, step = self._restore(items | {"progress": ocp_args.JsonRestore()}, step, good)
        self._given_up = {later for later in self.steps() if later > step}
        part, rest = self._journal.first_part(step), found["rest"]
        self._saved = step, int(rest["cursor"])
        state = State(rest["step"], rest["cursor"], found["params"], rest["opt_state"], rest["history"], found.get("ema"), rest["carry"])
        return state, found["progress"] if part is None or part.progress is None else part.progress

    def best_step(self) -> int | None:
        """That of the best evaluation; None where none was evaluated."""
        return self._journal.best()

    def restore_parameters(self, abstract_params, *, averaged: bool, step: int | None = None):
        """The parameters alone: the averaged ones, or those that are trained. Returns (params, step). Errors as in `restore`."""
        name = "ema" if averaged else "params"
        found, step = self._restore({name: ocp_args.StandardRestore(abstract_params)}, step)
        return found[name], step

    def _restore(self, items: dict, step: int | None, good: bool = False):
        """The items of `step`, or of the newest step that is whole; and the step."""
        self._settle()
        for candidate in self._candidates(step, good):
            damage = self._damage(candidate, items)
            if not damage:
                return self._read(candidate, items), candidate
            more = f" (and {len(damage) - 1} more)" if len(damage) > 1 else ""
            if step is not None:
                raise UserError(
                    f"{self._journal.folder}/{damage[0]}{more}",
                    f"The checkpoint of step {step} is damaged. Use another; `omnia checkpoint verify` says which are whole.",
                )
            self._said(f"DAMAGED: the checkpoint of step {candidate} is passed over: {self._journal.folder}/{damage[0]}{more}")
        raise UserError(f"{self._journal.folder}: no checkpoint is whole", "Restore the folder from a copy, or train anew in another one.")

    def _candidates(self, step: int | None, good: bool) -> list[int]:
        """The steps to try, newest first; process 0 decides for all."""
        steps = self.steps(good)
        if jax.process_count() > 1:
            there = np.full(1024, -1, np.int64)
            there[: len(steps[-1024:])] = steps[-1024:]
            steps = [int(one) for one in multihost_utils.broadcast_one_to_all(there) if one >= 0]
        dead = [one for one in self._journal.unfinished() if not steps or one > steps[-1] or one == step]
        if dead and jax.process_index() == 0:
            self._said(f"step {dead[-1]} has no complete manifest in {self._journal.folder}/journal: its save did not end; it is left out")
        which = "good checkpoint" if good else "checkpoint"
        if not steps:
            raise UserError(f"{self._journal.folder}: no {which}", "Train first: `omnia train CONFIG.py --run-dir DIR`.")
        if step is not None and step not in steps:
            raise UserError(f"{self._journal.folder}: no {which} of step {step}", f"There are: {', '.join(map(str, steps))}.")
        return steps[::-1] if step is None else [step]

    def _damage(self, step: int, items) -> list[Damage]:
        """What is damaged, as far as this process has looked or another has found; empty for all or for none."""
        part, parts = jax.process_index(), jax.process_count()
        damage = self._journal.damage(step, items=items, identity=self._identity, part=part, parts=parts)
        if parts > 1:
            counts = multihost_utils.process_allgather(np.int64(len(damage)))
            if not damage and counts.any():
                damage = [Damage(str(step), "files that are whole", f"damage, seen by process {int(np.argmax(counts))}")]
        return damage

    def _read(self, step: int, items: dict):
        """The items of a step whose files are what was saved; UserError when they are not what is asked for."""
        folder = self._journal.step_folder(step)
        mend = (
            "Its files are whole, but hold a state of another kind than this experiment's, or an older version's. A new run can start from "
            "its parameters: --start RUN_DIR."
        )
        if difference := _difference(folder, items):
            raise UserError(f"{folder}: cannot be restored: {difference}", mend)
        try:
            return self._orbax.restore(folder, args=_Items(**items))
        except Exception as error:  # Orbax has many kinds
            raise UserError(f"{folder}: cannot be restored: {_cause(error)}", mend) from error

    def _is_good(self, step: int) -> bool:
        part = self._journal.first_part(step)
        return part is not None and part.good


class _Handler(ocp.CompositeCheckpointHandler):
    """Knows what is being written: Orbax leaves a save at the first error, while other arrays still go to the disk."""

    writing: tuple = ()

    async def async_save(self, directory, args):
        self.writing = ()
        self.writing = tuple(await super().async_save(directory, args) or ())
        return list(self.writing)

    def end(self) -> None:
        """Wait until nothing is written any more; what went wrong has been raised before."""
        for future in self.writing:
            with contextlib.suppress(Exception):
                future.result(timeout=PARTS_TIMEOUT_SECONDS)


@ocp.args.register_with_handler(_Handler, for_save=True, for_restore=True)
class _Items(ocp_args.Composite):
    """What `_Handler` saves and restores, by name."""


def _orbax_checkpointer() -> ocp.AsyncCheckpointer:
    """Each array in files of its own (no OCDBT), so that a damaged file names its array."""
    for name in ("absl", "asyncio"):  # it warns of arrays without OCDBT, and writes tracebacks of what it also raises
        logging.getLogger(name).addFilter(_not_by_orbax)
    # Cut into a slice for each replica, small arrays are a compilation and a file for each slice. Orbax takes this for all its handlers.
    writer = ocp.type_handlers.ArrayHandler(min_slice_bytes_for_replica_parallel=SHARED_WRITE_BYTES)
    ocp.type_handlers.register_type_handler(jax.Array, writer, override=True)
    # Folders made at once tell of a full disk at once; several processes would wait for the one that could not make them.
    # Orbax reckons its time-outs by the wall clock, which may jump: they are never to come. A save that hangs is noticed by the sentinel.
    options = ocp.options.AsyncOptions(create_directories_asynchronously=jax.process_count() > 1, timeout_secs=A_CENTURY)
    arrays = {name: ocp.StandardCheckpointHandler(use_ocdbt=False) for name in ("params", "ema", "rest")}
    handler = _Handler(composite_options=ocp.CompositeOptions(async_options=options), progress=ocp.JsonCheckpointHandler(), **arrays)
    return ocp.AsyncCheckpointer(handler, async_options=options)


def _not_by_orbax(record: logging.LogRecord) -> bool:
    return "orbax" not in record.pathname and "orbax" not in str(record.exc_info and record.exc_info[1]) + str(record.msg)


def _cause(error: BaseException) -> str:
    """The innermost error's first line, cut where it gets long."""
    while error.__cause__ is not None:
        error = error.__cause__
    said = error.strerror if isinstance(error, OSError) and error.strerror and not error.filename else str(error)
    line = next((line for line in said.splitlines() if line.strip()), "") or type(error).__name__
    return line if len(line) <= 300 else line[:300] + " ..."


def _difference(folder: Path, items: dict) -> str:
    """The first array that the stored items do not have as it is asked for, or have too much; "" when there is none."""
    for item, asked in items.items():
        there = {path.parent.name: json.loads(path.read_text())["shape"] for path in (folder / item).glob("*/.zarray")}
        for path, leaf in jax.tree_util.tree_leaves_with_path(getattr(asked, "item", None)):
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            if name not in there:
                return f"{item}/{name} is not there"
            shape = tuple(there.pop(name))
            if shape != leaf.shape:
                return f"{item}/{name} is {shape}, asked {leaf.shape}"
        if there:
            return f"{item}/{min(there)} is there, but is not asked for"
    return ""


def _items(state: State) -> dict:
    rest = {field.name: getattr(state, field.name) for field in dataclasses.fields(state) if field.name not in ("params", "ema")}
    items = {"params": state.params, "rest": rest}
    if state.ema is not None:
        items["ema"] = state.ema
    return items


def state_bytes(abstract: State) -> int:
    """Bytes of one checkpoint, before compression."""
    saved = (abstract, abstract.params if schedule_free(abstract.opt_state) is not None else None)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(saved))


def load_parameters(run: Run, mesh: Mesh | None = None, *, step: int | None = None, raw: bool = False):
    """Parameters of a run's checkpoint: the averaged ones where the run keeps them, unless `raw`. Returns (params, step).

    mesh: where they are to lie, by default that of `inference_mesh`. step: by default the newest, or with checkpoints.use_best the best.

    Of a run with adapters, those of the whole model: what it started from, with the adapters merged where that can be.
    """
    mesh = inference_mesh(run.experiment.mesh) if mesh is None else mesh
    params, step = load_trained(run, mesh, step=step, raw=raw)
    method = method_of(run.experiment)
    if method is not None:
        begun = open_run(run.path / START, said=lambda line: None)
        base, *_ = base_of(run.experiment, begun.experiment, load_parameters(begun, mesh)[0], mesh)
        params = method.merged(as_rounded(base) if method.options.int8 else base, params)
    return params, step


def load_trained(run: Run, mesh, *, step: int | None = None, raw: bool = False):
    """The same, of what the run trains alone: with adapters, their leaves."""
    experiment = run.experiment
    averaged = experiment.keeps_average and not raw
    abstract = state_of(experiment, mesh, ema=averaged, carry=False)
    checkpointer = Checkpointer(run.path, experiment.checkpoints, identity=run.identity)
    if step is None and experiment.checkpoints.use_best:
        step = checkpointer.best_step()
    try:
        return checkpointer.restore_parameters(abstract.params, averaged=averaged, step=step)
    finally:
        checkpointer.close()


def in_eight_bits(params):
    """`model.quantize` on the devices at hand; UserError for what it cannot do."""
    try:
        return jax.jit(quantize)(params)
    except ValueError as error:
        raise UserError(str(error), "Leave --int8 out.") from None
