"""The kernels that choose probes do what the NumPy code beside their callers does, to the last bit."""

from collections.abc import Callable
from itertools import accumulate
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tests.bits import ANY, NUMBERS, ODD_NUMBERS, same_bits
from transforms import blocks, compiled
from transforms.blocks import Cells, cut_into_parts, in_memory, matrix_of
from transforms.probes import ProbeSelection, gene_expression
from transforms.rank_correlation import Pair, pair_correlations
from transforms.scores import (
    coefficient_of_variation,
    corr_intensity,
    corr_variance,
    max_intensity,
    max_variance,
)
from transforms.select import probe_scores
from transforms.selections import SELECTIONS

needs_kernels = pytest.mark.skipif(compiled.scores is None, reason="there is no C compiler")
SCORES = [max_intensity, max_variance, coefficient_of_variation, corr_intensity, corr_variance]


def drawn(data: st.DataObject, shape: tuple[int, int], numbers: st.SearchStrategy[float]) -> np.ndarray:
    return data.draw(arrays.arrays(np.float64, shape, elements=numbers))


# Taking rows and columns ------------------------------------------------------------------------------------


def split(matrix: np.ndarray, sizes: tuple[list[int], list[int]]) -> dict[tuple[int, int], np.ndarray]:
    """Chunks by number."""
    edges = [[0, *accumulate(own)] for own in sizes]
    return {
        (row, column): np.ascontiguousarray(
            matrix[edges[0][row] : edges[0][row + 1], edges[1][column] : edges[1][column + 1]]
        )
        for row in range(len(sizes[0]))
        for column in range(len(sizes[1]))
    }


def positions(size: int) -> st.SearchStrategy[np.ndarray]:
    """Some positions in any order with repeats, or some that follow each other."""
    runs = st.tuples(st.integers(0, size - 1), st.integers(1, size)).map(
        lambda ends: np.arange(ends[0], min(size, ends[0] + ends[1]))
    )
    few = st.lists(st.integers(0, size - 1), min_size=1, max_size=9).map(np.array)
    return st.lists(st.one_of(runs, few), min_size=1, max_size=3).map(np.concatenate)


@pytest.mark.parametrize("dtype", [np.float64, np.bool_, np.float32, np.dtype(">f8")])
@given(data=st.data())
@ANY
def test_cells_are_those_of_the_whole_matrix(dtype: Any, data: st.DataObject) -> None:
    sizes = tuple(data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=4)) for _ in range(2))
    shape = sum(sizes[0]), sum(sizes[1])
    matrix = (np.arange(shape[0] * shape[1]).reshape(shape) % 7 - 3).astype(dtype)
    rows, columns = (data.draw(positions(size)) for size in shape)
    cells, chunks = Cells.of(rows, columns, sizes), split(matrix, sizes)
    held = [chunks[number] for number in cells.chunks]
    np.testing.assert_array_equal(same_bits(lambda: cells.copied(held)), matrix[np.ix_(rows, columns)])
    some = data.draw(positions(len(rows))), data.draw(positions(len(columns)))
    part = same_bits(lambda: cells.part(*some).copied(held))
    np.testing.assert_array_equal(part, matrix[np.ix_(rows[some[0]], columns[some[1]])])
    assert part.flags.c_contiguous
    assert part.dtype == dtype


def test_chunks_that_are_parts_of_others_are_copied_too() -> None:
    matrix = np.arange(24.0).reshape(4, 6)
    cells = Cells.of(np.array([2, 0]), np.array([2, 0]), [(4,), (3,)])
    np.testing.assert_array_equal(cells.copied([matrix[:, ::2]]), [[16, 12], [4, 0]])


def test_rows_are_worked_on_in_parts_that_take_over_each_others_memory() -> None:
    matrix = np.arange(40.0).reshape(10, 4)
    cells = Cells.of(np.arange(9, -1, -1), np.arange(4), [(10,), (4,)])
    parts = cells.copied_in_parts([matrix], [0, 4, 5, 10])
    seen = [(part.copy(), part.base) for part in parts]
    assert [len(part) for part, _ in seen] == [4, 1, 5]
    assert len({id(base) for _, base in seen}) == 1
    np.testing.assert_array_equal(np.concatenate([part for part, _ in seen]), matrix[::-1])


