"""Results as text that reads well on 80 columns."""

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

WIDTH = 80


def print_table(
    headings: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: Sequence[str] = ()
) -> None:
    """Print rows on the output stream.

    Parameters
    ----------
    headings : sequence of str
    rows : iterable of sequences
    numbers : sequence of str
        Headings of the columns to align right.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        table.add_column(escape(heading), justify="right" if heading in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(f"{cell:,}" if isinstance(cell, int) else escape(str(cell)) for cell in row))
    _console().print(table)


def print_text(text: str) -> None:
    """Print text as it is on the output stream."""
    _console().print(text, markup=False, highlight=False, soft_wrap=True)


def file_size(size: float) -> str:
    """Bytes for people, e.g. ``1.6 GB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit in ("B", "kB") else f"{size:.1f} {unit}"


def _console() -> Console:
    console = Console(highlight=False)
    return (
        console if console.width >= WIDTH and console.is_terminal else Console(highlight=False, width=WIDTH)
    )
