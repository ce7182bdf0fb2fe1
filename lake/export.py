"""One unit as files for other tools: regions x genes, counts and donors, as abagen's command writes them."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq

from lake.errors import RequestError
from lake.tables import PROVENANCE, written_aside
from transforms.regions import RegionTables

Writer = Callable[[pd.DataFrame, Path, Mapping[str, Any]], None]


def export(
    path: Path, tables: RegionTables, provenance: Mapping[str, Any], *, counts: bool, donors: bool
) -> list[Path]:
    """Write ``X.csv``, and beside it ``X_counts.csv`` and ``X_<donor>.csv`` where asked for.

    The first column is ``label``, the region's id. Text files get a ``X.json`` with their
    provenance beside them; Parquet and Feather carry it inside.

    Parameters
    ----------
    path : pathlib.Path
        With one of the suffixes of `WRITERS`.
    tables : RegionTables
    provenance : mapping
    counts, donors : bool
        Whether to write those files too.

    Returns
    -------
    list of pathlib.Path
        What was written.

    Raises
    ------
    RequestError
        If the suffix is another, or donors' tables are asked for that do not exist.
    """
    check_suffix(path)
    if donors and not tables.donor_expression:
        raise RequestError(
            "Donors' tables do not exist with region_agg=samples: all samples are averaged at once."
        )
    frames = {path: tables.expression}
    if counts:
        frames[path.with_stem(f"{path.stem}_counts")] = tables.counts
    if donors:
        frames |= {path.with_stem(f"{path.stem}_{donor}"): t for donor, t in tables.donor_expression.items()}
    for target, frame in frames.items():
        with written_aside(target) as aside:
            WRITERS[path.suffix](frame.reset_index(), aside, provenance)
    if path.suffix in TEXT:
        with written_aside(path.with_suffix(".json")) as aside:
            aside.write_text(json.dumps(provenance, indent=2, sort_keys=True) + "\n")
    return list(frames)


def check_suffix(path: Path) -> None:
    """Refuse a file name whose suffix names no format.

    Raises
    ------
    RequestError
    """
    if path.suffix not in WRITERS:
        raise RequestError(f"{path}: the suffix says no format; use one of {', '.join(WRITERS)}.")


def _separated(separator: str) -> Writer:
    def write(frame: pd.DataFrame, path: Path, _provenance: Mapping[str, Any]) -> None:
        frame.to_csv(path, sep=separator, index=False)

    return write


def _arrow(frame: pd.DataFrame, provenance: Mapping[str, Any]) -> pa.Table:
    table = pa.Table.from_pandas(frame, preserve_index=False)
    return table.replace_schema_metadata({PROVENANCE: json.dumps(provenance, sort_keys=True).encode()})


def _write_parquet(frame: pd.DataFrame, path: Path, provenance: Mapping[str, Any]) -> None:
    pq.write_table(_arrow(frame, provenance), path, compression="zstd", compression_level=1)


def _write_feather(frame: pd.DataFrame, path: Path, provenance: Mapping[str, Any]) -> None:
    feather.write_feather(_arrow(frame, provenance), path)


TEXT = (".csv", ".tsv")
WRITERS: dict[str, Writer] = {
    ".csv": _separated(","),
    ".tsv": _separated("\t"),
    ".parquet": _write_parquet,
    ".feather": _write_feather,
}
