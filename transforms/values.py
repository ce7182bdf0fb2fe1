"""Each sample normalised over its genes: what all atlases share.

Sample normalisation needs all genes of a sample, and everything after it all samples of a gene. So a
donor's values are built as blocks of genes, each read from the store on its own; what normalises a sample is
fitted to all blocks, and applied to each.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.delayed import delayed
from numpy.typing import NDArray

from transforms.normalize import BATCH, normalize
from transforms.pipeline import Pipeline
from transforms.probes import gene_expression
from transforms.scaling import FITS, Scaling, joined
from transforms.workflow import Genes, Source

Floats = NDArray[np.float64]
Fit = Callable[[Floats], Scaling]

Values = Callable[..., xr.DataArray]
"""(donor, left=None) -> `sample_expression` of that donor, or of its prepared samples at `left`."""

BLOCK_BYTES = 32 << 20
FEWEST_GENES = 64
SAMPLES_AT_ONCE = 32  # turned round together: few enough that their genes stay in a core's cache


def genes_per_block(n_samples: int) -> int:
    """How many genes are worked on together: about 32 MiB of all donors' samples."""
    return max(FEWEST_GENES, BLOCK_BYTES // (8 * max(1, n_samples)))


def sample_expression(
    source: Source,
    genes: Genes,
    pipeline: Pipeline,
    donor: str,
    left: NDArray[np.integer] | None = None,
) -> xr.DataArray:
    """One donor's genes, each sample normalised over them.

    Parameters
    ----------
    source : Source
    genes : Genes
    pipeline : Pipeline
    donor : str
    left : (left,) int array, optional
        Positions among the donor's prepared samples; all of them if left out.

    Returns
    -------
    xarray.DataArray
        (gene, sample) float64, lazy, in blocks of genes with all samples. As they are with
        ``sample_norm="batch"``, which needs all donors at once.
    """
    columns = genes.samples.loc[genes.samples["donor"] == donor, "column"].to_numpy()
    values = gene_expression(
        source.microarray["expression"],
        genes.selection,
        donor,
        columns if left is None else columns[left],
        genes_per_block=genes_per_block(len(genes.samples)),
    )
    if pipeline.sample_norm in (None, BATCH) or not values.size:
        return values
    return values.copy(data=_normalized(values.data, pipeline.sample_norm, pipeline.quantiles))


def _normalized(values: da.Array, method: str, quantiles: str) -> da.Array:
    """Each column normalised over all rows, lazily, in the same blocks of rows."""
    return (
        _scaled(values, FITS[method]) if _has_fit(method, quantiles) else _rebuilt(values, method, quantiles)
    )


def _has_fit(method: str, quantiles: str) -> bool:
    return method in FITS and quantiles == "linear"


def _scaled(values: da.Array, fit: Fit) -> da.Array:
    """By what is fitted to the columns of all blocks, block by block."""
    scaling = delayed(partial(fit_columns, fit=fit), pure=False)(_blocks(values))
    scaled: da.Array = da.map_blocks(_scale, values, scaling, dtype=np.float64, meta=np.empty((0, 0)))
    return scaled


def fit_columns(blocks: list[Floats], fit: Fit) -> Scaling:
    """Fit a scaling to each column of blocks of rows; a few columns are turned round at a time."""
    n_columns = blocks[0].shape[1]
    starts = range(0, n_columns, SAMPLES_AT_ONCE)
    return joined(
        [
            fit(np.concatenate([block[:, first : first + SAMPLES_AT_ONCE].T for block in blocks], axis=1))
            for first in starts
        ]
    )


def _scale(block: Floats, scaling: Scaling) -> Floats:
    return scaling.by_column(block)


def _rebuilt(values: da.Array, method: str, quantiles: str) -> da.Array:
    """By a method that needs a vector as a whole."""
    work = delayed(partial(normalize_columns, method=method, quantiles=quantiles), pure=False)
    done = work(_blocks(values))
    parts = [
        da.from_delayed(done[number], shape=(rows, values.shape[1]), dtype=np.float64, meta=np.empty((0, 0)))
        for number, rows in enumerate(values.chunks[0])
    ]
    joined_parts: da.Array = da.concatenate(parts, axis=0)
    return joined_parts


def normalize_columns(blocks: list[Floats], method: str, quantiles: str) -> tuple[Floats, ...]:
    """Normalise each column of blocks of rows; method and quantiles as for `normalize`."""
    results = tuple(np.empty_like(block) for block in blocks)
    ends = np.cumsum([len(block) for block in blocks])
    places = [slice(end - len(block), end) for end, block in zip(ends, blocks, strict=True)]
    for first in range(0, blocks[0].shape[1], SAMPLES_AT_ONCE):
        columns = slice(first, first + SAMPLES_AT_ONCE)
        rows = np.concatenate([block[:, columns].T for block in blocks], axis=1)
        normalized = normalize(rows, method, quantiles=quantiles)
        for result, place in zip(results, places, strict=True):
            result[:, columns] = normalized[:, place].T
    return results


def _blocks(values: da.Array) -> list[Any]:
    """All blocks of rows, as tasks."""
    return list(values.to_delayed(optimize_graph=False).ravel())


def blocks_of(values: xr.DataArray) -> list[Any]:
    """Blocks of genes of lazy values with all samples in one chunk, as tasks."""
    return _blocks(values.data)
