"""Carrying a plan out: every stage made once, kept while a later one needs it, and let go then.

The engine walks the plan's order. Samples and their regions are small and are kept; probes and genes are kept
until the next ones are made. The normalised values of samples are what is large: they are made once for all
units that share them, of the samples that any of these needs, and go to scratch where memory has no room.
What comes after is one lazy task a block of genes, which dask's scheduler carries out: threads here, or
workers elsewhere.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from dask.base import compute, persist
from numpy.typing import NDArray

from lake.in_flight import InFlight
from lake.plan import USES_FOR_AN_ORDER, VALUES_FOR_AN_ORDER, Plan, PlannedUnit
from lake.resources import Resources
from lake.scratch import Scratch
from lake.sources import source_for
from lake.store import Lake
from lake.timings import Timings
from transforms.errors import AtlasError, ChoiceError
from transforms.parts import is_by_order, label_samples, left_of
from transforms.regions import RegionTables, lazy_tables
from transforms.values import FreshValues, KeptValues, Values, sample_blocks
from transforms.workflow import Genes, Source, choose_genes, choose_samples, filtered_probes

Progress = Callable[[str, int, int | None], None]
Labels = dict[str, NDArray[np.int64]]
Failure = ChoiceError | AtlasError
_Group = tuple[list[PlannedUnit], Labels]
"""Units that share all but how samples become regions, and the region of each donor's samples."""

ROOM_FOR_TABLES = 16  # of the tables of a group, and of what becomes of them until they are written


class Outcome(NamedTuple):
    """What became of a unit: its tables, or why there are none."""

    unit: PlannedUnit
    tables: RegionTables | Failure


_Outcomes = list[Outcome]
"""Of one group."""


class _Latest:
    """The result, or the failure, of the stage of a kind that was asked for last."""

    def __init__(self) -> None:
        self._key = ""
        self._result: Any = None

    def forget(self) -> None:
        self._key, self._result = "", None

    def get(self, key: str, make: Callable[[], Any]) -> Any:
        if key != self._key:
            self.forget()  # there may be no room for both
            self._key = key
            try:
                self._result = make()
            except (ChoiceError, AtlasError) as failure:
                self._result = failure
        if isinstance(self._result, Failure):
            raise self._result
        return self._result


