"""``ahba gene``: probes of genes."""

from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from lake.commands.answering import deliver, say, say_origin, short, shown_symbols, wide
from lake.commands.asking import DONORS, PUBLISHED, SELECTED, Asked, asks_store
from lake.commands.printing import print_table, print_text
from lake.selection import Selection, counted
from lake.structures import sideless

Floats = NDArray[np.float64]


@click.command()
@click.argument("genes", nargs=-1, required=True, metavar="GENE..")
@asks_store(DONORS, PUBLISHED, SELECTED)
def gene(asked: Asked) -> None:
    """Probes of genes in all samples: how often detected, how high, where.

    GENE is a symbol, an Entrez id or a probe id. A retired symbol is resolved, and that is said.

    \b
    Examples:
      ahba gene SST --store ahba.zarr
      ahba gene SST PVALB VIP --store ahba.zarr --donors 9861 -o interneurons.csv
      ahba gene SST --store ahba.zarr --selected --probe-selection max_intensity
    """
    pipeline = asked.pipeline()
    found = asked.of_genes(asked.place(None), asked.genes)
    chosen = found if pipeline is None else found.per_gene(pipeline)
    say(chosen.notes)
    deliver(asked, lambda: wide(chosen), lambda: _show_gene(asked, chosen))


def _show_gene(asked: Asked, selection: Selection) -> None:
    values = selection.read()
    headings, labels = _labels(selection, reannotated=asked.reannotated)
    means = [np.round(values[:, places].mean(axis=1), 2) for places, _ in selection.parts.values()]
    rows = [
        (*label, f"{row.mean():.2f}", *(f"{mean[i]:.2f}" for mean in means))
        for i, (label, row) in enumerate(zip(labels, values, strict=True))
    ]
    all_headings = [*headings, "mean", *selection.donors]
    print_table(all_headings, rows, numbers=[name for name in all_headings if name != "gene"])
    samples = counted(values.shape[1], "sample")
    print_text(f"Mean log2 expression over {samples}, and in each donor. Highest in:")
    _show_structures(selection, values, asked.top)
    say_origin(asked.lake)


def _labels(selection: Selection, *, reannotated: bool) -> tuple[list[str], list[tuple[str, ...]]]:
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
    symbols = shown_symbols(published, new, reannotated=reannotated)
    detected = 100 * selection.read("detected").mean(axis=1)
    return ["gene", "probe", "det. %"], [
        (str(symbols[i]), str(probes[i]), f"{detected[i]:.0f}") for i in range(len(probes))
    ]


def _show_structures(selection: Selection, values: NDArray[Any], top: int) -> None:
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
