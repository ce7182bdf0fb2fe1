"""What can go wrong with a store, a request or a run."""

from collections.abc import Sequence
from typing import Any


class RequestError(ValueError):
    """What was asked for does not exist or makes no sense; the message says what does."""


class StoreError(RuntimeError):
    """A store is missing, damaged, or of a format this version does not read."""


class NoStoreError(StoreError):
    """There is no store at the place that was named."""


class DamageError(StoreError):
    """A part of a store is missing or does not read.

    Parameters
    ----------
    where : str
        The part.
    what : str
        What is wrong with it.
    """

    def __init__(self, where: str, what: str) -> None:
        super().__init__(f"{where}: {what}; see `ahba verify`.")
        self.where, self.what = where, what

    def __reduce__(self) -> tuple[type["DamageError"], tuple[str, str]]:
        return type(self), (self.where, self.what)  # as workers send it


class RunError(RuntimeError):
    """Some units of a run failed; those that did not are written.

    Parameters
    ----------
    message : str
        Which failed, and why.
    reports : sequence
        A `lake.runs.UnitReport` of every unit.
    """

    def __init__(self, message: str, reports: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.reports = reports
