"""Choices that are compared with the real abagen's, as combinations in which every two values meet.

A combination as the peer takes it, as ours takes it, and what is recorded of abagen where it cannot be run.
"""

import hashlib
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import lake
from ingest.reference import reference_file
from lake.runs import load_any
from lake.sources import source_for, source_of
from tests import peer
from tests.covering import Combination, Excluded, covering_design
from tests.native_surfaces import LABELS, MRI, native_files, spec_of
from tests.peer import Outcome
from transforms.atlas_set import AnyAtlas
from transforms.parts import label_samples
from transforms.probes import ProbeSelection
from transforms.regions import region_tables
from transforms.values import FreshValues
from transforms.workflow import select_genes

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


# abagen measures the way from every vertex of a region without samples: up to a minute a combination.
SLOW = {"atlas": "surface", "missing": "interpolate"}

EXCLUDED = [Excluded(SLOW, "slow in abagen: the combinations of GIVEN have it, and no others")]

GIVEN: list[Combination] = [
    {
        **SLOW,
        "ibf_threshold": 0.5,
        "probe_selection": "diff_stability",
        "donor_probes": "aggregate",
        "sim_threshold": None,
        "lr_mirror": "bidirectional",
        "tolerance": 2,
        "sample_norm": "srs",
        "gene_norm": "scaled_robust_sigmoid",
        "norm_matched": True,
        "norm_structures": False,
        "region_agg": "donors",
        "agg_metric": "mean",
        "corrected_mni": True,
        "reannotated": True,
        "donors": ("9861", "10021"),
    },
    {
        **SLOW,
        "ibf_threshold": 0.25,
        "probe_selection": "corr_variance",
        "donor_probes": "independent",
        "sim_threshold": 2,
        "lr_mirror": "leftright",
        "tolerance": 1,
        "sample_norm": "minmax",
        "gene_norm": "zscore",
        "norm_matched": False,
        "norm_structures": True,
        "region_agg": "samples",
        "agg_metric": "median",
        "corrected_mni": False,
        "reannotated": False,
        "donors": ("9861", "10021"),
    },
    {
        **SLOW,
        "ibf_threshold": 0,
        "probe_selection": "rnaseq",
        "donor_probes": "common",
        "sim_threshold": 5,
        "lr_mirror": None,
        "tolerance": 2,
        "sample_norm": "rs",
        "gene_norm": None,
        "norm_matched": False,
        "norm_structures": False,
        "region_agg": "donors",
        "agg_metric": "mean",
        "corrected_mni": True,
        "reannotated": True,
        "donors": ("10021", "12876", "15496"),
    },
]

AT_LEAST, AT_ONCE = 124, 16

N_PROBES, SAMPLES_SCALE, SEED = 600, 0.25, 0

LIVE = {"rtol": 1e-8, "atol": 1e-12}

FROM_RECORD = {"rtol": 1e-8, "atol": 1e-8}

RECORDED = Path(__file__).parent / "data" / "abagen_choices.npz"

N_RECORDED_GENES = 2


def name_of(combination: Combination) -> str:
    """The values that tell most, and a hash of all of them."""
    shown = "-".join(str(combination[choice]) for choice in ("atlas", "probe_selection", "missing"))
    digest = hashlib.sha256(json.dumps(combination).encode()).hexdigest()
    return f"{shown}-{digest[:8]}".replace(" ", "_")


OWN_SURFACES, N_OWN_SURFACES = "native surfaces", 16  # made up: abagen brings none


def with_own_surfaces() -> list[Combination]:
    """Combinations in which donors' own surfaces meet every value of the other choices."""
    rng = random.Random(3)  # the first whose combinations abagen can run
    columns: dict[str, Any] = {"atlas": [OWN_SURFACES] * N_OWN_SURFACES}
    for choice, values in CHOICES.items():
        if choice != "atlas":
            repeated = (values * N_OWN_SURFACES)[:N_OWN_SURFACES]
            columns[choice] = sorted(repeated, key=lambda _: rng.random())
    return [{choice: column[at] for choice, column in columns.items()} for at in range(N_OWN_SURFACES)]


DESIGN = [
    *covering_design(CHOICES, excluded=EXCLUDED, given=GIVEN, at_least=AT_LEAST),
    *with_own_surfaces(),
]

COMBINATIONS = {name_of(combination): combination for combination in DESIGN}


def case_of(name: str, combination: Combination) -> dict[str, Any]:
    """A combination as the peer takes it."""
    return {
        "name": name,
        "kind": "expression",
        **PEERS_ATLAS.get(combination["atlas"], group_atlas)(combination["atlas"]),
        "kwargs": {choice: value for choice, value in combination.items() if choice != "atlas"},
    }


def group_atlas(name: str) -> dict[str, Any]:
    image, info = ATLASES[name]
    return {"atlas": {"image": image}, "atlas_info": info}


def native_volumes(name: str) -> dict[str, Any]:
    image, info = ATLASES[name]
    return {"atlas": {"image": of_donors(str(image))}, "atlas_info": info}


