"""The store's layout: every variable it keeps, its dims, type, unit and meaning, and its chunks.

One table serves the writer, the checks of ``ahba verify`` and the documentation
(``docs/store.md`` is generated from it).
"""

from dataclasses import dataclass

FORMAT_VERSION = 2
MANIFEST, SNAPSHOT = "ahba_lake", "snapshot"  # attributes of the root group

LICENCE = (
    "Allen Institute Terms of Use: non-commercial research use with citation; "
    "see alleninstitute.org/legal/terms-use and alleninstitute.org/legal/citation-policy. "
    "Re-annotation: Arnatkeviciute et al. 2019 (CC BY 4.0). Corrected coordinates: alleninf (BSD-3)."
)
CITATION = (
    "Hawrylycz et al. 2012, Nature 489:391-399. "
    "(c) Allen Institute for Brain Science. Allen Human Brain Atlas. Available from human.brain-map.org."
)
SIMULATED_NOTE = "SIMULATED data: made up by `ahba simulate`, no measurement of any brain."

CHUNK_ROWS = 256
CHUNK_ROW_BYTES = 1 << 10  # 128 samples of float64, or all of a donor's calls
CHUNK_BYTES = {8: 32 << 10, 1: 128 << 10}  # by bytes a value; calls compress to a twentieth
SHARD_ROWS, SHARD_BYTES = 2048, 16 << 20


@dataclass(frozen=True)
class Variable:
    """One stored array.

    Attributes
    ----------
    name : str
    dims : tuple of str
    dtype : {"f8", "i8", "bool", "str"}
    doc : str
        Its meaning, for people.
    unit : str
        "" where there is none.
    """

    name: str
    dims: tuple[str, ...]
    dtype: str
    doc: str
    unit: str = ""


def _table(dim: str, *rows: tuple[str, str, str, str]) -> tuple[Variable, ...]:
    return tuple(Variable(name, (dim,), dtype, doc, unit) for name, dtype, unit, doc in rows)


