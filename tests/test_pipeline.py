"""The processing choices are checked when they are made, and named the same way everywhere."""

import dataclasses
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.errors import ChoiceError
from transforms.pipeline import Pipeline, suggest

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"ibf_threshold": 1.5}, r"ibf_threshold=1\.5: a number from 0 to 1 is needed"),
    ({"ibf_threshold": -0.1}, "a number from 0 to 1"),
    ({"ibf_threshold": None}, "ibf_threshold=None: a number from 0 to 1"),
    ({"ibf_threshold": "0.5"}, "ibf_threshold='0.5': a number"),
    ({"ibf_threshold": True}, "ibf_threshold=True: a number"),
    ({"ibf_threshold": float("nan")}, "ibf_threshold=nan: a number"),
    ({"tolerance": float("inf")}, "tolerance=inf: a number from -1000 to 1000"),
    ({"sim_threshold": -1}, "sim_threshold=-1: a number from 0"),
    ({"probe_selection": "diff_stabilty"}, "is unknown; did you mean 'diff_stability'"),
    ({"probe_selection": "zzz"}, "is unknown; there are .*max_intensity"),
    ({"probe_selection": None}, "probe_selection=None is unknown"),
    ({"donor_probes": "agregate"}, "did you mean 'aggregate'"),
    ({"lr_mirror": "both"}, "lr_mirror='both' is unknown; .*bidirectional"),
    ({"missing": "nowhere"}, "missing='nowhere' is unknown"),
    ({"sample_norm": "srx"}, "sample_norm: .*'srx'"),
    ({"gene_norm": 3}, "gene_norm: .*3"),
    ({"region_agg": "donor"}, "region_agg='donor' is unknown; did you mean 'donors'"),
    ({"agg_metric": "max"}, "agg_metric='max' is unknown"),
    ({"norm_matched": "yes"}, "norm_matched='yes': True or False is needed"),
    ({"corrected_mni": None}, "corrected_mni=None: True or False"),
    ({"reannotated": 1}, "reannotated=1: True or False"),
    ({"donors": []}, "donors is empty: name at least one donor, or 'all'"),
    ({"donors": None}, "donors=None: donor numbers or uids are needed"),
    ({"matching": "near"}, "matching='near' is unknown; did you mean 'nearest'"),
    ({"tolerence": 2}, "There is no choice 'tolerence'; did you mean 'tolerance'"),
    ({"wobble": 2}, "There is no choice 'wobble'; there are ibf_threshold, "),
]


@pytest.mark.parametrize(("choices", "message"), WRONG, ids=[str(choices) for choices, _ in WRONG])
def test_wrong_choices_are_told(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(ChoiceError, match=message) as caught:
        Pipeline.from_choices(choices)
    assert next(iter(choices)) in str(caught.value)


def test_defaults_are_abagens() -> None:
    assert Pipeline().parameters() == {
        **Pipeline().parameters(),
        "ibf_threshold": 0.5,
        "probe_selection": "diff_stability",
        "donor_probes": "aggregate",
        "sim_threshold": None,
        "lr_mirror": None,
        "missing": None,
        "tolerance": 2.0,
        "sample_norm": "scaled_robust_sigmoid",
        "gene_norm": "scaled_robust_sigmoid",
        "norm_matched": True,
        "norm_structures": False,
        "region_agg": "donors",
        "agg_metric": "mean",
        "corrected_mni": True,
        "reannotated": True,
        "donors": "all",
        "matching": "abagen",
    }


def test_a_pipeline_does_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Pipeline().tolerance = 3  # type: ignore[misc]


ONE_DONOR = {"probe_selection": "max_intensity"}  # the default compares donors
SAME: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"gene_norm": "srs"}, {"gene_norm": "scaled_robust_sigmoid"}),
    ({"sample_norm": "demean"}, {"sample_norm": "center"}),
    ({"tolerance": 2}, {"tolerance": 2.0}),
    ({"tolerance": np.int64(2)}, {"tolerance": 2}),
    ({"ibf_threshold": np.float32(0.5)}, {"ibf_threshold": 0.5}),
    ({"donors": [9861, 10021]}, {"donors": ["9861", "10021"]}),
    ({"donors": ["10021", "9861"]}, {"donors": ("9861", "10021")}),
    (ONE_DONOR | {"donors": ["9861", "9861"]}, ONE_DONOR | {"donors": "9861"}),
    (ONE_DONOR | {"donors": 9861}, ONE_DONOR | {"donors": ["9861"]}),
    ({"donor_probes": "common"}, {"donor_probes": "aggregate"}),  # diff_stability pools donors
]


@pytest.mark.parametrize(("one", "other"), SAME, ids=[str(one) for one, _ in SAME])
def test_the_same_choice_has_the_same_id(one: dict[str, Any], other: dict[str, Any]) -> None:
    first, second = Pipeline.from_choices(one), Pipeline.from_choices(other)
    assert first == second
    assert first.identity("s") == second.identity("s")


DIFFERENT: list[dict[str, Any]] = [
    {},
    {"ibf_threshold": 0.4},
    {"probe_selection": "max_intensity"},
    {"probe_selection": "max_intensity", "donor_probes": "common"},
    {"sim_threshold": 5},
    {"lr_mirror": "bidirectional"},
    {"tolerance": 3},
    {"tolerance": -3},
    {"sample_norm": None},
    {"gene_norm": None},
    {"norm_matched": False},
    {"norm_structures": True},
    {"region_agg": "samples"},
    {"agg_metric": "median"},
    {"corrected_mni": False},
    {"reannotated": False},
    {"donors": ["9861", "10021"]},
    {"matching": "nearest"},
]


def test_every_choice_makes_an_id_of_its_own() -> None:
    ids = {Pipeline.from_choices(choices).identity(snapshot) for choices in DIFFERENT for snapshot in "ab"}
    assert len(ids) == 2 * len(DIFFERENT)
    assert all(len(i) == 12 and int(i, 16) >= 0 for i in ids)


def test_the_id_is_the_same_in_another_process() -> None:
    code = "from transforms.pipeline import Pipeline; print(Pipeline(donors=['b', 'a', '1']).identity('s'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == Pipeline(donors=["1", "a", "b"]).identity("s")


def test_a_metric_of_ones_own_is_named() -> None:
    assert Pipeline(agg_metric=np.nanmax).parameters()["agg_metric"] == "numpy.nanmax"
    assert Pipeline(agg_metric=np.nanmax).identity("s") != Pipeline(agg_metric=np.nanmin).identity("s")


@given(st.text(max_size=12), st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=5))
def test_suggestions_name_what_there_is(name: str, known: list[str]) -> None:
    end = suggest(name, known)
    assert end.startswith(("; did you mean ", "; there are "))
    assert any(one in end or repr(one) in end for one in known)


@given(st.floats(0, 1))
def test_numbers_come_back_as_they_are(value: float) -> None:
    assert Pipeline(ibf_threshold=value).parameters()["ibf_threshold"] == value
