"""One writer at a time, one donor at a time, all of it or nothing.

A donor is written below ``.wip``, renamed into place, and exists from the moment the manifest names it.
Whatever a killed ingest leaves is not named by the manifest, so no reader sees it, and the next ingest clears
it away.
"""

import itertools
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import filelock

from ingest.sources import DonorFiles
from lake.donor_tables import COMMON_TABLES
from lake.errors import NoStoreError, RequestError, StoreError
from lake.manifest import WORK_IN_PROGRESS, DonorEntry, Manifest, metadata_digest, sync, sync_tree
from lake.store import Lake

LOG = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
Status = Literal["ingested", "replaced", "present"]
What = Literal["microarray", "rnaseq"]

LOCK = ".lock"
KINDS: tuple[What, ...] = ("microarray", "rnaseq")


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


@contextmanager
def only_writer(store: Path) -> Iterator[None]:
    """Hold the store's lock; the system frees it when the process ends, however it ends.

    What earlier writers left behind is cleared away first, and what this one leaves at last.

    Raises
    ------
    StoreError
        If another ingest holds it, or the directory is something else.
    """
    if not _is_ours(store):
        raise NoStoreError(f"{store}: the directory is not empty and no ahba-lake store; name a new one.")
    lock = filelock.FileLock(store / LOCK)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise StoreError(f"{store}: another ingest is at work on this store; wait for it to end.") from None
    try:
        _sweep(store)
        yield
    finally:
        shutil.rmtree(store / WORK_IN_PROGRESS, ignore_errors=True)
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
    manifest = manifest_of(store)
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


def manifest_of(store: Path) -> Manifest | None:
    """The manifest of a store, None as long as no donor is in it."""
    return Lake(store).manifest if (store / "zarr.json").exists() else None


def is_present(files: DonorFiles, before: DonorEntry | None, replace: bool, what: str) -> bool:
    """Whether a donor is in the store as these files have it.

    Raises
    ------
    RequestError
        If other files of the donor are, and they are not to be replaced.
    """
    if before is None:
        return False
    sizes = all(files[name].size == source["size"] for name, source in before.sources.items())
    if sizes and all(files[name].sha256() == source["sha256"] for name, source in before.sources.items()):
        return True
    if replace:
        return False
    raise RequestError(
        f"Donor {files.donor}: the {what} differ from those in the store; "
        "pass --replace to take the new ones, or check which are right."
    )


def put_in_place(store: Path, staged: Path, kind: What, donor: str) -> tuple[str, str]:
    """Move what was written aside to where the manifest will name it, when it is on the disk.

    Returns
    -------
    group : str
        Its place inside the store, numbered if an older generation still has the donor's (readers may be at
        work on that).
    metadata : str
        Its `metadata_digest`.
    """
    digest = metadata_digest(staged, staged.rglob("zarr.json"))
    sync_tree(staged)
    first = f"{kind}/{donor}"
    names = itertools.chain([first], (f"{first}.{generation}" for generation in itertools.count(2)))
    group = next(name for name in names if not (store / name).exists())
    staged.rename(store / group)
    sync(store / kind)
    return group, digest
