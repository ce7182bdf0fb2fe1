"""What a run would do, before it does anything: ``ahba run --dry-run``.

Seconds come from what each kind of stage took on the machine of ``benchmarks/README.md``, by the number of
values it goes through. They tell minutes from hours, not more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lake.plan import KINDS, VALUES_FOR_AN_ORDER, Plan
from lake.resources import BASE_BYTES, WORKER_BYTES, Resources

# Seconds of one core for a million values: 58,692 probes x 3,702 samples are 217 million.
SECONDS = {
    "samples": 0.0,
    "probes": 0.002,
    "genes": 0.012,
    "values": 0.005,
    "assignment": 0.0002,
    "normalisation": 0.002,
    "tables": 0.0005,
}
READS = {"probes": 1, "genes": 8, "values": 8}  # bytes a value: the detection calls, the expression
MATRICES = 9  # bytes a value of both in memory
GENES_PER_PROBE = 0.27  # that are left of all probes, with the default choices


@dataclass(frozen=True)
class StageForecast:
    """One kind of stage in a plan.

    Attributes
    ----------
    kind : str
    n_stages : int
        Different ones.
    n_uses : int
        How many later stages, or units, stand on them.
    seconds : float
        Of one core, for all of them.
    """

    kind: str
    n_stages: int
    n_uses: int
    seconds: float


@dataclass(frozen=True)
class Forecast:
    """What a run would do.

    Attributes
    ----------
    n_pipelines, n_atlases : int
    n_units, n_done : int
        Units asked for, and those that are there already.
    stages : list of StageForecast
        Of the units that are not.
    bytes_to_read : int
        From the store, as they are once decompressed.
    seconds : float
        With the workers of `resources`.
    memory : int
        Bytes, at the most.
    bytes_to_scratch : int
        What memory has no room for.
    resources : Resources
    """

    n_pipelines: int
    n_atlases: int
    n_units: int
    n_done: int
    stages: list[StageForecast]
    bytes_to_read: int
    seconds: float
    memory: int
    bytes_to_scratch: int
    resources: Resources


def forecast(plan: Plan, todo: Plan, resources: Resources, *, n_probes: int, n_samples: int) -> Forecast:
    """Foresee a run.

    Parameters
    ----------
    plan, todo : Plan
        All units, and those that are not there yet.
    resources : Resources
    n_probes, n_samples : int
        Of the store.
    """
    stages = [_stage(kind, todo, n_probes * n_samples) for kind in KINDS]
    counts = todo.counts()
    values = int(8 * n_probes * GENES_PER_PROBE * n_samples) if todo.units else 0
    kept = values if len(todo.units) > 1 else values // 2
    matrices = MATRICES * n_probes * n_samples
    unpacked = matrices if todo.reads_often and resources.has_room_for_matrices(matrices) else 0
    spilled = kept if kept > resources.room - unpacked else 0
    if unpacked and counts["values"] > 1:  # those of one pipeline, and of the next
        kept *= 2
    elif todo.orders_values:
        kept += kept // VALUES_FOR_AN_ORDER
    return Forecast(
        n_pipelines=_n_different([unit.identity for unit in plan.units]),
        n_atlases=_n_different([unit.atlas.name for unit in plan.units]),
        n_units=len(plan.units),
        n_done=len(plan.units) - len(todo.units),
        stages=stages,
        bytes_to_read=unpacked or _bytes_of(counts) * n_probes * n_samples,
        seconds=sum(stage.seconds for stage in stages) / resources.workers,
        memory=min(
            resources.memory,
            BASE_BYTES + resources.workers * WORKER_BYTES + unpacked + (0 if spilled else kept),
        ),
        bytes_to_scratch=spilled,
        resources=resources,
    )


def _bytes_of(counts: Mapping[str, int]) -> int:
    """That stages read of a value of the store."""
    return sum(counts[kind] * width for kind, width in READS.items())


def _stage(kind: str, plan: Plan, n_values: int) -> StageForecast:
    keys = plan.stages[kind]
    return StageForecast(kind, len(keys), keys.total(), len(keys) * SECONDS[kind] * n_values / 1e6)


def _n_different(names: Sequence[Any]) -> int:
    return len(set(names))
