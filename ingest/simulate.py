"""Simulated donors in the published format, for tests, examples and trying things out.

Allen Institute data may not be passed on; this writes files of the same form and size that may. Whatever is
copied out of them still says that it is simulated: every ``gene_name`` begins with the word, so does the name
of every invented structure, and the Readme.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ingest.errors import InputError
from ingest.reference import donors as donor_facts
from ingest.simulated_anatomy import DONORS, BoolArray, IntArray, Samples, anatomy, simulated_samples
from ingest.simulated_probes import (
    DECIMALS,
    MARK,
    PUBLISHED_PROBES,
    DonorSignal,
    donor_signal,
    simulated_probes,
    simulated_signal,
)
from ingest.simulated_rnaseq import RNASEQ_DONORS, rnaseq_files, simulated_genes
from ingest.sources import MICROARRAY_FILES, RNASEQ_FILES, SourceFile, donor_order
from ingest.tables import read_ontology, read_samples

Progress = Callable[[str, int, int], None]

FEWEST_PROBES = 10
MOST_SCALE = 1000  # 3.7 million samples; new wells of ten times as many would be numbered twice
_BLOCK = 512
_README_START = "SIMULATED by ahba-lake"
_README = f"""{_README_START}: these files are made up, for testing and trying things out.
They have the form of the Allen Human Brain Atlas (normalized microarray), but hold no measurement of any
brain. Well ids and places are those of true samples (corrected MNI coordinates, alleninf), probe names
mostly true ones (re-annotation, Arnatkeviciute et al. 2019); every expression value is invented.
donor {{donor}}, {{n_probes}} probes, {{n_samples}} samples, seed {{seed}}
"""
_CONTENTS = f"""{_README_START}: these files are made up, for testing and trying things out.
They have the form of the Allen Human Brain Atlas (RNA-seq), but hold no measurement of any brain.
Every name of a sample or run begins with "simulated"; gene symbols and Entrez ids are mostly true ones.
donor {{donor}}, seed {{seed}}
"""
# The text that says so, and the files it stands for.
_README_NAMES = {"Readme.txt": MICROARRAY_FILES, "Contents.txt": RNASEQ_FILES}


def simulate(
    directory: Path,
    *,
    probes: int = PUBLISHED_PROBES,
    donors: Sequence[str] | Literal["all"] = "all",
    samples_scale: float = 1.0,
    seed: int = 0,
    metadata: Path | None = None,
    rnaseq: bool = False,
    progress: Progress | None = None,
) -> list[Path]:
    """Write simulated microarray files of some donors, in the published format.

    The same arguments give the same bytes, and a donor's bytes do not depend on which others are asked for.

    Parameters
    ----------
    directory : pathlib.Path
        Where ``normalized_microarray_donor<ID>`` folders go; simulated ones there are replaced.
    probes : int
        Number of probes, 10 to 58,692. With fewer than all, whole genes are left out.
    donors : sequence of str or "all"
        Donor numbers or uids, e.g. "9861" or "H0351.2001".
    samples_scale : float
        Samples of a donor as a multiple of the published number, at most 1,000. Wells beyond the true ones
        (scale above 1) get ids from 200,000,001 on and have no corrected coordinates.
    seed : int
        Not negative.
    metadata : pathlib.Path, optional
        Folder with true ``normalized_microarray_donor<ID>/SampleAnnot.csv`` and an ``Ontology.csv`` (there,
        or beside each SampleAnnot.csv), to be taken byte for byte instead of simulated ones.
    rnaseq : bool
        Write ``rnaseq_donor<ID>`` folders, too, for those of donors 9861 and 10021 that are asked for.
    progress : callable, optional
        Called with donor, rows done and rows in all after each block.

    Returns
    -------
    list of pathlib.Path
        The microarray folders, in ascending donor number, then those of RNA-seq.

    Raises
    ------
    InputError
        If an argument makes no sense, metadata are missing, or a folder to be written holds files that are
        not simulated.

    Notes
    -----
    abagen 0.1.3 reads these files only at full size (it fails where a re-annotated probe is missing) and
    without new wells (unless told not to correct coordinates).
    """
    chosen = _chosen_donors(donors)
    _check(probes, samples_scale, seed, metadata)
    published = {donor: _metadata_files(metadata, donor) for donor in chosen if metadata is not None}
    folders = [directory / f"normalized_microarray_donor{donor}" for donor in chosen]
    sequenced = _sequenced(directory, chosen) if rnaseq else {}
    for folder in folders:
        _refuse_real(folder, "Readme.txt")
    for folder in sequenced.values():
        _refuse_real(folder, "Contents.txt")
    made_up = simulated_probes(probes, seed)
    signal = simulated_signal(made_up, seed)
    probes_csv = _probes_csv(made_up.table)
    identifiers = made_up.table["probe_id"].to_numpy(np.int64)
    for donor, folder in zip(chosen, folders, strict=True):
        if donor in published:
            samples, files = _published_samples(published[donor])
        else:
            samples, files = _invented_samples(donor, samples_scale, seed)
        readme = _README.format(donor=donor, n_probes=probes, n_samples=len(samples.annotation), seed=seed)
        own_signal = donor_signal(signal, donor, samples)
        _begin(folder, "Readme.txt", readme)
        _write_tables(folder, {"Probes.csv": probes_csv, **files})
        _write_matrices(folder, identifiers, own_signal, progress)
        if donor in sequenced:
            genes = simulated_genes(made_up, signal.level, seed)
            _begin(sequenced[donor], "Contents.txt", _CONTENTS.format(donor=donor, seed=seed))
            ontology = {"Ontology.csv": files["Ontology.csv"]}
            _write_tables(sequenced[donor], rnaseq_files(genes, own_signal, samples, seed) | ontology)
    return folders + list(sequenced.values())


def is_simulated(probes: pd.DataFrame) -> bool:
    """Whether a table of probes comes from `simulate`.

    Parameters
    ----------
    probes : pandas.DataFrame
        With the column ``gene_name`` of Probes.csv.

    Returns
    -------
    bool
        True if there are probes and every ``gene_name`` begins with "simulated".
    """
    names = probes["gene_name"].astype(str)
    return len(names) > 0 and bool(names.str.startswith(MARK).all())


def _chosen_donors(donors: Sequence[str] | Literal["all"]) -> list[str]:
    """Donor numbers, ascending, of numbers and uids."""
    numbers = {uid: number for number, uid in donor_facts()["uid"].items()} | {name: name for name in DONORS}
    names = list(DONORS) if donors == "all" else [donors] if isinstance(donors, str) else list(donors)
    unknown = [str(name) for name in names if name not in numbers]
    if unknown or not names:
        valid = ", ".join(sorted(numbers, key=donor_order))
        raise InputError(f"donors: {', '.join(unknown) or 'none given'}; choose from {valid}, or 'all'.")
    return sorted({numbers[name] for name in names}, key=donor_order)


def _check(probes: int, samples_scale: float, seed: int, metadata: Path | None) -> None:
    if not FEWEST_PROBES <= probes <= PUBLISHED_PROBES:
        raise InputError(f"probes: {probes}; choose a number from {FEWEST_PROBES} to {PUBLISHED_PROBES}.")
    if not 0 < samples_scale <= MOST_SCALE:
        raise InputError(
            f"samples_scale: {samples_scale}; choose a number above 0 and at most {MOST_SCALE:,}, 1 is the "
            "published size."
        )
    if seed < 0:
        raise InputError(f"seed: {seed}; choose a whole number from 0 on.")
    if metadata is not None and samples_scale != 1:
        raise InputError("samples_scale: metadata are taken as they are; leave it at 1, or give no metadata.")


def _sequenced(directory: Path, chosen: Sequence[str]) -> dict[str, Path]:
    """Where the RNA-seq of each donor goes that has some."""
    folders = {donor: directory / f"rnaseq_donor{donor}" for donor in chosen if donor in RNASEQ_DONORS}
    if not folders:
        raise InputError(f"rnaseq: only donors {' and '.join(RNASEQ_DONORS)} have it; choose one of them.")
    return folders


def _metadata_files(metadata: Path, donor: str) -> dict[str, Path]:
    folder = metadata / f"normalized_microarray_donor{donor}"
    places = {
        "SampleAnnot.csv": [folder / "SampleAnnot.csv"],
        "Ontology.csv": [folder / "Ontology.csv", metadata / "Ontology.csv"],
    }
    found = {name: next((p for p in paths if p.is_file()), None) for name, paths in places.items()}
    for name, path in found.items():
        if path is None:
            raise InputError(f"metadata: {' and '.join(map(str, places[name]))}: no such file; put it there.")
    return {name: path for name, path in found.items() if path is not None}


def _published_samples(files: dict[str, Path]) -> tuple[Samples, dict[str, bytes]]:
    """Samples of true metadata, and the bytes of their files."""
    ontology = read_ontology(SourceFile(files["Ontology.csv"])).frame
    annotation = read_samples(SourceFile(files["SampleAnnot.csv"]), ontology).frame
    published, corrected = (
        annotation[[f"{prefix}mni_{axis}" for axis in "xyz"]].to_numpy(np.float64)
        for prefix in ("", "corrected_")
    )
    coordinates = np.where(np.isnan(corrected), published, corrected)
    samples = Samples(annotation, coordinates, annotation["structure"].to_numpy(object))
    return samples, {name: path.read_bytes() for name, path in files.items()}


def _invented_samples(donor: str, samples_scale: float, seed: int) -> tuple[Samples, dict[str, bytes]]:
    """Samples around the true wells, and the bytes of their files."""
    samples = simulated_samples(donor, scale=samples_scale, seed=seed)
    return samples, {
        "SampleAnnot.csv": _sample_annot_csv(samples.annotation),
        "Ontology.csv": anatomy().ontology.to_csv(index=False, lineterminator="\n").encode(),
    }


def _sample_annot_csv(annotation: pd.DataFrame) -> bytes:
    """As published: header and text quoted, MNI coordinates with one decimal."""
    quoted = annotation.rename(columns=lambda name: f'"{name}"').astype(object)
    for name, values in annotation.items():
        if pd.api.types.is_numeric_dtype(values):
            quoted[f'"{name}"'] = values.astype(str)
        else:
            quoted[f'"{name}"'] = '"' + values.astype(str) + '"'
    return _lines([list(quoted.columns), *quoted.to_numpy(object).tolist()])


def _probes_csv(table: pd.DataFrame) -> bytes:
    """As published: text quoted, but not the header and the chromosome."""
    columns = {name: table[name].astype(str) for name in table}
    for name in ("probe_name", "gene_symbol", "gene_name"):
        columns[name] = '"' + columns[name] + '"'
    return _lines([list(columns), *zip(*columns.values(), strict=True)])


def _lines(rows: Sequence[Sequence[str]]) -> bytes:
    return "".join(f"{','.join(row)}\n" for row in rows).encode()


def _refuse_real(folder: Path, readme_name: str) -> None:
    """Never write over measured data."""
    readme = folder / readme_name
    there = [name for name in _README_NAMES[readme_name] if (folder / name).exists()]
    if there and not (readme.is_file() and readme.read_bytes().startswith(_README_START.encode())):
        raise InputError(f"{folder}: {there[0]} there is not simulated; choose another directory.")


def _begin(folder: Path, readme_name: str, readme: str) -> None:
    """Empty the folder of former simulated files, and mark it before any other file is there."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in _README_NAMES[readme_name]:
        (folder / name).unlink(missing_ok=True)
    with _whole_file(folder / readme_name) as stream:
        stream.write(readme.encode())


