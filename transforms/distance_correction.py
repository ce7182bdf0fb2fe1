"""Take out of correlated gene expression what the distance between regions explains.

Regions close to each other are alike. What is left after a curve through coexpression against distance is
what studies relate to anything else: abagen's ``correct.remove_distance`` (a straight line) and step S4 of
AHBAprocessing (Arnatkeviciute et al. 2019, NeuroImage 189:353: exponentials, 1/d, bin means).
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import combinations_with_replacement
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import OptimizeResult, least_squares

from transforms.atlas import Atlas
from transforms.distance import region_distances
from transforms.errors import ChoiceError

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]

N_BINS = 25
# Rates at which fits of an exponential start, in units of 1/median distance, beside the published start.
STARTING_RATES = (0.1, 0.3, 1.0, 3.0, 10.0)
FIT_TOLERANCE = 1e-13
MAX_EVALUATIONS = 300  # the few fits that need more creep towards a rate of 0 or infinity


class Fit(NamedTuple):
    """A curve of coexpression against distance.

    Attributes
    ----------
    values : (pair,) float64 array
        The curve at each pair's distance.
    parameters : dict of str to float
        Named as in AHBAprocessing; rates in 1/mm. Empty for bin means.
    """

    values: Floats
    parameters: dict[str, float]


# Curves -----------------------------------------------------------------------------------------------------


def _linear(distance: Floats, coexpression: Floats) -> Fit:
    """p1 d + p2."""
    return _straight(distance, coexpression, ("p1", "p2"))


def _decay(distance: Floats, coexpression: Floats) -> Fit:
    """A/d + B, a straight line in 1/d."""
    with np.errstate(divide="ignore"):
        closeness = 1 / distance
    if np.isinf(closeness).any():
        raise ChoiceError(
            "Two regions are 0 mm apart, where decay (A/d + B) is not defined: set that distance to NaN, or "
            "choose another correction."
        )
    return _straight(closeness, coexpression, ("A", "B"))


def _straight(abscissa: Floats, coexpression: Floats, names: tuple[str, str]) -> Fit:
    columns = np.column_stack([abscissa, np.ones_like(abscissa)])
    parameters = np.linalg.lstsq(columns, coexpression, rcond=None)[0]
    return Fit(columns @ parameters, dict(zip(names, parameters.tolist(), strict=True)))


def _bin_means(distance: Floats, coexpression: Floats) -> Fit:
    """Mean of 25 bins of distance, equally full; every pair counts twice, as both triangles do in MATLAB."""
    edges = np.quantile(np.repeat(distance, 2), np.linspace(0, 1, N_BINS + 1), method="hazen")
    bins = np.clip(np.searchsorted(edges, distance, side="right") - 1, 0, N_BINS - 1)
    sums = np.bincount(bins, weights=coexpression, minlength=N_BINS)
    return Fit((sums / np.maximum(np.bincount(bins, minlength=N_BINS), 1))[bins], {})


class _Exponential(NamedTuple):
    """A exp(-n d) + B, some of its parameters (A, B, n) free; the others stay at their start."""

    start: tuple[float, float, float]
    free: tuple[bool, bool, bool]

    def residuals(self, given: Floats, distance: Floats, coexpression: Floats) -> Floats:
        scale, offset, rate = self.complete(given)
        with np.errstate(over="ignore"):
            residuals: Floats = scale * np.exp(-rate * distance) + offset - coexpression
        return residuals

    def slopes(self, given: Floats, distance: Floats, _coexpression: Floats) -> Floats:
        """Derivatives of `residuals` by the parameters fitted: (pair, parameter), distances in mm."""
        scale, _, rate = self.complete(given)
        decayed = np.exp(-rate * distance)
        columns = [decayed, np.ones_like(distance), -scale * distance * decayed]
        return np.column_stack([column for column, free in zip(columns, self.free, strict=True) if free])

    def complete(self, given: Floats) -> Floats:
        """All three parameters, from the free ones."""
        parameters = np.array(self.start)
        parameters[list(self.free)] = given
        return parameters

    def best_at(self, rate: float, distance: Floats, coexpression: Floats) -> Floats:
        """The free parameters with this rate and the scale and offset that then fit best."""
        parameters = np.array([self.start[0], self.start[1], rate])
        linear = [position for position in (0, 1) if self.free[position]]
        columns = np.column_stack([np.exp(-rate * distance), np.ones_like(distance)])
        fixed = [position for position in (0, 1) if position not in linear]
        left = coexpression - columns[:, fixed] @ parameters[fixed]
        parameters[linear] = np.linalg.lstsq(columns[:, linear], left, rcond=None)[0]
        return parameters[list(self.free)]


def _exponential(distance: Floats, coexpression: Floats, *, model: _Exponential) -> Fit:
    """Least squares from several starts, the published one first; the lowest sum of squares counts."""
    unit = float(np.median(distance)) or 1.0
    near = distance / unit  # so that all parameters are of one size
    scale, offset, rate = model.start
    model = _Exponential((scale, offset, rate * unit), model.free)
    starts = [np.array(model.start)[list(model.free)]]
    starts += [model.best_at(start, near, coexpression) for start in STARTING_RATES]
    fits = [_descend(model, start, near, coexpression) for start in starts]
    best = min(fits, key=lambda fit: float(fit.cost))
    parameters = model.complete(best.x) / (1, 1, unit)
    return Fit(best.fun + coexpression, dict(zip("ABn", parameters.tolist(), strict=True)))


def _descend(model: _Exponential, start: Floats, distance: Floats, coexpression: Floats) -> OptimizeResult:
    return least_squares(
        model.residuals,
        start,
        model.slopes,
        args=(distance, coexpression),
        ftol=FIT_TOLERANCE,
        xtol=FIT_TOLERANCE,
        gtol=FIT_TOLERANCE,
        max_nfev=MAX_EVALUATIONS,
    )


def _exponential_from(start: tuple[float, float, float], free: str) -> Callable[[Floats, Floats], Fit]:
    flags = ("A" in free, "B" in free, "n" in free)
    return partial(_exponential, model=_Exponential(start, flags))


DISTANCE_CORRECTIONS: dict[str, Callable[[Floats, Floats], Fit]] = {
    "linear": _linear,
    "exp": _exponential_from((1.0, 0.5, 0.0), "ABn"),
    "exp0": _exponential_from((1.0, 0.0, 1.0), "An"),
    "exp1": _exponential_from((1.0, 1.0, 0.0), "Bn"),
    "exp_1_0": _exponential_from((1.0, 0.0, 1.0), "n"),
    "decay": _decay,
    "removeMean": _bin_means,
}
"""Name of a correction -> its curve: (pair,) distances in mm and coexpression, all finite, to a `Fit`."""


# Which pairs share a curve ----------------------------------------------------------------------------------


class _Grouping(NamedTuple):
    """Pairs of classes of regions that get a curve each, and the residual of all other pairs."""

    class_pairs: Callable[[list[str]], Iterator[tuple[str, str]]]
    elsewhere: float


def _every_pair(classes: list[str]) -> Iterator[tuple[str, str]]:
    return combinations_with_replacement(sorted(set(classes)), 2)


def _cortex_only(_classes: list[str]) -> Iterator[tuple[str, str]]:
    yield "cortex", "cortex"


STRUCTURE_PAIRS = {"all": _Grouping(_every_pair, np.nan), "abagen": _Grouping(_cortex_only, 0.0)}
"""Ways to fit pairs of structural classes apart, by name."""


# What is called ---------------------------------------------------------------------------------------------


def remove_distance(
    coexpression: pd.DataFrame,
    atlas: Atlas,
    *,
    correction: str = "linear",
    structure_pairs: str | None = None,
    distances: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Residuals of correlated gene expression after a curve of the distance between regions.

    Parameters
    ----------
    coexpression : pandas.DataFrame
        Region x region, symmetric, as `correlated_gene_expression` gives it; all regions of the atlas, or
        some.
    atlas : Atlas
        Gives the regions' centroids and classes.
    correction : {"linear", "exp", "exp0", "exp1", "exp_1_0", "decay", "removeMean"}
        The curve. ``linear``: p1 d + p2 (abagen and AHBAprocessing). AHBAprocessing's others: ``exp``:
        A exp(-n d) + B; ``exp0``: B is 0; ``exp1``: A is 1; ``exp_1_0``: both; ``decay``: A/d + B;
        ``removeMean``: the mean of 25 bins of equally many pairs, quantiles as in MATLAB.
    structure_pairs : {None, "all", "abagen"}
        None: one curve for all pairs. ``all``: one for each pair of structural classes that the atlas has
        (cortex with cortex, cortex with cerebellum, ..), as abagen documents. ``abagen``: what abagen 0.1.3
        does: a curve for pairs within the cortex only, every other residual is 0.
    distances : pandas.DataFrame, optional
        Region x region, mm, from `region_distances`; between centroids if left out. Pairs whose distance
        is NaN stay out of the fit and are NaN.

    Returns
    -------
    pandas.DataFrame
        Region x region, symmetric. The diagonal stays as it was given and is in no fit; a pair that is NaN
        stays NaN and is in no fit either (abagen refuses a matrix with NaN). ``attrs["distance_correction"]``
        holds the choices and each curve's parameters.

    Raises
    ------
    ChoiceError
        If a choice is unknown, the matrix is not symmetric, or regions or classes are missing.

    Notes
    -----
    Curves are least-squares fits; the exponentials' are sought from AHBAprocessing's start and five others,
    and the lowest sum of squares counts. Two faults of AHBAprocessing are not repeated: its ``decay`` fails,
    and its ``removeMean`` leaves the farthest pair out of its bin's mean. A class pair with fewer pairs of
    regions than its curve has parameters leaves residuals of 0.
    """
    if correction not in DISTANCE_CORRECTIONS:
        raise ChoiceError(
            f"Unknown distance correction {correction!r}: choose {', '.join(DISTANCE_CORRECTIONS)}."
        )
    table = _checked(coexpression, atlas)
    rows, columns = np.triu_indices(len(table), k=1)
    alike = table[rows, columns]
    apart = _aligned_distances(coexpression.index, atlas, distances)[rows, columns]
    known = np.isfinite(alike) & np.isfinite(apart)
    groups, elsewhere = _groups(coexpression.index, atlas, structure_pairs)
    residual = np.where(known, elsewhere, np.nan)
    parameters = {}
    for name, members in groups:
        fitted = known & members[rows, columns]
        if fitted.any():
            fit = DISTANCE_CORRECTIONS[correction](apart[fitted], alike[fitted])
            residual[fitted] = alike[fitted] - fit.values
            parameters[name] = fit.parameters
    corrected = table.copy()
    corrected[rows, columns] = corrected[columns, rows] = residual
    return _labelled(corrected, coexpression, correction, structure_pairs, parameters)