PROBES = _table(
    "probe",
    ("probe_id", "i8", "", "the probe's number, unique"),
    ("probe_name", "str", "", "manufacturer's name, e.g. A_23_P20713"),
    ("gene_id", "i8", "", "Allen Institute's gene number; -1 none"),
    ("gene_symbol", "str", "", "gene symbol as published"),
    ("gene_name", "str", "", "gene name as published"),
    ("entrez_id", "i8", "", "Entrez id as published; -1 none"),
    ("chromosome", "str", "", "chromosome as published, may be empty"),
    ("reannotated_gene_symbol", "str", "", "symbol of the re-annotation; empty: it drops the probe"),
    ("reannotated_entrez_id", "i8", "", "Entrez id of the re-annotation; -1 none"),
    ("published_row", "i8", "", "the probe's row in Probes.csv, from 0"),
)
ONTOLOGY = _table(
    "structure",
    ("structure_id", "i8", "", "the structure's number, unique"),
    ("acronym", "str", "", "short name, the same in both hemispheres"),
    ("name", "str", "", "full name"),
    ("parent_structure_id", "i8", "", "the structure it is part of; -1 for the root"),
    ("hemisphere", "str", "", "L, R, or B where the ontology names none"),
    ("graph_order", "i8", "", "position in the published tree"),
    ("structure_id_path", "str", "", "ids from the root down to it"),
    ("color_hex_triplet", "str", "", "colour in the published atlas"),
    ("structure", "str", "", "class: cortex, subcortex/brainstem, cerebellum, white matter, other, or empty"),
)
DONORS = _table(
    "donor",
    ("donor", "str", "", "donor number"),
    ("uid", "str", "", "the Allen Institute's id, e.g. H0351.2001"),
    ("age", "str", "years", "age"),
    ("sex", "str", "", "sex"),
    ("ethnicity", "str", "", "as published"),
)
SAMPLES = _table(
    "sample",
    ("structure_id", "i8", "", "the structure the sample was taken from"),
    ("slab_num", "i8", "", "slab number"),
    ("well_id", "i8", "", "the sample's number, unique over donors"),
    ("slab_type", "str", "", "CX cortex (with subcortex), BS brainstem, CB cerebellum"),
    ("structure_acronym", "str", "", "of the structure"),
    ("structure_name", "str", "", "of the structure"),
    ("polygon_id", "i8", "", "drawn outline on the slab; not unique"),
    ("mri_voxel_x", "i8", "voxel", "0-based voxel of the donor's T1 image"),
    ("mri_voxel_y", "i8", "voxel", "0-based voxel of the donor's T1 image"),
    ("mri_voxel_z", "i8", "voxel", "0-based voxel of the donor's T1 image"),
    ("mni_x", "f8", "mm", "MNI152 coordinate as published"),
    ("mni_y", "f8", "mm", "MNI152 coordinate as published"),
    ("mni_z", "f8", "mm", "MNI152 coordinate as published"),
    ("corrected_mni_x", "f8", "mm", "MNI152 coordinate corrected by alleninf; NaN none"),
    ("corrected_mni_y", "f8", "mm", "MNI152 coordinate corrected by alleninf; NaN none"),
    ("corrected_mni_z", "f8", "mm", "MNI152 coordinate corrected by alleninf; NaN none"),
    ("hemisphere", "str", "", "L, R, or B where the ontology names none"),
    ("structure", "str", "", "class of the structure, see ontology"),
)
MATRICES = (
    Variable("expression", ("probe", "sample"), "f8", "normalised intensity, as published", "log2"),
    Variable("detected", ("probe", "sample"), "bool", "PACall: expression is above background noise"),
)
# The groups rnaseq/<donor>: `RNASEQ_GENES`, `RNASEQ_SAMPLES` and `RNASEQ_MATRICES` side by side.
RNASEQ_GENES = _table(
    "gene",
    ("gene_symbol", "str", "", "gene symbol as published, unique; the genes are sorted by it"),
    ("gene_id", "i8", "", "Allen Institute's gene number; -1 none"),
    ("entrez_id", "i8", "", "Entrez id as published; -1 none"),
    ("chromosome", "str", "", "chromosome as published"),
    ("strand", "str", "", "+ or -"),
    ("number_of_transcripts", "i8", "", "transcripts of the gene; -1 unknown"),
    ("median_transcriptome_length", "f8", "bases", "median over the gene's transcripts; NaN unknown"),
    ("median_genome_length", "f8", "bases", "the same with introns; NaN unknown"),
    ("median_number_of_exons", "f8", "", "median over the gene's transcripts; NaN unknown"),
    ("median_gene_start", "f8", "bases", "place on the chromosome, median over transcripts; NaN unknown"),
    ("median_gene_end", "f8", "bases", "place on the chromosome, median over transcripts; NaN unknown"),
    ("published_row", "i8", "", "the gene's row in Genes.csv, from 0"),
)
RNASEQ_SAMPLES = _table(
    "sample",
    ("rnaseq_sample_name", "str", "", "name of the sequenced sample, unique (RNAseq_sample_name)"),
    ("replicate_sample", "str", "", "whether it is a replicate, as published"),
    ("sample_name", "str", "", "name of the tissue sample, shared by replicates"),
    ("well_id", "i8", "", "the microarray sample of the same tissue; replicates repeat it"),
    ("microarray_run_id", "str", "", "microarray run of that sample"),
    ("structure_color", "str", "", "colour in the published atlas (ontology_color)"),
    ("main_structure", "str", "", "coarse structure, as published"),
    ("sub_structure", "str", "", "finer structure, as published"),
    ("structure_id", "i8", "", "the structure the sample was taken from (ontology_structure_id)"),
    ("structure_acronym", "str", "", "of the structure (ontology_structure_acronym)"),
    ("hemisphere", "str", "", "as published"),
    ("brain", "str", "", "the donor's uid, as published"),
    ("million_clusters", "f8", "1e6", "sequenced clusters; NaN unknown"),
    ("clip_percentage", "f8", "%", "clipped reads; NaN unknown"),
    ("rna_integrity_number", "f8", "", "quality of the RNA, 1 to 10 (RIN_RNA_quality); NaN unknown"),
    ("rnaseq_run_id", "str", "", "sequencing run"),
    ("percent_a", "f8", "%", "share of adenine (A.Pct); NaN unknown"),
    ("percent_c", "f8", "%", "share of cytosine (C.Pct); NaN unknown"),
    ("percent_g", "f8", "%", "share of guanine (G.Pct); NaN unknown"),
    ("percent_t", "f8", "%", "share of thymine (T.Pct); NaN unknown"),
    ("percent_n", "f8", "%", "share of unread bases (N.Pct); NaN unknown"),
)
RNASEQ_MATRICES = (
    Variable("tpm", ("gene", "sample"), "f8", "transcripts per million, as published", "TPM"),
    Variable("counts", ("gene", "sample"), "f8", "fragment counts of RSEM, not always whole, as published"),
)


