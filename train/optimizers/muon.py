"""Orthogonalising stacks of matrices, as Muon wants its momentum (Jordan et al. 2024)."""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

COEFFICIENTS = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)
"""a, b, c of x -> a x + b x^3 + c x^5, step by step (of Dion, Ahn et al. 2025). Singular values of 0.004 to 1 become 0.97 to 1.15."""


def orthogonalize(x_NIO):
    """Each of N matrices with its singular values brought near 1 and its directions kept, by a Newton-Schulz iteration.

    What makes it cheap: it runs on the smaller side; a matrix at least twice as long as wide is read only at the beginning and the end,
    since all polynomials of its Gram matrix commute; and every copy of the model takes some of the N matrices, where their number
    divides, instead of each taking all.
    """
    if x_NIO.shape[1] > x_NIO.shape[2]:
        return orthogonalize(x_NIO.mT).mT
    x = _split(x_NIO, "data")
    x = x / (jnp.linalg.norm(x, axis=(1, 2), keepdims=True) + 1e-8)
    side, length = x.shape[1:]
    return _split(_by_gram_matrix(x) if length >= 2 * side else _iterate(x), None)


def _iterate(x):
    for a, b, c in COEFFICIENTS:
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x


def _by_gram_matrix(x):
    """The same with small square matrices alone: x becomes p x, and its Gram matrix p gram p.

    In full float32 everywhere: rounded to 16 bits, as accelerators would by default, powers of a Gram matrix run away.
    """
    with jax.default_matmul_precision("highest"):
        return _polynomial(x) @ x


def _polynomial(x):
    gram, product, identity = x @ x.mT, None, jnp.eye(x.shape[1], dtype=x.dtype)
    for step, (a, b, c) in enumerate(COEFFICIENTS, 1):
        p = a * identity + b * gram + c * (gram @ gram)
        product = p if product is None else p @ product
        if step < len(COEFFICIENTS):
            gram = p @ gram @ p
    return product


def _split(x, axis: str | None):
    """x [N, ...] with N split over the mesh's data axis, or whole again; its other axes are the compiler's."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or x.shape[0] % mesh.shape["data"]:
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(axis, PartitionSpec.UNCONSTRAINED, PartitionSpec.UNCONSTRAINED))
