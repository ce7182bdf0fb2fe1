"""What the tests of `lake.learning` share."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

import lake
from lake.learning.reader import Batch


def rows_of(batches: Iterable[Batch]) -> list[int]:
    return [int(row) for batch in batches for row in np.asarray(batch.rows)]


def published_values(store: lake.Lake) -> NDArray[np.float64]:
    """All expression, sample x probe, by way of xarray and Dask."""
    return store.microarray()["expression"].to_numpy().T


def same_batches(a: Iterable[Batch], b: Iterable[Batch]) -> bool:
    """Whether two runs of batches are equal: rows, expression to the bit, coordinates."""
    return all(
        np.array_equal(np.asarray(one.rows), np.asarray(other.rows))
        and np.asarray(one.expression).tobytes() == np.asarray(other.expression).tobytes()
        for one, other in zip(list(a), list(b), strict=True)
    )
