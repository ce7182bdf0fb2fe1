"""A donor's published matrices -> arrays: parsed, written, read back and compared, on all cores."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from ingest.matrices import Matrix
from ingest.sources import DonorFiles
from lake.arrays import create_matrix, open_matrix
from lake.errors import StoreError
from lake.layout import MATRICES, Variable, shard_rows
from lake.shards import write_shard

MATRIX_FILES = {"expression": "MicroarrayExpression.csv", "detected": "PACall.csv"}
WORKERS = min(os.cpu_count() or 1, 6)  # each holds a file's worth of numbers, text and chunks: some 50 MB

Read = Callable[[int, int], NDArray[Any]]


@contextmanager
def workers() -> Iterator[ThreadPoolExecutor]:
    """Threads for `write_matrix`; what is not begun when something fails is left."""
    pool = ThreadPoolExecutor(WORKERS)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def write_matrix(
    pool: ThreadPoolExecutor, group: zarr.Group, variable: Variable, shape: tuple[int, int], read: Read
) -> "list[Future[int]]":
    """Write an array, file by file.

    Parameters
    ----------
    pool : ThreadPoolExecutor
        From `workers`.
    group : zarr.Group
    variable : Variable
    shape : (int, int)
    read : callable
        Gives a range of rows, in any thread.

    Returns
    -------
    list of Future
        One a file, in their order: its last row, when it is written. A `StoreError` if it reads back
        differently.
    """
    array = create_matrix(group, variable, *shape)
    written = open_matrix(group, variable.name)
    rows = shard_rows(shape[1])
    return [
        pool.submit(_write_rows, array, written, read, start, min(start + rows, shape[0]))
        for start in range(0, shape[0], rows)
    ]


def _write_rows(array: zarr.Array[Any], written: zarr.Array[Any], read: Read, start: int, stop: int) -> int:
    """Write a file and read it back: what is published is what was parsed, to the last bit."""
    values = read(start, stop)
    write_shard(array, start, values)
    if not np.array_equal(written[start:stop], values):
        raise StoreError(f"{array.store_path} reads back differently; is the disk at fault?")
    return stop


class DonorMatrices:
    """The matrix files of a donor, open and being looked through; made by `scanned`."""

    def __init__(self, files: DonorFiles, pool: ThreadPoolExecutor, matrices: list[Matrix]) -> None:
        self._files, self._pool, self._matrices = files, pool, matrices

    def write(
        self,
        group: zarr.Group,
        probe_ids: NDArray[np.int64],
        n_samples: int,
        progress: Callable[[str, int, int], None],
    ) -> dict[str, dict[str, Any]]:
        """Write both matrices.

        Parameters
        ----------
        group : zarr.Group
        probe_ids : numpy.ndarray of int64
            In store order.
        n_samples : int
        progress : callable
            Called with (donor, bytes done, bytes in all).

        Returns
        -------
        dict
            File name -> ``{"size": bytes, "sha256": hex}``.

        Raises
        ------
        InputError
            If one of the files is wrong.
        StoreError
            If what was written reads back differently.
        """
        for matrix in self._matrices:
            matrix.expect(probe_ids, n_samples)
        shape = len(probe_ids), n_samples
        parts = [
            write_matrix(self._pool, group, variable, shape, matrix.read)
            for variable, matrix in zip(MATRICES, self._matrices, strict=True)
        ]
        _report(self._matrices, parts, shape[0], partial(progress, self._files.donor))
        for matrix in self._matrices:
            matrix.refuse_change()
        return {
            MATRIX_FILES[matrix.kind]: {"size": matrix.size, "sha256": matrix.sha256()}
            for matrix in self._matrices
        }


@contextmanager
def scanned(files: DonorFiles, aside: Path) -> Iterator[DonorMatrices]:
    """Open a donor's matrix files and begin to look through them, while the tables are read.

    Parameters
    ----------
    files : DonorFiles
    aside : pathlib.Path
        A directory for what is extracted of a zip.
    """
    with ExitStack() as stack:
        matrices = [
            stack.enter_context(Matrix(files[MATRIX_FILES[v.name]], v.name, aside / v.name)) for v in MATRICES
        ]
        pool = stack.enter_context(workers())  # ends before the files are closed
        for matrix in matrices:
            matrix.scan(pool)
        yield DonorMatrices(files, pool, matrices)


def _report(
    matrices: list[Matrix], parts: "list[list[Future[int]]]", n_rows: int, report: Callable[[int, int], None]
) -> None:
    """Wait for all files, and tell how far things are in bytes of the published ones."""
    total, before = sum(matrix.size for matrix in matrices), 0
    for matrix, futures in zip(matrices, parts, strict=True):
        for future in futures:
            report(before + matrix.size * future.result() // n_rows, total)
        before += matrix.size
