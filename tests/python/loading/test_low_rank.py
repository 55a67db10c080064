"""The native sum of a weight and an adapter."""

from __future__ import annotations

import numpy as np
import pytest
from gguf import GGMLQuantizationType, quants

from medusa_native import InvalidArgument, _core
from medusa_native.loading import HostTensor


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize(("rows", "columns", "rank"), [(1, 7, 3), (45, 50, 1), (33, 64, 0)])
def test_it_is_the_sum_rounded_once(rows: int, columns: int, rank: int, dtype: str) -> None:
    rng = np.random.default_rng(1)
    base = rng.standard_normal((rows, columns), dtype=np.float32)
    up = rng.standard_normal((rows, rank), dtype=np.float32)
    down = rng.standard_normal((rank, columns), dtype=np.float32)
    data, largest = _core.add_low_rank((base, "F32", base.shape), up, down, 0.5, dtype)
    found = HostTensor(data, dtype, base.shape).to_float32()
    expected = base + 0.5 * (up.astype(np.float64) @ down)
    bound = {"F32": 1e-6, "F16": 2.0**-11, "BF16": 2.0**-8}[dtype]
    assert np.abs(found - expected).max() <= 1.01 * bound * np.abs(expected).max()
    assert largest == pytest.approx(np.abs(expected).max(), rel=1e-6)


def test_blocks_are_widened() -> None:
    base = np.random.default_rng(2).standard_normal((20, 64)).astype(np.float32)
    blocks = quants.quantize(base, GGMLQuantizationType.Q8_0)
    one = np.ones((20, 1), np.float32), np.ones((1, 64), np.float32)
    data, _ = _core.add_low_rank((blocks.reshape(-1), "Q8_0", base.shape), *one, 2.0, "F32")
    expected = quants.dequantize(blocks, GGMLQuantizationType.Q8_0) + np.float32(2)
    assert (HostTensor(data, "F32", base.shape).to_float32() == expected).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("row", [0, 17, 99])
def test_what_is_not_finite_is_seen(bad: float, row: int) -> None:
    base = np.ones((100, 32), np.float32)
    base[row, 3] = bad
    nothing = np.empty((100, 0), np.float32), np.empty((0, 32), np.float32)
    assert not np.isfinite(_core.add_low_rank((base, "F32", base.shape), *nothing, 1.0, "BF16")[1])


def test_what_does_not_fit_is_refused() -> None:
    base = np.ones((4, 32), np.float32)
    for up, down, dtype in [((4, 2), (3, 32), "F32"), ((5, 2), (2, 32), "F32"),
                            ((4, 2), (2, 31), "F32"), ((4, 2), (2, 32), "Q8_0")]:  # fmt: skip
        with pytest.raises(InvalidArgument, match="add_low_rank: "):
            _core.add_low_rank(
                (base, "F32", base.shape), np.ones(up, np.float32), np.ones(down, np.float32),
                1.0, dtype,
            )  # fmt: skip
