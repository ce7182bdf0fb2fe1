"""Runs write whole tables with their origin inside, skip what is there, and repeat to the byte."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

import lake
from lake.errors import RequestError, RunError, StoreError
from lake.export import export
from lake.runs import UnitReport, provenance, run, tables_for
from lake.tables import PART, Unit, clear_leftovers, read_expression, read_provenance
from tests.helpers import ahba, called, octants, rewrite, tree
from transforms.atlas import Atlas
from transforms.errors import ChoiceError
from transforms.pipeline import Pipeline


@pytest.fixture(scope="module")
def tables(small_lake: lake.Lake, atlas: Atlas, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run with donors' tables. Not to be changed."""
    out = tmp_path_factory.mktemp("run") / "tables"
    run(small_lake, [atlas], out=out, donor_tables=True)
    return out


@pytest.fixture(scope="module")
def identity(small_lake: lake.Lake) -> str:
    return Pipeline().identity(small_lake.snapshot)


@pytest.fixture(scope="module")
def whole(small_lake: lake.Lake, atlas: Atlas) -> Any:
    return tables_for(small_lake, atlas, Pipeline())


def statuses(reports: list[UnitReport]) -> list[str]:
    return [report.status for report in reports]


# ---------------------------------------------------------------- what is written


def test_the_layout_is_the_documented_one(tables: Path, identity: str) -> None:
    assert sorted(tree(tables)) == [
        f"counts/pipeline={identity}/atlas=octants/{PART}",
        f"donor_expression/pipeline={identity}/atlas=octants/{PART}",
        f"expression/pipeline={identity}/atlas=octants/{PART}",
        f"genes/pipeline={identity}/{PART}",
        f"pipelines/{identity}.json",
        f"regions/atlas=octants/{PART}",
        f"units/pipeline={identity}/atlas=octants.json",
    ]


def parquet(tables: Path, name: str) -> pd.DataFrame:
    (path,) = tables.glob(f"{name}/**/{PART}")
    return pq.ParquetFile(path).read().to_pandas()


def test_expression_is_sorted_by_gene_with_a_column_a_region(tables: Path, whole: Any) -> None:
    frame = parquet(tables, "expression")
    assert list(frame) == ["gene_symbol", *map(str, range(1, 9))]
    assert frame["gene_symbol"].tolist() == sorted(frame["gene_symbol"])
    assert frame["gene_symbol"].is_unique
    np.testing.assert_array_equal(frame.iloc[:, 1:].to_numpy().T, whole.expression.to_numpy())


def test_counts_and_genes_and_regions(tables: Path, whole: Any, atlas: Atlas) -> None:
    counts = parquet(tables, "counts")
    assert list(counts) == ["donor", "region", "n_samples"]
    for row in counts.itertuples():
        assert row.n_samples == whole.counts.loc[row.region, row.donor]
    assert len(counts) == whole.counts.size
    genes = parquet(tables, "genes")
    assert list(genes)[:3] == ["gene_symbol", "entrez_id", "probe_id"]
    assert set(parquet(tables, "expression")["gene_symbol"]) <= set(genes["gene_symbol"])
    regions = parquet(tables, "regions")
    assert regions["region"].tolist() == list(range(1, 9))
    np.testing.assert_array_equal(regions[["centroid_x", "centroid_y", "centroid_z"]], atlas.centroids)


def test_donors_tables_average_to_the_expression(tables: Path, whole: Any) -> None:
    frame = parquet(tables, "donor_expression")
    assert list(frame)[:2] == ["gene_symbol", "donor"]
    assert frame["gene_symbol"].is_monotonic_increasing
    regions = [str(region) for region in whole.expression.index]
    mean = frame.groupby("gene_symbol")[regions].mean().loc[whole.expression.columns]
    np.testing.assert_allclose(mean.to_numpy().T, whole.expression.to_numpy(), rtol=1e-12)
    for donor, expected in whole.donor_expression.items():
        found = frame[frame["donor"] == donor].set_index("gene_symbol")[regions]
        np.testing.assert_array_equal(found.to_numpy().T, expected.to_numpy())


