"""RNA-seq in the store: kept as published, joined by well, told from damage, and asked for."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import lake
from ingest.errors import InputError
from ingest.rnaseq import read_rnaseq
from ingest.sources import RNASEQ_FILES, find_rnaseq
from lake.errors import RequestError, StoreError
from lake.ingestion import ingest_directory
from lake.summary import summarize
from lake.verification import verify
from tests.helpers import called, damaged, lines_changed, rewrite, store_beside, tree
from tests.rnaseq import MATRICES, SEQUENCED, files_of, folder_of, published_matrix

# ---------------------------------------------------------------- kept


def test_the_store_keeps_every_bit_and_every_column(sequenced: Path, sequenced_store: Path) -> None:
    store = lake.open(sequenced_store)
    assert store.rnaseq_donors == list(SEQUENCED)
    for donor in SEQUENCED:
        rnaseq, parsed = store.rnaseq(donor), read_rnaseq(files_of(sequenced, donor))
        for kind in MATRICES:
            assert rnaseq[kind].dims == ("gene", "sample")
            assert rnaseq[kind].to_numpy().tobytes() == getattr(parsed, kind).tobytes()
        for dim, table in (("gene", parsed.genes), ("sample", parsed.samples)):
            for name, column in table.items():
                assert rnaseq[name].dims == (dim,)
                np.testing.assert_array_equal(rnaseq[name].to_numpy(), column.to_numpy(), err_msg=str(name))
        assert rnaseq.attrs["donor"] == donor
        assert rnaseq.attrs["simulated"].startswith("SIMULATED")


def test_a_gene_is_found_by_its_symbol(sequenced: Path, sequenced_store: Path) -> None:
    expected = published_matrix(folder_of(sequenced) / "RNAseqTPM.csv")["SST"]
    assert (
        lake.open(sequenced_store).rnaseq("H0351.2001")["tpm"].sel(gene="SST").to_numpy().tolist() == expected
    )


def test_ingest_reports_both_assays(sequenced: Path, tmp_path: Path) -> None:
    done = ingest_directory(sequenced, tmp_path / "store.zarr", donors=["9861", "12876"])
    assert [(d.donor, d.what, d.status, d.n_unmatched) for d in done] == [
        ("9861", "microarray", "ingested", 0),
        ("12876", "microarray", "ingested", 0),
        ("9861", "rnaseq", "ingested", 0),
    ]
    assert done[-1].n_samples == 121
    again = ingest_directory(sequenced, tmp_path / "store.zarr", donors=["9861", "12876"])
    assert {d.status for d in again} == {"present"}


def test_the_order_of_coming_in_does_not_matter(
    sequenced: Path, sequenced_store: Path, tmp_path: Path
) -> None:
    path = tmp_path / "store.zarr"
    ingest_directory(sequenced, path, donors=["10021"])
    ingest_directory(sequenced, path, what=["microarray"])
    assert lake.open(path).snapshot != lake.open(sequenced_store).snapshot
    ingest_directory(folder_of(sequenced), path)  # RNA-seq alone, of a donor who is in the store
    assert lake.open(path).snapshot == lake.open(sequenced_store).snapshot


def test_a_store_without_rnaseq_does_not_know_of_it(sequenced: Path, tmp_path: Path) -> None:
    path = tmp_path / "store.zarr"
    ingest_directory(sequenced, path, donors=["9861"], what=["microarray"])
    assert not (path / "rnaseq").exists()
    assert "rnaseq" not in json.loads((path / "zarr.json").read_text())["attributes"]["ahba_lake"]
    store = lake.open(path)
    assert (store.rnaseq_donors, store.rnaseq_profiles()) == ([], {})
    with pytest.raises(RequestError, match=r"no RNA-seq of donor 9861 \(it has that of none\)"):
        store.rnaseq("9861")


def test_a_donor_who_was_not_sequenced(sequenced_store: Path) -> None:
    with pytest.raises(RequestError, match=r"no RNA-seq of donor 12876 \(it has that of 9861, 10021\)"):
        lake.open(sequenced_store).rnaseq("12876")


def test_rnaseq_needs_the_donors_microarray(sequenced: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="Donor 9861: RNA-seq goes with the donor's microarray"):
        ingest_directory(sequenced, tmp_path / "store.zarr", donors=["9861"], what=["rnaseq"])


def test_unknown_kinds_and_donors_are_told(sequenced: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="what: mri is unknown; choose of microarray, rnaseq"):
        ingest_directory(sequenced, tmp_path / "store.zarr", what=["mri"])
    with pytest.raises(RequestError, match="Donor 15496 is not in the source; it has 9861, 10021, 12876"):
        ingest_directory(sequenced, tmp_path / "store.zarr", donors=["15496"])


def change_tpm(directory: Path, old: bytes = b".", new: bytes = b"1.") -> None:
    rewrite(folder_of(directory) / "RNAseqTPM.csv", lambda data: data.replace(old, new, 1))


def test_changed_files_are_refused_unless_replaced(sequenced_copy: Path, sequenced_store_copy: Path) -> None:
    change_tpm(sequenced_copy)
    before = tree(sequenced_store_copy)
    with pytest.raises(RequestError, match=r"Donor 9861: the published RNA-seq files differ .* --replace"):
        ingest_directory(sequenced_copy, sequenced_store_copy)
    assert tree(sequenced_store_copy) == before
    done = ingest_directory(sequenced_copy, sequenced_store_copy, replace=True)
    assert [d.status for d in done] == ["present"] * 3 + ["replaced", "present"]
    expected = read_rnaseq(files_of(sequenced_copy)).tpm
    store = lake.open(sequenced_store_copy)
    assert store.manifest.rnaseq["9861"].group == "rnaseq/9861.2"
    assert store.rnaseq("9861")["tpm"].to_numpy().tobytes() == expected.tobytes()
    ingest_directory(sequenced_copy, sequenced_store_copy)
    assert not (sequenced_store_copy / "rnaseq" / "9861").exists()  # swept: no manifest names it
    assert verify(lake.open(sequenced_store_copy)) == []


def test_wrong_rnaseq_leaves_the_store_as_it_was(sequenced_copy: Path, tmp_path: Path) -> None:
    change_tpm(sequenced_copy, b".", b"..")
    path = tmp_path / "store.zarr"
    ingest_directory(sequenced_copy, path, what=["microarray"])
    before = tree(path)
    with pytest.raises(InputError, match=r"RNAseqTPM.csv: line 1, column 2: .* is not a finite number"):
        ingest_directory(sequenced_copy, path)
    assert tree(path) == before


def test_what_a_killed_ingest_leaves_is_swept(sequenced: Path, tmp_path: Path) -> None:
    path = tmp_path / "store.zarr"
    ingest_directory(sequenced, path, what=["microarray"])
    before = tree(path)
    (path / "rnaseq" / "9861").mkdir(parents=True)
    (path / "rnaseq" / "9861" / "zarr.json").write_text("half")
    ingest_directory(sequenced, path, what=["microarray"])
    assert tree(path) == before


def test_another_donors_rnaseq_is_refused(sequenced_copy: Path, tmp_path: Path) -> None:
    shutil.rmtree(folder_of(sequenced_copy))
    folder_of(sequenced_copy, "10021").rename(folder_of(sequenced_copy))
    with pytest.raises(InputError, match=r"SampleAnnot.csv: well \d+ is donor 10021's; .*another donor's"):
        ingest_directory(sequenced_copy, tmp_path / "store.zarr")
    with pytest.raises(InputError, match=r"SampleAnnot.csv: the store knows none of its wells"):
        ingest_directory(sequenced_copy, tmp_path / "other.zarr", donors=["9861"])


def test_simulated_and_measured_do_not_mix(sequenced_copy: Path, tmp_path: Path) -> None:
    rewrite(folder_of(sequenced_copy) / "SampleAnnot.csv", lambda data: data.replace(b"simulated_S", b"S"))
    with pytest.raises(InputError, match="this is measured, the store's microarray is simulated; keep them"):
        ingest_directory(sequenced_copy, tmp_path / "store.zarr")


def test_wells_that_the_microarray_lacks_are_counted(sequenced_copy: Path, tmp_path: Path) -> None:
    pattern = rb"(?m)^((?:[^,\n]*,){3})\d+"
    path = folder_of(sequenced_copy) / "SampleAnnot.csv"
    rewrite(path, lambda data: re.sub(pattern, rb"\g<1>999999999", data, count=2))
    store = tmp_path / "store.zarr"
    done = called("ingest", sequenced_copy, "--store", store, "--donors", "9861")
    assert done.returncode == 0, done.stderr
    assert "RNA-seq samples whose wells the microarray lacks (donor 9861: 2)" in done.stderr
    assert re.search(r"9861 +rnaseq +ingested +121", done.stdout)


def test_a_structure_that_the_store_lacks_is_told(sequenced_copy: Path, tmp_path: Path) -> None:
    folder = folder_of(sequenced_copy)
    lines_changed(folder / "Ontology.csv", lambda lines: [*lines, b"7,X,x,4005,L,9999,/4005/7/,A0A0A0\n"])
    pattern = rb"(?m)^((?:[^,\n]*,){8})\d+"
    rewrite(folder / "SampleAnnot.csv", lambda data: re.sub(pattern, rb"\g<1>7", data, count=1))
    with pytest.raises(InputError, match="structure 7 is not in the store's ontology"):
        ingest_directory(sequenced_copy, tmp_path / "store.zarr")


@pytest.fixture(scope="module")
def one_donor(sequenced: Path) -> Path:
    """A store to be damaged for a while."""
    return store_beside(sequenced, "damaged_rnaseq.zarr", donors=["10021"])


def cut(path: Path) -> None:
    rewrite(path, lambda data: data[: len(data) // 2])


DAMAGES = ("tpm/c/0/0", "counts/c/0/0", "gene_symbol/c/0", "well_id/c/0", "tpm/zarr.json", "zarr.json")


@pytest.mark.parametrize("part", DAMAGES)
@pytest.mark.parametrize("how", [cut, Path.unlink])
def test_damage_is_found(part: str, how: Callable[[Path], object], one_donor: Path) -> None:
    with damaged(one_donor / "rnaseq" / "10021" / part, how):
        found = verify(lake.open(one_donor))
        if part != "zarr.json":
            with pytest.raises(StoreError):
                lake.open(one_donor).rnaseq("10021").compute()
    assert found
    assert all(damage.where.startswith("rnaseq/10021") for damage in found)


def test_a_missing_parent_is_damage(sequenced_store_copy: Path) -> None:
    (sequenced_store_copy / "rnaseq" / "zarr.json").unlink()
    assert [damage.where for damage in verify(lake.open(sequenced_store_copy))] == ["rnaseq"]


def test_a_whole_store_is_whole(sequenced_store: Path) -> None:
    assert verify(lake.open(sequenced_store)) == []


def test_info_tells_what_was_sequenced(sequenced_store: Path) -> None:
    summary = {donor["donor"]: donor["rnaseq"] for donor in summarize(lake.open(sequenced_store))["donors"]}
    assert summary["12876"] is None
    assert summary["9861"]["n_samples"] == 121
    assert summary["9861"]["stored_bytes"] > 10_000
    assert set(summary["9861"]["sources"]) == set(RNASEQ_FILES)
    done = called("info", "--store", sequenced_store)
    assert re.search(r"9861 +H0351.2001 +\d+ +\d+ +\d+ +121 ", done.stdout)


def test_the_command_makes_it_up(tmp_path: Path) -> None:
    arguments = ("--probes", 10, "--donors", "9861,12876", "--samples-scale", 0.05, "--rnaseq", "-q")
    done = called("simulate", tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    assert "2 donors, RNA-seq of 1 in" in done.stdout
    assert list(find_rnaseq(tmp_path)) == ["9861"]


# ---------------------------------------------------------------- asked


def test_profiles_are_means_over_the_samples_of_a_structure(sequenced: Path, sequenced_store: Path) -> None:
    profiles = lake.open(sequenced_store).rnaseq_profiles()
    assert list(profiles) == list(SEQUENCED)
    for donor, profile in profiles.items():
        annotation = pd.read_csv(folder_of(sequenced, donor) / "SampleAnnot.csv")
        structure = annotation["ontology_structure_id"].to_numpy()
        tpm = published_matrix(folder_of(sequenced, donor) / "RNAseqTPM.csv")
        assert profile.index.tolist() == sorted(tpm)
        assert profile.columns.tolist() == sorted(set(structure.tolist()))
        expected = [
            [np.mean(np.array(tpm[symbol])[structure == one]) for one in profile.columns]
            for symbol in profile.index
        ]
        np.testing.assert_allclose(profile.to_numpy(), expected, rtol=1e-13)


def test_profiles_keep_constant_genes(sequenced_store: Path) -> None:
    profile = lake.open(sequenced_store).rnaseq_profiles(["9861"])["9861"]
    assert (profile.std(axis=1) == 0).any()


def test_profiles_of_some_donors(sequenced_store: Path) -> None:
    assert list(lake.open(sequenced_store).rnaseq_profiles(["12876", "H0351.2002"])) == ["10021"]
    assert lake.open(sequenced_store).rnaseq_profiles(["12876"]) == {}
    with pytest.raises(RequestError, match="Donor 15496 is not in the store"):
        lake.open(sequenced_store).rnaseq_profiles(["15496"])
