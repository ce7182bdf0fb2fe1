"""``ahba run`` and ``ahba atlases``: from a store to tables."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from lake.catalogue import Entry
from lake.catalogue import atlases as known_atlases
from lake.cli import STORE, shared_options
from lake.commands.choices import choice_options, pipeline_from
from lake.commands.printing import print_table, print_text
from lake.errors import RequestError, RunError
from lake.export import check_suffix, export
from lake.layout import SIMULATED_NOTE
from lake.progress import Reporter
from lake.runs import UnitReport, load_any, provenance, tables_for
from lake.runs import run as run_tables
from lake.store import Lake


@click.command()
@STORE
@click.option(
    "--atlas", "atlas_specs", required=True, multiple=True, metavar="A",
    help="A name of `ahba atlases`, a NIfTI file, or LEFT,RIGHT label files; NAME=A renames it. Repeatable.",
)  # fmt: skip
@click.option(
    "--atlas-info", type=click.Path(path_type=Path), metavar="CSV",
    help="Table with id, hemisphere, structure: samples must fit their region. For one atlas.",
)  # fmt: skip
@click.option(
    "--no-atlas-info", is_flag=True, help="Do not use what an atlas says of hemisphere and structure."
)
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), help="Directory for the Parquet tables."
)
@click.option(
    "--output-file", type=click.Path(path_type=Path, dir_okay=False), metavar="F",
    help="Also, or only, one regions x genes file: .csv, .tsv, .parquet or .feather. For one atlas.",
)  # fmt: skip
@click.option(
    "--save-counts", is_flag=True, help="With --output-file: samples a region and donor, F_counts.csv."
)
@click.option(
    "--save-donors", is_flag=True, help="Also each donor's own table (F_<donor>.csv; donor_expression)."
)
@choice_options
@shared_options
def run(
    store: str,
    atlas_specs: tuple[str, ...],
    atlas_info: Path | None,
    no_atlas_info: bool,
    out: Path | None,
    output_file: Path | None,
    save_counts: bool,
    save_donors: bool,
    quiet: bool,
    debug: bool,
    **choices: Any,
) -> None:
    """Make region x gene tables: one a set of choices and atlas.

    The choices carry abagen's names and defaults (underscores work too; None is a value).
    Tables that are already in --out are skipped.

    \b
    Examples:
      ahba run --store ahba.zarr --atlas abagen:dk --out tables
      ahba run --store ahba.zarr --atlas abagen:dk --atlas abagen:dk-surface --out tables
      ahba run --store ahba.zarr --atlas my.nii.gz --atlas-info my.csv \\
          --lr-mirror bidirectional --output-file expression.csv --save-counts
    """
    if out is None and output_file is None:
        raise RequestError("Say where the tables go: --out DIRECTORY, --output-file FILE, or both.")
    if len(atlas_specs) > 1 and (atlas_info or output_file):
        raise RequestError("--atlas-info and --output-file go with one --atlas; run the atlases one by one.")
    if output_file is not None:
        check_suffix(output_file)
    opened = Lake(store)
    pipeline = pipeline_from(choices)
    atlases = [load_any(spec, atlas_info, use_info=not no_atlas_info) for spec in atlas_specs]
    reporter = Reporter(quiet=quiet)
    with reporter.showing() as report:
        if out is not None:
            try:
                reports = run_tables(
                    opened, atlases, [pipeline], out=out, donor_tables=save_donors, progress=report
                )
            except RunError as error:
                _print_reports(error.reports)
                raise
            _print_reports(reports)
        if output_file is not None:
            tables = tables_for(opened, atlases[0], pipeline)
            origin = provenance(opened, atlases[0], pipeline)
            for path in export(output_file, tables, origin, counts=save_counts, donors=save_donors):
                print_text(f"Written: {path}")
    if opened.simulated:
        print_text(SIMULATED_NOTE)
    if out is not None:
        print_text(f"Next, in Python: lake.read_expression({str(out)!r}, atlas={atlases[0].name!r})")


def _print_reports(reports: Sequence[UnitReport]) -> None:
    headings = ["atlas", "regions", "with samples", "genes", "samples", "status"]
    rows = [(r.unit.atlas, r.n_regions, r.n_filled, r.n_genes, r.n_samples, r.status) for r in reports]
    print_table(headings, rows, numbers=headings[1:5])
    for report in reports:
        if report.status != "failed":
            print_text(str(report.unit.path("expression")))


@click.command()
@click.argument("part", metavar="[NAME-PART]", default="")
@click.option(
    "--all", "everything", is_flag=True, help="Also atlases whose package is not installed, or fetched."
)
@shared_options
def atlases(part: str, everything: bool, quiet: bool, debug: bool) -> None:
    """List the atlases known by name; those whose name holds NAME-PART, with whom to cite.

    Here: yes, its package is installed; no; net, nilearn downloads it. Any other atlas is named by
    its file: `ahba run --atlas my.nii.gz`.

    \b
    Examples:
      ahba atlases
      ahba atlases schaefer
    """
    found = [entry for entry in known_atlases() if part.casefold() in entry.name]
    if not found:
        raise RequestError(f"No atlas has {part!r} in its name; `ahba atlases --all` lists them.")
    shown = [entry for entry in found if everything or part or (entry.installed and not entry.fetcher)]
    headings = ["name", "space", "regions", "licence", "here"]
    rows = [(e.name, e.space, e.regions or "", e.licence, _state(e)) for e in shown]
    print_table(headings, rows, numbers=["regions"])
    for package in dict.fromkeys((e.install, e.prefix) for e in found if not e.installed):
        print_text(f"More {package[1]}: {package[0]}")
    print_text(f"{len(shown)} of {len(known_atlases())} atlases." + ("" if everything else " All: --all"))
    for citation in dict.fromkeys(entry.citation for entry in shown if part):
        print_text(f"Cite: {citation}")


def _state(entry: Entry) -> str:
    if not entry.installed:
        return "no"
    return "net" if entry.fetcher else "yes"
