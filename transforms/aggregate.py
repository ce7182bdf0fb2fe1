"""From samples to regions: one value per gene and region, within a donor and then over donors.

Missing values are left out before a metric is taken, as abagen's pandas groups do: a gene that is NaN
in one sample still has a mean over the others, and a donor without a region does not make it NaN. A
table over all donors' samples at once (``region_agg="samples"``) is `aggregate_donor` of all of them.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from transforms import compiled
from transforms.errors import AtlasError, ChoiceError
from transforms.scaled import Scaled, SideBySide, as_array, of_regions

FloatArray = NDArray[np.float64]
Samples = FloatArray | Scaled | SideBySide
Reduction = Callable[..., Any]

# Genes averaged at once by the mean: their values, sample by sample, stay in a core's cache.
BLOCK_GENES = 256


class Metric(NamedTuple):
    """How samples become a region's value, and how donors' values become one."""

    over_samples: Callable[[Samples, NDArray[np.intp], int], FloatArray]
    """(gene, sample) values, each sample's column in the table (-1 none), number of columns -> table."""
    over_donors: Callable[[Sequence[FloatArray]], FloatArray]
    """One (gene, region) table per donor -> (gene, region)."""


# Means: one sparse product for all regions ----------------------------------------------------------------


def _mean_of_samples(values: Samples, column: NDArray[np.intp], n_columns: int) -> FloatArray:
    table = of_regions(values, *_members(column, n_columns), medians=False)
    return _mean_by_product(as_array(values), column, n_columns) if table is None else table


