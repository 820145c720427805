"""Matrix products that keep to one thread."""

import numpy as np

_ONE_THREAD = 1 << 18  # multiplications in a product up to which OpenBLAS takes one thread


def product(x_NK: np.ndarray, y_KM: np.ndarray) -> np.ndarray:
    """[N, M], computed in blocks that BLAS does not divide among threads.

    Every process that makes rows has one core: threads that wait for one another cost several times what they save.
    """
    (count, inner), width = x_NK.shape, y_KM.shape[1]
    rows = max(min(_ONE_THREAD // (inner * width), count), 32)
    columns = max(_ONE_THREAD // (rows * inner), 1)
    out_NM = np.empty((count, width), np.result_type(x_NK, y_KM))
    for row in range(0, count, rows):
        for column in range(0, width, columns):
            np.matmul(x_NK[row : row + rows], y_KM[:, column : column + columns], out=out_NM[row : row + rows, column : column + columns])
    return out_NM
