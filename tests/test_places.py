"""The kernels of atlases in C do what the NumPy code beside their callers does, to the last bit."""

from collections.abc import Callable
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from nibabel.affines import apply_affine

from transforms import compiled
from transforms.assign import MATCHINGS, _voxels_within, assign
from transforms.atlas import Atlas
from transforms.errors import AtlasError
from transforms.volume_labels import (
    IN_C,
    MAX_REGION_ID,
    is_along_axes,
    labelled_voxels,
    most_probable,
    voxel_places,
)

needs_kernels = pytest.mark.skipif(compiled.places is None, reason="there is no C compiler")
ANY = settings(deadline=None)

AFFINES = {
    "1 mm": nibabel.affines.from_matvec(np.eye(3), [-3, -4, -5]),
    "zeros of both signs": np.array([[1, -0.0, -0.0, 0], [-0.0, 1, -0.0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
    "0.7 mm, x flipped": nibabel.affines.from_matvec(np.diag([-0.7, 0.7, 0.7]), [3.3, -2.1, -2.9]),
    "permuted": nibabel.affines.from_matvec([[0, 0, 1.3], [-0.9, 0, 0], [0, 1.1, 0]], [-3.1, 4.7, -3]),
    "oblique": nibabel.affines.from_matvec(nibabel.eulerangles.euler2mat(0.3, 0.2, 0.1), [-4, -4, -2]),
}
anyone_of_the_affines = pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES.keys())


def outcome(work: Callable[[], Any]) -> Any:
    """What comes out, or the sentence of the error."""
    try:
        return work()
    except AtlasError as error:
        return str(error)


def both_ways(work: Callable[[], Any]) -> tuple[Any, Any]:
    """What comes out with the kernels, and without."""
    with_kernels = outcome(work)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "places", None)
        return with_kernels, outcome(work)


def same_bits(work: Callable[[], Any]) -> Any:
    """What comes out, if it is the same either way."""
    ours, plain = both_ways(work)
    if isinstance(plain, str):
        assert ours == plain
        return plain
    assert len(ours) == len(plain)
    for one, other in zip(map(np.asarray, ours), map(np.asarray, plain), strict=True):
        assert (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
    return plain


# ---- labelled voxels ----

SHAPES = arrays.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=6)
VALUES = {
    "integers": st.integers(0, 9),
    "mostly none": st.sampled_from([0] * 20 + [1, 2]),
    "nearly whole": st.sampled_from([0.0, 1.0, 2.0 + 1e-9, 3.0 - 2e-5, 1e-9, -1e-9, -0.0]),
    "wrong ones": st.sampled_from([0.0, 1.0, 0.5, -1.0, np.nan, np.inf, 2.0**31, 2.0**40]),
}


@needs_kernels
@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())
@ANY
@given(data=st.data(), order=st.sampled_from("CFK"))
def test_labelled_voxels(values: st.SearchStrategy[Any], data: st.DataObject, order: str) -> None:
    drawn = data.draw(arrays.arrays(np.float64, SHAPES, elements=values))
    kinds = [*sorted(IN_C, key=str), *map(np.dtype, (">i2", ">f4", "?", "u8"))]
    with np.errstate(all="ignore"):
        image = drawn.astype(data.draw(st.sampled_from(kinds)))
    image = image[:, ::-1] if order == "K" else np.asarray(image, order=order)  # type: ignore[call-overload]
    found = same_bits(lambda: labelled_voxels(image, "drawn"))
    if not isinstance(found, str):
        nodes, labels = found
        assert nodes.tolist() == np.flatnonzero(np.rint(image)).tolist()
        assert labels.tolist() == np.rint(image).ravel()[nodes].tolist()


@needs_kernels
@pytest.mark.parametrize("kind", ["i4", "i8", "f4", "f8"])
@pytest.mark.parametrize("value", [MAX_REGION_ID, MAX_REGION_ID + 1, -1])
def test_the_largest_id(kind: str, value: int) -> None:
    with np.errstate(all="ignore"):
        image = np.full((2, 2, 2), np.float64(value)).astype(kind)
    same_bits(lambda: labelled_voxels(image, "large"))


