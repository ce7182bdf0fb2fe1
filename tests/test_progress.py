"""What people see while long work goes on: bars with an estimate on a terminal, plain lines elsewhere."""

import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

import lake
from lake.batch import Batch
from lake.errors import RunError
from lake.progress import Reporter, duration
from lake.reductions import reduction
from lake.runs import run_batch
from lake.watching import Caller, Units
from tests.helpers import octants
from tests.test_run_tables import far_away_image
from transforms.atlas import Atlas
from transforms.pipeline import Pipeline


class Clock:
    """Goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def recorded(*, terminal: bool, width: int = 80) -> Console:
    return Console(
        file=io.StringIO(),
        force_terminal=terminal,
        width=width,
        color_system=None,
        highlight=False,
        _environ={},
    )


def shown(console: Console) -> list[str]:
    """The lines on a terminal in the end, without the codes that move the cursor."""
    assert isinstance(console.file, io.StringIO)
    last = console.file.getvalue().rpartition("\x1b[2K")[2]
    return [line.rstrip() for line in re.sub(r"\x1b\[[0-9?;]*[a-zA-Z]", "", last).splitlines()]


def said(console: Console) -> list[str]:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def tell(report: Reporter, clock: Clock) -> None:
    """Three of ten units, ten seconds each after the first, which takes a minute; one fails."""
    report.stage("genes", 1, 2)
    report.units(Units(0, 10, 0, "dk, pipeline 0fd1678e62da"))
    for done, seconds in enumerate((60, 10, 10), start=1):
        clock.now += seconds
        report.stage("normalisation", done, 5)
        report.units(Units(done, 10, done // 3, "dk, pipeline 48a1f31afcd6"))


def test_a_terminal_shows_stages_then_units_then_the_one_at_work(clock: Clock) -> None:
    console = recorded(terminal=True)
    reporter = Reporter(console=console, clock=clock)
    with reporter.showing() as report:
        tell(report, clock)
        report.stage("values", 1, None)
    lines = shown(console)
    assert [line.split()[0] for line in lines] == ["genes", "normalisation", "values", "units", "at"]
    assert re.search(r"^genes +━.* 50%", lines[0])
    assert re.search(r"^units +━.* 30% 0:01:10 3 of 10, 1 failed$", lines[3])  # seven of ten seconds
    assert lines[4] == "at work: dk, pipeline 48a1f31afcd6"
    assert max(map(len, lines)) <= 80


def test_a_view_of_hundreds_of_thousands_fits_and_ends_without_a_unit_at_work(clock: Clock) -> None:
    console = recorded(terminal=True)
    with Reporter(console=console, clock=clock).showing() as report:
        report.stage("normalisation", 93_312, 93_312)
        report.units(Units(746_496, 746_496, 12_345, ""))
    lines = shown(console)
    assert len(lines) == 2
    assert lines[1].endswith("746,496 of 746,496, 12,345 failed")


def test_a_long_name_is_cut_off(clock: Clock) -> None:
    console = recorded(terminal=True)
    with Reporter(console=console, clock=clock).showing() as report:
        report.units(Units(1, 2, 0, f"{'[bold]' * 20}, pipeline 0fd1678e62da"))
    assert shown(console)[1].startswith("at work: [bold][bold]")
    assert len(shown(console)) == 2
    assert len(shown(console)[1]) <= 80


def test_the_next_view_begins_anew(clock: Clock) -> None:
    console = recorded(terminal=True)
    reporter = Reporter(console=console, clock=clock)
    for label in ("simulate", "ingest"):
        with reporter.showing() as report:
            report(label, 1, 2)
    assert [line.split()[0] for line in shown(console)] == ["ingest"]


def test_plain_lines_come_every_few_seconds_and_at_the_end(clock: Clock) -> None:
    console = recorded(terminal=False)
    with Reporter(console=console, clock=clock).showing() as report:
        tell(report, clock)
        report.stage("genes", 2, 2)
        clock.now += 1
        report.units(Units(4, 10, 1, "dk, pipeline ffffffffffff"))  # too soon after the last line
        report.units(Units(10, 10, 1, ""))
    assert said(console) == [
        "units: 1 of 10; at work: dk, pipeline 48a1f31afcd6",
        "normalisation: 40 %",
        "units: 2 of 10, about 80 s left; at work: dk, pipeline 48a1f31afcd6",
        "normalisation: 60 %",
        "units: 3 of 10, 1 failed, about 70 s left; at work: dk, pipeline 48a1f31afcd6",
        "genes: 100 %",
        "units: 10 of 10, 1 failed",
    ]


@pytest.mark.parametrize("terminal", [True, False])
def test_quiet_is_quiet(terminal: bool, clock: Clock) -> None:
    console = recorded(terminal=terminal)
    console.quiet = True
    with Reporter(console=console, clock=clock).showing() as report:
        tell(report, clock)
        report.say("something")
    assert console.file.getvalue() == ""  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "1 s"), (89, "89 s"), (90, "2 minutes"), (5399, "90 minutes"), (9000, "2.5 hours")],
)
def test_seconds_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


# ---------------------------------------------------------------- what a run tells


class Recorder:
    """A watcher that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[Units] = []
        self.kinds: set[str] = set()

    def stage(self, label: str, done: int, total: int | None) -> None:
        self.kinds.add(label)

    def units(self, so_far: Units) -> None:
        self.told.append(so_far)

    def say(self, text: str) -> None:
        raise AssertionError(text)  # threads have no dashboard


