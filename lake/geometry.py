"""Surfaces of a donor's own brain: FreeSurfer's geometry files and GIFTI, brought to the scanner's mm.

FreeSurfer counts mm from the centre of the volume it worked on. Where that lies in the scanner is written at
the end of its surface files; in GIFTI it is a coordinate transform, if it is written at all.

Layout of a geometry file, big-endian: 3 bytes, two lines of text, two int32 (vertices, triangles), float32
places, int32 triangles, then tagged facts.
https://surfer.nmr.mgh.harvard.edu/fswiki/CoordinateSystems
"""

import io

import nibabel
import numpy as np
from nibabel.affines import apply_affine
from nibabel.nifti1 import xform_codes
from numpy.typing import NDArray

from transforms.atlas import Mesh

Floats = NDArray[np.float64]

TRIANGLES = b"\xff\xff\xfe"
IN_SCANNER_MM, VOLUME_GEOMETRY = 2, 20  # tags
N_LINES = 8  # of the volume's geometry
SCANNER = xform_codes["NIFTI_XFORM_SCANNER_ANAT"]
VOLUME_CENTRE = ("VolGeomC_R", "VolGeomC_A", "VolGeomC_S")
UNPLACED = (
    "it does not say where FreeSurfer's mm lie in the scanner; give FreeSurfer's own file (lh.pial), or what "
    "`mris_convert --to-scanner` makes of it"
)


def read_geometry(content: bytes) -> Mesh:
    """Vertices (vertex, 3) in mm of the scanner and triangles (triangle, 3) of a FreeSurfer surface.

    Raises
    ------
    ValueError
        If the content is damaged, or does not say where it lies in the scanner.
    """
    source = io.BytesIO(content)
    if source.read(len(TRIANGLES)) != TRIANGLES:
        raise ValueError("it is neither a GIFTI nor a FreeSurfer surface of triangles")
    source.readline()
    source.readline()
    n_vertices, n_triangles = (int(number) for number in _numbers(source, 2, ">i4"))
    vertices = _numbers(source, 3 * n_vertices, ">f4").reshape(-1, 3).astype(np.float64)
    triangles = _numbers(source, 3 * n_triangles, ">i4").reshape(-1, 3).astype(np.int64)
    return apply_affine(_to_scanner(source), vertices), triangles


def gifti_in_scanner(image: nibabel.GiftiImage) -> Mesh:
    """Vertices in mm of the scanner and triangles of a GIFTI surface.

    Places whose space the file does not say are taken to be there already.

    Raises
    ------
    ValueError
        If FreeSurfer wrote it, and did not say which mm it counts.
    """
    (places,) = image.get_arrays_from_intent("NIFTI_INTENT_POINTSET")
    vertices, triangles = image.agg_data(("pointset", "triangle"))
    space = places.coordsys
    if space is not None and SCANNER not in (space.dataspace, space.xformspace):
        if any(float(places.meta.get(name, 0)) for name in VOLUME_CENTRE):
            raise ValueError(UNPLACED)
    elif space is not None and space.dataspace != SCANNER:
        return apply_affine(np.asarray(space.xform, dtype=np.float64), vertices), triangles
    return vertices, triangles


def _to_scanner(source: io.BytesIO) -> Floats:
    """Affine from the mm of a surface to those of the scanner, from the facts that follow the triangles."""
    tag = int(_numbers(source, 1, ">i4")[0]) if source.tell() < len(source.getbuffer()) else 0
    if tag == IN_SCANNER_MM:
        if int(_numbers(source, 1, ">i4")[0]):
            return np.eye(4)
        tag = int(_numbers(source, 1, ">i4")[0])
    if tag != VOLUME_GEOMETRY:
        raise ValueError(UNPLACED)
    lines = [source.readline().decode(errors="replace").partition("#")[0] for _ in range(N_LINES)]
    facts = {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in lines)}
    if facts.get("valid") != "1":
        raise ValueError(UNPLACED)
    right, back, up, centre = (
        np.array(facts[name].split(), dtype=np.float64) for name in ("xras", "yras", "zras", "cras")
    )
    affine = np.eye(4)
    # FreeSurfer's x, y and z run along -1st, 3rd and -2nd axis of the volume, from its centre.
    affine[:3] = np.column_stack([-right, up, -back, centre])
    return affine


def _numbers(source: io.BytesIO, count: int, kind: str) -> NDArray[np.generic]:
    content = source.read(max(4 * count, 0))
    if len(content) != 4 * count:
        raise ValueError("it ends too early")
    return np.frombuffer(content, dtype=kind)
