"""Weights that tell how long their gradient is without making it: what private training with two passes reads in place of a matrix.

A unit's gradient of a matrix is x^T dy, over the rows x that the matrix is applied to and the derivatives dy of what comes out. Its squared
norm is also the sum of (x x^T) * (dy dy^T) (Goodfellow 2015, arXiv:1510.01799; Li et al. 2022, arXiv:2110.05679, sec. 4), and comes out as
the derivative of `square`, a zero that goes along. Under vmap over units, of which the matrix has no axis, each has its own.
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp


class Uses:
    """What was read of a table in a trace, so that the products of several gradients of one table are counted too."""

    def __init__(self):
        self.looked_up: list[tuple[Any, Any]] = []
        self.multiplied = False


class Watched(flax.struct.PyTreeNode):
    """A kernel [..., inputs, outputs] or table [V, D], as `matrix`, and `square`, float32 zeros [..., 2] whose derivative is asked: the sum
    of the squared norms of its uses, and their number. A table's has the products of its uses in it and is exact; a kernel used more than
    once, such as of a shared layer, is not, but see `squared_norm`."""

    matrix: Any
    square: Any
    uses: Uses = flax.struct.field(pytree_node=False)

    @property
    def shape(self):
        return self.matrix.shape

    def product(self, x_RK, dtype):
        """x_RK times the kernel as one matrix."""
        return _product(x_RK.astype(dtype), self.matrix.reshape(x_RK.shape[1], -1).astype(dtype), self.square)

    def __getitem__(self, ids):
        """Rows of the table. ValueError where it is read after it gave logits."""
        if self.uses.multiplied:
            raise ValueError("a table is read again after it gave logits, and the norm of its gradient cannot be told")
        rows_SD, cross_SD = _looked_up(
            self.matrix[ids].reshape(-1, self.matrix.shape[1]), ids.reshape(-1), self.square, tuple(self.uses.looked_up)
        )
        self.uses.looked_up.append((ids.reshape(-1), cross_SD))
        return rows_SD.reshape(*ids.shape, -1)

    def logits(self, hidden):
        """float32 [..., V]: hidden [..., D] times the rows of the table. ValueError where it gave some before."""
        if self.uses.multiplied:
            raise ValueError("a table gives logits twice, and the norm of its gradient cannot be told")
        self.uses.multiplied = True
        h_TD = hidden.reshape(-1, hidden.shape[-1])
        x_TV = jnp.einsum("TD,VD->TV", h_TD, self.matrix.astype(h_TD.dtype), preferred_element_type=jnp.float32)
        x_TV = _given(x_TV, h_TD, self.square, tuple(self.uses.looked_up))
        return x_TV.reshape(*hidden.shape[:-1], -1)


def squared_norm(derivative, *, table: bool):
    """Of the derivative by `square`: the squared norm of the gradient; of a kernel that was used n times, n times the sum of the squares,
    which is never below the truth (Cauchy and Schwarz)."""
    return (derivative[..., 0] if table else derivative[..., 0] * derivative[..., 1]).sum()


def _square(x_RK, dy_RO):
    """|x^T dy|^2 of float32 arrays, in the cheaper of the two ways."""
    (rows, inputs), outputs = x_RK.shape, dy_RO.shape[1]
    if rows * (inputs + outputs) < inputs * outputs:
        return ((x_RK @ x_RK.T) * (dy_RO @ dy_RO.T)).sum()
    return jnp.square(x_RK.T @ dy_RO).sum()


def _used(square):
    """The derivative by `square` that one use gives."""
    return jnp.stack([square, jnp.float32(1)])


@jax.custom_vjp
def _product(x_RK, kernel_KO, square):
    return x_RK @ kernel_KO


def _product_forward(x_RK, kernel_KO, square):
    return x_RK @ kernel_KO, (x_RK, kernel_KO)


def _product_backward(saved, dy_RO):
    x_RK, kernel_KO = saved
    dx_RK = (dy_RO @ kernel_KO.T).astype(x_RK.dtype)
    return dx_RK, jnp.zeros_like(kernel_KO), _used(_square(x_RK.astype(jnp.float32), dy_RO.astype(jnp.float32)))


_product.defvjp(_product_forward, _product_backward)


def _same(ids_S, others_R):
    """float32 [S, R]: where two look-ups are of one row."""
    return (ids_S[:, None] == others_R[None]).astype(jnp.float32)


@jax.custom_vjp
def _looked_up(rows_SD, ids_S, square, before):
    """(the rows, zeros of their shape). Whoever uses the table later gives as derivative of those zeros its own gradient of these rows."""
    return rows_SD, jnp.zeros_like(rows_SD)


def _looked_up_forward(rows_SD, ids_S, square, before):
    return (rows_SD, jnp.zeros_like(rows_SD)), (rows_SD, ids_S, before)


def _looked_up_backward(saved, derivatives):
    rows_SD, ids_S, before = saved
    d_SD, later_SD = (x.astype(jnp.float32) for x in derivatives)
    square = (_same(ids_S, ids_S) * (d_SD @ d_SD.T)).sum() + 2 * (d_SD * later_SD).sum()
    return jnp.zeros_like(rows_SD), None, _used(square), tuple((None, _same(ids_R, ids_S) @ d_SD) for ids_R, _ in before)


_looked_up.defvjp(_looked_up_forward, _looked_up_backward)


@jax.custom_vjp
def _given(x_TV, h_TD, square, before):
    return x_TV


def _given_forward(x_TV, h_TD, square, before):
    return x_TV, (h_TD, before)


def _given_backward(saved, dx_TV):
    h_TD, before = saved
    h_TD, d_TV = h_TD.astype(jnp.float32), dx_TV.astype(jnp.float32)
    square = _square(h_TD, d_TV)
    return dx_TV, jnp.zeros_like(saved[0]), _used(square), tuple((None, d_TV[:, ids_S].T @ h_TD) for ids_S, _ in before)


_given.defvjp(_given_forward, _given_backward)
