"""Ours beside abagen: the same files, the same choices, the same machine, one after the other.

``python benchmarks/against_abagen.py`` simulates the six donors at full size (58,692 probes, 3,702
samples), then measures, each in a new process and from outside:

1. the fastest CSV parser alone over the MicroarrayExpression.csv and PACall.csv files;
2. ``ahba ingest``;
3. ``ahba run`` with one atlas, cold: a new process that opens the store;
4. ``ahba run`` with a second atlas besides; the difference is what one more atlas costs;
5. abagen's ``get_expression_data`` with its default choices, in its own environment (tests/peer.py).

The tables of 3 and 5 are compared before anything is written: a benchmark of two programs that do not
do the same work says nothing. Results go to ``benchmarks/results/against_abagen.json`` and, as a table,
into ``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import json
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
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from ingest.reference import reference_file  # noqa: E402
from tests import peer  # noqa: E402

ATLAS, SECOND_ATLAS = "abagen:dk", "abagen:dk-surface"
IMAGE, INFO = "atlas-desikankilliany.nii.gz", "atlas-desikankilliany.csv"  # the files of ATLAS
WORKDIR = ROOT / "build" / "against_abagen"
FULL_SIZE, TINY = 58_692, 400
SAMPLING_INTERVAL = 0.05  # s
RTOL = 1e-8
PARSERS = {
    "pyarrow": """
import sys
from pyarrow import csv
for path in sys.argv[1:]:
    csv.read_csv(path, read_options=csv.ReadOptions(autogenerate_column_names=True))
""",
    "polars": """
import sys
import polars
for path in sys.argv[1:]:
    polars.read_csv(path, has_header=False)
""",
}
PACKAGES = ("ahba-lake", "numpy", "pandas", "scipy", "xarray", "dask", "zarr", "pyarrow", "polars")
PEER_PACKAGES = ("abagen", "numpy", "pandas", "scipy")


# Measuring ------------------------------------------------------------------------------------------


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


# The steps ------------------------------------------------------------------------------------------


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


def measure_parsers(bench: Bench) -> dict[str, Measurement]:
    """Measure each CSV parser that is installed, alone."""
    paths = [str(path) for path in bench.matrices]
    installed = {name: code for name, code in PARSERS.items() if version(name) is not None}
    commands = {name: [sys.executable, "-c", code, *paths] for name, code in installed.items()}
    return {name: bench.best(f"parser_{name}", partial(list, found)) for name, found in commands.items()}


def measure_ours(bench: Bench) -> dict[str, Measurement]:
    """Measure ingestion, a cold run of one atlas, and one of two."""
    run = ("run", "--quiet", "--store", bench.store, "--atlas", ATLAS)
    commands: dict[str, Callable[[], list[str]]] = {
        "ingest": lambda: ahba("ingest", bench.data, "--quiet", "--store", bench.empty(bench.store.name)),
        "run": lambda: ahba(*run, "--out", bench.empty("one")),
        "run_two_atlases": lambda: ahba(*run, "--atlas", SECOND_ATLAS, "--out", bench.empty("two")),
    }
    return {name: bench.best(name, prepare) for name, prepare in commands.items()}


def peer_case(bench: Bench) -> dict[str, Any]:
    """Return what abagen is asked: its default choices on the files of ``ATLAS``."""
    donors = bench.donors if bench.donors == "all" else bench.donors.split(",")
    return {
        "name": "abagen",
        "kind": "expression",
        "atlas": {"image": reference_file(IMAGE)},
        "atlas_info": reference_file(INFO),
        "kwargs": {"donors": donors},
    }


def measure_peer(bench: Bench) -> tuple[Measurement, peer.Outcome]:
    """Measure abagen; return its result as well."""
    case, out = peer_case(bench), bench.workdir / "peer"
    found = bench.best("abagen", lambda: peer.peer_command([case], bench.data, out))
    return found, peer.read_outcome(out / "abagen.npz")


def check_agreement(bench: Bench, theirs: peer.Outcome) -> float:
    """Refuse to compare different work: our table must be abagen's to 1e-8; return the largest difference."""
    import numpy as np

    import lake

    ours = lake.read_expression(bench.workdir / "one", atlas=ATLAS)
    same = [str(gene) for gene in ours.columns] == list(theirs.genes)
    if theirs.error or not same or [int(region) for region in ours.index] != list(theirs.expression.index):
        raise SystemExit(f"Ours and abagen's tables have other regions or genes. {theirs.error}")
    values, others = ours.to_numpy(), theirs.expression.to_numpy()
    np.testing.assert_allclose(values, others, rtol=RTOL, atol=0)
    return peer.largest_relative_difference(values, others)


