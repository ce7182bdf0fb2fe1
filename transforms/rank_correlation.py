"""Spearman's correlation of many profiles at once: rows of one matrix with the same rows of another.

Differential stability asks for it between all pairs of donors, each pair over the structures that both have.
Ranks are not sorted anew for every pair: each donor's profile is sorted once, and the rank of a structure
among those that a pair shares is the number of shared structures met up to it on a walk along the sorted
profile.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from transforms import compiled

Floats = NDArray[np.float64]
Integers = NDArray[np.integer]
Unsigned = NDArray[np.uint64]
Order = tuple[Unsigned, NDArray[np.bool_]]

_ROWS_AT_ONCE = 128  # so few that their ranks stay in the processor's cache
_WORD_BITS = 64  # that counts of several walks share


@dataclass(frozen=True, eq=False)
class Pair:
    """Two matrices (by number) and, for each, which of its columns the other has too (aligned).

    Attributes
    ----------
    matrices : (int, int)
    shared : pair of (shared,) int array
    places : pair of (column,) int32 array
        Of each: which of the shared columns a column is, or their number if it is none.
    """

    matrices: tuple[int, int]
    shared: tuple[Integers, Integers]
    places: tuple[NDArray[np.int32], NDArray[np.int32]]

    @classmethod
    def of(cls, numbers: tuple[int, int], names: Sequence[Integers]) -> "Pair":
        """Two of the matrices, whose columns have the names; a name is in a matrix once at most."""
        one, other = (names[number] for number in numbers)
        _, in_one, in_other = np.intersect1d(one, other, assume_unique=True, return_indices=True)
        return cls(numbers, (in_one, in_other), (_places(in_one, len(one)), _places(in_other, len(other))))


def _places(shared: Integers, n_columns: int) -> NDArray[np.int32]:
    places = np.full(n_columns, len(shared), np.int32)
    places[shared] = np.arange(len(shared), dtype=np.int32)
    return places


def pair_correlations(profiles: Sequence[Floats], pairs: Sequence[Pair]) -> Floats:
    """Spearman correlation of matching rows of each pair of matrices, over the columns that both have.

    Parameters
    ----------
    profiles : sequence of (profile, column) float64 array
    pairs : sequence of Pair

    Returns
    -------
    (profile, pair) float64 array
        -1 to 1, average ranks at ties; NaN where fewer than two columns are shared, or a row is constant in
        them or holds a NaN.
    """
    correlations = np.full((len(profiles[0]), len(pairs)), np.nan)
    untrusted = np.empty((len(profiles[0]), len(profiles)), np.bool_)
    plain = compiled.kernels is None or compiled.scores is None
    correlate = _correlate_by_numpy if plain else _correlate
    for first in range(0, len(correlations), _ROWS_AT_ONCE):
        part = slice(first, first + _ROWS_AT_ONCE)
        correlate([profile[part] for profile in profiles], pairs, correlations[part], untrusted[part])
    for number, pair in enumerate(pairs):
        slow = np.flatnonzero(untrusted[:, list(pair.matrices)].any(axis=1))
        if len(slow):
            both = zip(pair.matrices, pair.shared, strict=True)
            correlations[slow, number] = spearman(
                *(profiles[own][np.ix_(slow, shared)] for own, shared in both)
            )
    return correlations


def spearman(one: Floats, other: Floats) -> Floats:
    """Spearman correlation of matching rows, average ranks at ties; NaN if a row is constant or holds NaN."""
    if one.size == 0 or one.shape[1] < 2:
        return np.full(len(one), np.nan)
    ranks, others = (2 * pd.DataFrame(values).rank(axis=1).to_numpy() for values in (one, other))
    sums = ((left * right).sum(axis=1) for left, right in ((ranks, others), (ranks, ranks), (others, others)))
    return _rank_correlation(*sums, size=one.shape[1])


def _rank_correlation(
    products: NDArray[Any], squares: NDArray[Any], other_squares: NDArray[Any], *, size: Any
) -> Floats:
    """Pearson correlation of ranks 1..size, from the sums of products and squares of twice the ranks.

    These are whole numbers, below 2**53 for a hundred thousand ranks: no rounding depends on their order.
    """
    common = size * (size + 1) ** 2  # size times the square of twice the mean
    deviations = np.subtract(squares, common, dtype=np.float64) * np.subtract(other_squares, common)
    with np.errstate(invalid="ignore"):  # of a constant row
        correlation: Floats = (products - common) / np.sqrt(deviations)
    return correlation


# In C -------------------------------------------------------------------------------------------------------


class _Ordered(NamedTuple):
    """Columns of each row by ascending value, which of them equal the one before, and rows where one does."""

    columns: Unsigned
    same: NDArray[np.uint8]
    tied: NDArray[np.uint8]


def _correlate(
    profiles: Sequence[Floats], pairs: Sequence[Pair], correlations: Floats, untrusted: NDArray[np.bool_]
) -> None:
    """Correlate some rows, and mark those of each matrix that hold what is no number."""
    assert compiled.scores is not None  # noqa: S101 - narrows the type
    orders, marks = zip(*map(_ordered, profiles), strict=True)
    untrusted[:] = np.column_stack(marks)
    sizes = np.array([len(pair.shared[0]) for pair in pairs], np.int32)
    places = np.empty((len(pairs), 2, max(profile.shape[1] for profile in profiles)), np.int32)
    for pair, both in zip(pairs, places, strict=True):
        for own, known in zip(both, pair.places, strict=True):
            own[: len(known)] = known
    sums = np.empty((len(correlations), len(pairs), 3), np.int64)
    compiled.scores.rank_products(
        *map(list, zip(*orders, strict=True)),
        np.array([pair.matrices for pair in pairs], np.intp),
        places,
        sizes,
        np.empty(sizes.max() + 1, np.int32),
        sums,
    )
    compared = sizes > 1
    products, squares, other_squares = np.moveaxis(sums[:, compared], 2, 0)
    correlations[:, compared] = _rank_correlation(
        products, squares, other_squares, size=sizes[compared].astype(np.int64)
    )


def _ordered(profile: Floats) -> tuple[_Ordered, NDArray[np.bool_]]:
    """Put each row in order, and mark those that are not finite.

    NumPy sorts numbers four times as fast as it finds their order, so each value carries its column in its
    lowest bits.
    """
    assert compiled.kernels is not None  # noqa: S101 - narrows the type
    keys, same = np.empty(profile.shape, np.uint64), np.empty(profile.shape, np.uint8)
    infinite, tied = np.empty(len(profile), np.bool_), np.empty(len(profile), np.uint8)
    compiled.kernels.sortable(profile, keys, infinite.view(np.uint8))
    keys.view(np.float64).sort(axis=1)
    compiled.kernels.sorted_columns(profile, keys, same, tied)
    return _Ordered(keys, same, tied), infinite


# By NumPy ---------------------------------------------------------------------------------------------------


def _correlate_by_numpy(
    profiles: Sequence[Floats], pairs: Sequence[Pair], correlations: Floats, untrusted: NDArray[np.bool_]
) -> None:
    """Correlate some rows, and mark those of each matrix whose ranks are not to be trusted."""
    orders, marks = zip(*map(_order, profiles), strict=True)
    untrusted[:] = np.column_stack(marks)
    ranks = [_ranks_among_shared(matrix, order, pairs) for matrix, order in enumerate(orders)]
    for number, pair in enumerate(pairs):
        size = len(pair.shared[0])
        if size > 1:
            products = 4 * np.vecdot(*(ranks[matrix][number] for matrix in pair.matrices)).astype(np.int64)
            squares = np.full(len(products), 2 * size * (size + 1) * (2 * size + 1) // 3)
            correlations[:, number] = _rank_correlation(products, squares, squares, size=size)


def _order(profile: Floats) -> Order:
    """Column numbers by ascending value, and the rows where these are not to be trusted.

    Two values of such a row are equal or next to it, or one is not finite.
    """
    low = _low_bits(profile.shape[1])
    keys = (profile + 0.0).view(np.uint64)  # adding turns -0 into 0
    untrusted = np.asarray(~np.isfinite(profile).all(axis=1))
    keys &= ~low
    keys |= np.arange(profile.shape[1], dtype=np.uint64)
    keys.view(np.float64).sort(axis=1)
    apart = keys[:, 1:] ^ keys[:, :-1]
    untrusted |= (apart <= low).any(axis=1)
    keys &= low
    return keys, untrusted


def _low_bits(size: int) -> np.uint64:
    """As many ones as the numbers 0..size need."""
    return np.uint64((1 << size.bit_length()) - 1)


def _ranks_among_shared(matrix: int, order: Unsigned, pairs: Sequence[Pair]) -> dict[int, Unsigned]:
    """A matrix's ranks (from 1) among the columns it shares, for each of its pairs, by pair number."""
    own = {
        number: pair.shared[pair.matrices.index(matrix)]
        for number, pair in enumerate(pairs)
        if matrix in pair.matrices
    }
    return dict(zip(own, _subset_ranks(order, list(own.values())), strict=True))


