"""A donor's small tables, those that donors share, and what must agree between donors of one store."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import zarr

from ingest.errors import InputError
from ingest.reference import donors as published_donors
from ingest.simulate import is_simulated
from ingest.sources import DonorFiles, SourceFile
from ingest.tables import Table, read_ontology, read_probes, read_samples
from lake.arrays import write_table
from lake.layout import DONORS, ONTOLOGY, PROBES, Variable
from lake.manifest import WORK_IN_PROGRESS, Manifest, metadata_digest, sync_tree
from lake.store import Lake

COMMON_TABLES = {"probes": PROBES, "ontology": ONTOLOGY, "donors": DONORS}

Source = dict[str, Any]  # {"size": bytes, "sha256": hex}


@dataclass(frozen=True)
class DonorTables:
    """A donor's small tables; the probes are in store order."""

    probes: pd.DataFrame
    ontology: pd.DataFrame
    samples: pd.DataFrame
    sources: dict[str, Source]


class SharedTables:
    """What donors of one store have in common: probes, ontology, and that a well is one donor's.

    Those of the store, or of the first donor that is read; donors that are read are remembered.

    Parameters
    ----------
    kept : Lake or None
        The store, None as long as no donor is in it.
    """

    def __init__(self, kept: Lake | None) -> None:
        self._tables: dict[str, pd.DataFrame] = {}
        self._known: dict[str, list[Source]] = {name: [] for name in SHARED}
        self._owners: dict[int, str] = {}
        if kept is not None:
            self._tables = {"Probes.csv": kept.probes, "Ontology.csv": kept.ontology}
            self._known = {
                name: [entry.sources[name] for entry in kept.manifest.donors.values()] for name in SHARED
            }
            self._owners = dict(zip(kept.samples["well_id"], kept.samples["donor"], strict=True))

    def read(self, files: DonorFiles) -> DonorTables:
        """Read a donor's tables, and see that they go with those of the other donors.

        Raises
        ------
        InputError
            If one of them is wrong, is not what the other donors have, or names a well of another donor.
        """
        ontology, ontology_source = self._shared(files, "Ontology.csv")
        samples = read_samples(files["SampleAnnot.csv"], ontology)
        self._claim_wells(files, samples.frame["well_id"])
        probes, probes_source = self._shared(files, "Probes.csv")
        sources = {
            "Ontology.csv": ontology_source,
            "Probes.csv": probes_source,
            "SampleAnnot.csv": _source_of(samples),
        }
        return DonorTables(probes, ontology, samples.frame, sources)

    def _shared(self, files: DonorFiles, name: str) -> tuple[pd.DataFrame, Source]:
        """A table that donors share; a file that another donor came with is not parsed a second time."""
        file = files[name]
        source: Source = {"size": file.size, "sha256": file.sha256()}
        if source not in self._known[name]:
            read, variables = SHARED[name]
            table = read(file)
            if name in self._tables:
                _refuse_difference(file, variables, table.frame, self._tables[name])
            self._tables.setdefault(name, table.frame)
            source = _source_of(table)
            self._known[name].append(source)
        return self._tables[name], source

    def _claim_wells(self, files: DonorFiles, wells: "pd.Series[int]") -> None:
        others = {well: donor for well, donor in self._owners.items() if donor != files.donor}
        if shared := [well for well in wells if well in others]:
            raise InputError(
                f"{files['SampleAnnot.csv']}: well {shared[0]} is donor {others[shared[0]]}'s in the store "
                f"({len(shared)} such wells); wells are unique over donors: is this another donor's file?"
            )
        self._owners = others | dict.fromkeys(wells, files.donor)


def _source_of(table: Table) -> Source:
    """What the manifest says of a published file."""
    return {"size": table.size, "sha256": table.sha256}


def _read_sorted_probes(file: SourceFile) -> Table:
    """Read Probes.csv, in store order."""
    table = read_probes(file)
    return replace(table, frame=sort_by_gene(table.frame))


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
        sync_tree(store / WORK_IN_PROGRESS / "common" / name)
        (store / WORK_IN_PROGRESS / "common" / name).rename(store / name)
    zarr.create_group(store / "microarray", zarr_format=3, overwrite=True)
    sync_tree(store / "microarray")
    digest = metadata_digest(store, common_metadata(store))
    return Manifest(n_probes=len(tables.probes), simulated=is_simulated(tables.probes), metadata=digest)


def common_metadata(store: Path) -> list[Path]:
    """Metadata files of what donors share."""
    tables = [file for name in COMMON_TABLES for file in (store / name).rglob("zarr.json")]
    return [store / "microarray" / "zarr.json", *tables]


def _refuse_difference(
    file: SourceFile, variables: tuple[Variable, ...], new: pd.DataFrame, kept: pd.DataFrame
) -> None:
    if len(new) != len(kept):
        raise InputError(
            f"{file}: {len(new)} rows, the store's donors have {len(kept)}; "
            "donors of one store share this table."
        )
    key = variables[0].name
    for variable in variables:
        ours, theirs = new[variable.name].to_numpy(), kept[variable.name].to_numpy()
        rows = np.flatnonzero(ours != theirs)
        if len(rows):
            raise InputError(
                f"{file}: column {variable.name!r}, {key} {new[key].iloc[rows[0]]}: "
                f"{ours[rows[0]]!r}, but the store's donors have {theirs[rows[0]]!r} "
                f"({len(rows)} such rows); donors of one store share this table."
            )


SHARED: dict[str, tuple[Callable[[SourceFile], Table], tuple[Variable, ...]]] = {
    "Probes.csv": (_read_sorted_probes, PROBES),
    "Ontology.csv": (read_ontology, ONTOLOGY),
}
