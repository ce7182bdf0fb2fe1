"""One probe for each gene: score the probes that pass the intensity filter, and choose the best of each gene.

`probe_scores` builds the scores lazily, `choose_probes` turns computed scores into a choice, and
`select_probes` does both.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from transforms.blocks import in_memory, matrix_of
from transforms.errors import ChoiceError
from transforms.kept import ChosenRows, Grid
from transforms.probes import ProbeSelection
from transforms.scoring import donors_of, method_of, mode_of, scoring

Floats = NDArray[np.float64]
Integers = NDArray[np.integer]


def select_probes(
    expression: xr.DataArray,
    probes: pd.DataFrame,
    samples: pd.DataFrame,
    *,
    probe_selection: str,
    donor_probes: str,
    keep: Integers | None = None,
    **options: Any,
) -> ProbeSelection:
    """Choose the probes that stand for each gene.

    The scores are computed here, with dask's current scheduler, one block of probes a task; a method that
    averages reads nothing.

    Parameters
    ----------
    expression, probes, samples, probe_selection, donor_probes, **options
        As for `transforms.scoring.scoring`.
    keep : (sample,) int array, optional
        Positions of prepared samples, ascending. What is read of them and the chosen probes stays where dask
        keeps results, if it can serve again.

    Returns
    -------
    ProbeSelection
        Genes sorted by symbol.

    Raises
    ------
    ChoiceError
        If a choice is unknown or impossible with these donors, or no gene is left.
    """
    donors, mode = donors_of(samples), mode_of(probe_selection, donor_probes)
    if method_of(probe_selection).score is None:
        return average_probes(probes, donors)
    choices = {"probe_selection": probe_selection, "donor_probes": mode}
    planned = scoring(expression, probes, samples, **options, **choices)  # type: ignore[arg-type]
    data = matrix_of(expression)
    if keep is None or in_memory(data) or not planned.reads_expression:
        selection = choose_probes(planned.lazy().compute(), probes, donors, **choices)
        if keep is None or not in_memory(data):
            return selection
        columns = samples["column"].to_numpy()[keep]
        return replace(selection, kept=ChosenRows.of_grid(Grid.of(data), selection.rows, keep, columns))
    scores, kept = planned.computed_and_kept(keep)
    selection = choose_probes(scores, probes, donors, **choices)
    return replace(selection, kept=kept.chosen(selection.rows))


def probe_scores(
    expression: xr.DataArray, probes: pd.DataFrame, samples: pd.DataFrame, **choices: Any
) -> xr.DataArray:
    """Score of every probe, lazily; the parameters are those of `transforms.scoring.scoring`.

    Returns
    -------
    xarray.DataArray
        Dims (probe, pool); probes in the order of `probes`, coordinate ``pool`` = "all", or the donors, or
        the pairs of donors. Building it computes nothing.

    Raises
    ------
    ChoiceError
        If a choice is unknown, or impossible with these donors.
    """
    return scoring(expression, probes, samples, **choices).lazy()


def choose_probes(
    scores: xr.DataArray,
    probes: pd.DataFrame,
    donors: Sequence[str],
    *,
    probe_selection: str,
    donor_probes: str,
) -> ProbeSelection:
    """Choose each gene's best probe from computed scores.

    Between equal scores the first in the order of `probes` wins. An undefined (NaN) score loses to any other.
    ``common`` takes the donors' most frequent choice; of several the smallest probe_id or, where the method
    says so, the first in the order of `probes`.

    A gene without any defined score is dropped. Where each donor chooses (which abagen leaves undefined, or
    lets fail, if donors end up with different genes): ``independent`` keeps a gene only if every donor could
    choose, because each gene needs a value in every donor; ``common`` lets those vote that could.

    Parameters
    ----------
    scores : xarray.DataArray
        Output of :func:`probe_scores` for the same choices.
    probes : pandas.DataFrame
        The probes scored.
    donors : sequence of str
        All donors that get a choice.
    probe_selection, donor_probes : str
        As in :func:`probe_scores`.

    Returns
    -------
    ProbeSelection
        One probe a gene and donor.

    Raises
    ------
    ChoiceError
        If no gene is left.
    """
    values = scores.transpose("probe", "pool").to_numpy()
    symbols, codes = np.unique(probes["gene_symbol"].to_numpy(dtype=object), return_inverse=True)
    method = method_of(probe_selection)
    ranked = np.where(np.isnan(values), method.undefined, values)
    chosen = np.stack([_best(column, codes, len(symbols)) for column in ranked.T], axis=1)
    if mode_of(probe_selection, donor_probes) == "common":
        order = np.arange(len(probes)) if method.first_wins else probes["probe_id"].to_numpy()
        chosen = _most_frequent(chosen, order)
    kept = (chosen >= 0).all(axis=1)
    if not kept.any():
        raise ChoiceError(
            f"probe_selection {probe_selection!r} is undefined for every gene (too few samples, "
            "or no structure that the donors share): choose another method or more donors"
        )
    chosen = chosen[kept]
    rows = probes["row"].to_numpy()
    pools = list(scores["pool"].to_numpy())
    pool_of = {donor: pools.index(donor) if donor in pools else 0 for donor in donors}
    return ProbeSelection(
        genes=_gene_table(probes, symbols[kept], chosen, values, np.bincount(codes)[kept]),
        rows={donor: rows[chosen[:, pool]] for donor, pool in pool_of.items()},
        starts=np.arange(len(chosen) + 1),
    )


def average_probes(probes: pd.DataFrame, donors: Sequence[str]) -> ProbeSelection:
    """Let all of a gene's probes stand for it together, equally, in every donor.

    Parameters
    ----------
    probes : pandas.DataFrame
        Annotated and filtered probes.
    donors : sequence of str
        All donors.

    Returns
    -------
    ProbeSelection
        All probes of each gene; no probe_id, no score.
    """
    symbols, codes, counts = np.unique(
        probes["gene_symbol"].to_numpy(dtype=object), return_inverse=True, return_counts=True
    )
    grouped = probes.iloc[np.argsort(codes, kind="stable")]
    starts = np.r_[0, counts.cumsum()]
    genes = pd.DataFrame(
        {
            "gene_symbol": symbols,
            "entrez_id": grouped["entrez_id"].to_numpy()[starts[:-1]],
            "probe_id": np.where(counts == 1, grouped["probe_id"].to_numpy()[starts[:-1]], -1),
            "score": np.nan,
            "n_probes": counts,
        }
    )
    return ProbeSelection(genes, dict.fromkeys(donors, grouped["row"].to_numpy()), starts)


def _best(scores: Floats, codes: Integers, n_genes: int) -> Integers:
    """Position of each gene's first largest score, -1 for a gene without one; shape (n_genes,)."""
    defined = np.flatnonzero(~np.isnan(scores))
    ranking = defined[np.lexsort((defined, -scores[defined], codes[defined]))]
    genes, firsts = np.unique(codes[ranking], return_index=True)
    best = np.full(n_genes, -1)
    best[genes] = ranking[firsts]
    return best


