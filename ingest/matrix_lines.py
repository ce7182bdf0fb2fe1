"""Where the lines of a matrix file lie, and the probe ids they begin with."""

import hashlib
import os
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

BLOCK = 1 << 20  # bytes looked through at once; small enough to stay in the processor's cache
MOST_LINES = 4 << 20  # seventy times the published; what has more is something else, and not read into memory
MOST_DIGITS = 15  # of a probe id
_HEAD = MOST_DIGITS + 1  # a probe id and its comma
_COMMA, _RETURN, _ZERO = b",\r0"

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
    sha256 : str
        Of the whole file, in hex.
    """

    starts: Positions
    values: Positions
    stops: Positions
    probe_ids: Positions
    end: int
    sha256: str

    def __len__(self) -> int:
        return len(self.starts)

    @cached_property
    def longest(self) -> int:
        """Bytes of the longest line."""
        return int((self.stops - self.starts).max(initial=0))


def find_lines(descriptor: int, size: int) -> Lines:
    """Go through an open file once, for its lines and its hash.

    Parameters
    ----------
    descriptor : int
        Of the open file.
    size : int
        Its bytes.

    Returns
    -------
    Lines
        Of a file with more than `MOST_LINES`, those of its beginning; the hash is of no use then.
    """
    digest = hashlib.sha256()
    # The two bytes before a block, the block, and of the next one as much as a line's head. A newline is
    # taken to stand before the file, so that every line follows one.
    text = bytearray(b"\0\n" + bytes(BLOCK + _HEAD))
    view = memoryview(text)
    surroundings = sliding_window_view(np.frombuffer(text, np.uint8), 2 + _HEAD)
    newlines, around, n_lines = [], [], 0
    for at in range(0, size + 1, BLOCK):
        n_read = os.preadv(descriptor, [view[2:]], at)
        view[2 + n_read :] = bytes(len(text) - 2 - n_read)
        digest.update(view[2 : 2 + min(n_read, BLOCK)])
        places = _newlines(text)
        newlines.append(places + (at - 2))
        around.append(surroundings[places - 1])
        view[:2] = view[BLOCK : BLOCK + 2]
        n_lines += len(places)
        if n_lines > MOST_LINES:
            break
    return _lines_between(np.concatenate(newlines), np.concatenate(around), digest.hexdigest())


def _newlines(text: bytearray) -> Positions:
    """Where newlines stand, from the last byte before the block to the last but one of it.

    Searching byte by byte for what is so rare takes NumPy five times as long.
    """
    places, place = [], text.find(b"\n", 1, 1 + BLOCK)
    while place > 0:
        places.append(place)
        place = text.find(b"\n", place + 1, 1 + BLOCK)
    return np.array(places, np.int64)


def _lines_between(newlines: Positions, around: NDArray[np.uint8], sha256: str) -> Lines:
    """The lines between newlines, of which the byte before and the head of the next line are given."""
    starts, ends = newlines[:-1] + 1, newlines[1:]
    digits, probe_ids = _leading_ids(around[:-1, 2:])
    returns = around[1:, 0] == _RETURN
    return Lines(starts, starts + digits + 1, ends - returns, probe_ids, int(newlines[-1]) + 1, sha256)


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
