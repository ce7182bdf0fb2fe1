"""``ahba near`` and ``ahba structure``: samples by place."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from lake.cli import STORE, shared_options
from lake.commands.answering import (
    ANSWER,
    CORRECTED,
    DONORS,
    GENES,
    PUBLISHED,
    TOP,
    deliver,
    listed,
    numbers_of,
    say,
    say_origin,
    say_rest,
    short,
    sideless,
    wide,
)
from lake.commands.printing import print_table, print_text
from lake.selection import Selection
from lake.store import Lake

if TYPE_CHECKING:
    import pandas as pd

SHOWN_GENES = 3


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("point", metavar="X,Y,Z")
@STORE
@click.option("--radius", type=float, help="Samples not farther than this, mm.")
@click.option("-k", "k", type=int, help="So many nearest samples.  [default: 10]")
@click.option(
    "--space", default="mni152", show_default=True, help="Of the point: mni152 or fsaverage (MNI305)."
)
@CORRECTED
@GENES
@click.option("--all-probes", is_flag=True, help="Expression of all probes; for files.")
@PUBLISHED
@DONORS
@TOP
@ANSWER
@shared_options
def near(
    point: str,
    store: str,
    radius: float | None,
    k: int | None,
    space: str,
    corrected: bool,
    genes: tuple[str, ...],
    all_probes: bool,
    reannotated: bool,
    donors: str,
    top: int,
    form: str,
    output: Path | None,
    quiet: bool,
    debug: bool,
) -> None:
    """Samples around a coordinate, the nearest first, with expression of genes.

    \b
    Examples:
      ahba near -42,-22,55 --radius 10 --store ahba.zarr -g SST
      ahba near -42,-22,55 -k 20 --store ahba.zarr --all-probes -o here.parquet
    """
    opened = Lake(store)
    place = numbers_of(point, 3, "X,Y,Z")
    count = 10 if radius is None and k is None else k
    found = opened.near(
        place, radius=radius, k=count, space=space, corrected=corrected, donors=listed(donors)
    )
    _deliver_samples(
        found, genes, all_probes, reannotated, (form, output), lambda s: _show_near(s, genes, top)
    )


def _deliver_samples(
    found: Selection,
    genes: tuple[str, ...],
    all_probes: bool,
    reannotated: bool,
    answer: tuple[str, Path | None],
    show: Callable[[Selection], None],
) -> None:
    """Deliver samples, with expression where it is asked for."""
    chosen = found.genes(genes, reannotated=reannotated) if genes else found
    say(chosen.notes)
    whole = (lambda: wide(chosen)) if genes or all_probes else (lambda: _only_samples(chosen))
    deliver(whole, lambda: show(chosen), *answer)


def _only_samples(selection: Selection) -> "pd.DataFrame":
    table = selection.samples.reset_index(drop=True)
    table.attrs = selection.provenance()
    return table


def _show_near(selection: Selection, genes: tuple[str, ...], top: int) -> None:
    samples = selection.samples.head(top)
    headings, values = _shown_probes(selection) if genes else ([], np.empty((0, len(selection.columns))))
    rows = [
        (
            f"{sample.distance:.1f}",
            sample.donor,
            sample.well_id,
            short(f"{sample.structure_acronym} {sideless(sample.structure_name)}", 44 - 9 * len(headings)),
            sample.hemisphere,
            *(f"{value:.2f}" for value in values[:, i]),
        )
        for i, sample in enumerate(samples.itertuples())
    ]
    wells = [(*row[:2], str(row[2]), *row[3:]) for row in rows]
    print_table(
        ["mm", "donor", "well_id", "structure", "side", *headings],
        wells,
        numbers=["mm", "well_id", *headings],
    )
    _say_more(selection, len(selection.columns), top, "samples", genes)


def _shown_probes(selection: Selection) -> tuple[list[str], np.ndarray[Any, Any]]:
    """Headings and values of the first genes, the mean of each one's probes."""
    probes = selection.probes
    symbols = probes["reannotated_gene_symbol"].where(
        probes["reannotated_gene_symbol"] != "", probes["gene_symbol"]
    )
    values = selection.read()
    shown = list(dict.fromkeys(symbols))[:SHOWN_GENES]
    means = [values[(symbols == symbol).to_numpy()].mean(axis=0) for symbol in shown]
    return shown, np.array(means)


def _say_more(selection: Selection, n_rows: int, top: int, what: str, genes: tuple[str, ...]) -> None:
    say_rest(n_rows, top, what)
    if genes:
        print_text("Mean log2 expression over each gene's probes; --output has every probe.")
    say_origin(selection.store)


@click.command()
@click.argument("name")
@STORE
@click.option(
    "--no-descendants", "descendants", flag_value=False, default=True, type=bool, help="Not its parts."
)
@click.option(
    "--hemisphere", type=click.Choice(["L", "R", "B"], case_sensitive=False), help="B: without a side."
)
@GENES
@click.option("--all-probes", is_flag=True, help="Expression of all probes; for files.")
@PUBLISHED
@DONORS
@TOP
@ANSWER
@shared_options
def structure(
    name: str,
    store: str,
    descendants: bool,
    hemisphere: str | None,
    genes: tuple[str, ...],
    all_probes: bool,
    reannotated: bool,
    donors: str,
    top: int,
    form: str,
    output: Path | None,
    quiet: bool,
    debug: bool,
) -> None:
    """Samples of a structure and its parts, by acronym, name or id.

    \b
    Examples:
      ahba structure HiF --store ahba.zarr -g SST
      ahba structure "precentral gyrus" --hemisphere L --store ahba.zarr -o precentral.csv
    """
    opened = Lake(store)
    found = opened.structure(name, descendants=descendants, hemisphere=hemisphere, donors=listed(donors))
    _deliver_samples(
        found, genes, all_probes, reannotated, (form, output), lambda s: _show_parts(s, genes, top)
    )


def _show_parts(selection: Selection, genes: tuple[str, ...], top: int) -> None:
    """A row a structure: its samples in all donors, and the genes' means."""
    headings, values = _shown_probes(selection) if genes else ([], np.empty((0, len(selection.columns))))
    samples = selection.samples.assign(**dict(zip(headings, values, strict=True)))
    parts = samples.groupby(["structure_acronym", "hemisphere"], sort=False)
    rows = [
        (
            acronym,
            short(sideless(part["structure_name"].iloc[0]), 38 - 9 * len(headings)),
            side,
            part["donor"].nunique(),
            len(part),
            *(f"{part[heading].mean():.2f}" for heading in headings),
        )
        for (acronym, side), part in parts
    ]
    numbers = ["donors", "samples", *headings]
    print_text(f"{selection.question}: {len(samples):,} samples of {len(selection.donors)} donors")
    print_table(["structure", "name", "side", *numbers], rows[:top], numbers=numbers)
    _say_more(selection, len(rows), top, "structures", genes)
