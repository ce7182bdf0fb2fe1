"""Rows kept from when probes were scored give what reading them again gives, to the last bit."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from dask.delayed import delayed
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import lake
from lake.sources import source_of
from transforms.atlas import Atlas
from transforms.blocks import Cells
from transforms.kept import ChosenRows, KeptRows, Rows, ScoredRows, may_be_chosen
from transforms.pipeline import Pipeline
from transforms.regions import RegionTables, region_tables
from transforms.selections import SELECTIONS
from transforms.values import FreshValues, block_sizes
from transforms.workflow import choose_genes, choose_samples, filtered_probes

READ = sorted(name for name, method in SELECTIONS.items() if method.score and method.reads == "expression")
WITHOUT_RNASEQ = [name for name in READ if not SELECTIONS[name].rnaseq_by]
SCORES = arrays(
    np.float64, st.tuples(st.just(12), st.integers(1, 3)), elements=st.sampled_from([0, 1, 2, np.nan])
)


def tables(store: lake.Lake, atlas: Atlas, pipeline: Pipeline, *, keep: bool, unpacked: bool = False) -> Any:
    """The tables, and the rows in memory."""
    source = source_of(store)
    if unpacked:
        source = replace(source, microarray=source.microarray.persist())
    samples, probes = filtered_probes(source, pipeline, choose_samples(source, pipeline, store.donors))
    kept = np.arange(len(samples)) if keep else None
    genes = choose_genes(source, pipeline, samples, probes, keep=kept)
    found = region_tables(genes, FreshValues(source, genes, pipeline), atlas, pipeline)
    return found, genes.selection.kept


def assert_same_tables(found: RegionTables, expected: RegionTables) -> None:
    assert found.expression.equals(expected.expression)
    assert found.genes.equals(expected.genes)
    for donor, table in expected.donor_expression.items():
        assert found.donor_expression[donor].equals(table)


@pytest.mark.parametrize("sample_norm", ["srs", "zscore", "hampel", None])
def test_kept_rows_are_those_of_the_store(
    small_lake: lake.Lake, atlas: Atlas, sample_norm: str | None
) -> None:
    pipeline = Pipeline(sample_norm=sample_norm)
    found, kept = tables(small_lake, atlas, pipeline, keep=True)
    read, not_kept = tables(small_lake, atlas, pipeline, keep=False)
    assert not_kept is None
    assert kept.nbytes > 0
    assert_same_tables(found, read)


@pytest.mark.parametrize("unpacked", [False, True])
@pytest.mark.parametrize("donor_probes", ["aggregate", "common", "independent"])
@pytest.mark.parametrize("probe_selection", WITHOUT_RNASEQ)
def test_every_way_of_choosing_chooses_from_rows_in_memory(
    small_lake: lake.Lake, atlas: Atlas, probe_selection: str, donor_probes: str, unpacked: bool
) -> None:
    pipeline = Pipeline(probe_selection=probe_selection, donor_probes=donor_probes)
    found, kept = tables(small_lake, atlas, pipeline, keep=True, unpacked=unpacked)
    read, _ = tables(small_lake, atlas, pipeline, keep=False)
    assert (kept.nbytes == 0) == unpacked
    assert_same_tables(found, read)


@pytest.mark.parametrize("unpacked", [False, True])
@pytest.mark.parametrize("choices", [{"reannotated": False}, {"lr_mirror": "bidirectional"}])
def test_genes_in_another_order_and_copied_samples_are_kept_too(
    small_lake: lake.Lake, atlas: Atlas, choices: dict[str, Any], unpacked: bool
) -> None:
    """The store's order is that of the re-annotated symbols; genes by published ones are not in it."""
    found, kept = tables(small_lake, atlas, Pipeline(**choices), keep=True, unpacked=unpacked)
    read, _ = tables(small_lake, atlas, Pipeline(**choices), keep=False)
    assert kept is not None
    assert_same_tables(found, read)


def test_detected_samples_choose_rows_of_expression_in_memory(small_lake: lake.Lake, atlas: Atlas) -> None:
    pipeline = Pipeline(probe_selection="LessNoise")
    found, kept = tables(small_lake, atlas, pipeline, keep=True, unpacked=True)
    read, not_kept = tables(small_lake, atlas, pipeline, keep=True)
    assert kept is not None
    assert not_kept is None
    assert_same_tables(found, read)


def test_copies_of_samples_are_kept_once(small_lake: lake.Lake, atlas: Atlas) -> None:
    _, once = tables(small_lake, atlas, Pipeline(), keep=True)
    _, mirrored = tables(small_lake, atlas, Pipeline(lr_mirror="bidirectional"), keep=True)
    assert len(mirrored.samples) > len(once.samples)
    assert mirrored.nbytes / sum(mirrored.sizes) == once.nbytes / sum(once.sizes)


