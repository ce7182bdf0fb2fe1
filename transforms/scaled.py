"""A donor's values with what normalises each gene, which is done to the samples that are asked for.

Normalised values are used once, to make regions of them, and often a part of them only: samples outside all
regions matter for what a gene is normalised by, not for what comes of it. So they are not written down.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from transforms import compiled
from transforms.blocks import as_slice, take_columns
from transforms.ranks import pick
from transforms.scaling import (
    FITS_TO_SORTED,
    QUANTILES,
    Scaling,
    fit_robust_sigmoid,
    fit_scaled_robust_sigmoid,
    joined,
    linear,
    ordered_values,
    quartile_shares,
    robust_places,
    undefined_is_nan,
)

Floats = NDArray[np.float64]
Positions = NDArray[np.integer]
Fit = Callable[[Floats], Scaling]

LINEAR, LOGISTIC, SCALED_LOGISTIC, AS_THEY_ARE = range(4)  # as the kernels number functions

# Values sorted, and scaled, before the next ones are: 2 MiB, which stays in a core's cache in between. With
# their order known it makes no difference.
VALUES_AT_ONCE = 2**18

# The function that a fit by order ends in, and how many numbers that takes.
BY_ORDER: dict[Callable[..., Scaling], tuple[int, int]] = {
    fit_robust_sigmoid: (LOGISTIC, 2),
    fit_scaled_robust_sigmoid: (SCALED_LOGISTIC, 4),
}

WALKED = 4  # samples along which a gene's order is walked in the time in which one is sorted


@dataclass(frozen=True, eq=False)
class Groups:
    """Which samples each gene is scaled over, group by group: the same for every block of a donor's genes.

    Attributes
    ----------
    columns : (sample,) int array
        Which columns of a matrix the samples are.
    members : sequence of (member,) int array
        The samples of each group; one that is in no group is left without a value.
    """

    columns: Positions
    members: Sequence[Positions]
    _orders: dict[bytes, "_Order"] = field(default_factory=dict)
    _picks: dict[int, "_Picks"] = field(default_factory=dict)

    @classmethod
    def of(cls, columns: Positions, classes: NDArray[Any] | None = None) -> "Groups":
        """All samples as one group, or those of each class by themselves; the class ``""`` is none."""
        if classes is None:
            return cls(columns, [np.arange(len(columns))] if len(columns) else [])
        names = np.unique(np.asarray(classes))
        return cls(columns, [np.flatnonzero(classes == name) for name in names[names != ""]])

    def without(self, missing: NDArray[np.bool_]) -> "Groups":
        """The same without some samples, and without groups of which none is left."""
        if not missing.any():
            return self
        left = [members[~missing[members]] for members in self.members]
        return Groups(self.columns, [members for members in left if len(members)])

    @cached_property
    def alone(self) -> "Groups":
        """The same of a matrix that has these samples only, in their order."""
        return Groups(np.arange(len(self.columns)), self.members)

    @cached_property
    def at(self) -> Positions | slice:
        """The columns, as a slice where they follow each other."""
        return as_slice(self.columns)

    @cached_property
    def own_columns(self) -> list[Positions | slice]:
        """The columns of each group."""
        return [as_slice(self.columns[members]) for members in self.members]

    @cached_property
    def smallest(self) -> int:
        """How many samples the smallest group has."""
        return min(map(len, self.members), default=0)

    def picks(self, n_columns: int) -> "_Picks":
        """What robust sigmoids are fitted to, by the order of so many columns."""
        if n_columns not in self._picks:
            self._picks[n_columns] = _Picks.of(self, n_columns)
        return self._picks[n_columns]

    @cached_property
    def _group(self) -> Positions:
        """The group of each sample, -1 for none."""
        group = np.full(len(self.columns), -1)
        for number, members in enumerate(self.members):
            group[members] = number
        return group

    def ordered(self, samples: Positions) -> "_Order":
        """Some samples, group by group; looked up where they were asked for before."""
        key = samples.tobytes()
        if key not in self._orders:
            self._orders[key] = self._ordered(samples)
        return self._orders[key]

    def _ordered(self, samples: Positions) -> "_Order":
        group = self._group[samples]
        places = np.argsort(group, kind="stable")[np.count_nonzero(group < 0) :].astype(np.intp, copy=False)
        sizes = np.bincount(group[places], minlength=len(self.members))
        starts = np.append(0, np.cumsum(sizes)).astype(np.intp)
        return _Order(self.columns[samples[places]].astype(np.intp, copy=False), places, starts)


@dataclass(frozen=True, eq=False)
class Scaled:
    """Values of which groups of samples are scaled in ways fitted to each gene of each group.

    Attributes
    ----------
    values : (gene, column) float64 array
    groups : Groups
    fit : callable
        Of `transforms.scaling.FITS`.
    order : (gene, column) uint16 array or None
        In which the values ascend, see `transforms.ranks`: nothing is sorted then.
    """

    values: Floats
    groups: Groups
    fit: Fit
    order: NDArray[np.uint16] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """How many genes and samples there are."""
        return len(self.values), len(self.groups.columns)

    def __len__(self) -> int:
        return len(self.values)

    @property
    def array(self) -> Floats:
        """All of them scaled, (gene, sample)."""
        return self.take(np.arange(self.shape[1]))

    def take(self, samples: Positions, axis: int = 1) -> Floats:  # noqa: ARG002 - as that of arrays
        """Some samples, scaled: (gene, taken) float64; NaN for those of no group."""
        taken = np.full((len(self), len(samples)), np.nan)
        if compiled.scaling is not None and self.is_for_kernels:
            compiled.scaling.scaled_columns(*self.part(samples, np.arange(len(samples))), taken)
            return taken
        order = self.groups.ordered(samples)
        for genes, scalings in self._scalings():
            for places, scaling in zip(order.of_groups(), scalings, strict=True):
                own = self.groups.columns[samples[places]]
                taken[genes, places] = scaling(self.values[genes].take(own, axis=1))
        return taken

    def part(self, samples: Positions, places: Positions) -> "_Part":
        """What kernels take for some samples, and where they go."""
        order = self.groups.ordered(samples)
        return self.values, *self._parameters, order.columns, places[order.places], order.starts

    def by_order(self, samples: Positions) -> tuple[Any, ...]:
        """What kernels take for some samples where every group is fitted by the order of the values."""
        picks, (function, n_numbers) = self.groups.picks(self.values.shape[1]), BY_ORDER[self.fit]
        fitted = np.empty((len(self.groups.members), 1, n_numbers))
        return self.values, self.order, *picks, function, fitted, *self.groups.ordered(samples)

    @cached_property
    def _parameters(self) -> tuple[int, Floats]:
        """The number of the function in the kernels, and (group, gene, parameter)."""
        return _parameters(
            [joined(list(of_group)) for of_group in zip(*(s for _, s in self._scalings()), strict=True)]
        )

    def _scalings(self) -> Iterator[tuple[slice, list[Scaling]]]:
        """Some genes after the other, and the scaling of each group."""
        size = max(1, VALUES_AT_ONCE // self.values.shape[1]) if self.order is None else len(self)
        for first in range(0, len(self), size):
            genes = slice(first, first + size)
            yield genes, [self._fit(genes, columns) for columns in self.groups.own_columns]

    def _fit(self, genes: slice, columns: Positions | slice) -> Scaling:
        """A group's scaling of some genes; by their order where it is known and much of it is the group's."""
        values, fit_to_sorted = self.values[genes], FITS_TO_SORTED.get(self.fit)
        if fit_to_sorted is None:
            return self.fit(self._chosen(values, columns))
        count = columns.stop - columns.start if isinstance(columns, slice) else len(columns)
        if self.order is not None and WALKED * count >= values.shape[1]:
            return fit_to_sorted(pick(values, self.order[genes], columns, robust_places(count)))
        chosen = self._chosen(values, columns)
        return fit_to_sorted(ordered_values(chosen, in_place=chosen.base is None))

    def _chosen(self, values: Floats, columns: Positions | slice) -> Floats:
        """Columns as a matrix of their own; by a kernel in half of NumPy's time."""
        if compiled.scaling is None or not self.is_for_kernels or isinstance(columns, slice):
            return take_columns(values, columns)
        chosen = np.empty((len(values), len(columns)))
        compiled.scaling.scaled_columns(values, *_as_they_are(columns, np.arange(len(columns))), chosen)
        return chosen

    @property
    def is_by_order(self) -> bool:
        """Whether every group is fitted by the order of the values."""
        walks = WALKED * self.groups.smallest >= self.values.shape[1]
        return self.order is not None and self.fit in BY_ORDER and walks

    @cached_property
    def is_for_kernels(self) -> bool:
        """Whether the values are as kernels take them."""
        return self.values.dtype == np.float64 and self.values.flags.c_contiguous