class Engine:
    """Carries plans out on one store.

    Parameters
    ----------
    store : Lake
    source : Source
        What the store gives to the transforms.
    resources : Resources
    scratch : Scratch, optional
        Where values go that memory has no room for; None keeps all of them where dask keeps results.
    donors : bool
        Make each donor's own tables too.
    keeps_rows : bool
        Keep the chosen probes' rows from when they were scored, if memory has room. Not for a cluster: there
        a block would go from worker to worker as a whole, for each donor's part of it.
    progress : callable, optional
        Called with (kind of stage, how many are made, how many the plan has: None while it grows).
    """

    def __init__(
        self,
        store: Lake,
        source: Source,
        resources: Resources,
        *,
        scratch: Scratch | None = None,
        donors: bool = False,
        keeps_rows: bool = True,
        progress: Progress | None = None,
    ) -> None:
        self._store, self._source, self._resources = store, source, resources
        self._keeps_rows = keeps_rows
        self._scratch, self._donors, self._progress = scratch, donors, progress
        self._latest: dict[str, _Latest] = defaultdict(_Latest)
        self._prepared: dict[str, pd.DataFrame] = {}
        self._labels: dict[str, Labels | Failure] = {}
        self._totals: dict[str, int] = {}
        self._in_memory = 0
        self._told: dict[str, int] = defaultdict(int)
        self.timings = Timings()

    def place(self, units: Sequence[PlannedUnit]) -> None:
        """Find the regions of the samples for units of one atlas, where that needs no genes.

        So the atlas's nodes have done their work before the next atlas is loaded.
        """
        for unit in units:
            if unit.pipeline.sim_threshold is None and unit.keys["assignment"] not in self._labels:
                with suppress(ChoiceError, AtlasError):  # it is told where the genes are asked for
                    self._label(unit, self._samples(unit))

    def outcomes(self, plan: Plan) -> Iterator[Outcome]:
        """Every unit of the plan, in its order.

        Yields
        ------
        Outcome
            As soon as it is there. With one worker, whatever the caller does with it is done before the next
            ones are made; with more these are begun before, so that none waits for the last block of a unit.
        """
        self._totals |= plan.counts()
        self._unpack_for(plan)
        workers = self._resources.workers
        with InFlight[_Outcomes](workers + 1 if workers > 1 else 1) as flight:
            for made in self._made_ahead(plan, flight):
                self._tell("normalisation")
                yield from made

    def _made_ahead(self, plan: Plan, flight: InFlight[_Outcomes]) -> Iterator[_Outcomes]:
        for sharing_genes in _sharing(plan.units, "genes"):
            groups = _sharing(sharing_genes, "values")
            for group in groups:
                yield from self._sharing_values(group, sharing_genes, flight, is_last=group is groups[-1])
        yield from flight.rest()

    def _sharing_values(
        self,
        units: list[PlannedUnit],
        sharing_genes: list[PlannedUnit],
        flight: InFlight[_Outcomes],
        *,
        is_last: bool,
    ) -> Iterator[_Outcomes]:
        if not self._in_memory:  # there may be no room for what the last ones are made of, and for the next
            yield from flight.rest()
        try:
            genes = self._genes(units[0], sharing_genes)
        except (ChoiceError, AtlasError) as failure:
            flight.put([Outcome(unit, failure) for unit in units])
            return
        groups = [(group, self._label(group[0], genes.samples)) for group in _sharing(units, "normalisation")]
        placed = [(group, labels) for group, labels in groups if not isinstance(labels, Failure)]
        needed = _needed(placed)
        size = _size(genes, needed)
        if flight.holds + 2 * size > self._room:
            yield from flight.rest()
        values = self._values(units[0], placed, genes, needed)
        if is_last and isinstance(values, KeptValues):
            self._latest["genes"].forget()
            genes = genes.without_rows()
        if isinstance(values, KeptValues) and self._pays_to_order(placed, size):
            with self.timings.of("values", made=0):
                values = values.in_order()
        for group, labels in groups:
            if isinstance(labels, Failure):
                flight.put([Outcome(unit, labels) for unit in group])
                continue
            yield from flight.beyond(self._at_once(group, genes) - 1)
            make = partial(self._alike, group, labels, genes, values)
            flight.make(make, of=group[0].keys["values"], n_bytes=size)

    @property
    def _room(self) -> int:
        """Bytes that may be kept beside the matrices."""
        return self._resources.room - self._in_memory

    def _unpack_for(self, plan: Plan) -> None:
        """Keep the store's matrices in memory where many stages read them and there is room."""
        microarray = self._source.microarray
        if self._keeps_rows and plan.reads_often and self._resources.has_room_for_matrices(microarray.nbytes):
            with self.timings.of("matrices"):
                self._source = replace(self._source, microarray=microarray.persist())
            self._in_memory = microarray.nbytes

    # ---- the stages before an atlas ----

    def _genes(self, unit: PlannedUnit, sharing: list[PlannedUnit]) -> Genes:
        genes: Genes = self._stage("genes", unit, partial(self._choose_genes, unit, sharing))
        return genes

    def _choose_genes(self, unit: PlannedUnit, sharing: list[PlannedUnit]) -> Genes:
        """The genes, their rows kept in memory if it has room: each of `sharing` reads them."""
        samples, probes = self._stage("probes", unit, partial(self._filter_probes, unit))
        with self._made("genes"):
            needed = self._needed_by(sharing, samples)
            fits = self._in_memory or 8 * len(needed) * probes["gene_symbol"].nunique() <= self._room
            keep = needed if self._keeps_rows and fits else None
            return choose_genes(self._source_of(unit), unit.pipeline, samples, probes, keep=keep)

    def _needed_by(self, units: list[PlannedUnit], samples: pd.DataFrame) -> NDArray[np.intp]:
        """Positions of the prepared samples that one of the units needs, ascending."""
        found = [self._labels.get(unit.keys["assignment"]) for unit in units]
        if any(labels is None for labels in found):  # not known before the genes are
            return np.arange(len(samples))
        placed = [
            ([unit], labels) for unit, labels in zip(units, found, strict=True) if isinstance(labels, dict)
        ]
        needed = _needed(placed)
        own = {donor: table.index.to_numpy() for donor, table in samples.groupby("donor", sort=False)}
        return np.sort(np.concatenate([own[donor][left] for donor, left in needed.items()] or [np.arange(0)]))

    def _filter_probes(self, unit: PlannedUnit) -> tuple[pd.DataFrame, pd.DataFrame]:
        samples = self._samples(unit)
        with self._made("probes"):
            return filtered_probes(self._source_of(unit), unit.pipeline, samples)

    def _samples(self, unit: PlannedUnit) -> pd.DataFrame:
        """Small enough to be kept for the whole run."""
        key = unit.keys["samples"]
        if key not in self._prepared:
            donors = self._store.resolve_donors(unit.pipeline.donors)
            with self._made("samples"):
                self._prepared[key] = choose_samples(self._source_of(unit), unit.pipeline, donors)
        return self._prepared[key]

    def _source_of(self, unit: PlannedUnit) -> Source:
        donors = self._store.resolve_donors(unit.pipeline.donors)
        return source_for(self._source, unit.atlas, donors)

    def _stage(self, kind: str, unit: PlannedUnit, make: Callable[[], Any]) -> Any:
        return self._latest[kind].get(unit.keys[kind], make)

    # ---- the stages of an atlas ----

    def _label(self, unit: PlannedUnit, samples: pd.DataFrame) -> Labels | Failure:
        key = unit.keys["assignment"]
        if key not in self._labels:
            with self._made("assignment"):
                self._labels[key] = _attempt(label_samples, samples, unit.atlas, unit.pipeline)
        return self._labels[key]

    def _values(
        self, first: PlannedUnit, groups: list[_Group], genes: Genes, needed: dict[str, NDArray[np.integer]]
    ) -> Values:
        """The values of all samples that a group needs; kept if several groups do, or if they are large."""
        fresh = FreshValues(self._source_of(first), genes, first.pipeline)
        taken = genes.selection.kept.nbytes if genes.selection.kept else 0
        crowded = self._scratch is not None and _size(genes, needed) > self._room - taken
        if not groups or (len(groups) == 1 and not crowded and not self._in_memory):
            return fresh
        with self._made("values"):
            keep = self._scratch.keep if self._scratch is not None and crowded else None
            return KeptValues(_persisted(fresh, needed, keep), needed)

    def _pays_to_order(self, groups: list[_Group], size: int) -> bool:
        """Whether many groups sort these values, and there is room for their order."""
        n_by_order = sum(is_by_order(units[0].pipeline) for units, _ in groups)
        return n_by_order >= USES_FOR_AN_ORDER and size + size // VALUES_FOR_AN_ORDER <= self._room

    def _at_once(self, units: list[PlannedUnit], genes: Genes) -> int:
        """How many groups like this are made together: one more than workers, which its end would idle."""
        workers = self._resources.workers
        size = 8 * len(units[0].atlas.regions) * len(genes.selection.genes) * len(units)
        return 1 if workers == 1 else max(1, min(workers + 1, self._room // (ROOM_FOR_TABLES * size)))

    def _alike(self, units: list[PlannedUnit], labels: Labels, genes: Genes, values: Values) -> _Outcomes:
        pipelines = [unit.pipeline for unit in units]
        with self.timings.of("normalisation"):
            lazy = _attempt(
                lazy_tables, genes, values, units[0].atlas, pipelines, labels, donors=self._donors
            )
            found = [lazy] * len(units)
            if not isinstance(lazy, Failure):  # with values that are kept there is nothing to leave out
                (found,) = compute(lazy, optimize_graph=not isinstance(values, KeptValues))
        return [Outcome(unit, tables) for unit, tables in zip(units, found, strict=True)]

    @contextmanager
    def _made(self, kind: str) -> Iterator[None]:
        with self.timings.of(kind):
            yield
        self._tell(kind)

    def _tell(self, kind: str) -> None:
        """Tell of each stage of a kind that was made since."""
        while self._told[kind] < self.timings.counts[kind]:
            self._told[kind] += 1
            if self._progress:
                self._progress(kind, self._told[kind], self._totals.get(kind))


def _sharing(units: Sequence[PlannedUnit], kind: str) -> list[list[PlannedUnit]]:
    """Runs of units that share a stage."""
    return [list(group) for _, group in groupby(units, key=lambda unit: unit.keys[kind])]


def _attempt(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    try:
        return function(*args, **options)
    except (ChoiceError, AtlasError) as failure:
        return failure


def _needed(groups: Sequence[_Group]) -> dict[str, NDArray[np.integer]]:
    """Donor -> the positions of its samples that one of the groups needs, ascending."""
    needed: dict[str, list[NDArray[np.integer]]] = defaultdict(list)
    for units, labels in groups:
        for donor, own in labels.items():
            needed[donor].append(left_of(own, norm_matched=units[0].pipeline.norm_matched))
    return {donor: np.unique(np.concatenate(lefts)) for donor, lefts in needed.items()}


def _size(genes: Genes, needed: dict[str, NDArray[np.integer]]) -> int:
    """Bytes of the values of these samples."""
    return 8 * len(genes.selection.genes) * sum(map(len, needed.values()))


def _persisted(
    fresh: FreshValues, needed: dict[str, NDArray[np.integer]], keep: Callable[..., Any] | None
) -> dict[str, list[Any]]:
    """Donor -> its blocks, made now. To scratch they go one donor after the other."""
    lazy = {
        donor: sample_blocks(fresh.source, fresh.genes, fresh.pipeline, donor, left, keep=keep)
        for donor, left in needed.items()
    }
    if keep is None:
        return dict(zip(lazy, persist(*lazy.values()), strict=True))
    return {donor: list(persist(*blocks)) for donor, blocks in lazy.items()}
