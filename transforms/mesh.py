"""Distance along a surface mesh: a graph of its vertices, weighted by their distance on the surface.

Edges join the two ends of a triangle's side, and the two vertices opposite to a side that two triangles
share. Without the second kind a shortest path zigzags along sides and comes out some 10 % too long.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def mesh_graph(vertices: Floats, triangles: Integers, nodes: Integers) -> sparse.csr_array:
    """Graph of some of a mesh's vertices, as abagen builds it (``surfaces.make_surf_graph``).

    A path across a side that two triangles share is taken through the middle between the feet of their
    heights on that side.

    Parameters
    ----------
    vertices : (vertex, 3) float64 array
        Places in mm.
    triangles : (triangle, 3) int array
        Indices into `vertices`.
    nodes : (node,) int array
        The vertices to keep; no path leads through others.

    Returns
    -------
    (node, node) sparse array
        Lengths in mm, each edge in one direction; of two edges between the same nodes the shorter.
    """
    sides, across = _sides(triangles)
    edges = [np.unique(sides, axis=0), across[:, :2]]
    ends = np.concatenate(edges)
    lengths = np.concatenate([_lengths(vertices, edges[0]), _lengths_across(vertices, across)])
    position = np.full(len(vertices), -1)
    position[nodes] = np.arange(len(nodes))
    ends = np.sort(position[ends], axis=1)
    order = np.lexsort((lengths, ends[:, 1], ends[:, 0]))
    order = order[ends[order, 0] >= 0]
    ends, first = np.unique(ends[order], axis=0, return_index=True)
    return sparse.csr_array((lengths[order][first], ends.T), shape=(len(nodes), len(nodes)))


def _sides(triangles: Integers) -> tuple[Integers, Integers]:
    """Sides of all triangles, smaller vertex first; and (apex, apex, end, end) of each side that two share."""
    sides = np.sort(triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    apex = triangles[:, [2, 0, 1]].ravel()
    _, group, count = np.unique(sides, axis=0, return_inverse=True, return_counts=True)
    order = np.argsort(group.ravel(), kind="stable")
    pairs = order[(count == 2)[group.ravel()[order]]].reshape(-1, 2)
    return sides, np.column_stack([apex[pairs], sides[pairs[:, 0]]])


def _lengths(vertices: Floats, edges: Integers) -> Floats:
    lengths: Floats = np.linalg.norm(vertices[edges[:, 1]] - vertices[edges[:, 0]], axis=1)
    return lengths


def _lengths_across(vertices: Floats, across: Integers) -> Floats:
    """Length of the path from one apex to the other, through the middle of the feet of the two heights."""
    apices = vertices[across[:, :2]]
    start, end = vertices[across[:, 2]][:, None], vertices[across[:, 3]][:, None]
    along = ((start - end) * (apices - end)).sum(axis=-1) / np.square(start - end).sum(axis=-1)
    feet = end + along[..., None] * (start - end)
    middle = feet.sum(axis=1, keepdims=True) / 2
    lengths: Floats = np.linalg.norm(apices - middle, axis=-1).sum(axis=1)
    return lengths
