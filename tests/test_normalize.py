"""Normalisation against plain transcriptions, the recorded output of abagen 0.1.3, and its properties."""

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from scipy.optimize import brentq

from transforms import normalize as module
from transforms.errors import ChoiceError
from transforms.normalize import (
    ABAGEN_ALIASES,
    NORMALIZATIONS,
    NORMALIZATIONS_BY_QUANTILES,
    canonical_name,
    normalize,
    normalize_within,
    remove_donor_effects,
)
from transforms.scaling import FITS, QUANTILES, Scaling, joined, median, quantile

RECORDED = json.loads((Path(__file__).parent / "data" / "abagen_normalize.json").read_text())
SIGMOIDS = [name for name in NORMALIZATIONS if "sigmoid" in name]
SCALED = ["minmax", "scaled_sigmoid", "scaled_robust_sigmoid", "mixed_sigmoid"]


def array(values, shape):
    return np.array(values, dtype=float).reshape(shape)


# Plain transcriptions: one vector at a time ----------------------------------------------------------------


def plain_logistic(x):
    return 1 / (1 + np.exp(-x))


def plain_minmax(x):
    return (x - x.min()) / (x.max() - x.min())


def plain_sigmoid(x):
    return plain_logistic((x - x.mean()) / x.std(ddof=1))


def plain_robust_sigmoid(x, method, normal_iqr):
    low, high = np.percentile(x, [25, 75], method=method)
    return plain_logistic((x - np.median(x)) / ((high - low) / normal_iqr))


def plain_quantile_sigmoid(x, method):
    low, high = np.percentile(x, [5, 95], method=method)
    inside = x[(x >= low) & (x <= high)]
    return plain_minmax(plain_logistic((x - inside.mean()) / inside.std(ddof=1)))


def plain_psi(r, a, b, c):
    size = abs(r)
    if size < a:
        return r
    if size < b:
        return a * np.sign(r)
    return a * np.sign(r) * (c - size) / (c - b) if size < c else 0.0


def plain_hampel(x, method):
    median = np.median(x)
    corners = np.percentile(abs(x - median), [70, 85, 95], method=method)

    def total(guess):
        return sum(plain_psi(value - guess, *corners) for value in x)

    near, far = median, median
    step = np.sign(total(median)) * corners[0] / 200
    while total(far) * total(median) > 0:
        near, far = far, far + step
    location = brentq(total, min(near, far), max(near, far), xtol=1e-15) if near != far else median
    scale = np.sqrt(np.mean([plain_psi(value - location, *corners) ** 2 for value in x]))
    return 0.5 * (np.tanh(0.1 * (x - location) / scale) + 1)


def plain_methods(method, normal_iqr):
    return {
        "center": lambda x: x - x.mean(),
        "zscore": lambda x: stats.zscore(x, ddof=1),
        "minmax": plain_minmax,
        "sigmoid": plain_sigmoid,
        "scaled_sigmoid": lambda x: plain_minmax(plain_sigmoid(x)),
        "scaled_sigmoid_quantiles": lambda x: plain_quantile_sigmoid(x, method),
        "robust_sigmoid": lambda x: plain_robust_sigmoid(x, method, normal_iqr),
        "scaled_robust_sigmoid": lambda x: plain_minmax(plain_robust_sigmoid(x, method, normal_iqr)),
        "mixed_sigmoid": lambda x: plain_minmax(plain_robust_sigmoid(x, method, normal_iqr)),
        "hampel": lambda x: plain_hampel(x, method),
    }


PLAIN = {"linear": plain_methods("linear", 2 * stats.norm.ppf(0.75)), "hazen": plain_methods("hazen", 1.35)}


@pytest.fixture(scope="module")
def expression():
    """Genes over samples; skewed, so that no symmetry hides a wrong centre."""
    return np.random.default_rng(1).gamma(3, 2, (11, 53))


