"""Coexpression of regions and of genes: against pandas over whole matrices, laziness, memory, tables."""

import json
import subprocess
import sys
from pathlib import Path

import dask
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lake
from lake.errors import RequestError
from lake.tables import read_provenance
from tests.helpers import octants
from transforms.coexpression import (
    BLOCK_GENES,
    coexpression_blocks,
    correlated_gene_expression,
    gene_coexpression,
    gene_correlations,
)
from transforms.errors import ChoiceError

MEMORY_LIMIT_MB = 400


def invented(seed=0, n_regions=12, n_genes=30, decimals=1):
    """Region x gene with ties, one region without samples."""
    values = np.random.default_rng(seed).normal(size=(n_regions, n_genes)).round(decimals)
    values[3] = np.nan
    index = pd.Index(np.arange(1, n_regions + 1), name="label")
    columns = pd.Index([f"gene{gene:02}" for gene in range(n_genes)], name="gene_symbol")
    return pd.DataFrame(values, index=index, columns=columns)


def with_undefined_genes():
    table = invented()
    table["gene05"] = table["gene05"] * 0 + 0.1  # constant; the mean of so many 0.1 is not 0.1
    table.loc[7, "gene11"] = np.nan
    return table


def refuse_to_compute(graph, keys, **options):
    raise AssertionError("This computes.")


