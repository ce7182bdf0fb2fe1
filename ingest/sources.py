"""Finding the published files: extracted folders, abagen's data directory, or the zips as downloaded."""

import hashlib
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ingest.errors import InputError

MICROARRAY_FILES = ("MicroarrayExpression.csv", "PACall.csv", "Probes.csv", "SampleAnnot.csv", "Ontology.csv")

_FOLDER = re.compile(r"normalized_microarray_donor(\w+)")
_ARCHIVE = re.compile(r"(?:normalized_microarray_)?donor(\w+)\.zip")
_BLOCK = 1 << 20  # small enough to stay in the processor cache and to leave no large holes in memory


@dataclass(frozen=True)
class SourceFile:
    """One published file: on disk, or a member of a zip.

    Attributes
    ----------
    path : pathlib.Path
        The file, or the zip that holds it.
    member : str or None
        The name inside the zip.
    """

    path: Path
    member: str | None = None

    @property
    def name(self) -> str:
        """The file's own name, e.g. ``Probes.csv``."""
        return self.member or self.path.name

    def __str__(self) -> str:
        return f"{self.path}!{self.member}" if self.member else str(self.path)

    @property
    def size(self) -> int:
        """Bytes of the (uncompressed) file."""
        if self.member is None:
            return self.path.stat().st_size
        with zipfile.ZipFile(self.path) as archive:
            return archive.getinfo(self.member).file_size

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Open for reading bytes.

        Raises
        ------
        InputError
            If the zip turns out to be damaged or cut off while it is read.
        """
        if self.member is None:
            with self.path.open("rb") as stream:
                yield stream
            return
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as stream:
                yield stream
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise InputError(f"{self}: the zip is damaged ({error}); download it again.") from error

    def blocks(self) -> Iterator[bytes]:
        """The file's bytes, some megabytes at a time."""
        with self.open() as stream:
            while block := stream.read(_BLOCK):
                yield block

    def sha256(self) -> str:
        """SHA-256 of the (uncompressed) file, in hex."""
        digest = hashlib.sha256()
        for block in self.blocks():
            digest.update(block)
        return digest.hexdigest()


@dataclass(frozen=True)
class DonorFiles:
    """The published microarray files of one donor, by their names in `MICROARRAY_FILES`."""

    donor: str
    files: dict[str, SourceFile]

    def __getitem__(self, name: str) -> SourceFile:
        return self.files[name]

    @property
    def size(self) -> int:
        """Bytes of all files together, uncompressed."""
        return sum(file.size for file in self.files.values())


def find_donors(directory: Path) -> dict[str, DonorFiles]:
    """Find every donor's microarray files below a directory.

    Accepts what ``ahba fetch`` leaves, abagen's data directory (with or without its ``microarray``
    level), a single donor's folder, and zips that are not extracted.

    Parameters
    ----------
    directory : pathlib.Path

    Returns
    -------
    dict of str to DonorFiles
        By donor, in ascending donor number.

    Raises
    ------
    InputError
        If there is no such directory, no donor in it, a donor twice, or a donor without all its files.
    """
    if not directory.is_dir():
        raise InputError(f"{directory}: there is no such directory; `ahba fetch {directory}` would fill one.")
    found: dict[str, dict[str, SourceFile]] = {}
    for place in _places(directory):
        _add_place(found, place)
    if not found:
        raise InputError(
            f"{directory}: no folder normalized_microarray_donor<ID> and no donor zip in it; "
            f"`ahba fetch {directory}` downloads them, `ahba simulate {directory}` makes some up."
        )
    return {donor: DonorFiles(donor, found[donor]) for donor in sorted(found, key=donor_order)}


def donor_order(donor: str) -> tuple[int, str]:
    """Sort key that puts donors in ascending number, as abagen does; other names after them."""
    return (int(donor), donor) if donor.isdigit() else (1 << 62, donor)


def _places(directory: Path) -> Iterator[Path]:
    """The directory itself if it is a donor's, else what lies in it and in its folder ``microarray``."""
    here = directory if directory.name else directory.resolve()  # "." has no name
    if _FOLDER.fullmatch(here.name):
        yield here
        return
    for folder in (directory, directory / "microarray"):
        if folder.is_dir():
            yield from sorted(folder.iterdir())


def _add_place(found: dict[str, dict[str, SourceFile]], place: Path) -> None:
    if place.is_dir() and (match := _FOLDER.fullmatch(place.name)):
        files = _folder_files(place)
    elif place.is_file() and (match := _ARCHIVE.fullmatch(place.name)):
        files = _archive_files(place)
    else:
        return
    donor = match[1]
    if donor in found and files["Probes.csv"] != found[donor]["Probes.csv"]:
        first = found[donor]["Probes.csv"].path
        raise InputError(f"Donor {donor} is there twice: {first} and {place}; keep one of them.")
    found[donor] = files


def _folder_files(folder: Path) -> dict[str, SourceFile]:
    archives = [path for path in sorted(folder.iterdir()) if _ARCHIVE.fullmatch(path.name)]
    missing = [name for name in MICROARRAY_FILES if not (folder / name).is_file()]
    if missing and archives:  # abagen keeps a donor's zip inside the donor's folder
        return _archive_files(archives[0])
    if missing:
        raise InputError(f"{folder}: {', '.join(missing)} missing; fetch or extract this donor again.")
    return {name: SourceFile(folder / name) for name in MICROARRAY_FILES}


def _archive_files(path: Path) -> dict[str, SourceFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
    except zipfile.BadZipFile as error:
        raise InputError(f"{path}: not a whole zip ({error}); download it again.") from error
    missing = [name for name in MICROARRAY_FILES if name not in names]
    if missing:
        raise InputError(f"{path}: {', '.join(missing)} missing in the zip; download it again.")
    return {name: SourceFile(path, name) for name in MICROARRAY_FILES}
