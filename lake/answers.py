"""Answers as files or on the standard output: CSV, TSV, Parquet, Feather and JSON, with their provenance."""

import json
import math
import shutil
import sys
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

from lake.errors import RequestError
from lake.export import TEXT, WRITERS
from lake.tables import written_aside

Writer = Callable[[pd.DataFrame, Path, Mapping[str, Any]], None]


def _write_json(table: pd.DataFrame, path: Path, _provenance: Mapping[str, Any]) -> None:
    path.write_text(as_json(table), encoding="utf-8")


FORMATS: dict[str, Writer] = {
    **{suffix.removeprefix("."): writer for suffix, writer in WRITERS.items()},
    "json": _write_json,
}
"""Name of a format, which is the suffix of its files -> what writes it."""
TEXTS = (*(suffix.removeprefix(".") for suffix in TEXT), "json")


def format_of(path: str | Path, asked: str | None = None) -> str:
    """The format to write a file in: the one asked for, or that of the suffix.

    Parameters
    ----------
    path : str or pathlib.Path
    asked : str, optional
        One of `FORMATS`.

    Raises
    ------
    RequestError
        If neither says one, or the two differ.
    """
    suffix = Path(path).suffix.removeprefix(".")
    said = suffix if suffix in FORMATS else None
    if asked is None and said is None:
        suffixes = ", ".join(f".{name}" for name in FORMATS)
        raise RequestError(f"{path}: the suffix says no format; use one of {suffixes}.")
    if asked and said and asked != said:
        raise RequestError(f"{path}: the suffix says {said}, and --format {asked}: leave one of them out.")
    return str(asked or said)


def write_answer(table: pd.DataFrame, path: str | Path, form: str | None = None) -> None:
    """Write a table, whole or not at all; ``attrs`` are its provenance.

    Parquet and Feather carry it inside; text files get ``X.csv.provenance.json`` beside them.

    Parameters
    ----------
    table : pandas.DataFrame
    path : str or pathlib.Path
    form : str, optional
        One of `FORMATS`; otherwise the suffix says it.

    Raises
    ------
    RequestError
        If there is no such format.
    """
    target, name = Path(path), format_of(path, form)
    with written_aside(target) as aside:
        FORMATS[name](table, aside, table.attrs)
        if name in TEXTS and table.attrs:  # before the answer, which is not there without it
            with written_aside(target.with_name(f"{target.name}.provenance.json")) as beside:
                beside.write_text(json.dumps(table.attrs, indent=2, sort_keys=True) + "\n")


def print_answer(table: pd.DataFrame, form: str) -> None:
    """Write a table to the standard output: the bytes that a file would have, once all of them are made.

    Raises
    ------
    RequestError
        If the format is for programs, and a person looks at the output.
    """
    if form not in TEXTS and sys.stdout.isatty():
        raise RequestError(f"{form} is not to be read on a terminal: add --output FILE, or pipe it on.")
    with TemporaryDirectory() as folder:
        path = Path(folder) / "answer"
        FORMATS[form](table, path, table.attrs)
        if form in TEXTS:
            with path.open(encoding="utf-8", newline="") as stream:
                shutil.copyfileobj(stream, sys.stdout)
        else:
            sys.stdout.buffer.write(path.read_bytes())


def as_json(table: pd.DataFrame) -> str:
    """One object a row, numbers to the last bit; null for what is missing or infinite.

    Raises
    ------
    RequestError
        If a cell is of a kind that JSON has no form for.
    """
    # pandas rounds to 15 digits at most; Python's own writer does not.
    rows = [dict(zip(table, row, strict=True)) for row in table.itertuples(index=False, name=None)]
    return json.dumps(_plain(rows), indent=1, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    """A cell, or cells in each other as SQL makes them, as what JSON knows."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return None if pd.isna(value) else str(value)
