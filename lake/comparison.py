"""Two sets of samples compared: the portal's differential search, with donors taken for what they are.

Samples of one donor are no independent observations of mankind: they share a brain, a post-mortem delay and a
batch. The unit of replication is the donor, so by default the two sets are compared within each donor, and
the donors' differences are tested with the moderated t statistic of Smyth (2004, Stat. Appl. Genet. Mol.
Biol. 3:3), which borrows the variance of all genes where six donors say little of one. The two other tests
answer narrower questions: ``permutation`` is about these brains only, and ``samples`` is in the manner of the
portal (a t test of each probe over samples, there one-sided), which takes every sample for independent and
so is far too sure.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special, stats

from lake.errors import RequestError
from lake.selection import BLOCK, Selection, counted

if TYPE_CHECKING:
    from transforms.pipeline import Pipeline

Floats = NDArray[np.float64]
Columns = dict[str, Floats]

MODERATED_FROM = 10  # genes; fewer say nothing of how variances vary
LEAST_VARIANCE = 1e-5  # of the median; as limma, so that a gene without variance has a logarithm
EQUAL = 1e-10  # relative; a permutation that only swaps equals must count as equal
MOST_SHUFFLED = 1 << 26  # samples (or a block's probes) x permutations in memory: half a GB


def compare(
    a: Selection,
    b: Selection,
    *,
    test: str = "donors",
    pipeline: "Pipeline | None" = None,
    permutations: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Expression of one set of samples against another's, probe by probe or gene by gene.

    Parameters
    ----------
    a, b : Selection
        Of one store, with the same probes and no sample in common.
    test : {"donors", "permutation", "samples"}
        ``donors``: moderated t test of the donors' differences, of donors with samples in both sets; needs
        two of them. ``permutation``: labels are shuffled within donors, the statistic is the mean of the
        donors' differences. ``samples``: Welch's t test over all samples, as if they were independent.
    pipeline : Pipeline, optional
        Compare genes, one value each by the pipeline's choice, and not probes.
    permutations, seed : int
        For ``permutation``; equal seeds give equal p values.

    Returns
    -------
    pandas.DataFrame
        Labels of the probe (or gene), then ``mean_a``, ``mean_b`` (log2; means of the donors' means, or with
        ``samples`` over samples), ``difference`` (a - b), ``fold_change`` (2 ** difference),
        ``n_donors`` and ``n_higher`` (donors in which a is higher) but with ``samples``, ``t`` and ``df`` but
        with ``permutation``, ``p_value`` (two-sided; 1 where ``samples`` finds no variance) and ``fdr``
        (Benjamini and Hochberg 1995, over all rows). Sorted by ``difference``, highest in a first. ``attrs``
        say what was compared.

    Raises
    ------
    RequestError
        If a choice is unknown, the sets overlap or are of different stores or probes, or too few donors have
        samples in both.
    """
    if test not in TESTS:
        raise RequestError(f"test={test!r} is unknown; choose one of {', '.join(TESTS)}.")
    joint = _joined(a, b)
    chosen = joint if pipeline is None else joint.per_gene(pipeline)
    design = _Design(chosen, np.isin(chosen.columns, a.columns), permutations, seed)
    TESTS[test].check(design)
    blocks = [TESTS[test].effects(values, design) for _, values in chosen.blocks()]
    columns = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    table = _table(chosen, TESTS[test].finish(columns))
    table.attrs = {**chosen.provenance(), "test": test, "donors": ", ".join(TESTS[test].donors(design))}
    return table


def _joined(a: Selection, b: Selection) -> Selection:
    """Both sets as one, in the order of the store, in which samples are read without being moved."""
    if a.store is not b.store and a.store.snapshot != b.store.snapshot:
        raise RequestError("The two sets are of different stores.")
    if a.choice is not None or b.choice is not None:
        raise RequestError("Give the sets with their probes, and per_gene's choices as pipeline=.")
    same = a.rows is b.rows or (
        a.rows is not None and b.rows is not None and np.array_equal(np.sort(a.rows), np.sort(b.rows))
    )
    if not same:
        raise RequestError("The two sets have different probes: choose the same genes in both.")
    if shared := len(np.intersect1d(a.columns, b.columns)):
        raise RequestError(
            f"{a.question} and {b.question} have {counted(shared, 'sample')} in common: choose places that "
            "do not overlap."
        )
    return replace(
        a,
        question=f"{a.question} against {b.question}",
        columns=np.union1d(a.columns, b.columns),
        labels={},
        notes=tuple(dict.fromkeys((*a.notes, *b.notes))),
    )


