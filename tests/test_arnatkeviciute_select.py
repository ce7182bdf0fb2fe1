"""Probe selections of AHBAprocessing against a plain transcription of its reference page, gene by gene."""

import itertools
from collections import Counter

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from transforms.errors import ChoiceError
from transforms.select import probe_scores, select_probes
from transforms.selections import ARNATKEVICIUTE_SELECTIONS, ScoreOptions

DONORS = ("9861", "10021", "12876")
GENES = {"AAA": 1, "BBB": 2, "CCC": 3, "DDD": 4, "EEE": 6, "FFF": 2}  # gene -> number of probes
N_SAMPLES = {"9861": 30, "10021": 24, "12876": 13}
VOTING = sorted(name for name, one in ARNATKEVICIUTE_SELECTIONS.items() if one.first_wins)


class Invented:
    """Probes in some order, expression, PACalls and RNA-seq of three donors."""

    def __init__(self, seed=0, donors=DONORS, decimals=12):
        random = np.random.default_rng(seed)
        symbols = np.repeat(list(GENES), list(GENES.values()))
        n = len(symbols)
        self.probes = pd.DataFrame(
            {
                "probe_id": random.permutation(n) + 100,
                "gene_symbol": symbols.astype(object),
                "entrez_id": np.repeat(np.arange(len(GENES)) + 7, list(GENES.values())),
                "row": random.permutation(n),
            }
        )
        tables, blocks, calls = {}, {}, {}
        for donor in DONORS:
            size = N_SAMPLES[donor]
            tables[donor] = pd.DataFrame(
                {
                    "donor": donor,
                    "structure_id": random.integers(1, 9, size),
                    "well_id": random.permutation(size) + 1000 * DONORS.index(donor),
                }
            )
            pattern = random.normal(size=(n, size)) + 2 * random.normal(size=size)
            blocks[donor] = (pattern + random.uniform(3, 9, (n, 1))).round(decimals)
            calls[donor] = random.random((n, size)) < random.random((n, 1))
        self.samples = pd.concat([tables[donor] for donor in donors], ignore_index=True)
        self.samples["column"] = np.arange(len(self.samples))
        place = np.argsort(self.probes["row"])
        self.values = np.hstack([blocks[donor] for donor in donors])  # in the probes' order
        self.calls = np.hstack([calls[donor] for donor in donors])
        self.expression = self.lazy(self.values[place])
        self.detected = self.lazy(self.calls[place])
        wells = {donor: tables[donor]["well_id"].to_numpy()[5:] for donor in ("9861", "10021")}
        self.rnaseq = {
            donor: pd.DataFrame(
                random.gamma(1, 5, (len(GENES) - 1, len(own) + 1)),
                index=np.arange(len(GENES) - 1) + 7,
                columns=[*own, 999_999],
            )
            for donor, own in wells.items()
            if donor in donors
        }

    @staticmethod
    def lazy(values):
        return xr.DataArray(da.from_array(values, chunks=(5, 20)), dims=("probe", "sample"))

    def select(self, method, *, order=None, **options):
        probes = self.probes if order is None else self.probes.iloc[order].reset_index(drop=True)
        return select_probes(
            self.expression,
            probes,
            self.samples,
            probe_selection=method,
            donor_probes="independent",
            rnaseq=self.rnaseq,
            detected=self.detected,
            **options,
        )

    def chosen(self, method, **options):
        """Gene -> the chosen probe's position in the table of probes; the donors' choices are the same."""
        selection = self.select(method, **options)
        position = dict(zip(self.probes["row"], self.probes.index, strict=True))
        (rows,) = {tuple(rows.tolist()) for rows in selection.rows.values()}
        return dict(zip(selection.genes["gene_symbol"], (position[row] for row in rows), strict=True))


# The page's measures, each over one gene of one donor: x is probes x samples, calls its PACalls -----------


def correlation_sums(x):
    pairs = 0.5 + 0.5 * np.corrcoef(x)
    np.fill_diagonal(pairs, 1)
    return pairs.sum(axis=0)