@dataclass(frozen=True, eq=False)
class SideBySide:
    """Values of several donors' samples as those of one, without a copy.

    Attributes
    ----------
    parts : sequence of (gene, sample) float64 arrays, or Scaled
        Of the same genes.
    """

    parts: Sequence["Floats | Scaled"]

    @property
    def shape(self) -> tuple[int, int]:
        """How many genes and samples there are."""
        return len(self), sum(part.shape[1] for part in self.parts)

    def __len__(self) -> int:
        return len(self.parts[0])

    @cached_property
    def array(self) -> Floats:
        """All of them, (gene, sample)."""
        return np.concatenate([as_array(part) for part in self.parts], axis=1)

    def take(self, samples: Positions, axis: int = 1) -> Floats:
        """Some samples: (gene, taken) float64."""
        return self.array.take(samples, axis=axis)


class _Order(NamedTuple):
    """Samples group by group.

    Attributes
    ----------
    columns, places : (sample,) int array
        Of the values, and among the samples asked for.
    starts : (group + 1,) int array
    """

    columns: Positions
    places: Positions
    starts: Positions

    def of_groups(self) -> list[Positions]:
        """Places of each group."""
        return np.split(self.places, self.starts[1:-1])


_Part = tuple[Floats, int, Floats, Positions, Positions, Positions]
"""Values, function, parameters, columns, places, groups' starts: as `_scaling.scaled_columns` takes them."""


