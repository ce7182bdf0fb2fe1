"""One probe for each gene: score the probes that pass the intensity filter, and choose the best of each gene.

`probe_scores` builds the scores lazily, `choose_probes` turns computed scores into a choice, and
`select_probes` does both.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from transforms.blocks import as_slice, gather, rearranged
from transforms.errors import ChoiceError
from transforms.probes import ProbeSelection
from transforms.scores import corr_intensity, corr_variance, max_intensity, max_variance, pc_loading
from transforms.stability import diff_stability, rnaseq_correlation

PROBES_PER_BLOCK = 2_000
DONOR_PROBES = ("aggregate", "independent", "common")

Floats = NDArray[np.float64]
Integers = NDArray[np.integer]
Score = Callable[..., Floats]


@dataclass(frozen=True)
class SelectionMethod:
    """How one value a gene comes out of its probes.

    Attributes
    ----------
    score : callable or None
        Called with the expression (probes, samples), each row's gene and the samples' table; one score a
        probe, the largest is chosen. None: nothing is chosen, the probes are averaged.
    pools_donors : bool
        The method always looks at all donors together, whatever ``donor_probes`` says.
    whole_genes : bool
        A probe's score depends on the gene's other probes.
    keeps_undefined : bool
        A gene whose scores are undefined is represented by its first probe, not dropped.
    min_donors : int
        Donors without which the score does not exist.
    needs_rnaseq : bool
        The score also takes ``rnaseq``, tables of RNA-seq profiles.
    """

    score: Score | None
    pools_donors: bool = False
    whole_genes: bool = False
    keeps_undefined: bool = False
    min_donors: int = 1
    needs_rnaseq: bool = False


_AVERAGE = SelectionMethod(score=None, pools_donors=True)

SELECTIONS: Mapping[str, SelectionMethod] = {
    "average": _AVERAGE,
    "mean": _AVERAGE,
    "max_intensity": SelectionMethod(max_intensity),
    "max_variance": SelectionMethod(max_variance),
    "pc_loading": SelectionMethod(pc_loading, whole_genes=True, keeps_undefined=True),
    "corr_intensity": SelectionMethod(corr_intensity, whole_genes=True, keeps_undefined=True),
    "corr_variance": SelectionMethod(corr_variance, whole_genes=True, keeps_undefined=True),
    "diff_stability": SelectionMethod(diff_stability, pools_donors=True, min_donors=2),
    "rnaseq": SelectionMethod(rnaseq_correlation, pools_donors=True, needs_rnaseq=True),
}


def select_probes(
    expression: xr.DataArray,
    probes: pd.DataFrame,
    samples: pd.DataFrame,
    *,
    probe_selection: str,
    donor_probes: str,
    rnaseq: Mapping[str, pd.DataFrame] | None = None,
    probes_per_block: int = PROBES_PER_BLOCK,
) -> ProbeSelection:
    """Choose the probes that stand for each gene.

    The parameters are those of :func:`probe_scores`. The scores are computed here, with dask's current
    scheduler, one block of probes a task; a method that averages reads nothing.

    Returns
    -------
    ProbeSelection
        Genes sorted by symbol.

    Raises
    ------
    ChoiceError
        If a choice is unknown or impossible with these donors, or no gene is left.
    """
    choices = {"probe_selection": probe_selection, "donor_probes": donor_probes}
    donors = _donors(samples)
    if _method(probe_selection).score is None:
        _pooled(probe_selection, donor_probes)
        return average_probes(probes, donors)
    scores = probe_scores(
        expression, probes, samples, **choices, rnaseq=rnaseq, probes_per_block=probes_per_block
    )
    return choose_probes(scores.compute(), probes, donors, **choices)


def probe_scores(
    expression: xr.DataArray,
    probes: pd.DataFrame,
    samples: pd.DataFrame,
    *,
    probe_selection: str,
    donor_probes: str,
    rnaseq: Mapping[str, pd.DataFrame] | None = None,
    probes_per_block: int = PROBES_PER_BLOCK,
) -> xr.DataArray:
    """Score of every probe, lazily.

    Parameters
    ----------
    expression : xarray.DataArray
        Dims (probe, sample), log2 intensity, dask-backed.
    probes : pandas.DataFrame
        Annotated and filtered probes (``probe_id``, ``gene_symbol``, ``entrez_id``, ``row``).
    samples : pandas.DataFrame
        Prepared samples (``donor``, ``structure_id``, ``column``).
    probe_selection : str
        A key of ``SELECTIONS`` that scores.
    donor_probes : {"aggregate", "independent", "common"}
        Score over all donors' samples together, or in each donor.
    rnaseq : mapping of str to pandas.DataFrame, optional
        For ``probe_selection="rnaseq"``: donor -> mean TPM, gene symbols x structure ids.
    probes_per_block : int
        About how many probes one task holds: 2,000 probes x 3,702 samples are 59 MB. Does not change the
        result.

    Returns
    -------
    xarray.DataArray
        Dims (probe, pool); probes in the order of `probes`, coordinate ``pool`` = "all", or the donors.
        Building it computes nothing.

    Raises
    ------
    ChoiceError
        If a choice is unknown, or impossible with these donors.
    """
    method = _method(probe_selection)
    pools = _pools(samples, pooled=_pooled(probe_selection, donor_probes))
    tables = _usable_rnaseq(rnaseq or {}, _donors(samples)) if method.needs_rnaseq else {}
    _check_scores_exist(probe_selection, _donors(samples))
    symbols = probes["gene_symbol"].to_numpy(dtype=object)
    units = pd.factorize(symbols)[0] if method.whole_genes else np.arange(len(probes))
    blocks = split_into_blocks(units, probes["row"].to_numpy(), probes_per_block)
    scored = [
        _scored(
            gather(expression, probes["row"].to_numpy()[block], samples["column"].to_numpy()),
            _bound_score(method, tables, symbols[block]),
            symbols[block],
            samples[["donor", "structure_id"]],
            tuple(pools.values()),
        )
        for block in blocks
    ]
    places = np.argsort(np.concatenate(blocks))
    data = rearranged(da.concatenate(scored, axis=0).rechunk(-1), places, np.arange(len(pools)))
    return xr.DataArray(data, dims=("probe", "pool"), coords={"pool": list(pools)}, name="score")


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
    ``common`` takes the donors' most frequent choice, the smallest probe_id of several.

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
    ranked = np.nan_to_num(values, nan=np.inf) if _method(probe_selection).keeps_undefined else values
    chosen = np.stack([_best(column, codes, len(symbols)) for column in ranked.T], axis=1)
    if donor_probes == "common":
        chosen = _most_frequent(chosen, probes["probe_id"].to_numpy())
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


def _method(probe_selection: str) -> SelectionMethod:
    if probe_selection not in SELECTIONS:
        raise ChoiceError(
            f"probe_selection {probe_selection!r} is unknown: choose one of {', '.join(SELECTIONS)}"
        )
    return SELECTIONS[probe_selection]


def _pooled(probe_selection: str, donor_probes: str) -> bool:
    """Whether all donors' samples are scored together."""
    if donor_probes not in DONOR_PROBES:
        raise ChoiceError(
            f"donor_probes {donor_probes!r} is unknown: choose one of {', '.join(DONOR_PROBES)}"
        )
    return donor_probes == "aggregate" or _method(probe_selection).pools_donors


