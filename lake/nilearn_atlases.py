"""Atlases that nilearn's fetchers download: nilearn is imported only where one is asked for."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
from nibabel.spatialimages import SpatialImage

from lake.atlas_files import read_volume
from lake.catalogue_entries import Entry
from transforms.atlas import Annotation, check_image
from transforms.errors import AtlasError


def fetch_volume(entry: Entry) -> tuple[SpatialImage, dict[int, str]]:
    """Image of an atlas, and the names of its regions by id.

    Raises
    ------
    AtlasError
        If nilearn is not installed, or the atlas cannot be downloaded.
    """
    fetched = _fetch(entry)
    maps = fetched["maps"]
    if isinstance(maps, (str, Path)):
        image = read_volume(Path(maps), entry.name)
    else:
        image = check_image(maps, entry.name)
    return image, _region_names(fetched, image)


def fetch_surface(entry: Entry) -> tuple[Annotation, Annotation]:
    """Labels of an atlas on the fsaverage5 surface, as annotations.

    Raises
    ------
    AtlasError
        If nilearn is not installed, or the atlas cannot be downloaded.
    """
    fetched = _fetch(entry)
    names = [_name(label) for label in fetched["labels"]]
    left, right = (np.asarray(fetched[side]) for side in ("map_left", "map_right"))
    return (left, names), (right, names)


def _fetch(entry: Entry) -> Any:
    try:
        datasets = import_module("nilearn.datasets")
    except ImportError:
        raise AtlasError(f"Atlas {entry.name} is fetched by nilearn: {entry.install}") from None
    try:
        return getattr(datasets, entry.fetcher)(**entry.arguments, verbose=0)
    except Exception as error:  # requests', urllib's and nilearn's own, which differ from version to version
        reason = shorten(str(error), width=120) or type(error).__name__
        raise AtlasError(
            f"Atlas {entry.name} could not be downloaded by nilearn ({reason}): check the network and try "
            "again; what is downloaded once is kept."
        ) from error


def _region_names(fetched: Any, image: SpatialImage) -> dict[int, str]:
    """Names by id, from nilearn's look-up table or, for probabilities, its labels in the order of volumes."""
    if len(image.shape) == 4:
        names = [_name(label) for label in fetched.get("labels", ())]
        regions = names[1:] if len(names) == image.shape[3] + 1 else names  # the first may be the background
        return dict(enumerate(regions, start=1))
    table = fetched.get("lut")
    return {} if table is None else _numbered(table["index"], table["name"])


def _numbered(ids: Sequence[Any], names: Sequence[Any]) -> dict[int, str]:
    return {int(region): _name(name) for region, name in zip(ids, names, strict=True)}


def _name(label: object) -> str:
    return label.decode(errors="replace") if isinstance(label, bytes) else str(label)
