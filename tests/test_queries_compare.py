"""Comparing places and profiles: statistics against plain transcriptions, and what cannot be compared."""

import itertools
import math
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import zarr
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from scipy import special, stats

import lake
from lake.comparison import prior, trigamma_inverse
from lake.correlation import METHODS
from lake.errors import RequestError
from lake.selection import Selection, everything
from tests.published import Published
from transforms.pipeline import Pipeline

QUICK = settings(
    max_examples=settings.default.max_examples // 5,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="session")
def files(published: Path) -> Published:
    return Published(published)


@pytest.fixture(scope="module")
def cortex(small_lake: lake.Lake) -> Selection:
    return small_lake.structure(4008, hemisphere="L")


@pytest.fixture(scope="module")
def cerebellum(small_lake: lake.Lake) -> Selection:
    chosen = (small_lake.samples["structure"] == "cerebellum").to_numpy()
    return everything(small_lake).where(chosen, "cerebellum")


def differences(files: Published, a: Selection, b: Selection) -> pd.DataFrame:
    """Donor's mean in a - donor's mean in b, probe id x donor, by pandas on the files."""
    means = [
        files.expression[s.samples["well_id"]].T.groupby(s.samples["donor"].to_numpy()).mean().T
        for s in (a, b)
    ]
    return (means[0] - means[1]).dropna(axis=1)


# ---------------------------------------------------------------- by donors


def test_effects_are_those_of_the_files(
    small_lake: lake.Lake, cortex: Selection, cerebellum: Selection, files: Published
) -> None:
    table = small_lake.compare(cortex, cerebellum)
    expected = differences(files, cortex, cerebellum)
    found = table.set_index("probe_id").loc[expected.index]
    np.testing.assert_allclose(found["difference"], expected.mean(axis=1), rtol=0, atol=1e-12)
    np.testing.assert_allclose(found["fold_change"], 2 ** expected.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(found["mean_a"] - found["mean_b"], found["difference"], atol=1e-12)
    assert (found["n_donors"] == expected.shape[1]).all()
    assert (found["n_higher"] == (expected > 0).sum(axis=1)).all()
    assert table["difference"].is_monotonic_decreasing
    assert table.attrs["snapshot"] == small_lake.snapshot


def limma(by_donor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """t and p of limma's lmFit + eBayes for one mean a row, written down from Smyth (2004)."""
    n = by_donor.shape[1]
    d = n - 1.0
    s2 = by_donor.var(axis=1, ddof=1)
    e = np.log(np.maximum(s2, 1e-5 * np.median(s2))) - special.psi(d / 2) + np.log(d / 2)
    target = ((e - e.mean()) ** 2).sum() / (len(e) - 1) - special.polygamma(1, d / 2)
    if target <= 0:
        posterior = np.full(len(e), np.maximum(s2, 1e-5 * np.median(s2)).mean())  # limma since 2017
        total = len(e) * d
    else:
        low, high = 1e-6, 1e8  # trigamma falls: halve
        for _ in range(200):
            middle = math.sqrt(low * high)
            low, high = (middle, high) if special.polygamma(1, middle) > target else (low, middle)
        d0 = 2 * low
        s0 = math.exp(e.mean() + special.psi(d0 / 2) - math.log(d0 / 2))
        posterior = (d0 * s0 + d * s2) / (d0 + d)
        total = min(d0 + d, len(e) * d)
    t = by_donor.mean(axis=1) / np.sqrt(posterior / n)
    return t, 2 * stats.t.sf(np.abs(t), total)


def test_the_moderated_t_is_limmas(
    small_lake: lake.Lake, cortex: Selection, cerebellum: Selection, files: Published
) -> None:
    table = small_lake.compare(cortex, cerebellum)
    expected = differences(files, cortex, cerebellum)
    t, p_value = limma(expected.to_numpy())
    found = table.set_index("probe_id").loc[expected.index]
    np.testing.assert_allclose(found["t"], t, rtol=1e-8)
    np.testing.assert_allclose(found["p_value"], p_value, rtol=1e-7)
    np.testing.assert_allclose(found["fdr"], stats.false_discovery_control(p_value), rtol=1e-7)


@settings(deadline=None)
@given(df=st.integers(3, 8), prior_df=st.floats(3, 40), scale=st.floats(0.01, 100), seed=st.integers(0, 99))
def test_the_prior_is_found_again(df: int, prior_df: float, scale: float, seed: int) -> None:
    """Variances drawn from Smyth's model give back the degrees of freedom and the variance they came of."""
    generator = np.random.default_rng(seed)
    true = scale * prior_df / generator.chisquare(prior_df, 60_000)
    found_df, found_variance = prior(true * generator.chisquare(df, 60_000) / df, df)
    assert math.log(found_variance / scale) == pytest.approx(0, abs=0.1)
    assert 1 / found_df == pytest.approx(1 / prior_df, abs=0.05)


def test_few_genes_borrow_nothing(
    small_lake: lake.Lake, cortex: Selection, cerebellum: Selection, files: Published
) -> None:
    probe = int(small_lake.probes["probe_id"].iloc[7])
    table = small_lake.compare(cortex.genes(f"probe:{probe}"), cerebellum.genes(f"probe:{probe}"))
    by_donor = differences(files, cortex, cerebellum).loc[probe]
    expected = stats.ttest_1samp(by_donor, 0)
    assert table["t"].iloc[0] == pytest.approx(expected.statistic)
    assert table["p_value"].iloc[0] == pytest.approx(expected.pvalue)


@given(y=st.floats(0.01, 1e4))
def test_the_inverse_of_trigamma(y: float) -> None:
    assert trigamma_inverse(float(special.polygamma(1, y))) == pytest.approx(y, rel=1e-6)


def test_equal_variances_borrow_everything() -> None:
    variance = np.full(100, 2.0)
    assert prior(variance, 5) == (math.inf, 2.0)


def test_variances_that_differ_by_chance_are_pooled() -> None:
    """limma since 2017 takes their mean, which is the likeliest common variance."""
    variance = np.linspace(0.9, 1.1, 50)
    found_df, found = prior(variance, 2)
    assert found_df == math.inf
    assert found == pytest.approx(variance.mean())


@QUICK
@given(
    seed=st.integers(0, 10**6),
    shares=st.sampled_from([(0.04, 0.06), (0.05, 0.9), (0.5, 0.5)]),
    donors=st.sampled_from([["9861", "10021", "12876"], ["9861", "12876"]]),
)
@example(seed=315, shares=(0.04, 0.06), donors=["9861", "12876"])
def test_any_two_sets_are_compared_as_pandas_and_scipy_do(
    seed: int, shares: tuple[float, float], donors: list[str], small_lake: lake.Lake, files: Published
) -> None:
    """Two random sets, the three tests; probe by probe on the files' numbers."""
    labels = np.random.default_rng(seed).choice(list("ab-"), 220, p=(*shares, 1 - sum(shares)))
    of_donors = np.isin(files.samples["donor"], donors)
    wells = [files.samples.loc[(labels == name) & of_donors, "well_id"] for name in "ab"]
    assume(all(len(side) > 1 for side in wells))
    a, b = (everything(small_lake).where(np.isin(small_lake.samples["well_id"], side), "x") for side in wells)
    expected = differences(files, a, b)
    assume(expected.shape[1] > 1)
    table = small_lake.compare(a, b).set_index("probe_id").loc[expected.index]
    t, p_value = limma(expected.to_numpy())
    np.testing.assert_allclose(table["difference"], expected.mean(axis=1), atol=1e-12)
    np.testing.assert_allclose(table["t"], t, rtol=1e-7)
    np.testing.assert_allclose(table["p_value"], p_value, rtol=1e-6)
    np.testing.assert_allclose(table["fdr"], stats.false_discovery_control(p_value), rtol=1e-6)
    assert (table["n_donors"] == expected.shape[1]).all()

    sides = [files.expression[side] for side in wells]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Precision loss", RuntimeWarning)  # two equal samples of a probe
        welch = stats.ttest_ind(*sides, axis=1, equal_var=False)
    table = small_lake.compare(a, b, test="samples").set_index("probe_id").loc[expected.index]
    np.testing.assert_allclose(table["t"], welch.statistic, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(table["df"], welch.df, rtol=1e-9)
    np.testing.assert_allclose(table["p_value"], welch.pvalue, rtol=1e-7)
    np.testing.assert_allclose(table["fdr"], stats.false_discovery_control(welch.pvalue), rtol=1e-7)

    table = small_lake.compare(a, b, test="permutation", permutations=19, seed=5)
    p_value = table["p_value"].to_numpy()
    assert set(np.round(p_value * 20).astype(int)) <= set(range(1, 21))
    np.testing.assert_allclose(p_value * 20, np.round(p_value * 20), atol=1e-9)
    np.testing.assert_allclose(table["fdr"], stats.false_discovery_control(p_value), rtol=1e-9)


def test_the_order_of_the_sets_is_the_sign(
    small_lake: lake.Lake, cortex: Selection, cerebellum: Selection
) -> None:
    one, other = (
        small_lake.compare(*pair).set_index("probe_id").sort_index()
        for pair in ((cortex, cerebellum), (cerebellum, cortex))
    )
    np.testing.assert_allclose(one["difference"], -other["difference"], atol=1e-12)
    np.testing.assert_allclose(one["p_value"], other["p_value"], rtol=1e-9)
    np.testing.assert_allclose(one["fold_change"] * other["fold_change"], 1, rtol=1e-9)


# ---------------------------------------------------------------- the other tests


def test_samples_are_welchs(
    small_lake: lake.Lake, cortex: Selection, cerebellum: Selection, files: Published
) -> None:
    table = small_lake.compare(cortex, cerebellum, test="samples").set_index("probe_id")
    values = [files.expression[s.samples["well_id"]].loc[table.index] for s in (cortex, cerebellum)]
    spread = np.array([np.ptp(side.to_numpy(), axis=1) for side in values])
    varies, constant = (spread > 0).all(axis=0), (spread == 0).all(axis=0)
    expected = stats.ttest_ind(*(side[varies] for side in values), axis=1, equal_var=False)
    np.testing.assert_allclose(table["t"][varies], expected.statistic, rtol=1e-9)
    np.testing.assert_allclose(table["p_value"][varies], expected.pvalue, rtol=1e-7)
    assert (table["p_value"][constant] == 1).all()
    assert table["t"][constant].isna().all()
    assert varies.sum() > 300
    np.testing.assert_allclose(
        table["difference"], values[0].mean(axis=1) - values[1].mean(axis=1), atol=1e-12
    )
    assert "n_donors" not in table


def test_permutation_p_values_are_those_of_all_permutations(small_lake: lake.Lake) -> None:
    """Few enough samples that every shuffling within donors can be written down."""
    donor = small_lake.samples["donor"].to_numpy()
    first, second = (np.flatnonzero(donor == name) for name in ("9861", "10021"))
    a = everything(small_lake).where(np.isin(np.arange(220), [*first[:2], *second[:2]]), "a")
    b = everything(small_lake).where(np.isin(np.arange(220), [*first[2:5], *second[2:4]]), "b")
    table = small_lake.compare(a, b, test="permutation", permutations=4000, seed=3).set_index("probe_id")
    values = small_lake.everything().read()

    def mean_difference(chosen: tuple[int, ...], others: np.ndarray) -> np.ndarray:
        rest = [column for column in others if column not in chosen]
        return np.asarray(values[:, list(chosen)].mean(axis=1) - values[:, rest].mean(axis=1))

    parts = [
        [mean_difference(c, own) for c in itertools.combinations(own, 2)] for own in (first[:5], second[:4])
    ]
    every = np.array([(one + other) / 2 for one, other in itertools.product(*parts)])
    observed = every[0]
    exact = (np.abs(every) >= np.abs(observed) - 1e-9).mean(axis=0)
    found = table.loc[small_lake.probes["probe_id"], "p_value"]
    np.testing.assert_allclose(found, exact, atol=0.04)
    assert found.min() >= 1 / 4001


def test_a_seed_gives_the_same_again(small_lake: lake.Lake, cortex: Selection, cerebellum: Selection) -> None:
    one, same, other = (
        small_lake.compare(cortex, cerebellum, test="permutation", permutations=50, seed=seed)
        for seed in (1, 1, 2)
    )
    pd.testing.assert_frame_equal(one, same)
    assert not one["p_value"].equals(other["p_value"])


def test_null_p_values_are_uniform(small_lake: lake.Lake) -> None:
    """Labels that mean nothing: no test but that of samples-as-if-independent may find more than chance."""
    labels = np.random.default_rng(5).random(220) < 0.5
    a, b = (everything(small_lake).where(side, "x") for side in (labels, ~labels))
    for test in ("donors", "permutation"):
        p_value = small_lake.compare(a, b, test=test, permutations=200)["p_value"]
        assert (p_value < 0.01).mean() < 0.1


def test_genes_instead_of_probes(small_lake: lake.Lake, cortex: Selection, cerebellum: Selection) -> None:
    pipeline = Pipeline(probe_selection="max_intensity")
    table = small_lake.compare(cortex, cerebellum, pipeline=pipeline)
    probes = small_lake.compare(cortex, cerebellum).set_index("probe_id")
    assert table["gene_symbol"].is_unique
    np.testing.assert_allclose(table["difference"], probes.loc[table["probe_id"], "difference"], atol=1e-12)


def test_what_cannot_be_compared(small_lake: lake.Lake, cortex: Selection, cerebellum: Selection) -> None:
    with pytest.raises(RequestError, match="test='anova' is unknown"):
        small_lake.compare(cortex, cerebellum, test="anova")
    with pytest.raises(RequestError, match="have 75 samples in common"):
        small_lake.compare(cortex, cortex)
    with pytest.raises(RequestError, match="different probes"):
        small_lake.compare(cortex.genes(int(small_lake.probes["probe_id"].iloc[0])), cerebellum)
    with pytest.raises(RequestError, match=r"0 donors with samples in both .* needs 2; test='samples'"):
        small_lake.compare(cortex.of_donors("9861"), cerebellum.of_donors("10021"))
    with pytest.raises(RequestError, match=r"1 donor with samples in both .* test='permutation'"):
        small_lake.compare(cortex.of_donors("9861"), cerebellum)
    for number in (0, 10**9):
        with pytest.raises(RequestError, match=f"permutations={number}: 1 to 65,536 are possible"):
            small_lake.compare(cortex, cerebellum, test="permutation", permutations=number)
    with pytest.raises(RequestError, match="seed=-1: 0 or more"):
        small_lake.compare(cortex, cerebellum, test="permutation", seed=-1)
    apart = cortex.of_donors("9861"), cerebellum.of_donors("10021")
    with pytest.raises(RequestError, match=r"0 donors .* needs 1; test='samples'"):
        small_lake.compare(*apart, test="permutation")
    one = everything(small_lake).where(np.arange(220) == 3, "one")
    with pytest.raises(RequestError, match="two each are needed"):
        small_lake.compare(one, one.others(), test="samples")
    with pytest.raises(RequestError, match="as pipeline="):
        small_lake.compare(cortex.per_gene(probe_selection="average"), cerebellum)


# ---------------------------------------------------------------- correlation


@pytest.mark.parametrize("method", ["pearson", "spearman"])
def test_correlations_are_those_of_pandas(method: str, small_lake: lake.Lake, files: Published) -> None:
    probe = int(small_lake.probes["probe_id"].iloc[11])
    table = small_lake.correlated(f"probe:{probe}", method=method).set_index("probe_id")
    donor = files.samples.set_index("well_id")["donor"]
    r = pd.Series(0.0, index=files.expression.index)
    for name in small_lake.donors:
        wells = donor.index[donor == name]
        own = files.expression[wells]
        r += own.T.corrwith(own.loc[probe], method=method) * len(wells) / len(donor)
    np.testing.assert_allclose(table["r"], r.loc[table.index], atol=1e-12)
    assert table["r"].iloc[0] == pytest.approx(1)
    assert table.index[0] == probe
    assert table["r"].is_monotonic_decreasing


@QUICK
@given(data=st.data())
def test_correlations_with_any_gene_are_numpys(
    data: st.DataObject, small_lake: lake.Lake, files: Published
) -> None:
    """A random gene over random samples: each donor's corrcoef on the files, weighted by its samples."""
    symbol = data.draw(st.sampled_from(sorted(set(files.probes["new_symbol"]) - {""})))
    donors = data.draw(st.lists(st.sampled_from(small_lake.donors), min_size=1, unique=True))
    share = data.draw(st.sampled_from([0.05, 0.5, 1]))
    kept = np.random.default_rng(data.draw(st.integers(0, 99))).random(220) < share
    kept &= np.isin(files.samples["donor"], donors)
    counts = files.samples[kept].groupby("donor").size()
    used = files.samples[kept & files.samples["donor"].isin(counts.index[counts >= 3]).to_numpy()]
    assume(len(used))
    place = everything(small_lake).where(kept, "some")
    found = small_lake.correlated(symbol, within=place).set_index("probe_id")["r"]
    seeds = files.probes.loc[files.probes["new_symbol"] == symbol, "probe_id"]
    r, varies = np.zeros(len(found)), np.ones(len(found), dtype=bool)
    for _, own in used.groupby("donor"):
        values = files.expression.loc[found.index, own["well_id"]].to_numpy()
        seed = files.expression.loc[seeds, own["well_id"]].to_numpy()
        assume(np.ptp(seed, axis=1).min() > 0)  # see the test of constant profiles
        varies &= np.ptp(values, axis=1) > 0  # three samples can be at the floor of a weak probe
        profile = stats.zscore(seed, axis=1).mean(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            r += np.corrcoef(profile, values)[0, 1:] * len(own) / len(used)
    np.testing.assert_allclose(found[varies], r[varies], atol=1e-12)
    assert found[~varies].isna().all()
    assert found.abs().max() <= 1


@given(
    st.integers(0, 6).flatmap(
        lambda n: st.lists(
            st.lists(st.sampled_from([1.0, 2.5, 7, 7.5]), min_size=n + 1, max_size=n + 1), min_size=1
        )
    )
)
def test_ranks_are_scipys(rows: list[list[float]]) -> None:
    values = np.array(rows)
    np.testing.assert_array_equal(METHODS["spearman"](values), stats.rankdata(values, axis=1))


def constant_in_one_donor(store_copy: Path, row: int) -> lake.Lake:
    """A store in which a probe has one value in all samples of donor 12876."""
    array = zarr.open_array(store_copy / "microarray" / "12876" / "expression", mode="r+")
    array[row] = 5.0
    return lake.open(store_copy)


def test_a_constant_profile_has_no_correlation(store_copy: Path) -> None:
    probes = lake.open(store_copy).probes
    counts = probes["reannotated_gene_symbol"].value_counts()
    symbol = counts[(counts > 1) & (counts.index != "")].index[0]
    row = int(np.flatnonzero(probes["reannotated_gene_symbol"] == symbol)[0])
    probe = int(probes["probe_id"].iloc[row])
    store = constant_in_one_donor(store_copy, row)
    table = store.correlated(symbol)  # its other probes vary
    assert table["probe_id"].iloc[-1] == probe
    assert table["r"].isna().tolist() == [False] * 399 + [True]
    with pytest.raises(RequestError, match=f"probe:{probe} .* is constant in donor 12876"):
        store.correlated(f"probe:{probe}")
    assert store.correlated(f"probe:{probe}", donors=["9861", "10021"])["probe_id"].iloc[0] == probe


def test_probes_that_cancel_each_other_out_have_no_mean_profile(store_copy: Path) -> None:
    store = lake.open(store_copy)
    first, second = store.probes["probe_id"].iloc[:2]
    for donor in store.donors:
        array = zarr.open_array(store_copy / "microarray" / donor / "expression", mode="r+")
        array[1] = 10 - array[0]  # type: ignore[operator]
    pair = [f"probe:{first}", f"probe:{second}"]
    with pytest.raises(RequestError, match="cancel each other out in donor 9861: name one of them"):
        store.correlated(pair)
    assert store.correlated(pair[0])["r"].iloc[-1] == pytest.approx(-1)


def test_a_gene_of_several_probes_is_its_mean_profile(small_lake: lake.Lake) -> None:
    counts = small_lake.probes["reannotated_gene_symbol"].value_counts()
    symbol = counts[(counts > 1) & (counts.index != "")].index[0]
    place = small_lake.everything().of_donors("9861")
    table = small_lake.correlated(symbol, within=place)
    own = small_lake.gene(symbol, donors="9861").read()
    profile = stats.zscore(own, axis=1).mean(axis=0)
    values = place.read()
    expected = [np.corrcoef(profile, row)[0, 1] for row in values]
    found = table.set_index("probe_id").loc[small_lake.probes["probe_id"], "r"]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_correlated_genes(small_lake: lake.Lake) -> None:
    pipeline = Pipeline(probe_selection="max_intensity")
    genes = small_lake.everything().per_gene(pipeline)
    symbol = genes.probes["gene_symbol"].iloc[9]
    table = small_lake.correlated(symbol, pipeline=pipeline, donors="10021")
    values = genes.of_donors("10021").read()
    expected = [np.corrcoef(values[9], row)[0, 1] for row in values]
    np.testing.assert_allclose(
        table.set_index("gene_symbol").loc[genes.probes["gene_symbol"], "r"], expected, atol=1e-12
    )


def test_what_has_no_correlation(small_lake: lake.Lake) -> None:
    symbol = small_lake.probes["reannotated_gene_symbol"].iloc[-1]
    with pytest.raises(RequestError, match="method='kendall' is unknown"):
        small_lake.correlated(symbol, method="kendall")
    two = everything(small_lake).where(np.arange(220) < 2, "two samples")
    with pytest.raises(RequestError, match="no donor has 3 samples"):
        small_lake.correlated(symbol, within=two)
    genes = everything(small_lake).per_gene(probe_selection="average")
    with pytest.raises(RequestError, match="per_gene's choices as pipeline="):
        small_lake.correlated(symbol, within=genes)
