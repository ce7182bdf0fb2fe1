"""Fetching the published files: the way in begins at the Allen Institute's server.

The expression tables of the six donors are zip files, their structural images gzipped NIfTI (Hawrylycz
et al. 2012, Nature 489:391). The server is slow, breaks off, and may answer an error page with status
200; people have long been left with truncated archives. Here nothing carries its final name before it
is whole and checked: a download grows as ``<file>.part``, goes on where it broke off, an archive is
unpacked into ``<folder>.part`` and that folder is renamed.
"""

import errno
import gzip
import html
import itertools
import json
import logging
import re
import shutil
import stat
import struct
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import IO, Literal, Self, get_args

import requests
import urllib3
from filelock import FileLock, Timeout
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

from ingest.errors import FetchError, InputError
from ingest.sources import MICROARRAY_FILES

log = logging.getLogger(__name__)

ALLEN_SERVER = "https://human.brain-map.org"

What = Literal["microarray", "rnaseq", "mri"]
Status = Literal["present", "unpacked", "fetched"]
Progress = Callable[[str, int, int | None], None]

_MIB = 2**20
_CHUNK = 128 * 1024
_LONGEST_WAIT = 60.0
_TRY_AGAIN_STATUSES = (429, 500, 502, 503, 504)


# --------------------------------------------------------------------------------------------------
# What is published


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
    "rnaseq": ("Genes.csv", "RNAseqCounts.csv", "RNAseqTPM.csv", "SampleAnnot.csv", "Ontology.csv"),
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

    download: int = 2 * 1024 * _MIB
    entry: int = 4 * 1024 * _MIB
    unpacked: int = 8 * 1024 * _MIB
    ratio: float = 200.0
    entries: int = 64


LIMITS = Limits()


# --------------------------------------------------------------------------------------------------
# What is asked for


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
    def kept(self) -> Path:
        """Where an archive is kept: inside its folder, as in abagen's data directory."""
        return self.target / self.file.name

    @property
    def outputs(self) -> list[Path]:
        """The files that must be there in the end."""
        return [self.target / member for member in _MEMBERS[self.what]] or [self.target]

    @property
    def is_present(self) -> bool:
        """Whether all of it is there already."""
        return not self.missing()

    def missing(self) -> list[str]:
        """Names of the files in :attr:`outputs` that are not there, or empty."""
        return [file.name for file in self.outputs if not (file.is_file() and file.stat().st_size)]


@dataclass(frozen=True)
class Fetched:
    """What became of one :class:`Download`.

    Attributes
    ----------
    download : Download
    path : pathlib.Path
        The unpacked folder, or the image.
    status : {"present", "unpacked", "fetched"}
        There already; unpacked from an archive that lay there; or fetched.
    """

    download: Download
    path: Path
    status: Status