def native_surfaces(_: str) -> dict[str, Any]:
    folder = native_files()
    left, right = (of_donors(f"{folder}/{labels}") for labels in LABELS.split(","))
    atlas = {
        "image": {donor: [left[donor], right[donor]] for donor in DONORS},
        "mri": of_donors(f"{folder}/{MRI}"),
        "freesurfer": of_donors(f"{folder}/{{donor}}"),
    }
    return {"atlas": atlas, "atlas_info": None}


def of_donors(pattern: str) -> dict[str, str]:
    return {donor: pattern.format(donor=donor) for donor in DONORS}


PEERS_ATLAS = {"native": native_volumes, OWN_SURFACES: native_surfaces}


@cache
def cases() -> list[dict[str, Any]]:
    return [case_of(name, combination) for name, combination in COMBINATIONS.items()]


@cache
def atlas_named(name: str) -> AnyAtlas:
    if name == OWN_SURFACES:
        return load_any(spec_of(native_files()))
    image, info = ATLASES[name]
    return load_any(",".join(map(str, image)) if isinstance(image, list) else image, info)


def our_outcome(store: lake.Lake, combination: Combination) -> Outcome:
    """Run a combination with our code."""
    atlas = atlas_named(combination["atlas"])
    pipeline = lake.Pipeline(**{name: value for name, value in combination.items() if name != "atlas"})
    donors = store.resolve_donors(pipeline.donors)
    source = source_for(source_of(store), atlas, donors)
    genes = select_genes(source, pipeline, donors)
    tables = region_tables(genes, FreshValues(source, genes, pipeline), atlas, pipeline)
    labels = label_samples(genes.samples, atlas, pipeline)
    wells = genes.samples.groupby("donor", sort=False)["well_id"]
    return Outcome(
        expression=tables.expression,
        genes=tuple(tables.expression.columns),
        counts=tables.counts,
        chosen=chosen_probes(source.probes["probe_id"].to_numpy(), genes.selection, pipeline),
        labels={donor: pd.Series(labels[donor], index=found) for donor, found in wells},
    )


def chosen_probes(
    probe_ids: np.ndarray, selection: ProbeSelection, pipeline: lake.Pipeline
) -> dict[str, pd.Series]:
    """Donor -> probe of each gene symbol; empty where probes are averaged."""
    symbols = selection.genes["gene_symbol"].to_numpy(object)
    chosen = {} if pipeline.probe_selection in ("average", "mean") else selection.rows
    return {donor: pd.Series(probe_ids[rows], index=symbols) for donor, rows in chosen.items()}


@dataclass(frozen=True)
class Record:
    """Of one combination: hashes of what must be identical, and the values of some genes."""

    digests: dict[str, str]
    values: pd.DataFrame


def digests_of(outcome: Outcome) -> dict[str, str]:
    """A hash of each part that must be identical."""
    parts = {
        "regions": outcome.expression.index.tolist(),
        "genes": list(outcome.genes),
        "counts": [outcome.counts.columns.tolist(), outcome.counts.to_numpy().tolist()],
        "chosen": {donor: [list(found.index), found.tolist()] for donor, found in outcome.chosen.items()},
        "labels": {donor: [list(found.index), found.tolist()] for donor, found in outcome.labels.items()},
    }
    return {
        name: hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest()[:16]
        for name, part in parts.items()
    }


def record_of(outcome: Outcome) -> Record:
    places = np.linspace(0, len(outcome.genes) - 1, N_RECORDED_GENES).round().astype(int)
    return Record(digests_of(outcome), outcome.expression.iloc[:, places])


def write_records(outcomes: Mapping[str, Outcome], path: Path) -> None:
    """Write the records of all combinations, each array for all of them."""
    records = {name: record_of(outcome) for name, outcome in outcomes.items()}
    np.savez_compressed(
        path,
        names=list(records),
        parts=list(next(iter(records.values())).digests),
        digests=[list(record.digests.values()) for record in records.values()],
        genes=[list(record.values.columns) for record in records.values()],
        n_regions=[len(record.values) for record in records.values()],
        values=np.concatenate([record.values.to_numpy() for record in records.values()]),
    )


@cache
def read_records() -> dict[str, Record]:
    with np.load(RECORDED) as file:
        arrays = dict(file)
    values = np.split(arrays["values"], np.cumsum(arrays["n_regions"])[:-1])
    return {
        str(name): Record(
            dict(zip(arrays["parts"].tolist(), digests.tolist(), strict=True)),
            pd.DataFrame(found, columns=genes.tolist()),
        )
        for name, digests, genes, found in zip(
            arrays["names"], arrays["digests"], arrays["genes"], values, strict=True
        )
    }


def assert_recorded(outcome: Outcome, record: Record) -> float:
    """As `assert_same`, with what is recorded of abagen."""
    assert not outcome.error, outcome.error
    assert digests_of(outcome) == record.digests
    found, expected = outcome.expression[list(record.values)].to_numpy(), record.values.to_numpy()
    np.testing.assert_allclose(found, expected, **FROM_RECORD)
    return peer.largest_relative_difference(found, expected)
