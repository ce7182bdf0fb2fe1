"""The numbers that docs/differences.md takes from the true metadata, counted again where these are."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from nibabel.affines import apply_affine
from scipy.spatial import cKDTree

from ingest.reference import reference_file
from ingest.sources import SourceFile
from ingest.tables import read_ontology, read_samples
from tests.helpers import METADATA, needs_metadata
from transforms.assign import assign
from transforms.atlas import Atlas
from transforms.atlas_set import AtlasSet
from transforms.samples import divide_samples, drop_slabs, prepare_samples

PAGE = (Path(__file__).parents[1] / "docs" / "differences.md").read_text()
DONORS = ["9861", "10021", "12876", "14380", "15496", "15697"]
VOXEL = ["mri_voxel_x", "mri_voxel_y", "mri_voxel_z"]

pytestmark = needs_metadata


@pytest.fixture(scope="module")
def ontology() -> pd.DataFrame:
    return read_ontology(SourceFile(METADATA / "Ontology.csv")).frame


@pytest.fixture(scope="module")
def published(ontology: pd.DataFrame) -> pd.DataFrame:
    """All 3,702 samples with their corrected coordinates."""
    folder = "normalized_microarray_donor{}"
    tables = [
        read_samples(SourceFile(METADATA / folder.format(donor) / "SampleAnnot.csv"), ontology).frame.assign(
            donor=donor
        )
        for donor in DONORS
    ]
    corrected = pd.read_csv(reference_file("corrected_mni_coordinates.csv.gz"), index_col="well_id")
    samples = pd.concat(tables, ignore_index=True)
    places = corrected.loc[samples["well_id"]]
    return samples.assign(
        **{name: places[name].to_numpy() for name in places if name.startswith("corrected")}
    )


@pytest.fixture(scope="module")
def kept(published: pd.DataFrame, ontology: pd.DataFrame) -> pd.DataFrame:
    """Those that abagen keeps: on the side of the brain that the ontology names."""
    return prepare_samples(published, ontology, donors=DONORS, corrected_mni=True, lr_mirror=None)


def test_how_many_labels_differ_between_the_two_ways_to_place_samples(kept: pd.DataFrame, dk: Atlas) -> None:
    (n_samples,) = re.findall(r"published positions \(([\d,]+) samples", PAGE)
    assert len(kept) == int(n_samples.replace(",", "")) == 3466
    rows = re.findall(r"^\| (\d) mm \| (\d+) \| (\d+) \|$", PAGE, re.MULTILINE)
    assert [row[0] for row in rows] == ["0", "2"]
    for tolerance, *written in rows:
        counted = []
        for chosen in (dk.without_info(), dk):
            abagen, nearest = (
                assign(kept, chosen, tolerance=int(tolerance), matching=matching)
                for matching in ("abagen", "nearest")
            )
            counted.append(int((abagen != nearest).sum()))
        assert counted == [int(number) for number in written]


def test_how_often_native_x_contradicts_the_hemisphere(published: pd.DataFrame, dk_native: AtlasSet) -> None:
    (written,) = re.findall(r"sign of native x disagree for (\d+) to (\d+) % of a donor's samples", PAGE)
    shares = []
    for donor, samples in published.groupby("donor"):
        affine = dk_native.of(str(donor)).affine
        assert affine is not None
        x = apply_affine(affine, samples[VOXEL])[:, 0]
        side = samples["hemisphere"].map({"L": -1, "R": 1, "B": 0}).to_numpy()
        shares.append(round(100 * (np.sign(x) != side).mean()))
    assert (min(shares), max(shares)) == tuple(int(number) for number in written)


def test_how_many_samples_have_equidistant_voxels_of_different_labels(
    published: pd.DataFrame, ontology: pd.DataFrame, dk_native: AtlasSet
) -> None:
    """With the samples and parts of ``Pipeline.arnatkeviciute2019()``."""
    (written,) = re.findall(r"([\d,]+) of ([\d,]+) assigned samples have equidistant\s+voxels", PAGE)
    samples = prepare_samples(
        published, ontology, donors=DONORS, corrected_mni=False, lr_mirror=None, check_sides=False
    )
    samples = divide_samples(
        drop_slabs(samples, ["BS", "CB"]), ontology, division="listCortex", exclude_hippocampus=False
    )
    ties = assigned = 0
    for (donor, side, structure), part in samples.groupby(["donor", "hemisphere", "structure"]):
        atlas = dk_native.of(str(donor))
        facts = atlas.regions.loc[atlas.labels]
        fits = facts["hemisphere"].isin([side, "B"]) & (facts["structure"] == structure)
        candidates = np.flatnonzero(fits)
        if side and structure and len(candidates):
            voxels = np.column_stack(np.unravel_index(atlas.nodes[candidates], atlas.shape))
            tree = cKDTree(voxels)
            places = part[VOXEL].to_numpy(dtype=float)
            distance, _ = tree.query(places)
            near = distance <= 2
            balls = tree.query_ball_point(places[near], distance[near] + 1e-9)
            assigned += int(near.sum())
            ties += sum(len(set(atlas.labels[candidates[ball]])) > 1 for ball in balls)
    assert (ties, assigned) == tuple(int(number.replace(",", "")) for number in written)
