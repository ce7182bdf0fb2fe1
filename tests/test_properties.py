"""What holds for every brain and every set of choices: small invented ones, drawn by hypothesis.

Steps have properties of their own beside their tests; here the whole way is taken, samples to tables, and
once from the published files on.
"""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dask.array as da
import nibabel
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

import lake
from ingest.simulate import simulate
from tests.helpers import donor_folder, lines_changed
from tests.parity_cases import CHOICES
from transforms.atlas import Atlas
from transforms.errors import ChoiceError
from transforms.parts import label_samples
from transforms.regions import RegionTables, region_tables
from transforms.values import FreshValues
from transforms.workflow import Genes, Source, select_genes

pytestmark = pytest.mark.slow  # some 50 tables each

EXACT_TO = 1e-9  # what sums in another order may differ by, of values around 1
RANGED = [name for name in CHOICES["gene_norm"] if name not in (None, "demean", "zscore")]
STRUCTURES = ("cortex", "subcortex/brainstem", "cerebellum", "cortex", "cortex")
COORDINATES = [f"{prefix}mni_{axis}" for prefix in ("", "corrected_") for axis in "xyz"]
X = ["mni_x", "corrected_mni_x"]


# An invented brain.


@dataclass(frozen=True)
class Brain:
    """What is published of it, as the tables that travel between the modules."""

    expression: np.ndarray
    detected: np.ndarray
    probes: pd.DataFrame
    samples: pd.DataFrame
    ontology: pd.DataFrame

    @property
    def donors(self) -> list[str]:
        return sorted(self.samples["donor"].unique())

    def source(self) -> Source:
        """Chunks end where donors end."""
        sizes = tuple(self.samples.groupby("donor", sort=False).size())
        arrays = {"expression": self.expression, "detected": self.detected}
        lazy = {
            name: (("probe", "sample"), da.from_array(array, chunks=((len(self.probes),), sizes)))
            for name, array in arrays.items()
        }
        return Source(xr.Dataset(lazy), self.probes, self.samples, self.ontology)

    def taken(self, probes: np.ndarray, samples: np.ndarray) -> "Brain":
        """Its probes and samples in another order."""
        return replace(
            self,
            expression=self.expression[np.ix_(probes, samples)],
            detected=self.detected[np.ix_(probes, samples)],
            probes=self.probes.iloc[probes].reset_index(drop=True),
            samples=self.samples.iloc[samples].reset_index(drop=True),
        )

    def with_noise(self, columns: np.ndarray, rng: np.random.Generator) -> "Brain":
        """Other values in some samples."""
        expression = self.expression.copy()
        expression[:, columns] += rng.normal(0, 3, (len(expression), len(columns)))
        return replace(self, expression=expression)


def invented_ontology() -> pd.DataFrame:
    """Five structures on both sides, and one on the midline."""
    rows = [
        (10 * number + side, f"S{number}", hemisphere, structure)
        for number, structure in enumerate(STRUCTURES, start=1)
        for side, hemisphere in enumerate("LR")
    ]
    table = pd.DataFrame(
        [*rows, (90, "mid", "B", "cerebellum")],
        columns=["structure_id", "acronym", "hemisphere", "structure"],
    )
    return table.assign(name=table["acronym"] + table["hemisphere"])


def invented_samples(rng: np.random.Generator, sizes: list[int], ontology: pd.DataFrame) -> pd.DataFrame:
    """Samples in and around the atlas; a few lie on the wrong side."""
    rows = ontology.iloc[rng.integers(len(ontology), size=sum(sizes))].reset_index(drop=True)
    places = rng.uniform(-38, 38, (len(rows), 6))
    side = rows["hemisphere"].map({"L": -1, "R": 1, "B": 0}).to_numpy() * rng.choice([1, 1, 1, -1], len(rows))
    table = pd.DataFrame(places, columns=COORDINATES).assign(
        donor=np.repeat([f"{9000 + number}" for number in range(len(sizes))], sizes),
        well_id=rng.permutation(len(rows)) + 100,
        structure_id=rows["structure_id"],
        structure_acronym=rows["acronym"],
        structure_name=rows["name"],
        hemisphere=rows["hemisphere"],
        structure=rows["structure"],
    )
    return table.assign(**{name: table[name].abs() * side for name in X})


