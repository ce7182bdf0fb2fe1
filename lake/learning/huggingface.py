"""Samples or regions as a folder of Parquet files that Hugging Face's `datasets` reads, with its card."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lake.errors import RequestError
from lake.layout import CITATION, LICENCE
from lake.learning.aside import folder_aside
from lake.learning.copying import matrix_of
from lake.learning.matrix import Matrix
from lake.learning.observations import Observations, Source, observations
from lake.tables import PROVENANCE

MEMORY = 256 << 20
ROWS_PER_GROUP = 64


def to_huggingface(
    source: Source | Observations,
    folder: str | Path,
    *,
    rows_per_file: int = 1024,
    memory: int = MEMORY,
    **choices: Any,
) -> list[Path]:
    """Write samples x genes as Parquet, readable by ``datasets.load_dataset``, whole or not at all.

    Parameters
    ----------
    source : Lake, Selection, path or Observations
        See `lake.observations`.
    folder : str or pathlib.Path
        Not there yet. ``data/train-*.parquet``: a row a sample (or region) with its labels, ``coordinates``
        (MNI152 mm) and ``expression``, a list of float32, one a gene in the order of ``genes.parquet``;
        ``README.md``: the dataset card.
    rows_per_file : int
    memory : int
        Bytes of expression up to which it is gathered in memory, not in a scratch file.
    **choices
        See `lake.observations`.

    Returns
    -------
    list of pathlib.Path
        The files of samples.

    Raises
    ------
    RequestError, ChoiceError, AtlasError
        If the folder is there, or the source or a choice is wrong.
    """
    target = Path(folder)
    if target.exists():
        raise RequestError(f"{target} is there already: name a new folder, or remove it.")
    if rows_per_file < 1:
        raise RequestError(f"rows_per_file={rows_per_file!r}: 1 or more is needed.")
    found = observations(source, **choices)
    with folder_aside(target) as aside:
        matrix = _in_order(found, memory, aside / "scratch")
        (aside / "data").mkdir()
        names = list(_write_rows(aside / "data", found, matrix, rows_per_file, _schema(found)))
        features = pa.Table.from_pandas(found.features, preserve_index=False)
        pq.write_table(features.replace_schema_metadata(_metadata(found)), aside / "genes.parquet")
        (aside / "README.md").write_text(card(found, target.name), encoding="utf-8")
        shutil.rmtree(aside / "scratch", ignore_errors=True)
    return [target / "data" / name for name in names]


def _in_order(found: Observations, memory: int, scratch: Path) -> Matrix:
    return matrix_of(
        found.blocks,
        np.arange(len(found.rows)),
        found.shape[1],
        "float32",
        block_size=ROWS_PER_GROUP,
        memory=memory,
        home=scratch,
        name=found.identity,
    )


def _write_rows(
    folder: Path, found: Observations, matrix: Matrix, rows_per_file: int, schema: pa.Schema
) -> Iterator[str]:
    """Write the files of samples; their names tell how many there are, as a hub's do."""
    n_files = -(-len(found.rows) // rows_per_file)
    for number in range(n_files):
        rows = np.arange(len(found.rows))[number * rows_per_file :][:rows_per_file]
        name = f"train-{number:05d}-of-{n_files:05d}.parquet"
        with pq.ParquetWriter(folder / name, schema, **_OPTIONS) as writer:
            for start in range(0, len(rows), ROWS_PER_GROUP):
                writer.write_table(_table(found, matrix, rows[start : start + ROWS_PER_GROUP]).cast(schema))
        yield name


_OPTIONS: dict[str, Any] = {"compression": "zstd", "compression_level": 1, "use_dictionary": False}


def _table(found: Observations, matrix: Matrix, rows: Any) -> pa.Table:
    """Some rows as columns: labels, coordinates, expression."""
    labels = pa.Table.from_pandas(found.rows.iloc[rows], preserve_index=False)
    labels = labels.append_column("coordinates", _lists(found.coordinates[rows]))
    return labels.append_column("expression", _lists(matrix.read(rows)))


def _schema(found: Observations) -> pa.Schema:
    labels = pa.Table.from_pandas(found.rows, preserve_index=False).schema
    lists = [
        ("coordinates", pa.list_(pa.float64(), 3)),
        ("expression", pa.list_(pa.float32(), found.shape[1])),
    ]
    fields = [pa.field(field.name, _plain(field.type)) for field in labels]
    return pa.schema([*fields, *lists], metadata=_metadata(found))


def _plain(kind: pa.DataType) -> pa.DataType:
    return pa.string() if pa.types.is_large_string(kind) else kind


def _lists(values: Any) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


def _metadata(found: Observations) -> dict[bytes, bytes]:
    return {PROVENANCE: json.dumps(found.provenance, sort_keys=True).encode()}


# ---- the card ----


def card(found: Observations, name: str) -> str:
    """The dataset card: what the files hold, what they came from, and on which terms.

    Parameters
    ----------
    found : Observations
    name : str
        Of the dataset.
    """
    n_rows, n_features = found.shape
    said = found.provenance
    return _CARD.format(
        name=name,
        quoted=json.dumps(name),  # YAML's quotes, too
        kind="in the format of the" if "simulated" in said else "of the",
        size=_size(n_rows),
        warning=f"**{said['simulated']}**\n\n" if "simulated" in said else "",
        n_rows=f"{n_rows:,}",
        rows=f"{found.kind}s",
        n_features=f"{n_features:,}",
        features="genes"
        if "gene_symbol" in found.features and "probe_name" not in found.features
        else "probes",
        snapshot=said["snapshot"],
        origin=json.dumps(_without(said, "licence", "citation", "simulated"), indent=1, sort_keys=True),
        licence=said.get("licence", LICENCE),
        citation=said.get("citation", CITATION),
    )


def _without(provenance: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in provenance.items() if name not in names}


def _size(n_rows: int) -> str:
    """The hub's name for a number of rows."""
    return "n<1K" if n_rows < 1000 else "1K<n<10K" if n_rows < 10_000 else "10K<n<100K"


_CARD = """---
pretty_name: {quoted}
license: other
license_name: allen-institute-terms-of-use
license_link: https://alleninstitute.org/legal/terms-use/
size_categories:
- {size}
tags:
- biology
- neuroscience
- gene-expression
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*.parquet
---

# {name}

{warning}Gene expression {kind} Allen Human Brain Atlas: {n_rows} {rows} x {n_features} {features}, written by
`ahba-lake` from snapshot `{snapshot}`.

- `expression`: float32, one value a feature, in the order of the rows of `genes.parquet`
- `coordinates`: MNI152, mm
- the other columns: what is known of each row

```python
from datasets import load_dataset

data = load_dataset("parquet", data_files="data/train-*.parquet", split="train")
```

There is one split: hold back donors or places, not rows at random, as rows of one brain are alike.

## Origin

```json
{origin}
```

## Licence and citation

{licence}

{citation}

The terms bind whoever has the files: read them before you pass the files on.
"""
