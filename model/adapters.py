"""What may stand beside the parameters of any family, and is read where it stands: terms of low rank, bottlenecks."""

import jax
import jax.numpy as jnp

from model.decoding.quantize import Quantized


def matrix_of(kernel, inputs: int):
    """float32 [inputs, outputs]: a kernel, quantized or not, as one matrix."""
    if isinstance(kernel, Quantized):
        return (kernel.values.astype(jnp.float32) * kernel.scale[:, None]).T
    return kernel.reshape(inputs, -1)


def with_low_rank(x_RK, y_RO, kernel, factors: dict):
    """What a projection gives, y_RO = x_RK W, with a term of low rank, (x a) b (Hu et al. 2021, arXiv:2106.09685, eq. 3). Has y's type.

    factors: a [K, r] and b [r, O]. `magnitude` [O], if it is there, is the norm that each column of W + a b is brought to (DoRA, Liu et al.
    2024, arXiv:2402.09353, eq. 5; no gradient goes through the norm, their sec. 4.3). `rows` [B, r], if it is there, is what each row of
    the batch multiplies its x a by: with zeros and ones, rows choose among adapters that stand side by side.
    """
    dtype = y_RO.dtype
    h = x_RK @ factors["a"].astype(dtype)
    if "rows" in factors:
        rows_BM = factors["rows"].astype(dtype)
        h = (h.reshape(rows_BM.shape[0], -1, h.shape[-1]) * rows_BM[:, None]).reshape(h.shape)
    y_RO = y_RO + h @ factors["b"].astype(dtype)
    if "magnitude" in factors:
        norm_O = jax.lax.stop_gradient(column_norms(matrix_of(kernel, x_RK.shape[1]) + factors["a"] @ factors["b"]))
        y_RO = y_RO * (factors["magnitude"] / norm_O).astype(dtype)
    return y_RO


def column_norms(matrix_KO):
    """[O]: the Euclidean norm of each output's weights, kept above zero."""
    return jnp.maximum(jnp.linalg.norm(matrix_KO, axis=-2), 1e-12)


def bottleneck(x_BTD, leaves: dict, activation):
    """A bottleneck adapter (Houlsby et al. 2019, arXiv:1902.00751, sec. 2.1): x + up(activation(down(x))).

    leaves: down [D, m], down_bias [m], up [m, D], up_bias [D].
    """
    dtype = x_BTD.dtype
    h_BTM = activation(x_BTD @ leaves["down"].astype(dtype) + leaves["down_bias"].astype(dtype))
    return x_BTD + h_BTM @ leaves["up"].astype(dtype) + leaves["up_bias"].astype(dtype)
