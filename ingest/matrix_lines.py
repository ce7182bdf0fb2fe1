"""Where the lines of a matrix file lie, and the probe ids they begin with."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

BLOCK = 1 << 20  # bytes looked through at once; small enough to stay in the processor's cache
MOST_DIGITS = 15  # of a probe id
_HEAD = MOST_DIGITS + 1  # a probe id and its comma
_COMMA, _NEWLINE, _RETURN, _ZERO = b",\n\r0"

Positions = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Lines:
    """The lines of a file that have an end.

    Attributes
    ----------
    starts, values, stops : (line,) int64 array
        Where each begins, where its first value does (behind the probe id), and where it ends, before its
        line end.
    probe_ids : (line,) int64 array
        -1 where a line does not begin with a probe id.
    end : int
        Where the last of them ends, with its line end: the size of the file, unless that is cut off.
    """

    starts: Positions
    values: Positions
    stops: Positions
    probe_ids: Positions
    end: int

    @classmethod
    def joined(cls, parts: Iterable["_Part"]) -> "Lines":
        """Put together what was found in the blocks of a file, in their order."""
        starts, digits, probe_ids, ends, returns = map(np.concatenate, zip(*parts, strict=True))
        n_lines, end = len(ends), int(ends[-1]) + 1 if len(ends) else 0
        starts = starts[:n_lines]  # the last newline is followed by the file's end, or by a line without one
        return cls(starts, starts + digits[:n_lines] + 1, ends - returns, probe_ids[:n_lines], end)

    def __len__(self) -> int:
        return len(self.starts)

    @cached_property
    def longest(self) -> int:
        """Bytes of the longest line."""
        return int((self.stops - self.starts).max(initial=0))


_Part = tuple[Positions, Positions, Positions, Positions, NDArray[np.bool_]]


def lines_of_block(descriptor: int, at: int) -> _Part:
    """What a block of a file says of its lines.

    Parameters
    ----------
    descriptor : int
        Of the open file.
    at : int
        Where the block of `BLOCK` bytes begins.

    Returns
    -------
    starts : (line,) int64 array
        Of the lines that follow a newline of this block, and of the file's first.
    digits, probe_ids : (line,) int64 array
        Length and value of the probe ids of these; -1 for none.
    ends : (newline,) int64 array
        The newlines of this block.
    returns : (newline,) bool array
        Whether a carriage return belongs to the line end.
    """
    # One byte of the block before, and a probe id's length of the one behind.
    text = np.zeros(1 + BLOCK + _HEAD, np.uint8)
    os.preadv(descriptor, [text[0 if at else 1 :].data], max(at - 1, 0))
    ends = np.flatnonzero(text[1 : 1 + BLOCK] == _NEWLINE)
    starts = ends + 1 if at else np.concatenate([[0], ends + 1])
    heads = np.lib.stride_tricks.sliding_window_view(text, _HEAD)[1 + starts]
    digits, probe_ids = _leading_ids(heads)
    return at + starts, digits, probe_ids, at + ends, text[ends] == _RETURN


def _leading_ids(heads: NDArray[np.uint8]) -> tuple[Positions, Positions]:
    """Number of digits and value of the probe ids with which lines begin; -1 where there is none."""
    figures = heads - np.uint8(_ZERO)
    digits = np.argmax(figures > 9, axis=1)
    probe_ids = np.zeros(len(heads), np.int64)
    for place in range(MOST_DIGITS):
        inside = place < digits
        probe_ids[inside] = 10 * probe_ids[inside] + figures[inside, place]
    is_id = (digits > 0) & (heads[np.arange(len(heads)), digits] == _COMMA)
    return np.where(is_id, digits, -1), np.where(is_id, probe_ids, -1)
