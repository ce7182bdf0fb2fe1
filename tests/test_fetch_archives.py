"""Archives and images: hostile and damaged ones leave nothing."""

import gzip
import io
import stat
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.archives import copy_bounded
from ingest.errors import FetchError, RefusedError
from ingest.fetch import fetch
from ingest.published import Limits
from ingest.sources import MICROARRAY_FILES
from tests.fetching import BODY, DONOR, ERROR_PAGE, NAME, PATH, contents, get, image, left, there, zipped
from tests.http_server import Resource, Server

# ---------------------------------------------------------------- hostile and damaged archives


def with_entry(name: str, *, mode: int = 0, data: bytes = b"x") -> bytes:
    """An archive with everything in it, and one entry more."""
    buffer = io.BytesIO(BODY)
    entry = zipfile.ZipInfo("placeholder")
    entry.filename, entry.external_attr = name, mode << 16
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED) as archive:
        warnings.simplefilter("ignore", UserWarning)  # the duplicate is meant
        archive.writestr(entry, data, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def patched(body: bytes, field: int, value: bytes) -> bytes:
    """Overwrite a field of the first entry in the central directory."""
    at = body.index(b"PK\x01\x02") + field
    return body[:at] + value + body[at + len(value) :]


def without(name: str) -> bytes:
    return zipped({key: data for key, data in contents().items() if key != name})


HOSTILE = {
    "climbing": (with_entry("../escaped"), "'../escaped' leads out of the folder"),
    "climbing further down": (with_entry(f"{NAME}/../../escaped"), "leads out of the folder"),
    "absolute": (with_entry("/tmp/escaped"), "has an absolute name"),  # noqa: S108 -- never written
    "backslash": (with_entry("..\\escaped"), "has characters no file name should have"),
    "drive letter": (with_entry("C:escaped"), "has characters no file name should have"),
    "newline": (with_entry("a\nb"), "has characters no file name should have"),
    "NUL": (
        with_entry("Probes.csv!x").replace(b"csv!x", b"csv\0x"),
        "has characters no file name should have",
    ),
    "nested": (with_entry("folder/file"), "lies in a folder of its own"),
    "nested deeper": (with_entry(f"{NAME}/folder/file"), "lies in a folder of its own"),
    "nameless": (patched(BODY, 28, b"\0\0\0\0\x18\0"), "entry '' has no name"),
    "nested folder": (with_entry("folder/"), "lies in a folder of its own"),
    "symbolic link": (with_entry("link", mode=stat.S_IFLNK | 0o777, data=b"/etc"), "is not a regular file"),
    "device": (with_entry("device", mode=stat.S_IFCHR), "is not a regular file"),
    "folder posing as a file": (with_entry("folder", mode=stat.S_IFDIR), "is not a regular file"),
    "twice": (with_entry("Probes.csv"), "two files of the same name"),
    "twice but for case": (with_entry("probes.CSV"), "two files of the same name"),
    "twice with a folder": (with_entry(f"{NAME}/Probes.csv"), "two files of the same name"),
    "bomb": (with_entry("zeros", data=bytes(3_000_000)), "'zeros' is packed too densely"),
    "encrypted": (patched(BODY, 8, b"\x01"), "is encrypted"),
    "strange packing": (zipped(contents(), packing=zipfile.ZIP_LZMA), "packed by a method"),
    "declares much": (patched(BODY, 24, b"\xf0\xff\xff\x0f"), "is packed too densely"),
    "lacks a file": (without("PACall.csv"), r"lacks PACall\.csv: it is not the published one"),
    "lacks all": (zipped({}), "lacks MicroarrayExpression.csv, PACall.csv, Probes.csv"),
}


@pytest.mark.parametrize(("body", "message"), HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_archives_are_refused_whole(
    body: bytes, message: str, server: Server, tmp_path: Path
) -> None:
    server.resources[PATH] = Resource(body)
    folder = tmp_path / "below" / "here"
    with pytest.raises(FetchError, match=message):
        get(server, folder)
    assert left(folder) == set()
    assert len(server.requests) == 1
    assert {path.name for path in tmp_path.rglob("*")} <= {"below", "here", ".fetch.lock"}


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(entry=399), "unpacks to more than 399 bytes"),
        (Limits(unpacked=2399), "unpacks to more than 2,399 bytes"),
        (Limits(entries=5), "has 6 entries, more than 5"),
    ],
)
def test_archives_are_bounded(limits: Limits, message: str, server: Server, tmp_path: Path) -> None:
    server.resources[PATH] = Resource(BODY)
    with pytest.raises(FetchError, match=message):
        get(server, tmp_path, limits=limits)
    assert left(tmp_path) == set()
    get(server, tmp_path, limits=Limits(entry=400, unpacked=2400, entries=6))


def test_an_entry_may_not_yield_more_than_it_declares() -> None:
    with pytest.raises(RefusedError, match="more than the 9 bytes"):
        copy_bounded(io.BytesIO(bytes(10)), io.BytesIO(), 9)


