"""``ahba near`` and ``ahba structure``: samples by place."""

from collections.abc import Callable
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from numpy.typing import NDArray

from lake.commands.answering import deliver, say, say_origin, say_rest, short, shown_symbols, wide
from lake.commands.asking import (
    ALL_PROBES,
    DONORS,
    GENES,
    PUBLISHED,
    Asked,
    asks_store,
    numbers_of,
)
from lake.commands.printing import print_table, print_text
from lake.selection import Selection, counted
from lake.structures import sideless

if TYPE_CHECKING:
    import pandas as pd

EXPRESSION = (GENES, ALL_PROBES, PUBLISHED, DONORS)
SHOWN_GENES = 3
Means = dict[str, NDArray[np.float64]]


class _TakesNegatives(click.Command):
    """A command whose argument may begin with a minus; other unknown options stay errors."""

    ignore_unknown_options = True

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse; a word is an unknown option only if a letter follows its dashes."""
        known = [option for parameter in self.get_params(ctx) for option in parameter.opts]
        _, left, _ = self.make_parser(ctx).parse_args(list(args))
        for word in left:
            if word.startswith("-") and word.lstrip("-")[:1].isalpha():
                raise click.NoSuchOption(word, possibilities=get_close_matches(word, known), ctx=ctx)
        return super().parse_args(ctx, args)


@click.command(cls=_TakesNegatives)
@click.argument("point", metavar="X,Y,Z")
@asks_store(
    click.option("--radius", type=float, help="Samples not farther than this, mm."),
    click.option("-k", "k", type=int, help="So many samples, the nearest.  [default: 10, without --radius]"),
    click.option(
        "--space", default="mni152", show_default=True, help="Space of X,Y,Z: mni152 or fsaverage (MNI305)."
    ),
    click.option(
        "--no-corrected-mni", "corrected", flag_value=False, default=True, type=bool,
        help="Samples at their published MNI coordinates.",
    ),
    *EXPRESSION,
)  # fmt: skip
def near(asked: Asked, point: str, radius: float | None, k: int | None, space: str, corrected: bool) -> None:
    """Samples around a coordinate, the nearest first, with expression of genes.

    \b
    Examples:
      ahba near -42,-22,55 --radius 10 --store ahba.zarr -g SST
      ahba near -42,-22,55 -k 20 --store ahba.zarr --all-probes -o here.parquet
    """
    place = numbers_of(point, 3, "X,Y,Z")
    extent: dict[str, Any] = {"radius": radius, "k": 10 if radius is None and k is None else k}
    found = asked.lake.near(place, **extent, space=space, corrected=corrected, donors=asked.chosen_donors)
    _deliver_samples(asked, found, _show_near)


@click.command()
@click.argument("name")
@asks_store(
    click.option(
        "--no-descendants", "descendants", flag_value=False, default=True, type=bool,
        help="Leave out the samples of the structures it consists of.",
    ),
    click.option("--hemisphere", metavar="SIDE", help="L, R, or B: structures that have no side."),
    *EXPRESSION,
)  # fmt: skip
def structure(asked: Asked, name: str, descendants: bool, hemisphere: str | None) -> None:
    """Samples of a structure and its parts, by acronym, name or id.

    \b
    Examples:
      ahba structure HiF --store ahba.zarr -g SST
      ahba structure "precentral gyrus" --hemisphere L --store ahba.zarr -o precentral.csv
    """
    found = asked.lake.structure(
        name, descendants=descendants, hemisphere=hemisphere, donors=asked.chosen_donors
    )
    _deliver_samples(asked, found, _show_parts)


def _deliver_samples(asked: Asked, found: Selection, show: Callable[[Asked, Selection], None]) -> None:
    """Deliver samples, with expression where it is asked for."""
    chosen = asked.of_genes(found, asked.genes) if asked.genes else found
    say(chosen.notes)
    table = wide if asked.genes or asked.all_probes else _only_samples
    deliver(asked, lambda: table(chosen), lambda: show(asked, chosen))


def _only_samples(selection: Selection) -> "pd.DataFrame":
    table = selection.samples.reset_index(drop=True)
    table.attrs = selection.provenance()
    return table


def _show_near(asked: Asked, selection: Selection) -> None:
    """A row a sample."""
    means = _shown_means(asked, selection)
    rows = [
        (
            f"{sample.distance:.1f}",
            sample.donor,
            str(sample.well_id),
            short(f"{sample.structure_acronym} {sideless(sample.structure_name)}", 44 - 9 * len(means)),
            sample.hemisphere,
            *(f"{values[i]:.2f}" for values in means.values()),
        )
        for i, sample in enumerate(selection.samples.head(asked.top).itertuples())
    ]
    headings = ["mm", "donor", "well_id", "structure", "side", *means]
    print_table(headings, rows, numbers=["mm", "well_id", *means])
    _say_more(asked, selection.shape[1], "samples")


def _show_parts(asked: Asked, selection: Selection) -> None:
    """A row a structure: its samples in all donors, and the genes' means."""
    means = _shown_means(asked, selection)
    samples = selection.samples.reset_index(drop=True)
    parts = samples.groupby(["structure_acronym", "hemisphere"], sort=False)
    rows = [
        (
            acronym,
            short(sideless(part["structure_name"].iloc[0]), 38 - 9 * len(means)),
            side,
            part["donor"].nunique(),
            len(part),
            *(f"{values[part.index].mean():.2f}" for values in means.values()),
        )
        for (acronym, side), part in parts
    ]
    numbers = ["donors", "samples", *means]
    n_samples, n_donors = counted(len(samples), "sample"), counted(len(selection.donors), "donor")
    print_text(f"{selection.question}: {n_samples} of {n_donors}")
    print_table(["structure", "name", "side", *numbers], rows[: asked.top], numbers=numbers)
    _say_more(asked, len(rows), "structures")


def _shown_means(asked: Asked, selection: Selection) -> Means:
    """The first genes that were asked for, and the mean over each one's probes in every sample."""
    if not asked.genes:
        return {}
    published, new = (
        selection.probes[name].to_numpy() for name in ("gene_symbol", "reannotated_gene_symbol")
    )
    symbols = shown_symbols(published, new, reannotated=asked.reannotated)
    values = selection.read()
    shown = list(dict.fromkeys(symbols))[:SHOWN_GENES]
    return {symbol: values[symbols == symbol].mean(axis=0) for symbol in shown}


def _say_more(asked: Asked, n_rows: int, what: str) -> None:
    say_rest(n_rows, asked.top, what)
    if asked.genes:
        print_text("Mean log2 expression over each gene's probes; --output has every probe.")
    say_origin(asked.lake)
