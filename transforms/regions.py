"""From samples to region x gene tables: the work of one atlas, a block of genes at a time.

A block holds some genes of all donors' samples; normalising them, averaging their regions and combining the
donors needs no other block. So blocks run side by side, in memory that does not grow with the genes, and
several sets of choices that differ only in how samples become regions share the normalised block.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from dask.delayed import Delayed
from numpy.typing import NDArray

from transforms.aggregate import (
    aggregate_donor,
    check_metric,
    combine_donors,
    count_samples,
    drop_unusable_genes,
    region_places,
)
from transforms.atlas_set import AnyAtlas, atlas_of
from transforms.errors import ChoiceError
from transforms.missing import MISSING, Filling, Sites
from transforms.parts import GeneNormalization, Part, label_samples, normalized_blocks, parts_of
from transforms.pipeline import Pipeline
from transforms.region_sets import REGION_SETS
from transforms.scaled import Scaled, SideBySide, as_array
from transforms.stable import stable_genes
from transforms.tasks import task
from transforms.values import Values
from transforms.workflow import Genes

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Labels = dict[str, Integers]
Normalized = dict[str, Floats | Scaled]
"""Donor -> (gene, left) normalised values of some genes."""
Unfilled = dict[tuple[str | Callable[..., Any], bool, bool], dict[str, Floats]]
"""(metric, jointly, whole genes) -> donor, or "" for all -> its averages, empty regions left empty."""


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
        Region x gene of each donor, no gene left out; empty unless it is asked for, and regions are averaged
        by donor.
    stability : pandas.DataFrame or None
        With ``percent_ds``: gene_symbol, stability (differential stability over the regions that all donors
        have, -1 to 1) and stable (bool, among the most stable) of the genes of `expression`.
    """

    expression: pd.DataFrame
    counts: pd.DataFrame
    genes: pd.DataFrame
    donor_expression: dict[str, pd.DataFrame]
    stability: pd.DataFrame | None = None


class Averages(NamedTuple):
    """Regions of some genes.

    Attributes
    ----------
    combined : (gene, region) float64 array
        Over all donors.
    donors : dict of str to (gene, region) float64 array
        Each donor's own, where they are kept.
    """

    combined: Floats
    donors: dict[str, Floats]


