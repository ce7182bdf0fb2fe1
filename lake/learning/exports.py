"""Samples or regions as other tools' objects: AnnData, and the arrays of scikit-learn."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lake.learning.observations import KEYS, Observations, Source, observations
from lake.learning.optional import needed

if TYPE_CHECKING:
    from anndata import AnnData

SPATIAL = "spatial"
"""Where AnnData's users (scanpy, squidpy) look for coordinates."""


class Arrays(NamedTuple):
    """What scikit-learn takes.

    Attributes
    ----------
    X : (row, feature) float array
    y : (row, ..) array or None
    groups : (row,) array or None
        Rows that folds should not part: donors.
    names : (feature,) str array
        Gene symbols, or probe ids.
    rows : pandas.DataFrame
        All that is known of the rows.
    """

    X: NDArray[np.floating]
    y: NDArray[Any] | None
    groups: NDArray[Any] | None
    names: NDArray[Any]
    rows: pd.DataFrame


def to_sklearn(
    source: Source | Observations,
    y: str | Sequence[str] | None = None,
    *,
    groups: str | None = None,
    dtype: str = "float64",
    **choices: Any,
) -> Arrays:
    """Expression and what is to be predicted, as arrays in memory.

    Parameters
    ----------
    source : Lake, Selection, path or Observations
        See `lake.observations`.
    y : str or sequence of str, optional
        ``coordinates``, a label, or a map: what `lake.feed` takes as labels. Rows without it (NaN) are
        left out.
    groups : str, optional
        Label of the groups; ``donor`` where rows have donors.
    dtype : {"float64", "float32"}
    **choices
        See `lake.observations`.

    Returns
    -------
    Arrays
        Rows in the order of the store (of the table); values as published, or as the run normalised them.

    Raises
    ------
    RequestError, ChoiceError, AtlasError
        If the source, a label or a choice is wrong.
    """
    found = observations(source, **choices)
    target = None if y is None else _target(found, [y] if isinstance(y, str) else list(y))
    known = np.ones(len(found.rows), bool) if target is None else _is_known(target)
    chosen = groups or ("donor" if "donor" in found.rows else None)
    return Arrays(
        X=_expression(found, np.flatnonzero(known), dtype),
        y=None if target is None else target[known],
        groups=None if chosen is None else found.label(chosen)[known],
        names=found.names,
        rows=found.rows[known].reset_index(drop=True),
    )


def _target(found: Observations, names: list[str]) -> NDArray[Any]:
    columns = [found.label(name) for name in names]
    return columns[0] if len(columns) == 1 else np.column_stack(columns)


def _is_known(target: NDArray[Any]) -> NDArray[np.bool_]:
    known: NDArray[np.bool_] = np.logical_not(pd.isna(target)).reshape(len(target), -1).all(axis=1)
    return known


def _expression(found: Observations, rows: NDArray[np.integer], dtype: str) -> NDArray[np.floating]:
    values = np.empty((len(rows), found.shape[1]), dtype)
    for start, block in found.blocks():
        values[:, start : start + len(block)] = block[:, rows].T
    return values


def to_anndata(source: Source | Observations, *, dtype: str = "float32", **choices: Any) -> "AnnData":
    """Samples (or regions) x genes as an AnnData object in memory.

    Parameters
    ----------
    source : Lake, Selection, path or Observations
        See `lake.observations`.
    dtype : {"float32", "float64"}
    **choices
        See `lake.observations`.

    Returns
    -------
    anndata.AnnData
        ``X`` (sample, gene); ``obs`` all that is known of the samples, named by well id (regions by id, of a
        donor's by ``donor-region``); ``var`` the genes, named by symbol (probes by id); ``obsm["spatial"]``
        coordinates, MNI152 mm; ``uns["ahba_lake"]`` snapshot, choices, versions, licence and citation as
        JSON.

    Raises
    ------
    RequestError, ChoiceError, AtlasError
        If anndata is not installed, or the source or a choice is wrong.
    """
    anndata: Any = needed("anndata", "to_anndata", "anndata")
    found = observations(source, **choices)
    result = anndata.AnnData(
        _expression(found, np.arange(len(found.rows)), dtype),
        obs=_writable(found.rows, _row_names(found)),
        var=_writable(found.features, found.names),
    )
    result.obsm[SPATIAL] = found.coordinates
    result.uns["ahba_lake"] = json.dumps(found.provenance, sort_keys=True)
    return result


def _row_names(found: Observations) -> NDArray[Any]:
    keys = found.rows[KEYS[found.kind]].astype(str)
    by_donor = found.kind == "region" and "donor" in found.rows
    names = found.rows["donor"].astype(str) + "-" + keys if by_donor else keys
    return np.asarray(names, object)


def _writable(table: pd.DataFrame, names: NDArray[Any]) -> pd.DataFrame:
    """Text as categories of Python objects: pandas 3's own text is not written by every anndata."""
    columns = {name: _categories(column) if _is_text(column) else column for name, column in table.items()}
    return pd.DataFrame(columns).set_index(pd.Index(names, dtype=object))


def _is_text(column: pd.Series) -> bool:
    return isinstance(column.dtype, pd.StringDtype) or column.dtype == object


def _categories(column: pd.Series) -> pd.Series:
    text = column.fillna("").astype(str)
    known = pd.Index(sorted(set(text)), dtype=object)
    return pd.Series(pd.Categorical(text.astype(object), categories=known), column.index)
