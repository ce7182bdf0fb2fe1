"""The atlas: which voxels or vertices belong to which region of the brain.

An :class:`Atlas` holds the labelled nodes only (voxels of a volume, vertices of the fsaverage5 surface),
their places in mm and a table of the regions. It is made from an image in memory and knows no files.
What the nodes mean for a tissue sample is the business of :mod:`transforms.assign`.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import nibabel
import numpy as np
import pandas as pd
from nibabel.affines import apply_affine
from nibabel.spatialimages import SpatialImage
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from transforms.errors import AtlasError

Labels = NDArray[np.int64]
Floats = NDArray[np.float64]
Names = dict[int, str]
Mesh = tuple[NDArray[Any], NDArray[Any]]
Annotation = tuple[NDArray[Any], Sequence[str | bytes]]

FSAVERAGE5_VERTICES = 10_242
FINER_MESHES = (40_962, 163_842)  # fsaverage6 and fsaverage: their first 10,242 vertices are fsaverage5's
MAX_VOXELS = 2**31
MAX_REGION_ID = 2**31 - 1

# https://surfer.nmr.mgh.harvard.edu/fswiki/CoordinateSystems, use case 8: MNI152 to fsaverage (MNI305)
MNI152_TO_MNI305 = np.array(
    [
        [1.0022, 0.0071, -0.0177, 0.0528],
        [-0.0146, 0.9990, 0.0027, -1.5519],
        [0.0129, 0.0094, 1.0027, -1.2012],
        [0.0, 0.0, 0.0, 1.0],
    ]
)

HEMISPHERES = {
    **dict.fromkeys(("l", "lh", "left"), "L"),
    **dict.fromkeys(("r", "rh", "right"), "R"),
    **dict.fromkeys(("b", "both", "bilateral"), "B"),
}
STRUCTURES = {
    "cortex": "cortex",
    **dict.fromkeys(("subcortex/brainstem", "subcortex", "brainstem"), "subcortex/brainstem"),
    "cerebellum": "cerebellum",
    "white matter": "white matter",
    "other": "other",
}
INFO_COLUMNS = ["label", "hemisphere", "structure"]
SURFACE_HEMISPHERES = ("L", "R")
# Names of annotation entries that are no region (entry 0 is none either, whatever its name)
BACKGROUND = {
    "unknown",
    "???",
    "corpuscallosum",
    "medialwall",
    "background",
    "freesurfer_defined_medial_wall",
    "background+freesurfer_defined_medial_wall",
}


@dataclass(frozen=True, eq=False)
class Atlas:
    """Labelled nodes in space and the regions they form.

    Make one with :meth:`from_volume` or :meth:`from_surface`.

    Attributes
    ----------
    name : str
        Short name, used in paths and columns.
    space : {"mni152", "fsaverage5", "native"}
        Space of the file. The coordinates of a ``fsaverage5`` atlas are in MNI152 all the same.
    kind : {"volume", "surface"}
    labels : (node,) int64 array
        Region id of each labelled node; volumes in C order of the voxels, surfaces left, then right.
    coordinates : (node, 3) float64 array
        Centre of the voxel, or place of the vertex, in mm.
    nodes : (node,) int64 array
        Flat index of the node in the whole image (C order), or in ``vertices``.
    shape : tuple of int
        Shape of the whole image, or ``(vertex,)``.
    regions : pandas.DataFrame
        Indexed by region id, ascending: ``label``, ``hemisphere`` ("L", "R", "B"), ``structure`` (each ""
        where unknown), ``centroid_x/y/z`` in mm (on a surface: the labelled vertex nearest to the mean),
        ``n_nodes``.
    has_info : bool
        Whether hemisphere and structure constrain the matching of samples.
    affine : (4, 4) float64 array, optional
        Voxel index to mm; volumes only.
    vertices : (vertex, 3) float64 array, optional
        All the vertices of the mesh, labelled or not, in MNI152 mm; surfaces only.
    triangles : (triangle, 3) int64 array, optional
        Indices into ``vertices``; surfaces only.
    """

    name: str
    space: str
    kind: str
    labels: Labels = field(repr=False)
    coordinates: Floats = field(repr=False)
    nodes: NDArray[np.int64] = field(repr=False)
    shape: tuple[int, ...]
    regions: pd.DataFrame = field(repr=False)
    has_info: bool
    affine: Floats | None = field(default=None, repr=False)
    vertices: Floats | None = field(default=None, repr=False)
    triangles: NDArray[np.int64] | None = field(default=None, repr=False)

    @classmethod
    def from_volume(
        cls,
        image: SpatialImage,
        info: pd.DataFrame | None = None,
        *,
        name: str,
        space: str = "mni152",
    ) -> Self:
        """Atlas of a labelled 3-D image.

        Parameters
        ----------
        image : nibabel.spatialimages.SpatialImage
            (x, y, z), or (x, y, z, 1), of whole numbers; 0 is no region.
        info : pandas.DataFrame, optional
            ``id``, ``hemisphere``, ``structure`` and, if known, ``label``: one row a region; other rows are
            ignored. It constrains which samples a region can take.
        name : str
        space : {"mni152", "native"}
            ``native``: the image is in the space of one donor's MRI.

        Returns
        -------
        Atlas

        Raises
        ------
        AtlasError
            If the image is no labelled volume, or `info` does not describe its regions.
        """
        if space not in ("mni152", "native"):
            raise AtlasError(f"Space {space!r} of atlas {name!r} is unknown: choose 'mni152' or 'native'.")
        data, affine = _voxels(image, name)
        voxels, labels = _labelled(data, name)
        coordinates = np.asarray(apply_affine(affine, np.column_stack(voxels)), dtype=np.float64)
        ids = _region_ids(labels, name)
        return cls(
            name=name,
            space=space,
            kind="volume",
            labels=labels,
            coordinates=coordinates,
            nodes=np.ravel_multi_index(voxels, data.shape).astype(np.int64),
            shape=data.shape,
            regions=_regions(labels, coordinates, check_info(info, ids, name=name)),
            has_info=info is not None,
            affine=affine,
        )

    @classmethod
    def from_surface(
        cls,
        left: nibabel.GiftiImage | Annotation,
        right: nibabel.GiftiImage | Annotation,
        *,
        mesh: tuple[Mesh, Mesh],
        info: pd.DataFrame | None = None,
        name: str,
    ) -> Self:
        """Atlas of the cortical surface, one labelled hemisphere each.

        Two GIFTI images are read as abagen reads them: if they share more than one id, EVERY id of the right,
        its background 0 included, moves up by the number of distinct ids, so that the background becomes a
        region (give them distinct ids, or use annotations). Annotations lose their background and are
        numbered 1, 2, .. from left to right.

        Parameters
        ----------
        left, right : nibabel.GiftiImage or (labels, names)
            Label images; or for each vertex the position of its entry in a FreeSurfer annotation (-1 none),
            and the names of the entries. Labels of fsaverage (164k) are cut to the vertices of fsaverage5,
            which come first.
        mesh : pair of (vertices, triangles)
            fsaverage5 pial surfaces, left and right: (vertex, 3) mm in MNI305, (triangle, 3).
        info : pandas.DataFrame, optional
            As in :meth:`from_volume`, in the ids of the atlas made. Without it, hemisphere and label come
            from the files and the structure is cortex; these constrain the matching too.
        name : str

        Returns
        -------
        Atlas

        Raises
        ------
        AtlasError
            If the labels are none, do not fit the mesh, or `info` does not describe the regions.
        """
        vertices, triangles = _join_meshes(mesh, name)
        sizes = [len(part[0]) for part in mesh]
        sides, names = _surface_labels(left, right, sizes, name)
        labels = np.concatenate(sides)
        nodes = np.flatnonzero(labels)
        ids = _region_ids(labels[nodes], name)
        table = _surface_info(sides, names, ids) if info is None else check_info(info, ids, name=name)
        tree = cKDTree(vertices[nodes])
        return cls(
            name=name,
            space="fsaverage5",
            kind="surface",
            labels=labels[nodes],
            coordinates=vertices[nodes],
            nodes=nodes,
            shape=(len(vertices),),
            regions=_regions(labels[nodes], vertices[nodes], table, on_node=tree),
            has_info=True,
            vertices=vertices,
            triangles=triangles,
        )

    def without_info(self) -> Self:
        """Same atlas whose hemispheres and structures do not constrain the matching of samples."""
        return replace(self, has_info=False)

    @property
    def centroids(self) -> Floats:
        """(region, 3) centroids in mm, in the order of ``regions``."""
        places: Floats = self.regions[["centroid_x", "centroid_y", "centroid_z"]].to_numpy(dtype=np.float64)
        return places

    @cached_property
    def tree(self) -> cKDTree:
        """Search tree over ``coordinates``."""
        return cKDTree(self.coordinates)

    @cached_property
    def grid(self) -> tuple[Floats, Floats, Floats]:
        """Coordinates of the voxel planes along x, y and z in mm, as abagen counts them off the affine.

        On an image whose axes are permuted abagen takes the lengths of the permuted axes, and so do we.

        Raises
        ------
        AtlasError
            If the atlas is a surface, or its axes are not those of space: abagen's grid is nonsense then.
        """
        if self.affine is None:
            raise AtlasError(f"Atlas {self.name!r} is a surface and has no voxel grid.")
        axes = self.affine[:3, :3]
        steps = axes[np.nonzero(axes)]
        if len(steps) != 3:
            raise AtlasError(
                f"Atlas {self.name!r} is rotated against the axes of space, which abagen's matching cannot "
                "take: use matching='nearest'."
            )
        ends = zip(self.affine[:3, 3], steps, self.shape, strict=True)
        x, y, z = (np.sort(np.arange(start, start + step * size, step)) for start, step, size in ends)
        return x, y, z

    def nodes_at(self, voxels: NDArray[np.int64]) -> NDArray[np.int32]:
        """Node at each voxel index, -1 where the voxel has no label or lies outside the image.

        Parameters
        ----------
        voxels : (..., 3) int array

        Returns
        -------
        (...) int32 array
        """
        origin, lookup = self._lookup
        voxels = voxels - origin
        inside = ((voxels >= 0) & (voxels < lookup.shape)).all(axis=-1)
        found = np.full(voxels.shape[:-1], -1, dtype=np.int32)
        found[inside] = lookup[tuple(voxels[inside].T)]
        return found

    @cached_property
    def _lookup(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """First voxel of the box around the labelled voxels, and the nodes in that box (-1: none)."""
        voxels = np.column_stack(np.unravel_index(self.nodes, self.shape))
        origin = voxels.min(axis=0)
        lookup = np.full(voxels.max(axis=0) - origin + 1, -1, dtype=np.int32)
        lookup[tuple((voxels - origin).T)] = np.arange(len(voxels), dtype=np.int32)
        return origin, lookup

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over what decides a result: nodes, places (to 1e-6 mm), regions, space; not the name."""
        arrays = [self.labels, self.nodes, self.affine, self.coordinates, self.triangles]
        digest = hashlib.sha256(f"{self.space} {self.kind} {self.shape} {self.has_info}".encode())
        for array in arrays:
            digest.update(_canonical(array))
        digest.update(self.regions[INFO_COLUMNS].to_csv(lineterminator="\n").encode())
        return digest.hexdigest()


