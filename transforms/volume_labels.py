"""Labels of an image's voxels: what is taken for a region id, and the most probable region of each voxel."""

import math
from typing import Any

import nibabel
import numpy as np
from nibabel.affines import apply_affine
from nibabel.spatialimages import SpatialImage
from numpy.typing import NDArray

from transforms import compiled
from transforms.errors import AtlasError

Labels = NDArray[np.int64]
Floats = NDArray[np.float64]

MAX_VOXELS = 2**31
MAX_REGION_ID = 2**31 - 1
IN_C = {np.dtype(kind) for kind in ("u1", "i2", "u2", "i4", "i8", "f4", "f8")}
CHANCES_IN_C = IN_C - {np.dtype("i8")}
"""Types of values, in this machine's byte order, that the kernels take."""


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


def read_labels(
    image: SpatialImage, name: str, *, threshold: float | None = None
) -> tuple[NDArray[Any], Floats]:
    """Values (x, y, z) of an image, to be read as labels, and its affine.

    Parameters
    ----------
    image : nibabel.spatialimages.SpatialImage
    name : str
        The atlas, for messages.
    threshold : float, optional
        For an image with one volume a region: see :func:`most_probable`.

    Raises
    ------
    AtlasError
        If the image is no volume of labels, or not one of probabilities though there is a threshold.
    """
    image = check_image(image, name)
    if len(image.shape) > 3 and image.shape[-1] == 1:  # squeezing reads all of it
        image = nibabel.funcs.squeeze_image(image)
    affine = np.asarray(image.affine, dtype=np.float64)
    if not np.isfinite(affine).all() or np.linalg.matrix_rank(affine[:3, :3]) < 3:
        raise AtlasError(f"Atlas {name!r} has an affine that cannot be inverted: set it right in the header.")
    if len(image.shape) == 4:
        return _thresholded(image, name, threshold), affine
    if len(image.shape) != 3:
        raise AtlasError(f"Atlas {name!r} has the shape {image.shape}: it must be a 3-D image.")
    if threshold is not None:
        raise AtlasError(
            f"Atlas {name!r} has one volume, and a threshold is for probabilities, one volume a region: "
            "leave the threshold out."
        )
    return np.asarray(image.dataobj), affine


def _thresholded(image: SpatialImage, name: str, threshold: float | None) -> NDArray[Any]:
    n_volumes = image.shape[3]
    if threshold is None:
        raise AtlasError(
            f"Atlas {name!r} has {n_volumes} volumes: if they are probabilities, one volume a region, say "
            "from which value on a voxel belongs to its most probable region, in the file's own units "
            "(FILE@25, or threshold=25); otherwise give one volume of region ids."
        )
    return most_probable(image.dataobj, name, threshold=threshold)


def most_probable(probabilities: Any, name: str, *, threshold: float) -> NDArray[np.int32]:
    """Most probable region of each voxel.

    Parameters
    ----------
    probabilities : (x, y, z, region) array, or what is sliced like one
        In any unit; looked at one region at a time, so that a file need not be in memory.
    name : str
        The atlas, for messages.
    threshold : float
        In the same unit: where no region reaches it, there is none. Nor is there where all are 0.

    Returns
    -------
    (x, y, z) int32 array
        1 for the first volume, 2 for the second, ..; of equally probable regions the first; 0 for none.

    Raises
    ------
    AtlasError
        If the threshold is negative or not finite, values are not finite, or none reaches the threshold.
    """
    if not math.isfinite(threshold) or threshold < 0:
        raise AtlasError(f"Threshold {threshold:g} of atlas {name!r} is no probability: give 0 or more.")
    if probabilities.dtype.kind not in "biuf":
        raise AtlasError(
            f"Atlas {name!r} holds values of type {probabilities.dtype}: give one number a voxel."
        )
    best = np.zeros(probabilities.shape[:3], dtype=probabilities[..., 0].dtype, order="F")
    region = np.zeros(best.shape, dtype=np.int32, order="F")
    flat_best, flat_region = best.ravel(order="K"), region.ravel(order="K")  # views
    for volume in range(probabilities.shape[3]):
        values = np.asarray(probabilities[..., volume]).ravel(order="F")
        if not _take_larger(values, flat_best, flat_region, volume + 1):
            raise AtlasError(f"Atlas {name!r} holds values that are not finite (NaN): set them to 0.")
    region[best < threshold] = 0
    if not region.any():
        raise AtlasError(
            f"No voxel of atlas {name!r} reaches the threshold {threshold:g}: its largest value is "
            f"{best.max():g}; give the threshold in the same unit."
        )
    return region


