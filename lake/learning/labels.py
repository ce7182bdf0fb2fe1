"""What else is known of samples and regions: the region of an atlas, and maps of the user's own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from nibabel.affines import apply_affine
from nibabel.spatialimages import SpatialImage
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from lake.atlas_files import read_volume
from lake.errors import RequestError
from lake.places import in_atlas
from lake.runs import AtlasLike
from lake.selection import Selection

Floats = NDArray[np.float64]
MapLike: TypeAlias = str | Path | SpatialImage | pd.Series | Mapping[Any, Any]


def region_of(selection: Selection, atlas: AtlasLike, corrected_mni: bool) -> NDArray[np.int64]:
    """The region of each sample of a selection, 0 for none, by the rules of a run.

    Raises
    ------
    RequestError, AtlasError, ChoiceError
        As `lake.places.in_atlas`.
    """
    found = in_atlas(selection.store, atlas, corrected=corrected_mni, donors=selection.donors)
    regions = pd.Series(found.labels["region"], index=found.columns)
    return np.asarray(regions.reindex(selection.columns, fill_value=0), np.int64)


def map_values(name: str, source: MapLike, keys: pd.Series, coordinates: Floats | None) -> Floats:
    """The value of a map for each row.

    Parameters
    ----------
    name : str
        Of the map, for messages.
    source : path, image, Series or mapping
    keys : pandas.Series
        Of the rows; its name says what they are.
    coordinates : (row, 3) float array or None
        MNI152 mm. None: images are refused.

    Returns
    -------
    (row,) float array
        NaN where the map has no value.

    Raises
    ------
    RequestError
        If the map is no image of three axes, has no value for any row, or is an image of regions; or its
        values are no numbers, or two of one row.
    """
    if isinstance(source, pd.Series | Mapping):
        values = np.asarray(_numbers(name, source).reindex(keys), np.float64)
    elif coordinates is None:
        raise RequestError(
            f"Map {name!r} is an image, which a centroid says little of: give its mean of each region, by "
            f"{keys.name}."
        )
    else:
        values = _sampled(name, source, coordinates)
    if np.isnan(values).all():
        raise RequestError(
            f"Map {name!r} has no value for any row; is it in MNI152 (or, of numbers, by {keys.name})?"
        )
    return values


def _numbers(name: str, source: pd.Series | Mapping[Any, Any]) -> pd.Series:
    try:
        numbers = pd.Series(source, dtype=np.float64)
    except (TypeError, ValueError):
        raise RequestError(f"Map {name!r} has a value that is no number: correct it.") from None
    if numbers.index.has_duplicates:
        twice = numbers.index[numbers.index.duplicated()][0]
        raise RequestError(f"Map {name!r} has two values of {twice}: leave one of them.")
    return numbers


def _sampled(name: str, source: str | Path | SpatialImage, coordinates: Floats) -> Floats:
    """Values between the voxel centres, linearly; NaN outside and beside a voxel that has none."""
    image: Any = read_volume(Path(source), name) if isinstance(source, str | Path) else source
    if image.ndim != 3:
        raise RequestError(f"Map {name!r} has {image.ndim} axes: an image of three is needed.")
    voxels = apply_affine(np.linalg.inv(image.affine), coordinates)
    data = np.asarray(image.dataobj, np.float64)
    values: Floats = map_coordinates(data, voxels.T, order=1, mode="constant", cval=np.nan)
    return values
