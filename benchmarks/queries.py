"""What it takes to ask the lake: times, memory and bytes read of the queries, at full size.

``python benchmarks/queries.py`` simulates the six donors, ingests them, writes tables of 40 atlases, and
asks each question in a new process (this script with ``--part``): once with nothing read yet, then again and
again. The command ``ahba gene`` is measured from outside, beside ``python -c "import xarray, zarr"``. Results
go to ``benchmarks/results/queries.json`` and, as a table, into ``benchmarks/README.md``.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SCRIPT = Path(__file__).resolve()
sys.path.insert(0, str(SCRIPT.parents[1]))

import lake  # noqa: E402
from benchmarks.measuring import Bench, ahba, measure  # noqa: E402
from benchmarks.pages import Target, target_table  # noqa: E402
from benchmarks.parts import carry_out, opening_lines, options, part_of  # noqa: E402
from lake.resources import peak_memory  # noqa: E402

N_ATLASES, N_GENES, REGIONS = 40, 15_633, (83, 400, 100, 200)
N_ASKED = 20
POINT = (-42, -22, 55)
Question = Callable[[lake.Lake, Path, list[str]], object]


# The questions --------------------------------------------------------------------------------------


def symbols(store: lake.Lake, count: int) -> list[str]:
    """Return gene symbols from all over the store."""
    known = np.unique(store.probe_columns(["reannotated_gene_symbol"])["reannotated_gene_symbol"])[1:]
    return [str(symbol) for symbol in known[:: max(1, len(known) // count)][:count]]


QUESTIONS: dict[str, Question] = {
    "gene": lambda store, _, genes: store.gene(genes[9]).to_xarray(),
    "genes": lambda store, _, genes: store.gene(genes).to_xarray(),
    "near": lambda store, _, __: store.near(POINT, radius=10).read(),
    "near_gene": lambda store, _, genes: store.near(POINT, radius=10).genes(genes[9]).read(),
    "tables": lambda _, tables, genes: lake.gene_tables(tables, genes[9]),
    "compare": lambda store, _, __: store.compare(*two_structures(store)),
    "correlated": lambda store, _, genes: store.correlated(genes[9]),
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


def ask(name: str, store: str, tables_of_atlases: str, warm: str) -> dict[str, float]:
    """Ask one question: first on a small store, so that all is imported, then on the real one."""
    question, tables = QUESTIONS[name], Path(tables_of_atlases)
    genes = symbols(lake.open(store), N_ASKED)
    if name != "tables":
        question(lake.open(warm), tables, symbols(lake.open(warm), N_ASKED))
    before, start = bytes_read(), time.perf_counter()
    opened = lake.open(store)
    question(opened, tables, genes)
    first, read = time.perf_counter() - start, bytes_read() - before
    times = []
    for _ in range(REPEATS.get(name, 20)):
        gc.collect()
        start = time.perf_counter()
        question(opened, tables, genes)
        times.append(time.perf_counter() - start)
    return {
        "first": first,
        "best": min(times),
        "median": float(np.median(times)),
        "peak_bytes": peak_memory(),
        "read_bytes": read,
    }


def bytes_read() -> int:
    """Return what this process read so far; 0 where the system does not say."""
    counts = Path("/proc/self/io")
    return int(counts.read_text().split()[1]) if counts.exists() else 0


# The benchmark --------------------------------------------------------------------------------------


def write_tables(store: lake.Lake, folder: Path) -> None:
    """Write tables of the store's genes and random numbers, as a run writes its own."""
    import pandas as pd

    from lake.tables import Unit, _write_frame

    generator, genes = np.random.default_rng(0), symbols(store, N_GENES)
    for number in range(N_ATLASES):
        path = Unit(folder, "random", f"atlas{number}").path("expression")
        names = [str(region + 1) for region in range(REGIONS[number % len(REGIONS)])]
        table = pd.DataFrame(generator.random((len(genes), len(names))), columns=names)
        table.insert(0, "gene_symbol", genes)
        _write_frame(path, table, {})


def run_benchmark(bench: Bench, store: Path, repeats: int) -> dict[str, Any]:
    """Measure everything."""
    warm, tables = small_store(bench), bench.workdir / "tables"
    write_tables(lake.open(store), tables)
    return {
        "questions": {name: asked(name, store, tables, warm) for name in QUESTIONS},
        "command_seconds": command_seconds(store, bench.workdir / "command.log", repeats),
    }


def small_store(bench: Bench) -> Path:
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
    """Ask one question in a new process, and say what it took."""
    found = part_of(SCRIPT, name, store, tables, warm)
    print(f"{name:<12} {1e3 * found['best']:9.1f} ms {found['peak_bytes'] / 1e6:6.0f} MB", flush=True)
    return found


def command_seconds(store: Path, log: Path, repeats: int) -> dict[str, float]:
    """Measure ``ahba gene`` and the imports beside it, in turn, the best of each."""
    gene = ahba("gene", symbols(lake.open(store), N_ASKED)[9], "--store", store)
    imports = [sys.executable, "-c", "import xarray, zarr"]
    pairs = [[measure(command, log).seconds for command in (gene, imports)] for _ in range(repeats)]
    seconds = np.min(pairs, axis=0)
    return {"gene": float(seconds[0]), "imports": float(seconds[1])}


def targets(report: dict[str, Any]) -> list[Target]:
    """Hold the numbers against what was to be reached at full size."""
    questions, command = report["questions"], report["command_seconds"]
    wanted = [
        Target(NAMES[name], "ms", "<=", 1e3 * bound, 1e3 * questions[name]["best"])
        for name, bound in BOUNDS.items()
    ]
    ratio = command["gene"] / command["imports"]
    peak = max(questions[name]["peak_bytes"] for name in BOUNDS) / 1e6
    return [
        *wanted,
        Target("`ahba gene` / `import xarray, zarr`", "x", "<=", 1.5, ratio),
        Target("peak memory of these", "MB", "<=", 400, peak),
        Target("read to open and ask one gene", "MB", "<=", 3, questions["gene"]["read_bytes"] / 1e6),
    ]


def render(report: dict[str, Any]) -> str:
    """Return the report as Markdown."""
    command = report["command_seconds"]
    rows = [_question_row(NAMES[name], found) for name, found in report["questions"].items()]
    lines = [
        *opening_lines(report, "On a local disk and cached."),
        "| question | best ms | median ms | first ms | first reads MB | peak MB |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        *rows,
        "",
        f"`ahba gene` took {command['gene']:.2f} s, the imports {command['imports']:.2f} s.",
        "",
        *target_table(report["targets"]),
    ]
    return "\n".join(lines)


def _question_row(name: str, found: dict[str, float]) -> str:
    times = f"{1e3 * found['best']:.1f} | {1e3 * found['median']:.1f} | {1e3 * found['first']:.0f}"
    return f"| {name} | {times} | {found['read_bytes'] / 1e6:.1f} | {found['peak_bytes'] / 1e6:.0f} |"


if __name__ == "__main__":
    carry_out(
        SCRIPT,
        options(SCRIPT, "Measure the queries.", keeps="tables: 5 GB", repeats=7, of_what="commands"),
        measure_part=ask,
        measure_all=run_benchmark,
        targets=targets,
        render=render,
    )
