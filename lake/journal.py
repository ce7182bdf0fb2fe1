"""``run.json``: what the last run of a tables' directory planned, made, and took."""

import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lake.batch import Batch
from lake.engine import Engine
from lake.manifest import software_versions
from lake.plan import Plan
from lake.resources import Resources, peak_memory
from lake.scheduling import address_of
from lake.store import Lake
from lake.tables import written_aside

JOURNAL = "run.json"


def write_journal(
    batch: Batch,
    store: Lake,
    plan: Plan,
    engine: Engine,
    reports: Sequence[Any],
    resources: Resources,
    started: float,
) -> None:
    """Write ``run.json`` into the tables' directory.

    Parameters
    ----------
    batch : Batch
    store : Lake
    plan : Plan
        Of all units, those that were there included.
    engine : Engine
        That carried it out.
    reports : sequence of UnitReport
    resources : Resources
    started : float
        Seconds since the epoch.
    """
    content = {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": round(time.time() - started, 3),
        "peak_memory_bytes": peak_memory(),
        "workers": resources.workers,
        "memory_limit_bytes": resources.memory,
        "scheduler": address_of(batch.scheduler),
        "store": store.manifest.provenance(),
        "software": software_versions(),
        "units": dict(Counter(report.status for report in reports)),
        "failed": [
            {"atlas": one.unit.atlas, "pipeline": one.unit.pipeline, "reason": one.reason}
            for one in reports
            if one.status == "failed"
        ],
        "plan": plan.counts(),
        "stages": {
            kind: {"made": count, "seconds": round(engine.timings.seconds[kind], 3)}
            for kind, count in engine.timings.counts.items()
        },
    }
    with written_aside(batch.out / JOURNAL) as aside:
        aside.write_text(json.dumps(content, indent=2) + "\n")


def read_journal(out: str | Path) -> dict[str, Any]:
    """What ``run.json`` in a tables' directory tells of the last run."""
    content: dict[str, Any] = json.loads((Path(out) / JOURNAL).read_text())
    return content
