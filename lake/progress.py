"""Progress of long work: a bar on a terminal, plain lines otherwise, nothing if asked to be quiet."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 5.0


class Reporter:
    """Told (label, done, total), shows it.

    Parameters
    ----------
    quiet : bool
        Show nothing.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = Console(stderr=True, quiet=quiet, highlight=False)
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._last_line: dict[str, float] = {}

    @contextmanager
    def showing(self) -> Iterator["Reporter"]:
        """While the work goes on: bars live from here to the end of the block."""
        if self._console.is_terminal and not self._console.quiet:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TimeRemainingColumn(),
            )
            with Progress(*columns, console=self._console) as self._bars:
                yield self
            self._bars = None
        else:
            yield self

    def __call__(self, label: str, done: int, total: int | None) -> None:
        """Show that `done` of `total` of `label` is done."""
        if self._bars is not None:
            if label not in self._tasks:
                self._tasks[label] = self._bars.add_task(label, total=total)
            self._bars.update(self._tasks[label], completed=done, total=total)
        else:
            self._line(label, done, total)

    def say(self, text: str) -> None:
        """Print a line for people, on the error stream."""
        self._console.print(text, soft_wrap=True, markup=False)

    def _line(self, label: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        finished = total is not None and done >= total
        if not finished and now - self._last_line.setdefault(label, now) < SECONDS_BETWEEN_LINES:
            return
        self._last_line[label] = now
        share = f"{100 * done // total} %" if total else f"{done}"
        self.say(f"{label}: {share}")


def out(text: str) -> None:
    """Print a result, on the output stream."""
    sys.stdout.write(text + "\n")
