"""Asking by gene: the answers are those of pandas on the CSVs; names are resolved; little is read."""

import re
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import xarray as xr
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lake
from lake import layout
from lake.arrays import fast_codecs
from lake.errors import DamageError, RequestError
from lake.ingestion import ingest_directory
from lake.layout import PROBES, SAMPLES, chunk_columns, chunk_rows
from lake.names import resolve
from lake.queries import gene_tables
from lake.rows import adjacent_runs, by_donor
from lake.selection import Selection, everything
from tests.published import Published
from transforms.errors import ChoiceError
from transforms.pipeline import Pipeline
from transforms.selections import SELECTIONS

QUICK = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="session")
def files(published: Path) -> Published:
    return Published(published)


def assert_equal(selection: Selection, files: Published, probe_ids: list[int]) -> None:
    """The selection has these probes, and its values are the CSVs'."""
    data = selection.to_xarray()
    assert sorted(data["probe_id"].to_numpy().tolist()) == sorted(probe_ids)
    wells = data["well_id"].to_numpy()
    for name, table in (("expression", files.expression), ("detected", files.detected)):
        expected = table.loc[data["probe_id"].to_numpy(), wells].to_numpy()
        np.testing.assert_array_equal(data[name].to_numpy(), expected)
    frame = selection.to_dataframe()
    by_id = frame[[str(probe) for probe in data["probe_id"].to_numpy()]].to_numpy()
    np.testing.assert_array_equal(by_id.T, data["expression"].to_numpy())


# ---------------------------------------------------------------- equal to pandas on the files


@QUICK
@given(data=st.data())
def test_a_gene_is_what_the_files_say(data: st.DataObject, small_lake: lake.Lake, files: Published) -> None:
    reannotated = data.draw(st.booleans())
    column = "new_symbol" if reannotated else "gene_symbol"
    symbols = sorted(set(files.probes[column]) - {""})
    asked = data.draw(st.lists(st.sampled_from(symbols), min_size=1, max_size=4, unique=True))
    donors = data.draw(st.lists(st.sampled_from(small_lake.donors), min_size=1, unique=True))
    found = small_lake.gene(asked, reannotated=reannotated, donors=donors)
    expected = files.probes.loc[files.probes[column].isin(asked), "probe_id"].tolist()
    assert_equal(found, files, expected)
    wells = files.samples.loc[files.samples["donor"].isin(donors), "well_id"]
    assert found.samples["well_id"].tolist() == wells.tolist()


@QUICK
@given(data=st.data())
def test_an_entrez_id_and_a_probe_id(data: st.DataObject, small_lake: lake.Lake, files: Published) -> None:
    known = files.probes[files.probes["new_entrez"] > 0]
    row = data.draw(st.integers(0, len(known) - 1))
    entrez, probe, name = known.iloc[row][["new_entrez", "probe_id", "probe_name"]]
    same = known.loc[known["new_entrez"] == entrez, "probe_id"].tolist()
    form = data.draw(st.sampled_from([int, str, "entrez:{}".format]))
    assert_equal(small_lake.gene(form(entrez)), files, same)
    form = data.draw(st.sampled_from([int, str, "probe:{}".format]))
    assert_equal(small_lake.gene(form(probe)), files, [probe])
    assert_equal(small_lake.gene(name), files, [probe])


def test_all_labels_are_there(small_lake: lake.Lake) -> None:
    symbol = small_lake.probes["reannotated_gene_symbol"].iloc[-1]
    data = small_lake.gene(symbol).to_xarray()
    for variables, dim in ((PROBES, "probe"), (SAMPLES, "sample")):
        assert {variable.name for variable in variables} <= set(data.coords)
        assert all(data[variable.name].dims == (dim,) for variable in variables)
    assert data.attrs["snapshot"] == small_lake.snapshot
    assert data.attrs["question"] == symbol


