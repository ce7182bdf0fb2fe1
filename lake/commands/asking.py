"""What the commands that ask the lake are asked with: their shared options, and places as words.

Heavy modules are loaded by the commands that need them: ``ahba gene SST`` answers in less time than pandas
and Dask take to load.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lake.atlas_spec import exists
from lake.cli import STORE, shared_options
from lake.errors import RequestError
from lake.queries import for_donors
from lake.selection import Selection, everything
from lake.store import Lake

if TYPE_CHECKING:
    from transforms.pipeline import Pipeline

Command = Callable[..., Any]
FORMATS = ("table", "csv", "tsv", "json", "parquet", "feather")

# ---- options ----


def _options(*options: Command) -> Callable[[Command], Command]:
    def add(command: Command) -> Command:
        """Add them so that ``--help`` lists them in their order."""
        for option in reversed(options):
            command = option(command)
        return command

    return add


def top(rows: int) -> Callable[[Command], Command]:
    """The option ``--top``, with a default."""
    return click.option(
        "--top", default=rows, show_default=True, type=click.IntRange(1),
        help="Rows to print; --output and --format give all.",
    )  # fmt: skip


DONORS = click.option(
    "--donors", default="all", show_default=True,
    help="Donor numbers or uids, comma between: 9861,H0351.2002.",
)  # fmt: skip
GENES = click.option(
    "-g", "--gene", "genes", multiple=True, metavar="GENE",
    help="Symbol, Entrez id or probe id. Repeatable.",
)  # fmt: skip
ALL_PROBES = click.option(
    "--all-probes", is_flag=True, help="Expression of all probes, with --output or --format."
)
PUBLISHED = click.option(
    "--no-reannotated", "reannotated", flag_value=False, default=True, type=bool,
    help="Take gene symbols as published, not as re-annotated.",
)  # fmt: skip
ANSWER = _options(
    click.option(
        "--format", "form", metavar="F", type=click.Choice(FORMATS),
        help=f"What to print, or to write: {', '.join(FORMATS)}.  [default: table, or what --output says]",
    ),
    click.option(
        "-o", "--output", "--out", "output", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False),
        help="Write all of it: .csv, .tsv, .parquet, .feather or .json.",
    ),
)  # fmt: skip
SELECTED = _options(
    click.option(
        "--selected", is_flag=True,
        help="One value a gene, by `ahba run`'s choice of probes; so do the three options below.",
    ),
    click.option("--probe-selection", metavar="METHOD", help="How probes are chosen, as for `ahba run`."),
    click.option("--donor-probes", metavar="WHO", help="Which donors choose them, as for `ahba run`."),
    click.option(
        "--ibf-threshold", type=float, help="Keep probes detected in this proportion of samples (`ahba run`)."
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """What the shared options of a question say; those that a command lacks have their defaults."""

    store: str
    top: int
    form: str | None
    output: Path | None
    quiet: bool
    debug: bool
    donors: str = "all"
    genes: tuple[str, ...] = ()
    all_probes: bool = False
    reannotated: bool = True
    selected: bool = False
    probe_selection: str | None = None
    donor_probes: str | None = None
    ibf_threshold: float | None = None

    @cached_property
    def lake(self) -> Lake:
        """The store, opened."""
        return Lake(self.store)

    @property
    def chosen_donors(self) -> str | list[str]:
        """``all``, or the donors between the commas."""
        return all_or_listed(self.donors)

    def of_genes(self, selection: Selection, genes: Sequence[str]) -> Selection:
        """The selection's genes, by the symbols that are in use."""
        return selection.genes(list(genes), reannotated=self.reannotated)

    def pipeline(self) -> "Pipeline | None":
        """The pipeline that chooses the probes, None to keep them all."""
        names = ("probe_selection", "donor_probes", "ibf_threshold")
        choices = {name: value for name in names if (value := getattr(self, name)) is not None}
        if not self.selected and not choices:
            return None
        from transforms.pipeline import Pipeline

        return Pipeline.from_choices({**choices, "reannotated": self.reannotated})

    def place(self, text: str | None) -> Selection:
        """Samples of a place written as a structure, or KIND:VALUE with a kind of `PLACES`; None: of all.

        Raises
        ------
        RequestError
            If it says no place, or one without samples.
        """
        found = everything(self.lake) if text is None else _place(self.lake, text)
        return for_donors(found, self.chosen_donors)


def asks(*options: Command, top_rows: int = 10) -> Callable[[Command], Command]:
    """Give a command these options and those of every question.

    The values of options that are fields of `Asked` come as one, which is the command's first argument; the
    others come by their names.

    Parameters
    ----------
    *options : click options
    top_rows : int
        Default of ``--top``.
    """
    shared = {field.name for field in fields(Asked)}

    def add(command: Command) -> Command:
        """Add the options, and what gathers their values."""

        @functools.wraps(command)
        def asking(**given: Any) -> Any:
            """Call the command with what was asked as one."""
            asked = Asked(**{name: given.pop(name) for name in shared & set(given)})
            return command(asked, **given)

        return _options(*options, top(top_rows), ANSWER, shared_options)(asking)

    return add


asks_store = functools.partial(asks, STORE)


def listed(text: str) -> list[str]:
    """The parts between commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def all_or_listed(text: str) -> str | list[str]:
    """``all``, or the parts between commas."""
    return text if text == "all" else listed(text)


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
    named = mark and not exists(text)  # a file's own name may have the mark
    return store.in_atlas(atlas, listed(regions)) if named else store.in_atlas(text)


PLACES: dict[str, tuple[Callable[[Lake, str], Selection], str]] = {
    "structure": (lambda store, text: store.structure(text), "structure:NAME"),
    "near": (_sphere, "near:X,Y,Z,RADIUS"),
    "atlas": (_region, "atlas:ATLAS#REGION,REGION"),
    "mask": (lambda store, text: store.in_mask(text), "mask:FILE"),
}
"""Kind of place -> what finds its samples, and how it is written."""


def _place(store: Lake, text: str) -> Selection:
    kind, mark, value = text.partition(":")
    if not mark:
        return store.structure(text)
    if kind not in PLACES or not value.strip(" #"):
        forms = ", ".join(form for _, form in PLACES.values())
        raise RequestError(f"{text!r} is no place: write a structure, or {forms}.")
    find, _ = PLACES[kind]
    return find(store, value)
