"""Folders that are written whole or not at all."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LEFTOVER = re.compile(r"\..+\.(\d+)\.wip")


@contextmanager
def folder_aside(target: Path) -> Iterator[Path]:
    """Give an empty folder beside `target` to fill; it becomes `target` if all went well, else it is removed.

    Where another process was first, its folder stays. What killed processes left beside it is cleared.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _clear_leftovers(target)
    aside = target.with_name(f".{target.name}.{os.getpid()}.wip")
    aside.mkdir()
    try:
        yield aside
        if not target.exists():
            aside.rename(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _clear_leftovers(target: Path) -> None:
    for path in target.parent.glob(f".{target.name}.*.wip"):
        writer = LEFTOVER.fullmatch(path.name)
        if writer and (int(writer[1]) == os.getpid() or not Path(f"/proc/{writer[1]}").exists()):
            shutil.rmtree(path, ignore_errors=True)
