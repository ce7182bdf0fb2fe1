"""The whole pipeline of AHBAprocessing against a plain numpy transcription of its reference page, end to end.

The transcription shares nothing with the code under test but the published files' values: it sorts, filters,
selects, matches, normalises and averages anew, with loops where loops are clearest.
"""

import itertools
from collections import Counter
from functools import cache, cached_property

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import lake
from ingest.simulate import simulate
from lake.ingestion import ingest_directory
from lake.runs import tables_for
from transforms.atlas_set import AtlasSet
from transforms.errors import AtlasError, ChoiceError
from transforms.normalize import normalize
from transforms.pipeline import Pipeline

DONORS = ("9861", "10021", "12876")
BILATERAL = ("9861", "10021")
RANGES = {"LC": range(1, 35), "LS": range(35, 42), "RC": range(42, 76), "RS": range(76, 83)}
SETS = {
    "Lcortex": (DONORS, ("LC",)),
    "LcortexSubcortex": (DONORS, ("LC", "LS")),
    "LcortexSubcortexSEPARATE": (DONORS, ("LC", "LS")),
    "LRcortex": (BILATERAL, ("LC", "RC")),
    "wholeBrain": (BILATERAL, ("LC", "LS", "RC", "RS")),
}
CORTEX = (
    "cortex|gyrus|gyri|sulcus|occipital pole|planum temporale|cuneus|frontal pole|operculum|planum polare|"
    "temporal pole|paracentral lobule"
)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    directory = tmp_path_factory.mktemp("arnatkeviciute")
    simulate(directory / "files", probes=500, donors=DONORS, samples_scale=0.4, rnaseq=True)
    ingest_directory(directory / "files", directory / "small.zarr")
    return lake.open(directory / "small.zarr")


@pytest.fixture(scope="module")
def atlas(dk_native):
    return dk_native


@pytest.fixture(scope="module")
def read(store, atlas):
    return Read(store, atlas)


@pytest.fixture(scope="module")
def tables(store, atlas):
    """With no choice changed."""
    return tables_for(store, atlas, Pipeline.arnatkeviciute2019())


# The transcription ------------------------------------------------------------------------------------------


class Read:
    """S1, and what no choice of the tests changes: how probes agree with RNA-seq, which voxel is nearest."""

    def __init__(self, store, atlas):
        """Slabs, annotation, order by name."""
        self.store, self.atlas = store, atlas
        microarray = store.microarray().compute()
        samples, probes = store.samples, store.probes
        slabs = ~samples["slab_type"].str.contains("BS|CB")
        probes = probes[probes["reannotated_entrez_id"] > 0].sort_values("probe_name")
        self.samples = samples[slabs].reset_index(drop=True)
        self.x = microarray["expression"].to_numpy()[probes.index][:, np.flatnonzero(slabs)]
        self.calls = microarray["detected"].to_numpy()[probes.index][:, np.flatnonzero(slabs)]
        self.entrez = probes["reannotated_entrez_id"].to_numpy()
        self.symbol = probes["reannotated_gene_symbol"].to_numpy()
        self.of = {donor: np.flatnonzero(self.samples["donor"] == donor) for donor in DONORS}

    @cache  # noqa: B019 - one of these a module
    def agreement(self, row):
        """S2 (d): Spearman's rho with the gene's TPM over the wells of both, mean of the donors."""
        found = []
        for donor in BILATERAL:
            tpm = self.tpm[donor]
            if self.entrez[row] not in tpm.columns:
                return np.nan
            wells = self.samples["well_id"].to_numpy()[self.of[donor]]
            values = pd.Series(self.x[row, self.of[donor]], index=wells)
            shared = np.intersect1d(wells, tpm.index)
            one, other = tpm.loc[shared, self.entrez[row]], values[shared]
            if len(set(one)) == 1:
                return np.nan
            found.append(stats.spearmanr(one, other).statistic)
        return np.mean(found)

    @cached_property
    def tpm(self):
        """Well x gene, replicates averaged."""
        tables = {}
        for donor in BILATERAL:
            data = self.store.rnaseq(donor).compute()
            table = pd.DataFrame(data["tpm"].to_numpy().T, columns=data["entrez_id"].to_numpy())
            table = table.loc[:, ~table.columns.duplicated() & (table.columns >= 0)]
            tables[donor] = table.groupby(data["well_id"].to_numpy()).mean()
        return tables

    @cached_property
    def nearest(self):
        """S3: label and squared distance of the nearest voxel of the side's and part's labels, own grid."""
        names = self.samples["structure_name"]
        part = np.where(names.str.contains(CORTEX), "C", "S")
        side = np.select([names.str.contains("left"), names.str.contains("right")], ["L", "R"], "")
        groups = np.char.add(side.astype("U1"), part.astype("U1"))
        voxel = self.samples[["mri_voxel_x", "mri_voxel_y", "mri_voxel_z"]].to_numpy()
        label, distance = np.zeros(len(voxel), dtype=int), np.full(len(voxel), np.inf)
        for donor, own in self.of.items():
            image = self.atlas.of(donor)
            places = np.column_stack(np.unravel_index(image.nodes, image.shape))
            order = np.lexsort(places.T)  # z, then y, then x
            for group, wanted in RANGES.items():
                inside = order[np.isin(image.labels[order], wanted)]
                near, labels = places[inside], image.labels[inside]
                for sample in own[groups[own] == group]:
                    squared = ((near - voxel[sample]) ** 2).sum(axis=1)
                    first = np.argmin(squared)
                    label[sample], distance[sample] = labels[first], squared[first]
        return label, distance


