"""Published files -> store, one transaction a donor.

A donor is written below ``.wip``, read back and compared, renamed into place, and exists from the
moment the manifest names it. Whatever a killed ingest leaves is not named by the manifest, so no
reader sees it, and the next ingest clears it away.
"""

import errno
import itertools
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import filelock
import numpy as np
import pandas as pd
import zarr
from numpy.typing import NDArray

from ingest.errors import InputError
from ingest.matrices import Matrix
from ingest.reference import donors as published_donors
from ingest.rnaseq import Rnaseq, read_rnaseq
from ingest.simulate import is_simulated
from ingest.simulated_rnaseq import is_simulated_rnaseq
from ingest.sources import DonorFiles, SourceFile, donor_order, find_donors, find_rnaseq
from ingest.tables import read_ontology, read_probes, read_samples
from lake.arrays import create_matrix, open_matrix, write_table
from lake.errors import RequestError, StoreError
from lake.layout import (
    DONORS,
    MATRICES,
    ONTOLOGY,
    PROBES,
    RNASEQ_GENES,
    RNASEQ_MATRICES,
    RNASEQ_SAMPLES,
    SAMPLES,
    Variable,
    shard_rows,
)
from lake.manifest import (
    WORK_IN_PROGRESS,
    DonorEntry,
    Manifest,
    RnaseqEntry,
    metadata_digest,
    publish_manifest,
    sync,
)
from lake.store import Lake

LOG = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
Status = Literal["ingested", "replaced", "present"]
What = Literal["microarray", "rnaseq"]

WRITERS = 2
LOCK = ".lock"
COMMON_TABLES = {"probes": PROBES, "ontology": ONTOLOGY, "donors": DONORS}
KINDS: tuple[What, ...] = ("microarray", "rnaseq")
MATRIX_FILES = {"expression": "MicroarrayExpression.csv", "detected": "PACall.csv"}


@dataclass(frozen=True)
class Ingested:
    """What became of one donor's microarray or RNA-seq.

    Attributes
    ----------
    donor : str
    status : {"ingested", "replaced", "present"}
    n_samples : int
    n_uncorrected : int
        Newly written microarray samples without corrected MNI coordinates.
    what : {"microarray", "rnaseq"}
    n_unmatched : int
        Newly written RNA-seq samples whose well the donor's microarray lacks.
    """

    donor: str
    status: Status
    n_samples: int
    n_uncorrected: int
    what: What = "microarray"
    n_unmatched: int = 0


def ingest_directory(
    source: str | Path,
    store: str | Path,
    *,
    donors: str | Sequence[str] = "all",
    what: Sequence[str] = KINDS,
    replace: bool = False,
    progress: Progress | None = None,
) -> list[Ingested]:
    """Bring the donors found below `source` into `store`, each in a transaction of its own.

    Parameters
    ----------
    source : str or pathlib.Path
        What ``ahba fetch`` or ``ahba simulate`` left, abagen's data directory, or zips.
    store : str or pathlib.Path
        A local directory; made if it is not there.
    donors : "all" or sequence of str
        Donor numbers or uids.
    what : sequence of {"microarray", "rnaseq"}
        What to take of what is there. A donor's RNA-seq needs the donor's microarray in the store, or in
        `source`.
    replace : bool
        Whether a donor whose published files changed is written anew; otherwise it is refused.
    progress : callable, optional
        Called with (donor, bytes done, bytes in all).

    Returns
    -------
    list of Ingested
        First every donor's microarray, then RNA-seq.

    Raises
    ------
    InputError
        If a file is wrong; the donors before it are in, the store is otherwise as it was.
    RequestError
        If a donor is not in `source`, its files changed and `replace` is False, or there is RNA-seq of a
        donor without microarray.
    StoreError
        If another ingest is at work on the store.
    """
    microarray, rnaseq = _found(Path(source), what, donors)
    path = Path(store)
    if "://" in str(store):
        raise RequestError(
            f"{store}: stores are written to local or shared disks; copy the finished one there."
        )
    path.mkdir(parents=True, exist_ok=True)
    with _only_writer(path):
        _sweep(path)
        try:
            done = [_ingest_donor(path, files, replace, progress or _silent) for files in microarray]
            return done + [_ingest_rnaseq(path, files, replace, progress or _silent) for files in rnaseq]
        finally:
            shutil.rmtree(path / WORK_IN_PROGRESS, ignore_errors=True)


def _silent(_label: str, _done: int, _total: int) -> None:
    pass


