"""The manifest: what a store holds, and where it came from.

It lives in the attributes of the root group, in one file that is replaced atomically. Its hash is
the snapshot id that every table and run records.
"""

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import zarr

from lake.errors import StoreError
from lake.layout import CITATION, FORMAT_VERSION, LICENCE, MANIFEST, SIMULATED_NOTE

WORK_IN_PROGRESS = ".wip"


def software_versions() -> dict[str, str]:
    """Versions of what writes and computes, by package."""
    names = ("ahba-lake", "dask", "numpy", "pandas", "pyarrow", "scipy", "xarray", "zarr")
    return {name: version(name) for name in names}


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
    """

    group: str
    n_samples: int
    sources: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Manifest:
    """What a store holds. Unchanging: `with_donor` gives the next one."""

    n_probes: int
    simulated: bool
    donors: dict[str, DonorEntry] = field(default_factory=dict)
    software: dict[str, str] = field(default_factory=software_versions)
    licence: str = LICENCE
    citation: str = CITATION
    format_version: int = FORMAT_VERSION

    @cached_property
    def snapshot(self) -> str:
        """Hash of the manifest, 16 hex digits."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def with_donor(self, donor: str, entry: DonorEntry) -> "Manifest":
        """The manifest with one donor more, or with a donor replaced."""
        return replace(self, donors=self.donors | {donor: entry}, software=software_versions())

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
        raise StoreError(
            f"{root.store_path} is a Zarr group, but no ahba-lake store; make one with `ahba ingest`."
        )
    if found.get("format_version") != FORMAT_VERSION:
        raise StoreError(
            f"{root.store_path} has store format {found.get('format_version')}, this version reads "
            f"{FORMAT_VERSION}; ingest the published files again."
        )
    entries: dict[str, Any] = found["donors"]
    fields: dict[str, Any] = dict(found) | {
        "donors": {d: DonorEntry(**entry) for d, entry in entries.items()}
    }
    return Manifest(**fields)


def publish_manifest(store: Path, manifest: Manifest) -> None:
    """Make `manifest` the store's, in one atomic step that survives a power failure."""
    aside = store / WORK_IN_PROGRESS / "root"
    shutil.rmtree(aside, ignore_errors=True)
    attributes: dict[str, Any] = {MANIFEST: asdict(manifest)}
    zarr.create_group(aside, zarr_format=3, attributes=attributes)
    sync(aside / "zarr.json")
    (aside / "zarr.json").replace(store / "zarr.json")
    sync(store)


def sync(path: Path) -> None:
    """Have a file's or directory's content on the disk before going on."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
