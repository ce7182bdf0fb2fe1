"""The small published tables: Probes.csv, SampleAnnot.csv, Ontology.csv.

Every cell is checked, and what is wrong is told with file, line and column. Names are those of
the published headers; see ``docs/store.md`` for what each column means.
"""

import csv
import hashlib
import io
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from ingest.errors import InputError
from ingest.problems import Problems, shown
from ingest.reference import corrected_coordinates, reannotation
from ingest.sources import SourceFile

LARGEST_TABLE = 256 << 20
MOST_HEADER_SHOWN = 200
NO_NUMBER = -1
MOST_DIGITS = 18  # fit into 64 bits

# Structure classes of the ontology, as abagen's users know them: the deepest of these on a
# structure's path counts, so the hippocampal formation (4249, below 4008) is not cortex.
STRUCTURE_CLASSES = {
    4008: "cortex",
    4249: "subcortex/brainstem",
    4275: "subcortex/brainstem",
    4391: "subcortex/brainstem",
    4696: "cerebellum",
    9001: "subcortex/brainstem",
    9131: "subcortex/brainstem",
    9218: "white matter",
    9352: "other",
    9512: "subcortex/brainstem",
}


# What Python's float() takes besides, such as 1_000, is no number to other tools.
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def _whole_number(text: str) -> int:
    if not text.removeprefix("-").isascii() or not text.removeprefix("-").isdigit():
        raise ValueError("is not a whole number")
    if len(text) > MOST_DIGITS:
        raise ValueError("is too large for a number")
    return int(text)


def identifier(text: str) -> int:
    """Parse an id: a whole number from 0 on."""
    number = _whole_number(text)
    if number < 0:
        raise ValueError("is negative, which no id is")
    return number


def _optional_whole_number(text: str) -> int:
    return _whole_number(text) if text else NO_NUMBER


def finite_number(text: str) -> float:
    """Parse a number as every tool writes it."""
    if not _NUMBER.fullmatch(text):
        raise ValueError("is not a finite number")
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("is too large for a number")
    return value


def _hemisphere(text: str) -> str:
    if text not in ("L", "R", ""):
        raise ValueError("is not a hemisphere (L, R or empty)")
    return text or "B"


def plain_text(text: str) -> str:
    """Take any text."""
    return text


Parser = Callable[[str], object]
DTYPES: dict[Parser, type] = {
    _whole_number: np.int64,
    identifier: np.int64,
    _optional_whole_number: np.int64,
    finite_number: np.float64,
    _hemisphere: object,
    plain_text: object,
}
PROBE_COLUMNS: dict[str, Parser] = {
    "probe_id": identifier,
    "probe_name": plain_text,
    "gene_id": _optional_whole_number,
    "gene_symbol": plain_text,
    "gene_name": plain_text,
    "entrez_id": _optional_whole_number,
    "chromosome": plain_text,
}
SAMPLE_COLUMNS: dict[str, Parser] = {
    "structure_id": identifier,
    "slab_num": _whole_number,
    "well_id": identifier,
    "slab_type": plain_text,
    "structure_acronym": plain_text,
    "structure_name": plain_text,
    "polygon_id": _whole_number,
    "mri_voxel_x": _whole_number,
    "mri_voxel_y": _whole_number,
    "mri_voxel_z": _whole_number,
    "mni_x": finite_number,
    "mni_y": finite_number,
    "mni_z": finite_number,
}
ONTOLOGY_COLUMNS: dict[str, Parser] = {
    "id": identifier,
    "acronym": plain_text,
    "name": plain_text,
    "parent_structure_id": _optional_whole_number,
    "hemisphere": _hemisphere,
    "graph_order": _whole_number,
    "structure_id_path": plain_text,
    "color_hex_triplet": plain_text,
}


