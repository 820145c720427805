"""Where a token stands: rotary positions (learned ones are a table in the decoder)."""

import jax.numpy as jnp


def rotary_angles(positions_BT, width: int, base: float):
    """Sine and cosine of the rotation of each position (Su et al. 2021, eq. 34).

    positions_BT: int, counted from the start of each document. Returns two float32 arrays [B, T, width / 2].
    """
    wavelength_K = base ** (-jnp.arange(0, width, 2, dtype=jnp.float32) / width)
    angle_BTK = positions_BT[..., None].astype(jnp.float32) * wavelength_K
    return jnp.sin(angle_BTK), jnp.cos(angle_BTK)


def rotate(x_BTHK, angles):
    """Rotate the pairs (k, k + K/2) of each head by the angles of its position, in float32; keeps x's type.

    The halves are paired as in Llama's released weights; attention scores then depend on relative position alone.
    """
    sin_BT1K, cos_BT1K = (angle[:, :, None, :] for angle in angles)
    first, second = jnp.split(x_BTHK.astype(jnp.float32), 2, axis=-1)
    rotated = jnp.concatenate([first * cos_BT1K - second * sin_BT1K, second * cos_BT1K + first * sin_BT1K], axis=-1)
    return rotated.astype(x_BTHK.dtype)
