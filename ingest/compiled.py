"""The kernels in C of this room, where the install has built them; None where NumPy is to do their work."""

from importlib import import_module
from types import ModuleType


def _built() -> ModuleType | None:
    try:
        return import_module("ingest._compiled")
    except ImportError:  # there was no C compiler
        return None


kernels = _built()
