"""A region x gene table that a run wrote, read some genes at a time; its rows are regions (of each donor)."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lake.errors import RequestError
from lake.queries import expression_files
from lake.tables import Unit

Floats = NDArray[np.float64]
LABELS = ("gene_symbol", "donor")


class RegionTable:
    """One table; genes are its features, its rows the regions that have samples.

    Regions (of a donor) without samples have no number, and are left out; so is a gene that then has no
    number in some row.

    Parameters
    ----------
    path : pathlib.Path
        ``expression`` or ``donor_expression`` of a unit.

    Raises
    ------
    RequestError
        If no number is left.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = pq.ParquetFile(path)
        self._regions = [name for name in self._file.schema_arrow.names if name not in LABELS]
        labels = self._file.read([name for name in self._file.schema_arrow.names if name in LABELS])
        self._donors = pd.unique(labels["donor"].to_pandas()) if "donor" in labels.column_names else None
        self._all_genes = labels["gene_symbol"].to_numpy()[:: self._rows_per_gene]
        if not (self._kept_rows.any() and self._kept_genes.any()):
            raise RequestError(f"{path}: no gene has a number in every region with samples.")

    @property
    def _rows_per_gene(self) -> int:
        return 1 if self._donors is None else len(self._donors)

    @cached_property
    def rows(self) -> pd.DataFrame:
        """``region`` (id), and ``donor`` in a table of donors."""
        table = pd.DataFrame({"region": np.tile(np.array(self._regions, np.int64), self._rows_per_gene)})
        if self._donors is not None:
            table.insert(0, "donor", np.repeat(np.asarray(self._donors, object), len(self._regions)))
        return table[self._kept_rows].reset_index(drop=True)

    @cached_property
    def genes(self) -> NDArray[Any]:
        """Gene symbols."""
        return np.asarray(self._all_genes[self._kept_genes], object)

    def blocks(self) -> Iterator[tuple[int, Floats]]:
        """First gene, and (gene, row) values from there on."""
        done = read = 0
        for values in self._blocks():
            kept = self._kept_genes[read : read + len(values)]
            read += len(values)
            if kept.any():
                yield done, values[np.ix_(kept, self._kept_rows)]
                done += int(kept.sum())

    def _blocks(self) -> Iterator[Floats]:
        """(gene, donor and region) values; a gene's donors may lie in two row groups."""
        carried = np.empty((0, len(self._regions)))
        for group in range(self._file.num_row_groups):
            values = np.concatenate([carried, _matrix(self._file.read_row_group(group, self._regions))])
            whole = len(values) // self._rows_per_gene * self._rows_per_gene
            carried = values[whole:]
            yield values[:whole].reshape(-1, self._rows_per_gene * len(self._regions))

    @cached_property
    def _kept_rows(self) -> NDArray[np.bool_]:
        kept: NDArray[np.bool_] = np.any(
            [np.isfinite(values).any(axis=0) for values in self._blocks()], axis=0
        )
        return kept

    @cached_property
    def _kept_genes(self) -> NDArray[np.bool_]:
        return np.concatenate(
            [np.isfinite(values[:, self._kept_rows]).all(axis=1) for values in self._blocks()]
        )


def _matrix(table: pa.Table) -> Floats:
    return np.array([column.to_numpy() for column in table.columns], np.float64).T


def find_unit(tables: Path, atlas: str, pipeline: str | None) -> Unit:
    """The one unit of an atlas (and a pipeline) below a directory.

    Raises
    ------
    RequestError
        If there is none, or there are several pipelines to choose from.
    """
    files = expression_files(tables, atlas, pipeline)
    units = [Unit(tables, *(part.partition("=")[2] for part in file.parts[-3:-1])) for file in files]
    if len(units) > 1:
        raise RequestError(
            f"{tables}: name one pipeline for atlas {atlas!r}: {', '.join(unit.pipeline for unit in units)}."
        )
    return units[0]
