"""``--dry-run`` counts what a run will make, and looks only."""

from pathlib import Path
from typing import Any

import pytest

import lake
from lake.forecast import GENES_PER_PROBE, forecast
from lake.journal import read_journal
from lake.plan import make_plan, ordered_plan
from lake.resources import BASE_BYTES, WORKER_BYTES, Resources
from tests.helpers import called, octants, tree
from transforms.atlas import Atlas
from transforms.pipeline import Pipeline

PIPELINES = [Pipeline(), Pipeline(agg_metric="median"), Pipeline(lr_mirror="bidirectional")]
ROOMY = Resources(workers=1, memory=8 << 30)


def made(forecasted: Any) -> dict[str, int]:
    return {stage.kind: stage.n_stages for stage in forecasted.stages}


def test_what_is_foreseen_is_what_is_made(small_lake: lake.Lake, atlas: Atlas, tmp_path: Path) -> None:
    atlases = [atlas, octants("other", first=11)]
    foreseen = lake.dry_run(small_lake, atlases, PIPELINES, out=tmp_path)
    assert not list(tmp_path.iterdir())
    assert (foreseen.n_pipelines, foreseen.n_atlases, foreseen.n_units, foreseen.n_done) == (3, 2, 6, 0)
    lake.run(small_lake, atlases, PIPELINES, out=tmp_path)
    journal = read_journal(tmp_path)
    assert made(foreseen) == journal["plan"]
    stages = {kind: stage["made"] for kind, stage in journal["stages"].items()}
    assert stages.items() <= made(foreseen).items()
    uses = {stage.kind: stage.n_uses for stage in foreseen.stages}
    assert uses["genes"] == 2 == made(foreseen)["values"]
    assert uses["normalisation"] == made(foreseen)["tables"] == 6


def test_what_is_there_is_not_foreseen(small_lake: lake.Lake, atlas: Atlas, tmp_path: Path) -> None:
    lake.run(small_lake, [atlas], PIPELINES[:2], out=tmp_path)
    before = tree(tmp_path, ignoring=())
    foreseen = lake.dry_run(small_lake, [atlas], PIPELINES, out=tmp_path)
    assert (foreseen.n_units, foreseen.n_done, made(foreseen)["tables"]) == (3, 2, 1)
    done = lake.dry_run(small_lake, [atlas], PIPELINES[:2], out=tmp_path)
    assert (done.n_done, done.seconds, done.bytes_to_read, set(made(done).values())) == (2, 0, 0, {0})
    assert tree(tmp_path, ignoring=()) == before


def test_workers_share_the_time_and_a_batch_needs_more_than_a_unit(
    small_lake: lake.Lake, atlas: Atlas
) -> None:
    one, all_of_them = (
        make_plan(chosen, [atlas], small_lake.snapshot) for chosen in (PIPELINES[:1], PIPELINES)
    )
    size: dict[str, int] = {"n_probes": 58_692, "n_samples": 3702}
    alone, batch = forecast(one, one, ROOMY, **size), forecast(all_of_them, all_of_them, ROOMY, **size)
    shared = forecast(all_of_them, all_of_them, Resources(workers=2, memory=8 << 30), **size)
    assert shared.seconds == batch.seconds / 2 > alone.seconds / 2
    assert BASE_BYTES < alone.memory < batch.memory < shared.memory < 8 << 30
    values = int(8 * GENES_PER_PROBE * 58_692 * 3702)
    assert batch.memory == BASE_BYTES + WORKER_BYTES + values
    assert batch.bytes_to_read > alone.bytes_to_read > 58_692 * 3702
    little = forecast(all_of_them, all_of_them, Resources(workers=1, memory=800 << 20), **size)
    assert (batch.bytes_to_scratch, little.bytes_to_scratch) == (0, values)
    assert little.memory <= 800 << 20
    assert forecast(all_of_them, ordered_plan([]), ROOMY, **size).bytes_to_scratch == 0


@pytest.mark.slow
def test_the_command_prints_the_plan(store_path: Path, atlas_file: Path, tmp_path: Path) -> None:
    command = ("run", "--store", store_path, "--atlas", atlas_file, "--out", tmp_path / "out")
    done = called(*command, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1 pipelines x 1 atlases: 1 units, 0 of them done.\n")
    assert not (tmp_path / "out").exists()
    assert called(*command).returncode == 0
    assert called(*command, "--dry-run").stdout.endswith("There is nothing left to do.\n")
