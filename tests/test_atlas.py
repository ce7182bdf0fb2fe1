"""Atlases from images in memory: what is taken, what is refused, and what abagen says about the real one."""

import contextlib
import dataclasses
import re

import nibabel
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.atlases import facts, gifti, image, refused, surface
from transforms.assign import assign, warn_if_misplaced
from transforms.atlas import MAX_REGION_ID, Atlas, check_info
from transforms.atlas_info import check_sides

DIAGONAL = np.diag([-2.0, 1.0, 0.5, 1.0])


# ---- volumes ----


def test_nodes_are_the_labelled_voxels_in_c_order():
    data = np.zeros((2, 3, 2))
    data[0, 2, 1], data[1, 0, 0], data[1, 2, 1] = 7, 3, 7
    atlas = Atlas.from_volume(image(data, DIAGONAL), name="tiny")
    assert (atlas.name, atlas.space, atlas.kind, atlas.has_info) == ("tiny", "mni152", "volume", False)
    assert atlas.labels.tolist() == [7, 3, 7]
    assert atlas.labels.dtype == np.int64
    assert atlas.coordinates.tolist() == [[0, 2, 0.5], [-2, 0, 0], [-2, 2, 0.5]]
    assert atlas.regions.index.tolist() == [3, 7]
    assert atlas.regions["n_nodes"].tolist() == [1, 2]
    assert atlas.centroids.tolist() == [[-2, 0, 0], [-1, 2, 0.5]]
    assert (atlas.regions[["label", "hemisphere", "structure"]] == "").all(axis=None)
    assert atlas.triangles is None
    assert "labels" not in repr(atlas)


def test_the_grid_is_the_voxel_planes_in_ascending_order():
    atlas = Atlas.from_volume(image(np.ones((2, 3, 2)), DIAGONAL), name="tiny")
    assert [axis.tolist() for axis in atlas.grid] == [[-2, 0], [0, 1, 2], [0, 0.5]]


def test_permuted_axes_have_abagens_grid_and_rotated_ones_none():
    permuted = nibabel.affines.from_matvec([[0, 0, 1], [2, 0, 0], [0, -1, 0]], [10, 20, 30])
    atlas = Atlas.from_volume(image(np.ones((2, 3, 4)), permuted), name="p")
    assert [axis.tolist() for axis in atlas.grid] == [[10, 11], [20, 22, 24], [27, 28, 29, 30]]
    tilted = nibabel.affines.from_matvec(nibabel.eulerangles.euler2mat(0.1), np.zeros(3))
    with refused("use matching='nearest'"):
        _ = Atlas.from_volume(image(np.ones((2, 3, 4)), tilted), name="tilted").grid


def test_nodes_at_finds_every_voxel_and_nothing_outside():
    rng = np.random.default_rng(3)
    data = rng.integers(0, 3, (4, 5, 3))
    atlas = Atlas.from_volume(image(data), name="a")
    voxels = np.stack(np.meshgrid(*[np.arange(-2, 8)] * 3, indexing="ij"), axis=-1)
    nodes = atlas.nodes_at(voxels)
    padded = np.zeros((10, 10, 10), dtype=int)
    padded[2:6, 2:7, 2:5] = data
    assert np.array_equal(np.where(nodes >= 0, atlas.labels[nodes], 0), padded)
    assert np.array_equal(atlas.coordinates[nodes[nodes >= 0]], voxels[nodes >= 0])


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_every_type_of_whole_numbers_is_taken(dtype):
    atlas = Atlas.from_volume(image([[[0, 3, 200]]], dtype=dtype), name="a")
    assert atlas.regions.index.tolist() == [3, 200]


def test_labels_that_scaling_made_fractional_by_rounding_are_taken():
    values = np.array([[[0, 1e-9, 2.9999999, 4.0000001, 250 * (1 + 1e-6)]]])
    atlas = Atlas.from_volume(image(values, dtype=np.float64), name="a")
    assert atlas.labels.tolist() == [3, 4, 250]
    assert atlas.nodes.tolist() == [2, 3, 4]


