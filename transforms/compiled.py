"""The kernels in C of this room, where the install has built them; None where NumPy is to do their work."""

from importlib import import_module
from types import ModuleType


def _built(module: str) -> ModuleType | None:
    try:
        return import_module(f"transforms.{module}")
    except ImportError:  # there was no C compiler
        return None


kernels = _built("_compiled")
places = _built("_places")
scores = _built("_scores")
scaling = _built("_scaling")