DAMAGED = {
    "checksum": BODY[:200] + bytes([BODY[200] ^ 1]) + BODY[201:],
    "declares less": patched(BODY, 24, (10).to_bytes(4, "little")),
    "declares more": patched(BODY, 24, (401).to_bytes(4, "little")),
    "central directory": BODY.replace(b"PK\x01\x02", b"PK\x01\x03"),
    "truncated": BODY[:-1000],
    "entry before the beginning": patched(BODY, 42, b"\xff\xff\xff\x7f"),
    "directory before the beginning": BODY[:-6] + b"\xff\xff\xff\x7f" + BODY[-2:],
}


@pytest.mark.parametrize("body", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_archive_is_fetched_once_more(body: bytes, server: Server, tmp_path: Path) -> None:
    server.resources[PATH] = Resource(body)
    with pytest.raises(FetchError, match=r"zip file is damaged .*twice"):
        get(server, tmp_path)
    assert server.ranges_asked() == [None, None]
    assert left(tmp_path) == set()


@pytest.mark.parametrize("body", [BODY[:-1], ERROR_PAGE, without("PACall.csv")])
def test_a_useless_archive_put_there_by_hand_is_named_and_left(
    body: bytes, server: Server, tmp_path: Path
) -> None:
    archive = tmp_path / f"{NAME}.zip"
    archive.write_bytes(body)
    with pytest.raises(FetchError, match=rf"{archive}, which lies there, is of no use: .*; remove it"):
        get(server, tmp_path)
    assert left(tmp_path) == {archive.name}
    assert archive.read_bytes() == body


def unpack_by_hand(body: bytes, check: Callable[[dict[str, bytes]], None]) -> None:
    """Unpack an archive that may be anything; nothing but a whole folder may come of it."""
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / f"{NAME}.zip"
        archive.write_bytes(body)
        try:
            fetch(Path(folder), donors=[DONOR], base_url="http://127.0.0.1:9")
        except FetchError:
            assert left(Path(folder)) == {archive.name}
        else:
            check(there(Path(folder) / NAME))


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(st.integers(0, len(BODY) - 1), st.integers(1, 255)), min_size=1, max_size=3))
def test_flipped_bytes_are_noticed_or_harmless(flips: list[tuple[int, int]]) -> None:
    body = bytearray(BODY)
    for at, mask in flips:
        body[at] ^= mask

    def check(found: dict[str, bytes]) -> None:
        assert {name: found[name] for name in MICROARRAY_FILES} == {
            name: contents()[name] for name in MICROARRAY_FILES
        }

    unpack_by_hand(bytes(body), check)


@settings(deadline=None, max_examples=100)
@given(st.integers(BODY.index(b"PK\x01\x02"), len(BODY) - 1), st.binary(min_size=1, max_size=8))
def test_a_forged_directory_is_noticed_or_harmless(at: int, forged: bytes) -> None:
    def check(found: dict[str, bytes]) -> None:
        assert set(MICROARRAY_FILES) <= set(found)

    unpack_by_hand(BODY[:at] + forged + BODY[at + len(forged) :], check)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, len(BODY) - 1))
def test_truncated_archives_are_noticed(size: int) -> None:
    def check(found: dict[str, bytes]) -> None:
        pytest.fail("a truncated archive was unpacked")

    unpack_by_hand(BODY[:size], check)


# ---------------------------------------------------------------- images

T1_PATH = "/api/v2/well_known_file_download/157722290"
T2_PATH = "/api/v2/well_known_file_download/157722292"


@pytest.mark.parametrize(
    ("body", "message", "choices"),
    [
        (image()[:-9], "gzip file is damaged or truncated .*twice", {}),
        (image()[:500] + b"\0" + image()[501:], "gzip file is damaged or truncated .*twice", {}),
        (image(first=7), "holds no NIfTI image", {}),
        (gzip.compress(b""), "holds no NIfTI image", {}),
        (image(), "yields more than the 999 bytes", {"limits": Limits(entry=999)}),
        (ERROR_PAGE, "HTML page with status 200 instead of a gzip file, titled", {}),
        (BODY, "not a gzip file", {}),
    ],
)
def test_bad_images_are_refused(
    body: bytes, message: str, choices: dict[str, Any], server: Server, tmp_path: Path
) -> None:
    server.resources |= {T1_PATH: Resource(body), T2_PATH: Resource(image(first=348))}
    with pytest.raises(FetchError, match=f"T1.nii.gz from .*{message}"):
        get(server, tmp_path, what=["mri"], **choices)
    assert "T1.nii.gz" not in there(tmp_path / f"mri_donor{DONOR}")


def test_an_image_stays_packed_whatever_the_server_calls_it(server: Server, tmp_path: Path) -> None:
    body = image(size=5000)
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/octet-stream"}
    server.resources[T1_PATH] = Resource(body, breaks=[1000], headers=headers)
    server.resources[T2_PATH] = Resource(image(2, first=540))
    get(server, tmp_path, what=["mri"])
    assert there(tmp_path / f"mri_donor{DONOR}") == {"T1.nii.gz": body, "T2.nii.gz": image(2, first=540)}
