"""The processing choices, named as abagen names them, checked when they are made."""

import difflib
import hashlib
import json
import math
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any

import pandas as pd
import tomli_w

from transforms.aggregate import METRICS
from transforms.assign import MATCHINGS
from transforms.errors import ChoiceError
from transforms.missing import MISSING
from transforms.normalize import BATCH, canonical_name
from transforms.presets import PRESETS
from transforms.probes import PROBE_ORDERS, VARIANCE_SCALES
from transforms.reannotation import Reannotation
from transforms.region_sets import REGION_SETS
from transforms.samples import DIVISIONS, MIRRORS
from transforms.scaling import QUANTILES
from transforms.selections import DONOR_PROBES, SELECTIONS

REGION_AGGREGATIONS = ("donors", "samples")
DROPPED_GENES = ("regions", "samples")
NO_FILTER = -1  # AHBAprocessing's way to switch the intensity filter off
NONE = "None"  # in TOML, which has no null; as on the command line


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """A set of processing choices; the defaults are abagen's.

    The choices in the first half are abagen's, under its names. Those from `exclude_slabs` on are
    AHBAprocessing's (its names in brackets); at their defaults they do nothing. They can be mixed: what
    excludes each other is refused. `Pipeline.preset` gives published sets of choices.

    Attributes
    ----------
    ibf_threshold : float
        Keep probes that are detected in at least this proportion of samples (0 to 1; -1 is 0, no filter).
    probe_selection : str
        How one probe is chosen a gene, a name of `transforms.select.SELECTIONS`.
    donor_probes : {"aggregate", "independent", "common"}
        Whether donors are pooled for that choice, choose alone, or vote.
    sim_threshold : float or None
        Drop samples whose similarity to the donor's others lies more than this many standard
        deviations below the mean.
    lr_mirror : {None, "bidirectional", "leftright", "rightleft"}
        Which samples are copied into the other hemisphere.
    missing : {None, "centroids", "interpolate"}
        How regions without samples are filled: from each donor's sample nearest to the region's centroid,
        or by giving each of the region's voxels or vertices the nearest sample; None leaves them empty.
    tolerance : float
        How far from a region a sample may lie: mm for volumes; for surfaces standard deviations of
        the distances, or mm if negative.
    sample_norm, gene_norm : str or None
        Normalisation of each sample over genes, then of each gene over samples.
    norm_matched : bool
        Normalise over the samples that fall into a region only.
    norm_structures : bool
        Normalise each gene within each structure class.
    region_agg : {"donors", "samples"}
        Average samples within donors and then donors, or all samples at once.
    agg_metric : {"mean", "median"} or callable
        How samples are averaged; a callable takes an array and ``axis``.
    corrected_mni : bool
        Use the corrected MNI coordinates.
    reannotated : bool, Reannotation or pandas.DataFrame
        Use the re-annotated gene symbols; or those of a table of one's own (``probe_name``, ``gene_symbol``,
        ``entrez_id``), which is checked.
    donors : "all" or sequence of str
        Donor numbers or uids.
    matching : {"abagen", "nearest", "native_voxels"}
        How samples find their region; ``tolerance`` counts voxels for the last.
    exclude_slabs : sequence of str
        Leave out samples of these slab types: "BS" brainstem, "CB" cerebellum [ExcludeCBandBS].
    check_sides : bool
        Leave out samples whose coordinate contradicts their structure's hemisphere.
    agilent_only : bool
        Leave out probes whose name contains CUST [useCUSTprobes=false].
    probe_order : {"abagen", "probe_name"}
        Order of the probes, which decides between equal scores.
    variance_filter : float or None
        Leave out probes that are among this many per cent least variable in every donor [VARfilter, VARperc].
    variance_scale : {"normal", "log2"}
        Whether that is the variance of intensities or of their logarithms [VARscale].
    rnaseq_threshold : float
        For ``probe_selection="RNAseq"``: the correlation a gene's probe must exceed [RNAseqThreshold].
    rnaseq_significance : float or None
        Also its p value must be below [RNAsignThreshold, there 0.05].
    seed : int
        For ``probe_selection="Random"``.
    divide_samples : {None, "listCortex", "ontology"}
        Divide samples by side and into cortex and subcortex, by their structure's name or its place in the
        ontology: a sample is matched with regions of its side and part only, one that has none with no
        region [divideSamples].
    exclude_hippocampus : bool
        The hippocampal formation is in neither part [excludeHippocampus].
    normalise_what : str or None
        Which regions the table has, and whose samples are normalised together: "Lcortex",
        "LcortexSubcortex", "LcortexSubcortexSEPARATE" (the two parts apart), "LRcortex" and "wholeBrain"
        (only the donors sampled on both sides); None for all [normaliseWhat].
    do_normalise : bool
        False leaves each gene as it is, but for those that ``gene_norm`` cannot normalise, which are dropped
        all the same [doNormalise].
    quantiles : {"linear", "hazen"}
        abagen's or AHBAprocessing's convention for normalisation, see `transforms.normalize`.
    drop_genes : {"regions", "samples"}
        Which genes go: those without a value in a region of the table (abagen), or those with an undefined
        value in any normalised sample of any donor.
    percent_ds : float or None
        Also compute each gene's differential stability over regions, and mark this many per cent of the genes
        as the most stable; the table keeps all [calculateDS, percentDS].

    Raises
    ------
    ChoiceError
        If a choice is unknown or out of range, or two choices exclude each other.

    References
    ----------
    Markello et al. 2021, eLife 10:e72129; Arnatkeviciute et al. 2019, NeuroImage 189:353.
    """

    ibf_threshold: float = 0.5
    probe_selection: str = "diff_stability"
    donor_probes: str = "aggregate"
    sim_threshold: float | None = None
    lr_mirror: str | None = None
    missing: str | None = None
    tolerance: float = 2
    sample_norm: str | None = "srs"
    gene_norm: str | None = "srs"
    norm_matched: bool = True
    norm_structures: bool = False
    region_agg: str = "donors"
    agg_metric: str | Callable[..., Any] = "mean"
    corrected_mni: bool = True
    reannotated: bool | Reannotation = True
    donors: str | Sequence[str] = "all"
    matching: str = "abagen"
    exclude_slabs: Sequence[str] = ()
    check_sides: bool = True
    agilent_only: bool = False
    probe_order: str = "abagen"
    variance_filter: float | None = None
    variance_scale: str = "normal"
    rnaseq_threshold: float = 0.2
    rnaseq_significance: float | None = None
    seed: int = 0
    divide_samples: str | None = None
    exclude_hippocampus: bool = False
    normalise_what: str | None = None
    do_normalise: bool = True
    quantiles: str = "linear"
    drop_genes: str = "regions"
    percent_ds: float | None = None

    def __post_init__(self) -> None:
        for name, check in _CHECKS.items():
            object.__setattr__(self, name, check(name, getattr(self, name)))
        if mode := SELECTIONS[self.probe_selection].donor_probes:  # as abagen: the selection takes precedence
            object.__setattr__(self, "donor_probes", mode)
        for _, excluded, reason in _CONFLICTS:
            if excluded(self):
                raise ChoiceError(reason.format(self))

    @classmethod
    def from_choices(cls, choices: Mapping[str, Any]) -> "Pipeline":
        """Make a pipeline from named choices, among them perhaps ``preset``, which the others then change.

        Raises
        ------
        ChoiceError
            If a name is unknown (the nearest known one is suggested) or a value is wrong.
        """
        values = dict(choices)
        preset = values.pop("preset", None)
        if preset is not None:
            return cls.preset(str(preset), **values)
        known = [field.name for field in fields(cls)]
        for name in values:
            if name not in known:
                raise ChoiceError(f"There is no choice {name!r}{suggest(name, known)}.")
        return cls(**values)

    def changed(self, **changes: Any) -> "Pipeline":
        """Make a pipeline with some other choices.

        Raises
        ------
        ChoiceError
            As `from_choices`.
        """
        return Pipeline.from_choices({**self.__dict__, **changes})

    @classmethod
    def preset(cls, name: str, **changes: Any) -> "Pipeline":
        """Make a published pipeline.

        Parameters
        ----------
        name : str
            A name of `transforms.presets.PRESETS`, which says what of it is not known.
        **changes
            Choices that differ from it.

        Raises
        ------
        ChoiceError
            If there is no such preset, or a change is wrong.
        """
        if name not in PRESETS:
            raise ChoiceError(f"There is no preset {name!r}{suggest(name, PRESETS)}.")
        return cls.from_choices({**PRESETS[name].choices, **changes})

    @classmethod
    def arnatkeviciute2019(cls, **changes: Any) -> "Pipeline":
        """Make the default pipeline of AHBAprocessing, for donors' own volumes (``abagen:dk-native``).

        Arnatkeviciute, Fulcher & Fornito 2019, NeuroImage 189:353, with `changes`; see `preset`.
        """
        return cls.preset("arnatkeviciute2019", **changes)

    @classmethod
    def from_toml(cls, text: str, *, reannotation: Callable[[str], Reannotation] | None = None) -> "Pipeline":
        """Make a pipeline from TOML: choices under their names, and perhaps ``preset``, which they change.

        Parameters
        ----------
        text : str
            What `to_toml` writes, or less; "None" is None.
        reannotation : callable, optional
            Reads the table that ``reannotated`` names, if it names one.

        Raises
        ------
        ChoiceError
            If it is no TOML, or a choice is unknown or wrong.
        """
        try:
            choices = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ChoiceError(f"The choices are not TOML: {error}.") from None
        return cls.from_choices(
            {name: from_file_value(name, value, reannotation) for name, value in choices.items()}
        )

    def to_toml(self) -> str:
        """Every choice under its name, for `from_toml`.

        Raises
        ------
        ChoiceError
            If ``agg_metric`` is a function, which no file can hold.
        """
        if callable(self.agg_metric):
            raise ChoiceError("agg_metric is a function, which TOML cannot hold: name one of its metrics.")
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        if isinstance(self.reannotated, Reannotation):
            values["reannotated"] = self.reannotated.name
        return tomli_w.dumps({name: NONE if value is None else value for name, value in values.items()})

    def parameters(self) -> dict[str, Any]:
        """Every choice under its name, as JSON can hold it; equal pipelines give equal parameters."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values = {name: [*value] if isinstance(value, tuple) else value for name, value in values.items()}
        if callable(self.agg_metric):
            values["agg_metric"] = f"{self.agg_metric.__module__}.{self.agg_metric.__qualname__}"
        if isinstance(self.reannotated, Reannotation):
            values["reannotated"] = {"sha256": self.reannotated.sha256}
        return values

    def difference(self) -> dict[str, Any]:
        """The choices that are not the default, as in `parameters`."""
        defaults = Pipeline().parameters()
        return {name: value for name, value in self.parameters().items() if value != defaults[name]}

    def identity(self, snapshot: str) -> str:
        """Id of this pipeline on a snapshot of a store, 12 hex digits.

        A choice that later versions add is left out where it is at its default, so that ids stay.
        """
        first = list(self.parameters())[:_N_FIRST_CHOICES]
        kept = [*first, *(name for name in self.difference() if name not in first)]
        parameters = {name: value for name, value in self.parameters().items() if name in kept}
        text = json.dumps({"parameters": parameters, "snapshot": snapshot}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def check_choice(name: str, value: Any) -> Any:
    """One choice's value, as a pipeline holds it.

    Raises
    ------
    ChoiceError
        If there is no such choice, or the value is wrong.
    """
    if name not in _CHECKS:
        raise ChoiceError(f"There is no choice {name!r}{suggest(name, _CHECKS)}.")
    return _CHECKS[name](name, value)


def from_file_value(name: str, value: Any, reannotation: Callable[[str], Reannotation] | None = None) -> Any:
    """A choice's value from one that a file can hold: "None" is None, a re-annotation is read."""
    if value == NONE:
        return None
    if name == "reannotated" and isinstance(value, str) and reannotation is not None:
        return reannotation(value)
    return value


