"""``ahba sql``: a SELECT over labels and tables."""

from pathlib import Path

import click

from lake.cli import shared_options
from lake.commands.answering import ANSWER, deliver_table, show_columns
from lake.store import Lake


@click.command()
@click.argument("statement")
@click.option("--store", help="A store: its samples, probes, ontology and donors.")
@click.option(
    "--tables", type=click.Path(path_type=Path, file_okay=False), help="What `ahba run --out` wrote."
)
@click.option(
    "--top", default=50, show_default=True, type=click.IntRange(1), help="Rows to print; files get all."
)
@ANSWER
@shared_options
def sql(
    statement: str,
    store: str | None,
    tables: Path | None,
    top: int,
    form: str,
    output: Path | None,
    quiet: bool,
    debug: bool,
) -> None:
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

    opened = Lake(store) if store else None
    deliver_table(
        lambda: query(statement, store=opened, tables=tables),
        lambda table: show_columns(table, top),
        form,
        output,
    )
