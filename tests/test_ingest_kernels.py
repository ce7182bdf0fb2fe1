"""The kernels that read matrix files give what NumPy and Arrow give, to the last bit, or nothing."""

import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ingest import compiled, matrix_lines
from ingest.errors import InputError
from ingest.matrices import KINDS, Matrix
from ingest.matrix_text import IrregularError
from tests.test_matrices import opened

KERNELS: Any = compiled.kernels
pytestmark = pytest.mark.skipif(KERNELS is None, reason="no kernels are built")

DIGITS = st.text("0123456789", min_size=1, max_size=25)
ODD = ["-0.0", "0", "1e5", "1.", ".5", ".", "-", "", " 1", "1 ", "1e400", "nan", "x", "1.2.3", "1\0"]
EDGES = ["9007199254740991", "9007199254740992", "9007199254740993", "900719925474.0993", "5e-324"]
LONG = ["9.999999999999999999", "00000000000000001.5", "0.0000000000000000001", "0.00000000000000000001"]
EIGHT_DIGITS = ["1.12345678", "1.1234567", "1.1234567x", "1.12345678x", "1.x2345678", "1.1234567890123456"]
FIELDS = {
    "expression": st.one_of(
        st.floats(0, 20).map("{:.10f}".format),  # as published
        st.floats(allow_nan=False, allow_infinity=False).map(repr),
        st.integers(-(2**64), 2**64).map(str),
        st.tuples(st.sampled_from(["", "-", "+", "--"]), DIGITS, DIGITS).map(
            lambda p: f"{p[0]}{p[1]}.{p[2]}"
        ),
        st.sampled_from(ODD + EDGES + LONG + EIGHT_DIGITS),
        st.text("0123456789+-.eE_ \t\r\"'nax", max_size=8),
    ),
    "detected": st.sampled_from(["0", "1"])
    | st.sampled_from(["", "2", "00", " 1", "1\r", "x", "-1", "/", "\0"]),
}
LINE_ENDS = st.sampled_from(["\n", "\r\n"])


def rows_of(kind: str) -> st.SearchStrategy[list[list[str]]]:
    """Rows of fields: most as they should be, some ragged."""
    plain = st.integers(0, 6).flatmap(
        lambda n: st.lists(st.lists(FIELDS[kind], min_size=n, max_size=n), min_size=1, max_size=6)
    )
    return plain | st.lists(st.lists(FIELDS[kind], max_size=6), min_size=1, max_size=6)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kernels") / "x.csv"


