"""Packages that only some people need: imported where they are used, an install line where they lack."""

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from lake.errors import RequestError


def needed(package: str, purpose: str, extra: str) -> ModuleType:
    """Import a package of an extra.

    Parameters
    ----------
    package : str
        Its name, as it is imported.
    purpose : str
        What it is needed for, as the message begins.
    extra : str
        The extra of ours that brings it.

    Raises
    ------
    RequestError
        If it is not installed.
    """
    if find_spec(package) is None:
        raise RequestError(f"{purpose} needs {package}: pip install 'ahba-lake[{extra}]'")
    return import_module(package)