def _found(
    source: Path, what: Sequence[str], donors: str | Sequence[str]
) -> tuple[list[DonorFiles], list[DonorFiles]]:
    """The chosen donors' microarray files, and their RNA-seq files."""
    if unknown := [kind for kind in what if kind not in KINDS]:
        raise RequestError(f"what: {', '.join(unknown)} is unknown; choose of {', '.join(KINDS)}.")
    rnaseq = find_rnaseq(source, required="microarray" not in what) if "rnaseq" in what else {}
    microarray = find_donors(source, required=not rnaseq) if "microarray" in what else {}
    numbers = _chosen(sorted({**microarray, **rnaseq}, key=donor_order), donors)
    return (
        [microarray[donor] for donor in numbers if donor in microarray],
        [rnaseq[donor] for donor in numbers if donor in rnaseq],
    )


def _chosen(found: list[str], donors: str | Sequence[str]) -> list[str]:
    if donors == "all":
        return found
    uids = dict(zip(published_donors()["uid"], published_donors().index, strict=True))
    asked = [donors] if isinstance(donors, str) else donors
    numbers = {str(uids.get(d, d)) for d in asked}
    if unknown := sorted(numbers - set(found)):
        raise RequestError(f"Donor {', '.join(unknown)} is not in the source; it has {', '.join(found)}.")
    return [donor for donor in found if donor in numbers]


@contextmanager
def _only_writer(store: Path) -> Iterator[None]:
    """Hold the store's lock; the system frees it when the process ends, however it ends."""
    if not _is_ours(store):
        raise StoreError(f"{store}: the directory is not empty and no ahba-lake store; name a new one.")
    lock = filelock.FileLock(store / LOCK)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise StoreError(f"{store}: another ingest is at work on this store; wait for it to end.") from None
    try:
        yield
    finally:
        lock.release()


def _is_ours(store: Path) -> bool:
    """Whether the directory is empty, a store, or what a first ingest left that did not end."""
    if (store / LOCK).exists() or not any(store.iterdir()):
        return True
    try:
        Lake(store)
    except StoreError:
        return False
    return True


def _sweep(store: Path) -> None:
    """Clear away what no manifest names: the leftovers of killed ingests and replaced donors."""
    manifest = _manifest(store)
    entries = [*manifest.donors.values(), *manifest.rnaseq.values()] if manifest else []
    groups = {entry.group for entry in entries}
    leftovers = [store / WORK_IN_PROGRESS]
    leftovers += [] if manifest else [store / name for name in COMMON_TABLES]
    leftovers += [] if manifest and manifest.rnaseq else [store / "rnaseq"]
    leftovers += [
        path for kind in KINDS for path in (store / kind).glob("*/") if f"{kind}/{path.name}" not in groups
    ]
    for leftover in leftovers:
        if leftover.exists():
            LOG.info("clearing away %s, left by an ingest that did not end", leftover)
            shutil.rmtree(leftover)


def _manifest(store: Path) -> Manifest | None:
    return Lake(store).manifest if (store / "zarr.json").exists() else None


def _ingest_donor(store: Path, files: DonorFiles, replace: bool, progress: Progress) -> Ingested:
    manifest = _manifest(store)
    before = manifest.donors.get(files.donor) if manifest else None
    if before and _unchanged(files, before):
        return Ingested(files.donor, "present", before.n_samples, 0)
    if before and not replace:
        raise _changed(files, "published files")
    tables = _read_tables(store, manifest, files)
    if manifest is None:
        manifest = _start_store(store, tables)
    else:
        _refuse_differences(store, tables)
    staged, sources = _write_aside(store, tables, progress)
    digest = metadata_digest(staged, staged.rglob("zarr.json"))
    group = _free_name(store, f"microarray/{files.donor}")
    staged.rename(store / group)
    sync(store / "microarray")
    entry = DonorEntry(group, len(tables.samples), sources, digest)
    publish_manifest(store, manifest.with_donor(files.donor, entry))
    n_uncorrected = int(tables.samples["corrected_mni_x"].isna().sum())
    return Ingested(files.donor, "replaced" if before else "ingested", entry.n_samples, n_uncorrected)


def _changed(files: DonorFiles, what: str) -> RequestError:
    return RequestError(
        f"Donor {files.donor}: the {what} differ from those in the store; "
        "pass --replace to take the new ones, or check which are right."
    )


def _unchanged(files: DonorFiles, entry: DonorEntry) -> bool:
    sizes = all(files[name].size == source["size"] for name, source in entry.sources.items())
    return sizes and all(files[name].sha256() == source["sha256"] for name, source in entry.sources.items())


