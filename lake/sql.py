"""SQL over the samples, probes, structures and donors of a store and the tables that runs wrote, by DuckDB.

The statement is treated as a stranger's: DuckDB is given the tables as Arrow data, and reaches no file, no
network and no setting; one SELECT is all that runs.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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
SETTINGS = {
    "enable_progress_bar": "false",  # it would be printed between the rows of the answer
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
        A second column of one name, ``a``, is ``a_1``.

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
        for setting, value in SETTINGS.items():
            connection.execute(f"SET {setting} = {value}")
        return _answer(connection, statement)


def _answer(connection: "duckdb.DuckDBPyConnection", statement: str) -> pd.DataFrame:
    import duckdb

    try:
        statements = connection.extract_statements(statement)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise RequestError("One SELECT is answered, nothing else.")
        return _as_pandas(_computed(connection, statements[0].query))
    except duckdb.Error as error:
        raise RequestError(f"DuckDB: {error}") from None


def _computed(connection: "duckdb.DuckDBPyConnection", statement: str) -> pa.Table:
    """The answer; DuckDB does not hear Ctrl-C while it works, so that somebody else has to listen."""
    relation: Any = connection.sql(statement)
    with ThreadPoolExecutor(1) as worker:
        answer = worker.submit(relation.to_arrow_table)
        try:
            return answer.result()
        except KeyboardInterrupt:
            connection.interrupt()
            raise


def _as_pandas(answer: pa.Table) -> pd.DataFrame:
    """The answer with whole numbers whole, where some are missing too, and no two columns of one name."""
    columns = [_narrowed(column) for column in answer.columns]
    try:
        # Of an integer column with NULLs pandas would make floats, which round ids.
        return pa.table(columns, names=_told_apart(answer.column_names)).to_pandas(integer_object_nulls=True)
    except pa.ArrowNotImplementedError as error:
        raise RequestError(
            f"The answer has a column that no table holds; cast it to another type: {error}"
        ) from None


def _narrowed(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A sum of whole numbers, which DuckDB gives 128 bits, as 64 if it fits."""
    if not pa.types.is_decimal128(column.type) or column.type.scale:
        return column
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid:
        return column


def _told_apart(names: list[str]) -> list[str]:
    """Columns' names, the second ``a`` as ``a_1``."""
    told: list[str] = []
    for name in names:
        others = (f"{name}_{number}" for number in range(1, len(names) + 1))
        told.append(name if name not in told else next(o for o in others if o not in (*told, *names)))
    return told


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
            parts = " UNION ALL BY NAME ".join(_parts(connection, name, tables, files))
            connection.execute(f"CREATE VIEW {name} AS {parts}")


def _parts(
    connection: "duckdb.DuckDBPyConnection", name: str, tables: Path, files: list[Path]
) -> Iterator[str]:
    for number, file in enumerate(files):
        part = f"{name}_file_{number}"
        connection.register(part, dataset.dataset(str(file), format="parquet"))
        places = ", ".join(
            f"{_quoted(value)} AS {key}" for key, value in _partitions(file.relative_to(tables)).items()
        )
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