@dataclass(frozen=True, eq=False)
class Aggregation:
    """How normalised samples become regions.

    Attributes
    ----------
    regions : (region,) int array
    labels : dict of str to (left,) int array
        Donor -> region of each of its samples left, 0 for none.
    fillings : dict of str to Filling
        Donor -> what it gives to regions without samples.
    over_donors : bool
        Whether the donors' gifts add up to one for all.
    metric : str or callable
    jointly : bool
        Average all samples at once, instead of donors first.
    whole_genes : bool
        A gene with an undefined value in a donor's sample is undefined in all of them.
    keeps_donors : bool
    """

    regions: Integers
    labels: Labels
    fillings: Mapping[str, Filling]
    over_donors: bool
    metric: str | Callable[..., Any]
    jointly: bool
    whole_genes: bool
    keeps_donors: bool

    @classmethod
    def of(
        cls, pipeline: Pipeline, parts: list[Part], atlas: AnyAtlas, regions: Integers, *, keeps_donors: bool
    ) -> "Aggregation":
        """What a pipeline says, for the parts of its donors."""
        sites = {part.donor: Sites(part.samples, part.labels, atlas_of(atlas, part.donor)) for part in parts}
        method = MISSING[pipeline.missing]
        return cls(
            regions=regions,
            labels={part.donor: part.labels for part in parts},
            fillings=method.fill(sites),
            over_donors=method.over_donors,
            metric=pipeline.agg_metric,
            jointly=pipeline.region_agg == "samples",
            whole_genes=pipeline.drop_genes == "samples",
            keeps_donors=keeps_donors,
        )

    def __call__(self, values: Normalized, unfilled: "Unfilled | None" = None) -> Averages:
        """Donor -> (gene, left) normalised values of some genes, to their regions.

        Averages of the same values that need no filling are taken from `unfilled`, and left there.
        """
        unfilled = {} if unfilled is None else unfilled
        gifts = {donor: self.fillings[donor].apply(own) for donor, own in values.items()}
        if self.over_donors:
            gifts = dict.fromkeys(gifts, np.sum(list(gifts.values()), axis=0))
        key = (self.metric, self.jointly, self.whole_genes)
        if key not in unfilled:
            unfilled[key] = self._jointly(values) if self.jointly else self._by_donor(values)
        fill = self._filled_jointly if self.jointly else self._filled_by_donor
        tables = fill(unfilled[key], values, gifts) if self._fills else unfilled[key]
        combined = combine_donors(list(tables.values()), self.metric)
        return Averages(combined, tables if self.keeps_donors else {})

    @cached_property
    def columns(self) -> Mapping[str, NDArray[np.intp]]:
        """Donor -> the place of each sample's region among all, -1 for none."""
        return {donor: region_places(labels, self.regions) for donor, labels in self.labels.items()}

    @property
    def _fills(self) -> bool:
        return any(len(filling.regions) for filling in self.fillings.values())

    def _by_donor(self, values: Normalized) -> dict[str, Floats]:
        return {donor: self._average(own, self.columns[donor]) for donor, own in values.items()}

    def _filled_by_donor(
        self, unfilled: dict[str, Floats], _values: Normalized, gifts: dict[str, Floats]
    ) -> dict[str, Floats]:
        tables = {}
        for donor, plain in unfilled.items():
            filled = self.fillings[donor].regions
            tables[donor] = plain.copy()
            places = np.searchsorted(self.regions, filled)
            tables[donor][:, places] = aggregate_donor(gifts[donor], filled, filled, self.metric)
        return tables

    def _jointly(self, values: Normalized) -> dict[str, Floats]:
        """All donors' samples at once, under the name ""."""
        columns = np.concatenate([self.columns[donor] for donor in values])
        return {"": self._average(SideBySide(list(values.values())), columns)}

    def _filled_jointly(
        self, unfilled: dict[str, Floats], values: Normalized, gifts: dict[str, Floats]
    ) -> dict[str, Floats]:
        """A gift to a region is one sample more; only the regions that have one are averaged again."""
        given = [filling.regions for filling in self.fillings.values()]
        filled = np.unique(np.concatenate(given))
        inside = {donor: np.flatnonzero(np.isin(self.labels[donor], filled)) for donor in values}
        samples = [own.take(inside[donor], axis=1) for donor, own in values.items()]
        labels = [self.labels[donor][inside[donor]] for donor in values]
        table = unfilled[""].copy()
        table[:, np.searchsorted(self.regions, filled)] = aggregate_donor(
            np.concatenate([*samples, *gifts.values()], axis=1),
            np.concatenate([*labels, *given]),
            filled,
            self.metric,
        )
        if self.whole_genes:
            table[np.logical_or.reduce([np.isnan(as_array(own)).any(axis=1) for own in values.values()])] = (
                np.nan
            )
        return {"": table}

    def _average(self, values: Floats | Scaled | SideBySide, columns: NDArray[np.intp]) -> Floats:
        if self.whole_genes:
            values = as_array(values)
            values = np.where(np.isnan(values).any(axis=1, keepdims=True), np.nan, values)
        return check_metric(self.metric).over_samples(values, columns, len(self.regions))


