"""Many atlases in a run: read ahead of their use, and kept without their nodes once samples are placed.

An atlas of a million voxels takes 60 MB, and a run may have hundreds. All that the steps after the placing of
samples look at are its name and its regions, unless regions without samples are to be filled.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

from lake.plan import PlannedUnit
from lake.resources import Resources
from transforms.atlas import Atlas
from transforms.atlas_set import AnyAtlas, AtlasSet
from transforms.pipeline import Pipeline

READERS = 4  # more would wait for the one that places samples
ROOM_OF_A_READER = 256 << 20  # a large atlas, with all that reading it takes

Named = TypeVar("Named")


def loaded_ahead(
    atlases: Sequence[Named], load: Callable[[Named], AnyAtlas], resources: Resources
) -> Iterator[AnyAtlas]:
    """Load atlases in their order, the next ones while one is looked at.

    Parameters
    ----------
    atlases : sequence
    load : callable
        Makes an atlas of one of these; called in threads. What it raises is raised here when it is that
        atlas's turn, after those before it have been looked at.
    resources : Resources
        As many are loaded at once as there are workers and memory has room for, and one more waits; with one
        worker each is loaded when the one before it is done with.

    Yields
    ------
    Atlas or AtlasSet
    """
    if resources.workers == 1:
        yield from map(load, atlases)
        return
    ahead = min(resources.workers, READERS, max(1, resources.room // ROOM_OF_A_READER))
    with ThreadPoolExecutor(max_workers=ahead, thread_name_prefix="atlases") as readers:
        waiting: deque[Future[AnyAtlas]] = deque()
        try:
            for atlas in atlases:
                waiting.append(readers.submit(load, atlas))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for unread in waiting:
                unread.cancel()


def made_ready(atlas: AnyAtlas) -> AnyAtlas:
    """The atlas, with what placing samples will ask of it: made where it is loaded, beside other atlases."""
    for own in atlas.atlases.values() if isinstance(atlas, AtlasSet) else [atlas]:
        _ = own.fingerprint, own.tree if own.affine is None else (own.lookup, own.box)
    _ = atlas.fingerprint
    return atlas


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
