"""All that comes before an atlas, in the order of the science: samples, probes, genes.

Which probes are detected, and which of them stands for a gene, are numbers that the shape of everything later
depends on; they are computed here, block by block.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from transforms.atlas_set import AtlasSet, place_in_native_space
from transforms.pipeline import Pipeline
from transforms.probes import (
    ProbeSelection,
    annotate_probes,
    detected_fraction,
    filter_probes,
    probe_variances,
    varying_probes,
)
from transforms.samples import divide_samples, drop_slabs, prepare_samples, similar_samples
from transforms.select import select_probes
from transforms.selections import SELECTIONS, ScoreOptions


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

    def without_rows(self) -> "Genes":
        """The same, with no row kept in memory."""
        return replace(self, selection=replace(self.selection, kept=None))


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
    samples, probes = filtered_probes(source, pipeline, choose_samples(source, pipeline, donors))
    return choose_genes(source, pipeline, samples, probes)


def choose_samples(source: Source, pipeline: Pipeline, donors: list[str]) -> pd.DataFrame:
    """Prepared samples of the donors: those that the choices on samples leave, where they put them."""
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


def filtered_probes(
    source: Source, pipeline: Pipeline, samples: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The samples similar enough to others, and the probes that are above the background and vary."""
    annotated = annotate_probes(
        source.probes,
        reannotated=pipeline.reannotated,
        agilent_only=pipeline.agilent_only,
        probe_order=pipeline.probe_order,
    )
    if pipeline.sim_threshold is not None:
        expression = source.microarray["expression"]
        samples = _drop_dissimilar(expression, samples, annotated, pipeline.sim_threshold)
    return samples, _filter(source.microarray, annotated, samples, pipeline)


def choose_genes(
    source: Source,
    pipeline: Pipeline,
    samples: pd.DataFrame,
    probes: pd.DataFrame,
    *,
    keep: NDArray[np.integer] | None = None,
) -> Genes:
    """Choose the probes that stand for each gene, among those that `filtered_probes` left.

    Their rows of the samples `keep` (positions, ascending) stay in memory, if they are read here.
    """
    rnaseq_by = SELECTIONS[pipeline.probe_selection].rnaseq_by
    selection = select_probes(
        source.microarray["expression"],
        probes,
        samples,
        probe_selection=pipeline.probe_selection,
        donor_probes=pipeline.donor_probes,
        keep=keep,
        rnaseq=source.rnaseq(by=rnaseq_by) if source.rnaseq and rnaseq_by else None,
        detected=source.microarray["detected"],
        options=ScoreOptions(pipeline.rnaseq_threshold, pipeline.rnaseq_significance, pipeline.seed),
    )
    return Genes(samples, selection)


def _filter(
    microarray: xr.Dataset, annotated: pd.DataFrame, samples: pd.DataFrame, pipeline: Pipeline
) -> pd.DataFrame:
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
