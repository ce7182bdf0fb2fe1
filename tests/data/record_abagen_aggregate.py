"""Record how abagen 0.1.3 aggregates small invented matrices with NaN, for tests/test_aggregate.py.

Run with the Python of an environment that has abagen 0.1.3, numpy < 1.24 and pandas < 2:

    peer/bin/python tests/data/record_abagen_aggregate.py

It rewrites abagen_aggregate.json beside this file. NaN is written as null.
"""

import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from abagen.samples_ import aggregate_samples, similarity_threshold

GENES = list("abcdef")
REGIONS = [1, 2, 3, 4, 5]
LABELS = [[1, 1, 3, 3, 3, 0, 4], [1, 3, 3, 4, 4], [3, 1, 1, 1, 0, 3]]


def plain(array):
    return [None if np.isnan(value) else float(value) for value in np.ravel(array)]


def invented_donors():
    """Sample x gene matrices of three donors, with gaps of every kind."""
    random = np.random.default_rng(20250102)
    first, second, third = (random.normal(0, 1, (len(labels), len(GENES))).round(3) for labels in LABELS)
    first[0, 1] = np.nan  # gene b: one sample of region 1
    for matrix, labels in zip((first, second, third), LABELS, strict=True):
        matrix[np.array(labels) == 3, 2] = np.nan  # gene c: region 3 in every donor
    first[2:5, 3] = np.nan  # gene d: region 3 in one donor
    second[3] = np.nan  # one sample of region 4, every gene
    first[6] = np.nan  # the first donor's only sample of region 4, every gene
    return [first, second, third]


def record(frames, **choices):
    table = aggregate_samples(frames, labels=np.array(REGIONS), **choices)
    return {"genes": list(table.columns), "table": plain(table)}


def record_similarity():
    """Samples kept by sim_threshold; the fourth is unlike the others."""
    expression = np.random.default_rng(20250103).normal(0, 0.5, (40, 9)) + np.arange(40)[:, None] / 10
    expression[:, 3] = expression[::-1, 3]
    expression = expression.round(3)
    frame = pd.DataFrame(expression, columns=range(9))
    kept = {
        str(threshold): similarity_threshold(
            frame, pd.DataFrame(index=range(9)), pd.DataFrame(index=range(40)), threshold=threshold
        ).index.tolist()
        for threshold in (0.1, 0.5, 2, 5)
    }
    return {"shape": expression.shape, "values": plain(expression), "kept": kept}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    donors = invented_donors()
    frames = [
        pd.DataFrame(matrix, index=pd.Index(labels, name="label"), columns=GENES)
        for matrix, labels in zip(donors, LABELS, strict=True)
    ]
    named = {"mean": "mean", "median": "median", "max": np.max}
    recorded = {
        "genes": GENES,
        "regions": REGIONS,
        "labels": LABELS,
        "values": [plain(matrix) for matrix in donors],
        "per_donor": {
            name: [
                plain(table)
                for table in aggregate_samples(
                    frames, labels=np.array(REGIONS), agg_metric=metric, return_donors=True
                )
            ]
            for name, metric in named.items()
        },
        "donors": {name: record(frames, agg_metric=metric) for name, metric in named.items()},
        "samples": {
            name: record(frames, agg_metric=metric, region_agg="samples") for name, metric in named.items()
        },
        "similarity": record_similarity(),
    }
    text = json.dumps(recorded, separators=(",", ":"))
    Path(__file__).with_name("abagen_aggregate.json").write_text(text + "\n")
