"""What is known about an atlas's regions: label, hemisphere and structure, in one spelling.

Hemisphere and structure decide which samples a region may take (abagen's ``atlas_info``); they come from a
person's table, from the files, or, on request, from where a region lies.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from transforms.errors import AtlasError

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
MAX_STRADDLING = 0.1  # of a region's nodes that may lie in the other hemisphere than its centroid


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
        return labels_only({}, ids)
    table = _indexed_by_id(info, name)
    absent = sorted(set(ids) - set(table.index))
    if absent:
        raise AtlasError(f"The info of atlas {name!r} has no row for region{some(absent)}: add them.")
    table = table.loc[list(ids)]
    if not table.index.is_unique:
        twice = sorted(set(table.index[table.index.duplicated()]))
        raise AtlasError(f"The info of atlas {name!r} repeats region{some(twice)}: keep one row each.")
    label = table["label"] if "label" in table else pd.Series("", index=table.index)
    return pd.DataFrame(
        {
            "label": [text(value) for value in label],
            "hemisphere": _spelled(table["hemisphere"], HEMISPHERES, name),
            "structure": _spelled(table["structure"], STRUCTURES, name),
        },
        index=region_index(ids),
    )


def labels_only(labels: Mapping[int, str], ids: Sequence[int]) -> pd.DataFrame:
    """Facts of which only the labels are known, if those; "" for the rest."""
    label = [text(labels.get(region, "")) for region in ids]
    return pd.DataFrame({"label": label, "hemisphere": "", "structure": ""}, index=region_index(ids))


def check_sides(regions: pd.DataFrame, *, name: str) -> None:
    """Refuse an atlas whose left regions lie right of the midline, and whose right ones lie left.

    Parameters
    ----------
    regions : pandas.DataFrame
        ``hemisphere`` and ``centroid_x`` in mm.
    name : str
        The atlas, for messages.

    Raises
    ------
    AtlasError
        If more than half of the regions with a side lie on the other one: the info, or the image, has them
        swapped. Fewer can be true of a real atlas (midline regions, one swapped name) and pass.
    """
    sided = regions[regions["hemisphere"].isin(["L", "R"])]
    outward = np.where(sided["hemisphere"] == "L", -1, 1)
    swapped = int((sided["centroid_x"] * outward < 0).sum())
    if 2 * swapped > len(sided):
        raise AtlasError(
            f"Atlas {name!r} has its hemispheres swapped: {swapped} of {len(sided)} regions that its info "
            "calls left or right lie on the other side of x = 0 (left is negative): check the image's "
            "orientation and the info."
        )


def hemispheres_from_x(
    labels: NDArray[np.int64], x: NDArray[np.float64], regions: pd.DataFrame, max_straddling: float
) -> list[str]:
    """Hemisphere of each region by where it lies.

    Parameters
    ----------
    labels : (node,) int array
    x : (node,) float array
        mm; negative is left.
    regions : pandas.DataFrame
        Indexed by region id; ``centroid_x`` in mm.
    max_straddling : float
        Share of a region's nodes that may lie across the midline from its centroid (those at 0 count as
        neither); more makes the region bilateral.

    Returns
    -------
    list of {"L", "R", "B"}
    """
    row = np.searchsorted(regions.index.to_numpy(), labels)
    centre = regions["centroid_x"].to_numpy(dtype=np.float64)
    across = np.bincount(row, weights=x * np.sign(centre)[row] < 0, minlength=len(regions))
    share = across / np.bincount(row, minlength=len(regions))
    sides = np.where(centre < 0, "L", "R")
    return [str(side) for side in np.where((share > max_straddling) | (centre == 0), "B", sides)]


def text(value: object) -> str:
    """Text of a table's cell; "" for nothing."""
    return "" if value is None or value != value else str(value).strip()


def some(values: Iterable[object]) -> str:
    """First few of the values, for a message."""
    shown = [repr(value) if isinstance(value, str) else str(value) for value in values]
    more = f" and {len(shown) - 10} more" if len(shown) > 10 else ""
    return " " + ", ".join(shown[:10]) + more


def region_index(ids: Sequence[int]) -> pd.Index:
    """Index of a table of regions."""
    return pd.Index(ids, dtype=np.int64, name="region")


def _indexed_by_id(info: pd.DataFrame, name: str) -> pd.DataFrame:
    table = info.reset_index() if info.index.name == "id" and "id" not in info else info
    absent = [column for column in ("id", "hemisphere", "structure") if column not in table]
    if absent:
        raise AtlasError(
            f"The info of atlas {name!r} lacks column{some(absent)}: it needs id, hemisphere and structure, "
            f"and has{some(table.columns)}."
        )
    numbers = pd.to_numeric(table["id"], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    wrong = table["id"][~(np.isfinite(numbers) & (numbers == np.rint(numbers)))]
    if len(wrong):
        raise AtlasError(f"The info of atlas {name!r} has an id that is no whole number:{some(wrong)}.")
    return table.set_index(numbers.astype(np.int64))


def _spelled(values: pd.Series, spellings: dict[str, str], name: str) -> list[str]:
    keys = [text(value).replace("_", " ").casefold() for value in values]
    wrong = sorted({text(value) for value, key in zip(values, keys, strict=True) if key not in spellings})
    if wrong:
        raise AtlasError(
            f"The info of atlas {name!r} has an unknown {values.name}:{some(wrong)}; accepted are"
            f"{some(spellings)}."
        )
    return [spellings[key] for key in keys]
