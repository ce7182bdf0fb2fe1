"""RNA-seq: simulated, found, parsed with every fault told, kept as published, and asked for."""

import csv
import json
import re
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lake
from ingest.errors import InputError
from ingest.reference import reference_file
from ingest.rnaseq import Rnaseq, read_genes, read_rnaseq, read_rnaseq_matrix
from ingest.simulate import simulate
from ingest.simulated_rnaseq import PUBLISHED_GENES, is_simulated_rnaseq
from ingest.sources import RNASEQ_FILES, DonorFiles, SourceFile, find_donors, find_rnaseq
from ingest.tables import read_probes
from lake.errors import RequestError, StoreError
from lake.ingestion import ingest_directory
from lake.layout import RNASEQ_GENES, RNASEQ_MATRICES, RNASEQ_SAMPLES
from lake.summary import summarize
from lake.verification import verify
from tests import peer
from tests.helpers import ahba, donor_folder, lines_changed, rewrite, tree
from transforms.probes import annotate_probes
from transforms.samples import prepare_samples
from transforms.select import select_probes

DONORS = ("9861", "10021", "12876")
SEQUENCED = ("9861", "10021")
MATRICES = {"tpm": "RNAseqTPM.csv", "counts": "RNAseqCounts.csv"}


def folder_of(directory: Path, donor: str = "9861") -> Path:
    return directory / f"rnaseq_donor{donor}"


def files_of(directory: Path, donor: str = "9861") -> DonorFiles:
    return find_rnaseq(directory)[donor]


def published_matrix(path: Path) -> dict[str, list[float]]:
    """A matrix by Python's own csv and float: gene symbol -> values."""
    with path.open(newline="") as stream:
        return {row[0]: [float(cell) for cell in row[1:]] for row in csv.reader(stream)}


@pytest.fixture(scope="module")
def sequenced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three donors, two of them sequenced: 300 probes, few wells. Not to be changed."""
    directory = tmp_path_factory.mktemp("sequenced")
    simulate(directory, probes=300, donors=DONORS, samples_scale=0.2, rnaseq=True)
    return directory


@pytest.fixture
def sequenced_copy(sequenced: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sequenced, tmp_path / "sequenced"))


@pytest.fixture(scope="module")
def parsed(sequenced: Path) -> Rnaseq:
    return read_rnaseq(files_of(sequenced))


@pytest.fixture(scope="module")
def kept(sequenced: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the donors and their RNA-seq. Not to be changed."""
    path = tmp_path_factory.mktemp("stores") / "sequenced.zarr"
    ingest_directory(sequenced, path)
    return path


@pytest.fixture
def kept_copy(kept: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(kept, tmp_path / "copy.zarr"))


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


def test_sizes_are_as_published(sequenced: Path, parsed: Rnaseq) -> None:
    assert parsed.tpm.shape == parsed.counts.shape == (len(parsed.genes), 121)
    assert len(parsed.genes) == round(PUBLISHED_GENES * 300 / 58_692)


def test_wells_are_the_microarrays_and_replicates_repeat_them(sequenced: Path, parsed: Rnaseq) -> None:
    microarray = pd.read_csv(donor_folder(sequenced, "9861") / "SampleAnnot.csv").set_index("well_id")
    wells = parsed.samples["well_id"]
    assert wells.isin(microarray.index).all()
    assert (parsed.samples["replicate_sample"] == "Yes").sum() == 9
    assert set(wells[wells.duplicated(keep=False)]) == set(wells[parsed.samples["replicate_sample"] == "Yes"])
    structures = microarray.loc[wells, "structure_id"].to_numpy()
    np.testing.assert_array_equal(parsed.samples["structure_id"], structures)


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