@pytest.mark.parametrize(
    ("data", "dtype", "sentence"),
    [
        ([[[0, 1.25, 2]]], np.float32, "Atlas 'bad' holds 1.25: region ids are whole numbers"),
        ([[[0, np.nan, 2]]], np.float32, "Atlas 'bad' holds values that are not finite (NaN)"),
        ([[[0, -3, 2]]], np.int16, "Atlas 'bad' holds -3: region ids are positive"),
        ([[[0, MAX_REGION_ID + 1, 2]]], np.uint32, "Atlas 'bad' holds 2147483648: region ids end at"),
        ([[[0, 0, 0]]], np.int16, "Atlas 'bad' is empty"),
        ([[1, 2]], np.int16, "Atlas 'bad' has the shape (1, 2): it must be a 3-D image"),
        (
            np.ones((2, 2, 2, 3)),
            np.int16,
            "Atlas 'bad' has 3 volumes: if they are probabilities, one volume a",
        ),
        (np.ones((2, 2, 2)), np.complex64, "Atlas 'bad' holds values of type complex64"),
    ],
)
def test_images_that_are_no_atlas_are_refused(data, dtype, sentence):
    with refused(sentence):
        Atlas.from_volume(image(data, dtype=dtype), name="bad")


def test_one_volume_in_four_dimensions_is_squeezed():
    atlas = Atlas.from_volume(image(np.ones((2, 3, 1, 1))), name="a")
    assert atlas.shape == (2, 3, 1)


@given(st.integers(0, 10**6), st.sampled_from([0.0, 1.0, 30.0, 99.0]))
def test_the_most_probable_region_wins_where_it_reaches_the_threshold(seed, threshold):
    values = np.random.default_rng(seed).integers(0, 101, (3, 4, 2, 5)).astype(np.uint8)
    values[0, 0, 0] = (0, 0, 100, 100, 7)
    values[0, 0, 1] = 0
    atlas = Atlas.from_volume(image(values, dtype=np.uint8), name="p", threshold=threshold)
    expected = np.where(
        (values.max(axis=3) >= threshold) & (values.max(axis=3) > 0), values.argmax(axis=3) + 1, 0
    )
    found = np.zeros(expected.size, dtype=int)
    found[atlas.nodes] = atlas.labels
    assert found.reshape(expected.shape).tolist() == expected.tolist()
    assert expected[0, 0].tolist() == [3, 0]


def test_regions_of_probabilities_are_numbered_by_volume_and_take_info():
    values = np.zeros((1, 1, 3, 4), dtype=np.float32)
    values[0, 0, 0, 3], values[0, 0, 1, 1], values[0, 0, 2, 0] = 0.5, 0.4, 0.1
    info = facts(["B", "B"], ids=(2, 4)).assign(label=["two", "four"])
    atlas = Atlas.from_volume(image(values, dtype=np.float32), info, name="p", threshold=0.25)
    assert atlas.regions["label"].to_dict() == {2: "two", 4: "four"}
    named = Atlas.from_volume(
        image(values, dtype=np.float32), name="p", threshold=0.05, region_names={1: "one", 9: "nine"}
    )
    assert named.regions["label"].to_dict() == {1: "one", 2: "", 4: ""}
    assert not named.has_info


@pytest.mark.parametrize(
    ("data", "threshold", "sentence"),
    [
        (np.full((2, 2, 2, 3), 0.4), 25, "reaches the threshold 25: its largest value is 0.4; give the"),
        (np.full((2, 2, 2, 3), 0.4), -1, "Threshold -1 of atlas 'p' is no probability: give 0 or more."),
        (np.full((2, 2, 2, 3), 0.4), np.nan, "Threshold nan of atlas 'p' is no probability"),
        (np.full((2, 2, 2, 3), np.nan), 0.1, "Atlas 'p' holds values that are not finite (NaN)"),
        (np.full((2, 2, 2), 1.0), 0.1, "Atlas 'p' has one volume, and a threshold is for probabilities"),
    ],
)
def test_probabilities_that_make_no_atlas_are_refused(data, threshold, sentence):
    with refused(sentence):
        Atlas.from_volume(image(data, dtype=np.float64), name="p", threshold=threshold)


