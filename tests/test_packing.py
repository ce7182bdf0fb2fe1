"""Chunks packed by kernels and one by one: the same bytes, and gzip's."""

import ctypes
import gzip
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from lake import compiled, packing
from lake.arrays import create_matrix
from lake.layout import MATRICES
from lake.packing import _append_member
from tests.test_shards import flipped, made_up

KERNELS: Any = compiled.kernels
needs_kernels = pytest.mark.skipif(KERNELS is None or packing._functions() is None, reason="none are built")
SHAPES = [(1, 1), (31, 3), (400, 36), (300, 300), (70, 2100)]


def noise(dtype: str, shape: tuple[int, int]) -> NDArray[Any]:
    """What cannot be compressed, so that a chunk of calls takes several of gzip's blocks."""
    size = {"f8": 8, "bool": 1}[dtype] * shape[0] * shape[1]
    return np.frombuffer(np.random.default_rng(1).bytes(size), dtype).reshape(shape)


def packed(folder: Path, variable: Any, values: NDArray[Any]) -> tuple[bytes, list[int]]:
    shape: Any = values.shape
    array = create_matrix(zarr.create_group(folder, zarr_format=3, overwrite=True), variable, *shape)
    with ThreadPoolExecutor(1) as pool:
        members, sizes = pool.submit(packing.pack, values, array).result()
    return bytes(members), sizes


@needs_kernels
@pytest.mark.parametrize("make", [made_up, noise])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("variable", MATRICES)
def test_kernels_pack_the_same_bytes(
    variable: Any, shape: tuple[int, int], make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = make(variable.dtype, shape)
    found = packed(tmp_path, variable, values)
    monkeypatch.setattr(compiled, "kernels", None)
    assert found == packed(tmp_path, variable, values)


@needs_kernels
@pytest.mark.parametrize("variable", MATRICES)
def test_kernels_pack_all_that_can_be_packed(
    variable: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "_pack_one_by_one", None)
    values = made_up(variable.dtype, (300, 300))
    assert packed(tmp_path, variable, values)[1]


Decompress = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
FAILING = Decompress(lambda *_: -1)


def lose_by_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a kernel packs does not decompress."""
    functions = packing._functions()
    if functions is not None:
        failing = {"decompress": ctypes.cast(FAILING, ctypes.c_void_p).value}
        monkeypatch.setattr(packing, "_functions", lambda: functions | failing)


@pytest.mark.parametrize("variable", MATRICES)
def test_what_a_kernel_loses_is_packed_one_by_one(
    variable: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = made_up(variable.dtype, (300, 300))
    expected = packed(tmp_path, variable, values)
    lose_by_kernels(monkeypatch)
    assert packed(tmp_path, variable, values) == expected


def test_a_library_that_hides_its_functions_takes_time_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = made_up("f8", (300, 300))
    expected = packed(tmp_path, MATRICES[0], values)
    monkeypatch.setitem(packing._FUNCTIONS, "compress", "blosc_squeeze")
    packing._functions.cache_clear()
    assert packing._functions() is None
    assert packed(tmp_path, MATRICES[0], values) == expected
    packing._functions.cache_clear()


@needs_kernels
def test_kernels_refuse_arrays_that_do_not_go_together() -> None:
    functions: Any = packing._functions()
    packer = KERNELS.Packer(**functions, compressor=b"lz4", level=5, shuffle=1, type_size=8)
    values, fill = np.zeros((4, 64), np.uint8), np.zeros(32, np.uint8)
    members, sizes = np.empty(4 * KERNELS.most_bytes(64), np.uint8), np.empty(4, np.int64)
    assert packer.pack(values, 2, fill, members, sizes) == 4
    for wrong in ((values[:2], 2, fill, members, sizes), (values, 0, fill, members, sizes)):
        with pytest.raises(ValueError, match="one size for each chunk"):
            packer.pack(*wrong)
    with pytest.raises(ValueError, match="too little room"):
        packer.pack(values, 2, fill, members[1:], sizes)


@needs_kernels
@pytest.mark.parametrize("size", [0, 1, 1 << 17, (1 << 17) + 1, 300_000])
def test_kernels_see_what_a_file_holds(size: int, tmp_path: Path) -> None:
    data = np.random.default_rng(0).bytes(size)
    path = tmp_path / "x"

    def reads_back(written: bytes) -> bool:
        path.write_bytes(written)
        with path.open("rb") as stream:
            return bool(KERNELS.reads_back(stream.fileno(), data))

    assert reads_back(data)
    assert not reads_back(data + b"x")
    assert size == 0 or not (reads_back(data[:-1]) or reads_back(flipped(data)))


@pytest.mark.parametrize("size", [100, 65_534, 65_535, 65_536, 200_000])
def test_a_chunk_is_wrapped_as_a_gzip_member(size: int) -> None:
    data = np.random.default_rng(0).bytes(size)
    wrapped = bytearray()
    _append_member(wrapped, data)
    assert gzip.decompress(wrapped) == data
    assert len(wrapped) <= size + 18 + 5 * (1 + size // 65_535)
    broken = bytearray(wrapped)
    broken[size // 2] ^= 1
    with pytest.raises((OSError, zlib.error)):
        gzip.decompress(bytes(broken))
