"""Expression with a row a sample, for reading some rows at a time: in memory, or in a Zarr array."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from lake.arrays import damage_named, fast_codecs, forks
from lake.errors import DamageError
from lake.learning.order import Integers, runs

Numbers = NDArray[np.floating]
NAME = "expression"
BLOCKS_ASIDE = 4  # of which some rows are asked for: in memory at once


class Matrix(Protocol):
    """Rows to be read; goes to other processes as it is."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""
        ...

    def read(self, places: Integers) -> Numbers:
        """Rows at places, in the order given, as a new (row, feature) array."""
        ...


@dataclass(frozen=True, eq=False)
class InMemory:
    """A matrix in memory.

    Attributes
    ----------
    values : (row, feature) array
    """

    values: Numbers

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""
        return self.values.dtype

    def read(self, places: Integers) -> Numbers:
        """Rows at places."""
        return self.values[places]


@dataclass(eq=False)
class OnDisk:
    """A matrix in a Zarr array whose chunks are blocks of whole rows; opened where it is first read.

    Attributes
    ----------
    path : pathlib.Path
    dtype : numpy.dtype
    owner : object
        Whatever keeps the files there while it lives.
    """

    path: Path
    dtype: np.dtype[Any]
    owner: object = None
    _array: Any = field(default=None, init=False)
    _forks: int = field(default=0, init=False)
    _aside: Numbers = field(init=False)
    _held: dict[int, int] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._aside = np.empty((0, 0), self.dtype)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "owner": None, "_array": None, "_aside": self._aside[:0], "_held": {}}

    def read(self, places: Integers) -> Numbers:
        """Rows at places; those of one block should follow each other, as it is then read once.

        Raises
        ------
        DamageError
            If a chunk is missing or damaged.
        """
        array = self._opened()
        size, width = array.chunks
        blocks, inside = places // size, places % size
        values = np.empty((len(places), width), array.dtype)
        parts = [(int(blocks[start]), start, stop) for start, stop in runs(blocks)]
        whole = {start: block for block, start, stop in parts if _is_whole(array, block, inside[start:stop])}
        self._read_blocks(array, values, whole)
        cut = [part for part in parts if part[1] not in whole]
        for group in (cut[first : first + BLOCKS_ASIDE] for first in range(0, len(cut), BLOCKS_ASIDE)):
            held = self._hold(array, [block for block, _, _ in group])
            for block, start, stop in group:
                np.take(self._aside, held[block] + inside[start:stop], 0, values[start:stop], "clip")
        return values

    def _hold(self, array: Any, blocks: list[int]) -> dict[int, int]:
        """Read blocks, of which some rows are asked for, aside: block -> first row there.

        One of them may be there, left by the last batch. The same memory serves batch after batch: new
        memory takes as long as filling it.
        """
        size, width = array.chunks
        if not len(self._aside):
            self._aside = np.empty((BLOCKS_ASIDE * size, width), array.dtype)
        there = {block: first for block, first in self._held.items() if block in blocks}
        free = (first for first in range(0, len(self._aside), size) if first not in there.values())
        lacking = (block for block in dict.fromkeys(blocks) if block not in there)
        new = dict(zip(lacking, free, strict=False))
        self._held = {}  # until all is read
        self._read_blocks(array, self._aside, {first: block for block, first in new.items()})
        self._held = there | new
        return self._held

    def _opened(self) -> Any:
        """The array, opened again after a fork."""
        if self._array is None or self._forks != forks():
            with damage_named(str(self.path)), fast_codecs():
                self._array = zarr.open_array(self.path / NAME, mode="r").async_array
            self._forks = forks()
        return self._array

    def _read_blocks(self, array: Any, into: Numbers, blocks: dict[int, int]) -> None:
        """Read blocks to where they belong: first row there -> block.

        All at once, by the array's codecs, as Zarr itself does for a slice: a slice for each block took a
        third of the time of a batch.
        """
        if not blocks:
            return
        requests = [_request(array, first, block) for first, block in blocks.items()]
        out: Any = into
        with damage_named(f"{self.path}/{NAME}"):
            sync(array.codec_pipeline.read(requests, _PROTOTYPE.nd_buffer.from_ndarray_like(out)))
        for first, block in blocks.items():
            # What is missing reads as NaN: only then is it worth while to look for the file.
            if np.isnan(into[first, 0]) and not (self.path / NAME / _chunk(block)).is_file():
                raise DamageError(f"{self.path}/{NAME}/{_chunk(block)}", "is missing")


_PROTOTYPE = default_buffer_prototype()


def _is_whole(array: Any, block: int, inside: Integers) -> bool:
    """Whether these are all rows of a block, in order."""
    return len(inside) == _rows_in(array, block) and bool((np.diff(inside) == 1).all())


def _rows_in(array: Any, block: int) -> int:
    return min(int(array.chunks[0]), int(array.shape[0]) - block * int(array.chunks[0]))


def _chunk(block: int) -> str:
    return f"c/{block}/0"


def _request(array: Any, first: int, block: int) -> tuple[Any, ...]:
    """One chunk, as a codec pipeline is asked for it: what to read, which part of it, where to."""
    length, columns = _rows_in(array, block), slice(0, array.shape[1])
    spec = array.metadata.get_chunk_spec((block, 0), array.config, _PROTOTYPE)
    inside, place = (slice(0, length), columns), (slice(first, first + length), columns)
    return array.store_path / _chunk(block), spec, inside, place, length == array.chunks[0]
