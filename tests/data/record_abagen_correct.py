"""Record what abagen 0.1.3 makes of small invented tables, for tests/test_stable.py and test_distance_*.py.

Run with the Python of an environment that has abagen 0.1.3, numpy < 1.24 and pandas < 2:

    peer/bin/python tests/data/record_abagen_correct.py

It rewrites abagen_correct.json beside this file. NaN is written as null.
"""

import json
import warnings
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
from abagen.correct import keep_stable_genes, remove_distance
from abagen.surfaces import make_surf_graph
from scipy.sparse.csgraph import dijkstra

GENES = [f"gene{number}" for number in range(12)]
REGIONS = [1, 2, 4, 5, 7, 8, 9, 11]
SHAPE = (6, 7, 5)
STABLE = {
    "default": {},
    "three quarters": {"threshold": 0.25},
    "absolute": {"threshold": 0.3, "percentile": False},
    "Pearson": {"threshold": 0.5, "rank": False},
    "Pearson, absolute": {"threshold": 0.2, "percentile": False, "rank": False},
}


def plain(array):
    return [None if np.isnan(value) else float(value) for value in np.ravel(array)]


def invented_donors():
    """Region x gene of four donors: a common pattern, noise, ties; regions and values that are missing."""
    random = np.random.default_rng(20250201)
    pattern = random.normal(size=(len(REGIONS), len(GENES)))
    donors = []
    for donor in range(4):
        noise = random.normal(size=pattern.shape) * np.linspace(0.2, 4, len(GENES))
        donors.append(np.round(pattern + noise, 1 if donor == 1 else 3))
    donors[0][2] = np.nan  # regions that a donor does not have
    donors[2][[2, 5]] = np.nan
    donors[3][6] = np.nan
    donors[1][3, 4] = np.nan  # one value
    for table in donors:
        table[~np.isnan(table[:, 0]), 7] = 0.25  # constant in every donor
    donors[0][~np.isnan(donors[0][:, 0]), 8] = 1.5  # constant in one
    return donors


def record_stable(donors):
    frames = [pd.DataFrame(table, index=REGIONS, columns=GENES) for table in donors]
    recorded = {}
    for name, choices in STABLE.items():
        kept, stability = keep_stable_genes(frames, return_stability=True, **choices)
        recorded[name] = {"choices": choices, "genes": list(kept[0].columns), "stability": plain(stability)}
    return recorded


def invented_atlas():
    """A volume whose regions are odd clusters of voxels, and its info in ascending ids."""
    random = np.random.default_rng(20250202)
    labels = random.choice([0, *REGIONS], size=SHAPE, p=[0.6, *[0.05] * len(REGIONS)])
    structures = ["cortex"] * 5 + ["subcortex"] * 2 + ["cerebellum"]
    info = pd.DataFrame({"id": REGIONS, "hemisphere": "L", "structure": structures})
    return labels.astype(np.int16), np.diag([-2.0, 3.0, 4.0, 1.0]), info


def record_distance():
    labels, affine, info = invented_atlas()
    image = nibabel.Nifti1Image(labels, affine)
    expression = np.random.default_rng(20250203).normal(size=(len(REGIONS), 20))
    coexpression = np.corrcoef(expression)
    some = [1, 4, 5, 9]
    rows = np.searchsorted(REGIONS, some)
    return {
        "labels": labels.ravel().tolist(),
        "affine": affine.tolist(),
        "info": info.to_dict("list"),
        "coexpression": plain(coexpression),
        "all": plain(remove_distance(coexpression, image)),
        "classes": plain(remove_distance(coexpression, image, info)),
        "some_regions": some,
        "some": plain(remove_distance(coexpression[np.ix_(rows, rows)], image, labels=np.array(some))),
    }


def invented_mesh():
    """A bumpy sheet of triangles; no vertex inside it has fewer than five neighbours."""
    columns, rows = np.meshgrid(np.arange(7), np.arange(6))
    places = np.stack([columns + rows / 2, rows * 0.9, np.zeros_like(rows)], axis=-1).reshape(-1, 3)
    places = places + np.random.default_rng(20250204).uniform(-0.2, 0.2, places.shape)
    corner = (np.arange(5)[:, None] * 7 + np.arange(6)).ravel()
    triangles = np.concatenate(
        [np.stack([corner, corner + 1, corner + 7], 1), np.stack([corner + 1, corner + 8, corner + 7], 1)]
    )
    return np.round(places, 3), triangles


def record_surface():
    vertices, triangles = invented_mesh()
    hidden = np.zeros(len(vertices), dtype=bool)
    hidden[[16, 17, 23, 24]] = True
    nodes = [0, 8, 20, 33, 41]
    recorded = {"vertices": vertices.tolist(), "triangles": triangles.tolist()}
    recorded |= {"hidden": np.flatnonzero(hidden).tolist(), "nodes": nodes}
    for name, mask in {"whole": None, "without hidden": hidden}.items():
        graph = make_surf_graph(vertices, triangles, mask)
        recorded[name] = plain(dijkstra(graph, directed=False, indices=nodes)[:, nodes])
    return recorded


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    tables = invented_donors()
    everything = {
        "genes": GENES,
        "regions": REGIONS,
        "donors": [plain(table) for table in tables],
        "stable": record_stable(tables),
        "distance": record_distance(),
        "surface": record_surface(),
    }
    text = json.dumps(everything, separators=(",", ":"))
    Path(__file__).with_name("abagen_correct.json").write_text(text + "\n")
