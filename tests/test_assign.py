"""Samples to regions: against a slow transcription of the two rules, and against what the rules promise."""

import itertools
import math
from collections import Counter

import nibabel
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from ingest.reference import corrected_coordinates
from tests.helpers import METADATA, needs_metadata
from transforms.assign import MATCHINGS, ON_SURFACES, _voxels_within, assign
from transforms.atlas import Atlas
from transforms.errors import AtlasError, ChoiceError

DONORS = ("9861", "10021", "12876", "14380", "15496", "15697")
STRUCTURES = ("cortex", "subcortex/brainstem", "cerebellum")
TRIANGLE = np.array([[0, 1, 2]])
MANY = settings(max_examples=2 * settings.default.max_examples, deadline=None)


def table(points, hemisphere="L", structure="cortex"):
    points = np.asarray(points, dtype=float).reshape(-1, 3)
    return pd.DataFrame(points, columns=["mni_x", "mni_y", "mni_z"]).assign(
        hemisphere=hemisphere, structure=structure
    )


def volume(data, affine=None, info=None, *, space="mni152", name="small"):
    image = nibabel.Nifti1Image(np.asarray(data, dtype=np.int32), np.eye(4) if affine is None else affine)
    return Atlas.from_volume(image, info, name=name, space=space)


def scaled(step=1.0, offset=0.0):
    return nibabel.affines.from_matvec(np.diag(np.broadcast_to(step, 3)), np.broadcast_to(offset, 3))


# ---- the rules once more, one sample at a time ----


def agrees(atlas, region, sample):
    """May `region` take `sample`?"""
    if not atlas.has_info:
        return True
    facts = atlas.regions.loc[region]
    same_side = facts["hemisphere"] in ("B", sample["hemisphere"])
    return same_side and facts["structure"] == sample["structure"]


def lengths(differences):
    return np.sqrt((np.atleast_2d(differences) ** 2).sum(axis=1))


def centroid_of(atlas, region):
    return atlas.coordinates[atlas.labels == region].mean(axis=0)


def below(axis, value):
    """Largest grid value strictly below; none below: the last one."""
    smaller = [grid_value for grid_value in axis if grid_value < value]
    return max(smaller) if smaller else max(axis)


def abagen_by_hand(samples, atlas, tolerance, within=None):
    within = within or (
        lambda point, r: np.flatnonzero(((atlas.coordinates - point) ** 2).sum(axis=1) <= r * r)
    )
    axes = None
    if atlas.space != "native":
        starts, steps = atlas.affine[:3, 3], atlas.affine[:3, :3][atlas.affine[:3, :3] != 0]
        axes = [np.arange(o, o + s * n, s) for o, s, n in zip(starts, steps, atlas.shape, strict=True)]
    labels = []
    for _, sample in samples.iterrows():
        point = sample[["mni_x", "mni_y", "mni_z"]].to_numpy(dtype=float)
        if axes is not None:
            point = np.array([below(axis, value) for axis, value in zip(axes, point, strict=True)])
        labels.append(widen_by_hand(point, sample, atlas, abs(tolerance), within))
    return np.array(labels, dtype=int)


def widen_by_hand(point, sample, atlas, tolerance, within):
    radius = 0
    while radius <= tolerance:
        found = Counter(atlas.labels[within(point, radius)].tolist())
        found = {region: votes for region, votes in found.items() if agrees(atlas, region, sample)}
        if found:
            return winner_by_hand(found, point, atlas)
        radius += 1
    return 0


def winner_by_hand(found, point, atlas):
    votes = [1] * len(found) if atlas.has_info else list(found.values())
    if votes.count(max(votes)) == 1:
        return list(found)[votes.index(max(votes))]
    # the nearest centroid among all that were found, not only among those with the most votes
    return min(sorted(found), key=lambda region: lengths(centroid_of(atlas, region) - point)[0])


def nearest_by_hand(samples, atlas, tolerance):
    labels = []
    half = np.abs(np.diag(atlas.affine)[:3]) / 2  # axis-aligned, not permuted
    for _, sample in samples.iterrows():
        point = sample[["mni_x", "mni_y", "mni_z"]].to_numpy(dtype=float)
        allowed = np.array([agrees(atlas, region, sample) for region in atlas.labels])
        offset = point - atlas.coordinates
        contains = ((offset >= -half - 1e-9) & (offset < half - 1e-9)).all(axis=1) & allowed
        distance = np.where(allowed, lengths(offset), np.inf)
        if contains.any():
            labels.append(atlas.labels[contains][0])
        elif distance.min() <= abs(tolerance) + 1e-9:
            counts = Counter(atlas.labels[distance <= distance.min() + 1e-9].tolist())
            most = [region for region in sorted(counts) if counts[region] == max(counts.values())]
            away = [lengths(centroid_of(atlas, region) - point)[0] for region in most]
            labels.append(next(r for r, d in zip(most, away, strict=True) if d <= min(away) + 1e-9))
        else:
            labels.append(0)
    return np.array(labels, dtype=int)


