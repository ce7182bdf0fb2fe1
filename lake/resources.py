"""How much of the machine a run may take: cores and memory, as the machine or its container allows."""

import os
import resource
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dask.system import CPU_COUNT
from dask.utils import format_bytes, parse_bytes

from lake.errors import RequestError

SHARE_OF_MEMORY = 0.6  # of what there is, where nothing is said
CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
STATUS = Path("/proc/self/status")

BASE_BYTES = 420 << 20  # Python, the libraries, labels and an atlas
WORKER_BYTES = 200 << 20  # a block on its way through a worker: read, gathered, sorted, normalised


@dataclass(frozen=True)
class Resources:
    """What a run may take.

    Attributes
    ----------
    workers : int
        Threads.
    memory : int
        Bytes, of the whole process.
    """

    workers: int
    memory: int

    @classmethod
    def of(cls, *, workers: int | None = None, memory_limit: str | int | None = None) -> "Resources":
        """What is asked for, or what the machine has.

        Parameters
        ----------
        workers : int, optional
            Threads; the cores that this process may use if left out.
        memory_limit : str or int, optional
            ``"1GB"``, ``"800MiB"`` or bytes; a good half of the memory if left out, that of the container
            where it is less. Where it is short, there are fewer workers.

        Raises
        ------
        RequestError
            If it is no amount of memory, or too little to work in.
        """
        memory = int(machine_memory() * SHARE_OF_MEMORY) if memory_limit is None else _bytes(memory_limit)
        wanted = CPU_COUNT if workers is None else workers
        if wanted < 1:
            raise RequestError(f"workers={wanted}: at least one is needed.")
        room = (memory - BASE_BYTES) // WORKER_BYTES
        if room < 1:
            least = format_bytes(BASE_BYTES + WORKER_BYTES)
            raise RequestError(
                f"memory_limit={memory_limit!r} is {format_bytes(memory)}; a run needs {least} or more."
            )
        return cls(workers=min(wanted, room), memory=memory)

    @property
    def room(self) -> int:
        """Bytes that may be kept for later steps, beside the work at hand."""
        return self.memory - BASE_BYTES - self.workers * WORKER_BYTES

    def has_room_for_matrices(self, n_bytes: int) -> bool:
        """Whether all of the store's matrices may be kept, and leave most of the room to what they become."""
        return n_bytes <= self.room // 3


def _bytes(limit: str | int) -> int:
    try:
        return int(parse_bytes(limit))
    except (ValueError, OverflowError):
        raise RequestError(f"memory_limit={limit!r} is no amount of memory; write 2GB or 800MiB.") from None


def machine_memory() -> int:
    """Bytes that this process may use: the machine's, or its container's or job's where that is less."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in _limit_files():
        with suppress(OSError, ValueError):  # no such file, or "max"
            found.append(int(path.read_text()))
    return min(found)


def _limit_files() -> Iterator[Path]:
    """Where Linux says how much the control groups of this process may take, each within the next."""
    try:
        groups = [line.split(":", 2) for line in MEMBERSHIP.read_text().splitlines()]
    except OSError:  # not Linux
        return
    for _, controllers, place in groups:
        if not controllers:  # version 2
            root, name = CGROUPS, "memory.max"
        elif "memory" in controllers.split(","):
            root, name = CGROUPS / "memory", "memory.limit_in_bytes"
        else:
            continue
        group = root / place.lstrip("/")
        yield from (outer / name for outer in (group, *group.parents) if outer.is_relative_to(root))


def peak_memory() -> int:
    """The most memory this process has held at once so far, in bytes."""
    try:
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    except OSError:  # not Linux
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10
