"""How the mesh in force splits logical axes, for what the compiler cannot split by itself and each device therefore does alone."""

import math

import flax.linen as nn
import jax


def mesh_axes(logical: str, size: int):
    """The mesh axes (None, a name, or several) that split a dimension with this logical axis: none where they do not divide `size`."""
    axes = nn.logical_to_mesh_axes((logical,))[0]
    return axes if size % shards(axes) == 0 else None


def shards(axes) -> int:
    """The number of parts that mesh axes split a dimension into; 1 outside of a mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    names = (axes,) if isinstance(axes, str) else axes or ()
    return 1 if mesh.empty else math.prod(mesh.shape[name] for name in names)


def on_each_device(function, in_specs, out_specs):
    """`function`, called by every device on its own part; as it is outside of a mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return function
    return jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)
