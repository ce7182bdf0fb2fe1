"""Reductions: what a run keeps of each region x gene table where the table itself is too much.

A multiverse of 746,496 pipelines asks for a few numbers of each. A reduction is a function of a table and its
regions, with parameters; it has a name, which its results are filed under, and an identity, so that what is
already there is found again. `REDUCTIONS` has those known by name; a person's own function is as good.
"""

import functools
import hashlib
import importlib
import inspect
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from lake.atlas_spec import NAME
from lake.errors import RequestError
from transforms.analyses import (
    MODULE_COLUMNS,
    coexpression_distance_correlation,
    component_map_correlation,
    module_numbers,
    module_silhouette,
)
from transforms.errors import ChoiceError
from transforms.pipeline import suggest

Result: TypeAlias = float | Mapping[str, float] | pd.DataFrame
Pairs: TypeAlias = tuple[tuple[Any, Any], ...]
Function: TypeAlias = Callable[..., Result]

CENTROID = ["centroid_x", "centroid_y", "centroid_z"]
MAP_COLUMNS = ("region", "value")
LONGEST_SHOWN = 32  # a parameter of more values is described by its hash


@dataclass(frozen=True)
class Reduction:
    """A function of a region x gene table, with its parameters. `reduction` makes one.

    Attributes
    ----------
    name : str
        What its results are filed under.
    function : callable
        ``function(table, regions, **parameters)``, see `reduction`. Picklable: it has a name in a module.
    parameters : tuple of (str, value)
        By name; values are numbers, text, None, or tuples of these.
    """

    name: str
    function: Function
    parameters: tuple[tuple[str, Any], ...] = ()

    def __call__(self, table: pd.DataFrame, regions: pd.DataFrame) -> dict[str, float] | pd.DataFrame:
        """Reduce a table.

        Parameters
        ----------
        table : (region, gene) pandas.DataFrame
            Index: region ids. Columns: gene symbols.
        regions : pandas.DataFrame
            ``region``, ``label``, ``hemisphere``, ``structure``, ``centroid_x/y/z`` in mm, ``n_nodes``.

        Returns
        -------
        dict of str to float, or pandas.DataFrame
            One number is under the reduction's name, several are under ``name_key``; a table is as the
            function gave it: numbers, rows and columns each with a name of its own.

        Raises
        ------
        RequestError
            If the function gave something else.
        ChoiceError
            If the parameters do not fit the table.
        """
        return _checked(self.name, self.function(table, regions, **dict(self.parameters)))

    @functools.cached_property
    def description(self) -> dict[str, Any]:
        """Name, function, source of a person's own function, and parameters, as JSON can hold them."""
        described = {
            "name": self.name,
            "function": f"{self.function.__module__}:{self.function.__qualname__}",
            "parameters": {name: _shown(value) for name, value in self.parameters},
        }
        return described if self.function in REDUCTIONS.values() else described | _source(self.function)

    @functools.cached_property
    def identity(self) -> str:
        """12 hex digits; other results have another.

        A person's own function is known by its source; what it calls is not looked at.
        """
        return _sha256(self.description)[:12]


ReductionLike: TypeAlias = str | Function | Reduction


# Those known by name ----------------------------------------------------------------------------------------


def cge_distance(table: pd.DataFrame, regions: pd.DataFrame) -> float:
    """Spearman's correlation of coexpression with the distance between centroids: CGE of Markello et al."""
    return coexpression_distance_correlation(table, regions.set_index("region")[CENTROID])


def gene_modules(
    table: pd.DataFrame,
    _regions: pd.DataFrame,
    *,
    modules: Pairs,
    drop_smallest: int = 0,
    shared: str = "sum",
) -> float:
    """Mean silhouette of modules of genes: GCE of Markello et al., who drop the smallest 7."""
    return module_silhouette(table, _numbers(modules, drop_smallest, shared))


def map_correlation(table: pd.DataFrame, regions: pd.DataFrame, *, region_map: Pairs) -> float:
    """|Spearman's correlation| of the first component with a map of the regions: RGE of Markello et al."""
    values = pd.Series(dict(region_map), dtype=np.float64)
    unknown = values.index.difference(regions["region"])
    if len(unknown):
        raise ChoiceError(f"region_map has region {unknown[0]}, which the atlas lacks: give the atlas's map.")
    return component_map_correlation(table, values)


def shape(table: pd.DataFrame, _regions: pd.DataFrame) -> dict[str, float]:
    """How many regions the table has, how many with values, and how many genes."""
    filled = int(table.notna().any(axis=1).sum())
    return {"regions": len(table), "regions_with_values": filled, "genes": table.shape[1]}


