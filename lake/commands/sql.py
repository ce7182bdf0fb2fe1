"""``ahba sql``: a SELECT over labels and tables."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lake.commands.answering import deliver_table, say_origin, show_columns
from lake.commands.asking import Asked, asks

if TYPE_CHECKING:
    import pandas as pd


@click.command()
@click.argument("statement")
@asks(
    click.option("--store", help="A store: its samples, probes, ontology and donors."),
    click.option(
        "--tables", type=click.Path(path_type=Path, file_okay=False), help="What `ahba run --out` wrote."
    ),
    top_rows=50,
)
def sql(asked: Asked, statement: str, tables: Path | None) -> None:
    """Answer one SELECT over a store's labels and the tables of runs, by DuckDB.

    \b
    --store:  samples, probes, ontology, donors
    --tables: expression, counts, genes, regions, donor_expression

    \b
    Examples:
      ahba sql "select structure, count(*) from samples group by all" --store ahba.zarr
      ahba sql "from expression where gene_symbol = 'SST'" --tables tables -o sst.csv
    """
    from lake.sql import query

    store = asked.lake if asked.store else None

    def show(table: "pd.DataFrame") -> None:
        """Its first rows."""
        show_columns(table, asked.top)
        if store is not None:
            say_origin(store)

    deliver_table(asked, lambda: query(statement, store=store, tables=tables), show)
