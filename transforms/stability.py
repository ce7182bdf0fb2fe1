"""Scores that rank a gene's probes by their profile over structures: the same in all donors, as in RNA-seq.

Differential stability (Hawrylycz et al. 2015, Nat Neurosci 18:1832) is the mean Spearman correlation of a
probe's structure profile between donors. It is the slowest step of a whole run, so ranks are not sorted anew
for every donor pair: each donor's profile is sorted once, and the rank of a structure among those that a pair
shares is the number of shared structures met up to it on a walk along the sorted profile. One walk counts for
several partners at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.integer]
Unsigned = NDArray[np.uint64]

# Probes worked on together. Fewer stay in the processor's cache, but have threads wait for each other.
_PROBES_AT_ONCE = 512
_MEANS_AT_ONCE = 256
_WORD_BITS = 64  # that counts of several walks share


@dataclass(frozen=True, eq=False)
class StructureMeans:
    """How to average samples of the same structure.

    Attributes
    ----------
    structures : ndarray of int
        The structure ids, ascending, shape (structures,).
    order : ndarray of int
        Positions in `structures`, those with most samples first.
    layers : tuple of ndarray of int
        Layer k holds the sample number of the k-th sample of each structure that has so many, in `order`.
    counts : ndarray of int
        Samples of each structure, in `order`.
    """

    structures: Integers
    order: Integers
    layers: tuple[Integers, ...]
    counts: Integers

    @classmethod
    def of(cls, structure_id: Integers, samples: Integers) -> "StructureMeans":
        """Plan the means of the samples with the given numbers; `structure_id` belongs to `samples`."""
        structures, codes, counts = np.unique(structure_id, return_inverse=True, return_counts=True)
        grouped = samples[np.argsort(codes, kind="stable")]
        order = np.argsort(-counts, kind="stable")
        starts, sizes = (np.cumsum(counts) - counts)[order], counts[order]
        layers = tuple(grouped[starts[sizes > k] + k] for k in range(counts.max()))
        return cls(structures, order, layers, sizes)

    def __call__(self, expression: Floats) -> Floats:
        """Mean over each structure's samples, shape (probes, structures).

        The sums are compensated (Kahan), as in pandas, so that profiles that tie exactly do so here too.
        """
        total = expression[:, self.layers[0]]
        lost = np.zeros_like(total)
        for samples in self.layers[1:]:
            running = total[:, : len(samples)]
            term = expression[:, samples] - lost[:, : len(samples)]
            summed = running + term
            lost[:, : len(samples)] = (summed - running) - term
            total[:, : len(samples)] = summed
        means = np.empty_like(total)
        means[:, self.order] = total / self.counts
        return means


@dataclass(frozen=True, eq=False)
class _Pair:
    """Two donors (by number) and, for each, which of its structures the other has too (aligned)."""

    donors: tuple[int, int]
    shared: tuple[Integers, Integers]


def diff_stability(expression: Floats, genes: NDArray[Any], samples: pd.DataFrame) -> Floats:
    """Differential stability of each probe.

    Parameters
    ----------
    expression : ndarray
        Shape (probes, samples), log2 intensity.
    genes : ndarray
        Gene of each probe; not used, a probe is scored on its own.
    samples : pandas.DataFrame
        Columns ``donor`` (two or more) and ``structure_id``, one row a sample.

    Returns
    -------
    ndarray
        Shape (probes,), -1 to 1: mean over all donor pairs of the Spearman correlation (average ranks at
        ties) of the structure means, over the structures that both have. NaN if it is undefined for any pair:
        fewer than two shared structures, or a constant profile.
    """
    scores: Floats = pair_stability(expression, genes, samples).mean(axis=1)
    return scores


def pair_stability(expression: Floats, genes: NDArray[Any], samples: pd.DataFrame) -> Floats:  # noqa: ARG001
    """Stability of each probe between the donors of each pair; arguments as for `diff_stability`.

    Returns
    -------
    ndarray
        Shape (probes, pairs), pairs in the order of :func:`donor_pairs`; NaN where undefined.
    """
    means = list(_structure_means(samples).values())
    pairs = [_pair(means, donors) for donors in combinations(range(len(means)), 2)]
    scores = np.empty((len(expression), len(pairs)))
    for first in range(0, len(expression), _PROBES_AT_ONCE):
        part = slice(first, first + _PROBES_AT_ONCE)
        scores[part] = _pair_correlations([_in_pieces(mean, expression[part]) for mean in means], pairs)
    return scores


def _in_pieces(mean: StructureMeans, expression: Floats) -> Floats:
    """All of the means, of so few probes at a time that their samples stay in the processor's cache."""
    means = np.empty((len(expression), len(mean.structures)))
    for first in range(0, len(expression), _MEANS_AT_ONCE):
        part = slice(first, first + _MEANS_AT_ONCE)
        means[part] = mean(expression[part])
    return means


