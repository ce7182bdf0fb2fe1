"""The processing choices as command-line options, named as abagen names them."""

from collections.abc import Callable, Mapping
from typing import Any

import click
from click.core import ParameterSource

from lake.errors import RequestError
from lake.pipelines import read_pipeline, read_reannotation
from transforms.aggregate import METRICS
from transforms.assign import MATCHINGS
from transforms.normalize import NORMALIZATIONS, QUANTILES
from transforms.pipeline import DROPPED_GENES, REGION_AGGREGATIONS, Pipeline
from transforms.probes import PROBE_ORDERS, VARIANCE_SCALES
from transforms.region_sets import REGION_SETS
from transforms.samples import DIVISIONS, MIRRORS
from transforms.select import DONOR_PROBES, SELECTIONS

_DEFAULTS = Pipeline()


class _Optional(click.ParamType[Any]):
    """A value, or None written out."""

    def __init__(self, convert: Callable[[str], Any], name: str) -> None:
        self._convert = convert
        self.name = name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
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
    (("--missing",), TEXT, "missing", "How regions without samples are filled."),
    (
        ("--tolerance", "--tol"),
        float,
        "tolerance",
        "How far a sample may lie from a region: mm (surfaces: SD, or -mm).",
    ),
    (("--sample-norm",), TEXT, "sample_norm", f"Normalise each sample: None, {_names(NORMALIZATIONS)}."),
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
# option, choice, value where the option is given, help
_FLAGS: tuple[tuple[str, str, bool, str], ...] = (
    ("--norm-all", "norm_matched", False, "Normalise over all samples, not only those in a region."),
    ("--norm-structures", "norm_structures", True, "Normalise each gene within each structure class."),
    ("--no-reannotated", "reannotated", False, "Use gene symbols as published."),
    ("--no-corrected-mni", "corrected_mni", False, "Use MNI coordinates as published."),
    ("--no-check-sides", "check_sides", False, "Keep samples that lie on the wrong side."),
    ("--agilent-only", "agilent_only", True, "Leave out custom probes (CUST)."),
    ("--exclude-hippocampus", "exclude_hippocampus", True, "With --divide-samples: in neither part."),
    ("--no-normalise", "do_normalise", False, "Keep values; --gene-norm finds the genes to drop."),
)


def choice_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add an option for every processing choice, and those that name a whole set of them."""
    for option, choice, value, text in reversed(_FLAGS):
        command = click.option(
            option, choice, flag_value=value, type=bool, default=getattr(_DEFAULTS, choice), help=text
        )(command)
    for options, kind, choice, text in reversed(_VALUES):
        default = _shown(getattr(_DEFAULTS, choice))
        command = click.option(*options, choice, type=kind, default=default, show_default=True, help=text)(
            command
        )
    for option, choice, metavar, text in reversed(_SETS):
        command = click.option(option, choice, metavar=metavar, help=text)(command)
    return command


_SETS: tuple[tuple[str, str, str, str], ...] = (
    ("--preset", "preset", "NAME", "Published choices, see `ahba presets`; options given change them."),
    ("--pipeline", "pipeline_file", "TOML", "Choices from a file; options given change them."),
    ("--reannotation", "reannotation", "CSV", "Genes of probes: probe_name, gene_symbol, entrez_id."),
)
_LISTS = ("donors", "exclude_slabs")


def _shown(value: Any) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)


def pipeline_from(options: Mapping[str, Any]) -> Pipeline:
    """The pipeline that the options of `choice_options` stand for.

    With ``--preset`` or ``--pipeline`` only options that were given on the command line count besides.

    Raises
    ------
    ChoiceError
        If a value is unknown.
    RequestError
        If both name a set of choices.
    """
    sets = {choice for _, choice, _, _ in _SETS}
    choices = {name: _listed(name, value) for name, value in options.items() if name not in sets}
    if options.get("reannotation"):
        choices["reannotated"] = read_reannotation(options["reannotation"])
    preset, file = options.get("preset"), options.get("pipeline_file")
    if preset and file:
        raise RequestError("--preset and --pipeline both name a set of choices; a file may name its preset.")
    given = {name: value for name, value in choices.items() if (preset or file) and _is_given(name)}
    if preset:
        return Pipeline.preset(preset, **given)
    return read_pipeline(file).changed(**given) if file else Pipeline.from_choices(choices)


def _listed(name: str, value: Any) -> Any:
    if name not in _LISTS or value == "all":
        return value
    return [part.strip() for part in value.split(",") if part.strip()]


def _is_given(name: str) -> bool:
    """Whether an option was written, or stands for one that was."""
    context = click.get_current_context()
    option = "reannotation" if name == "reannotated" and context.params.get("reannotation") else name
    return context.get_parameter_source(option) is ParameterSource.COMMANDLINE