def _take_larger(values: NDArray[Any], best: NDArray[Any], region: NDArray[np.int32], number: int) -> bool:
    """Where a value is larger than the best so far, the region is `number`; False if one is not finite."""
    if compiled.places is not None and values.dtype == best.dtype and values.dtype in CHANCES_IN_C:
        return bool(compiled.places.take_larger(values, best, region, number))
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        return False
    somewhere = np.flatnonzero(values)  # few voxels have any chance to be in a region
    chances = values[somewhere]
    better = chances > best[somewhere]
    best[somewhere[better]] = chances[better]
    region[somewhere[better]] = number
    return True


def labelled_voxels(data: NDArray[Any], name: str) -> tuple[NDArray[np.int64], Labels]:
    """Flat index (C order), ascending, and label of every labelled voxel.

    Raises
    ------
    AtlasError
        If a value is no region id.
    """
    if data.dtype.kind not in "biuf":
        raise AtlasError(f"Atlas {name!r} holds values of type {data.dtype}: give one whole number a voxel.")
    found = _plainly_labelled(data)
    if found is not None:
        return found
    voxels = data.nonzero()
    labels = whole_numbers(data[voxels], name)
    labelled = labels != 0
    nodes = np.ravel_multi_index(voxels, data.shape).astype(np.int64)
    return nodes[labelled], labels[labelled]


def _plainly_labelled(data: NDArray[Any]) -> tuple[NDArray[np.int64], Labels] | None:
    """The same in C; None where there are no kernels, or a value is not plainly a region id."""
    if compiled.places is None or data.dtype.newbyteorder("=") not in IN_C:
        return None
    values = data.astype(data.dtype.newbyteorder("="), copy=False)
    _, second, third = data.shape
    row_steps, node_steps = np.array([second, 1, 0]), np.array([second * third, third, 1])
    if values.flags.f_contiguous:  # as files have it: the kernels walk through memory
        values, row_steps, node_steps = values.T, row_steps[::-1].copy(), node_steps[::-1].copy()
    values = np.ascontiguousarray(values)
    counts = np.zeros(data.shape[0] * second, dtype=np.int64)
    if not compiled.places.count_labelled(values, row_steps, MAX_REGION_ID, counts):
        return None
    nodes = np.empty(counts.sum(), dtype=np.int64)
    labels = np.empty_like(nodes)
    places = np.cumsum(counts) - counts
    compiled.places.gather_labelled(values, row_steps, node_steps, MAX_REGION_ID, places, nodes, labels)
    return nodes, labels


def voxel_places(nodes: NDArray[np.int64], shape: tuple[int, ...], affine: Floats) -> Floats:
    """Centres (voxel, 3) in mm of voxels by flat index.

    On an image along the axes of space a coordinate is that of its plane, which is found once.
    """
    if not is_along_axes(affine):
        voxels = np.unravel_index(nodes, shape)
        return np.asarray(apply_affine(affine, np.column_stack(voxels)), dtype=np.float64)
    column_of = (affine[:3, :3] != 0).argmax(axis=0)
    planes = [
        np.ascontiguousarray(apply_affine(affine, np.arange(size)[:, None] * np.eye(3)[axis])[:, column])
        for axis, (size, column) in enumerate(zip(shape, column_of, strict=True))
    ]
    places = np.empty((len(nodes), 3), dtype=np.float64)
    if compiled.places is not None:
        compiled.places.place_nodes(nodes, *planes, column_of, places)
        return places
    for plane, column, index in zip(planes, column_of, np.unravel_index(nodes, shape), strict=True):
        places[:, column] = plane[index]
    return places


def is_along_axes(affine: Floats) -> bool:
    """Whether the index along each axis of an image decides one coordinate, and each is decided by one."""
    return all((np.count_nonzero(affine[:3, :3], axis=axis) == 1).all() for axis in (0, 1))


def whole_numbers(values: NDArray[Any], name: str) -> Labels:
    """Region ids; a fraction that is rounding (as numpy.isclose has it) goes, any other is an error.

    Raises
    ------
    AtlasError
        If a value is no whole number, negative, above 2^31 - 1 or not finite.
    """
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
