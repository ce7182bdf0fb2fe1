"""The donors' microarray -> store, each in a transaction of its own; one is begun while the last is written.

A donor's tables are read and compared with the other donors' (`lake.donor_tables`), its matrices written
aside, read back and compared (`lake.matrix_files`), and all of it is renamed into place (`lake.transactions`)
and named by the manifest.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import zarr

from ingest.sources import DonorFiles
from lake.arrays import write_table
from lake.donor_tables import DonorTables, SharedTables, start_store
from lake.layout import MATRICES, SAMPLES
from lake.manifest import WORK_IN_PROGRESS, DonorEntry, publish_manifest
from lake.matrix_files import WRITERS, DonorMatrices, threads
from lake.store import Lake
from lake.transactions import Ingested, Progress, Status, is_present, manifest_of, put_in_place

_Finish = Callable[[], Ingested]


def ingest_microarray(
    store: Path, donors: Sequence[DonorFiles], replace: bool, progress: Progress
) -> list[Ingested]:
    """Bring donors into a store, in their order.

    While the matrices of one are written, the next one's tables are read and its matrices gone through: what
    is wrong with it is told when its turn has come.

    Raises
    ------
    InputError
        If a file is wrong; the donors before it are in.
    RequestError
        If a donor's files changed, and they are not to be replaced.
    """
    with ExitStack() as stack:
        ingestion = _Ingestion(store, replace, progress, stack)
        ahead = stack.enter_context(threads(1))
        return [finish() for finish in _one_ahead(ahead, ingestion.begin, donors)]


def _one_ahead(
    pool: Executor, begin: Callable[[DonorFiles], _Finish], donors: Sequence[DonorFiles]
) -> Iterator[_Finish]:
    """Begin each donor while the one before it is finished."""
    begun = None
    for files in donors:
        finish = begun.result() if begun else None
        begun = pool.submit(begin, files)
        if finish:
            yield finish
    if begun:
        yield begun.result()


@dataclass(frozen=True)
class _Begun:
    """A donor whose matrices are being written."""

    files: DonorFiles
    tables: DonorTables
    matrices: DonorMatrices
    group: Path
    opened: ExitStack


class _Ingestion:
    """A store, and the threads that write donors into it.

    One thread begins donors, which changes nothing of the store but its work in progress; another finishes
    them, in the same order.
    """

    def __init__(self, store: Path, replace: bool, progress: Progress, stack: ExitStack) -> None:
        self._store, self._replace, self._progress = store, replace, progress
        self._manifest = manifest_of(store)
        self._before = dict(self._manifest.donors) if self._manifest else {}
        self._opened = stack.enter_context(ExitStack())  # closed when the threads below have ended
        self._readers = stack.enter_context(threads(len(MATRICES)))
        self._writers = stack.enter_context(threads(WRITERS))

    @cached_property
    def _shared(self) -> SharedTables:
        return SharedTables(Lake(self._store) if self._before else None)

    def begin(self, files: DonorFiles) -> _Finish:
        """Have a donor's matrices written by the threads; gives what waits for them and commits the donor."""
        before = self._before.get(files.donor)
        if before and is_present(files, before, self._replace, "published files"):
            return lambda: Ingested(files.donor, "present", before.n_samples, 0)
        work = self._store / WORK_IN_PROGRESS / files.donor
        work.mkdir(parents=True)
        opened = self._opened.enter_context(ExitStack())
        matrices = DonorMatrices(files, work, opened)
        matrices.scan(self._readers)
        tables = self._shared.read(files)
        group = zarr.create_group(work / "group", zarr_format=3)
        write_table(group, SAMPLES, tables.samples)
        matrices.write(self._writers, group, tables.probes["probe_id"].to_numpy(), len(tables.samples))
        return partial(self._finish, _Begun(files, tables, matrices, work / "group", opened))

    def _finish(self, begun: _Begun) -> Ingested:
        donor, samples = begun.files.donor, begun.tables.samples
        sources = begun.tables.sources | begun.matrices.written(partial(self._progress, donor))
        begun.opened.close()
        manifest = self._manifest or start_store(self._store, begun.tables)
        place, digest = put_in_place(self._store, begun.group, "microarray", donor)
        self._manifest = manifest.with_donor(donor, DonorEntry(place, len(samples), sources, digest))
        publish_manifest(self._store, self._manifest)
        status: Status = "replaced" if donor in self._before else "ingested"
        return Ingested(donor, status, len(samples), int(samples["corrected_mni_x"].isna().sum()))
