"""The manifest: what a store holds, and where it came from.

It lives in the attributes of the root group, in one file that is replaced atomically. Its hash is
the snapshot id that every table and run records.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import zarr

from ingest.sources import donor_order
from lake.errors import NoStoreError, StoreError
from lake.layout import CITATION, FORMAT_VERSION, LICENCE, MANIFEST, SIMULATED_NOTE, SNAPSHOT

WORK_IN_PROGRESS = ".wip"
SYNCS_AT_ONCE = 8


_version = cache(version)  # it reads files


def software_versions() -> dict[str, str]:
    """Versions of what writes and computes, by package."""
    names = ("ahba-lake", "dask", "numpy", "pandas", "pyarrow", "scipy", "xarray", "zarr")
    return {name: _version(name) for name in names}


@dataclass(frozen=True)
class DonorEntry:
    """One donor of the store.

    Attributes
    ----------
    group : str
        Path of the donor's group inside the store.
    n_samples : int
    sources : dict
        File name -> ``{"size": bytes, "sha256": hex}`` of every published file it came from.
    metadata : str
        SHA-256 of the group's metadata files, see `metadata_digest`; data are checksummed by chunk.
    """

    group: str
    n_samples: int
    sources: dict[str, dict[str, Any]]
    metadata: str


@dataclass(frozen=True)
class RnaseqEntry(DonorEntry):
    """One donor's RNA-seq; ``n_samples`` counts sequenced samples, replicates too.

    Attributes
    ----------
    n_genes : int
    """

    n_genes: int


@dataclass(frozen=True)
class Manifest:
    """What a store holds. Unchanging: `with_donor` and `with_rnaseq` give the next one.

    ``metadata`` is the `metadata_digest` of the tables that donors share. ``rnaseq`` is left out of what is
    written and hashed where it is empty: stores without RNA-seq do not know of it.
    """

    n_probes: int
    simulated: bool
    metadata: str
    donors: dict[str, DonorEntry] = field(default_factory=dict)
    rnaseq: dict[str, RnaseqEntry] = field(default_factory=dict)
    software: dict[str, str] = field(default_factory=software_versions)
    licence: str = LICENCE
    citation: str = CITATION
    format_version: int = FORMAT_VERSION

    @cached_property
    def snapshot(self) -> str:
        """Hash of the manifest, 16 hex digits."""
        text = json.dumps(self.as_attributes(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def with_donor(self, donor: str, entry: DonorEntry) -> "Manifest":
        """The manifest with one donor more, or with a donor replaced."""
        entries = self.donors | {donor: entry}
        in_order = {donor: entries[donor] for donor in sorted(entries, key=donor_order)}
        return replace(self, donors=in_order, software=software_versions())

    def with_rnaseq(self, donor: str, entry: RnaseqEntry) -> "Manifest":
        """The manifest with RNA-seq of one donor more, or with a donor's replaced."""
        entries = self.rnaseq | {donor: entry}
        in_order = {donor: entries[donor] for donor in sorted(entries, key=donor_order)}
        return replace(self, rnaseq=in_order, software=software_versions())

    def as_attributes(self) -> dict[str, Any]:
        """What is written, as plain values."""
        attributes = asdict(self)
        if not self.rnaseq:
            del attributes["rnaseq"]
        return attributes

    def provenance(self) -> dict[str, Any]:
        """What a table says of the store it came from."""
        note = {"simulated": SIMULATED_NOTE} if self.simulated else {}
        return {"snapshot": self.snapshot, **note, "licence": self.licence, "citation": self.citation}


def load_manifest(root: zarr.Group) -> Manifest:
    """Read the manifest of an open store.

    Raises
    ------
    StoreError
        If the group is no ahba-lake store, or one of another format version.
    """
    found = root.attrs.get(MANIFEST)
    if not isinstance(found, dict):
        raise NoStoreError(
            f"{root.store_path} is a Zarr group, but no ahba-lake store; make one with `ahba ingest`."
        )
    if found.get("format_version") != FORMAT_VERSION:
        raise StoreError(
            f"{root.store_path} has store format {found.get('format_version')}, this version reads "
            f"{FORMAT_VERSION}; ingest the published files again."
        )
    try:
        entries: Any = found["donors"]
        sequenced: Any = found.get("rnaseq", {})
        fields: Any = found | {
            "donors": {donor: DonorEntry(**entry) for donor, entry in entries.items()},
            "rnaseq": {donor: RnaseqEntry(**entry) for donor, entry in sequenced.items()},
        }
        manifest = Manifest(**fields)
    except (KeyError, TypeError, AttributeError):
        manifest = None
    if manifest is None or manifest.snapshot != root.attrs.get(SNAPSHOT):
        raise StoreError(
            f"{root.store_path}/zarr.json, the manifest, is damaged; ingest the published files again "
            "into a new store."
        )
    return manifest


def publish_manifest(store: Path, manifest: Manifest) -> None:
    """Make `manifest` the store's, in one atomic step that survives a power failure."""
    aside = store / WORK_IN_PROGRESS / "root"
    shutil.rmtree(aside, ignore_errors=True)
    attributes: dict[str, Any] = {MANIFEST: manifest.as_attributes(), SNAPSHOT: manifest.snapshot}
    zarr.create_group(aside, zarr_format=3, attributes=attributes)
    sync(aside / "zarr.json")
    (aside / "zarr.json").replace(store / "zarr.json")
    sync(store)


def metadata_digest(root: Path, files: Iterable[Path]) -> str:
    """SHA-256 over names and contents of files below `root`, the ``zarr.json`` of groups and arrays."""
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(f"{file.relative_to(root).as_posix()}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def sync(path: Path) -> None:
    """Have a file's or directory's content on the disk before going on."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(root: Path) -> None:
    """Have a directory on the disk, with all that is in it.

    By threads: of small files, a disk takes several at once in the time of one.
    """
    with ThreadPoolExecutor(SYNCS_AT_ONCE) as pool:
        list(pool.map(sync, [*root.rglob("*"), root]))
