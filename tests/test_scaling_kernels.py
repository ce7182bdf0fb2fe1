"""The kernels of scaling do what NumPy does, to the last bit, and so does the exponential they stand on."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from transforms import compiled
from transforms.exponential import LARGEST, LEAST, exponential
from transforms.scaling import FITS, Scaling, lane_sum, linear, logistic, mean_and_std
from transforms.values import fit_columns

needs_kernels = pytest.mark.skipif(compiled.scaling is None, reason="there is no C compiler")
ANY = settings(deadline=None)

# Few different numbers, so that many are equal; and what arithmetic treats in a way of its own.
NUMBERS = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, 1.5, 1.5 + 2**-50, 2.0, -3.25]),
    st.floats(-20, 20, allow_subnormal=False),
)
ODD_NUMBERS = st.one_of(NUMBERS, st.sampled_from([np.nan, np.inf, -np.inf, 5e-324, 1e300, -1e308]))


def matrices(numbers: st.SearchStrategy[float]) -> st.SearchStrategy[np.ndarray]:
    """(row, column) float64 arrays."""
    return st.tuples(st.integers(1, 5), st.integers(1, 40)).flatmap(
        lambda shape: arrays.arrays(np.float64, shape, elements=numbers)
    )


def same_bits(work: Callable[[], np.ndarray]) -> np.ndarray:
    """What comes out with the kernels, if it is what comes out without them; a NaN is a NaN."""
    with pytest.MonkeyPatch.context() as patch, np.errstate(all="ignore"):
        found = work()
        patch.setattr(compiled, "scaling", None)
        plain = work()
    assert found.shape == plain.shape
    there = ~np.isnan(plain)
    np.testing.assert_array_equal(np.isnan(found), ~there)
    assert found[there].tobytes() == plain[there].tobytes()
    return found


# The exponential


@given(arrays.arrays(np.float64, st.integers(0, 50), elements=st.floats(LEAST, LARGEST)))
def test_the_exponential_is_that_of_the_c_library_but_for_its_last_bits(values):
    np.testing.assert_allclose(exponential(values), np.exp(values), rtol=5e-16, atol=0)


def test_the_exponential_keeps_to_the_last_bits_all_over_its_range():
    values = np.random.default_rng(0).uniform(LEAST, LARGEST, 1_000_000)
    np.testing.assert_allclose(exponential(values), np.exp(values), rtol=5e-16, atol=0)


def test_the_ends_of_the_exponential():
    values = np.array([-np.inf, -1e300, -708.5, 0.0, -0.0, 709.5, 1e300, np.inf, np.nan])
    least = 0 < exponential(np.array(LEAST)) < 4e-308
    assert least
    found = exponential(values)
    assert (found[:3] == exponential(np.array(LEAST))).all()
    np.testing.assert_array_equal(found[3:], [1, 1, np.inf, np.inf, np.inf, np.nan])


# Kernels


@needs_kernels
@given(matrices(ODD_NUMBERS), st.data())
@ANY
def test_functions_of_a_value(values, data):
    n_rows, n_columns = values.shape
    shape = data.draw(st.sampled_from([(n_rows, 1), (1, n_columns)]))
    centre, scale, low, width = (
        data.draw(arrays.arrays(np.float64, shape, elements=ODD_NUMBERS)) for _ in range(4)
    )
    same_bits(lambda: logistic(values, centre, scale))
    same_bits(lambda: logistic(values, centre, scale, low, width))
    same_bits(lambda: linear(values, centre, scale))
    same_bits(lambda: linear(values, centre))


@needs_kernels
@given(matrices(ODD_NUMBERS))
@ANY
def test_means_and_deviations(values):
    same_bits(lambda: np.hstack(mean_and_std(values)))


@needs_kernels
@given(st.sampled_from([*FITS]), matrices(ODD_NUMBERS))
@ANY
def test_fits(method, values):
    def work() -> np.ndarray:
        scaling: Scaling = FITS[method](values)
        return np.hstack([*scaling.numbers().values(), scaling(values)])

    same_bits(work)


@needs_kernels
@given(matrices(ODD_NUMBERS), st.sampled_from([*FITS]))
@ANY
def test_columns_of_blocks(values, method):
    blocks = np.array_split(values, min(2, len(values)))

    def work() -> np.ndarray:
        scaling = fit_columns(list(blocks), FITS[method])
        return np.hstack([*(part.ravel() for part in scaling.numbers().values()), *scaling.by_column(values)])

    same_bits(work)


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 1_000])
def test_sums_of_lanes_are_sums(n):
    values = np.random.default_rng(1).normal(size=(3, n))
    np.testing.assert_allclose(lane_sum(values), values.sum(axis=1), rtol=1e-12, atol=1e-12)
