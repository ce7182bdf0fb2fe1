"""Record what abagen 0.1.3 makes of small invented matrices, for tests/test_normalize.py.

Run with the Python of an environment that has abagen 0.1.3, numpy < 1.24 and pandas < 2:

    peer/bin/python tests/data/record_abagen_normalize.py

It rewrites abagen_normalize.json beside this file. NaN is written as null.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from abagen.correct import NORMALIZATION_METHODS, _batch_correct, normalize_expression


def plain(array):
    return [None if np.isnan(value) else float(value) for value in np.ravel(array)]


def invented_matrices():
    """Sample x gene matrices of invented numbers."""
    random = np.random.default_rng(20250101)
    usual = random.normal(7, 2, (6, 7)).round(3)
    usual[:, 1] = 5.0  # constant
    usual[:5, 2] = 3.0  # interquartile range of 0
    usual[2, 3] = np.nan  # a missing value
    usual[:, 4] = usual[:, 4].round()  # ties
    usual[0, 5] = 1000.0  # an outlier
    long = random.normal(7, 2, (23, 4)).round(3)
    long[3:20, 1] = 4.0
    long[1:, 2] = 2.0
    return {
        "usual": usual,
        "long": long,
        "one sample": usual[:1],
        "two samples": usual[:2],
        "three samples": usual[1:4],
    }


def synonyms():
    """Groups of names of one method."""
    groups = {}
    for name, method in NORMALIZATION_METHODS.items():
        groups.setdefault(id(method), []).append(name)
    return list(groups.values())


def record(matrix):
    with np.errstate(all="ignore"):
        normalized = {names[0]: plain(NORMALIZATION_METHODS[names[0]](matrix.copy())) for names in synonyms()}
    return {"shape": matrix.shape, "values": plain(matrix), "normalized": normalized}


def record_structures(matrix):
    """Structure classes, one unknown, and a sample that is NaN in every gene."""
    matrix = matrix.copy()
    matrix[4] = np.nan
    structures = ["cortex", "cerebellum", None] * 7 + ["cortex", "cortex"]
    index = pd.RangeIndex(1, len(matrix) + 1)
    normalized = {
        method: plain(
            normalize_expression(
                pd.DataFrame(matrix, index=index),
                method,
                structures=pd.DataFrame({"structure": structures}, index=index),
                ignore_warn=True,
            )
        )
        for method in ("srs", "zscore", "mixed_sig", "scaled_sig_qnt")
    }
    return {
        "shape": matrix.shape,
        "values": plain(matrix),
        "structures": [structure or "" for structure in structures],
        "normalized": normalized,
    }


def record_batch(matrix):
    donors = np.repeat([0, 1, 2], [9, 6, 8])
    split = [pd.DataFrame(matrix[donors == donor]) for donor in range(3)]
    return {
        "shape": matrix.shape,
        "values": plain(matrix),
        "donor": donors.tolist(),
        "corrected": plain(np.vstack(_batch_correct(split))),
    }


if __name__ == "__main__":
    matrices = invented_matrices()
    recorded = {
        "synonyms": synonyms(),
        "matrices": {name: record(matrix) for name, matrix in matrices.items()},
        "structures": record_structures(matrices["long"]),
        "batch": record_batch(matrices["long"]),
    }
    text = json.dumps(recorded, separators=(",", ":"))
    Path(__file__).with_name("abagen_normalize.json").write_text(text + "\n")