def interacting_choices() -> list[frozenset[str]]:
    """Choices that are checked together: the value of one can forbid, or decide, another's."""
    return [frozenset(("probe_selection", "donor_probes")), *(frozenset(names) for names, _, _ in _CONFLICTS)]


_N_FIRST_CHOICES = 17  # up to `matching`: those that every id is made of


def suggest(name: str, known: Iterable[str]) -> str:
    """The end of an error message: the nearest known name, or all of them."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(names)}"


def _one_of(options: Iterable[str | None]) -> Callable[[str, Any], Any]:
    known = list(options)

    def check(name: str, value: Any) -> Any:
        if not any(value is option or value == option for option in known):
            names = [str(option) for option in known]
            raise ChoiceError(f"{name}={value!r} is unknown{suggest(str(value), names)}.")
        return value

    return check


def _number(low: float, high: float) -> Callable[[str, Any], Any]:
    def check(name: str, value: Any) -> float:
        number = isinstance(value, Real) and not isinstance(value, bool)
        if not number or not low <= value <= high or not math.isfinite(value):
            raise ChoiceError(f"{name}={value!r}: a number from {low:g} to {high:g} is needed.")
        return float(value)

    return check


def _optional(check: Callable[[str, Any], Any]) -> Callable[[str, Any], Any]:
    return lambda name, value: None if value is None else check(name, value)


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ChoiceError(f"{name}={value!r}: True or False is needed.")
    return value


def _normalization(name: str, value: Any) -> str:
    try:
        return canonical_name(value)
    except ChoiceError as error:
        raise ChoiceError(f"{name}: {error}") from None


def _proportion(name: str, value: Any) -> float:
    return 0.0 if value == NO_FILTER and not isinstance(value, bool) else _number(0, 1)(name, value)


def _whole_number(name: str, value: Any) -> int:
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 0:
        raise ChoiceError(f"{name}={value!r}: a whole number from 0 on is needed.")
    return int(value)


def _reannotation(name: str, value: Any) -> bool | Reannotation:
    if isinstance(value, pd.DataFrame):
        return Reannotation.from_table(value, name="(a table)")
    if isinstance(value, Reannotation):
        return value
    if isinstance(value, str):
        raise ChoiceError(
            f"{name}={value!r} names a file: give the table, as lake.read_reannotation reads it."
        )
    return _flag(name, value)


def _slab_types(name: str, value: Any) -> tuple[str, ...]:
    types = [value] if isinstance(value, str) else [*value] if isinstance(value, Iterable) else [None]
    if not all(isinstance(one, str) and one for one in types):
        raise ChoiceError(f"{name}={value!r}: slab types are needed, such as BS and CB.")
    return tuple(sorted(set(types)))


def _metric(name: str, value: Any) -> Any:
    return value if callable(value) else _one_of(METRICS)(name, value)


def _donors(name: str, value: Any) -> str | tuple[str, ...]:
    if isinstance(value, str | int):
        return value if value == "all" else (str(value),)
    if not isinstance(value, Iterable):
        raise ChoiceError(f"{name}={value!r}: donor numbers or uids are needed, or 'all'.")
    chosen = {str(donor) for donor in value}  # in whichever order, they are the same choice
    if not chosen:
        raise ChoiceError(f"{name} is empty: name at least one donor, or 'all'.")
    return tuple(sorted(chosen, key=lambda donor: (len(donor), donor)))


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "ibf_threshold": _proportion,
    "probe_selection": _one_of(SELECTIONS),
    "donor_probes": _one_of(DONOR_PROBES),
    "sim_threshold": _optional(_number(0, math.inf)),
    "lr_mirror": _one_of(MIRRORS),
    "missing": _one_of(MISSING),
    "tolerance": _number(-1000, 1000),
    "sample_norm": _optional(_normalization),
    "gene_norm": _optional(_normalization),
    "norm_matched": _flag,
    "norm_structures": _flag,
    "region_agg": _one_of(REGION_AGGREGATIONS),
    "agg_metric": _metric,
    "corrected_mni": _flag,
    "reannotated": _reannotation,
    "donors": _donors,
    "matching": _one_of(MATCHINGS),
    "exclude_slabs": _slab_types,
    "check_sides": _flag,
    "agilent_only": _flag,
    "probe_order": _one_of(PROBE_ORDERS),
    "variance_filter": _optional(_number(0, 100)),
    "variance_scale": _one_of(VARIANCE_SCALES),
    "rnaseq_threshold": _number(-1, 1),
    "rnaseq_significance": _optional(_number(0, 1)),
    "seed": _whole_number,
    "divide_samples": _one_of([None, *DIVISIONS]),
    "exclude_hippocampus": _flag,
    "normalise_what": _one_of(REGION_SETS),
    "do_normalise": _flag,
    "quantiles": _one_of(QUANTILES),
    "drop_genes": _one_of(DROPPED_GENES),
    "percent_ds": _optional(_number(0, 100)),
}


def _has_one_donor(pipeline: Pipeline) -> bool:
    return isinstance(pipeline.donors, tuple) and len(set(pipeline.donors)) == 1


# Choices, whether a pipeline's exclude each other, and what to say then ({0}: the pipeline).
_CONFLICTS: tuple[tuple[tuple[str, ...], Callable[[Pipeline], bool], str], ...] = (
    (
        ("donors", "probe_selection"),
        lambda chosen: _has_one_donor(chosen) and SELECTIONS[chosen.probe_selection].min_donors > 1,
        (
            "probe_selection={0.probe_selection!r} compares donors, and donors names only {0.donors[0]}: "
            "add donors or choose another method."
        ),
    ),
    (
        ("donors", "sample_norm", "gene_norm"),
        lambda chosen: _has_one_donor(chosen) and BATCH in (chosen.sample_norm, chosen.gene_norm),
        (
            "Normalisation 'batch' removes what donors differ in, and donors names only {0.donors[0]}: "
            "add donors or choose another method."
        ),
    ),
    (
        ("sample_norm", "gene_norm"),
        lambda chosen: chosen.sample_norm == chosen.gene_norm == BATCH,
        "sample_norm='batch' leaves no donor effect for gene_norm='batch' to remove: choose one of them.",
    ),
    (
        ("norm_structures", "gene_norm"),
        lambda chosen: chosen.norm_structures and chosen.gene_norm == BATCH,
        (
            "gene_norm='batch' is one model over all samples, and norm_structures=True asks for one a "
            "structure class: choose one of them."
        ),
    ),
    (
        ("normalise_what", "gene_norm"),
        lambda chosen: REGION_SETS[chosen.normalise_what].separate and chosen.gene_norm == BATCH,
        (
            "gene_norm='batch' is one model over all samples, and normalise_what={0.normalise_what!r} asks "
            "for one a part: choose one of them."
        ),
    ),
    (
        ("normalise_what", "norm_matched"),
        lambda chosen: chosen.normalise_what is not None and not chosen.norm_matched,
        (
            "normalise_what={0.normalise_what!r} normalises the samples in its regions together, and "
            "norm_matched=False asks for all samples: choose one of them."
        ),
    ),
    (
        ("normalise_what", "missing"),
        lambda chosen: chosen.normalise_what is not None and chosen.missing is not None,
        (
            "missing={0.missing!r} fills regions of the whole atlas, and normalise_what={0.normalise_what!r} "
            "takes some of them: choose one of them."
        ),
    ),
    (
        ("do_normalise", "gene_norm"),
        lambda chosen: not chosen.do_normalise and chosen.gene_norm in (None, BATCH),
        (
            "do_normalise=False leaves gene_norm to find the genes that cannot be normalised, which "
            "gene_norm={0.gene_norm!r} does not: choose another, or do_normalise=True."
        ),
    ),
    (
        ("exclude_hippocampus", "divide_samples"),
        lambda chosen: chosen.exclude_hippocampus and chosen.divide_samples is None,
        "exclude_hippocampus=True takes it out of the parts of divide_samples, which is None: choose one.",
    ),
    (
        ("percent_ds", "donors"),
        lambda chosen: chosen.percent_ds is not None and _has_one_donor(chosen),
        (
            "percent_ds={0.percent_ds:g} compares donors, and donors names only {0.donors[0]}: add donors or "
            "leave it out."
        ),
    ),
)
