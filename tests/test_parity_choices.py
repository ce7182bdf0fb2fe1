"""Every choice beside the real abagen: combinations in which every two values of every two choices meet.

abagen runs in an environment of its own (tests/peer.py). Where that cannot be made, its numbers come from
``tests/data/abagen_choices.npz``, which ``python tests/data/record_parity_choices.py`` writes.
"""

import logging
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import lake
from ingest.reference import reference_file
from ingest.simulate import simulate
from lake.runs import load_any, source_for, source_of
from tests import peer
from tests.covering import Combination, Excluded, all_pairs, covering_design, pairs
from tests.peer import Outcome, assert_same
from transforms.atlas_set import AnyAtlas
from transforms.workflow import label_samples, region_tables, sample_expression, select_genes

LOGGER = logging.getLogger(__name__)

VOLUME = reference_file("atlas-desikankilliany.nii.gz")
INFO = reference_file("atlas-desikankilliany.csv")
SURFACE = [reference_file(f"atlas-desikankilliany-{side}.label.gii.gz") for side in ("lh", "rh")]
NATIVE = VOLUME.parent / "native_dk" / "{donor}" / VOLUME.name
DONORS = ("9861", "10021", "12876", "14380", "15496", "15697")

ATLASES: dict[str, tuple[Path | list[Path], Path | None]] = {
    "volume": (VOLUME, INFO),
    "volume without info": (VOLUME, None),
    "surface": (SURFACE, None),  # its label tables are its info
    "native": (NATIVE, INFO),
}
METHODS = {
    "center": "demean",
    "zscore": "zscore",
    "minmax": "minmax",
    "sig": "sigmoid",
    "scaled_sig": "scaled_sigmoid",
    "scaled_sig_qnt": "scaled_sigmoid_quantiles",
    "rs": "robust_sigmoid",
    "srs": "scaled_robust_sigmoid",
    "mixed_sig": "mixed_sigmoid",
}
CHOICES: dict[str, tuple[Any, ...]] = {
    "atlas": tuple(ATLASES),
    "ibf_threshold": (0, 0.25, 0.5),
    "probe_selection": (
        "average",
        "mean",
        "max_intensity",
        "max_variance",
        "pc_loading",
        "corr_intensity",
        "corr_variance",
        "diff_stability",
        "rnaseq",
    ),
    "donor_probes": ("aggregate", "independent", "common"),
    "sim_threshold": (None, 2, 5),
    "lr_mirror": (None, "bidirectional", "leftright", "rightleft"),
    "missing": (None, "centroids", "interpolate"),
    "tolerance": (0, 1, 2, -2),  # mm; on the surface standard deviations, and mm where negative
    "sample_norm": (None, *METHODS),
    "gene_norm": (None, *METHODS.values()),  # the same methods by other names
    "norm_matched": (True, False),
    "norm_structures": (False, True),
    "region_agg": ("donors", "samples"),
    "agg_metric": ("mean", "median"),
    "corrected_mni": (True, False),
    "reannotated": (True, False),
    "donors": ("all", ("9861", "10021"), ("10021", "12876", "15496")),  # 9861 and 10021 have both sides
}
