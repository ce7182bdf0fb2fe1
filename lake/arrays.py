"""Reading and writing tables and matrices as Zarr arrays, checksummed and readable by any Zarr tool."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, ZstdCodec

from lake.errors import DamageError
from lake.layout import Variable, chunk_rows, shard_rows

_DTYPES: dict[str, Any] = {
    "f8": np.dtype("f8"),
    "i8": np.dtype("i8"),
    "bool": np.dtype("bool"),
    "str": np.dtypes.StringDType(),
}
_FILL = {"f8": np.nan, "i8": 0, "bool": False, "str": ""}
# A checksum around each chunk. A crc32c codec would do, were it looked at: zarrs passes over it
# wherever less than a whole shard is read. A Zstandard frame is always checked; it costs 3 % of a read.
CHECKSUM = ZstdCodec(level=1, checksum=True)
# An all-zero chunk is stored like any other: a chunk that is not there is always a fault.
_CONFIG: Any = {"write_empty_chunks": True}


@contextmanager
def fast_codecs() -> Iterator[None]:
    """Open arrays inside this block to have them decoded by ``zarrs`` on all cores, where it is installed."""
    if find_spec("zarrs") is None:
        yield
        return
    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
        yield


def write_table(group: zarr.Group, variables: Iterable[Variable], table: pd.DataFrame) -> None:
    """Write the columns that `variables` name, one array each, one chunk each."""
    for variable in variables:
        values = np.asarray(table[variable.name].to_numpy(), dtype=_DTYPES[variable.dtype])
        array = group.create_array(
            variable.name,
            shape=values.shape,
            dtype=values.dtype,
            chunks=(max(len(values), 1),),
            compressors=[ZstdCodec(level=5, checksum=True)],
            fill_value=_FILL[variable.dtype],
            dimension_names=variable.dims,
            attributes=_attributes(variable),
            config=_CONFIG,
        )
        array[:] = values


def read_table(group: zarr.Group, variables: Iterable[Variable]) -> pd.DataFrame:
    """Read the columns that `variables` name; strings come as Python objects."""
    return pd.DataFrame({variable.name: _read_column(group, variable) for variable in variables})


def _read_column(group: zarr.Group, variable: Variable) -> NDArray[Any]:
    where = f"{str(group.store_path).removeprefix('file://')}/{variable.name}"
    with damage_named(where):
        array = group[variable.name]
        assert isinstance(array, zarr.Array)  # noqa: S101 - narrows the type
        values: NDArray[Any] = array[:]  # type: ignore[assignment]
        n_chunks = array.nchunks_initialized
    if n_chunks < array.nchunks:
        raise DamageError(where, "a chunk is missing")
    return values.astype(object) if variable.dtype == "str" else values


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


def create_matrix(group: zarr.Group, variable: Variable, n_probes: int, n_samples: int) -> zarr.Array[Any]:
    """Create an empty (probe, sample) matrix in sharded, checksummed chunks of all samples.

    It is written with Zarr's own codecs, as fast here as ``zarrs``, which puts the chunks of a shard
    in the order in which they happen to be ready: the same values would not give the same bytes.
    """
    dtype = _DTYPES[variable.dtype]
    return group.create_array(
        variable.name,
        shape=(n_probes, n_samples),
        dtype=dtype,
        chunks=(chunk_rows(n_samples, dtype.itemsize), n_samples),
        shards=(shard_rows(n_samples), n_samples),
        compressors=[
            BloscCodec(cname="zstd", clevel=3, shuffle="shuffle", typesize=dtype.itemsize),
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

    def __getitem__(self, key: Any) -> NDArray[Any]:
        with damage_named(self._where):
            values: NDArray[Any] = self._array[key]  # type: ignore[assignment]
        self.refuse_missing()  # after the read: a file that goes between would be read as fill values
        return values

    def refuse_missing(self) -> None:
        """See that every file is there.

        Raises
        ------
        DamageError
        """
        if self._path is not None and (gone := missing_shards(self._path, self._array)):
            raise DamageError(f"{self._where}/{gone[0]}", "is missing")


def missing_shards(path: Path, array: zarr.Array[Any]) -> list[str]:
    """Files of a matrix that are not there; Zarr itself would read them as the fill value."""
    rows = array.shards[0] if array.shards else array.chunks[0]
    names = [f"c/{i}/0" for i in range(-(-array.shape[0] // rows))]
    return [name for name in names if not (path / name).is_file()]


def _attributes(variable: Variable) -> dict[str, Any]:
    return {"long_name": variable.doc} | ({"units": variable.unit} if variable.unit else {})
