"""Downloads that are under way: a file that grows, and what the server said of the whole of it.

A download grows as ``<file>.part``. Beside it ``<file>.part.json`` keeps the version of the file on the
server, so that a later call asks for the missing bytes of that version and of no other.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import requests

from ingest.published import Download


@dataclass(frozen=True)
class Origin:
    """What the server said of the file that a part belongs to.

    Attributes
    ----------
    url : str
    etag, last_modified : str or None
        Validators of the version, as the server sent them.
    size : int or None
        Bytes of the whole file; None as long as the server has not told.
    """

    url: str
    etag: str | None
    last_modified: str | None
    size: int | None

    @classmethod
    def of(cls, response: requests.Response, url: str, size: int | None) -> Self:
        """Take down what an answer says of the file."""
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


class Part:
    """The growing file ``<name>.part`` and, beside it, the version of the file it is a part of.

    Attributes
    ----------
    path, record : pathlib.Path
        The bytes, and the JSON file that keeps ``origin``.
    origin : Origin or None
        None where it is not known; what lies at ``path`` counts for nothing then.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record = path.with_name(f"{path.name}.json")
        self.origin: Origin | None = None

    @classmethod
    def take_up(cls, download: Download) -> Self:
        """Find what an earlier call left; a part of unknown origin counts for nothing."""
        part = cls(download.file.with_name(f"{download.file.name}.part"))
        try:
            origin = Origin(**json.loads(part.record.read_text("utf-8")))
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
        """Whether all bytes are there, and known to be all."""
        return self.origin is not None and self.path.exists() and self.offset == self.origin.size

    @property
    def known_origin(self) -> Origin:
        """The origin, where there must be one."""
        if self.origin is None:
            raise ValueError(f"{self.path} is not known to be a part of any file")
        return self.origin

    def range_headers(self) -> dict[str, str]:
        """Ask for what is missing, of the same version."""
        if self.origin is None or not self.offset:
            return {}
        validator = self.origin.validator
        return {"Range": f"bytes={self.offset}-"} | ({"If-Range": validator} if validator else {})

    def belongs_to(self, origin: Origin) -> None:
        """Record the version; in a file, because the next call may have to know."""
        self.record.write_text(json.dumps(asdict(origin)), "utf-8")
        self.origin = origin

    def restart(self, origin: Origin) -> None:
        """Begin anew, with no bytes, as a part of this version."""
        self.discard()
        self.belongs_to(origin)
        self.path.touch()

    def discard(self) -> None:
        """Remove the bytes and the record."""
        self.path.unlink(missing_ok=True)
        self.forget()

    def forget(self) -> None:
        """Remove the record only: the bytes have gone to their place."""
        self.record.unlink(missing_ok=True)
        self.origin = None