def invented_probes(rng: np.random.Generator, n_genes: int) -> pd.DataFrame:
    """One to four probes a gene; the two annotations do not quite agree."""
    gene = np.repeat(np.arange(n_genes), rng.integers(1, 5, n_genes))
    moved = np.where(rng.random(len(gene)) < 0.1, rng.integers(n_genes, size=len(gene)), gene)
    return pd.DataFrame(
        {
            "probe_id": rng.permutation(len(gene)) + 500,
            "probe_name": [f"P{number}" for number in range(len(gene))],
            "gene_symbol": [f"G{number:02d}" for number in gene],
            "entrez_id": gene,
            "reannotated_gene_symbol": [f"G{number:02d}" for number in moved],
            "reannotated_entrez_id": np.where(rng.random(len(gene)) < 0.05, -1, moved),
            "published_row": rng.permutation(len(gene)),
        }
    )


@st.composite
def brains(draw: st.DrawFn) -> Brain:
    """Two or three donors; each gene has a course over the structures that its probes follow."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sizes = draw(st.lists(st.integers(8, 20), min_size=2, max_size=3))
    ontology = invented_ontology()
    samples, probes = invented_samples(rng, sizes, ontology), invented_probes(rng, draw(st.integers(6, 9)))
    shape = (len(probes), len(samples))
    course = rng.normal(0, 1, (len(probes), 100))[:, samples["structure_id"]]
    expression = 7 + rng.normal(0, 1, (shape[0], 1)) + course + rng.normal(0, 0.5, shape)
    detected = rng.random(shape) < rng.uniform(0.2, 1, (shape[0], 1))
    return Brain(expression, detected, probes, samples, ontology)


def invented_atlas() -> nibabel.Nifti1Image:
    """Twelve boxes of an 80 mm cube of 10 mm voxels, with a gap between them and a side wall of none."""
    x, y, z = np.meshgrid(np.arange(8), np.arange(8), np.arange(8), indexing="ij")
    labels = 1 + (x > 3) + 2 * np.minimum(y // 3, 2) + 6 * (z > 3)
    labels[(y == 5) | (z == 0)] = 0
    affine = np.diag([10.0, 10.0, 10.0, 1.0])
    affine[:3, 3] = -35
    return nibabel.Nifti1Image(labels.astype(np.int16), affine)


IMAGE = invented_atlas()
INFO = pd.DataFrame(
    {"id": range(1, 13), "hemisphere": ["L", "R"] * 6, "structure": np.repeat([*STRUCTURES, "cortex"], 2)}
)
ATLASES = {
    "info": Atlas.from_volume(IMAGE, INFO, name="boxes"),
    "none": Atlas.from_volume(IMAGE, name="boxes"),
}
PARTNER = {region: region + (1 if region % 2 else -1) for region in range(1, 13)}  # on the other side


# Sets of choices.

# rnaseq has the files' own test below. With "interpolate" two samples can be equally near to a voxel, and the
# first of the file counts, as in abagen (docs/differences.md).
DRAWN = {name: list(values) for name, values in CHOICES.items() if name not in ("atlas", "donors")}
DRAWN["probe_selection"].remove("rnaseq")
DRAWN["missing"].remove("interpolate")


def pipelines(**fixed: Any) -> st.SearchStrategy[lake.Pipeline]:
    """Any of abagen's choices, some of them fixed."""
    drawn = {name: st.sampled_from(values) for name, values in DRAWN.items() if name not in fixed}
    return st.fixed_dictionaries(drawn).map(lambda choices: lake.Pipeline(**choices, **fixed))


atlases = st.sampled_from(sorted(ATLASES)).map(ATLASES.__getitem__)
seeds = st.integers(0, 2**32 - 1).map(np.random.default_rng)


def tables_of(brain: Brain, atlas: Atlas, pipeline: lake.Pipeline) -> tuple[Genes, RegionTables]:
    """The whole way; choices that leave no sample, probe or gene are not of interest."""
    source = brain.source()
    try:
        genes = select_genes(source, pipeline, brain.donors)
        tables = region_tables(genes, FreshValues(source, genes, pipeline), atlas, pipeline)
    except ChoiceError as error:
        event(str(error)[:30])
        assume(False)
    return genes, tables