def plan(
    directory: Path,
    *,
    donors: Sequence[str] | Literal["all"] = "all",
    what: Sequence[str] = ("microarray",),
    base_url: str = ALLEN_SERVER,
    check_sizes: bool | None = None,
) -> list[Download]:
    """List what :func:`fetch` would download; touches neither the network nor the disk.

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
        approximate_size=None if file.mebibytes is None else round(file.mebibytes * _MIB),
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


# --------------------------------------------------------------------------------------------------
# Fetching


class _InterruptedError(Exception):
    """The answer ended early, or cannot be added to what is there: worth another try."""


class _RefusedError(Exception):
    """What came is not what was published: nothing of it is kept."""


class _DamagedError(_RefusedError):
    """What came is broken, which another download may mend."""


@dataclass(frozen=True)
class _Settings:
    """How files are transferred: the same for all the files of one call."""

    session: requests.Session
    progress: Progress | None
    retries: int
    backoff: float
    timeout: float
    limits: Limits
    keep_archives: bool


def fetch(
    directory: Path,
    *,
    donors: Sequence[str] | Literal["all"] = "all",
    what: Sequence[str] = ("microarray",),
    base_url: str = ALLEN_SERVER,
    check_sizes: bool | None = None,
    keep_archives: bool = False,
    progress: Progress | None = None,
    retries: int = 5,
    backoff: float = 1.0,
    timeout: float = 60.0,
    limits: Limits = LIMITS,
) -> list[Fetched]:
    """Download the published files that are not there yet, check them and unpack them.

    Microarray archives become folders ``normalized_microarray_donor<number>``, RNA-seq archives
    ``rnaseq_donor<number>``, images ``mri_donor<number>/T1.nii.gz`` and ``T2.nii.gz``. A call that was
    interrupted is taken up by the next one; an archive put there by hand under its published name is
    unpacked, not fetched, and kept. Proxies and ``~/.netrc`` are taken from the environment.

    Parameters
    ----------
    directory : pathlib.Path
        Folder the files go into; it is made if need be.
    donors, what, base_url, check_sizes
        As for :func:`plan`.
    keep_archives : bool
        Keep each zip file, inside the folder unpacked from it.
    progress : callable, optional
        Called as ``progress(name, bytes_so_far, bytes_in_all_or_None)``.
    retries : int
        Further tries for a request that fails, and in a row for a download that breaks off.
    backoff : float
        Unit, in seconds, of the waits between tries, which double up to a minute.
    timeout : float
        Seconds to wait for a connection, and for each piece of an answer.
    limits : Limits
        Bounds on what the server may send.

    Returns
    -------
    list of Fetched
        One a file, in the order of :func:`plan`.

    Raises
    ------
    InputError
        As for :func:`plan`, and if ``directory`` is a file or a number is negative.
    FetchError
        After all files were tried: names every file that failed, and why. Or at once, if another fetch
        is at work in ``directory``.
    """
    downloads = plan(directory, donors=donors, what=what, base_url=base_url, check_sizes=check_sizes)
    if min(retries, backoff) < 0 or timeout <= 0:
        raise InputError("retries and backoff must be 0 or more, timeout more than 0 seconds.")
    with _only_one(Path(directory)), _session(retries, backoff) as session:
        settings = _Settings(session, progress, retries, backoff, timeout, limits, keep_archives)
        return _fetch_all(downloads, settings, Path(directory))


def _only_one(directory: Path) -> AbstractContextManager[object]:
    """Keep two fetches from writing to the same files."""
    if directory.exists() and not directory.is_dir():
        raise InputError(f"{directory} is a file: name a folder to fetch into.")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        return FileLock(directory / ".fetch.lock").acquire(timeout=0)
    except Timeout:
        raise FetchError(
            f"Another fetch is at work in {directory}: wait for it, or name another folder."
        ) from None
    except OSError as error:
        raise InputError(f"{directory} cannot be written to ({error}): name another folder.") from error


class _BoundedRetry(Retry):
    """Urllib3's retries, with a bound on how long a server may ask us to wait."""

    def get_retry_after(self, response: urllib3.BaseHTTPResponse) -> float | None:
        """Seconds the server asks for, at most ``_LONGEST_WAIT`` units of backoff."""
        seconds = super().get_retry_after(response)
        return None if seconds is None else min(seconds, _LONGEST_WAIT * self.backoff_factor)


def _session(retries: int, backoff: float) -> requests.Session:
    retry = _BoundedRetry(
        total=retries,
        backoff_factor=backoff,
        backoff_max=_LONGEST_WAIT,
        status_forcelist=_TRY_AGAIN_STATUSES,
        allowed_methods=frozenset({"GET"}),
        raise_on_status=False,
    )
    session = requests.Session()
    session.mount("https://", HTTPAdapter(max_retries=retry))
    session.mount("http://", HTTPAdapter(max_retries=retry))
    # Sizes and ranges count the bytes of the file, so it must not be compressed on the way.
    session.headers.update({"User-Agent": _user_agent(), "Accept-Encoding": "identity"})
    return session


