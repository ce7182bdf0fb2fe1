"""Reductions of region x gene tables: named ones, a person's own, their parameters and identities."""

import importlib
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import lake
from lake.errors import RequestError
from lake.reductions import REDUCTIONS, Reduction, import_function, reduction, reductions_from
from lake.tables import regions_frame
from tests.helpers import octants
from transforms.analyses import (
    coexpression_distance_correlation,
    component_map_correlation,
    module_numbers,
    module_silhouette,
)
from transforms.errors import ChoiceError

GENES = [f"gene{n}" for n in range(30)]
MODULES = pd.DataFrame({"gene_symbol": GENES, "module": ["one", "two", "three"] * 9 + ["four"] * 3})
REGIONS = regions_frame(octants())
MAP = pd.Series(np.random.default_rng(1).normal(size=8), index=REGIONS["region"])


@pytest.fixture
def table() -> pd.DataFrame:
    values = np.random.default_rng(0).normal(size=(8, len(GENES)))
    frame = pd.DataFrame(values, index=pd.Index(REGIONS["region"], name="label"), columns=GENES)
    frame.iloc[2] = np.nan
    return frame


def spread(table: pd.DataFrame, _regions: pd.DataFrame, *, quantile: float = 0.5) -> dict[str, float]:
    low, high = np.nanquantile(table, [1 - quantile, quantile])
    return {"low": float(low), "high": float(high)}


def means(table: pd.DataFrame, regions: pd.DataFrame) -> pd.DataFrame:
    return regions.assign(mean=table.mean(axis=1).to_numpy()).set_index("region")[["mean", "n_nodes"]]


# The named ones ---------------------------------------------------------------------------------------------


def test_cge_distance_takes_centroids_by_region(table: pd.DataFrame) -> None:
    found = reduction("cge_distance")(table, REGIONS[::-1])
    expected = coexpression_distance_correlation(table, octants().centroids)
    assert found == {"cge_distance": expected}
    assert -1 < expected < 1


def test_modules_are_scored_by_their_silhouette(table: pd.DataFrame) -> None:
    expected = module_silhouette(table, module_numbers(MODULES, drop_smallest=1))
    assert reduction("gene_modules", modules=MODULES, drop_smallest=1)(table, REGIONS) == {
        "gene_modules": expected
    }
    whole = reduction("gene_modules", modules=MODULES)(table, REGIONS)
    assert whole == {"gene_modules": module_silhouette(table, module_numbers(MODULES))}
    assert whole["gene_modules"] != expected


def test_a_map_is_compared_with_the_first_component(table: pd.DataFrame) -> None:
    found = reduction("map_correlation", name="t1w_t2w", region_map=MAP)(table, REGIONS)
    assert found == {"t1w_t2w": component_map_correlation(table, MAP)}
    with pytest.raises(ChoiceError, match="region_map has region 99, which the atlas lacks"):
        reduction("map_correlation", region_map={1: 0.5, 99: 1.0})(table, REGIONS)


def test_the_shape_counts_regions_genes_and_values(table: pd.DataFrame) -> None:
    assert reduction("shape")(table, REGIONS) == {
        "shape_regions": 8, "shape_regions_with_values": 7, "shape_genes": 30,
    }  # fmt: skip


def test_tables_of_a_run_are_reduced(small_lake: lake.Lake) -> None:
    made = lake.expression(small_lake, octants())
    wanted = [
        reduction("cge_distance"),
        reduction("gene_modules", modules={"odd": made.columns[1::2], "even": made.columns[::2]}),
        reduction("map_correlation", region_map=MAP),
    ]
    found = {name: value for one in wanted for name, value in dict(one(made, REGIONS)).items()}
    assert set(found) == {"cge_distance", "gene_modules", "map_correlation"}
    assert all(-1 < value < 1 for value in found.values())


def test_every_named_one_says_what_it_is() -> None:
    assert all(function.__doc__ for function in REDUCTIONS.values())
    assert lake.reduction is reduction


# Tables as parameters ---------------------------------------------------------------------------------------


def test_the_same_modules_in_any_form_are_the_same(tmp_path: Path) -> None:
    MODULES.to_csv(tmp_path / "modules.csv", index=False)
    lists = {str(name): [*rows] for name, rows in MODULES.groupby("module")["gene_symbol"]}
    given: list[Any] = [
        MODULES,
        MODULES[::-1],
        lists,
        tmp_path / "modules.csv",
        str(tmp_path / "modules.csv"),
    ]
    made = [reduction("gene_modules", modules=one) for one in given]
    assert len({one.identity for one in made}) == 1
    assert len(set(made)) == 1


