"""Arrays in large pages."""

from __future__ import annotations

import numpy as np
import pytest

from gpt2_np import pages


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9, 1.0, 1.4, 1.9, 2.0, 3.3])
def test_large_arrays_begin_where_a_large_page_does(share: float, dtype: type) -> None:
    numbers = int(share * pages.LARGE) // np.dtype(dtype).itemsize // 2
    array = pages.empty((2, numbers), dtype)
    assert (array.shape, array.dtype) == ((2, numbers), dtype)
    assert array.flags.c_contiguous
    assert array.ctypes.data % pages.LARGE == 0 or share < 0.5
    array[...] = 1