class Transcribed:
    """Steps S2 to S4 with the choices that the tests vary."""

    def __init__(self, read, **choices):
        self.read, self.choice = read, choices
        self.select()
        label, distance = read.nearest
        self.label = np.where(distance <= self.choice.get("tolerance", 2) ** 2, label, 0)

    def kept_probes(self):
        """S2 (a), (b)."""
        calls = self.read.calls
        kept = calls.sum(axis=1) / calls.shape[1] >= self.choice.get("ibf", 0.5)
        if (percent := self.choice.get("variance")) is not None:
            x = self.read.x
            n_low = int(np.floor(len(x) * percent / 100 + 0.5))
            spreads = [np.var(2 ** x[:, own], axis=1, ddof=1) for own in self.read.of.values()]
            low = [set(np.argsort(spread, kind="stable")[:n_low]) for spread in spreads]
            kept[list(set.intersection(*low))] = False
        return kept

    def select(self):
        """S2 (d), (e): gene -> values of all samples."""
        read, kept, self.genes = self.read, self.kept_probes(), {}
        choose = self.by_rnaseq if self.choice.get("rnaseq", True) else self.by_variance
        for gene in sorted(set(read.entrez[kept])):
            row = choose(np.flatnonzero(kept & (read.entrez == gene)))
            if row is not None:
                self.genes[read.symbol[row]] = read.x[row]

    def by_variance(self, rows):
        x = self.read.x[rows]
        votes = [rows[np.argmax(x[:, own].var(axis=1, ddof=1))] for own in self.read.of.values()]
        counts = Counter(votes)
        return min(row for row in counts if counts[row] == max(counts.values()))

    def by_rnaseq(self, rows):
        found = np.array([self.read.agreement(row) for row in rows])
        if np.isnan(found).all():
            return None
        best = np.nanargmax(found)
        return rows[best] if found[best] > self.choice.get("threshold", 0.2) else None

    def normalised(self, donor, groups):
        """S4.1: (sample, gene), each sample over genes, then each gene over samples."""
        own = [s for s in self.read.of[donor] if any(self.label[s] in RANGES[group] for group in groups)]
        data = np.array([values[own] for values in self.genes.values()]).T
        method = METHODS[self.choice.get("norm", "scaledRobustSigmoid")]
        if self.choice.get("within_sample", True):
            data = method(data.T).T
        return self.label[own], data, method(data)

    def table(self, what):
        """S4: region x gene."""
        donors, groups = SETS[what]
        parts = [groups] if what != "LcortexSubcortexSEPARATE" else [(group,) for group in groups]
        labels, values, bad = {}, {}, np.zeros(len(self.genes), dtype=bool)
        for donor in donors:
            found = [self.normalised(donor, part) for part in parts]
            labels[donor] = np.concatenate([label for label, _, _ in found])
            normal = np.vstack([after for _, _, after in found])
            bad |= np.isnan(normal).any(axis=0)
            before = np.vstack([data for _, data, _ in found])
            values[donor] = normal if self.choice.get("do_normalise", True) else before
        regions = list(itertools.chain(*(RANGES[group] for group in groups)))
        kept = np.flatnonzero(~bad)
        means = {
            donor: np.array([mean_of(values[donor][labels[donor] == r][:, kept]) for r in regions])
            for donor in donors
        }
        self.stability = stability_over_all(means)
        if self.choice.get("mean_subjects"):
            with np.errstate(invalid="ignore"):
                stacked = np.stack(list(means.values()))
                there = ~np.isnan(stacked)
                expression = np.where(there, stacked, 0).sum(axis=0) / there.sum(axis=0)
        else:
            every = np.concatenate([labels[donor] for donor in donors])
            stacked = np.vstack([values[donor] for donor in donors])[:, kept]
            expression = np.array([mean_of(stacked[every == region]) for region in regions])
        names = np.array(list(self.genes))[kept]
        self.counts = pd.DataFrame(
            {d: [(labels[d] == r).sum() for r in regions] for d in donors}, index=regions
        )
        return pd.DataFrame(expression, index=regions, columns=names).sort_index(axis=1)


