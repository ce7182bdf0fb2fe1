"""SQL over the samples, probes, structures and donors of a store and the tables that runs wrote, by DuckDB.

The statement is treated as a stranger's: DuckDB is given the tables as Arrow data, and reaches no file, no
network and no setting; one SELECT is all that runs.
"""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as dataset

from lake.errors import RequestError
from lake.store import Lake

if TYPE_CHECKING:
    import duckdb

INSTALL = "pip install 'ahba-lake[sql]'"
STORE_TABLES = ("samples", "probes", "ontology", "donors")
RUN_TABLES = ("expression", "donor_expression", "counts", "gene_stability", "genes", "regions")
BY_REGION = {"expression": "gene_symbol", "donor_expression": "gene_symbol, donor"}
"""Tables with a column a region, and their other columns: queried as rows of region and expression."""
PARTITIONS = ("pipeline", "atlas")
SHUT = {
    "python_enable_replacements": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "temp_directory": "''",
    "enable_external_access": "false",
    "lock_configuration": "true",  # the last one: no setting changes after it
}


def query(statement: str, *, store: Lake | None = None, tables: str | Path | None = None) -> pd.DataFrame:
    """Answer one SELECT.

    Parameters
    ----------
    statement : str
        Its tables: of `store` ``samples``, ``probes``, ``ontology`` (with the columns of `Lake.samples`, ..
        and ``sample`` and ``probe``, positions on the axes) and ``donors``; of `tables` ``expression``
        (``pipeline``, ``atlas``, ``gene_symbol``, ``region``, ``expression``), ``donor_expression``,
        ``counts``, ``genes``, ``regions``, ``gene_stability``, as far as runs wrote them.
    store : Lake, optional
    tables : str or pathlib.Path, optional
        The runs' output directory.

    Returns
    -------
    pandas.DataFrame

    Raises
    ------
    RequestError
        If DuckDB is not installed, neither store nor tables are given, or the statement is no SELECT, is
        wrong, or asks for what it may not.
    """
    if find_spec("duckdb") is None:
        raise RequestError(f"SQL needs DuckDB, which is not installed: {INSTALL}")
    if store is None and tables is None:
        raise RequestError("There is nothing to select from: give a store, tables, or both.")
    import duckdb

    with duckdb.connect(":memory:") as connection:
        if store is not None:
            _register_store(connection, store)
        if tables is not None:
            _register_runs(connection, Path(tables))
        for setting, value in SHUT.items():
            connection.execute(f"SET {setting} = {value}")
        return _answer(connection, statement)


def _answer(connection: "duckdb.DuckDBPyConnection", statement: str) -> pd.DataFrame:
    import duckdb

    try:
        statements = connection.extract_statements(statement)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise RequestError("One SELECT is answered, nothing else.")
        relation: Any = connection.sql(statements[0].query)
        answer: pd.DataFrame = relation.to_arrow_table().to_pandas()
    except duckdb.Error as error:
        raise RequestError(f"DuckDB: {error}") from None
    return answer


def _register_store(connection: "duckdb.DuckDBPyConnection", store: Lake) -> None:
    frames = {
        "samples": store.samples.rename_axis("sample").reset_index(),
        "probes": store.probes.rename_axis("probe").reset_index(),
        "ontology": store.ontology,
        "donors": store.donor_table,
    }
    for name in STORE_TABLES:
        connection.register(name, pa.Table.from_pandas(frames[name], preserve_index=False))


def _register_runs(connection: "duckdb.DuckDBPyConnection", tables: Path) -> None:
    """Make a view of the files of each kind of table; they are read when they are asked for."""
    found = {name: sorted(tables.glob(f"{name}/**/*.parquet")) for name in RUN_TABLES}
    if not any(found.values()):
        raise RequestError(f"{tables}: there are no tables; `ahba run` makes them.")
    for name, files in found.items():
        if files:
            parts = " UNION ALL BY NAME ".join(_parts(connection, name, files))
            connection.execute(f"CREATE VIEW {name} AS {parts}")


def _parts(connection: "duckdb.DuckDBPyConnection", name: str, files: list[Path]) -> Iterator[str]:
    for number, file in enumerate(files):
        part = f"{name}_file_{number}"
        connection.register(part, dataset.dataset(str(file), format="parquet"))
        places = ", ".join(f"{_quoted(value)} AS {key}" for key, value in _partitions(file).items())
        yield f"SELECT {places}, {_columns(name, part)}"


def _columns(name: str, part: str) -> str:
    if name not in BY_REGION:
        return f"* FROM {part}"
    others = BY_REGION[name]
    return (
        f"{others}, CAST(region AS BIGINT) AS region, expression FROM {part} "
        f"UNPIVOT INCLUDE NULLS (expression FOR region IN (COLUMNS(* EXCLUDE ({others}))))"
    )


def _partitions(file: Path) -> dict[str, Any]:
    pairs = (part.partition("=") for part in file.parts)
    return {key: value for key, _, value in pairs if key in PARTITIONS}


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
