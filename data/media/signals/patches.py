"""Pictures cut into patches, in the order in which every s x s block of them lies together; for NumPy and JAX arrays alike."""

import numpy as np


def patchify(images_BHW3, patch: int, block: int = 1):
    """[B, H, W, 3] to [B, N, patch * patch * 3]: patches block by block of `block` x `block`, row by row; the values of each likewise.

    H and W must be multiples of patch * block.
    """
    batch, height, width, colours = images_BHW3.shape
    rows, columns = height // (patch * block), width // (patch * block)
    x = images_BHW3.reshape(batch, rows, block, patch, columns, block, patch, colours)
    return x.transpose(0, 1, 4, 2, 5, 3, 6, 7).reshape(batch, rows * columns * block**2, patch**2 * colours)


def unpatchify(patches_BNC, rows: int, columns: int, patch: int, block: int = 1):
    """The inverse: pictures of rows x columns patches, [B, rows * patch, columns * patch, 3]."""
    batch, _, values = patches_BNC.shape
    colours = values // patch**2
    x = patches_BNC.reshape(batch, rows // block, columns // block, block, block, patch, patch, colours)
    return x.transpose(0, 1, 3, 5, 2, 4, 6, 7).reshape(batch, rows * patch, columns * patch, colours)


def grid(rows: int, columns: int, block: int = 1) -> np.ndarray:
    """(y, x) of each patch in that order, int32 [rows * columns, 2]."""
    y, x = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    where = np.stack([y, x], -1).reshape(rows // block, block, columns // block, block, 2)
    return where.transpose(0, 2, 1, 3, 4).reshape(-1, 2).astype(np.int32)