def mean_of(values):
    return values.mean(axis=0) if len(values) else np.full(values.shape[1], np.nan)


def stability_over_all(means):
    shared = np.all([~np.isnan(one).all(axis=1) for one in means.values()], axis=0)
    pairs = list(itertools.combinations([one[shared].round(10) for one in means.values()], 2))
    genes = range(pairs[0][0].shape[1])
    return [np.mean([stats.spearmanr(a[:, g], b[:, g]).statistic for a, b in pairs]) for g in genes]


def scaled_robust_sigmoid(data):
    """BF_NormalizeMatrix: per column; Hazen quantiles, IQR / 1.35."""
    out = np.empty_like(data)
    for column, x in enumerate(data.T):
        low, middle, high = np.quantile(x, [0.25, 0.5, 0.75], method="hazen")
        if high == low:
            out[:, column] = np.nan
            continue
        s = 1 / (1 + np.exp(-(x - middle) / ((high - low) / 1.35)))
        out[:, column] = (s - s.min()) / (s.max() - s.min())
    return out


def zscore(data):
    out = np.full_like(data, np.nan)
    for column, x in enumerate(data.T):
        if x.min() < x.max():
            out[:, column] = (x - x.mean()) / x.std(ddof=1)
    return out


METHODS = {"scaledRobustSigmoid": scaled_robust_sigmoid, "zscore": zscore}

# Ours ------------------------------------------------------------------------------------------------------

SEEN = {}  # shape and sum of a table -> its case
CASES = [
    ("Lcortex", {}, {}),
    ("LcortexSubcortex", {}, {}),
    ("LcortexSubcortexSEPARATE", {}, {}),
    ("LRcortex", {}, {}),
    ("wholeBrain", {}, {}),
    ("Lcortex", {"do_normalise": False}, {"do_normalise": False}),
    ("LcortexSubcortexSEPARATE", {"do_normalise": False}, {"do_normalise": False}),
    ("Lcortex", {"within_sample": False}, {"sample_norm": None}),
    ("LRcortex", {"mean_subjects": True}, {"region_agg": "donors"}),
    ("wholeBrain", {"mean_subjects": True, "norm": "zscore"}, {"region_agg": "donors"} | {
        "sample_norm": "zscore", "gene_norm": "zscore"}),
    ("Lcortex", {"ibf": -1, "threshold": 0.5}, {"ibf_threshold": -1, "rnaseq_threshold": 0.5}),
    ("Lcortex", {"variance": 40, "rnaseq": False}, {"variance_filter": 40, "probe_selection": "Variance"}),
    ("LcortexSubcortex", {"tolerance": 5}, {"tolerance": 5}),
]  # fmt: skip


