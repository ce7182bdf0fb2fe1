"""Asking the lake by place: around a coordinate, in a structure, in the regions of an atlas, in a mask."""

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from nibabel.affines import apply_affine
from numpy.typing import NDArray

from lake.errors import RequestError
from lake.selection import Selection, counted
from lake.structures import described, find_structures, with_descendants
from transforms.assign import assign
from transforms.atlas_set import AnyAtlas, AtlasSet, atlas_of, place_in_native_space
from transforms.samples import CORRECTED_MNI, MNI, prepare_samples, use_coordinates
from transforms.surface_labels import TO_MNI152

if TYPE_CHECKING:
    from lake.runs import AtlasLike
    from lake.store import Lake

Floats = NDArray[np.float64]
Donors = str | Sequence[str]

SPACES = {"mni152": np.eye(4), "fsaverage": TO_MNI152["fsaverage5"]}
"""Space -> affine from its mm to MNI152."""
HEMISPHERES = ("L", "R", "B")


def near(
    store: "Lake",
    point: Sequence[float],
    *,
    radius: float | None = None,
    k: int | None = None,
    space: str = "mni152",
    corrected: bool = True,
    donors: Donors = "all",
) -> Selection:
    """Samples around a coordinate, the nearest first.

    Parameters
    ----------
    store : Lake
    point : (x, y, z)
        In mm.
    radius : float, optional
        Samples not farther than this, mm.
    k : int, optional
        The k nearest samples; of equally near ones the first of the store.
    space : {"mni152", "fsaverage"}
        Of `point`; ``fsaverage`` is MNI305.
    corrected : bool
        Whether samples lie at their corrected or their published MNI152 coordinates.
    donors : "all" or sequence of str

    Returns
    -------
    Selection
        Its ``samples`` have a column ``distance``, mm in MNI152.

    Raises
    ------
    RequestError
        If the point, the radius or k makes no sense, no sample is within the radius, or one has no such
        coordinates.
    """
    place = _place(point, space)
    if (radius is None) == (k is None):
        raise RequestError("Say how far or how many: give either radius or k.")
    samples = _placed(store, donors, corrected)
    distance = np.sqrt(np.square(samples[MNI].to_numpy() - place).sum(axis=1))
    order = np.argsort(distance, kind="stable")
    kept = order[: _checked_k(k)] if k is not None else order[distance[order] <= _checked_radius(radius)]
    if not len(kept):
        raise RequestError(
            f"No sample lies within {radius:g} mm of {_triple(place)} in MNI152; the nearest is "
            f"{distance[order[0]]:.1f} mm away."
        )
    nearest = f"{counted(len(kept), 'sample')} nearest to"
    extent = nearest if k is not None else f"samples within {radius:g} mm of"
    return Selection(
        store,
        f"{extent} {_triple(point)} in {space}",
        samples.index.to_numpy()[kept],
        labels={"distance": distance[kept]},
    )


def _place(point: Sequence[float], space: str) -> Floats:
    if space not in SPACES:
        raise RequestError(f"space={space!r} is unknown; choose one of {', '.join(SPACES)}.")
    try:
        place = np.asarray(point, dtype=np.float64)
    except (TypeError, ValueError):
        place = np.empty(0)
    if place.shape != (3,) or not np.isfinite(place).all():
        raise RequestError(f"{point!r} is no place: three numbers, x, y and z in mm, are needed.")
    return np.asarray(apply_affine(SPACES[space], place), dtype=np.float64)


def _checked_radius(radius: float | None) -> float:
    if not isinstance(radius, int | float | np.number) or not np.isfinite(radius) or radius < 0:
        raise RequestError(f"radius={radius!r}: a number of mm, not negative, is needed.")
    return float(radius)


def _checked_k(k: int) -> int:
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise RequestError(f"k={k!r}: a whole number, 1 or more, is needed.")
    return int(k)


def _triple(point: Sequence[float] | Floats) -> str:
    return f"({', '.join(f'{axis:g}' for axis in point)})"


