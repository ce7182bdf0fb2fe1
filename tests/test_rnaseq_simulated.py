"""Simulated RNA-seq: in the published format, the same bytes for a seed, akin to the microarray."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import lake
from ingest.errors import InputError
from ingest.reference import reference_file
from ingest.rnaseq import Rnaseq, read_rnaseq
from ingest.simulate import simulate
from ingest.simulated_rnaseq import PUBLISHED_GENES, is_simulated_rnaseq
from ingest.sources import RNASEQ_FILES, SourceFile
from ingest.tables import read_probes
from lake.ingestion import ingest_directory
from tests import peer
from tests.helpers import DONORS, donor_folder, tree
from tests.rnaseq import SEQUENCED, files_of, folder_of
from transforms.probes import annotate_probes
from transforms.samples import prepare_samples
from transforms.select import select_probes

# ---------------------------------------------------------------- simulated


def test_the_simulator_writes_the_published_files(sequenced: Path) -> None:
    assert sorted(path.name for path in sequenced.glob("rnaseq*")) == [
        "rnaseq_donor10021",
        "rnaseq_donor9861",
    ]
    for donor in SEQUENCED:
        assert sorted(path.name for path in folder_of(sequenced, donor).iterdir()) == sorted(
            [*RNASEQ_FILES, "Contents.txt"]
        )


def test_rnaseq_folders_are_returned_last(tmp_path: Path) -> None:
    folders = simulate(tmp_path, probes=10, donors=["12876", "9861"], samples_scale=0.02, rnaseq=True)
    assert folders == [donor_folder(tmp_path, "9861"), donor_folder(tmp_path, "12876"), folder_of(tmp_path)]


def test_sizes_are_as_published(sequenced: Path, rnaseq_9861: Rnaseq) -> None:
    assert rnaseq_9861.tpm.shape == rnaseq_9861.counts.shape == (len(rnaseq_9861.genes), 121)
    assert len(rnaseq_9861.genes) == round(PUBLISHED_GENES * 300 / 58_692)


def test_wells_are_the_microarrays_and_replicates_repeat_them(sequenced: Path, rnaseq_9861: Rnaseq) -> None:
    microarray = pd.read_csv(donor_folder(sequenced, "9861") / "SampleAnnot.csv").set_index("well_id")
    wells = rnaseq_9861.samples["well_id"]
    assert wells.isin(microarray.index).all()
    assert (rnaseq_9861.samples["replicate_sample"] == "Yes").sum() == 9
    assert set(wells[wells.duplicated(keep=False)]) == set(
        wells[rnaseq_9861.samples["replicate_sample"] == "Yes"]
    )
    structures = microarray.loc[wells, "structure_id"].to_numpy()
    np.testing.assert_array_equal(rnaseq_9861.samples["structure_id"], structures)


def test_the_seed_alone_decides_the_bytes(sequenced: Path, tmp_path: Path) -> None:
    for name, seed in (("same", 0), ("other", 1)):
        simulate(tmp_path / name, probes=300, donors=["10021"], samples_scale=0.2, rnaseq=True, seed=seed)
    expected = tree(folder_of(sequenced, "10021"))
    assert tree(folder_of(tmp_path / "same", "10021")) == expected
    assert tree(folder_of(tmp_path / "other", "10021")) != expected


def test_rnaseq_does_not_change_the_microarray(sequenced: Path, tmp_path: Path) -> None:
    simulate(tmp_path, probes=300, donors=["9861"], samples_scale=0.2)
    assert tree(donor_folder(tmp_path, "9861")) == tree(donor_folder(sequenced, "9861"))
    assert not folder_of(tmp_path).exists()


def test_some_genes_are_absent_constant_or_counted_in_fractions(tmp_path: Path) -> None:
    simulate(tmp_path, probes=3000, donors=["9861"], samples_scale=0.05, rnaseq=True)
    rnaseq = read_rnaseq(files_of(tmp_path))
    annotated = annotate_probes(
        read_probes(SourceFile(donor_folder(tmp_path, "9861") / "Probes.csv")).frame, reannotated=True
    )
    symbols, microarray = set(rnaseq.genes["gene_symbol"]), set(annotated["gene_symbol"])
    assert 0.05 < len(microarray - symbols) / len(microarray) < 0.15
    assert len(symbols - microarray) > 50
    assert 0.02 < (rnaseq.tpm.std(axis=1) == 0).mean() < 0.2
    fractional = (rnaseq.counts % 1 != 0).any(axis=1)
    assert 0.2 < fractional.mean() < 0.4
    np.testing.assert_allclose(rnaseq.tpm.sum(axis=0), 1e6, rtol=1e-5)
    assert (rnaseq.genes["entrez_id"] == -1).any()


def test_rnaseq_follows_the_microarray(sequenced_store: Path) -> None:
    """Over the shared wells, a marker's TPM rises with the probe's intensity."""
    store = lake.open(sequenced_store)
    rnaseq = store.rnaseq("9861")
    probe = int(np.flatnonzero(store.probes["reannotated_gene_symbol"] == "SST")[0])
    column = pd.Series(store.samples.index, index=store.samples["well_id"])[rnaseq["well_id"].to_numpy()]
    intensity = store.microarray()["expression"].isel(probe=probe, sample=column.to_numpy()).to_numpy()
    tpm = rnaseq["tpm"].sel(gene="SST").to_numpy()
    assert pd.Series(tpm).corr(pd.Series(intensity), method="spearman") > 0.6


def test_simulated_names_survive(rnaseq_9861: Rnaseq) -> None:
    assert is_simulated_rnaseq(rnaseq_9861.samples)
    assert not is_simulated_rnaseq(rnaseq_9861.samples.iloc[:0])
    measured = rnaseq_9861.samples.assign(
        rnaseq_sample_name=["S1", *rnaseq_9861.samples["rnaseq_sample_name"][1:]]
    )
    assert not is_simulated_rnaseq(measured)


def test_measured_rnaseq_is_never_written_over(tmp_path: Path) -> None:
    folder_of(tmp_path).mkdir()
    (folder_of(tmp_path) / "Genes.csv").write_text("measured")
    with pytest.raises(InputError, match=r"rnaseq_donor9861: Genes.csv there is not simulated"):
        simulate(tmp_path, probes=10, donors=["9861"], samples_scale=0.02, rnaseq=True)
    assert tree(tmp_path) == {"rnaseq_donor9861/Genes.csv": b"measured"}


def test_only_two_donors_were_sequenced(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="rnaseq: only donors 9861 and 10021 have it"):
        simulate(tmp_path, probes=10, donors=["12876"], rnaseq=True)
    assert tree(tmp_path) == {}


# ---------------------------------------------------------------- beside the real abagen


READ_WITH_ABAGEN = """
import json, sys
from abagen import io
folder = sys.argv[1]
shapes = {
    "genes": io.read_genes(folder + "/Genes.csv"),
    "ontology": io.read_ontology(folder + "/Ontology.csv"),
    "counts": io.read_counts(folder + "/RNAseqCounts.csv"),
    "tpm": io.read_tpm(folder + "/RNAseqTPM.csv"),
    "annotation": io.read_annotation(folder + "/SampleAnnot.csv"),
}
json.dump({
    "shapes": {name: table.shape for name, table in shapes.items()},
    "structure_id": shapes["annotation"]["structure_id"].tolist(),
    "SST": shapes["tpm"].loc["SST"].tolist(),
    "genes": sorted(shapes["genes"].index),
}, sys.stdout)
"""


@pytest.fixture(scope="module")
def abagen() -> Path:
    python = peer.peer_python()
    if python is None:
        pytest.skip("the real abagen cannot be installed here")
    return python


@pytest.mark.slow
def test_abagen_reads_the_simulated_files(abagen: Path, sequenced: Path, rnaseq_9861: Rnaseq) -> None:
    done = subprocess.run(
        [abagen, "-I", "-W", "ignore", "-c", READ_WITH_ABAGEN, folder_of(sequenced)],
        capture_output=True,
        text=True,
        check=True,
    )
    read = json.loads(done.stdout)
    n_genes = len(rnaseq_9861.genes)
    assert read["shapes"]["tpm"] == read["shapes"]["counts"] == [n_genes, 121]
    assert (read["shapes"]["genes"], read["shapes"]["annotation"]) == ([n_genes, 10], [121, 21])
    assert read["structure_id"] == rnaseq_9861.samples["structure_id"].tolist()
    assert read["genes"] == rnaseq_9861.genes["gene_symbol"].tolist()
    assert read["SST"] == rnaseq_9861.tpm[rnaseq_9861.genes["gene_symbol"].tolist().index("SST")].tolist()


@pytest.mark.slow
def test_abagen_chooses_the_same_probes(abagen: Path, tmp_path: Path) -> None:
    simulate(tmp_path / "files", probes=600, donors=DONORS, rnaseq=True)
    ingest_directory(tmp_path / "files", tmp_path / "store.zarr")
    store = lake.open(tmp_path / "store.zarr")
    case = {
        "name": "rnaseq",
        "kind": "expression",
        "atlas": {"image": reference_file("atlas-desikankilliany.nii.gz")},
        "atlas_info": None,
        "kwargs": {"probe_selection": "rnaseq", "donors": list(DONORS), "ibf_threshold": 0},
    }
    theirs = peer.run_peer([case], tmp_path / "files", tmp_path / "peer")["rnaseq"]
    assert not theirs.error, theirs.error
    samples = prepare_samples(
        store.samples, store.ontology, donors=list(DONORS), corrected_mni=True, lr_mirror=None
    )
    selection = select_probes(
        store.microarray()["expression"],
        annotate_probes(store.probes, reannotated=True),
        samples,
        probe_selection="rnaseq",
        donor_probes="aggregate",
        rnaseq=store.rnaseq_profiles(),
    )
    ours = selection.genes.set_index("gene_symbol")["probe_id"]
    assert len(ours) > 100
    for chosen in theirs.chosen.values():
        assert ours.to_dict() == chosen.to_dict()
