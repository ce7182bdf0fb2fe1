"""What a store gives to the transforms."""

import functools
from collections.abc import Sequence

from lake.rnaseq_profiles import rnaseq_profiles
from lake.store import Lake
from transforms.atlas_set import AnyAtlas, AtlasSet
from transforms.workflow import Source


def source_of(store: Lake) -> Source:
    """The microarray of all donors, its labels, and RNA-seq for what asks for it, read once; nothing yet."""
    return Source(
        store.unlabelled(),
        store.probes,
        store.samples,
        store.ontology,
        rnaseq=functools.cache(functools.partial(rnaseq_profiles, store)),
    )


def source_for(source: Source, atlas: AnyAtlas | None, donors: Sequence[str]) -> Source:
    """The source with samples in the atlas's space."""
    return source.in_native_space(atlas, donors) if isinstance(atlas, AtlasSet) else source
