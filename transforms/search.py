"""Search trees over places.

A volume in MNI space needs none, and scipy.spatial takes a fiftieth of a run to load: it is loaded when the
first tree is built.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy.spatial import cKDTree


def search_tree(places: NDArray[np.floating[Any]], **options: Any) -> "cKDTree":
    """Build a tree that finds the places nearest to others; `options` are those of scipy's cKDTree."""
    from scipy.spatial import cKDTree

    return cKDTree(places, **options)
