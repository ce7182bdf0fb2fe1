"""One donor is begun while the one before is written, and is committed in its turn, whole and on the disk."""

import os
import shutil
from pathlib import Path
from threading import Event
from typing import Any

import pytest

import lake
from ingest.errors import InputError
from ingest.matrices import Matrix
from lake import microarray_ingestion, rnaseq_ingestion
from lake.ingestion import ingest_directory
from lake.manifest import Manifest, publish_manifest
from lake.verification import verify
from tests.helpers import DONORS, donor_folder, rewrite
from tests.ingesting import statuses
from tests.test_ingestion import other_donor


def test_one_donor_is_begun_ahead_and_no_more(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files of a donor, and what was extracted of its zip, are closed before the next but one begins."""
    opened: list[str] = []
    most: list[int] = []
    second = Event()
    enter, leave = Matrix.__enter__, Matrix.__exit__

    def entered(self: Matrix) -> Matrix:
        opened.append(str(self.file))
        most.append(len(opened))
        if len(most) == 3:
            second.set()
        return enter(self)

    def left(self: Matrix, *error: Any) -> None:
        opened.remove(str(self.file))
        leave(self, *error)

    def finishing(_donor: str, _done: int, _total: int) -> None:
        assert second.wait(timeout=60)

    monkeypatch.setattr(Matrix, "__enter__", entered)
    monkeypatch.setattr(Matrix, "__exit__", left)
    ingest_directory(published, tmp_path / "store.zarr", progress=finishing)
    assert len(most) == 2 * len(DONORS)
    assert 3 <= max(most) <= 4
    assert opened == []


def test_a_fault_is_told_when_the_donors_before_it_are_in(published_copy: Path, tmp_path: Path) -> None:
    """It is found while they are written; another fault among them is told first."""
    (donor_folder(published_copy, "10021") / "Ontology.csv").write_bytes(b"nonsense\n")
    (donor_folder(published_copy, "12876") / "Ontology.csv").write_bytes(b"nonsense\n")
    store = tmp_path / "store.zarr"
    with pytest.raises(InputError, match=r"(?s)donor10021/Ontology\.csv: .*the header is 'nonsense'"):
        ingest_directory(published_copy, store)
    assert lake.open(store).donors == ["9861"]
    rewrite(
        donor_folder(published_copy, "9861") / "MicroarrayExpression.csv",
        lambda data: data.replace(b",3.", b",x.", 1),
    )
    with pytest.raises(InputError, match=r"donor9861/MicroarrayExpression\.csv: line \d+, column \d+: 'x\."):
        ingest_directory(published_copy, tmp_path / "other.zarr")
    assert not (tmp_path / "other.zarr" / "zarr.json").exists()
    assert not (tmp_path / "other.zarr" / ".wip").exists()


def test_all_is_on_the_disk_before_the_manifest_names_it(
    sequenced: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power failure there is a manifest, and all it names, or neither."""
    synced: set[int] = set()  # inodes, ever
    lately: set[int] = set()  # since the manifest before
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        lately.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def watched(store: Path, manifest: Manifest) -> None:
        synced.update(lately)
        parts = [store / name for name in ("probes", "ontology", "donors", "microarray")]
        parts += [store / "rnaseq"] if manifest.rnaseq else []
        files = [file for part in parts for file in [part, *part.rglob("*")]]
        assert [file for file in files if file.stat().st_ino not in synced] == []
        assert parts[-1].stat().st_ino in lately  # where the new group was renamed to
        publish_manifest(store, manifest)
        lately.clear()

    monkeypatch.setattr(os, "fsync", noted)
    for module in (microarray_ingestion, rnaseq_ingestion):
        monkeypatch.setattr(module, "publish_manifest", watched)
    done = ingest_directory(sequenced, tmp_path / "store.zarr")
    assert [one.what for one in done].count("rnaseq") == 2


def test_a_well_that_its_donor_gave_up_is_free(published_copy: Path, tmp_path: Path) -> None:
    """The first donor is replaced by files with other wells; the next may have the old ones."""
    store, folder = tmp_path / "store.zarr", donor_folder(published_copy, "12876")
    ingest_directory(published_copy, store, donors=["12876"])
    shutil.copytree(folder, donor_folder(published_copy, "99999"))
    other_donor(folder, 700_000_000)
    done = ingest_directory(published_copy, store, donors=["12876", "99999"], replace=True)
    assert statuses(done) == {"12876": "replaced", "99999": "ingested"}
    assert verify(lake.open(store)) == []
