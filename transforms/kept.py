"""The chosen probes' rows in memory: they need not be read again.

Which probes are chosen is known once all are scored, and reading them anew would unpack nearly all of the
store a second time. So each block of probes keeps, with its scores, the rows that its genes may still choose.
Where the whole matrix is in memory nothing is kept: the chosen rows are found in it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from transforms.blocks import EVERYTHING, Axis, Cells
from transforms.tasks import task

Floats = NDArray[np.float64]
Integers = NDArray[np.integer]


class ScoredRows(NamedTuple):
    """A block of probes, scored.

    Attributes
    ----------
    scores : (probe, pool) float64 array
    kept : (kept,) int array
        Positions in the block of the probes that may be chosen.
    values : (kept, column) float64 array
        Their rows, in the columns that are kept.
    """

    scores: Floats
    kept: Integers
    values: Floats


def may_be_chosen(scores: Floats, genes: NDArray[Any]) -> NDArray[np.bool_]:
    """Mark the probes that are the best of their gene in this block, in any pool; shape (probes,).

    All of those that are equally good, and all without a score, which some methods rank first.
    """
    codes, names = pd.factorize(genes)
    best = np.full((len(names), scores.shape[1]), -np.inf)
    np.fmax.at(best, codes, scores)
    return np.asarray(((scores >= best[codes]) | np.isnan(scores)).any(axis=1))


class Grid(NamedTuple):
    """A matrix in memory, in chunks.

    Attributes
    ----------
    chunks : list of list of dask.delayed.Delayed
        Row after row of them; computed.
    sizes : pair of sequence of int
        Rows of each row of chunks, and columns of each column of chunks.
    """

    chunks: list[list[Any]]
    sizes: tuple[Sequence[int], Sequence[int]]

    @classmethod
    def of(cls, data: da.Array) -> "Grid":
        """The chunks of an array."""
        return cls(data.to_delayed(optimize_graph=False).tolist(), data.chunks)

    def holding(self, cells: Cells) -> list[Any]:
        """The chunks that hold some cells."""
        return [self.chunks[row][column] for row, column in cells.chunks]


@dataclass(frozen=True, eq=False)
class ChosenRows:
    """Each gene's row in memory, in blocks of genes.

    Attributes
    ----------
    grid : Grid
        Where the rows are.
    rows : mapping of str to list of (gene,) int array
        Donor -> rows in it of each block's genes; all blocks together are in the order of the selection.
    samples : (sample,) int array
        Which of the prepared samples it holds, ascending.
    columns : (sample,) int array
        The column of each; that of mirrored copies is the same.
    nbytes : int
        What is kept for them alone takes of memory, about.
    """

    grid: Grid
    rows: Mapping[str, list[Integers]]
    samples: Integers
    columns: Integers
    nbytes: int = 0

    @classmethod
    def of_grid(
        cls,
        grid: Grid,
        rows: Mapping[str, Integers],
        samples: Integers,
        columns: Integers,
        *,
        nbytes: int = 0,
    ) -> "ChosenRows":
        """Cut the genes into blocks: at the ends of chunks, where the first donor's rows are in order."""
        chunk = np.searchsorted(np.cumsum(grid.sizes[0]), next(iter(rows.values())), side="right")
        in_order = (np.diff(chunk) >= 0).all()
        even = np.arange(len(chunk)) * len(grid.chunks) // max(1, len(chunk))
        cuts = np.flatnonzero(np.diff(chunk if in_order else even)) + 1
        return cls(
            grid, {donor: np.split(own, cuts) for donor, own in rows.items()}, samples, columns, nbytes
        )

    @property
    def sizes(self) -> list[int]:
        """Genes of each block."""
        return [len(rows) for rows in next(iter(self.rows.values()))]

    def of(self, donor: str, samples: Integers) -> list[Any]:
        """A donor's genes in some of the prepared samples: tasks that give `Rows`."""
        columns = Axis.of(self.columns[np.searchsorted(self.samples, samples)], self.grid.sizes[1])
        found = [Cells(Axis.of(rows, self.grid.sizes[0]), columns) for rows in self.rows[donor]]
        return [task(partial(Rows, cells), self.grid.holding(cells)) for cells in found]


class KeptRows(NamedTuple):
    """Rows that may be chosen.

    Attributes
    ----------
    rows : list of (kept,) int array
        Of each block: positions on the probe axis.
    samples : (sample,) int array
        Which of the prepared samples they hold, ascending.
    columns : (sample,) int array
        The column of each.
    blocks : list of dask.delayed.Delayed
        Of `ScoredRows`, computed.
    """

    rows: list[Integers]
    samples: Integers
    columns: Integers
    blocks: list[Any]

    def chosen(self, rows: Mapping[str, Integers]) -> ChosenRows:
        """Those of the chosen probes, by donor."""
        n_columns = int(self.columns.max(initial=-1)) + 1
        grid = Grid(
            [[task(_values, block)] for block in self.blocks], ([len(own) for own in self.rows], [n_columns])
        )
        kept = np.concatenate(self.rows)
        order = np.argsort(kept)
        found = {donor: order[np.searchsorted(kept, own, sorter=order)] for donor, own in rows.items()}
        n_genes = len(next(iter(found.values())))
        return ChosenRows.of_grid(grid, found, self.samples, self.columns, nbytes=8 * n_genes * n_columns)


def _values(block: ScoredRows) -> Floats:
    return block.values


@dataclass(frozen=True, eq=False)
class Rows:
    """Some rows and columns of matrices in memory, copied when they are asked for.

    Attributes
    ----------
    cells : Cells
    chunks : list of (row, column) float64 array
        What `cells` are of.
    """

    cells: Cells
    chunks: list[Floats]

    @property
    def shape(self) -> tuple[int, int]:
        """How many rows and columns there are."""
        return self.cells.shape

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Floats:
        """``[:]`` or ``[:, columns]``."""
        columns = EVERYTHING if isinstance(key, slice) else key[1]
        return self.cells.part(columns=columns).copied(self.chunks)