@pytest.mark.parametrize("quantiles", QUANTILES)
@pytest.mark.parametrize("method", NORMALIZATIONS)
def test_each_method_equals_its_plain_transcription(expression, method, quantiles):
    for count in (4, 5, 6, 7, 53):
        values = expression[:, :count]
        expected = [PLAIN[quantiles][method](vector) for vector in values]
        np.testing.assert_allclose(
            normalize(values, method, quantiles=quantiles), expected, rtol=0, atol=1e-12
        )


def test_both_conventions_offer_the_same_methods_and_every_alias_leads_to_one():
    assert NORMALIZATIONS_BY_QUANTILES.keys() == QUANTILES.keys()
    assert NORMALIZATIONS_BY_QUANTILES["hazen"].keys() == NORMALIZATIONS.keys()
    assert set(ABAGEN_ALIASES.values()) <= NORMALIZATIONS.keys()


def test_the_conventions_differ_by_as_much_as_was_published():
    values = np.append(np.random.default_rng(3).normal(size=50), [6, 7, -8])
    linear, hazen = (normalize(values, "srs", quantiles=quantiles) for quantiles in QUANTILES)
    assert 1e-3 < np.abs(linear - hazen).max() < 2e-2


@given(hnp.arrays(np.float64, st.integers(1, 40), elements=st.floats(-1e3, 1e3)))
def test_quantiles_are_numpys_and_the_linear_ones_to_the_last_bit(values):
    ordered = np.sort(values)
    for q in (0.05, 0.25, 0.75, 0.95):
        assert quantile(ordered, q, QUANTILES["linear"]) == np.quantile(values, q)
        hazen = np.quantile(values, q, method="hazen")
        assert quantile(ordered, q, QUANTILES["hazen"]) == pytest.approx(hazen, abs=1e-11)
    assert median(ordered) == np.median(values)


def test_the_linear_convention_uses_scipys_normal_interquartile_range():
    assert QUANTILES["linear"].normal_iqr == pytest.approx(2 * stats.norm.ppf(0.75), abs=1e-15)


# abagen's own output ---------------------------------------------------------------------------------------


def rounding_noise(name, values):
    """Columns where abagen returns what summing a constant column happened to leave."""
    return canonical_name(name) == "sigmoid" and np.ptp(values) == 0


@pytest.mark.parametrize("matrix", RECORDED["matrices"].values(), ids=RECORDED["matrices"])
@pytest.mark.parametrize("name", [names[0] for names in RECORDED["synonyms"]])
def test_each_method_is_abagens(matrix, name):
    values = array(matrix["values"], matrix["shape"])
    expected = array(matrix["normalized"][name], matrix["shape"])
    result = normalize(values, name, axis=0)
    for gene in range(values.shape[1]):
        if rounding_noise(name, values[:, gene]):
            assert np.isnan(result[:, gene]).all()
        else:
            np.testing.assert_allclose(result[:, gene], expected[:, gene], rtol=0, atol=1e-12)


def test_every_name_of_abagen_means_the_same_here():
    for names in RECORDED["synonyms"]:
        assert len({canonical_name(name) for name in names}) == 1
    accepted = {name for names in RECORDED["synonyms"] for name in names}
    assert accepted | {"batch", "hampel"} == {*NORMALIZATIONS, *ABAGEN_ALIASES, "batch"}


@pytest.mark.parametrize("name", RECORDED["structures"]["normalized"])
def test_normalising_within_structures_is_abagens(name, monkeypatch):
    monkeypatch.setattr(module, "BLOCK_VALUES", 10)
    case = RECORDED["structures"]
    values = array(case["values"], case["shape"]).T
    expected = array(case["normalized"][name], case["shape"]).T
    result = normalize_within(values, name, np.array(case["structures"]))
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-12)


def test_removing_donor_effects_is_abagens():
    case = RECORDED["batch"]
    result = remove_donor_effects(array(case["values"], case["shape"]).T, np.array(case["donor"]))
    np.testing.assert_allclose(result.T, array(case["corrected"], case["shape"]), rtol=0, atol=1e-12)


