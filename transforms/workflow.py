"""The steps of the science in order: samples, probes, genes, regions.

Everything here builds lazy arrays, except where a later step's shape depends on an earlier
step's numbers: which probes are detected, and which of them stands for a gene. Those are computed
by `select_genes`, block by block.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from transforms.aggregate import aggregate_donor, combine_donors, count_samples, drop_unusable_genes
from transforms.assign import assign
from transforms.atlas_set import AnyAtlas, AtlasSet, atlas_of, place_in_native_space
from transforms.errors import ChoiceError
from transforms.missing import MISSING, Filling, Sites
from transforms.normalize import BATCH, donor_effects, donor_means, normalize, normalize_within
from transforms.pipeline import Pipeline
from transforms.probes import (
    ProbeSelection,
    annotate_probes,
    detected_fraction,
    filter_probes,
    gene_expression,
)
from transforms.samples import prepare_samples, similar_samples
from transforms.select import SELECTIONS, select_probes

SAMPLE_BLOCK_BYTES = 32 << 20
GENE_BLOCK = 2048

Values = Callable[[str], xr.DataArray]
"""Donor -> `sample_expression` of that donor, lazy or kept from an earlier atlas."""


@dataclass(frozen=True, eq=False)
class Source:
    """What a store gives to the transforms; see ``transforms/__init__.py`` for the tables' columns.

    ``rnaseq`` is called where probes are chosen by their agreement with RNA-seq: donor -> table of mean TPM,
    gene_symbol x structure_id.
    """

    microarray: xr.Dataset
    probes: pd.DataFrame
    samples: pd.DataFrame
    ontology: pd.DataFrame
    rnaseq: Callable[[], Mapping[str, pd.DataFrame]] | None = None

    def in_native_space(self, atlas: AtlasSet, donors: Iterable[str]) -> "Source":
        """The same with samples where they lie in their donors' MRI.

        Raises
        ------
        AtlasError
            If one of the donors has no atlas.
        """
        for donor in donors:
            atlas.of(donor)
        return replace(self, samples=place_in_native_space(self.samples, atlas))


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
    rnaseq = source.rnaseq if SELECTIONS[pipeline.probe_selection].needs_rnaseq else None
    selection = select_probes(
        source.microarray["expression"],
        probes,
        samples,
        probe_selection=pipeline.probe_selection,
        donor_probes=pipeline.donor_probes,
        rnaseq=rnaseq() if rnaseq else None,
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
        (gene, sample) float64, lazy; samples are the donor's prepared samples in order. As they are with
        ``sample_norm="batch"``, which needs all donors at once.
    """
    columns = genes.samples.loc[genes.samples["donor"] == donor, "column"].to_numpy()
    values = gene_expression(source.microarray["expression"], genes.selection, donor, columns)
    if pipeline.sample_norm in (None, BATCH):
        return values
    samples_at_once = max(1, SAMPLE_BLOCK_BYTES // (8 * max(1, values.sizes["gene"])))
    blocks = values.chunk({"gene": -1, "sample": samples_at_once})
    return blocks.copy(data=blocks.data.map_blocks(_normalize_samples, pipeline.sample_norm, dtype=float))


def _normalize_samples(block: NDArray[np.float64], method: str) -> NDArray[np.float64]:
    return normalize(np.ascontiguousarray(block.T), method).T


def label_samples(genes: Genes, atlas: AnyAtlas, pipeline: Pipeline) -> dict[str, NDArray[np.int64]]:
    """The region of every prepared sample, by donor; 0 for none."""
    return {
        donor: assign(table, atlas_of(atlas, donor), tolerance=pipeline.tolerance, matching=pipeline.matching)
        for donor, table in genes.samples.groupby("donor", sort=False)
    }


@dataclass(frozen=True, eq=False)
class Part:
    """One donor's samples on their way into regions.

    Attributes
    ----------
    donor : str
    left : (left,) int array
        Positions, among the donor's prepared samples, of those that are normalised together.
    samples : pandas.DataFrame
        The samples left.
    labels : (left,) int array
        Their regions, 0 for none.
    """

    donor: str
    left: NDArray[np.intp]
    samples: pd.DataFrame
    labels: NDArray[np.int64]


def part_of(donor: str, samples: pd.DataFrame, labels: NDArray[np.int64], *, norm_matched: bool) -> Part:
    """What is left of one donor's prepared samples: those in a region, or all of them."""
    left = np.flatnonzero(labels) if norm_matched else np.arange(len(labels))
    return Part(donor, left, samples.iloc[left], labels[left])


def normalize_part(
    values: xr.DataArray, part: Part, pipeline: Pipeline, effect: NDArray[np.float64] | None = None
) -> xr.DataArray:
    """Normalise each gene over the samples left of one donor.

    Parameters
    ----------
    values : xarray.DataArray
        (gene, sample) of the donor's prepared samples, as `sample_expression` gives it.
    part : Part
    pipeline : Pipeline
    effect : (gene,) float64 array, optional
        What ``batch`` takes off, see `batch_effects`.

    Returns
    -------
    xarray.DataArray
        (gene, left), lazy.
    """
    values = _of_part(values, part)
    if effect is not None:
        values = values - xr.DataArray(effect, dims="gene")
    if pipeline.gene_norm in (None, BATCH) or not len(part.left):
        return values
    groups = part.samples["structure"].to_numpy(object) if pipeline.norm_structures else None
    return values.copy(data=values.data.map_blocks(_normalize_genes, pipeline.gene_norm, groups, dtype=float))


def _of_part(values: xr.DataArray, part: Part) -> xr.DataArray:
    return values.isel(sample=part.left).chunk({"gene": GENE_BLOCK, "sample": -1})


def _normalize_genes(
    block: NDArray[np.float64], method: str, groups: NDArray[np.object_] | None
) -> NDArray[np.float64]:
    return normalize_within(block, method, groups)


def batch_effects(values: Values, parts: list[Part], pipeline: Pipeline) -> dict[str, NDArray[np.float64]]:
    """What ``batch`` takes off each gene of each donor, (gene,); nothing if it is not asked for.

    A linear model of the donors over all their samples comes down to the donors' means, so that no two
    donors have to be in memory at once.

    Raises
    ------
    ChoiceError
        If fewer than two donors have samples left.
    """
    if BATCH not in (pipeline.sample_norm, pipeline.gene_norm):
        return {}
    means = {
        part.donor: _of_part(values(part.donor), part)
        .data.map_blocks(donor_means, drop_axis=1, dtype=float)
        .compute()
        for part in parts
        if len(part.left)
    }
    return donor_effects(means)


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
    part = part_of("", samples, labels, norm_matched=pipeline.norm_matched)
    matched = np.flatnonzero(part.labels)
    return normalize_part(values, part, pipeline).isel(sample=matched), part.labels[matched]


def region_tables(
    genes: Genes,
    values: Values,
    atlas: AnyAtlas,
    pipeline: Pipeline,
) -> RegionTables:
    """Average the samples of each region.

    Parameters
    ----------
    genes : Genes
        For an `AtlasSet`, those of the source in native space.
    values : callable
        Donor -> `sample_expression` of that donor, lazy or kept from an earlier atlas.
    atlas : Atlas or AtlasSet
    pipeline : Pipeline

    Returns
    -------
    RegionTables

    Raises
    ------
    ChoiceError
        If no sample falls into any region.
    AtlasError
        If a donor has no atlas.
    """
    labels = label_samples(genes, atlas, pipeline)
    if not any(found.any() for found in labels.values()):
        raise ChoiceError(
            f"No sample falls into a region of {atlas.name}: is it in {atlas.space} space? "
            f"tolerance is {pipeline.tolerance:g}."
        )
    regions = atlas.regions.index.to_numpy()
    parts = [
        part_of(donor, samples, labels[donor], norm_matched=pipeline.norm_matched)
        for donor, samples in genes.samples.groupby("donor", sort=False)
    ]
    sites = {part.donor: Sites(part.samples, part.labels, atlas_of(atlas, part.donor)) for part in parts}
    fillings = MISSING[pipeline.missing].fill(sites)
    by_donor = AGGREGATIONS[pipeline.region_agg](values, parts, fillings, regions, pipeline)
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
    values: Values,
    parts: list[Part],
    fillings: Mapping[str, Filling],
    regions: NDArray[np.int64],
    pipeline: Pipeline,
) -> dict[str, NDArray[np.float64]]:
    """Donor -> (gene, region); one donor is in memory at a time."""
    tables, gifts = {}, {}
    effects = batch_effects(values, parts, pipeline)
    for part in parts:
        normalized = normalize_part(values(part.donor), part, pipeline, effects.get(part.donor)).data
        filling = fillings[part.donor]
        both = _aggregate(normalized, part.labels, regions, pipeline, filling).compute()
        tables[part.donor], gifts[part.donor] = both[:, : len(regions)], both[:, len(regions) :]
    if MISSING[pipeline.missing].over_donors:
        gifts = dict.fromkeys(gifts, np.sum(list(gifts.values()), axis=0))
    for donor, table in tables.items():
        filled = fillings[donor].regions
        column = np.searchsorted(regions, filled)
        table[:, column] = aggregate_donor(gifts[donor], filled, filled, pipeline.agg_metric)
    return tables


