"""Every choice beside the real abagen: combinations in which every two values of every two choices meet.

abagen runs in an environment of its own (tests/peer.py), on simulated samples: a quarter of the published
ones, so that many regions are empty and some structure classes have one sample. Where the environment cannot
be made, abagen's part comes from ``tests/data/abagen_choices.npz``, which
``python tests/data/record_parity_choices.py`` writes.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lake
from ingest.simulate import simulate
from tests import peer
from tests.covering import Excluded, all_pairs, covering_design, pairs
from tests.helpers import octants_image, store_beside
from tests.parity_cases import (
    AT_ONCE,
    ATLASES,
    CHOICES,
    COMBINATIONS,
    DESIGN,
    GIVEN,
    LIVE,
    METHODS,
    N_PROBES,
    OWN_SURFACES,
    SAMPLES_SCALE,
    SEED,
    SLOW,
    assert_recorded,
    cases,
    our_outcome,
    read_records,
)
from tests.peer import Outcome, assert_same
from transforms.missing import MISSING
from transforms.normalize import canonical_name
from transforms.samples import MIRRORS
from transforms.selections import DONOR_PROBES, SELECTIONS

LOGGER = logging.getLogger(__name__)


# The design.


def test_every_two_values_of_every_two_choices_meet() -> None:
    """Excluded pairs too: the combinations that are given have them."""
    assert len(COMBINATIONS) >= 120
    everything = all_pairs({**CHOICES, "atlas": (*ATLASES, OWN_SURFACES)})
    assert {pair for combination in DESIGN for pair in pairs(combination)} == everything
    assert sum(SLOW.items() <= combination.items() for combination in DESIGN) == len(GIVEN)


def test_choices_are_all_of_abagens() -> None:
    """But matching and those of other pipelines, which it does not have; and `batch`, which it refuses."""
    assert set(CHOICES) - {"atlas"} <= set(lake.Pipeline().parameters())
    assert set(CHOICES["probe_selection"]) <= set(SELECTIONS)
    assert set(CHOICES["donor_probes"]) == set(DONOR_PROBES)
    assert set(CHOICES["lr_mirror"]) == set(MIRRORS)
    assert set(CHOICES["missing"]) == set(MISSING)
    for short, long in METHODS.items():
        assert canonical_name(short) == canonical_name(long)
    assert len({canonical_name(name) for name in METHODS}) == len(METHODS) == 9


def test_recorded_are_the_combinations_of_the_design() -> None:
    """Fails when choices change: then ``python tests/data/record_parity_choices.py`` records anew."""
    assert list(read_records()) == list(COMBINATIONS)


@given(st.lists(st.integers(2, 4), min_size=2, max_size=5), st.data())
def test_a_design_meets_every_pair_that_is_not_excluded(sizes: list[int], data: st.DataObject) -> None:
    choices = {f"choice {at}": tuple(range(size)) for at, size in enumerate(sizes)}
    everything = all_pairs(choices)
    first = {name: data.draw(st.sampled_from(values)) for name, values in choices.items()}
    gone = data.draw(st.sampled_from(sorted(everything - set(pairs(first)))))
    arguments: dict[str, Any] = {"excluded": [Excluded(dict(gone), "drawn")], "given": [first], "at_least": 6}
    design = covering_design(choices, **arguments)
    assert {pair for combination in design for pair in pairs(combination)} == everything - {gone}
    assert len(design) >= 6
    assert design[0] == first
    assert design == covering_design(choices, **arguments)


def test_a_pair_that_a_third_choice_forbids_is_named() -> None:
    choices = {"a": (0, 1), "b": (0, 1), "c": (0, 1)}
    excluded = [Excluded({"a": 0, "c": 0}, "drawn"), Excluded({"b": 0, "c": 1}, "drawn")]
    with pytest.raises(ValueError, match="a=0 and b=0 cannot meet: exclude them, say why"):
        covering_design(choices, excluded=excluded)


# The comparison.


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six simulated donors, two of them with RNA-seq."""
    directory = tmp_path_factory.mktemp("choices") / "published"
    simulate(directory, probes=N_PROBES, samples_scale=SAMPLES_SCALE, seed=SEED, rnaseq=True)
    return directory


