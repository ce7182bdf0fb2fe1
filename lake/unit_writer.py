"""Writing what an engine makes, while it makes the next: tables, numbers, and a report of every unit."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

from lake.batch import Batch
from lake.engine import Failure, Outcome
from lake.errors import RequestError
from lake.manifest import software_versions
from lake.plan import Plan, PlannedUnit
from lake.reduced import ReducedTables
from lake.store import Lake
from lake.tables import LatestGenes, Unit, regions_frame, write_unit
from lake.watching import Units, Watcher
from transforms.atlas_set import AnyAtlas
from transforms.errors import ChoiceError
from transforms.pipeline import Pipeline

WRITES_AHEAD = 2  # tables that wait to be written while the next are made


@dataclass(frozen=True)
class UnitReport:
    """What became of one (pipeline, atlas).

    Attributes
    ----------
    unit : Unit
        Where its tables are.
    status : {"written", "present", "failed"}
    n_regions, n_filled : int
        Regions, and those that have a sample.
    n_genes, n_samples : int
    reason : str
        Why it failed, else "".
    """

    unit: Unit
    status: str
    n_regions: int = 0
    n_filled: int = 0
    n_genes: int = 0
    n_samples: int = 0
    reason: str = ""


class UnitWriter:
    """Writes units, knows which are there, and tells how far the work is.

    Parameters
    ----------
    store : Lake
    batch : Batch
    reduced : ReducedTables
        Where the numbers of reductions go.
    """

    def __init__(self, store: Lake, batch: Batch, reduced: ReducedTables) -> None:
        self._store, self._batch, self._reduced = store, batch, reduced
        self._done: dict[tuple[int, int], bool] = {}
        self._latest = LatestGenes()

    def is_done(self, unit: PlannedUnit) -> bool:
        """Whether all that is wanted of a unit is there; it is looked for once."""
        if unit.number not in self._done:
            self._done[unit.number] = self._is_there(unit)
        return self._done[unit.number]

    def _is_there(self, unit: PlannedUnit) -> bool:
        fingerprint = unit.atlas.fingerprint
        if not self._reduced.has(_name(unit), fingerprint):
            return False
        if not self._batch.keep_tables:
            return True
        return self._files(unit).is_written(fingerprint, donors=self._batch.donor_tables)

    def written(
        self, outcomes: Iterator[Outcome], plan: Plan, watcher: Watcher
    ) -> Iterator[tuple[tuple[int, int], UnitReport]]:
        """Write each outcome of a plan, at most `WRITES_AHEAD` of them at a time behind the engine.

        With one worker each is written before the next is made.

        Yields
        ------
        ((int, int), UnitReport)
            The unit's number and what became of it.
        """
        told = _Told(plan, watcher)
        ahead = WRITES_AHEAD if self._batch.resources.workers > 1 else 0
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="writer") as writer:
            waiting: deque[tuple[PlannedUnit, Future[UnitReport]]] = deque()
            for outcome in outcomes:
                waiting.append((outcome.unit, writer.submit(self._write, outcome)))
                told.made(outcome)
                while len(waiting) > ahead:
                    yield told.finished(*waiting.popleft())
            for unit, report in waiting:
                yield told.finished(unit, report)

    def _write(self, outcome: Outcome) -> UnitReport:
        unit, tables = outcome
        if isinstance(tables, Failure):
            return UnitReport(self._files(unit), "failed", reason=str(tables))
        origin = provenance(self._store, unit.atlas, unit.pipeline)
        try:
            self._reduced.add(_name(unit), tables.expression, regions_frame(unit.atlas), origin)
        except (ChoiceError, RequestError) as failure:
            return UnitReport(self._files(unit), "failed", reason=str(failure))
        if self._batch.keep_tables:
            write_unit(
                self._files(unit),
                tables,
                unit.atlas,
                origin,
                donors=self._batch.donor_tables,
                latest=self._latest,
            )
        samples = tables.counts.sum(axis=1)
        return UnitReport(
            self._files(unit),
            "written",
            n_regions=len(samples),
            n_filled=int((samples > 0).sum()),
            n_genes=tables.expression.shape[1],
            n_samples=int(samples.sum()),
        )

    def present(self, unit: PlannedUnit) -> UnitReport:
        """What a unit's tables on disk hold."""
        files = self._files(unit)
        return _report(files) if self._batch.keep_tables else UnitReport(files, "present")

    def _files(self, unit: PlannedUnit) -> Unit:
        return Unit(self._batch.out, *_name(unit))


class _Told:
    """Tells a watcher how many units are made, how many failed, and which is next in the plan."""

    def __init__(self, plan: Plan, watcher: Watcher) -> None:
        self._units, self._watcher = plan.units, watcher
        self._made: set[tuple[int, int]] = set()
        self._failed: set[tuple[int, int]] = set()
        self._next = 0
        if self._units:
            self._tell()

    def made(self, outcome: Outcome) -> None:
        """Count a unit that the engine has made, and tell."""
        self._made.add(outcome.unit.number)
        if isinstance(outcome.tables, Failure):
            self._failed.add(outcome.unit.number)
        while self._next < len(self._units) and self._units[self._next].number in self._made:
            self._next += 1
        self._tell()

    def finished(
        self, unit: PlannedUnit, written: "Future[UnitReport]"
    ) -> tuple[tuple[int, int], UnitReport]:
        """Wait until a unit is written: its number and its report. One that failed only then is told."""
        report = written.result()
        if report.status == "failed" and unit.number not in self._failed:
            self._failed.add(unit.number)
            self._tell()
        return unit.number, report

    def _tell(self) -> None:
        making = ""
        if self._next < len(self._units):
            identity, atlas = _name(self._units[self._next])
            making = f"{atlas}, pipeline {identity}"
        self._watcher.units(Units(len(self._made), len(self._units), len(self._failed), making))


def provenance(store: Lake, atlas: AnyAtlas, pipeline: Pipeline) -> dict[str, Any]:
    """What a table says of its origin; equal for equal input, choices and software."""
    choices = {
        **store.manifest.provenance(),
        "pipeline": pipeline.identity(store.snapshot),
        "parameters": pipeline.parameters(),
        "donors": store.resolve_donors(pipeline.donors),
        "software": software_versions(),
    }
    described = {"name": atlas.name, "space": atlas.space, "fingerprint": atlas.fingerprint}
    return {**choices, "pipeline_choices": choices, "atlas": described}


def _name(unit: PlannedUnit) -> tuple[str, str]:
    return unit.identity, unit.atlas.name


def _report(unit: Unit) -> UnitReport:
    """What the tables on disk hold."""
    counts = pq.read_table(unit.path("counts")).to_pandas()
    samples = counts.groupby("region")["n_samples"].sum()
    n_genes = pq.read_metadata(unit.path("expression")).num_rows
    return UnitReport(unit, "present", len(samples), int((samples > 0).sum()), n_genes, int(samples.sum()))
