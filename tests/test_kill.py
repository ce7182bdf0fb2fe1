"""Killed at any moment, an ingest or a run leaves whole things only; the same command goes on from there."""

import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import lake
from ingest.simulate import simulate
from lake.errors import StoreError
from lake.ingestion import ingest_directory
from lake.tables import read_expression
from lake.verification import verify
from tests.helpers import ahba, command_line, store_beside, tree

KILLS = 14
DONORS = ("9861", "10021", "12876", "14380")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four donors that take long enough for a kill to fall anywhere."""
    directory = tmp_path_factory.mktemp("killed") / "published"
    simulate(directory, probes=1500, donors=DONORS, samples_scale=0.3)
    return directory


@pytest.fixture(scope="module")
def undisturbed(source: Path) -> Path:
    return store_beside(source)


def killed_at_random(
    arguments: list[object], *, begun: Callable[[], bool], longest: float, seed: int
) -> Iterator[int]:
    """Start the command again and again, kill each at a random moment after it set to work; give its code."""
    dice = random.Random(seed)
    for _ in range(KILLS):
        process = subprocess.Popen(
            command_line(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and not begun():
            time.sleep(0.001)
        time.sleep(dice.uniform(0, longest))
        process.send_signal(signal.SIGKILL)
        yield process.wait()


def whole_donors(store: Path) -> list[str]:
    """The donors that a store opens with; it must be sound."""
    if not (store / "zarr.json").exists():
        with pytest.raises(StoreError, match="no donor is in this store yet"):
            lake.open(store)
        return []
    opened = lake.open(store)
    assert verify(opened) == []
    assert opened.microarray().sizes["sample"] == len(opened.samples)
    return opened.donors


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_a_killed_ingest_goes_on(seed: int, source: Path, undisturbed: Path, tmp_path: Path) -> None:
    store = tmp_path / "store.zarr"
    arguments: list[object] = ["ingest", source, "--store", store, "--quiet"]
    before: list[str] = []
    codes = []
    for code in killed_at_random(arguments, begun=(store / ".wip").exists, longest=0.4, seed=seed):
        codes.append(code)
        donors = whole_donors(store)
        assert donors == list(DONORS[: len(donors)])  # one after the other
        assert len(donors) >= len(before)  # none is lost
        before = donors
    assert codes.count(-signal.SIGKILL) > KILLS // 3
    done = ahba(*arguments)
    assert done.returncode == 0, done.stderr
    assert tree(store) == tree(undisturbed)
    assert ahba("verify", "--store", store, "--quiet").returncode == 0


@pytest.mark.slow
def test_a_killed_replacement_leaves_the_old_or_the_new(
    source: Path, undisturbed: Path, tmp_path: Path
) -> None:
    changed, store = tmp_path / "changed", tmp_path / "store.zarr"
    shutil.copytree(source, changed)
    for folder in changed.iterdir():
        path = folder / "PACall.csv"
        path.write_bytes(path.read_bytes().replace(b",0,", b",1,", 1))
    shutil.copytree(undisturbed, store)
    old = lake.open(undisturbed)
    arguments: list[object] = ["ingest", changed, "--store", store, "--replace", "--quiet"]
    for _ in killed_at_random(arguments, begun=(store / ".wip").exists, longest=0.4, seed=2):
        assert whole_donors(store) == list(DONORS)
    assert ahba(*arguments).returncode == 0
    final = lake.open(store)
    assert verify(final) == []
    assert final.snapshot != old.snapshot
    ingest_directory(changed, tmp_path / "fresh.zarr")
    fresh = lake.open(tmp_path / "fresh.zarr")
    assert final.microarray().compute().equals(fresh.microarray().compute())


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_a_killed_run_goes_on(seed: int, undisturbed: Path, atlas_file: Path, tmp_path: Path) -> None:
    atlases = [f"{tmp_path}/octants{number}.nii.gz" for number in range(6)]
    for path in atlases:
        Path(path).write_bytes(atlas_file.read_bytes())
    named = [word for path in atlases for word in ("--atlas", path)]

    def arguments(out: Path) -> list[object]:
        return ["run", "--store", undisturbed, *named, "--out", out, "--save-donors", "--quiet"]

    expected = tmp_path / "undisturbed"
    assert ahba(*arguments(expected)).returncode == 0
    out, codes = tmp_path / "tables", []
    for code in killed_at_random(arguments(out), begun=out.exists, longest=1.0, seed=seed):
        codes.append(code)
        for path in out.glob("expression/*/*/part-0.parquet"):
            name = path.parent.name.removeprefix("atlas=")
            table = read_expression(out, atlas=name)
            assert table.equals(read_expression(expected, atlas=name))
            for other in ("counts", "donor_expression"):
                assert list(out.glob(f"{other}/*/atlas={name}/part-0.parquet"))
    assert codes.count(-signal.SIGKILL) > KILLS // 3
    done = ahba(*arguments(out))
    assert done.returncode == 0, done.stderr
    assert tree(out) == tree(expected)


def test_a_reader_sees_the_old_snapshot_until_the_commit(published: Path, tmp_path: Path) -> None:
    """From another process, while an ingest is at work."""
    store = tmp_path / "store.zarr"
    ingest_directory(published, store, donors=[DONORS[0]])
    first, seen = lake.open(store).snapshot, set()
    process = subprocess.Popen(
        command_line("ingest", published, "--store", store, "--donors", DONORS[1], "--quiet"),
        stdout=subprocess.DEVNULL,
    )
    while process.poll() is None:
        opened = lake.open(store)
        seen.add((opened.snapshot, tuple(opened.donors)))
        assert opened.microarray().sizes["sample"] == len(opened.samples)
    assert process.returncode == 0
    last = lake.open(store)
    assert (first, DONORS[:1]) in seen
    assert seen <= {(first, DONORS[:1]), (last.snapshot, DONORS[:2])}