def _user_agent() -> str:
    try:
        return f"ahba-lake/{metadata.version('ahba-lake')}"
    except metadata.PackageNotFoundError:
        return "ahba-lake"


def _fetch_all(downloads: Sequence[Download], settings: _Settings, directory: Path) -> list[Fetched]:
    fetched: list[Fetched] = []
    failures: list[str] = []
    for download in downloads:
        try:
            fetched.append(_fetch_one(download, settings))
        except (FetchError, OSError) as error:
            log.warning("%s from %s: %s", download.name, download.url, str(error))
            failures.append(f"- {download.name} from {download.url}: {error}")
    if failures:
        summary = f"{len(failures)} of {len(downloads)} files could not be fetched into {directory}"
        raise FetchError("\n".join([f"{summary}; fetching again goes on where this stopped.", *failures]))
    return fetched


def _fetch_one(download: Download, settings: _Settings) -> Fetched:
    if download.is_present:
        _Part.take_up(download).discard()  # an interruption just behind the finish leaves it
        return Fetched(download, download.target, "present")
    status = _obtain(download, settings)
    log.info("%s: %s", download.target, status)
    return Fetched(download, download.target, status)


def _obtain(download: Download, settings: _Settings) -> Status:
    if download.target.exists():
        raise FetchError(
            f"{download.target} is there but lacks {_listed(download.missing())}: "
            "move it away, then fetch again"
        )
    if download.file.exists():
        _unpack_given(download, settings.limits)
        return "unpacked"
    download.file.parent.mkdir(parents=True, exist_ok=True)
    job = _Job(download, _Part.take_up(download), settings)
    try:
        _fetch_checked(job)
    except _DamagedError as error:
        log.warning("%s: %s; downloading it once more", download.name, str(error))
        _fetch_again(job)
    except _RefusedError as error:
        raise FetchError(str(error)) from error
    return "fetched"


def _fetch_again(job: "_Job") -> None:
    """Give a damaged download, perhaps pieced together from two versions, a second chance."""
    try:
        _fetch_checked(job)
    except _RefusedError as error:
        raise FetchError(f"{error}, and so it was twice: try again later, or from another network") from error


def _fetch_checked(job: "_Job") -> None:
    """Fill the part, check it and put it in its place; what is refused is not kept."""
    try:
        _fill(job)
        _check_size(job.part.offset, job.download)
        _FINISH[job.download.what](job.download, job.part.path, job.settings)
    except _RefusedError:
        job.part.discard()
        raise
    job.part.forget()


# --------------------------------------------------------------------------------------------------
# The transfer of one file


@dataclass(frozen=True)
class _Origin:
    """What the server said of the file that a part belongs to."""

    url: str
    etag: str | None
    last_modified: str | None
    size: int | None

    @classmethod
    def of(cls, response: requests.Response, url: str, size: int | None) -> Self:
        return cls(url, response.headers.get("ETag"), response.headers.get("Last-Modified"), size)

    @property
    def validator(self) -> str | None:
        """What ``If-Range`` takes: a strong entity tag, or else the date (RFC 9110, 13.1.5)."""
        weak = self.etag is None or self.etag.startswith("W/")
        return self.last_modified if weak else self.etag

    def contradicts(self, response: requests.Response) -> bool:
        """Whether an answer is about another version, although the server sends a range of it."""
        told = {"ETag": self.etag, "Last-Modified": self.last_modified}
        return any(old and response.headers.get(name, old) != old for name, old in told.items())


