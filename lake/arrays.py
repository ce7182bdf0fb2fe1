"""Reading and writing tables and matrices as Zarr arrays, checksummed and readable by any Zarr tool."""

import asyncio
import os
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec
from zarr.core.sync import sync

from lake.errors import DamageError, StoreError
from lake.layout import Variable, chunk_columns, chunk_rows, shard_rows

if TYPE_CHECKING:
    import pandas as pd

_DTYPES: dict[str, Any] = {
    "f8": np.dtype("f8"),
    "i8": np.dtype("i8"),
    "bool": np.dtype("bool"),
    "str": np.dtypes.StringDType(),
}
_FILL = {"f8": np.nan, "i8": 0, "bool": False, "str": ""}
# A checksum around each chunk. A crc32c codec would do, were it looked at: zarrs passes over it
# wherever less than a whole shard is read. A gzip member is always checked; this one is stored, not deflated.
# (A Zstandard frame is checked too, and takes zarrs 20 us more to open, as long as all else of a chunk.)
CHECKSUM = GzipCodec(level=0)
# Of float64, zstd saves 1 % more than lz4, takes three times as long to write and a quarter longer to read.
# Calls are bits: with these together, zstd is three times as fast as on bytes, and saves a third more.
COMPRESSION: dict[str, tuple[Literal["lz4", "zstd"], int, Literal["shuffle", "bitshuffle"]]] = {
    "f8": ("lz4", 5, "shuffle"),
    "bool": ("zstd", 3, "bitshuffle"),
}
TABLE_LEVEL = 9  # of Zstandard; tables are read whole, and a sixth smaller than at level 5
# An all-zero chunk is stored like any other: a chunk that is not there is always a fault.
_CONFIG: Any = {"write_empty_chunks": True}


_OPENING = threading.RLock()


class _Process:
    """How many forks made this process; the forks themselves count."""

    forks = 0

    @classmethod
    def has_forked(cls) -> None:
        cls.forks += 1
        threaded: Any = sys.modules.get("dask.threaded")
        if threaded is not None:
            threaded.default_pool = None  # Dask would wait for its threads, which the fork left behind
            threaded.pools.clear()


os.register_at_fork(after_in_child=_Process.has_forked)


def forks() -> int:
    """How many forks made this process: what was opened before the last one is to be opened again."""
    return _Process.forks


def refuse_cut(where: str) -> None:
    """Refuse what is opened over a network, as its connections do not outlive a fork.

    Raises
    ------
    StoreError
    """
    raise StoreError(
        f"{where} was opened before this process was forked, and connections do not outlive that: open the "
        "store again here, or start processes by spawn."
    )


@contextmanager
def fast_codecs() -> Iterator[None]:
    """Open arrays inside this block to have them decoded by ``zarrs`` on all cores, where it is installed.

    One thread at a time, as Zarr's configuration is that of the process: of two, the one that leaves last
    would put back what the first one set. Not in a forked process: `zarrs` waits for threads that a fork
    leaves behind.
    """
    if forks() or find_spec("zarrs") is None:
        yield
        return
    with _OPENING, zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
        yield


def write_table(group: zarr.Group, variables: Iterable[Variable], table: "pd.DataFrame") -> None:
    """Write the columns that `variables` name, one array each, one chunk each."""
    for variable in variables:
        values = np.asarray(table[variable.name].to_numpy(), dtype=_DTYPES[variable.dtype])
        array = group.create_array(
            variable.name,
            shape=values.shape,
            dtype=values.dtype,
            chunks=(max(len(values), 1),),
            compressors=[ZstdCodec(level=TABLE_LEVEL, checksum=True)],
            fill_value=_FILL[variable.dtype],
            dimension_names=variable.dims,
            attributes=_attributes(variable),
            config=_CONFIG,
        )
        array[:] = values


def read_table(group: zarr.Group, variables: Iterable[Variable]) -> "pd.DataFrame":
    """Read the columns that `variables` name; strings come as Python objects."""
    import pandas as pd

    names = [variable.name for variable in variables]
    return pd.DataFrame({n: as_objects(v) for n, v in zip(names, read_columns(group, names), strict=True)})


def as_objects(values: NDArray[Any]) -> NDArray[Any]:
    """Strings as Python objects, which pandas and xarray work with; all else as it is."""
    return values.astype(object) if values.dtype.kind == "T" else values


def read_columns(group: zarr.Group, paths: Sequence[str]) -> list[NDArray[Any]]:
    """Read whole columns of tables, all of them at once.

    Parameters
    ----------
    group : zarr.Group
    paths : sequence of str
        Arrays below the group. What many take together is a little more than what the slowest takes.

    Returns
    -------
    list of ndarray
        Strings as `numpy.dtypes.StringDType`.

    Raises
    ------
    DamageError
        If one of them is missing or damaged.
    """
    return list(sync(_gathered(_as_async(group), paths)))


def _as_async(group: zarr.Group) -> zarr.AsyncGroup:
    return zarr.AsyncGroup(group.metadata, group.store_path)


async def _gathered(group: zarr.AsyncGroup, paths: Sequence[str]) -> list[NDArray[Any]]:
    return await asyncio.gather(*(_read_column(group, path) for path in paths))


