"""The steps of the science in order: samples, probes, genes, regions.

Everything here builds lazy arrays, except where a later step's shape depends on an earlier
step's numbers: which probes are detected, and which of them stands for a gene. Those are computed
by `select_genes`, block by block.
"""

from collections.abc import Callable
from dataclasses import dataclass

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from transforms.aggregate import aggregate_donor, combine_donors, count_samples, drop_unusable_genes
from transforms.assign import assign
from transforms.atlas import Atlas
from transforms.errors import ChoiceError
from transforms.normalize import normalize, normalize_within
from transforms.pipeline import Pipeline
from transforms.probes import (
    ProbeSelection,
    annotate_probes,
    detected_fraction,
    filter_probes,
    gene_expression,
)
from transforms.samples import prepare_samples, similar_samples
from transforms.select import select_probes

SAMPLE_BLOCK_BYTES = 32 << 20
GENE_BLOCK = 2048


@dataclass(frozen=True, eq=False)
class Source:
    """What a store gives to the transforms; see ``transforms/__init__.py`` for the tables' columns."""

    microarray: xr.Dataset
    probes: pd.DataFrame
    samples: pd.DataFrame
    ontology: pd.DataFrame


@dataclass(frozen=True, eq=False)
class Genes:
    """The part of a pipeline that no atlas changes.

    Attributes
    ----------
    samples : pandas.DataFrame
        Prepared samples of all chosen donors.
    selection : ProbeSelection
        The probes that stand for each gene.
    """

    samples: pd.DataFrame
    selection: ProbeSelection

    @property
    def donors(self) -> list[str]:
        """Donors with samples, in order."""
        return list(dict.fromkeys(self.samples["donor"]))


@dataclass(frozen=True, eq=False)
class RegionTables:
    """What one pipeline gives for one atlas.

    Attributes
    ----------
    expression : pandas.DataFrame
        Region x gene (gene symbols, sorted); NaN rows for regions without samples.
    counts : pandas.DataFrame
        Region x donor: samples in each region.
    genes : pandas.DataFrame
        One row a gene: gene_symbol, entrez_id, probe_id, score, n_probes. All genes of the
        selection, also those that `expression` leaves out for want of numbers.
    donor_expression : dict of str to pandas.DataFrame
        Region x gene of each donor, no gene left out; empty unless regions are averaged by donor.
    """

    expression: pd.DataFrame
    counts: pd.DataFrame
    genes: pd.DataFrame
    donor_expression: dict[str, pd.DataFrame]


def select_genes(source: Source, pipeline: Pipeline, donors: list[str]) -> Genes:
    """Choose samples, probes and genes: all that comes before an atlas.

    Parameters
    ----------
    source : Source
    pipeline : Pipeline
    donors : list of str
        Donor numbers, in ascending order.

    Returns
    -------
    Genes

    Raises
    ------
    ChoiceError
        If the choices leave nothing, or ask for coordinates that samples lack.
    """
    samples = prepare_samples(
        source.samples,
        source.ontology,
        donors=donors,
        corrected_mni=pipeline.corrected_mni,
        lr_mirror=pipeline.lr_mirror,
    )
    annotated = annotate_probes(source.probes, reannotated=pipeline.reannotated)
    if pipeline.sim_threshold is not None:
        expression = source.microarray["expression"]
        samples = _drop_dissimilar(expression, samples, annotated, pipeline.sim_threshold)
    fraction = detected_fraction(source.microarray["detected"], samples, annotated["row"].to_numpy())
    probes = filter_probes(annotated, fraction.compute(), pipeline.ibf_threshold)
    selection = select_probes(
        source.microarray["expression"],
        probes,
        samples,
        probe_selection=pipeline.probe_selection,
        donor_probes=pipeline.donor_probes,
    )
    return Genes(samples, selection)


def _drop_dissimilar(
    expression: xr.DataArray, samples: pd.DataFrame, probes: pd.DataFrame, threshold: float
) -> pd.DataFrame:
    rows = np.sort(probes["row"].to_numpy())
    kept = []
    for _, donor in samples.groupby("donor", sort=False):
        values = expression.isel(probe=rows, sample=donor["column"].to_numpy()).to_numpy()
        kept.append(donor[similar_samples(values, threshold)])
    return pd.concat(kept, ignore_index=True)


