"""Places of sorted values found by an order that is known are those of the values sorted."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bits import ANY, NUMBERS, ODD_NUMBERS, matrices, same_bits
from transforms import compiled, ranks
from transforms.ranks import Ranked, pick, ranked
from transforms.scaled import Groups, Scaled, of_regions
from transforms.scaling import (
    FITS,
    FITS_TO_SORTED,
    HAZEN,
    LINEAR,
    ordered_values,
    robust_places,
    scaled_robust_sigmoid_of,
)

BY_ORDER = [name for name, fit in FITS.items() if fit in FITS_TO_SORTED]


def of(values: np.ndarray) -> Ranked:
    found = ranked(values)
    assert isinstance(found, Ranked)
    return found


@st.composite
def subsets(draw: st.DrawFn, numbers: st.SearchStrategy[float]) -> tuple[np.ndarray, np.ndarray]:
    """A matrix, and some of its columns, ascending."""
    values = draw(matrices(numbers))
    chosen = draw(st.lists(st.integers(0, values.shape[1] - 1), min_size=1, unique=True))
    return values, np.sort(np.array(chosen))


@given(subsets(ODD_NUMBERS), st.data())
@ANY
def test_places_of_some_samples_are_those_of_these_sorted(drawn, data):
    values, members = drawn
    places = [*data.draw(st.lists(st.integers(0, len(members) - 1), max_size=8)), len(members) - 1]
    order = of(values).order
    found = same_bits(lambda: pick(values, order, members, places).values)
    expected = ordered_values(values[:, members])[:, np.unique(places)]
    np.testing.assert_array_equal(found, expected)


def test_places_of_many_samples_are_found_on_every_part_of_the_walk():
    random = np.random.default_rng(0)
    values = random.normal(size=(40, 1000))
    members = np.sort(random.permutation(1000)[:333])
    places = range(333)
    found = same_bits(lambda: pick(values, of(values).order, members, places).values)
    np.testing.assert_array_equal(found, np.sort(values[:, members], axis=1))


@pytest.mark.parametrize("quantiles", [LINEAR, HAZEN])
@given(subsets(NUMBERS))
@ANY
def test_what_is_picked_is_sliced_as_the_whole(quantiles, drawn):
    values, members = drawn
    count = len(members)
    picked = pick(values, of(values).order, members, robust_places(count, quantiles))
    whole = ordered_values(values[:, members])
    assert picked.shape == whole.shape
    for key in (
        0,
        -1,
        (count - 1) // 2,
        slice(0, 1),
        slice(-1, None),
        slice((count - 1) // 2, count // 2 + 1),
    ):
        np.testing.assert_array_equal(picked[..., key], whole[..., key])
    with np.errstate(all="ignore"):
        for found, expected in zip(
            scaled_robust_sigmoid_of(picked, quantiles).numbers().values(),
            scaled_robust_sigmoid_of(whole, quantiles).numbers().values(),
            strict=True,
        ):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("method", BY_ORDER)
@given(subsets(ODD_NUMBERS), st.data())
@ANY
def test_samples_are_scaled_the_same_with_their_order_and_without(method, drawn, data):
    values, columns = drawn
    classes = np.array(
        data.draw(st.lists(st.sampled_from("ab"), min_size=len(columns), max_size=len(columns)))
    )
    groups = Groups.of(columns, data.draw(st.sampled_from([None, classes])))
    with np.errstate(all="ignore"):
        plain = Scaled(values, groups, FITS[method]).array
        same = Scaled(values, groups, FITS[method], of(values).order).array
    np.testing.assert_array_equal(same, plain)


@pytest.mark.parametrize("medians", [False, True])
@pytest.mark.parametrize("method", BY_ORDER)
@given(subsets(ODD_NUMBERS), st.data())
@ANY
def test_regions_are_averaged_the_same_with_an_order_and_without(method, medians, drawn, data):
    values, columns = drawn
    classes = np.array(
        data.draw(st.lists(st.sampled_from("ab"), min_size=len(columns), max_size=len(columns)))
    )
    groups = Groups.of(columns, data.draw(st.sampled_from([None, classes])))
    chosen = np.array(data.draw(st.lists(st.integers(0, len(columns) - 1), unique=True)), dtype=int)
    starts = np.append(0, np.sort(data.draw(st.lists(st.integers(0, len(chosen)), max_size=4)))).astype(int)
    starts = np.append(starts, len(chosen))
    with np.errstate(all="ignore"):
        plain, same = (
            of_regions(Scaled(values, groups, FITS[method], order), chosen, starts, medians=medians)
            for order in (None, of(values).order)
        )
    if compiled.scaling is None:
        assert plain is same is None
    else:
        np.testing.assert_array_equal(same, plain)
        assert same.shape == (len(values), len(starts) - 1)


def test_an_order_is_walked_where_much_of_it_is_wanted_only(monkeypatch):
    walked = []
    monkeypatch.setattr("transforms.scaled.pick", lambda *given: walked.append(1) or pick(*given))
    values = np.random.default_rng(0).normal(size=(3, 400))
    for count, expected in ((100, 1), (99, 0)):
        walked.clear()
        groups = Groups.of(np.arange(0, 4 * count, 4) % 400)
        assert Scaled(values, groups, FITS["robust_sigmoid"], of(values).order).array.shape == (3, count)
        assert len(walked) == expected


def test_more_samples_than_the_order_counts_go_without(monkeypatch):
    monkeypatch.setattr(ranks, "MOST_SAMPLES", 4)
    assert isinstance(ranked(np.zeros((2, 4))), Ranked)
    assert isinstance(ranked(np.zeros((2, 5))), np.ndarray)
    assert isinstance(ranked(np.zeros((2, 0))), np.ndarray)


def test_ranked_values_are_sliced_as_arrays():
    values = np.random.default_rng(0).normal(size=(3, 5))
    found = of(values)
    assert (len(found), found.shape) == (3, (3, 5))
    np.testing.assert_array_equal(found[:, [4, 1]], values[:, [4, 1]])
    np.testing.assert_array_equal(
        np.take_along_axis(values, found.order.astype(int), axis=1), np.sort(values)
    )


@pytest.mark.parametrize("zeros", [[0.0, -0.0], [-0.0, 0.0]])
def test_which_zero_comes_first_changes_nothing(zeros):
    values = np.array([[-1.0, *zeros * 4, 1.0]])
    found = Scaled(values, Groups.of(np.arange(10)), FITS["robust_sigmoid"]).array
    np.testing.assert_array_equal(found, [[0.0, *[np.nan] * 8, 1.0]])
