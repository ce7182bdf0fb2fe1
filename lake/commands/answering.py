"""The forms of an answer: a file, something for a pipe, or a table that reads well on a narrow terminal."""

import math
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from numpy.typing import NDArray

from lake.commands.asking import Asked
from lake.commands.printing import WIDTH, print_table, print_text
from lake.layout import SIMULATED_NOTE
from lake.selection import Selection, counted
from lake.store import Lake

if TYPE_CHECKING:
    import pandas as pd

LEAST_PLAIN, MOST_SHORT = 0.001, 10_000  # between these, four digits say enough of a number
MOST_EXACT = 1e15  # whole numbers below this are themselves as floats
WIDEST, PADDING = 24, 3  # of a column, in characters
HEADINGS = {"difference": "diff.", "fold_change": "fold", "n_higher": "higher in", "p_value": "p"}
MOST_COLUMNS = 1000  # of a written table; with more probes than that, probes go down the rows
Texts = NDArray[Any]


def deliver(asked: Asked, answer: "Callable[[], pd.DataFrame]", show: Callable[[], None]) -> None:
    """Write the answer to a file, or print it; `show` prints what people want to see of it."""
    if asked.output is None and asked.form in (None, "table"):
        show()
        return
    from lake.answers import format_of, print_answer, write_answer

    form = None if asked.form == "table" else asked.form
    if asked.output is None:
        print_answer(answer(), str(form))
        return
    format_of(asked.output, form)  # before the work
    table = answer()
    write_answer(table, asked.output, form)
    rows, columns = counted(len(table), "row"), counted(table.shape[1], "column")
    print_text(f"Written: {asked.output} ({rows}, {columns})")


def deliver_table(
    asked: Asked, answer: "Callable[[], pd.DataFrame]", show: "Callable[[pd.DataFrame], None]"
) -> None:
    """The same of a table that is made as a whole, after the file's name is found to be good."""

    def noted() -> "pd.DataFrame":
        """The answer, once what a person should know of it is said."""
        table = answer()
        say([table.attrs["notes"]] if "notes" in table.attrs else [])
        return table

    deliver(asked, noted, lambda: show(noted()))


def say(notes: Sequence[str]) -> None:
    """Say what a person should know of the answer, beside it."""
    for note in notes:
        click.echo(f"Note: {note}", err=True)


def say_origin(store: Lake) -> None:
    """Say that the data is simulated, where it is."""
    if store.simulated:
        print_text(SIMULATED_NOTE)


def say_rest(n_rows: int, top: int, what: str = "rows") -> None:
    """Say how many rows were not printed."""
    if n_rows > top:
        print_text(f"The first {top:,} of {n_rows:,} {what}; --top shows more, --output writes all.")


def wide(selection: Selection) -> "pd.DataFrame":
    """Expression as a table that has not too many columns."""
    return selection.to_dataframe("sample" if selection.shape[0] <= MOST_COLUMNS else "probe")


# ---- cells ----


def short(text: str, width: int) -> str:
    """A text cut to a width."""
    return text if len(text) <= width else f"{text[: width - 2]}.."


def cell(value: Any) -> str:
    """A value as a table shows it: four digits, ids without commas, nothing for what SQL has no value for."""
    if value is None:
        return ""
    if not isinstance(value, float):
        return str(value)
    if math.isfinite(value) and abs(value) >= MOST_SHORT:
        return f"{value:.0f}" if abs(value) < MOST_EXACT else f"{value:.3e}"
    return f"{value:.4g}" if abs(value) >= LEAST_PLAIN or value == 0 else f"{value:.1e}"


def _cells(column: "pd.Series") -> list[str]:
    """A column's cells; NaN is a number, elsewhere it is pandas' way to say that there is no value."""
    empty = column.isna() & (column.dtype.kind != "f")
    return ["" if nothing else cell(value) for value, nothing in zip(column, empty, strict=True)]


def shown_symbols(published: Texts, new: Texts, *, reannotated: bool) -> Texts:
    """The symbols that are in use; a probe that the re-annotation gives no gene keeps the published one."""
    return np.where(new == "", published, new) if reannotated else published


# ---- tables ----


def show_ranking(asked: Asked, table: "pd.DataFrame", numbers: Sequence[str]) -> None:
    """Print the first rows: the gene, the probe, and these columns as far as they are there."""
    shown = [name for name in numbers if name in table]
    head = table.head(asked.top)
    symbols = head["gene_symbol"].to_numpy()
    if "reannotated_gene_symbol" in head:
        new = head["reannotated_gene_symbol"].to_numpy()
        symbols = shown_symbols(symbols, new, reannotated=asked.reannotated)
    head = head.assign(gene=symbols, probe=head["probe_id"])
    rows = [
        [cell(value) for value in row]
        for row in head[["gene", "probe", *shown]].itertuples(index=False, name=None)
    ]
    headings = ["gene", "probe", *(HEADINGS.get(name, name) for name in shown)]
    print_table(headings, rows, numbers=headings[1:])
    say_rest(len(table), asked.top)
    say_origin(asked.lake)


def show_columns(table: "pd.DataFrame", top: int) -> None:
    """Print the first rows of a table, of as many columns as a narrow terminal takes."""
    head = table.head(top)
    texts = {str(name): [short(text, WIDEST) for text in _cells(column)] for name, column in head.items()}
    headings = [short(name, WIDEST) for name in texts]
    widths = [
        max(map(len, (heading, *texts[name]))) + PADDING
        for heading, name in zip(headings, texts, strict=True)
    ]
    n_shown = max(1, sum(total <= WIDTH for total in accumulate(widths)))
    shown = list(texts)[:n_shown]
    rows = zip(*(texts[name] for name in shown), strict=True)
    print_table(headings[:n_shown], rows, numbers=[short(name, WIDEST) for name in _numeric(table)])
    if hidden := list(texts)[n_shown:]:
        print_text(f"Not shown: {', '.join(hidden)}; --format csv and --output have them.")
    say_rest(len(table), top)


def _numeric(table: "pd.DataFrame") -> list[str]:
    return [str(name) for name in table.select_dtypes("number").columns]
