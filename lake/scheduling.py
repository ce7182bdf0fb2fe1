"""Where a run's tasks are carried out: threads of this process, or workers of a dask.distributed cluster."""

import asyncio
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
from threadpoolctl import threadpool_limits

from lake.errors import RequestError, RunError

INSTALL = "pip install 'ahba-lake[distributed]'"
PATIENCE = 10  # seconds for a scheduler to answer


@contextmanager
def scheduled(scheduler: Any = None, *, workers: int) -> Iterator[bool]:
    """Inside this block dask's tasks go to the scheduler.

    Parameters
    ----------
    scheduler : None, str or distributed.Client
        None for threads; or the address of a scheduler, or a client of one, see `connect`.
    workers : int
        Threads.

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
        with dask.config.set(scheduler="threads", num_workers=workers), threadpool_limits(1, "blas"):
            yield True
    elif isinstance(scheduler, str | Path):
        with connect(str(scheduler)) as client, _working(client):
            yield False
    else:
        with _working(scheduler):
            yield False


@contextmanager
def _working(client: Any) -> Iterator[None]:
    """Send dask's tasks to the client's scheduler; a cluster that is lost is told in a sentence."""
    from distributed import KilledWorker
    from distributed.client import FutureCancelledError
    from distributed.comm.core import CommClosedError

    if not client.nthreads():
        warnings.warn(f"The scheduler at {_address(client)} has no worker yet; the run waits.", stacklevel=2)
    # Workers under a nanny, Dask's default, have one BLAS thread each; so reductions here are the same too.
    with client.as_current(), dask.config.set(scheduler=client), threadpool_limits(1, "blas"):
        try:
            yield
        except (CommClosedError, FutureCancelledError, KilledWorker) as error:
            raise RunError(
                f"The workers of {_address(client)} were lost ({type(error).__name__}): see their logs; "
                "often memory was short. What is whole stays, the same run goes on from there."
            ) from error


def _address(client: Any) -> str:
    return str(client.scheduler.address if client.scheduler else "the scheduler")


def connect(
    address: str, *, ca_file: str | None = None, cert: str | None = None, key: str | None = None
) -> Any:
    """A client of a running scheduler.

    Parameters
    ----------
    address : str
        ``tcp://host:8786``, or ``tls://host:8786`` with the files below.
    ca_file, cert, key : str, optional
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
    security = _security(address, ca_file, cert, key)
    _refuse_silence(address, security)
    return Client(address, security=security, timeout=PATIENCE, set_as_default=False)


def _security(address: str, ca_file: str | None, cert: str | None, key: str | None) -> Any:
    from distributed import Security

    files = {"ca_file": ca_file, "cert": cert, "key": key}
    if not any(files.values()):
        return Security()
    for name, file in files.items():
        if file is None or not Path(file).is_file():
            what = "is missing" if file is None else f"is {file}, which is no file"
            raise RequestError(f"TLS needs ca_file, cert and key, and {name} {what}: give it.")
    if not address.startswith("tls://"):
        raise RequestError(
            f"ca_file, cert and key go with an address that begins with tls://, not {address}."
        )
    return Security(
        tls_ca_file=str(ca_file), tls_client_cert=str(cert), tls_client_key=str(key), require_encryption=True
    )


def _refuse_silence(address: str, security: Any) -> None:
    """See that a scheduler answers; a client that finds none would go on trying when it is thrown away."""
    try:
        with ThreadPoolExecutor(1) as elsewhere:  # a notebook's own event loop is at work here
            elsewhere.submit(asyncio.run, _knock(address, security)).result()
    except (
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:  # what distributed makes of a wrong address
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