def check_info(info: pd.DataFrame | None, ids: Sequence[int], *, name: str) -> pd.DataFrame:
    """Facts about the regions with the spellings of the field made one.

    Parameters
    ----------
    info : pandas.DataFrame or None
        ``id`` (column or index), ``hemisphere``, ``structure`` and perhaps ``label``. None: nothing is known.
    ids : sequence of int
        The regions of the atlas; other rows of `info` are ignored.
    name : str
        The atlas, for messages.

    Returns
    -------
    pandas.DataFrame
        Indexed by `ids`: ``label``, ``hemisphere`` ("L", "R", "B" or ""), ``structure``.

    Raises
    ------
    AtlasError
        If a column, the row of a region or a spelling is missing, unknown or there twice.
    """
    if info is None:
        return pd.DataFrame(dict.fromkeys(INFO_COLUMNS, ""), index=_index(ids))
    table = _indexed_by_id(info, name)
    absent = sorted(set(ids) - set(table.index))
    if absent:
        raise AtlasError(f"The info of atlas {name!r} has no row for region{_some(absent)}: add them.")
    table = table.loc[list(ids)]
    if not table.index.is_unique:
        twice = sorted(set(table.index[table.index.duplicated()]))
        raise AtlasError(f"The info of atlas {name!r} repeats region{_some(twice)}: keep one row each.")
    label = table["label"] if "label" in table else pd.Series("", index=table.index)
    return pd.DataFrame(
        {
            "label": [_text(value) for value in label],
            "hemisphere": _spelled(table["hemisphere"], HEMISPHERES, name),
            "structure": _spelled(table["structure"], STRUCTURES, name),
        },
        index=_index(ids),
    )