@given(st.lists(st.integers(1, 9), min_size=1), st.integers(0, 40))
def test_parts_are_cut_where_units_begin(sizes: list[int], n_columns: int) -> None:
    starts, n_rows = np.array([0, *accumulate(sizes)][:-1]), sum(sizes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BYTES_AT_ONCE", 8 * 60)
        cuts = cut_into_parts(starts, n_rows, n_columns)
    assert cuts[0] == 0
    assert cuts[-1] == n_rows
    assert set(cuts[:-1]) <= set(starts.tolist())
    assert (np.diff(cuts) < 60 // max(1, n_columns) + max(sizes)).all() or n_columns >= 60


def test_what_dask_keeps_in_this_process_is_in_memory() -> None:
    array = xr.DataArray(da.zeros((4, 6), chunks=(2, 3)) + 1, dims=("probe", "sample"))
    assert not in_memory(matrix_of(array))
    assert in_memory(matrix_of(array.persist(scheduler="sync")))
    assert not in_memory(matrix_of(array.persist(scheduler="sync") + 1))


# Scores -----------------------------------------------------------------------------------------------------


def genes_of(sizes: list[int]) -> np.ndarray:
    return np.repeat(np.array([f"G{number}" for number in range(len(sizes))], dtype=object), sizes)


@needs_kernels
@pytest.mark.parametrize("score", SCORES)
@given(data=st.data())
@ANY
def test_scores(score: Callable[..., np.ndarray], data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    numbers = data.draw(st.sampled_from([NUMBERS, ODD_NUMBERS]))
    wide = drawn(data, (sum(sizes), data.draw(st.integers(1, 40))), numbers)
    first = data.draw(st.integers(0, wide.shape[1] - 1))
    for expression in (wide, wide[:, first:], wide[:, ::-1], np.asfortranarray(wide)):
        same_bits(lambda expression=expression: score(expression, genes_of(sizes), pd.DataFrame()))


def test_scores_of_many_samples_are_those_of_numpy() -> None:
    expression = np.random.default_rng(0).normal(8, 2, (9, 1001))
    sizes, samples = [1, 3, 5], pd.DataFrame()
    expected = {
        max_intensity: expression.mean(axis=1),
        max_variance: expression.std(axis=1, ddof=1),
        coefficient_of_variation: expression.std(axis=1, ddof=1) / expression.mean(axis=1),
        corr_intensity: np.r_[
            1.0,
            *(((np.corrcoef(expression[part]) + 1) / 2).mean(axis=1) for part in (slice(1, 4), slice(4, 9))),
        ],
    }
    for score, values in expected.items():
        found = same_bits(lambda score=score: score(expression, genes_of(sizes), samples))
        np.testing.assert_allclose(found, values, rtol=1e-12)


def test_a_constant_probe_leaves_its_gene_without_scores() -> None:
    expression = np.random.default_rng(0).normal(size=(7, 12))
    expression[1] = 3
    found = same_bits(lambda: corr_variance(expression, genes_of([3, 4]), pd.DataFrame()))
    assert np.isnan(found).tolist() == [True] * 3 + [False] * 4


@needs_kernels
@given(data=st.data())
@ANY
def test_ranks_with_many_ties(data: st.DataObject) -> None:
    n_rows = data.draw(st.integers(1, 4))
    columns = st.lists(st.integers(0, 12), min_size=1, max_size=12, unique=True)
    names = [np.sort(data.draw(columns)) for _ in range(data.draw(st.integers(2, 4)))]
    values = st.sampled_from([0.0, -0.0, 1.0, 1.0 + 2**-52, 2.0, np.nan, np.inf])
    profiles = [drawn(data, (n_rows, len(own)), values) for own in names]
    pairs = [Pair.of((one, other), names) for other in range(len(names)) for one in range(other)]
    found = same_bits(lambda: pair_correlations(profiles, pairs))
    for number, pair in enumerate(pairs):
        one, other = (
            pd.DataFrame(profiles[own][:, shared])
            for own, shared in zip(pair.matrices, pair.shared, strict=True)
        )
        with np.errstate(all="ignore"):
            expected = one.rank(axis=1).corrwith(other.rank(axis=1), axis=1)
        whole = ~(one.isna() | other.isna()).any(axis=1).to_numpy() & (len(pair.shared[0]) > 1)
        np.testing.assert_allclose(found[whole, number], expected[whole], atol=1e-12)
        assert np.isnan(found[~whole, number]).all()


# Whole steps ------------------------------------------------------------------------------------------------


@given(data=st.data())
@ANY
def test_gene_means(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=6))
    n_samples = data.draw(st.integers(1, 5))
    matrix = drawn(data, (12, n_samples), data.draw(st.sampled_from([NUMBERS, ODD_NUMBERS])))
    rows = np.array(data.draw(st.lists(st.integers(0, 11), min_size=sum(sizes), max_size=sum(sizes))))
    genes = pd.DataFrame({"gene_symbol": genes_of([1] * len(sizes))})
    selection = ProbeSelection(genes, {"d": rows}, np.array([0, *accumulate(sizes)]))
    array = xr.DataArray(da.from_array(matrix, chunks=(5, 2)), dims=("probe", "sample"))

    def means() -> np.ndarray:
        found = gene_expression(array, selection, "d", np.arange(n_samples), genes_per_block=4)
        return found.compute(scheduler="sync").to_numpy()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BYTES_AT_ONCE", data.draw(st.sampled_from([1, 100, 10_000])))
        found = same_bits(means)
    with np.errstate(all="ignore"):
        expected = [own.mean(axis=0) for own in np.split(matrix[rows], selection.starts[1:-1])]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def scored(probe_selection: str, donor_probes: str) -> np.ndarray:
    random = np.random.default_rng(0)
    n_samples, sizes = 60, random.integers(1, 5, 40)
    samples = pd.DataFrame(
        {
            "donor": np.repeat(["1", "2", "3"], 20),
            "structure_id": random.integers(0, 9, n_samples),
            "well_id": np.arange(n_samples),
            "column": np.r_[0:20, 0:20, 30:50],
        }
    )
    n_probes = sizes.sum()
    probes = pd.DataFrame(
        {
            "probe_id": np.arange(n_probes),
            "gene_symbol": genes_of(sizes),
            "entrez_id": np.repeat(np.arange(40), sizes),
            "row": np.arange(n_probes),
        }
    )
    by_well = {"2": pd.DataFrame(random.normal(size=(40, 12)), np.arange(40), np.arange(22, 34))}
    by_structure = {
        "2": pd.DataFrame(random.normal(size=(40, 9)), probes["gene_symbol"].unique(), np.arange(9))
    }
    values = da.from_array(random.normal(8, 1, (n_probes, 50)), chunks=(30, 20))
    method = SELECTIONS[probe_selection]
    scores = probe_scores(
        xr.DataArray(values, dims=("probe", "sample")),
        probes,
        samples,
        probe_selection=probe_selection,
        donor_probes=donor_probes,
        rnaseq=by_well if method.rnaseq_by == "well" else by_structure,
        detected=xr.DataArray(values > 8, dims=("probe", "sample")),
        probes_per_block=50,
    )
    return scores.compute(scheduler="sync").to_numpy()


@pytest.mark.parametrize("donor_probes", ["aggregate", "independent"])
@pytest.mark.parametrize("probe_selection", [name for name, method in SELECTIONS.items() if method.score])
def test_a_score_does_not_depend_on_what_is_worked_on_at_once(
    monkeypatch: pytest.MonkeyPatch, probe_selection: str, donor_probes: str
) -> None:
    expected = same_bits(lambda: scored(probe_selection, donor_probes))
    monkeypatch.setattr(blocks, "BYTES_AT_ONCE", 8 * 60 * 3)
    np.testing.assert_array_equal(scored(probe_selection, donor_probes), expected)
    assert np.isfinite(expected).any()


@pytest.mark.parametrize(("probe_selection", "read"), [("rnaseq", {0}), ("diff_stability", {0, 1, 2})])
def test_only_donors_with_rnaseq_are_read_for_it(probe_selection: str, read: set[int]) -> None:
    seen: set[int] = set()

    def noted(block: np.ndarray, block_id: tuple[int, int] | None = None) -> np.ndarray:
        seen.add(block_id[1] if block_id else -1)
        return block

    values = da.from_array(np.random.default_rng(0).normal(size=(12, 9)), chunks=(12, 3))
    expression = xr.DataArray(da.map_blocks(noted, values, meta=np.empty((0, 0))), dims=("probe", "sample"))
    samples = pd.DataFrame(
        {"donor": np.repeat(["1", "2", "3"], 3), "structure_id": [1, 2, 3] * 3, "column": range(9)}
    )
    probes = pd.DataFrame(
        {"probe_id": range(12), "gene_symbol": genes_of([2] * 6), "entrez_id": range(12), "row": range(12)}
    )
    table = pd.DataFrame(
        np.random.default_rng(1).normal(size=(6, 3)), probes["gene_symbol"].unique(), [1, 2, 3]
    )
    probe_scores(
        expression,
        probes,
        samples,
        probe_selection=probe_selection,
        donor_probes="aggregate",
        rnaseq={"1": table},
    ).compute(scheduler="sync")
    assert seen == read
