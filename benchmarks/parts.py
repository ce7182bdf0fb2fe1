"""Benchmarks of the library: each part is measured from inside, in a process of its own, on one store.

Such a benchmark is a script that starts itself once for each part, with ``--part`` and what the part is, and
puts together what the parts print.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lake
from benchmarks.measuring import (
    FULL_SIZE,
    ROOT,
    TINY,
    Bench,
    ahba,
    machine,
    measure,
    simulate,
    today,
    versions,
)
from benchmarks.pages import Target, where_and_when, write_section

Report = dict[str, Any]


def options(script: Path, description: str, *, keeps: str, repeats: int, of_what: str) -> argparse.Namespace:
    """Parse the command line: `keeps` ends what the working folder is for, the fastest `of_what` count."""
    parser = argparse.ArgumentParser(description=description)
    option, workdir = parser.add_argument, ROOT / "build" / script.stem
    option("--workdir", type=Path, default=workdir, help=f"for files, store and {keeps} at full size")
    option("--store", type=Path, help="a store that is there, instead of simulating one")
    option("--probes", type=int, default=FULL_SIZE, help="fewer for a trial")
    option("--repeats", type=int, default=repeats, help=f"the fastest of so many {of_what} counts")
    option("--results", type=Path, default=script.parent, help="folder of README.md and results/")
    option("--tiny", action="store_true", help=f"{TINY} probes, two donors, results in the workdir")
    option("--part", nargs="+", help=argparse.SUPPRESS)
    return parser.parse_args()


def carry_out(
    script: Path,
    chosen: argparse.Namespace,
    *,
    measure_part: Callable[..., Report],
    measure_all: Callable[[Bench, Path, int], Report],
    targets: Callable[[Report], list[Target]],
    render: Callable[[Report], str],
) -> None:
    """Measure one part and print it, or all of them, and write what was found as the script's section.

    Parameters
    ----------
    script : pathlib.Path
        Its name is that of the results and of their section.
    chosen : argparse.Namespace
        The command line.
    measure_part : callable
        Takes the words of `part_of`.
    measure_all : callable
        Takes where files lie, the store and the number of repeats.
    targets, render : callable
        Hold a report against what was to be reached; make the section of it.
    """
    if chosen.part:
        print(json.dumps(measure_part(*chosen.part)))
        return
    if chosen.tiny:
        chosen.probes, chosen.repeats, chosen.results = TINY, 1, chosen.workdir
    donors = "all" if chosen.probes == FULL_SIZE else "9861,10021"
    bench = Bench(chosen.workdir.resolve(), chosen.probes, donors, 1)
    store = ingested(bench, chosen.store)
    report = opening(f"python benchmarks/{script.name}" + (" --tiny" if chosen.tiny else ""), store)
    report |= measure_all(bench, store, chosen.repeats)
    report["targets"] = [target.entry() for target in targets(report)]
    print(render(report))
    write_section(report, render(report), chosen.results, script.stem)


def part_of(script: Path, *words: object) -> Report:
    """Measure a part of a script in a new process."""
    command = [sys.executable, str(script), "--part", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[1:])} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def ingested(bench: Bench, given: Path | None) -> Path:
    """Return the store to ask: the one given, or one of simulated files, made unless it is there."""
    bench.workdir.mkdir(parents=True, exist_ok=True)
    store = given or bench.store
    if not (store / "zarr.json").exists():
        simulate(bench)
        measure(ahba("ingest", bench.data, "--quiet", "--store", store), bench.workdir / "ingest.log")
    return store


def opening(command: str, store: Path) -> Report:
    """Return what a report begins with."""
    opened = lake.open(store)
    return {
        "date": today(),
        "command": command,
        "machine": machine(),
        "versions": versions(),
        "data": {"probes": opened.manifest.n_probes, "samples": len(opened.samples)},
    }


def opening_lines(report: Report, *remarks: str) -> list[str]:
    """Return what a section begins with: the machine, the data, remarks on it, the command."""
    data = report["data"]
    return [
        where_and_when(report),
        f"{data['probes']:,} probes, {data['samples']:,} samples (simulated).",
        *remarks,
        "",
        f"`{report['command']}`",
        "",
    ]
