"""FreeSurfer annotation files (.annot): the labels of one hemisphere's vertices.

nibabel's reader is not used: it gives a vertex whose colour is in no entry to some other region, and misnames
entries where their numbering has gaps. Layout, big-endian int32s and text:
https://surfer.nmr.mgh.harvard.edu/fswiki/LabelsClutsAnnotationFiles#Annotation
"""

import io

import numpy as np
from numpy.typing import NDArray

from transforms.atlas import Annotation

MAX_ENTRIES = 100_000


def read_annotation(content: bytes) -> Annotation:
    """Position of each vertex's entry in an annotation (-1 none), and the names of the entries.

    Raises
    ------
    ValueError
        If the content is damaged.
    """
    source = io.BytesIO(content)
    (n_vertices,) = _integers(source, 1)
    vertices, colours = _integers(source, 2 * n_vertices).reshape(-1, 2).T
    if not np.array_equal(np.sort(vertices), np.arange(n_vertices)):
        raise ValueError("it does not label every vertex once")
    position, names = _read_entries(source)
    found, inverse = np.unique(colours, return_inverse=True)
    labels = np.empty(n_vertices, dtype=np.int64)
    labels[vertices] = np.array([position.get(int(colour), -1) for colour in found])[inverse]
    return labels, names


def _read_entries(source: io.BytesIO) -> tuple[dict[int, int], list[str]]:
    """Colour table: the position of each colour's entry, and the entries' names by position."""
    has_table, size = (int(number) for number in _integers(source, 2))
    if not has_table:
        raise ValueError("it has no colour table")
    if size != -2 and not 0 < size <= MAX_ENTRIES:
        raise ValueError(f"its colour table has the unknown version {-size}")
    numbered = size < 0  # version 2: each entry says its position
    if numbered:
        _integers(source, 1)
    _string(source)
    n_entries = int(_integers(source, 1)[0]) if numbered else size
    position: dict[int, int] = {}
    names: dict[int, str] = {}
    for entry in range(n_entries):
        place = int(_integers(source, 1)[0]) if numbered else entry
        if not 0 <= place < MAX_ENTRIES:
            raise ValueError(f"its colour table has an entry numbered {place}")
        names[place] = _string(source)
        red, green, blue, _ = (int(part) for part in _integers(source, 4))
        position.setdefault(red + (green << 8) + (blue << 16), place)
    return position, [names.get(place, "") for place in range(max(names, default=-1) + 1)]


def _integers(source: io.BytesIO, count: int) -> NDArray[np.int64]:
    return np.frombuffer(_exactly(source, 4 * int(count)), dtype=">i4").astype(np.int64)


def _string(source: io.BytesIO) -> str:
    (length,) = _integers(source, 1)
    return _exactly(source, int(length)).rstrip(b"\0").decode(errors="replace")


def _exactly(source: io.BytesIO, size: int) -> bytes:
    content = source.read(max(size, 0))
    if len(content) != size:
        raise ValueError("it ends too early")
    return content
