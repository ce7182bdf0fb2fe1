"""Atlases' files: images, surfaces and tables, read from disk.

Files come from strangers. They are read as data (no pickle, nothing executed, no file that they point to is
opened), bounded in size, and whatever is wrong with one becomes an :class:`~transforms.errors.AtlasError`.
"""

import csv
import gzip
import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
from nibabel.arrayproxy import ArrayProxy
from nibabel.spatialimages import SpatialImage
from numpy.typing import NDArray

from lake.annotation import read_annotation
from lake.geometry import gifti_in_scanner, read_geometry
from lake.grayordinates import read_dlabel
from transforms.atlas import Annotation, Mesh, Parcels, check_image
from transforms.errors import AtlasError

VOLUMES = (".nii", ".nii.gz", ".mgz")
CIFTI = ".dlabel.nii"
MESHES = (".gii", ".gii.gz")
NAME_SUFFIXES = (".gz", ".nii", ".mgz", ".gii", ".annot", ".label", ".dlabel")  # taken off in this order
SEPARATORS = {".csv": ",", ".tsv": "\t"}
MAX_TABLE_BYTES = 2**26  # uncompressed labels or info; the largest real ones take 3 MB


def read_info(path: Path) -> pd.DataFrame:
    """Table of region facts from a .csv or .tsv file: values as text, headings trimmed and in small letters.

    Raises
    ------
    AtlasError
        If the file is missing, damaged or of another kind.
    """
    separator = SEPARATORS[suffix_of(path, tuple(SEPARATORS), what="an info table")]
    with reading(path, "a table"):
        text = io.BytesIO(read_bytes(path))
        table = pd.read_csv(text, sep=separator, encoding="utf-8-sig", dtype=str, keep_default_na=False)
    return table.rename(columns=lambda heading: str(heading).strip().casefold())


def info_table(info: str | Path | pd.DataFrame | None) -> pd.DataFrame | None:
    """Table of region facts that is given, named by its file, or not there."""
    return info if info is None or isinstance(info, pd.DataFrame) else read_info(Path(info))


def read_region_names(
    path: Path, *, separator: str, name_column: int, id_column: int | None = None, id_of_first: int = 0
) -> dict[int, str]:
    """Names of regions by id, from a text table as packages write them.

    Parameters
    ----------
    path : pathlib.Path
    separator : str
    id_column : int or None
        Position of the ids; a row without one (a heading) is left out. None: the rows are regions 1, 2, ..
    name_column : int
    id_of_first : int
        Added to the ids: 1 for a table that counts volumes from 0.

    Raises
    ------
    AtlasError
        If the file is missing or damaged.
    """
    with reading(path, "a table of region names"):
        text = read_bytes(path).decode("utf-8-sig")
    rows = [row for row in csv.reader(text.splitlines(), delimiter=separator) if len(row) > name_column]
    if id_column is None:
        return {number: row[name_column].strip() for number, row in enumerate(rows, start=1)}
    numbered = [row for row in rows if row[id_column].strip().isdigit()]
    return {int(row[id_column]) + id_of_first: row[name_column].strip() for row in numbered}


class _Volumes:
    """Several volumes in a file, read one at a time: all of a probabilistic atlas can be a gigabyte.

    Parameters
    ----------
    path : pathlib.Path
    stored : nibabel.arrayproxy.ArrayProxy
    """

    def __init__(self, path: Path, stored: ArrayProxy) -> None:
        known = (stored.shape, stored.dtype, stored.offset, stored.slope, stored.inter)
        self.shape, self.dtype, self.ndim = stored.shape, stored.dtype, len(stored.shape)
        # A file that stays open is read on from where it is: a compressed one is gone through once.
        self._path, self._stored = path, ArrayProxy(stored.file_like, known, mmap=False, keep_file_open=True)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        with reading(self._path, "an image"):
            return np.asarray(self._stored[key])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[...], dtype=dtype)


def read_volume(path: Path, name: str) -> SpatialImage:
    """Image of a volume, its values in memory; of several volumes, they are read when they are looked at.

    Raises
    ------
    AtlasError
        If the file is missing, damaged, too large or no volume.
    """
    with reading(path, "an image"):
        image = check_image(nibabel.load(path), name)
        if len(image.shape) == 4 and image.shape[3] > 1 and isinstance(image.dataobj, ArrayProxy):
            return SpatialImage(_Volumes(path, image.dataobj), image.affine)  # type: ignore[arg-type]
        return SpatialImage(np.asanyarray(image.dataobj), image.affine)  # so that damage shows here


def read_surface_labels(path: Path) -> nibabel.GiftiImage | Annotation:
    """Labels of one hemisphere, from a GIFTI or an annotation.

    Raises
    ------
    AtlasError
        If the file is missing, damaged, too large or of another kind.
    """
    read = _LABEL_READERS[suffix_of(path, tuple(_LABEL_READERS), what="surface labels")]
    with reading(path, "surface labels"):
        return read(read_bytes(path))


def read_cifti_labels(path: Path, chosen: int | None) -> tuple[Parcels, Parcels]:
    """Left and right cortex of a map of a CIFTI-2 label file; see :func:`lake.grayordinates.read_dlabel`.

    Raises
    ------
    AtlasError
        If the file is missing, damaged, too large or holds no such labels.
    """
    suffix_of(path, (CIFTI,), what="a CIFTI label file")
    with reading(path, "CIFTI-2 labels"):
        return read_dlabel(read_bytes(path), chosen, source=str(path))


