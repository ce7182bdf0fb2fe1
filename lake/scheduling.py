"""Where a run's tasks are carried out: threads of this process, or workers of a dask.distributed cluster."""

import asyncio
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import dask
import dask.threaded
from dask.utils import format_bytes
from threadpoolctl import threadpool_limits

from lake.errors import RequestError, RunError

INSTALL = "pip install 'ahba-lake[distributed]'"
PATIENCE = 10  # seconds for a scheduler to answer
GOES_ON = "What is whole stays, the same run goes on from there."
TLS_FILES = ("ca_file", "cert", "key")


def _silent(_text: str) -> None:
    pass


@contextmanager
def scheduled(
    scheduler: Any = None,
    *,
    workers: int,
    tls: Mapping[str, str] | None = None,
    memory_limit: int | None = None,
    say: Callable[[str], None] = _silent,
) -> Iterator[bool]:
    """Inside this block dask's tasks go to the scheduler.

    Parameters
    ----------
    scheduler : None, str or distributed.Client
        None for threads; or the address of a scheduler, or a client of one, see `connect`.
    workers : int
        Threads.
    tls : mapping of str to str, optional
        Files for a scheduler named by its address: ``ca_file``, ``cert`` and ``key`` of `connect`.
    memory_limit : int, optional
        Bytes that a person allows; a warning says so if a cluster's workers may take more.
    say : callable
        Told the address of a cluster's dashboard.

    Yields
    ------
    bool
        Whether it is this process that does the work.

    Raises
    ------
    RequestError
        If dask.distributed is not installed, or nothing answers at the address.
    RunError
        If the cluster is lost at work.
    """
    if scheduler is None:
        # The workers are threads already: BLAS with threads of its own would have them wait for each other.
        # Dask's scheduler itself, not its name, for which Dask would import distributed: 0.1 s.
        # One pool: dask would start one more for each thread that computes something.
        with (
            ThreadPoolExecutor(workers, thread_name_prefix="worker") as pool,
            dask.config.set(scheduler=dask.threaded.get, num_workers=workers, pool=pool),
            threadpool_limits(1, "blas"),
        ):
            yield True
        return
    with _unlogged(), ExitStack() as stack:
        client = scheduler
        if isinstance(scheduler, str | Path):
            client = stack.enter_context(connect(str(scheduler), **(tls or {})))
        stack.enter_context(_working(client))
        _introduce(client, memory_limit, say)
        yield False


def _introduce(client: Any, memory_limit: int | None, say: Callable[[str], None]) -> None:
    """Say where the cluster's dashboard is, and what of its workers a person may not expect."""
    with suppress(KeyError):  # a scheduler without one
        say(f"Dashboard: {client.dashboard_link}")
    workers = client.scheduler_info()["workers"].values()
    if not workers:
        warnings.warn(
            f"The scheduler at {address_of(client)} has no worker yet; the run waits.", stacklevel=2
        )
    elif memory_limit is not None:
        warn_of_memory([worker["memory_limit"] for worker in workers], memory_limit)


def warn_of_memory(workers: Sequence[int | None], memory_limit: int) -> None:
    """Warn if workers may take more than a person allows: a limit is this process's, theirs are their own.

    Parameters
    ----------
    workers : sequence of int or None
        Each worker's limit in bytes; None or 0 is none.
    memory_limit : int
        Bytes.
    """
    limits = [limit for limit in workers if limit]
    unlimited = len(workers) - len(limits)
    if unlimited:
        may_take = f"of the cluster's {len(workers)} workers {unlimited} may take any amount"
    elif sum(limits) > memory_limit:
        may_take = f"the cluster's {len(workers)} workers may take {format_bytes(sum(limits))} together"
    else:
        return
    warnings.warn(
        f"memory_limit bounds this process to {format_bytes(memory_limit)}, and {may_take}: "
        "start them with a memory limit of their own.",
        stacklevel=2,
    )


@contextmanager
def _working(client: Any) -> Iterator[None]:
    """Send dask's tasks to the client's scheduler; a cluster that is lost is told in a sentence."""
    from distributed import KilledWorker
    from distributed.client import FutureCancelledError
    from distributed.comm.core import CommClosedError

    # Workers under a nanny, Dask's default, have one BLAS thread each; so reductions here are the same too.
    with client.as_current(), dask.config.set(scheduler=client), threadpool_limits(1, "blas"):
        address = address_of(client)  # which the client forgets when it gives the scheduler up
        try:
            yield
        except KilledWorker as error:
            lost = f"The workers of {address} were lost (KilledWorker): see their logs; often memory"
            raise RunError(f"{lost} was short. {GOES_ON}") from error
        except (CommClosedError, FutureCancelledError) as error:
            lost = f"The scheduler at {address} was lost ({type(error).__name__}): see its log."
            raise RunError(f"{lost} {GOES_ON}") from error