def test_the_same_map_in_any_form_is_the_same(tmp_path: Path) -> None:
    MAP.rename_axis("region").rename("value").to_csv(tmp_path / "map.csv")
    frame = pd.DataFrame({"region": MAP.index, "value": MAP.to_numpy(), "note": "x"})
    given: list[Any] = [MAP, MAP[::-1], MAP.to_dict(), frame, tmp_path / "map.csv"]
    made = [reduction("map_correlation", region_map=one) for one in given]
    assert len({one.identity for one in made}) == 1
    assert len(set(made)) == 1


def test_genes_named_na_are_genes(tmp_path: Path) -> None:
    (tmp_path / "modules.csv").write_text("gene_symbol,module\nNA,None\nNAN,a\n,b\n")
    made = reduction("gene_modules", modules=tmp_path / "modules.csv")
    assert dict(made.parameters)["modules"] == (("NA", "None"), ("NAN", "a"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"map\.csv: No such file or directory; give a CSV of region, value\."),
        ("region,valu\n1,2\n", r"map\.csv lacks column value: region, value are needed"),
        ("region,value\n1,2\n1,3\n", r"map\.csv: region 1 is no whole number, or there twice"),
        ("region,value\n1.5,2\n", r"map\.csv: region 1\.5 is no whole number"),
        ("region,value\n1,x\n", r"map\.csv: regions and values are numbers, and one is not"),
        ("", r"map\.csv is no CSV of region, value"),
        ('region,value\n1,"2', r"map\.csv is no CSV of region, value"),
    ],
)
def test_wrong_maps_are_told(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "map.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(RequestError, match=message) as error:
        reduction("map_correlation", region_map=path)
    assert "\n" not in str(error.value)


# A person's own ---------------------------------------------------------------------------------------------


def test_a_function_is_as_good(table: pd.DataFrame) -> None:
    made = reduction(spread, quantile=0.9)
    assert made.name == "spread"
    assert made(table, REGIONS) == {
        f"spread_{key}": value for key, value in spread(table, REGIONS, quantile=0.9).items()
    }
    small = reduction(means)(table, REGIONS)
    assert isinstance(small, pd.DataFrame)
    pd.testing.assert_frame_equal(small, means(table, REGIONS))


@pytest.mark.parametrize(
    "result",
    [
        *("text", None, [1, 2], {"a": "b"}, np.zeros(3), REGIONS, REGIONS[["label"]]),
        REGIONS[["n_nodes"]].set_axis([0] * 8),
        REGIONS[["n_nodes", "n_nodes"]],
    ],
    ids=range(9),
)
def test_what_a_function_may_not_return_is_told(result: Any, table: pd.DataFrame) -> None:
    made = Reduction("mine", lambda _table, _regions: result)
    with pytest.raises(RequestError, match=r"Reduction 'mine' gave a .*: have it return a number"):
        made(table, REGIONS)


@pytest.mark.parametrize(
    "made",
    [
        reduction("cge_distance"),
        reduction("gene_modules", modules=MODULES),
        reduction(spread, name="mine", quantile=0.9),
    ],
    ids=lambda made: made.name,
)
def test_reductions_travel_to_workers(made: Reduction, table: pd.DataFrame) -> None:
    identity = made.identity
    again = pickle.loads(pickle.dumps(made))  # noqa: S301 - our own
    assert again == made
    assert again.identity == identity
    assert hash(again) == hash(made)
    assert again(table, REGIONS) == made(table, REGIONS)


def test_identities_tell_what_gives_other_results() -> None:
    made = [
        reduction("cge_distance"),
        reduction("cge_distance", name="other"),
        reduction("shape"),
        reduction("gene_modules", modules=MODULES),
        reduction("gene_modules", modules=MODULES[1:]),
        reduction("gene_modules", modules=MODULES, drop_smallest=1),
        reduction("map_correlation", region_map=MAP),
        reduction("map_correlation", region_map=MAP + 1e-9),
        reduction(spread),
        reduction(spread, quantile=0.9),
        reduction(means),
    ]
    assert len({one.identity for one in made}) == len(made)
    assert all(len(one.identity) == 12 for one in made)
    assert reduction(spread, quantile=0.9).identity == reduction(spread, quantile=np.float64(0.9)).identity


def test_descriptions_are_short_and_name_the_function() -> None:
    described = reduction("gene_modules", modules=MODULES.assign(module="m"), drop_smallest=0).description
    assert described["function"] == "lake.reductions:gene_modules"
    assert len(repr(described)) < 1500
    many = pd.DataFrame({"gene_symbol": [f"g{n}" for n in range(500)], "module": "m"})
    described = reduction("gene_modules", modules=many).description
    assert described["parameters"]["modules"]["length"] == 500
    assert set(reduction(spread).description) == {"name", "function", "parameters", "source_sha256"}


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Write and import a module of a person's own."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(text: str) -> Any:
        (tmp_path / "own_reduction.py").write_text(text)
        sys.modules.pop("own_reduction", None)
        importlib.invalidate_caches()
        return importlib.import_module("own_reduction")

    yield write
    sys.modules.pop("own_reduction", None)


def test_a_changed_function_is_another(module: Callable[[str], Any]) -> None:
    first = reduction(module("def f(table, regions):\n    return 1\n").f).identity
    assert reduction(module("def f(table, regions):\n    return 1\n").f).identity == first
    assert reduction(module("def f(table, regions):\n    return 2\n").f).identity != first


def test_a_function_by_its_name(module: Callable[[str], Any]) -> None:
    made = module("import os\nlimit = 3\ndef f(table, regions):\n    return 1\n")
    assert import_function("own_reduction:f") is made.f
    for named in ("own_reduction:g", "own_reduction:limit", "own_reduction:os", "os:system", "builtins:exec"):
        with pytest.raises(RequestError, match=f"'{named}' is no function of that module"):
            import_function(named)


@pytest.mark.parametrize("named", ["f", "own:", ":f", "a b:f", "own:f()", "own:f.g", "../own:f", "own:f:g"])
def test_what_is_no_name_is_not_imported(named: str) -> None:
    with pytest.raises(RequestError, match=r"names no function: write package\.module:function"):
        import_function(named)


def test_a_missing_or_broken_module_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ahba_broken_module.py").write_text("def f(table, regions):\n    return 1\n\n\n1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RequestError, match="cannot be imported: ZeroDivisionError: division by zero"):
        import_function("ahba_broken_module:f")
    with pytest.raises(RequestError, match="'no_such_package:f' cannot be imported: No module named"):
        import_function("no_such_package:f")


