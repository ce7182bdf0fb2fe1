"""``ahba info`` and ``ahba verify``: what a store holds, and whether it is whole."""

import json

import click

from lake.cli import EXIT_FAILED, STORE, shared_options
from lake.commands.printing import file_size, print_table, print_text
from lake.layout import SIMULATED_NOTE
from lake.progress import Reporter
from lake.selection import counted
from lake.store import Lake
from lake.summary import summarize
from lake.verification import verify as verify_store


@click.command()
@STORE
@click.option(
    "--format", "output", type=click.Choice(["table", "json"]), default="table", show_default=True,
    help="For people, or for programs, which get more.",
)  # fmt: skip
@shared_options
def info(store: str, output: str, quiet: bool, debug: bool) -> None:
    """Say what a store holds: donors, samples, probes, genes, snapshot, sizes, origin.

    \b
    Examples:
      ahba info --store ahba.zarr
      ahba info --store ahba.zarr --format json
    """
    summary = summarize(Lake(store))
    if output == "json":
        click.echo(json.dumps(summary, indent=2))
        return
    print_text(
        f"{store}: {SIMULATED_NOTE if summary['simulated'] else 'Allen Human Brain Atlas, as published.'}"
    )
    genes = summary["genes"]
    print_text(
        f"{summary['n_probes']:,} probes; {genes['published']:,} genes as published, "
        f"{genes['reannotated']:,} after re-annotation."
    )
    headings = ["donor", "uid", "samples", "cortex", "uncorrected", "RNA-seq", "in the store"]
    rows = [
        (
            d["donor"],
            d["uid"],
            d["n_samples"],
            d["n_cortex"],
            d["n_uncorrected"],
            d["rnaseq"]["n_samples"] if d["rnaseq"] else "",
            file_size(d["stored_bytes"] + (d["rnaseq"]["stored_bytes"] if d["rnaseq"] else 0)),
        )
        for d in summary["donors"]
    ]
    print_table(headings, rows, numbers=headings[2:])
    print_text(f"Snapshot {summary['snapshot']}, store format {summary['format_version']}.")
    print_text(f"Licence: {summary['licence']}\nCite: {summary['citation']}")


@click.command()
@click.option("--store", required=True, metavar="DIRECTORY", help="The store, on a disk of this machine.")
@shared_options
def verify(store: str, quiet: bool, debug: bool) -> None:
    """Read every chunk of a store, check checksums and invariants, name what is damaged.

    Exit code 0: whole. 1: damaged.

    \b
    Example:
      ahba verify --store ahba.zarr
    """
    with Reporter(quiet=quiet).showing() as report:
        damages = verify_store(Lake(store), progress=report)
    if not damages:
        print_text(f"{store} is whole.")
        return
    print_table(["damaged", "what is wrong"], [(damage.where, damage.what) for damage in damages])
    print_text(f"{counted(len(damages), 'damage')}. Ingest the donors concerned again into a new store.")
    raise click.exceptions.Exit(EXIT_FAILED)