def _labelled(
    corrected: Floats,
    like: pd.DataFrame,
    correction: str,
    structure_pairs: str | None,
    parameters: Mapping[str, dict[str, float]],
) -> pd.DataFrame:
    frame = pd.DataFrame(corrected, index=like.index, columns=like.columns)
    choices = {"correction": correction, "structure_pairs": structure_pairs, "parameters": dict(parameters)}
    frame.attrs["distance_correction"] = choices
    return frame


def _groups(
    regions: pd.Index, atlas: Atlas, structure_pairs: str | None
) -> tuple[Iterator[tuple[str, Booleans]], float]:
    """Name and (region, region) members of each group of pairs, and the residual of pairs in none."""
    if structure_pairs is None:
        return iter([("all", np.ones((len(regions), len(regions)), dtype=bool))]), np.nan
    if structure_pairs not in STRUCTURE_PAIRS:
        raise ChoiceError(
            f"Unknown structure_pairs {structure_pairs!r}: choose {', '.join(STRUCTURE_PAIRS)}, or None."
        )
    classes = atlas.regions.loc[regions, "structure"].to_numpy(object)
    if (classes == "").any():
        raise ChoiceError(
            f"Atlas {atlas.name!r} does not say the structure of region {regions[classes == ''][0]}: load it "
            "with atlas info, or pass structure_pairs=None."
        )
    grouping = STRUCTURE_PAIRS[structure_pairs]
    pairs = grouping.class_pairs(classes.tolist())
    return ((f"{one}, {other}", _members(classes, one, other)) for one, other in pairs), grouping.elsewhere