def _donors(samples: pd.DataFrame) -> list[str]:
    return list(pd.unique(samples["donor"].to_numpy(dtype=object)))


def _check_scores_exist(probe_selection: str, donors: Sequence[str]) -> None:
    method = _method(probe_selection)
    if method.score is None:
        raise ChoiceError(f"probe_selection {probe_selection!r} scores no probe: it averages them")
    if len(donors) < method.min_donors:
        raise ChoiceError(
            f"probe_selection {probe_selection!r} compares donors and needs {method.min_donors} or more, "
            f"not {len(donors)}: add donors or choose another method"
        )


def _usable_rnaseq(rnaseq: Mapping[str, pd.DataFrame], donors: Sequence[str]) -> Mapping[str, pd.DataFrame]:
    usable = {donor: table for donor, table in rnaseq.items() if donor in donors}
    if not usable:
        raise ChoiceError(
            f"probe_selection 'rnaseq' needs RNA-seq of one of the donors {', '.join(donors)}, and there is "
            f"{'that of ' + ', '.join(rnaseq) if rnaseq else 'none'}: add one or choose another method"
        )
    return usable


def _pools(samples: pd.DataFrame, *, pooled: bool) -> dict[str, Integers]:
    """Name -> sample numbers scored together."""
    if pooled:
        return {"all": np.arange(len(samples))}
    donors = samples["donor"].to_numpy(dtype=object)
    return {donor: np.flatnonzero(donors == donor) for donor in _donors(samples)}


