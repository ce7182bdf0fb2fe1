"""``ahba gene``: probes of genes."""

from pathlib import Path
from typing import Any

import click
import numpy as np

from lake.cli import STORE, shared_options
from lake.commands.answering import (
    ANSWER,
    DONORS,
    PUBLISHED,
    SELECTED,
    TOP,
    deliver,
    listed,
    pipeline_of,
    say,
    say_origin,
    short,
    sideless,
    wide,
)
from lake.commands.printing import print_table, print_text
from lake.queries import for_donors
from lake.selection import Selection, everything
from lake.store import Lake


@click.command()
@click.argument("genes", nargs=-1, required=True, metavar="GENE..")
@STORE
@DONORS
@PUBLISHED
@SELECTED
@TOP
@ANSWER
@shared_options
def gene(
    genes: tuple[str, ...],
    store: str,
    donors: str,
    reannotated: bool,
    selected: bool,
    top: int,
    form: str,
    output: Path | None,
    quiet: bool,
    debug: bool,
    **choices: Any,
) -> None:
    """Probes of genes in all samples: how often detected, how high, where.

    GENE is a symbol, an Entrez id or a probe id. A retired symbol is resolved, and that is said.

    \b
    Examples:
      ahba gene SST --store ahba.zarr
      ahba gene SST PVALB VIP --store ahba.zarr --donors 9861 -o interneurons.csv
      ahba gene SST --store ahba.zarr --selected --probe-selection max_intensity
    """
    opened = Lake(store)
    found = for_donors(everything(opened).genes(genes, reannotated=reannotated), listed(donors))
    pipeline = pipeline_of(selected, choices)
    chosen = found if pipeline is None else found.per_gene(pipeline)
    say(chosen.notes)
    deliver(lambda: wide(chosen), lambda: _show_gene(chosen, top), form, output)


def _show_gene(selection: Selection, top: int) -> None:
    values = selection.read()
    headings, labels = _labels(selection)
    means = [np.round(values[:, places].mean(axis=1), 2) for places, _ in selection.parts.values()]
    rows = [
        (*label, f"{row.mean():.2f}", *(f"{mean[i]:.2f}" for mean in means))
        for i, (label, row) in enumerate(zip(labels, values, strict=True))
    ]
    all_headings = [*headings, "mean", *selection.donors]
    print_table(all_headings, rows, numbers=[name for name in all_headings if name != "gene"])
    print_text(f"Mean log2 expression over {values.shape[1]:,} samples, and in each donor. Highest in:")
    _show_structures(selection, values, top)
    say_origin(selection.store)


def _labels(selection: Selection) -> tuple[list[str], list[tuple[object, ...]]]:
    """Headings and cells that say which probe a row is; the gene, after a pipeline's choice."""
    if selection.choice is not None:
        genes = selection.choice.genes
        return ["gene", "probe"], [
            (symbol, str(probe) if probe >= 0 else "several")
            for symbol, probe in zip(genes["gene_symbol"], genes["probe_id"], strict=True)
        ]
    columns = selection.store.probe_columns(["probe_id", "gene_symbol", "reannotated_gene_symbol"])
    rows = slice(None) if selection.rows is None else selection.rows
    probes, published, new = (columns[name][rows] for name in columns)
    detected = 100 * selection.read("detected").mean(axis=1)
    return ["gene", "probe", "det. %"], [
        (str(new[i] or published[i]), str(probes[i]), f"{detected[i]:.0f}") for i in range(len(probes))
    ]


def _show_structures(selection: Selection, values: np.ndarray[Any, Any], top: int) -> None:
    """The structures in which the mean over all the probes is highest, left and right as one."""
    names = ("structure_acronym", "structure_name")
    acronym, name = (selection.store.sample_columns(names)[n][selection.columns] for n in names)
    unique, first, of = np.unique(acronym, return_index=True, return_inverse=True)
    counts = np.bincount(of)
    mean = np.bincount(of, weights=values.mean(axis=0)) / counts
    order = np.argsort(-mean, kind="stable")[:top]
    rows = [
        (str(unique[i]), short(sideless(str(name[first[i]])), 48), int(counts[i]), f"{mean[i]:.2f}")
        for i in order
    ]
    print_table(["structure", "name", "samples", "mean"], rows, numbers=["samples", "mean"])