def _table(selection: Selection, columns: Columns) -> pd.DataFrame:
    names = LABELS[selection.dim]
    labels = selection.probes[list(names)].reset_index(drop=True)
    means = {name: columns.pop(name) for name in ("mean_a", "mean_b", "difference")}
    fold = {"fold_change": np.exp2(means["difference"])}
    fdr = {"fdr": stats.false_discovery_control(columns["p_value"])}
    table = labels.assign(**means, **fold, **columns, **fdr)
    return table.sort_values("difference", ascending=False, kind="stable", ignore_index=True)


LABELS = {
    "probe": ("probe_id", "probe_name", "gene_symbol", "reannotated_gene_symbol", "entrez_id"),
    "gene": ("gene_symbol", "entrez_id", "probe_id"),
}


@dataclass(frozen=True, eq=False)
class _Design:
    """Which sample is in which set and of which donor.

    Attributes
    ----------
    selection : Selection
        Both sets.
    in_a : (sample,) bool array
        Whether a sample is of set a.
    permutations, seed : int
    """

    selection: Selection
    in_a: NDArray[np.bool_]
    permutations: int
    seed: int

    @cached_property
    def pairs(self) -> dict[str, tuple[NDArray[np.intp], NDArray[np.intp]]]:
        """Donor -> positions of its samples in a and in b, for the donors with both."""
        donor = self.selection.store.sample_columns(["donor"])["donor"][self.selection.columns]
        found = {
            name: (np.flatnonzero(self.in_a & (donor == name)), np.flatnonzero(~self.in_a & (donor == name)))
            for name in self.selection.donors
        }
        return {name: (a, b) for name, (a, b) in found.items() if len(a) and len(b)}

    @cached_property
    def shuffled(self) -> Floats:
        """(sample, permutation) weights whose sum over samples is the mean difference of shuffled labels."""
        generator = np.random.default_rng(self.seed)
        weights = np.zeros((self.selection.shape[1], self.permutations))
        for a, b in self.pairs.values():
            own = np.r_[np.full(len(a), 1 / len(a)), np.full(len(b), -1 / len(b))] / len(self.pairs)
            columns = np.repeat(own[:, np.newaxis], self.permutations, axis=1)
            weights[np.r_[a, b]] = generator.permuted(columns, axis=0)
        return weights


# ---- effects, block by block ----


def _donor_effects(values: Floats, design: _Design) -> Columns:
    """Means of the donors' means, and each donor's difference as a column of its own."""
    means_a, means_b = (
        np.column_stack([values[:, pair[side]].mean(axis=1) for pair in design.pairs.values()])
        for side in (0, 1)
    )
    by_donor = means_a - means_b
    return {
        "mean_a": means_a.mean(axis=1),
        "mean_b": means_b.mean(axis=1),
        "difference": by_donor.mean(axis=1),
        "n_donors": np.full(len(values), len(design.pairs)),
        "n_higher": (by_donor > 0).sum(axis=1),
        "by_donor": by_donor,
    }


def _permuted_effects(values: Floats, design: _Design) -> Columns:
    effects = _donor_effects(values, design)
    del effects["by_donor"]
    reached = np.abs(effects["difference"]) * (1 - EQUAL)
    extreme = (np.abs(values @ design.shuffled) >= reached[:, np.newaxis]).sum(axis=1)
    return effects | {"p_value": (1 + extreme) / (1 + design.permutations)}


def _sample_effects(values: Floats, design: _Design) -> Columns:
    sides = values[:, design.in_a], values[:, ~design.in_a]
    mean_a, mean_b = (side.mean(axis=1) for side in sides)
    errors = [_variance(side) / side.shape[1] for side in sides]
    total = errors[0] + errors[1]
    parts = [error**2 / (side.shape[1] - 1) for error, side in zip(errors, sides, strict=True)]
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(total > 0, (mean_a - mean_b) / np.sqrt(total), np.nan)
        df = np.where(total > 0, total**2 / (parts[0] + parts[1]), np.nan)
    return {
        "mean_a": mean_a,
        "mean_b": mean_b,
        "difference": mean_a - mean_b,
        "t": t,
        "df": df,
        "p_value": np.where(total > 0, 2 * stats.t.sf(np.abs(t), df), 1.0),
    }


def _variance(values: Floats) -> Floats:
    """Variance over samples; 0 of a constant, whose mean may be off in the last bit."""
    constant = np.ptp(values, axis=1) == 0
    return np.where(constant, 0.0, values.var(axis=1, ddof=1))


# ---- the moderated t test ----