def test_a_run_tells_which_unit_it_is_at_and_how_many_failed(
    small_lake: lake.Lake, atlas: Atlas, tmp_path: Path
) -> None:
    far, other = Atlas.from_volume(far_away_image(), name="far"), octants("other", first=11)
    pipelines = [Pipeline(), Pipeline(agg_metric="median")]
    names = {pipeline.identity(small_lake.snapshot): pipeline.agg_metric for pipeline in pipelines}
    watcher = Recorder()
    with pytest.raises(RunError, match="2 of 6 units failed"):
        run_batch(small_lake, Batch.of([atlas, far, other], pipelines, out=tmp_path), watcher=watcher)
    first, *_, last = watcher.told
    mean = next(name for name, metric in names.items() if metric == "mean")
    assert first == Units(0, 6, 0, f"octants, pipeline {mean}")
    assert last == Units(6, 6, 2, "")
    assert [one.done for one in watcher.told] == [*range(7)]
    assert {one.making.split(", pipeline ")[0] for one in watcher.told[:-1]} >= {"octants", "other"}
    assert watcher.kinds == {"samples", "probes", "genes", "values", "assignment", "normalisation"}
    again = Recorder()
    with pytest.raises(RunError, match="2 of 6"):
        run_batch(small_lake, Batch.of([atlas, far, other], pipelines, out=tmp_path), watcher=again)
    assert {one.total for one in again.told} == {2}  # the others are there


def refused(table: object, regions: object) -> str:
    """No numbers."""
    return "text"


def test_a_unit_whose_numbers_fail_is_counted_once_it_is_known(
    small_lake: lake.Lake, atlas: Atlas, tmp_path: Path
) -> None:
    watcher = Recorder()
    with pytest.raises(RunError, match="1 of 1 units failed"):
        run_batch(small_lake, Batch.of([atlas], out=tmp_path, reduce=reduction(refused)), watcher=watcher)  # type: ignore[arg-type]
    assert [(one.done, one.failed) for one in watcher.told] == [(0, 0), (1, 0), (1, 1)]


def test_nothing_to_do_tells_nothing(small_lake: lake.Lake, atlas: Atlas, tmp_path: Path) -> None:
    batch, watcher = Batch.of([atlas], out=tmp_path), Recorder()
    run_batch(small_lake, batch)
    run_batch(small_lake, batch, watcher=watcher)
    assert watcher.told == []


def test_a_function_is_called_with_the_units_as_tables() -> None:
    calls: list[tuple[str, int, int | None]] = []
    caller = Caller(lambda *call: calls.append(call))
    for so_far in (Units(0, 2, 0, "a"), Units(1, 2, 0, "b"), Units(1, 2, 1, "b"), Units(2, 2, 1, "")):
        caller.units(so_far)
    caller.stage("genes", 1, None)
    assert calls == [("tables", 1, 2), ("tables", 2, 2), ("genes", 1, None)]


def test_a_run_looks_the_same_to_people(
    small_lake: lake.Lake, atlas: Atlas, tmp_path: Path, clock: Callable[[], float]
) -> None:
    console = recorded(terminal=True)
    with Reporter(console=console, clock=clock).showing() as report:
        run_batch(small_lake, Batch.of([atlas, octants("b", first=11)], out=tmp_path), watcher=report)
    lines = shown(console)
    assert [line.split()[0] for line in lines] == [
        "samples", "assignment", "probes", "genes", "values", "normalisation", "units",
    ]  # fmt: skip
    assert all(" 100% " in line for line in lines)
    assert lines[-1].endswith("2 of 2")