def _aggregate_samples(
    values: Values,
    parts: list[Part],
    fillings: Mapping[str, Filling],
    regions: NDArray[np.int64],
    pipeline: Pipeline,
) -> dict[str, NDArray[np.float64]]:
    """All donors' samples at once, under the name ""; what a donor gives to a region is one sample more."""
    effects = batch_effects(values, parts, pipeline)
    normalized = [
        normalize_part(values(part.donor), part, pipeline, effects.get(part.donor)).data for part in parts
    ]
    given = [fillings[part.donor] for part in parts]
    gifts = [_given(filling, data) for filling, data in zip(given, normalized, strict=True)]
    if MISSING[pipeline.missing].over_donors:
        gifts = [reduce(da.add, gifts)] * len(gifts)
    joined = da.concatenate([*normalized, *gifts], axis=1).rechunk({1: -1})
    labels = np.concatenate([*(part.labels for part in parts), *(filling.regions for filling in given)])
    return {"": _aggregate(joined, labels, regions, pipeline).compute()}


AGGREGATIONS = {"donors": _aggregate_donors, "samples": _aggregate_samples}


def _aggregate(
    values: da.Array,
    labels: NDArray[np.int64],
    regions: NDArray[np.int64],
    pipeline: Pipeline,
    filling: Filling | None = None,
) -> da.Array:
    """(gene, sample) -> (gene, region), and what the samples give to regions without any; lazily."""
    n_columns = len(regions) + (len(filling.regions) if filling else 0)
    means: da.Array = da.map_blocks(
        _aggregate_block,
        values,
        labels,
        regions,
        pipeline.agg_metric,
        filling,
        chunks=(values.chunks[0], (n_columns,)),
        dtype=float,
    )
    return means


def _aggregate_block(
    block: NDArray[np.float64],
    labels: NDArray[np.int64],
    regions: NDArray[np.int64],
    metric: str | Callable[..., Any],
    filling: Filling | None,
) -> NDArray[np.float64]:
    table = aggregate_donor(block, labels, regions, metric)
    return np.hstack([table, filling.apply(block)]) if filling and len(filling.regions) else table


def _given(filling: Filling, values: da.Array) -> da.Array:
    """What a donor's samples give to regions without any: (gene, filled), lazily."""
    chunks = (values.chunks[0], (len(filling.regions),))
    given: da.Array = da.map_blocks(filling.apply, values, chunks=chunks, dtype=float)
    return given