def first_component(x, calls):
    centred = (x - x.mean(axis=1, keepdims=True)).T
    values, vectors = np.linalg.eigh(centred.T @ centred)
    weights = vectors[:, np.argmax(values)]
    return weights * np.sign(weights[np.argmax(np.abs(weights))])


MEASURES = {
    "Variance": lambda x, calls: x.var(axis=1, ddof=1),
    "maxIntensity": lambda x, calls: x.mean(axis=1),
    "CV": lambda x, calls: x.std(axis=1, ddof=1) / x.mean(axis=1),
    "LessNoise": lambda x, calls: calls.sum(axis=1),
    "PC": first_component,
    "maxCorrelation_intensity": lambda x, calls: x.mean(axis=1) if len(x) == 2 else correlation_sums(x),
    "maxCorrelation_variance": lambda x, calls: x.var(axis=1, ddof=1) if len(x) == 2 else correlation_sums(x),
}


def most_voted(votes):
    """MATLAB's mode: of the most frequent the smallest."""
    counts = Counter(votes)
    return min(one for one in counts if counts[one] == max(counts.values()))


def votes_of_donors(data, gene, measure):
    rows = np.flatnonzero(data.probes["gene_symbol"] == gene)
    if len(rows) == 1:
        return [rows[0]]
    own = [(data.samples["donor"] == donor).to_numpy() for donor in DONORS]
    return [rows[np.argmax(measure(data.values[rows][:, o], data.calls[rows][:, o]))] for o in own]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("method", MEASURES)
def test_each_donor_chooses_and_the_most_frequent_choice_wins(method, seed):
    data = Invented(seed, decimals=0 if method == "LessNoise" else 12)
    expected = {gene: most_voted(votes_of_donors(data, gene, MEASURES[method])) for gene in GENES}
    assert data.chosen(method) == expected


@pytest.mark.parametrize("method", MEASURES)
def test_the_invented_donors_disagree(method):
    """Else the vote would not be tested: some gene has three different votes."""
    votes = [
        votes_of_donors(Invented(seed), gene, MEASURES[method])
        for seed in range(5)
        for gene in ("DDD", "EEE")
    ]
    assert any(len(set(one)) > 1 for one in votes)


def profile(data, donor, row):
    own = (data.samples["donor"] == donor).to_numpy()
    return pd.Series(data.values[row, own]).groupby(data.samples["structure_id"].to_numpy()[own]).mean()


def spearman(one, other):
    shared = one.index.intersection(other.index)
    return stats.spearmanr(one[shared], other[shared]).statistic


@pytest.mark.parametrize("seed", range(5))
def test_pairs_of_donors_vote_by_stability(seed):
    data, expected = Invented(seed), {}
    for gene in GENES:
        rows = np.flatnonzero(data.probes["gene_symbol"] == gene)
        votes = [
            rows[np.argmax([spearman(profile(data, a, row), profile(data, b, row)) for row in rows])]
            for a, b in itertools.combinations(DONORS, 2)
        ]
        expected[gene] = most_voted(votes)
    assert data.chosen("DS") == expected


def test_stability_scores_name_the_pairs():
    data = Invented()
    scores = probe_scores(
        data.expression, data.probes, data.samples, probe_selection="DS", donor_probes="aggregate"
    )
    assert scores["pool"].to_numpy().tolist() == ["9861 & 10021", "9861 & 12876", "10021 & 12876"]


def test_mean_is_abagens_average():
    data = Invented()
    ours, abagens = data.select("Mean"), data.select("average")
    pd.testing.assert_frame_equal(ours.genes, abagens.genes)
    assert all((ours.rows[donor] == abagens.rows[donor]).all() for donor in DONORS)


# RNA-seq ----------------------------------------------------------------------------------------------------


def agreement(data, row):
    """Plain means over the donors of rho and p."""
    rhos = []
    for donor, table in data.rnaseq.items():
        own = data.samples[data.samples["donor"] == donor]
        values = pd.Series(data.values[row, own.index], index=own["well_id"]).groupby(level=0).mean()
        entrez = data.probes["entrez_id"][row]
        if entrez not in table.index:
            return np.nan, np.nan
        wells = np.intersect1d(values.index, table.columns)
        result = stats.spearmanr(table.loc[entrez, wells].to_numpy(dtype=float), values[wells])
        rhos.append((result.statistic, result.pvalue))
    return np.mean(rhos, axis=0)


