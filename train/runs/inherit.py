"""What a run takes of the parameters of the one that it starts from."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from train.experiment import Experiment
from train.kinds import Path
from train.objectives.bind import bind, whole_shapes
from train.runs.parts import get, put


def inherited(experiment: Experiment, begun: Experiment, source, params):
    """`params` of an experiment, with those of another, `source`, in their place as far as both have them, in the same shapes.

    params may be shapes with places. A critic that is not taken over begins as the trunk of the policy, with the scalar head of that trunk,
    if it has one: that of a reward model, or of a critic on the policy's own hidden states. Returns (the parameters, the names of parts
    that begin anew, those of parts that are left behind).
    """
    own, there = bind(experiment), dict(bind(begun).parts)
    here = own.parts
    offered: dict[Path, Any] = {here[name]: get(source, there[name]) for name in here.keys() & there.keys()}
    if own.inherit is not None:
        offered |= {path: part for path, part in own.inherit(source, there).items() if offered.get(path) is None}
    for name in {"layers", "encoder"} & here.keys() if experiment.start_layers else ():
        offered[here[name]] = with_layers(offered.get(here[name]), experiment.start_layers, within=name == "layers")
    found, anew = params, []
    for name, path in here.items():
        part, old = offered.get(path), get(params, path)
        if old is None:
            continue
        if part is not None and _agree(part, old):
            found = put(found, path, _placed(part, old))
        else:
            anew.append(name)
    left = [name for name, path in there.items() if name not in here and get(source, path) is not None]
    return found, anew, left


def base_of(experiment: Experiment, begun: Experiment, source, mesh):
    """The frozen parameters of a run with adapters, on a mesh: all that it takes of `source`; and what `inherited` says beside."""
    found, anew, left = inherited(experiment, begun, source, whole_shapes(experiment, mesh))
    there = {path: leaf for path, leaf in flatten_dict(found).items() if not isinstance(leaf, jax.ShapeDtypeStruct)}
    return unflatten_dict(there), anew, left


def new_parts(experiment: Experiment, begun: Experiment) -> list[str]:
    """The paths of the parts of an experiment's parameters that it does not take from another."""
    source, params = (jax.eval_shape(lambda one=one: nn.unbox(bind(one).start(jax.random.key(0)))) for one in (begun, experiment))
    _, anew, _ = inherited(experiment, begun, source, params)
    return ["/".join(bind(experiment).parts[name]) for name in anew]


def with_layers(part, layers: tuple[int, ...], within: bool = False):
    """A part of a tree of parameters with these of its layers alone. within: whether it is itself a stack of layers."""
    if isinstance(part, dict):
        return {name: with_layers(one, layers, within or name == "layers") for name, one in part.items()}
    if part is None or not within:
        return part
    if isinstance(part, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct((len(layers), *part.shape[1:]), part.dtype)
    return part[jnp.array(layers)]


def _agree(part, old) -> bool:
    """Whether both trees have the same leaves, in the same shapes."""
    shapes = [[(path, leaf.shape) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)] for tree in (part, old)]
    return shapes[0] == shapes[1]


def _placed(part, old):
    """A copy of it, where the old one lies; itself, if need be moved, where the old one is a shape alone. Shapes as they are."""
    if _is_abstract(part):
        return part
    if _is_abstract(old):
        return jax.device_put(part, jax.tree.map(lambda leaf: leaf.sharding, old))
    return jax.device_put(jax.tree.map(jnp.copy, part), jax.tree.map(lambda leaf: leaf.sharding, old))


def _is_abstract(tree) -> bool:
    return any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(tree))
