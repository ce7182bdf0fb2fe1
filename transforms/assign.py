"""Samples to regions (abagen's ``match_samples``): which region of an atlas a tissue sample comes from.

How to match a sample with a volume, by name in :data:`MATCHINGS`:

``abagen``
    What abagen 0.1.3 computes (Markello et al. 2021, eLife 10:e72129), to the last label: the coordinate is
    moved down to the grid of a group atlas, then the search widens by 1 mm a step.
``nearest``
    The region of the voxel that contains the sample, else of the nearest admissible labelled voxel. It does
    not depend on the orientation of the file.
``native_voxels``
    The region of the nearest admissible labelled voxel, in voxels (:mod:`transforms.native_voxels`).

On a surface the first two take the nearest labelled vertex. With info, a region is admissible for a sample if
it has the sample's structure and, unless it is bilateral, the sample's hemisphere; what is not known of a
region excludes no sample.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from types import ModuleType

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from transforms import compiled
from transforms.atlas import Atlas
from transforms.errors import ChoiceError
from transforms.native_voxels import nearest_voxels

Labels = NDArray[np.int64]
Points = NDArray[np.float64]
Mask = NDArray[np.bool_]
Pairs = tuple[Labels, Labels, NDArray[np.float64]]  # sample, row of a node's region (or node), distance in mm
Elected = tuple[Labels, Labels]  # sample, row of its region
Vote = Callable[[Pairs, Points, Atlas], Elected]

EQUAL = 1e-9  # mm (or voxels): distances closer than this are equal for `nearest`
MAX_TOLERANCE = 100.0  # mm; half a head
PAIRS_AT_ONCE = 2_000_000  # bounds the memory of a search
BRAIN_MM3 = 1.4e6  # grey and white matter of an adult, brainstem and cerebellum included
FEW = 0.25  # of the samples that an atlas of its size should have; real ones have more than 0.5
ENOUGH_TO_TELL = 20  # samples
ON_SURFACES = ("abagen", "nearest")


def assign(
    samples: pd.DataFrame, atlas: Atlas, *, tolerance: float = 2, matching: str = "abagen"
) -> NDArray[np.int64]:
    """Region of each sample of one donor.

    Parameters
    ----------
    samples : pandas.DataFrame
        Prepared samples of ONE donor: ``mni_x/y/z`` in mm, ``hemisphere``, ``structure``.
    atlas : Atlas
    tolerance : float
        Volume: how far from a region a sample may lie, in mm; the sign is ignored, and ``abagen`` ignores the
        fraction. Surface, not negative: how many standard deviations above the donor's mean distance to the
        surface a sample may lie; negative: how many mm from it.
    matching : {"abagen", "nearest", "native_voxels"}

    Returns
    -------
    (sample,) int64 array
        Region ids, 0 for none.

    Raises
    ------
    ChoiceError
        If `matching` is unknown, `tolerance` is not finite or, on a volume, above 100 mm, or a sample has no
        coordinates.
    AtlasError
        If `matching` is ``abagen`` and the axes of a group volume are not those of space, or
        ``native_voxels`` and the atlas is a surface.
    """
    if matching not in MATCHINGS:
        raise ChoiceError(f"matching={matching!r} is unknown: choose one of {', '.join(MATCHINGS)}.")
    if not math.isfinite(tolerance):
        raise ChoiceError(f"tolerance={tolerance} is no distance: give a finite number.")
    points = _places(samples)
    _check_points(points)
    admissible = _admissible(samples, atlas)
    if atlas.kind == "surface" and matching in ON_SURFACES:
        return _surface(points, atlas, admissible, samples["structure"].to_numpy() == "cortex", tolerance)
    if abs(tolerance) > MAX_TOLERANCE:
        raise ChoiceError(f"tolerance={tolerance} is beyond {MAX_TOLERANCE:.0f} mm: choose a smaller one.")
    return MATCHINGS[matching](points, atlas, admissible, abs(tolerance))


def _check_points(points: Points) -> None:
    wrong = np.flatnonzero(~np.isfinite(points).all(axis=1))
    if len(wrong):
        raise ChoiceError(
            f"{len(wrong)} samples (the first in row {wrong[0]}) have no coordinates in mm: "
            "drop them, or choose corrected_mni=False."
        )


def _admissible(samples: pd.DataFrame, atlas: Atlas) -> Mask:
    """(sample, region) whether the region may take the sample."""
    if not atlas.has_info:
        return np.ones((len(samples), len(atlas.regions)), dtype=bool)
    own, same = {}, {}
    for column in ("hemisphere", "structure"):
        own[column] = atlas.regions[column].to_numpy(dtype=object)
        same[column] = _equal(samples[column].to_numpy(dtype=object), own[column])
    anywhere = (own["hemisphere"] == "B") | (own["hemisphere"] == "")
    anything = own["structure"] == ""
    mask: Mask = (same["structure"] | anything) & (same["hemisphere"] | anywhere)
    return mask


def _equal(left: NDArray[np.object_], right: NDArray[np.object_]) -> Mask:
    """(left, right) whether texts are equal: numbers that stand for them are compared faster."""
    numbers, _ = pd.factorize(np.concatenate([left, right]))
    equal: Mask = numbers[: len(left), np.newaxis] == numbers[len(left) :]
    return equal


def _places(samples: pd.DataFrame) -> Points:
    return np.column_stack([samples[axis].to_numpy(dtype=np.float64) for axis in ("mni_x", "mni_y", "mni_z")])


def count_inside(samples: pd.DataFrame, labels: Labels, atlas: Atlas, tolerance: float) -> int:
    """Samples in a region that also lie in the box around the atlas's labels.

    ``abagen`` gives regions to others: what lies below the first plane of its image is moved to the last one.

    Parameters
    ----------
    samples : pandas.DataFrame
        ``mni_x/y/z`` in mm.
    labels : (sample,) int64 array
        As `assign` gives them.
    atlas : Atlas
    tolerance : float
        mm, or voxels, that a sample may lie outside.
    """
    points = _places(samples)
    size = 1.0 if atlas.affine is None else max(1.0, float(np.abs(atlas.affine[:3, :3]).max()))
    margin = (abs(tolerance) + 1) * size
    low, high = atlas.box
    inside = ((points >= low - margin) & (points <= high + margin)).all(axis=1)
    return int(np.count_nonzero(inside & (labels != 0)))


def warn_if_misplaced(n_assigned: int, n_samples: int, atlas: Atlas) -> None:
    """Warn of an atlas that holds far fewer samples than its size should: it may be in another space.

    Parameters
    ----------
    n_assigned : int
        Samples in a region of the atlas, see `count_inside`.
    n_samples : int
        Samples that were matched.
    atlas : Atlas
        A volume; a surface takes nearly all samples of the cortex wherever it lies, and is left alone.

    Warns
    -----
    UserWarning
        If fewer samples than a quarter of those expected are in a region, where at least 20 are: the brain
        was sampled all over, so that a part of its volume has about that part of its samples.
    """
    if atlas.affine is None:
        return
    volume = len(atlas.labels) * abs(float(np.linalg.det(atlas.affine[:3, :3])))
    expected = min(1.0, volume / BRAIN_MM3) * n_samples
    if expected >= ENOUGH_TO_TELL and n_assigned < FEW * expected:
        low, high = atlas.box
        box = ", ".join(f"{axis} {a:.0f} to {b:.0f}" for axis, a, b in zip("xyz", low, high, strict=True))
        warnings.warn(
            f"Only {n_assigned} of {n_samples} samples lie in a region of atlas {atlas.name!r}; about "
            f"{expected:.0f} should in {volume / 1000:.0f} ml of brain. Is it in {atlas.space} space? Its "
            f"labels reach over {box} mm.",
            stacklevel=2,
        )


# ---- surfaces ----


def _surface(points: Points, atlas: Atlas, admissible: Mask, cortex: Mask, tolerance: float) -> Labels:
    """Label of the nearest labelled vertex, for cortex samples that lie close enough to it."""
    labels = np.zeros(len(points), dtype=np.int64)
    rows = np.flatnonzero(cortex)
    distance, node = atlas.tree.query(points[rows])
    region = _region_of(atlas, node)
    kept = admissible[rows, region] & ~_too_far(distance, tolerance)
    labels[rows[kept]] = atlas.labels[node[kept]]
    return labels


def _too_far(distance: NDArray[np.float64], tolerance: float) -> Mask:
    if tolerance < 0:
        farthest = -tolerance
    elif len(distance) < 2:  # one distance has no spread
        farthest = math.inf
    else:
        farthest = distance.mean() + distance.std(ddof=1) * tolerance
    return np.greater(distance, farthest)


# ---- volumes ----


def _abagen(points: Points, atlas: Atlas, admissible: Mask, tolerance: float) -> Labels:
    """Widen the search by 1 mm a step until an admissible region is within reach; it takes a vote."""
    moved = points if atlas.space == "native" else _down_to_grid(points, atlas.grid)
    radii = range(math.floor(tolerance) + 1)
    labels = np.zeros(len(points), dtype=np.int64)
    return _widen(labels, moved, atlas, admissible, radii, _vote_within)


def _down_to_grid(points: Points, grid: Sequence[NDArray[np.float64]]) -> Points:
    """Largest grid value strictly below each coordinate; as in abagen, none below wraps to the last."""
    axes = [values[np.searchsorted(values, axis) - 1] for values, axis in zip(grid, points.T, strict=True)]
    return np.column_stack(axes)


def _nearest(points: Points, atlas: Atlas, admissible: Mask, tolerance: float) -> Labels:
    """Region of the voxel around the sample, else of the nearest admissible labelled voxel."""
    labels = np.zeros(len(points), dtype=np.int64)
    node = atlas.nodes_at(_containing_voxel(points, atlas))
    inside = np.flatnonzero(node >= 0)
    inside = inside[admissible[inside, _region_of(atlas, node[inside])]]
    labels[inside] = atlas.labels[node[inside]]
    radii = [*range(1, math.ceil(tolerance)), tolerance] if tolerance else []
    return _widen(labels, points, atlas, admissible, [radius + EQUAL for radius in radii], _vote_nearest)


def _containing_voxel(points: Points, atlas: Atlas) -> NDArray[np.int64]:
    """Index of the voxel whose cell contains each point.

    A cell is half-open: of its two faces across an axis it owns the left, posterior or inferior one (the
    direction the axis mostly runs along decides), whichever way the file counts. A point within 1e-9 voxels
    of a face is on it.
    """
    affine = _affine(atlas)
    axes = affine[:3, :3]
    dominant = np.take_along_axis(axes, np.abs(axes).argmax(axis=0)[None], axis=0)[0]
    upward = np.sign(dominant)
    index = _voxel_coordinates(points, affine) * upward
    voxel: NDArray[np.int64] = (np.floor(index + 0.5 + EQUAL) * upward).astype(np.int64)
    return voxel


def _widen(
    labels: Labels, points: Points, atlas: Atlas, admissible: Mask, radii: Sequence[float], vote: Vote
) -> Labels:
    """Fill the zeros of `labels`: at the first radius (mm) that reaches an admissible voxel, `vote`."""
    ids = atlas.regions.index.to_numpy()
    for radius in radii:
        pending = np.flatnonzero((labels == 0) & admissible.any(axis=1))
        for rows, (sample, node, distance) in _voxels_within(points, pending, atlas, radius):
            region = _region_of(atlas, node)
            allowed = admissible[rows[sample], region]
            pairs = sample[allowed], region[allowed], distance[allowed]
            winner, chosen = vote(pairs, points[rows], atlas)
            labels[rows[winner]] = ids[chosen]
    return labels


def _voxels_within(
    points: Points, rows: NDArray[np.int64], atlas: Atlas, radius: float
) -> Iterator[tuple[NDArray[np.int64], Pairs]]:
    """Labelled voxels whose centre is at most `radius` mm from each point, a block of points at a time.

    The same comparison of the same float64 numbers as ``cKDTree.query_ball_point``, without the time it
    takes to build a tree over a million voxels: only the offsets that can be in reach are looked at.
    """
    affine = _affine(atlas)
    offsets = _offsets_in_reach(affine[:3, :3].tobytes(), radius)
    block = max(1, PAIRS_AT_ONCE // len(offsets))
    for start in range(0, len(rows), block):
        part = rows[start : start + block]
        centres = np.rint(_voxel_coordinates(points[part], affine)).astype(np.int64)
        sample, node, squared = _pairs(points[part], centres, offsets, atlas, radius * radius)
        yield part, (sample, node, np.sqrt(squared))


def _pairs(points: Points, centres: Labels, offsets: Labels, atlas: Atlas, limit: float) -> Pairs:
    """Each point, and node among the `offsets` around its voxel, that are close; their squared distance."""
    if compiled.places is not None:
        return _pairs_in_c(compiled.places, points, centres, offsets, atlas, limit)
    nodes = atlas.nodes_at(centres[:, None] + offsets)
    sample, column = np.nonzero(nodes >= 0)
    node = nodes[sample, column].astype(np.int64)
    squared = _squared_distance(points[sample], atlas.coordinates[node])
    near = squared <= limit
    return sample[near], node[near], squared[near]


def _pairs_in_c(
    kernels: ModuleType, points: Points, centres: Labels, offsets: Labels, atlas: Atlas, limit: float
) -> Pairs:
    most = len(points) * len(offsets)
    sample, node, squared = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most)
    coordinates = np.ascontiguousarray(atlas.coordinates)
    found = kernels.nodes_within(
        points, centres, offsets, *atlas.lookup, coordinates, limit, sample, node, squared
    )
    return sample[:found], node[:found], squared[:found]


@lru_cache(maxsize=256)
def _offsets_in_reach(axes_in_bytes: bytes, radius: float) -> NDArray[np.int64]:
    """(offset, 3) steps from a point's voxel to every voxel that can be within `radius` mm of the point."""
    axes = np.frombuffer(axes_in_bytes).reshape(3, 3)
    half_diagonal = np.linalg.norm(axes, axis=0).sum() / 2  # a point is no farther from its voxel's centre
    reach = (radius + half_diagonal) * (1 + 1e-6)
    extent = np.ceil(np.linalg.norm(np.linalg.inv(axes), axis=1) * reach).astype(np.int64)
    steps = [np.arange(-size, size + 1) for size in extent]
    offsets = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1).reshape(-1, 3)
    inside: Mask = np.linalg.norm(offsets @ axes.T, axis=1) <= reach
    return np.ascontiguousarray(offsets[inside])


