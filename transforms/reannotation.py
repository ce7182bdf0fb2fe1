"""A person's own re-annotation of the probes: which gene each probe measures, as far as it is known today.

The table of Arnatkeviciute et al. (2019, NeuroImage 189:353) comes with the store; genomes and gene names
move on, and whoever re-aligns the probes brings a newer one.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from transforms.errors import ChoiceError

COLUMNS = ("probe_name", "gene_symbol", "entrez_id")
MOST_SHOWN = 5


@dataclass(frozen=True)
class Reannotation:
    """A checked table of probes and their genes; make one with :meth:`from_table`.

    Attributes
    ----------
    name : str
        Where it comes from, for people; not compared.
    sha256 : str
        Of the probes and genes, whatever their order; two tables with the same are the same choice.
    table : pandas.DataFrame
        ``gene_symbol`` and ``entrez_id`` (int64), indexed by ``probe_name``, ascending.
    """

    name: str = field(compare=False)
    sha256: str
    table: pd.DataFrame = field(compare=False, repr=False)

    @classmethod
    def from_table(cls, table: pd.DataFrame, *, name: str) -> Self:
        """Check a table.

        Parameters
        ----------
        table : pandas.DataFrame
            Columns ``probe_name``, ``gene_symbol`` and ``entrez_id``, one row a probe; others are ignored.
        name : str
            Where it comes from.

        Raises
        ------
        ChoiceError
            If a column is missing, or with the rows that are incomplete or contradict each other: a probe
            named twice, a symbol with two Entrez ids, an Entrez id with two symbols.
        """
        if absent := [column for column in COLUMNS if column not in table]:
            raise ChoiceError(
                f"Re-annotation {name} lacks column {', '.join(absent)}: it needs {', '.join(COLUMNS)}."
            )
        rows = table[list(COLUMNS)].reset_index(drop=True)
        for wrong, what in _WRONG:
            _refuse(rows, wrong(rows), what, name)
        if rows.empty:
            raise ChoiceError(f"Re-annotation {name} has no row: give one a probe.")
        checked = rows.astype({"entrez_id": np.int64}).set_index("probe_name").sort_index()
        text = checked.to_csv(lineterminator="\n", header=False)
        return cls(name, hashlib.sha256(text.encode()).hexdigest(), checked)

    def of(self, probe_names: pd.Series) -> pd.DataFrame:
        """``gene_symbol`` ("" none) and ``entrez_id`` (-1 none) of each of the probes.

        Raises
        ------
        ChoiceError
            If the table knows none of them.
        """
        found = self.table.reindex(probe_names)
        if found["entrez_id"].isna().all():
            raise ChoiceError(
                f"Re-annotation {self.name} names none of the probes (it begins with "
                f"{self.table.index[0]}, the store with {probe_names.iloc[0]}): give names as in Probes.csv."
            )
        return pd.DataFrame(
            {
                "gene_symbol": found["gene_symbol"].fillna("").to_numpy(dtype=object),
                "entrez_id": found["entrez_id"].fillna(-1).to_numpy(dtype=np.int64),
            }
        )


def _refuse(rows: pd.DataFrame, wrong: NDArray[np.bool_], what: str, name: str) -> None:
    places = np.flatnonzero(wrong)
    if not len(places):
        return
    shown = [f"row {place} ({', '.join(map(str, rows.loc[place]))})" for place in places[:MOST_SHOWN]]
    more = f" and {len(places) - MOST_SHOWN} more" if len(places) > MOST_SHOWN else ""
    raise ChoiceError(
        f"Re-annotation {name} {what}: {'; '.join(shown)}{more}. Correct or leave out these rows."
    )


def _is_no_text(values: pd.Series) -> NDArray[np.bool_]:
    return np.array([not isinstance(value, str) or not value.strip() for value in values], dtype=bool)


def _is_no_id(values: pd.Series) -> NDArray[np.bool_]:
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    with np.errstate(invalid="ignore"):
        whole: NDArray[np.bool_] = np.isfinite(numbers) & (numbers >= 0) & (numbers == np.rint(numbers))
    return ~whole


def _contradicts(rows: pd.DataFrame, one: str, other: str) -> NDArray[np.bool_]:
    """Rows whose value of `one` has several of `other`."""
    several: NDArray[np.bool_] = (rows.groupby(one)[other].transform("nunique") > 1).to_numpy()
    return several


_WRONG: tuple[tuple[Callable[[pd.DataFrame], Any], str], ...] = (
    (lambda rows: _is_no_text(rows["probe_name"]), "has rows without a probe_name"),
    (lambda rows: _is_no_text(rows["gene_symbol"]), "has rows without a gene_symbol"),
    (lambda rows: _is_no_id(rows["entrez_id"]), "has an entrez_id that is no whole number from 0 on"),
    (lambda rows: rows["probe_name"].duplicated(keep=False).to_numpy(), "names probes more than once"),
    (
        lambda rows: _contradicts(rows, "gene_symbol", "entrez_id"),
        "gives a gene_symbol more than one entrez_id",
    ),
    (
        lambda rows: _contradicts(rows, "entrez_id", "gene_symbol"),
        "gives an entrez_id more than one gene_symbol",
    ),
)