# ---- random small worlds ----

coordinate = st.one_of(
    st.integers(-4, 12).map(float),
    st.integers(-8, 24).map(lambda half: half / 2),
    st.floats(-4, 12, allow_nan=False),
)


@st.composite
def infos(draw):
    return pd.DataFrame(
        {
            "id": [1, 2, 3, 4],
            "hemisphere": [draw(st.sampled_from("LRB")) for _ in range(4)],
            "structure": [draw(st.sampled_from(STRUCTURES[:2])) for _ in range(4)],
        }
    )


@st.composite
def worlds(draw, steps=(1.0, 2.0, 0.7, 1.5)):
    """A small axis-aligned volume atlas, perhaps with info or native, and samples around it."""
    shape = draw(st.tuples(*[st.integers(2, 6)] * 3))
    data = np.random.default_rng(draw(st.integers(0, 10**6))).choice(
        5, size=shape, p=draw(st.sampled_from([(0.2, 0.2, 0.2, 0.2, 0.2), (0.9, 0.025, 0.025, 0.025, 0.025)]))
    )
    data.flat[0] = data.flat[0] or 1
    step = [draw(st.sampled_from(steps)) * draw(st.sampled_from([1, -1])) for _ in range(3)]
    offset = [0.0 if size > 0 else (count - 1) * -size for size, count in zip(step, shape, strict=True)]
    info = draw(st.none() | infos())
    atlas = volume(data, scaled(step, offset), info, space=draw(st.sampled_from(["mni152", "native"])))
    points = draw(st.lists(st.tuples(coordinate, coordinate, coordinate), min_size=0, max_size=6))
    n = len(points)
    hemisphere = [draw(st.sampled_from("LRB")) for _ in range(n)]
    structure = [draw(st.sampled_from((*STRUCTURES, ""))) for _ in range(n)]
    return atlas, table(points, hemisphere, structure)


tolerances = st.sampled_from([0, 1, 2, 3, 2.5, -2, 0.4])


@given(worlds(), tolerances)
@MANY
def test_abagen_matches_the_rule_done_by_hand(world, tolerance):
    atlas, samples = world
    labels = assign(samples, atlas, tolerance=tolerance)
    assert labels.dtype == np.int64
    assert labels.tolist() == abagen_by_hand(samples, atlas, tolerance).tolist()


@given(worlds(steps=(1.0, 2.0, 1.5)), tolerances)
@MANY
def test_nearest_matches_the_rule_done_by_hand(world, tolerance):
    atlas, samples = world
    labels = assign(samples, atlas, tolerance=tolerance, matching="nearest")
    assert labels.tolist() == nearest_by_hand(samples, atlas, tolerance).tolist()


def orientations():
    """The 48 ways to store the same volume: every order and direction of its axes."""
    for axes, flips in itertools.product(
        itertools.permutations(range(3)), itertools.product([1, -1], repeat=3)
    ):
        yield np.column_stack([axes, flips]).astype(float)


@pytest.mark.parametrize("shear", [0.0, 0.3], ids=["axis-aligned", "oblique"])
@pytest.mark.parametrize("tolerance", [0, 1.2, 3])
def test_nearest_does_not_depend_on_how_the_file_is_oriented(shear, tolerance):
    rng = np.random.default_rng(5)
    affine = nibabel.affines.from_matvec([[1, shear, 0], [-shear, 1.5, 0], [0, shear / 2, 0.7]], [-2, -3, -1])
    image = nibabel.Nifti1Image(
        rng.choice(4, size=(4, 5, 6), p=[0.7, 0.1, 0.1, 0.1]).astype(np.int16), affine
    )
    middles = nibabel.affines.apply_affine(
        affine, rng.integers(0, 9, (150, 3)) / 2
    )  # faces, edges and corners
    samples = table(np.concatenate([middles, rng.uniform(-4, 6, (150, 3))]))
    expected = assign(samples, Atlas.from_volume(image, name="a"), tolerance=tolerance, matching="nearest")
    assert 0 < np.count_nonzero(expected) < len(expected)
    for orientation in orientations():
        atlas = Atlas.from_volume(image.as_reoriented(orientation), name="a")
        labels = assign(samples, atlas, tolerance=tolerance, matching="nearest")
        assert labels.tolist() == expected.tolist()


