"""Atlases on surfaces: labels of vertices, their meshes, and what is refused."""

import numpy as np
import pytest

from lake.catalogue import fsaverage5_pial
from tests.atlases import facts, gifti, refused, sheet, surface
from transforms.atlas import Atlas

MNI152_TO_MNI305 = np.array(  # FreeSurfer wiki, CoordinateSystems
    [
        [1.0022, 0.0071, -0.0177, 0.0528],
        [-0.0146, 0.9990, 0.0027, -1.5519],
        [0.0129, 0.0094, 1.0027, -1.2012],
        [0, 0, 0, 1],
    ]
)


def test_a_surface_is_the_left_then_the_right_moved_to_mni152():
    left = gifti([0, 1, 2, 2], {0: "unknown", 1: "bankssts", 2: "cuneus"})
    right = gifti([0, 11, 0], {0: "unknown", 11: "insula"})
    atlas = surface(left, right)
    assert (atlas.space, atlas.kind, atlas.has_info, atlas.shape) == ("fsaverage5", "surface", True, (7,))
    assert atlas.labels.tolist() == [1, 2, 2, 11]
    assert atlas.nodes.tolist() == [1, 2, 3, 5]
    vertices = np.concatenate([sheet(4)[0], sheet(3, 1)[0]]).astype(float)
    moved_back = np.column_stack([atlas.vertices, np.ones(7)]) @ MNI152_TO_MNI305.T
    np.testing.assert_allclose(moved_back[:, :3], vertices, atol=1e-10)
    assert np.array_equal(atlas.coordinates, atlas.vertices[atlas.nodes])
    assert atlas.triangles.tolist() == [[0, 1, 2], [1, 2, 3], [4, 5, 6]]
    assert atlas.regions["label"].tolist() == ["bankssts", "cuneus", "insula"]
    assert atlas.regions["hemisphere"].tolist() == ["L", "L", "R"]
    assert set(atlas.regions["structure"]) == {"cortex"}
    with refused("is a surface and has no voxel grid"):
        _ = atlas.grid


def test_the_centroid_of_a_surface_region_is_a_labelled_vertex():
    labels = np.random.default_rng(1).integers(0, 4, 60)
    atlas = surface(gifti(labels), gifti([0, 0, 9]))
    for region, centroid in zip(atlas.regions.index, atlas.centroids, strict=True):
        mean = atlas.coordinates[atlas.labels == region].mean(axis=0)
        nearest = np.linalg.norm(atlas.coordinates - mean, axis=1).argmin()
        assert centroid.tolist() == atlas.coordinates[nearest].tolist()


def test_ids_that_the_hemispheres_share_are_moved_up_as_abagen_moves_them():
    left = gifti([0, 1, 2, 2], {0: "unknown", 1: "bankssts", 2: "cuneus"})
    right = gifti([0, 1, 2, 5], {0: "unknown", 1: "bankssts", 2: "cuneus", 5: "insula"})
    atlas = surface(left, right)
    assert atlas.labels.tolist() == [1, 2, 2, 4, 5, 6, 9]  # 4 ids in all; the background moves too
    assert atlas.regions["label"].tolist() == [
        "bankssts",
        "cuneus",
        "unknown",
        "bankssts",
        "cuneus",
        "insula",
    ]
    assert atlas.regions["hemisphere"].tolist() == ["L", "L", "R", "R", "R", "R"]


def test_one_id_on_both_sides_is_bilateral():
    atlas = surface(gifti([5, 1, 1]), gifti([5, 0, 2]))
    assert atlas.regions["hemisphere"].to_dict() == {1: "L", 2: "R", 5: "B"}


def test_info_takes_the_place_of_the_label_tables():
    info = facts(["lh", "rh"], ids=(1, 2)).assign(label=["one", "two"])
    atlas = surface(gifti([0, 1, 1], {1: "x"}), gifti([2, 0, 0], {2: "y"}), info=info)
    assert atlas.regions["label"].tolist() == ["one", "two"]
    assert atlas.regions["hemisphere"].tolist() == ["L", "R"]


def test_annotations_are_numbered_without_their_background():
    left = (np.array([-1, 0, 2, 3, 4]), [b"anything", b"unused", b"V1", b"corpuscallosum", b"V2 "])
    right = (np.array([0, 1, 1, 9]), ["medialwall", "V1"])
    atlas = surface(left, right)
    assert atlas.labels.tolist() == [1, 2, 3, 3]
    assert atlas.nodes.tolist() == [2, 4, 6, 7]
    assert atlas.regions["label"].tolist() == ["V1", "V2", "V1"]
    assert atlas.regions["hemisphere"].tolist() == ["L", "L", "R"]


def test_parcels_keep_their_ids_and_share_them():
    left = (np.array([0, 7, 8, 9]), {7: "visual", 8: "???", 9: " motor"})
    right = (np.array([7, 7, 11]), {7: "visual"})
    atlas = surface(left, right, space="fsLR")
    assert (atlas.space, atlas.labels.tolist()) == ("fsLR", [7, 9, 7, 7, 11])
    assert atlas.regions["label"].to_dict() == {7: "visual", 9: "motor", 11: ""}
    assert atlas.regions["hemisphere"].to_dict() == {7: "B", 9: "L", 11: "R"}
    assert atlas.vertices.tolist() == np.concatenate([sheet(4)[0], sheet(3, 1)[0]]).astype(float).tolist()


def test_a_mesh_in_another_space_is_refused():
    with refused("Space 'fsnative' of atlas 'sheet' is unknown: choose one of fsaverage5, fsLR, native."):
        surface(gifti([1, 1, 1]), gifti([2, 2, 2]), space="fsnative")


def test_labels_of_fsaverage_are_cut_to_fsaverage5():
    labels = np.zeros(163_842, dtype=int)
    labels[:10_242] = np.arange(10_242) % 7
    labels[20_000] = 8
    left = (labels, [f"area {entry}" for entry in range(9)])
    right = (np.zeros(163_842, dtype=int), ["unknown"])
    atlas = Atlas.from_surface(left, right, mesh=fsaverage5_pial(), name="fine")
    assert atlas.shape == (20_484,)
    assert atlas.labels.tolist() == [label for label in labels[:10_242].tolist() if label]


@pytest.mark.parametrize(
    ("left", "right", "sentence"),
    [
        (gifti([1, 1]), gifti([2, 2, 2]), "labels 2 vertices, its mesh has 3"),
        (gifti([0, 0, 0]), gifti([0, 0, 0]), "is empty"),
        (gifti([1, 1, -1]), gifti([2, 2, 2]), "holds -1"),
        (gifti([1, 1, 1], n_arrays=2), gifti([2, 2, 2]), "not one array of labels"),
        (gifti(np.ones((3, 3))), gifti([2, 2, 2]), "not one array of labels"),
        (gifti([1, 1, 1]), (np.zeros(3, dtype=int), ["x"]), "mixes a GIFTI and an annotation"),
    ],
)
def test_surfaces_that_are_no_atlas_are_refused(left, right, sentence):
    with refused(sentence):
        Atlas.from_surface(left, right, mesh=(sheet(3), sheet(3, 1)), name="bad")


def test_a_mesh_that_does_not_hold_together_is_refused():
    vertices, triangles = sheet(3)
    with refused("The mesh of atlas 'bad' is damaged"):
        Atlas.from_surface(
            gifti([1, 1, 1]),
            gifti([2, 2, 2]),
            mesh=((vertices, triangles), (vertices, triangles + 1)),
            name="bad",
        )
