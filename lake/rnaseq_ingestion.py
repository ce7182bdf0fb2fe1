"""A donor's RNA-seq -> store, in a transaction of its own, after the donor's microarray."""

from functools import partial
from pathlib import Path

import numpy as np
import zarr
from numpy.typing import NDArray

from ingest.errors import InputError
from ingest.rnaseq import Rnaseq, read_rnaseq
from ingest.simulated_rnaseq import is_simulated_rnaseq
from ingest.sources import DonorFiles
from lake.arrays import write_table
from lake.errors import RequestError
from lake.layout import RNASEQ_GENES, RNASEQ_MATRICES, RNASEQ_SAMPLES
from lake.manifest import WORK_IN_PROGRESS, RnaseqEntry, publish_manifest, sync_tree
from lake.matrix_files import WRITERS, threads, write_matrix
from lake.store import Lake
from lake.transactions import Ingested, Progress, Status, is_present, manifest_of, put_in_place


def ingest_rnaseq(store: Path, files: DonorFiles, replace: bool, progress: Progress) -> Ingested:
    """Bring a donor's RNA-seq into a store that has the donor's microarray.

    Raises
    ------
    InputError
        If a file is wrong, or another donor's.
    RequestError
        If the donor's microarray is not there, or other RNA-seq of the donor is and is not to be replaced.
    """
    manifest = manifest_of(store)
    if manifest is None or files.donor not in manifest.donors:
        raise RequestError(
            f"Donor {files.donor}: RNA-seq goes with the donor's microarray, which is not in the store; "
            "ingest that first."
        )
    before = manifest.rnaseq.get(files.donor)
    if before and is_present(files, before, replace, "published RNA-seq files"):
        return Ingested(files.donor, "present", before.n_samples, 0, "rnaseq")
    label, total = f"{files.donor} RNA-seq", files.size
    progress(label, 0, total)
    rnaseq = read_rnaseq(files)
    n_unmatched = _refuse_foreign(files, rnaseq, Lake(store))
    staged = _write_aside(store, rnaseq)
    if not manifest.rnaseq:
        zarr.create_group(store / "rnaseq", zarr_format=3, overwrite=True)
        sync_tree(store / "rnaseq")
    group, digest = put_in_place(store, staged, "rnaseq", files.donor)
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


def _write_aside(store: Path, rnaseq: Rnaseq) -> Path:
    """Write one donor's RNA-seq below ``.wip``."""
    work = store / WORK_IN_PROGRESS / f"{rnaseq.donor}-rnaseq"
    group = zarr.create_group(work, zarr_format=3, overwrite=True)
    write_table(group, RNASEQ_GENES, rnaseq.genes)
    write_table(group, RNASEQ_SAMPLES, rnaseq.samples)
    with threads(WRITERS) as pool:
        for variable in RNASEQ_MATRICES:
            values: NDArray[np.float64] = getattr(rnaseq, variable.name)
            shape = len(rnaseq.genes), len(rnaseq.samples)
            for file in write_matrix(pool, group, variable, shape, partial(_rows, values)):
                file.result()
    return work


def _rows(values: NDArray[np.float64], start: int, stop: int) -> NDArray[np.float64]:
    return values[start:stop]