def test_rnaseq_follows_the_microarray(kept: Path) -> None:
    """Over the shared wells, a marker's TPM rises with the probe's intensity."""
    store = lake.open(kept)
    rnaseq = store.rnaseq("9861")
    probe = int(np.flatnonzero(store.probes["reannotated_gene_symbol"] == "SST")[0])
    column = pd.Series(store.samples.index, index=store.samples["well_id"])[rnaseq["well_id"].to_numpy()]
    intensity = store.microarray()["expression"].isel(probe=probe, sample=column.to_numpy()).to_numpy()
    tpm = rnaseq["tpm"].sel(gene="SST").to_numpy()
    assert pd.Series(tpm).corr(pd.Series(intensity), method="spearman") > 0.6


def test_simulated_names_survive(parsed: Rnaseq) -> None:
    assert is_simulated_rnaseq(parsed.samples)
    assert not is_simulated_rnaseq(parsed.samples.iloc[:0])
    measured = parsed.samples.assign(rnaseq_sample_name=["S1", *parsed.samples["rnaseq_sample_name"][1:]])
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


# ---------------------------------------------------------------- found


def as_fetched(source: Path, target: Path) -> Path:
    return Path(shutil.copytree(source, target))


def as_abagen(source: Path, target: Path) -> Path:
    for donor in SEQUENCED:
        shutil.copytree(folder_of(source, donor), folder_of(target / "rnaseq", donor))
    return target


def inside_abagens_folder(source: Path, target: Path) -> Path:
    return as_abagen(source, target) / "rnaseq"


def zip_rnaseq(folder: Path, archive: Path) -> None:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
        for name in RNASEQ_FILES:
            target.write(folder / name, name)


def zips(source: Path, target: Path) -> Path:
    target.mkdir()
    for donor in SEQUENCED:
        zip_rnaseq(folder_of(source, donor), target / f"rnaseq_donor{donor}.zip")
    return target


def abagens_zips(source: Path, target: Path) -> Path:
    for donor in SEQUENCED:
        folder_of(target / "rnaseq", donor).mkdir(parents=True)
        zip_rnaseq(folder_of(source, donor), folder_of(target / "rnaseq", donor) / f"donor{donor}.zip")
    return target


LAYOUTS = (as_fetched, as_abagen, inside_abagens_folder, zips, abagens_zips)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_found(layout: Callable[[Path, Path], Path], sequenced: Path, tmp_path: Path) -> None:
    found = find_rnaseq(layout(sequenced, tmp_path / "data"))
    assert list(found) == list(SEQUENCED)
    for donor, files in found.items():
        for name in RNASEQ_FILES:
            assert files[name].sha256() == SourceFile(folder_of(sequenced, donor) / name).sha256()


def test_a_single_donors_folder_is_not_taken_for_microarray(sequenced: Path, tmp_path: Path) -> None:
    folder = folder_of(abagens_zips(sequenced, tmp_path / "data") / "rnaseq")
    assert list(find_rnaseq(folder)) == ["9861"]
    assert find_donors(folder, required=False) == {}


def test_no_rnaseq_is_no_fault_unless_asked_for(published: Path) -> None:
    assert find_rnaseq(published) == {}
    with pytest.raises(InputError, match=r"no folder rnaseq_donor<ID> .* --what rnaseq` downloads them"):
        find_rnaseq(published, required=True)


def test_a_missing_file_is_named(sequenced_copy: Path) -> None:
    (folder_of(sequenced_copy) / "Genes.csv").unlink()
    with pytest.raises(InputError, match=r"rnaseq_donor9861: Genes.csv missing; fetch or extract"):
        find_rnaseq(sequenced_copy)


# ---------------------------------------------------------------- parsed


def test_every_value_is_the_published_one(sequenced: Path, parsed: Rnaseq) -> None:
    for kind, name in MATRICES.items():
        expected = published_matrix(folder_of(sequenced) / name)
        assert list(parsed.genes["gene_symbol"]) == sorted(expected)
        values = getattr(parsed, kind)
        for row, symbol in enumerate(parsed.genes["gene_symbol"]):
            assert values[row].tolist() == expected[symbol]


