"""Distance corrections against the recorded output of abagen 0.1.3 and transcriptions of AHBAprocessing."""

import itertools
import json
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.optimize import minimize_scalar

from transforms.atlas import Atlas
from transforms.distance import region_distances
from transforms.distance_correction import DISTANCE_CORRECTIONS, remove_distance
from transforms.errors import ChoiceError

EVERYTHING = json.loads((Path(__file__).parent / "data" / "abagen_correct.json").read_text())
RECORDED, REGIONS = EVERYTHING["distance"], EVERYTHING["regions"]
EXPONENTIALS = {"exp": "AB", "exp0": "A", "exp1": "B", "exp_1_0": ""}  # and n


def recorded_matrix(values, regions=REGIONS):
    return pd.DataFrame(np.reshape(values, (len(regions), -1)), index=regions, columns=regions)


@pytest.fixture(scope="module")
def small() -> Atlas:
    """The recorded atlas: eight regions of cortex, subcortex and cerebellum."""
    labels = np.reshape(RECORDED["labels"], (6, 7, 5)).astype(np.int16)
    image = nibabel.Nifti1Image(labels, np.array(RECORDED["affine"]))
    return Atlas.from_volume(image, pd.DataFrame(RECORDED["info"]), name="small")


@pytest.fixture(scope="module")
def coexpression() -> pd.DataFrame:
    return recorded_matrix(RECORDED["coexpression"])


def pairs(table):
    """Upper triangle of a region x region table."""
    return np.asarray(table)[np.triu_indices(len(table), k=1)]


def invented_pairs(seed=0, n=400):
    random = np.random.default_rng(seed)
    distance = random.uniform(4, 150, n)
    return distance, 0.7 * np.exp(-distance / 35) - 0.05 + random.normal(0, 0.1, n)


# abagen -----------------------------------------------------------------------------------------------------


def test_one_line_through_all_pairs_is_abagens(small, coexpression):
    found = remove_distance(coexpression, small)
    np.testing.assert_allclose(found, recorded_matrix(RECORDED["all"]), rtol=0, atol=1e-10)


def test_a_part_of_the_regions_is_abagens(small, coexpression):
    some = RECORDED["some_regions"]
    found = remove_distance(coexpression.loc[some, some], small)
    np.testing.assert_allclose(found, recorded_matrix(RECORDED["some"], some), rtol=0, atol=1e-10)


def test_class_pairs_as_abagen_fits_them(small, coexpression):
    found = remove_distance(coexpression, small, structure_pairs="abagen")
    expected = recorded_matrix(RECORDED["classes"])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)
    assert (expected == 0).to_numpy().sum() == 64 - 25 - 3  # all but cortex with cortex, and the diagonal


def test_every_class_pair_gets_its_own_line(small, coexpression):
    found = remove_distance(coexpression, small, structure_pairs="all")
    distance, residual, before = pairs(region_distances(small)), pairs(found), pairs(coexpression)
    kinds = np.array(small.regions["structure"], dtype=object)
    rows, columns = np.triu_indices(len(kinds), k=1)
    kind = np.array([" ".join(sorted(both)) for both in zip(kinds[rows], kinds[columns], strict=True)])
    assert len(set(kind)) == 5
    for name in set(kind):
        members = kind == name
        line = np.polynomial.Polynomial.fit(distance[members], before[members], min(1, members.sum() - 1))
        expected = before[members] - line(distance[members])
        np.testing.assert_allclose(residual[members], expected, rtol=0, atol=1e-10)
    fits = found.attrs["distance_correction"]["parameters"]
    assert set(fits) == {
        "cortex, cortex",
        "cortex, subcortex/brainstem",
        "cerebellum, cortex",
        "cerebellum, subcortex/brainstem",
        "subcortex/brainstem, subcortex/brainstem",
    }


# AHBAprocessing ---------------------------------------------------------------------------------------------