class _Part:
    """The growing file ``<name>.part`` and, beside it, the version of the file it is a part of."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record = path.with_name(f"{path.name}.json")
        self.origin: _Origin | None = None

    @classmethod
    def take_up(cls, download: Download) -> Self:
        """Find what an earlier call left; a part of unknown origin counts for nothing."""
        part = cls(download.file.with_name(f"{download.file.name}.part"))
        try:
            origin = _Origin(**json.loads(part.record.read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return part
        part.origin = origin if origin.url == download.url else None
        return part

    @property
    def offset(self) -> int:
        """How many bytes of the file are there."""
        return self.path.stat().st_size if self.origin is not None and self.path.exists() else 0

    @property
    def whole(self) -> bool:
        return self.origin is not None and self.path.exists() and self.offset == self.origin.size

    @property
    def known_origin(self) -> _Origin:
        if self.origin is None:
            raise ValueError(f"{self.path} is not known to be a part of any file")
        return self.origin

    def range_headers(self) -> dict[str, str]:
        """Ask for what is missing, of the same version."""
        if self.origin is None or not self.offset:
            return {}
        validator = self.origin.validator
        return {"Range": f"bytes={self.offset}-"} | ({"If-Range": validator} if validator else {})

    def belongs_to(self, origin: _Origin) -> None:
        """Record the version; in a file, because the next call may have to know."""
        self.record.write_text(json.dumps(asdict(origin)), "utf-8")
        self.origin = origin

    def restart(self, origin: _Origin) -> None:
        self.discard()
        self.belongs_to(origin)
        self.path.touch()

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self.forget()

    def forget(self) -> None:
        self.record.unlink(missing_ok=True)
        self.origin = None


@dataclass(frozen=True)
class _Job:
    """One file's transfer: what is asked for, what of it is there, and how to get the rest."""

    download: Download
    part: _Part
    settings: _Settings

    def report(self, done: int, total: int | None) -> None:
        if self.settings.progress is not None:
            self.settings.progress(self.download.name, done, total)


def _fill(job: _Job) -> None:
    """Request until the part is whole; tries are counted from the last one that got on."""
    tries, furthest = 0, job.part.offset
    while not job.part.whole:
        try:
            _request(job)
        except _InterruptedError as error:
            offset = job.part.offset
            tries = 1 if offset >= furthest + _MIB else tries + 1
            furthest = max(furthest, offset)
            if tries > job.settings.retries:
                raise FetchError(
                    f"{error}; given up after {tries} tries, {offset:,} bytes are kept"
                ) from error
            # As text: a log record that is kept must not keep the exception, which holds the connection.
            log.warning("%s: %s; trying again", job.download.name, str(error))
            time.sleep(min(job.settings.backoff * 2 ** (tries - 1), _LONGEST_WAIT))


def _request(job: _Job) -> None:
    url, headers = job.download.url, job.part.range_headers()
    timeouts = (job.settings.timeout, job.settings.timeout)
    log.info("%s: requesting %s, %s", job.download.name, url, headers.get("Range", "all of it"))
    try:
        response = job.settings.session.get(url, headers=headers, stream=True, timeout=timeouts)
    except requests.RequestException as error:
        raise FetchError(f"the server did not answer ({_reason(error)})") from error
    with response:
        receive = (_ANSWERS_TO_RANGE if headers else _ANSWERS).get(response.status_code)
        if receive is None:
            advice = "try again later" if response.status_code >= 500 else "is base_url the right server?"
            raise FetchError(f"the server answered {response.status_code} {response.reason}: {advice}")
        receive(response, job)


def _reason(error: requests.RequestException | urllib3.exceptions.HTTPError) -> object:
    """What a person can act on, out of its wrappings ("max retries exceeded ..")."""
    first = error.args[0] if error.args else error
    return getattr(first, "reason", None) or first


def _receive_whole(response: requests.Response, job: _Job) -> None:
    """Answer 200: the file from its first byte, and an end to what was there of another version."""
    size = _content_length(response)
    chunks = _chunks(response)
    opening = next(chunks, b"")
    # An error page must neither pass for a file nor cost what is there already.
    _check_opening(opening, job.download)
    _check_declared(size, job.download, job.settings.limits)
    job.part.restart(_Origin.of(response, job.download.url, size))
    _append(itertools.chain([opening], chunks), job)


