"""Coexpression: how alike two regions are over genes, and two genes over regions.

Correlated gene expression (region x region) is small. Gene coexpression (gene x gene) of 15,000 genes is
2 GB, so it is a lazy array of row blocks, and what is wanted of it (each gene's nearest neighbours, the pairs
above a threshold) is taken from one block at a time.
Sources: Arnatkeviciute et al. 2019, NeuroImage 189:353 (step S4 of AHBAprocessing: Spearman between regions);
abagen, whose users correlate regions with ``numpy.corrcoef``; Zhang & Horvath 2005, Stat Appl Genet Mol Biol
4:17 (signed and unsigned networks).
"""

from collections.abc import Callable, Iterator
from functools import partial

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr
from dask.base import compute
from dask.delayed import delayed
from numpy.typing import NDArray
from scipy.stats import rankdata

from transforms.errors import ChoiceError

Floats = NDArray[np.float64]
# Strengths of a block of rows (genes, all genes), number of its first gene -> the pairs to keep of it
Picker = Callable[[Floats, int], pd.DataFrame]

# Genes whose correlations with all others are in memory at once: 16 MB for 15,633 genes.
BLOCK_GENES = 128


def _ranks(profiles: Floats) -> Floats:
    ranks: Floats = rankdata(profiles, axis=1, nan_policy="propagate")
    return ranks


CORRELATIONS: dict[str, Callable[[Floats], Floats]] = {"pearson": np.asarray, "spearman": _ranks}
"""Name of a correlation -> what is done to each profile (row) before Pearson's is taken."""

NETWORKS: dict[str, Callable[[Floats], Floats]] = {"signed": np.copy, "unsigned": np.abs}
"""Name of a kind of network -> strength of a link, from the correlation (always a new array)."""


# Region x region --------------------------------------------------------------------------------------------


def correlated_gene_expression(
    expression: pd.DataFrame, *, method: str = "pearson", diagonal: float = 1.0
) -> pd.DataFrame:
    """Correlation between the expression profiles of regions, over genes.

    Parameters
    ----------
    expression : pandas.DataFrame
        Region x gene.
    method : {"pearson", "spearman"}
        ``pearson`` is ``numpy.corrcoef``, as abagen's users do it; AHBAprocessing takes ``spearman``.
    diagonal : float
        A region's correlation with itself; AHBAprocessing sets NaN.

    Returns
    -------
    pandas.DataFrame
        Region x region, symmetric. NaN in the rows and columns (the diagonal too) of a region that is NaN
        throughout, or constant. A gene that is NaN in any other region is left out for every pair, so that
        all pairs are compared over the same genes (neither source says; their tables have no such gene).

    Raises
    ------
    ChoiceError
        If the method is unknown, or fewer than two genes have a value in every region.
    """
    values = expression.to_numpy(dtype=np.float64)
    filled = ~np.isnan(values).all(axis=1)
    usable = ~np.isnan(values[filled]).any(axis=0)
    if usable.sum() < 2:
        raise ChoiceError(
            f"{usable.sum()} of {len(usable)} genes have a value in every region; a correlation takes two: "
            "leave out the regions that lack genes."
        )
    scaled = np.full((len(values), usable.sum()), np.nan)
    scaled[filled] = _standardized(values[np.ix_(filled, usable)], method)
    table = _products(scaled, scaled)
    np.fill_diagonal(table, np.where(np.isnan(scaled[:, 0]), np.nan, diagonal))
    return pd.DataFrame(table, index=expression.index, columns=expression.index.rename(None))


# Gene x gene ------------------------------------------------------------------------------------------------


