"""Reading batches: all that a worker process needs, and nothing that takes long to import."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from numpy.typing import NDArray

from lake.learning.matrix import Matrix
from lake.learning.order import Integers
from transforms.scaling import Scaling


class Batch(NamedTuple):
    """Some rows.

    Attributes
    ----------
    expression : (row, feature) array
    labels : dict of str to (row, ..) array
    rows : (row,) int array
        Which rows of `Observations.rows` they are.
    """

    expression: Any
    labels: dict[str, Any]
    rows: Any


@dataclass(frozen=True, eq=False)
class Reader:
    """Reads rows of a matrix with their labels; goes to other processes as it is.

    Attributes
    ----------
    matrix : Matrix
    laid : (row,) int array
        Which row lies at each place of the matrix.
    labels : dict of str to (row, ..) array
    scaling : Scaling or None
    """

    matrix: Matrix
    laid: Integers
    labels: dict[str, NDArray[Any]]
    scaling: Scaling | None = None

    def read(self, places: Integers) -> Batch:
        """The rows at some places, in that order."""
        expression: Any = self.matrix.read(places)
        if self.scaling is not None:
            expression = self.scaling.by_column(expression)
        rows = self.laid[places]
        return Batch(expression, {name: values[rows] for name, values in self.labels.items()}, rows)