@pytest.fixture(scope="module")
def store(source: Path) -> lake.Lake:
    return lake.open(store_beside(source))


@pytest.fixture(scope="module")
def live(source: Path) -> Callable[[str], Outcome] | None:
    """What abagen gives now for a combination, None where it cannot be run.

    Combinations run some at a time, so that no test waits for all of them.
    """
    if peer.peer_python() is None:
        return None
    outcomes: dict[str, Outcome] = {}

    def outcome(name: str) -> Outcome:
        if name not in outcomes:
            at = list(COMBINATIONS).index(name) // AT_ONCE * AT_ONCE
            outcomes.update(peer.run_peer(cases()[at : at + AT_ONCE], source, source.with_name("peer")))
        return outcomes[name]

    return outcome


@pytest.mark.slow
@pytest.mark.parametrize("name", COMBINATIONS)
def test_tables_are_abagens(
    name: str,
    store: lake.Lake,
    live: Callable[[str], Outcome] | None,
    record_property: Callable[[str, object], None],
) -> None:
    ours = our_outcome(store, COMBINATIONS[name])
    if live is None:
        largest = assert_recorded(ours, read_records()[name])
    else:
        largest = assert_same(ours, live(name), **LIVE)
    record_property("largest_relative_difference", largest)
    LOGGER.info("%s: largest relative difference %.1e", name, largest)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMBINATIONS)
def test_recorded_numbers_are_still_abagens(name: str, live: Callable[[str], Outcome] | None) -> None:
    """Fails when the simulator has changed: then record anew, see this module's docstring."""
    if live is None:
        pytest.skip("abagen cannot be run here, so its recorded numbers cannot be checked.")
    assert_recorded(live(name), read_records()[name])


# Where abagen fails (docs/differences.md): each needs other data than a pair of choices.


ONE_SIDED, OCTANTS = "right.nii.gz", "octants.nii.gz"

FAILURES: dict[str, tuple[str, dict[str, Any], str]] = {
    "a donor without samples, centroids": (
        ONE_SIDED,
        {"missing": "centroids", "donors": ("9861", "12876")},
        "TypeError: can only concatenate str",
    ),
    "nothing to fill, centroids": (
        OCTANTS,
        {"missing": "centroids", "donors": ("9861", "10021")},
        "ValueError: Shape of passed values",
    ),
    "nothing to fill, interpolate": (
        OCTANTS,
        {"missing": "interpolate", "donors": ("9861", "10021")},
        "ValueError: No objects to concatenate",
    ),
    "batch": (OCTANTS, {"gene_norm": "batch", "donors": ("9861", "10021")}, "not recognized"),
}


@pytest.fixture(scope="module")
def images(source: Path) -> Path:
    """Eight octants, and those of the right side alone with a ninth region that no sample is near."""
    image = octants_image()
    nibabel.save(image, source.with_name(OCTANTS))
    labels = np.asarray(image.dataobj).copy()
    labels[:23] = 0
    labels[-1, -1, -1] = 9
    nibabel.save(nibabel.Nifti1Image(labels, image.affine), source.with_name(ONE_SIDED))
    return source.parent


@pytest.mark.slow
def test_abagen_fails_where_ours_does_not(source: Path, store: lake.Lake, images: Path) -> None:
    for image, choices, _ in FAILURES.values():
        assert lake.expression(store, images / image, **choices).notna().any(axis=None)
    if peer.peer_python() is None:
        pytest.skip("abagen cannot be run here.")
    cases = [
        {
            "name": f"failure{number}",
            "kind": "expression",
            "atlas": {"image": images / image},
            "atlas_info": None,
            "kwargs": choices,
        }
        for number, (image, choices, _) in enumerate(FAILURES.values())
    ]
    outcomes = peer.run_peer(cases, source, images / "failures")
    for (name, (*_, message)), outcome in zip(FAILURES.items(), outcomes.values(), strict=True):
        assert message in outcome.error, name
