"""Published files -> store: first the donors' microarray, then their RNA-seq, one transaction each."""

from collections.abc import Sequence
from pathlib import Path

from ingest.reference import donors as published_donors
from ingest.sources import DonorFiles, donor_order, find_donors, find_rnaseq
from lake.errors import RequestError
from lake.microarray_ingestion import ingest_microarray
from lake.rnaseq_ingestion import ingest_rnaseq
from lake.transactions import KINDS, Ingested, Progress, only_writer

__all__ = ["KINDS", "Ingested", "ingest_directory"]


def ingest_directory(
    source: str | Path,
    store: str | Path,
    *,
    donors: str | Sequence[str] = "all",
    what: Sequence[str] = KINDS,
    replace: bool = False,
    progress: Progress | None = None,
) -> list[Ingested]:
    """Bring the donors found below `source` into `store`, each in a transaction of its own.

    Parameters
    ----------
    source : str or pathlib.Path
        What ``ahba fetch`` or ``ahba simulate`` left, abagen's data directory, or zips.
    store : str or pathlib.Path
        A local directory; made if it is not there.
    donors : "all" or sequence of str
        Donor numbers or uids.
    what : sequence of {"microarray", "rnaseq"}
        What to take of what is there. A donor's RNA-seq needs the donor's microarray in the store, or in
        `source`.
    replace : bool
        Whether a donor whose published files changed is written anew; otherwise it is refused.
    progress : callable, optional
        Called with (donor, bytes done, bytes in all).

    Returns
    -------
    list of Ingested
        First every donor's microarray, then RNA-seq.

    Raises
    ------
    InputError
        If a file is wrong; the donors before it are in, the store is otherwise as it was.
    RequestError
        If a donor is not in `source`, its files changed and `replace` is False, or there is RNA-seq of a
        donor without microarray.
    StoreError
        If another ingest is at work on the store.
    """
    microarray, rnaseq = _found(Path(source), what, donors)
    path = Path(store)
    if "://" in str(store):
        raise RequestError(
            f"{store}: stores are written to local or shared disks; copy the finished one there."
        )
    path.mkdir(parents=True, exist_ok=True)
    with only_writer(path):
        done = ingest_microarray(path, microarray, replace, progress or _silent)
        return done + [ingest_rnaseq(path, files, replace, progress or _silent) for files in rnaseq]


def _silent(_label: str, _done: int, _total: int) -> None:
    pass


def _found(
    source: Path, what: Sequence[str], donors: str | Sequence[str]
) -> tuple[list[DonorFiles], list[DonorFiles]]:
    """The chosen donors' microarray files, and their RNA-seq files."""
    if unknown := [kind for kind in what if kind not in KINDS]:
        raise RequestError(f"what: {', '.join(unknown)} is unknown; choose of {', '.join(KINDS)}.")
    asked = _numbers(donors)
    rnaseq = find_rnaseq(source, required="microarray" not in what, only=asked) if "rnaseq" in what else {}
    microarray = find_donors(source, required=not rnaseq, only=asked) if "microarray" in what else {}
    found = sorted({**microarray, **rnaseq}, key=donor_order)
    if asked is not None and (unknown := sorted(asked - set(found))):
        raise RequestError(f"Donor {', '.join(unknown)} is not in the source; it has {', '.join(found)}.")
    numbers = [donor for donor in found if asked is None or donor in asked]
    return (
        [microarray[donor] for donor in numbers if donor in microarray],
        [rnaseq[donor] for donor in numbers if donor in rnaseq],
    )


def _numbers(donors: str | Sequence[str]) -> set[str] | None:
    """Donor numbers from numbers or uids; None for all donors."""
    if donors == "all":
        return None
    uids = dict(zip(published_donors()["uid"], published_donors().index, strict=True))
    return {str(uids.get(donor, donor)) for donor in ([donors] if isinstance(donors, str) else donors)}
