"""Answers as files: every format has the same content, and nothing is left half-written."""

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lake.answers
from lake.answers import FORMATS, TEXTS, as_json, format_of, print_answer, write_answer
from lake.errors import RequestError
from tests.helpers import command_line, tree


def read_text(path: Path, separator: str) -> list[list[Any]]:
    """Cells of text, x, n by Python's own csv, float and int."""
    with path.open(newline="") as stream:
        _, *rows = csv.reader(stream, delimiter=separator)
    return [[text, float(x) if x else None, int(n)] for text, x, n in rows]


READERS: dict[str, Callable[[Path], list[list[Any]]]] = {
    "csv": lambda path: read_text(path, ","),
    "tsv": lambda path: read_text(path, "\t"),
    "parquet": lambda path: said(pd.read_parquet(path)),
    "feather": lambda path: said(pd.read_feather(path)),
    "json": lambda path: [list(row.values()) for row in json.loads(path.read_text())],
}


@pytest.fixture
def table() -> pd.DataFrame:
    frame = pd.DataFrame({"donor": ["9861", "a,b"], "x": [0.1 + 0.2, np.nan], "n": [1, 2**60]})
    frame.attrs = {"question": "which", "snapshot": "abc"}
    return frame


def said(table: pd.DataFrame) -> list[list[Any]]:
    """The cells, NaN as None and numbers as they are."""
    return [[None if pd.isna(v) else v for v in row] for row in table.itertuples(index=False, name=None)]


ROWS = st.tuples(
    st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), min_size=1),
    st.floats(allow_infinity=False),
    st.integers(-(2**62), 2**62),
)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(ROWS, min_size=1, max_size=5))
def test_every_format_is_read_back_to_the_last_bit(rows: list[Any], tmp_path: Path) -> None:
    frame = pd.DataFrame(rows, columns=["text", "x", "n"])
    for form in FORMATS:
        path = tmp_path / f"answer.{form}"
        write_answer(frame, path)
        assert READERS[form](path) == said(frame), form


@pytest.mark.parametrize("form", FORMATS)
def test_the_output_is_the_file(
    form: str, table: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Output(StringIO):
        buffer = BytesIO()

    output = Output()
    Output.buffer = BytesIO()
    monkeypatch.setattr(sys, "stdout", output)
    print_answer(table, form)
    write_answer(table, tmp_path / "named", form)
    expected = (tmp_path / "named").read_bytes()
    assert (output.getvalue().encode() if form in TEXTS else output.buffer.getvalue()) == expected


def test_provenance_is_beside_texts_and_inside_the_others(table: pd.DataFrame, tmp_path: Path) -> None:
    for form in FORMATS:
        write_answer(table, tmp_path / f"x.{form}")
    beside = {path.name for path in tmp_path.iterdir() if "provenance" in path.name}
    assert beside == {f"x.{form}.provenance.json" for form in TEXTS}
    for name in beside:
        assert json.loads((tmp_path / name).read_text()) == table.attrs
    for metadata in (
        pq.read_schema(tmp_path / "x.parquet").metadata,
        feather.read_table(tmp_path / "x.feather").schema.metadata,
    ):
        assert json.loads(metadata[b"ahba_lake"]) == table.attrs


def test_a_suffix_or_a_format_is_needed_and_they_must_agree() -> None:
    assert format_of("x.csv") == format_of("x", "csv") == format_of("x.txt", "csv") == "csv"
    with pytest.raises(
        RequestError, match=r"x\.CSV: the suffix says no format; use one of \.csv, \.tsv, .*\.json"
    ):
        format_of("x.CSV")
    with pytest.raises(RequestError, match=r"x\.csv: the suffix says csv, and --format json"):
        format_of("x.csv", "json")


@pytest.mark.parametrize("form", FORMATS)
def test_a_failure_leaves_what_was_there(
    form: str, table: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_answer(table, tmp_path / f"old.{form}")
    before = tree(tmp_path)

    def half(_table: pd.DataFrame, path: Path, _provenance: object) -> None:
        path.write_text("half")
        raise OSError("the disk is full")

    monkeypatch.setitem(FORMATS, form, half)
    for name in ("old", "new"):
        with pytest.raises(OSError, match="the disk is full"):
            write_answer(table, tmp_path / f"{name}.{form}")
    output = StringIO()
    monkeypatch.setattr(sys, "stdout", output)
    with pytest.raises(OSError, match="the disk is full"):
        print_answer(table, form)
    assert output.getvalue() == ""
    assert tree(tmp_path) == before


def test_an_answer_is_not_there_without_its_provenance(
    table: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lake.answers.json, "dumps", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_answer(table, tmp_path / "x.csv")
    assert not list(tmp_path.iterdir())


def test_bytes_are_not_for_a_terminal(table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    output = StringIO()
    monkeypatch.setattr(output, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stdout", output)
    with pytest.raises(RequestError, match="add --output FILE, or pipe it on"):
        print_answer(table, "parquet")
    print_answer(table, "csv")
    assert output.getvalue().startswith("donor,x,n\n")


def test_json_of_what_sql_answers() -> None:
    cells = {
        "list": [np.array([1, 2]), None],
        "struct": [{"a": 1, "b": [Decimal("1.50")]}, None],
        "decimal": [Decimal("170141183460469231731687303715884105727"), Decimal("0.25")],
        "date": [pd.Timestamp("2020-01-02"), pd.NaT],
        "float": [np.inf, -0.0],
        "bool": [True, False],
    }
    first, second = json.loads(
        as_json(pd.DataFrame({name: pd.Series(c, dtype=object) for name, c in cells.items()}))
    )
    assert first == {
        "list": [1, 2],
        "struct": {"a": 1, "b": [1.5]},
        "decimal": 170141183460469231731687303715884105727,
        "date": "2020-01-02 00:00:00",
        "float": None,
        "bool": True,
    }
    assert second == {
        "list": None,
        "struct": None,
        "decimal": 0.25,
        "date": None,
        "float": -0.0,
        "bool": False,
    }


@pytest.mark.slow
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_pipe_that_is_closed_is_no_accident(form: str, store_path: Path) -> None:
    words = ("structure", "Br", "--store", store_path, "--all-probes", "--format", form)
    with subprocess.Popen(command_line(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


@pytest.mark.slow
def test_parquet_through_a_pipe(store_path: Path, tmp_path: Path) -> None:
    words = ("near", "0,0,0", "--store", store_path, "--format", "parquet")
    piped = subprocess.run(command_line(*words), capture_output=True, check=True).stdout
    path = tmp_path / "x.parquet"
    subprocess.run(command_line(*words[:-2], "--out", path), capture_output=True, check=True)
    assert path.read_bytes() == piped
    assert len(pd.read_parquet(BytesIO(piped))) == 10
