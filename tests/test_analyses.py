"""The three analyses of Markello et al. 2021, against plain transcriptions of the paper's scripts."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial import distance_matrix
from scipy.stats import spearmanr

from transforms.analyses import (
    coexpression_distance_correlation,
    component_map_correlation,
    mean_silhouette,
    module_numbers,
    module_silhouette,
)
from transforms.errors import ChoiceError

Floats = NDArray[np.float64]
REGIONS = pd.Index([3, 1, 12, 7, 40, 5, 6, 8, 9, 20], name="label")
GENES = [f"gene{n}" for n in range(60)]


def frame(seed: int = 0, *, regions: pd.Index = REGIONS, scale: float = 1.0) -> pd.DataFrame:
    values = 6 + scale * np.random.default_rng(seed).normal(size=(len(regions), len(GENES)))
    return pd.DataFrame(values, index=regions, columns=GENES)


def places(seed: int = 1) -> pd.DataFrame:
    values = np.random.default_rng(seed).normal(size=(len(REGIONS), 3)) * 40
    return pd.DataFrame(values, index=REGIONS, columns=["x", "y", "z"])


def modules_table(n: int = 4, *, seed: int = 2) -> pd.DataFrame:
    drawn = np.random.default_rng(seed).integers(0, n, len(GENES))
    return pd.DataFrame({"gene_symbol": GENES, "module": [f"module{number}" for number in drawn]})


# Correlated gene expression and distance --------------------------------------------------------------------


def published_cge(expression: Floats, centroids: Floats) -> float:
    upper = np.triu_indices(len(centroids), k=1)
    correlations = np.corrcoef(expression)[upper]
    distances = distance_matrix(centroids, centroids)[upper]
    kept = ~(np.isnan(correlations) | np.isnan(distances))
    return float(spearmanr(correlations[kept], distances[kept])[0])


@pytest.mark.parametrize("seed", range(5))
def test_cge_is_that_of_scipy(seed: int) -> None:
    table, centroids = frame(seed), places(seed + 1)
    expected = published_cge(table.to_numpy(), centroids.to_numpy())
    assert coexpression_distance_correlation(table, centroids) == pytest.approx(expected, abs=1e-13)
    assert coexpression_distance_correlation(table, centroids.sample(frac=1, random_state=seed)) == (
        pytest.approx(expected, abs=1e-13)
    )
    assert coexpression_distance_correlation(table.to_numpy(), centroids.to_numpy()) == (
        pytest.approx(expected, abs=1e-13)
    )


def test_cge_leaves_out_what_is_nan() -> None:
    table, centroids = frame(), places()
    table.iloc[2] = np.nan
    table.iloc[4, 7] = np.nan
    centroids.iloc[5, 1] = np.nan
    expected = published_cge(table.to_numpy(), centroids.to_numpy())
    found = coexpression_distance_correlation(table, centroids)
    assert found == pytest.approx(expected, abs=1e-13)
    others = [0, 1, 3, 6, 7, 8, 9]
    assert found == coexpression_distance_correlation(table.iloc[others], centroids.iloc[others])


def test_cge_leaves_out_a_constant_region() -> None:
    table, centroids = frame(), places()
    table.iloc[3] = 0.1  # its mean over 60 genes is not quite 0.1
    rest = table.index != 7
    assert coexpression_distance_correlation(table, centroids) == coexpression_distance_correlation(
        table[rest], centroids[rest]
    )


def test_equal_regions_are_tied() -> None:
    """The ranks of pairs that are alike but for the last bit are those of equals."""
    table, centroids = frame(scale=0.01), places()
    table.iloc[1] = table.iloc[0]
    table.iloc[2] = table.iloc[0]
    upper = np.triu_indices(len(table), k=1)
    correlations = np.corrcoef(table)[upper].round(10)
    assert len(np.unique(correlations)) < len(correlations) - 10
    expected = spearmanr(correlations, distance_matrix(centroids, centroids)[upper])[0]
    assert coexpression_distance_correlation(table, centroids) == pytest.approx(expected, abs=1e-13)


def test_cge_of_too_little_is_nan() -> None:
    assert np.isnan(coexpression_distance_correlation(frame()[:2], places()))
    assert np.isnan(coexpression_distance_correlation(frame().iloc[:, :1], places()))
    assert np.isnan(coexpression_distance_correlation(frame()[:0], places()))
    assert np.isnan(coexpression_distance_correlation(frame().iloc[:, :0], places()))
    assert np.isnan(coexpression_distance_correlation(frame(), places() * 0))
    assert not np.isnan(coexpression_distance_correlation(frame()[:3], places()))


def test_cge_names_what_lacks() -> None:
    with pytest.raises(ChoiceError, match="centroids lacks region 12: give one for the atlas"):
        coexpression_distance_correlation(frame(), places().drop(index=12))
    with pytest.raises(ChoiceError, match="centroids has 9 regions and the table 10"):
        coexpression_distance_correlation(frame().to_numpy(), places().to_numpy()[:9])


# Gene coexpression and modules ------------------------------------------------------------------------------


def published_gce(data: pd.DataFrame, modules: dict[str, list[str]]) -> float:
    """The paper's scripts: `modules` in order, their numbers added up for a gene in several."""
    metrics = pytest.importorskip("sklearn.metrics")
    data = data.dropna(axis=0, how="all")
    numbers = np.zeros(len(data.columns), dtype=int)
    for number, genes in enumerate(modules.values(), start=1):
        numbers += number * np.isin(data.columns, genes)
    kept = numbers != 0
    return float(metrics.silhouette_score(data.T[kept], numbers[kept]))