# Degenerate vectors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("quantiles", "method", "expected"),
    [
        *[
            ("linear", method, np.nan)
            for method in ("zscore", "minmax", "sigmoid", "scaled_sigmoid", "rs", "srs")
        ],
        ("linear", "center", 0.0),
        ("linear", "mixed_sigmoid", 0.0),
        ("linear", "scaled_sigmoid_quantiles", 1.0),
        *[
            ("hazen", method, np.nan)
            for method in ("zscore", "sigmoid", "scaled_sigmoid", "rs", "srs", "hampel")
        ],
        ("hazen", "minmax", 0.0),
        ("hazen", "mixed_sigmoid", 0.0),
        ("hazen", "scaled_sigmoid_quantiles", np.nan),
    ],
)
@pytest.mark.parametrize("value", [5.0, 0.1 + 0.2, 7.1, 11.3])
def test_constant_vectors(quantiles, method, expected, value):
    result = normalize(np.full((2, 7), value), method, quantiles=quantiles)
    np.testing.assert_allclose(result, np.full((2, 7), expected), atol=1e-14)


def test_without_spread_between_the_quartiles_only_the_mixed_sigmoid_is_defined():
    values = np.array([[3.0, 3, 3, 3, 3, 8, 1]])
    np.testing.assert_array_equal(normalize(values, "rs"), [[np.nan] * 5 + [1, 0]])
    assert np.isnan(normalize(values, "rs", quantiles="hazen")).all()
    assert np.isnan(normalize(values, "srs")).all()
    for quantiles in QUANTILES:
        np.testing.assert_allclose(
            normalize(values, "mixed_sigmoid", quantiles=quantiles), [plain_minmax(plain_sigmoid(values[0]))]
        )


@pytest.mark.parametrize("method", set(NORMALIZATIONS) - {"mixed_sigmoid", "scaled_sigmoid_quantiles"})
def test_a_missing_value_makes_the_vector_missing_in_the_linear_convention(expression, method):
    values = expression.copy()
    values[3, 5] = np.nan
    result = normalize(values, method)
    assert np.isnan(result[3]).all()
    np.testing.assert_array_equal(
        np.delete(result, 3, axis=0), normalize(np.delete(values, 3, axis=0), method)
    )


@pytest.mark.parametrize("method", set(NORMALIZATIONS) - {"center"})
def test_missing_values_are_left_out_in_the_hazen_convention(expression, method):
    values = expression.copy()
    values[3, [5, 20]] = np.nan
    values[4] = np.nan
    result = normalize(values, method, quantiles="hazen")
    assert np.isnan(result[3, [5, 20]]).all()
    assert np.isnan(result[4]).all()
    others = normalize(np.delete(values[3], [5, 20]), method, quantiles="hazen")
    np.testing.assert_array_equal(np.delete(result[3], [5, 20]), others)


# Properties ------------------------------------------------------------------------------------------------

vectors = hnp.arrays(np.float64, st.integers(4, 30), elements=st.integers(-80, 80).map(lambda x: x / 8))


@given(vectors, st.sampled_from(SIGMOIDS), st.sampled_from(list(QUANTILES)))
def test_sigmoids_lie_between_0_and_1_and_keep_the_order(values, method, quantiles):
    result = normalize(values, method, quantiles=quantiles)
    defined = ~np.isnan(result)
    assert np.all((result[defined] >= 0) & (result[defined] <= 1))
    assert np.all(np.diff(result[defined][np.argsort(values[defined], kind="stable")]) >= 0)


@given(vectors, st.sampled_from(SCALED))
def test_scaled_methods_reach_exactly_0_and_1(values, method):
    result = normalize(values, method)
    if not np.isnan(result).any() and result.any():
        assert (result.min(), result.max()) == (0, 1)


