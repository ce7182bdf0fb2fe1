"""One run at a time in a directory of tables, whichever process or host it is of."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from lake.errors import RunError
from lake.tables import failures_named

LOCK = ".lock"


@contextmanager
def only_run(out: Path) -> Iterator[None]:
    """Hold the directory's lock; the system frees it when the process ends, however it ends.

    So whatever this run finds there that is half written was left by one that is dead. The directory is made,
    and is gone again if nothing was put into it.

    Raises
    ------
    RunError
        If another run holds it.
    """
    out.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(out / LOCK)
    try:
        with failures_named(out / LOCK):
            lock.acquire(timeout=0)
    except filelock.Timeout:
        raise RunError(
            f"{out}: another run is at work on these tables; wait for it to end, or write elsewhere."
        ) from None
    try:
        yield
    finally:
        (out / LOCK).unlink(missing_ok=True)  # while it is held: whoever waits sees that it is gone
        lock.release()
        with suppress(OSError):
            out.rmdir()