def _members(classes: NDArray[Any], one: str, other: str) -> Booleans:
    across = np.outer(classes == one, classes == other)
    both: Booleans = across | across.T
    return both


def _checked(coexpression: pd.DataFrame, atlas: Atlas) -> Floats:
    table: Floats = coexpression.to_numpy(dtype=np.float64)
    regions = coexpression.index
    if table.shape != (len(regions),) * 2 or not np.array_equal(regions, coexpression.columns):
        raise ChoiceError("Coexpression must be region x region, its rows and columns in the same order.")
    if not np.allclose(table, table.T, atol=1e-10, equal_nan=True):
        raise ChoiceError("Coexpression must be symmetric: give correlations between regions.")
    unknown = regions.difference(atlas.regions.index)
    if len(unknown):
        raise ChoiceError(f"Atlas {atlas.name!r} has no region {unknown[0]}: give the atlas of this table.")
    return table


def _aligned_distances(regions: pd.Index, atlas: Atlas, distances: pd.DataFrame | None) -> Floats:
    if distances is None:
        distances = region_distances(atlas)
    missing = regions.difference(distances.index.intersection(distances.columns))
    if len(missing):
        raise ChoiceError(f"The distances lack region {missing[0]}: measure them with the same atlas.")
    aligned: Floats = distances.loc[regions, regions].to_numpy(dtype=np.float64)
    return aligned
