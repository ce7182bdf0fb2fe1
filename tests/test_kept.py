"""Rows kept from when probes were scored give what reading them again gives, to the last bit."""

import numpy as np
import pytest
from dask.delayed import delayed
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import lake
from lake.sources import source_of
from transforms.atlas import Atlas
from transforms.kept import KeptRows, Rows, ScoredRows, may_be_chosen
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


def tables(store: lake.Lake, atlas: Atlas, pipeline: Pipeline, *, keep: bool) -> tuple[RegionTables, bool]:
    """The tables, and whether rows were kept."""
    source = source_of(store)
    samples, probes = filtered_probes(source, pipeline, choose_samples(source, pipeline, store.donors))
    kept = np.arange(len(samples)) if keep else None
    genes = choose_genes(source, pipeline, samples, probes, keep=kept)
    found = region_tables(genes, FreshValues(source, genes, pipeline), atlas, pipeline)
    return found, genes.selection.kept is not None


@pytest.mark.parametrize("sample_norm", ["srs", "zscore", "hampel", None])
def test_kept_rows_are_those_of_the_store(
    small_lake: lake.Lake, atlas: Atlas, sample_norm: str | None
) -> None:
    pipeline = Pipeline(sample_norm=sample_norm)
    kept, were_kept = tables(small_lake, atlas, pipeline, keep=True)
    read, _ = tables(small_lake, atlas, pipeline, keep=False)
    assert were_kept
    assert kept.expression.equals(read.expression)
    for donor, table in read.donor_expression.items():
        assert kept.donor_expression[donor].equals(table)


@pytest.mark.parametrize("donor_probes", ["aggregate", "common", "independent"])
@pytest.mark.parametrize("probe_selection", WITHOUT_RNASEQ)
def test_every_way_of_choosing_chooses_from_kept_rows(
    small_lake: lake.Lake, atlas: Atlas, probe_selection: str, donor_probes: str
) -> None:
    pipeline = Pipeline(probe_selection=probe_selection, donor_probes=donor_probes)
    kept, _ = tables(small_lake, atlas, pipeline, keep=True)
    read, _ = tables(small_lake, atlas, pipeline, keep=False)
    assert kept.expression.equals(read.expression)
    assert kept.genes.equals(read.genes)


def test_probes_in_another_order_are_read_again(small_lake: lake.Lake, atlas: Atlas) -> None:
    """The store's order is that of the re-annotated symbols; genes by published ones are not in it."""
    pipeline = Pipeline(reannotated=False)
    kept, were_kept = tables(small_lake, atlas, pipeline, keep=True)
    read, _ = tables(small_lake, atlas, pipeline, keep=False)
    assert kept.expression.equals(read.expression)
    assert not were_kept or kept.genes["gene_symbol"].is_monotonic_increasing


def test_only_the_samples_asked_for_are_kept(small_lake: lake.Lake) -> None:
    source, pipeline = source_of(small_lake), Pipeline()
    samples, probes = filtered_probes(source, pipeline, choose_samples(source, pipeline, small_lake.donors))
    wanted = np.arange(0, len(samples), 3)
    genes = choose_genes(source, pipeline, samples, probes, keep=wanted)
    assert genes.selection.kept is not None
    (block, *_) = genes.selection.kept.blocks
    assert block.compute().values.shape[1] == len(wanted)
    assert sum(block_sizes(genes)) == len(genes.selection.genes)
    assert genes.selection.kept.nbytes == 8 * len(wanted) * len(genes.selection.genes)
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


def test_genes_that_go_back_and_forth_between_blocks_are_not_kept() -> None:
    kept = KeptRows([np.array([3, 5]), np.array([8, 9])], np.arange(1), [block_of(3, 5), block_of(8, 9)])
    assert kept.chosen({"d": np.array([3, 8, 5])}) is None
    assert kept.chosen({"d": np.array([3, 8]), "e": np.array([8, 9])}) is None
    chosen = kept.chosen({"d": np.array([5, 3, 9]), "e": np.array([3, 3, 8])})
    assert chosen is not None
    assert chosen.sizes == [2, 1]
    values = {
        donor: [rows.compute()[:].ravel().tolist() for rows in chosen.of(donor, np.arange(1))]
        for donor in "de"
    }
    assert values == {"d": [[5, 3], [9]], "e": [[3, 3], [8]]}


@given(st.data())
def test_rows_are_sliced_as_arrays_are(data: st.DataObject) -> None:
    matrix = np.arange(60.0).reshape(10, 6)
    rows = np.array(data.draw(st.lists(st.integers(0, 9), min_size=1)))
    columns = np.array(data.draw(st.lists(st.integers(0, 5), min_size=1)))
    found, expected = Rows(matrix, rows, columns), matrix[np.ix_(rows, columns)]
    first, last = sorted(data.draw(st.tuples(st.integers(0, 6), st.integers(0, 6))))
    assert found.shape == expected.shape
    assert len(found) == len(expected)
    np.testing.assert_array_equal(found[:], expected)
    np.testing.assert_array_equal(found[:, first:last], expected[:, first:last])
    assert found[:].flags.c_contiguous
