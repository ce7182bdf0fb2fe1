"""``ahba coexpression``, ``stable`` and ``distances``: what is made of a run's tables, and of atlases."""

from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lake.cli import shared_options
from lake.commands.answering import deliver_table, say_origin, show_columns
from lake.commands.asking import DONORS, Asked, asks
from lake.commands.printing import print_text
from lake.errors import RequestError

if TYPE_CHECKING:
    import pandas as pd

TABLES = click.option(
    "--tables", required=True, type=click.Path(path_type=Path, file_okay=False),
    help="What `ahba run --out` wrote; the new table goes there too.",
)  # fmt: skip
ATLAS = click.option(
    "--atlas", "atlas_spec", required=True, metavar="A", help="The tables' atlas, as `ahba run` was given it."
)
PIPELINE = click.option(
    "--pipeline", metavar="ID", help="Which pipeline's table, where there are several: its id."
)
METHOD = click.option("--method", default="pearson", show_default=True, help="pearson or spearman.")
OF_GENES = ("network", "neighbours", "threshold")
OF_REGIONS = ("distance", "correction", "structure_pairs", "store")


@click.command()
@click.argument("what", type=click.Choice(["genes", "regions"]))
@TABLES
@ATLAS
@PIPELINE
@METHOD
@click.option("--network", help="genes: signed, or unsigned (by size of the correlation).  [default: signed]")
@click.option("--neighbours", type=int, help="genes: keep so many of the nearest of each gene.")
@click.option("--threshold", type=float, help="genes: keep pairs from this correlation on.")
@click.option("--distance", help="regions: centroids, samples or surface.  [default: centroids]")
@click.option(
    "--correction", metavar="CURVE",
    help="regions: also without distance: linear, exp, exp_1_0, exp0, exp1, decay or removeMean.",
)  # fmt: skip
@click.option(
    "--structure-pairs",
    help="regions: fit the --correction to each pair of structures by itself: all, or abagen (its pairs).",
)
@click.option("--store", help="regions: the store, for --distance samples.")
@shared_options
def coexpression(
    what: str,
    tables: Path,
    atlas_spec: str,
    pipeline: str | None,
    method: str,
    quiet: bool,
    debug: bool,
    **options: Any,
) -> None:
    """Correlate genes over regions, or regions over genes, from a table that a run wrote.

    genes: each gene's nearest (--neighbours), or the pairs above a --threshold. regions: every pair, with its
    distance. Both are Parquet tables beside the expression; docs/tables.md has their columns.

    \b
    Examples:
      ahba coexpression genes --tables tables --atlas abagen:dk --neighbours 50
      ahba coexpression genes --tables tables --atlas abagen:dk --threshold 0.9
      ahba coexpression regions --tables tables --atlas abagen:dk --correction exp
      ahba coexpression regions --tables tables --atlas abagen:dk --distance samples \\
          --store ahba.zarr
    """
    given = {name: value for name, value in options.items() if value is not None}
    kept, other = (OF_GENES, OF_REGIONS) if what == "genes" else (OF_REGIONS, OF_GENES)
    if wrong := [name for name in other if name in given]:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in wrong)
        raise RequestError(f"{names} says nothing of {what}: leave it out.")
    from lake.tables import read_expression

    chosen = {name: value for name, value in given.items() if name in kept}
    if what == "genes":
        expression = read_expression(tables, atlas=_name_in(tables, atlas_spec), pipeline=pipeline)
        _report_written(_of_genes(expression, tables, quiet, method=method, **chosen))
        return
    from lake.catalogue import load_group_atlas

    atlas = load_group_atlas(atlas_spec)
    expression = read_expression(tables, atlas=atlas.name, pipeline=pipeline)
    _report_written(_of_regions(expression, atlas, tables, method=method, **chosen))


def _of_genes(expression: "pd.DataFrame", out: Path, quiet: bool, **choices: Any) -> Path:
    from lake.coexpression import write_gene_coexpression
    from lake.progress import Reporter

    with Reporter(quiet=quiet).showing() as report:
        return write_gene_coexpression(expression, out=out, progress=report, **choices)


