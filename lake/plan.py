"""The plan of a run: which stages its units are made of, and which of them are equal.

A stage is known by the hash of its own choices and of the stages that it stands on, so that equal work has
one key whichever pipelines and atlases ask for it. Units are put into an order in which those that share most
follow each other: whatever is kept for the next unit is then needed by it, and nothing is made twice.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from transforms.atlas_set import AnyAtlas, AtlasSet
from transforms.pipeline import Pipeline

GENES_FROM_MEMORY = 4  # stages from which it pays to have the matrices that they read in memory
USES_FOR_AN_ORDER = 6  # of values, from which it pays to find the order of each gene's samples once
VALUES_FOR_AN_ORDER = 4  # as many values take the memory that the order of as many samples takes


class StageKind(NamedTuple):
    """A step of the science.

    Attributes
    ----------
    choices : tuple of str
        The choices that it looks at itself.
    needs : tuple of str
        The kinds of stages that it stands on.
    """

    choices: tuple[str, ...]
    needs: tuple[str, ...] = ()


KINDS: Mapping[str, StageKind] = {
    "samples": StageKind(
        (
            "donors",
            "corrected_mni",
            "lr_mirror",
            "check_sides",
            "exclude_slabs",
            "divide_samples",
            "exclude_hippocampus",
        )
    ),
    "probes": StageKind(
        (
            "reannotated",
            "agilent_only",
            "probe_order",
            "sim_threshold",
            "ibf_threshold",
            "variance_filter",
            "variance_scale",
        ),
        ("samples",),
    ),
    "genes": StageKind(
        ("probe_selection", "donor_probes", "rnaseq_threshold", "rnaseq_significance", "seed"), ("probes",)
    ),
    "values": StageKind(("sample_norm", "quantiles"), ("genes",)),
    "assignment": StageKind(("tolerance", "matching", "divide_samples", "normalise_what"), ("samples",)),
    "normalisation": StageKind(
        ("gene_norm", "norm_matched", "norm_structures", "do_normalise", "quantiles", "normalise_what"),
        ("values", "assignment"),
    ),
    "tables": StageKind(
        ("region_agg", "agg_metric", "missing", "drop_genes", "percent_ds"), ("normalisation",)
    ),
}
"""The stages, in the order of the science; every choice of `Pipeline` is looked at by one of them."""

SHARED_FIRST = ("samples", "probes", "genes", "values", "assignment", "normalisation")


@dataclass(frozen=True, eq=False)
class PlannedUnit:
    """One pipeline on one atlas.

    Attributes
    ----------
    pipeline : Pipeline
    identity : str
        The pipeline's id on the store's snapshot.
    atlas : Atlas or AtlasSet
    keys : dict of str to str
        Kind of stage -> the key of the one that this unit is made of.
    number : (int, int)
        Its place among the units asked for: the pipeline's, and the atlas's.
    """

    pipeline: Pipeline
    identity: str
    atlas: AnyAtlas
    keys: Mapping[str, str] = field(repr=False)
    number: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Plan:
    """Units in the order in which they are made.

    Attributes
    ----------
    units : list of PlannedUnit
    """

    units: list[PlannedUnit]

    @cached_property
    def stages(self) -> dict[str, Counter[str]]:
        """Kind -> the keys of its stages, and how many stages or units stand on each."""
        users: dict[str, set[tuple[str, str]]] = {kind: set() for kind in KINDS}
        for unit in self.units:
            for kind, stage in KINDS.items():
                for needed in _needs(kind, stage, unit.pipeline):
                    users[needed].add((unit.keys[needed], unit.keys[kind]))
        found = {kind: Counter(key for key, _ in pairs) for kind, pairs in users.items()}
        found["tables"] = Counter(unit.keys["tables"] for unit in self.units)
        return found

    def as_asked(self) -> list[PlannedUnit]:
        """The units, pipelines in order and atlases within."""
        return sorted(self.units, key=lambda unit: unit.number)

    def counts(self) -> dict[str, int]:
        """Kind -> how many different stages there are."""
        return {kind: len(keys) for kind, keys in self.stages.items()}

    @property
    def reads_often(self) -> bool:
        """Whether so many stages read the store that to unpack its matrices once is worth their memory."""
        return self.counts().get("genes", 0) >= GENES_FROM_MEMORY

    @property
    def orders_values(self) -> bool:
        """Whether so many stages stand on the same values that their order may be kept with them."""
        return max(self.stages["values"].values(), default=0) >= USES_FOR_AN_ORDER


def make_plan(pipelines: Iterable[Pipeline], atlases: Iterable[AnyAtlas], snapshot: str) -> Plan:
    """Plan every pipeline on every atlas.

    Parameters
    ----------
    pipelines : iterable of Pipeline
    atlases : iterable of Atlas or AtlasSet
    snapshot : str
        Of the store.

    Returns
    -------
    Plan
        Building it computes nothing.
    """
    planner = Planner(pipelines, snapshot)
    return ordered_plan([unit for atlas in atlases for unit in planner.units_of(atlas)])


def ordered_plan(units: Sequence[PlannedUnit]) -> Plan:
    """Units that share a stage together, from the first stage on; otherwise as they were asked for."""
    asked = sorted(units, key=lambda unit: unit.number)
    first: dict[tuple[str, str], int] = {}
    for unit in asked:
        for kind in SHARED_FIRST:
            first.setdefault((kind, unit.keys[kind]), len(first))
    return Plan(
        sorted(
            asked, key=lambda unit: (*(first[kind, unit.keys[kind]] for kind in SHARED_FIRST), unit.number)
        )
    )


class Planner:
    """Plans atlases as they come.

    Parameters
    ----------
    pipelines : iterable of Pipeline
    snapshot : str
        Of the store.
    """

    def __init__(self, pipelines: Iterable[Pipeline], snapshot: str) -> None:
        self._keys = _Keys(snapshot)
        self._pipelines = [
            (pipeline, pipeline.identity(snapshot), pipeline.parameters()) for pipeline in pipelines
        ]
        self._n_atlases = 0

    def units_of(self, atlas: AnyAtlas) -> list[PlannedUnit]:
        """Every pipeline on the next atlas."""
        place = self._n_atlases
        self._n_atlases += 1
        return [
            PlannedUnit(
                pipeline, identity, atlas, self._keys.of(pipeline, parameters, atlas), (number, place)
            )
            for number, (pipeline, identity, parameters) in enumerate(self._pipelines)
        ]


class _Keys:
    """Keys of stages, each hashed once."""

    def __init__(self, snapshot: str) -> None:
        self._snapshot = snapshot
        self._known: dict[Any, str] = {}

    def of(self, pipeline: Pipeline, parameters: Mapping[str, Any], atlas: AnyAtlas) -> dict[str, str]:
        keys: dict[str, str] = {}
        for kind, stage in KINDS.items():
            own = [parameters[name] for name in stage.choices]
            stands_on = [keys[needed] for needed in _needs(kind, stage, pipeline)]
            keys[kind] = self._key([kind, own, stands_on, self._snapshot, _place(kind, atlas)])
        return keys

    def _key(self, content: Any) -> str:
        told = json.dumps(content, sort_keys=True)
        if told not in self._known:
            self._known[told] = hashlib.sha256(told.encode()).hexdigest()[:16]
        return self._known[told]


def _needs(kind: str, stage: StageKind, pipeline: Pipeline) -> tuple[str, ...]:
    """What a stage stands on; samples dropped for being unlike the others are known with the probes."""
    if kind == "assignment" and pipeline.sim_threshold is not None:
        return ("probes",)
    return stage.needs


def _place(kind: str, atlas: AnyAtlas) -> str:
    """The atlas, where a stage looks at it: donors' own atlases put the samples into another space."""
    if kind == "assignment" or (kind == "samples" and isinstance(atlas, AtlasSet)):
        return atlas.fingerprint
    return ""