REDUCTIONS: Mapping[str, Function] = {
    "cge_distance": cge_distance,
    "gene_modules": gene_modules,
    "map_correlation": map_correlation,
    "shape": shape,
}
"""Name -> reduction."""


@functools.lru_cache(maxsize=8)
def _numbers(modules: Pairs, drop_smallest: int, shared: str) -> pd.Series:
    return module_numbers(
        pd.DataFrame(modules, columns=MODULE_COLUMNS), drop_smallest=drop_smallest, shared=shared
    )


# Making one -------------------------------------------------------------------------------------------------


def reduction(function: str | Function, *, name: str | None = None, **parameters: Any) -> Reduction:
    """Name a reduction and give it its parameters.

    Parameters
    ----------
    function : str or callable
        A name of `REDUCTIONS`, or a function of one's own, ``function(table, regions, **parameters)``: a
        region x gene table (index: region ids) and the table of regions (``region``, ``label``,
        ``hemisphere``, ``structure``, ``centroid_x/y/z`` in mm) -> a number, a dict of numbers or a small
        DataFrame of numbers. It is defined with def in a module or a script, so that workers find it.
    name : str, optional
        What results are filed under; the function's name if left out.
    **parameters
        Of the function: numbers, text, None, or lists of these. Also, for ``gene_modules``, ``modules``: a
        CSV or a DataFrame of gene_symbol, module; or a dict of module to genes. For ``map_correlation``,
        ``region_map``: a CSV or a DataFrame of region, value; or a Series or dict by region id.

    Returns
    -------
    Reduction

    Raises
    ------
    RequestError
        If there is none of that name, the function has no name of its own, or a parameter is unknown, missing
        or none that can be told from another.

    Examples
    --------
    >>> reduction("gene_modules", modules={"a": ["SST", "VIP"], "b": ["MOG", "MBP"]}).name
    'gene_modules'
    """
    if isinstance(function, str):
        function = _known(function)
    _check_findable(function)
    called = name or function.__name__
    _check_name(called)
    known = function in REDUCTIONS.values()
    prepare = _PREPARED if known else {}
    prepared = {key: prepare.get(key, _plain)(key, value) for key, value in parameters.items()}
    _check_parameters(function, called, prepared)
    if not known:
        _source(function)
    return Reduction(called, function, tuple(sorted(prepared.items())))


def reductions_from(reduce: ReductionLike | Iterable[ReductionLike] | None) -> tuple[Reduction, ...]:
    """Whatever a caller of `lake.run` names: none, one, or several reductions.

    Raises
    ------
    RequestError
        As `reduction`, or if two have one name.
    """
    if reduce is None:
        return ()
    several = [reduce] if isinstance(reduce, str | Reduction) or callable(reduce) else [*reduce]
    made = tuple(one if isinstance(one, Reduction) else reduction(one) for one in several)
    names = [one.name for one in made]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise RequestError(
            f"Two reductions are named {repeated[0]!r}: name one, lake.reduction(.., name='another')."
        )
    return made


def import_function(named: str) -> Function:
    """The function that ``package.module:function`` names. This runs the module; ask first.

    Raises
    ------
    RequestError
        If there is none.
    """
    module, colon, attribute = named.partition(":")
    if not colon or not all(part.isidentifier() for part in [*module.split("."), attribute]):
        raise RequestError(f"{named!r} names no function: write package.module:function.")
    try:
        function = getattr(importlib.import_module(module), attribute, None)
    except ImportError as error:
        raise RequestError(
            f"{named!r} cannot be imported: {error}; install its package, or add its folder to PYTHONPATH."
        ) from None
    except Exception as error:  # whatever somebody's module raises
        raise RequestError(f"{named!r} cannot be imported: {type(error).__name__}: {error}.") from error
    if not inspect.isfunction(function):
        raise RequestError(f"{named!r} is no function of that module: define {attribute} there with def.")
    return function


# Parameters that are tables ---------------------------------------------------------------------------------


def _module_pairs(name: str, given: Any) -> Pairs:
    """(gene symbol, module), sorted."""
    if isinstance(given, Mapping):
        pairs = [(str(gene), str(module)) for module, genes in given.items() for gene in genes]
    else:
        frame = _frame(name, given, MODULE_COLUMNS).dropna()
        pairs = [*zip(frame["gene_symbol"].astype(str), frame["module"].astype(str), strict=True)]
    return tuple(sorted(set(pairs)))


