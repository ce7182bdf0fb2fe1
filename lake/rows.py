"""Reading some probes of the matrices without Dask: the chunks that hold them, of all donors at once."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.core.sync import sync

from lake.arrays import damage_named, fast_codecs, forks, refuse_cut
from lake.errors import DamageError

# Reads under way: on a disk as many as keep the cores busy, over a network as many as hide its delay.
AT_ONCE_LOCAL, AT_ONCE_REMOTE = 3, 32
FILES_AT_ONCE = 4  # that one read goes through: each read costs 2 ms by itself

Integers = NDArray[np.integer]
Positions = Integers | slice
Run = tuple[int, int]


class Request(NamedTuple):
    """Some of one donor's values.

    Attributes
    ----------
    group : str
        Of the donor.
    rows : (row,) int array
        Probes, in any order, repeats allowed.
    columns : (column,) int array or slice
        Samples.
    into : (row, column) array, optional
        Where the values go; a new array if left out.
    """

    group: str
    rows: Integers
    columns: Positions
    into: NDArray[Any] | None = None


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
        self._local = None if "://" in path else Path(path).absolute()
        self._start()

    def _start(self) -> None:
        """Begin with nothing opened; again after a fork, which leaves Zarr's threads and loop behind."""
        self._forks = forks()
        self._open: dict[str, Any] = {}
        self._turn = asyncio.Semaphore(AT_ONCE_REMOTE if self._local is None else AT_ONCE_LOCAL)

    def read(self, name: str, requests: Iterable[Request]) -> list[NDArray[Any]]:
        """Rows of one matrix of each of several donors.

        Parameters
        ----------
        name : {"expression", "detected"}
        requests : iterable of Request
            One a donor.

        Returns
        -------
        list of (row, column) array
            In the order of the requests; those that a request gave, where it gave one.

        Raises
        ------
        StoreError
            If a file is missing or damaged, or the store, which is not on a disk, was opened before a fork.
        """
        if self._forks != forks():
            if self._local is None:
                refuse_cut(self._path)
            self._start()
        asked = {f"{request.group}/{name}": request for request in requests}
        if new := [matrix for matrix in asked if matrix not in self._open]:
            with fast_codecs():
                self._open |= zip(new, sync(self._opened(new)), strict=True)
        return list(sync(self._gathered(asked)))

    async def _opened(self, matrices: Sequence[str]) -> list[Any]:
        return await asyncio.gather(*(self._matrix(matrix) for matrix in matrices))

    async def _matrix(self, matrix: str) -> Any:
        with damage_named(f"{self._path}/{matrix}"):
            return await self._root.getitem(matrix)

    async def _gathered(self, asked: Mapping[str, Request]) -> list[NDArray[Any]]:
        return await asyncio.gather(*(self._part(matrix, request) for matrix, request in asked.items()))

    async def _part(self, matrix: str, request: Request) -> NDArray[Any]:
        rows, columns, array = request.rows, request.columns, self._open[matrix]
        if not len(rows):
            raise ValueError("no rows to read")
        wanted, places = np.unique(rows, return_inverse=True)
        file, (chunk, width) = (array.shards or array.chunks)[0], array.chunks
        runs = adjacent_runs(wanted, chunk, FILES_AT_ONCE * file)
        chosen = np.arange(array.shape[1])[columns]
        spans = adjacent_runs(np.unique(chosen), width, array.shape[1])
        in_order = np.array_equal(wanted, rows)
        part: NDArray[Any] = np.empty((len(wanted), len(chosen)), array.dtype)
        if in_order and request.into is not None:
            part = request.into

        async def fill(run: Run, span: Run) -> None:
            """Read one range of rows and columns, and put what is wanted of it into its place."""
            block = await self._run(array, matrix, run, span)
            there = slice(*np.searchsorted(wanted, run))
            inside = np.flatnonzero((chosen >= span[0]) & (chosen < span[1]))
            kept = block[:, as_slice(chosen[inside] - span[0])]
            part[there, as_slice(inside)] = (
                kept if there.stop - there.start == len(kept) else kept[wanted[there] - run[0]]
            )

        await asyncio.gather(*(fill(run, span) for run in runs for span in spans))
        if in_order:
            return part
        return np.take(part, places, axis=0, out=request.into)

    async def _run(self, array: Any, matrix: str, run: Run, span: Run) -> NDArray[Any]:
        where = f"{self._path}/{matrix}"
        with damage_named(where):
            async with self._turn:
                values: NDArray[Any] = await array.getitem((slice(*run), slice(*span)))
        size = (array.shards or array.chunks)[0]
        for number in range(run[0] // size, (run[1] - 1) // size + 1):
            part = values[max(number * size - run[0], 0) : (number + 1) * size - run[0]]
            await self._refuse_filled(array, matrix, f"c/{number}/0", part)
        return values

    async def _refuse_filled(self, array: Any, matrix: str, file: str, values: NDArray[Any]) -> None:
        """Refuse a file that is missing, whose values are then fill values, or that has some of these."""
        numbers = values.dtype.kind == "f"
        if not (np.isnan(values).any() if numbers else not values.any()):
            return  # only then is it worth while to look for the file
        where = f"{self._path}/{matrix}/{file}"
        if not await self._is_there(array, matrix, file):
            raise DamageError(where, "is missing")
        if numbers:
            raise DamageError(where, "holds no number for some probes")

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
