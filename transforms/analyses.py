"""What a region x gene table says: the three analyses of Markello et al. 2021, one number each.

They measure how much the choices of a pipeline change results (eLife 10:e72129): regions far from each other
are less alike (correlated gene expression, CGE), genes of a module are alike (gene coexpression, GCE), the
first component over regions follows a map of the cortex (regional gene expression, RGE). A multiverse asks
for them hundreds of thousands of times, so each is a matrix product or two: regions x regions, or the genes
of modules x themselves, a strip at a time. The paper's scripts first keep the genes that the published
annotation knows by an Entrez id; a caller who wants that gives such a table.
"""

from typing import TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from transforms.errors import ChoiceError

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.intp]
Table: TypeAlias = pd.DataFrame | NDArray[np.floating]

# Equal regions (two that were filled from one sample, say) correlate equally but for the last bits, and the
# ranks of the tied would then be noise.
RANKED_DECIMALS = 10
# Genes whose distances to the others are in memory at once; 256 stay in a core's cache.
STRIP_GENES = 256
MODULE_COLUMNS = ("gene_symbol", "module")
SHARED_GENES = ("sum", "drop")


# What is called ---------------------------------------------------------------------------------------------


def coexpression_distance_correlation(expression: Table, centroids: Table) -> float:
    """How coexpression of regions falls off with distance (CGE).

    Spearman's correlation, over pairs of regions, of Pearson's correlation of their genes with the Euclidean
    distance between their centroids.

    Parameters
    ----------
    expression : (region, gene) pandas.DataFrame or float array
    centroids : (region, 3) pandas.DataFrame or float array
        In mm. With both as frames, found by region id; else in the order of `expression`.

    Returns
    -------
    float
        -1 to 1. Regions with a NaN (in expression or centroid) or the same value in every gene are left out,
        as the paper's scripts leave out pairs that are NaN. NaN if fewer than two pairs remain, or all are
        alike or equally far.

    Raises
    ------
    ChoiceError
        If regions have no row in `centroids`.

    References
    ----------
    Markello et al. 2021, eLife 10:e72129, "Correlated gene expression".
    """
    from scipy.spatial.distance import pdist

    values, places = _values(expression), _aligned(centroids, expression, "centroids", partly=False)
    varied = values.max(axis=1, initial=-np.inf) > values.min(axis=1, initial=np.inf)  # False for NaN
    kept = varied & ~np.isnan(places.sum(axis=1))
    if kept.sum() < 3:
        return np.nan
    values = _kept(values, kept)
    centred = values - values.mean(axis=1, keepdims=True)
    products = centred @ centred.T
    lengths = np.sqrt(np.diagonal(products))
    upper = np.triu_indices(len(products), k=1)
    return _spearman((products / np.outer(lengths, lengths))[upper], pdist(places[kept]))


def module_silhouette(expression: pd.DataFrame, module_of: pd.Series) -> float:
    """How alike genes of a module are, beside genes of the nearest other module (GCE).

    Mean silhouette (Rousseeuw 1987) over genes; the distance between genes is Euclidean, over regions.

    Parameters
    ----------
    expression : (region, gene) pandas.DataFrame
        Columns are gene symbols, each once.
    module_of : pandas.Series
        Gene symbol -> number of its module, as `module_numbers` gives it.

    Returns
    -------
    float
        -1 to 1. As in the paper's scripts, genes of no module and modules' genes that the table lacks are
        left out, and so are regions without a value; so are genes that are NaN in one of the others (there
        an error). A gene that is alone in its module counts 0. NaN if genes of fewer than two modules
        remain, or no two genes of one (where the score is not defined).

    Raises
    ------
    ChoiceError
        If a gene has two columns.
    """
    if not expression.columns.is_unique:
        repeated = expression.columns[expression.columns.duplicated()][0]
        raise ChoiceError(f"Gene {repeated} has two columns: keep one column a gene.")
    at = expression.columns.get_indexer(module_of.index)
    values = _values(expression)[:, at[at >= 0]].T
    modules = module_of.to_numpy()[at >= 0]
    missing = np.isnan(values)
    filled = ~missing.all(axis=0)
    genes = ~missing[:, filled].any(axis=1)
    return mean_silhouette(values[np.ix_(genes, filled)], modules[genes])


