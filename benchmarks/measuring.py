"""How benchmarks measure: a command in a process of its own, from outside, and what it was measured on."""

from __future__ import annotations

import os
import platform
import resource
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
FULL_SIZE, TINY = 58_692, 400  # probes
SAMPLING_INTERVAL = 0.05  # s
PACKAGES = ("ahba-lake", "numpy", "pandas", "scipy", "xarray", "dask", "zarr", "pyarrow", "polars")


# Processes ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measurement:
    """What a process, with all that it started, took."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


class PeakSampler(threading.Thread):
    """Follows the resident memory of a process tree; pages that its processes share count for each."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.root = psutil.Process(pid)
        self.peak_bytes = 0
        self.stopped = threading.Event()

    def run(self) -> None:
        """Sample until told to stop."""
        while not self.stopped.wait(SAMPLING_INTERVAL):
            self.peak_bytes = max(self.peak_bytes, self.tree_bytes())

    def tree_bytes(self) -> int:
        """Return the resident memory of the tree as it is now."""
        try:
            tree = [self.root, *self.root.children(recursive=True)]
        except psutil.Error:
            return 0
        return sum(map(_resident_bytes, tree))


def _resident_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:  # it ended in between
        return 0


def measure(command: Sequence[str], log: Path) -> Measurement:
    """Run a command in a new process and measure it from outside; what it says goes to ``log``.

    CPU seconds (user and system) and the kernel's peak come from ``wait4``: they include every descendant
    that was waited for. The peak is the larger of the kernel's (one process, exact) and the sampler's (the
    whole tree, every 50 ms).
    """
    with log.open("wb") as output:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT)
        sampler = PeakSampler(process.pid)
        sampler.start()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        sampler.stopped.set()
        sampler.join()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        said = log.read_text(errors="replace")[-2000:]
        raise SystemExit(f"`{shlex.join(command)}` ended with {process.returncode}:\n{said}")
    return Measurement(
        seconds=seconds,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        peak_bytes=max(_kernel_peak(usage), sampler.peak_bytes),
    )


def _kernel_peak(usage: resource.struct_rusage) -> int:
    """Return the peak of the largest process; 0 where it may be ours, at which Linux starts a child's."""
    unit = 1 if sys.platform == "darwin" else 1024
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(usage.ru_maxrss * unit) if usage.ru_maxrss > own else 0


def best_of(repeats: int, prepare: Callable[[], Sequence[str]], log: Path) -> Measurement:
    """Measure ``repeats`` times, each from a fresh start, and return the fastest."""
    return min((measure(prepare(), log) for _ in range(repeats)), key=lambda found: found.seconds)


# Files ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bench:
    """Where a benchmark keeps its files and how large it is."""

    workdir: Path
    probes: int
    donors: str
    repeats: int

    @property
    def data(self) -> Path:
        """The simulated files."""
        return self.workdir / f"simulated-{self.probes}-{self.donors.replace(',', '-')}"

    @property
    def store(self) -> Path:
        """What ``ahba ingest`` makes of them."""
        return self.workdir / "store.zarr"

    @property
    def matrices(self) -> list[Path]:
        """The large CSV files."""
        return sorted(
            path
            for name in ("MicroarrayExpression.csv", "PACall.csv")
            for path in self.data.glob(f"normalized_microarray_donor*/{name}")
        )

    def empty(self, name: str) -> Path:
        """Return the path of a file or folder that is not there (any more)."""
        path = self.workdir / name
        shutil.rmtree(path, ignore_errors=True)
        return path

    def best(self, name: str, prepare: Callable[[], Sequence[str]]) -> Measurement:
        """Measure one step and say so."""
        found = best_of(self.repeats, prepare, self.workdir / f"{name}.log")
        print(f"{name:<20} {found.seconds:8.1f} s  {found.peak_bytes / 1e6:8.0f} MB", flush=True)
        return found


def ahba(*arguments: object) -> list[str]:
    """Return the command line of our command, from the environment of this Python."""
    command = shutil.which("ahba", path=str(Path(sys.executable).parent))
    if command is None:
        raise SystemExit("No `ahba` beside this Python: install the project first (`pip install .`).")
    return [command, *map(str, arguments)]


def simulate(bench: Bench) -> None:
    """Write the files, unless a benchmark of this size left them; then read them into the page cache."""
    whole = bench.data.with_suffix(".whole")
    if not whole.is_file():
        shutil.rmtree(bench.data, ignore_errors=True)
        print(f"simulating {bench.probes} probes, donors {bench.donors} ..", flush=True)
        arguments = ("simulate", bench.data, "--probes", bench.probes, "--donors", bench.donors)
        measure(ahba(*arguments), bench.workdir / "simulate.log")
        whole.touch()
    for path in bench.matrices:
        with path.open("rb") as file:
            while file.read(1 << 24):
                pass


# Where it was measured ------------------------------------------------------------------------------


def today() -> str:
    """Return the time, to the minute."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


def version(package: str) -> str | None:
    """Return the installed version of a package, None without it."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def versions() -> dict[str, str]:
    """Return the versions that the numbers belong to."""
    found = {name: version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **{name: text for name, text in found.items() if text}}


def machine() -> dict[str, object]:
    """Return what the numbers were measured on."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.machine()}",
    }


def _cpu_model() -> str:
    table = Path("/proc/cpuinfo")
    lines = table.read_text().splitlines() if table.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
