"""Fetching the published files: the way in begins at the Allen Institute's server.

The expression tables of the six donors are zip files, their structural images gzipped NIfTI (Hawrylycz
et al. 2012, Nature 489:391). The server is slow, breaks off, and may answer an error page with status
200; people have long been left with truncated archives. Here nothing carries its final name before it
is whole and checked: a download grows as ``<file>.part``, goes on where it broke off, an archive is
unpacked into ``<folder>.part`` and that folder is renamed.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from ingest.archives import check_image, unpack
from ingest.errors import DamagedError, FetchError, InputError, RefusedError
from ingest.parts import Part
from ingest.published import ALLEN_SERVER, LIMITS, Download, Limits, What, plan
from ingest.transfer import Job, Progress, Settings, fill, open_session

__all__ = ["ALLEN_SERVER", "Fetched", "fetch", "plan"]

log = logging.getLogger(__name__)

Status = Literal["present", "unpacked", "fetched"]


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
    with _only_one(Path(directory)), open_session(retries, backoff) as session:
        settings = Settings(session, progress, retries, backoff, timeout, limits, keep_archives)
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


def _fetch_all(downloads: Sequence[Download], settings: Settings, directory: Path) -> list[Fetched]:
    fetched: list[Fetched] = []
    failures: list[str] = []
    for download in downloads:
        try:
            fetched.append(_fetch_one(download, settings))
        except (FetchError, OSError) as error:
            log.info("%s from %s: %s", download.name, download.url, str(error))
            failures.append(f"- {download.name} from {download.url}: {error}")
    if failures:
        summary = f"{len(failures)} of {len(downloads)} files could not be fetched into {directory}"
        raise FetchError("\n".join([f"{summary}; fetching again goes on where this stopped.", *failures]))
    return fetched


def _fetch_one(download: Download, settings: Settings) -> Fetched:
    if download.is_present:
        Part.take_up(download).discard()  # an interruption just behind the finish leaves it
        return Fetched(download, download.target, "present")
    status = _obtain(download, settings)
    log.info("%s: %s", download.target, status)
    return Fetched(download, download.target, status)


def _obtain(download: Download, settings: Settings) -> Status:
    if download.target.exists():
        raise FetchError(
            f"{download.target} is there but lacks {', '.join(download.missing())}: "
            "move it away, then fetch again"
        )
    if download.file.exists():
        _unpack_given(download, settings.limits)
        return "unpacked"
    download.file.parent.mkdir(parents=True, exist_ok=True)
    job = Job(download, Part.take_up(download), settings)
    try:
        _fetch_checked(job)
    except DamagedError as error:
        log.warning("%s: %s; downloading it once more", download.name, str(error))
        _fetch_again(job)
    except RefusedError as error:
        raise FetchError(str(error)) from error
    return "fetched"


def _fetch_again(job: Job) -> None:
    """Give a damaged download, perhaps pieced together from two versions, a second chance."""
    try:
        _fetch_checked(job)
    except RefusedError as error:
        raise FetchError(f"{error}, and so it was twice: try again later, or from another network") from error


def _fetch_checked(job: Job) -> None:
    """Fill the part, check it and put it in its place; what is refused is not kept."""
    try:
        fill(job)
        job.download.check_size(job.part.offset)
        _FINISH[job.download.what](job.download, job.part.path, job.settings)
    except RefusedError:
        job.part.discard()
        raise
    job.part.forget()


def _finish_archive(download: Download, path: Path, settings: Settings) -> None:
    unpack(path, download.target, members=download.members, limits=settings.limits)
    if settings.keep_archives:
        path.rename(download.kept)
    else:
        path.unlink()


def _finish_image(download: Download, path: Path, settings: Settings) -> None:
    check_image(path, settings.limits)
    path.rename(download.target)


_FINISH: dict[What, Callable[[Download, Path, Settings], None]] = {
    "microarray": _finish_archive,
    "rnaseq": _finish_archive,
    "mri": _finish_image,
}


def _unpack_given(download: Download, limits: Limits) -> None:
    """Unpack an archive that lies there under its final name; it is not ours to remove, so it is kept."""
    try:
        download.check_size(download.file.stat().st_size)
        unpack(download.file, download.target, members=download.members, limits=limits)
    except RefusedError as error:
        raise FetchError(f"{download.file}, which lies there, is of no use: {error}; remove it") from error
    download.file.rename(download.kept)
