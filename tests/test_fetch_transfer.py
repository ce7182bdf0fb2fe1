"""Transfers, from a server that breaks off, lies, and sends error pages."""

import json
import socket
import tempfile
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from requests.adapters import HTTPAdapter
from urllib3 import HTTPResponse

from ingest.errors import FetchError
from ingest.fetch import fetch, plan
from ingest.published import Limits
from ingest.transfer import open_session
from tests.fetching import (
    BODY,
    DONOR,
    ERROR_PAGE,
    NAME,
    PATH,
    SIZED_DONOR,
    SIZED_PATH,
    contents,
    get,
    left,
    there,
    zipped,
)
from tests.http_server import Resource, Server

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
    monkeypatch.setattr("ingest.transfer.time", SimpleNamespace(sleep=waits.append))
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
    server.resources[SIZED_PATH] = Resource(BODY)
    told: list[int] = []
    with pytest.raises(FetchError, match=r"the published one 425,988,059: .*check_sizes=False"):
        get(
            server,
            tmp_path,
            donors=[SIZED_DONOR],
            check_sizes=True,
            progress=lambda _, done, __: told.append(done),
        )
    assert not told
    assert left(tmp_path) == set()


def test_the_published_size_is_checked_at_the_end_too(server: Server, tmp_path: Path) -> None:
    server.resources[SIZED_PATH] = Resource(BODY, framing="chunked")
    with pytest.raises(FetchError, match=rf"has {len(BODY):,} bytes, the published one 425,988,059"):
        get(server, tmp_path, donors=[SIZED_DONOR], check_sizes=True)
    assert left(tmp_path) == set()


@pytest.mark.parametrize("donor", [DONOR, SIZED_DONOR])
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
    with open_session(retries=5, backoff=1) as session:
        adapter = session.get_adapter("https://mirror.example")
    assert isinstance(adapter, HTTPAdapter)
    assert adapter.max_retries.get_retry_after(HTTPResponse(headers={"Retry-After": "3600"})) == 60
    assert adapter.max_retries.get_retry_after(HTTPResponse()) is None


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


def test_a_proxy_named_in_the_environment_is_used(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", server.url)
    server.resources[f"http://mirror.example{PATH}"] = Resource(BODY)
    get(server, tmp_path, base_url="http://mirror.example")
    assert there(tmp_path / NAME) == contents()
