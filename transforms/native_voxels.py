"""Samples to regions by the nearest labelled voxel, distances counted in voxels (step S3 of AHBAprocessing).

Meant for a donor's own volume, where a sample IS a voxel of the MRI. Then distances are square roots of whole
numbers and equal ones are common (25 of 1,489 samples on the native Desikan-Killiany atlases): of the nearest
voxels the one first in the volume counts, x running fastest, then y, then z. MATLAB leaves that open; GNU
Octave does the same.

Source: Arnatkeviciute et al. 2019, NeuroImage 189:353.
"""

import numpy as np
from numpy.typing import NDArray

from transforms.atlas import Atlas
from transforms.errors import AtlasError
from transforms.search import search_tree

Points = NDArray[np.float64]
Labels = NDArray[np.int64]

DECIMALS = 6  # of a voxel; the way through mm and back leaves less
EQUAL = 1e-9


def nearest_voxels(points: Points, atlas: Atlas, admissible: NDArray[np.bool_], tolerance: float) -> Labels:
    """Region of the nearest voxel among those of the regions admissible for each sample.

    Parameters
    ----------
    points : (sample, 3) float64 array
        mm in the atlas's space.
    atlas : Atlas
        A volume.
    admissible : (sample, region) bool array
    tolerance : float
        Voxels; a sample farther than this from all of them has no region.

    Returns
    -------
    (sample,) int64 array
        Region ids, 0 for none.

    Raises
    ------
    AtlasError
        If the atlas is a surface.
    """
    if atlas.affine is None:
        raise AtlasError(
            f"Atlas {atlas.name!r} is a surface, and matching='native_voxels' counts voxels: give the "
            "donors' volumes, or choose another matching."
        )
    places = _voxel_places(points, atlas.affine)
    voxels, region = _voxels_in_raster_order(atlas)
    labels = np.zeros(len(points), dtype=np.int64)
    patterns, pattern_of = np.unique(admissible, axis=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        candidates = np.flatnonzero(pattern[region])
        members = np.flatnonzero(pattern_of.reshape(-1) == number)
        chosen = _first_nearest(places[members], voxels[candidates], tolerance)
        found = chosen >= 0
        rows = region[candidates[chosen[found]]]
        labels[members[found]] = atlas.regions.index.to_numpy()[rows]
    return labels


def _voxel_places(points: Points, affine: Points) -> Points:
    inverse = np.linalg.inv(affine)
    places: Points = np.round(points @ inverse[:3, :3].T + inverse[:3, 3], DECIMALS)
    return places


def _voxels_in_raster_order(atlas: Atlas) -> tuple[Points, NDArray[np.intp]]:
    """Indices (voxel, 3) of the labelled voxels, x running fastest, and the row of each one's region."""
    x, y, z = np.unravel_index(atlas.nodes, atlas.shape)
    order = np.lexsort((x, y, z))
    region = np.searchsorted(atlas.regions.index.to_numpy(), atlas.labels[order])
    return np.column_stack([x, y, z])[order].astype(np.float64), region


def _first_nearest(places: Points, voxels: Points, tolerance: float) -> NDArray[np.intp]:
    """Position of the nearest voxel, of equally near ones the first; -1 if none is within the tolerance."""
    chosen = np.full(len(places), -1, dtype=np.intp)
    near = _near(places, voxels, tolerance)
    if not len(places) or not len(near):
        return chosen
    tree = search_tree(voxels[near], balanced_tree=False, compact_nodes=False)
    distance, _ = tree.query(places, distance_upper_bound=tolerance + 1)
    within = np.flatnonzero(distance <= tolerance + EQUAL)
    balls = tree.query_ball_point(places[within], distance[within] + EQUAL)
    chosen[within] = near[[min(ball) for ball in balls]] if len(within) else []
    return chosen


def _near(places: Points, voxels: Points, tolerance: float) -> NDArray[np.intp]:
    """Positions of the voxels in the box around the places, so that the tree is small."""
    if not len(places):
        return np.zeros(0, dtype=np.intp)
    low, high = places.min(axis=0) - tolerance - 1, places.max(axis=0) + tolerance + 1
    return np.flatnonzero(((voxels >= low) & (voxels <= high)).all(axis=1))
