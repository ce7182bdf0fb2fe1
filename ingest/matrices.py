"""The large published matrices, MicroarrayExpression.csv and PACall.csv, read in whatever order is wanted.

A row is ``probe_id,value,value,..`` with one value a sample and no header. A first pass finds where each
probe's row lies (`ingest.matrix_lines`); rows are then read and parsed by as many threads as there are, by a
kernel as far as they hold nothing unusual, else by `ingest.matrix_text`. A file that is not as it should be
is gone through by `ingest.matrix_faults`.
"""

import os
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from threading import Lock
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from ingest import compiled
from ingest.errors import InputError
from ingest.matrix_faults import find_faults
from ingest.matrix_lines import Lines, find_lines
from ingest.matrix_text import IrregularError, parse_flags, parse_numbers
from ingest.sources import SourceFile

BATCH = 3 << 18  # bytes of text parsed at once: with the numbers they become, they stay in the cache
_COMMA = ord(",")

Values = NDArray[np.float64] | NDArray[np.bool_]
_Parser = Callable[[NDArray[np.uint8], NDArray[np.int64], Any], None]


class Matrix:
    """One matrix file, open inside a ``with``: `scan` it, say what to `expect` in it, then `read`.

    Parameters
    ----------
    file : SourceFile
    kind : {"expression", "detected"}
        Numbers (log2 intensity), or 0/1 calls.
    aside : pathlib.Path
        Where the file is extracted to if it is in a zip; removed at the end.

    Attributes
    ----------
    size : int
        Bytes of the (uncompressed) file.
    lines : Lines
        With the file's hash.
    probe_ids : numpy.ndarray of int64
    n_samples : int
        There after `expect`, as are `lines`.
    """

    lines: Lines
    probe_ids: NDArray[np.int64]
    n_samples: int

    def __init__(self, file: SourceFile, kind: str, aside: Path) -> None:
        self.file, self.kind = file, kind
        self._parse, self._kernel, self._dtype = KINDS[kind]
        self._aside = aside
        self._explaining = Lock()

    def __enter__(self) -> "Matrix":
        self._descriptor = os.open(self.file.on_disk(self._aside), os.O_RDONLY)
        self._opened = os.fstat(self._descriptor)
        self.size = self._opened.st_size
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
        self._aside.unlink(missing_ok=True)

    def scan(self, pool: Executor) -> None:
        """Have the file gone through once by a thread, which must end before the file is closed."""
        self._scanned = pool.submit(find_lines, self._descriptor, self.size)

    def expect(self, probe_ids: NDArray[np.int64], n_samples: int) -> None:
        """Wait for the lines, and see that each probe has one.

        Parameters
        ----------
        probe_ids : numpy.ndarray of int64
            The probes of Probes.csv, in the order in which they are wanted.
        n_samples : int
            Rows of SampleAnnot.csv, so values a line.

        Raises
        ------
        InputError
            If there is not one line for each probe; with everything else that is wrong with the file.
        """
        self.probe_ids, self.n_samples = probe_ids, n_samples
        self.lines = self._scanned.result()
        order = np.argsort(self.lines.probe_ids, kind="stable")
        in_order = self.lines.probe_ids[order]
        if self.lines.end != self.size or not np.array_equal(in_order, np.sort(probe_ids)):
            self._explain()
        self._line_of = order[np.searchsorted(in_order, probe_ids)]

    def read(self, start: int, stop: int) -> Values:
        """Values of some of `probe_ids`; any number of threads may ask.

        Returns
        -------
        numpy.ndarray, shape (stop - start, sample)
            float64 expression, or bool detected.

        Raises
        ------
        InputError
            If one of them is wrong; with everything else that is: ragged rows, cells that are not finite
            numbers (or not 0/1).
        """
        try:
            return self.parsed(self._line_of[start:stop])
        except IrregularError:
            self._explain()

    def parsed(self, lines: NDArray[np.int64]) -> Values:
        """Values of some lines; the first of the file is 0.

        Raises
        ------
        IrregularError
            If one of them does not parse.
        """
        values: Values = np.empty((len(lines), self.n_samples), self._dtype)
        step = max(1, BATCH // max(self.lines.longest, 1))
        for start in range(self._read_plain(lines, values), len(lines), step):
            text, row_ends = self._text(lines[start : start + step])
            self._parse(text, row_ends, values[start : start + step])
        return values

    def _read_plain(self, lines: NDArray[np.int64], values: Values) -> int:
        """Have the lines read by a kernel, as far as they hold nothing unusual; how many it took."""
        if compiled.kernels is None:
            return 0
        starts, stops = self.lines.values[lines], self.lines.stops[lines]
        n_read: int = getattr(compiled.kernels, self._kernel)(self._descriptor, starts, stops, values)
        return n_read

    def _text(self, lines: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """What follows the probe ids of some lines, each with a comma at its end, and where those are."""
        starts = self.lines.values[lines]
        lengths = self.lines.stops[lines] - starts
        stops = np.cumsum(lengths + 1) - 1
        text = np.empty(stops[-1] + 1, np.uint8)
        view, places = text.data, stops - lengths
        for start, place, stop in zip(starts.tolist(), places.tolist(), stops.tolist(), strict=True):
            if os.preadv(self._descriptor, [view[place:stop]], start) != stop - place:
                self._refuse_change()
        text[stops] = _COMMA
        return text, stops

    def part(self, start: int, stop: int) -> bytes:
        """Bytes of the file as they are."""
        return os.pread(self._descriptor, stop - start, start)

    def refuse_change(self) -> None:
        """See that nobody wrote to the file since it was opened: what was read is what was hashed.

        Raises
        ------
        InputError
        """
        now = os.fstat(self._descriptor)
        if (now.st_size, now.st_mtime_ns) != (self._opened.st_size, self._opened.st_mtime_ns):
            self._refuse_change()

    def _refuse_change(self) -> NoReturn:
        raise InputError(f"{self.file}: the file changed while it was read; ingest it again.")

    def _explain(self) -> NoReturn:
        """Raise what is wrong with the file; one thread looks for it, others wait."""
        with self._explaining:
            find_faults(self)
            self._refuse_change()


KINDS: dict[str, tuple[_Parser, str, type]] = {
    "expression": (parse_numbers, "read_numbers", np.float64),
    "detected": (parse_flags, "read_flags", np.bool_),
}