def region_tables(
    genes: Genes, values: Values, atlas: AnyAtlas, pipeline: Pipeline, *, donors: bool = True
) -> RegionTables:
    """Average the samples of each region.

    Parameters
    ----------
    genes : Genes
        For an `AtlasSet`, those of the source in native space.
    values : Values
    atlas : Atlas or AtlasSet
    pipeline : Pipeline
    donors : bool
        Also keep each donor's own table.

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
    labels = label_samples(genes.samples, atlas, pipeline)
    made: list[RegionTables | ChoiceError] = lazy_tables(
        genes, values, atlas, [pipeline], labels, donors=donors
    ).compute()
    if isinstance(made[0], ChoiceError):
        raise made[0]
    return made[0]


def lazy_tables(
    genes: Genes,
    values: Values,
    atlas: AnyAtlas,
    pipelines: Sequence[Pipeline],
    labels: Labels,
    *,
    donors: bool = False,
) -> Delayed:
    """`region_tables` of pipelines that differ only in how samples become regions, as one task.

    Parameters
    ----------
    genes, values, atlas, donors
        As for `region_tables`.
    pipelines : sequence of Pipeline
        Alike but for missing, region_agg, agg_metric, drop_genes and percent_ds.
    labels : dict of str to (sample,) int array
        What `transforms.parts.label_samples` gives for each of them.

    Returns
    -------
    dask.delayed.Delayed
        Of a list: for each pipeline its `RegionTables`, or the `ChoiceError` that tells why there are none.

    Raises
    ------
    ChoiceError
        As `region_tables`, where it needs no values to know.
    """
    first = pipelines[0]
    _refuse_nothing(labels, atlas, first)
    regions = REGION_SETS[first.normalise_what].regions(atlas.regions, atlas=atlas.name)
    parts = parts_of(genes.samples, labels, first)
    aggregations = _aggregations(pipelines, parts, atlas, regions, donors=donors)
    work = partial(_block_averages, aggregations=aggregations)
    blocks = [
        task(work, block) for block in normalized_blocks(values, parts, GeneNormalization.of(first, parts))
    ]
    counts = pd.DataFrame(
        {donor: count_samples(own, regions) for donor, own in labels.items()},
        index=pd.Index(regions, name="label"),
    )
    finish = partial(_finished, pipelines=pipelines, counts=counts, genes=genes.selection.genes)
    return task(finish, blocks)


def _aggregations(
    pipelines: Sequence[Pipeline], parts: list[Part], atlas: AnyAtlas, regions: Integers, *, donors: bool
) -> list[Aggregation]:
    """One a pipeline, and where one measures stability the plain means of donors after them."""
    wanted = [
        Aggregation.of(
            pipeline, parts, atlas, regions, keeps_donors=donors or pipeline.drop_genes == "samples"
        )
        for pipeline in pipelines
    ]
    if all(pipeline.percent_ds is None for pipeline in pipelines):
        return wanted
    # With nothing of the first but what all of them have: which of them is the first is chance.
    plain = replace(
        pipelines[0],
        agg_metric="mean",
        missing=None,
        region_agg="donors",
        drop_genes="regions",
        percent_ds=None,
    )
    return [*wanted, Aggregation.of(plain, parts, atlas, regions, keeps_donors=True)]


def _block_averages(values: Normalized, aggregations: list[Aggregation]) -> list[Averages]:
    unfilled: Unfilled = {}
    return [aggregation(values, unfilled) for aggregation in aggregations]


def _finished(
    blocks: list[list[Averages]], pipelines: Sequence[Pipeline], counts: pd.DataFrame, genes: pd.DataFrame
) -> list[RegionTables | ChoiceError]:
    found = [_joined(parts) for parts in zip(*blocks, strict=True)]
    return [
        _tables(pipeline, averages, found[-1].donors, counts, genes)
        for pipeline, averages in zip(pipelines, found, strict=False)
    ]


def _refuse_nothing(labels: Labels, atlas: AnyAtlas, pipeline: Pipeline) -> None:
    if not any(found.any() for found in labels.values()):
        raise ChoiceError(
            f"No sample falls into a region of {atlas.name}: is it in {atlas.space} space? "
            f"tolerance is {pipeline.tolerance:g}."
        )


def _joined(blocks: Sequence[Averages]) -> Averages:
    donors = {donor: np.concatenate([block.donors[donor] for block in blocks]) for donor in blocks[0].donors}
    return Averages(np.concatenate([block.combined for block in blocks]), donors)


def _tables(
    pipeline: Pipeline,
    averages: Averages,
    means: dict[str, Floats],
    counts: pd.DataFrame,
    genes: pd.DataFrame,
) -> RegionTables | ChoiceError:
    symbols = pd.Index(genes["gene_symbol"], name="gene_symbol")
    try:
        usable = _usable_genes(averages, pipeline)
        stability = _stability(means, symbols, usable, pipeline.percent_ds)
    except ChoiceError as error:
        return error
    return RegionTables(
        expression=pd.DataFrame(averages.combined[usable].T, index=counts.index, columns=symbols[usable]),
        counts=counts,
        genes=genes,
        donor_expression={
            donor: pd.DataFrame(table.T, index=counts.index, columns=symbols)
            for donor, table in averages.donors.items()
            if donor
        },
        stability=stability,
    )


def _usable_genes(averages: Averages, pipeline: Pipeline) -> NDArray[np.bool_]:
    """Mark the genes of the table; with ``drop_genes="samples"`` every donor has all of their values."""
    tables = [averages.combined] if pipeline.drop_genes == "regions" else list(averages.donors.values())
    usable = np.logical_and.reduce([drop_unusable_genes(table) for table in tables])
    if not usable.any():
        raise ChoiceError(
            "No gene is left: normalisation leaves each undefined somewhere, as it does over one or two "
            "samples; take another normalisation, fewer divisions or a larger tolerance."
        )
    return np.asarray(usable)


def _stability(
    means: Mapping[str, Floats], symbols: pd.Index, usable: NDArray[np.bool_], percent: float | None
) -> pd.DataFrame | None:
    if percent is None:
        return None
    tables = {donor: pd.DataFrame(table[usable].T, columns=symbols[usable]) for donor, table in means.items()}
    kept, stability = stable_genes(tables, percent_ds=percent, method="arnatkeviciute2019")
    stable = stability.index.isin(next(iter(kept.values())).columns)
    return pd.DataFrame({"gene_symbol": stability.index, "stability": stability.array, "stable": stable})
