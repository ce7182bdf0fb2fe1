"""Distances between the regions of an atlas, as a table that says its origin."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lake.catalogue import load_group_atlas
from lake.errors import RequestError
from lake.manifest import software_versions
from lake.sources import source_of
from lake.store import Lake
from transforms.atlas import Atlas
from transforms.distance import region_distances
from transforms.parts import label_samples
from transforms.pipeline import Pipeline
from transforms.samples import use_coordinates
from transforms.workflow import choose_samples, filtered_probes


def distance_table(
    atlas: str | Path | Atlas,
    *,
    method: str = "centroids",
    cross_unlabelled: bool = False,
    store: Lake | None = None,
    **places: Any,
) -> pd.DataFrame:
    """Distance between every two regions, one row a pair.

    Parameters
    ----------
    atlas : str, path or Atlas
        As for `lake.expression`, but one for all donors.
    method, cross_unlabelled
        As for `region_distances`.
    store : Lake, optional
        For ``samples``: where the samples are.
    **places
        For ``samples``: which they are, see `sampled_places`.

    Returns
    -------
    pandas.DataFrame
        ``region``, ``other_region`` and ``distance`` in mm (NaN where undefined), regions ascending, each
        pair once; ``attrs`` hold the provenance.

    Raises
    ------
    RequestError
        If ``samples`` is asked for without a store, or the atlas is one for each donor.
    ChoiceError, AtlasError
        If the method, the atlas or a choice is wrong.
    """
    loaded = load_group_atlas(atlas)
    samples, labels = _samples_for(method, loaded, store, places)
    matrix = region_distances(
        loaded, method=method, samples=samples, labels=labels, cross_unlabelled=cross_unlabelled
    )
    regions = matrix.index.to_numpy()
    rows, columns = np.triu_indices(len(regions), k=1)
    table = pd.DataFrame(
        {
            "region": regions[rows],
            "other_region": regions[columns],
            "distance": matrix.to_numpy()[rows, columns],
        }
    )
    table.attrs = {
        **(store.manifest.provenance() if samples is not None and store is not None else {}),
        "atlas": {"name": loaded.name, "space": loaded.space, "fingerprint": loaded.fingerprint},
        "derived": {"method": method, "cross_unlabelled": cross_unlabelled, **places},
        "software": software_versions(),
    }
    return table


def sampled_places(
    store: Lake,
    atlas: str | Path | Atlas,
    *,
    tolerance: float = 2,
    matching: str = "abagen",
    corrected_mni: bool = True,
    donors: str | Sequence[str] = "all",
) -> tuple[pd.DataFrame, NDArray[np.int64]]:
    """Samples in regions of an atlas, at the coordinates in use, and the region of each.

    Parameters
    ----------
    store : Lake
    atlas : str, path or Atlas
    tolerance, matching, corrected_mni, donors
        As of a `Pipeline`; AHBAprocessing takes the published coordinates, ``corrected_mni=False``.

    Returns
    -------
    samples : pandas.DataFrame
        ``mni_x/y/z`` in mm, and the other columns of the store's samples.
    labels : (sample,) int64 array

    Raises
    ------
    RequestError
        If no sample is in a region.
    """
    found = store.in_atlas(
        atlas, tolerance=tolerance, matching=matching, corrected=corrected_mni, donors=donors
    ).samples
    return use_coordinates(found, corrected_mni=corrected_mni), found["region"].to_numpy(np.int64)


def averaged_places(
    store: Lake, atlas: Atlas, origin: Mapping[str, Any]
) -> tuple[pd.DataFrame, NDArray[np.int64]]:
    """The samples that a run averaged into regions, where its choices put them, and the region of each.

    Parameters
    ----------
    store : Lake
        At the snapshot of the table.
    atlas : Atlas
        Of the table.
    origin : mapping
        ``attrs`` of the table, from `lake.read_expression`.

    Returns
    -------
    samples : pandas.DataFrame
        ``mni_x/y/z`` in mm; mirrored copies follow their donor's samples.
    labels : (sample,) int64 array
        0 for none.

    Raises
    ------
    RequestError
        If the store is at another snapshot, or the samples depend on a table of genes that is not known here.
    """
    if store.snapshot != origin["snapshot"]:
        raise RequestError(
            f"The table was made from snapshot {origin['snapshot']}, and {store.path} is at "
            f"{store.snapshot}: give the store it was made from."
        )
    pipeline, source = _choices_on_samples(origin), source_of(store)
    samples = choose_samples(source, pipeline, store.resolve_donors(origin["donors"]))
    if pipeline.sim_threshold is not None:
        samples, _ = filtered_probes(source, pipeline, samples)
    labels = label_samples(samples, atlas, pipeline)
    kept = samples[samples["donor"].isin(labels)]
    return kept, np.concatenate([labels[donor] for donor in kept["donor"].unique()])


def _choices_on_samples(origin: Mapping[str, Any]) -> Pipeline:
    """The pipeline of a table, but for what says nothing of samples and may be known by its hash only."""
    choices = {name: value for name, value in origin["parameters"].items() if name != "agg_metric"}
    if isinstance(choices.get("reannotated"), dict):
        if choices.get("sim_threshold") is not None:
            raise RequestError(
                "Which samples are alike (sim_threshold) depends on the table's own re-annotation, of which "
                "its hash alone is known: measure from centroids or along the surface."
            )
        del choices["reannotated"]
    return Pipeline.from_choices(choices)


def _samples_for(
    method: str, atlas: Atlas, store: Lake | None, places: dict[str, Any]
) -> tuple[pd.DataFrame | None, NDArray[np.int64] | None]:
    if method != "samples":
        if places:
            raise RequestError(f"{', '.join(places)} says which samples; it goes with method='samples'.")
        return None, None
    if store is None:
        raise RequestError("Distances between samples take the store that has them: give it (--store).")
    return sampled_places(store, atlas, **places)
