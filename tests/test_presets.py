"""Published sets of choices, choices as TOML, and the difference to the defaults."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lake
from lake.errors import RequestError
from lake.pipelines import read_pipeline, read_reannotation
from lake.runs import tables_for
from tests.helpers import called
from transforms.atlas import Atlas
from transforms.errors import ChoiceError
from transforms.pipeline import Pipeline
from transforms.presets import PRESETS
from transforms.reannotation import Reannotation

NINE = [
    "Hawrylycz2015", "French2015", "WhitakerVertes2016", "Krienen2016", "Anderson2018", "Burt2018",
    "RomeroGarcia2018", "Anderson2020", "Liu2020",
]  # fmt: skip
TABLE = pd.DataFrame({"probe_name": ["p1", "p2"], "gene_symbol": ["A", "B"], "entrez_id": [1, 2]})


# Presets ----------------------------------------------------------------------------------------------------


def test_the_published_pipelines_are_there() -> None:
    assert list(PRESETS) == ["arnatkeviciute2019", *NINE]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_pipeline_and_says_what_it_is(name: str) -> None:
    pipeline = Pipeline.preset(name)
    for choice, value in Pipeline(**dict(PRESETS[name].choices)).parameters().items():
        assert pipeline.parameters()[choice] == value
    assert PRESETS[name].citation
    assert PRESETS[name].atlas
    assert PRESETS[name].unknown


def test_presets_differ() -> None:
    assert len({Pipeline.preset(name).identity("s") for name in PRESETS}) == len(PRESETS)


def test_arnatkeviciute2019_is_that_of_the_page() -> None:
    pipeline = Pipeline.arnatkeviciute2019()
    assert pipeline == Pipeline.preset("arnatkeviciute2019")
    assert pipeline.difference() == {
        "probe_selection": "RNAseq",
        "region_agg": "samples",
        "corrected_mni": False,
        "matching": "native_voxels",
        "exclude_slabs": ["BS", "CB"],
        "check_sides": False,
        "probe_order": "probe_name",
        "divide_samples": "listCortex",
        "normalise_what": "Lcortex",
        "quantiles": "hazen",
        "drop_genes": "samples",
        "percent_ds": 100.0,
    }
    assert (pipeline.ibf_threshold, pipeline.rnaseq_threshold, pipeline.tolerance) == (0.5, 0.2, 2)
    assert pipeline.gene_norm == pipeline.sample_norm == "scaled_robust_sigmoid"


def test_a_preset_can_be_changed() -> None:
    changed = Pipeline.preset("Burt2018", tolerance=3, missing=None)
    assert changed.tolerance == 3
    assert changed.missing is None
    assert changed.sim_threshold == 5
    assert changed.changed(tolerance=2, missing="interpolate") == Pipeline.preset("Burt2018")


def test_unknown_presets_and_changes_are_told() -> None:
    with pytest.raises(ChoiceError, match="There is no preset 'burt2018'; did you mean 'Burt2018'"):
        Pipeline.preset("burt2018")
    with pytest.raises(ChoiceError, match="There is no choice 'tolerence'"):
        Pipeline.preset("Burt2018", tolerence=2)
    with pytest.raises(ChoiceError, match="There is no choice 'tolerence'"):
        Pipeline().changed(tolerence=2)


def test_presets_cannot_be_changed_in_place() -> None:
    with pytest.raises(TypeError):
        PRESETS["Burt2018"].choices["tolerance"] = 3  # type: ignore[index]


# Ids --------------------------------------------------------------------------------------------------------


def test_choices_that_came_later_leave_ids_alone() -> None:
    """Tables written by earlier versions are found again."""
    assert Pipeline().identity("s") == "127d2549e7fd"
    assert Pipeline(lr_mirror="leftright", donors=["9861", "10021"]).identity("s") == "097cbf900401"


LATER: list[dict[str, Any]] = [
    {"exclude_slabs": "BS"},
    {"exclude_slabs": ["CB"]},
    {"check_sides": False},
    {"agilent_only": True},
    {"probe_order": "probe_name"},
    {"variance_filter": 50},
    {"variance_scale": "log2"},
    {"rnaseq_threshold": 0.3},
    {"rnaseq_significance": 0.05},
    {"seed": 1},
    {"divide_samples": "ontology"},
    {"divide_samples": "ontology", "exclude_hippocampus": True},
    {"normalise_what": "Lcortex"},
    {"do_normalise": False},
    {"quantiles": "hazen"},
    {"drop_genes": "samples"},
    {"percent_ds": 10},
    {"reannotated": TABLE},
    {"reannotated": TABLE[:1]},
]


def test_every_later_choice_makes_an_id_of_its_own() -> None:
    ids = {Pipeline.from_choices(choices).identity("s") for choices in [{}, *LATER]}
    assert len(ids) == len(LATER) + 1


def test_the_same_later_choice_has_the_same_id() -> None:
    one, other = Pipeline(exclude_slabs=["CB", "BS", "CB"]), Pipeline(exclude_slabs=("BS", "CB"))
    assert one == other
    assert Pipeline(ibf_threshold=-1) == Pipeline(ibf_threshold=0)
    assert Pipeline(reannotated=TABLE) == Pipeline(reannotated=TABLE[::-1])
    assert Pipeline(gene_norm="scaledRobustSigmoid") == Pipeline(gene_norm="srs")
    assert Pipeline(probe_selection="DS", donor_probes="independent") == Pipeline(probe_selection="DS")


# What is wrong, and what excludes each other ----------------------------------------------------------------

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"exclude_slabs": 3}, "exclude_slabs=3: slab types are needed"),
    ({"exclude_slabs": [""]}, "slab types are needed"),
    ({"variance_filter": 101}, "variance_filter=101: a number from 0 to 100"),
    ({"variance_scale": "log"}, "variance_scale='log' is unknown; did you mean 'log2'"),
    ({"rnaseq_threshold": 2}, "rnaseq_threshold=2: a number from -1 to 1"),
    ({"rnaseq_significance": -0.1}, "rnaseq_significance=-0.1: a number from 0 to 1"),
    ({"seed": -1}, "seed=-1: a whole number from 0 on"),
    ({"seed": 1.5}, "seed=1.5: a whole number"),
    ({"seed": True}, "seed=True: a whole number"),
    ({"divide_samples": "listcortex"}, "divide_samples='listcortex' is unknown; did you mean 'listCortex'"),
    ({"normalise_what": "Rcortex"}, "normalise_what='Rcortex' is unknown"),
    ({"quantiles": "type7"}, "quantiles='type7' is unknown; there are linear, hazen"),
    ({"drop_genes": "all"}, "drop_genes='all' is unknown"),
    ({"probe_order": "id"}, "probe_order='id' is unknown"),
    ({"reannotated": "mine.csv"}, "names a file: give the table"),
    ({"reannotated": pd.DataFrame()}, "lacks column probe_name"),
    ({"exclude_hippocampus": True}, "exclude_hippocampus=True .* divide_samples, which is None"),
    ({"normalise_what": "Lcortex", "norm_matched": False}, "normalise_what='Lcortex' .* norm_matched=False"),
    ({"normalise_what": "Lcortex", "missing": "centroids"}, "missing='centroids' fills regions"),
    (
        {"normalise_what": "LcortexSubcortexSEPARATE", "gene_norm": "batch"},
        "gene_norm='batch' is one model .* normalise_what='LcortexSubcortexSEPARATE'",
    ),
    ({"do_normalise": False, "gene_norm": None}, "gene_norm=None does not"),
    ({"percent_ds": 5, "donors": "9861", "probe_selection": "CV"}, "percent_ds=5 compares donors"),
    ({"donors": "9861", "probe_selection": "DS"}, "probe_selection='DS' compares donors"),
]


@pytest.mark.parametrize(("choices", "message"), WRONG, ids=[str(message) for _, message in WRONG])
def test_wrong_choices_are_told(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(ChoiceError, match=message):
        Pipeline.from_choices(choices)


# TOML -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_presets_come_back_from_toml(name: str) -> None:
    pipeline = Pipeline.preset(name)
    assert Pipeline.from_toml(pipeline.to_toml()) == pipeline


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "ibf_threshold": st.floats(0, 1),
            "sim_threshold": st.none() | st.floats(0, 1e9),
            "lr_mirror": st.sampled_from([None, "leftright"]),
            "sample_norm": st.sampled_from([None, "zscore", "hampel"]),
            "donors": st.just("all")
            | st.lists(st.from_regex(r"[0-9]{4,5}", fullmatch=True), min_size=2, unique=True),
            "exclude_slabs": st.lists(st.text(min_size=1)),
            "seed": st.integers(0, 2**63 - 1),
            "norm_structures": st.booleans(),
            "probe_selection": st.sampled_from(["CV", "max_intensity", "Random"]),
        },
    )
)
def test_any_choice_comes_back_from_toml(choices: dict[str, Any]) -> None:
    pipeline = Pipeline.from_choices(choices)
    again = Pipeline.from_toml(pipeline.to_toml())
    assert again == pipeline
    assert again.identity("s") == pipeline.identity("s")


def test_toml_may_say_less_and_name_a_preset() -> None:
    assert Pipeline.from_toml("") == Pipeline()
    assert Pipeline.from_toml('tolerance = 3\nsample_norm = "None"') == Pipeline(
        tolerance=3, sample_norm=None
    )
    changed = Pipeline.from_toml('preset = "Burt2018"\nmissing = "None"')
    assert changed == Pipeline.preset("Burt2018", missing=None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tolerance = \n", "The choices are not TOML: .*line 1"),
        ("tolerence = 1", "There is no choice 'tolerence'; did you mean 'tolerance'"),
        ('preset = "Burt"', "There is no preset 'Burt'"),
        ("preset = 3", "There is no preset '3'"),
        ("[tolerance]\na = 1", "tolerance={'a': 1}: a number"),
        ('reannotated = "mine.csv"', "names a file"),
    ],
)
def test_wrong_toml_is_told(text: str, message: str) -> None:
    with pytest.raises(ChoiceError, match=message):
        Pipeline.from_toml(text)


def test_a_function_does_not_go_into_toml() -> None:
    with pytest.raises(ChoiceError, match="agg_metric is a function"):
        Pipeline(agg_metric=np.nanmax).to_toml()


def test_the_difference_names_what_changed() -> None:
    assert Pipeline().difference() == {}
    assert Pipeline(tolerance=3, gene_norm=None).difference() == {"tolerance": 3.0, "gene_norm": None}
    fields = [field.name for field in dataclasses.fields(Pipeline)]
    assert list(Pipeline().parameters()) == fields


# Files ------------------------------------------------------------------------------------------------------


def test_a_file_of_choices_and_its_reannotation(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("probe_name,gene_symbol,entrez_id\np1,A,1\np2,B,2\n")
    (tmp_path / "mine.toml").write_text('reannotated = "mine.csv"\ntolerance = 3\n')
    pipeline = read_pipeline(tmp_path / "mine.toml")
    assert pipeline == Pipeline(tolerance=3, reannotated=TABLE)
    assert isinstance(pipeline.reannotated, Reannotation)
    assert Path(pipeline.reannotated.name).name == "mine.csv"
    assert pipeline.reannotated == read_reannotation(tmp_path / "mine.csv")
    (tmp_path / "again.toml").write_text(pipeline.to_toml())
    assert read_pipeline(tmp_path / "again.toml") == pipeline


def test_wrong_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"none\.toml: No such file or directory; give a TOML file"):
        read_pipeline(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(RequestError, match=r"bad\.toml: this is no text"):
        read_pipeline(tmp_path / "bad.toml")
    (tmp_path / "wrong.toml").write_text("wobble = 1")
    with pytest.raises(ChoiceError, match=r"wrong\.toml: There is no choice 'wobble'"):
        read_pipeline(tmp_path / "wrong.toml")
    (tmp_path / "large.toml").write_bytes(b"#" * (2 << 20))
    with pytest.raises(RequestError, match=r"large\.toml: larger than 1 MiB"):
        read_pipeline(tmp_path / "large.toml")


# The command ------------------------------------------------------------------------------------------------


def test_presets_are_listed_and_shown() -> None:
    listed = called("presets")
    assert listed.returncode == 0
    assert all(name in listed.stdout for name in PRESETS)
    shown = called("presets", "Anderson2020").stdout
    assert "Anderson et al. 2020, PNAS" in shown
    rows = [line.split() for line in shown.splitlines()]
    assert ["tolerance", "-4.0", "2.0"] in rows
    assert ["ibf_threshold", "0.2", "0.5"] in rows
    wrong = called("presets", "Burt2017")
    assert wrong.returncode == 2
    assert wrong.stderr.strip() == "Error: There is no preset 'Burt2017': did you mean Burt2018?"


def test_a_preset_as_toml_is_a_pipeline() -> None:
    assert Pipeline.from_toml(called("presets", "Liu2020", "--toml").stdout) == Pipeline.preset("Liu2020")


@pytest.mark.parametrize("source", ["--preset", "--pipeline"])
def test_runs_take_a_set_of_choices_and_changes(
    source: str, store_path: Path, atlas_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "french.toml").write_text('preset = "French2015"\ntolerance = 5\n')
    value = tmp_path / "french.toml" if source == "--pipeline" else "French2015"
    changes = ["--ibf-threshold", "0.25"] + ([] if source == "--pipeline" else ["--tolerance", "5"])
    named = ("--store", store_path, "--atlas", atlas_file, "--out", tmp_path / "out")
    done = called("run", *named, source, value, *changes)
    assert done.returncode == 0, done.stderr
    expected = Pipeline.preset("French2015", tolerance=5, ibf_threshold=0.25)
    table = lake.read_expression(tmp_path / "out", atlas="octants")
    assert table.attrs["pipeline"] == expected.identity(lake.open(store_path).snapshot)


def test_runs_take_a_reannotation(store_path: Path, atlas_file: Path, tmp_path: Path) -> None:
    probes = lake.open(store_path).probes.head(30)
    own = probes[["probe_name"]].assign(gene_symbol=[f"own{n % 10}" for n in range(30)])
    own.assign(entrez_id=[n % 10 for n in range(30)]).to_csv(tmp_path / "own.csv", index=False)
    for number, preset in enumerate(([], ["--preset", "French2015"])):
        out = tmp_path / f"out{number}"
        done = called(
            "run", "--store", store_path, "--atlas", atlas_file, "--out", out, "--ibf-threshold", "0",
            "--reannotation", tmp_path / "own.csv", *preset,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        genes = lake.read_expression(out, atlas="octants").columns
        assert set(genes) <= {f"own{n}" for n in range(10)}
        assert len(genes) > 5


def test_two_sets_of_choices_are_refused(store_path: Path, atlas_file: Path, tmp_path: Path) -> None:
    done = called(
        "run", "--store", store_path, "--atlas", atlas_file, "--out", tmp_path / "out",
        "--preset", "Liu2020", "--pipeline", "x.toml",
    )  # fmt: skip
    assert done.returncode == 2
    assert "--preset and --pipeline both name a set of choices" in done.stderr


def test_a_preset_is_named_among_the_choices(small_lake: lake.Lake, atlas: Atlas) -> None:
    """In `lake.expression` and wherever choices are given by name; the others change it."""
    pipeline = Pipeline.preset("Burt2018", ibf_threshold=0, tolerance=3)
    table = lake.expression(small_lake, atlas, preset="Burt2018", ibf_threshold=0, tolerance=3)
    assert table.attrs["parameters"] == pipeline.parameters()
    pd.testing.assert_frame_equal(table, tables_for(small_lake, atlas, pipeline).expression)
    inside = lake.samples_in_mask(small_lake, atlas, preset="Burt2018", ibf_threshold=0).expression
    expected = Pipeline.preset("Burt2018", ibf_threshold=0, norm_matched=False)
    assert inside.attrs["parameters"] == expected.parameters()
    with pytest.raises(ChoiceError, match="There is no preset 'Burt2081'; did you mean 'Burt2018'"):
        lake.expression(small_lake, atlas, preset="Burt2081")
    assert Pipeline.from_choices({"preset": None}) == Pipeline()
