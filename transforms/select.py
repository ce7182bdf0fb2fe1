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
from transforms.stability import (
    diff_stability,
    donor_pairs,
    pair_stability,
    rnaseq_by_well,
    rnaseq_correlation,
)

PROBES_PER_BLOCK = 1_500
DONOR_PROBES = ("aggregate", "independent", "common")
SAMPLE_COLUMNS = ["donor", "structure_id", "well_id"]  # that a score can ask for

Floats = NDArray[np.float64]
Integers = NDArray[np.integer]
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


DEFAULTS = ScoreOptions()
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


def _by_symbol(
    probes: pd.DataFrame,
    tables: Mapping[str, pd.DataFrame],
    options: ScoreOptions,  # noqa: ARG001
) -> dict[str, Any]:
    symbols = probes["gene_symbol"].to_numpy(dtype=object)
    return {"rnaseq": {donor: table[table.index.isin(symbols)] for donor, table in tables.items()}}


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
    "diff_stability": SelectionMethod(diff_stability, donor_probes="aggregate", min_donors=2),
    "rnaseq": SelectionMethod(
        rnaseq_correlation, donor_probes="aggregate", rnaseq_by="structure", arguments=_by_symbol
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
    "Random": _voting(random_number, reads="", arguments=_by_seed),
    "RNAseq": SelectionMethod(
        rnaseq_by_well,
        donor_probes="aggregate",
        whole_genes=True,
        rnaseq_by="well",
        arguments=_by_entrez_id,
    ),
    "DS": _voting(pair_stability, pairs=True, min_donors=2),
}
"""The probe selections of AHBAprocessing (Arnatkeviciute et al. 2019), under its names.

Each donor chooses and the most frequent choice stands for the gene in all of them (``DS``: each pair of
donors; ``RNAseq``: all donors together).
"""

SELECTIONS: Mapping[str, SelectionMethod] = {**ABAGEN_SELECTIONS, **ARNATKEVICIUTE_SELECTIONS}


