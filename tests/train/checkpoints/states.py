"""States of a few arrays, and damage to what is saved of them."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from train.step.state import State

IDENTITY, STRANGER = "0123456789abcdef", "fedcba9876543210"


def small_state(step: int, size: int = 64) -> State:
    """A state of a few arrays that zstd cannot compress, different at every step."""
    rng = np.random.default_rng(step)

    def array(*shape):
        return jnp.asarray(rng.standard_normal(shape, np.float32))

    params = {"table": array(size, 16), "layers": {"up": array(2, 16, size)}}
    moments = {"mu": array(size, 16), "count": jnp.int32(step)}
    history = {"mean": array()}
    return State(jnp.int32(step), jnp.int32(4 * step), params, moments, history, ema={"table": array(size, 16)})


ABSTRACT = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), small_state(0))


def same(a, b) -> bool:
    return jax.tree.all(jax.tree.map(lambda x, y: np.asarray(x).tobytes() == np.asarray(y).tobytes(), a, b))


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