def test_every_table_tells_its_origin(
    tables: Path, identity: str, small_lake: lake.Lake, atlas: Atlas
) -> None:
    choices = json.loads((tables / "pipelines" / f"{identity}.json").read_text())
    for name in ("expression", "donor_expression", "counts", "genes"):
        (path,) = tables.glob(f"{name}/**/{PART}")
        told = read_provenance(path)
        assert told["snapshot"] == small_lake.snapshot
        assert told["pipeline"] == identity
        assert told["parameters"] == Pipeline().parameters()
        assert told["donors"] == ["9861", "10021", "12876"]
        assert set(told["software"]) >= {"ahba-lake", "numpy", "pandas", "zarr"}
        assert told["simulated"].startswith("SIMULATED")
        assert "Hawrylycz" in told["citation"]
        assert told["licence"]
        assert choices.items() <= told.items()
    (path,) = tables.glob(f"regions/**/{PART}")
    assert read_provenance(path)["atlas"]["fingerprint"] == atlas.fingerprint


def test_reports_say_what_was_written(
    small_lake: lake.Lake, atlas: Atlas, whole: Any, tmp_path: Path
) -> None:
    (written,) = run(small_lake, [atlas], out=tmp_path)
    assert written.status == "written"
    assert written.n_regions == 8
    assert written.n_genes == whole.expression.shape[1]
    assert written.n_samples == whole.counts.to_numpy().sum()
    assert written.n_filled == (whole.counts.sum(axis=1) > 0).sum()
    (present,) = run(small_lake, [atlas], out=tmp_path)
    assert present == UnitReport(**{**vars(written), "status": "present"})


# ---------------------------------------------------------------- again, and elsewhere


def test_a_rerun_writes_nothing(small_lake: lake.Lake, atlas: Atlas, tmp_path: Path) -> None:
    run(small_lake, [atlas], out=tmp_path)
    before = written_when(tmp_path)
    run(small_lake, [atlas], out=tmp_path)
    assert written_when(tmp_path) == before


def written_when(out: Path) -> dict[Path, int]:
    """All that a run leaves but what it tells of itself."""
    return {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.name != "run.json"}


def test_missing_units_are_made_and_the_others_left(
    small_lake: lake.Lake, atlas: Atlas, tmp_path: Path
) -> None:
    other = octants("other", first=11)
    run(small_lake, [atlas, other], out=tmp_path)
    before = tree(tmp_path)
    (path,) = tmp_path.glob(f"expression/*/atlas=other/{PART}")
    path.unlink()
    assert statuses(run(small_lake, [atlas, other], out=tmp_path)) == ["present", "written"]
    assert tree(tmp_path) == before


def test_donors_tables_can_be_asked_for_later(
    small_lake: lake.Lake, atlas: Atlas, tables: Path, tmp_path: Path
) -> None:
    run(small_lake, [atlas], out=tmp_path)
    assert statuses(run(small_lake, [atlas], out=tmp_path, donor_tables=True)) == ["written"]
    assert tree(tmp_path) == tree(tables)


@pytest.mark.parametrize("workers", [1, 5])
def test_the_same_bytes_with_any_number_of_threads(
    workers: int, small_lake: lake.Lake, atlas: Atlas, tables: Path, tmp_path: Path
) -> None:
    run(small_lake, [atlas], out=tmp_path, donor_tables=True, workers=workers)
    assert tree(tmp_path) == tree(tables)


