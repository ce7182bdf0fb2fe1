"""What the tests of fetching share: files such as are published, fetched from a server on this machine."""

import gzip
import io
import random
import zipfile
from pathlib import Path
from typing import Any

from ingest.fetch import Fetched, fetch
from ingest.sources import MICROARRAY_FILES
from tests.http_server import Server

DONOR = "12876"
PATH = "/api/v2/well_known_file_download/178238359"
NAME = f"normalized_microarray_donor{DONOR}"
# Of this donor's archive the exact size is known.
SIZED_DONOR = "9861"
SIZED_PATH = "/api/v2/well_known_file_download/178238387"
ERROR_PAGE = b"<!DOCTYPE html>\n<html><head><title>\n Service &amp; support </title></head><body/></html>"


def contents(seed: int = 1, *, size: int = 400) -> dict[str, bytes]:
    """Members of a microarray archive that hardly compress, so that every byte of the archive counts."""
    noise = random.Random(seed)
    return {name: noise.randbytes(size) for name in (*MICROARRAY_FILES, "Readme.txt")}


def zipped(members: dict[str, bytes], *, packing: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", packing) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, packing)
    return buffer.getvalue()


def image(seed: int = 1, *, size: int = 1000, first: int = 348) -> bytes:
    return gzip.compress(first.to_bytes(4, "little") + random.Random(seed).randbytes(size), mtime=0)


def get(server: Server, directory: Path, **choices: Any) -> list[Fetched]:
    usual: dict[str, Any] = {"donors": [DONOR], "base_url": server.url, "backoff": 0, "timeout": 5}
    return fetch(directory, **(usual | choices))


def there(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def left(directory: Path) -> set[str]:
    """What lies in the folder, beside the lock file."""
    return {path.name for path in directory.iterdir()} - {".fetch.lock"}


BODY = zipped(contents())