def test_every_column_is_the_published_one(sequenced: Path, parsed: Rnaseq) -> None:
    with (folder_of(sequenced) / "SampleAnnot.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for published, ours in (
        ("RNAseq_sample_name", "rnaseq_sample_name"),
        ("ontology_structure_id", "structure_id"),
        ("RIN_RNA_quality", "rna_integrity_number"),
        ("G.Pct", "percent_g"),
        ("brain", "brain"),
    ):
        kind = type(parsed.samples[ours].tolist()[0])
        assert parsed.samples[ours].tolist() == [kind(row[published]) for row in rows]
    with (folder_of(sequenced) / "Genes.csv").open(newline="") as stream:
        genes = list(csv.DictReader(stream))
    for gene in parsed.genes.to_dict("records"):
        published_gene = genes[gene["published_row"]]
        assert published_gene["gene_symbol"] == gene["gene_symbol"]
        assert published_gene["entrez_id"] == ("NA" if gene["entrez_id"] == -1 else str(gene["entrez_id"]))


def test_the_layout_names_every_column(parsed: Rnaseq) -> None:
    assert [variable.name for variable in RNASEQ_GENES] == list(parsed.genes)
    assert [variable.name for variable in RNASEQ_SAMPLES] == list(parsed.samples)
    assert [variable.name for variable in RNASEQ_MATRICES] == list(MATRICES)


def test_rows_are_joined_by_symbol_not_by_order(sequenced_copy: Path, parsed: Rnaseq) -> None:
    """Each file in an order of its own; quotes, Windows line ends and a mark make no difference."""
    folder = folder_of(sequenced_copy)
    lines_changed(folder / "RNAseqTPM.csv", lambda lines: lines[::-1])
    lines_changed(folder / "RNAseqCounts.csv", lambda lines: [*lines[7:], *lines[:7]])
    lines_changed(folder / "Genes.csv", lambda lines: [lines[0], *sorted(lines[1:], key=hash_of)])
    rewrite(folder / "RNAseqTPM.csv", lambda data: re.sub(rb"(?m)^([^,]+),", rb'"\1",', data))
    rewrite(folder / "RNAseqCounts.csv", lambda data: data.replace(b"\n", b"\r\n"))
    rewrite(folder / "SampleAnnot.csv", lambda data: b"\xef\xbb\xbf" + data)
    again = read_rnaseq(files_of(sequenced_copy))
    assert again.tpm.tobytes() == parsed.tpm.tobytes()
    assert again.counts.tobytes() == parsed.counts.tobytes()
    ours, theirs = (rnaseq.genes.drop(columns="published_row") for rnaseq in (again, parsed))
    pd.testing.assert_frame_equal(ours, theirs)


def hash_of(line: bytes) -> bytes:
    return line[::-1]


@given(
    st.lists(
        st.lists(st.floats(0, allow_infinity=False, allow_nan=False), min_size=3, max_size=3),
        min_size=1,
        max_size=5,
    ),
    st.randoms(use_true_random=False),
)
def test_any_number_comes_back_to_the_last_bit(
    tmp_path_factory: pytest.TempPathFactory, values: list[list[float]], random: object
) -> None:
    path = tmp_path_factory.mktemp("matrix") / "RNAseqTPM.csv"
    symbols = [f"G{row}" for row in range(len(values))]
    rows = list(zip(symbols, values, strict=True))
    random.shuffle(rows)  # type: ignore[attr-defined]
    path.write_text("".join(f"{symbol},{','.join(map(repr, row))}\n" for symbol, row in rows))
    assert read_rnaseq_matrix(SourceFile(path), symbols, 3).values.tolist() == values