def test_the_order_of_atlases_and_pipelines_does_not_matter(
    small_lake: lake.Lake, atlas: Atlas, tmp_path: Path
) -> None:
    other, median = octants("other", first=11), Pipeline(agg_metric="median")
    run(small_lake, [atlas, other], [Pipeline(), median], out=tmp_path / "a")
    run(small_lake, [other, atlas], [median, Pipeline()], out=tmp_path / "b")
    assert len(tree(tmp_path / "a")) == 2 * 2 * 3 + 2 + 2 + 2
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_one_by_one_gives_the_same_bytes(small_lake: lake.Lake, atlas: Atlas, tmp_path: Path) -> None:
    other = octants("other", first=11)
    run(small_lake, [atlas, other], out=tmp_path / "a")
    for one in (other, atlas, other):
        run(small_lake, [one], out=tmp_path / "b")
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_progress_counts_units(small_lake: lake.Lake, atlas: Atlas, tmp_path: Path) -> None:
    calls: list[tuple[str, int, int | None]] = []
    run(small_lake, [atlas, octants("b", first=11)], out=tmp_path, progress=lambda *call: calls.append(call))
    by_label = {label: [call[1:] for call in calls if call[0] == label] for label, *_ in calls}
    assert by_label["tables"] == [(1, 2), (2, 2)]
    assert by_label["genes"] == [(1, 1)]
    assert by_label["normalisation"] == [(1, 2), (2, 2)]
    assert by_label["assignment"] == [(1, None), (2, None), (2, 2)]  # while atlases are read, and then


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize("later", [Pipeline(), Pipeline(agg_metric="median")], ids=["same", "other choices"])
def test_another_atlas_of_the_same_name_is_refused(
    later: Pipeline, small_lake: lake.Lake, atlas: Atlas, tmp_path: Path
) -> None:
    run(small_lake, [atlas], out=tmp_path)
    before = tree(tmp_path)
    with pytest.raises(
        RequestError, match=r"tables of another atlas named 'octants'; give this one another name"
    ):
        run(small_lake, [octants(first=3)], [later], out=tmp_path)
    assert tree(tmp_path) == before


