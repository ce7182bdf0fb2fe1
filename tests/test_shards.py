"""The files of a matrix are what Zarr and anybody else reads, whatever the shape, and the same every time."""

import gzip
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numcodecs import blosc  # type: ignore[import-untyped]
from numpy.typing import NDArray

from lake import compiled
from lake.arrays import create_matrix, open_matrix
from lake.errors import StoreError
from lake.layout import MATRICES, shard_rows
from lake.shards import BAND, write_shard

SHAPES = [(1, 1), (31, 3), (400, 36), (2048, 121), (2049, 129), (5000, 257), (70, 2100)]


@pytest.fixture(autouse=True, params=["C", "numpy"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test with and without kernels, if they are built."""
    if request.param == "numpy":
        monkeypatch.setattr(compiled, "kernels", None)


def made_up(dtype: str, shape: tuple[int, int]) -> NDArray[Any]:
    generator = np.random.default_rng(0)
    return generator.random(shape) if dtype == "f8" else generator.random(shape) < 0.3


def written(folder: Path, variable: Any, values: NDArray[Any]) -> zarr.Array[Any]:
    """Write all files as an ingest does, from other threads."""
    shape: Any = values.shape
    array = create_matrix(zarr.create_group(folder, zarr_format=3), variable, *shape)
    starts = range(0, shape[0], shard_rows(shape[1]))
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda start: write_shard(array, start, lambda a, b: values[a:b]), starts))
    return array


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("variable", MATRICES)
def test_zarr_and_the_fast_codecs_read_what_was_written(
    variable: Any, shape: tuple[int, int], tmp_path: Path
) -> None:
    values = made_up(variable.dtype, shape)
    array = written(tmp_path / "a", variable, values)
    fast = open_matrix(zarr.open_group(tmp_path / "a", mode="r"), variable.name)
    for reader in (array, fast):
        np.testing.assert_array_equal(reader[:], values)
        np.testing.assert_array_equal(
            reader[shape[0] // 2 :, shape[1] // 2], values[shape[0] // 2 :, shape[1] // 2]
        )


@pytest.mark.parametrize("variable", MATRICES)
def test_the_files_are_those_that_zarr_writes_but_for_the_order(variable: Any, tmp_path: Path) -> None:
    """The same chunks to the byte: only gzip's header and block sizes, and the chunks' order, are ours."""
    values = made_up(variable.dtype, (300, 300))
    ours = written(tmp_path / "ours", variable, values)
    theirs = create_matrix(zarr.create_group(tmp_path / "theirs", zarr_format=3), variable, 300, 300)
    theirs[:] = values
    assert sorted(chunks_of(ours)) == sorted(chunks_of(theirs))


def chunks_of(array: zarr.Array[Any]) -> list[bytes]:
    """Chunks of the first file, without the gzip around them."""
    store: Any = array.store
    data = (store.root / array.path / "c" / "0" / "0").read_bytes()
    assert array.shards is not None
    count = int(np.prod([s // c for s, c in zip(array.shards, array.chunks, strict=True)]))
    index = np.frombuffer(data[-4 - 16 * count : -4], "<u8").reshape(count, 2)
    return [gzip.decompress(data[place : place + size]) for place, size in index.tolist() if place < 2**63]


@pytest.mark.parametrize("variable", MATRICES)
def test_the_same_values_give_the_same_bytes(variable: Any, tmp_path: Path) -> None:
    values = made_up(variable.dtype, (3000, 300))
    for name in "ab":
        written(tmp_path / name, variable, values)
    files = [sorted((tmp_path / name).rglob("c/*/0")) for name in "ab"]
    assert len(files[0]) == 2
    assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]


def test_a_file_is_asked_for_in_bands_of_whole_chunks(tmp_path: Path) -> None:
    values = made_up("f8", (3000, 300))
    array = create_matrix(zarr.create_group(tmp_path, zarr_format=3), MATRICES[0], 3000, 300)
    asked: list[tuple[int, int]] = []

    def read(start: int, stop: int) -> NDArray[Any]:
        asked.append((start, stop))
        return values[start:stop]

    with ThreadPoolExecutor(1) as pool:
        pool.submit(write_shard, array, 2048, read).result()
    assert [start for start, _ in asked] == [2048, *(stop for _, stop in asked[:-1])]
    assert asked[-1][1] == 3000
    assert {(stop - start) % array.chunks[0] for start, stop in asked[:-1]} == {0}
    assert all(values[start:stop].nbytes <= BAND for start, stop in asked)


def flipped(data: bytes | bytearray) -> bytes:
    """The same with one bit changed."""
    changed = bytearray(data)
    changed[len(changed) // 2] ^= 4
    return bytes(changed)


@pytest.mark.parametrize("variable", MATRICES)
def test_a_file_that_reads_back_differently_is_refused(
    variable: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_bytes

    def failing(path: Path, data: bytes | bytearray) -> int:
        return write(path, flipped(data) if path.name == "0" else data)

    monkeypatch.setattr(Path, "write_bytes", failing)
    with pytest.raises(StoreError, match=r"c/0/0 reads back differently; is the disk at fault\?"):
        written(tmp_path / "a", variable, made_up(variable.dtype, (40, 5)))


@pytest.mark.parametrize("variable", MATRICES)
def test_a_chunk_that_lost_something_is_refused(
    variable: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decompress = blosc.decompress
    monkeypatch.setattr(compiled, "kernels", None)  # which would have it packed again (tests/test_packing.py)
    monkeypatch.setattr(blosc, "decompress", lambda data: flipped(decompress(data)))
    with pytest.raises(StoreError, match="does not decompress to what it was"):
        written(tmp_path / "a", variable, made_up(variable.dtype, (40, 5)))
    assert not list((tmp_path / "a").rglob("c/*/0"))