def select_probes(
    expression: xr.DataArray,
    probes: pd.DataFrame,
    samples: pd.DataFrame,
    *,
    probe_selection: str,
    donor_probes: str,
    rnaseq: Mapping[str, pd.DataFrame] | None = None,
    detected: xr.DataArray | None = None,
    options: ScoreOptions = DEFAULTS,
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
    donors, mode = _donors(samples), _mode(probe_selection, donor_probes)
    if _method(probe_selection).score is None:
        return average_probes(probes, donors)
    scores = probe_scores(
        expression,
        probes,
        samples,
        probe_selection=probe_selection,
        donor_probes=mode,
        rnaseq=rnaseq,
        detected=detected,
        options=options,
        probes_per_block=probes_per_block,
    ).compute()
    return choose_probes(scores, probes, donors, probe_selection=probe_selection, donor_probes=mode)


def probe_scores(
    expression: xr.DataArray,
    probes: pd.DataFrame,
    samples: pd.DataFrame,
    *,
    probe_selection: str,
    donor_probes: str,
    rnaseq: Mapping[str, pd.DataFrame] | None = None,
    detected: xr.DataArray | None = None,
    options: ScoreOptions = DEFAULTS,
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
        Prepared samples (``donor``, ``structure_id``, ``column``; ``well_id`` for ``RNAseq``).
    probe_selection : str
        A key of ``SELECTIONS`` that scores.
    donor_probes : {"aggregate", "independent", "common"}
        Score over all donors' samples together, or in each donor.
    rnaseq : mapping of str to pandas.DataFrame, optional
        For ``probe_selection="rnaseq"``: donor -> mean TPM, gene symbols x structure ids; for ``"RNAseq"``:
        donor -> mean TPM, Entrez ids x well ids.
    detected : xarray.DataArray, optional
        For ``probe_selection="LessNoise"``: PACall, as `expression`, bool.
    options : ScoreOptions
        For ``"RNAseq"`` and ``"Random"``.
    probes_per_block : int
        About how many probes one task holds at the most: 1,000 probes x 3,702 samples are 30 MB. Does not
        change the result.

    Returns
    -------
    xarray.DataArray
        Dims (probe, pool); probes in the order of `probes`, coordinate ``pool`` = "all", or the donors, or
        the pairs of donors.
        Building it computes nothing.

    Raises
    ------
    ChoiceError
        If a choice is unknown, or impossible with these donors.
    """
    method = _method(probe_selection)
    donors = _donors(samples)
    pooled = method.pairs or _mode(probe_selection, donor_probes) == "aggregate"
    pools = _pools(samples, pooled=pooled)
    names = donor_pairs(donors) if method.pairs else list(pools)
    tables = _usable_rnaseq(probe_selection, rnaseq or {}, donors) if method.rnaseq_by else {}
    _check_scores_exist(probe_selection, donors)
    array = _read_by(probe_selection, expression, detected)
    symbols = probes["gene_symbol"].to_numpy(dtype=object)
    units = pd.factorize(symbols)[0] if method.whole_genes else np.arange(len(probes))
    chunks = da.asanyarray(array.transpose("probe", "sample").data).chunks[0]
    blocks = split_into_blocks(units, probes["row"].to_numpy(), probes_per_block, chunks=chunks)
    scored = [
        _scored(
            gather(array, probes["row"].to_numpy()[block], samples["column"].to_numpy()),
            _bound_score(method, probes.iloc[block], tables, options),
            symbols[block],
            samples.filter(items=SAMPLE_COLUMNS),
            tuple(pools.values()),
            len(names),
        )
        for block in blocks
    ]
    places = np.argsort(np.concatenate(blocks))
    data = rearranged(da.concatenate(scored, axis=0).rechunk(-1), places, np.arange(len(names)))
    return xr.DataArray(data, dims=("probe", "pool"), coords={"pool": names}, name="score")


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
    method = _method(probe_selection)
    ranked = np.where(np.isnan(values), method.undefined, values)
    chosen = np.stack([_best(column, codes, len(symbols)) for column in ranked.T], axis=1)
    if _mode(probe_selection, donor_probes) == "common":
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


def _method(probe_selection: str) -> SelectionMethod:
    if probe_selection not in SELECTIONS:
        raise ChoiceError(
            f"probe_selection {probe_selection!r} is unknown: choose one of {', '.join(SELECTIONS)}"
        )
    return SELECTIONS[probe_selection]


def _mode(probe_selection: str, donor_probes: str) -> str:
    """How donors share in the choice: the method's only way, or that asked for."""
    if donor_probes not in DONOR_PROBES:
        raise ChoiceError(
            f"donor_probes {donor_probes!r} is unknown: choose one of {', '.join(DONOR_PROBES)}"
        )
    return _method(probe_selection).donor_probes or donor_probes


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


def _read_by(probe_selection: str, expression: xr.DataArray, detected: xr.DataArray | None) -> xr.DataArray:
    """The array that the method's score looks at."""
    reads = _method(probe_selection).reads
    if reads == "expression":
        return expression
    if not reads:
        nothing = da.zeros(expression.transpose("probe", "sample").shape, chunks=PROBES_PER_BLOCK)
        return xr.DataArray(nothing, dims=("probe", "sample"))
    if detected is None:
        raise ChoiceError(f"probe_selection {probe_selection!r} counts detected samples: give `detected`")
    return detected


def _usable_rnaseq(
    probe_selection: str, rnaseq: Mapping[str, pd.DataFrame], donors: Sequence[str]
) -> Mapping[str, pd.DataFrame]:
    usable = {donor: table for donor, table in rnaseq.items() if donor in donors}
    if not usable:
        raise ChoiceError(
            f"probe_selection {probe_selection!r} needs RNA-seq of one of the donors {', '.join(donors)}, "
            f"and there is {'that of ' + ', '.join(rnaseq) if rnaseq else 'none'}: add one or choose another "
            "method"
        )
    return usable


def _pools(samples: pd.DataFrame, *, pooled: bool) -> dict[str, Integers]:
    """Name -> sample numbers scored together."""
    if pooled:
        return {"all": np.arange(len(samples))}
    donors = samples["donor"].to_numpy(dtype=object)
    return {donor: np.flatnonzero(donors == donor) for donor in _donors(samples)}


def split_into_blocks(
    units: Integers, rows: Integers, size: int, *, chunks: Sequence[int] = ()
) -> list[Integers]:
    """Split probes into blocks of neighbours on the probe axis.

    Parameters
    ----------
    units : ndarray of int
        What must stay together (a gene's number for each of its probes); within it, probes keep their order.
    rows : ndarray of int
        Each probe's position on the probe axis.
    size : int
        Probes a block; the last unit of a block may go beyond it.
    chunks : sequence of int, optional
        Sizes of the chunks of the probe axis: a block's units begin in one of them, so that what is read for
        one block is not kept for the next.

    Returns
    -------
    list of ndarray of int
        Positions in `units`, block by block; each probe once.
    """
    first_row = pd.Series(rows).groupby(units).transform("min").to_numpy()
    order = np.argsort(first_row, kind="stable")
    unit_start = np.searchsorted(first_row[order], first_row[order])
    chunk = np.searchsorted(np.cumsum(chunks), first_row[order], side="right")
    in_chunk = unit_start - unit_start[np.searchsorted(chunk, chunk)]
    cuts = np.flatnonzero(np.diff(in_chunk // size) | np.diff(chunk)) + 1
    return np.split(order, cuts)


def _bound_score(
    method: SelectionMethod, probes: pd.DataFrame, tables: Mapping[str, pd.DataFrame], options: ScoreOptions
) -> Score:
    """The method's score function, holding what else it wants to know of its block's probes."""
    assert method.score is not None  # noqa: S101 - checked with a message by _check_scores_exist
    if method.arguments is None:
        return method.score
    return partial(method.score, **method.arguments(probes, tables, options))


def _scored(
    block: da.Array,
    score: Score,
    genes: NDArray[Any],
    samples: pd.DataFrame,
    pools: tuple[Integers, ...],
    n_columns: int,
) -> da.Array:
    """Scores of one block's probes, shape (probes, columns)."""
    scores: da.Array = da.map_blocks(
        _score_block,
        block,
        score=score,
        genes=genes,
        samples=samples,
        pools=pools,
        chunks=(block.chunks[0], (n_columns,)),
        dtype=np.float64,
        meta=np.empty((0, 0)),
    )
    return scores


def _score_block(
    block: Floats, *, score: Score, genes: NDArray[Any], samples: pd.DataFrame, pools: tuple[Integers, ...]
) -> Floats:
    return np.column_stack([score(block[:, as_slice(pool)], genes, samples.iloc[pool]) for pool in pools])


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
