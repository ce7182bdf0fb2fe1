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
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.measuring import (  # noqa: E402
    FULL_SIZE,
    TINY,
    Bench,
    Measurement,
    ahba,
    machine,
    simulate,
    today,
    version,
    versions,
)
from benchmarks.pages import Target, target_table, where_and_when, write_section  # noqa: E402
from ingest.reference import reference_file  # noqa: E402
from tests import peer  # noqa: E402

ATLAS, SECOND_ATLAS = "abagen:dk", "abagen:dk-surface"
IMAGE, INFO = "atlas-desikankilliany.nii.gz", "atlas-desikankilliany.csv"  # the files of ATLAS
WORKDIR = ROOT / "build" / "against_abagen"
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
PEER_PACKAGES = ("abagen", "numpy", "pandas", "scipy")


# The steps ------------------------------------------------------------------------------------------


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


def peer_versions(python: Path) -> dict[str, str]:
    """Return the versions in the peer's environment."""
    code = (
        "import json, platform; from importlib.metadata import version; "
        f"print(json.dumps({{'python': platform.python_version(), "
        f"**{{name: version(name) for name in {PEER_PACKAGES}}}}}))"
    )
    done = subprocess.run([str(python), "-I", "-c", code], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def run_benchmark(bench: Bench) -> dict[str, Any]:
    """Run all the steps and return the report that is written as JSON."""
    bench.workdir.mkdir(parents=True, exist_ok=True)
    simulate(bench)
    parsers = measure_parsers(bench)
    steps = {**{f"parser_{name}": found for name, found in parsers.items()}, **measure_ours(bench)}
    report: dict[str, Any] = {
        "date": today(),
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
    return [target.entry() for target in wanted]


ROWS = {
    "ingest": "`ahba ingest`",
    "run": "`ahba run`, one atlas, new process",
    "run_two_atlases": "`ahba run`, two atlases, new process",
    "abagen": "abagen `get_expression_data`, one atlas, new process",
}


def render(report: dict[str, Any]) -> str:
    """Return the report as Markdown: where, what, the steps, the targets."""
    data, steps = report["data"], report["steps"]
    parser = report["fastest_parser"]
    rows = {f"parser_{parser}": f"fastest parser alone ({parser}), nothing kept", **ROWS}
    more = steps["run_two_atlases"]["seconds"] - steps["run"]["seconds"]
    lines = [
        where_and_when(report),
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
        *target_table(report["targets"]),
    ]
    return "\n".join(lines)


def _listed(found: dict[str, str]) -> str:
    return ", ".join(f"{name} {text}" for name, text in found.items())


def _step_row(label: str, step: dict[str, float]) -> str:
    return f"| {label} | {step['seconds']:.1f} | {step['cpu_seconds']:.1f} | {step['peak_bytes'] / 1e6:.0f} |"


def _peer_line(report: dict[str, Any]) -> str:
    found = report["peer"]
    if "missing" in found:
        return f"abagen was not measured: {found['missing']}"
    return (
        f"abagen ran with {_listed(found['versions'])}. The two tables have the same regions and genes, and "
        f"their values differ by {report['largest_relative_difference']:.1e} at most (relative)."
    )


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
    write_section(report, render(report), chosen.results, "against_abagen")


if __name__ == "__main__":
    main()
