"""Scores that rank a gene's probes by their profile over structures: the same in all donors, as in RNA-seq.

Differential stability (Hawrylycz et al. 2015, Nat Neurosci 18:1832) is the mean Spearman correlation of a
probe's structure profile between donors. It is the slowest step of a whole run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from transforms import compiled
from transforms.rank_correlation import Pair, pair_correlations, spearman

Floats = NDArray[np.float64]
Integers = NDArray[np.integer]


@dataclass(frozen=True, eq=False)
class StructureMeans:
    """How to average samples of the same structure.

    Attributes
    ----------
    structures : ndarray of int
        The structure ids, ascending, shape (structures,).
    members : ndarray of int
        Sample numbers, structure by structure.
    starts : ndarray of int
        Where each structure's begin in `members`, and where the last ends.
    """

    structures: Integers
    members: NDArray[np.intp]
    starts: NDArray[np.intp]

    @classmethod
    def of(cls, structure_id: Integers, samples: Integers) -> "StructureMeans":
        """Plan the means of the samples with the given numbers; `structure_id` belongs to `samples`."""
        structures, codes, counts = np.unique(structure_id, return_inverse=True, return_counts=True)
        members = samples[np.argsort(codes, kind="stable")]
        starts = np.append(0, np.cumsum(counts))
        return cls(structures, members.astype(np.intp), starts.astype(np.intp))

    def __call__(self, expression: Floats) -> Floats:
        """Mean over each structure's samples, shape (probes, structures).

        The sums are compensated (Kahan), as in pandas, so that profiles that tie exactly do so here too.
        """
        means = np.empty((len(expression), len(self.structures)))
        if compiled.kernels is not None:
            rows = np.ascontiguousarray(expression, dtype=np.float64)
            compiled.kernels.structure_means(rows, self.members, self.starts, means)
            return means
        total = expression[:, self._layers[0]]
        lost = np.zeros_like(total)
        for samples in self._layers[1:]:
            running = total[:, : len(samples)]
            term = expression[:, samples] - lost[:, : len(samples)]
            summed = running + term
            lost[:, : len(samples)] = (summed - running) - term
            total[:, : len(samples)] = summed
        means[:, self._order] = total / self._sizes[self._order]
        return means

    @property
    def _sizes(self) -> Integers:
        return np.diff(self.starts)

    @cached_property
    def _order(self) -> Integers:
        """Structures, those with most samples first."""
        return np.argsort(-self._sizes, kind="stable")

    @cached_property
    def _layers(self) -> list[Integers]:
        """The k-th sample of each structure that has so many, in `_order`."""
        starts, sizes = self.starts[:-1][self._order], self._sizes[self._order]
        return [self.members[starts[sizes > k] + k] for k in range(sizes.max())]


@dataclass(frozen=True, eq=False)
class Profiles:
    """How each donor's samples become a profile over structures.

    Attributes
    ----------
    means : dict of str to StructureMeans
        Donors in the samples' order.
    """

    means: dict[str, StructureMeans]

    @classmethod
    def of(cls, samples: pd.DataFrame) -> "Profiles":
        """Those of the samples (``donor``, ``structure_id``)."""
        donors, structures = samples["donor"].to_numpy(dtype=object), samples["structure_id"].to_numpy()
        numbers = {donor: np.flatnonzero(donors == donor) for donor in pd.unique(donors)}
        return cls({donor: StructureMeans.of(structures[own], own) for donor, own in numbers.items()})

    @cached_property
    def pairs(self) -> list[Pair]:
        """All pairs of donors, and the structures that both have."""
        structures = [mean.structures for mean in self.means.values()]
        return [Pair.of(donors, structures) for donors in combinations(range(len(structures)), 2)]


def diff_stability(
    expression: Floats, genes: NDArray[Any], samples: pd.DataFrame, *, prepared: Profiles | None = None
) -> Floats:
    """Differential stability of each probe.

    Parameters
    ----------
    expression : ndarray
        Shape (probes, samples), log2 intensity.
    genes : ndarray
        Gene of each probe; not used, a probe is scored on its own.
    samples : pandas.DataFrame
        Columns ``donor`` (two or more) and ``structure_id``, one row a sample.
    prepared : Profiles, optional
        Of these samples, where many blocks share them.

    Returns
    -------
    ndarray
        Shape (probes,), -1 to 1: mean over all donor pairs of the Spearman correlation (average ranks at
        ties) of the structure means, over the structures that both have. NaN if it is undefined for any pair:
        fewer than two shared structures, or a constant profile.
    """
    scores: Floats = pair_stability(expression, genes, samples, prepared=prepared).mean(axis=1)
    return scores


def pair_stability(
    expression: Floats,
    genes: NDArray[Any],  # noqa: ARG001
    samples: pd.DataFrame,
    *,
    prepared: Profiles | None = None,
) -> Floats:
    """Stability of each probe between the donors of each pair; arguments as for `diff_stability`.

    Returns
    -------
    ndarray
        Shape (probes, pairs), pairs in the order of :func:`donor_pairs`; NaN where undefined.
    """
    profiles = prepared or Profiles.of(samples)
    return pair_correlations([mean(expression) for mean in profiles.means.values()], profiles.pairs)


def donor_pairs(donors: Sequence[str]) -> list[str]:
    """Names of all pairs of donors."""
    return [f"{one} & {other}" for one, other in combinations(donors, 2)]


def rnaseq_correlation(
    expression: Floats,
    genes: NDArray[Any],
    samples: pd.DataFrame,
    *,
    rnaseq: Mapping[str, pd.DataFrame],
    prepared: Profiles | None = None,
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
    prepared : Profiles, optional
        Of these samples, where many blocks share them.

    Returns
    -------
    ndarray
        Shape (probes,): mean over the RNA-seq donors, ignoring those where it is undefined, of the Spearman
        correlation over the structures both assays have. NaN if every donor's is undefined: the gene is
        absent from RNA-seq, or constant.
    """
    means = (prepared or Profiles.of(samples)).means
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
    profiles = [means(expression)[probes], table.to_numpy(dtype=np.float64)[gene_rows[probes]]]
    pair = Pair.of((0, 1), [means.structures, table.columns.to_numpy()])
    correlations = np.full(len(expression), np.nan)
    correlations[probes] = pair_correlations(profiles, [pair])[:, 0]
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
