"""The large matrices: every number to the last bit, every fault with its place, no store touched."""

import hashlib
import itertools
import math
import random
import re
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ingest.matrices
from ingest import compiled, matrix_faults, matrix_lines
from ingest.errors import InputError
from ingest.matrices import Matrix
from ingest.matrix_text import IrregularError, parse_numbers
from ingest.sources import SourceFile
from lake.ingestion import ingest_directory
from tests.helpers import donor_folder, read_matrix, read_rows, rewrite, tree, zip_donor

N_PROBES, N_SAMPLES = 400, 36  # of donor 12876


@pytest.fixture(autouse=True, scope="module", params=["C", pytest.param("numpy", marks=pytest.mark.slow)])
def kernels(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test with and without kernels, if they are built."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "numpy":
            patch.setattr(compiled, "kernels", None)
        yield


@contextmanager
def opened(path: Path, kind: str, probe_ids: list[int], n_samples: int) -> Iterator[Matrix]:
    aside, ids = path.with_suffix(".aside"), np.array(probe_ids, dtype=np.int64)
    with Matrix(SourceFile(path), kind, aside) as matrix, ThreadPoolExecutor(2) as pool:
        matrix.scan(pool)
        matrix.expect(ids, n_samples)
        yield matrix


def parsed(path: Path, kind: str, probe_ids: list[int], n_samples: int) -> dict[int, list[float]]:
    with opened(path, kind, probe_ids, n_samples) as matrix:
        values = matrix.read(0, len(probe_ids))
        assert matrix.size == path.stat().st_size
        assert matrix.lines.sha256 == SourceFile(path).sha256()
        matrix.refuse_change()
    return dict(zip(probe_ids, values.tolist(), strict=True))


@pytest.fixture(scope="module")
def folder(published: Path) -> Path:
    return donor_folder(published, "12876")


@pytest.fixture(scope="module")
def probe_ids(folder: Path) -> list[int]:
    return [int(row["probe_id"]) for row in read_rows(folder / "Probes.csv")]


FILES = {"expression": "MicroarrayExpression.csv", "detected": "PACall.csv"}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("block", [16, 97, 1000, 50_000, 8 << 20])
def test_block_boundaries_do_not_matter(
    kind: str, block: int, folder: Path, probe_ids: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matrix_lines, "BLOCK", block)
    path = folder / FILES[kind]
    assert parsed(path, kind, probe_ids, N_SAMPLES) == read_matrix(path)


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("block", [64, 8 << 20])
def test_crlf_is_accepted(
    kind: str, block: int, folder: Path, probe_ids: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matrix_lines, "BLOCK", block)
    path = tmp_path / "crlf.csv"
    path.write_bytes((folder / FILES[kind]).read_bytes().replace(b"\n", b"\r\n"))
    assert parsed(path, kind, probe_ids, N_SAMPLES) == read_matrix(folder / FILES[kind])


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("batch", [1, 1000, 1 << 19])
def test_any_part_is_read_in_the_order_asked(
    kind: str, batch: int, folder: Path, probe_ids: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest.matrices, "BATCH", batch)
    path = folder / FILES[kind]
    expected = read_matrix(path)
    wanted = random.Random(0).sample(probe_ids, len(probe_ids))
    with opened(path, kind, wanted, N_SAMPLES) as matrix:
        for start, stop in ((0, 1), (399, 400), (17, 230)):
            assert matrix.read(start, stop).tolist() == [expected[i] for i in wanted[start:stop]]


@pytest.mark.parametrize("kind", FILES)
def test_a_zip_is_extracted_and_the_copy_removed(
    kind: str, folder: Path, probe_ids: list[int], tmp_path: Path
) -> None:
    archive, aside = tmp_path / "donor.zip", tmp_path / "aside"
    zip_donor(folder, archive)
    file = SourceFile(archive, FILES[kind])
    with Matrix(file, kind, aside) as matrix, ThreadPoolExecutor(1) as pool:
        assert aside.stat().st_size == matrix.size == file.size
        matrix.scan(pool)
        matrix.expect(np.array(probe_ids), N_SAMPLES)
        expected = read_matrix(folder / FILES[kind])
        assert matrix.read(0, N_PROBES).tolist() == [expected[i] for i in probe_ids]
    assert not aside.exists()


@pytest.fixture
def matrix_copy(folder: Path, tmp_path: Path) -> Path:
    path = tmp_path / FILES["expression"]
    path.write_bytes((folder / path.name).read_bytes())
    return path


def test_a_file_that_shrinks_while_it_is_read_is_refused(matrix_copy: Path, probe_ids: list[int]) -> None:
    with opened(matrix_copy, "expression", probe_ids, N_SAMPLES) as matrix:
        rewrite(matrix_copy, lambda data: data[:-5000])
        with pytest.raises(InputError, match=r"Expression\.csv: the file changed while it was read"):
            matrix.read(0, N_PROBES)


def test_a_file_that_is_written_to_while_it_is_read_is_refused(
    matrix_copy: Path, probe_ids: list[int]
) -> None:
    with opened(matrix_copy, "expression", probe_ids, N_SAMPLES) as matrix:
        rewrite(matrix_copy, lambda data: data.replace(b",3.", b",4.", 1))
        with pytest.raises(InputError, match="the file changed while it was read; ingest it again"):
            matrix.refuse_change()


@given(
    data=st.binary(max_size=200) | st.text("12,\r\n", max_size=200).map(str.encode), block=st.integers(1, 70)
)
def test_lines_are_found_wherever_blocks_end(
    data: bytes, block: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("lines") / "x.csv"
    path.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch, path.open("rb") as stream:
        patch.setattr(matrix_lines, "BLOCK", block)
        found = matrix_lines.find_lines(stream.fileno(), len(data))
    expected = data.split(b"\n")[:-1]
    assert [data[a:b] for a, b in zip(found.starts, found.stops, strict=True)] == [
        line.removesuffix(b"\r") for line in expected
    ]
    heads = [re.match(rb"(\d{1,15}),", line) for line in expected]
    assert found.probe_ids.tolist() == [int(head[1]) if head else -1 for head in heads]
    for line, head, value in zip(found.starts, heads, found.values, strict=True):
        assert head is None or value == line + head.end()
    assert found.end == sum(map(len, expected)) + len(expected)
    assert found.longest == max((len(line.removesuffix(b"\r")) for line in expected), default=0)
    assert found.sha256 == hashlib.sha256(data).hexdigest()


# ---------------------------------------------------------------- numbers


def exact(value: float) -> bytes:
    return struct.pack("<d", value)


DIGITS = st.text("0123456789", min_size=1, max_size=25)
NUMBER_TEXTS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.floats(0, 20).map("{:.10f}".format),  # as published
    st.tuples(st.sampled_from(["", "-"]), DIGITS, DIGITS, st.integers(-30, 30)).map(
        lambda parts: "{}{}.{}e{}".format(*parts)
    ),
    st.tuples(DIGITS, DIGITS).map(".".join),
    DIGITS,
)


@given(
    rows=st.integers(1, 5).flatmap(
        lambda n: st.lists(st.lists(NUMBER_TEXTS, min_size=n, max_size=n), min_size=1, max_size=8)
    )
)
@settings(deadline=None)
def test_numbers_are_pythons_floats_to_the_last_bit(
    rows: list[list[str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("numbers") / "x.csv"
    path.write_text("".join(f"{i},{','.join(row)}\n" for i, row in enumerate(rows)))
    found = parsed(path, "expression", list(range(len(rows))), len(rows[0]))
    assert [[exact(v) for v in found[i]] for i in range(len(rows))] == [
        [exact(float(text)) for text in row] for row in rows
    ]


@given(text=st.text("0123456789+-.eE_ \t\"'naifNIFxX", min_size=1, max_size=8))
@settings(deadline=None, max_examples=300)
def test_what_is_accepted_is_pythons_float_and_the_rest_is_named(
    text: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("texts") / "x.csv"
    path.write_text(f"1,1.5,{text},2.5\n")
    try:
        found = parsed(path, "expression", [1], 3)
    except InputError as error:
        refused = str(error)
    else:
        refused = ""
        assert math.isfinite(found[1][1])
        assert exact(found[1][1]) == exact(float(text))
    assert not refused or re.search("line 1, column 3: .*(finite number|too large)", refused)


def test_what_parses_is_what_is_not_named_as_a_fault() -> None:
    """All short texts, beside a number that has a decimal point and one that has not."""
    for beside in (b"2.25", b"2"):
        for cells in itertools.chain.from_iterable(
            itertools.product(b"10.+-e ", repeat=n) for n in range(1, 5)
        ):
            cell = bytes(cells)
            text = np.frombuffer(bytearray(beside + b"," + cell + b","), np.uint8)
            values = np.empty((1, 2))
            try:
                parse_numbers(text, np.array([len(text) - 1]), values)
            except IrregularError:
                assert matrix_faults.CELL_PROBLEMS["expression"](cell), cell
            else:
                assert not matrix_faults.CELL_PROBLEMS["expression"](cell), cell
                assert exact(values[0, 1]) == exact(float(cell))


@given(
    seed=st.integers(0, 2**32),
    n_rows=st.integers(1, 30),
    n_samples=st.integers(1, 7),
    block=st.integers(16, 300),
)
@settings(deadline=None)
def test_the_order_of_rows_never_matters(
    seed: int, n_rows: int, n_samples: int, block: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    dice = random.Random(seed)
    path = tmp_path_factory.mktemp("rows") / "x.csv"
    ids = dice.sample(range(1_000_000), n_rows)
    flags = {i: [dice.randrange(2) for _ in range(n_samples)] for i in ids}
    lines = [f"{i},{','.join(map(str, flags[i]))}\n" for i in dice.sample(ids, n_rows)]
    path.write_text("".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matrix_lines, "BLOCK", block)
        assert parsed(path, "detected", ids, n_samples) == flags
        assert parsed(path, "expression", ids, n_samples) == flags


# ---------------------------------------------------------------- what is refused

Change = Callable[[bytes], bytes]


def lines_of(data: bytes) -> list[bytes]:
    return data.splitlines(keepends=True)


def cell(line: int, column: int, value: bytes) -> Change:
    """Put `value` into a cell; lines and columns count from 1."""

    def change(data: bytes) -> bytes:
        lines = lines_of(data)
        cells = lines[line - 1].rstrip(b"\n").split(b",")
        cells[column - 1] = value
        lines[line - 1] = b",".join(cells) + b"\n"
        return b"".join(lines)

    return change


def both(*changes: Change) -> Change:
    def change(data: bytes) -> bytes:
        for one in changes:
            data = one(data)
        return data

    return change


def line(number: int, edit: Callable[[bytes], bytes]) -> Change:
    def change(data: bytes) -> bytes:
        lines = lines_of(data)
        lines[number - 1] = edit(lines[number - 1])
        return b"".join(lines)

    return change


def first_cell(data: bytes) -> str:
    return data.split(b",", 1)[0].decode()


E, P = "MicroarrayExpression.csv", "PACall.csv"
S, T, O = "SampleAnnot.csv", "Probes.csv", "Ontology.csv"  # noqa: E741
CORRUPTIONS: dict[str, tuple[str, Change, list[str]]] = {
    # shape
    "a row too long": (E, line(7, lambda t: t[:-1] + b",1.5\n"), ["line 7: 38 fields, expected 37"]),
    "a row too short": (P, line(7, lambda t: t[:-3] + b"\n"), ["line 7: 36 fields, expected 37"]),
    "every row too short": (
        E,
        lambda data: b"".join(t[: t.rfind(b",")] + b"\n" for t in lines_of(data)),
        ["line 1: 36 fields", "line 2: 36 fields", "and more"],
    ),
    "a header": (
        E,
        lambda data: b"probe_id" + b",well" * 36 + b"\n" + data,
        ["line 1, column 1: 'probe_id'"],
    ),
    "an empty line": (P, line(3, lambda t: b"\n" + t), ["line 3: 1 fields, expected 37"]),
    "an empty last line": (E, lambda data: data + b"\n", ["line 401: 1 fields"]),
    "a sample too few": (S, lambda data: b"".join(lines_of(data)[:-1]), ["37 fields, expected 36", E]),
    "a sample too many": (
        S,
        lambda data: data + lines_of(data)[1].replace(b",", b",9", 2),
        ["37 fields, expected 38", E],
    ),
    "a probe too few": (
        T,
        lambda data: b"".join(lines_of(data)[:-1]),
        ["399 rows, the store's donors have 400"],
    ),
    "rows missing": (
        E,
        lambda data: b"".join(lines_of(data)[:-9]),
        ["9 of 400 probes", "have no row", "cut off"],
    ),
    "rows missing in PACall": (
        P,
        lambda data: b"".join(lines_of(data)[9:]),
        ["9 of 400 probes", "have no row"],
    ),
    # cells
    "text": (E, cell(12, 5, b"high"), ["line 12, column 5: 'high' is not a finite number"]),
    "an empty field": (E, cell(12, 5, b""), ["line 12, column 5: an empty field is not a finite number"]),
    "an empty last field": (E, cell(400, 37, b""), ["line 400, column 37: an empty field"]),
    "NaN": (E, cell(1, 2, b"NaN"), ["line 1, column 2: 'NaN' is not a finite number"]),
    "NA": (E, cell(1, 2, b"NA"), ["line 1, column 2: 'NA' is not a finite number"]),
    "inf": (E, cell(399, 37, b"inf"), ["line 399, column 37: 'inf' is not a finite number"]),
    "-Infinity": (E, cell(9, 9, b"-Infinity"), ["line 9, column 9: '-Infinity' is not"]),
    "too large": (E, cell(9, 9, b"1e999"), ["line 9, column 9: '1e999' is too large"]),
    "quotes": (E, cell(9, 9, b'"1.5"'), ["line 9, column 9", "is not a finite number"]),
    "a decimal comma": (E, cell(9, 9, b"1,5"), ["line 9: 38 fields, expected 37"]),
    "a semicolon": (E, lambda data: data.replace(b",", b";"), ["line 1: 1 fields", "expected 37"]),
    "a two": (P, cell(20, 3, b"2"), ["line 20, column 3: '2' is not 0 or 1"]),
    "a fraction": (P, cell(20, 3, b"0.5"), ["line 20, column 3: '0.5' is not 0 or 1"]),
    "an empty call": (P, cell(20, 3, b""), ["line 20, column 3: an empty field is not 0 or 1"]),
    "a letter": (P, cell(20, 37, b"P"), ["line 20, column 37: 'P' is not 0 or 1"]),
    "a huge cell": (E, cell(20, 3, b"7x" * 99_999), ["line 20, column 3: '7x7x7x", "is not a finite number"]),
    # probes
    "an unknown probe": (E, cell(30, 1, b"42"), ["line 30, column 1: probe 42 is not in Probes.csv"]),
    "an unknown probe in PACall": (P, cell(30, 1, b"42"), ["line 30, column 1: probe 42 is not in"]),
    "a probe twice": (
        E,
        lambda data: data + lines_of(data)[4],
        ["line 401, column 1: probe", "second time (first on line 5)"],
    ),
    "a probe twice in PACall": (
        P,
        line(6, lambda t: t + t),
        ["line 7, column 1: probe", "second time (first on line 6)"],
    ),
    "no probe id": (E, cell(30, 1, b""), ["line 30, column 1: an empty field is not a probe id"]),
    "text for a probe id": (P, cell(30, 1, b"A_23"), ["line 30, column 1: 'A_23' is not a probe id"]),
    "a negative probe id": (E, cell(30, 1, b"-7"), ["line 30, column 1: '-7' is not a probe id"]),
    "a fraction for a probe id": (E, cell(30, 1, b"7.5"), ["line 30, column 1: '7.5' is not a probe id"]),
    "a probe id beyond 64 bits": (P, cell(30, 1, b"9" * 25), ["line 30, column 1", "is not a probe id"]),
    "a probe id beyond exact floats": (E, cell(30, 1, b"9" * 17), ["line 30, column 1", "is not a probe id"]),
    # files
    "cut off in a line": (
        E,
        lambda data: data[: len(data) // 2],
        ["the last line has no end", "cut off", "line 2"],
    ),
    "cut off in a line of PACall": (P, lambda data: data[:-1], ["line 400: the last line has no end"]),
    "cut off at a line's end": (
        E,
        lambda data: b"".join(lines_of(data)[:200]),
        ["200 of 400 probes of Probes.csv have no row", "cut off"],
    ),
    "nothing": (E, lambda _: b"", ["the file is empty"]),
    "nothing in PACall": (P, lambda _: b"", ["the file is empty"]),
    "only a line end": (P, lambda _: b"\n", ["line 1: 1 fields, expected 37"]),
    "UTF-16": (E, lambda data: data.decode().encode("utf-16"), ["line 1, column 1: this is UTF-16"]),
    "UTF-16 without a mark": (P, lambda data: data.decode().encode("utf-16-le"), ["line 1, column 1"]),
    "Latin-1": (E, cell(8, 4, b"\xb5 7"), ["line 8, column 4", "is not a finite number"]),
    "a byte order mark": (
        E,
        lambda data: b"\xef\xbb\xbf" + data,
        ["line 1, column 1: this is UTF-8 with a mark"],
    ),
    "a zip": (E, lambda _: b"PK\x03\x04" + bytes(500), ["line 1, column 1: this is a zip"]),
    "a web page": (P, lambda _: b"<html>\n<body>sorry</body></html>\n", ["line 1: 1 fields, expected 37"]),
    "old Macintosh line ends": (E, lambda data: data.replace(b"\n", b"\r"), ["line 1", "no end"]),
    "the other matrix": (
        P,
        lambda _: b"1058043" + b",2.5" * 36 + b"\n",
        ["line 1, column 2: '2.5' is not 0 or 1"],
    ),
    # between files
    "a well twice": (S, lambda data: data + lines_of(data)[3], ["line 38", "'well_id'", "second time"]),
    "an unknown structure": (
        S,
        line(5, lambda t: b"31415," + t.split(b",", 1)[1]),
        ["line 5", "'structure_id'", "structure 31415 is not in the ontology"],
    ),
    "another probe table": (
        T,
        lambda data: data.replace(b"simulated gene", b"another gene", 1),
        ["column 'gene_name'", "but the store's donors have", "donors of one store share this table"],
    ),
    "more probes": (
        T,
        lambda data: data + b'1,"P",1,"G","g",1,1\n',
        ["401 rows, the store's donors have 400"],
    ),
    "another ontology": (
        O,
        lambda data: data.replace(b"simulated gray", b"simulated grey", 1),
        ["column 'name', structure_id 4006", "but the store's donors have", "share this table"],
    ),
    "fewer structures": (O, lambda data: b"".join(lines_of(data)[:-1]), ["rows, the store's donors have"]),
    # several at once
    "three cells and a row": (
        E,
        both(cell(3, 4, b"?"), cell(3, 5, b""), cell(50, 1, b"8"), line(60, lambda t: t[:-1] + b",1\n")),
        [
            "4 problems",
            "line 3, column 4: '?'",
            "line 3, column 5: an empty field",
            "line 50, column 1: probe 8 is not in Probes.csv",
            "line 60: 38 fields",
        ],
    ),
    "a flood": (
        P,
        lambda data: data.replace(b",1", b",3"),
        ["20 problems", ".. and more", "'3' is not 0 or 1"],
    ),
}


@pytest.fixture(scope="module")
def first_store(published: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """A store of the other two donors, and its bytes; corrupted files must leave it so."""
    path = tmp_path_factory.mktemp("first") / "store.zarr"
    ingest_directory(published, path, donors=["9861", "10021"])
    return path, tree(path)


@pytest.mark.parametrize(("name", "change", "words"), CORRUPTIONS.values(), ids=CORRUPTIONS)
def test_faults_are_named_and_leave_the_store_as_it_was(
    name: str,
    change: Change,
    words: list[str],
    first_store: tuple[Path, dict[str, bytes]],
    only_donors: Callable[..., Path],
) -> None:
    source = only_donors("12876")
    rewrite(donor_folder(source, "12876") / name, change)
    store, before = first_store
    with pytest.raises(InputError) as caught:
        ingest_directory(source, store)
    message = str(caught.value)
    assert message.startswith(str(donor_folder(source, "12876")))
    for word in words:
        assert word in message
    assert len(message) < 5000  # a message is read by people
    assert tree(store) == before


@pytest.mark.parametrize("block", [64, 1024])
@pytest.mark.parametrize(
    "fault",
    [
        "a row too long",
        "text",
        "a probe twice",
        "cut off in a line",
        "rows missing",
        "an empty last line",
        "three cells and a row",
    ],
)
def test_faults_are_named_wherever_blocks_end(
    fault: str,
    block: int,
    folder: Path,
    probe_ids: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(matrix_lines, "BLOCK", block)
    name, change, words = CORRUPTIONS[fault]
    path = tmp_path / name
    path.write_bytes(change((folder / name).read_bytes()))
    with pytest.raises(InputError) as caught:
        parsed(path, "expression", probe_ids, N_SAMPLES)
    for word in words:
        assert word in str(caught.value)


def test_a_repeated_probe_is_seen_beside_a_wrong_cell(
    folder: Path, probe_ids: list[int], tmp_path: Path
) -> None:
    data = (folder / E).read_bytes()
    path = tmp_path / E
    path.write_bytes(cell(3, 4, b"?")(data + lines_of(data)[9]))
    with pytest.raises(InputError, match="2 problems") as caught:
        parsed(path, "expression", probe_ids, N_SAMPLES)
    assert "line 401, column 1: probe" in str(caught.value)


def test_every_thread_is_told_of_a_fault_anywhere(folder: Path, probe_ids: list[int], tmp_path: Path) -> None:
    path = tmp_path / E
    path.write_bytes(both(cell(1, 2, b"x"), cell(300, 5, b""))((folder / E).read_bytes()))
    order = list(read_matrix(folder / E))

    def message(start: int) -> str:
        with pytest.raises(InputError) as caught:
            matrix.read(start, start + 1)
        return str(caught.value)

    with ThreadPoolExecutor(2) as pool, opened(path, "expression", order, N_SAMPLES) as matrix:
        first, second = pool.map(message, (0, 299))
    assert first == second
    assert "2 problems" in first


def test_an_endless_line_is_not_read_into_memory(
    tmp_path: Path, probe_ids: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matrix_faults, "LONGEST_LINE", 1 << 16)
    monkeypatch.setattr(matrix_lines, "BLOCK", 1 << 12)
    path = tmp_path / E
    path.write_bytes(b"1," + b"7" * (1 << 20))
    with pytest.raises(InputError, match=r"line 1: longer than .* not a published matrix"):
        parsed(path, "expression", probe_ids, N_SAMPLES)


def test_a_table_of_very_many_lines_is_not_read_into_memory(
    tmp_path: Path, probe_ids: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as all values one below the other."""
    monkeypatch.setattr(matrix_lines, "MOST_LINES", 500)
    monkeypatch.setattr(matrix_lines, "BLOCK", 1 << 12)
    path = tmp_path / E
    path.write_bytes(b"".join(b"%d,%d,2.5\n" % (probe, well) for probe in probe_ids for well in range(100)))
    with path.open("rb") as stream:
        assert 500 <= len(matrix_lines.find_lines(stream.fileno(), path.stat().st_size)) < 1000
    with pytest.raises(InputError, match="line 1: 3 fields, expected 37") as caught:
        parsed(path, "expression", probe_ids, N_SAMPLES)
    assert "and more" in str(caught.value)