def donor_pairs(donors: Sequence[str]) -> list[str]:
    """Names of all pairs of donors."""
    return [f"{one} & {other}" for one, other in combinations(donors, 2)]


def _structure_means(samples: pd.DataFrame) -> dict[str, StructureMeans]:
    """Each donor's means, donors in the samples' order."""
    donors, structures = samples["donor"].to_numpy(dtype=object), samples["structure_id"].to_numpy()
    numbers = {donor: np.flatnonzero(donors == donor) for donor in pd.unique(donors)}
    return {donor: StructureMeans.of(structures[own], own) for donor, own in numbers.items()}


def _pair(means: Sequence[StructureMeans], donors: tuple[int, int]) -> _Pair:
    one, other = (means[donor].structures for donor in donors)
    _, in_one, in_other = np.intersect1d(one, other, assume_unique=True, return_indices=True)
    return _Pair(donors, (in_one, in_other))


def _pair_correlations(profiles: Sequence[Floats], pairs: Sequence[_Pair]) -> Floats:
    """Spearman correlation of the donors' profiles, shape (probes, pairs)."""
    correlations = np.full((len(profiles[0]), len(pairs)), np.nan)
    orders = [_order(profile) for profile in profiles]
    ranks = [_ranks_among_shared(donor, order, pairs) for donor, (order, _) in enumerate(orders)]
    for number, pair in enumerate(pairs):
        (one, other), (in_one, in_other) = pair.donors, pair.shared
        if len(in_one) < 2:
            continue
        correlations[:, number] = _rank_correlation(ranks[one].pop(number), ranks[other].pop(number))
        slow = np.flatnonzero(orders[one][1] | orders[other][1])
        correlations[slow, number] = spearman(
            profiles[one][np.ix_(slow, in_one)], profiles[other][np.ix_(slow, in_other)]
        )
    return correlations


def _order(profile: Floats) -> tuple[Unsigned, NDArray[np.bool_]]:
    """Column numbers by ascending value, and the rows where these are not to be trusted.

    Two values of such a row are equal or next to it, or one is not finite. NumPy sorts numbers four times as
    fast as it finds their order, so each value carries its column in its lowest bits.
    """
    low = _low_bits(profile.shape[1])
    keys = (profile + 0.0).view(np.uint64)  # adding turns -0 into 0
    untrusted = ~np.isfinite(profile.sum(axis=1))
    keys &= ~low
    keys |= np.arange(profile.shape[1], dtype=np.uint64)
    ascending = keys.view(np.float64)
    ascending.sort(axis=1)
    apart = keys[:, 1:] ^ keys[:, :-1]
    untrusted |= (apart <= low).any(axis=1)
    keys &= low
    return keys, untrusted


def _low_bits(size: int) -> np.uint64:
    """As many ones as the numbers 0..size need."""
    return np.uint64((1 << size.bit_length()) - 1)


