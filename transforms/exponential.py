"""The exponential function, to the same last bit on every machine.

NumPy's, and that of a C library, differ from each other in the last bit, and so would the tables of two
machines. This one is made of what IEEE 754 rounds alike everywhere; the kernels in C do the same steps.
"""

from math import factorial

import numpy as np
from numpy.typing import NDArray

LEAST, LARGEST = -708.0, 709.0
"""Where the result is still a normal number; below it is that of `LEAST`, 3e-308, above it infinite."""

# ln 2 in two parts, of which the first has zeros at its end: a whole number of them is exact.
_LN2_HIGH, _LN2_LOW = 0.6931471803691238, 1.9082149292705877e-10
_LOG2_E = 1.4426950408889634
_ROUNDING = 1.5 * 2.0**52  # added to a number, leaves no bits for what is behind its point
_COEFFICIENTS = [1 / factorial(power) for power in range(12, -1, -1)]


def exponential(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Raise e to the power of each value.

    e^x = 2^k e^r with k whole and abs(r) <= ln(2) / 2, where twelve terms of Taylor's series are enough.

    Parameters
    ----------
    values : float64 array of any shape

    Returns
    -------
    float64 array of the same shape
        Within 2 units in the last place; see `LEAST` for the ends.
    """
    inside = np.where(values < LEAST, LEAST, values)
    inside = np.where(inside > LARGEST, LARGEST, inside)
    shifted = np.atleast_1d(inside * _LOG2_E + _ROUNDING)
    whole = shifted - _ROUNDING
    rest = inside - whole * _LN2_HIGH
    rest = rest - whole * _LN2_LOW
    total = np.full(rest.shape, _COEFFICIENTS[0])
    for coefficient in _COEFFICIENTS[1:]:
        total *= rest
        total += coefficient
    with np.errstate(over="ignore"):
        total *= ((shifted.view(np.uint64) + np.uint64(1023)) << np.uint64(52)).view(np.float64)
    result: NDArray[np.float64] = np.where(values > LARGEST, np.inf, total.reshape(np.shape(values)))
    return result
