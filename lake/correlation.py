"""Genes whose spatial profile is most like one gene's, found block by block over all probes or genes.

A profile is compared within each donor, so that what donors differ in (batch, age, delay) neither makes nor
breaks a likeness; the donors' correlations are averaged with the number of their samples as weights. Samples
are neighbours in space, so p values that take them for independent mean nothing: none are given.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from lake.comparison import LABELS
from lake.errors import RequestError
from lake.names import Genes
from lake.queries import for_donors
from lake.selection import Selection, everything, named

if TYPE_CHECKING:
    from lake.store import Lake
    from transforms.pipeline import Pipeline

Floats = NDArray[np.float64]

ROUNDING = 4 * np.finfo(np.float64).eps
BLOCK = 256  # probes at once: their profiles stay in the processor's cache
CANCELLED = 1e-12  # length of a mean of profiles of length 1; less is rounding
FEWEST = 3  # samples of a donor; two always correlate perfectly


def _ranks(values: Floats) -> Floats:
    """Ranks of each row from 1 on, the mean of theirs for equal values; rarely are there any."""
    order = np.argsort(values, axis=1)
    ascending = np.take_along_axis(values, order, axis=1)
    ranks = np.empty(values.shape)
    np.put_along_axis(ranks, order, np.arange(1.0, values.shape[1] + 1)[np.newaxis], axis=1)
    tied = (ascending[:, 1:] == ascending[:, :-1]).any(axis=1)
    ranks[tied] = rankdata(values[tied], axis=1)  # all of them so would take three times as long
    return ranks


METHODS: dict[str, Callable[[Floats], Floats]] = {
    "pearson": lambda values: values,
    "spearman": _ranks,
}


def correlated(
    store: "Lake",
    gene: Genes,
    *,
    within: Selection | None = None,
    method: str = "pearson",
    pipeline: "Pipeline | None" = None,
    donors: str | Sequence[str] = "all",
    reannotated: bool = True,
) -> pd.DataFrame:
    """All probes (or genes), those most like a gene first.

    Parameters
    ----------
    store : Lake
    gene : str or int
        A gene or probe, see `lake.names.resolve`. Of several probes the mean of their standardised profiles
        is taken, of those that vary.
    within : Selection, optional
        Samples over which profiles are compared, such as ``store.structure("Cx")``; all if left out. If it
        has genes chosen, only those are searched.
    method : {"pearson", "spearman"}
    pipeline : Pipeline, optional
        Compare genes, one value each by the pipeline's choice, and not probes.
    donors : "all" or sequence of str
    reannotated : bool
        Whose symbols, with probes.

    Returns
    -------
    pandas.DataFrame
        Labels of the probe (or gene) and ``r``: the mean of the donors' correlations, weighted by samples.
        Sorted by ``r``, highest first; the gene itself is among them; NaN, last, where a profile is constant
        in a donor. ``attrs`` say what was asked.

    Raises
    ------
    RequestError
        If the gene, the method or a donor is unknown, no donor has three samples, or the gene's profile is
        constant in a donor, or its probes' profiles are opposites.
    """
    if method not in METHODS:
        raise RequestError(f"method={method!r} is unknown; choose one of {', '.join(METHODS)}.")
    if within is not None and within.choice is not None:
        raise RequestError("Give the samples with their probes, and per_gene's choices as pipeline=.")
    places = _of_enough(for_donors(everything(store) if within is None else within, donors))
    asked = replace(places, rows=None).genes(gene, reannotated=reannotated)
    searched = places if pipeline is None else places.per_gene(pipeline)
    seeds = asked if pipeline is None else asked.per_gene(pipeline)
    profile = _profile(seeds, places, method)
    r = [_correlations(values, profile, places, method) for _, values in searched.blocks(BLOCK)]
    table = searched.probes[list(LABELS[searched.dim])].reset_index(drop=True).assign(r=np.concatenate(r))
    table = table.sort_values("r", ascending=False, kind="stable", ignore_index=True)
    question = f"{method} with {named(gene)} over {places.question}"
    table.attrs = {**replace(asked, question=question).provenance(), "donors": ", ".join(places.donors)}
    return table


def _of_enough(places: Selection) -> Selection:
    """The samples of donors that have enough of them."""
    donor = places.store.sample_columns(["donor"])["donor"][places.columns]
    _, of, counts = np.unique(donor, return_inverse=True, return_counts=True)
    enough = counts[of] >= FEWEST
    if not enough.any():
        raise RequestError(f"{places.question}: no donor has {FEWEST} samples, which a correlation needs.")
    return places if enough.all() else places.where(enough, places.question)


def _profile(seeds: Selection, places: Selection, method: str) -> list[Floats]:
    """The mean standardised profile of the probes that vary, (sample,) of each donor."""
    values, means = seeds.read(), []
    for donor, (at, _) in places.parts.items():
        centred, length = _centred(METHODS[method](values[:, at]))
        varies = ~np.isnan(length)
        if not varies.any():
            raise RequestError(
                f"{seeds.question} is constant in donor {donor}, and nothing correlates with a constant: "
                "choose other donors or samples."
            )
        mean = (centred[varies] / length[varies, np.newaxis]).mean(axis=0)
        if np.linalg.norm(mean) <= CANCELLED:
            raise RequestError(
                f"The probes of {seeds.question} cancel each other out in donor {donor}: name one of them."
            )
        means.append(mean)
    return means


def _correlations(values: Floats, profile: list[Floats], places: Selection, method: str) -> Floats:
    """(probe,) mean of the donors' correlations with the profile, weighted by samples."""
    total = np.zeros(len(values))
    for (at, _), own in zip(places.parts.values(), profile, strict=True):
        centred, length = _centred(METHODS[method](values[:, at]))
        total += centred @ own / length * (len(own) / np.linalg.norm(own))
    mean: Floats = np.clip(total / values.shape[1], -1, 1)  # rounding leaves the range
    return mean


def _centred(values: Floats) -> tuple[Floats, Floats]:
    """Profiles less their means, and their lengths; NaN of a constant one, whatever rounding made of it."""
    means = values.mean(axis=1)
    centred = values - means[:, np.newaxis]
    length = np.sqrt(np.einsum("ij,ij->i", centred, centred))
    length[length <= ROUNDING * np.abs(means) * np.sqrt(values.shape[1])] = np.nan
    return centred, length
