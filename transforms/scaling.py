"""Normalisations that are one function of a value: fitted to each vector, then applied to any of its values.

What a vector's other values matter for is a few numbers (its median, its range, ..). Fitting them apart from
applying them lets samples be normalised without turning the matrix round, and a model's test samples by what
its training samples say.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from transforms import compiled
from transforms.exponential import exponential
from transforms.lanes import lane_sum
from transforms.ranks import Picked

FloatArray = NDArray[np.float64]
Sorted = FloatArray | Picked
"""Sorted vectors along the last axis, or those places of them that are looked at."""

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Quantiles(NamedTuple):
    """A convention for quantiles, and for turning an interquartile range into a standard deviation."""

    position: Callable[[int, float], float]
    """Place of quantile q among n sorted values, counted from 0 and not yet clamped to 0 .. n - 1."""
    normal_iqr: float
    """Interquartile range of the standard normal distribution."""


QUANTILES = {
    "linear": Quantiles(position=lambda n, q: (n - 1) * q, normal_iqr=1.3489795003921634),
    "hazen": Quantiles(position=lambda n, q: n * q - 0.5, normal_iqr=1.35),
}
LINEAR, HAZEN = QUANTILES["linear"], QUANTILES["hazen"]
QUARTILES = (0.25, 0.75)


def undefined_is_nan(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Let divisions by 0 and saturated exponentials pass without a warning: their results are meant."""

    @wraps(function)
    def quiet(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return function(*args, **kwargs)

    return quiet


# What is known of a vector ---------------------------------------------------------------------------------


def ordered_values(values: FloatArray, *, in_place: bool = False) -> FloatArray:
    """Vectors sorted, in a copy or in their place; a vector with a NaN becomes all NaN."""
    ordered = values if in_place else values.copy()
    ordered.sort(axis=-1)
    ordered[np.isnan(ordered[..., -1])] = np.nan
    return ordered


def quantile(ordered: Sorted, q: float, quantiles: Quantiles) -> FloatArray:
    """Quantile q of sorted vectors; from the nearer end, as numpy, so that linear ones equal its last bit."""
    below, above, share = _place(ordered.shape[-1], q, quantiles)
    low, high = ordered[..., below], ordered[..., above]
    result: FloatArray = low + (high - low) * share if share < 0.5 else high - (high - low) * (1 - share)
    return result


def _place(count: int, q: float, quantiles: Quantiles) -> tuple[int, int, float]:
    """The sorted values that quantile q lies between, and how far from the lower to the higher one."""
    last = count - 1
    position = min(max(quantiles.position(count, q), 0.0), float(last))
    below = int(position)
    return below, min(below + 1, last), position - below


def median(ordered: Sorted) -> FloatArray:
    """Median of sorted vectors; 0, never -0, for which of the two zeros comes first is not known."""
    count = ordered.shape[-1]
    middle: FloatArray = (ordered[..., (count - 1) // 2] + ordered[..., count // 2]) / 2 + 0.0
    return middle


def robust_places(count: int, quantiles: Quantiles = LINEAR) -> list[int]:
    """What of sorted vectors the robust sigmoids look at: their ends, and around the median and quartiles."""
    quartiles = [place for q in QUARTILES for place in _place(count, q, quantiles)[:2]]
    return [0, count - 1, (count - 1) // 2, count // 2, *quartiles]


def quartile_shares(count: int, quantiles: Quantiles = LINEAR) -> FloatArray:
    """How far from the lower to the higher of two sorted values either quartile is, (2,)."""
    return np.array([_place(count, q, quantiles)[2] for q in QUARTILES])


def median_and_scale(ordered: Sorted, quantiles: Quantiles) -> tuple[FloatArray, FloatArray]:
    """Median, and interquartile range in standard deviations, of each sorted vector."""
    first, third = (quantile(ordered, q, quantiles) for q in QUARTILES)
    width = third - first + 0.0  # never -0, whose logistic function would fall
    return median(ordered)[..., None], (width / quantiles.normal_iqr)[..., None]


@undefined_is_nan
def mean_and_std(
    values: FloatArray, inside: NDArray[np.bool_] | None = None
) -> tuple[FloatArray, FloatArray]:
    """Mean and standard deviation (ddof 1) of each vector, or of its values ``inside``, (.., 1).

    The deviation of equal values is NaN, not the rounding error that summing them would leave.
    """
    if inside is not None:
        return _mean_and_std_inside(values, inside)
    mean, std = np.empty((2, *values.shape[:-1], 1))
    if compiled.scaling is not None and _is_matrix(values) and values.size:
        compiled.scaling.mean_and_std(values, mean, std)
        return mean, std
    count = values.shape[-1]
    mean = np.divide(lane_sum(values), count)[..., None]
    std = np.sqrt(np.divide(lane_sum(np.square(values - mean)), count - 1))[..., None]
    std[_are_equal(values, True)] = np.nan
    return mean, std


def _mean_and_std_inside(values: FloatArray, inside: NDArray[np.bool_]) -> tuple[FloatArray, FloatArray]:
    count = inside.sum(axis=-1, keepdims=True)
    mean = np.divide(values.sum(axis=-1, keepdims=True, where=inside), count)
    squares = np.square(values - mean).sum(axis=-1, keepdims=True, where=inside)
    std = np.sqrt(squares / (count - 1))
    std[_are_equal(values, inside)] = np.nan
    return mean, std


def _are_equal(values: FloatArray, inside: Any) -> NDArray[np.bool_]:
    """Mark vectors whose values inside are one number, or none; (.., 1)."""
    lowest = values.min(axis=-1, keepdims=True, where=inside, initial=np.inf)
    highest = values.max(axis=-1, keepdims=True, where=inside, initial=-np.inf)
    return np.asarray(lowest >= highest)


# Functions of a value --------------------------------------------------------------------------------------


@undefined_is_nan
def logistic(
    values: FloatArray,
    centre: FloatArray,
    scale: FloatArray,
    low: FloatArray | None = None,
    width: FloatArray | None = None,
    *,
    out: FloatArray | None = None,
) -> FloatArray:
    """1 / (exp(-(x - centre) / scale) + 1), less ``low`` and divided by ``width``.

    One division more for each value would take a fifth more time: values are multiplied by 1 / scale.
    """
    values = np.asarray(values, dtype=np.float64)
    out = np.empty(values.shape) if out is None else out
    per_scale = 1 / scale
    if compiled.scaling is not None and _are_matrices(values, centre, out):
        if low is None:
            compiled.scaling.logistic(values, centre, per_scale, out)
        else:
            compiled.scaling.scaled_logistic(values, centre, per_scale, low, width, out)
        return out
    np.divide(1, exponential((centre - values) * per_scale) + 1, out=out)
    if low is not None and width is not None:
        out -= low
        out /= width
    return out


@undefined_is_nan
def linear(
    values: FloatArray, centre: FloatArray, scale: FloatArray | None = None, *, out: FloatArray | None = None
) -> FloatArray:
    """(x - centre) / scale."""
    out = np.empty(values.shape) if out is None else out
    if compiled.scaling is not None and scale is not None and _are_matrices(values, centre, out):
        compiled.scaling.linear(values, centre, scale, out)
        return out
    np.subtract(values, centre, out=out)
    return out if scale is None else np.divide(out, scale, out=out)


def _is_matrix(values: FloatArray) -> bool:
    """Whether these are float64 rows one after the other in memory."""
    return values.ndim == 2 and values.dtype == np.float64 and values.flags.c_contiguous


def _are_matrices(values: FloatArray, centre: FloatArray, out: FloatArray) -> bool:
    """Whether both are, with a centre for each row or each column."""
    return (
        _is_matrix(values)
        and out.flags.c_contiguous
        and centre.dtype == np.float64
        and centre.shape in ((len(values), 1), (1, values.shape[1]))
    )


class Scaling(NamedTuple):
    """A function of a value for each vector.

    Attributes
    ----------
    function : callable
        `logistic` or `linear`.
    centre : (.., 1) float64 array
        A row a vector.
    scale : (.., 1) float64 array or None
    low, width : (.., 1) float64 array or None
        Taken off, and divided by, afterwards.
    """

    function: Callable[..., FloatArray]
    centre: FloatArray
    scale: FloatArray | None = None
    low: FloatArray | None = None
    width: FloatArray | None = None

    def __call__(self, values: FloatArray, out: FloatArray | None = None) -> FloatArray:
        """Values of each vector, (.., n), to the same scaled: in a new array, or ``out``."""
        return self.function(values, **self.numbers(), out=out)

    def turned(self) -> "Scaling":
        """The same for vectors that are columns."""
        changed = {name: part.T for name, part in self.numbers().items()}
        return Scaling(self.function, **changed)

    def of(self, vectors: NDArray[np.integer] | slice) -> "Scaling":
        """The same of some of the vectors."""
        return Scaling(self.function, **{name: part[vectors] for name, part in self.numbers().items()})

    def numbers(self) -> dict[str, FloatArray]:
        """What was fitted, by name."""
        named = zip(self._fields[1:], self[1:], strict=True)
        return {name: part for name, part in named if part is not None}

    def by_column(self, values: FloatArray) -> FloatArray:
        """The same for vectors that are the columns of a (row, vector) array."""
        return self.turned()(values)


def joined(scalings: list[Scaling]) -> Scaling:
    """The scalings of several groups of vectors as one."""
    parts = [scaling.numbers() for scaling in scalings]
    numbers = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return Scaling(scalings[0].function, **numbers)


# Fitting: vectors along the last axis -> their scaling -----------------------------------------------------


def fit_center(values: FloatArray) -> Scaling:
    """X - mean."""
    return Scaling(linear, values.mean(axis=-1, keepdims=True))


def fit_zscore(values: FloatArray) -> Scaling:
    """(x - mean) / std, std with ddof 1."""
    return Scaling(linear, *mean_and_std(values))


@undefined_is_nan
def fit_minmax(values: FloatArray) -> Scaling:
    """(x - min) / (max - min)."""
    low = values.min(axis=-1, keepdims=True)
    return Scaling(linear, low, values.max(axis=-1, keepdims=True) - low)


def fit_sigmoid(values: FloatArray) -> Scaling:
    """1 / (1 + exp(-(x - mean) / std))."""
    return Scaling(logistic, *mean_and_std(values))


def fit_scaled_sigmoid(values: FloatArray) -> Scaling:
    """`fit_sigmoid`, then to 0 .. 1."""
    extremes = values.min(axis=-1, keepdims=True), values.max(axis=-1, keepdims=True)
    return _to_unit_range(fit_sigmoid(values), *extremes)


def fit_robust_sigmoid(values: FloatArray, quantiles: Quantiles = LINEAR) -> Scaling:
    """1 / (1 + exp(-(x - median) / scale)) with scale = IQR / `Quantiles.normal_iqr`."""
    return robust_sigmoid_of(ordered_values(values), quantiles)


def fit_scaled_robust_sigmoid(values: FloatArray, quantiles: Quantiles = LINEAR) -> Scaling:
    """`fit_robust_sigmoid`, then to 0 .. 1; one sort gives all that is needed."""
    return scaled_robust_sigmoid_of(ordered_values(values), quantiles)


def robust_sigmoid_of(ordered: Sorted, quantiles: Quantiles = LINEAR) -> Scaling:
    """`fit_robust_sigmoid` to sorted vectors."""
    return _fitted_in_c(ordered, quantiles, 2) or Scaling(logistic, *median_and_scale(ordered, quantiles))


def scaled_robust_sigmoid_of(ordered: Sorted, quantiles: Quantiles = LINEAR) -> Scaling:
    """`fit_scaled_robust_sigmoid` to sorted vectors."""
    scaling = _fitted_in_c(ordered, quantiles, 4)
    if scaling is not None:
        return scaling
    scaling = Scaling(logistic, *median_and_scale(ordered, quantiles))
    return _to_unit_range(scaling, ordered[..., :1].copy(), ordered[..., -1:].copy())


def _fitted_in_c(ordered: Sorted, quantiles: Quantiles, n_numbers: int) -> Scaling | None:
    """A robust sigmoid's first numbers: median, scale, low and width; None where the kernel does not fit."""
    values, count = ordered.values if isinstance(ordered, Picked) else ordered, ordered.shape[-1]
    if compiled.scaling is None or not values.size or not _is_matrix(values):
        return None
    places = np.array(robust_places(count, quantiles), dtype=np.intp)
    fitted = np.empty((n_numbers, len(values), 1))
    columns = ordered.columns_of(places) if isinstance(ordered, Picked) else places
    shares = quartile_shares(count, quantiles)
    compiled.scaling.robust_sigmoid(values, columns, shares, quantiles.normal_iqr, fitted)
    return Scaling(logistic, *fitted)


@undefined_is_nan
def _to_unit_range(scaling: Scaling, lowest: FloatArray, highest: FloatArray) -> Scaling:
    """The sigmoid ascends, so the extremes of its results are the results of the extremes.

    But for a scale of 0, whose centre has no result, and with it no vector that holds it.
    """
    low = scaling(lowest)
    if scaling.scale is not None:
        low[scaling.scale == 0] = np.nan
    return scaling._replace(low=low, width=scaling(highest) - low)


FITS: dict[str, Callable[[FloatArray], Scaling]] = {
    "center": fit_center,
    "zscore": fit_zscore,
    "minmax": fit_minmax,
    "sigmoid": fit_sigmoid,
    "scaled_sigmoid": fit_scaled_sigmoid,
    "robust_sigmoid": fit_robust_sigmoid,
    "scaled_robust_sigmoid": fit_scaled_robust_sigmoid,
}
"""abagen's methods that are one function of a value, with linear quantiles."""

FITS_TO_SORTED: dict[Callable[[FloatArray], Scaling], Callable[[Sorted], Scaling]] = {
    fit_robust_sigmoid: robust_sigmoid_of,
    fit_scaled_robust_sigmoid: scaled_robust_sigmoid_of,
}
"""Those of `FITS` that sort vectors, and what they do then, looking at `robust_places` only."""
