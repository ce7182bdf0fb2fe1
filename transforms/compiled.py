"""The kernels in C of this room, where the install has built them; None where NumPy is to do their work."""

import os
from importlib import import_module
from types import ModuleType


def _built() -> ModuleType | None:
    if os.environ.get("AHBA_KERNELS") == "numpy":
        return None
    try:
        return import_module("transforms._compiled")
    except ImportError:  # there was no C compiler
        return None


kernels = _built()