def split_into_blocks(units: Integers, rows: Integers, size: int) -> list[Integers]:
    """Split probes into blocks of neighbours on the probe axis.

    Parameters
    ----------
    units : ndarray of int
        What must stay together (a gene's number for each of its probes); within it, probes keep their order.
    rows : ndarray of int
        Each probe's position on the probe axis.
    size : int
        Probes a block; the last unit of a block may go beyond it.

    Returns
    -------
    list of ndarray of int
        Positions in `units`, block by block; each probe once.
    """
    first_row = pd.Series(rows).groupby(units).transform("min").to_numpy()
    order = np.argsort(first_row, kind="stable")
    unit_start = np.searchsorted(first_row[order], first_row[order])
    cuts = np.flatnonzero(np.diff(unit_start // size)) + 1
    return np.split(order, cuts)


def _bound_score(method: SelectionMethod, tables: Mapping[str, pd.DataFrame], symbols: NDArray[Any]) -> Score:
    """The method's score function, holding the RNA-seq rows of its block's genes if it wants them."""
    assert method.score is not None  # noqa: S101 - checked with a message by _check_scores_exist
    if not method.needs_rnaseq:
        return method.score
    own = {donor: table[table.index.isin(symbols)] for donor, table in tables.items()}
    return partial(method.score, rnaseq=own)


def _scored(
    block: da.Array, score: Score, genes: NDArray[Any], samples: pd.DataFrame, pools: tuple[Integers, ...]
) -> da.Array:
    """Scores of one block's probes, shape (probes, pools)."""
    scores: da.Array = da.map_blocks(
        _score_block,
        block,
        score=score,
        genes=genes,
        samples=samples,
        pools=pools,
        chunks=(block.chunks[0], (len(pools),)),
        dtype=np.float64,
        meta=np.empty((0, 0)),
    )
    return scores


def _score_block(
    block: Floats, *, score: Score, genes: NDArray[Any], samples: pd.DataFrame, pools: tuple[Integers, ...]
) -> Floats:
    return np.stack([score(block[:, as_slice(pool)], genes, samples.iloc[pool]) for pool in pools], axis=1)


def _best(scores: Floats, codes: Integers, n_genes: int) -> Integers:
    """Position of each gene's first largest score, -1 for a gene without one; shape (n_genes,)."""
    defined = np.flatnonzero(~np.isnan(scores))
    ranking = defined[np.lexsort((defined, -scores[defined], codes[defined]))]
    genes, firsts = np.unique(codes[ranking], return_index=True)
    best = np.full(n_genes, -1)
    best[genes] = ranking[firsts]
    return best


def _most_frequent(chosen: Integers, probe_ids: Integers) -> Integers:
    """Each gene's most frequent choice, the smallest probe_id of several, for every pool: (genes, pools)."""
    ids = probe_ids[chosen]
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