def gene_correlations(
    expression: pd.DataFrame, *, method: str = "pearson", block_genes: int = BLOCK_GENES
) -> xr.DataArray:
    """Correlation between the profiles of genes over regions, as a lazy array.

    Parameters
    ----------
    expression : pandas.DataFrame
        Region x gene. Regions that are NaN throughout are left out.
    method : {"pearson", "spearman"}
    block_genes : int
        Genes of a chunk, which spans all of their partners.

    Returns
    -------
    xarray.DataArray
        Dims (gene, partner), float64, dask-backed; both coordinates are gene symbols. NaN for a gene that is
        constant, or NaN in a region that has values.

    Raises
    ------
    ChoiceError
        If the method is unknown, no gene or fewer than two regions have values, or `block_genes` is no size.
    """
    if block_genes < 1:
        raise ChoiceError(f"block_genes is the number of genes of a block, 1 or more, not {block_genes}.")
    values = expression.to_numpy(dtype=np.float64)
    filled = ~np.isnan(values).all(axis=1) if values.size else np.zeros(len(values), dtype=bool)
    if filled.sum() < 2:
        raise ChoiceError(
            f"{filled.sum()} of {len(values)} regions have values; a correlation over regions takes two."
        )
    profiles = _standardized(np.ascontiguousarray(values[filled].T), method)
    partners = delayed(profiles, pure=True)
    rows = da.from_array(profiles, chunks=(block_genes, -1))
    data = da.map_blocks(
        _products, rows, partners, chunks=(rows.chunks[0], (len(profiles),)), dtype=np.float64
    )
    symbols = expression.columns.to_numpy(object)
    return xr.DataArray(data, dims=("gene", "partner"), coords={"gene": symbols, "partner": symbols})


def gene_coexpression(
    expression: pd.DataFrame,
    *,
    method: str = "pearson",
    network: str = "signed",
    neighbours: int | None = None,
    threshold: float | None = None,
    block_genes: int = BLOCK_GENES,
) -> pd.DataFrame:
    """Nearest neighbours of each gene, or the pairs of genes above a threshold, as a long table.

    Parameters
    ----------
    expression : pandas.DataFrame
        Region x gene, as for `gene_correlations`.
    method : {"pearson", "spearman"}
    network : {"signed", "unsigned"}
        Strength of a link: the correlation, or its absolute value.
    neighbours : int, optional
        How many of its strongest links to keep of each gene. Among equals, genes that come first.
    threshold : float, optional
        Least strength of a pair to keep. Choose one of `neighbours` and `threshold`.
    block_genes : int
        Genes worked on at once; memory grows with it, results do not depend on it (but for the last bit).

    Returns
    -------
    pandas.DataFrame
        ``gene_symbol``, ``neighbour_symbol`` (both categorical) and ``correlation``. Neighbours: one row a
        gene and neighbour, genes in order, strongest first, with ``rank`` from 1. Threshold: one row a pair,
        the gene that comes first in `expression` first. No gene is its own neighbour; a gene whose
        correlations are undefined is in no row.

    Raises
    ------
    ChoiceError
        As `gene_correlations`; or if not exactly one of `neighbours` and `threshold` is given.
    """
    blocks = coexpression_blocks(
        expression,
        method=method,
        network=network,
        neighbours=neighbours,
        threshold=threshold,
        block_genes=block_genes,
    )
    return pd.concat(blocks, ignore_index=True)


def coexpression_blocks(
    expression: pd.DataFrame,
    *,
    method: str = "pearson",
    network: str = "signed",
    neighbours: int | None = None,
    threshold: float | None = None,
    block_genes: int = BLOCK_GENES,
) -> Iterator[pd.DataFrame]:
    """The rows of `gene_coexpression` one block of genes after the other, for tables larger than memory.

    The choices are checked at once; a block is computed when it is asked for.
    """
    pick = _picker(neighbours, threshold, expression.columns)
    if network not in NETWORKS:
        raise ChoiceError(f"Unknown network {network!r}: choose {' or '.join(NETWORKS)}.")
    correlations = gene_correlations(expression, method=method, block_genes=block_genes)
    return _picked(correlations, NETWORKS[network], pick)


def _picked(
    correlations: xr.DataArray, strength: Callable[[Floats], Floats], pick: Picker
) -> Iterator[pd.DataFrame]:
    select = delayed(partial(_select, strength=strength, pick=pick))
    first = 0
    for block in correlations.data.to_delayed()[:, 0]:
        (frame,) = compute(select(block, first))
        yield frame
        first += correlations.chunksizes["gene"][0]