@pytest.mark.parametrize(("what", "theirs", "ours"), CASES, ids=[f"{c[0]}-{[*c[2]]}" for c in CASES])
def test_tables_are_those_of_the_transcription(store, atlas, read, what, theirs, ours):
    transcribed = Transcribed(read, **theirs)
    expected = transcribed.table(what)
    tables = tables_for(store, atlas, Pipeline.arnatkeviciute2019(normalise_what=what, **ours))
    assert tables.expression.shape[1] > 20
    assert tables.expression.columns.tolist() == expected.columns.tolist()
    assert tables.expression.index.tolist() == expected.index.tolist()
    np.testing.assert_allclose(tables.expression, expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_array_equal(tables.counts, transcribed.counts)
    assert tables.counts.columns.tolist() == transcribed.counts.columns.tolist()
    found = tables.stability.set_index("gene_symbol")["stability"]
    kept = [gene for gene in transcribed.genes if gene in set(expected.columns)]
    theirs_by_gene = pd.Series(transcribed.stability, index=kept)
    np.testing.assert_allclose(found, theirs_by_gene[found.index], rtol=1e-9, atol=1e-12)

    other = SEEN.setdefault((expected.shape, float(np.nansum(expected))), (what, theirs))
    assert other == (what, theirs), "two cases give the same table, so one of them tests nothing"


def test_percent_ds_marks_the_most_stable_and_drops_none(store, atlas, tables):
    without, ten = (
        tables_for(store, atlas, Pipeline.arnatkeviciute2019(percent_ds=percent)) for percent in (None, 10)
    )
    assert without.stability is None
    stability = ten.stability
    n = int(np.floor(len(stability) * 0.1 + 0.5))
    assert stability["stable"].sum() == n
    assert stability.loc[stability["stable"], "stability"].min() >= stability["stability"].nlargest(n).min()
    assert tables.stability["stable"].all()
    for found in (without, ten):
        pd.testing.assert_frame_equal(found.expression, tables.expression)


def test_stability_is_written_beside_the_table(store, atlas, tmp_path):
    pipeline = Pipeline.arnatkeviciute2019(percent_ds=20)
    lake.run(store, [atlas], [pipeline], out=tmp_path)
    (path,) = tmp_path.glob("gene_stability/pipeline=*/atlas=*/part-0.parquet")
    table = pd.read_parquet(path)
    assert table.columns.tolist() == ["gene_symbol", "stability", "stable"]
    assert table["stable"].sum() == int(np.floor(len(table) * 0.2 + 0.5))


# Normalisation ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_normalisation_is_that_of_the_page(method):
    data = np.random.default_rng(0).normal(size=(50, 30))
    ours = normalize(data, method, axis=0, quantiles="hazen")
    np.testing.assert_allclose(ours, METHODS[method](data), rtol=1e-12, atol=1e-14)


def test_how_far_the_two_conventions_are_apart():
    """The page: 50 normal samples with 3 outliers differ by at most 0.0078 from abagen's."""
    random, differences = np.random.default_rng(3), []
    for _ in range(200):
        x = random.normal(size=50)
        x[:3] += random.choice([-1, 1], 3) * random.uniform(4, 8, 3)
        one, other = (normalize(x, "srs", quantiles=quantiles) for quantiles in ("hazen", "linear"))
        differences.append(np.abs(one - other).max())
    assert 0.001 < np.median(differences) < 0.0078 * 3
    assert min(differences) < 0.0078 < max(differences)


# What excludes each other, and what an atlas lacks ----------------------------------------------------------


def test_dividing_needs_to_know_the_regions(store, atlas):
    bare = AtlasSet(atlas.name, {donor: one.without_info() for donor, one in atlas.atlases.items()})
    with pytest.raises(AtlasError, match=r"divide_samples matches .* give atlas_info"):
        tables_for(store, bare, Pipeline.arnatkeviciute2019(normalise_what=None))


def test_a_set_of_both_sides_needs_a_bilateral_donor(store, atlas):
    pipeline = Pipeline.arnatkeviciute2019(
        normalise_what="wholeBrain", donors=["12876"], probe_selection="Variance", percent_ds=None
    )
    with pytest.raises(ChoiceError, match="a donor with samples in both hemispheres"):
        tables_for(store, atlas, pipeline)


def test_a_table_of_ones_own_decides_the_genes(store, atlas, tables):
    probes = store.probes[store.probes["reannotated_entrez_id"] > 0]
    own = pd.DataFrame(
        {
            "probe_name": probes["probe_name"],
            "gene_symbol": "my_" + probes["reannotated_gene_symbol"],
            "entrez_id": probes["reannotated_entrez_id"],
        }
    )
    ours = tables_for(store, atlas, Pipeline.arnatkeviciute2019(reannotated=own)).expression
    assert ours.columns.tolist() == [f"my_{symbol}" for symbol in tables.expression.columns]
    np.testing.assert_array_equal(ours, tables.expression)