def as_lists(table: pd.DataFrame) -> dict[str, list[str]]:
    return {str(name): [*rows] for name, rows in table.groupby("module")["gene_symbol"]}


@pytest.mark.parametrize("seed", range(5))
def test_gce_is_that_of_scikit_learn(seed: int) -> None:
    table, modules = frame(seed), modules_table(seed=seed)
    table.iloc[:, :20] += 2 * np.random.default_rng(9).normal(size=(len(table), 1))
    expected = published_gce(table, as_lists(modules))
    assert module_silhouette(table, module_numbers(modules)) == pytest.approx(expected, abs=1e-10)


def test_gce_over_several_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = module_silhouette(frame(), module_numbers(modules_table()))
    for size in (1, 7, 59, 60):
        monkeypatch.setattr("transforms.analyses.STRIP_GENES", size)
        assert module_silhouette(frame(), module_numbers(modules_table())) == pytest.approx(whole, abs=1e-13)


def test_gce_of_values_far_from_zero() -> None:
    numbers = module_numbers(modules_table())
    assert module_silhouette(frame() + 1e6, numbers) == pytest.approx(
        module_silhouette(frame(), numbers), abs=1e-7
    )


def test_genes_in_several_modules_count_as_in_the_scripts() -> None:
    modules = modules_table()
    twice = pd.DataFrame({"gene_symbol": GENES[:25], "module": [f"module{n % 3}" for n in range(25)]})
    unknown = pd.DataFrame({"gene_symbol": ["none1", "none2"], "module": ["module1", "other"]})
    together = pd.concat([modules, twice, unknown, modules[:5]], ignore_index=True)
    assert together.drop_duplicates().duplicated("gene_symbol").sum() > 10
    expected = published_gce(frame(), as_lists(together))
    assert module_silhouette(frame(), module_numbers(together)) == pytest.approx(expected, abs=1e-10)
    once = together.drop_duplicates()[
        lambda rows: ~rows.drop_duplicates().duplicated("gene_symbol", keep=False)
    ]
    dropped = module_silhouette(frame(), module_numbers(together, shared="drop"))
    assert dropped == pytest.approx(published_gce(frame(), as_lists(once)), abs=1e-10)
    assert dropped != pytest.approx(expected, abs=1e-3)