@dataclass(frozen=True)
class _DonorTables:
    """A donor's small tables; the probes are in store order."""

    files: DonorFiles
    probes: pd.DataFrame
    ontology: pd.DataFrame
    samples: pd.DataFrame
    sources: dict[str, dict[str, Any]]


def _read_tables(store: Path, manifest: Manifest | None, files: DonorFiles) -> _DonorTables:
    ontology = read_ontology(files["Ontology.csv"])
    samples = read_samples(files["SampleAnnot.csv"], ontology.frame)
    probes, probes_source = _read_probes(store, manifest, files["Probes.csv"])
    sources = {
        "Ontology.csv": {"size": ontology.size, "sha256": ontology.sha256},
        "Probes.csv": probes_source,
        "SampleAnnot.csv": {"size": samples.size, "sha256": samples.sha256},
    }
    return _DonorTables(files, probes, ontology.frame, samples.frame, sources)


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


def _start_store(store: Path, tables: _DonorTables) -> Manifest:
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


def _refuse_differences(store: Path, tables: _DonorTables) -> None:
    """See that the tables which donors share are the store's, and that no well is another donor's."""
    kept = Lake(store)
    _refuse_shared_wells(tables, kept.samples)
    _refuse_difference(tables.files, "Probes.csv", PROBES, tables.probes, kept.probes)
    _refuse_difference(tables.files, "Ontology.csv", ONTOLOGY, tables.ontology, kept.ontology)


def _refuse_shared_wells(tables: _DonorTables, kept: pd.DataFrame) -> None:
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


def _free_name(store: Path, group: str) -> str:
    """A group's name, numbered if an older generation still has it (readers may be at work on that)."""
    names = itertools.chain([group], (f"{group}.{generation}" for generation in itertools.count(2)))
    return next(name for name in names if not (store / name).exists())


def _write_aside(
    store: Path, tables: _DonorTables, progress: Progress
) -> tuple[Path, dict[str, dict[str, Any]]]:
    """Write one donor below ``.wip``; give the folder and what is known of its sources."""
    work = store / WORK_IN_PROGRESS / tables.files.donor
    group = zarr.create_group(work / "group", zarr_format=3, overwrite=True)
    write_table(group, SAMPLES, tables.samples)
    sources = dict(tables.sources)
    report = _ByteCount(tables.files, progress)
    for variable in MATRICES:
        name = MATRIX_FILES[variable.name]
        probe_ids = tables.probes["probe_id"].to_numpy()
        matrix = Matrix(tables.files[name], variable.name, probe_ids, len(tables.samples))
        with _Scratch(work / variable.name, variable, len(tables.samples)) as scratch:
            _scatter(matrix, scratch, probe_ids, report)
            _write_matrix(group, variable, scratch, len(probe_ids))
        sources[name] = {"size": matrix.size, "sha256": matrix.sha256}
    return work / "group", sources


class _ByteCount:
    """Turns bytes read of one file after another into one donor's progress."""

    def __init__(self, files: DonorFiles, progress: Progress) -> None:
        self._donor = files.donor
        self._total = sum(files[name].size for name in MATRIX_FILES.values())
        self._before = 0
        self._progress = progress

    def at(self, size: int) -> None:
        self._progress(self._donor, self._before + size, self._total)

    def file_done(self, size: int) -> None:
        self._before += size


class _Scratch:
    """A matrix on disk into which rows are put in any order, and read back in store order."""

    def __init__(self, path: Path, variable: Variable, n_samples: int) -> None:
        self._path = path
        self._dtype = np.dtype(variable.dtype)
        self.n_samples = n_samples
        self._row_bytes = n_samples * self._dtype.itemsize

    def __enter__(self) -> "_Scratch":
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
        self._path.unlink()

    def put(self, rows: NDArray[np.int64], values: NDArray[Any]) -> None:
        for row, value in zip(rows.tolist(), values, strict=True):
            if os.pwrite(self._descriptor, value.data, row * self._row_bytes) < self._row_bytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))

    def get(self, start: int, stop: int) -> NDArray[Any]:
        data = os.pread(self._descriptor, (stop - start) * self._row_bytes, start * self._row_bytes)
        return np.frombuffer(data, dtype=self._dtype).reshape(stop - start, self.n_samples)


def _scatter(matrix: Matrix, scratch: _Scratch, probe_ids: NDArray[np.int64], report: _ByteCount) -> None:
    """Put each row where its probe belongs, whatever the file's order."""
    order = np.argsort(probe_ids)
    for block in matrix.blocks():
        scratch.put(order[np.searchsorted(probe_ids, block.probe_ids, sorter=order)], block.values)
        report.at(matrix.size)
    report.file_done(matrix.size)