def test_a_broken_affine_another_space_or_no_image_are_refused():
    flat = nibabel.spatialimages.SpatialImage(np.ones((2, 2, 2), dtype=np.int16), np.diag([1.0, 1, 0, 1]))
    with refused("affine that cannot be inverted"):
        Atlas.from_volume(flat, name="flat")
    with refused("Space 'talairach' of atlas 'a' is unknown"):
        Atlas.from_volume(image(np.ones((2, 2, 2))), name="a", space="talairach")
    with refused("is no image of a volume"):
        Atlas.from_volume(gifti([1, 2, 3]), name="a")


def test_an_image_too_large_is_refused_before_it_is_read():
    class Enormous:
        shape = (2048, 2048, 1024)
        ndim = 3
        dtype = np.dtype(np.int8)

        def __array__(self, dtype=None, copy=None):
            raise AssertionError("read")

    huge = nibabel.Nifti1Image(Enormous(), np.eye(4))
    with refused("more than 2^31"):
        Atlas.from_volume(huge, name="huge")


@given(
    st.integers(0, 10**6),
    st.permutations(range(3)),
    st.tuples(*[st.sampled_from([1, -1])] * 3),
)
def test_regions_do_not_depend_on_the_orientation_of_the_file(seed, axes, flips):
    data = np.random.default_rng(seed).integers(0, 4, (3, 4, 5))
    data[0, 0, 0] = 1
    original = image(data, nibabel.affines.from_matvec(np.diag([1.0, 2.0, 0.5]), [3, -4, 5]))
    turned = original.as_reoriented(np.column_stack([axes, flips]).astype(float))
    first, second = (Atlas.from_volume(one, name="a") for one in (original, turned))
    pd.testing.assert_frame_equal(first.regions, second.regions)


# ---- info ----


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        *[(text, "L") for text in ("L", "l", "lh", "LH", "left", "Left", " L ")],
        *[(text, "R") for text in ("R", "r", "rh", "RH", "right")],
        *[(text, "B") for text in ("B", "b", "bilateral", "Bilateral", "both")],
    ],
)
def test_spellings_of_the_hemisphere(written, meant):
    assert check_info(facts(written), [1], name="a")["hemisphere"].tolist() == [meant]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("cortex", "cortex"),
        ("Cortex", "cortex"),
        ("subcortex", "subcortex/brainstem"),
        ("brainstem", "subcortex/brainstem"),
        ("subcortex/brainstem", "subcortex/brainstem"),
        ("cerebellum", "cerebellum"),
        ("white matter", "white matter"),
        ("white_matter", "white matter"),
        ("other", "other"),
    ],
)
def test_spellings_of_the_structure(written, meant):
    assert check_info(facts("L", written), [1], name="a")["structure"].tolist() == [meant]


def test_info_is_put_in_the_order_of_the_regions_and_other_rows_are_ignored():
    info = facts(["?", "R", "L"], ["?", "cortex", "cerebellum"], ids=(0, "9", 4.0)).assign(
        label=["none", None, "vermis"]
    )
    atlas = Atlas.from_volume(image([[[9, 4, 0]]]), info, name="a")
    assert atlas.has_info
    assert atlas.regions.index.tolist() == [4, 9]
    assert atlas.regions["label"].tolist() == ["vermis", ""]
    assert atlas.regions["hemisphere"].tolist() == ["L", "R"]
    assert atlas.regions["structure"].tolist() == ["cerebellum", "cortex"]
    indexed = Atlas.from_volume(image([[[9, 4, 0]]]), info.iloc[1:].set_index("id"), name="a")
    pd.testing.assert_frame_equal(indexed.regions, atlas.regions)