def assert_same_tables(one: RegionTables, other: RegionTables) -> None:
    """Equal to rounding. Where other probes are chosen, their scores must tie."""
    assert one.genes["gene_symbol"].tolist() == other.genes["gene_symbol"].tolist()
    np.testing.assert_allclose(one.genes["score"], other.genes["score"], rtol=EXACT_TO, atol=EXACT_TO)
    if not one.genes["probe_id"].equals(other.genes["probe_id"]):
        event("scores tie")
        return
    pd.testing.assert_frame_equal(one.counts, other.counts)
    pd.testing.assert_frame_equal(one.expression, other.expression, rtol=EXACT_TO, atol=EXACT_TO)


# The order of things.


def shuffled(brain: Brain, rng: np.random.Generator) -> Brain:
    """Donors, their samples, probes and structures in another order."""
    places = brain.samples.groupby("donor").indices
    samples = [rng.permutation(places[donor]) for donor in rng.permutation(brain.donors)]
    probes = rng.permutation(len(brain.probes))
    moved = brain.taken(probes, np.concatenate(samples))
    return replace(
        moved,
        probes=moved.probes.assign(published_row=np.arange(len(probes))),
        ontology=brain.ontology.sample(frac=1, random_state=rng).reset_index(drop=True),
    )


@given(brains(), atlases, pipelines(), seeds)
@settings(deadline=None, max_examples=60)
def test_order_never_matters(
    brain: Brain, atlas: Atlas, pipeline: lake.Pipeline, rng: np.random.Generator
) -> None:
    # Mirrored both ways, the two sides of a structure have the same samples. As in abagen, it depends on the
    # order in which these are summed whether their means are equal to the last bit, and so tie in rank.
    assume(pipeline.lr_mirror != "bidirectional" or pipeline.probe_selection != "diff_stability")
    _, tables = tables_of(brain, atlas, pipeline)
    _, again = tables_of(shuffled(brain, rng), atlas, pipeline)
    assert_same_tables(tables, again)


def jittered_sheet(rng: np.random.Generator, offset: float) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates and triangles of 6 x 6 vertices, no two of them equally far from a third."""
    x, y = (axis.ravel() for axis in np.meshgrid(np.arange(6.0), np.arange(6.0), indexing="ij"))
    corner = np.array([6 * i + j for i in range(5) for j in range(5)])
    lower = np.column_stack([corner, corner + 6, corner + 1])
    upper = np.column_stack([corner + 6, corner + 7, corner + 1])
    flat = np.column_stack([offset + 6 * x, 6 * y, 6 * np.sin(x + y)])
    return flat + rng.uniform(-1, 1, flat.shape), np.concatenate([lower, upper])


def sheets(rng: np.random.Generator) -> Atlas:
    """A surface with nine regions a side."""
    sides, meshes = [], [jittered_sheet(rng, -40), jittered_sheet(rng, 10)]
    for first in (1, 10):
        labels = first + np.arange(36) // 12 * 3 + np.arange(36) % 6 // 2
        sides.append(nibabel.GiftiImage(darrays=[nibabel.gifti.GiftiDataArray(labels.astype(np.int32))]))
    return Atlas.from_surface(*sides, mesh=(meshes[0], meshes[1]), name="sheets").without_info()


@given(brains(), pipelines(missing="interpolate", lr_mirror=None), seeds)
@settings(deadline=None, max_examples=40)
def test_order_never_matters_where_no_two_samples_are_equally_near(
    brain: Brain, pipeline: lake.Pipeline, rng: np.random.Generator
) -> None:
    """Each sample of a donor is near a vertex of its own, on its structure's side; on a grid two can tie."""
    atlas = sheets(rng)
    samples = brain.samples[brain.samples["hemisphere"] != "B"]
    turn = samples.groupby(["donor", "hemisphere"]).cumcount().to_numpy()
    vertex = rng.permutation(36)[turn] + np.where(samples["hemisphere"] == "L", 0, 36)
    places = np.tile(atlas.coordinates[vertex] + rng.uniform(-0.1, 0.1, (len(vertex), 3)), 2)
    kept = brain.taken(np.arange(len(brain.probes)), samples.index.to_numpy())
    cortical = brain.ontology.assign(structure="cortex")
    placed = replace(
        kept, samples=kept.samples.assign(**dict(zip(COORDINATES, places.T, strict=True))), ontology=cortical
    )
    _, tables = tables_of(placed, atlas, pipeline)
    _, again = tables_of(shuffled(placed, rng), atlas, pipeline)
    assert_same_tables(tables, again)


