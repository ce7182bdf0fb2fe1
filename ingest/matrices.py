"""The large published matrices, MicroarrayExpression.csv and PACall.csv, in blocks of rows.

A row is ``probe_id,value,value,..`` with one value a sample and no header. Blocks of whole lines
are parsed on two threads; a block that does not parse is read again slowly, cell by cell, to say
what is wrong and where.
"""

import hashlib
import re
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

from ingest.errors import InputError
from ingest.problems import Problems
from ingest.sources import SourceFile

THREADS = 2
LONGEST_LINE = 64 << 20
MOST_DIGITS = 15
MOST_EXACT = 10**MOST_DIGITS - 1  # probe ids up to here are exact as float64
_COMMA, _NEWLINE, _ZERO = b",\n0"
_COMMA_TO_NEWLINE = bytes.maketrans(b",", b"\n")
_NUMBER = re.compile(rb"-?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_OTHER_ENCODINGS = {
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
    b"\xef\xbb\xbf": "UTF-8 with a mark",
    b"PK": "a zip",
}


@dataclass(frozen=True)
class Block:
    """Some consecutive rows of a matrix.

    Attributes
    ----------
    first_line : int
        Line of the file that the first row stands on, from 1.
    probe_ids : numpy.ndarray of int64, shape (row,)
    values : numpy.ndarray, shape (row, sample)
        float64 expression, or bool detected.
    """

    first_line: int
    probe_ids: NDArray[np.int64]
    values: NDArray[np.float64] | NDArray[np.bool_]


class _IrregularError(Exception):
    """A block is not what the fast parser takes; the slow one finds out why."""


_Parsed = tuple[NDArray[np.int64], NDArray[np.float64] | NDArray[np.bool_]]
_Parser = Callable[[bytes, int], _Parsed]


