"""RNA-seq files: found however they lie, parsed to the last bit, with every fault told."""

import csv
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.errors import InputError
from ingest.rnaseq import Rnaseq, read_genes, read_rnaseq, read_rnaseq_matrix
from ingest.sources import RNASEQ_FILES, SourceFile, find_donors, find_rnaseq
from lake.layout import RNASEQ_GENES, RNASEQ_MATRICES, RNASEQ_SAMPLES
from tests.helpers import lines_changed, rewrite, zip_donor
from tests.rnaseq import MATRICES, SEQUENCED, files_of, folder_of, published_matrix

# ---------------------------------------------------------------- found


def as_fetched(source: Path, target: Path) -> Path:
    return Path(shutil.copytree(source, target))


def as_abagen(source: Path, target: Path) -> Path:
    for donor in SEQUENCED:
        shutil.copytree(folder_of(source, donor), folder_of(target / "rnaseq", donor))
    return target


def inside_abagens_folder(source: Path, target: Path) -> Path:
    return as_abagen(source, target) / "rnaseq"


def zips(source: Path, target: Path) -> Path:
    target.mkdir()
    for donor in SEQUENCED:
        zip_donor(folder_of(source, donor), target / f"rnaseq_donor{donor}.zip", RNASEQ_FILES)
    return target


def abagens_zips(source: Path, target: Path) -> Path:
    for donor in SEQUENCED:
        folder_of(target / "rnaseq", donor).mkdir(parents=True)
        archive = folder_of(target / "rnaseq", donor) / f"donor{donor}.zip"
        zip_donor(folder_of(source, donor), archive, RNASEQ_FILES)
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


def test_every_value_is_the_published_one(sequenced: Path, rnaseq_9861: Rnaseq) -> None:
    for kind, name in MATRICES.items():
        expected = published_matrix(folder_of(sequenced) / name)
        assert list(rnaseq_9861.genes["gene_symbol"]) == sorted(expected)
        values = getattr(rnaseq_9861, kind)
        for row, symbol in enumerate(rnaseq_9861.genes["gene_symbol"]):
            assert values[row].tolist() == expected[symbol]


def test_every_column_is_the_published_one(sequenced: Path, rnaseq_9861: Rnaseq) -> None:
    with (folder_of(sequenced) / "SampleAnnot.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for published, ours in (
        ("RNAseq_sample_name", "rnaseq_sample_name"),
        ("ontology_structure_id", "structure_id"),
        ("RIN_RNA_quality", "rna_integrity_number"),
        ("G.Pct", "percent_g"),
        ("brain", "brain"),
    ):
        kind = type(rnaseq_9861.samples[ours].tolist()[0])
        assert rnaseq_9861.samples[ours].tolist() == [kind(row[published]) for row in rows]
    with (folder_of(sequenced) / "Genes.csv").open(newline="") as stream:
        genes = list(csv.DictReader(stream))
    for gene in rnaseq_9861.genes.to_dict("records"):
        published_gene = genes[gene["published_row"]]
        assert published_gene["gene_symbol"] == gene["gene_symbol"]
        assert published_gene["entrez_id"] == ("NA" if gene["entrez_id"] == -1 else str(gene["entrez_id"]))


def test_the_layout_names_every_column(rnaseq_9861: Rnaseq) -> None:
    assert [variable.name for variable in RNASEQ_GENES] == list(rnaseq_9861.genes)
    assert [variable.name for variable in RNASEQ_SAMPLES] == list(rnaseq_9861.samples)
    assert [variable.name for variable in RNASEQ_MATRICES] == list(MATRICES)


def test_rows_are_joined_by_symbol_not_by_order(sequenced_copy: Path, rnaseq_9861: Rnaseq) -> None:
    """Each file in an order of its own; quotes, Windows line ends and a mark make no difference."""
    folder = folder_of(sequenced_copy)
    lines_changed(folder / "RNAseqTPM.csv", lambda lines: lines[::-1])
    lines_changed(folder / "RNAseqCounts.csv", lambda lines: [*lines[7:], *lines[:7]])
    lines_changed(folder / "Genes.csv", lambda lines: [lines[0], *sorted(lines[1:], key=hash_of)])
    rewrite(folder / "RNAseqTPM.csv", lambda data: re.sub(rb"(?m)^([^,]+),", rb'"\1",', data))
    rewrite(folder / "RNAseqCounts.csv", lambda data: data.replace(b"\n", b"\r\n"))
    rewrite(folder / "SampleAnnot.csv", lambda data: b"\xef\xbb\xbf" + data)
    again = read_rnaseq(files_of(sequenced_copy))
    assert again.tpm.tobytes() == rnaseq_9861.tpm.tobytes()
    assert again.counts.tobytes() == rnaseq_9861.counts.tobytes()
    ours, theirs = (rnaseq.genes.drop(columns="published_row") for rnaseq in (again, rnaseq_9861))
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