def _map_pairs(name: str, given: Any) -> Pairs:
    """(region id, value), by region."""
    if isinstance(given, Mapping | pd.Series):
        given = pd.DataFrame([*given.items()], columns=[*MAP_COLUMNS])
    frame, where = _frame(name, given, MAP_COLUMNS).dropna(), _where(name, given)
    try:
        numbers = frame.astype(np.float64)
    except (ValueError, TypeError):
        raise RequestError(f"{where}: regions and values are numbers, and one is not: correct it.") from None
    regions = numbers["region"]
    if wrong := [*regions[(regions % 1 != 0) | regions.duplicated()]]:
        raise RequestError(f"{where}: region {wrong[0]:g} is no whole number, or there twice: correct it.")
    return tuple(sorted(zip(regions.astype(np.int64).tolist(), numbers["value"].tolist(), strict=True)))


_PREPARED: Mapping[str, Callable[[str, Any], Any]] = {"modules": _module_pairs, "region_map": _map_pairs}
TABLE_PARAMETERS = frozenset(_PREPARED)
"""Parameters of `REDUCTIONS` that are tables, and may be files."""


def _frame(name: str, given: Any, columns: Sequence[str]) -> pd.DataFrame:
    where, wanted = _where(name, given), ", ".join(columns)
    if isinstance(given, str | Path):
        given = _read_csv(Path(given), wanted)
    if not isinstance(given, pd.DataFrame):
        raise RequestError(f"{where}: a CSV or a DataFrame of {wanted} is needed.")
    if lacking := [column for column in columns if column not in given]:
        raise RequestError(f"{where} lacks column {lacking[0]}: {wanted} are needed.")
    return given[[*columns]]


def _where(name: str, given: Any) -> str:
    """What a message calls a table: its file, if it has one."""
    return str(given) if isinstance(given, str | Path) else name


def _read_csv(path: Path, wanted: str) -> pd.DataFrame:
    try:
        # "NA" and "None" may be names; an empty cell is none.
        return pd.read_csv(path, keep_default_na=False, na_values=[""])
    except OSError as error:
        raise RequestError(f"{path}: {error.strerror or error}; give a CSV of {wanted}.") from None
    except (ValueError, pd.errors.ParserError) as error:
        raise RequestError(f"{path} is no CSV of {wanted}: {error}".rstrip() + ".") from None


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str | int | float | None):
        return value
    if isinstance(value, list | tuple):
        return tuple(_plain(name, one) for one in value)
    raise RequestError(f"Parameter {name} is a {type(value).__name__}: give numbers, text or lists of these.")


# Checks -----------------------------------------------------------------------------------------------------


def _known(name: str) -> Function:
    if name not in REDUCTIONS:
        raise RequestError(f"There is no reduction {name!r}{suggest(name, REDUCTIONS)}.")
    return REDUCTIONS[name]


def _check_findable(function: Any) -> None:
    if not inspect.isfunction(function) or "<" in function.__qualname__:
        raise RequestError(f"{function!r} has no name of its own to find it by: give a function made by def.")


def _check_name(name: str) -> None:
    if not re.fullmatch(NAME, name):
        raise RequestError(
            f"{name!r} cannot name a reduction: begin with a letter or digit, and use only these, '.', '_' "
            "and '-', at most 100."
        )


def _check_parameters(function: Function, name: str, parameters: Mapping[str, Any]) -> None:
    try:
        inspect.signature(function).bind(None, None, **parameters)
    except TypeError as error:
        raise RequestError(f"Reduction {name!r} cannot be called: {error}.") from None


def _source(function: Function) -> dict[str, str]:
    try:
        return {"source_sha256": hashlib.sha256(inspect.getsource(function).encode()).hexdigest()}
    except (OSError, TypeError):
        raise RequestError(
            f"The source of {function.__qualname__} cannot be read, and its results not be told from another "
            "version's: define it in a file."
        ) from None


def _checked(name: str, result: Any) -> dict[str, float] | pd.DataFrame:
    if isinstance(result, pd.DataFrame) and _is_small_table(result):
        return result
    if isinstance(result, Real):
        return {name: float(result)}
    if isinstance(result, Mapping) and all(isinstance(value, Real) for value in result.values()):
        return {f"{name}_{key}": float(value) for key, value in result.items()}
    raise RequestError(
        f"Reduction {name!r} gave a {type(result).__name__}: have it return a number, a dict of numbers, "
        "or a DataFrame of numbers whose rows and columns have names of their own."
    )


def _is_small_table(table: pd.DataFrame) -> bool:
    numbers = all(pd.api.types.is_numeric_dtype(kind) for kind in table.dtypes)
    return numbers and table.index.is_unique and table.columns.is_unique


def _shown(value: Any) -> Any:
    if isinstance(value, tuple) and len(value) > LONGEST_SHOWN:
        return {"length": len(value), "sha256": _sha256(value)}
    return [_shown(one) for one in value] if isinstance(value, tuple) else value


def _sha256(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