def _write_tables(folder: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        with _whole_file(folder / name) as stream:
            stream.write(data)


def _write_matrices(folder: Path, probe_ids: IntArray, donor: DonorSignal, progress: Progress | None) -> None:
    """Draw and write expression and detection, some probes at a time."""
    n_probes = len(probe_ids)
    with ExitStack() as stack:
        expression_file, detected_file = (
            stack.enter_context(_whole_file(folder / name))
            for name in ("MicroarrayExpression.csv", "PACall.csv")
        )
        for first in range(0, n_probes, _BLOCK):
            stop = min(first + _BLOCK, n_probes)
            expression, detected = donor.block(first, stop)
            expression_file.write(expression_lines(probe_ids[first:stop], expression))
            detected_file.write(detected_lines(probe_ids[first:stop], detected))
            if progress is not None:
                progress(donor.donor, stop, n_probes)


@contextmanager
def _whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Write under another name; the file has its own name only once it is whole."""
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as stream:
            yield stream
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    part.replace(path)


def _digits(patterns: Iterable[str], dtype: str) -> NDArray[np.generic]:
    """Texts of equal length as numbers of the same bytes, to be looked up; "~" will be left out."""
    return np.frombuffer("".join(patterns).replace("~", "\0").encode(), dtype)


# A value ",12.3456789012" in four pieces of 4, 4, 4 and 2 bytes, each looked up among all it can be.
_WHOLE = _digits((f",{n:2d}.".replace(" ", "~") for n in range(100)), "u4")
_FOUR = _digits((f"{n:04d}" for n in range(10_000)), "u4")
_TWO = _digits((f"{n:02d}" for n in range(100)), "u2")
_VALUE = np.dtype([("whole", "u4"), ("first", "u4"), ("second", "u4"), ("last", "u2")])
_CALL = _digits((",0", ",1"), "u2")


def expression_lines(probe_ids: IntArray, expression: IntArray) -> bytes:
    """Lines of MicroarrayExpression.csv.

    Parameters
    ----------
    probe_ids : numpy.ndarray of int, shape (probe,)
    expression : numpy.ndarray of int64, shape (probe, sample)
        In units of 1e-10, from 0 to below 100.

    Returns
    -------
    bytes
        ``probe_id,value,value,..`` with ten decimals, one line a probe.
    """
    upper, lower = _divide(expression, 10 ** (DECIMALS - 4))
    whole, first = _divide(upper.astype(np.uint32), 10**4)
    second, last = _divide(lower.astype(np.uint32), 10**2)
    buffer, cells = _line_buffer(probe_ids, expression.shape[1], _VALUE)
    cells["whole"], cells["first"] = _WHOLE[whole], _FOUR[first]
    cells["second"], cells["last"] = _FOUR[second], _TWO[last]
    return buffer.tobytes().translate(None, b"\0")


def detected_lines(probe_ids: IntArray, detected: BoolArray) -> bytes:
    """Lines of PACall.csv.

    Parameters
    ----------
    probe_ids : numpy.ndarray of int, shape (probe,)
    detected : numpy.ndarray of bool, shape (probe, sample)

    Returns
    -------
    bytes
        ``probe_id,0,1,..``, one line a probe.
    """
    buffer, cells = _line_buffer(probe_ids, detected.shape[1], _CALL.dtype)
    cells[...] = _CALL[detected.view(np.uint8)]
    return buffer.tobytes().translate(None, b"\0")


def _divide(numbers: NDArray[np.integer], by: int) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """Quotient and remainder; one division, because numpy's `divmod` does two slow ones."""
    quotient = numbers // by
    return quotient, numbers - quotient * by


def _line_buffer(
    probe_ids: IntArray, n_values: int, cell: np.dtype[np.generic]
) -> tuple[NDArray[np.uint8], NDArray[np.void]]:
    """Lines with ids and line ends in place, and a view of where the values go."""
    identifiers = np.char.mod("%d", probe_ids).astype("S")
    start = identifiers.dtype.itemsize
    width = start + n_values * cell.itemsize + 1
    buffer = np.zeros((len(probe_ids), width), np.uint8)
    buffer[:, :start] = identifiers.view(np.uint8).reshape(len(probe_ids), start)
    buffer[:, -1] = ord("\n")
    strides = (width, cell.itemsize)
    cells = np.ndarray((len(probe_ids), n_values), cell, buffer=buffer, offset=start, strides=strides)
    return buffer, cells
