"""What ``benchmarks/batch.py`` reached: the targets, the tables, the plot."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.batch_model import costs, family_model, grid_counts, predicted, sustained, times_made
from benchmarks.pages import Target, target_table, where_and_when
from lake.grids import MULTIVERSE

Found = Mapping[str, Any]
PUBLISHED_CPU_HOURS = (6200, 12_400)  # Markello et al. 2021, two atlases, 30 to 60 s a pipeline
WHOLE_GRID_ATLASES = 2
SERIES = {"further": ("atlases", "atlases like DK"), "tenfold": ("samples", "samples")}


# Targets --------------------------------------------------------------------------------------------


def targets(sections: Found) -> list[Target]:
    """Hold what was measured against what was to be reached."""
    return [target for name, make in _TARGETS.items() if name in sections for target in make(sections)]


def _cold(sections: Found) -> Iterator[Target]:
    if "abagen" in sections["cold"]:
        ratio = sections["cold"]["abagen"]["seconds"] / sections["cold"]["run"]["seconds"]
        yield Target("one atlas, cold process, from the store: abagen / ours", "x", ">=", 15, ratio)


def _further(sections: Found) -> Iterator[Target]:
    if "abagen" in sections.get("cold", {}):
        ratio = sections["cold"]["abagen"]["seconds"] / marginal_seconds(sections["further"]["runs"])
        yield Target("each further atlas like DK: abagen / ours", "x", ">=", 300, ratio)


def _forty(sections: Found) -> Iterator[Target]:
    found = sections["forty"]
    what = f"{found['atlases']} real atlases, one batch"
    yield Target(what, "s", "<=", 40, found["run"]["seconds"])
    yield Target(f"{what}: peak memory", "MB", "<=", 1500, found["run"]["peak_bytes"] / 1e6)


def _limit(sections: Found) -> Iterator[Target]:
    found = sections["limit"]
    yield Target("the batch under 1 GB: tables that differ", "files", "<=", 0, found["different_files"])
    yield Target("the batch under 1 GB: peak memory", "MB", "<=", 1000, found["run"]["peak_bytes"] / 1e6)


def _tenfold(sections: Found) -> Iterator[Target]:
    runs = sections["tenfold"]["runs"]
    what = f"{max(map(int, runs)):,} samples under 2 GB, {sections['tenfold']['probes']:,} probes"
    yield Target(f"{what}: peak memory", "MB", "<=", 2000, largest(runs)["peak_bytes"] / 1e6)
    yield Target(f"{what}: time a sample / that of few", "x", "<=", 1.5, sample_ratio(runs))


def _multiverse(sections: Found) -> Iterator[Target]:
    found = sections["multiverse"]
    for name, what in (("first", "drawn at random"), ("families", "whole families of the grid")):
        rate = sustained(found[name]["journal"])
        yield Target(f"pipelines, {what}, shared stages warm", "a second", ">=", 5, rate)


def _workers(sections: Found) -> Iterator[Target]:
    one, two = (sections["workers"][name]["run_seconds"] for name in ("1", "2"))
    yield Target("the batch: one worker / two", "x", ">=", 1.7, one / two)


_TARGETS = {
    "cold": _cold,
    "further": _further,
    "forty": _forty,
    "limit": _limit,
    "tenfold": _tenfold,
    "multiverse": _multiverse,
    "workers": _workers,
}


def marginal_seconds(runs: Found) -> float:
    """Return the seconds of one more atlas: between the run of one and that of most."""
    few, most = min(map(int, runs)), max(map(int, runs))
    return float((runs[str(most)]["seconds"] - runs[str(few)]["seconds"]) / (most - few))


def sample_ratio(runs: Found) -> float:
    """Return the time a sample with most samples, over that with fewest; without the start of the process."""
    few, most = min(map(int, runs)), max(map(int, runs))
    each = [runs[str(count)]["run_seconds"] / count for count in (few, most)]
    return float(each[1] / each[0])


def largest(runs: Found) -> Found:
    """Return the run of most."""
    found: Found = runs[max(runs, key=int)]
    return found


# The page -------------------------------------------------------------------------------------------


def render(report: Found) -> str:
    """Return the report as Markdown."""
    data, sections = report["data"], report["sections"]
    versions = ", ".join(f"{name} {text}" for name, text in report["versions"].items())
    lines = [
        where_and_when(report),
        f"{data['probes']:,} probes, {data['samples']:,} samples (simulated), in the page cache. {versions}.",
        "",
        f"`{report['command']}`",
        *(f"\n{name}: {found['date']}, `{found['command']}`" for name, found in _from_earlier(report)),
        "",
        *target_table(report["targets"]),
        "",
        "| run, a process of its own | wall s | CPU s | peak MB |",
        "| --- | ---: | ---: | ---: |",
        *(_run_row(name, found) for name, found in runs_of(sections)),
        *(_multiverse_lines(sections["multiverse"]) if "multiverse" in sections else []),
        "",
        "![Time and memory against atlases and samples](results/batch.svg)",
    ]
    return "\n".join(lines)


def _from_earlier(report: Found) -> list[tuple[str, Found]]:
    return [
        (name, found) for name, found in report["sections"].items() if found["command"] != report["command"]
    ]


def runs_of(sections: Found) -> Iterator[tuple[str, Found]]:
    """Yield every measured run with what to call it."""
    for name, rows in _ROWS.items():
        if name in sections:
            yield from rows(sections[name])


def _cold_rows(found: Found) -> Iterator[tuple[str, Found]]:
    yield "`ahba run`, one atlas", found["run"]
    if "abagen" in found:
        yield "abagen `get_expression_data`, one atlas", found["abagen"]


def _tenfold_rows(found: Found) -> Iterator[tuple[str, Found]]:
    for count, run in found["runs"].items():
        yield f"{int(count):,} samples, {found['probes']:,} probes, two atlases, limit 2 GB", run


def _multiverse_rows(found: Found) -> Iterator[tuple[str, Found]]:
    for name, what in _DRAWN.items():
        yield f"pipelines {what}: {found[name]['journal']['plan']['tables']:,}", found[name]


def _workers_rows(found: Found) -> Iterator[tuple[str, Found]]:
    for name in ("1", "2", "1 on one core"):
        if name in found:
            yield f"real atlases, workers: {name}", found[name]


_ROWS: dict[str, Callable[[Found], Iterable[tuple[str, Found]]]] = {
    "cold": _cold_rows,
    "further": lambda found: ((f"atlases like DK: {n}", run) for n, run in found["runs"].items()),
    "forty": lambda found: [(f"real atlases: {found['atlases']}", found["run"])],
    "limit": lambda found: [("the same, limit 1 GB", found["run"])],
    "tenfold": _tenfold_rows,
    "multiverse": _multiverse_rows,
    "workers": _workers_rows,
}
_DRAWN = {"first": "drawn at random", "second": "drawn once more", "families": "of whole families"}


def _run_row(label: str, found: Found) -> str:
    peak = found["peak_bytes"] / 1e6
    return f"| {label} | {found['seconds']:.1f} | {found['cpu_seconds']:.1f} | {peak:.0f} |"


def _multiverse_lines(found: Found) -> list[str]:
    """Return the stages of the multiverse, what they cost, and what the whole grid would."""
    drawn, family = found["first"]["journal"], found["families"]["journal"]
    each = family_model(costs(drawn), costs(family))
    return [
        "",
        "| stage of the multiverse | drawn | s each | in families | s each | in the whole grid | hours |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        *(_stage_row(kind, drawn, family, each[kind]) for kind in each),
        "",
        projection(found, each),
    ]


def projection(found: Found, each: Mapping[str, float]) -> str:
    """Say how well the model foretold a second sample, and what it says of all pipelines."""
    second, foretold = found["second"]["journal"]["seconds"], found["second_predicted"]
    hours, (low, high) = predicted(each, whole_grid()) / 3600, PUBLISHED_CPU_HOURS
    cpu = hours * found["families"]["cpu_seconds"] / found["families"]["seconds"]
    return (
        f"The model foretold {foretold:.0f} s for the second sample, which took {second:.0f} s "
        f"({100 * (foretold / second - 1):+.0f} %). For all {whole_grid()['tables']:,} units (both atlases) "
        f"it says {hours:,.0f} hours on this machine, {cpu:,.0f} of processor time; the published run took "
        f"{low:,} to {high:,}."
    )


def whole_grid() -> dict[str, int]:
    """Return how many stages the published multiverse has, both atlases together."""
    return grid_counts(MULTIVERSE, atlases=WHOLE_GRID_ATLASES)


def _stage_row(kind: str, drawn: Found, family: Found, seconds: float) -> str:
    columns = [_number(journal, kind) for journal in (drawn, family)]
    count = times_made(kind, whole_grid())
    return f"| {kind} | {' | '.join(columns)} | {count:,} | {seconds * count / 3600:.1f} |"


def _number(journal: Found, kind: str) -> str:
    count = times_made(kind, journal["plan"]) if kind in costs(journal) else 0
    return f"{count:,} | {costs(journal).get(kind, 0.0):.3f}"


# The plot -------------------------------------------------------------------------------------------


def draw(sections: Found, path: Path) -> None:
    """Draw time and memory against atlases and samples; the same numbers give the same bytes."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError:
        raise SystemExit("The plot needs matplotlib: pip install '.[benchmark]'.") from None
    measures = (("wall time, s", "seconds", 1.0), ("peak memory, GB", "peak_bytes", 1e9))
    with mpl.rc_context({"svg.hashsalt": "batch", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(7, 5), layout="constrained")
        axes = figure.subplots(len(measures), len(SERIES), squeeze=False)
        for column, (name, (label, _)) in enumerate(SERIES.items()):
            for row, (measure, key, unit) in enumerate(measures):
                _panel(axes[row, column], points(sections, name, key, unit), label, measure)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None})


def points(sections: Found, name: str, key: str, unit: float) -> dict[str, tuple[list[int], list[float]]]:
    """Return the lines of a panel: what -> counts and values."""
    lines = {}
    if name in sections:
        runs = sections[name]["runs"]
        counts = sorted(map(int, runs))
        lines[SERIES[name][1]] = (counts, [runs[str(count)][key] / unit for count in counts])
    if name == "further":
        lines |= {
            what: ([found["run"]["journal"]["plan"]["tables"]], [found["run"][key] / unit])
            for section, what in (("forty", "real atlases"), ("limit", "real atlases, limit 1 GB"))
            if (found := sections.get(section))
        }
    return lines


def _panel(axes: Any, lines: Mapping[str, tuple[list[int], list[float]]], label: str, measure: str) -> None:
    for (what, (counts, values)), marker in zip(lines.items(), "osD", strict=False):
        axes.plot(counts, values, marker=marker, label=what)
    axes.set(xlabel=label, ylabel=measure, ylim=(0, None), xlim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)
    if len(lines) > 1:
        axes.legend(frameon=False)
