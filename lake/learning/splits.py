"""Which rows are learnt from and which are held back: by donor, by place, at random.

Neighbouring samples of a brain are alike, and samples of one donor share a brain and a batch: a random split
says how well a model interpolates, not how it does elsewhere, or in somebody else.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from lake.errors import RequestError
from lake.learning.order import shuffled

Mask = NDArray[np.bool_]
Parts = tuple[Mask, Mask]
"""Rows to learn from, and rows held back."""

RANDOM, SPACE = 1, 2
"""Second seeds: a split shares its seed with no other kind."""


def by_donor(donor: NDArray[np.object_], test: str | Sequence[str]) -> Parts:
    """Hold back some donors.

    Parameters
    ----------
    donor : (row,) array of str
    test : str or sequence of str
        Donors to hold back.

    Raises
    ------
    RequestError
        If one of them has no row, or none is left to learn from.
    """
    names = {test} if isinstance(test, str) else {str(name) for name in test}
    if unknown := sorted(names - set(donor)):
        raise RequestError(
            f"Donor {', '.join(unknown)} has no row; there are {', '.join(sorted(set(donor)))}."
        )
    held = np.isin(donor.astype(str), sorted(names))
    return _checked((~held, held), "donors")


def at_random(n: int, fraction: float, seed: int) -> Parts:
    """Hold back a share of the rows, drawn at random.

    Raises
    ------
    RequestError
        If the share or the seed makes no sense, or one of the parts is empty.
    """
    held = np.zeros(n, bool)
    held[shuffled(n, _checked_seed(seed), RANDOM)[: round(n * _checked_fraction(fraction))]] = True
    return _checked((~held, held), "rows")


def by_space(
    coordinates: NDArray[np.float64], *, fraction: float, margin: float, size: float, seed: int
) -> Parts:
    """Hold back cubes of space, and keep their neighbourhood out of what is learnt from.

    Parameters
    ----------
    coordinates : (row, 3) float array
        In mm.
    fraction : float
        Share of the rows to hold back; as many cubes are drawn as it takes.
    margin : float
        mm: no row to learn from lies this near, or nearer, to one that is held back. Rows between belong to
        neither part.
    size : float
        Edge of the cubes in mm.
    seed : int

    Returns
    -------
    tuple of (row,) bool array

    Raises
    ------
    RequestError
        If a number makes no sense, a row has no coordinates, or one of the parts is empty.
    """
    if not np.isfinite(coordinates).all():
        raise RequestError("Some rows have no coordinates: leave them out (Feed.where), or split otherwise.")
    if not (np.isfinite(margin) and margin >= 0 and np.isfinite(size) and size > 0):
        raise RequestError(f"margin={margin!r}, size={size!r}: mm are needed, and a size above 0.")
    cubes, cube, counts = np.unique(
        np.floor(coordinates / size), axis=0, return_inverse=True, return_counts=True
    )
    drawn = shuffled(len(cubes), _checked_seed(seed), SPACE)
    wanted = max(1, round(len(coordinates) * _checked_fraction(fraction)))
    n_drawn = int(np.searchsorted(np.cumsum(counts[drawn]), wanted)) + 1
    held = np.isin(cube.reshape(-1), drawn[:n_drawn])
    distance, _ = KDTree(coordinates[held]).query(coordinates)
    return _checked((distance > margin, held), "cubes: choose a smaller fraction, size or margin")


def _checked_fraction(fraction: float) -> float:
    if not 0 < fraction < 1:
        raise RequestError(f"fraction={fraction!r}: a share between 0 and 1 is needed.")
    return fraction


def _checked_seed(seed: int) -> int:
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise RequestError(f"seed={seed!r}: a whole number, 0 or more, is needed.")
    return int(seed)


def _checked(parts: Parts, what: str) -> Parts:
    for part, name in zip(parts, ("learn from", "hold back"), strict=True):
        if not part.any():
            raise RequestError(f"No row is left to {name} after splitting by {what}.")
    return parts