def test_the_tables_read_column_by_column_are_the_tables(small_lake: lake.Lake) -> None:
    columns = small_lake.sample_columns(["donor", "mni_x", "structure_name"])
    for name, values in columns.items():
        assert values.tolist() == small_lake.samples[name].tolist()
    columns = small_lake.probe_columns(["entrez_id", "gene_symbol"])
    for name, values in columns.items():
        assert values.tolist() == small_lake.probes[name].tolist()


def test_everything_is_everything(small_lake: lake.Lake, files: Published) -> None:
    assert_equal(small_lake.everything(), files, files.probes["probe_id"].tolist())
    starts = [start for start, _ in small_lake.everything().blocks(150)]
    assert starts == [0, 150, 300]


# ---------------------------------------------------------------- names


@pytest.fixture
def renamed(small_lake: lake.Lake) -> pd.Series:
    """A probe whose published symbol is no re-annotated one, and whose gene has a re-annotated symbol."""
    probes = small_lake.probes
    is_old = ~probes["gene_symbol"].isin(probes["reannotated_gene_symbol"])
    return probes[is_old & (probes["reannotated_gene_symbol"] != "")].iloc[0]


def test_a_retired_symbol_is_resolved_and_said(small_lake: lake.Lake, renamed: pd.Series) -> None:
    old, new = renamed["gene_symbol"], renamed["reannotated_gene_symbol"]
    with pytest.warns(UserWarning, match=f"{old} is the published name .* re-annotated gene is {new}"):
        found = small_lake.gene(old)
    assert found.probes["reannotated_gene_symbol"].unique().tolist() == [new]
    assert len(found.probes) == (small_lake.probes["reannotated_gene_symbol"] == new).sum()
    assert old in repr(found)
    assert old in found.to_xarray().attrs["notes"]


def test_a_new_symbol_among_published_ones(small_lake: lake.Lake, renamed: pd.Series) -> None:
    new = renamed["reannotated_gene_symbol"]
    if new in set(small_lake.probes["gene_symbol"]):
        pytest.skip("published too")
    with pytest.warns(UserWarning, match=f"{new} is the re-annotated name"):
        found = small_lake.gene(new, reannotated=False)
    assert renamed["gene_symbol"] in set(found.probes["gene_symbol"])


def test_case_is_resolved_and_said(small_lake: lake.Lake) -> None:
    symbol = next(s for s in small_lake.probes["reannotated_gene_symbol"] if s and s != s.lower())
    with pytest.warns(UserWarning, match=f"{symbol.lower()} is taken for {symbol}"):
        found = small_lake.gene(symbol.lower())
    assert found.rows is not None
    assert found.rows.tolist() == resolve(small_lake, symbol).rows.tolist()


def test_a_known_symbol_is_not_commented(small_lake: lake.Lake) -> None:
    with warnings.catch_warnings(record=True) as said:
        small_lake.gene(small_lake.probes["reannotated_gene_symbol"].iloc[-1])
    assert not said


def test_an_unknown_name_is_refused_with_the_nearest(small_lake: lake.Lake) -> None:
    symbol = max(small_lake.probes["reannotated_gene_symbol"], key=len)
    with pytest.raises(RequestError, match=f"no gene '{symbol}Q'; nearest are {symbol}"):
        small_lake.gene(f"{symbol}Q")


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ([], "No gene is named"),
        ("", "There is no gene ''"),
        (10**12, "No probe has the probe id or Entrez id"),
        (10**30, "There is no gene '10"),
        ("²", "There is no gene '²'"),
        ("probe:²", "There is no gene 'probe:²'"),
        (-1, "There is no gene '-1'"),
        ([6.5], "There is no gene '6.5'"),
        ("probe:17", "No probe has the probe id 17"),
        ("entrez:999999999", "No probe has the Entrez id"),
    ],
)
def test_what_is_no_gene(asked: object, says: str, small_lake: lake.Lake) -> None:
    with pytest.raises(RequestError, match=says):
        small_lake.gene(asked)  # type: ignore[arg-type]


