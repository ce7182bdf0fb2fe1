"""The atlas: which voxels or vertices belong to which region of the brain.

An :class:`Atlas` holds the labelled nodes only (voxels of a volume, vertices of the fsaverage5 surface),
their places in mm and a table of the regions. It is made from an image in memory and knows no files.
What the nodes mean for a tissue sample is the business of :mod:`transforms.assign`.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import ModuleType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
from nibabel.spatialimages import SpatialImage
from numpy.typing import NDArray

from transforms import compiled
from transforms.atlas_info import (
    INFO_COLUMNS,
    MAX_STRADDLING,
    check_info,
    hemispheres_from_x,
    labels_only,
)
from transforms.errors import AtlasError
from transforms.search import search_tree
from transforms.surface_labels import (
    Annotation,
    Mesh,
    Parcels,
    SideLabels,
    join_meshes,
    surface_info,
    surface_labels,
)
from transforms.volume_labels import (
    MAX_REGION_ID,
    check_image,
    is_along_axes,
    labelled_voxels,
    read_labels,
    voxel_places,
)

if TYPE_CHECKING:
    from scipy.spatial import cKDTree

__all__ = [
    "MAX_REGION_ID",
    "Annotation",
    "Atlas",
    "Mesh",
    "Parcels",
    "check_image",
    "check_info",
]

Labels = NDArray[np.int64]
Floats = NDArray[np.float64]

FEW_IDS = 2**20  # a table with a row for every number below takes no time


@dataclass(frozen=True, eq=False)
class Atlas:
    """Labelled nodes in space and the regions they form.

    Make one with :meth:`from_volume` or :meth:`from_surface`.

    Attributes
    ----------
    name : str
        Short name, used in paths and columns.
    space : {"mni152", "fsaverage5", "fsLR", "native"}
        Space of the file. The coordinates of an fsaverage5 or fsLR atlas are in MNI152 all the same.
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
    mri_affine : (4, 4) float64 array, optional
        Voxel index of the donor's MRI to mm, which says where the donor's samples are; native atlases only. A
        volume that is on the grid of the MRI does without.
    vertices : (vertex, 3) float64 array, optional
        All the vertices of the mesh, labelled or not, in mm of MNI152 or the donor's scanner; surfaces only.
    triangles : (triangle, 3) int64 array, optional
        Indices into ``vertices``; surfaces only.
    n_left : int
        How many of ``vertices`` are the left hemisphere's, which come first.
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
    mri_affine: Floats | None = field(default=None, repr=False)
    n_left: int = field(default=0, repr=False)

    @classmethod
    def from_volume(
        cls,
        image: SpatialImage,
        info: pd.DataFrame | None = None,
        *,
        name: str,
        space: str = "mni152",
        threshold: float | None = None,
        region_names: Mapping[int, str] | None = None,
        mri_affine: Floats | None = None,
    ) -> Self:
        """Atlas of a labelled 3-D image, or of a 4-D image of probabilities.

        Parameters
        ----------
        image : nibabel.spatialimages.SpatialImage
            (x, y, z), or (x, y, z, 1), of whole numbers; 0 is no region. With `threshold`: (x, y, z, region)
            of probabilities.
        info : pandas.DataFrame, optional
            ``id``, ``hemisphere``, ``structure`` and, if known, ``label``: one row a region; other rows are
            ignored. It constrains which samples a region can take.
        name : str
        space : {"mni152", "native"}
            ``native``: the image is in the space of one donor's MRI.
        threshold : float, optional
            A voxel belongs to its most probable region, 1 for the first volume, 2 for the second, .., if that
            probability, in the unit of the image, reaches the threshold.
        region_names : mapping of int to str, optional
            Labels of regions by id, where there is no `info`; they constrain nothing.
        mri_affine : (4, 4) array, optional
            Voxel index of the donor's MRI to mm, where a native image has another grid.

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
        data, affine = read_labels(image, name, threshold=threshold)
        nodes, labels = labelled_voxels(data, name)
        coordinates = voxel_places(nodes, data.shape, affine)
        ids = _region_ids(labels, name)
        facts = labels_only(region_names or {}, ids) if info is None else check_info(info, ids, name=name)
        return cls(
            name=name,
            space=space,
            kind="volume",
            labels=labels,
            coordinates=coordinates,
            nodes=nodes,
            shape=data.shape,
            regions=_regions(labels, coordinates, facts),
            has_info=info is not None,
            affine=affine,
            mri_affine=mri_affine,
        )

    @classmethod
    def from_surface(
        cls,
        left: SideLabels,
        right: SideLabels,
        *,
        mesh: tuple[Mesh, Mesh],
        info: pd.DataFrame | None = None,
        name: str,
        space: str = "fsaverage5",
        mri_affine: Floats | None = None,
    ) -> Self:
        """Atlas of the cortical surface, one labelled hemisphere each.

        Two GIFTI images are read as abagen reads them: if they share more than one id, EVERY id of the right,
        its background 0 included, moves up by the number of distinct ids, so that the background becomes a
        region (give them distinct ids, or use annotations). Annotations lose their background and are
        numbered 1, 2, .. from left to right. Parcels keep their ids, and an id on both sides is one bilateral
        region.

        Parameters
        ----------
        left, right : nibabel.GiftiImage, (labels, sequence of names) or (labels, mapping of id to name)
            Label images; annotations: for each vertex the position of its entry (-1 none), and the names of
            the entries; or parcels: for each vertex its region's id (0 none), and names by id. Labels of
            fsaverage (164k) are cut to the vertices of fsaverage5, which come first.
        mesh : pair of (vertices, triangles)
            Surfaces, left and right: (vertex, 3) mm, (triangle, 3); in ``fsaverage5`` the pial ones.
        info : pandas.DataFrame, optional
            As in :meth:`from_volume`, in the ids of the atlas made. Without it, hemisphere and label come
            from the files and the structure is cortex; these constrain the matching too.
        name : str
        space : {"fsaverage5", "fsLR", "native"}
            Of the mesh: MNI305, moved to MNI152 here; MNI152, taken as it is; or mm of the scanner of one
            donor's MRI.
        mri_affine : (4, 4) array, optional
            Voxel index of the donor's MRI to mm; native surfaces need it.

        Returns
        -------
        Atlas

        Raises
        ------
        AtlasError
            If the labels are none, do not fit the mesh, or `info` does not describe the regions; or if the
            space is native, and `mri_affine` is not given.
        """
        if space == "native" and mri_affine is None:
            raise AtlasError(
                f"Atlas {name!r} is a donor's own surface: give the affine of the donor's MRI too, which "
                "says where the samples are."
            )
        vertices, triangles = join_meshes(mesh, name, space=space)
        sizes = [len(part[0]) for part in mesh]
        sides, names = surface_labels(left, right, sizes, name)
        labels = np.concatenate(sides)
        nodes = np.flatnonzero(labels)
        ids = _region_ids(labels[nodes], name)
        table = surface_info(sides, names, ids) if info is None else check_info(info, ids, name=name)
        tree = search_tree(vertices[nodes])
        made = cls(
            name=name,
            space=space,
            kind="surface",
            labels=labels[nodes],
            coordinates=vertices[nodes],
            nodes=nodes,
            shape=(len(vertices),),
            regions=_regions(labels[nodes], vertices[nodes], table, on_node=tree),
            has_info=True,
            vertices=vertices,
            triangles=triangles,
            mri_affine=mri_affine,
            n_left=sizes[0],
        )
        made.__dict__["tree"] = tree
        return made

    def without_info(self) -> Self:
        """Same atlas whose hemispheres and structures do not constrain the matching of samples."""
        return replace(self, has_info=False)

    def with_hemispheres_from_x(self, *, max_straddling: float = MAX_STRADDLING) -> Self:
        """Same atlas whose regions of unknown hemisphere have the one that they lie in; it then constrains.

        Parameters
        ----------
        max_straddling : float
            A region with more than this share of its nodes across the midline from its centroid is
            bilateral. Structures stay as they are; a region without one takes samples of every structure.

        Raises
        ------
        AtlasError
            If the atlas is in the native space of a donor, whose midline is not at x = 0.
        """
        if self.space == "native":
            raise AtlasError(
                f"Atlas {self.name!r} is in a donor's native space, where x = 0 is not the midline: "
                "give the hemispheres as info."
            )
        sides = hemispheres_from_x(self.labels, self.coordinates[:, 0], self.regions, max_straddling)
        known = self.regions["hemisphere"]
        return replace(
            self, regions=self.regions.assign(hemisphere=known.where(known != "", sides)), has_info=True
        )

    @cached_property
    def centroids(self) -> Floats:
        """(region, 3) centroids in mm, in the order of ``regions``."""
        places: Floats = self.regions[["centroid_x", "centroid_y", "centroid_z"]].to_numpy(dtype=np.float64)
        return places

    @cached_property
    def box(self) -> tuple[Floats, Floats]:
        """Lowest and highest ``coordinates``, (3,) each."""
        if self.affine is not None and is_along_axes(self.affine):
            first, lookup = self.lookup
            voxels = np.array([first, first + lookup.shape - 1])
            corners = voxel_places(np.ravel_multi_index(tuple(voxels.T), self.shape), self.shape, self.affine)
            return corners.min(axis=0), corners.max(axis=0)
        axes = np.ascontiguousarray(self.coordinates.T)
        return axes.min(axis=1), axes.max(axis=1)

    @cached_property
    def tree(self) -> "cKDTree":
        """Search tree over ``coordinates``."""
        return search_tree(self.coordinates)

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
        origin, lookup = self.lookup
        voxels = voxels - origin
        inside = ((voxels >= 0) & (voxels < lookup.shape)).all(axis=-1)
        found = np.full(voxels.shape[:-1], -1, dtype=np.int32)
        found[inside] = lookup[tuple(voxels[inside].T)]
        return found

    @cached_property
    def lookup(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """First voxel of the box around the labelled voxels, and the nodes in that box (-1: none)."""
        if compiled.places is not None:
            return _lookup_in_c(compiled.places, self.nodes, self.shape)
        axes = np.unravel_index(self.nodes, self.shape)
        origin = np.array([axis.min() for axis in axes])
        ends = [axis.max() + 1 for axis in axes]
        lookup = np.full(ends - origin, -1, dtype=np.int32)
        inside = tuple(axis - first for axis, first in zip(axes, origin, strict=True))
        lookup[inside] = np.arange(len(self.nodes), dtype=np.int32)
        return origin, lookup

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over what decides a result: nodes, places (to 1e-6 mm), regions, space; not the name."""
        arrays = [self.labels, self.nodes, self.affine, self.coordinates, self.triangles]
        arrays += [] if self.mri_affine is None else [self.mri_affine]
        digest = hashlib.sha256(f"{self.space} {self.kind} {self.shape} {self.has_info}".encode())
        for array in arrays:
            digest.update(_canonical(array))
        digest.update(self.regions[INFO_COLUMNS].to_csv(lineterminator="\n").encode())
        return digest.hexdigest()


