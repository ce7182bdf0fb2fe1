"""Stable genes: those whose pattern over regions is the same in every donor.

Differential stability (Hawrylycz et al. 2015, Nat Neurosci 18:1832) of a gene is the mean correlation of its
region profile between donors. Two published definitions differ in which regions a pair of donors is compared
over: abagen's ``correct.keep_stable_genes`` and step S4 of AHBAprocessing (Arnatkeviciute et al. 2019,
NeuroImage 189:353). Stability of probes over structures, which chooses between probes, is in
:mod:`transforms.stability`.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from transforms.errors import ChoiceError

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]
Tables = Mapping[str, pd.DataFrame]
Profiles = Iterator[tuple[Floats, Floats]]

# Region means of few samples can tie but for their last bits, and the ranks of the tied would then be noise.
RANKED_DECIMALS = 10


class StableGenes(NamedTuple):
    """What `stable_genes` gives.

    Attributes
    ----------
    expression : dict of str to pandas.DataFrame
        Donor -> region x gene, the stable genes only, in the order of the input.
    stability : pandas.Series
        Every gene's differential stability, -1 to 1.
    """

    expression: dict[str, pd.DataFrame]
    stability: pd.Series


# Which regions of two donors are compared -------------------------------------------------------------------


def _shared_by_pair(tables: list[pd.DataFrame], *, rank: bool) -> Profiles:
    """Regions that both donors of a pair have; ranks are those among all the regions of a donor."""
    ranked = [table.rank() if rank else table for table in tables]
    present = [table.index[_has_values(table)] for table in tables]
    for one, other in combinations(range(len(tables)), 2):
        shared = present[one].intersection(present[other]).sort_values()
        yield ranked[one].loc[shared].to_numpy(), ranked[other].loc[shared].to_numpy()


def _shared_by_all(tables: list[pd.DataFrame], *, rank: bool) -> Profiles:
    """Regions that every donor has; values are rounded, then ranked among these regions."""
    shared = tables[0].index
    for table in tables:
        shared = shared.intersection(table.index[_has_values(table)])
    kept = [table.loc[shared] for table in tables]
    profiles = [table.round(RANKED_DECIMALS).rank() if rank else table for table in kept]
    for one, other in combinations(profiles, 2):
        yield one.to_numpy(), other.to_numpy()


def _has_values(table: pd.DataFrame) -> Booleans:
    present: Booleans = table.notna().any(axis=1).to_numpy()
    return present


class StabilityMethod(NamedTuple):
    """One definition of differential stability.

    Attributes
    ----------
    profiles : callable
        Donors' tables -> for each pair of donors, (region, gene) profiles to be correlated.
    undefined : float
        Stability of a gene whose correlation is defined for no pair of donors.
    """

    profiles: Callable[..., Profiles]
    undefined: float


STABILITY_METHODS = {
    "abagen": StabilityMethod(_shared_by_pair, 0.0),
    "arnatkeviciute2019": StabilityMethod(_shared_by_all, np.nan),
}


# What is called ---------------------------------------------------------------------------------------------


def differential_stability(donors: Tables, *, rank: bool = True, method: str = "abagen") -> pd.Series:
    """Mean correlation of each gene's region profile over all pairs of donors.

    Parameters
    ----------
    donors : mapping of str to pandas.DataFrame
        Donor -> region x gene, as `RegionTables.donor_expression`; the same genes in the same order in each.
        A region that is NaN throughout is one the donor does not have. Two or more donors.
    rank : bool
        Spearman's correlation (average ranks at ties) rather than Pearson's.
    method : {"abagen", "arnatkeviciute2019"}
        ``abagen``: over the regions that both donors of a pair have; ranks are taken over all regions of a
        donor, before that; a gene whose correlation is defined for no pair is 0.
        ``arnatkeviciute2019``: over the regions that ALL donors have; values are rounded to 10 decimals and
        ranked among these regions (the published code does not round, so that heavily tied genes depend
        there on the last bit of the region means); such a gene is NaN.

    Returns
    -------
    pandas.Series
        By gene. A pair whose correlation is undefined (a constant profile, a NaN in a shared region, fewer
        than two shared regions) is left out of the gene's mean.

    Raises
    ------
    ChoiceError
        If the method is unknown, there are fewer than two donors, or their genes differ.
    """
    if method not in STABILITY_METHODS:
        raise ChoiceError(f"Unknown stability method {method!r}: choose {' or '.join(STABILITY_METHODS)}.")
    tables = _checked(donors)
    chosen = STABILITY_METHODS[method]
    pairs = [_correlations(one, other) for one, other in chosen.profiles(tables, rank=rank)]
    defined = ~np.isnan(pairs)
    sums, counts = np.where(defined, pairs, 0.0).sum(axis=0), defined.sum(axis=0)
    means = np.divide(sums, counts, out=np.full(len(sums), chosen.undefined), where=counts > 0)
    return pd.Series(means, index=tables[0].columns, name="stability")


def stable_genes(
    donors: Tables,
    *,
    threshold: float | None = None,
    percentile: bool = True,
    percent_ds: float | None = None,
    rank: bool = True,
    method: str = "abagen",
) -> StableGenes:
    """Keep the genes whose region profile donors agree on.

    Parameters
    ----------
    donors : mapping of str to pandas.DataFrame
        As for `differential_stability`.
    threshold : float, optional
        Least stability of a gene to keep; 0.9 if neither this nor `percent_ds` is given.
    percentile : bool
        Whether `threshold`, 0 to 1, is a quantile of all genes' stabilities (0.9: the top tenth, linear
        between order statistics) rather than a stability.
    percent_ds : float, optional
        Instead of `threshold`: per cent of the genes to keep, the most stable ones (``percentDS`` of
        AHBAprocessing). Halves are rounded up; among equals, genes that come first.
    rank : bool
    method : {"abagen", "arnatkeviciute2019"}
        As for `differential_stability`.

    Returns
    -------
    StableGenes
        The kept genes' tables and all genes' stabilities (abagen: ``return_stability=True``).

    Raises
    ------
    ChoiceError
        As `differential_stability`; or if both `threshold` and `percent_ds` are given, or one is out of
        range.

    Notes
    -----
    A gene of undefined stability is never among the most stable: it meets no threshold, and `percent_ds`
    takes it last. MATLAB's descending sort, in AHBAprocessing, takes such genes first.
    """
    keep = _selector(threshold, percent_ds, percentile=percentile)
    stability = differential_stability(donors, rank=rank, method=method)
    kept = keep(stability.to_numpy())
    return StableGenes({donor: table.loc[:, kept] for donor, table in donors.items()}, stability)


def _selector(
    threshold: float | None, percent_ds: float | None, *, percentile: bool
) -> Callable[[Floats], Booleans]:
    """The rule that the choices name: stabilities -> genes to keep."""
    if threshold is not None and percent_ds is not None:
        raise ChoiceError("threshold and percent_ds both say how many genes to keep: choose one.")
    if percent_ds is not None:
        _check_range("percent_ds", percent_ds, 0, 100)
        return lambda stability: _most_stable(stability, percent_ds)
    least = 0.9 if threshold is None else threshold
    if not percentile:
        _check_range("threshold", least, -1, 1)
        return lambda stability: stability >= least
    _check_range("threshold, a quantile (percentile=True),", least, 0, 1)
    return lambda stability: _upper_tail(stability, least)


def _upper_tail(stability: Floats, quantile: float) -> Booleans:
    defined = stability[~np.isnan(stability)]
    if not len(defined):
        return np.zeros(len(stability), dtype=bool)
    return np.asarray(stability >= np.percentile(defined, quantile * 100))


def _most_stable(stability: Floats, percent: float) -> Booleans:
    n_kept = int(np.floor(len(stability) * percent / 100 + 0.5))
    kept = np.zeros(len(stability), dtype=bool)
    kept[np.argsort(-stability, kind="stable")[:n_kept]] = True
    return kept


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ChoiceError(f"{name} must lie between {low} and {high}, not {value:g}.")


def _checked(donors: Tables) -> list[pd.DataFrame]:
    if len(donors) < 2:
        raise ChoiceError(f"Stability compares donors: give the tables of two or more, not of {len(donors)}.")
    (first, genes), *others = ((donor, table.columns) for donor, table in donors.items())
    for donor, other in others:
        if not other.equals(genes):
            raise ChoiceError(f"Donors {first} and {donor} have other genes, or another order: align them.")
    for donor, table in donors.items():
        if not table.index.is_unique:
            raise ChoiceError(f"Donor {donor} has region {_repeated(table)} twice: keep one row a region.")
    return list(donors.values())


def _repeated(table: pd.DataFrame) -> Any:
    return table.index[table.index.duplicated()][0]


def _correlations(one: Floats, other: Floats) -> Floats:
    """Pearson correlation of matching columns; NaN where one is constant or holds NaN."""
    if len(one) < 2:
        return np.full(one.shape[1], np.nan)
    correlations: Floats = (_scaled(one) * _scaled(other)).sum(axis=0)
    return correlations


def _scaled(values: Floats) -> Floats:
    """Columns with mean 0 and length 1; a constant one is NaN, whatever rounding makes of its spread."""
    centred = values - values.mean(axis=0)
    constant = values.max(axis=0) == values.min(axis=0)
    lengths = np.where(constant, np.nan, np.sqrt(np.square(centred).sum(axis=0)))
    scaled: Floats = centred / lengths
    return scaled
