"""Simulated donors look like the published ones: samples, probes, and a signal worth processing."""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ingest.reference import corrected_coordinates, reannotation
from ingest.simulate import is_simulated
from ingest.simulated_anatomy import DONORS, anatomy, simulated_samples, structure_class_ids
from ingest.simulated_probes import MARKERS, PUBLISHED_PROBES, simulated_probes
from ingest.sources import find_donors
from ingest.tables import read_ontology, read_probes, read_samples
from tests.helpers import METADATA, donor_folder, needs_metadata
from tests.simulated import N_SAMPLES, matrix
from transforms.atlas_set import AtlasSet


@pytest.fixture(scope="module")
def samples(simulated: Path) -> pd.DataFrame:
    """All donors' samples, labelled as the lake labels them."""
    frames = []
    for donor, files in find_donors(simulated).items():
        ontology = read_ontology(files["Ontology.csv"]).frame
        frames.append(read_samples(files["SampleAnnot.csv"], ontology).frame.assign(donor=donor))
    return pd.concat(frames, ignore_index=True)


def test_mni_steps_are_those_of_the_donor(samples: pd.DataFrame) -> None:
    mni = samples.set_index("donor")[["mni_x", "mni_y", "mni_z"]]
    for donor, points in mni.groupby(level=0):
        whole = (points.to_numpy() % 1 == 0).all()
        assert whole == (donor not in ("9861", "10021"))
        assert (points.to_numpy().round(1) == points.to_numpy()).all()


# ---------------------------------------------------------------- samples


def test_wells_are_the_true_ones_with_their_corrected_coordinates(samples: pd.DataFrame) -> None:
    assert samples.groupby("donor").size().to_dict() == N_SAMPLES
    assert set(samples["well_id"]) == set(corrected_coordinates().index)
    assert samples["well_id"].is_unique
    shift = samples[["mni_x", "mni_y", "mni_z"]].to_numpy() - samples.filter(like="corrected_").to_numpy()
    assert 0.5 < shift.std() < 4
    assert np.abs(shift.mean(axis=0)).max() < 0.5


@needs_metadata
def test_wells_belong_to_their_true_donors() -> None:
    for donor in N_SAMPLES:
        true = pd.read_csv(donor_folder(METADATA, donor) / "SampleAnnot.csv")["well_id"]
        ours = simulated_samples(donor, scale=1, seed=0).annotation["well_id"]
        assert ours.tolist() == true.tolist()


def test_voxels_are_distinct_and_inside_the_donors_volume(samples: pd.DataFrame) -> None:
    for donor, part in samples.groupby("donor"):
        voxels = part[["mri_voxel_x", "mri_voxel_y", "mri_voxel_z"]]
        assert (voxels >= 0).all(axis=None)
        assert (voxels < np.array(DONORS[donor].grid)).all(axis=None)
        assert not voxels.duplicated().any()
        assert not part[["mni_x", "mni_y", "mni_z"]].duplicated().any()


@pytest.mark.parametrize("donor", N_SAMPLES)
def test_cortex_samples_lie_at_the_donors_own_brain(
    samples: pd.DataFrame, donor: str, dk_native: AtlasSet
) -> None:
    """Within three voxels of a region."""
    own, steps = dk_native.of(donor), np.argwhere(np.ones((7, 7, 7))) - 3
    assert own.shape == DONORS[donor].grid
    near = steps[(steps**2).sum(axis=1) <= 3**2]
    labelled = np.zeros(own.shape, dtype=bool)
    labelled.flat[own.nodes] = True
    cortex = samples[(samples["donor"] == donor) & (samples["structure"] == "cortex")]
    voxels = cortex.filter(like="mri_voxel").to_numpy()
    around = np.clip(voxels[:, None] + near, 0, np.array(own.shape) - 1)
    assert labelled[tuple(np.moveaxis(around, -1, 0))].any(axis=1).mean() > 0.75


def test_share_of_samples_on_the_wrong_side(samples: pd.DataFrame) -> None:
    x = samples["corrected_mni_x"]
    right_side = ((samples["hemisphere"] == "L") & (x < 0)) | ((samples["hemisphere"] == "R") & (x > 0))
    without = samples["hemisphere"] == "B"
    assert 0.05 < 1 - right_side.mean() < 0.07
    assert 0.03 < without.mean() < 0.045
    assert (~right_side & ~without).mean() > 0.015
    assert set(samples["structure"]) == {
        "cortex",
        "subcortex/brainstem",
        "cerebellum",
        "white matter",
        "other",
    }