def component_map_correlation(expression: Table, region_map: pd.Series | ArrayLike) -> float:
    """How the first principal component of expression follows a map of regions (RGE).

    Absolute Spearman correlation of the map with the regions' scores on the first component of the matrix
    whose columns (genes) are centred. The component's sign means nothing.

    Parameters
    ----------
    expression : (region, gene) pandas.DataFrame or float array
    region_map : (region,) pandas.Series or float array
        One value a region; T1w/T2w, which follows myelin, in the paper. With both in pandas, found by region
        id; else in the order of `expression`.

    Returns
    -------
    float
        0 to 1. Regions with a NaN in any gene or in the map are left out before the component is found (the
        paper's maps are whole). NaN if fewer than two remain, they are all the same, or the map is.

    Raises
    ------
    ChoiceError
        If the map has none of the regions, or another number of them.
    """
    values, wanted = _values(expression), _aligned(region_map, expression, "region_map", partly=True)
    kept = ~np.isnan(values.sum(axis=1)) & ~np.isnan(wanted)
    if kept.sum() < 2:
        return np.nan
    return abs(_spearman(_first_component(_kept(values, kept)), wanted[kept]))


def module_numbers(modules: pd.DataFrame, *, drop_smallest: int = 0, shared: str = "sum") -> pd.Series:
    """Number the modules of genes, for `module_silhouette`.

    Parameters
    ----------
    modules : pandas.DataFrame
        ``gene_symbol`` and ``module``, a row a gene and module. Rows without one of them are left out; leave
        out yourself what stands for no module, such as WGCNA's grey.
    drop_smallest : int
        How many modules to leave out, those of the fewest genes in this table (of equals, the first by
        name). The paper leaves out seven of Oldham et al. 2008, Nat Neurosci 11:1271, by name: those with two
        genes or fewer at the highest intensity filter.
    shared : {"sum", "drop"}
        What becomes of a gene in several modules: its number is the sum of theirs, as in the paper's scripts
        (which may be that of yet another module, or of one that only such genes have), or it is left out.

    Returns
    -------
    pandas.Series
        Gene symbol -> number; modules count from 1 in the order of their names.

    Raises
    ------
    ChoiceError
        If a column is missing, a choice is unknown, or no module would be left.
    """
    if lacking := [name for name in MODULE_COLUMNS if name not in modules]:
        raise ChoiceError(
            f"The table of gene modules lacks column {lacking[0]}: it takes gene_symbol, module."
        )
    if shared not in SHARED_GENES:
        raise ChoiceError(f"shared={shared!r} is unknown; there are {', '.join(SHARED_GENES)}.")
    rows = modules[[*MODULE_COLUMNS]].dropna().astype(str).drop_duplicates()
    sizes = rows["module"].value_counts().sort_index().sort_values(kind="stable")
    if not 0 <= drop_smallest < len(sizes):
        raise ChoiceError(
            f"drop_smallest={drop_smallest} of {len(sizes)} gene modules leaves none: give a smaller number."
        )
    names = sorted(sizes.index[drop_smallest:])
    rows = rows[rows["module"].isin(names)]
    numbers = rows["module"].map({name: number for number, name in enumerate(names, start=1)})
    by_gene = numbers.astype(np.int64).groupby(rows["gene_symbol"])
    summed: pd.Series = by_gene.sum().rename("module")
    return summed if shared == "sum" else summed[by_gene.size() == 1]


