"""The processing choices as command-line options, named as abagen names them."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import click
from click.core import ParameterSource

from lake.commands.asking import all_or_listed
from lake.errors import RequestError
from lake.pipelines import read_pipeline, read_reannotation
from transforms.aggregate import METRICS
from transforms.assign import MATCHINGS
from transforms.missing import MISSING
from transforms.normalize import BATCH, NORMALIZATIONS
from transforms.pipeline import DROPPED_GENES, REGION_AGGREGATIONS, Pipeline
from transforms.probes import PROBE_ORDERS, VARIANCE_SCALES
from transforms.region_sets import REGION_SETS
from transforms.samples import DIVISIONS, MIRRORS
from transforms.scaling import QUANTILES
from transforms.selections import DONOR_PROBES, SELECTIONS

Command = Callable[..., Any]

_DEFAULTS = Pipeline()


class _Optional(click.ParamType[Any]):
    """A value, or None written out."""

    def __init__(self, convert: Callable[[str], Any], name: str) -> None:
        self._convert = convert
        self.name = name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The value, or None."""
        if value is None or value in ("None", "none"):
            return None
        try:
            return self._convert(value)
        except ValueError:
            self.fail(f"{value!r} is not a {self.name} or None", param, ctx)


TEXT, NUMBER = _Optional(str, "text"), _Optional(float, "number")


def _names(options: Any) -> str:
    return ", ".join(str(option) for option in options)


# option names, type, default, help
_VALUES: tuple[tuple[tuple[str, ...], Any, str, str], ...] = (
    (("--ibf-threshold",), float, "ibf_threshold", "Keep probes detected in this proportion of samples."),
    (
        ("--probe-selection",),
        TEXT,
        "probe_selection",
        f"How one probe is chosen a gene: {_names(SELECTIONS)}.",
    ),
    (("--donor-probes",), TEXT, "donor_probes", f"Who chooses: {_names(DONOR_PROBES)}."),
    (
        ("--sim-threshold",),
        NUMBER,
        "sim_threshold",
        "Drop samples this many SD less similar than the donor's others.",
    ),
    (("--lr-mirror",), TEXT, "lr_mirror", f"Copy samples into the other hemisphere: {_names(MIRRORS)}."),
    (("--missing",), TEXT, "missing", f"Fill regions without samples: {_names(MISSING)}."),
    (
        ("--tolerance", "--tol"),
        float,
        "tolerance",
        "How far a sample may lie from a region: mm (surfaces: SD, or -mm).",
    ),
    (
        ("--sample-norm",),
        TEXT,
        "sample_norm",
        f"Normalise each sample: None, {_names(NORMALIZATIONS)}, {BATCH}.",
    ),
    (("--gene-norm",), TEXT, "gene_norm", "Normalise each gene, likewise."),
    (("--region-agg",), TEXT, "region_agg", f"Average within these first: {_names(REGION_AGGREGATIONS)}."),
    (("--agg-metric",), TEXT, "agg_metric", f"How to average: {_names(METRICS)}."),
    (("--matching",), TEXT, "matching", f"How samples find regions: {_names(MATCHINGS)}."),
    (("--donors",), str, "donors", "Donor numbers or uids, comma between."),
    (("--exclude-slabs",), str, "exclude_slabs", "Slab types to leave out, comma between: BS,CB."),
    (("--probe-order",), TEXT, "probe_order", f"Which of equal probes is first: {_names(PROBE_ORDERS)}."),
    (
        ("--variance-filter",),
        NUMBER,
        "variance_filter",
        "Drop probes among this many % least variable in every donor.",
    ),
    (("--variance-scale",), TEXT, "variance_scale", f"Variance of: {_names(VARIANCE_SCALES)}."),
    (("--rnaseq-threshold",), float, "rnaseq_threshold", "RNAseq: correlation to exceed."),
    (("--rnaseq-significance",), NUMBER, "rnaseq_significance", "RNAseq: p value to stay below."),
    (("--seed",), int, "seed", "Random: equal seeds draw equal probes."),
    (
        ("--divide-samples",),
        TEXT,
        "divide_samples",
        f"Match samples within side and part, by: None, {_names(DIVISIONS)}.",
    ),
    (("--normalise-what",), TEXT, "normalise_what", f"Regions and donors of: {_names(REGION_SETS)}."),
    (("--quantiles",), TEXT, "quantiles", f"Convention of the normalisations: {_names(QUANTILES)}."),
    (("--drop-genes",), TEXT, "drop_genes", f"Drop genes undefined in any of: {_names(DROPPED_GENES)}."),
    (("--percent-ds",), NUMBER, "percent_ds", "Also mark this many % most stable genes."),
)
# options for yes and for no, choice, help
_FLAGS: tuple[tuple[str, str, str], ...] = (
    ("--norm-matched/--norm-all", "norm_matched", "Normalise over samples in a region, or over all."),
    ("--norm-structures/--no-norm-structures", "norm_structures", "Normalise within each structure class."),
    ("--reannotated/--no-reannotated", "reannotated", "Gene symbols re-annotated, or as published."),
    ("--corrected-mni/--no-corrected-mni", "corrected_mni", "MNI coordinates corrected, or as published."),
    ("--check-sides/--no-check-sides", "check_sides", "Leave out samples that lie on the wrong side."),
    ("--agilent-only/--no-agilent-only", "agilent_only", "Leave out custom probes (CUST)."),
    (
        "--exclude-hippocampus/--no-exclude-hippocampus",
        "exclude_hippocampus",
        "With --divide-samples: in neither part.",
    ),
    (
        "--do-normalise/--no-normalise",
        "do_normalise",
        "Or keep values; --gene-norm then finds the genes to drop.",
    ),
)