class Matrix:
    """One matrix file, read once from start to end.

    Parameters
    ----------
    file : SourceFile
    kind : {"expression", "detected"}
        Numbers (log2 intensity), or 0/1 calls.
    probe_ids : numpy.ndarray of int64
        The probes of Probes.csv: each must come exactly once, in any order.
    n_samples : int
        Rows of SampleAnnot.csv, so values a line.

    Attributes
    ----------
    sha256 : str
        Of the whole file; there once `blocks` is exhausted.
    size : int
        Bytes read.
    """

    def __init__(self, file: SourceFile, kind: str, probe_ids: NDArray[np.int64], n_samples: int) -> None:
        self.file = file
        self.kind = kind
        self.n_samples = n_samples
        self.size = 0
        self.sha256 = ""
        self._parse, self._cell_problem = KINDS[kind]
        self._sorted_ids = np.sort(probe_ids)
        self._line_of = np.zeros(len(probe_ids), dtype=np.int64)  # 0: not seen yet
        self._problems = Problems(str(file))

    def blocks(self) -> Iterator[Block]:
        """Parse the file block by block, in the file's order.

        Yields
        ------
        Block

        Raises
        ------
        InputError
            At the end, with everything found wrong: ragged rows, cells that are not finite numbers
            (or not 0/1), unknown, repeated and missing probes, a cut-off end, another encoding.
        """
        with ThreadPoolExecutor(THREADS) as pool:
            yield from self._checked(self._parsed(pool))
        self._report_missing()
        self._problems.raise_if_any()

    def _parsed(self, pool: ThreadPoolExecutor) -> Iterator[tuple[int, bytes, "Future[_Parsed]"]]:
        """Keep a few blocks in the making, hand them out in order."""
        under_way: deque[tuple[int, bytes, Future[_Parsed]]] = deque()
        for first_line, text in self._texts():
            under_way.append((first_line, text, pool.submit(self._parse, text, self.n_samples)))
            if len(under_way) > THREADS:
                yield under_way.popleft()
        yield from under_way

    def _texts(self) -> Iterator[tuple[int, bytes]]:
        """The file in pieces of whole lines, each with its first line's number."""
        digest, line, rest = hashlib.sha256(), 1, b""
        for block in self.file.blocks():
            digest.update(block)
            self._refuse_other_encoding(block)
            self.size += len(block)
            end = block.rfind(b"\n") + 1
            if end == 0:
                rest += block
                self._refuse_endless_line(rest, line)
                continue
            text, rest = rest + block[:end], block[end:]
            if b"\r" in text:
                text = text.replace(b"\r\n", b"\n")
            yield line, text
            line += text.count(b"\n")
        self.sha256 = digest.hexdigest()
        if self.size == 0:
            self._problems.add("the file is empty")
        if rest:
            self._problems.add("the last line has no end: the file is cut off, extract it again", line=line)

    def _refuse_other_encoding(self, block: bytes) -> None:
        if self.size > 0:
            return
        for mark, name in _OTHER_ENCODINGS.items():
            if block.startswith(mark):
                raise InputError(
                    f"{self.file}: line 1, column 1: this is {name}, expected plain text numbers."
                )

    def _refuse_endless_line(self, rest: bytes, line: int) -> None:
        if len(rest) > LONGEST_LINE:
            raise InputError(
                f"{self.file}: line {line}: longer than {LONGEST_LINE >> 20} MiB; not a published matrix."
            )

    def _checked(self, parsed: Iterator[tuple[int, bytes, "Future[_Parsed]"]]) -> Iterator[Block]:
        for first_line, text, future in parsed:
            try:
                probe_ids, values = future.result()
            except _IrregularError:
                self._diagnose(first_line, text)
            else:
                self._note_probes(first_line, probe_ids)
                if not self._problems.found:  # after a problem the rest is only looked through
                    yield Block(first_line, probe_ids, values)
            if self._problems.full:
                self._problems.raise_if_any()

    def _note_probes(self, first_line: int, probe_ids: NDArray[np.int64]) -> None:
        """Remember on which line each probe stands; note the unknown and the repeated."""
        places = np.minimum(np.searchsorted(self._sorted_ids, probe_ids), len(self._sorted_ids) - 1)
        lines = first_line + np.arange(len(probe_ids))
        known = self._sorted_ids[places] == probe_ids
        for row in np.flatnonzero(~known):
            self._problems.add(f"probe {probe_ids[row]} is not in Probes.csv", line=int(lines[row]), column=1)
        first_of_block = np.zeros(len(probe_ids), dtype=bool)
        first_of_block[np.unique(places, return_index=True)[1]] = True
        repeated = known & ((self._line_of[places] > 0) | ~first_of_block)
        self._line_of[places[known & ~repeated]] = lines[known & ~repeated]
        for row in np.flatnonzero(repeated):
            self._problems.add(
                f"probe {probe_ids[row]} is there a second time (first on line {self._line_of[places[row]]})",
                line=int(lines[row]),
                column=1,
            )

    def _report_missing(self) -> None:
        missing = self._sorted_ids[self._line_of == 0]
        if len(missing) and not self._problems.found:
            some = ", ".join(map(str, missing[:3]))
            self._problems.add(
                f"{len(missing)} of {len(self._sorted_ids)} probes of Probes.csv have no row "
                f"(such as {some}); is the file cut off?"
            )

    def _diagnose(self, first_line: int, text: bytes) -> None:
        """Find what is wrong with a block by looking at every cell."""
        before = len(self._problems.found)
        for line, row in enumerate(text.split(b"\n")[:-1], start=first_line):
            cells = row.split(b",")
            if len(cells) != self.n_samples + 1:
                self._problems.add(
                    f"{len(cells)} fields, expected {self.n_samples + 1}: probe_id, {self.n_samples} samples",
                    line=line,
                )
                continue
            self._diagnose_row(line, cells)
            if self._problems.full:
                return
        if len(self._problems.found) == before:
            self._problems.add("the lines from here on cannot be parsed", line=first_line)

    def _diagnose_row(self, line: int, cells: list[bytes]) -> None:
        if _is_probe_id(cells[0]):
            self._note_probes(line, np.array([int(cells[0])]))
        else:
            self._problems.add(f"{_show(cells[0])} is not a probe id", line=line, column=1)
        for column, cell in enumerate(cells[1:], start=2):
            if problem := self._cell_problem(cell):
                self._problems.add(f"{_show(cell)} {problem}", line=line, column=column)


