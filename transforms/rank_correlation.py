"""Spearman's correlation of many profiles at once: rows of one matrix with the same rows of another.

Differential stability asks for it between all pairs of donors, each pair over the structures that both have.
Ranks are not sorted anew for every pair: each donor's profile is sorted once, and the rank of a structure
among those that a pair shares is the number of shared structures met up to it on a walk along the sorted
profile.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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
    """Two matrices (by number) and, for each, which of its columns the other has too (aligned)."""

    matrices: tuple[int, int]
    shared: tuple[Integers, Integers]

    @classmethod
    def of(cls, numbers: tuple[int, int], names: Sequence[Integers]) -> "Pair":
        """Two of the matrices, whose columns have the names; a name is in a matrix once at most."""
        one, other = (names[number] for number in numbers)
        _, in_one, in_other = np.intersect1d(one, other, assume_unique=True, return_indices=True)
        return cls(numbers, (in_one, in_other))


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
    for first in range(0, len(correlations), _ROWS_AT_ONCE):
        part = slice(first, first + _ROWS_AT_ONCE)
        _correlate([profile[part] for profile in profiles], pairs, correlations[part], untrusted[part])
    for number, pair in enumerate(pairs):
        slow = np.flatnonzero(untrusted[:, list(pair.matrices)].any(axis=1))
        both = zip(pair.matrices, pair.shared, strict=True)
        correlations[slow, number] = spearman(*(profiles[own][np.ix_(slow, shared)] for own, shared in both))
    return correlations


def _correlate(
    profiles: Sequence[Floats], pairs: Sequence[Pair], correlations: Floats, untrusted: NDArray[np.bool_]
) -> None:
    """Correlate some rows, and mark those of each matrix whose ranks are not to be trusted."""
    orders = []
    for number, profile in enumerate(profiles):
        order, untrusted[:, number] = _order(profile)
        orders.append(order)
    products = _compiled_products if compiled.kernels else _products
    for number, found in products(orders, pairs).items():
        correlations[:, number] = _rank_correlation(found, len(pairs[number].shared[0]))


def spearman(one: Floats, other: Floats) -> Floats:
    """Spearman correlation of matching rows, average ranks at ties; NaN if a row is constant or holds NaN."""
    if one.size == 0 or one.shape[1] < 2:
        return np.full(len(one), np.nan)
    products = _scaled_ranks(one) * _scaled_ranks(other)
    correlations: Floats = products.sum(axis=1) / (one.shape[1] - 1)
    return correlations


def _scaled_ranks(values: Floats) -> Floats:
    # Row by row in memory: sums of rows then round the same in a block of any size.
    ranks = np.ascontiguousarray(pd.DataFrame(values).rank(axis=1))
    deviation = ranks - ranks.mean(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        scaled: Floats = deviation / ranks.std(axis=1, ddof=1, keepdims=True)
    return scaled


def _rank_correlation(products: NDArray[np.integer], size: int) -> Floats:
    """Pearson correlation of ranks 1..size from the sum of their products: rounded but once."""
    mean, squares = (size + 1) / 2, (size**3 - size) / 12
    correlation: Floats = (products.astype(np.float64) - size * mean**2) / squares
    return correlation


# Order ------------------------------------------------------------------------------------------------------


def _order(profile: Floats) -> Order:
    """Column numbers by ascending value, and the rows where these are not to be trusted.

    Two values of such a row are equal or next to it, or one is not finite. NumPy sorts numbers four times as
    fast as it finds their order, so each value carries its column in its lowest bits.
    """
    if compiled.kernels is None:
        return _order_by_numpy(profile)
    keys, untrusted = np.empty(profile.shape, np.uint64), np.empty(len(profile), np.bool_)
    compiled.kernels.sortable(profile, keys, untrusted.view(np.uint8))
    keys.view(np.float64).sort(axis=1)
    compiled.kernels.sorted_columns(keys, untrusted.view(np.uint8))
    return keys, untrusted


def _order_by_numpy(profile: Floats) -> Order:
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


# Sums of products of ranks, by pair number; without pairs that share fewer than two columns ---------------


def _compiled_products(orders: Sequence[Unsigned], pairs: Sequence[Pair]) -> dict[int, Integers]:
    return {
        number: _products_of(orders, pair) for number, pair in enumerate(pairs) if len(pair.shared[0]) > 1
    }


def _products_of(orders: Sequence[Unsigned], pair: Pair) -> Integers:
    n_shared = len(pair.shared[0])
    arguments: list[NDArray[Any]] = []
    for matrix, shared in zip(pair.matrices, pair.shared, strict=True):
        which = np.full(orders[matrix].shape[1], n_shared, np.int32)
        which[shared] = np.arange(n_shared, dtype=np.int32)
        arguments += [orders[matrix], which]
    products = np.empty(len(arguments[0]), np.int64)
    assert compiled.kernels is not None  # noqa: S101 - narrows the type
    compiled.kernels.rank_products(*arguments, np.empty(n_shared + 1, np.int64), products)
    return products


def _products(orders: Sequence[Unsigned], pairs: Sequence[Pair]) -> dict[int, Integers]:
    ranks = [_ranks_among_shared(matrix, order, pairs) for matrix, order in enumerate(orders)]
    return {
        number: np.vecdot(*(ranks[matrix][number] for matrix in pair.matrices)).astype(np.int64)
        for number, pair in enumerate(pairs)
        if len(pair.shared[0]) > 1
    }


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
