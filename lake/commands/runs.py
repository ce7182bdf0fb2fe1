"""``ahba run``: from a store to tables."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from dask.utils import format_bytes

from lake.batch import Batch
from lake.batch_file import AtlasRequest, read_batch
from lake.cli import shared_options
from lake.commands.choices import choice_options, pipeline_from
from lake.commands.printing import print_table, print_text
from lake.errors import RequestError, RunError
from lake.export import check_suffix, export
from lake.forecast import Forecast
from lake.layout import SIMULATED_NOTE
from lake.progress import Reporter, duration
from lake.runs import UnitReport, dry_run_batch, load_any, provenance, run_batch, tables_for
from lake.store import Lake

MOST_ROWS = 60  # of a table of units; the rest is in run.json

# Fields of a batch that options set, whether or not there is a BATCH.toml.
RESOURCES = ("memory_limit", "workers", "scheduler", "tls_ca_file", "tls_cert", "tls_key")
# What goes with BATCH.toml, which says all else.
BESIDE_A_BATCH = ("batch", "dry", *RESOURCES, "allow_functions", "quiet", "debug")


def resource_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options on what a run may take, and where it takes place."""
    file = click.Path(exists=True, dir_okay=False)
    for option in (
        click.option("--tls-key", type=file, help="For a tls:// scheduler: the certificate's key."),
        click.option("--tls-cert", type=file, help="For a tls:// scheduler: this client's certificate."),
        click.option(
            "--tls-ca-file",
            "--tls-ca",
            "tls_ca_file",
            type=file,
            help="For a tls:// scheduler: the authority's certificate.",
        ),
        click.option(
            "--scheduler",
            metavar="ADDRESS",
            help="A dask.distributed scheduler whose workers do the work: tcp://host:8786.",
        ),
        click.option("--workers", type=int, metavar="N", help="Threads; by default all cores."),
        click.option(
            "--memory-limit",
            metavar="SIZE",
            help="What the process may take, e.g. 2GB; by default a good half of the memory.",
        ),
        click.option("--dry-run", "dry", is_flag=True, help="Only print the plan: stages, time, memory."),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("batch", type=click.Path(path_type=Path), metavar="[BATCH.toml]", required=False)
@click.option("--store", help="The store: a directory, or a URL such as s3://bucket/ahba.zarr.")
@click.option(
    "--atlas", "atlas_specs", multiple=True, metavar="A",
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
    "--hemispheres-from-x", is_flag=True,
    help="Regions whose hemisphere is not known have the one that they lie in; samples must fit it.",
)  # fmt: skip
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
@click.option(
    "--allow-functions", is_flag=True,
    help="Import the functions that BATCH.toml names, which runs their code.",
)  # fmt: skip
@resource_options
@choice_options
@shared_options
@click.pass_context
def run(
    ctx: click.Context,
    /,
    batch: Path | None,
    allow_functions: bool,
    quiet: bool,
    debug: bool,
    **options: Any,
) -> None:
    """Make region x gene tables: one a set of choices and atlas.

    Either BATCH.toml says which (docs/batches.md), or the options do. The choices carry abagen's names
    and defaults (underscores work too; None is a value). Tables that are already in --out are skipped.

    \b
    Examples:
      ahba run --store ahba.zarr --atlas abagen:dk --out tables
      ahba run --store ahba.zarr --atlas abagen:dk --atlas abagen:dk-surface --out tables
      ahba run --store ahba.zarr --atlas my.nii.gz --atlas-info my.csv \\
          --lr-mirror bidirectional --output-file expression.csv --save-counts
      ahba run multiverse.toml --dry-run
      ahba run multiverse.toml --memory-limit 4GB
    """
    reporter = Reporter(quiet=quiet)
    given = {name: options[name] for name in RESOURCES if options[name] is not None}
    if batch is not None:
        _refuse_beside_a_batch(ctx)
        asked = replace(read_batch(batch, functions=allow_functions), **given)
        for left_out in asked.left_out:
            reporter.say(f"Left out, {left_out.combinations:,} combinations: {left_out.reason}")
        opened = Lake(asked.store)
        _run(opened, asked, reporter, dry=options["dry"])
    else:
        opened = _run_options(options, given, reporter)
    if opened.simulated and not options["dry"]:
        print_text(SIMULATED_NOTE)


def _run_options(options: dict[str, Any], resources: dict[str, Any], reporter: Reporter) -> Lake:
    """What is asked for without a file; gives the store."""
    store, specs, out, file = (options[name] for name in ("store", "atlas_specs", "out", "output_file"))
    if store is None or not specs:
        raise RequestError("Name a BATCH.toml, or --store and --atlas; `ahba run --help` has examples.")
    if out is None and file is None:
        raise RequestError("Say where the tables go: --out DIRECTORY, --output-file FILE, or both.")
    if len(specs) > 1 and (options["atlas_info"] or file):
        raise RequestError("--atlas-info and --output-file go with one --atlas; run the atlases one by one.")
    if file is not None:
        check_suffix(file)
    opened, pipeline = Lake(store), pipeline_from(options)
    atlases = [_atlas(spec, options) for spec in specs]
    donors = options["save_donors"] and out is not None
    batch = Batch.of(atlases, [pipeline], out=out or file, donor_tables=donors, **resources)
    if out is not None or options["dry"]:
        _run(opened, batch, reporter, dry=options["dry"])
    if file is not None and not options["dry"]:
        _write_file(file, opened, batch, options, reporter)
    return opened


def _atlas(spec: str, options: dict[str, Any]) -> AtlasRequest:
    return AtlasRequest(
        spec,
        options["atlas_info"],
        use_info=not options["no_atlas_info"],
        hemispheres_from_x=options["hemispheres_from_x"],
    )


def _write_file(path: Path, store: Lake, batch: Batch, options: dict[str, Any], reporter: Reporter) -> None:
    """The tables of a batch of one unit as files for other tools."""
    atlas, pipeline = load_any(batch.atlases[0]), batch.pipelines[0]
    resources: Any = {name: getattr(batch, name) for name in RESOURCES}
    with reporter.showing() as report:
        tables = tables_for(store, atlas, pipeline, watcher=report, **resources)
    counts, donors = options["save_counts"], options["save_donors"]
    origin = provenance(store, atlas, pipeline)
    for written in export(path, tables, origin, counts=counts, donors=donors):
        print_text(f"Written: {written}")


def _refuse_beside_a_batch(ctx: click.Context) -> None:
    others = [
        parameter.opts[0]
        for parameter in ctx.command.params
        if parameter.name not in BESIDE_A_BATCH
        and ctx.get_parameter_source(str(parameter.name)) is ParameterSource.COMMANDLINE
    ]
    if others:
        raise RequestError(
            f"BATCH.toml says what is made: put {', '.join(others)} into it, or leave the file out."
        )


def _run(store: Lake, batch: Batch, reporter: Reporter, *, dry: bool) -> None:
    if dry:
        _print_forecast(dry_run_batch(store, batch))
        return
    try:
        with reporter.showing() as report:
            reports = run_batch(store, batch, watcher=report)
    except RunError as error:
        if error.reports:
            _print_reports(error.reports)
        raise
    _print_reports(reports)
    _print_next(batch, reports)


def _print_next(batch: Batch, reports: Sequence[UnitReport]) -> None:
    out = str(batch.out)
    if batch.keep_tables:
        print_text(f"Next, in Python: lake.read_expression({out!r}, atlas={reports[0].unit.atlas!r})")
    if batch.reduce:
        print_text(f"Next, in Python: lake.read_reductions({out!r})")


def _print_forecast(found: Forecast) -> None:
    print_text(
        f"{found.n_pipelines:,} pipelines x {found.n_atlases:,} atlases: {found.n_units:,} units, "
        f"{found.n_done:,} of them done."
    )
    if found.n_done == found.n_units:
        print_text("There is nothing left to do.")
        return
    headings = ["stage", "to make", "used by", "core seconds"]
    rows = [(stage.kind, stage.n_stages, stage.n_uses, f"{stage.seconds:,.0f}") for stage in found.stages]
    print_table(headings, rows, numbers=headings[1:])
    print_text(
        f"To read: {format_bytes(found.bytes_to_read)} before compression. About {duration(found.seconds)} "
        f"with {found.resources.workers} workers, and {format_bytes(found.memory)} of memory"
        + (f"; {format_bytes(found.bytes_to_scratch)} go to scratch." if found.bytes_to_scratch else ".")
    )


def _print_reports(reports: Sequence[UnitReport]) -> None:
    shown = reports[:MOST_ROWS]
    headings = ["atlas", "regions", "with samples", "genes", "samples", "status"]
    rows = [(r.unit.atlas, r.n_regions, r.n_filled, r.n_genes, r.n_samples, r.status) for r in shown]
    print_table(headings, rows, numbers=headings[1:5])
    for report in shown:
        if report.status != "failed" and report.unit.path("expression").exists():
            print_text(str(report.unit.path("expression")))
    if len(reports) > len(shown):
        print_text(f".. and {len(reports) - len(shown):,} more units, see run.json.")