def _write_matrix(group: zarr.Group, variable: Variable, scratch: _Scratch, n_probes: int) -> None:
    """Write shard by shard, two at a time."""
    array = create_matrix(group, variable, n_probes, scratch.n_samples)
    starts = range(0, n_probes, shard_rows(scratch.n_samples))
    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(partial(_write_shard, array, open_matrix(group, variable.name), scratch), starts))


def _write_shard(array: zarr.Array[Any], written: zarr.Array[Any], scratch: _Scratch, start: int) -> None:
    """Write a shard and read it back: what is published is what was parsed, to the last bit."""
    stop = min(start + shard_rows(scratch.n_samples), array.shape[0])
    values = scratch.get(start, stop)
    array[start:stop] = values
    if not np.array_equal(written[start:stop], values):
        raise StoreError(f"{array.store_path} reads back differently; is the disk at fault?")


def _ingest_rnaseq(store: Path, files: DonorFiles, replace: bool, progress: Progress) -> Ingested:
    manifest = _manifest(store)
    if manifest is None or files.donor not in manifest.donors:
        raise RequestError(
            f"Donor {files.donor}: RNA-seq goes with the donor's microarray, which is not in the store; "
            "ingest that first."
        )
    before = manifest.rnaseq.get(files.donor)
    if before and _unchanged(files, before):
        return Ingested(files.donor, "present", before.n_samples, 0, "rnaseq")
    if before and not replace:
        raise _changed(files, "published RNA-seq files")
    label, total = f"{files.donor} RNA-seq", files.size
    progress(label, 0, total)
    rnaseq = read_rnaseq(files)
    n_unmatched = _refuse_foreign(files, rnaseq, Lake(store))
    staged = _write_rnaseq_aside(store, rnaseq)
    digest = metadata_digest(staged, staged.rglob("zarr.json"))
    if not manifest.rnaseq:
        zarr.create_group(store / "rnaseq", zarr_format=3, overwrite=True)
    group = _free_name(store, f"rnaseq/{files.donor}")
    staged.rename(store / group)
    sync(store / "rnaseq")
    entry = RnaseqEntry(group, len(rnaseq.samples), rnaseq.sources, digest, len(rnaseq.genes))
    publish_manifest(store, manifest.with_rnaseq(files.donor, entry))
    progress(label, total, total)
    status: Status = "replaced" if before else "ingested"
    return Ingested(files.donor, status, entry.n_samples, 0, "rnaseq", n_unmatched)


def _refuse_foreign(files: DonorFiles, rnaseq: Rnaseq, kept: Lake) -> int:
    """See that the RNA-seq belongs to the store's donor; count the samples without a microarray well."""
    annotation, kinds = files["SampleAnnot.csv"], ("measured", "simulated")
    simulated = is_simulated_rnaseq(rnaseq.samples)
    if simulated != kept.simulated:
        raise InputError(
            f"{annotation}: this is {kinds[simulated]}, the store's microarray is {kinds[kept.simulated]}; "
            "keep them in stores of their own."
        )
    wells = rnaseq.samples["well_id"]
    donor_of = kept.samples.set_index("well_id")["donor"].reindex(wells).fillna("")
    foreign = donor_of[~donor_of.isin([files.donor, ""])]
    if len(foreign) or (donor_of == "").all():
        known = [f"well {well} is donor {donor}'s" for well, donor in foreign.items()]
        whose = known[0] if known else "the store knows none of its wells"
        raise InputError(
            f"{annotation}: {whose}; its wells should be those of donor {files.donor}'s microarray, "
            "is this another donor's file?"
        )
    unknown = sorted(set(rnaseq.samples["structure_id"]) - set(kept.ontology["structure_id"]))
    if unknown:
        raise InputError(
            f"{annotation}: structure {unknown[0]} is not in the store's ontology, which donors share."
        )
    return int((donor_of == "").sum())


def _write_rnaseq_aside(store: Path, rnaseq: Rnaseq) -> Path:
    """Write one donor's RNA-seq below ``.wip``."""
    work = store / WORK_IN_PROGRESS / f"{rnaseq.donor}-rnaseq"
    group = zarr.create_group(work, zarr_format=3, overwrite=True)
    write_table(group, RNASEQ_GENES, rnaseq.genes)
    write_table(group, RNASEQ_SAMPLES, rnaseq.samples)
    for variable in RNASEQ_MATRICES:
        values: NDArray[np.float64] = getattr(rnaseq, variable.name)
        array = create_matrix(group, variable, *values.shape)
        array[:] = values
        if not np.array_equal(array[:], values):
            raise StoreError(f"{array.store_path} reads back differently; is the disk at fault?")
    return work
