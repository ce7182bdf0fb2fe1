"""What a run's journal says of many more pipelines: seconds a stage, and stages in a whole grid.

A run takes, for each kind of stage, a number of these (its plan) times the seconds of one; and for each unit
what is done outside the stages: reducing its table, writing. That is the whole model. Of a grid with values
for each choice, the stages of a kind are the combinations of those choices that the kind stands on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import lake
from lake.plan import KINDS

BEFORE_ATLASES = ("samples", "probes", "genes", "values")  # stages that all atlases share
ONCE = ("matrices",)  # what a run does once: the store unpacked into memory, where many stages read it
REST = "outside stages"
UNIT = "tables"  # the kind of stage that every unit has of its own
Journal = Mapping[str, Any]


def costs(journal: Journal) -> dict[str, float]:
    """Return the seconds of one planned stage of each kind; of one unit, for what is outside.

    A stage that the engine makes together with the next one has its seconds there.
    """
    counts, seconds = journal["plan"], stage_seconds(journal)
    each = {kind: seconds.get(kind, 0.0) / count for kind, count in counts.items()}
    each |= {
        kind: took / (1 if kind in ONCE else counts[UNIT])
        for kind, took in seconds.items()
        if kind not in counts
    }
    return {**each, REST: (journal["seconds"] - sum(seconds.values())) / counts[UNIT]}


def stage_seconds(journal: Journal) -> dict[str, float]:
    """Return the seconds that the stages of each kind took together."""
    return {kind: float(stage["seconds"]) for kind, stage in journal["stages"].items()}


def predicted(each: Mapping[str, float], counts: Mapping[str, int]) -> float:
    """Return the seconds of a run with so many stages of each kind."""
    return sum(seconds * times_made(kind, counts) for kind, seconds in each.items())


def times_made(kind: str, counts: Mapping[str, int]) -> int:
    """Return how often a run of so many stages does what is of a kind."""
    return 1 if kind in ONCE else counts.get(kind, counts[UNIT])


def sustained(journal: Journal) -> float:
    """Return units a second, once what atlases share is there; all else counts, reductions too."""
    seconds = stage_seconds(journal)
    shared = sum(seconds.get(kind, 0.0) for kind in (*ONCE, *BEFORE_ATLASES))
    return float(journal["plan"][UNIT] / (journal["seconds"] - shared))


def family_model(drawn: Mapping[str, float], family: Mapping[str, float]) -> dict[str, float]:
    """Return the costs in a whole grid.

    What comes before the values of samples costs as in pipelines drawn at random, where there are many of
    these stages; the rest as in whole families, which share values and normalisations as the grid does.
    """
    before = {kind: drawn[kind] for kind in (*ONCE, *BEFORE_ATLASES[:-1]) if kind in drawn}
    return {**family, **before}


def grid_counts(values: Mapping[str, Sequence[Any]], *, atlases: int) -> dict[str, int]:
    """Return how many stages of each kind the grid of these values has, without listing its pipelines."""
    return {
        kind: _combinations(values, _stands_on(kind)) * (1 if kind in BEFORE_ATLASES else atlases)
        for kind in KINDS
    }


def _stands_on(kind: str) -> set[str]:
    """Return every choice that decides a stage, those of the stages before it included."""
    stage = KINDS[kind]
    return set(stage.choices).union(*map(_stands_on, stage.needs))


def _combinations(values: Mapping[str, Sequence[Any]], choices: set[str]) -> int:
    return len(lake.grid(None, **{name: given for name, given in values.items() if name in choices}))
