"""Donors' own surfaces, made up: FreeSurfer folders with an MRI, meshes of another size each, and labels.

A hemisphere is a dented ball around the place of the donor's cortex, whose vertices have five or six
neighbours as FreeSurfer's have; regions are the vertices nearest to some points on it, and the side towards
the midline has no region.
"""

import atexit
import itertools
import shutil
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.freesurfer import io as freesurfer
from nibabel.freesurfer.mghformat import MGHImage
from nibabel.gifti.gifti import GiftiDataArray, GiftiLabel, GiftiLabelTable

from ingest.reference import reference_file

DONORS = ("9861", "10021", "12876", "14380", "15496", "15697")
SIDES = ("lh", "rh")
MEDIAL, REGIONS_A_SIDE = 5, 40  # so many regions that some have no sample
RADII, CENTRE = np.array([17.0, 42.0, 32.0]), np.array([-27.0, -5.0, 8.0])  # mm, the left
LABELS, ANNOTATIONS, MESHES, MRI = (
    "{donor}/label/lh.parts.gii,{donor}/label/rh.parts.gii",
    "{donor}/label/lh.parts.annot,{donor}/label/rh.parts.annot",
    "{donor}/surf/lh.pial,{donor}/surf/rh.pial",
    "{donor}/T1.nii.gz",
)


@dataclass(frozen=True)
class Hemisphere:
    """Vertices in mm of the scanner, triangles, and each vertex's region on this side, 0 none."""

    vertices: np.ndarray
    triangles: np.ndarray
    labels: np.ndarray


def scanner_of(donor: str) -> np.ndarray:
    """Affine of the donor's MRI: that of the donor's own Desikan-Killiany volume."""
    folder = reference_file("atlas-desikankilliany.nii.gz").parent / "native_dk"
    return np.asarray(nibabel.load(folder / donor / "atlas-desikankilliany.nii.gz").affine)


