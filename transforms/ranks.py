"""Values with the order of each gene's samples, by which quantiles of any of these are found without a sort.

Atlases and choices that share normalised samples differ in which of them they go on with. A gene's samples
are put into order once; median, quartiles and extremes of some of them are then met on a walk along it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transforms import compiled

Floats = NDArray[np.float64]

MOST_SAMPLES = 2**16  # that the numbers of the order count


@dataclass(frozen=True, eq=False)
class Ranked:
    """Values of some genes, and in which order they ascend.

    Attributes
    ----------
    values : (gene, sample) float64 array
    order : (gene, sample) uint16 array
        Samples from the lowest value to the highest; those without a value come last.
    """

    values: Floats
    order: NDArray[np.uint16]

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the values."""
        return self.values.shape

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, key: Any) -> Floats:
        """Some of the values, as an array is sliced."""
        part: Floats = self.values[key]
        return part


@dataclass(frozen=True, eq=False)
class Picked:
    """Sorted vectors of which only some places are known; sliced along the last axis as the whole would be.

    Attributes
    ----------
    shape : (int, int)
        Of the whole.
    places : (place,) int array
        Ascending.
    values : (vector, place) float64 array
    """

    shape: tuple[int, int]
    places: NDArray[np.intp]
    values: Floats

    def __getitem__(self, key: tuple[Any, int | slice]) -> Floats:
        """``[..., place]`` or ``[..., first:end]``, of places that are known."""
        places = np.atleast_1d(np.arange(self.shape[1])[key[1]])
        found = self.values[:, self.columns_of(places)]
        return found if isinstance(key[1], slice) else found[:, 0]

    def columns_of(self, places: NDArray[np.intp]) -> NDArray[np.intp]:
        """Which columns of the values hold these places."""
        return np.searchsorted(self.places, places)


def ranked(block: Any) -> Ranked | Floats:
    """Values, (gene, sample), with their order; alone where there are more samples than it counts."""
    values = np.ascontiguousarray(block[:])
    if not 0 < values.shape[1] <= MOST_SAMPLES:
        return values
    return Ranked(values, np.argsort(values, axis=1).astype(np.uint16))


def pick(values: Floats, order: NDArray[np.uint16], members: Any, places: Sequence[int]) -> Picked:
    """Values at some places of the sorted values of some samples.

    Parameters
    ----------
    values : (gene, sample) float64 array
    order : (gene, sample) uint16 array
        As in `Ranked`.
    members : (member,) int array, or slice
        The samples, each once.
    places : sequence of int
        Counted from 0, the last one among them: a gene is NaN throughout where a member is.

    Returns
    -------
    Picked
    """
    is_member = np.zeros(values.shape[1], dtype=np.uint8)
    is_member[members] = 1
    count, wanted = int(is_member.sum()), np.unique(np.asarray(places, dtype=np.intp))
    picked = np.empty((len(values), len(wanted)))
    if compiled.scaling is not None and values.dtype == np.float64 and values.flags.c_contiguous:
        compiled.scaling.pick(values, order, is_member, wanted, picked)
    else:
        ordered = order[is_member.view(np.bool_)[order]].reshape(len(values), count)
        picked[:] = np.take_along_axis(values, ordered[:, wanted].astype(np.intp), axis=1)
    picked[np.isnan(picked[:, -1])] = np.nan
    return Picked((len(values), count), wanted, picked)