def options_of_choices(
    *, without: Sequence[str] = (), defaults: Mapping[str, Any] = MappingProxyType({})
) -> Callable[[Command], Command]:
    """An option for every processing choice but some, and those that name a whole set of them.

    Parameters
    ----------
    without : sequence of str
        Choices that the command does not have.
    defaults : mapping
        Choices whose default is the command's own, for ``--help``: only what was written counts.
    """

    def add(command: Command) -> Command:
        """Add them so that ``--help`` lists them in their order."""
        for option in reversed(_options(without, {**vars(_DEFAULTS), **defaults})):
            command = option(command)
        return command

    return add


def _options(without: Sequence[str], defaults: Mapping[str, Any]) -> list[Callable[[Command], Command]]:
    sets = [click.option(option, name, metavar=metavar, help=text) for option, name, metavar, text in _SETS]
    values = [
        click.option(
            *options,
            name,
            type=kind,
            default=_shown(defaults[name]),
            show_default=True,
            help=text,
        )
        for options, kind, name, text in _VALUES
        if name not in without
    ]
    flags = [
        click.option(options, name, default=defaults[name], show_default=True, help=text)
        for options, name, text in _FLAGS
        if name not in without
    ]
    return [*sets, *values, *flags]


_SETS: tuple[tuple[str, str, str, str], ...] = (
    ("--preset", "preset", "NAME", "Published choices, see `ahba presets`; options given change them."),
    ("--pipeline", "pipeline_file", "TOML", "Choices from a file; options given change them."),
    ("--reannotation", "reannotation", "CSV", "Genes of probes: probe_name, gene_symbol, entrez_id."),
)
_LISTS = ("donors", "exclude_slabs")
_NAMES = (
    *(name for _, name, _, _ in _SETS),
    *(name for _, _, name, _ in _VALUES),
    *(name for _, name, _ in _FLAGS),
)


def _shown(value: Any) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)


def pipeline_from(options: Mapping[str, Any]) -> Pipeline:
    """The pipeline that the options of `options_of_choices` stand for.

    Only options that were written count, so that they change what ``--preset`` or ``--pipeline`` names.

    Raises
    ------
    ChoiceError
        If a value is unknown.
    RequestError
        If both name a set of choices.
    """
    given = given_choices(options)
    file = given.pop("pipeline_file", None)
    return read_pipeline(file).changed(**given) if file else Pipeline.from_choices(given)


def given_choices(options: Mapping[str, Any]) -> dict[str, Any]:
    """The choices that were written, and ``preset`` or ``pipeline_file`` if one was; other options are not.

    Raises
    ------
    InputError, ChoiceError
        If the table of ``--reannotation`` is wrong.
    RequestError
        If two options contradict each other.
    """
    context = click.get_current_context()
    written: dict[str, Any] = {
        name: all_or_listed(options[name]) if name in _LISTS else options[name]
        for name in _NAMES
        if name in options and context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }
    if {"preset", "pipeline_file"} <= set(written):
        raise RequestError("--preset and --pipeline both name a set of choices; a file may name its preset.")
    if "reannotation" in written:
        if written.get("reannotated") is False:
            raise RequestError("--reannotation names a table, and --no-reannotated asks for none.")
        written["reannotated"] = read_reannotation(written.pop("reannotation"))
    return written


choice_options = options_of_choices()