# Region x region --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["pearson", "spearman"])
def test_regions_correlate_as_in_pandas(method):
    table = invented()
    found = correlated_gene_expression(table, method=method)
    pd.testing.assert_frame_equal(found, table.T.corr(method), check_names=False, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(found, found.T)
    assert found.loc[4].isna().all()


def test_genes_missing_in_a_region_are_left_out_for_all():
    table = invented()
    table.loc[7, ["gene11", "gene20"]] = np.nan
    expected = correlated_gene_expression(table.drop(columns=["gene11", "gene20"]))
    pd.testing.assert_frame_equal(correlated_gene_expression(table), expected)


def test_the_diagonal_is_as_asked_for_and_undefined_where_the_region_is():
    table = invented()
    table.loc[2] = 0.1
    assert np.diag(correlated_gene_expression(table)).tolist()[:1] == [1.0]
    np.testing.assert_array_equal(np.isnan(np.diag(correlated_gene_expression(table)))[:4], [0, 1, 0, 1])
    found = correlated_gene_expression(table, diagonal=np.nan)
    assert np.isnan(np.diag(found)).all()
    assert found.loc[1, 3] == correlated_gene_expression(table).loc[1, 3]


# Gene x gene ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["pearson", "spearman"])
@pytest.mark.parametrize("block_genes", [1, 7, 30, 100])
def test_genes_correlate_as_in_pandas(method, block_genes):
    table = with_undefined_genes()
    found = gene_correlations(table, method=method, block_genes=block_genes)
    expected = table.drop(index=4).corr(method)
    expected.loc["gene11"] = expected["gene11"] = np.nan
    expected.loc["gene05"] = expected["gene05"] = np.nan
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    assert found["gene"].to_numpy().tolist() == found["partner"].to_numpy().tolist() == list(table.columns)


def test_nothing_is_computed_before_it_is_asked_for():
    with dask.config.set(scheduler=refuse_to_compute):
        correlations = gene_correlations(invented(), block_genes=7)
        blocks = coexpression_blocks(invented(), neighbours=3, block_genes=7)
        with pytest.raises(AssertionError, match="This computes"):
            next(blocks)
    assert correlations.chunksizes == {"gene": (7, 7, 7, 7, 2), "partner": (30,)}


def links_of_whole_matrix(table, method, network):
    """Every ordered pair of genes with a defined correlation."""
    matrix = table.dropna(how="all")
    matrix = matrix.loc[:, matrix.notna().all() & (matrix.max() > matrix.min())].corr(method)
    correlation = {
        (gene, other): matrix.loc[gene, other] for gene in matrix for other in matrix if gene != other
    }
    strength = np.abs if network == "unsigned" else np.array
    return correlation, {pair: float(strength(value)) for pair, value in correlation.items()}


@pytest.mark.parametrize("method", ["pearson", "spearman"])
@pytest.mark.parametrize("network", ["signed", "unsigned"])
def test_neighbours_are_the_strongest_of_the_whole_matrix(method, network):
    table = with_undefined_genes()
    found = gene_coexpression(table, method=method, network=network, neighbours=4, block_genes=7)
    correlation, strength = links_of_whole_matrix(table, method, network)
    assert list(found.columns) == ["gene_symbol", "neighbour_symbol", "correlation", "rank"]
    for gene, rows in found.groupby("gene_symbol", observed=True):
        others = [pair for pair in strength if pair[0] == gene]
        expected = sorted((strength[pair] for pair in others), reverse=True)[:4]
        pairs = [(gene, other) for other in rows["neighbour_symbol"]]
        assert len(set(pairs)) == 4
        np.testing.assert_allclose([strength[pair] for pair in pairs], expected, rtol=0, atol=1e-12)
        np.testing.assert_allclose(rows["correlation"], [correlation[pair] for pair in pairs], atol=1e-12)
        assert rows["rank"].tolist() == [1, 2, 3, 4]
    named = found["gene_symbol"].astype(str).drop_duplicates().tolist()
    assert named == sorted({gene for gene, _ in strength})


@pytest.mark.parametrize("method", ["pearson", "spearman"])
@pytest.mark.parametrize(("network", "threshold"), [("signed", 0.3), ("signed", -1), ("unsigned", 0.45)])
def test_pairs_above_a_threshold_are_those_of_the_whole_matrix(method, network, threshold):
    table = with_undefined_genes()
    found = gene_coexpression(table, method=method, network=network, threshold=threshold, block_genes=7)
    correlation, strength = links_of_whole_matrix(table, method, network)
    expected = [pair for pair in strength if pair[0] < pair[1] and strength[pair] >= threshold]
    pairs = list(zip(found["gene_symbol"], found["neighbour_symbol"], strict=True))
    assert pairs == sorted(expected)
    assert len(pairs) > 0
    np.testing.assert_allclose(found["correlation"], [correlation[pair] for pair in pairs], atol=1e-12)


def test_equal_neighbours_come_in_the_order_of_the_table():
    table = invented()
    for copy in ("gene04", "gene20", "gene25"):
        table[copy] = table["gene10"]
    found = gene_coexpression(table, neighbours=2, block_genes=7)
    nearest = found[found["gene_symbol"] == "gene10"]
    assert nearest["neighbour_symbol"].tolist() == ["gene04", "gene20"]


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), block_genes=st.integers(1, 40), neighbours=st.integers(1, 29))
def test_results_do_not_depend_on_the_blocks_or_the_order_of_regions(seed, block_genes, neighbours):
    table = invented(seed, decimals=6)
    expected = gene_coexpression(table, neighbours=neighbours)
    shuffled = table.sample(frac=1, random_state=seed)
    found = gene_coexpression(shuffled, neighbours=neighbours, block_genes=block_genes)
    pd.testing.assert_frame_equal(found, expected, rtol=0, atol=1e-12)
    assert found.shape == (30 * neighbours, 4)


