"""Each sample normalised over its genes: what all atlases share.

Sample normalisation needs all genes of a sample, and everything after it all samples of a gene. So a
donor's values are built as blocks of genes, each read from the store on its own; what normalises a sample is
fitted to all blocks, and applied to each.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import persist
from numpy.typing import NDArray

from transforms import compiled
from transforms.blocks import take_columns
from transforms.kept import Rows
from transforms.normalize import BATCH, normalize
from transforms.pipeline import Pipeline
from transforms.probes import gene_expression
from transforms.ranks import ranked
from transforms.scaling import FITS, Scaling, joined
from transforms.tasks import task
from transforms.workflow import Genes, Source

Floats = NDArray[np.float64]
Positions = NDArray[np.integer]
Fit = Callable[[Floats], Scaling]
Keep = Callable[[Floats], Any]

BLOCK_BYTES = 32 << 20
FEWEST_GENES = 64
SAMPLES_AT_ONCE = 32  # turned round together: few enough that their genes stay in a core's cache
KEPT_SAMPLES_AT_ONCE = 512  # of blocks on a disk: a whole page of each row


def genes_per_block(n_samples: int) -> int:
    """How many genes are worked on together: about 32 MiB of all donors' samples."""
    return max(FEWEST_GENES, BLOCK_BYTES // (8 * max(1, n_samples)))


def block_sizes(genes: Genes) -> list[int]:
    """How many genes each block has."""
    if genes.selection.kept is not None:
        return genes.selection.kept.sizes
    size, n_genes = genes_per_block(len(genes.samples)), len(genes.selection.genes)
    return [min(size, n_genes - first) for first in range(0, n_genes, size)]


def sample_expression(
    source: Source,
    genes: Genes,
    pipeline: Pipeline,
    donor: str,
    left: Positions | None = None,
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
    raw = _read(source, genes, donor, left)
    if not raw.size:
        return raw
    genes = genes.without_rows()
    blocks = sample_blocks(source, genes, pipeline, donor, left)
    parts = [
        da.from_delayed(block, shape=(rows, raw.shape[1]), dtype=np.float64, meta=np.empty((0, 0)))
        for block, rows in zip(blocks, block_sizes(genes), strict=True)
    ]
    return raw.copy(data=da.concatenate(parts, axis=0))


def sample_blocks(
    source: Source,
    genes: Genes,
    pipeline: Pipeline,
    donor: str,
    left: Positions | None = None,
    *,
    keep: Keep | None = None,
    later: bool = False,
) -> list[Any]:
    """The blocks of genes of `sample_expression`, as tasks.

    Parameters
    ----------
    source, genes, pipeline, donor, left
        As for `sample_expression`.
    keep : callable, optional
        Puts a block where there is room for it, and gives something to slice in its place.
    later : bool
        Where samples are scaled, give something that does so when it is sliced, each time.

    Returns
    -------
    list of dask.delayed.Delayed
    """
    if left is not None and not len(left):
        pipeline = replace(pipeline, sample_norm=None)  # nothing to fit to
    raw = _raw_blocks(source, genes, donor, left)
    if keep is not None and genes.selection.kept is None:
        raw = [task(keep, block) for block in raw]
    return _normalized(
        raw, pipeline, ScaledLater if later else partial(_scaled, keep=keep or _as_it_is), keep
    )


class Values(Protocol):
    """Where the normalised values of samples come from: the store, or an earlier atlas."""

    def blocks(self, donor: str, left: Positions) -> tuple[list[Any], Positions | None]:
        """Blocks of genes of a donor, as tasks, and which of their columns are the samples `left`.

        None stands for all columns, in order.
        """
        ...  # pragma: no cover


@dataclass(frozen=True, eq=False)
class FreshValues:
    """Values read from the source and normalised whenever they are asked for."""

    source: Source
    genes: Genes
    pipeline: Pipeline

    def blocks(self, donor: str, left: Positions) -> tuple[list[Any], None]:
        """See `Values`; scaled when they are sliced, so that only those at work are in memory."""
        return sample_blocks(self.source, self.genes, self.pipeline, donor, left, later=True), None


@dataclass(frozen=True, eq=False)
class KeptValues:
    """Values normalised before, of the samples that any later step needs.

    Attributes
    ----------
    kept : dict of str to list
        Donor -> its blocks of genes.
    positions : dict of str to (kept,) int array
        Donor -> which of its prepared samples they hold, ascending.
    """

    kept: dict[str, list[Any]]
    positions: dict[str, Positions]

    def blocks(self, donor: str, left: Positions) -> tuple[list[Any], Positions | None]:
        """See `Values`."""
        held = self.positions[donor]
        return self.kept[donor], None if np.array_equal(held, left) else np.searchsorted(held, left)

    def in_order(self) -> "KeptValues":
        """The same with each gene's samples in order, see `transforms.ranks`: found now, once."""
        lazy = {donor: [task(ranked, block) for block in blocks] for donor, blocks in self.kept.items()}
        return KeptValues(dict(zip(lazy, persist(*lazy.values()), strict=True)), self.positions)


@dataclass(frozen=True, eq=False)
class ValuesOf:
    """Some genes of other values.

    Attributes
    ----------
    values : Values
    sizes : sequence of int
        Genes in each of its blocks.
    wanted : (wanted,) int array
        Positions of the genes, in the order wanted.
    """

    values: Values
    sizes: Sequence[int]
    wanted: Positions

    def blocks(self, donor: str, left: Positions) -> tuple[list[Any], Positions | None]:
        """See `Values`; one block."""
        blocks, columns = self.values.blocks(donor, left)
        return [task(partial(_rows, sizes=self.sizes, wanted=self.wanted), blocks)], columns


def _rows(blocks: list[Floats], sizes: Sequence[int], wanted: Positions) -> Floats:
    ends = np.cumsum(sizes)
    block_of = np.searchsorted(ends, wanted, side="right")
    starts = ends - np.asarray(sizes)
    values = {block: blocks[block][:] for block in np.unique(block_of).tolist()}
    return np.stack(
        [values[block][gene - starts[block]] for block, gene in zip(block_of, wanted, strict=True)]
    )


def _raw_blocks(source: Source, genes: Genes, donor: str, left: Positions | None) -> list[Any]:
    """One donor's genes as measured, in blocks: the rows in memory, or read."""
    kept = genes.selection.kept
    if kept is None:
        blocks = _read(source, genes, donor, left).data.to_delayed(optimize_graph=False)
        return list(blocks.ravel())
    columns = np.flatnonzero(genes.samples["donor"] == donor)
    return kept.of(donor, columns if left is None else columns[left])


def _read(source: Source, genes: Genes, donor: str, left: Positions | None) -> xr.DataArray:
    """One donor's genes as measured, lazily."""
    columns = genes.samples.loc[genes.samples["donor"] == donor, "column"].to_numpy()
    return gene_expression(
        source.microarray["expression"],
        genes.selection,
        donor,
        columns if left is None else columns[left],
        genes_per_block=genes_per_block(len(genes.samples)),
    )


def _as_it_is(block: Floats) -> Floats:
    return block


def _normalized(
    blocks: list[Any], pipeline: Pipeline, scaled: Callable[..., Any], keep: Keep | None
) -> list[Any]:
    """Each column normalised over all rows, as tasks that give blocks of rows."""
    method = pipeline.sample_norm
    if method in (None, BATCH):
        return blocks
    if method in FITS and pipeline.quantiles == "linear":
        scaling = task(partial(fit_columns, fit=FITS[method]), blocks)
        return [task(scaled, block, scaling) for block in blocks]
    whole = task(partial(normalize_columns, method=method, quantiles=pipeline.quantiles), blocks)
    part = partial(_part, keep=keep or _as_it_is)
    return [task(partial(part, number=number), whole) for number in range(len(blocks))]


@dataclass(frozen=True, eq=False)
class ScaledLater:
    """A block of rows whose columns are scaled when it is sliced."""

    block: Any
    scaling: Scaling

    @property
    def shape(self) -> tuple[int, int]:
        """That of the block."""
        n_genes, n_samples = self.block.shape
        return n_genes, n_samples

    def __getitem__(self, key: Any) -> Floats:
        """``[:]`` or ``[:, columns]``."""
        if key == slice(None):
            return self.scaling.by_column(self.block[:])
        return self.scaling.of(key[1]).by_column(take_columns(self.block, key[1]))


def _scaled(block: Floats, scaling: Scaling, keep: Keep) -> Any:
    return keep(scaling.by_column(block[:]))


def _part(blocks: tuple[Floats, ...], number: int, keep: Keep) -> Any:
    return keep(blocks[number])


def fit_columns(blocks: list[Floats], fit: Fit) -> Scaling:
    """Fit a scaling to each column of blocks of rows; a few columns are turned round at a time."""
    return joined([fit(rows) for rows in _turned(blocks)])


def normalize_columns(blocks: list[Floats], method: str, quantiles: str) -> tuple[Floats, ...]:
    """Normalise each column of blocks of rows by a method that needs a vector as a whole.

    Method and quantiles are those of `transforms.normalize.normalize`.
    """
    results = tuple(np.empty(block.shape) for block in blocks)
    ends = np.cumsum([len(block) for block in blocks])[:-1]
    first = 0
    for rows in _turned(blocks):
        normalized = normalize(rows, method, quantiles=quantiles)
        columns = slice(first, first + len(normalized))
        for result, part in zip(results, np.split(normalized, ends, axis=1), strict=True):
            result[:, columns] = part.T
        first += len(normalized)
    return results


def _turned(blocks: list[Floats]) -> Iterator[Floats]:
    """A few columns of all blocks at a time, as rows: each one after the other in memory."""
    in_memory = isinstance(blocks[0], np.ndarray | Rows)
    at_once = SAMPLES_AT_ONCE if in_memory else KEPT_SAMPLES_AT_ONCE
    n_columns, ends = blocks[0].shape[1], np.cumsum([len(block) for block in blocks])
    for first in range(0, n_columns, at_once):
        rows = np.empty((min(at_once, n_columns - first), ends[-1]))
        for block, end in zip(blocks, ends, strict=True):
            _turn(block, first, rows, end - len(block))
        yield rows


def _turn(block: Any, first: int, rows: Floats, place: int) -> None:
    """Columns of a block, from `first` on, to a part of rows."""
    if compiled.scaling is not None and isinstance(block, np.ndarray) and block.flags.c_contiguous:
        compiled.scaling.turn(block, first, rows, place)
    else:
        rows[:, place : place + len(block)] = block[:, first : first + len(rows)].T