def read_meshes(left: Path, right: Path, *, of_donor: bool = False) -> tuple[Mesh, Mesh]:
    """Vertices (vertex, 3) in mm and triangles (triangle, 3) of the left and the right surface.

    Parameters
    ----------
    left, right : pathlib.Path
        GIFTI; of a donor's brain also FreeSurfer's geometry (lh.pial).
    of_donor : bool
        Whether they are a donor's own, whose places are brought to the mm of the scanner.

    Raises
    ------
    AtlasError
        If a file is missing, damaged, too large or no surface, or the two are the wrong way round.
    """
    first, second = (_read_mesh(path, of_donor=of_donor) for path in (left, right))
    if first[0][:, 0].mean() > second[0][:, 0].mean():
        raise AtlasError(f"{left} lies right of {right}: name the left surface first.")
    return first, second


def _read_mesh(path: Path, *, of_donor: bool) -> Mesh:
    if not of_donor:
        suffix_of(path, MESHES, what="a GIFTI surface")
    with reading(path, "a surface"):
        vertices, triangles = (np.asarray(part) for part in _mesh(path, of_donor=of_donor))
        if vertices.ndim != 2 or vertices.shape[1] != 3 or not np.isfinite(vertices).all():
            raise ValueError("it has no vertices in mm")
        if triangles.ndim != 2 or triangles.shape[1] != 3:
            raise ValueError("it has no triangles")
        return vertices, triangles


def _mesh(path: Path, *, of_donor: bool) -> Mesh:
    content = read_bytes(path)
    if not path.name.lower().endswith(MESHES):
        return read_geometry(content)
    image = _read_gifti(content)
    found: Mesh = gifti_in_scanner(image) if of_donor else image.agg_data(("pointset", "triangle"))
    return found


def read_affine(path: Path) -> NDArray[np.float64]:
    """Affine of an MRI, (4, 4), voxel index to mm; its values are not read.

    Raises
    ------
    AtlasError
        If the file is missing, damaged or no volume.
    """
    suffix_of(path, VOLUMES, what="an image")
    with reading(path, "an image"):
        return np.asarray(check_image(nibabel.load(path), path.name).affine, dtype=np.float64)


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Turn whatever a missing or damaged file raises into one sentence."""
    try:
        yield
    except AtlasError:
        raise
    except FileNotFoundError:
        raise AtlasError(f"There is no file {path}: check the path.") from None
    except Exception as error:  # on damaged files the parsers raise all there is, plain Exception too
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise AtlasError(f"{path} cannot be read as {what} ({reason}): check or replace the file.") from error


def read_bytes(path: Path) -> bytes:
    """Whole content, uncompressed, unless it swells beyond bounds.

    Raises
    ------
    AtlasError
        If the content is larger than any real table or surface.
    """
    with path.open("rb") as plain:
        compressed = plain.read(2) == b"\x1f\x8b"
    with gzip.open(path) if compressed else path.open("rb") as source:
        content = source.read(MAX_TABLE_BYTES + 1)
    if len(content) > MAX_TABLE_BYTES:
        raise AtlasError(f"{path} holds more than {MAX_TABLE_BYTES >> 20} MiB: check what the file is.")
    return content


def _read_gifti(content: bytes) -> nibabel.GiftiImage:
    """GIFTI image; parsed from memory, where nibabel refuses to open the files that it may refer to."""
    return nibabel.GiftiImage.from_bytes(content)


_LABEL_READERS: dict[str, Callable[[bytes], nibabel.GiftiImage | Annotation]] = {
    ".gii": _read_gifti,
    ".gii.gz": _read_gifti,
    ".annot": read_annotation,
}
SURFACES = tuple(_LABEL_READERS)


# ---- names ----


def suffix_of(path: Path, accepted: tuple[str, ...], *, what: str) -> str:
    """The suffix of a file that says what it is.

    Raises
    ------
    AtlasError
        If it is none of those accepted.
    """
    for suffix in sorted(accepted, key=len, reverse=True):
        if path.name.lower().endswith(suffix):
            return suffix
    raise AtlasError(f"{path} does not have the suffix of {what}: give one of {', '.join(accepted)}.")


def name_of_file(path: Path) -> str:
    """File name without its suffixes, in letters that are safe in a path."""
    name = path.name
    for suffix in NAME_SUFFIXES:
        if name.lower().endswith(suffix):
            name = name[: -len(suffix)]
    return safe_name(name)


def name_of_pair(left: Path, right: Path) -> str:
    """Name of a pair from that of its left half: the first word that says "left" goes.

    Raises
    ------
    AtlasError
        If the names say that the two are the wrong way round.
    """
    if _side(right) == "left" and _side(left) == "right":
        raise AtlasError(f"{left.name} says right and {right.name} says left: give them as LEFT,RIGHT.")
    return safe_name(_LEFT.sub("", name_of_file(left), count=1))


def safe_name(name: str) -> str:
    """The name in letters that are safe in a path."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-_") or "atlas"


_LEFT = re.compile(r"(^|[._-])(hemi-)?(lh|left|l)(?=$|[._-])", flags=re.IGNORECASE)
_RIGHT = re.compile(r"(^|[._-])(hemi-)?(rh|right|r)(?=$|[._-])", flags=re.IGNORECASE)


def _side(path: Path) -> str:
    """What a file's name says of its hemisphere: "left", "right" or ""."""
    says = [bool(pattern.search(path.name)) for pattern in (_LEFT, _RIGHT)]
    return {(True, False): "left", (False, True): "right"}.get((says[0], says[1]), "")
