"""Labels of the vertices of the cortex, left then right, from the forms in which files hold them."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import nibabel
import numpy as np
import pandas as pd
from nibabel.affines import apply_affine
from numpy.typing import NDArray

from transforms.atlas_info import region_index, text
from transforms.errors import AtlasError
from transforms.volume_labels import whole_numbers

Labels = NDArray[np.int64]
Floats = NDArray[np.float64]
Names = dict[int, str]
Mesh = tuple[NDArray[Any], NDArray[Any]]
Annotation = tuple[NDArray[Any], Sequence[str | bytes]]
Parcels = tuple[NDArray[Any], Mapping[int, str]]
SideLabels = nibabel.GiftiImage | Annotation | Parcels
"""One hemisphere: a GIFTI label image; the position of each vertex's entry in a FreeSurfer annotation (-1
none) and the entries' names; or the region id of each vertex (0 none) and the ids' names, ids shared with the
other hemisphere being one bilateral region."""

FSAVERAGE5_VERTICES = 10_242
FINER_MESHES = (40_962, 163_842)  # fsaverage6 and fsaverage: their first 10,242 vertices are fsaverage5's
SURFACE_HEMISPHERES = ("L", "R")
# Names of entries that are no region (entry 0 of an annotation is none either, whatever its name)
BACKGROUND = {
    "unknown",
    "???",
    "corpuscallosum",
    "medialwall",
    "medial wall",
    "medial_wall",
    "background",
    "freesurfer_defined_medial_wall",
    "background+freesurfer_defined_medial_wall",
}

# https://surfer.nmr.mgh.harvard.edu/fswiki/CoordinateSystems, use case 8: MNI152 to fsaverage (MNI305)
MNI152_TO_MNI305 = np.array(
    [
        [1.0022, 0.0071, -0.0177, 0.0528],
        [-0.0146, 0.9990, 0.0027, -1.5519],
        [0.0129, 0.0094, 1.0027, -1.2012],
        [0.0, 0.0, 0.0, 1.0],
    ]
)
TO_MNI152 = {"fsaverage5": np.linalg.inv(MNI152_TO_MNI305), "fsLR": np.eye(4)}
"""From the mm of a mesh in a space to MNI152; the fsLR surfaces are in MNI152 already."""
TO_SAMPLES = {**TO_MNI152, "native": np.eye(4)}
"""From the mm of a mesh to those that samples are placed in: MNI152, or those of the donor's scanner."""


def join_meshes(mesh: tuple[Mesh, Mesh], name: str, *, space: str) -> tuple[Floats, NDArray[np.int64]]:
    """Vertices in mm of MNI152, or of the donor's scanner, and triangles of both hemispheres as one mesh.

    Raises
    ------
    AtlasError
        If the triangles do not fit the vertices, or the space is unknown.
    """
    if space not in TO_SAMPLES:
        raise AtlasError(
            f"Space {space!r} of atlas {name!r} is unknown: choose one of {', '.join(TO_SAMPLES)}."
        )
    (left, left_triangles), (right, right_triangles) = mesh
    vertices = np.concatenate([left, right])
    triangles = np.concatenate([left_triangles, right_triangles + len(left)]).astype(np.int64)
    if vertices.shape != (len(vertices), 3) or not ((triangles >= 0) & (triangles < len(vertices))).all():
        raise AtlasError(f"The mesh of atlas {name!r} is damaged: its triangles do not fit its vertices.")
    return np.asarray(apply_affine(TO_SAMPLES[space], vertices), dtype=np.float64), triangles


def surface_labels(
    left: SideLabels, right: SideLabels, sizes: Sequence[int], name: str
) -> tuple[list[Labels], list[Names]]:
    """Labels of each hemisphere, cut to the mesh, and names of the ids.

    Parameters
    ----------
    left, right : SideLabels
    sizes : (2,) sequence of int
        Vertices of the two meshes.
    name : str
        The atlas, for messages.

    Raises
    ------
    AtlasError
        If the two are of different forms, hold no region ids or do not fit the mesh.
    """
    forms = {_form(side) for side in (left, right)}
    if len(forms) > 1:
        raise AtlasError(f"Atlas {name!r} mixes a GIFTI and an annotation: give two of a kind.")
    sides, names = READERS[forms.pop()]([left, right], name)
    sides = [_cut_to_mesh(side, size, name) for side, size in zip(sides, sizes, strict=True)]
    return _made_distinct(sides, names) if isinstance(left, nibabel.GiftiImage) else (sides, names)


def number_by_name(annotations: Sequence[tuple[Annotation, Annotation]]) -> list[tuple[Parcels, Parcels]]:
    """Give the entries of several donors' annotations the same ids, by their names.

    Parameters
    ----------
    annotations : sequence of (left, right)
        One pair a donor.

    Returns
    -------
    list of (left, right) parcels
        Entries that any donor uses are 1, 2, .., left before right, in the order of the first colour table.
    """
    on_left, on_right = (_names_in_use(side) for side in zip(*annotations, strict=True))
    left = {name: number for number, name in enumerate(on_left, start=1)}
    right = {name: number for number, name in enumerate(on_right, start=1 + len(left))}
    return [(_as_parcels(one, left), _as_parcels(other, right)) for one, other in annotations]