@pytest.mark.parametrize(("threshold", "significance"), [(-1.0, None), (0.0, None), (0.1, None), (0.0, 0.5)])
def test_rnaseq_keeps_the_genes_whose_best_probe_agrees(threshold, significance):
    kept_by_all = {}
    for seed in range(6):
        data, expected = Invented(seed), {}
        for gene in GENES:
            rows = np.flatnonzero(data.probes["gene_symbol"] == gene)
            found = np.array([agreement(data, row) for row in rows])
            best = np.argmax(np.where(np.isnan(found[:, 0]), -np.inf, found[:, 0]))
            passes = found[best, 0] > threshold and (significance is None or found[best, 1] < significance)
            if passes:
                expected[gene] = rows[best]
        options = ScoreOptions(rnaseq_threshold=threshold, rnaseq_significance=significance)
        assert data.chosen("RNAseq", options=options) == expected
        kept_by_all[seed] = len(expected)
    assert max(kept_by_all.values()) > 0
    assert all(n < len(GENES) for n in kept_by_all.values())  # FFF is not in the RNA-seq


def test_rnaseq_threshold_is_strict_and_p_is_scipys():
    data = Invented()
    rho, p = agreement(data, np.flatnonzero(data.probes["gene_symbol"] == "AAA")[0])
    scores = probe_scores(
        data.expression, data.probes, data.samples, probe_selection="RNAseq", donor_probes="aggregate",
        rnaseq=data.rnaseq, options=ScoreOptions(rnaseq_threshold=-1.0),
    ).compute()  # fmt: skip
    ours = float(scores[0, 0])
    assert ours == pytest.approx(rho, rel=1e-12)

    def keeps(**options):
        try:
            return "AAA" in data.chosen("RNAseq", options=ScoreOptions(**options))
        except ChoiceError:
            return False

    assert not keeps(rnaseq_threshold=ours)
    assert keeps(rnaseq_threshold=np.nextafter(ours, -1))
    assert keeps(rnaseq_threshold=-1, rnaseq_significance=p * (1 + 1e-9))
    assert not keeps(rnaseq_threshold=-1, rnaseq_significance=p * (1 - 1e-9))


def test_samples_of_one_well_are_averaged():
    """pairs mirrored copy repeats its well, and the agreement does not change."""
    data = Invented()
    before = data.select("RNAseq", options=ScoreOptions(rnaseq_threshold=-1.0)).genes
    data.samples = pd.concat([data.samples, data.samples.iloc[:7]], ignore_index=True)
    after = data.select("RNAseq", options=ScoreOptions(rnaseq_threshold=-1.0)).genes
    pd.testing.assert_frame_equal(before, after)


def test_constant_tpm_drops_the_gene():
    data = Invented()
    for table in data.rnaseq.values():
        table.iloc[1] = 3.0
    assert "BBB" not in data.chosen("RNAseq", options=ScoreOptions(rnaseq_threshold=-1.0))


def test_rnaseq_needs_its_donors():
    data = Invented(donors=("12876",))
    with pytest.raises(ChoiceError, match="'RNAseq' needs RNA-seq of one of the donors 12876"):
        data.select("RNAseq")


# Random -----------------------------------------------------------------------------------------------------


def by_id(data, **options):
    genes = data.select("Random", **options).genes
    return dict(zip(genes["gene_symbol"], genes["probe_id"], strict=True))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31), st.randoms(use_true_random=False), st.integers(1, 30))
def test_a_seed_draws_the_same_whatever_the_order(seed, random, block):
    data = Invented()
    order = list(range(len(data.probes)))
    random.shuffle(order)
    options = ScoreOptions(seed=seed)
    with dask.config.set(scheduler="threads", num_workers=2):
        shuffled = data.select("Random", order=order, options=options, probes_per_block=block)
    reference = data.select("Random", options=options)
    # A tie of votes goes to the first in the table, which was shuffled: the draws are compared.
    pd.testing.assert_series_equal(shuffled.genes["n_probes"], reference.genes["n_probes"])
    drawn = scores_by_id(data, order, options), scores_by_id(data, sorted(order), options)
    pd.testing.assert_frame_equal(*drawn)


