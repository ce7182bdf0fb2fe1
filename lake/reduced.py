"""What reductions gave: rows of numbers beside the tables, and reading them back.

A multiverse has hundreds of thousands of units with a few numbers each, so they share files. Rows are written
every few hundred units, whole or not at all, and at the end of a run all of them are brought together in one
file, sorted: the same units give the same bytes in whichever pieces they were made. A file is named by its
digest, so that a damaged one is known, and its units are made again.
"""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lake.errors import RequestError
from lake.reductions import Reduction
from lake.tables import PROVENANCE, written_aside

FOLDER = "reductions"
UNITS_A_FILE = 500
PIECE, WHOLE = "rows", "part"  # what files' names begin with
KEY = ["pipeline", "atlas", "reduction"]
COLUMNS = [*KEY, "name", "value", "fingerprint", "identity", "choices"]

ORIGIN = ("snapshot", "simulated", "citation", "licence", "software")

Name = tuple[str, str]


class ReducedTables:
    """The numbers of a run's units, on their way to disk; a context manager.

    Parameters
    ----------
    out : pathlib.Path
        The tables' directory.
    reductions : sequence of Reduction
    """

    def __init__(self, out: Path, reductions: Sequence[Reduction]) -> None:
        self._folder, self._reductions = out / FOLDER, reductions
        self._rows: list[dict[str, Any]] = []
        self._units = 0
        self._origin: dict[str, Any] = {}
        self._done = _done(self._folder) if reductions else {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            with suppress(OSError):  # a full disk, perhaps, which has been told of
                self._write()
        elif self._reductions:
            self._write()
            _bring_together(self._folder)

    def has(self, unit: Name, fingerprint: str) -> bool:
        """Whether every number of a unit, (pipeline, atlas), is there.

        Raises
        ------
        RequestError
            If they are those of another atlas of the same name.
        """
        for reduction in self._reductions:
            known = self._done.get((*unit, reduction.identity))
            if known is None:
                return False
            if known != fingerprint:
                raise RequestError(
                    f"{self._folder} holds numbers of another atlas named {unit[1]!r}; "
                    "give this one another name (NAME=FILE) or write to another directory."
                )
        return True

    def add(self, unit: Name, table: pd.DataFrame, regions: pd.DataFrame, origin: Mapping[str, Any]) -> None:
        """Reduce a unit's region x gene table and keep what comes out.

        Raises
        ------
        ChoiceError, RequestError
            If a reduction does not fit the table, or gives something else than numbers.
        """
        rows = [
            {"pipeline": unit[0], "atlas": unit[1], "reduction": reduction.name, "name": name, "value": value}
            | {"fingerprint": origin["atlas"]["fingerprint"], "identity": reduction.identity}
            | {"choices": json.dumps(origin["parameters"], sort_keys=True)}
            for reduction in self._reductions
            for name, value in _numbers(reduction(table, regions)).items()
        ]
        if not rows:
            return
        self._rows += rows
        self._units += 1
        self._origin = {name: origin[name] for name in ORIGIN if name in origin}
        if self._units >= UNITS_A_FILE:
            self._write()

    def _write(self) -> None:
        if self._rows:
            _write(self._folder, PIECE, pd.DataFrame(self._rows), self._origin)
        self._rows, self._units = [], 0


def _numbers(result: dict[str, float] | pd.DataFrame) -> dict[str, float]:
    """A small table's numbers are named ``row.column``."""
    if isinstance(result, dict):
        return result
    return {
        f"{row}.{column}": float(result.loc[row, column]) for row in result.index for column in result.columns
    }


def _write(folder: Path, kind: str, frame: pd.DataFrame, origin: Mapping[str, Any]) -> Path:
    table = pa.Table.from_pandas(frame[COLUMNS], preserve_index=False)
    table = table.replace_schema_metadata({PROVENANCE: json.dumps(origin, sort_keys=True).encode()})
    content = io.BytesIO()
    pq.write_table(table, content, compression="zstd")
    path = folder / f"{kind}-{_digest(content.getvalue())}.parquet"
    with written_aside(path) as aside:
        aside.write_bytes(content.getvalue())
    return path


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _files(folder: Path) -> list[Path]:
    """Pieces and what is brought together, the undamaged ones."""
    return [path for path in sorted(folder.glob("*.parquet")) if not _is_damaged(path)]


def _is_damaged(path: Path) -> bool:
    return path.stem.partition("-")[2] != _digest(path.read_bytes())


def _rows(files: Sequence[Path]) -> pd.DataFrame:
    frames = [pq.ParquetFile(path).read().to_pandas() for path in files]
    if not frames:
        return pd.DataFrame({name: pd.Series(dtype=object) for name in COLUMNS})
    joined = pd.concat(frames, ignore_index=True)
    return joined.drop_duplicates(["pipeline", "atlas", "identity", "name"], ignore_index=True)


def _done(folder: Path) -> dict[tuple[str, str, str], str]:
    """(pipeline, atlas, identity of the reduction) -> fingerprint of the atlas."""
    rows = _rows(_files(folder))
    return {
        (row.pipeline, row.atlas, row.identity): row.fingerprint
        for row in rows[["pipeline", "atlas", "identity", "fingerprint"]].drop_duplicates().itertuples()
    }


def _bring_together(folder: Path) -> None:
    files, there = _files(folder), list(folder.glob("*.parquet"))
    if not files or (len(there) == 1 and there[0].name.startswith(WHOLE)):
        return
    origin = json.loads((pq.read_schema(files[-1]).metadata or {}).get(PROVENANCE, b"{}"))
    rows = _rows(files).sort_values([*KEY, "name", "identity"], ignore_index=True)
    whole = _write(folder, WHOLE, rows, origin)
    for path in there:
        if path != whole:
            path.unlink(missing_ok=True)


def read_reductions(tables: str | Path) -> pd.DataFrame:
    """Read what the reductions of a run gave.

    Parameters
    ----------
    tables : str or pathlib.Path
        The run's output directory.

    Returns
    -------
    pandas.DataFrame
        One row a pipeline and atlas (these are the index): every number under its name, and before them the
        choices in which the pipelines differ. Where different reductions have numbers of one name, such as a
        function before and after a change, that is followed by ``-`` and the reduction's identity.

    Raises
    ------
    RequestError
        If there are none, or a file is damaged.
    """
    folder = Path(tables) / FOLDER
    if damaged := [path for path in sorted(folder.glob("*.parquet")) if _is_damaged(path)]:
        raise RequestError(f"{damaged[0]} is damaged: the same run again makes its numbers once more.")
    rows = _rows(_files(folder))
    if rows.empty:
        raise RequestError(f"{tables}: no reductions are there; `lake.run(.., reduce=..)` makes them.")
    rows["name"] = _told_apart(rows)
    wide = rows.set_index([*KEY[:2], "name"])["value"].unstack("name")  # noqa: PD010 - means hide what is double
    wide.columns.name = None
    choices = rows.drop_duplicates(KEY[:2]).set_index(KEY[:2])["choices"]
    frame = pd.DataFrame([json.loads(text) for text in choices], index=choices.index)
    differing = [name for name in frame if len(set(frame[name].map(json.dumps))) > 1]
    joined: pd.DataFrame = frame.loc[wide.index, differing].join(wide)
    return joined


def _told_apart(rows: pd.DataFrame) -> pd.Series:
    """Each number's name, with its reduction's identity where several have it."""
    several = rows.groupby("name")["identity"].transform("nunique") > 1
    names: pd.Series = rows["name"].where(~several, rows["name"] + "-" + rows["identity"])
    return names
