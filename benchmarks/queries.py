"""What it takes to ask the lake: times, memory and bytes read of the queries, at full size.

``python benchmarks/queries.py`` simulates the six donors, ingests them, writes tables of 40 atlases, and
asks each question in a new process (this script with ``--ask``): once with nothing read yet, then again and
again. The command ``ahba gene`` is measured from outside, beside ``python -c "import xarray, zarr"``. Results
go to ``benchmarks/results/queries.json`` and, as a table, into ``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import lake  # noqa: E402
from benchmarks import against_abagen as base  # noqa: E402

WORKDIR = ROOT / "build" / "queries"
N_ATLASES, N_GENES, REGIONS = 40, 15_633, (83, 400, 100, 200)
POINT = (-42, -22, 55)
Question = Callable[[lake.Lake, Path], object]


# The questions --------------------------------------------------------------------------------------


def symbols(store: lake.Lake, count: int) -> list[str]:
    """Return gene symbols from all over the store."""
    known = np.unique(store.probe_columns(["reannotated_gene_symbol"])["reannotated_gene_symbol"])[1:]
    return [str(symbol) for symbol in known[:: max(1, len(known) // count)][:count]]


def symbol(store: lake.Lake) -> str:
    """Return one gene symbol, from the middle of the store."""
    return symbols(store, 3)[1]


QUESTIONS: dict[str, Question] = {
    "gene": lambda store, _: store.gene(symbol(store)).to_xarray(),
    "genes": lambda store, _: store.gene(symbols(store, 20)).to_xarray(),
    "near": lambda store, _: store.near(POINT, radius=10).read(),
    "near_gene": lambda store, _: store.near(POINT, radius=10).genes(symbol(store)).read(),
    "tables": lambda store, tables: lake.gene_tables(tables, symbol(store)),
    "compare": lambda store, _: store.compare(*two_structures(store)),
    "correlated": lambda store, _: store.correlated(symbol(store)),
}
REPEATS = {"near": 5, "compare": 3, "correlated": 3}
NAMES = {
    "gene": "a gene, all samples, all labels",
    "genes": "20 genes",
    "near": "10 mm around a coordinate, all probes",
    "near_gene": "10 mm around a coordinate, one gene",
    "tables": f"one gene in the tables of {N_ATLASES} atlases",
    "compare": "two structures compared, all probes",
    "correlated": "correlation with a gene, all probes",
}
BOUNDS = {"gene": 0.020, "genes": 0.100, "near": 0.400, "tables": 0.5}


def two_structures(store: lake.Lake) -> tuple[lake.Selection, lake.Selection]:
    """Return cortex and cerebellum by their class, which real and simulated data have."""
    kinds = store.samples["structure"].to_numpy()
    cortex, cerebellum = (store.everything().where(kinds == kind, kind) for kind in ("cortex", "cerebellum"))
    return cortex, cerebellum


def ask(name: str, store: Path, tables: Path, warm: Path) -> dict[str, float]:
    """Ask one question: first on a small store, so that all is imported, then on the real one."""
    question = QUESTIONS[name]
    if name != "tables":
        question(lake.open(warm), tables)
    before, start = bytes_read(), time.perf_counter()
    opened = lake.open(store)
    question(opened, tables)
    first, read = time.perf_counter() - start, bytes_read() - before
    times = []
    for _ in range(REPEATS.get(name, 20)):
        gc.collect()
        start = time.perf_counter()
        question(opened, tables)
        times.append(time.perf_counter() - start)
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return {
        "first": first,
        "best": min(times),
        "median": float(np.median(times)),
        "peak_bytes": peak,
        "read_bytes": read,
    }


def bytes_read() -> int:
    """Return what this process read so far; 0 where the system does not say."""
    counts = Path("/proc/self/io")
    return int(counts.read_text().split()[1]) if counts.exists() else 0


# The benchmark --------------------------------------------------------------------------------------


def write_tables(folder: Path) -> None:
    """Write tables of random numbers as a run writes its own."""
    import pandas as pd

    from lake.tables import Unit, _write_frame

    generator = np.random.default_rng(0)
    for number in range(N_ATLASES):
        path = Unit(folder, "random", f"atlas{number}").path("expression")
        if path.exists():
            continue
        size = (N_GENES, REGIONS[number % len(REGIONS)])
        names = [str(region + 1) for region in range(size[1])]
        table = pd.DataFrame(generator.random(size), columns=names)
        _write_frame(path, table, {})


def with_symbols(store: Path, folder: Path) -> None:
    """Give the tables' rows the store's gene symbols."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    genes = sorted(symbols(lake.open(store), N_GENES))
    for path in folder.rglob("*.parquet"):
        table = pq.ParquetFile(path).read()
        if "gene_symbol" not in table.column_names:
            from lake.tables import _write_frame

            frame = table.slice(0, len(genes)).to_pandas()
            frame.insert(0, "gene_symbol", pa.array(genes).to_pandas()[: len(frame)])
            _write_frame(path, frame, {})


def run_benchmark(chosen: argparse.Namespace) -> dict[str, Any]:
    """Measure everything and return the report."""
    bench = base.Bench(chosen.workdir, chosen.probes, "all" if chosen.probes == base.FULL_SIZE else "9861", 1)
    bench.workdir.mkdir(parents=True, exist_ok=True)
    store = chosen.store or bench.store
    if not (store / "zarr.json").exists():
        base.simulate(bench)
        base.measure(
            base.ahba("ingest", bench.data, "--quiet", "--store", store), bench.workdir / "ingest.log"
        )
    warm, tables = small_store(bench), bench.workdir / "tables"
    write_tables(tables)
    with_symbols(store, tables)
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": "python benchmarks/queries.py",
        "machine": base.machine(),
        "versions": base.versions(),
        "data": {"probes": lake.open(store).manifest.n_probes, "samples": len(lake.open(store).samples)},
        "questions": {name: asked(name, store, tables, warm) for name in QUESTIONS},
        "command_seconds": command_seconds(store, bench.workdir / "command.log", chosen.repeats),
    }


