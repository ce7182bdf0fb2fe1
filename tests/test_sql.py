"""SQL over labels and tables: the answers are pandas', and a hostile statement reaches nothing."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import lake
from lake.errors import RequestError
from lake.sql import query
from tests.helpers import command_line, octants
from transforms.pipeline import Pipeline

pytest.importorskip("duckdb")


@pytest.fixture(scope="module")
def tables(small_lake: lake.Lake, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("it's tables")
    lake.run(
        small_lake,
        atlases=[octants("first"), octants("second", first=11)],
        pipelines=[Pipeline(), Pipeline(gene_norm=None)],
        out=out,
        donor_tables=True,
    )
    return out


def test_the_stores_tables(small_lake: lake.Lake) -> None:
    frames = {
        "samples": small_lake.samples,
        "probes": small_lake.probes,
        "ontology": small_lake.ontology,
        "donors": small_lake.donor_table,
    }
    for name, frame in frames.items():
        found = query(f"from {name}", store=small_lake)
        pd.testing.assert_frame_equal(found[list(frame)], frame, check_dtype=False)


def test_a_question_over_two_tables(small_lake: lake.Lake) -> None:
    found = query(
        "select o.structure, count(*) as n from samples s join ontology o using (structure_id) "
        "group by all order by n desc, o.structure",
        store=small_lake,
    )
    expected = small_lake.samples["structure"].value_counts()
    assert dict(zip(found["structure"], found["n"], strict=True)) == expected.to_dict()


def test_expression_is_a_row_a_region(tables: Path) -> None:
    found = query("select * from expression", tables=tables)
    assert found.columns.tolist() == ["pipeline", "atlas", "gene_symbol", "region", "expression"]
    for (pipeline, atlas), part in found.groupby(["pipeline", "atlas"]):
        table = lake.read_expression(tables, atlas=atlas, pipeline=pipeline)
        wide = part.pivot_table(index="region", columns="gene_symbol", values="expression")
        np.testing.assert_array_equal(wide[table.columns].to_numpy(), table.to_numpy())


def test_the_other_tables(tables: Path) -> None:
    counts = query("select atlas, sum(n_samples) as n from counts group by all order by atlas", tables=tables)
    assert counts["atlas"].tolist() == ["first", "second"]
    assert len(set(counts["n"])) == 1
    assert query("select count(*) as n from genes", tables=tables)["n"].iloc[0] > 100
    regions = query("select region from regions where atlas = 'second' order by region", tables=tables)
    assert regions["region"].tolist() == list(range(11, 19))
    donors = query("select distinct donor from donor_expression order by donor", tables=tables)
    assert donors["donor"].tolist() == ["10021", "12876", "9861"]


def test_tables_and_store_together(small_lake: lake.Lake, tables: Path) -> None:
    found = query(
        "select count(*) as n from expression e where e.gene_symbol in "
        "(select reannotated_gene_symbol from probes) and atlas = 'first'",
        store=small_lake,
        tables=tables,
    )
    assert found["n"].iloc[0] > 0


HOSTILE = [
    "select * from read_csv('{file}')",
    "select * from '{file}'",
    "select * from read_text('{file}')",
    "select * from read_blob('{file}')",
    "select * from read_json('{file}')",
    "select * from read_parquet('{table}')",
    "select * from parquet_metadata('{table}')",
    "select * from glob('/*')",
    "select * from sniff_csv('{file}')",
    "select * from query('select * from read_text(''{file}'')')",
    "from query_table(['{file}'])",
    "with t as (select * from read_text('{file}')) select * from t",
    "copy samples to '{folder}/out.csv'",
    "copy (select 1) to '{folder}/out.parquet'",
    "export database '{folder}/db'",
    "attach '{folder}/new.db'",
    "create table t as select 1",
    "create view samples as select 1",
    "drop view samples",
    "insert into samples select * from samples",
    "delete from samples",
    "update samples set donor = 'x'",
    "with t as (delete from samples returning *) select * from t",
    "install httpfs",
    "load httpfs",
    "set enable_external_access = true",
    "set lock_configuration = false",
    "reset enable_external_access",
    "pragma enable_external_access",
    "call enable_logging()",
    "select * from duckdb_secrets()",
    "select * from 'http://127.0.0.1:9/x.csv'",
    "select * from read_csv('s3://bucket/x.csv')",
    "select getenv('HOME')",
    "select * from small_lake",
    "select * from frames",
    "select * from enable_logging(storage='file', storage_config={{'path': '{folder}/log'}})",
    "select * from enable_profiling(save_location='{folder}/profile.json')",
    "select * from read_ndjson('{file}')",
    "select * from read_json_objects('{file}')",
    "select * from parquet_schema('{table}')",
    "select * from parquet_kv_metadata('{table}')",
    "select * from arrow_scan(1, 2, 3)",
    "select * from duckdb_extensions()",
    "select * from which_secret('s3://x', 's3')",
    "select json_execute_serialized_sql('x')",
    "select * from json_execute_serialized_sql(json_serialize_sql('select * from read_text(''{file}'')'))",
    "select * from query('create table x as select 1')",
    "prepare x as select 1",
    "use memory",
    "vacuum",
    "select 1; select 2",
    "select 1; copy samples to '{folder}/out.csv'",
    "explain analyze select 1",
    "",
    "selec 1",
    "select nothing from samples",
]


@pytest.mark.parametrize("statement", HOSTILE)
def test_a_hostile_statement_is_refused(
    statement: str, small_lake: lake.Lake, tables: Path, tmp_path: Path
) -> None:
    file = tmp_path / "secret.csv"
    file.write_text("a,b\n1,2\n")
    table = next(tables.rglob("*.parquet"))
    with pytest.raises(RequestError, match=r"DuckDB: |One SELECT is answered"):
        query(
            statement.format(file=file, table=str(table).replace("'", "''"), folder=tmp_path),
            store=small_lake,
            tables=tables,
        )
    assert [path.name for path in tmp_path.iterdir()] == ["secret.csv"]


def test_whole_numbers_stay_whole(small_lake: lake.Lake) -> None:
    found = query("select sum(well_id) as s from samples", store=small_lake)
    assert found["s"].dtype == np.int64
    assert found["s"].iloc[0] == small_lake.samples["well_id"].sum()
    found = query("select 9223372036854775807 as n union all select null order by n", store=small_lake)
    assert found["n"].tolist() == [9223372036854775807, None]
    huge = 2**126
    assert int(query(f"select {huge}::hugeint as n", store=small_lake)["n"].iloc[0]) == huge


def test_columns_of_one_name_are_told_apart(small_lake: lake.Lake) -> None:
    found = query("select 1 as a, 2 as a, 3 as a_1, 4 as a", store=small_lake)
    assert found.to_dict("records") == [{"a": 1, "a_2": 2, "a_1": 3, "a_3": 4}]
    both = "select * from samples s join ontology o on s.structure_id = o.structure_id"
    found = query(both, store=small_lake)
    assert len(found.columns) == 1 + small_lake.samples.shape[1] + small_lake.ontology.shape[1]
    assert (found["structure_id"] == found["structure_id_1"]).all()


def test_what_no_table_holds(small_lake: lake.Lake) -> None:
    with pytest.raises(RequestError, match="cast it to another type"):
        query("select union_value(a := 1) as u", store=small_lake)


@pytest.mark.slow
def test_a_long_question_says_nothing_and_can_be_stopped(store_path: Path) -> None:
    words = ("sql", "select max(x) from range(10000000000000) t(x)", "--store", store_path, "--format", "csv")
    with subprocess.Popen(
        command_line(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    ) as process:  # fmt: skip
        time.sleep(6)  # DuckDB shows its progress after two
        process.send_signal(signal.SIGINT)
        said, complained = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said == ""
    assert complained.strip().startswith("Stopped")


def test_a_folder_above_the_tables_says_nothing(tables: Path, tmp_path: Path) -> None:
    moved = tmp_path / "atlas=other" / "pipeline=other"
    shutil.copytree(tables, moved)
    for name in ("expression", "counts", "genes", "regions"):
        ours, theirs = (query(f"from {name}", tables=folder) for folder in (moved, tables))
        pd.testing.assert_frame_equal(ours, theirs)


def test_a_statement_changes_nothing_for_the_next(small_lake: lake.Lake) -> None:
    before = small_lake.samples.copy()
    found = query("select * from samples", store=small_lake)
    found["donor"] = "changed"
    pd.testing.assert_frame_equal(small_lake.samples, before)


def test_nothing_to_select_from(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="give a store, tables, or both"):
        query("select 1")
    with pytest.raises(RequestError, match="there are no tables; `ahba run` makes them"):
        query("select 1", tables=tmp_path)


def test_without_duckdb_the_install_line(small_lake: lake.Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    monkeypatch.setattr("lake.sql.find_spec", lambda name: None)
    with pytest.raises(RequestError, match=r"pip install 'ahba-lake\[sql\]'"):
        query("select 1", store=small_lake)