def mean_silhouette(points: Floats, groups: NDArray[np.integer]) -> float:
    """Mean silhouette of points in groups, with Euclidean distance.

    Parameters
    ----------
    points : (point, dimension) float64 array
    groups : (point,) integer array

    Returns
    -------
    float
        Mean of (b - a) / max(a, b): a, the mean distance to the others of the group; b, that to the nearest
        other group; 0 for a point alone. NaN for fewer than two groups, or as many as points.

    References
    ----------
    Rousseeuw 1987, J Comput Appl Math 20:53.
    """
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if not 2 <= len(sizes) < len(points) or not points.shape[1]:
        return np.nan
    sums = _distances_to_groups(points, group, len(sizes))
    rows = np.arange(len(points))
    within = sums[rows, group] / np.maximum(sizes[group] - 1, 1)
    means = sums / sizes
    means[rows, group] = np.inf
    nearest = means.min(axis=1)
    larger = np.maximum(within, nearest)
    scores = np.divide(nearest - within, larger, out=np.zeros_like(larger), where=larger > 0)
    return float(np.where(sizes[group] > 1, scores, 0.0).mean())


# How --------------------------------------------------------------------------------------------------------


def _distances_to_groups(points: Floats, group: Integers, n_groups: int) -> Floats:
    """Sum of the distances of each point to the points of each group, (point, group).

    Squared distances are one product: |a|^2 + |b|^2 - 2 a.b. Each pair is visited once.
    """
    centred = points - points.mean(axis=0)
    squares, ones = np.square(centred).sum(axis=1)[:, np.newaxis], np.ones((len(points), 1))
    rows = np.hstack([-2 * centred, squares, ones])
    columns = np.hstack([centred, ones, squares])
    member = np.zeros((len(points), n_groups))
    member[np.arange(len(points)), group] = 1
    sums = np.zeros_like(member)
    for start in range(0, len(points), STRIP_GENES):
        stop = min(start + STRIP_GENES, len(points))
        distances = rows[start:stop] @ columns[start:].T
        np.maximum(distances, 0, out=distances)
        np.sqrt(distances, out=distances)
        np.fill_diagonal(distances, 0)
        sums[start:stop] += distances @ member[start:]
        sums[stop:] += distances[:, stop - start :].T @ member[start:stop]
    return sums


def _first_component(values: Floats) -> Floats:
    """Regions' scores on the first component, of length 1; NaN where there is no variance.

    The left singular vectors of a matrix are the eigenvectors of its small Gram matrix, regions x regions.
    """
    centred = values - values.mean(axis=0)
    variances, vectors = np.linalg.eigh(centred @ centred.T)
    if variances[-1] <= 0:
        return np.full(len(values), np.nan)
    component: Floats = vectors[:, -1]
    return component


def _spearman(one: Floats, other: Floats) -> float:
    """Spearman's correlation with average ranks at ties; NaN for fewer than two, or where one is constant."""
    from scipy.stats import rankdata  # loads for longer than most runs take

    if len(one) < 2 or np.isnan(one).any() or np.isnan(other).any():
        return np.nan
    first, second = (
        rankdata(values.round(RANKED_DECIMALS)) - (len(values) + 1) / 2 for values in (one, other)
    )
    lengths = np.sqrt((first @ first) * (second @ second))
    return float(np.clip(first @ second / lengths, -1, 1)) if lengths > 0 else np.nan


def _values(expression: Table) -> Floats:
    return np.asarray(expression, dtype=np.float64)


def _kept(values: Floats, kept: NDArray[np.bool_]) -> Floats:
    """Without a copy where all are."""
    return values if kept.all() else values[kept]


def _aligned(
    given: pd.DataFrame | pd.Series | ArrayLike, expression: Table, name: str, *, partly: bool
) -> Floats:
    """What is known of regions in the order of the table; NaN for those that `partly` allows to lack."""
    if isinstance(given, pd.DataFrame | pd.Series) and isinstance(expression, pd.DataFrame):
        lacking = expression.index.difference(given.index)
        if len(lacking) and not (partly and len(lacking) < len(expression)):
            raise ChoiceError(f"{name} lacks region {lacking[0]}: give one for the atlas of the table.")
        given = given.reindex(expression.index)
    values = np.asarray(given, dtype=np.float64)
    if len(values) != len(expression):
        raise ChoiceError(f"{name} has {len(values)} regions and the table {len(expression)}: give as many.")
    return values
