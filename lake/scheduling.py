"""Where a run's tasks are carried out: threads of this process, or workers of a dask.distributed cluster."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dask

from lake.errors import RequestError

INSTALL = "pip install 'ahba-lake[distributed]'"


@contextmanager
def scheduled(scheduler: Any = None, *, workers: int) -> Iterator[bool]:
    """Inside this block dask's tasks go to the scheduler.

    Parameters
    ----------
    scheduler : None, str or distributed.Client
        None for threads; or the address of a scheduler, or a client of one.
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
    """
    if scheduler is None:
        with dask.config.set(scheduler="threads", num_workers=workers):
            yield True
    elif isinstance(scheduler, str):
        with connect(scheduler) as client, client.as_current(), dask.config.set(scheduler=client):
            yield False
    else:
        with scheduler.as_current(), dask.config.set(scheduler=scheduler):
            yield False


def connect(
    address: str, *, ca_file: str | None = None, cert: str | None = None, key: str | None = None
) -> Any:
    """A client of a running scheduler.

    Parameters
    ----------
    address : str
        ``tcp://host:8786``, or ``tls://host:8786`` with the files below.
    ca_file, cert, key : str, optional
        TLS: the certificates of the authority, and of this client with its key.

    Returns
    -------
    distributed.Client

    Raises
    ------
    RequestError
        If dask.distributed is not installed, or nothing answers at the address.
    """
    try:
        from distributed import Client, Security
    except ImportError:
        raise RequestError(f"A scheduler needs dask.distributed: {INSTALL}.") from None
    security = None
    if ca_file or cert or key:
        security = Security(
            tls_ca_file=ca_file, tls_client_cert=cert, tls_client_key=key, require_encryption=True
        )
    try:
        return Client(address, security=security, timeout="10s", set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise RequestError(
            f"No scheduler answers at {address} ({error}); start one with `dask scheduler`, and its workers "
            "with `dask worker ADDRESS`."
        ) from None