SYMBOLS = ("AAA", "BBB", "CCC")
WHOLE = ["AAA,1,2.5,0\n", "BBB,0,0,0\n", "CCC,1e-3,4.25,7\n"]
FAULTS = {
    "header": (
        "gene,a,b,c\n" + "".join(WHOLE),
        [r"line 1: 'gene,a,b,c' is no row of numbers; expected no h"],
    ),
    "ragged": ("AAA,1,2\n" + "".join(WHOLE[1:]), [r"line 1: 3 fields, expected 4: gene_symbol, 3 samples"]),
    "long": ("".join(WHOLE[:2]) + "CCC,1,2,3,4\n", [r"line 3: 5 fields, expected 4"]),
    "text": ("AAA,1,x,0\n" + "".join(WHOLE[1:]), [r"line 1, column 3: 'x' is not a finite number"]),
    "nan": ("AAA,1,nan,0\n" + "".join(WHOLE[1:]), [r"line 1, column 3: 'nan' is not a finite number"]),
    "NA": ("AAA,1,NA,0\n" + "".join(WHOLE[1:]), [r"line 1, column 3: 'NA' is not a finite number"]),
    "infinite": ("AAA,1,inf,0\n" + "".join(WHOLE[1:]), [r"line 1, column 3: 'inf' is not a finite"]),
    "huge": ("AAA,1,1e999,0\n" + "".join(WHOLE[1:]), [r"line 1, column 3: '1e999' is too large"]),
    "empty": ("AAA,1,,0\n" + "".join(WHOLE[1:]), [r"line 1, column 3: an empty field is not a finite"]),
    "blank": ("AAA,1, 2,0\n" + "".join(WHOLE[1:]), [r"line 1, column 3: ' 2' is not a finite number"]),
    "underscore": ("AAA,1,1_0,0\n" + "".join(WHOLE[1:]), [r"line 1, column 3: '1_0' is not a finite"]),
    "negative": (WHOLE[0] + "BBB,0,-0.5,0\n" + WHOLE[2], [r"line 2, column 3: '-0.5' is negative"]),
    "unknown": ("".join(WHOLE) + "DDD,1,2,3\n", [r"line 4, column 1: gene 'DDD' is not in Genes.csv"]),
    "repeated": (
        "".join(WHOLE) + WHOLE[0],
        [r"line 4, column 1: gene 'AAA' is there a second time \(first on line 1\)"],
    ),
    "missing": (
        "".join(WHOLE[:1]),
        [r"2 of 3 genes of Genes.csv have no row \(such as BBB, CCC\); is the f"],
    ),
    "cut off": ("".join(WHOLE)[:-1], [r"line 3: the last line has no end; the file is cut off"]),
    "no quote": ("".join(WHOLE[:2]) + '"CCC,1,2,3\n', [r"line \d: .*; is the file cut off\?"]),
    "blank line": (WHOLE[0] + "\n" + "".join(WHOLE[1:]), [r"line 2: 0 fields, expected 4"]),
    "nothing": ("", [r"the file is empty"]),
    "several": (
        "AAA,1,-2,x\nBBB,1\nEEE,1,2,3\nCCC,1,2,3\n",
        [
            r"4 problems",
            r"line 1, column 3: '-2' is negative",
            r"line 1, column 4: 'x' is not a finite number",
            r"line 2: 2 fields, expected 4",
            r"line 3, column 1: gene 'EEE' is not in Genes.csv",
        ],
    ),
}


def matrix_file(tmp_path: Path, content: bytes) -> SourceFile:
    path = tmp_path / "RNAseqTPM.csv"
    path.write_bytes(content)
    return SourceFile(path)