# Reporting ------------------------------------------------------------------------------------------


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


def peer_versions(python: Path) -> dict[str, str]:
    """Return the versions in the peer's environment."""
    code = (
        "import json, platform; from importlib.metadata import version; "
        f"print(json.dumps({{'python': platform.python_version(), "
        f"**{{name: version(name) for name in {PEER_PACKAGES}}}}}))"
    )
    done = subprocess.run([str(python), "-I", "-c", code], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


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


def run_benchmark(bench: Bench) -> dict[str, Any]:
    """Run all the steps and return the report that is written as JSON."""
    bench.workdir.mkdir(parents=True, exist_ok=True)
    simulate(bench)
    parsers = measure_parsers(bench)
    steps = {**{f"parser_{name}": found for name, found in parsers.items()}, **measure_ours(bench)}
    report: dict[str, Any] = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": f"python benchmarks/against_abagen.py --probes {bench.probes} --donors {bench.donors} "
        f"--repeats {bench.repeats}",
        "machine": machine(),
        "versions": versions(),
        "data": describe_data(bench),
        "fastest_parser": min(parsers, key=lambda name: parsers[name].seconds),
    }
    try:
        python = peer.find_peer_python()
    except peer.PeerError as error:
        report["peer"] = {"missing": str(error)}
    else:
        steps["abagen"], outcome = measure_peer(bench)
        report["peer"] = {"versions": peer_versions(python), "inside_call_seconds": outcome.seconds}
        report["largest_relative_difference"] = check_agreement(bench, outcome)
    report["steps"] = {name: asdict(found) for name, found in steps.items()}
    report["targets"] = targets(report)
    return report


def describe_data(bench: Bench) -> dict[str, object]:
    """Return the size of the input."""
    expression = [path for path in bench.matrices if path.name == "MicroarrayExpression.csv"]
    n_samples = 0
    for path in expression:
        with path.open("rb") as file:
            n_samples += file.readline().count(b",")
    return {
        "simulated": True,
        "probes": bench.probes,
        "donors": len(expression),
        "samples": n_samples,
        "csv_bytes": sum(path.stat().st_size for path in bench.matrices),
    }


@dataclass(frozen=True)
class Target:
    """What is to be reached: ``sign`` says on which side of ``bound``."""

    name: str
    unit: str
    sign: str
    bound: float
    measured: float

    @property
    def reached(self) -> bool:
        """Whether it is reached."""
        return self.measured <= self.bound if self.sign == "<=" else self.measured >= self.bound