def test_ids_of_an_unreadable_image_are_not_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel does not take is looked at by NumPy, which says what is wrong."""
    image = np.zeros((3, 3, 3), dtype=np.float32)
    image[1, 1, 1] = 2.5
    with pytest.raises(AtlasError, match=r"holds 2\.5: region ids are whole numbers"):
        labelled_voxels(image, "half")


@needs_kernels
def test_a_file_that_grows_while_it_is_read_writes_nowhere_else() -> None:
    """A mapped file may change between counting and gathering."""
    values = np.ones((2, 3, 4), dtype=np.uint8)
    rows, nodes, places = np.array([3, 1, 0]), np.array([12, 4, 1]), np.zeros(6, dtype=np.int64)
    kept = np.full(8, -7, dtype=np.int64)
    compiled.places.gather_labelled(values, rows, nodes, 9, places, kept[2:5], np.zeros(3, dtype=np.int64))
    assert kept.tolist() == [-7, -7, *kept[2:5], -7, -7, -7]


# ---- places ----


@needs_kernels
@anyone_of_the_affines
@ANY
@given(labels=arrays.arrays(np.int32, SHAPES, elements=st.sampled_from([0, 0, 1, 5, 700])))
def test_atlases(affine: np.ndarray, labels: np.ndarray) -> None:
    def parts() -> list[Any]:
        atlas = Atlas.from_volume(nibabel.Nifti1Image(labels, affine), name="drawn")
        numbers = atlas.regions[["centroid_x", "centroid_y", "centroid_z", "n_nodes"]].to_numpy()
        found = [atlas.nodes, atlas.labels, atlas.coordinates, numbers, *atlas.lookup, *atlas.box]
        return [*found, atlas.fingerprint]

    same_bits(parts)


@anyone_of_the_affines
def test_places_are_those_of_nibabel(affine: np.ndarray) -> None:
    shape = (7, 5, 6)
    nodes = np.flatnonzero(np.random.default_rng(1).random(shape) < 0.6)
    expected = apply_affine(affine, np.column_stack(np.unravel_index(nodes, shape)))
    for found in both_ways(lambda: voxel_places(nodes, shape, affine)):
        assert found.tobytes() == expected.tobytes()


@anyone_of_the_affines
def test_the_box_is_that_of_all_places(affine: np.ndarray) -> None:
    labels = np.random.default_rng(2).choice(4, size=(6, 7, 8), p=[0.97, 0.01, 0.01, 0.01])
    image = nibabel.Nifti1Image(labels.astype(np.int16), affine)
    low, high = Atlas.from_volume(image, name="few").box
    coordinates = Atlas.from_volume(image, name="few").coordinates
    assert (low.tolist(), high.tolist()) == (
        coordinates.min(axis=0).tolist(),
        coordinates.max(axis=0).tolist(),
    )


@pytest.mark.parametrize(
    ("axes", "expected"),
    [
        (np.diag([1.0, -2, 3]), True),
        (np.eye(3)[[2, 0, 1]], True),
        (nibabel.eulerangles.euler2mat(0.3, 0, 0), False),
        (np.array([[1.0, 0, 0], [1, 0, 0], [0, 1, 1]]), False),
    ],
)
def test_axes_of_space(axes: np.ndarray, expected: bool) -> None:
    assert is_along_axes(nibabel.affines.from_matvec(axes, [1, 2, 3])) is expected


@needs_kernels
def test_nodes_outside_the_image_are_refused() -> None:
    atlas = Atlas.from_volume(nibabel.Nifti1Image(np.ones((2, 2, 2), np.int16), np.eye(4)), name="all")
    for nodes in ([-1, 2], [0, 8]):
        broken = Atlas(**{**vars(atlas), "nodes": np.array(nodes)})
        for lookup in both_ways(lambda wrong=broken: outside(wrong)):
            assert lookup


def outside(atlas: Atlas) -> bool:
    with pytest.raises(ValueError, match=r"outside|out of bounds"):
        _ = atlas.lookup
    return True


# ---- neighbours ----


@needs_kernels
@anyone_of_the_affines
@pytest.mark.parametrize("radius", [0, 1, 2.5, 6])
def test_neighbours(affine: np.ndarray, radius: float) -> None:
    rng = np.random.default_rng(3)
    labels = rng.choice(4, size=(9, 8, 7), p=[0.7, 0.1, 0.1, 0.1]).astype(np.int16)
    centre = apply_affine(affine, np.array(labels.shape) / 2)
    exactly = apply_affine(affine, np.argwhere(labels)[::5])
    points = np.concatenate([exactly, centre + rng.uniform(-8, 8, (200, 3)), np.round(exactly)])

    def pairs() -> list[Any]:
        atlas = Atlas.from_volume(nibabel.Nifti1Image(labels, affine), name="small")
        (found,) = _voxels_within(points, np.arange(len(points)), atlas, radius)
        return [found[0], *found[1]]

    assert len(same_bits(pairs)[1])


@needs_kernels
@pytest.mark.parametrize("matching", MATCHINGS)
def test_assigned_regions(matching: str) -> None:
    rng = np.random.default_rng(4)
    labels = rng.choice(6, size=(20, 20, 20), p=[0.8, 0.04, 0.04, 0.04, 0.04, 0.04]).astype(np.int16)
    info = pd.DataFrame(
        {
            "id": range(1, 6),
            "hemisphere": ["L", "R", "B", "L", "R"],
            "structure": ["cortex"] * 3 + ["cerebellum"] * 2,
        }
    )
    samples = pd.DataFrame(rng.uniform(-2, 22, (300, 3)), columns=["mni_x", "mni_y", "mni_z"]).assign(
        hemisphere=rng.choice(["L", "R", "B", ""], 300),
        structure=rng.choice(["cortex", "cerebellum", ""], 300),
    )

    def found() -> list[Any]:
        image = nibabel.Nifti1Image(labels, np.eye(4))
        atlases = [Atlas.from_volume(image, table, name="small") for table in (None, info)]
        return [assign(samples, atlas, tolerance=2, matching=matching) for atlas in atlases]

    plain, informed = same_bits(found)
    assert 0 < np.count_nonzero(informed) < np.count_nonzero(plain)


# ---- probabilities ----


@needs_kernels
@pytest.mark.parametrize("kind", ["u1", "i2", "u2", "i4", "f4", "f8", "i8", ">f4"])
@ANY
@given(data=st.data())
def test_most_probable(kind: str, data: st.DataObject) -> None:
    shape = (*data.draw(SHAPES), data.draw(st.integers(1, 4)))
    whole = st.integers(0, 5).map(float)
    elements = whole if kind[-2] in "iu" else whole | st.sampled_from([0.5, -0.0, np.nan, np.inf])
    chances = data.draw(arrays.arrays(np.float64, shape, elements=elements)).astype(kind)

    def regions() -> Any:
        found = most_probable(chances, "drawn", threshold=data_threshold)
        return found if isinstance(found, str) else [found]

    data_threshold = data.draw(st.sampled_from([0.0, 1.0, 3.0]))
    same_bits(regions)
