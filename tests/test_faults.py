"""Whatever happens to a run, its tables stay whole, and the same run again ends as on a quiet day."""

import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import lake
from ingest.simulate import simulate
from lake.errors import RequestError
from lake.ingestion import ingest_directory
from lake.journal import read_journal
from lake.runs import run
from lake.tables import Unit
from tests.clusters import Cluster, cluster
from tests.helpers import ahba, command_line, octants, octants_image, rewrite, tree
from tests.test_kill import killed_at_random
from transforms.atlas import Atlas
from transforms.atlas_set import AnyAtlas
from transforms.pipeline import Pipeline

LEAST_MEMORY = "620MiB"  # so little that values go to scratch


@pytest.fixture(scope="module")
def wide_lake(tmp_path_factory: pytest.TempPathFactory) -> lake.Lake:
    """Four donors, whose batch takes long enough for faults to fall anywhere."""
    files = tmp_path_factory.mktemp("wide")
    simulate(files, probes=1500, donors=("9861", "10021", "12876", "14380"), samples_scale=0.3)
    ingest_directory(files, files / "store.zarr")
    return lake.open(files / "store.zarr")


@pytest.fixture(scope="module")
def batch(wide_lake: lake.Lake, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write a BATCH.toml of 4 atlases and 4 pipelines with numbers and tables, to a given directory."""
    folder = tmp_path_factory.mktemp("batch")
    for number in range(4):
        octants_image(first=number + 1).to_filename(folder / f"octants{number}.nii.gz")

    def write(out: Path, *, memory: str = LEAST_MEMORY) -> Path:
        path = folder / f"{out.parent.name}-{out.name}.toml"
        path.write_text(
            f'store = "{wide_lake.path}"\nout = "{out}"\ndonor_tables = true\n'
            'atlases = ["octants0.nii.gz", "octants1.nii.gz", "octants2.nii.gz", "octants3.nii.gz"]\n'
            '[grid]\nlr_mirror = ["None", "bidirectional"]\nagg_metric = ["mean", "median"]\n'
            "[reduce]\nkeep_tables = true\nshape = true\ncge_distance = true\n"
            f'[resources]\nmemory_limit = "{memory}"\n'
        )
        return path

    return write


@pytest.fixture(scope="module")
def undisturbed(batch: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("undisturbed") / "tables"
    done = ahba("run", batch(out), "--quiet")
    assert done.returncode == 0, done.stderr
    return tree(out)


def assert_nothing_is_half(out: Path, expected: dict[str, bytes]) -> None:
    """Every table that has a name is as it is in the end; a unit with a record is whole."""
    found = {name: content for name, content in tree(out).items() if not Path(name).name.startswith(".")}
    found = {name: content for name, content in found.items() if ".scratch" not in name}
    for name, content in found.items():
        if not name.startswith("reductions/"):  # pieces, until all are there
            assert content == expected[name], name
    for record in out.glob("units/*/*.json"):
        unit = unit_of(record)
        assert unit.is_written(
            lake.read_expression(out, atlas=unit.atlas, pipeline=unit.pipeline).attrs["atlas"]["fingerprint"],
            donors=True,
        )


def unit_of(record: Path) -> Unit:
    pipeline, atlas = record.parent.name.removeprefix("pipeline="), record.stem.removeprefix("atlas=")
    return Unit(record.parents[2], pipeline, atlas)


# ---------------------------------------------------------------- killed


@pytest.mark.slow
def test_a_killed_batch_goes_on(
    batch: Callable[..., Path], undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    out, codes = tmp_path / "tables", []
    left: set[Path] = set()
    arguments: list[object] = ["run", batch(out), "--quiet"]

    def at_work() -> bool:
        return not left.issuperset(out.glob(".scratch*"))

    for code in killed_at_random(arguments, begun=at_work, longest=0.5, seed=0):
        codes.append(code)
        left.update(out.glob(".scratch*"))
        assert_nothing_is_half(out, undisturbed)
    assert codes.count(-signal.SIGKILL) > 2
    assert len(left) > 2  # so many died with values in scratch
    done = ahba(*arguments)
    assert done.returncode == 0, done.stderr
    assert tree(out) == undisturbed  # no leftovers either
    assert not list(out.glob(".*"))


@pytest.fixture(scope="module")
def workers_elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("cluster")) as made:
        yield made


@pytest.mark.slow
def test_killed_workers_are_done_without(
    workers_elsewhere: Cluster, wide_lake: lake.Lake, tmp_path: Path
) -> None:
    """One dies and the other does its work again; both die and a new one does."""
    atlases = [octants(f"octants{first}", first=first) for first in (1, 2, 3)]
    pipelines = [Pipeline(), Pipeline(agg_metric="median"), Pipeline(lr_mirror="bidirectional")]
    run(wide_lake, atlases, pipelines, out=tmp_path / "threads")
    killed: list[int] = []

    def kill(label: str, done: int, total: int) -> None:
        if label == "values" and done == 1:  # which are lost with the worker that holds them
            killed.append(end(workers_elsewhere.workers[0]))
        if label == "tables" and done == 4:
            workers_elsewhere.start_worker()
            killed.append(end(workers_elsewhere.workers[1]))

    run(
        wide_lake,
        atlases,
        pipelines,
        out=tmp_path / "there",
        scheduler=workers_elsewhere.address,
        progress=kill,
    )
    assert killed == [-signal.SIGKILL] * 2
    assert tree(tmp_path / "there") == tree(tmp_path / "threads")


@pytest.mark.slow
def test_a_killed_scheduler_ends_the_run_and_the_next_does_what_is_missing(
    batch: Callable[..., Path], undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    """With another scheduler, and the workers that it finds."""
    out = tmp_path / "tables"
    command = ["run", batch(out, memory="1TB"), "--quiet", "--scheduler"]
    with cluster(made_folder(tmp_path / "first")) as lost:
        process = subprocess.Popen(
            command_line(*command, lost.address), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        while process.poll() is None and not list(out.glob("units/*/*.json")):
            time.sleep(0.01)
        end(lost.scheduler)
        done = subprocess.CompletedProcess(process.args, process.wait(), *process.communicate())
    assert_failed_in_one_sentence(done, f"The scheduler at {lost.address} was lost (")
    assert_nothing_is_half(out, undisturbed)
    there = {record: record.stat().st_mtime_ns for record in out.glob("units/*/*.json")}
    assert 0 < len(there) < 16
    with cluster(made_folder(tmp_path / "second")) as found:
        again = ahba(*command, found.address)
    assert again.returncode == 0, again.stderr
    assert read_journal(out)["units"] == {"present": len(there), "written": 16 - len(there)}
    assert {record: record.stat().st_mtime_ns for record in there} == there
    assert tree(out) == undisturbed


def made_folder(path: Path) -> Path:
    path.mkdir()
    return path


def end(process: "subprocess.Popen[bytes]") -> int:
    process.kill()
    return process.wait()


# ---------------------------------------------------------------- a full disk


def smaller_files(limit: int) -> Callable[[], None]:
    """To be called in a process before it starts: its files cannot grow beyond `limit` bytes."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("memory", "limit", "where"),
    [(LEAST_MEMORY, 30_000, "/.scratch"), ("8GB", 12_000, "/donor_expression/"), ("8GB", 900, "/pipelines/")],
    ids=["scratch", "donors' table", "first file"],
)
def test_a_file_that_cannot_be_written_ends_the_run_and_the_next_completes_it(
    memory: str,
    limit: int,
    where: str,
    batch: Callable[..., Path],
    undisturbed: dict[str, bytes],
    tmp_path: Path,
) -> None:
    out = tmp_path / "tables"
    done = subprocess.run(
        command_line("run", batch(out, memory=memory), "--quiet"),
        preexec_fn=smaller_files(limit),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "80", "TERM": "dumb"},
    )
    assert_failed_in_one_sentence(done, f"File too large: {out}{where}")
    assert_nothing_is_half(out, undisturbed)
    assert not list(out.glob("**/.*"))
    assert ahba("run", batch(out), "--quiet").returncode == 0
    assert tree(out) == undisturbed


