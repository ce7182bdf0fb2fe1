"""Answers as files: CSV, TSV, Parquet, Feather and JSON, with their provenance."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pandas as pd

from lake.errors import RequestError
from lake.export import TEXT, WRITERS
from lake.tables import written_aside

JSON = ".json"
SUFFIXES = (*WRITERS, JSON)


def check_answer_path(path: str | Path) -> None:
    """Refuse a file name whose suffix names no format.

    Raises
    ------
    RequestError
    """
    if Path(path).suffix not in SUFFIXES:
        raise RequestError(f"{path}: the suffix says no format; use one of {', '.join(SUFFIXES)}.")


def write_answer(table: pd.DataFrame, path: str | Path) -> None:
    """Write a table in the format that the suffix names; ``attrs`` are its provenance.

    Parquet and Feather carry it inside; text files get ``X.provenance.json`` beside them.

    Parameters
    ----------
    table : pandas.DataFrame
    path : str or pathlib.Path
        With one of the suffixes of `SUFFIXES`.

    Raises
    ------
    RequestError
        If the suffix is another.
    """
    target = Path(path)
    check_answer_path(target)
    with written_aside(target) as aside:
        if target.suffix == JSON:
            aside.write_text(as_json(table))
        else:
            WRITERS[target.suffix](table, aside, table.attrs)
    if target.suffix in (*TEXT, JSON) and table.attrs:
        with written_aside(target.with_suffix(".provenance.json")) as aside:
            aside.write_text(json.dumps(table.attrs, indent=2, sort_keys=True) + "\n")


def as_json(table: pd.DataFrame) -> str:
    """One object a row, numbers to the last bit."""
    # pandas rounds to 15 digits at most; Python's own writer does not.
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    return json.dumps(rows, indent=1) + "\n"


def _csv(separator: str) -> Callable[[pd.DataFrame, IO[str]], None]:
    return lambda table, stream: table.to_csv(stream, sep=separator, index=False)


def _json(table: pd.DataFrame, stream: IO[str]) -> None:
    stream.write(as_json(table))


PRINTERS: dict[str, Callable[[pd.DataFrame, IO[str]], None]] = {
    "csv": _csv(","),
    "tsv": _csv("\t"),
    "json": _json,
}
"""Formats that a terminal or a pipe takes -> what writes them."""
