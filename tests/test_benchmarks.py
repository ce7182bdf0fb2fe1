"""The benchmark scripts run, at a tiny size, and measure what they say."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests import peer

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "benchmarks" / "against_abagen.py"


@pytest.fixture
def against_abagen(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("benchmarks.against_abagen")


@pytest.mark.slow
def test_against_abagen_runs_whole(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--tiny", "--workdir", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "results" / "against_abagen.json").read_text())
    assert report["data"]["simulated"]
    assert (report["data"]["probes"], report["data"]["samples"]) == (400, 946 + 893)
    measured = [step for step in report["steps"].values() if min(step.values()) > 0]
    assert len(measured) == len(report["steps"])
    assert {"ingest", "run", "run_two_atlases"} <= set(report["steps"])
    if peer.peer_python() is not None:
        assert report["largest_relative_difference"] <= 1e-8
        assert report["steps"]["abagen"]["seconds"] > report["peer"]["inside_call_seconds"]
    readme = (tmp_path / "README.md").read_text()
    assert "| `ahba ingest` |" in readme
    assert str(tmp_path) not in readme


@pytest.mark.slow
def test_a_measurement_sees_children(against_abagen: ModuleType, tmp_path: Path) -> None:
    """A process that waits while its child works for a second and holds 200 MB."""
    work = "t = time.process_time()\nwhile time.process_time() < t + 1: pass"
    child = f"import time; held = bytearray(200_000_000); {work}"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], check=True)"
    found = against_abagen.measure([sys.executable, "-c", parent], tmp_path / "log")
    assert 1.0 <= found.cpu_seconds < 3.0
    assert found.seconds >= 1.0
    assert 200e6 < found.peak_bytes < 300e6


@pytest.mark.slow
def test_a_step_that_fails_ends_the_benchmark_with_what_it_said(
    against_abagen: ModuleType, tmp_path: Path
) -> None:
    failing = [sys.executable, "-c", "import sys; print('out of order'); sys.exit(3)"]
    with pytest.raises(SystemExit, match=r"ended with 3:\nout of order"):
        against_abagen.measure(failing, tmp_path / "log")
