"""A donor's published matrices -> arrays: parsed, written, read back and compared, on all cores."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from ingest.matrices import Matrix
from ingest.sources import DonorFiles
from lake.arrays import create_matrix
from lake.layout import MATRICES, Variable, shard_rows
from lake.manifest import sync
from lake.shards import Read, write_shard

MATRIX_FILES = {"expression": "MicroarrayExpression.csv", "detected": "PACall.csv"}
WRITERS = min(os.cpu_count() or 1, 6)  # each holds a file of the store: some 30 MB


@contextmanager
def threads(number: int) -> Iterator[ThreadPoolExecutor]:
    """Some threads; what they have not begun when something fails is left."""
    pool = ThreadPoolExecutor(number)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def write_matrix(
    pool: Executor, group: zarr.Group, variable: Variable, shape: tuple[int, int], read: Read
) -> "list[Future[Path]]":
    """Write an array, file by file.

    Parameters
    ----------
    pool : Executor
        Of threads, not the main one.
    group : zarr.Group
    variable : Variable
    shape : (int, int)
    read : callable
        Gives a range of rows, in any thread.

    Returns
    -------
    list of Future
        One a file, in their order: its place, when it is written. A `StoreError` if it reads back
        differently.
    """
    array = create_matrix(group, variable, *shape)
    return [
        pool.submit(write_shard, array, start, read) for start in range(0, shape[0], shard_rows(shape[1]))
    ]


class DonorMatrices:
    """The matrix files of a donor: `scan` them, then `write`, then wait for what was `written`.

    Parameters
    ----------
    files : DonorFiles
    aside : pathlib.Path
        A directory for what is extracted of a zip.
    opened : ExitStack
        Closes the files at its end, when no thread is at work on them.
    """

    def __init__(self, files: DonorFiles, aside: Path, opened: ExitStack) -> None:
        self._matrices = [
            opened.enter_context(Matrix(files[MATRIX_FILES[v.name]], v.name, aside / v.name))
            for v in MATRICES
        ]

    def scan(self, pool: Executor) -> None:
        """Have the files gone through by threads."""
        for matrix in self._matrices:
            matrix.scan(pool)

    def write(self, pool: Executor, group: zarr.Group, probe_ids: NDArray[np.int64], n_samples: int) -> None:
        """Have both matrices written by threads, when the files were gone through.

        Parameters
        ----------
        pool : Executor
            Of threads, not the main one.
        group : zarr.Group
        probe_ids : numpy.ndarray of int64
            In store order.
        n_samples : int

        Raises
        ------
        InputError
            If there is not one line for each probe.
        """
        for matrix in self._matrices:
            matrix.expect(probe_ids, n_samples)
        shape = len(probe_ids), n_samples
        self._parts = [
            write_matrix(pool, group, variable, shape, matrix.read)
            for variable, matrix in zip(MATRICES, self._matrices, strict=True)
        ]

    def written(self, report: Callable[[int, int], None]) -> dict[str, dict[str, Any]]:
        """Wait until all is written and on the disk, and tell how far things are.

        Parameters
        ----------
        report : callable
            Called with (bytes done, bytes in all), of the published files.

        Returns
        -------
        dict
            File name -> ``{"size": bytes, "sha256": hex}``.

        Raises
        ------
        InputError
            If a row of one of the files is wrong, or one changed while it was read.
        StoreError
            If what was written reads back differently.
        """
        total, before = sum(matrix.size for matrix in self._matrices), 0
        for matrix, futures in zip(self._matrices, self._parts, strict=True):
            for number, future in enumerate(futures, start=1):
                sync(future.result())  # the disk is at work while the next ones are made
                report(before + matrix.size * number // len(futures), total)
            before += matrix.size
        for matrix in self._matrices:
            matrix.refuse_change()
        return {
            MATRIX_FILES[matrix.kind]: {"size": matrix.size, "sha256": matrix.lines.sha256}
            for matrix in self._matrices
        }
