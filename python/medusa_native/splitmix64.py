"""SplitMix64 (Steele, Lea and Flood 2014): the same numbers whatever NumPy's version."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt


def splitmix64(start: int, indices: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return the outputs with these indices, counted from 1, of a generator started at `start`."""
    z: npt.NDArray[np.uint64] = np.uint64(start % 2**64) + indices * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z
