"""Many atlases and many pipelines at once: what they take, beside abagen and beside each other.

``python benchmarks/batch.py`` simulates the six donors at full size (58,692 probes, 3,702 samples, RNA-seq of
two of them), ingests them, and measures each of these, every run in a process of its own:

cold        one atlas: the command, from the store; and abagen on the same files
further     runs of more and more atlases like Desikan-Killiany: what each further one costs
forty       40 real atlases in one batch
limit       the same under a limit of 1 GB, and whether its tables have the same bytes
tenfold     ten times the samples under a limit of 2 GB; of fewer probes, so that the files go onto a disk
multiverse  random pipelines of the published grid with its three analyses; whole families of it, where all
            is shared that can be; a model of the costs, held against a second sample, and what it says of
            the whole grid
workers     the 40 atlases by one worker and by two

``--only further,forty`` measures these and keeps the rest of an earlier run, if that was on the same machine
with the same versions and data. Results go to ``benchmarks/results/batch.json`` and ``batch.svg`` and, as
tables, into ``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import lake  # noqa: E402
from benchmarks import against_abagen as base  # noqa: E402
from benchmarks import measuring  # noqa: E402
from benchmarks.batch_cases import DK, Case  # noqa: E402
from benchmarks.batch_model import costs, predicted  # noqa: E402
from benchmarks.batch_report import draw, render, targets  # noqa: E402
from benchmarks.measuring import ahba, measure, today  # noqa: E402
from benchmarks.pages import write_section  # noqa: E402
from ingest.simulated_anatomy import DONORS  # noqa: E402
from lake.errors import StoreError  # noqa: E402
from tests import peer  # noqa: E402

CASES = Path(__file__).with_name("batch_cases.py")
FILES, WORKDIR = base.WORKDIR, ROOT / "build" / "batch"
SEQUENCED = "9861,10021"  # the donors with RNA-seq
SEEDS = {"first": 1, "second": 2}
Found = dict[str, Any]


@dataclass(frozen=True)
class Bench(measuring.Bench):
    """Where the benchmark keeps its files, and how large each part of it is."""

    files: Path
    samples_scale: float
    with_rnaseq: bool
    tenfold_probes: int
    times: tuple[int, ...]
    alike: tuple[int, ...]
    real: int
    pipelines: int
    families: int
    family_size: int

    @property
    def size(self) -> str:
        """What tells its files from those of another size."""
        scaled = "" if self.samples_scale == 1 else f"-x{self.samples_scale:g}"
        return f"{self.probes}-{self.donors}{scaled}".replace(".", "_")

    @property
    def data(self) -> Path:
        """The simulated files."""
        return self.files / f"simulated-{self.size}"

    @property
    def store(self) -> Path:
        """What ``ahba ingest`` makes of them."""
        return self.workdir / f"store-{self.size}.zarr"

    def ahba(self, *arguments: object) -> None:
        """Run our command for what is not measured."""
        measure(ahba(*arguments), self.workdir / "prepare.log")


# Files and stores -----------------------------------------------------------------------------------


def simulated(bench: Bench) -> Path:
    """Return the simulated files, made unless a benchmark of this size left them."""
    whole = bench.data.with_suffix(".whole")
    if not whole.is_file():
        print(f"simulating {bench.size} ..", flush=True)
        shutil.rmtree(bench.data, ignore_errors=True)
        size = ("--probes", bench.probes, "--samples-scale", bench.samples_scale)
        bench.ahba("simulate", bench.data, *size, "--donors", bench.donors)
        whole.touch()
    return bench.data


def sequenced(bench: Bench) -> Path:
    """Return simulated RNA-seq that goes with the files; a donor's bytes do not depend on the others."""
    folder = bench.empty("rnaseq")
    size = ("--probes", bench.probes, "--samples-scale", bench.samples_scale)
    bench.ahba("simulate", folder, *size, "--donors", SEQUENCED, "--rnaseq")
    for copy in folder.glob("normalized_microarray_donor*"):
        shutil.rmtree(copy)
    return folder


def ingested(bench: Bench) -> Path:
    """Return the store, in the page cache; made unless a benchmark of this size left it whole."""
    if not is_whole(bench):
        sources = [simulated(bench), *([sequenced(bench)] if bench.with_rnaseq else [])]
        print(f"ingesting {bench.size} ..", flush=True)
        shutil.rmtree(bench.store, ignore_errors=True)
        for folder in sources:
            bench.ahba("ingest", folder, "--quiet", "--store", bench.store)
    for path in bench.store.rglob("*"):
        if path.is_file():
            path.read_bytes()
    return bench.store


def is_whole(bench: Bench) -> bool:
    """Return whether there is a store of this version with all that is wanted."""
    try:
        manifest = lake.open(bench.store).manifest
    except StoreError:
        return False
    return len(manifest.donors) == len(DONORS) and bool(manifest.rnaseq) == bench.with_rnaseq


# Measuring ------------------------------------------------------------------------------------------