async def _read_column(group: zarr.AsyncGroup, path: str) -> NDArray[Any]:
    where = f"{str(group.store_path).removeprefix('file://')}/{path}"
    with damage_named(where):
        array: Any = await group.getitem(path)
        values: NDArray[Any] = await array.getitem(...)
        # A missing chunk reads as fill values: only then is it worth while to look for the files.
        whole = not is_filled(values, array.metadata.fill_value) or (
            await array.nchunks_initialized() == array.nchunks
        )
    if not whole:
        raise DamageError(where, "a chunk is missing")
    return values


def is_filled(values: NDArray[Any], fill: Any) -> bool:
    """Whether all values are those that a chunk has which is not there; NaN equals NaN."""
    return bool(((values == fill) | (values != values)).all())


@contextmanager
def damage_named(where: str) -> Iterator[None]:
    """Whatever a damaged file makes Zarr and its codecs raise becomes an error that says where.

    Raises
    ------
    DamageError
    """
    try:
        yield
    except (KeyError, FileNotFoundError):
        raise DamageError(where, "is missing") from None
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise DamageError(where, f"does not read ({reason})") from error


def create_matrix(group: zarr.Group, variable: Variable, n_rows: int, n_samples: int) -> zarr.Array[Any]:
    """Create an empty (probe, sample) matrix in sharded, checksummed chunks; `lake.shards` fills it."""
    dtype = _DTYPES[variable.dtype]
    compressor, level, shuffle = COMPRESSION[variable.dtype]
    rows, columns = chunk_rows(n_samples, dtype.itemsize), chunk_columns(n_samples, dtype.itemsize)
    return group.create_array(
        variable.name,
        shape=(n_rows, n_samples),
        dtype=dtype,
        chunks=(rows, columns),
        shards=(shard_rows(n_samples), -(-n_samples // columns) * columns),
        compressors=[
            BloscCodec(cname=compressor, clevel=level, shuffle=shuffle, typesize=dtype.itemsize),
            CHECKSUM,
        ],
        fill_value=_FILL[variable.dtype],
        dimension_names=variable.dims,
        attributes=_attributes(variable),
        config=_CONFIG,
    )


def open_matrix(group: zarr.Group, name: str) -> zarr.Array[Any]:
    """Open a matrix for reading, with the fast codecs."""
    with fast_codecs():
        array = group[name]
    assert isinstance(array, zarr.Array)  # noqa: S101 - narrows the type
    return array


class CheckedMatrix:
    """A matrix of a store, read as NumPy reads an array; what is missing or damaged is an error.

    Parameters
    ----------
    array : zarr.Array
    where : str
        The matrix, as messages name it.
    path : pathlib.Path or None
        Where its files are, None if not on a disk of this machine.
    """

    def __init__(self, array: zarr.Array[Any], where: str, path: Path | None) -> None:
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim
        self._array, self._where, self._path = array, where, path
        self._forks = forks()

    def __getitem__(self, key: Any) -> NDArray[Any]:
        if self._forks != forks():
            self._open_again()
        with damage_named(self._where):
            values: NDArray[Any] = self._array[key]  # type: ignore[assignment]
        # After the read: a file that goes between would be read as fill values.
        if self._path is not None:
            self.refuse_missing()
        elif _may_be_filled(values):
            self._refuse_missing_objects(key[0] if isinstance(key, tuple) else key)
        return values

    def _open_again(self) -> None:
        """After a fork."""
        if self._path is None:
            refuse_cut(self._where)
        with damage_named(self._where):
            self._array = zarr.open_array(self._array.store, path=self._array.path, mode="r")
        self._forks = forks()

    def refuse_missing(self) -> None:
        """See that every file is there, on a disk of this machine.

        Raises
        ------
        DamageError
        """
        if self._path is not None and (gone := missing_shards(self._path, self._array)):
            raise DamageError(f"{self._where}/{gone[0]}", "is missing")

    def _refuse_missing_objects(self, rows: Any) -> None:
        """See that the objects which hold these rows are there; each costs a request."""
        read = np.atleast_1d(np.arange(self.shape[0])[rows])
        for name in np.unique(read // _file_rows(self._array)).tolist():
            with damage_named(self._where):
                there = sync((self._array.store_path / f"c/{name}/0").exists())
            if not there:
                raise DamageError(f"{self._where}/c/{name}/0", "is missing")


def _may_be_filled(values: NDArray[Any]) -> bool:
    """Whether some rows look as those of a file that is not there do."""
    missing = np.isnan(values) if values.dtype.kind == "f" else ~values
    return bool(missing.all(axis=-1).any())


def _file_rows(array: zarr.Array[Any]) -> int:
    return (array.shards or array.chunks)[0]


def missing_shards(path: Path, array: zarr.Array[Any]) -> list[str]:
    """Files of a matrix that are not there; Zarr itself would read them as the fill value."""
    names = [f"c/{i}/0" for i in range(-(-array.shape[0] // _file_rows(array)))]
    return [name for name in names if not (path / name).is_file()]


def _attributes(variable: Variable) -> dict[str, Any]:
    return {"long_name": variable.doc} | ({"units": variable.unit} if variable.unit else {})
