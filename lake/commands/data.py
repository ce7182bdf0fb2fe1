"""``ahba fetch``, ``ahba simulate``, ``ahba ingest``: getting files, and getting them into a store."""

from pathlib import Path

import click

from ingest.fetch import ALLEN_SERVER
from ingest.fetch import fetch as fetch_files
from ingest.fetch import plan as plan_downloads
from ingest.simulate import simulate as simulate_files
from lake.cli import shared_options
from lake.commands.asking import DONORS, all_or_listed, listed
from lake.commands.printing import file_size, print_table, print_text
from lake.errors import RequestError
from lake.ingestion import KINDS, ingest_directory
from lake.layout import SIMULATED_NOTE
from lake.progress import Reporter
from lake.store import Lake

DIRECTORY = click.Path(path_type=Path, file_okay=False)


def _kinds(what: str) -> list[str]:
    """What ``--what`` names."""
    if not (kinds := listed(what)):
        raise RequestError("--what names nothing: leave it out, or name one of the kinds that --help lists.")
    return kinds


@click.command()
@click.argument("directory", metavar="DIR", type=DIRECTORY)
@DONORS
@click.option(
    "--what", default="microarray", show_default=True, help="Of microarray, rnaseq, mri; comma between."
)
@click.option("--base-url", default=ALLEN_SERVER, show_default=True, help="A mirror to download from.")
@click.option(
    "--no-size-check", is_flag=True, help="Take files of another size than the published one: a new version."
)
@click.option("--keep-archives", is_flag=True, help="Keep the zips after they are extracted.")
@click.option("--dry-run", is_flag=True, help="Only say what would be downloaded.")
@shared_options
def fetch(
    directory: Path,
    donors: str,
    what: str,
    base_url: str,
    no_size_check: bool,
    keep_archives: bool,
    dry_run: bool,
    quiet: bool,
    debug: bool,
) -> None:
    """Download the published files of the Allen Human Brain Atlas into DIR.

    A broken download is taken up where it broke; what is there and whole is skipped. The data
    may be used for research, with citation: see alleninstitute.org/legal/terms-use.

    \b
    Examples:
      ahba fetch ahba-data                         all six donors, 1.6 GB
      ahba fetch ahba-data --donors 9861 --dry-run
      ahba fetch ahba-data --what microarray,rnaseq
    """
    kinds = _kinds(what)
    check_sizes = False if no_size_check else None
    if dry_run:
        downloads = plan_downloads(
            directory, donors=all_or_listed(donors), what=kinds, base_url=base_url, check_sizes=check_sizes
        )
        rows = [
            (item.donor, item.what, file_size(item.size or item.approximate_size or 0), item.target, item.url)
            for item in downloads
        ]
        print_table(["donor", "what", "size", "into", "from"], rows, numbers=["size"])
        return
    with Reporter(quiet=quiet).showing() as report:
        fetched = fetch_files(
            directory,
            donors=all_or_listed(donors),
            what=kinds,
            base_url=base_url,
            check_sizes=check_sizes,
            keep_archives=keep_archives,
            progress=report,
        )
    fates = [(f.download.donor, f.download.what, f.status, f.path) for f in fetched]
    print_table(["donor", "what", "status", "in"], fates)
    print_text(f"Next: ahba ingest {directory} --store ahba.zarr")


@click.command()
@click.argument("directory", metavar="DIR", type=DIRECTORY)
@click.option(
    "--probes", default=58692, show_default=True, help="Probes; whole genes are left out for fewer."
)
@DONORS
@click.option(
    "--samples-scale", default=1.0, show_default=True, help="Samples, as a multiple of the true number."
)
@click.option("--seed", default=0, show_default=True, help="The same seed gives the same bytes.")
@click.option("--rnaseq", is_flag=True, help="Make up the RNA-seq of donors 9861 and 10021, too.")
@click.option(
    "--metadata", type=DIRECTORY, help="Take SampleAnnot.csv and Ontology.csv from here, do not make them up."
)
@shared_options
def simulate(
    directory: Path,
    probes: int,
    donors: str,
    samples_scale: float,
    seed: int,
    rnaseq: bool,
    metadata: Path | None,
    quiet: bool,
    debug: bool,
) -> None:
    """Make up six donors in the published format and write them into DIR.

    Probe names, gene symbols, well ids, corrected coordinates and sample counts are the true
    ones; expression and structures are invented, and everything made of them says so.

    \b
    Examples:
      ahba simulate sim --probes 5000              a quick one, 350 MB
      ahba simulate sim --donors 9861,10021 --seed 7
    """
    with Reporter(quiet=quiet).showing() as report:
        folders = simulate_files(
            directory,
            probes=probes,
            donors=all_or_listed(donors),
            samples_scale=samples_scale,
            seed=seed,
            metadata=metadata,
            rnaseq=rnaseq,
            progress=report,
        )
    sequenced = sum(folder.name.startswith("rnaseq") for folder in folders)
    also = f", RNA-seq of {sequenced}" if sequenced else ""
    print_text(f"{SIMULATED_NOTE}\n{len(folders) - sequenced} donors{also} in {directory}.")
    print_text(f"Next: ahba ingest {directory} --store simulated.zarr")


@click.command()
@click.argument("directory", metavar="DIR", type=DIRECTORY)
@click.option("--store", required=True, type=DIRECTORY, help="The store; made if it is not there.")
@DONORS
@click.option(
    "--what",
    default=",".join(KINDS),
    show_default=True,
    help="What to take of what is in DIR; comma between.",
)
@click.option("--replace", is_flag=True, help="Take donors anew whose published files changed.")
@shared_options
def ingest(
    directory: Path,
    store: Path,
    donors: str,
    what: str,
    replace: bool,
    quiet: bool,
    debug: bool,
) -> None:
    """Put the donors found in DIR into a store.

    DIR is what `ahba fetch` or `ahba simulate` left, abagen's data directory, or holds the zips.
    Each donor is in as a whole or not at all; stopped at any moment, the same command goes on.
    RNA-seq found beside the microarray files is taken, too.

    \b
    Examples:
      ahba ingest ahba-data --store ahba.zarr
      ahba ingest ~/abagen-data --store ahba.zarr --donors 9861
    """
    reporter = Reporter(quiet=quiet)
    with reporter.showing() as report:
        done = ingest_directory(
            directory,
            store,
            donors=all_or_listed(donors),
            what=_kinds(what),
            replace=replace,
            progress=report,
        )
    fates = [(d.donor, d.what, d.status, d.n_samples) for d in done]
    print_table(["donor", "what", "status", "samples"], fates, numbers=["samples"])
    if uncorrected := {d.donor: d.n_uncorrected for d in done if d.n_uncorrected}:
        counts = ", ".join(f"donor {donor}: {count:,}" for donor, count in uncorrected.items())
        reporter.say(
            f"Warning: wells without corrected MNI coordinates ({counts}); "
            "they are kept, and runs that want them need --no-corrected-mni."
        )
    if unmatched := {d.donor: d.n_unmatched for d in done if d.n_unmatched}:
        counts = ", ".join(f"donor {donor}: {count:,}" for donor, count in unmatched.items())
        reporter.say(f"Warning: RNA-seq samples whose wells the microarray lacks ({counts}); they are kept.")
    opened = Lake(store)
    print_text(f"Snapshot {opened.snapshot}." + (f" {SIMULATED_NOTE}" if opened.simulated else ""))
    print_text(f"Next: ahba run --store {store} --atlas abagen:dk --out tables")
