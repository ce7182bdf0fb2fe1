"""Scores that rank a gene's probes by their intensities: level, spread, loading, agreement with each other.

Every function takes the expression of whole genes (probes x samples, log2 intensity), the gene of each row
(rows of a gene adjacent) and the samples' table, and returns one score a probe; the largest is chosen.
Agreement between donors, and with RNA-seq, is in :mod:`transforms.stability`.
"""

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Probes worked on together: few enough that what is derived from them stays in the processor's cache.
_PROBES_AT_ONCE = 128


def max_intensity(expression: Floats, genes: NDArray[Any], samples: pd.DataFrame) -> Floats:  # noqa: ARG001
    """Mean over the samples, shape (probes,), log2 intensity."""
    level: Floats = expression.mean(axis=1)
    return level


def max_variance(expression: Floats, genes: NDArray[Any], samples: pd.DataFrame) -> Floats:  # noqa: ARG001
    """Standard deviation (ddof=1) over the samples, shape (probes,); NaN for a single sample."""
    if expression.shape[1] < 2:
        return np.full(len(expression), np.nan)
    parts = np.array_split(expression, len(expression) // _PROBES_AT_ONCE + 1)
    return np.concatenate([part.std(axis=1, ddof=1) for part in parts])


def coefficient_of_variation(expression: Floats, genes: NDArray[Any], samples: pd.DataFrame) -> Floats:
    """Standard deviation (ddof=1) over mean, of log2 intensities as they are (AHBAprocessing's ``CV``)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: Floats = max_variance(expression, genes, samples) / expression.mean(axis=1)
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
    for rows in _genes_of_equal_size(genes):
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
    for rows in _genes_of_equal_size(genes):
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
    return _agreement(expression, genes, np.mean)


def corr_variance(expression: Floats, genes: NDArray[Any], samples: pd.DataFrame) -> Floats:  # noqa: ARG001
    """Agreement with the gene's other probes; of two, which agree equally, the spread (ddof=0)."""
    return _agreement(expression, genes, np.std)


def _agreement(expression: Floats, genes: NDArray[Any], of_two: Any) -> Floats:
    """Mean of (r + 1)/2 over the gene's probes, itself included (a lone probe scores 1); `of_two` for two.

    A probe that is constant over the samples leaves all of its gene's correlations undefined (NaN).
    """
    scores = np.ones(len(expression))
    for rows in _genes_of_equal_size(genes):
        if rows.shape[1] == 2:
            scores[rows] = of_two(expression[rows], axis=2)
        elif rows.shape[1] > 2:
            scores[rows] = ((_correlations(expression[rows]) + 1) / 2).mean(axis=2)
    return scores


def _correlations(blocks: Floats) -> Floats:
    """Pearson correlation between the rows of each block of a stack, shape (blocks, probes, probes)."""
    centred = blocks - blocks.mean(axis=2, keepdims=True)
    products = centred @ centred.transpose(0, 2, 1)
    lengths = np.sqrt(np.diagonal(products, axis1=1, axis2=2))
    with np.errstate(invalid="ignore", divide="ignore"):
        correlations = products / lengths[:, :, np.newaxis] / lengths[:, np.newaxis, :]
    bounded: Floats = np.clip(correlations, -1, 1)
    return bounded


def _genes_of_equal_size(genes: NDArray[Any]) -> Iterator[NDArray[np.integer]]:
    """Row numbers of genes with equally many probes, some genes at once: shape (genes, probes)."""
    starts = np.flatnonzero(np.r_[True, genes[1:] != genes[:-1]])
    sizes = np.diff(np.r_[starts, len(genes)])
    for size in np.unique(sizes):
        rows = starts[sizes == size][:, np.newaxis] + np.arange(size)
        yield from np.array_split(rows, min(len(rows), rows.size // _PROBES_AT_ONCE + 1))
