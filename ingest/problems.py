"""Collecting what is wrong with one file, so that it is told at once and not one run at a time."""

from dataclasses import dataclass, field

from ingest.errors import InputError

MOST_REPORTED = 20
MOST_SHOWN = 40


def shown(text: str) -> str:
    """The beginning of a cell, in quotes, for a message."""
    return repr(text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..")


@dataclass
class Problems:
    """What was found wrong with one file.

    Parameters
    ----------
    location : str
        The file, as the user knows it.
    """

    location: str
    found: list[str] = field(default_factory=list)
    more: bool = False

    def add(self, message: str, *, line: int | None = None, column: int | str | None = None) -> None:
        """Note one problem; beyond `MOST_REPORTED` only the fact that there are more is kept."""
        if self.full:
            self.more = True
            return
        where = [f"line {line}"] if line is not None else []
        where += (
            [f"column {column}" if isinstance(column, int) else f"column {column!r}"]
            if column is not None
            else []
        )
        self.found.append(f"{', '.join(where)}: {message}" if where else message)

    @property
    def full(self) -> bool:
        """Whether enough was found to stop looking."""
        return len(self.found) >= MOST_REPORTED

    def raise_if_any(self) -> None:
        """Raise what was found.

        Raises
        ------
        InputError
            With one line a problem, if there is any.
        """
        if not self.found:
            return
        if len(self.found) == 1:
            raise InputError(f"{self.location}: {self.found[0]}")
        tail = ["  .. and more"] if self.more else []
        raise InputError(
            "\n".join(
                [f"{self.location}: {len(self.found)} problems", *(f"  {p}" for p in self.found), *tail]
            )
        )
