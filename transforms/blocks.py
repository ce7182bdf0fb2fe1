"""Any rows and columns of a lazy probe x sample array, as one block, without reading what lies between."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph
from numpy.typing import NDArray

from transforms import compiled

_COPIED_AS: dict[np.dtype[Any], type] = {np.dtype(np.float64): np.float64, np.dtype(np.bool_): np.uint8}
ROWS_AT_ONCE = 64  # of a chunk; copying them takes no memory that the processor's cache does not hold


def as_slice(positions: NDArray[Any]) -> slice | NDArray[Any]:
    """Positions that follow each other, as a slice (a view where it is applied); any others unchanged."""
    if len(positions) and np.array_equal(positions, np.arange(positions[0], positions[0] + len(positions))):
        return slice(int(positions[0]), int(positions[0]) + len(positions))
    return positions


def gather(array: xr.DataArray, rows: NDArray[np.integer], columns: NDArray[np.integer]) -> da.Array:
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
    data = da.asanyarray(array.transpose("probe", "sample").data)
    shape = (len(rows), len(columns))
    row_parts, column_parts = _parts(rows, data.chunks[0]), _parts(columns, data.chunks[1])
    chunks = [[(data.name, row.chunk, column.chunk) for column in column_parts] for row in row_parts]
    work = partial(_assemble, rows=row_parts, columns=column_parts, shape=shape, dtype=data.dtype)
    name = f"gather-{tokenize(data.name, rows, columns)}"
    graph = HighLevelGraph.from_collections(name, {(name, 0, 0): (work, chunks)}, dependencies=[data])
    return da.Array(graph, name, chunks=tuple((size,) for size in shape), meta=data._meta)


@dataclass(frozen=True)
class _Part:
    """What is wanted of one chunk along one axis: positions within it, and where they go."""

    chunk: int
    positions: NDArray[np.integer] | slice
    places: NDArray[np.integer] | slice

    def arrays(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Positions and places, one by one."""
        positions, places = (
            _as_array(one).astype(np.intp, copy=False) for one in (self.positions, self.places)
        )
        return positions, places

    def pieces(self) -> Iterator["_Part"]:
        """The same in pieces whose values stay in a core's cache on their way."""
        if isinstance(self.positions, slice) and isinstance(self.places, slice):
            yield self
            return
        positions, places = _as_array(self.positions), _as_array(self.places)
        for first in range(0, len(positions), ROWS_AT_ONCE):
            piece = slice(first, first + ROWS_AT_ONCE)
            yield _Part(self.chunk, as_slice(positions[piece]), as_slice(places[piece]))


def take_columns(block: Any, columns: NDArray[np.integer] | slice) -> NDArray[Any]:
    """Columns of a matrix, row by row in memory: indexing an array would leave them column by column."""
    if isinstance(columns, slice) or not isinstance(block, np.ndarray):
        return np.asarray(block[:, columns], order="C")
    return block.take(columns, axis=1)


def _as_array(positions: NDArray[np.integer] | slice) -> NDArray[np.integer]:
    return np.arange(positions.start, positions.stop) if isinstance(positions, slice) else positions


def _parts(wanted: NDArray[np.integer], sizes: tuple[int, ...]) -> list[_Part]:
    ends = np.cumsum(sizes)
    chunk_of = np.searchsorted(ends, wanted, side="right")
    starts = ends - np.asarray(sizes)
    return [
        _Part(int(chunk), as_slice(wanted[places] - starts[chunk]), as_slice(places))
        for chunk in np.unique(chunk_of)
        for places in [np.flatnonzero(chunk_of == chunk)]
    ]


def _assemble(
    chunks: list[list[NDArray[Any]]],
    rows: list[_Part],
    columns: list[_Part],
    shape: tuple[int, int],
    dtype: np.dtype[Any],
) -> NDArray[Any]:
    block = np.empty(shape, dtype)
    for row, line in zip(rows, chunks, strict=True):
        for column, chunk in zip(columns, line, strict=True):
            _copy(chunk, row, column, block)
    return block


def _copy(chunk: NDArray[Any], row: _Part, column: _Part, block: NDArray[Any]) -> None:
    """Copy what is wanted of a chunk to its places."""
    as_bytes = _COPIED_AS.get(chunk.dtype)
    if compiled.kernels is not None and as_bytes is not None and chunk.flags.c_contiguous:
        (rows, row_places), (columns, column_places) = row.arrays(), column.arrays()
        compiled.kernels.copy_parts(
            chunk.view(as_bytes), rows, columns, block.view(as_bytes), row_places, column_places
        )
        return
    for part in row.pieces():
        values = take_columns(chunk[part.positions], column.positions)
        if isinstance(part.places, slice) or isinstance(column.places, slice):
            block[part.places, column.places] = values
        else:
            block[np.ix_(part.places, column.places)] = values


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
