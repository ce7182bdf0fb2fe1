"""Made-up RNA-seq of the two donors who have it, in the published format.

A sequenced sample is a well of the simulated microarray, some of them twice (replicates). A gene's TPM
follows the field that its probes see (`ingest.simulated_probes`), with noise of its own; some genes of the
microarray are absent, some are never transcribed (constant), some are known to RNA-seq only. The names of
samples and runs, which every copy of the data keeps, begin with "simulated".
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ingest.reference import donors as donor_facts
from ingest.reference import reannotation
from ingest.simulated_anatomy import BoolArray, FloatArray, IntArray, Samples
from ingest.simulated_probes import MARK, MARKERS, PUBLISHED_PROBES, DonorSignal, Probes

RNASEQ_DONORS = ("9861", "10021")
PUBLISHED_GENES, PUBLISHED_SAMPLES = 22_318, 121

_REPLICATES = 9
_ABSENT_SHARE, _CONSTANT_SHARE, _AMBIGUOUS_SHARE = 0.1, 0.03, 0.3
_NO_FIELD = -1
_NOISE_SD = 0.35
_DETECTED_LEVEL = 2.0  # log2 microarray level below which RNA-seq sees nothing
# Text has two decimals; what a matrix product gives is rounded first, see `ingest.simulated_probes`.
_UNIT, _SIGNAL_UNIT = 100, 10**4
# First parts of the seeds of the streams of random numbers; the other modules have 1 to 6.
_GENES, _DONOR = 7, 8


@dataclass(frozen=True, eq=False)
class Genes:
    """The simulated genes in the order of Genes.csv, the same for every donor.

    Attributes
    ----------
    table : pandas.DataFrame
        Columns of Genes.csv, as text.
    gene : numpy.ndarray of int, shape (gene,)
        Gene of the microarray's signal; -1 for genes known to RNA-seq only.
    level : numpy.ndarray of float64, shape (gene,)
        Mean of the gene's probes, log2.
    length : numpy.ndarray of float64, shape (gene,)
        Of the transcript, in bases.
    constant, ambiguous : numpy.ndarray of bool, shape (gene,)
        Never transcribed; counted in fractions, because reads fit other genes too.
    """

    table: pd.DataFrame
    gene: IntArray
    level: FloatArray
    length: FloatArray
    constant: BoolArray
    ambiguous: BoolArray


def is_simulated_rnaseq(samples: pd.DataFrame) -> bool:
    """Whether a table of RNA-seq samples comes from the simulator.

    Parameters
    ----------
    samples : pandas.DataFrame
        With the column ``rnaseq_sample_name``.

    Returns
    -------
    bool
        True if there are samples and every name begins with "simulated".
    """
    names = samples["rnaseq_sample_name"].astype(str)
    return len(names) > 0 and bool(names.str.startswith(MARK).all())


def simulated_genes(probes: Probes, probe_level: FloatArray, seed: int) -> Genes:
    """Make up Genes.csv.

    Parameters
    ----------
    probes : Probes
    probe_level : numpy.ndarray of float64, shape (probe,)
        Mean of each probe, log2.
    seed : int

    Returns
    -------
    Genes
        As many as published, in proportion to the probes.
    """
    random = np.random.default_rng([seed, _GENES])
    known = _microarray_genes(probes)
    known = known[(random.random(len(known)) >= _ABSENT_SHARE) | known["gene_symbol"].isin(MARKERS)]
    n_genes = max(round(PUBLISHED_GENES * len(probes.gene) / PUBLISHED_PROBES), len(known) + 1)
    table = pd.concat([known, _only_rnaseq(n_genes - len(known))], ignore_index=True)
    table = table.iloc[random.permutation(n_genes)].reset_index(drop=True)
    gene = table["gene"].to_numpy(np.int64)
    means = np.bincount(probes.gene, probe_level) / np.bincount(probes.gene)
    length = np.rint(np.exp(random.normal(7.5, 0.7, n_genes)))
    never = (random.random(n_genes) < _CONSTANT_SHARE) & ~table["gene_symbol"].isin(MARKERS).to_numpy()
    return Genes(
        table=_genes_table(table, length, random),
        gene=gene,
        level=np.where(gene == _NO_FIELD, random.normal(5, 2, n_genes), means[gene]),
        length=length,
        constant=never,
        ambiguous=random.random(n_genes) < _AMBIGUOUS_SHARE,
    )


def _microarray_genes(probes: Probes) -> pd.DataFrame:
    """Genes that re-annotation keeps: gene, gene_symbol, entrez_id, gene_id, chromosome."""
    names = reannotation().set_index("probe_name").reindex(probes.table["probe_name"])
    table = pd.DataFrame(
        {
            "gene": probes.gene,
            "gene_symbol": names["gene_symbol"].to_numpy(object),
            "entrez_id": names["entrez_id"].to_numpy(),
            "gene_id": probes.table["gene_id"].to_numpy(),
            "chromosome": probes.table["chromosome"].to_numpy(object),
        }
    )
    table = table.dropna(subset="gene_symbol").sort_values(["gene", "gene_id"], kind="stable")
    table = table.drop_duplicates("gene").astype({"entrez_id": "int64"})
    return table.astype({"entrez_id": str, "gene_id": str})


def _only_rnaseq(n_genes: int) -> pd.DataFrame:
    numbers = range(1, n_genes + 1)
    return pd.DataFrame(
        {
            "gene": np.full(n_genes, _NO_FIELD),
            "gene_symbol": [f"SIM_RNA_{number:06d}" for number in numbers],
            "entrez_id": ["NA" if number % 2 else str(980_000_000 + number) for number in numbers],
            "gene_id": "NA",
            "chromosome": [str(1 + number % 22) for number in numbers],
        }
    )


def _genes_table(table: pd.DataFrame, length: FloatArray, random: np.random.Generator) -> pd.DataFrame:
    n_genes = len(table)
    start = random.integers(10_000, 200_000_000, n_genes)
    genome_length = (length * random.integers(2, 40, n_genes)).astype(np.int64)
    columns = {
        "gene_symbol": table["gene_symbol"],
        "gene_id": table["gene_id"],
        "entrez_id": table["entrez_id"],
        "chromosome": table["chromosome"],
        "strand": random.choice(np.array(["+", "-"], dtype=object), n_genes),
        "number_of_transcripts": random.integers(1, 8, n_genes),
        "median_transcriptome_length": length.astype(np.int64),
        "median_genome_length": genome_length,
        "median_number_of_exons": random.integers(1, 60, n_genes) / 2,
        "median_gene_start": start,
        "median_gene_end": start + genome_length,
    }
    return pd.DataFrame({name: pd.Series(values).astype(str) for name, values in columns.items()})


def rnaseq_files(genes: Genes, donor: DonorSignal, samples: Samples, seed: int) -> dict[str, bytes]:
    """Make up the files of one donor, but for Ontology.csv, which is the microarray's.

    Parameters
    ----------
    genes : Genes
    donor : DonorSignal
        Of the donor's microarray.
    samples : Samples
        Of the donor's microarray: the wells to choose from.
    seed : int

    Returns
    -------
    dict of str to bytes
        By published file name.
    """
    random = np.random.default_rng([seed, _DONOR, int(donor.donor)])
    wells, replicate = _chosen_wells(len(samples.annotation), random)
    annotation = _annotation(donor.donor, samples, wells, replicate, random)
    transcripts = _transcripts(genes, donor, wells, random)
    tpm = transcripts / transcripts.sum(axis=0) * 1e6
    bases = transcripts * genes.length[:, np.newaxis]
    fragments = bases / bases.sum(axis=0) * annotation["million_clusters"].to_numpy(np.float64) * 1e6
    whole = np.where(genes.ambiguous, _UNIT, 1)[:, np.newaxis]
    symbols = genes.table["gene_symbol"]
    return {
        "Genes.csv": _csv(genes.table),
        "SampleAnnot.csv": _csv(annotation),
        "RNAseqTPM.csv": _matrix_csv(symbols, np.rint(tpm * _UNIT) / _UNIT),
        "RNAseqCounts.csv": _matrix_csv(symbols, np.rint(fragments * whole) / whole),
    }


def _chosen_wells(n_samples: int, random: np.random.Generator) -> tuple[IntArray, BoolArray]:
    """Which well each sequenced sample is of, and whether it is sequenced for the second time."""
    n_replicates = min(_REPLICATES, n_samples)
    wells = np.sort(random.permutation(n_samples)[: PUBLISHED_SAMPLES - n_replicates])
    again = np.sort(random.permutation(len(wells))[:n_replicates])
    replicate = np.arange(len(wells) + n_replicates) >= len(wells)
    order = random.permutation(len(replicate))
    return np.concatenate([wells, wells[again]])[order], replicate[order]


def _annotation(
    donor: str, samples: Samples, wells: IntArray, replicate: BoolArray, random: np.random.Generator
) -> pd.DataFrame:
    """SampleAnnot.csv as text."""
    annotation, n_samples = samples.annotation.iloc[wells], len(wells)
    bases = np.rint(random.uniform(24, 26, (3, n_samples)) * _UNIT).astype(np.int64)
    columns = {
        "RNAseq_sample_name": [f"{MARK}_S{donor}_{n:03d}" for n in range(1, n_samples + 1)],
        "replicate_sample": np.where(replicate, "Yes", "No"),
        "sample_name": [f"{MARK}_well_{well}" for well in annotation["well_id"]],
        "well_id": annotation["well_id"],
        "microarray_run_id": f"{MARK}_run_{donor}",
        "ontology_color": "#A0A0A0",
        "main_structure": [f"{MARK} {structure}" for structure in samples.structure[wells]],
        "sub_structure": annotation["structure_acronym"],
        "ontology_structure_id": annotation["structure_id"],
        "ontology_structure_acronym": annotation["structure_acronym"],
        "hemisphere": np.where(samples.coordinates[wells, 0] < 0, "L", "R"),
        "brain": donor_facts().loc[donor, "uid"],
        "million_clusters": random.integers(200, 600, n_samples) / 10,
        "clip_percentage": random.integers(10, 300, n_samples) / 10,
        "RIN_RNA_quality": random.integers(50, 85, n_samples) / 10,
        "rnaseq_run_id": [f"{MARK}_run_{run}" for run in random.integers(1, 5, n_samples)],
        **{f"{base}.Pct": counts / _UNIT for base, counts in zip("ACG", bases, strict=True)},
        "T.Pct": (100 * _UNIT - bases.sum(axis=0)) / _UNIT,
        "N.Pct": 0,
    }
    index = pd.RangeIndex(n_samples)
    return pd.DataFrame({name: pd.Series(_plain(values), index) for name, values in columns.items()})


def _plain(values: object) -> object:
    return values.to_numpy() if isinstance(values, pd.Series) else values


def _transcripts(
    genes: Genes, donor: DonorSignal, wells: IntArray, random: np.random.Generator
) -> FloatArray:
    """Relative abundance, shape (gene, sample); 0 where nothing is transcribed."""
    has_field = (genes.gene != _NO_FIELD)[:, np.newaxis]
    field = donor.signal.weights[genes.gene] @ donor.features[wells].T
    field += donor.gene_shift[genes.gene, np.newaxis]
    level = np.where(has_field, field, 0.0) + genes.level[:, np.newaxis]
    level = np.rint(level * _SIGNAL_UNIT) / _SIGNAL_UNIT
    noise = random.standard_normal(level.shape, dtype=np.float32)
    level += np.rint(noise * (_NOISE_SD * _SIGNAL_UNIT)) / _SIGNAL_UNIT
    silent = genes.constant[:, np.newaxis] | (level < _DETECTED_LEVEL)
    return np.where(silent, 0.0, np.exp2(level))


def _csv(table: pd.DataFrame) -> bytes:
    text: str = table.to_csv(index=False, lineterminator="\n")
    return text.encode()


def _matrix_csv(symbols: Iterable[str], values: FloatArray) -> bytes:
    """Lines ``gene_symbol,value,value,..`` with two decimals, no header."""
    row = ",%.2f" * values.shape[1]
    lines = (
        f"{symbol}{row % tuple(numbers)}\n" for symbol, numbers in zip(symbols, values.tolist(), strict=True)
    )
    return "".join(lines).encode()