def _receive_rest(response: requests.Response, job: _Job) -> None:
    """Answer 206: the bytes that are missing, if the answer is about the same file."""
    start, total = _content_range(response)
    origin = job.part.known_origin
    size = total if origin.size is None else origin.size
    if start != job.part.offset or total not in (None, size) or origin.contradicts(response):
        job.part.discard()
        raise _InterruptedError("the file changed on the server while it was fetched")
    job.part.belongs_to(replace(origin, size=size))
    _append(_chunks(response), job)


def _nothing_left(response: requests.Response, job: _Job) -> None:
    """Answer 416: there is nothing behind the bytes we have; if the sizes agree they are all."""
    _, total = _content_range(response)
    origin = job.part.known_origin
    if total != job.part.offset or origin.size not in (None, total):
        job.part.discard()
        raise _InterruptedError("the file on the server is not as long as it was said to be")
    job.part.belongs_to(replace(origin, size=total))


_Answer = Callable[[requests.Response, _Job], None]
_ANSWERS: dict[int, _Answer] = {200: _receive_whole}
_ANSWERS_TO_RANGE: dict[int, _Answer] = {200: _receive_whole, 206: _receive_rest, 416: _nothing_left}


def _content_length(response: requests.Response) -> int | None:
    """Bytes the answer declares; chunked answers declare none (RFC 9112, 6.3)."""
    length = response.headers.get("Content-Length", "")
    chunked = "chunked" in response.headers.get("Transfer-Encoding", "").lower()
    return int(length) if length.isdecimal() and not chunked else None


def _content_range(response: requests.Response) -> tuple[int | None, int | None]:
    """First byte of the range, and size of the whole file; None for what is not told."""
    found = re.fullmatch(
        r"bytes (?:(\d+)-\d+|\*)/(?:(\d+)|\*)", response.headers.get("Content-Range", ""), re.IGNORECASE
    )
    start, total = found.groups() if found else (None, None)
    return (None if start is None else int(start), None if total is None else int(total))


def _chunks(response: requests.Response) -> Iterator[bytes]:
    """Stream the bytes as they are on the wire: a ``.gz`` must stay one whatever the headers say."""
    try:
        while chunk := response.raw.read(_CHUNK, decode_content=False):
            yield chunk
    except urllib3.exceptions.HTTPError as error:
        raise _InterruptedError(f"the connection broke off ({_reason(error)})") from error


def _append(chunks: Iterable[bytes], job: _Job) -> None:
    origin, done = job.part.known_origin, job.part.offset
    bound = job.settings.limits.download if origin.size is None else origin.size
    with job.part.path.open("ab") as file:
        for chunk in chunks:
            done += len(chunk)
            if done > bound:
                raise _RefusedError(f"the server sent more than the {bound:,} bytes there may be")
            file.write(chunk)
            job.report(done, origin.size)
    if origin.size is not None and done < origin.size:
        raise _InterruptedError(f"the connection ended at byte {done:,} of {origin.size:,}")
    job.part.belongs_to(replace(origin, size=done))


# --------------------------------------------------------------------------------------------------
# Is it what was published?


def _check_opening(opening: bytes, download: Download) -> None:
    """Compare the first bytes; a shorter opening may be the beginning of the right one."""
    noun, magic = ("zip file", b"PK") if _MEMBERS[download.what] else ("gzip file", b"\x1f\x8b")
    if magic.startswith(opening[: len(magic)]):
        return
    if b"<html" in opening[:4096].lower():
        raise FetchError(
            f"the server answered an HTML page with status 200 instead of a {noun}{_title(opening)}; "
            "it does so when it is in trouble: try again later"
        )
    raise FetchError(f"the server answered something that is not a {noun} (it begins {opening[:16]!r})")