class _Picks(NamedTuple):
    """What kernels take to fit robust sigmoids by an order, group by group.

    Attributes
    ----------
    is_member : (group, column) uint8 array
    wanted, roles : (group, 8) int array
        Places among a group's sorted values, ascending; and which of these are `robust_places`, one by one.
    shares : (group, 2) float64 array
    normal_iqr : float
    """

    is_member: NDArray[np.uint8]
    wanted: Positions
    roles: Positions
    shares: Floats
    normal_iqr: float

    @classmethod
    def of(cls, groups: Groups, n_columns: int) -> "_Picks":
        """Of groups of the columns of a matrix."""
        is_member = np.zeros((len(groups.members), n_columns), dtype=np.uint8)
        for row, columns in zip(is_member, groups.own_columns, strict=True):
            row[columns] = 1
        counts = [len(members) for members in groups.members]
        places = np.array([robust_places(count) for count in counts], dtype=np.intp)
        wanted = np.sort(places, axis=1)
        roles = np.array([np.searchsorted(row, own) for row, own in zip(wanted, places, strict=True)])
        shares = np.array([quartile_shares(count) for count in counts])
        return cls(is_member, wanted, roles, shares, QUANTILES["linear"].normal_iqr)


@undefined_is_nan
def _parameters(scalings: list[Scaling]) -> tuple[int, Floats]:
    """The number of their function in the kernels, and (group, gene, parameter)."""
    known = [list(scaling.numbers().values()) for scaling in scalings]
    is_linear = scalings[0].function is linear
    for own in known:
        if len(own) == 1:
            own.append(np.ones_like(own[0]))  # to divide by 1 changes nothing
        elif not is_linear:
            own[1] = 1 / own[1]
    logistic = LOGISTIC if scalings[0].low is None else SCALED_LOGISTIC
    return LINEAR if is_linear else logistic, np.array([np.hstack(own) for own in known])


def _as_they_are(
    columns: Positions, places: Positions
) -> tuple[int, Floats, Positions, Positions, Positions]:
    """What kernels take for columns that are not scaled, and where they go."""
    nothing, order = np.empty((1, 1, 1)), columns.astype(np.intp, copy=False)
    return AS_THEY_ARE, nothing, order, places, np.array([0, len(columns)])


def of_regions(
    values: Floats | Scaled | SideBySide, samples: Positions, starts: Positions, *, medians: bool
) -> Floats | None:
    """Mean or median over the samples of each region, ``samples[starts[r]:starts[r + 1]]``, NaN left out.

    (gene, region) float64; None without kernels.
    """
    if compiled.scaling is None or not _are_for_kernels(values):
        return None
    table = np.empty((len(values), len(starts) - 1))
    if isinstance(values, Scaled) and values.is_by_order:
        compiled.scaling.regions_by_order(*values.by_order(samples), starts, medians, table)
    else:
        parts = list(_parts(values, samples, np.arange(len(samples))))
        compiled.scaling.regions_of_scaled(parts, starts, medians, table)
    return table


def _are_for_kernels(values: Floats | Scaled | SideBySide) -> bool:
    if isinstance(values, SideBySide):
        return all(map(_are_for_kernels, values.parts))
    return not isinstance(values, Scaled) or values.is_for_kernels


def _parts(values: Floats | Scaled | SideBySide, samples: Positions, places: Positions) -> "Iterator[_Part]":
    """What kernels take for some samples, and where they go."""
    if isinstance(values, Scaled):
        yield values.part(samples, places)
    elif isinstance(values, SideBySide):
        first = 0
        for part in values.parts:
            own = np.flatnonzero((samples >= first) & (samples < first + part.shape[1]))
            yield from _parts(part, samples[own] - first, places[own])
            first += part.shape[1]
    else:
        yield np.ascontiguousarray(values, dtype=np.float64), *_as_they_are(samples, places)


def as_array(values: Floats | Scaled | SideBySide) -> Floats:
    """All values as numbers."""
    return values if isinstance(values, np.ndarray) else values.array