def conformed_of(donor: str) -> np.ndarray:
    """Affine of the 256 mm volume that FreeSurfer works on: its centre is not the scanner's."""
    affine = np.array([[-1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
    centre = np.array([1.5, -2.25, 0.5]) + DONORS.index(donor)
    affine[:3, 3] = centre - affine[:3, :3] @ np.full(3, 128.0)
    return affine


@cache
def hemisphere(donor: str, side: str) -> Hemisphere:
    """One side of a donor's cortex."""
    frequency = 6 + DONORS.index(donor) % 3 + SIDES.index(side)
    points, triangles = ball(frequency)
    nearest = np.linalg.norm(points[:, None] - seeds(), axis=2).argmin(axis=1)
    labels = np.maximum(nearest - MEDIAL + 1, 0)
    rng = np.random.default_rng([DONORS.index(donor), SIDES.index(side)])
    vertices = CENTRE + points * RADII + rng.normal(0, 0.4, points.shape)
    if side == "rh":
        vertices, triangles = vertices * (-1, 1, 1), triangles[:, ::-1]
    return Hemisphere(vertices.astype(np.float32), triangles, labels)


def seeds() -> np.ndarray:
    """Points spread over the unit ball, those towards the midline (of the left side) first."""
    number = np.arange(MEDIAL + REGIONS_A_SIDE)
    height = 1 - (2 * number + 1) / len(number)
    turn = np.pi * (3 - np.sqrt(5)) * number
    width = np.sqrt(1 - height**2)
    return np.column_stack([height, width * np.cos(turn), width * np.sin(turn)])


def ball(frequency: int) -> tuple[np.ndarray, np.ndarray]:
    """Icosahedron with each edge cut into `frequency`: vertices (vertex, 3) on the unit ball, triangles."""
    golden = (1 + np.sqrt(5)) / 2
    corners = np.array(
        [np.roll((0, a, b * golden), shift) for shift in range(3) for a in (-1, 1) for b in (-1, 1)]
    )
    places: dict[tuple[float, ...], int] = {}
    triangles = []
    for face in itertools.combinations(corners, 3):
        if all(np.isclose(np.linalg.norm(a - b), 2) for a, b in itertools.combinations(face, 2)):
            triangles += _cut(np.array(face), frequency, places)
    vertices = np.array(list(places))
    return vertices / np.linalg.norm(vertices, axis=1, keepdims=True), np.array(triangles)


def _cut(face: np.ndarray, frequency: int, places: dict[tuple[float, ...], int]) -> list[list[int]]:
    """Triangles of one face; new vertices are added to `places`."""
    number = {}
    for i, j in itertools.product(range(frequency + 1), repeat=2):
        if i + j <= frequency:
            point = np.array([i, j, frequency - i - j]) @ face / frequency
            number[i, j] = places.setdefault(tuple((point + 0.0).round(6).tolist()), len(places))
    upward = [[(i, j), (i + 1, j), (i, j + 1)] for i, j in number]
    downward = [[(i, j), (i + 1, j), (i + 1, j - 1)] for i, j in number if j]
    corners = [corner for corner in (*upward, *downward) if all(place in number for place in corner)]
    return [[number[place] for place in corner] for corner in corners]


# Files ----------------------------------------------------------------------------------------------


@cache
def native_files() -> Path:
    """Folder of all donors' files; removed when Python ends."""
    folder = Path(tempfile.mkdtemp(prefix="native-surfaces-"))
    atexit.register(shutil.rmtree, folder)
    for donor in DONORS:
        write_donor(folder / donor, donor)
    return folder


def spec_of(folder: Path, *, labels: str = LABELS) -> str:
    """What a person types for the files."""
    parts = [",".join(f"{folder}/{path}" for path in paths.split(",")) for paths in (labels, MESHES, MRI)]
    return "@".join(parts)


def write_donor(folder: Path, donor: str) -> None:
    """The MRI, FreeSurfer's volume and surfaces, and labels as GIFTI and as annotations."""
    for name in ("label", "surf", "mri"):
        (folder / name).mkdir(parents=True)
    nibabel.save(nibabel.Nifti1Image(np.zeros((2, 2, 2), np.uint8), scanner_of(donor)), folder / "T1.nii.gz")
    conformed = MGHImage(np.zeros((256,) * 3, np.uint8), conformed_of(donor))
    nibabel.save(conformed, folder / "mri" / "orig.mgz")
    for at, side in enumerate(SIDES):
        half = hemisphere(donor, side)
        write_geometry(folder / "surf" / f"{side}.pial", half, conformed)
        ids = np.where(half.labels, half.labels + at * REGIONS_A_SIDE, 0)
        write_labels(folder / "label" / f"{side}.parts.gii", ids, side)
        write_annotation(folder / "label" / f"{side}.parts.annot", half.labels)


def write_geometry(path: Path, half: Hemisphere, conformed: MGHImage) -> None:
    """A surface in FreeSurfer's mm, with the facts that lead back to the scanner's."""
    to_surface = conformed.header.get_vox2ras_tkr() @ np.linalg.inv(conformed.affine)
    vertices = nibabel.affines.apply_affine(to_surface, half.vertices)
    freesurfer.write_geometry(
        path, vertices, half.triangles, "made up", volume_info=volume_geometry(conformed)
    )


def volume_geometry(conformed: MGHImage) -> dict[str, Any]:
    """What FreeSurfer writes of the volume behind a surface."""
    header = conformed.header
    axes = dict(zip(("xras", "yras", "zras", "cras"), [*header["Mdc"], header["Pxyz_c"]], strict=True))
    return {
        "head": np.array([2, 0, 20], np.int32),
        "valid": "1  # volume info valid",
        "filename": "orig.mgz",
        "volume": header["dims"][:3],
        "voxelsize": header["delta"],
        **axes,
    }


def write_labels(path: Path, ids: np.ndarray, side: str) -> None:
    """GIFTI labels, with the names of the ids."""
    table = GiftiLabelTable()
    for number in np.unique([0, *ids]):
        label = GiftiLabel(int(number), 0.5, 0.5, 0.5, 1)
        label.label = f"{side}-{number}" if number else "???"
        table.labels.append(label)
    array = GiftiDataArray(ids.astype(np.int32), "NIFTI_INTENT_LABEL", "NIFTI_TYPE_INT32")
    nibabel.save(nibabel.GiftiImage(darrays=[array], labeltable=table), path)


def write_annotation(path: Path, labels: np.ndarray, *, names: int = REGIONS_A_SIDE) -> None:
    """An annotation whose entries are "unknown", "part-1", .."""
    colours = np.array([[10 * number % 256, number, 7, 0, 0] for number in range(names + 1)])
    colours[:, 4] = colours[:, :3] @ (1, 2**8, 2**16)
    entries = ["unknown", *(f"part-{number}" for number in range(1, names + 1))]
    freesurfer.write_annot(path, labels, colours, entries)
