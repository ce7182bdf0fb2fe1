"""One value a gene: a pipeline's choice of probes, made among the probes of a selection."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from lake.errors import RequestError
from lake.rows import Integers
from lake.selection import Selection, everything, named
from lake.sources import source_of
from lake.store import Lake
from transforms.pipeline import Pipeline
from transforms.probes import ProbeSelection, annotate_probes
from transforms.workflow import Source, select_genes

# Probes that are read at once; of more, Dask reads whole files.
FEW = 1024


def choose_probes(
    selection: Selection, pipeline: Pipeline | None, choices: Mapping[str, Any]
) -> tuple[ProbeSelection, tuple[str, ...]]:
    """The probes that stand for each gene of a selection, and a note of those that have none.

    Parameters
    ----------
    selection : Selection
    pipeline : Pipeline or None
        None: one of `choices`.
    choices : mapping
        Fields of `Pipeline`.

    Raises
    ------
    ChoiceError
        If a choice is wrong, or no gene is left.
    RequestError
        If both a pipeline and choices are given, the selection is one of genes already, or the pipeline
        leaves out a donor of the selection.
    """
    if selection.choice is not None:
        raise RequestError(f"{selection.question} has one value a gene already.")
    if pipeline is not None and choices:
        raise RequestError(f"Give a pipeline or choices, not both: {', '.join(choices)}.")
    chosen = Pipeline.from_choices(choices) if pipeline is None else pipeline
    store = selection.store
    donors = store.resolve_donors(chosen.donors)
    if missing := [donor for donor in selection.donors if donor not in donors]:
        raise RequestError(
            f"The pipeline leaves out donor {', '.join(missing)}, which {selection.question} has: "
            f"choose donors={donors} in both."
        )
    rows = _competing(selection, chosen)
    source = source_of(store)
    found = select_genes(source if rows is None else _only(source, store, rows), chosen, donors).selection
    positions = np.arange(store.manifest.n_probes) if rows is None else rows
    choice = replace(found, rows={donor: positions[at] for donor, at in found.rows.items()})
    if rows is None and selection.rows is not None:
        choice = _restricted(choice, selection.rows)
    return choice, _lost(selection, choice, chosen)


def _competing(selection: Selection, pipeline: Pipeline) -> Integers | None:
    """Probes that a choice is made among; None where it needs all of them."""
    if selection.rows is None or pipeline.sim_threshold is not None:
        return None
    return np.sort(selection.rows)


def _only(source: Source, store: Lake, rows: Integers) -> Source:
    """The source with some probes only."""
    data = source.microarray.isel(probe=rows)
    if len(rows) <= FEW:
        data = _in_memory(data, store, rows)
    return replace(source, microarray=data, probes=source.probes.iloc[rows].reset_index(drop=True))


def _in_memory(data: xr.Dataset, store: Lake, rows: Integers) -> xr.Dataset:
    """The dataset with values read for these probes only, where Dask would read whole files."""
    part = replace(everything(store), rows=rows)
    chunks = (len(rows), tuple(store.sample_counts.values()))
    return data.assign(
        {
            name: (("probe", "sample"), da.from_array(part.read(name), chunks=chunks))
            for name in ("expression", "detected")
        }
    )


def _restricted(choice: ProbeSelection, rows: Integers) -> ProbeSelection:
    """The genes for which one of these probes stands in any donor.

    Raises
    ------
    RequestError
        If there is none.
    """
    sizes = np.diff(choice.starts)
    gene = np.repeat(np.arange(len(sizes)), sizes)
    kept = np.unique(np.concatenate([gene[np.isin(own, rows)] for own in choice.rows.values()]))
    if not len(kept):
        raise RequestError("None of these probes is chosen for its gene: ask for the gene.")
    picked = np.isin(gene, kept)
    return ProbeSelection(
        genes=choice.genes.iloc[kept].reset_index(drop=True),
        rows={donor: own[picked] for donor, own in choice.rows.items()},
        starts=np.concatenate([[0], np.cumsum(sizes[kept])]),
    )


def _lost(selection: Selection, choice: ProbeSelection, pipeline: Pipeline) -> tuple[str, ...]:
    if selection.rows is None:
        return ()
    asked = annotate_probes(selection.probes.reset_index(drop=True), reannotated=pipeline.reannotated)
    lost = sorted(set(asked["gene_symbol"]) - set(choice.genes["gene_symbol"]))
    return (f"No probe of {named(lost)} is left by these choices.",) if lost else ()