@given(vectors, st.sampled_from(list(NORMALIZATIONS)), st.sampled_from(list(QUANTILES)), st.randoms())
@settings(deadline=None)
def test_the_order_of_samples_does_not_matter(values, method, quantiles, random):
    order = random.sample(range(len(values)), len(values))
    result = normalize(values, method, quantiles=quantiles)
    np.testing.assert_allclose(
        normalize(values[order], method, quantiles=quantiles), result[order], atol=1e-10
    )


@given(vectors, st.sampled_from(list(set(NORMALIZATIONS) - {"center"})), st.floats(-50, 50))
@settings(deadline=None)
def test_a_shift_and_a_scale_of_the_microarray_do_not_matter(values, method, shift):
    expected = normalize(values, method)
    np.testing.assert_allclose(normalize(4 * values + np.round(shift * 8) / 8, method), expected, atol=1e-10)


# Shapes, blocks and memory ---------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [1, 60, 10**6])
@pytest.mark.parametrize("method", NORMALIZATIONS)
def test_axes_blocks_and_leading_dimensions_do_not_matter(expression, method, block, monkeypatch):
    expected = np.stack([normalize(vector, method) for vector in expression])
    monkeypatch.setattr(module, "BLOCK_VALUES", block)
    np.testing.assert_array_equal(normalize(expression, method), expected)
    np.testing.assert_array_equal(normalize(expression.T, method, axis=0), expected.T)
    cube = np.stack([expression, expression[::-1]])
    np.testing.assert_array_equal(normalize(cube, method), np.stack([expected, expected[::-1]]))


def test_the_result_can_replace_the_input(expression):
    values = expression.copy()
    assert normalize(values, "srs", out=values) is values
    np.testing.assert_array_equal(values, normalize(expression, "srs"))


def test_the_input_is_left_alone(expression):
    for method in [None, *NORMALIZATIONS]:
        values = expression.copy()
        result = normalize(values, method)
        result += 1
        np.testing.assert_array_equal(values, expression)


def test_no_method_copies_the_values():
    values = np.arange(6).reshape(2, 3)
    np.testing.assert_array_equal(normalize(values, None), values)
    np.testing.assert_array_equal(
        normalize_within(values.astype(float), None, np.array(["", "a", "b"])), values
    )


@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (0, 0)])
def test_nothing_in_nothing_out(shape):
    for method in NORMALIZATIONS:
        assert normalize(np.empty(shape), method).shape == shape
        assert normalize_within(np.empty(shape), method).shape == shape


def test_memory_is_the_output_and_a_few_blocks():
    values = np.random.default_rng(0).normal(size=(4000, 900))
    tracemalloc.start()
    normalize(values, "srs")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < values.nbytes + 8 * module.BLOCK_VALUES * 8


# Groups and donors -----------------------------------------------------------------------------------------


def test_each_group_is_normalised_by_itself(expression):
    groups = np.array(["cortex", "cerebellum", "cortex", ""] * 13 + ["cortex"])
    result = normalize_within(expression, "zscore", groups)
    for group in ("cortex", "cerebellum"):
        np.testing.assert_array_equal(
            result[:, groups == group], normalize(expression[:, groups == group], "zscore")
        )
    assert np.isnan(result[:, groups == ""]).all()


def test_without_groups_samples_missing_in_every_gene_do_not_touch_the_others(expression):
    values = expression.copy()
    values[:, 7] = np.nan
    result = normalize_within(values, "srs")
    assert np.isnan(result[:, 7]).all()
    np.testing.assert_array_equal(
        np.delete(result, 7, axis=1), normalize(np.delete(values, 7, axis=1), "srs")
    )


def test_a_sample_missing_in_some_genes_only_counts(expression):
    values = expression.copy()
    values[:4, 7] = np.nan
    result = normalize_within(values, "srs")
    assert np.isnan(result[:4]).all()
    np.testing.assert_array_equal(result[4:], normalize(expression[4:], "srs"))


def plain_donor_residual(vector, donor):
    design = np.column_stack([*(donor == name for name in np.unique(donor)), np.ones(len(donor))]).astype(
        float
    )
    betas = np.linalg.lstsq(design, vector, rcond=None)[0]
    return vector - design[:, :-1] @ betas[:-1]