def test_gce_leaves_out_regions_without_values_and_genes_with_gaps() -> None:
    table, numbers = frame(), module_numbers(modules_table())
    expected = published_gce(table.drop(index=12).drop(columns="gene4"), as_lists(modules_table()))
    table.loc[12] = np.nan
    table.loc[5, "gene4"] = np.nan
    assert module_silhouette(table, numbers) == pytest.approx(expected, abs=1e-10)


def test_genes_that_are_the_same_are_tied() -> None:
    table = frame()
    table[GENES[:30]] = np.tile(table[["gene0"]], 30)
    modules = pd.DataFrame({"gene_symbol": GENES, "module": ["a"] * 30 + ["b"] * 30})
    expected = published_gce(table, as_lists(modules))
    assert module_silhouette(table, module_numbers(modules)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    "modules",
    [["a"] * 60, list(map(str, range(60))), [None] * 60 + ["a"]],
    ids=["one module", "every gene alone", "one gene"],
)
def test_gce_of_too_little_is_nan(modules: list[str | None]) -> None:
    table = pd.DataFrame({"gene_symbol": [*GENES, "gene0"][: len(modules)], "module": modules})
    assert np.isnan(module_silhouette(frame(), module_numbers(table)))


def test_gce_of_nothing_is_nan() -> None:
    numbers = module_numbers(modules_table())
    assert np.isnan(module_silhouette(frame()[:0], numbers))
    assert np.isnan(module_silhouette(frame() * np.nan, numbers))
    assert np.isnan(module_silhouette(frame().rename(columns=str.upper), numbers))


def test_a_gene_with_two_columns_is_told() -> None:
    with pytest.raises(ChoiceError, match="Gene gene3 has two columns"):
        module_silhouette(frame().rename(columns={"gene5": "gene3"}), module_numbers(modules_table()))


def test_the_smallest_modules_are_left_out() -> None:
    rows = [("a", 3), ("b", 1), ("c", 2), ("d", 1), ("e", 5)]
    names = [name for name, size in rows for _ in range(size)]
    table = pd.DataFrame({"gene_symbol": [f"g{n}" for n in range(len(names))], "module": names})
    table = pd.concat([table, table[table["module"] == "b"]])  # said twice, still one gene
    assert module_numbers(table).to_dict() == {f"g{n}": " abcde".index(name) for n, name in enumerate(names)}
    kept = {n: module_numbers(table, drop_smallest=n).to_dict() for n in range(5)}
    assert set(kept[1]) == {f"g{n}" for n, name in enumerate(names) if name != "b"}
    assert set(kept[2]) == {f"g{n}" for n, name in enumerate(names) if name in "ace"}
    assert set(kept[3].values()) == {1, 2}
    assert set(kept[4]) == {f"g{n}" for n, name in enumerate(names) if name == "e"}


@pytest.mark.parametrize(
    ("table", "choices", "message"),
    [
        (pd.DataFrame({"gene": ["a"]}), {}, "lacks column gene_symbol"),
        (modules_table(), {"drop_smallest": 4}, "drop_smallest=4 of 4 gene modules leaves none"),
        (modules_table(), {"drop_smallest": -1}, "drop_smallest=-1"),
        (modules_table()[:0], {}, "of 0 gene modules"),
        (modules_table(), {"shared": "first"}, "shared='first' is unknown; there are sum, drop"),
    ],
)
def test_wrong_modules_are_told(table: pd.DataFrame, choices: dict[str, Any], message: str) -> None:
    with pytest.raises(ChoiceError, match=message):
        module_numbers(table, **choices)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.integers(10, 40))
