"""Sets of choices as files: TOML of a pipeline, CSV of a re-annotation."""

import tomllib
from pathlib import Path
from typing import Any

from ingest.reannotations import read_reannotation as read_table
from lake.errors import RequestError
from transforms.errors import ChoiceError
from transforms.pipeline import Pipeline
from transforms.reannotation import Reannotation

MOST_BYTES = 1 << 20  # a set of choices is a page


def read_reannotation(path: str | Path) -> Reannotation:
    """Read a re-annotation of one's own, for ``Pipeline(reannotated=..)``.

    Parameters
    ----------
    path : str or pathlib.Path
        CSV with the columns ``probe_name``, ``gene_symbol`` and ``entrez_id``.

    Raises
    ------
    ingest.errors.InputError
        With every wrong cell and its line.
    ChoiceError
        If rows contradict each other.
    """
    return Reannotation.from_table(read_table(path), name=str(path))


def read_pipeline(path: str | Path) -> Pipeline:
    """Read a set of choices that `Pipeline.to_toml` wrote, or a person.

    Parameters
    ----------
    path : str or pathlib.Path
        TOML: choices under their names, and perhaps ``preset``, whose choices they change. A re-annotation
        that ``reannotated`` names is sought from the file's own folder.

    Raises
    ------
    RequestError
        If the file is missing or no text.
    ChoiceError
        If a choice is unknown or wrong; the message names the file.
    """
    path = Path(path)
    text = read_toml_text(path, "choices")
    try:
        return Pipeline.from_toml(text, reannotation=lambda name: read_reannotation(path.parent / name))
    except ChoiceError as error:
        raise ChoiceError(f"{path}: {error}") from None


def read_choices(path: str | Path) -> dict[str, Any]:
    """Read what such a file states, perhaps a ``preset``; the choices that it leaves open are not there.

    Parameters
    ----------
    path : str or pathlib.Path
        As for `read_pipeline`.

    Returns
    -------
    dict
        For `Pipeline.from_choices`.

    Raises
    ------
    RequestError, ChoiceError
        As `read_pipeline`.
    """
    pipeline = read_pipeline(path)
    stated = tomllib.loads(read_toml_text(Path(path), "choices"))
    return {name: vars(pipeline).get(name, value) for name, value in stated.items()}


def read_toml_text(path: Path, what: str) -> str:
    """The text of a small file that a person wrote.

    Raises
    ------
    RequestError
        If the file is missing, too large or no text.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(MOST_BYTES + 1)
        text = content.decode()
    except OSError as error:
        raise RequestError(f"{path}: {error.strerror or error}; give a TOML file of {what}.") from None
    except UnicodeDecodeError:
        raise RequestError(f"{path}: this is no text; give a TOML file of {what}.") from None
    if len(content) > MOST_BYTES:
        raise RequestError(f"{path}: larger than 1 MiB; this is no file of {what}.")
    return text
