"""The benchmark of batches: its arithmetic on made-up journals, the page it writes, what it runs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lake
from benchmarks import batch, batch_cases
from benchmarks import batch_model as model
from benchmarks import batch_report as report
from lake.plan import make_plan
from tests.helpers import octants

Journal = dict[str, Any]


def journal(seconds: float, **stages: tuple[int, int, float]) -> Journal:
    """A run of so many seconds, and of each stage how many are planned, made, and their seconds together."""
    return {
        "seconds": seconds,
        "plan": {kind: planned for kind, (planned, _, _) in stages.items()},
        "stages": {kind: {"made": made, "seconds": took} for kind, (_, made, took) in stages.items() if made},
    }


DRAWN = journal(
    100.0,
    samples=(1, 1, 0.5),
    probes=(5, 5, 10.0),
    genes=(10, 10, 30.0),
    values=(20, 2, 4.0),
    assignment=(4, 4, 2.0),
    normalisation=(25, 25, 37.5),
    tables=(32, 0, 0.0),
)
FAMILY = journal(
    40.0,
    samples=(1, 1, 1.0),
    probes=(1, 1, 7.0),
    genes=(1, 1, 9.0),
    values=(1, 1, 3.0),
    assignment=(2, 2, 1.0),
    normalisation=(4, 4, 11.0),
    tables=(32, 0, 0.0),
)


# Arithmetic -----------------------------------------------------------------------------------------


def test_costs_are_seconds_a_planned_stage_and_the_rest_a_unit() -> None:
    assert model.costs(DRAWN) == {
        "samples": 0.5,
        "probes": 2.0,
        "genes": 3.0,
        "values": 0.2,
        "assignment": 0.5,
        "normalisation": 1.5,
        "tables": 0.0,
        model.REST: 0.5,
    }


@pytest.mark.parametrize("run", [DRAWN, FAMILY])
def test_a_run_is_foretold_by_its_own_costs(run: Journal) -> None:
    assert model.predicted(model.costs(run), run["plan"]) == pytest.approx(run["seconds"])


def test_what_a_run_does_once_does_not_grow_with_its_stages() -> None:
    run = json.loads(json.dumps(DRAWN))
    run["seconds"] += 7.0
    run["stages"]["matrices"] = {"made": 1, "seconds": 7.0}
    twice = {kind: 2 * count for kind, count in DRAWN["plan"].items()}
    assert model.predicted(model.costs(run), twice) == pytest.approx(207.0)
    assert model.sustained(run) == pytest.approx(model.sustained(DRAWN))
    assert model.family_model(model.costs(run), model.costs(FAMILY))["matrices"] == 7.0


def test_twice_the_stages_take_twice_as_long() -> None:
    twice = {kind: 2 * count for kind, count in DRAWN["plan"].items()}
    assert model.predicted(model.costs(DRAWN), twice) == pytest.approx(200.0)


def test_a_kind_of_stage_that_is_not_planned_counts_by_unit() -> None:
    run = DRAWN | {"stages": DRAWN["stages"] | {"reductions": {"made": 32, "seconds": 8.0}}}
    assert model.costs(run)["reductions"] == 0.25
    assert model.costs(run)[model.REST] == 0.25
    assert model.predicted(model.costs(run), run["plan"]) == pytest.approx(100.0)


def test_sustained_counts_all_that_atlases_do_not_share() -> None:
    assert model.sustained(DRAWN) == pytest.approx(32 / (100 - 0.5 - 10 - 30 - 4))
    assert model.sustained(FAMILY) == pytest.approx(32 / (40 - 1 - 7 - 9 - 3))


def test_a_grid_costs_as_drawn_up_to_genes_and_as_families_after() -> None:
    each = model.family_model(model.costs(DRAWN), model.costs(FAMILY))
    assert {kind: each[kind] for kind in ("samples", "probes", "genes")} == {
        "samples": 0.5,
        "probes": 2.0,
        "genes": 3.0,
    }
    assert {kind: each[kind] for kind in ("values", "assignment", "normalisation", model.REST)} == {
        "values": 3.0,
        "assignment": 0.5,
        "normalisation": 2.75,
        model.REST: 0.25,
    }


def test_stages_of_a_grid_are_those_that_its_plan_has() -> None:
    values = {
        "lr_mirror": (None, "bidirectional"),
        "ibf_threshold": (0.25, 0.5),
        "probe_selection": ("diff_stability", "max_intensity"),
        "donor_probes": ("aggregate", "common"),
        "tolerance": (0, 2),
        "gene_norm": ("srs", None),
        "agg_metric": ("mean", "median"),
    }
    atlases = [octants("one"), octants("two", first=11)]
    plan = make_plan(lake.grid(**values), atlases, "0" * 16)
    counts = model.grid_counts(values, atlases=2)
    assert counts == plan.counts()
    assert counts["genes"] == 2 * 2 * 3  # diff_stability with common is no pipeline of its own


def test_one_more_atlas_is_between_the_run_of_fewest_and_of_most() -> None:
    runs = {"1": {"seconds": 10.0}, "5": {"seconds": 99.0}, "11": {"seconds": 13.0}}
    assert report.marginal_seconds(runs) == pytest.approx(0.3)


def test_time_a_sample_is_held_against_that_of_fewest() -> None:
    runs = {"100": {"run_seconds": 2.0}, "1000": {"run_seconds": 30.0}, "300": {"run_seconds": 99.0}}
    assert report.sample_ratio(runs) == pytest.approx(1.5)


# The report -----------------------------------------------------------------------------------------


def found(seconds: float, peak: float = 5e8, run: Journal = FAMILY) -> Journal:
    return {
        "seconds": seconds,
        "cpu_seconds": 2 * seconds,
        "run_seconds": seconds - 1,
        "peak_bytes": peak,
        "journal": run,
    }


def made_up() -> Journal:
    told = {"date": "2026-11-23 17:00 UTC", "command": "python benchmarks/batch.py"}
    sections = {
        "cold": {"run": found(5.0), "abagen": found(75.0)},
        "further": {"runs": {"1": found(5.0), "21": found(15.0)}},
        "forty": {"atlases": 40, "run": found(41.0, 1.6e9)},
        "limit": {"run": found(60.0, 0.9e9), "files": 120, "different_files": 0},
        "tenfold": {"probes": 10_000, "runs": {"3702": found(11.0), "37020": found(51.0, 1.9e9)}},
        "multiverse": {
            "first": found(100.0, run=DRAWN),
            "second": found(80.0, run=DRAWN | {"seconds": 80.0}),
            "families": found(40.0),
            "second_predicted": 100.0,
        },
        "workers": {"1": found(61.0), "2": found(41.0), "1 on one core": found(81.0)},
    }
    return {
        **told,
        "machine": {"cpu": "a processor", "cores": 2, "memory_bytes": 25e9},
        "versions": {"python": "3.11"},
        "data": {"probes": 58_692, "samples": 3702},
        "sections": {name: told | section for name, section in sections.items()},
    }


def test_targets_are_held_against_what_was_measured() -> None:
    by_name = [(target.measured, target.reached) for target in report.targets(made_up()["sections"])]
    assert by_name == [
        (pytest.approx(15.0), True),
        (pytest.approx(150.0), False),
        (41.0, False),
        (1600.0, False),
        (0, True),
        (900.0, True),
        (1900.0, True),
        (pytest.approx((50 / 37_020) / (10 / 3702)), True),
        (pytest.approx(32 / 55.5), False),
        (pytest.approx(32 / 20), False),
        (pytest.approx(1.5), False),
    ]


def test_targets_without_abagen_are_left_out() -> None:
    sections = made_up()["sections"]
    del sections["cold"]["abagen"]
    assert len(report.targets(sections)) == 9


def test_the_page_says_all() -> None:
    content = made_up()
    content["sections"]["forty"]["command"] = "python benchmarks/batch.py --only forty"
    content["targets"] = [one.entry() for one in report.targets(content["sections"])]
    page = report.render(content)
    assert "forty: 2026-11-23 17:00 UTC, `python benchmarks/batch.py --only forty`" in page
    assert "| atlases like DK: 21 | 15.0 | 30.0 | 500 |" in page
    assert "| genes | 10 | 3.000 | 1 | 9.000 | 432 | 0.4 |" in page
    assert "foretold 100 s for the second sample, which took 80 s (+25 %)" in page
    seconds = 6 * 0.5 + 36 * 2 + 432 * 3 + 1296 * 3 + 36 * 0.5 + 93_312 * 2.75 + 746_496 * 0.25
    assert f"it says {seconds / 3600:,.0f} hours on this machine" in page


def test_the_page_of_one_section_is_short() -> None:
    content = made_up()
    content["sections"] = {"forty": content["sections"]["forty"]}
    content["targets"] = []
    page = report.render(content)
    assert "real atlases: 40" in page
    assert "multiverse" not in page


def test_the_plot_is_small_and_the_same_again(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pip install '.[benchmark]'")
    for name in ("one.svg", "two.svg"):
        report.draw(made_up()["sections"], tmp_path / name)
    drawn = (tmp_path / "one.svg").read_bytes()
    assert drawn == (tmp_path / "two.svg").read_bytes()
    assert len(drawn) < 200_000
    assert b"atlases like DK" in drawn


def test_the_plot_of_some_sections() -> None:
    sections = {"further": made_up()["sections"]["further"]}
    assert report.points(sections, "further", "seconds", 1.0) == {"atlases like DK": ([1, 21], [5.0, 15.0])}
    assert report.points(sections, "tenfold", "seconds", 1.0) == {}


def test_sections_stay_if_machine_versions_and_data_do(tmp_path: Path) -> None:
    path = tmp_path / "batch.json"
    assert batch.earlier(made_up(), path) == {}
    path.write_text(json.dumps(made_up()))
    assert set(batch.earlier(made_up(), path)) == set(batch.SECTIONS)
    assert batch.earlier(made_up() | {"versions": {"python": "3.12"}}, path) == {}


def test_a_command_is_told_without_paths() -> None:
    given = ["--only", "forty,limit", "--workdir", "/somewhere", "--pipelines", "10"]
    assert batch.command_line(batch.options(given)) == (
        "python benchmarks/batch.py --only forty,limit --pipelines 10"
    )
    assert batch.command_line(batch.options([])) == "python benchmarks/batch.py"


def test_an_unknown_section_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        batch.options(["--only", "cold,further,warm"])
    assert "'warm': choose from cold, further, forty" in capsys.readouterr().err


# The cases ------------------------------------------------------------------------------------------


def test_a_family_shares_the_values_of_samples() -> None:
    family = batch_cases.families(1, 5, 288)
    plan = make_plan(family, [octants()], "0" * 16)
    assert plan.counts() == {
        "samples": 1,
        "probes": 1,
        "genes": 1,
        "values": 1,
        "assignment": 3,
        "normalisation": 36,
        "tables": 288,
    }


def test_atlases_like_dk_differ_in_places_alone(dk: lake.Atlas) -> None:
    made = [make() for make in batch_cases.alike(3)]
    assert len({atlas.fingerprint for atlas in made}) == len({atlas.name for atlas in made}) == 3
    assert made[0].fingerprint == dk.fingerprint
    for atlas in made[1:]:
        assert list(atlas.regions.index) == list(made[0].regions.index)
        moved = np.abs(atlas.centroids - made[0].centroids).max()
        assert 0.5 < moved < 1.5


def test_the_cortex_has_68_regions() -> None:
    (atlas,) = batch_cases.cortex()
    assert len(atlas.regions) == 68
    assert set(atlas.regions["structure"]) == {"cortex"}
