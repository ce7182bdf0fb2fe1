"""``ahba atlases``: the atlases known by name, where they come from and under which licence."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lake.catalogue_entries import NOT_STATED, Entry, entries
from lake.cli import shared_options
from lake.commands.printing import print_table, print_text
from lake.errors import RequestError

if TYPE_CHECKING:
    import pandas as pd

FORMATS = ("table", "csv", "tsv", "json")
COLUMNS = ("name", "space", "kind", "regions", "licence", "citation", "source", "package_licence", "install")


@click.command()
@click.argument("part", metavar="[NAME-PART]", default="")
@click.option(
    "--all", "everything", is_flag=True, help="Also atlases whose package is not installed, or fetched."
)
@click.option(
    "--format", "form", type=click.Choice(FORMATS), default="table", show_default=True,
    help="csv, tsv and json have every column: citation, source, ..",
)  # fmt: skip
@click.option(
    "-o", "--output", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False),
    help="Write every column: .csv, .tsv, .parquet, .feather or .json.",
)  # fmt: skip
@shared_options
def atlases(part: str, everything: bool, form: str, output: Path | None, quiet: bool, debug: bool) -> None:
    """List the atlases known by name; those whose name holds NAME-PART, with whom to cite.

    Here: yes, its package is installed; no; net, nilearn downloads it; mesh, name the donors' surfaces.
    The licence is the atlas's own as its package states it. Any other atlas is named by its file:
    `ahba run --atlas my.nii.gz`.

    \b
    Examples:
      ahba atlases
      ahba atlases schaefer
      ahba atlases --all -o atlases.csv
    """
    found = [entry for entry in entries().values() if part.casefold() in entry.name]
    if not found:
        raise RequestError(f"No atlas has {part!r} in its name; `ahba atlases --all` lists them.")
    shown = [entry for entry in found if everything or part or (entry.installed and not entry.fetcher)]
    if output is None and form == "table":
        _show(shown, found, whole=everything, named=bool(part))
        return
    from lake.answers import print_answer, write_answer

    if output is None:
        print_answer(_table(shown), form)
        return
    write_answer(_table(shown), output)
    print_text(f"Written: {output} ({len(shown):,} rows)")


def _table(shown: Sequence[Entry]) -> "pd.DataFrame":
    import pandas as pd

    rows = [[getattr(entry, name) for name in COLUMNS] for entry in shown]
    return pd.DataFrame(rows, columns=[*COLUMNS]).assign(here=[_state(entry) for entry in shown])


def _show(shown: Sequence[Entry], found: Sequence[Entry], *, whole: bool, named: bool) -> None:
    headings = ["name", "space", "regions", "licence", "here"]
    rows = [(e.name, e.space, e.regions or "", e.licence, _state(e)) for e in shown]
    print_table(headings, rows, numbers=["regions"])
    for install, prefix in dict.fromkeys((e.install, e.prefix) for e in found if not e.installed):
        print_text(f"More {prefix}: {install}")
    print_text(f"{len(shown)} of {len(entries())} atlases." + ("" if whole else " All: --all"))
    if named:
        for citation in dict.fromkeys(entry.citation for entry in shown):
            print_text(f"Cite: {citation}")
        for line in dict.fromkeys(_origin(entry) for entry in shown):
            print_text(line)


def _origin(entry: Entry) -> str:
    stated = f"{NOT_STATED} by the package" if entry.licence == NOT_STATED else entry.licence
    return (
        f"{entry.prefix}: {entry.source} (package: {entry.package_licence}); licence of the atlas: {stated}"
    )


def _state(entry: Entry) -> str:
    if not entry.installed:
        return "no"
    return "net" if entry.fetcher else "mesh" if entry.needs_surfaces else "yes"