def test_silhouettes_of_any_points(seed: int, n_groups: int, n_points: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(seed)
    points, groups = random.normal(size=(n_points, 3)), random.integers(0, n_groups, n_points) * 5 - 3
    groups[:2] = 1, 100
    expected = metrics.silhouette_score(points, groups)
    assert mean_silhouette(points, groups) == pytest.approx(expected, abs=1e-7)


# Regional gene expression and a map -------------------------------------------------------------------------


def published_rge(data: Floats, wanted: Floats) -> float:
    kept = ~np.isnan(data).any(axis=1)
    data, wanted = data[kept], wanted[kept]
    component = np.linalg.svd(data - data.mean(axis=0), full_matrices=False)[0][:, 0]
    return abs(float(spearmanr(component, wanted)[0]))


def region_map(seed: int = 3) -> pd.Series:
    return pd.Series(np.random.default_rng(seed).normal(size=len(REGIONS)), index=REGIONS)


@pytest.mark.parametrize("seed", range(5))
def test_rge_is_that_of_numpy(seed: int) -> None:
    table, wanted = frame(seed), region_map(seed)
    expected = published_rge(table.to_numpy(), wanted.to_numpy())
    assert component_map_correlation(table, wanted) == pytest.approx(expected, abs=1e-13)
    assert component_map_correlation(table, wanted[::-1]) == pytest.approx(expected, abs=1e-13)
    assert component_map_correlation(table.to_numpy(), wanted.tolist()) == pytest.approx(expected, abs=1e-13)


def test_rge_drops_regions_with_nan() -> None:
    table = frame()
    table.iloc[2] = np.nan
    table.iloc[4, 7] = np.nan
    expected = published_rge(table.to_numpy(), region_map().to_numpy())
    assert component_map_correlation(table, region_map()) == pytest.approx(expected, abs=1e-13)


def test_rge_takes_the_regions_of_the_map() -> None:
    part = region_map().drop(index=[12, 5])
    expected = published_rge(frame().loc[part.index].to_numpy(), part.to_numpy())
    assert component_map_correlation(frame(), part) == pytest.approx(expected, abs=1e-13)
    gaps = region_map().where(~REGIONS.isin([12, 5]))
    assert component_map_correlation(frame(), gaps) == pytest.approx(expected, abs=1e-13)


def test_rge_with_ties_in_the_map() -> None:
    wanted = region_map().round()
    assert wanted.nunique() < len(wanted) - 2
    expected = published_rge(frame().to_numpy(), wanted.to_numpy())
    assert component_map_correlation(frame(), wanted) == pytest.approx(expected, abs=1e-13)


def test_rge_with_equal_regions() -> None:
    table = frame(scale=0.01)
    table.iloc[1] = table.iloc[0]
    table.iloc[2] = table.iloc[0]
    component = np.linalg.svd(table - table.mean(axis=0), full_matrices=False)[0][:, 0].round(10)
    assert len(np.unique(component)) == len(table) - 2
    expected = abs(spearmanr(component, region_map())[0])
    assert component_map_correlation(table, region_map()) == pytest.approx(expected, abs=1e-13)


def test_rge_of_too_little_is_nan() -> None:
    assert np.isnan(component_map_correlation(frame()[:1], region_map()))
    assert np.isnan(component_map_correlation(frame() * np.nan, region_map()))
    assert np.isnan(component_map_correlation(frame() * 0 + 0.1, region_map()))
    alike = frame().iloc[[0] * len(REGIONS)].set_axis(REGIONS)  # but for what rounding makes of the means
    assert np.isnan(component_map_correlation(alike, region_map()))
    assert np.isnan(component_map_correlation(frame(), region_map() * 0))
    assert np.isnan(component_map_correlation(frame().iloc[:, :0], region_map()))
    assert component_map_correlation(frame()[:2], region_map()) == 1


def test_rge_of_another_atlas_is_told() -> None:
    with pytest.raises(ChoiceError, match="region_map lacks region 1: give one for the atlas"):
        component_map_correlation(frame(), region_map().rename(lambda region: region + 1000))
    with pytest.raises(ChoiceError, match="region_map has 3 regions and the table 10"):
        component_map_correlation(frame(), [1.0, 2.0, 3.0])


def test_the_table_is_not_changed() -> None:
    table = frame()
    before = table.copy()
    coexpression_distance_correlation(table, places())
    module_silhouette(table, module_numbers(modules_table()))
    component_map_correlation(table, region_map())
    pd.testing.assert_frame_equal(table, before)
