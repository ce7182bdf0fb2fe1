"""Folders that are written whole or not at all."""

import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path

from lake.tables import is_running

LEFTOVER = re.compile(r"\.[^/]+\.(\d+)\.wip")
HOST = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())


@contextmanager
def folder_aside(target: Path) -> Iterator[Path]:
    """Give an empty folder beside `target` to fill; it becomes `target` if all went well, else it is removed.

    Where another process was first, its folder stays. What killed processes of this machine left beside it is
    cleared; of those of another one sharing the disk nobody knows here whether they are at work.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _clear_leftovers(target)
    aside = target.with_name(f".{target.name}.{HOST}.{os.getpid()}.wip")
    aside.mkdir()
    try:
        yield aside
        try:
            aside.rename(target)
        except OSError:
            if not target.exists():
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _clear_leftovers(target: Path) -> None:
    for path in target.parent.glob(f".{escape(target.name)}.{HOST}.*.wip"):
        writer = LEFTOVER.fullmatch(path.name)
        if writer and (int(writer[1]) == os.getpid() or not is_running(int(writer[1]))):
            shutil.rmtree(path, ignore_errors=True)
