import numpy as np
import pytest

from data.media.signals.products import product


@pytest.mark.parametrize("shape", [(0, 5, 3), (1, 1, 1), (7, 80, 201), (64, 216, 128), (33, 16, 512), (100, 3000, 3)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_product_in_blocks_is_the_product(shape, dtype):
    count, inner, width = shape
    draw = np.random.default_rng(0)
    x_NK, y_KM = draw.normal(size=(count, inner)).astype(dtype), draw.normal(size=(width, inner)).astype(dtype).T
    found = product(x_NK, y_KM)
    assert found.dtype == dtype and found.shape == (count, width)
    error = np.abs(found - x_NK.astype(np.float64) @ y_KM.astype(np.float64))
    assert (error <= inner * np.finfo(dtype).eps * (np.abs(x_NK) @ np.abs(y_KM) + 1)).all()


def test_no_product_wakes_other_threads(monkeypatch):
    """OpenBLAS divides products of more than 2^18 multiplications."""
    sizes, matmul = [], np.matmul
    monkeypatch.setattr(np, "matmul", lambda x, y, out: (sizes.append(x.shape[0] * x.shape[1] * y.shape[1]), matmul(x, y, out=out))[1])
    for inner, width in ((48, 128), (216, 128), (768, 256), (201, 201), (16, 1024)):
        product(np.ones((196, inner), np.float32), np.ones((inner, width), np.float32))
    assert sizes and max(sizes) <= 1 << 18
