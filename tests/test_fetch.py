"""Fetching: what is there in the end, and what `ahba fetch` says."""

import logging
import shutil
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from filelock import FileLock

from ingest.errors import FetchError, InputError
from ingest.fetch import fetch, plan
from ingest.sources import find_donors
from lake.cli import ahba
from tests.fetching import (
    BODY,
    DONOR,
    NAME,
    PATH,
    SIZED_DONOR,
    SIZED_PATH,
    contents,
    get,
    image,
    left,
    there,
    zipped,
)
from tests.http_server import Resource, Server

RNASEQ_FILES = ("Genes.csv", "RNAseqCounts.csv", "RNAseqTPM.csv", "SampleAnnot.csv", "Ontology.csv")


def test_an_archive_becomes_a_folder(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ingest")
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


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file: name a folder"):
        fetch(tmp_path / "file")
    with pytest.raises(InputError, match="cannot be written to"):
        fetch(tmp_path / "file" / "below")


# ---------------------------------------------------------------- the command


def ahba_fetch(directory: Path, server: Server, *options: str) -> Result:
    """`ahba fetch` of the donor whose exact size is known."""
    usual = ["fetch", str(directory), "--quiet", "--donors", SIZED_DONOR, "--base-url", server.url]
    return CliRunner().invoke(ahba, [*usual, *options])


@pytest.fixture
def original(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A server that passes for the Allen Institute's, where exact sizes are checked."""
    monkeypatch.setattr("ingest.published.ALLEN_SERVER", server.url)
    server.resources[SIZED_PATH] = Resource(BODY)
    return server


def test_the_error_of_another_size_names_the_option_that_takes_it(original: Server, tmp_path: Path) -> None:
    refused = ahba_fetch(tmp_path, original)
    assert isinstance(refused.exception, FetchError)
    assert "the published one 425,988,059" in str(refused.exception)
    assert "`ahba fetch --no-size-check`" in str(refused.exception)
    assert left(tmp_path) == set()

    taken = ahba_fetch(tmp_path, original, "--no-size-check")
    assert taken.exit_code == 0, taken.output
    assert "fetched" in taken.output
    assert there(tmp_path / f"normalized_microarray_donor{SIZED_DONOR}") == contents()


@pytest.mark.parametrize("options", [[], ["--no-size-check"]])
def test_a_dry_run_lists_and_asks_nothing_of_the_server(
    options: list[str], original: Server, tmp_path: Path
) -> None:
    listed = ahba_fetch(tmp_path / "new", original, "--dry-run", *options)
    assert listed.exit_code == 0, listed.output
    assert SIZED_DONOR in listed.output
    assert not original.requests
    assert not (tmp_path / "new").exists()
