"""Stable genes against the recorded output of abagen 0.1.3, a transcription of AHBAprocessing, properties."""

import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import lake
from lake.errors import RequestError
from lake.tables import read_provenance
from transforms.errors import ChoiceError
from transforms.stable import STABILITY_METHODS, differential_stability, stable_genes

RECORDED = json.loads((Path(__file__).parent / "data" / "abagen_correct.json").read_text())
GENES, REGIONS = RECORDED["genes"], RECORDED["regions"]
DONORS = ["9861", "10021", "12876", "14380"]


def recorded_donors():
    tables = (np.array(values, dtype=float).reshape(len(REGIONS), -1) for values in RECORDED["donors"])
    return {
        donor: pd.DataFrame(table, index=REGIONS, columns=GENES)
        for donor, table in zip(DONORS, tables, strict=True)
    }


def invented_donors(seed=0, n_donors=3, n_regions=12, n_genes=20):
    random = np.random.default_rng(seed)
    pattern = random.normal(size=(n_regions, n_genes))
    return {
        f"donor{number}": pd.DataFrame(
            pattern + random.normal(size=pattern.shape) * np.linspace(0.1, 3, n_genes),
            index=np.arange(1, n_regions + 1),
            columns=[f"gene{gene}" for gene in range(n_genes)],
        )
        for number in range(n_donors)
    }


# abagen -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECORDED["stable"])
def test_genes_and_stabilities_are_abagens(name):
    recorded = RECORDED["stable"][name]
    kept, stability = stable_genes(recorded_donors(), **recorded["choices"])
    np.testing.assert_allclose(stability, recorded["stability"], rtol=0, atol=1e-10)
    assert stability.index.tolist() == GENES
    assert list(kept) == DONORS
    for donor, table in kept.items():
        pd.testing.assert_frame_equal(table, recorded_donors()[donor][recorded["genes"]])


def test_the_recorded_cases_tell_the_choices_apart():
    assert len({tuple(case["genes"]) for case in RECORDED["stable"].values()}) == len(RECORDED["stable"])


# AHBAprocessing ---------------------------------------------------------------------------------------------


def stability_in_plain_numpy(donors, decimals=10):
    """S4.5: mean over pairs, NaN ignored, of Spearman's correlation over the regions that all donors have."""
    tables = [table.to_numpy() for table in donors.values()]
    shared = np.all([~np.isnan(table).all(axis=1) for table in tables], axis=0)
    stability = []
    for gene in range(tables[0].shape[1]):
        correlations = []
        for one, other in itertools.combinations(tables, 2):
            x, y = one[shared, gene].round(decimals), other[shared, gene].round(decimals)
            if np.isnan(x + y).any() or len(set(x)) == 1 or len(set(y)) == 1:
                continue
            correlations.append(np.corrcoef(stats.rankdata(x), stats.rankdata(y))[0, 1])
        stability.append(np.mean(correlations) if correlations else np.nan)
    return stability


def test_stability_over_the_regions_of_all_donors():
    donors = recorded_donors()
    found = differential_stability(donors, method="arnatkeviciute2019")
    np.testing.assert_allclose(found, stability_in_plain_numpy(donors), rtol=0, atol=1e-12)
    assert np.isnan(found["gene7"])  # constant in every donor
    assert not np.allclose(found, differential_stability(donors), atol=1e-3, equal_nan=True)


def test_the_last_bit_of_tied_regions_does_not_change_a_rank():
    donors = {donor: table.round(0) for donor, table in invented_donors().items()}
    shaken = {donor: table * (1 + np.eye(*table.shape) * 4e-16) for donor, table in donors.items()}
    assert any((shaken[donor] != donors[donor]).any(axis=None) for donor in donors)
    pd.testing.assert_series_equal(
        differential_stability(donors, method="arnatkeviciute2019"),
        differential_stability(shaken, method="arnatkeviciute2019"),
        rtol=0,
        atol=0,
    )


@pytest.mark.parametrize(("percent", "n_kept"), [(0, 0), (50, 10), (12.4, 2), (12.5, 3), (100, 20)])
def test_percent_ds_keeps_the_most_stable(percent, n_kept):
    kept, stability = stable_genes(invented_donors(), percent_ds=percent, method="arnatkeviciute2019")
    chosen = kept["donor0"].columns
    assert len(chosen) == n_kept
    assert set(chosen) == set(stability.sort_values(ascending=False).index[:n_kept])


def test_percent_ds_takes_undefined_genes_last_and_the_first_of_equals():
    donors = {donor: table.iloc[:, [0, 0, 5, 5]] for donor, table in invented_donors().items()}
    for table in donors.values():
        table.columns = ["constant", "best", "same", "same too"]
        table["constant"] = 1.0
    kept, stability = stable_genes(donors, percent_ds=50, method="arnatkeviciute2019")
    assert np.isnan(stability["constant"])
    assert kept["donor0"].columns.tolist() == ["best", "same"]