@dataclass(frozen=True)
class Table:
    """A parsed published table.

    Attributes
    ----------
    frame : pandas.DataFrame
        One row a line of the file, in the file's order.
    lines : numpy.ndarray of int
        The line of the file that each row comes from.
    size : int
        Bytes of the file.
    sha256 : str
        Of the file's bytes.
    """

    frame: pd.DataFrame
    lines: np.ndarray
    size: int
    sha256: str


def read_probes(file: SourceFile) -> Table:
    """Read Probes.csv and put the re-annotation beside it.

    Returns
    -------
    Table
        The published columns (``entrez_id`` and ``gene_id`` -1 where empty), then
        ``reannotated_gene_symbol`` ("" where the re-annotation drops the probe),
        ``reannotated_entrez_id`` (-1 likewise) and ``published_row``.

    Raises
    ------
    InputError
        With every wrong cell, repeated probe id and repeated probe name.

    References
    ----------
    Arnatkeviciute et al. 2019, NeuroImage 189:353, table of re-annotated probes.
    """
    problems = Problems(str(file))
    table = read_columns(file, PROBE_COLUMNS, problems)
    note_repeated(problems, table, ("probe_id", "probe_name"))
    problems.raise_if_any()
    frame = table.frame
    new = reannotation().set_index("probe_name").reindex(frame["probe_name"])
    frame["reannotated_gene_symbol"] = new["gene_symbol"].fillna("").to_numpy(object)
    frame["reannotated_entrez_id"] = new["entrez_id"].fillna(NO_NUMBER).to_numpy(np.int64)
    frame["published_row"] = np.arange(len(frame))
    return table


def read_ontology(file: SourceFile) -> Table:
    """Read Ontology.csv.

    Returns
    -------
    Table
        The published columns with ``id`` renamed ``structure_id``, hemisphere "B" where the file
        has none, and ``structure``: the class of `STRUCTURE_CLASSES`, "" where there is none.
    """
    problems = Problems(str(file))
    table = read_columns(file, ONTOLOGY_COLUMNS, problems)
    note_repeated(problems, table, ("id",))
    problems.raise_if_any()
    frame = table.frame.rename(columns={"id": "structure_id"})
    frame["structure"] = [structure_class(path) for path in frame["structure_id_path"]]
    return replace(table, frame=frame)


def structure_class(structure_id_path: str) -> str:
    """Class of a structure from its path of ids, e.g. ``/4005/4006/4007/4008/``.

    Returns
    -------
    str
        A value of `STRUCTURE_CLASSES`, "" if no id of the path has a class.
    """
    ids = (int(part) for part in reversed(structure_id_path.strip("/").split("/")) if part.isdigit())
    return next((STRUCTURE_CLASSES[i] for i in ids if i in STRUCTURE_CLASSES), "")


def read_samples(file: SourceFile, ontology: pd.DataFrame) -> Table:
    """Read SampleAnnot.csv and label every sample.

    Parameters
    ----------
    file : SourceFile
    ontology : pandas.DataFrame
        As `read_ontology` gives it.

    Returns
    -------
    Table
        The published columns (coordinates in mm), then ``corrected_mni_x/y/z`` (mm, NaN for wells
        without corrected coordinates), ``hemisphere`` and ``structure`` of the ontology.

    Raises
    ------
    InputError
        With every wrong cell, repeated well and structure that the ontology lacks.
    """
    problems = Problems(str(file))
    table = read_columns(file, SAMPLE_COLUMNS, problems)
    note_repeated(problems, table, ("well_id",))
    frame = table.frame
    structures = ontology.set_index("structure_id")
    known = frame["structure_id"].isin([*structures.index, NO_NUMBER])
    for row in np.flatnonzero(~known):
        problems.add(
            f"structure {frame['structure_id'].iloc[row]} is not in the ontology",
            line=int(table.lines[row]),
            column="structure_id",
        )
    problems.raise_if_any()
    corrected = corrected_coordinates().reindex(frame["well_id"])
    for name in ("corrected_mni_x", "corrected_mni_y", "corrected_mni_z"):
        frame[name] = corrected[name].to_numpy(np.float64)
    for name in ("hemisphere", "structure"):
        frame[name] = structures.loc[frame["structure_id"], name].to_numpy(object)
    return table


