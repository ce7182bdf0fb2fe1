"""Any rows and columns of a lazy probe x sample array, as one block, without reading what lies between."""

from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray


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
        once, in the array's order; the wanted order is made inside the block's own task.
    """
    wanted_rows, row_places = np.unique(rows, return_inverse=True)
    wanted_columns, column_places = np.unique(columns, return_inverse=True)
    data = da.asanyarray(array.transpose("probe", "sample").data)
    block = data[as_slice(wanted_rows)][:, as_slice(wanted_columns)].rechunk(-1)
    return rearranged(block, row_places, column_places)


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