def outcome(path: Path, kind: str, n_rows: int, n_samples: int, kernels: Any) -> bytes | str:
    """The values' bytes, or what is said of the file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "kernels", kernels)
        try:
            with opened(path, kind, list(range(n_rows)), n_samples) as matrix:
                return matrix.read(0, n_rows).tobytes()
        except InputError as error:
            return str(error)


@pytest.mark.parametrize("kind", FIELDS)
@given(data=st.data(), line_end=LINE_ENDS)
@settings(deadline=None, max_examples=400)
def test_values_and_sentences_are_the_same_without_kernels(
    kind: str, data: st.DataObject, line_end: str, path: Path
) -> None:
    rows = data.draw(rows_of(kind))
    path.write_text("".join(f"{i},{','.join(row)}{line_end}" for i, row in enumerate(rows)), newline="")
    n_samples = data.draw(st.just(max(1, len(rows[0]))) | st.integers(1, 7))
    found, expected = (outcome(path, kind, len(rows), n_samples, kernels) for kernels in (KERNELS, None))
    assert found == expected


def taken(path: Path, kind: str, text: bytes, stops: list[int], n_samples: int) -> tuple[int, NDArray[Any]]:
    """What a kernel makes of rows of text that end there: how many it took, and the values."""
    path.write_bytes(text)
    starts = [0, *(stop + 1 for stop in stops[:-1])]
    values = np.full((len(stops), n_samples), 77, KINDS[kind][2])
    with path.open("rb") as stream:
        number: int = getattr(KERNELS, KINDS[kind][1])(
            stream.fileno(), np.array(starts), np.array(stops), values
        )
    return number, values


@given(text=FIELDS["expression"])
@example(text="-0.0")
@settings(max_examples=1000)
def test_a_number_that_a_kernel_takes_is_pythons(text: str, path: Path) -> None:
    number, values = taken(path, "expression", f"{text}".encode(), [len(text)], 1)
    if number:
        assert struct.pack("<d", values[0, 0]) == struct.pack("<d", float(text))


@given(
    sign=st.sampled_from(["", "-"]),
    number=st.integers(0, 2**53 - 1),
    n_decimals=st.integers(0, 15),
    zeros=st.integers(0, 3),
)
@settings(max_examples=1000)
def test_kernels_take_every_plain_decimal_that_is_exact(
    sign: str, number: int, n_decimals: int, zeros: int, path: Path
) -> None:
    digits = ("0" * zeros + str(number)).zfill(n_decimals + 1)
    text = sign + digits if n_decimals == 0 else f"{sign}{digits[:-n_decimals]}.{digits[-n_decimals:]}"
    count, values = taken(path, "expression", text.encode(), [len(text)], 1)
    assert count == 1
    assert struct.pack("<d", values[0, 0]) == struct.pack("<d", float(text))


@pytest.mark.parametrize(("kind", "line"), [("expression", b"1.5,2.25,-3"), ("detected", b"1,0,1")])
def test_kernels_stop_at_the_first_row_that_is_not_plain(kind: str, line: bytes, path: Path) -> None:
    wrong = {
        b"x" + line[1:],
        line + b",1",
        line[:-2],
        line[:-1],
        line + b",",
        b"," + line,
        b"",
        line[::-1] + b"-",
    }
    for bad in wrong:
        text = b"\n".join([line, bad, line])
        stops = [len(line), len(line) + 1 + len(bad), len(text)]
        number, values = taken(path, kind, text, stops, 3)
        assert number == 1, bad
        assert values[0].tolist() == [float(cell) for cell in line.split(b",")]


@pytest.mark.parametrize(("kind", "line"), [("expression", b"1.5,2.25,-3"), ("detected", b"1,0,1")])
def test_kernels_do_not_take_what_is_not_in_the_file(kind: str, line: bytes, path: Path) -> None:
    path.write_bytes(line + b"\n" + line[:-1])
    read, values = getattr(KERNELS, KINDS[kind][1]), np.zeros((3, 3), KINDS[kind][2])
    starts, length = np.array([0, len(line) + 1, 1 << 40]), len(line)
    with path.open("rb") as stream:
        assert read(stream.fileno(), starts, starts + length, values) == 1
        assert read(stream.fileno(), starts[1:], starts[1:] + length, values[1:]) == 0
        assert read(stream.fileno(), starts[2:], starts[2:] + length, values[2:]) == 0
        assert read(stream.fileno(), starts, starts - 1, values) == 0
        assert read(stream.fileno(), starts - 2, starts, values) == 0
        assert read(stream.fileno(), starts, starts + (1 << 62), values) == 0
    closed = os.open(path, os.O_RDONLY)
    os.close(closed)
    assert read(closed, starts, starts + length, values) == 0


@pytest.mark.parametrize("kind", FIELDS)
def test_published_rows_are_all_taken_by_kernels(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else this would be the slow way round."""
    values = np.random.default_rng(0).normal(8, 3, (50, 20)) if kind == "expression" else np.ones((50, 20))
    path, text = tmp_path / "x.csv", "{:.10f}" if kind == "expression" else "{:.0f}"
    path.write_text("".join(f"{i},{','.join(map(text.format, row))}\n" for i, row in enumerate(values)))
    monkeypatch.setattr(Matrix, "_text", None)
    with opened(path, kind, list(range(50)), 20) as matrix:
        np.testing.assert_allclose(matrix.read(0, 50), values, atol=1e-10)


def test_rows_behind_one_that_is_not_plain_are_read_as_well(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("0,1.5,2.5\n1,1e3,3.5\n2,.5,4.\n3,-1,0.1\n")
    with opened(path, "expression", [0, 1, 2, 3], 2) as matrix:
        assert matrix.read(0, 4).tolist() == [[1.5, 2.5], [1000, 3.5], [0.5, 4], [-1, 0.1]]
        matrix.n_samples = 3
        with pytest.raises(IrregularError):
            matrix.parsed(np.arange(4))


@given(
    data=st.binary(max_size=200)
    | st.text("12,\r\n", max_size=200).map(str.encode)
    | st.lists(st.from_regex(rb"[0-9]{0,18},?\r?\n?", fullmatch=True), max_size=20).map(b"".join),
    block=st.integers(1, 70),
)
@settings(max_examples=300)
def test_lines_are_the_same_without_kernels(data: bytes, block: int, path: Path) -> None:
    path.write_bytes(data)
    found = []
    for kernels in (KERNELS, None):
        with pytest.MonkeyPatch.context() as patch, path.open("rb") as stream:
            patch.setattr(matrix_lines, "BLOCK", block)
            patch.setattr(matrix_lines, "USUAL_LINES", 3)
            patch.setattr(compiled, "kernels", kernels)
            lines = matrix_lines.find_lines(stream.fileno(), len(data))
        columns = (lines.starts, lines.values, lines.stops, lines.probe_ids)
        found.append([*(column.tolist() for column in columns), lines.end, lines.sha256])
    assert found[0] == found[1]
