"""Coexpression, distances and stable genes as Parquet tables beside the expression they come from.

Every table is ``OUT/<kind>/pipeline=<id>/atlas=<name>/<choice>=<value>/../part-0.parquet``, so that tables of
other choices lie side by side and any Parquet reader finds the choices in the path. It carries the provenance
of the expression it comes from, and its own choices under ``derived``.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from glob import escape
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike

from lake.catalogue import load_group_atlas
from lake.errors import RequestError
from lake.tables import PART, PROVENANCE, read_provenance, written_aside
from transforms.atlas import Atlas
from transforms.coexpression import BLOCK_GENES, coexpression_blocks, correlated_gene_expression
from transforms.distance import region_distances
from transforms.distance_correction import remove_distance
from transforms.stable import stable_genes

Progress = Callable[[str, int, int], None]


def write_region_pairs(
    expression: pd.DataFrame,
    atlas: str | Path | Atlas,
    *,
    out: str | Path,
    method: str = "pearson",
    distance: str = "centroids",
    correction: str | None = None,
    structure_pairs: str | None = None,
    samples: pd.DataFrame | None = None,
    labels: ArrayLike | None = None,
) -> Path:
    """Write how alike and how far apart all pairs of regions are.

    Parameters
    ----------
    expression : pandas.DataFrame
        Region x gene, from `lake.expression` or `lake.read_expression`, whose ``attrs`` say its origin.
    atlas : str, path or Atlas
        The atlas of that table.
    out : str or pathlib.Path
        Directory of the tables.
    method : {"pearson", "spearman"}
        As for `correlated_gene_expression`.
    distance : {"centroids", "samples", "surface"}
        As ``method`` of `region_distances`, to which `samples` and `labels` go.
    correction : str, optional
        As for `remove_distance`; no column ``corrected`` if left out.
    structure_pairs : {None, "all", "abagen"}
        As for `remove_distance`.

    Returns
    -------
    pathlib.Path
        The file: ``region``, ``other_region``, ``correlation``, ``distance`` (mm) and ``corrected``; one row
        a pair, in the table's order; null where undefined.

    Raises
    ------
    RequestError
        If the table does not say its origin, or was made with another atlas.
    ChoiceError
        If a choice is wrong.
    """
    loaded = load_group_atlas(atlas)
    origin = _origin(expression)
    if origin["atlas"]["fingerprint"] != loaded.fingerprint:
        raise RequestError(
            f"The expression was made with another atlas ({origin['atlas']['name']}) than {loaded.name}, or "
            "another version of it: give the one it was made with."
        )
    matrices = {"correlation": correlated_gene_expression(expression, method=method)}
    matrices["distance"] = region_distances(loaded, method=distance, samples=samples, labels=labels)
    choices: dict[str, Any] = {"method": method, "distance": distance}
    choices |= {"correction": correction, "structure_pairs": structure_pairs}
    derived = dict(choices)
    if correction is not None:
        matrices["corrected"] = remove_distance(
            matrices["correlation"],
            loaded,
            correction=correction,
            structure_pairs=structure_pairs,
            distances=matrices["distance"],
        )
        derived |= matrices["corrected"].attrs["distance_correction"]
    # A column is named distance, and readers take the names in a path for columns too.
    in_path = {"distance_between" if name == "distance" else name: value for name, value in choices.items()}
    path = _path(out, "region_pairs", origin, in_path)
    return _write(path, [_pairs_frame(matrices)], {**origin, "derived": derived})


def _pairs_frame(matrices: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Upper triangles of region x region tables as columns."""
    regions = matrices["correlation"].index.to_numpy()
    rows, columns = np.triu_indices(len(regions), k=1)
    values = {name: table.loc[regions, regions].to_numpy()[rows, columns] for name, table in matrices.items()}
    return pd.DataFrame({"region": regions[rows], "other_region": regions[columns], **values})


