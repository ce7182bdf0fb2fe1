"""The benchmark of the queries runs, at a tiny size, and writes what it measured."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "queries.py"


@pytest.mark.slow
def test_it_runs_whole(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--tiny", "--workdir", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "results" / "queries.json").read_text())
    assert report["data"] == {"probes": 400, "samples": 946 + 893}
    for found in report["questions"].values():
        assert 0 < found["best"] <= found["median"]
        assert found["first"] > 0
        assert 50e6 < found["peak_bytes"] < 1e9
    assert len(report["targets"]) == 7
    readme = (tmp_path / "README.md").read_text()
    assert "| 20 genes |" in readme
    assert str(tmp_path) not in readme
