"""Filling empty regions: beside a transcription node by node and sample by sample; and its rules."""

from typing import Any

import nibabel
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.sparse.csgraph import floyd_warshall

from tests.helpers import octants
from transforms.atlas import Atlas
from transforms.distance import surface_graph
from transforms.missing import (
    MISSING,
    Filling,
    Sites,
    fill_by_centroids,
    fill_by_interpolation,
    inverse_distance,
)

SIDES, STRUCTURES = ("L", "R", "B"), ("cortex", "cerebellum")


def samples_at(points: Any, hemisphere: Any = "L", structure: Any = "cortex") -> pd.DataFrame:
    frame = pd.DataFrame(np.asarray(points, dtype=float), columns=["mni_x", "mni_y", "mni_z"])
    return frame.assign(hemisphere=hemisphere, structure=structure)


def random_volume(rng: np.random.Generator, *, with_info: bool) -> Atlas:
    """Up to eight scattered regions of a small 2 mm grid."""
    data = rng.choice(9, size=(6, 5, 4), p=[0.4, *[0.075] * 8]).astype(np.int16)
    data[0, 0, 0] = 1
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = -5, -4, -3
    image = nibabel.Nifti1Image(data, affine)
    plain = Atlas.from_volume(image, name="random")
    side = np.where(plain.centroids[:, 0] < 0, "L", "R")
    bilateral = rng.random(len(side)) < 0.2
    info = {
        "id": plain.regions.index,
        "hemisphere": np.where(bilateral, "B", side),
        "structure": rng.choice(STRUCTURES, len(side)),
    }
    return Atlas.from_volume(image, pd.DataFrame(info), name="random") if with_info else plain


def plane(offset: float) -> tuple[np.ndarray, np.ndarray]:
    """A bumpy 5 x 5 sheet of triangles."""
    x, y = (axis.ravel() for axis in np.meshgrid(np.arange(5.0), np.arange(5.0), indexing="ij"))
    corner = np.array([5 * i + j for i in range(4) for j in range(4)])
    lower = np.column_stack([corner, corner + 5, corner + 1])
    upper = np.column_stack([corner + 5, corner + 6, corner + 1])
    return np.column_stack([x * 3 + offset, y * 4, np.cos(x + y)]), np.concatenate([lower, upper])


def random_surface(rng: np.random.Generator, *, with_info: bool) -> Atlas:
    """Two sheets with up to four regions each; each side's ids are its own."""
    images = []
    for first in (1, 5):
        labels = rng.choice([0, *range(first, first + 4)], size=25).astype(np.int32)
        labels[0] = first
        images.append(nibabel.GiftiImage(darrays=[nibabel.gifti.GiftiDataArray(labels)]))
    atlas = Atlas.from_surface(images[0], images[1], mesh=(plane(-20), plane(20)), name="sheets")
    return atlas if with_info else atlas.without_info()


