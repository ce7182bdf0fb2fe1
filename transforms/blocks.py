"""Any rows and columns of a lazy probe x sample array, as one block, without reading what lies between."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph
from numpy.typing import NDArray

from transforms import compiled

Matrix = NDArray[Any]
Integers = NDArray[np.integer]
Positions = Integers | slice

_COPIED_AS: dict[np.dtype[Any], type] = {np.dtype(np.float64): np.float64, np.dtype(np.bool_): np.uint8}
ROWS_AT_ONCE = 64  # of a chunk; copying them takes no memory that the processor's cache does not hold
BYTES_AT_ONCE = 3 << 20  # of rows that are copied to be worked on; a core's cache holds them
EVERYTHING = slice(None)


def as_slice(positions: NDArray[Any]) -> slice | NDArray[Any]:
    """Positions that follow each other, as a slice (a view where it is applied); any others unchanged."""
    if len(positions) and np.array_equal(positions, np.arange(positions[0], positions[0] + len(positions))):
        return slice(int(positions[0]), int(positions[0]) + len(positions))
    return positions


def gather(array: xr.DataArray, rows: Integers, columns: Integers) -> da.Array:
    """Chosen rows and columns of a (probe, sample) array, lazily, as one chunk.

    Parameters
    ----------
    array : xarray.DataArray
        Dims (probe, sample), dask-backed.
    rows, columns : ndarray of int
        Positions on the probe and sample axes, in the order wanted; repeats are allowed.

    Returns
    -------
    dask.array.Array
        Shape (len(rows), len(columns)), one chunk. Each chunk of `array` that holds a wanted value is read
        once, and one task copies the wanted values of all of them to their places: Dask's own indexing
        would copy each value four times.
    """
    cells = Cells.of(rows, columns, matrix_of(array).chunks)
    return made_of(array, cells, cells.copied, len(rows), tokenize(rows, columns))


def made_of(
    array: xr.DataArray, cells: "Cells", work: Callable[[list[Matrix]], Matrix], n_rows: int, token: str
) -> da.Array:
    """What is made of some cells of a (probe, sample) array, lazily, as one chunk of so many rows.

    `work` is called with the chunks that hold them; with the array, `token` tells what it does.
    """
    data: Any = matrix_of(array)
    chunks = [(data.name, *place) for place in cells.chunks]
    name = f"gather-{tokenize(data.name, token)}"
    graph = HighLevelGraph.from_collections(name, {(name, 0, 0): (work, chunks)}, dependencies=[data])
    return da.Array(graph, name, chunks=((n_rows,), (cells.shape[1],)), meta=data._meta)


def matrix_of(array: xr.DataArray) -> da.Array:
    """The values of an array, (probe, sample)."""
    data: da.Array = da.asanyarray(array.transpose("probe", "sample").data)
    return data


def in_memory(data: da.Array) -> bool:
    """Whether the chunks of an array are there, as dask keeps results in this process."""
    graph: Mapping[Any, Any] = data.__dask_graph__()
    places = product(*(range(len(sizes)) for sizes in data.chunks))
    return all(isinstance(graph.get((data.name, *place)), np.ndarray) for place in places)


@dataclass(frozen=True)
class Axis:
    """What is wanted along one axis of an array in chunks.

    Attributes
    ----------
    chunks : tuple of int
        The chunks that hold something wanted.
    chunk : (wanted,) int array
        Which of these.
    position : (wanted,) int array
        Where in it.
    """

    chunks: tuple[int, ...]
    chunk: NDArray[np.intp]
    position: NDArray[np.intp]

    @classmethod
    def of(cls, wanted: Integers, sizes: Sequence[int]) -> "Axis":
        """What is at the positions, of chunks of the sizes."""
        ends = np.cumsum(sizes)
        chunk = np.searchsorted(ends, wanted, side="right")
        chunks, own = np.unique(chunk, return_inverse=True)
        return cls(tuple(chunks.tolist()), own, (wanted - (ends - np.asarray(sizes))[chunk]).astype(np.intp))

    def part(self, which: Positions) -> "Axis":
        """Some of it, of the same chunks."""
        return Axis(self.chunks, self.chunk[which], self.position[which])

    def parts(self) -> Iterator[tuple[int, Positions, Positions]]:
        """Each chunk's number, the positions in it, and where they go."""
        for chunk in range(len(self.chunks)):
            places = np.flatnonzero(self.chunk == chunk)
            yield chunk, as_slice(self.position[places]), as_slice(places)


