"""The simulator writes the published format, the same bytes for a seed, and a signal worth processing."""

import csv
import itertools
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ingest.simulate
from ingest.errors import InputError
from ingest.reference import corrected_coordinates, reannotation, reference_file
from ingest.simulate import detected_lines, expression_lines, is_simulated, simulate
from ingest.simulated_anatomy import DONORS, anatomy, simulated_samples, structure_class_ids
from ingest.simulated_probes import MARKERS, PUBLISHED_PROBES, simulated_probes
from ingest.sources import MICROARRAY_FILES, find_donors
from ingest.tables import read_ontology, read_probes, read_samples

N_PROBES = 400
N_SAMPLES = {"9861": 946, "10021": 893, "12876": 363, "14380": 529, "15496": 470, "15697": 501}
METADATA = Path(__file__).parents[1].parent / "shared" / "ahba-metadata"
needs_metadata = pytest.mark.skipif(not METADATA.is_dir(), reason="true AHBA metadata are not here")


def folder_of(directory: Path, donor: str) -> Path:
    return directory / f"normalized_microarray_donor{donor}"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def matrix(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(folder / name, header=None, index_col=0)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("simulated")
    simulate(directory, probes=N_PROBES)
    return directory


@pytest.fixture(scope="module")
def samples(simulated: Path) -> pd.DataFrame:
    """All donors' samples, labelled as the lake labels them."""
    frames = []
    for donor, files in find_donors(simulated).items():
        ontology = read_ontology(files["Ontology.csv"]).frame
        frames.append(read_samples(files["SampleAnnot.csv"], ontology).frame.assign(donor=donor))
    return pd.concat(frames, ignore_index=True)


# ---------------------------------------------------------------- format


def test_folders_are_returned_in_donor_order(tmp_path: Path) -> None:
    folders = simulate(tmp_path, probes=10, donors=["14380", "9861"], samples_scale=0.02)
    assert folders == [folder_of(tmp_path, "9861"), folder_of(tmp_path, "14380")]
    assert sorted(p.name for p in folders[0].iterdir()) == sorted([*MICROARRAY_FILES, "Readme.txt"])


@pytest.mark.parametrize(("donor", "n_samples"), N_SAMPLES.items())
def test_matrices_have_no_header_and_one_column_a_sample(simulated: Path, donor: str, n_samples: int) -> None:
    folder = folder_of(simulated, donor)
    probe_ids = pd.read_csv(folder / "Probes.csv")["probe_id"]
    value = r"(?:1?\d\.\d{10})"
    for name, cell in (("MicroarrayExpression.csv", value), ("PACall.csv", "[01]")):
        data = (folder / name).read_text()
        lines = data.split("\n")
        assert lines.pop() == ""
        assert len(lines) == N_PROBES
        pattern = re.compile(rf"\d{{7}}(?:,{cell}){{{n_samples}}}")
        assert all(pattern.fullmatch(line) for line in lines)
        assert [int(line.split(",")[0]) for line in lines] == probe_ids.tolist()
    assert len(pd.read_csv(folder / "SampleAnnot.csv")) == n_samples


def test_text_of_probes_is_quoted_and_nothing_else(simulated: Path) -> None:
    header, *lines = (folder_of(simulated, "9861") / "Probes.csv").read_text().splitlines()
    assert header == "probe_id,probe_name,gene_id,gene_symbol,gene_name,entrez_id,chromosome"
    pattern = re.compile(r'\d{7},"[^"]+",\d+,"([^"]+)","simulated gene, ([^"]+)",\d*,(\d+|X|Y|MT|)')
    matches = [pattern.fullmatch(line) for line in lines]
    assert all(match and match[1] == match[2] for match in matches)
    assert len(lines) == N_PROBES


def test_text_of_samples_is_quoted_as_published(simulated: Path) -> None:
    header, *lines = (folder_of(simulated, "14380") / "SampleAnnot.csv").read_text().splitlines()
    assert all(field.startswith('"') and field.endswith('"') for field in header.split(","))
    assert header.replace('"', "").split(",")[2:6] == [
        "well_id",
        "slab_type",
        "structure_acronym",
        "structure_name",
    ]
    pattern = re.compile(
        r'\d+,\d+,\d+,"(CX|BS|CB)","[^"]+","simulated [^"]+",\d+,\d+,\d+,\d+,-?\d+\.0,-?\d+\.0,-?\d+\.0'
    )
    assert all(pattern.fullmatch(line) for line in lines)


@needs_metadata
@pytest.mark.parametrize("name", ["SampleAnnot.csv", "Ontology.csv"])
def test_headers_and_line_ends_are_those_of_the_true_files(simulated: Path, name: str) -> None:
    folder = folder_of(simulated, "9861")
    true = METADATA / name if name == "Ontology.csv" else folder_of(METADATA, "9861") / name
    ours, theirs = (path.read_bytes() for path in (folder / name, true))
    assert ours.splitlines()[0] == theirs.splitlines()[0]
    assert (ours.count(b"\r"), ours[-1:]) == (theirs.count(b"\r"), theirs[-1:])


def test_mni_steps_are_those_of_the_donor(samples: pd.DataFrame) -> None:
    mni = samples.set_index("donor")[["mni_x", "mni_y", "mni_z"]]
    for donor, points in mni.groupby(level=0):
        whole = (points.to_numpy() % 1 == 0).all()
        assert whole == (donor not in ("9861", "10021"))
        assert (points.to_numpy().round(1) == points.to_numpy()).all()


def test_probes_and_ontology_are_the_same_for_all_donors(simulated: Path) -> None:
    for name in ("Probes.csv", "Ontology.csv"):
        assert len({(folder_of(simulated, donor) / name).read_bytes() for donor in N_SAMPLES}) == 1


def test_ontology_quotes_only_where_needed_and_is_a_tree(simulated: Path) -> None:
    path = folder_of(simulated, "9861") / "Ontology.csv"
    lines = path.read_text().splitlines()
    for line, row in zip(lines, csv.reader(lines), strict=True):
        assert line == ",".join(f'"{field}"' if "," in field else field for field in row)
    table = pd.read_csv(path, keep_default_na=False).set_index("id")
    assert table["graph_order"].tolist() == list(range(len(table)))
    assert (table.index[0], table["acronym"].iloc[0], table["parent_structure_id"].iloc[0]) == (
        4005,
        "Br",
        "",
    )
    for structure_id, row in table.iloc[1:].iterrows():
        parent = table.loc[int(row["parent_structure_id"])]
        assert row["structure_id_path"] == f"{parent['structure_id_path']}{structure_id}/"
    assert {4008, 4249, 4275, 4391, 4696, 9001, 9131, 9218, 9352, 9512} <= set(table.index)
    assert "/4008/4249/" in table.loc[4249, "structure_id_path"]
    assert not table.reset_index().duplicated(["acronym", "hemisphere"]).any()
    assert not table["acronym"].isin(["NA", "NaN", "nan", "None", ""]).any()


def test_left_and_right_structures_share_their_acronym(simulated: Path) -> None:
    table = pd.read_csv(folder_of(simulated, "9861") / "Ontology.csv", keep_default_na=False)
    leaves = table[table["hemisphere"] != ""].groupby("acronym")
    assert leaves["hemisphere"].agg("".join).eq("LR").all()
    assert leaves["parent_structure_id"].nunique().eq(1).all()
    assert leaves.ngroups > 180


# ---------------------------------------------------------------- marked as simulated


def test_every_file_says_that_it_is_simulated(simulated: Path) -> None:
    folder = folder_of(simulated, "9861")
    assert (folder / "Readme.txt").read_text().startswith("SIMULATED by ahba-lake")
    assert pd.read_csv(folder / "Probes.csv")["gene_name"].str.startswith("simulated").all()
    assert pd.read_csv(folder / "SampleAnnot.csv")["structure_name"].str.startswith("simulated").all()
    assert pd.read_csv(folder / "Ontology.csv")["name"].str.startswith("simulated").all()


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["simulated gene, SST", "simulated gene, MBP"], True),
        (["simulated gene, SST", "somatostatin"], False),
        (["a simulated gene"], False),
        (["simulated gene", None], False),
        ([], False),
    ],
)
def test_is_simulated(names: list[str | None], expected: bool) -> None:
    assert is_simulated(pd.DataFrame({"gene_name": names})) is expected