def test_a_probe_published_under_its_own_name_is_meant_by_it(small_lake: lake.Lake) -> None:
    """And not all the probes of the gene that it was found to be of since."""
    probes = small_lake.probes
    genes = probes["reannotated_gene_symbol"]
    own = probes[(probes["gene_symbol"] == probes["probe_name"]) & genes.isin(genes[genes.duplicated()])]
    name, probe = own[own["reannotated_gene_symbol"] != ""].iloc[0][["probe_name", "probe_id"]]
    assert small_lake.gene(name).probes["probe_id"].tolist() == [probe]
    with pytest.warns(UserWarning, match=f"{name.lower()} is taken for {name}"):
        assert small_lake.gene(name.lower()).probes["probe_id"].tolist() == [probe]


def test_a_symbol_of_both_annotations_is_the_gene_of_the_one_in_use(store_copy: Path) -> None:
    """Where a symbol was one gene's in 2013, and is another's now."""
    import zarr

    known = lake.open(store_copy).probes
    new = known["reannotated_gene_symbol"]
    both = next(s for s in new.unique() if s and s in set(known["gene_symbol"]))
    elsewhere = np.flatnonzero((new != both) & (new != ""))[[3, 7]]
    published = known["gene_symbol"].to_numpy(object)
    published[published == both] = "ANOTHER"
    published[elsewhere] = both
    zarr.open_array(store_copy / "probes" / "gene_symbol", mode="r+")[:] = published.astype(
        np.dtypes.StringDType()
    )
    store = lake.open(store_copy)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        now, then = store.gene(both), store.gene(both, reannotated=False)
    assert now.probes["probe_id"].tolist() == known.loc[new == both, "probe_id"].tolist()
    assert sorted(then.probes["probe_id"]) == sorted(known["probe_id"].iloc[elsewhere])


def test_a_number_that_is_both_must_be_said_whose(store_copy: Path) -> None:
    import zarr

    known = lake.open(store_copy).probes
    probe = int(known["probe_id"].iloc[9])
    entrez = zarr.open_array(store_copy / "probes" / "reannotated_entrez_id", mode="r+")
    entrez[20:23] = probe
    store = lake.open(store_copy)
    with pytest.raises(RequestError, match=f"write probe:{probe} or entrez:{probe}"):
        store.gene(probe)
    assert store.gene(f"probe:{probe}").rows.tolist() == [9]  # type: ignore[union-attr]
    assert store.gene(f"entrez:{probe}").rows.tolist() == [20, 21, 22]  # type: ignore[union-attr]


def test_a_dropped_symbol_says_where_it_is(small_lake: lake.Lake) -> None:
    probes = small_lake.probes
    by_symbol = probes.groupby("gene_symbol")["reannotated_gene_symbol"].agg(lambda new: (new == "").all())
    known = {*probes["reannotated_gene_symbol"], *probes["probe_name"]}
    dropped = next(symbol for symbol in by_symbol[by_symbol].index if symbol not in known)
    with pytest.raises(RequestError, match="choose reannotated=False"):
        small_lake.gene(dropped)
    assert small_lake.gene(dropped, reannotated=False).shape[0] > 0


def test_probes_come_in_the_order_asked_for_each_once(small_lake: lake.Lake) -> None:
    symbols = [s for s in small_lake.probes["reannotated_gene_symbol"].unique() if s][:3]
    found = small_lake.gene([symbols[2], symbols[0], symbols[2]])
    assert found.probes["reannotated_gene_symbol"].unique().tolist() == [symbols[2], symbols[0]]
    assert found.probes["probe_id"].is_unique


# ---------------------------------------------------------------- one value a gene


@pytest.mark.parametrize("method", [name for name in SELECTIONS if not name.lower().startswith("rnaseq")])
def test_one_value_a_gene_is_the_runs_choice(method: str, small_lake: lake.Lake) -> None:
    """Chosen among a few genes' probes alone, the result is that of choosing among all."""
    choices = {"probe_selection": method}
    everywhere = small_lake.everything().per_gene(**choices)
    symbols = everywhere.probes["gene_symbol"].iloc[[3, 30, 60]].tolist()
    few = small_lake.gene(symbols).per_gene(**choices)
    assert few.probes["gene_symbol"].tolist() == sorted(symbols)
    rows = everywhere.probes["gene_symbol"].isin(symbols).to_numpy()
    np.testing.assert_array_equal(few.read(), everywhere.read()[rows])


