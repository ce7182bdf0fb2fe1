"""All donors at once: filling, batch, RNA-seq, and choices that exclude each other."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest

import lake
from lake.errors import RequestError
from lake.runs import tables_for
from lake.sources import source_of
from transforms import parts
from transforms import values as values_module
from transforms.atlas import Atlas
from transforms.errors import ChoiceError
from transforms.missing import MISSING, Sites
from transforms.normalize import normalize, remove_donor_effects
from transforms.parts import label_samples
from transforms.regions import region_tables
from transforms.values import FreshValues, sample_expression
from transforms.workflow import Source, select_genes


class Prepared:
    """Samples, labels and values of every donor, computed plainly once."""

    def __init__(self, store: lake.Lake, atlas: Atlas, pipeline: lake.Pipeline) -> None:
        source = source_of(store)
        self.genes = select_genes(source, pipeline, store.donors)
        self.labels = label_samples(self.genes.samples, atlas, pipeline)
        self.samples = dict(list(self.genes.samples.groupby("donor", sort=False)))
        self.values = {
            donor: sample_expression(source, self.genes, pipeline, donor).to_numpy() for donor in self.samples
        }
        self.symbols = self.genes.selection.genes["gene_symbol"].to_numpy()

    def left(self, donor: str, *, norm_matched: bool) -> np.ndarray:
        found = self.labels[donor]
        return np.flatnonzero(found) if norm_matched else np.arange(len(found))


def plain_table(tables: list[pd.DataFrame], atlas: Atlas) -> pd.DataFrame:
    """Mean over donors; genes that are NaN in a region that is not empty go."""
    table = pd.concat(tables).groupby(level=0).mean().reindex(atlas.regions.index)
    empty = table.isna().all(axis=1)
    return table.loc[:, table[~empty].notna().all()].sort_index(axis=1)


# Filling.


@pytest.mark.parametrize("norm_matched", [True, False])
@pytest.mark.parametrize("region_agg", ["donors", "samples"])
@pytest.mark.parametrize("missing", ["centroids", "interpolate"])
def test_filled_regions_are_a_sample_more(
    small_lake: lake.Lake, dk: Atlas, missing: str, region_agg: str, norm_matched: bool
) -> None:
    """As abagen appends them: in each donor, before samples are averaged."""
    pipeline = lake.Pipeline(missing=missing, region_agg=region_agg, norm_matched=norm_matched)
    plain = Prepared(small_lake, dk, pipeline)
    normalized, sites = {}, {}
    for donor, values in plain.values.items():
        left = plain.left(donor, norm_matched=norm_matched)
        normalized[donor] = normalize(values[:, left], "srs")
        sites[donor] = Sites(plain.samples[donor].iloc[left], plain.labels[donor][left], dk)
    method = MISSING[missing]
    fillings = method.fill(sites)
    gifts = {donor: filling.apply(normalized[donor]) for donor, filling in fillings.items()}
    if missing == "centroids":
        gifts = dict.fromkeys(gifts, sum(gifts.values()))
    frames = []
    for donor, values in normalized.items():
        labels = np.concatenate([sites[donor].labels, fillings[donor].regions])
        rows = np.concatenate([values, gifts[donor]], axis=1).T
        frames.append(pd.DataFrame(rows, index=labels, columns=plain.symbols)[labels != 0])
    pooled = [pd.concat(frames)] if region_agg == "samples" else frames
    expected = plain_table([frame.groupby(level=0).mean() for frame in pooled], dk)
    tables = tables_for(small_lake, dk, pipeline)
    assert sum(len(filling.regions) for filling in fillings.values()) > 50
    np.testing.assert_allclose(tables.expression[expected.columns], expected, rtol=1e-10)
    assert tables.expression.shape == expected.shape


def test_filling_leaves_counts_and_other_regions_alone(small_lake: lake.Lake, dk: Atlas) -> None:
    plain = tables_for(small_lake, dk, lake.Pipeline())
    empty = plain.counts.sum(axis=1) == 0
    assert 0 < empty.sum() < len(empty)
    filled = tables_for(small_lake, dk, lake.Pipeline(missing="centroids"))
    pd.testing.assert_frame_equal(filled.counts, plain.counts)
    shared = plain.expression.columns.intersection(filled.expression.columns)
    pd.testing.assert_frame_equal(filled.expression.loc[~empty, shared], plain.expression.loc[~empty, shared])
    assert filled.expression[empty].notna().all(axis=1).sum() > 0
    for table in filled.donor_expression.values():  # every donor has the same
        given = filled.expression.index[empty]
        first = filled.donor_expression[small_lake.donors[0]]
        pd.testing.assert_frame_equal(table.loc[given], first.loc[given])


def test_a_metric_sees_a_filled_region_as_one_sample(small_lake: lake.Lake, dk: Atlas) -> None:
    tables = tables_for(small_lake, dk, lake.Pipeline(missing="centroids", agg_metric=np.ptp))
    empty = tables.counts.sum(axis=1) == 0
    filled = tables.expression[empty].dropna(how="all")
    assert len(filled)
    assert filled.eq(0).all(axis=None)


# Donor effects.


@pytest.mark.parametrize(
    "choices", [{"sample_norm": "batch"}, {"gene_norm": "batch"}], ids=["sample", "gene"]
)
@pytest.mark.parametrize("norm_matched", [True, False])
def test_batch_is_the_model_over_all_donors(
    small_lake: lake.Lake, atlas: Atlas, choices: Mapping[str, Any], norm_matched: bool
) -> None:
    """abagen documents it and refuses it: correct.py:417 cannot be reached."""
    pipeline = lake.Pipeline(norm_matched=norm_matched, tolerance=0, **choices)
    plain = Prepared(small_lake, atlas, pipeline)
    left = {donor: plain.left(donor, norm_matched=norm_matched) for donor in plain.values}
    joined = np.concatenate([plain.values[donor][:, left[donor]] for donor in left], axis=1)
    donor = np.repeat(list(left), [len(positions) for positions in left.values()])
    residuals = remove_donor_effects(joined, donor)
    frames = []
    for name, positions in left.items():
        values = residuals[:, donor == name]
        if pipeline.gene_norm != "batch":
            values = normalize(values, pipeline.gene_norm)
        labels = plain.labels[name][positions]
        frame = pd.DataFrame(values.T, index=labels, columns=plain.symbols)[labels != 0]
        frames.append(frame.groupby(level=0).mean())
    ours = tables_for(small_lake, atlas, pipeline).expression
    expected = plain_table(frames, atlas)
    np.testing.assert_allclose(ours[expected.columns], expected, rtol=1e-9)
    assert ours.shape == expected.shape


def test_batch_makes_donors_means_equal(small_lake: lake.Lake) -> None:
    found = lake.samples_in_mask(small_lake, sample_norm=None, gene_norm="batch")
    means = found.expression.groupby(found.samples["donor"].to_numpy()).mean()
    np.testing.assert_allclose(means, means.iloc[[0]].to_numpy().repeat(len(means), axis=0), rtol=1e-9)


def test_batch_holds_a_block_of_genes_at_a_time(
    small_lake: lake.Lake, atlas: Atlas, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: list[tuple[int, ...]] = []

    def means(block: np.ndarray) -> np.ndarray:
        shapes.append(block.shape)
        return block.mean(axis=-1)

    monkeypatch.setattr(parts, "donor_means", means)
    monkeypatch.setattr(values_module, "genes_per_block", lambda n_samples: 100)
    pipeline = lake.Pipeline(gene_norm="batch", norm_matched=False)
    source = source_of(small_lake)
    genes = select_genes(source, pipeline, small_lake.donors)
    region_tables(genes, FreshValues(source, genes, pipeline), atlas, pipeline)
    n_genes = len(genes.selection.genes)
    sizes = genes.samples.groupby("donor", sort=False).size()
    assert {rows for rows, _ in shapes} == {100, n_genes % 100}
    assert sorted(set(sizes)) == sorted({width for _, width in shapes if width})


# RNA-seq.


def test_rnaseq_is_asked_for_only_where_it_is_used(small_lake: lake.Lake) -> None:
    asked: list[str] = []

    def profiles(*, by: str) -> dict[str, pd.DataFrame]:
        asked.append(by)
        samples = small_lake.samples[small_lake.samples["donor"] == small_lake.donors[0]]
        structures = samples["structure_id"].unique()
        symbols = sorted(set(small_lake.probes["reannotated_gene_symbol"]) - {""})
        values = np.random.default_rng(0).random((len(symbols), len(structures)))
        return {small_lake.donors[0]: pd.DataFrame(values, index=symbols, columns=structures)}

    plain = source_of(small_lake)
    source = Source(plain.microarray, plain.probes, plain.samples, plain.ontology, rnaseq=profiles)
    select_genes(source, lake.Pipeline(probe_selection="max_variance"), small_lake.donors)
    assert not asked
    found = select_genes(source, lake.Pipeline(probe_selection="rnaseq"), small_lake.donors)
    assert asked == ["structure"]
    assert len(found.selection.genes)
    without = Source(plain.microarray, plain.probes, plain.samples, plain.ontology)
    with pytest.raises(ChoiceError, match="needs RNA-seq"):
        select_genes(without, lake.Pipeline(probe_selection="rnaseq"), small_lake.donors)


# Choices that exclude each other.


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"donors": ["9861"]}, "'diff_stability' compares donors, and donors names only 9861"),
        ({"donors": ["9861", "9861"]}, "donors names only 9861"),
        (
            {"donors": "9861", "probe_selection": "max_variance", "gene_norm": "batch"},
            "'batch' removes what donors differ in, and donors names only 9861",
        ),
        ({"sample_norm": "batch", "gene_norm": "batch"}, "choose one of them"),
        ({"norm_structures": True, "gene_norm": "batch"}, "one model over all samples"),
        ({"missing": "centroid"}, "did you mean 'centroids'"),
    ],
)
def test_impossible_choices_are_refused_when_made(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(ChoiceError, match=message):
        lake.Pipeline(**choices)


def test_possible_neighbours_of_impossible_choices_pass() -> None:
    lake.Pipeline(donors=["9861"], probe_selection="max_variance")
    lake.Pipeline(sample_norm="batch", norm_structures=True)
    lake.Pipeline(gene_norm=None, norm_structures=True)


def test_donors_tables_of_joint_samples_are_refused_before_anything_is_written(
    small_lake: lake.Lake, atlas: Atlas, tmp_path: Any
) -> None:
    pipelines = [lake.Pipeline(), lake.Pipeline(region_agg="samples")]
    with pytest.raises(RequestError, match="Donors' tables do not exist with region_agg=samples"):
        lake.run(small_lake, [atlas], pipelines, out=tmp_path / "t", donor_tables=True)
    assert not (tmp_path / "t").exists()