def sample_expression(source: Source, genes: Genes, pipeline: Pipeline, donor: str) -> xr.DataArray:
    """One donor's genes, each sample normalised over them.

    Returns
    -------
    xarray.DataArray
        (gene, sample) float64, lazy; samples are the donor's prepared samples in order.
    """
    columns = genes.samples.loc[genes.samples["donor"] == donor, "column"].to_numpy()
    values = gene_expression(source.microarray["expression"], genes.selection, donor, columns)
    if pipeline.sample_norm is None:
        return values
    samples_at_once = max(1, SAMPLE_BLOCK_BYTES // (8 * max(1, values.sizes["gene"])))
    blocks = values.chunk({"gene": -1, "sample": samples_at_once})
    return blocks.copy(data=blocks.data.map_blocks(_normalize_samples, pipeline.sample_norm, dtype=float))


def _normalize_samples(block: NDArray[np.float64], method: str) -> NDArray[np.float64]:
    return normalize(np.ascontiguousarray(block.T), method).T


def label_samples(genes: Genes, atlas: Atlas, pipeline: Pipeline) -> dict[str, NDArray[np.int64]]:
    """The region of every prepared sample, by donor; 0 for none."""
    return {
        donor: assign(table, atlas, tolerance=pipeline.tolerance, matching=pipeline.matching)
        for donor, table in genes.samples.groupby("donor", sort=False)
    }


def normalized_samples(
    values: xr.DataArray, samples: pd.DataFrame, labels: NDArray[np.int64], pipeline: Pipeline
) -> tuple[xr.DataArray, NDArray[np.int64]]:
    """One donor's samples that fall into a region, each gene normalised over the donor's samples.

    Parameters
    ----------
    values : xarray.DataArray
        (gene, sample), as `sample_expression` gives it.
    samples : pandas.DataFrame
        The donor's prepared samples.
    labels : numpy.ndarray of int
        (sample,) region ids, 0 for none.
    pipeline : Pipeline

    Returns
    -------
    values : xarray.DataArray
        (gene, sample) of the samples in a region, lazy.
    labels : numpy.ndarray of int
        Their regions.
    """
    matched = labels != 0
    before = np.flatnonzero(matched) if pipeline.norm_matched else np.arange(len(labels))
    values = values.isel(sample=before).chunk({"gene": GENE_BLOCK, "sample": -1})
    if pipeline.gene_norm is not None and len(before):
        groups = samples["structure"].to_numpy(object)[before] if pipeline.norm_structures else None
        data = values.data.map_blocks(_normalize_genes, pipeline.gene_norm, groups, dtype=float)
        values = values.copy(data=data)
    return values.isel(sample=np.flatnonzero(matched[before])), labels[matched]


def _normalize_genes(
    block: NDArray[np.float64], method: str, groups: NDArray[np.object_] | None
) -> NDArray[np.float64]:
    return normalize_within(block, method, groups)


def region_tables(
    genes: Genes,
    values: Callable[[str], xr.DataArray],
    atlas: Atlas,
    pipeline: Pipeline,
) -> RegionTables:
    """Average the samples of each region.

    Parameters
    ----------
    genes : Genes
    values : callable
        Donor -> `sample_expression` of that donor, lazy or kept from an earlier atlas.
    atlas : Atlas
    pipeline : Pipeline

    Returns
    -------
    RegionTables

    Raises
    ------
    ChoiceError
        If no sample falls into any region.
    """
    labels = label_samples(genes, atlas, pipeline)
    if not any(found.any() for found in labels.values()):
        raise ChoiceError(
            f"No sample falls into a region of {atlas.name}: is it in {atlas.space} space? "
            f"tolerance is {pipeline.tolerance:g}."
        )
    regions = atlas.regions.index.to_numpy()
    by_donor = AGGREGATIONS[pipeline.region_agg](genes, values, labels, regions, pipeline)
    combined = combine_donors(np.stack(list(by_donor.values())), pipeline.agg_metric)
    symbols = pd.Index(genes.selection.genes["gene_symbol"], name="gene_symbol")
    usable = drop_unusable_genes(combined)
    counts = {donor: count_samples(labels[donor], regions) for donor in genes.donors}
    index = pd.Index(regions, name="label")
    return RegionTables(
        expression=pd.DataFrame(combined[usable].T, index=index, columns=symbols[usable]),
        counts=pd.DataFrame(counts, index=index),
        genes=genes.selection.genes,
        donor_expression={
            donor: pd.DataFrame(table.T, index=index, columns=symbols)
            for donor, table in by_donor.items()
            if donor
        },
    )


def _aggregate_donors(
    genes: Genes,
    values: Callable[[str], xr.DataArray],
    labels: dict[str, NDArray[np.int64]],
    regions: NDArray[np.int64],
    pipeline: Pipeline,
) -> dict[str, NDArray[np.float64]]:
    """Donor -> (gene, region); one donor is in memory at a time."""
    tables = {}
    for donor in genes.donors:
        normalized, kept = _donor_values(genes, values, labels, pipeline, donor)
        tables[donor] = _aggregate(normalized.data, kept, regions, pipeline).compute()
    return tables


def _aggregate_samples(
    genes: Genes,
    values: Callable[[str], xr.DataArray],
    labels: dict[str, NDArray[np.int64]],
    regions: NDArray[np.int64],
    pipeline: Pipeline,
) -> dict[str, NDArray[np.float64]]:
    """All donors' samples at once, under the name ""."""
    parts = [_donor_values(genes, values, labels, pipeline, donor) for donor in genes.donors]
    joined = da.concatenate([normalized.data for normalized, _ in parts], axis=1).rechunk({1: -1})
    kept = np.concatenate([kept for _, kept in parts])
    return {"": _aggregate(joined, kept, regions, pipeline).compute()}


AGGREGATIONS = {"donors": _aggregate_donors, "samples": _aggregate_samples}


def _donor_values(
    genes: Genes,
    values: Callable[[str], xr.DataArray],
    labels: dict[str, NDArray[np.int64]],
    pipeline: Pipeline,
    donor: str,
) -> tuple[xr.DataArray, NDArray[np.int64]]:
    samples = genes.samples[genes.samples["donor"] == donor]
    return normalized_samples(values(donor), samples, labels[donor], pipeline)


def _aggregate(
    values: da.Array, labels: NDArray[np.int64], regions: NDArray[np.int64], pipeline: Pipeline
) -> da.Array:
    """(gene, sample) -> (gene, region), lazily."""
    means: da.Array = da.map_blocks(
        aggregate_donor,
        values,
        labels,
        regions,
        pipeline.agg_metric,
        chunks=(values.chunks[0], (len(regions),)),
        dtype=float,
    )
    return means
