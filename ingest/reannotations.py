"""A person's own re-annotation of the probes, from a CSV file."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from ingest.errors import InputError
from ingest.problems import Problems, shown
from ingest.sources import SourceFile
from ingest.tables import identifier, read_bytes, text_rows


def _name(text: str) -> str:
    if not text:
        raise ValueError("is empty, which no name is")
    return text


COLUMNS: dict[str, Callable[[str], object]] = {
    "probe_name": _name,
    "gene_symbol": _name,
    "entrez_id": identifier,
}
NO_ID = ("", "NA")


def read_reannotation(path: str | Path) -> pd.DataFrame:
    """Read a re-annotation table.

    Parameters
    ----------
    path : str or pathlib.Path
        CSV with a header that names ``probe_name``, ``gene_symbol`` and ``entrez_id``, in any order and among
        others. A row without an Entrez id (empty or NA) gives its probe no gene.

    Returns
    -------
    pandas.DataFrame
        The three columns, one row a probe that has a gene, in the file's order; ``entrez_id`` int64.

    Raises
    ------
    InputError
        If the file is missing or damaged, or with every wrong cell and repeated probe and its line.
    """
    file = SourceFile(Path(path))
    if not file.path.is_file():
        raise InputError(f"{file}: there is no such file.")
    problems = Problems(str(file))
    (_, header), *rows = [*text_rows(file, read_bytes(file))] or [(0, [])]
    places = {name: header.index(name) for name in COLUMNS if name in header}
    if absent := [name for name in COLUMNS if name not in places]:
        problems.add(f"the header lacks {', '.join(absent)}; it is {','.join(header)!r}", line=1)
        problems.raise_if_any()
    table = _parse(rows, places, len(header), problems)
    problems.raise_if_any()
    if table.empty:
        raise InputError(f"{file}: no row gives a probe a gene.")
    return table


def _parse(
    rows: list[tuple[int, list[str]]], places: dict[str, int], width: int, problems: Problems
) -> pd.DataFrame:
    values: dict[str, list[object]] = {name: [] for name in COLUMNS}
    seen: set[str] = set()
    for line, row in rows:
        if len(row) != width:
            problems.add(f"{len(row)} fields, expected {width}", line=line)
            continue
        cells = {name: row[place] for name, place in places.items()}
        if cells["probe_name"] in seen:
            problems.add(
                f"{shown(cells['probe_name'])} is there a second time", line=line, column="probe_name"
            )
        seen.add(cells["probe_name"])
        if cells["entrez_id"] in NO_ID:
            continue
        for name, parser in COLUMNS.items():
            try:
                values[name].append(parser(cells[name]))
            except ValueError as error:
                problems.add(f"{shown(cells[name])} {error}", line=line, column=name)
    return pd.DataFrame(values).astype({"entrez_id": "int64"}) if not problems.found else pd.DataFrame()