FEW = settings(max_examples=settings.default.max_examples // 6)
ATLASES = {"volume": random_volume, "surface": random_surface}


def random_sites(rng: np.random.Generator, atlas: Atlas, n_samples: int) -> Sites:
    """Samples around the atlas; two thirds of them in some of the regions, which they need not fit."""
    places = atlas.coordinates[rng.integers(len(atlas.labels), size=n_samples)]
    on_node = rng.random((n_samples, 1)) < 0.3  # so that some distances are 0, and some equal
    samples = samples_at(
        places + np.where(on_node, 0.0, rng.normal(0, 2, (n_samples, 3))),
        rng.choice(SIDES, n_samples, p=[0.4, 0.4, 0.2]),
        rng.choice(STRUCTURES, n_samples, p=[0.7, 0.3]),
    )
    some = rng.choice([0, *atlas.regions.index[: max(1, len(atlas.regions) // 2)]], size=n_samples)
    return Sites(samples, some.astype(np.int64), atlas)


def same(atlas: Atlas, region: int, sample: pd.Series) -> bool:
    facts = atlas.regions.loc[region]
    return not atlas.has_info or (
        facts["hemisphere"] == sample["hemisphere"] and facts["structure"] == sample["structure"]
    )


def weight_of(distance: float) -> float:
    return 0.0 if np.isinf(distance) else 1.0 if distance == 0 else 1 / distance


# The transcriptions: reference section 7, in loops.


def plain_centroids(donors: dict[str, Sites], values: dict[str, np.ndarray]) -> dict[int, np.ndarray]:
    """Region -> (gene,) of every region that is empty in all donors and that a donor can fill."""
    filled = {}
    first = next(iter(donors.values()))
    for region, centroid in zip(first.atlas.regions.index, first.atlas.centroids, strict=True):
        if any(region in sites.labels for sites in donors.values()):
            continue
        total, weights = 0.0, 0.0
        for donor, sites in donors.items():
            best, nearest = np.inf, -1
            for position, sample in sites.samples.iterrows():
                place = sample[["mni_x", "mni_y", "mni_z"]].to_numpy(float)
                distance = np.sqrt(((place - centroid) ** 2).sum())
                if same(sites.atlas, region, sample) and distance < best:
                    best, nearest = distance, position
            if nearest >= 0 and sites.labels.any():
                total = total + weight_of(best) * values[donor][:, nearest]
                weights += weight_of(best)
        if weights:
            filled[int(region)] = total / weights
    return filled


def node_distances(atlas: Atlas) -> np.ndarray:
    """Between all labelled nodes: straight, or along the mesh in float32."""
    if atlas.kind == "volume":
        return np.sqrt(((atlas.coordinates[:, None] - atlas.coordinates) ** 2).sum(axis=-1))
    labelled = np.isin(np.arange(len(atlas.vertices)), atlas.nodes)
    graph = surface_graph(atlas.vertices, atlas.triangles, allowed=labelled)
    paths = floyd_warshall(graph, directed=False)[np.ix_(atlas.nodes, atlas.nodes)]
    return paths.astype(np.float32)


def plain_interpolation(sites: Sites, values: np.ndarray) -> dict[int, np.ndarray]:
    """Region -> (gene,) of every region that is empty in the donor and that a sample reaches."""
    atlas, filled = sites.atlas, {}
    between = node_distances(atlas)
    standing = [
        int(np.sqrt(((atlas.coordinates - place) ** 2).sum(axis=1)).argmin()) for place in sites.points
    ]
    for region in set(atlas.regions.index) - set(sites.labels):
        total, weights = 0.0, 0.0
        for node in np.flatnonzero(atlas.labels == region):
            best, nearest = np.inf, 0
            for position, sample in sites.samples.iterrows():
                own = atlas.regions.loc[atlas.labels[standing[position]]]
                at_home = own["structure"] == sample["structure"] and own["hemisphere"] in (
                    sample["hemisphere"],
                    "B",
                )
                fits = same(atlas, region, sample) and (at_home or not atlas.has_info)
                if fits and between[node, standing[position]] < best:
                    best, nearest = between[node, standing[position]], position
            total = total + weight_of(best) * values[:, nearest]
            weights += weight_of(best)
        if weights and sites.labels.any():
            filled[int(region)] = total / weights
    return filled


def as_dict(filling: Filling, filled: np.ndarray) -> dict[int, np.ndarray]:
    return dict(zip(filling.regions.tolist(), filled.T, strict=True))


def assert_same(ours: dict[int, np.ndarray], expected: dict[int, np.ndarray], rtol: float) -> None:
    assert ours.keys() == expected.keys()
    for region, value in expected.items():
        np.testing.assert_allclose(ours[region], value, rtol=rtol, err_msg=f"region {region}")


@pytest.mark.parametrize("with_info", [True, False])
@pytest.mark.parametrize("kind", ATLASES)
@given(seed=st.integers(0, 2**32 - 1))
@FEW
def test_centroids_are_the_plain_ones(kind: str, with_info: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    atlas = ATLASES[kind](rng, with_info=with_info)
    donors = {name: random_sites(rng, atlas, size) for name, size in (("a", 7), ("b", 12), ("c", 3))}
    values = {name: rng.normal(9, 1, (2, len(sites.samples))) for name, sites in donors.items()}
    fillings = fill_by_centroids(donors)
    total = sum(filling.apply(values[name]) for name, filling in fillings.items())
    assert_same(as_dict(fillings["a"], total), plain_centroids(donors, values), 1e-12)


@pytest.mark.parametrize("with_info", [True, False])
@pytest.mark.parametrize("kind", ATLASES)
@given(seed=st.integers(0, 2**32 - 1))
@FEW
def test_interpolation_is_the_plain_one(kind: str, with_info: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    sites = random_sites(rng, ATLASES[kind](rng, with_info=with_info), 9)
    values = rng.normal(9, 1, (2, 9))
    filling = fill_by_interpolation({"a": sites})["a"]
    rtol = {"volume": 1e-12, "surface": 1e-6}[kind]  # abagen's weights along a mesh are float32
    assert_same(as_dict(filling, filling.apply(values)), plain_interpolation(sites, values), rtol)


@given(seed=st.integers(0, 2**32 - 1))
@FEW
def test_weights_are_a_mean(seed: int) -> None:
    rng = np.random.default_rng(seed)
    atlas = random_volume(rng, with_info=True)
    donors = {name: random_sites(rng, atlas, 8) for name in "ab"}
    together = sum(filling.weights.sum(axis=1) for filling in fill_by_centroids(donors).values())
    np.testing.assert_allclose(together, 1)
    for filling in fill_by_interpolation(donors).values():
        assert filling.weights.nnz == 0 or filling.weights.data.min() > 0
        np.testing.assert_allclose(filling.weights.sum(axis=1), 1)


# The rules.


ATLAS = octants()  # region 1 is left, posterior, inferior; 2 is right of it


def one_donor(points: list[list[float]], labels: list[int], atlas: Atlas = ATLAS) -> Sites:
    return Sites(samples_at(points), np.array(labels), atlas)


NEAR_2 = [30.0, -50.0, -30.0]


def test_a_donor_without_a_sample_in_a_region_gives_nothing() -> None:
    """abagen fails here: allen.py:471 adds a list to a string."""
    donors = {"a": one_donor([NEAR_2], [1]), "b": one_donor([NEAR_2], [0])}
    found = fill_by_centroids(donors)
    assert found["b"].weights.nnz == 0
    np.testing.assert_array_equal(found["a"].weights.sum(axis=1), 1)
    assert fill_by_interpolation(donors)["b"].regions.size == 0


def test_centroids_fill_only_what_is_empty_in_every_donor() -> None:
    donors = {"a": one_donor([NEAR_2], [2]), "b": one_donor([NEAR_2, NEAR_2], [1, 3])}
    found = fill_by_centroids(donors)
    assert found["a"].regions.tolist() == found["b"].regions.tolist() == [4, 5, 6, 7, 8]
    assert fill_by_interpolation(donors)["a"].regions.tolist() == [1, 3, 4, 5, 6, 7, 8]


def test_interpolation_with_nothing_empty_is_nothing() -> None:
    """abagen fails here: allen.py:782 joins an empty list."""
    sites = one_donor([NEAR_2] * 8, list(range(1, 9)))
    assert fill_by_interpolation({"a": sites})["a"].regions.size == 0
    assert fill_by_centroids({"a": sites})["a"].regions.size == 0


def test_a_sample_on_the_centroid_has_weight_one() -> None:
    centroid = ATLAS.centroids[1].tolist()
    away = (ATLAS.centroids[1] + [4.0, 0, 0]).tolist()
    found = fill_by_centroids({"a": one_donor([centroid], [1]), "b": one_donor([away], [1])})
    weights = {name: filling.weights.toarray()[0, 0] for name, filling in found.items()}
    assert weights == pytest.approx({"a": 1 / 1.25, "b": 0.25 / 1.25})


def test_no_region_is_filled_where_none_is_asked_for() -> None:
    found = MISSING[None].fill({"a": one_donor([NEAR_2], [1])})
    assert found["a"].regions.size == 0
    assert found["a"].apply(np.ones((3, 1))).shape == (3, 0)


def test_an_undefined_value_counts_as_zero() -> None:
    """As in abagen: pandas' sum leaves the NaN out, the sum of the weights does not."""
    filling = Filling(np.array([5]), sparse.csr_array([[0.25, 0.75]]))
    np.testing.assert_array_equal(filling.apply(np.array([[np.nan, 2.0], [4.0, 8.0]])), [[1.5], [7.0]])


def test_distances_become_weights_in_their_own_precision() -> None:
    found = inverse_distance(np.array([0, 2, np.inf, 3], dtype=np.float32))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.array([1, 0.5, 0, 1 / 3], dtype=np.float32))


def test_a_bilateral_region_takes_samples_of_the_midline_only() -> None:
    """As abagen: its lookup asks for the region's own "B", which only midline samples have."""
    info = pd.DataFrame({"id": range(1, 9), "hemisphere": "B", "structure": "cortex"})
    image = nibabel.Nifti1Image(np.arange(1, 9, dtype=np.int16).reshape(2, 2, 2), np.eye(4))
    atlas = Atlas.from_volume(image, info, name="bilateral")
    sites = Sites(samples_at([[0, 0, 0], [1, 1, 1]], ["L", "B"]), np.array([1, 2]), atlas)
    for fill in (fill_by_centroids, fill_by_interpolation):
        weights = fill({"a": sites})["a"].weights.toarray()
        np.testing.assert_array_equal(weights, [[0.0, 1.0]] * 6)