def _moderated(columns: Columns) -> Columns:
    """Add t, degrees of freedom and p of the donors' differences (Smyth 2004, equations in section 6)."""
    by_donor = columns.pop("by_donor")
    n_donors = by_donor.shape[1]
    df = n_donors - 1
    variance = by_donor.var(axis=1, ddof=1)
    prior_df, prior_variance = prior(variance, df)
    if math.isinf(prior_df):
        shrunk = np.full(len(variance), prior_variance)
    else:
        shrunk = (prior_df * prior_variance + df * variance) / (prior_df + df)
    total = min(prior_df + df, df * len(variance))  # no more than all genes together have
    with np.errstate(divide="ignore", invalid="ignore"):
        t = columns["difference"] / np.sqrt(shrunk / n_donors)
    t = np.where(np.isnan(t), 0.0, t)  # no difference, no variance
    p_value = 2 * stats.t.sf(np.abs(t), total)
    return columns | {"t": t, "df": np.full(len(t), float(total)), "p_value": p_value}


def prior(variance: Floats, df: int) -> tuple[float, float]:
    """Degrees of freedom and variance that all genes together give to each.

    Parameters
    ----------
    variance : (gene,) float64 array
    df : int
        Degrees of freedom of each.

    Returns
    -------
    df : float
        0: nothing is borrowed (fewer than 10 genes). Infinite: the genes' variances differ no more than
        chance has it.
    variance : float

    Notes
    -----
    Moments of the logarithm, Smyth (2004), section 6.2; `limma` calls it ``fitFDist``, and since 2017 takes
    the pooled variance where the degrees of freedom are infinite, which is its likeliest value.
    """
    median = float(np.median(variance))
    if len(variance) < MODERATED_FROM or median == 0:
        return 0.0, 0.0
    offset = np.maximum(variance, LEAST_VARIANCE * median)
    logs = np.log(offset)
    shifted = logs - special.digamma(df / 2) + math.log(df / 2)
    mean = float(shifted.mean())
    spread = float(shifted.var(ddof=1) - special.polygamma(1, df / 2))
    if spread <= 0:
        return math.inf, float(offset.mean())
    prior_df = 2 * trigamma_inverse(spread)
    return prior_df, math.exp(mean + special.digamma(prior_df / 2) - math.log(prior_df / 2))


def trigamma_inverse(value: float) -> float:
    """The y whose trigamma is `value` > 0, by Newton's method on 1 / trigamma, which is convex."""
    y = 0.5 + 1 / value
    for _ in range(50):
        trigamma = float(special.polygamma(1, y))
        step = trigamma * (1 - trigamma / value) / float(special.polygamma(2, y))
        y += step
        if abs(step) < 1e-10 * y:
            break
    return y


# ---- the tests by name ----


def _need_pairs(design: _Design, least: int, instead: str) -> None:
    if (n_pairs := len(design.pairs)) < least:
        raise RequestError(
            f"{design.selection.question}: {counted(n_pairs, 'donor')} with samples in both sets, and this "
            f"test needs {least}; test={instead!r} needs fewer, and says less."
        )


def _need_donors(design: _Design) -> None:
    _need_pairs(design, 2, "permutation" if design.pairs else "samples")


def _need_permutations(design: _Design) -> None:
    _need_pairs(design, 1, "samples")
    most = MOST_SHUFFLED // max(design.selection.shape[1], BLOCK)
    if not 1 <= design.permutations <= most:
        raise RequestError(
            f"permutations={design.permutations}: 1 to {most:,} are possible with "
            f"{counted(design.selection.shape[1], 'sample')}."
        )
    if design.seed < 0:
        raise RequestError(f"seed={design.seed}: 0 or more is needed.")


def _need_samples(design: _Design) -> None:
    sizes = (int(design.in_a.sum()), int((~design.in_a).sum()))
    if min(sizes) < 2:
        raise RequestError(
            f"{design.selection.question}: the sets have {sizes[0]} and {counted(sizes[1], 'sample')}; two "
            "each are needed."
        )


@dataclass(frozen=True)
class _Test:
    """A test: what it needs, its effects of a block, what is left to do with all blocks, whose samples."""

    check: Callable[[_Design], None]
    effects: Callable[[Floats, _Design], Columns]
    finish: Callable[[Columns], Columns] = lambda columns: columns
    donors: Callable[[_Design], list[str]] = lambda design: list(design.pairs)


TESTS = {
    "donors": _Test(_need_donors, _donor_effects, _moderated),
    "permutation": _Test(_need_permutations, _permuted_effects),
    "samples": _Test(_need_samples, _sample_effects, donors=lambda design: design.selection.donors),
}
