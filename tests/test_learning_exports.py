"""Other tools get the store's numbers: AnnData, scikit-learn, Hugging Face."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml

import lake
from lake.errors import RequestError
from tests.helpers import tree
from tests.learning import published_values
from transforms.atlas import Atlas

CORRECTED = ["corrected_mni_x", "corrected_mni_y", "corrected_mni_z"]


@pytest.fixture(scope="module")
def tables(small_lake: lake.Lake, atlas: Atlas, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tables")
    lake.run(small_lake, [atlas], out=out, donor_tables=True)
    return out


# ---------------------------------------------------------------- scikit-learn


def test_arrays_are_the_stores(small_lake: lake.Lake) -> None:
    found = lake.to_sklearn(small_lake.everything(), "coordinates")
    np.testing.assert_array_equal(found.X, published_values(small_lake))
    np.testing.assert_array_equal(found.y, small_lake.samples[CORRECTED].to_numpy())
    assert found.groups.tolist() == small_lake.samples["donor"].tolist()
    assert found.names.tolist() == small_lake.probes["probe_id"].astype(str).tolist()
    assert found.X.dtype == np.float64


def test_rows_without_the_target_are_left_out(small_lake: lake.Lake) -> None:
    wells = small_lake.samples["well_id"][::3]
    found = lake.to_sklearn(
        small_lake.everything(), "age", maps={"age": pd.Series(1.0, index=wells)}, groups="structure"
    )
    np.testing.assert_array_equal(found.X, published_values(small_lake)[::3])
    assert found.rows["well_id"].tolist() == wells.tolist()
    assert found.groups.tolist() == small_lake.samples["structure"][::3].tolist()


def test_several_targets_and_none(small_lake: lake.Lake) -> None:
    two = lake.to_sklearn(small_lake.gene("GFAP"), ["mni_x", "mni_z"], dtype="float32", corrected_mni=False)
    np.testing.assert_array_equal(two.y, small_lake.samples[["mni_x", "mni_z"]].to_numpy())
    assert two.X.dtype == np.float32
    assert lake.to_sklearn(small_lake.gene("GFAP")).y is None


def test_regions_have_no_donors(tables: Path) -> None:
    found = lake.to_sklearn(tables, atlas="octants")
    assert found.groups is None
    np.testing.assert_array_equal(found.X, lake.read_expression(tables, atlas="octants").dropna().to_numpy())
    assert set(lake.to_sklearn(tables, atlas="octants", donor_tables=True).groups) == {
        "9861",
        "10021",
        "12876",
    }


# ---------------------------------------------------------------- AnnData


def test_anndata_holds_the_chosen_genes_of_every_sample(
    small_lake: lake.Lake, atlas: Atlas, tmp_path: Path
) -> None:
    anndata = pytest.importorskip("anndata", reason="anndata is an extra; `make test` installs it")
    pipeline = lake.Pipeline(probe_selection="max_intensity")
    found = lake.to_anndata(small_lake, pipeline=pipeline, regions=atlas, dtype="float64")
    expected = small_lake.everything().per_gene(pipeline)
    np.testing.assert_array_equal(found.X, expected.read().T)
    assert found.obs_names.tolist() == small_lake.samples["well_id"].astype(str).tolist()
    assert found.var_names.tolist() == expected.probes["gene_symbol"].tolist()
    assert found.obs["donor"].astype(str).tolist() == small_lake.samples["donor"].tolist()
    assert found.obs["region"].nunique() > 4
    np.testing.assert_array_equal(found.obsm["spatial"], small_lake.samples[CORRECTED].to_numpy())
    origin = json.loads(found.uns["ahba_lake"])
    assert origin["snapshot"] == small_lake.snapshot
    assert origin["parameters"]["probe_selection"] == "max_intensity"
    found.write_h5ad(tmp_path / "samples.h5ad")
    again = anndata.read_h5ad(tmp_path / "samples.h5ad")
    np.testing.assert_array_equal(again.X, found.X)
    assert again.obs["structure_name"].tolist() == small_lake.samples["structure_name"].tolist()


def test_anndata_of_tables_has_a_row_a_region(tables: Path) -> None:
    pytest.importorskip("anndata", reason="anndata is an extra; `make test` installs it")
    found = lake.to_anndata(tables, atlas="octants", donor_tables=True)
    assert found.obs_names[0] == f"{found.obs['donor'].iloc[0]}-{found.obs['region'].iloc[0]}"
    assert found.obs_names.is_unique
    assert lake.to_anndata(tables, atlas="octants").obs_names.tolist() == [str(n) for n in range(1, 9)]


# ---------------------------------------------------------------- Hugging Face


def read_back(folder: Path) -> tuple[np.ndarray, pd.DataFrame]:
    files = sorted((folder / "data").glob("*.parquet"))
    table = pd.concat([pq.read_table(file).to_pandas() for file in files], ignore_index=True)
    return np.stack(table.pop("expression").to_list()), table


@pytest.mark.parametrize("memory", [0, 1 << 30])
def test_parquet_holds_the_stores_numbers(memory: int, small_lake: lake.Lake, tmp_path: Path) -> None:
    files = lake.to_huggingface(small_lake.everything(), tmp_path / "hf", rows_per_file=100, memory=memory)
    assert [file.name for file in files] == [f"train-0000{n}-of-00003.parquet" for n in range(3)]
    assert [pq.read_metadata(file).num_rows for file in files] == [100, 100, 20]
    values, labels = read_back(tmp_path / "hf")
    np.testing.assert_array_equal(values, published_values(small_lake).astype(np.float32))
    np.testing.assert_array_equal(np.stack(labels["coordinates"]), small_lake.samples[CORRECTED].to_numpy())
    assert labels["structure_name"].tolist() == small_lake.samples["structure_name"].tolist()
    genes = pq.read_table(tmp_path / "hf" / "genes.parquet").to_pandas()
    assert genes["probe_id"].tolist() == small_lake.probes["probe_id"].tolist()
    assert sorted(path.name for path in (tmp_path / "hf").iterdir()) == ["README.md", "data", "genes.parquet"]


def test_the_same_bytes_wherever_it_was_gathered(small_lake: lake.Lake, tmp_path: Path) -> None:
    for name, memory in (("a", 0), ("b", 1 << 30)):
        lake.to_huggingface(small_lake.gene("GFAP"), tmp_path / name / "set", memory=memory)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_the_card_says_what_it_is(small_lake: lake.Lake, tmp_path: Path) -> None:
    lake.to_huggingface(
        small_lake, tmp_path / "cortex-genes", pipeline=lake.Pipeline(probe_selection="max_intensity")
    )
    text = (tmp_path / "cortex-genes" / "README.md").read_text()
    head = yaml.safe_load(text.split("---")[1])
    assert head["license"] == "other"
    assert head["configs"][0]["data_files"][0]["path"] == "data/train-*.parquet"
    for said in (
        small_lake.snapshot,
        "SIMULATED",
        '"probe_selection": "max_intensity"',
        '"numpy": ',
        "Allen Institute Terms of Use",
        "Hawrylycz",
        "# cortex-genes",
    ):
        assert said in text
    metadata = pq.read_schema(tmp_path / "cortex-genes" / "genes.parquet").metadata
    assert json.loads(metadata[b"ahba_lake"])["snapshot"] == small_lake.snapshot


def test_whole_or_not_at_all(small_lake: lake.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_arguments: object) -> str:
        raise OSError("No space left on device")

    with monkeypatch.context() as changed:
        changed.setattr("lake.learning.huggingface.card", fails)
        with pytest.raises(OSError, match="No space"):
            lake.to_huggingface(small_lake.gene("GFAP"), tmp_path / "hf", memory=0)
    assert not list(tmp_path.iterdir())
    lake.to_huggingface(small_lake.gene("GFAP"), tmp_path / "hf")
    with pytest.raises(RequestError, match="is there already"):
        lake.to_huggingface(small_lake.gene("GFAP"), tmp_path / "hf")
    with pytest.raises(RequestError, match="rows_per_file=0"):
        lake.to_huggingface(small_lake.gene("GFAP"), tmp_path / "other", rows_per_file=0)


@pytest.mark.slow
def test_datasets_reads_it(small_lake: lake.Lake, tables: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    datasets = pytest.importorskip("datasets", reason="`make test` installs datasets")
    lake.to_huggingface(small_lake.gene("GFAP"), tmp_path / "samples", rows_per_file=90)
    lake.to_huggingface(tables, tmp_path / "regions", atlas="octants")
    cache = str(tmp_path / "cache")
    files = str(tmp_path / "samples" / "data" / "train-*.parquet")
    found = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=cache)
    assert found.num_rows == 220
    expected = small_lake.gene("GFAP").read().T.astype(np.float32)
    np.testing.assert_array_equal(np.array(found["expression"][:]), expected)
    by_card = datasets.load_dataset(str(tmp_path / "regions"), cache_dir=cache)
    assert by_card["train"].num_rows == 8
    assert len(by_card["train"][0]["expression"]) == len(lake.to_sklearn(tables, atlas="octants").names)
