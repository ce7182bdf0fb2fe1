"""What is learnt from: samples (or regions) with their expression and whatever is known of them."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lake.errors import RequestError
from lake.learning.labels import MapLike, map_values, region_of
from lake.learning.region_tables import RegionTable, find_unit
from lake.manifest import software_versions
from lake.queries import for_donors
from lake.runs import AtlasLike
from lake.selection import Selection
from lake.store import Lake
from lake.tables import read_provenance
from transforms.pipeline import Pipeline
from transforms.samples import MNI, use_coordinates

Floats = NDArray[np.float64]
Kind = Literal["sample", "region"]
Regions = AtlasLike | Mapping[str, AtlasLike]

COORDINATES = "coordinates"
CENTROID = ["centroid_x", "centroid_y", "centroid_z"]
RESERVED = (COORDINATES, "expression")
KEYS = {"sample": "well_id", "region": "region"}
"""What a row is -> the column that a user's table of values is matched by."""
BLOCK_BYTES = 32 << 20
Source = Lake | Selection | str | Path
"""A store, a selection of it, or the tables' directory."""


@dataclass(frozen=True, eq=False)
class Observations:
    """Rows (samples or regions) x features (genes or probes), not read yet, and what is known of each.

    Attributes
    ----------
    rows : pandas.DataFrame
        A row a sample, or a region: all columns of `Lake.samples` (``mni_x/y/z`` are the coordinates in use),
        or of the regions' table; then the regions and maps that were asked for.
    features : pandas.DataFrame
        A row a gene, or a probe.
    names : (feature,) str array
        Gene symbols, or probe ids.
    kind : {"sample", "region"}
    coordinates : (row, 3) float array
        MNI152 mm; of a region its centroid.
    blocks : callable
        Reads all expression, some features at a time: first feature, and (feature, row) values.
    identity : str
        Hash of what the expression is.
    provenance : dict
    """

    rows: pd.DataFrame = field(repr=False)
    features: pd.DataFrame = field(repr=False)
    names: NDArray[Any] = field(repr=False)
    kind: Kind
    coordinates: Floats = field(repr=False)
    blocks: Callable[[], Iterator[tuple[int, Floats]]] = field(repr=False)
    identity: str
    provenance: dict[str, Any] = field(repr=False)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and features."""
        return len(self.rows), len(self.names)

    def label(self, name: str) -> NDArray[Any]:
        """What is known of the rows: a column of `rows`, or ``coordinates`` (row, 3).

        Raises
        ------
        RequestError
            If it is not known.
        """
        if name == COORDINATES:
            return self.coordinates
        if name not in self.rows:
            raise RequestError(
                f"There is no label {name!r} of {self.kind}s; choose of {COORDINATES}, "
                f"{', '.join(map(str, self.rows.columns))}, or bring your own: maps={{{name!r}: ..}}."
            )
        return np.asarray(self.rows[name])


def observations(
    source: "Source | Observations",
    *,
    pipeline: Pipeline | str | None = None,
    atlas: str | None = None,
    donor_tables: bool = False,
    regions: Regions | None = None,
    maps: Mapping[str, MapLike] | None = None,
    corrected_mni: bool = True,
) -> Observations:
    """Samples or regions with their expression, their labels, and maps of the user's own.

    Parameters
    ----------
    source : Lake, Selection, path or Observations
        A store: all samples, one value a gene by the choices of `pipeline`. A selection (`Lake.gene`,
        `Lake.structure`, ..): its samples, and its probes, or genes after `Selection.per_gene`. A directory
        that `ahba run` wrote: the regions of `atlas`. Values are as published in the first two cases, and
        as the run normalised them in the last.
    pipeline : Pipeline or str, optional
        Of a store: the choices, those of `Pipeline()` if left out. Of tables: the pipeline's id, not needed
        where there is only one.
    atlas : str, optional
        Of tables: the atlas's name.
    donor_tables : bool
        Of tables: a row for every donor and region (``ahba run --save-donors``), instead of one a region.
    regions : atlas, or mapping of str to atlas, optional
        Of samples: whatever `lake.expression` takes as an atlas. Adds the column ``region`` (or that of the
        mapping's key): the region's id, 0 for none, by the rules of a run.
    maps : mapping of str to path, image, Series or mapping, optional
        Name -> a NIfTI in MNI152, of which each sample gets the value at its coordinate (interpolated
        linearly; NaN outside); or values by ``well_id`` (of regions: by ``region``).
    corrected_mni : bool
        Whether samples lie at their corrected or their published MNI152 coordinates.

    Returns
    -------
    Observations
        Nothing is read of the expression yet, but for what a choice of probes needs.

    Raises
    ------
    RequestError
        If the source, a table, a region or a map does not exist or does not fit.
    ChoiceError, AtlasError
        If a choice or an atlas is wrong, or samples lack corrected coordinates.
    """
    if isinstance(source, Lake | Selection):
        _refuse(
            "atlas and donor_tables choose tables; of a store, regions= labels samples", atlas, donor_tables
        )
        return _with_maps(_of_store(source, pipeline, regions, corrected_mni), maps or {})
    _refuse("regions= labels the samples of a store by an atlas", regions)
    if isinstance(source, Observations):
        _refuse(
            "pipeline, atlas and donor_tables come too late for observations", pipeline, atlas, donor_tables
        )
        return _with_maps(source, maps or {})
    return _with_maps(_of_tables(Path(source), atlas, pipeline, donor_tables), maps or {})


def _refuse(sentence: str, *choices: Any) -> None:
    if any(choice is not None and choice is not False for choice in choices):
        raise RequestError(f"{sentence[0].upper()}{sentence[1:]}.")


def _with_maps(found: Observations, maps: Mapping[str, MapLike]) -> Observations:
    key = KEYS[found.kind]
    _refuse_taken(found, maps, "maps")
    values = {
        name: map_values(name, one, found.rows[key], found.coordinates if found.kind == "sample" else None)
        for name, one in maps.items()
    }
    return replace(found, rows=found.rows.assign(**values))


def _refuse_taken(found: Observations, names: Iterable[str], choice: str) -> None:
    """Refuse new labels that would stand in for known ones."""
    for name in names:
        if name in found.rows or name in RESERVED:
            raise RequestError(f"There is a label {name!r} already: name it otherwise in {choice}=.")


# ---- samples of a store ----


def _of_store(
    source: Lake | Selection, pipeline: Pipeline | str | None, regions: Regions | None, corrected_mni: bool
) -> Observations:
    selection, parameters = _selection(source, pipeline)
    found = _of_selection(selection, corrected_mni, parameters)
    named = regions if isinstance(regions, Mapping) else {} if regions is None else {"region": regions}
    _refuse_taken(found, named, "regions")
    labels = {name: region_of(selection, atlas, corrected_mni) for name, atlas in named.items()}
    return replace(found, rows=found.rows.assign(**labels))


def _selection(source: Lake | Selection, pipeline: Pipeline | str | None) -> tuple[Selection, dict[str, Any]]:
    """The selection, and the choices of the pipeline that made it one of genes, if it is known here."""
    if isinstance(pipeline, str):
        raise RequestError(
            f"pipeline={pipeline!r} names tables; of a store give lake.Pipeline(..), or "
            "store.everything().per_gene(..)."
        )
    if isinstance(source, Selection) and pipeline is None:
        return source, {}
    chosen = pipeline or Pipeline()
    selection = for_donors(source.everything(), chosen.donors) if isinstance(source, Lake) else source
    return selection.per_gene(chosen), {"parameters": chosen.parameters()}


def _of_selection(selection: Selection, corrected_mni: bool, parameters: dict[str, Any]) -> Observations:
    samples = use_coordinates(selection.samples, corrected_mni=corrected_mni).reset_index(drop=True)
    by_gene = selection.choice is not None
    features = selection.probes.reset_index(drop=True)
    return Observations(
        rows=samples,
        features=features,
        names=features["gene_symbol" if by_gene else "probe_id"].astype(str).to_numpy(object),
        kind="sample",
        coordinates=samples[MNI].to_numpy(np.float64),
        blocks=partial(selection.blocks, features_at_once(len(samples))),
        identity=_identity(selection),
        provenance={
            **selection.provenance(),
            **parameters,
            "corrected_mni": corrected_mni,
            "software": software_versions(),
        },
    )


def features_at_once(n_rows: int) -> int:
    """How many features a block has, so that its size does not depend on the number of rows."""
    return max(64, BLOCK_BYTES // (8 * n_rows) // 64 * 64)


def _identity(selection: Selection) -> str:
    """Hash of the snapshot, the samples, and the probes or what stands for each gene."""
    digest = hashlib.sha256(selection.store.snapshot.encode())
    parts = [selection.columns]
    if selection.choice is not None:
        parts += [selection.choice.starts, *(selection.choice.rows[donor] for donor in selection.donors)]
    elif selection.rows is not None:
        parts += [selection.rows]
    for part in parts:
        digest.update(f"{len(part)}:".encode() + np.asarray(part, np.int64).tobytes())
    return digest.hexdigest()[:16]


# ---- regions of tables ----


def _of_tables(
    tables: Path, atlas: str | None, pipeline: Pipeline | str | None, donor_tables: bool
) -> Observations:
    if atlas is None:
        raise RequestError(f"{tables}: say which atlas's table: atlas=..")
    if isinstance(pipeline, Pipeline):
        raise RequestError("Of tables, pipeline= is the id of a pipeline, as in the tables' paths.")
    unit = find_unit(tables, atlas, pipeline)
    path = unit.path("donor_expression" if donor_tables else "expression")
    if not path.exists():
        raise RequestError(f"{path} is not there: `ahba run --save-donors` writes donors' tables.")
    regions = pq.read_table(unit.regions, partitioning=None).to_pandas()
    table = RegionTable(path)
    rows = table.rows.merge(regions, on="region", how="left", validate="many_to_one")
    return Observations(
        rows=rows,
        features=pd.DataFrame({"gene_symbol": table.genes}),
        names=table.genes,
        kind="region",
        coordinates=rows[CENTROID].to_numpy(np.float64),
        blocks=table.blocks,
        identity=hashlib.sha256(path.read_bytes()).hexdigest()[:16],
        provenance={**read_provenance(path), "software": software_versions()},
    )