@contextmanager
def _unlogged() -> Iterator[None]:
    """Keep distributed from logging, with a traceback, the loss that is told in a sentence."""
    with suppress(ImportError):  # it sets up its logs; that it lacks is told elsewhere
        import distributed  # noqa: F401
    logs = [logging.getLogger(name) for name in ("distributed", "distributed.client")]
    handlers = {handler for log in logs for handler in log.handlers}
    for handler in handlers:
        handler.addFilter(_is_news)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    return record.name != "distributed.client" and not record.exc_info


def address_of(scheduler: Any) -> str | None:
    """The address of a scheduler, which may be given as a client; None without one."""
    if scheduler is None or isinstance(scheduler, str | Path):
        return None if scheduler is None else str(scheduler)
    return str(scheduler.scheduler.address if scheduler.scheduler else "the scheduler")


def connect(
    address: str,
    *,
    ca_file: str | Path | None = None,
    cert: str | Path | None = None,
    key: str | Path | None = None,
) -> Any:
    """A client of a running scheduler.

    Parameters
    ----------
    address : str
        ``tcp://host:8786``, or ``tls://host:8786`` with the files below.
    ca_file, cert, key : str or path, optional
        TLS: files with the certificates of the authority, and of this client with its key. All of them, or
        none: then those of dask's own configuration, if it has any.

    Returns
    -------
    distributed.Client
        To be closed, or used in a ``with`` block.

    Raises
    ------
    RequestError
        If dask.distributed is not installed, a file is missing, or nothing answers at the address.
    """
    try:
        from distributed import Client
    except ImportError:
        raise RequestError(f"A scheduler needs dask.distributed: {INSTALL}.") from None
    given = {"ca_file": ca_file, "cert": cert, "key": key}
    security = _security(address, {name: str(file) for name, file in given.items() if file is not None})
    _refuse_silence(address, security)
    return Client(address, security=security, timeout=PATIENCE, set_as_default=False)


def check_tls(address: str, files: Mapping[str, str], *, prefix: str = "") -> None:
    """See that the files of a connection are there, all of them, and the address asks for them.

    Parameters
    ----------
    address : str
    files : mapping of str to str
        ``ca_file``, ``cert``, ``key``; those that are not named are missing.
    prefix : str
        What goes before these names where a person writes them.

    Raises
    ------
    RequestError
    """
    ca_file, cert, key = (f"{prefix}{name}" for name in TLS_FILES)
    for name in TLS_FILES:
        file = files.get(name)
        if file is None or not Path(file).is_file():
            what = "is missing" if file is None else f"is {file}, which is no file"
            raise RequestError(f"TLS needs {ca_file}, {cert} and {key}, and {prefix}{name} {what}: give it.")
    if not address.startswith("tls://"):
        raise RequestError(
            f"{ca_file}, {cert} and {key} go with an address that begins with tls://, not {address}."
        )


def _security(address: str, files: Mapping[str, str]) -> Any:
    from distributed import Security

    if not files:
        return Security()
    check_tls(address, files)
    return Security(
        tls_ca_file=files["ca_file"],
        tls_client_cert=files["cert"],
        tls_client_key=files["key"],
        require_encryption=True,
    )


def _refuse_silence(address: str, security: Any) -> None:
    """See that a scheduler answers; a client that finds none would go on trying when it is thrown away."""
    try:
        with ThreadPoolExecutor(1) as elsewhere:  # a notebook's own event loop is at work here
            elsewhere.submit(asyncio.run, _knock(address, security)).result()
    # What distributed makes of a wrong address:
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise RequestError(
            f"No scheduler answers at {address} ({_reason(error)}); `dask scheduler` starts one, "
            "`dask worker ADDRESS` its workers. One with TLS needs tls://, ca_file, cert and key."
        ) from None


def _reason(error: Exception) -> str:
    """What distributed says, without the sockets."""
    return str(error).rpartition(">: ")[2] or type(error).__name__


async def _knock(address: str, security: Any) -> None:
    from distributed.comm.core import connect as reach

    comm = await reach(address, timeout=PATIENCE, **security.get_connection_args("client"))
    await comm.close()
