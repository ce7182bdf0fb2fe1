"""Splits of the feed by donor, in space and at random, and normalisation that is fitted to one part."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lake
from lake.errors import RequestError
from lake.learning.splits import at_random, by_space
from tests.learning import published_values, rows_of, same_batches
from transforms.errors import ChoiceError
from transforms.normalize import normalize

# ---------------------------------------------------------------- splits


def test_donors_are_held_out_whole(feed_on_disk: lake.Feed, small_lake: lake.Lake) -> None:
    train, test = feed_on_disk.split_by_donor(["9861", "12876"])
    assert set(test.rows["donor"]) == {"9861", "12876"}
    assert set(train.rows["donor"]) == {"10021"}
    assert sorted(rows_of([*train.epoch(), *test.epoch()])) == list(range(220))
    assert [name for name, _, _ in feed_on_disk.donor_folds()] == small_lake.donors
    for name, rest, left_out in feed_on_disk.donor_folds():
        assert set(left_out.rows["donor"]) == {name}
        assert name not in set(rest.rows["donor"])
    with pytest.raises(RequestError, match="Donor 1 has no row"):
        feed_on_disk.split_by_donor("1")
    with pytest.raises(RequestError, match="to learn from"):
        feed_on_disk.split_by_donor(small_lake.donors)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 1000),
    fraction=st.floats(0.05, 0.6),
    margin=st.floats(0, 25),
    size=st.floats(5, 80),
)
def test_no_neighbour_across_a_split_in_space(seed: int, fraction: float, margin: float, size: float) -> None:
    places = np.random.default_rng(seed).uniform(-80, 80, (120, 3))
    try:
        train, test = by_space(places, fraction=fraction, margin=margin, size=size, seed=seed)
    except RequestError:
        return
    apart = np.linalg.norm(places[train][:, None] - places[test][None], axis=2)
    assert apart.min() > margin
    assert test.sum() >= round(fraction * 120)
    between = ~train & ~test
    nearest = np.linalg.norm(places[between][:, None] - places[test][None], axis=2)
    assert (nearest.min(axis=1) <= margin).all()
    cubes = np.floor(places / size)
    assert not set(map(tuple, cubes[test])) & set(map(tuple, cubes[~test]))


def test_splits_in_space_of_the_feed(feed_on_disk: lake.Feed) -> None:
    train, test = feed_on_disk.split_by_space(0.2, margin=12)
    distance = np.linalg.norm(
        train.rows[["mni_x", "mni_y", "mni_z"]].to_numpy()[:, None]
        - test.rows[["mni_x", "mni_y", "mni_z"]].to_numpy()[None],
        axis=2,
    )
    assert distance.min() > 12
    again, _ = feed_on_disk.split_by_space(0.2, margin=12)
    assert again.index.tolist() == train.index.tolist()
    other, _ = feed_on_disk.split_by_space(0.2, margin=12, seed=1)
    assert other.index.tolist() != train.index.tolist()
    with pytest.raises(RequestError, match="margin=-1"):
        feed_on_disk.split_by_space(margin=-1)
    with pytest.raises(RequestError, match="to learn from"):
        feed_on_disk.split_by_space(margin=1000)


def test_a_random_split_takes_each_row_once(feed_on_disk: lake.Feed) -> None:
    train, test = feed_on_disk.split_at_random(0.25, seed=4)
    assert (len(train), len(test)) == (165, 55)
    assert not set(train.index) & set(test.index)
    assert at_random(220, 0.25, 4)[1].sum() == 55
    for fraction in (0, 1, float("nan"), -0.1):
        with pytest.raises(RequestError, match="share between 0 and 1"):
            feed_on_disk.split_at_random(fraction)


def test_a_part_of_the_rows_is_a_feed(feed_on_disk: lake.Feed) -> None:
    cortex = feed_on_disk.where(feed_on_disk.rows["structure"] == "cortex")
    assert set(cortex.rows["structure"]) == {"cortex"}
    assert sorted(rows_of(cortex.epoch())) == cortex.index.tolist()
    with pytest.raises(RequestError, match="each of 220 rows"):
        feed_on_disk.where(np.ones(3, bool))
    with pytest.raises(RequestError, match="No row is left"):
        feed_on_disk.where(np.zeros(220, bool))


# ---------------------------------------------------------------- normalisation


def gathered(feed: lake.Feed) -> np.ndarray:
    """All rows, in the order of `Feed.rows`."""
    batches = list(feed.epoch())
    return np.concatenate([batch.expression for batch in batches])[np.argsort(rows_of(batches))]


@pytest.mark.parametrize("method", ["zscore", "srs"])
def test_over_the_rows_it_was_fitted_on_it_is_the_runs(method: str, small_lake: lake.Lake) -> None:
    feed = lake.feed(small_lake.everything(), dtype="float64")
    train, _ = feed.split_by_donor("9861")
    values = published_values(small_lake)[train.index]
    expected = normalize(values.T, method).T
    np.testing.assert_allclose(
        gathered(train.scaled(train.fit_scaling(method))), expected, rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("method", ["zscore", "srs"])
def test_fitted_on_train_alone(method: str, small_lake: lake.Lake) -> None:
    """Whatever the rows held back are, the rows to learn from come out the same."""
    train, test = lake.feed(small_lake.everything()).split_by_donor("9861")
    scaling = train.fit_scaling(method)
    found = train.observations

    def changed() -> Any:
        for start, block in found.blocks():
            block[:, test.index] = 1e6 * (start + 1)
            yield start, block

    other = lake.feed(type(found)(**{**vars(found), "blocks": changed})).where(
        ~np.isin(np.arange(220), test.index)
    )
    again = other.fit_scaling(method)
    np.testing.assert_array_equal(scaling.centre, again.centre)
    np.testing.assert_array_equal(scaling.scale, again.scale)
    assert same_batches(train.scaled(scaling).epoch(1), other.scaled(again).epoch(1))


@pytest.mark.parametrize("method", ["zscore", "srs"])
def test_constant_features_are_only_centred(method: str, small_lake: lake.Lake) -> None:
    feed = lake.feed(small_lake.gene("GFAP"), dtype="float64")
    found = feed.observations

    def constant() -> Any:
        yield 0, np.full(found.shape[::-1], 7.0)

    flat = lake.feed(type(found)(**{**vars(found), "blocks": constant}), dtype="float64")
    assert (gathered(flat.scaled(flat.fit_scaling(method))) == 0).all()
    with pytest.raises(ChoiceError, match="nope"):
        feed.fit_scaling("nope")
    with pytest.raises(RequestError, match="is not fitted; choose one of center, zscore"):
        feed.fit_scaling("hampel")
    with pytest.raises(RequestError, match="two rows"):
        feed.where(np.arange(220) == 3).fit_scaling()


def test_what_makes_no_split_is_refused() -> None:
    places = np.zeros((4, 3))
    for seed in (-1, 0.5):
        with pytest.raises(RequestError, match=f"seed={seed}: a whole number"):
            at_random(4, 0.5, seed)  # type: ignore[arg-type]
        with pytest.raises(RequestError, match=f"seed={seed}: a whole number"):
            by_space(places, fraction=0.5, margin=1, size=1, seed=seed)  # type: ignore[arg-type]
    places[2, 1] = np.nan
    with pytest.raises(RequestError, match="Some rows have no coordinates"):
        by_space(places, fraction=0.5, margin=1, size=1, seed=0)