def _vote_within(pairs: Pairs, points: Points, atlas: Atlas) -> Elected:
    """Vote as abagen: the region with the most voxels or, if several have the most, the nearest centroid.

    That centroid is sought among ALL the candidates, also those with fewer voxels; and with info each region
    counts once, so that the centroid decides.
    """
    sample, region, _ = pairs
    sample, region, votes = _count(sample, region, len(atlas.regions))
    if not atlas.has_info:
        most = _is_extreme(sample, votes)
        contested = np.bincount(sample[most], minlength=len(points)) > 1
        kept = most | contested[sample]
        sample, region = sample[kept], region[kept]
    return _nearest_centroid(sample, region, points, atlas)


def _vote_nearest(pairs: Pairs, points: Points, atlas: Atlas) -> Elected:
    """Vote of the nearest voxels: the most of them, then the nearest centroid, then the smallest id."""
    sample, region, distance = pairs
    nearest = _is_extreme(sample, -distance, margin=EQUAL)
    sample, region, votes = _count(sample[nearest], region[nearest], len(atlas.regions))
    most = _is_extreme(sample, votes)
    return _nearest_centroid(sample[most], region[most], points, atlas, margin=EQUAL)


def _count(sample: Labels, region: Labels, n_regions: int) -> tuple[Labels, Labels, NDArray[np.float64]]:
    """Each candidate (sample, region) once, in ascending order, and its number of voxels."""
    candidates, votes = np.unique(sample * n_regions + region, return_counts=True)
    sample, region = np.divmod(candidates, n_regions)
    return sample, region, votes.astype(np.float64)


