"""The small published tables are read cell by cell, and every wrong cell is named."""

import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest import tables
from ingest.errors import InputError
from ingest.reference import corrected_coordinates, reannotation
from ingest.sources import SourceFile
from ingest.tables import (
    PROBE_COLUMNS,
    STRUCTURE_CLASSES,
    Table,
    read_ontology,
    read_probes,
    read_samples,
    structure_class,
)
from tests.helpers import donor_folder, lines_changed, read_rows, rewrite


@pytest.fixture
def folder(published_copy: Path) -> Path:
    return donor_folder(published_copy, "12876")


def read(folder: Path, name: str) -> Table:
    file = SourceFile(folder / name)
    if name == "Probes.csv":
        return read_probes(file)
    if name == "Ontology.csv":
        return read_ontology(file)
    return read_samples(file, read_ontology(SourceFile(folder / "Ontology.csv")).frame)


# ---------------------------------------------------------------- what is read


def test_probes_are_the_files_and_the_reannotations(folder: Path) -> None:
    frame, rows = read(folder, "Probes.csv").frame, read_rows(folder / "Probes.csv")
    assert frame["probe_id"].tolist() == [int(row["probe_id"]) for row in rows]
    for name in ("probe_name", "gene_symbol", "gene_name", "chromosome"):
        assert frame[name].tolist() == [row[name] for row in rows]
    assert frame["entrez_id"].tolist() == [int(row["entrez_id"] or -1) for row in rows]
    assert (frame["entrez_id"] == -1).any()
    new = {row.probe_name: (row.gene_symbol, row.entrez_id) for row in reannotation().itertuples()}
    found = list(zip(frame["reannotated_gene_symbol"], frame["reannotated_entrez_id"], strict=True))
    assert found == [new.get(row["probe_name"], ("", -1)) for row in rows]
    assert ("", -1) in found
    assert frame["published_row"].tolist() == list(range(len(rows)))


def test_samples_are_the_files_with_hemisphere_structure_and_corrected_place(folder: Path) -> None:
    frame, rows = read(folder, "SampleAnnot.csv").frame, read_rows(folder / "SampleAnnot.csv")
    for name in ("mni_x", "mni_y", "mni_z"):
        assert frame[name].tolist() == [float(row[name]) for row in rows]
    for name in ("well_id", "structure_id", "mri_voxel_x", "polygon_id", "slab_num"):
        assert frame[name].tolist() == [int(row[name]) for row in rows]
    for name in ("slab_type", "structure_acronym", "structure_name"):
        assert frame[name].tolist() == [row[name] for row in rows]
    structures = {row["id"]: row for row in read_rows(folder / "Ontology.csv")}
    assert frame["hemisphere"].tolist() == [
        structures[row["structure_id"]]["hemisphere"] or "B" for row in rows
    ]
    corrected = corrected_coordinates()
    for name in corrected.columns:
        assert frame[name].tolist() == [corrected.loc[int(row["well_id"]), name] for row in rows]
    assert set(frame["structure"]) >= {"cortex", "subcortex/brainstem"}


def test_unknown_wells_have_no_corrected_place(folder: Path) -> None:
    lines_changed(
        folder / "SampleAnnot.csv",
        lambda lines: [lines[0], with_field(lines[1], 2, b"999999999"), *lines[2:]],
    )
    frame = read(folder, "SampleAnnot.csv").frame
    assert frame[["corrected_mni_x", "corrected_mni_y", "corrected_mni_z"]].isna().all(axis=1).tolist() == [
        True,
        *[False] * (len(frame) - 1),
    ]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/4005/4006/4007/4008/", "cortex"),
        ("/4005/4006/4007/4008/4219/4249/12896/", "subcortex/brainstem"),  # hippocampal formation
        ("/4005/4833/4696/", "cerebellum"),
        ("/4005/9218/", "white matter"),
        ("/4005/9352/", "other"),
        ("/4005/4006/", ""),
        ("", ""),
    ],
)
def test_the_deepest_class_on_the_path_counts(path: str, expected: str) -> None:
    assert structure_class(path) == expected


@given(st.lists(st.sampled_from([*STRUCTURE_CLASSES, 1, 4005, 12896]), max_size=8))
def test_structure_class_walks_from_the_root(ids: list[int]) -> None:
    expected = ""
    for i in ids:
        expected = STRUCTURE_CLASSES.get(i, expected)
    assert structure_class("/" + "".join(f"{i}/" for i in ids)) == expected


