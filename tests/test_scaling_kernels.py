"""The kernels of scaling do what NumPy does, to the last bit, and so does the exponential they stand on."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tests.bits import ANY, NUMBERS, ODD_NUMBERS, matrices, same_bits
from transforms import compiled
from transforms.aggregate import METRICS
from transforms.exponential import LARGEST, LEAST, exponential
from transforms.lanes import lane_sum
from transforms.scaled import Groups, Scaled, SideBySide, as_array
from transforms.scaling import FITS, Scaling, linear, logistic, mean_and_std
from transforms.values import fit_columns

needs_kernels = pytest.mark.skipif(compiled.scaling is None, reason="there is no C compiler")


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


# Scaled where they are asked for


@st.composite
def scaled(draw: st.DrawFn, numbers: st.SearchStrategy[float]) -> tuple[Scaled, np.ndarray]:
    """Some columns of a matrix in up to three groups, and the region of each, -1 for none."""
    values = draw(matrices(numbers))
    n_columns = values.shape[1]
    columns = np.array(draw(st.lists(st.integers(0, n_columns - 1), min_size=1, unique=True)))
    group = np.array(draw(st.lists(st.integers(-1, 2), min_size=len(columns), max_size=len(columns))))
    members = [np.flatnonzero(group == name) for name in np.unique(group[group >= 0])]
    if not members:
        members = [np.arange(len(columns))]
    region = draw(arrays.arrays(np.intp, len(columns), elements=st.integers(-1, 3)))
    return Scaled(values, Groups(columns, members), FITS[draw(st.sampled_from([*FITS]))]), region


def regions(values: Scaled | np.ndarray, region: np.ndarray, metric: str) -> np.ndarray:
    return METRICS[metric].over_samples(values, region, 4)


@needs_kernels
@pytest.mark.parametrize("metric", METRICS)
@given(scaled(ODD_NUMBERS))
@ANY
def test_regions_of_scaled_values_by_kernels_and_without(metric, drawn):
    values, region = drawn
    fresh = [Scaled(values.values, values.groups, values.fit) for _ in range(2)]
    same_bits(lambda: regions(fresh.pop(), region, metric))
    fresh = [Scaled(values.values, values.groups, values.fit) for _ in range(2)]
    same_bits(lambda: fresh.pop().array)


@pytest.mark.parametrize("metric", METRICS)
@given(scaled(NUMBERS))
@ANY
def test_scaled_values_are_each_group_scaled_by_itself(metric, drawn):
    values, region = drawn
    expected = np.full(values.shape, np.nan)
    with np.errstate(all="ignore"):
        for members in values.groups.members:
            own = values.values.take(
                values.groups.columns[members], axis=1
            )  # row by row, as sums depend on it
            expected[:, members] = values.fit(own)(own)
    np.testing.assert_array_equal(values.array, expected)
    taken = np.arange(len(region))[::-2]
    np.testing.assert_array_equal(values.take(taken), expected[:, taken])
    found = regions(values, region, metric)
    for number in range(4):
        inside = expected[:, region == number]
        plain = np.array([REDUCTIONS[metric](row[~np.isnan(row)]) for row in inside])
        np.testing.assert_allclose(found[:, number], plain, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("metric", METRICS)
@given(st.data(), st.lists(st.booleans(), min_size=1, max_size=3))
@ANY
def test_donors_side_by_side_are_averaged_as_one_matrix(metric, data, are_scaled):
    shape = st.tuples(st.just(data.draw(st.integers(1, 10))), st.integers(1, 12))
    parts: list[Scaled | np.ndarray] = []
    for is_scaled in are_scaled:
        values = data.draw(arrays.arrays(np.float64, shape, elements=NUMBERS))
        groups = Groups.of(np.arange(values.shape[1]))
        parts.append(Scaled(values, groups, FITS["scaled_robust_sigmoid"]) if is_scaled else values)
    several = SideBySide(parts)
    region = data.draw(arrays.arrays(np.intp, several.shape[1], elements=st.integers(-1, 3)))
    joined = np.concatenate([as_array(part) for part in parts], axis=1)
    found = same_bits(lambda: regions(SideBySide(parts), region, metric))
    np.testing.assert_array_equal(found, regions(joined, region, metric))
    np.testing.assert_array_equal(several.array, joined)
    np.testing.assert_array_equal(several.take(np.arange(len(region))[::-1]), joined[:, ::-1])


REDUCTIONS = {
    "mean": lambda row: row.mean() if len(row) else np.nan,
    "median": lambda row: np.median(row) if len(row) else np.nan,
}


@needs_kernels
@pytest.mark.parametrize("n", [1, 2, 3, 7, 8, 9, 31, 64, 100, 333])
@pytest.mark.parametrize("gaps", [0.0, 0.1, 1.0])
def test_medians_of_regions_of_any_size(n, gaps):
    random = np.random.default_rng(n)
    values = np.where(random.random((19, 3 * n)) < gaps, np.nan, random.normal(size=(19, 3 * n)).round(1))
    region = random.permutation(np.repeat([0, 1, 2], n))
    found = same_bits(lambda: METRICS["median"].over_samples(values, region, 3))
    plain = pd.DataFrame(values.T).groupby(region).median().T
    np.testing.assert_allclose(found, plain, rtol=1e-15, atol=1e-15)


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 1_000])
def test_sums_of_lanes_are_sums(n):
    values = np.random.default_rng(1).normal(size=(3, n))
    np.testing.assert_allclose(lane_sum(values), values.sum(axis=1), rtol=1e-12, atol=1e-12)