@cache
def measured(bench: Bench, name: str, case: Case) -> Found:
    """Carry a case out in a new process, once, and return what it took and what its journal says."""
    out, log = bench.empty(name), bench.workdir / f"{name}.log"
    request = replace(case, store=str(ingested(bench)), out=str(out))
    taken = measure([sys.executable, str(CASES), json.dumps(asdict(request))], log)
    inside = json.loads(log.read_text().splitlines()[-1])
    peak = max(taken.peak_bytes, inside["peak_bytes"])
    print(f"{name:<22} {taken.seconds:8.1f} s  {peak / 1e6:8.0f} MB", flush=True)
    return {
        **asdict(taken),
        "peak_bytes": peak,
        "run_seconds": inside["run_seconds"],
        "journal": journal(out),
    }


def journal(out: Path) -> Found:
    """Return the part of a run's journal that is worth keeping."""
    content = json.loads((out / "run.json").read_text())
    kept = ("seconds", "workers", "memory_limit_bytes", "units", "plan", "stages")
    return {name: content[name] for name in kept} | {"failed": content["failed"][:3]}


def cold(bench: Bench) -> Found:
    """Measure our command and abagen, one atlas each, and compare their tables."""
    store = ingested(bench)
    command = ("run", "--quiet", "--store", store, "--atlas", DK)
    found: Found = {"run": asdict(bench.best("cold", lambda: ahba(*command, "--out", bench.empty("one"))))}
    try:
        python = peer.find_peer_python()
    except peer.PeerError as error:
        return {**found, "missing": str(error)}
    simulated(bench)
    measuring.simulate(bench)  # they are there: this reads them into the page cache
    taken, outcome = base.measure_peer(bench)
    agreement = base.check_agreement(bench, outcome)
    return {
        **found,
        "abagen": asdict(taken),
        "versions": base.peer_versions(python),
        "largest_relative_difference": agreement,
    }


def further(bench: Bench) -> Found:
    """Measure runs of more and more atlases that are like DK."""
    return {
        "runs": {
            str(count): measured(bench, f"alike-{count}", Case(atlases=("alike", count)))
            for count in bench.alike
        }
    }


def forty(bench: Bench) -> Found:
    """Measure the real atlases in one batch."""
    return {"atlases": bench.real, "run": measured(bench, "forty", Case(atlases=("real", bench.real)))}


def limit(bench: Bench) -> Found:
    """Measure them under a limit of memory, and compare the tables."""
    forty(bench)
    limited = measured(bench, "limit", Case(atlases=("real", bench.real), memory_limit="1GB"))
    tables = [
        path.relative_to(bench.workdir / "forty") for path in (bench.workdir / "forty").rglob("*.parquet")
    ]
    _, differ, missing = filecmp.cmpfiles(
        bench.workdir / "forty", bench.workdir / "limit", tables, shallow=False
    )
    return {"run": limited, "files": len(tables), "different_files": len(differ) + len(missing)}


def tenfold(bench: Bench) -> Found:
    """Measure one batch of two atlases for more and more samples."""
    case = Case(atlases=("volume_and_surface",), pipelines=("as_published",), memory_limit="2GB")
    runs: Found = {}
    for times in bench.times:
        scale = times * bench.samples_scale
        larger = replace(
            bench,
            probes=bench.tenfold_probes,
            samples_scale=scale,
            with_rnaseq=False,
            files=bench.workdir,
        )
        n_samples = len(lake.open(ingested(larger)).samples)
        shutil.rmtree(larger.data, ignore_errors=True)
        larger.data.with_suffix(".whole").unlink(missing_ok=True)
        runs[str(n_samples)] = measured(larger, f"tenfold-{times}", case)
    return {"probes": bench.tenfold_probes, "runs": runs}


def multiverse(bench: Bench) -> Found:
    """Measure two random samples of pipelines, and families that share all that the grid shares."""
    drawn = {
        name: measured(
            bench,
            f"multiverse-{name}",
            Case(atlases=("cortex",), pipelines=("sample", bench.pipelines, seed), analyses=True),
        )
        for name, seed in SEEDS.items()
    }
    chosen = ("families", bench.families, 1, bench.family_size)
    families = Case(atlases=("cortex_twice",), pipelines=chosen, analyses=True)
    return {
        "pipelines": bench.pipelines,
        **drawn,
        "families": measured(bench, "multiverse-families", families),
        "second_predicted": predicted(costs(drawn["first"]["journal"]), drawn["second"]["journal"]["plan"]),
    }


def workers(bench: Bench) -> Found:
    """Measure the real atlases by one worker and by two; and, on Linux, by one that has but one core."""
    case = Case(atlases=("real", bench.real))
    found = {
        "1": measured(bench, "workers-1", replace(case, workers=1)),
        "2": measured(bench, "workers-2", replace(case, workers=2)),
    }
    if hasattr(os, "sched_setaffinity"):
        found["1 on one core"] = measured(bench, "workers-1-core", replace(case, workers=1, cores=1))
    return found