def _names_in_use(sides: Sequence[Annotation]) -> list[str]:
    """Names of the entries that one of the annotations uses, in the order of the tables."""
    tables = [[_decoded(entry) for entry in entries] for _, entries in sides]
    used = {
        names[entry]
        for (positions, _), names in zip(sides, tables, strict=True)
        for entry in np.unique(positions)
        if _is_region(int(entry), names)
    }
    return [name for name in dict.fromkeys(chain.from_iterable(tables)) if name in used]


def _as_parcels(annotation: Annotation, ids: Mapping[str, int]) -> Parcels:
    positions, entries = annotation
    names = [_decoded(entry) for entry in entries]
    numbers = [ids.get(name, 0) if _is_region(entry, names) else 0 for entry, name in enumerate(names)]
    return np.array([*numbers, 0])[np.clip(positions, -1, len(names))], {ids[name]: name for name in ids}


def surface_info(sides: Sequence[Labels], names: Sequence[Names], ids: Sequence[int]) -> pd.DataFrame:
    """Region facts that the files of a surface atlas carry; an id on both sides is bilateral."""
    on_side = [set(np.unique(side).tolist()) for side in sides]
    hemisphere = {
        region: "B" if all(region in side for side in on_side) else SURFACE_HEMISPHERES[region in on_side[1]]
        for region in ids
    }
    label = [next((table[region] for table in names if region in table), "") for region in ids]
    return pd.DataFrame(
        {"label": label, "hemisphere": list(hemisphere.values()), "structure": "cortex"},
        index=region_index(ids),
    )


def _form(side: SideLabels) -> str:
    if isinstance(side, nibabel.GiftiImage):
        return "gifti"
    return "parcels" if isinstance(side[1], Mapping) else "annotation"


def _gifti_sides(images: Sequence[Any], name: str) -> tuple[list[Labels], list[Names]]:
    sides, names = zip(*(_gifti_labels(image, name) for image in images), strict=True)
    return list(sides), list(names)


def _gifti_labels(image: nibabel.GiftiImage, name: str) -> tuple[Labels, Names]:
    if len(image.darrays) != 1 or np.squeeze(image.darrays[0].data).ndim != 1:
        raise AtlasError(f"Atlas {name!r} has a GIFTI that is not one array of labels: give a label file.")
    labels = whole_numbers(np.squeeze(image.darrays[0].data), name)
    return labels, {key: text(label) for key, label in image.labeltable.get_labels_as_dict().items()}


def _annotation_sides(annotations: Sequence[Any], _: str) -> tuple[list[Labels], list[Names]]:
    """Number the entries in use 1, 2, .. over both hemispheres; background is 0."""
    sides: list[Labels] = []
    names: list[Names] = []
    first = 1
    for positions, entries in annotations:
        texts = [_decoded(entry) for entry in entries]
        used = [int(entry) for entry in np.unique(positions) if _is_region(int(entry), texts)]
        ids = np.zeros(len(texts) + 1, dtype=np.int64)
        ids[used] = np.arange(first, first + len(used))
        sides.append(ids[np.clip(positions, -1, len(texts))])
        names.append({int(ids[entry]): texts[entry] for entry in used})
        first += len(used)
    return sides, names


def _parcel_sides(parcels: Sequence[Any], name: str) -> tuple[list[Labels], list[Names]]:
    """Ids as they are, but for those whose name says background."""
    sides: list[Labels] = []
    names: list[Names] = []
    for labels, labelled in parcels:
        ids = whole_numbers(np.asarray(labels), name)
        named = {int(key): text(label) for key, label in labelled.items()}
        background = [key for key, label in named.items() if label.casefold() in BACKGROUND]
        sides.append(np.where(np.isin(ids, background), 0, ids))
        names.append(named)
    return sides, names


READERS = {"gifti": _gifti_sides, "annotation": _annotation_sides, "parcels": _parcel_sides}


def _made_distinct(sides: list[Labels], names: list[Names]) -> tuple[list[Labels], list[Names]]:
    """As abagen: if the hemispheres share more than one id, all ids of the right move up."""
    left, right = sides
    if len(np.intersect1d(left, right)) > 1:
        moved_up = len(np.unique(np.concatenate(sides)))
        sides[1] = sides[1] + moved_up
        names[1] = {key + moved_up: label for key, label in names[1].items()}
    return sides, names


def _decoded(entry: str | bytes) -> str:
    return text(entry.decode(errors="replace") if isinstance(entry, bytes) else entry)


def _is_region(entry: int, texts: Sequence[str]) -> bool:
    return 0 < entry < len(texts) and texts[entry].casefold() not in BACKGROUND


def _cut_to_mesh(labels: Labels, size: int, name: str) -> Labels:
    if len(labels) in FINER_MESHES and size == FSAVERAGE5_VERTICES:
        return labels[:size]
    if len(labels) == size:
        return labels
    if size == FSAVERAGE5_VERTICES:
        advice = (
            "give labels of fsaverage5 (10,242 a hemisphere) or fsaverage (163,842), or name the surfaces "
            "that the labels are on: LEFT,RIGHT@LEFT.surf.gii,RIGHT.surf.gii."
        )
    else:
        advice = "name the surfaces that the labels are on."
    raise AtlasError(f"Atlas {name!r} labels {len(labels):,} vertices, its mesh has {size:,}: {advice}")
