"""Normalising expression: each sample over the genes, then each gene over a donor's samples.

Raw intensities differ between probes, samples and donors by far more than between places in the
brain; every method here maps a vector (one gene over samples, or one sample over genes) to a common
scale. Two published conventions are offered side by side. They differ in how quartiles are
interpolated, in the constant that makes an interquartile range a standard deviation, and in what
becomes of constant and missing values:

``"linear"``
    abagen (Markello et al. 2021, eLife 10:e72129): a vector with a NaN becomes all NaN.
``"hazen"``
    AHBAprocessing (Arnatkeviciute et al. 2019, NeuroImage 189:353): NaN are left out and stay NaN.

In both, a vector that a method cannot normalise (constant, or too short) becomes NaN, unless said.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial, wraps
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from transforms import compiled
from transforms.blocks import take_columns
from transforms.errors import ChoiceError
from transforms.scaled import Groups, Scaled, as_array
from transforms.scaling import (
    FITS,
    HAZEN,
    LINEAR,
    QUANTILES,
    FloatArray,
    Quantiles,
    Scaling,
    fit_center,
    fit_minmax,
    fit_robust_sigmoid,
    fit_scaled_robust_sigmoid,
    fit_scaled_sigmoid,
    fit_sigmoid,
    fit_zscore,
    logistic,
    mean_and_std,
    median,
    median_and_scale,
    ordered_values,
    quantile,
    undefined_is_nan,
)

Normalization = Callable[[FloatArray], FloatArray]

# Values normalised at once by `normalize`: 1 MiB, so that a block and its sorted copy stay in a core's cache.
BLOCK_VALUES = 2**17

MOST_EQUAL_STEPS = 1_024  # of hampel's walk from the median, 32 times the 0.7 quantile of the deviations


@undefined_is_nan
def _rescale(values: FloatArray) -> FloatArray:
    """(x - min) / (max - min), written over ``values``."""
    low = values.min(axis=-1, keepdims=True)
    width = values.max(axis=-1, keepdims=True) - low
    values -= low
    values /= width
    return values


# Methods: each takes vectors along the last axis and returns new ones --------------------------------------


def center(values: FloatArray) -> FloatArray:
    """Subtract the mean."""
    return fit_center(values)(values)


def zscore(values: FloatArray) -> FloatArray:
    """(x - mean) / std, std with ddof 1."""
    return fit_zscore(values)(values)


def minmax(values: FloatArray) -> FloatArray:
    """(x - min) / (max - min); a constant vector becomes NaN (abagen)."""
    return fit_minmax(values)(values)


def unity(values: FloatArray) -> FloatArray:
    """(x - min) / (max - min); a constant vector becomes 0 (AHBAprocessing's ``maxmin``)."""
    constant = values.min(axis=-1, keepdims=True) == values.max(axis=-1, keepdims=True)
    return np.where(constant, 0.0, minmax(values))


def sigmoid(values: FloatArray) -> FloatArray:
    """1 / (1 + exp(-(x - mean) / std))."""
    return fit_sigmoid(values)(values)


def scaled_sigmoid(values: FloatArray) -> FloatArray:
    """`sigmoid`, then `minmax`."""
    return fit_scaled_sigmoid(values)(values)


def robust_sigmoid(values: FloatArray, quantiles: Quantiles = LINEAR) -> FloatArray:
    """1 / (1 + exp(-(x - median) / scale)) with scale = IQR / `Quantiles.normal_iqr`.

    Where the IQR is 0, values above the median become 1, below it 0, and the median itself NaN.
    Source: Fulcher & Fornito 2016, PNAS 113:1435.
    """
    return fit_robust_sigmoid(values, quantiles)(values)


def scaled_robust_sigmoid(values: FloatArray, quantiles: Quantiles = LINEAR) -> FloatArray:
    """`robust_sigmoid`, then `minmax`.

    Source: Fulcher, Little & Jones 2013, J. R. Soc. Interface 10:20130048.
    """
    return fit_scaled_robust_sigmoid(values, quantiles)(values)


def mixed_sigmoid(values: FloatArray, quantiles: Quantiles = LINEAR) -> FloatArray:
    """`scaled_sigmoid` where the IQR is 0, else `scaled_robust_sigmoid`; what neither defines becomes 0."""
    centre, scale = median_and_scale(ordered_values(values), quantiles)
    result = _rescale(logistic(values, centre, scale))
    flat = scale[..., 0] == 0
    result[flat] = scaled_sigmoid(values[flat])
    result[np.isnan(result)] = 0.0
    return result


def scaled_sigmoid_quantiles(values: FloatArray, quantiles: Quantiles = LINEAR) -> FloatArray:
    """Sigmoid and minmax of all values, with mean and std of those within the 5th .. 95th percentile."""
    ordered = ordered_values(values)
    low, high = (quantile(ordered, q, quantiles)[..., None] for q in (0.05, 0.95))
    return _rescale(logistic(values, *mean_and_std(values, (values >= low) & (values <= high))))


def abagen_scaled_sigmoid_quantiles(values: FloatArray) -> FloatArray:
    """`scaled_sigmoid_quantiles` as abagen's masked arrays leave it: 1 where it is undefined.

    So a constant vector, one with a NaN, and one of three or fewer values (at most one of which lies
    within the percentiles) become all 1.
    """
    result = scaled_sigmoid_quantiles(values)
    result[np.isnan(result)] = 1.0
    return result


@undefined_is_nan
def hampel(values: FloatArray, quantiles: Quantiles = HAZEN) -> FloatArray:
    """Tanh estimator (tanh(0.1 (x - location) / scale) + 1) / 2 around Hampel's redescending M-estimate.

    The corners of psi are the 0.70, 0.85 and 0.95 quantiles of abs(x - median); location is the root of
    sum psi(x - location) nearest to the median, scale the root mean square of psi there. Where the
    scale is 0, values equal to the location become NaN. Source: AHBAprocessing's ``Norm_hampel``.
    """
    middle = median(ordered_values(values))[..., None]
    deviations = ordered_values(np.abs(values - middle))
    corners = [quantile(deviations, q, quantiles)[..., None] for q in (0.70, 0.85, 0.95)]
    location = _root(
        lambda guess: _psi(values - guess, *corners).sum(axis=-1, keepdims=True), middle, corners[0]
    )
    scale = np.sqrt(np.square(_psi(values - location, *corners)).mean(axis=-1, keepdims=True))
    result: FloatArray = 0.5 * (np.tanh(0.1 * (values - location) / scale) + 1)
    return result


@undefined_is_nan
def _psi(residuals: FloatArray, a: FloatArray, b: FloatArray, c: FloatArray) -> FloatArray:
    """Hampel's three-part function: the residual up to a, then a, falling to 0 from b to c."""
    size = np.abs(residuals)
    falling = np.where(size < c, a * (c - size) / (c - b), 0.0)
    return np.sign(residuals) * np.where(size < b, np.minimum(size, a), falling)


@undefined_is_nan
def _root(function: Callable[[FloatArray], FloatArray], start: FloatArray, width: FloatArray) -> FloatArray:
    """Nearest sign change of a piecewise linear function, walking from ``start`` towards its sign.

    Steps of width / 32 find the bracket, longer ones where it is farther than measurements have it (nearly
    equal values with a few others among them); the Illinois variant of regula falsi, which is exact on a
    linear piece, closes it. A vector that has settled stays as it is, whatever its neighbours need.
    """
    near, at_near = start, function(start)
    step = np.sign(at_near) * width / 32
    far, at_far = near + step, function(near + step)
    n_steps = 0
    while np.any(open_ := at_near * at_far > 0):
        n_steps += 1
        step = step * 2 if n_steps > MOST_EQUAL_STEPS else step
        near, at_near = np.where(open_, far, near), np.where(open_, at_far, at_near)
        far = np.where(open_, far + step, far)
        at_far = function(far)
    moving = at_far != 0
    for _ in range(60):
        middle = np.where(moving, far - at_far * (far - near) / (at_far - at_near), far)
        at_middle = function(middle)
        crossed = at_middle * at_far < 0
        near, at_near = np.where(crossed, far, near), np.where(crossed, at_far, at_near / 2)
        moving &= np.abs(far - middle) > 1e-15 * np.abs(middle)
        far, at_far = middle, at_middle
        if not moving.any():
            break
    return far


def _leaving_out_nan(method: Normalization) -> Normalization:
    """Apply ``method`` to the values that are there; NaN stay NaN."""

    @wraps(method)
    def normalization(values: FloatArray) -> FloatArray:
        result = method(values)
        present = ~np.isnan(values)
        for index in map(tuple, np.argwhere(~present.all(axis=-1))):
            vector, there = values[index], present[index]
            result[index] = np.nan
            if there.any():
                result[index][there] = method(vector[there])
        return result

    return normalization


def _all_or_nothing(method: Normalization) -> Normalization:
    """Make a vector all NaN where ``method`` leaves any of its values undefined."""

    @wraps(method)
    def normalization(values: FloatArray) -> FloatArray:
        result = method(values)
        result[np.isnan(result).any(axis=-1)] = np.nan
        return result

    return normalization


# Tables ----------------------------------------------------------------------------------------------------

NORMALIZATIONS: dict[str, Normalization] = {
    "center": center,
    "zscore": zscore,
    "minmax": minmax,
    "sigmoid": sigmoid,
    "scaled_sigmoid": scaled_sigmoid,
    "scaled_sigmoid_quantiles": abagen_scaled_sigmoid_quantiles,
    "robust_sigmoid": robust_sigmoid,
    "scaled_robust_sigmoid": scaled_robust_sigmoid,
    "mixed_sigmoid": mixed_sigmoid,
    "hampel": partial(hampel, quantiles=LINEAR),
}
"""abagen's methods with linear quantiles: name -> function of float64 vectors along the last axis."""

HAZEN_NORMALIZATIONS: dict[str, Normalization] = {
    "center": center,
    "zscore": _leaving_out_nan(zscore),
    "minmax": _leaving_out_nan(unity),
    "sigmoid": _leaving_out_nan(sigmoid),
    "scaled_sigmoid": _leaving_out_nan(scaled_sigmoid),
    "scaled_sigmoid_quantiles": _leaving_out_nan(partial(scaled_sigmoid_quantiles, quantiles=HAZEN)),
    "robust_sigmoid": _leaving_out_nan(_all_or_nothing(partial(robust_sigmoid, quantiles=HAZEN))),
    "scaled_robust_sigmoid": _leaving_out_nan(partial(scaled_robust_sigmoid, quantiles=HAZEN)),
    "mixed_sigmoid": _leaving_out_nan(partial(mixed_sigmoid, quantiles=HAZEN)),
    "hampel": _leaving_out_nan(partial(hampel, quantiles=HAZEN)),
}
"""AHBAprocessing's methods under abagen's names (its ``BF_NormalizeMatrix``)."""

NORMALIZATIONS_BY_QUANTILES = {"linear": NORMALIZATIONS, "hazen": HAZEN_NORMALIZATIONS}

BATCH = "batch"
"""The method that needs all donors at once: `remove_donor_effects`."""

ABAGEN_ALIASES = {
    "demean": "center",
    "sig": "sigmoid",
    "scaled_sig": "scaled_sigmoid",
    "scaled_sig_qnt": "scaled_sigmoid_quantiles",
    "rs": "robust_sigmoid",
    "rsig": "robust_sigmoid",
    "srs": "scaled_robust_sigmoid",
    "scaled_rsig": "scaled_robust_sigmoid",
    "mixed_sig": "mixed_sigmoid",
}
ARNATKEVICIUTE_ALIASES = {
    "subtractMean": "center",
    "maxmin": "minmax",
    "scaledSigmoid": "scaled_sigmoid",
    "robustSigmoid": "robust_sigmoid",
    "scaledRobustSigmoid": "scaled_robust_sigmoid",
    "mixedSigmoid": "mixed_sigmoid",
    "scaledsigmoid5q": "scaled_sigmoid_quantiles",
}
ALIASES = ABAGEN_ALIASES | ARNATKEVICIUTE_ALIASES
"""abagen's short names, and those of AHBAprocessing's ``BF_NormalizeMatrix``."""


def canonical_name(name: str) -> str:
    """Full name of a normalisation, from its full or short name (``"srs"`` -> ``"scaled_robust_sigmoid"``).

    Raises
    ------
    ChoiceError
        If there is no such normalisation.
    """
    accepted = [*NORMALIZATIONS, BATCH, *ALIASES]
    if name not in accepted:
        raise ChoiceError(f"Unknown normalisation {name!r}: choose one of {', '.join(accepted)}, or None.")
    return ALIASES.get(name, name)


# What the pipeline calls -----------------------------------------------------------------------------------


def normalize(
    values: ArrayLike,
    method: str | None,
    *,
    axis: int = -1,
    quantiles: str = "linear",
    out: FloatArray | None = None,
) -> FloatArray:
    """Normalise every vector along one axis.

    Works block by block, so that its memory is the input, the output and a few MiB.

    Parameters
    ----------
    values : array of any shape
        Expression, e.g. (gene, sample).
    method : str or None
        A name of `NORMALIZATIONS` or `ALIASES`; None copies the values unchanged.
    axis : int
        -1 normalises each gene of a (gene, sample) array over its samples, 0 each sample over its genes.
    quantiles : {"linear", "hazen"}
        abagen's or AHBAprocessing's convention.
    out : float64 array of the same shape, optional
        Where to write; may be ``values`` itself.

    Returns
    -------
    float64 array of the same shape

    Raises
    ------
    ChoiceError
        If the method or the convention is unknown, or the method is ``"batch"``.
    """
    values = np.asarray(values, dtype=np.float64)
    function = _function(method, quantiles)
    out = np.empty_like(values) if out is None else out
    rows = np.atleast_2d(np.moveaxis(values, axis, -1))
    into = np.atleast_2d(np.moveaxis(out, axis, -1))
    fit = FITS.get(canonical_name(method)) if method is not None and quantiles == "linear" else None
    for block in _blocks(rows.shape):
        vectors = np.ascontiguousarray(rows[block])
        if fit is not None:
            fit(vectors)(vectors, out=into[block])
        else:
            into[block] = function(vectors)
    return out


def normalize_within(
    values: FloatArray,
    method: str | None,
    groups: NDArray[Any] | None = None,
    *,
    quantiles: str = "linear",
) -> FloatArray:
    """Normalise each gene over the samples of each group by itself (abagen's ``norm_structures``).

    Parameters
    ----------
    values : (gene, sample) float64 array
        Expression of one donor.
    method : str or None
        As for `normalize`.
    groups : (sample,) array, optional
        Structure class of each sample, ``""`` for none; None takes all samples as one group.
    quantiles : {"linear", "hazen"}
        As for `normalize`.

    Returns
    -------
    (gene, sample) float64 array
        As in abagen, samples without a class are NaN, and samples that are NaN in every gene stay NaN
        without touching the others.

    Raises
    ------
    ChoiceError
        As `normalize`.
    """
    samples = Groups.of(np.arange(values.shape[1]), groups)
    return as_array(scaled_within(values, method, samples, quantiles=quantiles))


def scaled_within(
    values: FloatArray,
    method: str | None,
    groups: Groups,
    *,
    quantiles: str = "linear",
    order: NDArray[np.uint16] | None = None,
) -> FloatArray | Scaled:
    """`normalize_within` of some columns, by methods that allow it not before samples are asked for.

    Parameters are those of `normalize_within`, but for ``groups``, which also tells which of the values,
    (gene, column), the samples are; and ``order``, in which they ascend, where it is known. Gives a `Scaled`,
    or a (gene, sample) float64 array.
    """
    if quantiles == "linear" and method is not None and canonical_name(method) in FITS and values.size:
        return _lazily(values, FITS[canonical_name(method)], groups, order)
    values = take_columns(values, groups.at)
    if method is None or not values.size:
        return normalize(values, method, quantiles=quantiles)
    members = groups.without(_missing_samples(values)).members
    if len(members) == 1 and len(members[0]) == values.shape[1]:
        return normalize(values, method, quantiles=quantiles)
    result = np.full(values.shape, np.nan)
    for inside in members:
        for (genes,) in _blocks((len(values), len(inside))):
            part = values[genes].take(inside, axis=1)
            _put_columns(normalize(part, method, quantiles=quantiles, out=part), inside, result[genes])
    return result


def _lazily(
    values: FloatArray,
    fit: Callable[[FloatArray], Scaling],
    groups: Groups,
    order: NDArray[np.uint16] | None,
) -> FloatArray | Scaled:
    if np.isnan(values[0, groups.at]).any():
        groups = groups.without(_missing_samples(take_columns(values, groups.at)))
    if not groups.members:
        return np.full((len(values), len(groups.columns)), np.nan)
    return Scaled(values, groups, fit, order)


def _put_columns(values: FloatArray, columns: NDArray[np.integer], out: FloatArray) -> None:
    if compiled.kernels is None:
        out[:, columns] = values
    else:
        compiled.kernels.put_columns(values, columns, out)


def remove_donor_effects(values: FloatArray, donor: NDArray[Any]) -> FloatArray:
    """Residual of a linear donor model over all donors, intercept kept (abagen's ``batch``).

    abagen fits y = donor columns + intercept by minimum-norm least squares and subtracts the donor
    columns. That fit has a closed form: with m_d the mean of donor d's samples and k donors, the
    intercept is sum(m_d) / (k + 1), and the residual x - m_d + intercept.

    Parameters
    ----------
    values : (.., sample) float64 array
        Expression of all donors' samples.
    donor : (sample,) array
        Donor of each sample.

    Returns
    -------
    (.., sample) float64 array
        A gene with a NaN is NaN throughout; samples that are NaN in every gene are left out.

    Raises
    ------
    ChoiceError
        If there are fewer than two donors.
    """
    donor, usable = np.asarray(donor), ~_missing_samples(values)
    members = {str(name): np.flatnonzero(usable & (donor == name)) for name in np.unique(donor[usable])}
    effects = donor_effects({name: values[..., columns].mean(axis=-1) for name, columns in members.items()})
    result = np.full(values.shape, np.nan)
    for name, columns in members.items():
        result[..., columns] = values[..., columns] - effects[name][..., None]
    return result


def donor_means(values: FloatArray) -> FloatArray:
    """Mean over the last axis, without samples that are NaN in every gene; NaN if none is left."""
    usable = ~_missing_samples(values)
    with np.errstate(invalid="ignore"):
        means: FloatArray = np.divide(values[..., usable].sum(axis=-1), usable.sum())
    return means


def donor_effects(means: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """Turn donors' means into what `remove_donor_effects` takes off each donor's samples.

    Raises
    ------
    ChoiceError
        If there are fewer than two donors.
    """
    refuse_single_donors(list(means))
    intercept = np.sum(list(means.values()), axis=0) / (len(means) + 1)
    return {donor: mean - intercept for donor, mean in means.items()}


def refuse_single_donors(donors: Sequence[str]) -> None:
    """See that there are donors whose effects can be told apart.

    Raises
    ------
    ChoiceError
        If there are fewer than two.
    """
    if len(donors) < 2:
        found = ", ".join(donors) or "none"
        raise ChoiceError(f"Normalisation 'batch' needs two or more donors with samples, found {found}.")


def _function(method: str | None, quantiles: str) -> Normalization:
    """Look a method up in the table of its quantile convention."""
    if quantiles not in QUANTILES:
        raise ChoiceError(f"Unknown quantiles {quantiles!r}: choose one of {', '.join(QUANTILES)}.")
    if method is None:
        return lambda values: values
    name = canonical_name(method)
    if name == BATCH:
        raise ChoiceError(
            "Normalisation 'batch' is a model over all donors' genes: use it as gene_norm only."
        )
    return NORMALIZATIONS_BY_QUANTILES[quantiles][name]


def _missing_samples(values: FloatArray) -> NDArray[np.bool_]:
    """Mark samples that are NaN in every gene; only those that are NaN in the first need a second look."""
    if not values.size:
        return np.zeros(values.shape[-1], dtype=np.bool_)
    leading = tuple(range(values.ndim - 1))
    missing: NDArray[np.bool_] = np.isnan(np.atleast_1d(values[(0,) * len(leading)]))
    missing[missing] = np.isnan(values[..., missing]).all(axis=leading)
    return missing


def _blocks(shape: tuple[int, ...]) -> Iterator[tuple[Any, ...]]:
    """Indices of blocks of about `BLOCK_VALUES` values that together cover all vectors of the last axis."""
    *leading, rows, length = shape
    size = max(1, BLOCK_VALUES // max(length, 1))
    starts = range(0, rows if length else 0, size)
    for index in np.ndindex(*leading):
        for start in starts:
            yield (*index, slice(start, start + size))
