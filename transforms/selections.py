"""How a gene's probes are chosen between: every published method, by name, as a row of a table."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from transforms.scores import (
    coefficient_of_variation,
    corr_intensity,
    corr_variance,
    first_component_weight,
    max_intensity,
    max_variance,
    pc_loading,
    random_number,
    times_detected,
)
from transforms.stability import Profiles, diff_stability, pair_stability, rnaseq_by_well, rnaseq_correlation

DONOR_PROBES = ("aggregate", "independent", "common")

Floats = NDArray[np.float64]
Score = Callable[..., Floats]


@dataclass(frozen=True)
class ScoreOptions:
    """Choices that some selections take.

    Attributes
    ----------
    rnaseq_threshold : float
        ``RNAseq``: the correlation that a gene's best probe must exceed.
    rnaseq_significance : float or None
        ``RNAseq``: its p value must be below; None for any.
    seed : int
        ``Random``: equal seeds draw equal probes.
    """

    rnaseq_threshold: float = 0.2
    rnaseq_significance: float | None = None
    seed: int = 0


Arguments = Callable[[pd.DataFrame, Mapping[str, pd.DataFrame], ScoreOptions], dict[str, Any]]


@dataclass(frozen=True)
class SelectionMethod:
    """How one value a gene comes out of its probes.

    Attributes
    ----------
    score : callable or None
        Called with the expression (probes, samples), each row's gene and the samples' table; one score a
        probe, the largest is chosen. None: nothing is chosen, the probes are averaged.
    donor_probes : str or None
        The one mode that the method has, whatever ``donor_probes`` says; None: any of `DONOR_PROBES`.
    whole_genes : bool
        A probe's score depends on the gene's other probes.
    reads : {"expression", "detected", ""}
        What the score is called with; "": an array of that shape without content.
    undefined : float
        Where an undefined (NaN) score ranks: +inf first, -inf last. NaN: nowhere, and a gene without
        any other score is dropped.
    first_wins : bool
        Of several probes with the most votes the first in the probes' order wins, not the smallest probe_id.
    pairs : bool
        Pairs of donors choose, not donors: the score gives a column a pair.
    min_donors : int
        Donors without which the score does not exist.
    rnaseq_by : {"", "structure", "well"}
        Tables of RNA-seq that the method needs: mean TPM of gene symbols x structures, or Entrez ids x wells.
    arguments : callable, optional
        The score's further keyword arguments, from a block's probes, the RNA-seq tables and the options.
    prepare : callable, optional
        From the samples' table, what the score makes of it for all blocks: its argument ``prepared``.
    in_parts : bool
        Parts of a block's genes can be scored on their own; not where an argument is of the block's probes.
    """

    score: Score | None
    donor_probes: str | None = None
    whole_genes: bool = False
    reads: str = "expression"
    undefined: float = np.nan
    first_wins: bool = False
    pairs: bool = False
    min_donors: int = 1
    rnaseq_by: str = ""
    arguments: Arguments | None = None
    prepare: Callable[[pd.DataFrame], Any] | None = None
    in_parts: bool = True


def _by_symbol(
    probes: pd.DataFrame,
    tables: Mapping[str, pd.DataFrame],
    options: ScoreOptions,  # noqa: ARG001
) -> dict[str, Any]:
    symbols = pd.unique(probes["gene_symbol"].to_numpy(dtype=object))
    return {"rnaseq": {donor: _rows_of(table, symbols) for donor, table in tables.items()}}


def _rows_of(table: pd.DataFrame, symbols: NDArray[np.object_]) -> pd.DataFrame:
    found = table.index.get_indexer(symbols)
    return table.iloc[found[found >= 0]]


def _by_entrez_id(
    probes: pd.DataFrame, tables: Mapping[str, pd.DataFrame], options: ScoreOptions
) -> dict[str, Any]:
    ids = probes["entrez_id"].to_numpy()
    return {
        "rnaseq": {donor: table[table.index.isin(ids)] for donor, table in tables.items()},
        "entrez_id": ids,
        "threshold": options.rnaseq_threshold,
        "significance": options.rnaseq_significance,
    }


def _by_seed(
    probes: pd.DataFrame,
    tables: Mapping[str, pd.DataFrame],  # noqa: ARG001
    options: ScoreOptions,
) -> dict[str, Any]:
    return {"probe_id": probes["probe_id"].to_numpy(), "seed": options.seed}


_AVERAGE = SelectionMethod(score=None, donor_probes="aggregate")

ABAGEN_SELECTIONS: Mapping[str, SelectionMethod] = {
    "average": _AVERAGE,
    "mean": _AVERAGE,
    "max_intensity": SelectionMethod(max_intensity),
    "max_variance": SelectionMethod(max_variance),
    "pc_loading": SelectionMethod(pc_loading, whole_genes=True, undefined=np.inf),
    "corr_intensity": SelectionMethod(corr_intensity, whole_genes=True, undefined=np.inf),
    "corr_variance": SelectionMethod(corr_variance, whole_genes=True, undefined=np.inf),
    "diff_stability": SelectionMethod(
        diff_stability, donor_probes="aggregate", min_donors=2, prepare=Profiles.of
    ),
    "rnaseq": SelectionMethod(
        rnaseq_correlation,
        donor_probes="aggregate",
        rnaseq_by="structure",
        arguments=_by_symbol,
        in_parts=False,
        prepare=Profiles.of,
    ),
}
"""The probe selections of abagen 0.1.3 (Markello et al. 2021), under its names."""

_voting = partial(SelectionMethod, donor_probes="common", undefined=-np.inf, first_wins=True)

ARNATKEVICIUTE_SELECTIONS: Mapping[str, SelectionMethod] = {
    "Variance": _voting(max_variance),
    "CV": _voting(coefficient_of_variation),
    "LessNoise": _voting(times_detected, reads="detected"),
    "PC": _voting(first_component_weight, whole_genes=True),
    "maxIntensity": _voting(max_intensity),
    "maxCorrelation_intensity": _voting(corr_intensity, whole_genes=True),
    "maxCorrelation_variance": _voting(corr_variance, whole_genes=True),
    "Mean": _AVERAGE,
    "Random": _voting(random_number, reads="", arguments=_by_seed, in_parts=False),
    "RNAseq": SelectionMethod(
        rnaseq_by_well,
        donor_probes="aggregate",
        whole_genes=True,
        rnaseq_by="well",
        arguments=_by_entrez_id,
        in_parts=False,
    ),
    "DS": _voting(pair_stability, pairs=True, min_donors=2, prepare=Profiles.of),
}
"""The probe selections of AHBAprocessing (Arnatkeviciute et al. 2019), under its names.

Each donor chooses and the most frequent choice stands for the gene in all of them (``DS``: each pair of
donors; ``RNAseq``: all donors together).
"""

SELECTIONS: Mapping[str, SelectionMethod] = {**ABAGEN_SELECTIONS, **ARNATKEVICIUTE_SELECTIONS}