def _most_frequent(chosen: Integers, order: Integers) -> Integers:
    """Each gene's most frequent choice, of several the first in `order`, for every pool: (genes, pools)."""
    ids = order[chosen]
    agreeing = chosen[:, :, np.newaxis] == chosen[:, np.newaxis, :]
    votes = np.where(chosen >= 0, agreeing.sum(axis=2), 0)
    winning = votes == votes.max(axis=1, keepdims=True)
    winner = np.where(winning, ids, np.iinfo(ids.dtype).max).argmin(axis=1)
    return np.broadcast_to(np.take_along_axis(chosen, winner[:, np.newaxis], axis=1), chosen.shape)


def _gene_table(
    probes: pd.DataFrame, symbols: NDArray[Any], chosen: Integers, scores: Floats, n_probes: Integers
) -> pd.DataFrame:
    ids = probes["probe_id"].to_numpy()[chosen]
    return pd.DataFrame(
        {
            "gene_symbol": symbols,
            "entrez_id": probes["entrez_id"].to_numpy()[chosen[:, 0]],
            "probe_id": np.where((ids == ids[:, :1]).all(axis=1), ids[:, 0], -1),
            "score": pd.DataFrame(np.take_along_axis(scores, chosen, axis=0)).mean(axis=1),
            "n_probes": n_probes,
        }
    )
