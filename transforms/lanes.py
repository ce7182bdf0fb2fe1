"""Sums in an order that a processor is quick with, the same by NumPy and by the kernels in C."""

import numpy as np
from numpy.typing import NDArray

LANES = 8
"""Partial sums, which a processor can make side by side."""


def lane_sum(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum over the last axis: eight sums, each of every eighth value, and of these."""
    whole = values.shape[-1] // LANES * LANES
    eights = values[..., :whole].reshape(*values.shape[:-1], whole // LANES, LANES)
    parts = np.add.reduce(eights, axis=-2, initial=0.0, dtype=np.float64)
    parts[..., : values.shape[-1] - whole] += values[..., whole:]
    first = (parts[..., 0] + parts[..., 4]) + (parts[..., 2] + parts[..., 6])
    total: NDArray[np.float64] = first + ((parts[..., 1] + parts[..., 5]) + (parts[..., 3] + parts[..., 7]))
    return total
