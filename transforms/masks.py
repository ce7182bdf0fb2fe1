"""Samples inside a mask, and maps that estimate a gene's expression in every voxel or vertex of it.

A mask is an atlas whose regions do not matter. Maps come from nearest-neighbours regression: a node is the
mean of its nearest samples, weighted by 1/distance (abagen's ``get_interpolated_map``, Markello et al. 2021,
eLife 10:e72129).
"""

from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
from dask.base import compute
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial import cKDTree

from transforms.assign import assign
from transforms.atlas import Atlas
from transforms.atlas_set import AnyAtlas, atlas_of
from transforms.errors import ChoiceError
from transforms.missing import inverse_distance
from transforms.parts import GeneNormalization, Part, normalized_blocks, part_of
from transforms.pipeline import Pipeline
from transforms.scaled import Scaled
from transforms.tasks import task
from transforms.values import Values, ValuesOf, block_sizes
from transforms.workflow import Genes

Floats = NDArray[np.float64]

NODES_AT_ONCE = 100_000


class MaskedSamples(NamedTuple):
    """Samples inside a mask.

    Attributes
    ----------
    expression : pandas.DataFrame
        Sample (index ``well_id``; mirrored copies repeat it) x gene symbol, normalised; NaN where
        normalisation leaves a value undefined.
    samples : pandas.DataFrame
        The same rows as prepared: ``donor``, ``mni_x/y/z`` in use, ``structure``, ..
    """

    expression: pd.DataFrame
    samples: pd.DataFrame


def masked_samples(
    genes: Genes,
    values: Values,
    mask: AnyAtlas | None,
    pipeline: Pipeline,
    *,
    wanted: NDArray[np.integer] | None = None,
) -> MaskedSamples:
    """Normalised expression of the samples that fall into a mask, within the tolerance.

    Parameters
    ----------
    genes : Genes
    values : Values
        mask : Atlas, AtlasSet or None
        Its labelled nodes are the mask; hemisphere and structure do not matter. None takes every sample.
    pipeline : Pipeline
        ``norm_matched=True`` normalises over the samples inside.
    wanted : (wanted,) int array, optional
        Positions of the genes, in the order wanted; all of them if left out.

    Returns
    -------
    MaskedSamples
        Donor by donor, in the order of `genes.samples`. Genes without any value are left out.

    Raises
    ------
    ChoiceError
        If no sample falls into the mask.
    """
    parts = [
        part_of(donor, table, _inside(table, mask, pipeline), norm_matched=pipeline.norm_matched)
        for donor, table in genes.samples.groupby("donor", sort=False)
    ]
    if not any(part.labels.any() for part in parts):
        name = mask.name if mask else "(none)"
        raise ChoiceError(f"No sample falls into the mask {name}: tolerance is {pipeline.tolerance:g}.")
    symbols = genes.selection.genes["gene_symbol"].to_numpy()
    if wanted is not None:
        values, symbols = ValuesOf(values, block_sizes(genes), wanted), symbols[wanted]
    inside = partial(_inside_rows, parts=parts)
    blocks = normalized_blocks(values, parts, GeneNormalization.of(pipeline, parts))
    samples = pd.concat([part.samples[part.labels != 0] for part in parts], ignore_index=True)
    expression = pd.DataFrame(
        np.concatenate(compute(*(task(inside, block) for block in blocks)), axis=1),
        index=pd.Index(samples["well_id"].to_numpy(), name="well_id"),
        columns=pd.Index(symbols, name="gene_symbol"),
    )
    return MaskedSamples(expression.dropna(axis=1, how="all"), samples)


def _inside_rows(values: dict[str, Floats | Scaled], parts: list[Part]) -> Floats:
    """(sample, gene) of all donors' samples inside, for a block of genes."""
    return np.concatenate([values[part.donor].take(np.flatnonzero(part.labels), axis=1).T for part in parts])


def _inside(samples: pd.DataFrame, mask: AnyAtlas | None, pipeline: Pipeline) -> NDArray[np.int64]:
    """Not 0 for samples of one donor that are inside."""
    if mask is None:
        return np.ones(len(samples), dtype=np.int64)
    atlas = atlas_of(mask, samples["donor"].iloc[0]).without_info()
    return assign(samples, atlas, tolerance=pipeline.tolerance, matching=pipeline.matching)


def interpolate_nodes(values: Floats, places: Floats, nodes: Floats, *, n_neighbors: int = 10) -> Floats:
    """Estimate values at nodes from the samples nearest to them.

    Parameters
    ----------
    values : (sample, gene) float64 array
        A sample without a value (NaN) is left out of that gene's means.
    places : (sample, 3) float64 array
        In mm.
    nodes : (node, 3) float64 array
        In mm.
    n_neighbors : int
        How many samples, weighted by 1/distance, make a node's mean; samples at distance 0 take all.

    Returns
    -------
    (node, gene) float64 array
        NaN where none of the samples has a value.

    Raises
    ------
    ChoiceError
        If there are fewer samples than neighbours, or no neighbour is asked for.
    """
    if not 1 <= n_neighbors <= len(places):
        raise ChoiceError(
            f"n_neighbors={n_neighbors} of {len(places)} samples: choose from 1 to {len(places)}."
        )
    tree = cKDTree(places)
    present = ~np.isnan(values)
    known = np.where(present, values, 0.0)
    result = np.empty((len(nodes), values.shape[1]))
    for start in range(0, len(nodes), NODES_AT_ONCE):
        block = slice(start, start + NODES_AT_ONCE)
        weights = _neighbour_weights(tree, nodes[block], n_neighbors)
        with np.errstate(invalid="ignore"):
            result[block] = (weights @ known) / (weights @ present.astype(np.float64))
    return result


def _neighbour_weights(tree: cKDTree, nodes: Floats, n_neighbors: int) -> sparse.csr_array:
    """(node, sample) weights 1/distance of the nearest samples."""
    distance, sample = tree.query(nodes, k=list(range(1, n_neighbors + 1)))
    at_sample = (distance == 0).any(axis=1)
    distance[at_sample] = np.where(distance[at_sample] == 0, 1.0, np.inf)
    starts = np.arange(len(nodes) + 1) * n_neighbors
    return sparse.csr_array(
        (inverse_distance(distance).ravel(), sample.ravel(), starts), shape=(len(nodes), tree.n)
    )


def on_grid(mask: Atlas, values: Floats) -> Floats:
    """Values of the mask's nodes in the shape of its image, or one a vertex; 0 elsewhere."""
    grid = np.zeros(int(np.prod(mask.shape)))
    grid[mask.nodes] = values
    return grid.reshape(mask.shape)