def _ranks_among_shared(donor: int, order: Unsigned, pairs: Sequence[_Pair]) -> dict[int, Unsigned]:
    """A donor's ranks (from 1) among the structures it shares, for each of its pairs, by pair number."""
    own = {
        number: pair.shared[pair.donors.index(donor)]
        for number, pair in enumerate(pairs)
        if donor in pair.donors
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


def _rank_correlation(one: Unsigned, other: Unsigned) -> Floats:
    """Pearson correlation of matching rows of the ranks 1..n, from whole numbers: rounded but once."""
    size = one.shape[1]
    products = np.vecdot(one, other).astype(np.float64)
    mean, squares = (size + 1) / 2, (size**3 - size) / 12
    correlation: Floats = (products - size * mean**2) / squares
    return correlation


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


def rnaseq_correlation(
    expression: Floats, genes: NDArray[Any], samples: pd.DataFrame, *, rnaseq: Mapping[str, pd.DataFrame]
) -> Floats:
    """Agreement of each probe's structure profile with its gene's RNA-seq profile.

    Parameters
    ----------
    expression : ndarray
        Shape (probes, samples), log2 intensity.
    genes : ndarray of str
        Gene symbol of each probe.
    samples : pandas.DataFrame
        Columns ``donor`` and ``structure_id``, one row a sample.
    rnaseq : mapping of str to pandas.DataFrame
        Donor -> mean TPM, index gene symbols (unique), columns structure ids. Donors without samples are
        ignored.

    Returns
    -------
    ndarray
        Shape (probes,): mean over the RNA-seq donors, ignoring those where it is undefined, of the Spearman
        correlation over the structures both assays have. NaN if every donor's is undefined: the gene is
        absent from RNA-seq, or constant.
    """
    means = _structure_means(samples)
    correlations = [
        _correlation_with_table(means[donor], expression, genes, table)
        for donor, table in rnaseq.items()
        if donor in means
    ]
    return _mean_of_defined(np.array(correlations).reshape(len(correlations), len(expression)))


def _correlation_with_table(
    means: StructureMeans, expression: Floats, genes: NDArray[Any], table: pd.DataFrame
) -> Floats:
    table = table[~np.isclose(table.std(axis=1, ddof=1), 0)]
    gene_rows = table.index.get_indexer(genes)
    probes = np.flatnonzero(gene_rows >= 0)
    _, in_profile, in_table = np.intersect1d(
        means.structures, table.columns.to_numpy(), assume_unique=True, return_indices=True
    )
    correlations = np.full(len(expression), np.nan)
    correlations[probes] = spearman(
        means(expression[probes])[:, in_profile],
        table.to_numpy(dtype=np.float64)[np.ix_(gene_rows[probes], in_table)],
    )
    return correlations


def _mean_of_defined(values: Floats) -> Floats:
    """Mean over the first axis, NaN left out; NaN where nothing is left."""
    defined = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        mean: Floats = np.where(defined, values, 0).sum(axis=0) / defined.sum(axis=0)
    return mean


# RNA-seq by well --------------------------------------------------------------------------------------------


def rnaseq_by_well(
    expression: Floats,
    genes: NDArray[Any],
    samples: pd.DataFrame,
    *,
    rnaseq: Mapping[str, pd.DataFrame],
    entrez_id: Integers,
    threshold: float,
    significance: float | None,
) -> Floats:
    """Agreement of each probe with RNA-seq of the same wells (step S2 of AHBAprocessing).

    Parameters
    ----------
    expression : ndarray
        Shape (probes, samples), log2 intensity.
    genes : ndarray of str
        Gene symbol of each probe; probes of a gene are adjacent.
    samples : pandas.DataFrame
        Columns ``donor`` and ``well_id``, one row a sample; samples of the same well are averaged.
    rnaseq : mapping of str to pandas.DataFrame
        Donor -> TPM, index Entrez ids, columns ``well_id``, each unique. Donors without samples are ignored.
    entrez_id : ndarray of int
        Entrez id of each probe.
    threshold : float
        A gene stays if the correlation of its best probe is above.
    significance : float or None
        A gene stays if, besides, that probe's p value (mean over donors) is below; None asks for none.

    Returns
    -------
    ndarray
        Shape (probes,): plain mean over the donors of Spearman's correlation over the shared wells. NaN where
        it is undefined in any donor, and for all probes of a gene that does not stay.

    Notes
    -----
    The p value is that of Student's t with n - 2 degrees of freedom.
    """
    by_donor = [
        _agreement_over_wells(expression, samples, donor, table, entrez_id)
        for donor, table in rnaseq.items()
        if (samples["donor"] == donor).any()
    ]
    correlation, p_value = np.mean(by_donor, axis=0)
    ranked = pd.Series(np.where(np.isnan(correlation), -np.inf, correlation))
    best = ranked.groupby(genes, sort=False).transform("idxmax").to_numpy()
    stays = correlation[best] > threshold
    if significance is not None:
        stays &= p_value[best] < significance
    return np.where(stays, correlation, np.nan)


def _agreement_over_wells(
    expression: Floats, samples: pd.DataFrame, donor: str, table: pd.DataFrame, entrez_id: Integers
) -> tuple[Floats, Floats]:
    """Spearman's correlation of each probe with its gene's TPM over a donor's shared wells, and its p."""
    from scipy.stats import t as student

    own = np.flatnonzero((samples["donor"] == donor).to_numpy())
    wells = StructureMeans.of(samples["well_id"].to_numpy()[own], own)
    shared, in_wells, in_table = np.intersect1d(
        wells.structures, table.columns.to_numpy(), assume_unique=True, return_indices=True
    )
    tpm = table.reindex(index=entrez_id).to_numpy(dtype=np.float64)[:, in_table]
    correlation = spearman(wells(expression)[:, in_wells], tpm)
    freedom = len(shared) - 2
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = correlation * np.sqrt(freedom / (1 - np.minimum(correlation**2, 1)))
    return correlation, 2 * student.sf(np.abs(statistic), max(freedom, 1))