def _select(
    correlations: Floats, first: int, strength: Callable[[Floats], Floats], pick: Picker
) -> pd.DataFrame:
    strengths = strength(correlations)
    strengths[np.isnan(strengths)] = -np.inf
    strengths[np.arange(len(strengths)), first + np.arange(len(strengths))] = -np.inf
    frame = pick(strengths, first)
    rows, columns = frame["gene_symbol"].cat.codes - first, frame["neighbour_symbol"].cat.codes
    frame.insert(2, "correlation", correlations[rows.to_numpy(), columns.to_numpy()])
    return frame


def _picker(neighbours: int | None, threshold: float | None, genes: pd.Index) -> Picker:
    """The rule that the choices name."""
    repeated = genes[genes.duplicated()]
    if len(repeated):
        raise ChoiceError(f"Gene {repeated[0]} has two columns: keep one column a gene.")
    if threshold is not None and neighbours is None:
        if not -1 <= threshold <= 1:
            raise ChoiceError(f"threshold={threshold!r}: a correlation, from -1 to 1, is needed.")
        return partial(_above, threshold=threshold, genes=genes)
    if threshold is not None or neighbours is None:
        raise ChoiceError("Choose one of neighbours (so many for each gene) and threshold (least strength).")
    if not 1 <= neighbours < len(genes):
        raise ChoiceError(f"neighbours must lie between 1 and {len(genes) - 1}, not {neighbours}.")
    return partial(_nearest, neighbours=neighbours, genes=genes)


def _above(strengths: Floats, first: int, *, threshold: float, genes: pd.Index) -> pd.DataFrame:
    """Pairs of a row's gene with genes after it."""
    later = np.arange(strengths.shape[1]) > first + np.arange(len(strengths))[:, np.newaxis]
    rows, columns = np.nonzero((strengths >= threshold) & later)
    return _pairs(rows + first, columns, genes)


def _nearest(strengths: Floats, first: int, *, neighbours: int, genes: pd.Index) -> pd.DataFrame:
    """The strongest links of each row's gene."""
    weakest = np.partition(strengths, -neighbours, axis=1)[:, [-neighbours]]
    rows, columns = np.nonzero((strengths >= weakest) & np.isfinite(strengths))
    order = np.lexsort((columns, -strengths[rows, columns], rows))
    rows, columns = rows[order], columns[order]
    rank = np.arange(len(rows)) - np.searchsorted(rows, rows) + 1
    kept = rank <= neighbours
    return _pairs(rows[kept] + first, columns[kept], genes).assign(rank=rank[kept].astype(np.int32))


def _pairs(genes_at: NDArray[np.intp], neighbours_at: NDArray[np.intp], genes: pd.Index) -> pd.DataFrame:
    kind = pd.CategoricalDtype(genes)
    columns = {"gene_symbol": genes_at, "neighbour_symbol": neighbours_at}
    return pd.DataFrame({name: pd.Categorical.from_codes(at, dtype=kind) for name, at in columns.items()})


def _standardized(profiles: Floats, method: str) -> Floats:
    """Each row with mean 0 and length 1, so that products of rows are correlations; NaN if it is constant."""
    if method not in CORRELATIONS:
        raise ChoiceError(f"Unknown correlation {method!r}: choose {' or '.join(CORRELATIONS)}.")
    values = CORRELATIONS[method](profiles)
    centred = values - values.mean(axis=1, keepdims=True)
    constant = values.max(axis=1) == values.min(axis=1)
    lengths = np.where(constant, np.nan, np.sqrt(np.square(centred).sum(axis=1)))
    scaled: Floats = centred / lengths[:, np.newaxis]
    return scaled


def _products(rows: Floats, partners: Floats) -> Floats:
    products = rows @ partners.T
    return np.clip(products, -1, 1, out=products)
