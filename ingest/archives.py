"""Archives and images that were fetched: reading them through, and unpacking them safely.

What came may be truncated, damaged or hostile. An archive is judged as a whole before any of it is
unpacked; it is unpacked into ``<folder>.part``, every checksum compared, and that folder renamed.
"""

import errno
import gzip
import re
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from ingest.errors import DamagedError, RefusedError
from ingest.published import MIB, Limits

_CHUNK = 128 * 1024


def check_image(path: Path, limits: Limits) -> None:
    """Read a gzipped NIfTI through: its checksum, and a header of the right length.

    Raises
    ------
    DamagedError
        If it is damaged or truncated.
    RefusedError
        If it holds something else, or unpacks to more than ``limits.entry`` bytes.
    """
    try:
        with gzip.open(path) as image:
            header = image.read(4)
            copy_bounded(image, None, limits.entry)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DamagedError(f"the gzip file is damaged or truncated ({error})") from error
    if not {int.from_bytes(header, "little"), int.from_bytes(header, "big")} & {348, 540}:
        raise RefusedError("the gzip file holds no NIfTI image: try again later")


def copy_bounded(source: IO[bytes] | gzip.GzipFile, sink: IO[bytes] | None, bound: int) -> int:
    """Copy what a stream really yields, whatever it declared, and count it.

    Parameters
    ----------
    source : file
    sink : file or None
        None only counts.
    bound : int
        Bytes there may be.

    Returns
    -------
    int
        Bytes copied.

    Raises
    ------
    RefusedError
        If there are more than ``bound``.
    """
    done = 0
    while chunk := source.read(_CHUNK):
        done += len(chunk)
        if done > bound:
            raise RefusedError(f"unpacking yields more than the {bound:,} bytes there may be")
        if sink is not None:
            sink.write(chunk)
    return done


# What zipfile raises for broken input, beside its own error.
_BROKEN_ARCHIVE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, NotImplementedError)


def unpack(archive: Path, target: Path, *, members: Sequence[str], limits: Limits) -> None:
    """Unpack into ``<target>.part``, checking every checksum, and rename that folder.

    Parameters
    ----------
    archive : pathlib.Path
    target : pathlib.Path
        Folder to make; files may lie in a folder of that name in the archive, or in none.
    members : sequence of str
        Names of the files the archive must hold.
    limits : Limits

    Raises
    ------
    DamagedError
        If the archive is damaged or truncated.
    RefusedError
        If it is not the published one, or is hostile; nothing is unpacked then.
    OSError
        If the disk does not take it.
    """
    scratch = target.with_name(f"{target.name}.part")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        with zipfile.ZipFile(archive) as bundle:
            files = _checked_entries(bundle.infolist(), target.name, members, limits)
            _check_space(scratch, sum(entry.file_size for entry in files.values()))
            for name, entry in files.items():
                _unpack_entry(bundle, entry, scratch / name)
        scratch.rename(target)
    except _BROKEN_ARCHIVE as error:
        raise DamagedError(f"the zip file is damaged or truncated ({error})") from error
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise DamagedError("the zip file is damaged (it points to before its beginning)") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _unpack_entry(bundle: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> None:
    with bundle.open(entry) as source, path.open("xb") as sink:
        size = copy_bounded(source, sink, entry.file_size)
    if size != entry.file_size:
        raise zipfile.BadZipFile(f"{entry.filename!r} ends at byte {size:,} of {entry.file_size:,}")


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(errno.ENOSPC, f"Unpacking needs {needed:,} bytes, {free:,} are free", str(folder))


def _checked_entries(
    entries: Sequence[zipfile.ZipInfo], folder: str, members: Sequence[str], limits: Limits
) -> dict[str, zipfile.ZipInfo]:
    """File name -> entry, for an archive in which all of the entries are beyond reproach."""
    if len(entries) > limits.entries:
        raise RefusedError(f"the zip file has {len(entries):,} entries, more than {limits.entries}")
    for entry in entries:
        _check_entry(entry, folder, limits)
    if sum(entry.file_size for entry in entries) > limits.unpacked:
        raise RefusedError(f"the zip file unpacks to more than {limits.unpacked:,} bytes")
    files = {_basename(entry): entry for entry in entries if not _is_folder(entry)}
    # On some file systems names that differ in case only are one file.
    if len({name.casefold() for name in files}) < sum(not _is_folder(entry) for entry in entries):
        raise RefusedError("the zip file holds two files of the same name")
    missing = [name for name in members if name not in files]
    if missing:
        raise RefusedError(f"the zip file lacks {', '.join(missing)}: it is not the published one")
    return files


def _check_entry(entry: zipfile.ZipInfo, folder: str, limits: Limits) -> None:
    reasons = [reason for reason, is_so in _ENTRY_REFUSALS.items() if is_so(entry)]
    if _is_nested(entry, folder):
        reasons.append("lies in a folder of its own")
    if entry.file_size > limits.entry:
        reasons.append(f"unpacks to more than {limits.entry:,} bytes")
    if entry.file_size > max(limits.ratio * entry.compress_size, MIB):
        reasons.append("is packed too densely to be data")
    if reasons:
        raise RefusedError(f"the zip file's entry {entry.orig_filename!r} {reasons[0]}, nothing was unpacked")


def _basename(entry: zipfile.ZipInfo) -> str:
    return entry.filename.rsplit("/", 1)[-1]


def _is_folder(entry: zipfile.ZipInfo) -> bool:
    """As ``ZipInfo.is_dir``, which fails on an empty name."""
    return entry.filename.endswith("/")


def _is_climbing(entry: zipfile.ZipInfo) -> bool:
    return bool({".", ".."} & set(entry.filename.split("/")))


def _is_foreign(entry: zipfile.ZipInfo) -> bool:
    """Backslashes and drive letters mean folders elsewhere; zipfile cuts names at a NUL."""
    return re.search(r'[\x00-\x1f\x7f\\:*?"<>|]', entry.orig_filename) is not None


def _is_nested(entry: zipfile.ZipInfo, folder: str) -> bool:
    """Whether it lies deeper than in the one folder an archive of that name may hold."""
    parent, separator, _ = entry.filename.rpartition("/")
    return bool(separator) and parent != folder


def _is_special(entry: zipfile.ZipInfo) -> bool:
    """Whether its Unix mode says symbolic link, device, .. (no mode at all is a file from elsewhere)."""
    kind = stat.S_IFMT(entry.external_attr >> 16)
    return kind not in (0, stat.S_IFDIR if _is_folder(entry) else stat.S_IFREG)


_ENTRY_REFUSALS: dict[str, Callable[[zipfile.ZipInfo], bool]] = {
    "has no name": lambda entry: not entry.filename,
    "is encrypted": lambda entry: bool(entry.flag_bits & 0x1),
    "has an absolute name": lambda entry: entry.filename.startswith("/"),
    "leads out of the folder": _is_climbing,
    "has characters no file name should have": _is_foreign,
    "is not a regular file": _is_special,
    "is packed by a method the published files do not use": lambda entry: (
        entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    ),
}