def _placed(store: "Lake", donors: Donors, corrected: bool) -> pd.DataFrame:
    """The donors' samples with the coordinates in use; the index is the position in the store."""
    numbers = store.resolve_donors(donors)
    _refuse_unplaced(store, numbers, corrected)
    return use_coordinates(store.samples[store.samples["donor"].isin(numbers)], corrected_mni=corrected)


def _refuse_unplaced(store: "Lake", donors: list[str], corrected: bool) -> None:
    """A sample without coordinates could be anywhere, so that no answer would be right."""
    samples = store.samples
    unplaced = samples[CORRECTED_MNI if corrected else MNI].isna().any(axis=1) & samples["donor"].isin(donors)
    if unplaced.any():
        well, donor = samples.loc[unplaced, ["well_id", "donor"]].iloc[0]
        raise RequestError(
            f"{unplaced.sum()} samples have no {'corrected' if corrected else 'published'} coordinates (the "
            f"first is well {well} of donor {donor}): choose corrected={not corrected} "
            f"(--{'no-' if corrected else ''}corrected-mni), or donors that have."
        )


# ---- structures ----


def structure(
    store: "Lake",
    name: str | int,
    *,
    descendants: bool = True,
    hemisphere: str | None = None,
    donors: Donors = "all",
) -> Selection:
    """Samples of a structure of the Allen ontology.

    Parameters
    ----------
    store : Lake
    name : str or int
        Acronym (``HiF``), name (``hippocampal formation``, in any letters, with or without its ", left" or
        ", right") or id of the structure. An acronym stands for the structures of both hemispheres.
    descendants : bool
        Whether samples of the structures it consists of belong to it.
    hemisphere : {"L", "R", "B"}, optional
        Only samples of structures of this hemisphere; B: of those without one.
    donors : "all" or sequence of str

    Returns
    -------
    Selection
        In the order of the store.

    Raises
    ------
    RequestError
        If the structure is unknown (the nearest names are given) or has no samples, or the name is that of
        several.
    """
    side = None if hemisphere is None else hemisphere.upper()
    if side not in (None, *HEMISPHERES):
        raise RequestError(f"hemisphere={hemisphere!r} is unknown; choose one of {', '.join(HEMISPHERES)}.")
    found = find_structures(store.ontology, name)
    ids = with_descendants(store.ontology, found) if descendants else found["structure_id"].to_numpy()
    samples = store.samples
    chosen = samples["structure_id"].isin(ids) & samples["donor"].isin(store.resolve_donors(donors))
    if side is not None:
        chosen &= samples["hemisphere"] == side
    question = described(found) + (f", {side}" if side else "")
    if not chosen.any():
        hint = "" if descendants else " of its own: leave out descendants=False (--no-descendants)"
        raise RequestError(f"Structure {question} has no samples{hint}.")
    return Selection(store, question, np.flatnonzero(chosen))


# ---- atlases and masks ----


def in_atlas(
    store: "Lake",
    atlas: "AtlasLike",
    regions: int | str | Sequence[int | str] | None = None,
    *,
    tolerance: float = 2,
    matching: str = "abagen",
    corrected: bool = True,
    donors: Donors = "all",
) -> Selection:
    """Samples in regions of an atlas: those of which a run makes the regions' expression.

    Parameters
    ----------
    store : Lake
    atlas : str, path, Atlas or AtlasSet
        As for `lake.expression`.
    regions : int, str, or sequence of them, optional
        Ids or labels of regions; all if left out.
    tolerance, matching
        As in a `Pipeline`.
    corrected : bool
        Whether samples lie at their corrected or their published MNI152 coordinates.
    donors : "all" or sequence of str

    Returns
    -------
    Selection
        Its ``samples`` have the columns ``region`` (id) and ``region_label``.

    Raises
    ------
    RequestError
        If a region is unknown or none is named, no sample is in the regions, or one has no such
        coordinates.
    AtlasError, ChoiceError
        If the atlas or a choice is wrong.
    """
    loaded, placed, numbers = _placed_in(store, atlas, donors, corrected)
    wanted = _region_ids(loaded.regions, regions, loaded.name)
    samples = prepare_samples(placed, store.ontology, donors=numbers, corrected_mni=corrected, lr_mirror=None)
    labels = _labels(samples, loaded, tolerance, matching)
    inside = np.isin(labels, wanted)
    question = f"{loaded.name}" + ("" if regions is None else f", region {_listed(wanted)}")
    if not inside.any():
        raise RequestError(f"No sample lies in {question}; tolerance is {tolerance:g}.")
    facts = {
        "region": labels[inside],
        "region_label": loaded.regions["label"].reindex(labels[inside]).to_numpy(),
    }
    return Selection(store, question, samples["column"].to_numpy()[inside], labels=facts)


