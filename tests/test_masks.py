"""Samples in a mask and dense maps: beside plain transcriptions, and as files."""

import json
from functools import cache
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lake
import lake.masks
from lake.errors import RequestError
from lake.runs import tables_for
from tests.helpers import octants, octants_image
from tests.native_surfaces import hemisphere
from transforms.atlas import Atlas
from transforms.atlas_set import AtlasSet
from transforms.errors import ChoiceError
from transforms.masks import interpolate_nodes, on_grid
from transforms.samples import use_coordinates

PLACES = ["mni_x", "mni_y", "mni_z"]


@cache
def left_mask() -> Atlas:
    """The left half of the brain's box."""
    image = octants_image()
    left = np.asarray(image.dataobj) % 2 == 1
    return Atlas.from_volume(nibabel.Nifti1Image(left.astype(np.int16), image.affine), name="left")


@cache
def small_mask() -> Atlas:
    """Twelve voxels of 20 mm around the origin."""
    data = np.zeros((4, 5, 4), dtype=np.int16)
    data[1:3, 1:4, 1:3] = 1
    affine = np.diag([20.0, 20.0, 20.0, 1.0])
    affine[:3, 3] = -30, -50, -20
    return Atlas.from_volume(nibabel.Nifti1Image(data, affine), name="small")


# Samples.


def test_samples_in_a_mask_are_normalised_with_all_others(small_lake: lake.Lake) -> None:
    everywhere = lake.samples_in_mask(small_lake)
    inside = lake.samples_in_mask(small_lake, left_mask(), matching="nearest", tolerance=0)
    keep = everywhere.samples["mni_x"].to_numpy() < 0
    assert 0 < keep.sum() < len(keep)
    pd.testing.assert_frame_equal(inside.expression, everywhere.expression[keep])
    pd.testing.assert_frame_equal(inside.samples, everywhere.samples[keep].reset_index(drop=True))
    assert everywhere.expression.index.tolist() == everywhere.samples["well_id"].tolist()
    assert everywhere.expression.attrs["parameters"]["norm_matched"] is False


def test_their_mean_is_the_region(small_lake: lake.Lake) -> None:
    """With samples averaged at once, a region is the mean of the samples in a mask of its shape."""
    choices = {"tolerance": 0, "gene_norm": "zscore"}
    table = tables_for(
        small_lake, left_mask(), lake.Pipeline(region_agg="samples", norm_matched=False, **choices)
    )
    found = lake.samples_in_mask(small_lake, left_mask(), **choices)
    expected = found.expression.mean()[table.expression.columns]
    np.testing.assert_allclose(table.expression.loc[1], expected, rtol=1e-9, atol=1e-12)


def test_mirrored_copies_lie_on_their_own_side(small_lake: lake.Lake) -> None:
    """In abagen they have the coordinates of the originals: allen.py:668."""
    choices = {"matching": "nearest", "tolerance": 0}
    found = lake.samples_in_mask(small_lake, left_mask(), lr_mirror="rightleft", **choices).samples
    assert (found["mni_x"] < 0).all()
    placed = use_coordinates(small_lake.samples, corrected_mni=True)["mni_x"].to_numpy()
    copies = placed[found["column"]] > 0
    assert 0 < copies.sum() < len(copies)
    np.testing.assert_array_equal(found["mni_x"], -np.abs(placed[found["column"]]))


def test_masks_of_donors_give_mni_coordinates(small_lake: lake.Lake) -> None:
    box = np.zeros((200, 200, 230), dtype=np.int16)
    box[60:140, 60:140, 60:140] = 1
    affine = np.array([[-1.0, 0, 0, 95], [0, 0, -1, 105], [0, -1, 0, 85], [0, 0, 0, 1]])
    image = nibabel.Nifti1Image(box, affine)
    own = Atlas.from_volume(image, name="box", space="native")
    masks = AtlasSet("box", dict.fromkeys(small_lake.donors, own))
    found = lake.samples_in_mask(small_lake, masks)
    known = use_coordinates(small_lake.samples, corrected_mni=True).set_index("well_id")[PLACES]
    expected = known.loc[found.samples["well_id"]]
    assert len(expected) > 5
    np.testing.assert_array_equal(found.samples[PLACES], expected)
    with pytest.raises(RequestError, match="mirrored in native space has no MNI coordinates"):
        lake.samples_in_mask(small_lake, masks, lr_mirror="bidirectional")