def test_slabs_follow_the_class(samples: pd.DataFrame) -> None:
    assert set(samples.loc[samples["slab_type"] == "CB", "structure"]) == {"cerebellum"}
    assert set(samples.loc[samples["slab_type"] == "BS", "structure"]) == {"subcortex/brainstem"}
    shares = samples["slab_type"].value_counts(normalize=True)
    assert 0.65 < shares["CX"] < 0.85
    assert shares.min() > 0.05
    assert samples["polygon_id"].duplicated().mean() == pytest.approx(0.07, abs=0.02)


def test_any_two_donors_share_structures(samples: pd.DataFrame) -> None:
    structures = samples.groupby("donor")["structure_id"].agg(set)
    assert min(len(a & b) for a, b in itertools.combinations(structures, 2)) > 100
    assert 350 < samples["structure_id"].nunique() < 500


def test_structure_names_hold_commas_and_the_hemisphere(samples: pd.DataFrame) -> None:
    names = samples["structure_name"]
    assert names.str.contains(",").mean() > 0.9
    words = {"L": ", left", "R": ", right"}
    sided = samples[samples["hemisphere"] != "B"]
    assert all(words[h] in n for h, n in zip(sided["hemisphere"], sided["structure_name"], strict=True))
    assert all(names.str.contains(word).any() for word in ("gyrus", "cortex", "nucleus", "'"))


@pytest.mark.parametrize(
    ("point", "expected"),
    [
        ((-40.0, -20.0, 55.0), 4008),
        ((27.0, -25.0, -15.0), 4249),
        ((-10.0, -18.0, 6.0), 4391),
        ((20.0, -65.0, -40.0), 4696),
    ],
)
def test_class_follows_the_place(point: tuple[float, float, float], expected: int) -> None:
    assert structure_class_ids(np.array([point])).tolist() == [expected]


def test_structures_do_not_hang_on_the_seed() -> None:
    place = anatomy()
    assert len(place.cell) == len(corrected_coordinates())
    first, second = (simulated_samples("12876", scale=1, seed=seed).annotation for seed in (0, 1))
    assert first["structure_id"].tolist() == second["structure_id"].tolist()
    assert first["mni_x"].tolist() != second["mni_x"].tolist()


@pytest.mark.parametrize("donor", N_SAMPLES)
def test_fewer_samples_are_a_part_of_the_true_wells_in_their_order(donor: str) -> None:
    every = simulated_samples(donor, scale=1, seed=0).annotation["well_id"]
    some = simulated_samples(donor, scale=0.1, seed=0).annotation["well_id"]
    assert len(some) == round(0.1 * N_SAMPLES[donor])
    assert every[every.isin(some)].tolist() == some.tolist()
    assert len(simulated_samples(donor, scale=1e-9, seed=0).annotation) == 10


def test_more_samples_repeat_wells_beside_under_new_ids() -> None:
    wells: list[int] = []
    for donor, n_samples in N_SAMPLES.items():
        many = simulated_samples(donor, scale=2.5, seed=0)
        assert len(many.annotation) == round(2.5 * n_samples)
        new = many.annotation["well_id"].iloc[n_samples:]
        assert not new.isin(corrected_coordinates().index).any()
        assert new.between(200_000_001, 2**31 - 1).all()
        beside = many.coordinates[n_samples : 2 * n_samples] - many.coordinates[:n_samples]
        assert 1 < beside.std() < 3
        assert not many.annotation[["mni_x", "mni_y", "mni_z"]].duplicated().any()
        wells += many.annotation["well_id"].tolist()
    assert len(set(wells)) == len(wells)


# ---------------------------------------------------------------- probes


@pytest.mark.parametrize("n_probes", [10, 400, 5000])
def test_number_of_probes_and_share_that_reannotation_drops(n_probes: int) -> None:
    table = simulated_probes(n_probes, seed=0).table
    assert len(table) == n_probes
    assert table["probe_id"].is_unique
    assert table["probe_name"].is_unique
    assert not table["probe_id"].is_monotonic_increasing
    dropped = ~table["probe_name"].isin(reannotation()["probe_name"])
    assert dropped.mean() == pytest.approx(1 - 45_821 / 58_692, abs=0.5 / n_probes + 0.001)
    assert table.loc[dropped, "probe_name"].str.fullmatch(r"SIM_DROPPED_\d{6}").all()


def test_genes_keep_all_their_probes() -> None:
    names = set(simulated_probes(3000, seed=0).table["probe_name"])
    table = reannotation()
    there = table["probe_name"].isin(names).groupby(table["gene_symbol"]).agg(["sum", "size"])
    assert (there["sum"].eq(0) | there["sum"].eq(there["size"])).all()
    assert (there["sum"] > 1).sum() > 500
    assert set(MARKERS) <= set(there.index[there["sum"] > 0])