@QUICK
@given(data=st.data())
def test_the_most_intense_probe_is_pandas(
    data: st.DataObject, small_lake: lake.Lake, files: Published
) -> None:
    """Filter and choice written down in pandas: detected in half of the samples, the highest mean."""
    detected = files.detected.mean(axis=1)
    probes = files.probes[files.probes["new_symbol"] != ""].set_index("probe_id")
    passing = probes[detected.loc[probes.index] >= 0.5]
    best = files.expression.loc[passing.index].mean(axis=1).groupby(passing["new_symbol"]).idxmax()
    symbols = data.draw(st.lists(st.sampled_from(sorted(best.index)), min_size=1, max_size=5, unique=True))
    found = small_lake.gene(symbols).per_gene(probe_selection="max_intensity")
    assert found.probes["gene_symbol"].tolist() == sorted(symbols)
    expected = files.expression.loc[best.loc[sorted(symbols)]]
    assert found.probes["probe_id"].tolist() == expected.index.tolist()
    np.testing.assert_array_equal(found.read(), expected.to_numpy())


def test_a_chosen_probe_is_as_published(small_lake: lake.Lake, files: Published) -> None:
    symbols = [s for s in small_lake.probes["reannotated_gene_symbol"].unique() if s][:40]
    data = small_lake.gene(symbols).per_gene(probe_selection="max_intensity").to_xarray()
    expected = files.expression.loc[data["probe_id"].to_numpy(), data["well_id"].to_numpy()]
    np.testing.assert_array_equal(data["expression"].to_numpy(), expected.to_numpy())
    assert data["expression"].dims == ("gene", "sample")
    assert "detected" not in data


def test_genes_that_no_probe_is_left_of_are_named(small_lake: lake.Lake) -> None:
    symbols = [s for s in small_lake.probes["reannotated_gene_symbol"].unique() if s]
    found = small_lake.gene(symbols).per_gene(ibf_threshold=0.5)
    lost = set(symbols) - set(found.probes["gene_symbol"])
    assert lost
    assert "No probe of" in found.notes[-1]
    with pytest.raises(ChoiceError, match="lower ibf_threshold"):
        small_lake.gene(sorted(lost)[0]).per_gene(ibf_threshold=0.5)


def test_dropping_dissimilar_samples_needs_all_probes(small_lake: lake.Lake) -> None:
    pipeline = Pipeline(sim_threshold=3, probe_selection="max_intensity")
    everywhere = small_lake.everything().per_gene(pipeline)
    symbols = everywhere.probes["gene_symbol"].iloc[[5, 50]].tolist()
    few = small_lake.gene(symbols).per_gene(pipeline)
    assert few.probes["gene_symbol"].tolist() == symbols
    chosen = everywhere.probes.set_index("gene_symbol").loc[symbols, "probe_id"]
    assert few.probes["probe_id"].tolist() == chosen.tolist()


