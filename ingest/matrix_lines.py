"""Where the lines of a matrix file lie, and the probe ids they begin with."""

import hashlib
import os
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ingest import compiled

BLOCK = 2 << 20  # bytes looked through at once; small enough to stay in the processor's cache
MOST_LINES = 4 << 20  # seventy times the published; what has more is something else, and not read into memory
USUAL_LINES = 4096  # that many of a published file fit into a block
MOST_DIGITS = 15  # of a probe id
_HEAD = MOST_DIGITS + 1  # a probe id and its comma
_COMMA, _RETURN, _ZERO = b",\r0"

Positions = NDArray[np.int64]
_Newlines = NDArray[np.int64]


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
    newlines = _newlines if compiled.kernels is None else _compiled_newlines
    blocks, n_lines = [], 0
    for at in range(0, size + 1, BLOCK):
        n_read = os.preadv(descriptor, [view[2:]], at)
        view[2 + n_read :] = bytes(len(text) - 2 - n_read)
        digest.update(view[2 : 2 + min(n_read, BLOCK)])
        found = newlines(text)
        found[:, 0] += at - 2
        blocks.append(found)
        view[:2] = view[BLOCK : BLOCK + 2]
        n_lines += len(found)
        if n_lines > MOST_LINES:
            break
    return _lines_between(np.concatenate(blocks), digest.hexdigest())


def _compiled_newlines(text: bytearray) -> _Newlines:
    """What `_newlines` gives."""
    assert compiled.kernels is not None  # noqa: S101 - narrows the type
    find, found = compiled.kernels.find_newlines, np.empty((USUAL_LINES, 4), np.int64)
    n_found = find(text, 1 + BLOCK, MOST_DIGITS, found)
    if n_found > len(found):
        found = np.empty((n_found, 4), np.int64)
        find(text, 1 + BLOCK, MOST_DIGITS, found)
    return found[:n_found].copy()


def _newlines(text: bytearray) -> _Newlines:
    """Newlines from the last byte before the block to the last but one of it.

    Searching byte by byte for what is so rare takes NumPy five times as long.

    Returns
    -------
    (newline, 4) int64 array
        Where each is, whether a carriage return is before it, and of the probe id behind it the number of
        digits and the value.
    """
    places, place = [], text.find(b"\n", 1, 1 + BLOCK)
    while place > 0:
        places.append(place)
        place = text.find(b"\n", place + 1, 1 + BLOCK)
    around = sliding_window_view(np.frombuffer(text, np.uint8), 2 + _HEAD)[np.array(places, np.int64) - 1]
    return np.column_stack([places, around[:, 0] == _RETURN, *_leading_ids(around[:, 2:])]).astype(np.int64)


def _lines_between(newlines: _Newlines, sha256: str) -> Lines:
    places, returns, digits, probe_ids = newlines.T.copy()
    starts, ends = places[:-1] + 1, places[1:]
    return Lines(
        starts, starts + digits[:-1] + 1, ends - returns[1:], probe_ids[:-1], int(places[-1]) + 1, sha256
    )


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
