"""Finding the published files: extracted folders, abagen's data directory, or the zips as downloaded."""

import hashlib
import re
import zipfile
import zlib
from collections.abc import Container, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ingest.errors import InputError

MICROARRAY_FILES = ("MicroarrayExpression.csv", "PACall.csv", "Probes.csv", "SampleAnnot.csv", "Ontology.csv")
RNASEQ_FILES = ("RNAseqTPM.csv", "RNAseqCounts.csv", "Genes.csv", "SampleAnnot.csv", "Ontology.csv")

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
        with ExitStack() as opened:
            with self._damage_named(RuntimeError, NotImplementedError):  # encrypted; packed some other way
                archive = opened.enter_context(zipfile.ZipFile(self.path))
                member = opened.enter_context(archive.open(self.member))
            with self._damage_named():
                yield member

    @contextmanager
    def _damage_named(self, *others: type[Exception]) -> Iterator[None]:
        """Say which zip is damaged, for whatever a damaged one raises."""
        damage: tuple[type[Exception], ...] = (zipfile.BadZipFile, zlib.error, EOFError, *others)
        try:
            yield
        except damage as error:
            raise InputError(f"{self}: the zip is damaged ({error}); download it again.") from error

    def blocks(self) -> Iterator[bytes]:
        """The file's bytes, some megabytes at a time."""
        with self.open() as stream:
            while block := stream.read(_BLOCK):
                yield block

    def on_disk(self, aside: Path) -> Path:
        """The file's own path, or, of a member of a zip, that of a copy made at `aside`.

        Raises
        ------
        InputError
            If the zip is damaged.
        """
        if self.member is None:
            return self.path
        with aside.open("wb") as target:
            target.writelines(self.blocks())
        return aside

    def sha256(self) -> str:
        """SHA-256 of the (uncompressed) file, in hex."""
        digest = hashlib.sha256()
        for block in self.blocks():
            digest.update(block)
        return digest.hexdigest()


@dataclass(frozen=True)
class DonorFiles:
    """The published files of one donor, by their names in `MICROARRAY_FILES` or `RNASEQ_FILES`."""

    donor: str
    files: dict[str, SourceFile]

    def __getitem__(self, name: str) -> SourceFile:
        return self.files[name]

    @property
    def size(self) -> int:
        """Bytes of all files together, uncompressed."""
        return sum(file.size for file in self.files.values())


@dataclass(frozen=True)
class _Kind:
    """How the files of one assay are called and kept.

    Attributes
    ----------
    files : tuple of str
        What each donor has.
    level : str
        abagen's folder for all donors.
    folder, archive, kept_archive : re.Pattern
        A donor's folder; a donor's zip; and a donor's zip as abagen keeps it inside the folder.
    hint : str
        What to do where there is none; ``{}`` is the directory.
    """

    files: tuple[str, ...]
    level: str
    folder: re.Pattern[str]
    archive: re.Pattern[str]
    kept_archive: re.Pattern[str]
    hint: str


_MICROARRAY = _Kind(
    MICROARRAY_FILES,
    "microarray",
    re.compile(r"normalized_microarray_donor(\w+)"),
    re.compile(r"(?:normalized_microarray_)?donor(\w+)\.zip"),
    re.compile(r"(?:normalized_microarray_)?donor(\w+)\.zip"),
    "no folder normalized_microarray_donor<ID> and no donor zip in it; "
    "`ahba fetch {0}` downloads them, `ahba simulate {0}` makes some up.",
)
_RNASEQ = _Kind(
    RNASEQ_FILES,
    "rnaseq",
    re.compile(r"rnaseq_donor(\w+)"),
    re.compile(r"rnaseq_donor(\w+)\.zip"),
    re.compile(r"(?:rnaseq_)?donor(\w+)\.zip"),
    "no folder rnaseq_donor<ID> and no RNA-seq zip in it; `ahba fetch {0} --what rnaseq` downloads them.",
)


