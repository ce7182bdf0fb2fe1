"""What tests of ingestion read from files and stores."""

from pathlib import Path
from typing import Any

import numpy as np

import lake
from lake.ingestion import Ingested
from tests.helpers import read_matrix, read_rows


def statuses(done: list[Ingested]) -> dict[str, str]:
    return {one.donor: one.status for one in done}


def expression_of(store: lake.Lake, donor: str) -> dict[int, dict[int, float]]:
    """probe id -> well id -> value."""
    return values_of(store, donor, "expression")


def values_of(store: lake.Lake, donor: str, name: str) -> dict[int, Any]:
    columns = np.flatnonzero(store.samples["donor"] == donor)
    data = store.microarray()[name].isel(sample=columns)
    values, wells = data.to_numpy(), data["well_id"].values.tolist()
    return {
        probe: dict(zip(wells, row, strict=True))
        for probe, row in zip(data["probe_id"].values.tolist(), values.tolist(), strict=True)
    }


def published_values(folder: Path, name: str) -> dict[int, dict[int, float]]:
    wells = [int(row["well_id"]) for row in read_rows(folder / "SampleAnnot.csv")]
    return {probe: dict(zip(wells, row, strict=True)) for probe, row in read_matrix(folder / name).items()}