def test_two_atlases_of_one_name_are_refused(small_lake: lake.Lake, atlas: Atlas, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="Two atlases are named 'octants'; name one of them NAME=FILE"):
        run(small_lake, [atlas, octants(first=3)], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def far_away_image() -> nibabel.Nifti1Image:
    """One region where no brain is, in a wide margin: abagen moves what lies outside an image to its edge."""
    labels = np.zeros((11, 11, 11), dtype=np.int16)
    labels[5, 5, 5] = 1
    affine = np.eye(4)
    affine[:3, 3] = 5000
    return nibabel.Nifti1Image(labels, affine)


def test_one_failing_atlas_does_not_stop_the_others(
    small_lake: lake.Lake, atlas: Atlas, tables: Path, identity: str, tmp_path: Path
) -> None:
    far = Atlas.from_volume(far_away_image(), name="far")
    with pytest.raises(RunError) as caught:
        run(small_lake, [far, atlas], out=tmp_path, donor_tables=True)
    assert str(caught.value).startswith("1 of 2 units failed:\n  far, pipeline ")
    assert "No sample falls into a region of far" in str(caught.value)
    assert tree(tmp_path) == tree(tables)


def test_a_metric_without_a_name_is_refused(small_lake: lake.Lake, atlas: Atlas, tmp_path: Path) -> None:
    """Two of them would have the same id, so the second would find the first one's tables."""
    for metric in (lambda values, axis: values.mean(axis), lambda values, axis: values.max(axis)):
        with pytest.raises(RequestError, match="agg_metric is a function without a name of its own"):
            run(small_lake, [atlas], [Pipeline(agg_metric=metric)], out=tmp_path)
    table = lake.expression(small_lake, atlas, agg_metric=lambda values, axis: np.mean(values, axis=axis))
    pd.testing.assert_frame_equal(table, lake.expression(small_lake, atlas))


def test_info_for_a_loaded_atlas_is_refused(small_lake: lake.Lake, atlas: Atlas) -> None:
    with pytest.raises(RequestError, match="a loaded Atlas has its own"):
        lake.expression(small_lake, atlas, pd.DataFrame({"id": [1]}))


def test_unknown_choices_are_refused(small_lake: lake.Lake, atlas: Atlas) -> None:
    with pytest.raises(ChoiceError, match="did you mean 'tolerance'"):
        lake.expression(small_lake, atlas, tolerence=3)


def test_damage_is_not_averaged(store_copy: Path, atlas: Atlas, tmp_path: Path) -> None:
    store = lake.open(store_copy)
    shard = store_copy / "microarray/10021/expression/c/0/0"
    rewrite(
        shard, lambda data: data[:500] + b"\0" + data[501:] if data[500] else data[:500] + b"\1" + data[501:]
    )
    with pytest.raises(StoreError, match="10021/expression: does not read"):
        run(store, [atlas], out=tmp_path / "out")
    assert not list((tmp_path / "out").glob(f"expression/**/{PART}"))


# ---------------------------------------------------------------- leftovers


def test_leftovers_of_the_dead_are_cleared_and_those_of_the_living_kept(tmp_path: Path) -> None:
    child = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    dead = tmp_path / "expression" / f".{PART}.{int(child.stdout)}.wip"
    living = tmp_path / "expression" / f".{PART}.{os.getppid()}.wip"
    mine, foreign = tmp_path / f".{PART}.{os.getpid()}.wip", tmp_path / ".notes.wip"
    predecessors = tmp_path / f".scratch-0.{os.getpid()}.wip"  # that of a container's last process 1, say
    dead.parent.mkdir()
    for path in (dead, living, mine, foreign, predecessors):
        path.write_bytes(b"")
    os.utime(predecessors, (0, 0))
    clear_leftovers(tmp_path)
    found = [path.exists() for path in (dead, living, mine, foreign, predecessors)]
    assert found == [False, True, True, True, False]


# ---------------------------------------------------------------- reading back


def test_read_expression_gives_the_table_of_one_call(
    tables: Path, small_lake: lake.Lake, atlas: Atlas
) -> None:
    direct = lake.expression(small_lake, atlas)
    found = read_expression(tables, atlas="octants")
    pd.testing.assert_frame_equal(found, direct, check_exact=True, check_column_type=False)
    assert (found.index.name, found.columns.name) == ("label", "gene_symbol")
    assert found.attrs == direct.attrs
    assert direct.attrs["snapshot"] == small_lake.snapshot


def test_names_with_a_colon_are_the_names_with_a_dash(small_lake: lake.Lake, tmp_path: Path) -> None:
    run(small_lake, [octants("mine-octants")], out=tmp_path)
    assert read_expression(tmp_path, atlas="mine:octants").equals(
        read_expression(tmp_path, atlas="mine-octants")
    )


def test_reading_names_what_there_is(
    tables: Path, small_lake: lake.Lake, atlas: Atlas, tmp_path: Path
) -> None:
    with pytest.raises(RequestError, match="no table for atlas 'dk'; there are octants"):
        read_expression(tables, atlas="dk")
    with pytest.raises(RequestError, match="no table for atlas 'dk'; there are none"):
        read_expression(tmp_path, atlas="dk")
    median = Pipeline(agg_metric="median")
    run(small_lake, [atlas], [Pipeline(), median], out=tmp_path)
    ids = {pipeline.identity(small_lake.snapshot): pipeline for pipeline in (Pipeline(), median)}
    with pytest.raises(RequestError, match="name one pipeline for atlas 'octants'") as caught:
        read_expression(tmp_path, atlas="octants")
    assert all(one in str(caught.value) for one in ids)
    for one, pipeline in ids.items():
        table = read_expression(tmp_path, atlas="octants", pipeline=one)
        assert table.attrs["parameters"] == pipeline.parameters()


def test_a_unit_knows_its_files(tmp_path: Path) -> None:
    unit = Unit(tmp_path, "p", "a")
    assert unit.path("counts") == tmp_path / "counts" / "pipeline=p" / "atlas=a" / PART
    assert unit.record == tmp_path / "units" / "pipeline=p" / "atlas=a.json"
    assert not unit.is_written("x", donors=False)


# ---------------------------------------------------------------- files for other tools

READERS: dict[str, Callable[[Path], pd.DataFrame]] = {
    ".csv": pd.read_csv,
    ".tsv": lambda path: pd.read_csv(path, sep="\t"),
    ".parquet": pd.read_parquet,
    ".feather": lambda path: pyarrow.feather.read_table(path).to_pandas(),
}


@pytest.mark.parametrize("suffix", READERS)
def test_exported_files_hold_the_tables(
    suffix: str, small_lake: lake.Lake, atlas: Atlas, whole: Any, tmp_path: Path
) -> None:
    path, origin = tmp_path / f"table{suffix}", provenance(small_lake, atlas, Pipeline())
    written = export(path, whole, origin, counts=True, donors=True)
    names = ["table", "table_counts", "table_9861", "table_10021", "table_12876"]
    assert written == [tmp_path / f"{name}{suffix}" for name in names]
    expected = [whole.expression, whole.counts, *whole.donor_expression.values()]
    for file, table in zip(written, expected, strict=True):
        frame = READERS[suffix](file)
        assert frame.columns[0] == "label"
        found = frame.set_index("label")
        assert found.columns.astype(str).tolist() == table.columns.tolist()
        np.testing.assert_array_equal(found.to_numpy(), table.to_numpy())
    told = json.loads((tmp_path / "table.json").read_text()) if suffix in {".csv", ".tsv"} else None
    if suffix == ".parquet":
        told = read_provenance(path)
    assert told is None or told == json.loads(json.dumps(origin))


def test_an_unknown_suffix_is_refused(small_lake: lake.Lake, whole: Any, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"the suffix says no format; use one of \.csv"):
        export(tmp_path / "table.xlsx", whole, {}, counts=False, donors=False)


def test_the_command_writes_tables_and_a_file(
    store_path: Path, atlas_file: Path, tables: Path, whole: Any, tmp_path: Path
) -> None:
    done = ahba(
        "run", "--store", store_path, "--atlas", atlas_file, "--out", tmp_path / "tables",
        "--output-file", tmp_path / "x.csv", "--save-counts", "--save-donors",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "octants" in done.stdout
    assert "SIMULATED" in done.stdout
    assert "lake.read_expression" in done.stdout
    pd.testing.assert_frame_equal(
        read_expression(tmp_path / "tables", atlas="octants"), read_expression(tables, atlas="octants")
    )
    lines = (tmp_path / "x.csv").read_text().splitlines()
    assert lines[0].split(",") == ["label", *whole.expression.columns]
    assert len(lines) == 9
    assert (tmp_path / "x_counts.csv").read_text().splitlines()[0] == "label,9861,10021,12876"
    assert (tmp_path / "x_10021.csv").exists()


def test_a_file_alone_goes_by_the_resources_too(store_path: Path, atlas_file: Path, tmp_path: Path) -> None:
    command = ("run", "--store", store_path, "--atlas", atlas_file, "--output-file", tmp_path / "x.csv")
    little = called(*command, "--memory-limit", "1MB")
    assert (little.returncode, little.stdout) == (2, "")
    assert "a run needs 620.00 MiB or more" in little.stderr
    foreseen = called(*command, "--dry-run", "--workers", "1")
    assert foreseen.stdout.startswith("1 pipelines x 1 atlases: 1 units, 0 of them done.")
    assert "with 1 workers" in foreseen.stdout
    assert not list(tmp_path.iterdir())
    done = called(*command)
    assert done.stderr.splitlines() == [
        f"{kind}: 100 %" for kind in ("samples", "assignment", "probes", "genes", "normalisation")
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.csv", "x.json"]


@pytest.mark.slow
def test_hemispheres_from_x_constrain_the_samples(
    store_path: Path, atlas_file: Path, atlas: Atlas, small_lake: lake.Lake, tmp_path: Path
) -> None:
    choices = ("--store", store_path, "--atlas", atlas_file, "--no-atlas-info", "--tolerance", "9")
    done = ahba("run", *choices, "--hemispheres-from-x", "--output-file", tmp_path / "x.csv")
    assert done.returncode == 0, done.stderr
    sided = atlas.without_info().with_hemispheres_from_x()
    expected = tables_for(small_lake, sided, Pipeline(tolerance=9)).expression
    found = pd.read_csv(tmp_path / "x.csv", index_col="label")
    pd.testing.assert_frame_equal(found, expected, check_names=False, rtol=1e-12)
    native = ahba(
        "run", "--store", store_path, "--atlas", "abagen:dk-native", "--hemispheres-from-x", "--out", tmp_path
    )
    assert native.returncode == 2
    assert "needs a midline at x = 0" in native.stderr


def test_the_command_ends_with_1_if_an_atlas_fails(
    store_path: Path, atlas_file: Path, tmp_path: Path
) -> None:
    far = tmp_path / "far.nii"
    far_away_image().to_filename(far)
    done = ahba("run", "--store", store_path, "--atlas", far, "--atlas", atlas_file, "--out", tmp_path / "t")
    assert done.returncode == 1
    assert "1 of 2 units failed" in done.stderr
    assert "No sample falls into a region of far" in done.stderr
    assert read_expression(tmp_path / "t", atlas="octants").notna().any(axis=None)
