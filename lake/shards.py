"""Writing the files of a matrix: what Zarr would write, three times as fast, and always the same bytes.

A shard (Zarr's ``sharding_indexed``) is its chunks, one after the other, then where each lies, then a
checksum of that. Zarr's own writer spends most of its time on the bookkeeping of small chunks; ``zarrs`` is
fast, but puts the chunks in the order in which they happen to be ready.
"""

import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from google_crc32c import value as crc32c
from numpy.typing import NDArray
from zarr.storage import LocalStore

from lake import compiled
from lake.errors import StoreError
from lake.packing import Packed, pack

BAND = 1 << 20  # bytes of values taken at once: with their text and chunks, they stay in the cache
_NOT_THERE = 2**64 - 1

Read = Callable[[int, int], NDArray[Any]]


def write_shard(array: zarr.Array[Any], start: int, read: Read) -> Path:
    """Write one file of a matrix, and see that it holds what was read.

    For threads other than the main one: there blosc works alone. In the main one it has threads of its own,
    which put their blocks down in the order in which they happen to be ready.

    Parameters
    ----------
    array : zarr.Array
        Made by `lake.arrays.create_matrix`, in a local store.
    start : int
        The file's first row: a multiple of a shard's.
    read : callable
        Gives a range of rows of the matrix; asked for some `BAND` bytes at a time, in their order.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    StoreError
        If the file does not read back as it was written, or a chunk as the values that it was made from.
    """
    assert array.shards is not None  # noqa: S101 - narrows the type
    assert isinstance(array.store, LocalStore)  # noqa: S101 - narrows the type
    path = array.store.root / array.path / "c" / str(start // array.shards[0]) / "0"
    rows, columns = array.shards[0] // array.chunks[0], array.shards[1] // array.chunks[1]
    data = _shard(_packed(array, start, read), rows * columns)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    if not _reads_back(path, data):
        raise StoreError(f"{path} reads back differently; is the disk at fault?")
    return path


def _reads_back(path: Path, data: bytearray) -> bool:
    if compiled.kernels is not None:
        with path.open("rb", buffering=0) as stream:
            if compiled.kernels.reads_back(stream.fileno(), data):
                return True
    return path.read_bytes() == data


def _shard(bands: Iterable[Packed], n_places: int) -> bytearray:
    """A shard of packed chunks; the places behind them lie beyond the matrix's end."""
    data = bytearray()
    sizes: list[int] = []
    for members, sizes_of in bands:
        data += members
        sizes += sizes_of
    index = np.full((n_places, 2), _NOT_THERE, "<u8")
    index[: len(sizes), 0] = np.cumsum(sizes) - sizes
    index[: len(sizes), 1] = sizes
    footer = index.tobytes()
    data += footer + struct.pack("<I", crc32c(footer))
    return data


def _packed(array: zarr.Array[Any], start: int, read: Read) -> Iterator[Packed]:
    """The shard's chunks, row by row, in bands."""
    assert array.shards is not None  # noqa: S101 - narrows the type
    rows, n_columns = array.chunks[0], array.shards[1]
    stop = min(start + array.shards[0], array.shape[0])
    band = rows * max(1, BAND // (rows * n_columns * array.dtype.itemsize))
    for first in range(start, stop, band):
        yield pack(read(first, min(first + band, stop)), array)
