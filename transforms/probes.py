"""Probes to genes: which annotation counts, which probes rise above the background, which stand for a gene.

The choice among a gene's probes is made in :mod:`transforms.select`; :class:`ProbeSelection` is its result
and :func:`gene_expression` applies it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr
from dask.base import tokenize
from numpy.typing import NDArray

from transforms import compiled
from transforms.blocks import Cells, cut_into_parts, gather, made_of, matrix_of, rearranged
from transforms.errors import ChoiceError
from transforms.kept import ChosenRows
from transforms.reannotation import Reannotation
from transforms.tasks import task

GENES_PER_BLOCK = 2_048
PROBES_PER_BLOCK = 4_096
CALLS_AT_ONCE = 256  # rows of detection calls that stay in a core's cache as numbers
CUSTOM = "CUST"  # in the names of the probes that the Allen Institute added to Agilent's

VARIANCE_SCALES: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "normal": np.exp2,
    "log2": np.asarray,
}
"""``variance_scale`` -> what turns log2 intensity into what a probe's variance is taken of."""

PROBE_ORDERS = ("abagen", "probe_name")


def annotate_probes(
    probes: pd.DataFrame,
    *,
    reannotated: bool | Reannotation,
    agilent_only: bool = False,
    probe_order: str = "abagen",
) -> pd.DataFrame:
    """Give each probe its gene, and keep the probes whose gene is known.

    Parameters
    ----------
    probes : pandas.DataFrame
        The store's probe table, one row a probe, row number = position on the ``probe`` axis.
    reannotated : bool or Reannotation
        True takes the symbols and Entrez ids of Arnatkeviciute et al. (2019, NeuroImage 189:353), False those
        that the Allen Institute published, a `Reannotation` its own.
    agilent_only : bool
        Leave out the custom probes, whose names contain "CUST".
    probe_order : {"abagen", "probe_name"}
        ``abagen``: ascending ``probe_id`` or, with the published annotation, the order of Probes.csv;
        ``probe_name``: ascending names, byte by byte, as AHBAprocessing.

    Returns
    -------
    pandas.DataFrame
        Columns ``probe_id``, ``gene_symbol``, ``entrez_id`` and ``row`` (position on the ``probe`` axis), in
        `probe_order`, which decides between equal scores.

    Raises
    ------
    ChoiceError
        If a `Reannotation` knows none of the probes.
    """
    annotation = _annotation(probes, reannotated)
    table = pd.DataFrame(
        {
            "probe_id": probes["probe_id"],
            "gene_symbol": annotation["gene_symbol"].to_numpy(dtype=object),
            "entrez_id": annotation["entrez_id"].to_numpy(),
            "row": np.arange(len(probes)),
        }
    )
    known = ((table["entrez_id"] >= 0) & (table["gene_symbol"] != "")).to_numpy()
    if agilent_only:
        known = known & ~probes["probe_name"].str.contains(CUSTOM, regex=False).to_numpy(dtype=bool)
    order = {"abagen": "probe_id" if reannotated else "published_row"}.get(probe_order, probe_order)
    by_order = np.argsort(probes[order].to_numpy(), kind="stable")
    return table.iloc[by_order[known[by_order]]].reset_index(drop=True)


def _annotation(probes: pd.DataFrame, reannotated: bool | Reannotation) -> pd.DataFrame:
    """``gene_symbol`` ("" none) and ``entrez_id`` (-1 none) of each probe."""
    if isinstance(reannotated, Reannotation):
        return reannotated.of(probes["probe_name"])
    prefix = "reannotated_" if reannotated else ""
    return probes[[prefix + "gene_symbol", prefix + "entrez_id"]].set_axis(
        ["gene_symbol", "entrez_id"], axis=1
    )


