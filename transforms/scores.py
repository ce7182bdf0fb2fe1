"""Scores that rank a gene's probes by their intensities: level, spread, loading, agreement with each other.

Every function takes the expression of whole genes (probes x samples, log2 intensity), the gene of each row
(rows of a gene adjacent) and the samples' table, and returns one score a probe; the largest is chosen.
Agreement between donors, and with RNA-seq, is in :mod:`transforms.stability`.
"""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from transforms import compiled
from transforms.lanes import lane_sum

Floats = NDArray[np.float64]

# Probes worked on together: few enough that what is derived from them stays in the processor's cache.
_PROBES_AT_ONCE = 128


def max_intensity(expression: Floats, genes: NDArray[Any], samples: pd.DataFrame) -> Floats:  # noqa: ARG001
    """Mean over the samples, shape (probes,), log2 intensity."""
    return _means(expression)


def max_variance(expression: Floats, genes: NDArray[Any], samples: pd.DataFrame) -> Floats:  # noqa: ARG001
    """Standard deviation (ddof=1) over the samples, shape (probes,); NaN for a single sample."""
    if expression.shape[1] < 2:
        return np.full(len(expression), np.nan)
    return _root(_squares(expression) / (expression.shape[1] - 1))


def coefficient_of_variation(expression: Floats, genes: NDArray[Any], samples: pd.DataFrame) -> Floats:
    """Standard deviation (ddof=1) over mean, of log2 intensities as they are (AHBAprocessing's ``CV``)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: Floats = max_variance(expression, genes, samples) / _means(expression)
    return ratio


def times_detected(detected: NDArray[np.bool_], genes: NDArray[Any], samples: pd.DataFrame) -> Floats:  # noqa: ARG001
    """How many samples have the probe above background (AHBAprocessing's ``LessNoise``), shape (probes,)."""
    counts: Floats = detected.sum(axis=1, dtype=np.float64)
    return counts


def random_number(
    nothing: Floats,  # noqa: ARG001
    genes: NDArray[Any],  # noqa: ARG001
    samples: pd.DataFrame,
    *,
    probe_id: NDArray[np.integer],
    seed: int,
) -> Floats:
    """One number a probe, uniform on 0..1, that depends on seed, donor and probe only.

    So neither the order of probes and donors, nor how they are shared out among workers, changes a draw.

    Parameters
    ----------
    nothing, genes : ndarray
        Not used.
    samples : pandas.DataFrame
        Samples of one donor.
    probe_id : (probes,) int array
    seed : int
    """
    donor = samples["donor"].iloc[0]
    digests = (hashlib.sha256(f"{seed} {donor} {probe}".encode()).digest() for probe in probe_id.tolist())
    return np.array([int.from_bytes(digest[:6], "big") for digest in digests], dtype=np.float64) / 2**48


def first_component_weight(expression: Floats, genes: NDArray[Any], samples: pd.DataFrame) -> Floats:  # noqa: ARG001
    """Size of each probe's coefficient in its gene's first principal component (AHBAprocessing's ``PC``).

    Each probe is centred over the samples. The published code chooses the largest signed coefficient after
    making the coefficient of largest size positive, which is the one of largest size. A lone probe has 1.
    """
    weights = np.ones(len(expression))
    for rows in _genes_of_equal_size(_starts(genes)):
        if rows.shape[1] > 1:
            blocks = expression[rows]
            centred = blocks - blocks.mean(axis=2, keepdims=True)
            weights[rows] = np.abs(np.linalg.svd(centred, full_matrices=False).U[:, :, 0])
    return weights


def pc_loading(expression: Floats, genes: NDArray[Any], samples: pd.DataFrame) -> Floats:  # noqa: ARG001
    """Score of each probe on its gene's first principal component, shape (probes,).

    Each sample is centred over the gene's probes. The component's sign, which no decomposition defines, is
    set so that its largest absolute entry is positive (abagen's rule). A lone probe scores 0, its deviation
    from itself.
    """
    scores = np.zeros(len(expression))
    for rows in _genes_of_equal_size(_starts(genes)):
        if rows.shape[1] > 1:
            scores[rows] = _first_component(expression[rows])
    return scores


def _first_component(blocks: Floats) -> Floats:
    """Scores on the first component of each (probes, samples) block of a stack, shape (blocks, probes)."""
    centred = blocks - blocks.mean(axis=1, keepdims=True)
    axis = np.linalg.svd(centred, full_matrices=False).Vh[:, 0, :]
    largest = np.abs(axis).argmax(axis=1)[:, np.newaxis]
    axis = axis * np.sign(np.take_along_axis(axis, largest, axis=1))
    scores: Floats = (centred @ axis[:, :, np.newaxis])[:, :, 0]
    return scores


def corr_intensity(expression: Floats, genes: NDArray[Any], samples: pd.DataFrame) -> Floats:  # noqa: ARG001
    """Agreement with the gene's other probes; of two, which agree equally, the mean."""
    return _agreement(expression, genes, _means)


def corr_variance(expression: Floats, genes: NDArray[Any], samples: pd.DataFrame) -> Floats:  # noqa: ARG001
    """Agreement with the gene's other probes; of two, which agree equally, the spread (ddof=0)."""
    return _agreement(expression, genes, _spreads)


def _agreement(expression: Floats, genes: NDArray[Any], of_two: Callable[[Floats], Floats]) -> Floats:
    """Mean of (r + 1)/2 over the gene's probes, itself included (a lone probe scores 1); `of_two` for two.

    A probe that is constant over the samples leaves all of its gene's correlations undefined (NaN).
    """
    scores = np.ones(len(expression))
    starts = _starts(genes)
    paired = np.repeat(np.diff(starts) == 2, np.diff(starts))
    scores[paired] = of_two(expression[paired])
    _agreements(expression, starts, scores)
    return scores


def _agreements(expression: Floats, starts: NDArray[np.intp], scores: Floats) -> None:
    """Fill in the scores of genes of three probes and more."""
    largest = np.diff(starts).max(initial=0)
    if largest < 3:
        return
    if compiled.scores is not None:
        scratch = np.empty((largest, expression.shape[1] + 1))
        compiled.scores.agreements(_in_rows(expression), starts, scratch, scores)
        return
    for rows in _genes_of_equal_size(starts):
        if rows.shape[1] > 2:
            agreements = (_correlations(expression[rows]) + 1) / 2
            total = np.zeros(rows.shape)
            for other in range(rows.shape[1]):
                total += agreements[:, :, other]
            scores[rows] = total / rows.shape[1]


def _correlations(blocks: Floats) -> Floats:
    """Pearson correlation between the rows of each block of a stack, shape (blocks, probes, probes)."""
    centred = blocks - (lane_sum(blocks) / blocks.shape[2])[:, :, np.newaxis]
    products = np.stack([lane_sum(centred * centred[:, [one]]) for one in range(blocks.shape[1])], axis=2)
    lengths = np.sqrt(np.diagonal(products, axis1=1, axis2=2))
    with np.errstate(invalid="ignore", divide="ignore"):
        correlations = products / (lengths[:, :, np.newaxis] * lengths[:, np.newaxis, :])
    bounded: Floats = np.clip(correlations, -1, 1)
    return bounded


def _starts(genes: NDArray[Any]) -> NDArray[np.intp]:
    """Where each gene's rows begin, and where the last ends."""
    return np.flatnonzero(np.r_[True, genes[1:] != genes[:-1], True])


def _genes_of_equal_size(starts: NDArray[np.intp]) -> Iterator[NDArray[np.integer]]:
    """Row numbers of genes with equally many probes, some genes at once: shape (genes, probes)."""
    sizes = np.diff(starts)
    for size in np.unique(sizes):
        rows = starts[:-1][sizes == size][:, np.newaxis] + np.arange(size)
        yield from np.array_split(rows, min(len(rows), rows.size // _PROBES_AT_ONCE + 1))


# Sums over samples: in an order that a processor is quick with ----------------------------------------------


def _means(values: Floats) -> Floats:
    """Mean of each row."""
    means = np.empty(len(values))
    if compiled.scores is None:
        np.divide(lane_sum(values), values.shape[1], out=means)
    else:
        compiled.scores.row_means(_in_rows(values), means)
    return means


def _spreads(values: Floats) -> Floats:
    """Standard deviation (ddof=0) of each row."""
    return _root(_squares(values) / values.shape[1])


def _root(values: Floats) -> Floats:
    root: Floats = np.sqrt(values)
    return root


def _squares(values: Floats) -> Floats:
    """Sum of the squares of each row's deviations from its mean."""
    if compiled.scores is None:
        parts = np.array_split(values, len(values) // _PROBES_AT_ONCE + 1)
        return np.concatenate([lane_sum((part - _means(part)[:, np.newaxis]) ** 2) for part in parts])
    squares = np.empty(len(values))
    compiled.scores.row_squares(_in_rows(values), np.empty(values.shape[1]), squares)
    return squares


def _in_rows(values: Floats) -> Floats:
    """As float64, each row's values side by side."""
    beside = values.dtype == np.float64 and values.strides[1] == values.itemsize
    return values if beside else np.ascontiguousarray(values, dtype=np.float64)
