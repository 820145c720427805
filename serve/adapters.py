"""Adapters that requests choose by name, side by side on the one model that is served."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from data.errors import UserError
from model.stack import unstack_layers
from train.adapters.low_rank import LowRankTerms
from train.adapters.together import side_by_side
from train.adapters.training import method_of
from train.checkpoints.checkpointer import load_parameters, load_trained
from train.devices.mesh import inference_mesh
from train.runs.directory import START, open_run


def parse_names(given: tuple[str, ...], model: str) -> dict[str, Path]:
    """{name: folder of the run} of what --adapters gives, each NAME=RUN or RUN, whose name is then that of its folder."""
    found: dict[str, Path] = {}
    for one in given:
        name, equals, path = one.partition("=")
        folder = Path(path if equals else one)
        name = name if equals else folder.resolve().name
        if not name or name == model or name in found:
            raise UserError(f"--adapters {one}: the name {name!r} is {'taken' if name else 'empty'}", "Give another: --adapters NAME=RUN.")
        found[name] = folder
    return found


def load_adapters(folders: dict[str, Path], params: Any) -> Any:
    """The adapters of some runs as one tree, in their order, with its layers apart. params: of the model that is served.

    UserError for a run without terms of low rank, with more than those, or that was trained beside another model.
    """
    trees = []
    for folder in folders.values():
        run = open_run(folder)
        method = method_of(run.experiment)
        if not isinstance(method, LowRankTerms):
            raise UserError(f"{folder}: holds no LoRA", "Only adapters of low rank can stand side by side: serve it by itself.")
        mesh = inference_mesh(run.experiment.mesh)
        base, _ = load_parameters(open_run(folder / START, said=lambda line: None), mesh)
        if not _same(base, params):
            raise UserError(f"{folder}: was trained beside another model", "Serve the run that it started from.")
        trees.append(method.read(base, load_trained(run, mesh)[0]))
    try:
        together = side_by_side(trees)
    except ValueError as error:
        raise UserError(f"--adapters: {error}", "Serve such a run by itself: its adapters are merged.") from None
    return unstack_layers(together) if "layers" in together else together


def _same(one: Any, other: Any) -> bool:
    """Whether two trees have the same values. They are compared where they lie: of several hosts none has all of them."""
    if jax.tree.map(lambda x: (x.shape, x.dtype), one) != jax.tree.map(lambda x: (x.shape, x.dtype), other):
        return False
    equal = jax.jit(lambda *trees: jnp.array([(x == y).all() for x, y in zip(*map(jax.tree.leaves, trees), strict=True)]).all())
    return bool(equal(one, other))
