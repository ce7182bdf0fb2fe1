"""Turning probe-by-sample blocks into a matrix with a row a sample.

A small matrix is kept in memory. A larger one is written to a Zarr array, out of core: first all genes of
a block, sample after sample, into a scratch file, then that file's samples into the array, one chunk a
block of samples. It appears whole or not at all.
"""

import hashlib
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec

from lake.learning.aside import folder_aside
from lake.learning.matrix import NAME, InMemory, Matrix, Numbers, OnDisk
from lake.learning.order import Integers

Blocks = Iterable[tuple[int, NDArray[np.float64]]]
"""First feature, and the values (feature, row) of some features from there on."""


def in_memory(blocks: Blocks, rows: Integers, n_features: int, dtype: str) -> InMemory:
    """Gather a matrix in memory.

    Parameters
    ----------
    blocks : Blocks
    rows : (row,) int array
        Which row comes to lie at each place.
    n_features : int
    dtype : {"float32", "float64"}
    """
    values = np.empty((len(rows), n_features), dtype)
    for start, block in blocks:
        values[:, start : start + len(block)] = block[:, rows].T
    return InMemory(values)


def on_disk(
    blocks: Callable[[], Blocks],
    rows: Integers,
    n_features: int,
    dtype: str,
    *,
    path: Path,
    block_size: int,
) -> OnDisk:
    """Write a matrix to a folder, unless it is there.

    Parameters
    ----------
    blocks : callable
        Gives them; not called if the folder is there.
    rows, n_features, dtype
        As for `in_memory`.
    path : pathlib.Path
        Its name says which matrix it is.
    block_size : int
        Rows in a chunk.
    """
    if not path.exists():
        with folder_aside(path) as aside:
            scratch = aside / "scratch"
            with scratch.open("wb") as stream:
                starts = [_append(stream, start, block, rows, dtype) for start, block in blocks()]
            _write_rows(aside / NAME, scratch, (len(rows), n_features), dtype, starts, block_size)
            scratch.unlink()
    return OnDisk(path, np.dtype(dtype))


def _append(stream: Any, start: int, block: NDArray[np.float64], rows: Integers, dtype: str) -> int:
    stream.write(np.ascontiguousarray(block.T, dtype=dtype)[rows].data)
    return start


def _write_rows(
    path: Path, scratch: Path, shape: tuple[int, int], dtype: str, starts: list[int], block_size: int
) -> None:
    array = zarr.create_array(
        path,
        shape=shape,
        dtype=dtype,
        chunks=(min(block_size, shape[0]), shape[1]),
        # Measured on noisy values: compression saves a seventh of the bytes and two fifths of the speed.
        compressors=[Crc32cCodec()],
        fill_value=np.nan,
        config={"write_empty_chunks": True},
        dimension_names=("row", "feature"),
    )
    with scratch.open("rb") as stream:
        for first in range(0, shape[0], block_size):
            last = min(first + block_size, shape[0])
            array[first:last] = np.concatenate(
                [*_pieces(stream, shape, starts, array.dtype, first, last)], axis=1
            )


def _pieces(
    stream: Any, shape: tuple[int, int], starts: list[int], dtype: np.dtype[Any], first: int, last: int
) -> Iterator[Numbers]:
    """Some rows of every block of the scratch file, in which blocks follow each other."""
    for start, stop in zip(starts, [*starts[1:], shape[1]], strict=True):
        width = stop - start
        stream.seek(dtype.itemsize * (start * shape[0] + first * width))
        yield np.fromfile(stream, dtype, (last - first) * width).reshape(last - first, width)


def matrix_of(
    blocks: Callable[[], Blocks],
    rows: Integers,
    n_features: int,
    dtype: str,
    *,
    block_size: int,
    memory: int,
    home: Path | None,
    name: str,
) -> Matrix:
    """A matrix in memory if it fits, else in a folder.

    Parameters
    ----------
    blocks : callable
    rows, n_features, dtype, block_size
        As for `on_disk`.
    memory : int
        Bytes up to which it is kept in memory.
    home : pathlib.Path or None
        Folder of such folders. None: one that goes with the matrix.
    name : str
        What the values are, of all that could lie there.
    """
    if len(rows) * n_features * np.dtype(dtype).itemsize <= memory:
        return in_memory(blocks(), rows, n_features, dtype)
    owner = Temporary() if home is None else None
    folder = owner.path if owner is not None else Path(home or ".")
    said = f"{name} {len(rows)} {n_features} {dtype} {block_size}"
    path = folder / f"{hashlib.sha256(said.encode()).hexdigest()[:16]}.rows"
    matrix = on_disk(blocks, rows, n_features, dtype, path=path, block_size=block_size)
    matrix.owner = owner
    return matrix


class Temporary:
    """A folder that goes with its owner, or when the process that made it ends; a forked one leaves it be."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="ahba-lake-"))
        weakref.finalize(self, partial(_remove, self.path, os.getpid()))


def _remove(path: Path, maker: int) -> None:
    if os.getpid() == maker:
        shutil.rmtree(path, ignore_errors=True)