def _region_ids(labels: Labels, name: str) -> list[int]:
    if not len(labels):
        raise AtlasError(f"Atlas {name!r} is empty: every node is 0; give an image of region ids.")
    if labels.max() < FEW_IDS:
        return [int(label) for label in np.flatnonzero(np.bincount(labels))]
    return [int(label) for label in np.unique(labels)]


def _regions(
    labels: Labels, coordinates: Floats, info: pd.DataFrame, *, on_node: "cKDTree | None" = None
) -> pd.DataFrame:
    """Table of the regions; `on_node` moves each centroid to the nearest labelled node."""
    size, sums = _sizes_and_sums(labels, coordinates, info.index.to_numpy())
    centroids = sums / size[:, None]
    if on_node is not None:
        centroids = coordinates[on_node.query(centroids)[1]]
    places = {f"centroid_{axis}": centroids[:, column] for column, axis in enumerate("xyz")}
    return info.assign(**places, n_nodes=size)


def _sizes_and_sums(labels: Labels, coordinates: Floats, ids: Labels) -> tuple[Labels, Floats]:
    """Nodes of each region, and the sums of their coordinates; `ids` are those of `labels`, ascending."""
    if compiled.places is not None and ids[-1] < FEW_IDS:
        rows = np.zeros(ids[-1] + 1, dtype=np.int64)
        rows[ids] = np.arange(len(ids))
        size, sums = np.zeros(len(ids), dtype=np.int64), np.zeros((len(ids), 3))
        compiled.places.add_up(labels, np.ascontiguousarray(coordinates), rows, size, sums)
        return size, sums
    position = np.searchsorted(ids, labels)
    each_axis = [np.bincount(position, weights=axis, minlength=len(ids)) for axis in coordinates.T]
    return np.bincount(position, minlength=len(ids)), np.column_stack(each_axis)


def _lookup_in_c(
    kernels: ModuleType, nodes: NDArray[np.int64], shape: tuple[int, ...]
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    if not 0 <= nodes.min() <= nodes.max() < np.prod(shape, dtype=np.int64):
        raise ValueError(f"nodes lie outside an image of {shape} voxels")
    low, high = np.array(shape, dtype=np.int64), np.full(3, -1, dtype=np.int64)
    kernels.find_box(nodes, shape[1], shape[2], low, high)
    lookup = np.full(high + 1 - low, -1, dtype=np.int32)
    kernels.fill_box(nodes, shape[1], shape[2], low, lookup)
    return low, lookup


def _canonical(array: NDArray[Any] | None) -> Any:
    """Bytes of an array that are the same on every machine: places rounded, little end first."""
    if array is None:
        return b"none"
    if array.dtype.kind != "f":
        return np.ascontiguousarray(array, dtype="<i8")
    if compiled.places is None:
        return np.ascontiguousarray(np.round(array, 6) + 0.0, dtype="<f8")
    places = np.ascontiguousarray(array, dtype=np.float64)
    rounded = np.empty_like(places)  # in one step: threads wait for each other after each
    compiled.places.round_places(places, rounded)
    return rounded.astype("<f8", copy=False)