def _indexed_by_id(info: pd.DataFrame, name: str) -> pd.DataFrame:
    table = info.reset_index() if info.index.name == "id" and "id" not in info else info
    absent = [column for column in ("id", "hemisphere", "structure") if column not in table]
    if absent:
        raise AtlasError(
            f"The info of atlas {name!r} lacks column{_some(absent)}: it needs id, hemisphere and structure, "
            f"and has{_some(table.columns)}."
        )
    numbers = pd.to_numeric(table["id"], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    wrong = table["id"][~(np.isfinite(numbers) & (numbers == np.rint(numbers)))]
    if len(wrong):
        raise AtlasError(f"The info of atlas {name!r} has an id that is no whole number:{_some(wrong)}.")
    return table.set_index(numbers.astype(np.int64))


def _spelled(values: pd.Series, spellings: dict[str, str], name: str) -> list[str]:
    keys = [_text(value).replace("_", " ").casefold() for value in values]
    wrong = sorted({_text(value) for value, key in zip(values, keys, strict=True) if key not in spellings})
    if wrong:
        raise AtlasError(
            f"The info of atlas {name!r} has an unknown {values.name}:{_some(wrong)}; accepted are"
            f"{_some(spellings)}."
        )
    return [spellings[key] for key in keys]


def _text(value: object) -> str:
    return "" if value is None or value != value else str(value).strip()


def _some(values: Iterable[object]) -> str:
    """First few of the values, for a message."""
    shown = [repr(value) if isinstance(value, str) else str(value) for value in values]
    more = f" and {len(shown) - 10} more" if len(shown) > 10 else ""
    return " " + ", ".join(shown[:10]) + more


def _index(ids: Sequence[int]) -> pd.Index:
    return pd.Index(ids, dtype=np.int64, name="region")


def _region_ids(labels: Labels, name: str) -> list[int]:
    if not len(labels):
        raise AtlasError(f"Atlas {name!r} is empty: every node is 0; give an image of region ids.")
    return [int(label) for label in np.unique(labels)]


def _regions(
    labels: Labels, coordinates: Floats, info: pd.DataFrame, *, on_node: cKDTree | None = None
) -> pd.DataFrame:
    """Table of the regions; `on_node` moves each centroid to the nearest labelled node."""
    position = np.searchsorted(info.index.to_numpy(), labels)
    size = np.bincount(position, minlength=len(info))
    sums = [np.bincount(position, weights=axis, minlength=len(info)) for axis in coordinates.T]
    centroids = np.column_stack(sums) / size[:, None]
    if on_node is not None:
        centroids = coordinates[on_node.query(centroids)[1]]
    places = {f"centroid_{axis}": centroids[:, column] for column, axis in enumerate("xyz")}
    return info.assign(**places, n_nodes=size)


# ---- volumes ----


def check_image(image: Any, name: str) -> SpatialImage:
    """The image, if it is a volume of a size that can be read.

    Raises
    ------
    AtlasError
        If it is another kind of image, or has more than 2^31 voxels.
    """
    if not isinstance(image, SpatialImage) or image.affine is None:
        raise AtlasError(f"Atlas {name!r} is no image of a volume in space: give a NIfTI or MGH image.")
    if np.prod(image.shape, dtype=np.float64) > MAX_VOXELS:
        raise AtlasError(f"Atlas {name!r} has {image.shape} voxels, more than 2^31: resample it.")
    return image


def _voxels(image: SpatialImage, name: str) -> tuple[NDArray[Any], Floats]:
    """Values (x, y, z) and affine of an image, not yet read as labels."""
    image = nibabel.funcs.squeeze_image(check_image(image, name))
    if len(image.shape) == 4:
        raise AtlasError(
            f"Atlas {name!r} has {image.shape[3]} volumes; a probabilistic atlas is not taken: "
            "give one volume with the id of the most probable region in each voxel."
        )
    if len(image.shape) != 3:
        raise AtlasError(f"Atlas {name!r} has the shape {image.shape}: it must be a 3-D image.")
    affine = np.asarray(image.affine, dtype=np.float64)
    if not np.isfinite(affine).all() or np.linalg.matrix_rank(affine[:3, :3]) < 3:
        raise AtlasError(f"Atlas {name!r} has an affine that cannot be inverted: set it right in the header.")
    return np.asarray(image.dataobj), affine


def _labelled(data: NDArray[Any], name: str) -> tuple[tuple[NDArray[np.int64], ...], Labels]:
    """Index and label of every labelled voxel, in C order."""
    if data.dtype.kind not in "biuf":
        raise AtlasError(f"Atlas {name!r} holds values of type {data.dtype}: give one whole number a voxel.")
    voxels = data.nonzero()
    labels = _whole_numbers(data[voxels], name)
    labelled = labels != 0
    return tuple(axis[labelled] for axis in voxels), labels[labelled]


def _whole_numbers(values: NDArray[Any], name: str) -> Labels:
    """Region ids; a fraction that is rounding (as numpy.isclose has it) goes, any other is an error."""
    if not np.isfinite(values).all():
        raise AtlasError(f"Atlas {name!r} holds values that are not finite (NaN): set them to 0.")
    rounded = np.rint(values) if values.dtype.kind == "f" else values
    wrong = values[~np.isclose(rounded, values)]
    if len(wrong):
        raise AtlasError(f"Atlas {name!r} holds {wrong[0]:.6g}: region ids are whole numbers.")
    if len(rounded) and rounded.min() < 0:
        raise AtlasError(f"Atlas {name!r} holds {int(rounded.min())}: region ids are positive, 0 is none.")
    if len(rounded) and rounded.max() > MAX_REGION_ID:
        raise AtlasError(f"Atlas {name!r} holds {int(rounded.max())}: region ids end at {MAX_REGION_ID}.")
    return rounded.astype(np.int64)


# ---- surfaces ----


def _join_meshes(mesh: tuple[Mesh, Mesh], name: str) -> tuple[Floats, NDArray[np.int64]]:
    """Vertices in MNI152 mm and triangles of the two hemispheres as one mesh."""
    (left, left_triangles), (right, right_triangles) = mesh
    vertices = np.concatenate([left, right])
    triangles = np.concatenate([left_triangles, right_triangles + len(left)]).astype(np.int64)
    if vertices.shape != (len(vertices), 3) or not np.isin(triangles, np.arange(len(vertices))).all():
        raise AtlasError(f"The mesh of atlas {name!r} is damaged: its triangles do not fit its vertices.")
    moved = apply_affine(np.linalg.inv(MNI152_TO_MNI305), vertices)
    return np.asarray(moved, dtype=np.float64), triangles


def _surface_labels(
    left: Any, right: Any, sizes: Sequence[int], name: str
) -> tuple[list[Labels], list[Names]]:
    """Labels of each hemisphere cut to the mesh, and names of the ids; made distinct as abagen does it."""
    gifti = [isinstance(side, nibabel.GiftiImage) for side in (left, right)]
    if all(gifti):
        sides, names = map(list, zip(*(_gifti_labels(side, name) for side in (left, right)), strict=True))
    elif not any(gifti):
        sides, names = _number_annotations([left, right])
    else:
        raise AtlasError(f"Atlas {name!r} mixes a GIFTI and an annotation: give two of a kind.")
    sides = [_cut_to_mesh(side, size, name) for side, size in zip(sides, sizes, strict=True)]
    if len(np.intersect1d(*sides)) > 1:
        moved_up = len(np.unique(np.concatenate(sides)))
        sides[1] = sides[1] + moved_up
        names[1] = {key + moved_up: text for key, text in names[1].items()}
    return sides, names


def _gifti_labels(image: nibabel.GiftiImage, name: str) -> tuple[Labels, Names]:
    if len(image.darrays) != 1 or np.squeeze(image.darrays[0].data).ndim != 1:
        raise AtlasError(f"Atlas {name!r} has a GIFTI that is not one array of labels: give a label file.")
    labels = _whole_numbers(np.squeeze(image.darrays[0].data), name)
    return labels, {key: _text(text) for key, text in image.labeltable.get_labels_as_dict().items()}


def _number_annotations(annotations: Sequence[Annotation]) -> tuple[list[Labels], list[Names]]:
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


def _decoded(entry: str | bytes) -> str:
    return _text(entry.decode(errors="replace") if isinstance(entry, bytes) else entry)


def _is_region(entry: int, texts: Sequence[str]) -> bool:
    return 0 < entry < len(texts) and texts[entry].casefold() not in BACKGROUND


def _cut_to_mesh(labels: Labels, size: int, name: str) -> Labels:
    if len(labels) in FINER_MESHES and size == FSAVERAGE5_VERTICES:
        return labels[:size]
    if len(labels) != size:
        raise AtlasError(
            f"Atlas {name!r} labels {len(labels):,} vertices, its mesh has {size:,}: "
            "give labels of fsaverage5 (10,242 a hemisphere) or fsaverage (163,842)."
        )
    return labels


def _surface_info(sides: Sequence[Labels], names: Sequence[Names], ids: Sequence[int]) -> pd.DataFrame:
    """Region facts that the files of a surface atlas carry; an id on both sides is bilateral."""
    on_side = [set(np.unique(side).tolist()) for side in sides]
    hemisphere = {
        region: "B" if all(region in side for side in on_side) else SURFACE_HEMISPHERES[region in on_side[1]]
        for region in ids
    }
    label = [next((table[region] for table in names if region in table), "") for region in ids]
    return pd.DataFrame(
        {"label": label, "hemisphere": list(hemisphere.values()), "structure": "cortex"}, index=_index(ids)
    )


def _canonical(array: NDArray[Any] | None) -> bytes:
    """Bytes of an array that are the same on every machine: places rounded, little end first."""
    if array is None:
        return b"none"
    if array.dtype.kind == "f":
        return (np.round(array, 6) + 0.0).astype("<f8").tobytes()
    return array.astype("<i8").tobytes()
