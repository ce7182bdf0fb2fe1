"""The benchmark of the feed runs, at a tiny size, and writes what it measured."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "feed.py"


@pytest.mark.slow
def test_it_runs_whole(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="PyTorch is an extra; `make test` installs it")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--tiny", "--workdir", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "results" / "feed.json").read_text())
    assert report["sources"]["probes"]["copy"]["features"] == 400
    for found in report["sources"].values():
        assert {"whole", "in_rows", "epoch", "scaled", "train", "loader", "workers"} == set(found["ways"])
        assert all(0 < rate < 1e12 for rate in found["ways"].values())
    assert [target["name"] for target in report["targets"]] == [
        "the feed / a plain read, one value a gene",
        "the feed / a plain read, all probes",
    ]
    readme = (tmp_path / "README.md").read_text()
    assert "| all probes (400) | `feed.epoch`, shuffled |" in readme
    assert str(tmp_path) not in readme
