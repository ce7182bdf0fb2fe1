"""The kernels in C do what the NumPy code beside their callers does, to the last bit."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tests.bits import ANY, NUMBERS, ODD_NUMBERS, matrices, same_bits
from tests.helpers import tree, without_kernels, works
from transforms import compiled
from transforms.aggregate import aggregate_donor, combine_donors
from transforms.normalize import NORMALIZATIONS, normalize, normalize_within
from transforms.rank_correlation import Pair, pair_correlations
from transforms.scaling import FITS
from transforms.stability import StructureMeans, pair_stability

needs_kernels = pytest.mark.skipif(compiled.kernels is None, reason="there is no C compiler")


# Stability


def profiles(draw: st.DrawFn, numbers: st.SearchStrategy[float]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Matrices of the same rows, and the names of their columns, of which some are in several."""
    rows = draw(st.integers(1, 5))
    names = [
        np.sort(np.array(draw(st.lists(st.integers(0, 9), min_size=1, max_size=9, unique=True))))
        for _ in range(draw(st.integers(2, 4)))
    ]
    return [draw(arrays.arrays(np.float64, (rows, len(own)), elements=numbers)) for own in names], names


@needs_kernels
@given(st.data())
@ANY
def test_rank_correlations(data: st.DataObject) -> None:
    numbers = data.draw(st.sampled_from([NUMBERS, ODD_NUMBERS]))
    found, names = profiles(data.draw, numbers)
    pairs = [Pair.of((i, j), names) for j in range(len(names)) for i in range(j)]
    same_bits(lambda: pair_correlations(found, pairs))


@needs_kernels
def test_rank_correlations_of_more_rows_than_are_worked_on_at_once() -> None:
    random = np.random.default_rng(0)
    samples = pd.DataFrame(
        {"donor": np.repeat(["a", "b", "c"], 40), "structure_id": random.integers(0, 25, 120)}
    )
    expression = random.normal(size=(700, 120))
    expression[::50, :60] = np.round(expression[::50, :60])  # ties
    scores = same_bits(lambda: pair_stability(expression, np.empty(700), samples))
    assert np.ptp(scores) > 0.5


@needs_kernels
@given(matrices(ODD_NUMBERS), st.data())
@ANY
def test_structure_means(expression: np.ndarray, data: st.DataObject) -> None:
    n_samples = expression.shape[1]
    structures = data.draw(arrays.arrays(np.int64, n_samples, elements=st.integers(0, 3)))
    kept = np.flatnonzero(data.draw(arrays.arrays(np.bool_, n_samples)))
    if len(kept):
        same_bits(lambda: StructureMeans.of(structures[kept], kept)(expression))


# Scaling


@needs_kernels
@pytest.mark.parametrize("method", sorted(NORMALIZATIONS))
@pytest.mark.parametrize("axis", [0, 1])
@given(values=matrices(ODD_NUMBERS))
@ANY
def test_normalisation(method: str, axis: int, values: np.ndarray) -> None:
    same_bits(lambda: normalize(values, method, axis=axis))


@needs_kernels
@pytest.mark.parametrize("method", sorted(FITS))
@given(values=matrices(NUMBERS))
@ANY
def test_scaling_of_columns(method: str, values: np.ndarray) -> None:
    def scaled() -> np.ndarray:
        return FITS[method](np.ascontiguousarray(values.T)).by_column(values)

    found = same_bits(scaled)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(found, normalize(values, method, axis=0))


@needs_kernels
@pytest.mark.parametrize("method", sorted(FITS))
def test_single_precision_and_columns_in_memory(method: str) -> None:
    values = np.random.default_rng(0).normal(size=(4, 30))
    for given_as in (values.astype(np.float32), np.asfortranarray(values), values[:, ::2]):
        same_bits(lambda given_as=given_as: FITS[method](given_as)(given_as))


@needs_kernels
@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_other_numbers_have_averages_too(dtype: type) -> None:
    values = np.arange(12).reshape(3, 4).astype(dtype)
    labels = np.array([1, 2, 1, 0])
    same_bits(lambda: StructureMeans.of(labels, np.arange(4))(values))
    same_bits(lambda: aggregate_donor(values, labels, np.array([1, 2])))
    same_bits(lambda: combine_donors([values, values], "mean"))


@needs_kernels
@given(matrices(NUMBERS), st.data())
@ANY
def test_normalisation_of_structures_apart(values: np.ndarray, data: st.DataObject) -> None:
    groups = np.array(
        data.draw(
            st.lists(
                st.sampled_from(["", "cortex", "cerebellum"]),
                min_size=values.shape[1],
                max_size=values.shape[1],
            )
        ),
        dtype=object,
    )
    missing = data.draw(arrays.arrays(np.bool_, values.shape[1]))
    values = np.where(missing, np.nan, values)
    same_bits(lambda: normalize_within(values, "srs", groups))


# Averages


@needs_kernels
@given(matrices(ODD_NUMBERS), st.data())
@ANY
def test_means_of_regions(values: np.ndarray, data: st.DataObject) -> None:
    labels = data.draw(arrays.arrays(np.int64, values.shape[1], elements=st.sampled_from([0, 1, 2, 4])))
    same_bits(lambda: aggregate_donor(values, labels, np.array([1, 2, 4, 7])))


@needs_kernels
@given(st.integers(1, 4), st.data())
@ANY
def test_means_of_donors(n_donors: int, data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    tables = [data.draw(arrays.arrays(np.float64, shape, elements=ODD_NUMBERS)) for _ in range(n_donors)]
    same_bits(lambda: combine_donors(tables, "mean"))


# The whole way


@needs_kernels
def test_tables_are_the_same_without_kernels(
    store_path: Path, atlas_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("run", "--quiet", "--store", store_path, "--atlas", atlas_file, "--norm-structures", "--out")
    works(*words, tmp_path / "compiled")
    without_kernels(monkeypatch)
    works(*words, tmp_path / "numpy")
    assert tree(tmp_path / "compiled") == tree(tmp_path / "numpy")


def test_kernels_may_be_missing() -> None:
    assert compiled._built("_never_built") is None
