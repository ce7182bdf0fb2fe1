"""Aggregation against pandas, against the recorded output of abagen 0.1.3, and by its properties."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from transforms import aggregate as module
from transforms.aggregate import (
    METRICS,
    aggregate_donor,
    check_metric,
    combine_donors,
    count_samples,
    drop_unusable_genes,
)
from transforms.errors import AtlasError, ChoiceError

RECORDED = json.loads((Path(__file__).parent / "data" / "abagen_aggregate.json").read_text())
REGIONS = np.array(RECORDED["regions"])
GENES = RECORDED["genes"]
NAMED = {"mean": "mean", "median": "median", "max": np.max}


def array(values, *shape):
    return np.array(values, dtype=float).reshape(shape)


@pytest.fixture(scope="module")
def donors():
    """The recorded donors: (gene, sample) values and labels of each."""
    return [
        (array(values, -1, len(GENES)).T, np.array(labels))
        for values, labels in zip(RECORDED["values"], RECORDED["labels"], strict=True)
    ]


def kept_genes(table):
    keep = drop_unusable_genes(table)
    return [gene for gene, kept in zip(GENES, keep, strict=True) if kept], table[keep]


@pytest.mark.parametrize("metric", NAMED)
def test_each_donors_table_is_abagens(donors, metric):
    for (values, labels), recorded in zip(donors, RECORDED["per_donor"][metric], strict=True):
        result = aggregate_donor(values, labels, REGIONS, NAMED[metric])
        expected = array(recorded, len(REGIONS), len(GENES)).T
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("metric", NAMED)
def test_the_table_over_donors_is_abagens(donors, metric):
    per_donor = np.stack([aggregate_donor(*donor, REGIONS, NAMED[metric]) for donor in donors])
    genes, table = kept_genes(combine_donors(per_donor, NAMED[metric]))
    expected = RECORDED["donors"][metric]
    assert genes == expected["genes"]
    np.testing.assert_allclose(table.T, array(expected["table"], len(REGIONS), -1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("metric", NAMED)
def test_the_table_over_all_samples_at_once_is_abagens(donors, metric):
    values, labels = (np.concatenate(parts, axis=-1) for parts in zip(*donors, strict=True))
    genes, table = kept_genes(aggregate_donor(values, labels, REGIONS, NAMED[metric]))
    expected = RECORDED["samples"][metric]
    assert genes == expected["genes"]
    np.testing.assert_allclose(table.T, array(expected["table"], len(REGIONS), -1), rtol=0, atol=1e-12)


# Against pandas --------------------------------------------------------------------------------------------


@st.composite
def donor_tables(draw):
    """(gene, sample) values with gaps, and labels among regions 2, 3, 7, 9 or none."""
    n_genes, n_samples = draw(st.integers(1, 5)), draw(st.integers(1, 12))
    elements = st.one_of(st.just(np.nan), st.integers(-1000, 1000).map(lambda x: x / 8))
    values = draw(hnp.arrays(np.float64, (n_genes, n_samples), elements=elements))
    labels = draw(hnp.arrays(np.int64, n_samples, elements=st.sampled_from([0, 2, 3, 7, 9])))
    return values, labels


ATLAS = np.array([2, 3, 7, 9])


def pandas_table(values, labels, metric):
    table = pd.DataFrame(values.T).groupby(labels).aggregate(metric)
    return table.reindex(ATLAS).to_numpy().T


@given(donor_tables(), st.sampled_from(list(METRICS)), st.sampled_from([1, 2, 256]))
@settings(deadline=None)
def test_regions_are_pandas_groups(donor, metric, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK_GENES", block)
        result = aggregate_donor(*donor, ATLAS, metric)
    np.testing.assert_allclose(result, pandas_table(*donor, metric), rtol=0, atol=1e-10)


@given(donor_tables(), st.sampled_from([*METRICS, np.max, np.ptp]), st.randoms())
@settings(deadline=None)
def test_the_order_of_samples_does_not_matter(donor, metric, random):
    values, labels = donor
    order = random.sample(range(len(labels)), len(labels))
    expected = aggregate_donor(values, labels, ATLAS, metric)
    result = aggregate_donor(values[:, order], labels[order], ATLAS, metric)
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-10)


@given(
    hnp.arrays(
        np.float64, (4, 3, 5), elements=st.one_of(st.just(np.nan), st.integers(-80, 80).map(lambda x: x / 8))
    ),
    st.sampled_from(["mean", "median"]),
)
@settings(deadline=None)
def test_donors_are_combined_as_pandas_groups(per_donor, metric):
    flat = pd.DataFrame(per_donor.reshape(4, -1))
    expected = flat.aggregate(metric).to_numpy().reshape(3, 5)
    np.testing.assert_allclose(combine_donors(per_donor, metric), expected, rtol=0, atol=1e-12)


def test_a_gene_does_not_depend_on_the_genes_beside_it():
    random = np.random.default_rng(4)
    values, labels = random.normal(size=(700, 90)), random.integers(0, 20, 90)
    values[5, 3] = np.nan
    table = aggregate_donor(values, labels, np.arange(1, 20))
    for genes in (slice(0, 3), slice(250, 260), slice(699, None)):
        np.testing.assert_array_equal(aggregate_donor(values[genes], labels, np.arange(1, 20)), table[genes])
        combined = combine_donors([table, 2 * table])
        np.testing.assert_array_equal(combine_donors([table[genes], 2 * table[genes]]), combined[genes])
        np.testing.assert_allclose(combined, 1.5 * table)


# A metric of the user's own --------------------------------------------------------------------------------


def test_a_function_sees_the_values_of_a_region_without_gaps():
    seen = []

    def spread(values, axis):
        seen.append(np.array(values))
        return np.ptp(values, axis=axis)

    values = np.array([[1.0, 4, np.nan, 8], [2, 3, 9, 9]])
    table = aggregate_donor(values, [5, 5, 5, 6], [5, 6], spread)
    np.testing.assert_array_equal(table, [[3, 0], [7, 0]])
    assert not any(np.isnan(part).any() for part in seen)


def test_a_function_means_what_it_means_on_arrays():
    values = np.array([[1.0, 2, 6]])
    assert aggregate_donor(values, [1, 1, 1], [1], np.std)[0, 0] == np.std([1, 2, 6])


def test_metrics_that_cannot_be_used_are_explained():
    with pytest.raises(ChoiceError, match=r"'mode': choose mean or median"):
        check_metric("mode")
    with pytest.raises(ChoiceError, match="must accept an array and the keyword axis"):
        check_metric(lambda values: values)
    with pytest.raises(ChoiceError, match=r"must reduce one axis: \(4, 6\) became \(\)"):
        check_metric(lambda values, axis: np.mean(values))


# Edges -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", [*METRICS, np.max])
def test_regions_without_samples_and_donors_without_samples_are_nan(metric):
    table = aggregate_donor(np.ones((2, 3)), [0, 4, 0], [1, 4], metric)
    np.testing.assert_array_equal(table, [[np.nan, 1], [np.nan, 1]])
    empty = aggregate_donor(np.ones((2, 0)), np.empty(0, dtype=int), [1, 4], metric)
    assert np.isnan(empty).all()
    np.testing.assert_array_equal(combine_donors([table, empty], metric), table)


def test_the_inputs_are_left_alone(donors):
    tables = [aggregate_donor(*donor, REGIONS) for donor in donors]
    copies = [table.copy() for table in tables]
    for metric in METRICS:
        combine_donors(tables, metric)
    np.testing.assert_array_equal(tables, copies)


def test_genes_are_kept_that_have_a_value_in_every_region_that_has_any():
    nan = np.nan
    table = np.array([[1, nan, 2], [nan, nan, 3], [nan, nan, nan], [4, nan, 5]])
    np.testing.assert_array_equal(drop_unusable_genes(table), [True, False, False, True])
    np.testing.assert_array_equal(drop_unusable_genes(np.full((2, 3), nan)), [True, True])


def test_samples_are_counted_by_region():
    counts = count_samples([3, 0, 9, 3, 3], [1, 3, 9])
    assert counts.tolist() == [0, 3, 1]
    assert counts.dtype == np.int64
    assert count_samples([], [1, 3]).tolist() == [0, 0]


@pytest.mark.parametrize("regions", [[3, 1], [1, 1], [0, 1]])
def test_regions_must_ascend_and_leave_out_0(regions):
    with pytest.raises(AtlasError, match="must ascend"):
        aggregate_donor(np.ones((1, 1)), [1], regions)


def test_labels_that_no_region_has_are_named():
    with pytest.raises(AtlasError, match=r"region 4, 8, which is not among"):
        count_samples([1, 8, 4, 0], [1, 2])


def test_there_must_be_a_donor():
    with pytest.raises(ChoiceError, match="at least one"):
        combine_donors([])
