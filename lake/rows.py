"""Reading some probes of the matrices without Dask: the chunks that hold them, of all donors at once."""

import asyncio
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.core.sync import sync

from lake.arrays import damage_named, fast_codecs
from lake.errors import DamageError

# Reads under way: on a disk as many as keep the cores busy, over a network as many as hide its delay.
AT_ONCE_LOCAL, AT_ONCE_REMOTE = 3, 32
FILES_AT_ONCE = 4  # that one read goes through: each read costs 2 ms by itself

Integers = NDArray[np.integer]
Positions = Integers | slice
Run = tuple[int, int]
Request = tuple[str, Integers, Positions]
"""Donor's group, rows (probes, in any order, repeats allowed), columns (samples)."""


class RowReader:
    """Reads rows of matrices; each matrix is opened once.

    Parameters
    ----------
    root : zarr.Group
    path : str
        The store, as messages name it.
    """

    def __init__(self, root: zarr.Group, path: str) -> None:
        self._root = zarr.AsyncGroup(root.metadata, root.store_path)
        self._path = path
        self._local = None if "://" in path else Path(path)
        self._open: dict[str, Any] = {}
        self._turn = asyncio.Semaphore(AT_ONCE_REMOTE if self._local is None else AT_ONCE_LOCAL)

    def read(self, name: str, requests: Iterable[Request]) -> list[NDArray[Any]]:
        """Rows of one matrix of each of several donors.

        Parameters
        ----------
        name : {"expression", "detected"}
        requests : iterable of Request

        Returns
        -------
        list of (row, column) array
            In the order of the requests.

        Raises
        ------
        DamageError
            If a file is missing or damaged.
        """
        with fast_codecs():
            return list(sync(self._gathered(name, list(requests))))

    async def _gathered(self, name: str, requests: list[Request]) -> list[NDArray[Any]]:
        parts = (self._part(f"{group}/{name}", rows, columns) for group, rows, columns in requests)
        return await asyncio.gather(*parts)

    async def _part(self, matrix: str, rows: Integers, columns: Positions) -> NDArray[Any]:
        array = await self._matrix(matrix)
        if not len(rows):
            raise ValueError("no rows to read")
        wanted, places = np.unique(rows, return_inverse=True)
        file, (chunk, width) = (array.shards or array.chunks)[0], array.chunks
        runs = adjacent_runs(wanted, chunk, FILES_AT_ONCE * file)
        chosen = np.arange(array.shape[1])[columns]
        spans = adjacent_runs(np.unique(chosen), width, array.shape[1])
        part: NDArray[Any] = np.empty((len(wanted), len(chosen)), array.dtype)

        async def fill(run: Run, span: Run) -> None:
            block = await self._run(array, matrix, run, span)
            there = slice(*np.searchsorted(wanted, run))
            inside = np.flatnonzero((chosen >= span[0]) & (chosen < span[1]))
            kept = block[:, as_slice(chosen[inside] - span[0])]
            part[there, as_slice(inside)] = (
                kept if there.stop - there.start == len(kept) else kept[wanted[there] - run[0]]
            )

        await asyncio.gather(*(fill(run, span) for run in runs for span in spans))
        return part if np.array_equal(wanted, rows) else part[places]

    async def _matrix(self, matrix: str) -> Any:
        if matrix not in self._open:
            with damage_named(f"{self._path}/{matrix}"):
                self._open[matrix] = await self._root.getitem(matrix)
        return self._open[matrix]

    async def _run(self, array: Any, matrix: str, run: Run, span: Run) -> NDArray[Any]:
        where = f"{self._path}/{matrix}"
        with damage_named(where):
            async with self._turn:
                values: NDArray[Any] = await array.getitem((slice(*run), slice(*span)))
        lacking = np.isnan(values).any() if values.dtype.kind == "f" else not values.any()
        # What is missing reads as the fill value: only then is it worth while to look for the file.
        if lacking:
            await self._refuse_missing(array, matrix, run)
        if lacking and values.dtype.kind == "f":
            raise DamageError(where, f"holds no number in rows {run[0]} to {run[1] - 1}")
        return values

    async def _refuse_missing(self, array: Any, matrix: str, run: Run) -> None:
        size = (array.shards or array.chunks)[0]
        for number in range(run[0] // size, (run[1] - 1) // size + 1):
            file = f"c/{number}/0"
            if not await self._is_there(array, matrix, file):
                raise DamageError(f"{self._path}/{matrix}/{file}", "is missing")

    async def _is_there(self, array: Any, matrix: str, file: str) -> bool:
        if self._local is not None:
            return (self._local / matrix / file).is_file()
        return bool(await (array.store_path / file).exists())


def adjacent_runs(rows: Integers, chunk: int, file: int) -> list[Run]:
    """Ranges to read for ascending rows: same or next chunk together, never over an end of `file` rows."""
    if not len(rows):
        return []
    apart = (np.diff(rows // chunk) > 1) | (np.diff(rows // file) > 0)
    cuts = np.flatnonzero(apart) + 1
    starts, stops = rows[np.r_[0, cuts]], rows[np.r_[cuts - 1, len(rows) - 1]] + 1
    return [(int(start), int(stop)) for start, stop in zip(starts, stops, strict=True)]


def by_donor(columns: Integers, sizes: Mapping[str, int]) -> dict[str, tuple[Positions, Positions]]:
    """Positions on the joined sample axis, shared out among the donors that have any, donors in store order.

    Parameters
    ----------
    columns : (sample,) int array
        In any order.
    sizes : mapping of str to int
        Samples of each donor, in store order.

    Returns
    -------
    dict of str to (places, positions)
        Where in `columns` the donor's samples are, and their positions among the donor's samples; slices
        where they are neighbours, which copies nothing.
    """
    ends = np.cumsum(list(sizes.values()))
    donor_of = np.searchsorted(ends, columns, side="right")
    places = {donor: np.flatnonzero(donor_of == i) for i, donor in enumerate(sizes)}
    starts = dict(zip(sizes, ends - list(sizes.values()), strict=True))
    return {
        donor: (as_slice(at), as_slice(columns[at] - starts[donor]))
        for donor, at in places.items()
        if len(at)
    }


def as_slice(positions: Integers) -> Positions:
    """The same positions as a slice, where each is the one after the last."""
    first, last = int(positions[0]), int(positions[-1])
    neighbours = last - first + 1 == len(positions) and bool((np.diff(positions) == 1).all())
    return slice(first, last + 1) if neighbours else positions
