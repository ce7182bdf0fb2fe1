"""A donor's small tables, those that donors share, and what must agree between donors of one store."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import zarr

from ingest.errors import InputError
from ingest.reference import donors as published_donors
from ingest.simulate import is_simulated
from ingest.sources import DonorFiles, SourceFile
from ingest.tables import read_ontology, read_probes, read_samples
from lake.arrays import write_table
from lake.layout import DONORS, ONTOLOGY, PROBES, Variable
from lake.manifest import WORK_IN_PROGRESS, Manifest, metadata_digest
from lake.store import Lake

COMMON_TABLES = {"probes": PROBES, "ontology": ONTOLOGY, "donors": DONORS}


@dataclass(frozen=True)
class DonorTables:
    """A donor's small tables; the probes are in store order."""

    files: DonorFiles
    probes: pd.DataFrame
    ontology: pd.DataFrame
    samples: pd.DataFrame
    sources: dict[str, dict[str, Any]]


def read_tables(store: Path, manifest: Manifest | None, files: DonorFiles) -> DonorTables:
    """Read a donor's tables.

    Raises
    ------
    InputError
        If one of them is wrong.
    """
    ontology = read_ontology(files["Ontology.csv"])
    samples = read_samples(files["SampleAnnot.csv"], ontology.frame)
    probes, probes_source = _read_probes(store, manifest, files["Probes.csv"])
    sources = {
        "Ontology.csv": {"size": ontology.size, "sha256": ontology.sha256},
        "Probes.csv": probes_source,
        "SampleAnnot.csv": {"size": samples.size, "sha256": samples.sha256},
    }
    return DonorTables(files, probes, ontology.frame, samples.frame, sources)


def _read_probes(
    store: Path, manifest: Manifest | None, file: SourceFile
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Probes in store order; a file that another donor came with is not parsed a second time."""
    source = {"size": file.size, "sha256": file.sha256()}
    if manifest and any(entry.sources["Probes.csv"] == source for entry in manifest.donors.values()):
        return Lake(store).probes, source
    return sort_by_gene(read_probes(file).frame), source


def sort_by_gene(probes: pd.DataFrame) -> pd.DataFrame:
    """Probes in store order: by gene symbol (re-annotated where there is one), then probe id."""
    gene = probes["reannotated_gene_symbol"].where(
        probes["reannotated_gene_symbol"] != "", probes["gene_symbol"]
    )
    order = np.lexsort([probes["probe_id"].to_numpy(), gene.to_numpy(str)])
    return probes.iloc[order].reset_index(drop=True)


def start_store(store: Path, tables: DonorTables) -> Manifest:
    """Put the tables that donors share into a new store; nothing names them before the first donor is in."""
    aside = zarr.create_group(store / WORK_IN_PROGRESS / "common", zarr_format=3)
    frames = {
        "probes": tables.probes,
        "ontology": tables.ontology,
        "donors": published_donors().reset_index().astype({"age": str}),
    }
    for name, variables in COMMON_TABLES.items():
        write_table(aside.create_group(name), variables, frames[name])
        (store / WORK_IN_PROGRESS / "common" / name).rename(store / name)
    zarr.create_group(store / "microarray", zarr_format=3, overwrite=True)
    digest = metadata_digest(store, common_metadata(store))
    return Manifest(n_probes=len(tables.probes), simulated=is_simulated(tables.probes), metadata=digest)


def common_metadata(store: Path) -> list[Path]:
    """Metadata files of what donors share."""
    tables = [file for name in COMMON_TABLES for file in (store / name).rglob("zarr.json")]
    return [store / "microarray" / "zarr.json", *tables]


def refuse_differences(store: Path, tables: DonorTables) -> None:
    """See that the tables which donors share are the store's, and that no well is another donor's.

    Raises
    ------
    InputError
    """
    kept = Lake(store)
    _refuse_shared_wells(tables, kept.samples)
    _refuse_difference(tables.files, "Probes.csv", PROBES, tables.probes, kept.probes)
    _refuse_difference(tables.files, "Ontology.csv", ONTOLOGY, tables.ontology, kept.ontology)


def _refuse_shared_wells(tables: DonorTables, kept: pd.DataFrame) -> None:
    others = kept[kept["donor"] != tables.files.donor].set_index("well_id")["donor"]
    shared = tables.samples["well_id"][tables.samples["well_id"].isin(others.index)]
    if len(shared):
        well = shared.iloc[0]
        raise InputError(
            f"{tables.files['SampleAnnot.csv']}: well {well} is donor {others[well]}'s in the store "
            f"({len(shared)} such wells); wells are unique over donors: is this another donor's file?"
        )


def _refuse_difference(
    files: DonorFiles, name: str, variables: tuple[Variable, ...], new: pd.DataFrame, kept: pd.DataFrame
) -> None:
    if len(new) != len(kept):
        raise InputError(
            f"{files[name]}: {len(new)} rows, the store's donors have {len(kept)}; "
            "donors of one store share this table."
        )
    key = variables[0].name
    for variable in variables:
        ours, theirs = new[variable.name].to_numpy(), kept[variable.name].to_numpy()
        rows = np.flatnonzero(ours != theirs)
        if len(rows):
            raise InputError(
                f"{files[name]}: column {variable.name!r}, {key} {new[key].iloc[rows[0]]}: "
                f"{ours[rows[0]]!r}, but the store's donors have {theirs[rows[0]]!r} "
                f"({len(rows)} such rows); donors of one store share this table."
            )