def read_columns(
    file: SourceFile,
    columns: dict[str, Parser],
    problems: Problems,
    dtypes: Mapping[Parser, type] = DTYPES,
) -> Table:
    """Parse what can be parsed; rows and cells that cannot are told to `problems`."""
    data = read_bytes(file)
    rows = list(text_rows(file, data))
    header = rows[0][1] if rows else []
    if header != list(columns):
        problems.add(f"the header is {_shown_header(header)}, expected {','.join(columns)!r}", line=1)
    if len(rows) == 1:
        problems.add("there are no rows below the header; is the file cut off?")
    problems.raise_if_any()
    for line, row in rows[1:]:
        if len(row) != len(columns):
            problems.add(f"{len(row)} fields, expected {len(columns)}", line=line)
    whole = [(line, row) for line, row in rows[1:] if len(row) == len(columns)]
    if not whole:
        problems.raise_if_any()
    lines, cells = zip(*whole, strict=True)
    frame = pd.DataFrame(
        {
            name: pd.Series(_parse_column(problems, lines, name, texts, parser), dtype=dtypes[parser])
            for (name, parser), texts in zip(columns.items(), zip(*cells, strict=True), strict=True)
        }
    )
    return Table(frame, np.asarray(lines), len(data), hashlib.sha256(data).hexdigest())


def _shown_header(names: list[str]) -> str:
    return repr(",".join(names)[:MOST_HEADER_SHOWN])


def read_bytes(file: SourceFile) -> bytes:
    """All of a file, which must be one of the smaller ones."""
    with file.open() as stream:
        data = stream.read(LARGEST_TABLE + 1)
    if not data:
        raise InputError(f"{file}: the file is empty.")
    if len(data) > LARGEST_TABLE:
        raise InputError(f"{file}: larger than {LARGEST_TABLE >> 20} MiB; this is not a published table.")
    if data.startswith(b"PK"):
        raise InputError(f"{file}: line 1: this is a zip, expected the csv file in it; extract it.")
    return data


def _decode(file: SourceFile, data: bytes) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{file}: line {line}: byte {data[error.start]:#04x} is not UTF-8; "
            "the file was saved in another encoding, use the published one."
        ) from None
    if not text.endswith(("\n", "\r")):
        line = text.count("\n") + 1
        raise InputError(
            f"{file}: line {line}: the last line has no end; the file is cut off, extract it again."
        )
    return text


def text_rows(file: SourceFile, data: bytes) -> Iterator[tuple[int, list[str]]]:
    """Lines of a CSV file, each with its number and its fields."""
    reader = csv.reader(io.StringIO(_decode(file, data), newline=""), strict=True)
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise InputError(f"{file}: line {reader.line_num}: {error}; is the file cut off?") from None


def _parse_column(
    problems: Problems, lines: Iterable[int], name: str, texts: Iterable[str], parser: Parser
) -> list[object]:
    values = []
    for line, text in zip(lines, texts, strict=True):
        try:
            values.append(parser(text))
        except ValueError as error:
            problems.add(f"{shown(text)} {error}", line=line, column=name)
            values.append(NO_NUMBER)
    return values


def note_repeated(problems: Problems, table: Table, columns: Iterable[str]) -> None:
    """Tell the values of each column that are there a second time."""
    for name in columns:
        parsed = table.frame[name] != NO_NUMBER  # stands for cells that are no number
        for row in np.flatnonzero(table.frame[name].duplicated() & parsed):
            problems.add(
                f"{shown(str(table.frame[name].iloc[row]))} is there a second time",
                line=int(table.lines[row]),
                column=name,
            )
