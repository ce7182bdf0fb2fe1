"""A store is opened lazily, at one snapshot, read-only, and any Zarr tool reads it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
import zarr

import lake
from ingest.simulate import simulate
from lake.arrays import CheckedMatrix
from lake.errors import RequestError, StoreError
from lake.layout import (
    CHUNK_BYTES,
    CHUNK_ROW_BYTES,
    CHUNK_ROWS,
    DONORS,
    FORMAT_VERSION,
    MATRICES,
    ONTOLOGY,
    PROBES,
    SAMPLES,
    SHARD_BYTES,
    SHARD_ROWS,
    chunk_columns,
    chunk_rows,
    shard_rows,
)
from tests.helpers import tree


def refuse_to_compute(*_: object, **__: object) -> None:
    raise AssertionError("something was computed")


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """What is read of the matrices, in order."""
    seen: list[tuple[str, Any]] = []
    read = CheckedMatrix.__getitem__

    def counted(self: CheckedMatrix, key: Any) -> Any:
        seen.append((self._where.rsplit("/", 1)[1], key))
        return read(self, key)

    monkeypatch.setattr(CheckedMatrix, "__getitem__", counted)
    return seen


# ---------------------------------------------------------------- lazy


def test_opening_and_asking_for_arrays_computes_and_reads_nothing(
    store_path: Path, reads: list[tuple[str, Any]]
) -> None:
    with dask.config.set(scheduler=refuse_to_compute):
        data = lake.open(store_path).microarray()
        part = (data["expression"].isel(probe=slice(0, 10)) - 1).mean("sample")
        with pytest.raises(AssertionError, match="something was computed"):
            part.compute()
    assert reads == []


def test_one_probe_reads_one_block_a_donor(store_path: Path, reads: list[tuple[str, Any]]) -> None:
    data = lake.open(store_path).microarray()
    values = data["expression"].isel(probe=7).to_numpy()
    assert len(reads) == 3
    assert {name for name, _ in reads} == {"expression"}
    assert values.shape == (220,)


def test_one_donor_reads_that_donor(store_path: Path, reads: list[tuple[str, Any]]) -> None:
    store = lake.open(store_path)
    columns = np.flatnonzero(store.samples["donor"] == "10021")
    assert store.microarray()["detected"].isel(sample=columns).to_numpy().shape == (400, 89)
    assert len(reads) == 1


def test_chunks_end_where_donors_end(small_lake: lake.Lake) -> None:
    for variable in small_lake.microarray().data_vars.values():
        assert variable.data.chunks[1] == (95, 89, 36)
        assert sum(variable.data.chunks[0]) == 400


def test_equal_reads_are_equal_tasks(store_path: Path) -> None:
    one, other = (lake.open(store_path).microarray()["expression"].data for _ in range(2))
    assert one.name == other.name
    assert set(one.dask) == set(other.dask)


def test_a_dataset_knows_what_it_is(small_lake: lake.Lake) -> None:
    data = small_lake.microarray()
    assert data["expression"].dims == data["detected"].dims == ("probe", "sample")
    assert (data["expression"].dtype, data["detected"].dtype) == (np.float64, np.bool_)
    for name in small_lake.probes:
        assert data[name].dims == ("probe",)
    for name in small_lake.samples:
        assert data[name].dims == ("sample",)
    assert data.attrs["snapshot"] == small_lake.snapshot
    assert "SIMULATED" in data.attrs["simulated"]
    assert "Hawrylycz" in data.attrs["citation"]


# ---------------------------------------------------------------- readable by others


def test_plain_zarr_reads_it(store_path: Path, small_lake: lake.Lake) -> None:
    group = zarr.open_group(store_path, mode="r")
    data = small_lake.microarray()
    values = [group[f"microarray/{donor}/expression"][:] for donor in small_lake.donors]  # type: ignore[index]
    np.testing.assert_array_equal(np.concatenate(values, axis=1), data["expression"].to_numpy())
    assert group["probes/gene_symbol"][:].tolist() == small_lake.probes["gene_symbol"].tolist()  # type: ignore[index,union-attr]


@pytest.mark.parametrize("group", ["probes", "ontology", "donors", "microarray/9861"])
def test_xarray_reads_it(group: str, store_path: Path) -> None:
    data = xr.open_zarr(store_path, group=group, consolidated=False, chunks=None)
    assert len(data) > 3
    expected = {"probes": PROBES, "ontology": ONTOLOGY, "donors": DONORS}.get(group, SAMPLES + MATRICES)
    assert set(data.data_vars) | set(data.coords) == {variable.name for variable in expected}
    for variable in expected:
        found = data[variable.name]
        assert found.dims == variable.dims
        assert found.attrs["long_name"] == variable.doc
        assert found.attrs.get("units", "") == variable.unit
        assert found.dtype.kind == {"f8": "f", "i8": "i", "bool": "b", "str": "T"}[variable.dtype]


def test_the_layout_documents_every_variable() -> None:
    for variable in (*PROBES, *ONTOLOGY, *DONORS, *SAMPLES, *MATRICES):
        assert variable.doc
        assert variable.dtype in {"f8", "i8", "bool", "str"}


@pytest.mark.parametrize("n_samples", [1, 36, 121, 129, 946, 2048, 2049, 50_000, 10_000_000])
@pytest.mark.parametrize("itemsize", CHUNK_BYTES)
def test_chunks_and_shards_are_bounded_and_fit(n_samples: int, itemsize: int) -> None:
    rows, columns, shard = (
        chunk_rows(n_samples, itemsize),
        chunk_columns(n_samples, itemsize),
        shard_rows(n_samples),
    )
    assert 1 <= rows <= CHUNK_ROWS
    assert 1 <= columns <= n_samples
    assert itemsize * columns <= CHUNK_ROW_BYTES
    assert rows * columns * itemsize <= CHUNK_BYTES[itemsize]
    assert rows <= shard <= SHARD_ROWS
    assert shard % rows == 0
    assert 8 * n_samples * shard <= SHARD_BYTES or shard <= CHUNK_ROWS
    parts = -(-n_samples // columns)
    assert parts * columns - n_samples < parts  # little is padded


def test_a_donors_chunks() -> None:
    """As measured for the six donors: a gene reads 32 rows, a place an eighth of the largest donor."""
    assert (chunk_rows(946), chunk_columns(946), shard_rows(946)) == (32, 119, 2048)
    assert (chunk_rows(946, 1), chunk_columns(946, 1)) == (128, 946)


# ---------------------------------------------------------------- what is refused


def test_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"there is no store; `ahba ingest DIR --store .*` makes one"):
        lake.open(tmp_path / "none")


def test_no_donor_yet(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no donor is in this store yet"):
        lake.open(tmp_path)


def test_another_zarr_group(tmp_path: Path) -> None:
    zarr.create_group(tmp_path / "other", zarr_format=3)
    with pytest.raises(StoreError, match="is a Zarr group, but no ahba-lake store"):
        lake.open(tmp_path / "other")


def test_a_zarr_array(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "array", shape=(2,), dtype="i8")
    with pytest.raises(StoreError, match="array"):
        lake.open(tmp_path / "array")


@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, 0, None, "1"])
def test_another_format_version(version: object, store_copy: Path) -> None:
    path = store_copy / "zarr.json"
    content = json.loads(path.read_text())
    content["attributes"]["ahba_lake"]["format_version"] = version
    path.write_text(json.dumps(content))
    with pytest.raises(StoreError, match=f"has store format {version}, this version reads {FORMAT_VERSION}"):
        lake.open(store_copy)


def test_reading_changes_nothing(store_copy: Path, atlas: Any) -> None:
    before = tree(store_copy, ignoring=())
    for path in store_copy.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    store = lake.open(store_copy)
    store.microarray().compute()
    lake.expression(store, atlas)
    assert lake.verify(store) == []
    for path in store_copy.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    assert tree(store_copy, ignoring=()) == before


def test_arrays_cannot_be_written_through(small_lake: lake.Lake) -> None:
    with pytest.raises(ValueError, match="read-only"):
        small_lake._root["probes/probe_id"][0] = 1  # type: ignore[index]


@pytest.mark.parametrize("name", ["expression", "detected"])
@pytest.mark.parametrize("rows", [slice(None), [3, 5], 7])
def test_a_missing_object_of_a_remote_store_is_an_error(name: str, rows: Any, store_copy: Path) -> None:
    """Not seen on opening, which would take a request for each, but when it would be read as fill values."""
    remote = lake.open(f"file://{store_copy}")
    data = remote.microarray()[name]
    whole = data.isel(probe=rows).to_numpy()
    assert (whole == lake.open(store_copy).microarray()[name].isel(probe=rows).to_numpy()).all()
    (store_copy / "microarray" / "10021" / name / "c" / "0" / "0").unlink()
    with pytest.raises(StoreError, match=f"microarray/10021/{name}/c/0/0.* is missing"):
        data.isel(probe=rows).compute()
    with pytest.raises(StoreError, match=f"microarray/10021/{name}/c/0/0.* is missing"):
        lake.open(f"file://{store_copy}").microarray()[name].compute()
    others = np.flatnonzero(remote.samples["donor"] != "10021")
    assert data.isel(sample=others).shape[1] == data.isel(sample=others).to_numpy().shape[1]


# ---------------------------------------------------------------- donors


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("all", ["9861", "10021", "12876"]),
        ("10021", ["10021"]),
        ("H0351.2001", ["9861"]),
        (["12876", "H0351.2002", "10021"], ["10021", "12876"]),
        ((12876, 9861), ["9861", "12876"]),
    ],
)
def test_donors_resolve(asked: Any, expected: list[str], small_lake: lake.Lake) -> None:
    assert small_lake.resolve_donors(asked) == expected


def test_unknown_donors_are_named(small_lake: lake.Lake) -> None:
    with pytest.raises(RequestError, match="Donor 15496, x is not in the store; it holds 9861, 10021, 12876"):
        small_lake.resolve_donors(["x", "9861", "15496"])
    with pytest.raises(RequestError, match="No donor is chosen"):
        small_lake.resolve_donors([])


def test_samples_come_donor_after_donor(small_lake: lake.Lake) -> None:
    samples = small_lake.samples
    assert list(dict.fromkeys(samples["donor"])) == small_lake.donors
    assert samples.index.tolist() == list(range(220))
    assert samples["well_id"].is_unique
    assert repr(small_lake) == (
        f"<Lake {small_lake.path}: simulated, donors 9861, 10021, 12876, snapshot {small_lake.snapshot}>"
    )


# ---------------------------------------------------------------- memory


def peak_memory(code: str) -> float:
    """MB that a process of its own needs at most."""
    # Not ru_maxrss: on Linux a child's starts from what its parent, pytest, held when it was forked.
    status = "open('/proc/self/status').read()"
    script = f"{code}\nimport re\nprint(re.search(r'VmHWM:\\s+(\\d+) kB', {status})[1])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return int(done.stdout.splitlines()[-1]) * 1024 / 1e6


@pytest.mark.slow
def test_ingest_streams(tmp_path: Path) -> None:
    """A donor that is 160 MB as an array is ingested with some tens of MB above what a small one takes."""
    simulate(tmp_path / "big", probes=20_000, donors=["9861"])
    simulate(tmp_path / "small", probes=100, donors=["9861"], samples_scale=0.02)

    def ingest(name: str) -> str:
        return (
            "from lake.ingestion import ingest_directory\n"
            f"ingest_directory({str(tmp_path / name)!r}, {str(tmp_path / f'{name}.zarr')!r})"
        )

    small, big = peak_memory(ingest("small")), peak_memory(ingest("big"))
    array = 20_000 * 946 * 8 / 1e6
    assert array > 150
    assert big < 700  # what is promised at full size
    assert big - small < 3 * array
    peak = peak_memory(
        f"import lake\nlake.open({str(tmp_path / 'big.zarr')!r}).microarray()['expression'].mean().compute()"
    )
    assert peak < 600