@pytest.mark.parametrize(
    ("info", "sentence"),
    [
        (facts("L", ids=(1,)), "The info of atlas 'a' has no row for region 2, 12: add them."),
        (facts("L", ids=(1, 2, 12, 12)), "The info of atlas 'a' repeats region 12"),
        (
            facts(["L", "X", ""], ids=(1, 2, 12)),
            "unknown hemisphere: '', 'X'; accepted are 'l', 'lh', 'left'",
        ),
        (facts("L", "thalamus", ids=(1, 2, 12)), "unknown structure: 'thalamus'; accepted are 'cortex'"),
        (facts("L", ids=(1, 2.5, 12)), "an id that is no whole number: 2.5"),
        (facts("L", ids=(1, "two", 12)), "an id that is no whole number: 'two'"),
        (facts("L", ids=(1,)).drop(columns="structure"), "lacks column 'structure': it needs id, hemisphere"),
        (pd.DataFrame({"1": [2], "lh": ["x"]}), "and has '1', 'lh'"),
    ],
)
def test_info_that_does_not_describe_the_regions_is_refused(info, sentence):
    with refused(sentence):
        Atlas.from_volume(image([[[1, 2, 12]]]), info, name="a")


def test_without_info_the_facts_stay_and_no_longer_constrain():
    atlas = Atlas.from_volume(image([[[1]]]), facts("L"), name="a")
    free = atlas.without_info()
    assert not free.has_info
    assert free.regions["hemisphere"].tolist() == ["L"]
    assert free.fingerprint != atlas.fingerprint


def row_of(n_left, n_right, label=1):
    """A row of voxels 1 mm apart, n_left of them at x < 0, none at 0, n_right at x > 0."""
    data = np.full((n_left + 1 + n_right, 1, 1), label)
    data[n_left] = 0
    return image(data, nibabel.affines.from_matvec(np.eye(3), [-n_left, 0, 0]))


@pytest.mark.parametrize(
    ("n_left", "n_right", "side"),
    [(5, 0, "L"), (0, 5, "R"), (40, 4, "L"), (4, 40, "R"), (40, 5, "B"), (5, 40, "B"), (7, 7, "B")],
)
def test_the_hemisphere_is_that_of_the_centroid_unless_too_much_lies_across(n_left, n_right, side):
    atlas = Atlas.from_volume(row_of(n_left, n_right), name="a")
    derived = atlas.with_hemispheres_from_x()
    assert derived.regions["hemisphere"].tolist() == [side]
    assert derived.has_info
    assert not atlas.has_info
    generous = atlas.with_hemispheres_from_x(max_straddling=0.49)
    assert generous.regions["hemisphere"].tolist() == ["B" if n_left == n_right else "LR"[n_right > n_left]]


def test_hemispheres_that_are_known_stay():
    atlas = Atlas.from_volume(row_of(3, 0), facts("B"), name="a")
    assert atlas.with_hemispheres_from_x().regions["hemisphere"].tolist() == ["B"]


def test_a_donors_space_has_no_midline():
    atlas = Atlas.from_volume(row_of(3, 0), name="a", space="native")
    with refused("Atlas 'a' is in a donor's native space, where x = 0 is not the midline"):
        atlas.with_hemispheres_from_x()


@pytest.mark.parametrize(
    ("sides", "sentence"),
    [
        ("RRLL", "Atlas 'a' has its hemispheres swapped: 4 of 4 regions"),
        ("RRBR", "swapped: 2 of 3 regions"),
        ("LRRR", ""),
        ("LLRL", ""),
        ("BBBB", ""),
    ],
)
def test_hemispheres_that_are_swapped_are_refused_and_few_oddities_are_not(sides, sentence):
    data = image([[[1]], [[2]], [[0]], [[3]], [[4]]], nibabel.affines.from_matvec(np.eye(3), [-2, 0, 0]))
    atlas = Atlas.from_volume(data, facts(list(sides), ids=(1, 2, 3, 4)), name="a")
    with refused(sentence) if sentence else contextlib.nullcontext():
        check_sides(atlas.regions, name="a")


# ---- fingerprint ----


