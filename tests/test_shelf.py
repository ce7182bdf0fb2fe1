"""Atlases are loaded side by side, and come in order, few at a time, with their errors where they belong."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import lake
from lake import unit_writer
from lake.errors import RequestError, RunError
from lake.resources import Resources
from lake.runs import UnitReport, run
from lake.shelf import READERS, ROOM_OF_A_READER, loaded_ahead, made_ready
from lake.tables import LatestGenes, Unit
from tests.helpers import octants, tree
from tests.test_native import slabs
from transforms.atlas import Atlas
from transforms.errors import AtlasError

PATIENCE = 20  # seconds; a deadlock, not a slow machine, takes as long


def with_workers(workers: int, *, room: int = READERS * ROOM_OF_A_READER) -> Resources:
    """Resources with so much room."""
    base = Resources(workers=workers, memory=0)
    return Resources(workers=workers, memory=room - base.room)


class Loading:
    """Loads numbers as atlases; remembers who loads, and how many are loaded that nobody has looked at."""

    def __init__(self, *, broken: int = -1) -> None:
        self.broken, self.begun = broken, 0
        self.most, self._now = 0, 0
        self.threads: set[int] = set()
        self._lock = threading.Lock()

    def __call__(self, number: int) -> Atlas:
        with self._lock:
            self.begun += 1
            self._now += 1
            self.most = max(self.most, self._now)
            self.threads.add(threading.get_ident())
        if number == self.broken:
            raise AtlasError(f"atlas {number} is broken")
        return octants(str(number))

    def looked_at(self) -> None:
        """Tell that one has been looked at."""
        with self._lock:
            self._now -= 1


@pytest.mark.parametrize("workers", [1, 2, 3, 16])
def test_atlases_come_in_order_and_no_more_than_have_room(workers: int) -> None:
    loading = Loading()
    names = []
    for atlas in loaded_ahead(range(12), loading, with_workers(workers)):
        names.append(atlas.name)
        loading.looked_at()
    assert names == [str(number) for number in range(12)]
    assert loading.most <= (1 if workers == 1 else min(workers, READERS) + 1)


def test_several_are_loaded_at_once() -> None:
    meeting = threading.Barrier(2)

    def load(number: int) -> Atlas:
        meeting.wait(PATIENCE)  # each waits for another
        return octants(str(number))

    assert len(list(loaded_ahead(range(4), load, with_workers(2)))) == 4


@pytest.mark.parametrize("room", [0, ROOM_OF_A_READER, 2 * ROOM_OF_A_READER - 1])
def test_with_little_room_one_is_loaded_at_a_time(room: int) -> None:
    at_work = threading.Lock()

    def load(number: int) -> Atlas:
        assert at_work.acquire(blocking=False)
        atlas = octants(str(number))
        at_work.release()
        return atlas

    assert len(list(loaded_ahead(range(6), load, with_workers(4, room=room)))) == 6


def test_one_worker_loads_here_and_only_what_is_asked_for() -> None:
    loading = Loading()
    atlases = loaded_ahead(range(5), loading, with_workers(1))
    assert [next(atlases).name, next(atlases).name] == ["0", "1"]
    assert loading.begun == 2
    assert loading.threads == {threading.get_ident()}


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_a_broken_atlas_is_told_after_those_before_it(workers: int) -> None:
    loading = Loading(broken=3)
    names: list[str] = []
    with pytest.raises(AtlasError, match="atlas 3 is broken"):
        names += (atlas.name for atlas in loaded_ahead(range(100), loading, with_workers(workers)))
    assert names == ["0", "1", "2"]
    assert loading.begun <= 4 + workers


def test_who_stops_looking_stops_the_loading() -> None:
    loading = Loading()
    atlases = loaded_ahead(range(100), loading, with_workers(2))
    next(atlases)
    assert isinstance(atlases, Iterator)
    atlases.close()  # type: ignore[attr-defined]
    assert loading.begun <= 3


def test_what_placing_asks_for_is_made_with_the_atlas(atlas: Atlas, small_lake: lake.Lake) -> None:
    made = {"lookup", "box", "fingerprint"}
    assert made <= vars(made_ready(octants())).keys()
    own = made_ready(slabs(small_lake))
    assert "fingerprint" in vars(own)
    assert all(made <= vars(each).keys() for each in own.atlases.values())  # type: ignore[union-attr]


# ---- runs ----


@pytest.mark.parametrize("workers", [1, 2])
def test_runs_tell_a_broken_atlas_as_one_alone(small_lake: lake.Lake, tmp_path: Path, workers: int) -> None:
    atlases: list[Callable[[], Atlas] | str] = [octants, "no-such-atlas", lambda: octants("third")]
    with pytest.raises(AtlasError) as alone:
        run(small_lake, ["no-such-atlas"], out=tmp_path)
    with pytest.raises(AtlasError) as among:
        run(small_lake, atlases, out=tmp_path, workers=workers)
    assert str(among.value) == str(alone.value)
    assert tree(tmp_path) == {}


def test_workers_and_room_change_no_byte_and_no_report(small_lake: lake.Lake, tmp_path: Path) -> None:
    def names(reports: list[UnitReport]) -> list[str]:
        return [report.unit.atlas for report in reports]

    atlases = [lambda name=name: octants(name) for name in "edcba"]
    pipelines = [lake.Pipeline(), lake.Pipeline(agg_metric="median")]
    ways = {"one": {"workers": 1}, "four": {"workers": 4}, "narrow": {"workers": 2, "memory_limit": "850MiB"}}
    for name, options in ways.items():
        reports = run(small_lake, atlases, pipelines, out=tmp_path / name, **options)  # type: ignore[arg-type]
        assert names(reports) == [*"edcba"] * 2
    assert tree(tmp_path / "one") == tree(tmp_path / "four") == tree(tmp_path / "narrow")


def moody(table: pd.DataFrame, regions: pd.DataFrame) -> dict[str, float]:
    """A reduction that refuses one of the atlases."""
    if regions["region"].iloc[0] == 3:
        raise RequestError("not this one")
    return {"size": float(table.size)}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_unit_that_fails_as_it_is_written_is_reported_and_the_others_are_written(
    small_lake: lake.Lake, tmp_path: Path, workers: int
) -> None:
    atlases = [octants("first"), octants("second", first=3), octants("third")]
    with pytest.raises(RunError, match=r"1 of 3 units failed:\n  second, .*: .*not this one"):
        run(small_lake, atlases, out=tmp_path, reduce=moody, workers=workers)
    assert len(lake.read_reductions(tmp_path)) == 2


def test_one_worker_writes_a_unit_before_the_next_is_made(
    small_lake: lake.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []
    writes = unit_writer.write_unit

    def write(unit: Unit, *arguments: object, **options: object) -> None:
        writes(unit, *arguments, **options)  # type: ignore[arg-type]
        happened.append(f"{unit.atlas} is written")

    monkeypatch.setattr(unit_writer, "write_unit", write)
    run(
        small_lake,
        [octants("first"), octants("second", first=2)],
        out=tmp_path,
        workers=1,
        progress=lambda kind, done, _: happened.append(f"{done} made") if kind == "normalisation" else None,
    )
    made = [event for event in happened if event.endswith(("written", "made"))]
    assert made.index("first is written") < made.index("2 made") < made.index("second is written")


# ---- the genes' table ----


@pytest.fixture
def genes() -> pd.DataFrame:
    return pd.DataFrame({"gene_symbol": ["A", "B"], "score": np.array([0.5, np.nan])})


def test_the_same_genes_are_written_once(tmp_path: Path, genes: pd.DataFrame) -> None:
    latest, path = LatestGenes(), tmp_path / "genes.parquet"
    latest.write(path, genes, {"snapshot": "a"})
    written = path.stat().st_mtime_ns, path.stat().st_ino
    latest.write(path, genes, {"snapshot": "a"})
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == written


@pytest.mark.parametrize("change", ["removed", "damaged", "other genes", "other origin", "other file"])
def test_genes_are_written_again_where_anything_differs(
    change: str, tmp_path: Path, genes: pd.DataFrame
) -> None:
    latest, path = LatestGenes(), tmp_path / "genes.parquet"
    latest.write(path, genes, {"snapshot": "a"})
    whole = path.read_bytes()
    if change == "removed":
        path.unlink()
    if change == "damaged":
        path.write_bytes(b"x" * len(whole))
    table = genes.copy() if change == "other genes" else genes
    target = tmp_path / "other.parquet" if change == "other file" else path
    origin = {"snapshot": "b" if change == "other origin" else "a"}
    before = path.stat().st_ino if path.exists() else None
    latest.write(target, table, origin)
    assert target.stat().st_ino != before
    assert (target.read_bytes() == whole) is (change != "other origin")
