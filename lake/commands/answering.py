"""What the commands that ask the lake share: their options, places as words, and the forms of an answer.

Heavy modules are loaded by the commands that need them: ``ahba gene SST`` answers in less time than pandas
and Dask take to load.
"""

import sys
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lake.commands.printing import WIDTH, print_table, print_text
from lake.errors import RequestError
from lake.layout import SIMULATED_NOTE
from lake.queries import for_donors
from lake.selection import Selection
from lake.store import Lake

if TYPE_CHECKING:
    import pandas as pd

    from transforms.pipeline import Pipeline

Command = Callable[..., Any]

LEAST_PLAIN = 0.001  # smaller numbers are written with an exponent
WIDEST, PADDING = 24, 3  # of a column, in characters
HEADINGS = {"difference": "diff.", "fold_change": "fold", "n_higher": "higher in", "p_value": "p"}
MOST_COLUMNS = 1000  # of a written table; with more probes than that, probes go down the rows

# ---- options ----


def _options(*options: Command) -> Callable[[Command], Command]:
    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


DONORS = click.option(
    "--donors", default="all", show_default=True, help="Donor numbers or uids, comma between."
)
GENES = click.option(
    "-g", "--gene", "genes", multiple=True, metavar="GENE",
    help="Symbol, Entrez id or probe id. Repeatable.",
)  # fmt: skip
PUBLISHED = click.option(
    "--no-reannotated", "reannotated", flag_value=False, default=True, type=bool,
    help="Gene symbols as published, not re-annotated.",
)  # fmt: skip
CORRECTED = click.option(
    "--no-corrected-mni", "corrected", flag_value=False, default=True, type=bool,
    help="Samples at their published MNI coordinates.",
)  # fmt: skip
TOP = click.option(
    "--top", default=10, show_default=True, type=click.IntRange(1), help="Rows to print; files get all."
)
ANSWER = _options(
    click.option(
        "--format", "form", default="table", show_default=True,
        type=click.Choice(["table", "csv", "tsv", "json"]), help="What to print.",
    ),
    click.option(
        "-o", "--output", metavar="F", type=click.Path(path_type=Path, dir_okay=False),
        help="Write all of it: .csv, .tsv, .parquet, .feather or .json.",
    ),
)  # fmt: skip
SELECTED = _options(
    click.option("--selected", is_flag=True, help="One value a gene, by a pipeline's choice of probes."),
    click.option("--probe-selection", metavar="METHOD", help="The choice, as for `ahba run`."),
    click.option("--donor-probes", metavar="WHO", help="Who chooses, as for `ahba run`."),
    click.option("--ibf-threshold", type=float, help="Intensity filter, as for `ahba run`."),
)


def pipeline_of(selected: bool, choices: dict[str, Any]) -> "Pipeline | None":
    """The pipeline that chooses the probes, None to keep them all."""
    given = {name: value for name, value in choices.items() if value is not None}
    if not selected and not given:
        return None
    from transforms.pipeline import Pipeline

    return Pipeline.from_choices(given)


def listed(text: str) -> str | list[str]:
    """``all``, or the parts between commas."""
    return text if text == "all" else [part.strip() for part in text.split(",") if part.strip()]


# ---- places as words ----


def numbers_of(text: str, count: int, form: str) -> list[float]:
    """Numbers between commas, so many; `form` is how they should have been written.

    Raises
    ------
    RequestError
    """
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != count:
        raise RequestError(f"{text!r} is no place: write {form}, in mm.")
    return values


def _sphere(store: Lake, text: str) -> Selection:
    *point, radius = numbers_of(text, 4, "near:X,Y,Z,RADIUS")
    return store.near(point, radius=radius)


def _region(store: Lake, text: str) -> Selection:
    atlas, mark, regions = text.rpartition("#")
    return store.in_atlas(atlas, regions.split(",")) if mark else store.in_atlas(text)


PLACES: dict[str, Callable[[Lake, str], Selection]] = {
    "structure": lambda store, text: store.structure(text),
    "near": _sphere,
    "atlas": _region,
    "mask": lambda store, text: store.in_mask(text),
}


