"""Annotation, the intensity filter, and genes' values, against plain numpy and pandas."""

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.blocks import gather
from transforms.errors import ChoiceError
from transforms.probes import (
    ProbeSelection,
    annotate_probes,
    detected_fraction,
    filter_probes,
    gene_expression,
)


def forbid_compute(*args, **kwargs):
    raise AssertionError("something was computed while a graph was being built")


def lazy(values, *, chunks=(3, 4)):
    return xr.DataArray(da.from_array(np.asarray(values), chunks=chunks), dims=("probe", "sample"))


def counted(values, *, chunks):
    """A lazy (probe, sample) array, and the set of block numbers that have been read from it."""
    read = set()

    def load(block_info=None):
        read.add(block_info[None]["chunk-location"])
        return values[tuple(slice(*where) for where in block_info[None]["array-location"])]

    blocks = da.map_blocks(
        load,
        chunks=da.core.normalize_chunks(chunks, values.shape),
        dtype=values.dtype,
        meta=values[:0, :0],
    )
    return xr.DataArray(blocks, dims=("probe", "sample")), read


@pytest.fixture
def probes():
    return pd.DataFrame(
        {
            "probe_id": [30, 10, 20, 50, 40],
            "gene_symbol": ["A", "A", "B", "A_23", "C"],
            "entrez_id": [1, 1, 2, -1, 3],
            "reannotated_gene_symbol": ["A", "", "B2", "D", "C"],
            "reannotated_entrez_id": [1, -1, 2, 4, -1],
            "published_row": [4, 0, 3, 1, 2],
        }
    )


def test_reannotated_probes_ascend_by_id(probes):
    table = annotate_probes(probes, reannotated=True)
    expected = pd.DataFrame(
        {"probe_id": [20, 30, 50], "gene_symbol": ["B2", "A", "D"], "entrez_id": [2, 1, 4], "row": [2, 0, 3]}
    )
    pd.testing.assert_frame_equal(table, expected)


def test_published_probes_keep_the_file_order(probes):
    table = annotate_probes(probes, reannotated=False)
    expected = pd.DataFrame(
        {
            "probe_id": [10, 40, 20, 30],
            "gene_symbol": ["A", "C", "B", "A"],
            "entrez_id": [1, 3, 2, 1],
            "row": [1, 4, 2, 0],
        }
    )
    pd.testing.assert_frame_equal(table, expected)


@settings(deadline=None)
@given(st.data())
def test_detected_fraction_counts_every_prepared_sample(data):
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    detected = random.random((10, 9)) < 0.6
    columns = np.array(data.draw(st.lists(st.integers(0, 8), min_size=1, max_size=20)))
    rows = np.array(data.draw(st.lists(st.integers(0, 9), min_size=1, unique=True)))
    fraction = detected_fraction(lazy(detected), pd.DataFrame({"column": columns}), rows)
    expected = detected[np.ix_(rows, columns)].sum(axis=1) / len(columns)
    np.testing.assert_array_equal(fraction.to_numpy(), expected)


def test_detected_fraction_is_lazy_and_reads_only_the_chunks_it_needs():
    values = np.ones((12, 8), dtype=bool)
    detected, read = counted(values, chunks=(3, 4))
    with dask.config.set(scheduler=forbid_compute):
        fraction = detected_fraction(detected, pd.DataFrame({"column": [5, 4, 5]}), np.array([11, 4, 3]))
    assert not read
    np.testing.assert_array_equal(fraction.to_numpy(), [1, 1, 1])
    assert read == {(1, 1), (3, 1)}


def test_detected_fraction_without_samples_is_refused():
    samples = pd.DataFrame({"column": np.array([], dtype=int)})
    with pytest.raises(ChoiceError, match="no sample is left"):
        detected_fraction(lazy(np.ones((2, 2), bool)), samples, np.array([0]))


@pytest.mark.parametrize(
    ("threshold", "kept"), [(0.5, [1, 2, 3]), (0.51, [2, 3]), (-1.0, [0, 1, 2, 3]), (7.0, [3])]
)
def test_filter_keeps_the_threshold_itself_and_clips_it(threshold, kept):
    annotated = pd.DataFrame({"probe_id": [0, 1, 2, 3]})
    fraction = xr.DataArray(da.from_array(np.array([0, 0.5, 0.75, 1])), dims="probe")
    table = filter_probes(annotated, fraction, threshold)
    assert table["probe_id"].tolist() == kept
    assert table.index.tolist() == list(range(len(kept)))


def test_filter_that_leaves_nothing_says_so():
    with pytest.raises(ChoiceError, match=r"detected in 0\.9 of the samples: lower ibf_threshold"):
        filter_probes(pd.DataFrame({"probe_id": [1]}), xr.DataArray([0.1], dims="probe"), 0.9)


@settings(deadline=None)
@given(st.data())
def test_gather_takes_any_rows_and_columns(data):
    values = np.arange(77.0).reshape(7, 11)
    rows = np.array(data.draw(st.lists(st.integers(0, 6), min_size=1, max_size=12)))
    columns = np.array(data.draw(st.lists(st.integers(0, 10), min_size=1, max_size=15)))
    chunks = (data.draw(st.integers(1, 7)), data.draw(st.integers(1, 11)))
    block = gather(lazy(values, chunks=chunks), rows, columns)
    assert block.numblocks == (1, 1)
    np.testing.assert_array_equal(block.compute(), values[np.ix_(rows, columns)])


def selection(rows, starts):
    genes = pd.DataFrame({"gene_symbol": [f"G{gene}" for gene in range(len(starts) - 1)]})
    return ProbeSelection(genes, {"d": np.array(rows)}, np.array(starts))


@pytest.mark.parametrize("genes_per_block", [1, 2, 3, 100])
def test_gene_expression_averages_the_rows_of_each_gene(genes_per_block):
    values = np.random.default_rng(0).normal(size=(8, 6))
    chosen = selection([6, 0, 3, 5, 1, 2], [0, 2, 3, 6])
    columns = np.array([4, 1, 5, 1])
    found = gene_expression(lazy(values), chosen, "d", columns, genes_per_block=genes_per_block)
    expected = [values[rows][:, columns].mean(axis=0) for rows in ([6, 0], [3], [5, 1, 2])]
    np.testing.assert_allclose(found.to_numpy(), expected, rtol=1e-15)
    assert found["gene"].to_numpy().tolist() == ["G0", "G1", "G2"]
    assert found.dims == ("gene", "sample")


def test_gene_expression_of_single_probes_is_exact_lazy_and_frugal():
    values = np.random.default_rng(0).normal(size=(12, 8))
    expression, read = counted(values, chunks=(3, 4))
    chosen = selection([10, 1, 0], [0, 1, 2, 3])
    with dask.config.set(scheduler=forbid_compute):
        found = gene_expression(expression, chosen, "d", np.array([6, 4, 6]), genes_per_block=2)
    assert found.chunks == ((2, 1), (3,))
    np.testing.assert_array_equal(found.to_numpy(), values[np.ix_([10, 1, 0], [6, 4, 6])])
    assert read == {(0, 1), (3, 1)}