def probe_variances(
    expression: xr.DataArray, samples: pd.DataFrame, rows: NDArray[np.integer], *, scale: str
) -> xr.DataArray:
    """Variance (ddof=1) of each probe over each donor's samples.

    Parameters
    ----------
    expression : xarray.DataArray
        Dims (probe, sample), log2 intensity, dask-backed.
    samples : pandas.DataFrame
        Prepared samples (``donor``, ``column``).
    rows : ndarray of int
        Positions on the probe axis.
    scale : {"normal", "log2"}
        Of intensities, or of their logarithms.

    Returns
    -------
    xarray.DataArray
        Dims (probe, donor), probes in the order of `rows`; lazy. NaN for a donor with one sample.
    """
    order = np.argsort(rows, kind="stable")
    blocks = np.array_split(order, len(rows) // PROBES_PER_BLOCK + 1)
    donors = {donor: table["column"].to_numpy() for donor, table in samples.groupby("donor", sort=False)}
    by_donor = [
        da.concatenate([_block_variances(expression, rows[block], columns, scale) for block in blocks])
        for columns in donors.values()
    ]
    stacked = da.stack(by_donor, axis=1).rechunk(-1, method="tasks")
    variances = rearranged(stacked, np.argsort(order), np.arange(len(donors)))
    return xr.DataArray(variances, dims=("probe", "donor"), coords={"donor": list(donors)})


def _block_variances(
    expression: xr.DataArray, rows: NDArray[np.integer], columns: NDArray[np.integer], scale: str
) -> da.Array:
    block = gather(expression, rows, columns)
    variances: da.Array = da.map_blocks(_variances, block, scale, drop_axis=1, dtype=np.float64)
    return variances


def _variances(block: NDArray[np.float64], scale: str) -> NDArray[np.float64]:
    if block.shape[1] < 2:
        return np.full(len(block), np.nan)
    variances: NDArray[np.float64] = VARIANCE_SCALES[scale](block).var(axis=1, ddof=1)
    return variances


def varying_probes(variances: xr.DataArray, percent: float) -> NDArray[np.bool_]:
    """Mark the probes that are not among the least variable ones in every donor.

    Parameters
    ----------
    variances : xarray.DataArray
        Output of :func:`probe_variances`; computed here if it is still lazy.
    percent : float
        How many of the probes are called least variable in a donor, 0 to 100; of equal ones the first.

    Returns
    -------
    (probe,) bool array

    Notes
    -----
    What step S2 of AHBAprocessing means; its code applies the mask to another table than the one that it was
    made of, and so drops other probes.
    """
    values = variances.transpose("donor", "probe").to_numpy()
    n_low = int(np.floor(values.shape[1] * percent / 100 + 0.5))
    ranks = np.argsort(np.argsort(values, axis=1, kind="stable"), axis=1, kind="stable")
    return np.asarray((ranks >= n_low).any(axis=0))


def detected_fraction(
    detected: xr.DataArray, samples: pd.DataFrame, rows: NDArray[np.integer]
) -> xr.DataArray:
    """Fraction of all donors' samples in which each probe is detected above the background.

    Parameters
    ----------
    detected : xarray.DataArray
        PACall, dims (probe, sample), bool, dask-backed.
    samples : pandas.DataFrame
        Prepared samples; ``column`` is the position on the sample axis, and a mirrored copy counts again.
    rows : ndarray of int
        Positions on the probe axis.

    Returns
    -------
    xarray.DataArray
        Dim probe, as long as `rows` and in their order, 0 to 1, lazy: nothing is read until it is computed.

    Raises
    ------
    ChoiceError
        If there is no sample.
    """
    if samples.empty:
        raise ChoiceError("no sample is left to filter probes by: loosen the choices that drop samples")
    wanted, places = np.unique(rows, return_inverse=True)
    calls = da.asanyarray(detected.transpose("probe", "sample").data)
    weights = np.bincount(samples["column"].to_numpy(), minlength=calls.shape[1]).astype(np.float32)
    row_edges, column_edges = ([0, *accumulate(sizes)] for sizes in calls.chunks)
    blocks = calls.to_delayed(optimize_graph=False)
    chunks = [int(chunk) for chunk in np.unique(np.searchsorted(row_edges, wanted, side="right") - 1)]
    by_column = enumerate(weights[start:end] for start, end in pairwise(column_edges))
    parts = [(column, own) for column, own in by_column if own.any()]  # others are not read
    counted = [
        task(partial(_weighted_calls, weights=own), blocks[chunk, column])
        for chunk in chunks
        for column, own in parts
    ]
    read = np.concatenate([np.arange(row_edges[chunk], row_edges[chunk + 1]) for chunk in chunks])
    found = np.isin(read, wanted).nonzero()[0][places]
    finish = partial(_fractions, n_parts=len(parts), found=found, n_samples=len(samples))
    fraction = da.from_delayed(task(finish, counted), (len(rows),), np.float64, meta=np.empty(0))
    return xr.DataArray(fraction, dims="probe", name="detected_fraction")


def _fractions(
    counts: list[NDArray[np.float64]], *, n_parts: int, found: NDArray[np.integer], n_samples: int
) -> NDArray[np.float64]:
    """Counts of the parts of each chunk of rows, to fractions of the rows found in all of them."""
    by_chunk = [np.sum(counts[first : first + n_parts], axis=0) for first in range(0, len(counts), n_parts)]
    fraction: NDArray[np.float64] = np.concatenate(by_chunk)[found] / n_samples
    return fraction


def _weighted_calls(calls: NDArray[np.bool_], weights: NDArray[np.float32]) -> NDArray[np.float64]:
    """Sums of whole numbers, which float32 holds exactly up to 16 million samples.

    A few rows at a time: as float32 all of them would be fresh memory of four times the calls' size.
    """
    counts = np.empty(len(calls))
    for first in range(0, len(calls), CALLS_AT_ONCE):
        part = slice(first, first + CALLS_AT_ONCE)
        counts[part] = calls[part].astype(np.float32) @ weights
    return counts


def filter_probes(
    annotated: pd.DataFrame,
    fraction: xr.DataArray,
    threshold: float,
    varying: NDArray[np.bool_] | None = None,
) -> pd.DataFrame:
    """Keep the probes detected in at least `threshold` of the samples (intensity-based filter).

    Parameters
    ----------
    annotated : pandas.DataFrame
        Output of :func:`annotate_probes`.
    fraction : xarray.DataArray
        Output of :func:`detected_fraction` for ``annotated["row"]``; computed here if it is still lazy.
    threshold : float
        Clipped to 0..1.
    varying : (probe,) bool array, optional
        Output of :func:`varying_probes`: keep only these of them.

    Returns
    -------
    pandas.DataFrame
        The kept rows, renumbered.

    Raises
    ------
    ChoiceError
        If no probe is left.
    """
    detected = fraction.to_numpy() >= np.clip(threshold, 0.0, 1.0)
    if not detected.any():
        raise ChoiceError(f"no probe is detected in {threshold} of the samples: lower ibf_threshold")
    kept = annotated[detected if varying is None else detected & varying]
    if kept.empty:
        raise ChoiceError("variance_filter leaves no probe that ibf_threshold keeps: lower one of them")
    return kept.reset_index(drop=True)


@dataclass(frozen=True, eq=False)
class ProbeSelection:
    """The probes that stand for each gene, in each donor.

    Attributes
    ----------
    genes : pandas.DataFrame
        One row a gene, sorted by ``gene_symbol``; ``entrez_id``; ``probe_id`` (-1 where several probes are
        averaged or the donors' choices differ); ``score`` (of the chosen probe, NaN if averaged; mean over
        donors where each donor scores for itself); ``n_probes`` (the gene's probes after the intensity
        filter).
    rows : dict of str to ndarray of int
        Donor -> positions on the probe axis, gene after gene.
    starts : ndarray of int
        Shape (genes + 1,). Gene ``g`` is the mean of ``rows[donor][starts[g]:starts[g + 1]]``.
    kept : ChosenRows or None
        The rows in memory, where they were kept.
    """

    genes: pd.DataFrame
    rows: dict[str, NDArray[np.integer]]
    starts: NDArray[np.integer]
    kept: ChosenRows | None = None


def gene_expression(
    expression: xr.DataArray,
    selection: ProbeSelection,
    donor: str,
    columns: NDArray[np.integer],
    *,
    genes_per_block: int = GENES_PER_BLOCK,
) -> xr.DataArray:
    """Expression of each gene in one donor's samples.

    Parameters
    ----------
    expression : xarray.DataArray
        Dims (probe, sample), log2 intensity, dask-backed.
    selection : ProbeSelection
        Which probes stand for each gene.
    donor : str
        Whose choice applies.
    columns : ndarray of int
        Positions of the donor's prepared samples on the sample axis; repeats (mirrored copies) are allowed.
    genes_per_block : int
        Length of the result's chunks.

    Returns
    -------
    xarray.DataArray
        Dims (gene, sample), coordinate ``gene`` = symbol; lazy, chunked by gene, samples in one chunk.
    """
    rows = selection.rows[donor]
    blocks = [
        _gene_block(expression, rows, selection.starts[first : first + genes_per_block + 1], columns)
        for first in range(0, len(selection.genes), genes_per_block)
    ]
    return xr.DataArray(
        da.concatenate(blocks, axis=0),
        dims=("gene", "sample"),
        coords={"gene": selection.genes["gene_symbol"].to_numpy(dtype=object)},
        name="expression",
    )


def _gene_block(
    expression: xr.DataArray,
    rows: NDArray[np.integer],
    starts: NDArray[np.integer],
    columns: NDArray[np.integer],
) -> da.Array:
    own = rows[starts[0] : starts[-1]]
    if len(starts) - 1 == len(own):
        return gather(expression, own, columns)
    cells = Cells.of(own, columns, matrix_of(expression).chunks)
    work = partial(_gene_means, cells=cells, starts=(starts - starts[0]).astype(np.intp))
    return made_of(expression, cells, work, len(starts) - 1, tokenize(own, starts, columns))


def _gene_means(chunks: list[NDArray[Any]], *, cells: Cells, starts: NDArray[np.intp]) -> NDArray[Any]:
    """Mean over each gene's rows; every gene has at least one."""
    n_columns = cells.shape[1]
    cuts = cut_into_parts(starts[:-1], int(starts[-1]), n_columns)
    firsts = np.searchsorted(starts, cuts)
    means = np.empty((len(starts) - 1, n_columns))
    for block, (first, last) in zip(cells.copied_in_parts(chunks, cuts), pairwise(firsts), strict=True):
        _take_means(block, starts[first : last + 1] - starts[first], means[first:last])
    return means


def _take_means(block: NDArray[Any], starts: NDArray[np.intp], means: NDArray[np.float64]) -> None:
    if compiled.scores is not None and block.dtype == np.float64:
        compiled.scores.gene_means(block, starts, means)
        return
    firsts, sizes = starts[:-1], np.diff(starts)
    means[:] = block[firsts]
    for number in range(1, sizes.max()):
        more = np.flatnonzero(sizes > number)
        means[more] += block[firsts[more] + number]
    means /= sizes[:, np.newaxis]
