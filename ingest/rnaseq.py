"""The published RNA-seq files of a donor: Genes.csv, SampleAnnot.csv, RNAseqTPM.csv and RNAseqCounts.csv.

A row of the matrices is ``gene_symbol,value,value,..`` with one value a sample and no header. Rows are joined
to Genes.csv by gene symbol, never by their order, so a symbol that is there twice is refused: nothing could
tell its rows apart. (abagen 0.1.3 looks each gene up in the matrix: it fails when a repeated symbol is a
gene of the microarray, and does not notice one that is not.)
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ingest.problems import Problems, shown
from ingest.sources import DonorFiles, SourceFile
from ingest.tables import (
    DTYPES,
    NO_NUMBER,
    Parser,
    Table,
    finite_number,
    identifier,
    note_repeated,
    plain_text,
    read_bytes,
    read_columns,
    read_ontology,
    text_rows,
)

NOT_AVAILABLE = ("NA", "")  # the published files write NA
MATRIX_FILES = {"tpm": "RNAseqTPM.csv", "counts": "RNAseqCounts.csv"}
_IN_NUMBERS = frozenset("0123456789.eE+-")  # float() takes more: 1_000, inf, blanks


def _name(text: str) -> str:
    if not text:
        raise ValueError("is empty, which no name is")
    return text


def _optional_identifier(text: str) -> int:
    return NO_NUMBER if text in NOT_AVAILABLE else identifier(text)


def _optional_number(text: str) -> float:
    return float("nan") if text in NOT_AVAILABLE else finite_number(text)


_DTYPES: dict[Parser, type] = DTYPES | {
    _name: object,
    _optional_identifier: np.int64,
    _optional_number: np.float64,
}
# Published name -> (our name, parser).
GENE_COLUMNS: dict[str, tuple[str, Parser]] = {
    "gene_symbol": ("gene_symbol", _name),
    "gene_id": ("gene_id", _optional_identifier),
    "entrez_id": ("entrez_id", _optional_identifier),
    "chromosome": ("chromosome", plain_text),
    "strand": ("strand", plain_text),
    "number_of_transcripts": ("number_of_transcripts", _optional_identifier),
    "median_transcriptome_length": ("median_transcriptome_length", _optional_number),
    "median_genome_length": ("median_genome_length", _optional_number),
    "median_number_of_exons": ("median_number_of_exons", _optional_number),
    "median_gene_start": ("median_gene_start", _optional_number),
    "median_gene_end": ("median_gene_end", _optional_number),
}
SAMPLE_COLUMNS: dict[str, tuple[str, Parser]] = {
    "RNAseq_sample_name": ("rnaseq_sample_name", _name),
    "replicate_sample": ("replicate_sample", plain_text),
    "sample_name": ("sample_name", plain_text),
    "well_id": ("well_id", identifier),
    "microarray_run_id": ("microarray_run_id", plain_text),
    "ontology_color": ("structure_color", plain_text),
    "main_structure": ("main_structure", plain_text),
    "sub_structure": ("sub_structure", plain_text),
    "ontology_structure_id": ("structure_id", identifier),
    "ontology_structure_acronym": ("structure_acronym", plain_text),
    "hemisphere": ("hemisphere", plain_text),
    "brain": ("brain", plain_text),
    "million_clusters": ("million_clusters", _optional_number),
    "clip_percentage": ("clip_percentage", _optional_number),
    "RIN_RNA_quality": ("rna_integrity_number", _optional_number),
    "rnaseq_run_id": ("rnaseq_run_id", plain_text),
    "A.Pct": ("percent_a", _optional_number),
    "C.Pct": ("percent_c", _optional_number),
    "G.Pct": ("percent_g", _optional_number),
    "T.Pct": ("percent_t", _optional_number),
    "N.Pct": ("percent_n", _optional_number),
}


@dataclass(frozen=True, eq=False)
class Rnaseq:
    """One donor's RNA-seq.

    Attributes
    ----------
    donor : str
    genes : pandas.DataFrame
        One row a gene, sorted by symbol: our names of `GENE_COLUMNS` (ids -1 and lengths NaN where the file
        has NA), then ``published_row``.
    samples : pandas.DataFrame
        One row a sequenced sample, in published order: our names of `SAMPLE_COLUMNS`. Replicates repeat a
        ``well_id``, which is the microarray's.
    tpm, counts : numpy.ndarray of float64, shape (gene, sample)
        Transcripts per million, and fragment counts (RSEM's, so not always whole).
    sources : dict
        File name -> ``{"size": bytes, "sha256": hex}``.
    """

    donor: str
    genes: pd.DataFrame
    samples: pd.DataFrame
    tpm: NDArray[np.float64]
    counts: NDArray[np.float64]
    sources: dict[str, dict[str, Any]]


@dataclass(frozen=True, eq=False)
class RnaseqMatrix:
    """A parsed matrix.

    Attributes
    ----------
    values : numpy.ndarray of float64, shape (gene, sample)
    size : int
        Bytes of the file.
    sha256 : str
        Of the file's bytes.
    """

    values: NDArray[np.float64]
    size: int
    sha256: str


def read_rnaseq(files: DonorFiles) -> Rnaseq:
    """Read the RNA-seq of one donor.

    Parameters
    ----------
    files : DonorFiles
        As `ingest.sources.find_rnaseq` gives them.

    Returns
    -------
    Rnaseq

    Raises
    ------
    InputError
        With everything that is wrong with the first file that is wrong.
    """
    ontology = read_ontology(files["Ontology.csv"])
    samples = read_rnaseq_samples(files["SampleAnnot.csv"], ontology.frame)
    genes = read_genes(files["Genes.csv"])
    symbols = genes.frame["gene_symbol"].tolist()
    matrices = {
        kind: read_rnaseq_matrix(files[name], symbols, len(samples.frame))
        for kind, name in MATRIX_FILES.items()
    }
    read: dict[str, Table | RnaseqMatrix] = {
        "Ontology.csv": ontology,
        "SampleAnnot.csv": samples,
        "Genes.csv": genes,
        **{MATRIX_FILES[kind]: matrix for kind, matrix in matrices.items()},
    }
    return Rnaseq(
        donor=files.donor,
        genes=genes.frame,
        samples=samples.frame,
        tpm=matrices["tpm"].values,
        counts=matrices["counts"].values,
        sources={name: {"size": part.size, "sha256": part.sha256} for name, part in read.items()},
    )


def read_genes(file: SourceFile) -> Table:
    """Read Genes.csv.

    Returns
    -------
    Table
        Our names of `GENE_COLUMNS`, then ``published_row``; sorted by gene symbol.

    Raises
    ------
    InputError
        With every wrong cell and repeated gene symbol.
    """
    problems = Problems(str(file))
    table = read_columns(file, _parsers(GENE_COLUMNS), problems, _DTYPES)
    note_repeated(problems, table, ("gene_symbol",))
    problems.raise_if_any()
    frame = _renamed(table.frame, GENE_COLUMNS).assign(published_row=np.arange(len(table.frame)))
    order = np.argsort(frame["gene_symbol"].to_numpy(str), kind="stable")
    return replace(table, frame=frame.iloc[order].reset_index(drop=True), lines=table.lines[order])


def read_rnaseq_samples(file: SourceFile, ontology: pd.DataFrame) -> Table:
    """Read the SampleAnnot.csv of RNA-seq.

    Parameters
    ----------
    file : SourceFile
    ontology : pandas.DataFrame
        As `ingest.tables.read_ontology` gives it.

    Returns
    -------
    Table
        Our names of `SAMPLE_COLUMNS`; percentages are of bases, the integrity number is from 1 to 10.

    Raises
    ------
    InputError
        With every wrong cell, repeated sample and structure that the ontology lacks.
    """
    problems = Problems(str(file))
    table = read_columns(file, _parsers(SAMPLE_COLUMNS), problems, _DTYPES)
    note_repeated(problems, table, ("RNAseq_sample_name",))
    structures = table.frame["ontology_structure_id"]
    for row in np.flatnonzero(~structures.isin([*ontology["structure_id"], NO_NUMBER])):
        problems.add(
            f"structure {structures.iloc[row]} is not in the ontology",
            line=int(table.lines[row]),
            column="ontology_structure_id",
        )
    problems.raise_if_any()
    return replace(table, frame=_renamed(table.frame, SAMPLE_COLUMNS))


def _parsers(columns: dict[str, tuple[str, Parser]]) -> dict[str, Parser]:
    return {published: parser for published, (_, parser) in columns.items()}


def _renamed(frame: pd.DataFrame, columns: dict[str, tuple[str, Parser]]) -> pd.DataFrame:
    return frame.rename(columns={published: ours for published, (ours, _) in columns.items()})


def read_rnaseq_matrix(file: SourceFile, symbols: Sequence[str], n_samples: int) -> RnaseqMatrix:
    """Read RNAseqTPM.csv or RNAseqCounts.csv.

    Parameters
    ----------
    file : SourceFile
    symbols : sequence of str
        The genes of Genes.csv: each must come exactly once, in any order.
    n_samples : int
        Rows of SampleAnnot.csv, so values a line.

    Returns
    -------
    RnaseqMatrix
        Rows in the order of `symbols`.

    Raises
    ------
    InputError
        With everything found wrong: a header, ragged rows, cells that are not finite numbers from 0 on,
        unknown, repeated and missing genes, a cut-off end, another encoding.
    """
    data = read_bytes(file)
    rows = _MatrixRows(symbols, n_samples, Problems(str(file)))
    for line, cells in text_rows(file, data):
        rows.take(line, cells)
        if rows.problems.more:
            break
    rows.note_missing()
    rows.problems.raise_if_any()
    return RnaseqMatrix(rows.values, len(data), hashlib.sha256(data).hexdigest())


class _MatrixRows:
    """Puts each row where its gene belongs, and notes what is wrong."""

    def __init__(self, symbols: Sequence[str], n_samples: int, problems: Problems) -> None:
        self.values = np.empty((len(symbols), n_samples))
        self.problems = problems
        self._place = {symbol: place for place, symbol in enumerate(symbols)}
        self._line_of: dict[str, int] = {}

    def take(self, line: int, cells: list[str]) -> None:
        n_samples = self.values.shape[1]
        if line == 1 and n_samples and cells and not any(map(_is_number, cells[1:])):
            self.problems.add(f"{shown(','.join(cells))} is no row of numbers; expected no header", line=1)
        elif len(cells) != n_samples + 1:
            self.problems.add(
                f"{len(cells)} fields, expected {n_samples + 1}: gene_symbol, {n_samples} samples", line=line
            )
        else:
            self._take_whole(line, cells[0], cells[1:])

    def _take_whole(self, line: int, symbol: str, cells: list[str]) -> None:
        numbers = _numbers(cells)
        if symbol not in self._place:
            self.problems.add(f"gene {shown(symbol)} is not in Genes.csv", line=line, column=1)
        elif symbol in self._line_of:
            first = self._line_of[symbol]
            self.problems.add(
                f"gene {shown(symbol)} is there a second time (first on line {first})", line=line, column=1
            )
        else:
            self._line_of[symbol] = line
            if numbers is not None:
                self.values[self._place[symbol]] = numbers
        if numbers is None:
            self._note_cells(line, cells)

    def _note_cells(self, line: int, cells: Iterable[str]) -> None:
        for column, cell in enumerate(cells, start=2):
            try:
                if finite_number(cell) < 0:
                    self.problems.add(f"{shown(cell)} is negative", line=line, column=column)
            except ValueError as error:
                what = shown(cell) if cell else "an empty field"
                self.problems.add(f"{what} {error}", line=line, column=column)

    def note_missing(self) -> None:
        missing = [symbol for symbol in self._place if symbol not in self._line_of]
        if missing and not self.problems.found:
            self.problems.add(
                f"{len(missing)} of {len(self._place)} genes of Genes.csv have no row "
                f"(such as {', '.join(missing[:3])}); is the file cut off?"
            )


def _numbers(cells: list[str]) -> list[float] | None:
    """The cells as numbers, None if one is not a finite number from 0 on."""
    if not _IN_NUMBERS.issuperset("".join(cells)):
        return None
    try:
        numbers = list(map(float, cells))
    except ValueError:
        return None
    return numbers if all(0 <= number < float("inf") for number in (min(numbers), max(numbers))) else None


def _is_number(cell: str) -> bool:
    try:
        finite_number(cell)
    except ValueError:
        return False
    return True
