"""Ingesting again, replacing, failing and being stopped: a store holds whole donors, old or new."""

import os
import shutil
import threading
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pytest
import zarr

import lake
from ingest.errors import InputError
from ingest.matrices import Matrix
from lake.errors import RequestError, StoreError
from lake.ingestion import ingest_directory
from lake.verification import verify
from tests.helpers import (
    donor_folder,
    rewrite,
    tree,
)
from tests.ingesting import expression_of, published_values, statuses, values_of

# ---------------------------------------------------------------- again, and again


def test_present_donors_are_skipped(published: Path, store_copy: Path) -> None:
    before = tree(store_copy)
    done = ingest_directory(published, store_copy)
    assert set(statuses(done).values()) == {"present"}
    assert [one.n_samples for one in done] == [95, 89, 36]
    assert tree(store_copy) == before


def changed_value(folder: Path) -> None:
    rewrite(folder / "MicroarrayExpression.csv", lambda data: data.replace(b",3.", b",4.", 1))


def test_changed_files_are_refused(published_copy: Path, store_copy: Path) -> None:
    """Of the same size, so that only the hash tells."""
    before = tree(store_copy)
    changed_value(donor_folder(published_copy, "10021"))
    with pytest.raises(RequestError, match=r"Donor 10021: the published files differ .* pass --replace"):
        ingest_directory(published_copy, store_copy)
    assert tree(store_copy) == before


def test_replace_takes_the_new_files_and_old_readers_keep_theirs(
    published_copy: Path, published: Path, store_copy: Path
) -> None:
    old = lake.open(store_copy)
    lazy = old.microarray()["expression"]
    before = lazy.to_numpy()
    changed_value(donor_folder(published_copy, "10021"))
    done = ingest_directory(published_copy, store_copy, replace=True)
    assert statuses(done) == {"9861": "present", "10021": "replaced", "12876": "present"}
    new = lake.open(store_copy)
    assert new.snapshot != old.snapshot
    changed = donor_folder(published_copy, "10021")
    assert expression_of(new, "10021") == published_values(changed, "MicroarrayExpression.csv")
    np.testing.assert_array_equal(lazy.to_numpy(), before)
    np.testing.assert_array_equal(old.microarray()["expression"].to_numpy(), before)
    assert expression_of(old, "10021") == published_values(
        donor_folder(published, "10021"), "MicroarrayExpression.csv"
    )
    assert verify(new) == []


def test_what_a_reader_of_a_replaced_donor_no_longer_finds_is_an_error(
    published_copy: Path, store_copy: Path
) -> None:
    """The next ingest clears the old generation away; whoever still reads it is told, not given NaN."""
    lazy = lake.open(store_copy).microarray()
    changed_value(donor_folder(published_copy, "10021"))
    ingest_directory(published_copy, store_copy, replace=True)
    ingest_directory(published_copy, store_copy)
    assert not (store_copy / "microarray" / "10021").exists()
    for name in ("expression", "detected"):
        with pytest.raises(StoreError, match=r"microarray/10021/.* is missing"):
            lazy[name].compute()


def test_replacing_again_and_again(published_copy: Path, store_copy: Path) -> None:
    for _ in range(3):
        rewrite(
            donor_folder(published_copy, "12876") / "PACall.csv", lambda data: data.replace(b",0", b",1", 1)
        )
        done = ingest_directory(published_copy, store_copy, replace=True)
        assert statuses(done)["12876"] == "replaced"
        assert verify(lake.open(store_copy)) == []
    folder = donor_folder(published_copy, "12876")
    assert values_of(lake.open(store_copy), "12876", "detected") == published_values(folder, "PACall.csv")
    assert len(list((store_copy / "microarray").glob("12876*"))) <= 2


# ---------------------------------------------------------------- transactions


def test_a_failing_second_donor_leaves_the_first(published_copy: Path, tmp_path: Path) -> None:
    rewrite(donor_folder(published_copy, "10021") / "PACall.csv", lambda data: data[:-100])
    store = tmp_path / "store.zarr"
    with pytest.raises(InputError, match=r"donor10021/PACall\.csv"):
        ingest_directory(published_copy, store)
    assert lake.open(store).donors == ["9861"]
    assert verify(lake.open(store)) == []
    assert not (store / ".wip").exists()