# ---------------------------------------------------------------- reproducible


def test_same_seed_same_bytes_whichever_donors(simulated: Path, tmp_path: Path) -> None:
    for donor, asked in (("12876", "H0351.1009"), ("9861", "9861")):
        simulate(tmp_path, probes=N_PROBES, donors=[asked])
        assert contents(folder_of(tmp_path, donor)) == contents(folder_of(simulated, donor))


def test_same_donor_in_number_and_uid_is_one_donor(tmp_path: Path) -> None:
    assert len(simulate(tmp_path, probes=10, donors=["9861", "H0351.2001"], samples_scale=0.02)) == 1


def test_another_seed_gives_other_bytes(simulated: Path, tmp_path: Path) -> None:
    simulate(tmp_path, probes=N_PROBES, donors=["12876"], seed=1)
    one, other = contents(folder_of(tmp_path, "12876")), contents(folder_of(simulated, "12876"))
    assert {name for name in one if one[name] == other[name]} == {"Ontology.csv"}


def test_donors_are_drawn_apart(simulated: Path) -> None:
    first, second = (matrix(folder_of(simulated, d), "MicroarrayExpression.csv") for d in ("9861", "12876"))
    assert not np.isclose(first.to_numpy()[:, :50], second.to_numpy()[:, :50]).mean() > 0.02