def test_the_fingerprint_tells_contents_apart_and_ignores_the_name():
    base = image([[[1, 2, 0]]])
    atlas = Atlas.from_volume(base, name="a")
    again = Atlas.from_volume(image([[[1, 2, 0]]], dtype=np.float32), name="b")
    assert re.fullmatch("[0-9a-f]{64}", atlas.fingerprint)
    assert again.fingerprint == atlas.fingerprint
    others = [
        Atlas.from_volume(image([[[1, 3, 0]]]), name="a"),
        Atlas.from_volume(image([[[1, 0, 2]]]), name="a"),
        Atlas.from_volume(image([[[1, 2, 0]]], np.diag([1.0, 1, 2, 1])), name="a"),
        Atlas.from_volume(base, name="a", space="native"),
        Atlas.from_volume(base, facts("L", ids=(1, 2)), name="a"),
        Atlas.from_volume(base, facts("R", ids=(1, 2)), name="a"),
    ]
    assert len({atlas.fingerprint, *(other.fingerprint for other in others)}) == len(others) + 1


def test_the_fingerprint_does_not_see_the_last_bit_of_a_coordinate():
    atlas = Atlas.from_volume(image([[[1, 2]]], DIAGONAL), name="a")
    nudged = dataclasses.replace(atlas, coordinates=np.nextafter(atlas.coordinates, np.inf))
    assert nudged.fingerprint == atlas.fingerprint


# ---- an atlas in the wrong place ----


def test_an_atlas_of_a_brains_size_with_few_samples_is_warned_of():
    block = image(np.ones((100, 100, 70)), nibabel.affines.from_matvec(np.eye(3), [-50, -60, -30]))
    atlas = Atlas.from_volume(block, name="block")  # 700 ml, half of a brain
    with pytest.warns(
        UserWarning, match=r"Only 46 of 370 samples lie in a region of atlas 'block'; about 185"
    ):
        warn_if_misplaced(46, 370, atlas)
    with pytest.warns(UserWarning, match="x -50 to 49, y -60 to 39, z -30 to 39 mm"):
        warn_if_misplaced(0, 370, atlas)
    warn_if_misplaced(47, 370, atlas)
    warn_if_misplaced(0, 39, atlas)  # 19.5 expected: too few to tell


def test_a_surface_is_not_warned_of():
    warn_if_misplaced(0, 3702, surface(gifti([1, 1, 1]), gifti([2, 2, 2])))


def test_what_is_not_known_of_a_region_excludes_no_sample():
    atlas = Atlas.from_volume(row_of(2, 2), name="a").with_hemispheres_from_x()
    left = Atlas.from_volume(row_of(2, 0), name="left").with_hemispheres_from_x()
    samples = pd.DataFrame(
        {"mni_x": [-1.0, -1, -1], "mni_y": 0.0, "mni_z": 0.0,
         "hemisphere": ["L", "R", "L"], "structure": ["cortex", "cortex", "white matter"]}
    )  # fmt: skip
    for matching in ("abagen", "nearest"):
        assert assign(samples, atlas, matching=matching).tolist() == [1, 1, 1]
        assert assign(samples, left, matching=matching).tolist() == [1, 0, 1]


# ---- the real ones, numbers counted with abagen 0.1.3 ----


def test_the_desikan_killiany_volume(dk):
    atlas = dk
    assert len(atlas.regions) == 83
    assert len(atlas.labels) == 819_621
    data = nibabel.Nifti1Image(_dense(atlas), atlas.affine)
    for region in (1, 42, 83):
        mean = nibabel.affines.apply_affine(atlas.affine, np.argwhere(data.dataobj == region)).mean(axis=0)
        assert atlas.centroids[atlas.regions.index == region][0].tolist() == mean.tolist()
    assert [(axis[0], axis[-1], len(axis)) for axis in atlas.grid] == [
        (-73, 72, 146),
        (-107, 74, 182),
        (-72, 82, 155),
    ]


def _dense(atlas):
    data = np.zeros(atlas.shape, dtype=np.int32)
    data.flat[atlas.nodes] = atlas.labels
    return data