def place_of(store: Lake, text: str, donors: str) -> Selection:
    """Samples of a place written as a structure, or KIND:VALUE with a kind of `PLACES`."""
    kind, mark, value = text.partition(":")
    known = mark and kind in PLACES
    found = PLACES[kind](store, value) if known else store.structure(text)
    return for_donors(found, listed(donors))


# ---- answers ----


def deliver(
    answer: "Callable[[], pd.DataFrame]", show: Callable[[], None], form: str, output: Path | None
) -> None:
    """Write the answer to a file, or print it; `show` prints what people want to see of it."""
    if output is None and form == "table":
        show()
        return
    from lake.answers import PRINTERS, check_answer_path, write_answer

    if output is None:
        PRINTERS[form](answer(), sys.stdout)
        return
    check_answer_path(output)
    table = answer()
    write_answer(table, output)
    print_text(f"Written: {output} ({len(table):,} rows, {table.shape[1]:,} columns)")


def deliver_table(
    answer: "Callable[[], pd.DataFrame]",
    show: "Callable[[pd.DataFrame], None]",
    form: str,
    output: Path | None,
) -> None:
    """The same of a table that is made as a whole, after the file's name is found to be good."""
    deliver(answer, lambda: show(answer()), form, output)


def say(notes: Sequence[str]) -> None:
    """Say what a person should know of the answer, beside it."""
    for note in notes:
        click.echo(f"Note: {note}", err=True)


def say_origin(store: Lake) -> None:
    """Say that the data is simulated, where it is."""
    if store.simulated:
        print_text(SIMULATED_NOTE)


def wide(selection: Selection) -> "pd.DataFrame":
    """Expression as a table that has not too many columns."""
    return selection.to_dataframe("sample" if selection.shape[0] <= MOST_COLUMNS else "probe")


def short(text: str, width: int) -> str:
    """A text cut to a width."""
    return text if len(text) <= width else f"{text[: width - 2]}.."


def cell(value: Any) -> str:
    """A value as a table shows it: four digits, and ids without commas."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.4g}" if abs(value) >= LEAST_PLAIN or value == 0 else f"{value:.1e}"


def show_ranking(table: "pd.DataFrame", numbers: Sequence[str], top: int) -> None:
    """Print the first rows: the gene, the probe, and these columns as far as they are there."""
    shown = [name for name in numbers if name in table]
    symbol = table["gene_symbol"]
    if "reannotated_gene_symbol" in table:
        symbol = table["reannotated_gene_symbol"].where(table["reannotated_gene_symbol"] != "", symbol)
    head = table.assign(gene=symbol, probe=table["probe_id"]).head(top)
    rows = [
        [cell(value) for value in row]
        for row in head[["gene", "probe", *shown]].itertuples(index=False, name=None)
    ]
    headings = ["gene", "probe", *(HEADINGS.get(name, name) for name in shown)]
    print_table(headings, rows, numbers=headings[1:])
    say_rest(len(table), top)


def show_columns(table: "pd.DataFrame", top: int) -> None:
    """Print the first rows of a table, of as many columns as a narrow terminal takes."""
    head = table.head(top)
    texts = {str(name): [short(cell(v), WIDEST) for v in column] for name, column in head.items()}
    widths = [max(map(len, (name, *cells))) + PADDING for name, cells in texts.items()]
    n_shown = max(1, sum(total <= WIDTH for total in accumulate(widths)))
    shown = list(texts)[:n_shown]
    print_table(shown, zip(*(texts[name] for name in shown), strict=True), numbers=_numeric(table))
    if hidden := list(texts)[n_shown:]:
        print_text(f"Not shown: {', '.join(hidden)}; --format csv and --output have them.")
    say_rest(len(table), top)


def say_rest(n_rows: int, top: int, what: str = "rows") -> None:
    """Say how many rows were not printed."""
    if n_rows > top:
        print_text(f"The first {top:,} of {n_rows:,} {what}; --top shows more, --output writes all.")


def _numeric(table: "pd.DataFrame") -> list[str]:
    return [str(name) for name in table.select_dtypes("number").columns]


def sideless(name: str) -> str:
    """A structure's name without its hemisphere."""
    return name.replace(", left", "").replace(", right", "")