def test_published_names_are_older_than_the_reannotation_for_some_probes() -> None:
    table = simulated_probes(20_000, seed=0).table.set_index("probe_name")
    new = reannotation().set_index("probe_name")
    kept = table[table.index.isin(new.index)]
    other = kept["gene_symbol"] != new.loc[kept.index, "gene_symbol"]
    assert 0.02 < other.mean() < 0.04
    assert 0.3 < (kept.loc[other, "entrez_id"] == "").mean() < 0.7
    unnamed = table[table["entrez_id"] == ""]
    assert (unnamed["gene_symbol"] == unnamed.index).all()
    dropped = table[~table.index.isin(new.index)]
    assert 0.3 < (dropped["entrez_id"] == "").mean() < 0.5
    assert dropped["gene_symbol"].isin(new["gene_symbol"]).mean() > 0.3
    assert table.groupby("gene_symbol")["gene_id"].nunique().max() == 1
    assert {"X", "MT", "1", ""} <= set(table["chromosome"])


def test_all_published_probes() -> None:
    table = simulated_probes(PUBLISHED_PROBES, seed=0).table
    assert len(table) == PUBLISHED_PROBES
    assert set(reannotation()["probe_name"]) <= set(table["probe_name"])


def test_written_probes_read_back(simulated: Path) -> None:
    frame = read_probes(find_donors(simulated)["9861"]["Probes.csv"]).frame
    assert is_simulated(frame)
    assert set(MARKERS) <= set(frame["reannotated_gene_symbol"])


# ---------------------------------------------------------------- signal


@pytest.fixture(scope="module")
def expression(simulated: Path) -> dict[str, pd.DataFrame]:
    return {d: matrix(donor_folder(simulated, d), "MicroarrayExpression.csv") for d in N_SAMPLES}


@pytest.fixture(scope="module")
def symbols(simulated: Path) -> pd.Series:
    """Re-annotated symbol by probe id, for the probes that have one."""
    frame = read_probes(find_donors(simulated)["9861"]["Probes.csv"]).frame.set_index("probe_id")
    return frame.loc[frame["reannotated_gene_symbol"] != "", "reannotated_gene_symbol"]


def test_values_look_like_normalised_log_intensities(expression: dict[str, pd.DataFrame]) -> None:
    values = np.concatenate([frame.to_numpy().ravel() for frame in expression.values()])
    assert values.min() >= 1.4
    assert 13 < values.max() <= 17.6
    assert 4 < np.median(values) < 7
    assert len(np.unique(values)) > 0.97 * len(values)


def test_share_of_probes_above_background(simulated: Path, expression: dict[str, pd.DataFrame]) -> None:
    detected = np.hstack([matrix(donor_folder(simulated, d), "PACall.csv").to_numpy() for d in N_SAMPLES])
    values = np.hstack([frame.to_numpy() for frame in expression.values()])
    assert 0.55 < (detected.mean(axis=1) >= 0.5).mean() < 0.7
    by_level = [detected[(values >= low) & (values < low + 1)].mean() for low in (2, 3, 4, 5, 6)]
    assert by_level == sorted(by_level)
    assert by_level[0] < 0.1
    assert by_level[-1] > 0.95


def test_probes_of_a_gene_agree(expression: dict[str, pd.DataFrame], symbols: pd.Series) -> None:
    correlation = np.corrcoef(expression["9861"].loc[symbols.index].to_numpy())
    same = symbols.to_numpy()[:, None] == symbols.to_numpy()
    pairs = np.triu(np.ones_like(same), 1)
    within, between = correlation[same & pairs], correlation[~same & pairs]
    assert np.median(within) > 0.2
    assert np.quantile(within, 0.9) > 0.8
    assert abs(np.median(between)) < 0.1


def test_donors_agree_on_structures(
    expression: dict[str, pd.DataFrame], samples: pd.DataFrame, symbols: pd.Series
) -> None:
    means = [
        frame.T.set_axis(samples.loc[samples["donor"] == donor, "structure_id"]).groupby(level=0).mean()
        for donor, frame in expression.items()
    ]
    stability = pd.concat(
        [a.rank().corrwith(b.rank()) for a, b in itertools.combinations(means, 2)], axis=1
    ).mean(axis=1)
    markers = symbols.index[symbols.isin(MARKERS)]
    assert (stability[markers] > 0.5).all()
    assert stability.quantile(0.1) < 0.1
    assert stability.quantile(0.9) > 0.7
