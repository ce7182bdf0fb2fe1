"""Samples to regions, beside a plain transcription; and what pipelines of one block share."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from tests.helpers import without_kernels
from transforms.aggregate import aggregate_donor, combine_donors
from transforms.missing import Filling
from transforms.regions import Aggregation, Unfilled

REGIONS = np.array([2, 3, 5, 8, 13])
N_GENES = 6
METRICS: list[Any] = ["mean", "median", np.max]

Values = dict[str, np.ndarray]


def brains(random: np.random.Generator) -> tuple[Values, Values, dict[str, Filling]]:
    """Values with gaps, labels, and what each donor gives to which regions."""
    values, labels, fillings = {}, {}, {}
    for donor in ("a", "b", "c")[: random.integers(1, 4)]:
        n_samples = int(random.integers(1, 9))
        own = random.normal(size=(N_GENES, n_samples))
        own[random.random(own.shape) < 0.1 * random.integers(0, 2)] = np.nan
        values[donor], labels[donor] = own, random.choice([0, *REGIONS], n_samples)
        filled = np.sort(random.choice(REGIONS, random.integers(0, 4), replace=False))
        weights = random.random((len(filled), n_samples)) * (random.random((len(filled), n_samples)) < 0.5)
        fillings[donor] = Filling(filled, sparse.csr_array(weights))
    return values, labels, fillings


def as_one(
    values: Values, labels: Values, fillings: dict[str, Filling], metric: Any, *, jointly: bool, whole: bool
) -> np.ndarray:
    """The definition: a gift to a region is one sample more, or takes the place of the donor's region."""

    def average(own: np.ndarray, regions: np.ndarray) -> np.ndarray:
        own = np.where(np.isnan(own).any(axis=1, keepdims=True), np.nan, own) if whole else own
        return aggregate_donor(own, regions, REGIONS, metric)

    gifts = {
        donor: np.nan_to_num(own, nan=0.0) @ fillings[donor].weights.toarray().T
        for donor, own in values.items()
    }
    if jointly:
        joined = np.concatenate([*values.values(), *gifts.values()], axis=1)
        given_to = [filling.regions for filling in fillings.values()]
        return combine_donors([average(joined, np.concatenate([*labels.values(), *given_to]))], metric)
    tables = []
    for donor, own in values.items():
        table = average(own, labels[donor])
        table[:, np.searchsorted(REGIONS, fillings[donor].regions)] = gifts[donor]
        tables.append(table)
    return combine_donors(tables, metric)


@pytest.mark.parametrize("with_kernels", [True, False])
@given(st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_regions_are_as_defined_whatever_is_shared(with_kernels: bool, seed: int) -> None:
    random = np.random.default_rng(seed)
    values, labels, fillings = brains(random)
    nothing = {
        donor: Filling(REGIONS[:0], sparse.csr_array((0, own.shape[1]))) for donor, own in values.items()
    }
    choices = [
        (metric, jointly, whole, filling)
        for metric in METRICS
        for jointly in (False, True)
        for whole in (False, True)
        for filling in (nothing, fillings)
    ]
    random.shuffle(choices)
    shared: Unfilled = {}
    with pytest.MonkeyPatch.context() as patch:
        if not with_kernels:
            without_kernels(patch)
        for metric, jointly, whole, filling in choices:
            aggregation = Aggregation(REGIONS, labels, filling, False, metric, jointly, whole, True)
            found = aggregation(values, shared)
            np.testing.assert_array_equal(found.combined, aggregation(values).combined)
            expected = as_one(values, labels, filling, metric, jointly=jointly, whole=whole)
            np.testing.assert_allclose(found.combined, expected, rtol=1e-12, atol=1e-14)
