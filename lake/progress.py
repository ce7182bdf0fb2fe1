"""Progress of long work: bars on a terminal, plain lines otherwise, nothing if asked to be quiet."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    Progress,
    Task,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from lake.watching import Units

SECONDS_BETWEEN_LINES = 5.0
SECONDS_OF_PACE = 1200.0  # what the estimate of the time left looks back on: a unit may take a minute
UNITS = "units"


class _Bars(Progress):
    """A bar a stage, then that of the units, and the unit at work."""

    making = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        """Give the parts of the view, from above."""
        yield self.make_tasks_table(sorted(self.tasks, key=lambda task: task.description == UNITS))
        if self.making:
            yield Text(f"at work: {self.making}", no_wrap=True, overflow="ellipsis")


class Reporter:
    """Told (label, done, total), or how far a run is, shows it.

    Parameters
    ----------
    quiet : bool
        Show nothing.
    console : rich.console.Console, optional
        The error stream if left out.
    clock : callable
        Seconds.
    """

    def __init__(
        self,
        *,
        quiet: bool = False,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console or Console(stderr=True, quiet=quiet, highlight=False)
        self._clock = clock
        self._bars = self._fresh(shown=False)
        self._tasks: dict[str, TaskID] = {}
        self._last_line: dict[str, float] = {}

    def _fresh(self, *, shown: bool) -> _Bars:
        return _Bars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._console,
            get_time=self._clock,
            speed_estimate_period=SECONDS_OF_PACE,
            disable=not shown,
        )

    @contextmanager
    def showing(self) -> Iterator["Reporter"]:
        """While the work goes on: bars live from here to the end of the block."""
        shown = self._console.is_terminal and not self._console.quiet
        self._bars, self._tasks = self._fresh(shown=shown), {}
        try:
            with self._bars if shown else nullcontext():
                yield self
        finally:
            self._bars, self._tasks = self._fresh(shown=False), {}

    def __call__(self, label: str, done: int, total: int | None) -> None:
        """Show that `done` of `total` of `label` is done."""
        self._task(label, done, total)
        if self._bars.disable:
            finished = total is not None and done >= total
            self._line(label, f"{100 * done // total} %" if total else f"{done}", finished=finished)

    stage = __call__

    def units(self, so_far: Units) -> None:
        """Show how many units are made, how many failed, the time left, and the unit at work."""
        failed = f", {so_far.failed:,} failed" if so_far.failed else ""
        counted = f"{so_far.done:,} of {so_far.total:,}{failed}"
        task = self._task(UNITS, so_far.done, so_far.total, note=counted)
        self._bars.making = so_far.making
        if self._bars.disable:
            left = "" if task.time_remaining is None else f", about {duration(task.time_remaining)} left"
            at_work = f"{left}; at work: {so_far.making}" if so_far.making else ""
            self._line(UNITS, f"{counted}{at_work}", finished=not so_far.making)

    def say(self, text: str) -> None:
        """Print a line for people, on the error stream."""
        self._console.print(text, soft_wrap=True, markup=False)

    def _task(self, label: str, done: int, total: int | None, note: str = "") -> Task:
        if label not in self._tasks:
            self._tasks[label] = self._bars.add_task(label, total=total, note=note)
        number = self._tasks[label]
        self._bars.update(number, completed=done, total=total, note=note)
        return next(task for task in self._bars.tasks if task.id == number)

    def _line(self, label: str, text: str, *, finished: bool) -> None:
        now = self._clock()
        if not finished and now - self._last_line.setdefault(label, now) < SECONDS_BETWEEN_LINES:
            return
        self._last_line[label] = now
        self.say(f"{label}: {text}")


def duration(seconds: float) -> str:
    """Seconds for people, e.g. ``12 minutes``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:,.0f} minutes" if seconds < 5400 else f"{seconds / 3600:,.1f} hours"