def chunk_rows(n_samples: int, itemsize: int = 8) -> int:
    """Probes in a chunk: at most 256, and so many as fit into 32 KiB (calls: 128 KiB) before compression.

    A gene is read in whole chunks of rows, a place in whole chunks of columns. Against 16 probes in all
    samples, measured at full size: all probes of the samples around a coordinate are read in half the time
    with 45 % of the bytes, one gene takes 0.3 MB more; all of the store takes as long. Chunks of half as many
    samples halve a coordinate's bytes again, but are so many that reading all takes a third longer.
    """
    return _fitting(CHUNK_ROWS, itemsize * chunk_columns(n_samples, itemsize), CHUNK_BYTES[itemsize])


def chunk_columns(n_samples: int, itemsize: int = 8) -> int:
    """Samples in a chunk: equal parts of the donor's, of 1 KiB a row at most."""
    parts = -(-n_samples * itemsize // CHUNK_ROW_BYTES)
    return -(-n_samples // parts)


def shard_rows(n_samples: int) -> int:
    """Probes in a shard (a file): 2,048, fewer where it would exceed 16 MiB before compression.

    Against 8,192, measured on 946 samples: written 1.7 x faster in a quarter of the memory, read
    as fast; a donor of the AHBA is 29 files a matrix instead of 8.
    """
    chunk = max(chunk_rows(n_samples, itemsize) for itemsize in CHUNK_BYTES)
    return max(_fitting(SHARD_ROWS, 8 * n_samples, SHARD_BYTES), chunk)


def _fitting(rows: int, row_bytes: int, limit: int) -> int:
    while rows > 1 and rows * row_bytes > limit:
        rows //= 2
    return rows


def describe() -> str:
    """The layout for people, as Markdown: the text of ``docs/store.md``."""
    return "\n".join([_INTRODUCTION, *(_section(*group) for group in _GROUPS)])


def _section(heading: str, variables: tuple[Variable, ...]) -> str:
    rows = [f"| `{v.name}` | {', '.join(v.dims)} | {v.dtype} | {v.unit} | {v.doc} |" for v in variables]
    return "\n".join(
        [f"## {heading}\n", "| name | dims | type | unit | meaning |", "|---|---|---|---|---|", *rows, ""]
    )


_GROUPS = (
    ("/probes (sorted by gene: a gene's probes are neighbours)", PROBES),
    ("/ontology", ONTOLOGY),
    ("/donors", DONORS),
    ("/microarray/&lt;donor&gt;: samples", SAMPLES),
    ("/microarray/&lt;donor&gt;: matrices", MATRICES),
    ("/rnaseq/&lt;donor&gt;: genes", RNASEQ_GENES),
    ("/rnaseq/&lt;donor&gt;: samples", RNASEQ_SAMPLES),
    ("/rnaseq/&lt;donor&gt;: matrices", RNASEQ_MATRICES),
)
_INTRODUCTION = f"""# The store

A store is a directory of plain Zarr v3 (format version {FORMAT_VERSION}), read by any Zarr tool:

```python
import xarray as xr
xr.open_zarr("ahba.zarr", group="microarray/9861", consolidated=False)
```

The attributes of the root group hold the manifest, under `{MANIFEST}`: the donors, the published files
each came from (sizes, sha256), simulated or real, versions, licence and citation. The hash of the
manifest is the snapshot id that every table and run records. A donor exists from the moment the manifest
names it; the manifest is replaced atomically. Of a donor that was replaced, the older generation stays
until the next ingest, for readers at work on it.

Matrices are kept in chunks of some of the donor's samples (at most
{CHUNK_ROW_BYTES // 8}; of detection calls {CHUNK_ROW_BYTES:,}) and as many probes as fit into
{CHUNK_BYTES[8] >> 10} KiB (calls: {CHUNK_BYTES[1] >> 10} KiB; at most {CHUNK_ROWS}),
so that neither a gene nor a place needs all of a donor. Files hold all samples and
{SHARD_ROWS} probes (fewer where a donor has very many samples). Chunks are compressed with blosc
(numbers: lz4, shuffle; calls: zstd, bitshuffle), then wrapped by gzip, which compresses no further, for its
checksum. They equal the CSV's numbers to the last bit. A missing or damaged chunk is an error, never a
fill value: `ahba verify` names it.

This page is written by `python -c "from lake.layout import describe; print(describe(), end='')"`.
"""