@given(worlds(), tolerances, st.sampled_from(list(orientations())))
@settings(deadline=None)
def test_nearest_is_invariant_for_any_small_world(world, tolerance, orientation):
    atlas, samples = world
    data = np.zeros(atlas.shape, dtype=np.int32)
    data.flat[atlas.nodes] = atlas.labels
    image = nibabel.Nifti1Image(data, atlas.affine).as_reoriented(orientation)
    info = atlas.regions.rename_axis("id") if atlas.has_info else None
    turned = Atlas.from_volume(image, info, name="turned", space=atlas.space)
    expected = assign(samples, atlas, tolerance=tolerance, matching="nearest")
    assert assign(samples, turned, tolerance=tolerance, matching="nearest").tolist() == expected.tolist()


# ---- neighbourhoods: exactly those of a search tree ----

AFFINES = {
    "1 mm": scaled(1, -3),
    "2 mm, x flipped": scaled([-2, 2, 2], [9, -5, -5]),
    "0.7 mm": scaled(0.7, -3.3),
    "1 x 1.5 x 3 mm": scaled([1, 1.5, 3], -4),
    "permuted": nibabel.affines.from_matvec([[0, 0, 1], [-1, 0, 0], [0, 1, 0]], [-3, 4, -3]),
    "oblique": nibabel.affines.from_matvec(nibabel.eulerangles.euler2mat(0.3, 0.2, 0.1), [-4, -4, -2]),
}


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES.keys())
@pytest.mark.parametrize("radius", [0, 1, 2, 3, 5, 1.7])
def test_neighbourhoods_equal_those_of_the_search_tree(affine, radius):
    rng = np.random.default_rng(7)
    atlas = volume(rng.integers(0, 3, (8, 9, 7)), affine)
    on_grid = atlas.coordinates[rng.integers(0, len(atlas.labels), 300)]
    points = np.concatenate([on_grid, rng.uniform(-9, 13, (300, 3)), np.round(rng.uniform(-9, 13, (300, 3)))])
    found = {row: set() for row in range(len(points))}
    for rows, (sample, node, distance) in _voxels_within(points, np.arange(len(points)), atlas, radius):
        np.testing.assert_allclose(distance, lengths(points[rows[sample]] - atlas.coordinates[node]))
        for row, one in zip(rows[sample], node, strict=True):
            found[int(row)].add(int(one))
    expected = cKDTree(atlas.coordinates).query_ball_point(points, radius)
    assert [found[row] for row in range(len(points))] == [set(nodes) for nodes in expected]


def test_a_search_in_blocks_finds_the_same(monkeypatch):
    rng = np.random.default_rng(11)
    atlas = volume(rng.choice(6, size=(12, 12, 12), p=[0.9, 0.02, 0.02, 0.02, 0.02, 0.02]))
    samples = table(rng.uniform(-3, 15, (200, 3)))
    expected = {matching: assign(samples, atlas, tolerance=4, matching=matching) for matching in MATCHINGS}
    monkeypatch.setattr("transforms.assign.PAIRS_AT_ONCE", 700)
    for matching, labels in expected.items():
        assert assign(samples, atlas, tolerance=4, matching=matching).tolist() == labels.tolist()


# ---- the rules' corners ----


def test_coordinates_move_down_to_the_grid_and_wrap_at_its_start():
    atlas = volume(np.arange(1, 5).reshape(4, 1, 1) * np.ones((1, 2, 2), dtype=int))
    moved = assign(table([[1.5, 1, 1], [1, 1, 1], [0, 1, 1], [-7, 1, 1], [9, 1, 1]]), atlas, tolerance=0)
    assert moved.tolist() == [2, 1, 4, 4, 4]
    contained = assign(table([[1.4, 1, 1], [1, 1, 1], [0, 1, 1]]), atlas, tolerance=0, matching="nearest")
    assert contained.tolist() == [2, 2, 1]


def test_a_native_atlas_takes_coordinates_as_they_are():
    data = np.arange(1, 5).reshape(4, 1, 1) * np.ones((1, 2, 2), dtype=int)
    samples = table([[1, 1, 1], [3, 0, 0]])
    assert assign(samples, volume(data, space="native"), tolerance=0).tolist() == [2, 4]


