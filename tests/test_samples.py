"""Choosing samples: an invented brain, the true metadata where present, and abagen's similarity filter."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.reference import corrected_coordinates
from tests.helpers import METADATA, needs_metadata
from transforms import samples as module
from transforms.errors import ChoiceError
from transforms.samples import (
    MIRRORS,
    mirror,
    prepare_samples,
    similar_samples,
    use_coordinates,
)

RECORDED = json.loads((Path(__file__).parent / "data" / "abagen_aggregate.json").read_text())["similarity"]

ONTOLOGY = pd.DataFrame(
    [
        (1, "Br", "brain", "B", ""),
        (11, "Ag", "gyrus A, left", "L", "cortex"),
        (12, "Ag", "gyrus A, right", "R", "cortex"),
        (21, "Bn", "nucleus B, left", "L", "subcortex/brainstem"),
        (22, "Bn", "nucleus B, right", "R", "subcortex/brainstem"),
        (30, "Vm", "vermis", "B", "cerebellum"),
        (41, "Lo", "left only", "L", "cortex"),
    ],
    columns=["structure_id", "acronym", "name", "hemisphere", "structure"],
)


def invented(*rows):
    """Samples table from (donor, well_id, structure_id, mni_x, corrected_mni_x) rows."""
    table = pd.DataFrame(rows, columns=["donor", "well_id", "structure_id", "mni_x", "corrected_mni_x"])
    named = ONTOLOGY.set_index("structure_id").reindex(table["structure_id"])
    return table.assign(
        structure_acronym=named["acronym"].to_numpy(),
        structure_name=named["name"].to_numpy(),
        mni_y=1.0,
        mni_z=2.0,
        corrected_mni_y=3.0,
        corrected_mni_z=4.0,
        hemisphere="",
        structure="",
    )


SAMPLES = invented(
    ("100", 901, 12, 20.0, 21.0),
    ("100", 902, 11, -20.0, -21.0),
    ("200", 903, 21, -8.0, -9.0),
    ("200", 904, 11, 3.0, -1.0),  # on the wrong side as published, not as corrected
    ("200", 905, 30, 0.0, 0.0),
    ("200", 906, 30, 2.0, 2.0),  # a midline structure off the midline
    ("100", 907, 12, 0.0, 0.0),  # a lateral structure on the midline
)


def prepare(samples=SAMPLES, ontology=ONTOLOGY, **choices):
    choices = {"donors": ["100", "200"], "corrected_mni": True, "lr_mirror": None} | choices
    return prepare_samples(samples, ontology, **choices)


def wells(prepared):
    return prepared["well_id"].tolist()


# Coordinates and sides -------------------------------------------------------------------------------------


def test_samples_on_the_side_of_their_structure_are_kept():
    prepared = prepare()
    assert wells(prepared) == [901, 902, 903, 904, 905]
    assert prepared["column"].tolist() == [0, 1, 2, 3, 4]
    assert prepared["hemisphere"].tolist() == ["R", "L", "L", "L", "B"]
    assert prepared["structure"].tolist()[2:] == ["subcortex/brainstem", "cortex", "cerebellum"]
    assert prepared[["mni_x", "mni_y", "mni_z"]].iloc[0].tolist() == [21, 3, 4]


def test_published_coordinates_can_be_used():
    prepared = prepare(corrected_mni=False)
    assert wells(prepared) == [901, 902, 903, 905]
    assert prepared[["mni_x", "mni_y", "mni_z"]].iloc[0].tolist() == [20, 1, 2]


def test_donors_come_in_the_order_asked_for_and_columns_stay_those_of_the_microarray():
    prepared = prepare(donors=["200", "100"])
    assert prepared["donor"].tolist() == ["200"] * 3 + ["100"] * 2
    assert prepared["column"].tolist() == [2, 3, 4, 0, 1]
    assert prepared.index.tolist() == [0, 1, 2, 3, 4]
    assert wells(prepare(donors=["200"])) == [903, 904, 905]


def test_the_input_is_left_alone():
    before = SAMPLES.copy()
    prepare(lr_mirror="bidirectional")
    pd.testing.assert_frame_equal(SAMPLES, before)


def test_missing_corrected_coordinates_are_counted_and_named():
    gaps = SAMPLES.assign(corrected_mni_y=[np.nan, 3, np.nan, 3, 3, 3, 3])
    with pytest.raises(
        ChoiceError, match=r"2 samples of donor 100, 200 .*well_id 901, 903\).*corrected_mni=False"
    ):
        use_coordinates(gaps, corrected_mni=True)
    assert len(prepare(gaps, corrected_mni=False)) == 4


def test_missing_corrected_coordinates_of_other_donors_do_not_matter():
    gaps = SAMPLES.assign(corrected_mni_y=[np.nan, 3, 3, 3, 3, 3, 3])
    assert wells(prepare(gaps, donors=["200"])) == [903, 904, 905]


def test_only_a_few_of_many_wells_are_named():
    with pytest.raises(ChoiceError, match=r"7 samples.*well_id 901, 902, 903, 904, 905, \.\.\)"):
        use_coordinates(SAMPLES.assign(corrected_mni_x=np.nan), corrected_mni=True)


# Mirroring -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lr_mirror", "expected"),
    [
        (None, [901, 902, 903, 904, 905]),
        ("leftright", [901, 902, 902, 903, 904, 905, 903, 904]),
        ("rightleft", [901, 902, 901, 903, 904, 905]),
        ("bidirectional", [901, 902, 902, 901, 903, 904, 905, 903, 904]),
    ],
)
def test_copies_follow_their_donors_samples(lr_mirror, expected):
    assert wells(prepare(lr_mirror=lr_mirror)) == expected


def test_a_copy_is_the_same_sample_in_the_other_hemisphere():
    prepared = prepare(donors=["100"], lr_mirror="leftright")
    original, copy = prepared.iloc[1], prepared.iloc[2]
    assert (copy["mni_x"], copy["structure_id"], copy["structure_name"]) == (21, 12, "gyrus A, right")
    assert copy["hemisphere"] == "R"
    assert copy["column"] == original["column"] == 1
    unchanged = ["donor", "well_id", "structure_acronym", "structure", "mni_y", "mni_z", "corrected_mni_x"]
    assert copy[unchanged].equals(original[unchanged])


lateral = st.lists(
    st.tuples(st.sampled_from([11, 12, 21, 22, 30]), st.floats(-70, 70, allow_subnormal=False)),
    min_size=1,
    max_size=12,
)


@given(lateral)
@settings(deadline=None)
def test_mirrored_twice_is_the_original(rows):
    table = invented(*(("100", well, structure, x, x) for well, (structure, x) in enumerate(rows)))
    for there, back, side in (("leftright", "rightleft", -1), ("rightleft", "leftright", 1)):
        chosen = table[np.sign(table["mni_x"]) == side]
        copies = mirror(chosen, ONTOLOGY, lr_mirror=there).iloc[len(chosen) :]
        again = mirror(copies, ONTOLOGY, lr_mirror=back).iloc[len(copies) :]
        pd.testing.assert_frame_equal(again, chosen)


@given(lateral)
@settings(deadline=None)
def test_bidirectional_mirroring_makes_the_hemispheres_equal(rows):
    table = invented(*(("100", well, structure, x, x) for well, (structure, x) in enumerate(rows)))
    prepared = prepare(table, donors=["100"], lr_mirror="bidirectional")
    left, right = (prepared[prepared["hemisphere"] == side] for side in "LR")
    assert sorted(zip(-left["mni_x"], left["well_id"], strict=True)) == sorted(
        zip(right["mni_x"], right["well_id"], strict=True)
    )


def test_a_structure_without_a_counterpart_is_named():
    table = invented(("100", 901, 41, -5.0, -5.0))
    assert wells(prepare(table, donors=["100"], lr_mirror="rightleft")) == [901]
    with pytest.raises(ChoiceError, match=r"'Lo' has no row for hemisphere R"):
        prepare(table, donors=["100"], lr_mirror="leftright")


def test_unknown_choices_are_named_with_the_accepted_ones():
    with pytest.raises(ChoiceError, match=r"'both': choose one of None, leftright, rightleft, bidirectional"):
        prepare(lr_mirror="both")
    with pytest.raises(ChoiceError, match=r"Unknown donors 300: choose from 100, 200"):
        prepare(donors=["100", "300"])
    with pytest.raises(ChoiceError, match=r"none chosen.*choose from 100, 200"):
        prepare(donors=[])
    with pytest.raises(ChoiceError, match=r"Structure 12 of sample 901 is not in the ontology"):
        prepare(ontology=ONTOLOGY[ONTOLOGY["structure_id"] != 12])


# Similarity ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threshold", RECORDED["kept"])
def test_similar_samples_are_abagens(threshold, monkeypatch):
    monkeypatch.setattr(module, "BLOCK_PROBES", 7)
    expression = np.array(RECORDED["values"]).reshape(RECORDED["shape"])
    kept = np.flatnonzero(similar_samples(expression, float(threshold)))
    assert kept.tolist() == RECORDED["kept"][threshold]


@given(st.integers(0, 50), st.sampled_from([0.2, 0.7, 1.5, 3.0]))
@settings(deadline=None)
def test_similarity_is_the_row_sum_of_the_correlation_matrix(seed, threshold):
    random = np.random.default_rng(seed)
    expression = random.normal(6, 1, (60, 12)) + random.normal(0, 2, 60)[:, None] * random.random(12)
    sums = np.corrcoef(expression.T).sum(axis=1)
    expected = sums >= sums.mean() - threshold * sums.std(ddof=1)
    np.testing.assert_array_equal(similar_samples(expression, threshold), expected)


def test_without_defined_correlations_no_sample_is_similar():
    expression = np.random.default_rng(0).normal(size=(20, 5))
    expression[3, 2] = np.nan
    assert not similar_samples(expression, 5).any()


# True metadata ---------------------------------------------------------------------------------------------

DONORS = ["9861", "10021", "12876", "14380", "15496", "15697"]


@cache
def true_ontology():
    table = pd.read_csv(METADATA / "Ontology.csv", dtype={"hemisphere": str}).rename(
        columns={"id": "structure_id"}
    )
    return table.assign(hemisphere=table["hemisphere"].fillna("B"), structure="")


@cache
def true_samples():
    tables = [
        pd.read_csv(METADATA / f"normalized_microarray_donor{donor}" / "SampleAnnot.csv").assign(donor=donor)
        for donor in DONORS
    ]
    return pd.concat(tables, ignore_index=True).join(corrected_coordinates(), on="well_id")


@needs_metadata
def test_true_samples_kept_with_corrected_coordinates():
    prepared = prepare(true_samples(), true_ontology(), donors=DONORS)
    assert prepared["donor"].value_counts(sort=False).to_dict() == dict(
        zip(DONORS, [904, 845, 353, 513, 437, 414], strict=True)
    )


@needs_metadata
def test_true_samples_kept_with_published_coordinates():
    assert len(prepare(true_samples(), true_ontology(), donors=DONORS, corrected_mni=False)) == 3460


@needs_metadata
@pytest.mark.parametrize("lr_mirror", [mirror for mirror in MIRRORS if mirror])
def test_true_samples_all_have_a_mirror_image(lr_mirror):
    unmirrored = prepare(true_samples(), true_ontology(), donors=DONORS)
    prepared = prepare(true_samples(), true_ontology(), donors=DONORS, lr_mirror=lr_mirror)
    copied = {"leftright": ["L"], "rightleft": ["R"], "bidirectional": ["L", "R"]}[lr_mirror]
    assert len(prepared) == len(unmirrored) + unmirrored["hemisphere"].isin(copied).sum()
