"""The published files of RNA-seq, for the tests."""

import csv
from pathlib import Path

from ingest.sources import DonorFiles, find_rnaseq

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
