"""Saving and restoring the train state with Orbax: asynchronous, atomic, on any mesh."""

from pathlib import Path

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import args as ocp_args

from data.errors import UserError
from model.quantize import quantize
from train.experiment import Checkpoints, ScheduleFree
from train.optimizer import make_optimizer
from train.runs import Run
from train.state import State, abstract_state, schedule_free


class Checkpointer:
    """The checkpoints of one run, in `<run>/checkpoints/<step>/`.

    Parameters, their average and the rest of the state are separate items, so that generation reads only what it needs; `progress` is
    the loop's own bookkeeping, as JSON.
    """

    def __init__(self, run_dir: Path, options: Checkpoints = Checkpoints()):
        self._manager = ocp.CheckpointManager(
            Path(run_dir).absolute() / "checkpoints",
            options=ocp.CheckpointManagerOptions(max_to_keep=options.keep, enable_async_checkpointing=True),
        )

    def latest_step(self) -> int | None:
        return self._manager.latest_step()

    def save(self, state: State, progress: dict) -> None:
        """Start saving; the copy to disk goes on while training does."""
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        trees = _items(state)
        if schedule_free(state.opt_state) is not None:
            trees["ema"] = state.averaged  # can be computed again, but whoever reads parameters alone could not
        items = {name: ocp_args.StandardSave(tree) for name, tree in trees.items()}
        self._manager.save(step, args=ocp_args.Composite(progress=ocp_args.JsonSave(progress), **items))

    def restore(self, abstract: State, step: int | None = None) -> tuple[State, dict]:
        """The state saved at `step` (default: the latest), placed as `abstract` says, whatever mesh saved it; and the progress."""
        step = self._step(step)
        items = {name: ocp_args.StandardRestore(tree) for name, tree in _items(abstract).items()}
        found = self._manager.restore(step, args=ocp_args.Composite(progress=ocp_args.JsonRestore(), **items))
        rest = found["rest"]
        state = State(rest["step"], rest["cursor"], found["params"], rest["opt_state"], found.get("ema"), rest["carry"])
        return state, found["progress"]

    def restore_parameters(self, abstract_params, *, averaged: bool, step: int | None = None):
        """The parameters alone: the averaged ones, or those that are trained. Returns (params, step)."""
        step = self._step(step)
        name = "ema" if averaged else "params"
        found = self._manager.restore(step, args=ocp_args.Composite(**{name: ocp_args.StandardRestore(abstract_params)}))
        return found[name], step

    def wait(self) -> None:
        """Return when what was saved is on disk; raises what went wrong on the way."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.close()

    def _step(self, step: int | None) -> int:
        steps = self._manager.all_steps()
        if not steps:
            raise UserError(f"{self._manager.directory}: no checkpoint", "Train first: `omnia train CONFIG.py --run-dir DIR`.")
        if step is not None and step not in steps:
            raise UserError(f"{self._manager.directory}: no checkpoint of step {step}", f"There are: {', '.join(map(str, sorted(steps)))}.")
        return max(steps) if step is None else step


def _items(state: State) -> dict:
    rest = {"step": state.step, "cursor": state.cursor, "opt_state": state.opt_state, "carry": state.carry}
    items = {"params": state.params, "rest": rest}
    if state.ema is not None:
        items["ema"] = state.ema
    return items


def state_bytes(abstract: State) -> int:
    """Bytes of one checkpoint, before compression."""
    saved = (abstract, abstract.params if schedule_free(abstract.opt_state) is not None else None)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(saved))


def load_parameters(run: Run, mesh, *, step: int | None = None, raw: bool = False):
    """Parameters of a run's checkpoint on `mesh`: the averaged ones where the run keeps them, unless `raw`. Returns (params, step)."""
    experiment = run.experiment
    averaged = (experiment.ema_decay > 0 or isinstance(experiment.optimizer, ScheduleFree)) and not raw
    optimizer = make_optimizer(experiment.optimizer, experiment.schedule, experiment.steps)
    abstract = abstract_state(experiment.model, optimizer, mesh, ema=averaged)
    checkpointer = Checkpointer(run.path, experiment.checkpoints)
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