def _title(page: bytes) -> str:
    found = re.search(
        r"<title[^>]*>(.*?)</title", page[:4096].decode("utf-8", "replace"), re.DOTALL | re.IGNORECASE
    )
    title = " ".join(html.unescape(found[1]).split())[:120] if found else ""
    return f", titled {title!r}" if title else ""


def _check_declared(size: int | None, download: Download, limits: Limits) -> None:
    """Refuse a wrong size before hundreds of MiB are on their way."""
    if size is None:
        return
    if size > limits.download:
        raise FetchError(f"the server declares {size:,} bytes, more than the {limits.download:,} allowed")
    try:
        _check_size(size, download)
    except _RefusedError as error:
        raise FetchError(str(error)) from error


def _check_size(size: int, download: Download) -> None:
    if download.size not in (None, size):
        raise _RefusedError(
            f"the server's file has {size:,} bytes, the published one {download.size:,}: try again later, "
            "or, if a new version was published, fetch without the size check (check_sizes=False)"
        )


def _check_image(path: Path, limits: Limits) -> None:
    """Read a gzipped NIfTI through: its checksum, and a header of the right length."""
    try:
        with gzip.open(path) as image:
            header = image.read(4)
            _copy(image, None, limits.entry)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _DamagedError(f"the gzip file is damaged or truncated ({error})") from error
    if not {int.from_bytes(header, "little"), int.from_bytes(header, "big")} & {348, 540}:
        raise _RefusedError("the gzip file holds no NIfTI image: try again later")


def _copy(source: IO[bytes] | gzip.GzipFile, sink: IO[bytes] | None, bound: int) -> int:
    """Copy what a stream really yields, whatever it declared, and count it."""
    done = 0
    while chunk := source.read(_CHUNK):
        done += len(chunk)
        if done > bound:
            raise _RefusedError(f"unpacking yields more than the {bound:,} bytes there may be")
        if sink is not None:
            sink.write(chunk)
    return done


# --------------------------------------------------------------------------------------------------
# Putting it in its place


def _finish_archive(download: Download, path: Path, settings: _Settings) -> None:
    _unpack(path, download, settings.limits)
    if settings.keep_archives:
        path.rename(download.kept)
    else:
        path.unlink()


def _finish_image(download: Download, path: Path, settings: _Settings) -> None:
    _check_image(path, settings.limits)
    path.rename(download.target)


_FINISH: dict[What, Callable[[Download, Path, _Settings], None]] = {
    "microarray": _finish_archive,
    "rnaseq": _finish_archive,
    "mri": _finish_image,
}


def _unpack_given(download: Download, limits: Limits) -> None:
    """Unpack an archive that lies there under its final name; it is not ours to remove, so it is kept."""
    try:
        _check_size(download.file.stat().st_size, download)
        _unpack(download.file, download, limits)
    except _RefusedError as error:
        raise FetchError(f"{download.file}, which lies there, is of no use: {error}; remove it") from error
    download.file.rename(download.kept)


# What zipfile raises for broken input, beside its own error.
_BROKEN_ARCHIVE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, NotImplementedError)