def _members(column: NDArray[np.intp], n_columns: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Samples column by column, and where each column's begin among them, and the last one's end."""
    order = np.argsort(column, kind="stable")[np.count_nonzero(column < 0) :]
    sizes = np.bincount(column[order], minlength=n_columns)
    return order, np.append(0, np.cumsum(sizes)).astype(np.intp)


def _mean_by_product(values: FloatArray, column: NDArray[np.intp], n_columns: int) -> FloatArray:
    from scipy import sparse

    assigned = np.flatnonzero(column >= 0)
    members = sparse.csr_array(
        (np.ones(len(assigned)), (column[assigned], assigned)), shape=(n_columns, values.shape[1])
    )
    table = np.empty((len(values), n_columns))
    for start in range(0, len(values), BLOCK_GENES):
        block = slice(start, start + BLOCK_GENES)
        table[block] = _block_mean(np.ascontiguousarray(values[block].T), members).T
    return table


def _block_mean(values: FloatArray, members: Any) -> FloatArray:
    """Mean of (sample, gene) values over the samples of each row of ``members``; NaN are left out."""
    sums = members @ values
    counts = np.broadcast_to(members.sum(axis=1)[:, None], sums.shape).copy()
    gaps = np.isnan(sums).any(axis=0)
    if gaps.any():
        present = ~np.isnan(values[:, gaps])
        sums[:, gaps] = members @ np.where(present, values[:, gaps], 0.0)
        counts[:, gaps] = members @ present.astype(np.float64)
    return _divide(sums, counts)


def _mean_of_donors(tables: Sequence[FloatArray]) -> FloatArray:
    if compiled.kernels is None:
        return _mean_of_stack(tables)
    sums, counts = np.zeros(tables[0].shape), np.zeros(tables[0].shape)
    for table in tables:
        compiled.kernels.add_present(np.ascontiguousarray(table, dtype=np.float64), sums, counts)
    return _divide(sums, counts)


def _mean_of_stack(tables: Sequence[FloatArray]) -> FloatArray:
    combined = np.empty(tables[0].shape)
    for start in range(0, len(combined), BLOCK_GENES):
        genes = slice(start, start + BLOCK_GENES)
        values = np.stack([table[genes] for table in tables])
        present = ~np.isnan(values)
        combined[genes] = _divide(np.where(present, values, 0.0).sum(axis=0), present.sum(axis=0))
    return combined


def _divide(sums: FloatArray, counts: FloatArray) -> FloatArray:
    """Means from sums and counts; NaN, without a warning, where nothing was counted."""
    with np.errstate(invalid="ignore"):
        return np.divide(sums, counts, out=sums)


# Medians: one sort for all regions of as many samples -----------------------------------------------------


def _median_of_samples(values: Samples, column: NDArray[np.intp], n_columns: int) -> FloatArray:
    table = of_regions(values, *_members(column, n_columns), medians=True)
    return _median_by_size(values, column, n_columns) if table is None else table


def _median_by_size(values: Samples, column: NDArray[np.intp], n_columns: int) -> FloatArray:
    sizes = np.bincount(column[column >= 0], minlength=n_columns)
    by_size = np.argsort(sizes, kind="stable")[np.count_nonzero(sizes == 0) :]
    taken = values.take(_in_order_of(column, by_size), axis=1)
    table = np.full((len(values), n_columns), np.nan)
    last = 0
    for size in np.unique(sizes[by_size]):
        alike = by_size[sizes[by_size] == size]
        first, last = last, last + size * len(alike)
        groups = taken[:, first:last].reshape(len(values), len(alike), size)
        table[:, alike] = _median_of_present(groups)
    return table


def _in_order_of(column: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[np.intp]:
    """The samples of one of the columns after the other; those of none are left out."""
    order = np.argsort(column, kind="stable")
    starts, ends = (np.searchsorted(column[order], columns, side=side) for side in ("left", "right"))
    members = [order[start:end] for start, end in zip(starts, ends, strict=True)]
    return np.concatenate([*members, order[:0]])


def _median_of_donors(tables: Sequence[FloatArray]) -> FloatArray:
    combined = np.empty(tables[0].shape)
    for start in range(0, len(combined), BLOCK_GENES):
        genes = slice(start, start + BLOCK_GENES)
        combined[genes] = _median_of_present(np.stack([table[genes] for table in tables], axis=-1))
    return combined


def _median_of_present(groups: FloatArray) -> FloatArray:
    """Median over the last axis, written over by its sorted values; NaN are left out."""
    groups.sort(axis=-1)  # NaN come last
    if not np.isnan(groups[..., -1]).any():
        last = groups.shape[-1] - 1
        return _between(groups[..., last // 2], groups[..., (last + 1) // 2])
    last = np.count_nonzero(~np.isnan(groups), axis=-1, keepdims=True) - 1
    low, high = (
        np.take_along_axis(groups, np.maximum(place, 0), -1) for place in (last // 2, (last + 1) // 2)
    )
    return _between(low, high)[..., 0]


def _between(low: FloatArray, high: FloatArray) -> FloatArray:
    """Half way; 0, never -0, for which of the two zeros comes first is not known."""
    return np.asarray((low + high) / 2 + 0.0)


# Any other metric: region by region -----------------------------------------------------------------------


def _leaving_out_nan(reduction: Reduction) -> Metric:
    """Make a metric of a numpy-like function with an ``axis`` keyword, which never sees a NaN."""

    def over_samples(values: Samples, column: NDArray[np.intp], n_columns: int) -> FloatArray:
        groups = (values.take(np.flatnonzero(column == index), axis=1) for index in range(n_columns))
        return _reduced(groups, reduction, (len(values), n_columns))

    def over_donors(tables: Sequence[FloatArray]) -> FloatArray:
        shape = tables[0].shape
        groups = (np.stack([table[:, index] for table in tables], axis=-1) for index in range(shape[1]))
        return _reduced(groups, reduction, shape)

    return Metric(over_samples, over_donors)


def _reduced(groups: Iterable[FloatArray], reduction: Reduction, shape: tuple[int, ...]) -> FloatArray:
    """Table with one column for each (gene, member) group."""
    table = np.empty(shape)
    for index, group in enumerate(groups):
        table[:, index] = _reduce_present(group, reduction)
    return table


def _reduce_present(group: FloatArray, reduction: Reduction) -> FloatArray:
    """Reduce the last axis of (gene, member) values; genes with the same gaps are reduced together."""
    present = ~np.isnan(group)
    group, present = group[:, present.any(axis=0)], present[:, present.any(axis=0)]
    result = np.full(len(group), np.nan)
    if not present.size:
        return result
    if present.all():
        result[:] = reduction(group, axis=-1)
        return result
    patterns, pattern_of = np.unique(present, axis=0, return_inverse=True)
    for index, pattern in enumerate(patterns):
        if pattern.any():
            genes = np.flatnonzero(pattern_of.reshape(-1) == index)
            result[genes] = reduction(group[np.ix_(genes, pattern)], axis=-1)
    return result


METRICS = {
    "mean": Metric(_mean_of_samples, _mean_of_donors),
    "median": Metric(_median_of_samples, _median_of_donors),
}
"""Metrics by name; any function that reduces an array along its ``axis`` keyword is one as well."""


# What the pipeline calls ----------------------------------------------------------------------------------


def check_metric(metric: str | Reduction) -> Metric:
    """Turn a metric's name, or a function, into what the aggregations use.

    Parameters
    ----------
    metric : str or callable
        A name of `METRICS`, or a function of an array and the keyword ``axis`` that reduces that axis.
        A function means here what it means on arrays: ``np.std`` has ddof 0, where pandas inside abagen
        takes its own ``std`` with ddof 1.

    Raises
    ------
    ChoiceError
        If there is no such metric, or the function does not reduce an axis.
    """
    if not callable(metric):
        if metric not in METRICS:
            raise ChoiceError(f"Unknown agg_metric {metric!r}: choose {' or '.join(METRICS)}, or a function.")
        return METRICS[metric]
    try:
        reduced = np.shape(metric(np.linspace(0, 1, 24).reshape(4, 6), axis=-1))
    except TypeError as error:
        raise ChoiceError(
            f"agg_metric {metric!r} must accept an array and the keyword axis: {error}."
        ) from error
    if reduced != (4,):
        raise ChoiceError(f"agg_metric {metric!r} must reduce one axis: (4, 6) became {reduced}, not (4,).")
    return _leaving_out_nan(metric)


def aggregate_donor(
    values: Samples, labels: ArrayLike, regions: ArrayLike, metric: str | Reduction = "mean"
) -> FloatArray:
    """Values of each gene in each region, over the samples assigned to the region.

    Parameters
    ----------
    values : (gene, sample) float64 array, or Scaled
        Expression of one donor, or of all donors' samples at once.
    labels : (sample,) integer array
        Region of each sample; 0 is unassigned.
    regions : (region,) integer array
        Ids of the atlas's regions, ascending.
    metric : str or callable
        As for `check_metric`.

    Returns
    -------
    (gene, region) float64 array
        NaN where the gene has no value in any sample of the region.

    Raises
    ------
    AtlasError
        If the regions do not ascend, or a sample's region is not among them.
    ChoiceError
        If the metric is unknown.
    """
    column = region_places(labels, regions)
    return check_metric(metric).over_samples(values, column, np.size(regions))


def combine_donors(
    per_donor: NDArray[np.float64] | Sequence[FloatArray], metric: str | Reduction = "mean"
) -> FloatArray:
    """Values over donors; a donor without a value for a gene and region is left out there.

    Parameters
    ----------
    per_donor : (donor, gene, region) float64 array, or a sequence of (gene, region) arrays
        What `aggregate_donor` gave for each donor.
    metric : str or callable
        As for `check_metric`.

    Returns
    -------
    (gene, region) float64 array
        NaN where no donor has a value.

    Raises
    ------
    ChoiceError
        If there is no donor, or the metric is unknown.
    """
    if not len(per_donor):
        raise ChoiceError("No donor to combine: choose at least one.")
    return check_metric(metric).over_donors(list(per_donor))


def drop_unusable_genes(table: FloatArray) -> NDArray[np.bool_]:
    """Mark the genes to keep: those with a value in every region that has a value of any gene.

    Parameters
    ----------
    table : (gene, region) float64 array

    Returns
    -------
    (gene,) bool array
    """
    missing = np.isnan(table)
    return np.asarray(~missing[:, ~missing.all(axis=0)].any(axis=1))


def count_samples(labels: ArrayLike, regions: ArrayLike) -> NDArray[np.int64]:
    """Count each region's samples, (region,); arguments and errors as in `aggregate_donor`."""
    column = region_places(labels, regions)
    return np.bincount(column[column >= 0], minlength=np.size(regions)).astype(np.int64)


def region_places(labels: ArrayLike, regions: ArrayLike) -> NDArray[np.intp]:
    """Position of each sample's label among the regions, -1 for unassigned.

    Raises
    ------
    AtlasError
        As `aggregate_donor`.
    """
    labels, regions = np.asarray(labels), np.asarray(regions)
    if np.any(np.diff(regions) <= 0) or np.any(regions == 0):
        raise AtlasError("Region ids must ascend without repeats and leave 0 for unassigned samples.")
    unknown = np.setdiff1d(labels[labels != 0], regions)
    if len(unknown):
        found = ", ".join(map(str, unknown[:5]))
        raise AtlasError(f"Samples are assigned to region {found}, which is not among the atlas's regions.")
    return np.where(labels == 0, -1, np.searchsorted(regions, labels))
