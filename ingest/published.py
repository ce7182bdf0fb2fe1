"""What the Allen Institute publishes for the six donors, and which of it is asked for.

The expression tables are zip files, the structural images gzipped NIfTI (Hawrylycz et al. 2012, Nature
489:391), each known to the server by a number. :func:`plan` turns a wish into a list of
:class:`Download`; it touches neither the network nor the disk.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from ingest.errors import InputError, RefusedError
from ingest.sources import MICROARRAY_FILES, RNASEQ_FILES

ALLEN_SERVER = "https://human.brain-map.org"
MIB = 2**20

What = Literal["microarray", "rnaseq", "mri"]


@dataclass(frozen=True)
class PublishedFile:
    """A file on the Allen Institute's server.

    Attributes
    ----------
    donor, uid : str
        The donor's number and name, e.g. ``"9861"`` and ``"H0351.2001"``.
    what : {"microarray", "rnaseq", "mri"}
    name : str
        Path of the file below the folder it is fetched into.
    well_known_file_id : int
    size : int or None
        Exact size in bytes, where it is known.
    mebibytes : float or None
        Published size in MiB, to one decimal.
    """

    donor: str
    uid: str
    what: What
    name: str
    well_known_file_id: int
    size: int | None = None
    mebibytes: float | None = None


_MICROARRAY_ARCHIVES = (
    ("9861", "H0351.2001", 178238387, 425_988_059, 406.2),
    ("10021", "H0351.2002", 178238373, 400_957_002, 382.3),
    ("12876", "H0351.1009", 178238359, None, 158.5),
    ("14380", "H0351.1012", 178238316, None, 230.1),
    ("15496", "H0351.1015", 178238266, None, 206.0),
    ("15697", "H0351.1016", 178236545, None, 219.9),
)
_RNASEQ_ARCHIVES = (
    ("9861", "H0351.2001", 278447594, 22.0),
    ("10021", "H0351.2002", 278448166, 22.4),
)
_MRI_IMAGES = (
    ("9861", "H0351.2001", 157722636, 157722638),
    ("10021", "H0351.2002", 157723301, 157723303),
    ("12876", "H0351.1009", 157722290, 157722292),
    ("14380", "H0351.1012", 157721937, 157721939),
    ("15496", "H0351.1015", 162021642, 162021644),
    ("15697", "H0351.1016", 157682966, 157682968),
)

PUBLISHED_FILES: tuple[PublishedFile, ...] = (
    *(
        PublishedFile(donor, uid, "microarray", f"normalized_microarray_donor{donor}.zip", file_id, size, mib)
        for donor, uid, file_id, size, mib in _MICROARRAY_ARCHIVES
    ),
    *(
        PublishedFile(donor, uid, "rnaseq", f"rnaseq_donor{donor}.zip", file_id, None, mib)
        for donor, uid, file_id, mib in _RNASEQ_ARCHIVES
    ),
    *(
        PublishedFile(donor, uid, "mri", f"mri_donor{donor}/{contrast}.nii.gz", file_id)
        for donor, uid, *file_ids in _MRI_IMAGES
        for contrast, file_id in zip(("T1", "T2"), file_ids, strict=True)
    ),
)

_MEMBERS: dict[What, tuple[str, ...]] = {
    "microarray": MICROARRAY_FILES,
    "rnaseq": RNASEQ_FILES,
    "mri": (),
}


@dataclass(frozen=True)
class Limits:
    """Bounds on what a server may hand us; the published files stay well below them.

    Attributes
    ----------
    download : int
        Bytes of one download.
    entry, unpacked : int
        Unpacked bytes of one file of an archive, and of all of them.
    ratio : float
        Unpacked over packed bytes of one file; holds from one MiB on.
    entries : int
        Files in an archive.
    """

    download: int = 2 * 1024 * MIB
    entry: int = 4 * 1024 * MIB
    unpacked: int = 8 * 1024 * MIB
    ratio: float = 200.0
    entries: int = 64


LIMITS = Limits()


@dataclass(frozen=True)
class Download:
    """One file to fetch, and where it goes.

    Attributes
    ----------
    donor, uid : str
    what : {"microarray", "rnaseq", "mri"}
    name : str
        The file's path below the folder, e.g. ``"normalized_microarray_donor9861.zip"``.
    url : str
    file : pathlib.Path
        Where the file itself goes; an archive that lies there is unpacked, not fetched.
    target : pathlib.Path
        What there is in the end: the unpacked folder of an archive, or the image.
    size : int or None
        Exact size in bytes the file must have; None if unknown, or not to be checked.
    approximate_size : int or None
        Published size in bytes, good to 0.05 MiB.
    """

    donor: str
    uid: str
    what: What
    name: str
    url: str
    file: Path
    target: Path
    size: int | None
    approximate_size: int | None

    @property
    def members(self) -> tuple[str, ...]:
        """The files an archive must hold; none where the file is an image."""
        return _MEMBERS[self.what]

    @property
    def kept(self) -> Path:
        """Where an archive is kept: inside its folder, as in abagen's data directory."""
        return self.target / self.file.name

    @property
    def outputs(self) -> list[Path]:
        """The files that must be there in the end."""
        return [self.target / member for member in self.members] or [self.target]

    @property
    def is_present(self) -> bool:
        """Whether all of it is there already."""
        return not self.missing()

    def missing(self) -> list[str]:
        """Names of the files in :attr:`outputs` that are not there, or empty."""
        return [file.name for file in self.outputs if not (file.is_file() and file.stat().st_size)]

    def check_size(self, size: int) -> None:
        """Compare a size in bytes with the exact one, where that is known and to be checked.

        Raises
        ------
        RefusedError
            If they differ.
        """
        if self.size not in (None, size):
            raise RefusedError(
                f"the server's file has {size:,} bytes, the published one {self.size:,}: try again later, "
                "or, if a new version was published, fetch without the size check "
                "(`ahba fetch --no-size-check`, check_sizes=False)"
            )


