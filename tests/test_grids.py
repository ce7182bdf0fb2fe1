"""Grids of pipelines: what they hold, in which order, and what is left out and why."""

import itertools
import time
from collections import Counter
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lake
from lake.grids import MULTIVERSE, Grid, grid, multiverse
from transforms.errors import ChoiceError
from transforms.pipeline import _CONFLICTS, Pipeline, interacting_choices

# Values of the choices that can exclude each other, and of some that cannot.
VALUES: dict[str, list[Any]] = {
    "donors": ["all", "9861", ["9861", "10021"]],
    "probe_selection": ["diff_stability", "average", "max_intensity", "CV", "DS", "RNAseq"],
    "donor_probes": ["independent", "aggregate", "common"],
    "sample_norm": ["srs", "batch", None],
    "gene_norm": ["batch", "srs", None],
    "norm_structures": [True, False],
    "norm_matched": [False, True],
    "normalise_what": [None, "Lcortex", "LcortexSubcortexSEPARATE"],
    "missing": ["centroids", None],
    "do_normalise": [True, False],
    "divide_samples": [None, "ontology"],
    "exclude_hippocampus": [True, False],
    "percent_ds": [None, 5],
    "tolerance": [2, 0, -1],
    "lr_mirror": [None, "leftright"],
}


def every(base: Pipeline, choices: dict[str, list[Any]]) -> tuple[list[Pipeline], int]:
    """All the pipelines by trying all combinations, each once; and the number of combinations."""
    made: dict[Pipeline, None] = {}
    combinations = [
        dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())
    ]
    for chosen in combinations:
        try:
            made[base.changed(**chosen)] = None
        except ChoiceError:
            continue
    return [*made], len(combinations)


def test_the_published_multiverse_counts_as_published() -> None:
    started = time.process_time()
    made = lake.multiverse()
    assert len(made) == 373_248
    assert time.process_time() - started < 2  # listing it takes minutes
    assert made.n_combinations == 3 * 6 * 3 * 3 * 2 * 3 * 3 * 3 * 2**6
    assert sum(left.combinations for left in made.left_out) == made.n_combinations - len(made)
    assert len(made.left_out) == 3
    pairs = Counter(
        (p["probe_selection"], p["donor_probes"]) for p in map(made.choices, range(0, 373_248, 97))
    )
    assert len(pairs) == 12
    assert {mode for method, mode in pairs if method in ("average", "diff_stability", "rnaseq")} == {
        "aggregate"
    }


def test_the_multiverse_varies_what_was_published() -> None:
    made = multiverse()
    assert {name: len(values) for name, values in made.values.items()} == {
        "corrected_mni": 2, "lr_mirror": 3, "reannotated": 2, "ibf_threshold": 3, "probe_selection": 6,
        "donor_probes": 3, "missing": 2, "tolerance": 3, "sample_norm": 3, "gene_norm": 3, "norm_matched": 2,
        "norm_structures": 2, "region_agg": 2, "agg_metric": 2,
    }  # fmt: skip
    fixed = made[12345].difference().keys() - MULTIVERSE.keys()
    assert not fixed
    assert Pipeline() in made
    assert Pipeline(tolerance=3) not in made
    assert Pipeline(matching="nearest") not in made


def test_lists_of_the_multiverse_are_replaced() -> None:
    made = multiverse(tolerance=[2], sim_threshold=[None, 5], gene_norm=["srs"])
    assert len(made) == 373_248 // 9 * 2
    assert made[0].tolerance == 2


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_grid_is_every_valid_combination_once(data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from([*VALUES]), unique=True, max_size=5))
    choices = {
        name: data.draw(st.lists(st.sampled_from(VALUES[name]), unique_by=repr, min_size=1)) for name in names
    }
    base = data.draw(
        st.sampled_from(
            [
                Pipeline(),
                Pipeline(donors="9861", probe_selection="CV"),
                Pipeline(divide_samples="ontology", exclude_hippocampus=True, gene_norm="batch"),
                Pipeline.arnatkeviciute2019(),
            ]
        )
    )
    expected, n_combinations = every(base, choices)
    if not expected:
        with pytest.raises(ChoiceError, match="The grid has no valid combination: "):
            grid(base, **choices)
        return
    made = grid(base, **choices)
    listed = [*made]
    assert len(listed) == len(made) == len(expected)
    assert set(listed) == set(expected)
    assert [made[index] for index in range(len(made))] == listed
    assert made.n_combinations == n_combinations
    assert sum(left.combinations for left in made.left_out) == n_combinations - len(made)
    assert all(pipeline in made for pipeline in expected)


@pytest.mark.parametrize(("names", "excluded"), [conflict[:2] for conflict in _CONFLICTS], ids=str)
def test_conflicts_read_the_choices_they_name(names: tuple[str, ...], excluded: Any) -> None:
    """A grid checks these together, and no others."""

    class Only:
        def __init__(self, values: dict[str, Any]) -> None:
            self.__dict__.update(values)

    assert set(names) in interacting_choices()
    for values in itertools.product(*(VALUES[name] for name in names)):
        canonical = [(value,) if name == "donors" and value != "all" and isinstance(value, str) else value
                     for name, value in zip(names, values, strict=True)]  # fmt: skip
        excluded(Only(dict(zip(names, canonical, strict=True))))