def _show(cell: bytes) -> str:
    return repr(cell[:40].decode("utf-8", "backslashreplace")) if cell else "an empty field"


def _number_problem(cell: bytes) -> str | None:
    if _NUMBER.fullmatch(cell):
        return None if np.isfinite(float(cell)) else "is too large for a number"
    return "is not a finite number"


def _is_probe_id(cell: bytes) -> bool:
    return cell.isdigit() and len(cell) <= MOST_DIGITS


def _flag_problem(cell: bytes) -> str | None:
    return None if cell in (b"0", b"1") else "is not 0 or 1"


def _line_ends(text: bytes) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    characters = np.frombuffer(text, dtype=np.uint8)
    ends = np.flatnonzero(characters == _NEWLINE)
    starts = np.concatenate([[0], ends[:-1] + 1])
    return characters, starts, ends


def _parse_numbers(text: bytes, n_samples: int) -> _Parsed:
    """Parse rows of numbers.

    Every comma is made a line end and the one column that results is parsed at once: pyarrow's
    correctly rounded parser then fills one row-major array, 1.5 x faster than column by column.
    """
    characters, starts, _ = _line_ends(text)
    commas = np.add.reduceat(characters == _COMMA, starts, dtype=np.int64)
    if np.any(commas != n_samples):
        raise _IrregularError
    column = _parse_column(text.translate(_COMMA_TO_NEWLINE))
    if len(column) != len(starts) * (n_samples + 1):
        raise _IrregularError
    table = column.reshape(len(starts), n_samples + 1)
    if not np.isfinite(table).all() or np.any(table[:, 0] < 0) or np.any(table[:, 0] > MOST_EXACT):
        raise _IrregularError
    probe_ids = table[:, 0].astype(np.int64)
    if np.any(probe_ids != table[:, 0]):
        raise _IrregularError
    return probe_ids, table[:, 1:]


def _parse_column(text: bytes) -> NDArray[np.float64]:
    try:
        table = pa.csv.read_csv(
            pa.BufferReader(text),
            read_options=pa.csv.ReadOptions(
                column_names=["value"], use_threads=False, block_size=len(text) + 1
            ),
            parse_options=pa.csv.ParseOptions(quote_char=False, ignore_empty_lines=False),
            convert_options=pa.csv.ConvertOptions(column_types={"value": pa.float64()}, null_values=[""]),
        )
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise _IrregularError from error
    column = table.column(0)
    if column.null_count:
        raise _IrregularError
    values: NDArray[np.float64] = column.to_numpy()
    return values


def _parse_flags(text: bytes, n_samples: int) -> _Parsed:
    """Parse rows of 0/1: behind the probe id every row has the same width, so no number is parsed."""
    characters, starts, ends = _line_ends(text)
    width = 2 * n_samples  # ",0,1,1.."
    if np.any(ends - starts <= width):
        raise _IrregularError
    cells = np.lib.stride_tricks.sliding_window_view(characters, width)[ends - width]
    values = cells[:, 1::2] - np.uint8(_ZERO)
    if np.any(cells[:, ::2] != _COMMA) or np.any(values > 1):
        raise _IrregularError
    ids = [text[start:stop] for start, stop in zip(starts.tolist(), (ends - width).tolist(), strict=True)]
    if not all(map(_is_probe_id, ids)):
        raise _IrregularError
    return np.array(ids, dtype="S").astype(np.int64), values.astype(bool)


KINDS: dict[str, tuple[_Parser, Callable[[bytes], str | None]]] = {
    "expression": (_parse_numbers, _number_problem),
    "detected": (_parse_flags, _flag_problem),
}