# What a region depends on.


KEEPS_PROBES = {"probe_selection": "average", "ibf_threshold": 0}  # whatever the values are


@given(brains(), atlases, pipelines(gene_norm=None, missing=None, sim_threshold=None, **KEEPS_PROBES), seeds)
@settings(deadline=None, max_examples=40)
def test_a_region_depends_on_its_samples_only(
    brain: Brain, atlas: Atlas, pipeline: lake.Pipeline, rng: np.random.Generator
) -> None:
    """Without a normalisation over samples; to the last bit."""
    genes, tables = tables_of(brain, atlas, pipeline)
    labels = np.concatenate(list(label_samples(genes.samples, atlas, pipeline).values()))
    region = rng.choice(labels[labels > 0])
    inside = genes.samples["column"].to_numpy()[labels == region]
    others = np.setdiff1d(np.arange(len(brain.samples)), inside)
    _, again = tables_of(brain.with_noise(others, rng), atlas, pipeline)
    pd.testing.assert_series_equal(
        tables.expression.loc[region], again.expression.loc[region], check_exact=True
    )
    if len(np.setdiff1d(genes.samples["column"][labels > 0], inside)):
        assert not tables.expression.equals(again.expression)


@given(brains(), atlases, pipelines(region_agg="donors", missing=None, **KEEPS_PROBES), seeds)
@settings(deadline=None, max_examples=40)
def test_a_donors_table_depends_on_its_samples_only(
    brain: Brain, atlas: Atlas, pipeline: lake.Pipeline, rng: np.random.Generator
) -> None:
    """Whatever is normalised; to the last bit."""
    _, tables = tables_of(brain, atlas, pipeline)
    donor = brain.donors[rng.integers(len(brain.donors))]
    others = np.flatnonzero(brain.samples["donor"] != donor)
    _, again = tables_of(brain.with_noise(others, rng), atlas, pipeline)
    one, other = (found.donor_expression[donor] for found in (tables, again))
    pd.testing.assert_frame_equal(one, other, check_exact=True)


# What values can be.


@given(brains(), atlases, st.sampled_from(RANGED).flatmap(lambda name: pipelines(gene_norm=name)))
@settings(deadline=None, max_examples=60)
def test_normalised_values_lie_between_0_and_1(brain: Brain, atlas: Atlas, pipeline: lake.Pipeline) -> None:
    _, tables = tables_of(brain, atlas, pipeline)
    for table in (tables.expression, *tables.donor_expression.values()):
        values = table.to_numpy()
        assert np.all(np.isnan(values) | ((values >= -EXACT_TO) & (values <= 1 + EXACT_TO)))


# The two sides.


def reflected(brain: Brain) -> Brain:
    """Left becomes right: the samples' places and structures."""
    ontology = brain.ontology.set_index("structure_id")
    other = brain.samples["structure_id"].map(lambda number: number if number == 90 else number ^ 1)
    named = ontology.loc[other]
    samples = brain.samples.assign(
        structure_id=other,
        structure_name=named["name"].array,
        hemisphere=named["hemisphere"].array,
        **{name: -brain.samples[name] for name in X},
    )
    return replace(brain, samples=samples)


@given(brains())
def test_reflected_twice_is_the_original(brain: Brain) -> None:
    pd.testing.assert_frame_equal(reflected(reflected(brain)).samples, brain.samples)