def assert_failed_in_one_sentence(done: "subprocess.CompletedProcess[str]", words: str) -> None:
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("Error: ")
    assert words in done.stderr
    assert "should not happen" not in done.stderr


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A file system of `size` bytes."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let a test mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize(("share", "memory"), [(0.5, LEAST_MEMORY), (0.3, "8GB"), (0.9, "8GB")])
def test_a_full_disk_ends_the_run_and_the_next_completes_it(
    share: float, memory: str, batch: Callable[..., Path], undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    pages = sum(-(-len(content) // 4096) * 4096 for content in undisturbed.values())
    with small_disk(tmp_path / "disk", int(share * pages)) as disk:
        out = disk / "tables"
        done = ahba("run", batch(out, memory=memory), "--quiet")
        assert_failed_in_one_sentence(done, f"No space left on device: {out}/")
        assert_nothing_is_half(out, undisturbed)
        assert not list(out.glob("**/.*"))
        assert out.exists() is (memory != LEAST_MEMORY)  # scratch alone fills it, and is gone
        shutil.copytree(disk, tmp_path / "roomy")
    roomy = tmp_path / "roomy" / "tables"
    assert ahba("run", batch(roomy), "--quiet").returncode == 0
    assert tree(roomy) == undisturbed


# ---------------------------------------------------------------- damage


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


DAMAGE: dict[str, Callable[[Path], None]] = {
    "a byte is another": lambda path: rewrite(path, flipped),
    "cut off": lambda path: rewrite(path, lambda data: data[: len(data) // 2]),
    "empty": lambda path: rewrite(path, lambda _: b""),
    "longer": lambda path: rewrite(path, lambda data: data + b"\n"),
    "gone": Path.unlink,
}
FILES = (
    "counts",
    "donor_expression",
    "gene_stability",
    "expression",
    "genes",
    "regions",
    "pipelines",
    "units",
)


@pytest.fixture(scope="module")
def finished(
    small_lake: lake.Lake, atlas: Atlas, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[AnyAtlas], dict[str, Any]]:
    """A run with every table. Not to be changed."""
    out, atlases = tmp_path_factory.mktemp("finished"), [atlas, octants("other", first=11)]
    request: dict[str, Any] = {"pipelines": [Pipeline(percent_ds=10)], "donor_tables": True}
    run(small_lake, atlases, out=out, **request)
    return out, atlases, request


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("kind", FILES)
def test_a_damaged_unit_is_made_again(
    kind: str,
    damage: str,
    small_lake: lake.Lake,
    finished: tuple[Path, list[AnyAtlas], dict[str, Any]],
    tmp_path: Path,
) -> None:
    source, atlases, request = finished
    out = Path(shutil.copytree(source, tmp_path / "tables"))
    (path,) = [path for path in out.glob(f"{kind}/**/*") if path.is_file() and "atlas=other" not in str(path)]
    DAMAGE[damage](path)
    reports = run(small_lake, atlases, out=out, **request)
    both = kind in ("genes", "pipelines")  # shared by the atlases
    assert [one.status for one in reports] == ["written", "written" if both else "present"]
    assert tree(out) == tree(source)


def test_damage_of_what_is_not_asked_for_does_not_stay(
    small_lake: lake.Lake, finished: tuple[Path, list[AnyAtlas], dict[str, Any]], tmp_path: Path
) -> None:
    """Donors' tables of an earlier run, where this one asks for none: whole ones stay, others go."""
    source, atlases, request = finished
    for damaged, kept in (("counts", True), ("donor_expression", False)):
        out = Path(shutil.copytree(source, tmp_path / damaged))
        (path,) = out.glob(f"{damaged}/*/atlas=octants/*.parquet")
        rewrite(path, flipped)
        run(small_lake, atlases, out=out, pipelines=request["pipelines"])
        (unit, _) = run(small_lake, atlases, out=out, pipelines=request["pipelines"])
        assert unit.status == "present"
        assert unit.unit.path("donor_expression").exists() is kept
        run(small_lake, atlases, out=out, **request)
        assert tree(out) == tree(source)


def test_tables_without_a_record_are_made_again(
    small_lake: lake.Lake, finished: tuple[Path, list[AnyAtlas], dict[str, Any]], tmp_path: Path
) -> None:
    """As a kill just before the record, or a version that wrote none, leaves them."""
    source, atlases, request = finished
    out = Path(shutil.copytree(source, tmp_path / "tables"))
    shutil.rmtree(out / "units")
    assert [one.status for one in run(small_lake, atlases, out=out, **request)] == ["written"] * 2
    assert tree(out) == tree(source)


def test_a_record_tells_of_another_atlas_too(
    small_lake: lake.Lake, finished: tuple[Path, list[AnyAtlas], dict[str, Any]], tmp_path: Path
) -> None:
    source, _, request = finished
    out = Path(shutil.copytree(source, tmp_path / "tables"))
    shutil.rmtree(out / "regions")
    with pytest.raises(RequestError, match="tables of another atlas named 'octants'"):
        run(small_lake, [octants(first=3)], out=out, **request)


def test_a_record_names_every_file_of_its_unit(
    finished: tuple[Path, list[AnyAtlas], dict[str, Any]],
) -> None:
    source, (atlas, _), _ = finished
    (path,) = source.glob("units/*/atlas=octants.json")
    record = json.loads(path.read_text())
    files = {name: content for name, content in tree(source).items() if "atlas=other" not in name}
    del files[path.relative_to(source).as_posix()]
    assert record["atlas"] == atlas.fingerprint
    assert record["files"] == {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in files.items()
    }
