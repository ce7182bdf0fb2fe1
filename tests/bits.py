"""Numbers that put kernels in C to the test, and whether the NumPy code beside them gives the same bits."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tests.helpers import without_kernels

ANY = settings(deadline=None)

# Few different numbers, so that many are equal; and what arithmetic treats in a way of its own.
NUMBERS = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, 1.5, 1.5 + 2**-50, 2.0, -3.25]),
    st.floats(-20, 20, allow_subnormal=False),
)
ODD_NUMBERS = st.one_of(NUMBERS, st.sampled_from([np.nan, np.inf, -np.inf, 5e-324, 1e300]))


def matrices(numbers: st.SearchStrategy[float]) -> st.SearchStrategy[np.ndarray]:
    """(row, column) float64 arrays."""
    return st.tuples(st.integers(1, 6), st.integers(1, 40)).flatmap(
        lambda shape: arrays.arrays(np.float64, shape, elements=numbers)
    )


def same_bits(work: Callable[[], np.ndarray]) -> np.ndarray:
    """What comes out with the kernels, if it is what comes out without them; a NaN is a NaN."""
    with pytest.MonkeyPatch.context() as patch, np.errstate(all="ignore"):
        found = work()
        without_kernels(patch)
        plain = work()
    assert (found.shape, found.dtype) == (plain.shape, plain.dtype)
    there = ~np.isnan(plain)
    np.testing.assert_array_equal(np.isnan(found), ~there)
    assert found[there].tobytes() == plain[there].tobytes()
    return found