def test_a_whole_matrix_is_taken(tmp_path: Path) -> None:
    matrix = read_rnaseq_matrix(matrix_file(tmp_path, "".join(WHOLE).encode()), SYMBOLS, 3)
    assert matrix.values.tolist() == [[1, 2.5, 0], [0, 0, 0], [0.001, 4.25, 7]]


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_with_a_matrix_is_told(fault: str, tmp_path: Path) -> None:
    content, messages = FAULTS[fault]
    with pytest.raises(InputError, match=r"RNAseqTPM.csv: ") as caught:
        read_rnaseq_matrix(matrix_file(tmp_path, content.encode()), SYMBOLS, 3)
    for message in messages:
        assert re.search(message, str(caught.value)), caught.value


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("".join(WHOLE).encode("utf-16"), r"line 1: byte 0xff is not UTF-8"),
        (b"PK\x03\x04", r"line 1: this is a zip"),
    ],
)
def test_other_encodings_are_told(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        read_rnaseq_matrix(matrix_file(tmp_path, content), SYMBOLS, 3)


def test_no_more_is_told_than_a_person_reads(tmp_path: Path) -> None:
    content = "".join(f"G{row},x,y,z\n" for row in range(2, 100))
    with pytest.raises(InputError, match=r"20 problems") as caught:
        read_rnaseq_matrix(matrix_file(tmp_path, f"AAA,1,2,3\n{content}".encode()), SYMBOLS, 3)
    assert str(caught.value).endswith(".. and more")


TABLE_FAULTS = {
    "gene twice": ("Genes.csv", lambda lines: [*lines, lines[1]], r"column 'gene_symbol': .* second time"),
    "no symbol": (
        "Genes.csv",
        lambda lines: [*lines, re.sub(rb"^[^,]+", b"", lines[1])],
        r"column 'gene_symbol': '' is empty, which no name is",
    ),
    "wrong Entrez id": (
        "Genes.csv",
        lambda lines: [lines[0], re.sub(rb"^([^,]*,[^,]*),[^,]*", rb"\1,n.a.", lines[1]), *lines[2:]],
        r"line 2, column 'entrez_id': 'n.a.' is not a whole number",
    ),
    "Genes header": (
        "Genes.csv",
        lambda lines: [lines[0].replace(b"strand", b"sense"), *lines[1:]],
        r"line 1: the header is 'gene_symbol,.*sense.* expected 'gene_symbol,",
    ),
    "Genes without rows": ("Genes.csv", lambda lines: lines[:1], r"no rows below the header"),
    "sample twice": (
        "SampleAnnot.csv",
        lambda lines: [*lines, lines[1]],
        r"line 123, column 'RNAseq_sample_name': 'simulated_S9861_001' is there a second time",
    ),
    "well without number": (
        "SampleAnnot.csv",
        lambda lines: [lines[0], re.sub(rb"^((?:[^,]*,){3})\d+", rb"\1NA", lines[1]), *lines[2:]],
        r"line 2, column 'well_id': 'NA' is not a whole number",
    ),
    "unknown structure": (
        "SampleAnnot.csv",
        lambda lines: [lines[0], re.sub(rb"^((?:[^,]*,){8})\d+", rb"\g<1>7", lines[1]), *lines[2:]],
        r"line 2, column 'ontology_structure_id': structure 7 is not in the ontology",
    ),
    "ragged sample": (
        "SampleAnnot.csv",
        lambda lines: [lines[0], lines[1].replace(b",", b"", 1), *lines[2:]],
        r"line 2: 20 fields, expected 21",
    ),
    "cut off": ("SampleAnnot.csv", lambda lines: [*lines[:-1], lines[-1][:-5]], r"last line has no end"),
    "a sample less": ("SampleAnnot.csv", lambda lines: lines[:-1], r"TPM.csv: 20 problems\n  line 1: 122 fi"),
}


@pytest.mark.parametrize("fault", TABLE_FAULTS)
def test_what_is_wrong_with_a_table_is_told(fault: str, sequenced_copy: Path) -> None:
    name, change, message = TABLE_FAULTS[fault]
    lines_changed(folder_of(sequenced_copy) / name, change)
    with pytest.raises(InputError, match=message):
        read_rnaseq(files_of(sequenced_copy))


def test_what_is_not_available_is_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "Genes.csv"
    path.write_text(
        "gene_symbol,gene_id,entrez_id,chromosome,strand,number_of_transcripts,median_transcriptome_length,"
        "median_genome_length,median_number_of_exons,median_gene_start,median_gene_end\n"
        "NA,NA,NA,NA,,NA,NA,,2.5,NA,7\n"
    )
    (gene,) = read_genes(SourceFile(path)).frame.to_dict("records")
    assert gene["gene_symbol"] == "NA"  # a name, whatever it reads like
    assert gene["gene_id"] == gene["entrez_id"] == gene["number_of_transcripts"] == -1
    assert np.isnan([gene["median_transcriptome_length"], gene["median_genome_length"]]).all()
    assert gene["median_number_of_exons"] == 2.5


# ---------------------------------------------------------------- kept


def test_the_store_keeps_every_bit_and_every_column(sequenced: Path, kept: Path) -> None:
    store = lake.open(kept)
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


def test_a_gene_is_found_by_its_symbol(sequenced: Path, kept: Path) -> None:
    expected = published_matrix(folder_of(sequenced) / "RNAseqTPM.csv")["SST"]
    assert lake.open(kept).rnaseq("H0351.2001")["tpm"].sel(gene="SST").to_numpy().tolist() == expected


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


def test_the_order_of_coming_in_does_not_matter(sequenced: Path, kept: Path, tmp_path: Path) -> None:
    path = tmp_path / "store.zarr"
    ingest_directory(sequenced, path, donors=["10021"])
    ingest_directory(sequenced, path, what=["microarray"])
    assert lake.open(path).snapshot != lake.open(kept).snapshot
    ingest_directory(folder_of(sequenced), path)  # RNA-seq alone, of a donor who is in the store
    assert lake.open(path).snapshot == lake.open(kept).snapshot


def test_a_store_without_rnaseq_does_not_know_of_it(sequenced: Path, tmp_path: Path) -> None:
    path = tmp_path / "store.zarr"
    ingest_directory(sequenced, path, donors=["9861"], what=["microarray"])
    assert not (path / "rnaseq").exists()
    assert "rnaseq" not in json.loads((path / "zarr.json").read_text())["attributes"]["ahba_lake"]
    store = lake.open(path)
    assert (store.rnaseq_donors, store.rnaseq_profiles()) == ([], {})
    with pytest.raises(RequestError, match=r"no RNA-seq of donor 9861 \(it has that of none\)"):
        store.rnaseq("9861")


def test_a_donor_who_was_not_sequenced(kept: Path) -> None:
    with pytest.raises(RequestError, match=r"no RNA-seq of donor 12876 \(it has that of 9861, 10021\)"):
        lake.open(kept).rnaseq("12876")


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


def test_changed_files_are_refused_unless_replaced(sequenced_copy: Path, kept_copy: Path) -> None:
    change_tpm(sequenced_copy)
    before = tree(kept_copy)
    with pytest.raises(RequestError, match=r"Donor 9861: the published RNA-seq files differ .* --replace"):
        ingest_directory(sequenced_copy, kept_copy)
    assert tree(kept_copy) == before
    done = ingest_directory(sequenced_copy, kept_copy, replace=True)
    assert [d.status for d in done] == ["present"] * 3 + ["replaced", "present"]
    expected = read_rnaseq(files_of(sequenced_copy)).tpm
    store = lake.open(kept_copy)
    assert store.manifest.rnaseq["9861"].group == "rnaseq/9861.2"
    assert store.rnaseq("9861")["tpm"].to_numpy().tobytes() == expected.tobytes()
    ingest_directory(sequenced_copy, kept_copy)
    assert not (kept_copy / "rnaseq" / "9861").exists()  # swept: no manifest names it
    assert verify(lake.open(kept_copy)) == []


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
    done = ahba("ingest", sequenced_copy, "--store", store, "--donors", "9861")
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


DAMAGES = ("tpm/c/0/0", "counts/c/0/0", "gene_symbol/c/0", "well_id/c/0", "tpm/zarr.json", "zarr.json")


@pytest.mark.parametrize("part", DAMAGES)
@pytest.mark.parametrize("how", ["cut", "deleted"])
def test_damage_is_found(part: str, how: str, kept_copy: Path) -> None:
    path = kept_copy / "rnaseq" / "10021" / part
    if how == "cut":
        rewrite(path, lambda data: data[: len(data) // 2])
    else:
        path.unlink()
    found = verify(lake.open(kept_copy))
    assert found
    assert all(damage.where.startswith("rnaseq/10021") for damage in found)
    if part != "zarr.json":
        with pytest.raises(StoreError):
            lake.open(kept_copy).rnaseq("10021").compute()


def test_a_missing_parent_is_damage(kept_copy: Path) -> None:
    (kept_copy / "rnaseq" / "zarr.json").unlink()
    assert [damage.where for damage in verify(lake.open(kept_copy))] == ["rnaseq"]


def test_a_whole_store_is_whole(kept: Path) -> None:
    assert verify(lake.open(kept)) == []


def test_info_tells_what_was_sequenced(kept: Path) -> None:
    summary = {donor["donor"]: donor["rnaseq"] for donor in summarize(lake.open(kept))["donors"]}
    assert summary["12876"] is None
    assert summary["9861"]["n_samples"] == 121
    assert summary["9861"]["stored_bytes"] > 10_000
    assert set(summary["9861"]["sources"]) == set(RNASEQ_FILES)
    done = ahba("info", "--store", kept)
    assert re.search(r"9861 +H0351.2001 +\d+ +\d+ +\d+ +121 ", done.stdout)


def test_the_command_makes_it_up(tmp_path: Path) -> None:
    arguments = ("--probes", 10, "--donors", "9861,12876", "--samples-scale", 0.05, "--rnaseq", "-q")
    done = ahba("simulate", tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    assert "2 donors, RNA-seq of 1 in" in done.stdout
    assert list(find_rnaseq(tmp_path)) == ["9861"]


# ---------------------------------------------------------------- asked


def test_profiles_are_means_over_the_samples_of_a_structure(sequenced: Path, kept: Path) -> None:
    profiles = lake.open(kept).rnaseq_profiles()
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


def test_profiles_keep_constant_genes(kept: Path) -> None:
    profile = lake.open(kept).rnaseq_profiles(["9861"])["9861"]
    assert (profile.std(axis=1) == 0).any()


def test_profiles_of_some_donors(kept: Path) -> None:
    assert list(lake.open(kept).rnaseq_profiles(["12876", "H0351.2002"])) == ["10021"]
    assert lake.open(kept).rnaseq_profiles(["12876"]) == {}
    with pytest.raises(RequestError, match="Donor 15496 is not in the store"):
        lake.open(kept).rnaseq_profiles(["15496"])


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
def test_abagen_reads_the_simulated_files(abagen: Path, sequenced: Path, parsed: Rnaseq) -> None:
    done = subprocess.run(
        [abagen, "-I", "-W", "ignore", "-c", READ_WITH_ABAGEN, folder_of(sequenced)],
        capture_output=True,
        text=True,
        check=True,
    )
    read = json.loads(done.stdout)
    n_genes = len(parsed.genes)
    assert read["shapes"]["tpm"] == read["shapes"]["counts"] == [n_genes, 121]
    assert (read["shapes"]["genes"], read["shapes"]["annotation"]) == ([n_genes, 10], [121, 21])
    assert read["structure_id"] == parsed.samples["structure_id"].tolist()
    assert read["genes"] == parsed.genes["gene_symbol"].tolist()
    assert read["SST"] == parsed.tpm[parsed.genes["gene_symbol"].tolist().index("SST")].tolist()


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
