"""The processing choices as command-line options, named as abagen names them."""

from collections.abc import Callable
from typing import Any

import click

from transforms.aggregate import METRICS
from transforms.assign import MATCHINGS
from transforms.normalize import NORMALIZATIONS
from transforms.pipeline import REGION_AGGREGATIONS, Pipeline
from transforms.samples import MIRRORS
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
)
# option, choice, value where the option is given, help
_FLAGS: tuple[tuple[str, str, bool, str], ...] = (
    ("--norm-all", "norm_matched", False, "Normalise over all samples, not only those in a region."),
    ("--norm-structures", "norm_structures", True, "Normalise each gene within each structure class."),
    ("--no-reannotated", "reannotated", False, "Use gene symbols as published."),
    ("--no-corrected-mni", "corrected_mni", False, "Use MNI coordinates as published."),
)


def choice_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add an option for every processing choice."""
    for option, choice, value, text in reversed(_FLAGS):
        command = click.option(
            option, choice, flag_value=value, type=bool, default=getattr(_DEFAULTS, choice), help=text
        )(command)
    for options, kind, choice, text in reversed(_VALUES):
        default = getattr(_DEFAULTS, choice)
        command = click.option(
            *options, choice, type=kind, default=str(default), show_default=True, help=text
        )(command)
    return command


def pipeline_from(options: dict[str, Any]) -> Pipeline:
    """The pipeline that the options of `choice_options` stand for.

    Raises
    ------
    ChoiceError
        If a value is unknown.
    """
    donors = options["donors"]
    if donors != "all":
        options = options | {"donors": [part.strip() for part in donors.split(",") if part.strip()]}
    return Pipeline.from_choices(options)
