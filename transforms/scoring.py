"""Scoring probes: which rows of the store make a block, what each block's score is called with.

A block holds some neighbouring probes in all samples, and is one task. Its rows are by far the largest thing
that a run reads; those of probes that may be chosen can be kept, see `transforms.kept`.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr
from dask.base import compute, persist
from numpy.typing import NDArray

from transforms.blocks import as_slice, gather, rearranged, take_columns
from transforms.errors import ChoiceError
from transforms.kept import KeptRows, ScoredRows, may_be_chosen
from transforms.selections import DONOR_PROBES, SELECTIONS, Score, ScoreOptions, SelectionMethod
from transforms.stability import donor_pairs
from transforms.tasks import task

PROBES_PER_BLOCK = 1_500
SAMPLE_COLUMNS = ["donor", "structure_id", "well_id"]  # that a score can ask for
DEFAULTS = ScoreOptions()

Floats = NDArray[np.float64]
Integers = NDArray[np.integer]


class Scoring(NamedTuple):
    """All probes' scores, planned.

    Attributes
    ----------
    blocks : list of ndarray of int
        Positions of each block's probes in the table of probes.
    arrays : list of dask.array.Array
        (probe, sample) of each block, one chunk.
    scores : list of callable
        Of each block: gives (probe, pool) scores of its array.
    symbols : ndarray of str
        Gene of each probe.
    rows : ndarray of int
        Position of each probe on the probe axis.
    pools : list of str
        "all", or the donors, or the pairs of donors.
    reads_expression : bool
        Whether it is expression that the arrays hold.
    """

    blocks: list[Integers]
    arrays: list[da.Array]
    scores: list[partial[Floats]]
    symbols: NDArray[Any]
    rows: Integers
    pools: list[str]
    reads_expression: bool

    def lazy(self) -> xr.DataArray:
        """The scores, dims (probe, pool), probes in the order of their table; nothing is computed."""
        scored = [
            da.map_blocks(
                score,
                array,
                chunks=(array.chunks[0], (len(self.pools),)),
                dtype=np.float64,
                meta=np.empty((0, 0)),
            )
            for score, array in zip(self.scores, self.arrays, strict=True)
        ]
        together = da.concatenate(scored, axis=0).rechunk(-1, method="tasks")
        return self._labelled(rearranged(together, self._places(), np.arange(len(self.pools))))

    def computed_and_kept(self, samples: Integers) -> tuple[xr.DataArray, KeptRows]:
        """The scores, computed, and the rows of all probes that their genes may choose, in memory.

        Parameters
        ----------
        samples : (sample,) int array
            Which of the prepared samples to keep, ascending.
        """
        where = as_slice(samples)
        tasks = [
            task(
                partial(_score_and_keep, score=score, genes=self.symbols[block], samples=where),
                *array.to_delayed(optimize_graph=False).ravel(),
            )
            for block, array, score in zip(self.blocks, self.arrays, self.scores, strict=True)
        ]
        made = persist(*tasks)
        found = compute(*(task(_small, one) for one in made))
        scores = np.concatenate([scores for scores, _ in found])[self._places()]
        rows = [self.rows[block[kept]] for block, (_, kept) in zip(self.blocks, found, strict=True)]
        return self._labelled(scores), KeptRows(rows, samples, list(made))

    def _places(self) -> Integers:
        return np.argsort(np.concatenate(self.blocks))

    def _labelled(self, scores: Any) -> xr.DataArray:
        return xr.DataArray(scores, dims=("probe", "pool"), coords={"pool": self.pools}, name="score")


def scoring(
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
) -> Scoring:
    """Plan the score of every probe; nothing is computed.

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
    Scoring

    Raises
    ------
    ChoiceError
        If a choice is unknown, or impossible with these donors.
    """
    method = method_of(probe_selection)
    donors = donors_of(samples)
    pooled = method.pairs or mode_of(probe_selection, donor_probes) == "aggregate"
    pools = _pools(samples, pooled=pooled)
    tables = _usable_rnaseq(probe_selection, rnaseq or {}, donors) if method.rnaseq_by else {}
    _check_scores_exist(probe_selection, donors)
    array = _read_by(probe_selection, expression, detected)
    symbols, rows = probes["gene_symbol"].to_numpy(dtype=object), probes["row"].to_numpy()
    units = pd.factorize(symbols)[0] if method.whole_genes else np.arange(len(probes))
    chunks = da.asanyarray(array.transpose("probe", "sample").data).chunks[0]
    blocks = split_into_blocks(units, rows, probes_per_block, chunks=chunks)
    known = {"samples": samples.filter(items=SAMPLE_COLUMNS), "pools": tuple(pools.values())}
    return Scoring(
        blocks=blocks,
        arrays=[gather(array, rows[block], samples["column"].to_numpy()) for block in blocks],
        scores=[
            partial(
                _score_block,
                score=_bound_score(method, probes.iloc[block], tables, options),
                genes=symbols[block],
                **known,
            )
            for block in blocks
        ],
        symbols=symbols,
        rows=rows,
        pools=donor_pairs(donors) if method.pairs else list(pools),
        reads_expression=method.reads == "expression",
    )


def method_of(probe_selection: str) -> SelectionMethod:
    """Look a method up by its name."""
    if probe_selection not in SELECTIONS:
        raise ChoiceError(
            f"probe_selection {probe_selection!r} is unknown: choose one of {', '.join(SELECTIONS)}"
        )
    return SELECTIONS[probe_selection]


def mode_of(probe_selection: str, donor_probes: str) -> str:
    """How donors share in the choice: the method's only way, or that asked for."""
    if donor_probes not in DONOR_PROBES:
        raise ChoiceError(
            f"donor_probes {donor_probes!r} is unknown: choose one of {', '.join(DONOR_PROBES)}"
        )
    return method_of(probe_selection).donor_probes or donor_probes


def donors_of(samples: pd.DataFrame) -> list[str]:
    """Donors with samples, in the samples' order."""
    return list(pd.unique(samples["donor"].to_numpy(dtype=object)))


def _check_scores_exist(probe_selection: str, donors: Sequence[str]) -> None:
    method = method_of(probe_selection)
    if method.score is None:
        raise ChoiceError(f"probe_selection {probe_selection!r} scores no probe: it averages them")
    if len(donors) < method.min_donors:
        raise ChoiceError(
            f"probe_selection {probe_selection!r} compares donors and needs {method.min_donors} or more, "
            f"not {len(donors)}: add donors or choose another method"
        )


def _read_by(probe_selection: str, expression: xr.DataArray, detected: xr.DataArray | None) -> xr.DataArray:
    """The array that the method's score looks at."""
    reads = method_of(probe_selection).reads
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
    return {donor: np.flatnonzero(donors == donor) for donor in donors_of(samples)}


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


def _score_block(
    block: Floats, *, score: Score, genes: NDArray[Any], samples: pd.DataFrame, pools: tuple[Integers, ...]
) -> Floats:
    return np.column_stack([score(block[:, as_slice(pool)], genes, samples.iloc[pool]) for pool in pools])


def _score_and_keep(
    block: Floats, *, score: partial[Floats], genes: NDArray[Any], samples: Integers | slice
) -> ScoredRows:
    scores = score(block)
    kept = np.flatnonzero(may_be_chosen(scores, genes))
    return ScoredRows(scores, kept, take_columns(block[kept], samples))


def _small(scored: ScoredRows) -> tuple[Floats, Integers]:
    return scored.scores, scored.kept
