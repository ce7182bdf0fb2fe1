"""The same answers over S3, with credentials from the environment and few bytes read."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import lake
from lake.errors import DamageError, StoreError

pytest.importorskip("s3fs")
moto_server = pytest.importorskip("moto.server")

BUCKET = "lake-test"
PROXIES = ("http_proxy", "https_proxy", "all_proxy")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """An S3 server of this machine, known to the environment only."""
    import boto3

    with pytest.MonkeyPatch.context() as patch:
        for name in (*PROXIES, *map(str.upper, PROXIES)):
            patch.delenv(name, raising=False)
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        running = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        running.start()
        host, port = running.get_host_and_port()
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        yield f"http://{host}:{port}"
        running.stop()


def upload(directory: Path, name: str, *, leaving_out: str = "-") -> str:
    import boto3

    client = boto3.client("s3")
    for path in sorted(directory.rglob("*")):
        key = path.relative_to(directory).as_posix()
        if path.is_file() and not key.startswith(leaving_out):
            client.put_object(Bucket=BUCKET, Key=f"{name}/{key}", Body=path.read_bytes())
    return f"s3://{BUCKET}/{name}"


@pytest.fixture(scope="module")
def url(server: str, store_path: Path) -> str:
    return upload(store_path, "small.zarr")


@pytest.fixture
def bytes_received(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of what the server sent."""
    import s3fs

    received: list[int] = []
    fetch = s3fs.S3FileSystem._cat_file

    async def counted(self: Any, *arguments: Any, **options: Any) -> Any:
        data = await fetch(self, *arguments, **options)
        received.append(len(data))
        return data

    monkeypatch.setattr(s3fs.S3FileSystem, "_cat_file", counted)
    return received


def test_a_store_is_the_same_over_s3(url: str, small_lake: lake.Lake) -> None:
    remote = lake.open(url)
    assert remote.snapshot == small_lake.snapshot
    symbol = small_lake.probes["reannotated_gene_symbol"].iloc[-1]
    xr.testing.assert_identical(remote.gene(symbol).to_xarray(), small_lake.gene(symbol).to_xarray())
    near = [store.near((-40, -20, 50), k=9).samples["well_id"].tolist() for store in (remote, small_lake)]
    assert near[0] == near[1]
    np.testing.assert_array_equal(remote.everything().read(), small_lake.everything().read())


def test_one_gene_reads_its_chunks_and_the_labels(
    url: str, store_path: Path, small_lake: lake.Lake, bytes_received: list[int]
) -> None:
    symbol = small_lake.probes["reannotated_gene_symbol"].iloc[-1]
    lake.open(url).gene(symbol).to_xarray()
    matrices = sum(path.stat().st_size for path in store_path.rglob("c/*/0"))
    tables = sum(path.stat().st_size for path in store_path.rglob("*") if path.is_file()) - matrices
    assert sum(bytes_received) < tables + matrices / 2
    assert len(bytes_received) > 50
    del bytes_received[:]
    store = lake.open(url)
    assert len(bytes_received) <= 2
    store.everything().of_donors("9861")
    assert sum(bytes_received) < 20_000


def test_the_lazy_dataset_over_s3(url: str, small_lake: lake.Lake) -> None:
    ours = lake.open(url).microarray()["expression"].isel(probe=slice(0, 3)).to_numpy()
    np.testing.assert_array_equal(ours, small_lake.everything().read("expression", 0, 3))


def test_a_missing_object_is_an_error(server: str, store_path: Path) -> None:
    for name in ("expression", "detected"):
        damaged = upload(store_path, f"no-{name}.zarr", leaving_out=f"microarray/10021/{name}/c/")
        with pytest.raises(DamageError, match=f"10021/{name}/c/0/0: is missing"):
            lake.open(damaged).everything().read(name)


def test_a_missing_column_is_an_error(server: str, store_path: Path) -> None:
    damaged = upload(store_path, "no-column.zarr", leaving_out="probes/entrez_id/c/")
    with pytest.raises(DamageError, match="probes/entrez_id"):
        _ = lake.open(damaged).probes


def test_no_store_there(server: str) -> None:
    with pytest.raises(StoreError, match=r"nothing\.zarr"):
        lake.open(f"s3://{BUCKET}/nothing.zarr")


def test_credentials_come_from_the_environment_only() -> None:
    """Our code knows of none: they are the S3 client's business."""
    source = "".join(path.read_text() for path in Path(lake.__file__).parent.rglob("*.py"))
    assert "AWS_" not in source
    assert "secret" not in source.lower()


AFTER_A_FORK = """
import os, sys, warnings
import lake

warnings.simplefilter("ignore", DeprecationWarning)  # Python's own, of forks where there are threads
store = lake.open(sys.argv[1])
store.everything().read()
child = os.fork()
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
try:
    store.everything().read()
except lake.errors.StoreError as error:
    print(error, flush=True)
print(lake.open(sys.argv[1]).everything().read().shape, flush=True)
os._exit(0)
"""


def test_a_connection_does_not_outlive_a_fork(url: str, small_lake: lake.Lake) -> None:
    words = [sys.executable, "-c", AFTER_A_FORK, url]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    said, shape = done.stdout.splitlines()
    assert "was opened before this process was forked" in said
    assert "open the store again here, or start processes by spawn" in said
    assert shape == str(small_lake.everything().shape)
