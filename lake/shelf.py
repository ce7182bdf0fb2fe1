"""Many atlases in a run: read ahead of their use, and kept without their nodes once samples are placed.

An atlas of a million voxels takes 60 MB, and a run may have hundreds. All that the steps after the placing of
samples look at are its name and its regions, unless regions without samples are to be filled.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

from lake.plan import PlannedUnit
from transforms.atlas import Atlas
from transforms.atlas_set import AnyAtlas, AtlasSet
from transforms.pipeline import Pipeline

READ_AHEAD = 2
ROOM_TO_READ_AHEAD = 512 << 20  # two large atlases at once, with all that reading them takes

Named = TypeVar("Named")


def loaded_ahead(
    atlases: Sequence[Named], load: Callable[[Named], AnyAtlas], *, room: int
) -> Iterator[AnyAtlas]:
    """Load one after the other, the next while the last is looked at; two of them if `room` bytes allow."""
    ahead = READ_AHEAD if room >= ROOM_TO_READ_AHEAD else 1
    with ThreadPoolExecutor(max_workers=ahead) as readers:
        waiting: list[Future[AnyAtlas]] = []
        for atlas in atlases:
            waiting.append(readers.submit(load, atlas))
            if len(waiting) > ahead:
                yield waiting.pop(0).result()
        while waiting:
            yield waiting.pop(0).result()


def needs_nodes(pipeline: Pipeline) -> bool:
    """Whether a pipeline looks at an atlas's nodes once its genes are chosen."""
    return pipeline.missing is not None or pipeline.sim_threshold is not None


def without_nodes(units: Sequence[PlannedUnit]) -> list[PlannedUnit]:
    """The same units, whose atlas has a name, regions and a fingerprint, but no nodes."""
    if not units:
        return []
    facts = _facts(units[0].atlas)
    return [replace(unit, atlas=facts) for unit in units]


def _facts(atlas: AnyAtlas) -> AnyAtlas:
    facts: AnyAtlas
    if isinstance(atlas, AtlasSet):
        facts = AtlasSet(atlas.name, {donor: _nodeless(own) for donor, own in atlas.atlases.items()})
    else:
        facts = _nodeless(atlas)
    facts.__dict__["fingerprint"] = atlas.fingerprint  # that of the whole
    return facts


def _nodeless(atlas: Atlas) -> Atlas:
    nothing = slice(0, 0)
    return replace(
        atlas,
        labels=atlas.labels[nothing].copy(),
        coordinates=atlas.coordinates[nothing].copy(),
        nodes=atlas.nodes[nothing].copy(),
        vertices=None,
        triangles=None,
    )