@dataclass(frozen=True, eq=False)
class Cells:
    """Rows and columns wanted of a matrix in chunks, and where in the chunks they are.

    Attributes
    ----------
    rows : Axis
    columns : Axis
    """

    rows: Axis
    columns: Axis

    @classmethod
    def of(cls, rows: Integers, columns: Integers, sizes: Sequence[Sequence[int]]) -> "Cells":
        """Those at the positions, of a matrix whose chunks have the sizes along rows and columns."""
        return cls(Axis.of(rows, sizes[0]), Axis.of(columns, sizes[1]))

    @property
    def shape(self) -> tuple[int, int]:
        """How many rows and columns there are."""
        return len(self.rows.chunk), len(self.columns.chunk)

    @property
    def chunks(self) -> list[tuple[int, int]]:
        """Numbers of the chunks that hold them, in the order in which `copied` wants them."""
        return [(row, column) for row in self.rows.chunks for column in self.columns.chunks]

    def part(self, rows: Positions = EVERYTHING, columns: Positions = EVERYTHING) -> "Cells":
        """Some of them, of the same chunks."""
        return Cells(
            self.rows if rows is EVERYTHING else self.rows.part(rows),
            self.columns if columns is EVERYTHING else self.columns.part(columns),
        )

    def copied(self, chunks: list[Matrix], block: Matrix | None = None) -> Matrix:
        """Their values, of the matrices in `chunks`; in memory of their own, or in `block`."""
        if block is None:
            block = np.empty(self.shape, chunks[0].dtype if len(chunks) else np.float64)
        as_bytes = _COPIED_AS.get(block.dtype)
        plain = all(_is_plain(chunk, block.dtype) for chunk in chunks)
        if compiled.scores is None or as_bytes is None or not plain or not block.size:
            self._copy_by_numpy(chunks, block)
        else:
            compiled.scores.copy_cells(
                chunks if as_bytes is np.float64 else [chunk.view(as_bytes) for chunk in chunks],
                len(self.columns.chunks),
                self.rows.chunk,
                self.rows.position,
                self.columns.chunk,
                self.columns.position,
                block.view(as_bytes),
            )
        return block

    def copied_in_parts(self, chunks: list[Matrix], cuts: Sequence[int]) -> Iterator[Matrix]:
        """Their values, rows between two cuts after the other; in memory that the next ones take over."""
        dtype = chunks[0].dtype if len(chunks) else np.float64
        held = np.empty((max(np.diff(cuts)), self.shape[1]), dtype)
        for first, last in pairwise(cuts):
            yield self.part(slice(first, last)).copied(chunks, held[: last - first])

    def _copy_by_numpy(self, chunks: list[Matrix], block: Matrix) -> None:
        across = len(self.columns.chunks)
        for first in range(0, len(block), ROWS_AT_ONCE):
            part = slice(first, first + ROWS_AT_ONCE)
            for line, rows, row_places in self.rows.part(part).parts():
                for number, columns, places in self.columns.parts():
                    chunk = chunks[line * across + number]
                    block[part][_both(row_places, places)] = take_columns(chunk[rows], columns)


def _is_plain(chunk: Matrix, dtype: np.dtype[Any]) -> bool:
    return isinstance(chunk, np.ndarray) and chunk.dtype == dtype and chunk.flags.c_contiguous


def _both(rows: Positions, columns: Positions) -> Any:
    if isinstance(rows, slice) or isinstance(columns, slice):
        return rows, columns
    return np.ix_(rows, columns)


def cut_into_parts(starts: Integers, n_rows: int, n_columns: int) -> list[int]:
    """Where to cut rows, at some of `starts`, so that parts stay in a core's cache while they are at work."""
    size = max(1, BYTES_AT_ONCE // (8 * max(1, n_columns)))
    return [*starts[np.diff(starts // size, prepend=-1) != 0].tolist(), n_rows]


def take_columns(block: Any, columns: Positions) -> NDArray[Any]:
    """Columns of a matrix, row by row in memory: indexing an array would leave them column by column."""
    if isinstance(columns, slice) or not isinstance(block, np.ndarray):
        return np.asarray(block[:, columns], order="C")
    return block.take(columns, axis=1)


def rearranged(block: da.Array, *places: NDArray[np.integer]) -> da.Array:
    """A one-chunk array with each axis taken at the given places, in one task."""
    if all(np.array_equal(axis, np.arange(size)) for axis, size in zip(places, block.shape, strict=True)):
        return block
    chunks = tuple((len(axis),) for axis in places)
    taken: da.Array = da.map_blocks(_take, block, places, chunks=chunks, dtype=block.dtype, meta=block._meta)
    return taken


def _take(block: NDArray[Any], places: tuple[NDArray[np.integer], ...]) -> NDArray[Any]:
    for axis, positions in enumerate(places):
        block = block[(slice(None),) * axis + (as_slice(positions),)]
    return block