def _nearest_centroid(
    sample: Labels, region: Labels, points: Points, atlas: Atlas, *, margin: float = 0.0
) -> Elected:
    """Of each sample's candidates the one with the nearest centroid; the smallest id of equals."""
    distance = np.sqrt(_squared_distance(points[sample], atlas.centroids[region]))
    closest = _is_extreme(sample, -distance, margin=margin)
    elected, first = np.unique(sample[closest], return_index=True)
    return elected, region[closest][first]


def _is_extreme(group: NDArray[np.int64], value: NDArray[np.float64], *, margin: float = 0.0) -> Mask:
    """Whether a value is its group's largest, or within `margin` of it; `group` is in ascending order."""
    if not len(group):
        return np.zeros(0, dtype=bool)
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    largest = np.repeat(np.maximum.reduceat(value, starts), np.diff(starts, append=len(group)))
    return value >= largest - margin


def _squared_distance(a: Points, b: Points) -> NDArray[np.float64]:
    """Squared distances of rows, summed x, y, z as scipy sums them (the last bit decides on a boundary)."""
    x, y, z = ((a - b) ** 2).T
    total: NDArray[np.float64] = x + y + z
    return total


def _voxel_coordinates(points: Points, affine: NDArray[np.float64]) -> Points:
    inverse = np.linalg.inv(affine)
    coordinates: Points = points @ inverse[:3, :3].T + inverse[:3, 3]
    return coordinates


def _region_of(atlas: Atlas, node: NDArray[np.integer]) -> NDArray[np.int64]:
    """Row in ``atlas.regions`` of each node's region."""
    row: NDArray[np.int64] = np.searchsorted(atlas.regions.index.to_numpy(), atlas.labels[node])
    return row


def _affine(atlas: Atlas) -> NDArray[np.float64]:
    if atlas.affine is None:
        raise TypeError(f"Atlas {atlas.name!r} is no volume.")
    return atlas.affine


MATCHINGS: dict[str, Callable[[Points, Atlas, Mask, float], Labels]] = {
    "abagen": _abagen,
    "nearest": _nearest,
    "native_voxels": nearest_voxels,
}
