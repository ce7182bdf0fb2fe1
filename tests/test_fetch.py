"""Fetching, against a server that breaks off, lies, and serves hostile archives."""

import gzip
import io
import json
import logging
import random
import shutil
import socket
import stat
import tempfile
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st
from urllib3 import HTTPResponse

from ingest import fetch as fetch_module
from ingest.errors import FetchError, InputError
from ingest.fetch import ALLEN_SERVER, PUBLISHED_FILES, Fetched, Limits, fetch, plan
from ingest.sources import MICROARRAY_FILES, find_donors
from tests.http_server import Resource, Server, serve

DONOR = "12876"
PATH = "/api/v2/well_known_file_download/178238359"
NAME = f"normalized_microarray_donor{DONOR}"
RNASEQ_FILES = ("Genes.csv", "RNAseqCounts.csv", "RNAseqTPM.csv", "SampleAnnot.csv", "Ontology.csv")
ERROR_PAGE = b"<!DOCTYPE html>\n<html><head><title>\n Service &amp; support </title></head><body/></html>"


@pytest.fixture(scope="module")
def running_server() -> Iterator[Server]:
    with serve() as server:
        yield server


@pytest.fixture
def server(running_server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    running_server.clear()
    return running_server


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


# ---------------------------------------------------------------- what is published and asked for


def test_plan_lists_every_published_file_and_touches_nothing(tmp_path: Path) -> None:
    downloads = plan(tmp_path / "new", what=("microarray", "rnaseq", "mri"))
    assert [download.what for download in downloads] == ["microarray"] * 6 + ["rnaseq"] * 2 + ["mri"] * 12
    assert (
        len({download.url for download in downloads}) == len({download.file for download in downloads}) == 20
    )
    assert not (tmp_path / "new").exists()


def test_plan_says_where_from_where_to_and_how_much(tmp_path: Path) -> None:
    (download,) = plan(tmp_path, donors=["9861"])
    assert download.url == "https://human.brain-map.org/api/v2/well_known_file_download/178238387"
    assert download.name == "normalized_microarray_donor9861.zip"
    assert download.target == tmp_path / "normalized_microarray_donor9861"
    assert (download.uid, download.size) == ("H0351.2001", 425_988_059)


def test_exact_and_rounded_sizes_agree() -> None:
    sizes = [(file.size, file.mebibytes) for file in PUBLISHED_FILES if file.size and file.mebibytes]
    assert len(sizes) == 2
    assert all(round(size / 2**20, 1) in (mib, round(mib + 0.1, 1)) for size, mib in sizes)
    total = sum(file.mebibytes or 0 for file in PUBLISHED_FILES if file.what == "microarray")
    assert total / 1024 == pytest.approx(1.57, abs=0.01)


@pytest.mark.parametrize(
    ("base_url", "check_sizes", "size"),
    [
        (ALLEN_SERVER, None, 425_988_059),
        (f"{ALLEN_SERVER}/", None, 425_988_059),
        (ALLEN_SERVER, False, None),
        ("https://mirror.example/ahba", None, None),
        ("https://mirror.example/ahba", True, 425_988_059),
    ],
)
def test_exact_sizes_hold_for_the_original_server_only(
    base_url: str, check_sizes: bool | None, size: int | None, tmp_path: Path
) -> None:
    (download,) = plan(tmp_path, donors=["9861"], base_url=base_url, check_sizes=check_sizes)
    assert download.size == size
    assert download.approximate_size == round(406.2 * 2**20)
    assert download.url.startswith(f"{base_url.rstrip('/')}/api/")


def test_donors_go_by_number_or_name_and_come_once(tmp_path: Path) -> None:
    downloads = plan(tmp_path, donors=["H0351.1016", "9861", "15697"])
    assert [download.donor for download in downloads] == ["9861", "15697"]
    assert [download.donor for download in plan(tmp_path, donors="H0351.1009")] == ["12876"]


def test_all_donors_of_rnaseq_are_two(tmp_path: Path) -> None:
    assert [download.donor for download in plan(tmp_path, what=["rnaseq"])] == ["9861", "10021"]


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        (
            {"donors": ["9861", "12876"], "what": ["microarray", "rnaseq"]},
            "No rnaseq .* 12876, only for 9861, 10021",
        ),
        ({"donors": ["9681"]}, "Unknown donors 9681: choose from 9861, H0351.2001"),
        ({"donors": []}, "No donors named: choose from"),
        ({"what": ["mircoarray"]}, "choose from microarray, rnaseq, mri"),
        ({"what": []}, "choose from microarray"),
        ({"base_url": "human.brain-map.org"}, "is not a server: give one like 'https://human"),
        ({"base_url": "ftp://human.brain-map.org"}, "is not a server"),
        ({"base_url": "https://mirror.example/?x=1"}, "is not a server"),
        ({"retries": -1}, "must be 0 or more"),
        ({"timeout": 0}, "timeout more than 0"),
    ],
)
def test_impossible_wishes_are_refused(choices: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        fetch(tmp_path / "new", **choices)
    assert not (tmp_path / "new").exists()


def test_a_password_in_the_address_is_refused_and_not_shown(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="netrc") as caught:
        plan(tmp_path, base_url="https://me:secret@mirror.example")
    assert "secret" not in str(caught.value)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file: name a folder"):
        fetch(tmp_path / "file")
    with pytest.raises(InputError, match="cannot be written to"):
        fetch(tmp_path / "file" / "below")


# ---------------------------------------------------------------- what is there in the end


def test_an_archive_becomes_a_folder(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ingest.fetch")
    server.resources[PATH] = Resource(zipped(contents()))
    (fetched,) = get(server, tmp_path / "new" / "folder")
    assert (fetched.status, fetched.path) == ("fetched", tmp_path / "new" / "folder" / NAME)
    assert there(fetched.path) == contents()
    assert left(fetched.path.parent) == {NAME}
    assert list(find_donors(fetched.path.parent)) == [DONOR]
    assert server.requests[0].headers["user-agent"].startswith("ahba-lake")
    assert server.requests[0].headers["accept-encoding"] == "identity"
    assert capsys.readouterr() == ("", "")
    assert "requesting" in caplog.text


def test_what_is_there_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    server.resources[PATH] = Resource(zipped(contents()))
    get(server, tmp_path)
    (tmp_path / f"{NAME}.zip.part").write_bytes(b"left by an interruption just before the end")
    server.requests.clear()
    assert [fetched.status for fetched in get(server, tmp_path)] == ["present"]
    assert not server.requests
    assert left(tmp_path) == {NAME}


def test_a_kept_archive_lies_where_ingest_does_not_take_it_for_a_second_donor(
    server: Server, tmp_path: Path
) -> None:
    body = zipped(contents())
    server.resources[PATH] = Resource(body)
    get(server, tmp_path, keep_archives=True)
    assert (tmp_path / NAME / f"{NAME}.zip").read_bytes() == body
    assert left(tmp_path) == {NAME}
    assert list(find_donors(tmp_path)) == [DONOR]


def test_an_archive_put_there_by_hand_is_unpacked_and_kept(server: Server, tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.zip").write_bytes(zipped(contents()))
    (fetched,) = get(server, tmp_path)
    assert fetched.status == "unpacked"
    assert not server.requests
    assert there(tmp_path / NAME).items() > contents().items()
    assert list(find_donors(tmp_path)) == [DONOR]


def test_a_folder_that_is_not_whole_is_left_alone(server: Server, tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    (tmp_path / NAME / "Probes.csv").write_bytes(b"mine")
    with pytest.raises(FetchError, match=r"lacks MicroarrayExpression\.csv, PACall\.csv, .*move it away"):
        get(server, tmp_path)
    assert there(tmp_path / NAME) == {"Probes.csv": b"mine"}


def test_one_known_folder_inside_the_archive_is_accepted(server: Server, tmp_path: Path) -> None:
    members = {f"{NAME}/": b""} | {f"{NAME}/{name}": data for name, data in contents().items()}
    server.resources[PATH] = Resource(zipped(members))
    get(server, tmp_path)
    assert there(tmp_path / NAME) == contents()


def test_rnaseq_and_images_have_their_places(server: Server, tmp_path: Path) -> None:
    members = dict.fromkeys(RNASEQ_FILES, b"x,1\n")
    downloads = plan(tmp_path, donors=["9861"], what=["rnaseq", "mri"], base_url=server.url)
    bodies = [zipped(members), image(1), image(2)]
    for download, body in zip(downloads, bodies, strict=True):
        server.resources[download.url.removeprefix(server.url)] = Resource(body)
    paths = [fetched.path for fetched in get(server, tmp_path, donors=["9861"], what=["mri", "rnaseq"])]
    assert paths == [
        tmp_path / "rnaseq_donor9861",
        *(tmp_path / "mri_donor9861" / f"{t}.nii.gz" for t in ("T1", "T2")),
    ]
    assert there(paths[0]) == members
    assert there(tmp_path / "mri_donor9861") == {"T1.nii.gz": bodies[1], "T2.nii.gz": bodies[2]}


def test_progress_is_told_by_file_in_bytes(server: Server, tmp_path: Path) -> None:
    body = zipped(contents(size=100_000))
    server.resources[PATH] = Resource(body, breaks=[300_000])
    told: list[tuple[str, int, int | None]] = []
    get(server, tmp_path, progress=lambda *step: told.append(step))
    assert {(name, total) for name, _, total in told} == {(f"{NAME}.zip", len(body))}
    done = [bytes_so_far for _, bytes_so_far, _ in told]
    assert done == sorted(set(done))
    assert 300_000 in done
    assert done[-1] == len(body)


def test_memory_does_not_grow_with_the_file(server: Server, tmp_path: Path) -> None:
    server.resources[PATH] = Resource(zipped(contents(size=4_000_000), packing=zipfile.ZIP_STORED))
    tracemalloc.start()
    try:
        get(server, tmp_path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3_000_000


# ---------------------------------------------------------------- breaking off and going on


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("reset", [True, False])
def test_a_broken_download_goes_on_by_itself(
    framing: str, *, ranges: bool, reset: bool, server: Server, tmp_path: Path
) -> None:
    body = zipped(contents(size=50_000))
    server.resources[PATH] = Resource(body, breaks=[140_000], ranges=ranges, reset=reset, framing=framing)
    get(server, tmp_path, keep_archives=True)
    assert (tmp_path / NAME / f"{NAME}.zip").read_bytes() == body
    assert len(server.requests) == 2


BODY = zipped(contents())


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, len(BODY)), max_size=6), st.booleans())
def test_wherever_it_breaks_the_bytes_are_the_same(
    running_server: Server, breaks: list[int], ranges: bool
) -> None:
    running_server.clear()
    running_server.resources[PATH] = Resource(BODY, breaks=list(breaks), ranges=ranges)
    with tempfile.TemporaryDirectory() as folder:
        get(running_server, Path(folder), keep_archives=True, retries=len(breaks))
        assert (Path(folder) / NAME / f"{NAME}.zip").read_bytes() == BODY
        assert left(Path(folder)) == {NAME}


def test_only_what_is_missing_is_asked_for_and_of_the_same_version(server: Server, tmp_path: Path) -> None:
    server.resources[PATH] = Resource(BODY, breaks=[100, 1000])
    get(server, tmp_path)
    assert server.ranges_asked() == [None, "bytes=100-", "bytes=1000-"]
    assert [request.headers.get("if-range") for request in server.requests] == [None, '"v1"', '"v1"']


def test_tries_are_bounded_and_the_next_call_goes_on(server: Server, tmp_path: Path) -> None:
    server.resources[PATH] = Resource(BODY, breaks=[700, 700, 700])
    with pytest.raises(
        FetchError, match=r"broke off .*2370 more expected.*; given up after 3 tries, 700 bytes are kept"
    ):
        get(server, tmp_path, retries=2)
    assert left(tmp_path) == {f"{NAME}.zip.part", f"{NAME}.zip.part.json"}
    get(server, tmp_path, retries=0)
    assert server.ranges_asked() == [None, *["bytes=700-"] * 3]
    assert there(tmp_path / NAME) == contents()
    assert left(tmp_path) == {NAME}


def test_tries_are_counted_anew_when_a_try_got_on(server: Server, tmp_path: Path) -> None:
    body = zipped(contents(size=1_000_000), packing=zipfile.ZIP_STORED)
    server.resources[PATH] = Resource(body, breaks=[1_100_000, 2_200_000, 3_300_000, 4_400_000])
    get(server, tmp_path, retries=1)
    assert len(server.requests) == 5


def test_waits_double_up_to_a_minute(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(fetch_module, "time", SimpleNamespace(sleep=waits.append))
    server.resources[PATH] = Resource(BODY, breaks=[700] * 4)
    get(server, tmp_path, backoff=10)
    assert waits == [10, 20, 40, 60]


def test_a_connection_that_falls_silent_is_given_up(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.resources[PATH] = Resource(BODY, breaks=[700], stall=0.5)
    get(server, tmp_path, timeout=0.1)
    assert "Read timed out" in caplog.text
    assert there(tmp_path / NAME) == contents()


def test_an_interrupted_call_leaves_a_part_to_go_on_from(server: Server, tmp_path: Path) -> None:
    body = zipped(contents(size=100_000))
    server.resources[PATH] = Resource(body)

    def interrupt(name: str, done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get(server, tmp_path, progress=interrupt)
    size = (tmp_path / f"{NAME}.zip.part").stat().st_size
    assert 0 < size < len(body)
    get(server, tmp_path)
    assert server.ranges_asked() == [None, f"bytes={size}-"]
    assert there(tmp_path / NAME) == contents(size=100_000)


def test_a_download_that_was_whole_is_not_repeated(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.resources[PATH] = Resource(BODY)
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2399))
        with pytest.raises(FetchError, match="Unpacking needs 2,400 bytes, 2,399 are free"):
            get(server, tmp_path)
    assert left(tmp_path) == {f"{NAME}.zip.part", f"{NAME}.zip.part.json"}
    get(server, tmp_path)
    assert len(server.requests) == 1
    assert left(tmp_path) == {NAME}


def test_a_new_version_on_the_server_is_fetched_whole(server: Server, tmp_path: Path) -> None:
    server.resources[PATH] = Resource(BODY, breaks=[700])
    with pytest.raises(FetchError):
        get(server, tmp_path, retries=0)
    server.resources[PATH] = Resource(zipped(contents(2)), etag='"v2"')
    get(server, tmp_path)
    assert server.ranges_asked() == [None, "bytes=700-"]
    assert there(tmp_path / NAME) == contents(2)


@pytest.mark.parametrize(
    ("changed", "noticed"),
    [
        pytest.param({"headers": {"ETag": '"v2"'}}, "changed on the server", id="another version"),
        pytest.param(
            {"headers": {"Content-Range": "bytes 700-2000/2001"}}, "changed on the server", id="another size"
        ),
        pytest.param(
            {"headers": {"Content-Range": f"bytes 0-9/{len(BODY)}"}},
            "changed on the server",
            id="another range",
        ),
        pytest.param({"headers": {"Content-Range": "nonsense"}}, "changed on the server", id="no range"),
        pytest.param({}, "is damaged", id="only the checksums tell"),
    ],
)
def test_a_range_of_another_version_is_not_joined(
    changed: dict[str, Any], noticed: str, server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The server overlooks If-Range: what it sends from then on belongs to another file."""
    server.resources[PATH] = Resource(BODY, breaks=[700])
    with pytest.raises(FetchError):
        get(server, tmp_path, retries=0)
    caplog.clear()
    new = zipped(contents(2))
    assert len(new) == len(BODY)
    server.resources[PATH] = Resource(new, **changed)
    get(server, tmp_path)
    assert server.ranges_asked() == [None, "bytes=700-", None]
    assert [noticed in record.getMessage() for record in caplog.records] == [True]
    assert there(tmp_path / NAME) == contents(2)


def test_a_range_that_does_not_tell_the_size_is_taken(server: Server, tmp_path: Path) -> None:
    headers = {"Content-Range": f"bytes 700-{len(BODY) - 1}/*"}
    server.resources[PATH] = Resource(BODY, breaks=[700], headers=headers)
    get(server, tmp_path)
    assert len(server.requests) == 2
    assert there(tmp_path / NAME) == contents()


@pytest.mark.parametrize(
    ("validators", "if_range"),
    [
        (
            {"etag": 'W/"v1"', "last_modified": "Wed, 02 Oct 2013 00:00:00 GMT"},
            "Wed, 02 Oct 2013 00:00:00 GMT",
        ),
        ({"etag": None, "last_modified": "Wed, 02 Oct 2013 00:00:00 GMT"}, "Wed, 02 Oct 2013 00:00:00 GMT"),
        ({"etag": 'W/"v1"'}, None),
        ({"etag": None}, None),
    ],
)
def test_a_weak_tag_does_not_vouch_for_bytes(
    validators: dict[str, Any], if_range: str | None, server: Server, tmp_path: Path
) -> None:
    server.resources[PATH] = Resource(BODY, breaks=[700], **validators)
    get(server, tmp_path)
    assert server.ranges_asked() == [None, "bytes=700-"]
    assert server.requests[1].headers.get("if-range") == if_range


def leave_part(server: Server, directory: Path, data: bytes, **record: Any) -> None:
    """Leave what an earlier call may have left."""
    part = directory / f"{NAME}.zip.part"
    part.write_bytes(data)
    origin = {"url": server.url + PATH, "etag": '"v1"', "last_modified": None, "size": len(BODY)}
    part.with_name(f"{part.name}.json").write_text(json.dumps(origin | record))


@pytest.mark.parametrize("record", [None, "{", "[]", "{}"])
def test_a_part_of_unknown_origin_counts_for_nothing(
    record: str | None, server: Server, tmp_path: Path
) -> None:
    (tmp_path / f"{NAME}.zip.part").write_bytes(b"PK whatever this was")
    if record is not None:
        (tmp_path / f"{NAME}.zip.part.json").write_text(record)
    server.resources[PATH] = Resource(BODY)
    get(server, tmp_path)
    assert server.ranges_asked() == [None]
    assert there(tmp_path / NAME) == contents()


def test_a_part_from_another_server_counts_for_nothing(server: Server, tmp_path: Path) -> None:
    leave_part(server, tmp_path, BODY[:700], url="https://elsewhere.example")
    server.resources[PATH] = Resource(BODY)
    get(server, tmp_path)
    assert server.ranges_asked() == [None]


def test_all_bytes_of_unknown_number_are_there_already(server: Server, tmp_path: Path) -> None:
    """The connection was reset behind the last byte: only the server can tell that it was the last."""
    leave_part(server, tmp_path, BODY, size=None)
    server.resources[PATH] = Resource(BODY)
    get(server, tmp_path)
    assert server.ranges_asked() == [f"bytes={len(BODY)}-"]
    assert there(tmp_path / NAME) == contents()


@pytest.mark.parametrize("size", [None, len(BODY) + 9])
def test_a_part_longer_than_the_file_is_dropped(size: int | None, server: Server, tmp_path: Path) -> None:
    leave_part(server, tmp_path, BODY + b"more", size=size)
    server.resources[PATH] = Resource(BODY)
    get(server, tmp_path)
    assert server.ranges_asked() == [f"bytes={len(BODY) + 4}-", None]
    assert there(tmp_path / NAME) == contents()


def test_a_folder_half_unpacked_is_unpacked_anew(server: Server, tmp_path: Path) -> None:
    leave_part(server, tmp_path, BODY)
    (tmp_path / f"{NAME}.part").mkdir()
    (tmp_path / f"{NAME}.part" / "Probes.csv").write_bytes(b"half")
    get(server, tmp_path)
    assert not server.requests
    assert there(tmp_path / NAME) == contents()


# ---------------------------------------------------------------- lies, error pages, refusals


@pytest.mark.parametrize("ranges", [True, False])
def test_fewer_bytes_than_declared_are_not_enough(*, ranges: bool, server: Server, tmp_path: Path) -> None:
    server.resources[PATH] = Resource(BODY, declared=len(BODY) + 10, ranges=ranges)
    with pytest.raises(FetchError, match="given up after 4 tries"):
        get(server, tmp_path, retries=3)
    assert not (tmp_path / NAME).exists()
    assert len(server.requests) == 4


def test_a_declared_size_that_cuts_the_archive_leaves_nothing(server: Server, tmp_path: Path) -> None:
    server.resources[PATH] = Resource(BODY, declared=len(BODY) - 30)
    with pytest.raises(FetchError, match=r"zip file is damaged or truncated .* twice: try again later"):
        get(server, tmp_path)
    assert server.ranges_asked() == [None, None]
    assert left(tmp_path) == set()


def test_more_bytes_than_declared_are_refused(server: Server, tmp_path: Path) -> None:
    """A range that goes on behind the end of the file, in chunks."""
    server.resources[PATH] = Resource(BODY, breaks=[700])
    with pytest.raises(FetchError):
        get(server, tmp_path, retries=0)
    headers = {"Content-Range": f"bytes 700-{len(BODY) - 1}/{len(BODY)}"}
    server.resources[PATH] = Resource(BODY + b"more", framing="chunked", headers=headers)
    with pytest.raises(FetchError, match=rf"sent more than the {len(BODY):,} bytes"):
        get(server, tmp_path)
    assert left(tmp_path) == set()


def test_the_length_of_a_chunked_answer_is_not_believed(server: Server, tmp_path: Path) -> None:
    server.resources[PATH] = Resource(BODY, framing="chunked", headers={"Content-Length": "5"})
    get(server, tmp_path)
    assert there(tmp_path / NAME) == contents()


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_endless_downloads_are_refused(framing: str, server: Server, tmp_path: Path) -> None:
    server.resources[PATH] = Resource(BODY, framing=framing)
    with pytest.raises(FetchError, match="1,000"):
        get(server, tmp_path, limits=Limits(download=1000))
    assert left(tmp_path) == set()


def test_another_size_than_the_published_one_is_refused_at_once(server: Server, tmp_path: Path) -> None:
    server.resources["/api/v2/well_known_file_download/178238387"] = Resource(BODY)
    told: list[int] = []
    with pytest.raises(FetchError, match=r"the published one 425,988,059: .*check_sizes=False"):
        get(
            server,
            tmp_path,
            donors=["9861"],
            check_sizes=True,
            progress=lambda _, done, __: told.append(done),
        )
    assert not told
    assert left(tmp_path) == set()


def test_the_published_size_is_checked_at_the_end_too(server: Server, tmp_path: Path) -> None:
    server.resources["/api/v2/well_known_file_download/178238387"] = Resource(BODY, framing="chunked")
    with pytest.raises(FetchError, match=rf"has {len(BODY):,} bytes, the published one 425,988,059"):
        get(server, tmp_path, donors=["9861"], check_sizes=True)
    assert left(tmp_path) == set()


@pytest.mark.parametrize("donor", [DONOR, "9861"])
def test_an_error_page_is_called_one(donor: str, server: Server, tmp_path: Path) -> None:
    (download,) = plan(tmp_path, donors=[donor], base_url=server.url)
    server.resources[download.url.removeprefix(server.url)] = Resource(ERROR_PAGE)
    with pytest.raises(FetchError) as caught:
        get(server, tmp_path, donors=[donor], check_sizes=True)
    message = str(caught.value)
    assert "HTML page with status 200 instead of a zip file, titled 'Service & support'" in message
    assert "try again later" in message
    assert download.name in message
    assert download.url in message
    assert left(tmp_path) == set()


def test_an_error_page_without_a_title(server: Server, tmp_path: Path) -> None:
    server.resources[PATH] = Resource(b"\xef\xbb\xbf  <!-- oops --><HTML>sorry")
    with pytest.raises(FetchError, match="HTML page with status 200 instead of a zip file; it does so"):
        get(server, tmp_path)


def test_an_error_page_does_not_cost_what_is_there(server: Server, tmp_path: Path) -> None:
    resource = server.resources[PATH] = Resource(BODY, breaks=[700])
    with pytest.raises(FetchError):
        get(server, tmp_path, retries=0)
    server.resources[PATH] = Resource(ERROR_PAGE, ranges=False)
    with pytest.raises(FetchError, match="HTML page"):
        get(server, tmp_path)
    server.resources[PATH] = resource
    get(server, tmp_path)
    assert server.ranges_asked() == [None, "bytes=700-", "bytes=700-"]
    assert there(tmp_path / NAME) == contents()


def test_other_answers_are_not_taken_for_archives(server: Server, tmp_path: Path) -> None:
    server.resources[PATH] = Resource(b'{"success": false}')
    with pytest.raises(FetchError, match=r"not a zip file \(it begins b'{\"success\": fals'\)"):
        get(server, tmp_path)
    server.resources[PATH] = Resource(b"")
    with pytest.raises(FetchError, match="damaged or truncated"):
        get(server, tmp_path)
    assert left(tmp_path) == set()


def test_passing_trouble_is_waited_out(server: Server, tmp_path: Path) -> None:
    statuses = [500, 502, 503, 429]
    server.resources[PATH] = Resource(BODY, statuses=statuses, headers={"Retry-After": "3600"})
    get(server, tmp_path)
    assert len(server.requests) == 5


def test_a_server_may_not_put_us_off_for_hours() -> None:
    answer = HTTPResponse(headers={"Retry-After": "3600"})
    assert fetch_module._BoundedRetry(backoff_factor=1).get_retry_after(answer) == 60
    assert fetch_module._BoundedRetry(backoff_factor=1).get_retry_after(HTTPResponse()) is None


@pytest.mark.parametrize(
    ("status", "requests", "advice"),
    [
        (503, 3, "try again later"),
        (404, 1, "is base_url the right server"),
        (403, 1, "is base_url"),
        (206, 1, ""),
    ],
)
def test_a_status_that_stays_is_told(
    status: int, requests: int, advice: str, server: Server, tmp_path: Path
) -> None:
    server.resources[PATH] = Resource(BODY, statuses=[status] * 9)
    with pytest.raises(FetchError, match=f"the server answered {status} .*: {advice}"):
        get(server, tmp_path, retries=2)
    assert len(server.requests) == requests
    assert left(tmp_path) == set()


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(FetchError, match=r"the server did not answer .*refused"):
        fetch(tmp_path, donors=[DONOR], base_url=f"http://127.0.0.1:{port}", backoff=0, retries=1)


def test_one_failure_does_not_lose_the_others(server: Server, tmp_path: Path) -> None:
    downloads = plan(tmp_path, base_url=server.url)
    for download in downloads[1:-1]:
        server.resources[download.url.removeprefix(server.url)] = Resource(BODY)
    with pytest.raises(FetchError, match=r"2 of 6 files could not be fetched into .*goes on") as caught:
        get(server, tmp_path, donors="all")
    failed = str(caught.value).splitlines()[1:]
    assert [line.split()[1] for line in failed] == [downloads[0].name, downloads[-1].name]
    assert left(tmp_path) == {download.target.name for download in downloads[1:-1]}


def test_two_fetches_do_not_write_to_the_same_files(server: Server, tmp_path: Path) -> None:
    with FileLock(tmp_path / ".fetch.lock"), pytest.raises(FetchError, match="Another fetch is at work"):
        get(server, tmp_path)
    server.resources[PATH] = Resource(BODY)
    get(server, tmp_path)


def test_a_proxy_named_in_the_environment_is_used(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", server.url)
    server.resources[f"http://mirror.example{PATH}"] = Resource(BODY)
    get(server, tmp_path, base_url="http://mirror.example")
    assert there(tmp_path / NAME) == contents()


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
    with pytest.raises(fetch_module._RefusedError, match="more than the 9 bytes"):
        fetch_module._copy(io.BytesIO(bytes(10)), io.BytesIO(), 9)


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