def test_only_the_samples_asked_for_are_kept(small_lake: lake.Lake) -> None:
    source, pipeline = source_of(small_lake), Pipeline()
    samples, probes = filtered_probes(source, pipeline, choose_samples(source, pipeline, small_lake.donors))
    wanted = np.arange(0, len(samples), 3)
    genes = choose_genes(source, pipeline, samples, probes, keep=wanted)
    kept = genes.selection.kept
    assert kept is not None
    ((block,), *_) = kept.grid.chunks
    assert block.compute().shape[1] == len(wanted)
    assert sum(block_sizes(genes)) == len(genes.selection.genes)
    assert kept.nbytes == 8 * len(wanted) * len(genes.selection.genes)
    assert genes.without_rows().selection.kept is None


@given(scores=SCORES, undefined=st.sampled_from([-np.inf, np.inf]), cut=st.integers(1, 11))
def test_no_probe_that_wins_is_lost(scores: np.ndarray, undefined: float, cut: int) -> None:
    genes = np.repeat(["A", "B", "C"], 4).astype(object)
    marked = np.concatenate(
        [may_be_chosen(scores[part], genes[part]) for part in np.split(np.arange(12), [cut])]
    )
    ranked = np.where(np.isnan(scores), undefined, scores)
    for gene in "ABC":
        own = np.flatnonzero(genes == gene)
        for pool in ranked[own].T:
            assert marked[own[pool == pool.max()]].all()


def test_worse_probes_are_let_go() -> None:
    scores = np.array([[1.0], [3.0], [2.0], [3.0], [5.0]])
    marked = may_be_chosen(scores, np.array(["A", "A", "A", "A", "B"], dtype=object))
    assert marked.tolist() == [False, True, False, True, True]


def block_of(*values: float) -> object:
    return delayed(ScoredRows(np.empty((0, 1)), np.arange(len(values)), np.array(values)[:, np.newaxis]))


def values_of(chosen: ChosenRows) -> dict[str, list[list[float]]]:
    """Donor -> the first sample's values, block by block."""
    return {
        donor: [rows.compute()[:].ravel().tolist() for rows in chosen.of(donor, np.arange(1))]
        for donor in chosen.rows
    }


def test_genes_in_the_order_of_blocks_keep_them_apart() -> None:
    kept = kept_rows([3, 5], [8, 9])
    chosen = kept.chosen({"d": np.array([5, 3, 9]), "e": np.array([3, 3, 8])})
    assert chosen.sizes == [2, 1]
    assert values_of(chosen) == {"d": [[5, 3], [9]], "e": [[3, 3], [8]]}


def test_genes_may_go_back_and_forth_between_blocks_and_differ_between_donors() -> None:
    chosen = kept_rows([3, 5], [8, 9]).chosen({"d": np.array([3, 8, 5, 9]), "e": np.array([8, 9, 3, 5])})
    assert chosen.sizes == [2, 2]
    assert values_of(chosen) == {"d": [[3, 8], [5, 9]], "e": [[8, 9], [3, 5]]}


def kept_rows(*rows: list[int]) -> KeptRows:
    return KeptRows(
        [np.array(own) for own in rows], np.arange(1), np.zeros(1, int), [block_of(*own) for own in rows]
    )


@given(st.data())
def test_rows_are_sliced_as_arrays_are(data: st.DataObject) -> None:
    matrix = np.arange(60.0).reshape(10, 6)
    rows = np.array(data.draw(st.lists(st.integers(0, 9), min_size=1)))
    columns = np.array(data.draw(st.lists(st.integers(0, 5), min_size=1)))
    chunks = [matrix[:4, :1], matrix[:4, 1:], matrix[4:, :1], matrix[4:, 1:]]
    cells = Cells.of(rows, columns, [(4, 6), (1, 5)])
    found = Rows(cells, [chunks[2 * row + column] for row, column in cells.chunks])
    expected = matrix[np.ix_(rows, columns)]
    first, last = sorted(data.draw(st.tuples(st.integers(0, 6), st.integers(0, 6))))
    some = np.array(data.draw(st.lists(st.integers(0, len(columns) - 1))), dtype=int)
    assert found.shape == expected.shape
    assert len(found) == len(expected)
    np.testing.assert_array_equal(found[:], expected)
    np.testing.assert_array_equal(found[:, first:last], expected[:, first:last])
    np.testing.assert_array_equal(found[:, some], expected[:, some])
    assert found[:].flags.c_contiguous
