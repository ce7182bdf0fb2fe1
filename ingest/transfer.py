"""Transfers over HTTP: the bytes of one published file, from a server that is slow and breaks off.

:func:`fill` requests until a :class:`~ingest.parts.Part` is whole, each time only what is missing, and
takes neither an error page sent with status 200 nor the bytes of another version for the file.
"""

import html
import itertools
import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from importlib import metadata

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

from ingest.errors import FetchError, RefusedError
from ingest.parts import Origin, Part
from ingest.published import MIB, Download, Limits

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int | None], None]

_CHUNK = 128 * 1024
_LONGEST_WAIT = 60.0
_TRY_AGAIN_STATUSES = (429, 500, 502, 503, 504)


class _InterruptedError(Exception):
    """The answer ended early, or cannot be added to what is there: worth another try."""


@dataclass(frozen=True)
class Settings:
    """The choices of one call of fetch, the same for all its files.

    Attributes
    ----------
    session : requests.Session
        As :func:`open_session` makes it.
    progress : callable or None
        Called as ``progress(name, bytes_so_far, bytes_in_all_or_None)``.
    retries : int
        Further tries in a row for a download that breaks off.
    backoff : float
        Unit, in seconds, of the waits between tries.
    timeout : float
        Seconds to wait for a connection, and for each piece of an answer.
    limits : Limits
    keep_archives : bool
        Whether a zip file is kept once it is unpacked.
    """

    session: requests.Session
    progress: Progress | None
    retries: int
    backoff: float
    timeout: float
    limits: Limits
    keep_archives: bool


@dataclass(frozen=True)
class Job:
    """One file's transfer: what is asked for, what of it is there, and how to get the rest.

    Attributes
    ----------
    download : Download
    part : Part
    settings : Settings
    """

    download: Download
    part: Part
    settings: Settings

    def report(self, done: int, total: int | None) -> None:
        """Tell the caller's ``progress`` how many bytes of how many are there."""
        if self.settings.progress is not None:
            self.settings.progress(self.download.name, done, total)


class _BoundedRetry(Retry):
    """Urllib3's retries, with a bound on how long a server may ask us to wait."""

    def get_retry_after(self, response: urllib3.BaseHTTPResponse) -> float | None:
        """Seconds the server asks for, at most ``_LONGEST_WAIT`` units of backoff."""
        seconds = super().get_retry_after(response)
        return None if seconds is None else min(seconds, _LONGEST_WAIT * self.backoff_factor)


def open_session(retries: int, backoff: float) -> requests.Session:
    """Make a session that repeats failing requests, asks for plain bytes and says who we are.

    Parameters
    ----------
    retries : int
        Further tries for a request that fails.
    backoff : float
        Unit, in seconds, of the waits between them, which double up to a minute; a server that asks for
        a longer wait gets 60 units at most.

    Returns
    -------
    requests.Session
    """
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


def fill(job: Job) -> None:
    """Request until the part is whole; tries are counted from the last one that got on.

    Raises
    ------
    FetchError
        If the server does not answer, answers something else, or breaks off too often; what came is kept.
    RefusedError
        If it sends more than there may be.
    """
    tries, furthest = 0, job.part.offset
    while not job.part.whole:
        try:
            _request(job)
        except _InterruptedError as error:
            offset = job.part.offset
            tries = 1 if offset >= furthest + MIB else tries + 1
            furthest = max(furthest, offset)
            if tries > job.settings.retries:
                raise FetchError(
                    f"{error}; given up after {tries} tries, {offset:,} bytes are kept"
                ) from error
            # As text: a log record that is kept must not keep the exception, which holds the connection.
            log.warning("%s: %s; trying again", job.download.name, str(error))
            time.sleep(min(job.settings.backoff * 2 ** (tries - 1), _LONGEST_WAIT))


def _request(job: Job) -> None:
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


def _receive_whole(response: requests.Response, job: Job) -> None:
    """Answer 200: the file from its first byte, and an end to what was there of another version."""
    size = _content_length(response)
    chunks = _chunks(response)
    opening = next(chunks, b"")
    # An error page must neither pass for a file nor cost what is there already.
    _check_opening(opening, job.download)
    _check_declared(size, job.download, job.settings.limits)
    job.part.restart(Origin.of(response, job.download.url, size))
    _append(itertools.chain([opening], chunks), job)


def _receive_rest(response: requests.Response, job: Job) -> None:
    """Answer 206: the bytes that are missing, if the answer is about the same file."""
    start, total = _content_range(response)
    origin = job.part.known_origin
    size = total if origin.size is None else origin.size
    if start != job.part.offset or total not in (None, size) or origin.contradicts(response):
        job.part.discard()
        raise _InterruptedError("the file changed on the server while it was fetched")
    job.part.belongs_to(replace(origin, size=size))
    _append(_chunks(response), job)


def _nothing_left(response: requests.Response, job: Job) -> None:
    """Answer 416: there is nothing behind the bytes we have; if the sizes agree they are all."""
    _, total = _content_range(response)
    origin = job.part.known_origin
    if total != job.part.offset or origin.size not in (None, total):
        job.part.discard()
        raise _InterruptedError("the file on the server is not as long as it was said to be")
    job.part.belongs_to(replace(origin, size=total))


_Answer = Callable[[requests.Response, Job], None]
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


def _append(chunks: Iterable[bytes], job: Job) -> None:
    origin, done = job.part.known_origin, job.part.offset
    bound = job.settings.limits.download if origin.size is None else origin.size
    with job.part.path.open("ab") as file:
        for chunk in chunks:
            done += len(chunk)
            if done > bound:
                raise RefusedError(f"the server sent more than the {bound:,} bytes there may be")
            file.write(chunk)
            job.report(done, origin.size)
    if origin.size is not None and done < origin.size:
        raise _InterruptedError(f"the connection ended at byte {done:,} of {origin.size:,}")
    job.part.belongs_to(replace(origin, size=done))


def _check_opening(opening: bytes, download: Download) -> None:
    """Compare the first bytes; a shorter opening may be the beginning of the right one."""
    noun, magic = ("zip file", b"PK") if download.members else ("gzip file", b"\x1f\x8b")
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
        download.check_size(size)
    except RefusedError as error:
        raise FetchError(str(error)) from error