def test_a_failing_first_donor_leaves_nothing(
    published_copy: Path, published: Path, tmp_path: Path, store_path: Path
) -> None:
    rewrite(donor_folder(published_copy, "9861") / "PACall.csv", lambda data: data[:-100])
    store = tmp_path / "store.zarr"
    with pytest.raises(InputError):
        ingest_directory(published_copy, store)
    with pytest.raises(StoreError, match="no donor is in this store yet"):
        lake.open(store)
    ingest_directory(published, store)
    assert tree(store) == tree(store_path)


def test_readers_see_no_donor_before_it_is_committed(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, seen = tmp_path / "store.zarr", []
    ingest_directory(published, store, donors=["9861"])
    read = Matrix.read

    def watched(self: Matrix, start: int, stop: int) -> Any:
        reader = lake.open(store)
        seen.append((reader.donors, reader.microarray().sizes["sample"]))
        return read(self, start, stop)

    monkeypatch.setattr(Matrix, "read", watched)
    ingest_directory(published, store, donors=["10021"])
    assert len(seen) >= 2
    assert set(map(repr, seen)) == {repr((["9861"], 95))}
    assert lake.open(store).donors == ["9861", "10021"]


def test_two_ingests_at_once_are_refused(published: Path, tmp_path: Path) -> None:
    store = tmp_path / "store.zarr"
    store.mkdir()
    with filelock.FileLock(store / ".lock"), pytest.raises(StoreError, match="another ingest is at work"):
        ingest_directory(published, store)
    assert os.listdir(store) == [".lock"]  # noqa: PTH208


def test_an_ingest_at_work_holds_the_lock(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, refused = tmp_path / "store.zarr", []
    scan = Matrix.scan

    def second() -> None:
        with pytest.raises(StoreError, match="another ingest is at work"):
            ingest_directory(published, store)
        refused.append(True)

    def watched(self: Matrix, pool: Any) -> None:
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
        scan(self, pool)

    monkeypatch.setattr(Matrix, "scan", watched)
    ingest_directory(published, store, donors=["12876"])
    assert refused == [True, True]
    assert lake.open(store).donors == ["12876"]


def test_a_foreign_directory_is_refused_and_untouched(published: Path, tmp_path: Path) -> None:
    store = tmp_path / "photographs"
    (store / "microarray").mkdir(parents=True)
    (store / "microarray" / "holiday.jpg").write_bytes(b"sun")
    with pytest.raises(StoreError, match="the directory is not empty and no ahba-lake store"):
        ingest_directory(published, store)
    assert tree(store, ignoring=()) == {"microarray/holiday.jpg": b"sun"}


def test_a_foreign_zarr_group_is_refused_and_untouched(published: Path, tmp_path: Path) -> None:
    store = tmp_path / "other.zarr"
    zarr.create_group(store, zarr_format=3).create_array("probes", shape=(3,), dtype="i8")[:] = 1
    before = tree(store, ignoring=())
    with pytest.raises(StoreError, match="not empty and no ahba-lake store"):
        ingest_directory(published, store)
    assert tree(store, ignoring=()) == before


def test_a_store_whose_lock_file_is_gone_can_still_grow(published: Path, tmp_path: Path) -> None:
    """A store that was copied without its hidden files."""
    store = tmp_path / "store.zarr"
    ingest_directory(published, store, donors=["9861"])
    (store / ".lock").unlink(missing_ok=True)
    ingest_directory(published, store, donors=["10021"])
    assert lake.open(store).donors == ["9861", "10021"]


def test_leftovers_of_a_killed_ingest_are_cleared(
    published: Path, store_copy: Path, store_path: Path
) -> None:
    (store_copy / ".wip" / "9861" / "group").mkdir(parents=True)
    (store_copy / ".wip" / "9861" / "expression").write_bytes(b"half")
    shutil.copytree(store_copy / "microarray" / "9861", store_copy / "microarray" / "15496")
    (store_copy / "zarr.json").with_name(".lock").touch()
    ingest_directory(published, store_copy)
    assert tree(store_copy) == tree(store_path)
    assert not (store_copy / "microarray" / "15496").exists()


def test_remote_stores_are_not_written(published: Path) -> None:
    with pytest.raises(RequestError, match="local or shared disks; copy the finished one there"):
        ingest_directory(published, "s3://bucket/ahba.zarr")
