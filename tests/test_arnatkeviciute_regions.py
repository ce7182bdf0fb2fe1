"""Samples to regions by the nearest native voxel, and the sets of regions that are normalised together."""

import itertools

import nibabel
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.assign import assign
from transforms.atlas import Atlas
from transforms.errors import AtlasError, ChoiceError
from transforms.region_sets import REGION_SETS

SHAPE = (9, 8, 7)
AFFINE = np.array([[-1.0, 0, 0, 92.5], [0, 0, 1, -60], [0, -1, 0, 70], [0, 0, 0, 1]])  # axes L-I-P
INFO = pd.DataFrame(
    {
        "id": [1, 2, 3, 4, 5, 6],
        "hemisphere": ["L", "L", "L", "R", "R", "B"],
        "structure": ["cortex", "cortex", "subcortex", "cortex", "subcortex", "brainstem"],
    }
)
ADMITTED = {
    ("L", "cortex"): {1, 2},
    ("L", "subcortex/brainstem"): {3, 6},
    ("R", "cortex"): {4},
    ("R", "subcortex/brainstem"): {5, 6},
}


def native(labels, info=INFO, affine=AFFINE):
    present = info[info["id"].isin(np.unique(labels))]
    image = nibabel.Nifti1Image(labels.astype(np.int16), affine)
    return Atlas.from_volume(image, present, name="native", space="native")


def at(voxels, hemisphere="L", structure="cortex", affine=AFFINE):
    places = nibabel.affines.apply_affine(affine, np.asarray(voxels, dtype=float))
    return pd.DataFrame(places, columns=["mni_x", "mni_y", "mni_z"]).assign(
        hemisphere=hemisphere, structure=structure
    )


def labelled(*voxels):
    """A volume that is empty but for (x, y, z, label)."""
    labels = np.zeros(SHAPE, dtype=int)
    for x, y, z, label in voxels:
        labels[x, y, z] = label
    return labels


def match(labels, voxels, tolerance=2, **facts):
    return assign(at(voxels, **facts), native(labels), tolerance=tolerance, matching="native_voxels").tolist()


def transcribed(labels, voxel, admitted, tolerance):
    """S3.4: all voxels of the labels admitted; the nearest within the tolerance; ties by (z, y, x)."""
    best = None
    for z, y, x in itertools.product(*(range(size) for size in SHAPE[::-1])):
        if labels[x, y, z] in admitted:
            squared = (x - voxel[0]) ** 2 + (y - voxel[1]) ** 2 + (z - voxel[2]) ** 2
            if squared <= tolerance**2 and (best is None or squared < best[0]):
                best = squared, labels[x, y, z]
    return 0 if best is None else best[1]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.sampled_from([0, 1, 2, 2.5, 3]), st.floats(0.01, 0.5))
def test_nearest_voxel_is_that_of_the_transcription(seed, tolerance, density):
    random = np.random.default_rng(seed)
    labels = np.where(random.random(SHAPE) < density, random.integers(1, 7, SHAPE), 0)
    labels[0, 0, 0] = 1
    voxels = np.column_stack([random.integers(-1, size + 1, 12) for size in SHAPE])
    facts = [list(ADMITTED)[place] for place in random.integers(0, 4, 12)]
    samples = at(voxels, [side for side, _ in facts], [part for _, part in facts])
    found = assign(samples, native(labels), tolerance=tolerance, matching="native_voxels")
    expected = [
        transcribed(labels, voxel, ADMITTED[fact], tolerance)
        for voxel, fact in zip(voxels, facts, strict=True)
    ]
    assert found.tolist() == expected


def test_a_voxel_at_the_tolerance_counts():
    labels = labelled((4, 4, 4, 1))
    assert match(labels, [(4, 4, 6), (4, 4, 7), (6, 5, 4)]) == [1, 0, 0]
    assert match(labels, [(4, 4, 4), (4, 4, 5)], tolerance=0) == [1, 0]


@pytest.mark.parametrize(
    ("one", "other"), [((3, 4, 4), (5, 4, 4)), ((5, 3, 4), (3, 5, 4)), ((5, 5, 3), (3, 3, 5))]
)
def test_of_equal_distances_the_first_in_the_volume_wins(one, other):
    """x runs fastest: the smaller z, then the smaller y, then the smaller x."""
    assert match(labelled((*one, 1), (*other, 2)), [(4, 4, 4)]) == [1]
    assert match(labelled((*one, 2), (*other, 1)), [(4, 4, 4)]) == [2]


def test_distance_counts_voxels_not_mm():
    affine = np.diag([1.0, 4.0, 1.0, 1.0])
    labels = labelled((4, 5, 4, 1), (7, 4, 4, 2))
    samples = at([(4, 4, 4)], affine=affine)
    atlas = native(labels, affine=affine)
    assert assign(samples, atlas, tolerance=3, matching="native_voxels").tolist() == [1]
    assert assign(samples, atlas, tolerance=3, matching="nearest").tolist() == [2]


def test_a_surface_has_no_voxels(surface_of_two_triangles):
    samples = pd.DataFrame(
        {"mni_x": [0.0], "mni_y": 0.0, "mni_z": 0.0, "hemisphere": "L", "structure": "cortex"}
    )
    with pytest.raises(AtlasError, match="is a surface, and matching='native_voxels' counts voxels"):
        assign(samples, surface_of_two_triangles, matching="native_voxels")


@pytest.fixture
def surface_of_two_triangles():
    vertices = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    triangles = np.array([[0, 1, 2]])
    sides = [(np.array([1, 1, 1]), ["unknown", "area"])] * 2
    return Atlas.from_surface(
        *sides, mesh=((vertices - 9, triangles), (vertices + 9, triangles)), name="tiny"
    )


# Region sets ------------------------------------------------------------------------------------------------

REGIONS = INFO.set_index("id").replace(
    {"subcortex": "subcortex/brainstem", "brainstem": "subcortex/brainstem"}
)
SIDES = pd.DataFrame({"donor": ["a", "a", "b", "b", "c", "c"], "hemisphere": ["L", "R", "L", "L", "L", ""]})


@pytest.mark.parametrize(
    ("name", "regions", "donors"),
    [
        (None, [1, 2, 3, 4, 5, 6], "abc"),
        ("Lcortex", [1, 2], "abc"),
        ("LcortexSubcortex", [1, 2, 3], "abc"),
        ("LcortexSubcortexSEPARATE", [1, 2, 3], "abc"),
        ("LRcortex", [1, 2, 4], "a"),
        ("wholeBrain", [1, 2, 3, 4, 5, 6], "a"),
    ],
)
def test_regions_and_donors_of_each_set(name, regions, donors):
    chosen = REGION_SETS[name]
    assert chosen.regions(REGIONS, atlas="x").tolist() == regions
    assert chosen.donors(SIDES) == list(donors)


def test_only_one_set_is_normalised_apart():
    assert [name for name, one in REGION_SETS.items() if one.separate] == ["LcortexSubcortexSEPARATE"]


def test_sets_that_an_atlas_lacks_are_told():
    with pytest.raises(AtlasError, match="'x' has no region of hemisphere L and structure cortex"):
        REGION_SETS["Lcortex"].regions(REGIONS[3:], atlas="x")
    with pytest.raises(ChoiceError, match="a donor with samples in both hemispheres"):
        REGION_SETS["wholeBrain"].donors(SIDES[2:])