def test_crlf_and_a_byte_order_mark_change_nothing(folder: Path) -> None:
    before = read(folder, "Probes.csv").frame
    rewrite(folder / "Probes.csv", lambda data: b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n"))
    pd.testing.assert_frame_equal(read(folder, "Probes.csv").frame, before)


CELL = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(texts=st.lists(CELL, min_size=1, max_size=20), end=st.sampled_from(["\n", "\r\n"]))
def test_any_text_comes_through(texts: list[str], end: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("texts") / "Probes.csv"
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator=end, quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(PROBE_COLUMNS)
    for row, text in enumerate(texts):
        writer.writerow([row, f"P{row}", row, text, text, row, text])
    path.write_bytes(stream.getvalue().encode())
    frame = read_probes(SourceFile(path)).frame
    assert frame["gene_symbol"].tolist() == frame["gene_name"].tolist() == texts


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_coordinates_are_pythons_floats(value: float) -> None:
    assert np.float64(tables.SAMPLE_COLUMNS["mni_x"](repr(value))).tobytes() == np.float64(value).tobytes()


# ---------------------------------------------------------------- what is refused


def with_field(line: bytes, column: int, value: bytes) -> bytes:
    """The line with a field that holds no comma replaced; quoted commas before it are respected."""
    row = next(csv.reader([line.decode().rstrip("\r\n")]))
    row[column] = value.decode()
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerow(row)
    return stream.getvalue().encode()


def cell(line: int, column: int, value: bytes) -> Callable[[bytes], bytes]:
    """Put `value` into a cell; lines count from 1."""

    def change(data: bytes) -> bytes:
        lines = data.splitlines(keepends=True)
        lines[line - 1] = with_field(lines[line - 1], column, value)
        return b"".join(lines)

    return change


WRONG = {
    "text for a whole number": (
        "Probes.csv",
        cell(3, 0, b"abc"),
        ["line 3", "'probe_id'", "'abc' is not a whole"],
    ),
    "an empty id": ("Probes.csv", cell(5, 0, b""), ["line 5", "'probe_id'", "'' is not a whole number"]),
    "a fraction for an id": (
        "Probes.csv",
        cell(5, 5, b"1.0"),
        ["line 5", "'entrez_id'", "not a whole number"],
    ),
    "a negative id": ("Probes.csv", cell(5, 0, b"-4"), ["line 5", "'probe_id'", "'-4' is negative"]),
    "a foreign digit": ("Probes.csv", cell(5, 0, "²".encode()), ["line 5", "'probe_id'", "whole number"]),
    "too many digits": ("SampleAnnot.csv", cell(2, 6, b"9" * 19), ["line 2", "'polygon_id'", "too large"]),
    "very many digits": ("SampleAnnot.csv", cell(2, 6, b"9" * 5000), ["line 2", "'polygon_id'", "too large"]),
    "text for a coordinate": (
        "SampleAnnot.csv",
        cell(4, 10, b"left"),
        ["line 4", "'mni_x'", "'left' is not a finite"],
    ),
    "no coordinate": (
        "SampleAnnot.csv",
        cell(4, 11, b""),
        ["line 4", "'mni_y'", "'' is not a finite number"],
    ),
    "nan": ("SampleAnnot.csv", cell(4, 12, b"nan"), ["line 4", "'mni_z'", "'nan' is not a finite number"]),
    "inf": ("SampleAnnot.csv", cell(4, 12, b"-inf"), ["line 4", "'mni_z'", "'-inf' is not a finite number"]),
    "too large": ("SampleAnnot.csv", cell(4, 12, b"1e999"), ["line 4", "'mni_z'", "'1e999' is too large"]),
    "an underscore": (
        "SampleAnnot.csv",
        cell(4, 12, b"1_0"),
        ["line 4", "'mni_z'", "'1_0' is not a finite number"],
    ),
    "a hemisphere": (
        "Ontology.csv",
        cell(9, 4, b"left"),
        ["line 9", "'hemisphere'", "'left' is not a hemisphere"],
    ),
    "an unknown structure": (
        "SampleAnnot.csv",
        cell(6, 0, b"123"),
        ["line 6", "'structure_id'", "structure 123 is not in the ontology"],
    ),
    "too few fields": (
        "Probes.csv",
        lambda data: data.replace(b"\n", b",1\n", 3).replace(b",1\n", b"\n", 1),
        ["line 2: 8 fields, expected 7", "line 3: 8 fields"],
    ),
    "another header": (
        "Ontology.csv",
        lambda data: data.replace(b"acronym", b"Acronym", 1),
        ["line 1: the header is 'id,Acronym,name", "expected 'id,acronym,name"],
    ),
    "a web page": (
        "Probes.csv",
        lambda _: b"<html>\nnot found\n</html>\n",
        ["line 1: the header is '<html>'"],
    ),
    "a header only": (
        "Probes.csv",
        lambda data: data.splitlines(keepends=True)[0],
        ["no rows below the header"],
    ),
    "nothing": ("SampleAnnot.csv", lambda _: b"", ["the file is empty"]),
    "only a mark": ("SampleAnnot.csv", lambda _: b"\xef\xbb\xbf", ["line 1", "cut off"]),
    "only a line end": ("SampleAnnot.csv", lambda _: b"\n", ["line 1: the header is ''"]),
    "cut off in a line": ("Probes.csv", lambda data: data[:5000], ["cut off"]),
    "cut off in the last field": ("SampleAnnot.csv", lambda data: data[:-2], ["line 37", "cut off"]),
    "cut off in quotes": (
        "Probes.csv",
        lambda data: data[: data.rfind(b'"')] + b"\n",
        ["unexpected end of data"],
    ),
    "UTF-16": (
        "Probes.csv",
        lambda data: data.decode().encode("utf-16"),
        ["line 1: byte 0xff is not UTF-8; the file was saved in another encoding"],
    ),
    "Latin-1": (
        "Ontology.csv",
        lambda data: data.replace(b"gray", "gr\xe4y".encode("latin-1"), 1),
        ["line 3: byte 0xe4 is not UTF-8"],
    ),
    "a zip": (
        "Probes.csv",
        lambda _: b"PK\x03\x04\x14\x00" + bytes(99),
        ["line 1: this is a zip", "extract it"],
    ),
    "a huge field": (
        "Probes.csv",
        lambda data: data + b"1," * 2 + b"x" * 200_000 + b",,,,\n",
        ["field larger than"],
    ),
    "many fields": ("Probes.csv", lambda data: data + b"1," * 200_000 + b"\n", ["line 402: 200001 fields"]),
    "a huge header": ("Probes.csv", lambda _: b"a," * 200_000 + b"\n", ["line 1: the header is 'a,a,a,"]),
}


@pytest.mark.parametrize(("name", "change", "words"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_named(
    name: str, change: Callable[[bytes], bytes], words: list[str], folder: Path
) -> None:
    rewrite(folder / name, change)
    with pytest.raises(InputError) as caught:
        read(folder, name)
    message = str(caught.value)
    assert message.startswith(str(folder / name))
    for word in words:
        assert word in message
    assert len(message) < 5000  # a message is read by people


@pytest.mark.parametrize(
    ("name", "column", "word"),
    [
        ("Probes.csv", "probe_id", "1058043"),
        ("SampleAnnot.csv", "well_id", ""),
        ("Ontology.csv", "id", "4005"),
    ],
)
def test_repeated_rows_are_named(name: str, column: str, word: str, folder: Path) -> None:
    lines_changed(folder / name, lambda lines: [*lines, lines[1]])
    with pytest.raises(InputError, match=rf"column '{column}': '{word}.* is there a second time") as caught:
        read(folder, name)
    assert f"line {len((folder / name).read_bytes().splitlines())}" in str(caught.value)


def test_several_problems_are_told_together(folder: Path) -> None:
    path = folder / "SampleAnnot.csv"
    for change in (cell(3, 12, b"x"), cell(5, 0, b"77"), cell(7, 2, b"")):
        rewrite(path, change)
    lines_changed(path, lambda lines: [*lines, lines[1], b"1,2,3\n"])
    with pytest.raises(InputError) as caught:
        read(folder, "SampleAnnot.csv")
    message = str(caught.value)
    assert f"{path}: 5 problems" in message
    for expected in (
        "line 3, column 'mni_z': 'x' is not a finite number",
        "line 5, column 'structure_id': structure 77 is not in the ontology",
        "line 7, column 'well_id': '' is not a whole number",
        "line 38, column 'well_id'",
        "line 39: 3 fields, expected 13",
    ):
        assert expected in message


def test_wrong_cells_are_not_taken_for_repeated_ids(folder: Path) -> None:
    for line in (3, 4):
        rewrite(folder / "SampleAnnot.csv", cell(line, 2, b"?"))
    with pytest.raises(InputError, match="2 problems") as caught:
        read(folder, "SampleAnnot.csv")
    assert "second time" not in str(caught.value)


def test_a_flood_of_problems_is_cut(folder: Path) -> None:
    lines_changed(folder / "Probes.csv", lambda lines: [lines[0], *(b"x" + line for line in lines[1:])])
    with pytest.raises(InputError, match="20 problems") as caught:
        read(folder, "Probes.csv")
    assert str(caught.value).endswith(".. and more")


def test_a_file_that_is_no_table_is_not_read_into_memory(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "LARGEST_TABLE", 1 << 10)
    with pytest.raises(InputError, match="this is not a published table"):
        read(folder, "Probes.csv")