def test_a_contested_vote_goes_to_the_nearest_centroid_even_of_a_region_with_fewer_votes():
    data = np.zeros((40, 40, 3), dtype=int)
    data[20, 19, 1] = data[20, 21, 1] = 1
    data[19, 20, 1] = data[20, 20, 0] = 2
    data[21, 20, 1] = 3
    data[0:8, 20, 1], data[20, 32:40, 1] = 2, 1  # draw the centroids of 1 and 2 away
    atlas = volume(data, space="native")
    samples = table([20, 20, 1])
    assert assign(samples, atlas, tolerance=1).tolist() == [3]
    assert assign(samples, atlas, tolerance=1, matching="nearest").item() in (1, 2)


def test_info_keeps_a_sample_in_its_hemisphere_and_structure():
    data = np.zeros((9, 3, 3), dtype=int)
    data[1:4, 1, 1] = 1, 2, 3
    info = pd.DataFrame(
        {"id": [1, 2, 3], "hemisphere": ["L", "R", "B"], "structure": ["cortex", "cortex", "cerebellum"]}
    )
    points = [[2.5, 1.5, 1.5]] * 4
    samples = table(points, ["L", "R", "R", "L"], ["cortex", "cortex", "cerebellum", "white matter"])
    for matching, expected in {"abagen": [1, 2, 3, 0], "nearest": [1, 2, 3, 0]}.items():
        assert assign(samples, volume(data, info=info), matching=matching).tolist() == expected
    unconstrained = assign(samples, volume(data, info=info).without_info(), tolerance=0)
    assert unconstrained.tolist() == [2, 2, 2, 2]


@pytest.mark.parametrize("matching", MATCHINGS)
def test_no_sample_and_one_sample(matching):
    atlas = volume(np.ones((2, 2, 2)))
    none = assign(table(np.empty((0, 3))), atlas, matching=matching)
    assert none.shape == (0,)
    assert none.dtype == np.int64
    assert assign(table([1, 1, 1]), atlas, matching=matching).tolist() == [1]


def test_samples_far_outside_are_in_no_region():
    atlas = volume(np.ones((3, 3, 3)), space="native")
    for matching in MATCHINGS:
        assert assign(table([[500, 1, 1], [1, -900, 1]]), atlas, matching=matching).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("choices", "sentence"),
    [
        ({"matching": "exact"}, "matching='exact' is unknown: choose one of abagen, nearest"),
        ({"tolerance": math.nan}, "tolerance=nan is no distance"),
        ({"tolerance": -math.inf}, "tolerance=-inf is no distance"),
        ({"tolerance": 101}, "tolerance=101 is beyond 100 mm"),
    ],
)
def test_impossible_choices_are_refused(choices, sentence):
    with pytest.raises(ChoiceError, match=sentence.replace("(", r"\(")):
        assign(table([0, 0, 0]), volume(np.ones((2, 2, 2))), **choices)


def test_samples_without_coordinates_are_refused():
    samples = table([[0, 0, 0], [0, math.nan, 0], [math.inf, 0, 0]])
    with pytest.raises(ChoiceError, match=r"2 samples \(the first in row 1\) have no coordinates"):
        assign(samples, volume(np.ones((2, 2, 2))))


def test_a_rotated_group_volume_needs_nearest_a_native_one_does_not():
    data = np.ones((5, 5, 5))
    samples = table(nibabel.affines.apply_affine(AFFINES["oblique"], [2, 2, 2]))
    with pytest.raises(AtlasError, match="matching='nearest'"):
        assign(samples, volume(data, AFFINES["oblique"]))
    assert assign(samples, volume(data, AFFINES["oblique"]), matching="nearest").tolist() == [1]
    assert assign(samples, volume(data, AFFINES["oblique"], space="native")).tolist() == [1]


# ---- surfaces ----


def surface(labels, vertices, info=None):
    """A surface atlas whose left half has the given vertices, the right half one unlabelled triangle."""
    left = nibabel.GiftiImage(darrays=[_array(labels)])
    right = nibabel.GiftiImage(darrays=[_array([0, 0, 0])])
    mesh = ((np.asarray(vertices, dtype=float), TRIANGLE), (np.eye(3), TRIANGLE))
    return Atlas.from_surface(left, right, mesh=mesh, info=info, name="sheet")


def _array(labels):
    return nibabel.gifti.GiftiDataArray(np.asarray(labels, dtype=np.int32), intent="NIFTI_INTENT_LABEL")