@given(brains(), pipelines(matching="nearest"))
@settings(deadline=None, max_examples=40)
def test_a_reflected_brain_has_reflected_tables(brain: Brain, pipeline: lake.Pipeline) -> None:
    """The atlas is its own mirror image; abagen's way to move samples to its grid has no such symmetry.

    With info, so that no midline sample is equally near to two regions.
    """
    atlas = ATLASES["info"]
    opposite = {"leftright": "rightleft", "rightleft": "leftright"}.get(
        pipeline.lr_mirror, pipeline.lr_mirror
    )
    _, tables = tables_of(brain, atlas, pipeline)
    _, mirrored = tables_of(reflected(brain), atlas, pipeline.changed(lr_mirror=opposite))
    back = replace(
        mirrored,
        expression=mirrored.expression.rename(PARTNER).sort_index(),
        counts=mirrored.counts.rename(PARTNER).sort_index(),
    )
    assert_same_tables(tables, back)


# The files.

MATRICES, RNASEQ_MATRICES = ("MicroarrayExpression.csv", "PACall.csv"), ("RNAseqTPM.csv", "RNAseqCounts.csv")
CHOSEN = {
    "defaults": lake.Pipeline(),
    "rnaseq": lake.Pipeline(probe_selection="rnaseq", lr_mirror="bidirectional", missing="centroids"),
    "published": lake.Pipeline(
        reannotated=False, probe_selection="pc_loading", donor_probes="independent", sim_threshold=2
    ),
}


def reorder(path: Path, order: np.ndarray, *, header: int = 0) -> None:
    """Lines in another order, after those of the header."""
    lines_changed(path, lambda lines: lines[:header] + [lines[header + at] for at in order])


def reorder_columns(path: Path, order: np.ndarray) -> None:
    """Cells in another order, after the first of each line."""

    def moved(line: bytes) -> bytes:
        first, *cells = line.rstrip(b"\n").split(b",")
        return b",".join([first, *(cells[at] for at in order)]) + b"\n"

    lines_changed(path, lambda lines: [moved(line) for line in lines])


def length(path: Path) -> int:
    return len(path.read_bytes().splitlines())


def shuffle_files(directory: Path, rng: np.random.Generator) -> None:
    """Probes, genes, samples and structures in another order; the probes in the same for all donors."""
    donors = ("9861", "10021")
    probes = rng.permutation(length(donor_folder(directory, donors[0]) / "PACall.csv"))
    for donor in donors:
        microarray, rnaseq = donor_folder(directory, donor), directory / f"rnaseq_donor{donor}"
        reorder(microarray / "Probes.csv", probes, header=1)
        for name in MATRICES:
            reorder(microarray / name, probes)
        genes = rng.permutation(length(rnaseq / "RNAseqTPM.csv"))
        reorder(rnaseq / "Genes.csv", genes, header=1)
        for name in RNASEQ_MATRICES:
            reorder(rnaseq / name, genes)
        for folder, names in ((microarray, MATRICES), (rnaseq, RNASEQ_MATRICES)):
            samples = rng.permutation(length(folder / "SampleAnnot.csv") - 1)
            reorder(folder / "SampleAnnot.csv", samples, header=1)
            for name in names:
                reorder_columns(folder / name, samples)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small donors with RNA-seq."""
    directory = tmp_path_factory.mktemp("properties") / "published"
    simulate(directory, probes=80, donors=["9861", "10021"], samples_scale=0.1, rnaseq=True)
    return directory


@pytest.fixture(scope="module")
def store(files: Path) -> lake.Lake:
    lake.ingest_directory(files, files.with_name("files.zarr"))
    return lake.open(files.with_name("files.zarr"))


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_order_of_rows_and_columns_of_the_files_never_matters(
    files: Path, store: lake.Lake, atlas: Atlas, tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    copy = Path(shutil.copytree(files, tmp_path_factory.mktemp("shuffled") / "published"))
    shuffle_files(copy, np.random.default_rng(seed))
    lake.ingest_directory(copy, copy.with_name("files.zarr"))
    again = lake.open(copy.with_name("files.zarr"))
    for pipeline in CHOSEN.values():
        assert_same_tables(lake.tables_for(store, atlas, pipeline), lake.tables_for(again, atlas, pipeline))