def test_a_rerun_replaces_simulated_files(tmp_path: Path) -> None:
    for n_probes in (40, 20):
        (folder,) = simulate(tmp_path, probes=n_probes, donors=["12876"])
    assert len(matrix(folder, "PACall.csv")) == len(pd.read_csv(folder / "Probes.csv")) == 20


@pytest.mark.parametrize("name", MICROARRAY_FILES)
def test_measured_files_are_never_replaced(tmp_path: Path, name: str) -> None:
    path = folder_of(tmp_path, "12876") / name
    path.parent.mkdir()
    path.write_text("measured")
    (path.parent / "Readme.txt").write_text("Human Brain Microarray")
    with pytest.raises(InputError, match=rf"donor12876: {name} there is not simulated"):
        simulate(tmp_path, probes=10)
    assert path.read_text() == "measured"
    assert [p.name for p in tmp_path.iterdir()] == [path.parent.name]


def test_nothing_half_written_stays_under_its_name(tmp_path: Path) -> None:
    def stop(donor: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(tmp_path, probes=20, donors=["12876"], progress=stop)
    left = {path.name for path in folder_of(tmp_path, "12876").iterdir()}
    assert left == {"Readme.txt", "Probes.csv", "SampleAnnot.csv", "Ontology.csv"}


def test_progress_is_told_block_by_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest.simulate, "_BLOCK", 8)
    told: list[tuple[str, int, int]] = []
    simulate(
        tmp_path,
        probes=20,
        donors=["12876", "9861"],
        progress=lambda *said: told.append(said),
        samples_scale=0.02,
    )
    assert told == [(donor, done, 20) for donor in ("9861", "12876") for done in (8, 16, 20)]


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
        true = pd.read_csv(folder_of(METADATA, donor) / "SampleAnnot.csv")["well_id"]
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
def test_cortex_samples_lie_at_the_donors_own_brain(samples: pd.DataFrame, donor: str) -> None:
    nibabel = pytest.importorskip("nibabel")
    ndimage = pytest.importorskip("scipy.ndimage")
    image = nibabel.load(reference_file(f"native_dk/{donor}/atlas-desikankilliany.nii.gz"))
    assert image.shape == DONORS[donor].grid
    distance = ndimage.distance_transform_edt(np.asarray(image.dataobj) == 0)
    cortex = samples[(samples["donor"] == donor) & (samples["structure"] == "cortex")]
    voxels = cortex.filter(like="mri_voxel").to_numpy()
    assert (distance[tuple(voxels.T)] <= 3).mean() > 0.75


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
    return {d: matrix(folder_of(simulated, d), "MicroarrayExpression.csv") for d in N_SAMPLES}


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
    detected = np.hstack([matrix(folder_of(simulated, d), "PACall.csv").to_numpy() for d in N_SAMPLES])
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


# ---------------------------------------------------------------- formatting


@given(st.lists(st.integers(0, 10**12 - 1), min_size=1, max_size=8), st.integers(1, 10**9))
def test_values_are_written_digit_for_digit(values: list[int], probe_id: int) -> None:
    expected = ",".join(f"{value // 10**10}.{value % 10**10:010d}" for value in values)
    assert expression_lines(np.array([probe_id]), np.array([values])) == f"{probe_id},{expected}\n".encode()


@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=5))
def test_calls_are_written_as_digits(calls: list[list[bool]]) -> None:
    probe_ids = np.arange(8, 8 + len(calls))
    expected = "".join(
        f"{i},{','.join(str(int(call)) for call in row)}\n" for i, row in zip(probe_ids, calls, strict=True)
    )
    assert detected_lines(probe_ids, np.array(calls)) == expected.encode()


# ---------------------------------------------------------------- true metadata