def test_genes_of_undefined_stability_meet_no_threshold():
    donors = {donor: table * 0 for donor, table in invented_donors().items()}
    for choices in ({"threshold": 0.0}, {"threshold": -1, "percentile": False}):
        kept, stability = stable_genes(donors, method="arnatkeviciute2019", **choices)
        assert stability.isna().all()
        assert kept["donor0"].shape == (12, 0)


# Properties -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", STABILITY_METHODS)
@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), rank=st.booleans())
def test_the_order_of_donors_and_regions_never_matters(method, seed, rank):
    donors = invented_donors(seed)
    donors["donor1"].iloc[[2, 7]] = np.nan
    shuffled = {donor: donors[donor].sample(frac=1, random_state=seed) for donor in reversed(donors)}
    found, again = (differential_stability(each, method=method, rank=rank) for each in (donors, shuffled))
    pd.testing.assert_series_equal(found, again, rtol=0, atol=1e-12)
    assert found.between(-1 - 1e-12, 1 + 1e-12).all()


@pytest.mark.parametrize("method", STABILITY_METHODS)
def test_equal_donors_agree_whatever_the_scale(method):
    table = invented_donors()["donor0"]
    for rank in (True, False):
        found = differential_stability({"a": table, "b": 3 * table + 1}, method=method, rank=rank)
        np.testing.assert_allclose(found, 1, rtol=0, atol=1e-12)


def test_donors_that_share_less_than_two_regions_have_no_correlation():
    donors = invented_donors(n_donors=2)
    donors["donor0"].iloc[:6], donors["donor1"].iloc[7:] = np.nan, np.nan
    assert (differential_stability(donors) == 0).all()
    assert differential_stability(donors, method="arnatkeviciute2019").isna().all()


# What is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choices", "sentence"),
    [
        ({"method": "mine"}, "Unknown stability method 'mine': choose abagen or arnatkeviciute2019"),
        ({"threshold": 0.5, "percent_ds": 50}, "choose one"),
        ({"percent_ds": 101}, "percent_ds must lie between 0 and 100, not 101"),
        ({"threshold": 90}, "quantile .* must lie between 0 and 1, not 90"),
        ({"threshold": 2, "percentile": False}, "threshold must lie between -1 and 1, not 2"),
    ],
)
def test_wrong_choices_are_refused_with_a_sentence(choices, sentence):
    with pytest.raises(ChoiceError, match=sentence):
        stable_genes(invented_donors(), **choices)


def test_tables_that_do_not_fit_are_refused():
    donors = invented_donors()
    with pytest.raises(ChoiceError, match="two or more, not of 1"):
        stable_genes({"donor0": donors["donor0"]})
    with pytest.raises(ChoiceError, match="Donors donor0 and other have other genes, or another order"):
        stable_genes({"donor0": donors["donor0"], "other": donors["donor1"].iloc[:, ::-1]})
    with pytest.raises(ChoiceError, match="Donor donor1 has region 4 twice"):
        stable_genes(donors | {"donor1": donors["donor1"].rename(index={5: 4})})


# In the lake ------------------------------------------------------------------------------------------------


def test_stability_of_a_runs_genes_is_written_with_its_origin(small_lake, atlas, tmp_path):
    lake.run(small_lake, [atlas], out=tmp_path, donor_tables=True)
    path = lake.write_stable_genes(tmp_path, atlas=atlas.name, threshold=0.5)
    donors = lake.read_donor_expression(tmp_path, atlas=atlas.name)
    expected = lake.tables_for(small_lake, atlas, lake.Pipeline()).donor_expression
    assert list(donors) == list(expected)
    for donor, table in donors.items():
        np.testing.assert_array_equal(table, expected[donor])
        assert table.index.equals(expected[donor].index)
        assert table.columns.tolist() == expected[donor].columns.tolist()
    kept, stability = lake.stable_genes(expected, threshold=0.5)
    frame = pq.ParquetFile(path).read().to_pandas()
    np.testing.assert_array_equal(frame["stability"], stability)
    chosen = frame.loc[frame["stable"], "gene_symbol"].tolist()
    assert chosen == next(iter(kept.values())).columns.tolist()
    assert 0 < len(chosen) < len(frame)
    provenance = read_provenance(path)
    assert provenance["snapshot"] == small_lake.snapshot
    assert provenance["derived"]["threshold"] == 0.5


def test_a_run_without_donors_tables_is_named(tmp_path):
    with pytest.raises(RequestError, match="no donors' tables for atlas 'dk'; run with donor_tables=True"):
        lake.write_stable_genes(tmp_path, atlas="dk")


def test_two_pipelines_are_not_mixed(tmp_path):
    for pipeline in ("a", "b"):
        folder = tmp_path / "donor_expression" / f"pipeline={pipeline}" / "atlas=dk"
        folder.mkdir(parents=True)
        (folder / "part-0.parquet").touch()
    with pytest.raises(RequestError, match="name one pipeline for atlas 'dk': a, b"):
        lake.write_stable_genes(tmp_path, atlas="dk")