@given(st.lists(st.sampled_from("abcd"), min_size=4, max_size=25).filter(lambda donors: len(set(donors)) > 1))
@settings(deadline=None)
def test_donor_effects_are_those_of_the_least_squares_model(donors):
    donor = np.array(donors)
    values = np.random.default_rng(len(donors)).normal(7, 2, (3, len(donor)))
    expected = [plain_donor_residual(vector, donor) for vector in values]
    result = remove_donor_effects(values, donor)
    np.testing.assert_allclose(result, expected, atol=1e-12)
    means = [result[:, donor == name].mean(axis=1) for name in np.unique(donor)]
    np.testing.assert_allclose(means, np.broadcast_to(means[0], np.shape(means)), atol=1e-12)


def test_samples_missing_in_every_gene_do_not_enter_the_donor_model(expression):
    donor = np.arange(expression.shape[1]) % 3
    values = expression.copy()
    values[:, 7] = np.nan
    values[2, 30] = np.nan
    result = remove_donor_effects(values, donor)
    expected = remove_donor_effects(np.delete(expression, 7, axis=1), np.delete(donor, 7))
    assert np.isnan(result[:, 7]).all()
    assert np.isnan(result[2]).all()
    np.testing.assert_allclose(
        np.delete(np.delete(result, 7, axis=1), 2, axis=0), np.delete(expected, 2, axis=0), atol=1e-12
    )


# Messages --------------------------------------------------------------------------------------------------


def test_unknown_choices_are_named_with_the_accepted_ones():
    with pytest.raises(ChoiceError, match=r"'zcore'.*zscore.*batch.*srs.*None"):
        canonical_name("zcore")
    with pytest.raises(ChoiceError, match=r"'cubic': choose one of linear, hazen"):
        normalize(np.ones(3), "srs", quantiles="cubic")
    with pytest.raises(ChoiceError, match=r"'batch'.*gene_norm"):
        normalize(np.ones(3), "batch")


@pytest.mark.parametrize(("donor", "found"), [(["9861"] * 3, "9861"), ([], "none")])
def test_donor_effects_need_two_donors(donor, found):
    with pytest.raises(ChoiceError, match=f"two or more donors with samples, found {found}"):
        remove_donor_effects(np.ones((2, len(donor))), np.array(donor))


# A scaling fitted apart from where it is applied.


@pytest.mark.parametrize("method", FITS)
@given(values=hnp.arrays(np.float64, (5, 9), elements=st.floats(-50, 50)))
@settings(deadline=None, max_examples=30)
def test_scaling_by_column_is_normalising_columns_to_the_last_bit(method, values):
    turned = np.ascontiguousarray(values.T)
    parts: list[Scaling] = [FITS[method](turned[:4]), FITS[method](turned[4:])]
    found = joined(parts).by_column(values)
    np.testing.assert_array_equal(found, normalize(values, method, axis=0))


@pytest.mark.parametrize("method", FITS)
def test_a_scaling_takes_values_that_it_was_not_fitted_to(method):
    rng = np.random.default_rng(0)
    seen, unseen = rng.normal(size=(3, 40)), rng.normal(size=(3, 7))
    scaling = FITS[method](seen)
    both = np.concatenate([seen, unseen], axis=1)
    np.testing.assert_array_equal(scaling(both)[:, :40], normalize(seen, method))
    np.testing.assert_array_equal(scaling(both)[:, 40:], scaling(unseen))


@pytest.mark.parametrize("method", NORMALIZATIONS)
def test_nearly_equal_values_among_others_are_normalised_in_the_end(method):
    """Hampel's steps are a part of the deviations, here 1e-15, and its root is sought some units away."""
    values = np.array([1.5] * 5 + [1.5 + 2**-50] * 8 + [20.0, -3.0, 7.0, 8.0])
    assert normalize(values, method).shape == values.shape