def scores_by_id(data, order, options):
    probes = data.probes.iloc[list(order)].reset_index(drop=True)
    scores = probe_scores(
        data.expression,
        probes,
        data.samples,
        probe_selection="Random",
        donor_probes="common",
        options=options,
    ).compute()
    return pd.DataFrame(scores.to_numpy(), index=probes["probe_id"], columns=scores["pool"]).sort_index()


def test_the_order_of_donors_changes_no_draw():
    forwards, backwards = Invented(), Invented(donors=DONORS[::-1])
    assert by_id(forwards) == by_id(backwards)


def test_seeds_differ_and_every_probe_has_its_chance():
    data = Invented()
    drawn = [by_id(data, options=ScoreOptions(seed=seed)) for seed in range(200)]
    assert by_id(data, options=ScoreOptions(seed=3)) == drawn[3]
    ids = data.probes.loc[data.probes["gene_symbol"] == "EEE", "probe_id"]
    counts = Counter(one["EEE"] for one in drawn)
    assert set(counts) == set(ids)
    draws = pd.concat([scores_by_id(data, range(len(data.probes)), ScoreOptions(seed=n)) for n in range(50)])
    assert stats.kstest(draws.to_numpy().ravel(), "uniform").pvalue > 0.001


def test_random_reads_no_expression():
    def refuse(block):
        raise AssertionError("expression was read")

    data = Invented()
    data.expression = data.expression.copy(data=data.expression.data.map_blocks(refuse, dtype=float))
    assert len(data.select("Random").genes) == len(GENES)


# All --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [name for name in VOTING if name != "Random"])
def test_ties_go_to_the_first_in_the_tables_order(method):
    """Two equal probes: abagen takes the smaller id, AHBAprocessing the first name."""
    data = Invented()
    rows = np.flatnonzero(data.probes["gene_symbol"] == "BBB")
    data.probes.loc[rows, "probe_id"] = [900, 800]
    place = np.argsort(data.probes["row"])
    data.values[rows[1]], data.calls[rows[1]] = data.values[rows[0]], data.calls[rows[0]]
    data.expression, data.detected = data.lazy(data.values[place]), data.lazy(data.calls[place])
    assert data.chosen(method)["BBB"] == rows[0]


@pytest.mark.parametrize("method", [name for name in VOTING if name != "Random"])
def test_a_gene_without_a_defined_score_keeps_its_first_probe(method):
    data = Invented()
    rows = np.flatnonzero(data.probes["gene_symbol"] == "CCC")
    data.values[rows] = 0.0
    data.expression = data.lazy(data.values[np.argsort(data.probes["row"])])
    if method == "LessNoise":
        data.calls[rows] = False
        data.detected = data.lazy(data.calls[np.argsort(data.probes["row"])])
    assert data.chosen(method)["CCC"] == rows[0]


@pytest.mark.parametrize("method", [name for name in ARNATKEVICIUTE_SELECTIONS if name != "Mean"])
def test_building_scores_computes_nothing(method):
    data = Invented()

    def forbid(*args, **kwargs):
        raise AssertionError("something was computed")

    with dask.config.set(scheduler=forbid):
        probe_scores(
            data.expression, data.probes, data.samples, probe_selection=method, donor_probes="common",
            rnaseq=data.rnaseq, detected=data.detected, probes_per_block=4,
        )  # fmt: skip


def test_less_noise_needs_the_calls():
    data = Invented()
    with pytest.raises(ChoiceError, match="'LessNoise' counts detected samples: give `detected`"):
        select_probes(
            data.expression, data.probes, data.samples, probe_selection="LessNoise", donor_probes="common"
        )


@pytest.mark.parametrize("method", [name for name in ARNATKEVICIUTE_SELECTIONS if name != "Mean"])
@pytest.mark.parametrize("block", [1, 7, 1000])
def test_block_size_changes_no_choice(method, block):
    data = Invented(4)
    options = {"options": ScoreOptions(rnaseq_threshold=-1.0)}
    assert data.chosen(method, probes_per_block=block, **options) == data.chosen(method, **options)