def find_donors(
    directory: Path, *, required: bool = True, only: Container[str] | None = None
) -> dict[str, DonorFiles]:
    """Find every donor's microarray files below a directory.

    Accepts what ``ahba fetch`` leaves, abagen's data directory (with or without its ``microarray``
    level), a single donor's folder, and zips that are not extracted.

    Parameters
    ----------
    directory : pathlib.Path
    required : bool
        Whether it is an error if there is no donor.
    only : container of str, optional
        The donors that matter: of others, those that are not whole are passed over.

    Returns
    -------
    dict of str to DonorFiles
        By donor, in ascending donor number.

    Raises
    ------
    InputError
        If there is no such directory, no donor in it, a donor twice, or a donor without all its files.
    """
    return _find(directory, _MICROARRAY, required, only)


def find_rnaseq(
    directory: Path, *, required: bool = False, only: Container[str] | None = None
) -> dict[str, DonorFiles]:
    """Find every donor's RNA-seq files below a directory, as `find_donors` finds microarray files."""
    return _find(directory, _RNASEQ, required, only)


def donor_order(donor: str) -> tuple[int, str]:
    """Sort key that puts donors in ascending number, as abagen does; other names after them."""
    return (int(donor), donor) if donor.isdigit() else (1 << 62, donor)


def _find(directory: Path, kind: _Kind, required: bool, only: Container[str] | None) -> dict[str, DonorFiles]:
    if not directory.is_dir():
        raise InputError(f"{directory}: there is no such directory; `ahba fetch {directory}` would fill one.")
    found: dict[str, dict[str, SourceFile]] = {}
    for place in _places(directory, kind):
        donor = _donor_of(place, kind)
        if donor is None:
            continue
        try:
            _add_place(found, donor, place, kind)
        except InputError:
            if only is None or donor in only:
                raise
    if required and not found:
        raise InputError(f"{directory}: {kind.hint.format(directory)}")
    return {donor: DonorFiles(donor, found[donor]) for donor in sorted(found, key=donor_order)}


def _places(directory: Path, kind: _Kind) -> Iterator[Path]:
    """The directory itself if it is a donor's, else what lies in it and in abagen's folder of the kind."""
    here = directory if directory.name else directory.resolve()  # "." has no name
    if any(each.folder.fullmatch(here.name) for each in (_MICROARRAY, _RNASEQ)):
        yield here
        return
    for folder in (directory, directory / kind.level):
        if folder.is_dir():
            yield from sorted(folder.iterdir())


def _donor_of(place: Path, kind: _Kind) -> str | None:
    """The donor whose folder or zip this is, if any."""
    pattern = kind.folder if place.is_dir() else kind.archive
    match = pattern.fullmatch(place.name)
    return match[1] if match else None


def _add_place(found: dict[str, dict[str, SourceFile]], donor: str, place: Path, kind: _Kind) -> None:
    files = _folder_files(place, kind) if place.is_dir() else _archive_files(place, kind)
    any_file = kind.files[0]
    if donor in found and files[any_file] != found[donor][any_file]:
        first = found[donor][any_file].path
        raise InputError(f"Donor {donor} is there twice: {first} and {place}; keep one of them.")
    found[donor] = files


def _folder_files(folder: Path, kind: _Kind) -> dict[str, SourceFile]:
    archives = [path for path in sorted(folder.iterdir()) if kind.kept_archive.fullmatch(path.name)]
    missing = [name for name in kind.files if not (folder / name).is_file()]
    if missing and archives:  # abagen keeps a donor's zip inside the donor's folder
        return _archive_files(archives[0], kind)
    if missing:
        raise InputError(f"{folder}: {', '.join(missing)} missing; fetch or extract this donor again.")
    return {name: SourceFile(folder / name) for name in kind.files}


def _archive_files(path: Path, kind: _Kind) -> dict[str, SourceFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
    except zipfile.BadZipFile as error:
        raise InputError(f"{path}: not a whole zip ({error}); download it again.") from error
    missing = [name for name in kind.files if name not in names]
    if missing:
        raise InputError(f"{path}: {', '.join(missing)} missing in the zip; download it again.")
    return {name: SourceFile(path, name) for name in kind.files}