def test_the_first_choice_varies_slowest() -> None:
    made = grid(tolerance=[0, 2], lr_mirror=[None, "leftright"], ibf_threshold=[0.5])
    assert [(p.tolerance, p.lr_mirror) for p in made] == [
        (0, None),
        (0, "leftright"),
        (2, None),
        (2, "leftright"),
    ]
    assert made[-1] == made[3]
    assert made[1:3] == [made[1], made[2]]
    assert made[::-1] == [*made][::-1]
    with pytest.raises(IndexError):
        made[4]
    with pytest.raises(IndexError):
        made[-5]


def test_a_grid_of_nothing_is_its_base() -> None:
    assert [*grid()] == [Pipeline()]
    assert [*grid("Burt2018")] == [Pipeline.preset("Burt2018")]
    made = grid(Pipeline.preset("Burt2018"), tolerance=[0, 1])
    assert [*made] == [Pipeline.preset("Burt2018", tolerance=value) for value in (0, 1)]


def test_what_is_left_out_is_counted_by_reason() -> None:
    made = grid(
        normalise_what=[None, "Lcortex"],
        norm_matched=[True, False],
        missing=[None, "centroids"],
        donor_probes=["independent", "aggregate"],
        tolerance=[0, 1, 2],
    )
    assert len(made) == (4 + 1) * 1 * 3
    reasons = {left.reason: left.combinations for left in made.left_out}
    assert len(reasons) == 3
    assert sum(reasons.values()) == 2**4 * 3 - 15
    (matched,) = (count for reason, count in reasons.items() if "norm_matched=False asks" in reason)
    (missing,) = (count for reason, count in reasons.items() if "missing='centroids' fills" in reason)
    (decided,) = (
        count for reason, count in reasons.items() if "always takes donor_probes='aggregate'" in reason
    )
    assert (matched, missing, decided) == (2 * 2 * 3, 1 * 2 * 3, 5 * 3)
    assert [left.combinations for left in made.left_out] == sorted(reasons.values(), reverse=True)
    assert repr(made) == "<Grid of 15 pipelines, 33 combinations left out>"


def test_a_large_grid_is_drawn_from_without_listing_it() -> None:
    made = multiverse()
    drawn = made.sample(1000, seed=3)
    assert len(set(drawn)) == 1000
    assert made.sample(1000, seed=3) == drawn
    assert made.sample(1000, seed=4) != drawn
    assert all(pipeline in made for pipeline in drawn[:20])
    counts = Counter(pipeline.tolerance for pipeline in drawn)
    assert all(260 < counts[value] < 410 for value in (0, 1, 2))


def test_samples_are_the_same_everywhere() -> None:
    """Recorded: what a projection was made of can be drawn again."""
    small = grid(tolerance=[*range(100)])
    assert [pipeline.tolerance for pipeline in small.sample(5, seed=1)] == SAMPLED
    assert small.sample(100) == [*small]
    assert small.sample(0) == []
    with pytest.raises(ChoiceError, match="The grid has 100 pipelines: draw from 0 to as many, not 101"):
        small.sample(101)


SAMPLED = [12, 25, 49, 74, 82]


PROPORTIONS = (
    "ibf_threshold", "rnaseq_threshold", "rnaseq_significance", "variance_filter", "sim_threshold"
)  # fmt: skip


def test_grids_of_astronomical_size() -> None:
    made = grid(
        tolerance=[*range(1000)], ibf_threshold=[n / 1000 for n in range(1000)], seed=[*range(10_000)]
    )
    assert len(made) == 10**10
    assert made[10**10 - 1].tolerance == 999
    proportions = {name: [n / 1000 for n in range(1000)] for name in PROPORTIONS}
    with pytest.raises(ChoiceError, match="more than can be counted"):
        grid(tolerance=[*range(1000)], seed=[*range(1000)], **proportions)
    with pytest.raises(
        ChoiceError, match=r"percent_ds.* can exclude each other and have 90,000 combinations"
    ):
        grid(percent_ds=[n / 1000 for n in range(30_000)], donors=["all", "9861", "10021"])


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"tolerence": [2]}, "There is no choice 'tolerence'; did you mean 'tolerance'"),
        ({"tolerance": 2}, r"tolerance=2: a grid takes a list of values, \[2\]"),
        ({"gene_norm": "srs"}, r"gene_norm='srs': a grid takes a list of values, \['srs'\]"),
        ({"gene_norm": {"srs": 1}}, "a grid takes a list of values"),
        ({"reannotated": pd.DataFrame()}, "a grid takes a list of values"),
        ({"tolerance": []}, "tolerance has no value: name at least one"),
        ({"tolerance": [2, "x"]}, "tolerance='x': a number from -1000 to 1000"),
        ({"tolerance": [2, 2.0]}, r"tolerance has the value 2\.0 twice"),
        ({"gene_norm": ["srs", "scaled_robust_sigmoid"]}, "gene_norm has the value '.*' twice"),
        ({"donors": ["9861"]}, "no valid combination: probe_selection='diff_stability' compares donors"),
    ],
)
def test_wrong_grids_are_told(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(ChoiceError, match=message):
        grid(**choices)


def test_wrong_bases_are_told() -> None:
    with pytest.raises(ChoiceError, match="There is no preset 'Burt'"):
        grid("Burt")


def test_a_grid_is_a_sequence_of_pipelines() -> None:
    made = grid(tolerance=[0, 1])
    assert isinstance(made, Grid)
    assert made.index(Pipeline(tolerance=1)) == 1
    assert "tolerance" not in made
    assert lake.grid is grid