# What is wrong ----------------------------------------------------------------------------------------------


def test_wrong_reductions_are_told() -> None:
    wrong: list[tuple[Callable[[], Any], str]] = [
        (lambda: reduction("cge"), "There is no reduction 'cge'; "),
        (lambda: reduction("gene_module"), "no reduction 'gene_module'; did you mean 'gene_modules'"),
        (lambda: reduction("gene_modules"), "'gene_modules' cannot be called: missing a required argument"),
        (lambda: reduction("shape", size=3), "'shape' cannot be called: got an unexpected keyword"),
        (lambda: reduction(lambda _table, _regions: 1), "has no name of its own"),
        (lambda: reduction(np.nanmax), "has no name of its own"),  # type: ignore[arg-type]
        (lambda: reduction(spread, name="../x"), r"'../x' cannot name a reduction"),
        (lambda: reduction(spread, quantile=MODULES), "Parameter quantile is a DataFrame: give numbers"),
        (
            lambda: reduction("gene_modules", modules=3),
            "modules: a CSV or a DataFrame of gene_symbol, module",
        ),
    ]
    for make, message in wrong:
        with pytest.raises(RequestError, match=message):
            make()


def test_local_functions_are_refused() -> None:
    def local(table: pd.DataFrame, regions: pd.DataFrame) -> float:
        return 1

    with pytest.raises(RequestError, match="has no name of its own"):
        reduction(local)


def test_a_function_without_source_is_refused() -> None:
    scope: dict[str, Any] = {"__name__": "nowhere"}
    exec("def f(table, regions):\n    return 1\n", scope)  # noqa: S102 - as a person types it
    with pytest.raises(RequestError, match="The source of f cannot be read"):
        reduction(scope["f"])


def test_whatever_a_caller_names() -> None:
    assert reductions_from(None) == ()
    assert reductions_from("shape") == (reduction("shape"),)
    assert reductions_from(spread) == (reduction(spread),)
    assert reductions_from(reduction("shape")) == (reduction("shape"),)
    made = reductions_from(["shape", spread, reduction("cge_distance", name="other")])
    assert [one.name for one in made] == ["shape", "spread", "other"]
    with pytest.raises(RequestError, match="Two reductions are named 'shape'"):
        reductions_from(["shape", "shape"])
