"""What several test modules do with files, stores and the command."""

import csv
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from ingest.sources import MICROARRAY_FILES
from lake.ingestion import ingest_directory
from transforms import compiled
from transforms.atlas import Atlas

DONORS = ("9861", "10021", "12876")
METADATA = Path(__file__).parents[1].parent / "shared" / "ahba-metadata"
needs_metadata = pytest.mark.skipif(not METADATA.is_dir(), reason="the true AHBA metadata are not here")


def donor_folder(directory: Path, donor: str) -> Path:
    return directory / f"normalized_microarray_donor{donor}"


def tree(path: Path, *, ignoring: Sequence[str] = (".lock", "run.json")) -> dict[str, bytes]:
    """Every file below a directory, by its relative name."""
    return {
        file.relative_to(path).as_posix(): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.name not in ignoring
    }


def rewrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Change a file's bytes."""
    path.write_bytes(change(path.read_bytes()))


@contextmanager
def damaged(path: Path, damage: Callable[[Path], object]) -> Iterator[None]:
    """Damage a file for a while."""
    original = path.read_bytes()
    damage(path)
    try:
        yield
    finally:
        path.write_bytes(original)


def lines_changed(path: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    """Change a file's lines; each comes with its end."""
    rewrite(path, lambda data: b"".join(change(data.splitlines(keepends=True))))


def read_matrix(path: Path) -> dict[int, list[float]]:
    """A published matrix by Python's own csv and float: probe id -> values."""
    with path.open(newline="") as stream:
        return {int(row[0]): [float(cell) for cell in row[1:]] for row in csv.reader(stream)}


def read_rows(path: Path) -> list[dict[str, str]]:
    """A published table by Python's own csv."""
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def zip_donor(folder: Path, archive: Path, names: Sequence[str] = MICROARRAY_FILES) -> None:
    """Put a donor's files into a zip as they are published: without a folder."""
    import zipfile

    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
        for name in names:
            target.write(folder / name, name)


def store_beside(files: Path, name: str = "ahba.zarr", **chosen: Any) -> Path:
    """Make a store of the files of a directory, next to it."""
    path = files.with_name(name)
    ingest_directory(files, path, **chosen)
    return path


def octants(name: str = "octants", *, first: int = 1) -> Atlas:
    """A coarse atlas of the MNI152 box: eight regions, one an octant."""
    return Atlas.from_volume(octants_image(first=first), name=name)


def octants_image(*, first: int = 1) -> nibabel.Nifti1Image:
    """Eight labels on a 4 mm grid over the MNI152 box."""
    shape, step = (46, 55, 46), 4.0
    affine = np.diag([step, step, step, 1.0])
    affine[:3, 3] = (-90, -126, -72)
    x, y, z = (np.arange(n) * step + start > 0 for n, start in zip(shape, (-90, -126, -72), strict=True))
    labels = first + x[:, None, None] + 2 * y[None, :, None] + 4 * z[None, None, :]
    return nibabel.Nifti1Image(labels.astype(np.int16), affine)


def ahba(*arguments: object, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, as a person on a narrow terminal would."""
    return subprocess.run(
        command_line(*arguments),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, "COLUMNS": "80", "TERM": "dumb"},
    )


def command_line(*arguments: object) -> list[str]:
    return [sys.executable, "-W", "error", "-c", "from lake.cli import main; main()", *map(str, arguments)]


def called(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The command in this process, which is quicker than one of its own."""
    import lake.cli

    words = [str(argument) for argument in arguments]
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as out:
        patch.setattr(sys, "argv", ["ahba", *words])
        patch.setenv("COLUMNS", "80")
        with redirect_stderr(StringIO()) as err, pytest.raises(SystemExit) as stop:
            lake.cli.main()
    return subprocess.CompletedProcess(words, int(stop.value.code or 0), out.getvalue(), err.getvalue())


def works(*arguments: object) -> str:
    """What the command prints, which ends well."""
    done = called(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def fits(text: str) -> None:
    """Tables are no wider than a narrow terminal; sentences wrap by themselves."""
    rows = [line for line in text.splitlines() if line.startswith(" ")]
    assert rows
    assert max(map(len, rows)) <= 80


def without_kernels(patch: pytest.MonkeyPatch) -> None:
    """Have the transforms work as where there is no C compiler."""
    for name in ("kernels", "places", "scaling", "scores"):
        patch.setattr(compiled, name, None)
