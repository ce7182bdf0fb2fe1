"""How far regions are from each other: between centroids, between their samples, along the cortical surface.

Coexpression falls off with distance, so studies correct for it (:mod:`transforms.distance_correction`).
abagen measures between parcel centroids, AHBAprocessing (Arnatkeviciute et al. 2019, NeuroImage 189:353)
between the mean coordinates of the regions' samples, or along the surface.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from transforms.atlas import Atlas
from transforms.errors import ChoiceError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]

MNI = ["mni_x", "mni_y", "mni_z"]
# Regions whose distances to every vertex are in memory at once.
SOURCES_AT_ONCE = 64
EDGES_OF_TRIANGLE = ((0, 1), (1, 2), (2, 0))


def region_distances(
    atlas: Atlas,
    *,
    method: str = "centroids",
    samples: pd.DataFrame | None = None,
    labels: ArrayLike | None = None,
    cross_unlabelled: bool = False,
) -> pd.DataFrame:
    """Distance between all pairs of regions.

    Parameters
    ----------
    atlas : Atlas
    method : {"centroids", "samples", "surface"}
        ``centroids``: Euclidean, between the regions' centroids (abagen).
        ``samples``: Euclidean, between the mean coordinates of the samples of each region, whichever donor
        they are of (AHBAprocessing, which takes the published coordinates).
        ``surface``: shortest path along the mesh between the regions' centroid vertices, see `surface_graph`.
        A region's centroid vertex is the labelled vertex nearest to the mean of its vertices, as in abagen;
        in a strongly curved region it may be another region's.
    samples : pandas.DataFrame, optional
        For ``samples``: ``mni_x/y/z`` in mm, the coordinates to measure between.
    labels : (sample,) integer array, optional
        For ``samples``: region of each of `samples`; 0 is unassigned.
    cross_unlabelled : bool
        For ``surface``: whether paths may run over vertices of no region (the medial wall). abagen's paths
        do not.

    Returns
    -------
    pandas.DataFrame
        Region x region, mm, symmetric, 0 on the diagonal. NaN where no distance is defined: to and from a
        region without samples; between regions that no path joins, so those of different hemispheres.

    Raises
    ------
    ChoiceError
        If the method is unknown, or the atlas or the samples do not fit it.
    """
    if method not in REGION_DISTANCES:
        raise ChoiceError(f"Unknown region distance {method!r}: choose {', '.join(REGION_DISTANCES)}.")
    table = REGION_DISTANCES[method](_Request(atlas, samples, labels, cross_unlabelled))
    regions = pd.Index(atlas.regions.index.to_numpy(), name="label")
    return pd.DataFrame(table, index=regions, columns=regions.rename(None))


class _Request(NamedTuple):
    atlas: Atlas
    samples: pd.DataFrame | None
    labels: ArrayLike | None
    cross_unlabelled: bool


def _between_centroids(request: _Request) -> Floats:
    return _euclidean(request.atlas.centroids)


def _between_samples(request: _Request) -> Floats:
    if request.samples is None or request.labels is None:
        raise ChoiceError("Distances between samples take samples (mni_x/y/z) and labels, their regions.")
    labels = np.asarray(request.labels)
    if labels.shape != (len(request.samples),):
        raise ChoiceError(f"There are {len(request.samples)} samples, but labels for {labels.shape}.")
    means = request.samples[MNI].groupby(labels).mean().drop(index=0, errors="ignore")
    unknown = means.index.difference(request.atlas.regions.index)
    if len(unknown):
        raise ChoiceError(f"Samples lie in region {unknown[0]}, which atlas {request.atlas.name!r} lacks.")
    return _euclidean(means.reindex(request.atlas.regions.index).to_numpy(dtype=np.float64))


def _along_surface(request: _Request) -> Floats:
    atlas = request.atlas
    if atlas.vertices is None or atlas.triangles is None:
        raise ChoiceError(
            f"Atlas {atlas.name!r} is a volume: distances along a surface take a surface atlas."
        )
    allowed = np.zeros(len(atlas.vertices), dtype=bool)
    allowed[atlas.nodes] = True
    graph = surface_graph(
        atlas.vertices, atlas.triangles, allowed=None if request.cross_unlabelled else allowed
    )
    return path_lengths(graph, atlas.nodes[atlas.tree.query(atlas.centroids)[1]])


REGION_DISTANCES: dict[str, Callable[[_Request], Floats]] = {
    "centroids": _between_centroids,
    "samples": _between_samples,
    "surface": _along_surface,
}
"""Ways to measure the distance between regions, by name."""


def _euclidean(places: Floats) -> Floats:
    """Distances between all pairs of places; NaN to and from a place that is NaN."""
    from scipy.spatial.distance import cdist

    distances: Floats = cdist(places, places)
    return distances


# Along a mesh -----------------------------------------------------------------------------------------------


def surface_graph(
    vertices: Floats, triangles: Integers, *, allowed: Booleans | None = None
) -> sparse.csr_array:
    """Graph of a triangle mesh for shortest paths, weighted as abagen weights it.

    Vertices are joined along the edges of triangles (their length), and across each edge that exactly two
    triangles share: the far corners of the two, over the point midway between the feet of their
    perpendiculars onto the edge.

    Parameters
    ----------
    vertices : (vertex, 3) float64 array
        Places in mm.
    triangles : (triangle, 3) integer array
        Indices into `vertices`.
    allowed : (vertex,) bool array, optional
        Vertices that paths may touch; all if left out.

    Returns
    -------
    (vertex, vertex) scipy.sparse.csr_array
        Lengths in mm, upper triangle, to be read as undirected. Where two vertices are joined in several
        ways the shortest counts; abagen adds the lengths up, which happens on meshes with vertices of three
        or four neighbours (fsaverage has none).
    """
    ends, lengths = _joins(vertices, triangles)
    if allowed is not None:
        kept = allowed[ends].all(axis=1)
        ends, lengths = ends[kept], lengths[kept]
    order = np.lexsort((lengths, ends[:, 1], ends[:, 0]))
    ends, lengths = ends[order], lengths[order]
    first = np.ones(len(ends), dtype=bool)
    first[1:] = (ends[1:] != ends[:-1]).any(axis=1)
    size = len(vertices)
    return sparse.csr_array((lengths[first], (ends[first, 0], ends[first, 1])), shape=(size, size))


def path_lengths(graph: sparse.csr_array, nodes: Integers) -> Floats:
    """Lengths of the shortest paths between chosen nodes of an undirected graph.

    Parameters
    ----------
    graph : (vertex, vertex) sparse array
        As `surface_graph` gives it.
    nodes : (node,) integer array

    Returns
    -------
    (node, node) float64 array
        In the graph's unit, symmetric; NaN where no path joins two nodes.
    """
    from scipy.sparse.csgraph import dijkstra

    lengths = np.empty((len(nodes), len(nodes)))
    for start in range(0, len(nodes), SOURCES_AT_ONCE):
        rows = slice(start, start + SOURCES_AT_ONCE)
        lengths[rows] = dijkstra(graph, directed=False, indices=nodes[rows])[:, nodes]
    # A path's sum depends in its last bit on the end one starts from.
    lengths = np.minimum(lengths, lengths.T)
    lengths[np.isinf(lengths)] = np.nan
    return lengths


def _joins(vertices: Floats, triangles: Integers) -> tuple[Integers, Floats]:
    """Pairs of vertices (ascending within a pair) that are joined, perhaps more than once, and lengths."""
    edges, opposite = _edges_of(triangles)
    direct = np.linalg.norm(vertices[edges[:, 0]] - vertices[edges[:, 1]], axis=1)
    shared, corners = _shared_edges(edges, opposite)
    across = _lengths_across(vertices[shared], vertices[corners])
    return np.concatenate([edges, np.sort(corners, axis=1)]), np.concatenate([direct, across])


def _edges_of(triangles: Integers) -> tuple[Integers, Integers]:
    """Three edges a triangle, (edge, 2) with the lower vertex first, and the corner opposite of each."""
    edges = np.concatenate([triangles[:, list(ends)] for ends in EDGES_OF_TRIANGLE])
    opposite = np.concatenate([triangles[:, 3 - sum(ends)] for ends in EDGES_OF_TRIANGLE])
    return np.sort(edges, axis=1), opposite


def _shared_edges(edges: Integers, opposite: Integers) -> tuple[Integers, Integers]:
    """Edges that exactly two triangles have, and the two corners opposite, each (shared, 2)."""
    unique, group, counts = np.unique(edges, axis=0, return_inverse=True, return_counts=True)
    order = np.argsort(group.reshape(-1), kind="stable")
    starts = (np.cumsum(counts) - counts)[counts == 2]
    corners = opposite[order[starts[:, np.newaxis] + np.arange(2)]]
    apart = corners[:, 0] != corners[:, 1]
    return unique[counts == 2][apart], corners[apart]


def _lengths_across(shared: Floats, corners: Floats) -> Floats:
    """Length from corner to corner over a shared edge; both arrays (edge, 2, 3) in mm."""
    start, along = shared[:, :1], shared[:, 1:] - shared[:, :1]
    position = ((corners - start) * along).sum(axis=2, keepdims=True) / np.square(along).sum(
        axis=2, keepdims=True
    )
    middle = start + position.mean(axis=1, keepdims=True) * along
    lengths: Floats = np.linalg.norm(corners - middle, axis=2).sum(axis=1)
    return lengths