@needs_metadata
@pytest.mark.parametrize("beside", [False, True])
def test_true_metadata_are_taken_byte_for_byte(tmp_path: Path, beside: bool) -> None:
    metadata = METADATA
    if beside:
        metadata = tmp_path / "metadata"
        folder_of(metadata, "12876").mkdir(parents=True)
        for name, source in (("SampleAnnot.csv", folder_of(METADATA, "12876")), ("Ontology.csv", METADATA)):
            (folder_of(metadata, "12876") / name).write_bytes((source / name).read_bytes())
    (folder,) = simulate(tmp_path / "out", probes=20, donors=["12876"], metadata=metadata)
    assert (folder / "Ontology.csv").read_bytes() == (METADATA / "Ontology.csv").read_bytes()
    true = folder_of(METADATA, "12876") / "SampleAnnot.csv"
    assert (folder / "SampleAnnot.csv").read_bytes() == true.read_bytes()
    assert matrix(folder, "MicroarrayExpression.csv").shape == (20, 363)


def test_metadata_are_checked_before_anything_is_written(simulated: Path, tmp_path: Path) -> None:
    metadata = tmp_path / "metadata"
    source = folder_of(simulated, "9861")
    folder_of(metadata, "9861").mkdir(parents=True)
    (folder_of(metadata, "9861") / "SampleAnnot.csv").write_bytes((source / "SampleAnnot.csv").read_bytes())
    with pytest.raises(InputError, match=r"Ontology\.csv and .*metadata/Ontology\.csv: no such file"):
        simulate(tmp_path / "out", probes=10, metadata=metadata, donors=["9861"])
    (metadata / "Ontology.csv").write_bytes((source / "Ontology.csv").read_bytes())
    with pytest.raises(InputError, match=r"donor12876/SampleAnnot\.csv: no such file"):
        simulate(tmp_path / "out", probes=10, metadata=metadata, donors=["9861", "12876"])
    assert not (tmp_path / "out").exists()
    (folder,) = simulate(tmp_path / "out", probes=10, metadata=metadata, donors=["9861"])
    assert (folder / "SampleAnnot.csv").read_bytes() == (source / "SampleAnnot.csv").read_bytes()


def test_wells_without_corrected_coordinates_use_the_given_ones(tmp_path: Path) -> None:
    (folder,) = simulate(tmp_path / "more", probes=50, donors=["12876"], samples_scale=1.5)
    (again,) = simulate(tmp_path / "out", probes=50, donors=["12876"], metadata=tmp_path / "more")
    values = matrix(again, "MicroarrayExpression.csv").to_numpy()
    assert values.shape == (50, round(1.5 * 363))
    assert np.isfinite(values).all()
    first = matrix(folder, "MicroarrayExpression.csv").to_numpy()
    repeated = slice(363, None)
    assert np.corrcoef(values[:, repeated].ravel(), first[:, repeated].ravel())[0, 1] > 0.9


# ---------------------------------------------------------------- wrong arguments


def bad(**arguments: object) -> Callable[[Path], object]:
    return lambda directory: simulate(directory, **({"probes": 10} | arguments))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (bad(probes=9), "probes: 9; choose a number from 10 to 58692"),
        (bad(probes=58_693), "probes: 58693"),
        (bad(samples_scale=0), "samples_scale: 0; choose a number above 0"),
        (bad(samples_scale=float("nan")), "samples_scale: nan"),
        (bad(seed=-1), "seed: -1"),
        (bad(donors=["9861", "9862"]), r"donors: 9862; choose from .*9861, 10021, .*H0351\.2001.*'all'"),
        (bad(donors="9862"), "donors: 9862; choose from"),
        (bad(donors=[]), "donors: none given"),
        (
            bad(metadata=Path("nowhere")),
            r"metadata: nowhere/normalized_microarray_donor9861/SampleAnnot\.csv",
        ),
        (bad(metadata=Path("nowhere"), samples_scale=0.5), "samples_scale: metadata are taken as they are"),
    ],
)
def test_wrong_arguments_are_told_before_anything_is_written(
    call: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        call(tmp_path)
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- full size


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_memory_stays_small_at_full_size(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from ingest.simulate import simulate;"
        "simulate(Path(sys.argv[1]), donors=['9861']);"
        "print(Path('/proc/self/status').read_text())"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=root, capture_output=True, text=True, check=True
    )
    peak = re.search(r"VmHWM:\s+(\d+) kB", done.stdout)
    assert peak is not None
    assert int(peak[1]) * 1024 < 600e6
    (folder,) = tmp_path.iterdir()
    with (folder / "MicroarrayExpression.csv").open("rb") as stream:
        assert sum(1 for _ in stream) == PUBLISHED_PROBES
