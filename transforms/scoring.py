"""Scoring probes: which rows of the store make a block, what each block's score is called with.

A block holds some neighbouring probes in all samples, and is one task. Its rows are by far the largest thing
that a run reads: they are looked at a few at a time, and those of probes that may be chosen can be kept, see
`transforms.kept`.
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

from transforms.blocks import Axis, Cells, as_slice, cut_into_parts, matrix_of
from transforms.errors import ChoiceError
from transforms.kept import Grid, KeptRows, ScoredRows, may_be_chosen
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
    scores : list of callable
        Of each block: gives (probe, pool) scores of the chunks that hold its `cells`.
    cells : list of Cells
        Of each block: the rows of its probes, in the samples that are scored.
    grid : Grid
        What is scored.
    symbols : ndarray of str
        Gene of each probe.
    rows : ndarray of int
        Position of each probe on the probe axis.
    columns : ndarray of int
        Position of each prepared sample on the sample axis.
    pools : list of str
        "all", or the donors, or the pairs of donors.
    reads_expression : bool
        Whether it is expression that is scored.
    """

    blocks: list[Integers]
    scores: list[partial[Floats]]
    cells: list[Cells]
    grid: Grid
    symbols: NDArray[Any]
    rows: Integers
    columns: Integers
    pools: list[str]
    reads_expression: bool

    def lazy(self) -> xr.DataArray:
        """The scores, dims (probe, pool), probes in the order of their table; nothing is computed."""
        scored = [
            task(score, self.grid.holding(cells))
            for score, cells in zip(self.scores, self.cells, strict=True)
        ]
        shape = len(self.rows), len(self.pools)
        together = task(partial(_in_order, places=self._places()), scored)
        return self._labelled(da.from_delayed(together, shape, np.float64, meta=np.empty((0, 0))))

    def computed_and_kept(self, samples: Integers) -> tuple[xr.DataArray, KeptRows]:
        """The scores, computed, and the rows of all probes that their genes may choose, in memory.

        Parameters
        ----------
        samples : (sample,) int array
            Which of the prepared samples to keep, ascending.
        """
        held, columns = np.unique(self.columns[samples], return_inverse=True)
        kept = [Cells.of(self.rows[block], held, self.grid.sizes) for block in self.blocks]
        made = persist(
            *(
                task(
                    partial(_score_and_keep, score=score, genes=self.symbols[block], cells=own),
                    self.grid.holding(scored),
                    self.grid.holding(own),
                )
                for block, score, scored, own in zip(self.blocks, self.scores, self.cells, kept, strict=True)
            )
        )
        found = compute(*(task(_small, one) for one in made))
        scores = _in_order([scores for scores, _ in found], self._places())
        rows = [self.rows[block[kept]] for block, (_, kept) in zip(self.blocks, found, strict=True)]
        return self._labelled(scores), KeptRows(rows, samples, columns, list(made))

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
    tables = _usable_rnaseq(probe_selection, rnaseq or {}, donors) if method.rnaseq_by else {}
    _check_scores_exist(probe_selection, donors)
    grid = Grid.of(matrix_of(_read_by(probe_selection, expression, detected)))
    scored = samples[samples["donor"].isin(tables)] if tables else samples
    pools = _pools(scored, pooled=pooled)
    symbols, rows = probes["gene_symbol"].to_numpy(dtype=object), probes["row"].to_numpy()
    units = pd.factorize(symbols)[0] if method.whole_genes else np.arange(len(probes))
    blocks = split_into_blocks(units, rows, probes_per_block, chunks=grid.sizes[0])
    columns = Axis.of(scored["column"].to_numpy(), grid.sizes[1])
    cells = [Cells(Axis.of(rows[block], grid.sizes[0]), columns) for block in blocks]
    known = [_Pool.of(scored.filter(items=SAMPLE_COLUMNS), own, method) for own in pools.values()]
    return Scoring(
        blocks=blocks,
        scores=[
            partial(
                _score_block,
                cells=own,
                cuts=_cuts(units[block], own.shape[1]) if method.in_parts else [0, len(block)],
                score=_bound_score(method, probes.iloc[block], tables, options),
                genes=symbols[block],
                pools=known,
            )
            for block, own in zip(blocks, cells, strict=True)
        ],
        cells=cells,
        grid=grid,
        symbols=symbols,
        rows=rows,
        columns=samples["column"].to_numpy(),
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


class _Pool(NamedTuple):
    """Samples that are scored together: which columns, their table, and what the score makes of it."""

    columns: slice | Integers
    samples: pd.DataFrame
    prepared: dict[str, Any]

    @classmethod
    def of(cls, samples: pd.DataFrame, numbers: Integers, method: SelectionMethod) -> "_Pool":
        own = samples.iloc[numbers]
        return cls(
            as_slice(numbers), own, {} if method.prepare is None else {"prepared": method.prepare(own)}
        )


def _cuts(units: Integers, n_columns: int) -> list[int]:
    """Where to cut a block's probes, between units."""
    starts = np.flatnonzero(np.r_[True, units[1:] != units[:-1]])
    return cut_into_parts(starts, len(units), n_columns)


def _score_block(
    chunks: list[NDArray[Any]],
    *,
    cells: Cells,
    cuts: list[int],
    score: Score,
    genes: NDArray[Any],
    pools: list[_Pool],
) -> Floats:
    parts = zip(cells.copied_in_parts(chunks, cuts), np.split(genes, cuts[1:-1]), strict=True)
    return np.concatenate([_score_part(block, own, score, pools) for block, own in parts])


def _score_part(block: NDArray[Any], genes: NDArray[Any], score: Score, pools: list[_Pool]) -> Floats:
    return np.column_stack(
        [score(block[:, pool.columns], genes, pool.samples, **pool.prepared) for pool in pools]
    )


def _score_and_keep(
    scored: list[NDArray[Any]],
    kept: list[NDArray[Any]],
    *,
    score: partial[Floats],
    genes: NDArray[Any],
    cells: Cells,
) -> ScoredRows:
    scores = score(scored)
    rows = np.flatnonzero(may_be_chosen(scores, genes))
    return ScoredRows(scores, rows, cells.part(rows).copied(kept))


def _small(scored: ScoredRows) -> tuple[Floats, Integers]:
    return scored.scores, scored.kept


def _in_order(scores: list[Floats], places: Integers) -> Floats:
    together: Floats = np.concatenate(scores)[places]
    return together