MEASURED = """
import json, pathlib, re, sys
import numpy as np, pandas as pd
from transforms.coexpression import coexpression_blocks

random = np.random.default_rng(0)
symbols = [f"G{number:05}" for number in range(15_633)]
expression = pd.DataFrame(random.normal(size=(83, len(symbols))), columns=symbols)
rows = sum(len(block) for block in coexpression_blocks(expression, **json.loads(sys.argv[1])))
status = pathlib.Path("/proc/self/status").read_text()  # ru_maxrss would start from the parent's peak
print(rows, int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) / 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize("choices", [{"neighbours": 10}, {"threshold": 0.5, "network": "unsigned"}])
def test_memory_of_all_genes_is_bounded(choices):
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", MEASURED, json.dumps(choices)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    rows, peak = run.stdout.split()
    assert float(peak) < MEMORY_LIMIT_MB
    assert int(rows) == 156_330 if "neighbours" in choices else int(rows) > 0


# What is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choices", "sentence"),
    [
        ({"neighbours": 3, "method": "kendall"}, "Unknown correlation 'kendall': choose pearson or spearman"),
        ({"neighbours": 3, "network": "odd"}, "Unknown network 'odd': choose signed or unsigned"),
        ({}, "Choose one of neighbours .* and threshold"),
        ({"neighbours": 3, "threshold": 0.5}, "Choose one of neighbours .* and threshold"),
        ({"neighbours": 30}, "neighbours must lie between 1 and 29, not 30"),
        ({"neighbours": 3, "block_genes": 0}, "block_genes is the number of genes"),
    ],
)
def test_wrong_choices_are_refused_with_a_sentence(choices, sentence):
    with pytest.raises(ChoiceError, match=sentence):
        gene_coexpression(invented(), **choices)


def test_tables_without_a_correlation_are_refused():
    gaps = invented()
    gaps.iloc[5, 1:] = np.nan
    with pytest.raises(ChoiceError, match="1 of 30 genes have a value in every region"):
        correlated_gene_expression(gaps)
    with pytest.raises(ChoiceError, match="Unknown correlation 'mine'"):
        correlated_gene_expression(invented(), method="mine")
    with pytest.raises(ChoiceError, match="1 of 2 regions have values"):
        gene_correlations(invented().loc[[4, 5]])
    repeated = invented().rename(columns={"gene01": "gene00"})
    with pytest.raises(ChoiceError, match="Gene gene00 has two columns"):
        gene_coexpression(repeated, neighbours=1)


# In the lake ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def expression(small_lake, atlas):
    return lake.expression(small_lake, atlas)


def test_pairs_of_regions_are_written_with_their_origin(small_lake, atlas, expression, tmp_path):
    path = lake.write_region_pairs(expression, atlas, out=tmp_path, method="spearman", correction="linear")
    frame = pq.ParquetFile(path).read().to_pandas()
    correlation = lake.correlated_gene_expression(expression, method="spearman")
    matrices = {
        "correlation": correlation,
        "distance": lake.region_distances(atlas),
        "corrected": lake.remove_distance(correlation, atlas),
    }
    assert list(frame.columns) == ["region", "other_region", *matrices]
    assert len(frame) == 28
    for name, table in matrices.items():
        expected = [table.loc[pair] for pair in zip(frame["region"], frame["other_region"], strict=True)]
        np.testing.assert_array_equal(frame[name], expected)
    provenance = read_provenance(path)
    assert provenance["snapshot"] == small_lake.snapshot
    assert provenance["derived"]["method"] == "spearman"
    assert set(provenance["derived"]["parameters"]["all"]) == {"p1", "p2"}
    assert f"pipeline={provenance['pipeline']}/atlas=octants/method=spearman/" in path.as_posix()


def test_the_same_request_writes_the_same_bytes(atlas, expression, tmp_path):
    paths = [
        lake.write_region_pairs(expression, atlas, out=tmp_path / name, correction="exp") for name in "ab"
    ]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert paths[0].relative_to(tmp_path / "a") == paths[1].relative_to(tmp_path / "b")


def test_neighbours_of_genes_are_written_block_by_block(expression, tmp_path, monkeypatch):
    path = lake.write_gene_coexpression(expression, out=tmp_path, neighbours=5)
    found = pd.read_parquet(path, partitioning=None)
    expected = lake.gene_coexpression(expression, neighbours=5)
    pd.testing.assert_frame_equal(found, expected, check_categorical=False)
    assert read_provenance(path)["derived"]["neighbours"] == 5
    n_genes = expression.shape[1]
    assert pq.ParquetFile(path).num_row_groups == -(-n_genes // BLOCK_GENES)


def test_region_pairs_of_another_atlas_are_refused(expression, tmp_path):
    with pytest.raises(RequestError, match="made with another atlas"):
        lake.write_region_pairs(expression, octants(first=3), out=tmp_path)
    with pytest.raises(RequestError, match="does not say its origin"):
        lake.write_gene_coexpression(invented(), out=tmp_path, neighbours=1)
    assert not list(tmp_path.iterdir())