def _placed_in(
    store: "Lake", atlas: "AtlasLike", donors: Donors, corrected: bool
) -> tuple[AnyAtlas, pd.DataFrame, list[str]]:
    """The atlas, all samples with coordinates in its space, and the donors whose samples are asked for."""
    from lake.runs import load_any

    loaded = load_any(atlas)
    numbers = store.resolve_donors(donors)
    if not isinstance(loaded, AtlasSet):
        _refuse_unplaced(store, numbers, corrected)
        return loaded, store.samples, numbers
    for donor in numbers:
        loaded.of(donor)
    return loaded, place_in_native_space(store.samples, loaded), numbers


def _labels(samples: pd.DataFrame, atlas: AnyAtlas, tolerance: float, matching: str) -> NDArray[np.int64]:
    """Region of each sample, 0 for none; a donor's samples follow each other."""
    parts = [
        assign(table, atlas_of(atlas, donor), tolerance=tolerance, matching=matching)
        for donor, table in samples.groupby("donor", sort=False)
    ]
    return np.concatenate(parts)


def _region_ids(
    table: pd.DataFrame, regions: int | str | Sequence[int | str] | None, name: str
) -> NDArray[np.int64]:
    if regions is None:
        return np.asarray(table.index, dtype=np.int64)
    asked: list[Any] = [regions] if isinstance(regions, int | str | np.integer) else list(regions)
    if not asked:
        raise RequestError(f"No region of atlas {name} is named: give at least one id or label.")
    ids = {str(region): region for region in table.index}
    found = []
    for region in asked:
        labelled = table.index[table["label"] == str(region)]
        if str(region) not in ids and not len(labelled):
            known = dict.fromkeys((*ids, *table["label"]))  # left and right share a label
            close = difflib.get_close_matches(str(region), known, n=3)
            suggested = f"; nearest are {', '.join(close)}" if close else ""
            raise RequestError(f"Atlas {name} has no region {region!r}{suggested}.")
        found += [ids[str(region)]] if str(region) in ids else list(labelled)
    return np.array(found, dtype=np.int64)


def _listed(regions: NDArray[np.int64]) -> str:
    shown = ", ".join(map(str, regions[:5]))
    return shown + (f" and {len(regions) - 5} more" if len(regions) > 5 else "")


def in_mask(
    store: "Lake",
    mask: "AtlasLike",
    *,
    tolerance: float = 0,
    corrected: bool = True,
    donors: Donors = "all",
) -> Selection:
    """Samples inside a mask: whichever voxel (or, with a tolerance, one near it) is not 0.

    Parameters
    ----------
    store : Lake
    mask : str, path, Atlas or AtlasSet
        A NIfTI in MNI152, or whatever `lake.expression` takes as an atlas.
    tolerance : float
        mm that a sample may lie outside.
    corrected : bool
        Whether samples lie at their corrected or their published MNI152 coordinates.
    donors : "all" or sequence of str

    Returns
    -------
    Selection
        In the order of the store. Hemisphere and structure of the samples do not matter.

    Raises
    ------
    RequestError
        If no sample is inside, or one has no such coordinates.
    AtlasError, ChoiceError
        If the mask or the tolerance is wrong.
    """
    loaded, placed, numbers = _placed_in(store, mask, donors, corrected)
    samples = use_coordinates(placed[placed["donor"].isin(numbers)], corrected_mni=corrected)
    labels = _labels(samples, loaded.without_info(), tolerance, "nearest")
    columns = samples.index.to_numpy()[labels != 0]
    if not len(columns):
        raise RequestError(f"No sample lies in the mask {loaded.name}; tolerance is {tolerance:g}.")
    return Selection(store, f"mask {loaded.name}", columns)
