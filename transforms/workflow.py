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
from transforms.assign import assign, warn_if_misplaced
from transforms.atlas import Atlas
from transforms.atlas_set import AnyAtlas, AtlasSet, atlas_of, place_in_native_space
from transforms.errors import AtlasError, ChoiceError
from transforms.missing import MISSING, Filling, Sites
from transforms.normalize import BATCH, donor_effects, donor_means, normalize, normalize_within
from transforms.pipeline import Pipeline
from transforms.probes import (
    ProbeSelection,
    annotate_probes,
    detected_fraction,
    filter_probes,
    gene_expression,
    probe_variances,
    varying_probes,
)
from transforms.region_sets import REGION_SETS
from transforms.samples import divide_samples, drop_slabs, prepare_samples, similar_samples
from transforms.select import SELECTIONS, ScoreOptions, select_probes
from transforms.stable import stable_genes

SAMPLE_BLOCK_BYTES = 32 << 20
GENE_BLOCK = 2048

Values = Callable[[str], xr.DataArray]
"""Donor -> `sample_expression` of that donor, lazy or kept from an earlier atlas."""


@dataclass(frozen=True, eq=False)
class Source:
    """What a store gives to the transforms; see ``transforms/__init__.py`` for the tables' columns.

    ``rnaseq`` is called where probes are chosen by their agreement with RNA-seq: with ``by="structure"`` it
    gives donor -> table of mean TPM, gene_symbol x structure_id; with ``by="well"`` Entrez id x well_id.
    """

    microarray: xr.Dataset
    probes: pd.DataFrame
    samples: pd.DataFrame
    ontology: pd.DataFrame
    rnaseq: Callable[..., Mapping[str, pd.DataFrame]] | None = None

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
    stability : pandas.DataFrame or None
        With ``percent_ds``: gene_symbol, stability (differential stability over the regions that all donors
        have, -1 to 1) and stable (bool, among the most stable) of the genes of `expression`.
    """

    expression: pd.DataFrame
    counts: pd.DataFrame
    genes: pd.DataFrame
    donor_expression: dict[str, pd.DataFrame]
    stability: pd.DataFrame | None = None


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
    samples = _choose_samples(source, pipeline, donors)
    annotated = annotate_probes(
        source.probes,
        reannotated=pipeline.reannotated,
        agilent_only=pipeline.agilent_only,
        probe_order=pipeline.probe_order,
    )
    if pipeline.sim_threshold is not None:
        expression = source.microarray["expression"]
        samples = _drop_dissimilar(expression, samples, annotated, pipeline.sim_threshold)
    probes = _filter(source.microarray, annotated, samples, pipeline)
    rnaseq_by = SELECTIONS[pipeline.probe_selection].rnaseq_by
    selection = select_probes(
        source.microarray["expression"],
        probes,
        samples,
        probe_selection=pipeline.probe_selection,
        donor_probes=pipeline.donor_probes,
        rnaseq=source.rnaseq(by=rnaseq_by) if source.rnaseq and rnaseq_by else None,
        detected=source.microarray["detected"],
        options=ScoreOptions(pipeline.rnaseq_threshold, pipeline.rnaseq_significance, pipeline.seed),
    )
    return Genes(samples, selection)


def _choose_samples(source: Source, pipeline: Pipeline, donors: list[str]) -> pd.DataFrame:
    samples = prepare_samples(
        source.samples,
        source.ontology,
        donors=donors,
        corrected_mni=pipeline.corrected_mni,
        lr_mirror=pipeline.lr_mirror,
        check_sides=pipeline.check_sides,
    )
    if pipeline.exclude_slabs:
        samples = drop_slabs(samples, pipeline.exclude_slabs)
    if pipeline.divide_samples is None:
        return samples
    return divide_samples(
        samples,
        source.ontology,
        division=pipeline.divide_samples,
        exclude_hippocampus=pipeline.exclude_hippocampus,
    )


def _filter(
    microarray: xr.Dataset, annotated: pd.DataFrame, samples: pd.DataFrame, pipeline: Pipeline
) -> pd.DataFrame:
    """The probes that are above the background and vary."""
    rows = annotated["row"].to_numpy()
    fraction = detected_fraction(microarray["detected"], samples, rows).compute()
    varying = None
    if pipeline.variance_filter is not None:
        variances = probe_variances(microarray["expression"], samples, rows, scale=pipeline.variance_scale)
        varying = varying_probes(variances, pipeline.variance_filter)
    return filter_probes(annotated, fraction, pipeline.ibf_threshold, varying)


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
    normalized = da.map_blocks(
        _normalize_samples, blocks.data, pipeline.sample_norm, pipeline.quantiles, dtype=float
    )
    return blocks.copy(data=normalized)


def _normalize_samples(block: NDArray[np.float64], method: str, quantiles: str) -> NDArray[np.float64]:
    return normalize(np.ascontiguousarray(block.T), method, quantiles=quantiles).T


def label_samples(genes: Genes, atlas: AnyAtlas, pipeline: Pipeline) -> dict[str, NDArray[np.int64]]:
    """The region of every prepared sample, by donor; 0 for none.

    Donors that ``normalise_what`` leaves out are not in it, and its samples are in its regions only.

    Raises
    ------
    AtlasError
        If a donor has no atlas, or ``divide_samples`` or ``normalise_what`` need to know more of the regions.
    """
    wanted = REGION_SETS[pipeline.normalise_what]
    regions, donors = wanted.regions(atlas.regions, atlas=atlas.name), wanted.donors(genes.samples)
    labels = {}
    for donor, samples in genes.samples.groupby("donor", sort=False):
        if donor in donors:
            own = atlas_of(atlas, donor)
            found = assign(samples, own, tolerance=pipeline.tolerance, matching=pipeline.matching)
            kept = np.isin(found, regions)
            if pipeline.divide_samples is not None:
                kept &= _is_divided(samples, own)
            labels[donor] = np.where(kept, found, 0)
    return labels


def _is_divided(samples: pd.DataFrame, atlas: Atlas) -> NDArray[np.bool_]:
    """Mark the samples that have a side and a part, with which the regions can be compared."""
    if not atlas.has_info:
        raise AtlasError(
            f"divide_samples matches the samples of a side and part with its regions, and hemisphere and "
            f"structure of those of atlas {atlas.name!r} are not known, or not used: give atlas_info."
        )
    return np.asarray((samples["hemisphere"] != "") & (samples["structure"] != ""))


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
    apart = pipeline.norm_structures or REGION_SETS[pipeline.normalise_what].separate
    groups = part.samples["structure"].to_numpy(object) if apart else None
    function = _normalize_genes if pipeline.do_normalise else _blank_unusable_genes
    normalized = da.map_blocks(
        function, values.data, pipeline.gene_norm, groups, pipeline.quantiles, dtype=float
    )
    return values.copy(data=normalized)


def _of_part(values: xr.DataArray, part: Part) -> xr.DataArray:
    return values.isel(sample=part.left).chunk({"gene": GENE_BLOCK, "sample": -1})


def _normalize_genes(
    block: NDArray[np.float64], method: str, groups: NDArray[np.object_] | None, quantiles: str
) -> NDArray[np.float64]:
    return normalize_within(block, method, groups, quantiles=quantiles)


def _blank_unusable_genes(
    block: NDArray[np.float64], method: str, groups: NDArray[np.object_] | None, quantiles: str
) -> NDArray[np.float64]:
    """The values as they are, but NaN for genes that normalising would leave undefined anywhere."""
    undefined = np.isnan(_normalize_genes(block, method, groups, quantiles)).any(axis=1, keepdims=True)
    return np.where(undefined, np.nan, block)


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
    if isinstance(atlas, Atlas):
        warn_if_misplaced(sum(map(np.count_nonzero, labels.values())), sum(map(len, labels.values())), atlas)
    regions = REGION_SETS[pipeline.normalise_what].regions(atlas.regions, atlas=atlas.name)
    parts = [
        part_of(donor, samples, labels[donor], norm_matched=pipeline.norm_matched)
        for donor, samples in genes.samples.groupby("donor", sort=False)
        if donor in labels
    ]
    sites = {part.donor: Sites(part.samples, part.labels, atlas_of(atlas, part.donor)) for part in parts}
    fillings = MISSING[pipeline.missing].fill(sites)
    by_donor = AGGREGATIONS[pipeline.region_agg](values, parts, fillings, regions, pipeline)
    combined = combine_donors(np.stack(list(by_donor.values())), pipeline.agg_metric)
    symbols = pd.Index(genes.selection.genes["gene_symbol"], name="gene_symbol")
    usable = _usable_genes(combined, by_donor, pipeline)
    counts = {donor: count_samples(found, regions) for donor, found in labels.items()}
    index = pd.Index(regions, name="label")
    stability = None
    if pipeline.percent_ds is not None:
        plain = replace(pipeline, agg_metric="mean", missing=None)
        means = _aggregate_donors(values, parts, MISSING[None].fill(sites), regions, plain)
        stability = _stability(means, symbols, usable, pipeline.percent_ds)
    return RegionTables(
        expression=pd.DataFrame(combined[usable].T, index=index, columns=symbols[usable]),
        counts=pd.DataFrame(counts, index=index),
        genes=genes.selection.genes,
        donor_expression={
            donor: pd.DataFrame(table.T, index=index, columns=symbols)
            for donor, table in by_donor.items()
            if donor
        },
        stability=stability,
    )


def _usable_genes(
    combined: NDArray[np.float64], by_donor: Mapping[str, NDArray[np.float64]], pipeline: Pipeline
) -> NDArray[np.bool_]:
    """Mark the genes of the table; with ``drop_genes="samples"`` every donor has all of their values."""
    tables = [combined] if pipeline.drop_genes == "regions" else list(by_donor.values())
    usable = np.logical_and.reduce([drop_unusable_genes(table) for table in tables])
    if not usable.any():
        raise ChoiceError(
            "No gene is left: normalisation leaves each undefined somewhere, as it does over one or two "
            "samples; take another normalisation, fewer divisions or a larger tolerance."
        )
    return np.asarray(usable)


def _stability(
    means: Mapping[str, NDArray[np.float64]], symbols: pd.Index, usable: NDArray[np.bool_], percent: float
) -> pd.DataFrame:
    tables = {donor: pd.DataFrame(table[usable].T, columns=symbols[usable]) for donor, table in means.items()}
    kept, stability = stable_genes(tables, percent_ds=percent, method="arnatkeviciute2019")
    stable = stability.index.isin(next(iter(kept.values())).columns)
    return pd.DataFrame({"gene_symbol": stability.index, "stability": stability.array, "stable": stable})


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
        whole_genes=pipeline.drop_genes == "samples",
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
    *,
    whole_genes: bool,
) -> NDArray[np.float64]:
    if whole_genes:
        block = np.where(np.isnan(block).any(axis=1, keepdims=True), np.nan, block)
    table = aggregate_donor(block, labels, regions, metric)
    return np.hstack([table, filling.apply(block)]) if filling and len(filling.regions) else table


def _given(filling: Filling, values: da.Array) -> da.Array:
    """What a donor's samples give to regions without any: (gene, filled), lazily."""
    chunks = (values.chunks[0], (len(filling.regions),))
    given: da.Array = da.map_blocks(filling.apply, values, chunks=chunks, dtype=float)
    return given
