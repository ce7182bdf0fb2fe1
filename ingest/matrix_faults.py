"""What is wrong with a matrix file, and where: every line that does not parse is looked at cell by cell."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ingest.errors import InputError
from ingest.matrix_lines import Lines
from ingest.matrix_text import IrregularError
from ingest.problems import Problems

if TYPE_CHECKING:
    from ingest.matrices import Matrix

LONGEST_LINE = 64 << 20
LINES_AT_ONCE = 64
_NUMBER = re.compile(rb"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_OTHER_ENCODINGS = {
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
    b"\xef\xbb\xbf": "UTF-8 with a mark",
    b"PK": "a zip",
}


def find_faults(matrix: "Matrix") -> None:
    """Go through a file, line by line.

    Parameters
    ----------
    matrix : Matrix
        Its lines are known.

    Raises
    ------
    InputError
        With everything found wrong: another encoding, ragged rows, cells that are not finite numbers (or not
        0/1), unknown, repeated and missing probes, a cut-off end.
    """
    _refuse_other_encoding(matrix)
    faults = _Faults(matrix)
    for first in range(0, len(matrix.lines), LINES_AT_ONCE):
        faults.note(np.arange(first, min(first + LINES_AT_ONCE, len(matrix.lines))))
        if faults.problems.more:
            break
    else:
        faults.note_end()
    faults.problems.raise_if_any()


def _refuse_other_encoding(matrix: "Matrix") -> None:
    for mark, name in _OTHER_ENCODINGS.items():
        if matrix.part(0, len(mark)) == mark:
            raise InputError(f"{matrix.file}: line 1, column 1: this is {name}, expected plain text numbers.")


class _Faults:
    """Collects what is wrong with a matrix."""

    def __init__(self, matrix: "Matrix") -> None:
        self.problems = Problems(str(matrix.file))
        self._matrix = matrix
        self._lines: Lines = matrix.lines
        self._cell_problem = CELL_PROBLEMS[matrix.kind]
        self._sorted_ids = np.sort(matrix.probe_ids)
        self._line_of = np.zeros(len(matrix.probe_ids), dtype=np.int64)  # from 1; 0: not seen yet

    def note(self, lines: NDArray[np.int64]) -> None:
        """Look at some consecutive lines, closely if they cannot be parsed."""
        if self._are_regular(lines):
            self._note_probes(lines)
            return
        before = len(self.problems.found)
        for line in lines.tolist():
            self._look_at(line)
            if self.problems.more:
                return
        if len(self.problems.found) == before:
            self.problems.add("the lines from here on cannot be parsed", line=int(lines[0]) + 1)

    def note_end(self) -> None:
        """Look at what follows the last line end, and at which probes did not come."""
        rest = self._matrix.size - self._lines.end
        if self._matrix.size == 0:
            self.problems.add("the file is empty")
        if rest > LONGEST_LINE:
            self._note_endless(len(self._lines) + 1)
        elif rest:
            self.problems.add(
                "the last line has no end: the file is cut off, extract it again", line=len(self._lines) + 1
            )
        missing = self._sorted_ids[self._line_of == 0]
        if len(missing) and not self.problems.found:
            some = ", ".join(map(str, missing[:3]))
            self.problems.add(
                f"{len(missing)} of {len(self._sorted_ids)} probes of Probes.csv have no row "
                f"(such as {some}); is the file cut off?"
            )

    def _are_regular(self, lines: NDArray[np.int64]) -> bool:
        if np.any(self._lines.probe_ids[lines] < 0) or self._lines.longest > LONGEST_LINE:
            return False
        try:
            self._matrix.parsed(lines)
        except IrregularError:
            return False
        return True

    def _look_at(self, line: int) -> None:
        if self._lines.stops[line] - self._lines.starts[line] > LONGEST_LINE:
            self._note_endless(line + 1)
            return
        cells = self._matrix.part(int(self._lines.starts[line]), int(self._lines.stops[line])).split(b",")
        n_fields = self._matrix.n_samples + 1
        if len(cells) != n_fields:
            self.problems.add(
                f"{len(cells)} fields, expected {n_fields}: probe_id, {n_fields - 1} samples", line=line + 1
            )
            return
        if self._lines.probe_ids[line] < 0:
            self.problems.add(f"{_shown(cells[0])} is not a probe id", line=line + 1, column=1)
        else:
            self._note_probes(np.array([line]))
        for column, cell in enumerate(cells[1:], start=2):
            if problem := self._cell_problem(cell):
                self.problems.add(f"{_shown(cell)} {problem}", line=line + 1, column=column)

    def _note_endless(self, line: int) -> None:
        self.problems.add(f"longer than {LONGEST_LINE >> 20} MiB; not a published matrix", line=line)

    def _note_probes(self, lines: NDArray[np.int64]) -> None:
        """Remember on which line each probe stands; note the unknown and the repeated."""
        for line, probe_id in zip(lines.tolist(), self._lines.probe_ids[lines].tolist(), strict=True):
            if problem := self._probe_problem(line + 1, probe_id):
                self.problems.add(problem, line=line + 1, column=1)

    def _probe_problem(self, line: int, probe_id: int) -> str | None:
        place = int(np.searchsorted(self._sorted_ids, probe_id))
        if place == len(self._sorted_ids) or self._sorted_ids[place] != probe_id:
            return f"probe {probe_id} is not in Probes.csv"
        if self._line_of[place]:
            return f"probe {probe_id} is there a second time (first on line {self._line_of[place]})"
        self._line_of[place] = line
        return None


def _shown(cell: bytes) -> str:
    return repr(cell[:40].decode("utf-8", "backslashreplace")) if cell else "an empty field"


def _number_problem(cell: bytes) -> str | None:
    if _NUMBER.fullmatch(cell):
        return None if np.isfinite(float(cell)) else "is too large for a number"
    return "is not a finite number"


def _flag_problem(cell: bytes) -> str | None:
    return None if cell in (b"0", b"1") else "is not 0 or 1"


CELL_PROBLEMS: dict[str, Callable[[bytes], str | None]] = {
    "expression": _number_problem,
    "detected": _flag_problem,
}
