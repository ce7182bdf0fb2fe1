"""Chunks of a matrix -> gzip members: compressed, seen to decompress to what they were, with a checksum."""

import ctypes
import struct
import zlib
from functools import cache
from typing import Any

import numpy as np
import zarr
from numcodecs import blosc  # type: ignore[import-untyped]
from numpy.typing import NDArray

from lake import compiled
from lake.arrays import COMPRESSION
from lake.errors import StoreError

_GZIP_HEADER = b"\x1f\x8b\x08" + bytes(6) + b"\xff"  # RFC 1952: deflated, no name, no time, by no system
_STORED_MOST = 0xFFFF  # bytes of a block that is not compressed (RFC 1951, 3.2.4)
_SHUFFLES = {"shuffle": blosc.SHUFFLE, "bitshuffle": blosc.BITSHUFFLE}
_FUNCTIONS = {"compress": "blosc_compress_ctx", "decompress": "blosc_decompress_ctx", "checksum": "crc32"}

Packed = tuple[bytearray | memoryview, list[int]]  # gzip members, end to end, and the bytes of each


def pack(values: NDArray[Any], array: zarr.Array[Any]) -> Packed:
    """Pack some rows of a matrix, chunk by chunk.

    Parameters
    ----------
    values : (row, sample) array
        Whole chunks of rows, except at the matrix's end.
    array : zarr.Array
        Made by `lake.arrays.create_matrix`.

    Returns
    -------
    members : bytearray or memoryview
        One gzip member a chunk, row by row of them.
    sizes : list of int
        Bytes of each.

    Raises
    ------
    StoreError
        If a chunk does not decompress to what it was.
    """
    values = np.ascontiguousarray(values)
    return _pack_at_once(values, array) or _pack_one_by_one(values, array)


def _pack_at_once(values: NDArray[Any], array: zarr.Array[Any]) -> Packed | None:
    """Pack by a kernel; None where there is none, or a chunk lost something.

    A chunk takes 50 us: between steps so short, threads would wait for Python's lock as long as they work.
    """
    kernels, functions = compiled.kernels, _functions()
    if kernels is None or functions is None:
        return None
    rows, columns = array.chunks
    fill = np.full(columns, array.fill_value, values.dtype).view(np.uint8)
    sizes = np.empty(-(-len(values) // rows) * -(-values.shape[1] // columns), np.int64)
    members = np.empty(len(sizes) * kernels.most_bytes(rows * len(fill)), np.uint8)
    compressor, level, shuffle = _compression(values.dtype)
    packer = kernels.Packer(
        **functions, compressor=compressor, level=level, shuffle=shuffle, type_size=values.itemsize
    )
    if packer.pack(values.view(np.uint8), rows, fill, members, sizes) < len(sizes):
        return None
    return members.data[: sizes.sum()], sizes.tolist()


@cache
def _functions() -> dict[str, Any] | None:
    """Where functions of the library that numcodecs brings are in memory; None where it hides one of them."""
    library = ctypes.CDLL(blosc.__file__)
    if not all(hasattr(library, name) for name in _FUNCTIONS.values()):
        return None
    return {
        role: ctypes.cast(getattr(library, name), ctypes.c_void_p).value for role, name in _FUNCTIONS.items()
    }


def _pack_one_by_one(values: NDArray[Any], array: zarr.Array[Any]) -> Packed:
    (rows, columns), members, ends = array.chunks, bytearray(), [0]
    for row in range(0, len(values), rows):
        for column in range(0, values.shape[1], columns):
            part = values[row : row + rows, column : column + columns]
            _append_member(members, _compressed(_padded(part, (rows, columns), array.fill_value)))
            ends.append(len(members))
    return members, np.diff(ends).tolist()


def _compressed(chunk: NDArray[Any]) -> bytes:
    """A chunk through blosc, and back to see that nothing was lost."""
    compressed: bytes = blosc.compress(chunk, *_compression(chunk.dtype))
    if blosc.decompress(compressed) != chunk.tobytes():
        raise StoreError("A compressed chunk does not decompress to what it was; is the memory at fault?")
    return compressed


def _compression(dtype: np.dtype[Any]) -> tuple[bytes, int, int]:
    """The compressor, its level and the shuffle, as blosc has them."""
    compressor, level, shuffle = COMPRESSION["bool" if dtype.kind == "b" else "f8"]
    return compressor.encode(), level, _SHUFFLES[shuffle]


def _padded(part: NDArray[Any], shape: tuple[int, int], fill: Any) -> NDArray[Any]:
    """A whole chunk in one piece of memory, the part beyond the matrix's edge filled."""
    if part.shape == shape:
        return np.ascontiguousarray(part)
    chunk = np.full(shape, fill, part.dtype)
    chunk[: part.shape[0], : part.shape[1]] = part
    return chunk


def _append_member(data: bytearray, content: bytes) -> None:
    """Append a gzip member that holds the content as it is; `zlib` takes three times as long for it."""
    data += _GZIP_HEADER
    for start in range(0, len(content), _STORED_MOST):
        block = content[start : start + _STORED_MOST]
        last = start + len(block) == len(content)
        data += struct.pack("<BHH", last, len(block), len(block) ^ _STORED_MOST)
        data += block
    data += struct.pack("<II", zlib.crc32(content), len(content))
