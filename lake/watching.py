"""Who follows a run, and what is told of it: stages, units, and lines for people."""

from collections.abc import Callable
from typing import NamedTuple, Protocol


class Units(NamedTuple):
    """How far a run is.

    Attributes
    ----------
    done, total, failed : int
        Units that came out, of how many; those among them without tables.
    making : str
        The one at work, "" at the end.
    """

    done: int
    total: int
    failed: int
    making: str


class Watcher(Protocol):
    """Who follows a run."""

    def stage(self, label: str, done: int, total: int | None) -> None:
        """So many stages of a kind are made, of how many; None while that is not known."""

    def units(self, so_far: Units) -> None:
        """So many units are."""

    def say(self, text: str) -> None:
        """A line for people."""


class Caller:
    """A watcher that calls a function with (label, done, total); units are told as ``tables``.

    Parameters
    ----------
    progress : callable or None
        None is told nothing.
    """

    def __init__(self, progress: Callable[[str, int, int | None], None] | None = None) -> None:
        self._progress, self._units_done = progress, 0

    def stage(self, label: str, done: int, total: int | None) -> None:
        """Pass it on."""
        if self._progress:
            self._progress(label, done, total)

    def units(self, so_far: Units) -> None:
        """Pass the number on when it grows."""
        if so_far.done > self._units_done:
            self._units_done = so_far.done
            self.stage("tables", so_far.done, so_far.total)

    def say(self, text: str) -> None:
        """Say nothing."""
