"""Checking a store: every chunk is read, every checksum and invariant looked at."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import zarr
from numpy.typing import NDArray

from lake.arrays import missing_shards, open_matrix, read_table
from lake.donor_tables import COMMON_TABLES, common_metadata
from lake.errors import DamageError, RequestError
from lake.layout import (
    MATRICES,
    RNASEQ_GENES,
    RNASEQ_MATRICES,
    RNASEQ_SAMPLES,
    SAMPLES,
    Variable,
)
from lake.manifest import DonorEntry, metadata_digest
from lake.store import Lake

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Damage:
    """One thing that is wrong with a store.

    Attributes
    ----------
    where : str
        Path inside the store.
    what : str
        What is wrong with it.
    """

    where: str
    what: str


def verify(store: Lake, *, progress: Progress | None = None) -> list[Damage]:
    """Read all of a local store and name what is damaged.

    Parameters
    ----------
    store : Lake
    progress : callable, optional
        Called with (donor, matrices done, matrices in all).

    Returns
    -------
    list of Damage
        Empty if the store is whole.

    Raises
    ------
    RequestError
        If the store is not on a disk of this machine.
    """
    if "://" in store.path:
        raise RequestError(f"{store.path} is not on a disk of this machine: copy it to one to verify it.")
    root = zarr.open_group(store.path, mode="r", zarr_format=3, use_consolidated=False)
    found = [*_check_tables(root, store), *_check_metadata(store)]
    for donor in store.donors:
        entry = store.manifest.donors[donor]
        for done, variable in enumerate(MATRICES, start=1):
            found += _check_matrix(root, Path(store.path), entry, variable, store.manifest.n_probes)
            if progress:
                progress(donor, done, len(MATRICES))
    for sequenced in store.manifest.rnaseq.values():
        for variable in RNASEQ_MATRICES:
            found += _check_matrix(root, Path(store.path), sequenced, variable, sequenced.n_genes)
    return found or list(_check_invariants(store))


def _check_tables(root: zarr.Group, store: Lake) -> Iterator[Damage]:
    tables: list[tuple[str, tuple[Variable, ...]]] = list(COMMON_TABLES.items())
    tables += [(entry.group, SAMPLES) for entry in store.manifest.donors.values()]
    tables += [(entry.group, RNASEQ_GENES + RNASEQ_SAMPLES) for entry in store.manifest.rnaseq.values()]
    for path, variables in tables:
        for variable in variables:
            try:
                group = root[path]
                assert isinstance(group, zarr.Group)  # noqa: S101 - narrows the type
                read_table(group, [variable])
            except Exception as error:  # noqa: BLE001 - whatever a damaged file makes a codec raise
                yield Damage(f"{path}/{variable.name}", _describe(error))


def _check_metadata(store: Lake) -> Iterator[Damage]:
    path, damage = Path(store.path), "its metadata (a zarr.json) are not as they were written"
    if _digest(path, common_metadata(path)) != store.manifest.metadata:
        yield Damage(f"{', '.join(COMMON_TABLES)} or microarray", damage)
    if store.manifest.rnaseq and not (path / "rnaseq" / "zarr.json").is_file():
        yield Damage("rnaseq", damage)
    for entry in (*store.manifest.donors.values(), *store.manifest.rnaseq.values()):
        group = path / entry.group
        if _digest(group, group.rglob("zarr.json")) != entry.metadata:
            yield Damage(entry.group, damage)


def _digest(root: Path, files: Iterable[Path]) -> str:
    try:
        return metadata_digest(root, files)
    except FileNotFoundError:
        return ""


def _check_matrix(
    root: zarr.Group, store: Path, entry: DonorEntry, variable: Variable, n_rows: int
) -> Iterator[Damage]:
    where = f"{entry.group}/{variable.name}"
    try:
        group = root[entry.group]
        assert isinstance(group, zarr.Group)  # noqa: S101 - narrows the type
        array = open_matrix(group, variable.name)
    except Exception as error:  # noqa: BLE001 - as above
        yield Damage(where, _describe(error))
        return
    if array.shape != (n_rows, entry.n_samples):
        yield Damage(where, f"has shape {array.shape}, the manifest says {(n_rows, entry.n_samples)}")
        return
    missing = missing_shards(store / where, array)
    yield from (Damage(f"{where}/{name}", "the file is missing") for name in missing)
    rows = array.shards[0] if array.shards else array.chunks[0]
    for start in range(0, n_rows, rows):
        name = f"c/{start // rows}/0"
        if name not in missing:
            stop = min(start + rows, n_rows)
            yield from _check_shard(array, variable.dims[0], f"{where}/{name}", start, stop)


def _check_shard(
    array: zarr.Array[Any], row_name: str, where: str, start: int, stop: int
) -> Iterator[Damage]:
    try:
        values: NDArray[Any] = array[start:stop]  # type: ignore[assignment]
    except Exception as error:  # noqa: BLE001 - as above
        yield Damage(where, f"{_describe(error)} ({row_name}s {start} to {stop - 1})")
        return
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        row = start + int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
        yield Damage(where, f"holds no number for {row_name} {row}")


def _check_invariants(store: Lake) -> Iterator[Damage]:
    probes, samples, ontology = store.probes, store.samples, store.ontology
    if len(probes) != store.manifest.n_probes or probes["probe_id"].duplicated().any():
        yield Damage("probes", "probe ids are not unique, or not as many as the manifest says")
    if samples["well_id"].duplicated().any():
        repeated = samples.loc[samples["well_id"].duplicated(), "well_id"].tolist()
        yield Damage("microarray", f"wells {repeated[:5]} are there twice")
    if not samples["structure_id"].isin(ontology["structure_id"]).all():
        yield Damage("microarray", "samples have structures that the ontology lacks")
    for donor, n_samples in samples["donor"].value_counts().items():
        if n_samples != store.manifest.donors[donor].n_samples:
            yield Damage(
                store.manifest.donors[donor].group, f"has {n_samples} samples, not as the manifest says"
            )
    for donor in store.rnaseq_donors:
        yield from _check_rnaseq_invariants(store, donor)


def _check_rnaseq_invariants(store: Lake, donor: str) -> Iterator[Damage]:
    group, rnaseq = store.manifest.rnaseq[donor].group, store.rnaseq(donor)
    if pd.Index(rnaseq["gene_symbol"].to_numpy()).has_duplicates:
        yield Damage(group, "gene symbols are not unique")
    if not np.isin(rnaseq["structure_id"].to_numpy(), store.ontology["structure_id"]).all():
        yield Damage(group, "samples have structures that the ontology lacks")
    if any((rnaseq[variable.name] < 0).any().compute().item() for variable in RNASEQ_MATRICES):
        yield Damage(group, "holds negative values")


def _describe(error: Exception) -> str:
    if isinstance(error, DamageError):
        return error.what
    if isinstance(error, KeyError | FileNotFoundError):
        return "is missing"
    return f"does not read ({next(iter(str(error).splitlines()), type(error).__name__)})"
