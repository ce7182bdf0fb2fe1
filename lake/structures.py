"""Which structures of the Allen ontology a person means by an acronym, a name or an id.

The ontology has a row a hemisphere for most structures, with one acronym and a name that ends in ", left" or
", right" (or nearly so: some have a capital letter, some lack the space), and often a row without a side.
"""

import difflib
import re
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lake.errors import RequestError

if TYPE_CHECKING:  # the commands that only print names load no pandas
    import pandas as pd

SIDE = re.compile(r", ?(left|right)\b", re.IGNORECASE)


def sideless(name: str) -> str:
    """A structure's name without its hemisphere."""
    return SIDE.sub("", name).strip()


def find_structures(ontology: "pd.DataFrame", name: str | int) -> "pd.DataFrame":
    """Rows of the ontology that an acronym, a name or an id stands for: one structure, of any hemisphere.

    Parameters
    ----------
    ontology : pandas.DataFrame
    name : str or int
        An acronym, as it is written in the ontology or in other letters; or a name, in any letters. Without
        its side a name stands for the rows of both hemispheres, as an acronym does.

    Raises
    ------
    RequestError
        If there is none (the nearest names are given), or several: ``mtg``, ``MTG`` and ``MTg`` are three.
    """
    text = str(name).strip()
    upper = text.upper()
    tests = (
        ontology["structure_id"].astype(str) == text,
        ontology["acronym"] == text,
        ontology["acronym"].str.upper() == upper,
        ontology["name"].map(sideless).str.upper() == upper,
        ontology["name"].str.upper() == upper,
    )
    for test in tests:
        if text and test.any():
            return _one_structure(ontology[test], text)
    known = {str(key).upper(): str(key) for key in (*ontology["acronym"], *ontology["name"])}
    close = difflib.get_close_matches(upper, known, n=3)
    suggested = f"; nearest are {', '.join(repr(known[key]) for key in close)}" if close else ""
    raise RequestError(f"There is no structure {text!r}{suggested}.")


def _one_structure(found: "pd.DataFrame", text: str) -> "pd.DataFrame":
    """The rows, unless two are of one hemisphere: a structure has one of each at most."""
    if not found["hemisphere"].duplicated().any():
        return found
    meant = {row.acronym: sideless(row.name) for row in found[["acronym", "name"]].itertuples(index=False)}
    listed = ", ".join(f"{acronym!r} ({name})" for acronym, name in meant.items())
    raise RequestError(f"{text!r} may be {listed}: write one of these.")


def described(found: "pd.DataFrame") -> str:
    """A structure for people: ``CA1 (CA1 field)``; with its hemisphere if it is of one only."""
    row = found.iloc[0]
    return f"{row['acronym']} ({row['name'] if len(found) == 1 else sideless(row['name'])})"


def with_descendants(ontology: "pd.DataFrame", found: "pd.DataFrame") -> NDArray[np.integer]:
    """Ids of structures and of all that they consist of."""
    ids = {str(structure) for structure in found["structure_id"]}
    below = [not ids.isdisjoint(path.split("/")) for path in ontology["structure_id_path"]]
    chosen: NDArray[np.integer] = ontology["structure_id"].to_numpy()[below]
    return chosen