def plan(
    directory: Path,
    *,
    donors: Sequence[str] | Literal["all"] = "all",
    what: Sequence[str] = ("microarray",),
    base_url: str = ALLEN_SERVER,
    check_sizes: bool | None = None,
) -> list[Download]:
    """List what :func:`ingest.fetch.fetch` would download; touches neither the network nor the disk.

    Parameters
    ----------
    directory : pathlib.Path
        Folder the files go into.
    donors : sequence of str, or "all"
        Donor numbers (``"9861"``) or names (``"H0351.2001"``).
    what : sequence of {"microarray", "rnaseq", "mri"}
    base_url : str
        Server; a mirror answers the same paths.
    check_sizes : bool, optional
        Whether a file must have the exact size known for it. By default so for the Allen Institute's
        own server and not for any other ``base_url``.

    Returns
    -------
    list of Download
        In the order of ``PUBLISHED_FILES``.

    Raises
    ------
    InputError
        For an unknown donor or kind of file, a donor without that kind, or a ``base_url`` that is none.
    """
    server = _checked_server(base_url)
    exact = server == ALLEN_SERVER if check_sizes is None else check_sizes
    kinds = _checked_kinds(what)
    numbers = None if donors == "all" else _checked_donors(donors)
    for kind in kinds:
        _check_published(kind, numbers or [])
    return [
        _download(file, Path(directory), server, exact_size=exact)
        for file in PUBLISHED_FILES
        if file.what in kinds and (numbers is None or file.donor in numbers)
    ]


def _download(file: PublishedFile, directory: Path, server: str, *, exact_size: bool) -> Download:
    path = directory / file.name
    return Download(
        donor=file.donor,
        uid=file.uid,
        what=file.what,
        name=file.name,
        url=f"{server}/api/v2/well_known_file_download/{file.well_known_file_id}",
        file=path,
        target=path.with_suffix("") if _MEMBERS[file.what] else path,
        size=file.size if exact_size else None,
        approximate_size=None if file.mebibytes is None else round(file.mebibytes * MIB),
    )


def _checked_server(base_url: str) -> str:
    if not re.fullmatch(r"https?://[^/?#]+(/[^?#]*)?", base_url):
        raise InputError(f"base_url {base_url!r} is not a server: give one like {ALLEN_SERVER!r}.")
    if "@" in base_url:
        raise InputError(
            "base_url holds a user name, which messages would show: put it into ~/.netrc, which is read."
        )
    return base_url.rstrip("/")


def _checked_kinds(what: Sequence[str]) -> list[str]:
    kinds = [what] if isinstance(what, str) else list(what)
    unknown = [kind for kind in kinds if kind not in get_args(What)]
    if unknown or not kinds:
        raise InputError(f"what={what!r} is not what can be fetched: choose from {_listed(get_args(What))}.")
    return kinds


def _checked_donors(donors: Sequence[str]) -> list[str]:
    asked = [donors] if isinstance(donors, str) else [str(donor) for donor in donors]
    numbers = {name: file.donor for file in PUBLISHED_FILES for name in (file.donor, file.uid)}
    unknown = [donor for donor in asked if donor not in numbers]
    if unknown or not asked:
        named = f"Unknown donors {_listed(unknown)}" if unknown else "No donors named"
        raise InputError(f"{named}: choose from {_listed(numbers)}, or 'all'.")
    return [numbers[donor] for donor in asked]


def _check_published(kind: str, numbers: Sequence[str]) -> None:
    having = {file.donor: None for file in PUBLISHED_FILES if file.what == kind}
    without = [donor for donor in numbers if donor not in having]
    if without:
        raise InputError(
            f"No {kind} files are published for donor {_listed(without)}, only for {_listed(having)}: "
            "leave that donor out, or ask for donors='all'."
        )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