SECTIONS: dict[str, Callable[[Bench], Found]] = {
    "cold": cold,
    "further": further,
    "forty": forty,
    "limit": limit,
    "tenfold": tenfold,
    "multiverse": multiverse,
    "workers": workers,
}


# The report -----------------------------------------------------------------------------------------


def run_benchmark(bench: Bench, only: Sequence[str], command: str, results: Path) -> Found:
    """Measure the chosen sections; those of an earlier report that goes with them stay."""
    bench.workdir.mkdir(parents=True, exist_ok=True)
    samples = lake.open(ingested(bench)).samples
    report: Found = {
        "date": today(),
        "command": command,
        "machine": measuring.machine(),
        "versions": measuring.versions(),
        "data": {"simulated": True, "probes": bench.probes, "samples": len(samples)},
    }
    sections = earlier(report, results / "results" / "batch.json")
    for name in only:
        sections[name] = {"date": today(), "command": command, **SECTIONS[name](bench)}
    report["sections"] = {name: sections[name] for name in SECTIONS if name in sections}
    report["targets"] = [target.entry() for target in targets(report["sections"])]
    return report


def earlier(report: Found, path: Path) -> Found:
    """Return the sections of a report on disk, if its machine, versions and data are these."""
    if not path.is_file():
        return {}
    known = json.loads(path.read_text(encoding="utf-8"))
    alike = all(known[name] == report[name] for name in ("machine", "versions", "data"))
    return known["sections"] if alike else {}


def chosen_sections(text: str) -> list[str]:
    """Return the sections that a list with commas names."""
    names = text.split(",")
    if unknown := [name for name in names if name not in SECTIONS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r}: choose from {', '.join(SECTIONS)}")
    return names


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description="Measure batches of atlases and pipelines on simulated data."
    )
    option = parser.add_argument
    option("--only", type=chosen_sections, default=list(SECTIONS), help=f"some of {','.join(SECTIONS)}")
    option("--workdir", type=Path, default=WORKDIR, help="for stores and tables: 8 GB at full size")
    option("--files", type=Path, default=FILES, help="simulated files, taken from there if they are whole")
    option("--probes", type=int, default=measuring.FULL_SIZE, help="fewer for a trial")
    option("--samples-scale", type=float, default=1.0, help="fewer samples for a trial")
    option("--repeats", type=int, default=1, help="of cold runs, ours and abagen's, the fastest counts")
    option(
        "--tenfold-probes",
        type=int,
        default=10_000,
        help="10,000 make 5 GB of files at ten times the samples",
    )
    option("--pipelines", type=int, default=1000, help="in each random sample of the multiverse")
    option("--families", type=int, default=3, help="pipelines that share all they can")
    option("--family-size", type=int, default=288, help="pipelines in each; all are 288")
    option("--results", type=Path, default=Path(__file__).parent, help="folder of README.md and results/")
    option("--tiny", action="store_true", help="a trial of minutes, results in the workdir")
    return parser.parse_args(arguments)


TINY = {
    "probes": 400,
    "samples_scale": 0.2,
    "tenfold_probes": 100,
    "pipelines": 4,
    "families": 1,
    "family_size": 16,
}


def bench_of(chosen: argparse.Namespace) -> Bench:
    """Return the benchmark that the command line asks for."""
    workdir = chosen.workdir.resolve()
    return Bench(
        workdir,
        chosen.probes,
        "all",
        chosen.repeats,
        files=workdir if chosen.tiny else chosen.files.resolve(),
        samples_scale=chosen.samples_scale,
        with_rnaseq=True,
        tenfold_probes=chosen.tenfold_probes,
        times=(1, 2) if chosen.tiny else (1, 3, 10),
        alike=(1, 3) if chosen.tiny else (1, 6, 11, 21),
        real=4 if chosen.tiny else 40,
        pipelines=chosen.pipelines,
        families=chosen.families,
        family_size=chosen.family_size,
    )


def command_line(chosen: argparse.Namespace) -> str:
    """Return the command that measures this again; where files lie is left out."""
    usual = vars(options([]))
    told = {
        name: ",".join(value) if name == "only" else value
        for name, value in vars(chosen).items()
        if value != usual[name] and name not in ("workdir", "files", "results", "tiny")
    }
    words = [f"--{name.replace('_', '-')} {value}" for name, value in told.items()]
    return " ".join(["python benchmarks/batch.py", *words])


def main(arguments: Sequence[str] | None = None) -> None:
    chosen = options(arguments)
    if chosen.tiny:
        vars(chosen).update(TINY, results=chosen.workdir)
    report = run_benchmark(bench_of(chosen), chosen.only, command_line(chosen), chosen.results)
    print(render(report))
    draw(report["sections"], chosen.results / "results" / "batch.svg")
    write_section(report, render(report), chosen.results, "batch")


if __name__ == "__main__":
    main()