def _unpack(archive: Path, download: Download, limits: Limits) -> None:
    """Unpack into ``<target>.part``, checking every checksum, and rename that folder."""
    target, members = download.target, _MEMBERS[download.what]
    scratch = target.with_name(f"{target.name}.part")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        with zipfile.ZipFile(archive) as bundle:
            files = _checked_entries(bundle.infolist(), target.name, members, limits)
            _check_space(scratch, sum(entry.file_size for entry in files.values()))
            for name, entry in files.items():
                _unpack_entry(bundle, entry, scratch / name)
        scratch.rename(target)
    except _BROKEN_ARCHIVE as error:
        raise _DamagedError(f"the zip file is damaged or truncated ({error})") from error
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise _DamagedError("the zip file is damaged (it points to before its beginning)") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _unpack_entry(bundle: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> None:
    with bundle.open(entry) as source, path.open("xb") as sink:
        size = _copy(source, sink, entry.file_size)
    if size != entry.file_size:
        raise zipfile.BadZipFile(f"{entry.filename!r} ends at byte {size:,} of {entry.file_size:,}")


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(errno.ENOSPC, f"Unpacking needs {needed:,} bytes, {free:,} are free", str(folder))


def _checked_entries(
    entries: Sequence[zipfile.ZipInfo], folder: str, members: Sequence[str], limits: Limits
) -> dict[str, zipfile.ZipInfo]:
    """File name -> entry, for an archive in which all of the entries are beyond reproach."""
    if len(entries) > limits.entries:
        raise _RefusedError(f"the zip file has {len(entries):,} entries, more than {limits.entries}")
    for entry in entries:
        _check_entry(entry, folder, limits)
    if sum(entry.file_size for entry in entries) > limits.unpacked:
        raise _RefusedError(f"the zip file unpacks to more than {limits.unpacked:,} bytes")
    files = {_basename(entry): entry for entry in entries if not _is_folder(entry)}
    # On some file systems names that differ in case only are one file.
    if len({name.casefold() for name in files}) < sum(not _is_folder(entry) for entry in entries):
        raise _RefusedError("the zip file holds two files of the same name")
    missing = [name for name in members if name not in files]
    if missing:
        raise _RefusedError(f"the zip file lacks {_listed(missing)}: it is not the published one")
    return files


def _check_entry(entry: zipfile.ZipInfo, folder: str, limits: Limits) -> None:
    reasons = [reason for reason, is_so in _ENTRY_REFUSALS.items() if is_so(entry)]
    if _is_nested(entry, folder):
        reasons.append("lies in a folder of its own")
    if entry.file_size > limits.entry:
        reasons.append(f"unpacks to more than {limits.entry:,} bytes")
    if entry.file_size > max(limits.ratio * entry.compress_size, _MIB):
        reasons.append("is packed too densely to be data")
    if reasons:
        raise _RefusedError(
            f"the zip file's entry {entry.orig_filename!r} {reasons[0]}, nothing was unpacked"
        )


def _basename(entry: zipfile.ZipInfo) -> str:
    return entry.filename.rsplit("/", 1)[-1]


def _is_folder(entry: zipfile.ZipInfo) -> bool:
    """As ``ZipInfo.is_dir``, which fails on an empty name."""
    return entry.filename.endswith("/")


def _is_climbing(entry: zipfile.ZipInfo) -> bool:
    return bool({".", ".."} & set(entry.filename.split("/")))


def _is_foreign(entry: zipfile.ZipInfo) -> bool:
    """Backslashes and drive letters mean folders elsewhere; zipfile cuts names at a NUL."""
    return re.search(r'[\x00-\x1f\x7f\\:*?"<>|]', entry.orig_filename) is not None


def _is_nested(entry: zipfile.ZipInfo, folder: str) -> bool:
    """Whether it lies deeper than in the one folder an archive of that name may hold."""
    parent, separator, _ = entry.filename.rpartition("/")
    return bool(separator) and parent != folder


def _is_special(entry: zipfile.ZipInfo) -> bool:
    """Whether its Unix mode says symbolic link, device, .. (no mode at all is a file from elsewhere)."""
    kind = stat.S_IFMT(entry.external_attr >> 16)
    return kind not in (0, stat.S_IFDIR if _is_folder(entry) else stat.S_IFREG)


_ENTRY_REFUSALS: dict[str, Callable[[zipfile.ZipInfo], bool]] = {
    "has no name": lambda entry: not entry.filename,
    "is encrypted": lambda entry: bool(entry.flag_bits & 0x1),
    "has an absolute name": lambda entry: entry.filename.startswith("/"),
    "leads out of the folder": _is_climbing,
    "has characters no file name should have": _is_foreign,
    "is not a regular file": _is_special,
    "is packed by a method the published files do not use": lambda entry: (
        entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    ),
}
