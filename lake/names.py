"""Which probes a person means by a gene symbol, an Entrez id, a probe id or a probe name.

A probe has two symbols: the one published in 2013 and the one that Arnatkeviciute et al. (2019, NeuroImage
189:353) found by mapping its sequence anew. A symbol that is known to both is the gene of the annotation in
use; one of the other annotation only, or in other letters, is taken for what it stands for, and that is said.
"""

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lake.errors import RequestError
from lake.store import Lake

Integers = NDArray[np.integer]
Strings = NDArray[np.str_]
Genes = str | int | Sequence[str | int]

N_SUGGESTIONS = 3
PREFIXES = ("probe", "entrez")
NUMBER = re.compile("[0-9]{1,18}")  # what an int64 holds; str.isdigit takes superscripts too
ANNOTATIONS = {True: "re-annotated", False: "published"}


@dataclass(frozen=True)
class Resolved:
    """Probes that were asked for.

    Attributes
    ----------
    rows : (probe,) int array
        Positions on the ``probe`` axis: in the order asked for, each once.
    notes : tuple of str
        A sentence for each name that was taken for another.
    """

    rows: Integers
    notes: tuple[str, ...]


def resolve(store: Lake, genes: Genes, *, reannotated: bool = True) -> Resolved:
    """Find the probes of genes.

    Parameters
    ----------
    store : Lake
    genes : str, int, or a sequence of them
        Gene symbols; Entrez ids or probe ids (numbers, or text of digits; ``entrez:6750`` and
        ``probe:1058685`` where a number is both); names of probes (``A_23_P20713``).
    reannotated : bool
        Whether a gene's probes are those that the re-annotation gives it, or those published as its own.

    Returns
    -------
    Resolved

    Raises
    ------
    RequestError
        If a name is unknown (the nearest known ones are named), a number is both a probe's and an Entrez
        id, or no gene is named.
    """
    asked = [genes] if isinstance(genes, str | int | np.integer) else list(genes)
    if not asked:
        raise RequestError("No gene is named: give at least one symbol, Entrez id or probe id.")
    found = [_resolve_one(store, str(name).strip(), reannotated) for name in asked]
    rows = np.concatenate([one.rows for one in found])
    _, first = np.unique(rows, return_index=True)
    return Resolved(rows[np.sort(first)], tuple(note for one in found for note in one.notes))


def _resolve_one(store: Lake, name: str, reannotated: bool) -> Resolved:
    prefix, mark, number = name.rpartition(":")
    if (prefix in PREFIXES or not mark) and NUMBER.fullmatch(number):
        return _by_number(store, name, int(number), (prefix,) if mark else PREFIXES, reannotated)
    return _by_name(store, name, reannotated)


# ---- numbers ----


def _by_number(store: Lake, name: str, number: int, kinds: Sequence[str], reannotated: bool) -> Resolved:
    probes = _rows(store.probe_columns(["probe_id"])["probe_id"] == number) if "probe" in kinds else _NONE
    genes = _by_entrez(store, number, reannotated) if "entrez" in kinds else Resolved(_NONE, ())
    if len(probes) and len(genes.rows):
        raise RequestError(f"{name} is a probe id and an Entrez id: write probe:{number} or entrez:{number}.")
    if not len(probes) and not len(genes.rows):
        what = " or ".join({"probe": "probe id", "entrez": "Entrez id"}[kind] for kind in kinds)
        raise RequestError(f"No probe has the {what} {number}: try the gene's symbol.")
    return Resolved(probes, ()) if len(probes) else genes


def _by_entrez(store: Lake, number: int, reannotated: bool) -> Resolved:
    chosen, other = (_column("entrez_id", flag) for flag in (reannotated, not reannotated))
    columns = store.probe_columns([chosen, other])
    rows = _rows(columns[chosen] == number)
    if len(rows):
        return Resolved(rows, ())
    return _renamed(store, f"Entrez id {number}", _rows(columns[other] == number), reannotated)


# ---- names ----


def _by_name(store: Lake, name: str, reannotated: bool) -> Resolved:
    if not name:  # a probe without a gene has no symbol, and is not meant
        raise RequestError("There is no gene '': name at least one.")
    chosen, other = (_symbols(store, flag) for flag in (reannotated, not reannotated))
    exact = _rows(chosen == name)
    if len(exact):
        return Resolved(exact, ())
    # A probe without a gene was published under its own name: it is meant, not the gene it has since.
    probe_names = store.probe_columns(["probe_name"])["probe_name"]
    probes = _rows(probe_names == name)
    if len(probes):
        return Resolved(probes, ())
    renamed = _rows(other == name)
    if len(renamed):
        return _renamed(store, name, renamed, reannotated)
    for names in (chosen, other, probe_names):
        same = np.unique(names[np.strings.upper(names) == name.upper()])
        if len(same):
            spelled = _by_name(store, str(same[0]), reannotated)
            return Resolved(spelled.rows, (f"{name} is taken for {same[0]}.", *spelled.notes))
    raise RequestError(f"There is no gene {name!r}{_suggested(name, (*chosen, *other))}.")


def _renamed(store: Lake, name: str, rows: Integers, reannotated: bool) -> Resolved:
    """All the probes of the genes which the probes at `rows` have in the annotation in use."""
    if not len(rows):
        return Resolved(_NONE, ())
    this, that = ANNOTATIONS[reannotated], ANNOTATIONS[not reannotated]
    symbols = _symbols(store, reannotated)
    now = [str(symbol) for symbol in np.unique(symbols[rows]) if symbol]
    if not now:
        raise RequestError(
            f"{name} is {that}, and none of its {len(rows)} probes has a {this} gene: "
            f"choose reannotated={not reannotated} (--{'no-' if reannotated else ''}reannotated)."
        )
    note = f"{name} is the {that} name of probes whose {this} gene is {', '.join(now)}."
    return Resolved(_rows(np.isin(symbols, np.array(now, dtype=symbols.dtype))), (note,))


def _suggested(name: str, known: Iterable[str]) -> str:
    """The end of a message: the nearest known names, whatever their letters."""
    by_letters = {str(symbol).upper(): str(symbol) for symbol in known if symbol}
    near = difflib.get_close_matches(name.upper(), by_letters, n=N_SUGGESTIONS)
    return f"; nearest are {', '.join(by_letters[symbol] for symbol in near)}" if near else ""


def _symbols(store: Lake, reannotated: bool) -> Strings:
    column = _column("gene_symbol", reannotated)
    return store.probe_columns([column])[column]


def _column(name: str, reannotated: bool) -> str:
    return f"reannotated_{name}" if reannotated else name


def _rows(mask: NDArray[np.bool_]) -> Integers:
    return np.flatnonzero(mask)


_NONE: Integers = np.empty(0, dtype=np.intp)