def small_store(bench: base.Bench) -> Path:
    """Make a store on which all that a question imports is imported."""
    from ingest.simulate import simulate
    from lake.ingestion import ingest_directory

    path = bench.workdir / "small.zarr"
    if not (path / "zarr.json").exists():
        files = bench.workdir / "small"
        simulate(files, probes=300, donors=["9861", "10021"], samples_scale=0.2)
        ingest_directory(files, path)
    return path


def asked(name: str, store: Path, tables: Path, warm: Path) -> dict[str, float]:
    """Ask one question in a new process."""
    command = [sys.executable, str(Path(__file__).resolve()), "--ask", name, *map(str, (store, tables, warm))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(f"{name:<12} {1e3 * found['best']:9.1f} ms {found['peak_bytes'] / 1e6:6.0f} MB", flush=True)
    return found


def command_seconds(store: Path, log: Path, repeats: int) -> dict[str, float]:
    """Measure ``ahba gene`` and the imports beside it, in turn, the best of each."""
    gene = base.ahba("gene", symbol(lake.open(store)), "--store", store)
    imports = [sys.executable, "-c", "import xarray, zarr"]
    pairs = [[base.measure(command, log).seconds for command in (gene, imports)] for _ in range(repeats)]
    seconds = np.min(pairs, axis=0)
    return {"gene": float(seconds[0]), "imports": float(seconds[1])}


def targets(report: dict[str, Any]) -> list[base.Target]:
    """Hold the numbers against what was to be reached at full size."""
    questions, command = report["questions"], report["command_seconds"]
    wanted = [
        base.Target(NAMES[name], "ms", "<=", 1e3 * bound, 1e3 * questions[name]["best"])
        for name, bound in BOUNDS.items()
    ]
    ratio = command["gene"] / command["imports"]
    peak = max(questions[name]["peak_bytes"] for name in BOUNDS) / 1e6
    return [
        *wanted,
        base.Target("`ahba gene` / `import xarray, zarr`", "x", "<=", 1.5, ratio),
        base.Target("peak memory of these", "MB", "<=", 400, peak),
        base.Target("read to open and ask one gene", "MB", "<=", 3, questions["gene"]["read_bytes"] / 1e6),
    ]


def render(report: dict[str, Any]) -> str:
    """Return the report as Markdown."""
    host, data, command = report["machine"], report["data"], report["command_seconds"]
    rows = [
        f"| {NAMES[name]} | {1e3 * found['best']:.1f} | {1e3 * found['median']:.1f} | {1e3 * found['first']:.0f} | "
        f"{found['read_bytes'] / 1e6:.1f} | {found['peak_bytes'] / 1e6:.0f} |"
        for name, found in report["questions"].items()
    ]
    held = [
        f"| {target.name} | {target.sign} {target.bound:g} {target.unit} | {target.measured:.2f} {target.unit} | "
        f"{'reached' if target.reached else '**missed**'} |"
        for target in targets(report)
    ]
    return "\n".join(
        [
            f"{report['date']}; {host['cpu']}, {host['cores']} cores, {host['memory_bytes'] / 1e9:.0f} GB.",
            f"{data['probes']:,} probes, {data['samples']:,} samples (simulated), local disk, in the page cache.",
            "",
            f"`{report['command']}`",
            "",
            "| question | best ms | median ms | first ms | first reads MB | peak MB |",
            "| --- | ---: | ---: | ---: | ---: | ---: |",
            *rows,
            "",
            f'`ahba gene` as a command {command["gene"]:.2f} s; `python -c "import xarray, zarr"` '
            f"{command['imports']:.2f} s.",
            "",
            "| target at full size | to reach | measured (best) | |",
            "| --- | ---: | ---: | --- |",
            *held,
        ]
    )


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Measure the queries on simulated data.")
    option = parser.add_argument
    option("--workdir", type=Path, default=WORKDIR, help="for files, store and tables: 5 GB at full size")
    option("--store", type=Path, help="a store that is there, instead of simulating one")
    option("--probes", type=int, default=base.FULL_SIZE, help="fewer for a trial")
    option("--repeats", type=int, default=7, help="the fastest of so many commands counts")
    option("--results", type=Path, default=Path(__file__).parent, help="folder of README.md and results/")
    option("--tiny", action="store_true", help="400 probes, one donor, results in the workdir")
    option("--ask", nargs=4, metavar=("NAME", "STORE", "TABLES", "SMALL"), help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    chosen = options(arguments)
    if chosen.ask:
        name, *paths = chosen.ask
        print(json.dumps(ask(name, *map(Path, paths))))
        return
    chosen.workdir = chosen.workdir.resolve()
    if chosen.tiny:
        chosen.probes, chosen.repeats, chosen.results = base.TINY, 1, chosen.workdir
    report = run_benchmark(chosen)
    report["targets"] = [
        {"name": t.name, "reached": t.reached, "measured": t.measured} for t in targets(report)
    ]
    print(render(report))
    base.write_section(report, render(report), chosen.results, "queries")


if __name__ == "__main__":
    main()
