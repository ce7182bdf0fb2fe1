"""What a run is to make, where, and with what: one request, whether Python, the command or a file asks.

It is checked when it is made, so that nothing starts that cannot end well.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypedDict, Unpack

from lake.errors import RequestError
from lake.grids import LeftOut
from lake.reductions import Reduction, ReductionLike, reductions_from
from lake.resources import Resources
from lake.scheduling import check_tls
from transforms.atlas import Atlas
from transforms.atlas_set import AnyAtlas, AtlasSet
from transforms.pipeline import Pipeline

AtlasLike = str | Path | Atlas | AtlasSet | Callable[[], AnyAtlas]


class Means(TypedDict, total=False):
    """What a run takes, see `Batch`."""

    workers: int | None
    memory_limit: str | int | None
    scheduler: Any
    tls_ca_file: str | Path | None
    tls_cert: str | Path | None
    tls_key: str | Path | None


class _Plain(Means, total=False):
    """Options that are kept as they are given."""

    donor_tables: bool


class Options(_Plain, total=False):
    """What may be said of a batch besides its atlases, its pipelines and its directory, see `Batch`."""

    reduce: ReductionLike | Iterable[ReductionLike] | None
    keep_tables: bool | None


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Many atlases and many pipelines: what is made of them, where, and with which resources.

    Attributes
    ----------
    atlases : sequence of str, path, Atlas, AtlasSet or callable
        As `lake.expression` takes them; what is not loaded yet is when its turn comes, a callable by calling
        it.
    pipelines : sequence of Pipeline
        A tuple, a `lake.grid`, or both joined; not necessarily listed.
    out : pathlib.Path
        Directory of the Parquet tables, see ``docs/tables.md``.
    donor_tables : bool
        Whether each donor's own region x gene tables are written too.
    reduce : tuple of Reduction
        Functions of each region x gene table.
    keep_tables : bool
        Whether the region x gene tables are written; by default if nothing is to be made of them.
    workers : int or None
        Threads; None is as many as there are cores.
    memory_limit : str, int or None
        What the process may take, such as ``"1GB"``; None is a good half of the machine's, or its
        container's.
    scheduler : str, distributed.Client or None
        A dask.distributed cluster whose workers do the work, ``tcp://host:8786``; None is this process.
    tls_ca_file, tls_cert, tls_key : str, path or None
        For an address that begins with ``tls://``, as `lake.connect` takes them.
    store : str
        Path or URL, where a file says it; else "".
    left_out : tuple of LeftOut
        Combinations of a file's grid that make no pipeline of their own.

    Raises
    ------
    RequestError
        If it makes no sense.
    """

    atlases: Sequence[AtlasLike]
    pipelines: Sequence[Pipeline]
    out: Path
    donor_tables: bool = False
    reduce: tuple[Reduction, ...] = ()
    keep_tables: bool = True
    workers: int | None = None
    memory_limit: str | int | None = None
    scheduler: Any = None
    tls_ca_file: str | Path | None = None
    tls_cert: str | Path | None = None
    tls_key: str | Path | None = None
    store: str = ""
    left_out: tuple[LeftOut, ...] = ()

    @classmethod
    def of(
        cls,
        atlases: Iterable[AtlasLike],
        pipelines: Iterable[Pipeline] | None = None,
        *,
        out: str | Path,
        reduce: ReductionLike | Iterable[ReductionLike] | None = None,
        keep_tables: bool | None = None,
        **options: Unpack[_Plain],
    ) -> Self:
        """Batch of what a person writes: one pipeline, abagen's, if none; reductions by name, or one alone.

        Raises
        ------
        RequestError
            If it makes no sense.
        """
        reductions = reductions_from(reduce)
        return cls(
            atlases=_listed(atlases),
            pipelines=(Pipeline(),) if pipelines is None else _sequence(pipelines),
            out=Path(out),
            reduce=reductions,
            keep_tables=not reductions if keep_tables is None else keep_tables,
            **options,
        )

    def __post_init__(self) -> None:
        for check in (_check_atlases, _check_pipelines, _check_out, _check_tables, _check_cluster):
            check(self)

    @property
    def resources(self) -> Resources:
        """What the run may take, of this machine; RequestError if that is no amount, or too little."""
        return Resources.of(workers=self.workers, memory_limit=self.memory_limit)

    @property
    def tls(self) -> dict[str, str]:
        """The files of the connection, as `lake.connect` takes them; empty without."""
        files = {"ca_file": self.tls_ca_file, "cert": self.tls_cert, "key": self.tls_key}
        return {name: str(file) for name, file in files.items() if file is not None}


def _listed(atlases: Iterable[AtlasLike]) -> Sequence[AtlasLike]:
    if isinstance(atlases, str | Path | Atlas | AtlasSet) or not isinstance(atlases, Iterable):
        raise RequestError("`atlases` is a list of atlases: put this one into brackets, [..].")
    return _sequence(atlases)


def _sequence(given: Iterable[Any]) -> Sequence[Any]:
    """What need not be listed stays as it is."""
    return given if isinstance(given, Sequence) else tuple(given)


def _check_atlases(batch: Batch) -> None:
    if not batch.atlases:
        raise RequestError("There is no atlas to run: name at least one.")


def _check_pipelines(batch: Batch) -> None:
    if not len(batch.pipelines):
        raise RequestError("There is no pipeline to run: name at least one set of choices.")


def _check_out(batch: Batch) -> None:
    if re.match(r"[a-zA-Z][\w+.-]+:/", str(batch.out)):  # pathlib has made one slash of two
        raise RequestError(f"{batch.out}: tables are written to local or shared disks; name a directory.")


def _check_tables(batch: Batch) -> None:
    if batch.keep_tables:
        return
    if not batch.reduce:
        raise RequestError("keep_tables=False keeps nothing without `reduce`: name a reduction.")
    if batch.donor_tables:
        raise RequestError("donor_tables=True writes tables, which keep_tables=False does not: choose one.")


def check_cluster(scheduler: Any, tls: Mapping[str, str]) -> None:
    """See that the files of a TLS connection go with a cluster's address.

    Parameters
    ----------
    scheduler : str, distributed.Client or None
    tls : mapping of str to str
        As `Batch.tls`.

    Raises
    ------
    RequestError
    """
    if not tls:
        return
    if not isinstance(scheduler, str):
        raise RequestError("tls_ca_file, tls_cert and tls_key go with a scheduler at tls://..: name it.")
    check_tls(scheduler, tls, prefix="tls_")


def _check_cluster(batch: Batch) -> None:
    check_cluster(batch.scheduler, batch.tls)
