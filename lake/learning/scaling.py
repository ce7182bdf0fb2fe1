"""Normalisation that is fitted on some rows and applied to others: a test row changes no number of it."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from lake.errors import RequestError
from transforms.scaling import FITS, Scaling, joined

Floats = NDArray[np.float64]


def fit_scaling(blocks: Iterable[tuple[int, Floats]], rows: NDArray[np.integer], method: str) -> Scaling:
    """Fit a normalisation of each feature on some rows.

    Parameters
    ----------
    blocks : iterable of (first feature, (feature, row) float64 array)
    rows : (row,) int array
        Rows to fit on, two or more.
    method : str
        A name of `transforms.scaling.FITS`, or a short one such as ``srs`` (scaled robust sigmoid, abagen's
        default; Fulcher, Little & Jones 2013, J. R. Soc. Interface 10:20130048). Rows it was not fitted on
        may lie beyond 0 .. 1.

    Returns
    -------
    Scaling
        A feature without spread over these rows is only centred.

    Raises
    ------
    ChoiceError, RequestError
        If there is no such method, or fewer rows than two.
    """
    from transforms.normalize import canonical_name  # worker processes, which fit nothing, need not load it

    name = canonical_name(method)
    if name not in FITS:
        raise RequestError(f"Normalisation {method!r} is not fitted; choose one of {', '.join(FITS)}.")
    if len(rows) < 2:
        raise RequestError("A normalisation is fitted on two rows or more.")
    return _everywhere(joined([FITS[name](block[:, rows]) for _, block in blocks]))


def _everywhere(scaling: Scaling) -> Scaling:
    """The same, but features that have no scale keep their own."""
    if scaling.scale is None:
        return scaling
    flat = ~(scaling.scale > 0)
    scaled = scaling._replace(scale=np.where(flat, 1.0, scaling.scale))
    if scaling.low is None or scaling.width is None:
        return scaled
    flat |= ~(scaling.width > 0)
    middle = scaled.function(scaled.centre, scaled.centre, scaled.scale)
    return scaled._replace(low=np.where(flat, middle, scaling.low), width=np.where(flat, 1.0, scaling.width))
