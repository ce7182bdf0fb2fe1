"""Filling regions that no sample falls into (abagen's ``missing``).

A filled region's value is a weighted mean of samples that were taken elsewhere, so that both methods come
down to sparse weights (region x sample), which one product applies to the normalised values:

``centroids``
    A region empty in every donor takes from each donor the sample nearest to the region's centroid; the
    donors' samples are weighted by 1/distance.
``interpolate``
    In each donor, every voxel or vertex of a region empty in that donor takes the nearest sample; these are
    weighted by 1/distance.

Source: abagen 0.1.3 (Markello et al. 2021, eLife 10:e72129).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from transforms.atlas import Atlas
from transforms.distance import surface_graph
from transforms.samples import MNI
from transforms.scaled import Scaled
from transforms.search import search_tree

Integers = NDArray[np.int64]
Floats = NDArray[Any]  # float64, and on surfaces float32

DISTANCES_AT_ONCE = 2_000_000  # bounds the memory of a search
ROUNDING = 1e-12  # relative; distances closer than this are compared as scipy sums them
NO_REGIONS = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Sites:
    """One donor's samples as the filling sees them.

    Attributes
    ----------
    samples : pandas.DataFrame
        The samples left after normalisation: ``mni_x/y/z`` (mm), ``hemisphere``, ``structure``.
    labels : (sample,) int array
        Their regions, 0 for none. A donor without any sample in a region gives nothing.
    atlas : Atlas
        The donor's atlas.
    """

    samples: pd.DataFrame
    labels: Integers
    atlas: Atlas

    @property
    def points(self) -> NDArray[np.float64]:
        """(sample, 3) places in mm."""
        points: NDArray[np.float64] = self.samples[MNI].to_numpy(dtype=np.float64)
        return points

    @property
    def empty(self) -> Integers:
        """Regions of the atlas without a sample, ascending."""
        return np.setdiff1d(self.atlas.regions.index.to_numpy(), self.labels)


@dataclass(frozen=True, eq=False)
class Filling:
    """What one donor gives to regions without samples.

    Attributes
    ----------
    regions : (filled,) int array
        Region ids, ascending.
    weights : (filled, sample) sparse array
        Weights of the donor's samples.
    """

    regions: Integers
    weights: sparse.csr_array

    def apply(self, values: NDArray[np.float64] | Scaled) -> NDArray[np.float64]:
        """Weighted sums of (gene, sample) values: (gene, filled).

        A value that normalisation left undefined (NaN) counts as 0, as it does in abagen, whose sums leave
        it out of the numerator but not of the sum of the weights.
        """
        if not len(self.regions):
            return np.zeros((len(values), 0))
        samples, weights = self._used
        given = values.take(samples, axis=1)
        given[np.isnan(given)] = 0.0
        filled: NDArray[np.float64] = (weights @ given.T).T
        return filled

    @cached_property
    def _used(self) -> tuple[Integers, sparse.csr_array]:
        """The samples that have a weight, often a few of hundreds, and these weights."""
        samples = np.unique(self.weights.indices)
        return samples, self.weights[:, samples]


class Method(NamedTuple):
    """A way to fill empty regions."""

    fill: Callable[[Mapping[str, Sites]], dict[str, Filling]]
    """Donor -> its samples, to donor -> what it gives."""
    over_donors: bool
    """Whether the donors' sums add up to one value for all, instead of each filling its donor's regions."""


# Nearest to the centroid -----------------------------------------------------------------------------------


def fill_by_centroids(donors: Mapping[str, Sites]) -> dict[str, Filling]:
    """Give regions that are empty in every donor each donor's sample nearest to their centroid.

    With atlas info only samples of the region's hemisphere and structure count; a bilateral region so takes
    samples on the midline only, as in abagen. A region that no donor can fill stays empty.

    Parameters
    ----------
    donors : mapping of str to Sites

    Returns
    -------
    dict of str to Filling
        The same regions for each donor; the weights of a region sum to 1 over all donors.
    """
    empty = _empty_everywhere(list(donors.values()))
    found = {donor: _nearest_to_centroids(sites, empty) for donor, sites in donors.items()}
    weights = {donor: inverse_distance(distance) for donor, (_, distance) in found.items()}
    total = sum(weights.values(), np.zeros(len(empty)))
    kept = np.flatnonzero(total)
    return {
        donor: Filling(
            empty[kept],
            _one_sample_each(found[donor][0][kept], weight[kept] / total[kept], len(donors[donor].samples)),
        )
        for donor, weight in weights.items()
    }


def _empty_everywhere(donors: list[Sites]) -> Integers:
    empty = donors[0].empty
    for sites in donors[1:]:
        empty = np.intersect1d(empty, sites.empty)
    return empty


def _nearest_to_centroids(sites: Sites, regions: Integers) -> tuple[Integers, Floats]:
    """Nearest sample of each region, and its distance in mm: infinite where none may be taken."""
    if not sites.labels.any():
        return np.zeros(len(regions), dtype=np.int64), np.full(len(regions), np.inf)
    rows = np.searchsorted(sites.atlas.regions.index.to_numpy(), regions)
    distance = _distances(sites.atlas.centroids[rows], sites.points)
    for same, members in _givers(sites, regions):
        distance[np.ix_(members, np.flatnonzero(~same))] = np.inf
    nearest = distance.argmin(axis=1)
    return nearest, distance[np.arange(len(regions)), nearest]


def _one_sample_each(sample: Integers, weight: Floats, n_samples: int) -> sparse.csr_array:
    given = np.flatnonzero(weight)
    return sparse.csr_array((weight[given], (given, sample[given])), shape=(len(sample), n_samples))


# Every node its nearest sample -----------------------------------------------------------------------------


def fill_by_interpolation(donors: Mapping[str, Sites]) -> dict[str, Filling]:
    """Give every voxel or vertex of a region that is empty in a donor the donor's nearest sample.

    A sample stands at the labelled node nearest to it. Distance is straight in a volume, and along the mesh
    on a surface. With atlas info only samples of the region's hemisphere and structure count, and only if
    the region of their own node may take them. A region that no sample reaches stays empty.

    Parameters
    ----------
    donors : mapping of str to Sites

    Returns
    -------
    dict of str to Filling
        Each donor's own empty regions.
    """
    return {donor: _interpolate(sites) for donor, sites in donors.items()}


def _interpolate(sites: Sites) -> Filling:
    n_samples = len(sites.samples)
    if not sites.labels.any():
        return _nothing(sites)
    node = sites.atlas.tree.query(sites.points)[1]
    at_home = _may_stand(sites, node)
    rows: dict[int, Floats] = {}
    for same, members in _givers(sites, sites.empty):
        givers = np.flatnonzero(same & at_home)
        if len(givers):
            rows |= _interpolate_regions(sites.atlas, sites.empty[members], givers, node[givers], n_samples)
    regions = np.array(sorted(rows), dtype=np.int64)
    dense = np.array([rows[region] for region in regions]).reshape(len(regions), n_samples)
    return Filling(regions, sparse.csr_array(dense))


def _may_stand(sites: Sites, node: Integers) -> NDArray[np.bool_]:
    """Whether the region of its own node may take each sample; a bilateral region takes either side."""
    if not sites.atlas.has_info:
        return np.ones(len(node), dtype=bool)
    region = sites.atlas.regions.loc[sites.atlas.labels[node]]
    hemisphere, structure = (region[name].to_numpy(object) for name in ("hemisphere", "structure"))
    side = (hemisphere == sites.samples["hemisphere"].to_numpy(object)) | (hemisphere == "B")
    fits: NDArray[np.bool_] = side & (structure == sites.samples["structure"].to_numpy(object))
    return fits


def _interpolate_regions(
    atlas: Atlas, regions: Integers, givers: Integers, node: Integers, n_samples: int
) -> dict[int, Floats]:
    """Weights of all samples for each of the regions that one of the `givers` reaches."""
    wanted = np.flatnonzero(np.isin(atlas.labels, regions))
    first = np.sort(np.unique(node, return_index=True)[1])  # of samples on one node the first is nearest
    nearest, distance = _NEAREST[atlas.kind](atlas, wanted, node[first])
    sample, weight = givers[first][nearest], inverse_distance(distance)
    found = {}
    for region in regions:
        members = np.flatnonzero(atlas.labels[wanted] == region)
        total = weight[members].sum()  # float32 on surfaces, as the weights
        if total > 0:
            shares = np.bincount(sample[members], weights=weight[members], minlength=n_samples)
            found[int(region)] = shares / np.float64(total)
    return found


def _nearest_in_space(atlas: Atlas, nodes: Integers, places: Integers) -> tuple[Integers, Floats]:
    """The nearest of some nodes to each of `nodes`, the first of equals, and its distance in mm."""
    points, sites = atlas.coordinates[nodes], atlas.coordinates[places]
    distance, found = search_tree(sites).query(points, k=[1, 2])
    nearest = found[:, 0].astype(np.int64)
    contested = np.flatnonzero(distance[:, 1] <= distance[:, 0] * (1 + ROUNDING))
    size = max(1, DISTANCES_AT_ONCE // len(places))
    for start in range(0, len(contested), size):
        rows = contested[start : start + size]
        nearest[rows] = _distances(points[rows], sites).argmin(axis=1)
    return nearest, np.sqrt(np.square(sites[nearest] - points).sum(axis=1))


def _nearest_along_mesh(atlas: Atlas, nodes: Integers, places: Integers) -> tuple[Integers, Floats]:
    """As `_nearest_in_space`, but along the mesh; in float32, whose rounding makes ties, as abagen has it."""
    from scipy.sparse.csgraph import dijkstra

    graph = _graph(atlas)
    nearest = np.zeros(len(nodes), dtype=np.int64)
    distance = np.full(len(nodes), np.inf, dtype=np.float32)
    size = max(1, DISTANCES_AT_ONCE // graph.shape[0])
    for start in range(0, len(places), size):
        paths = dijkstra(graph, directed=False, indices=atlas.nodes[places[start : start + size]])
        between = paths[:, atlas.nodes[nodes]].astype(np.float32)
        closest = between.argmin(axis=0)
        shortest = between[closest, np.arange(len(nodes))]
        nearer = shortest < distance
        nearest[nearer], distance[nearer] = closest[nearer] + start, shortest[nearer]
    return nearest, distance


@lru_cache(maxsize=2)
def _graph(atlas: Atlas) -> sparse.csr_array:
    """Paths over the labelled part of a surface; kept, because all donors need it."""
    if atlas.vertices is None or atlas.triangles is None:
        raise TypeError(f"Atlas {atlas.name!r} has no mesh.")
    labelled = np.zeros(len(atlas.vertices), dtype=bool)
    labelled[atlas.nodes] = True
    return surface_graph(atlas.vertices, atlas.triangles, allowed=labelled)


_NEAREST: dict[str, Callable[[Atlas, Integers, Integers], tuple[Integers, Floats]]] = {
    "volume": _nearest_in_space,
    "surface": _nearest_along_mesh,
}


# Shared ----------------------------------------------------------------------------------------------------


def _givers(sites: Sites, regions: Integers) -> Iterator[tuple[NDArray[np.bool_], Integers]]:
    """Regions that may take the same samples: those samples, and the regions' positions in `regions`."""
    if not sites.atlas.has_info:
        yield np.ones(len(sites.samples), dtype=bool), np.arange(len(regions))
        return
    facts = ["hemisphere", "structure"]
    for kind, members in sites.atlas.regions.loc[regions].groupby(facts).indices.items():
        same = (sites.samples[facts].to_numpy(object) == np.array(kind, dtype=object)).all(axis=1)
        yield same, members


def _distances(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """(a, b) distances, summed x, y, z as scipy sums them: the last bit decides between equals."""
    squared = np.zeros((len(a), len(b)))
    for axis in range(3):
        squared += np.square(b[:, axis] - a[:, axis, None])
    distances: NDArray[np.float64] = np.sqrt(squared)
    return distances


def inverse_distance(distance: Floats) -> Floats:
    """Weights 1/distance, in the distances' own precision; distance 0 has weight 1, an infinite one 0."""
    with np.errstate(divide="ignore"):
        weight = 1 / distance
    weight[np.isinf(weight)] = 1
    return weight


def _leave_empty(donors: Mapping[str, Sites]) -> dict[str, Filling]:
    return {donor: _nothing(sites) for donor, sites in donors.items()}


def _nothing(sites: Sites) -> Filling:
    return Filling(NO_REGIONS, sparse.csr_array((0, len(sites.samples))))


MISSING: dict[str | None, Method] = {
    None: Method(_leave_empty, over_donors=False),
    "centroids": Method(fill_by_centroids, over_donors=True),
    "interpolate": Method(fill_by_interpolation, over_donors=False),
}
"""``missing`` -> how regions without samples are filled."""
