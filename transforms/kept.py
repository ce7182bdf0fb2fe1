"""The chosen probes' rows, kept in memory from when they were scored: they need not be read again.

Which probes are chosen is known once all are scored, and reading them anew would unpack nearly all of the
store a second time. So each block keeps, with its scores, the rows that its genes may still choose; these
are the blocks of genes that samples are normalised in.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from transforms.blocks import as_slice, take_columns
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
    values : (kept, sample) float64 array
        Their rows, in the samples that are kept.
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


@dataclass(frozen=True, eq=False)
class ChosenRows:
    """Each gene's row in memory, in blocks of genes.

    Attributes
    ----------
    sizes : list of int
        Genes of each block; together all, in the order of the selection.
    places : dict of str to list of (gene,) int array
        Donor -> rows of each block's genes in it.
    samples : (sample,) int array
        Which of the prepared samples they hold, ascending.
    blocks : list of dask.delayed.Delayed
        Of `ScoredRows`, computed.
    """

    sizes: list[int]
    places: dict[str, list[Integers]]
    samples: Integers
    blocks: list[Any]

    @property
    def nbytes(self) -> int:
        """What they take of memory, about."""
        return 8 * sum(self.sizes) * len(self.samples)

    def of(self, donor: str, samples: Integers) -> list[Any]:
        """A donor's genes in some of the prepared samples: tasks that give `Rows`."""
        where = as_slice(np.searchsorted(self.samples, samples))
        return [
            task(partial(_view, rows=as_slice(places), columns=where), block)
            for block, places in zip(self.blocks, self.places[donor], strict=True)
        ]


class KeptRows(NamedTuple):
    """Rows that may be chosen.

    Attributes
    ----------
    rows : list of (kept,) int array
        Of each block: positions on the probe axis.
    samples : (sample,) int array
        Which of the prepared samples they hold, ascending.
    blocks : list of dask.delayed.Delayed
        Of `ScoredRows`, computed.
    """

    rows: list[Integers]
    samples: Integers
    blocks: list[Any]

    def chosen(self, rows: dict[str, Integers]) -> ChosenRows | None:
        """Those of the chosen probes, by donor.

        None where genes in their order are not one block after the other, the same for all donors.
        """
        block_of = np.repeat(np.arange(len(self.rows)), [len(own) for own in self.rows])
        place = np.concatenate([np.arange(len(own)) for own in self.rows])
        kept = np.concatenate(self.rows)
        order = np.argsort(kept)
        found = {donor: order[np.searchsorted(kept, own, sorter=order)] for donor, own in rows.items()}
        blocks = [block_of[own] for own in found.values()]
        if any((np.diff(one) < 0).any() or (one != blocks[0]).any() for one in blocks):
            return None
        numbers, sizes = np.unique(blocks[0], return_counts=True)
        cuts = np.cumsum(sizes)[:-1]
        return ChosenRows(
            sizes=sizes.tolist(),
            places={donor: np.split(place[own], cuts) for donor, own in found.items()},
            samples=self.samples,
            blocks=[self.blocks[number] for number in numbers],
        )


@dataclass(frozen=True, eq=False)
class Rows:
    """Some rows and columns of a matrix in memory, copied when they are asked for.

    Attributes
    ----------
    matrix : (row, column) float64 array
    rows, columns : int array or slice
    shape : (int, int)
    """

    matrix: Floats
    rows: Integers | slice
    columns: Integers | slice

    @property
    def shape(self) -> tuple[int, int]:
        """How many rows and columns there are."""
        return _length(self.rows), _length(self.columns)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Floats:
        """``[:]`` or ``[:, columns]``."""
        columns = self.columns if key == slice(None) else _chosen(self.columns, key[1])
        return take_columns(self.matrix, columns)[self.rows]


def _view(block: ScoredRows, rows: Integers | slice, columns: Integers | slice) -> Rows:
    return Rows(block.values, rows, columns)


def _length(positions: Integers | slice) -> int:
    return positions.stop - positions.start if isinstance(positions, slice) else len(positions)


def _chosen(positions: Integers | slice, key: Any) -> Integers | slice:
    if isinstance(positions, slice):
        positions = np.arange(positions.start, positions.stop)
    return as_slice(positions[key])