def targets(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Hold the numbers against what was to be reached at full size."""
    steps = report["steps"]
    ingest, run, parser = steps["ingest"], steps["run"], steps[f"parser_{report['fastest_parser']}"]
    wanted = [
        Target("ingest / fastest parser alone", "x", "<=", 1.5, ingest["seconds"] / parser["seconds"]),
        Target("peak memory of ingest", "MB", "<=", 700, ingest["peak_bytes"] / 1e6),
        Target("peak memory of one cold run", "MB", "<=", 1000, run["peak_bytes"] / 1e6),
    ]
    if "abagen" in steps:
        ratio = steps["abagen"]["seconds"] / run["seconds"]
        wanted.append(Target("abagen / one cold run", "x", ">=", 12, ratio))
    return [{**asdict(target), "reached": target.reached} for target in wanted]


ROWS = {
    "ingest": "`ahba ingest`",
    "run": "`ahba run`, one atlas, new process",
    "run_two_atlases": "`ahba run`, two atlases, new process",
    "abagen": "abagen `get_expression_data`, one atlas, new process",
}


def render(report: dict[str, Any]) -> str:
    """Return the report as Markdown: where, what, the steps, the targets."""
    data, host, steps = report["data"], report["machine"], report["steps"]
    parser = report["fastest_parser"]
    rows = {f"parser_{parser}": f"fastest parser alone ({parser}), nothing kept", **ROWS}
    more = steps["run_two_atlases"]["seconds"] - steps["run"]["seconds"]
    lines = [
        f"{report['date']}; {host['cpu']}, {host['cores']} cores, {host['memory_bytes'] / 1e9:.0f} GB.",
        f"{data['probes']:,} probes, {data['donors']} donors, {data['samples']:,} samples (simulated).",
        f"{data['csv_bytes'] / 1e9:.2f} GB of CSV, in the page cache. {_listed(report['versions'])}.",
        "",
        f"`{report['command']}`",
        "",
        "| step | wall s | CPU s | peak MB |",
        "| --- | ---: | ---: | ---: |",
        *(_step_row(label, steps[name]) for name, label in rows.items() if name in steps),
        f"| one more atlas (difference) | {more:.1f} | | |",
        "",
        _peer_line(report),
        "",
        "| target at full size | to reach | measured | |",
        "| --- | ---: | ---: | --- |",
        *(target_row(target) for target in report["targets"]),
    ]
    return "\n".join(lines)


def _listed(found: dict[str, str]) -> str:
    return ", ".join(f"{name} {text}" for name, text in found.items())


def _step_row(label: str, step: dict[str, float]) -> str:
    return f"| {label} | {step['seconds']:.1f} | {step['cpu_seconds']:.1f} | {step['peak_bytes'] / 1e6:.0f} |"


def target_row(target: dict[str, Any]) -> str:
    """Return a target as a row of a table."""
    verdict = "reached" if target["reached"] else "**missed**"
    bound = f"{target['sign']} {target['bound']:g} {target['unit']}"
    return f"| {target['name']} | {bound} | {target['measured']:.2f} {target['unit']} | {verdict} |"


def _peer_line(report: dict[str, Any]) -> str:
    found = report["peer"]
    if "missing" in found:
        return f"abagen was not measured: {found['missing']}"
    return (
        f"abagen ran with {_listed(found['versions'])}. The two tables have the same regions and genes, and "
        f"their values differ by {report['largest_relative_difference']:.1e} at most (relative)."
    )


def write(report: dict[str, Any], folder: Path) -> None:
    """Write the JSON, and the table between its two markers in the folder's README.md."""
    write_section(report, render(report), folder, "against_abagen")


def write_section(report: dict[str, Any], text: str, folder: Path, name: str) -> None:
    """Write a benchmark's JSON, and its text between its two markers in the folder's README.md."""
    begin, end = (f"<!-- {name}: {part} -->" for part in ("begin", "end"))
    results = folder / "results"
    results.mkdir(parents=True, exist_ok=True)
    (results / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    readme = folder / "README.md"
    page = readme.read_text(encoding="utf-8") if readme.is_file() else f"{begin}\n{end}\n"
    before, _, rest = page.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise SystemExit(f"{readme.name} has lost its markers {begin} and {end}: put them back.")
    readme.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Measure ours and abagen on the same simulated files.")
    option = parser.add_argument
    option("--workdir", type=Path, default=WORKDIR, help="for files, store and tables: 8 GB at full size")
    option("--probes", type=int, default=FULL_SIZE, help="fewer for a trial")
    option("--donors", default="all", help="all, or ids with commas between")
    option("--repeats", type=int, default=1, help="the fastest of so many counts")
    option("--results", type=Path, default=Path(__file__).parent, help="folder of README.md and results/")
    option("--tiny", action="store_true", help=f"{TINY} probes, two donors, results in the workdir")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    chosen = options(arguments)
    if chosen.tiny:
        chosen.probes, chosen.donors, chosen.results = TINY, "9861,10021", chosen.workdir
    bench = Bench(chosen.workdir.resolve(), chosen.probes, chosen.donors, chosen.repeats)
    report = run_benchmark(bench)
    print(render(report))
    write(report, chosen.results)


if __name__ == "__main__":
    main()