def surface_by_hand(samples, atlas, tolerance):
    points = samples[["mni_x", "mni_y", "mni_z"]].to_numpy(dtype=float)
    cortex = [row for row, structure in enumerate(samples["structure"]) if structure == "cortex"]
    away = np.array([lengths(atlas.coordinates - points[row]) for row in cortex]).reshape(
        -1, len(atlas.labels)
    )
    shortest = away.min(axis=1)
    if tolerance < 0:
        limit = -tolerance
    elif len(cortex) > 1:
        limit = shortest.mean() + tolerance * shortest.std(ddof=1)
    else:
        limit = math.inf
    labels = np.zeros(len(samples), dtype=int)
    for row, distances in zip(cortex, away, strict=True):
        region = atlas.labels[distances.argmin()]
        if distances.min() <= limit and agrees(atlas, region, samples.iloc[row]):
            labels[row] = region
    return labels


@given(
    st.integers(0, 10**6),
    st.integers(0, 8),
    st.sampled_from([-3, -1.5, 0, 0.5, 1, 2]),
    st.none() | infos(),
    st.sampled_from(ON_SURFACES),
)
@MANY
def test_surfaces_match_the_rule_done_by_hand(seed, n_samples, tolerance, info, matching):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, 30)
    labels[0] = 1
    atlas = surface(labels, rng.uniform(-10, 10, (30, 3)), info)
    samples = table(rng.uniform(-10, 10, (n_samples, 3)))
    samples["hemisphere"] = rng.choice(list("LLRB"), n_samples)
    samples["structure"] = rng.choice(["cortex", "cortex", "cerebellum", ""], n_samples)
    expected = surface_by_hand(samples, atlas, tolerance)
    assert assign(samples, atlas, tolerance=tolerance, matching=matching).tolist() == expected.tolist()


def test_a_surface_takes_large_tolerances():
    atlas = surface([1, 0, 0], np.eye(3))
    samples = table([[300, 0, 0], [400, 0, 0]])
    assert assign(samples, atlas, tolerance=-1000).tolist() == [1, 1]
    assert assign(samples, atlas, tolerance=150).tolist() == [1, 1]


# ---- the real atlas ----


def all_samples():
    """The 3,702 corrected coordinates; side and structure from plain geometry."""
    places = corrected_coordinates().to_numpy(dtype=float)
    x, y, z = places.T
    side = np.where(x < 0, "L", np.where(x > 0, "R", "B"))
    structure = np.where((z < -25) & (y < -40), "cerebellum", "cortex")
    structure[(np.abs(x) < 25) & (np.abs(z) < 12) & (np.abs(y) < 25)] = "subcortex/brainstem"
    return table(places, side, structure)


@pytest.mark.slow
@pytest.mark.parametrize("with_info", [True, False])
@pytest.mark.parametrize("tolerance", [0, 2, 3])
def test_desikan_killiany_matches_the_rule_done_by_hand(dk, with_info, tolerance):
    atlas = dk if with_info else dk.without_info()
    tree = cKDTree(atlas.coordinates)
    samples = all_samples()
    labels = assign(samples, atlas, tolerance=tolerance)
    assert len(labels) == 3702
    assert labels.tolist() == abagen_by_hand(samples, atlas, tolerance, tree.query_ball_point).tolist()


@pytest.mark.parametrize("tolerance", [-3, 0, 2])
def test_desikan_killiany_surface_matches_the_rule_done_by_hand(dk_surface, tolerance):
    samples = all_samples().iloc[::20]
    expected = surface_by_hand(samples, dk_surface, tolerance)
    assert 0 < np.count_nonzero(expected) < len(expected)
    assert assign(samples, dk_surface, tolerance=tolerance).tolist() == expected.tolist()


def true_samples():
    """The samples that abagen keeps: those on the side of the brain that the ontology names."""
    ontology = pd.read_csv(METADATA / "Ontology.csv", index_col="id")
    files = [METADATA / f"normalized_microarray_donor{donor}" / "SampleAnnot.csv" for donor in DONORS]
    published = pd.concat([pd.read_csv(file) for file in files])
    side = ontology.loc[published["structure_id"], "hemisphere"].fillna("B").to_numpy()
    places = corrected_coordinates().loc[published["well_id"]].to_numpy(dtype=float)
    kept = np.sign(places[:, 0]) == pd.Series(side).map({"L": -1, "R": 1, "B": 0}).to_numpy()
    return table(places[kept], side[kept])


@needs_metadata
def test_moving_down_to_the_grid_changes_400_labels(dk):
    samples = true_samples()
    assert len(samples) == 3466
    atlas = dk.without_info()
    moved = assign(samples, atlas, tolerance=0)
    contained = assign(samples, atlas, tolerance=0, matching="nearest")
    assert np.count_nonzero(moved) == 2017  # counted with abagen 0.1.3
    assert np.count_nonzero(moved != contained) == 400