def test_what_makes_no_sense_is_refused(small_lake: lake.Lake) -> None:
    symbol = small_lake.probes["reannotated_gene_symbol"].iloc[-1]
    found = small_lake.gene(symbol)
    with pytest.raises(RequestError, match="not both"):
        found.per_gene(Pipeline(), ibf_threshold=0)
    with pytest.raises(RequestError, match="leaves out donor 9861"):
        found.per_gene(donors=["10021", "12876"], ibf_threshold=0)
    genes = found.per_gene(probe_selection="average", ibf_threshold=0)
    with pytest.raises(RequestError, match="one value a gene already"):
        genes.per_gene()
    with pytest.raises(RequestError, match="Choose the genes first"):
        genes.genes(symbol)
    other = next(s for s in small_lake.probes["reannotated_gene_symbol"] if s not in ("", symbol))
    with pytest.raises(RequestError, match=f"{symbol} has no probe of {other}"):
        found.genes(other)


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet", "feather", "json"])
def test_written_files_are_the_answer(suffix: str, small_lake: lake.Lake, tmp_path: Path) -> None:
    found = small_lake.gene(small_lake.probes["reannotated_gene_symbol"].iloc[-1])
    path = tmp_path / f"gene.{suffix}"
    found.write(path)
    readers = {
        "csv": pd.read_csv,
        "tsv": lambda p: pd.read_csv(p, sep="\t"),
        "parquet": pd.read_parquet,
        "feather": pd.read_feather,
        "json": lambda p: pd.read_json(p, precise_float=True),
    }
    back = readers[suffix](path)
    expected = found.to_dataframe()
    assert back.columns.tolist() == expected.columns.tolist()
    for probe in found.probes["probe_id"].astype(str):
        np.testing.assert_array_equal(back[probe].to_numpy(), expected[probe].to_numpy())
    if suffix in ("csv", "tsv", "json"):
        assert small_lake.snapshot in path.with_name(f"{path.name}.provenance.json").read_text()
    else:
        assert (
            small_lake.snapshot in pq.read_schema(path).metadata[b"ahba_lake"].decode()
            if (suffix == "parquet")
            else path.exists()
        )


def test_a_file_of_no_format_is_refused(small_lake: lake.Lake, tmp_path: Path) -> None:
    found = small_lake.gene(small_lake.probes["reannotated_gene_symbol"].iloc[-1])
    with pytest.raises(RequestError, match="the suffix says no format"):
        found.write(tmp_path / "gene.xlsx")
    assert not list(tmp_path.iterdir())


def test_probes_may_go_down_the_rows(small_lake: lake.Lake) -> None:
    found = small_lake.gene(small_lake.probes["reannotated_gene_symbol"].iloc[-1])
    with pytest.raises(RequestError, match="rows='gene' is unknown; choose one of sample, probe"):
        found.to_dataframe(rows="gene")  # type: ignore[arg-type]
    table = found.to_dataframe(rows="probe")
    wells = [str(well) for well in found.samples["well_id"]]
    np.testing.assert_array_equal(table[wells].to_numpy(), found.read())


# ---------------------------------------------------------------- what is read


