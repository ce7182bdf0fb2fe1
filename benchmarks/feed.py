"""What the feed delivers beside a plain sequential read of the same Zarr array, at full size.

``python benchmarks/feed.py`` simulates the six donors, ingests them, and copies expression to arrays with a
row a sample: one value a gene, and all probes. The ways of reading are then measured in turn in one process
(this script with ``--part``), the best of several epochs each; the system has the files in its cache. Results
go to ``benchmarks/results/feed.json`` and, as a table, into ``benchmarks/README.md``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import zarr

SCRIPT = Path(__file__).resolve()
sys.path.insert(0, str(SCRIPT.parents[1]))

import lake  # noqa: E402
from benchmarks.measuring import Bench  # noqa: E402
from benchmarks.pages import Target, target_table  # noqa: E402
from benchmarks.parts import carry_out, opening_lines, options, part_of  # noqa: E402
from lake.arrays import fast_codecs  # noqa: E402
from lake.resources import peak_memory  # noqa: E402

BATCH, BLOCK = 64, 32
SOURCES: dict[str, Callable[[lake.Lake], lake.Selection]] = {
    "genes": lambda store: store.everything().per_gene(probe_selection="max_variance"),
    "probes": lambda store: store.everything(),
}
NAMES = {"genes": "one value a gene", "probes": "all probes"}
Way = Callable[[lake.Feed, int], int]


# Ways of reading --------------------------------------------------------------------------------------


def array_of(feed: lake.Feed) -> Any:
    """Return the array that the feed reads, opened as the feed opens it."""
    with fast_codecs():
        return zarr.open_array(feed.reader.matrix.path / "expression", mode="r")


def whole(feed: lake.Feed, _: int) -> int:
    """Read the array in one go."""
    return array_of(feed)[:].nbytes


def in_rows(feed: lake.Feed, _: int) -> int:
    """Read the array batch after batch, in the order in which it lies."""
    array = array_of(feed)
    return sum(array[start : start + BATCH].nbytes for start in range(0, array.shape[0], BATCH))


def epoch(feed: lake.Feed, number: int) -> int:
    return sum(batch.expression.nbytes for batch in feed.epoch(number))


def with_workers(workers: int) -> Way:
    def read(feed: lake.Feed, number: int) -> int:
        loader = feed.loader(num_workers=workers)
        loader.batch_sampler.set_epoch(number)
        return sum(batch.expression.numpy().nbytes for batch in loader)

    return read


def scaled(feed: lake.Feed) -> lake.Feed:
    return feed.scaled(feed.fit_scaling())


PLAIN: dict[str, Way] = {"whole": whole, "in_rows": in_rows}
WAYS: dict[str, tuple[str, Callable[[lake.Feed], lake.Feed], Way]] = {
    "epoch": ("`feed.epoch`, shuffled", lambda feed: feed, epoch),
    "scaled": ("`feed.epoch`, z-scored", scaled, epoch),
    "train": ("`feed.epoch`, five of six donors", lambda feed: feed.split_by_donor("9861")[0], epoch),
    "loader": ("`feed.loader()`", lambda feed: feed, with_workers(0)),
    "workers": ("`feed.loader(num_workers=2)`", lambda feed: feed, with_workers(2)),
}
WITH_TORCH = ("loader", "workers")
LABELS = {"whole": "`array[:]`", "in_rows": f"`array[i:i + {BATCH}]`"} | {way: WAYS[way][0] for way in WAYS}


def copy(selection: lake.Selection, cache: Path, seconds: float) -> dict[str, float]:
    """Write the copy; the choice of probes before it took `seconds`."""
    start = time.perf_counter()
    feed = fed(selection, cache)
    copied = time.perf_counter() - start
    return {"select": seconds, "copy": copied, "peak_bytes": peak_memory(), "features": feed.shape[1]}


def ways(selection: lake.Selection, cache: Path, repeats: int) -> dict[str, float]:
    """Measure every way of reading, and the plain ones, in turn; the best of each counts."""
    feed = fed(selection, cache)
    known = {way: steps for way, steps in WAYS.items() if find_spec("torch") or way not in WITH_TORCH}
    prepared = {way: prepare(feed) for way, (_, prepare, _) in known.items()}
    rates = [
        {name: measured(one, feed, number) for name, one in PLAIN.items()}
        | {way: measured(one, prepared[way], number) for way, (_, _, one) in known.items()}
        for number in range(repeats)
    ]
    return {name: max(rate[name] for rate in rates) for name in rates[0]}


def peak(selection: lake.Selection, cache: Path) -> dict[str, float]:
    """Feed two epochs from the copy that is there, and nothing else."""
    feed = fed(selection, cache)
    for number in range(2):
        epoch(feed, number)
    return {"peak_bytes": peak_memory()}


def fed(selection: lake.Selection, cache: Path) -> lake.Feed:
    return lake.feed(selection, batch_size=BATCH, block_size=BLOCK, memory=0, cache=cache)


def read(source: str, what: str, store: str, copies: str, repeats: str) -> dict[str, float]:
    """Do one part of the benchmark, in a process of its own."""
    start = time.perf_counter()
    selection = SOURCES[source](lake.open(store))
    seconds, cache = time.perf_counter() - start, Path(copies)
    if what == "copy":
        return copy(selection, cache, seconds)
    return peak(selection, cache) if what == "peak" else ways(selection, cache, int(repeats))


def measured(way: Way, feed: lake.Feed, number: int) -> float:
    """Return bytes a second."""
    start = time.perf_counter()
    return way(feed, number) / (time.perf_counter() - start)


# The benchmark --------------------------------------------------------------------------------------


def run_benchmark(bench: Bench, store: Path, repeats: int) -> dict[str, Any]:
    """Measure everything."""
    return {
        "sources": {
            source: {part: asked(source, part, bench, store, repeats) for part in ("copy", "peak", "ways")}
            for source in SOURCES
        }
    }


def asked(source: str, part: str, bench: Bench, store: Path, repeats: int) -> dict[str, float]:
    """Measure in a new process, and say so."""
    found = part_of(SCRIPT, source, part, store, bench.workdir / "copies", repeats)
    print(f"{source:<8} {part:<8} {found}", flush=True)
    return found


def targets(report: dict[str, Any]) -> list[Target]:
    """Hold the numbers against what was to be reached at full size."""
    return [
        Target(
            f"the feed / a plain read, {NAMES[source]}", "%", ">=", 70, 100 * share(found["ways"], "epoch")
        )
        for source, found in report["sources"].items()
    ]


def share(rates: dict[str, float], way: str) -> float:
    """Return what a way delivers of the faster of the plain reads."""
    return rates[way] / max(rates[name] for name in PLAIN)


def render(report: dict[str, Any]) -> str:
    """Return the report as Markdown."""
    rows = [row for source, found in report["sources"].items() for row in _rows(source, found)]
    lines = [
        *opening_lines(report, f"Batches of {BATCH}, float32; the files are in the system's cache."),
        "| features | read by | MB/s | of the faster plain read |",
        "| --- | --- | ---: | ---: |",
        *rows,
        "",
        *(_copy_line(source, found) for source, found in report["sources"].items()),
        "",
        *target_table(report["targets"]),
    ]
    return "\n".join(lines)


def _rows(source: str, found: dict[str, Any]) -> list[str]:
    features = f"{NAMES[source]} ({found['copy']['features']:,})"
    return [
        f"| {features} | {label} | {_rate(found['ways'][way])} | {share(found['ways'], way):.0%} |"
        for way, label in LABELS.items()
        if way in found["ways"]
    ]


def _rate(bytes_a_second: float) -> str:
    return f"{bytes_a_second / 1e6:,.0f}"


def _copy_line(source: str, found: dict[str, Any]) -> str:
    copy, peak = found["copy"], found["peak"]
    chosen = f" after {copy['select']:.1f} s for the choice of probes" if source == "genes" else ""
    return (
        f"{NAMES[source].capitalize()}: copied once in {copy['copy']:.1f} s{chosen}, peak "
        f"{_rate(copy['peak_bytes'])} MB; two epochs in a new process, peak {_rate(peak['peak_bytes'])} MB."
    )


if __name__ == "__main__":
    carry_out(
        SCRIPT,
        options(SCRIPT, "Measure the feed.", keeps="copies: 6 GB", repeats=5, of_what="epochs"),
        measure_part=read,
        measure_all=run_benchmark,
        targets=targets,
        render=render,
    )