def residual_of_exponential(rate, distance, coexpression, free):
    """Residual with the best free scale and offset; those not free are 1 and 0."""
    decayed = np.exp(-rate * distance)
    columns = [column for name, column in (("A", decayed), ("B", np.ones_like(decayed))) if name in free]
    left = coexpression - (0 if "A" in free else decayed)
    if not columns:
        return left
    basis = np.column_stack(columns)
    return left - basis @ np.linalg.lstsq(basis, left, rcond=None)[0]


def best_exponential(distance, coexpression, free):
    """Residual of the best fit, its rate sought on a grid and then between the grid's points."""

    def squares(rate):
        return np.square(residual_of_exponential(rate, distance, coexpression, free)).sum()

    grid = np.linspace(-0.02, 0.5, 521)
    at = int(np.argmin([squares(rate) for rate in grid]))
    assert 0 < at < len(grid) - 1
    bounds = (grid[at - 1], grid[at + 1])
    rate = minimize_scalar(squares, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
    return residual_of_exponential(rate, distance, coexpression, free)


@pytest.mark.parametrize("correction", EXPONENTIALS)
@pytest.mark.parametrize("seed", range(4))
def test_exponentials_reach_the_lowest_sum_of_squares(correction, seed):
    distance, alike = invented_pairs(seed)
    fit = DISTANCE_CORRECTIONS[correction](distance, alike)
    residual = best_exponential(distance, alike, EXPONENTIALS[correction])
    np.testing.assert_allclose(alike - fit.values, residual, rtol=0, atol=1e-6)
    assert np.square(alike - fit.values).sum() <= np.square(residual).sum() + 1e-12


@pytest.mark.parametrize("correction", EXPONENTIALS)
def test_exponentials_find_what_was_put_in(correction):
    free = EXPONENTIALS[correction]
    scale, offset, rate = 0.6 if "A" in free else 1.0, -0.1 if "B" in free else 0.0, 0.024
    distance, _ = invented_pairs()
    fit = DISTANCE_CORRECTIONS[correction](distance, scale * np.exp(-rate * distance) + offset)
    assert fit.parameters == pytest.approx({"A": scale, "B": offset, "n": rate}, abs=1e-8)


@pytest.mark.parametrize("unit", [0.001, 1000.0])
def test_the_unit_of_distance_does_not_matter(unit):
    distance, alike = invented_pairs()
    for correction in set(DISTANCE_CORRECTIONS) - {"removeMean"}:
        fit = DISTANCE_CORRECTIONS[correction]
        expected = fit(distance, alike).values
        np.testing.assert_allclose(fit(distance * unit, alike).values, expected, rtol=0, atol=1e-7)


def test_lines_in_distance_and_in_its_inverse():
    distance, alike = invented_pairs()
    for correction, abscissa in {"linear": distance, "decay": 1 / distance}.items():
        slope, intercept, *_ = stats.linregress(abscissa, alike)
        fit = DISTANCE_CORRECTIONS[correction](distance, alike)
        np.testing.assert_allclose(fit.values, slope * abscissa + intercept, rtol=0, atol=1e-12)
        np.testing.assert_allclose(list(fit.parameters.values()), [slope, intercept], rtol=1e-10)


def matlab_quantiles(values, at):
    """Of n sorted values, the k-th is the (k - 0.5)/n quantile; linear between, clamped outside."""
    values = np.sort(values)
    return np.interp(at, (np.arange(len(values)) + 0.5) / len(values), values)


def test_bin_means_are_those_of_25_bins_with_the_farthest_pair_in_the_last():
    distance, alike = invented_pairs(n=333)
    both = np.concatenate([distance, distance])
    edges = matlab_quantiles(both, np.linspace(0, 1, 26))
    expected = np.empty_like(alike)
    sizes = []
    for low, high in itertools.pairwise(edges):
        inside = (distance >= low) & ((distance < high) | (distance == high) & (high == edges[-1]))
        expected[inside] = alike[inside].mean()
        sizes.append(inside.sum())
    assert sum(sizes) == 333
    assert set(sizes) <= {13, 14}
    fit = DISTANCE_CORRECTIONS["removeMean"](distance, alike)
    np.testing.assert_allclose(fit.values, expected, rtol=0, atol=1e-12)


# All of them ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("correction", DISTANCE_CORRECTIONS)
def test_what_is_missing_stays_missing_and_changes_no_other(small, coexpression, correction):
    gap = coexpression.copy()
    gap.loc[7, :] = gap.loc[:, 7] = np.nan
    found = remove_distance(gap, small, correction=correction)
    without = coexpression.drop(index=7, columns=7)
    expected = remove_distance(without, small, correction=correction).reindex_like(found)
    pd.testing.assert_frame_equal(found, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("correction", DISTANCE_CORRECTIONS)
def test_the_diagonal_stays_and_the_table_stays_symmetric(small, coexpression, correction):
    blank = coexpression.where(~np.eye(len(coexpression), dtype=bool))
    found, from_blank = (
        remove_distance(table, small, correction=correction) for table in (coexpression, blank)
    )
    np.testing.assert_array_equal(np.diag(found), np.diag(coexpression))
    assert np.isnan(np.diag(from_blank)).all()
    np.testing.assert_array_equal(pairs(found), pairs(from_blank))
    np.testing.assert_array_equal(found, found.T)


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_order_of_regions_never_matters(small, coexpression, seed):
    order = np.random.default_rng(seed).permutation(REGIONS)
    shuffled = coexpression.loc[order, order]
    for correction, structure_pairs in itertools.product(("linear", "decay", "removeMean"), (None, "all")):
        choices = {"correction": correction, "structure_pairs": structure_pairs}
        expected = remove_distance(coexpression, small, **choices).loc[order, order]
        found = remove_distance(shuffled, small, **choices)
        pd.testing.assert_frame_equal(found, expected, rtol=0, atol=1e-10)


def test_given_distances_replace_those_of_centroids_and_gaps_are_left_out(small, coexpression):
    distances = np.sqrt(region_distances(small))
    distances.loc[2, 9] = distances.loc[9, 2] = np.nan
    found = remove_distance(coexpression, small, distances=distances.sample(frac=1, random_state=1))
    apart, alike = pairs(distances), pairs(coexpression)
    known = ~np.isnan(apart)
    slope, intercept, *_ = stats.linregress(apart[known], alike[known])
    np.testing.assert_allclose(pairs(found), alike - slope * apart - intercept, rtol=0, atol=1e-10)
    assert np.isnan(found.loc[2, 9])


# What is refused --------------------------------------------------------------------------------------------


def test_wrong_requests_are_refused_with_a_sentence(small, coexpression):
    lopsided = coexpression.copy()
    lopsided.loc[1, 2] = 0.5
    touching = region_distances(small)
    touching.loc[1, 2] = touching.loc[2, 1] = 0
    refused = {
        "Unknown distance correction 'log': choose linear, exp, exp0": {"correction": "log"},
        "Unknown structure_pairs 'some': choose all, abagen, or None": {"structure_pairs": "some"},
        "must be symmetric": {"coexpression": lopsided},
        "same order": {"coexpression": coexpression.iloc[::-1]},
        "Atlas 'small' has no region 99": {
            "coexpression": coexpression.rename({1: 99}).rename({1: 99}, axis=1)
        },
        "The distances lack region 4": {"distances": touching.drop(index=4)},
        "0 mm apart": {"distances": touching, "correction": "decay"},
    }
    for sentence, request in refused.items():
        with pytest.raises(ChoiceError, match=sentence):
            remove_distance(**{"coexpression": coexpression, "atlas": small, **request})


def test_an_atlas_without_classes_has_no_class_pairs(atlas):
    table = pd.DataFrame(np.eye(8), index=range(1, 9), columns=range(1, 9))
    with pytest.raises(ChoiceError, match="Atlas 'octants' does not say the structure of region 1"):
        remove_distance(table, atlas, structure_pairs="all")