def bytes_read() -> int:
    """All that this process ever read."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(lines[0].removeprefix("rchar: "))


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="reads are counted by Linux")
def test_one_gene_reads_its_chunks_and_the_labels(store_path: Path) -> None:
    symbol = lake.open(store_path).probes["reannotated_gene_symbol"].iloc[-1]
    lake.open(store_path).gene(symbol).to_xarray()  # whatever is imported, is
    before = bytes_read()
    lake.open(store_path).gene(symbol).to_xarray()
    read = bytes_read() - before
    tables = sum(
        path.stat().st_size for path in store_path.rglob("*") if path.is_file() and "c/0/0" not in str(path)
    )
    matrices = sum(path.stat().st_size for path in store_path.rglob("c/*/0"))
    assert read < tables + matrices / 2
    assert matrices > 3 * tables / 4  # or the line above says nothing


def test_nothing_is_read_before_it_is_looked_at(store_path: Path) -> None:
    store = lake.open(store_path)
    found = store.everything().of_donors("10021")
    assert found.shape == (400, 89)
    assert store._columns == {}
    assert store.rows._open == {}


def test_looking_up_a_gene_loads_neither_dask_nor_xarray_nor_pandas(store_path: Path) -> None:
    symbol = lake.open(store_path).probes["reannotated_gene_symbol"].iloc[-1]
    code = (
        "import sys; from lake.cli import main\n"
        f"sys.argv = ['ahba', 'gene', {symbol!r}, '--store', {str(store_path)!r}]\n"
        "try: main()\nexcept SystemExit as stop: assert not stop.code, stop.code\n"
        "print(sorted({'dask', 'xarray', 'pandas', 'scipy', 'nibabel', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@given(
    rows=st.lists(st.integers(0, 300), min_size=1, max_size=40, unique=True).map(sorted),
    chunk=st.sampled_from([1, 4, 16]),
)
def test_runs_cover_the_rows_and_little_else(rows: list[int], chunk: int) -> None:
    runs = adjacent_runs(np.array(rows), chunk, 64)
    covered = [row for start, stop in runs for row in range(start, stop)]
    assert covered == sorted(set(covered))
    assert set(rows) <= set(covered)
    assert {row // chunk for row in covered} == {row // chunk for row in rows}
    assert all(start // 64 == (stop - 1) // 64 for start, stop in runs)


@given(columns=st.lists(st.integers(0, 9), min_size=1, max_size=30))
def test_samples_are_shared_out_among_donors(columns: list[int]) -> None:
    sizes = {"a": 3, "b": 5, "c": 2}
    parts = by_donor(np.array(columns), sizes)
    starts = {"a": 0, "b": 3, "c": 8}
    back = np.full(len(columns), -1)
    for donor, (places, own) in parts.items():
        back[places] = starts[donor] + np.arange(sizes[donor])[own]
    assert back.tolist() == columns


@pytest.mark.parametrize("n_samples", [1, 121, 363, 946, 4000])
@pytest.mark.parametrize("itemsize", [1, 8])
def test_a_chunk_is_small(n_samples: int, itemsize: int) -> None:
    assert itemsize * chunk_columns(n_samples, itemsize) * chunk_rows(n_samples, itemsize) <= 128 << 10


@pytest.mark.parametrize("name", ["expression", "detected"])
def test_a_missing_file_is_an_error(name: str, store_copy: Path) -> None:
    (store_copy / "microarray" / "10021" / name / "c" / "0" / "0").unlink()
    store = lake.open(store_copy)
    with pytest.raises(DamageError, match=f"10021/{name}/c/0/0: is missing"):
        store.everything().read(name)


@pytest.mark.parametrize("name", ["expression", "detected"])
def test_one_missing_file_of_several_is_an_error(
    name: str, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several files are read at once, and those beside it are full."""
    monkeypatch.setattr(layout, "SHARD_ROWS", 128)
    monkeypatch.setattr(layout, "CHUNK_ROWS", 64)
    ingest_directory(published, tmp_path / "store", donors=["10021"])
    missing = tmp_path / "store" / "microarray" / "10021" / name / "c" / "1" / "0"
    missing.unlink()
    with pytest.raises(DamageError, match=f"10021/{name}/c/1/0: is missing"):
        lake.open(tmp_path / "store").everything().read(name)


