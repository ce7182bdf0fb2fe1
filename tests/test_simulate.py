"""The simulator writes the published format, the same bytes for a seed, and nothing over measured files."""

import csv
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
from ingest.simulate import detected_lines, expression_lines, is_simulated, simulate
from ingest.simulated_probes import PUBLISHED_PROBES
from ingest.sources import MICROARRAY_FILES
from tests.helpers import METADATA, donor_folder, needs_metadata
from tests.simulated import N_PROBES, N_SAMPLES, matrix


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# ---------------------------------------------------------------- format


def test_folders_are_returned_in_donor_order(tmp_path: Path) -> None:
    folders = simulate(tmp_path, probes=10, donors=["14380", "9861"], samples_scale=0.02)
    assert folders == [donor_folder(tmp_path, "9861"), donor_folder(tmp_path, "14380")]
    assert sorted(p.name for p in folders[0].iterdir()) == sorted([*MICROARRAY_FILES, "Readme.txt"])


@pytest.mark.parametrize(("donor", "n_samples"), N_SAMPLES.items())
def test_matrices_have_no_header_and_one_column_a_sample(simulated: Path, donor: str, n_samples: int) -> None:
    folder = donor_folder(simulated, donor)
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
    header, *lines = (donor_folder(simulated, "9861") / "Probes.csv").read_text().splitlines()
    assert header == "probe_id,probe_name,gene_id,gene_symbol,gene_name,entrez_id,chromosome"
    pattern = re.compile(r'\d{7},"[^"]+",\d+,"([^"]+)","simulated gene, ([^"]+)",\d*,(\d+|X|Y|MT|)')
    matches = [pattern.fullmatch(line) for line in lines]
    assert all(match and match[1] == match[2] for match in matches)
    assert len(lines) == N_PROBES


def test_text_of_samples_is_quoted_as_published(simulated: Path) -> None:
    header, *lines = (donor_folder(simulated, "14380") / "SampleAnnot.csv").read_text().splitlines()
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
    folder = donor_folder(simulated, "9861")
    true = METADATA / name if name == "Ontology.csv" else donor_folder(METADATA, "9861") / name
    ours, theirs = (path.read_bytes() for path in (folder / name, true))
    assert ours.splitlines()[0] == theirs.splitlines()[0]
    assert (ours.count(b"\r"), ours[-1:]) == (theirs.count(b"\r"), theirs[-1:])


def test_probes_and_ontology_are_the_same_for_all_donors(simulated: Path) -> None:
    for name in ("Probes.csv", "Ontology.csv"):
        assert len({(donor_folder(simulated, donor) / name).read_bytes() for donor in N_SAMPLES}) == 1


def test_ontology_quotes_only_where_needed_and_is_a_tree(simulated: Path) -> None:
    path = donor_folder(simulated, "9861") / "Ontology.csv"
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
    table = pd.read_csv(donor_folder(simulated, "9861") / "Ontology.csv", keep_default_na=False)
    leaves = table[table["hemisphere"] != ""].groupby("acronym")
    assert leaves["hemisphere"].agg("".join).eq("LR").all()
    assert leaves["parent_structure_id"].nunique().eq(1).all()
    assert leaves.ngroups > 180


# ---------------------------------------------------------------- marked as simulated


def test_every_file_says_that_it_is_simulated(simulated: Path) -> None:
    folder = donor_folder(simulated, "9861")
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
        assert contents(donor_folder(tmp_path, donor)) == contents(donor_folder(simulated, donor))


def test_same_donor_in_number_and_uid_is_one_donor(tmp_path: Path) -> None:
    assert len(simulate(tmp_path, probes=10, donors=["9861", "H0351.2001"], samples_scale=0.02)) == 1


def test_another_seed_gives_other_bytes(simulated: Path, tmp_path: Path) -> None:
    simulate(tmp_path, probes=N_PROBES, donors=["12876"], seed=1)
    one, other = contents(donor_folder(tmp_path, "12876")), contents(donor_folder(simulated, "12876"))
    assert {name for name in one if one[name] == other[name]} == {"Ontology.csv"}


def test_donors_are_drawn_apart(simulated: Path) -> None:
    first, second = (
        matrix(donor_folder(simulated, d), "MicroarrayExpression.csv") for d in ("9861", "12876")
    )
    assert not np.isclose(first.to_numpy()[:, :50], second.to_numpy()[:, :50]).mean() > 0.02


def test_a_rerun_replaces_simulated_files(tmp_path: Path) -> None:
    for n_probes in (40, 20):
        (folder,) = simulate(tmp_path, probes=n_probes, donors=["12876"])
    assert len(matrix(folder, "PACall.csv")) == len(pd.read_csv(folder / "Probes.csv")) == 20


@pytest.mark.parametrize("name", MICROARRAY_FILES)
def test_measured_files_are_never_replaced(tmp_path: Path, name: str) -> None:
    path = donor_folder(tmp_path, "12876") / name
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
    left = {path.name for path in donor_folder(tmp_path, "12876").iterdir()}
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
        donor_folder(metadata, "12876").mkdir(parents=True)
        for name, source in (
            ("SampleAnnot.csv", donor_folder(METADATA, "12876")),
            ("Ontology.csv", METADATA),
        ):
            (donor_folder(metadata, "12876") / name).write_bytes((source / name).read_bytes())
    (folder,) = simulate(tmp_path / "out", probes=20, donors=["12876"], metadata=metadata)
    assert (folder / "Ontology.csv").read_bytes() == (METADATA / "Ontology.csv").read_bytes()
    true = donor_folder(METADATA, "12876") / "SampleAnnot.csv"
    assert (folder / "SampleAnnot.csv").read_bytes() == true.read_bytes()
    assert matrix(folder, "MicroarrayExpression.csv").shape == (20, 363)


def test_metadata_are_checked_before_anything_is_written(simulated: Path, tmp_path: Path) -> None:
    metadata = tmp_path / "metadata"
    source = donor_folder(simulated, "9861")
    donor_folder(metadata, "9861").mkdir(parents=True)
    (donor_folder(metadata, "9861") / "SampleAnnot.csv").write_bytes(
        (source / "SampleAnnot.csv").read_bytes()
    )
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
        (bad(samples_scale=1001), "samples_scale: 1001; choose a number above 0 and at most 1,000"),
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