def write_gene_coexpression(
    expression: pd.DataFrame,
    *,
    out: str | Path,
    method: str = "pearson",
    network: str = "signed",
    neighbours: int | None = None,
    threshold: float | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write each gene's nearest neighbours, or the pairs of genes above a threshold, block by block.

    Parameters
    ----------
    expression : pandas.DataFrame
        As for `write_region_pairs`.
    out : str or pathlib.Path
        Directory of the tables.
    method, network, neighbours, threshold
        As for `gene_coexpression`.
    progress : callable, optional
        Called with ("genes", blocks of genes done, blocks in all).

    Returns
    -------
    pathlib.Path
        The file, with the columns of `gene_coexpression`.

    Raises
    ------
    RequestError
        If the table does not say its origin.
    ChoiceError
        If a choice is wrong.
    """
    choices: dict[str, Any] = {"method": method, "network": network}
    choices |= {"neighbours": neighbours, "threshold": threshold}
    origin = _origin(expression)
    blocks = _told(coexpression_blocks(expression, **choices), len(expression.columns), progress)
    path = _path(out, "gene_coexpression", origin, choices)
    return _write(path, blocks, {**origin, "derived": choices})


def _told(blocks: Iterable[pd.DataFrame], n_genes: int, progress: Progress | None) -> Iterator[pd.DataFrame]:
    for done, block in enumerate(blocks, start=1):
        yield block
        if progress:
            progress("genes", done, -(-n_genes // BLOCK_GENES))


def write_stable_genes(
    tables: str | Path,
    *,
    atlas: str,
    pipeline: str | None = None,
    threshold: float | None = None,
    percentile: bool = True,
    percent_ds: float | None = None,
    rank: bool = True,
    method: str = "abagen",
) -> Path:
    """Write every gene's differential stability over regions, from donors' tables that a run wrote.

    Parameters
    ----------
    tables : str or pathlib.Path
        The run's output directory; the table is written there too.
    atlas : str
        The atlas's name.
    pipeline : str, optional
        The pipeline's id; not needed where there is only one.
    threshold, percentile, percent_ds, rank, method
        As for `stable_genes`.

    Returns
    -------
    pathlib.Path
        The file: ``gene_symbol``, ``stability`` and ``stable``, whether the choices keep the gene.

    Raises
    ------
    RequestError
        If there are no donors' tables, or several pipelines to choose from.
    ChoiceError
        If a choice is wrong.
    """
    source = _donors_file(Path(tables), atlas.replace(":", "-"), pipeline)
    choices: dict[str, Any] = {"method": method, "rank": rank, "percent_ds": percent_ds}
    choices |= {"threshold": threshold, "percentile": percentile}
    kept, stability = stable_genes(_read_donors(source), **choices)
    stable = stability.index.isin(next(iter(kept.values())).columns)
    frame = pd.DataFrame({"gene_symbol": stability.index, "stability": stability.array, "stable": stable})
    origin = read_provenance(source)
    path = _path(tables, "gene_stability", origin, choices)
    return _write(path, [frame], {**origin, "derived": choices})


def read_donor_expression(
    tables: str | Path, *, atlas: str, pipeline: str | None = None
) -> dict[str, pd.DataFrame]:
    """Read the donors' region x gene tables that a run wrote (``donor_tables=True``).

    Parameters
    ----------
    tables, atlas, pipeline
        As for `write_stable_genes`.

    Returns
    -------
    dict of str to pandas.DataFrame
        Donor -> region (index ``label``) x gene symbol, float64.

    Raises
    ------
    RequestError
        If there are no donors' tables, or several pipelines to choose from.
    """
    return _read_donors(_donors_file(Path(tables), atlas.replace(":", "-"), pipeline))


def _read_donors(path: Path) -> dict[str, pd.DataFrame]:
    frame = pq.ParquetFile(path).read().to_pandas()
    return {str(donor): _by_region(rows) for donor, rows in frame.groupby("donor", sort=False)}


def _by_region(rows: pd.DataFrame) -> pd.DataFrame:
    table = rows.drop(columns="donor").set_index("gene_symbol").T
    return table.set_axis(pd.Index([int(region) for region in table.index], name="label"))


def _donors_file(tables: Path, atlas: str, pipeline: str | None) -> Path:
    wanted = "*" if pipeline is None else escape(pipeline)
    found = sorted(tables.glob(f"donor_expression/pipeline={wanted}/atlas={escape(atlas)}/{PART}"))
    if len(found) == 1:
        return found[0]
    if not found:
        of_pipeline = "" if pipeline is None else f" and pipeline {pipeline!r}"
        raise RequestError(
            f"{tables}: no donors' tables for atlas {atlas!r}{of_pipeline}; run with donor_tables=True "
            "(--save-donors)."
        )
    ids = ", ".join(path.parent.parent.name.removeprefix("pipeline=") for path in found)
    raise RequestError(f"{tables}: name one pipeline for atlas {atlas!r}: {ids}.")


def _origin(expression: pd.DataFrame) -> dict[str, Any]:
    if not {"pipeline", "atlas"} <= set(expression.attrs):
        raise RequestError(
            "The expression table does not say its origin (attrs): take it as lake.expression or "
            "lake.read_expression gave it, and set table.attrs again after changing it."
        )
    return dict(expression.attrs)


def _path(
    out: str | Path, kind: str, origin: Mapping[str, Any], choices: Mapping[str, str | float | None]
) -> Path:
    unit = Path(out) / kind / f"pipeline={origin['pipeline']}" / f"atlas={origin['atlas']['name']}"
    return unit.joinpath(*(f"{name}={value}" for name, value in choices.items()), PART)


def _write(path: Path, frames: Iterable[pd.DataFrame], provenance: Mapping[str, Any]) -> Path:
    """Write frames of the same columns one after the other, a row group or more each."""
    metadata = {PROVENANCE: json.dumps(provenance, sort_keys=True).encode()}
    parts = (pa.Table.from_pandas(frame, preserve_index=False) for frame in frames)
    first = next(parts)
    schema = first.schema.with_metadata(metadata)
    with (
        written_aside(path) as aside,
        pq.ParquetWriter(aside, schema, compression="zstd", compression_level=1) as writer,
    ):
        for part in chain([first], parts):
            writer.write_table(part.cast(schema))
    return path