def test_what_makes_no_sense_in_a_mask_is_refused(small_lake: lake.Lake) -> None:
    with pytest.raises(RequestError, match="missing, agg_metric averages samples into regions"):
        lake.samples_in_mask(small_lake, agg_metric="mean", missing=None)
    far = octants_image()
    far.affine[0, 3] += 1000
    mask = Atlas.from_volume(nibabel.Nifti1Image(np.asarray(far.dataobj), far.affine), name="far")
    with pytest.raises(ChoiceError, match="No sample falls into the mask far"):
        lake.samples_in_mask(small_lake, mask, matching="nearest")


# Maps.


def plain_map(values: np.ndarray, places: np.ndarray, nodes: np.ndarray, k: int) -> np.ndarray:
    """Node by node: nearest k samples, weighted by 1/distance; distance 0 takes all."""
    result = np.empty((len(nodes), values.shape[1]))
    for row, node in enumerate(nodes):
        distance = np.sqrt(((places - node) ** 2).sum(axis=1))
        near = np.argsort(distance, kind="stable")[:k]
        at_node = distance[near] == 0
        weight = at_node.astype(float) if at_node.any() else 1 / distance[near]
        result[row] = (values[near] * weight[:, None]).sum(axis=0) / weight.sum()
    return result


@given(seed=st.integers(0, 2**32 - 1), k=st.integers(1, 12))
@settings(max_examples=20, deadline=None)
def test_maps_are_the_plain_ones(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    places, nodes = rng.normal(0, 20, (12, 3)), rng.normal(0, 20, (30, 3))
    nodes[:3] = places[:3]
    values = rng.normal(5, 1, (12, 2))
    ours = interpolate_nodes(values, places, nodes, n_neighbors=k)
    np.testing.assert_allclose(ours, plain_map(values, places, nodes, k), rtol=1e-12)


def test_a_sample_without_a_value_is_left_out() -> None:
    places, nodes = np.array([[1.0, 0, 0], [2.0, 0, 0]]), np.zeros((1, 3))
    values = np.array([[np.nan, np.nan], [7.0, np.nan]])
    ours = interpolate_nodes(values, places, nodes, n_neighbors=2)
    np.testing.assert_array_equal(ours, [[7.0, np.nan]])


@pytest.mark.parametrize("n_neighbors", [0, 3])
def test_neighbours_must_exist(n_neighbors: int) -> None:
    with pytest.raises(ChoiceError, match=f"n_neighbors={n_neighbors} of 2 samples: choose from 1 to 2"):
        interpolate_nodes(np.ones((2, 1)), np.eye(3)[:2], np.eye(3), n_neighbors=n_neighbors)


def test_a_map_is_made_of_the_samples_of_both_sides(small_lake: lake.Lake) -> None:
    mask = small_mask()
    everywhere = lake.samples_in_mask(small_lake, lr_mirror="bidirectional")
    genes = list(everywhere.expression.columns[[5, 2]])
    maps = lake.interpolated_map(small_lake, genes, mask)
    assert list(maps) == genes
    expected = plain_map(
        everywhere.expression[genes].to_numpy(),
        everywhere.samples[PLACES].to_numpy(),
        mask.coordinates,
        10,
    )
    np.testing.assert_allclose(maps.values.to_numpy(), expected, rtol=1e-10)
    np.testing.assert_array_equal(maps[genes[0]], on_grid(mask, maps.values[genes[0]].to_numpy()))
    assert maps[genes[0]].shape == mask.shape
    assert (maps[genes[0]] != 0).sum() == 12


def test_a_gene_that_is_not_there_is_named(small_lake: lake.Lake) -> None:
    known = lake.samples_in_mask(small_lake).expression.columns[0]
    with pytest.raises(RequestError, match=f"Gene '{known}X' is not among the .* did you mean '{known}'"):
        lake.interpolated_map(small_lake, f"{known}X", small_mask())
    with pytest.raises(RequestError, match="No gene is asked for"):
        lake.interpolated_map(small_lake, [], small_mask())


# Files.


@pytest.fixture(scope="module")
def maps(small_lake: lake.Lake) -> lake.masks.DenseMaps:
    genes = lake.samples_in_mask(small_lake).expression.columns[:2]
    return lake.interpolated_map(small_lake, list(genes), small_mask())


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_volumes_are_written_with_their_origin(
    maps: lake.masks.DenseMaps, tmp_path: Path, suffix: str
) -> None:
    written = lake.write_maps(maps, tmp_path / f"map_{{gene}}{suffix}")
    assert [path.name for path in written] == [f"map_{gene}{suffix}" for gene in maps]
    before = written[0].read_bytes()
    for gene, path in zip(maps, written, strict=True):
        image = nibabel.load(path)
        np.testing.assert_array_equal(np.asarray(image.dataobj), maps[gene])
        np.testing.assert_array_equal(image.affine, maps.mask.affine)
        assert maps.provenance["pipeline"] in bytes(image.header["descrip"]).decode()
        origin = json.loads((tmp_path / f"map_{gene}.json").read_text())
        assert (origin["gene_symbol"], origin["mask"]["name"], origin["n_neighbors"]) == (gene, "small", 10)
    lake.write_maps(maps, tmp_path / f"map_{{gene}}{suffix}")
    assert written[0].read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 4


def test_surfaces_are_written_by_hemisphere(small_lake: lake.Lake, tmp_path: Path) -> None:
    gene = lake.samples_in_mask(small_lake).expression.columns[0]
    found = lake.interpolated_map(small_lake, gene, "abagen:dk-surface")
    written = lake.write_maps(found, tmp_path / "map.func.gii")
    assert [path.name for path in written] == ["map_lh.func.gii", "map_rh.func.gii"]
    images = [nibabel.load(path) for path in written]
    values = np.concatenate([image.darrays[0].data for image in images])
    np.testing.assert_array_equal(values, found[gene].astype(np.float32))
    assert [image.meta["AnatomicalStructurePrimary"] for image in images] == ["CortexLeft", "CortexRight"]


def test_hemispheres_of_different_size_are_parted_where_they_meet(
    small_lake: lake.Lake, tmp_path: Path
) -> None:
    left, right = (hemisphere("9861", side) for side in ("lh", "rh"))
    assert len(left.vertices) != len(right.vertices)
    mask = Atlas.from_surface(
        (left.labels, {}), (right.labels, {}), name="own", space="fsLR",
        mesh=((left.vertices, left.triangles), (right.vertices, right.triangles)),
    )  # fmt: skip
    gene = lake.samples_in_mask(small_lake).expression.columns[0]
    maps = lake.interpolated_map(small_lake, gene, mask)
    paths = lake.write_maps(maps, tmp_path / "m.func.gii")
    for path, half in zip(paths, (left, right), strict=True):
        values = nibabel.load(path).agg_data()
        np.testing.assert_array_equal(values != 0, half.labels != 0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("map.nii", "one file for 2 genes: put {gene} into it"),
        ("{gene}.func.gii", "a map on a volume is written as .nii or .nii.gz"),
    ],
)
def test_a_name_that_does_not_do_is_refused(
    maps: lake.masks.DenseMaps, tmp_path: Path, name: str, message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        lake.write_maps(maps, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_one_mask_serves_all_donors_of_a_map(small_lake: lake.Lake) -> None:
    own = Atlas.from_volume(octants_image(), name="own", space="native")
    with pytest.raises(RequestError, match="give one mask, not one a donor"):
        lake.interpolated_map(small_lake, "SST", AtlasSet("own", {"9861": own}))


def test_octants_are_a_mask_like_any_other(small_lake: lake.Lake) -> None:
    """Labels and info of an atlas do not matter: eight regions are one mask."""
    info = pd.DataFrame({"id": range(1, 9), "hemisphere": "B", "structure": "cerebellum"})
    fussy = Atlas.from_volume(octants_image(), info, name="fussy")
    ours, plain = (lake.samples_in_mask(small_lake, mask).expression for mask in (fussy, octants()))
    pd.testing.assert_frame_equal(ours, plain)
