"""Where a run puts what its memory has no room for: blocks of numbers in files, read back in parts."""

import os
import shutil
import uuid
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lake.tables import failures_named

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Spilled:
    """A matrix in a file, sliced as an array is; what is not asked for is not read.

    Attributes
    ----------
    path : pathlib.Path
    shape : tuple of int
    """

    path: Path
    shape: tuple[int, int]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Floats:
        if isinstance(key, slice) and key == slice(None):
            return np.fromfile(self.path, dtype=np.float64).reshape(self.shape)
        mapped = np.memmap(self.path, dtype=np.float64, mode="r", shape=self.shape)
        return np.array(mapped[key])


class Scratch:
    """A directory for what one stage keeps.

    Parameters
    ----------
    directory : pathlib.Path
        Made when something is put into it.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def keep(self, block: Floats) -> Any:
        """Put a block into a file of its own.

        Raises
        ------
        OSError
            If there is no room for it.
        """
        if not block.size:
            return block
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / uuid.uuid4().hex
        with failures_named(path), path.open("wb") as file:
            file.write(np.ascontiguousarray(block).data)
        spilled = Spilled(path, block.shape)
        weakref.finalize(spilled, path.unlink, missing_ok=True)  # once no later step needs it
        return spilled


@contextmanager
def scratch_beside(out: Path) -> Iterator[Scratch]:
    """Scratch in a hidden directory of `out`, gone at the end; a killed run's is cleared by the next one."""
    directory = out / f".scratch-{uuid.uuid4().hex}.{os.getpid()}.wip"
    try:
        yield Scratch(directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