def _of_regions(
    expression: "pd.DataFrame", atlas: Any, out: Path, *, store: str | None = None, **choices: Any
) -> Path:
    from lake.coexpression import write_region_pairs

    if choices.get("distance") != "samples":
        return write_region_pairs(expression, atlas, out=out, **choices)
    samples, labels = _samples_of(expression, atlas, store)
    return write_region_pairs(expression, atlas, out=out, samples=samples, labels=labels, **choices)


def _samples_of(expression: "pd.DataFrame", atlas: Any, path: str | None) -> tuple[Any, Any]:
    """The samples that the expression was made of, and their regions."""
    if path is None:
        raise RequestError("--distance samples takes the store that has them: add --store.")
    from lake.distances import averaged_places
    from lake.store import Lake

    return averaged_places(Lake(path), atlas, expression.attrs)


def _name_in(tables: Path, spec: str) -> str:
    """An atlas's name in the tables; what is no name there is loaded, and says it."""
    if list(tables.glob(f"*/*/atlas={escape(spec.replace(':', '-'))}")):
        return spec
    from lake.catalogue import atlas

    return atlas(spec).name


def _report_written(path: Path) -> None:
    import pyarrow.parquet as pq

    print_text(f"Written: {path} ({pq.read_metadata(path).num_rows:,} rows)")


@click.command()
@TABLES
@ATLAS
@PIPELINE
@click.option("--threshold", type=float, help="Stability of the least stable gene to keep.  [default: 0.9]")
@click.option(
    "--percentile/--no-percentile",
    default=True,
    show_default=True,
    help="The threshold is a quantile of all genes' stabilities, or a stability itself.",
)
@click.option("--percent-ds", type=float, help="Instead keep this many % of the genes.")
@click.option("--rank/--no-rank", default=True, show_default=True, help="Correlate ranks, or values.")
@click.option("--method", default="abagen", show_default=True, help="abagen or arnatkeviciute2019.")
@shared_options
def stable(
    tables: Path, atlas_spec: str, pipeline: str | None, quiet: bool, debug: bool, **options: Any
) -> None:
    """Find the genes whose pattern over regions is the same in every donor (differential stability).

    The run must have written the donors' tables (--save-donors).

    \b
    Examples:
      ahba run --store ahba.zarr --atlas abagen:dk --out tables --save-donors
      ahba stable --tables tables --atlas abagen:dk
      ahba stable --tables tables --atlas abagen:dk --percent-ds 10 \\
          --method arnatkeviciute2019
    """
    from lake.coexpression import write_stable_genes

    name = _name_in(tables, atlas_spec)
    _report_written(write_stable_genes(tables, atlas=name, pipeline=pipeline, **options))


@click.command()
@click.argument("atlas")
@asks(
    click.option(
        "--method", default="centroids", show_default=True,
        help="centroids; samples: between the means of a region's samples; surface: along it.",
    ),
    click.option("--cross-unlabelled", is_flag=True, help="surface: paths may cross what is in no region."),
    click.option("--store", default="", help="samples: the store that has them."),
    click.option("--tolerance", "--tol", type=float, help="samples: as for `ahba run`."),
    click.option("--matching", help="samples: as for `ahba run`."),
    click.option("--corrected-mni/--no-corrected-mni", default=None, help="samples: as for `ahba run`."),
    DONORS,
)  # fmt: skip
def distances(asked: Asked, atlas: str, method: str, cross_unlabelled: bool, **places: Any) -> None:
    """Distance in mm between every two regions of ATLAS.

    \b
    Examples:
      ahba distances abagen:dk -o distances.parquet
      ahba distances abagen:dk-surface --method surface -o along-the-cortex.csv
      ahba distances abagen:dk --method samples --store ahba.zarr
    """
    from lake.distances import distance_table

    given = {name: value for name, value in places.items() if value is not None}
    given |= {"donors": asked.chosen_donors} if asked.donors != "all" else {}
    store = asked.lake if asked.store else None

    def show(table: "pd.DataFrame") -> None:
        """Its first rows."""
        show_columns(table, asked.top)
        if store is not None:
            say_origin(store)

    deliver_table(
        asked,
        lambda: distance_table(atlas, method=method, cross_unlabelled=cross_unlabelled, store=store, **given),
        show,
    )