def test_a_store_is_read_from_wherever_one_is(store_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path may be relative to where one was when it was opened, calls may be false throughout."""
    monkeypatch.chdir(store_path.parent)
    store = lake.open(store_path.name)
    monkeypatch.chdir("/")
    nowhere = np.flatnonzero(~store.everything().read("detected").any(axis=1))
    assert len(nowhere)
    assert not replace(store.everything(), rows=nowhere[:1]).read("detected").any()


def test_threads_leave_zarrs_configuration_as_it_was() -> None:
    """Two threads open arrays at a time; who comes second must not put back what the first one set."""
    before = zarr.config.get("codec_pipeline.path")
    inside, leave = Event(), Event()

    def second() -> None:
        with fast_codecs():
            inside.set()
            leave.wait(10)

    with fast_codecs():
        thread = Thread(target=second)
        thread.start()
        inside.wait(0.2)
    leave.set()
    thread.join()
    assert inside.is_set()
    assert zarr.config.get("codec_pipeline.path") == before


def test_what_is_no_matrix_is_not_read(small_lake: lake.Lake) -> None:
    with pytest.raises(RequestError, match="'calls' is unknown; choose one of expression, detected\\."):
        small_lake.everything().read("calls")
    genes = small_lake.everything().per_gene(probe_selection="max_intensity")
    with pytest.raises(RequestError, match="choose one of expression, or detected before per_gene"):
        genes.read("detected")


def test_numbers_may_be_numpys(small_lake: lake.Lake) -> None:
    probe = small_lake.probes["probe_id"].iloc[7]
    assert isinstance(probe, np.integer)
    found = small_lake.gene(probe)
    assert found.question == str(probe)
    assert found.rows is not None
    assert found.rows.tolist() == [7]


def test_a_damaged_file_is_an_error(store_copy: Path) -> None:
    path = store_copy / "microarray" / "10021" / "expression" / "c" / "0" / "0"
    data = bytearray(path.read_bytes())
    data[1000:1040] = bytes(40)
    path.write_bytes(data)
    with pytest.raises(DamageError, match="10021/expression"):
        lake.open(store_copy).everything().read()


def test_donors_and_others(small_lake: lake.Lake) -> None:
    found = everything(small_lake).of_donors("H0351.2002")
    assert found.donors == ["10021"]
    rest = found.others()
    assert rest.donors == ["9861", "12876"]
    assert sorted([*found.columns, *rest.columns]) == list(range(220))
    assert found.others("12876").donors == ["12876"]
    with pytest.raises(RequestError, match="there are no others"):
        everything(small_lake).others()
    with pytest.raises(RequestError, match="no sample is left"):
        found.of_donors("9861")


# ---------------------------------------------------------------- genes in tables


@pytest.fixture(scope="module")
def tables(small_lake: lake.Lake, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.helpers import octants

    out = tmp_path_factory.mktemp("tables")
    atlases = [octants("first"), octants("second", first=11)]
    pipelines = [Pipeline(), Pipeline(gene_norm="zscore")]
    lake.run(small_lake, atlases=atlases, pipelines=pipelines, out=out)
    return out


def test_a_gene_in_all_tables(tables: Path) -> None:
    one = lake.read_expression(tables, atlas="first", pipeline=pipelines_of(tables)[0])
    genes = one.columns[[2, 20]].tolist()
    found = gene_tables(tables, genes)
    assert len(found) == 2 * 2 * 2 * 8
    for (pipeline, atlas), part in found.groupby(["pipeline", "atlas"]):
        table = lake.read_expression(tables, atlas=atlas, pipeline=pipeline)
        wide = part.pivot_table(index="region", columns="gene_symbol", values="expression")
        np.testing.assert_array_equal(wide[genes].to_numpy(), table[genes].to_numpy())
        assert wide.index.tolist() == table.index.tolist()


def pipelines_of(tables: Path) -> list[str]:
    return sorted(path.name.partition("=")[2] for path in (tables / "expression").glob("*"))


def test_tables_can_be_narrowed(tables: Path) -> None:
    pipeline = pipelines_of(tables)[1]
    symbol = lake.read_expression(tables, atlas="first", pipeline=pipeline).columns[5]
    found = gene_tables(tables, symbol, atlas="second", pipeline=pipeline)
    assert found["region"].tolist() == list(range(11, 19))
    with pytest.raises(RequestError, match="none of the 4 tables has the gene NOGENE"):
        gene_tables(tables, ["NOGENE", symbol])
    for name in ("third", "*", "fir[s]t"):
        with pytest.raises(RequestError, match=f"no expression table of atlas {re.escape(name)}"):
            gene_tables(tables, symbol, atlas=name)
    with pytest.raises(RequestError, match="No gene is named"):
        gene_tables(tables, [])


def test_the_dataset_is_one_that_xarray_selects_from(small_lake: lake.Lake) -> None:
    symbols = [s for s in small_lake.probes["reannotated_gene_symbol"].unique() if s][:5]
    data = small_lake.gene(symbols).per_gene(probe_selection="average", ibf_threshold=0).to_xarray()
    assert isinstance(data.sel(gene=symbols[2])["expression"], xr.DataArray)