def _subset_ranks(order: Unsigned, subsets: Sequence[Integers]) -> list[Unsigned]:
    """Ranks within each subset of columns, given the order of all columns.

    Parameters
    ----------
    order : ndarray of uint64
        Shape (probes, columns): column numbers by ascending value.
    subsets : sequence of ndarray of int
        Column numbers of each subset.

    Returns
    -------
    list of ndarray of uint64
        For each subset, shape (probes, len(subset)), ranks from 1.
    """
    low = _low_bits(order.shape[1])
    bits = int(low).bit_length()
    places = order.astype(np.int64)
    per_word = _WORD_BITS // bits
    ranks: list[Unsigned] = []
    for first in range(0, len(subsets), per_word):
        batch = subsets[first : first + per_word]
        counts = _walk(places, batch, bits)
        for field, subset in enumerate(batch):
            rank = counts.take(subset, axis=1)
            rank >>= np.uint64(bits * field)
            rank &= low
            ranks.append(rank)
    return ranks


def _walk(order: NDArray[np.int64], subsets: Sequence[Integers], bits: int) -> Unsigned:
    """How many members of each subset lie at or below each column, one field of `bits` bits a subset."""
    member = np.zeros(order.shape[1], dtype=np.uint64)
    for field, subset in enumerate(subsets):
        member[subset] += np.uint64(1 << (bits * field))
    met = member.take(order)
    np.cumsum(met, axis=1, out=met)
    counts = np.empty_like(met)
    row_starts = np.arange(0, order.size, order.shape[1])[:, np.newaxis]
    counts.ravel()[(order + row_starts).ravel()] = met.ravel()
    return counts
