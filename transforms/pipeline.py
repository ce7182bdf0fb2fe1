"""The processing choices, named as abagen names them, checked when they are made."""

import difflib
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any

from transforms.aggregate import METRICS
from transforms.assign import MATCHINGS
from transforms.errors import ChoiceError
from transforms.missing import MISSING
from transforms.normalize import BATCH, canonical_name
from transforms.samples import MIRRORS
from transforms.select import DONOR_PROBES, SELECTIONS

REGION_AGGREGATIONS = ("donors", "samples")


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """A set of processing choices; the defaults are abagen's.

    Attributes
    ----------
    ibf_threshold : float
        Keep probes that are detected in at least this proportion of samples (0 to 1).
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
    reannotated : bool
        Use the re-annotated gene symbols.
    donors : "all" or sequence of str
        Donor numbers or uids.
    matching : {"abagen", "nearest"}
        How samples find their region.

    Raises
    ------
    ChoiceError
        If a choice is unknown or out of range, or two choices exclude each other.

    References
    ----------
    Markello et al. 2021, eLife 10:e72129.
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
    reannotated: bool = True
    donors: str | Sequence[str] = "all"
    matching: str = "abagen"

    def __post_init__(self) -> None:
        for name, check in _CHECKS.items():
            object.__setattr__(self, name, check(name, getattr(self, name)))
        if SELECTIONS[self.probe_selection].pools_donors:  # as abagen: the selection takes precedence
            object.__setattr__(self, "donor_probes", "aggregate")
        for excluded, reason in _CONFLICTS:
            if excluded(self):
                raise ChoiceError(reason.format(self))

    @classmethod
    def from_choices(cls, choices: Mapping[str, Any]) -> "Pipeline":
        """Make a pipeline from named choices.

        Raises
        ------
        ChoiceError
            If a name is unknown (the nearest known one is suggested) or a value is wrong.
        """
        known = [field.name for field in fields(cls)]
        for name in choices:
            if name not in known:
                raise ChoiceError(f"There is no choice {name!r}{suggest(name, known)}.")
        return cls(**choices)

    def parameters(self) -> dict[str, Any]:
        """Every choice under its name, as JSON can hold it; equal pipelines give equal parameters."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        if callable(self.agg_metric):
            values["agg_metric"] = f"{self.agg_metric.__module__}.{self.agg_metric.__qualname__}"
        return values

    def identity(self, snapshot: str) -> str:
        """Id of this pipeline on a snapshot of a store, 12 hex digits."""
        text = json.dumps({"parameters": self.parameters(), "snapshot": snapshot}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


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
        if not number or not math.isfinite(value) or not low <= value <= high:
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
    "ibf_threshold": _number(0, 1),
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
    "reannotated": _flag,
    "donors": _donors,
    "matching": _one_of(MATCHINGS),
}


def _has_one_donor(pipeline: Pipeline) -> bool:
    return isinstance(pipeline.donors, tuple) and len(set(pipeline.donors)) == 1


# Whether a pipeline's choices exclude each other, and what to say then ({0}: the pipeline).
_CONFLICTS: tuple[tuple[Callable[[Pipeline], bool], str], ...] = (
    (
        lambda chosen: _has_one_donor(chosen) and SELECTIONS[chosen.probe_selection].min_donors > 1,
        (
            "probe_selection={0.probe_selection!r} compares donors, and donors names only {0.donors[0]}: "
            "add donors or choose another method."
        ),
    ),
    (
        lambda chosen: _has_one_donor(chosen) and BATCH in (chosen.sample_norm, chosen.gene_norm),
        (
            "Normalisation 'batch' removes what donors differ in, and donors names only {0.donors[0]}: "
            "add donors or choose another method."
        ),
    ),
    (
        lambda chosen: chosen.sample_norm == chosen.gene_norm == BATCH,
        "sample_norm='batch' leaves no donor effect for gene_norm='batch' to remove: choose one of them.",
    ),
    (
        lambda chosen: chosen.norm_structures and chosen.gene_norm == BATCH,
        (
            "gene_norm='batch' is one model over all samples, and norm_structures=True asks for one a "
            "structure class: choose one of them."
        ),
    ),
)
